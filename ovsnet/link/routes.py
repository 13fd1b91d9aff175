"""Gateway routes that step aside for a moment: the one place with policy rules, and not on any hot path, hence pyroute2."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ..errors import LinkFailed
from ..model import IPInterface

TABLE = 28534  # "ov" in ASCII; holds hidden gateway routes only
PRIORITY = 28534  # of the rules that lead there: before the main table's 32766
_ALREADY = {errno.EEXIST, errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL}
_MAIN = 254
_FAMILY = {4: 2, 6: 10}  # AF_INET, AF_INET6


def hide(device: str, addresses: Iterable[IPInterface]) -> None:
    """Move the connected routes of `device` to a table of ours, led to by a rule each; again is harmless. LinkFailed."""
    _each(device, addresses, _hide)


def show(device: str, addresses: Iterable[IPInterface]) -> None:
    """Undo `hide`; again is harmless. LinkFailed."""
    _each(device, addresses, _show)


def _hide(ip: Any, family: int, index: int, address: IPInterface) -> None:
    subnet = str(address.network)
    _do(ip.route, "add", family=family, dst=subnet, oif=index, table=TABLE, **_source(address))
    _do(ip.rule, "add", family=family, dst=subnet, table=TABLE, priority=PRIORITY)
    _do(ip.route, "del", family=family, dst=subnet, oif=index, table=_MAIN)


def _show(ip: Any, family: int, index: int, address: IPInterface) -> None:
    subnet = str(address.network)
    _do(ip.route, "add", family=family, dst=subnet, oif=index, table=_MAIN, proto="kernel", **_source(address))
    _do(ip.rule, "del", family=family, dst=subnet, table=TABLE, priority=PRIORITY)
    _do(ip.route, "del", family=family, dst=subnet, oif=index, table=TABLE)


def _source(address: IPInterface) -> dict[str, Any]:
    return {"prefsrc": str(address.ip), "scope": "link"} if address.version == 4 else {"priority": 256}


def _each(device: str, addresses: Iterable[IPInterface], act: Any) -> None:
    with IPRoute() as ip:
        found = ip.link_lookup(ifname=device)
        if not found:
            raise LinkFailed(f"device {device} is missing", hint="see ovs-vswitchd's log", device=device)
        for address in addresses:
            try:
                act(ip, _FAMILY[address.version], found[0], address)
            except NetlinkError as exc:
                raise LinkFailed(f"{device}: cannot move the route to {address.network}: {exc}", device=device) from exc


def _do(what: Any, command: str, **arguments: Any) -> None:
    try:
        what(command, **arguments)
    except NetlinkError as exc:
        if exc.code not in _ALREADY:
            raise
