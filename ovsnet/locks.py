"""Locks by key: one owner key, one operation at a time, whoever asks and however often."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import DeadlineExceeded


class Hold:
    """A lock that is held, by the block that it was taken for."""

    def __init__(self, release: Callable[[], None]) -> None:
        self.kept = False
        self._release = release

    def keep(self) -> Callable[[], None]:
        """Hold it beyond the end of the block, until what this returns is called, once, by any thread."""
        self.kept = True
        return self._release


class KeyedLocks:
    """Mutual exclusion by name; a lock exists only while somebody holds or awaits it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, key: str, timeout: float) -> Iterator[Hold]:
        """Hold the lock of `key`; DeadlineExceeded when it is not free within `timeout` seconds."""
        with self._guard:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, users + 1)
        if not lock.acquire(timeout=timeout):
            self._leave(key)
            raise DeadlineExceeded(
                f"another operation on {key} has not ended in {timeout:.0f} s", hint="ask again later"
            )

        def release() -> None:
            lock.release()
            self._leave(key)

        held = Hold(release)
        try:
            yield held
        finally:
            if not held.kept:
                release()

    def _leave(self, key: str) -> None:
        with self._guard:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)
