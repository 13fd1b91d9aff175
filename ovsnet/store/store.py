"""The store's face: every question and every change that the use cases have, in model objects."""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from importlib import resources
from typing import Any, Generic, NoReturn, TypeVar

from ovs.stream import Stream

from ..errors import EndpointNotFound, NetworkNotFound, OvsnetError, PoolNotFound, StateUnavailable
from ..model import (
    Endpoint,
    IPAddress,
    Lease,
    LeaseOwner,
    Network,
    OwnerKind,
    Pool,
    PoolUse,
    PublishedPort,
    Sender,
    TlsFiles,
)
from ..names import mac_for
from ..ovsdb import Command, Counts, Engine, Rehearsal, schema_helper
from . import alter_commands, commands, pool_commands, rows
from .view import Observer, StoreIdl, View

DATABASE = "OVSNet"

T = TypeVar("T")
_PROBE_MS = 1500  # a member of a cluster that is silent for twice as long is left for another one


def schema_text() -> str:
    """The schema that this version of ovsnet speaks, as JSON (RFC 7047, section 3.2)."""
    return (resources.files(__package__) / "ovsnet.ovsschema").read_text(encoding="utf-8")


class Pending(Generic[T]):
    """A change that is on its way; `result` waits for its end, any number of times. See Engine.submit for `lazy` and `hurry`."""

    def __init__(self, engine: Engine, command: Command, *, lazy: bool = False, hurry: bool = True) -> None:
        self._engine = engine
        self._future = engine.submit(command, lazy=lazy, hurry=hurry)

    def result(self) -> T:
        """What the command yields, or its error; DeadlineExceeded if the outcome is unknown."""
        result: T = self._engine.result(self._future)[0]
        return result

    @property
    def done(self) -> bool:
        """Whether `result` has nothing to wait for."""
        return self._future.done()

    @property
    def failure(self) -> OvsnetError | None:
        """Why it failed, if it has; defects are raised."""
        try:
            self.result()
        except OvsnetError as exc:
            return exc
        return None

    def then(self, told: Callable[[Pending[T]], object]) -> None:
        """Have `told` called with it as soon as `result` has nothing to wait for, by the engine's thread: it must be quick."""
        self._future.add_done_callback(lambda _: told(self))


class PendingEndpoint(Pending[Endpoint]):
    """An endpoint that is being written."""

    def __init__(self, engine: Engine, command: commands.Attach, *, lazy: bool = False) -> None:
        super().__init__(engine, command, lazy=lazy)
        self._command = command

    @property
    def planned(self) -> Endpoint | None:
        """What it will be, without its uuid, unless somebody else is quicker; None if that is not known yet."""
        return self._command.planned


class Store:
    """A connection to the OVSNet database, used by all threads.

    `remotes` are OVSDB remotes (ovsdb(7)); several mean a RAFT cluster, of which any member will do. `cooldown` is the number
    of seconds for which a released address is given to nobody else if another one is free. `tls` is for ssl: remotes;
    python-ovs has one for the whole process. `room` is called before what makes the database grow, and raises StateUnavailable if
    there is no room for that. Every method raises StateUnavailable when the database cannot be reached, and
    DeadlineExceeded when the outcome of a change is unknown.
    """

    def __init__(
        self,
        remotes: Sequence[str],
        *,
        node: str,
        timeout: float,
        cooldown: float,
        tls: TlsFiles | None = None,
        room: Callable[[], None] | None = None,
    ) -> None:
        if tls is not None:
            Stream.ssl_set_private_key_file(str(tls.private_key))
            Stream.ssl_set_certificate_file(str(tls.certificate))
            Stream.ssl_set_ca_cert_file(str(tls.ca))
        self.view = View(cooldown)
        self.node = node
        self._room = room
        self._ordered: tuple[int, list[Endpoint]] = (-2, [])  # all endpoints, and of which turn of the view
        helper = schema_helper(json.loads(schema_text()))
        idl = StoreIdl(",".join(remotes), helper, self.view, leader_only=False)
        probe = _PROBE_MS if len(remotes) > 1 else None
        self._engine = Engine("state", idl, unavailable=StateUnavailable, timeout=timeout, durable=True, probe_ms=probe)

    # What commands expect of their `api`.

    @property
    def tables(self) -> dict[str, Any]:
        """The replica's tables, for commands."""
        tables: dict[str, Any] = self._engine.idl.tables
        return tables

    def submit(self, *what: Command, alone: bool = False) -> Future[list[Any]]:
        """Queue commands; for commands that order more work behind their commit."""
        return self._engine.submit(*what, alone=alone)

    def rehearsal(self) -> Store:
        """A store that checks every change as this one does, yields what it would, and writes nothing."""
        rehearsed = copy.copy(self)
        rehearsed._engine = Rehearsal(self._engine)
        return rehearsed

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect in the background."""
        self._engine.start()

    def stop(self) -> None:
        """Disconnect."""
        self._engine.stop()

    @property
    def ready(self) -> bool:
        """Whether the replica is complete and connected."""
        return self._engine.ready

    def wait_ready(self, timeout: float) -> None:
        """Until the replica is complete; StateUnavailable after `timeout` seconds."""
        self._engine.wait_ready(timeout)

    def check_room(self) -> None:
        """StateUnavailable if the database has no room to grow, as far as that is this host's to know."""
        if self._room is not None:
            self._room()

    def watch(self, observer: Observer) -> None:
        """Tell `observer` of all leases, now and after each reconnect, and of every change. Again for the same one is fine."""
        with self._engine.lock:
            self.view.watch(observer)

    def boot(self) -> str:
        """The boot of this node that was noted last, or ""."""

        def view() -> str:
            return next((str(row.boot) for row in self.tables["Node"].rows.values() if row.name == self.node), "")

        return self._engine.read(view)

    def set_boot(self, boot: str) -> None:
        """Note the boot of this node."""
        self._one(commands.SetBoot(self, boot))

    # -- pools --------------------------------------------------------------------------------------------------------

    def pools(self) -> list[PoolUse]:
        """All pools with their use, by name."""
        return self._engine.read(lambda: [self._use(one) for one in sorted(self.view.pools.values(), key=_name)])

    def pool(self, ref: str) -> Pool:
        """The pool of that name or uuid; PoolNotFound."""
        return self._engine.read(lambda: self.view.pool(ref)) or self._no_pool(ref)

    def pool_use(self, ref: str) -> PoolUse:
        """The pool of that name or uuid with its use; PoolNotFound."""
        use = self._engine.read(lambda: self._use(pool) if (pool := self.view.pool(ref)) else None)
        return use or self._no_pool(ref)

    def leases(self, ref: str) -> list[Lease]:
        """All leases of a pool, by address; PoolNotFound."""
        pool = self.pool(ref)
        return self._engine.read(lambda: self._leases(pool))

    def counts_by_kind(self) -> list[tuple[Pool, int, Counter[str]]]:
        """Each pool with its number of addresses that dynamic allocation can give, and the leases that kinds of owners have."""
        found = self._engine.read(lambda: [(one, list(one.blocks.values())) for one in self.view.blocks.values()])
        counted = []
        for pool, blocks in found:  # not in the engine's way
            free, kinds = pool.capacity, Counter[str]()
            for block in blocks:
                free -= sum(map(pool.gives, block.leases))
                kinds.update(owner.partition(":")[0] for owner in block.leases.values())
                time.sleep(0)  # a request waits for no more than a block; 100,000 leases take 0.2 s
            counted.append((pool.pool, free, kinds))
        return counted

    def counts(self) -> Counts:
        """What the connection has done."""
        return self._engine.counts

    def snapshot(
        self,
    ) -> tuple[dict[str, Pool], dict[str, dict[IPAddress, Lease]], list[Endpoint], dict[str, Network]]:
        """Pools, their leases by pool and address, endpoints, and networks of one instant; uuids are the keys."""

        def view() -> tuple[dict[str, Pool], dict[str, dict[IPAddress, Lease]], list[Endpoint], dict[str, Network]]:
            leases = {uuid: {one.address: one for one in self._leases(pool)} for uuid, pool in self.view.pools.items()}
            return dict(self.view.pools), leases, list(self.view.endpoints.values()), dict(self.view.networks)

        return self._engine.read(view)

    def _leases(self, pool: Pool) -> list[Lease]:
        blocks = self.view.blocks.get(pool.uuid)
        ipv6 = pool.subnet.version == 6
        return [
            Lease(pool.name, rows.address(address, ipv6=ipv6), LeaseOwner.parse(owner), block.node)
            for _, block in sorted(blocks.blocks.items() if blocks else ())
            for address, owner in sorted(block.leases.items())
        ]

    def cooling(self, ref: str) -> frozenset[int]:
        """Addresses of a pool that were somebody's a moment ago: given only if there is no other. PoolNotFound."""
        pool = self.pool(ref)
        return self._engine.read(lambda: frozenset(self.view.cooling(pool.uuid)))

    def lease_owner(self, pool: Pool, address: IPAddress) -> LeaseOwner | None:
        """Who holds an address of a pool, or None."""

        def view() -> str | None:
            blocks = self.view.blocks.get(pool.uuid)
            return blocks.owner_of(int(address)) if blocks else None

        owner = self._engine.read(view)
        return None if owner is None else LeaseOwner.parse(owner)

    def stray_leases(self) -> list[tuple[Pool, Lease]]:
        """Leases of endpoints that do not exist."""

        def view() -> list[tuple[Pool, Lease]]:
            prefix = str(LeaseOwner(OwnerKind.ENDPOINT, ""))
            return [
                (
                    blocks.pool,
                    Lease(blocks.pool.name, rows.address(address, ipv6=ipv6), LeaseOwner.parse(owner), one.node),
                )
                for blocks in self.view.blocks.values()
                for ipv6 in (blocks.pool.subnet.version == 6,)
                for one in blocks.blocks.values()
                for address, owner in one.leases.items()
                if owner.startswith(prefix) and owner[len(prefix) :] not in self.view.by_key
            ]

        return self._engine.read(view)

    def leases_of(self, owner: LeaseOwner) -> dict[str, IPAddress]:
        """The addresses that an owner has, by the pool's uuid."""

        def view() -> dict[str, IPAddress]:
            found = {}
            for uuid, blocks in self.view.blocks.items():
                address = blocks.address_of(str(owner))
                if address is not None:
                    found[uuid] = rows.address(address, ipv6=self.view.pools[uuid].subnet.version == 6)
            return found

        return self._engine.read(view)

    def owners(self, kind: OwnerKind) -> list[LeaseOwner]:
        """All owners of that kind, each once."""

        def view() -> set[LeaseOwner]:
            return {lease.owner for pool in self.view.pools.values() for lease in self._leases(pool)}

        return [owner for owner in self._engine.read(view) if owner.kind is kind]

    def leases_of_kind(self, kind: OwnerKind) -> tuple[tuple[str, Lease], ...]:
        """The leases of all owners of that kind, each with its pool's uuid."""
        # Only the picture is copied under the lock, from frozen parts: there may be 100,000 leases.
        pools = self._engine.read(
            lambda: [(one.pool, tuple(one.blocks.values())) for one in self.view.blocks.values() if one.blocks]
        )
        prefix = str(LeaseOwner(kind, ""))
        return tuple(
            (
                pool.uuid,
                Lease(
                    pool.name, rows.address(address, ipv6=pool.subnet.version == 6), LeaseOwner.parse(owner), block.node
                ),
            )
            for pool, blocks in pools
            for block in blocks
            for address, owner in block.leases.items()
            if owner.startswith(prefix)
        )

    def full(self, pool: Pool) -> bool:
        """Whether a pool has no address for somebody new."""

        def view() -> bool:
            cooling = self.view.cooling(pool.uuid)
            blocks = self.view.blocks[pool.uuid]
            return pool.draining or blocks.choose(self.node, taken={}, claimed={}, cooling=cooling) is None

        return self._engine.read(view)

    def create_pool(self, pool: Pool) -> Pool:
        """Make a pool (its `uuid` is ignored) and lease its gateway. The same pool again is success.

        PoolOverlap, AlreadyExists.
        """
        self.check_room()
        result: Pool = self._one(commands.CreatePool(self, pool), alone=True)
        return result

    def set_pool_requester(self, uuid: str, requester: str) -> None:
        """Note which Docker daemon asked for a pool last; PoolNotFound."""
        self._one(commands.SetPoolRequester(self, uuid, requester))

    def delete_pool(self, uuid: str, *, force: bool = False) -> None:
        """Remove a pool without leases (with `force`: without endpoints' leases); missing is success. InUse."""
        self._one(commands.DeletePool(self, uuid, force=force), alone=True)

    def avoid(self, network: Network, address: IPAddress, seconds: float) -> None:
        """Give an address that somebody unknown has to nobody for `seconds`, while another one is free."""

        def note() -> None:
            for uuid in network.pools:
                if address in self.view.pools[uuid].subnet:
                    self.view.avoid(uuid, int(address), seconds)

        self._engine.read(note)

    def change_pool(self, uuid: str, **changes: Any) -> tuple[Pool, list[Network]]:
        """Change `subnet` (grow), `ranges`, `exclusions`, `static_ranges`, `draining`; the networks whose gateways change.

        InUse for a change that would strand a lease, PoolOverlap, InvalidRequest, PoolNotFound.
        """
        result: tuple[Pool, list[Network]] = self._one(pool_commands.ChangePool(self, uuid, changes), alone=True)
        return result

    def reserve(self, pool: Pool, name: str, address: IPAddress | None = None, *, adopt: bool = False) -> IPAddress:
        """Keep an address for a name, with `adopt` also one that Docker has been given.

        AlreadyExists, AddressInUse, AddressNotInPool, PoolExhausted.
        """
        self.check_room()
        result: IPAddress = self._one(pool_commands.Reserve(self, pool.uuid, name, address, adopt=adopt), alone=True)
        return result

    def unreserve(self, pool: Pool, name: str) -> IPAddress:
        """End a reservation; the address that was kept. NotFound."""
        result: IPAddress = self._one(pool_commands.Unreserve(self, pool.uuid, name), alone=True)
        return result

    def allocate(
        self, pool: Pool, owner: LeaseOwner, address: IPAddress | None = None, *, names: Sequence[str] = ()
    ) -> IPAddress:
        """Lease the next address, the one asked for, or the one reserved for one of `names`.

        PoolExhausted, AddressInUse, AddressNotInPool, PoolNotFound.
        """
        self.check_room()
        result: IPAddress = self._one(commands.AllocateLease(self, pool.uuid, owner, address, names))
        return result

    def allocate_soon(self, pool: Pool, owner: LeaseOwner, address: IPAddress) -> Pending[IPAddress]:
        """`allocate` of an address that `hold` has given, for who does not wait for it."""
        return Pending(self._engine, commands.AllocateLease(self, pool.uuid, owner, address), hurry=False)

    def hold(self, pool: Pool, owner: LeaseOwner) -> IPAddress | None:
        """An address that nobody else is given until `let_go`, though no row has it yet.

        None where it would not be of a block of this node's, so that another node might not know of it.
        """
        self.check_room()

        def view() -> IPAddress | None:
            if pool.uuid not in self.view.pools or pool.draining:
                return None
            taken = {*self.view.held(pool.uuid), *commands.given_in(self._engine.in_flight, pool.uuid)}
            blocks = self.view.blocks[pool.uuid]
            choice = blocks.choose(self.node, taken=taken, cooling=self.view.cooling(pool.uuid))
            if choice is None or choice.claim or blocks.blocks[choice.block].node != self.node:
                return None
            self.view.hold(pool.uuid, choice.address, str(owner))
            return rows.address(choice.address, ipv6=pool.subnet.version == 6)

        return self._engine.read(view)

    def let_go(self, pool: Pool, address: IPAddress, *, unused: bool = False) -> None:
        """Hold an address no longer: a row has it now. An `unused` one is nobody's, and cools down."""
        with self._engine.lock:
            self.view.let_go(pool.uuid, int(address))
            if unused:
                self.view.cool(pool.uuid, int(address))

    def allocate_gateway(self, pool: Pool, address: IPAddress | None = None) -> IPAddress:
        """Lease the pool's gateway (the same again is success). AddressInUse, AddressNotInPool, PoolExhausted, PoolNotFound."""
        self.check_room()
        result: IPAddress = self._one(commands.AllocateGateway(self, pool.uuid, address), alone=True)
        return result

    def hand_over(self, pool: Pool, address: IPAddress, owner: LeaseOwner) -> None:
        """Give a lease that Docker holds another owner; an address that is anybody else's, or nobody's, is left alone."""
        self._one(commands.SetLeaseOwner(self, pool.uuid, address, owner))

    def release(
        self,
        pool: Pool,
        address: IPAddress,
        kinds: Collection[OwnerKind],
        *,
        owner: LeaseOwner | None = None,
        by: str = "",
    ) -> bool:
        """End a lease whose owner is of one of `kinds`, and `owner` if given; False if it is another's. Not leased is True.

        `by` is who asks, for the observer; "" means the edge that the lease came by.
        """
        return bool(self._one(commands.ReleaseLease(self, pool.uuid, address, kinds, owner, by)))

    def release_soon(self, pool: Pool, address: IPAddress, kinds: Collection[OwnerKind]) -> Pending[bool]:
        """`release` for who does not wait for it."""
        return Pending(self._engine, commands.ReleaseLease(self, pool.uuid, address, kinds), hurry=False)

    def exhausted(self, network: Network) -> Pool | None:
        """A pool of a network that has no address for a new endpoint, or None."""

        return next((pool for pool in self.pools_of(network) if self.full(pool)), None)

    # -- networks -----------------------------------------------------------------------------------------------------

    def networks(self) -> list[Network]:
        """All networks, by name."""
        return self._engine.read(lambda: sorted(self.view.networks.values(), key=_name))

    def find_network(self, ref: str) -> Network | None:
        """The network of that name, uuid, or Docker id (12 digits or more of it), or None."""
        return self._engine.read(lambda: self.view.network(ref))

    def latest_network(self, uuid: str) -> Network | None:
        """The network as it was seen last, connected or not: for who must not wait."""
        with self._engine.lock:
            return self.view.networks.get(uuid)

    def network(self, ref: str) -> Network:
        """The network of that name or uuid; NetworkNotFound."""
        network = self.find_network(ref)
        if network is None:
            raise NetworkNotFound(f"there is no network {ref!r}", hint="see `ovsnet network ls`")
        return network

    def docker_network(self, docker_id: str) -> Network | None:
        """The network that Docker knows by that id, or None."""
        return self._engine.read(lambda: self.view.docker_network(docker_id))

    def networks_of(self, pool: Pool) -> list[Network]:
        """The networks that take addresses from a pool."""
        return self._engine.read(lambda: self.view.networks_of(pool.uuid))

    def pools_of(self, network: Network) -> list[Pool]:
        """The pools of a network, IPv4 first; NetworkNotFound if it has been removed with them."""
        pools = self._engine.read(lambda: [self.view.pools.get(uuid) for uuid in network.pools])
        found = [one for one in pools if one is not None]
        if len(found) < len(pools):
            raise NetworkNotFound(f"network {network.name} does not exist any more", hint="ask again")
        return found

    def create_network(
        self,
        network: Network,
        pools: Sequence[Pool | str],
        *,
        choose_tag: range | None,
        foreign_tags: Collection[int] = (),
    ) -> Network:
        """Make a network (its `uuid` is ignored) together with the pools that do not exist yet, all or nothing.

        `pools` are uuids of existing pools, or Pools to make. Without `choose_tag` the network's own tag is taken.
        AlreadyExists, TagInUse, Exhausted (no tag), PoolOverlap, PoolNotFound.
        """
        self.check_room()
        made = [one if isinstance(one, str) else commands.CreatePool(self, one) for one in pools]
        create = commands.CreateNetwork(self, network, made, choose_tag=choose_tag, foreign_tags=foreign_tags)
        news = [one for one in made if isinstance(one, commands.CreatePool)]
        result: Network = self._engine.execute(*news, create, alone=True)[-1]
        return result

    def set_docker_ids(self, uuid: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> None:
        """Add or take away ids under which Docker knows a network; NetworkNotFound."""
        self._one(commands.SetDockerIds(self, uuid, add=add, remove=remove))

    def set_network_tag(self, uuid: str, tag: int) -> Network:
        """Give a network another VLAN tag; the same again is success. TagInUse, Conflict, NetworkNotFound."""
        result: Network = self._one(alter_commands.SetNetworkTag(self, uuid, tag), alone=True)
        return result

    def watch_tags(self, told: Callable[[], None]) -> None:
        """Have `told` called whenever a network may have got another VLAN tag; by the engine's thread: it must be quick."""
        with self._engine.lock:
            self.view.watch_tags(told)

    def delete_network(
        self, uuid: str, pools: Collection[str] = (), gateways: Sequence[tuple[Pool, IPAddress]] = ()
    ) -> None:
        """Remove a network without endpoints, the given pools of it (uuids), and the leases of its `gateways` in pools that stay.

        All or nothing; missing is success. InUse.
        """
        group = [
            commands.DeleteNetwork(self, uuid),
            *(
                commands.ReleaseLease(self, pool.uuid, address, {OwnerKind.GATEWAY})
                for pool, address in gateways
                if pool.uuid not in pools
            ),
            *(commands.DeletePool(self, one, {uuid}) for one in pools),
        ]
        self._engine.execute(*group, alone=True)

    # -- endpoints ----------------------------------------------------------------------------------------------------

    def endpoints(self, network: str | None = None) -> list[Endpoint]:
        """All endpoints, or those of a network given by uuid; by network, container and interface."""

        def view() -> tuple[int, list[Endpoint]]:
            if network is not None:
                return -1, list(self.view.by_network.get(network, {}).values())
            turn = self.view.endpoints_turn
            return turn, [] if turn == known else list(self.view.endpoints.values())

        known, ordered = self._ordered  # a thousand take longer to sort than a page of them to render
        turn, found = self._engine.read(view)
        if turn == known:
            return ordered.copy()
        # Sorted without the engine's lock, which an ADD may be waiting for.
        found.sort(key=lambda one: (one.network_name, one.container, one.ifname))
        if network is None:
            self._ordered = turn, found.copy()
        return found

    def endpoint(self, uuid: str) -> Endpoint:
        """The endpoint of that uuid; EndpointNotFound."""
        endpoint = self._engine.read(lambda: self.view.endpoints.get(uuid))
        if endpoint is None:
            raise EndpointNotFound(f"there is no endpoint {uuid!r}", hint="see `ovsnet endpoint ls`")
        return endpoint

    def find_endpoint(self, key: str) -> Endpoint | None:
        """The endpoint of that owner key, or None."""
        return self._engine.read(lambda: self.view.by_key.get(key))

    def attach(
        self,
        endpoint: Endpoint,
        wanted: Sequence[IPAddress] = (),
        *,
        adopt: bool = False,
        names: Sequence[str] = (),
    ) -> Endpoint:
        """Write an endpoint (its `uuid` is ignored) with one lease per pool of its network, all or nothing.

        The endpoint of the same key, if there is one, is the answer: with its addresses. `adopt` takes over addresses that
        Docker was given; `names` are those under which an address may be reserved for it. PoolExhausted, AddressInUse,
        AddressNotInPool, AlreadyExists, NetworkNotFound.
        """
        self.check_room()
        return self.attach_soon(endpoint, wanted, adopt=adopt, names=names).result()

    def attach_soon(
        self,
        endpoint: Endpoint,
        wanted: Sequence[IPAddress] = (),
        *,
        adopt: bool = False,
        held_by: Mapping[IPAddress, LeaseOwner] | None = None,
        names: Sequence[str] = (),
        lazy: bool = False,
        rather: Sequence[IPAddress] = (),
    ) -> PendingEndpoint:
        """`attach` for who has something to do meanwhile, and has seen to it that there is room.

        Addresses of `held_by`, which are held, are adopted from no other owner. `lazy` is for addresses whose leases are
        durable already. `rather` are addresses of `next_senders` to take if they are still free and none are asked for.
        """
        command = commands.Attach(
            self, endpoint, wanted, derive_mac=mac_for, adopt=adopt, held_by=held_by, names=names, rather=rather
        )
        return PendingEndpoint(self._engine, command, lazy=lazy)

    def next_senders(self, network: Network, count: int, besides: Collection[IPAddress] = ()) -> list[Sender]:
        """As whom the next endpoints that ask for no address would send, `besides` those that have been told already.

        Fewer, or none, where the network gives no more addresses; nothing is kept for anybody.
        """

        def view() -> list[list[IPAddress]]:
            pools = [self.view.pools[uuid] for uuid in network.pools if uuid in self.view.pools]
            given = []
            for pool in pools:
                taken = {int(one) for one in besides if one.version == pool.subnet.version}
                taken.update(self.view.held(pool.uuid))
                cooling = self.view.cooling(pool.uuid)
                found: list[IPAddress] = []
                while len(found) < count and not pool.draining:
                    choice = self.view.blocks[pool.uuid].choose(self.node, taken=taken, cooling=cooling)
                    if choice is None or choice.address in cooling:
                        break
                    taken.add(choice.address)
                    found.append(rows.address(choice.address, ipv6=pool.subnet.version == 6))
                given.append(found)
            return given

        given = self._engine.read(view)
        return [Sender(mac_for(each[0]), each) for each in zip(*given, strict=False)] if given else []

    def still_next(self, network: Network, sender: Sender) -> bool:
        """Whether the next endpoint could be that one of `next_senders`, if it rather had these addresses."""

        def view() -> bool:
            for address in sender.addresses:
                pool = next(
                    (one for one in map(self.view.pools.get, network.pools) if one and address in one.subnet), None
                )
                if pool is None or pool.draining:
                    return False
                blocks, cooling = self.view.blocks[pool.uuid], self.view.cooling(pool.uuid)
                if not blocks.could_be(int(address), self.node, taken=self.view.held(pool.uuid), cooling=cooling):
                    return False
            return True

        return self._engine.read(view)

    def set_endpoint(self, uuid: str, **columns: str | Mapping[str, str] | list[str]) -> Endpoint:
        """Change `sandbox`, `port`, `link`, `wiring`, `labels`, or `addresses` and `ipam` of an endpoint; EndpointNotFound."""
        result: Endpoint = self._one(commands.SetEndpoint(self, uuid, columns))
        return result

    def set_sandbox_soon(self, uuid: str, sandbox: str) -> Pending[Endpoint]:
        """Change an endpoint's `sandbox`, lazily, for who does not wait for it; EndpointNotFound."""
        return Pending(self._engine, commands.SetEndpoint(self, uuid, {"sandbox": sandbox}), lazy=True, hurry=False)

    def set_published(self, uuid: str, ports: Sequence[PublishedPort]) -> Endpoint:
        """Change the published ports of an endpoint; PortInUse, EndpointNotFound."""
        result: Endpoint = self._one(commands.SetPublished(self, uuid, ports))
        return result

    def alter_endpoint(self, wanted: Endpoint, giver: Endpoint | None = None) -> Endpoint:
        """Write labels, limits and published ports of `wanted`, and what `giver` has left of its published ports, all or nothing.

        PortInUse, EndpointNotFound.
        """
        result: Endpoint = self._one(alter_commands.AlterEndpoint(self, wanted, giver))
        return result

    def detach(self, uuid: str, *, leave_to: str | None = None, by: str = "") -> None:
        """Remove an endpoint and its leases, or leave these, lazily, to the Docker daemon named; missing is success.

        `by` is who asks, for the observer; "" means the edge that made the endpoint.
        """
        self._one(commands.Detach(self, uuid, leave_to=leave_to, by=by), lazy=leave_to is not None)

    def detach_soon(self, uuid: str, *, by: str = "") -> Pending[None]:
        """`detach` for who has something to do meanwhile."""
        return Pending(self._engine, commands.Detach(self, uuid, by=by))

    def leave_soon(self, uuid: str, leave_to: str) -> Pending[None]:
        """`detach`, leaving the leases to that Docker daemon, for who does not wait for it."""
        return Pending(self._engine, commands.Detach(self, uuid, leave_to=leave_to), lazy=True, hurry=False)

    # -----------------------------------------------------------------------------------------------------------------

    def _one(self, command: Command, *, alone: bool = False, lazy: bool = False) -> Any:
        return self._engine.execute(command, alone=alone, lazy=lazy)[0]

    def _no_pool(self, ref: str) -> NoReturn:
        raise PoolNotFound(f"there is no pool {ref!r}", hint="see `ovsnet pool ls`")

    def _use(self, pool: Pool) -> PoolUse:
        blocks = self.view.blocks[pool.uuid]
        networks = tuple(sorted(one.name for one in self.view.networks_of(pool.uuid)))
        return PoolUse(pool, blocks.capacity, blocks.leased, networks)


def _name(one: Pool | Network) -> str:
    return one.name
