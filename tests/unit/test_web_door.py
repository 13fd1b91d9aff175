"""The door to the page: whom it lets in, and what it passes on."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from ovsnet.errors import Unavailable
from ovsnet.web import door as door_module
from ovsnet.web.door import Door
from tests.harness import wait_until


class Answers(BaseHTTPRequestHandler):
    """In the place of ovsnetd: tells what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"path": self.path, "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Security-Policy", "default-src 'none'")
        self.send_header("Set-Cookie", "theirs=1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass


class Behind(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    path = str(tmp_path / "ovsnet.sock")
    with Behind(path, Answers) as behind, Door(path, 0) as door:
        threads = [threading.Thread(target=one.serve_forever, args=(0.01,)) for one in (behind, door)]
        for thread in threads:
            thread.start()
        yield door
        for one in (door, behind):
            one.shutdown()
        for thread in threads:
            thread.join(10)


def ask(door: Door, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection("127.0.0.1", door.server_port, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response, text


def cookie(door: Door) -> str:
    return f"{door.cookie}={door.key}"


def test_the_key_becomes_a_cookie(door: Door) -> None:
    response, _ = ask(door, door.url.partition(str(door.server_port))[2])
    assert response.status == 303
    assert response.headers["Location"] == "/"
    given = response.headers["Set-Cookie"]
    assert "HttpOnly" in given
    assert "SameSite=Strict" in given
    response, text = ask(door, "/ui/endpoints?network=a%20b", Cookie=given.partition(";")[0], Accept="text/html")
    assert response.status == 200
    asked = json.loads(text)
    assert asked["path"] == "/ui/endpoints?network=a%20b"
    assert asked["headers"]["Accept"] == "text/html"
    assert "Cookie" not in asked["headers"]
    assert response.headers["Content-Security-Policy"] == "default-src 'none'"
    assert "Set-Cookie" not in response.headers


def test_nobody_else_comes_in(door: Door) -> None:
    for path in ("/", "/?key=", "/?key=x", "/v1/events"):
        assert ask(door, path)[0].status == 403
    assert ask(door, "/", Cookie=f"{door.cookie}=x")[0].status == 403
    assert ask(door, "/", Cookie="\x7f;=,")[0].status == 403
    for host in ("evil.example", f"evil.example:{door.server_port}", ""):
        assert ask(door, "/", Cookie=cookie(door), Host=host)[0].status == 421
    for host in ("localhost", "localhost:1", "127.0.0.1:9"):  # a tunnel's end has another port
        assert ask(door, "/", Cookie=cookie(door), Host=host)[0].status == 200


def test_only_pages_are_passed_and_only_looked_at(door: Door) -> None:
    for path in ("/v1/tokens", "/v1/audit", "/cni", "/metrics", "/v1/events/x", "/docsx"):
        assert ask(door, path, Cookie=cookie(door))[0].status == 404, path
    for method in ("POST", "DELETE", "PATCH", "PUT"):
        assert ask(door, "/", method, Cookie=cookie(door))[0].status == 501


def test_ovsnetd_that_is_away_is_told(tmp_path: Path) -> None:
    with Door(str(tmp_path / "none.sock"), 0) as door:
        thread = threading.Thread(target=door.serve_forever, args=(0.01,))
        thread.start()
        try:
            response, text = ask(door, "/", Cookie=cookie(door))
        finally:
            door.shutdown()
            thread.join(10)
    assert response.status == 502
    assert "ovsnetd does not answer" in text


def test_a_port_that_is_taken_is_refused(door: Door) -> None:
    with pytest.raises(Unavailable, match=str(door.server_port)):
        Door(door.path, door.server_port)


def test_visitors_that_say_nothing_are_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(door_module, "VISITORS", 3)
    with Door(str(tmp_path / "absent"), 0) as narrow, ExitStack() as undo:
        thread = threading.Thread(target=narrow.serve_forever, args=(0.01,))
        thread.start()
        undo.callback(thread.join, 10)
        undo.callback(narrow.shutdown)
        silent = [undo.enter_context(socket.create_connection(("127.0.0.1", narrow.server_port), 10)) for _ in range(3)]
        with socket.create_connection(("127.0.0.1", narrow.server_port), 10) as late:
            assert late.recv(1) == b""
        silent[0].close()

        def served() -> bool:
            with suppress(OSError):  # closed at once, as long as the place is not free yet
                return ask(narrow, "/")[0].status == 403
            return False

        wait_until(served, "the next one is served")
