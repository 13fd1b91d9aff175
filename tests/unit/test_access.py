"""Who may: every operation with every role, tokens, rates, and who a caller is."""

from __future__ import annotations

import grp
import json
import os
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from ovsnet.access import LEAST, OPEN, Guard, Rates, Role, Tokens, least_role
from ovsnet.access.guard import PEER, SUBJECTS
from ovsnet.access.listener import new_server
from ovsnet.access.tokens import MAX_TOKENS
from ovsnet.api import create_app
from ovsnet.api.document import ROLE
from ovsnet.errors import AlreadyExists, Exhausted, Forbidden, InvalidRequest, NotFound, Unauthenticated
from tests.fake_controller import FakeController, as_root

HOUR = 3600.0
DOC = Path(__file__).parents[2] / "docs" / "api.md"


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def app(guard: Guard | None = None, rates: Rates | None = None) -> Any:
    controller = FakeController()
    return create_app(controller, controller, controller, version="9.9", guard=guard, rates=rates)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


# -- every operation, every role --------------------------------------------------------------------------------------

DOCUMENT = as_root(app()).get("/openapi.json").get_json()
OPERATIONS = [
    (method, path, operation.get(ROLE))
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
]


@pytest.fixture(scope="module")
def everybody() -> tuple[FlaskClient, dict[Role, str]]:
    """A client that is nobody yet, and a token of each role."""
    tokens = Tokens(None)
    return app(Guard(tokens)).test_client(), {role: tokens.create(role, role, HOUR, "test")[1] for role in Role}


@pytest.mark.parametrize(("method", "path", "least"), OPERATIONS, ids=[f"{one[0]} {one[1]}" for one in OPERATIONS])
def test_every_operation_takes_its_role_and_those_above(
    everybody: tuple[FlaskClient, dict[Role, str]], method: str, path: str, least: str | None
) -> None:
    client, texts = everybody
    target = path.replace("{ref}", "none").replace("{uuid}", "none").replace("{id}", "none")
    anonymous = client.open(target, method=method, json={})
    assert (anonymous.status_code == 401) == (least is not None)
    if anonymous.status_code == 401:
        assert anonymous.get_json()["code"] == "unauthenticated"
        assert anonymous.headers["WWW-Authenticate"] == "Bearer"
    order = [*Role]
    for role in Role:
        status = client.open(target, method=method, json={}, headers=bearer(texts[role])).status_code
        may = least is None or order.index(role) >= order.index(Role(least))
        assert (status == 403) == (not may), f"{role}: {status}"
        assert status not in (401, 500)


def test_the_policy_has_every_operation_and_no_other() -> None:
    served = {
        f"{method} {rule.rule}"
        for rule in app().url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert served <= set(LEAST) | OPEN
    assert set(LEAST) - {"POST /cni", "POST /cni/ipam"} <= served
    assert not set(LEAST) & OPEN


def test_what_nobody_thought_of_is_the_admins() -> None:
    assert least_role("POST", "/v1/of-tomorrow") is Role.ADMIN
    assert least_role("HEAD", "/v1/pools") is Role.VIEWER


def test_the_documentation_has_every_role() -> None:
    text = DOC.read_text(encoding="utf-8")
    for role in Role:
        assert f"| `{role}` |" in text


# -- who a caller is --------------------------------------------------------------------------------------------------


def test_peers_of_the_unix_socket() -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    guard = Guard(group_roles={group: Role.VIEWER, "no-such-group-here": Role.ADMIN})
    root = guard.caller({PEER: (0, frozenset({0}))})
    assert (root.name, root.role, root.unlimited) == ("uid:0", Role.ADMIN, True)
    member = guard.caller({PEER: (1000, frozenset({77, os.getgid()}))})
    assert (member.name, member.role, member.unlimited) == ("uid:1000", Role.VIEWER, False)
    with pytest.raises(Forbidden, match="user 1000 has no role"):
        guard.caller({PEER: (1000, frozenset({77}))})


def test_subjects_of_certificates() -> None:
    guard = Guard(certificate_roles={"CN=ci": Role.VIEWER, "DNS:ci.example": Role.OPERATOR})
    assert guard.caller({SUBJECTS: ("CN=ci",)}).role is Role.VIEWER
    both = guard.caller({SUBJECTS: ("CN=ci", "DNS:ci.example")})
    assert (both.name, both.role) == ("cert:DNS:ci.example", Role.OPERATOR)
    with pytest.raises(Forbidden, match="CN=other has no role"):
        guard.caller({SUBJECTS: ("CN=other",)})
    with pytest.raises(Unauthenticated):
        guard.caller({})


def test_headers_do_not_make_a_peer() -> None:
    client = app().test_client()
    headers = {"Ovsnet-Peer": "(0, frozenset({0}))", "X-Remote-Uid": "0", "Ovsnet.Subjects": "CN=ci"}
    assert client.get("/v1/pools", headers=headers).status_code == 401


def test_a_wrong_token_is_refused_even_from_root() -> None:
    client = as_root(app())
    for header in ("Bearer", "Bearer ", "Bearer ovsnet_00000000_x", "Basic cm9vdDo=", "\xff"):
        assert client.get("/v1/pools", headers={"Authorization": header}).status_code == 401
        assert client.get("/healthz", headers={"Authorization": header}).status_code == 401


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    guard = Guard(Tokens(file))
    client = as_root(app(guard))
    made = client.post("/v1/tokens", json={"name": "ci", "role": "operator", "seconds": 60})
    assert made.status_code == 201
    text, token = made.get_json()["text"], made.get_json()["token"]
    assert made.headers["Cache-Control"] == "no-store"
    assert (token["name"], token["role"], token["by"]) == ("ci", "operator", "uid:0")
    assert datetime.fromisoformat(token["expires"]) > datetime.now(UTC)
    assert client.get("/v1/tokens").get_json() == [token]
    assert text not in client.get("/v1/tokens").get_data(as_text=True)
    assert text.split("_", 2)[2] not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    other = app(guard).test_client()
    assert other.get("/v1/pools", headers=bearer(text)).status_code == 200
    assert other.get("/v1/pools", headers=bearer(text[:-1] + ("A" if text[-1] != "A" else "B"))).status_code == 401
    again = Guard(Tokens(file))  # ovsnetd started again
    assert again.caller({"HTTP_AUTHORIZATION": f"Bearer {text}"}).name == "token:ci"
    assert client.delete("/v1/tokens/ci").status_code == 204
    assert other.get("/v1/pools", headers=bearer(text)).status_code == 401
    assert client.delete("/v1/tokens/ci").status_code == 404
    assert Tokens(file).all() == []


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"name": "a"}, "role"),
        ({"name": "a", "role": "root"}, "role"),
        ({"name": "a", "role": "viewer", "seconds": 0}, "seconds"),
        ({"name": "a", "role": "viewer", "seconds": 10**12}, "seconds"),
        ({"name": "a b", "role": "viewer"}, "name"),
    ],
)
def test_refused_tokens(body: dict[str, Any], key: str) -> None:
    response = as_root(app()).post("/v1/tokens", json=body)
    assert response.status_code == 400
    assert key in response.get_json(force=True)["details"]


def test_tokens_end_by_themselves() -> None:
    clock = Clock()
    tokens = Tokens(None, clock=clock)
    token, text = tokens.create("a", Role.VIEWER, 60.0, "uid:0")
    with pytest.raises(AlreadyExists):
        tokens.create("a", Role.ADMIN, 60.0, "uid:0")
    assert tokens.caller(text) is not None
    clock.now = token.expires
    assert tokens.caller(text) is None
    assert tokens.all() == []
    with pytest.raises(NotFound):
        tokens.revoke("a")
    tokens.create("a", Role.VIEWER, 60.0, "uid:0")


def test_there_is_an_end_to_tokens() -> None:
    tokens = Tokens(None)
    for number in range(MAX_TOKENS):
        tokens.create(f"t{number}", Role.VIEWER, HOUR, "uid:0")
    with pytest.raises(Exhausted):
        tokens.create("one-more", Role.VIEWER, HOUR, "uid:0")


@pytest.mark.parametrize("content", ["{", "[1]", '[{"id": "x"}]', "null", "\xff"])
def test_a_broken_file_lets_nobody_in_and_is_set_aside(tmp_path: Path, content: str) -> None:
    file = tmp_path / "tokens.json"
    file.write_bytes(content.encode("latin-1"))
    assert Tokens(file).all() == []
    assert (tmp_path / "tokens.json.broken").read_bytes() == content.encode("latin-1")


def test_a_role_that_this_version_does_not_know_is_worth_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    _, text = Tokens(file).create("a", Role.VIEWER, HOUR, "uid:0")
    file.write_text(json.dumps([one | {"role": "emperor"} for one in json.loads(file.read_text())]))
    assert Tokens(file).caller(text) is None


def test_roles_by_name() -> None:
    assert Role.parse("node") is Role.NODE
    with pytest.raises(InvalidRequest) as caught:
        Role.parse("root")
    assert "viewer" in caught.value.hint


# -- rates ------------------------------------------------------------------------------------------------------------


def test_a_bucket_fills_with_time() -> None:
    clock = Clock()
    rates = Rates(8.0, 3.0, clock=clock)  # an eighth has no rounding
    assert [rates.take("a") for _ in range(3)] == [0.0] * 3
    assert rates.take("a") == 0.125
    assert rates.take("b") == 0.0
    clock.now += 0.125
    assert rates.take("a") == 0.0
    assert rates.take("a") > 0
    clock.now += 100.0
    assert [bool(rates.take("a")) for _ in range(4)] == [False, False, False, True]


def test_no_rate_is_no_limit() -> None:
    rates = Rates(0)
    assert not any(rates.take("a") for _ in range(10_000))


def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    clock = Clock()
    tokens = Tokens(None)
    served = app(Guard(tokens), Rates(1.0, 2.0, clock=clock))
    client, headers = served.test_client(), bearer(tokens.create("ci", Role.VIEWER, HOUR, "uid:0")[1])
    assert [client.get("/v1/pools", headers=headers).status_code for _ in range(3)] == [200, 200, 429]
    refused = client.get("/v1/pools", headers=headers)
    assert refused.get_json()["code"] == "too-many-requests"
    assert refused.headers["Retry-After"] == "1"
    assert as_root(served).get("/v1/pools").status_code == 200
    assert [client.get("/v1/pools").status_code for _ in range(3)] == [401, 401, 429]  # by address
    clock.now += 1.0
    assert client.get("/v1/pools", headers=headers).status_code == 200
    assert [as_root(served).get("/v1/pools").status_code for _ in range(9)] == [200] * 9


def test_the_web_server_complains_in_our_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_environ: object, _start_response: object) -> list[bytes]:
        raise RuntimeError

    server = new_server(str(tmp_path / "sock"), broken, threads=1, backlog=1, idle=5)
    server.expiration_interval = 0.05
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(10)
            link.connect(str(tmp_path / "sock"))
            link.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert link.recv(100).startswith(b"HTTP/1.1 500")
    finally:
        server.stop()
        thread.join(10)
    (told,) = (one for one in caplog.records if "RuntimeError" in one.getMessage())
    assert told.exc_info is not None
