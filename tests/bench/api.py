"""`devstack/bench.sh api`: many clients that read the REST API, and what a CNI ADD costs meanwhile.

Needs root. Open vSwitch and ovsnetd are private. The endpoints that are listed are another node's (see tests/crowd.py). The
clients are one process with a connection each on the API's unix socket, and ask again as soon as they are answered. ADDs come
in blocks: with the clients at rest, at ovsnetd, and at a responder that does nothing but send the same answer as often as
ovsnetd did. The last tells what clients and answers cost ADD by the cores that they use, whoever answers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import secrets
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ovsnet.errors import OvsnetError
from tests.crowd import crowd
from tests.harness import CommandFailed, Netns, Ovs, Stack

from .common import DEADLINE, BenchError, execute, interruptible, percentile

REQUEST = b"GET /v1/endpoints?limit=100 HTTP/1.1\r\nHost: localhost\r\n\r\n"
BLOCK = 5  # ADDs with the clients in one place, before they move to the next
LEAD = 0.3  # seconds for which the clients are there before the first ADD
SETTLE = 0.05  # seconds after a DEL
NETWORK = "many"
GATE = 1.5
_SPAWN = multiprocessing.get_context("spawn")


@dataclass
class Reading:
    """What the clients did in a block, or in several."""

    seconds: float = 0.0
    cpu: float = 0.0  # seconds, of the clients' process
    latencies: list[float] = field(default_factory=list)  # milliseconds, one for each answer

    def add(self, other: Reading) -> None:
        """Count another block's as well."""
        self.seconds += other.seconds
        self.cpu += other.cpu
        self.latencies += other.latencies

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds


class _Client:
    """A connection that asks, and counts the bytes of the answer."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(path)
        self._head = b""
        self._missing = -1  # bytes; -1: not known yet
        self._asked = 0.0

    def ask(self) -> None:
        self._head, self._missing, self._asked = b"", -1, time.perf_counter()
        self.sock.sendall(REQUEST)

    def hear(self) -> float | None:
        """Milliseconds that the answer took, once it is there; BenchError if it is none."""
        data = self.sock.recv(1 << 18)
        if self._missing < 0:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if end:
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                if length is None or b" 200 " not in head[:16]:
                    raise BenchError(f"no answer but {head[:200]!r}")
                self._missing = int(length[1]) - len(body)
        else:
            self._missing -= len(data)
        if not data:
            raise BenchError("a connection was closed")
        return None if self._missing else (time.perf_counter() - self._asked) * 1e3


def read_on(pipe: Connection, clients: int) -> None:
    """The clients' process: for each path that comes, reads there until something else comes, and sends back a Reading."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the bench ends it
    while (path := pipe.recv()) is not None:
        try:
            pipe.send(_read_at(path, pipe, clients))
        except (OSError, BenchError) as exc:
            pipe.send(BenchError(f"a client failed: {exc}"))


def _read_at(path: str, pipe: Connection, clients: int) -> Reading:
    with ExitStack() as undo:
        poll = undo.enter_context(select.epoll())
        poll.register(pipe.fileno(), select.EPOLLIN)
        asking = {}
        for _ in range(clients):
            client = _Client(path)
            undo.callback(client.sock.close)
            asking[client.sock.fileno()] = client
            poll.register(client.sock.fileno(), select.EPOLLIN)
        reading, began, cpu = Reading(), time.perf_counter(), time.process_time()
        for client in asking.values():
            client.ask()
        going = True
        while asking:
            ready = poll.poll(DEADLINE)
            if not ready:
                raise BenchError(f"no answer within {DEADLINE:.0f} s")
            for number, _ in ready:
                if number == pipe.fileno():
                    pipe.recv()
                    poll.unregister(number)
                    going = False
                    reading.seconds, reading.cpu = time.perf_counter() - began, time.process_time() - cpu
                elif (took := asking[number].hear()) is not None:
                    if going:
                        reading.latencies.append(took)
                        asking[number].ask()
                    else:
                        poll.unregister(number)
                        del asking[number]
        return reading


def respond(pipe: Connection, path: str, answer: bytes) -> None:
    """The responder's process: answers each request on the socket, as many a second as the number that comes says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door, select.epoll() as poll:
        door.bind(path)
        door.listen(1024)
        poll.register(door.fileno(), select.EPOLLIN)
        poll.register(pipe.fileno(), select.EPOLLIN)
        pipe.send(None)
        rate, due, guests, waiting = 1.0, 0.0, dict[int, socket.socket](), list[socket.socket]()
        while True:
            now = time.perf_counter()
            while waiting and due <= now:
                waiting.pop(0).sendall(answer)
                due = max(due, now - 0.01) + 1 / rate
            for number, _ in poll.poll(max(0.0, due - now) if waiting else -1):
                if number == pipe.fileno():
                    rate = pipe.recv()
                elif number == door.fileno():
                    guest, _ = door.accept()
                    guests[guest.fileno()] = guest
                    poll.register(guest.fileno(), select.EPOLLIN)
                elif guests[number].recv(65536):
                    waiting.append(guests[number])
                else:
                    poll.unregister(number)
                    guests.pop(number).close()


class Bench:
    """A host whose state database has many endpoints; everything is removed in the opposite order."""

    def __init__(self, undo: ExitStack, endpoints: int, clients: int) -> None:
        self._undo = undo
        token = f"b{secrets.token_hex(2)[:3]}"
        self._token = token
        self._netns_number = 0
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix=f"ovsnet-{token}-")))
        host = self._netns("host")
        ovs = Ovs(host, directory)
        undo.callback(ovs.close)
        ovs.ensure()
        self.stack = Stack(host, ovs, token, directory / "ovsnetd", log_level="warning")
        undo.callback(self.stack.close)
        self.stack.start()
        self.stack.cli("network", "create", NETWORK, "--subnet", "10.90.0.0/16")
        self._config = json.dumps(self.stack.conf(NETWORK)).encode()
        undo.enter_context(crowd(self.stack, NETWORK, endpoints))
        self._clients = self._process(read_on, clients)
        self._responder_path = str(directory / "responder.sock")
        self._responder = self._process(respond, self._responder_path, self._answer())
        self._responder.recv()

    def _netns(self, name: str) -> Netns:
        namespace = Netns(f"{self._token}-{name}")
        self._undo.callback(namespace.delete)
        return namespace

    def _process(self, target: object, *arguments: object) -> Connection:
        """A process that runs `target` on one end of a pipe; the other end."""
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=target, args=(theirs, *arguments), daemon=True)  # type: ignore[arg-type]
        process.start()
        theirs.close()
        self._undo.callback(ours.close)
        self._undo.callback(process.join, 10)
        self._undo.callback(process.terminate)
        return ours

    def _answer(self) -> bytes:
        """What ovsnetd answers, head and all."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE)
            sock.connect(str(self.stack.socket))
            sock.sendall(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            parts = []
            while part := sock.recv(1 << 18):
                parts.append(part)
        return b"".join(parts).replace(b"\r\nConnection: close", b"", 1)

    @contextmanager
    def reading(self, total: Reading, path: str = "") -> Iterator[None]:
        """Has the clients read at a socket, by default the API's; what they did is added to `total`."""
        self._clients.send(path or str(self.stack.socket))
        try:
            time.sleep(LEAD)
            yield
        finally:
            self._clients.send("stop")
            if not self._clients.poll(DEADLINE):
                raise BenchError("the clients do not stop")
            found = self._clients.recv()
        if isinstance(found, BenchError):
            raise found
        total.add(found)

    def answering(self, total: Reading, rate: float) -> AbstractContextManager[None]:
        """Has the clients read at the responder, which gives `rate` answers a second."""
        self._responder.send(rate)
        return self.reading(total, self._responder_path)

    def places(self, count: int) -> list[Netns]:
        """Fresh namespaces."""
        self._netns_number += count
        return [self._netns(str(number)) for number in range(self._netns_number - count, self._netns_number)]

    def adds(self, places: list[Netns]) -> list[float]:
        """Milliseconds of an ADD in each namespace, from exec to exit; its DEL follows."""
        found = []
        for place in places:
            found.append(self._call("ADD", place))
            self._call("DEL", place)
            time.sleep(SETTLE)
        return found

    def _call(self, command: str, place: Netns) -> float:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": place.name,
            "CNI_NETNS": str(place.path),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.stack.bin_dir),
            "PATH": os.defpath,
        }
        done = execute([str(self.stack.bin_dir / "ovsnet")], environment, self._config)
        if done.status:
            raise BenchError(f"{command}: {done.output.decode(errors='replace').strip() or done.status}")
        return done.ms

    def cpu(self) -> float:
        """Seconds of processor time that ovsnetd has used."""
        fields = Path(f"/proc/{self.stack.pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Figures:
    """What was measured: ADDs in milliseconds, with the clients at rest, at ovsnetd and at the responder."""

    idle: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    reads: Reading = field(default_factory=Reading)
    answers: Reading = field(default_factory=Reading)
    alone: Reading = field(default_factory=Reading)  # no ADD beside
    cpu: float = 0.0  # seconds of ovsnetd, while it is read

    def summary(self) -> dict[str, float]:
        """The figures that --json prints."""
        idle = percentile(self.idle, 0.5)
        return {
            "reads_per_second": round(self.alone.rate),
            "read_p50_ms": round(percentile(self.alone.latencies, 0.5), 1),
            "read_p99_ms": round(percentile(self.alone.latencies, 0.99), 1),
            "beside_adds_reads_per_second": round(self.reads.rate),
            "beside_adds_read_p50_ms": round(percentile(self.reads.latencies, 0.5), 1),
            "beside_adds_read_p99_ms": round(percentile(self.reads.latencies, 0.99), 1),
            "clients_cores": round(self.reads.cpu / self.reads.seconds, 2),
            "ovsnetd_cores": round(self.cpu / self.reads.seconds, 2),
            "add_p50_idle_ms": round(idle, 2),
            "add_p95_idle_ms": round(percentile(self.idle, 0.95), 2),
            "add_p50_ms": round(percentile(self.busy, 0.5), 2),
            "add_p95_ms": round(percentile(self.busy, 0.95), 2),
            "add_p50_responder_ms": round(percentile(self.beside, 0.5), 2),
            "add_ratio": round(percentile(self.busy, 0.5) / idle, 3),
            "responder_add_ratio": round(percentile(self.beside, 0.5) / idle, 3),
            "gate": GATE,
        }


def measure(bench: Bench, count: int) -> Figures:
    """`count` ADDs with the clients in each place, in turns."""
    figures = Figures()
    bench.adds(bench.places(BLOCK))  # that do not count
    with bench.reading(figures.alone):
        time.sleep(3.0)
    for _ in range(-(-count // BLOCK)):
        idle, busy, beside = (bench.places(BLOCK) for _ in range(3))
        figures.idle += bench.adds(idle)
        cpu = bench.cpu()
        with bench.reading(figures.reads):
            figures.busy += bench.adds(busy)
        figures.cpu += bench.cpu() - cpu
        with bench.answering(figures.answers, figures.reads.rate):
            figures.beside += bench.adds(beside)
    return figures


def table(found: dict[str, float], arguments: argparse.Namespace) -> Table:
    """The figures for people."""
    title = f"{arguments.clients} clients that list {arguments.endpoints} endpoints by a hundred, {arguments.count} ADDs each"
    result = Table(title=title, title_justify="left")
    for heading in ("", "clients at rest", "at ovsnetd", "at the responder"):
        result.add_column(heading, justify="right" if heading else "left")
    result.add_row(
        "ADD p50, ms", f"{found['add_p50_idle_ms']}", f"{found['add_p50_ms']}", f"{found['add_p50_responder_ms']}"
    )
    result.add_row("ADD p95, ms", f"{found['add_p95_idle_ms']}", f"{found['add_p95_ms']}", "")
    result.add_row("over at rest", "", f"{found['add_ratio']:.2f}", f"{found['responder_add_ratio']:.2f}")
    result.add_row("reads a second beside ADDs", "", f"{found['beside_adds_reads_per_second']:.0f}", "")
    result.add_row(
        "their p50 and p99, ms", "", f"{found['beside_adds_read_p50_ms']}, {found['beside_adds_read_p99_ms']}", ""
    )
    result.add_row("reads a second with no ADD", "", f"{found['reads_per_second']:.0f}", "")
    result.add_row("their p50 and p99, ms", "", f"{found['read_p50_ms']}, {found['read_p99_ms']}", "")
    result.add_row("cores: clients, ovsnetd", "", f"{found['clients_cores']}, {found['ovsnetd_cores']}", "")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """The benchmark; exit status 0, 1 with a message, or 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="bench.sh api", description="Many readers, and what an ADD costs meanwhile.")
    parser.add_argument("--count", type=int, default=50, help="ADDs with the clients in each place (%(default)s)")
    parser.add_argument("--endpoints", type=int, default=1000, help="that are listed (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=64, help="that read (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    arguments = parser.parse_args(argv)
    if arguments.count < 1 or not 100 <= arguments.endpoints <= 50_000 or not 1 <= arguments.clients <= 1000:
        parser.error("--count is at least 1, --endpoints 100 to 50000, --clients 1 to 1000")
    messages = Console(stderr=True)
    try:
        if os.geteuid():
            raise BenchError("this needs root")
        with interruptible() as deaf, ExitStack() as undo, messages.status("measuring"):
            bench = Bench(undo, arguments.endpoints, arguments.clients)
            undo.callback(deaf)
            found = measure(bench, arguments.count).summary()
    except (BenchError, OvsnetError, CommandFailed, AssertionError, OSError) as error:
        messages.print(f"bench api: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        messages.print("bench api: interrupted; everything is removed", style="red")
        return 130
    Console().print(table(found, arguments))
    if arguments.json:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
