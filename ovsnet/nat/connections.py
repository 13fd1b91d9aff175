"""What the kernel remembers of connections by ports that are published or not any more (ctnetlink)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from ..errors import Unavailable
from ..model import Forwarding, Protocol

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_NUMBERS: Final = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP, Protocol.SCTP: 132}


def forget(forwardings: Iterable[Forwarding]) -> int:
    """Have the kernel forget the connections to these ports of the host, so that their next packet is judged anew.

    A stream of UDP that began before its port was published, or that goes to an endpoint that has gone, would otherwise never
    find the right one as long as it flows. Returns how many there were. Unavailable if the kernel refuses.
    """
    found = 0
    for forwarding in forwardings:
        family = _FAMILIES[forwarding.address.version]
        port = forwarding.port
        wanted = NFCTAttrTuple(family=family, proto=_NUMBERS[port.protocol], dport=port.host_port)
        try:
            with NFCTSocket(nfgen_family=family) as table:
                for entry in list(table.dump(tuple_orig=wanted)):
                    found += _delete(table, family, entry)
        except (NetlinkError, OSError) as exc:
            raise Unavailable(f"connections cannot be listed: {exc}", hint="ovsnetd needs CAP_NET_ADMIN") from None
    return found


def _delete(table: NFCTSocket, family: int, entry: Any) -> int:
    original = NFCTAttrTuple.from_netlink(family, entry.get_attr("CTA_TUPLE_ORIG"))
    try:
        table.entry("del", tuple_orig=original)
    except NetlinkError as exc:
        if exc.code != errno.ENOENT:  # ended meanwhile
            raise
        return 0
    return 1
