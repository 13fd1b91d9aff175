"""How Docker's endpoints are made and removed on this host, as little as can be of it while Docker waits.

CreateEndpoint is answered once the endpoint's write has been handed to the state database's server, which takes it whatever
becomes of us; DeleteEndpoint, once nobody is reached by the endpoint any more. What is left goes on behind the answers, and is
promised: the next call for the endpoint waits for it, and is told what has failed. Called by the use cases of Docker.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import alter
from .controller import Controller
from .crashpoints import Point, reach
from .dockerd import Callers
from .errors import OvsnetError
from .holds import Held, Holds
from .locks import Hold
from .model import Endpoint, IPInterface, Network
from .operations import behind
from .ports import Spare
from .promises import Promise, Promises
from .releases import Releases
from .stand_ins import Left, StandIns
from .store import Pending, PendingEndpoint

LOG = logging.getLogger(__name__)

REQUESTER = (
    "ovsnet.docker-requester"  # label of an endpoint: the dockerd that made it, or that replayed its address last
)


@dataclass(frozen=True, slots=True, eq=False)
class _Making:
    """An endpoint of which Docker is told; `undo` takes back what there is of it, `release` its lock."""

    network: Network
    requester: str
    write: PendingEndpoint
    held: Collection[Held]
    undo: ExitStack
    promise: Promise
    release: Callable[[], None]

    def end(self, failure: OvsnetError | None = None) -> None:
        """It is made, or this is why it is not."""
        self.promise.end(failure)
        self.release()


class DockerEndpoints:
    """Makes and removes endpoints, whose lock the caller holds. Thread-safe; raises OvsnetError only."""

    def __init__(self, controller: Controller, callers: Callers, holds: Holds, releases: Releases) -> None:
        self._controller = controller
        self._store = controller.store
        self._callers = callers
        self._holds = holds
        self._releases = releases
        self.stand_ins = StandIns(controller, self.plug)
        self.promises = Promises(2 * controller.settings.deadline)  # the deadline of a write, and then some

    def make(self, network: Network, draft: Endpoint, spare: Spare, name: str, lock: Hold) -> Endpoint:
        """The endpoint of `draft` on the port `spare`, its addresses kept for `name` unless that is "".

        If that fails, nothing of it stays, its port included. Its row may be on its way still, and then it has no uuid: the lock
        is held, and the endpoint promised, until it is there with its link.
        """
        families = {one.subnet.version for one in self._store.pools_of(network)}
        wanted = [one.ip for one in draft.addresses if one.version in families]
        requester = draft.labels.get(REQUESTER, "")
        with ExitStack() as undo:
            undo.callback(self._controller.ports.discard, draft.port)
            if name:
                self._keep(network, draft.addresses, name, undo)
                reach(Point.ENDPOINT_KEPT)
            held = self._holds.claim(network.pools, wanted)
            undo.callback(self._holds.end, held, written=False)
            # Lazily, unless the addresses are only held: if a power cut takes the endpoint, they stay Docker's.
            held_by = {one.address: one.owner for one in held}
            names = [name] if name else []  # it has the address by itself if an ovsnetd died that only held it
            write = self._store.attach_soon(draft, wanted, adopt=True, held_by=held_by, names=names, lazy=not held)
            undo.callback(self._controller.unwrite, write, requester)
            # An address that the store has to choose may be another one in the end, and Docker is told which.
            endpoint = (write.planned if len(wanted) == len(families) else None) or write.result()
            reach(Point.ENDPOINT_WRITTEN)
            # A spare port that was made for just that endpoint has its link and its flows.
            ready = spare.linked and not endpoint.bandwidth
            ready = ready and self._controller.spoofing.fits(network, endpoint, spare.expected)
            if not ready:
                self._set_up(network, endpoint, spare, undo)
            if write.done:
                write.result()
            promise, release = self.promises.give(draft.key), lock.keep()
            making = _Making(network, requester, write, held, undo.pop_all(), promise, release)
        self._controller.note_attached(draft.key)
        self._controller.ports.hush()
        behind(partial(self._go_on, making, endpoint, None if not ready else spare))
        return endpoint

    def remove(self, endpoint: Endpoint, lock: Hold) -> None:
        """Remove an endpoint that stands; its addresses are Docker's until ReleaseAddress, which waits for this.

        The link goes with its port, behind the answer: deleting it would take 15 to 20 ms under RTNL.
        """
        links = self._controller.links
        left = self.stand_ins.take(endpoint)
        # As it is with a stand-in, or when Docker has set it down and moved it back.
        if left is None and not links.parked(endpoint.link, endpoint.port):
            links.silence(endpoint.port)
        reach(Point.ENDPOINT_SILENCED)
        self._controller.unpublish(endpoint)
        self._controller.unlimit(endpoint)
        reach(Point.ENDPOINT_UNLIMITED)
        self._controller.ports.hush()
        with ExitStack() as undo:
            undo.callback(self._controller.ports.discard, endpoint.port)
            write = self._store.leave_soon(endpoint.uuid, endpoint.labels.get(REQUESTER, ""))
            undo.pop_all()
        promise, release = self.promises.give(endpoint.key), lock.keep()
        self._releases.after(promise, [one.ip for one in endpoint.addresses])

        def gone(done: Pending[None]) -> None:
            try:
                self._gone(endpoint, left, done.failure)
            finally:
                promise.end()
                release()

        write.then(gone)

    def plug(self, endpoint: Endpoint) -> None:
        """The link that Join will name."""
        links = self._controller.links
        links.plug_host(endpoint.port, endpoint.link, endpoint.mac, endpoint.mtu)
        if endpoint.quarantined:
            links.silence(endpoint.port)

    # -- making -------------------------------------------------------------------------------------------------------

    def _keep(self, network: Network, addresses: Sequence[IPInterface], name: str, undo: ExitStack) -> None:
        """Reserve the addresses that Docker was given for `name`."""
        for pool in self._store.pools_of(network):
            self._holds.settle(pool.uuid)
            for one in addresses:
                if one.version == pool.subnet.version and name not in pool.reservations:
                    self._store.reserve(pool, name, one.ip, adopt=True)
                    undo.callback(self._store.unreserve, pool, name)

    def _set_up(self, network: Network, endpoint: Endpoint, spare: Spare, undo: ExitStack) -> None:
        """Link, flows and limits: on a port that goes with it if we die, they mean nothing before the row is there."""
        opening = self._controller.open_spare(network, endpoint, spare)
        self.plug(endpoint)
        self._controller.spoofing.wait(opening)
        reach(Point.ENDPOINT_PLUGGED)
        if endpoint.bandwidth:
            undo.callback(self._controller.unlimit, endpoint)
            self._controller.limit(endpoint)
        reach(Point.ENDPOINT_LIMITED)

    def _go_on(self, making: _Making, endpoint: Endpoint, spare: Spare | None) -> None:
        """Behind the answer: set up what is not, and wait for the row without a thread."""
        try:
            if spare is not None:
                self._set_up(making.network, endpoint, spare, making.undo)
        except OvsnetError as exc:
            self._undo(making, exc)
        except BaseException:
            self._undo(making, OvsnetError("internal error while the endpoint was made"))
            raise
        else:
            making.write.then(lambda done: self._written(making, done))

    def _written(self, making: _Making, write: Pending[Endpoint]) -> None:
        """The row is there, or refused. Called by the engine's thread: what may take long is another one's."""
        if (failure := write.failure) is not None:
            self._callers.doubt(making.requester)
            _elsewhere(self._undo, making, failure)
            return
        endpoint = write.result()
        self._holds.end(making.held, written=True)
        present = self._store.latest_network(making.network.uuid)
        if present is not None and present.tag != making.network.tag:
            _elsewhere(self._catch_up, making, endpoint)
        else:
            self._finish(making, endpoint)

    def _catch_up(self, making: _Making, endpoint: Endpoint) -> None:
        """Its network has got another VLAN meanwhile."""
        try:
            alter.catch_up(self._controller, endpoint, making.network)
        except OvsnetError as exc:
            LOG.warning("port %s has its network's former VLAN until that is repaired: %s", endpoint.port, exc)
        finally:
            self._finish(making, endpoint)

    def _finish(self, making: _Making, endpoint: Endpoint) -> None:
        try:
            self._controller.ports.claim(endpoint.port, endpoint.uuid)
            reach(Point.ENDPOINT_CLAIMED)
            self._controller.ports.replenish()
        finally:
            making.end()

    def _undo(self, making: _Making, failure: OvsnetError) -> None:
        LOG.warning("an endpoint of Docker on network %s is undone: %s", making.network.name, failure)
        try:
            making.undo.close()
        finally:
            making.end(failure)

    # -- removing -----------------------------------------------------------------------------------------------------

    def _gone(self, endpoint: Endpoint, left: Left | None, failure: OvsnetError | None) -> None:
        """The row is gone, or stays until the reaper finds it. Called by the engine's thread."""
        if failure is not None:
            LOG.warning("endpoint %s stays for now, which Docker has deleted: %s", endpoint.uuid, failure)
            self._callers.doubt(endpoint.labels.get(REQUESTER, ""))
            self._controller.ports.discard(endpoint.port)
            return
        reach(Point.ENDPOINT_GONE)
        if left is None:
            self._controller.give_back(endpoint)
        else:
            self._controller.give_back(endpoint, left.sandbox, left.stand_in)
        reach(Point.ENDPOINT_DISCARDED)


def _elsewhere(work: Callable[..., None], *args: Any) -> None:
    """Do what takes long in a thread of its own."""
    threading.Thread(target=work, args=args, name="docker-behind", daemon=True).start()
