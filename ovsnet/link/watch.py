"""Who wants to hear of it when something happens to our devices on the host: a thread that listens to the kernel."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

from ..errors import OvsnetError
from ..names import DeviceNames
from . import messages as m
from .wire import Refused, Socket

LOG = logging.getLogger(__name__)

_GROUPS = m.RTMGRP_LINK | m.RTMGRP_IPV4_IFADDR | m.RTMGRP_IPV6_IFADDR
_LOOK_SECONDS = 1.0
_PAUSE = 1.0  # seconds before the kernel is listened to again after a failure


class Watch:
    """Calls `observer` with the name of each switch port's or gateway's device that has gone, or is not as it should be in
    service: down, with ARP, without a link on it, with addresses that came or went; and with "" when messages were lost.

    In a thread of its own, which the observer must not keep.
    """

    def __init__(self, names: DeviceNames, observer: Callable[[str], None]) -> None:
        self._ports, self._gateways = (one.rstrip("*") for one in (names.port_pattern, names.gateway_pattern))
        self._observer = observer
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="link-watch", daemon=True)

    def start(self) -> None:
        """Listen from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more; the thread ends within a second, and nobody need wait for it."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with Socket(_GROUPS) as host:
                    host.wait_at_most(_LOOK_SECONDS)
                    self._observer("")  # what happened before
                    while not self._stopping.is_set():
                        self._tell(host.told())
            except (Refused, OSError, OvsnetError) as exc:
                LOG.warning("the kernel cannot be listened to, which is tried again: %s", exc)
                self._stopping.wait(_PAUSE)
            except Exception:
                LOG.exception("listening to the kernel failed by a defect, and is tried again")
                self._stopping.wait(_PAUSE)

    def _tell(self, told: list[tuple[int, bytes]] | None) -> None:
        if told is None:
            self._observer("")
            return
        for name in {name for kind, body in told if (name := self._concerned(kind, body))}:
            self._observer(name)

    def _concerned(self, kind: int, body: bytes) -> str:
        """The name of the device that a message concerns, "" if it is none of ours or fine."""
        if kind in (m.RTM_NEWADDR, m.RTM_DELADDR):
            index, _ = m.read_address(body)
            try:
                name = socket.if_indextoname(index)
            except OSError:
                return ""  # it has gone, which is told too
            return name if name.startswith((self._ports, self._gateways)) else ""
        if kind not in (m.RTM_NEWLINK, m.RTM_DELLINK) or body[0]:  # with a family it is of a part of the device
            return ""
        device = m.read_device(body)
        if device.name.startswith(self._gateways):
            return device.name
        if not device.name.startswith(self._ports):
            return ""
        fine = kind == m.RTM_NEWLINK and device.up and not device.arp and device.carries
        return "" if fine else device.name
