"""`ovsnet doctor` on a real host: healthy, then broken on purpose in many ways while ovsnetd is gone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.harness import Dockerd, Ovs, Stack, environment, wait_until
from tests.system.containers import Pod, create_network

pytestmark = pytest.mark.usefixtures("nothing_left")

SUBNET = "10.94.1.0/24"
MACHINE = {"kernel-vlan", "clock", "disk", "sockets"}  # what the machine that runs the tests may lack


def diagnose(stack: Stack, **env: str) -> dict[str, str]:
    """What is wrong by check, as far as it is not the machine's: level, message and remedy of each line."""
    command = ("doctor", "--config", stack.config, "--bin-dir", stack.bin_dir, "--conf-dir", stack.directory / "net.d")
    done = stack.cli(*command, "-o", "json", check=False, env=environment(**env))
    document = json.loads(done.stdout)
    assert done.returncode == {"ok": 0, "warning": 1, "error": 2}[document["level"]]
    found: dict[str, str] = {}
    for one in document["checks"]:
        if one["level"] in ("warning", "error") and one["check"] not in MACHINE:
            found[one["check"]] = found.get(one["check"], "") + f"{one['level']}: {one['message']} -> {one['remedy']}\n"
    return found


def test_broken_things_are_told(stack: Stack, ovs: Ovs, pod: Callable[[], Pod]) -> None:
    box, other = pod(), pod()
    box.attach(stack.conf("sick", subnet=SUBNET))
    other.attach(stack.conf("sick", subnet=SUBNET))
    ports = {one["container"]: one["port"] for one in stack.endpoints()}
    (network,) = stack.show("network", "ls")
    wait_until(lambda: not diagnose(stack), "nothing is wrong", 20)  # claims are written behind the answers

    stack.kill9()  # or it would mend what follows
    with ExitStack() as undo:
        mac = box.shown()["address"]
        inside = box.netns.run
        inside("ip", "link", "set", "eth0", "down")
        inside("ip", "link", "set", "eth0", "address", "02:00:00:00:00:09")
        undo.callback(inside, "ip", "link", "set", "eth0", "address", mac, "up")
        ovs.vsctl("set", "Port", ports[box.id], "tag=4000")
        undo.callback(ovs.vsctl, "set", "Port", ports[box.id], f"tag={network['vlan']}")
        ovs.vsctl("del-port", ports[other.id])
        stack.host.run("iptables", "-P", "FORWARD", "DROP")
        undo.callback(stack.host.run, "iptables", "-P", "FORWARD", "ACCEPT")
        uplink = f"{stack.prefix}up"
        stack.host.run("ip", "link", "add", uplink, "mtu", "1400", "type", "veth", "peer", "name", f"{uplink}2")
        undo.callback(stack.host.run, "ip", "link", "delete", uplink)
        ovs.vsctl("add-port", stack.bridge, uplink)
        undo.callback(ovs.vsctl, "del-port", uplink)
        mode = stack.docker_socket.stat().st_mode
        stack.docker_socket.chmod(0o666)
        undo.callback(stack.docker_socket.chmod, mode)
        (stack.bin_dir / "ovsnet-ipam").rename(stack.bin_dir / "away")
        undo.callback((stack.bin_dir / "away").rename, stack.bin_dir / "ovsnet-ipam")
        found = diagnose(stack)
        expected = {
            "ovsnetd": ("not reachable", "start"),
            "link-wrong": ("02:00:00:00:00:09", mac),
            "port-wrong": ("VLAN 4000", f"tag={network['vlan']}"),
            "endpoint-dead": (other.id, "again"),
            "forward-drop": ("FORWARD", f"-i {stack.prefix}g+"),
            "mtu": (f"uplink {uplink}", "--mtu 1400"),
            "cni-plugins": ("ovsnet-ipam", "ovsnet cni install"),
        }
        assert set(found) == expected.keys() | (found.keys() & {"docker"})
        for check, (says, remedy) in expected.items():
            assert re.search(f"{re.escape(says)}.* -> .*{re.escape(remedy)}", found[check]), found[check]
        text = stack.cli("doctor", "--config", stack.config, check=False).stdout
        assert "0666" in text  # of the sockets, which the machine's groups leave out above
    stack.start()
    wait_until(lambda: not diagnose(stack), "ovsnetd has mended the rest", 30)


def test_docker_and_its_networks(stack: Stack, dockerd: Dockerd) -> None:
    create_network(dockerd, stack, "known", SUBNET)
    asks = {"DOCKER_HOST": f"unix://{dockerd.socket}"}
    assert "docker" not in diagnose(stack, **asks)
    (network,) = stack.show("network", "ls")
    stack.cli("network", "rm", network["id"])
    found = diagnose(stack, **asks)["docker"]
    assert re.search("error: Docker has network known.* -> .*docker network rm", found)
