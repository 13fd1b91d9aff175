"""The socket of the CNI executables: one short request a connection, answered by the thread that accepted it.

A runtime waits for every millisecond of an ADD. A web server hands a connection from the thread that accepts to one that
serves, reads any HTTP there is, and takes 0.9 ms for it where this takes 0.15; both ends are ours, so what the executable
sends is all that this reads (docs/decisions/0011). Who does not send all of it at once waits in a lobby that costs no thread, so
that silent and slow clients keep nobody else waiting. The blueprint answers the same requests on the API's socket. Called by the
composition root, which guards the path.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Final

from . import wire

LOG = logging.getLogger(__name__)

_TIMEOUT: Final = 30.0  # seconds for a client to send its request, or to take the answer
_PROMPT: Final = 0.02  # seconds for which the thread that accepted it waits for a request
_LOBBY: Final = 1024  # connections that may wait
_LATE_THREADS: Final = 4  # that answer who has waited
_PAUSE: Final = 0.1  # seconds before the next try, when no connection can be accepted
_HEAD_LIMIT: Final = 8192  # bytes
_OUT_OF_RESOURCES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_REASONS: Final = {200: "OK", 202: "Accepted"}

# path, body -> HTTP status, body, and what is to be done when the executable has gone on
_Behind = Callable[[], None]
Handler = Callable[[str, bytes], tuple[int, bytes, _Behind | None]]
_Request = tuple[str, bytes]  # path and body
_NO_REQUEST: Final = ("", b"")
Serving = Callable[[], AbstractContextManager[None]]


@dataclass(slots=True)
class _Guest:
    """A connection in the lobby: what has come of its request, and when that has to be all (monotonic seconds)."""

    connection: socket.socket
    data: bytes
    until: float


class Listener:
    """Serves `handler` on the listening socket `sock` with `threads` threads; `handler` has an answer to everything.

    `serving` makes a context for each request, entered as soon as it is here, and left when the executable has its answer.
    """

    def __init__(self, sock: socket.socket, handler: Handler, *, threads: int, serving: Serving = nullcontext) -> None:
        self._sock = sock
        self._handler = handler
        self._serving = serving
        self._stopping = False
        self._lobby = selectors.DefaultSelector()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # ends the lobby
        self._lobby.register(self._bell, selectors.EVENT_READ)
        self._door = threading.Lock()  # of the lobby: who accepts lets in, its own thread lets out
        self._late = ThreadPoolExecutor(_LATE_THREADS, thread_name_prefix="cni-late")
        self._threads = [
            threading.Thread(target=self._serve, name=f"cni-{number}", daemon=True) for number in range(threads)
        ]
        self._threads.append(threading.Thread(target=self._wait, name="cni-lobby", daemon=True))

    def start(self) -> None:
        """Serve."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Accept nothing more, and finish running requests."""
        self._stopping = True
        self._sock.shutdown(socket.SHUT_RDWR)  # wakes who waits for a connection
        os.eventfd_write(self._bell, 1)
        for thread in self._threads:
            thread.join(_TIMEOUT)
        self._late.shutdown()
        self._lobby.close()
        os.close(self._bell)
        self._sock.close()

    @property
    def alive(self) -> bool:
        """Whether connections are accepted."""
        return all(thread.is_alive() for thread in self._threads)

    def _serve(self) -> None:
        while not self._stopping:
            try:
                connection, _ = self._sock.accept()
            except OSError as exc:
                if exc.errno in _OUT_OF_RESOURCES:
                    LOG.error("no CNI executable can be heard: %s", exc)
                    time.sleep(_PAUSE)
                    continue
                if not self._stopping:
                    LOG.error("the listener for CNI failed: %s", exc)
                return
            try:
                with self._serving():
                    behind = self._receive(connection)
            except Exception:  # of one connection: the others are to be served
                LOG.exception("a connection of a CNI executable failed by a defect")
                connection.close()
                continue
            if behind is not None:
                _follow(behind)

    def _receive(self, connection: socket.socket) -> _Behind | None:
        """Answer a request that is there, or have the connection wait for it; what is to be done behind the answer."""
        data, request, patience = b"", None, time.monotonic() + _PROMPT
        connection.settimeout(_PROMPT)
        while request is None and time.monotonic() < patience:
            try:
                more = connection.recv(65536)
            except TimeoutError:
                break
            except OSError:
                more = b""
            data += more
            request = _parse(data) if more else _NO_REQUEST
        if request is None:
            self._ask_to_wait(connection, data)
            return None
        return self._answer(connection, request)

    def _answer_late(self, connection: socket.socket, request: _Request) -> None:
        with self._serving():
            behind = self._answer(connection, request)
        if behind is not None:
            _follow(behind)

    def _answer(self, connection: socket.socket, request: _Request) -> _Behind | None:
        path, body = request
        behind = None
        with connection:
            try:
                connection.settimeout(_TIMEOUT)
                status, content, behind = self._handler(path, body) if path else (400, b"", None)
                head = (
                    f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\n"
                    f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
                )
                connection.sendall(head.encode() + content)
            except OSError as exc:
                LOG.warning("a CNI executable went away: %s", exc)  # it has a deadline, and runtimes lose patience
            except Exception:
                LOG.exception("a CNI request failed by a defect")  # the executable reports that there was no answer
        return behind  # the executable reads until the connection is closed

    # -- the lobby ----------------------------------------------------------------------------------------------------

    def _ask_to_wait(self, connection: socket.socket, data: bytes) -> None:
        connection.setblocking(False)
        guest = _Guest(connection, data, time.monotonic() + _TIMEOUT)
        with self._door:
            full = len(self._lobby.get_map()) > _LOBBY  # the bell is there as well
            if not full:
                self._lobby.register(connection, selectors.EVENT_READ, guest)
        if full:
            LOG.warning("a CNI executable is sent away: %d connections wait without a request", _LOBBY)
            connection.close()

    def _wait(self) -> None:
        while not self._stopping:
            for key, _ in self._lobby.select(1.0):
                if key.data is not None:
                    try:
                        self._hear(key.data)
                    except Exception:
                        LOG.exception("a connection of a CNI executable failed by a defect")
                        with suppress(KeyError):  # it has left
                            self._leave(key.data)
                        key.data.connection.close()
            now = time.monotonic()
            for guest in self._guests():
                if guest.until < now:
                    LOG.warning("a CNI executable has sent no request within %.0f s", _TIMEOUT)
                    self._leave(guest)
                    guest.connection.close()
        for guest in self._guests():
            self._leave(guest)
            guest.connection.close()

    def _guests(self) -> list[_Guest]:
        with self._door:
            return [key.data for key in self._lobby.get_map().values() if key.data is not None]

    def _hear(self, guest: _Guest) -> None:
        """Take what a waiting connection sends now; when its request is there, a thread answers it."""
        try:
            more = guest.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        guest.data += more
        request = _parse(guest.data) if more else _NO_REQUEST
        if request is not None:
            self._leave(guest)
            self._late.submit(self._answer_late, guest.connection, request)

    def _leave(self, guest: _Guest) -> None:
        with self._door:
            self._lobby.unregister(guest.connection)


def _follow(behind: _Behind) -> None:
    try:
        behind()
    except Exception:
        LOG.exception("what follows a CNI request failed by a defect")


def _parse(data: bytes) -> _Request | None:
    """Path and body of a request as ovsnet_shim.py sends it, once it is there; no path if it is none, or too large."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return _NO_REQUEST if len(data) > _HEAD_LIMIT else None
    line, _, fields = data[:end].partition(b"\r\n")
    method, _, target = line.partition(b" ")
    length = fields.lower().partition(b"content-length:")[2].partition(b"\r\n")[0].strip()
    if method != b"POST" or not (length.isdigit() and len(length) < 20) or int(length) > wire.LIMIT:
        return _NO_REQUEST
    body = data[end + 4 :]
    if len(body) < int(length):
        return None
    return target.partition(b" ")[0].decode("latin-1"), body
