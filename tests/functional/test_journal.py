"""The event journal on a real store: who had which address when, through restarts, lost connections and broken files."""

from __future__ import annotations

import ipaddress
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ovsnet import journal as module
from ovsnet.errors import Unavailable
from ovsnet.journal import UNWATCHED, Journal
from ovsnet.model import Endpoint, IPAddress, LeaseOwner, LeaseRecord, Network, Origin, OwnerKind, Pool
from ovsnet.store import Store
from tests.harness import wait_until
from tests.ovsdb_server import OvsdbServer

Connect = Callable[..., Store]
Begin = Callable[..., Journal]

SUBNETS = ("10.9.0.0/24", "fd09::/64")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def begin(store: Store, path: Path) -> Iterator[Begin]:
    """Begins a journal of the store; all are stopped afterwards."""
    made: list[Journal] = []

    def begin(keep_days: float = 30, **how: Any) -> Journal:
        made.append(Journal(path, keep_days, **how))
        made[-1].start(store.watch)
        return made[-1]

    yield begin
    for one in made:
        one.stop()


@pytest.fixture
def journal(begin: Begin) -> Journal:
    return begin()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that waits little for anything."""
    for name in ("_BUSY", "_RETRY"):
        monkeypatch.setattr(module, name, 0.05)


def network(store: Store, *subnets: str, origin: Origin = Origin.API) -> Network:
    """A network with a pool for each subnet, without gateways."""
    nets = [ipaddress.ip_network(one) for one in subnets or SUBNETS[:1]]
    pools = [Pool("", f"p{one.version}", "s", one, None, (), (), (), origin, {}) for one in nets]
    draft = Network("", "net", "br0", 0, 1500, (), (), False, origin, frozenset(), {})
    return store.create_network(draft, pools, choose_tag=range(10, 13))


def endpoint(net: Network, container: str = "c1", **more: Any) -> Endpoint:
    empty = Endpoint("", net.uuid, net.name, container, "eth0", Origin.CNI, "a", "/ns", (), "", 1500, "p1", "", {})
    return replace(empty, **more)


def attach(store: Store, net: Network, container: str = "c1", address: str = "", **more: Any) -> Endpoint:
    return store.attach(endpoint(net, container, **more), [ipaddress.ip_address(address)] if address else [])


def docker(name: str) -> LeaseOwner:
    return LeaseOwner(OwnerKind.DOCKER, f"17:99/{name}")


def ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def told(journal: Journal, address: IPAddress | str) -> list[tuple[str, bool, str]]:
    """Container (or the owner's id), whether it lasts, and who released it; the latest first."""
    records = journal.history(ip(str(address)))
    assert all(one.until is None or one.since <= one.until for one in records)
    return [(one.container or one.owner.id, one.until is None, one.released_by) for one in records]


def test_from_beginning_to_end(store: Store, journal: Journal) -> None:
    net = network(store, *SUBNETS)
    before = datetime.now(UTC)
    made = attach(store, net, labels={"k8s-pod-name": "web-1"})
    for address in made.addresses:
        (record,) = journal.history(address.ip)
        assert before <= record.since <= datetime.now(UTC)
        assert record == LeaseRecord(
            address=address.ip,
            pool=f"p{address.version}",
            owner=LeaseOwner(OwnerKind.ENDPOINT, made.key),
            network="net",
            container="c1",
            ifname="eth0",
            node="a",
            labels={"k8s-pod-name": "web-1"},
            since=record.since,
            until=None,
            released_by="",
        )
    store.detach(made.uuid)
    for address in made.addresses:
        (ended,) = journal.history(address.ip)
        assert (ended.released_by, ended.container) == ("cni", "c1")
        assert ended.until is not None
        assert ended.since <= ended.until <= datetime.now(UTC)


def test_at_one_moment(store: Store, journal: Journal) -> None:
    net = network(store)
    for name in ("c1", "c2", "c3"):
        store.detach(attach(store, net, name, "10.9.0.7").uuid)
    attach(store, net, "c4", "10.9.0.7")
    records = journal.history(ip("10.9.0.7"))
    assert [one.container for one in records] == ["c4", "c3", "c2", "c1"]
    for one in records:
        assert journal.history(one.address, one.since) == [one]
        assert one.until is None or one not in journal.history(one.address, one.until)
    assert journal.history(ip("10.9.0.7"), records[-1].since - timedelta(seconds=1)) == []
    assert journal.history(ip("10.9.0.7"), datetime.now(UTC) + timedelta(days=9)) == records[:1]
    assert journal.history(ip("10.9.0.8")) == []


def test_history_outlives_pool_and_network(store: Store, journal: Journal) -> None:
    net = network(store)
    (pool,) = store.pools_of(net)
    gateway = store.allocate_gateway(pool)
    made = attach(store, net)
    store.detach(made.uuid)
    store.delete_network(net.uuid, [pool.uuid])
    assert told(journal, gateway) == [("p4", False, "api")]
    (record,) = journal.history(made.addresses[0].ip)
    assert (record.pool, record.network) == ("p4", "net")
    for ref in ("p4", pool.uuid):
        assert journal.history(made.addresses[0].ip, pool=ref) == [record]
    assert journal.history(made.addresses[0].ip, pool="p5") == []


def test_dockers_use_of_an_address_is_one_possession(store: Store, journal: Journal) -> None:
    net = network(store, origin=Origin.DOCKER)
    (pool,) = store.pools_of(net)
    address = store.allocate(pool, docker("x"))
    (given,) = journal.history(address)
    assert (given.owner.kind, given.container, given.network) == (OwnerKind.DOCKER, "", "net")
    store.hand_over(pool, address, docker("again"))  # a restarted dockerd
    made = store.attach(endpoint(net, "e1", origin=Origin.DOCKER), [address], adopt=True)
    (used,) = journal.history(address)
    assert (used.owner.id, used.container, used.since) == (made.key, "e1", given.since)
    store.detach(made.uuid, leave_to="17:99")
    assert journal.history(address) == [used]
    store.release(pool, address, {OwnerKind.DOCKER})
    assert told(journal, address) == [("e1", False, "docker")]


def test_another_endpoint_is_another_possession(store: Store, journal: Journal) -> None:
    net = network(store, origin=Origin.DOCKER)
    (pool,) = store.pools_of(net)
    address = store.allocate(pool, docker("x"))
    for name in ("e1", "e2"):
        made = store.attach(endpoint(net, name, origin=Origin.DOCKER), [address], adopt=True)
        store.detach(made.uuid, leave_to="17:99")
    assert told(journal, address) == [("e2", True, ""), ("e1", False, "docker")]


def test_a_reservation_gives_way_and_comes_back(store: Store, journal: Journal) -> None:
    net = network(store)
    (pool,) = store.pools_of(net)
    address = store.reserve(pool, "c1", None)
    made = store.attach(endpoint(net), names=["c1"])
    assert [one.ip for one in made.addresses] == [address]
    store.detach(made.uuid)
    kinds = [(one.owner.kind, one.released_by) for one in journal.history(address)]
    assert kinds == [(OwnerKind.RESERVED, ""), (OwnerKind.ENDPOINT, "cni"), (OwnerKind.RESERVED, "cni")]


def test_who_released_it(store: Store, journal: Journal) -> None:
    net = network(store, *SUBNETS)
    made = attach(store, net)
    store.detach(made.uuid, by="api")
    attach(store, net, "c2", "10.9.0.1")
    assert told(journal, "10.9.0.1") == [("c2", True, ""), ("c1", False, "api")]
    assert told(journal, made.addresses[1].ip) == [("c1", False, "api")]
    (_, pool) = store.pools_of(net)
    address = store.allocate(pool, docker("x"))
    store.release(pool, address, {OwnerKind.DOCKER}, by="repair")
    assert told(journal, address)[0] == (docker("x").id, False, "repair")


def test_other_nodes_leases(store: Store, journal: Journal, connect: Connect) -> None:
    net = network(store)
    other = connect("b")
    wait_until(lambda: other.find_network("net"), "the network is seen")
    made = attach(other, net, "far", node="b")
    wait_until(lambda: store.find_endpoint(made.key), "the endpoint is seen")
    (record,) = journal.history(made.addresses[0].ip)
    assert (record.node, record.container) == ("b", "far")


def test_what_changed_while_it_was_stopped(store: Store, begin: Begin) -> None:
    net = network(store)
    first = begin()
    stays, goes, changes = (attach(store, net, name, f"10.9.0.{10 + i}") for i, name in enumerate(("c1", "c2", "c3")))
    (since,) = (one.since for one in first.history(ip("10.9.0.10")))
    first.stop()
    store.detach(goes.uuid)
    store.detach(changes.uuid)
    attach(store, net, "c4", "10.9.0.12")
    attach(store, net, "c5", "10.9.0.13")
    again = datetime.now(UTC)
    second = begin()
    assert told(second, "10.9.0.10") == [(stays.container, True, "")]
    assert second.history(ip("10.9.0.10"))[0].since == since
    assert told(second, "10.9.0.11") == [("c2", False, UNWATCHED)]
    assert told(second, "10.9.0.12") == [("c4", True, ""), ("c3", False, UNWATCHED)]
    (found,) = second.history(ip("10.9.0.13"))
    assert (found.container, found.until) == ("c5", None)
    assert found.since >= again


def test_nothing_is_taken_for_gone_before_the_database_is_read(
    store: Store, begin: Begin, path: Path, state_db: OvsdbServer
) -> None:
    first = begin()
    made = attach(store, network(store))
    before = first.history(made.addresses[0].ip)
    first.stop()
    late = Store([state_db.remote], node="a", timeout=10, cooldown=0)
    second = Journal(path, 30)
    second.start(late.watch)
    try:
        assert second.history(made.addresses[0].ip) == before
        late.start()
        late.wait_ready(10)
        assert second.history(made.addresses[0].ip) == before
        late.detach(made.uuid)
        assert told(second, made.addresses[0].ip) == [("c1", False, "cni")]
    finally:
        late.stop()
        second.stop()


def test_stop_writes_what_waits(store: Store, begin: Begin, path: Path) -> None:
    first = begin()
    made = attach(store, network(store))
    first.stop()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT address, until FROM possession").fetchall() == [(str(made.addresses[0].ip), None)]


def test_a_lost_connection_is_no_end(store: Store, journal: Journal, state_db: OvsdbServer) -> None:
    net = network(store)
    made = attach(store, net)
    before = journal.history(made.addresses[0].ip)
    state_db.kill()
    state_db.start()
    attach(store, net, "c2")
    assert journal.history(made.addresses[0].ip) == before
    store.detach(made.uuid)
    assert told(journal, made.addresses[0].ip) == [("c1", False, "cni")]


def test_prune(store: Store, begin: Begin) -> None:
    net = network(store)
    journal = begin(keep_days=1 / 86400)
    old = attach(store, net, "old", "10.9.0.7")
    attach(store, net, "stands", "10.9.0.8")
    store.detach(old.uuid)
    journal.history(ip("10.9.0.7"))
    time.sleep(1.1)
    store.detach(attach(store, net, "new", "10.9.0.9").uuid)
    journal.prune()
    assert told(journal, "10.9.0.7") == []
    assert told(journal, "10.9.0.8") == [("stands", True, "")]
    assert told(journal, "10.9.0.9") == [("new", False, "cni")]


@pytest.mark.parametrize("how", ["no database", "cut", "newer"])
def test_a_file_that_is_of_no_use_is_set_aside(store: Store, begin: Begin, path: Path, how: str) -> None:
    path.parent.mkdir()
    if how == "no database":
        path.write_text("this is no database, and long enough to be seen as none by whoever reads it" * 20)
    else:
        begin().stop()
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode = DELETE")
            if how == "newer":
                db.execute("PRAGMA user_version = 99")
        if how == "cut":
            path.write_bytes(path.read_bytes()[:5000])
    made = attach(store, network(store))
    assert told(begin(), made.addresses[0].ip) == [("c1", True, "")]
    assert path.with_name("journal.db.broken").exists()


def test_a_file_that_breaks_meanwhile(store: Store, journal: Journal, path: Path) -> None:
    net = network(store)
    made = attach(store, net)
    assert told(journal, made.addresses[0].ip) == [("c1", True, "")]
    for one in path.parent.iterdir():
        one.write_bytes(b"\xff" * 20_000)
    attach(store, net, "c2", "10.9.0.7")

    def whole() -> bool:
        try:
            return told(journal, "10.9.0.7") == [("c2", True, "")]
        except Unavailable:  # between the old file and the new one
            return False

    wait_until(whole, "a new journal has begun")
    assert told(journal, made.addresses[0].ip) == [("c1", True, "")]
    assert journal.lost > 0


@pytest.mark.usefixtures("impatient")
def test_no_place_for_the_file(store: Store, begin: Begin, path: Path) -> None:
    path.parent.write_text("no directory")
    net = network(store)
    journal = begin()
    made = attach(store, net)
    with pytest.raises(Unavailable) as caught:
        journal.history(made.addresses[0].ip)
    assert caught.value.hint
    path.parent.unlink()
    wait_until(path.exists, "the file is made")
    wait_until(lambda: told(journal, made.addresses[0].ip) == [("c1", True, "")], "what was lost is found")
    assert journal.lost > 0


@pytest.mark.usefixtures("impatient")
def test_somebody_locks_the_file(store: Store, journal: Journal, path: Path) -> None:
    net = network(store)
    made = attach(store, net)
    assert journal.history(made.addresses[0].ip)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        store.detach(made.uuid)
        attach(store, net, "c2", "10.9.0.7")
        assert time.monotonic() - started < 3
        wait_until(lambda: journal.lost, "events are lost")
        assert told(journal, made.addresses[0].ip) == [("c1", True, "")]  # it can still be read
    wait_until(lambda: told(journal, "10.9.0.7"), "what was lost is found")
    assert told(journal, made.addresses[0].ip) == [("c1", False, UNWATCHED)]


def test_more_than_the_queue_holds(store: Store, begin: Begin) -> None:
    net = network(store)
    journal = begin(capacity=1)
    made = [attach(store, net, f"c{i}") for i in range(20)]
    assert journal.lost > 0
    wait_until(lambda: all(told(journal, one.addresses[0].ip) for one in made), "all are found")
    assert {told(journal, one.addresses[0].ip)[0][0] for one in made} == {one.container for one in made}
