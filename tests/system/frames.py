"""Frames that a container may and may not send, made with scapy, and sockets in containers to send and see them by."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket
import struct
import time
from dataclasses import dataclass

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6_Solicit
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Padding, Raw

from ovsnet.link import open_netns
from ovsnet.link.netns import Host
from ovsnet.switch.openflow import link_local
from tests.harness import Netns

ALL = "ff:ff:ff:ff:ff:ff"
STRANGE_MAC = "02:00:5e:10:20:30"
_SOL_PACKET, _ADD_MEMBERSHIP = 263, 1


@dataclass(frozen=True)
class Party:
    """Somebody on a network."""

    mac: str
    ip: str
    ip6: str

    @property
    def local(self) -> str:
        """The link-local address of its MAC."""
        return str(link_local(self.mac))


def forged(me: Party, other: Party, gateway: Party, tag: int) -> dict[str, Packet]:
    """What `me` may not send."""
    to = Ether(src=me.mac, dst=other.mac)
    both = Ether(src=me.mac, dst=ALL)
    here, here6 = IP(src=me.ip, dst=other.ip), IPv6(src=me.ip6, dst=other.ip6)
    local = IPv6(src=me.local, dst="ff02::1", hlim=255)
    arp = {"hwsrc": me.mac, "pdst": gateway.ip}
    return {
        "IPv4 of a neighbour": to / IP(src=other.ip, dst=gateway.ip) / UDP(),
        "IPv4 of the gateway": both / IP(src=gateway.ip, dst=other.ip) / TCP(flags="R"),
        "IPv4 from elsewhere": both / IP(src="198.51.100.7", dst=other.ip) / UDP(),
        "IPv4 fragment": both / IP(src=other.ip, dst=gateway.ip, frag=20, proto=17) / Raw(b"x" * 40),
        "IPv6 of a neighbour": both / IPv6(src=other.ip6, dst=gateway.ip6) / UDP(),
        "IPv6 link-local of a neighbour": both / IPv6(src=other.local, dst=gateway.ip6) / UDP(),
        "IPv6 behind extension headers": both
        / IPv6(src=gateway.ip6, dst=other.ip6)
        / IPv6ExtHdrHopByHop()
        / IPv6ExtHdrDestOpt()
        / UDP(),
        "IPv6 unspecified": both / IPv6(src="::", dst=other.ip6) / UDP(),
        "ARP reply as the gateway": both / ARP(op=2, psrc=gateway.ip, hwsrc=me.mac, pdst=other.ip, hwdst=other.mac),
        "ARP request as a neighbour": both / ARP(op=1, psrc=other.ip, **arp),
        "ARP with another MAC": both / ARP(op=2, psrc=me.ip, hwsrc=other.mac, pdst=gateway.ip),
        "ARP gratuitous for the gateway": both / ARP(op=1, psrc=gateway.ip, hwsrc=me.mac, pdst=gateway.ip),
        "ARP probe for a neighbour's": both / ARP(op=1, psrc="0.0.0.0", hwsrc=me.mac, pdst=other.ip),  # noqa: S104
        "RARP": Ether(src=me.mac, dst=ALL, type=0x8035) / Raw(bytes(ARP(op=3, **arp))),
        "NA for the gateway": both / local / ICMPv6ND_NA(tgt=gateway.ip6) / ICMPv6NDOptDstLLAddr(lladdr=me.mac),
        "NA for a neighbour": both / here6 / ICMPv6ND_NA(tgt=other.local) / ICMPv6NDOptDstLLAddr(lladdr=me.mac),
        "NA with another MAC": both / local / ICMPv6ND_NA(tgt=me.ip6) / ICMPv6NDOptDstLLAddr(lladdr=other.mac),
        "NS with another MAC": both / local / ICMPv6ND_NS(tgt=gateway.ip6) / ICMPv6NDOptSrcLLAddr(lladdr=other.mac),
        "NS as a neighbour": both
        / IPv6(src=other.ip6, dst="ff02::1", hlim=255)
        / ICMPv6ND_NS(tgt=gateway.ip6)
        / ICMPv6NDOptSrcLLAddr(lladdr=me.mac),
        "NS with two MACs": both
        / local
        / ICMPv6ND_NS(tgt=gateway.ip6)
        / ICMPv6NDOptSrcLLAddr(lladdr=other.mac)
        / ICMPv6NDOptSrcLLAddr(lladdr=me.mac),
        "DAD for a neighbour's": both / IPv6(src="::", dst="ff02::1", hlim=255) / ICMPv6ND_NS(tgt=other.ip6),
        "RA": both / local / ICMPv6ND_RA() / ICMPv6NDOptSrcLLAddr(lladdr=me.mac),
        "RA behind extension headers": both / local / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / ICMPv6ND_RA(),
        "RA from a global address": both / IPv6(src=me.ip6, dst="ff02::1", hlim=255) / ICMPv6ND_RA(),
        "redirect": both / local / ICMPv6ND_Redirect(tgt=me.local, dst="2001:db8::1"),
        "DHCP offer": both
        / IP(src=me.ip, dst="255.255.255.255")
        / UDP(sport=67, dport=68)
        / BOOTP(op=2, yiaddr=other.ip)
        / DHCP(options=[("message-type", "offer"), "end"]),
        "DHCP offer to one": to / here / UDP(sport=67, dport=68) / BOOTP(op=2),
        "DHCPv6 advertisement": both / local / UDP(sport=547, dport=546) / DHCP6_Advertise(),
        "tag of its own network": both / Dot1Q(vlan=tag) / here / UDP(),
        "tag of another network": both / Dot1Q(vlan=tag + 1) / here / UDP(),
        "tag without VLAN": both / Dot1Q(vlan=0, prio=5) / here / UDP(),
        "two tags": both / Dot1AD(vlan=tag) / Dot1Q(vlan=tag + 1) / here / UDP(),
        "MPLS": Ether(src=me.mac, dst=ALL, type=0x8847) / Raw(b"\0\0\x11\x40"),
        "LLDP": Ether(src=me.mac, dst=ALL, type=0x88CC) / Raw(bytes(20)),
        # The last ones: a switch that believes them no longer knows where the neighbour is.
        "MAC of a neighbour": Ether(src=other.mac, dst=ALL) / here / UDP(),
        "MAC of the gateway": Ether(src=gateway.mac, dst=ALL) / here6 / UDP(),
        "MAC of nobody": Ether(src=STRANGE_MAC, dst=ALL) / ARP(op=1, psrc=me.ip, **arp),
    }


def rightful(me: Party, other: Party, gateway: Party) -> dict[str, Packet]:
    """What `me` may send, to `other`'s MAC or to all: it must get there."""
    to = Ether(src=me.mac, dst=other.mac)
    both = Ether(src=me.mac, dst=ALL)
    here6 = IPv6(src=me.ip6, dst=other.ip6, hlim=255)
    local = IPv6(src=me.local, dst="ff02::1", hlim=255)
    nobody = IPv6(src="::", dst="ff02::1", hlim=255)
    return {
        "IPv4": to / IP(src=me.ip, dst=other.ip) / UDP(sport=68, dport=547),
        "IPv4 broadcast": both / IP(src=me.ip, dst="255.255.255.255") / UDP(sport=5353, dport=67),
        "IPv4 multicast": both / IP(src=me.ip, dst="224.0.0.251") / UDP(sport=5353, dport=5353),
        "IPv4 fragment": to / IP(src=me.ip, dst=other.ip, flags="MF", proto=17) / Raw(bytes(64)),
        "IPv6": to / here6 / TCP(sport=67, dport=80),
        "IPv6 link-local": to / IPv6(src=me.local, dst=other.local) / UDP(sport=546, dport=547) / DHCP6_Solicit(),
        "IPv6 extension headers": to / here6 / IPv6ExtHdrDestOpt() / UDP(),
        "ARP": both / ARP(op=1, psrc=me.ip, hwsrc=me.mac, pdst=gateway.ip),
        "ARP gratuitous": both / ARP(op=2, psrc=me.ip, hwsrc=me.mac, pdst=me.ip),
        "ARP probe": both / ARP(op=1, psrc="0.0.0.0", hwsrc=me.mac, pdst=me.ip),  # noqa: S104
        "DHCP discovery": both
        / IP(src="0.0.0.0", dst="255.255.255.255")  # noqa: S104
        / UDP(sport=68, dport=67)
        / BOOTP()
        / DHCP(options=[("message-type", "discover"), "end"]),
        "NS": to / here6 / ICMPv6ND_NS(tgt=other.ip6) / ICMPv6NDOptSrcLLAddr(lladdr=me.mac),
        "NS without MAC": to / local / ICMPv6ND_NS(tgt=gateway.local),
        "NA": to / here6 / ICMPv6ND_NA(tgt=me.ip6) / ICMPv6NDOptDstLLAddr(lladdr=me.mac),
        "NA link-local": to / local / ICMPv6ND_NA(tgt=me.local) / ICMPv6NDOptDstLLAddr(lladdr=me.mac),
        "NA without MAC": to / local / ICMPv6ND_NA(tgt=me.local),
        "DAD": to / nobody / ICMPv6ND_NS(tgt=me.ip6),
        "DAD link-local": to / nobody / ICMPv6ND_NS(tgt=me.local),
        "RS": to / nobody / ICMPv6ND_RS(),
        "RS with MAC": to / local / ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=me.mac),
        "MLD before an address": to / nobody / IPv6ExtHdrHopByHop() / ICMPv6MLReport2(),
        "MLD": to / local / IPv6ExtHdrHopByHop() / ICMPv6MLReport2(),
    }


def packet_socket(netns: Netns, device: str) -> socket.socket:
    """A socket that sends and receives frames by a device in that namespace, also those for others."""

    def make() -> socket.socket:
        found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            found.bind((device, 3))  # ETH_P_ALL
            index = struct.pack("iHH8x", socket.if_nametoindex(device), 1, 0)
            found.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, index)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        except OSError:
            found.close()
            raise
        return found

    host = Host()
    try:
        with open_netns(str(netns.path)) as opened:
            return host.inside(opened, make)
    finally:
        host.close()


class Ear:
    """Hears every frame at a device, and knows those again that bear a mark."""

    def __init__(self, netns: Netns, device: str) -> None:
        self._socket = packet_socket(netns, device)
        self._heard: list[bytes] = []

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def hears(self, mark: bytes, wait: float = 0.0) -> bool:
        """Whether a frame with that mark has come, or comes in so many seconds."""
        self._socket.settimeout(wait or 0.001)
        with contextlib.suppress(TimeoutError, BlockingIOError):
            while not any(mark in frame for frame in self._heard):
                self._heard.append(self._socket.recv(4096))
        return any(mark in frame for frame in self._heard)

    def heard(self) -> list[bytes]:
        """All frames up to now."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._heard.append(self._socket.recv(4096))
        return self._heard


def marked(packet: Packet) -> tuple[bytes, bytes]:
    """The frame with a mark of its own behind all that it says, and the mark."""
    mark = b"#" + secrets.token_hex(8).encode() + b"#"
    return bytes(packet / Padding(b"\0" * 32 + mark)), mark


def through(sender: socket.socket, packets: dict[str, Packet], ears: list[Ear], fence: Packet) -> dict[str, int]:
    """Send all, and tell how many ears have heard each. A port keeps their order: once the fence has come, all have."""
    marks = {}
    for name, packet in packets.items():
        frame, marks[name] = marked(packet)
        sender.send(frame)
    frame, last = marked(fence)
    until = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError):  # its queue may be full while vswitchd is away
            sender.send(frame)
        if all(ear.hears(last, wait=0.2) for ear in ears):
            break
        assert time.monotonic() < until, "not even what is rightful passes"
    return {name: sum(ear.hears(mark) for ear in ears) for name, mark in marks.items()}


def fence(me: Party) -> Packet:
    """A frame of `me` to everybody that must pass."""
    return Ether(src=me.mac, dst=ALL) / ARP(op=1, psrc=me.ip, hwsrc=me.mac, pdst=str(ipaddress.ip_address(me.ip) + 1))
