"""What Docker was told before it was through: who asks waits, and is told what failed."""

from __future__ import annotations

import threading

import pytest

from ovsnet import promises
from ovsnet.errors import DeadlineExceeded, LinkFailed, OvsnetError
from ovsnet.promises import Promises


def test_who_asks_waits_for_the_end() -> None:
    known = Promises(10.0)
    known.check("key")  # nothing is promised
    promise = known.give("key")
    asked = threading.Thread(target=known.check, args=["key"], daemon=True)
    asked.start()
    asked.join(0.1)
    assert asked.is_alive()
    promise.end()
    asked.join(5)
    assert not asked.is_alive()


def test_a_failure_is_told_until_it_is_forgotten() -> None:
    known = Promises(10.0)
    known.give("key").end(LinkFailed("no link"))
    for _ in range(2):
        with pytest.raises(LinkFailed, match="no link"):
            known.check("key")
    known.forget("key")
    known.check("key")
    known.give("key").end(LinkFailed("no link"))
    known.give("key").end()  # another try
    known.check("key")


def test_only_so_many_failures_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promises, "_BROKEN_MOST", 2)
    known = Promises(10.0)
    for key in "abc":
        known.give(key).end(OvsnetError(key))
    known.check("a")
    for key in "bc":
        with pytest.raises(OvsnetError, match=key):
            known.check(key)


def test_an_earlier_promise_that_ends_late_does_not_end_a_later_one() -> None:
    known = Promises(0.05)
    earlier, later = known.give("key"), known.give("key")
    earlier.end()
    with pytest.raises(DeadlineExceeded):
        known.check("key")
    later.end()
    known.check("key")


def test_all_are_settled_and_told() -> None:
    known = Promises(0.05)
    promise = known.give("key")
    told: list[object] = []
    promise.then(told.append)
    with pytest.raises(DeadlineExceeded):
        known.settle()
    promise.end(OvsnetError("why"))
    promise.then(told.append)
    known.settle()  # whether it was kept is for who asks for it
    assert told == [promise, promise]
