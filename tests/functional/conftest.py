"""A state database on a real ovsdb-server, and controllers' connections to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ovsnet.store import Store
from ovsnet.store.store import schema_text
from tests.ovsdb_server import OvsdbServer

Connect = Callable[..., Store]


@pytest.fixture
def state_db(tmp_path: Path) -> Iterator[OvsdbServer]:
    """A running server with an empty OVSNet database."""
    schema = tmp_path / "ovsnet.ovsschema"
    schema.write_text(schema_text(), encoding="utf-8")
    server = OvsdbServer(tmp_path, schema)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def connect(state_db: OvsdbServer) -> Iterator[Connect]:
    """Makes connected Stores of any node; they are stopped afterwards."""
    with ExitStack() as undo:

        def make(node: str = "a", *, remote: str = "", timeout: float = 10.0, cooldown: float = 0.0) -> Store:
            store = Store([remote or state_db.remote], node=node, timeout=timeout, cooldown=cooldown)
            store.start()
            undo.callback(store.stop)
            store.wait_ready(timeout)
            return store

        yield make


@pytest.fixture
def store(connect: Connect) -> Store:
    """One connected Store, of node "a"."""
    return connect()
