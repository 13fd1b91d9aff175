"""The socket that dockerd calls: HTTP/1.1 with connections that stay open, one thread for each, and no web framework.

dockerd makes up to nine calls for one `docker network connect` and its `disconnect`, one after the other. A web server and a
framework take 0.9 ms for each, this takes 0.2 (docs/decisions/0043). What is read is HTTP of the forms that clients send
(RFC 9112), within limits of size and time; anything else is refused in the protocol's form, and the connection closed. Called
by the composition root, which guards the path.
"""

from __future__ import annotations

import errno
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from http import HTTPStatus
from typing import Final

from . import peer
from .protocol import CONTENT_TYPE, MAX_BODY, Answer, failure

LOG = logging.getLogger(__name__)

TIMEOUT: Final = 30.0  # seconds for a client to send a request, or to take an answer, or between two requests
HEAD_LIMIT: Final = 16384  # bytes of request line and fields, or of a chunked body's trailer
_LINE_LIMIT: Final = 1024  # bytes of a line between chunks
_CONNECTIONS: Final = 1024  # at once; those beyond it wait to be accepted
_FAREWELL: Final = 2.0  # seconds in which the rest of a refused request is read, or its sender would not see the answer
_PAUSE: Final = 0.1  # seconds before the next try, when no connection can be accepted
_OUT_OF_RESOURCES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.([01])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n\0]*)?")

Handler = Callable[[str, str, bytes], Answer]  # verb, path, body; it has an answer to everything
Serving = Callable[[], AbstractContextManager[None]]


class Listener:
    """Serves `handler` on the listening socket `sock`; at most `threads` requests run at once, the others wait.

    `serving` makes a context for each request that has come, left when its answer is away.
    """

    def __init__(self, sock: socket.socket, handler: Handler, *, threads: int, serving: Serving = nullcontext) -> None:
        self._sock = sock
        self._handler = handler
        self._serving = serving
        self._turns = threading.BoundedSemaphore(threads)
        self._places = threading.BoundedSemaphore(_CONNECTIONS)
        self._guard = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="docker-listener", daemon=True)

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def stop(self) -> None:
        """Accept nothing more, close what is idle, and finish running requests."""
        self._stopping.set()
        self._sock.shutdown(socket.SHUT_RDWR)  # wakes who waits for a connection
        self._thread.join(TIMEOUT)
        self._sock.close()
        with self._guard:
            still_open = dict(self._open)
            for connection in still_open:
                with suppress(OSError):  # it is closed already at the other end
                    connection.shutdown(socket.SHUT_RD)  # who waits for a request sees the end; an answer still leaves
        for thread in still_open.values():
            thread.join(TIMEOUT)

    @property
    def alive(self) -> bool:
        """Whether connections are accepted."""
        return self._thread.is_alive()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            if not self._places.acquire(timeout=_PAUSE):
                continue
            try:
                connection, _ = self._sock.accept()
                self._begin(connection)
            except OSError as exc:
                self._places.release()
                if self._stopping.is_set():
                    return
                if exc.errno not in _OUT_OF_RESOURCES:
                    LOG.error("the listener for Docker failed: %s", exc)
                    return
                LOG.error("no connection of Docker can be accepted: %s", exc)
                time.sleep(_PAUSE)

    def _begin(self, connection: socket.socket) -> None:
        """Have a thread serve a connection. OSError (ENOMEM) if there can be none."""
        thread = threading.Thread(target=self._serve, args=[connection], name="docker", daemon=True)
        with self._guard:
            self._open[connection] = thread
        try:
            thread.start()
        except RuntimeError as exc:
            with self._guard:
                del self._open[connection]
            connection.close()
            raise OSError(errno.ENOMEM, str(exc)) from exc

    def _serve(self, connection: socket.socket) -> None:
        try:
            Conversation(connection, self._in_turn, self._serving).run()
        except OSError as exc:
            LOG.warning("Docker went away: %s", exc)
        except Exception:
            LOG.exception("a connection of Docker failed by a defect")
        finally:
            with self._guard:
                del self._open[connection]
                connection.close()
            self._places.release()

    def _in_turn(self, verb: str, path: str, body: bytes) -> Answer:
        if not self._turns.acquire(timeout=TIMEOUT):
            return failure(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{verb} {path[:80]}: too many requests are running: try again"
            )
        try:
            return self._handler(verb, path, body)
        finally:
            self._turns.release()


class _Refusal(Exception):
    """A request that cannot be read: the answer, after which nothing on the connection can be trusted."""

    def __init__(self, status: HTTPStatus, what: str) -> None:
        super().__init__(what)
        self.answer = failure(status, f"{status.phrase.lower()}: {what}")


class _End(Exception):
    """The other end has no more to say."""


class Conversation:
    """One connection: requests and answers in turns."""

    def __init__(self, connection: socket.socket, handler: Handler, serving: Serving = nullcontext) -> None:
        self._connection = connection
        self._handler = handler
        self._serving = serving
        self._data = bytearray()  # received, and not yet used
        self._until = 0.0  # monotonic time by which the request must have come

    def run(self) -> None:
        """Serve until one end closes it, or sends nothing, or no HTTP. OSError when the answer cannot be delivered."""
        peer.note(self._connection)
        try:
            while self._exchange():
                pass
        except _End:
            return
        except _Refusal as exc:
            self._send(exc.answer, close=True)
            self._drain()

    def _exchange(self) -> bool:
        """One request and its answer; whether another one may follow."""
        self._until = time.monotonic() + TIMEOUT
        if not self._data:
            with suppress(TimeoutError):
                self._receive()
            if not self._data:
                return False
            self._until = time.monotonic() + TIMEOUT
        try:
            verb, path, minor, fields = self._head()
            body = self._body(fields)
        except TimeoutError:
            raise _Refusal(HTTPStatus.REQUEST_TIMEOUT, f"the request has not come within {TIMEOUT:.0f} s") from None
        close = minor == b"0" or b"close" in fields.get(b"connection", b"").lower()
        with self._serving():
            answer = self._handler(verb, path, body)
            try:
                self._send(answer, close=close, without_body=verb == "HEAD")
            finally:
                if answer.behind is not None:
                    answer.behind()
        return not close

    # -- reading ------------------------------------------------------------------------------------------------------

    def _head(self) -> tuple[str, str, bytes, dict[bytes, bytes]]:
        """Verb, path, minor version and fields (names in lower case) of the next request."""
        while (end := _HEAD_END.search(self._data)) is None:
            if len(self._data) > HEAD_LIMIT:
                raise _Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head has at most {HEAD_LIMIT} bytes")
            self._receive()
        if end.end() > HEAD_LIMIT:
            raise _Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head has at most {HEAD_LIMIT} bytes")
        head = bytes(self._data[: end.end()])
        del self._data[: end.end()]
        first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        request = _REQUEST_LINE.fullmatch(first)
        if request is None or not head.endswith(b"\r\n\r\n"):
            raise _Refusal(HTTPStatus.BAD_REQUEST, "this is no request of HTTP/1.1")
        fields: dict[bytes, bytes] = {}
        for line in lines:
            field = _FIELD.fullmatch(line)
            if field is None:
                raise _Refusal(HTTPStatus.BAD_REQUEST, "a header field cannot be read")
            name = field[1].lower()
            if name in fields and fields[name] != field[2]:
                if name in (b"content-length", b"transfer-encoding"):  # two readings of where the body ends
                    raise _Refusal(HTTPStatus.BAD_REQUEST, "a header field is given twice")
                fields[name] += b", " + field[2]
            else:
                fields[name] = field[2]
        verb, target, minor = request.groups()
        return verb.decode(), target.partition(b"?")[0].decode(), minor, fields

    def _body(self, fields: dict[bytes, bytes]) -> bytes:
        coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
        if coding is not None and (length is not None or coding.lower() != b"chunked"):
            raise _Refusal(HTTPStatus.BAD_REQUEST, "of transfer encodings only chunked is understood, without a length")
        if length is not None and not (length.isdigit() and len(length) < 20):
            raise _Refusal(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
        if length is not None and int(length) > MAX_BODY:
            raise _too_large()
        if (coding or length) and not self._data and fields.get(b"expect", b"").lower() == b"100-continue":
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return self._chunks() if coding is not None else self._take(int(length or 0))

    def _chunks(self) -> bytes:
        """A chunked body (RFC 9112, section 7.1); its trailer is read and ignored."""
        body = bytearray()
        while True:
            size = _CHUNK_SIZE.fullmatch(self._line())
            if size is None:
                raise _Refusal(HTTPStatus.BAD_REQUEST, "the size of a chunk cannot be read")
            number = int(size[1], 16)
            if len(body) + number > MAX_BODY:
                raise _too_large()
            if not number:
                break
            body += self._take(number)
            if self._take(2) != b"\r\n":
                raise _Refusal(HTTPStatus.BAD_REQUEST, "a chunk is longer than it says")
        left = HEAD_LIMIT
        while line := self._line():
            left -= len(line)
            if left < 0:
                raise _Refusal(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the trailer has at most {HEAD_LIMIT} bytes"
                )
        return bytes(body)

    def _line(self) -> bytes:
        while (end := self._data.find(b"\r\n")) < 0:
            if len(self._data) > _LINE_LIMIT:
                raise _Refusal(HTTPStatus.BAD_REQUEST, "the size of a chunk cannot be read")
            self._receive()
        line = bytes(self._data[:end])
        del self._data[: end + 2]
        return line

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            self._receive()
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken

    def _receive(self) -> None:
        """More of the request; _End if no more comes, TimeoutError if it is late."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        try:
            data = self._connection.recv(65536)
        except ConnectionResetError:
            raise _End from None
        if not data:
            raise _End
        self._data += data

    # -- answering ----------------------------------------------------------------------------------------------------

    def _send(self, answer: Answer, *, close: bool, without_body: bool = False) -> None:
        status = HTTPStatus(answer.status)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {CONTENT_TYPE}\r\n"
            f"Content-Length: {len(answer.body)}\r\n"
            + ("Allow: POST\r\n" if status is HTTPStatus.METHOD_NOT_ALLOWED else "")
            + ("Connection: close\r\n" if close else "")
            + "\r\n"
        ).encode()
        self._connection.settimeout(TIMEOUT)  # of the whole
        self._connection.sendall(head if without_body else head + answer.body)

    def _drain(self) -> None:
        """Read on for a moment: closed with data that nobody has read, the connection would look broken instead of refused."""
        until = time.monotonic() + _FAREWELL
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0:
                self._connection.settimeout(left)
                if not self._connection.recv(65536):
                    return


def _too_large() -> _Refusal:
    return _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {MAX_BODY} bytes")
