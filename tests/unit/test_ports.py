"""The spare ports' thread on a switch without anything behind it: what it does behind answers, and when."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import pytest

from ovsnet import ports
from ovsnet.errors import LinkFailed
from ovsnet.link import Links
from ovsnet.model import IPAddress, Network, Origin, Sender, SwitchPort
from ovsnet.names import DeviceNames, mac_for
from ovsnet.ports import Ports, Spare
from ovsnet.spoofing import SpoofGuard
from ovsnet.switch import Switch
from tests.harness import wait_until

NETWORK = Network("u", "net", "br0", 7, 1500, (), (), False, Origin.API, frozenset(), {})
LONG = 3600.0  # seconds


class FakeSwitch:
    """Has done at once whatever it is told, and notes it."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.tags: dict[str, int] = {}
        self.claimed: dict[str, str] = {}
        self.gone: list[str] = []
        self.refused: set[str] = set()  # ports that are no longer like spare ones
        self.returned: list[str] = []

    def return_ports(self, ports: Mapping[SwitchPort, Mapping[str, int]]) -> Future[list[Any]]:
        names = tuple(one.name for one in ports if one.name not in self.refused)
        self.returned += names
        future: Future[list[Any]] = Future()
        future.set_result([names])
        return future

    def add_ports(self, new: Sequence[SwitchPort]) -> Future[list[Any]]:
        self.made += [one.name for one in new]
        self.tags |= {one.name: one.tag for one in new}
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
    """Prepares anything, and notes which ports got a link, and its name and MAC."""

    def __init__(self) -> None:
        self.plugged: dict[str, tuple[str, str]] = {}

    def plug_host(self, port: str, link: str, mac: str, mtu: int) -> None:
        del mtu
        self.plugged[port] = (link, mac)

    def prepare_port(self, port: str, mtu: int) -> None:
        del port, mtu

    def counters(self, port: str) -> dict[str, int]:
        del port
        return {}


class FakeGuard:
    """Guards what it is told to, and notes who may send by which port."""

    def __init__(self) -> None:
        self.on = True
        self.admitted: dict[str, Sender | None] = {}

    def applies(self, network: Network) -> bool:
        del network
        return self.on

    def prepare(
        self, network: Network, senders: Mapping[str, Sender | None], numbers: Mapping[str, int] | None = None
    ) -> None:
        del network, numbers
        self.admitted.update(senders)

    def forget(self, ports: Iterable[str]) -> None:
        del ports


class FakeStore:
    """Gives 10.0.0.1, 10.0.0.2, ... as far as they are not `given` yet."""

    def __init__(self) -> None:
        self.given: set[IPAddress] = set()

    def next_senders(self, network: Network, count: int, besides: Collection[IPAddress] = ()) -> list[Sender]:
        del network
        free = (one for number in range(1, 200) if (one := address(number)) not in {*besides, *self.given})
        return [Sender(mac_for(one), (one,)) for one in islice(free, count)]

    def still_next(self, network: Network, sender: Sender) -> bool:
        del network
        return not self.given.intersection(sender.addresses)


def address(number: int) -> IPAddress:
    return ipaddress.ip_address(f"10.0.0.{number}")


def _done() -> Future[list[Any]]:
    future: Future[list[Any]] = Future()
    future.set_result([])
    return future


@pytest.fixture
def switch() -> FakeSwitch:
    return FakeSwitch()


@pytest.fixture
def links() -> FakeLinks:
    return FakeLinks()


@pytest.fixture
def guard() -> FakeGuard:
    return FakeGuard()


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def start(switch: FakeSwitch, links: FakeLinks, guard: FakeGuard, store: FakeStore) -> Iterator[Callable[[], Ports]]:
    begun: list[Ports] = []

    def make() -> Ports:
        names = DeviceNames("tst")
        made = Ports(
            cast("Switch", switch),
            cast("Links", links),
            cast("SpoofGuard", guard),
            names,
            expects=store,
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
    first = made.take(NETWORK).name
    made.replenish()
    wait_until(lambda: made.spares() == {"u": 4}, "the spares are made")
    made.hush()
    made.claim(first, "e")
    made.discard("a")
    others = [made.take(NETWORK).name for _ in range(2)]
    made.replenish()
    assert made.spares() == {"u": 2}
    others.append(made.take(NETWORK).name)
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


def expected(spares: Iterable[Spare]) -> list[str]:
    return [str(one.expected.addresses[0]) if one.expected else "" for one in spares]


def ready(ports: Ports) -> list[Spare]:
    """The spares of the network, in their order."""
    shelf = ports._shelves.get("u")
    return list(shelf.ready) if shelf else []


def filled(start: Callable[[], Ports], store: FakeStore) -> Ports:
    """Ports with four spares, of which the first was taken by the owner of 10.0.0.1."""
    ports = start()
    first = ports.take(NETWORK)
    store.given.add(address(1))
    ports.claim(first.name, "e")
    ports.replenish()
    wait_until(lambda: len(ready(ports)) == 4, "the spares are made")
    return ports


def test_spares_expect_who_comes_next(start: Callable[[], Ports], store: FakeStore, guard: FakeGuard) -> None:
    ports = filled(start, store)
    assert expected(ready(ports)) == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]
    assert all(guard.admitted[one.name] == one.expected for one in ready(ports))
    asked = ports.take(NETWORK, addresses=[address(4)])
    assert expected([asked, ports.take(NETWORK)]) == ["10.0.0.4", "10.0.0.2"]
    ports.replenish()  # of those two the store has not heard yet
    wait_until(lambda: len(ready(ports)) == 2, "the others stay")
    ports.take(NETWORK, addresses=[address(99)])
    ports.replenish()
    wait_until(lambda: len(ready(ports)) == 4, "the spares are made")
    assert expected(ready(ports)) == ["10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8"]


def test_a_spare_whose_address_somebody_else_got_expects_another(
    start: Callable[[], Ports], store: FakeStore, guard: FakeGuard
) -> None:
    ports = filled(start, store)
    stale = ready(ports)[0]
    store.given.add(address(2))
    assert expected([ports.take(NETWORK)]) == ["10.0.0.3"]
    ports.claim("other", "e")  # somebody wakes the thread
    fresh = [f"10.0.0.{number}" for number in range(4, 8)]
    wait_until(lambda: expected(ready(ports)) == fresh, "it expects the next one")
    (again,) = (one for one in ready(ports) if one.name == stale.name)
    assert guard.admitted[again.name] == again.expected


def test_a_port_that_comes_back_is_a_spare_again(
    switch: FakeSwitch, start: Callable[[], Ports], store: FakeStore, guard: FakeGuard
) -> None:
    ports = filled(start, store)
    mine = ports.take(NETWORK)
    store.given.add(address(2))
    ports.give_back(mine.name, NETWORK, lambda: True)
    wait_until(lambda: len(ready(ports)) == 4, "it is back")
    assert (switch.returned, switch.gone, len(switch.made)) == ([mine.name], [], 5)
    assert expected(ready(ports)) == ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
    assert guard.admitted[mine.name] == ready(ports)[-1].expected


@pytest.mark.parametrize("why", ["occupied", "changed", "not guarded", "too many", "idle", "flushed"])
def test_a_port_that_cannot_be_a_spare_again_is_removed(
    why: str, switch: FakeSwitch, start: Callable[[], Ports], store: FakeStore, guard: FakeGuard
) -> None:
    ports = filled(start, store)
    many = [f"p{number}" for number in range(12)]  # with the four there are four times as many as are made ahead
    if why == "changed":
        switch.refused.add("mine")
    if why == "not guarded":
        guard.on = False
    if why == "too many":
        for name in many:
            ports.give_back(name, NETWORK, lambda: True)
    network = replace(NETWORK, uuid="other") if why == "idle" else NETWORK
    if why == "flushed":
        ports.hush()
    ports.give_back("mine", network, lambda: why != "occupied")
    if why == "flushed":
        ports.flush()
    wait_until(lambda: switch.gone == ["mine"], "it is removed")
    wait_until(lambda: switch.returned == (many if why == "too many" else []), "the others are kept")


@pytest.mark.parametrize("error", [LinkFailed("the kernel refuses"), TypeError("a defect")])
def test_what_fails_while_a_port_comes_back_leaves_none(
    error: Exception, switch: FakeSwitch, start: Callable[[], Ports], store: FakeStore
) -> None:
    def clear() -> bool:
        raise error

    ports = filled(start, store)
    ports.give_back("mine", NETWORK, clear)
    wait_until(lambda: switch.gone == ["mine"], "it is removed")
    assert len(ready(ports)) == 4


def test_the_spares_of_dockers_networks_have_links_that_cni_does_not_get(
    switch: FakeSwitch, links: FakeLinks, start: Callable[[], Ports]
) -> None:
    ports, network, names = start(), replace(NETWORK, origin=Origin.DOCKER), DeviceNames("tst")

    def linked() -> list[bool]:
        return [one.linked for one in ready(ports)]

    assert not ports.take(network, linked=True).linked  # made for it: it makes its link itself
    wait_until(lambda: linked() == [True] * 4, "the spares are made")
    assert links.plugged == {
        one.name: (names.docker_link(one.name), one.expected.mac) for one in ready(ports) if one.expected
    }
    mine = ports.take(network, linked=True)
    assert mine.linked
    ports.give_back(mine.name, network, lambda: links.plugged.pop(mine.name, None) is not None)
    wait_until(lambda: linked() == [True] * 4 and mine.name in links.plugged, "it is back, with another link")

    made = len(switch.made)
    assert not ports.take(network).linked
    assert len(switch.made) == made + 1  # of those that were ready it could use none
    ports.replenish()
    wait_until(lambda: linked() == [True] * 4 + [False] * 4, "there are some for anybody")
    assert not ports.take(network).linked
    assert [ports.take(network, linked=True).linked for _ in range(4)] == [True] * 4
    ports.replenish()
    wait_until(lambda: linked() == [False] * 4, "the next are anybody's")
    assert not ports.take(network, linked=True).linked


def test_spares_follow_their_networks_tag(switch: FakeSwitch, start: Callable[[], Ports]) -> None:
    ports = start()
    first = ports.take(NETWORK).name
    wait_until(lambda: ports.spares() == {"u": 4}, "there are spares")
    old = ports.shelved()
    ports.follow([NETWORK, replace(NETWORK, uuid="other", tag=8)])
    assert ports.shelved() == old
    ports.follow([replace(NETWORK, tag=8)])
    wait_until(lambda: set(switch.gone) == old, "they go")
    wait_until(lambda: ports.spares() == {"u": 4}, "there are new ones")
    assert not old & ports.shelved()
    assert switch.tags[first] == 7
    assert {switch.tags[name] for name in ports.shelved()} == {8}
    assert ports.take(replace(NETWORK, tag=9)).name not in old  # as the next who asks does, should nobody have told
    assert switch.tags[ports.take(NETWORK, tag=42).name] == 42
