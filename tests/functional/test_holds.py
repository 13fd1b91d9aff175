"""Addresses that Docker was given and no row has yet, on a real ovsdb-server: nobody else gets them, and none is lost."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from ovsnet import holds
from ovsnet.errors import AddressInUse, StateUnavailable
from ovsnet.holds import Holds
from ovsnet.model import IPAddress, LeaseOwner, OwnerKind, Pool
from ovsnet.store import Store
from tests.functional.conftest import Connect
from tests.functional.test_store import endpoint, joined
from tests.functional.test_store import pool as draft
from tests.harness import wait_until
from tests.ovsdb_server import OvsdbServer

FIRST, SECOND, THIRD = (ip_address(f"10.0.0.{number}") for number in (1, 2, 3))
DOCKER, OTHER = LeaseOwner(OwnerKind.DOCKER, "1:1/a"), LeaseOwner(OwnerKind.RESERVED, "b")


@pytest.fixture
def pool(store: Store) -> Pool:
    """A pool whose only block is this node's: its first address is given."""
    pool = store.create_pool(draft())
    store.allocate(pool, OTHER)
    return pool


@pytest.fixture
def held(store: Store) -> Iterator[Holds]:
    """Holds, with the patience of a test that looks before it has passed."""
    made = Holds(store, lambda _write, _addresses: None)
    yield made
    made.stop()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written by itself."""
    monkeypatch.setattr(holds, "_PATIENCE", 60.0)


def _leases(store: Store) -> dict[IPAddress, str]:
    return {one.address: str(one.owner) for one in store.leases(store.pools()[0].pool.uuid)}


@pytest.mark.usefixtures("patient")
def test_what_is_held_is_given_to_nobody_else(store: Store, pool: Pool, held: Holds) -> None:
    network = joined(store, pool)
    assert held.take(pool, DOCKER) == SECOND
    assert _leases(store) == {FIRST: str(OTHER)}  # nothing is written
    with pytest.raises(AddressInUse):
        store.allocate(pool, LeaseOwner(OwnerKind.RESERVED, "c"), SECOND)
    with pytest.raises(AddressInUse):
        store.reserve(pool, "name", SECOND)
    assert store.next_senders(network, 1)[0].addresses == (THIRD,)
    assert store.allocate(pool, LeaseOwner(OwnerKind.RESERVED, "c")) == THIRD
    assert held.take(pool, LeaseOwner(OwnerKind.DOCKER, "1:1/b")) == ip_address("10.0.0.4")


@pytest.mark.usefixtures("patient")
def test_an_endpoint_is_written_with_what_was_held_for_it(store: Store, pool: Pool, held: Holds) -> None:
    network = joined(store, pool)
    address = held.take(pool, DOCKER)
    assert address is not None
    assert held.claim(["another pool"], [address]) == []
    claimed = held.claim([pool.uuid], [address])
    made = store.attach(endpoint(network), [address], adopt=True)
    held.end(claimed, written=True)
    assert _leases(store)[address] == f"endpoint:{made.key}"
    store.detach(made.uuid)
    assert store.allocate(pool, DOCKER, address) == address  # it is held no longer


@pytest.mark.usefixtures("patient")
def test_what_was_claimed_in_vain_is_held_again(store: Store, pool: Pool, held: Holds) -> None:
    address = held.take(pool, DOCKER)
    assert address is not None
    held.end(held.claim([pool.uuid], [address]), written=False)
    with pytest.raises(AddressInUse):
        store.allocate(pool, LeaseOwner(OwnerKind.RESERVED, "c"), address)
    held.settle(pool.uuid)
    assert _leases(store)[address] == str(DOCKER)


@pytest.mark.usefixtures("patient")
def test_nothing_is_held_that_is_being_given(state_db: OvsdbServer, store: Store, pool: Pool, held: Holds) -> None:
    network = joined(store, pool)
    state_db.pause()
    going = store.attach_soon(endpoint(network))  # takes the next address, which no row of ours has yet
    address = held.take(pool, DOCKER)
    state_db.resume()
    assert [one.ip for one in going.result().addresses] == [SECOND]
    assert address == THIRD


def test_only_a_block_of_this_node_holds_addresses(connect: Connect, store: Store) -> None:
    pool = store.create_pool(draft())
    assert store.hold(pool, DOCKER) is None  # nobody has the block
    store.allocate(pool, OTHER)
    other = connect("b")
    assert other.hold(pool, DOCKER) is None
    assert store.hold(pool, DOCKER) == SECOND


def test_what_no_endpoint_is_made_of_is_written(store: Store, pool: Pool, held: Holds) -> None:
    address = held.take(pool, DOCKER)
    assert address is not None
    wait_until(lambda: _leases(store).get(address) == str(DOCKER), "it is written by itself", 5)
    assert not held.drop(pool, address)  # that is for ReleaseAddress


@pytest.mark.usefixtures("patient")
def test_what_is_given_back_cools_down(connect: Connect, pool: Pool) -> None:
    store = connect(cooldown=60.0)
    held = Holds(store, lambda _write, _addresses: None)
    assert held.take(pool, DOCKER) == SECOND
    assert held.drop(pool, SECOND)
    assert not held.drop(pool, SECOND)
    assert held.take(pool, DOCKER) == THIRD
    held.stop()
    assert _leases(store) == {FIRST: str(OTHER), THIRD: str(DOCKER)}
    assert held.take(pool, DOCKER) is None  # after its stop nobody would write it


def test_it_is_written_once_the_server_is_back(
    state_db: OvsdbServer, connect: Connect, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "_RETRY_PAUSE", 0.1)
    store = connect(timeout=0.5)
    held = Holds(store, lambda _write, _addresses: None)
    address = held.take(pool, DOCKER)
    assert address is not None
    state_db.kill()
    wait_until(lambda: not store.ready, "the connection is gone")
    with pytest.raises(StateUnavailable):
        held.settle(pool.uuid)
    state_db.start()
    store.wait_ready(10)
    wait_until(lambda: address in _leases(store), "it is written", 10)
    held.stop()
