"""Crash points are for tests: without the switch in the environment nobody can have ovsnetd kill itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ovsnet import crashpoints
from ovsnet.config import load
from ovsnet.crashpoints import SWITCH, Point, reach
from ovsnet.daemon import Daemon
from ovsnet.errors import ConfigError


@pytest.mark.parametrize("value", [None, "", "0", "yes"])
def test_refused_without_the_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    if value is not None:
        monkeypatch.setenv(SWITCH, value)
    file = tmp_path / "ovsnet.toml"
    file.write_text(f'run_dir = "{tmp_path}/run"\nstate_dir = "{tmp_path}/state"\ncrash_at = "{tmp_path}/order"\n')
    with pytest.raises(ConfigError, match=SWITCH):
        Daemon(load(file)).start()
    assert list(tmp_path.iterdir()) == [file]


def test_only_the_point_of_the_order_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setenv(SWITCH, "1")
    monkeypatch.setattr(crashpoints, "_order", None)
    monkeypatch.setattr(os, "kill", lambda _, number: killed.append(number))
    order = tmp_path / "order"
    order.write_text(Point.POOL_GONE)
    reach(Point.POOL_GONE)  # off
    assert order.exists()
    crashpoints.arm(order)
    reach(Point.POOL_MADE)
    assert (killed, order.exists()) == ([], True)
    reach(Point.POOL_GONE)
    assert (killed, order.exists()) == ([9], False)
    reach(Point.POOL_GONE)  # the next one lives
    assert killed == [9]
