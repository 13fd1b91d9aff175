"""The use cases of Docker's remote driver: what each CNM call means in pools, leases, networks and endpoints.

Called by the `cnm` edge; calls the store and, through the controller, the other rooms. Docker cannot be asked anything while it
waits for an answer, forgets a network whose deletion failed, and repeats what it knows after a restart. So every call may come
twice, and two things are told apart by the *requester*, the incarnation of the calling dockerd (see ovsnet.dockerd): a call that
a new incarnation repeats is a replay and succeeds, the same call by the incarnation that made it first is a second wish and
conflicts. What is never repeated nor taken back is for the reaper.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from . import docker_options
from .controller import AVOID, Controller, draft_pool
from .crashpoints import Point, reach
from .docker_endpoints import REQUESTER, DockerEndpoints
from .docker_options import check_keys
from .dockerd import Callers, Incarnation
from .errors import (
    AddressInUse,
    EndpointNotFound,
    InvalidRequest,
    NetworkNotFound,
    OvsnetError,
    PoolOverlap,
    PortInUse,
)
from .holds import Holds
from .model import (
    ANTI_SPOOFING,
    DEFAULT_SPACE,
    AddressRange,
    Endpoint,
    IPAddress,
    IPInterface,
    IPNetwork,
    LeaseOwner,
    Network,
    NetworkSpec,
    Origin,
    OwnerKind,
    Pool,
    PoolSpec,
    Protocol,
    PublishedPort,
    Route,
    endpoint_key,
)
from .nat import first_free
from .releases import Releases
from .store import Pending

LOG = logging.getLogger(__name__)

SPACES = (DEFAULT_SPACE, f"{DEFAULT_SPACE}-global")
SWARM = "swarm:"  # of a pool's `requested_by`: it belongs to the swarm's network whose id follows, on all nodes
STICKY = "ovsnet.name"  # label of an endpoint: the name for which its address is kept
_GENERIC = "com.docker.network.generic"
_ENDPOINT_NAME = "com.docker.network.endpoint.name"  # moby 28 and later tell it with RequestAddress
_PORT_MAP = "com.docker.network.portmap"
_IPV4_ONLY = "com.docker.network.driver.private.no_proxy_6to4"  # another endpoint is the container's gateway of IPv6
_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
_ISOLATED = "ovsnet.isolated"
_GATEWAY_TYPE = "com.docker.network.gateway"

NETWORK_OPTIONS = {
    "ovsnet.network": "name of an existing network to join",
    "ovsnet.name": "name of the new network in ovsnet (Docker does not tell its own)",
    "ovsnet.bridge": "Open vSwitch bridge",
    "ovsnet.vlan": "VLAN tag, 0 to 4094",
    "ovsnet.vlan.trunk": "VLANs that containers get tagged, as 10,20-29",
    "ovsnet.mtu": "MTU in bytes",
    ANTI_SPOOFING: "whether containers can send only from their own addresses",
    "ovsnet.gateway": "gateway on the host instead of Docker's, or none",
    _ISOLATED: "whether the hosts keep the network from all others",
    "com.docker.network.bridge.name": "Open vSwitch bridge",
    "com.docker.network.container_iface_prefix": "what interfaces are called in containers, before their number",
    "com.docker.network.driver.mtu": "MTU in bytes",
    _MASQUERADE: "whether what leaves the network gets the host's address",
}
IPAM_OPTIONS = {
    "ovsnet.network": "name of the existing network that will be joined",
    "ovsnet.pool": "name of an existing pool, or of one for each family",
    "ovsnet.ranges": "ranges from which addresses are given",
    "ovsnet.exclude": "ranges from which none ever is",
}
TRUNK = "ovsnet.trunk"  # label of a network: VLANs that its Docker endpoints get tagged, as in the option
IFACE_PREFIX = "ovsnet.iface-prefix"  # label of a network: what Docker calls its interfaces in containers
_SYNONYMS = {
    "com.docker.network.bridge.name": "ovsnet.bridge",
    "com.docker.network.driver.mtu": "ovsnet.mtu",
}


@dataclass(frozen=True, slots=True)
class IpamData:
    """One element of CreateNetwork's IPv4Data or IPv6Data: `pool` and `gateway` are CIDR strings, `gateway` may be ""."""

    space: str
    pool: str
    gateway: str
    aux: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class JoinResult:
    """The answer to Join: the link to move into the sandbox, and what Docker sets up there."""

    link: str
    prefix: str
    gateway: IPAddress | None
    gateway6: IPAddress | None
    routes: tuple[Route, ...]
    disable_gateway_service: bool


_Result = TypeVar("_Result")


def _from(method: Callable[..., _Result]) -> Callable[..., _Result]:
    """Wraps a method whose last argument is who asks, so that it gets the identity as it is stored (see Callers.heard)."""

    @functools.wraps(method)
    def call(self: DockerDriver, *args: Any) -> _Result:
        with self.callers.heard(args[-1]) as identity:
            return method(self, *args[:-1], identity)

    return call


class DockerDriver:
    """Docker's network and IPAM driver on one host. Thread-safe; raises OvsnetError only."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._store = controller.store
        self._deadline = controller.settings.deadline
        self.callers = Callers(controller.settings.node)
        # Addresses reserved for a name that Docker asked for without one: CreateEndpoint has to tell the name.
        self._owed: dict[tuple[str, IPAddress], str] = {}
        # Second addresses of endpoints (by uuid) that a new dockerd, the first here, may repeat: one it has repeated.
        self._repeatable: set[tuple[str, str, IPAddress]] = set()
        self._releases = Releases(controller.store)
        self._holds = Holds(controller.store, self._releases.after)
        self._endpoints = DockerEndpoints(controller, self.callers, self._holds, self._releases)

    def stop(self) -> None:
        """Finish what goes on behind answers."""
        self._endpoints.promises.settle()
        self._holds.stop()
        self._releases.stop()

    # -- IPAM ---------------------------------------------------------------------------------------------------------

    @_from
    def request_pool(
        self, space: str, subnet: str, sub_pool: str, options: Mapping[str, str], v6: bool, requester: str
    ) -> tuple[Pool, bool]:
        """RequestPool: the pool, and whether Docker must be told its gateway because the network exists already."""
        check_keys(options, IPAM_OPTIONS, "--ipam-opt")
        if space not in SPACES:
            raise InvalidRequest(f"address space {space!r} is not ours", hint=f"use {' or '.join(SPACES)}")
        existing_one = [key for key in ("ovsnet.network", "ovsnet.pool") if key in options]
        if existing_one and (len(options) > 1 or sub_pool):
            others = [*(key for key in options if key != existing_one[0]), *(["--ip-range"] if sub_pool else [])]
            raise InvalidRequest(
                f"--ipam-opt {existing_one[0]} names what exists already, and {others[0]} is for a new pool",
                hint="leave one of the two out",
            )
        if name := options.get("ovsnet.network"):
            pool = self._joined_pool(name, subnet, v6)
            if not subnet:
                # Docker compares a pool that it did not name with the host's routes, and the gateway's is one of them.
                self._controller.hide_gateway_route(self._store.network(name))
            return pool, True
        if names := options.get("ovsnet.pool"):
            return self._named_pool(names, subnet, v6, requester), True
        version = 6 if v6 else 4
        ranges = docker_options.ranges(options.get("ovsnet.ranges", ""), version)
        exclusions = docker_options.ranges(options.get("ovsnet.exclude", ""), version)
        if sub_pool:
            ranges = tuple(sorted({*ranges, AddressRange.parse(sub_pool)}))
        if not subnet:
            if ranges or exclusions:
                raise InvalidRequest("a range is given without a subnet", hint="add --subnet")
            # Docker keeps what overlaps with a route that we could not see, and asks again: what stands is never carved.
            return self._controller.carve_pool(version, lambda net: _draft(space, net, (), (), requester)), False
        net = _network(subnet)
        if (net.version == 6) != v6:
            raise InvalidRequest(f"subnet {net} is not of the family asked for", hint="check --ipv6 and --subnet")
        draft = _draft(space, net, ranges, exclusions, requester)
        existing = next(
            (one.pool for one in self._store.pools() if (one.pool.space, one.pool.subnet) == (space, net)), None
        )
        if existing is None:
            pool = self._store.create_pool(draft)
            reach(Point.DOCKER_POOL)
            return pool, False
        # The ranges of a pool in use may have been changed since (`ovsnet pool set`), and Docker repeats what it once asked.
        changed = (existing.ranges, existing.exclusions) != (draft.ranges, draft.exclusions)
        if changed and not self._store.networks_of(existing):
            raise PoolOverlap(f"pool {existing.name} has subnet {net} with other ranges", hint="choose another subnet")
        if existing.requested_by.startswith(SWARM):
            return existing, False  # a node's part of it, or a second wish, which AllocateNetwork will refuse
        self._check_replay(existing, requester)
        self._store.set_pool_requester(existing.uuid, requester)
        return existing, False

    def _settle(self, pool: str) -> None:
        """Have the leases of a pool, given by uuid, be what Docker has been told."""
        self._holds.settle(pool)
        self._releases.settle(pool)

    def _check_replay(self, pool: Pool, requester: str) -> None:
        """A pool that stands: fine for a new dockerd (replay) or as long as nothing uses it (a retry), else a second wish."""
        self._settle(pool.uuid)
        in_use = self._store.networks_of(pool) or self._store.leases(pool.uuid)
        if in_use and pool.requested_by == requester != "":
            raise PoolOverlap(
                f"subnet {pool.subnet} is in use by pool {pool.name}",
                hint="choose another one, or join with --ipam-opt ovsnet.network=NAME and -o ovsnet.network=NAME",
            )

    def _joined_pool(self, name: str, subnet: str, v6: bool) -> Pool:
        network = self._store.network(name)
        pool = next((one for one in self._store.pools_of(network) if (one.subnet.version == 6) == v6), None)
        if pool is None:
            family = "IPv6" if v6 else "IPv4"
            raise InvalidRequest(f"network {name} has no {family} pool", hint=f"create without {family}")
        if subnet and _network(subnet) != pool.subnet:
            raise InvalidRequest(
                f"network {name} has subnet {pool.subnet}, not {subnet}", hint="leave --subnet out, or correct it"
            )
        return pool

    def _named_pool(self, names: str, subnet: str, v6: bool, requester: str) -> Pool:
        """The pool of `--ipam-opt ovsnet.pool=NAME`, which one network at a time takes addresses from."""
        pools = [self._store.pool(name.strip()) for name in names.split(",")]
        pool = next((one for one in pools if (one.subnet.version == 6) == v6), None)
        if pool is None:
            family = "IPv6" if v6 else "IPv4"
            raise InvalidRequest(
                f"pool {names} has no {family} addresses", hint=f"name one of each family, or create without {family}"
            )
        if subnet and _network(subnet) != pool.subnet:
            raise InvalidRequest(
                f"pool {pool.name} has subnet {pool.subnet}, not {subnet}", hint="leave --subnet out, or correct it"
            )
        users = self._store.networks_of(pool)
        # A replay names the subnet that Docker was told. Without one, an answer that overlaps the gateway's route would be
        # refused and asked for again for ever.
        if users and (not subnet or pool.requested_by == requester != ""):
            raise PoolOverlap(
                f"pool {pool.name} is in use by network {users[0].name}",
                hint=f"join that with --ipam-opt ovsnet.network={users[0].name} and -o ovsnet.network={users[0].name}",
            )
        self._store.set_pool_requester(pool.uuid, requester)
        return pool

    def release_pool(self, pool_id: str) -> None:
        """ReleasePool. A pool that a network still uses, or a swarm, stays: Docker releases it once per network that joined."""
        pool = self._find_pool(pool_id)
        if pool is None or pool.requested_by.startswith(SWARM):
            return
        self._settle(pool_id)
        networks = self._store.networks_of(pool)
        for network in networks:
            self._controller.show_gateway_route(network)  # Docker gave up a network that was to join this one
        if not networks and pool.origin is Origin.DOCKER:
            self._store.delete_pool(pool.uuid)
            reach(Point.DOCKER_POOL_GONE)

    @_from
    def request_address(self, pool_id: str, address: str, options: Mapping[str, str], requester: str) -> IPInterface:
        """RequestAddress: an address with the pool's prefix length."""
        self._controller.ports.hush()
        pool = self._store.pool(pool_id)
        wanted = _address(address) if address else None
        if wanted is not None:
            self._holds.settle(pool.uuid)
        self._releases.settle(pool.uuid)
        an_operators = pool.origin is not Origin.DOCKER and pool.gateway is None  # and it is to stay without a gateway
        if options.get("RequestAddressType") == _GATEWAY_TYPE and not an_operators:
            return pool.interface(self._store.allocate_gateway(pool, wanted))
        if wanted is not None and self._is_replay(pool, wanted, requester):
            return pool.interface(wanted)
        names = [options[_ENDPOINT_NAME]] if _ENDPOINT_NAME in options else []
        reserved_for = next((name for name, kept in pool.reservations.items() if kept == wanted), None)
        if wanted is not None and reserved_for is not None and reserved_for not in names:
            self._owed[pool.uuid, wanted] = reserved_for
            names = [reserved_for]
        return pool.interface(self._allocate_unanswered(pool, wanted, names, requester))

    def _allocate_unanswered(
        self, pool: Pool, wanted: IPAddress | None, names: Sequence[str], requester: str
    ) -> IPAddress:
        """Lease an address that nobody on the pool's network answers for, if that is to be probed."""
        networks = self._store.networks_of(pool)
        passed_over: set[IPAddress] = set()
        any_would_do = wanted is None and not any(one in pool.reservations for one in names)
        while True:
            token = str(wanted) if wanted else secrets.token_hex(8)
            owner = LeaseOwner(OwnerKind.DOCKER, f"{requester}/{token}")
            held = self._holds.take(pool, owner) if any_would_do and self._endpoint_follows(pool, networks) else None
            address = held or self._store.allocate(pool, owner, wanted, names=names)
            reach(Point.DOCKER_ADDRESS)
            if not networks or not self._controller.answered(networks[0], address):
                return address
            if not held or not self._holds.drop(pool, address):
                self._store.release(pool, address, {OwnerKind.DOCKER}, owner=owner)
            self._store.avoid(networks[0], address, AVOID)
            if address == wanted or address in passed_over:
                raise AddressInUse(
                    f"somebody unknown on network {networks[0].name} answers for {address}",
                    hint="find it, or ask for another address",
                )
            passed_over.add(address)

    def _endpoint_follows(self, pool: Pool, networks: Sequence[Network]) -> bool:
        """Whether Docker calls CreateEndpoint, here and now, for who asks for an address of that pool."""
        return (
            pool.origin is Origin.DOCKER
            and self._controller.settings.docker_scope == "local"
            and not pool.requested_by.startswith(SWARM)
            and [len(one.docker_ids) for one in networks if one.origin is Origin.DOCKER] == [1]
        )

    def _is_replay(self, pool: Pool, address: IPAddress, requester: str) -> bool:
        """Whether Docker holds that address already and a new dockerd repeats it. Notes the new incarnation."""
        owner = self._store.lease_owner(pool, address)
        if owner is None:
            return False
        if pool.requested_by.startswith(SWARM) and owner.kind in (OwnerKind.DOCKER, OwnerKind.ENDPOINT):
            # The manager chooses, a node repeats it, and the next manager repeats all; they may well be one dockerd.
            endpoint = self._store.find_endpoint(owner.id) if owner.kind is OwnerKind.ENDPOINT else None
            if endpoint is None or endpoint.origin is Origin.DOCKER:
                self._store.hand_over(pool, address, LeaseOwner(OwnerKind.DOCKER, f"{requester}/{address}"))
                return True
        if owner.kind is OwnerKind.DOCKER:
            holder = owner.id.rpartition("/")[0]
            if holder != requester:
                self._store.hand_over(pool, address, LeaseOwner(OwnerKind.DOCKER, f"{requester}/{address}"))
                return True
        elif owner.kind is OwnerKind.ENDPOINT:
            endpoint = self._store.find_endpoint(owner.id)
            if (
                endpoint is not None
                and endpoint.origin is Origin.DOCKER
                and endpoint.labels.get(REQUESTER) != requester
            ):
                self._store.set_endpoint(endpoint.uuid, labels={**endpoint.labels, REQUESTER: requester})
                others = {one.ip for one in endpoint.addresses} - {address}
                self._repeatable.difference_update([one for one in tuple(self._repeatable) if one[0] != requester])
                self._repeatable.update((requester, endpoint.uuid, other) for other in others)
                return True
            if endpoint is not None and (repeated := (requester, endpoint.uuid, address)) in self._repeatable:
                self._repeatable.discard(repeated)
                return True
        elif owner.kind is OwnerKind.RESERVED:
            return False
        raise AddressInUse(f"address {address} is in use by {owner}", hint="ask for another one, or for none")

    def release_address(self, pool_id: str, address: str) -> None:
        """ReleaseAddress, which goes on behind the answer. A gateway that a network stands on, and an address of a living
        endpoint, stay.
        """
        self._controller.ports.hush()
        pool = self._find_pool(pool_id)
        if pool is None:
            return
        value = _address(address)
        self._owed.pop((pool.uuid, value), None)
        if self._holds.drop(pool, value) or self._another_hosts(pool, value):
            return
        gateways = {one.ip for network in self._store.networks_of(pool) for one in network.gateways}
        stays = value in gateways or pool.origin is not Origin.DOCKER or pool.requested_by.startswith(SWARM)
        self._releases.begin(pool, value, {OwnerKind.DOCKER} if stays else _RELEASABLE)
        reach(Point.DOCKER_ADDRESS_GONE)

    def _another_hosts(self, pool: Pool, address: IPAddress) -> bool:
        """Whether a dockerd of another host has it: one of ours was told of it as well, and was refused its endpoint."""
        owner = self._store.lease_owner(pool, address)
        holder = Incarnation.parse(owner.id.rpartition("/")[0]) if owner and owner.kind is OwnerKind.DOCKER else None
        return holder is not None and holder.node != self._controller.settings.node

    def _find_pool(self, pool_id: str) -> Pool | None:
        return next((one.pool for one in self._store.pools() if one.pool.uuid == pool_id), None)

    # -- networks -----------------------------------------------------------------------------------------------------

    def skip_gateway(self, options: Mapping[str, Any]) -> tuple[bool, bool]:
        """GwAllocCheck: whether Docker shall not ask for an IPv4, and for an IPv6 gateway, since the user has said what it is."""
        given = _network_options(options)
        if "ovsnet.gateway" not in given:
            return False, False
        versions = {one.version for one in docker_options.gateways(given["ovsnet.gateway"])} or {4, 6}
        return 4 in versions, 6 in versions

    def allocate_network(
        self, network_id: str, options: Mapping[str, str], ipv4: Sequence[IpamData], ipv6: Sequence[IpamData]
    ) -> Mapping[str, str]:
        """AllocateNetwork: a swarm's manager has pools for a network; until FreeNetwork they are that network's, on all nodes.

        Answers the options that the nodes' CreateNetwork will bring.
        """
        given = _network_options({_GENERIC: options})
        pools = [pool for data in [*ipv4, *ipv6] if (pool := self._pool_of(data)) is not None]
        if "ovsnet.network" not in given:
            for pool in pools:
                others = [one.name for one in self._store.networks_of(pool) if network_id not in one.docker_ids]
                if others or (pool.requested_by.startswith(SWARM) and pool.requested_by != SWARM + network_id):
                    raise PoolOverlap(
                        f"subnet {pool.subnet} belongs to network {', '.join(others) or pool.requested_by}",
                        hint="choose another subnet",
                    )
            for pool in pools:
                self._store.set_pool_requester(pool.uuid, SWARM + network_id)
        return options

    def free_network(self, network_id: str) -> None:
        """FreeNetwork: the swarm has the network no more, and releases its pools next. Missing is success."""
        self._forget(network_id)
        for one in self._store.pools():
            if one.pool.requested_by == SWARM + network_id:
                self._store.set_pool_requester(one.pool.uuid, "")

    def create_network(
        self, network_id: str, options: Mapping[str, Any], ipv4: Sequence[IpamData], ipv6: Sequence[IpamData]
    ) -> None:
        """CreateNetwork: a new network, or one more name of an existing one (`-o ovsnet.network=NAME`)."""
        if self._store.docker_network(network_id) is not None:
            return
        given = _network_options(options)
        pools: list[Pool] = []
        foreign: list[IPInterface] = []  # gateways of pools that another IPAM driver keeps
        for data in [*ipv4, *ipv6]:
            pool = self._pool_of(data)
            if pool is not None:
                pools.append(pool)
            elif data.gateway:
                foreign.append(_interface(data.gateway))
        if name := given.get("ovsnet.network"):
            self._join_network(name, network_id, given, pools)
            return
        for pool in pools:
            users = self._store.networks_of(pool)
            if users:
                raise PoolOverlap(
                    f"subnet {pool.subnet} belongs to network {users[0].name}",
                    hint=f"add -o ovsnet.network={users[0].name} to join it, or choose another subnet",
                )
        gateways = [_interface(data.gateway) for data in [*ipv4, *ipv6] if data.gateway]
        internal = bool(options.get("com.docker.network.internal"))
        masquerade = _flag(given, _MASQUERADE, default=True)
        name = given.get("ovsnet.name") or f"docker-{network_id[:12]}"
        with ExitStack() as undo:
            if "ovsnet.gateway" in given:
                subnets = [_network(data.pool) for data in [*ipv4, *ipv6]]
                gateways = self._own_gateways(given["ovsnet.gateway"], gateways, subnets, pools, name, undo)
            self._controller.create_network(
                NetworkSpec(
                    name=name,
                    bridge=given.get("ovsnet.bridge", ""),
                    tag=_number(given, "ovsnet.vlan"),
                    mtu=_number(given, "ovsnet.mtu"),
                    pools=tuple(one.uuid for one in pools),
                    gateways=tuple(gateways),
                    no_gateways=given.get("ovsnet.gateway") == "none",
                    internal=internal,
                    masquerade=not internal and bool(gateways) and masquerade,
                    routed=not _flag(given, _ISOLATED, default=True),
                    origin=Origin.DOCKER,
                    docker_id=network_id,
                    labels=_network_labels(given),
                )
            )
            undo.pop_all()

    def _own_gateways(
        self,
        wanted: str,
        told: Sequence[IPInterface],
        subnets: Sequence[IPNetwork],
        pools: Sequence[Pool],
        name: str,
        undo: ExitStack,
    ) -> list[IPInterface]:
        """The gateways of `-o ovsnet.gateway`, leased; Docker's of the families that it does not name.

        Docker's own stay leased beside ours, for Docker tells its users that they are gateways.
        """
        addresses = docker_options.gateways(wanted)
        if not addresses:
            return []
        found = [docker_options.gateway_interface(one, subnets) for one in addresses]
        for one in found:
            pool = next((pool for pool in pools if one.ip in pool.subnet), None)
            if pool is None or pool.gateway == one.ip:
                continue
            if pool.gateway is None and pool.origin is Origin.DOCKER:
                self._store.allocate_gateway(pool, one.ip)
            else:
                self._store.allocate(pool, LeaseOwner(OwnerKind.GATEWAY, f"{pool.name}/{name}"), one.ip)
            undo.callback(self._store.release, pool, one.ip, {OwnerKind.GATEWAY})
            reach(Point.DOCKER_GATEWAY)
        return [*found, *(one for one in told if one.version not in {own.version for own in found})]

    def _join_network(self, name: str, network_id: str, given: Mapping[str, str], pools: Sequence[Pool]) -> None:
        network = self._store.network(name)
        if {one.uuid for one in pools} != set(network.pools):
            raise InvalidRequest(
                f"the addresses are not those of network {name}",
                hint=f"use --ipam-driver ovsnet with --ipam-opt ovsnet.network={name}, or leave out -o ovsnet.network",
            )
        if "ovsnet.gateway" in given:
            present = {str(one.ip) for one in network.gateways} or {"none"}
            if {part.strip() for part in given["ovsnet.gateway"].split(",")} != present:
                raise InvalidRequest(
                    f"network {name} has gateway {', '.join(sorted(present))}, not {given['ovsnet.gateway']}",
                    hint="leave it out",
                )
        if _flag(given, _ISOLATED, default=not network.routed) is network.routed:
            raise InvalidRequest(
                f"network {name} is {'not ' if network.routed else ''}isolated from the others", hint="leave it out"
            )
        labels = _network_labels(given)
        wishes = (
            ("ovsnet.bridge", network.bridge),
            ("ovsnet.vlan", str(network.tag)),
            ("ovsnet.vlan.trunk", network.labels.get(TRUNK, "")),
            ("ovsnet.mtu", str(network.mtu)),
            (ANTI_SPOOFING, network.labels.get(ANTI_SPOOFING, "true")),
            ("com.docker.network.container_iface_prefix", network.labels.get(IFACE_PREFIX, "eth")),
        )
        canonical = {"ovsnet.vlan.trunk": labels.get(TRUNK), ANTI_SPOOFING: labels.get(ANTI_SPOOFING)}
        for option, have in wishes:
            wanted = canonical.get(option) or given.get(option, have)
            if wanted != have:
                raise InvalidRequest(
                    f"network {name} has {option} {have or 'none'}, not {given[option]}", hint="leave it out"
                )
        self._store.set_docker_ids(network.uuid, add=[network_id])
        reach(Point.DOCKER_NAMED)
        self._controller.show_gateway_route(network)

    def _pool_of(self, data: IpamData) -> Pool | None:
        """The pool of ours that an IpamData tells of, or None if another IPAM driver keeps it."""
        if data.space not in SPACES:
            return None
        net = _network(data.pool)
        for one in self._store.pools():
            if (one.pool.space, one.pool.subnet) == (data.space, net):
                return one.pool
        # A network that is joined may have its pool in the default space whatever Docker's scope is.
        return next((one.pool for one in self._store.pools() if one.pool.subnet == net), None)

    def delete_network(self, network_id: str) -> None:
        """DeleteNetwork: forgets Docker's name for the network; one that Docker made goes with its last name.

        In a swarm it says only that this node has nothing on it any more: the network is the manager's, until FreeNetwork.
        """
        if self._controller.settings.docker_scope == "global":
            network = self._store.docker_network(network_id)
            if network is not None:
                self._controller.leave(network)
        else:
            self._forget(network_id)

    def _forget(self, network_id: str) -> None:
        network = self._store.docker_network(network_id)
        if network is None:
            return
        self._endpoints.promises.settle()
        self._settle("")
        if network.origin is Origin.DOCKER and network.docker_ids == {network_id}:
            self._controller.delete_network(network.uuid)
        else:
            self._store.set_docker_ids(network.uuid, remove=[network_id])
            reach(Point.DOCKER_UNNAMED)

    # -- endpoints ----------------------------------------------------------------------------------------------------

    @_from
    def create_endpoint(
        self,
        network_id: str,
        endpoint_id: str,
        address: str,
        address6: str,
        mac: str,
        options: Mapping[str, Any],
        requester: str,
    ) -> Endpoint:
        """CreateEndpoint: the endpoint with its switch port, and the link that Join will name."""
        given = docker_options.endpoint_options(options)
        limits = docker_options.bandwidth(given)
        mac = docker_options.mac(given, mac)
        name = docker_options.sticky_name(given)
        network = self._network(network_id)
        key = endpoint_key(network.uuid, endpoint_id, "")
        with self._controller.key_lock(key) as lock:
            found = self._store.find_endpoint(key)
            if found is not None:  # the first call may have died before it was through
                if not found.sandbox and self._controller.links.link(found.link) is None:
                    self._endpoints.plug(found)
                if found.bandwidth:
                    self._controller.limit(found)
                return found
            self._store.check_room()
            trunk = docker_options.tags(network.labels[TRUNK]) if network.labels.get(TRUNK) else ()
            addresses = tuple(_interface(one) for one in (address, address6) if one)
            self._check_reservations(network, addresses, name)
            self._controller.ensure_here(network)
            spare = self._controller.ports.take(network, trunk, {one.ip for one in addresses}, linked=True)
            port = spare.name
            reach(Point.ENDPOINT_PORT)
            draft = Endpoint(
                uuid="",
                network=network.uuid,
                network_name=network.name,
                container=endpoint_id,
                ifname="",
                origin=Origin.DOCKER,
                node=self._controller.settings.node,
                sandbox="",
                addresses=addresses,
                mac=mac,
                mtu=network.mtu,
                port=port,
                link=self._controller.names.docker_link(port),
                labels={REQUESTER: requester, **({STICKY: name} if name else {})},
                bandwidth=limits,
                trunk=trunk,
            )
            return self._endpoints.make(network, draft, spare, name, lock)

    def _check_reservations(self, network: Network, addresses: Sequence[IPInterface], name: str) -> None:
        """InvalidRequest where the address and the endpoint's name do not fit: it is too late to give another address."""
        for pool in self._store.pools_of(network):
            given = next((one.ip for one in addresses if one.version == pool.subnet.version), None)
            kept = pool.reservations.get(name)
            if kept is not None and given is not None and kept != given:
                flag = "--ip" if kept.version == 4 else "--ip6"
                raise InvalidRequest(
                    f"{kept} is kept for {name}, and Docker has chosen {given} before it told the name",
                    hint=f"add {flag} {kept}",
                )
            owed = self._owed.get((pool.uuid, given)) if given is not None else None
            if owed is not None and owed != name:
                raise AddressInUse(
                    f"{given} is kept for {owed}", hint=f"add --driver-opt ovsnet.name={owed}, or take another address"
                )
            if given is not None:
                self._owed.pop((pool.uuid, given), None)

    def join(self, network_id: str, endpoint_id: str, sandbox_key: str, options: Mapping[str, Any]) -> JoinResult:
        """Join: which link Docker moves into the sandbox, and the gateways there."""
        del options
        network = self._network(network_id)
        endpoint = self._endpoint(network, endpoint_id)
        self._endpoints.stand_ins.restore(endpoint)
        self._controller.note_attached(endpoint.key)  # Docker moves the link now
        self._note_sandbox(endpoint, sandbox_key)
        reach(Point.ENDPOINT_JOINED)
        gateways = {one.version: one.ip for one in network.gateways}
        return JoinResult(
            link=endpoint.link,
            prefix=network.labels.get(IFACE_PREFIX, "eth"),
            gateway=gateways.get(4),
            gateway6=gateways.get(6),
            routes=(),
            disable_gateway_service=network.internal or not gateways,
        )

    def leave(self, network_id: str, endpoint_id: str) -> None:
        """Leave: the published ports go, and the link goes out of service; Docker moves what stands in for it back after this."""
        endpoint = self._find_endpoint(network_id, endpoint_id)
        if endpoint is not None:
            self._controller.note_attached(endpoint.key)  # Docker moves the link now
            self._unpublish(endpoint)
            reach(Point.ENDPOINT_UNPUBLISHED)
            self._endpoints.stand_ins.put(endpoint)
            reach(Point.ENDPOINT_STOOD_IN)
            self._note_sandbox(endpoint, "")
            reach(Point.ENDPOINT_LEFT)

    def _note_sandbox(self, endpoint: Endpoint, sandbox: str) -> None:
        """Write behind the answer where an endpoint's link is, which is only shown."""
        self._controller.ports.hush()

        def look(done: Pending[Endpoint]) -> None:
            try:
                done.result()
            except EndpointNotFound:
                LOG.debug("endpoint %s has gone before its sandbox was written", endpoint.uuid)
            except OvsnetError as exc:
                LOG.warning("the sandbox of endpoint %s is not written: %s", endpoint.uuid, exc)

        self._store.set_sandbox_soon(endpoint.uuid, sandbox).then(look)

    def delete_endpoint(self, network_id: str, endpoint_id: str) -> None:
        """DeleteEndpoint: link and port go; the addresses wait for Docker's ReleaseAddress. Missing is success.

        The link goes with its port, behind the answer: deleting it here would take 15 to 20 ms under RTNL.
        """
        endpoint = self._find_endpoint(network_id, endpoint_id)
        if endpoint is None:
            return
        with self._controller.endpoint_lock(endpoint) as lock:
            present = self._store.find_endpoint(endpoint.key)
            if present is None:
                return
            self._endpoints.remove(present, lock)

    def endpoint_info(self, network_id: str, endpoint_id: str) -> Mapping[str, str]:
        """EndpointOperInfo: what `docker network inspect` may show."""
        network = self._network(network_id)
        endpoint = self._endpoint(network, endpoint_id)
        return {
            "ovsnet.network": network.name,
            "ovsnet.bridge": network.bridge,
            "ovsnet.vlan": str(network.tag),
            "ovsnet.port": endpoint.port,
        }

    def program_external(self, network_id: str, endpoint_id: str, options: Mapping[str, Any]) -> None:
        """ProgramExternalConnectivity: has the ports of `docker run -p` lead to the endpoint, and no others."""
        network = self._network(network_id)
        endpoint = self._endpoint(network, endpoint_id)
        wishes = _own(_wishes(options), endpoint, self._beside(endpoint), ipv4_only=bool(options.get(_IPV4_ONLY)))
        if not wishes and not endpoint.published:
            return
        if not network.gateways and wishes:
            raise InvalidRequest(
                f"network {network.name} has no gateway on the host, so that no port can be published",
                hint="leave out -p, or use a network that is not internal",
            )
        with self._controller.endpoint_lock(endpoint):
            self._controller.publish(endpoint, lambda usable: _choose(wishes, endpoint.published, usable))

    def _beside(self, endpoint: Endpoint) -> list[Endpoint]:
        """The other endpoints of its container that publish ports."""
        return [
            one
            for one in self._store.endpoints()
            if one.published and one.sandbox == endpoint.sandbox != "" and one.uuid != endpoint.uuid
        ]

    def revoke_external(self, network_id: str, endpoint_id: str) -> None:
        """RevokeExternalConnectivity; missing is success. Leave and DeleteEndpoint do the same, for Docker may forget this."""
        endpoint = self._find_endpoint(network_id, endpoint_id)
        if endpoint is not None:
            self._unpublish(endpoint)

    def _unpublish(self, endpoint: Endpoint) -> None:
        with self._controller.endpoint_lock(endpoint):
            present = self._store.find_endpoint(endpoint.key)
            if present is not None:
                self._controller.unpublish(present)

    def _network(self, network_id: str) -> Network:
        network = self._store.docker_network(network_id)
        if network is None:
            raise NetworkNotFound(
                f"Docker's network {network_id[:12]} is not known",
                hint="remove it with docker network rm and make it again",
            )
        return network

    def _find_endpoint(self, network_id: str, endpoint_id: str) -> Endpoint | None:
        """Docker's endpoint, as Leave and what follows it want it: missing is success."""
        network = self._store.docker_network(network_id)
        if network is None:
            return None
        key = endpoint_key(network.uuid, endpoint_id, "")
        with suppress(OvsnetError):  # that it was never written
            self._endpoints.promises.check(key)
        self._endpoints.promises.forget(key)
        return self._store.find_endpoint(key)

    def _endpoint(self, network: Network, endpoint_id: str) -> Endpoint:
        key = endpoint_key(network.uuid, endpoint_id, "")
        self._endpoints.promises.check(key)
        endpoint = self._store.find_endpoint(key)
        if endpoint is None:
            raise EndpointNotFound(
                f"Docker's endpoint {endpoint_id[:12]} is not known on network {network.name}", hint="connect again"
            )
        return endpoint


_RELEASABLE = {OwnerKind.DOCKER, OwnerKind.GATEWAY}


def _draft(
    space: str,
    subnet: IPNetwork,
    ranges: tuple[AddressRange, ...],
    exclusions: tuple[AddressRange, ...],
    requester: str,
) -> Pool:
    """The pool that Docker asks for; its gateway comes by RequestAddress."""
    spec = PoolSpec(subnet, space=space, ranges=ranges, exclusions=exclusions, no_gateway=True, origin=Origin.DOCKER)
    name = f"docker-{space}-{subnet}".translate(str.maketrans("/:", "--"))
    return replace(draft_pool(spec, name), requested_by=requester)


def _network_options(options: Mapping[str, Any]) -> dict[str, str]:
    """What the user gave with `-o`, under our own keys; InvalidRequest for what is not known, contradicts or cannot be kept."""
    generic = options.get(_GENERIC) or {}
    if not isinstance(generic, Mapping):
        raise InvalidRequest(f"{_GENERIC} is not an object", hint="send the body as Docker's protocol has it")
    texts = {str(key): str(value) for key, value in generic.items()}
    check_keys(texts, (*NETWORK_OPTIONS, *docker_options.carried_over()), "-o")
    given: dict[str, str] = {}
    for key, value in docker_options.check_carried_over(texts).items():
        ours = _SYNONYMS.get(key, key)
        if given.setdefault(ours, value) != value:
            raise InvalidRequest(f"-o {key} differs from what its other name says", hint="leave one of the two out")
    _network_labels(given)
    if "ovsnet.gateway" in given:
        docker_options.gateways(given["ovsnet.gateway"])
    return given


def _network_labels(given: Mapping[str, str]) -> dict[str, str]:
    """The labels that keep what is for the network's Docker endpoints, in their one form; InvalidRequest."""
    labels = {}
    if "ovsnet.vlan.trunk" in given:
        labels[TRUNK] = docker_options.write_tags(docker_options.tags(given["ovsnet.vlan.trunk"]))
    if ANTI_SPOOFING in given:
        labels[ANTI_SPOOFING] = str(_flag(given, ANTI_SPOOFING, default=True)).lower()
    if prefix := given.get("com.docker.network.container_iface_prefix"):
        labels[IFACE_PREFIX] = docker_options.link_prefix(prefix)
    return labels


def _number(options: Mapping[str, str], key: str) -> int | None:
    if key not in options:
        return None
    try:
        return int(options[key])
    except ValueError:
        raise InvalidRequest(f"{key}={options[key]!r} is not a number", hint="write it in digits") from None


def _flag(options: Mapping[str, str], key: str, *, default: bool) -> bool:
    """As Docker's own drivers read it (Go's strconv.ParseBool)."""
    if key not in options:
        return default
    if options[key] in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if options[key] in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidRequest(f"{key}={options[key]!r} is neither true nor false", hint="write true or false")


@dataclass(frozen=True, slots=True)
class _Wish:
    """A port that Docker wants published: on one of `host_ports`, or on any if that is empty."""

    protocol: Protocol
    container_port: int
    host_address: IPAddress | None
    host_ports: range

    def on(self, host_port: int) -> PublishedPort:
        """It on that port."""
        return PublishedPort(self.protocol, host_port, self.container_port, self.host_address)

    def met_by(self, port: PublishedPort) -> bool:
        """Whether that is what is wanted, but for the host's address."""
        same = (port.protocol, port.container_port) == (self.protocol, self.container_port)
        return same and (not self.host_ports or port.host_port in self.host_ports)


def _own(wishes: Sequence[_Wish], endpoint: Endpoint, beside: Sequence[Endpoint], *, ipv4_only: bool) -> list[_Wish]:
    """What of the wishes for all addresses is this endpoint's: a container may have another gateway for the other family.

    Docker 28 and later tells both of them the whole port map, and only one that the other has IPv6.
    """
    versions = {one.version for one in endpoint.addresses} - ({6} if ipv4_only else set())
    found = []
    for wish in wishes:
        served = {each.address.version for one in beside for each in one.forwardings if wish.met_by(each.port)}
        if (wish.host_address is not None and not wish.host_address.is_unspecified) or not (served or ipv4_only):
            found.append(wish)
            continue
        asked = versions if wish.host_address is None else versions & {wish.host_address.version}
        found += [replace(wish, host_address=_ANY[version]) for version in sorted(asked - served)]
    return found


_ANY: dict[int, IPAddress] = {4: ipaddress.IPv4Address(0), 6: ipaddress.IPv6Address(0)}
_PROTOCOLS = {6: Protocol.TCP, 17: Protocol.UDP, 132: Protocol.SCTP}  # IANA's protocol numbers


def _wishes(options: Mapping[str, Any]) -> list[_Wish]:
    """The port map among Docker's options; InvalidRequest."""
    bindings = options.get(_PORT_MAP) or []
    if not isinstance(bindings, list):
        raise InvalidRequest(f"{_PORT_MAP} is not a list", hint="send the body as Docker's protocol has it")
    return list(map(_wish, bindings))


def _wish(binding: Any) -> _Wish:
    """One element of the port map (libnetwork's types.PortBinding)."""
    try:
        first, last = int(binding.get("HostPort") or 0), int(binding.get("HostPortEnd") or 0)
        if not 0 <= max(first, last) < 65536:
            raise ValueError("ports go up to 65535")
        return _Wish(
            protocol=_PROTOCOLS[int(binding["Proto"])],
            container_port=int(binding["Port"]),
            host_address=ipaddress.ip_address(binding["HostIP"]) if binding.get("HostIP") else None,
            host_ports=range(first, max(first, last) + 1) if first else range(0),
        )
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as exc:
        raise InvalidRequest(
            f"port binding {str(binding)[:120]} cannot be read: {exc!r}", hint="publish as HOST_PORT:CONTAINER_PORT/tcp"
        ) from None


def _choose(
    wishes: Sequence[_Wish], have: Sequence[PublishedPort], usable: Callable[[PublishedPort], bool]
) -> tuple[PublishedPort, ...]:
    """Ports for all wishes; those that the endpoint has already stay. PortInUse, Exhausted."""
    chosen: list[PublishedPort] = []
    for wish in wishes:

        def free(number: int, wish: _Wish = wish) -> bool:
            port = wish.on(number)
            return all(not port.clashes(one) for one in chosen) and (port in have or usable(port))

        kept = [
            one.host_port
            for one in have
            if wish.on(one.host_port) == one and (not wish.host_ports or one.host_port in wish.host_ports)
        ]
        number = next(filter(free, kept), 0)
        if not number and len(wish.host_ports) == 1:
            number = wish.host_ports[0]
            if not free(number):
                raise PortInUse(
                    f"{wish.protocol} port {number} of this host is in use",
                    hint="`ovsnet endpoint ls` shows what is published, `ss -lntu` who listens; choose another port",
                )
        chosen.append(wish.on(number or first_free(wish.host_ports, free)))
    return tuple(chosen)


def _network(text: str) -> IPNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError as exc:
        raise InvalidRequest(f"subnet {text!r} cannot be read: {exc}", hint="write it as 10.20.0.0/24") from None


def _interface(text: str) -> IPInterface:
    try:
        return ipaddress.ip_interface(text)
    except ValueError as exc:
        raise InvalidRequest(f"address {text!r} cannot be read: {exc}", hint="write it as 10.20.0.5/24") from None


def _address(text: str) -> IPAddress:
    try:
        return ipaddress.ip_address(text.partition("/")[0])
    except ValueError as exc:
        raise InvalidRequest(f"address {text!r} cannot be read: {exc}", hint="write it as 10.20.0.5") from None
