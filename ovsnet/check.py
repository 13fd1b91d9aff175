"""`ovsnet ipam check`: do leases, endpoints, the switch's ports and the live links tell the same story?

A use case: observes through the rooms, compares, and mends what is certain through the controller. The comparison of leases and
endpoints is the cluster's; ports and links are this host's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from .controller import Controller
from .errors import InvalidNetns, OvsnetError
from .link import open_netns
from .model import Endpoint, IPAddress, Lease, LeaseOwner, Network, Origin, OwnerKind, Pool, PortRole, SwitchPort
from .operations import OK


class Kind(StrEnum):
    """What can disagree; stable, for scripts."""

    LEASE_WITHOUT_ENDPOINT = "lease-without-endpoint"
    ENDPOINT_WITHOUT_LEASE = "endpoint-without-lease"
    ADDRESS_TWICE = "address-twice"
    LEASE_OF_ANOTHER = "lease-of-another"
    NAMESPACE_GONE = "namespace-gone"
    PORT_MISSING = "port-missing"
    PORT_WRONG = "port-wrong"
    PORT_ORPHANED = "port-orphaned"
    LINK_MISSING = "link-missing"
    LINK_WRONG = "link-wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement: what it is about, why, and what a repair would do ("" if nothing is certain)."""

    kind: Kind
    subject: str
    message: str
    remedy: str = ""


_Repair = Callable[[], None]
_SECOND_LOOK = 0.5  # seconds; an attach takes a hundredth


class Checker:
    """The check of one host's view. `count` is told the kind of each finding of a repair, and how the repair ended."""

    def __init__(self, controller: Controller, count: Callable[[str, str | None], None]) -> None:
        self._controller = controller
        self._store = controller.store
        self._count = count

    def check(self) -> list[Finding]:
        """Everything that disagrees; empty is good."""
        return [finding for finding, _ in self._confirmed()]

    def repair(self) -> tuple[list[Finding], list[Finding]]:
        """Mend what is certain; (what was mended, what is left). An error in one repair leaves its finding and goes on."""
        mended: list[Finding] = []
        left: list[Finding] = []
        for finding, act in self._confirmed():
            if act is None:
                self._count(finding.kind, None)
                left.append(finding)
                continue
            try:
                act()
            except OvsnetError as exc:
                self._count(finding.kind, exc.code)
                left.append(
                    Finding(finding.kind, finding.subject, f"{finding.message}; repair failed: {exc}", finding.remedy)
                )
            else:
                self._count(finding.kind, OK)
                mended.append(finding)
        return mended, left

    def _confirmed(self) -> list[tuple[Finding, _Repair | None]]:
        """What is found twice: an attach or detach that passes through looks like a disagreement for a moment."""
        first = {finding for finding, _ in self._all()}
        if not first:
            return []
        time.sleep(_SECOND_LOOK)
        return [found for found in self._all() if found[0] in first]

    def _all(self) -> Iterator[tuple[Finding, _Repair | None]]:
        # Ports first: a port whose endpoint is not there *later* was left behind, and not made meanwhile. Before them those that
        # are known without an endpoint: kept ready, about to be, or on their way out.
        known = self._controller.ports.shelved()
        ports = {one.name: one for one in self._controller.switch.ports()}
        pools, leases, endpoints, networks = self._store.snapshot()
        yield from self._leases(pools, leases, {one.key: one for one in endpoints})
        yield from self._endpoints(pools, leases, endpoints, networks)
        mine = [one for one in endpoints if one.node == self._controller.settings.node]
        for endpoint in mine:
            yield from self._host(endpoint, networks[endpoint.network], ports.get(endpoint.port))
        yield from self._orphans(ports, known.union(one.port for one in mine), networks)

    # -- the cluster --------------------------------------------------------------------------------------------------

    def _leases(
        self, pools: dict[str, Pool], leases: dict[str, dict[IPAddress, Lease]], endpoints: dict[str, Endpoint]
    ) -> Iterator[tuple[Finding, _Repair | None]]:
        for uuid, held in leases.items():
            for lease in held.values():
                if lease.owner.kind is OwnerKind.ENDPOINT and lease.owner.id not in endpoints:
                    yield (
                        Finding(
                            Kind.LEASE_WITHOUT_ENDPOINT,
                            f"{lease.address} of pool {lease.pool}",
                            f"is leased to {lease.owner}, which does not exist",
                            "release the address",
                        ),
                        partial(self._release, pools[uuid], lease),
                    )

    def _release(self, pool: Pool, lease: Lease) -> None:
        self._store.release(pool, lease.address, {OwnerKind.ENDPOINT}, owner=lease.owner, by="repair")

    def _endpoints(
        self,
        pools: dict[str, Pool],
        leases: dict[str, dict[IPAddress, Lease]],
        endpoints: list[Endpoint],
        networks: dict[str, Network],
    ) -> Iterator[tuple[Finding, _Repair | None]]:
        seen: dict[tuple[str, IPAddress], Endpoint] = {}
        for endpoint in endpoints:
            name = _name(endpoint)
            for address in (one.ip for one in endpoint.addresses):
                other = seen.setdefault((endpoint.network, address), endpoint)
                if other is not endpoint:
                    yield Finding(Kind.ADDRESS_TWICE, name, f"has {address}, and so has {_name(other)}"), None
                uuid = next((one for one in networks[endpoint.network].pools if address in pools[one].subnet), None)
                if uuid is None:
                    continue  # a foreign IPAM's
                lease = leases[uuid].get(address)
                owner = LeaseOwner(OwnerKind.ENDPOINT, endpoint.key)
                if lease is None:
                    yield (
                        Finding(
                            Kind.ENDPOINT_WITHOUT_LEASE,
                            name,
                            f"has {address}, which is not leased",
                            "lease the address",
                        ),
                        partial(self._lease, pools[uuid], owner, address),
                    )
                elif lease.owner != owner:
                    yield Finding(Kind.LEASE_OF_ANOTHER, name, f"has {address}, which is leased to {lease.owner}"), None

    def _lease(self, pool: Pool, owner: LeaseOwner, address: IPAddress) -> None:
        self._store.allocate(pool, owner, address)

    # -- this host ----------------------------------------------------------------------------------------------------

    def _host(
        self, endpoint: Endpoint, network: Network, port: SwitchPort | None
    ) -> Iterator[tuple[Finding, _Repair | None]]:
        name = _name(endpoint)
        if endpoint.origin is not Origin.DOCKER:  # Docker's sandbox comes and goes while its endpoint stays
            try:
                netns = open_netns(endpoint.sandbox)
            except InvalidNetns as exc:
                yield (
                    Finding(Kind.NAMESPACE_GONE, name, exc.message, "detach the endpoint"),
                    partial(self._controller.delete_endpoint, endpoint.uuid),
                )
                return
            with netns:
                link = self._controller.links.link(endpoint.ifname, netns)
            if link is None or link.kind != "macvlan":
                yield (
                    Finding(
                        Kind.LINK_MISSING, name, f"has no interface {endpoint.ifname} of ours in {endpoint.sandbox}"
                    ),
                    None,
                )
            else:
                missing = [str(one) for one in endpoint.addresses if one not in link.addresses]
                if missing:
                    yield Finding(Kind.LINK_WRONG, name, f"lacks {', '.join(missing)} on {endpoint.ifname}"), None
                if link.mac != endpoint.mac:
                    yield Finding(Kind.LINK_WRONG, name, f"has MAC {link.mac}, not {endpoint.mac}"), None
        if port is None or self._controller.links.link(endpoint.port) is None:
            yield Finding(Kind.PORT_MISSING, name, f"has no switch port {endpoint.port}"), None
        elif (port.bridge, port.tag) != (network.bridge, tag := endpoint.tag_on(network)):
            yield (
                Finding(
                    Kind.PORT_WRONG,
                    name,
                    f"has port {port.name} on bridge {port.bridge}, VLAN {port.tag}, not {network.bridge}, {tag}",
                ),
                None,
            )

    def _orphans(
        self, ports: dict[str, SwitchPort], used: frozenset[str], networks: dict[str, Network]
    ) -> Iterator[tuple[Finding, _Repair | None]]:
        for port in ports.values():
            if port.role is not PortRole.ENDPOINT or port.name in used:
                continue
            known = port.network in networks
            yield (
                Finding(
                    Kind.PORT_ORPHANED,
                    f"port {port.name} of bridge {port.bridge}",
                    f"is marked for endpoint {port.endpoint}, which does not exist",
                    "remove the port" if known else "",
                ),
                partial(self._controller.ports.discard, port.name) if known else None,
            )


def _name(endpoint: Endpoint) -> str:
    what = f"container {endpoint.container[:40]}" + (f"/{endpoint.ifname}" if endpoint.ifname else "")
    return f"{what} on network {endpoint.network_name}"
