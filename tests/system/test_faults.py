"""Rows of the table of faults: what is lost, leaked and given twice when clients, clocks, disks and ovsnetd itself fail."""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cni import wire
from ovsnet.errors import OvsnetError
from tests.conftest import FaultRow
from tests.harness import IMAGE, CniResult, Dockerd, Netns, Result, environment, wait_until
from tests.system.containers import Ping
from tests.system.faulty import Faulty

pytestmark = pytest.mark.faults

DAY = 86400
NETWORK, SUBNET, SUBNET6 = "faults", "10.72.0.0/24", "fd72::/64"
TRY_AGAIN_LATER, NOT_AVAILABLE, EXHAUSTED = 11, 50, 121
ANSWER = 2.0  # seconds for an answer while ovsnetd is down
ROOM_AGAIN = 10.0  # seconds until an ADD succeeds when the disk has room again
EXHAUSTED_ANSWER = 0.1  # seconds


@pytest.fixture
def conf(faulty: Faulty) -> Iterator[dict[str, Any]]:
    """A network's configuration for a runtime; at the end nothing may be on the host that was not there before."""
    before = faulty.traces()
    faulty.api.create_network(NETWORK, subnets=[SUBNET, SUBNET6])
    yield faulty.stack.conf(NETWORK, "1.1.0")
    faulty.ensure()
    try:
        left = [row["container"] for row in faulty.api.endpoints()]
    finally:
        faulty.clear()
    assert left == []
    assert faulty.left(before) == set()


@contextmanager
def attached(faulty: Faulty, conf: dict[str, Any], number: int) -> Iterator[list[tuple[Netns, str]]]:
    """So many containers, each with its IPv4 address; DEL at the end."""
    pods = []
    try:
        for _ in range(number):
            space = faulty.netns()
            pods.append((space, ""))
            answer = faulty.cni("ADD", space, conf)
            assert answer.ok, answer
            pods[-1] = (space, answer.addresses[0])
        yield pods
    finally:
        faulty.ensure()
        for space, _ in pods:
            assert faulty.cni("DEL", space, conf).ok


def timed(call: Callable[[], CniResult]) -> tuple[CniResult, float]:
    """What came of a call, and in how many seconds."""
    begun = time.monotonic()
    return call(), time.monotonic() - begun


def test_ovsnetd_is_down(faulty: Faulty, conf: dict[str, Any], tmp_path: Path, fault_row: FaultRow) -> None:
    with attached(faulty, conf, 2) as ((one, _), (_, address)), Ping(one, address, tmp_path / "ping", 0.01) as ping:
        faulty.stack.kill9()
        other = faulty.netns()
        found = {name: timed(lambda name=name: faulty.cni(name, other, conf)) for name in ("ADD", "DEL", "STATUS")}  # type: ignore[misc]
        begun = time.monotonic()
        with pytest.raises(ConnectionRefusedError):  # dockerd too, which tries again: test_dockerd_calls_in_vain
            faulty.stack.docker_call("Plugin.Activate")
        slowest = max(time.monotonic() - begun, *(seconds for _, seconds in found.values()))
        lost = ping.lost()
    fault_row(
        fault="ovsnetd down",
        lost=len(lost),
        back=slowest,
        gate="0 pings lost; ADD, DEL 11, STATUS 50, a refused connection within 2 s (back: slowest answer)",
    )
    codes = {name: result.output["code"] for name, (result, _) in found.items()}
    assert codes == {"ADD": TRY_AGAIN_LATER, "DEL": TRY_AGAIN_LATER, "STATUS": NOT_AVAILABLE}
    assert lost == set()
    assert slowest <= ANSWER


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_dockerd_calls_in_vain(faulty: Faulty, directory: Path, fault_row: FaultRow) -> None:
    """What Docker's users see while ovsnetd is down, and when it comes back meanwhile: docs/decisions/0027."""
    driver, before = faulty.stack.driver, faulty.traces()
    run, timer = ("run", "--detach", "--network", NETWORK, "--name"), threading.Timer(1.0, faulty.start)
    took: dict[str, float] = {}

    def docker(what: str, *words: str) -> Result:
        begun = time.monotonic()
        told = dockerd.docker(*words, check=False, timeout=120)
        took[what] = time.monotonic() - begun
        return told

    with ExitStack() as undo:
        dockerd = Dockerd(faulty.host, faulty.token, directory / "vain")
        undo.callback(dockerd.close)
        undo.callback(faulty.ensure)
        dockerd.start()
        create = ("network", "create", "--driver", driver, "--ipam-driver", driver, "--subnet", SUBNET)
        dockerd.docker(*create, "--opt", f"ovsnet.name={NETWORK}", NETWORK)
        dockerd.docker(*run, "before", IMAGE)
        faulty.stack.kill9()
        refused = docker("docker run", *run, "during", IMAGE)
        removed = docker("docker rm", "rm", "--force", "before")
        timer.start()
        started = docker("docker run, ovsnetd back after 1 s", *run, "after", IMAGE)
        timer.join()
        pings = dockerd.pings("after", "10.72.0.1")
        dockerd.docker("rm", "--force", "during", "after")
        forgotten = faulty.endpoints()  # which Docker has deleted without our hearing of it
        for row in forgotten:
            faulty.api.delete_endpoint(row["id"])
        dockerd.docker("network", "rm", NETWORK)
        for pool in faulty.api.pools():
            faulty.api.delete_pool(pool["id"], force=True)
        left = faulty.left(before)
    for what, seconds in took.items():
        fault_row(
            fault=f"ovsnetd down, dockerd: {what}",
            back=seconds,
            leaked=len(left),
            gate="ends; dockerd's own 15 s a call",
        )
    assert (refused.returncode, "connection refused" in refused.stderr) == (125, True)
    assert (removed.returncode, len(forgotten)) == (0, 1)
    assert (started.returncode, pings) == (0, True)
    assert left == set()


@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=[pytest.mark.whole, pytest.mark.timeout(600)])])
def test_ovsnetd_killed_and_started(
    faulty: Faulty, conf: dict[str, Any], tmp_path: Path, fault_row: FaultRow, rounds: int
) -> None:
    slowest = 0.0
    with (
        attached(faulty, conf, 2) as ((one, _), (_, address)),
        Ping(one, address, tmp_path / "pod", 0.005) as to_pod,
        Ping(one, "10.72.0.1", tmp_path / "gateway", 0.005) as to_gateway,
    ):
        for _ in range(rounds):
            begun = time.monotonic()
            faulty.kill()
            slowest = max(slowest, time.monotonic() - begun)
        lost = to_pod.lost() | to_gateway.lost()
        agreed = faulty.api.check()
    fault_row(
        fault="ovsnetd killed and started, flood ping to a container and the gateway",
        rounds=rounds,
        lost=len(lost),
        leaked=len(agreed["findings"]),
        back=slowest,
        gate="0 packets lost",
    )
    assert lost == set()
    assert agreed["ok"], agreed


def test_a_client_gives_up_in_the_middle(faulty: Faulty, conf: dict[str, Any], fault_row: FaultRow) -> None:
    """Its ADD is carried out all the same, and is found by its key: by DEL, or by GC if nobody ever asks again."""
    state = faulty.stack.state_server()
    leaked = 0
    for forgotten in (False, True):
        space = faulty.netns()
        os.kill(state, signal.SIGSTOP)
        try:
            with _plugin(faulty, "ADD", space, conf) as client:
                # The link is made while the database writes the addresses.
                wait_until(lambda: "eth0" in [one["ifname"] for one in space.ip("link", "show")], "it is under way")  # noqa: B023
                client.kill()
        finally:
            os.kill(state, signal.SIGCONT)
        wait_until(lambda: faulty.addresses(space.name), "the late commit")  # noqa: B023
        if forgotten:
            result = faulty.cni("GC", space, conf | {"cni.dev/valid-attachments": []})
            if faulty.addresses(space.name):  # it stays while its ADD may be newer than the list
                time.sleep(2)
                result = faulty.cni("GC", space, conf | {"cni.dev/valid-attachments": []})
        else:
            result = faulty.cni("DEL", space, conf)
        assert result.ok, result
        leaked += len(faulty.addresses(space.name))
    leases = [one for pool in faulty.api.pools() for one in faulty.api.leases(pool["name"])]
    leaked += len([one for one in leases if one["owner"]["kind"] != "gateway"])
    fault_row(fault="client gives up in the middle of an ADD", rounds=2, leaked=leaked, gate="0 orphans")
    assert leaked == 0


@contextmanager
def _plugin(faulty: Faulty, command: str, space: Netns, conf: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """The plugin's process, while it runs."""
    variables = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": space.name,
        "CNI_NETNS": str(space.path),
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(faulty.stack.bin_dir),
    }
    with subprocess.Popen(
        faulty.host.argv(faulty.stack.bin_dir / "ovsnet"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment(**variables),
    ) as client:
        assert client.stdin is not None
        client.stdin.write(json.dumps(conf).encode())
        client.stdin.close()
        try:
            yield client
        finally:
            client.kill()


def test_the_wall_clock_jumps(faulty: Faulty, conf: dict[str, Any], fault_row: FaultRow) -> None:
    def spares() -> set[str]:
        found = faulty.stack.ovs.vsctl("--bare", "--columns=name", "find", "Port", "external_ids:ovsnet-role=spare")
        return set(found.split())

    def history() -> list[dict[str, Any]]:
        return [dict(one) for one in faulty.api.lease_history(gone)]

    early = 0
    try:
        with attached(faulty, conf, 2) as ((one, _), (_, address)):
            leaving = faulty.netns()
            answer = faulty.cni("ADD", leaving, conf)
            gone = answer.addresses[0]
            assert faulty.cni("DEL", leaving, conf).ok
            released = history()[0]["until"]
            wait_until(lambda: len(spares()) > 4, "all spare ports are there, and the one that came back")
            kept = spares()
            for offset in (DAY, -DAY, 0):
                faulty.set_clock(offset)
                # What has a grace period is looked at every second.
                wait_until(lambda: json.loads(faulty.stack.cli("ipam", "check", "-o", "json").stdout)["ok"], "a look")
                with attached(faulty, conf, 1) as ((_, given),):
                    early += given == gone  # it still cools down
                    assert len(faulty.api.endpoints()) == 3
                # What the ADD had taken is back, and none has been idle for too long.
                wait_until(lambda: kept <= spares(), "all spare ports are there")
                assert one.pings(address)
            assert history()[0]["until"] == released
    finally:
        faulty.set_clock(0)
    fault_row(fault="wall clock +1 day, -1 day, and back", rounds=3, lost=early, gate="0 early releases")
    assert early == 0


def test_the_pool_is_exhausted(faulty: Faulty, fault_row: FaultRow) -> None:
    before = faulty.traces()
    faulty.api.create_network("small", subnets=["10.72.9.0/29", "fd72:9::/64"])
    conf = faulty.stack.conf("small", "1.1.0")
    try:
        with attached(faulty, conf, 5) as pods:
            late = faulty.netns()
            six = {lease["address"] for lease in faulty.api.leases("small-v6")}
            took, refused = _raw(faulty, "ADD", conf, late)
            status = faulty.cni("STATUS", late, conf)
            leaked = {lease["address"] for lease in faulty.api.leases("small-v6")} - six
            first, _ = pods.pop(0)
            assert faulty.cni("DEL", first, conf).ok
            pods.append((late, ""))
            again = faulty.cni("ADD", late, conf)
            again_addresses = again.addresses if again.ok else []
            given = [one for row in faulty.api.endpoints() for one in row["addresses"]]
        fault_row(
            fault="pool exhausted, of one of two families",
            leaked=len(leaked),
            doubled=len(given) - len(set(given)),
            back=took,
            gate="own code, all or nothing, answer <= 100 ms, again after the first DEL (back: the refusal)",
        )
        assert refused["code"] == EXHAUSTED
        assert status.output["code"] == NOT_AVAILABLE
        assert leaked == set()
        assert len(again_addresses) == 2
        assert len(given) == len(set(given)) == 10
        assert took <= EXHAUSTED_ANSWER
    finally:
        faulty.clear()
    assert faulty.left(before) == set()


def _raw(faulty: Faulty, command: str, conf: dict[str, Any], space: Netns) -> tuple[float, dict[str, Any]]:
    """A call on the socket of the executables: seconds until the answer, and that, decoded."""
    body = wire.encode(
        {"CNI_COMMAND": command, "CNI_CONTAINERID": space.name, "CNI_NETNS": str(space.path), "CNI_IFNAME": "eth0"},
        json.dumps(conf).encode(),
    )
    head = f"POST {wire.PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    begun = time.monotonic()
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(30)
        link.connect(str(faulty.stack.socket.with_name("cni.sock")))
        link.sendall(head + body)
        reply = b""
        while chunk := link.recv(65536):
            reply += chunk
    return time.monotonic() - begun, json.loads(reply.partition(b"\r\n\r\n")[2] or b"{}")


def test_silent_and_slow_clients(faulty: Faulty, conf: dict[str, Any], fault_row: FaultRow) -> None:
    """More of them than there are threads, on each socket."""
    space, sockets = faulty.netns(), ("cni.sock", "ovsnet.sock")
    paths = [faulty.stack.socket.with_name(name) for name in sockets]

    def p99(number: int = 200) -> float:
        took = sorted(_raw(faulty, "STATUS", conf, space)[0] for _ in range(number))
        assert faulty.api.health()["status"] == "ok"
        return took[int(number * 0.99)]

    ratios = []
    for _ in range(3):  # of the host's other work, and not of the clients, are the outliers
        quiet = p99()
        with ExitStack() as undo:
            for path in paths:
                for number in range(80):
                    link = undo.enter_context(socket.socket(socket.AF_UNIX))
                    link.settimeout(10)
                    link.connect(str(path))
                    if number % 2 and path is paths[0]:
                        link.sendall(b"POST /cni HTTP/1.1\r\nContent-Le")
            _raw(faulty, "STATUS", conf, space)  # when this is answered all of them have been seen
            ratios.append(p99() / quiet)
        if ratios[-1] <= 2:
            break
    fault_row(
        fault="80 silent or slow clients on a socket",
        rounds=len(ratios),
        back=None,
        gate=f"the others' p99 <= 2 x (here {min(ratios):.2f} x)",
    )
    assert min(ratios) <= 2
    assert statistics.median(ratios) > 0


def test_the_disk_of_the_state_database_is_full(faulty: Faulty, conf: dict[str, Any], fault_row: FaultRow) -> None:
    leaving, other = faulty.netns(), faulty.netns()
    with attached(faulty, conf, 2) as pods:
        assert faulty.cni("ADD", leaving, conf).ok
        fill = faulty.disk / "fill"
        _fill(fill)
        assert os.statvfs(faulty.disk).f_bavail == 0

        def refused() -> CniResult:
            result = faulty.cni("ADD", other, conf)
            assert not result.ok, result
            return result

        try:
            first = refused()
            assert first.output["code"] == TRY_AGAIN_LATER
            assert "room" in first.output["msg"]
            assert faulty.cni("STATUS", other, conf).output["code"] == NOT_AVAILABLE
            (pool,) = (one for one in faulty.api.pools() if one["subnet"] == SUBNET)
            answer = faulty.stack.docker_call("IpamDriver.RequestAddress", PoolID=pool["id"], Address="", Options=None)
            assert "room" in answer["Error"]
            with pytest.raises(OvsnetError, match="room"):
                faulty.api.create_pool("10.72.8.0/24", name="refused")
            assert faulty.cni("DEL", other, conf).ok  # as a runtime does after a failed ADD
            assert faulty.cni("DEL", leaving, conf).ok
            # A new server cuts its file off at its first write, and the room with it.
            victim = faulty.stack.state_server()
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: faulty.stack.processes("ovsdb-server") not in ([], [victim]), "a new server")
            space, _ = pods.pop()
            assert faulty.cni("DEL", space, conf).ok
            _fill(fill.with_suffix(".more"))
            refused()
            faulty.kill()  # it starts on a full disk as well
            refused()
            assert [row["container"] for row in faulty.api.endpoints()] == [pods[0][0].name]
        finally:
            for one in (fill, fill.with_suffix(".more")):
                one.unlink(missing_ok=True)
        begun = time.monotonic()
        wait_until(lambda: faulty.cni("ADD", other, conf).ok, "ADD succeeds again", ROOM_AGAIN)
        back = time.monotonic() - begun
        found = faulty.api.check()
        assert faulty.cni("DEL", other, conf).ok
    fault_row(
        fault="disk full under the state database",
        leaked=len(found["findings"]),
        back=back,
        gate="ADD refused with the reason, DEL allowed, back within 10 s",
    )
    assert found["ok"], found


def _fill(file: Path) -> None:
    """Takes all that is left of a disk."""
    with file.open("ab") as output:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    os.posix_fallocate(output.fileno(), os.fstat(output.fileno()).st_size, size)
