"""Names that are derived, and names that are taken from outside."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from fnmatch import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsnet.errors import InvalidRequest
from ovsnet.names import (
    IFNAME_MAX,
    DeviceNames,
    check_container_id,
    check_ifname,
    check_mac,
    check_network_name,
    mac_for,
    mac_of,
)

NAMES = DeviceNames("abcd")


def test_device_names_fit_and_are_told_apart() -> None:
    made = [NAMES.new_port(), NAMES.new_doomed_link(), NAMES.gateway("n"), NAMES.docker_link(NAMES.new_port())]
    assert all(len(name) <= IFNAME_MAX and name.startswith("abcd") and check_ifname(name) for name in made)
    assert len({name[4] for name in made}) == len(made)  # the role's letter
    assert [fnmatch(name, NAMES.port_pattern) for name in made] == [True, False, False, False]
    assert [fnmatch(name, NAMES.gateway_pattern) for name in made] == [False, False, True, False]


def test_derived_names_are_the_same_again_and_fresh_ones_are_not() -> None:
    assert NAMES.gateway("n") == NAMES.gateway("n") != NAMES.gateway("m")
    port = NAMES.new_port()
    assert NAMES.docker_link(port) == NAMES.docker_link(port) != NAMES.docker_link(NAMES.new_port())
    assert len({NAMES.new_port() for _ in range(1000)}) == 1000


@pytest.mark.parametrize("prefix", ["", "abcde", "On", "1a", "o-", "ö", "on\n"])
def test_a_bad_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidRequest):
        DeviceNames(prefix)


def test_mac_of_an_ipv4_address_holds_the_address() -> None:
    assert mac_for(ipaddress.IPv4Address("10.1.2.255")) == "02:6f:0a:01:02:ff"


@given(st.ip_addresses())
def test_derived_macs_are_unicast_and_locally_administered(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    for mac, again in ((mac_for(address), mac_for(address)), (mac_of(str(address)), mac_of(str(address)))):
        assert check_mac(mac) == mac == again
        assert int(mac[:2], 16) & 3 == 2


@pytest.mark.parametrize(
    ("given_mac", "expected"),
    [("02:00:00:00:00:01", "02:00:00:00:00:01"), ("02-AB-00-00-00-01", "02:ab:00:00:00:01")],
)
def test_macs(given_mac: str, expected: str) -> None:
    assert check_mac(given_mac) == expected


@pytest.mark.parametrize(
    "mac",
    ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "0200.0000.0001", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff",
     "00:00:00:00:00:00", "02:00:00:00:00:01\n", "02:00:00:00:00:0g"],
)  # fmt: skip
def test_bad_macs_are_refused(mac: str) -> None:
    with pytest.raises(InvalidRequest):
        check_mac(mac)


@pytest.mark.parametrize("name", ["eth0", "a", "net-1_x.2", "fifteen-bytes-x", "éth0"])
def test_interface_names(name: str) -> None:
    assert check_ifname(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "all", "default", "-x", "a/b", "a:b", "a%d", "a b", "a\tb", "a\x00b", "sixteen-bytes-xx",
     "é" * 8, "\udcff\x01"],
)  # fmt: skip
def test_bad_interface_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        check_ifname(name)


@pytest.mark.parametrize("check", [check_container_id, check_network_name])
@pytest.mark.parametrize(("name", "good"), [
    ("a", True), ("9", True), ("web-1.x_y", True), ("a" * 128, True),
    ("", False), ("-a", False), (".a", False), ("_a", False), ("a b", False), ("a/b", False), ("a\n", False), ("ä", False),
    ("a" * 256, False),
])  # fmt: skip
def test_identifiers(check: Callable[[str], str], name: str, good: bool) -> None:
    if good:
        assert check(name) == name
        return
    with pytest.raises(InvalidRequest):
        check(name)
