"""What the owner of a port may send, as flows: from its own MAC and addresses, and nothing that speaks for others.

Pure. A packet from a port of ours meets these tables before all other flows of the bridge, and what passes goes through table 0 a
second time, marked, as if we were not there: NORMAL on our bridges, whatever its owner wants on somebody else's.

    0       per port: MAC and tag are right -> SOURCE; anything else: dropped
    SOURCE  per port: its addresses -> SAID, its ARP passes; common: who has no address yet may ask for one
    SAID    common: no DHCP server, no router; neighbour solicitations -> OPTION, advertisements -> TARGET; the rest passes
    TARGET  per port: whose address is advertised, or tried out
    OPTION  per port: the MAC inside solicitations and advertisements

A port that is nobody's, and that nobody is expected to get, has one flow, which drops everything. Flows carry in their cookie
whose they are: node and port number.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable

from ..model import Sender
from . import openflow as of
from .openflow import Flow, Match

SOURCE, SAID, TARGET, OPTION = 240, 241, 242, 243  # tables that nobody else is likely to use

OURS = 0x6F76 << 48  # any ovsnet's
OURS_MASK = 0xFFFF << 48
NODE_MASK = 0xFFFFFFFF << 32

_REGISTER, _BIT = 15, 31  # has passed
_PASS = of.mark(_REGISTER, _BIT) + of.resubmit(0)
_NO_MAC = "00:00:00:00:00:00"
_SOLICITATION, _ADVERTISEMENT = 135, 136  # RFC 4861, section 4
_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT, _REDIRECT = 133, 134, 137
_MLD_REPORTS = (131, 143)  # RFC 2710, RFC 3810
_ANY4, _ANY6 = ipaddress.IPv4Address(0), ipaddress.IPv6Address(0)


def node_cookie(node: str) -> int:
    """What the cookies of all flows of one node's ports begin with."""
    return OURS | int.from_bytes(hashlib.sha256(node.encode()).digest()[:2]) << 32


def common() -> tuple[Flow, ...]:
    """The flows of a bridge on which ports are guarded, the same whoever guards them."""
    rules: list[tuple[int, int, Iterable[Match], bytes]] = [
        (SOURCE, 20, {*of.source(_ANY4), *of.udp(4, 68, 67)}, _PASS),
        (SOURCE, 20, {*of.source(_ANY6), *of.icmp6(_SOLICITATION, 0)}, of.resubmit(TARGET)),
        (SOURCE, 15, of.arp(), b""),
        (SAID, 20, of.udp(4, 67), b""),
        (SAID, 20, of.udp(6, 547), b""),
        (SAID, 20, of.icmp6(_ROUTER_ADVERTISEMENT), b""),
        (SAID, 20, of.icmp6(_REDIRECT), b""),
        (SAID, 20, of.icmp6(_SOLICITATION, 0), of.resubmit(OPTION)),
        (SAID, 20, of.icmp6(_ADVERTISEMENT, 0), of.resubmit(TARGET)),
        (SAID, 15, of.icmp6(_SOLICITATION), b""),
        (SAID, 15, of.icmp6(_ADVERTISEMENT), b""),
        (SAID, 0, (), _PASS),
        (OPTION, 30, of.nd(_SOLICITATION, target=_ANY6), b""),  # so malformed ones look, whatever they hold
        (OPTION, 20, of.nd(_SOLICITATION, source_mac=_NO_MAC), _PASS),
        (OPTION, 20, of.nd(_ADVERTISEMENT, target_mac=_NO_MAC), _PASS),
    ]
    for kind in (_ROUTER_SOLICITATION, *_MLD_REPORTS):
        rules.append((SOURCE, 20, {*of.source(_ANY6), *of.icmp6(kind)}, _PASS))
    return tuple(Flow(table, priority, OURS, frozenset(match), then) for table, priority, match, then in rules)


def guard(node: int, number: int, sender: Sender | None) -> tuple[Flow, ...]:
    """The flows of port `number`, in the order in which they may be added to it; `node` is a `node_cookie`.

    A sender without addresses may use any, from its MAC.
    """
    port = of.in_port(number)
    entry = (*port, *of.unmarked(_REGISTER, _BIT))
    rules: list[tuple[int, int, Iterable[Match], bytes]] = [(0, 65534, entry, b"")]
    if sender is not None:
        mac = sender.mac
        neighbours = not sender.addresses
        if sender.addresses:
            for address in sender.addresses:
                rules.append((SOURCE, 20, (*port, *of.source(address)), of.resubmit(SAID)))
                if address.version == 4:
                    probe = of.arp(1, sender_mac=mac, sender=_ANY4, target=address)
                    rules.append((SOURCE, 20, (*port, *of.arp(sender_mac=mac, sender=address)), _PASS))
                    rules.append((SOURCE, 20, (*port, *probe), _PASS))
            own6 = [one for one in sender.addresses if one.version == 6]
            if own6:
                neighbours = True
                link_local = of.link_local(mac)
                rules.append((SOURCE, 20, (*port, *of.source(link_local)), of.resubmit(SAID)))
                for target in {link_local, *own6}:
                    rules.append((TARGET, 20, (*port, *of.nd(_SOLICITATION, target=target)), _PASS))
                    rules.append((TARGET, 20, (*port, *of.nd(_ADVERTISEMENT, target=target)), of.resubmit(OPTION)))
        else:
            rules.append((SOURCE, 10, port, of.resubmit(SAID)))
            rules.append((SOURCE, 20, (*port, *of.arp(sender_mac=mac)), _PASS))
            rules.append((TARGET, 20, (*port, *of.nd(_SOLICITATION)), _PASS))
            rules.append((TARGET, 20, (*port, *of.nd(_ADVERTISEMENT)), of.resubmit(OPTION)))
        if neighbours:
            rules.append((OPTION, 20, (*port, *of.nd(_SOLICITATION, source_mac=mac)), _PASS))
            rules.append((OPTION, 20, (*port, *of.nd(_ADVERTISEMENT, target_mac=mac)), _PASS))
        right = (*entry, *of.eth_src(mac))
        if sender.trunk:
            rules.append((0, 65535, (*right, *of.tagged()), _PASS))
        rules.append((0, 65535, (*right, *of.untagged()), of.resubmit(SOURCE)))
    cookie = node | number
    return tuple(Flow(table, priority, cookie, frozenset(match), then) for table, priority, match, then in rules)
