"""Addresses that Docker has given back: their leases end behind the answer.

Docker ignores what comes of ReleaseAddress, so there is no use in its waiting for that. Called by the use cases of Docker;
calls the store. The order is kept by `settle`, which whoever gives an address of the pool away calls first.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any, Protocol

from .errors import DeadlineExceeded, OvsnetError
from .model import IPAddress, OwnerKind, Pool
from .store import Pending, Store

LOG = logging.getLogger(__name__)

_RETRY_PAUSE = 5.0  # seconds before what the store refused is tried again
_PATIENCE = 30.0  # seconds to wait for one: the store's deadline for it, and for what it comes after, are shorter


@dataclass(frozen=True, slots=True, eq=False)
class _Release:
    pool: Pool
    address: IPAddress
    kinds: Collection[OwnerKind]
    ended: Future[None] = field(default_factory=Future)


class Ending(Protocol):
    """Something that goes on."""

    def then(self, told: Callable[[Any], object]) -> None:
        """Have `told` called at its end."""


class Releases:
    """Ends leases, again until the store has taken it. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._again = threading.Lock()  # held while what failed is begun again: then it is in one of the two
        self._running: set[_Release] = set()
        self._before: dict[IPAddress, Ending] = {}
        self._failed: set[_Release] = set()
        self._timer: threading.Timer | None = None
        self._stopped = False

    def begin(self, pool: Pool, address: IPAddress, kinds: Collection[OwnerKind]) -> None:
        """End the lease of an address whose owner is of one of `kinds`, and do not wait for it."""
        one = _Release(pool, address, kinds)
        with self._guard:
            self._running.add(one)
            before = self._before.get(address)
        if before is None:
            self._begin(one)
        else:
            before.then(lambda _: self._begin(one))

    def after(self, write: Ending, addresses: Collection[IPAddress]) -> None:
        """Begin releases of these addresses only after the end of `write`, which changes who has them."""
        with self._guard:
            self._before.update(dict.fromkeys(addresses, write))
        write.then(lambda _: self._free(write, addresses))

    def settle(self, pool: str = "") -> None:
        """Wait for the releases of a pool (its uuid), or of all, and try again what failed; its error."""
        self._begin_again(pool)
        with self._guard:
            running = [one for one in self._running if pool in ("", one.pool.uuid)]
        for one in running:
            try:
                one.ended.result(_PATIENCE)
            except FutureTimeout:
                raise DeadlineExceeded(f"the release of address {one.address} does not end", hint="ask again") from None

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

    def _free(self, write: Ending, addresses: Collection[IPAddress]) -> None:
        with self._guard:
            for one in addresses:
                if self._before.get(one) is write:
                    del self._before[one]

    def _begin(self, one: _Release) -> None:
        try:
            pending = self._store.release_soon(one.pool, one.address, one.kinds)
        except OvsnetError as exc:
            self._refused(one, exc)
        else:
            pending.then(lambda done: self._ended(one, done))

    def _ended(self, one: _Release, done: Pending[bool]) -> None:
        try:
            if not done.result():
                LOG.info("address %s of pool %s stays: its owner is still there", one.address, one.pool.name)
        except OvsnetError as exc:
            self._refused(one, exc)
        else:
            with self._guard:
                self._running.discard(one)
            one.ended.set_result(None)

    def _refused(self, one: _Release, exc: OvsnetError) -> None:
        LOG.warning("address %s of pool %s is not released yet: %s", one.address, one.pool.name, exc)
        with self._guard:
            self._running.discard(one)
            self._failed.add(_Release(one.pool, one.address, one.kinds))
            if self._timer is None and not self._stopped:
                self._timer = threading.Timer(_RETRY_PAUSE, self._retry)
                self._timer.daemon = True
                self._timer.start()
        one.ended.set_exception(exc)

    def _retry(self) -> None:
        with self._guard:
            self._timer = None
        self._begin_again()

    def _begin_again(self, pool: str = "") -> None:
        with self._again:
            with self._guard:
                again = {one for one in self._failed if pool in ("", one.pool.uuid)}
                self._failed -= again
                self._running |= again
            for one in again:
                self._begin(one)
