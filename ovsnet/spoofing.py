"""Anti-spoofing: which ports are guarded, and as whom their owners may send.

A use case, called by the controller, Docker's driver and the spare ports; tells the switch's flows what is wanted. A port that is
nobody's lets nothing in but what the one may send who is expected to get it, and an attach is answered once the switch has the
flows: so there is never a moment in which a container could send as somebody else.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from .config import Settings
from .errors import InvalidRequest, SwitchUnavailable
from .model import ANTI_SPOOFING, Endpoint, Network, PortRole, Sender, SwitchPort
from .switch import Flows

LOG = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds to wait for the switch at the start; then its thread goes on alone


def check_label(labels: Mapping[str, str]) -> None:
    """InvalidRequest if the network's label is neither true nor false."""
    value = labels.get(ANTI_SPOOFING, "true")
    if value not in ("true", "false"):
        raise InvalidRequest(f"{ANTI_SPOOFING}={value[:80]!r} is neither true nor false", hint="write true or false")


def guarded(network: Network) -> bool:
    """Whether the network wants its ports guarded."""
    return network.labels.get(ANTI_SPOOFING) != "false"


class SpoofGuard:
    """Has the ports of this host guarded, unless the settings or the port's network say no. Raises SwitchUnavailable."""

    def __init__(self, settings: Settings, flows: Flows) -> None:
        self._on = settings.anti_spoofing
        self.flows = flows

    def applies(self, network: Network) -> bool:
        """Whether ports of that network are guarded."""
        return self._on and guarded(network)

    def prepare(
        self, network: Network, senders: Mapping[str, Sender | None], numbers: Mapping[str, int] | None = None
    ) -> None:
        """Ports that are nobody's, by name: what gets in by them, until they are opened, is only what the one who is expected to
        get the port may send, or nothing at all. New ones come with their OpenFlow `numbers`.
        """
        if senders and self.applies(network):
            self.flows.wait(self.flows.guard(network.bridge, senders, numbers or {}))

    def fits(self, network: Network, endpoint: Endpoint, expected: Sender | None) -> bool:
        """Whether a port that was prepared for `expected` is the endpoint's without more."""
        return not self.applies(network) or _sender(endpoint) == expected

    def open(self, network: Network, endpoint: Endpoint) -> Future[None] | None:
        """Let the endpoint's container send by its port as itself; `wait` for it before anybody is told that it can."""
        return self.flows.admit(network.bridge, endpoint.port, _sender(endpoint)) if self.applies(network) else None

    def wait(self, opening: Future[None] | None) -> None:
        """Wait for what `open` has begun."""
        if opening is not None:
            self.flows.wait(opening)

    def missing(self, network: Network, endpoint: Endpoint) -> int:
        """How many of the flows that guard the endpoint's port the switch does not have."""
        return len(self.flows.missing(network.bridge, endpoint.port)) if self.applies(network) else 0

    def forget(self, ports: Iterable[str]) -> None:
        """Ports that are gone."""
        self.flows.forget(ports)

    def leave(self, bridge: str) -> None:
        """No network of ours is on the bridge any more."""
        if self._on:
            self.flows.leave(bridge)

    def restore(
        self, networks: Collection[Network], endpoints: Collection[Endpoint], ports: Collection[SwitchPort]
    ) -> None:
        """After a start: have the ports of this host guarded as they should be, with only the differences written."""
        by_uuid = {one.uuid: one for one in networks}
        by_port = {one.port: one for one in endpoints}
        wanted: dict[str, dict[str, Sender | None]] = {}
        for port in ports:
            network, endpoint = by_uuid.get(port.network), by_port.get(port.name)
            if network is not None and port.role is not PortRole.GATEWAY and self.applies(network):
                wanted.setdefault(port.bridge, {})[port.name] = _sender(endpoint) if endpoint else None
        idle = {one.bridge for one in networks} - wanted.keys()
        for bridge in idle:
            self.flows.leave(bridge)
        restored = {bridge: self.flows.restore(bridge, senders) for bridge, senders in wanted.items()}
        for bridge, one in restored.items():
            try:
                one.result(_PATIENCE)
            except (SwitchUnavailable, FutureTimeout) as exc:
                LOG.warning("bridge %s does not guard its ports yet: %s", bridge, exc or "no answer")


def _sender(endpoint: Endpoint) -> Sender:
    return Sender(endpoint.mac, tuple(one.ip for one in endpoint.addresses), bool(endpoint.trunk))
