"""The REST API of a real ovsnetd: rehearsals, removal with endpoints, roles on the socket and by TLS, the audit log."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Netns, Ovs, Stack, wait_until

MEMBERS = 64123  # a group id that nobody has


def ask(
    stack: Stack, method: str, path: str, body: Any = None, *headers: str, of: tuple[str, ...] = ()
) -> tuple[int, Any]:
    """Status and decoded body of an answer, by curl on the host; `of` says by which way, default the socket."""
    argv = ["curl", "-sS", "-X", method, "-w", "\n%{http_code}", "--max-time", "60"]
    argv += of or ("--unix-socket", str(stack.socket))
    for header in headers:
        argv += ["-H", header]
    if body is not None:
        argv += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    base = "" if path.startswith("http") else "http://localhost"
    text, _, status = stack.host.run(*argv, base + path).stdout.rpartition("\n")
    return int(status), json.loads(text) if text else None


def state(stack: Stack) -> list[Any]:
    return [ask(stack, "GET", f"/v1/{what}")[1] for what in ("pools", "networks", "endpoints")]


@pytest.fixture
def blue(stack: Stack, nothing_left: None) -> Iterator[str]:
    del nothing_left
    stack.cli("network", "create", "blue", "--subnet", "10.66.0.0/24", "--subnet", "fd00:66::/64")
    yield "blue"
    stack.cli("network", "rm", "--force", "blue", check=False)


def test_a_rehearsal_tells_what_the_act_does_and_changes_nothing(stack: Stack, blue: str) -> None:
    pool = {"name": "spare", "subnet": "10.67.0.0/24", "exclusions": ["10.67.0.9"]}
    network = {"name": "red", "subnets": ["10.68.0.0/24", "fd00:68::/64"]}
    before: list[Any] = state(stack)
    bridges = stack.ovs.vsctl("list-br")
    bodies: dict[str, dict[str, Any]] = {"pools": pool, "networks": network}
    for path, body in bodies.items():
        status, planned = ask(stack, "POST", f"/v1/{path}?dry_run=1", body)
        assert (status, planned["id"]) == (200, "")
        assert (state(stack), stack.ovs.vsctl("list-br")) == (before, bridges)
        status, made = ask(stack, "POST", f"/v1/{path}", body)
        assert status == 201
        assert planned == made | {"id": ""}
        before = state(stack)
    change = {"subnet": "10.66.0.0/23", "draining": True}
    status, planned = ask(stack, "PATCH", f"/v1/pools/{blue}?dry_run=1", change, "If-Match: *")
    assert (status, planned["subnet"], planned["draining"], planned["networks"]) == (200, "10.66.0.0/23", True, [blue])
    status, kept = ask(stack, "POST", "/v1/pools/spare/reservations?dry_run=1", {"name": "web"})
    assert (status, kept["name"]) == (200, "web")
    for target in ("networks/red", "pools/spare", "networks/blue?force=1"):
        joint = "&" if "?" in target else "?"
        assert ask(stack, "DELETE", f"/v1/{target}{joint}dry_run=1") == (204, None)
    refusals: tuple[tuple[str, str, Any, str | None], ...] = (
        ("POST", "/v1/pools", {"name": "x", "subnet": "10.67.0.128/25"}, "pool-overlap"),
        ("POST", "/v1/pools", pool | {"exclusions": []}, "already-exists"),
        ("POST", "/v1/networks", {"name": "x", "vlan": before[1][0]["vlan"]}, "tag-in-use"),
        ("PATCH", f"/v1/pools/{blue}", {"exclusions": ["10.66.0.1"]}, None),
        ("DELETE", f"/v1/pools/{blue}", None, "in-use"),
        ("DELETE", "/v1/pools/spare/reservations?name=nobody", None, "not-found"),
    )
    for method, path, sent, code in refusals:
        joint = "&" if "?" in path else "?"
        rehearsed = ask(stack, method, f"{path}{joint}dry_run=1", sent, "If-Match: *")
        assert state(stack) == before
        if code is not None:
            assert rehearsed[1]["code"] == code
    stack.cli("network", "rm", "red")
    stack.cli("pool", "rm", "spare")


def test_a_network_goes_with_its_endpoints(
    stack: Stack, blue: str, netns: Callable[[], Netns], no_leftovers: Callable[[], None]
) -> None:
    containers = [netns() for _ in range(3)]
    for one in containers:
        stack.cli("endpoint", "create", "--network", blue, "--container", one.name, "--netns", one.path)
    assert stack.cli("network", "rm", blue, check=False).returncode == 4
    stack.cli("network", "rm", "--force", blue)
    assert all(len(one.ip("link")) == 1 for one in containers)
    assert stack.cli("network", "rm", "--force", blue, check=False).returncode == 3
    no_leftovers()
    changes = json.loads(stack.cli("audit", "--limit", "10", "-o", "json").stdout)
    latest = next(one for one in changes if one["operation"] == "delete_network")
    assert (latest["caller"], latest["status"], latest["before"]["name"]) == ("uid:0", 202, blue)


def test_nothing_passes_in_quarantine(stack: Stack, blue: str, netns: Callable[[], Netns]) -> None:
    one, two = netns(), netns()
    made = []
    for each in (one, two):
        attach = ("--network", blue, "--container", each.name, "--netns", str(each.path))
        made.append(stack.show("endpoint", "create", *attach))
    first, second = ([address.partition("/")[0] for address in endpoint["addresses"]] for endpoint in made)
    ways = [(two, first[0]), (one, second[1]), (one, "10.66.0.1")]

    def passing() -> list[bool]:
        return [where.pings(target, wait=1) for where, target in ways]

    wait_until(lambda: all(passing()), "traffic", 20)
    before = one.ip("-6", "address", "show", "dev", "eth0")
    ident = made[0]["id"]
    stack.cli("endpoint", "quarantine", ident)
    assert not any(passing())
    again = ("--network", blue, "--container", one.name, "--netns", str(one.path))
    assert stack.show("endpoint", "create", *again)["quarantined"]  # the same attach again does not let it out
    stack.restart()
    stack.wait_ready()
    assert not any(passing())
    stack.cli("endpoint", "quarantine", "--off", ident)
    wait_until(lambda: all(passing()), "traffic again", 20)
    assert one.ip("-6", "address", "show", "dev", "eth0")[0]["addr_info"] == before[0]["addr_info"]
    labels = {"ovsnet.quarantined": "1"}
    body = {"network": blue, "container": "c9", "ifname": "eth0", "netns": str(one.path), "labels": labels}
    assert ask(stack, "POST", "/v1/endpoints", body)[1]["code"] == "invalid-request"


def test_a_network_without_addresses(stack: Stack, nothing_left: None, netns: Callable[[], Netns]) -> None:
    """Its endpoints have MACs, whose use anti-spoofing allows them, and what addresses their owners like."""
    del nothing_left
    stack.cli("network", "create", "bare")
    try:
        one, two = netns(), netns()
        for number, each in enumerate((one, two), 1):
            attach = ("--network", "bare", "--container", each.name, "--netns", str(each.path))
            made = stack.show("endpoint", "create", *attach)
            assert made["addresses"] == []
            assert made["mac"] == each.ip("link", "show", "dev", "eth0")[0]["address"]
            each.ip("address", "add", f"192.0.2.{number}/24", "dev", "eth0")
        wait_until(lambda: one.pings("192.0.2.2"), "traffic", 20)
    finally:
        stack.cli("network", "rm", "--force", "bare")


@pytest.fixture(scope="module")
def guarded(host: Netns, _ovs: Ovs, token: str) -> Iterator[Stack]:
    """An ovsnetd that is served by TLS, too, with roles for groups and certificates; its socket lies where all may look."""
    directory = Path(tempfile.mkdtemp(prefix=f"ovsnet-{token}-"))
    directory.chmod(0o755)
    files = directory / "guarded-tls"
    files.mkdir()
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    names = ("-addext", "subjectAltName=IP:127.0.0.1,IP:::1")
    for name, subject in (("server", "/CN=host"), ("client", "/CN=ci")):
        out = ("-keyout", str(files / f"{name}.key"), "-out", str(files / f"{name}.pem"))
        make = ("openssl", "req", "-x509", *key, *names, "-subj", subject, *out)
        subprocess.run(make, check=True, capture_output=True, timeout=30)
    settings = {
        "listen": ["127.0.0.1:7643", "[::1]:7643"],  # of a namespace of our own
        "tls_certificate": str(files / "server.pem"),
        "tls_private_key": str(files / "server.key"),
        "tls_client_ca": str(files / "client.pem"),
        "certificate_roles": ["CN=ci=viewer"],
        "group_roles": ["nogroup=viewer", "daemon=operator"],
        "rate_limit": 50,
    }
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, directory)
        stack = Stack(host, _ovs, f"{token[:3]}g", directory / "guarded", **settings)
        undo.callback(stack.close)
        stack.start()
        yield stack


def test_roles_by_tls(guarded: Stack) -> None:
    files = Path(guarded.settings["tls_certificate"]).parent
    tls = ("--cacert", str(files / "server.pem"))
    show = ("--cert", str(files / "client.pem"), "--key", str(files / "client.key"))
    for base in ("https://127.0.0.1:7643", "https://[::1]:7643"):
        assert ask(guarded, "GET", f"{base}/v1/pools", of=tls)[1]["code"] == "unauthenticated"
        assert ask(guarded, "GET", f"{base}/healthz", of=tls)[0] == 200
        assert ask(guarded, "GET", f"{base}/v1/pools", of=(*tls, *show)) == (200, [])
        assert ask(guarded, "POST", f"{base}/v1/pools", {}, of=(*tls, *show))[1]["code"] == "forbidden"
    base = "https://127.0.0.1:7643"
    text = guarded.cli("token", "create", "deploy", "--role", "operator", "--expires", "5m").stdout.strip()
    bearer = f"Authorization: Bearer {text}"
    assert ask(guarded, "POST", f"{base}/v1/pools", {"name": "p", "subnet": "10.69.0.0/24"}, bearer, of=tls)[0] == 201
    assert ask(guarded, "POST", f"{base}/cni", {}, bearer, of=tls)[1]["code"] == "forbidden"
    guarded.restart()
    guarded.wait_ready()
    assert ask(guarded, "DELETE", f"{base}/v1/pools/p", None, bearer, of=tls)[0] == 204
    guarded.cli("token", "revoke", "deploy")
    assert ask(guarded, "GET", f"{base}/v1/pools", None, bearer, of=tls)[0] == 401
    audit = json.loads(guarded.cli("audit", "--caller", "token:deploy", "-o", "json").stdout)
    assert [one["operation"] for one in audit] == ["delete_pool", "create_pool"]
    assert text.split("_", 2)[2] not in guarded.log.read_text() + (guarded.state_dir / "tokens.json").read_text()


def test_the_page_by_tls(guarded: Stack) -> None:
    """What a browser with a client certificate loads, and what one without it is told."""
    files = Path(guarded.settings["tls_certificate"]).parent
    base = "https://127.0.0.1:7643"

    def load(path: str, *who: str) -> tuple[int, str, str]:
        """Status, content type and text."""
        form = ("-o", "-", "-w", "\n%{http_code} %{content_type}", "--max-time", "20", "--cacert", files / "server.pem")
        text, _, told = guarded.host.run("curl", "-sS", *form, *who, f"{base}{path}").stdout.rpartition("\n")
        status, _, content = told.partition(" ")
        return int(status), content.partition(";")[0], text

    show = ("--cert", str(files / "client.pem"), "--key", str(files / "client.key"))
    for path in ("/", "/ui/endpoints", "/ui/events", "/ui/search?q=blue"):
        status, content, text = load(path, *show)
        assert (status, content) == (200, "text/html"), text
        assert guarded.prefix in text or path != "/"  # the node's name
    loaded = re.findall(r'(?:src|href)="(/ui/static/[^"]+)"', load("/", *show)[2])
    assert len(loaded) >= 4
    for path in ("/ui/topology.json", *loaded):
        assert load(path, *show)[0] == 200, path
    following = ("-N", "-H", "Accept: text/event-stream", "--max-time", "1")
    stream = guarded.host.run(
        "curl", "-sS", "--cacert", files / "server.pem", *show, *following, f"{base}/v1/events", check=False
    )
    assert stream.stdout.startswith("retry:"), stream
    status, content, text = load("/")
    assert (status, content) == (401, "text/html")
    assert "certificate" in text
    secret = guarded.cli("token", "create", "page", "--role", "viewer", "--expires", "5m").stdout.strip()
    assert load("/", "-H", f"Authorization: Bearer {secret}")[0] == 200


def test_roles_on_the_socket(guarded: Stack) -> None:
    def status(*ids: str, method: str = "GET") -> int:
        way = (
            "setpriv",
            *ids,
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--max-time",
            "20",
            "-X",
            method,
        )
        url = "http://localhost/v1/pools"
        content = ("-H", "Content-Type: application/json", "-d", "{}") if method == "POST" else ()
        return int(guarded.host.run(*way, *content, "--unix-socket", guarded.socket, url).stdout)

    nobody = ("--reuid", "65534", "--regid", str(MEMBERS))
    assert status(*nobody, "--clear-groups") == 403
    assert status(*nobody, "--groups", "65534") == 200  # nogroup, a viewer
    assert status(*nobody, "--groups", "65534", method="POST") == 403
    assert status(*nobody, "--groups", "65534,1", method="POST") == 400  # daemon, an operator; the body is wrong
    assert status("--reuid", "65534", "--regid", "1", "--clear-groups", method="POST") == 400
