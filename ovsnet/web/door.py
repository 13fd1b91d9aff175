"""The door for an operator's browser: a server on the loopback that passes what it asks for to ovsnetd's unix socket.

ovsnetd takes it for whoever runs it, so it passes GETs of the pages only, and only to who has its key: other users of the host
reach the loopback as well. The name in `Host` counts, too: a page from elsewhere may have a browser ask here by its own.
The key comes in the URL that the operator opens, and is a cookie from then on. Called by the CLI.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from ovsnet.errors import Unavailable

LOOPBACK: Final = "127.0.0.1"
_NAMES: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})  # of the loopback; the port may be a tunnel's
_PAGES: Final = ("/ui/", "/docs/")  # with what is below
_EXACT: Final = frozenset({"/", "/docs", "/v1/events", "/openapi.json"})
_ASKED: Final = ("Accept", "Last-Event-ID")
_TOLD: Final = (
    "Content-Type",
    "Cache-Control",
    "Content-Security-Policy",
    "Cross-Origin-Opener-Policy",
    "Referrer-Policy",
    "X-Content-Type-Options",
)
_PATIENCE: Final = 30.0  # seconds for ovsnetd, which gives a sign of life every ten, and for the browser
_CHUNK: Final = 1 << 16
VISITORS: Final = (
    128  # connections at once, each with a thread; anybody on the host can make one, with or without the key
)


class Door(ThreadingHTTPServer):
    """Serves the ovsnetd at the socket `path` on a port of the loopback, on a free one for 0. Unavailable if it cannot be had."""

    daemon_threads = True

    def __init__(self, path: str, port: int) -> None:
        self.path = path
        self.key = secrets.token_urlsafe(32)
        self._places = threading.BoundedSemaphore(VISITORS)
        try:
            super().__init__((LOOPBACK, port), _Visit)
        except OSError as exc:
            raise Unavailable(f"port {port} cannot be listened on: {exc}", hint="choose another --port") from None

    @property
    def url(self) -> str:
        """What to open in the browser."""
        return f"http://{LOOPBACK}:{self.server_port}/?key={self.key}"

    @property
    def cookie(self) -> str:
        """Its name: cookies are shared by all ports of a host."""
        return f"ovsnet-{self.server_port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection by a thread of its own; one too many is closed at once."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """That thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is nothing to tell; anything else is."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Visit(BaseHTTPRequestHandler):
    """One request."""

    server: Door
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """Let in, or pass on."""
        address = urlsplit(self.path)
        if self.headers.get("Host", "").rpartition(":")[0] not in _NAMES and self.headers.get("Host") not in _NAMES:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "This is for browsers of this host: open it as 127.0.0.1.")
        elif self._is_key(parse_qs(address.query).get("key", [""])[0]):
            self.send_response(HTTPStatus.SEE_OTHER)
            self.send_header("Set-Cookie", f"{self.server.cookie}={self.server.key}; Path=/; HttpOnly; SameSite=Strict")
            self.send_header("Location", "/")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
        elif not self._is_key(self._cookie()):
            self._refuse(HTTPStatus.FORBIDDEN, "Open the address that `ovsnet web` has told: it has the key.")
        elif address.path not in _EXACT and not address.path.startswith(_PAGES):
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")
        else:
            self._pass_on(f"{address.path}?{address.query}")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: it would tell the key."""

    def _cookie(self) -> str:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            return ""
        return "" if found is None else found.value

    def _is_key(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="replace"), self.server.key.encode())

    def _pass_on(self, target: str) -> None:
        connection = HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        with closing(connection):
            try:
                connection.sock.settimeout(_PATIENCE)
                connection.sock.connect(self.server.path)
                asked = {name: self.headers[name] for name in _ASKED if name in self.headers}
                connection.request("GET", target, headers=asked)
                answer = connection.getresponse()
            except (OSError, HTTPException) as exc:
                self._refuse(HTTPStatus.BAD_GATEWAY, f"ovsnetd does not answer: {exc}. Traffic goes on without it.")
                return
            self.send_response(answer.status)
            for name in _TOLD:
                if (value := answer.getheader(name)) is not None:
                    self.send_header(name, value)
            self.end_headers()
            for chunk in _chunks(answer):
                self.wfile.write(chunk)

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(f"{text}\n".encode())


def _chunks(answer: Any) -> Iterator[bytes]:
    """The body as it comes; it ends where ovsnetd stops."""
    try:
        while chunk := answer.read1(_CHUNK):
            yield chunk
    except (OSError, HTTPException):
        return
