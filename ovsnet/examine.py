"""Is an attachment as it was made? CNI's CHECK: lease, port, link, addresses and routes, and the first difference in words.

A use case: looks through the rooms and changes nothing. Called by the controller.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .errors import AttachmentBroken, EndpointNotFound
from .link import LinkInfo, open_netns
from .model import Endpoint, Expectation, LeaseOwner, Network, OwnerKind, endpoint_key
from .names import mac_for, mac_of

if TYPE_CHECKING:
    from .controller import Controller

_HINT = "have the runtime attach the container again"


def examine(controller: Controller, expected: Expectation) -> None:
    """AttachmentBroken with the first difference; EndpointNotFound if there is no such attachment. InvalidNetns."""
    network = controller.store.find_network(expected.network)
    endpoint = None
    if network is not None:
        key = endpoint_key(network.uuid, expected.container, expected.ifname)
        endpoint = controller.store.find_endpoint(key)
    if network is None or endpoint is None:
        if _of_another_plugin(controller, network, expected):
            return
        raise EndpointNotFound(
            f"container {expected.container[:40]} has no interface {expected.ifname} on network {expected.network}",
            hint=_HINT,
        )
    difference = next(_differences(controller, network, endpoint, expected), None)
    if difference is not None:
        raise AttachmentBroken(difference, hint=_HINT, endpoint=endpoint.uuid)


def _of_another_plugin(controller: Controller, network: Network | None, expected: Expectation) -> bool:
    """Whether the interface was never ours: chained after another main plugin, ADD has left the container alone.

    Ours has an address of the network's pools or, should these be lost, the MAC that we derive from it, or from the key.
    """
    addresses = [one.ip for one in expected.addresses]
    pools = controller.store.pools_of(network) if network else []
    derived = {mac_for(address) for address in addresses}
    if network is not None:
        derived.add(mac_of(endpoint_key(network.uuid, expected.container, expected.ifname)))
    return (
        bool(addresses)
        and expected.mac not in derived
        and not any(address in pool.subnet for address in addresses for pool in pools)
    )


def _differences(controller: Controller, network: Network, endpoint: Endpoint, expected: Expectation) -> Iterator[str]:
    yield from _leases(controller, network, endpoint)
    controller.ports.flush()  # the port's owner is written behind the answer to an ADD
    yield from _port(controller, network, endpoint)
    with open_netns(expected.netns) as netns:
        link = controller.links.link(expected.ifname, netns)
        yield from _link(controller, endpoint, expected, link)
        if link is not None:
            have = {(str(route.destination), route.gateway) for route in controller.links.routes(netns, link.ifindex)}
            for route in expected.routes:
                if (str(route.destination), route.gateway) not in have:
                    by = f" by {route.gateway}" if route.gateway else ""
                    yield f"interface {expected.ifname} has no route to {route.destination}{by}"
    if endpoint.published:
        for missing in controller.rules.missing(endpoint.forwardings):
            yield f"port {missing.port.host_port} of the host does not lead to {missing.address}"


def _leases(controller: Controller, network: Network, endpoint: Endpoint) -> Iterator[str]:
    owner = LeaseOwner(OwnerKind.ENDPOINT, endpoint.key)
    for pool in controller.store.pools_of(network):
        for address in endpoint.addresses:
            if address.ip in pool.subnet:
                holder = controller.store.lease_owner(pool, address.ip)
                if holder != owner:
                    yield f"address {address.ip} of pool {pool.name} is leased to {holder or 'nobody'}"


def _port(controller: Controller, network: Network, endpoint: Endpoint) -> Iterator[str]:
    port = controller.switch.find_port(endpoint.port)
    if port is None:
        yield f"the switch has no port {endpoint.port} of ours"
        return
    if port.endpoint != endpoint.uuid:
        yield f"switch port {port.name} belongs to {port.endpoint or 'nobody'}, not to endpoint {endpoint.uuid}"
    if port.bridge != network.bridge:
        yield f"switch port {port.name} is on bridge {port.bridge}, not on {network.bridge}"
    if port.tag != (tag := endpoint.tag_on(network)):
        yield f"switch port {port.name} has VLAN {port.tag}, not {tag}"
    if port.trunk != endpoint.trunk:
        yield f"switch port {port.name} carries VLANs {_list(port.trunk)} beside its own, not {_list(endpoint.trunk)}"
    limits = endpoint.bandwidth
    if (port.rate, port.burst) != (limits.egress_rate, limits.egress_burst):
        yield f"switch port {port.name} lets through {port.rate or 'any'} bits/s, not {limits.egress_rate or 'any'}"
    if limits.ingress_rate and not controller.limits.is_set(port.name, limits.ingress_rate, limits.ingress_burst):
        yield f"what container {endpoint.container[:40]} receives is not limited to {limits.ingress_rate} bits/s"
    if missing := controller.spoofing.missing(network, endpoint):
        yield f"{missing} of the flows that guard switch port {port.name} are missing"
    if port.error:
        yield f"ovs-vswitchd says of port {port.name}: {port.error}"


def _list(tags: tuple[int, ...]) -> str:
    return ", ".join(map(str, tags)) or "none"


def _link(controller: Controller, endpoint: Endpoint, expected: Expectation, link: LinkInfo | None) -> Iterator[str]:
    name = expected.ifname
    if link is None:
        yield f"the container has no interface {name}"
        return
    lower = controller.links.link(endpoint.port)
    if lower is None:
        yield f"the host has no device {endpoint.port}"
        return
    if not lower.up:  # which the container's interface does not show: it keeps its carrier
        yield f"device {endpoint.port} is down on the host{', for it is in quarantine' if endpoint.quarantined else ''}"
    if link.lower != lower.ifindex:
        yield f"interface {name} is not the one on switch port {endpoint.port}"
    if not link.up:
        yield f"interface {name} is down"
    if not link.carrier:
        yield f"interface {name} has no carrier"
    mac, mtu = expected.mac or endpoint.mac, expected.mtu or endpoint.mtu
    if link.mac != mac:
        yield f"interface {name} has MAC {link.mac}, not {mac}"
    if link.mtu != mtu:
        yield f"interface {name} has MTU {link.mtu}, not {mtu}"
    for address in expected.addresses or endpoint.addresses:
        if address not in link.addresses:
            yield f"interface {name} does not have address {address}"
