"""The replica in model terms: kept current from the IDL's notifications, so that reading and choosing touch no row.

Converting a row costs some ten microseconds; a pool with 100,000 leases has 1,600 of them. So each change is converted once,
when it arrives, and readers share the frozen result. Used by the engine's thread and under its lock only.
"""

from __future__ import annotations

import time
from typing import Any

from ovs.db import idl as ovs_idl

from ..ipam import PoolBlocks
from ..model import Endpoint, Network, Pool
from ..ovsdb import Idl
from . import rows

TABLES = ("Pool", "Block", "Network", "Endpoint")  # in the order of their references


class View:
    """Pools, their blocks, networks and endpoints, with the look-ups that commands and readers need."""

    def __init__(self, cooldown: float) -> None:
        self.pools: dict[str, Pool] = {}
        self.blocks: dict[str, PoolBlocks] = {}  # by the pool's uuid
        self.networks: dict[str, Network] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.by_key: dict[str, Endpoint] = {}
        self.by_network: dict[str, dict[str, Endpoint]] = {}
        self.block_rows: dict[tuple[str, int], Any] = {}  # (pool's uuid, start) -> uuid of the row
        self._block_of: dict[Any, tuple[str, int]] = {}
        self._cooldown = cooldown
        self._cooling: dict[str, dict[int, float]] = {}  # pool -> address -> until, monotonic seconds

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

    def cooling(self, pool: str) -> set[int]:
        """Addresses of a pool that were released less than the cool-down ago."""
        waiting = self._cooling.get(pool)
        if not waiting:
            return set()
        now = time.monotonic()
        for address in [one for one, until in waiting.items() if until <= now]:
            del waiting[address]
        return set(waiting)

    def cool(self, pool: str, address: int) -> None:
        """Note that an address has just been released."""
        if self._cooldown:
            self._cooling.setdefault(pool, {})[address] = time.monotonic() + self._cooldown

    # -- keeping current ----------------------------------------------------------------------------------------------

    def rebuild(self, tables: Any) -> None:
        """Start again from all rows, after a reconnect."""
        for mapping in (self.pools, self.blocks, self.networks, self.endpoints, self.by_key, self.by_network):
            mapping.clear()
        self.block_rows.clear()
        self._block_of.clear()
        for name in TABLES:
            for row in list(tables[name].rows.values()):
                self.put(name, row)

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
            self.blocks[pool_uuid].put(block)
            self.block_rows[pool_uuid, block.start] = row.uuid
            self._block_of[row.uuid] = (pool_uuid, block.start)
        elif table == "Network":
            self.networks[uuid] = rows.network(row)
        elif table == "Endpoint":
            self._drop_endpoint(uuid)
            endpoint = rows.endpoint(row)
            self.endpoints[uuid] = self.by_key[endpoint.key] = endpoint
            self.by_network.setdefault(endpoint.network, {})[uuid] = endpoint

    def drop(self, table: str, row_uuid: Any) -> None:
        """Forget a deleted row, given by its uuid."""
        uuid = str(row_uuid)
        if table == "Pool":
            self.pools.pop(uuid, None)
            self.blocks.pop(uuid, None)
            self._cooling.pop(uuid, None)
        elif table == "Block":
            key = self._block_of.pop(row_uuid, None)
            if key is not None:
                del self.block_rows[key]
                if key[0] in self.blocks:  # the pool may be gone in the same transaction
                    self.blocks[key[0]].drop(key[1])
        elif table == "Network":
            self.networks.pop(uuid, None)
            self.by_network.pop(uuid, None)
        elif table == "Endpoint":
            self._drop_endpoint(uuid)

    def _drop_endpoint(self, uuid: str) -> None:
        old = self.endpoints.pop(uuid, None)
        if old is not None:
            del self.by_key[old.key]
            self.by_network.get(old.network, {}).pop(uuid, None)


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
        if self.state == self.IDL_S_MONITORING and self._viewed != self._session.get_seqno():
            # A new session: rows may have gone without a word.
            self.view.rebuild(self.tables)
            self._viewed = self._session.get_seqno()
        else:
            for table, uuids in self._touched.items():
                rows_now = self.tables[table].rows
                for uuid in uuids:
                    if uuid in rows_now:
                        self.view.put(table, rows_now[uuid])
                    else:
                        self.view.drop(table, uuid)
        for uuids in self._touched.values():
            uuids.clear()
        return changed

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        """Note a changed row. An update names its rows in any order, so they are carried over at the end, pools first."""
        del event, updates
        touched = self._touched.get(row._table.name)
        if touched is not None:
            touched.add(row.uuid)
