"""The switch room with a real ovs-vswitchd: devices appear and vanish, errors come back, restarts heal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from ovsnet.errors import SwitchUnavailable
from ovsnet.model import PortRole, SwitchPort
from ovsnet.names import DeviceNames
from ovsnet.switch import Switch
from tests.harness import Netns, Ovs, run, wait_until

TIMEOUT = 20.0


@pytest.fixture
def bridge(token: str) -> str:
    return f"{token}sw"


@pytest.fixture
def switch(ovs: Ovs, token: str, bridge: str) -> Iterator[Switch]:
    """A switch room of a node of its own, with its bridge."""
    with ExitStack() as undo:
        switch = Switch(ovs.remote, node=f"{token}-switch", datapath="auto", timeout=TIMEOUT)
        switch.start()
        undo.callback(switch.stop)
        undo.callback(ovs.vsctl, "--if-exists", "del-br", bridge)
        undo.callback(ovs.ensure)
        switch.ensure_bridge(bridge)
        yield switch


class Maker:
    """Describes ports of one bridge."""

    def __init__(self, token: str, bridge: str) -> None:
        self._names = DeviceNames(token)
        self._bridge = bridge

    def __call__(self, **other: Any) -> SwitchPort:
        fields: dict[str, Any] = {"tag": 7, "mtu": 1400, "role": PortRole.SPARE, "network": "net"}
        return SwitchPort(name=self._names.new_port(), bridge=self._bridge, **fields | other)


@pytest.fixture
def port(token: str, bridge: str) -> Maker:
    return Maker(token, bridge)


def done(future: Future[list[Any]]) -> Any:
    (result,) = future.result(TIMEOUT)
    return result


def reconfigures(ovs: Ovs) -> int:
    """How often vswitchd has gone through its whole configuration; read when it has come to rest."""

    def read() -> int:
        target = f"--target={ovs.vswitchd.control}"
        return int(run("ovs-appctl", target, "coverage/read-counter", "bridge_reconfigure").stdout)

    last = -1
    while (now := read()) != last:
        last = now
        time.sleep(0.3)
    return now


def links(host: Netns) -> dict[str, dict[str, Any]]:
    return {link["ifname"]: link for link in host.ip("link", "show")}


def make(switch: Switch, *ports: SwitchPort) -> None:
    done(switch.add_ports(ports))
    switch.wait_ports([port.name for port in ports], TIMEOUT)


def test_ports_have_devices_when_the_wait_is_over(switch: Switch, host: Netns, port: Maker, bridge: str) -> None:
    assert bridge in links(host)
    ports = [port(mtu=1400 + number) for number in range(4)]
    make(switch, *ports)
    there = links(host)
    assert {each.name: there[each.name]["mtu"] for each in ports} == {each.name: each.mtu for each in ports}
    assert {each.name: each.ifindex for each in switch.ports()} == {
        each.name: there[each.name]["ifindex"] for each in ports
    }
    assert not switch.delete_bridge(bridge)
    done(switch.del_ports([each.name for each in ports]))
    wait_until(lambda: not links(host).keys() & {each.name for each in ports}, "devices gone")
    assert switch.delete_bridge(bridge)
    wait_until(lambda: bridge not in links(host), "bridge gone")


def test_a_name_that_is_taken_is_told(switch: Switch, host: Netns, port: Maker) -> None:
    taken, good = port(), port()
    host.run("ip", "link", "add", taken.name, "type", "veth")
    try:
        done(switch.add_ports([taken, good]))
        with pytest.raises(SwitchUnavailable, match=taken.name):
            switch.wait_ports([taken.name], TIMEOUT)
        switch.wait_ports([good.name], TIMEOUT)
        assert {each.name for each in switch.ports() if each.error} == {taken.name}
    finally:
        done(switch.del_ports([taken.name, good.name]))
        host.run("ip", "link", "del", taken.name)


def test_a_claim_costs_vswitchd_nothing(ovs: Ovs, switch: Switch, port: Maker) -> None:
    ports = [port() for _ in range(8)]
    make(switch, *ports)
    before = reconfigures(ovs)
    for each in ports:
        done(switch.claim_port(each.name, f"endpoint of {each.name}"))
    assert reconfigures(ovs) == before
    # The counter does tell: a column that vswitchd monitors.
    ovs.vsctl("--no-wait", "set", "Interface", ports[0].name, "other_config:ovsnet-test=1")
    assert reconfigures(ovs) > before


def test_requests_at_once_share_reconfigures(ovs: Ovs, switch: Switch, port: Maker) -> None:
    before = reconfigures(ovs)
    with ThreadPoolExecutor(32) as threads:
        list(threads.map(lambda each: make(switch, each), [port() for _ in range(32)]))
    assert len(switch.ports()) == 32
    assert reconfigures(ovs) - before < 32
    done(switch.del_ports([each.name for each in switch.ports()]))


def test_a_vswitchd_that_is_away(ovs: Ovs, switch: Switch, port: Maker) -> None:
    old, new = port(), port()
    make(switch, old)
    ovs.kill_vswitchd()
    assert switch.ready
    done(switch.add_ports([new]))
    with pytest.raises(SwitchUnavailable, match="has not made"):
        switch.wait_ports([new.name], 0.3)
    ovs.vswitchd.start()
    switch.wait_ports([old.name, new.name], TIMEOUT)
    done(switch.del_ports([old.name, new.name]))


def test_a_database_that_is_away(ovs: Ovs, switch: Switch, host: Netns, port: Maker) -> None:
    old, new = port(), port()
    make(switch, old)
    ovs.server.kill9()
    wait_until(lambda: not switch.ready, "disconnection is noticed")
    ovs.server.start()
    make(switch, new)
    assert switch.ready
    assert {each.name for each in switch.ports()} == {old.name, new.name}
    assert {old.name, new.name} <= links(host).keys()
    done(switch.del_ports([old.name, new.name]))


def test_a_port_of_an_unmade_bridge(switch: Switch, port: Maker) -> None:
    with pytest.raises(SwitchUnavailable, match="does not exist"):
        done(switch.add_ports([port(), SwitchPort("onp1", "nowhere", 7, 1500, PortRole.SPARE, "net")]))
    assert switch.ports() == ()


def test_the_datapath_fits_the_kernel(ovs: Ovs, switch: Switch, bridge: str) -> None:
    del switch
    module = run("modprobe", "--dry-run", "--quiet", "openvswitch", check=False).returncode == 0
    kind = json.loads(ovs.vsctl("--format=json", "--columns=datapath_type", "list", "Bridge", bridge))["data"]
    assert kind == [["system" if module else "netdev"]]
