"""Who goes first: requests of runtimes, then reads, one at a time; and nobody waits for ever."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ovsnet.access.listener import new_server
from ovsnet.precedence import Precedence

EVER = 1000.0  # seconds; no test waits for them
SOON = 10.0
MOMENT = 0.1  # seconds in which what may happen would have happened


class Read:
    """A read in a thread of its own, that ends when it is told to."""

    def __init__(self, precedence: Precedence) -> None:
        self.began, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=[precedence], daemon=True)
        self._thread.start()

    def _run(self, precedence: Precedence) -> None:
        with precedence.read():
            self.began.set()
            assert self._end.wait(SOON)

    def end(self) -> None:
        self._end.set()
        self._thread.join(SOON)
        assert not self._thread.is_alive()


def test_one_read_at_a_time() -> None:
    precedence = Precedence(long=EVER, held=EVER)
    reads = [Read(precedence) for _ in range(3)]
    for _ in range(3):
        (now,) = _begun(reads)
        reads.remove(now)
        assert not any(one.began.is_set() for one in reads)
        now.end()


def _begun(reads: list[Read]) -> list[Read]:
    """Those that have begun, once one has."""
    for _ in range(int(SOON / MOMENT)):
        if begun := [one for one in reads if one.began.wait(MOMENT / len(reads))]:
            return begun
    raise AssertionError("no read begins")


def test_a_read_that_takes_long_does_not_count() -> None:
    precedence = Precedence(long=0.0, held=EVER)
    slow, other = Read(precedence), Read(precedence)
    assert slow.began.wait(SOON)
    assert other.began.wait(SOON)
    slow.end()
    other.end()
    Read(precedence).end()


def test_reads_wait_while_runtimes_are_served() -> None:
    precedence = Precedence(long=EVER, held=EVER)
    with precedence.runtime():
        with precedence.runtime():
            read = Read(precedence)
            assert not read.began.wait(MOMENT)
        assert not read.began.wait(MOMENT)
    assert read.began.wait(SOON)
    with precedence.runtime():  # which waits for no read
        pass
    read.end()


def test_reads_get_on_however_many_runtimes_there_are() -> None:
    precedence = Precedence(held=0.001)
    with precedence.runtime():
        for _ in range(10):
            read = Read(precedence)
            assert read.began.wait(SOON)
            read.end()


def test_a_runtime_that_fails_is_done() -> None:
    precedence = Precedence(held=EVER)
    with pytest.raises(OSError, match="gone"), precedence.runtime():
        raise OSError("gone")
    with pytest.raises(OSError, match="gone"), precedence.read():
        raise OSError("gone")
    Read(precedence).end()


@contextmanager
def served(path: Path, precedence: Precedence) -> Iterator[None]:
    """A server that answers "ok" on a unix socket."""

    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        del environ
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]

    server = new_server(str(path), app, threads=4, backlog=1024, idle=30, precedence=precedence)
    server.expiration_interval = 0.05  # seconds until it sees that it shall stop
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join(SOON)


def connect(path: Path) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(SOON)
    connection.sock.connect(str(path))
    return connection


def ask(connection: http.client.HTTPConnection, method: str) -> bytes:
    connection.request(method, "/")
    return connection.getresponse().read()


def test_on_a_socket_only_reads_wait(tmp_path: Path) -> None:
    precedence = Precedence(held=EVER)
    with served(tmp_path / "sock", precedence), ExitStack() as undo:
        links = [undo.enter_context(closing(connect(tmp_path / "sock"))) for _ in range(3)]
        with precedence.runtime():
            for reader, method in zip(links[:2], ("GET", "HEAD"), strict=True):
                reader.request(method, "/")
            assert ask(links[2], "POST") == b"ok"
            assert links[0].sock is not None
            links[0].sock.settimeout(MOMENT)
            with pytest.raises(TimeoutError):
                links[0].sock.recv(1, socket.MSG_PEEK)
            links[0].sock.settimeout(SOON)
        assert links[0].getresponse().read() == b"ok"
        assert links[1].getresponse().status == 200
        assert ask(links[0], "GET") == b"ok"


def test_slow_senders_keep_no_read_waiting(tmp_path: Path) -> None:
    with served(tmp_path / "sock", Precedence(long=EVER)), ExitStack() as undo:
        slow, other = [undo.enter_context(closing(connect(tmp_path / "sock"))) for _ in range(2)]
        assert slow.sock is not None
        slow.sock.sendall(b"GET / HTTP/1.1\r\nHost: local")
        assert ask(other, "GET") == b"ok"
        slow.sock.sendall(b"host\r\n\r\n")
        assert slow.sock.recv(12) == b"HTTP/1.1 200"


def test_many_connections_stay_open(tmp_path: Path) -> None:
    with served(tmp_path / "sock", Precedence()), ExitStack() as undo:
        links = [undo.enter_context(closing(connect(tmp_path / "sock"))) for _ in range(100)]
        for _ in range(2):
            for link in links:
                kept = link.sock
                assert ask(link, "GET") == b"ok"
                assert link.sock is kept
