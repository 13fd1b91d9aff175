"""Fixtures of the unit tests of the `ovsnet` command: the real app, served by cheroot on a unix socket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ovsnet.access.listener import new_server
from ovsnet.api import create_app
from ovsnet.cli.main import cli
from tests.fake_controller import FakeController


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
def path(tmp_path: Path, controller: FakeController) -> Iterator[str]:
    """The socket of a server that runs."""
    path = str(tmp_path / "api.sock")
    app = create_app(controller, controller, controller, version="9.9")
    server = new_server(path, app, threads=4, backlog=64, idle=30)
    server.expiration_interval = 0.05  # seconds until it sees that it shall stop
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield path
    finally:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def run(path: str) -> Callable[..., Result]:
    def run(*args: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, ["--socket", path, *args], prog_name="ovsnet", input=stdin)

    return run
