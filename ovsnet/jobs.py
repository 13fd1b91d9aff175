"""Long work behind the answer: begun by a request, asked about by its id, until an hour after its end.

Kept in memory: an operation ends with ovsnetd. What it does is idempotent, so that the same request takes it up again.
"""

from __future__ import annotations

import itertools
import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from .errors import NotFound, OvsnetError, Unavailable, problem

LOG = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # how much is done, of how much

MAX_WAITING = 100
_KEPT = timedelta(hours=1)
_MAX_KEPT = 1000
_THREADS = 2  # the work waits for the databases and the kernel, which the requests need, too


@dataclass(frozen=True, slots=True)
class Job:
    """The state of one piece of work, which the API calls an operation.

    `total` 0: not known yet. `problem` (RFC 9457) is why it failed, `result` what it yielded.
    """

    id: str
    kind: str
    subject: str
    by: str
    status: str  # running, succeeded or failed
    started: datetime
    done: int = 0
    total: int = 0
    ended: datetime | None = None
    problem: dict[str, Any] | None = None
    result: Any = None


class Jobs:
    """All of this ovsnetd. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Job] = OrderedDict()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="job")

    def start(self, kind: str, subject: str, by: str, work: Callable[[Progress], Any]) -> Job:
        """Begin `work`, or find that the same kind of work on the same subject runs already. Unavailable if too much waits.

        What `work` returns is JSON; an OvsnetError of it is told.
        """
        with self._lock:
            self._forget()
            running = [one for one in self._known.values() if one.status == "running"]
            same = next((one for one in running if (one.kind, one.subject) == (kind, subject)), None)
            if same is not None:
                return same
            if len(running) >= MAX_WAITING:
                raise Unavailable(f"{MAX_WAITING} operations wait already", hint="try again when some have ended")
            job = Job(str(uuid.uuid4()), kind, subject, by, "running", datetime.now(UTC))
            self._known[job.id] = job
        self._pool.submit(self._run, job.id, work)
        return job

    def get(self, ident: str) -> Job:
        """The operation of that id; NotFound."""
        with self._lock:
            self._forget()
            job = self._known.get(ident)
        if job is None:
            raise NotFound(
                f"there is no operation {ident[:80]!r}", hint="it ended long ago, or ovsnetd was started again since"
            )
        return job

    def all(self) -> list[Job]:
        """All that are known, the latest last."""
        with self._lock:
            self._forget()
            return list(self._known.values())

    def stop(self) -> None:
        """Begin nothing more; what runs goes on until the process ends."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, ident: str, work: Callable[[Progress], Any]) -> None:
        def progress(done: int, total: int) -> None:
            self._update(ident, done=done, total=total)

        try:
            result = work(progress)
        except OvsnetError as exc:
            self._end(ident, status="failed", problem=problem(exc))
        except Exception:
            LOG.exception("operation %s failed", ident)
            told = OvsnetError("ovsnetd failed on this operation", hint="its log has the traceback; please report it")
            self._end(ident, status="failed", problem=problem(told))
        else:
            self._end(ident, status="succeeded", result=result)

    def _end(self, ident: str, **what: Any) -> None:
        job = self._update(ident, ended=datetime.now(UTC), **what)
        LOG.info("%s %s by %s %s", job.kind, job.subject or "of all", job.by, job.status)

    def _update(self, ident: str, **what: Any) -> Job:
        with self._lock:
            job = self._known[ident] = replace(self._known[ident], **what)
            if job.ended is not None:
                self._known.move_to_end(ident)  # those that ended first are forgotten first
            return job

    def _forget(self) -> None:
        before = datetime.now(UTC) - _KEPT
        ended = [one for one in self._known.values() if one.ended is not None]
        old = [one for one in ended if one.ended is not None and one.ended < before]
        for one in itertools.chain(old, ended[: max(0, len(ended) - _MAX_KEPT)]):
            self._known.pop(one.id, None)
