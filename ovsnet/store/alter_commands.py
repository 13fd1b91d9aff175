"""Changes of endpoints and networks that carry traffic; see `commands` for how commands work."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..errors import Conflict, EndpointNotFound, NetworkNotFound, TagInUse
from ..model import Endpoint
from ..ovsdb import Transaction
from . import rows
from .commands import StoreCommand, claim_published


class AlterEndpoint(StoreCommand):
    """Write labels, limits and published ports of `wanted`, an endpoint as it is to be, and what `giver`, another one of its
    node, has left of its published ports; both or neither. `result` is the Endpoint then. PortInUse, EndpointNotFound.
    """

    def __init__(self, api: Any, wanted: Endpoint, giver: Endpoint | None) -> None:
        super().__init__(api)
        self.wanted = wanted
        self.both = [wanted] if giver is None else [giver, wanted]
        self.planned = wanted

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        for one in self.both:
            if one.uuid not in self.view.endpoints or one.uuid in txn.scratch.get("detached", ()):
                raise EndpointNotFound(f"endpoint {one.uuid} does not exist any more")
        ports = [port for one in self.both for port in one.published]
        claim_published(self.view, txn, self.wanted.node, ports, {one.uuid for one in self.both})
        for one in self.both:
            row, have = self.row("Endpoint", one.uuid), self.view.endpoints[one.uuid]
            if set(one.published) != set(have.published):
                row.published = [str(port) for port in one.published]
            if one.bandwidth != have.bandwidth:
                row.bandwidth = rows.bandwidth(one.bandwidth)
            if one.labels != have.labels:
                row.labels = dict(one.labels)

    def post_commit(self, txn: Transaction) -> None:
        """The Endpoint as it is now."""
        del txn
        self.result = self.view.endpoints.get(self.wanted.uuid)
        if self.result is None:
            raise EndpointNotFound(f"endpoint {self.wanted.uuid} does not exist any more")


class SetNetworkTag(StoreCommand):
    """Give a network another VLAN tag; the same again is success. `result` is the Network.

    TagInUse, Conflict, NetworkNotFound.
    """

    def __init__(self, api: Any, uuid: str, tag: int) -> None:
        super().__init__(api)
        self.uuid = uuid
        self.tag = tag

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        del txn
        network = self.view.networks.get(self.uuid)
        if network is None:
            raise NetworkNotFound(f"network {self.uuid} does not exist any more")
        self.planned = dataclasses.replace(network, tag=self.tag)
        if network.tag == self.tag:
            return
        for other in self.view.networks.values():
            if (other.bridge, other.tag) == (network.bridge, self.tag):
                raise TagInUse(
                    f"VLAN {self.tag} of bridge {network.bridge} belongs to network {other.name}",
                    hint="choose another tag",
                )
        for one in self.view.by_network.get(self.uuid, {}).values():
            if one.trunk:
                raise Conflict(
                    f"container {one.container[:40]} has a trunk port on network {network.name}, whose untagged VLAN cannot be "
                    "changed while it stands",
                    hint="detach it first",
                )
        self.row("Network", self.uuid).tag = self.tag

    def post_commit(self, txn: Transaction) -> None:
        """The Network as it is now."""
        del txn
        self.result = self.view.networks.get(self.uuid)
        if self.result is None:
            raise NetworkNotFound(f"network {self.uuid} does not exist any more")
