"""Changes of endpoints and networks while traffic goes on: VLAN tags, limits, published ports, quarantine.

A use case: what is to be is written to the store first, then switch, packet filter and kernel follow, none of them by a moment
without; what a crash or an error leaves undone the reconciler finishes, and so does the same request again. Called by the
controller, the reconciler's repairs among its callers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from .crashpoints import Point, reach
from .errors import AttachmentBroken, Conflict, InvalidRequest, PortInUse
from .model import (
    ASKED,
    MAX_RATE,
    OWN_TAG,
    QUARANTINED,
    Bandwidth,
    Endpoint,
    EndpointChange,
    Forwarding,
    LeaseOwner,
    Network,
    Origin,
    OwnerKind,
    PortRole,
    Protocol,
    SwitchPort,
    check_tag,
)
from .nat import in_use

if TYPE_CHECKING:
    from .controller import Controller

LOG = logging.getLogger(__name__)

_LOOKS = 3  # at a network whose endpoints come and go while its ports get another tag


# -- endpoints --------------------------------------------------------------------------------------------------------


def change_endpoint(controller: Controller, ref: str, change: EndpointChange) -> Endpoint:
    """Change an endpoint of this host, and the one that it takes published ports from; the same again is success.

    EndpointNotFound, InvalidRequest, Conflict, PortInUse, AttachmentBroken: then nothing has changed. Unavailable and its kinds:
    then it may be written already, and will be so.
    """
    with ExitStack() as held:
        first = {one.key: one for one in _named(controller, ref, change)}
        for key in sorted(first):  # in one order, whoever takes from whom
            held.enter_context(controller.endpoint_lock(first[key]))
        before = _named(controller, ref, change)
        wanted = plan_endpoint(controller, before, change)
        if before[0].quarantined and not wanted[0].quarantined:
            controller.links.revive(before[0].port)  # before it is written: a crash in between leaves it in quarantine
        endpoint = controller.store.alter_endpoint(*wanted)
        reach(Point.ALTER_WRITTEN)
        if change.quarantined:
            controller.links.silence(endpoint.port)
        if change.tag is not None or change.network_tag:
            controller.switch.retag_ports([port_of(endpoint, controller.store.network(endpoint.network))])
        reach(Point.ALTER_TAGGED)
        if change.bandwidth is not None:
            limit(controller, endpoint)
        reach(Point.ALTER_LIMITED)
        if change.published is not None or change.take_from:
            have = {each for one in wanted for each in one.forwardings}
            gone = [each for one in before for each in one.forwardings if each not in have]
            controller.republish(endpoint, gone)
        reach(Point.ALTER_PUBLISHED)
        for old, new in zip(before, (endpoint, *wanted[1:]), strict=True):
            _tell(controller, old, new)
    return endpoint


def _named(controller: Controller, ref: str, change: EndpointChange) -> list[Endpoint]:
    """The endpoint, and the one that it takes from, as they are now."""
    found = [controller.store.endpoint(one) for one in (ref, change.take_from) if one]
    for one in found:
        if one.node != controller.settings.node:
            raise InvalidRequest(f"the endpoint is on node {one.node}", hint="ask the ovsnetd of that node")
    if len(found) > 1 and found[0].uuid == found[1].uuid:
        raise InvalidRequest("an endpoint cannot take ports from itself", hint="name another one in take_from")
    return found


def rehearse_endpoint(controller: Controller, ref: str, change: EndpointChange) -> Endpoint:
    """What `change_endpoint` would make of it; the same errors."""
    return plan_endpoint(controller, _named(controller, ref, change), change)[0]


def plan_endpoint(controller: Controller, before: Sequence[Endpoint], change: EndpointChange) -> list[Endpoint]:
    """The endpoint, and the one that it takes from, as they are to be; all that can be refused is refused here."""
    endpoint, givers = before[0], before[1:]
    network = controller.store.network(endpoint.network)
    labels = dict(endpoint.labels)
    if change.quarantined is not None:
        labels.pop(QUARANTINED, None)
        labels |= {QUARANTINED: "1"} if change.quarantined else {}
    if change.tag is not None or change.network_tag:
        _check_retag(endpoint, quarantined=QUARANTINED in labels)
        labels.pop(OWN_TAG, None)
        labels |= {} if change.tag is None else {OWN_TAG: str(check_tag(change.tag))}
    published = endpoint.published if change.published is None else change.published
    if change.published is None:
        published += tuple(port for one in givers for port in one.published)
    wanted = replace(
        endpoint,
        labels=labels,
        published=tuple(sorted(set(published), key=str)),
        bandwidth=_limits(endpoint.bandwidth, change.bandwidth or {}),
    )
    left = [
        replace(one, published=tuple(x for x in one.published if not any(map(x.clashes, wanted.published))))
        for one in givers
    ]
    if wanted.published != endpoint.published:
        _check_published(wanted, network, before)
    # An unmarked port, or one of somebody else's, is not ours to change.
    on_port = change.tag is not None or change.network_tag or change.bandwidth is not None
    if on_port and controller.switch.find_port(endpoint.port) is None:
        raise AttachmentBroken(
            f"the switch has no port {endpoint.port} of ours", hint="`ovsnet reconcile --dry-run` tells why"
        )
    planned = [_asked(old, new) for old, new in zip(before, [wanted, *left], strict=True)]
    controller.store.rehearsal().alter_endpoint(*planned)
    return planned


def _check_retag(endpoint: Endpoint, *, quarantined: bool) -> None:
    who = f"container {endpoint.container[:40]}"
    if endpoint.trunk:
        raise Conflict(
            f"{who} has a trunk port, whose untagged VLAN cannot be changed while it stands", hint="detach it first"
        )
    if quarantined:
        raise Conflict(f"{who} is in quarantine", hint="let it out first, or in the same request")


def _limits(have: Bandwidth, given: Mapping[str, int]) -> Bandwidth:
    """`have` with other values; a burst goes with its rate."""
    values = asdict(have) | dict(given)
    for way in ("ingress", "egress"):
        rate, burst = f"{way}_rate", f"{way}_burst"
        if not all(0 <= values[one] <= MAX_RATE for one in (rate, burst)):
            raise InvalidRequest(f"a limit of {way} is out of range", hint=f"use 0 (no limit) to {MAX_RATE}")
        if given.get(burst) and not values[rate]:
            raise InvalidRequest(f"{burst} is given without {rate}", hint="give both, or only the rate")
        values[burst] *= bool(values[rate])
    return Bandwidth(**values)


def _check_published(wanted: Endpoint, network: Network, before: Sequence[Endpoint]) -> None:
    """InvalidRequest for what cannot lead there; PortInUse for a port that a process of this host has."""
    if wanted.published and not network.gateways:
        raise InvalidRequest(
            f"network {network.name} has no gateway on the host, so that no port can be published", hint="publish none"
        )
    check_reach(wanted)
    old = [port for one in before for port in one.published]
    for port in wanted.published:
        if not any(map(port.clashes, old)) and in_use(port):
            raise PortInUse(
                f"{port.protocol} port {port.host_port} of this host is in use",
                hint="`ss -lntu` shows by whom; choose another port",
            )


def check_reach(endpoint: Endpoint) -> None:
    """InvalidRequest if a published port is bound to an address of a family that the endpoint does not have."""
    for port in endpoint.published:
        given = port.host_address
        if given is not None and not given.is_unspecified and all(port != one.port for one in endpoint.forwardings):
            raise InvalidRequest(
                f"port {port.host_port} of {given} cannot lead to a container without IPv{given.version}",
                hint=f"publish it on an IPv{10 - given.version} address, or give the network such a subnet",
            )


def _asked(old: Endpoint, new: Endpoint) -> Endpoint:
    """`new`, which remembers what its request asked for where that is something else: the same request may come again."""
    if old.origin is Origin.DOCKER:  # which tells its wishes once
        return new
    asked, kept = old.asked, dict[str, Any]()
    if set(asked.published) != set(new.published):
        kept["published"] = [str(one) for one in asked.published]
    if asked.bandwidth != new.bandwidth:
        kept["bandwidth"] = asdict(asked.bandwidth)
    others = {name: value for name, value in new.labels.items() if name != ASKED}
    return replace(new, labels=others | ({ASKED: json.dumps(kept, sort_keys=True)} if kept else {}))


def limit(controller: Controller, endpoint: Endpoint) -> None:
    """Have exactly the endpoint's limits in place, whatever was there before."""
    limits = endpoint.bandwidth
    controller.switch.limit_port(endpoint.port, limits.egress_rate, limits.egress_burst)
    if limits.ingress_rate:
        controller.limits.set(endpoint.port, limits.ingress_rate, limits.ingress_burst)
    else:
        controller.limits.remove([endpoint.port])


def to_forget(gone: Sequence[Forwarding], now: Sequence[Forwarding]) -> list[Forwarding]:
    """Whose connections are to be forgotten when published ports change.

    What leads nowhere any more is cut off. Who speaks TCP or SCTP by a port that leads elsewhere from now on stays where it is
    until it ends; a stream of UDP has no end, so that it moves.
    """
    ways = {(one.port.protocol, one.port.host_port, one.address.version) for one in now}
    lost = [one for one in gone if (one.port.protocol, one.port.host_port, one.address.version) not in ways]
    return lost + [one for one in now if one.port.protocol is Protocol.UDP]


def _tell(controller: Controller, old: Endpoint, new: Endpoint) -> None:
    """In the log and among the events."""
    network = controller.store.network(new.network)
    told = ", ".join(
        f"{what} {was or 'none'} -> {now or 'none'}"
        for what, was, now in zip(_SHOWN, _shown(old, network), _shown(new, network), strict=True)
        if was != now
    )
    if told:
        LOG.info("container %s on network %s: %s", new.container, new.network_name, told)
        owner = LeaseOwner(OwnerKind.ENDPOINT, new.key)
        controller.events.altered([(one.ip, owner) for one in new.addresses], told)


_SHOWN = ("quarantine", "VLAN", "bandwidth", "published")


def _shown(endpoint: Endpoint, network: Network) -> tuple[str, ...]:
    limits = {name: value for name, value in asdict(endpoint.bandwidth).items() if value}
    return (
        "on" if endpoint.quarantined else "off",
        str(endpoint.tag_on(network)),
        " ".join(f"{name}={value}" for name, value in limits.items()),
        " ".join(map(str, endpoint.published)),
    )


# -- networks ---------------------------------------------------------------------------------------------------------


def change_network(controller: Controller, ref: str, tag: int) -> Network:
    """Give a network another VLAN tag: its gateway, its endpoints without one of their own, its spare ports; on this host now and
    on others as soon as they hear of it. The same again is success. NetworkNotFound, TagInUse, Conflict, SwitchUnavailable.
    """
    before = controller.store.network(ref)
    with controller.bridge_lock(before.bridge):
        network = controller.store.set_network_tag(before.uuid, check_tag(tag))
        reach(Point.RETAG_WRITTEN)
        controller.ports.follow([network])
        done: list[SwitchPort] = []
        for _ in range(_LOOKS):
            here = [one for one in controller.store.endpoints(network.uuid) if one.node == controller.settings.node]
            ports = [controller.gateway_port(network), *(port_of(one, network) for one in here)]
            if ports == done:
                break
            controller.switch.retag_ports(ports)
            done = ports
        reach(Point.RETAG_PORTS)
    if before.tag != network.tag:
        told = f"VLAN {before.tag} -> {network.tag}"
        LOG.info("network %s: %s", network.name, told)
        pools = controller.store.pools_of(network)
        owners = [
            (gateway.ip, LeaseOwner(OwnerKind.GATEWAY, pool.name))
            for gateway in network.gateways
            for pool in pools
            if gateway.ip in pool.subnet
        ]
        controller.events.altered(owners, told)
    return network


def port_of(endpoint: Endpoint, network: Network) -> SwitchPort:
    """The switch port that an endpoint is to have."""
    return SwitchPort(
        endpoint.port,
        network.bridge,
        endpoint.tag_on(network),
        network.mtu,
        PortRole.ENDPOINT,
        network.uuid,
        endpoint=endpoint.uuid,
        trunk=endpoint.trunk,
    )


def catch_up(controller: Controller, endpoint: Endpoint, network: Network) -> None:
    """Give an endpoint that has just been written its VLAN, should its network have got another one since its port was taken.

    Who changes a network's tag after that finds the endpoint in the store.
    """
    present = controller.store.find_network(network.uuid)
    if present is not None and present.tag != network.tag:
        controller.switch.retag_ports([port_of(endpoint, present)])
