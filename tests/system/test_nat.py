"""Our nftables rules in a namespace that plays the host: who hears a broadcast, and which networks reach each other."""

from __future__ import annotations

import ctypes
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ovsnet.errors import DeadlineExceeded, Unavailable
from ovsnet.names import DeviceNames
from ovsnet.nat import Rules, rules
from tests.harness import Netns, wait_until

NAMES = DeviceNames()
SWITCH_PORT = "onp0123456789"
UDP_PORT = 4711
HOST, HOST6 = "10.77.0.99", "fd77::99"  # the host's own, on its loopback

_CLONE_NEWNET = 0x40000000  # sched.h
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(namespace: Netns) -> Iterator[None]:
    """The calling thread is in the namespace, with the processes and sockets that it makes."""
    with Path("/proc/thread-self/ns/net").open("rb") as home, namespace.path.open("rb") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@pytest.fixture
def ground(netns: Callable[[], Netns]) -> Iterator[Netns]:
    """The namespace that plays the host; the test's thread is in it."""
    namespace = netns()
    with inside(namespace):
        yield namespace


def ruleset(ground: Netns) -> list[Any]:
    return [
        {kind: {key: value for key, value in body.items() if key != "handle"} for kind, body in entry.items()}
        for entry in json.loads(ground.run("nft", "-j", "list", "ruleset").stdout)["nftables"]
    ]


def test_loading_is_idempotent_and_touches_nothing_else(ground: Netns) -> None:
    ground.run("nft", "add table inet somebody; add chain inet somebody else")
    before = ruleset(ground)
    nat, neighbour = Rules(NAMES), Rules(DeviceNames("zz"))
    assert not nat.present()
    nat.load()
    loaded = ruleset(ground)
    assert nat.present()
    assert len([entry for entry in loaded if "rule" in entry]) == 11
    nat.load()
    assert ruleset(ground) == loaded
    neighbour.load()
    nat.unload()
    assert not nat.present()
    assert neighbour.present()
    nat.unload()
    neighbour.unload()
    assert ruleset(ground) == before


def test_a_table_for_each_prefix() -> None:
    assert Rules(DeviceNames("on")).table == "ovsnet"
    assert Rules(DeviceNames("t1")).table == "ovsnet-t1"
    assert Rules(DeviceNames("t1"), "mine").table == "mine"


def test_failures_are_told(ground: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del ground
    with pytest.raises(Unavailable, match=r"nft refused the rules: .*Error"):
        Rules(NAMES, "n" * 300).load()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="cannot be run"):
        Rules(NAMES).present()
    nft = tmp_path / "nft"
    nft.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    nft.chmod(0o755)
    monkeypatch.setattr(rules, "_TIMEOUT", 0.2)
    with pytest.raises(DeadlineExceeded):
        Rules(NAMES).load()


class Scene:
    """A container's macvlan on a switch port of the host, whose other end (the switch) is `wire`."""

    def __init__(self, ground: Netns, wire: Netns, container: Netns, port: str = SWITCH_PORT) -> None:
        self.ground, self.wire, self.container, self.port = ground, wire, container, port
        ground.run("ip", "link", "add", port, "type", "veth", "peer", "name", "w0", "netns", wire.name)
        ground.run("ip", "link", "set", port, "arp", "off", "up")
        kind = ("type", "macvlan", "mode", "passthru")
        ground.run("ip", "link", "add", "link", port, "name", "eth0", "netns", container.name, *kind)
        for namespace, device, number in ((wire, "w0", 1), (container, "eth0", 2)):
            namespace.run("ip", "addr", "add", f"10.77.0.{number}/24", "dev", device)
            namespace.run("ip", "addr", "add", f"fd77::{number}/64", "dev", device, "nodad")
            namespace.run("ip", "link", "set", device, "up")
        for address in (HOST, HOST6):
            ground.run("ip", "addr", "add", address, "dev", "lo")
        routes = ("ip", "-6", "route", "show", "table", "all")
        wait_until(lambda: "ff00::/8" in wire.run(*routes).stdout, "IPv6 has its multicast route")

    def hush(self) -> None:
        """No IPv6 on the port, as the link room has it."""
        self.ground.run("sysctl", "-q", "-w", f"net.ipv6.conf.{self.port}.disable_ipv6=1")

    def who_hears(self, family: socket.AddressFamily, address: str) -> set[str]:
        """Who of host and container gets a datagram that the wire sends to `address`."""
        heard = set()
        with ExitStack() as stack:
            ears = {}
            for name, namespace in (("host", self.ground), ("container", self.container)):
                with inside(namespace):
                    ears[name] = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                ears[name].bind(("", UDP_PORT))
                ears[name].settimeout(0.5)
            with inside(self.wire):
                mouth = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"w0")
            mouth.sendto(b"hello", (address, UDP_PORT))
            for name, ear in ears.items():
                try:
                    assert ear.recv(16) == b"hello"
                    heard.add(name)
                except TimeoutError:
                    continue
        return heard

    def neighbours(self, namespace: Netns, *selector: str) -> list[Any]:
        """Addresses that the namespace has learned."""
        return [entry["dst"] for entry in namespace.ip("neigh", "show", *selector) if "lladdr" in entry]


@pytest.fixture
def scene(ground: Netns, netns: Callable[[], Netns]) -> Scene:
    return Scene(ground, netns(), netns())


BROADCAST = (socket.AF_INET, "255.255.255.255")
ALL_NODES = (socket.AF_INET6, "ff02::1")


def test_only_the_container_hears_its_broadcasts(scene: Scene) -> None:
    assert scene.who_hears(*BROADCAST) == {"host", "container"}, "this is what the rule is for"
    assert scene.who_hears(*ALL_NODES) == {"host", "container"}
    Rules(NAMES).load()
    assert scene.who_hears(*BROADCAST) == {"container"}
    assert scene.who_hears(*ALL_NODES) == {"container"}
    assert scene.wire.pings("10.77.0.2")
    assert scene.wire.pings("fd77::2")
    assert scene.container.pings("10.77.0.1")
    Rules(NAMES).unload()
    assert scene.who_hears(*BROADCAST) == {"host", "container"}


def test_a_quiet_host_neither_answers_nor_learns(scene: Scene) -> None:
    Rules(NAMES).load()
    scene.hush()
    scene.wire.run("ip", "neigh", "flush", "dev", "w0")
    assert not scene.wire.pings(HOST, wait=1)
    assert not scene.wire.pings(HOST6, wait=1)
    assert scene.neighbours(scene.wire, HOST) == scene.neighbours(scene.wire, HOST6) == []
    assert scene.wire.pings("10.77.0.2")
    assert scene.wire.pings("fd77::2")
    assert scene.neighbours(scene.wire, "10.77.0.2") == ["10.77.0.2"]
    assert scene.neighbours(scene.ground) == []
    assert scene.who_hears(*ALL_NODES) == {"container"}


def test_ports_of_another_prefix_are_not_ours(ground: Netns, netns: Callable[[], Netns]) -> None:
    scene = Scene(ground, netns(), netns(), port="xxp0123456789")
    Rules(NAMES).load()
    assert scene.who_hears(*BROADCAST) == {"host", "container"}
    Rules(DeviceNames("xx")).load()
    assert scene.who_hears(*BROADCAST) == {"container"}


def test_networks_do_not_reach_each_other(ground: Netns, netns: Callable[[], Netns]) -> None:
    ground.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    sides = []
    gateways = ("ong1111111111", "ong2222222222", "ong3333333333")
    for number, device in enumerate((*gateways[:2], "uplink", gateways[2])):
        side = netns()
        sides.append(side)
        ground.run("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", side.name)
        for namespace, name, last in ((ground, device, 1), (side, "eth0", 2)):
            namespace.run("ip", "addr", "add", f"10.88.{number}.{last}/24", "dev", name)
            namespace.run("ip", "link", "set", name, "up")
        side.run("ip", "route", "add", "default", "via", f"10.88.{number}.1")
    red, blue, outside, green = sides
    assert red.pings("10.88.1.2"), "this is what the rule is for"
    Rules(NAMES).load()
    assert not red.pings("10.88.1.2", wait=1)
    assert not blue.pings("10.88.0.2", wait=1)
    assert red.pings("10.88.0.1")
    assert red.pings("10.88.2.2")
    assert outside.pings("10.88.1.2")
    Rules(NAMES).load(routed=gateways[1:])  # both have to be
    assert blue.pings("10.88.3.2")
    assert green.pings("10.88.1.2")
    assert not red.pings("10.88.1.2", wait=1)
    assert not blue.pings("10.88.0.2", wait=1)
    Rules(NAMES).load(routed=gateways[1:2])
    assert not blue.pings("10.88.3.2", wait=1)
