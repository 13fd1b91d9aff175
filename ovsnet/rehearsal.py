"""Use cases that check everything and change nothing: what `?dry_run=1` calls.

Each runs the code of the real one on a store that writes nothing, as far as the first thing that is not the store's. What
somebody else changes between the rehearsal and the act may of course make a difference.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from . import alter
from .ipam import PoolBlocks
from .model import (
    Endpoint,
    EndpointChange,
    IPAddress,
    Network,
    NetworkSpec,
    Pool,
    PoolChange,
    PoolSpec,
    PoolUse,
    check_tag,
)

if TYPE_CHECKING:
    from .controller import Controller


class Rehearsal:
    """The use cases of `controller` for one request. What would be made has a uuid that will not be its own."""

    def __init__(self, controller: Controller) -> None:
        self._real = controller
        self._dry = copy.copy(controller)
        self._dry.store = controller.store.rehearsal()
        self._planned: dict[str, PoolUse] = {}

    def pool(self, ref: str) -> PoolUse:
        """A pool as it would be; PoolNotFound."""
        return self._planned.get(ref) or self._real.pool(ref)

    def create_pool(self, spec: PoolSpec) -> Pool:
        """As Controller.create_pool."""
        return self._plan(self._dry.create_pool(spec))

    def change_pool(self, ref: str, change: PoolChange) -> Pool:
        """As Controller.change_pool."""
        pool, _ = self._dry.store.change_pool(self._real.store.pool(ref).uuid, **change.given())
        return self._plan(pool)

    def delete_pool(self, ref: str, *, force: bool = False) -> None:
        """As Controller.delete_pool."""
        self._dry.delete_pool(ref, force=force)

    def reserve(self, ref: str, name: str, address: IPAddress | None = None) -> IPAddress:
        """As Controller.reserve."""
        return self._dry.reserve(ref, name, address)

    def release_reservation(self, ref: str, name: str) -> IPAddress:
        """As Controller.release_reservation."""
        return self._dry.release_reservation(ref, name)

    def release_address(self, ref: str, address: IPAddress) -> None:
        """As Controller.release_address."""
        self._dry.release_address(ref, address)

    def create_network(self, spec: NetworkSpec) -> Network:
        """As Controller.create_network, without the bridge and the gateway."""
        draft, pools = self._real.draft_network(spec)
        choose, foreign = self._real.free_tags(spec, draft.bridge)
        network = self._dry.store.create_network(draft, pools, choose_tag=choose, foreign_tags=foreign)
        for uuid, pool in zip(network.pools, pools, strict=False):
            if isinstance(pool, Pool) and uuid not in self._real.store.view.pools:
                self._plan(replace(pool, uuid=uuid), network.name)
        return network

    def delete_network(self, ref: str) -> None:
        """As Controller.delete_network."""
        network = self._real.store.network(ref)
        self._dry.store.delete_network(network.uuid, self._real.pools_going_with(network))

    def delete_endpoint(self, ref: str) -> None:
        """As Controller.delete_endpoint."""
        self._real.endpoint(ref)

    def change_endpoint(self, ref: str, change: EndpointChange) -> Endpoint:
        """As Controller.change_endpoint."""
        return alter.rehearse_endpoint(self._real, ref, change)

    def change_network(self, ref: str, tag: int) -> Network:
        """As Controller.change_network."""
        return self._dry.store.set_network_tag(self._real.store.network(ref).uuid, check_tag(tag))

    def _plan(self, pool: Pool, *networks: str) -> Pool:
        leased = int(pool.gateway is not None)
        if pool.uuid in self._real.store.view.pools:
            use = self._real.pool(pool.uuid)
            leased, networks = use.leased, use.networks
        self._planned[pool.uuid] = PoolUse(pool, PoolBlocks(pool).capacity, leased, networks)
        return pool
