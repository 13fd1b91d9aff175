"""A switch port that its container has left serves the next one, which inherits nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from tests.harness import IMAGE, Dockerd, Ovs, Stack, wait_until
from tests.system.containers import Pod
from tests.system.frames import packet_socket
from tests.system.test_metrics import value

pytestmark = pytest.mark.usefixtures("nothing_left")

SUBNET = "10.96.7.0/24"
LEFT = "10.96.7.77"  # an address that changes hands


def ports(stack: Stack, role: str) -> set[str]:
    """Names of the network's ports of that role."""
    marks = [f"external_ids:ovsnet-owner={stack.prefix}", f"external_ids:ovsnet-role={role}"]
    return set(stack.ovs.vsctl("--bare", "--columns=name", "find", "Port", *marks).split())


@pytest.fixture
def reused(stack: Stack, pod: Callable[[], Pod]) -> tuple[Pod, str]:
    """A container that had `LEFT` and has gone, its namespace too, and the port that is a spare one again."""
    leaving = pod()
    conf = stack.conf("again", subnet=SUBNET)
    assert leaving.attach(conf | {"args": {"cni": {"ips": [LEFT]}}}).startswith(LEFT)
    (port,) = ports(stack, "endpoint")
    leaving.netns.run("ping", "-n", "-c", "30", "-i", "0.01", "10.96.7.1")
    wait_until(lambda: len(ports(stack, "spare")) == 4, "there are spare ports")
    assert leaving.delete(conf).ok
    wait_until(lambda: port in ports(stack, "spare"), "the port is a spare one")
    return leaving, port


def on_the_port(stack: Stack, pod: Callable[[], Pod], port: str) -> Pod:
    """A container that has got that port, after those that got the other spares."""
    conf = stack.conf("again", subnet=SUBNET)
    for _ in range(8):  # twice as many as there are spares beside it, some of which are made meanwhile
        box = pod()
        box.attach(conf)
        (mine,) = (one["port"] for one in stack.endpoints() if one["container"] == box.id)
        if mine == port:
            return box
    raise AssertionError("nobody got the port")


def test_it_counts_from_nothing(stack: Stack, ovs: Ovs, pod: Callable[[], Pod], reused: tuple[Pod, str]) -> None:
    ovs.vsctl("set", "Open_vSwitch", ".", "other_config:stats-update-interval=1000")
    box = on_the_port(stack, pod, reused[1])

    def sent() -> float:
        return value(stack, "ovsnet_endpoint_sent_packets_total", container=box.id)

    assert box.netns.pings("10.96.7.1", count=3)
    wait_until(lambda: sent() >= 3, "what it sends is counted", 20)
    assert sent() < 20


def test_who_had_it_is_forgotten(stack: Stack, pod: Callable[[], Pod], reused: tuple[Pod, str]) -> None:
    """Nobody can send by it as the one before; whose MAC is behind another port now, although it says nothing itself."""
    box = on_the_port(stack, pod, reused[1])
    heir = pod()
    heir.attach(stack.conf("again", subnet=SUBNET) | {"args": {"cni": {"ips": [LEFT]}}})
    mac = heir.shown()["address"]
    gateway = stack.host.run("ip", "neigh", "show", LEFT).stdout
    assert not gateway or mac in gateway  # the same MAC as before: the switch alone knows where it is
    assert stack.host.pings(LEFT, wait=1)
    with packet_socket(box.netns, "eth0") as sender:
        forged = Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / IP(src=LEFT, dst="10.96.7.1") / ICMP()
        for _ in range(3):
            sender.send(bytes(forged))
    for _ in range(3):  # had one passed, the switch would look for it there
        assert stack.host.pings(LEFT, wait=1)


def test_a_limited_port_is_not_kept(stack: Stack, pod: Callable[[], Pod]) -> None:
    limits = {"egressRate": 1_000_000, "egressBurst": 100_000}
    conf = stack.conf("again", subnet=SUBNET) | {"runtimeConfig": {"bandwidth": limits}}
    box = pod()
    box.attach(conf)
    (port,) = ports(stack, "endpoint")
    assert box.delete(conf).ok
    wait_until(lambda: port not in ports(stack, "spare") | ports(stack, "endpoint"), "it is removed")


def test_a_port_that_is_coming_back_is_nobodys_mistake(stack: Stack, ovs: Ovs, pod: Callable[[], Pod]) -> None:
    """Still marked for its container while the switch takes its time: no orphan, of which a repair would remove a spare port."""
    box, conf = pod(), stack.conf("again", subnet=SUBNET)
    box.attach(conf)
    (port,) = ports(stack, "endpoint")
    wait_until(lambda: len(ports(stack, "spare")) == 4, "there are spare ports")
    with ovs.vswitchd.paused():
        assert box.delete(conf).ok
        assert stack.cli("ipam", "check").returncode == 0
        assert ports(stack, "endpoint") == {port}
    wait_until(lambda: port in ports(stack, "spare"), "it is a spare one")


def test_dockers_link_is_made_ahead_and_never_used_twice(
    stack: Stack, dockerd: Dockerd, pod: Callable[[], Pod]
) -> None:
    def links() -> dict[str, int]:
        """Index of each macvlan of ours that lies ready on the host, by the port that it is on."""
        shown = json.loads(stack.host.run("ip", "-json", "link", "show", "type", "macvlan").stdout)
        return {one["link"]: one["ifindex"] for one in shown if one["ifname"].startswith(stack.prefix)}

    def index(container: str) -> int:
        return int(dockerd.docker("exec", container, "cat", "/sys/class/net/eth0/ifindex").stdout)

    def ready() -> bool:
        return len(links()) >= 4 and links().keys() == ports(stack, "spare")

    drivers = ("-d", stack.driver, "--ipam-driver", stack.driver, "-o", "ovsnet.name=ahead")
    dockerd.docker("network", "create", *drivers, "--subnet", SUBNET, "ahead")
    run = ("run", "-d", "--network", "ahead")
    dockerd.docker(*run, "--name", "first", IMAGE, "sleep", "600")
    wait_until(ready, "each spare port has a link")
    before = links()
    dockerd.docker(*run, "--name", "second", IMAGE, "sleep", "600")
    (port,) = (name for name, number in before.items() if number == index("second"))

    box = pod()
    address = box.attach(stack.conf("ahead")).partition("/")[0]  # on a port without one
    assert port in ports(stack, "endpoint")
    assert dockerd.docker("exec", "second", "ping", "-c", "1", address).returncode == 0
    wait_until(lambda: links().keys() <= ports(stack, "spare"), "no link is left over")

    dockerd.docker("rm", "--force", "second")
    wait_until(lambda: port in ports(stack, "spare"), "the port is a spare one")
    assert links().get(port) != before[port]
    assert box.delete(stack.conf("ahead")).ok
    dockerd.docker("rm", "--force", "first")
    dockerd.docker("network", "rm", "ahead")
