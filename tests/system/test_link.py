"""The link room against the kernel: real namespaces; the switch is a namespace that holds the other ends of the ports."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from ovsnet.errors import InvalidNetns, InvalidRequest, LinkExists, LinkFailed
from ovsnet.link import LinkInfo, Links, Netns, messages, open_netns, wire
from ovsnet.link import links as links_module
from ovsnet.model import IPInterface, Route
from ovsnet.names import DeviceNames, mac_for
from tests import harness
from tests.harness import run, wait_until

V4, V6 = ip_interface("10.81.0.2/24"), ip_interface("fd81::2/64")
HOST4, HOST6 = "10.81.0.1", "fd81::1"
DEFAULTS = (
    Route(ip_network("0.0.0.0/0"), ip_address(HOST4)),
    Route(ip_network("::/0"), ip_address(HOST6)),
)
MTU = 1400

NewNetns = Callable[[], harness.Netns]


class Switch:
    """Makes ports: a device on the host whose other end stands in a namespace, with a host's addresses there."""

    def __init__(self, names: DeviceNames, far: harness.Netns, undo: ExitStack) -> None:
        self.names = names
        self.far = far
        self._undo = undo

    def port(self, *addresses: str) -> str:
        name = self.names.new_port()
        peer = f"{self.names.prefix}v{name[-10:]}"
        self._undo.callback(run, "ip", "link", "del", name, check=False)
        run("ip", "link", "add", name, "type", "veth", "peer", "name", peer, "netns", self.far.name)
        self.far.run("ip", "link", "set", peer, "up")
        for address in addresses:
            self.far.run("ip", "address", "add", address, "dev", peer, *(["nodad"] if ":" in address else []))
        return name


@pytest.fixture
def names(token: str) -> DeviceNames:
    return DeviceNames(token)


@pytest.fixture
def links(names: DeviceNames) -> Iterator[Links]:
    with Links(names) as room:
        yield room


@pytest.fixture
def switch(names: DeviceNames, netns: NewNetns) -> Iterator[Switch]:
    with ExitStack() as undo:
        yield Switch(names, netns(), undo)


@pytest.fixture
def box(netns: NewNetns) -> harness.Netns:
    """A container's namespace."""
    return netns()


@pytest.fixture
def inside(box: harness.Netns) -> Iterator[Netns]:
    with open_netns(str(box.path)) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _stays_on_the_host() -> Iterator[None]:
    """No test moves its thread, or leaves a descriptor open."""
    netns, open_before = os.stat("/proc/thread-self/ns/net").st_ino, _descriptors()
    yield
    assert os.stat("/proc/thread-self/ns/net").st_ino == netns
    assert _descriptors() <= open_before


def _descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def plug(
    links: Links,
    port: str,
    netns: Netns,
    ifname: str = "eth0",
    addresses: Sequence[IPInterface] = (V4, V6),
    routes: Sequence[Route] = DEFAULTS,
    mtu: int = MTU,
) -> LinkInfo:
    links.prepare_port(port, mtu)
    return links.plug_netns(port, netns, ifname, mac_for(addresses[0].ip), mtu, tuple(addresses), tuple(routes))


def shown(box: harness.Netns, device: str = "eth0") -> dict[str, Any]:
    (info,) = box.ip("-details", "address", "show", "dev", device)
    return dict(info)


def addresses(box: harness.Netns, device: str = "eth0") -> set[str]:
    return {f"{found['local']}/{found['prefixlen']}" for found in shown(box, device)["addr_info"]}


def routes(box: harness.Netns, *family: str) -> dict[str, tuple[str, str]]:
    listed = box.ip(*family, "route", "show")
    return {route["dst"]: (route["dev"], route.get("gateway", "")) for route in listed}


def device_names(box: harness.Netns) -> set[str]:
    return {device["ifname"] for device in box.ip("link", "show")}


def test_traffic_passes_as_soon_as_it_is_plugged(
    links: Links, switch: Switch, box: harness.Netns, inside: Netns
) -> None:
    port = switch.port(f"{HOST4}/24", f"{HOST6}/64")
    info = plug(links, port, inside)
    assert box.pings(HOST6, wait=1)
    assert box.pings(HOST4, wait=1)
    assert not _pings(box, "fd99::1")  # there is a default route: it leaves, and nobody answers

    assert info == LinkInfo(
        name="eth0",
        ifindex=shown(box)["ifindex"],
        mac=mac_for(V4.ip),
        mtu=MTU,
        up=True,
        carrier=True,
        lower=socket.if_nametoindex(port),
        kind="macvlan",
        addresses=(V4, V6),
    )
    assert shown(box)["linkinfo"]["info_data"]["mode"] == "passthru"
    assert addresses(box) > {str(V4), str(V6)}  # and a link-local one
    assert shown(box)["addr_info"][0]["broadcast"] == "10.81.0.255"
    assert routes(box)["default"] == ("eth0", HOST4)
    assert routes(box, "-6")["default"] == ("eth0", HOST6)


def _pings(box: harness.Netns, address: str) -> bool:
    return box.pings(address, wait=0.2)


def test_the_port_stays_quiet(links: Links, switch: Switch, inside: Netns) -> None:
    port = switch.port()
    plug(links, port, inside)
    info = links.link(port)
    assert info is not None
    assert (info.up, info.mtu, info.addresses, info.mac) == (True, MTU, (), mac_for(V4.ip))
    assert Path(f"/proc/sys/net/ipv6/conf/{port}/disable_ipv6").read_text().strip() == "1"
    assert int(Path(f"/sys/class/net/{port}/flags").read_text(), 16) & messages.IFF_NOARP


def test_without_an_ipv6_address_no_ipv6_is_spoken(
    links: Links, switch: Switch, box: harness.Netns, inside: Netns
) -> None:
    plug(links, switch.port(f"{HOST4}/24"), inside, addresses=[V4], routes=DEFAULTS[:1])
    assert box.pings(HOST4, wait=1)
    assert addresses(box) == {str(V4)}


def test_ipv6_works_where_the_container_has_it_switched_off(
    links: Links, switch: Switch, box: harness.Netns, inside: Netns
) -> None:
    box.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    plug(links, switch.port(f"{HOST6}/64"), inside, addresses=[V6], routes=DEFAULTS[1:])
    assert box.pings(HOST6, wait=1)
    keys = [f"net.ipv6.conf.eth0.{key}" for key in ("disable_ipv6", "accept_dad", "accept_ra")]
    assert box.run("sysctl", "-n", *keys).stdout.split() == ["0", "0", "0"]
    assert Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").read_text().strip() == "0"  # the host's own is untouched


def test_small_mtu_leaves_ipv4_only(links: Links, switch: Switch, box: harness.Netns, inside: Netns) -> None:
    port = switch.port(f"{HOST4}/24")
    with pytest.raises(LinkFailed, match="ENOENT") as failed:
        plug(links, port, inside, mtu=600)
    assert "1280" in failed.value.hint
    assert device_names(box) == {"lo"}
    plug(links, port, inside, addresses=[V4], routes=(), mtu=600)
    assert box.pings(HOST4, wait=1)


def test_plugging_again_changes_nothing(links: Links, switch: Switch, box: harness.Netns, inside: Netns) -> None:
    port = switch.port(f"{HOST4}/24", f"{HOST6}/64")
    first = plug(links, port, inside)
    before = shown(box), routes(box), routes(box, "-6")
    assert plug(links, port, inside) == first
    assert (shown(box), routes(box), routes(box, "-6")) == before
    assert box.pings(HOST4, wait=1)
    assert box.pings(HOST6, wait=1)


def test_plugging_again_repairs_and_follows(links: Links, switch: Switch, box: harness.Netns, inside: Netns) -> None:
    port = switch.port(f"{HOST4}/24", f"{HOST6}/64", "10.81.0.9/24", "fd81::9/64")
    plug(links, port, inside)
    box.run("ip", "address", "flush", "dev", "eth0")
    box.run("ip", "address", "add", "10.90.0.1/24", "dev", "eth0")  # somebody else's
    box.run("ip", "link", "set", "eth0", "down")
    moved = [
        Route(route.destination, ip_address(gateway))
        for route, gateway in zip(DEFAULTS, ("10.81.0.9", "fd81::9"), strict=True)
    ]
    plug(links, port, inside)
    plug(links, port, inside, routes=moved, mtu=1300)
    assert addresses(box) >= {str(V4), str(V6), "10.90.0.1/24"}
    assert shown(box)["mtu"] == 1300
    assert routes(box)["default"] == ("eth0", "10.81.0.9")
    assert routes(box, "-6")["default"] == ("eth0", "fd81::9")
    assert box.pings(HOST4, wait=1)
    assert box.pings(HOST6, wait=1)


def test_routes(links: Links, switch: Switch, box: harness.Netns, inside: Netns) -> None:
    wanted = [
        Route(ip_network("10.82.0.0/16"), ip_address("169.254.1.1")),  # reached directly, in nobody's subnet
        Route(ip_network("10.83.0.0/16")),
        Route(ip_network("10.81.0.0/24")),  # the kernel has made it already
        Route(ip_network("fd82::/64"), ip_address("fe80::1")),
        Route(ip_network("fd83::/64")),
    ]
    plug(links, switch.port(), inside, routes=wanted)
    plug(links, switch.port(), inside, "eth1", [ip_interface("10.84.0.2/24"), ip_interface("fd84::2/64")], wanted)
    first4, first6 = routes(box), routes(box, "-6")
    assert first4["10.82.0.0/16"] == ("eth0", "169.254.1.1")
    assert first4["10.83.0.0/16"] == first4["10.81.0.0/24"] == ("eth0", "")
    assert first6["fd82::/64"] == ("eth0", "fe80::1")
    assert first6["fd83::/64"] == ("eth0", "")


def test_another_interface_of_the_name_is_left_alone(
    links: Links, switch: Switch, box: harness.Netns, inside: Netns
) -> None:
    port = switch.port()
    box.run("ip", "link", "add", "eth0", "type", "veth", "peer", "eth0-peer")
    before = shown(box)
    with pytest.raises(LinkExists, match="eth0"):
        plug(links, port, inside)
    assert links.unplug_netns(inside, "eth0", port) is False
    assert shown(box) == before
    assert not list(Path(f"/sys/class/net/{port}").glob("upper_*"))


def test_only_a_macvlan_on_our_port_is_ours(links: Links, switch: Switch, box: harness.Netns, inside: Netns) -> None:
    port, other = switch.port(), switch.port()
    plug(links, other, inside)
    with pytest.raises(LinkExists):
        plug(links, port, inside)
    assert links.unplug_netns(inside, "eth0", port) is False

    # The container's root makes a macvlan on a device whose index in the *container* is the port's on the host.
    index = str(socket.if_nametoindex(port))
    box.run("ip", "link", "add", "false", "index", index, "type", "veth", "peer", "false-peer")
    box.run("ip", "link", "add", "eth1", "link", "false", "type", "macvlan", "mode", "passthru")
    assert links.unplug_netns(inside, "eth1", port) is False
    with pytest.raises(LinkExists):
        plug(links, port, inside, "eth1")
    info = links.link("eth1", inside)
    assert info is not None
    assert info.lower is None


def test_a_port_carries_one_link(links: Links, switch: Switch, box: harness.Netns, inside: Netns) -> None:
    port = switch.port()
    plug(links, port, inside)
    with pytest.raises(LinkFailed, match=r"eth1.*cannot create eth1: EINVAL"):
        plug(links, port, inside, "eth1", [V4])
    assert device_names(box) == {"lo", "eth0"}


def test_unplugging_frees_name_address_and_routes_at_once(
    links: Links, switch: Switch, box: harness.Netns, inside: Netns
) -> None:
    port, next_port = switch.port(f"{HOST4}/24", f"{HOST6}/64"), switch.port()
    box.run("ip", "link", "set", "lo", "up")
    plug(links, port, inside)
    assert links.silence(port) is True
    assert links.unplug_netns(inside, "eth0", port) is True
    assert links.unplug_netns(inside, "eth0", port) is False
    (doomed,) = device_names(box) - {"lo"}
    assert doomed.startswith(f"{switch.names.prefix}x")
    assert addresses(box, doomed) == set()
    assert routes(box) == {}
    assert routes(box, "-6") == {}
    assert "NO-CARRIER" in shown(box, doomed)["flags"]

    # Whatever the container does with it, nothing passes any more.
    box.run("ip", "address", "add", str(V4), "dev", doomed)
    assert not _pings(box, HOST4)
    box.run("ip", "address", "del", str(V4), "dev", doomed)

    plug(links, next_port, inside)
    assert routes(box)["default"] == ("eth0", HOST4)
    run("ip", "link", "del", port)
    assert links.silence(port) is False
    assert device_names(box) == {"lo", "eth0"}
    assert routes(box)["default"] == ("eth0", HOST4)
    assert routes(box, "-6")["default"] == ("eth0", HOST6)


def test_unplugging_where_a_link_must_be_down_to_be_renamed(
    links: Links, switch: Switch, box: harness.Netns, inside: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Older(wire.Socket):
        """As with older kernels."""

        def batch(self, requests: Sequence[wire.Request]) -> list[bytes]:
            whats = [request.what for request in requests]
            if "free the name" in whats and "set the link down" not in whats:
                raise wire.Refused("free the name", 16)  # EBUSY
            return super().batch(requests)

    monkeypatch.setattr(links_module, "Socket", Older)
    port = switch.port()
    plug(links, port, inside)
    assert links.unplug_netns(inside, "eth0", port) is True
    (doomed,) = device_names(box) - {"lo"}
    assert shown(box, doomed)["operstate"] == "DOWN"
    assert routes(box) == {}


def test_unplugging_what_is_gone(links: Links, switch: Switch, box: harness.Netns, inside: Netns) -> None:
    port = switch.port()
    assert links.unplug_netns(inside, "eth0", port) is False
    plug(links, port, inside)
    run("ip", "link", "del", port)
    assert links.unplug_netns(inside, "eth0", port) is False
    assert device_names(box) == {"lo"}


def test_a_namespace_deleted_meanwhile(links: Links, switch: Switch, box: harness.Netns) -> None:
    port = switch.port()
    links.prepare_port(port, MTU)
    with open_netns(str(box.path)) as inside:
        box.delete()
        links.plug_netns(port, inside, "eth0", mac_for(V4.ip), MTU, (V4,), ())
        assert links.link("eth0", inside) is not None
        assert links.unplug_netns(inside, "eth0", port) is True
        links.prepare_port(port, MTU)
    with pytest.raises(InvalidNetns):
        open_netns(str(box.path))
    wait_until(lambda: not list(Path(f"/sys/class/net/{port}").glob("upper_*")), "the macvlan is gone")
    assert links.link(port) is not None


def test_a_failure_leaves_nothing(links: Links, switch: Switch, box: harness.Netns, inside: Netns) -> None:
    port = switch.port()
    multicast = ip_interface("ff02::5/64")
    with pytest.raises(LinkFailed, match=r"eth0 in .*: cannot add address ff02::5/64: E[A-Z]+ \(") as failed:
        plug(links, port, inside, addresses=[V4, multicast], routes=())
    assert failed.value.details["device"] == "eth0"
    assert device_names(box) == {"lo"}
    with pytest.raises(LinkFailed, match="eth0"):
        links.plug_netns(port, inside, "eth0", mac_for(V4.ip), 9000, (V4,), ())  # more than the port's
    with pytest.raises(LinkFailed, match="is missing"):
        links.plug_netns(switch.names.new_port(), inside, "eth0", mac_for(V4.ip), MTU, (V4,), ())
    with pytest.raises(LinkFailed, match="is missing"):
        links.prepare_port(switch.names.new_port(), MTU)
    for name in ("no/name", "eth%d", "all"):
        with pytest.raises(InvalidRequest):
            links.plug_netns(port, inside, name, mac_for(V4.ip), MTU, (V4,), ())
    with pytest.raises(InvalidRequest):
        links.plug_netns(port, inside, "eth0", "ff:ff:ff:ff:ff:ff", MTU, (V4,), ())
    assert device_names(box) == {"lo"}
    plug(links, port, inside)


def test_an_index_that_is_taken(
    links: Links, switch: Switch, box: harness.Netns, inside: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexes = itertools.chain([7, 7], itertools.count(8))
    box.run(
        "ip", "link", "add", "other", "index", str(links_module._INDEX_FIRST + 7), "type", "veth", "peer", "another"
    )
    monkeypatch.setattr("secrets.randbelow", lambda _: next(indexes))
    assert plug(links, switch.port(), inside).ifindex == links_module._INDEX_FIRST + 8


def test_namespaces_by_process(box: harness.Netns, tmp_path: Path) -> None:
    with subprocess.Popen(box.argv("sleep", "60")) as sleeper:
        try:
            inode = box.path.stat().st_ino
            proc = Path("/proc", str(sleeper.pid))
            wait_until(lambda: (proc / "ns/net").stat().st_ino == inode, "the process is in its namespace")
            for path in (proc / "ns/net", proc / "task" / str(sleeper.pid) / "ns/net", box.path):
                with open_netns(str(path)) as opened:
                    assert (opened.inode, opened.path) == (inode, str(path))
            (tmp_path / "link").symlink_to(box.path)
            with pytest.raises(InvalidNetns, match="not a namespace"):
                open_netns(str(tmp_path / "link"))
        finally:
            sleeper.kill()


def test_a_namespace_of_another_kind(tmp_path: Path) -> None:
    place = tmp_path / "uts"
    place.touch()
    with ExitStack() as undo:
        undo.callback(run, "umount", place, check=False)
        run("mount", "--bind", "/proc/self/ns/uts", place)
        with pytest.raises(InvalidNetns, match="not a network namespace"):
            open_netns(str(place))


def test_docker_finds_its_link_on_the_host(links: Links, switch: Switch, box: harness.Netns) -> None:
    port = switch.port(f"{HOST4}/24")
    link = switch.names.docker_link(port)
    links.prepare_port(port, MTU)
    info = links.plug_host(port, link, mac_for(V4.ip), MTU)
    assert info == links.plug_host(port, link, mac_for(V4.ip), MTU) == links.link(link)
    assert (info.up, info.mac, info.mtu, info.addresses) == (False, mac_for(V4.ip), MTU, ())
    assert info.lower == socket.if_nametoindex(port)
    with pytest.raises(LinkExists):
        links.plug_host(switch.port(), link, mac_for(V4.ip), MTU)
    assert {found.name for found in links.links(switch.names.prefix)} == {
        port,
        link,
        *(found.name for found in links.links(f"{switch.names.prefix}p")),
    }

    box_names = ("ip", "link", "set", link, "netns", box.name, "name", "eth0")
    run(*box_names)
    box.run("ip", "address", "add", str(V4), "dev", "eth0")
    box.run("ip", "link", "set", "eth0", "up")
    assert box.pings(HOST4, wait=1)
    assert links.unplug_host(link) is False
    with open_netns(str(box.path)) as inside:
        moved = links.link("eth0", inside)
    assert moved is not None
    assert moved.lower == info.lower


def test_dockers_link_is_parked_when_it_is_down_on_the_host(links: Links, switch: Switch, box: harness.Netns) -> None:
    port = switch.port()
    link = switch.names.docker_link(port)
    assert not links.parked(link, port)
    links.plug_host(port, link, mac_for(V4.ip), MTU)
    assert links.parked(link, port)
    assert not links.parked(link, switch.port())
    assert not links.parked(port, port)
    run("ip", "link", "set", link, "up")
    assert not links.parked(link, port)
    run("ip", "link", "set", link, "netns", box.name)  # where it is down
    assert not links.parked(link, port)


def test_the_hosts_link_is_deleted_once(links: Links, switch: Switch) -> None:
    port = switch.port()
    link = switch.names.docker_link(port)
    links.plug_host(port, link, mac_for(V4.ip), MTU)
    assert links.unplug_host(link) is True
    assert links.unplug_host(link) is False
    assert links.link(link) is None
    assert links.unplug_host(port) is False  # no macvlan
    assert links.link(port) is not None


def test_a_gateway_has_exactly_its_addresses(links: Links, switch: Switch) -> None:
    near = "198.18.0.1"  # RFC 2544: no host's own network
    device = switch.port()
    far = switch.far.ip("link", "show", "type", "veth")[0]["ifname"]
    switch.far.run("ip", "address", "add", "198.18.0.2/24", "dev", far)
    switch.far.run("ip", "address", "add", "fd81::2/64", "dev", far, "nodad")
    mac = mac_for(ip_address(near))

    def gateway(*wanted: str) -> set[str]:
        links.set_gateway(device, mac, MTU, tuple(ip_interface(address) for address in wanted))
        info = links.link(device)
        assert info is not None
        assert (info.up, info.mac, info.mtu) == (True, mac, MTU)
        return {str(address) for address in info.addresses if not address.ip.is_link_local}

    one = {f"{near}/24", f"{HOST6}/64"}
    assert gateway(*one) == one
    assert switch.far.pings(near, wait=1)
    assert switch.far.pings(HOST6, wait=1)
    run("ip", "neigh", "replace", "198.18.0.77", "lladdr", "02:00:00:00:00:77", "dev", device, "nud", "reachable")
    assert gateway(*one) == one
    # A network in use may be asked for again: who talks by this gateway loses nothing.
    assert "198.18.0.77" in run("ip", "neigh", "show", "dev", device).stdout
    # The first address of a subnet goes, and the kernel would take the second of that subnet along.
    other = {"198.18.0.254/24", "198.19.0.1/16", "fd81::fe/64"}
    assert gateway(*other) == other
    assert switch.far.pings("fd81::fe", wait=1)
    assert set(map(ip_network, ("198.18.0.0/24", "198.19.0.0/16", "fd81::/64"))) <= set(links.host_routes())
    assert gateway("198.18.0.1/24") == {"198.18.0.1/24"}
    assert Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").read_text().strip() == "1"
    assert gateway(*one) == one
    assert Path(f"/proc/sys/net/ipv6/conf/{device}/accept_ra").read_text().strip() == "0"
    assert gateway() == set()
    with pytest.raises(LinkFailed, match="is missing"):
        links.set_gateway(switch.names.new_port(), mac, MTU, ())


def test_host_routes_have_no_default(links: Links) -> None:
    listed = [route["dst"] for route in json.loads(run("ip", "-json", "route", "show", "table", "main").stdout)]
    found = links.host_routes()
    assert all(net.prefixlen for net in found)
    assert len(set(found)) == len(found)
    assert {ip_network(destination) for destination in listed if destination != "default"} <= set(found)


def test_waits_for_a_device_by_events(links: Links, switch: Switch) -> None:
    name, peer, delay = switch.names.new_port(), switch.names.new_port(), 0.3
    with ExitStack() as undo:
        undo.callback(run, "ip", "link", "del", name, check=False)
        timer = threading.Timer(delay, run, ("ip", "link", "add", name, "type", "veth", "peer", peer))
        undo.callback(timer.join)
        start = time.monotonic()
        timer.start()
        links.wait_device(name, 5)
        assert delay <= time.monotonic() - start < delay + 1
        links.wait_device(name, 0)
    with pytest.raises(LinkFailed, match=r"did not appear within 0\.2 s"):
        links.wait_device(name, 0.2)


def test_thirty_two_at_once(links: Links, switch: Switch, netns: NewNetns) -> None:
    count = 32
    boxes = [netns() for _ in range(4)]
    ports = [switch.port(f"10.86.{number}.1/24", f"fd86:{number}::1/64") for number in range(count)]
    own = os.stat("/proc/self/ns/net").st_ino
    barrier = threading.Barrier(count)

    def attach(number: int) -> LinkInfo:
        barrier.wait()
        wanted = ip_interface(f"10.86.{number}.2/24"), ip_interface(f"fd86:{number}::2/64")
        with open_netns(str(boxes[number % 4].path)) as inside:
            info = plug(links, ports[number], inside, f"eth{number}", wanted, ())
        assert os.stat("/proc/thread-self/ns/net").st_ino == own
        return info

    def reach(number: int) -> bool:
        box = boxes[number % 4]
        return box.pings(f"10.86.{number}.1", wait=1) and box.pings(f"fd86:{number}::1", wait=1)

    def detach(number: int) -> bool:
        barrier.wait()
        with open_netns(str(boxes[number % 4].path)) as inside:
            gone = links.unplug_netns(inside, f"eth{number}", ports[number])
        assert os.stat("/proc/thread-self/ns/net").st_ino == own
        return gone

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(attach, range(count)))
        assert [info.name for info in found] == [f"eth{number}" for number in range(count)]
        assert {info.name for info in links.links(f"{switch.names.prefix}p")} >= set(ports)
        assert all(pool.map(reach, range(count)))
        assert all(pool.map(detach, range(count)))


def test_a_container_cannot_answer_for_the_kernel() -> None:
    with wire.Socket() as sock, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as liar:
        sock.batch([messages.get_link(index=1)])
        port = sock._socket.getsockname()[0]
        # "No such device", to the question that comes next.
        lie = b"\x24\0\0\0\x02\0\0\0\x02\0\0\0" + port.to_bytes(4, "little") + b"\xed\xff\xff\xff" + bytes(16)
        liar.sendto(lie, (port, 0))
        (answer,) = sock.batch([messages.get_link(index=1)])
        assert messages.read_device(answer).name == "lo"


def test_a_thread_that_cannot_come_back_ends_the_process(box: harness.Netns, names: DeviceNames) -> None:
    script = (
        "import os, resource, sys\n"
        "from ovsnet.link import Links, open_netns\n"
        "from ovsnet.names import DeviceNames\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "links = Links(DeviceNames(sys.argv[2]))\n"
        "netns = open_netns(sys.argv[1])\n"
        "os.dup2(os.open('/dev/null', os.O_RDONLY), links._host.fd)\n"
        "links.link('lo', netns)\n"
        "print('went on')\n"
    )
    result = run(sys.executable, "-c", script, box.path, names.prefix, check=False)
    assert result.returncode == -signal.SIGABRT
    assert "stuck in a container's namespace" in result.stderr
    assert "went on" not in result.stdout


def test_a_stand_in_has_the_links_name(
    links: Links, switch: Switch, box: harness.Netns, inside: Netns, netns: NewNetns
) -> None:
    """As Docker takes it: it renames what has the name, and moves it away, and is spared the grace period of a macvlan."""
    port, elsewhere = switch.port(f"{HOST4}/24", f"{HOST6}/64"), netns()
    plug(links, port, inside)
    for name in ("net1", "a-name-that-is-longer-than-fifteen"):
        box.run("ip", "link", "property", "add", "dev", "eth0", "altname", name)
    stand_in = links.stand_in(inside, port)
    assert stand_in is not None
    assert not [name for row in box.ip("link", "show") for name in row.get("altnames", ())]
    assert (shown(box)["linkinfo"]["info_kind"], shown(box)["operstate"]) == ("tun", "DOWN")
    assert addresses(box) == set()
    assert not routes(box)
    assert not routes(box, "-6")
    assert not _pings(box, HOST4)
    silent = links.link(port)
    assert silent is not None
    assert not silent.up
    assert links.stand_in(inside, port) is None  # again
    box.run("ip", "link", "set", "eth0", "name", "parked", "netns", elsewhere.name)
    assert "parked" in device_names(elsewhere)
    stand_in.close()
    stand_in.close()
    assert device_names(elsewhere) == {"lo"}
    assert links.clear(port, "", inside)
    assert device_names(box) == {"lo"}


def test_a_stand_in_goes_with_its_last_user(links: Links, switch: Switch, box: harness.Netns, inside: Netns) -> None:
    port = switch.port()
    plug(links, port, inside, routes=())
    stand_in = links.stand_in(inside, port)
    assert "eth0" in device_names(box)
    del stand_in
    assert "eth0" not in device_names(box)


def test_without_taps_a_link_is_left_alone(
    links: Links, switch: Switch, box: harness.Netns, inside: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovsnet.link.standin._DEVICE", "/dev/net/none")
    port = switch.port(f"{HOST4}/24")
    assert links.stand_in(inside, port) is None  # there is no link
    plug(links, port, inside)
    with pytest.raises(LinkFailed, match="/dev/net/none"):
        links.stand_in(inside, port)
    assert box.pings(HOST4, wait=1)
    assert device_names(box) == {"lo", "eth0"}
