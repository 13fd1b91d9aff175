"""What differs between what the store wants and what switch and kernel have, and what to do about it.

Pure: `diff` compares two pictures that somebody else has taken, and its answer is a list in the order in which things are mended.
What carries no mark of ours is never part of it, and of networks that the store does not know nothing is removed that a
container may live by: an empty or foreign database must not take the wires of running containers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from .model import Endpoint, Network, Origin, PortRole, SwitchPort, SwitchState
from .names import DeviceNames, mac_for

if TYPE_CHECKING:
    from .link import LinkInfo


class Kind(StrEnum):
    """What can differ; stable, for scripts. In the order in which it is mended."""

    BRIDGE_MISSING = "bridge-missing"
    GATEWAY_MISSING = "gateway-missing"
    GATEWAY_WRONG = "gateway-wrong"
    NAMESPACE_GONE = "namespace-gone"
    PORT_MISSING = "port-missing"
    PORT_ELSEWHERE = "port-elsewhere"
    PORT_TRUNKED = "port-trunked"
    PORT_WRONG = "port-wrong"
    PORT_UNMARKED = "port-unmarked"
    PORT_FOREIGN = "port-foreign"
    DEVICE_MISSING = "device-missing"
    DEVICE_WRONG = "device-wrong"
    LINK_MISSING = "link-missing"
    LINK_UNFINISHED = "link-unfinished"
    LINK_FOREIGN = "link-foreign"
    LIMIT_WRONG = "limit-wrong"
    RULES_WRONG = "rules-wrong"
    PORT_STRAY = "port-stray"
    DEVICE_STRAY = "device-stray"
    LEASE_STRAY = "lease-stray"
    ABANDONED = "abandoned"


class Where(StrEnum):
    """On whose word something differs from the store."""

    SWITCH = "switch"  # the Open_vSwitch database
    HOST = "host"  # the kernel, in the host's namespace
    SANDBOX = "sandbox"  # the kernel, in a container's
    FILTER = "filter"  # nftables
    STORE = "store"  # the store itself
    REAPER = "reaper"  # what it sees of namespaces and of Docker


@dataclass(frozen=True, slots=True)
class Action:
    """A difference: `target` is what it is about, `reason` why it is one, `remedy` what mends it, all in words.

    `remedy` "" means that nothing is done, because nothing is certain or somebody else has to. `key` is what is locked and looked
    at again: the owner key of an endpoint, the uuid of a network, the name of a stray. `patience` is the number of seconds for
    which it must have been seen, since a request that is under way looks the same.
    """

    kind: Kind
    where: Where
    target: str
    reason: str
    remedy: str
    key: str
    patience: float = 0.0

    def __str__(self) -> str:
        return f"{self.target} {self.reason}"


class Presence(StrEnum):
    """Whether a container's namespace is there."""

    HERE = "here"
    GONE = "gone"
    NONE = "none"  # Docker has not told it yet, or no longer


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A container's namespace: `link` is our interface there (Docker's: on whatever name), `why` says what ails the namespace."""

    presence: Presence
    link: LinkInfo | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Desired:
    """What the store wants of this host: all networks by uuid, `here` those whose bridge and gateway this host is to have, and
    this node's endpoints. `deadline` is the number of seconds that a request takes at most.
    """

    networks: Mapping[str, Network]
    here: frozenset[str]
    endpoints: tuple[Endpoint, ...]
    names: DeviceNames
    deadline: float = 20.0


@dataclass(frozen=True, slots=True)
class Actual:
    """What there is: the switch; the host's devices by name; the containers' ends by the endpoint's uuid.

    `forwarding` tells whether ovs-vswitchd works. `limited` are the devices whose receiving is limited as is wanted, `shelved`
    the switch ports that are kept ready or being removed. `filtered` tells whether the packet filter has our rules.
    """

    switch: SwitchState
    devices: Mapping[str, LinkInfo]
    sandboxes: Mapping[str, Sandbox] = field(default_factory=dict)
    forwarding: bool = True
    limited: frozenset[str] = frozenset()
    shelved: frozenset[str] = frozenset()
    filtered: bool = True


_NewAction = Callable[[Kind, Where, str, str], Action]

# For so long may a port be without its endpoint when that goes, or a device without its port, which vswitchd removes later; a
# spare port that a request has taken may be so for as long as the request takes.
_ORPHAN_PATIENCE = 2.0
_DEVICE_PATIENCE = 30.0
# Docker tells where a container's namespace will be some time before runc makes it.
_JOIN_PATIENCE = 3.0


def diff(desired: Desired, actual: Actual) -> list[Action]:
    """Everything that differs."""
    here = [network for network in desired.networks.values() if network.uuid in desired.here]
    found = [action for network in here for action in of_network(network, actual, desired.names)]
    for endpoint in desired.endpoints:
        network = desired.networks.get(endpoint.network)
        if network is not None and endpoint.uuid in actual.sandboxes:  # else it was made since the look
            found += of_endpoint(endpoint, network, actual)
    if not actual.filtered:
        reason = "are not as they were put in place"
        found.append(Action(Kind.RULES_WRONG, Where.FILTER, "our rules in nftables", reason, "load them again", ""))
    found += strays(desired, actual)
    order = list(Kind)
    return sorted(found, key=lambda action: order.index(action.kind))


def of_network(network: Network, actual: Actual, names: DeviceNames) -> Iterator[Action]:
    """What differs of a network's bridge and gateway."""
    if network.bridge not in actual.switch.bridges:
        target = f"bridge {network.bridge} of network {network.name}"
        yield Action(Kind.BRIDGE_MISSING, Where.SWITCH, target, "does not exist", "make it", network.uuid)
    elif network.gateways:
        name = names.gateway(network.uuid)
        yield from _of_gateway(network, actual, name, f"gateway {name} of network {network.name}")


def _of_gateway(network: Network, actual: Actual, name: str, target: str) -> Iterator[Action]:
    def wrong(where: Where, reason: str) -> Action:
        return Action(Kind.GATEWAY_WRONG, where, target, reason, "set it right", network.uuid)

    port, device = actual.switch.ports.get(name), actual.devices.get(name)
    if port is None:
        if name in actual.switch.names:
            reason = "is a port of somebody else's: it has no mark of ours"
            yield Action(Kind.PORT_FOREIGN, Where.SWITCH, target, reason, "", network.uuid)
        else:
            yield Action(Kind.GATEWAY_MISSING, Where.SWITCH, target, "does not exist", "make it", network.uuid)
        return
    if (port.bridge, port.tag, port.trunk, port.vlan_mode) != (network.bridge, network.tag, (), ""):
        place = f"is on bridge {port.bridge}, {_vlans(port.tag, port.trunk)}"
        place += f" in mode {port.vlan_mode}" if port.vlan_mode else ""
        yield wrong(Where.SWITCH, f"{place}, not on bridge {network.bridge}, {_vlans(network.tag, ())}")
    if (port.role, port.network) != (PortRole.GATEWAY, network.uuid):
        yield wrong(Where.SWITCH, f"is marked as {_mark(port)}")
    if device is None:
        yield _no_device(Kind.GATEWAY_MISSING, target, network.uuid, port, forwarding=actual.forwarding)
        return
    mac, own = mac_for(network.gateways[0].ip), [one for one in device.addresses if not one.ip.is_link_local]
    if not device.up:
        yield wrong(Where.HOST, "is down")
    if device.mac != mac:
        yield wrong(Where.HOST, f"has MAC {device.mac}, not {mac}")
    if device.mtu != network.mtu:
        yield wrong(Where.HOST, f"has MTU {device.mtu}, not {network.mtu}")
    for address in network.gateways:
        if address not in device.addresses:
            yield wrong(Where.HOST, f"lacks address {address}")
    for address in own:
        if address not in network.gateways:
            yield wrong(Where.HOST, f"has address {address}, which is not the network's")


def of_endpoint(endpoint: Endpoint, network: Network, actual: Actual) -> Iterator[Action]:
    """What differs of an endpoint's port, its device and its link. Of one whose namespace is gone nothing is mended."""
    target = f"container {endpoint.container[:40]}" + (f"/{endpoint.ifname}" if endpoint.ifname else "")
    target += f" on network {network.name}"

    def action(kind: Kind, where: Where, reason: str, remedy: str) -> Action:
        return Action(kind, where, target, reason, remedy, endpoint.key)

    sandbox = actual.sandboxes[endpoint.uuid]
    if sandbox.presence is Presence.GONE:
        gone = action(Kind.NAMESPACE_GONE, Where.SANDBOX, f"has no namespace any more: {sandbox.why}", "")
        yield replace(gone, patience=_JOIN_PATIENCE) if endpoint.origin is Origin.DOCKER else gone
        return
    name, state = endpoint.port, actual.switch
    port, device = state.ports.get(name), actual.devices.get(name)
    if port is None:
        if name in state.names:
            reason = f"has switch port {name}, which has no mark of ours any more"
            yield action(Kind.PORT_FOREIGN, Where.SWITCH, reason, "")
        else:
            yield action(Kind.PORT_MISSING, Where.SWITCH, f"has no switch port {name}", "make it, and the link on it")
        return
    if port.bridge != network.bridge:
        reason = f"has switch port {name} on bridge {port.bridge}, not on {network.bridge}"
        yield action(Kind.PORT_ELSEWHERE, Where.SWITCH, reason, "make it again there, and the link on it")
        return
    tag = endpoint.tag_on(network)
    if port.trunk != endpoint.trunk or port.vlan_mode != port.usual_mode:
        mode = f" in mode {port.vlan_mode}" if port.vlan_mode != port.usual_mode else ""
        wanted = _vlans(tag, endpoint.trunk)
        reason = f"has switch port {name} with {_vlans(port.tag, port.trunk)}{mode}, not with {wanted}"
        # Set back, a port that was a trunk goes on dropping what it is sent (3.1): docs/decisions/0021.
        yield action(Kind.PORT_TRUNKED, Where.SWITCH, reason, "make it again, and the link on it")
        return
    if port.tag != tag:
        reason = f"has switch port {name} with {_vlans(port.tag, ())}, not with {_vlans(tag, ())}"
        yield action(Kind.PORT_WRONG, Where.SWITCH, reason, "set its VLAN")
    on_link = [] if device is None else list(_of_link(endpoint, actual, device, sandbox, action, port.role))
    # The mark of a spare tells that an ADD was cut off, so that it stays until the interface is finished.
    unfinished = any(one.kind is Kind.LINK_UNFINISHED for one in on_link)
    if not unfinished and (port.role, port.network, port.endpoint) != (PortRole.ENDPOINT, network.uuid, endpoint.uuid):
        reason = f"has switch port {name}, which is marked as {_mark(port)}"
        yield action(Kind.PORT_UNMARKED, Where.SWITCH, reason, "mark it")
    if device is None:
        yield _no_device(Kind.DEVICE_MISSING, target, endpoint.key, port, forwarding=actual.forwarding)
        return
    if faults := list(_unprepared(device, network.mtu, up=not endpoint.quarantined)):
        reason = f"has device {name}, which {' and '.join(faults)}"
        yield action(Kind.DEVICE_WRONG, Where.HOST, reason, "set it right")
    yield from on_link
    limits = endpoint.bandwidth
    if (port.rate, port.burst) != (limits.egress_rate, limits.egress_burst):
        reason = f"may send {port.rate or 'any'} bits/s, not {limits.egress_rate or 'any'}"
        yield action(Kind.LIMIT_WRONG, Where.SWITCH, reason, "limit it" if limits.egress_rate else "limit it no more")
    if limits.ingress_rate and name not in actual.limited:
        reason = f"may not receive just {limits.ingress_rate} bits/s"
        yield action(Kind.LIMIT_WRONG, Where.FILTER, reason, "limit it")


def _of_link(
    endpoint: Endpoint, actual: Actual, device: LinkInfo, sandbox: Sandbox, action: _NewAction, role: PortRole
) -> Iterator[Action]:
    """The container's end. Docker's is on the host before it joins and after it has left, and anywhere for a moment.

    A port whose `role` is still a spare's was given to the endpoint by a request that has not ended.
    """
    link, unfinished = sandbox.link, role is PortRole.SPARE
    if endpoint.origin is Origin.DOCKER:
        if link is None and endpoint.link not in actual.devices and not device.carries:
            where = Where.HOST if sandbox.presence is Presence.NONE else Where.SANDBOX
            yield action(Kind.LINK_MISSING, where, f"has no link on switch port {endpoint.port}", "make it")
    elif link is None and device.carries:
        reason = (
            f"has its interface not as {endpoint.ifname} in {endpoint.sandbox}, but under another name or elsewhere"
        )
        yield action(Kind.LINK_FOREIGN, Where.SANDBOX, reason, "")
    elif link is None:
        reason = f"has no interface {endpoint.ifname} in {endpoint.sandbox}"
        yield action(Kind.LINK_MISSING, Where.SANDBOX, reason, "make it, with its addresses and routes")
    elif link.lower != device.ifindex or link.kind != "macvlan":
        reason = f"has an interface {endpoint.ifname} that does not stand on switch port {endpoint.port}"
        yield action(Kind.LINK_FOREIGN, Where.SANDBOX, reason, "")
    elif unfinished and endpoint.addresses and not set(endpoint.addresses) & set(link.addresses):
        # What a container does to its own interface is its affair, but this is what an ADD that was cut off leaves.
        reason = f"has an interface {endpoint.ifname} with none of its addresses, as an ADD was cut off"
        yield action(Kind.LINK_UNFINISHED, Where.SANDBOX, reason, "give it its addresses and routes, and set it up")


def strays(desired: Desired, actual: Actual) -> Iterator[Action]:
    """Ports and devices with our marks that nothing wants. `desired` has all endpoints of this node."""
    used = {one.port for one in desired.endpoints}
    inhabited = {one.network for one in actual.switch.ports.values() if one.role is PortRole.ENDPOINT}
    for port in actual.switch.ports.values():
        if port.name in used or port.name in actual.shelved:
            continue
        network = desired.networks.get(port.network)
        if network is not None and network.gateways and port.name == desired.names.gateway(network.uuid):
            continue
        device = actual.devices.get(port.name)
        busy = device is not None and device.carries
        if network is not None:
            certain, of = True, f"network {network.name}"
        else:
            # With a database that knows no network we may be mistaken about all of them.
            of = f"network {port.network or '?'}, which the store does not know"
            certain = {
                PortRole.ENDPOINT: False,
                PortRole.SPARE: not busy,
                PortRole.GATEWAY: bool(desired.networks) and port.network not in inhabited,
            }[port.role]
        owner = f" for endpoint {port.endpoint}" if port.endpoint else ""
        yield Action(
            Kind.PORT_STRAY,
            Where.SWITCH,
            f"{port.role} port {port.name} of bridge {port.bridge}",
            f"is kept{owner} by nobody in the store; it is of {of}",
            "remove it" if certain else "",
            port.name,
            _ORPHAN_PATIENCE + (desired.deadline if port.role is PortRole.SPARE else 0.0),
        )
    ours = re.compile(rf"{re.escape(desired.names.prefix)}[pg][0-9a-f]{{10}}\Z")
    for device in actual.devices.values():
        if ours.match(device.name) and device.name not in actual.switch.names:
            remedy = "" if device.carries else "delete it"
            reason = "stands there without a switch port" + (", and a container's link on it" if device.carries else "")
            target, name = f"device {device.name}", device.name
            yield Action(Kind.DEVICE_STRAY, Where.HOST, target, reason, remedy, name, _DEVICE_PATIENCE)


def _no_device(kind: Kind, target: str, key: str, port: SwitchPort, *, forwarding: bool) -> Action:
    reason = f"has no device {port.name}"
    if not forwarding:
        return Action(kind, Where.HOST, target, f"{reason}, as ovs-vswitchd does not run", "", key)
    if port.error:
        reason += f": {port.error}"
    return Action(kind, Where.HOST, target, reason, "make its port again, and what stands on it", key)


def _unprepared(device: LinkInfo, mtu: int, *, up: bool) -> Iterator[str]:
    """What makes the host's end of a link heard or silent, see `Links.prepare_port`; one in quarantine is not to be `up`."""
    if device.up != up:
        yield "is down" if up else "is up, though its container is in quarantine"
    if device.arp:
        yield "speaks ARP"
    if device.addresses:
        yield f"has address {', '.join(map(str, device.addresses))}"
    if device.mtu != mtu:
        yield f"has MTU {device.mtu}, not {mtu}"


def _vlans(tag: int, trunk: tuple[int, ...]) -> str:
    own = f"VLAN {tag}" if tag else "no VLAN"
    return own + (f" and trunk {','.join(map(str, trunk))}" if trunk else "")


def _mark(port: SwitchPort) -> str:
    of = f" of network {port.network}" if port.network else ""
    return f"{port.role}{of}" + (f", endpoint {port.endpoint}" if port.endpoint else "")
