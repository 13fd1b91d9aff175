"""Events: what happens to addresses, in the order of its happening, to be listed and followed.

The journal's file has them in a table that triggers fill from the possessions (see ovsnet/journal.py), in the same
transaction; the journal keeps them as long as these. Owns that table, and who follows it. Ids grow for ever, also over a file
that was broken and begun anew: a new table's begin at the microseconds since 1970.
"""

from __future__ import annotations

import ipaddress
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .errors import NotFound, Unavailable
from .model import Event, EventKind, IPAddress, LeaseOwner, OwnerKind

if TYPE_CHECKING:
    from .journal import Journal

HEARTBEAT: Final = 10.0  # seconds after which a follower without news is told that it is followed still
MAX_EVENTS: Final = 1000  # that one question is answered with

_RECENT = 1000  # events among which that of a release is, when it turns out who released

_NOW = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
_WHO = "address, pool, kind, owner, network, container, ifname, node, labels"
_NEW = ", ".join(f"NEW.{column}" for column in _WHO.split(", "))

SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    possession INTEGER NOT NULL,
    time INTEGER NOT NULL,
    what TEXT NOT NULL,
    reason TEXT NOT NULL,
    address TEXT NOT NULL,
    pool TEXT NOT NULL,
    kind TEXT NOT NULL,
    owner TEXT NOT NULL,
    network TEXT NOT NULL,
    container TEXT NOT NULL,
    ifname TEXT NOT NULL,
    node TEXT NOT NULL,
    labels TEXT NOT NULL
);
INSERT INTO sqlite_sequence (name, seq)
SELECT 'event', {_NOW} WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'event');
CREATE TRIGGER IF NOT EXISTS leased AFTER INSERT ON possession BEGIN
    INSERT INTO event (possession, time, what, reason, {_WHO})
    VALUES (NEW.id, NEW.since, '{EventKind.LEASED}', NEW.origin, {_NEW});
END;
CREATE TRIGGER IF NOT EXISTS changed AFTER UPDATE OF owner ON possession WHEN NEW.until IS NULL BEGIN
    INSERT INTO event (possession, time, what, reason, {_WHO})
    VALUES (NEW.id, {_NOW}, '{EventKind.CHANGED}', NEW.origin, {_NEW});
END;
CREATE TRIGGER IF NOT EXISTS released AFTER UPDATE OF until ON possession WHEN OLD.until IS NULL BEGIN
    INSERT INTO event (possession, time, what, reason, {_WHO})
    VALUES (NEW.id, NEW.until, '{EventKind.RELEASED}', NEW.released_by, {_NEW});
END;
CREATE TRIGGER IF NOT EXISTS attributed AFTER UPDATE OF released_by ON possession WHEN OLD.until IS NOT NULL BEGIN
    UPDATE event SET reason = NEW.released_by
    WHERE id > (SELECT max(id) FROM event) - {_RECENT} AND possession = NEW.id AND what = '{EventKind.RELEASED}';
END;
"""  # noqa: S608  # names of ours
# The oldest come first: without an index, which each event would pay for, it is found quickly where the younger ones begin.
PRUNE: Final = f"""
DELETE FROM event WHERE id IN (
    SELECT id FROM event WHERE id < coalesce((SELECT id FROM event WHERE time >= ? ORDER BY id LIMIT 1), {2**63 - 1})
    ORDER BY id LIMIT ?
)
"""  # noqa: S608
_ALTERED = f"""
INSERT INTO event (possession, time, what, reason, {_WHO})
SELECT id, {_NOW}, '{EventKind.ALTERED}', ?, {_WHO} FROM possession
WHERE address = ? AND kind = ? AND owner = ? AND until IS NULL
"""  # noqa: S608
_COLUMNS = f"id, time, what, reason, {_WHO}"
_AFTER = f"SELECT {_COLUMNS} FROM event WHERE id > :after ORDER BY id LIMIT :limit"  # noqa: S608  # names of ours
_LATEST = f"SELECT {_COLUMNS} FROM event ORDER BY id DESC LIMIT :limit"  # noqa: S608
_LAST = "SELECT seq FROM sqlite_sequence WHERE name = 'event'"

_EPOCH = datetime.fromtimestamp(0, UTC)


class Events:
    """The events of `journal`, None where none is kept. At most `followers` follow them at once. Thread-safe."""

    def __init__(self, journal: Journal | None, followers: int) -> None:
        self._journal = journal
        self._most = followers
        self._guard = threading.Lock()
        self._followings: list[Following] = []
        self._closed = False

    def list(self, after: int | None, limit: int) -> list[Event]:
        """The first `limit` events after the one of that id, or the latest ones; the oldest first. NotFound, Unavailable."""
        journal = self._kept()
        if after is None:
            return [_as_event(row) for row in reversed(journal.read(_LATEST, {"limit": limit}))]
        return [_as_event(row) for row in journal.read(_AFTER, {"after": after, "limit": limit})]

    def follow(self, after: int | None, gone: Callable[[], bool] | None = None) -> Following:
        """The events after the one of that id, or from now on, without an end. Unavailable if too many follow. NotFound.

        `gone` tells whether this one has gone away, which is asked, by other threads, when somebody else wants its place.
        """
        journal = self._kept()
        if after is None:
            after = next((seq for (seq,) in journal.read(_LAST, {})), 0)
        with self._guard:
            if len(self._followings) >= self._most:
                self._followings = [one for one in self._followings if not one.gone()]
                journal.wake()  # for the threads of those who are followed no longer
            if len(self._followings) >= self._most:
                raise Unavailable("too many follow the events", hint="end one of those, or set more `workers`")
            following = Following(self, journal, after, gone)
            self._followings.append(following)
        return following

    def altered(self, what: Sequence[tuple[IPAddress, LeaseOwner]], how: str) -> None:
        """Tell of those who have these addresses that they are not as they were; `how` in words. Returns at once; never fails."""
        if self._journal is not None and what:
            rows = [(how, str(address), owner.kind.value, owner.id) for address, owner in what]
            self._journal.record(partial(_alter, rows))

    def close(self) -> None:
        """Let all who follow come to an end: ovsnetd stops."""
        self._closed = True
        if self._journal is not None:
            self._journal.wake()

    def followed(self, by: Following) -> bool:
        """Whether that one is to go on."""
        with self._guard:
            return not self._closed and by in self._followings

    def leave(self, one: Following) -> None:
        """That one follows no longer; again is harmless."""
        with self._guard:
            if one in self._followings:
                self._followings.remove(one)

    def _kept(self) -> Journal:
        if self._journal is None:
            raise NotFound("events are not kept on this host", hint="set journal_days and restart ovsnetd")
        return self._journal


class Following:
    """One who follows; iterating gives batches of events, an empty one as a sign of life. To be closed."""

    def __init__(self, events: Events, journal: Journal, after: int, gone: Callable[[], bool] | None) -> None:
        self._events = events
        self._journal = journal
        self._after = after
        self._gone = gone

    def __iter__(self) -> Iterator[list[Event]]:
        seen = self._journal.wait_written(-1, 0)
        yield []
        while self._events.followed(self):
            found = self._events.list(self._after, MAX_EVENTS)
            if found:
                self._after = found[-1].id
                yield found
                continue
            before, seen = seen, self._journal.wait_written(seen, HEARTBEAT)
            if before == seen:
                yield []

    def gone(self) -> bool:
        """Whether this one is known to have gone away."""
        return self._gone is not None and self._gone()

    def close(self) -> None:
        """Make room for somebody else; again is harmless."""
        self._events.leave(self)


def _alter(rows: Sequence[tuple[str, ...]], db: sqlite3.Connection) -> None:
    db.executemany(_ALTERED, rows)


def _as_event(row: tuple[Any, ...]) -> Event:
    """A row of _COLUMNS."""
    identity, time, what, reason, address, pool, kind, owner, network, container, ifname, node, labels = row
    return Event(
        id=identity,
        time=_EPOCH + timedelta(microseconds=time),
        what=EventKind(what),
        reason=reason,
        address=ipaddress.ip_address(address),
        pool=pool,
        owner=LeaseOwner(OwnerKind(kind), owner),
        network=network,
        container=container,
        ifname=ifname,
        node=node,
        labels=json.loads(labels),
    )
