"""What passes an endpoint's switch port, for some seconds: a mirror to a port of its own that is listened on and removed again.

A use case. The mirror is removed by who made it, whatever happens; where the database does not answer just then, a moment later;
and after a crash at the next start. Called by the controller.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .errors import InvalidRequest, NotFound, OvsnetError, TooManyRequests
from .link import compile_filter, record

if TYPE_CHECKING:
    from .controller import Controller

LOG = logging.getLogger(__name__)

MAX_SECONDS = 60
MAX_BYTES = 16 << 20
AT_ONCE = 2  # each keeps a thread of those that serve requests
_AGAIN = 2.0  # seconds until a mirror that could not be removed is tried again


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """What to record of the endpoint (a uuid): for so many seconds, so many bytes of the file, by a pcap-filter(7) or ""."""

    endpoint: str
    seconds: int
    size: int
    filter: str = ""


class Captures:
    """Those of one host. Thread-safe."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._lock = threading.Lock()
        self._taps: set[str] = set()
        self._stopping = threading.Event()

    def run(self, wanted: CaptureRequest) -> bytes:
        """A file of libpcap's format, when the time is over or it is full.

        EndpointNotFound; InvalidRequest for the filter, or an endpoint of another node; NotFound without a switch port;
        TooManyRequests, Unavailable.
        """
        endpoint = self._controller.endpoint(wanted.endpoint)
        if endpoint.node != self._controller.settings.node:
            raise InvalidRequest(f"the endpoint is on node {endpoint.node}", hint="ask the ovsnetd of that node")
        program = compile_filter(wanted.filter) if wanted.filter.strip() else b""
        port = self._controller.switch.find_port(endpoint.port)
        if port is None:
            raise NotFound(f"the switch has no port {endpoint.port} of ours", hint="see `ovsnet reconcile`")
        tap = replace(port, name=self._controller.names.new_port(), rate=0, burst=0)
        with self._tap(tap.name):
            self._controller.switch.mirror(port.name, tap)
            self._controller.switch.wait_ports((tap.name,), self._controller.settings.deadline)
            self._controller.links.prepare_port(tap.name, endpoint.mtu)
            LOG.info("what passes port %s is recorded for %d s", port.name, wanted.seconds)
            return record(tap.name, program, wanted.seconds, wanted.size, self._stopping.is_set)

    def sweep(self, bridge: str = "") -> None:
        """Remove what nobody waits for; with `bridge`, everything on that one, which is to go."""
        self._controller.switch.sweep_mirrors(frozenset if bridge else self._wanted, bridge)

    def _wanted(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._taps)

    def stop(self) -> None:
        """End those that run."""
        self._stopping.set()

    @contextmanager
    def _tap(self, name: str) -> Iterator[None]:
        """The right to make that port, which is removed in the end."""
        with self._lock:
            if len(self._taps) >= AT_ONCE or self._stopping.is_set():
                raise TooManyRequests(
                    f"{len(self._taps)} captures run already", hint="try again when one has ended", retry_after="10"
                )
            self._taps.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._taps.discard(name)
            self._clean()

    def _clean(self) -> None:
        try:
            self.sweep()
        except OvsnetError as exc:
            LOG.warning("a capture's mirror cannot be removed yet: %s", exc)
            if not self._stopping.is_set():
                timer = threading.Timer(_AGAIN, self._clean)
                timer.daemon = True
                timer.start()
