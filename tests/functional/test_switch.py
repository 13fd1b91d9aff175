"""The switch room against a real ovsdb-server; the test itself stands in for vswitchd where one is awaited."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ovsnet.errors import AlreadyExists, Conflict, NotFound, OvsnetError, SwitchUnavailable
from ovsnet.model import PortRole, SwitchPort
from ovsnet.switch import Switch
from tests.harness import wait_until
from tests.ovsdb_server import OvsdbServer

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
BRIDGE = "br0"
NETWORK = "6f0dd4bb-3f6a-4ad9-b2dc-6a8d6a6c9d0e"
ENDPOINT = "b7d1a3f0-54e1-4bb5-a6c1-9d6b6f1f4f11"
OTHER = "0c2f3d1e-8a4b-4f6e-9d7c-5b1a2e3f4a5b"

Vsctl = Callable[..., str]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OvsdbServer]:
    server = OvsdbServer(tmp_path, SCHEMA)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def vsctl(server: OvsdbServer) -> Vsctl:
    def run(*args: str) -> str:
        argv = ["ovs-vsctl", f"--db={server.remote}", "--no-wait", "--timeout=5", *args]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=10.0).stdout.strip()

    run("init")
    return run


@pytest.fixture
def connect(server: OvsdbServer, vsctl: Vsctl) -> Iterator[Callable[..., Switch]]:
    del vsctl  # it makes the initial row
    switches: list[Switch] = []

    def make(node: str = "node1", *, remote: str = server.remote, timeout: float = 3.0) -> Switch:
        switch = Switch(remote, node=node, datapath="netdev", timeout=timeout)
        switch.start()
        switches.append(switch)
        return switch

    yield make
    for switch in switches:
        switch.stop()


@pytest.fixture
def switch(connect: Callable[..., Switch], vsctl: Vsctl) -> Switch:
    """A switch with a bridge of somebody else's, made by "vswitchd"."""
    vsctl("add-br", BRIDGE)
    made(vsctl, BRIDGE, 65534)
    return connect()


def made(vsctl: Vsctl, name: str, ofport: int = 7) -> None:
    """What vswitchd writes about a device that it has made."""
    vsctl("set", "Interface", name, f"ofport={ofport}", "ifindex=42")


def port(name: str = "onp0000000001", **other: Any) -> SwitchPort:
    fields: dict[str, Any] = {"bridge": BRIDGE, "tag": 7, "mtu": 1450, "role": PortRole.SPARE, "network": NETWORK}
    return SwitchPort(name=name, **fields | other)


def done(future: Future[list[Any]]) -> Any:
    (result,) = future.result(10.0)
    return result


def error(future: Future[list[Any]]) -> OvsnetError:
    exc = future.exception(10.0)
    assert isinstance(exc, OvsnetError)
    return exc


def wait_gone(switch: Switch) -> None:
    until = time.monotonic() + 5.0
    while switch.ready:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_no_server(tmp_path: Path) -> None:
    switch = Switch(f"unix:{tmp_path}/nobody.sock", node="node1", datapath="netdev", timeout=0.5)
    with pytest.raises(SwitchUnavailable):
        switch.start()
    assert not switch.ready
    with pytest.raises(SwitchUnavailable):
        switch.ports()
    switch.stop()


def test_a_bridge_of_ours(connect: Callable[..., Switch], vsctl: Vsctl) -> None:
    switch = connect(timeout=0.5)
    with pytest.raises(SwitchUnavailable, match="has not made ovsbr0"):
        switch.ensure_bridge("ovsbr0")
    made(vsctl, "ovsbr0", 65534)
    switch.ensure_bridge("ovsbr0")
    columns = "datapath_type,fail_mode,mcast_snooping_enable,other_config,external_ids"
    assert vsctl("--bare", f"--columns={columns}", "list", "Bridge", "ovsbr0").splitlines() == [
        "netdev",
        "standalone",
        "true",
        "disable-in-band=true",
        "ovsnet-owner=node1",
    ]
    assert vsctl("get", "Interface", "ovsbr0", "type") == "internal"
    assert switch.delete_bridge("ovsbr0")
    assert not switch.delete_bridge("ovsbr0")
    assert vsctl("list-br") == ""


def test_a_foreign_bridge_is_used_as_it_is(switch: Switch, vsctl: Vsctl) -> None:
    before = vsctl("list", "Bridge")
    switch.ensure_bridge(BRIDGE)
    assert not switch.delete_bridge(BRIDGE)
    assert vsctl("list", "Bridge") == before


def test_a_bridge_with_ports_stays(connect: Callable[..., Switch], vsctl: Vsctl) -> None:
    switch = connect(timeout=0.3)
    with pytest.raises(SwitchUnavailable):
        switch.ensure_bridge("ovsbr0")
    vsctl("add-port", "ovsbr0", "eth9")
    assert not switch.delete_bridge("ovsbr0")
    vsctl("del-port", "eth9")
    assert switch.delete_bridge("ovsbr0")


def test_an_empty_database_is_told(server: OvsdbServer) -> None:
    switch = Switch(server.remote, node="node1", datapath="netdev", timeout=3.0)
    switch.start()
    try:
        with pytest.raises(SwitchUnavailable, match="empty"):
            switch.ensure_bridge("ovsbr0")
    finally:
        switch.stop()


def test_ports_carry_owner_tag_and_mtu(switch: Switch, vsctl: Vsctl) -> None:
    spare, gateway = port(), port("ong0000000001", tag=0, role=PortRole.GATEWAY)
    done(switch.add_ports([spare, gateway]))
    assert set(switch.ports()) == {spare, gateway}
    assert vsctl("get", "Port", spare.name, "tag") == "7"
    assert vsctl("get", "Port", gateway.name, "tag") == "[]"
    assert vsctl("get", "Interface", spare.name, "type", "mtu_request", "external_ids").splitlines() == [
        "internal",
        "1450",
        "{ovsnet-owner=node1}",
    ]
    done(switch.add_ports([spare, gateway]))  # again
    assert len(switch.ports()) == 2


def test_ports_are_added_all_or_none(switch: Switch) -> None:
    done(switch.add_ports([port()]))
    assert isinstance(error(switch.add_ports([port("onp2"), port(tag=8)])), AlreadyExists)
    assert isinstance(error(switch.add_ports([port("onp2"), port("onp3", bridge="nowhere")])), SwitchUnavailable)
    assert isinstance(error(switch.add_ports([port(BRIDGE)])), AlreadyExists)
    assert {each.name for each in switch.ports()} == {port().name}


def test_claiming(switch: Switch, vsctl: Vsctl) -> None:
    done(switch.add_ports([port(), port("ong1", role=PortRole.GATEWAY)]))
    done(switch.claim_port(port().name, ENDPOINT))
    done(switch.claim_port(port().name, ENDPOINT))  # again
    claimed = next(each for each in switch.ports() if each.name == port().name)
    assert (claimed.role, claimed.endpoint, claimed.network) == (PortRole.ENDPOINT, ENDPOINT, NETWORK)
    assert vsctl("get", "Interface", port().name, "external_ids") == "{ovsnet-owner=node1}"
    assert isinstance(error(switch.claim_port(port().name, OTHER)), Conflict)
    assert isinstance(error(switch.claim_port("ong1", OTHER)), Conflict)
    assert isinstance(error(switch.claim_port("onp-nobody", OTHER)), NotFound)
    vsctl("add-port", BRIDGE, "foreign")
    assert isinstance(error(switch.claim_port("foreign", OTHER)), NotFound)


def test_two_claims_on_one_port(connect: Callable[..., Switch], switch: Switch) -> None:
    done(switch.add_ports([port(f"onp{number}") for number in range(20)]))
    other = connect()
    other.wait_ports([], 1.0)
    for number in range(20):
        futures = [
            each.claim_port(f"onp{number}", endpoint)
            for each, endpoint in ((switch, ENDPOINT), (other, OTHER), (switch, OTHER))
        ]
        errors = [future.exception(10.0) for future in futures]
        winners = {endpoint for exc, endpoint in zip(errors, (ENDPOINT, OTHER, OTHER), strict=True) if exc is None}
        assert len(winners) == 1
        assert all(exc is None or isinstance(exc, Conflict) for exc in errors)


def test_deleting(switch: Switch, vsctl: Vsctl) -> None:
    done(switch.add_ports([port(), port("onp2")]))
    vsctl("add-port", BRIDGE, "foreign")
    assert done(switch.del_ports([port().name, "missing", "foreign", "onp2", "onp2"])) == (port().name, "onp2")
    assert done(switch.del_ports([port().name])) == ()
    assert switch.ports() == ()
    assert vsctl("list-ports", BRIDGE) == "foreign"
    assert set(vsctl("--bare", "--columns=name", "list", "Interface").split()) == {"foreign", BRIDGE}


def test_add_and_delete_in_one_transaction(switch: Switch) -> None:
    done(switch.add_ports([port()]))
    futures = [
        switch.claim_port(port().name, ENDPOINT),
        switch.del_ports([port().name]),
        switch.add_ports([port(tag=9)]),
        switch.claim_port(port().name, OTHER),
    ]
    for future in futures:
        done(future)
    (left,) = switch.ports()
    assert (left.tag, left.endpoint) == (9, OTHER)


def test_nodes_keep_apart(connect: Callable[..., Switch], switch: Switch) -> None:
    other = connect("node2")
    done(switch.add_ports([port()]))
    done(other.add_ports([port("onp2")]))
    assert [each.name for each in switch.ports()] == [port().name]
    assert isinstance(error(other.claim_port(port().name, ENDPOINT)), NotFound)
    assert done(other.del_ports([port().name])) == ()
    assert isinstance(error(other.add_ports([port()])), AlreadyExists)
    assert len(switch.ports()) == 1


def test_tags_of_everybody(switch: Switch, vsctl: Vsctl) -> None:
    done(switch.add_ports([port()]))
    vsctl("add-port", BRIDGE, "access", "tag=30", "--", "add-port", BRIDGE, "trunk", "trunks=40,41")
    vsctl("add-br", "other", "--", "add-port", "other", "elsewhere", "tag=50")
    until = time.monotonic() + 5.0
    while switch.tags("other") != {50}:
        assert time.monotonic() < until
    assert switch.tags(BRIDGE) == {7, 30, 40, 41}
    assert switch.tags("nowhere") == frozenset()


def test_waiting_for_devices(switch: Switch, vsctl: Vsctl) -> None:
    names = [port().name, "onp2"]
    done(switch.add_ports([port(name) for name in names]))
    made(vsctl, names[0])
    with pytest.raises(SwitchUnavailable, match="has not made onp2 "):
        switch.wait_ports(names, 0.3)
    made(vsctl, names[1])
    switch.wait_ports(names, 3.0)
    assert {each.ifindex for each in switch.ports()} == {42}


def test_an_error_of_vswitchd_ends_the_wait(switch: Switch, vsctl: Vsctl) -> None:
    done(switch.add_ports([port()]))
    vsctl("set", "Interface", port().name, 'error="no such thing"', "ofport=-1")
    with pytest.raises(SwitchUnavailable, match="no such thing"):
        switch.wait_ports([port().name], 3.0)
    assert switch.ports()[0].error == "no such thing"


def test_a_port_that_disappears_ends_the_wait(switch: Switch) -> None:
    with pytest.raises(SwitchUnavailable, match="disappeared"):
        switch.wait_ports([port().name], 3.0)


def test_it_heals_when_the_server_comes_back(server: OvsdbServer, switch: Switch) -> None:
    done(switch.add_ports([port()]))
    server.kill()
    wait_gone(switch)
    waiting = switch.add_ports([port("onp2")])
    server.start()
    done(waiting)
    assert switch.ready
    assert {each.name for each in switch.ports()} == {port().name, "onp2"}


def test_two_switches_in_one_process(
    connect: Callable[..., Switch], switch: Switch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = OvsdbServer(tmp_path_factory.mktemp("other"), SCHEMA)
    elsewhere.start()
    try:
        other = connect(remote=elsewhere.remote)
        done(switch.add_ports([port()]))
        assert other.ports() == ()
        assert len(switch.ports()) == 1
        assert other.version() == ""
    finally:
        elsewhere.kill()


def test_the_version_is_what_the_start_script_wrote(switch: Switch, vsctl: Vsctl) -> None:
    vsctl("set", "Open_vSwitch", ".", "ovs_version=3.1.0")
    until = time.monotonic() + 5.0
    while switch.version() != "3.1.0":
        assert time.monotonic() < until


def test_only_what_is_needed_is_monitored(server: OvsdbServer) -> None:
    switch = Switch(server.remote, node="node1", datapath="netdev", timeout=3.0)
    switch.start()
    switch.stop()
    requests = [line for line in server.log.read_text().splitlines() if 'method="monitor' in line]
    assert any('"mtu_request"' in line for line in requests)
    assert not any(f'"{column}"' in line for line in requests for column in ("statistics", "link_state", "cur_cfg"))


def test_limits_come_and_go_with_their_port(switch: Switch, connect: Callable[..., Switch], vsctl: Vsctl) -> None:
    def rows() -> tuple[int, int]:
        return tuple(len(vsctl("--bare", "--columns=_uuid", "list", table).split()) for table in ("QoS", "Queue"))  # type: ignore[return-value]

    other = connect("node2")
    vsctl("set", "Port", BRIDGE, "qos=@q", "--", "--id=@q", "create", "QoS", "type=linux-htb")  # an operator's own
    done(switch.add_ports([port(), port("onp2")]))
    with pytest.raises(NotFound):
        other.limit_port(port().name, 8000, 0)
    with pytest.raises(NotFound):
        switch.limit_port("missing", 8000, 0)
    switch.limit_port(port().name, 8000, 0)
    switch.limit_port("onp2", 9000, 90)
    switch.limit_port(port().name, 8000, 800)
    assert rows() == (3, 2)
    found = {one.name: (one.rate, one.burst) for one in switch.ports()}
    assert found == {port().name: (8000, 800), "onp2": (9000, 90)}
    switch.limit_port(port().name, 0, 0)
    switch.limit_port(port().name, 0, 0)
    assert rows() == (2, 1)
    switch.limit_port(port().name, 8000, 800)
    done(switch.del_ports([port().name]))
    assert rows() == (2, 1)
    vsctl("del-port", "onp2")
    assert rows() == (2, 1)
    other.sweep_limits()
    assert rows() == (2, 1)
    switch.sweep_limits()
    switch.sweep_limits()
    assert rows() == (1, 0)


def test_tags_change_in_one_transaction_and_vswitchd_is_waited_for(
    switch: Switch, connect: Callable[..., Switch], vsctl: Vsctl
) -> None:
    one, two, foreign = port(), port("onp2", tag=0), port("onp3")
    done(switch.add_ports([one, two]))
    done(connect("node2").add_ports([foreign]))
    wanted = [replace(each, tag=9) for each in (one, two, foreign, port("onp4"))]
    before = int(vsctl("get", "Open_vSwitch", ".", "next_cfg"))
    with ThreadPoolExecutor(1) as threads:
        changing = threads.submit(switch.retag_ports, wanted)
        wait_until(lambda: int(vsctl("get", "Open_vSwitch", ".", "next_cfg")) == before + 1, "it is written")
        assert not changing.done()
        vsctl("set", "Open_vSwitch", ".", f"cur_cfg={before + 1}")  # as vswitchd does
        changing.result(10)
    assert {each.name: each.tag for each in switch.ports()} == {one.name: 9, two.name: 9}
    assert vsctl("get", "Port", foreign.name, "tag") == "7"
    switch.retag_ports(wanted)  # nothing differs
    assert int(vsctl("get", "Open_vSwitch", ".", "next_cfg")) == before + 1
    impatient = connect(timeout=0.5)
    with pytest.raises(SwitchUnavailable, match="has not followed"):
        impatient.retag_ports([replace(one, tag=0)])
    assert vsctl("get", "Port", one.name, "tag") == "[]"


def test_a_port_gets_its_vlans_and_marks_back(switch: Switch, connect: Callable[..., Switch], vsctl: Vsctl) -> None:
    wanted = port(role=PortRole.ENDPOINT, endpoint="e1", tag=7, trunk=(8, 9))
    done(switch.add_ports([wanted]))
    switch.mend_port(wanted)
    (before,) = switch.ports()
    vsctl("set", "Port", wanted.name, "tag=99", "trunks=5", "vlan_mode=access")
    vsctl("clear", "Port", wanted.name, "external_ids")
    wait_until(lambda: not next(iter(switch.ports())).network, "the replica has it")
    (changed,) = switch.ports()  # ours by its interface's mark
    assert (changed.tag, changed.trunk) == (99, (5,))
    switch.mend_port(wanted)
    assert switch.ports() == (before,)
    assert vsctl("get", "Port", wanted.name, "vlan_mode") == "native-untagged"
    with pytest.raises(NotFound):
        connect("node2").mend_port(wanted)
    vsctl("clear", "Port", wanted.name, "external_ids")
    vsctl("clear", "Interface", wanted.name, "external_ids")
    wait_until(lambda: not switch.ports(), "the replica has it")
    with pytest.raises(NotFound):
        switch.mend_port(wanted)
    state = switch.state()
    assert (dict(state.ports), wanted.name in state.names, BRIDGE in state.bridges) == ({}, True, True)


def test_what_others_change_is_told(server: OvsdbServer, switch: Switch, vsctl: Vsctl) -> None:
    told: set[str] = set()
    switch.watch(told.add)
    done(switch.add_ports([port(), port("onp2")]))
    done(switch.claim_port(port().name, "e1"))
    assert not told  # of what we do at each attach
    for command, name in (
        (("set", "Port", port().name, "tag=99"), port().name),
        (("del-port", "onp2"), "onp2"),
        (("del-br", BRIDGE), BRIDGE),
    ):
        vsctl(*command)
        wait_until(lambda name=name: name in told, f"{name} is told")  # type: ignore[misc]
    told.clear()
    server.kill()
    server.start()
    wait_until(lambda: "" in told, "the reconnect is told")
