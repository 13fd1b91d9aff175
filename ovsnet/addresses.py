"""Addresses for other people's interfaces: the use cases of the IPAM plugin `ovsnet-ipam`.

A lease belongs to `node/configuration/container/ifname`; no endpoint and no port is behind it. Calls the store; called by the
edge that speaks CNI.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack

from .config import Settings
from .crashpoints import Point, reach
from .errors import AlreadyExists, AttachmentBroken, EndpointNotFound, InvalidRequest, PoolExhausted, PoolNotFound
from .locks import KeyedLocks
from .model import IPAddress, IpamRequest, LeaseOwner, OwnerKind, Pool, PoolSpec
from .store import Store

Given = tuple[tuple[Pool, IPAddress], ...]


class Addresses:
    """Gives and takes addresses that belong to no endpoint. Thread-safe; raises OvsnetError only."""

    def __init__(self, settings: Settings, store: Store, create_pool: Callable[[PoolSpec, str], Pool]) -> None:
        self._settings = settings
        self._store = store
        self._create_pool = create_pool
        self._locks = KeyedLocks()

    def give(self, request: IpamRequest) -> Given:
        """One address of each pool, IPv4 first; the same again for the same key. All or none.

        PoolNotFound, PoolOverlap, AlreadyExists, PoolExhausted, AddressInUse, AddressNotInPool, InvalidRequest.
        """
        owner = self._owner(request.key)
        with self._locks.hold(str(owner), self._settings.deadline), ExitStack() as undo:
            pools = self._pools(request)
            wanted = {one.version: one for one in request.addresses}
            if missing := set(wanted) - {pool.subnet.version for pool in pools}:
                raise InvalidRequest(
                    f"there is no pool for {wanted[missing.pop()]}", hint="leave the address out, or give its subnet"
                )
            given = []
            for pool in pools:
                had = self._store.leases_of(owner).get(pool.uuid)
                address = wanted.get(pool.subnet.version)
                if had is not None and address not in (None, had):
                    raise AlreadyExists(f"{request.key} has address {had} already", hint="release it first")
                given.append((pool, self._store.allocate(pool, owner, address, names=request.reserved_for)))
                reach(Point.ADDRESS_GIVEN)
                if had is None:
                    undo.callback(self._release, pool, given[-1][1], owner)
            undo.pop_all()
        return tuple(given)

    def take(self, key: str) -> None:
        """End the leases of a key; none is success."""
        owner = self._owner(key)
        with self._locks.hold(str(owner), self._settings.deadline):
            for uuid, address in self._store.leases_of(owner).items():
                self._release(self._store.pool(uuid), address, owner)
                reach(Point.ADDRESS_TAKEN)

    def check(self, key: str, expected: Collection[IPAddress]) -> None:
        """AttachmentBroken names the first address of ours that is missing from `expected`; EndpointNotFound if there is none."""
        held = set(self._store.leases_of(self._owner(key)).values())
        if not held:
            raise EndpointNotFound(
                f"{key} has no address of ovsnet's", hint="have the runtime attach the container again"
            )
        for address in held.difference(expected) if expected else ():
            raise AttachmentBroken(
                f"{key} has the lease of {address}, which the result does not name",
                hint="have the runtime attach the container again",
            )

    def collect_garbage(self, config: str, valid: Collection[tuple[str, str]]) -> None:
        """End this node's leases of a configuration, but for `valid` (container and interface)."""
        keep = {self._owner(f"{config}/{container}/{ifname}") for container, ifname in valid}
        prefix = f"{self._owner(config)}/"
        for owner in self._store.owners(OwnerKind.IPAM):
            if str(owner).startswith(prefix) and owner not in keep:
                self.take(owner.id.partition("/")[2])

    def drop_all(self) -> int:
        """End all leases of this node, of which there were so many."""
        prefix = f"{self._owner('')}"
        dead = [owner for owner in self._store.owners(OwnerKind.IPAM) if str(owner).startswith(prefix)]
        for owner in dead:
            self.take(owner.id.partition("/")[2])
        return len(dead)

    def check_room(self, request: IpamRequest) -> None:
        """PoolExhausted if a pool that exists has no address left."""
        for ref in (*request.pools, *(spec.name or request.name for spec in request.subnets)):
            try:
                pool = self._store.pool(ref)
            except PoolNotFound:
                continue
            if self._store.full(pool):
                raise PoolExhausted(f"pool {pool.name} ({pool.subnet}) has no free address", hint="grow the pool")

    def _owner(self, key: str) -> LeaseOwner:
        return LeaseOwner(OwnerKind.IPAM, f"{self._settings.node}/{key}")

    def _pools(self, request: IpamRequest) -> list[Pool]:
        """The pools of a request, IPv4 first; a subnet that is no pool yet becomes one."""
        if not request.pools and not request.subnets:
            raise InvalidRequest("ipam names neither a pool nor a subnet", hint='add "subnet": "..." or "pool": "..."')
        by_subnet = {(one.pool.space, one.pool.subnet): one.pool for one in self._store.pools()}
        found = [self._store.pool(ref) for ref in request.pools]
        for spec in request.subnets:
            name = request.name if spec.subnet.version == 4 else f"{request.name}-v6"
            found.append(by_subnet.get((spec.space, spec.subnet)) or self._create_pool(spec, name))
        if len({pool.subnet.version for pool in found}) < len(found):
            raise InvalidRequest("ipam has two pools of one family", hint="give one IPv4 and one IPv6 pool at most")
        return sorted(found, key=lambda pool: pool.subnet.version)

    def _release(self, pool: Pool, address: IPAddress, owner: LeaseOwner) -> None:
        self._store.release(pool, address, {OwnerKind.IPAM}, owner=owner, by="cni")
