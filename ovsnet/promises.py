"""Changes of endpoints that Docker has been told of before they were through.

Docker does not use an endpoint before it has called Join, and ignores what comes of DeleteEndpoint. What comes next for the
same endpoint asks here first. Called by the use cases of Docker; calls nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from .errors import DeadlineExceeded, OvsnetError

_BROKEN_MOST = 1000  # failures that are remembered for who asks; Docker asks within a second, if it lives


class Promise:
    """Something that Docker was told about an endpoint. Whoever gave it calls `end` in any case."""

    def __init__(self, close: Callable[[Promise, OvsnetError | None], None]) -> None:
        self._close = close
        self._ended: Future[None] = Future()

    def end(self, failure: OvsnetError | None = None) -> None:
        """It is kept, or this is why it is not."""
        self._close(self, failure)
        self._ended.set_result(None)

    def then(self, told: Callable[[Promise], object]) -> None:
        """Have `told` called at its end, or now if that was: it must be quick."""
        self._ended.add_done_callback(lambda _: told(self))

    def wait(self, timeout: float) -> None:
        """Wait for its end; DeadlineExceeded."""
        try:
            self._ended.result(timeout)
        except FutureTimeout:
            raise DeadlineExceeded(
                f"an endpoint of Docker is not made or removed after {timeout:.0f} s", hint="ask again later"
            ) from None


class Promises:
    """What was promised about endpoints, by their owner key. Thread-safe; `deadline` is in seconds."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._guard = threading.Lock()
        self._open: dict[str, Promise] = {}
        self._broken: dict[str, OvsnetError] = {}  # the oldest first

    def give(self, key: str) -> Promise:
        """Promise something about the endpoint of that key."""

        def close(promise: Promise, failure: OvsnetError | None) -> None:
            with self._guard:
                if self._open.get(key) is promise:
                    del self._open[key]
                if failure is not None:
                    self._broken[key] = failure
                    while len(self._broken) > _BROKEN_MOST:
                        del self._broken[next(iter(self._broken))]

        promise = Promise(close)
        with self._guard:
            self._broken.pop(key, None)
            self._open[key] = promise
        return promise

    def check(self, key: str) -> None:
        """Wait for what is promised about `key`; the error why it was not kept. DeadlineExceeded."""
        promise = self._open.get(key)
        if promise is not None:
            promise.wait(self._deadline)
        failure = self._broken.get(key)
        if failure is not None:
            raise failure

    def forget(self, key: str) -> None:
        """Nobody will ask for `key` any more."""
        with self._guard:
            self._broken.pop(key, None)

    def settle(self) -> None:
        """Wait for all, kept or not. DeadlineExceeded."""
        with self._guard:
            left = list(self._open.values())
        for one in left:
            one.wait(self._deadline)
