"""OpenFlow 1.3 as far as we speak it: messages to bytes and back, with Open vSwitch's two extensions that we need.

Pure. Sources: OpenFlow Switch Specification 1.3.5 (section numbers below), ovs-fields(7) for registers, ovs-actions(7) for
`load` and `resubmit`. Everything is in network byte order; messages are complete with their header.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..model import IPAddress

VERSION = 4  # OpenFlow 1.3
ALL_TABLES = 0xFF
EXACT = (1 << 64) - 1  # mask of a cookie

# A.1: message types.
HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY = 0, 1, 2, 3
GET_CONFIG_REQUEST, GET_CONFIG_REPLY, SET_CONFIG = 7, 8, 9
PORT_STATUS, PACKET_OUT, FLOW_MOD = 12, 13, 14
MULTIPART_REQUEST, MULTIPART_REPLY, BARRIER_REQUEST, BARRIER_REPLY = 18, 19, 20, 21
SET_ASYNC = 28

HELLO_FAILED = 0  # A.4.4: a type of ERROR
PORT_ADDED, PORT_DELETED = 0, 1  # A.4.3: reasons of PORT_STATUS

_FLOWS, _COUNT, _PORTS = 1, 2, 13  # A.3.5: multipart types
_ADD, _DELETE, _DELETE_STRICT = 0, 3, 4  # A.3.4.1
_ANY = 0xFFFFFFFF
_NORMAL = 0xFFFFFFFA  # A.2.1: the port that stands for what a switch does without OpenFlow
_OWN_ETHERTYPE = 0x88B5  # IEEE 802, section 9.2.4: for experiments of one's own
_SOME_PACKET_BYTES = 128  # miss_send_len: with 0 Open vSwitch sends a connection like ours nothing of its own accord
_MORE = 1

_HEADER = struct.Struct("!BBHI")
_FLOW_MOD = struct.Struct("!QQBBHHHIIIH2x")
_FLOW_STATS = struct.Struct("!HBxIIHHHH4xQQQ")
_PORT = struct.Struct("!I4x6s2x16s32x")
_MATCH = struct.Struct("!HH")

_BASIC, _NICIRA = 0x8000, 0x0001  # A.2.3.2: classes of match fields
_NICIRA_VENDOR = 0x00002320


@dataclass(frozen=True, slots=True)
class Match:
    """A match field with its value and, if not None, its mask; `field` is class and number."""

    field: tuple[int, int]
    value: bytes
    mask: bytes | None = None

    def encode(self) -> bytes:
        """In OXM's form (A.2.3.2)."""
        body = self.value + (self.mask or b"")
        oxm_class, number = self.field
        return struct.pack("!HBB", oxm_class, number << 1 | (self.mask is not None), len(body)) + body


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow without its counters and timeouts. `actions` are encoded; none at all drops the packet."""

    table: int
    priority: int
    cookie: int
    match: frozenset[Match]
    actions: bytes = b""


# -- matches (A.2.3.7), each with what must stand beside it ----------------------------------------------------------------


def in_port(number: int) -> tuple[Match, ...]:
    """Came in by that port."""
    return (Match((_BASIC, 0), struct.pack("!I", number)),)


def eth_src(mac: str) -> tuple[Match, ...]:
    """Has that source MAC."""
    return (Match((_BASIC, 4), _mac(mac)),)


def untagged() -> tuple[Match, ...]:
    """Has no VLAN tag, not even one of priority only."""
    return (Match((_BASIC, 6), b"\0\0"),)


def tagged() -> tuple[Match, ...]:
    """Has a VLAN tag."""
    return (Match((_BASIC, 6), b"\x10\0", b"\x10\0"),)


def unmarked(register: int, bit: int) -> tuple[Match, ...]:
    """A bit of a register is not set (Open vSwitch's field, NXM_NX_REG0 and so on)."""
    return (Match((_NICIRA, register), bytes(4), struct.pack("!I", 1 << bit)),)


def arp(
    operation: int | None = None,
    *,
    sender_mac: str = "",
    sender: IPAddress | None = None,
    target: IPAddress | None = None,
) -> tuple[Match, ...]:
    """Is ARP, with what is given."""
    found = [_eth_type(0x0806)]
    if operation is not None:
        found.append(Match((_BASIC, 21), struct.pack("!H", operation)))
    if sender is not None:
        found.append(Match((_BASIC, 22), sender.packed))
    if target is not None:
        found.append(Match((_BASIC, 23), target.packed))
    if sender_mac:
        found.append(Match((_BASIC, 24), _mac(sender_mac)))
    return tuple(found)


def source(address: IPAddress) -> tuple[Match, ...]:
    """Is IPv4 or IPv6 from that address."""
    if address.version == 4:
        return (_eth_type(0x0800), Match((_BASIC, 11), address.packed))
    return (_eth_type(0x86DD), Match((_BASIC, 26), address.packed))


def udp(version: int, source_port: int, port: int | None = None) -> tuple[Match, ...]:
    """Is UDP from that port, and to `port` if one is given."""
    found = [_ip(version), Match((_BASIC, 10), b"\x11"), Match((_BASIC, 15), struct.pack("!H", source_port))]
    if port is not None:
        found.append(Match((_BASIC, 16), struct.pack("!H", port)))
    return tuple(found)


def icmp6(kind: int, code: int | None = None) -> tuple[Match, ...]:
    """Is ICMPv6 of that type, and of that code if one is given."""
    found = [_ip(6), Match((_BASIC, 10), b"\x3a"), Match((_BASIC, 29), bytes([kind]))]
    if code is not None:
        found.append(Match((_BASIC, 30), bytes([code])))
    return tuple(found)


def nd(kind: int, *, target: IPAddress | None = None, source_mac: str = "", target_mac: str = "") -> tuple[Match, ...]:
    """Is Neighbour Discovery (RFC 4861): a solicitation (135) or an advertisement (136), with what is given.

    A MAC of zeros stands for an option that is missing.
    """
    found = list(icmp6(kind, 0))
    if target is not None:
        found.append(Match((_BASIC, 31), target.packed))
    if source_mac:
        found.append(Match((_BASIC, 32), _mac(source_mac)))
    if target_mac:
        found.append(Match((_BASIC, 33), _mac(target_mac)))
    return tuple(found)


def _eth_type(number: int) -> Match:
    return Match((_BASIC, 5), struct.pack("!H", number))


def _ip(version: int) -> Match:
    return _eth_type(0x0800 if version == 4 else 0x86DD)


def _mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


# -- actions (Open vSwitch's, ovs-actions(7)) ---------------------------------------------------------------------------


def resubmit(table: int) -> bytes:
    """Look the packet up in another table, or in the same again."""
    return struct.pack("!HHIHHB3x", 0xFFFF, 16, _NICIRA_VENDOR, 14, 0xFFF8, table)


def mark(register: int, bit: int) -> bytes:
    """Set a bit of a register."""
    field = _NICIRA << 16 | register << 9 | 4
    return struct.pack("!HHIHHIQ", 0xFFFF, 24, _NICIRA_VENDOR, 7, bit << 6, field, 1)


# -- messages -----------------------------------------------------------------------------------------------------------


def message(kind: int, xid: int, body: bytes = b"") -> bytes:
    """A message with its header (A.1)."""
    return _HEADER.pack(VERSION, kind, _HEADER.size + len(body), xid) + body


def hello(xid: int) -> bytes:
    """The greeting, with the one version that we speak (A.5.1)."""
    return message(HELLO, xid, struct.pack("!HHI", 1, 8, 1 << VERSION))


def add(flow: Flow, xid: int) -> bytes:
    """Add a flow, or put it in the place of one with the same match and priority."""
    return _flow_mod(_ADD, flow, 0, xid)


def delete(flow: Flow, xid: int) -> bytes:
    """Delete this one flow; missing is fine."""
    return _flow_mod(_DELETE_STRICT, flow, EXACT, xid)


def delete_by_cookie(cookie: int, mask: int, xid: int) -> bytes:
    """Delete the flows of all tables whose cookie agrees under the mask; with EXACT they are found by index."""
    return _flow_mod(_DELETE, Flow(ALL_TABLES, 0, cookie, frozenset()), mask, xid)


def _flow_mod(command: int, flow: Flow, mask: int, xid: int) -> bytes:
    body = _FLOW_MOD.pack(
        flow.cookie, mask, flow.table, command, 0, 0, flow.priority, _ANY, _ANY, _ANY, 0
    ) + encode_match(flow.match)
    if command == _ADD and flow.actions:
        body += struct.pack("!HH4x", 4, 8 + len(flow.actions)) + flow.actions  # A.2.4: apply them
    return message(FLOW_MOD, xid, body)


def encode_match(match: Iterable[Match]) -> bytes:
    """In OXM's form, padded to eight bytes. A field stands behind those that it presupposes, which have lower numbers."""
    fields = b"".join(one.encode() for one in sorted(match, key=_order))
    length = _MATCH.size + len(fields)
    return _MATCH.pack(1, length) + fields + bytes(-length % 8)


def _order(match: Match) -> tuple[int, int]:
    return -match.field[0], match.field[1]


def announce(mac: str, number: int, xid: int) -> bytes:
    """Have the switch learn that `mac` is behind port `number`, by a frame that comes from there and leads there (A.3.7)."""
    frame = _mac(mac) * 2 + struct.pack("!H46x", _OWN_ETHERTYPE)
    output = struct.pack("!HHIH6x", 0, 16, _NORMAL, 0)
    return message(PACKET_OUT, xid, struct.pack("!IIH6x", _ANY, number, len(output)) + output + frame)


def barrier(xid: int) -> bytes:
    """Ask for an answer once everything before has been done (A.3.8)."""
    return message(BARRIER_REQUEST, xid)


def set_config(flags: int, xid: int) -> bytes:
    """Give the bridge its own `flags` back, and ask for asynchronous messages (A.3.2)."""
    return message(SET_CONFIG, xid, struct.pack("!HH", flags, _SOME_PACKET_BYTES))


def only_port_status(xid: int) -> bytes:
    """Of the asynchronous messages we want those on ports (A.3.10)."""
    return message(SET_ASYNC, xid, struct.pack("!6I", 0, 0, 0b111, 0b111, 0, 0))


def ask_ports(xid: int) -> bytes:
    """Ask for all ports (A.3.5.7)."""
    return message(MULTIPART_REQUEST, xid, struct.pack("!HH4x", _PORTS, 0))


def ask_flows(cookie: int, mask: int, xid: int) -> bytes:
    """Ask for the flows whose cookie agrees under the mask (A.3.5.2)."""
    return _ask(_FLOWS, cookie, mask, xid)


def ask_count(cookie: int, mask: int, xid: int) -> bytes:
    """Ask for their number (A.3.5.3)."""
    return _ask(_COUNT, cookie, mask, xid)


def _ask(kind: int, cookie: int, mask: int, xid: int) -> bytes:
    where = struct.pack("!B3xII4xQQ", ALL_TABLES, _ANY, _ANY, cookie, mask)
    return message(MULTIPART_REQUEST, xid, struct.pack("!HH4x", kind, 0) + where + encode_match(()))


def split(received: bytearray) -> Iterator[tuple[int, int, bytes]]:
    """Take the complete messages off the front: type, xid, body. ValueError for what is no OpenFlow."""
    while len(received) >= _HEADER.size:
        _, kind, length, xid = _HEADER.unpack_from(received)
        if length < _HEADER.size:
            raise ValueError(f"a message of {length} bytes")
        if len(received) < length:
            return
        body = bytes(received[_HEADER.size : length])
        del received[:length]
        yield kind, xid, body


def error(body: bytes) -> tuple[int, int]:
    """Type and code of an ERROR (A.4.4)."""
    kind, code = struct.unpack_from("!HH", body)
    return kind, code


def config_flags(body: bytes) -> int:
    """The flags in a GET_CONFIG_REPLY."""
    (flags,) = struct.unpack_from("!H", body)
    return int(flags)


def last_part(body: bytes) -> bool:
    """Whether a MULTIPART_REPLY is the last one of its answer."""
    (flags,) = struct.unpack_from("!H", body, 2)
    return not flags & _MORE


def port_status(body: bytes) -> tuple[int, str, int]:
    """Reason, name and number of a PORT_STATUS."""
    name, number = _port(body, 8)
    return body[0], name, number


def ports(body: bytes) -> Iterator[tuple[str, int]]:
    """Names and numbers in an answer to `ask_ports`."""
    for offset in range(8, len(body), _PORT.size):
        yield _port(body, offset)


def _port(body: bytes, offset: int) -> tuple[str, int]:
    number, _, name = _PORT.unpack_from(body, offset)
    return name.rstrip(b"\0").decode(errors="replace"), number


def count(body: bytes) -> int:
    """The number in an answer to `ask_count`."""
    (number,) = struct.unpack_from("!I", body, 8 + 16)
    return int(number)


def flows(body: bytes) -> Iterator[Flow]:
    """The flows in an answer to `ask_flows`."""
    offset = 8
    while offset < len(body):
        length, table, _, _, priority, _, _, _, cookie, _, _ = _FLOW_STATS.unpack_from(body, offset)
        start, end = offset + _FLOW_STATS.size, offset + length
        _, match_length = _MATCH.unpack_from(body, start)
        match = frozenset(_matches(body[start + _MATCH.size : start + match_length]))
        instructions = body[start + match_length + -match_length % 8 : end]
        yield Flow(table, priority, cookie, match, instructions[8:])  # of ours each has one instruction at most
        offset = end


def _matches(body: bytes) -> Iterator[Match]:
    offset = 0
    while offset < len(body):
        oxm_class, number, length = struct.unpack_from("!HBB", body, offset)
        content = body[offset + 4 : offset + 4 + length]
        half = length // 2
        value, mask = (content[:half], content[half:]) if number & 1 else (content, None)
        yield Match((oxm_class, number >> 1), value, mask)
        offset += 4 + length


def link_local(mac: str) -> ipaddress.IPv6Address:
    """The address that the kernel derives from a MAC (RFC 4291, appendix A)."""
    raw = bytearray(_mac(mac))
    raw[0] ^= 2
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes(raw[:3]) + b"\xff\xfe" + bytes(raw[3:]))
