"""Subnets carved from supernets, for whoever asks for a pool and names none (as Docker's `default-address-pools` does)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import InvalidRequest
from ..model import IPNetwork
from .intervals import Intervals
from .pools import MIN_PREFIX


@dataclass(frozen=True, slots=True)
class Supernet:
    """A prefix to carve from, and the prefix length of each piece."""

    base: IPNetwork
    size: int

    def __post_init__(self) -> None:
        longest = self.base.max_prefixlen - 2
        least = max(self.base.prefixlen, MIN_PREFIX[self.base.version])
        if not least <= self.size <= longest:
            raise InvalidRequest(
                f"pieces of /{self.size} cannot be carved from {self.base}",
                hint=f"use a size from {least} to {longest}",
            )


def carve(supernets: Iterable[Supernet], version: int, taken: Iterable[IPNetwork]) -> Iterator[IPNetwork]:
    """The subnets of one address family that overlap nothing of `taken`, in order; lazily, for there may be millions."""
    occupied = Intervals(
        (int(one.network_address), int(one.broadcast_address)) for one in taken if one.version == version
    )
    for supernet in supernets:
        base = supernet.base
        if base.version != version:
            continue
        step = 1 << (base.max_prefixlen - supernet.size)
        free = Intervals([(int(base.network_address), int(base.broadcast_address))]) - occupied
        for first, last in free:
            start = -(-first // step) * step  # the next multiple of the piece's size
            while start + step - 1 <= last:
                yield ipaddress.ip_network((start, supernet.size))
                start += step
