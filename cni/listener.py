"""The socket of the CNI executables: one short request a connection, answered by the thread that accepted it.

A runtime waits for every millisecond of an ADD. A web server hands a connection from the thread that accepts to one that
serves, reads any HTTP there is, and takes 0.9 ms for it where this takes 0.15; both ends are ours, so what the executable
sends is all that this reads (docs/decisions/0011). The blueprint answers the same requests on the API's socket. Called by the
composition root, which guards the path.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from typing import Final

from . import wire

LOG = logging.getLogger(__name__)

_TIMEOUT: Final = 30.0  # seconds for a client to send its request, or to take the answer
_HEAD_LIMIT: Final = 8192  # bytes
_REASONS: Final = {200: "OK", 202: "Accepted"}

# path, body -> HTTP status, body, and what is to be done when the executable has gone on
Handler = Callable[[str, bytes], tuple[int, bytes, Callable[[], None] | None]]


class Listener:
    """Serves `handler` on the listening socket `sock` with `threads` threads; `handler` has an answer to everything."""

    def __init__(self, sock: socket.socket, handler: Handler, *, threads: int) -> None:
        self._sock = sock
        self._handler = handler
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"cni-{number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Serve."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Accept nothing more, and finish running requests."""
        self._stopping = True
        self._sock.shutdown(socket.SHUT_RDWR)  # wakes who waits for a connection
        for thread in self._threads:
            thread.join(_TIMEOUT)
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
                if not self._stopping:
                    LOG.error("the listener for CNI failed: %s", exc)
                return
            behind = None
            with connection:
                try:
                    connection.settimeout(_TIMEOUT)
                    behind = self._answer(connection)
                except OSError as exc:
                    LOG.warning("a CNI executable went away: %s", exc)  # it has a deadline, and runtimes lose patience
                except Exception:
                    LOG.exception("a CNI request failed by a defect")  # the executable reports that there was no answer
            if behind is not None:  # the executable reads until the connection is closed
                try:
                    behind()
                except Exception:
                    LOG.exception("what follows a CNI request failed by a defect")

    def _answer(self, connection: socket.socket) -> Callable[[], None] | None:
        path, body = _read(connection)
        status, content, behind = self._handler(path, body) if path else (400, b"", None)
        head = (
            f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(head.encode() + content)
        return behind


def _read(connection: socket.socket) -> tuple[str, bytes]:
    """Path and body of a request as ovsnet_shim.py sends it; no path if it is none, or too large."""
    data = connection.recv(65536)
    while (end := data.find(b"\r\n\r\n")) < 0:
        if len(data) > _HEAD_LIMIT or not (more := connection.recv(65536)):
            return "", b""
        data += more
    line, _, fields = data[:end].partition(b"\r\n")
    method, _, target = line.partition(b" ")
    length = fields.lower().partition(b"content-length:")[2].partition(b"\r\n")[0].strip()
    if method != b"POST" or not length.isdigit() or int(length) > wire.LIMIT:
        return "", b""
    missing = int(length) - (len(data) - end - 4)
    chunks = [data[end + 4 :]]
    while missing > 0:
        more = connection.recv(min(missing, 1 << 20))
        if not more:
            return "", b""
        chunks.append(more)
        missing -= len(more)
    return target.partition(b" ")[0].decode("latin-1"), b"".join(chunks)
