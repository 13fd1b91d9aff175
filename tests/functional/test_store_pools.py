"""Pools that change while they are in use, on a real database: growing, ranges, draining, reservations."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovsnet.errors import AddressInUse, AlreadyExists, InUse, InvalidRequest, NotFound, PoolExhausted, PoolOverlap
from ovsnet.model import AddressRange, Endpoint, LeaseOwner, Network, Origin, OwnerKind, Pool
from ovsnet.store import StateServer, Store

ADDRESS = ipaddress.ip_address


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateServer]:
    directory = tmp_path_factory.mktemp("state")
    server = StateServer(Path(directory, "ovsnet.db"), directory)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def store(server: StateServer) -> Iterator[Store]:
    store = Store([server.remote], node="n1", timeout=10, cooldown=0)
    store.start()
    store.wait_ready(5)
    yield store
    for endpoint in store.endpoints():
        store.detach(endpoint.uuid)
    for network in store.networks():
        store.delete_network(network.uuid)
    for use in store.pools():
        for lease in store.leases(use.pool.uuid):
            store.release(use.pool, lease.address, set(OwnerKind))
        store.delete_pool(use.pool.uuid, force=True)
    store.stop()


def make_pool(store: Store, subnet: str = "10.3.1.0/28", name: str = "p") -> Pool:
    net = ipaddress.ip_network(subnet)
    return store.create_pool(Pool("", name, "ovsnet", net, net[1], (), (), (), Origin.API, {}))


def make_network(store: Store, pool: Pool) -> Network:
    gateway = pool.gateway_interface
    draft = Network(
        "", "net", "br0", 0, 1500, (), (gateway,) if gateway else (), False, Origin.API, frozenset(), {}
    )  # fmt: skip
    return store.create_network(draft, [pool.uuid], choose_tag=range(1, 4095))


def attach(store: Store, network: Network, container: str, names: tuple[str, ...] = ()) -> Endpoint:
    draft = Endpoint(
        "", network.uuid, network.name, container, "eth0", Origin.CNI, "n1", "/x", (), "", 1500, "p", "eth0", {}
    )  # fmt: skip
    return store.attach(draft, names=names)


def ip(endpoint: Endpoint) -> str:
    return str(endpoint.addresses[0].ip)


class TestGrowing:
    def test_a_full_pool_gives_again_and_every_lease_stays(self, store: Store) -> None:
        pool = make_pool(store)
        network = make_network(store, pool)
        held = {ip(attach(store, network, f"c{i}")) for i in range(13)}
        with pytest.raises(PoolExhausted):
            attach(store, network, "late")
        grown, networks = store.change_pool(pool.uuid, subnet=ipaddress.ip_network("10.3.0.0/16"))
        assert str(grown.subnet) == "10.3.0.0/16"
        assert [str(one) for one in networks[0].gateways] == ["10.3.1.1/16"]
        assert {str(lease.address) for lease in store.leases("p")} == held | {"10.3.1.1"}
        more = {ip(attach(store, network, f"d{i}")) for i in range(100)}
        assert len(more) == 100
        assert not more & held
        for endpoint in store.endpoints():
            store.detach(endpoint.uuid)
        assert [str(lease.address) for lease in store.leases("p")] == ["10.3.1.1"]

    @pytest.mark.parametrize("subnet", ["10.3.1.0/29", "10.4.0.0/16", "fd00::/64"])
    def test_a_pool_becomes_nothing_else(self, store: Store, subnet: str) -> None:
        pool = make_pool(store)
        with pytest.raises((InvalidRequest, InUse)):
            store.change_pool(pool.uuid, subnet=ipaddress.ip_network(subnet))
        assert str(store.pool("p").subnet) == "10.3.1.0/28"

    def test_it_does_not_grow_over_another(self, store: Store) -> None:
        pool = make_pool(store)
        make_pool(store, "10.3.2.0/24", "other")
        with pytest.raises(PoolOverlap, match="other"):
            store.change_pool(pool.uuid, subnet=ipaddress.ip_network("10.3.0.0/16"))


class TestRanges:
    def test_an_exclusion_that_strands_a_lease_is_refused_and_names_it(self, store: Store) -> None:
        pool = make_pool(store)
        endpoint = attach(store, make_network(store, pool), "c1")
        with pytest.raises(InUse, match=ip(endpoint)):
            store.change_pool(pool.uuid, exclusions=(AddressRange.parse("10.3.1.2-10.3.1.14"),))

    def test_ranges_and_static_ranges_hold_from_now_on(self, store: Store) -> None:
        pool = make_pool(store, "10.3.1.0/24")
        network = make_network(store, pool)
        store.change_pool(
            pool.uuid,
            ranges=(AddressRange.parse("10.3.1.100-10.3.1.103"),),
            exclusions=(AddressRange.parse("10.3.1.101"),),
            static_ranges=(AddressRange.parse("10.3.1.102"),),
        )
        assert {ip(attach(store, network, f"c{i}")) for i in range(2)} == {"10.3.1.100", "10.3.1.103"}
        with pytest.raises(PoolExhausted):
            attach(store, network, "c3")


def test_a_draining_pool_gives_nothing_new_and_takes_back(store: Store) -> None:
    pool = make_pool(store)
    network = make_network(store, pool)
    first = attach(store, network, "c1")
    store.change_pool(pool.uuid, draining=True)
    with pytest.raises(PoolExhausted, match="draining"):
        attach(store, network, "c2")
    assert attach(store, network, "c1") == first
    store.detach(first.uuid)
    store.change_pool(pool.uuid, draining=False)
    assert attach(store, network, "c2")


class TestReservations:
    def test_the_name_gets_its_address_back_and_nobody_else_does(self, store: Store) -> None:
        pool = make_pool(store, "10.3.1.0/29")
        network = make_network(store, pool)
        assert store.reserve(pool, "web/0", ADDRESS("10.3.1.4")) == ADDRESS("10.3.1.4")
        others = {ip(attach(store, network, f"c{i}")) for i in range(4)}
        assert "10.3.1.4" not in others
        with pytest.raises(PoolExhausted):
            attach(store, network, "late")
        for round_ in range(3):
            mine = attach(store, network, f"web-{round_}", names=("other", "web/0"))
            assert ip(mine) == "10.3.1.4"
            with pytest.raises(AddressInUse):
                attach(store, network, "twin", names=("web/0",))
            store.detach(mine.uuid)
            assert store.lease_owner(pool, ADDRESS("10.3.1.4")) == LeaseOwner(OwnerKind.RESERVED, "web/0")

    def test_is_idempotent_and_refuses_contradictions(self, store: Store) -> None:
        pool = make_pool(store)
        kept = store.reserve(pool, "a")
        assert store.reserve(pool, "a") == kept == store.reserve(pool, "a", kept)
        with pytest.raises(AlreadyExists):
            store.reserve(pool, "a", ADDRESS("10.3.1.9"))
        with pytest.raises(AddressInUse):
            store.reserve(pool, "b", kept)

    def test_ends_at_once_when_idle_and_with_the_endpoint_when_not(self, store: Store) -> None:
        pool = make_pool(store)
        network = make_network(store, pool)
        idle, busy = store.reserve(pool, "idle"), store.reserve(pool, "busy")
        endpoint = attach(store, network, "c", names=("busy",))
        assert store.unreserve(pool, "idle") == idle
        assert store.unreserve(pool, "busy") == busy
        assert store.lease_owner(pool, idle) is None
        assert store.lease_owner(pool, busy) is not None
        store.detach(endpoint.uuid)
        assert store.lease_owner(pool, busy) is None
        with pytest.raises(NotFound):
            store.unreserve(pool, "busy")

    def test_keeps_the_pool_unless_forced(self, store: Store) -> None:
        pool = make_pool(store)
        store.reserve(pool, "a")
        with pytest.raises(InUse, match="reserved:a"):
            store.delete_pool(pool.uuid)
        store.delete_pool(pool.uuid, force=True)
        assert store.pools() == []
