"""Who goes first when the interpreter is wanted by many: runtimes that start containers, then those that look.

One interpreter serves all of them, one thread at a time. A read of a hundred things takes it for a millisecond; with a read in
each of 32 threads, an ADD that comes back from a system call finds all of them before it, a dozen times. So one read runs at a
time, and while a runtime is served none begins, but for one every 20 ms, lest they wait for ever. A read that takes long keeps
nobody waiting: it waits for something else than the interpreter, such as its reader. Called by the listeners.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LONG: Final = 0.05  # seconds after which the next read may begin beside one that is not done
HELD: Final = 0.02  # seconds for which the read that is next lets runtimes go first; most are served by then


class Precedence:
    """The order of one process. Thread-safe."""

    def __init__(self, *, long: float = LONG, held: float = HELD) -> None:
        self._long, self._held = long, held
        self._door = threading.Lock()  # the read that is next waits for its turn, the others for this
        self._changed = threading.Condition()
        self._reader: object = None  # whose turn it is
        self._began = 0.0  # that turn, monotonic seconds
        self._served = 0  # requests of runtimes

    @contextmanager
    def runtime(self) -> Iterator[None]:
        """A request of a runtime, from the moment it is here until its answer is away."""
        with self._changed:
            self._served += 1
        try:
            yield
        finally:
            with self._changed:
                self._served -= 1
                if not self._served:
                    self._changed.notify()

    @contextmanager
    def read(self) -> Iterator[None]:
        """The turn of a read: begins when it may."""
        me = object()
        with self._door, self._changed:
            patient = time.monotonic() + self._held
            while (wait := self._wait(patient)) > 0:
                self._changed.wait(wait)
            self._reader, self._began = me, time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                if self._reader is me:
                    self._reader = None
                    self._changed.notify()

    def _wait(self, patient: float) -> float:
        """Seconds until the read may begin that is next, should nothing change; it lets runtimes go first until `patient`."""
        now = time.monotonic()
        return max(
            patient - now if self._served else 0.0,
            self._began + self._long - now if self._reader is not None else 0.0,
        )
