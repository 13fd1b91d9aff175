"""Blocks of a pool: which address is given next, and from which block.

A pool is cut in blocks of 64 addresses; a node claims blocks and gives addresses from its own, so that nodes seldom write the
same row. Order of choice: the next free address after the last one given, in the node's own blocks; then a block nobody has;
then a free address of somebody else's block. Cooling addresses (released a moment ago) come last of all.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from sortedcontainers import SortedSet

from ..model import Pool
from .pools import dynamic

BLOCK_BITS = 6  # 64 addresses: a /26 for IPv4, a /122 for IPv6

_NOTHING: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Block:
    """A claimed block: `start` is its first address as an integer, `leases` maps addresses (integers) to owners.

    `cursor` is the address given last in it, `turn` counts the node's allocations, so that of a node's blocks the one with the
    greatest `turn` holds the address given last of all.
    """

    start: int
    node: str
    leases: Mapping[int, str] = field(default_factory=dict)
    cursor: int = 0
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """An address to give: `block` is the start of its block, `claim` says that nobody has that block yet."""

    address: int
    block: int
    claim: bool


class PoolBlocks:
    """The picture of one pool's blocks, with what is needed to choose in about constant time."""

    def __init__(self, pool: Pool, blocks: Mapping[int, Block] | None = None) -> None:
        self.pool = pool
        self.blocks: dict[int, Block] = {}
        self.leased = 0
        self._dynamic = dynamic(pool)
        self._first = int(pool.subnet.network_address)
        self._last = int(pool.subnet.broadcast_address)
        self._size = min(1 << BLOCK_BITS, self._last - self._first + 1)
        self._owner: dict[str, int] = {}
        self._own: dict[str, SortedSet] = {}  # node -> starts of its blocks
        self._free = SortedSet()  # starts of claimed blocks with a free dynamic address
        self._own_free: dict[str, SortedSet] = {}  # the same by node
        self._latest: dict[str, Block] = {}  # node -> its block with the greatest turn
        for block in (blocks or {}).values():
            self.put(block)

    # -- keeping the picture ------------------------------------------------------------------------------------------

    def put(self, block: Block) -> None:
        """Add or replace a block."""
        old = self.blocks.get(block.start)
        if old is not None:
            self._remove(old)
        self.blocks[block.start] = block
        self.leased += len(block.leases)
        for address, owner in block.leases.items():
            self._owner[owner] = address
        self._own.setdefault(block.node, SortedSet()).add(block.start)
        if any(address not in block.leases for address in self._addresses(block.start)):
            self._free.add(block.start)
            self._own_free.setdefault(block.node, SortedSet()).add(block.start)
        latest = self._latest.get(block.node)
        if latest is None or block.turn >= latest.turn:
            self._latest[block.node] = block
        if old is not None and old is self._latest.get(old.node):
            self._find_latest(old.node)

    def drop(self, start: int) -> None:
        """Forget a block; unknown ones are ignored."""
        block = self.blocks.get(start)
        if block is None:
            return
        self._remove(block)
        if block is self._latest.get(block.node):
            self._find_latest(block.node)

    def _remove(self, block: Block) -> None:
        """Forget all of a block but that it may be its node's latest."""
        start = block.start
        del self.blocks[start]
        self.leased -= len(block.leases)
        for address, owner in block.leases.items():
            if self._owner.get(owner) == address:
                del self._owner[owner]
        self._own[block.node].discard(start)
        self._free.discard(start)
        self._own_free.get(block.node, SortedSet()).discard(start)

    def _find_latest(self, node: str) -> None:
        """Look through all blocks of a node; seldom, for the block with its latest allocation is hardly ever dropped."""
        mine = [self.blocks[one] for one in self._own[node]]
        if mine:
            self._latest[node] = max(mine, key=lambda one: one.turn)
        else:
            del self._latest[node]

    # -- asking -------------------------------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """How many addresses dynamic allocation could give in the empty pool."""
        return self._dynamic.size()

    def gives(self, address: int) -> bool:
        """Whether dynamic allocation could give `address` in the empty pool."""
        return address in self._dynamic

    def block_start(self, address: int) -> int:
        """The start of the block in which `address` lies."""
        return address - (address - self._first) % self._size

    def block_size(self) -> int:
        """Addresses in a block; smaller than 64 only where the whole pool is."""
        return self._size

    def owner_of(self, address: int) -> str | None:
        """Who holds `address`, or None."""
        block = self.blocks.get(self.block_start(address))
        return None if block is None else block.leases.get(address)

    def address_of(self, owner: str) -> int | None:
        """The address that `owner` holds in this pool, or None."""
        return self._owner.get(owner)

    def turn(self, node: str) -> int:
        """How many allocations `node` has counted in this pool."""
        latest = self._latest.get(node)
        return 0 if latest is None else latest.turn

    def keep_when_empty(self, block: Block) -> bool:
        """Whether an empty block stays claimed: the one with its node's latest allocation, for it remembers what was given."""
        latest = self._latest.get(block.node)
        return latest is not None and latest.start == block.start

    def choose(
        self,
        node: str,
        *,
        taken: Container[int] = _NOTHING,
        claimed: Container[int] = _NOTHING,
        cooling: Container[int] = _NOTHING,
        rather: int | None = None,
    ) -> Choice | None:
        """The next address for `node`, or None when the pool is exhausted.

        `taken` are addresses, `claimed` block starts that the transaction being built has used already (their `Choice` says
        `claim=False` then); `cooling` addresses are given only when there is no other. `rather` is the one to give if it is free
        and not in a block of somebody else's.
        """
        if rather is not None and self.could_be(rather, node, taken=taken, claimed=claimed, cooling=cooling):
            start = self.block_start(rather)
            return Choice(rather, start, claim=start not in self.blocks and start not in claimed)
        for avoid in (cooling, _NOTHING) if cooling else (_NOTHING,):
            for start, claim in self._candidates(node, claimed):
                address = self._pick(start, node, taken, avoid)
                if address is not None:
                    return Choice(address, start, claim)
        return None

    def could_be(
        self,
        address: int,
        node: str,
        *,
        taken: Container[int] = _NOTHING,
        claimed: Container[int] = _NOTHING,
        cooling: Container[int] = _NOTHING,
    ) -> bool:
        """Whether `node` may be given that address, from a block of its own or of nobody's; see `choose`."""
        if address not in self._dynamic or address in taken or address in cooling:
            return False
        start = self.block_start(address)
        block = self.blocks.get(start)
        return block is None or start in claimed or (block.node == node and address not in block.leases)

    def _candidates(self, node: str, claimed: Container[int]) -> Iterator[tuple[int, bool]]:
        """Block starts in the order of choice, with whether the block must be claimed."""
        own = self._own_free.get(node, SortedSet())
        latest = self._latest.get(node)
        begin = latest.start if latest is not None else self._first
        for start in chain(own.irange(begin, None), own.irange(None, begin, inclusive=(True, False))):
            yield start, False
        for start in self._starts():
            if start not in self.blocks:
                yield start, start not in claimed
        for start in self._free:
            if start not in own:
                yield start, False

    def _starts(self) -> Iterator[int]:
        """Starts of all blocks that hold a dynamic address, in order."""
        seen = -1
        for first, last in self._dynamic:
            start = self.block_start(first)
            if start == seen:
                start += self._size
            while start <= last:
                yield start
                seen = start
                start += self._size

    def _addresses(self, start: int) -> Iterator[int]:
        """The dynamic addresses of a block, in order."""
        for first, last in self._dynamic.within(start, start + self._size - 1):
            yield from range(first, last + 1)

    def _pick(self, start: int, node: str, taken: Container[int], avoid: Container[int]) -> int | None:
        block = self.blocks.get(start)
        leases: Mapping[int, str] = {} if block is None else block.leases
        latest = self._latest.get(node)
        cursor = block.cursor if block is not None and latest is not None and latest.start == start else 0
        before: int | None = None
        for address in self._addresses(start):
            if address in leases or address in taken or address in avoid:
                continue
            if address > cursor:
                return address
            if before is None:
                before = address
        return before
