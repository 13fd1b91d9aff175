"""Switch ports for endpoints, some of them made ahead.

ovs-vswitchd's reconfigure takes 4 ms with no port and 200 ms with 2,000, so an attach must not wait for it: each active network
keeps a few spare ports, already tagged, configured and up. Owns the spares and the thread that makes and removes them; the use
cases take ports from it and give them back. One that is given back as it was becomes a spare again: containers come and go
without a reconfigure.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, Protocol

from .crashpoints import Point, reach
from .errors import OvsnetError
from .link import Links
from .model import IPAddress, Network, Origin, PortRole, Sender, SwitchPort
from .names import DeviceNames
from .spoofing import SpoofGuard
from .switch import Switch

LOG = logging.getLogger(__name__)

_FAREWELL = 2.0  # seconds to wait for spares that are being made for a network that goes away
_BREATH = 0.005  # seconds by which work behind an answer lets it go ahead
_RETRY_PAUSE = 5.0  # seconds before ports are tried again after the switch refused
_HUSH = 0.3  # seconds that work behind an answer keeps out of the way of what the caller does next
_HUSH_MOST = 0.5  # seconds that claims and removals wait, however many callers ask for quiet
_AT_ONCE = 4  # ports that become spares again in one go: claims and removals wait meanwhile, 20 ms for each
_KEPT = 4  # times as many ports as are made ahead are kept of those that come back


@dataclass(frozen=True, slots=True)
class Spare:
    """A port that is made; who is expected to get it, may send by it already. If `linked`, it has Docker's link, on the host."""

    name: str
    expected: Sender | None = None
    linked: bool = False


@dataclass(slots=True)
class _Shelf:
    """The spare ports of one network. If it is `linked`, they are made with a link, which only Docker can use."""

    network: Network
    linked: bool
    ready: deque[Spare] = field(default_factory=deque)
    last_use: float = field(default_factory=time.monotonic)
    last_look: float = 0.0  # whether who is expected still can be
    not_before: float = 0.0

    @property
    def count(self) -> int:
        """How many there are for whoever comes: links that only Docker can use are in the way of others."""
        return sum(self.linked or not one.linked for one in self.ready)


@dataclass(frozen=True, slots=True)
class _Return:
    """A port that may become a spare one again; `clear` ends what is on it, and tells whether nothing is."""

    network: Network
    clear: Callable[[], bool]


class Expects(Protocol):
    """The store, as far as it tells who comes next; see there."""

    def next_senders(self, network: Network, count: int, besides: Collection[IPAddress] = ()) -> list[Sender]:
        """As whom the next endpoints would send."""

    def still_next(self, network: Network, sender: Sender) -> bool:
        """Whether one of them still could."""


class Ports:
    """Gives out switch ports that are made, tagged, configured and up."""

    def __init__(
        self,
        switch: Switch,
        links: Links,
        spoofing: SpoofGuard,
        names: DeviceNames,
        *,
        expects: Expects,
        spares: int,
        idle: float,
        timeout: float,
    ) -> None:
        self._switch = switch
        self._links = links
        self._spoofing = spoofing
        self._names = names
        self._expects = expects
        self._spares = spares
        self._idle = idle
        self._timeout = timeout
        self._shelves: dict[str, _Shelf] = {}
        self._promised: dict[str, Sender] = {}  # of ports that were taken a moment ago, who was expected
        self._claims: dict[str, str] = {}  # port -> endpoint: to be written on the port
        self._unwanted: set[str] = set()  # to be removed, and not known to be
        self._leaving: set[str] = set()  # of these, being removed
        self._returns: dict[str, _Return] = {}  # of the unwanted, those that may stay
        self._next_removal = 0.0  # monotonic time
        self._quiet_until = 0.0  # monotonic time
        self._waiting_since = 0.0  # monotonic time of the first claim or removal that is not written; 0: none
        self._filling = threading.Lock()  # held while spares are made
        self._taking = threading.Lock()  # held while ports become spares again
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
        names = [one.name for shelf in self._shelves.values() for one in shelf.ready]
        self._shelves.clear()
        if names:
            self._remove(names).result(self._timeout)

    def take(
        self,
        network: Network,
        trunk: tuple[int, ...] = (),
        addresses: Collection[IPAddress] = (),
        tag: int | None = None,
        *,
        linked: bool = False,
    ) -> Spare:
        """A port on `network`'s bridge with its tag, up; a spare, or else one made now. SwitchUnavailable, LinkFailed.

        Of the spares one that expects `addresses`, if they are asked for; one with a link on it only if `linked`, as Docker wants
        it. One that is to carry the VLANs of a `trunk` as well, or that is to have a `tag` of its own, is never a spare.
        """
        if trunk or tag is not None:
            return self._make(network, 1, trunk, tag)[0]
        with self._wake:
            shelf = self._shelf(network)
            shelf.last_use = time.monotonic()
            shelf.linked &= linked  # from now on either can take them
            ready = [one for one in shelf.ready if linked or not one.linked]
        best = self._best(network, ready, set(addresses))  # asks the store, for which nobody else is to wait
        with self._wake:
            if best not in shelf.ready:  # somebody was quicker
                best = next((one for one in shelf.ready if linked or not one.linked), None)
            if best is not None:
                shelf.ready.remove(best)
            if best is not None and best.expected is not None:
                self._promised[best.name] = best.expected
        return best or self._make(network, 1)[0]

    def _best(self, network: Network, ready: Sequence[Spare], wanted: Collection[IPAddress]) -> Spare | None:
        """The spare that is made for who wants these addresses; for who wants none, the first that expects what still can be."""
        for one in ready:
            if one.expected is not None and (
                set(one.expected.addresses) == wanted if wanted else self._still_next(network, one)
            ):
                return one
        return next(iter(ready), None)

    def make(self, network: Network, count: int, trunk: tuple[int, ...] = (), tag: int | None = None) -> list[str]:
        """New ports in one transaction, all or none, that nobody may send by yet. SwitchUnavailable, LinkFailed."""
        return [one.name for one in self._make(network, count, trunk, tag)]

    def follow(self, networks: Iterable[Network]) -> None:
        """Have spares made anew of those of `networks` that have got another VLAN tag than their spares."""
        with self._wake:
            for network in networks:
                if network.uuid in self._shelves:
                    self._shelf(network)
            self._nudge()

    def replenish(self) -> None:
        """Have missing spares made now; called at the end of a request, so that making them does not compete with it."""
        with self._wake:
            self._nudge()

    def hush(self) -> None:
        """Keep what is done behind answers out of the way for a moment, unless spares run short.

        Docker moves a link into a sandbox, or out of one, after our answer, and needs RTNL for that, which vswitchd holds for
        as long as it makes or removes ports.
        """
        self._quiet_until = time.monotonic() + _HUSH

    def claim(self, name: str, endpoint: str) -> None:
        """Write on the port whose it is, behind the answer: the store's row says so already."""
        with self._wake:
            self._promised.pop(name, None)
            self._claims[name] = endpoint
            self._waiting_since = self._waiting_since or time.monotonic()
            self._nudge()

    def give_back(self, name: str, network: Network, clear: Callable[[], bool]) -> None:
        """Keep a silent port that is nobody's any more, in the store neither, as a spare one; if that cannot be, `discard` it.

        `clear` deletes the link on it, and tells whether nothing is on it then. Both happen behind the answer. Only guarded
        ports are kept: what a bridge has learnt about the others can be anything.
        """
        with self._wake:
            shelf = self._shelves.get(network.uuid)
            coming = sum(one.network.uuid == network.uuid for one in self._returns.values())
            if (
                shelf is not None
                and len(shelf.ready) + coming < self._spares * _KEPT
                and self._spoofing.applies(network)
            ):
                self._returns[name] = _Return(network, clear)
        self.discard(name)

    def discard(self, name: str) -> None:
        """Remove a port that is nobody's any more: behind the answer, and again until the switch has taken it."""
        with self._wake:
            self._promised.pop(name, None)
            self._claims.pop(name, None)
            self._unwanted.add(name)
            self._waiting_since = self._waiting_since or time.monotonic()
            self._nudge()

    def flush(self) -> None:
        """Write at once what is to be written behind answers, and wait for it; what fails is tried again later.

        All that is nobody's is removed, and nothing becomes a spare.
        """
        with self._wake:
            self._returns.clear()
        if self._taking.acquire(timeout=self._timeout):  # what is becoming one right now is one then
            self._taking.release()
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
        for busy in (self._filling, self._taking):
            if busy.acquire(timeout=_FAREWELL):  # then those that are being made right now are gone
                busy.release()
        if shelf is not None and shelf.ready:
            self._remove([one.name for one in shelf.ready]).result(self._timeout)

    def shelved(self) -> frozenset[str]:
        """Ports that nobody has and that are known all the same: kept ready, or being removed."""
        with self._wake:
            return frozenset(one.name for shelf in self._shelves.values() for one in shelf.ready) | self._unwanted

    def lost(self, names: Iterable[str]) -> None:
        """Keep ports ready no longer that somebody has removed, or their devices; what is left of them goes."""
        gone = set(names)
        with self._wake:
            for shelf in self._shelves.values():
                self._unwanted |= gone.intersection(one.name for one in shelf.ready)
                shelf.ready = deque(one for one in shelf.ready if one.name not in gone)
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
        if shelf is None or shelf.network.tag != network.tag:
            if shelf is not None and shelf.ready:
                self._unwanted.update(one.name for one in shelf.ready)
                self._waiting_since = self._waiting_since or time.monotonic()
            shelf = self._shelves[network.uuid] = _Shelf(network, linked=network.origin is Origin.DOCKER)
        return shelf

    def _expected(self, network: Network, names: Collection[str]) -> dict[str, Sender | None]:
        """By port, who will get it if the next ones ask for nothing special."""
        if not self._spoofing.applies(network):
            return dict.fromkeys(names)
        with self._wake:
            shelf = self._shelves.get(network.uuid)
            senders = [one.expected for one in shelf.ready if one.expected] if shelf else []
            senders += self._promised.values()
        found = self._expects.next_senders(network, len(names), [each for one in senders for each in one.addresses])
        return dict(zip_longest(names, found[: len(names)]))

    def _make(
        self,
        network: Network,
        count: int,
        trunk: tuple[int, ...] = (),
        tag: int | None = None,
        *,
        ahead: bool = False,
    ) -> list[Spare]:
        names = [self._names.new_port() for _ in range(count)]
        ports = [replace(self._spare(name, network, trunk), tag=network.tag if tag is None else tag) for name in names]
        try:
            self._switch.add_ports(ports).result(self._timeout)
            numbers = self._switch.wait_ports(names, self._timeout)
            reach(Point.SPARE_MADE)
            senders = self._expected(network, names) if ahead else dict.fromkeys(names)
            self._spoofing.prepare(network, senders, numbers)
            spares = self._set_up(network, senders, linked=ahead and self._linked(network))
            reach(Point.SPARE_READY)
        except OvsnetError:
            _log_failure(self._remove(names), "ports stay that failed")  # the answer is what failed first
            raise
        return spares

    def _set_up(self, network: Network, senders: Mapping[str, Sender | None], *, linked: bool) -> list[Spare]:
        """Set guarded ports up, and make a link on each, which saves Docker 2 ms and RTNL; a container of CNI makes its own."""
        for name, sender in senders.items():
            self._links.prepare_port(name, network.mtu)
            if linked:
                self._links.plug_host(name, self._names.docker_link(name), sender.mac if sender else "", network.mtu)
        return [Spare(name, sender, linked) for name, sender in senders.items()]

    def _linked(self, network: Network) -> bool:
        with self._wake:
            shelf = self._shelves.get(network.uuid)
            return shelf is not None and shelf.linked

    @staticmethod
    def _spare(name: str, network: Network, trunk: tuple[int, ...] = ()) -> SwitchPort:
        return SwitchPort(name, network.bridge, network.tag, network.mtu, PortRole.SPARE, network.uuid, trunk=trunk)

    def _run(self) -> None:
        while self._running:
            with self._wake:
                if not self._has_work():
                    quiet = self._quiet_end() - time.monotonic()
                    self._wake.wait(quiet if 0 < quiet < 1.0 else 1.0)
                busy = self._has_work()
            try:
                if busy:
                    self._work()
                self._drop_idle()
            except Exception:  # without this thread no port would be removed any more
                LOG.exception("keeping spare ports failed by a defect")
                time.sleep(1.0)

    def _work(self) -> None:
        """One turn of what is done behind answers."""
        time.sleep(_BREATH)  # the answer leaves first, and what others want meanwhile shares the transaction
        with self._wake:
            hushed = time.monotonic() < self._quiet_end()
        if not hushed:
            self._write()
            with self._taking:
                self._take_back()
        with self._wake:
            shelf = self._due() if self._running else None
            missing = self._spares - shelf.count if shelf else 0
        if shelf is not None:
            with self._filling:
                self._fill(shelf, missing)
        with self._filling:
            self._expect_others()

    def _nudge(self) -> None:
        """Have the thread look what there is to do, or when the quiet ends that this has to wait for."""
        self._wake.notify()

    def _has_work(self) -> bool:
        now = time.monotonic()
        unwritten = self._claims or self._returns or (self._to_remove() and self._next_removal <= now)
        return not self._running or bool(unwritten and now >= self._quiet_end()) or self._due() is not None

    def _to_remove(self) -> set[str]:
        return self._unwanted - self._leaving - self._returns.keys()

    def _quiet_end(self) -> float:
        """Until when claims and removals are to wait."""
        return min(self._quiet_until, self._waiting_since + _HUSH_MOST) if self._waiting_since else self._quiet_until

    def _due(self) -> _Shelf | None:
        """A network that lacks spares; while it is to be quiet, only one that lacks more than half."""
        now = time.monotonic()
        enough = self._spares if now >= self._quiet_until else self._spares / 2
        for shelf in self._shelves.values():
            if shelf.count < enough and shelf.not_before <= now:
                return shelf
        return None

    def _fill(self, shelf: _Shelf, count: int) -> None:
        try:
            spares = self._make(shelf.network, count, ahead=True)
        except OvsnetError as exc:
            LOG.warning("no spare ports for network %s: %s", shelf.network.name, exc)
            shelf.not_before = time.monotonic() + _RETRY_PAUSE
            return
        self._shelve(shelf, spares)

    def _expect_others(self) -> None:
        """Have the spares whose expected addresses somebody else was given expect others, where spares were taken since."""
        with self._wake:
            used = [one for one in self._shelves.values() if one.last_use > one.last_look]
        for shelf in used:
            shelf.last_look = time.monotonic()
            stale: list[Spare] = []
            try:
                with self._wake:
                    ready = list(shelf.ready)
                wrong = [one for one in ready if not self._still_next(shelf.network, one)]
                with self._wake:
                    stale += (one for one in wrong if one in shelf.ready)  # some may have been taken
                    shelf.ready = deque(one for one in shelf.ready if one not in stale)
                senders = self._expected(shelf.network, [one.name for one in stale])
                self._spoofing.prepare(shelf.network, senders)
            except OvsnetError as exc:
                LOG.warning("spare ports of network %s go, for none can be expected: %s", shelf.network.name, exc)
                for one in stale:
                    self.discard(one.name)
            else:
                self._shelve(shelf, [replace(one, expected=senders[one.name]) for one in stale])

    def _still_next(self, network: Network, spare: Spare) -> bool:
        return spare.expected is None or self._expects.still_next(network, spare.expected)

    def _shelve(self, shelf: _Shelf, spares: Collection[Spare]) -> None:
        """Keep spares, unless their network has gone meanwhile: then they are removed."""
        with self._wake:
            if self._shelves.get(shelf.network.uuid) is shelf and self._running:
                shelf.ready.extend(spares)
                return
        try:
            self._remove([one.name for one in spares]).result(self._timeout)
        except OvsnetError as exc:
            LOG.warning("spare ports stay whose network has gone: %s", exc)

    def _take_back(self) -> None:
        """Make spares of some that may be, of one network; those that cannot are removed by the next write."""
        with self._wake:
            network = next((one.network for one in self._returns.values()), None)
            if network is None:
                return
            ours = [name for name, one in self._returns.items() if one.network.uuid == network.uuid][:_AT_ONCE]
            returns = {name: self._returns[name] for name in ours}
        spares: Collection[Spare] = ()
        try:
            spares = self._return(network, returns)
        except OvsnetError as exc:
            LOG.warning("%d ports of network %s do not become spares again: %s", len(ours), network.name, exc)
        finally:  # by a defect too: then they are removed
            with self._wake:
                for name in ours:
                    self._returns.pop(name, None)
                shelf = self._shelves.get(network.uuid)
                if shelf is not None and self._running and shelf.network.tag == network.tag:
                    self._unwanted -= {one.name for one in spares}
                    shelf.ready.extend(spares)

    def _return(self, network: Network, returns: Mapping[str, _Return]) -> Collection[Spare]:
        """Those that are spares now; before they are up again nobody may send by them who did."""
        bare = [name for name, one in returns.items() if one.clear()]
        if not bare:
            return []
        senders = self._expected(network, bare)
        self._spoofing.prepare(network, senders)
        reach(Point.PORT_CLEARED)
        ports = {self._spare(name, network): self._links.counters(name) for name in bare}
        (names,) = self._switch.return_ports(ports).result(self._timeout)
        spares = self._set_up(network, {name: senders[name] for name in names}, linked=self._linked(network))
        reach(Point.PORT_RETURNED)
        return spares

    def _write(self) -> None:
        """Send the claims and removals that wait."""
        with self._wake:
            self._waiting_since = 0.0
            claims, self._claims = self._claims, {}
            leaving = self._to_remove() if self._next_removal <= time.monotonic() else set()
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
