"""The store driven by random histories against a model that is a plain set: attach, detach, allocate, release, crash, replay.

After every step the model and the database agree, for every controller. `OVSNET_EXAMPLES` sets the number of histories (200
without it). One server serves them all: its database is emptied between them.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ovsnet.errors import AddressInUse, AlreadyExists, PoolExhausted, PoolNotFound
from ovsnet.model import Endpoint, IPAddress, LeaseOwner, Network, Origin, OwnerKind, Pool, endpoint_key
from ovsnet.store import Store
from ovsnet.store.store import schema_text
from tests.harness import wait_until
from tests.ovsdb_server import OvsdbServer

pytestmark = pytest.mark.long

TIMEOUT = 20.0
NODES = ("a", "b")
# Small enough to be full now and then. The /25 has two blocks: nodes claim, lend and give back.
SUBNETS = ("10.0.0.0/25", "fd00::/124")
GATEWAY = ipaddress.ip_address("10.0.0.1")

containers = st.sampled_from([f"c{number}" for number in range(12)])
names = st.sampled_from([f"r{number}" for number in range(6)])
nodes = st.sampled_from(NODES)
addresses = st.sampled_from([ipaddress.ip_address(f"10.0.0.{octet}") for octet in (1, 2, 3, 5, 63, 64, 65, 126)])


class Backend(Protocol):
    """Where the database is: one server, or the members of a cluster."""

    @property
    def remotes(self) -> list[str]: ...

    def crash(self) -> None:
        """kill -9 of a server, which then comes back."""


class Standalone:
    """One ovsdb-server of its own."""

    def __init__(self, directory: Path) -> None:
        schema = directory / "ovsnet.ovsschema"
        schema.write_text(schema_text(), encoding="utf-8")
        self._server = OvsdbServer(directory, schema)
        self._server.start()

    @property
    def remotes(self) -> list[str]:
        return [self._server.remote]

    def crash(self) -> None:
        self._server.kill()
        self._server.start()

    def close(self) -> None:
        self._server.kill()


class StoreMachine(RuleBasedStateMachine):
    """Two controllers, one network with an IPv4 and an IPv6 pool, and what both must hold."""

    backend: Backend

    def __init__(self) -> None:
        super().__init__()
        self._undo = ExitStack()
        self.stores: dict[str, Store] = {}
        self.network: Network
        self.pools: list[Pool]
        self.endpoints: dict[str, Endpoint] = {}  # key -> what attach answered
        self.leases: set[tuple[IPAddress, str]] = set()
        self.crashes = 0  # how many there may still be: they take most of the time

    @initialize(crashes=st.sampled_from([0, 0, 1, 2]))
    def begin(self, crashes: int) -> None:
        self.crashes = crashes
        for node in NODES:
            self._connect(node)
        store = self.stores["a"]
        for endpoint in store.endpoints():
            store.detach(endpoint.uuid)
        for network in store.networks():
            store.delete_network(network.uuid)
        for use in store.pools():
            for lease in store.leases(use.pool.uuid):
                store.release(use.pool, lease.address, set(OwnerKind))
            store.delete_pool(use.pool.uuid)
        drafts = [
            Pool("", f"v{net.version}", "s", net, GATEWAY if net.version == 4 else None, (), (), (), Origin.API, {})
            for net in map(ipaddress.ip_network, SUBNETS)
        ]
        draft = Network("", "net", "br0", 0, 1500, (), (), False, Origin.API, frozenset(), {})
        self.network = store.create_network(draft, drafts, choose_tag=range(1, 10))
        self.pools = store.pools_of(self.network)
        self.leases = {(GATEWAY, "gateway:v4")}

    def teardown(self) -> None:
        self._undo.close()

    def _connect(self, node: str) -> None:
        store = Store(self.backend.remotes, node=node, timeout=TIMEOUT, cooldown=0.0)
        store._engine.idl._session.reconnect.max_backoff = 50  # ms; many crashes in a row are not what a history tests
        store.start()
        self._undo.callback(store.stop)
        store.wait_ready(TIMEOUT)
        self.stores[node] = store

    def _settle(self) -> None:
        """Every controller has seen what the last step did: the picture of each is the model's."""
        for node, store in self.stores.items():
            wait_until(lambda store=store: self._agrees(store), f"{node} agrees", TIMEOUT)  # type: ignore[misc]

    def _agrees(self, store: Store) -> bool:
        try:
            return self._picture(store) == self._model()
        except PoolNotFound:  # the other controller has made it just now
            return False

    def _model(self) -> tuple[set[tuple[IPAddress, str]], set[Endpoint]]:
        return self.leases, {_plain(one) for one in self.endpoints.values()}

    def _picture(self, store: Store) -> tuple[set[tuple[IPAddress, str]], set[Endpoint]]:
        leases = {(lease.address, str(lease.owner)) for pool in self.pools for lease in store.leases(pool.uuid)}
        return leases, {_plain(one) for one in store.endpoints()}

    def _given(self, pool: Pool) -> set[IPAddress]:
        return {address for address, _ in self.leases if address.version == pool.subnet.version}

    def _attach(self, node: str, container: str) -> Endpoint:
        return self.stores[node].attach(self._draft(container, node))

    def _draft(self, container: str, node: str) -> Endpoint:
        return Endpoint(
            "", self.network.uuid, "net", container, "eth0", Origin.CNI, node, "/ns", (), "", 1500, "", "", Labels()
        )

    # -- moves --------------------------------------------------------------------------------------------------------

    @rule(node=nodes, container=containers)
    def attach(self, node: str, container: str) -> None:
        """A new endpoint gets free addresses; the same again gets the same, from whichever node."""
        key = endpoint_key(self.network.uuid, container, "eth0")
        if key in self.endpoints:
            assert self.stores[node].attach(self._draft(container, node)).addresses == self.endpoints[key].addresses
            return
        full = any(len(self._given(pool)) == self._room(pool) for pool in self.pools)
        try:
            endpoint = self.stores[node].attach(self._draft(container, node))
        except PoolExhausted:
            assert full, "exhausted while addresses are free"
            return
        assert not full, f"{endpoint.addresses} from a full pool"
        self._attached(endpoint)

    @rule(node=nodes, container=containers, address=addresses)
    def attach_with_address(self, node: str, container: str, address: IPAddress) -> None:
        """A given address is had by nobody else."""
        key = endpoint_key(self.network.uuid, container, "eth0")
        known = self.endpoints.get(key)
        taken = address in {one for one, _ in self.leases}
        six = len(self._given(self.pools[1])) == self._room(self.pools[1])
        try:
            endpoint = self.stores[node].attach(self._draft(container, node), [address])
        except AlreadyExists:
            assert known is not None
            assert address not in {one.ip for one in known.addresses}
        except AddressInUse:
            assert known is None
            assert taken
        except PoolExhausted:
            assert known is None
            assert six
        else:
            assert address in {one.ip for one in endpoint.addresses}
            if known is None:
                assert not taken
                self._attached(endpoint)
            else:
                assert endpoint.addresses == known.addresses

    def _attached(self, endpoint: Endpoint) -> None:
        assert len(endpoint.addresses) == len(self.pools)
        for one in endpoint.addresses:
            assert one.ip not in {address for address, _ in self.leases}, f"{one} given twice"
            self.leases.add((one.ip, f"endpoint:{endpoint.key}"))
        self.endpoints[endpoint.key] = endpoint

    def _room(self, pool: Pool) -> int:
        """How many addresses the pool can give, its gateway included."""
        return pool.subnet.num_addresses - (2 if pool.subnet.version == 4 else 1)

    @rule(node=nodes, container=containers)
    def detach(self, node: str, container: str) -> None:
        """From whichever node; what is not there is success."""
        endpoint = self.endpoints.pop(endpoint_key(self.network.uuid, container, "eth0"), None)
        if endpoint is not None:
            self.stores[node].detach(endpoint.uuid)
            self.stores[node].detach(endpoint.uuid)
            self.leases -= {(one.ip, f"endpoint:{endpoint.key}") for one in endpoint.addresses}

    @rule(node=nodes, name=names)
    def allocate(self, node: str, name: str) -> None:
        """A lease without an endpoint; the same owner has the same address again."""
        self._allocate(node, name, None)

    @rule(node=nodes, name=names, address=addresses)
    def allocate_given(self, node: str, name: str, address: IPAddress) -> None:
        """As Docker asks: the owner is the address."""
        del name
        self._allocate(node, str(address), address)

    def _allocate(self, node: str, name: str, wanted: IPAddress | None) -> None:
        pool = self.pools[0]
        owner = LeaseOwner(OwnerKind.RESERVED, name)
        holders = {address: holder for address, holder in self.leases if address.version == 4}
        mine = next((address for address, holder in holders.items() if holder == str(owner)), None)
        try:
            address = self.stores[node].allocate(pool, owner, wanted)
        except AddressInUse:
            assert wanted in holders
            assert wanted != mine
        except PoolExhausted:
            assert mine is None
            assert len(holders) == self._room(pool)
        else:
            assert wanted in (None, address)
            assert address == mine if mine else address not in holders
            self.leases.add((address, str(owner)))

    @rule(node=nodes, which=st.integers(0, 255))
    def release(self, node: str, which: int) -> None:
        """What is drawn must not depend on the leases: who got one in a race differs from run to run."""
        mine = sorted(one for one in self.leases if one[1].startswith("reserved:"))
        if not mine:
            return
        one = mine[which % len(mine)]
        assert not self.stores[node].release(self.pools[0], one[0], {OwnerKind.DOCKER})
        assert self.stores[node].release(self.pools[0], one[0], {OwnerKind.RESERVED})
        self.leases.remove(one)

    @rule(node=nodes, count=st.integers(1, 40))
    def fill(self, node: str, count: int) -> None:
        """Many at once, that share transactions, until the pool is full."""
        store, pool = self.stores[node], self.pools[0]
        owners = [LeaseOwner(OwnerKind.RESERVED, f"f{node}{number}") for number in range(count)]
        free = self._room(pool) - len(self._given(pool))
        held = {holder for _, holder in self.leases}
        news = [owner for owner in owners if str(owner) not in held]
        results = _at_once([partial(store.allocate, pool, owner) for owner in owners])
        given = {(address, str(owner)) for address, owner in zip(results, owners, strict=True) if address}
        assert len(given | self.leases) == len(self.leases) + min(free, len(news))
        assert len({address for address, _ in given | self.leases}) == len(given | self.leases), "given twice"
        self.leases |= given

    @rule(container=containers)
    def race(self, container: str) -> None:
        """Both controllers are asked for one container, and for another each, at once."""
        key = endpoint_key(self.network.uuid, container, "eth0")
        if any(len(self._given(pool)) == self._room(pool) for pool in self.pools):
            return
        same = _at_once([partial(self._attach, node, container) for node in NODES])
        assert same[0] is not None
        assert same[1] is not None
        assert same[0].uuid == same[1].uuid
        assert same[0].addresses == same[1].addresses
        if key not in self.endpoints:
            self._attached(same[0])

    # -- faults -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.crashes > 0)
    @rule()
    def crash(self) -> None:
        """kill -9 of a server; nothing acknowledged is lost."""
        self.crashes -= 1
        self.backend.crash()

    @precondition(lambda self: self.crashes > 0)
    @rule(node=nodes, container=containers)
    def crash_under_way(self, node: str, container: str) -> None:
        """kill -9 while a request is on its way: it may have landed, and the same again finds it."""
        self.crashes -= 1
        key = endpoint_key(self.network.uuid, container, "eth0")
        if any(len(self._given(pool)) == self._room(pool) for pool in self.pools):
            return
        first, _ = _at_once([partial(self._attach, node, container), self.backend.crash])
        again = self._attach(node, container)
        assert first is None or first.addresses == again.addresses
        if key not in self.endpoints:
            self._attached(again)

    @rule(node=nodes)
    def restart_controller(self, node: str) -> None:
        """ovsnetd anew: it knows nothing but the database."""
        self.stores[node].stop()
        self._connect(node)

    @invariant()
    def agrees(self) -> None:
        if self.stores:
            self._settle()
            for store in self.stores.values():
                for pool in self.pools:
                    assert store.pool_use(pool.uuid).leased == len(self._given(pool))


class Labels(dict[str, str]):
    """Labels that can be in a set: all are alike here."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 0


def _plain(endpoint: Endpoint) -> Endpoint:
    return replace(endpoint, labels=Labels())


def _at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What the calls answer, each in a thread; None for one that found the pool exhausted."""

    def call(one: Callable[[], Any]) -> Any:
        try:
            return one()
        except PoolExhausted:
            return None

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(call, calls))


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with closing(Standalone(tmp_path_factory.mktemp("standalone"))) as backend:
        yield backend


@pytest.mark.timeout(3600)
def test_the_store_agrees_with_a_plain_set(standalone: Standalone) -> None:
    run_histories(standalone, int(os.environ.get("OVSNET_EXAMPLES", "200")))


def run_histories(backend: Backend, examples: int) -> None:
    """That many random histories against the database of `backend`."""

    class Machine(StoreMachine):
        pass

    Machine.backend = backend
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
