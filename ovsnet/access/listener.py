"""cheroot's server, made to tell who is at the other end, and to speak TLS without one client holding up the others.

Called by the composition root. What it adds to the WSGI environment is read by `ovsnet.access.guard`.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import struct
import threading
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from cheroot.server import HTTPConnection
from cheroot.ssl import Adapter
from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Gateway_10, Server

from ovsnet.errors import ConfigError
from ovsnet.patience import PatientServer
from ovsnet.precedence import Precedence

from .guard import GONE, PEER, SUBJECTS

LOG = logging.getLogger(__name__)

_SO_PEERGROUPS = 59  # socket(7); the value of Linux on all but parisc and sparc. Python does not name it
_MAX_GROUPS = 1024  # bytes, the most that Python reads

HANDSHAKE = 10.0  # seconds
_MAX_HEADERS = 64 << 10  # bytes; cheroot itself takes any number of them
_MAX_UNREAD = 64 << 10  # bytes of a body that nobody wanted; cheroot itself reads all of it before the answer
_READS = (b"GET ", b"HEAD ")
_HEAD_END = b"\r\n\r\n"
_KEPT_OPEN = 1024  # connections between two requests; cheroot itself keeps 10


class Gateway(Gateway_10):
    """Adds who is at the other end to the environment, and waits for no large body that was refused unread."""

    def start_response(self, *arguments: Any) -> Any:
        """Begin the answer; after a body that is still to come, and is long, the connection ends with it."""
        if getattr(self.req.rfile, "remaining", 0) > _MAX_UNREAD:
            self.req.close_connection = True
        return super().start_response(*arguments)

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]  # cheroot's types are wrong
        """The environment of one request."""
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        sock = self.req.conn.socket
        environ[GONE] = partial(gone, sock)
        if sock.family == socket.AF_UNIX:
            environ[PEER] = peer(sock)
        elif isinstance(sock, ssl.SSLSocket):
            environ["wsgi.url_scheme"] = "https"
            environ[SUBJECTS] = subjects(sock.getpeercert() or {})
        return environ


class Connection(HTTPConnection):
    """A connection whose TLS handshake is done by the thread that serves it."""

    def communicate(self) -> bool:
        """Serve one request; False if the connection is to be closed."""
        sock = self.socket
        if isinstance(sock, ssl.SSLSocket) and sock.version() is None:
            timeout = sock.gettimeout()
            sock.settimeout(HANDSHAKE)
            try:
                sock.do_handshake()
            except (OSError, ValueError):  # the other end's affair: it is told by an alert if it speaks TLS at all
                return False
            sock.settimeout(timeout)
        try:
            head = self.rfile.peek(1)
        except OSError:  # it has gone, or says nothing
            return False
        # Reading the request takes the interpreter as well, so that it is part of its turn. One that comes bit by bit has none,
        # lest the next ones wait for its sender.
        with self.server.precedence.read() if head.startswith(_READS) and _HEAD_END in head else nullcontext():
            return bool(super().communicate())  # type: ignore[no-untyped-call]


class Tls(Adapter):
    """TLS for cheroot, which would do the handshake in the thread that accepts: one silent client would stop it.

    `client_ca` (None: certificates are not asked for) vouches for clients; who has no certificate may send a token instead. Files
    that are replaced count from the next connection on, unless they are wrong: then the old ones do. ConfigError at the start.
    """

    def __init__(self, certificate: Path, private_key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = private_key
        self._ca = client_ca
        self._lock = threading.Lock()
        try:
            self._seen = self._stamp()
            self._context = self._load()
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            raise ConfigError(
                f"TLS cannot be spoken with {certificate}, {private_key} and {client_ca or 'no client CA'}: {exc}",
                hint="correct tls_certificate, tls_private_key and tls_client_ca: PEM files that ovsnetd can read",
            ) from None

    def bind(self, sock: socket.socket) -> socket.socket:
        """The listening socket, as it is."""
        return sock

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, Any]]:
        """A connection that has yet to shake hands."""
        return self._fresh().wrap_socket(sock, server_side=True, do_handshake_on_connect=False), {}

    def get_environ(self) -> dict[str, Any]:
        """Nothing: Gateway tells it once the handshake is done."""
        return {}

    makefile = BuiltinSSLAdapter.makefile

    def _fresh(self) -> ssl.SSLContext:
        with self._lock:
            try:
                stamp = self._stamp()
                if stamp != self._seen:
                    self._seen = stamp
                    self._context = self._load()
                    LOG.info("the files for TLS have changed and are read again")
            except (OSError, ValueError) as exc:
                LOG.error("the files for TLS have changed and are wrong, the old ones stay: %s", exc)
            return self._context

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        files = (self._certificate, self._key, *((self._ca,) if self._ca else ()))
        return tuple((found.st_mtime_ns, found.st_ino) for found in (one.stat() for one in files))

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate, self._key, password=_no_password)
        if self._ca is not None:
            context.load_verify_locations(self._ca)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context


def new_server(
    address: str | tuple[str, int],
    app: Any,
    *,
    threads: int,
    backlog: int,
    idle: int,
    precedence: Precedence | None = None,
) -> Server:
    """A server of ours for a WSGI app on a unix socket's path, or on a host and port; `precedence` says when reads are served."""
    server = PatientServer(
        address, app, numthreads=threads, request_queue_size=backlog, timeout=idle, peercreds_enabled=True
    )
    server.gateway = Gateway
    server.precedence = precedence or Precedence()
    server.ConnectionClass = Connection
    server.max_request_header_size = _MAX_HEADERS
    server.keep_alive_conn_limit = _KEPT_OPEN
    return server


def gone(sock: socket.socket) -> bool:
    """Whether the other end sends nothing any more (poll(2), POLLRDHUP): it has gone, if it waits for an answer at all."""
    poll = select.poll()
    try:
        poll.register(sock, select.POLLRDHUP)
        return bool(poll.poll(0))
    except (OSError, ValueError):  # closed by us
        return True


def peer(sock: socket.socket) -> tuple[int, frozenset[int]]:
    """User id and group ids of the process at the other end of a unix socket, as they were when it connected (unix(7))."""
    _, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    try:
        more = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUPS)
    except OSError:  # more groups than Python takes: it has those of its own group then
        more = b""
    return uid, frozenset({gid, *struct.unpack(f"{len(more) // 4}I", more)})


def subjects(certificate: dict[str, Any]) -> tuple[str, ...]:
    """What a verified certificate says its owner is: the common name, as CN=ci, and alternative names, as DNS:ci.example."""
    names = [f"CN={value}" for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return (*names, *(f"{kind}:{value}" for kind, value in certificate.get("subjectAltName", ())))


def _no_password() -> str:
    raise ValueError("the private key is encrypted")
