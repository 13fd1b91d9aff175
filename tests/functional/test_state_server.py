"""ovsnetd's own ovsdb-server: made, adopted, started again, stopped; databases it cannot serve."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ovsnet.errors import StateUnavailable
from ovsnet.model import Origin, Pool
from ovsnet.store import StateServer, Store
from ovsnet.store import server as server_module
from ovsnet.store.store import schema_text
from tests.harness import wait_until

POOL = Pool("", "p", "s", ipaddress.ip_network("10.0.0.0/24"), None, (), (), (), Origin.API, {})


class Makes:
    """Servers on one database, all stopped in the end."""

    def __init__(self, directory: Path, undo: ExitStack) -> None:
        self.database = directory / "state" / "ovsnet.db"
        self.run_dir = directory / "run"
        self.run_dir.mkdir()
        self._undo = undo

    def start(self) -> StateServer:
        server = StateServer(self.database, self.run_dir)
        server.start()
        self._undo.callback(server.stop)
        return server

    def create(self, schema: str, version: str) -> None:
        """A database of another version of the schema."""
        self.database.parent.mkdir()
        file = self.run_dir / "other.ovsschema"
        file.write_text(json.dumps(json.loads(schema) | {"version": version}))
        subprocess.run(["ovsdb-tool", "create", self.database, file], check=True, timeout=10)


@pytest.fixture
def makes(tmp_path: Path) -> Iterator[Makes]:
    with ExitStack() as undo:
        yield Makes(tmp_path, undo)


def pools(server: StateServer, *, make: bool = False) -> list[str]:
    """Names of the pools that are there, after making one if told to."""
    store = Store([server.remote], node="a", timeout=10, cooldown=0)
    store.start()
    try:
        store.wait_ready(10)
        if make:
            store.create_pool(POOL)
        return [one.pool.name for one in store.pools()]
    finally:
        store.stop()


def pid_of(server: StateServer) -> int:
    pid = server.pid()
    assert pid is not None
    return pid


def kill(server: StateServer) -> None:
    """kill -9, and waits until another process serves."""
    pid = pid_of(server)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server.pid() not in (None, pid), "it is started again")


def test_start_makes_the_database_and_stop_ends_the_server(makes: Makes) -> None:
    server = StateServer(makes.database, makes.run_dir)
    assert server.pid() is None
    server.start()
    pid = pid_of(server)
    assert pools(server, make=True) == ["p"]
    server.stop()
    assert server.pid() is None
    assert not Path(f"/proc/{pid}").exists()
    assert pools(makes.start()) == ["p"]


def test_a_killed_server_is_started_again_with_its_contents(makes: Makes) -> None:
    server = makes.start()
    pools(server, make=True)
    for _ in range(2):
        kill(server)
    assert pools(server) == ["p"]


def test_a_running_server_is_adopted_watched_and_stopped(makes: Makes) -> None:
    first = makes.start()
    pid = pid_of(first)
    second = StateServer(makes.database, makes.run_dir)
    second.start()
    assert second.pid() == pid
    second.stop()  # the first one sees its server end, and has it again
    wait_until(lambda: first.pid() not in (None, pid), "it is started again")


def test_the_pause_before_a_restart_grows_and_falls_back(
    makes: Makes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, server_module.__name__)
    monkeypatch.setattr(server_module, "_RESTART_PAUSES", (0.0, 3600.0))
    monkeypatch.setattr(server_module, "_STEADY", 0.0)
    server = makes.start()
    for number in range(1, 4):  # each one ran long enough by this measure
        # One that is killed while it starts did not run at all.
        wait_until(lambda: caplog.text.count("state server started") == number, "it is watched again")  # noqa: B023
        kill(server)


def test_a_server_that_hangs_is_stopped_all_the_same(makes: Makes) -> None:
    server = StateServer(makes.database, makes.run_dir)
    server.start()
    pid = pid_of(server)
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("content", [b"", b"this is no database\n", b"OVSDB JSON 5 0000\n{}\n"])
def test_a_broken_file_is_refused_and_left_as_it_is(makes: Makes, content: bytes) -> None:
    makes.database.parent.mkdir()
    makes.database.write_bytes(content)
    with pytest.raises(StateUnavailable, match=str(makes.database)):
        makes.start()
    assert makes.database.read_bytes() == content


def test_a_file_that_somebody_else_serves_is_refused(makes: Makes, tmp_path: Path) -> None:
    makes.start()
    other = tmp_path / "elsewhere"
    other.mkdir()
    with pytest.raises(StateUnavailable, match="lock"):
        StateServer(makes.database, other).start()


def test_an_older_schema_is_converted_and_a_copy_kept(makes: Makes, caplog: pytest.LogCaptureFixture) -> None:
    schema = json.loads(schema_text())
    del schema["tables"]["Pool"]["columns"]["requested_by"]
    makes.create(json.dumps(schema), "0.9.0")
    row = json.dumps(["OVSNet", {"op": "insert", "table": "Space", "row": {"name": "kept", "revision": 7}}])
    subprocess.run(["ovsdb-tool", "transact", makes.database, row], check=True, timeout=10, capture_output=True)
    with caplog.at_level(logging.INFO):
        server = makes.start()
    assert "converted" in caplog.text
    assert pools(server, make=True) == ["p"]
    query = json.dumps(["OVSNet", {"op": "select", "table": "Space", "where": [], "columns": ["name"]}])
    found = subprocess.run(
        ["ovsdb-client", "transact", server.remote, query], check=True, timeout=10, capture_output=True, text=True
    )
    assert {one["name"] for one in json.loads(found.stdout)[0]["rows"]} == {"kept", "s"}
    (copy,) = makes.database.parent.glob("*before*")
    version = subprocess.run(["ovsdb-tool", "db-version", copy], check=True, timeout=10, capture_output=True, text=True)
    assert version.stdout.strip() == "0.9.0"


def test_a_newer_schema_is_refused(makes: Makes) -> None:
    makes.create(schema_text(), "99.0.0")
    before = makes.database.read_bytes()
    with pytest.raises(StateUnavailable, match="newer"):
        makes.start()
    assert makes.database.read_bytes() == before


def test_without_the_programs_it_says_what_to_install(makes: Makes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(makes.run_dir))
    with pytest.raises(StateUnavailable) as caught:
        makes.start()
    assert "openvswitch" in caught.value.hint
