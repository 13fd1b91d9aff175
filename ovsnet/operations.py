"""One line in the log and one observation for every operation that somebody asks for: what, how long, and how it ended.

Owns the request's id, which every line that is logged on the way carries (`add_request_id` puts it there). The edges begin and
end operations; the composition root says who observes them. An edge may tell an operation behind its answer: the line costs
ten times as much as the observation (docs/decisions/0025).
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from typing import Any, Final

import structlog

log = structlog.get_logger("ovsnet.operations")

OK: Final = "ok"  # the result of what succeeded; else it is an error code, see ovsnet.errors, or CNI's own as `cni-4`

Observe = Callable[[str, str, str, float], None]  # edge, operation, result, seconds

_GIVEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}\Z")  # what a caller's id may look like: it goes into the log
_request_id: ContextVar[str] = ContextVar("request_id", default="")
_behind: ContextVar[list[Callable[[], object]] | None] = ContextVar("behind", default=None)


def observe_nothing(edge: str, operation: str, result: str, seconds: float) -> None:
    """For who wants no observations."""


def behind(action: Callable[[], object]) -> None:
    """Have it done when this thread's answer has gone; at once where there is none that an edge sends first."""
    actions = _behind.get()
    if actions is None:
        action()
    else:
        actions.append(action)


class Operation:
    """An operation that runs in this thread, from its making to `end`. `edge` is cni, docker or rest.

    `request_id` is the caller's own, used if it is letters, digits and `_.-`, 64 at most; else there is a fresh one of 8
    digits. An edge that sends its answer `first` calls `complete` then, whatever has become of the answer.
    """

    def __init__(self, edge: str, name: str, observe: Observe, request_id: str = "", *, first: bool = False) -> None:
        self.edge = edge
        self.name = name
        self.id = request_id if _GIVEN.match(request_id) else secrets.token_hex(4)
        self._observe = observe
        self._token = _request_id.set(self.id)
        self._actions: list[Callable[[], object]] = []
        self._behind_token = _behind.set(self._actions if first else None)
        self._began = time.monotonic()
        self._seconds = 0.0
        self._result = OK

    def end(self, result: str) -> None:
        """It has ended with `result`: OK or an error code."""
        self._seconds = time.monotonic() - self._began
        self._result = result
        _request_id.reset(self._token)
        _behind.reset(self._behind_token)
        self._observe(self.edge, self.name, result, self._seconds)

    def complete(self) -> None:
        """Do what is to be done behind the answer."""
        token = _request_id.set(self.id)
        try:
            for action in self._actions:
                try:
                    action()
                except Exception as exc:  # logged here: the answer has gone, and the next action is somebody else's
                    log.error(f"{self.edge} {self.name} broke behind its answer", exc_info=exc)
        finally:
            _request_id.reset(token)

    def tell(self, level: int = logging.INFO, **told: Any) -> None:
        """Its line in the log, after its end; what is "" or None is left out. A failure's is a warning at least."""
        level = level if self._result == OK else max(level, logging.WARNING)
        given = {key: value for key, value in told.items() if value not in ("", None)}
        log.log(
            level,
            f"{self.edge} {self.name}",
            result=self._result,
            ms=round(self._seconds * 1e3, 1),
            request_id=self.id,
            **given,
        )


def add_request_id(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog: whatever is logged during an operation carries its id."""
    del logger, method
    if identity := _request_id.get():
        event.setdefault("request_id", identity)
    return event
