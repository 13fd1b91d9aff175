"""The flows of guarded ports on a real switch: what is written, what is left alone, and what comes back."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from ovsnet.errors import SwitchUnavailable
from ovsnet.model import PortRole, Sender, SwitchPort
from ovsnet.names import DeviceNames, mac_for
from ovsnet.switch import Flows, Switch
from ovsnet.switch.openflow import Flow
from tests.harness import Ovs, run, wait_until

TIMEOUT = 20.0


@pytest.fixture
def bridge(token: str) -> str:
    return f"{token}fl"


@pytest.fixture
def switch(ovs: Ovs, token: str, bridge: str) -> Iterator[Switch]:
    with ExitStack() as undo:
        switch = Switch(ovs.remote, node=token, datapath="auto", timeout=TIMEOUT)
        switch.start()
        undo.callback(switch.stop)
        undo.callback(ovs.vsctl, "--if-exists", "del-br", bridge)
        undo.callback(ovs.ensure)
        switch.ensure_bridge(bridge)
        yield switch


@pytest.fixture
def flows(ovs: Ovs, token: str, switch: Switch) -> Iterator[Flows]:  # noqa: ARG001  # needs its bridge
    with ExitStack() as undo:
        flows = Flows(ovs.vswitchd.directory, node=token, timeout=TIMEOUT)
        flows.start()
        undo.callback(flows.stop)
        yield flows


class Bridge:
    """A bridge with ports, as `ovs-ofctl` sees it."""

    def __init__(self, ovs: Ovs, switch: Switch, token: str, name: str) -> None:
        self._ovs = ovs
        self._switch = switch
        self._names = DeviceNames(token)
        self.name = name

    def add(self, count: int) -> dict[str, int]:
        """New ports with their numbers."""
        names = [self._names.new_port() for _ in range(count)]
        self._switch.add_ports([SwitchPort(one, self.name, 7, 1400, PortRole.SPARE, "net") for one in names]).result()
        return self._switch.wait_ports(names, TIMEOUT)

    def ofctl(self, command: str, *more: str) -> str:
        management = f"unix:{self._ovs.vswitchd.directory / self.name}.mgmt"
        return run("ovs-ofctl", "-O", "OpenFlow13", "--no-stats", command, management, *more).stdout

    def lacks(self, text: str) -> bool:
        return text not in self.ofctl("dump-flows")


@pytest.fixture
def br(ovs: Ovs, switch: Switch, token: str, bridge: str) -> Bridge:
    return Bridge(ovs, switch, token, bridge)


def sender(*addresses: str, trunk: bool = False) -> Sender:
    parsed = tuple(map(ipaddress.ip_address, addresses))
    return Sender(mac_for(parsed[0]) if parsed else "02:00:00:00:00:99", parsed, trunk)


def differing(flows: Flows, bridge: str) -> frozenset[Flow]:
    return flows.observe(bridge) ^ flows.desired(bridge)


SENDERS = [
    None,
    sender("10.7.0.5"),
    sender("10.7.0.6", "fd07::6"),
    sender("fd07::7"),
    sender(),
    sender("10.7.0.8", "10.7.0.9", trunk=True),
]


def test_the_switch_has_what_is_desired(flows: Flows, br: Bridge) -> None:
    numbers = br.add(len(SENDERS))
    before = br.ofctl("dump-flows")
    wanted = dict(zip(numbers, SENDERS, strict=True))
    flows.wait(flows.guard(br.name, dict.fromkeys(numbers), numbers))
    for name, one in wanted.items():
        if one is not None:
            flows.wait(flows.admit(br.name, name, one))
    assert len(flows.observe(br.name)) > 30
    assert differing(flows, br.name) == set()  # so what we encode, it understands and tells again
    assert before.splitlines()[-1] in br.ofctl("dump-flows")
    dual = next(number for name, number in numbers.items() if wanted[name] is SENDERS[2])
    assert sum(one.cookie & 0xFFFFFFFF == dual for one in flows.observe(br.name)) <= 13
    flows.leave(br.name)
    assert br.ofctl("dump-flows") == before


def test_only_differences_are_written(flows: Flows, br: Bridge, ovs: Ovs, token: str) -> None:
    numbers = br.add(2)
    one, other = numbers
    wanted = {one: sender("10.7.0.5"), other: None}
    flows.wait(flows.guard(br.name, wanted, numbers))
    br.ofctl("add-flow", "priority=9,tcp,actions=drop")
    br.ofctl("del-flows", "arp")
    before = br.ofctl("dump-flows")
    with ExitStack() as undo:
        later = Flows(ovs.vswitchd.directory, node=token, timeout=TIMEOUT)
        later.start()
        undo.callback(later.stop)
        flows.wait(later.restore(br.name, {other: None}))
        assert differing(later, br.name) == set()
        assert len(later.observe(br.name)) < len(flows.desired(br.name))
        flows.wait(later.restore(br.name, wanted))
        assert differing(later, br.name) == set()
        assert "tcp actions=drop" in br.ofctl("dump-flows")
        assert len(before.splitlines()) < len(br.ofctl("dump-flows").splitlines())


def test_two_nodes_on_one_bridge(flows: Flows, br: Bridge, ovs: Ovs, token: str) -> None:
    numbers = br.add(2)
    one, other = numbers
    flows.wait(flows.guard(br.name, {one: sender("10.7.0.5")}, {one: numbers[one]}))
    with ExitStack() as undo:
        second = Flows(ovs.vswitchd.directory, node=f"{token}-2", timeout=TIMEOUT)
        second.start()
        undo.callback(second.stop)
        flows.wait(second.guard(br.name, {other: sender("10.7.0.6")}, {other: numbers[other]}))
        second.leave(br.name)
        assert differing(flows, br.name) == set()


def test_vswitchd_comes_back(flows: Flows, br: Bridge, ovs: Ovs) -> None:
    numbers = br.add(3)
    wanted = dict.fromkeys(numbers, sender("10.7.0.5"))
    flows.wait(flows.guard(br.name, wanted, numbers))
    ovs.kill_vswitchd()
    late, *_ = numbers
    waiting = flows.admit(br.name, late, sender("10.7.0.77"))
    assert not waiting.done()
    ovs.vswitchd.start()
    flows.wait(waiting)
    assert differing(flows, br.name) == set()
    assert "10.7.0.77" in br.ofctl("dump-flows")


def test_a_port_takes_its_flows_along(flows: Flows, br: Bridge, ovs: Ovs, switch: Switch) -> None:
    numbers = br.add(2)
    one, other = numbers
    flows.wait(flows.guard(br.name, dict.fromkeys(numbers, sender("10.7.0.5")), numbers))
    switch.del_ports([one]).result(TIMEOUT)
    flows.forget([one])
    ovs.vsctl("del-port", br.name, other)  # somebody else
    for number in numbers.values():
        wait_until(partial(br.lacks, f"in_port={number},"), "its flows are gone")


def test_what_others_delete_comes_back(flows: Flows, br: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovsnet.switch.flows._LOOK", 0.2)
    numbers = br.add(1)
    flows.wait(flows.guard(br.name, dict.fromkeys(numbers, sender("10.7.0.5")), numbers))
    flows.wait(flows.restore(br.name, dict.fromkeys(numbers, sender("10.7.0.5"))))
    br.ofctl("del-flows")
    wait_until(lambda: not differing(flows, br.name), "they are there again")
    br.ofctl("del-flows", "table=241")  # common ones
    wait_until(lambda: not differing(flows, br.name), "they are there again")


def test_a_bridge_that_speaks_another_openflow(flows: Flows, br: Bridge, ovs: Ovs) -> None:
    ovs.vsctl("set", "Bridge", br.name, "protocols=OpenFlow10")
    numbers = br.add(1)
    with pytest.raises(SwitchUnavailable, match="OpenFlow13"):
        flows.wait(flows.guard(br.name, dict.fromkeys(numbers), numbers))
    ovs.vsctl("clear", "Bridge", br.name, "protocols")
    wait_until(lambda: _usable(flows, br.name), "it is used again")
    assert differing(flows, br.name) == set()


def _usable(flows: Flows, bridge: str) -> bool:
    try:
        return bool(flows.observe(bridge))
    except SwitchUnavailable:
        return False
