"""ovsnetd dies by SIGKILL in the middle of mending a host on which several things are broken at once: the next one finishes it.

A dry run is clean then, containers reach each other by the addresses that they had, and nothing is left behind.
"""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress

import pytest

from ovsnet.crashpoints import Point
from tests.conftest import FaultRow
from tests.harness import Netns, run, wait_until
from tests.system.faulty import PORT, Faulty
from tests.system.published import PYTHON, SERVER, ask

pytestmark = [pytest.mark.faults]

NETWORK, SUBNET, SUBNET6 = "drift", "10.73.0.0/24", "fd73::/64"
GATEWAYS = ("10.73.0.1", "fd73::1")
RATE = 10**8  # bits/s
CONVERGED = 5.0  # seconds after the start, by FAULTS.md
PATIENCE = 30.0  # seconds until a wait is given up
GATE = "finished by the next run within 5 s; 0 left"

# What is broken, by the containers' names: each needs another repair.
BROKEN = ("trunked", "lost", "untagged", "unmarked", "deaf", "unlimited", "unlinked")


class Host:
    """A host with two networks, on which what ovsnet has made can be broken in many places at once."""

    STARTING = (
        Point.START_RULES,
        Point.START_LIMITS,
        Point.START_NETWORKS,
        Point.START_STRAYS,
        Point.START_GUARDS,
        Point.REPAIR_BRIDGE,
        Point.REPAIR_GATEWAY_GONE,
        Point.REPAIR_GATEWAY_PORT,
        Point.REPAIR_GATEWAY,
        Point.REPAIR_PORTS,
        Point.REPAIR_MOVED,
        Point.REPAIR_OPENED,
        Point.REPAIR_UNPLUGGED,
        Point.REPAIR_LIMITED,
        Point.REPAIR_PLUGGED,
        Point.REPAIR_MARKED,
        Point.REPAIR_PREPARED,
    )
    RUNNING = (Point.REPAIR_RULES, Point.REPAIR_LEASE, Point.REPAIR_STRAY)

    def __init__(self, world: Faulty, undo: ExitStack) -> None:
        self.world = world
        self.undo = undo
        self.spaces: dict[str, Netns] = {}
        self.own = f"{world.stack.prefix}own"

    def begin(self) -> None:
        """All is well, with a container for each thing that will be broken."""
        self.world.api.create_network(NETWORK, subnets=[SUBNET, SUBNET6], masquerade=True)
        self.world.api.create_network("other", bridge=self.own, subnets=["10.74.0.0/24"])
        for name in BROKEN:
            self.add(name)
        server = (PYTHON, "-ISc", SERVER, "web", "SOCK_STREAM", "80")
        process = self.undo.enter_context(
            subprocess.Popen(self.spaces[BROKEN[0]].argv(*server), stdin=subprocess.DEVNULL)
        )
        self.undo.callback(process.kill)

    def add(self, name: str) -> None:
        """ADD of a container with limits, and published ports if it is the first."""
        self.spaces.setdefault(name, self.world.netns())
        limits = {"ingressRate": RATE, "ingressBurst": RATE, "egressRate": RATE, "egressBurst": RATE}
        mappings = [{"hostPort": PORT, "containerPort": 80, "protocol": "tcp"}] if name == BROKEN[0] else []
        conf = self.world.stack.conf(NETWORK) | {"runtimeConfig": {"bandwidth": limits, "portMappings": mappings}}
        answer = self.world.cni("ADD", self.spaces[name], conf, container=name)
        assert answer.ok, answer

    def delete(self, name: str) -> None:
        """Its DEL."""
        assert self.world.cni("DEL", self.spaces[name], self.world.stack.conf(NETWORK), container=name).ok

    def end(self) -> None:
        """Takes everything down."""
        for name in BROKEN:
            self.delete(name)
        for network in (NETWORK, "other"):
            self.world.api.delete_network(network)

    def ports(self) -> dict[str, str]:
        """The containers' switch ports."""
        return {row["container"]: row["port"] for row in self.world.endpoints()}

    def picture(self) -> tuple[set[str], set[str]]:
        """What there is, where a container's port has its container's name, and what the store says of the containers."""
        names = {port: container for container, port in self.ports().items()}
        traces = {" ".join(names.get(word, word) for word in line.split()) for line in self.world.traces()}
        return traces, {f"{row['container']} {row['mac']} {row['addresses']}" for row in self.world.endpoints()}

    def break_all(self) -> None:
        """With no ovsnetd: it comes to a host on which many things are wrong."""
        ports, host, ovs = self.ports(), self.world.stack.host, self.world.stack.ovs
        (gateway,) = (
            link["ifname"]
            for link in host.ip("address", "show")
            if GATEWAYS[0] in [one.get("local") for one in link["addr_info"]]
        )
        self.world.stack.kill9()
        ovs.vsctl(
            *("set", "port", ports["trunked"], "trunks=7", "vlan_mode=trunk"),
            *("--", "del-port", ports["lost"]),
            *("--", "set", "port", ports["untagged"], "tag=4000"),
            *("--", "remove", "port", ports["unmarked"], "external_ids", "ovsnet-endpoint"),
            *("--", "set", "interface", ports["unlimited"], "ingress_policing_rate=0"),
            *("--", "del-br", self.own),
        )
        host.run("ip", "link", "set", ports["deaf"], "arp", "on", "down")
        self.spaces["unlinked"].run("ip", "link", "delete", "eth0")
        host.run("ip", "link", "delete", gateway)
        host.run("nft", "flush", "ruleset")

    def start_on_ruins(self) -> None:
        """Everything is broken, and ovsnetd starts."""
        self.break_all()
        self.world.stack.launch()

    def break_running(self) -> None:
        """Under a running ovsnetd a container's row and the rules go; then it is told to mend that."""
        where = f"unix:{self.world.stack.socket.parent}/state.sock"
        gone = {"op": "delete", "table": "Endpoint", "where": [["container", "==", "rowless"]]}
        run("ovsdb-client", "transact", where, json.dumps(["OVSNet", gone]))
        self.world.stack.host.run("nft", "flush", "ruleset")
        self.world.api.reconcile()

    def mended(self) -> None:
        """The run after the crash finishes what the one before it has begun, and a dry run finds nothing."""
        api = self.world.api
        wait_until(lambda: api.reconcile(dry_run=True)["ok"] and api.check()["ok"], "a dry run is clean", PATIENCE)
        self.world.slowest = max(self.world.slowest, time.monotonic() - self.world.begun)
        assert api.reconcile()["ok"]

    def works(self) -> None:
        """Containers reach the host, and each other."""
        others = {row["container"]: row["addresses"] for row in self.world.endpoints()}
        for name, space in self.spaces.items():
            if name in others:
                for address in GATEWAYS:
                    wait_until(lambda: space.pings(address, wait=1), f"{name} reaches {address}")  # noqa: B023  # at once
        wait_until(lambda: ask(self.world.stack.host, "127.0.0.1", PORT).startswith("web"), "its port is published")
        for address in others["lost"]:
            assert self.spaces["trunked"].pings(address.partition("/")[0])


def walk(
    host: Host, points: Iterable[Point], act: Callable[[], None], prepare: Callable[[], None]
) -> dict[str, object]:
    """Dies at each of the points; what is not as it was before, by the point."""
    different: dict[str, object] = {}
    before = host.picture()
    for point in points:
        prepare()
        host.world.die(point, act)
        host.mended()
        host.works()
        with suppress(AssertionError):
            wait_until(lambda: host.picture() == before, "as before")
        if (after := host.picture()) != before:
            different[point] = [one ^ other for one, other in zip(before, after, strict=True)]
    return different


def die_while_mending(
    world: Faulty, fault_row: FaultRow, what: str, starting: tuple[Point, ...], running: tuple[Point, ...]
) -> None:
    """One host through all these crashes."""
    empty = world.traces()
    world.slowest = 0.0
    with ExitStack() as undo:
        host = Host(world, undo)
        host.begin()
        left = walk(host, starting, host.start_on_ruins, lambda: None)
        left |= walk(host, running, host.break_running, lambda: host.add("rowless"))
        host.end()
    if ended := world.left(empty):
        left["the end"] = ended
    fault_row(
        fault=f"kill -9 while reconciling {len(BROKEN)} containers, {what}",
        rounds=len(starting) + len(running),
        leaked=len(left),
        back=world.slowest,
        gate=GATE,
    )
    assert not left
    assert world.slowest <= CONVERGED


def test_died_while_mending(faulty: Faulty, fault_row: FaultRow) -> None:
    """The short form: where a container has two ports, and where it has none."""
    die_while_mending(faulty, fault_row, "a few steps", (Point.REPAIR_MOVED,), ())


@pytest.mark.whole
@pytest.mark.timeout(600)
def test_died_while_mending_at_every_step(faulty: Faulty, fault_row: FaultRow) -> None:
    die_while_mending(faulty, fault_row, "every step", Host.STARTING, Host.RUNNING)


@pytest.mark.whole
def test_died_while_clearing_up_after_a_reboot(faulty: Faulty, fault_row: FaultRow) -> None:
    """What lived before the host's reboot is forgotten, even if that takes two starts."""
    empty = faulty.traces()
    faulty.slowest, left = 0.0, dict[str, set[str]]()
    ipam = {
        "cniVersion": "1.0.0",
        "name": "beside",
        "type": "bridge",
        "ipam": {"type": "ovsnet-ipam", "pool": ["beside"]},
    }
    faulty.api.create_network(NETWORK, subnets=[SUBNET, SUBNET6])
    faulty.api.create_pool("10.75.0.0/24", name="beside")

    def reboot() -> None:
        faulty.stack.kill9()
        faulty.boot.write_text(f"{uuid.uuid4()}\n")
        faulty.stack.launch()

    before = faulty.traces()
    for point in REBOOTED:
        space = faulty.netns()
        assert faulty.cni("ADD", space, faulty.stack.conf(NETWORK)).ok
        assert faulty.cni("ADD", space, ipam, plugin="ovsnet-ipam").ok
        faulty.die(point, reboot)
        faulty.converged()
        if after := faulty.left(before):
            left[point] = after
    faulty.clear()
    if ended := faulty.left(empty):
        left["the end"] = ended
    fault_row(
        fault="kill -9 while clearing up after a reboot",
        rounds=len(REBOOTED),
        leaked=len(left),
        back=faulty.slowest,
        gate=GATE,
    )
    assert not left


REBOOTED = (Point.START_DEAD, Point.START_FORGOTTEN)


def test_every_step_of_mending_is_walked() -> None:
    walked = [*Host.STARTING, *Host.RUNNING, *REBOOTED]
    assert sorted(walked) == sorted(point for point in Point if point.startswith(("start.", "repair.")))
