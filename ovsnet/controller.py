"""The use cases: pools, networks, attach and detach. Order and rollback of every operation are read here.

Calls the rooms (store, switch through Ports, link); called by the edges. Intent is written to the store before the first side
effect that outlives the request; each step registers its undo; what is missing already is success when something is removed.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, suppress
from datetime import datetime

from . import __version__, alter, wiring
from .addresses import Addresses
from .capture import CaptureRequest, Captures
from .config import Settings
from .crashpoints import Point, reach
from .errors import (
    AddressInUse,
    AlreadyExists,
    Exhausted,
    InUse,
    InvalidNetns,
    InvalidRequest,
    NetworkNotFound,
    NotFound,
    OvsnetError,
    PoolExhausted,
    PoolOverlap,
    PortInUse,
    StateUnavailable,
    SwitchUnavailable,
    Unavailable,
)
from .events import Events
from .examine import examine
from .ipam import carve, check_spec, default_gateway
from .jobs import Progress
from .journal import Journal
from .link import Links, Netns, StandIn, open_netns
from .locks import Hold, KeyedLocks
from .model import (
    ANTI_SPOOFING,
    OWN_LABELS,
    Attachment,
    AttachRequest,
    Endpoint,
    EndpointChange,
    Expectation,
    Forwarding,
    Health,
    IPAddress,
    IPNetwork,
    Lease,
    LeaseRecord,
    Network,
    NetworkSpec,
    Origin,
    OwnerKind,
    Pool,
    PoolChange,
    PoolSpec,
    PoolUse,
    PortRole,
    Protocol,
    PublishedPort,
    Route,
    Sender,
    SwitchPort,
    check_mtu,
    check_tag,
    endpoint_key,
)
from .names import check_container_id, check_ifname, check_mac, check_network_name, check_reservation, mac_for, mac_of
from .nat import DockerUser, Limits, Rules, forget, in_use
from .ports import Ports, Spare
from .rehearsal import Rehearsal
from .removal import remove_network
from .spoofing import SpoofGuard, check_label, guarded
from .store import PendingEndpoint, Store
from .switch import Switch, Vswitchd
from .trace import Question, Trace, trace

LOG = logging.getLogger(__name__)

AVOID = 600.0  # seconds for which an address that somebody unknown has is given to nobody
_ETHERNET_MTU = 1500  # bytes, where there is no uplink to ask
_HEALTH_TIMEOUT = 2.0  # seconds for the switch to tell whether it works
_MARGIN = 1.0  # seconds that a list of valid attachments may be older than its arrival
_SETTLING = (
    10.0  # seconds after which Docker, or plugins chained after ours, have done their part, and others may mend it
)
_REMEMBERED = 60.0  # seconds, longer than any request takes
_HIDDEN_FOR = 10.0  # seconds between Docker's RequestPool and CreateNetwork, at the very most

REAPER = "reaper"  # who ends the leases of what is abandoned, for the journal
MADE_WITH = "ovsnet.made-with"  # label of a pool that was made with a network and goes with it: the network's name


class Controller:
    """The use cases of one host. Thread-safe; raises OvsnetError only."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        switch: Switch,
        links: Links,
        ports: Ports,
        spoofing: SpoofGuard,
        rules: Rules,
        limits: Limits,
        journal: Journal | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.switch = switch
        self.links = links
        self.ports = ports
        self.spoofing = spoofing
        self.rules = rules
        self.limits = limits
        self.docker_user = DockerUser(settings.names)
        self.addresses = Addresses(
            settings, store, lambda spec, name: store.create_pool(draft_pool(spec, spec.name or name))
        )
        self.journal = journal
        self.events = Events(journal, followers=max(settings.workers // 4, 1))
        self.vswitchd = Vswitchd(settings.switch_run_dir, settings.deadline)
        self.captures = Captures(self)
        self.names = settings.names
        self._locks = KeyedLocks()
        self._rules_lock = threading.Lock()
        self._publishing: set[str] = set()  # networks (uuids) that the rules in place know to have published ports
        self._ruled: set[IPNetwork] = set()  # prefixes that the rules in place masquerade, or publish ports of
        self._leaving: set[str] = (
            set()
        )  # endpoints (uuids) whose ports are published no more, although the store has them
        self._attached_lock = threading.Lock()
        self._attached: dict[str, float] = {}  # keys of the latest attachments, and when (monotonic seconds)
        self._here: set[str] = set()  # networks (uuids) whose bridge and gateway this host has

    # -- pools --------------------------------------------------------------------------------------------------------

    def pools(self) -> list[PoolUse]:
        """All pools with their use."""
        return self.store.pools()

    def pool(self, ref: str) -> PoolUse:
        """One pool with its use; PoolNotFound."""
        return self.store.pool_use(ref)

    def leases(self, pool_ref: str) -> list[Lease]:
        """The leases of a pool; PoolNotFound."""
        return self.store.leases(pool_ref)

    def cooling(self, pool_ref: str) -> frozenset[int]:
        """Addresses of a pool that were released too lately to be given to somebody else; PoolNotFound."""
        return self.store.cooling(pool_ref)

    def create_pool(self, spec: PoolSpec) -> Pool:
        """Make a pool; the same again is success. PoolOverlap, AlreadyExists, InvalidRequest."""
        pool = self.store.create_pool(draft_pool(spec, spec.name))
        reach(Point.POOL_MADE)
        return pool

    def release_address(self, ref: str, address: IPAddress) -> None:
        """End the lease of an address that Docker was given and has forgotten; not leased is success.

        InUse for what is not to be released so: an endpoint's address, a gateway, a reservation. PoolNotFound.
        """
        pool = self.store.pool(ref)
        if not self.store.release(pool, address, {OwnerKind.DOCKER}, by="api"):
            raise InUse(
                f"{address} of pool {pool.name} belongs to {self.store.lease_owner(pool, address)}",
                hint="remove the endpoint or network, or release the reservation by its name",
            )

    def carve_pool(self, version: int, draft: Callable[[IPNetwork], Pool]) -> Pool:
        """Make a pool of the first default subnet that overlaps no pool, route or address of this host.

        `draft` makes the Pool of a subnet. Exhausted when the default pools are used up.
        """
        taken = [one.pool.subnet for one in self.store.pools()]
        taken += self.links.host_routes()
        taken += [one.network for link in self.links.links("") for one in link.addresses]
        for subnet in carve([one.supernet for one in self.settings.default_pools], version, taken):
            try:
                return self.store.create_pool(draft(subnet))
            except PoolOverlap:  # another controller was quicker; the next one then
                continue
        raise Exhausted(
            f"the default IPv{version} pools are used up", hint="give a subnet, or extend default_pools in the settings"
        )

    def delete_pool(self, ref: str, *, force: bool = False) -> None:
        """Remove a pool without leases or networks; PoolNotFound, InUse.

        `force` takes along what Docker holds and what is reserved, never the address of an endpoint.
        """
        self.store.delete_pool(self.store.pool(ref).uuid, force=force)
        reach(Point.POOL_GONE)

    def change_pool(self, ref: str, change: PoolChange) -> Pool:
        """Change a pool that stands; what `change` leaves out stays.

        InUse names the first lease that the change would strand. PoolNotFound, PoolOverlap, InvalidRequest.
        """
        pool, networks = self.store.change_pool(self.store.pool(ref).uuid, **change.given())
        for network in networks:
            if network.uuid in self._here:  # the reconcilers of other hosts see to theirs
                self.restore_network(network)
        return pool

    def reserve(self, ref: str, name: str, address: IPAddress | None = None) -> IPAddress:
        """Keep an address of a pool for a name: who attaches by it gets the address, nobody else does.

        The same again is success. PoolNotFound, AlreadyExists, AddressInUse, AddressNotInPool, PoolExhausted.
        """
        return self.store.reserve(self.store.pool(ref), check_reservation(name), address)

    def release_reservation(self, ref: str, name: str) -> IPAddress:
        """End a reservation; an endpoint that has the address keeps it until it goes. PoolNotFound, NotFound."""
        return self.store.unreserve(self.store.pool(ref), name)

    # -- networks -----------------------------------------------------------------------------------------------------

    def networks(self) -> list[Network]:
        """All networks."""
        return self.store.networks()

    def network(self, ref: str) -> Network:
        """One network; NetworkNotFound."""
        return self.store.network(ref)

    def create_network(self, spec: NetworkSpec) -> Network:
        """Make a network with its bridge, its pools and the gateway on this host; the same again is success.

        AlreadyExists, TagInUse, PoolOverlap, PoolNotFound, InvalidRequest, SwitchUnavailable, LinkFailed.
        """
        draft, pools = self.draft_network(spec)
        bridge = draft.bridge
        with self._locks.hold(f"bridge {bridge}", self.settings.deadline), ExitStack() as undo:
            existed = self.store.find_network(spec.name) is not None
            self.switch.ensure_bridge(bridge)
            undo.callback(self._drop_bridge, bridge)
            reach(Point.NETWORK_BRIDGE)
            choose, foreign = self.free_tags(spec, bridge)
            network = self.store.create_network(draft, pools, choose_tag=choose, foreign_tags=foreign)
            if not existed:
                undo.callback(self.store.delete_network, network.uuid, self.pools_going_with(network))
            reach(Point.NETWORK_WRITTEN)
            self._ensure_gateway(network)
            reach(Point.NETWORK_GATEWAY)
            self._here.add(network.uuid)
            if network.masquerade or network.routed:
                self.load_rules()
            reach(Point.NETWORK_RULES)
            undo.pop_all()
        LOG.info("network %s is on bridge %s, VLAN %d", network.name, network.bridge, network.tag)
        return network

    def draft_network(self, spec: NetworkSpec) -> tuple[Network, list[Pool | str]]:
        """The network that a specification asks for, checked, and its pools: uuids of those that exist, drafts of the others."""
        check_network_name(spec.name)
        check_label(spec.labels)
        pools: list[Pool | str] = [self.store.pool(ref).uuid for ref in spec.pools]
        drafts = [draft_pool(one, self._pool_name(one, spec), {MADE_WITH: spec.name}) for one in spec.subnets]
        all_pools = [*(self.store.pool(ref) for ref in spec.pools), *drafts]
        pools += drafts
        ipv6 = any(one.subnet.version == 6 for one in all_pools)
        if len({one.subnet.version for one in all_pools}) < len(all_pools):
            raise InvalidRequest("a network has one pool per address family", hint="give one IPv4 and one IPv6 subnet")
        bridge = check_ifname(spec.bridge or self.settings.bridge)
        mtu = check_mtu(spec.mtu or self.settings.mtu or self._uplink_mtu(bridge), ipv6=ipv6)
        gateways = spec.gateways or tuple(one.gateway_interface for one in all_pools if one.gateway_interface)
        draft = Network(
            uuid="",
            name=spec.name,
            bridge=bridge,
            tag=0 if spec.tag is None else check_tag(spec.tag),
            mtu=mtu,
            pools=(),
            gateways=() if spec.internal or spec.no_gateways else gateways,
            internal=spec.internal,
            origin=spec.origin,
            docker_ids=frozenset({spec.docker_id} if spec.docker_id else ()),
            labels=spec.labels,
            masquerade=bool(spec.masquerade),
            routed=bool(spec.routed),
        )
        if draft.routed and not draft.gateways:
            raise InvalidRequest(
                f"network {spec.name} has no gateway on the host, so that it cannot be routed",
                hint="make it without this, or with a gateway",
            )
        return draft, pools

    def free_tags(self, spec: NetworkSpec, bridge: str) -> tuple[range | None, frozenset[int]]:
        """Which VLAN tags a network may get, None if its own, and which of them somebody else on the bridge has."""
        if spec.tag is not None:
            return None, frozenset()
        networks = {one.uuid for one in self.store.networks() if one.bridge == bridge}
        own = {one.own_tag for one in self.store.endpoints() if one.own_tag is not None and one.network in networks}
        return range(self.settings.vlan_first, self.settings.vlan_last + 1), self.switch.tags(bridge) | own

    def _uplink_mtu(self, bridge: str) -> int:
        """What the way out of a bridge can carry: the least of its uplinks, or else the device of the host's default route."""
        uplinks = [link for name in self.switch.uplinks(bridge) if (link := self.links.link(name)) is not None]
        if not uplinks and (default := self.links.default_device()) is not None:
            uplinks = [default]
        return min((link.mtu for link in uplinks), default=_ETHERNET_MTU)

    def delete_network(self, ref: str) -> None:
        """Remove a network without endpoints, and the pools made with it; NetworkNotFound, InUse."""
        network = self.store.network(ref)
        pools = self.store.pools_of(network)
        with self._locks.hold(f"bridge {network.bridge}", self.settings.deadline):
            # A port whose removal is under way would be nobody's, should we die when the store has forgotten its network.
            self.ports.flush()
            # The store decides, for it knows of endpoints on all hosts; the port of a deleted network is a stray for reconcile.
            own = [
                (pool, gateway.ip)
                for pool in pools
                for gateway in network.gateways
                if gateway.ip in pool.subnet and gateway.ip != pool.gateway
            ]
            self.store.delete_network(network.uuid, self.pools_going_with(network), own)
            reach(Point.NETWORK_GONE)
            self._here.discard(network.uuid)
            self.ports.forget(network.uuid)
            reach(Point.NETWORK_SPARES_GONE)
            self.show_gateway_route(network)  # or the rule of a hidden one would stay
            self.switch.del_ports([self.names.gateway(network.uuid)]).result(self.settings.deadline)
            reach(Point.NETWORK_PORT_GONE)
            self._drop_bridge(network.bridge)
            reach(Point.NETWORK_BRIDGE_GONE)
            if network.masquerade or network.routed:
                self.load_rules()
            reach(Point.NETWORK_RULES_GONE)
        LOG.info("network %s is gone", network.name)

    def change_network(self, ref: str, tag: int) -> Network:
        """Give a network another VLAN tag while traffic goes on; see `alter.change_network`."""
        return alter.change_network(self, ref, tag)

    def load_rules(self) -> None:
        """Put this host's packet filter rules in place, as its networks and endpoints want them."""
        with self._rules_lock:
            self._load_rules()

    def filtered(self) -> bool:
        """Whether this host's packet filter rules are in place."""
        with self._rules_lock:
            return self._intact([one for one in self.store.endpoints() if one.node == self.settings.node])

    def _intact(self, here: Collection[Endpoint]) -> bool:
        return self.rules.intact([each for one in here if one.uuid not in self._leaving for each in one.forwardings])

    def keep_rules(self) -> None:
        """Put the rules in place again if somebody has removed or flushed them, or started a Docker that filters."""
        with self._rules_lock:
            here = [one for one in self.store.endpoints() if one.node == self.settings.node]
            if not self._intact(here):
                LOG.warning("somebody has changed our rules in nftables: they are loaded again")
                self._load_rules()
                reach(Point.REPAIR_RULES)
                self.recover_limits()
        self.docker_user.ensure()  # without the lock: it may wait for that of iptables

    def _load_rules(self) -> None:
        networks = {one.uuid: one for one in self.store.networks()}
        here = [one for one in self.store.endpoints() if one.published and one.node == self.settings.node]
        forwardings = [each for one in here if one.uuid not in self._leaving for each in one.forwardings]
        publishing = [networks[uuid] for uuid in {one.network for one in here} if uuid in networks]
        masqueraded = {one.network for network in networks.values() if network.masquerade for one in network.gateways}
        routed = [one for one in networks.values() if one.routed]
        for version in (
            {one.version for one in masqueraded}
            | {one.address.version for one in forwardings}
            | {each.version for one in routed for each in one.gateways}
        ):
            self.links.forward(version)
        for network in publishing:
            self.links.allow_loopback(self.names.gateway(network.uuid))
        reached = {one.network for network in publishing for one in network.gateways}
        self.rules.load(
            masqueraded,
            forwardings,
            reached,
            [self.names.gateway(one.uuid) for one in routed],
        )
        self._publishing = {one.uuid for one in publishing}
        self._ruled = masqueraded | reached

    def _publish(self, endpoint: Endpoint) -> None:
        """Have the endpoint's published ports lead to it; undone if that fails. The store has the endpoint already."""
        alter.check_reach(endpoint)
        with self._rules_lock:
            try:
                if endpoint.network not in self._publishing:
                    self._load_rules()
                else:
                    self.rules.publish(endpoint.forwardings)
            except Unavailable:  # somebody else has changed the table
                self._load_rules()
        try:
            forget(one for one in endpoint.forwardings if one.port.protocol is Protocol.UDP)
        except OvsnetError:
            self._unpublish(endpoint)
            raise

    def republish(self, endpoint: Endpoint, gone: Collection[Forwarding]) -> None:
        """Have what is `gone` lead nowhere and the endpoint's published ports lead to it, at one instant.

        The store says so already.
        """
        now = endpoint.forwardings
        with self._rules_lock:
            try:
                if now and endpoint.network not in self._publishing:
                    self._load_rules()
                else:
                    self.rules.replace(gone, now)
            except Unavailable:  # somebody else has changed the table, or has loaded it since the store was written
                self._load_rules()
        forget(alter.to_forget(tuple(gone), now))

    def bridge_lock(self, bridge: str) -> AbstractContextManager[Hold]:
        """Held while the networks of a bridge are changed; DeadlineExceeded."""
        return self._locks.hold(f"bridge {bridge}", self.settings.deadline)

    def endpoint_lock(self, endpoint: Endpoint, timeout: float | None = None) -> AbstractContextManager[Hold]:
        """Held while an endpoint is changed; DeadlineExceeded, by default after the settings' deadline."""
        return self._locks.hold(endpoint.key, self.settings.deadline if timeout is None else timeout)

    def key_lock(self, key: str) -> AbstractContextManager[Hold]:
        """Held while the endpoint of that owner key is made or changed; DeadlineExceeded."""
        return self._locks.hold(key, self.settings.deadline)

    def publish(
        self, endpoint: Endpoint, choose: Callable[[Callable[[PublishedPort], bool]], tuple[PublishedPort, ...]]
    ) -> Endpoint:
        """Give an endpoint that stands the published ports that `choose` makes, and no others; again is harmless.

        `choose` is told which ports are usable: neither published on this host by another endpoint, nor another process'. It may
        be called again, when somebody else was quicker. PortInUse, Exhausted, InvalidRequest; then none is published.
        """
        for last in (False, False, True):
            others = [
                port
                for one in self.store.endpoints()
                if one.uuid != endpoint.uuid and one.node == endpoint.node
                for port in one.published
            ]
            ports = choose(lambda port, taken=others: not any(port.clashes(one) for one in taken) and not in_use(port))  # type: ignore[misc]
            try:
                if endpoint.published and set(endpoint.published) != set(ports):
                    self.unpublish(endpoint)
                endpoint = self.store.set_published(endpoint.uuid, ports)
                reach(Point.ENDPOINT_PUBLISHING)
                break
            except PortInUse:
                if last:
                    raise
        try:
            self._publish(endpoint)
        except OvsnetError:
            try:
                self.store.set_published(endpoint.uuid, ())
            finally:
                self._leaving.discard(endpoint.uuid)  # the endpoint stays, and may publish again
            raise
        reach(Point.ENDPOINT_PUBLISHED)
        return endpoint

    def unpublish(self, endpoint: Endpoint) -> None:
        """Take all published ports from an endpoint; having none is success."""
        if endpoint.published:
            self._unpublish(endpoint)
            reach(Point.ENDPOINT_UNPUBLISHING)
            try:
                self.store.set_published(endpoint.uuid, ())
            finally:
                self._leaving.discard(endpoint.uuid)

    def limit(self, endpoint: Endpoint) -> None:
        """Put the endpoint's limits in place on a port that has none; the switch's go with the port."""
        limits = endpoint.bandwidth
        if limits.egress_rate:
            self.switch.limit_port(endpoint.port, limits.egress_rate, limits.egress_burst)
        if limits.ingress_rate:
            self.limits.set(endpoint.port, limits.ingress_rate, limits.ingress_burst)

    def unlimit(self, endpoint: Endpoint) -> None:
        """Limit its port no more, as far as the limit is not the switch's."""
        if endpoint.bandwidth.ingress_rate:
            self.limits.remove([endpoint.port])

    def _unpublish(self, endpoint: Endpoint) -> None:
        """Have its ports lead nowhere, also for connections that exist; with `_leaving` until the store has forgotten it."""
        with self._rules_lock:
            self._leaving.add(endpoint.uuid)
            try:
                self.rules.unpublish(endpoint.forwardings)
            except Unavailable:  # one is missing: somebody else flushed the table
                self._load_rules()
        forget(endpoint.forwardings)

    def _pool_name(self, spec: PoolSpec, network: NetworkSpec) -> str:
        if spec.name:
            return spec.name
        return network.name if spec.subnet.version == 4 else f"{network.name}-v6"

    def pools_going_with(self, network: Network) -> list[str]:
        """Pools that nobody needs without this network: made with it, or by Docker, which releases a pool before its network."""
        pools = self.store.pools_of(network)
        return [
            one.uuid
            for one in pools
            if (one.labels.get(MADE_WITH) == network.name or one.origin is Origin.DOCKER)
            and len(self.store.networks_of(one)) == 1
        ]

    def ensure_here(self, network: Network) -> None:
        """This host's bridge and gateway for a network that another host, or an earlier run, has made."""
        if network.uuid in self._here:
            return
        with self._locks.hold(f"bridge {network.bridge}", self.settings.deadline):
            self.switch.ensure_bridge(network.bridge)
            self._ensure_gateway(network)
            self._here.add(network.uuid)
            if network.masquerade or network.routed:
                self.load_rules()

    def leave(self, network: Network) -> None:
        """Take down this host's part of a network that stays: `ensure_here` brings it back. With endpoints here it stays."""
        with self._locks.hold(f"bridge {network.bridge}", self.settings.deadline):
            if all(one.node != self.settings.node for one in self.store.endpoints(network.uuid)):
                self._here.discard(network.uuid)
                self.ports.forget(network.uuid)
                self.show_gateway_route(network)
                self.switch.del_ports([self.names.gateway(network.uuid)]).result(self.settings.deadline)

    def here(self) -> frozenset[str]:
        """Networks (uuids) whose bridge and gateway this host has."""
        return frozenset(self._here)

    def note_here(self, network: Network) -> None:
        """Note that this host's bridge and gateway for a network are as they should be."""
        self._here.add(network.uuid)

    def restore_network(self, network: Network) -> None:
        """Put this host's bridge and gateway for a network right, whatever has become of them; one that is gone stays so."""
        with self._locks.hold(f"bridge {network.bridge}", self.settings.deadline):
            present = self.store.find_network(network.uuid)
            if present is None:
                return
            self.switch.ensure_bridge(present.bridge)
            reach(Point.REPAIR_BRIDGE)
            if present.gateways:
                self._restore_gateway(present)
                self.show_gateway_route(present)
                reach(Point.REPAIR_GATEWAY)
                if present.uuid in self._publishing:  # a new device does not know it
                    self.links.allow_loopback(self.names.gateway(present.uuid))
                if (present.masquerade or present.uuid in self._publishing) and not self._ruled.issuperset(
                    one.network for one in present.gateways
                ):
                    self.load_rules()  # its pool has grown
            self._here.add(present.uuid)

    def _restore_gateway(self, network: Network) -> None:
        """Unlike `_ensure_gateway`, nothing is undone if that fails: containers live by what there is."""
        port = self.gateway_port(network)
        have = self.switch.find_port(port.name)
        if have is not None and (
            (have.bridge, have.trunk, have.vlan_mode) != (port.bridge, (), "") or self.links.link(port.name) is None
        ):
            self.switch.del_ports([port.name]).result(self.settings.deadline)
            reach(Point.REPAIR_GATEWAY_GONE)
            # Told of a port's end and its return at once, vswitchd sees nothing: another port's making tells that it saw the end.
            for witness in self.ports.make(network, 1):
                self.ports.discard(witness)
            have = None
        if have is None:
            self.switch.add_ports([port]).result(self.settings.deadline)
        else:
            self.switch.mend_port(port)
        self.switch.wait_ports([port.name], self.settings.deadline)
        reach(Point.REPAIR_GATEWAY_PORT)
        self.links.set_gateway(port.name, mac_for(network.gateways[0].ip), network.mtu, network.gateways)

    def gateway_port(self, network: Network) -> SwitchPort:
        """The switch port that the network's gateway has, or would have."""
        name = self.names.gateway(network.uuid)
        return SwitchPort(name, network.bridge, network.tag, network.mtu, PortRole.GATEWAY, network.uuid)

    def _ensure_gateway(self, network: Network) -> None:
        """The host's port with the network's gateway addresses, as it should be."""
        if not network.gateways:
            return
        port = self.gateway_port(network)
        name = port.name
        self.switch.add_ports([port]).result(self.settings.deadline)
        try:
            self.switch.wait_ports([name], self.settings.deadline)
            reach(Point.NETWORK_GATEWAY_PORT)
            self.links.set_gateway(name, mac_for(network.gateways[0].ip), network.mtu, network.gateways)
        except OvsnetError:
            self.switch.del_ports([name]).result(self.settings.deadline)
            raise

    def hide_gateway_route(self, network: Network) -> None:
        """Take the gateways' connected routes out of the main table for a moment, with traffic going on as before.

        Docker's RequestPool without a subnet refuses an answer that overlaps a route of the main table, and asks again for
        ever. `show_gateway_route` ends it; so does a timer, for a Docker that gave up, and the start after a crash.
        """
        if network.gateways:
            self.links.hide_routes(self.names.gateway(network.uuid), network.gateways)
            timer = threading.Timer(_HIDDEN_FOR, self._show_again, [network])
            timer.daemon = True
            timer.start()

    def show_gateway_route(self, network: Network) -> None:
        """Undo `hide_gateway_route`; again is harmless."""
        if network.gateways:
            self.links.show_routes(self.names.gateway(network.uuid), network.gateways)

    def _show_again(self, network: Network) -> None:
        try:
            if self.store.find_network(network.uuid) is not None:
                self.show_gateway_route(network)
        except OvsnetError as exc:
            LOG.error("the gateway's route of network %s is still hidden: %s", network.name, exc)

    def _drop_bridge(self, bridge: str) -> None:
        """Remove a bridge of ours that no network needs any more."""
        if all(one.bridge != bridge for one in self.store.networks()):
            self.ports.flush()  # a port that is to be removed behind an answer would keep the bridge
            self.spoofing.leave(bridge)
            self.captures.sweep(bridge)
            self.switch.delete_bridge(bridge)

    # -- endpoints ----------------------------------------------------------------------------------------------------

    def endpoints(self, network: str | None = None) -> list[Endpoint]:
        """All endpoints, or those of one network; NetworkNotFound."""
        return self.store.endpoints(None if network is None else self.store.network(network).uuid)

    def endpoint(self, ref: str) -> Endpoint:
        """One endpoint by its uuid; EndpointNotFound."""
        return self.store.endpoint(ref)

    def attach(self, request: AttachRequest) -> Attachment:
        """Give a container an interface on a network. Idempotent by network, container and interface name.

        When it returns, traffic can pass; with `link_first` only what needs no address, such as DHCP's.
        InvalidRequest, InvalidNetns, NetworkNotFound, LinkExists, PoolExhausted,
        AddressInUse, Unavailable and its kinds.
        """
        check_container_id(request.container)
        check_ifname(request.ifname)
        if own := OWN_LABELS.intersection(request.labels):
            raise InvalidRequest(f"the label {min(own)} is ovsnet's own", hint="leave it out")
        with open_netns(request.netns) as netns:
            known = self.store.find_network(request.network) is not None
            network = self._network_for(request)
            key = endpoint_key(network.uuid, request.container, request.ifname)
            with self._locks.hold(key, self.settings.deadline), ExitStack() as undo:
                if not known:
                    undo.callback(self._delete_unused, network)
                if (request.foreign or request.link_first) and network.pools:
                    raise AlreadyExists(
                        f"network {network.name} gives addresses of its own",
                        hint="leave ipam out of the configuration, or name another network",
                    )
                if request.published and not network.gateways:
                    raise InvalidRequest(
                        f"network {network.name} has no gateway on the host, so that no port can be published",
                        hint="publish none, or attach the container to a network that is not internal",
                    )
                endpoint = self.store.find_endpoint(key)
                if endpoint is None:
                    endpoint = self._attach_new(request, network, netns, key)
                else:
                    endpoint = self._attach_again(request, network, netns, endpoint)
                self.note_attached(key)
                undo.pop_all()
        self.ports.replenish()
        return self._attachment(endpoint, network, request)

    def settled(self, key: str) -> bool:
        """Whether no attachment by that key was made or changed a moment ago."""
        with self._attached_lock:
            return self._attached.get(key, -_SETTLING) < time.monotonic() - _SETTLING

    def foreign_ipam(self, network: str, container: str, ifname: str) -> str:
        """What another IPAM has given an attachment that exists, as JSON; "" if there is none, or its addresses are ours."""
        found = self.store.find_network(network)
        endpoint = found and self.store.find_endpoint(endpoint_key(found.uuid, container, ifname))
        return endpoint.ipam if endpoint else ""

    def note_attached(self, key: str) -> None:
        """Remember the latest attachments for a while: no list of valid ones can know them."""
        now = time.monotonic()
        with self._attached_lock:
            self._attached.pop(key, None)
            self._attached[key] = now  # in the order of time
            while self._attached[oldest := next(iter(self._attached))] < now - _REMEMBERED:
                del self._attached[oldest]

    def _attach_new(self, request: AttachRequest, network: Network, netns: Netns, key: str) -> Endpoint:
        self.store.check_room()
        self.ensure_here(network)
        mtu = self._mtu(request, network)
        spare = self.ports.take(network, request.trunk, request.addresses)
        port = spare.name
        reach(Point.ATTACH_PORT)
        addressed = bool(request.foreign or network.pools)  # then its MAC follows from its address
        with ExitStack() as undo:
            undo.callback(self.ports.discard, port)
            draft = Endpoint(
                uuid="",
                network=network.uuid,
                network_name=network.name,
                container=request.container,
                ifname=request.ifname,
                origin=request.origin,
                node=self.settings.node,
                sandbox=request.netns,
                addresses=request.foreign,
                mac=check_mac(request.mac) if request.mac else "" if addressed else mac_of(key),
                mtu=mtu,
                port=port,
                link=request.ifname,
                labels=request.labels,
                published=request.published,
                bandwidth=request.bandwidth,
                trunk=request.trunk,
                config=request.config,
                aliases=request.aliases,
                ipam=request.ipam,
                wiring=wiring.dump(request),
            )
            # The link is made while the store writes the addresses: a spare port's link without addresses means nothing.
            write = self._write_endpoint(draft, request, spare.expected)
            undo.callback(self.unwrite, write)
            if write.done:
                write.result()  # refused: that is what to tell, before anything is made
            reach(Point.ATTACH_WRITING)
            planned = write.planned or (write.result() if spare.expected else None)
            opening = self.open_spare(network, planned, spare) if planned is not None else None
            with self.links.plugging(port, netns, request.ifname, mtu) as plug:
                if planned is not None:
                    plug.prepare(planned.mac, ipv6=any(one.version == 6 for one in planned.addresses))
                reach(Point.ATTACH_LINKED)
                endpoint = self._unanswered(write.result(), draft, network, request, undo)
                reach(Point.ATTACH_WRITTEN)
                alter.catch_up(self, endpoint, network)
                if planned is None or (planned.mac, planned.addresses) != (endpoint.mac, endpoint.addresses):
                    opening = self.spoofing.open(network, endpoint)
                plug.adjust(request.sysctls, promiscuous=request.promiscuous)
                if endpoint.bandwidth:
                    undo.callback(self.unlimit, endpoint)
                    self.limit(endpoint)
                reach(Point.ATTACH_LIMITED)
                plug.finish(endpoint.mac, endpoint.addresses, self._routes(network, request))
                self.spoofing.wait(opening)
                reach(Point.ATTACH_PLUGGED)
                if endpoint.published:
                    self._publish(endpoint)
                reach(Point.ATTACH_PUBLISHED)
            undo.pop_all()
        self.ports.claim(port, endpoint.uuid)
        reach(Point.ATTACH_CLAIMED)
        return endpoint

    def _write_endpoint(
        self, draft: Endpoint, request: AttachRequest, expected: Sender | None = None
    ) -> PendingEndpoint:
        rather = expected.addresses if expected else ()
        return self.store.attach_soon(draft, request.addresses, names=request.reserved_for, rather=rather)

    def open_spare(self, network: Network, endpoint: Endpoint, spare: Spare) -> Future[None] | None:
        """`SpoofGuard.open` for an endpoint that gets a spare port, before its link is made.

        Was somebody else expected, it waits: what that one may send, this one must not, not even for a moment.
        """
        if self.spoofing.fits(network, endpoint, spare.expected):
            return None
        opening = self.spoofing.open(network, endpoint)
        if spare.expected is not None:
            self.spoofing.wait(opening)
        return opening

    def unwrite(self, write: PendingEndpoint, leave_to: str | None = None) -> None:
        """Undo the writing of an endpoint, which may not have ended; a write that failed has undone itself.

        With `leave_to` its leases are that dockerd's again. Never fails: what to tell is what failed first.
        """
        try:
            endpoint = write.result()
        except OvsnetError:
            return
        try:
            self.store.detach(endpoint.uuid, leave_to=leave_to, by="rollback")
        except OvsnetError as exc:
            LOG.warning("container %s was refused, and its endpoint stays for now: %s", endpoint.container[:40], exc)

    def _unanswered(
        self, endpoint: Endpoint, draft: Endpoint, network: Network, request: AttachRequest, undo: ExitStack
    ) -> Endpoint:
        """The endpoint with addresses that nobody on the network answers for, written again as often as that takes."""
        passed_over: set[IPAddress] = set()
        while (
            taken := next((one.ip for one in endpoint.addresses if self.answered(network, one.ip)), None)
        ) is not None:
            self.store.detach(endpoint.uuid, by="probe")
            self.store.avoid(network, taken, AVOID)
            if taken in request.addresses or taken in passed_over:
                raise AddressInUse(
                    f"somebody unknown on network {network.name} answers for {taken}",
                    hint="find it, or ask for another address",
                )
            passed_over.add(taken)
            write = self._write_endpoint(draft, request)
            undo.callback(self.unwrite, write)
            endpoint = write.result()
        return endpoint

    def answered(self, network: Network, address: IPAddress) -> bool:
        """Whether somebody unknown has `address` on the network already; False when that is not to be probed."""
        seconds = self.settings.conflict_probe
        if not seconds or not any(one.version == address.version for one in network.gateways):
            return False
        mac = self.links.probe(self.names.gateway(network.uuid), address, seconds)
        if mac is not None:
            LOG.warning("address %s of network %s is passed over: %s answers for it", address, network.name, mac)
        return mac is not None

    def _attach_again(self, request: AttachRequest, network: Network, netns: Netns, endpoint: Endpoint) -> Endpoint:
        """The same ADD once more: after a lost answer, a crash in the middle, or a restart in a new namespace."""
        have = {one.ip for one in endpoint.addresses}
        if any(one not in have for one in request.addresses):
            raise AlreadyExists(
                f"container {request.container[:40]} is on network {network.name} with other addresses",
                hint="detach it first",
            )
        asked = endpoint.asked
        if set(request.published) != set(asked.published):
            raise AlreadyExists(
                f"container {request.container[:40]} is on network {network.name} with other published ports",
                hint="detach it first",
            )
        if request.bandwidth != asked.bandwidth:
            raise AlreadyExists(
                f"container {request.container[:40]} is on network {network.name} with other limits of bandwidth",
                hint="detach it first",
            )
        moved = endpoint.sandbox != request.netns
        if moved or self.links.link(endpoint.port) is None:
            taken = {one.ip for one in endpoint.addresses}
            port, old = self.ports.take(network, endpoint.trunk, taken, endpoint.own_tag).name, endpoint
            reach(Point.AGAIN_PORT)
            kept = wiring.dump(request)
            endpoint = self.store.set_endpoint(endpoint.uuid, port=port, sandbox=request.netns, wiring=kept)
            reach(Point.AGAIN_MOVED)
            alter.catch_up(self, endpoint, network)
            self.ports.claim(port, endpoint.uuid)
            self.links.silence(old.port)
            self.unlimit(old)
            try:
                self._unplug(old, old.sandbox)
            finally:
                self.ports.discard(old.port)
            reach(Point.AGAIN_UNPLUGGED)
            self.spoofing.wait(self.spoofing.open(network, endpoint))
        elif (kept := wiring.dump(request)) != endpoint.wiring:
            endpoint = self.store.set_endpoint(endpoint.uuid, wiring=kept)
        if endpoint.bandwidth:
            self.limit(endpoint)
        if request.foreign and not endpoint.ipam:  # what the link was made first for
            addresses = [str(one) for one in request.foreign]
            endpoint = self.store.set_endpoint(endpoint.uuid, addresses=addresses, ipam=request.ipam)
            self.spoofing.wait(self.spoofing.open(network, endpoint))
        self._plug(endpoint, network, request, netns)
        if endpoint.quarantined:
            self.links.silence(endpoint.port)
        reach(Point.AGAIN_PLUGGED)
        if endpoint.published:
            self.load_rules()
        return endpoint

    def detach(self, network: str, container: str, ifname: str, netns: str = "") -> None:
        """Take a container off a network; anything missing already is success.

        The link goes first, then the port, then the address: an address that somebody else may get has no wire any more.
        """
        found = self.store.find_network(network)
        if found is None:
            return
        key = endpoint_key(found.uuid, container, ifname)
        with self._locks.hold(key, self.settings.deadline):
            endpoint = self.store.find_endpoint(key)
            if endpoint is not None:
                self._detach(endpoint, netns or endpoint.sandbox, Origin.CNI)

    def delete_endpoint(self, ref: str) -> None:
        """Take an endpoint off its network, whoever it belongs to; EndpointNotFound."""
        endpoint = self.store.endpoint(ref)
        with self._locks.hold(endpoint.key, self.settings.deadline):
            endpoint = self.store.endpoint(ref)  # its port may be another one by now
            if endpoint.origin is Origin.DOCKER:
                self.links.unplug_host(endpoint.link)
            self._detach(endpoint, endpoint.sandbox, Origin.API)

    def reap(self, endpoint: Endpoint) -> bool:
        """Take an endpoint that looks abandoned off its network; False, and nothing is touched, if it has changed or is in use.

        A container that lives has its link, whatever became of the path by which its namespace was known.
        """
        with self._locks.hold(endpoint.key, self.settings.deadline):
            if self.store.find_endpoint(endpoint.key) != endpoint:
                return False
            if endpoint.origin is Origin.DOCKER and self.links.link(endpoint.link) is not None:
                self.links.unplug_host(endpoint.link)
            elif self.links.plugged(endpoint.port):
                return False
            self._detach(endpoint, endpoint.sandbox, REAPER)
            return True

    def change_endpoint(self, ref: str, change: EndpointChange) -> Endpoint:
        """Change an endpoint of this host while traffic goes on: quarantine, VLAN tag, limits, published ports.

        The endpoint keeps its addresses, the container its interface; it lasts until the endpoint goes. See
        `alter.change_endpoint`.
        """
        return alter.change_endpoint(self, ref, change)

    def check_attachment(self, expected: Expectation) -> None:
        """Compare an attachment with what its runtime was told. AttachmentBroken names the first difference.

        EndpointNotFound, InvalidNetns.
        """
        examine(self, expected)

    def trace(self, question: Question) -> Trace:
        """The way of a packet, and who is guilty if it ends. EndpointNotFound, InvalidRequest, Unavailable."""
        return trace(self, question)

    def capture(self, wanted: CaptureRequest) -> bytes:
        """What passes an endpoint's switch port, as a file of libpcap's format; see `Captures.run`."""
        return self.captures.run(wanted)

    def collect_garbage(self, ref: str, config: str, valid: Collection[tuple[str, str]]) -> None:
        """Detach what this host has on a network by the CNI configuration `config`, but for `valid` (container and interface).

        What is attached while this runs, or shortly before its list arrived, stays. Goes on past errors; then Unavailable that
        names them all.
        """
        asked = time.monotonic()
        network = self.store.find_network(ref)
        failed = []
        for one in self.store.endpoints(network.uuid) if network else ():
            ours = one.origin is Origin.CNI and one.node == self.settings.node and one.config == config
            if not ours or (one.container, one.ifname) in valid:
                continue
            try:
                with self._locks.hold(one.key, self.settings.deadline):
                    present = self.store.find_endpoint(one.key)
                    if present and present.uuid == one.uuid and self._attached.get(one.key, 0.0) < asked - _MARGIN:
                        self._detach(present, present.sandbox, Origin.CNI)
                        LOG.info("container %s is gone, and %s with it", one.container, one.ifname)
            except OvsnetError as exc:
                failed.append(f"{one.container[:40]} {one.ifname}: {exc}")
        if failed:
            raise Unavailable(f"not all could be removed: {'; '.join(failed)}", hint="try again later")

    def check_room(self, ref: str) -> None:
        """PoolExhausted if a network has no address for a new endpoint; one that is still to be made has."""
        network = self.store.find_network(ref)
        pool = network and self.store.exhausted(network)
        if pool:
            raise PoolExhausted(
                f"pool {pool.name} ({pool.subnet}) has no free address", hint="remove endpoints, or grow the pool"
            )

    def _detach(self, endpoint: Endpoint, sandbox: str, by: str) -> None:
        """Once the port is silent the address can go while the rest is taken down: nobody is reached by it any more."""
        self.links.silence(endpoint.port)
        reach(Point.DETACH_SILENCED)
        if endpoint.published and endpoint.node == self.settings.node:
            self._unpublish(endpoint)
        reach(Point.DETACH_UNPUBLISHED)
        released = self.store.detach_soon(endpoint.uuid, by=by)
        reach(Point.DETACH_RELEASING)
        with ExitStack() as undo:
            undo.callback(self.ports.discard, endpoint.port)
            try:
                if endpoint.node == self.settings.node:
                    self.unlimit(endpoint)
                reach(Point.DETACH_UNLIMITED)
                self._unplug(endpoint, sandbox)
                reach(Point.DETACH_UNPLUGGED)
            finally:
                released.result()
                reach(Point.DETACH_RELEASED)
                self._leaving.discard(endpoint.uuid)
            undo.pop_all()
        self.give_back(endpoint, sandbox)

    def give_back(self, endpoint: Endpoint, sandbox: str = "", stand_in: StandIn | None = None) -> None:
        """Have the silent port of an endpoint that the store has forgotten kept for the next one, or removed.

        Its link is in the namespace at `sandbox`, or has gone with it; or on the host, as Docker leaves it without a stand-in.
        Waits for nothing.
        """
        network = self.store.latest_network(endpoint.network)

        def clear() -> bool:
            if stand_in is not None:
                stand_in.close()
            elif endpoint.origin is Origin.DOCKER:
                return self.links.clear(endpoint.port, endpoint.link, None)
            try:
                with open_netns(sandbox) as netns:
                    return self.links.clear(endpoint.port, endpoint.link, netns)
            except InvalidNetns:
                return not self.links.plugged(endpoint.port)

        if network is None or endpoint.node != self.settings.node:
            self.ports.discard(endpoint.port)
        else:
            self.ports.give_back(endpoint.port, network, clear)

    def plug_again(self, endpoint: Endpoint, network: Network, netns: Netns) -> None:
        """Make the link of a CNI container anew, as its request wanted it. LinkExists, LinkFailed."""
        self._plug(endpoint, network, wiring.load(endpoint), netns)

    def _plug(self, endpoint: Endpoint, network: Network, request: AttachRequest, netns: Netns) -> None:
        with self.links.plugging(endpoint.port, netns, endpoint.ifname, endpoint.mtu) as plug:
            plug.adjust(request.sysctls, promiscuous=request.promiscuous)
            plug.finish(endpoint.mac, endpoint.addresses, self._routes(network, request))

    def _unplug(self, endpoint: Endpoint, sandbox: str) -> None:
        """Take down the link on an endpoint's silent port, if it is still there."""
        try:
            with open_netns(sandbox) as netns:
                self.links.unplug_netns(netns, endpoint.ifname, endpoint.port)
        except InvalidNetns:
            pass  # it has gone, and the link with it

    def _network_for(self, request: AttachRequest) -> Network:
        """The request's network, made on demand when the request says how."""
        network = self.store.find_network(request.network)
        if network is None:
            if request.create is None:
                raise NetworkNotFound(
                    f"there is no network {request.network!r}",
                    hint="make it with `ovsnet network create`, or give its subnet in the configuration's ipam section",
                )
            return self.create_network(request.create)
        if request.create is not None:
            self._check_agrees(network, request.create)
        return network

    def _delete_unused(self, network: Network) -> None:
        """Undo the making of a network for a container that is refused; others may be on it by now, or have undone it."""
        with suppress(InUse, NetworkNotFound):
            self.delete_network(network.uuid)

    def _check_agrees(self, network: Network, spec: NetworkSpec) -> None:
        subnets = {one.subnet for one in self.store.pools_of(network)}
        for one in spec.subnets:
            if one.subnet not in subnets:
                raise AlreadyExists(
                    f"network {network.name} has subnet {', '.join(map(str, subnets)) or 'none'}, not {one.subnet}",
                    hint="correct the configuration's subnet, or name another network",
                )
        for gateway in () if spec.internal else spec.gateways:
            if gateway not in network.gateways:
                raise AlreadyExists(
                    f"network {network.name} has gateway {', '.join(map(str, network.gateways)) or 'none'}, not {gateway}",
                    hint="correct the configuration, or name another network",
                )
        for ref in spec.pools:
            if self.store.pool(ref).uuid not in network.pools:
                raise AlreadyExists(
                    f"network {network.name} takes no addresses from pool {ref}",
                    hint="correct the configuration's pool, or name another network",
                )
        for what, wanted, have in (
            ("bridge", spec.bridge, network.bridge),
            ("VLAN", spec.tag, network.tag),
            ("masquerade", spec.masquerade, network.masquerade),
            ("routed", spec.routed, network.routed),
            ("anti-spoofing", spec.labels.get(ANTI_SPOOFING), str(guarded(network)).lower()),
        ):
            if wanted not in ("", None, have):
                raise AlreadyExists(
                    f"network {network.name} has {what} {have}, not {wanted}", hint="correct the configuration"
                )

    def _mtu(self, request: AttachRequest, network: Network) -> int:
        if request.mtu is None:
            return network.mtu
        if request.mtu > network.mtu:
            raise InvalidRequest(
                f"MTU {request.mtu} is more than network {network.name}'s {network.mtu}",
                hint="ask for no more than that",
            )
        return check_mtu(request.mtu)

    def _routes(self, network: Network, request: AttachRequest) -> tuple[Route, ...]:
        routes = list(request.routes)
        if request.default_route:
            for gateway in network.gateways:
                default = ipaddress.ip_network("0.0.0.0/0" if gateway.version == 4 else "::/0")
                if all(one.destination != default for one in routes):
                    routes.append(Route(default, gateway.ip))
        return tuple(routes)

    def _attachment(self, endpoint: Endpoint, network: Network, request: AttachRequest) -> Attachment:
        if request.foreign:
            hops = request.gateways
            gateways = tuple(next((hop for hop in hops if hop in one.network), None) for one in endpoint.addresses)
        else:
            by_version = {one.version: one.ip for one in network.gateways}
            gateways = tuple(by_version.get(one.version) for one in endpoint.addresses)
        return Attachment(endpoint, network, gateways, self._routes(network, request))

    # -- this host ----------------------------------------------------------------------------------------------------

    def drop_remains(self) -> None:
        """Remove what a network has left that was deleted when ovsnetd died: gateways and bridges that nobody can have a use for.

        Even if the database knows no network at all, for it may be empty or foreign: a gateway without an endpoint on this host
        and without an uplink beside it, and a bridge of ours without a port.
        """
        known = {one.uuid for one in self.store.networks()}
        ports = self.switch.ports()
        inhabited = {one.network for one in ports if one.role is PortRole.ENDPOINT} | known
        gateways = [one for one in ports if one.role is PortRole.GATEWAY and one.network not in inhabited]
        gone = [one.name for one in gateways if not self.switch.uplinks(one.bridge)]
        if gone:
            self.switch.del_ports(gone).result(self.settings.deadline)
        for bridge in self.switch.bridges():
            self._drop_bridge(bridge)

    def recover_limits(self) -> None:
        """What nftables forgets with a reboot, or remembers of endpoints that have gone."""
        devices = self.limits.devices()  # first: who is limited from now on has been in the store before
        limited = ingress_limits([one for one in self.store.endpoints() if one.node == self.settings.node])
        in_force = self.limits.in_force(limited)
        self.limits.remove(devices - limited.keys())
        for port in limited.keys() - in_force:
            if self.links.link(port) is not None:
                self.limits.set(port, *limited[port])

    def remove_network(self, ref: str, progress: Progress) -> None:
        """Remove a network together with its endpoints, whoever they belong to; NetworkNotFound, InUse."""
        remove_network(self, ref, progress)

    def rehearsal(self) -> Rehearsal:
        """The same use cases, but they only check and tell what they would do."""
        return Rehearsal(self)

    def history(self, address: IPAddress, at: datetime | None = None, pool: str = "") -> list[LeaseRecord]:
        """Who had an address, ever or at one moment, the latest first; `pool` is a name or uuid, also of a pool that is gone.

        NotFound where no journal is kept, Unavailable if it cannot be read.
        """
        if self.journal is None:
            raise NotFound("lease history is not kept on this host", hint="set journal_days and restart ovsnetd")
        return self.journal.history(address, at, pool)

    def since(self, pool_uuid: str, addresses: Collection[IPAddress]) -> dict[IPAddress, datetime]:
        """From when on those of `addresses` that are leased have been; nothing where no journal is kept. Unavailable."""
        return {} if self.journal is None else self.journal.since(pool_uuid, addresses)

    def health(self) -> Health:
        """Whether requests can be served now."""
        state = "ok" if self.store.ready else "the OVSNet database is not reachable"
        try:
            self.store.check_room()
        except StateUnavailable as exc:
            state = exc.message
        switch = "ok"
        try:
            if not self.switch.ready:
                switch = "the Open_vSwitch database is not reachable"
            elif not self.switch.forwarding(_HEALTH_TIMEOUT):
                switch = "ovs-vswitchd does not run"
        except SwitchUnavailable as exc:
            switch = exc.message
        return Health(state == switch == "ok", state, switch, self.settings.node, __version__)


def ingress_limits(endpoints: Collection[Endpoint]) -> dict[str, tuple[int, int]]:
    """By port, rate and burst of what those of `endpoints` may receive that are limited."""
    limits = {one.port: one.bandwidth for one in endpoints}
    return {port: (one.ingress_rate, one.ingress_burst) for port, one in limits.items() if one.ingress_rate}


def draft_pool(spec: PoolSpec, name: str, labels: dict[str, str] | None = None) -> Pool:
    """The pool that a specification asks for, checked, with its gateway chosen."""
    check_spec(spec)
    check_network_name(name)
    gateway = spec.gateway
    if gateway is None and not spec.no_gateway:
        gateway = default_gateway(spec.subnet)
    return Pool(
        uuid="",
        name=name,
        space=spec.space,
        subnet=spec.subnet,
        gateway=gateway,
        ranges=spec.ranges,
        exclusions=spec.exclusions,
        static_ranges=spec.static_ranges,
        origin=spec.origin,
        labels={**spec.labels, **(labels or {})},
    )
