"""The store against a real ovsdb-server: every command, two nodes at once, a killed server, a copied file."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ovsnet.errors import (
    AddressInUse,
    AddressNotInPool,
    AlreadyExists,
    Conflict,
    EndpointNotFound,
    Exhausted,
    InUse,
    NetworkNotFound,
    OvsnetError,
    PoolExhausted,
    PoolNotFound,
    PoolOverlap,
    PortInUse,
    TagInUse,
)
from ovsnet.model import (
    AddressRange,
    Bandwidth,
    Endpoint,
    IPAddress,
    LeaseOwner,
    Network,
    Origin,
    OwnerKind,
    Pool,
    PublishedPort,
)
from ovsnet.names import mac_for
from ovsnet.store import StateServer, Store, commands
from tests.harness import wait_until
from tests.ovsdb_server import OvsdbServer

Connect = Callable[..., Store]
TAGS = range(10, 13)


def pool(subnet: str = "10.0.0.0/24", name: str = "", *, gateway: str = "", **more: Any) -> Pool:
    net = ipaddress.ip_network(subnet)
    empty = Pool(
        "", name or f"pool-{net.network_address}".replace(":", "-"), "s", net, None, (), (), (), Origin.API, {}
    )
    return replace(empty, gateway=ipaddress.ip_address(gateway) if gateway else None, **more)


def network(name: str = "net", *, tag: int = 0, bridge: str = "br0", **more: Any) -> Network:
    return replace(Network("", name, bridge, tag, 1500, (), (), False, Origin.API, frozenset(), {}), **more)


def endpoint(net: Network, container: str = "c1", *, node: str = "a", **more: Any) -> Endpoint:
    empty = Endpoint("", net.uuid, net.name, container, "eth0", Origin.CNI, node, "/ns", (), "", 1500, "p1", "", {})
    return replace(empty, **more)


def reserved(name: str) -> LeaseOwner:
    return LeaseOwner(OwnerKind.RESERVED, name)


def docker(name: str) -> LeaseOwner:
    return LeaseOwner(OwnerKind.DOCKER, name)


def ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def joined(store: Store, *pools: Pool, name: str = "net") -> Network:
    """A network with those pools, made with it."""
    return store.create_network(network(name), pools, choose_tag=range(1, 100))


def held(store: Store, a_pool: Pool) -> dict[str, str]:
    return {str(lease.address): str(lease.owner) for lease in store.leases(a_pool.name)}


def starts(store: Store, a_pool: Pool) -> set[int]:
    """Last octets of the starts of the pool's claimed blocks."""
    return {start & 255 for start in store.view.blocks[a_pool.uuid].blocks}


def refusal(call: Callable[[], object]) -> type[OvsnetError] | None:
    try:
        call()
    except OvsnetError as exc:
        return type(exc)
    return None


# -- pools ------------------------------------------------------------------------------------------------------------


def test_a_pool_is_made_once_and_read_as_it_was_given(store: Store) -> None:
    wanted = pool(
        gateway="10.0.0.9",
        ranges=(AddressRange.parse("10.0.0.128/25"), AddressRange.parse("10.0.0.10-10.0.0.19")),
        exclusions=(AddressRange.parse("10.0.0.200"), AddressRange.parse("10.0.0.200")),
        static_ranges=(AddressRange.parse("10.0.0.130"),),
        labels={"team": "x"},
        requested_by="1:2",
    )
    made = store.create_pool(wanted)
    assert made == store.create_pool(wanted)
    assert (made.subnet, made.gateway, made.labels, made.requested_by) == (
        wanted.subnet,
        wanted.gateway,
        wanted.labels,
        wanted.requested_by,
    )
    assert [str(one) for one in (*made.ranges, *made.exclusions, *made.static_ranges)] == [
        "10.0.0.10-10.0.0.19", "10.0.0.128-10.0.0.255", "10.0.0.200", "10.0.0.130",
    ]  # fmt: skip
    assert held(store, made) == {"10.0.0.9": f"gateway:{made.name}"}
    use = store.pool_use(made.uuid)
    assert (use.pool, use.leased, use.networks) == (made, 1, ())
    assert [one.pool for one in store.pools()] == [made]


def test_the_same_name_with_other_settings_is_refused(store: Store) -> None:
    store.create_pool(pool(name="p"))
    for other in (pool("10.9.0.0/24", "p"), pool(name="p", gateway="10.0.0.1"), pool(name="p", space="other")):
        with pytest.raises(AlreadyExists):
            store.create_pool(other)


@pytest.mark.parametrize("subnet", ["10.0.0.0/24", "10.0.0.0/16", "10.0.0.128/25", "10.0.0.7/32"])
def test_overlapping_pools_are_refused(store: Store, subnet: str) -> None:
    store.create_pool(pool(name="first"))
    with pytest.raises(PoolOverlap) as caught:
        store.create_pool(pool(subnet, "second"))
    assert caught.value.details == {"pool": "first"}
    assert store.create_pool(pool(subnet, "second", space="other")).space == "other"
    assert store.create_pool(pool("10.0.1.0/24", "third")).name == "third"
    assert len(store.pools()) == 3


def test_two_controllers_cannot_make_overlapping_pools_at_once(connect: Connect) -> None:
    stores = [connect("a"), connect("b")]
    for number in range(10):
        start = threading.Barrier(2)

        def make(which: int, number: int = number, start: threading.Barrier = start) -> type[OvsnetError] | None:
            start.wait(10)
            subnet = f"10.{number}.0.0/{16 + which}"
            return refusal(lambda: stores[which].create_pool(pool(subnet, f"p{number}-{which}")))

        with ThreadPoolExecutor(2) as threads:
            assert set(threads.map(make, range(2))) == {None, PoolOverlap}


def test_a_pool_with_leases_stays(store: Store) -> None:
    made = store.create_pool(pool(gateway="10.0.0.1"))
    address = store.allocate(made, reserved("x"))
    with pytest.raises(InUse, match=str(address)):
        store.delete_pool(made.uuid)
    assert store.release(made, address, {OwnerKind.RESERVED})
    store.delete_pool(made.uuid)
    store.delete_pool(made.uuid)
    assert store.pools() == []
    for call in (lambda: store.pool(made.name), lambda: store.pool_use(made.uuid), lambda: store.leases(made.uuid)):
        with pytest.raises(PoolNotFound):
            call()
    with pytest.raises(PoolNotFound):
        store.allocate(made, reserved("x"))
    with pytest.raises(PoolNotFound):
        store.allocate_gateway(made)
    with pytest.raises(PoolNotFound):
        store.set_pool_requester(made.uuid, "1:2")
    assert store.release(made, address, {OwnerKind.RESERVED})


def test_who_asked_for_a_pool_is_noted(store: Store) -> None:
    made = store.create_pool(pool())
    store.set_pool_requester(made.uuid, "1:2")
    assert store.pool(made.name).requested_by == "1:2"
    assert store.create_pool(pool()).uuid == made.uuid


# -- leases -----------------------------------------------------------------------------------------------------------


def test_an_owner_keeps_its_address(store: Store) -> None:
    made = store.create_pool(pool())
    first = store.allocate(made, reserved("x"))
    assert store.allocate(made, reserved("x")) == first == store.allocate(made, reserved("x"), first)
    assert store.allocate(made, reserved("y")) != first
    assert store.lease_owner(made, first) == reserved("x")
    assert store.lease_owner(made, ip("10.0.0.99")) is None


def test_the_same_owner_asking_many_times_at_once_gets_one_address(store: Store) -> None:
    made = store.create_pool(pool())
    with store._engine.lock:  # so that they share a transaction
        futures = [store.submit(commands.AllocateLease(store, made.uuid, reserved("x"))) for _ in range(8)]
    assert len({future.result(10)[0] for future in futures}) == 1
    assert len(held(store, made)) == 1


def test_addresses_asked_for(store: Store) -> None:
    made = store.create_pool(
        pool(exclusions=(AddressRange.parse("10.0.0.5"),), ranges=(AddressRange.parse("10.0.0.64/26"),))
    )
    assert store.allocate(made, reserved("x"), ip("10.0.0.9")) == ip("10.0.0.9")
    with pytest.raises(AddressInUse) as caught:
        store.allocate(made, reserved("y"), ip("10.0.0.9"))
    assert caught.value.details == {"address": "10.0.0.9"}
    for bad in ("10.0.0.5", "10.0.0.0", "10.0.1.1", "fd00::1"):
        with pytest.raises(AddressNotInPool):
            store.allocate(made, reserved("y"), ip(bad))


def test_release_asks_who_holds_the_address(store: Store) -> None:
    made = store.create_pool(pool())
    address = store.allocate(made, reserved("x"))
    assert not store.release(made, address, {OwnerKind.DOCKER})
    assert store.lease_owner(made, address) == reserved("x")
    assert store.release(made, address, {OwnerKind.DOCKER, OwnerKind.RESERVED})
    assert store.release(made, address, set())
    assert held(store, made) == {}


def test_what_was_a_strays_stays_with_who_attaches_by_it(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repair that has found a lease without an endpoint comes later than the endpoint's ADD."""
    store, other = connect("a"), connect("b", timeout=1.0)
    made = store.create_pool(pool())
    net = store.create_network(network(tag=10), [made.uuid], choose_tag=None)
    owner = LeaseOwner(OwnerKind.ENDPOINT, endpoint(net).key)
    address = store.allocate(made, owner)
    assert [one.address for _, one in store.stray_leases()] == [address]
    write = commands.Attach(store, endpoint(net), derive_mac=mac_for)
    repair = commands.ReleaseLease(store, made.uuid, address, {OwnerKind.ENDPOINT}, owner)
    store.submit(write, repair).result(10)  # both in one transaction
    assert repair.result is False
    assert not store.release(made, address, {OwnerKind.ENDPOINT}, owner=owner)
    wait_until(lambda: other.find_endpoint(owner.id) is not None, "the other controller sees it")
    monkeypatch.setattr(other.view, "by_key", {})  # as if it had not seen it yet
    with pytest.raises(OvsnetError):
        other.release(made, address, {OwnerKind.ENDPOINT}, owner=owner)
    assert held(store, made) == {str(address): str(owner)}
    store.detach(store.endpoints()[0].uuid)
    assert held(store, made) == {}


def test_an_address_is_not_given_again_at_once(store: Store) -> None:
    """Also without a cool-down: the next one follows the last one given."""
    made = store.create_pool(pool("10.0.0.0/29"))
    seen = []
    for number in range(8):
        address = store.allocate(made, reserved(f"x{number}"))
        store.release(made, address, {OwnerKind.RESERVED})
        seen.append(int(address) & 7)
    assert seen == [1, 2, 3, 4, 5, 6, 1, 2]


def test_a_released_address_cools_down_unless_there_is_no_other(connect: Connect) -> None:
    store = connect(cooldown=1.0)
    made = store.create_pool(pool("10.0.0.0/29"))
    addresses = [store.allocate(made, reserved(f"x{number}")) for number in range(5)]
    for address in (addresses[0], addresses[3]):
        store.release(made, address, {OwnerKind.RESERVED})
    assert store.allocate(made, reserved("next")) == ip("10.0.0.6")
    assert store.allocate(made, reserved("needs")) in (addresses[0], addresses[3])
    time.sleep(1.05)
    assert not store.view.cooling(made.uuid)


def test_hand_over_changes_only_what_docker_holds(store: Store) -> None:
    made = store.create_pool(pool())
    address = store.allocate(made, docker("d/t"))
    store.hand_over(made, address, docker(f"e/{address}"))
    assert store.lease_owner(made, address) == docker(f"e/{address}")
    store.hand_over(made, ip("10.0.0.77"), docker("x"))
    assert store.lease_owner(made, ip("10.0.0.77")) is None
    other = store.allocate(made, reserved("r"))
    store.hand_over(made, other, docker("x"))
    assert store.lease_owner(made, other) == reserved("r")


def test_blocks_are_claimed_lent_and_given_back(connect: Connect) -> None:
    a, b = connect("a"), connect("b")
    made = a.create_pool(pool("10.0.0.0/25"))
    from_a = [a.allocate(made, reserved(f"a{number}")) for number in range(64)]
    assert starts(a, made) == {0, 64}
    wait_until(lambda: made.uuid in b.view.pools and b.pool_use(made.uuid).leased == 64, "b sees them")
    from_b = b.allocate(made, reserved("b"))
    assert from_b == ip("10.0.0.65")
    assert {lease.node for lease in b.leases(made.name)} == {"a"}
    for address in from_a[:63]:
        a.release(made, address, {OwnerKind.RESERVED})
    wait_until(lambda: starts(a, made) == {64}, "the empty block is given back")
    wait_until(lambda: starts(b, made) == {64}, "b sees it")
    assert b.allocate(made, reserved("b2")) == ip("10.0.0.1")
    assert {lease.node for lease in b.leases(made.name)} == {"a", "b"}


def test_a_block_that_changes_hands_at_once_stays_in_the_picture(connect: Connect) -> None:
    """One update may bring a block's deletion and its new row; both have the same key."""
    store, watcher = connect("a"), connect("w")
    made = store.create_pool(pool("10.0.0.0/30"))
    for number in range(20):
        address = store.allocate(made, reserved("x"))
        block = store.view.block_rows[made.uuid, int(made.subnet.network_address)]
        with watcher._engine.lock:  # it reads nothing meanwhile
            store.release(made, address, {OwnerKind.RESERVED})
            store.submit(commands.ReleaseBlock(store, made.uuid, int(made.subnet.network_address)), alone=True).result(
                10
            )
            again = store.allocate(made, reserved(f"y{number}"))
        assert store.view.block_rows[made.uuid, int(made.subnet.network_address)] != block
        wait_until(
            lambda again=again, number=number: watcher.lease_owner(made, again) == reserved(f"y{number}"),  # type: ignore[misc]
            "the watcher sees the new lease",
        )
        assert watcher.allocate(made, reserved(f"y{number}")) == again
        store.release(made, again, {OwnerKind.RESERVED})


# -- gateways ---------------------------------------------------------------------------------------------------------


def test_the_gateway_is_leased_once(store: Store) -> None:
    made = store.create_pool(pool())
    assert store.allocate_gateway(made) == store.allocate_gateway(made) == ip("10.0.0.1")
    assert store.pool(made.uuid).gateway == ip("10.0.0.1") == store.allocate_gateway(made, ip("10.0.0.1"))
    with pytest.raises(AddressInUse):
        store.allocate_gateway(made, ip("10.0.0.2"))
    assert held(store, made) == {"10.0.0.1": f"gateway:{made.name}"}
    assert store.release(made, ip("10.0.0.1"), {OwnerKind.GATEWAY})
    assert store.pool(made.uuid).gateway is None
    assert store.allocate_gateway(made, ip("10.0.0.254")) == ip("10.0.0.254")


@pytest.mark.parametrize("why", ["taken", "excluded"])
def test_without_a_wish_any_address_can_be_the_gateway(store: Store, why: str) -> None:
    first = AddressRange.parse("10.0.0.1")
    made = store.create_pool(pool(exclusions=(first,) if why == "excluded" else ()))
    if why == "taken":
        store.allocate(made, reserved("x"), first.first)
    assert store.allocate_gateway(made) == ip("10.0.0.2")


def test_two_controllers_choose_one_gateway(connect: Connect) -> None:
    stores = [connect("a"), connect("b")]
    for number in range(10):
        made = stores[0].create_pool(pool(f"10.0.{number}.0/24"))
        wait_until(lambda made=made: made.uuid in stores[1].view.pools, "b sees the pool")  # type: ignore[misc]
        start = threading.Barrier(2)

        def choose(which: int, made: Pool = made, start: threading.Barrier = start) -> type[OvsnetError] | None:
            start.wait(10)
            return refusal(lambda: stores[which].allocate_gateway(made, made.subnet[1 if which else 254]))

        with ThreadPoolExecutor(2) as threads:
            assert set(threads.map(choose, range(2))) == {None, AddressInUse}
        assert list(held(stores[0], made)) == [str(stores[0].pool(made.uuid).gateway)]


# -- networks ---------------------------------------------------------------------------------------------------------


def test_a_network_is_made_once_with_its_pools(store: Store) -> None:
    draft = network(
        labels={"k": "v"}, docker_ids=frozenset({"d" * 64}), gateways=(ipaddress.ip_interface("10.0.0.1/24"),)
    )
    pools = [pool("fd00::/64"), pool(gateway="10.0.0.1")]
    made = store.create_network(draft, pools, choose_tag=TAGS)
    assert made == store.create_network(draft, pools, choose_tag=TAGS)
    assert made == replace(draft, uuid=made.uuid, tag=10, pools=made.pools)
    assert [str(one.subnet) for one in store.pools_of(made)] == ["10.0.0.0/24", "fd00::/64"]  # IPv4 first
    for ref in (made.uuid, made.name, "d" * 64, "d" * 12):
        assert store.network(ref) == made
    for ref in ("d" * 11, "other"):
        assert store.find_network(ref) is None
    assert store.docker_network("d" * 64) == made
    assert store.docker_network("d" * 12) is None
    assert store.networks_of(store.pools_of(made)[0]) == store.networks() == [made]
    with pytest.raises(NetworkNotFound):
        store.network("other")
    for other in (replace(draft, bridge="br1"), replace(draft, docker_ids=frozenset({"e" * 64}))):
        with pytest.raises(AlreadyExists):
            store.create_network(other, pools, choose_tag=TAGS)
    with pytest.raises(AlreadyExists):
        store.create_network(draft, pools[:1], choose_tag=TAGS)


def test_a_network_that_cannot_be_made_leaves_no_pool(store: Store) -> None:
    joined(store, pool())
    with pytest.raises(PoolOverlap):
        store.create_network(network("other"), [pool("fd00::/64"), pool("10.0.0.0/16", "wide")], choose_tag=TAGS)
    with pytest.raises(TagInUse):
        store.create_network(network("other", tag=1), [pool("fd00::/64")], choose_tag=None)
    with pytest.raises(PoolNotFound):
        store.create_network(network("other"), [str(uuid4())], choose_tag=TAGS)
    assert [one.pool.name for one in store.pools()] == ["pool-10.0.0.0"]
    assert [one.name for one in store.networks()] == ["net"]


def test_tags_are_chosen_free_or_given(store: Store) -> None:
    made = [store.create_network(network(f"n{number}"), [], choose_tag=TAGS, foreign_tags={11}) for number in range(2)]
    assert [one.tag for one in made] == [10, 12]
    with pytest.raises(Exhausted):
        store.create_network(network("n2"), [], choose_tag=TAGS, foreign_tags={11})
    assert (
        store.create_network(network("n2", bridge="br1"), [], choose_tag=TAGS).tag == 10
    )  # another bridge, other tags
    assert store.create_network(network("n3", tag=0), [], choose_tag=None).tag == 0
    for tag in (0, 12):
        with pytest.raises(TagInUse):
            store.create_network(network("n4", tag=tag), [], choose_tag=None)
    with pytest.raises(AlreadyExists):
        store.create_network(network("n3", tag=7), [], choose_tag=None)


def test_two_controllers_choose_different_tags(connect: Connect) -> None:
    stores = [connect("a"), connect("b")]
    with ThreadPoolExecutor(8) as threads:
        made = list(
            threads.map(
                lambda number: stores[number % 2].create_network(network(f"n{number}"), [], choose_tag=range(1, 21)),
                range(20),
            )
        )
    assert {one.tag for one in made} == set(range(1, 21))


def test_docker_ids_come_and_go(store: Store) -> None:
    made = joined(store)
    store.set_docker_ids(made.uuid, add=["x", "y"])
    store.set_docker_ids(made.uuid, add=["y"], remove=["x", "z"])
    assert store.network("net").docker_ids == {"y"}
    store.delete_network(made.uuid)
    with pytest.raises(NetworkNotFound):
        store.set_docker_ids(made.uuid, add=["x"])


def test_a_network_goes_with_its_pools_or_not_at_all(store: Store) -> None:
    made = joined(store, pool(gateway="10.0.0.1"), pool("fd00::/64"))
    one = store.attach(endpoint(made))
    with pytest.raises(InUse, match="c1"):
        store.delete_network(made.uuid, made.pools)
    with pytest.raises(InUse, match="net"):
        store.delete_pool(made.pools[0])
    store.detach(one.uuid)
    stays = store.allocate(store.pools_of(made)[0], reserved("x"))
    store.allocate(store.pools_of(made)[1], docker("d/t"))  # Docker holds it for the network: goes with it
    with pytest.raises(InUse, match=str(stays)):
        store.delete_network(made.uuid, made.pools)
    assert store.networks() == [made]
    store.release(store.pools_of(made)[0], stays, {OwnerKind.RESERVED})
    store.delete_network(made.uuid, made.pools)
    store.delete_network(made.uuid, made.pools)
    assert (store.networks(), store.pools()) == ([], [])
    with pytest.raises(NetworkNotFound):
        store.pools_of(made)
    with pytest.raises(NetworkNotFound):
        store.attach(endpoint(made))


# -- endpoints --------------------------------------------------------------------------------------------------------


def test_an_endpoint_is_written_once_with_its_leases(store: Store) -> None:
    made = joined(store, pool(gateway="10.0.0.1"), pool("fd00::/64", gateway="fd00::1"))
    draft = endpoint(made, labels={"k": "v"})
    one = store.attach(draft)
    assert one == store.attach(draft) == store.attach(draft, [ip("10.0.0.2")])
    assert [str(address) for address in one.addresses] == ["10.0.0.2/24", "fd00::2/64"]
    assert one.mac == mac_for(ip("10.0.0.2"))
    assert replace(one, uuid="", addresses=(), mac="") == draft
    for a_pool in store.pools_of(made):
        assert list(held(store, a_pool).values()) == [f"gateway:{a_pool.name}", f"endpoint:{one.key}"]
    assert store.endpoint(one.uuid) == store.find_endpoint(one.key) == one
    assert store.endpoints() == store.endpoints(made.uuid) == [one]
    assert store.endpoints("other") == []
    with pytest.raises(AlreadyExists):
        store.attach(draft, [ip("10.0.0.77")])
    store.detach(one.uuid)
    store.detach(one.uuid)
    assert store.endpoints() == [] == store.endpoints(made.uuid)
    assert [len(held(store, a_pool)) for a_pool in store.pools_of(made)] == [1, 1]
    with pytest.raises(EndpointNotFound):
        store.endpoint(one.uuid)
    with pytest.raises(EndpointNotFound):
        store.set_endpoint(one.uuid, sandbox="/other")


def test_the_list_of_endpoints_follows_every_change_and_is_the_callers_own(store: Store) -> None:
    made = store.create_network(network(), [pool()], choose_tag=None)
    second, first = (store.attach(endpoint(made, name)) for name in ("c2", "c1"))
    listed = store.endpoints()
    assert listed == store.endpoints() == [first, second]
    listed.clear()
    changed = store.set_endpoint(first.uuid, sandbox="/run/netns/other")
    assert store.endpoints() == [changed, second]
    store.detach(first.uuid)
    assert store.endpoints() == [second]


def test_a_rehearsal_yields_what_the_change_would_and_writes_nothing(store: Store) -> None:
    rehearsed = store.rehearsal()
    planned = rehearsed.create_network(network(), [pool(gateway="10.0.0.1")], choose_tag=range(5, 9), foreign_tags=[5])
    assert not store.pools()
    assert not store.networks()
    made = store.create_network(network(), [pool(gateway="10.0.0.1")], choose_tag=range(5, 9), foreign_tags=[5])
    assert replace(planned, uuid=made.uuid, pools=made.pools) == made
    (use,) = store.pools()
    assert rehearsed.attach(endpoint(made)).addresses == store.attach(endpoint(made)).addresses
    with pytest.raises(InUse):
        rehearsed.delete_network(made.uuid)
    assert rehearsed.reserve(use.pool, "web") == store.reserve(use.pool, "web")
    rehearsed.unreserve(use.pool, "web")
    grown, _ = rehearsed.change_pool(use.pool.uuid, draining=True)
    assert grown.draining
    assert store.pool(use.pool.uuid).reservations.keys() == {"web"}
    assert not store.pool(use.pool.uuid).draining


def test_an_endpoint_with_wishes(store: Store) -> None:
    made = joined(store, pool(), pool("fd00::/64"))
    foreign = (ipaddress.ip_interface("192.0.2.7/24"),)
    one = store.attach(endpoint(made, mac="02:00:00:00:00:01", addresses=foreign), [ip("10.0.0.9"), ip("fd00::9")])
    assert [str(address) for address in one.addresses] == ["10.0.0.9/24", "fd00::9/64"]
    assert one.mac == "02:00:00:00:00:01"
    bare = joined(store, name="bare")
    assert store.attach(endpoint(bare, addresses=foreign)).addresses == foreign
    with pytest.raises(AddressNotInPool, match="no IPv4 pool"):
        store.attach(endpoint(bare, "c2"), [ip("10.0.0.9")])


def test_dual_stack_is_all_or_nothing(store: Store) -> None:
    made = joined(store, pool(), pool("fd00::/127"))
    for number in range(2):
        store.attach(endpoint(made, f"c{number}"))
    with pytest.raises(PoolExhausted, match="fd00::"):
        store.attach(endpoint(made, "c2"))
    with pytest.raises(AddressInUse):
        store.attach(endpoint(made, "c3"), [ip("10.0.0.99"), ip("fd00::")])
    four, six = store.pools_of(made)
    assert (len(held(store, four)), len(held(store, six)), len(store.endpoints())) == (2, 2, 2)


def test_columns_of_an_endpoint_are_changed(store: Store) -> None:
    made = joined(store, pool())
    one = store.attach(endpoint(made))
    after = store.set_endpoint(one.uuid, sandbox="/other", link="l1", port="p2", labels={"a": "b"})
    assert after == replace(one, sandbox="/other", link="l1", port="p2", labels={"a": "b"}) == store.endpoint(one.uuid)


def test_published_ports_move_from_one_endpoint_to_another(store: Store) -> None:
    made = joined(store, pool())
    web, dns, other = map(PublishedPort.parse, ("tcp/80/8080", "udp/53/53", "tcp/81/8081"))
    blue = store.attach(endpoint(made, "blue", published=(web, dns)))
    green = store.attach(endpoint(made, "green", published=(other,)))
    with pytest.raises(PortInUse):
        store.alter_endpoint(replace(green, published=(web, other)))
    with pytest.raises(PortInUse):  # it keeps what it is said to give
        store.alter_endpoint(replace(green, published=(web, other)), blue)
    assert store.endpoints() == [blue, green]
    wanted = replace(green, published=(web, other), labels={"a": "b"}, bandwidth=Bandwidth(egress_rate=9))
    left = replace(blue, published=(dns,))
    assert store.rehearsal().alter_endpoint(wanted, left) == wanted
    assert store.endpoints() == [blue, green]
    with pytest.raises(EndpointNotFound):
        store.alter_endpoint(wanted, replace(left, uuid=str(uuid4())))
    assert store.alter_endpoint(wanted, left) == replace(wanted, published=tuple(sorted(wanted.published, key=str)))
    assert store.alter_endpoint(wanted, left).bandwidth == Bandwidth(egress_rate=9)
    assert store.endpoint(blue.uuid) == left
    assert store.alter_endpoint(replace(wanted, labels={}, bandwidth=Bandwidth())).bandwidth == Bandwidth()
    store.detach(green.uuid)
    with pytest.raises(EndpointNotFound):
        store.alter_endpoint(wanted)


def test_a_network_gets_another_tag(connect: Connect) -> None:
    store, other = connect("a"), connect("b")
    told = threading.Event()
    other.watch_tags(told.set)
    made, second = joined(store, pool()), joined(store, name="second")
    store.attach(endpoint(second, trunk=(50,)))
    wait_until(lambda: len(other.networks()) == 2, "the other has them")
    assert not told.is_set()
    with pytest.raises(TagInUse):
        store.set_network_tag(made.uuid, second.tag)
    with pytest.raises(Conflict, match="trunk"):
        store.set_network_tag(second.uuid, 77)
    assert store.rehearsal().set_network_tag(made.uuid, 77).tag == 77
    assert store.set_network_tag(made.uuid, made.tag) == made
    assert store.set_network_tag(made.uuid, 77) == replace(made, tag=77)
    assert told.wait(10)
    assert other.network(made.uuid).tag == 77
    with pytest.raises(NetworkNotFound):
        store.set_network_tag(str(uuid4()), 78)


def test_addresses_are_adopted_from_docker_and_left_to_it(store: Store) -> None:
    made = joined(store, pool(gateway="10.0.0.1"))
    (four,) = store.pools_of(made)
    address = store.allocate(four, docker("d/t"))
    with pytest.raises(AddressInUse):
        store.attach(endpoint(made), [address])
    with pytest.raises(AddressInUse):  # a gateway is nobody's to adopt
        store.attach(endpoint(made), [ip("10.0.0.1")], adopt=True)
    one = store.attach(endpoint(made), [address], adopt=True)
    assert store.lease_owner(four, address) == LeaseOwner(OwnerKind.ENDPOINT, one.key)
    assert not store.release(four, address, {OwnerKind.DOCKER})
    store.detach(one.uuid, leave_to="d")
    assert store.lease_owner(four, address) == docker(f"d/{address}")
    assert store.release(four, address, {OwnerKind.DOCKER})
    assert len(held(store, four)) == 1


def test_a_detach_and_an_attach_of_one_container_in_one_transaction(store: Store) -> None:
    made = joined(store, pool())
    one = store.attach(endpoint(made))
    with store._engine.lock:
        gone = store.submit(commands.Detach(store, one.uuid))
        new = store.submit(commands.Attach(store, endpoint(made), derive_mac=mac_for))
    gone.result(10)
    again: Endpoint = new.result(10)[0]
    assert store.endpoints() == [again]
    assert again.uuid != one.uuid
    assert held(store, store.pools_of(made)[0]) == {str(again.addresses[0].ip): f"endpoint:{one.key}"}


# -- faults -----------------------------------------------------------------------------------------------------------


def test_two_nodes_share_a_24_to_the_last_address(connect: Connect) -> None:
    stores = [connect("a"), connect("b")]
    made = joined(stores[0], pool(gateway="10.0.0.1"))
    wait_until(lambda: made.uuid in stores[1].view.networks, "b sees the network")

    def attach(number: int) -> Endpoint | type[OvsnetError]:
        node = number % 2
        try:
            return stores[node].attach(endpoint(made, f"c{number}", node="ab"[node]))
        except OvsnetError as exc:
            return type(exc)

    with ThreadPoolExecutor(16) as threads:  # 8 for each node
        answers = list(threads.map(attach, range(260)))
    given = [one.addresses[0].ip for one in answers if isinstance(one, Endpoint)]
    assert len(given) == len(set(given)) == 253
    assert {one for one in answers if not isinstance(one, Endpoint)} == {PoolExhausted}
    (four,) = stores[0].pools_of(made)
    assert len(held(stores[0], four)) == 254
    started = time.monotonic()
    assert attach(1000) is PoolExhausted
    assert time.monotonic() - started < 0.1
    gone = next(one for one in answers if isinstance(one, Endpoint))
    stores[0].detach(gone.uuid)
    last = attach(1000)
    assert isinstance(last, Endpoint)
    assert last.addresses == gone.addresses


def test_leases_survive_a_killed_server(tmp_path: Path) -> None:
    """What was acknowledged stands; what was not may stand, too, and its owner gets the same when it asks again."""
    server = StateServer(tmp_path / "ovsnet.db", tmp_path)
    server.start()
    store = Store([server.remote], node="a", timeout=10, cooldown=0)
    store.start()
    try:
        made = store.create_pool(pool("10.0.0.0/16"))
        stop = threading.Event()
        acknowledged: dict[str, str] = {}

        def allocate(thread: int) -> None:
            number = 0
            while not stop.is_set():
                owner = reserved(f"{thread}.{number}")
                acknowledged[str(owner)] = str(store.allocate(made, owner))
                number += 1

        with ThreadPoolExecutor(8) as threads:
            jobs = [threads.submit(allocate, thread) for thread in range(8)]
            for _ in range(3):
                before = len(acknowledged)
                wait_until(lambda before=before: len(acknowledged) > before + 50, "allocations go on")  # type: ignore[misc]
                pid = server.pid()
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda pid=pid: server.pid() not in (None, pid), "the server is started again")  # type: ignore[misc]
            stop.set()
            for job in jobs:
                job.result(15)
        owners = {owner: address for address, owner in held(store, made).items()}
        assert owners == acknowledged
    finally:
        store.stop()
        server.stop()


def test_power_loss_keeps_what_was_acknowledged(
    state_db: OvsdbServer, store: Store, connect: Connect, tmp_path: Path
) -> None:
    made = joined(store, pool())
    expected = {}
    for number in range(20):
        one = store.attach(endpoint(made, f"c{number}"))
        expected[str(one.addresses[0].ip)] = f"endpoint:{one.key}"
    state_db.kill()
    directory = tmp_path / "copy"
    directory.mkdir()
    shutil.copy(state_db.database, directory / "conf.db")
    server = OvsdbServer(directory)
    server.start()
    try:
        after = connect("b", remote=server.remote)
        (four,) = after.pools_of(made)
        assert held(after, four) == expected
        assert len(after.endpoints()) == 20
    finally:
        server.kill()


def test_a_store_that_is_stopped_says_so(store: Store) -> None:
    made = store.create_pool(pool())
    store.stop()
    assert refusal(lambda: store.allocate(made, reserved("x"))) is not None
    assert refusal(store.pools) is not None


def test_the_boot_of_each_node_is_kept(connect: Connect) -> None:
    one, other = connect("a"), connect("b")
    assert one.boot() == ""
    for boot in ("first", "first", "second"):
        one.set_boot(boot)
        assert one.boot() == boot
    other.set_boot("theirs")
    assert (one.boot(), connect("a").boot(), other.boot()) == ("second", "second", "theirs")
