"""Addresses that Docker has given back: their leases end behind the answer.

Docker ignores what comes of ReleaseAddress, so there is no use in its waiting for that. Called by the use cases of Docker;
calls the store. The order is kept by `settle`, which whoever gives an address of the pool away calls first.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass

from .errors import OvsnetError
from .model import IPAddress, OwnerKind, Pool
from .store import Pending, Store

LOG = logging.getLogger(__name__)

_RETRY_PAUSE = 5.0  # seconds before what the store refused is tried again


@dataclass(frozen=True, slots=True, eq=False)
class _Release:
    pool: Pool
    address: IPAddress
    kinds: Collection[OwnerKind]


class Releases:
    """Ends leases, again until the store has taken it. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._again = threading.Lock()  # held while what failed is begun again: then it is in one of the two
        self._running: dict[_Release, Pending[bool]] = {}
        self._failed: set[_Release] = set()
        self._timer: threading.Timer | None = None
        self._stopped = False

    def begin(self, pool: Pool, address: IPAddress, kinds: Collection[OwnerKind]) -> None:
        """End the lease of an address whose owner is of one of `kinds`, and do not wait for it."""
        self._begin(_Release(pool, address, kinds))

    def settle(self, pool: str = "") -> None:
        """Wait for the releases of a pool (its uuid), or of all, and try again what failed; its error."""
        self._begin_again(pool)
        with self._guard:
            running = [pending for one, pending in self._running.items() if pool in ("", one.pool.uuid)]
        for pending in running:
            pending.result()

    def stop(self) -> None:
        """Wait for all of them; what the store does not take now stays leased."""
        with self._guard:
            self._stopped = True
            if self._timer is not None:
                self._timer.cancel()
        try:
            self.settle()
        except OvsnetError as exc:
            LOG.warning("addresses that Docker has released stay leased (see `ovsnet ipam release`): %s", exc)

    def _begin(self, one: _Release) -> None:
        try:
            pending = self._store.release_soon(one.pool, one.address, one.kinds)
        except OvsnetError as exc:
            self._refused(one, exc)
            return
        with self._guard:
            self._running[one] = pending
        pending.then(lambda done: self._ended(one, done))

    def _ended(self, one: _Release, done: Pending[bool]) -> None:
        try:
            if not done.result():
                LOG.info("address %s of pool %s stays: its owner is still there", one.address, one.pool.name)
        except OvsnetError as exc:
            self._refused(one, exc)
        finally:
            with self._guard:
                self._running.pop(one, None)

    def _refused(self, one: _Release, exc: OvsnetError) -> None:
        LOG.warning("address %s of pool %s is not released yet: %s", one.address, one.pool.name, exc)
        with self._guard:
            self._failed.add(one)
            if self._timer is None and not self._stopped:
                self._timer = threading.Timer(_RETRY_PAUSE, self._retry)
                self._timer.daemon = True
                self._timer.start()

    def _retry(self) -> None:
        with self._guard:
            self._timer = None
        self._begin_again()

    def _begin_again(self, pool: str = "") -> None:
        with self._again:
            with self._guard:
                again = {one for one in self._failed if pool in ("", one.pool.uuid)}
                self._failed -= again
            for one in again:
                self._begin(one)
