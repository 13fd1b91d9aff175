"""The replica in model terms: kept current from the IDL's notifications, so that reading and choosing touch no row.

Converting a row costs some ten microseconds; a pool with 100,000 leases has 1,600 of them. So each change is converted once,
when it arrives, and readers share the frozen result. Used by the engine's thread and under its lock only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from ovs.db import idl as ovs_idl

from ..ipam import PoolBlocks
from ..model import Endpoint, LeaseOwner, LeaseState, Network, OwnerKind, Pool
from ..ovsdb import Idl
from . import rows

TABLES = ("Pool", "Block", "Network", "Endpoint")  # in the order of their references


_ENDPOINT = str(LeaseOwner(OwnerKind.ENDPOINT, ""))
_NONE_HELD: Mapping[int, str] = {}


class Observer(Protocol):
    """Who is told of leases, by the engine's thread and under its lock: it must return at once, and never raise."""

    def leases_stand(self, states: Iterable[LeaseState]) -> None:
        """All leases there are, at the beginning and after a reconnect. May be iterated later, by any thread."""

    def leases_changed(self, states: Sequence[LeaseState]) -> None:
        """Addresses that have another owner than before, with their owners' endpoints."""

    def lease_released(self, pool: Pool, address: int, by: str) -> None:
        """Who ended the latest lease of an address, told after its end."""


class View:
    """Pools, their blocks, networks and endpoints, with the look-ups that commands and readers need."""

    def __init__(self, cooldown: float) -> None:
        self.pools: dict[str, Pool] = {}
        self.blocks: dict[str, PoolBlocks] = {}  # by the pool's uuid
        self.networks: dict[str, Network] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.endpoints_turn = 0  # another one whenever an endpoint comes, changes or goes
        self.by_key: dict[str, Endpoint] = {}
        self.by_network: dict[str, dict[str, Endpoint]] = {}
        self.block_rows: dict[tuple[str, int], Any] = {}  # (pool's uuid, start) -> uuid of the row
        self._block_of: dict[Any, tuple[str, int]] = {}
        self._cooldown = cooldown
        self._cooling: dict[str, dict[int, float]] = {}  # pool -> address -> until, monotonic seconds
        self._avoided: dict[str, dict[int, float]] = {}  # the same, of addresses that somebody unknown answers for
        self._held: dict[str, dict[int, str]] = {}  # pool -> address -> owner: given to Docker, and not yet written
        self._complete = False  # built from all rows; until then the observer is not told of single ones
        self._observer: Observer | None = None
        self._retagged: Callable[[], None] | None = None
        self._before: dict[tuple[str, int], tuple[Pool, str | None]] = {}  # pool and address -> owner until this update

    # -- look-ups -----------------------------------------------------------------------------------------------------

    def pool(self, ref: str) -> Pool | None:
        """The pool of that uuid or name."""
        return self.pools.get(ref) or next((one for one in self.pools.values() if one.name == ref), None)

    def network(self, ref: str) -> Network | None:
        """The network of that uuid or name, or that Docker's id begins with (12 digits or more)."""
        if ref in self.networks:
            return self.networks[ref]
        by_name = next((one for one in self.networks.values() if one.name == ref), None)
        if by_name is None and len(ref) >= 12:
            return next((one for one in self.networks.values() if any(i.startswith(ref) for i in one.docker_ids)), None)
        return by_name

    def docker_network(self, docker_id: str) -> Network | None:
        """The network that Docker knows under that id."""
        return next((one for one in self.networks.values() if docker_id in one.docker_ids), None)

    def networks_of(self, pool: str) -> list[Network]:
        """The networks that take addresses from a pool, given by uuid."""
        return [one for one in self.networks.values() if pool in one.pools]

    def cooling(self, pool: str) -> Mapping[int, float]:
        """Addresses of a pool that were released less than the cool-down ago, and until when (monotonic seconds)."""
        waiting = self._cooling.get(pool, {})
        now = time.monotonic()
        while waiting and waiting[oldest := next(iter(waiting))] <= now:
            del waiting[oldest]
        avoided = self._avoided.get(pool)
        return {**waiting, **{one: until for one, until in avoided.items() if until > now}} if avoided else waiting

    def cool(self, pool: str, address: int) -> None:
        """Note that an address has just been released."""
        if self._cooldown:
            waiting = self._cooling.setdefault(pool, {})
            waiting.pop(address, None)  # the dictionary stays in the order of time
            waiting[address] = time.monotonic() + self._cooldown

    def avoid(self, pool: str, address: int, seconds: float) -> None:
        """Note that somebody unknown has an address: for `seconds` it is given only if there is no other."""
        self._avoided.setdefault(pool, {})[address] = time.monotonic() + seconds

    def held(self, pool: str) -> Mapping[int, str]:
        """Addresses of a pool that Docker was given and that are in no row yet, with their owners."""
        return self._held.get(pool) or _NONE_HELD

    def hold(self, pool: str, address: int, owner: str) -> None:
        """Note that an address has been given."""
        self._held.setdefault(pool, {})[address] = owner

    def let_go(self, pool: str, address: int) -> None:
        """Note that an address is in a row now, or nobody's."""
        held = self._held.get(pool, {})
        held.pop(address, None)
        if not held:
            self._held.pop(pool, None)

    def watch_tags(self, told: Callable[[], None]) -> None:
        """Call `told` whenever a network has got another VLAN tag."""
        self._retagged = told

    # -- telling of leases --------------------------------------------------------------------------------------------

    def watch(self, observer: Observer) -> None:
        """Tell `observer` what stands, as soon as that is known, and of every change from now on."""
        self._observer = observer
        self._before.clear()
        if self._complete:
            observer.leases_stand(self._standing())

    def report(self) -> None:
        """Tell of the leases that changed; once all rows of an update are carried over, for an endpoint comes after its lease."""
        if self._observer is None or not self._before:
            return
        states = []
        for (uuid, address), (pool, before) in self._before.items():
            blocks = self.blocks.get(uuid)
            block = blocks.blocks.get(blocks.block_start(address)) if blocks else None
            owner = block.leases.get(address) if block else None
            if owner == before:
                continue  # the block was made again
            if block is None or owner is None:
                states.append(LeaseState(pool, address, None))
            else:
                states.append(_state(pool, address, owner, block.node, self.by_key, self.networks_of))
        self._before.clear()
        if states:
            self._observer.leases_changed(states)

    def released_by(self, pool_uuid: str, address: int, by: str) -> None:
        """Note who ended a lease, after the commit."""
        pool = self.pools.get(pool_uuid)
        if self._observer is not None and pool is not None:
            self._observer.lease_released(pool, address, by)

    def _standing(self) -> Iterator[LeaseState]:
        """All leases as they are now. Only the picture is copied here, from frozen parts; the work is the iterator's."""
        pools = [(one.pool, list(one.blocks.values())) for one in self.blocks.values()]
        by_key = dict(self.by_key)
        networks = {uuid: self.networks_of(uuid) for uuid in self.pools}
        return (
            _state(pool, address, owner, block.node, by_key, networks.__getitem__)
            for pool, blocks in pools
            for block in blocks
            for address, owner in block.leases.items()
        )

    def _changes(self, blocks: PoolBlocks, start: int, leases: Mapping[int, str]) -> None:
        """Remember who had the addresses of a block that is about to have `leases`."""
        if self._observer is not None and self._complete:
            old = blocks.blocks.get(start)
            had = old.leases if old else {}
            for address, _ in had.items() ^ leases.items():
                self._before.setdefault((blocks.pool.uuid, address), (blocks.pool, had.get(address)))

    # -- keeping current ----------------------------------------------------------------------------------------------

    def rebuild(self, tables: Any) -> None:
        """Start again from all rows, after a reconnect."""
        self._complete = False
        self._before.clear()
        for mapping in (self.pools, self.blocks, self.networks, self.endpoints, self.by_key, self.by_network):
            mapping.clear()
        self.endpoints_turn += 1
        self.block_rows.clear()
        self._block_of.clear()
        for name in TABLES:
            for row in list(tables[name].rows.values()):
                self.put(name, row)
        self._complete = True
        if self._observer is not None:
            self._observer.leases_stand(self._standing())
        if self._retagged is not None:  # one may have been, while nobody told
            self._retagged()

    def put(self, table: str, row: Any) -> None:
        """Take over a created or changed row."""
        uuid = str(row.uuid)
        if table == "Pool":
            pool = rows.pool(row)
            self.pools[uuid] = pool
            old = self.blocks.get(uuid)
            if old is None or old.pool != pool:
                self.blocks[uuid] = PoolBlocks(pool, old.blocks if old else None)
        elif table == "Block":
            pool_uuid = str(row.pool.uuid)
            block = rows.block(row)
            self._changes(self.blocks[pool_uuid], block.start, block.leases)
            self.blocks[pool_uuid].put(block)
            self.block_rows[pool_uuid, block.start] = row.uuid
            self._block_of[row.uuid] = (pool_uuid, block.start)
        elif table == "Network":
            network, before = rows.network(row), self.networks.get(uuid)
            self.networks[uuid] = network
            if before is not None and before.tag != network.tag and self._retagged is not None:
                self._retagged()
        elif table == "Endpoint":
            self._drop_endpoint(uuid)
            self.endpoints_turn += 1
            endpoint = rows.endpoint(row)
            self.endpoints[uuid] = self.by_key[endpoint.key] = endpoint
            self.by_network.setdefault(endpoint.network, {})[uuid] = endpoint

    def drop(self, table: str, row_uuid: Any) -> None:
        """Forget a deleted row, given by its uuid."""
        uuid = str(row_uuid)
        if table == "Pool":
            self.pools.pop(uuid, None)
            gone = self.blocks.pop(uuid, None)
            if gone is not None:
                for start in gone.blocks:
                    self._changes(gone, start, {})
            self._cooling.pop(uuid, None)
            self._avoided.pop(uuid, None)
        elif table == "Block":
            key = self._block_of.pop(row_uuid, None)
            if key is not None:
                del self.block_rows[key]
                if key[0] in self.blocks:  # the pool may be gone in the same transaction
                    self._changes(self.blocks[key[0]], key[1], {})
                    self.blocks[key[0]].drop(key[1])
        elif table == "Network":
            self.networks.pop(uuid, None)
            self.by_network.pop(uuid, None)
        elif table == "Endpoint":
            self._drop_endpoint(uuid)

    def _drop_endpoint(self, uuid: str) -> None:
        old = self.endpoints.pop(uuid, None)
        if old is not None:
            self.endpoints_turn += 1
            del self.by_key[old.key]
            self.by_network.get(old.network, {}).pop(uuid, None)


def _state(
    pool: Pool,
    address: int,
    owner: str,
    node: str,
    by_key: Mapping[str, Endpoint],
    networks_of: Callable[[str], list[Network]],
) -> LeaseState:
    if owner.startswith(_ENDPOINT):
        endpoint = by_key.get(owner[len(_ENDPOINT) :])
        if endpoint is not None:
            return LeaseState(pool, address, owner, endpoint.node, endpoint, endpoint.network_name)
    networks = networks_of(pool.uuid)
    return LeaseState(pool, address, owner, node, None, networks[0].name if len(networks) == 1 else "")


class StoreIdl(Idl):
    """The IDL that keeps a View."""

    def __init__(self, remote: str, helper: ovs_idl.SchemaHelper, view: View, **kwargs: Any) -> None:
        super().__init__(remote, helper, **kwargs)
        self.view = view
        self._viewed: int | None = None  # the session's number that the view was built in
        self._touched: dict[str, set[Any]] = {table: set() for table in TABLES}

    def run(self) -> bool:
        """As the parent's; afterwards the view is what the tables are."""
        changed = bool(super().run())
        connected = self._session.is_connected()
        if self.state == self.IDL_S_MONITORING and connected and self._viewed != self._session.get_seqno():
            # A new session: rows may have gone without a word. While it is being connected its number counts already, but
            # the state and the rows are still the last one's.
            self.view.rebuild(self.tables)
            self._viewed = self._session.get_seqno()
        else:
            # What has gone comes first: a new row may have its key, when a block or an endpoint was made again.
            for table, uuids in self._touched.items():
                for uuid in uuids - self.tables[table].rows.keys():
                    self.view.drop(table, uuid)
            for table, uuids in self._touched.items():
                for uuid in uuids & self.tables[table].rows.keys():
                    self.view.put(table, self.tables[table].rows[uuid])
            self.view.report()
        for uuids in self._touched.values():
            uuids.clear()
        return changed

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        """Note a changed row. An update names its rows in any order, so they are carried over at the end, pools first."""
        del event, updates
        touched = self._touched.get(row._table.name)
        if touched is not None:
            touched.add(row.uuid)
