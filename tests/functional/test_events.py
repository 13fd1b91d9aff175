"""Events on a real state database and file: what is told, in which order, to whom, and over broken files and restarts."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ovsnet.errors import NotFound, Unavailable
from ovsnet.events import HEARTBEAT, Events
from ovsnet.journal import UNWATCHED, Journal
from ovsnet.model import Event, LeaseOwner, OwnerKind
from ovsnet.store import Store
from tests.functional.test_journal import attach, endpoint, network
from tests.harness import wait_until

Begin = Callable[[], Events]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def begin(store: Store, path: Path) -> Iterator[Begin]:
    """Starts a journal, ending the one before."""
    running: list[Journal] = []

    def start() -> Events:
        for one in running:
            one.stop()
        running[:] = [Journal(path, 30)]
        running[0].start(store.watch)
        return Events(running[0], followers=2)

    yield start
    for one in running:
        one.stop()


def told(events: list[Event]) -> list[tuple[str, str, str]]:
    return [(one.what.value, str(one.address), one.reason) for one in events]


def test_what_happens_is_told_in_order(store: Store, begin: Begin) -> None:
    events = begin()
    net = network(store, "10.1.0.0/24", "fd00::/64")
    assert events.list(None, 1000) == []
    one = attach(store, net)
    store.detach(one.uuid, by="repair")
    found = events.list(None, 1000)
    assert sorted(told(found[:2])) == [("leased", "10.1.0.1", "cni"), ("leased", "fd00::1", "cni")]
    assert sorted(told(found[2:])) == [("released", "10.1.0.1", "repair"), ("released", "fd00::1", "repair")]
    assert {(one.network, one.container, one.ifname, one.node) for one in found} == {("net", "c1", "eth0", "a")}
    assert [one.id for one in found] == sorted({one.id for one in found})
    assert events.list(found[1].id, 1) == found[2:3]
    assert events.list(None, 1) == found[-1:]
    assert events.list(found[-1].id, 10) == []


def test_an_address_of_docker_becomes_an_endpoints(store: Store, begin: Begin) -> None:
    events = begin()
    net = network(store, "10.1.0.0/24")
    (pool,) = store.pools_of(net)
    address = store.allocate(pool, LeaseOwner(OwnerKind.DOCKER, "17:99/d"))
    store.attach(endpoint(net), [address], adopt=True)
    what = [(one.what.value, one.owner.kind, one.container) for one in events.list(None, 2)]
    assert what == [("leased", OwnerKind.DOCKER, ""), ("changed", OwnerKind.ENDPOINT, "c1")]


def test_a_restart_tells_what_happened_meanwhile(store: Store, begin: Begin, path: Path) -> None:
    events = begin()
    net = network(store, "10.1.0.0/24")
    first = attach(store, net, "c1")
    last = events.list(None, 1)[0].id
    store.watch(Journal(path.with_name("other"), 1))  # which was never started: nobody hears of this
    store.detach(first.uuid)
    attach(store, net, "c2", "10.1.0.7")
    events = begin()
    found = events.list(last, 10)
    assert sorted(told(found)) == [("leased", "10.1.0.7", "cni"), ("released", "10.1.0.1", UNWATCHED)]


def test_ids_grow_over_a_broken_file(store: Store, begin: Begin, path: Path) -> None:
    events = begin()
    net = network(store, "10.1.0.0/24")
    attach(store, net)
    last = events.list(None, 1)[0].id
    begin()  # which has the file closed and opened again, so that what was written is in the file itself
    path.with_name("journal.db-wal").unlink(missing_ok=True)
    path.write_bytes(b"no database at all" * 1000)
    events = begin()
    attach(store, net, "c2")
    found = events.list(last, 100)
    assert ("leased", "10.1.0.1", "cni") in told(found)
    assert found == events.list(None, 100)


def test_a_file_of_before_events_gets_them(store: Store, begin: Begin, path: Path) -> None:
    begin().list(None, 1)
    net = network(store, "10.1.0.0/24")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for trigger in ("leased", "changed", "released", "attributed"):
            db.execute(f"DROP TRIGGER {trigger}")
        db.execute("DROP TABLE event")
    events = begin()
    attach(store, net)
    assert told(events.list(None, 100)) == [("leased", "10.1.0.1", "cni")]


def test_what_is_old_goes(store: Store, begin: Begin, path: Path) -> None:
    events = begin()
    net = network(store, "10.1.0.0/24")
    for name in ("c1", "c2", "c3"):
        store.detach(attach(store, net, name).uuid)
    found = events.list(None, 100)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE event SET time = 0 WHERE id <= ?", (found[3].id,))
    events = begin()  # which prunes at once
    wait_until(lambda: events.list(None, 100) == found[4:], "the old ones are gone")


def test_followers_hear_at_once_and_come_to_an_end(store: Store, begin: Begin) -> None:
    events = begin()
    net = network(store, "10.1.0.0/24")
    heard: list[Event] = []
    following = events.follow(None)

    def follow() -> None:
        for batch in following:
            heard.extend(batch)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        made = attach(store, net)
        wait_until(lambda: len(heard) == 1, "the event is heard")
        store.detach(made.uuid)
        wait_until(lambda: len(heard) == 2, "the next event is heard")
        assert told(heard) == [("leased", "10.1.0.1", "cni"), ("released", "10.1.0.1", "cni")]
    finally:
        events.close()
        thread.join(10)
    assert not thread.is_alive()


def test_a_follower_goes_on_where_it_was(store: Store, begin: Begin) -> None:
    events = begin()
    net = network(store, "10.1.0.0/24")
    attach(store, net)
    first = events.list(None, 1)[0]
    attach(store, net, "c2", "10.1.0.9")
    following = iter(events.follow(first.id))
    assert next(following) == []
    assert told(next(following)) == [("leased", "10.1.0.9", "cni")]


def test_no_more_may_follow_than_there_is_room_for(begin: Begin) -> None:
    events = begin()
    following = [events.follow(None), events.follow(None)]
    with pytest.raises(Unavailable, match="too many"):
        events.follow(None)
    following[0].close()
    following[0].close()
    events.follow(None)
    with pytest.raises(Unavailable, match="too many"):
        events.follow(None)


def test_who_has_gone_makes_room(begin: Begin) -> None:
    """Nothing has to happen for that: a person goes from page to page, and each one follows."""
    events = begin()
    away = threading.Event()
    ended = threading.Event()
    staying = events.follow(None)
    leaving = events.follow(None, away.is_set)

    def follow() -> None:
        for _ in leaving:
            pass
        ended.set()

    threading.Thread(target=follow, daemon=True).start()
    with pytest.raises(Unavailable, match="too many"):
        events.follow(None)
    away.set()
    events.follow(None)
    assert ended.wait(HEARTBEAT / 2), "its thread waits for the next sign of life"
    leaving.close()
    with pytest.raises(Unavailable, match="too many"):
        events.follow(None)
    staying.close()
    events.follow(None)


def test_without_a_journal_there_are_none() -> None:
    for ask in (lambda: Events(None, 1).list(None, 1), lambda: Events(None, 1).follow(None)):
        with pytest.raises(NotFound, match="not kept"):
            ask()
