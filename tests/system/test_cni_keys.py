"""Keys of a CNI configuration, and what is really so in the container, on the switch and on the host afterwards."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Netns, Ovs, Stack, wait_until
from tests.system.containers import Pod

pytestmark = pytest.mark.usefixtures("nothing_left")

NewPod = Callable[[], Pod]
SUBNET = "10.71.0.0/24"

# Waits for a frame with the payload, and prints its VLAN as the kernel tells it (PACKET_AUXDATA, packet(7)), 0 for none.
HEAR = """
import socket, struct, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sock.bind(("eth0", 0))
sock.setsockopt(263, 8, 1)
sock.settimeout(8)
print("ready", flush=True)
while True:
    data, control, _, _ = sock.recvmsg(2048, 256)
    if sys.argv[1].encode() in data:
        status, *_, tag = struct.unpack("IIIHHH", control[0][2][:18])
        print(tag & 0xfff if status & 0x10 else 0, flush=True)
        break
"""
SAY = """
import socket, sys
vlan, payload = int(sys.argv[1]), sys.argv[2].encode()
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
tag = b"\\x81\\x00" + vlan.to_bytes(2, "big") if vlan else b""
sock.send(b"\\xff" * 6 + sock.getsockname()[4] + tag + b"\\x88\\xb5" + payload.ljust(60))
"""


def hears(listener: Netns, speaker: Netns, vlan: int, word: str) -> str:
    """In which VLAN `listener` gets a broadcast that `speaker` sends in `vlan` (0: untagged); "" if it does not."""
    with subprocess.Popen(
        listener.argv(sys.executable, "-c", HEAR, word), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        speaker.run(sys.executable, "-c", SAY, str(vlan), word)
        try:
            return process.communicate(timeout=2)[0].strip()
        except subprocess.TimeoutExpired:
            process.kill()
            return ""


def test_a_trunk_carries_its_vlans_tagged_and_no_others(stack: Stack, ovs: Ovs, pod: NewPod) -> None:
    trunk, same, thirty, forty = pod(), pod(), pod(), pod()
    free = {"antiSpoofing": False}  # for frames of no protocol
    own = stack.conf("own", subnet=SUBNET) | {"vlan": 20} | free
    trunk.attach(own | {"vlanTrunk": [{"id": 30}]})
    same.attach(own)
    thirty.attach(stack.conf("thirty", subnet="10.72.0.0/24") | {"vlan": 30} | free)
    forty.attach(stack.conf("forty", subnet="10.73.0.0/24") | {"vlan": 40} | free)
    assert hears(thirty.netns, trunk.netns, 30, "one") == "0"
    assert hears(trunk.netns, thirty.netns, 0, "two") == "30"
    assert hears(same.netns, trunk.netns, 0, "three") == "0"
    assert hears(trunk.netns, same.netns, 0, "four") == "0"
    assert hears(forty.netns, trunk.netns, 40, "five") == ""
    assert hears(same.netns, thirty.netns, 0, "six") == ""
    (row,) = [row for row in stack.endpoints() if row["container"] == trunk.id]
    assert row["trunk"] == [30]
    ovs.vsctl("del-port", row["port"])
    trunk.attach(own | {"vlanTrunk": [{"id": 30}]})  # the same again finds its port gone, and makes another trunk
    assert hears(thirty.netns, trunk.netns, 30, "seven") == "0"


def test_settings_of_the_interface(stack: Stack, pod: NewPod) -> None:
    box = pod()
    conf = stack.conf("set", subnet=SUBNET) | {
        "promiscMode": True,
        "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1", "net/ipv4/conf/eth0/rp_filter": "2"},
    }
    box.attach(conf)
    assert "PROMISC" in box.shown()["flags"]
    shown = box.netns.run("cat", *(f"/proc/sys/net/ipv4/conf/eth0/{key}" for key in ("arp_notify", "rp_filter"))).stdout
    assert shown.split() == ["1", "2"]


def test_a_setting_that_the_kernel_refuses_leaves_nothing(stack: Stack, pod: NewPod) -> None:
    box = pod()
    found = box.add(stack.conf("set", subnet=SUBNET) | {"sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "many"}})
    assert found.output["code"] == 7
    assert "arp_notify=many" in found.output["msg"]
    assert [link["ifname"] for link in box.netns.ip("link")] == ["lo"]
    assert stack.endpoints() == []


def test_labels_aliases_and_dns(stack: Stack, pod: NewPod) -> None:
    box = pod()
    conf = stack.conf("named", subnet=SUBNET) | {
        "args": {"cni": {"labels": [{"key": "app", "value": "web"}]}},
        "runtimeConfig": {"aliases": ["front"], "dns": {"servers": ["10.71.0.53"], "searches": ["test"]}},
    }
    found = box.add(conf)
    assert found.output["dns"] == {"nameservers": ["10.71.0.53"], "search": ["test"]}
    (row,) = stack.endpoints()
    assert (row["labels"], row["aliases"], row["config"]) == ({"app": "web"}, ["front"], "named")


def test_addresses_from_pools_that_exist(stack: Stack, pod: NewPod) -> None:
    for name, subnet in (("four", SUBNET), ("six", "fd71::/64"), ("other", "10.74.0.0/24")):
        stack.cli("pool", "create", name, "--subnet", subnet)
    conf = stack.conf("pooled", pool=["four", "six"])
    box, other = pod(), pod()
    found = box.add(conf)
    assert [ip["gateway"] for ip in found.output["ips"]] == ["10.71.0.1", "fd71::1"]
    refused = other.add(stack.conf("pooled", pool="other"))
    assert (refused.output["code"], "no addresses from pool other" in refused.output["msg"]) == (111, True)
    assert box.delete(conf).ok
    stack.cli("network", "rm", "pooled")
    for name in ("four", "six", "other"):
        stack.cli("pool", "rm", name)  # they outlive the network, for they were not made with it


def test_calls_are_logged_as_the_configuration_says(stack: Stack, pod: NewPod) -> None:
    box = pod()
    conf = stack.conf("logged", subnet=SUBNET)
    line = re.compile(rf'"containerid": "{box.id}".*"name": "logged", "event": "cni ADD"')
    box.attach(conf | {"log_level": "warning"})
    box.attach(conf | {"log_level": "info"})  # ovsnetd has told of the first before it answers this one, or never will
    wait_until(lambda: line.search(stack.log_tail()), "the ADD is logged")
    assert len(line.findall(stack.log_tail())) == 1


@pytest.fixture
def outside(stack: Stack, netns: Callable[[], Netns]) -> Iterator[Netns]:
    """A machine beside the host, on a link between them, that knows no way back to the containers."""
    machine = netns()
    name = f"{stack.prefix}up"
    with ExitStack() as undo:
        stack.host.run(
            "ip", "link", "add", name, "mtu", "1400", "type", "veth", "peer", "name", "up0", "netns", machine.name
        )
        undo.callback(stack.host.run, "ip", "link", "del", name)
        for where, device, four, six in (
            (stack.host, name, "192.0.2.1/24", "2001:db8::1/64"),
            (machine, "up0", "192.0.2.9/24", "2001:db8::9/64"),
        ):
            where.run("ip", "addr", "add", four, "dev", device)
            where.run("ip", "addr", "add", six, "dev", device, "nodad")
            where.run("ip", "link", "set", device, "up", "mtu", "1400")
        yield machine


@pytest.mark.parametrize("masquerade", [True, False])
def test_masquerade(stack: Stack, pod: NewPod, outside: Netns, masquerade: bool) -> None:
    del outside
    conf = stack.conf("out", ranges=[[{"subnet": SUBNET}], [{"subnet": "fd71::/64"}]]) | {"ipMasq": masquerade}
    box = pod()
    box.attach(conf)
    for address in ("192.0.2.9", "2001:db8::9"):
        if masquerade:
            wait_until(lambda address=address: box.pings(address), f"{address} answers")  # type: ignore[misc]
        else:
            assert not box.pings(address, wait=1)
    stack.restart()
    assert box.pings("192.0.2.9", wait=1) is masquerade
    other = pod().add(conf | {"ipMasq": not masquerade})
    assert (other.ok, "masquerade" in json.dumps(other.output)) == (False, True)


def test_the_mtu_is_what_the_way_out_can_carry(stack: Stack, ovs: Ovs, pod: NewPod, outside: Netns) -> None:
    del outside
    stack.host.run("ip", "route", "add", "default", "via", "192.0.2.9")
    first, second = pod(), pod()
    first.attach(stack.conf("routed", subnet=SUBNET))
    assert first.shown()["mtu"] == 1400
    with ExitStack() as undo:
        uplink = f"{stack.prefix}ul"
        stack.host.run("ip", "link", "add", uplink, "mtu", "1300", "type", "veth", "peer", "name", f"{uplink}x")
        undo.callback(stack.host.run, "ip", "link", "del", uplink)
        ovs.vsctl("add-port", stack.bridge, uplink)
        undo.callback(ovs.vsctl, "del-port", stack.bridge, uplink)
        second.attach(stack.conf("bridged", subnet="10.75.0.0/24"))
        assert second.shown()["mtu"] == 1300


def test_many_interfaces(stack: Stack, pod: NewPod) -> None:
    box = pod()
    one, two = stack.conf("one", subnet=SUBNET), stack.conf("two", subnet="10.76.0.0/24")
    addresses = [box.attach(one), box.attach(one, "net1"), box.attach(two, "net2")]
    assert len(set(addresses)) == 3
    default: list[dict[str, Any]] = box.netns.ip("route", "show", "default")
    assert [(route["dev"], route["gateway"]) for route in default] == [("eth0", "10.71.0.1")]  # the first one's stays
    assert box.pings("10.71.0.1")
    assert box.pings("10.76.0.1")
    assert box.delete(one).ok
    assert box.pings("10.76.0.1")
    assert {row["ifname"] for row in stack.endpoints()} == {"net1", "net2"}
    assert Path("/run/netns", box.netns.name).exists()


def test_routes_with_attributes(pod: NewPod) -> None:
    box = pod()
    routes = [
        {"dst": "10.200.0.0/16", "gw": "10.71.0.254", "mtu": 1300, "advmss": 1200, "priority": 77},
        {"dst": "10.201.0.0/16", "gw": "10.71.0.254", "table": 1077},
        {"dst": "fd99::/64", "gw": "fd71::fe", "priority": 88},
    ]
    ranges = [[{"subnet": "10.71.0.0/24"}], [{"subnet": "fd71::/64"}]]
    conf = Stack.conf("routed", "1.1.0", ranges=ranges, routes=routes)
    result = box.add(conf)
    assert result.ok, result
    assert [route for route in result.output["routes"] if route["dst"] in {one["dst"] for one in routes}] == routes
    (route,) = box.netns.ip("route", "show", "10.200.0.0/16")
    assert (route["metric"], route["metrics"]) == (77, [{"mtu": 1300, "advmss": 1200}])
    (route,) = box.netns.ip("route", "show", "table", "1077")
    assert (route["dst"], route["gateway"]) == ("10.201.0.0/16", "10.71.0.254")
    (route,) = box.netns.ip("-6", "route", "show", "fd99::/64")
    assert route["metric"] == 88
    assert box.add(conf).output == result.output
    older = box.add(conf | {"cniVersion": "1.0.0"})
    assert {"dst": "10.200.0.0/16", "gw": "10.71.0.254"} in older.output["routes"]
    for wrong in ({"dst": "0.0.0.0/0", "mtu": 1300}, {"dst": "10.9.0.0/16", "gw": "10.71.0.254", "mtu": -1}):
        refused = pod().add(Stack.conf("routed", ranges=ranges, routes=[wrong]))
        assert (refused.returncode, refused.output["code"]) == (1, 7)
