"""The transaction engine against a real ovsdb-server that is stopped, killed, restarted and cut off."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import pytest

from ovsnet.errors import AlreadyExists, DeadlineExceeded, OvsnetError, StateUnavailable
from ovsnet.ovsdb import Command, Engine, Idl, Transaction, fetch_schema, schema_helper
from tests.harness import wait_until
from tests.ovsdb_server import OvsdbServer

SCHEMA = {
    "name": "Shop",
    "version": "1.0.0",
    "tables": {
        "Item": {
            "columns": {
                "name": {"type": "string"},
                "price": {"type": {"key": {"type": "integer", "minInteger": 0, "maxInteger": 100}}},
            },
            "indexes": [["name"]],
            "isRoot": True,
        }
    },
}


class Put(Command):
    """Insert an item unless it is there; AlreadyExists for another price. Counts how often it ran."""

    def __init__(self, engine: Engine, name: str, price: int = 1) -> None:
        super().__init__(engine)
        self.name = name
        self.price = price
        self.runs = 0

    def run_idl(self, txn: Transaction) -> None:
        self.runs += 1
        rows = self.api.idl.tables["Item"].rows.values()
        found = next((row for row in rows if row.name == self.name), None)
        if found is None:
            row = txn.insert(self.api.idl.tables["Item"])
            row.name = self.name
            row.price = self.price
            self.result = "made"
        elif found.price == self.price:
            self.result = "found"
        else:
            raise AlreadyExists(f"{self.name} costs {found.price}")


class Blind(Put):
    """Insert without looking."""

    def run_idl(self, txn: Transaction) -> None:
        row = txn.insert(self.api.idl.tables["Item"])
        row.name = self.name


class Broken(Put):
    """Write, then fail as no command should."""

    def run_idl(self, txn: Transaction) -> None:
        super().run_idl(txn)
        raise ValueError("a defect")


class BrokenAfterwards(Put):
    """Fail once it is committed."""

    def post_commit(self, txn: Transaction) -> None:
        del txn
        raise ValueError("a defect")


class Proxy:
    """Between an engine and its server; swallows what the server says while told to, and cuts the connection."""

    def __init__(self, path: Path, target: Path) -> None:
        self.remote = f"unix:{path}"
        self.swallow = threading.Event()
        self._target = str(target)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._cut_r, self._cut_w = socket.socketpair()
        self._stopped = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def cut(self) -> None:
        """Close the connection that stands; there may be a next one."""
        self._cut_w.send(b"x")

    def close(self) -> None:
        self._stopped = True
        self.cut()
        self._thread.join(10.0)
        assert not self._thread.is_alive()
        for each in (self._listener, self._cut_r, self._cut_w):
            each.close()

    def _run(self) -> None:
        while not self._stopped:
            if self._listener not in select.select([self._listener, self._cut_r], [], [])[0]:
                self._cut_r.recv(1)
                continue
            near, _ = self._listener.accept()
            # When the server is down, the engine is sent away, too.
            with near, socket.socket(socket.AF_UNIX) as far, suppress(ConnectionRefusedError):
                far.connect(self._target)
                self._relay(near, far)

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        while True:
            readable = select.select([near, far, self._cut_r], [], [])[0]
            if self._cut_r in readable:
                self._cut_r.recv(1)
                return
            for source, sink in ((near, far), (far, near)):
                if source in readable:
                    data = source.recv(65536)
                    if not data:
                        return
                    if not (source is far and self.swallow.is_set()):
                        sink.sendall(data)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OvsdbServer]:
    schema = tmp_path / "shop.ovsschema"
    schema.write_text(json.dumps(SCHEMA))
    server = OvsdbServer(tmp_path, schema)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def connect(server: OvsdbServer) -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def make(remote: str = "", *, timeout: float = 5.0, durable: bool = False) -> Engine:
        schema = fetch_schema(server.remote, "Shop", timeout, StateUnavailable)
        idl = Idl(remote or server.remote, schema_helper(schema), leader_only=False)
        engine = Engine("shop", idl, unavailable=StateUnavailable, timeout=timeout, durable=durable)
        engines.append(engine)
        engine.start()
        engine.wait_ready(timeout)
        return engine

    yield make
    for engine in engines:
        engine.stop()


def items(engine: Engine) -> set[str]:
    return engine.read(lambda: {row.name for row in engine.idl.tables["Item"].rows.values()})


def wait_gone(engine: Engine) -> None:
    until = time.monotonic() + 5.0
    while engine.ready:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_requests_that_arrive_together_share_a_transaction(server: OvsdbServer, connect: Callable[..., Engine]) -> None:
    engine = connect()
    before = server.transactions()
    with engine.lock:  # no answer is looked at meanwhile
        futures = [engine.submit(Put(engine, f"item{number}")) for number in range(50)]
    assert [engine.result(future) for future in futures] == [["made"]] * 50
    assert server.transactions() == before + 2  # the first goes at once, the others share the next
    assert len(items(engine)) == 50


def test_a_transaction_that_changes_nothing_is_not_sent(server: OvsdbServer, connect: Callable[..., Engine]) -> None:
    engine = connect(durable=True)
    engine.execute(Put(engine, "bread"))
    wait_until(lambda: 'method="transact"' in server.log.read_text(), "it is logged")  # behind the answer
    sent = server.log.read_text().count('method="transact"')
    assert engine.execute(Put(engine, "bread")) == ["found"]
    assert server.log.read_text().count('method="transact"') == sent


@pytest.mark.parametrize(
    ("bad", "expected"), [(Put, AlreadyExists), (Broken, OvsnetError), (BrokenAfterwards, OvsnetError)]
)
def test_a_failing_command_fails_alone(
    connect: Callable[..., Engine], bad: type[Put], expected: type[OvsnetError], caplog: pytest.LogCaptureFixture
) -> None:
    del caplog
    engine = connect()
    engine.execute(Put(engine, "bread", 1))
    with engine.lock:
        good = [engine.submit(Put(engine, "milk"))]
        failing = engine.submit(bad(engine, "bread" if bad is Put else "salt", 2))
        good.append(engine.submit(Put(engine, "eggs")))
    with pytest.raises(expected) as caught:
        engine.result(failing)
    assert type(caught.value) is expected
    assert [engine.result(future) for future in good] == [["made"], ["made"]]
    assert items(engine) >= {"bread", "milk", "eggs"}
    assert engine.execute(Put(engine, "after")) == ["made"]


def test_a_group_is_atomic(connect: Callable[..., Engine]) -> None:
    engine = connect()
    engine.execute(Put(engine, "bread", 1))
    with engine.lock:
        good = engine.submit(Put(engine, "milk"))
        group = engine.submit(Put(engine, "eggs"), Put(engine, "bread", 2))
    with pytest.raises(AlreadyExists):
        engine.result(group)
    assert engine.result(good) == ["made"]
    assert items(engine) == {"bread", "milk"}
    assert engine.execute(Put(engine, "eggs"), Put(engine, "salt")) == ["made", "made"]


def test_commits_are_durable_when_asked(server: OvsdbServer, connect: Callable[..., Engine]) -> None:
    connect().execute(Put(lazy := connect(), "bread"))
    wait_until(lambda: items(lazy) == {"bread"}, "the other one hears of it")
    assert '"op":"commit"' not in server.log.read_text()
    engine = connect(durable=True)
    engine.execute(Put(engine, "milk"))
    wait_until(lambda: '{"durable":true,"op":"commit"}' in server.log.read_text(), "it is logged")


def test_lazy_commits_are_durable_only_beside_others(server: OvsdbServer, connect: Callable[..., Engine]) -> None:
    engine = connect(durable=True)
    engine.execute(Put(engine, "bread"), lazy=True)
    assert '"op":"commit"' not in server.log.read_text()
    with engine.lock:  # the first goes at once, the others share the next
        futures = [engine.submit(Put(engine, f"item{number}"), lazy=number != 1) for number in range(3)]
    assert [engine.result(future) for future in futures] == [["made"]] * 3
    wait_until(lambda: server.log.read_text().count('{"durable":true,"op":"commit"}') == 1, "it is logged once")


def test_what_is_acknowledged_lazily_survives_the_servers_death(
    server: OvsdbServer, connect: Callable[..., Engine]
) -> None:
    engine = connect(durable=True)
    for number in range(5):
        engine.execute(Put(engine, f"item{number}"), lazy=True)
        server.kill()
        wait_gone(engine)
        server.start()
        engine.wait_ready(30.0)
        assert f"item{number}" in items(engine)


def test_a_silent_server_meets_the_deadline(server: OvsdbServer, connect: Callable[..., Engine]) -> None:
    engine = connect()
    server.pause()
    begin = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        engine.execute(Put(engine, "bread"), timeout=0.5)
    assert 0.4 < time.monotonic() - begin < 1.5
    with pytest.raises(StateUnavailable):
        fetch_schema(server.remote, "Shop", 0.5, StateUnavailable)
    server.resume()
    assert engine.execute(Put(engine, "bread")) in (["made"], ["found"])
    assert items(engine) == {"bread"}


def test_a_passed_deadline_in_a_batch_costs_no_processor(server: OvsdbServer, connect: Callable[..., Engine]) -> None:
    engine = connect()
    server.pause()
    with engine.lock:
        short = engine.submit(Put(engine, "bread"), timeout=0.1)
        long = engine.submit(Put(engine, "milk"), timeout=1.5)
    time.sleep(0.2)
    used = time.process_time()
    time.sleep(1.0)
    assert time.process_time() - used < 0.2
    for future in (short, long):
        with pytest.raises(DeadlineExceeded):
            engine.result(future)


def test_it_reconnects_after_the_server_was_killed(server: OvsdbServer, connect: Callable[..., Engine]) -> None:
    engine = connect()
    engine.execute(Put(engine, "bread"))
    server.kill()
    wait_gone(engine)
    with pytest.raises(StateUnavailable):
        engine.execute(Put(engine, "milk"), timeout=0.3)
    waiting = engine.submit(Put(engine, "eggs"))
    server.start()
    begin = time.monotonic()
    assert engine.result(waiting) == ["made"]
    assert time.monotonic() - begin < 0.9, "the longest pause is half a second"
    assert items(engine) == {"bread", "eggs"}


@pytest.fixture
def proxy(server: OvsdbServer, tmp_path: Path) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path / "proxy.sock", server.socket)
    yield proxy
    proxy.close()


def lose_answer(
    server: OvsdbServer, proxy: Proxy, engine: Engine, command: Command, timeout: float
) -> Future[list[str]]:
    """Have the command committed without an answer; returns when the server has written it."""
    before = server.transactions()
    proxy.swallow.set()
    future = engine.submit(command, timeout=timeout)
    until = time.monotonic() + 5.0
    while server.transactions() == before:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert not future.done()
    return future


def test_a_lost_answer_is_asked_for_again(server: OvsdbServer, proxy: Proxy, connect: Callable[..., Engine]) -> None:
    engine = connect(proxy.remote)
    command = Put(engine, "bread")
    future = lose_answer(server, proxy, engine, command, 5.0)
    written = server.transactions()
    proxy.swallow.clear()
    proxy.cut()
    assert engine.result(future) == ["found"]
    assert command.runs == 2
    assert server.transactions() == written


@pytest.mark.parametrize("reconnected", [True, False])
def test_an_outcome_that_stays_unknown_is_told_so(
    server: OvsdbServer, proxy: Proxy, connect: Callable[..., Engine], *, reconnected: bool
) -> None:
    engine = connect(proxy.remote)
    future = lose_answer(server, proxy, engine, Put(engine, "bread"), 1.0)
    if reconnected:
        proxy.cut()  # and the new connection is as silent
    else:
        server.kill()
    with pytest.raises(DeadlineExceeded):
        engine.result(future)


def test_what_the_server_refuses_fails_alone_and_soon(connect: Callable[..., Engine]) -> None:
    engine = connect(timeout=8.0)
    engine.execute(Put(engine, "bread"))
    begin = time.monotonic()
    with engine.lock:
        good = [engine.submit(Put(engine, "milk"))]
        refused = engine.submit(Blind(engine, "bread"))
        good.append(engine.submit(Put(engine, "eggs")))
    assert [engine.result(future) for future in good] == [["made"], ["made"]]
    assert time.monotonic() - begin < 1.0
    with pytest.raises(StateUnavailable, match="constraint violation"):
        engine.result(refused)
    assert time.monotonic() - begin < 4.0
    assert items(engine) == {"bread", "milk", "eggs"}


def test_waiting_ends_with_the_change_or_the_deadline(connect: Callable[..., Engine]) -> None:
    engine, other = connect(), connect()
    with pytest.raises(DeadlineExceeded):
        engine.wait_for(lambda: "bread" in items(engine), 0.2)
    threading.Timer(0.2, lambda: other.submit(Put(other, "bread"))).start()
    engine.wait_for(lambda: "bread" in items(engine), 5.0)


def test_stopping_answers_everybody(server: OvsdbServer, connect: Callable[..., Engine]) -> None:
    engine = connect()
    server.pause()
    sent = engine.submit(Put(engine, "bread"))
    time.sleep(0.1)
    queued = engine.submit(Put(engine, "milk"))
    failed: list[Exception] = []

    def wait() -> None:
        try:
            engine.wait_for(lambda: False, 5.0)
        except OvsnetError as exc:
            failed.append(exc)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.1)
    engine.stop()
    waiter.join(1.0)
    assert [type(error) for error in failed] == [StateUnavailable]
    with pytest.raises(DeadlineExceeded):
        sent.result(0)
    with pytest.raises(StateUnavailable):
        queued.result(0)
    with pytest.raises(StateUnavailable):
        engine.submit(Put(engine, "eggs"))


def test_a_schema_that_is_not_there(server: OvsdbServer, tmp_path: Path) -> None:
    with pytest.raises(StateUnavailable, match="refuses get_schema Nothing: unknown database"):
        fetch_schema(server.remote, "Nothing", 2.0, StateUnavailable)
    with pytest.raises(StateUnavailable, match="cannot be reached"):
        fetch_schema(f"unix:{tmp_path}/nobody.sock", "Shop", 2.0, StateUnavailable)
