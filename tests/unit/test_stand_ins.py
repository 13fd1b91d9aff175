"""What is told when there can be no stand-in; the rest takes a kernel and a dockerd, and is in tests/system."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ovsnet import stand_ins
from ovsnet.controller import Controller
from ovsnet.errors import InvalidNetns, LinkFailed
from ovsnet.link import Netns
from ovsnet.model import Endpoint, Origin
from ovsnet.stand_ins import StandIns

LEFT = Endpoint("one", "n1", "blue", "c1", "", Origin.DOCKER, "a", "/run/docker/netns/1", (), "", 1500, "p1", "l1", {})


class Nothing:
    """A context manager in a namespace's place: none is entered."""

    def __enter__(self) -> Netns:
        return cast("Netns", self)

    def __exit__(self, *exc: object) -> None:
        pass


@pytest.mark.parametrize("why", ["ENOENT", "EPERM"])
def test_a_host_without_taps_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    def refuse(*_args: Any) -> None:
        raise LinkFailed("no tap", errno=why)

    monkeypatch.setattr(stand_ins, "open_netns", lambda _path: Nothing())
    controller = SimpleNamespace(links=SimpleNamespace(stand_in=refuse))
    asked = StandIns(cast("Controller", controller), plug=refuse)
    caplog.set_level(logging.DEBUG)
    for _ in range(3):
        asked.put(LEFT)
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG", "DEBUG"]
    assert asked.take(LEFT) is None


def test_a_sandbox_that_cannot_be_seen_is_nothing_to_warn_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def hidden(path: str) -> None:
        raise InvalidNetns(path)

    monkeypatch.setattr(stand_ins, "open_netns", hidden)
    asked = StandIns(cast("Controller", SimpleNamespace()), plug=lambda _: None)
    caplog.set_level(logging.INFO)
    asked.put(LEFT)
    asked.put(replace(LEFT, uuid="two", sandbox=""))
    assert not caplog.records
