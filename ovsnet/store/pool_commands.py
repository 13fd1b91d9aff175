"""Changes of a pool that stands: grow it, change what it may give, drain it, reserve addresses by name.

Like `commands`, which has the rules that every command keeps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from ..errors import AddressInUse, AddressNotInPool, AlreadyExists, InUse, InvalidRequest, NotFound, PoolNotFound
from ..ipam import PoolBlocks, check_spec
from ..ipam.pools import check_assignable
from ..model import IPAddress, LeaseOwner, Network, OwnerKind, Pool, PoolSpec
from ..ovsdb import Transaction
from . import rows
from .commands import StoreCommand, check_overlap, serialize_space


class ChangePool(StoreCommand):
    """Give a pool another subnet (a larger one around the old), ranges, exclusions, static ranges, or `draining`.

    A change that would strand a lease is refused and names it. `result` is the pool and the networks whose gateways got
    another prefix length with it. Always sent alone.
    """

    def __init__(self, api: Any, uuid: str, changes: dict[str, Any]) -> None:
        super().__init__(api)
        self.uuid = uuid
        self.changes = changes
        self.networks: list[str] = []

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        old = self.view.pools.get(self.uuid)
        if old is None:
            raise PoolNotFound(f"pool {self.uuid} does not exist any more")
        new = dataclasses.replace(old, **self.changes)
        check_spec(PoolSpec(new.subnet, ranges=new.ranges, exclusions=new.exclusions, static_ranges=new.static_ranges))
        self._check_leases(new)
        if new.subnet != old.subnet:
            if not new.subnet.version == old.subnet.version or not _contains(new, old):
                raise InvalidRequest(
                    f"pool {old.name} can grow around {old.subnet}, not become {new.subnet}", hint="make another pool"
                )
            check_overlap(self.view, new)
            serialize_space(txn, self.api.tables, new.space)
        row = self.row("Pool", self.uuid)
        row.subnet = str(new.subnet)
        row.ranges = [str(one) for one in new.ranges]
        row.exclusions = [str(one) for one in new.exclusions]
        row.static_ranges = [str(one) for one in new.static_ranges]
        row.draining = new.draining
        self.networks = []
        if new.subnet != old.subnet:
            self._cut_again(txn, new)
            networks = self.view.networks_of(self.uuid)
            self._change_gateways(networks, new)
            self.networks = [one.uuid for one in networks]
        self.planned = (new, [])

    def post_commit(self, txn: Transaction) -> None:
        """The Pool and the Networks as they are now."""
        del txn
        self.result = (self.view.pools[self.uuid], [self.view.networks[one] for one in self.networks])

    def _leases(self) -> Iterator[tuple[int, str]]:
        for block in self.view.blocks[self.uuid].blocks.values():
            yield from block.leases.items()

    def _check_leases(self, new: Pool) -> None:
        for value, owner in self._leases():
            address = rows.address(value, ipv6=new.subnet.version == 6)
            try:
                check_assignable(new, address)
            except AddressNotInPool as exc:
                raise InUse(
                    f"the change would strand {address}, which {owner} holds: {exc.message}", hint="remove that first"
                ) from None

    def _cut_again(self, txn: Transaction, new: Pool) -> None:
        """Blocks are counted from the subnet's first address, so another subnet may cut them otherwise."""
        old = self.view.blocks[self.uuid]
        cut = PoolBlocks(new)
        if all(cut.block_start(start) == start for start in old.blocks) and cut.block_size() == old.block_size():
            return
        merged: dict[int, dict[str, str]] = {}
        nodes: dict[int, str] = {}
        for start, block in old.blocks.items():
            row = self._block_row(self.uuid, start)
            for value, owner in block.leases.items():
                text = str(rows.address(value, ipv6=new.subnet.version == 6))
                merged.setdefault(cut.block_start(value), {})[text] = owner
                nodes[cut.block_start(value)] = block.node
            row.delete()
        for start, leases in merged.items():
            row = txn.insert(self.api.tables["Block"])
            row.pool, row.node = UUID(self.uuid), nodes[start]
            row.first, row.leases = str(rows.address(start, ipv6=new.subnet.version == 6)), leases

    def _change_gateways(self, networks: list[Network], new: Pool) -> None:
        for network in networks:
            self.row("Network", network.uuid).gateways = [
                str(new.interface(one.ip)) if one.ip in new.subnet else str(one) for one in network.gateways
            ]


def _contains(new: Pool, old: Pool) -> bool:
    return old.subnet.network_address in new.subnet and old.subnet.broadcast_address in new.subnet


class Reserve(StoreCommand):
    """Keep an address for a name: the one asked for, or the next free. The same again is success; `result` is the address.

    `adopt` keeps one that Docker has been given as well: Docker keeps it until it goes.
    """

    def __init__(self, api: Any, pool: str, name: str, address: IPAddress | None, *, adopt: bool = False) -> None:
        super().__init__(api)
        self.adopt = adopt
        self.pool = pool
        self.name = name
        self.address = address

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        pool = self.view.pools.get(self.pool)
        if pool is None:
            raise PoolNotFound(f"pool {self.pool} does not exist any more")
        kept = pool.reservations.get(self.name)
        if kept is not None:
            if self.address not in (None, kept):
                raise AlreadyExists(
                    f"{kept} is reserved for {self.name} in pool {pool.name}", hint="release that first"
                )
            self.result = kept
            return
        if self.address in pool.reservations.values():
            raise AddressInUse(
                f"{self.address} is reserved for somebody else in pool {pool.name}", hint="ask for another"
            )
        if self.address is not None and self.adopt and self._docker_has(int(self.address)):
            self.result = self.address
        else:
            owner = str(LeaseOwner(OwnerKind.RESERVED, self.name))
            plan = self.plan_lease(txn, pool, owner, self.address)
            self.write_lease(txn, plan, owner)
            self.result = rows.address(plan.address, ipv6=plan.ipv6)
        row = self.row("Pool", self.pool)
        row.verify("reservations")
        row.setkey("reservations", self.name, str(self.result))

    def _docker_has(self, address: int) -> bool:
        holder = self.view.blocks[self.pool].owner_of(address)
        return holder is not None and LeaseOwner.parse(holder).kind is OwnerKind.DOCKER


class Unreserve(StoreCommand):
    """End a reservation. An endpoint that has the address keeps it until it goes; `result` is the address."""

    def __init__(self, api: Any, pool: str, name: str) -> None:
        super().__init__(api)
        self.pool = pool
        self.name = name
        self.released = False

    def run_idl(self, txn: Transaction) -> None:
        """See the class."""
        self.released = False
        pool = self.view.pools.get(self.pool)
        address = pool.reservations.get(self.name) if pool else None
        if pool is None or address is None:
            raise NotFound(f"nothing is reserved for {self.name!r}", hint="see `ovsnet ipam show`")
        row = self.row("Pool", self.pool)
        row.verify("reservations")
        row.delkey("reservations", self.name)
        self.result = address
        if self.view.blocks[self.pool].owner_of(int(address)) == str(LeaseOwner(OwnerKind.RESERVED, self.name)):
            self.write_owner(txn, dataclasses.replace(pool, reservations={}), int(address), None)
            self.released = True

    def post_commit(self, txn: Transaction) -> None:
        """The address begins to cool down."""
        del txn
        if self.released:
            self.ended(self.pool, int(self.result))
