"""Carving default pools: aligned, in order, never over something that is taken."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsnet.errors import InvalidRequest
from ovsnet.ipam import Supernet, carve


@pytest.mark.parametrize(
    ("base", "size", "taken", "first"),
    [
        ("10.0.0.0/8", 24, [], ["10.0.0.0/24", "10.0.1.0/24"]),
        ("10.0.0.0/8", 24, ["10.0.0.0/24"], ["10.0.1.0/24"]),
        ("10.0.0.0/8", 24, ["10.0.0.7/32"], ["10.0.1.0/24"]),
        ("10.0.0.0/8", 24, ["10.0.0.0/9"], ["10.128.0.0/24"]),
        ("10.0.0.0/8", 24, ["10.0.0.0/25", "10.0.2.0/23"], ["10.0.1.0/24", "10.0.4.0/24"]),
        ("10.0.0.0/24", 24, ["10.0.0.0/8"], []),
        ("10.0.0.0/8", 24, ["fd00::/8"], ["10.0.0.0/24"]),
        ("fd00::/32", 64, [], ["fd00::/64", "fd00:0:0:1::/64"]),
    ],
)
def test_carves_what_is_free(base: str, size: int, taken: list[str], first: list[str]) -> None:
    net = ip_network(base)
    found = islice(carve([Supernet(net, size)], net.version, map(ip_network, taken)), max(1, len(first)))
    assert [str(one) for one in found] == first


def test_goes_on_with_the_next_supernet() -> None:
    supernets = [Supernet(ip_network("10.0.0.0/23"), 24), Supernet(ip_network("172.16.0.0/24"), 24)]
    assert [str(one) for one in carve(supernets, 4, [])] == ["10.0.0.0/24", "10.0.1.0/24", "172.16.0.0/24"]


@pytest.mark.parametrize(
    ("base", "size"), [("10.0.0.0/24", 23), ("10.0.0.0/24", 31), ("fd00::/64", 127), ("fd00::/16", 20)]
)
def test_refuses_what_cannot_be_carved(base: str, size: int) -> None:
    with pytest.raises(InvalidRequest, match="cannot be carved"):
        Supernet(ip_network(base), size)


@given(st.lists(st.tuples(st.integers(0, 2**16 - 1), st.integers(18, 32)), max_size=12))
def test_is_exactly_the_free_pieces(wishes: list[tuple[int, int]]) -> None:
    base = IPv4Network("10.5.0.0/16")
    taken = [IPv4Network((int(base[0]) + offset, prefix), strict=False) for offset, prefix in wishes]
    expected = [one for one in base.subnets(new_prefix=22) if not any(one.overlaps(other) for other in taken)]
    assert list(carve([Supernet(base, 22)], 4, taken)) == expected
