"""Asking who had an address: moments in time, and the REST call."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient

from ovsnet.api import create_app
from ovsnet.config import Settings
from ovsnet.controller import Controller
from ovsnet.errors import InvalidRequest, NotFound
from ovsnet.model import LeaseOwner, LeaseRecord, OwnerKind, parse_time
from tests.fake_controller import FakeController, as_root

NOON = datetime(2026, 5, 17, 12, 0, tzinfo=UTC)
RECORD = LeaseRecord(
    address=ipaddress.ip_address("fd00::7"),
    pool="blue",
    owner=LeaseOwner(OwnerKind.ENDPOINT, "u/c1/eth0"),
    network="net",
    container="c1",
    ifname="eth0",
    node="n1",
    labels={"k8s-pod-name": "web-1"},
    since=NOON,
    until=None,
    released_by="",
)


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
def api(controller: FakeController) -> FlaskClient:
    return as_root(create_app(controller, controller, controller, version="9.9"))


@pytest.fixture
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The host's local time is two hours ahead of UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "CEST-2")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_berlin")
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-17T12:00:00Z", NOON),
        ("2026-05-17T14:00+02:00", NOON),
        ("20260517T120000Z", NOON),
        ("2026-05-17T14:00", NOON),
        ("2026-05-17 14:00:00", NOON),
        ("2026-05-17", datetime(2026, 5, 16, 22, 0, tzinfo=UTC)),
    ],
)
def test_moments(text: str, moment: datetime) -> None:
    assert parse_time(text) == moment
    assert parse_time(text).tzinfo is not None


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2h ago", "14:30", "2026-13-01", "0001-01-01T00:00+23:00", "9" * 400]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_time(text)
    assert "2026-05-17T14:30" in caught.value.hint
    assert len(caught.value.message) < 300


def test_history_over_rest(api: FlaskClient, controller: FakeController) -> None:
    before = replace(RECORD, since=datetime(2026, 5, 16, tzinfo=UTC), until=NOON, released_by="cni")
    controller.past = [RECORD, before]
    found = api.get("/v1/leases/history", query_string={"address": "fd00:0::7"}).get_json()
    assert found[0] == {
        "address": "fd00::7",
        "pool": "blue",
        "owner": {"kind": "endpoint", "id": "u/c1/eth0"},
        "network": "net",
        "container": "c1",
        "ifname": "eth0",
        "node": "n1",
        "labels": {"k8s-pod-name": "web-1"},
        "since": "2026-05-17T12:00:00+00:00",
        "until": None,
        "released_by": "",
    }
    assert (found[1]["until"], found[1]["released_by"]) == ("2026-05-17T12:00:00+00:00", "cni")
    query = {"address": "fd00::7", "at": "2026-05-17T13:59:59+02:00"}
    assert api.get("/v1/leases/history", query_string=query).get_json() == found[1:]
    query = {"address": "fd00::7", "pool": "red"}
    assert api.get("/v1/leases/history", query_string=query).get_json() == []


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ({}, "address"),
        ({"address": "blue"}, "address"),
        ({"address": "10.1.0.7", "at": "yesterday"}, "at"),
        ({"address": "10.1.0.7", "since": "2026-05-17"}, "since"),
    ],
)
def test_refused_question(api: FlaskClient, query: dict[str, str], key: str) -> None:
    response = api.get("/v1/leases/history", query_string=query)
    document = response.get_json(force=True)
    assert (response.status_code, document["code"]) == (400, "invalid-request")
    assert list(document["details"]) == [key]
    assert document["hint"]


def test_without_a_journal_there_is_no_history() -> None:
    absent: Any = None  # nothing else is asked
    controller = Controller(
        Settings.model_validate({}),
        store=absent,
        switch=absent,
        links=absent,
        ports=absent,
        spoofing=absent,
        rules=absent,
        limits=absent,
    )
    with pytest.raises(NotFound) as caught:
        controller.history(RECORD.address)
    assert "journal_days" in caught.value.hint
