"""REST by TLS: certificates, tokens, and clients that say nothing. Real sockets, certificates by openssl."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from ovsnet.access import Guard, Role, Tokens
from ovsnet.access.listener import Tls, new_server
from ovsnet.api import create_app
from ovsnet.errors import ConfigError
from tests.fake_controller import FakeController

THREADS = 4


@dataclass
class Authority:
    """A certificate authority, and what it has signed: `name`.pem and `name`.key for each name."""

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Authority:
        directory.mkdir()
        made = cls(directory)
        made.openssl(
            "req", "-x509", *made.key("ca"), "-subj", "/CN=authority", "-days", "2", "-out", made.path("ca.pem")
        )
        return made

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def key(self, name: str) -> tuple[str, ...]:
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.path(f"{name}.key"))

    @staticmethod
    def openssl(*args: str) -> None:
        subprocess.run(("openssl", *args), check=True, capture_output=True, timeout=30)

    def sign(self, name: str, *, alternative: str = "IP:127.0.0.1") -> None:
        request, extension = self.path(f"{name}.csr"), self.directory / f"{name}.ext"
        extension.write_text(f"subjectAltName={alternative}\n")
        self.openssl("req", "-new", *self.key(name), "-subj", f"/CN={name}", "-out", request)
        by = ("-CA", self.path("ca.pem"), "-CAkey", self.path("ca.key"), "-CAcreateserial")
        how = ("-days", "2", "-extfile", str(extension))
        self.openssl("x509", "-req", "-in", request, *by, *how, "-out", self.path(f"{name}.pem"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority.make(tmp_path_factory.mktemp("tls") / "ours")
    for name in ("server", "other", "ci", "nobody"):
        made.sign(name)
    return made


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(None)


@dataclass
class Served:
    """An API that is served on the loopback."""

    port: int
    directory: Path

    def ask(
        self, ca: str, path: str = "/v1/pools", *, client: str = "", token: str = "", version: str = ""
    ) -> tuple[int, object]:
        """Status and body of a GET; `client` is the certificate's path without its suffix."""
        context = ssl.create_default_context(cafile=ca)
        if version:
            context.maximum_version = ssl.TLSVersion[version]
            context.minimum_version = ssl.TLSVersion[version]
        if client:
            context.load_cert_chain(f"{client}.pem", f"{client}.key")
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=20)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


@pytest.fixture
def served(tmp_path: Path, authority: Authority, tokens: Tokens) -> Iterator[Served]:
    for suffix in ("pem", "key"):
        shutil.copy(authority.path(f"server.{suffix}"), tmp_path / f"server.{suffix}")
    guard = Guard(tokens, certificate_roles={"CN=ci": Role.VIEWER})
    controller = FakeController()
    app = create_app(controller, controller, controller, version="9.9", guard=guard)
    server = new_server(("127.0.0.1", 0), app, threads=THREADS, backlog=64, idle=5)
    server.ssl_adapter = Tls(tmp_path / "server.pem", tmp_path / "server.key", Path(authority.path("ca.pem")))
    server.expiration_interval = 0.05
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield Served(server.bind_addr[1], tmp_path)
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


def test_certificates_and_tokens_and_neither(served: Served, authority: Authority, tokens: Tokens) -> None:
    ca = authority.path("ca.pem")
    assert served.ask(ca)[0] == 401
    assert served.ask(ca, "/healthz")[0] == 200
    assert served.ask(ca, client=authority.path("ci")) == (200, [])
    assert served.ask(ca, "/v1/tokens", client=authority.path("ci"))[0] == 403
    status, problem = served.ask(ca, client=authority.path("nobody"))
    assert status == 403
    assert isinstance(problem, dict)
    assert "CN=nobody" in problem["detail"]
    text = tokens.create("boss", Role.ADMIN, 60.0, "test")[1]
    status, listed = served.ask(ca, "/v1/tokens", token=text)
    assert status == 200
    assert isinstance(listed, list)
    assert served.ask(ca, "/v1/tokens", token=text, client=authority.path("ci"))[0] == 200  # the token counts
    assert served.ask(ca, token=text, version="TLSv1_2")[0] == 200


@pytest.mark.parametrize("size", [5 << 30, 10**20])
def test_nobody_waits_for_a_strangers_body(served: Served, authority: Authority, size: int) -> None:
    """Refused before it has come, it is neither waited for nor taken into memory."""
    context = ssl.create_default_context(cafile=authority.path("ca.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", served.port, context=context, timeout=20)
    with closing(connection):
        connection.putrequest("POST", "/v1/pools")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(size))
        connection.endheaders(b"{")
        response = connection.getresponse()
        assert (response.status, response.getheader("Connection")) == (401, "close")
        assert json.loads(response.read())["code"] == "unauthenticated"


def test_a_strangers_certificate_is_refused(served: Served, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority.make(tmp_path / "stranger")
    stranger.sign("ci")
    with pytest.raises(OSError):  # noqa: PT011  # by an alert, or by a reset before it is read
        served.ask(authority.path("ca.pem"), client=stranger.path("ci"))
    assert served.ask(authority.path("ca.pem"), client=authority.path("ci"))[0] == 200


def test_silent_and_talkative_strangers_hold_nobody_up(served: Served, authority: Authority) -> None:
    connections = [socket.create_connection(("127.0.0.1", served.port), timeout=20) for _ in range(THREADS - 1)]
    try:
        connections[0].sendall(b"GET /v1/pools HTTP/1.1\r\nHost: x\r\n\r\n")  # no TLS
        assert served.ask(authority.path("ca.pem"), client=authority.path("ci"))[0] == 200
        assert b"200 OK" not in connections[0].recv(4096)
    finally:
        for connection in connections:
            connection.close()


def test_a_certificate_that_is_replaced_counts(served: Served, authority: Authority) -> None:
    def shown() -> str:
        context = ssl.create_default_context(cafile=authority.path("ca.pem"))
        with (
            socket.create_connection(("127.0.0.1", served.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            certificate = connection.getpeercert() or {}
        return str(certificate["subject"])

    assert "server" in shown()
    for suffix in ("pem", "key"):
        shutil.copy(authority.path(f"other.{suffix}"), served.directory / f"server.{suffix}")
    assert "other" in shown()
    (served.directory / "server.pem").write_text("broken")
    assert "other" in shown()


def test_wrong_files_are_told_of_at_the_start(tmp_path: Path, authority: Authority) -> None:
    good = Path(authority.path("server.pem"))
    for certificate, key, ca in (
        (tmp_path / "absent.pem", Path(authority.path("server.key")), None),
        (good, Path(authority.path("other.key")), None),
        (good, Path(authority.path("server.key")), tmp_path / "absent.pem"),
    ):
        with pytest.raises(ConfigError, match="TLS cannot be spoken"):
            Tls(certificate, key, ca)
