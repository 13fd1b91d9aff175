"""One host's database becomes three hosts' cluster, keeps every lease, and stands what clusters are for.

`OVSNET_TEST_ROUNDS` is how often the leader is killed under load (default 3).
"""

from __future__ import annotations

import ipaddress
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ovsnet.cli.main import cli
from ovsnet.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    InUse,
    InvalidRequest,
    NotFound,
    StateUnavailable,
)
from ovsnet.model import Endpoint, Network, Origin, Pool, TlsFiles
from ovsnet.store import StateServer, Store, cluster
from tests.conftest import FaultRow
from tests.ovsdb_cluster import Cluster, free_ports, wait_until

pytestmark = pytest.mark.long

ROUNDS = int(os.environ.get("OVSNET_TEST_ROUNDS", "3"))
BACK_WITHIN = 2.0  # seconds until writes are back after the leader's death
FAIL_WITHIN = 5.0  # seconds until a write without a majority is refused
HEAL_WITHIN = 5.0  # seconds until writes are back when there is a majority again


@contextmanager
def connected(*remotes: str, node: str = "n1", tls: TlsFiles | None = None) -> Iterator[Store]:
    store = Store(remotes, node=node, timeout=20, cooldown=0, tls=tls)
    store.start()
    try:
        store.wait_ready(15)
        yield store
    finally:
        store.stop()


def make_network(store: Store) -> Network:
    net = ipaddress.ip_network("10.7.0.0/20")
    pool = Pool("", "p", "ovsnet", net, net[1], (), (), (), Origin.API, {})
    draft = Network("", "net", "br0", 5, 1500, (), (), False, Origin.API, frozenset(), {})
    return store.create_network(draft, [pool], choose_tag=None)


def attach(store: Store, container: str) -> Endpoint:
    network = store.network("net")
    return store.attach(
        Endpoint("", network.uuid, "net", container, "eth0", Origin.CNI, store.node, "/x", (), "", 1500, "p", "e", {})
    )


def held(store: Store) -> dict[str, str]:
    """Address to owner."""
    return {str(lease.address): str(lease.owner) for lease in store.leases("p")}


@pytest.fixture
def standalone(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A database file with forty leases, and what they are; nobody serves it any more."""
    database = tmp_path / "one" / "ovsnet.db"
    server = StateServer(database, database.parent)
    server.start()
    try:
        with connected(server.remote) as store:
            make_network(store)
            for number in range(40):
                attach(store, f"c{number}")
            leases = held(store)
    finally:
        server.stop()
    return database, leases


@pytest.fixture
def three(tmp_path: Path, standalone: tuple[Path, dict[str, str]]) -> Iterator[Cluster]:
    with Cluster(tmp_path, standalone[0]) as running:
        yield running


class TestGrowing:
    def test_every_lease_is_there_on_every_member(
        self, three: Cluster, standalone: tuple[Path, dict[str, str]]
    ) -> None:
        for member in three.members:
            with connected(member.remote, node="n2") as store:
                assert held(store) == standalone[1]
        with connected(*three.remotes) as store, connected(*three.remotes, node="n2") as other:
            mine, theirs = attach(store, "late"), attach(other, "later")
            wait_until(lambda: len(held(store)) == len(standalone[1]) + 2, "both see both")
            assert not {str(one.addresses[0].ip) for one in (mine, theirs)} & set(standalone[1])
            assert attach(other, "c7").addresses == attach(store, "c7").addresses

    def test_the_old_file_stays_beside(self, three: Cluster, standalone: tuple[Path, dict[str, str]]) -> None:
        (copy,) = three.members[0].database.parent.glob("ovsnet.db.standalone-*")
        server = StateServer(copy, standalone[0].parent)
        server.start()
        try:
            with connected(server.remote) as store:
                assert held(store) == standalone[1]
        finally:
            server.stop()

    def test_status(self, three: Cluster) -> None:
        leader = three.leader()
        seen = [one.status() for one in three.members]
        assert {one.leader for one in seen} == {leader.status().server_id}
        assert len({one.cluster_id for one in seen}) == 1
        assert [one.address for one in seen] == [one.address for one in three.members]
        for status in seen:
            assert {one.address for one in status.members} == {one.address for one in three.members}
            assert (status.status, status.election_timer) == ("cluster member", cluster.ELECTION_TIMER)
        (follower, *_) = (one for one in seen if one.role == "follower")
        heard = {one.server_id: one.last_heard for one in follower.members}
        assert heard[follower.leader] is not None
        assert heard[follower.server_id] is None

    def test_the_state_server_serves_a_member(
        self, tmp_path: Path, standalone: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        database, leases = standalone
        with Cluster(tmp_path / "ports", size=1) as running:
            address = running.members[0].address  # free again when it has ended
        cluster.init(database, address)
        newer = (
            (Path(cluster.__file__).parent / "ovsnet.ovsschema").read_text().replace('"version": "', '"version": "9')
        )
        for text in (None, newer):  # the second time by a newer ovsnet
            if text:
                monkeypatch.setattr("ovsnet.store.server.schema_text", lambda text=text: text)
            server = StateServer(database, database.parent, listen=("ptcp:0:127.0.0.1",))
            server.start()
            try:
                with connected(server.remote) as store:
                    assert held(store) == leases
                have = cluster.client("get-schema-version", [server.remote], "OVSNet").strip()
                assert have.startswith("9") == bool(text)
            finally:
                server.stop()


class TestRefusals:
    def test_a_file_that_is_served(self, tmp_path: Path, standalone: tuple[Path, dict[str, str]]) -> None:
        database, leases = standalone
        saved = tmp_path / "saved.db"
        cluster.backup(database, (), saved)
        before = sorted(database.parent.iterdir())
        server = StateServer(database, database.parent)
        server.start()
        try:
            for act in (
                partial(cluster.init, database, "tcp:127.0.0.1:6644"),
                partial(cluster.join, database, "tcp:127.0.0.1:6644", ["tcp:127.0.0.2:6644"]),
                partial(cluster.restore, database, saved),
                partial(cluster.backup, database, (), tmp_path / "other.db"),
            ):
                with pytest.raises(InUse) as refused:
                    act()
                assert "systemctl stop ovsnetd" in refused.value.hint
            with pytest.raises(Conflict, match="standalone"):
                cluster.status(server.control)
            with connected(server.remote) as store:
                assert held(store) == leases
        finally:
            server.stop()
        assert set(before) <= set(database.parent.iterdir())
        assert not list(database.parent.glob("*.standalone-*"))

    def test_a_member_already_and_a_joiner_with_rows(
        self, tmp_path: Path, standalone: tuple[Path, dict[str, str]]
    ) -> None:
        database, _ = standalone
        content = database.read_bytes()
        with pytest.raises(Conflict, match="Pool, Network, Endpoint"):
            cluster.join(database, "tcp:127.0.0.1:6644", ["tcp:127.0.0.2:6644"])
        assert database.read_bytes() == content
        cluster.backup(database, (), tmp_path / "saved.db")
        cluster.init(database, "tcp:[fd00::1]:6644")
        for act in (
            partial(cluster.init, database, "tcp:127.0.0.1:6644"),
            partial(cluster.join, database, "tcp:127.0.0.1:6644", ["tcp:127.0.0.2:6644"]),
            partial(cluster.restore, database, tmp_path / "saved.db"),
        ):
            with pytest.raises(Conflict, match="member of a cluster"):
                act()

    @pytest.mark.parametrize(
        "address",
        ["", "10.0.0.1:6644", "tcp:10.0.0.1", "tcp:host:6644", "tcp:0.0.0.0:6644", "tcp:10.0.0.1:0", "tcp:10.0.0.1:70000",
         "tcp:fd00::1:6644", "ssl:[fe80::1%eth0]:6644", "unix:/x", "--tcp:10.0.0.1:1", "ssl:10.0.0.1:6644", "tcp:10.0.0.1:1\n"],
    )  # fmt: skip
    def test_addresses(self, tmp_path: Path, address: str) -> None:
        database = tmp_path / "ovsnet.db"
        with pytest.raises(InvalidRequest):
            cluster.init(database, address)
        with pytest.raises(InvalidRequest):
            cluster.join(database, "tcp:127.0.0.1:6644", [address])
        with pytest.raises(InvalidRequest):
            cluster.join(database, "tcp:127.0.0.1:6644", [])
        assert not database.exists()


class TestTls:
    @pytest.fixture
    def tls(self, tmp_path: Path) -> TlsFiles:
        """A key, and a certificate that vouches for itself."""
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        make = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=member", "-days", "2")
        cluster.run_tool(*make, "-keyout", key, "-out", certificate)
        return TlsFiles(key, certificate, certificate)

    def test_two_hosts(self, tmp_path: Path, standalone: tuple[Path, dict[str, str]], tls: TlsFiles) -> None:
        ports = free_ports(4)
        addresses = [f"ssl:127.0.0.1:{port}" for port in ports[:2]]
        databases = [standalone[0], tmp_path / "two" / "ovsnet.db"]
        with pytest.raises(InvalidRequest, match="certificates"):
            cluster.init(databases[0], addresses[0])
        cluster.init(databases[0], addresses[0], tls)
        cluster.join(databases[1], addresses[1], addresses[:1], tls)
        with ExitStack() as undo:
            for database, port in zip(databases, ports[2:], strict=True):
                server = StateServer(database, database.parent, listen=(f"pssl:{port}:127.0.0.1",), tls=tls)
                server.start()
                undo.callback(server.stop)
            remotes = [f"ssl:127.0.0.1:{port}" for port in ports[2:]]
            with connected(*remotes, tls=tls) as store:
                assert held(store) == standalone[1]
                attach(store, "late")
            cluster.backup(None, remotes, tmp_path / "saved.db", tls)
            with pytest.raises(StateUnavailable):  # without a certificate nobody gets in
                cluster.backup(None, remotes[:1], tmp_path / "other.db")


class TestCommands:
    """`ovsnet db`, from one host to two and back."""

    @pytest.fixture
    def run(self, standalone: tuple[Path, dict[str, str]]) -> Callable[..., dict[str, Any]]:
        def run(*args: str, database: Path = standalone[0], code: int = 0) -> dict[str, Any]:
            config = database.with_name("ovsnet.toml")
            config.parent.mkdir(exist_ok=True)
            config.write_text(f'state_dir = "{database.parent}"\nrun_dir = "{database.parent}"\n')
            result = CliRunner().invoke(cli, ["db", *args, "--config", str(config), "-o", "json"])
            assert result.exit_code == code, result.output
            answer: dict[str, Any] = json.loads(result.stderr if code else result.stdout)
            return answer

        return run

    def test_from_one_host_to_two_and_back(
        self, tmp_path: Path, standalone: tuple[Path, dict[str, str]], run: Callable[..., dict[str, Any]]
    ) -> None:
        first, second, saved = standalone[0], tmp_path / "two" / "ovsnet.db", tmp_path / "saved.db"
        one, two = (f"tcp:127.0.0.1:{port}" for port in free_ports(2))
        assert run("cluster", "status", code=5)["code"] == "state-unavailable"
        made = run("cluster", "init", "--local", one)
        assert f"--remote {one}" in made["next"]
        assert Path(made["copy"]).exists()
        assert run("cluster", "init", "--local", one, code=4)["code"] == "conflict"
        joined = run("cluster", "join", "--local", two, "--remote", one, database=second)
        assert joined["copy"] is None
        with ExitStack() as undo:
            for database in (first, second):
                server = StateServer(database, database.parent)
                server.start()
                undo.callback(server.stop)
            status = run("cluster", "status", database=second)
            assert (status["cluster_id"], status["status"]) == (made["cluster_id"], "cluster member")
            assert [member["address"] for member in status["members"]] == sorted([one, two])
            run("backup", str(saved), database=second)
            assert run("restore", str(saved), code=4)["code"] == "in-use"
        assert run("restore", str(saved), code=4)["code"] == "conflict"
        first.unlink()
        assert "ovsnet ipam check" in run("restore", str(saved))["next"]
        server = StateServer(first, first.parent)
        server.start()
        try:
            with connected(server.remote) as store:
                assert held(store) == standalone[1]
            assert run("cluster", "status", code=4)["code"] == "conflict"
        finally:
            server.stop()

    def test_a_host_without_a_database_of_its_own(self, tmp_path: Path) -> None:
        config = tmp_path / "ovsnet.toml"
        config.write_text('state_remotes = ["tcp:127.0.0.1:1"]\n')
        init = ["db", "cluster", "init", "--local", "tcp:127.0.0.1:6644", "--config", str(config)]
        result = CliRunner().invoke(cli, init)
        assert (result.exit_code, "no database of its own" in result.stderr) == (2, True)


class TestBackup:
    def test_from_a_running_cluster_into_a_new_host(
        self, tmp_path: Path, three: Cluster, standalone: tuple[Path, dict[str, str]]
    ) -> None:
        saved = tmp_path / "saved.db"
        follower = next(one for one in three.members if one is not three.leader())
        cluster.backup(follower.database, [follower.remote], saved)
        assert saved.stat().st_mode & 0o777 == 0o600
        with pytest.raises(AlreadyExists):
            cluster.backup(follower.database, [follower.remote], saved)
        database = tmp_path / "new" / "ovsnet.db"
        for _ in range(2):  # the second one replaces the first
            moved = cluster.restore(database, saved)
        assert moved.copy is not None
        assert moved.copy.exists()
        server = StateServer(database, database.parent)
        server.start()
        try:
            with connected(server.remote) as store:
                assert held(store) == standalone[1]
        finally:
            server.stop()

    def test_a_member_that_is_cut_off_gives_none(
        self, tmp_path: Path, three: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cluster, "_ANSWER_TIMEOUT", 1)
        left, *others = three.members
        for member in others:
            member.kill()
        saved = tmp_path / "saved.db"

        def refused() -> bool:
            saved.unlink(missing_ok=True)
            try:
                cluster.backup(left.database, [left.remote], saved)
            except StateUnavailable as exc:
                return "cut off" in exc.hint
            return False

        wait_until(refused, "the member has found out")
        assert not list(tmp_path.glob("*saved*"))

    def test_of_files_at_rest(self, tmp_path: Path, three: Cluster) -> None:
        three.kill_all()
        for number, member in enumerate(three.members):
            cluster.backup(member.database, (), tmp_path / f"saved{number}.db")
            cluster.restore(tmp_path / "new.db", tmp_path / f"saved{number}.db")
        assert [one.name for one in tmp_path.glob(".*")] == [".new.db.~lock~"]

    def test_refuses_what_is_no_backup(self, tmp_path: Path, three: Cluster) -> None:
        target = tmp_path / "x" / "ovsnet.db"
        junk = tmp_path / "junk"
        junk.write_text("junk")
        with pytest.raises(NotFound):
            cluster.restore(target, tmp_path / "absent")
        with pytest.raises(StateUnavailable):
            cluster.restore(target, junk)
        with pytest.raises(InvalidRequest):
            cluster.restore(target, three.members[0].database)
        assert not target.exists()


class Load:
    """A thread for each store that attaches and detaches containers of its own until the end; keeps what was acknowledged."""

    def __init__(self, *stores: Store) -> None:
        self.done: list[list[float]] = [[] for _ in stores]  # when a thread's write was acknowledged, monotonic seconds
        self.acknowledged: dict[str, str] = {}  # container -> address, of attaches that were answered and not undone
        self.unknown: set[str] = set()  # containers of which a write was not answered
        self._stores = stores
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(len(stores))
        self._ends: list[Future[None]] = []

    def __enter__(self) -> Load:
        self._ends = [self._pool.submit(self._work, number) for number in range(len(self._stores))]
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for end in self._ends:
            end.result(30)
        self._pool.shutdown()

    def _work(self, number: int) -> None:
        store, turn = self._stores[number], 0
        while not self._stop.is_set():
            turn += 1
            container = f"w{number}-{turn}"
            self.unknown.add(container)
            endpoint = attach(store, container)
            self.done[number].append(time.monotonic())
            if turn % 8:
                store.detach(endpoint.uuid)
                self.done[number].append(time.monotonic())
            else:
                self.acknowledged[container] = str(endpoint.addresses[0].ip)
            self.unknown.discard(container)

    def flows(self) -> None:
        """Returns when every thread has had twenty more answers."""
        for done in self.done:
            wait_until(partial(lambda done, start: len(done) > start + 20, done, len(done)), "the load goes on")

    def outage(self, since: float) -> float:
        """The longest time that a thread waited for an answer, from `since` on."""
        return max(
            after - before
            for done in self.done
            for before, after in pairwise([since, *(one for one in list(done) if one > since)])
        )

    def check(self, store: Store) -> None:
        """Every acknowledged lease is its owner's, none belongs to two, and nothing is there that nobody asked for."""
        found = {one.container: str(one.addresses[0].ip) for one in store.endpoints() if one.container.startswith("w")}
        assert {one: found.get(one) for one in self.acknowledged} == self.acknowledged
        assert found.keys() - self.acknowledged.keys() <= self.unknown
        addresses = [str(one.addresses[0].ip) for one in store.endpoints()]
        assert len(set(addresses)) == len(addresses)
        assert set(addresses) == set(held(store)) - {"10.7.0.1"}


@pytest.mark.faults
class TestLosses:
    @pytest.mark.timeout(60 + 15 * ROUNDS)
    def test_the_leader_killed_under_load(self, three: Cluster, fault_row: FaultRow) -> None:
        outages = []
        with connected(*three.remotes) as store, connected(*three.remotes, node="n2") as other:
            with Load(store, other) as load:
                for _ in range(ROUNDS):
                    load.flows()
                    leader = three.leader()
                    killed = time.monotonic()
                    leader.kill()
                    three.leader()
                    load.flows()
                    outages.append(load.outage(killed))
                    leader.start()
                    three.settle()
            wait_until(lambda: held(store) == held(other), "the same leases")
            load.check(store)
        for member in three.members:
            with connected(member.remote) as fresh:
                load.check(fresh)
        fault_row(
            fault="state cluster: leader killed under load",
            rounds=ROUNDS,
            lost=len(load.unknown),
            back=max(outages),
            gate="every write answered, the slowest within 2 s (election 1 s; asked for: election + 2 s)",
        )
        assert max(outages) <= BACK_WITHIN
        assert not load.unknown

    @pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=[pytest.mark.whole, pytest.mark.timeout(600)])])
    def test_the_leadership_handed_over_at_snapshots(self, three: Cluster, fault_row: FaultRow, rounds: int) -> None:
        with connected(*three.remotes) as store, connected(*three.remotes, node="n2") as other:
            begun = time.monotonic()
            with Load(store, other) as load:
                for _ in range(rounds):
                    load.flows()
                    old = three.leader()
                    three.transfer()
                    cluster.run_tool("ovs-appctl", f"--target={old.control}", "ovsdb-server/compact", "OVSNet")
                load.flows()
            fault_row(
                fault="state cluster: leadership handed over at a snapshot",
                rounds=rounds,
                lost=len(load.unknown),
                back=load.outage(begun),
                gate="0 failed (back: the slowest write)",
            )
            assert not load.unknown
            wait_until(lambda: held(store) == held(other), "the same leases")
            load.check(store)

    @pytest.mark.parametrize("how", ["kill", "pause"])
    def test_a_minority_refuses_soon_and_heals_soon(self, three: Cluster, how: str, fault_row: FaultRow) -> None:
        with connected(*three.remotes) as store:
            before = held(store)
            lost = [three.leader(), next(one for one in three.members if one is not three.leader())]
            for member in lost:
                getattr(member, how)()
            for _ in range(2):
                started = time.monotonic()
                with pytest.raises((StateUnavailable, DeadlineExceeded)) as refused:
                    attach(store, "minority")
                took = time.monotonic() - started
                assert took <= FAIL_WITHIN
            assert "more than half" in str(refused.value)
            for member in lost:
                if how == "kill":
                    member.start()
                else:
                    member.resume()
            healed = time.monotonic()
            three.settle()
            wait_until(lambda: store.ready, "connected again")
            address = str(attach(store, "minority").addresses[0].ip)
            back = time.monotonic() - healed
            split = held(store).keys() ^ (before.keys() | {address})
            fault_row(
                fault=f"state cluster: minority side, the others are gone by {how}",
                rounds=2,
                doubled=len(split),
                back=back,
                gate=f"refused within 5 s (here {took:.2f} s), back within 5 s, no split allocation",
            )
            assert back <= HEAL_WITHIN
            assert not split
