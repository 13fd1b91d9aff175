"""The rtnetlink messages that the link room sends, and what it reads from the answers (rtnetlink(7)).

Pure: builders return requests for `wire.Socket`, readers take payloads. Every builder names its errand for the error message.
"""

from __future__ import annotations

import errno
import ipaddress
import struct
from dataclasses import dataclass

from ..errors import InvalidRequest
from ..model import IPAddress, IPInterface, IPNetwork, Route
from ..names import check_mac
from .wire import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Request, attribute, attributes, each_attribute

IFF_UP, IFF_NOARP, IFF_PROMISC = 0x1, 0x80, 0x100
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
MACVLAN = "macvlan"
_OPENVSWITCH = "openvswitch"

RTM_NEWLINK, RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTM_GETNSID = 90
_RTM_DELLINKPROP = 109

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5
_IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_NET_NS_FD, _IFLA_EXT_MASK = 18, 26, 28, 29
_IFLA_STATS64 = 23
_IFLA_PROMISCUITY, _IFLA_CARRIER, _IFLA_LINK_NETNSID = 30, 33, 37
_IFLA_PROP_LIST, _IFLA_ALT_IFNAME = 52, 53
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_NLA_F_NESTED = 0x8000
_IFLA_MACVLAN_MODE, _MACVLAN_MODE_PASSTHRU = 1, 8
_RTEXT_FILTER_SKIP_STATS = 8
_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_EUI64, _IN6_ADDR_GEN_MODE_NONE = 8, 0, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD = 0x02
_NETNSA_NSID, _NETNSA_FD = 1, 3
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_METRICS, _RTA_TABLE = 1, 4, 5, 6, 7, 8, 15
_RTAX_MTU, _RTAX_ADVMSS = 2, 8
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST, _RTNH_F_ONLINK = 254, 4, 1, 4
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253

_AF = {4: 2, 6: 10}  # by IP version: AF_INET, AF_INET6
_AF_UNSPEC = 0

_IFINFOMSG = struct.Struct("=BxHiII")  # family, device type, index, flags, mask of flags to change
_IFADDRMSG = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
# family, lengths of destination and source, TOS, table, protocol, scope, type, flags
_RTMSG = struct.Struct("=BBBBBBBBI")
_U32 = struct.Struct("=I")
_I32 = struct.Struct("=i")

_NO_SUCH_DEVICE = frozenset({errno.ENODEV})
_ABSENT = frozenset({errno.ENOENT})
_PRESENT = frozenset({errno.EEXIST})
# No route at all, or one that says so: unreachable, blackhole, prohibit (fib_props of the kernel).
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES})


def new_macvlan(name: str, index: int, lower: int, mtu: int, netns_fd: int | None) -> Request:
    """A macvlan in passthru mode on the host's device `lower`, made in the namespace `netns_fd` or else in the socket's own.

    The caller chooses the index. Without one, older kernels look for a namesake in the *sender's* namespace, and a
    container's eth0 would collide with the host's; and with one, the messages that follow need not ask for it.
    """
    mode = attribute(_IFLA_INFO_DATA, attribute(_IFLA_MACVLAN_MODE, _U32.pack(_MACVLAN_MODE_PASSTHRU)))
    body = (
        _IFINFOMSG.pack(_AF_UNSPEC, 0, index, 0, 0)
        + _text(_IFLA_IFNAME, name)
        + attribute(_IFLA_MTU, _U32.pack(mtu))
        + attribute(_IFLA_LINK, _U32.pack(lower))
        + attribute(_IFLA_LINKINFO, _text(_IFLA_INFO_KIND, MACVLAN) + mode)
    )
    if netns_fd is not None:
        body += attribute(_IFLA_NET_NS_FD, _U32.pack(netns_fd))
    return Request(RTM_NEWLINK, body, f"create {name}", NLM_F_CREATE | NLM_F_EXCL)


def set_link(
    index: int, what: str, *, flags: int = 0, change: int = 0, mac: str = "", mtu: int = 0, name: str = ""
) -> Request:
    """Change the device: first MAC, MTU and name (unless empty), then those of `flags` that `change` selects."""
    body = _IFINFOMSG.pack(_AF_UNSPEC, 0, index, flags, change)
    if mac:
        body += attribute(_IFLA_ADDRESS, bytes.fromhex(check_mac(mac).replace(":", "")))
    if mtu:
        body += attribute(_IFLA_MTU, _U32.pack(mtu))
    if name:
        body += _text(_IFLA_IFNAME, name)
    return Request(_RTM_SETLINK, body, what)


def link_local(index: int, *, wanted: bool) -> Request:
    """Let the device make a link-local IPv6 address when it comes up, or not (no address: no DAD, RS or MLD is sent)."""
    mode = _IN6_ADDR_GEN_MODE_EUI64 if wanted else _IN6_ADDR_GEN_MODE_NONE
    inet6 = attribute(_AF[6], attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([mode])))
    body = _IFINFOMSG.pack(_AF_UNSPEC, 0, index, 0, 0) + attribute(_IFLA_AF_SPEC, inet6)
    # A kernel without IPv6, or an MTU below its minimum: the device makes no such address anyway.
    return Request(_RTM_SETLINK, body, "set the IPv6 address mode", tolerated=frozenset({errno.EAFNOSUPPORT}))


def del_link(index: int, what: str) -> Request:
    """Delete the device; one that is gone is success."""
    return Request(RTM_DELLINK, _IFINFOMSG.pack(_AF_UNSPEC, 0, index, 0, 0), what, tolerated=_NO_SUCH_DEVICE)


def del_alternative(index: int, name: bytes) -> Request:
    """Take an alternative name from the device, as `read_alternatives` gives it; one that it has not is success."""
    body = _IFINFOMSG.pack(_AF_UNSPEC, 0, index, 0, 0) + attribute(
        _IFLA_PROP_LIST | _NLA_F_NESTED, attribute(_IFLA_ALT_IFNAME, name)
    )
    return Request(_RTM_DELLINKPROP, body, "take an alternative name", tolerated=_ABSENT)


def get_link(name: str = "", index: int = 0) -> Request:
    """Read one device, by name or index. No such device is an empty answer."""
    body = _IFINFOMSG.pack(_AF_UNSPEC, 0, index, 0, 0) + (_text(_IFLA_IFNAME, name) if name else b"") + _NO_STATISTICS
    return Request(_RTM_GETLINK, body, f"read {name or 'the device'}", tolerated=_NO_SUCH_DEVICE, reads=True)


def get_counters(name: str) -> Request:
    """Read what one device has counted. No such device is an empty answer."""
    body = _IFINFOMSG.pack(_AF_UNSPEC, 0, 0, 0, 0) + _text(_IFLA_IFNAME, name)
    return Request(_RTM_GETLINK, body, f"read {name}", tolerated=_NO_SUCH_DEVICE, reads=True)


def dump_links() -> Request:
    """All devices."""
    return Request(_RTM_GETLINK, _IFINFOMSG.pack(_AF_UNSPEC, 0, 0, 0, 0) + _NO_STATISTICS, "list devices")


def get_namespace_id(fd: int) -> Request:
    """By which number the socket's namespace knows the namespace `fd`; IFLA_LINK_NETNSID uses it."""
    return Request(_RTM_GETNSID, bytes(4) + attribute(_NETNSA_FD, _U32.pack(fd)), "read the host's id", reads=True)


def new_address(index: int, address: IPInterface) -> Request:
    """Add the address; an equal one is success. IPv6: usable at once, no duplicate address detection (RFC 4862)."""
    packed = address.ip.packed
    body = _address(index, address) + attribute(_IFA_ADDRESS, packed)
    if address.version == 6:
        body += attribute(_IFA_FLAGS, _U32.pack(_IFA_F_NODAD))
    elif address.network.prefixlen < 31:  # RFC 3021: a /31 has no broadcast address
        body += attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
    return Request(RTM_NEWADDR, body, f"add address {address}", NLM_F_CREATE | NLM_F_REPLACE)


def del_address(index: int, address: IPInterface) -> Request:
    """Remove the address; the kernel may have done so already, with the primary one of an IPv4 subnet."""
    gone = frozenset({errno.EADDRNOTAVAIL})
    return Request(RTM_DELADDR, _address(index, address), f"remove address {address}", tolerated=gone)


def dump_addresses(index: int = 0, version: int = 0) -> Request:
    """Addresses of one device or all, of one IP version or both."""
    body = _IFADDRMSG.pack(_AF.get(version, _AF_UNSPEC), 0, 0, 0, index)
    return Request(_RTM_GETADDR, body, "list addresses")


def new_route(index: int, route: Route, *, direct: bool) -> Request:
    """Add the route through the device; `direct` means that its gateway is reached without one, whatever its address.

    A destination that has a route already keeps it: the first interface of a container wins, as with the CNI plugins.
    """
    scope = _RT_SCOPE_LINK if route.gateway is None else _RT_SCOPE_UNIVERSE
    scope = scope if route.scope is None else route.scope
    flags = _RTNH_F_ONLINK if direct else 0
    body = _route(index, route, scope, flags)
    if route.gateway is not None:
        if route.gateway.version != route.destination.version:
            raise InvalidRequest(
                f"route to {route.destination} via {route.gateway} mixes IPv4 and IPv6",
                hint="give a gateway of the destination's family",
            )
        body += attribute(_RTA_GATEWAY, route.gateway.packed)
    metrics = ((_RTAX_MTU, route.mtu), (_RTAX_ADVMSS, route.advmss))
    if packed := b"".join(attribute(kind, _U32.pack(value)) for kind, value in metrics if value):
        body += attribute(_RTA_METRICS, packed)
    what = f"add route to {route.destination}" + (f" via {route.gateway}" if route.gateway else "")
    return Request(_RTM_NEWROUTE, body, what, NLM_F_CREATE | NLM_F_EXCL, tolerated=_PRESENT)


def del_route(index: int, route: Route) -> Request:
    """Remove what an earlier `new_route` to the destination through this device made, if anything."""
    body = _route(index, route, 255, 0)  # RT_SCOPE_NOWHERE: any scope
    gone = frozenset({errno.ESRCH})
    return Request(_RTM_DELROUTE, body, f"replace route to {route.destination}", tolerated=gone)


def dump_routes(version: int) -> Request:
    """Routes of one IP version in the main table."""
    return Request(_RTM_GETROUTE, _RTMSG.pack(_AF[version], 0, 0, 0, _RT_TABLE_MAIN, 0, 0, 0, 0), "list routes")


def get_way(address: IPAddress) -> Request:
    """The route that a packet to the address would take, by all rules and tables; no answer if there is none."""
    body = _RTMSG.pack(_AF[address.version], address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body += attribute(_RTA_DST, address.packed)
    return Request(_RTM_GETROUTE, body, f"look for a route to {address}", tolerated=_NO_WAY, reads=True)


def read_way(body: bytes) -> tuple[int, IPAddress | None, IPAddress | None]:
    """Index of the device (0: none), the gateway and the sender's address, from the answer to `get_way`."""
    found = attributes(body, _RTMSG.size)
    gateway, source = (
        None if packed is None else ipaddress.ip_address(packed)
        for packed in (found.get(_RTA_GATEWAY), found.get(_RTA_PREFSRC))
    )
    return _U32.unpack(found[_RTA_OIF])[0] if _RTA_OIF in found else 0, gateway, source


@dataclass(frozen=True, slots=True)
class Device:
    """A device as one netlink message tells it. `lower` and `lower_netns` are IFLA_LINK and IFLA_LINK_NETNSID.

    `carries`: a macvlan in passthru mode has its device take any frame while it is up (macvlan_open).
    """

    index: int
    name: str
    mac: str
    mtu: int
    up: bool
    carrier: bool
    kind: str
    lower: int | None
    lower_netns: int | None
    arp: bool
    carries: bool


def read_device(body: bytes) -> Device:
    """From the payload of an RTM_NEWLINK."""
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
    found = attributes(body, _IFINFOMSG.size)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    kind = _string(info.get(_IFLA_INFO_KIND, b""))
    # How many ask for it: who set the flag is one, and so is Open vSwitch of a device that it has made in the kernel.
    promiscuity = _U32.unpack(found[_IFLA_PROMISCUITY])[0] if _IFLA_PROMISCUITY in found else 0
    promiscuity -= bool(flags & IFF_PROMISC) + (kind == _OPENVSWITCH)
    return Device(
        index=index,
        name=_string(found[_IFLA_IFNAME]),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_U32.unpack(found[_IFLA_MTU])[0],
        up=bool(flags & IFF_UP),
        carrier=found.get(_IFLA_CARRIER, b"\0") != b"\0",
        kind=kind,
        lower=_U32.unpack(found[_IFLA_LINK])[0] if _IFLA_LINK in found else None,
        lower_netns=_I32.unpack(found[_IFLA_LINK_NETNSID])[0] if _IFLA_LINK_NETNSID in found else None,
        arp=not flags & IFF_NOARP,
        carries=promiscuity > 0,
    )


def read_alternatives(body: bytes) -> list[bytes]:
    """The alternative names of a device (ip-link(8), altname), from the payload of an RTM_NEWLINK."""
    listed = attributes(body, _IFINFOMSG.size).get(_IFLA_PROP_LIST, b"")
    return [value for kind, value in each_attribute(listed) if kind == _IFLA_ALT_IFNAME]


def read_counters(body: bytes) -> dict[str, int]:
    """From the answer to `get_counters`: the first fields of struct rtnl_link_stats64, linux/if_link.h."""
    names = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped")
    values = struct.unpack_from(f"{len(names)}Q", attributes(body, _IFINFOMSG.size)[_IFLA_STATS64])
    return dict(zip(names, values, strict=True))


def read_namespace_id(body: bytes) -> int:
    """From the answer to `get_namespace_id`; -1 (NETNSA_NSID_NOT_ASSIGNED) if there is none."""
    return int(_I32.unpack(attributes(body, 4)[_NETNSA_NSID])[0])


def read_address(body: bytes) -> tuple[int, IPInterface]:
    """Index of the device and the address, from the payload of an RTM_NEWADDR."""
    _, length, _, _, index = _IFADDRMSG.unpack_from(body)
    found = attributes(body, _IFADDRMSG.size)
    packed = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]  # with a peer, IFA_ADDRESS is the peer's
    return index, ipaddress.ip_interface((packed, length))


def read_destination(body: bytes) -> IPNetwork | None:
    """Destination of a route of the main table from the payload of an RTM_NEWROUTE; None for default routes."""
    _, length, _, _, table, _, _, _, _ = _RTMSG.unpack_from(body)
    found = attributes(body, _RTMSG.size)
    if _RTA_TABLE in found:
        table = _U32.unpack(found[_RTA_TABLE])[0]
    if table != _RT_TABLE_MAIN or length == 0:
        return None
    return ipaddress.ip_network((found[_RTA_DST], length))


def read_route(body: bytes) -> tuple[int, Route] | None:
    """Index of the device and the route from the payload of an RTM_NEWROUTE; None for what is in another table than main."""
    family, length, _, _, table, _, _, _, _ = _RTMSG.unpack_from(body)
    found = attributes(body, _RTMSG.size)
    if _RTA_TABLE in found:
        table = _U32.unpack(found[_RTA_TABLE])[0]
    if table != _RT_TABLE_MAIN or _RTA_OIF not in found:
        return None
    nothing = bytes(4 if family == _AF[4] else 16)
    gateway = found.get(_RTA_GATEWAY)
    route = Route(
        ipaddress.ip_network((found.get(_RTA_DST, nothing), length)),
        None if gateway is None else ipaddress.ip_address(gateway),
    )
    return _U32.unpack(found[_RTA_OIF])[0], route


def _address(index: int, address: IPInterface) -> bytes:
    body = _IFADDRMSG.pack(_AF[address.version], address.network.prefixlen, 0, _RT_SCOPE_UNIVERSE, index)
    return body + attribute(_IFA_LOCAL, address.ip.packed)


def _route(index: int, route: Route, scope: int, flags: int) -> bytes:
    destination = route.destination
    body = _RTMSG.pack(
        _AF[destination.version],
        destination.prefixlen,
        0,
        0,
        0 if route.table else _RT_TABLE_MAIN,
        _RTPROT_STATIC,
        scope,
        _RTN_UNICAST,
        flags,
    )
    if destination.prefixlen:
        body += attribute(_RTA_DST, destination.network_address.packed)
    for kind, value in ((_RTA_TABLE, route.table), (_RTA_PRIORITY, route.priority)):
        if value:
            body += attribute(kind, _U32.pack(value))
    return body + attribute(_RTA_OIF, _U32.pack(index))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _string(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="surrogateescape")


_NO_STATISTICS = attribute(_IFLA_EXT_MASK, _U32.pack(_RTEXT_FILTER_SKIP_STATS))
