"""Changes of the OVSNet database, one small class each (after ovsdbapp's model).

A command decides on the view (what is committed) and on the transaction's scratch (what other commands of the same
transaction have chosen), raises before its first write, and finds its own earlier work when it runs again: after a lost race,
and after a commit whose answer was lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from ..errors import (
    AddressInUse,
    AddressNotInPool,
    AlreadyExists,
    EndpointNotFound,
    Exhausted,
    InUse,
    NetworkNotFound,
    PoolExhausted,
    PoolNotFound,
    PoolOverlap,
    PortInUse,
    StateUnavailable,
    TagInUse,
)
from ..ipam import PoolBlocks, default_gateway
from ..ipam.pools import check_assignable
from ..model import (
    AddressRange,
    Endpoint,
    IPAddress,
    LeaseOwner,
    Network,
    Origin,
    OwnerKind,
    Pool,
    PublishedPort,
    endpoint_key,
)
from ..ovsdb import Command, Transaction
from . import rows
from .view import View


@dataclass(slots=True)
class _Scratch:
    """What the transaction being built has done to one pool so far, which the view does not show yet."""

    given: dict[int, str] = field(default_factory=dict)  # address -> owner
    ended: set[int] = field(default_factory=set)  # addresses whose lease it ends
    claimed: dict[int, Any] = field(default_factory=dict)  # start -> inserted Block row
    turns: int = 0


@dataclass(frozen=True, slots=True)
class _Planned:
    """An address that was chosen and not yet written."""

    pool: str
    address: int
    block: int
    claim: bool
    held: bool  # the owner has it already
    ipv6: bool


class StoreCommand(Command):
    """Base: `api` has `view`, `node` and ovsdbapp's `tables`."""

    @property
    def view(self) -> View:
        """The committed picture."""
        view: View = self.api.view
        return view

    def row(self, table: str, uuid: str) -> Any:
        """The row of that uuid, or None."""
        return self.api.tables[table].rows.get(UUID(uuid))

    # -- leases, shared by all commands that give or take addresses ---------------------------------------------------

    def plan_lease(
        self,
        txn: Transaction,
        pool: Pool,
        owner: str,
        address: IPAddress | None,
        *,
        adopt: bool = False,
        held_by: str = "",
        names: Sequence[str] = (),
        rather: int | None = None,
    ) -> _Planned:
        """Choose an address for `owner`, or check the one asked for.

        `adopt` takes over one that Docker has been given, and if `held_by` is not "", then only from that owner; `names` are
        those under which one may be reserved for the owner; `rather` is the one to choose if any would do, unless it has been
        given meanwhile.
        """
        reserved = next((one for one in names if one in pool.reservations), None)
        if reserved is not None and address is None:
            address = pool.reservations[reserved]
        blocks = self.view.blocks[pool.uuid]
        scratch = _scratch(txn, pool.uuid)
        ipv6 = pool.subnet.version == 6
        held = next((one for one, holder in scratch.given.items() if holder == owner), blocks.address_of(owner))
        if held in scratch.ended:
            held = None
        if held is not None and (address is None or int(address) == held):
            return _Planned(pool.uuid, held, blocks.block_start(held), claim=False, held=True, ipv6=ipv6)
        unwritten = self.view.held(pool.uuid)
        if address is None:
            if pool.draining:
                raise PoolExhausted(f"pool {pool.name} is draining and gives no address", hint="use another pool")
            choice = blocks.choose(
                self.api.node,
                taken={**unwritten, **scratch.given} if unwritten else scratch.given,
                claimed=scratch.claimed,
                cooling=self.view.cooling(pool.uuid),
                rather=rather,
            )
            if choice is None:
                raise PoolExhausted(
                    f"pool {pool.name} ({pool.subnet}) has no free address",
                    hint="remove endpoints, or use a larger subnet",
                    pool=pool.name,
                )
            return _Planned(pool.uuid, choice.address, choice.block, choice.claim, held=False, ipv6=ipv6)
        value = int(check_assignable(pool, address))
        holder = scratch.given.get(value) or (None if value in scratch.ended else blocks.owner_of(value))
        if holder is None and unwritten.get(value, owner) != owner:
            holder = unwritten[value]
        mine = reserved is not None and holder == str(LeaseOwner(OwnerKind.RESERVED, reserved))
        adopted = holder is not None and adopt and (holder == held_by if held_by else _docker(holder))
        if holder is not None and not mine and not adopted:
            raise AddressInUse(
                f"address {address} of pool {pool.name} is in use by {holder}",
                hint="ask for another one, or for none",
                address=str(address),
            )
        start = blocks.block_start(value)
        claim = start not in blocks.blocks and start not in scratch.claimed
        return _Planned(pool.uuid, value, start, claim, held=False, ipv6=ipv6)

    def write_lease(self, txn: Transaction, plan: _Planned, owner: str, pool_row: Any = None) -> None:
        """Write what was planned: a conditional write on the block's row, or a new row.

        `pool_row` is the pool's row where the same transaction inserts it.
        """
        if plan.held:
            if (plan.pool, plan.block) in self.view.block_rows:  # else this transaction has written it
                self._block_row(plan.pool, plan.block)  # nobody may take it for a stray's meanwhile
            return
        scratch = _scratch(txn, plan.pool)
        scratch.given[plan.address] = owner
        scratch.ended.discard(plan.address)
        scratch.turns += 1
        text = str(rows.address(plan.address, ipv6=plan.ipv6))
        if plan.claim:
            row = txn.insert(self.api.tables["Block"])
            row.pool = pool_row or UUID(plan.pool)
            row.first, row.node = str(rows.address(plan.block, ipv6=plan.ipv6)), self.api.node
            row.leases = {text: owner}
            scratch.claimed[plan.block] = row
        elif plan.block in scratch.claimed:
            row = scratch.claimed[plan.block]
            row.leases = {**row.leases, text: owner}
        else:
            row = self._block_row(plan.pool, plan.block)
            row.setkey("leases", text, owner)
            if row.node != self.api.node:
                return  # borrowed: what its own node gave last is not ours to say
        blocks = self.view.blocks.get(plan.pool)
        row.cursor, row.turn = text, scratch.turns + (blocks.turn(self.api.node) if blocks else 0)

    def write_owner(self, txn: Transaction, pool: Pool, address: int, owner: LeaseOwner | None) -> None:
        """Hand a lease over to `owner`, or end it (None): then it goes back to whom it is reserved for, if it is."""
        text = str(rows.address(address, ipv6=pool.subnet.version == 6))
        row = self._block_row(pool.uuid, self.view.blocks[pool.uuid].block_start(address))
        if owner is None:
            name = next((one for one, kept in pool.reservations.items() if int(kept) == address), None)
            owner = None if name is None else LeaseOwner(OwnerKind.RESERVED, name)
        if owner is None:
            row.delkey("leases", text)
            _scratch(txn, pool.uuid).ended.add(address)
        else:
            row.setkey("leases", text, str(owner))

    def _block_row(self, pool: str, start: int) -> Any:
        """A block's row, on the condition that nobody else writes its leases meanwhile."""
        row = self.api.tables["Block"].rows[self.view.block_rows[pool, start]]
        row.verify("leases")
        return row

    def ended(self, pool: str, address: int, by: str = "") -> None:
        """After the commit: the address cools down, and a block that it leaves empty is given back. `by` is who asked, or ""."""
        self.view.cool(pool, address)
        if by:
            self.view.released_by(pool, address, by)
        blocks = self.view.blocks.get(pool)
        block = blocks.blocks.get(blocks.block_start(address)) if blocks else None
        if blocks and block and not block.leases and not blocks.keep_when_empty(block):
            with suppress(StateUnavailable):  # being stopped: an empty block that stays claimed is still lent to all
                self.api.submit(ReleaseBlock(self.api, pool, block.start), alone=True)


def _scratch(txn: Transaction, pool: str) -> _Scratch:
    scratch: _Scratch = txn.scratch.setdefault(pool, _Scratch())
    return scratch


def given_in(scratch: Mapping[Any, Any], pool: str) -> Collection[int]:
    """Addresses of a pool that a transaction gives away."""
    found = scratch.get(pool)
    return found.given if isinstance(found, _Scratch) else ()


def _docker(owner: str) -> bool:
    return LeaseOwner.parse(owner).kind is OwnerKind.DOCKER


def _tidy(ranges: Collection[AddressRange]) -> tuple[AddressRange, ...]:
    """As the database has them: a set, read in order."""
    return tuple(sorted(set(ranges)))


def check_overlap(view: View, pool: Pool) -> None:
    """PoolOverlap if another pool of the space overlaps `pool`."""
    for other in view.pools.values():
        if other.uuid != pool.uuid and other.space == pool.space and other.subnet.overlaps(pool.subnet):
            raise PoolOverlap(
                f"subnet {pool.subnet} overlaps pool {other.name} ({other.subnet})",
                hint="choose another subnet, or use that pool",
                pool=other.name,
            )


def serialize_space(txn: Transaction, tables: Mapping[str, Any], name: str) -> None:
    """Two controllers that add overlapping pools at once must not both succeed: the space's row makes them take turns."""
    for space in tables["Space"].rows.values():
        if space.name == name:
            space.verify("revision")
            space.revision = space.revision + 1
            return
    space = txn.insert(tables["Space"])
    space.name, space.revision = name, 1


class CreatePool(StoreCommand):
    """Make a pool, with its gateway's lease. A pool of the same name and content already there is success.

    `result` is the row while the transaction is built, the Pool after.
    """

    def __init__(self, api: Any, pool: Pool) -> None:
        super().__init__(api)
        self.pool = dataclasses.replace(
            pool,
            ranges=_tidy(pool.ranges),
            exclusions=_tidy(pool.exclusions),
            static_ranges=_tidy(pool.static_ranges),
        )
        self.row_now: Any = None

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        pool = self.pool
        same = self.view.pool(pool.name)
        if same is not None:
            if (
                dataclasses.replace(
                    pool, uuid=same.uuid, requested_by=same.requested_by, reservations=same.reservations
                )
                != same
            ):
                raise AlreadyExists(
                    f"pool {pool.name} exists with other settings (subnet {same.subnet})", hint="choose another name"
                )
            self.result, self.row_now = same, self.row("Pool", same.uuid)
            return
        check_overlap(self.view, pool)
        serialize_space(txn, self.api.tables, pool.space)
        row = txn.insert(self.api.tables["Pool"])
        row.name, row.space, row.subnet = pool.name, pool.space, str(pool.subnet)
        row.gateway = [] if pool.gateway is None else [str(pool.gateway)]
        row.ranges = [str(one) for one in pool.ranges]
        row.exclusions = [str(one) for one in pool.exclusions]
        row.static_ranges = [str(one) for one in pool.static_ranges]
        row.origin, row.requested_by, row.labels = pool.origin.value, pool.requested_by, dict(pool.labels)
        if pool.gateway is not None:
            address = int(pool.gateway)
            start = PoolBlocks(pool).block_start(address)
            plan = _Planned(str(row.uuid), address, start, claim=True, held=False, ipv6=pool.subnet.version == 6)
            self.write_lease(txn, plan, str(LeaseOwner(OwnerKind.GATEWAY, pool.name)), pool_row=row)
        self.result = self.row_now = row
        self.planned = dataclasses.replace(pool, uuid=str(row.uuid))

    def post_commit(self, txn: Transaction) -> None:
        """Replace the row by the Pool."""
        if not isinstance(self.result, Pool):
            self.result = self.view.pools.get(str(txn.get_insert_uuid(self.result.uuid)))
            if self.result is None:
                raise PoolNotFound(f"pool {self.pool.name} was removed as soon as it was made")


class SetPoolRequester(StoreCommand):
    """Note which Docker daemon asked for a pool last."""

    def __init__(self, api: Any, uuid: str, requester: str) -> None:
        super().__init__(api)
        self.uuid = uuid
        self.requester = requester

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        del txn
        row = self.row("Pool", self.uuid)
        if row is None:
            raise PoolNotFound(f"pool {self.uuid} does not exist any more")
        if row.requested_by != self.requester:
            row.requested_by = self.requester


class DeletePool(StoreCommand):
    """Remove a pool and its blocks; the gateway's lease goes with it, any other lease refuses. Missing is success.

    `without` are uuids of networks that the same group deletes; what Docker holds in the pool, it held for them.
    `force` takes Docker's leases and reservations along, never an endpoint's.
    """

    def __init__(self, api: Any, uuid: str, without: Collection[str] = (), *, force: bool = False) -> None:
        super().__init__(api)
        self.uuid = uuid
        self.without = without
        self.moot = {OwnerKind.GATEWAY}
        if without or force:
            self.moot.add(OwnerKind.DOCKER)
        if force:
            self.moot.add(OwnerKind.RESERVED)

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        del txn
        pool = self.view.pools.get(self.uuid)
        if pool is None:
            return
        users = [one.name for one in self.view.networks_of(self.uuid) if one.uuid not in self.without]
        if users:
            raise InUse(f"pool {pool.name} is used by network {', '.join(users)}", hint="remove the network first")
        blocks = self.view.blocks[self.uuid]
        moot = self.moot
        if self.without and pool.origin is Origin.DOCKER:
            moot = moot | {OwnerKind.RESERVED}  # Docker forgets the network whatever we say, and its names with it
        held = [
            (address, owner)
            for block in blocks.blocks.values()
            for address, owner in block.leases.items()
            if LeaseOwner.parse(owner).kind not in moot
        ]
        if held:
            first = rows.address(held[0][0], ipv6=pool.subnet.version == 6)
            raise InUse(
                f"pool {pool.name} has {len(held)} leases, such as {first} of {held[0][1]}",
                hint="remove the endpoints that hold them first, and release what is reserved",
            )
        for start in blocks.blocks:
            self._block_row(self.uuid, start).delete()
        self.row("Pool", self.uuid).delete()


class CreateNetwork(StoreCommand):
    """Make a network; `tag` None takes the first free one of `tags` that is not in `foreign_tags`.

    `pools` are uuids, or CreatePool commands earlier in the group. The same network already there is success: same bridge,
    same pools, the same tag where one is given, and both routed or neither.
    """

    def __init__(
        self,
        api: Any,
        network: Network,
        pools: Sequence[str | CreatePool],
        *,
        choose_tag: range | None,
        foreign_tags: Collection[int] = (),
    ) -> None:
        super().__init__(api)
        self.network = network
        self.pools = pools
        self.choose_tag = choose_tag
        self.foreign_tags = foreign_tags

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        network = self.network
        same = self.view.network(network.name)
        pool_rows = [self.row("Pool", one) if isinstance(one, str) else one.row_now for one in self.pools]
        if same is not None:
            if not self._agrees(same, {str(row.uuid) for row in pool_rows if row is not None}):
                raise AlreadyExists(
                    f"network {network.name} exists with other settings (bridge {same.bridge}, VLAN {same.tag})",
                    hint="choose another name, or leave out what differs",
                )
            self.result = same
            return
        if None in pool_rows:
            raise PoolNotFound("a pool of the network does not exist any more", hint="ask again")
        tag = self._tag()
        row = txn.insert(self.api.tables["Network"])
        row.name, row.bridge, row.tag, row.mtu = network.name, network.bridge, tag, network.mtu
        row.pools = pool_rows
        row.gateways = [str(one) for one in network.gateways]
        row.internal, row.masquerade, row.origin = network.internal, network.masquerade, network.origin.value
        row.routed = network.routed
        row.docker_ids, row.labels = sorted(network.docker_ids), dict(network.labels)
        self.result = row
        made = tuple(str(one.uuid) for one in pool_rows)
        self.planned = dataclasses.replace(network, uuid=str(row.uuid), tag=tag, pools=made)

    def _agrees(self, same: Network, pools: set[str]) -> bool:
        wanted = self.network
        return (
            same.bridge == wanted.bridge
            and set(same.pools) == pools
            and (self.choose_tag is not None or same.tag == wanted.tag)
            and same.docker_ids >= wanted.docker_ids
            and same.routed is wanted.routed
        )

    def _tag(self) -> int:
        used = {one.tag: one.name for one in self.view.networks.values() if one.bridge == self.network.bridge}
        if self.choose_tag is None:
            if self.network.tag in used:
                raise TagInUse(
                    f"VLAN {self.network.tag} of bridge {self.network.bridge} belongs to network {used[self.network.tag]}",
                    hint="choose another tag, or let ovsnet choose",
                )
            return self.network.tag
        for tag in self.choose_tag:
            if tag not in used and tag not in self.foreign_tags:
                return tag
        raise Exhausted(f"bridge {self.network.bridge} has no free VLAN tag", hint="use another bridge")

    def post_commit(self, txn: Transaction) -> None:
        """Replace the row by the Network."""
        if not isinstance(self.result, Network):
            self.result = self.view.networks.get(str(txn.get_insert_uuid(self.result.uuid)))
            if self.result is None:
                raise NetworkNotFound(f"network {self.network.name} was removed as soon as it was made")


class SetDockerIds(StoreCommand):
    """Add and take away ids under which Docker knows a network."""

    def __init__(self, api: Any, uuid: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> None:
        super().__init__(api)
        self.uuid = uuid
        self.add = add
        self.remove = remove

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        del txn
        row = self.row("Network", self.uuid)
        if row is None:
            raise NetworkNotFound(f"network {self.uuid} does not exist any more")
        for one in set(self.add) - set(row.docker_ids):
            row.addvalue("docker_ids", one)
        for one in set(self.remove) & set(row.docker_ids):
            row.delvalue("docker_ids", one)


class DeleteNetwork(StoreCommand):
    """Remove a network that has no endpoint; missing is success."""

    def __init__(self, api: Any, uuid: str) -> None:
        super().__init__(api)
        self.uuid = uuid

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        del txn
        row = self.row("Network", self.uuid)
        if row is None:
            return
        users = self.view.by_network.get(self.uuid)
        if users:
            one = next(iter(users.values()))
            raise InUse(
                f"network {row.name} has {len(users)} endpoints, such as container {one.container[:40]}",
                hint="remove them first",
            )
        row.delete()


class Attach(StoreCommand):
    """Write an endpoint with its leases: one per pool of its network, all or nothing.

    `endpoint.addresses` is ignored for families with a pool: `wanted` has what is asked for there, `rather` what to choose if
    any would do; `held_by` has the only owner from whom one of them is adopted. Other addresses of it stay as they are (a
    foreign IPAM's). An endpoint of the same key already there is the result, unless it asks for other addresses. `mac` empty
    derives it from the first address by `derive_mac`. `planned` is what the last attempt wrote, without its uuid, as soon as it
    is on its way.
    """

    def __init__(
        self,
        api: Any,
        endpoint: Endpoint,
        wanted: Sequence[IPAddress] = (),
        *,
        derive_mac: Any,
        adopt: bool = False,
        held_by: Mapping[IPAddress, LeaseOwner] | None = None,
        names: Sequence[str] = (),
        rather: Sequence[IPAddress] = (),
    ) -> None:
        super().__init__(api)
        self.held_by = held_by or {}
        self.rather = {one.version: int(one) for one in rather}
        self.endpoint = endpoint
        self.wanted = {one.version: one for one in wanted}
        self.derive_mac = derive_mac
        self.adopt = adopt
        self.names = names
        self.planned: Endpoint | None = None

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        endpoint = self.endpoint
        network = self.view.networks.get(endpoint.network)
        if network is None:
            raise NetworkNotFound(f"network {endpoint.network_name} does not exist any more", hint="ask again")
        key = endpoint_key(endpoint.network, endpoint.container, endpoint.ifname)
        same = self.view.by_key.get(key)
        if same is not None and same.uuid not in txn.scratch.get("detached", ()):
            have = {one.ip for one in same.addresses}
            if any(one not in have for one in self.wanted.values()):
                raise AlreadyExists(
                    f"container {endpoint.container[:40]} is on network {network.name} with other addresses "
                    f"({', '.join(map(str, same.addresses))})",
                    hint="detach it first",
                )
            self.result = same
            return
        owner = str(LeaseOwner(OwnerKind.ENDPOINT, key))
        pools = [self.view.pools[uuid] for uuid in network.pools]
        families = {pool.subnet.version for pool in pools}
        for version, address in self.wanted.items():
            if version not in families:
                raise AddressNotInPool(
                    f"network {network.name} has no IPv{version} pool for {address}", hint="leave the address out"
                )
        plans = [
            self.plan_lease(
                txn,
                pool,
                owner,
                self.wanted.get(pool.subnet.version),
                adopt=self.adopt,
                held_by=self._held_by(pool),
                names=self.names,
                rather=self.rather.get(pool.subnet.version),
            )
            for pool in pools
        ]
        addresses = [
            pool.interface(rows.address(plan.address, ipv6=pool.subnet.version == 6))
            for pool, plan in zip(pools, plans, strict=True)
        ]
        addresses += [one for one in endpoint.addresses if one.version not in families]
        claim_published(self.view, txn, self.endpoint.node, self.endpoint.published)
        row = txn.insert(self.api.tables["Endpoint"])
        row.network = UUID(endpoint.network)
        row.container, row.ifname = endpoint.container, endpoint.ifname
        row.origin, row.node, row.sandbox = endpoint.origin.value, endpoint.node, endpoint.sandbox
        row.addresses = [str(one) for one in addresses]
        mac = endpoint.mac or (self.derive_mac(addresses[0].ip) if addresses else "")
        row.mac = mac
        row.mtu, row.port, row.link = endpoint.mtu, endpoint.port, endpoint.link
        for column, value in rows.rarely(endpoint).items():
            setattr(row, column, value)
        for plan in plans:
            self.write_lease(txn, plan, owner)
        txn.scratch.setdefault("attached", set()).add(key)
        self.result = row
        self.planned = dataclasses.replace(endpoint, addresses=tuple(addresses), mac=mac)

    def _held_by(self, pool: Pool) -> str:
        owner = self.held_by.get(wanted) if (wanted := self.wanted.get(pool.subnet.version)) else None
        return "" if owner is None else str(owner)

    def post_commit(self, txn: Transaction) -> None:
        """Replace the row by the Endpoint."""
        if not isinstance(self.result, Endpoint):
            self.result = self.view.endpoints.get(str(txn.get_insert_uuid(self.result.uuid)))
            if self.result is None:
                raise EndpointNotFound(
                    f"the endpoint of {self.endpoint.container[:40]} was removed as soon as it was made"
                )


def claim_published(
    view: View, txn: Transaction, node: str, ports: Sequence[PublishedPort], but: Collection[str] = ()
) -> None:
    """PortInUse if a port is published already on this node, other than by the endpoints `but` (uuids), or twice."""
    if not ports:
        return
    gone = {*but, *txn.scratch.get("detached", ())}
    claimed: list[PublishedPort] = txn.scratch.setdefault(f"published on {node}", [])
    here = (one for one in view.endpoints.values() if one.published and one.node == node)
    taken = [*claimed, *(port for one in here if one.uuid not in gone for port in one.published)]
    for port in ports:
        if any(port.clashes(other) for other in taken):
            raise PortInUse(
                f"{port.protocol} port {port.host_port} of this host is published already",
                hint="`ovsnet endpoint ls` shows by whom; choose another port",
            )
        taken.append(port)
    claimed += ports


class SetPublished(StoreCommand):
    """Change the ports of the host that lead to an endpoint; `result` is the Endpoint then. PortInUse, EndpointNotFound."""

    def __init__(self, api: Any, uuid: str, ports: Sequence[PublishedPort]) -> None:
        super().__init__(api)
        self.uuid = uuid
        self.ports = ports

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        row, endpoint = self.row("Endpoint", self.uuid), self.view.endpoints.get(self.uuid)
        if row is None or endpoint is None or self.uuid in txn.scratch.get("detached", ()):
            raise EndpointNotFound(f"endpoint {self.uuid} does not exist any more")
        claim_published(self.view, txn, endpoint.node, self.ports, {self.uuid})
        if set(endpoint.published) != set(self.ports):
            row.published = [str(one) for one in self.ports]

    def post_commit(self, txn: Transaction) -> None:
        """The Endpoint as it is now."""
        del txn
        self.result = self.view.endpoints.get(self.uuid)
        if self.result is None:
            raise EndpointNotFound(f"endpoint {self.uuid} does not exist any more")


class SetBoot(StoreCommand):
    """Note the boot of this node in which its attachments were made; the same again is success."""

    def __init__(self, api: Any, boot: str) -> None:
        super().__init__(api)
        self.boot = boot

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        rows_of_node = self.api.tables["Node"].rows.values()
        row = next((one for one in rows_of_node if one.name == self.api.node), None)
        if row is None:
            row = txn.insert(self.api.tables["Node"])
            row.name, row.boot = self.api.node, self.boot
        elif row.boot != self.boot:
            row.boot = self.boot


class SetEndpoint(StoreCommand):
    """Change columns of an endpoint: `sandbox`, `port`, `link`, `ipam`, `wiring` (strings), `labels` (a mapping), `addresses`."""

    def __init__(self, api: Any, uuid: str, columns: Mapping[str, str | Mapping[str, str] | list[str]]) -> None:
        super().__init__(api)
        self.uuid = uuid
        self.columns = columns

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        row = self.row("Endpoint", self.uuid)
        if row is None or self.uuid in txn.scratch.get("detached", ()):
            raise EndpointNotFound(f"endpoint {self.uuid} does not exist any more")
        for column, value in self.columns.items():
            setattr(row, column, dict(value) if isinstance(value, Mapping) else value)

    def post_commit(self, txn: Transaction) -> None:
        """The Endpoint as it is now."""
        del txn
        self.result = self.view.endpoints.get(self.uuid)
        if self.result is None:
            raise EndpointNotFound(f"endpoint {self.uuid} does not exist any more")


class Detach(StoreCommand):
    """Remove an endpoint and its leases; missing is success.

    `leave_to` names the Docker daemon that keeps the addresses until it releases them itself by ReleaseAddress. `by` is who
    asks, for the journal.
    """

    def __init__(self, api: Any, uuid: str, *, leave_to: str | None = None, by: str = "") -> None:
        super().__init__(api)
        self.uuid = uuid
        self.leave_to = leave_to
        self.by = by
        self.released: list[tuple[str, int]] = []

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        self.released = []
        endpoint = self.view.endpoints.get(self.uuid)
        if endpoint is None or self.uuid in txn.scratch.setdefault("detached", set()):
            return
        txn.scratch["detached"].add(self.uuid)
        owner = str(LeaseOwner(OwnerKind.ENDPOINT, endpoint.key))
        network = self.view.networks[endpoint.network]
        for uuid in network.pools:
            pool = self.view.pools[uuid]
            address = self.view.blocks[uuid].address_of(owner)
            if address is None:
                continue
            if self.leave_to is not None:
                text = str(rows.address(address, ipv6=pool.subnet.version == 6))
                self.write_owner(txn, pool, address, LeaseOwner(OwnerKind.DOCKER, f"{self.leave_to}/{text}"))
            else:
                self.write_owner(txn, pool, address, None)
                self.released.append((uuid, address))
        self.row("Endpoint", self.uuid).delete()

    def post_commit(self, txn: Transaction) -> None:
        """The addresses begin to cool down."""
        del txn
        for pool, address in self.released:
            self.ended(pool, address, self.by)


class ReleaseBlock(StoreCommand):
    """Give an empty block back, so that other nodes may claim it; one that is in use again stays. Always sent alone."""

    def __init__(self, api: Any, pool: str, start: int) -> None:
        super().__init__(api)
        self.pool = pool
        self.start = start

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        del txn
        blocks = self.view.blocks.get(self.pool)
        block = blocks.blocks.get(self.start) if blocks else None
        if block is not None and not block.leases:
            self._block_row(self.pool, self.start).delete()


class AllocateLease(StoreCommand):
    """Give an address to an owner that is not an endpoint; `result` is the address. The same owner gets the same again."""

    def __init__(
        self, api: Any, pool: str, owner: LeaseOwner, address: IPAddress | None = None, names: Sequence[str] = ()
    ) -> None:
        super().__init__(api)
        self.pool = pool
        self.owner = str(owner)
        self.address = address
        self.names = names

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        pool = self.view.pools.get(self.pool)
        if pool is None:
            raise PoolNotFound(f"pool {self.pool} does not exist any more")
        plan = self.plan_lease(txn, pool, self.owner, self.address, names=self.names)
        self.write_lease(txn, plan, self.owner)
        self.result = rows.address(plan.address, ipv6=pool.subnet.version == 6)


class AllocateGateway(StoreCommand):
    """Lease a pool's gateway: the address asked for, or the first usable one; `result` is the address.

    A pool has one gateway; the same again is success. Always sent alone.
    """

    def __init__(self, api: Any, pool: str, address: IPAddress | None) -> None:
        super().__init__(api)
        self.pool = pool
        self.address = address

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        pool = self.view.pools.get(self.pool)
        if pool is None:
            raise PoolNotFound(f"pool {self.pool} does not exist any more")
        owner = str(LeaseOwner(OwnerKind.GATEWAY, pool.name))
        if pool.gateway is not None and self.address not in (None, pool.gateway):
            raise AddressInUse(f"pool {pool.name} has gateway {pool.gateway} already", hint="leave --gateway out")
        address = self.address or pool.gateway or self._default(pool)
        plan = self.plan_lease(txn, pool, owner, address)
        self.write_lease(txn, plan, owner)
        self.result = rows.address(plan.address, ipv6=plan.ipv6)
        if pool.gateway is None:
            row = self.row("Pool", self.pool)
            row.verify("gateway")  # two controllers may choose at once, in different blocks
            row.gateway = [str(self.result)]

    def _default(self, pool: Pool) -> IPAddress | None:
        """The first usable address; None, for any other, where somebody has it or nobody may."""
        address = default_gateway(pool.subnet)
        if address is None or self.view.blocks[pool.uuid].owner_of(int(address)):
            return None
        return None if any(address in one for one in pool.exclusions) else address


class SetLeaseOwner(StoreCommand):
    """Hand a lease that Docker holds over to another owner; an address that is anybody else's, or nobody's, is left alone."""

    def __init__(self, api: Any, pool: str, address: IPAddress, owner: LeaseOwner) -> None:
        super().__init__(api)
        self.pool = pool
        self.address = int(address)
        self.owner = owner

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        pool = self.view.pools.get(self.pool)
        if pool is None or self.address in _scratch(txn, self.pool).ended:
            return
        holder = self.view.blocks[self.pool].owner_of(self.address)
        if holder is not None and _docker(holder):
            self.write_owner(txn, pool, self.address, self.owner)


class ReleaseLease(StoreCommand):
    """Take an address back if its owner is of one of `kinds`; `result` says whether. Not leased is success (True).

    That of an endpoint which is there, or is being made, stays.
    """

    def __init__(
        self,
        api: Any,
        pool: str,
        address: IPAddress,
        kinds: Collection[OwnerKind],
        owner: LeaseOwner | None = None,
        by: str = "",
    ) -> None:
        super().__init__(api)
        self.pool = pool
        self.address = address
        self.kinds = kinds
        self.owner = owner
        self.by = by
        self.released = False

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        self.released = False
        self.result = True
        pool = self.view.pools.get(self.pool)
        if pool is None:
            return
        value = int(self.address)
        holder = self.view.blocks[self.pool].owner_of(value)
        if holder is None or value in _scratch(txn, self.pool).ended:
            return
        owner = LeaseOwner.parse(holder)
        if owner.kind not in self.kinds or str(self.owner or holder) != holder:
            self.result = False
            return
        if owner.kind is OwnerKind.ENDPOINT and not self._is_gone(txn, owner.id):
            self.result = False
            return
        self.write_owner(txn, pool, value, None)
        if pool.gateway == self.address:
            self.row("Pool", self.pool).gateway = []
        self.released = True

    def _is_gone(self, txn: Transaction, key: str) -> bool:
        """Whether there is no endpoint of that key; then neither may another controller make one before the commit."""
        present = self.view.by_key.get(key)
        if present is not None and present.uuid not in txn.scratch.get("detached", ()):
            return False
        if key in txn.scratch.get("attached", ()):
            return False
        network, _, rest = key.partition("/")
        container, _, ifname = rest.rpartition("/")
        if network in self.view.networks and present is None:
            of = (("network", ["uuid", network]), ("container", container), ("ifname", ifname))
            where = [[column, "==", value] for column, value in of]
            columns = ["container"]
            wait = {"op": "wait", "table": "Endpoint", "where": where, "columns": columns, "until": "==", "rows": []}
            txn.add_op(wait | {"timeout": 0})
        return True

    def post_commit(self, txn: Transaction) -> None:
        """The address begins to cool down."""
        del txn
        if self.released:
            self.ended(self.pool, int(self.address), self.by)
