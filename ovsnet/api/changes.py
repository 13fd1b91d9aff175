"""What every change passes around its operation: keys that make it happen once, the state it is meant for, and the audit log.

Called by `create_app` only. A change of one thing (a pool, a network, an endpoint) holds a lock on it, so that nobody else on
this host comes between the look at `If-Match`, the change, and what the audit log tells of before and after.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, g, json, request
from pydantic import BaseModel

from ovsnet.audit import Audit, Change
from ovsnet.errors import InvalidRequest, KeyReused, OvsnetError, PreconditionFailed, PreconditionMissing
from ovsnet.locks import KeyedLocks

from .gate import caller
from .resource import Look, is_rehearsal, tag_of

METHODS = ("POST", "PATCH", "DELETE")
KEPT = 86400.0  # seconds for which an answer is given again
MAX_KEY = 255  # characters
_MAX_ANSWERS = 10_000
_MAX_BYTES = 16 << 20
_KEPT_HEADERS = ("Content-Type", "Location", "ETag")
_PATIENCE = 20.0  # seconds to wait for another request with the same key, or for the same thing


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that may be given again."""

    request: bytes  # fingerprint
    until: float  # monotonic seconds
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Answers:
    """Answers by key, a day long, unless there are too many: then the oldest go. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Answer] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> Answer | None:
        """The answer of that key, if it is kept."""
        with self._lock:
            self._forget()
            return self._kept.get(key)

    def keep(self, key: str, fingerprint: bytes, response: Response) -> None:
        """Keep an answer."""
        body = response.get_data()
        headers = tuple((name, response.headers[name]) for name in _KEPT_HEADERS if name in response.headers)
        with self._lock:
            self._drop(key)
            self._kept[key] = Answer(fingerprint, self._clock() + KEPT, response.status_code, headers, body)
            self._bytes += len(body)
            self._forget()

    def _forget(self) -> None:
        now = self._clock()
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            if oldest.until > now and len(self._kept) <= _MAX_ANSWERS and self._bytes <= _MAX_BYTES:
                return
            self._drop(key)

    def _drop(self, key: str) -> None:
        dropped = self._kept.pop(key, None)
        if dropped is not None:
            self._bytes -= len(dropped.body)


def register(app: Flask, looks: Mapping[str, Look], audit: Audit, queries: Mapping[str, frozenset[str]]) -> None:
    """Put `app`'s changes under these rules.

    `looks` has for a blueprint's name how to look at one of its things; `queries` which keys an operation's query may have.
    """
    answers = Answers()
    locks = KeyedLocks()

    @app.before_request
    def begin() -> Response | None:
        operation = f"{request.method} {request.url_rule}"
        if request.method not in METHODS or operation not in queries:
            return None
        _check_query(queries[operation])
        g.held = ExitStack()
        key = request.headers.get("Idempotency-Key")
        if key is not None:
            if not 0 < len(key) <= MAX_KEY or not key.isprintable():
                raise InvalidRequest(
                    "the Idempotency-Key is empty, too long or not printable", hint="send a new UUID for each change"
                )
            g.key = f"{caller().name} {key}"
            g.fingerprint = _fingerprint()
            g.held.enter_context(locks.hold(f"key {g.key}", _PATIENCE))
            again = answers.get(g.key)
            if again is not None:
                del g.key
                return _again(again)
        g.before = None
        look = looks.get(str(request.blueprint))
        refs = request.view_args or {}
        if look is not None and refs:
            g.look = lambda: look(next(iter(refs.values())))
            thing = g.look()
            g.held.enter_context(locks.hold(f"{request.blueprint} {thing.id}", _PATIENCE))
            g.before = g.look()
            if operation.endswith(">"):  # the thing itself, not something of it
                _check_precondition(g.before)
        g.changing = True
        return None

    @app.after_request
    def end(response: Response) -> Response:
        if not g.get("changing") or is_rehearsal():
            return response
        if response.status_code < 400 or response.status_code >= 500:  # what failed may have changed something too
            who = caller()
            told = [(request.path, g.before, _after(response))]
            told += [(path, before, _look_again(look)) for path, before, look in g.get("also", ())]
            for path, before, after in told:
                audit.record(
                    Change(
                        caller=who.name,
                        role=who.role.value,
                        method=request.method,
                        path=path,
                        operation=str(request.endpoint).rpartition(".")[2],
                        status=response.status_code,
                        before=None if before is None else before.model_dump(mode="json"),
                        after=after,
                    )
                )
        # A token's text is told once; a capture would leave no room for other answers.
        if "key" in g and response.status_code < 400 and request.blueprint not in ("tokens", "captures"):
            answers.keep(g.key, g.fingerprint, response)
        return response

    @app.teardown_request
    def release(_error: BaseException | None) -> None:
        held: ExitStack | None = g.pop("held", None)
        if held is not None:
            held.close()


def _check_query(known: frozenset[str]) -> None:
    """A key that says nothing to the operation may have been meant to keep it from acting."""
    for key in request.args:
        if key not in known:
            refusal = InvalidRequest(
                f"{key[:80]}: unknown key", hint=f"the keys are {', '.join(sorted(known)) or 'none'}"
            )
            refusal.details = {key[:80]: "unknown key"}
            raise refusal


def _fingerprint() -> bytes:
    head = f"{request.method} {request.full_path} {request.headers.get('If-Match', '')}\n"
    return hashlib.sha256(head.encode() + request.get_data()).digest()


def _again(answer: Answer) -> Response:
    if answer.request != g.fingerprint:
        raise KeyReused("the Idempotency-Key came with another request before", hint="send a new one for each change")
    response = Response(answer.body, answer.status)
    for name, value in answer.headers:
        response.headers[name] = value
    response.headers["Idempotency-Replayed"] = "true"
    return response


def _check_precondition(thing: BaseModel) -> None:
    if "If-Match" not in request.headers:
        if request.method == "PATCH":
            raise PreconditionMissing(
                "the change does not say which state it is meant for",
                hint="send If-Match with the ETag that GET tells, or If-Match: * for whatever it is",
            )
        return
    tag = tag_of(thing)
    if not request.if_match.contains(tag):
        raise PreconditionFailed(
            "it has changed since it was read", hint="read it again, and decide again", etag=f'"{tag}"'
        )


def _after(response: Response) -> Any:
    """What is there now, as JSON; None if nothing is, or it cannot be told."""
    if response.status_code >= 500 or response.status_code == 202:
        return None
    if response.status_code == 201 and request.blueprint == "tokens":
        return json.loads(response.get_data())["token"]
    if "look" not in g:
        return json.loads(response.get_data()) if response.is_json else None
    return _look_again(g.look)


def _look_again(look: Callable[[], BaseModel]) -> Any:
    try:
        return look().model_dump(mode="json")
    except OvsnetError:
        return None
