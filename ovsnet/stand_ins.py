"""What Docker finds in a sandbox where the link was that Leave has taken out of service.

Docker sets the link down, which waits 12 to 17 ms for an RCU grace period if it is a macvlan, and moves it to the host; without a
link of that name it would keep the interface in its picture of the sandbox. So it gets one that is down already. It goes with
DeleteEndpoint. Called by the use cases of Docker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from .controller import Controller
from .errors import InvalidNetns, OvsnetError
from .link import StandIn, open_netns
from .model import Endpoint

LOG = logging.getLogger(__name__)

_PATIENCE = (
    5.0  # seconds for DeleteEndpoint, which comes at once; the reconciler, which would mend the port, waits longer
)
_LINGER = 1.0  # seconds after DeleteEndpoint: the port is used again sooner, and then it is closed before


@dataclass(frozen=True, slots=True, eq=False)
class Left:
    """An endpoint whose link, out of service, is still in the namespace at `sandbox`. `since` is in monotonic seconds."""

    endpoint: Endpoint
    sandbox: str
    stand_in: StandIn
    since: float = field(default_factory=time.monotonic)


class StandIns:
    """The stand-ins of this host. `plug` makes an endpoint's link anew for Join. Thread-safe."""

    def __init__(self, controller: Controller, plug: Callable[[Endpoint], object]) -> None:
        self._controller = controller
        self._plug = plug
        self._changed = threading.Condition()
        self._left: dict[str, Left] = {}  # by the endpoint's uuid, the oldest first
        self._closing: deque[tuple[float, StandIn]] = deque()  # until when they are needed, the first to go first
        self._thread: threading.Thread | None = None
        self._told: set[str] = set()  # why there was no stand-in, as the log has it already

    def put(self, endpoint: Endpoint) -> None:
        """Take the endpoint's link out of service; where that cannot be, Docker sets it down itself."""
        if not endpoint.sandbox or endpoint.uuid in self._left:
            return
        try:
            with open_netns(endpoint.sandbox) as netns:
                stand_in = self._controller.links.stand_in(netns, endpoint.port)
        except InvalidNetns as exc:
            LOG.debug("Docker sets the link on %s down itself: %s", endpoint.port, exc)
            return
        except OvsnetError as exc:
            why = exc.details.get("errno", exc.code)  # a host without /dev/net/tun says the same each time
            level = logging.DEBUG if why in self._told else logging.WARNING
            self._told.add(why)
            LOG.log(level, "Docker sets the link on %s down itself: %s", endpoint.port, exc)
            return
        if stand_in is None:
            return
        with self._changed:
            self._left[endpoint.uuid] = Left(endpoint, endpoint.sandbox, stand_in)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="docker-left", daemon=True)
                self._thread.start()
            elif len(self._left) == 1:
                self._changed.notify()

    def take(self, endpoint: Endpoint) -> Left | None:
        """What has become of the endpoint's link, for who goes on with it; the stand-in is closed soon, if nobody does before."""
        with self._changed:
            left = self._left.pop(endpoint.uuid, None)
            if left is not None and left.stand_in.close.alive:
                self._closing.append((time.monotonic() + _LINGER, left.stand_in))
                self._changed.notify()
            return left

    def restore(self, endpoint: Endpoint) -> None:
        """Have an endpoint whose link was taken out of service be as before Join, if it is one. OvsnetError."""
        if endpoint.uuid not in self._left:
            return
        links = self._controller.links
        with self._controller.endpoint_lock(endpoint):
            left = self._left.get(endpoint.uuid)
            if left is None:
                return
            left.stand_in.close()
            present = self._controller.store.find_endpoint(endpoint.key)
            if present is not None and present.port == left.endpoint.port:  # or else the port goes, and what is on it
                try:
                    with open_netns(left.sandbox) as netns:
                        links.clear(present.port, present.link, netns)
                except InvalidNetns:
                    LOG.debug("the link on %s has gone with %s", present.port, left.sandbox)
                self._plug(present)
                if not present.quarantined:
                    links.revive(present.port)
            self.take(endpoint)  # at last: whoever finds it still waits for the lock

    def _watch(self) -> None:
        """Close what is no longer needed, and restore those for which DeleteEndpoint does not come."""
        while True:
            with self._changed:
                now = time.monotonic()
                due = [until for until, _ in islice(self._closing, 1)]
                due += [one.since + _PATIENCE for one in islice(self._left.values(), 1)]
                if not due or min(due) > now:
                    self._changed.wait(min(due) - now if due else None)
                    continue
                closing = [stand_in for until, stand_in in self._closing if until <= now]
                for _ in closing:
                    self._closing.popleft()
                late = [one.endpoint for one in islice(self._left.values(), 1) if one.since + _PATIENCE <= now]
            for stand_in in closing:
                stand_in.close()
            for endpoint in late:
                try:
                    self.restore(endpoint)
                except OvsnetError as exc:
                    LOG.warning("endpoint %s, which Docker has left, has no link: %s", endpoint.uuid, exc)
                    self.take(endpoint)
