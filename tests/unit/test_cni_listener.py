"""The socket of the CNI executables: who sends nothing, or little by little, keeps nobody else waiting."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cni import listener, wire
from cni.listener import Listener

THREADS = 2

Connect = Callable[[], socket.socket]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    """Connects to a listener that answers with the request's path and body."""
    with ExitStack() as undo:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "sock"))
        sock.listen(100)
        served = Listener(sock, lambda path, body: (200, path.encode() + b" " + body, None), threads=THREADS)
        served.start()
        undo.callback(served.stop)

        def connect() -> socket.socket:
            link = undo.enter_context(socket.socket(socket.AF_UNIX))
            link.settimeout(10)
            link.connect(str(tmp_path / "sock"))
            return link

        yield connect


def request(body: bytes) -> bytes:
    """As the executable sends it."""
    return b"POST /cni HTTP/1.1\r\nHost: ovsnet\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def answer(link: socket.socket) -> tuple[bytes, bytes]:
    """Status and body."""
    reply = b""
    while chunk := link.recv(65536):
        reply += chunk
    return reply[9:12], reply.partition(b"\r\n\r\n")[2]


def test_silent_clients_keep_nobody_waiting(connect: Connect) -> None:
    silent = [connect() for _ in range(10 * THREADS)]
    for number in range(3 * THREADS):
        link = connect()
        link.sendall(request(b"%d" % number))
        assert answer(link) == (b"200", b"/cni %d" % number)
    for link in silent:  # and who waited is answered in the end
        link.sendall(request(b"late"))
        assert answer(link) == (b"200", b"/cni late")


@pytest.mark.parametrize("size", [0, wire.LIMIT])
def test_a_request_in_pieces(connect: Connect, size: int) -> None:
    link, whole = connect(), request(b"x" * size)
    connect().sendall(whole[:10])  # another one that never ends
    for start, end in ((0, 7), (7, 30), (30, len(whole) - 1), (len(whole) - 1, len(whole))):
        link.sendall(whole[start:end])
        other = connect()
        other.sendall(request(b"between"))
        assert answer(other) == (b"200", b"/cni between")
    assert answer(link) == (b"200", b"/cni " + b"x" * size)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /cni HTTP/1.1\r\n\r\n",
        b"POST /cni HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /cni HTTP/1.1\r\nContent-Length: %b\r\n\r\n" % (b"9" * 5000),  # more digits than int() takes
        b"POST /cni HTTP/1.1\r\n\r\n",
        b"POST /cni HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (wire.LIMIT + 1),
        b"x" * 10_000,
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_what_is_no_request(connect: Connect, sent: bytes, late: bool) -> None:
    link = connect()
    if late:
        link.sendall(sent[:1])
        assert answer_of_another(connect) == b"/cni other"
        sent = sent[1:]
    link.sendall(sent)
    assert answer(link) == (b"400", b"")


def answer_of_another(connect: Connect) -> bytes:
    """Of a client that comes later, when the first ones are in the lobby."""
    for _ in range(3 * THREADS):
        link = connect()
        link.sendall(request(b"other"))
        body = answer(link)[1]
    return body


def test_who_leaves_is_forgotten(connect: Connect) -> None:
    for start in (b"", b"POST"):
        for _ in range(3 * THREADS):
            link = connect()
            link.sendall(start)
            link.close()
    assert answer_of_another(connect) == b"/cni other"


class Poor(socket.socket):
    """A listening socket with whose connections the process has more descriptors than it may have, twice."""

    failures = 2

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return super().accept()


def test_descriptors_run_out_for_a_moment(tmp_path: Path) -> None:
    with Poor(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as link:
        sock.bind(str(tmp_path / "sock"))
        sock.listen()
        served = Listener(sock, lambda _, body: (200, body, None), threads=1)
        served.start()
        try:
            link.settimeout(10)
            link.connect(str(tmp_path / "sock"))
            link.sendall(request(b"body"))
            assert answer(link) == (b"200", b"body")
            assert served.alive
        finally:
            served.stop()


def test_the_lobby_has_an_end(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_LOBBY", 3)
    waiting = [connect() for _ in range(8)]
    sent_away = 0
    for link in waiting:
        link.settimeout(0.5)
        try:
            sent_away += link.recv(1) == b""
        except TimeoutError:
            continue
    assert sent_away == len(waiting) - 3


def test_patience_ends(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_TIMEOUT", 0.1)
    link = connect()
    link.sendall(b"POST")
    assert link.recv(1) == b""


def test_a_request_is_being_served_until_its_answer_is_away(tmp_path: Path) -> None:
    told: list[str] = []
    behind = threading.Event()

    @contextmanager
    def serving() -> Iterator[None]:
        told.append("begins")
        yield
        told.append("ends")

    def follow() -> None:
        told.append("behind")
        behind.set()

    def handle(path: str, body: bytes) -> tuple[int, bytes, Callable[[], None]]:
        del path
        told.append("handled")
        return 200, body, follow

    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as link:
        sock.bind(str(tmp_path / "sock"))
        sock.listen()
        served = Listener(sock, handle, threads=1, serving=serving)
        served.start()
        try:
            link.settimeout(10)
            link.connect(str(tmp_path / "sock"))
            link.sendall(request(b"now"))
            assert answer(link) == (b"200", b"now")
            assert behind.wait(10)
        finally:
            served.stop()
    assert told[:4] == ["begins", "handled", "ends", "behind"]
