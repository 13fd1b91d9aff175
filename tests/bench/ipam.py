"""`devstack/bench.sh ipam`: giving and taking back an address, with up to 100,000 leases in the pool, beside host-local.

Needs root and the reference plugin `host-local`. For each number of leases there is a state server of its own. Measured are
the store, from the call to the durable commit, with each number of leases in turns and then with 32 callers at once; an ovsnetd
that is started on the same database: when it is ready, how large it is, and how fast it answers as Docker's IPAM driver; and
host-local, executed each time as a runtime does. The store's figures leave the start of an executable out; Docker's way has none.
Everything is in a private directory, ovsnetd and the database of its switch in a network namespace.
"""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import json
import os
import secrets
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ovsnet.client import Client
from ovsnet.errors import OvsnetError
from ovsnet.ipam.blocks import BLOCK_BITS
from ovsnet.model import LeaseOwner, Origin, OwnerKind, Pool
from ovsnet.store import StateServer, Store
from tests.harness import CommandFailed, Netns, Ovs, Stack

from .common import DEADLINE, REFERENCE_DIR, BenchError, execute, interruptible, percentile

SUBNET = ipaddress.IPv4Network("10.0.0.0/15")
POOL = "bench"
SIZES = (0, 1_000, 10_000, 100_000)  # leases beforehand
WARM_UP = 20  # rounds that do not count
SETTLE = 3.0  # seconds after the start of ovsnetd, in which it compares its journal with the leases
THREADS = 32
COOLDOWN = 60.0  # seconds, ovsnetd's default
BLOCKS_AT_ONCE = 100  # in one transaction that fills a pool
REFERENCE_SECONDS = 10.0  # host-local reads a file for every lease: no more rounds after that
REFERENCE_ROUNDS = 5  # but so many in any case
HOST_LOCAL = REFERENCE_DIR / "host-local"


@dataclass
class Figures:
    """What was measured with `leases` beforehand; a round gives an address and takes it back."""

    leases: int
    store: list[float] = field(default_factory=list)  # ms of each round
    many: float = 0.0  # rounds per second with THREADS callers
    ready: float = 0.0  # seconds from the start of ovsnetd to its first healthy answer
    rss: float = 0.0  # MB (10^6 bytes) of memory that ovsnetd has resident, once it has served
    driver: list[float] = field(default_factory=list)  # ms of each round over Docker's socket
    reference: list[float] = field(default_factory=list)  # ms of each ADD and DEL of host-local

    @property
    def one(self) -> float:
        """Rounds of the store per second with one caller."""
        return len(self.store) / sum(self.store) * 1e3


@dataclass(frozen=True)
class Arguments:
    """The command line."""

    count: int
    json: bool


def parse(argv: Sequence[str] | None) -> Arguments:
    """The command line, or an exit with the usage."""
    parser = argparse.ArgumentParser(prog="bench.sh ipam", description="Our address pools beside host-local's.")
    parser.add_argument("--count", type=int, default=300, help="rounds of each (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    found = parser.parse_args(argv)
    if found.count < 1:
        parser.error("--count is at least 1")
    return Arguments(**vars(found))


def holder() -> str:
    """A container ID as runtimes make them."""
    return secrets.token_hex(32)


def milliseconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1e3


class Bench:
    """One run: what it makes is registered on `stack` right away, and removed in the opposite order."""

    def __init__(self, arguments: Arguments, stack: ExitStack) -> None:
        if os.geteuid():
            raise BenchError("this needs root")
        if not os.access(HOST_LOCAL, os.X_OK):
            raise BenchError(f"{HOST_LOCAL} is missing: devstack/up.sh installs it")
        self.arguments = arguments
        self.token = f"b{secrets.token_hex(2)[:3]}"
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ovsnet-bench-")))
        self.host = Netns(f"bench-{self.token}")
        stack.callback(self.host.delete)
        self.ovs = Ovs(self.host, self.directory)  # only its database is started: there is no network to switch for
        stack.callback(self.ovs.close)
        self.ovs.server.start()

    def stack_for(self, figures: Figures) -> Stack:
        """An ovsnetd for that many leases, not started."""
        directory = self.directory / str(figures.leases)
        return Stack(
            self.host,
            self.ovs,
            self.token,
            directory,
            docker_socket=str(directory / "docker.sock"),
            address_cooldown=COOLDOWN,
            log_level="warning",
        )

    def stores(self, found: Sequence[Figures]) -> None:
        """The store alone, with each number of leases in turns: what else the machine does burdens all alike."""
        with ExitStack() as stack:
            rounds = [self._open_store(figures, stack) for figures in found]
            for number in range(-WARM_UP, self.arguments.count):
                for figures, round_ in zip(found, rounds, strict=True):
                    elapsed = milliseconds(round_)
                    if number >= 0:
                        figures.store.append(elapsed)
            many = self.arguments.count * 4
            for figures, round_ in zip(found, rounds, strict=True):
                with ThreadPoolExecutor(THREADS) as threads:
                    start = time.perf_counter()
                    for each in [threads.submit(round_) for _ in range(many)]:
                        each.result()
                    figures.many = many / (time.perf_counter() - start)

    def _open_store(self, figures: Figures, stack: ExitStack) -> Callable[[], None]:
        """A pool with its leases, on the database that ovsnetd will use; what is returned makes one round."""
        daemon = self.stack_for(figures)
        run_dir = daemon.socket.parent
        run_dir.mkdir(parents=True)
        server = StateServer(daemon.state_dir / "ovsnet.db", run_dir)
        server.start()
        stack.callback(server.stop)
        store = Store((server.remote,), node=self.token, timeout=DEADLINE, cooldown=COOLDOWN)
        store.start()
        stack.callback(store.stop)
        store.wait_ready(DEADLINE)
        pool = store.create_pool(Pool("", POOL, "ovsnet", SUBNET, None, (), (), (), Origin.API, {}))
        fill(server.socket, pool, self.token, figures.leases)
        self._wait_for_leases(store, pool, figures.leases)

        def round_() -> None:
            owner = LeaseOwner(OwnerKind.DOCKER, f"bench/{holder()}")
            store.release(pool, store.allocate(pool, owner), [OwnerKind.DOCKER])

        return round_

    @staticmethod
    def _wait_for_leases(store: Store, pool: Pool, leases: int) -> None:
        until = time.monotonic() + DEADLINE
        while store.pool_use(pool.uuid).leased < leases:
            if time.monotonic() > until:
                raise BenchError(f"the replica does not have {leases} leases after {DEADLINE:.0f} s")
            time.sleep(0.01)

    def daemon(self, figures: Figures) -> None:
        """ovsnetd from its start, with its state server's, to the first answer; then as Docker's IPAM driver."""
        daemon = self.stack_for(figures)
        client = Client(str(daemon.socket), deadline=5.0)
        with ExitStack() as stack:
            stack.callback(daemon.close)
            start = time.perf_counter()
            daemon.launch()
            while not healthy(client):
                if not daemon.alive or time.perf_counter() - start > DEADLINE:
                    raise BenchError(f"ovsnetd does not start\n{daemon.log_tail()}")
                time.sleep(0.005)
            figures.ready = time.perf_counter() - start
            time.sleep(SETTLE)
            pool = client.pool(POOL)["id"]
            docker = stack.enter_context(DockerClient(daemon.settings["docker_socket"]))

            def round_() -> None:
                given = docker.post("IpamDriver.RequestAddress", PoolID=pool, Address="", Options={})
                docker.post("IpamDriver.ReleaseAddress", PoolID=pool, Address=given["Address"].partition("/")[0])

            for _ in range(WARM_UP):
                round_()
            figures.driver = [milliseconds(round_) for _ in range(self.arguments.count)]
            figures.rss = resident(daemon.pid)

    def host_local(self, figures: Figures) -> None:
        """The reference plugin: a file per lease, named by the address, with the container and the interface in it."""
        name = str(figures.leases)
        data = self.directory / "host-local"
        leases = data / name
        leases.mkdir(parents=True)
        last = SUBNET[1]  # the gateway, which it gives to nobody
        for index in range(figures.leases):
            last = SUBNET[2 + index]
            (leases / str(last)).write_text(f"{holder()}\r\neth0")
        (leases / "last_reserved_ip.0").write_text(str(last))
        config = {
            "cniVersion": "1.0.0",
            "name": name,
            "type": "host-local",
            "ipam": {"type": "host-local", "subnet": str(SUBNET), "dataDir": str(data)},
        }
        stdin = json.dumps(config).encode()

        def call(command: str, container: str) -> float:
            variables = {
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": container,
                "CNI_NETNS": str(self.host.path),
                "CNI_IFNAME": "eth0",
                "CNI_PATH": str(REFERENCE_DIR),
                "PATH": os.defpath,
            }
            done = execute([str(HOST_LOCAL)], variables, stdin)
            if done.status:
                raise BenchError(f"{HOST_LOCAL} {command}: {done.output.decode(errors='replace').strip()}")
            return done.ms

        def round_() -> float:
            container = holder()
            return call("ADD", container) + call("DEL", container)

        round_()
        end = time.monotonic() + REFERENCE_SECONDS
        while len(figures.reference) < self.arguments.count:
            if len(figures.reference) >= REFERENCE_ROUNDS and time.monotonic() > end:
                break
            figures.reference.append(round_())


def fill(server: Path, pool: Pool, node: str, leases: int) -> None:
    """Write blocks with leases of endpoints straight into the database, from the subnet's first address on."""
    size = 1 << BLOCK_BITS
    network = uuid.uuid4()
    rows = []
    for first in range(0, leases + 1, size):
        block = range(max(first, 1), min(first + size, leases + 1))
        if not block:
            continue
        rows.append(
            {
                "pool": ["uuid", pool.uuid],
                "first": str(SUBNET[first]),
                "node": node,
                "leases": ["map", [[str(SUBNET[one]), f"endpoint:{network}/{holder()}/eth0"] for one in block]],
                "cursor": str(SUBNET[block[-1]]),
                "turn": block[-1],
            }
        )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE)
        connection.connect(str(server))
        for start in range(0, len(rows), BLOCKS_AT_ONCE):
            inserts = [{"op": "insert", "table": "Block", "row": row} for row in rows[start : start + BLOCKS_AT_ONCE]]
            transact(connection, inserts)


def transact(connection: socket.socket, operations: Sequence[dict[str, Any]]) -> None:
    """One transaction (RFC 7047, section 4.1.3); BenchError if it fails."""
    request = {"method": "transact", "params": ["OVSNet", *operations], "id": 0}
    connection.sendall(json.dumps(request).encode())
    text = ""
    while True:
        piece = connection.recv(1 << 16)
        if not piece:
            raise BenchError("the state server closed the connection")
        text += piece.decode()
        try:
            reply = json.loads(text)
        except ValueError:
            continue
        if reply["error"] or any("error" in result for result in reply["result"]):
            raise BenchError(f"the pool could not be filled: {text[-500:]}")
        return


class DockerClient:
    """Docker's side of the driver protocol: one connection that is kept."""

    def __init__(self, path: str) -> None:
        self._connection = http.client.HTTPConnection("localhost", timeout=DEADLINE)
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.settimeout(DEADLINE)
        self._connection.sock.connect(path)

    def __enter__(self) -> DockerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def post(self, method: str, **body: Any) -> dict[str, Any]:
        """The answer to a call; BenchError if it is an error."""
        self._connection.request("POST", f"/{method}", json.dumps(body), {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        if response.status != http.HTTPStatus.OK:
            raise BenchError(f"{method}: {answer}")
        return answer


def healthy(client: Client) -> bool:
    """Whether ovsnetd answers, and is well."""
    try:
        client.health()
    except OvsnetError:
        return False
    return True


def resident(pid: int) -> float:
    """Resident memory of a process in MB (proc_pid_status(5), VmRSS)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024 / 1e6


def p50(values: Sequence[float]) -> float:
    """The median."""
    return percentile(values, 0.5)


def summary(found: Sequence[Figures], arguments: Arguments) -> dict[str, float]:
    """The figures that --json prints; ratios are ours over the reference's."""
    by_size = {each.leases: each for each in found}
    none, least, most = by_size[0], by_size[1_000], by_size[100_000]
    figures: dict[str, float] = {
        "p50_100k_over_0_ratio": round(p50(most.store) / p50(none.store), 3),
        "ready_100k_s": round(most.ready, 3),
        "rss_100k_mb": round(most.rss, 1),
        "threads32_speedup": round(min(each.many / each.one for each in found), 2),
        "host_local_1000_ratio": round(p50(least.store) / p50(least.reference), 3),
        "host_local_1000_driver_ratio": round(p50(least.driver) / p50(least.reference), 3),
        "count": arguments.count,
    }
    for each in found:
        figures |= {
            f"store_p50_{each.leases}_ms": round(p50(each.store), 3),
            f"store_p95_{each.leases}_ms": round(percentile(each.store, 0.95), 3),
            f"store_1_thread_{each.leases}_per_s": round(each.one, 1),
            f"store_{THREADS}_threads_{each.leases}_per_s": round(each.many, 1),
            f"driver_p50_{each.leases}_ms": round(p50(each.driver), 3),
            f"host_local_p50_{each.leases}_ms": round(p50(each.reference), 3),
            f"ready_{each.leases}_s": round(each.ready, 3),
            f"rss_{each.leases}_mb": round(each.rss, 1),
        }
    return figures


def table(found: Sequence[Figures], arguments: Arguments) -> Table:
    """The figures for people."""
    title = f"An address given and taken back, {arguments.count} rounds (host-local: at most {REFERENCE_SECONDS:.0f} s)"
    caption = "store: in the controller, durable, without an executable; driver: over ovsnetd's socket, as Docker asks"
    result = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    result.add_column("leases beforehand")
    for each in found:
        result.add_column(f"{each.leases:,}", justify="right")
    lines: dict[str, Callable[[Figures], str]] = {
        "store p50, ms": lambda one: f"{p50(one.store):.2f}",
        "store p95, ms": lambda one: f"{percentile(one.store, 0.95):.2f}",
        "store, rounds/s": lambda one: f"{one.one:.0f}",
        f"store, {THREADS} threads, rounds/s": lambda one: f"{one.many:.0f}",
        "driver p50, ms": lambda one: f"{p50(one.driver):.2f}",
        "host-local p50, ms, exec to exit": lambda one: f"{p50(one.reference):.2f}",
        "store over host-local": lambda one: f"{p50(one.store) / p50(one.reference):.2f}",
        "driver over host-local": lambda one: f"{p50(one.driver) / p50(one.reference):.2f}",
        "ovsnetd ready, s": lambda one: f"{one.ready:.2f}",
        "ovsnetd resident, MB": lambda one: f"{one.rss:.0f}",
    }
    for label, text in lines.items():
        result.add_row(label, *map(text, found))
    return result


def gates(figures: dict[str, float]) -> Iterator[tuple[str, bool]]:
    """What must hold, and whether it does."""
    yield "p50 with 100,000 leases at most 1.5 times that with none", figures["p50_100k_over_0_ratio"] <= 1.5
    yield "ready within 3 s with 100,000 leases", figures["ready_100k_s"] <= 3
    yield "below 200 MB with 100,000 leases", figures["rss_100k_mb"] < 200
    yield f"{THREADS} threads at least twice as fast as one", figures["threads32_speedup"] >= 2
    faster = [figures[f"store_p50_{size}_ms"] < figures[f"host_local_p50_{size}_ms"] for size in SIZES if size]
    yield "store faster than host-local from 1,000 leases on", all(faster)


def main(argv: Sequence[str] | None = None) -> int:
    """The benchmark; exit status 0, 1 with a message, or 130 when interrupted."""
    arguments = parse(argv)
    messages = Console(stderr=True)
    try:
        with interruptible() as deaf, ExitStack() as stack:
            bench = Bench(arguments, stack)
            found = [Figures(leases) for leases in SIZES]
            with ExitStack() as rest, messages.status("the stores, in turns") as status:
                rest.callback(deaf)
                bench.stores(found)
                for figures in found:
                    status.update(f"ovsnetd and host-local with {figures.leases:,} leases")
                    bench.daemon(figures)
                    bench.host_local(figures)
            result = summary(found, arguments)
            console = Console()
            console.print(table(found, arguments))
            for gate, met in gates(result):
                console.print(f"  {'✓' if met else '✗'} {gate}", style="green" if met else "red", highlight=False)
            messages.print("removing what was made", style="dim")
    except (BenchError, CommandFailed, OvsnetError) as error:
        messages.print(f"bench ipam: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        messages.print("bench ipam: interrupted; everything is removed", style="red")
        return 130
    if arguments.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
