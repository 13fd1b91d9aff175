"""The form of /v1/events: what it takes, and what it answers where no journal is kept."""

from __future__ import annotations

import pytest

from ovsnet.api import create_app
from tests.fake_controller import FakeController, as_root


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?limit=5&after=3", 404, "not-found"),  # which is the answer of a host without a journal
        ("?limit=0", 400, "invalid-request"),
        ("?limit=1001", 400, "invalid-request"),
        ("?after=-1", 400, "invalid-request"),
        (f"?after={2**63}", 400, "invalid-request"),
        ("?after=x", 400, "invalid-request"),
        ("?since=1", 400, "invalid-request"),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream", "*/*", ""])
def test_questions(query: str, status: int, code: str, accept: str) -> None:
    controller = FakeController()
    api = as_root(create_app(controller, controller, controller, version="9.9"))
    response = api.get(f"/v1/events{query}", headers={"Accept": accept})
    assert (response.status_code, response.get_json(force=True)["code"]) == (status, code)
