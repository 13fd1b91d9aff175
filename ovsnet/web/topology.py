"""The topology as nodes and edges for the drawing: bridges, their networks, and the networks' endpoints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from ovsnet.model import Endpoint, Network

from .words import count, name_of, state_of

MOST = 40  # endpoints of a network that are drawn one by one; more are one node, for nobody could tell them apart
MOST_DRAWN = 300  # of all networks


def draw(networks: Sequence[Network], endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """`nodes` with id, kind, label, path and state, and `edges` with id, source and target."""
    members: dict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in endpoints:
        members[endpoint.network].append(endpoint)
    nodes = [_node(f"bridge {name}", "bridge", name, "/") for name in sorted({one.bridge for one in networks})]
    edges = []
    left = MOST_DRAWN
    for network in networks:
        path = f"/ui/endpoints?network={network.uuid}"
        label = f"{network.name}\n{f'VLAN {network.tag}' if network.tag else 'untagged'}"
        nodes.append(_node(network.uuid, "network", label, path))
        edges.append(_edge(f"bridge {network.bridge}", network.uuid))
        own = members[network.uuid]
        if len(own) <= min(MOST, left):
            left -= len(own)
            shown = [
                _node(one.uuid, one.origin.value, name_of(one), path, state=state_of(one).replace(" ", "-"))
                for one in own
            ]
        else:
            shown = [_node(f"all {network.uuid}", "crowd", count(len(own), "endpoint"), path)]
        nodes += shown
        edges += [_edge(network.uuid, one["id"]) for one in shown]
    return {"nodes": nodes, "edges": edges}


def _node(ident: str, kind: str, label: str, path: str, *, state: str = "") -> dict[str, str]:
    return {"id": ident, "kind": kind, "label": label, "path": path, "state": state}


def _edge(source: str, target: str) -> dict[str, str]:
    return {"id": f"to {target}", "source": source, "target": target}
