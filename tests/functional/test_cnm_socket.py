"""The CNM edge behind a real cheroot on a unix socket, as ovsnetd serves it: who calls, keep-alive, oversized bodies."""

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from cheroot import wsgi

from cnm import create_app, peer
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


def _serve(path: Path, driver: Driver, *, peercreds: bool) -> Iterator[Path]:
    app = create_app(cast("DockerDriver", driver), scope="local", requester=peer.requester)
    server = wsgi.Server(str(path), app, numthreads=4, peercreds_enabled=peercreds)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield path
    finally:
        server.stop()
        thread.join(DEADLINE)
    assert not thread.is_alive()


@pytest.fixture
def served(path: Path, driver: Driver) -> Iterator[Path]:
    yield from _serve(path, driver, peercreds=True)


@pytest.fixture
def served_blind(path: Path, driver: Driver) -> Iterator[Path]:
    yield from _serve(path, driver, peercreds=False)


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


def test_a_header_cannot_pose_as_the_peer(driver: Driver, served_blind: Path) -> None:
    opened = Connection(served_blind)
    body = json.dumps(POOL_REQUEST).encode()
    opened.request("POST", "/IpamDriver.RequestPool", body, {"X-Remote-Pid": "1", "X_REMOTE_PID": "1"})
    assert opened.getresponse().status == 410
    opened.close()
    assert driver.requesters == [""]


def test_a_peer_that_is_gone_is_unknown(driver: Driver) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait(DEADLINE)
    app = create_app(cast("DockerDriver", driver), scope="local", requester=peer.requester)
    for pid in (str(gone.pid), "0"):
        with app.test_request_context(environ_overrides={"X_REMOTE_PID": pid}):
            assert peer.requester() == ""


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
