"""Somebody breaks what ovsnet has made, beneath its feet: it is mended, with addresses and routes, and nobody else is touched."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FaultRow
from tests.harness import IMAGE, Dockerd, Netns, Ovs, Stack, wait_until
from tests.system.containers import Ping, Pod, create_network, start_container

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.faults]

NewPod = Callable[[], Pod]

SUBNET, GATEWAY = "10.93.1.0/24", "10.93.1.1"
SUBNET6, GATEWAY6 = "fd93:1::/64", "fd93:1::1"
ELSEWHERE = "192.0.2.0/24"
MENDED = "mended, with addresses and routes"
PATIENCE = 30.0  # seconds; what is told of is mended in less than one, but for an attachment of the last three


def differences(stack: Stack) -> list[str]:
    """Kinds of what a dry run finds."""
    found = json.loads(stack.cli("reconcile", "--dry-run", "-o", "json", check=False).stdout)
    assert found["done"] == []
    return [one["kind"] for one in found["left"]]


def agreed(stack: Stack) -> bool:
    """Whether everything is as it should be, by both judges."""
    return (
        not stack.cli("reconcile", "--dry-run", check=False).returncode
        and not stack.cli("ipam", "check", check=False).returncode
    )


def wiring(pod: Pod) -> tuple[Any, Any, Any]:
    """What the container sees of its network: addresses, MAC and routes."""
    shown = pod.shown()
    addresses = {one["local"] for one in shown["addr_info"] if one["scope"] == "global"}
    routes = [pod.netns.run("ip", family, "route", "show").stdout for family in ("-4", "-6")]
    kept = [sorted(line for line in one.splitlines() if not line.startswith("fe80")) for one in routes]
    return addresses, (shown["address"], shown["mtu"]), kept


def conf(stack: Stack) -> dict[str, Any]:
    """A network of both families with a route of its own."""
    ranges = [[{"subnet": SUBNET}], [{"subnet": SUBNET6}]]
    return stack.conf(
        "mend", ranges=ranges, routes=[{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": ELSEWHERE, "gw": GATEWAY}]
    )


def port_of(stack: Stack, pod: Pod) -> str:
    """The pod's switch port, at this moment."""
    (row,) = (row for row in stack.endpoints() if row["container"] == pod.id)
    return str(row["port"])


def gateway_of(stack: Stack) -> str:
    """The device of the only network's gateway."""
    (name,) = (one["ifname"] for one in stack.host.ip("link", "show") if one["ifname"].startswith(f"{stack.prefix}g"))
    return str(name)


# What is broken; what a dry run would call it is in the journal of the daemon.
FAULTS: dict[str, Callable[[Stack, Pod], object]] = {
    "switch port deleted": lambda stack, pod: stack.ovs.vsctl("del-port", port_of(stack, pod)),
    "tag of a switch port changed": lambda stack, pod: stack.ovs.vsctl("set", "port", port_of(stack, pod), "tag=4000"),
    "device of a switch port deleted": lambda stack, pod: stack.host.run("ip", "link", "del", port_of(stack, pod)),
    "device of a switch port down, with ARP": lambda stack, pod: stack.host.run(
        "ip", "link", "set", port_of(stack, pod), "arp", "on", "down"
    ),
    "container's link deleted": lambda stack, pod: pod.netns.run("ip", "link", "del", "eth0"),  # noqa: ARG005
    "gateway's port deleted": lambda stack, pod: stack.ovs.vsctl("del-port", gateway_of(stack)),  # noqa: ARG005
    "gateway's addresses deleted": lambda stack, pod: stack.host.run("ip", "addr", "flush", gateway_of(stack)),  # noqa: ARG005
    "gateway's device deleted": lambda stack, pod: stack.host.run("ip", "link", "del", gateway_of(stack)),  # noqa: ARG005
    "bridge deleted": lambda stack, pod: stack.ovs.vsctl("del-br", stack.bridge),  # noqa: ARG005
    "nftables flushed": lambda stack, pod: stack.host.run("nft", "flush", "ruleset"),  # noqa: ARG005
    "trunk put on a switch port": lambda stack, pod: stack.ovs.vsctl(
        "set", "port", port_of(stack, pod), "trunks=7", "vlan_mode=trunk"
    ),
}


def test_what_somebody_breaks_is_mended(stack: Stack, pod: NewPod, fault_row: FaultRow) -> None:
    one, other = pod(), pod()
    one.attach(conf(stack))
    address = other.attach(conf(stack))
    before = wiring(one), wiring(other)
    assert any(ELSEWHERE in line for line in before[0][2][0])

    def troubles() -> list[str]:
        return [to for to in (address, GATEWAY, GATEWAY6) if not one.pings(to, wait=0.5)] or differences(stack)

    for fault, break_it in FAULTS.items():
        broken = time.monotonic()
        break_it(stack, one)
        try:
            wait_until(lambda: not troubles(), f"{fault} is mended", PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}: {troubles()}") from None
        fault_row(fault=fault, leaked=0, back=time.monotonic() - broken, gate=MENDED)
        assert (wiring(one), wiring(other)) == before, fault
    wait_until(lambda: agreed(stack), "everything agrees", PATIENCE)
    take_marks(stack, port_of(stack, one))


def take_marks(stack: Stack, port: str) -> None:
    """Marks come back; what bears none at all is told and not touched."""
    ovs = stack.ovs
    wait_until(lambda: "ovsnet-endpoint" in ovs.vsctl("get", "port", port, "external_ids"), "it is marked")
    marks = ovs.vsctl("get", "port", port, "external_ids")
    ovs.vsctl("clear", "port", port, "external_ids")  # the interface bears the mark still
    assert stack.cli("reconcile").stdout.count("port-unmarked") == 2  # before, and after
    assert ovs.vsctl("get", "port", port, "external_ids") == marks
    for table in ("port", "interface"):
        ovs.vsctl("clear", table, port, "external_ids")
    ovs.vsctl("set", "port", port, "tag=99")
    try:
        dry = stack.cli("reconcile", "--dry-run", check=False)
        assert (dry.returncode, "port-foreign" in dry.stdout) == (1, True)
        wet = stack.cli("reconcile", check=False)
        assert (wet.returncode, wet.stdout.count("port-foreign")) == (1, 2)
        assert ovs.vsctl("get", "port", port, "external_ids") == "{}"
        assert ovs.vsctl("get", "port", port, "tag") == "99"
    finally:
        ovs.vsctl("set", "interface", port, f"external_ids:ovsnet-owner={stack.prefix}")
    stack.cli("reconcile")
    assert ovs.vsctl("get", "port", port, "external_ids") == marks
    assert ovs.vsctl("get", "port", port, "tag") != "99"


def test_strays_go_and_what_is_not_ours_stays(stack: Stack, ovs: Ovs, pod: NewPod) -> None:
    box = pod()
    box.attach(stack.conf("mend", subnet=SUBNET))
    (network,) = stack.show("network", "ls")
    mine, other = f"{stack.prefix}p0123456789", f"{stack.prefix}alien"
    marks = [f"external_ids:ovsnet-{key}={value}" for key, value in {
        "owner": stack.prefix, "role": "endpoint", "network": network["id"], "endpoint": network["id"],
    }.items()]  # fmt: skip
    for name, ids in ((mine, marks), (other, ())):
        ovs.vsctl("add-port", stack.bridge, name, "--", "set", "interface", name, "type=internal")
        if ids:
            ovs.vsctl("set", "port", name, *ids)
    try:
        assert set(differences(stack)) <= {"port-stray"}  # it may have gone by then
        stack.cli("reconcile")
        wait_until(lambda: mine not in ovs.vsctl("list-ports", stack.bridge).split(), "the stray goes")
        assert other in ovs.vsctl("list-ports", stack.bridge).split()
    finally:
        ovs.vsctl("--if-exists", "del-port", other, "--", "--if-exists", "del-port", mine)
    assert box.pings(GATEWAY)


def test_the_state_database_is_lost(stack: Stack, pod: NewPod, tmp_path: Path, fault_row: FaultRow) -> None:
    """An empty database takes nobody's wire, and nothing is lost when the old one is back."""
    box, other, settings = pod(), pod(), stack.conf("mend", subnet=SUBNET)
    box.attach(settings)
    address = other.attach(settings)
    database, aside = stack.state_dir / "ovsnet.db", stack.state_dir / "aside.db"
    before = stack.endpoints()
    with Ping(box.netns, address, tmp_path / "ping") as ping:
        stack.kill9()
        stack.sweep()
        database.rename(aside)
        stack.start()
        assert stack.endpoints() == []
        stack.cli("reconcile", check=False)
        ping.wait_answer()
        stack.kill9()
        stack.sweep()
        aside.rename(database)
        stack.start()
        lost = len(ping.lost())
    fault_row(fault="state database empty, and back", lost=lost, leaked=0, gate="0 pings lost")
    assert lost == 0
    assert stack.endpoints() == before
    wait_until(lambda: agreed(stack), "everything agrees", PATIENCE)


def test_vswitchd_restarted_with_a_hundred(
    stack: Stack, ovs: Ovs, pod: NewPod, tmp_path: Path, fault_row: FaultRow
) -> None:
    pods, settings = [pod() for _ in range(100)], stack.conf("mend", subnet=SUBNET)
    with ThreadPoolExecutor(4) as pool:
        addresses = list(pool.map(lambda one: one.attach(settings), pods))
    assert len(set(addresses)) == len(pods)
    backs: list[float] = []
    with ExitStack() as pings:
        running = [
            pings.enter_context(Ping(pods[index].netns, addresses[index + 50], tmp_path / f"ping{index}"))
            for index in range(5)
        ]
        while len(backs) < 3 and min(backs, default=2.0) > 1.0:  # once more, should the machine have been busy
            ovs.vswitchd.kill9()
            told = ovs.vswitchd.log.stat().st_size
            ovs.vswitchd.start()
            # It tells its version when it has configured itself, at which moment one that detaches has started.
            wait_until(lambda: b"(Open vSwitch)" in ovs.vswitchd.log.read_bytes()[told:], "ovs-vswitchd is configured")  # noqa: B023
            up = time.monotonic()
            enough = [len(ping.answered()) + 1 for ping in running]
            wait_until(lambda: all(len(p.answered()) >= n for p, n in zip(running, enough, strict=True)), "traffic")  # noqa: B023
            backs.append(time.monotonic() - up)
    leaked = len(differences(stack))
    fault = "ovs-vswitchd killed and started, 100 endpoints"
    fault_row(fault=fault, rounds=len(backs), leaked=leaked, back=min(backs), gate="back within 1 s of its start")
    assert min(backs) <= 1.0
    assert leaked == 0
    assert all(one.pings(GATEWAY) for one in pods[::25])


@pytest.mark.parametrize("which", ["switch", "state"])
def test_a_database_server_is_killed(
    stack: Stack, ovs: Ovs, pod: NewPod, tmp_path: Path, fault_row: FaultRow, which: str
) -> None:
    box, other, settings = pod(), pod(), stack.conf("mend", subnet=SUBNET)
    box.attach(settings)
    address = other.attach(settings)
    with Ping(box.netns, address, tmp_path / "ping") as ping:
        if which == "switch":
            ovs.server.kill9()
            ovs.server.start()
            killed = time.monotonic()  # from its return on
        else:
            killed = time.monotonic()
            stack.host.run("kill", "-9", str(stack.state_server()))
        third = pod()
        wait_until(lambda: third.add(settings).ok, "an ADD succeeds")
        back = time.monotonic() - killed
        lost = len(ping.lost())
    endpoints = stack.endpoints()
    doubled = len(endpoints) - len({row["addresses"][0] for row in endpoints})
    fault_row(fault=f"ovsdb-server of the {which} killed", lost=lost, doubled=doubled, back=back, gate="ADD within 3 s")
    assert (len(endpoints), doubled, lost) == (3, 0, 0)
    assert back <= 3.0
    assert third.pings(address)
    wait_until(lambda: agreed(stack), "everything agrees", PATIENCE)


def test_a_namespace_is_deleted_without_del(
    stack: Stack, ovs: Ovs, pod: NewPod, netns: Callable[[], Netns], fault_row: FaultRow
) -> None:
    settings, box = stack.conf("mend", subnet=SUBNET), pod()
    box.attach(settings)
    doomed = netns()
    assert stack.cni("ADD", doomed.name, doomed, settings).ok
    doomed.delete()
    time.sleep(0.5)  # no condition: what is measured is how busy it is from here on
    seconds, ticks = 2.0, busy(ovs.vswitchd.pid)
    time.sleep(seconds)
    share = (busy(ovs.vswitchd.pid) - ticks) / seconds
    left = stack.cli("reconcile", "--dry-run", check=False).stdout
    assert "namespace-gone" in left or not stack.endpoints()[1:]
    assert stack.cni("DEL", doomed.name, "", settings).ok
    wait_until(lambda: agreed(stack), "everything agrees", PATIENCE)
    fault_row(fault="namespace deleted without DEL", leaked=0, gate=f"ovs-vswitchd below 5% ({share:.1%})")
    assert share < 0.05
    assert box.pings(GATEWAY)


def busy(pid: int) -> float:
    """Seconds of processor time that a process has had (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / 100


def test_docker_containers_are_mended(stack: Stack, ovs: Ovs, dockerd: Dockerd, fault_row: FaultRow) -> None:
    create_network(dockerd, stack, "mend", SUBNET)
    dockerd.docker("run", "--detach", "--name", "web", "--network", "mend", IMAGE)
    address = start_container(dockerd, "db", "mend")
    (web,) = (row for row in stack.endpoints() if row["addresses"][0].startswith(dockerd.address("web", "mend") + "/"))
    broken = time.monotonic()
    ovs.vsctl("del-port", web["port"])
    wait_until(lambda: dockerd.pings("web", address, wait=1), "the container is reached", PATIENCE)
    fault_row(fault="switch port of a Docker container deleted", back=time.monotonic() - broken, gate=MENDED)
    assert dockerd.pings("web", GATEWAY)
    assert f"default via {GATEWAY}" in dockerd.docker("exec", "web", "ip", "route").stdout
    dockerd.docker("restart", "--time", "0", "web")
    assert dockerd.pings("web", address)
