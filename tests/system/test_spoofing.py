"""Containers send only as themselves: what they forge reaches nobody, from the first moment on and whatever restarts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import pytest
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from tests.harness import IMAGE, Dockerd, Netns, Ovs, Stack, wait_until
from tests.system.containers import Pod, create_network
from tests.system.frames import ALL, STRANGE_MAC, Ear, Party, fence, forged, marked, packet_socket, rightful, through

pytestmark = pytest.mark.usefixtures("nothing_left")

NET, NET6 = "10.93.1.0/24", "fd93:1::/64"
RANGES = [[{"subnet": NET}], [{"subnet": NET6}]]
OFF = {"antiSpoofing": False}

NewPod = Callable[[], Pod]


@dataclass
class Scene:
    """A container, its neighbour and their gateway, with ears at both of these."""

    stack: Stack
    me: Party
    mine: Netns
    other: Party
    gateway: Party
    tag: int
    ears: list[Ear] = field(default_factory=list)

    def outcome(self) -> tuple[dict[str, int], dict[str, int]]:
        """How many ears heard each forged frame, and each rightful one."""
        with packet_socket(self.mine, "eth0") as sender:
            good = through(sender, rightful(self.me, self.other, self.gateway), self.ears, fence(self.me))
            bad = through(sender, forged(self.me, self.other, self.gateway, self.tag), self.ears, fence(self.me))
        return bad, good

    def check(self) -> None:
        """Nothing forged gets anywhere, everything rightful does."""
        bad, good = self.outcome()
        assert [name for name, heard in bad.items() if heard] == []
        assert [name for name, heard in good.items() if not heard] == []

    def reaches(self) -> None:
        """Both families work."""
        for address in (self.other.ip, self.other.ip6, self.gateway.ip, self.gateway.ip6):
            assert self.mine.pings(address), address


def party(netns: Netns, device: str) -> Party:
    """Who that is, by what the kernel shows."""
    (link,) = netns.ip("address", "show", "dev", device)
    found = {one["family"]: one["local"] for one in link["addr_info"] if one["scope"] == "global"}
    return Party(link["address"], found["inet"], found["inet6"])


def scene(stack: Stack, undo: ExitStack, network: str, mine: Netns, neighbour: Netns) -> Scene:
    found = stack.show("network", "show", network)
    (device,) = (
        link["ifname"]
        for link in stack.host.ip("address", "show")
        if link["ifname"].startswith(f"{stack.prefix}g")
        and any(str(one.get("local")) in str(found["gateways"]) for one in link["addr_info"])
    )
    parties = party(mine, "eth0"), party(neighbour, "eth0"), party(stack.host, device)
    ears = [undo.enter_context(Ear(where, name)) for where, name in ((neighbour, "eth0"), (stack.host, device))]
    return Scene(stack, parties[0], mine, parties[1], parties[2], found["vlan"], ears)


def pods(stack: Stack, pod: NewPod, undo: ExitStack, **conf: object) -> Scene:
    """Two pods on a network."""
    one, other = pod(), pod()
    for each in (one, other):
        each.attach(stack.conf("green", ranges=RANGES) | conf)
    return scene(stack, undo, "green", one.netns, other.netns)


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_cni(stack: Stack, ovs: Ovs, pod: NewPod, undo: ExitStack) -> None:
    found = pods(stack, pod, undo)
    found.check()
    found.reaches()
    stack.restart()
    found.check()
    ovs.kill_vswitchd()
    ovs.vswitchd.start()
    wait_until(lambda: not guards(found), "its ports are guarded again")
    found.check()
    found.reaches()


def test_check_and_repair(stack: Stack, ovs: Ovs, pod: NewPod) -> None:
    """CHECK tells of flows that somebody has removed; a moment later they are there again."""
    box, conf = pod(), stack.conf("green", subnet=NET)
    result = box.add(conf).output
    bridge = f"unix:{ovs.vswitchd.directory / stack.bridge}.mgmt"

    def check() -> str:
        found = stack.cni("CHECK", box.id, box.netns, conf | {"prevResult": result})
        return "" if found.ok else found.output["msg"]

    def told() -> bool:
        stack.host.run("ovs-ofctl", "-O", "OpenFlow13", "del-flows", bridge, "table=240")
        return "flows that guard switch port" in check()

    assert check() == ""
    wait_until(told, "CHECK tells of it")  # unless they are mended just then
    wait_until(lambda: not check(), "they are mended")


def test_the_rest_of_the_bridge_is_as_its_owner_wants(stack: Stack, ovs: Ovs, pod: NewPod, undo: ExitStack) -> None:
    found = pods(stack, pod, undo)
    bridge = f"unix:{ovs.vswitchd.directory / stack.bridge}.mgmt"
    for change, passes in (("add-flow", False), ("del-flows", True)):
        flow = "icmp" if passes else "priority=1,icmp,actions=drop"
        stack.host.run("ovs-ofctl", "-O", "OpenFlow13", change, bridge, flow)
        assert found.mine.pings(found.other.ip, wait=1) == passes
    foreign = f"{stack.prefix}own"
    ovs.vsctl(
        *("add-port", stack.bridge, foreign, f"tag={found.tag}"), *("--", "set", "Interface", foreign, "type=internal")
    )
    undo.callback(ovs.vsctl, "del-port", foreign)
    stack.host.run("ip", "link", "set", foreign, "up")
    with packet_socket(stack.host, foreign) as sender:
        frames = {"forged": Ether(src=found.other.mac, dst=ALL, type=0x88B5) / Raw(b"x" * 50)}
        last = Ether(src=STRANGE_MAC, dst=ALL, type=0x88B6) / Raw(b"x" * 50)
        assert through(sender, frames, found.ears, last) == {"forged": 2}


def guards(found: Scene) -> int:
    """How many ears hear a frame with a MAC that is nobody's."""
    strange = {"it": Ether(src=STRANGE_MAC, dst=ALL, type=0x88B5) / Raw(b"x" * 50)}
    with packet_socket(found.mine, "eth0") as sender:
        return through(sender, strange, found.ears, fence(found.me))["it"]


def test_without_it_all_of_that_passes(stack: Stack, pod: NewPod, undo: ExitStack) -> None:
    """Or "nothing is heard" would prove nothing. Tags and LLDP's kind the switch keeps from others itself."""
    found = pods(stack, pod, undo, **OFF)
    bad, good = found.outcome()
    assert {name for name, heard in bad.items() if not heard} <= {
        "tag of its own network",
        "tag of another network",
        "two tags",
    }
    assert all(good.values())


def test_docker(dockerd: Dockerd, stack: Stack, ovs: Ovs, undo: ExitStack) -> None:
    create_network(dockerd, stack, "blue", NET, NET6)
    run = ("run", "--detach", "--network", "blue")
    dockerd.docker(*run, "--name", "one", "--mac-address", "02:00:00:00:93:01", IMAGE)
    dockerd.docker(*run, "--name", "other", IMAGE)
    found = scene(stack, undo, "blue", dockerd.netns("one"), dockerd.netns("other"))
    assert found.me.mac == "02:00:00:00:93:01"
    found.reaches()
    found.check()
    stack.restart()
    found.check()
    ovs.kill_vswitchd()
    ovs.vswitchd.start()
    wait_until(lambda: not guards(found), "its ports are guarded again")
    found.check()


def test_exceptions(dockerd: Dockerd, stack: Stack, undo: ExitStack) -> None:
    create_network(dockerd, stack, "blue", NET, NET6, options=["ovsnet.anti-spoofing=0"])
    for name in ("one", "other"):
        dockerd.docker("run", "--detach", "--network", "blue", "--name", name, IMAGE)
    found = scene(stack, undo, "blue", dockerd.netns("one"), dockerd.netns("other"))
    assert guards(found) == 2
    refused = dockerd.docker(
        "network", "create", "-d", stack.driver, "--opt", "ovsnet.anti-spoofing=maybe", "red", check=False
    )
    assert "neither true nor false" in refused.stderr


class Forger:
    """Sends frames as the gateway from a namespace, as soon as it has eth0 and for as long as the context lasts."""

    def __init__(self, netns: Netns) -> None:
        self.frame, self.mark = marked(Ether(src=STRANGE_MAC, dst=ALL, type=0x88B5) / Raw(b"x" * 50))
        self.sent = 0
        self._netns = netns
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Forger:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        sender = None
        while not self._over.is_set():
            try:
                sender = sender or packet_socket(self._netns, "eth0")
                sender.send(self.frame)
                self.sent += 1
            except OSError:  # it is not there yet, or not up
                pass
            self._over.wait(0.001)
        if sender is not None:
            sender.close()


@pytest.mark.parametrize("more", [pytest.param({}, id="guarded"), pytest.param(OFF, id="not-guarded")])
def test_from_the_first_moment_on(stack: Stack, pod: NewPod, undo: ExitStack, more: dict[str, bool]) -> None:
    found = pods(stack, pod, undo, **more)
    conf = stack.conf("green", ranges=RANGES) | more
    late = [pod() for _ in range(8)]  # more than there are spare ports
    forgers = [undo.enter_context(Forger(each.netns)) for each in late]
    for each in late:
        each.attach(conf)
        assert each.pings(found.gateway.ip)
    with suppress(AssertionError):  # the machine may be busy
        wait_until(lambda: all(one.sent for one in forgers), "each has sent")
    heard = [frame for ear in found.ears for frame in ear.heard()]
    count = sum(any(one.mark in frame for frame in heard) for one in forgers)
    assert count == (len(late) if more else 0)
    assert all(one.sent for one in forgers)


def test_trunk(stack: Stack, pod: NewPod, undo: ExitStack) -> None:
    trunk = {"vlanTrunk": [{"id": 3101}]}
    found = pods(stack, pod, undo, **trunk)
    found.reaches()

    def tagged(mac: str, tag: int) -> Ether:
        return Ether(src=mac, dst=ALL) / Dot1Q(vlan=tag, type=0x88B5) / Raw(b"x" * 50)

    frames = {
        "its own": tagged(found.me.mac, 3101),
        "another MAC": tagged(found.other.mac, 3101),
        "another VLAN": tagged(found.me.mac, 3102),
    }
    bad = {name: one for name, one in forged(found.me, found.other, found.gateway, 3101).items() if "tag" not in name}
    with packet_socket(found.mine, "eth0") as sender:
        assert through(sender, frames, found.ears[:1], fence(found.me)) == {
            "its own": 1,
            "another MAC": 0,
            "another VLAN": 0,
        }
        assert sum(through(sender, bad, found.ears, fence(found.me)).values()) == 0
