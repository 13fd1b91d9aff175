"""CHECK, GC and STATUS: what they find in the real container, switch and databases, and what they leave alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.harness import CniResult, Dockerd, Netns, Ovs, Stack, wait_until
from tests.system.containers import Pod, start_container

pytestmark = pytest.mark.usefixtures("nothing_left")

NewPod = Callable[[], Pod]
SUBNET = "10.61.0.0/24"
GATEWAY = "10.61.0.1"


def conf(stack: Stack, name: str = "kept", **more: Any) -> dict[str, Any]:
    return stack.conf(name, "1.1.0", subnet=SUBNET) | more


@dataclass
class Attached:
    """A container with what its ADD answered."""

    stack: Stack
    pod: Pod
    conf: dict[str, Any]
    result: dict[str, Any]

    @property
    def port(self) -> str:
        """Its switch port."""
        (row,) = [row for row in self.stack.endpoints() if row["container"] == self.pod.id]
        return str(row["port"])

    def check(self, **previous: Any) -> CniResult:
        """CHECK, with `previous` in place of keys of ADD's result."""
        return self.stack.cni("CHECK", self.pod.id, self.pod.netns, self.conf | {"prevResult": self.result | previous})

    def broken(self, **previous: Any) -> str:
        """What CHECK says, which has to be an error."""
        found = self.check(**previous)
        assert not found.ok
        assert found.output["code"] == 118, found
        return str(found.output["msg"])


@pytest.fixture
def attached(stack: Stack, pod: NewPod) -> Attached:
    """A container that CHECK finds as it should be."""
    box = pod()
    config = conf(stack)
    found = Attached(stack, box, config, box.add(config).output)
    assert found.check().ok
    return found


Change = Callable[[Attached, Ovs], object]
LINK_CHANGES: dict[str, tuple[Change, str]] = {
    "down": (lambda one, _: one.pod.netns.run("ip", "link", "set", "eth0", "down"), "eth0 is down"),
    "mac": (lambda one, _: one.pod.netns.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"), "has MAC"),
    "mtu": (lambda one, _: one.pod.netns.run("ip", "link", "set", "eth0", "mtu", "1300"), "has MTU 1300, not 1500"),
    "address": (
        lambda one, _: one.pod.netns.run("ip", "addr", "flush", "dev", "eth0"),
        "does not have address 10.61.0.",
    ),
    "route": (lambda one, _: one.pod.netns.run("ip", "route", "del", "default"), "no route to 0.0.0.0/0 by 10.61.0.1"),
    "renamed": (lambda one, _: rename(one.pod.netns), "the container has no interface eth0"),
    "tag": (lambda one, ovs: ovs.vsctl("set", "Port", one.port, "tag=99"), "has VLAN 99"),
    "owner": (lambda one, ovs: ovs.vsctl("set", "Port", one.port, "external_ids:ovsnet-owner=x"), "no port"),
    "endpoint": (lambda one, ovs: ovs.vsctl("set", "Port", one.port, "external_ids:ovsnet-endpoint=x"), "belongs to x"),
    "carrier": (lambda one, _: one.stack.host.run("ip", "link", "set", one.port, "down"), "is down on the host"),
}


def rename(netns: Netns) -> None:
    for words in (["down"], ["name", "eth7"], ["up"]):
        netns.run("ip", "link", "set", "eth7" if words == ["up"] else "eth0", *words)


@pytest.mark.parametrize("what", LINK_CHANGES)
def test_check_names_the_first_difference(attached: Attached, ovs: Ovs, what: str) -> None:
    change, message = LINK_CHANGES[what]
    port = attached.port
    change(attached, ovs)
    assert message in attached.broken()
    ovs.vsctl("--if-exists", "set", "Port", port, f"external_ids:ovsnet-owner={attached.stack.prefix}")  # for the DEL


def test_check_finds_a_port_that_was_deleted(attached: Attached, ovs: Ovs) -> None:
    ovs.vsctl("del-port", attached.port)
    assert "the switch has no port" in attached.broken()


def test_check_compares_with_the_previous_result_rather_than_the_endpoint(attached: Attached) -> None:
    box, interface = attached.pod.netns, attached.result["interfaces"][0]
    box.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")  # as the plugin `tuning` does, and tells
    assert attached.check(interfaces=[interface | {"mac": "02:00:00:00:00:99"}]).ok
    box.run("ip", "addr", "add", "10.99.0.1/24", "dev", "eth0")  # more than was asked for
    box.run("ip", "route", "add", "10.98.0.0/16", "via", GATEWAY)
    assert attached.check(interfaces=[interface | {"mac": "02:00:00:00:00:99"}]).ok


def test_check_of_what_is_not_attached(attached: Attached, stack: Stack) -> None:
    found = stack.cni("CHECK", "stranger", attached.pod.netns, attached.conf | {"prevResult": attached.result})
    assert found.output["code"] == 3
    assert attached.pod.delete(attached.conf).ok
    assert attached.check().output["code"] == 3


def gc(stack: Stack, config: dict[str, Any], *valid: Pod) -> CniResult:
    kept = [{"containerID": pod.id, "ifname": "eth0"} for pod in valid]
    return stack.cni("GC", "", "", config | {"cni.dev/valid-attachments": kept})


def test_gc_removes_what_is_not_valid_and_nothing_else(stack: Stack, dockerd: Dockerd, pod: NewPod) -> None:
    kept, lost, other = pod(), pod(), pod()
    config = conf(stack)
    for box in (kept, lost):
        box.attach(config)
    other.attach(conf(stack, "other", network="kept"))
    dockerd.docker(
        *("network", "create", "--driver", stack.driver, "--opt", "ovsnet.network=kept"),
        *("--ipam-driver", stack.driver, "--ipam-opt", "ovsnet.network=kept", "d"),
    )
    start_container(dockerd, "box", "d")
    before = {row["container"] for row in stack.endpoints()}
    wait_until(lambda: settled(stack, config, kept), "the attachments are no longer young", 10)
    assert before - {row["container"] for row in stack.endpoints()} == {lost.id}
    assert kept.pings(GATEWAY)
    assert other.pings(GATEWAY)
    assert dockerd.pings("box", GATEWAY)
    assert "eth0" not in [link["ifname"] for link in lost.netns.ip("link")]
    dockerd.docker("rm", "--force", "box")
    dockerd.docker("network", "rm", "d")  # before the network that it joined


def settled(stack: Stack, config: dict[str, Any], *valid: Pod) -> bool:
    """GC until it has removed something: what is younger than a second stays."""
    before = len(stack.endpoints())
    assert gc(stack, config, *valid).ok
    return len(stack.endpoints()) < before


def test_gc_leaves_alone_what_is_attached_meanwhile(stack: Stack, pod: NewPod) -> None:
    config = conf(stack)
    boxes = [pod() for _ in range(12)]
    with ThreadPoolExecutor(6) as pool:
        collecting = [pool.submit(gc, stack, config) for _ in range(10)]
        added = list(pool.map(lambda box: box.add(config), boxes))
        assert all(future.result().ok for future in collecting)
    assert all(result.ok for result in added)
    assert {row["container"] for row in stack.endpoints()} == {box.id for box in boxes}
    assert all(box.pings(GATEWAY) for box in boxes)


def test_gc_of_a_network_that_is_not_there(stack: Stack) -> None:
    assert gc(stack, conf(stack, "never")).ok


def status(stack: Stack, config: dict[str, Any]) -> CniResult:
    return stack.cni("STATUS", "", "", config)


def test_status_tells_of_a_full_network(stack: Stack, pod: NewPod) -> None:
    small = stack.conf("small", "1.1.0", subnet="10.62.0.0/30")
    assert status(stack, small).ok  # it would be made
    box = pod()
    box.attach(small)
    found = status(stack, small)
    assert found.output["code"] == 50
    assert "has no free address" in found.output["msg"]
    assert box.delete(small).ok
    assert status(stack, small).ok


def test_status_tells_of_a_switch_that_does_not_work(stack: Stack, ovs: Ovs) -> None:
    assert status(stack, conf(stack)).ok
    ovs.kill_vswitchd()
    found = status(stack, conf(stack))
    assert found.output["code"] == 50
    assert "ovs-vswitchd does not run" in found.output["msg"]
    assert stack.cli("status", check=False).returncode == 5
    ovs.ensure()
    wait_until(lambda: status(stack, conf(stack)).ok, "all is well again")


def test_status_tells_of_a_state_database_that_hangs(stack: Stack) -> None:
    pid = stack.state_server()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: status(stack, conf(stack)).ok, "it is started again")
    stack.stop()
    found = status(stack, conf(stack))
    assert found.output["code"] == 50
    assert "ovsnetd does not run" in found.output["msg"]
