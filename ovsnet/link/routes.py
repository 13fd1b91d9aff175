"""Gateway routes that step aside for a moment: the one place with policy rules, and not on any hot path, hence pyroute2."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable, Iterator
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ..errors import LinkFailed
from ..model import IPInterface

TABLE = 28534  # "ov" in ASCII; holds hidden gateway routes only
PRIORITY = 28534  # of the rules that lead there: before the main table's 32766
_ALREADY = {"add": {errno.EEXIST}, "del": {errno.ESRCH, errno.ENOENT}}  # a rule is ENOENT, a route ESRCH
_MAIN = 254
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_METRIC_IPV6 = 256  # of connected routes (IP6_RT_PRIO_ADDRCONF); IPv4 has none


def hide(device: str, addresses: Iterable[IPInterface]) -> None:
    """Move the connected routes of `device` to a table of ours, led to by a rule each; again is harmless. LinkFailed."""
    with IPRoute() as ip:
        index = _index(ip, device)
        if index is None:
            raise LinkFailed(f"device {device} is missing", hint="see ovs-vswitchd's log", device=device)
        for address in addresses:
            with _reported(device, address):
                # In this order, and the reverse one below, the subnet is reachable at every moment.
                _do(ip.route, "add", table=TABLE, **_connected(index, address))
                _do(ip.rule, "add", **_rule(address))
                _do(ip.route, "del", table=_MAIN, **_connected(index, address))


def show(device: str, addresses: Iterable[IPInterface]) -> None:
    """Undo `hide`; again is harmless. Of a device that has gone, and its routes with it, the rules are left. LinkFailed."""
    with IPRoute() as ip:
        index = _index(ip, device)
        for address in addresses:
            with _reported(device, address):
                if index is not None:
                    _do(ip.route, "add", table=_MAIN, **_connected(index, address))
                _do(ip.rule, "del", **_rule(address))
                if index is not None:
                    _do(ip.route, "del", table=TABLE, **_connected(index, address))


def _index(ip: Any, device: str) -> int | None:
    return next(iter(ip.link_lookup(ifname=device)), None)


def _connected(index: int, address: IPInterface) -> dict[str, Any]:
    """The route that the kernel makes of an address, to the last attribute: deletion by anything less misses it."""
    route = {"family": _FAMILY[address.version], "dst": str(address.network), "oif": index, "proto": "kernel"}
    if address.version == 4:
        return route | {"prefsrc": str(address.ip), "scope": "link"}
    return route | {"priority": _METRIC_IPV6}


def _rule(address: IPInterface) -> dict[str, Any]:
    return {
        "family": _FAMILY[address.version],
        "dst": str(address.network.network_address),
        "dst_len": address.network.prefixlen,
        "table": TABLE,
        "priority": PRIORITY,
    }


@contextlib.contextmanager
def _reported(device: str, address: IPInterface) -> Iterator[None]:
    try:
        yield
    except NetlinkError as exc:
        raise LinkFailed(f"{device}: cannot move the route to {address.network}: {exc}", device=device) from exc


def _do(what: Any, command: str, **arguments: Any) -> None:
    try:
        what(command, **arguments)
    except NetlinkError as exc:
        if exc.code not in _ALREADY[command]:
            raise
