"""Container links, switch ports' devices and gateways: what DESIGN.md section 3 decided, as netlink requests.

A container's link is a macvlan in passthru mode on the host's port, which stays where it is. One port carries one link, so a
link that is down for good needs no deletion of its own: it goes with its port.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from ..errors import InvalidRequest, LinkExists, LinkFailed
from ..model import MIN_MTU, IPAddress, IPInterface, IPNetwork, Route
from ..names import DeviceNames, check_ifname
from . import messages as m
from . import probe
from . import routes as gateway_routes
from .netns import Host, Netns
from .standin import StandIn
from .wire import Refused, Request, Socket

LOG = logging.getLogger(__name__)

# The kernel counts up from 1: indexes of this range are free but for the links that we made.
_INDEX_FIRST, _INDEX_COUNT = 1 << 20, 1 << 30
_INDEX_TRIES = 3

_HINTS = {
    errno.EPERM: "ovsnetd needs CAP_NET_ADMIN",
    errno.ENODEV: "the device went away meanwhile; try again",
    errno.ENOENT: "IPv6 needs an MTU of 1280 at least, and a kernel that has it",
    errno.EMFILE: "raise LimitNOFILE of ovsnetd",
    errno.EROFS: "/proc/sys must be writable for ovsnetd",
}


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A network device: `mtu` in bytes, `lower` the index of the device under it if that is the host's, `kind` as in
    `ip -d link` ("" for hardware), `up` what was asked for and `carrier` whether frames pass. `arp` tells whether it speaks
    ARP, and `carries` whether a link that is up stands on it.
    """

    name: str
    ifindex: int
    mac: str
    mtu: int
    up: bool
    carrier: bool
    lower: int | None
    kind: str
    addresses: tuple[IPInterface, ...]
    arp: bool = True
    carries: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """How a packet leaves a namespace: by the device of that index (0: none), to `gateway` or, without one, to its destination
    itself, and from `source` where the sender has chosen no address.
    """

    ifindex: int
    gateway: IPAddress | None
    source: IPAddress | None


class Plug:
    """A container's link that exists; made by `Links.plugging`."""

    def __init__(
        self,
        home: Host,
        netns: Netns,
        inside: Socket,
        ifname: str,
        mtu: int,
        lower: int,
        index: int,
        *,
        created: bool,
    ) -> None:
        self._home = home
        self._netns = netns
        self._inside = inside
        self._ifname = ifname
        self._mtu = mtu
        self._lower = lower
        self._index = index
        self._created = created
        self._prepared: tuple[str, bool] | None = None

    def prepare(self, mac: str, *, ipv6: bool) -> None:
        """Bring the link up with what is expected to be its MAC, and IPv6 if it is to have that; nobody is reached by it yet."""
        self._inside.batch(self._up(mac, ipv6=ipv6))

    def adjust(self, sysctls: Mapping[str, str], *, promiscuous: bool) -> None:
        """Set what is rarely asked for: paths below /proc/sys that concern this interface, and that it takes any frame.

        InvalidRequest for a path of anything else, or a value that the kernel does not take.
        """
        for path, value in sysctls.items():
            if not re.fullmatch(rf"net/ipv[46]/(conf|neigh)/{re.escape(self._ifname)}/[a-z_0-9]+", path):
                raise InvalidRequest(f"{path} is no setting of interface {self._ifname}", hint="see docs/cni.md")
            self._home.inside(self._netns, partial(_write_sysctl, path, value))
        if promiscuous:
            change = m.set_link(self._index, "take any frame", flags=m.IFF_PROMISC, change=m.IFF_PROMISC)
            self._inside.batch([change])

    def finish(self, mac: str, addresses: tuple[IPInterface, ...], routes: tuple[Route, ...]) -> LinkInfo:
        """Put the link in service; traffic passes when this returns.

        A link that was there already is brought to the same state (addresses and routes of others are left alone). A route
        whose destination has one already is left as it is. The answer's addresses are those that were asked for.
        """
        requests = self._up(mac, ipv6=any(address.version == 6 for address in addresses))
        requests += [m.new_address(self._index, address) for address in addresses]
        for route in routes:
            if not self._created:
                requests.append(m.del_route(self._index, route))
            requests.append(m.new_route(self._index, route, direct=_outside(route, addresses)))
        info = _read(self._home, self._inside, requests, self._netns, index=self._index)
        if info is None or info.lower != self._lower or info.name != self._ifname:
            raise LinkFailed(f"{self._ifname} in {self._netns.path} was changed by somebody else", hint="try again")
        return replace(info, addresses=addresses)

    def _up(self, mac: str, *, ipv6: bool) -> list[Request]:
        """What brings the link up; nothing if it is like that already."""
        if self._prepared == (mac, ipv6):
            return []
        self._prepared = (mac, ipv6)
        if ipv6:
            self._home.inside(self._netns, lambda: _enable_ipv6(self._ifname))
        return [
            m.link_local(self._index, wanted=ipv6),
            m.set_link(self._index, "set MAC, MTU and up", flags=m.IFF_UP, change=m.IFF_UP, mac=mac, mtu=self._mtu),
        ]


class Links:
    """Network devices of this host and of containers on it. Safe to use from many threads: each call has its own sockets.

    Every method raises LinkFailed when the kernel refuses, with its words, and DeadlineExceeded when it does not answer.
    """

    def __init__(self, names: DeviceNames) -> None:
        self._names = names
        self._host = Host()

    def close(self) -> None:
        """Let go of the host's namespace; nothing works afterwards."""
        self._host.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def prepare_port(self, port: str, mtu: int) -> None:
        """Make the host's end of a link ready: no ARP, no IPv6, the MTU, up. Again is harmless."""
        with _reported(port), Socket() as host:
            lower = _existing(host, port)
            _disable_ipv6(port)  # before it comes up, or it announces itself
            both = m.IFF_UP | m.IFF_NOARP
            host.batch([m.set_link(lower, "set MTU, no ARP and up", flags=both, change=both, mtu=mtu)])

    @contextlib.contextmanager
    def plugging(self, port: str, netns: Netns, ifname: str, mtu: int) -> Iterator[Plug]:
        """Make the interface `ifname` on `port` in the container, out of service; `Plug.finish` puts it in service.

        What is known of an attachment before its addresses: so the link is made while the store writes them. A link of ours of
        that name on that port is taken as it is, another interface of that name is LinkExists. When the block fails, the
        container is as before.
        """
        check_ifname(ifname)
        with (
            _reported(ifname, f" in {netns.path}"),
            Socket() as host,
            self._socket(netns) as inside,
            contextlib.ExitStack() as undo,
        ):
            lower = _existing(host, port)
            index, created = self._macvlan(host, inside, lower, ifname, mtu, netns)
            if created:
                undo.callback(inside.batch, [m.del_link(index, "undo the creation")])
            yield Plug(self._host, netns, inside, ifname, mtu, lower, index, created=created)
            undo.pop_all()

    def plug_netns(
        self,
        port: str,
        netns: Netns,
        ifname: str,
        mac: str,
        mtu: int,
        addresses: tuple[IPInterface, ...],
        routes: tuple[Route, ...],
    ) -> LinkInfo:
        """Give the container the interface `ifname` on `port`; traffic passes when this returns. See `plugging` and `Plug`."""
        with self.plugging(port, netns, ifname, mtu) as plug:
            return plug.finish(mac, addresses, routes)

    def silence(self, port: str) -> bool:
        """Set the host's end of a link down, so that no frame passes; False if it has gone."""
        return self._set_lower(port, "set the port down", 0)

    def revive(self, port: str) -> bool:
        """Set the host's end of a silent link up again; False if it has gone."""
        return self._set_lower(port, "set the port up", m.IFF_UP)

    def _set_lower(self, port: str, what: str, flags: int) -> bool:
        with _reported(port), Socket() as host:
            lower = host.index_of(port)
            if lower is None:
                return False
            try:
                host.batch([m.set_link(lower, what, flags=flags, change=m.IFF_UP)])
            except Refused as exc:
                if exc.errno != errno.ENODEV:
                    raise
                return False
            return True

    def parked(self, link: str, port: str) -> bool:
        """Whether the macvlan `link` on `port` is back in the host's namespace and down, so that nothing passes the port."""
        with _reported(link), Socket() as host:
            info = _read(self._host, host, [], None, name=link)
            return info is not None and not info.up and info.lower is not None and info.lower == host.index_of(port)

    def unplug_netns(self, netns: Netns, ifname: str, port: str) -> bool:
        """Take the container's link out of service and free its name; it disappears with its port, which is silent already.

        False, and nothing is touched, if the container has no such link or it is not ours on `port`.

        Taking the macvlan down would wait 10 to 20 ms for an RCU grace period under RTNL, and its deletion as long again.
        Instead, on a port that was silenced, the addresses go and with them their routes, and the MTU falls below IPv6's
        minimum, at which the kernel ends IPv6 on the device: 0.3 ms.
        """
        with _reported(ifname, f" in {netns.path}"), Socket() as host, self._socket(netns) as inside:
            lower = host.index_of(port)
            info = _read(self._host, inside, [], netns, name=ifname)
            if lower is None or info is None or not _ours(info, lower):
                return False
            try:
                self._bury(inside, info.ifindex)
            except Refused as exc:
                if exc.errno != errno.ENODEV:
                    raise
                return False  # gone with its port meanwhile
            return True

    def stand_in(self, netns: Netns, port: str) -> StandIn | None:
        """Take the container's link on `port` out of service as `unplug_netns` does, and put an interface in its place that has
        its name, is down, and goes with what this gives. The port is silent then.

        None, and nothing is touched, if the container has no link on that port, or one that was taken out of service already.
        """
        with _reported(f"{port} in {netns.path}"), Socket() as host, self._socket(netns) as inside:
            lower = host.index_of(port)
            link = self._find_on(lower, inside)
            if lower is None or link is None or self._names.is_doomed(link.name):
                return None
            name = self._names.new_doomed_link()
            stand_in = self._host.inside(netns, partial(StandIn, name))  # before anything is touched: there may be none
            index = inside.index_of(name)
            if index is None:
                return None  # somebody in the container has renamed it
            host.batch([m.set_link(lower, "set the port down", flags=0, change=m.IFF_UP)])
            (body,) = inside.batch([m.get_link(index=link.ifindex)])
            names = [m.del_alternative(link.ifindex, one) for one in m.read_alternatives(body)] if body else []
            self._bury(inside, link.ifindex, *names, m.set_link(index, "take its name", name=link.name))
            return stand_in

    def clear(self, port: str, link: str, netns: Netns | None) -> bool:
        """Delete the macvlan on `port`: in the container whatever it is called there, on the host the one called `link`. Whether
        nothing is on the port then, in any namespace. Takes 20 to 40 ms, nearly all of it in the kernel.
        """
        info = self.link(link) if netns is None else self.link_on(port, netns)
        with _reported(port), Socket() as host, self._socket(netns) as home:
            lower = host.index_of(port)
            if lower is None:
                return False
            if info is not None and _ours(info, lower):
                home.batch([m.del_link(info.ifindex, "delete the link")])
                return True
        return not self.plugged(port)

    def counters(self, port: str) -> dict[str, int]:
        """What the host's device has counted, by the names of Interface.statistics and as the switch sees it: what the device's
        owner sends is received. Nothing if it has gone.
        """
        with _reported(port), Socket() as host:
            (body,) = host.batch([m.get_counters(port)])
        theirs = m.read_counters(body) if body else {}
        return {f"{'tx' if name.startswith('rx') else 'rx'}{name[2:]}": value for name, value in theirs.items()}

    def plug_host(self, port: str, link: str, mac: str, mtu: int) -> LinkInfo:
        """Make the link `link` on `port` in the host's namespace, down and without addresses, for Docker to move.

        With an empty `mac` it has the port's. Again is harmless; another device of that name is LinkExists.
        """
        check_ifname(link)
        with _reported(link), Socket() as host, contextlib.ExitStack() as undo:
            lower = _existing(host, port)
            if host.index_of(link) is not None:  # made ahead: seldom is there anything to change then
                info = _read(self._host, host, [], None, name=link)
                if info is not None and _ours(info, lower) and not info.up and (info.mac, info.mtu) == (mac, mtu):
                    return info
            index, created = self._macvlan(host, host, lower, link, mtu, None)
            if created:
                undo.callback(host.batch, [m.del_link(index, "undo the creation")])
            change = m.set_link(index, "set MAC, MTU and down", change=m.IFF_UP, mac=mac, mtu=mtu)
            info = _read(self._host, host, [change], None, index=index)
            if info is None or info.lower != lower:
                raise LinkFailed(f"{link} was changed by somebody else", hint="try again")
            undo.pop_all()
            return info

    def unplug_host(self, link: str) -> bool:
        """Delete the macvlan `link` of the host's namespace. False, and nothing is touched, if there is none.

        Takes 15 to 20 ms, nearly all of it in the kernel.
        """
        with _reported(link), Socket() as host:
            info = _read(self._host, host, [], None, name=link)
            if info is None or info.kind != m.MACVLAN:
                return False
            host.batch([m.del_link(info.ifindex, "delete the link")])
            return True

    def plugged(self, port: str) -> bool:
        """Whether any namespace, known or not, has a link on `port`; a port whose device has gone has none.

        Tried out, as nothing tells it from outside: the kernel refuses a second link in passthru mode. Takes 20 to 40 ms if
        there is none, as that link has to go again.
        """
        with _reported(port), Socket() as host:
            lower = host.index_of(port)
            if lower is None:
                return False
            index = _INDEX_FIRST + secrets.randbelow(_INDEX_COUNT)
            try:
                host.batch([m.new_macvlan(self._names.new_doomed_link(), index, lower, MIN_MTU, None)])
            except Refused as exc:
                if exc.errno in (errno.EINVAL, errno.EBUSY):
                    return True
                if exc.errno == errno.ENODEV:
                    return False
                raise
            host.batch([m.del_link(index, "take the trial back")])
            return False

    def set_gateway(self, device: str, mac: str, mtu: int, addresses: tuple[IPInterface, ...]) -> None:
        """Give the host's device `device` the MAC, the MTU and exactly these addresses (link-local ones may stay), and up.

        It takes no router advertisements: containers could send them. Without an IPv6 address it speaks no IPv6 at all.
        """
        with _reported(device), Socket() as host:
            index = _existing(host, device)
            if any(address.version == 6 for address in addresses):
                _enable_ipv6(device)
            else:
                _disable_ipv6(device)
            present = [m.read_address(body)[1] for body in host.dump(m.dump_addresses(index))]
            # First those that go: IPv4 addresses of one subnet go with its first, the wanted are added after.
            changes = [m.del_address(index, one) for one in present if one not in addresses and not _link_local(one)]
            info = _read(self._host, host, [], None, index=index)
            if info is None or (info.mac, info.mtu, info.up) != (mac, mtu, True):
                # Only then: the kernel forgets all neighbours of a device that is given a MAC, also its own.
                what = "set MAC, MTU and up"
                changes.insert(0, m.set_link(index, what, flags=m.IFF_UP, change=m.IFF_UP, mac=mac, mtu=mtu))
            if changes or any(one not in present for one in addresses):
                changes += [m.new_address(index, one) for one in addresses]
                host.batch(changes)

    def link(self, name: str, netns: Netns | None = None) -> LinkInfo | None:
        """The device of that name on the host, or in `netns`; None if there is none."""
        with _reported(name, f" in {netns.path}" if netns else ""), self._socket(netns) as sock:
            info = _read(self._host, sock, [], netns, name=name)
            if info is None:
                return None
            bodies = sock.dump(m.dump_addresses(info.ifindex))
            return replace(info, addresses=tuple(m.read_address(body)[1] for body in bodies))

    def link_on(self, port: str, netns: Netns) -> LinkInfo | None:
        """The container's link on that port, whatever it is called there; without its addresses. None if there is none."""
        with _reported(f"{port} in {netns.path}"), Socket() as host, self._socket(netns) as inside:
            return self._find_on(host.index_of(port), inside)

    def routes(self, netns: Netns, ifindex: int) -> tuple[Route, ...]:
        """The routes by a container's device in the main table, IPv4 first."""
        with _reported(f"routes in {netns.path}"), self._socket(netns) as sock:
            bodies = sock.dump(m.dump_routes(4)) + sock.dump(m.dump_routes(6))
            found = (route for route in map(m.read_route, bodies) if route is not None)
            return tuple(route for index, route in found if index == ifindex)

    def way(self, address: IPAddress, netns: Netns | None = None) -> Way | None:
        """How a packet of the host, or of `netns`, to that address goes; None if no route leads there."""
        where = f" in {netns.path}" if netns else ""
        with _reported(str(address), where), self._socket(netns) as sock:
            (body,) = sock.batch([m.get_way(address)])
            return Way(*m.read_way(body)) if body else None

    def links(self, prefix: str) -> tuple[LinkInfo, ...]:
        """The host's devices whose names begin with `prefix`."""
        with _reported(f"{prefix}*"), Socket() as host:
            devices = [m.read_device(body) for body in host.dump(m.dump_links())]
            addresses: dict[int, list[IPInterface]] = {}
            for body in host.dump(m.dump_addresses()):
                index, address = m.read_address(body)
                addresses.setdefault(index, []).append(address)
            return tuple(
                replace(_info(device, None), addresses=tuple(addresses.get(device.index, ())))
                for device in devices
                if device.name.startswith(prefix)
            )

    def default_device(self) -> LinkInfo | None:
        """The device of the host's default route, IPv4's before IPv6's; None if there is none."""
        with _reported("routes"), Socket() as host:
            bodies = host.dump(m.dump_routes(4)) + host.dump(m.dump_routes(6))
            found = [one for one in map(m.read_route, bodies) if one is not None and not one[1].destination.prefixlen]
            return _read(self._host, host, [], None, index=found[0][0]) if found else None

    def host_routes(self) -> tuple[IPNetwork, ...]:
        """Destinations of the host's main routing table, IPv4 before IPv6, each once, without default routes."""
        with _reported("routes"), Socket() as host:
            bodies = host.dump(m.dump_routes(4)) + host.dump(m.dump_routes(6))
            found = {net for net in map(m.read_destination, bodies) if net is not None}
            return tuple(sorted(found, key=lambda net: (net.version, net)))

    def delete_device(self, name: str) -> bool:
        """Delete a device of the host; False if there is none of that name."""
        with _reported(name), Socket() as host:
            index = host.index_of(name)
            if index is None:
                return False
            host.batch([m.del_link(index, "delete the device")])
            return True

    def hide_routes(self, device: str, addresses: tuple[IPInterface, ...]) -> None:
        """Take the connected routes of `device` out of the main table; traffic goes on by a table of ours."""
        gateway_routes.hide(device, addresses)

    def show_routes(self, device: str, addresses: tuple[IPInterface, ...]) -> None:
        """Undo `hide_routes`; again is harmless."""
        gateway_routes.show(device, addresses)

    def forward(self, version: int) -> None:
        """Have the host route packets of that IP version between its devices; never switched off again, for others rely on it.

        A host that routes IPv6 ignores router advertisements, its own default route among them, unless a device takes them all
        the same (accept_ra=2, the kernel's ip-sysctl.txt).
        """
        with _reported("forwarding"):
            if version == 4:
                if _sysctl("net/ipv4/ip_forward", b"1"):
                    LOG.info("IPv4 forwarding is switched on")
            elif Path("/proc/sys/net/ipv6/conf/all/forwarding").read_bytes().strip() != b"1":
                for device in Path("/proc/sys/net/ipv6/conf").iterdir():
                    setting = device / "accept_ra"
                    with contextlib.suppress(FileNotFoundError):  # it has gone meanwhile
                        if device.name not in ("all", "default", "lo") and setting.read_bytes().strip() == b"1":
                            setting.write_bytes(b"2")
                _sysctl("net/ipv6/conf/all/forwarding", b"1")
                LOG.info("IPv6 forwarding is switched on")

    def allow_loopback(self, device: str) -> None:
        """Let packets from the host's loopback addresses leave by `device`, as those to published ports do (IPv4 only).

        A device that is not there is passed over.
        """
        with _reported(device), contextlib.suppress(FileNotFoundError):
            _sysctl(f"net/ipv4/conf/{device}/route_localnet", b"1")

    def probe(self, device: str, address: IPAddress, seconds: float) -> str | None:
        """The MAC of whoever answers for `address` on the link of the host's `device` within `seconds`, or None."""
        with _reported(device):
            info = self.link(device)
            return None if info is None else probe.answered(device, info.mac, address, seconds)

    def wait_device(self, name: str, deadline_s: float) -> None:
        """Return as soon as the host has the device. LinkFailed after `deadline_s` seconds."""
        end = time.monotonic() + deadline_s
        with _reported(name), Socket(m.RTMGRP_LINK) as host:  # told of what happens from here on; then the first look
            while host.index_of(name) is None:
                left = end - time.monotonic()
                if left <= 0:
                    raise LinkFailed(
                        f"device {name} did not appear within {deadline_s:g} s",
                        hint="is ovs-vswitchd running? See its log",
                        device=name,
                    )
                host.wait_at_most(left)
                host.wait()

    def _socket(self, netns: Netns | None) -> Socket:
        return self._host.inside(netns, Socket) if netns else Socket()

    def _macvlan(
        self, host: Socket, inside: Socket, lower: int, name: str, mtu: int, netns: Netns | None
    ) -> tuple[int, bool]:
        """Index of the macvlan `name` on `lower` in `netns`, and whether it was made just now."""
        for attempt in range(_INDEX_TRIES):
            index = _INDEX_FIRST + secrets.randbelow(_INDEX_COUNT)
            try:
                host.batch([m.new_macvlan(name, index, lower, mtu, netns.fd if netns else None)])
            except Refused as exc:
                # Which check of the kernel came first tells nothing: look who has the name.
                present = _read(self._host, inside, [], netns, name=name)
                if present is not None:
                    if _ours(present, lower):
                        return present.ifindex, False
                    raise LinkExists(
                        f"an interface {name} exists already{f' in {netns.path}' if netns else ''}",
                        hint="choose another interface name, or remove the interface",
                        device=name,
                    ) from None
                # Nobody has it: then the index was taken, or something is wrong.
                if exc.errno not in (errno.EEXIST, errno.EBUSY) or attempt == _INDEX_TRIES - 1:
                    raise
            else:
                return index, True
        raise AssertionError("unreachable")

    def _find_on(self, lower: int | None, inside: Socket) -> LinkInfo | None:
        """The link on the host's device `lower` in the socket's namespace."""
        home = m.read_namespace_id(inside.batch([m.get_namespace_id(self._host.fd)])[0])
        found = (_info(m.read_device(body), home) for body in inside.dump(m.dump_links()))
        return next((one for one in found if lower is not None and _ours(one, lower)), None)

    def _bury(self, inside: Socket, index: int, *after: Request) -> None:
        """End IP on a container's link and give it a name that nobody wants; then `after`."""
        addresses = [m.read_address(body)[1] for body in inside.dump(m.dump_addresses(index, version=4))]
        rename = m.set_link(index, "free the name", mtu=MIN_MTU, name=self._names.new_doomed_link())
        try:
            inside.batch([*(m.del_address(index, address) for address in addresses), rename, *after])
        except Refused as exc:
            if exc.errno != errno.EBUSY:
                raise
            # Older kernels rename only what is down: there it costs the grace period after all.
            inside.batch([m.set_link(index, "set the link down", change=m.IFF_UP), rename, *after])


def _read(
    home: Host, sock: Socket, requests: list[Request], netns: Netns | None, *, name: str = "", index: int = 0
) -> LinkInfo | None:
    """Send `requests`, then read the device as it is after them. Its addresses are left out."""
    requests = [*requests, m.get_link(name, index)]
    if netns is None:
        answers = sock.batch(requests)
        return _info(m.read_device(answers[-1]), None) if answers[-1] else None
    *_, body, known_as = sock.batch([*requests, m.get_namespace_id(home.fd)])
    return _info(m.read_device(body), m.read_namespace_id(known_as)) if body else None


@contextlib.contextmanager
def _reported(device: str, where: str = "") -> Iterator[None]:
    """Turn the kernel's refusals into LinkFailed that names device, errno and what was tried."""
    try:
        yield
    except Refused as exc:
        raise _failed(f"{device}{where}: cannot {exc.what}", device, exc.errno, exc.text) from exc
    except OSError as exc:
        raise _failed(f"{device}{where}", device, exc.errno or 0, str(exc)) from exc


def _failed(what: str, device: str, number: int, text: str) -> LinkFailed:
    name = errno.errorcode.get(number, str(number))
    return LinkFailed(f"{what}: {name} ({text})", hint=_HINTS.get(number, ""), device=device, errno=name)


def _existing(host: Socket, device: str) -> int:
    index = host.index_of(device)
    if index is None:
        raise LinkFailed(
            f"device {device} is missing", hint="ovs-vswitchd did not make it, or it was removed", device=device
        )
    return index


def _ours(info: LinkInfo, lower: int) -> bool:
    return info.kind == m.MACVLAN and info.lower == lower


def _info(device: m.Device, home: int | None) -> LinkInfo:
    """`home`: how the device's namespace calls the host's in IFLA_LINK_NETNSID; None when it is the host's own."""
    lower = device.lower if device.lower_netns == home else None
    return LinkInfo(
        name=device.name,
        ifindex=device.index,
        mac=device.mac,
        mtu=device.mtu,
        up=device.up,
        carrier=device.carrier,
        lower=lower,
        kind=device.kind,
        addresses=(),
        arp=device.arp,
        carries=device.carries,
    )


def _outside(route: Route, addresses: tuple[IPInterface, ...]) -> bool:
    """Whether no address' subnet holds the route's gateway."""
    return route.gateway is not None and not any(route.gateway in address.network for address in addresses)


def _link_local(address: IPInterface) -> bool:
    return address.version == 6 and address.ip.is_link_local


def _enable_ipv6(device: str) -> None:
    """Make IPv6 work at once, with the addresses that we set and no others, in the namespace of this thread."""
    for key, value in (("disable_ipv6", b"0"), ("accept_dad", b"0"), ("accept_ra", b"0")):
        _sysctl_ipv6(device, key, value)


def _disable_ipv6(device: str) -> None:
    """A device without IPv6 (the kernel's choice, or an MTU below its minimum) is as good."""
    with contextlib.suppress(FileNotFoundError):
        _sysctl_ipv6(device, "disable_ipv6", b"1")


def _write_sysctl(path: str, value: str) -> None:
    """In the namespace of this thread."""
    try:
        fd = os.open(f"/proc/sys/{path}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOENT, errno.ERANGE):
            raise
        raise InvalidRequest(f"sysctl {path}={value}: {exc.strerror}", hint="see the kernel's ip-sysctl.txt") from None


def _sysctl_ipv6(device: str, key: str, value: bytes) -> None:
    """Set net.ipv6.conf.`device`.`key`, if it differs: a write of disable_ipv6 takes RTNL by trying again and again."""
    _sysctl(f"net/ipv6/conf/{device}/{key}", value)


def _sysctl(path: str, value: bytes) -> bool:
    """Set what differs; whether it did. /proc/sys/net shows the namespace of the thread that opens the file."""
    fd = os.open(f"/proc/sys/{path}", os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.read(fd, 16).strip() == value:
            return False
        os.pwrite(fd, value, 0)
        return True
    finally:
        os.close(fd)
