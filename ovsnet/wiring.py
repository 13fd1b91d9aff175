"""What a request asked of a container's interface beside what an endpoint's other columns hold: kept to wire it again.

Pure. Most requests ask for nothing of it, and then nothing is written.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from .model import AttachRequest, Endpoint, Route


def dump(request: AttachRequest) -> str:
    """Routes, settings and promiscuity of a request as JSON; "" if it has nothing but the usual default route."""
    kept: dict[str, Any] = {}
    if request.routes:
        kept["routes"] = [_dump_route(one) for one in request.routes]
    if not request.default_route:
        kept["default_route"] = False
    if request.sysctls:
        kept["sysctls"] = dict(request.sysctls)
    if request.promiscuous:
        kept["promiscuous"] = True
    return json.dumps(kept, sort_keys=True) if kept else ""


def load(endpoint: Endpoint) -> AttachRequest:
    """The request that would wire the endpoint as it was."""
    kept = json.loads(endpoint.wiring) if endpoint.wiring else {}
    return AttachRequest(
        network=endpoint.network,
        container=endpoint.container,
        ifname=endpoint.ifname,
        netns=endpoint.sandbox,
        routes=tuple(_load_route(one) for one in kept.get("routes", ())),
        default_route=kept.get("default_route", True),
        sysctls=kept.get("sysctls", {}),
        promiscuous=kept.get("promiscuous", False),
    )


def _dump_route(route: Route) -> dict[str, Any]:
    numbers = {name: value for name in _NUMBERS if (value := getattr(route, name))}
    found: dict[str, Any] = {"to": str(route.destination)} | numbers
    if route.gateway is not None:
        found["by"] = str(route.gateway)
    if route.scope is not None:
        found["scope"] = route.scope
    return found


def _load_route(kept: dict[str, Any]) -> Route:
    numbers = {name: int(kept[name]) for name in _NUMBERS if name in kept}
    gateway = ipaddress.ip_address(kept["by"]) if "by" in kept else None
    return Route(ipaddress.ip_network(kept["to"]), gateway, **numbers, scope=kept.get("scope"))


_NUMBERS = ("mtu", "advmss", "priority", "table")
