"""Addresses that Docker has just been given, which only this process knows of until CreateEndpoint writes them.

Docker asks for an address and a millisecond later makes an endpoint of it. Written with the endpoint, it costs one transaction
and not two, and Docker waits for none of them. What no endpoint was made of is written by itself a moment later, for another
network driver may use it. Called by the use cases of Docker; calls the store.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from .errors import OvsnetError, Unavailable
from .model import IPAddress, LeaseOwner, Pool
from .store import Pending, Store

LOG = logging.getLogger(__name__)

_PATIENCE = (
    0.1  # seconds for CreateEndpoint to come; a thousand at once take longer, and then it is as if nothing was held
)
_RETRY_PAUSE = 5.0  # seconds before what the store refused is tried again


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """An address that is held for Docker. `given` is in monotonic seconds."""

    pool: Pool
    address: IPAddress
    owner: LeaseOwner
    given: float = field(default_factory=time.monotonic)


class Holds:
    """The addresses that are held. Thread-safe.

    `written` is told of each write that begins, with the address that it is of.
    """

    def __init__(self, store: Store, written: Callable[[Pending[IPAddress], Collection[IPAddress]], object]) -> None:
        self._store = store
        self._written = written
        self._changed = threading.Condition()
        self._held: dict[tuple[str, IPAddress], Held] = {}
        self._writing: dict[Held, Pending[IPAddress]] = {}
        self._stopped = False
        self._thread: threading.Thread | None = None

    def take(self, pool: Pool, owner: LeaseOwner) -> IPAddress | None:
        """An address of the pool, held for that owner; None if one has to be leased instead. StateUnavailable."""
        if self._stopped:
            return None
        address = self._store.hold(pool, owner)
        if address is not None:
            self._keep(Held(pool, address, owner))
        return address

    def claim(self, pools: Collection[str], addresses: Collection[IPAddress]) -> list[Held]:
        """Those of the addresses that are held, of pools by uuid: who calls writes them, and then tells `end`."""
        with self._changed:
            found = [self._held.pop((pool, one), None) for pool in pools for one in addresses]
        return [one for one in found if one is not None]

    def end(self, claimed: Collection[Held], *, written: bool) -> None:
        """What was claimed is written; or it is not, and is held again."""
        for one in claimed:
            if written:
                self._store.let_go(one.pool, one.address)
            else:
                self._keep(one)

    def drop(self, pool: Pool, address: IPAddress) -> bool:
        """Docker gives an address back; whether it was held, so that nothing is left to release."""
        with self._changed:
            held = self._held.pop((pool.uuid, address), None)
        if held is not None:
            self._store.let_go(pool, address, unused=True)
        return held is not None

    def settle(self, pool: str = "") -> None:
        """Have all that are held of a pool (its uuid), or of all pools, written now; the error if one cannot be."""
        with self._changed:
            now = [one for one in self._held.values() if pool in ("", one.pool.uuid)]
            for one in now:
                del self._held[one.pool.uuid, one.address]
            writing = [pending for one, pending in self._writing.items() if pool in ("", one.pool.uuid)]
        for pending in [*writing, *map(self._write, now)]:
            pending.result()

    def stop(self) -> None:
        """Have all of them written; what the store does not take is forgotten."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        try:
            self.settle()
        except OvsnetError as exc:
            LOG.warning("addresses that Docker was given are not written: %s", exc)
        if self._thread is not None:
            self._thread.join(_RETRY_PAUSE)

    def _keep(self, one: Held) -> None:
        with self._changed:
            self._held[one.pool.uuid, one.address] = one
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="held-addresses", daemon=True)
                self._thread.start()
            elif len(self._held) == 1:
                self._changed.notify()

    def _run(self) -> None:
        while not self._stopped:
            with self._changed:
                if not self._held:
                    self._changed.wait()
                    continue
                due = min(one.given for one in self._held.values()) + _PATIENCE
                if (left := due - time.monotonic()) > 0:
                    self._changed.wait(left)
                    continue
                now = time.monotonic()
                late = [one for one in self._held.values() if one.given + _PATIENCE <= now]
                for one in late:
                    del self._held[one.pool.uuid, one.address]
            for one in late:
                try:
                    self._write(one)
                except OvsnetError as exc:
                    self._refused(one, exc)

    def _write(self, one: Held) -> Pending[IPAddress]:
        pending = self._store.allocate_soon(one.pool, one.owner, one.address)
        with self._changed:
            self._writing[one] = pending
        self._written(pending, [one.address])
        pending.then(lambda done: self._ended(one, done))
        return pending

    def _ended(self, one: Held, done: Pending[IPAddress]) -> None:
        with self._changed:
            self._writing.pop(one, None)
        try:
            done.result()
        except OvsnetError as exc:
            self._refused(one, exc)
        else:
            self._store.let_go(one.pool, one.address)

    def _refused(self, one: Held, exc: OvsnetError) -> None:
        if isinstance(exc, Unavailable):
            LOG.warning(
                "address %s of pool %s is not written yet, which Docker has: %s", one.address, one.pool.name, exc
            )
            self._keep(replace(one, given=time.monotonic() + _RETRY_PAUSE))
        else:  # it is written already, as it is when its endpoint was undone, or its pool is gone
            LOG.info("address %s of pool %s is held no longer: %s", one.address, one.pool.name, exc)
            self._store.let_go(one.pool, one.address)
