"""Docker's life beside ours: either daemon ends and comes back, a call gets lost, and what nobody has any more is reaped.

The world of these tests is one host whose ovsnetd reaps after a second and a half, and a dockerd with live-restore. That
something is *not* reaped a clock shows: a container of CNI that is abandoned later, and is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FaultRow
from tests.harness import IMAGE, Dockerd, Netns, Ovs, Stack, wait_until
from tests.system.containers import Ping, create_network, refusals, start_container

pytestmark = [pytest.mark.docker, pytest.mark.long, pytest.mark.faults]

GRACE = 1.5
PATIENCE = 30.0  # seconds, on a busy machine
SUBNET, GATEWAY, AUX = "10.93.1.0/24", "10.93.1.1", "10.93.1.9"
LOST, LOST_ENDPOINT, OTHER_ENDPOINT = "1" * 64, "2" * 64, "3" * 64


@dataclass
class World:
    """A host with our daemon and Docker's."""

    host: Netns
    ovs: Ovs
    stack: Stack
    dockerd: Dockerd

    def configure(self, *, asked: bool, live: bool) -> None:
        """Has both run, ovsnetd asking Docker's API or not, and dockerd with live-restore or not."""
        if asked != ("docker_api" in self.stack.settings):
            self.stack.settings.pop("docker_api", None)
            if asked:
                self.stack.settings["docker_api"] = str(self.dockerd.socket)
            self.stack.stop()
        if live != self.dockerd.settings["live-restore"]:
            self.dockerd.settings["live-restore"] = live
            self.dockerd.stop()
        self.stack.ensure()
        self.dockerd.ensure()

    def call(self, method: str, **body: Any) -> Any:
        """A call of a dockerd that makes this one only, and is gone then."""
        argv = ("curl", "-sS", "--unix-socket", self.stack.docker_socket, "-d", json.dumps(body), f"http://d/{method}")
        answer = json.loads(self.host.run(*argv).stdout)
        assert not answer.get("Err"), answer
        return answer

    def containers(self) -> set[str]:
        """Whose endpoints there are."""
        return {row["container"] for row in self.stack.endpoints()}

    def leases(self, network: str) -> dict[str, str]:
        """Addresses and the kinds of their owners."""
        (pool,) = (row["name"] for row in self.stack.show("pool", "ls") if network in row["networks"])
        return {one["address"]: one["owner"]["kind"] for one in self.stack.show("pool", "leases", pool)}

    def endpoint_of(self, network: str, endpoint: str, address: str, pool: str) -> None:
        """RequestAddress and CreateEndpoint."""
        self.call("IpamDriver.RequestAddress", PoolID=pool, Address=address.partition("/")[0], Options=None)
        interface = {"Address": address, "AddressIPv6": "", "MacAddress": ""}
        self.call(
            "NetworkDriver.CreateEndpoint", NetworkID=network, EndpointID=endpoint, Interface=interface, Options=None
        )

    def attach(self, container: str, namespace: Netns) -> dict[str, Any]:
        """Has CNI attach a container to the network `pods`; its configuration."""
        conf = self.stack.conf("pods", subnet="10.93.9.0/24")
        assert self.stack.cni("ADD", container, namespace, conf).ok
        return conf


@pytest.fixture(scope="module")
def _world(token: str, directory: Path) -> Iterator[World]:
    with ExitStack() as undo:
        host = Netns(f"{token}-life")
        undo.callback(host.delete)
        place = directory / "life"
        ovs = Ovs(host, place / "ovs")
        undo.callback(ovs.close)
        ovs.ensure()
        socket = Path(f"/run/docker/plugins/ovsnet-{token}-l.sock")
        stack = Stack(host, ovs, token, place / "ovsnetd", docker_socket=str(socket), reap_after=GRACE)
        stack.driver = socket.stem
        undo.callback(stack.close)
        stack.start()
        dockerd = Dockerd(host, f"{token}l", place / "docker", **{"live-restore": True})
        undo.callback(dockerd.close)
        dockerd.start()
        yield World(host, ovs, stack, dockerd)


@pytest.fixture
def world(_world: World) -> Iterator[World]:
    """The world, with live-restore and with Docker not asked; nothing is left of a test."""
    _world.configure(asked=False, live=True)
    yield _world
    _world.stack.ensure()
    _world.dockerd.ensure()
    _world.dockerd.clear()
    try:
        wait_until(lambda: not _world.stack.leftovers(), "all gone", PATIENCE)
    except AssertionError:
        raise AssertionError(f"left behind: {_world.stack.leftovers()}") from None
    finally:
        _world.stack.clear()


def let_time_pass(world: World, netns: Callable[[], Netns]) -> None:
    """Returns when what was abandoned before is overdue: a container of CNI, abandoned now, has been reaped."""
    pod = netns()
    conf = world.attach(pod.name, pod)
    pod.delete()
    wait_until(lambda: pod.name not in world.containers(), "the clock is reaped", PATIENCE)
    assert world.stack.cni("DEL", pod.name, f"/run/netns/{pod.name}", conf).ok
    world.stack.cli("network", "rm", "pods")


def abandoned(world: World) -> list[str]:
    """What a dry run says that the reaper watches."""
    found = json.loads(world.stack.cli("reconcile", "--dry-run", "-o", "json", check=False).stdout)
    assert found["done"] == []
    return [one["target"] for one in found["left"] if (one["kind"], one["where"]) == ("abandoned", "reaper")]


def test_a_namespace_that_is_deleted_without_del(world: World, netns: Callable[[], Netns], fault_row: FaultRow) -> None:
    lost, kept, other = [netns() for _ in range(3)], netns(), netns()
    conf = {one.name: world.attach(one.name, one) for one in (*lost, kept, other)}
    address = next(row["addresses"][0] for row in world.stack.endpoints() if row["container"] == kept.name)
    with subprocess.Popen(kept.argv("sleep", "600"), stdin=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", "it lives in there")
            begin = time.monotonic()
            for one in (*lost, kept):  # a name goes, but not the namespace, as long as somebody lives there
                one.delete()
            wait_until(lambda: len(world.containers()) == 2, "the dead are reaped", PATIENCE)
            took = time.monotonic() - begin
            assert world.containers() == {kept.name, other.name}
            assert other.pings(address.partition("/")[0])
            assert abandoned(world) == [f"endpoint of {kept.name} on network pods"]
        finally:
            process.kill()
    wait_until(lambda: world.containers() == {other.name}, "the last process was its life", PATIENCE)
    assert abandoned(world) == []
    pods = world.leases("pods")
    fault_row(
        fault="container's netns deleted without DEL",
        gate="reaped after the grace period",
        rounds=len(lost),
        leaked=len(pods) - 2,
        back=took,
    )
    assert sorted(pods.values()) == ["endpoint", "gateway"]
    for name, of_its_own in conf.items():
        assert world.stack.cni("DEL", name, f"/run/netns/{name}", of_its_own).ok
    world.stack.cli("network", "rm", "pods")


def test_a_container_whose_link_came_home(world: World) -> None:
    """`docker network disconnect --force`, and connect again."""
    create_network(world.dockerd, world.stack, "blue", SUBNET)
    start_container(world.dockerd, "web", "blue")
    for _ in range(2):
        world.dockerd.docker("network", "disconnect", "--force", "blue", "web")
        assert world.stack.endpoints() == []
        assert world.leases("blue") == {GATEWAY: "gateway"}
        world.dockerd.docker("network", "connect", "blue", "web")
        assert world.dockerd.pings("web", GATEWAY)


def test_both_addresses_of_an_endpoint_are_repeated(world: World) -> None:
    """By each dockerd that restores it; a second wish for one of them is refused."""
    stack, dockerd = world.stack, world.dockerd
    create_network(dockerd, stack, "blue", SUBNET, "fd93:1::/64")
    start_container(dockerd, "web", "blue")
    (before,) = stack.endpoints()
    for _ in range(2):
        dockerd.kill9()
        told = stack.log.stat().st_size
        dockerd.start()
        assert refusals(stack, told) == []
        (now,) = stack.endpoints()
        assert now["addresses"] == before["addresses"]
    for flag, interface in zip(("--ip", "--ip6"), before["addresses"], strict=True):
        again = dockerd.docker(
            "run", "--rm", "--network", "blue", flag, interface.partition("/")[0], IMAGE, "true", check=False
        )
        assert "in use" in again.stderr


@pytest.mark.parametrize("asked", [False, True], ids=["kernel", "api"])
def test_what_docker_has_forgotten(world: World, netns: Callable[[], Netns], asked: bool) -> None:
    """A dockerd died between two calls, and then ours was not told: with and without its API, and while there is no dockerd."""
    world.configure(asked=asked, live=True)
    stack, dockerd = world.stack, world.dockerd
    drivers = ("--driver", stack.driver, "--ipam-driver", stack.driver, "--opt", "ovsnet.name=blue")
    dockerd.docker("network", "create", *drivers, f"--subnet={SUBNET}", f"--aux-address=printer={AUX}", "blue")
    web = start_container(dockerd, "web", "blue")
    (network,) = stack.show("network", "ls")
    (blue,) = stack.show("pool", "ls")
    dockerd.kill9()
    # All of this is said by dockerds that are gone when it is answered.
    world.call("IpamDriver.RequestAddress", PoolID=blue["id"], Address="10.93.1.77", Options=None)
    world.endpoint_of(network["docker_ids"][0], LOST_ENDPOINT, "10.93.1.78/24", blue["id"])
    both = {"NetworkID": network["docker_ids"][0], "EndpointID": LOST_ENDPOINT}
    world.call("NetworkDriver.Join", **both, SandboxKey="/run/docker/netns/000000000000", Options=None)
    world.call("NetworkDriver.Leave", **both)
    pool = world.call(
        "IpamDriver.RequestPool", AddressSpace="ovsnet", Pool="10.93.2.0/24", SubPool="", Options={}, V6=False
    )
    data = [{"AddressSpace": "ovsnet", "Pool": "10.93.2.0/24", "Gateway": "10.93.2.1/24"}]
    gateway = {"RequestAddressType": "com.docker.network.gateway"}
    world.call("IpamDriver.RequestAddress", PoolID=pool["PoolID"], Address="", Options=gateway)
    world.call("NetworkDriver.CreateNetwork", NetworkID=LOST, Options={}, IPv4Data=data, IPv6Data=[])
    world.endpoint_of(LOST, OTHER_ENDPOINT, "10.93.2.7/24", pool["PoolID"])
    let_time_pass(world, netns)
    assert {LOST_ENDPOINT, OTHER_ENDPOINT} <= world.containers()
    assert world.leases("blue")["10.93.1.77"] == "docker"
    dockerd.start()  # it repeats what it knows
    assert dockerd.pings("web", GATEWAY)
    kept = {GATEWAY: "gateway", AUX: "docker", web: "endpoint"}
    wait_until(lambda: world.leases("blue") == kept, "what Docker forgot is reaped, and nothing else", PATIENCE)
    wait_until(lambda: len(world.containers()) == 1, "the other endpoint too", PATIENCE)
    if asked:
        wait_until(lambda: len(stack.show("network", "ls")) == 1, "the network that Docker lost is gone", PATIENCE)
        wait_until(lambda: len(stack.show("pool", "ls")) == 1, "and its pool", PATIENCE)
    else:
        stack.cli("network", "rm", f"docker-{LOST[:12]}")
    let_time_pass(world, netns)
    assert world.leases("blue") == kept
    assert dockerd.pings("web", GATEWAY)


@pytest.mark.parametrize(
    ("end", "live"),
    [
        pytest.param("stop", True, id="SIGTERM-live", marks=pytest.mark.whole),
        pytest.param("kill9", True, id="SIGKILL-live"),
        pytest.param("kill9", False, id="SIGKILL"),
    ],
)
def test_dockerd_comes_back(world: World, end: str, live: bool, tmp_path: Path, fault_row: FaultRow) -> None:
    """With running containers and restart policies."""
    world.configure(asked=False, live=live)
    stack, dockerd = world.stack, world.dockerd
    create_network(dockerd, stack, "blue", SUBNET)
    dockerd.docker("run", "--detach", "--name", "always", "--network", "blue", "--restart", "always", IMAGE)
    web = start_container(dockerd, "web", "blue")
    lost: set[int] = set()
    with ExitStack() as undo:
        ping = undo.enter_context(Ping(dockerd.netns("web"), GATEWAY, tmp_path / "ping")) if live else None
        victim = dockerd.inspect("always")["State"]["Pid"]
        getattr(dockerd, end)()
        if live:
            os.kill(victim, signal.SIGKILL)  # Docker is not there to see it
        begin = time.monotonic()
        dockerd.start()
        took = time.monotonic() - begin
        if ping is not None:
            ping.wait_answer()
            lost = ping.lost()
    wait_until(lambda: dockerd.inspect("always")["State"]["Running"], "the policy starts it", PATIENCE)
    wait_until(lambda: dockerd.pings("always", GATEWAY), "it is on its network", PATIENCE)
    running = {"always": dockerd.address("always", "blue")} | ({"web": web} if live else {})
    wait_until(
        lambda: world.leases("blue") == {GATEWAY: "gateway"} | dict.fromkeys(running.values(), "endpoint"),
        "each has its lease and nobody else",
        PATIENCE,
    )
    fault_row(
        fault=f"dockerd restarted ({end}), {'with' if live else 'without'} live-restore",
        gate="start-up not delayed, networks still there",
        lost=len(lost),
        leaked=0,
        doubled=len(running) - len(set(running.values())),
        back=took,
    )
    assert lost == set()
    if live:
        assert dockerd.address("web", "blue") == web
        assert dockerd.pings("always", web)
    else:
        dockerd.docker("start", "web")
    others = {dockerd.address(name, "blue") for name in ("always", "web")}
    assert start_container(dockerd, "late", "blue") not in others
    assert dockerd.pings("late", running["always"])


@pytest.mark.parametrize(
    "early", [pytest.param(True, id="early", marks=pytest.mark.whole), pytest.param(False, id="late")]
)
def test_ovsnetd_killed_in_the_middle_of_docker_run(world: World, early: bool) -> None:
    """Docker repeats a call that was refused, but one that was cut off without its body: it fails then, and leaves nothing."""
    stack, dockerd = world.stack, world.dockerd
    create_network(dockerd, stack, "blue", SUBNET)
    run = threading.Thread(
        target=dockerd.docker,
        args=("run", "--detach", "--name", "web", "--network", "blue", IMAGE),
        kwargs={"check": False, "timeout": 100},
    )
    run.start()
    if not early:
        wait_until(lambda: stack.endpoints() or not run.is_alive(), "it has an endpoint", PATIENCE)
    stack.kill9()
    stack.start()
    run.join(100)
    assert not run.is_alive()
    if not dockerd.inspect("web")["State"]["Running"]:
        dockerd.docker("start", "web")
    kept = {GATEWAY: "gateway", dockerd.address("web", "blue"): "endpoint"}
    wait_until(lambda: world.leases("blue") == kept, "it has its lease and nobody else", PATIENCE)
    assert dockerd.pings("web", GATEWAY)


@pytest.mark.whole
def test_dockerd_starts_while_ovsnetd_is_down(world: World, fault_row: FaultRow) -> None:
    """It looks for us for 15 seconds, forgets its endpoints without telling, and has its networks when we come."""
    world.configure(asked=False, live=False)
    stack, dockerd = world.stack, world.dockerd
    create_network(dockerd, stack, "blue", SUBNET)
    before = start_container(dockerd, "web", "blue")
    (old,) = world.containers()
    dockerd.kill9()
    stack.stop()
    begin = time.monotonic()
    dockerd.start()
    took = time.monotonic() - begin
    stack.start()
    assert world.containers() == {old}
    dockerd.docker("start", "web")
    web = dockerd.address("web", "blue")
    wait_until(lambda: old not in world.containers(), "what Docker did not tell is reaped", PATIENCE)
    fault_row(fault="dockerd started without ovsnetd", gate="starts, networks still there", back=took, leaked=0)
    assert web != before
    assert world.leases("blue") == {GATEWAY: "gateway", web: "endpoint"}
    assert dockerd.pings("web", GATEWAY)
