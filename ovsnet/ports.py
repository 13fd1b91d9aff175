"""Switch ports for endpoints, some of them made ahead.

ovs-vswitchd's reconfigure takes 4 ms with no port and 200 ms with 2,000, so an attach must not wait for it: each active network
keeps a few spare ports, already tagged, configured and up. Owns the spares and the thread that makes and removes them; the use
cases take ports from it and give them back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .crashpoints import Point, reach
from .errors import OvsnetError
from .link import Links
from .model import Network, PortRole, SwitchPort
from .names import DeviceNames
from .spoofing import SpoofGuard
from .switch import Switch

LOG = logging.getLogger(__name__)

_FAREWELL = 2.0  # seconds to wait for spares that are being made for a network that goes away
_BREATH = 0.005  # seconds by which work behind an answer lets it go ahead
_RETRY_PAUSE = 5.0  # seconds before ports are tried again after the switch refused
_HUSH = 0.1  # seconds that work behind an answer keeps out of the way of what the caller does next
_HUSH_MOST = 0.5  # seconds that claims and removals wait, however many callers ask for quiet


@dataclass(slots=True)
class _Shelf:
    """The spare ports of one network."""

    network: Network
    ready: deque[str] = field(default_factory=deque)
    last_use: float = field(default_factory=time.monotonic)
    not_before: float = 0.0


class Ports:
    """Gives out switch ports that are made, tagged, configured and up."""

    def __init__(
        self,
        switch: Switch,
        links: Links,
        spoofing: SpoofGuard,
        names: DeviceNames,
        *,
        spares: int,
        idle: float,
        timeout: float,
    ) -> None:
        self._switch = switch
        self._links = links
        self._spoofing = spoofing
        self._names = names
        self._spares = spares
        self._idle = idle
        self._timeout = timeout
        self._shelves: dict[str, _Shelf] = {}
        self._claims: dict[str, str] = {}  # port -> endpoint: to be written on the port
        self._unwanted: set[str] = set()  # to be removed, and not known to be
        self._leaving: set[str] = set()  # of these, being removed
        self._next_removal = 0.0  # monotonic time
        self._quiet_until = 0.0  # monotonic time
        self._waiting_since = 0.0  # monotonic time of the first claim or removal that is not written; 0: none
        self._filling = threading.Lock()  # held while spares are made
        self._written: set[Future[list[Any]]] = set()  # on their way to the switch
        self._wake = threading.Condition()
        self._running = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread that keeps the spares."""
        self._running = True
        self._thread = threading.Thread(target=self._run, name="spare-ports", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and remove the spares."""
        with self._wake:
            self._running = False
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(self._timeout)
        self.flush()
        names = [name for shelf in self._shelves.values() for name in shelf.ready]
        self._shelves.clear()
        if names:
            self._remove(names).result(self._timeout)

    def take(self, network: Network, trunk: tuple[int, ...] = ()) -> str:
        """A port on `network`'s bridge with its tag, up; a spare, or else one made now. SwitchUnavailable, LinkFailed.

        One that is to carry the VLANs of a `trunk` as well is never a spare.
        """
        if trunk:
            return self._make(network, 1, trunk)[0]
        with self._wake:
            shelf = self._shelf(network)
            shelf.last_use = time.monotonic()
            name = shelf.ready.popleft() if shelf.ready else None
        return name or self._make(network, 1)[0]

    def make(self, network: Network, count: int, trunk: tuple[int, ...] = ()) -> list[str]:
        """New ports, as `take` gives them, in one transaction: all or none. SwitchUnavailable, LinkFailed."""
        return self._make(network, count, trunk)

    def replenish(self) -> None:
        """Have missing spares made now; called at the end of a request, so that making them does not compete with it."""
        with self._wake:
            self._nudge()

    def hush(self) -> None:
        """Keep what is done behind answers out of the way for a moment, unless spares run short.

        Docker moves a link into a sandbox, or out of one, after our answer, and needs RTNL for that, which vswitchd holds for
        as long as it makes or removes ports.
        """
        with self._wake:
            now = time.monotonic()
            if now >= self._quiet_until:
                self._wake.notify()  # the thread looks when it ends
            self._quiet_until = now + _HUSH

    def claim(self, name: str, endpoint: str) -> None:
        """Write on the port whose it is, behind the answer: the store's row says so already."""
        with self._wake:
            self._claims[name] = endpoint
            self._waiting_since = self._waiting_since or time.monotonic()
            self._nudge()

    def discard(self, name: str) -> None:
        """Remove a port that is nobody's any more: behind the answer, and again until the switch has taken it."""
        with self._wake:
            self._claims.pop(name, None)
            self._unwanted.add(name)
            self._waiting_since = self._waiting_since or time.monotonic()
            self._nudge()

    def flush(self) -> None:
        """Write at once what is to be written behind answers, and wait for it; what fails is tried again later."""
        self._write()
        with self._wake:
            written = list(self._written)
        for one in written:
            with suppress(OvsnetError):
                one.result(self._timeout)

    def forget(self, network: str) -> None:
        """Remove the spares of a network, given by uuid, that is going away."""
        with self._wake:
            shelf = self._shelves.pop(network, None)
        if self._filling.acquire(timeout=_FAREWELL):  # then those that are being made right now are gone
            self._filling.release()
        if shelf is not None and shelf.ready:
            self._remove(list(shelf.ready)).result(self._timeout)

    def shelved(self) -> frozenset[str]:
        """Ports that nobody has and that are known all the same: kept ready, or being removed."""
        with self._wake:
            return frozenset(name for shelf in self._shelves.values() for name in shelf.ready) | self._unwanted

    def lost(self, names: Iterable[str]) -> None:
        """Keep ports ready no longer that somebody has removed, or their devices; what is left of them goes."""
        gone = set(names)
        with self._wake:
            for shelf in self._shelves.values():
                found = gone.intersection(shelf.ready)
                shelf.ready = deque(name for name in shelf.ready if name not in found)
                self._unwanted |= found
            self._wake.notify()

    def spares(self) -> dict[str, int]:
        """How many spares each network (uuid) has ready."""
        with self._wake:
            return {uuid: len(shelf.ready) for uuid, shelf in self._shelves.items()}

    # -----------------------------------------------------------------------------------------------------------------

    def _remove(self, names: Collection[str]) -> Future[list[Any]]:
        """Have the switch remove ports; what guards them goes with them."""
        removal = self._switch.del_ports(names)
        removal.add_done_callback(lambda done: None if done.exception() else self._spoofing.forget(names))
        return removal

    def _shelf(self, network: Network) -> _Shelf:
        shelf = self._shelves.get(network.uuid)
        if shelf is None:
            shelf = self._shelves[network.uuid] = _Shelf(network)
        return shelf

    def _make(self, network: Network, count: int, trunk: tuple[int, ...] = ()) -> list[str]:
        names = [self._names.new_port() for _ in range(count)]
        ports = [
            SwitchPort(name, network.bridge, network.tag, network.mtu, PortRole.SPARE, network.uuid, trunk=trunk)
            for name in names
        ]
        try:
            self._switch.add_ports(ports).result(self._timeout)
            numbers = self._switch.wait_ports(names, self._timeout)
            reach(Point.SPARE_MADE)
            self._spoofing.close(network, numbers)
            for name in names:
                self._links.prepare_port(name, network.mtu)
            reach(Point.SPARE_READY)
        except OvsnetError:
            _log_failure(self._remove(names), "ports stay that failed")  # the answer is what failed first
            raise
        return names

    def _run(self) -> None:
        while self._running:
            with self._wake:
                if not self._has_work():
                    quiet = self._quiet_end() - time.monotonic()
                    self._wake.wait(quiet if 0 < quiet < 1.0 else 1.0)
                busy = self._has_work()
            if busy:
                # The answer leaves first, and what others want meanwhile shares the transaction.
                time.sleep(_BREATH)
                with self._wake:
                    hushed = time.monotonic() < self._quiet_end()
                if not hushed:
                    self._write()
                with self._wake:
                    shelf = self._due() if self._running else None
                    missing = self._spares - len(shelf.ready) if shelf else 0
                if shelf is not None:
                    with self._filling:
                        self._fill(shelf, missing)
            self._drop_idle()

    def _nudge(self) -> None:
        """Wake the thread if there is something to do; what has to wait for quiet to end it finds by itself."""
        if self._has_work():
            self._wake.notify()

    def _has_work(self) -> bool:
        now = time.monotonic()
        unwritten = self._claims or (self._unwanted - self._leaving and self._next_removal <= now)
        return not self._running or bool(unwritten and now >= self._quiet_end()) or self._due() is not None

    def _quiet_end(self) -> float:
        """Until when claims and removals are to wait."""
        return min(self._quiet_until, self._waiting_since + _HUSH_MOST) if self._waiting_since else self._quiet_until

    def _due(self) -> _Shelf | None:
        """A network that lacks spares; while it is to be quiet, only one that lacks more than half."""
        now = time.monotonic()
        enough = self._spares if now >= self._quiet_until else self._spares / 2
        for shelf in self._shelves.values():
            if len(shelf.ready) < enough and shelf.not_before <= now:
                return shelf
        return None

    def _fill(self, shelf: _Shelf, count: int) -> None:
        try:
            names = self._make(shelf.network, count)
        except OvsnetError as exc:
            LOG.warning("no spare ports for network %s: %s", shelf.network.name, exc)
            shelf.not_before = time.monotonic() + _RETRY_PAUSE
            return
        with self._wake:
            if self._shelves.get(shelf.network.uuid) is shelf and self._running:
                shelf.ready.extend(names)
                return
        try:
            self._remove(names).result(self._timeout)
        except OvsnetError as exc:
            LOG.warning("spare ports stay whose network has gone: %s", exc)

    def _write(self) -> None:
        """Send the claims and removals that wait."""
        with self._wake:
            self._waiting_since = 0.0
            claims, self._claims = self._claims, {}
            leaving = self._unwanted - self._leaving if self._next_removal <= time.monotonic() else set()
            self._leaving |= leaving
            try:
                for name, endpoint in claims.items():
                    _log_failure(self._note(self._switch.claim_port(name, endpoint)), f"port {name} is not marked")
                if leaving:
                    removal = self._note(self._remove(leaving))
                    reach(Point.PORT_REMOVING)
                    removal.add_done_callback(lambda future: self._removed(leaving, future.exception()))
            except OvsnetError as exc:
                self._removed(leaving, exc)

    def _note(self, written: Future[list[Any]]) -> Future[list[Any]]:
        """Keep what is on its way, for `flush`."""
        self._written.add(written)
        written.add_done_callback(self._written.discard)
        return written

    def _removed(self, names: set[str], exc: BaseException | None) -> None:
        with self._wake:
            self._leaving -= names
            if exc is None:
                self._unwanted -= names
            else:
                self._next_removal = time.monotonic() + _RETRY_PAUSE
                self._waiting_since = self._waiting_since or time.monotonic()
        if exc is not None:
            LOG.warning("%d ports stay for now: %s", len(names), exc)

    def _drop_idle(self) -> None:
        now = time.monotonic()
        with self._wake:
            idle = [uuid for uuid, shelf in self._shelves.items() if now - shelf.last_use > self._idle]
        for uuid in idle:
            try:
                self.forget(uuid)
            except OvsnetError as exc:
                LOG.warning("idle spare ports stay for now: %s", exc)


def _log_failure(future: Future[list[Any]], what: str) -> None:
    """Have a change that nobody waits for say so when it fails; the next recovery mends it."""

    def look(done: Future[list[Any]]) -> None:
        if (exc := done.exception()) is not None:
            LOG.warning("%s: %s", what, exc)

    future.add_done_callback(look)
