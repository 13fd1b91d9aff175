"""What becomes of each address of a pool: leased, kept for somebody, on hold, or free. Pure.

Called by edges that show a pool address by address, a part of it at a time: a pool may have 2**96 of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .ipam.pools import dynamic, intervals, usable
from .model import IPAddress, Lease, OwnerKind, Pool


class Use(StrEnum):
    """What an address is for at this moment."""

    FREE = "free"  # allocation may give it to anybody
    ASKED = "on request"  # given only when asked for by address
    LEASED = "leased"
    GATEWAY = "gateway"
    RESERVED = "reserved"  # kept for a name
    COOLING = "cooling down"  # released a moment ago: given only if there is no other
    EXCLUDED = "excluded"  # never given


@dataclass(frozen=True, slots=True)
class Place:
    """An address, its use, its lease if it has one, and the name that it is kept for, or ""."""

    address: IPAddress
    use: Use
    lease: Lease | None = None
    kept_for: str = ""


def places(pool: Pool, leases: Iterable[Lease], cooling: Container[int], first: int, count: int) -> list[Place]:
    """The `count` addresses of the pool's subnet from its `first` one on (0 is the network's own), fewer at its end."""
    begin = int(pool.subnet.network_address) + first
    held = {one.address: one for one in leases}
    names = {address: name for name, address in pool.reservations.items()}
    given, carried, excluded = dynamic(pool), usable(pool.subnet), intervals(pool.exclusions)
    found = []
    for number in range(begin, min(begin + count, int(pool.subnet.broadcast_address) + 1)):
        address = pool.subnet.network_address + (number - int(pool.subnet.network_address))
        lease, name = held.get(address), names.get(address, "")
        if lease is not None:
            use = _LEASED.get(lease.owner.kind, Use.LEASED)
        elif name:
            use = Use.RESERVED
        elif address == pool.gateway:
            use = Use.GATEWAY
        elif number not in carried or number in excluded:
            use = Use.EXCLUDED
        elif number in cooling:
            use = Use.COOLING
        else:
            use = Use.FREE if number in given else Use.ASKED
        found.append(Place(address, use, lease, name))
    return found


def crowds(pool: Pool, leases: Iterable[Lease], size: int) -> Mapping[int, int]:
    """In which parts of `size` addresses there are leases, and how many: by the part's number, in order."""
    base = int(pool.subnet.network_address)
    return dict(sorted(Counter((int(one.address) - base) // size for one in leases).items()))


_LEASED = {OwnerKind.GATEWAY: Use.GATEWAY, OwnerKind.RESERVED: Use.RESERVED}
