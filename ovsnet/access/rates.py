"""Token buckets, one for each caller: how often somebody may ask."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_CALLERS = 10_000  # that are remembered; who was forgotten begins with a full bucket


class Rates:
    """`rate` requests a second for each caller in the long run, and `burst` at once. Thread-safe.

    A rate of 0 limits nobody.
    """

    def __init__(self, rate: float, burst: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = max(1.0, 2 * rate if burst is None else burst)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what was left, and when

    def take(self, name: str) -> float:
        """Seconds that the caller has to wait before its next request; 0.0 if this one may pass, and is counted."""
        if not self._rate:
            return 0.0
        with self._lock:
            now = self._clock()
            left, then = self._buckets.pop(name, (self._burst, now))
            left = min(self._burst, left + (now - then) * self._rate)
            passes = left >= 1.0
            self._buckets[name] = (left - 1.0 if passes else left, now)
            if len(self._buckets) > _CALLERS:
                self._buckets.popitem(last=False)
        return 0.0 if passes else (1.0 - left) / self._rate
