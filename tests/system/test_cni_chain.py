"""Lists of plugins, run as libcni does: the reference plugins before and after ours, each finding in the result what it needs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Netns, Stack, wait_until
from tests.libcni import REFERENCE_DIR, Attachment, Libcni, PluginFailed
from tests.system.conftest import Attach

pytestmark = [
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(not REFERENCE_DIR.is_dir(), reason="the package containernetworking-plugins is not installed"),
]

SUBNET, GATEWAY = "10.92.1.0/24", "10.92.1.1"


def conflist(*partners: dict[str, Any], version: str = "1.0.0", **ours: Any) -> dict[str, Any]:
    """Our plugin with a network of its own, and those chained after it."""
    first = {"type": "ovsnet", "ipam": {"type": "ovsnet-ipam", "subnet": SUBNET}} | ours
    return {"cniVersion": version, "name": "chained", "plugins": [first, *partners]}


def address_of(result: dict[str, Any]) -> str:
    """The first address of a result."""
    return str(result["ips"][0]["address"].partition("/")[0])


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_portmap_publishes_our_address(stack: Stack, attach: Attach, version: str) -> None:
    chain = conflist({"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}, version=version)
    mapping = {"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}
    box, result = attach(chain, portMappings=[mapping])
    rules = stack.host.run("iptables-save", "-t", "nat").stdout
    assert f"--to-destination {address_of(result)}:80" in rules
    assert box.netns.pings(GATEWAY)


def test_portmap_lets_a_connection_through(stack: Stack, libcni: Libcni, attach: Attach) -> None:
    chain = conflist({"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}, ipMasq=True)
    server, _ = attach(chain, portMappings=[{"hostPort": 18081, "containerPort": 80, "protocol": "tcp"}])
    client, _ = attach(chain)
    listener = subprocess.Popen(
        server.netns.argv("busybox", "nc", "-l", "-p", "80", "-e", "/bin/echo", "hello"), stdin=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: ":80 " in server.netns.run("ss", "-Hltn").stdout, "the server listens")
        got = client.netns.run("busybox", "nc", "-w", "5", GATEWAY, "18081")
        assert got.stdout == "hello\n"
    finally:
        listener.kill()
        listener.wait(5)
    libcni.delete(chain, server)
    assert "18081" not in stack.host.run("iptables-save", "-t", "nat").stdout


def test_tuning_sets_what_it_is_told(attach: Attach) -> None:
    mac = "02:11:22:33:44:55"
    chain = conflist({"type": "tuning", "mac": mac, "mtu": 1400, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}})
    box, result = attach(chain)
    (link,) = box.netns.ip("link", "show", "dev", "eth0")
    assert (link["address"], link["mtu"]) == (mac, 1400)
    assert result["interfaces"][0]["mac"] == mac
    assert box.netns.run("sysctl", "-n", "net.ipv4.conf.eth0.arp_filter").stdout == "1\n"


def test_firewall_lets_our_address_through(stack: Stack, libcni: Libcni, attach: Attach) -> None:
    chain = conflist({"type": "firewall"})
    box, result = attach(chain)
    address = f"{address_of(result)}/32"
    assert address in stack.host.run("iptables-save", "-t", "filter").stdout
    assert box.netns.pings(GATEWAY)
    libcni.check(chain, box)
    libcni.delete(chain, box)
    assert address not in stack.host.run("iptables-save", "-t", "filter").stdout


def test_sbr_routes_by_source(attach: Attach) -> None:
    box, result = attach(conflist({"type": "sbr"}))
    rules = [rule for rule in box.netns.ip("rule", "show") if rule.get("src") == address_of(result)]
    assert rules
    # What has chosen no address yet has no route any more: so it is with the plugin `bridge` as well.
    box.netns.run("ping", "-n", "-c", "1", "-W", "2", "-I", address_of(result), GATEWAY)


def test_after_another_main_plugin_nothing_is_added(
    stack: Stack, libcni: Libcni, attach: Attach, tmp_path: Path, token: str
) -> None:
    bridge = {
        "type": "bridge",
        "bridge": f"{token}cb",
        "isGateway": True,
        "ipam": {"type": "host-local", "subnet": "10.92.9.0/24", "dataDir": str(tmp_path / "leases")},
    }
    chain = {"cniVersion": "1.0.0", "name": "chained", "plugins": [bridge, {"type": "ovsnet"}]}
    try:
        box, result = attach(chain)
        alone, before = attach(chain | {"plugins": [bridge]})
        assert [each.get("sandbox", "") for each in result["interfaces"]] == [
            "",
            "",
            str(box.netns.path),
        ]
        assert result.keys() == before.keys()
        assert stack.endpoints() == []
        libcni.check(chain, box)
        assert box.netns.pings(address_of(before))
        assert alone.netns.pings(address_of(result))
    finally:
        stack.host.run("ip", "link", "del", f"{token}cb", check=False)


def test_two_networks_and_one_network_twice(stack: Stack, libcni: Libcni, netns: Callable[[], Netns]) -> None:
    namespace = netns()
    red, green = conflist(), conflist() | {"name": "other"}
    green["plugins"] = [{"type": "ovsnet", "ipam": {"type": "ovsnet-ipam", "subnet": "10.92.2.0/24"}}]
    wanted = [(red, "eth0"), (green, "net1"), (red, "net2")]
    attachments = [(each, Attachment(namespace.name, namespace, ifname)) for each, ifname in wanted]
    try:
        addresses = [address_of(libcni.add(each, attachment)) for each, attachment in attachments]
        assert len(set(addresses)) == 3
        assert {row["owner"]["ifname"]: row["network"] for row in stack.endpoints()} == {
            "eth0": "chained",
            "net1": "other",
            "net2": "chained",
        }
        libcni.delete(*attachments[0])
        assert {row["owner"]["ifname"] for row in stack.endpoints()} == {"net1", "net2"}
        assert namespace.pings("10.92.2.1")
        assert namespace.pings(GATEWAY)
    finally:
        for each, attachment in attachments:
            libcni.delete(each, attachment)
        for network in stack.show("network", "ls"):
            stack.cli("network", "rm", network["id"])


def test_status(stack: Stack, libcni: Libcni) -> None:
    chain = conflist(version="1.1.0")
    libcni.status(chain)
    stack.stop()
    with pytest.raises(PluginFailed) as failed:
        libcni.status(chain)
    assert failed.value.code == 50
