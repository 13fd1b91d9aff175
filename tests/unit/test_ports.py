"""The spare ports' thread on a switch without anything behind it: what it does behind answers, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, cast

import pytest

from ovsnet import ports
from ovsnet.link import Links
from ovsnet.model import Network, Origin, SwitchPort
from ovsnet.names import DeviceNames
from ovsnet.ports import Ports
from ovsnet.spoofing import SpoofGuard
from ovsnet.switch import Switch
from tests.harness import wait_until

NETWORK = Network("u", "net", "br0", 7, 1500, (), (), False, Origin.API, frozenset(), {})
LONG = 3600.0  # seconds


class FakeSwitch:
    """Has done at once whatever it is told, and notes it."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.claimed: dict[str, str] = {}
        self.gone: list[str] = []

    def add_ports(self, new: Sequence[SwitchPort]) -> Future[list[Any]]:
        self.made += [one.name for one in new]
        return _done()

    def wait_ports(self, names: Iterable[str], timeout: float) -> dict[str, int]:
        del timeout
        return {name: number for number, name in enumerate(names, 1)}

    def claim_port(self, name: str, endpoint: str) -> Future[list[Any]]:
        self.claimed[name] = endpoint
        return _done()

    def del_ports(self, names: Iterable[str]) -> Future[list[Any]]:
        self.gone += names
        return _done()


class FakeLinks:
    """Prepares anything."""

    def prepare_port(self, port: str, mtu: int) -> None:
        del port, mtu


class FakeGuard:
    """Guards nothing."""

    def close(self, network: Network, numbers: dict[str, int]) -> None:
        del network, numbers

    def forget(self, ports: Iterable[str]) -> None:
        del ports


def _done() -> Future[list[Any]]:
    future: Future[list[Any]] = Future()
    future.set_result([])
    return future


@pytest.fixture
def switch() -> FakeSwitch:
    return FakeSwitch()


@pytest.fixture
def start(switch: FakeSwitch) -> Iterator[Callable[[], Ports]]:
    begun: list[Ports] = []

    def make() -> Ports:
        names = DeviceNames("tst")
        made = Ports(
            cast("Switch", switch),
            cast("Links", FakeLinks()),
            cast("SpoofGuard", FakeGuard()),
            names,
            spares=4,
            idle=LONG,
            timeout=10.0,
        )
        made.start()
        begun.append(made)
        return made

    yield make
    for each in begun:
        each.stop()


def test_a_port_that_nobody_wants_goes_behind_the_answer(switch: FakeSwitch, start: Callable[[], Ports]) -> None:
    ports = start()
    ports.discard("a")
    ports.claim("b", "e")
    wait_until(lambda: switch.gone == ["a"] and switch.claimed == {"b": "e"}, "both are written")


def test_work_keeps_quiet_unless_spares_run_short(
    switch: FakeSwitch, start: Callable[[], Ports], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_HUSH", LONG)
    monkeypatch.setattr(ports, "_HUSH_MOST", LONG)
    made = start()
    first = made.take(NETWORK)
    made.replenish()
    wait_until(lambda: made.spares() == {"u": 4}, "the spares are made")
    made.hush()
    made.claim(first, "e")
    made.discard("a")
    others = [made.take(NETWORK) for _ in range(2)]
    made.replenish()
    assert made.spares() == {"u": 2}
    others.append(made.take(NETWORK))
    made.replenish()
    wait_until(lambda: made.spares() == {"u": 4}, "the spares are made again")  # by a turn that had the rest before it
    assert (switch.claimed, switch.gone) == ({}, [])
    assert len({first, *others}) == 4
    made.flush()
    assert (switch.claimed, switch.gone) == ({first: "e"}, ["a"])


def test_callers_that_ask_for_quiet_again_and_again_do_not_hold_up_removals(
    switch: FakeSwitch, start: Callable[[], Ports], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_HUSH", LONG)
    monkeypatch.setattr(ports, "_HUSH_MOST", 0.2)
    made = start()
    for name in ("a", "b"):
        made.hush()
        made.discard(name)

        def gone(name: str = name) -> bool:
            made.hush()
            return name in switch.gone

        wait_until(gone, "the port is removed")


def test_quiet_ends_by_itself(switch: FakeSwitch, start: Callable[[], Ports]) -> None:
    made = start()
    made.take(NETWORK)
    made.hush()
    made.discard("a")
    made.replenish()
    wait_until(lambda: switch.gone == ["a"] and made.spares() == {"u": 4}, "all is done")
