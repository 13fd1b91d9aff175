"""Long work behind answers: what has ended is forgotten in the order of its end."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from ovsnet import jobs
from ovsnet.errors import NotFound
from ovsnet.jobs import Job, Jobs, Progress


def ended(known: Jobs, job: Job) -> Job:
    """The job at its end."""
    until = time.monotonic() + 10
    while (found := known.get(job.id)).status == "running":
        assert time.monotonic() < until
        time.sleep(0.01)
    return found


def test_what_ended_last_is_known_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_MAX_KEPT", 2)
    known, may_end = Jobs(), threading.Event()

    def wait(_: Progress) -> Any:
        return may_end.wait(10)

    try:
        long = known.start("long", "", "somebody", wait)
        quick = [ended(known, known.start("quick", str(number), "somebody", lambda _: None)) for number in range(3)]
        with pytest.raises(NotFound):
            known.get(quick[0].id)
        may_end.set()
        assert ended(known, long).result is True
        assert known.get(quick[2].id) == quick[2]
        with pytest.raises(NotFound):
            known.get(quick[1].id)
    finally:
        may_end.set()
        known.stop()
