"""The pure room of address arithmetic, as tables; sets of integers against plain ones."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsnet.errors import AddressNotInPool, InvalidRequest
from ovsnet.ipam import Block, Choice, PoolBlocks, check_spec, default_gateway
from ovsnet.ipam.intervals import Intervals
from ovsnet.ipam.pools import check_assignable, dynamic, usable
from ovsnet.model import AddressRange, IPAddress, Origin, Pool, PoolSpec


def ranges(*texts: str) -> tuple[AddressRange, ...]:
    return tuple(AddressRange.parse(text) for text in texts)


def pool(subnet: str, *, gateway: str = "", **more: Any) -> Pool:
    empty = Pool("u", "p", "s", ipaddress.ip_network(subnet), None, (), (), (), Origin.API, {})
    return replace(empty, gateway=ipaddress.ip_address(gateway) if gateway else None, **more)


def number(address: str) -> int:
    return int(ipaddress.ip_address(address))


def text(version: int, value: int) -> str:
    return str(ipaddress.IPv6Address(value) if version == 6 else ipaddress.IPv4Address(value))


def shown(subnet: str, parts: Intervals) -> list[str]:
    version = ipaddress.ip_network(subnet).version
    return [f"{text(version, first)}-{text(version, last)}" for first, last in parts]


# -- what a pool may give ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subnet", "expected", "gateway"),
    [
        ("10.0.0.0/8", "10.0.0.1-10.255.255.254", "10.0.0.1"),
        ("10.1.2.0/24", "10.1.2.1-10.1.2.254", "10.1.2.1"),
        ("10.1.2.4/30", "10.1.2.5-10.1.2.6", "10.1.2.5"),
        ("10.1.2.4/31", "10.1.2.4-10.1.2.5", "10.1.2.4"),  # RFC 3021
        ("10.1.2.4/32", "10.1.2.4-10.1.2.4", None),
        ("fd00::/64", "fd00::1-fd00::ffff:ffff:ffff:ffff", "fd00::1"),  # no broadcast; ::0 is the routers' anycast
        ("fd00::4/126", "fd00::5-fd00::7", "fd00::5"),
        ("fd00::4/127", "fd00::4-fd00::5", "fd00::4"),  # RFC 6164
        ("fd00::4/128", "fd00::4-fd00::4", None),
    ],
)
def test_usable_addresses_and_default_gateway(subnet: str, expected: str, gateway: str | None) -> None:
    net = ipaddress.ip_network(subnet)
    assert shown(subnet, usable(net)) == [expected]
    assert default_gateway(net) == (None if gateway is None else ipaddress.ip_address(gateway))


@pytest.mark.parametrize(
    ("a_pool", "expected"),
    [
        (pool("10.0.0.0/29"), ["10.0.0.1-10.0.0.6"]),
        (pool("10.0.0.0/29", gateway="10.0.0.1"), ["10.0.0.2-10.0.0.6"]),
        (pool("10.0.0.0/29", gateway="10.0.0.3"), ["10.0.0.1-10.0.0.2", "10.0.0.4-10.0.0.6"]),
        (pool("10.0.0.0/24", ranges=ranges("10.0.0.128/25")), ["10.0.0.128-10.0.0.254"]),
        (
            pool("10.0.0.0/24", ranges=ranges("10.0.0.4-10.0.0.9", "10.0.0.8-10.0.0.12", "10.0.0.99")),
            ["10.0.0.4-10.0.0.12", "10.0.0.99-10.0.0.99"],
        ),
        (
            pool("10.0.0.0/29", exclusions=ranges("10.0.0.2", "10.0.0.4-10.0.0.7")),
            ["10.0.0.1-10.0.0.1", "10.0.0.3-10.0.0.3"],
        ),
        (pool("10.0.0.0/29", static_ranges=ranges("10.0.0.0/30")), ["10.0.0.4-10.0.0.6"]),
        (pool("10.0.0.0/30", exclusions=ranges("10.0.0.0/30")), []),
        (
            pool("fd00::/64", gateway="fd00::1", exclusions=ranges("fd00::3")),
            ["fd00::2-fd00::2", "fd00::4-fd00::ffff:ffff:ffff:ffff"],
        ),
    ],
)
def test_dynamic_addresses(a_pool: Pool, expected: list[str]) -> None:
    assert shown(str(a_pool.subnet), dynamic(a_pool)) == expected
    assert PoolBlocks(a_pool).capacity == dynamic(a_pool).size()


@pytest.mark.parametrize(
    "spec",
    [
        PoolSpec(ipaddress.ip_network("10.0.0.0/8")),
        PoolSpec(ipaddress.ip_network("fd00::/32")),
        PoolSpec(ipaddress.ip_network("10.0.0.0/31"), gateway=ipaddress.ip_address("10.0.0.0")),
        PoolSpec(ipaddress.ip_network("10.0.0.4/32"), no_gateway=True),
        PoolSpec(ipaddress.ip_network("fd00::/127"), gateway=ipaddress.ip_address("fd00::")),
        PoolSpec(ipaddress.ip_network("10.0.0.0/24"), gateway=ipaddress.ip_address("10.0.0.254")),
        # The gateway may lie where nothing else is given.
        PoolSpec(
            ipaddress.ip_network("10.0.0.0/24"),
            gateway=ipaddress.ip_address("10.0.0.1"),
            exclusions=ranges("10.0.0.0/28"),
        ),
        PoolSpec(ipaddress.ip_network("10.0.0.0/24"), ranges=ranges("10.0.0.0/24"), static_ranges=ranges("10.0.0.9")),
    ],
)
def test_a_pool_can_be_made(spec: PoolSpec) -> None:
    assert check_spec(spec) is spec


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        (PoolSpec(ipaddress.ip_network("10.0.0.0/7", strict=False)), InvalidRequest, "larger than a /8"),
        (PoolSpec(ipaddress.ip_network("fc00::/31")), InvalidRequest, "larger than a /32"),
        (PoolSpec(ipaddress.ip_network("224.1.0.0/16")), InvalidRequest, "multicast"),
        (PoolSpec(ipaddress.ip_network("ff05::/64")), InvalidRequest, "multicast"),
        (PoolSpec(ipaddress.ip_network("127.1.0.0/16")), InvalidRequest, "loopback"),
        (PoolSpec(ipaddress.ip_network("169.254.9.0/24")), InvalidRequest, "link-local"),
        (
            PoolSpec(ipaddress.ip_network("10.0.0.0/24"), ranges=ranges("10.0.0.9-10.0.1.9")),
            InvalidRequest,
            "range .* outside",
        ),
        (
            PoolSpec(ipaddress.ip_network("10.0.0.0/24"), exclusions=ranges("10.0.1.0/24")),
            InvalidRequest,
            "exclusion .* outside",
        ),
        (
            PoolSpec(ipaddress.ip_network("10.0.0.0/24"), static_ranges=ranges("fd00::1")),
            InvalidRequest,
            "static range .* outside",
        ),
        (
            PoolSpec(ipaddress.ip_network("10.0.0.0/24"), gateway=ipaddress.ip_address("10.0.1.1")),
            AddressNotInPool,
            "gateway",
        ),
        (
            PoolSpec(ipaddress.ip_network("10.0.0.0/24"), gateway=ipaddress.ip_address("10.0.0.255")),
            AddressNotInPool,
            "gateway",
        ),
        (
            PoolSpec(ipaddress.ip_network("10.0.0.0/24"), gateway=ipaddress.ip_address("fd00::1")),
            AddressNotInPool,
            "gateway",
        ),
        (
            PoolSpec(ipaddress.ip_network("fd00::/64"), gateway=ipaddress.ip_address("fd00::")),
            AddressNotInPool,
            "gateway",
        ),
        (
            PoolSpec(ipaddress.ip_network("10.0.0.0/24"), gateway=ipaddress.ip_address("10.0.0.1"), no_gateway=True),
            InvalidRequest,
            "given and refused",
        ),
    ],
)
def test_a_pool_is_refused_with_the_reason(spec: PoolSpec, error: type[InvalidRequest], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        check_spec(spec)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("a_pool", "address", "words"),
    [
        (pool("10.0.0.0/24", ranges=ranges("10.0.0.128/25")), "10.0.0.5", ""),  # ranges do not bind a given address
        (pool("10.0.0.0/24", static_ranges=ranges("10.0.0.5")), "10.0.0.5", ""),
        (pool("10.0.0.4/32"), "10.0.0.4", ""),
        (pool("10.0.0.4/31"), "10.0.0.5", ""),
        (pool("fd00::/64"), "fd00::ffff:ffff:ffff:ffff", ""),
        (pool("10.0.0.0/24"), "10.0.1.5", "not in pool"),
        (pool("10.0.0.0/24"), "fd00::5", "not in pool"),
        (pool("10.0.0.0/24"), "10.0.0.0", "network or broadcast"),
        (pool("10.0.0.0/24"), "10.0.0.255", "network or broadcast"),
        (pool("fd00::/64"), "fd00::", "network or broadcast"),
        (pool("10.0.0.0/24", exclusions=ranges("10.0.0.4/30")), "10.0.0.5", "excluded"),
    ],
)
def test_an_address_asked_for(a_pool: Pool, address: str, words: str) -> None:
    wanted: IPAddress = ipaddress.ip_address(address)
    if not words:
        assert check_assignable(a_pool, wanted) == wanted
        return
    with pytest.raises(AddressNotInPool, match=words):
        check_assignable(a_pool, wanted)


# -- which address next -----------------------------------------------------------------------------------------------

NET = "10.0.0.0/24"  # four blocks: .0, .64, .128, .192
NEXT = ("10.0.0.3", "10.0.0.0", False)  # with OURS


def block(start: str, node: str, leases: Collection[str] = (), *, cursor: str = "", turn: int = 0) -> Block:
    """A block of that start; `leases` are addresses, and `first..last` is a range of them."""
    held: dict[int, str] = {}
    for one in leases:
        first, _, last = one.partition("..")
        held |= {value: f"o{value}" for value in range(number(first), number(last or first) + 1)}
    return Block(number(start), node, held, number(cursor) if cursor else 0, turn)


def blocks(a_pool: Pool, *some: Block) -> PoolBlocks:
    return PoolBlocks(a_pool, {one.start: one for one in some})


FULL_0 = block("10.0.0.0", "a", ["10.0.0.1..10.0.0.63"], cursor="10.0.0.63", turn=63)
FULL_64 = block("10.0.0.64", "b", ["10.0.0.64..10.0.0.127"], cursor="10.0.0.127", turn=64)
FULL_128 = block("10.0.0.128", "b", ["10.0.0.128..10.0.0.191"], turn=9)
FULL_192 = block("10.0.0.192", "a", ["10.0.0.192..10.0.0.254"], turn=9)
OURS = block("10.0.0.0", "a", ["10.0.0.2"], cursor="10.0.0.2", turn=1)
THEIRS = block("10.0.0.128", "b", [])


OURS = block("10.0.0.0", "a", ["10.0.0.2"], cursor="10.0.0.2", turn=1)
THEIRS = block("10.0.0.128", "b", [])


@pytest.mark.parametrize(
    ("a_pool", "some", "options", "expected"),
    [
        pytest.param(pool(NET), [], {}, ("10.0.0.1", "10.0.0.0", True), id="first of an empty pool"),
        pytest.param(pool(NET, gateway="10.0.0.1"), [], {}, ("10.0.0.2", "10.0.0.0", True), id="not the gateway"),
        pytest.param(
            pool(NET),
            [block("10.0.0.0", "a", ["10.0.0.9"], cursor="10.0.0.9", turn=1)],
            {},
            ("10.0.0.10", "10.0.0.0", False),
            id="after the last one",
        ),
        pytest.param(
            pool(NET),
            [block("10.0.0.0", "a", [], cursor="10.0.0.9", turn=1)],
            {},
            ("10.0.0.10", "10.0.0.0", False),
            id="after the last one, though it is free again",
        ),
        pytest.param(
            pool(NET),
            [block("10.0.0.0", "a", ["10.0.0.1"], cursor="10.0.0.63", turn=5)],
            {},
            ("10.0.0.2", "10.0.0.0", False),
            id="wrap in the block",
        ),
        pytest.param(
            pool(NET),
            [
                block("10.0.0.0", "a", ["10.0.0.1"], cursor="10.0.0.1", turn=1),
                block("10.0.0.128", "a", ["10.0.0.128"], cursor="10.0.0.128", turn=2),
            ],
            {},
            ("10.0.0.129", "10.0.0.128", False),
            id="the own block of the last allocation",
        ),
        pytest.param(
            pool(NET),
            [block("10.0.0.0", "a", [], cursor="10.0.0.1", turn=1), replace(FULL_192, turn=99)],
            {},
            ("10.0.0.1", "10.0.0.0", False),
            id="another own block, wrapping over the pool",
        ),
        pytest.param(pool(NET), [block("10.0.0.0", "b")], {}, ("10.0.0.64", "10.0.0.64", True), id="claim, not borrow"),
        pytest.param(
            pool(NET), [FULL_0, FULL_64], {}, ("10.0.0.128", "10.0.0.128", True), id="claim the first that is free"
        ),
        pytest.param(
            pool(NET),
            [FULL_0, block("10.0.0.64", "b", ["10.0.0.64"]), block("10.0.0.128", "c"), FULL_192],
            {},
            ("10.0.0.65", "10.0.0.64", False),
            id="borrow when there is nothing to claim",
        ),
        pytest.param(pool(NET), [FULL_0, FULL_64, FULL_128, FULL_192], {}, None, id="exhausted"),
        pytest.param(
            pool(NET), [], {"taken": ["10.0.0.1", "10.0.0.2"]}, ("10.0.0.3", "10.0.0.0", True), id="taken meanwhile"
        ),
        pytest.param(
            pool(NET),
            [],
            {"taken": ["10.0.0.1"], "claimed": ["10.0.0.0"]},
            ("10.0.0.2", "10.0.0.0", False),
            id="claimed meanwhile",
        ),
        pytest.param(
            pool(NET),
            [block("10.0.0.0", "a", ["10.0.0.1"], cursor="10.0.0.1", turn=1)],
            {"cooling": ["10.0.0.2"]},
            ("10.0.0.3", "10.0.0.0", False),
            id="not a cooling one",
        ),
        pytest.param(
            pool("10.0.0.0/25"),
            [FULL_0, replace(block("10.0.0.64", "b", ["10.0.0.64..10.0.0.125"]))],
            {"cooling": ["10.0.0.126"]},
            ("10.0.0.126", "10.0.0.64", False),
            id="a cooling one when there is no other",
        ),
        pytest.param(
            pool("10.0.0.0/25"),
            [block("10.0.0.0", "a", ["10.0.0.1..10.0.0.62"], cursor="10.0.0.62", turn=1)],
            {"cooling": ["10.0.0.63"]},
            ("10.0.0.64", "10.0.0.64", True),
            id="claim rather than a cooling own one",
        ),
        pytest.param(
            pool(NET, ranges=ranges("10.0.0.70-10.0.0.72", "10.0.0.200")),
            [block("10.0.0.64", "a", ["10.0.0.70..10.0.0.72"], cursor="10.0.0.72", turn=3)],
            {},
            ("10.0.0.200", "10.0.0.192", True),
            id="only in the ranges",
        ),
        pytest.param(
            pool(NET, ranges=ranges("10.0.0.70-10.0.0.71"), exclusions=ranges("10.0.0.70")),
            [block("10.0.0.64", "a", ["10.0.0.71"])],
            {},
            None,
            id="exhausted ranges in a pool with room",
        ),
        pytest.param(
            pool(NET, ranges=ranges("10.0.0.10-10.0.0.20", "10.0.0.30-10.0.0.150")),
            [block("10.0.0.0", "b", ["10.0.0.10..10.0.0.63"])],
            {},
            ("10.0.0.64", "10.0.0.64", True),
            id="ranges that share a block",
        ),
        pytest.param(
            pool(NET, static_ranges=ranges("10.0.0.0/26"), exclusions=ranges("10.0.0.64-10.0.0.66")),
            [],
            {},
            ("10.0.0.67", "10.0.0.64", True),
            id="neither static nor excluded",
        ),
        pytest.param(pool("10.0.0.4/30"), [], {}, ("10.0.0.5", "10.0.0.4", True), id="/30"),
        pytest.param(pool("10.0.0.4/30"), [block("10.0.0.4", "b", ["10.0.0.5", "10.0.0.6"])], {}, None, id="/30 full"),
        pytest.param(
            pool("10.0.0.4/31"), [block("10.0.0.4", "a", ["10.0.0.4"])], {}, ("10.0.0.5", "10.0.0.4", False), id="/31"
        ),
        pytest.param(pool("10.0.0.4/32"), [], {}, ("10.0.0.4", "10.0.0.4", True), id="/32"),
        pytest.param(pool("10.0.0.4/32"), [block("10.0.0.4", "a", ["10.0.0.4"])], {}, None, id="/32 full"),
        pytest.param(
            pool("10.0.0.0/8"),
            [block("10.0.0.0", "b", ["10.0.0.1"]), block("10.0.0.64", "b")],
            {},
            ("10.0.0.128", "10.0.0.128", True),
            id="/8",
        ),
        pytest.param(pool("fd00::/64"), [], {}, ("fd00::1", "fd00::", True), id="IPv6 /64"),
        pytest.param(
            pool("fd00::/64"),
            [block("fd00::", "a", ["fd00::1..fd00::3f"], cursor="fd00::3f", turn=63)],
            {},
            ("fd00::40", "fd00::40", True),
            id="IPv6 /64, next block",
        ),
        pytest.param(
            pool("fd00::4/127"), [block("fd00::4", "b", ["fd00::4"])], {}, ("fd00::5", "fd00::4", False), id="IPv6 /127"
        ),
        pytest.param(
            pool(NET), [OURS], {"rather": ["10.0.0.9"]}, ("10.0.0.9", "10.0.0.0", False), id="rather a free one"
        ),
        pytest.param(pool(NET), [OURS], {"rather": ["10.0.0.2"]}, NEXT, id="rather one that is leased"),
        pytest.param(
            pool(NET), [OURS], {"rather": ["10.0.0.9"], "cooling": ["10.0.0.9"]}, NEXT, id="rather one that cools down"
        ),
        pytest.param(
            pool(NET), [OURS], {"rather": ["10.0.0.9"], "taken": ["10.0.0.9"]}, NEXT, id="rather one just taken"
        ),
        pytest.param(pool(NET), [OURS], {"rather": ["10.0.0.255"]}, NEXT, id="rather one that is not dynamic"),
        pytest.param(
            pool(NET),
            [OURS],
            {"rather": ["10.0.0.99"]},
            ("10.0.0.99", "10.0.0.64", True),
            id="rather one of nobody's block",
        ),
        pytest.param(pool(NET), [OURS, THEIRS], {"rather": ["10.0.0.130"]}, NEXT, id="rather one of another's block"),
        pytest.param(pool("fd00::4/128"), [], {}, ("fd00::4", "fd00::4", True), id="IPv6 /128"),
    ],
)
def test_choose(
    a_pool: Pool, some: list[Block], options: Mapping[str, list[str]], expected: tuple[str, str, bool] | None
) -> None:
    used: dict[str, Any] = {name: {number(one) for one in addresses} for name, addresses in options.items()}
    if "rather" in used:
        (used["rather"],) = used["rather"]
    chosen = blocks(a_pool, *some).choose("a", **used)
    assert chosen == (expected and Choice(number(expected[0]), number(expected[1]), expected[2]))


@pytest.mark.parametrize("subnet", [NET, "10.0.0.0/30", "10.0.0.0/31", "10.0.0.7/32", "fd00::/120", "fd00::/127"])
def test_every_address_is_given_once_and_then_none(subnet: str) -> None:
    a_pool = pool(subnet)
    some = blocks(a_pool)
    given: set[int] = set()
    for turn in range(1, a_pool.subnet.num_addresses + 1):
        chosen = some.choose("ab"[turn % 2])
        if chosen is None:
            break
        assert chosen.address not in given
        assert chosen.address in usable(a_pool.subnet)
        given.add(chosen.address)
        old = some.blocks.get(chosen.block)
        assert chosen.claim == (old is None)
        base = old or Block(chosen.block, "ab"[turn % 2])
        held = {**base.leases, chosen.address: f"o{turn}"}
        some.put(replace(base, leases=held, cursor=chosen.address, turn=turn))
    assert some.choose("a") is None
    assert some.choose("c") is None
    assert len(given) == usable(a_pool.subnet).size() == some.leased


def test_the_picture_follows_the_blocks() -> None:
    some = blocks(pool(NET), FULL_0, block("10.0.0.64", "b", ["10.0.0.70"], cursor="10.0.0.70", turn=7))
    owner = f"o{number('10.0.0.70')}"
    assert some.leased == 64
    assert some.owner_of(number("10.0.0.70")) == owner
    assert some.address_of(owner) == number("10.0.0.70")
    assert (some.turn("a"), some.turn("b"), some.turn("c")) == (63, 7, 0)
    some.put(block("10.0.0.64", "b", [], cursor="10.0.0.70", turn=7))
    assert some.leased == 63
    assert some.owner_of(number("10.0.0.70")) is None
    assert some.address_of(owner) is None
    some.drop(number("10.0.0.64"))
    some.drop(number("10.0.0.64"))  # a second time is nothing
    assert some.turn("b") == 0
    assert some.owner_of(number("10.0.0.70")) is None


def test_a_node_keeps_the_block_of_its_last_allocation() -> None:
    first, second = block("10.0.0.0", "a", turn=1), block("10.0.0.64", "a", turn=2)
    some = blocks(pool(NET), first, second)
    assert [some.keep_when_empty(one) for one in (first, second)] == [False, True]
    some.drop(second.start)
    assert some.keep_when_empty(first)
    some.put(second)
    some.put(replace(second, turn=0))  # written anew by hand
    assert [some.keep_when_empty(one) for one in (first, second)] == [True, False]
    assert some.turn("a") == 1


def test_an_address_that_changes_hands_belongs_to_the_new_owner_only() -> None:
    some = blocks(pool(NET), Block(number("10.0.0.0"), "a", {number("10.0.0.1"): "x", number("10.0.0.2"): "y"}))
    some.put(Block(number("10.0.0.0"), "a", {number("10.0.0.1"): "y"}))
    assert some.address_of("x") is None
    assert some.address_of("y") == number("10.0.0.1")


@given(st.data())
def test_the_picture_is_the_same_whatever_the_order_of_changes(data: st.DataObject) -> None:
    """Puts and drops in any order leave what the final blocks alone would make."""
    some = PoolBlocks(pool("10.0.0.0/25"))
    final: dict[int, Block] = {}
    for turn in range(data.draw(st.integers(0, 8))):
        start = number(data.draw(st.sampled_from(["10.0.0.0", "10.0.0.64"])))
        if data.draw(st.booleans()):
            node = final[start].node if start in final else data.draw(st.sampled_from("ab"))
            held = data.draw(st.sets(st.integers(1, 62)))
            final[start] = Block(start, node, {start + one: f"o{start + one}" for one in held}, 0, turn)
            some.put(final[start])
        else:
            final.pop(start, None)
            some.drop(start)
    fresh = PoolBlocks(some.pool, final)
    assert some.leased == fresh.leased
    for node in "abc":
        assert some.choose(node) == fresh.choose(node)
        assert some.turn(node) == fresh.turn(node)


# -- sets of integers -------------------------------------------------------------------------------------------------

PARTS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda one: (one[0], one[0] + one[1])), max_size=6
)


def plain(parts: list[tuple[int, int]]) -> set[int]:
    return {value for first, last in parts for value in range(first, last + 1)}


@given(PARTS, PARTS, st.integers(0, 80), st.integers(0, 80))
def test_intervals_are_sets(some: list[tuple[int, int]], other: list[tuple[int, int]], first: int, last: int) -> None:
    a, b = Intervals(some), Intervals(other)
    assert plain(list(a)) == plain(some)
    assert a.size() == len(plain(some))
    assert {value for value in range(90) if value in a} == plain(some)
    assert plain(list(a & b)) == plain(some) & plain(other)
    assert plain(list(a - b)) == plain(some) - plain(other)
    if first <= last:
        assert plain(list(a.within(first, last))) == {value for value in plain(some) if first <= value <= last}
    for result in (a, a & b, a - b):  # sorted, and no two parts touch
        parts = list(result)
        assert all(one[1] + 1 < two[0] for one, two in pairwise(parts))
