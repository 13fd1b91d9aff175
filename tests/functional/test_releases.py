"""What goes on behind ReleaseAddress, on a real ovsdb-server: the order, and a server that does not answer or is away."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from ovsnet import releases
from ovsnet.errors import AddressInUse, StateUnavailable
from ovsnet.model import LeaseOwner, Origin, OwnerKind, Pool
from ovsnet.releases import Releases
from ovsnet.store import Store
from tests.functional.conftest import Connect
from tests.harness import wait_until
from tests.ovsdb_server import OvsdbServer

ADDRESS = ip_address("10.0.0.9")
DOCKER, OTHER = LeaseOwner(OwnerKind.DOCKER, "1:1/a"), LeaseOwner(OwnerKind.DOCKER, "1:1/b")
KINDS = {OwnerKind.DOCKER}


@pytest.fixture
def pool(store: Store) -> Pool:
    """A pool whose address Docker has."""
    draft = Pool("", "p", "s", ipaddress.ip_network("10.0.0.0/24"), None, (), (), (), Origin.DOCKER, {})
    pool = store.create_pool(draft)
    store.allocate(pool, DOCKER, ADDRESS)
    return pool


@pytest.fixture
def behind(store: Store) -> Iterator[Releases]:
    made = Releases(store)
    yield made
    made.stop()


def test_a_release_is_not_waited_for_and_comes_before_what_settles(
    state_db: OvsdbServer, store: Store, pool: Pool, behind: Releases
) -> None:
    state_db.pause()
    behind.begin(pool, ADDRESS, KINDS)  # returns although nobody answers
    assert store.lease_owner(pool, ADDRESS) == DOCKER
    state_db.resume()
    behind.settle(pool.uuid)
    assert store.lease_owner(pool, ADDRESS) is None
    assert store.allocate(pool, OTHER, ADDRESS) == ADDRESS
    behind.settle(pool.uuid)
    assert store.lease_owner(pool, ADDRESS) == OTHER


def test_what_belongs_to_somebody_else_stays(store: Store, pool: Pool, behind: Releases) -> None:
    behind.begin(pool, ADDRESS, {OwnerKind.GATEWAY})
    behind.settle()
    assert store.lease_owner(pool, ADDRESS) == DOCKER
    with pytest.raises(AddressInUse):
        store.allocate(pool, OTHER, ADDRESS)


def test_a_release_is_tried_again_until_the_server_is_back(
    state_db: OvsdbServer, connect: Connect, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "_RETRY_PAUSE", 0.1)
    store = connect(timeout=0.5)
    behind = Releases(store)
    state_db.kill()
    wait_until(lambda: not store.ready, "the connection is gone")
    behind.begin(pool, ADDRESS, KINDS)
    with pytest.raises(StateUnavailable):
        behind.settle(pool.uuid)  # nobody may be given the address yet
    state_db.start()
    store.wait_ready(10)
    wait_until(lambda: store.lease_owner(pool, ADDRESS) is None, "the address is released")
    behind.stop()


def test_a_stop_ends_what_was_begun(state_db: OvsdbServer, connect: Connect, store: Store, pool: Pool) -> None:
    behind = Releases(connect(timeout=0.5))
    behind.begin(pool, ADDRESS, KINDS)
    behind.stop()
    assert connect().lease_owner(pool, ADDRESS) is None
    state_db.kill()
    behind.begin(pool, ADDRESS, KINDS)
    behind.stop()  # the address stays, and the log tells
    del store
