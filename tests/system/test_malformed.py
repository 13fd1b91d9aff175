"""Malformed, oversized and hostile requests on all three sockets: refused in the protocol's own form, and nothing is left behind.

OVSNET_EXAMPLES is the number of requests that have to be refused (1,000; the whole is 100,000). Each is a good one, spoiled: in a
value, in its bytes, or in its HTTP. The fuzz tests of each edge look deeper with fewer requests, and shrink what fails; this
makes up hundreds a second. OVSNET_SEED repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cni import wire
from tests.conftest import FaultRow
from tests.system.faulty import Faulty
from tests.system.test_cnm_fuzz import VALID as DOCKER

EXAMPLES = int(os.environ.get("OVSNET_EXAMPLES", "1000"))
SEED = int(os.environ.get("OVSNET_SEED", "0")) or secrets.randbits(32)
LIMIT = 1 << 20  # bytes of a body

pytestmark = [pytest.mark.faults, pytest.mark.timeout(max(120, EXAMPLES // 100))]

HTTP_ITSELF = (501, 505)  # RFC 9110, section 15.6: a coding or a version that is not spoken
NETNS = "/dev/null"  # never a good one, so that no container is attached
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1 << 31, 1 << 64, 1e308, float("nan"), [], {}, [[]], [None], {"": {}}),
    *(
        "",
        " ",
        "-rf",
        "--help",
        "../../etc/passwd",
        "/proc/1/ns/net",
        "a\0b",
        "\ud800",
        "\u202e",
        "x" * 5000,
        "0" * 5000,
    ),
    *("'; DROP TABLE possession; --", "$(reboot)", "`reboot`", "%s%n", "{{7*7}}", "<script>", "\r\nX: y"),
    *(
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/33",
        "999.1.1.1",
        "fe80::1%eth0",
        "224.0.0.1",
        "255.255.255.255/32",
        "10.0.0.1/24",
    ),
    *("9" * 400, "1e400", "٣", [1] * 3000),
)
# Verb, path and body of requests of REST; those that would change something only rehearse it.
REST: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
    (
        "POST",
        "/v1/pools?dry_run=1",
        {"name": "p", "subnet": "10.79.0.0/28", "ranges": ["10.79.0.4-10.79.0.8"], "labels": {"a": "b"}},
    ),
    ("PATCH", "/v1/pools/p?dry_run=1", {"ranges": ["10.79.0.4"], "draining": True, "subnet": "10.79.0.0/27"}),
    ("POST", "/v1/pools/p/reservations?dry_run=1", {"name": "n", "address": "10.79.0.5"}),
    (
        "POST",
        "/v1/networks?dry_run=1",
        {"name": "n", "subnets": ["10.79.0.0/28"], "vlan": 5, "mtu": 1400, "routed": True},
    ),
    (
        "POST",
        "/v1/endpoints",
        {"network": "n", "container": "c", "ifname": "eth0", "netns": NETNS, "addresses": ["10.79.0.5"]},
    ),
    ("PATCH", "/v1/endpoints/e?dry_run=1", {"quarantined": True}),
    ("POST", "/v1/trace", {"source": "10.79.0.5", "destination": "10.79.0.6", "protocol": "tcp", "port": 80}),
    ("POST", "/v1/captures/e", {"seconds": 1, "bytes": 1000, "filter": ""}),
    ("POST", "/v1/tokens", {"name": "t", "role": "nobody", "seconds": 60}),
    ("DELETE", "/v1/networks/n?dry_run=1&force=x", None),
    ("DELETE", "/v1/pools/p/leases?dry_run=1&address=x", None),
    ("GET", "/v1/pools?limit=0&cursor=x", None),
    ("GET", "/v1/endpoints?address=x", None),
    ("GET", "/v1/leases/history?address=x&at=y", None),
    ("GET", "/v1/events?after=x&limit=-1", None),
    ("GET", "/v1/audit?since=x", None),
)
CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "malformed",
    "type": "ovsnet",
    "vlan": 20,
    "mtu": 1400,
    "ipam": {"type": "ovsnet-ipam", "subnet": "10.85.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]},
    "runtimeConfig": {"mac": "02:00:00:00:00:01", "portMappings": [{"hostPort": 8, "containerPort": 80}]},
}
HEADERS = (
    *(
        b"Content-Length: 99999999999999999999",
        b"Content-Length: -1",
        b"Content-Length: x",
        b"Content-Length: " + b"9" * 5000,
    ),
    *(
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        b"Expect: 100-continue",
        b"X" * 70_000,
    ),
    *(
        b"Host: \xff\xfe",
        b": nothing",
        b"no colon",
        b"Content-Type: text/xml",
        b"Authorization: Bearer x",
        b"Authorization: " + b"\xff",
    ),
    *(b"Idempotency-Key: " + b"k" * 300, b'If-Match: "', b"X-Request-Id: \x1b[31m", b"Content-Encoding: gzip"),
)


class Line:
    """A connection that is kept as long as the other end does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sock: socket.socket | None = None

    def ask(self, raw: bytes, *, end: bool) -> tuple[int, str, bytes] | None:
        """Status, content type and body of the answer; None if it was closed without one. `end`: nothing more is sent."""
        for fresh in (False, True):
            if self._sock is None or fresh:
                self.close()
                self._sock = socket.socket(socket.AF_UNIX)
                self._sock.settimeout(20)
                self._sock.connect(str(self._path))
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before it was read
                self._sock.sendall(raw)
                if end:
                    self._sock.shutdown(socket.SHUT_WR)
            answer = self._answer(self._sock)
            if end or answer is None or b"connection: close" in answer[0].lower():
                self.close()
            if answer is not None:
                head, body = answer
                kind = head.lower().partition(b"content-type:")[2].partition(b"\r\n")[0].strip()
                return int(head[9:12]), kind.decode(), body
        return None

    def _answer(self, sock: socket.socket) -> tuple[bytes, bytes] | None:
        data = b""
        with suppress(ConnectionResetError):
            while True:
                head, found, body = data.partition(b"\r\n\r\n")
                if found and head.startswith(b"HTTP/1.1 100"):
                    data = body
                    continue
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                if found and len(body) >= int(length or 0):
                    return head, body
                if not (more := sock.recv(1 << 16)):
                    return None
                data += more
        return None

    def close(self) -> None:
        """Ends it."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


@dataclass
class Edge:
    """A socket: how a good request is made, and what an answer has to be that refuses one in good HTTP."""

    line: Line
    make: Callable[[], tuple[str, str, bytes]]
    check: Callable[[int, str, bytes], bool]


class Spoiler:
    """Makes good requests bad."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def choice(self, things: Any) -> Any:
        """One of them."""
        return self._random.choice(things)

    def value(self, good: Any) -> Any:
        """A copy of JSON with one thing changed, left out or added."""
        copy = json.loads(json.dumps(good))
        places: list[tuple[Any, Any]] = []

        def walk(node: Any) -> None:
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                places.append((node, key))
                if isinstance(node[key], dict | list):
                    walk(node[key])

        walk(copy)
        if not places or self._random.random() < 0.1:
            return self.choice(VALUES)
        node, key = self.choice(places)
        act = self._random.random()
        if act < 0.7:
            node[key] = self.choice(VALUES)
        elif act < 0.85:
            del node[key]
        elif isinstance(node, dict):
            node[str(self.choice(VALUES))[:200]] = self.choice(VALUES)
        return copy

    def data(self, good: bytes) -> bytes:
        """Bytes with some changed, cut off or put in."""
        data = bytearray(good)
        act = self._random.random()
        if act < 0.1:
            return b"[" * 5000
        if act < 0.4:
            return bytes(data[: self._random.randrange(len(data) + 1)])
        for _ in range(self._random.randrange(1, 5)):
            at = self._random.randrange(len(data) + 1)
            data[at : at + self._random.randrange(3)] = self._random.randbytes(self._random.randrange(4))
        return bytes(data)

    def request(self, verb: str, path: str, body: bytes) -> tuple[bytes, bool]:
        """A request on the wire, and whether its HTTP is good."""
        act = self._random.random()
        if act < 0.8:
            return _http(verb, path, body if act < 0.6 else self.data(body)), True
        if act < 0.802:
            return _http(verb, path, b'"' + b"x" * LIMIT + b'"'), False
        if act < 0.9:
            return _http(verb, path, body, self.choice(HEADERS)), False
        if act < 0.95:
            path = self.choice(
                (
                    path + "/../x",
                    "//" + path,
                    "/%2e%2e/" + path,
                    path + "%00",
                    "/" + "a" * 9000,
                    path + "?" + "a&" * 999,
                )
            )
            return _http(self.choice((verb, "BREW", "OPTIONS", "TRACE")), path, body), False
        return self.data(_http(verb, path, body)), False


def _http(verb: str, path: str, body: bytes, *headers: bytes) -> bytes:
    lines = [f"{verb} {path} HTTP/1.1".encode("utf-8", "replace"), b"Host: localhost", *headers]
    if not any(b"Content-Length" in one or b"Transfer" in one for one in headers):
        lines.append(b"Content-Length: %d" % len(body))
    if not any(b"Content-Type" in one for one in headers):
        lines.append(b"Content-Type: application/json")
    if verb == "PATCH":
        lines.append(b"If-Match: *")
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "replace")


def edges(faulty: Faulty, spoil: Spoiler) -> dict[str, Edge]:
    """The three sockets."""

    def rest() -> tuple[str, str, bytes]:
        verb, path, body = spoil.choice(REST)
        return verb, path, b"" if body is None else _json(spoil.value(body))

    def is_problem(status: int, kind: str, body: bytes) -> bool:
        return kind == "application/problem+json" and json.loads(body)["code"] != "internal" and 400 <= status < 500

    def cni() -> tuple[str, str, bytes]:
        variables = {
            "CNI_COMMAND": spoil.choice(("ADD", "CHECK", "DEL", "GC", "BREW")),
            "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": NETNS,
        }
        key = spoil.choice((*variables, "CNI_ARGS"))
        if isinstance(wrong := spoil.choice(VALUES), str):
            variables[key] = wrong.encode("utf-8", "replace").decode().replace("\0", "")
        return "POST", wire.PATH, wire.encode(variables, _json(spoil.value(CONFIG)))

    def is_cni_error(status: int, kind: str, body: bytes) -> bool:
        del kind
        told = {"code": status, "msg": "bad HTTP"} if status == 400 and not body else json.loads(body)
        return told["code"] not in (0, 999) and bool(told["msg"])

    def docker() -> tuple[str, str, bytes]:
        method = spoil.choice([*DOCKER])
        return "POST", f"/{method}", _json(spoil.value(DOCKER[method]))

    def is_docker_error(status: int, kind: str, body: bytes) -> bool:
        told = json.loads(body)
        return 400 <= status < 500 and told["Err"] == told["Error"] != "" and "plugins" in kind

    stack = faulty.stack
    return {
        "rest": Edge(Line(stack.socket), rest, is_problem),
        "cni": Edge(Line(stack.socket.with_name("cni.sock")), cni, is_cni_error),
        "docker": Edge(Line(stack.docker_socket), docker, is_docker_error),
    }


def test_what_is_malformed_is_refused(faulty: Faulty, fault_row: FaultRow) -> None:
    before, begin, pid = faulty.traces(), faulty.stack.log.stat().st_size, faulty.stack.pid
    spoil = Spoiler(SEED)
    open_to = edges(faulty, spoil)
    refused, wrong, started = Counter[str](), list[Any](), time.monotonic()
    try:
        while refused.total() < EXAMPLES:
            name = spoil.choice((*open_to, "cni", "docker"))  # REST takes longest
            edge = open_to[name]
            raw, good = spoil.request(*edge.make())
            answer = edge.line.ask(raw, end=not good)
            if answer is None:
                refused[f"{name}, closed"] += not good
                if good:
                    wrong.append((name, raw[:500], "no answer"))
            elif answer[0] >= 400:
                refused[name] += 1
                if not (edge.check(*answer) if good else answer[0] < 500 or answer[0] in HTTP_ITSELF):
                    wrong.append((name, raw[:500], answer))
            assert len(wrong) < 20, (SEED, wrong)
    finally:
        for edge in open_to.values():
            edge.line.close()
        seconds = time.monotonic() - started
        faulty.clear()
    left = faulty.left(before)
    log = faulty.stack.log.read_bytes()[begin:].decode(errors="replace")
    traceback = log.partition("Traceback")[2][:3000]
    fault_row(
        fault=f"malformed, oversized and hostile requests ({EXAMPLES / seconds:.0f}/s)",
        rounds=refused.total(),
        lost=len(wrong),
        leaked=len(left),
        gate="refused in the protocol's form; no traceback (lost: wrong answers)",
    )
    assert not wrong, (SEED, wrong)
    assert (left, faulty.stack.pid) == (set(), pid), SEED
    assert not traceback, f"seed {SEED}: {traceback}"
