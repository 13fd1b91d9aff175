"""The event journal: who had which address when, in a SQLite file of this node.

Owns that file. The store tells it of every change of a lease, as it sees them in the database; the use cases ask it. Nothing
needs it to run: telling never waits, a file that cannot be written costs history and no request, and a broken file is set aside.

A *possession* is one row from its beginning to its end. What Docker does with one address, RequestAddress, CreateEndpoint,
DeleteEndpoint, ReleaseAddress, is one possession although the lease changes its owner twice: it begins and ends with the
lease, and names the endpoint from CreateEndpoint on. An address that goes from one endpoint straight to another, or from a
reservation to an endpoint, changes its possessor: one row ends and the next begins.

What changed while nobody watched (ovsnetd was down, the database out of reach, the file not writable) is found by comparing: a
possession that is over ends at the time of the comparison, released by UNWATCHED; one that is new begins then. Times are this
node's wall clock.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import events
from .errors import Unavailable
from .model import IPAddress, LeaseOwner, LeaseRecord, LeaseState, Origin, OwnerKind, Pool

LOG = logging.getLogger(__name__)

UNWATCHED = "unknown: ovsnetd was not watching"
MAX_RECORDS = 1000  # that one question is answered with

_QUEUE = 10_000  # events that may wait for the disk
_LINGER = 0.2  # seconds for which events are gathered into one transaction; a kill -9 loses no more
_BUSY = 5.0  # seconds to wait for somebody else's lock on the file
_RETRY = 5.0  # seconds after a failure until the file is tried again
_READ = 5.0  # seconds for a question
_PRUNE_EVERY = 3600.0
_PRUNE_ROWS = 5000  # a transaction: readers and writers take turns
_STOP = 10.0

_EPOCH = datetime.fromtimestamp(0, UTC)
_TICK = timedelta(microseconds=1)  # the unit of times in the file; datetime's own, so that no comparison rounds

_VERSION = 1
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS possession (
    id INTEGER PRIMARY KEY,
    address TEXT NOT NULL,
    pool_uuid TEXT NOT NULL,
    pool TEXT NOT NULL,
    kind TEXT NOT NULL,
    owner TEXT NOT NULL,
    origin TEXT NOT NULL,
    network TEXT NOT NULL,
    container TEXT NOT NULL,
    ifname TEXT NOT NULL,
    node TEXT NOT NULL,
    labels TEXT NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER,
    released_by TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX IF NOT EXISTS standing ON possession (pool_uuid, address) WHERE until IS NULL;
CREATE INDEX IF NOT EXISTS by_address ON possession (address, since);
CREATE INDEX IF NOT EXISTS by_end ON possession (until) WHERE until IS NOT NULL;
{events.SCHEMA}
CREATE TABLE IF NOT EXISTS audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    caller TEXT NOT NULL,
    role TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    operation TEXT NOT NULL,
    status INTEGER NOT NULL,
    before TEXT NOT NULL,
    after TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_time ON audit (time);
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_INSERT = """
INSERT INTO possession
    (address, pool_uuid, pool, since, kind, owner, origin, network, container, ifname, node, labels)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_REFINE = """
UPDATE possession
SET kind = ?, owner = ?, origin = ?, network = ?, container = ?, ifname = ?, node = ?, labels = ? WHERE id = ?
"""
_ATTRIBUTE = """
UPDATE possession SET released_by = ?
WHERE id = (SELECT max(id) FROM possession WHERE address = ? AND pool_uuid = ? AND until IS NOT NULL)
"""
_STANDING = "SELECT id, kind, owner, origin FROM possession WHERE pool_uuid = ? AND address = ? AND until IS NULL"
_HISTORY = """
SELECT address, pool, kind, owner, network, container, ifname, node, labels, since, until, released_by
FROM possession
WHERE address = :address AND :pool IN ('', pool, pool_uuid)
    AND (:moment IS NULL OR since <= :moment AND (until IS NULL OR until > :moment))
ORDER BY since DESC, id DESC LIMIT :limit
"""
_SINCE = """
SELECT address, since FROM possession
WHERE pool_uuid = :pool AND address IN (SELECT value FROM json_each(:addresses)) AND until IS NULL
"""
_PRUNES = (
    "DELETE FROM possession WHERE id IN (SELECT id FROM possession WHERE until < ? LIMIT ?)",
    events.PRUNE,
    "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE time < ? LIMIT ?)",
)

_Act = Callable[[sqlite3.Connection], None]


class Journal:
    """The journal in the file `path`, which keeps what has ended for `keep_days` days. Thread-safe.

    `leases_stand`, `leases_changed` and `lease_released` are for the store, which calls them in the order of the events: they
    return at once and never fail. `lost` counts events that were not written.
    """

    def __init__(self, path: Path, keep_days: float, *, capacity: int = _QUEUE) -> None:
        self.path = path
        self.lost = 0
        self._keep = timedelta(days=keep_days) // _TICK
        self._capacity = capacity
        self._queue: queue.SimpleQueue[_Act | threading.Event | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._news = threading.Condition()
        self._written = 0  # transactions
        self._missed = False  # events were lost since the last comparison
        self._failing = False  # and the log says so
        self._prune_at = 0.0  # monotonic seconds
        self._watch: Callable[[Journal], None] | None = None
        self._thread: threading.Thread | None = None

    def start(self, watch: Callable[[Journal], None]) -> None:
        """Begin to write. `watch` makes the store tell of changes, beginning with what stands; called again after a gap."""
        self._watch = watch
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()
        watch(self)

    def stop(self) -> None:
        """Write what waits, and end."""
        if self._thread is None:
            return
        self._queue.put(None)
        self._hurry.set()
        self._thread.join(_STOP)
        if self._thread.is_alive():
            LOG.error("the event journal did not end within %g s: %s hangs", _STOP, self.path)
        self._thread = None

    # -- what the store tells -----------------------------------------------------------------------------------------

    def leases_stand(self, states: Iterable[LeaseState]) -> None:
        """All leases there are; iterated later, in another thread."""
        self.record(partial(_compare, states, _now()))

    def leases_changed(self, states: Sequence[LeaseState]) -> None:
        """Addresses that have another owner than before."""
        self.record(partial(_follow, states, _now()))

    def lease_released(self, pool: Pool, address: int, by: str) -> None:
        """Who ended the latest lease of an address; for those that did not end it by the way it was made."""
        self.record(partial(_attribute, pool, address, by))

    def record(self, act: _Act) -> None:
        """Have the thread do something in the file, in the next transaction; for those who keep a table of their own there."""
        if self._thread is None:
            return
        if self._queue.qsize() < self._capacity:
            self._queue.put(act)
        else:
            self.lost += 1
            self._missed = True

    # -- asking -------------------------------------------------------------------------------------------------------

    def history(self, address: IPAddress, at: datetime | None = None, pool: str = "") -> list[LeaseRecord]:
        """Who had `address`, the latest first, MAX_RECORDS at most: ever, or at one moment.

        `pool` is a pool's name or uuid, also of one that is gone; "" means any. What was acknowledged before is in it, unless the
        disk is more than a few seconds behind. Unavailable if the file cannot be read.
        """
        moment = None if at is None else (at - _EPOCH) // _TICK
        asked = {"address": str(address), "pool": pool, "moment": moment, "limit": MAX_RECORDS}
        return [_as_record(row) for row in self.read(_HISTORY, asked)]

    def since(self, pool_uuid: str, addresses: Iterable[IPAddress]) -> dict[IPAddress, datetime]:
        """From when on those of `addresses` that are leased have been. Unavailable if the file cannot be read."""
        asked = {"pool": pool_uuid, "addresses": json.dumps([str(one) for one in addresses])}
        return {ipaddress.ip_address(text): _EPOCH + since * _TICK for text, since in self.read(_SINCE, asked)}

    def read(self, query: str, asked: dict[str, Any]) -> list[tuple[Any, ...]]:
        """The rows of a query, with all that was recorded before it. Unavailable if the file cannot be read."""
        self._flush()
        until = time.monotonic() + _READ
        try:
            uri = f"file:{quote(str(self.path.absolute()))}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True, timeout=_READ, isolation_level=None)) as db:
                db.set_progress_handler(lambda: time.monotonic() > until, 100_000)
                return db.execute(query, asked).fetchall()
        except sqlite3.Error as exc:
            raise Unavailable(
                f"the event journal cannot be read: {exc}", hint="networks go on without it; see ovsnetd's log"
            ) from exc

    def wait_written(self, seen: int, timeout: float) -> int:
        """How often something has been written, once that is another number than `seen`, or `timeout` seconds are over."""
        with self._news:
            self._news.wait_for(lambda: self._written != seen, timeout)
            return self._written

    def wake(self) -> None:
        """Have those who wait in `wait_written` go on."""
        with self._news:
            self._written += 1
            self._news.notify_all()

    def prune(self) -> None:
        """Delete what ended longer ago than it is kept; done every hour anyway."""
        self._prune_at = 0.0
        self._flush()

    def _flush(self) -> None:
        """Until all that was recorded before is written, or has taken too long."""
        if self._thread is None:
            return
        written = threading.Event()
        self._queue.put(written)
        self._hurry.set()
        written.wait(_READ)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        db: sqlite3.Connection | None = None
        retry_at = 0.0
        going = True
        while going:
            acts, waiting, going = self._gather(retry_at if db is None else self._prune_at)
            try:
                if db is None and time.monotonic() >= retry_at:
                    db = self._open()
                if db is None:
                    self._lose(len(acts))
                else:
                    if acts:
                        _write(db, acts)
                        self.wake()
                    if time.monotonic() >= self._prune_at:
                        self._delete_old(db)
                    if self._failing:
                        self._failing = False
                        LOG.info("the event journal %s is written again", self.path)
                    if self._missed and going and self._watch is not None:
                        self._missed = False
                        self._watch(self)
            except Exception as exc:  # noqa: BLE001  # told by _mend; the thread goes on
                self._lose(len(acts))
                self._missed = True
                _close(db)
                db = None
                retry_at = time.monotonic() + (0.0 if self._mend(exc) else _RETRY)
            for one in waiting:
                one.set()
        _close(db)

    def _gather(self, due: float) -> tuple[list[_Act], list[threading.Event], bool]:
        """What has come until now, with those who wait for it; the last is False at the end. Waits for the first, or `due`."""
        acts: list[_Act] = []
        waiting: list[threading.Event] = []
        try:
            event = self._queue.get(timeout=max(0.0, due - time.monotonic()))
            self._hurry.wait(_LINGER)
            self._hurry.clear()
            while event is not None:
                if isinstance(event, threading.Event):
                    waiting.append(event)
                else:
                    acts.append(event)
                event = self._queue.get_nowait()
        except queue.Empty:
            return acts, waiting, True
        return acts, waiting, False

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA journal_size_limit = {4 << 20}")
            if db.execute("PRAGMA user_version").fetchone()[0] > _VERSION:
                raise _NewerVersionError("it was written by a newer ovsnet")
            db.executescript(_SCHEMA)
        except BaseException:
            db.close()
            raise
        return db

    def _lose(self, events: int) -> None:
        self.lost += events
        self._missed = self._missed or events > 0

    def _mend(self, exc: Exception) -> bool:
        """Tell of a failure; whether the file was to blame, and has been moved out of the way."""
        expected = isinstance(exc, (sqlite3.Error, OSError, _NewerVersionError))
        if not expected or not _is_broken(exc):
            if not self._failing:
                self._failing = True
                trace = None if expected else exc
                LOG.error("the event journal %s fails, and lease history is lost: %s", self.path, exc, exc_info=trace)
            return False
        aside = self.path.with_name(f"{self.path.name}.broken")
        try:
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            self.path.replace(aside)
        except OSError as error:
            LOG.error("the event journal %s is broken (%s) and cannot be moved: %s", self.path, exc, error)
            return False
        LOG.error("the event journal was broken (%s): it is %s now, and a new one begins", exc, aside)
        return True

    def _delete_old(self, db: sqlite3.Connection) -> None:
        self._prune_at = time.monotonic() + _PRUNE_EVERY
        before = _now() - self._keep
        for prune in _PRUNES:
            while db.execute(prune, (before, _PRUNE_ROWS)).rowcount == _PRUNE_ROWS:
                continue


class _NewerVersionError(Exception):
    """The file's schema is not ours."""


def _is_broken(exc: Exception) -> bool:
    """Whether the file's content is to blame, which waiting does not mend."""
    if isinstance(exc, _NewerVersionError):
        return True
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF  # the primary code, see sqlite.org/rescode.html
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _close(db: sqlite3.Connection | None) -> None:
    """Close, which rolls back what is not committed; a failure on the way out of a failure is only told."""
    if db is not None:
        try:
            db.close()
        except sqlite3.Error as exc:
            LOG.error("closing the event journal failed: %s", exc)


def _write(db: sqlite3.Connection, acts: Sequence[_Act]) -> None:
    """All in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    for act in acts:
        act(db)
    db.execute("COMMIT")


def _follow(states: Iterable[LeaseState], now: int, db: sqlite3.Connection) -> None:
    for state in states:
        _settle(db, state, now)


def _compare(states: Iterable[LeaseState], now: int, db: sqlite3.Connection) -> None:
    """Bring the possessions that stand in line with the leases that stand."""
    seen: dict[str, set[str]] = {}
    for state in states:
        seen.setdefault(state.pool.uuid, set()).add(_settle(db, state, now, by=UNWATCHED))
    standing = db.execute("SELECT id, pool_uuid, address FROM possession WHERE until IS NULL")
    gone = [ident for ident, pool, address in standing if address not in seen.get(pool, ())]
    for ident in gone:
        _end(db, ident, now, UNWATCHED)


def _attribute(pool: Pool, address: int, by: str, db: sqlite3.Connection) -> None:
    db.execute(_ATTRIBUTE, (by, _text(pool, address), pool.uuid))


def _settle(db: sqlite3.Connection, state: LeaseState, now: int, *, by: str = "") -> str:
    """Let the possessions of an address be what `state` says; gives the address as text.

    `by` is who released what has ended; "" means: it went by the way it came, or was taken over by who is there now.
    """
    address = _text(state.pool, state.address)
    row = db.execute(_STANDING, (state.pool.uuid, address)).fetchone()
    if state.owner is None:
        if row is not None:
            _end(db, row[0], now, by or row[3])
        return address
    kind, _, owner = state.owner.partition(":")
    if row is not None:
        ident, had_kind, had_owner, origin = row
        if (kind, owner) == (had_kind, had_owner):
            return address
        if kind == OwnerKind.DOCKER and had_kind in (OwnerKind.DOCKER, OwnerKind.ENDPOINT):
            return address  # replayed by another dockerd, or between DeleteEndpoint and ReleaseAddress
        if (had_kind, kind) == (OwnerKind.DOCKER, OwnerKind.ENDPOINT):
            db.execute(_REFINE, (*_details(state, kind, owner), ident))
            return address
        # A reservation comes back by itself when who had its address goes; anybody else has taken the address over.
        _end(db, ident, now, by or (origin if kind == OwnerKind.RESERVED else _origin(state, kind)))
    db.execute(_INSERT, (address, state.pool.uuid, state.pool.name, now, *_details(state, kind, owner)))
    return address


def _end(db: sqlite3.Connection, ident: int, now: int, by: str) -> None:
    """No possession ends before it begins, even if the clock was set back."""
    db.execute("UPDATE possession SET until = max(since, ?), released_by = ? WHERE id = ?", (now, by, ident))


def _details(state: LeaseState, kind: str, owner: str) -> tuple[str, ...]:
    """Values of the columns from kind to labels."""
    endpoint = state.endpoint
    return (
        kind,
        owner,
        _origin(state, kind),
        state.network,
        endpoint.container if endpoint else "",
        endpoint.ifname if endpoint else "",
        state.node,
        json.dumps(dict(endpoint.labels)) if endpoint else "{}",
    )


def _origin(state: LeaseState, kind: str) -> str:
    """Through which edge a lease came, and goes if nobody says otherwise."""
    if state.endpoint is not None:
        return state.endpoint.origin.value
    if kind == OwnerKind.GATEWAY:
        return state.pool.origin.value
    return Origin.DOCKER.value if kind == OwnerKind.DOCKER else Origin.API.value


def _now() -> int:
    return (datetime.now(UTC) - _EPOCH) // _TICK


def _text(pool: Pool, address: int) -> str:
    return str(ipaddress.IPv6Address(address) if pool.subnet.version == 6 else ipaddress.IPv4Address(address))


def _as_record(row: tuple[Any, ...]) -> LeaseRecord:
    """A row of _HISTORY."""
    address, pool, kind, owner, network, container, ifname, node, labels, since, until, released_by = row
    return LeaseRecord(
        address=ipaddress.ip_address(address),
        pool=pool,
        owner=LeaseOwner(OwnerKind(kind), owner),
        network=network,
        container=container,
        ifname=ifname,
        node=node,
        labels=json.loads(labels),
        since=_EPOCH + since * _TICK,
        until=None if until is None else _EPOCH + until * _TICK,
        released_by=released_by,
    )
