"""What a subnet pool may look like, and which of its addresses can be given.

The first address of an IPv4 subnet (network) and its last (broadcast, RFC 919) are never given, except in /31 (RFC 3021) and
/32; of an IPv6 subnet the first (Subnet-Router anycast, RFC 4291 section 2.6.1), except in /127 (RFC 6164) and /128.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import AddressNotInPool, InvalidRequest
from ..model import AddressRange, IPAddress, IPNetwork, Pool, PoolSpec
from .intervals import Intervals

MIN_PREFIX = {4: 8, 6: 32}


def usable(subnet: IPNetwork) -> Intervals:
    """Every address of `subnet` that a host may carry."""
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    if subnet.num_addresses > 2:
        first += 1
        last -= subnet.version == 4
    return Intervals([(first, last)])


def intervals(ranges: Iterable[AddressRange]) -> Intervals:
    """Address ranges as a set of integers."""
    return Intervals((int(one.first), int(one.last)) for one in ranges)


def dynamic(pool: Pool) -> Intervals:
    """The addresses that allocation may choose by itself in an empty pool; the gateway is not among them."""
    chosen = usable(pool.subnet)
    if pool.ranges:
        chosen = chosen & intervals(pool.ranges)
    gateway = [] if pool.gateway is None else [AddressRange(pool.gateway, pool.gateway)]
    return chosen - intervals([*pool.exclusions, *pool.static_ranges, *gateway])


def default_gateway(subnet: IPNetwork) -> IPAddress | None:
    """The first usable address, or None in a subnet of one address."""
    if subnet.num_addresses == 1:
        return None
    first = next(iter(usable(subnet)))[0]
    return subnet.network_address + (first - int(subnet.network_address))


def check_spec(spec: PoolSpec) -> PoolSpec:
    """`spec` if a pool can be made of it, else InvalidRequest that names what is wrong."""
    subnet = spec.subnet
    least = MIN_PREFIX[subnet.version]
    if subnet.prefixlen < least:
        raise InvalidRequest(f"subnet {subnet} is larger than a /{least}", hint=f"use a prefix of /{least} or longer")
    if subnet.is_multicast or subnet.is_loopback or (subnet.version == 4 and subnet.is_link_local):
        raise InvalidRequest(
            f"subnet {subnet} is multicast, loopback or link-local", hint="use a unicast prefix, such as 10.20.0.0/24"
        )
    for name, ranges in (("range", spec.ranges), ("exclusion", spec.exclusions), ("static range", spec.static_ranges)):
        for one in ranges:
            if not one.within(subnet):
                raise InvalidRequest(f"{name} {one} lies outside subnet {subnet}", hint="choose it within the subnet")
    if spec.gateway is not None:
        if spec.no_gateway:
            raise InvalidRequest("a gateway is given and refused at once", hint="leave one of the two out")
        if spec.gateway not in subnet or int(spec.gateway) not in usable(subnet):
            raise AddressNotInPool(
                f"gateway {spec.gateway} is not a host address of {subnet}", hint="choose one within the subnet"
            )
    return spec


def check_assignable(pool: Pool, address: IPAddress) -> IPAddress:
    """`address` if an endpoint of this pool may carry it when it asks for it, else AddressNotInPool.

    Allocation ranges do not bind an address asked for by name (as with Docker's --ip and --ip-range); exclusions do.
    """
    if address not in pool.subnet:
        raise AddressNotInPool(
            f"{address} is not in pool {pool.name} ({pool.subnet})", hint="ask for one of the subnet"
        )
    if int(address) not in usable(pool.subnet):
        raise AddressNotInPool(
            f"{address} is the network or broadcast address of {pool.subnet}", hint="ask for another"
        )
    if any(address in one for one in pool.exclusions):
        raise AddressNotInPool(f"{address} is excluded in pool {pool.name}", hint="ask for another")
    return address
