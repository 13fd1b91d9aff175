"""Does anybody answer for an address? One ARP or Neighbour Discovery probe on a device, before the address is handed out.

IPv4: an ARP probe (RFC 5227, section 2.1.1: sender address 0.0.0.0). IPv6: a neighbour solicitation as in duplicate address
detection (RFC 4862, section 5.4.2: from the unspecified address). Both are link-local frames; nothing is learnt from them.
"""

from __future__ import annotations

import select
import socket
import struct
import time

from ..model import IPAddress

_ARP, _IPV6 = 0x0806, 0x86DD
_ICMPV6, _NS, _NA = 58, 135, 136


def answered(device: str, mac: str, address: IPAddress, seconds: float) -> str | None:
    """The MAC of whoever answers for `address` on the link of `device` within `seconds`, or None. OSError if it cannot be asked.

    `mac` is the device's own.
    """
    own = bytes.fromhex(mac.replace(":", ""))
    ipv6 = address.version == 6
    frame = _solicitation(own, address.packed) if ipv6 else _arp_probe(own, address.packed)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as sock:
        sock.bind((device, _IPV6 if ipv6 else _ARP))
        sock.send(frame)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not select.select([sock], [], [], left)[0]:
                break
            data = sock.recv(2048)
            if data[6:12] == own:
                continue
            if (_advertises if ipv6 else _replies)(data, address.packed):
                return ":".join(f"{byte:02x}" for byte in data[6:12])
    return None


def _arp_probe(own: bytes, target: bytes) -> bytes:
    """An ARP request (RFC 826) that tells nobody an address of ours."""
    header = b"\xff" * 6 + own + struct.pack("!H", _ARP)
    return header + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + own + bytes(4) + bytes(6) + target


def _replies(frame: bytes, address: bytes) -> bool:
    """An ARP packet whose sender claims the address."""
    return len(frame) >= 42 and frame[12:14] == b"\x08\x06" and frame[28:32] == address


def _solicitation(own: bytes, target: bytes) -> bytes:
    """A neighbour solicitation (RFC 4861, section 4.3) to the target's solicited-node address."""
    group = bytes.fromhex("ff0200000000000000000001ff") + target[-3:]
    body = struct.pack("!BBHI", _NS, 0, 0, 0) + target
    pseudo = bytes(16) + group + struct.pack("!II", len(body), _ICMPV6)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255) + bytes(16) + group
    return b"\x33\x33" + group[-4:] + own + struct.pack("!H", _IPV6) + header + body


def _advertises(frame: bytes, address: bytes) -> bool:
    """A neighbour advertisement (RFC 4861, section 4.4) for the address."""
    return len(frame) >= 78 and frame[20] == _ICMPV6 and frame[54] == _NA and frame[62:78] == address


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
