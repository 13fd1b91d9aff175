"""REST: lists in pages, changes for a state, once, or not at all, long work, and the audit log. On a controller in memory."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from ovsnet.access import Guard, Role, Tokens
from ovsnet.api import changes, create_app
from ovsnet.api.changes import Answers
from ovsnet.audit import MAX_BYTES, Audit, Change
from ovsnet.errors import Unavailable
from ovsnet.jobs import MAX_WAITING, Jobs, Progress
from ovsnet.journal import Journal
from tests.fake_controller import FakeController, as_root
from tests.harness import wait_until

Json = dict[str, Any]


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = Jobs()
    yield made
    made.stop()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.db", 1.0)
    made.start(lambda _: None)
    yield made
    made.stop()


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(None)


@pytest.fixture
def app(controller: FakeController, jobs: Jobs, journal: Journal, tokens: Tokens) -> Flask:
    return create_app(
        controller, controller, controller, version="9.9", guard=Guard(tokens), work=jobs, audit=Audit(journal)
    )


@pytest.fixture
def api(app: Flask) -> FlaskClient:
    return as_root(app)


def code(response: Any) -> str:
    return str(response.get_json(force=True)["code"])


# -- pages ------------------------------------------------------------------------------------------------------------


def walk(api: FlaskClient, path: str) -> list[list[Json]]:
    """The pages of a list, by their links."""
    pages = []
    target: str | None = path
    while target is not None:
        response = api.get(target)
        assert response.status_code == 200
        pages.append(response.get_json())
        found = response.headers.get("Link")
        target = None if found is None else found.partition("<")[2].partition(">")[0]
        assert found is None or found.endswith('; rel="next"')
    return pages


def attach(api: FlaskClient, network: str, container: str) -> Json:
    body = {"network": network, "container": container, "ifname": "eth0", "netns": "/run/netns/x"}
    made: Json = api.post("/v1/endpoints", json=body).get_json()
    return made


def test_pages_have_everything_once(api: FlaskClient) -> None:
    for number in range(7):
        api.post("/v1/networks", json={"name": f"n{number}", "subnets": [f"10.{number}.0.0/24"]})
        attach(api, f"n{number % 2}", f"c{number}")
    for what, count in (("networks", 7), ("pools", 7), ("endpoints", 7), ("pools/n0-4/leases", 4)):
        whole = api.get(f"/v1/{what}").get_json()
        assert len(whole) == count
        pages = walk(api, f"/v1/{what}?limit=3")
        assert [len(one) for one in pages] == [3] * (count // 3) + ([count % 3] if count % 3 else [])
        listed = [one for page in pages for one in page]
        assert sorted(map(str, listed)) == sorted(map(str, whole))
    assert len(walk(api, "/v1/endpoints?limit=2&network=n0")) == 2


def test_a_page_is_not_moved_by_what_comes_and_goes(api: FlaskClient) -> None:
    for name in "bdf":
        api.post("/v1/networks", json={"name": name})
    first = api.get("/v1/networks?limit=2")
    assert [one["name"] for one in first.get_json()] == ["b", "d"]
    api.delete("/v1/networks/d")
    for name in "ae":
        api.post("/v1/networks", json={"name": name})
    target = first.headers["Link"].partition("<")[2].partition(">")[0]
    assert [one["name"] for one in api.get(target).get_json()] == ["e", "f"]


@pytest.mark.parametrize(
    "cursor",
    ["", "!", "é", "YQ", base64.urlsafe_b64encode(b'{"a": 1}').decode(), base64.urlsafe_b64encode(b"[1]").decode()],
)
def test_refused_cursors(api: FlaskClient, cursor: str) -> None:
    api.post("/v1/networks", json={"name": "a"})
    response = api.get("/v1/networks", query_string={"cursor": cursor, "limit": 1})
    assert (response.status_code, code(response)) == (400, "invalid-request")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "origin=podman", "address=10", "colour=blue"])
def test_refused_queries(api: FlaskClient, query: str) -> None:
    key = query.partition("=")[0]
    for what in ("pools", "endpoints"):
        response = api.get(f"/v1/{what}?{query}")
        assert response.status_code == 400
        assert key in response.get_json(force=True)["details"]


def test_filters(api: FlaskClient) -> None:
    api.post("/v1/networks", json={"name": "a", "subnets": ["10.1.0.0/24", "fd00:1::/64"]})
    api.post("/v1/networks", json={"name": "b", "subnets": ["10.2.0.0/24"]})
    one, two = attach(api, "a", "c1"), attach(api, "b", "c2")

    def found(what: str, **query: str) -> list[str]:
        return [
            each["name" if "name" in each else "id"] for each in api.get(f"/v1/{what}", query_string=query).get_json()
        ]

    address = two["addresses"][0].partition("/")[0]
    assert found("endpoints", network="b") == found("endpoints", container="c2") == [two["id"]]
    assert found("endpoints", address=address) == found("endpoints", pool="b-4") == [two["id"]]
    assert found("endpoints", node="n1", origin="api") == [one["id"], two["id"]]
    assert found("endpoints", node="n2") == found("endpoints", origin="docker") == []
    assert found("endpoints", network="a", container="c2") == []
    assert found("networks", pool="b-4") == found("networks", container="c2") == ["b"]
    assert found("networks", origin="cni") == []
    assert found("pools", network="a") == ["a-4", "a-6"]
    assert found("pools", address="10.2.0.77") == ["b-4"]
    assert found("pools", origin="docker") == []
    leases = api.get("/v1/pools/a-4/leases?container=c1&node=n1").get_json()
    assert [each["address"] for each in leases] == [one["addresses"][0].partition("/")[0]]
    assert api.get("/v1/pools/a-4/leases?container=c2").get_json() == []
    assert api.get(f"/v1/pools/a-4/leases?address={leases[0]['address']}").get_json() == leases
    assert code(api.get("/v1/endpoints?pool=none")) == "pool-not-found"


def test_an_endpoint_is_rendered_again_when_its_network_is_another(api: FlaskClient) -> None:
    api.post("/v1/networks", json={"name": "a", "vlan": 5})
    attach(api, "a", "c1")
    assert api.get("/v1/endpoints").get_json()[0]["vlan"] == 5
    attach(api, "a", "c2")
    assert len(api.get("/v1/endpoints").get_json()) == 2


# -- for a state ------------------------------------------------------------------------------------------------------


def test_a_change_is_for_the_state_that_was_read(api: FlaskClient) -> None:
    made = api.post("/v1/pools", json={"name": "a", "subnet": "10.1.0.0/24"})
    read = api.get("/v1/pools/a")
    assert read.headers["ETag"] == made.headers["ETag"]
    missing = api.patch("/v1/pools/a", json={"draining": True})
    assert (missing.status_code, code(missing)) == (428, "precondition-missing")
    first = api.patch("/v1/pools/a", json={"draining": True}, headers={"If-Match": read.headers["ETag"]})
    assert first.status_code == 200
    assert first.headers["ETag"] not in (read.headers["ETag"], None)
    late = api.patch("/v1/pools/a", json={"draining": False}, headers={"If-Match": read.headers["ETag"]})
    assert (late.status_code, code(late)) == (412, "precondition-failed")
    assert api.get("/v1/pools/a").get_json()["draining"] is True
    weak = api.patch("/v1/pools/a", json={"draining": False}, headers={"If-Match": f"W/{first.headers['ETag']}"})
    assert weak.status_code == 412
    assert api.delete("/v1/pools/a", headers={"If-Match": read.headers["ETag"]}).status_code == 412
    assert api.delete("/v1/pools/a", headers={"If-Match": f'"x", {first.headers["ETag"]}'}).status_code == 204


def test_the_use_of_a_pool_does_not_change_its_tag(api: FlaskClient) -> None:
    api.post("/v1/networks", json={"name": "a", "subnets": ["10.1.0.0/24"]})
    before = api.get("/v1/pools/a-4")
    attach(api, "a", "c1")
    after = api.get("/v1/pools/a-4")
    assert (before.get_json()["leased"], after.get_json()["leased"]) == (0, 1)
    assert before.headers["ETag"] == after.headers["ETag"]


def test_of_many_changes_for_one_state_one_is_made(app: Flask, api: FlaskClient) -> None:
    tag = api.post("/v1/pools", json={"name": "a", "subnet": "10.1.0.0/24"}).headers["ETag"]

    def change(number: int) -> int:
        body = {"exclusions": [f"10.1.0.{number + 10}"]}
        return as_root(app).patch("/v1/pools/a", json=body, headers={"If-Match": tag}).status_code

    with ThreadPoolExecutor(16) as threads:
        statuses = list(threads.map(change, range(16)))
    assert sorted(statuses) == [200] + [412] * 15


# -- once -------------------------------------------------------------------------------------------------------------


def test_a_key_makes_it_happen_once(app: Flask, api: FlaskClient, controller: FakeController, tokens: Tokens) -> None:
    def make(client: FlaskClient, key: str, name: str = "a", **headers: str) -> Any:
        body = {"name": name, "subnet": "10.1.0.0/24"}
        return client.post("/v1/pools", json=body, headers={"Idempotency-Key": key, **headers})

    first = make(api, "k1")
    again = make(api, "k1")
    assert (again.status_code, again.data, again.location) == (201, first.data, first.location)
    assert again.headers["ETag"] == first.headers["ETag"]
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (None, "true")
    other = make(api, "k1", "b")
    assert (other.status_code, code(other)) == (422, "key-reused")
    assert code(api.delete("/v1/pools/a", headers={"Idempotency-Key": "k1"})) == "key-reused"
    assert len(controller.pools()) == 1
    assert make(api, "k2").status_code == 409  # FakeController makes no pool twice
    text = tokens.create("t", Role.OPERATOR, 60.0, "test")[1]
    mine = make(app.test_client(), "k1", "b", Authorization=f"Bearer {text}")
    assert mine.status_code == 201  # each caller has keys of its own
    gone = [api.delete("/v1/pools/a", headers={"Idempotency-Key": "k3"}) for _ in range(2)]
    assert [(one.status_code, one.data) for one in gone] == [(204, b"")] * 2


def test_errors_are_not_kept(api: FlaskClient, controller: FakeController) -> None:
    body, headers = {"name": "a", "subnet": "10.1.0.0/24"}, {"Idempotency-Key": "k"}
    controller.fail = Unavailable("not now", hint="later")
    assert api.post("/v1/pools", json=body, headers=headers).status_code == 503
    controller.fail = None
    assert api.post("/v1/pools", json=body, headers=headers).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_refused_keys(api: FlaskClient, key: str) -> None:
    response = api.post("/v1/pools", json={"subnet": "10.1.0.0/24"}, headers={"Idempotency-Key": key})
    assert response.status_code == 400
    assert api.get("/v1/pools").get_json() == []


def test_the_same_key_at_once_happens_once(app: Flask, controller: FakeController) -> None:
    def make(_: int) -> tuple[int, bytes]:
        headers = {"Idempotency-Key": "k"}
        response = as_root(app).post("/v1/pools", json={"subnet": "10.1.0.0/24"}, headers=headers)
        return response.status_code, response.data

    with ThreadPoolExecutor(16) as threads:
        answers = set(threads.map(make, range(16)))
    assert len(answers) == 1
    assert len(controller.pools()) == 1


def test_a_tokens_text_is_not_told_again(api: FlaskClient) -> None:
    body, headers = {"name": "t", "role": "viewer"}, {"Idempotency-Key": "k"}
    statuses = [api.post("/v1/tokens", json=body, headers=headers).status_code for _ in range(2)]
    assert statuses == [201, 409]


def test_answers_are_forgotten_after_a_day_and_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch, app: Flask
) -> None:
    now = 0.0
    answers = Answers(lambda: now)
    with app.test_request_context():
        answers.keep("a", b"f", app.response_class(b"x" * 100))
        assert answers.get("a") is not None
        now = changes.KEPT
        assert answers.get("a") is None
        monkeypatch.setattr(changes, "_MAX_BYTES", 250)
        for key in "bcd":
            answers.keep(key, b"f", app.response_class(b"x" * 100))
        assert [answers.get(key) is not None for key in "bcd"] == [False, True, True]
        monkeypatch.setattr(changes, "_MAX_ANSWERS", 1)
        assert [answers.get(key) is not None for key in "cd"] == [False, True]


# -- not at all -------------------------------------------------------------------------------------------------------


def test_a_rehearsal_answers_and_changes_nothing(api: FlaskClient, controller: FakeController) -> None:
    made = api.post("/v1/pools?dry_run=1", json={"name": "a", "subnet": "10.1.0.0/24"})
    assert (made.status_code, made.get_json()["name"], made.get_json()["id"]) == (200, "a", "")
    assert "Location" not in made.headers
    assert controller.pools() == []
    api.post("/v1/pools", json={"name": "a", "subnet": "10.1.0.0/24"})
    before = api.get("/v1/pools/a").get_json()
    assert api.post("/v1/pools?dry_run=true", json={"name": "a", "subnet": "10.1.0.0/24"}).status_code == 409
    changed = api.patch("/v1/pools/a?dry_run=1", json={"draining": True}, headers={"If-Match": "*"})
    assert changed.get_json() == before | {"draining": True}
    assert api.post("/v1/pools/a/reservations?dry_run=1", json={"name": "x"}).status_code == 200
    assert api.delete("/v1/pools/a?dry_run=1").status_code == 204
    assert api.post("/v1/networks?dry_run=1", json={"name": "n", "pools": ["a"]}).get_json()["pools"] == ["a"]
    assert api.get("/v1/pools/a").get_json() == before
    assert api.get("/v1/networks").get_json() == []
    assert [one["operation"] for one in api.get("/v1/audit").get_json()] == ["create_pool"]


@pytest.mark.parametrize("query", ["dryrun=1", "dry_run=perhaps", "dry_run="])
def test_a_misspelt_rehearsal_does_nothing(api: FlaskClient, query: str) -> None:
    api.post("/v1/pools", json={"name": "a", "subnet": "10.1.0.0/24"})
    assert api.delete(f"/v1/pools/a?{query}").status_code == 400
    assert api.get("/v1/pools/a").status_code == 200


def test_an_endpoint_cannot_be_rehearsed(api: FlaskClient, controller: FakeController) -> None:
    api.post("/v1/networks", json={"name": "n"})
    body = {"network": "n", "container": "c", "ifname": "eth0", "netns": "/n"}
    assert api.post("/v1/endpoints?dry_run=1", json=body).status_code == 400
    assert controller.attached == []


def test_an_endpoint_is_changed(api: FlaskClient) -> None:
    api.post("/v1/networks", json={"name": "n"})
    made = attach(api, "n", "c")
    path = f"/v1/endpoints/{made['id']}"
    assert api.patch(path, json={"quarantined": True}).status_code == 428
    tag = api.get(path).headers["ETag"]
    rehearsed = api.patch(f"{path}?dry_run=1", json={"quarantined": True}, headers={"If-Match": tag}).get_json()
    assert (rehearsed["quarantined"], api.get(path).get_json()["quarantined"]) == (True, False)
    changed = api.patch(path, json={"quarantined": True}, headers={"If-Match": tag}).get_json()
    assert changed == made | {"quarantined": True, "labels": changed["labels"]}
    assert api.get("/v1/endpoints").get_json() == [changed]
    assert api.patch(path, json={"quarantined": False}, headers={"If-Match": tag}).status_code == 412
    assert api.patch(path, json={"quarantined": False}, headers={"If-Match": "*"}).get_json() == made


def test_an_endpoint_is_changed_while_it_works(api: FlaskClient) -> None:
    api.post("/v1/networks", json={"name": "n", "vlan": 7})
    blue, green = attach(api, "n", "blue"), attach(api, "n", "green")
    path, anything = f"/v1/endpoints/{green['id']}", {"If-Match": "*"}

    def patch(**changes: Any) -> Json:
        answer = api.patch(path, json=changes, headers=anything)
        assert answer.status_code == 200, answer.get_json()
        changed: Json = answer.get_json()
        return changed

    assert patch() == green
    changed = patch(vlan=9, bandwidth={"egress_rate": 100, "egress_burst": 10})
    assert (changed["vlan"], changed["own_vlan"]) == (9, 9)
    assert patch(bandwidth={"egress_burst": 0})["bandwidth"] == {"egress_rate": 100}
    assert patch(bandwidth=None)["bandwidth"] == {}
    assert patch(vlan=0)["own_vlan"] == 0
    assert patch(vlan=None) == green
    api.patch(f"/v1/endpoints/{blue['id']}", json={"published": ["tcp/80/80"]}, headers=anything)
    assert patch(published=["tcp/80/80"], take_from=blue["id"])["published"] == ["tcp/80/80"]
    told = {one["path"]: one for one in api.get("/v1/audit?limit=2").get_json()}
    assert told[path]["after"]["published"] == ["tcp/80/80"]
    giver = told[f"/v1/endpoints/{blue['id']}"]
    assert (giver["before"]["published"], giver["after"]["published"]) == (["tcp/80/80"], [])
    for wrong in (
        {"vlan": 4095},
        {"bandwidth": {"rate": 1}},
        {"published": ["80:80"]},
        {"bandwidth": {"egress_rate": -1}},
    ):
        assert api.patch(path, json=wrong, headers=anything).status_code == 400
    assert api.patch(path, json={"take_from": "nobody"}, headers=anything).status_code == 404


def test_a_network_gets_another_tag(api: FlaskClient) -> None:
    made = api.post("/v1/networks", json={"name": "n", "vlan": 7}).get_json()
    assert api.patch("/v1/networks/n", json={"vlan": 8}).status_code == 428
    tag = api.get("/v1/networks/n").headers["ETag"]
    assert api.patch("/v1/networks/n?dry_run=1", json={"vlan": 8}, headers={"If-Match": tag}).get_json()["vlan"] == 8
    assert api.get("/v1/networks/n").get_json() == made
    assert api.patch("/v1/networks/n", json={}, headers={"If-Match": tag}).get_json() == made
    assert api.patch("/v1/networks/n", json={"vlan": 8}, headers={"If-Match": tag}).get_json() == made | {"vlan": 8}
    assert api.patch("/v1/networks/n", json={"vlan": 9}, headers={"If-Match": tag}).status_code == 412
    assert api.patch("/v1/networks/n", json={"mtu": 9}, headers={"If-Match": "*"}).status_code == 400


# -- long work --------------------------------------------------------------------------------------------------------


def ended(api: FlaskClient, response: Any) -> Json:
    """The operation of a 202, once it has ended."""
    assert response.status_code == 202
    assert response.get_json()["id"] in response.location

    def look() -> bool:
        return bool(api.get(response.location).get_json()["status"] != "running")

    wait_until(look, "the operation's end")
    operation: Json = api.get(response.location).get_json()
    return operation


def test_a_network_goes_with_its_endpoints(api: FlaskClient, controller: FakeController) -> None:
    api.post("/v1/networks", json={"name": "n", "subnets": ["10.1.0.0/24"]})
    for number in range(3):
        attach(api, "n", f"c{number}")
    assert api.delete("/v1/networks/n").status_code == 409
    assert api.delete("/v1/networks/n?force=1&dry_run=1").status_code == 204
    assert len(controller.endpoints()) == 3
    operation = ended(api, api.delete("/v1/networks/n?force=true"))
    assert (operation["status"], operation["kind"], operation["by"]) == ("succeeded", "remove-network", "uid:0")
    assert not controller.networks()
    assert not controller.endpoints()
    assert operation in api.get("/v1/operations").get_json()
    assert code(api.delete("/v1/networks/n?force=true")) == "network-not-found"


def test_a_check_behind_its_answer(api: FlaskClient) -> None:
    prefer = {"Prefer": "wait=1, respond-async"}
    operation = ended(api, api.get("/v1/check", headers=prefer))
    assert (operation["kind"], operation["result"]) == ("check", {"ok": True, "mended": [], "findings": []})
    assert ended(api, api.post("/v1/check", json={}, headers=prefer))["kind"] == "repair"
    assert ended(api, api.post("/v1/check", json={"dry_run": True}, headers=prefer))["kind"] == "check"


def has_ended(jobs: Jobs, ident: str) -> bool:
    return jobs.get(ident).status != "running"


def test_an_operation_that_fails_tells_why(api: FlaskClient, jobs: Jobs) -> None:
    def refuse(_progress: Progress) -> None:
        raise Unavailable("not now", hint="later")

    def break_down(_progress: Progress) -> None:
        raise ZeroDivisionError("the secret")

    for work, expected in ((refuse, "unavailable"), (break_down, "internal")):
        ident = jobs.start("test", expected, "me", work).id
        wait_until(partial(has_ended, jobs, ident), "the end")
        shown = api.get(f"/v1/operations/{ident}").get_json()
        assert (shown["status"], shown["problem"]["code"]) == ("failed", expected)
        assert "secret" not in str(shown)
    assert code(api.get("/v1/operations/none")) == "not-found"


def test_the_same_work_is_done_once_at_a_time_and_not_too_much_waits(jobs: Jobs) -> None:
    go = threading.Event()

    def wait(progress: Progress) -> None:
        progress(1, 2)
        assert go.wait(20)

    first = jobs.start("test", "a", "me", wait)
    try:
        assert jobs.start("test", "a", "you", wait).id == first.id
        wait_until(lambda: jobs.get(first.id).done == 1, "progress")
        for number in range(MAX_WAITING - 1):
            jobs.start("test", f"b{number}", "me", wait)
        with pytest.raises(Unavailable, match="wait already"):
            jobs.start("test", "one more", "me", wait)
    finally:
        go.set()
    wait_until(lambda: all(one.status == "succeeded" for one in jobs.all()), "the ends")
    assert jobs.start("test", "a", "me", wait).id != first.id


# -- audit ------------------------------------------------------------------------------------------------------------


def test_every_change_is_remembered_with_before_and_after(app: Flask, api: FlaskClient, tokens: Tokens) -> None:
    text = tokens.create("ci", Role.OPERATOR, 60.0, "test")[1]
    ci = {"Authorization": f"Bearer {text}"}
    pool = api.post("/v1/pools", json={"name": "a", "subnet": "10.1.0.0/24"}).get_json()
    changed = (
        app.test_client().patch("/v1/pools/a", json={"draining": True}, headers={"If-Match": "*", **ci}).get_json()
    )
    api.post("/v1/pools/a/reservations", json={"name": "x", "address": "10.1.0.9"})
    reserved = api.get("/v1/pools/a").get_json()
    api.delete("/v1/pools/a")  # refused: it has a reservation
    api.delete("/v1/pools/a?force=true")
    found = api.get("/v1/audit").get_json()
    assert [(one["operation"], one["before"], one["after"]) for one in found] == [
        ("delete_pool", reserved, None),
        ("reserve", changed, reserved),
        ("change_pool", pool, changed),
        ("create_pool", None, pool),
    ]
    assert [(one["caller"], one["role"], one["status"]) for one in found] == [
        ("uid:0", "admin", 204),
        ("uid:0", "admin", 201),
        ("token:ci", "operator", 200),
        ("uid:0", "admin", 201),
    ]
    assert api.get("/v1/audit?caller=token:ci").get_json() == [found[2]]
    assert api.get("/v1/audit?path=/v1/pools/a").get_json() == found[:3]
    assert api.get("/v1/audit", query_string={"since": found[1]["time"]}).get_json() == found[:2]
    assert [len(page) for page in walk(api, "/v1/audit?limit=3")] == [3, 1]
    assert api.get("/v1/audit?path=/v1/poo").get_json() == []


def test_no_secret_is_remembered(api: FlaskClient) -> None:
    made = api.post("/v1/tokens", json={"name": "t", "role": "viewer"}).get_json()
    api.delete("/v1/tokens/t")
    audit = api.get("/v1/audit")
    assert [one["after"] for one in audit.get_json()] == [None, made["token"]]
    assert made["text"].split("_", 2)[2] not in audit.get_data(as_text=True)


def test_what_may_have_happened_is_remembered_and_what_was_refused_is_not(
    api: FlaskClient, controller: FakeController
) -> None:
    controller.fail = Unavailable("not now", hint="later")
    api.post("/v1/pools", json={"subnet": "10.1.0.0/24"})
    controller.fail = None
    api.post("/v1/pools", json={"subnet": "x"})
    assert [(one["operation"], one["status"]) for one in api.get("/v1/audit").get_json()] == [("create_pool", 503)]


def test_a_state_that_is_too_large_is_not_kept_whole(journal: Journal) -> None:
    audit = Audit(journal)
    huge = "x" * MAX_BYTES
    audit.record(Change("uid:0", "admin", "POST", "/v1/x", "x", 200, before=huge, after=[1]))
    (change,) = audit.changes(limit=10)
    assert (change.before, change.after) == ({"too_large": len(json.dumps(huge))}, [1])


def test_without_a_journal_there_is_no_audit_log(controller: FakeController) -> None:
    api = as_root(create_app(controller, controller, controller, version="9.9"))
    assert api.post("/v1/pools", json={"subnet": "10.1.0.0/24"}).status_code == 201
    assert code(api.get("/v1/audit")) == "not-found"


def test_old_changes_are_pruned(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", 1e-9)
    journal.start(lambda _: None)
    try:
        audit = Audit(journal)
        audit.record(Change("uid:0", "admin", "POST", "/v1/x", "x", 200, before=None, after=None))
        assert len(audit.changes(limit=10)) == 1
        journal.prune()
        wait_until(lambda: not audit.changes(limit=10), "it to go")
    finally:
        journal.stop()
