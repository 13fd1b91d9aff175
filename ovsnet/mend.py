"""Repairs of what the store wants and this host has not: one by one for an endpoint, or with a new port for many at once.

A use case: calls the rooms, and the controller for what an attach does as well. Called by the reconciler, which holds the
endpoints' locks meanwhile and has just looked at them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

from .alter import limit, port_of
from .controller import Controller
from .crashpoints import Point, reach
from .docker import IFACE_PREFIX
from .errors import OvsnetError
from .link import LinkInfo, Netns, open_netns
from .model import Endpoint, Network, Origin, Route
from .plan import Presence, Sandbox

_BATCH = 50  # ports in one transaction: vswitchd makes them in about the time that it takes for one


class Mender:
    """The repairs of one host's endpoints. Every method raises OvsnetError, and may be called again."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._called: dict[str, str] = {}  # endpoints of Docker (uuids), and what their interface was seen to be called

    def remember(self, endpoint: Endpoint, link: LinkInfo | None) -> None:
        """Note what Docker calls an endpoint's interface: it tells nobody."""
        if link is not None:
            self._called[endpoint.uuid] = link.name

    def forget(self, but: Sequence[Endpoint]) -> None:
        """Keep notes of these endpoints only."""
        kept = {one.uuid for one in but}
        self._called = {uuid: name for uuid, name in self._called.items() if uuid in kept}

    def new_ports(
        self, endpoints: Sequence[Endpoint], networks: Mapping[str, Network], sandboxes: Mapping[str, Sandbox]
    ) -> dict[str, OvsnetError | None]:
        """Give endpoints new ports for theirs that are lost, and links on these; by uuid, the error of each that failed.

        Under the old name it would not do: of a port's end and its return at once vswitchd sees nothing.
        """
        outcome: dict[str, OvsnetError | None] = {}
        groups: dict[tuple[str, tuple[int, ...], int | None], list[Endpoint]] = {}
        for one in endpoints:
            groups.setdefault((one.network, one.trunk, one.own_tag), []).append(one)
        for (uuid, trunk, tag), group in groups.items():
            for begin in range(0, len(group), _BATCH):
                batch, network = group[begin : begin + _BATCH], networks[uuid]
                try:
                    ports = self._controller.ports.make(network, len(batch), trunk, tag)
                except OvsnetError as exc:
                    outcome |= dict.fromkeys((one.uuid for one in batch), exc)
                    continue
                reach(Point.REPAIR_PORTS)
                for endpoint, port in zip(batch, ports, strict=True):
                    outcome[endpoint.uuid] = self._move(endpoint, network, port, sandboxes[endpoint.uuid])
        return outcome

    def _move(self, old: Endpoint, network: Network, port: str, sandbox: Sandbox) -> OvsnetError | None:
        controller = self._controller
        try:
            endpoint = controller.store.set_endpoint(old.uuid, port=port)
        except OvsnetError as exc:
            controller.ports.discard(port)
            return exc
        reach(Point.REPAIR_MOVED)
        controller.ports.claim(port, endpoint.uuid)
        try:
            controller.spoofing.wait(controller.spoofing.open(network, endpoint))
            reach(Point.REPAIR_OPENED)
            controller.links.silence(old.port)
            controller.unlimit(old)
            if sandbox.link is not None:  # of a port that is on the wrong bridge, say
                with open_netns(old.sandbox) as netns:
                    controller.links.unplug_netns(netns, sandbox.link.name, old.port)
            controller.ports.discard(old.port)
            reach(Point.REPAIR_UNPLUGGED)
            if endpoint.bandwidth:
                self.limit(endpoint)
            self.plug(endpoint, network, replace(sandbox, link=None))
        except OvsnetError as exc:
            return exc
        return None

    def mark(self, endpoint: Endpoint, network: Network) -> None:
        """Give an endpoint's port its VLANs and marks back."""
        self._controller.switch.mend_port(port_of(endpoint, network))
        reach(Point.REPAIR_MARKED)

    def prepare(self, endpoint: Endpoint, network: Network) -> None:
        """Make the host's end of its link quiet and up."""
        self._controller.links.prepare_port(endpoint.port, network.mtu)
        if endpoint.quarantined:
            self._controller.links.silence(endpoint.port)
        reach(Point.REPAIR_PREPARED)

    def limit(self, endpoint: Endpoint) -> None:
        """Put its limits in place again."""
        limit(self._controller, endpoint)
        reach(Point.REPAIR_LIMITED)

    def plug(self, endpoint: Endpoint, network: Network, sandbox: Sandbox) -> None:
        """Make its link again, in its namespace if that is there; Docker's, before it joins, on the host."""
        links = self._controller.links
        if sandbox.presence is Presence.HERE:
            with open_netns(endpoint.sandbox) as netns:
                if endpoint.origin is Origin.DOCKER:
                    self._plug_docker(endpoint, network, netns)
                else:
                    self._controller.plug_again(endpoint, network, netns)
        elif endpoint.origin is Origin.DOCKER and sandbox.presence is Presence.NONE:
            links.plug_host(endpoint.port, endpoint.link, endpoint.mac, endpoint.mtu)
        if endpoint.quarantined:
            links.silence(endpoint.port)
        reach(Point.REPAIR_PLUGGED)

    def _plug_docker(self, endpoint: Endpoint, network: Network, netns: Netns) -> None:
        """As Docker would: its name for the interface, or the next one in its order, and its default route if there is none."""
        links = self._controller.links
        name = self._called.get(endpoint.uuid)
        if name is None or links.link(name, netns) is not None:
            prefix = network.labels.get(IFACE_PREFIX, "eth")
            name = next(one for number in count() if links.link(one := f"{prefix}{number}", netns) is None)
        default = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}
        ours = {one.version for one in endpoint.addresses}
        routes = tuple(Route(default[one.version], one.ip) for one in network.gateways if one.version in ours)
        links.plug_netns(endpoint.port, netns, name, endpoint.mac, endpoint.mtu, endpoint.addresses, routes)
