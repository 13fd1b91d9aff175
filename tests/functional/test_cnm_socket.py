"""The CNM edge on its unix socket, as ovsnetd serves it: who calls, keep-alive, limits, and what is no request at all."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cnm import create_plugin, listener, peer
from cnm.listener import HEAD_LIMIT, Listener
from cnm.protocol import CONTENT_TYPE, MAX_BODY
from ovsnet.errors import NotFound

if TYPE_CHECKING:
    from ovsnet.docker import DockerDriver
    from ovsnet.model import Pool

POOL_REQUEST = {"AddressSpace": "ovsnet", "Pool": "", "SubPool": "", "Options": None, "V6": False}
DEADLINE = 20.0  # seconds; far beyond what anything here takes

# A client that is another process, and first renames itself as a file of /proc/<pid>/stat is hardest to read.
CLIENT = """
import socket, sys
open("/proc/self/comm", "w").write(sys.argv[2])
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
peer.sendall(sys.stdin.buffer.read())
print(peer.makefile().read())
"""


@dataclass
class Driver:
    """Notes who asks for pools, and refuses them."""

    requesters: list[str] = field(default_factory=list)

    def request_pool(
        self, space: str, subnet: str, sub_pool: str, options: Mapping[str, str], v6: bool, requester: str
    ) -> tuple[Pool, bool]:
        del space, subnet, sub_pool, options, v6
        self.requesters.append(requester)
        raise NotFound("no pool here", hint="look elsewhere")


class Connection(http.client.HTTPConnection):
    """An HTTP connection to a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(str(self._path))

    def call(self, method: str, body: bytes = b"") -> tuple[int, str | None, dict[str, object]]:
        """Status, content type and answer of a call."""
        self.request("POST", f"/{method}", body)
        response = self.getresponse()
        return response.status, response.getheader("Content-Type"), json.loads(response.read())


@pytest.fixture
def path() -> Iterator[Path]:
    # Not tmp_path: a unix socket's path has 107 bytes at most.
    directory = tempfile.mkdtemp(prefix="cnm-")
    yield Path(directory, "ovsnet.sock")
    shutil.rmtree(directory)


@pytest.fixture
def driver() -> Driver:
    return Driver()


@contextmanager
def serving(path: Path, driver: object, *, threads: int = 4) -> Iterator[Listener]:
    """A listener at `path`; what it opened is closed at the end."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        plugin = create_plugin(cast("DockerDriver", driver), scope="local", requester=peer.requester)
        server = Listener(sock, plugin, threads=threads)
        server.start()
        try:
            yield server
        finally:
            if server.alive:
                server.stop()
        assert not server.alive


@pytest.fixture
def served(path: Path, driver: Driver) -> Iterator[Path]:
    with serving(path, driver):
        yield path


@pytest.fixture
def connection(served: Path) -> Iterator[Connection]:
    opened = Connection(served)
    yield opened
    opened.close()


def _starttime(pid: int) -> float:
    """Seconds since boot at which `pid` was started, as ps(1) has it."""
    age = subprocess.run(
        ["ps", "-o", "etimes=", "-p", str(pid)], check=True, capture_output=True, text=True, timeout=DEADLINE
    )
    return time.clock_gettime(time.CLOCK_BOOTTIME) - float(age.stdout)


def test_the_requester_is_the_calling_process(driver: Driver, connection: Connection) -> None:
    for _ in range(2):
        status, content_type, body = connection.call("IpamDriver.RequestPool", json.dumps(POOL_REQUEST).encode())
        assert (status, content_type) == (410, CONTENT_TYPE)
        assert body == {"Err": "no pool here: look elsewhere", "Error": "no pool here: look elsewhere"}
    first, second = driver.requesters
    assert first == second
    pid, ticks = first.split(":")
    assert int(pid) == os.getpid()
    assert int(ticks) / os.sysconf("SC_CLK_TCK") == pytest.approx(_starttime(os.getpid()), abs=3)


@pytest.mark.parametrize("name", ["plain", "a b", ") R 1 2 3", "((", "))"])
def test_every_process_is_told_from_the_others_whatever_its_name(driver: Driver, served: Path, name: str) -> None:
    body = json.dumps(POOL_REQUEST)
    head = f"POST /IpamDriver.RequestPool HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}"
    pids = []
    for _ in range(2):
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        with subprocess.Popen(
            [sys.executable, "-I", "-c", CLIENT, str(served), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as client:
            answer, _ = client.communicate(f"{head}\r\n\r\n{body}", timeout=DEADLINE)
        assert "no pool here" in answer
        pid, ticks = driver.requesters[-1].split(":")
        assert int(pid) == client.pid
        assert before - 1 <= int(ticks) / os.sysconf("SC_CLK_TCK") <= time.clock_gettime(time.CLOCK_BOOTTIME)
        pids.append(pid)
    assert pids[0] != pids[1]


def test_a_header_cannot_pose_as_the_peer(driver: Driver, connection: Connection) -> None:
    body = json.dumps(POOL_REQUEST).encode()
    connection.request("POST", "/IpamDriver.RequestPool", body, {"X-Remote-Pid": "1", "X_REMOTE_PID": "1"})
    assert connection.getresponse().status == 410
    assert driver.requesters == [peer.incarnation(os.getpid())]


def test_a_peer_that_is_gone_is_unknown() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait(DEADLINE)
    assert peer.incarnation(gone.pid) == peer.incarnation(0) == ""


def test_one_connection_serves_call_after_call(connection: Connection) -> None:
    """Also after refusals, and where the body is of no interest: nothing of it may be taken for the next request."""
    for method, body, status in [
        ("Plugin.Activate", b"", 200),
        ("Plugin.Activate", b"POST / HTTP/1.1\r\n\r\n", 200),
        ("NetworkDriver.NoSuchMethod", b"POST / HTTP/1.1\r\n\r\n", 404),
        ("NetworkDriver.Leave", b"", 400),
        ("NetworkDriver.Leave", b"{", 400),
        ("IpamDriver.GetCapabilities", b"", 200),
    ]:
        assert connection.call(method, body)[:2] == (status, CONTENT_TYPE), method


@pytest.mark.parametrize("method", ["NetworkDriver.Join", "Plugin.Activate", "NetworkDriver.NoSuchMethod"])
@pytest.mark.parametrize(
    ("head", "body"),
    [
        (f"Content-Length: {MAX_BODY + 1}", b""),  # answered before the body comes
        ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (MAX_BODY + 1, b" " * (MAX_BODY + 1))),
    ],
)
def test_an_oversized_body_is_refused_and_the_connection_closed(
    served: Path, method: str, head: str, body: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.settimeout(DEADLINE)
        opened.connect(str(served))
        opened.sendall(f"POST /{method} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode() + body)
        response = http.client.HTTPResponse(opened)
        response.begin()
        assert (response.status, response.getheader("Content-Type")) == (413, CONTENT_TYPE)
        assert response.getheader("Connection") == "close"
        assert list(json.loads(response.read())) == ["Err", "Error"]
        response.close()


def test_a_chunked_body_is_served(driver: Driver, connection: Connection) -> None:
    connection.request("POST", "/IpamDriver.RequestPool", iter([json.dumps(POOL_REQUEST).encode()]))
    assert connection.getresponse().status == 410
    assert len(driver.requesters) == 1


# -- what is no request, or comes slowly ------------------------------------------------------------------------------


def exchange(path: Path, sent: bytes) -> bytes:
    """What comes back until the connection is closed; our end says first that no more will be sent."""
    with socket.socket(socket.AF_UNIX) as opened:
        opened.settimeout(DEADLINE)
        opened.connect(str(path))
        opened.sendall(sent)
        opened.shutdown(socket.SHUT_WR)
        with opened.makefile("rb") as answer:
            return answer.read()


def responses(raw: bytes) -> list[tuple[int, dict[str, object]]]:
    """Statuses and bodies of all answers in `raw`, each in the protocol's form, with nothing between or after them."""
    found = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        line, *fields = head.decode("ascii").split("\r\n")
        version, status, reason = line.split(" ", 2)
        values = dict(field.split(": ", 1) for field in fields)
        assert version == "HTTP/1.1"
        assert reason
        assert values["Content-Type"] == CONTENT_TYPE
        length = int(values["Content-Length"])
        found.append((int(status), json.loads(rest[:length])))
        raw = rest[length:]
    return found


HEAD = b"POST /Plugin.Activate HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"GARBAGE\r\n\r\n", 400),
        (b"POST  /Plugin.Activate HTTP/1.1\r\n\r\n", 400),
        (b"POST /Plugin.Activate HTTP/2.0\r\n\r\n", 400),
        (b"POST /Plugin.Activate\r\n\r\n", 400),
        (b"POST /Plugin.Activate HTTP/1.1\nHost: x\n\n", 400),
        (HEAD + b"no field\r\n\r\n", 400),
        (HEAD + b"Folded: a\r\n b\r\n\r\n", 400),
        (HEAD + b"Blank : a\r\n\r\n", 400),
        (HEAD + b"Null: a\0b\r\n\r\n", 400),
        (HEAD + b"Return: a\rb\r\n\r\n", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: +1\r\n\r\nx", 400),
        (HEAD + b"Content-Length: \xb2\r\n\r\nxx", 400),
        (HEAD + b"Content-Length:\r\n\r\n", 400),
        (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 5000, 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * HEAD_LIMIT, 431),
        (HEAD + b"X: " + b"x" * HEAD_LIMIT + b"\r\n\r\n", 431),
        (b"x" * (HEAD_LIMIT + 1), 431),
        (HEAD + b"Content-Length: 1048577\r\n\r\n", 413),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(served: Path, sent: bytes, status: int) -> None:
    """Whatever follows it: where the refused request ends cannot be known."""
    ((got, body),) = responses(exchange(served, sent + HEAD + b"\r\n"))
    assert got == status
    assert list(body) == ["Err", "Error"]


HALF = (b"Content-Length: 5\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n9\r\n")


@pytest.mark.parametrize("sent", [b"", b"P", HEAD, *(HEAD + one for one in HALF)])
def test_half_a_request_is_not_answered(served: Path, sent: bytes) -> None:
    assert exchange(served, sent) == b""


def test_requests_that_come_together_are_answered_in_turn(served: Path) -> None:
    chunked = b"Transfer-Encoding: chunked\r\n\r\n2;why=not\r\n{}\r\n0\r\nTrailer: x\r\n\r\n"
    sent = HEAD + b"\r\n" + HEAD.replace(b"/Plugin", b"/No") + chunked + HEAD.replace(b"x", b"y") + b"\r\n"
    assert [status for status, _ in responses(exchange(served, sent))] == [200, 404, 200]


def test_the_answer_to_head_has_no_body(served: Path) -> None:
    answer = exchange(served, HEAD.replace(b"POST", b"HEAD") + b"\r\n" + HEAD + b"\r\n")
    refused, _, rest = answer.partition(b"\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 405 ")
    assert b"Allow: POST" in refused.split(b"\r\n")
    assert [status for status, _ in responses(rest)] == [200]


def test_a_client_that_asks_first_is_told_to_send_its_body(served: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.settimeout(DEADLINE)
        opened.connect(str(served))
        opened.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert opened.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        opened.sendall(b"{}")
        assert opened.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_old_client_gets_one_answer(served: Path) -> None:
    sent = (HEAD + b"\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert len(responses(exchange(served, sent + sent))) == 1


def test_silent_clients_hold_up_nobody_and_are_left(
    path: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "TIMEOUT", 1.0)
    with serving(path, driver, threads=1), closing(Connection(path)) as other:
        silent = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        try:
            for number, each in enumerate(silent):
                each.settimeout(DEADLINE)
                each.connect(str(path))
                each.sendall(HEAD if number % 2 else b"")
            assert other.call("Plugin.Activate")[0] == 200
            for number, each in enumerate(silent):
                with each.makefile("rb") as answer:
                    assert [status for status, _ in responses(answer.read())] == ([408] if number % 2 else [])
        finally:
            for each in silent:
                each.close()


class Slow:
    """A driver whose release of a pool takes until `go` is set, and that notes how many run at once."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.guard = threading.Lock()
        self.running = self.most = 0

    def release_pool(self, pool_id: str) -> None:
        del pool_id
        with self.guard:
            self.running += 1
            self.most = max(self.most, self.running)
        self.begun.set()
        assert self.go.wait(DEADLINE)
        with self.guard:
            self.running -= 1


def test_a_stop_ends_what_is_idle_and_waits_for_what_runs(path: Path) -> None:
    driver = Slow()
    got: list[tuple[int, str | None, dict[str, object]]] = []
    with closing(Connection(path)) as idle, closing(Connection(path)) as busy:
        with serving(path, driver) as server:
            assert idle.call("Plugin.Activate")[0] == 200
            asking = threading.Thread(
                target=lambda: got.append(busy.call("IpamDriver.ReleasePool", b'{"PoolID": "a"}'))
            )
            asking.start()
            assert driver.begun.wait(DEADLINE)
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            assert idle.sock.recv(1) == b""
            assert stopping.is_alive()
            driver.go.set()
            stopping.join(DEADLINE)
            asking.join(DEADLINE)
        assert got == [(200, CONTENT_TYPE, {})]


def test_requests_beyond_the_threads_wait_for_their_turn(path: Path) -> None:
    driver = Slow()
    got: list[int] = []
    callers = [Connection(path) for _ in range(5)]

    def ask(each: Connection) -> None:
        got.append(each.call("IpamDriver.ReleasePool", b'{"PoolID": "a"}')[0])

    with serving(path, driver, threads=2):
        asking = [threading.Thread(target=ask, args=[each]) for each in callers]
        for one in asking:
            one.start()
        assert driver.begun.wait(DEADLINE)
        with closing(Connection(path)) as another:
            another.request("POST", "/Plugin.Activate")
            driver.go.set()
            assert another.getresponse().status == 200
        for one, each in zip(asking, callers, strict=True):
            one.join(DEADLINE)
            each.close()
    assert got == [200] * len(callers)
    assert driver.most <= 2


EXAMPLES = int(os.environ.get("OVSNET_CNM_RAW_EXAMPLES", "400"))
PIECES = st.sampled_from(
    [
        HEAD,
        HEAD + b"\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST ",
        b"/Plugin.Activate",
        b" HTTP/1.1",
        b"\r\n",
        b"\r\n\r\n",
        b"\n\n",
        b"Content-Length: 2\r\n",
        b"Content-Length: 1048576\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Expect: 100-continue\r\n",
        b"2\r\n{}\r\n",
        b"0\r\n\r\n",
        b"{}",
        b"fffffff\r\n",
        b"\x00",
        b"x" * HEAD_LIMIT,
    ]
)


@pytest.fixture(scope="module")
def long_served() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cnm-") as directory:
        path = Path(directory, "ovsnet.sock")
        with serving(path, Driver()):
            yield path


@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(pieces=st.lists(PIECES | st.binary(max_size=40), max_size=8))
@example(pieces=[HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"])
def test_any_bytes_get_answers_of_the_protocols_form_or_none(long_served: Path, pieces: list[bytes]) -> None:
    """Set OVSNET_CNM_RAW_EXAMPLES for more of them."""
    answer = exchange(long_served, b"".join(pieces)).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    found = responses(answer)
    assert all(status in (200, 400, 404, 405, 408, 413, 431) for status, _ in found)
    assert all(body["Err"] == body["Error"] for status, body in found if status != 200)
    assert [status for status, _ in responses(exchange(long_served, HEAD + b"\r\n"))] == [200]
