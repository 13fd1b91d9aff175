"""The vocabulary: ranges, owners, and the checks of numbers."""

from __future__ import annotations

import ipaddress

import pytest

from ovsnet.errors import InvalidRequest
from ovsnet.model import AddressRange, LeaseOwner, Origin, OwnerKind, Pool, check_mtu, check_tag, endpoint_key


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("10.0.0.5", "10.0.0.5", "10.0.0.5"),
        ("10.0.0.5-10.0.0.9", "10.0.0.5", "10.0.0.9"),
        (" 10.0.0.5 - 10.0.0.9 ", "10.0.0.5", "10.0.0.9"),
        ("10.0.0.8/29", "10.0.0.8", "10.0.0.15"),
        ("10.0.0.8/32", "10.0.0.8", "10.0.0.8"),
        ("fd00::1-fd00::ff", "fd00::1", "fd00::ff"),
        ("fd00::/64", "fd00::", "fd00::ffff:ffff:ffff:ffff"),
    ],
)
def test_a_range_is_read(text: str, first: str, last: str) -> None:
    found = AddressRange.parse(text)
    assert (str(found.first), str(found.last)) == (first, last)
    assert AddressRange.parse(str(found)) == found


@pytest.mark.parametrize(
    "text", ["", "x", "10.0.0.9-10.0.0.5", "10.0.0.5-fd00::1", "10.0.0.5-", "-10.0.0.5", "10.0.0.9/29", "10.0.0.1-2-3"]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        AddressRange.parse(text)
    assert caught.value.hint


def test_a_range_contains_its_ends_and_no_other_family() -> None:
    found = AddressRange.parse("0.0.0.5-0.0.0.9")
    inside = {value for value in range(16) if ipaddress.IPv4Address(value) in found}
    assert inside == {5, 6, 7, 8, 9}
    assert ipaddress.IPv6Address(6) not in found
    assert "0.0.0.6" not in found
    assert found.within(ipaddress.ip_network("0.0.0.0/28"))
    assert not found.within(ipaddress.ip_network("0.0.0.0/29"))
    assert not found.within(ipaddress.ip_network("::/0"))


@pytest.mark.parametrize("kind", OwnerKind)
def test_an_owner_is_read_as_it_was_written(kind: OwnerKind) -> None:
    owner = LeaseOwner(kind, endpoint_key("uuid", "a:b", "eth0"))
    assert LeaseOwner.parse(str(owner)) == owner


def test_addresses_carry_the_prefix_length_of_their_pool() -> None:
    net = ipaddress.ip_network("fd00::/64")
    pool = Pool("u", "p", "s", net, ipaddress.ip_address("fd00::1"), (), (), (), Origin.API, {})
    assert str(pool.gateway_interface) == "fd00::1/64"
    assert str(pool.interface(net[9])) == "fd00::9/64"


@pytest.mark.parametrize(("tag", "good"), [(-1, False), (0, True), (1, True), (4094, True), (4095, False)])
def test_vlan_tags(tag: int, good: bool) -> None:
    if good:
        assert check_tag(tag) == tag
        return
    with pytest.raises(InvalidRequest):
        check_tag(tag)


@pytest.mark.parametrize(
    ("mtu", "ipv6", "good"),
    [
        (67, False, False),
        (68, False, True),
        (1279, True, False),
        (1280, True, True),
        (65535, True, True),
        (65536, False, False),
    ],
)
def test_mtus(mtu: int, ipv6: bool, good: bool) -> None:
    if good:
        assert check_mtu(mtu, ipv6=ipv6) == mtu
        return
    with pytest.raises(InvalidRequest):
        check_mtu(mtu, ipv6=ipv6)
