"""The audit log: who changed what by the REST API, when, and what it was before and after.

It stands in the file of the event journal, which keeps it as long as the rest, and in ovsnetd's log. What Docker and CNI do is
told by the history of leases. Called by the API. Holds no secrets: a token's text is never told to it.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from .errors import NotFound
from .journal import Journal

LOG = logging.getLogger(__name__)

MAX_BYTES = 64 << 10  # of a state before or after; of a larger one only its size is kept
MAX_CHANGES = 1000  # that one question is answered with

_INSERT = """
INSERT INTO audit (time, caller, role, method, path, operation, status, before, after) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SELECT = """
SELECT id, time, caller, role, method, path, operation, status, before, after FROM audit
WHERE :caller IN ('', caller) AND (:path = '' OR path = :path OR substr(path, 1, length(:path) + 1) = :path || '/')
    AND (:since IS NULL OR time >= :since) AND (:before IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit
"""
_SECOND = 1_000_000  # the file's unit of time is the microsecond


@dataclass(frozen=True, slots=True)
class Change:
    """One change; `before` and `after` are JSON as the API shows it, None where there was nothing."""

    caller: str
    role: str
    method: str
    path: str
    operation: str
    status: int  # of HTTP; from 500 on it may have happened or not
    before: Any
    after: Any
    id: int = 0
    time: datetime = field(default_factory=lambda: datetime.now(UTC))


class Audit:
    """The audit log in a journal; None: only ovsnetd's own log has it."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal

    def record(self, change: Change) -> None:
        """Remember a change. Returns at once; never fails."""
        LOG.info(
            "%s (%s) %s %s: %d, %s",
            change.caller,
            change.role,
            change.method,
            change.path,
            change.status,
            change.operation,
        )
        if self._journal is not None:
            row = (
                int(change.time.timestamp() * _SECOND),
                change.caller,
                change.role,
                change.method,
                change.path,
                change.operation,
                change.status,
                _text(change.before),
                _text(change.after),
            )
            self._journal.record(partial(_insert, row))

    def changes(
        self, *, caller: str = "", path: str = "", since: datetime | None = None, before: int | None = None, limit: int
    ) -> list[Change]:
        """The latest changes first: of a caller, of what is at or below a path, since a moment, older than an id.

        NotFound where no journal is kept, Unavailable if it cannot be read.
        """
        if self._journal is None:
            raise NotFound("no audit log is kept on this host", hint="set journal_days and restart ovsnetd")
        asked = {
            "caller": caller,
            "path": path.rstrip("/"),
            "since": None if since is None else int(since.timestamp() * _SECOND),
            "before": before,
            "limit": limit,
        }
        return [_as_change(row) for row in self._journal.read(_SELECT, asked)]


def _insert(row: tuple[Any, ...], db: sqlite3.Connection) -> None:
    db.execute(_INSERT, row)


def _text(state: Any) -> str:
    text = json.dumps(state)
    return text if len(text) <= MAX_BYTES else json.dumps({"too_large": len(text)})


def _as_change(row: tuple[Any, ...]) -> Change:
    ident, moment, caller, role, method, path, operation, status, before, after = row
    return Change(
        caller=caller,
        role=role,
        method=method,
        path=path,
        operation=operation,
        status=status,
        before=json.loads(before),
        after=json.loads(after),
        id=ident,
        time=datetime.fromtimestamp(moment / _SECOND, UTC),
    )
