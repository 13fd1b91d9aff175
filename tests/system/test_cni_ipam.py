"""IPAM both ways: other people's IPAM plugins under our main plugin, and ours under other people's main plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import CniResult, Netns, Stack
from tests.libcni import REFERENCE_DIR, Attachment, Libcni, PluginFailed
from tests.system.conftest import Attach
from tests.system.containers import Pod

pytestmark = [
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(not REFERENCE_DIR.is_dir(), reason="the package containernetworking-plugins is not installed"),
]

SUBNET, GATEWAY = "10.95.1.0/24", "10.95.1.1"
DEFAULT = {"dst": "0.0.0.0/0"}


# -- Theirs under ours


class Local:
    """A configuration whose addresses come from host-local, and what that has on disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def conf(self, version: str = "1.0.0", **keys: Any) -> dict[str, Any]:
        """The configuration with more keys of ours."""
        ranges = [[{"subnet": SUBNET}], [{"subnet": "fd95:1::/64"}]]
        ipam = {"type": "host-local", "dataDir": str(self._directory), "ranges": ranges, "routes": [DEFAULT]}
        return {"cniVersion": version, "name": "foreign", "type": "ovsnet", "isGateway": True, "ipam": ipam} | keys

    @property
    def leases(self) -> set[str]:
        """Addresses that host-local has given."""
        names = {path.name for path in self._directory.glob("foreign/*")}
        return {name for name in names if name[0].isdigit() or name.startswith("fd")}


@pytest.fixture
def local(stack: Stack, tmp_path: Path) -> Iterator[Local]:
    """Another IPAM; its networks go at the end."""
    yield Local(tmp_path / "leases")
    for network in stack.show("network", "ls"):
        stack.cli("network", "rm", network["id"])


@pytest.fixture
def call(stack: Stack, netns: Callable[[], Netns], local: Local) -> Iterator[Callable[..., CniResult]]:
    """Executes `ovsnet` where it finds the reference plugins, for one container; DEL follows at the end."""
    del local  # its networks go after the container has left them
    box = netns()
    asked: list[dict[str, Any]] = []

    def execute(command: str, conf: dict[str, Any], **env: str) -> CniResult:
        asked.append(conf)
        variables: dict[str, Any] = {"CNI_PATH": f"{stack.bin_dir}:{REFERENCE_DIR}"} | env
        return stack.cni(command, box.name, box, conf, **variables)

    execute.box = box  # type: ignore[attr-defined]
    yield execute
    for conf in list(asked):
        execute("DEL", conf)


def test_host_local_gives_the_addresses(stack: Stack, call: Any, local: Local) -> None:
    result = call("ADD", local.conf())
    assert result.ok, result
    ips = {one["address"]: one["gateway"] for one in result.output["ips"]}
    assert ips == {"10.95.1.2/24": GATEWAY, "fd95:1::2/64": "fd95:1::1"}
    assert result.output["routes"] == [{"dst": "0.0.0.0/0", "gw": GATEWAY}]
    assert local.leases == {"10.95.1.2", "fd95:1::2"}
    assert call.box.pings(GATEWAY)
    assert call.box.pings("fd95:1::1")
    (endpoint,) = stack.endpoints()
    assert set(endpoint["addresses"]) == set(ips)
    assert stack.show("pool", "ls") == []
    # The same again, which host-local itself would refuse, and the check of both.
    assert call("ADD", local.conf()).output == result.output
    stack.restart()
    assert call("ADD", local.conf()).output == result.output
    assert call("CHECK", local.conf(prevResult=result.output)).ok
    assert stack.cli("ipam", "check").returncode == 0
    assert call("DEL", local.conf()).ok
    assert local.leases == set()
    assert call("DEL", local.conf()).ok
    assert stack.endpoints() == []


@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "0.4.0", "1.0.0"])
def test_in_every_version(call: Any, local: Local, version: str) -> None:
    result = call("ADD", local.conf(version))
    assert result.ok, result
    assert result.output["cniVersion"] == version
    if version == "0.2.0":
        assert result.output["ip4"]["ip"] == "10.95.1.2/24"
        assert result.output["ip6"]["gateway"] == "fd95:1::1"
    assert call.box.pings(GATEWAY)


def test_static_addresses_and_a_gateway_elsewhere(stack: Stack, call: Any, local: Local) -> None:
    """Without isGateway the gateway is some machine's on the network, not this host."""
    static = {
        "type": "static",
        "addresses": [{"address": "10.95.7.9/24", "gateway": "10.95.7.1"}],
        "routes": [DEFAULT, {"dst": "10.99.0.0/16", "gw": "10.95.7.254"}],
        "dns": {"nameservers": ["10.95.7.53"]},
    }
    result = call("ADD", local.conf(ipam=static, isGateway=None))
    assert result.ok, result
    assert result.output["dns"] == {"nameservers": ["10.95.7.53"]}
    hops = {route["dst"]: route["gateway"] for route in call.box.ip("route", "show") if "gateway" in route}
    assert hops == {"default": "10.95.7.1", "10.99.0.0/16": "10.95.7.254"}
    (network,) = stack.show("network", "ls")
    assert network["gateways"] == []


def test_the_address_goes_back_when_the_rest_fails(stack: Stack, call: Any, local: Local) -> None:
    wrong = local.conf(sysctl={"net.ipv4.conf.IFNAME.rp_filter": "nonsense"})
    result = call("ADD", wrong)
    assert (result.returncode, result.output["code"]) == (1, 7)
    assert "rp_filter" in result.output["msg"]
    assert local.leases == set()
    assert stack.endpoints() == []
    assert stack.show("network", "ls") == []


def test_what_the_other_plugin_says_is_passed_on(stack: Stack, call: Any, local: Local) -> None:
    narrow = local.conf()
    narrow["ipam"]["ranges"] = [[{"subnet": SUBNET, "rangeStart": "10.95.1.9", "rangeEnd": "10.95.1.9"}]]
    other = stack.cni("ADD", "other", call.box, narrow, "eth1", CNI_PATH=f"{stack.bin_dir}:{REFERENCE_DIR}")
    assert other.ok, other
    result = call("ADD", narrow)
    assert result.returncode == 1
    assert "no IP addresses available" in result.output["msg"]
    assert stack.cni("DEL", "other", call.box, narrow, "eth1", CNI_PATH=f"{stack.bin_dir}:{REFERENCE_DIR}").ok
    result = call("ADD", local.conf(ipam={"type": "whereabouts"}))
    assert (result.returncode, result.output["code"]) == (1, 7)
    assert f"whereabouts is not in CNI_PATH ({stack.bin_dir}:" in result.output["msg"]
    result = call("ADD", local.conf(), CNI_PATH="")
    assert (result.returncode, result.output["code"]) == (1, 7)


def test_a_network_has_addresses_from_one_side_only(stack: Stack, call: Any, local: Local, pod: Any) -> None:
    box: Pod = pod()
    box.attach(Stack.conf("foreign", subnet="10.95.2.0/24"))
    result = call("ADD", local.conf(isGateway=None))
    assert (result.returncode, result.output["code"]) == (1, 111)
    assert "addresses of its own" in result.output["msg"]
    assert local.leases == set()
    box.detach_all()
    stack.cli("network", "rm", "foreign")


# -- Ours under theirs


def under(main: str, token: str, version: str = "1.0.0", **ipam: Any) -> dict[str, Any]:
    """A list with another main plugin and our addresses."""
    mains: dict[str, dict[str, Any]] = {
        "bridge": {"type": "bridge", "bridge": f"{token}cb", "isGateway": True},
        "macvlan": {"type": "macvlan", "master": f"{token}mv"},
    }
    plugin = mains[main] | {
        "capabilities": {"ips": True},
        "ipam": {"type": "ovsnet-ipam"} | (ipam or {"subnet": SUBNET}),
    }
    return {"cniVersion": version, "name": "theirs", "plugins": [plugin]}


@pytest.fixture
def theirs(stack: Stack, token: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """Makes lists as `under`; what the other main plugins need and leave goes at the end, and the pools."""
    stack.host.run("ip", "link", "add", f"{token}mv", "type", "veth", "peer", "name", f"{token}mw")
    stack.host.run("ip", "link", "set", f"{token}mv", "up")
    yield lambda main, version="1.0.0", **ipam: under(main, token, version, **ipam)
    for device in ("mv", "cb"):
        stack.host.run("ip", "link", "delete", f"{token}{device}", check=False)
    for pool in stack.show("pool", "ls"):
        stack.cli("pool", "rm", pool["id"])


def owners(stack: Stack) -> dict[str, str]:
    """Who has the addresses of the pool `theirs` but for the gateway."""
    leases = stack.show("pool", "leases", "theirs")
    return {one["address"]: one["owner"]["id"] for one in leases if one["owner"]["kind"] == "ipam"}


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_bridge_gets_our_addresses(
    stack: Stack, libcni: Libcni, theirs: Any, netns: Callable[[], Netns], attach: Attach, version: str
) -> None:
    del netns
    conflist = theirs("bridge", version, subnet=SUBNET, routes=[DEFAULT])
    one, first = attach(conflist)
    two, second = attach(conflist)
    assert [first["ips"][0]["address"], second["ips"][0]["address"]] == ["10.95.1.2/24", "10.95.1.3/24"]
    assert one.netns.pings("10.95.1.3")
    assert one.netns.pings(GATEWAY)
    assert owners(stack) == {
        "10.95.1.2": f"{stack.prefix}/theirs/{one.container}/eth0",
        "10.95.1.3": f"{stack.prefix}/theirs/{two.container}/eth0",
    }
    if version != "0.3.1":
        libcni.check(conflist, one)
    libcni.delete(conflist, one)
    libcni.delete(conflist, one)
    assert list(owners(stack)) == ["10.95.1.3"]
    libcni.delete(conflist, two)


def test_macvlan_dual_stack_and_an_address_of_ones_choice(
    stack: Stack, libcni: Libcni, theirs: Any, netns: Callable[[], Netns]
) -> None:
    conflist = theirs("macvlan", ranges=[[{"subnet": SUBNET}], [{"subnet": "fd95:1::/64"}]])
    namespace = netns()
    wish = Attachment(namespace.name, namespace, capabilities={"ips": ["10.95.1.77", "fd95:1::77"]})
    result = libcni.add(conflist, wish)
    assert {one["address"] for one in result["ips"]} == {"10.95.1.77/24", "fd95:1::77/64"}
    other = netns()
    with pytest.raises(PluginFailed, match=r"10\.95\.1\.77 of pool theirs is in use") as failure:
        libcni.add(conflist, Attachment(other.name, other, capabilities={"ips": ["10.95.1.77"]}))
    assert failure.value.code == 114
    libcni.delete(conflist, wish)
    assert owners(stack) == {}


class Ipam:
    """Calls of `ovsnet-ipam` itself, as a main plugin makes them."""

    def __init__(self, stack: Stack, conf: dict[str, Any]) -> None:
        self._stack = stack
        self.conf = conf["plugins"][0] | {"name": conf["name"], "cniVersion": "1.1.0"}

    def __call__(self, command: str, container: str = "c1", **keys: Any) -> CniResult:
        """The configuration with more keys."""
        return self._stack.cni(command, container, "/run/netns/x", self.conf | keys, plugin="ovsnet-ipam")


def test_again_garbage_and_a_full_pool(stack: Stack, theirs: Any) -> None:
    ipam = Ipam(
        stack, theirs("bridge", ranges=[[{"subnet": SUBNET, "rangeStart": "10.95.1.8", "rangeEnd": "10.95.1.9"}]])
    )
    first, again, second = ipam("ADD"), ipam("ADD"), ipam("ADD", "c2")
    assert first.output == again.output
    assert "interfaces" not in first.output
    assert second.addresses == ["10.95.1.9"]
    full = ipam("ADD", "c3")
    assert (full.returncode, full.output["code"]) == (1, 121)
    status = ipam("STATUS")
    assert (status.returncode, status.output["code"]) == (1, 50)
    assert ipam("CHECK", prevResult=first.output).ok
    wrong = ipam("CHECK", prevResult=second.output)
    assert (wrong.returncode, wrong.output["code"]) == (1, 118)
    missing = ipam("CHECK", "c3", prevResult=second.output)
    assert (missing.returncode, missing.output["code"]) == (1, 3)
    other_name = Ipam(stack, theirs("bridge", pool="theirs") | {"name": "another"})
    nothing: dict[str, Any] = {"cni.dev/valid-attachments": []}
    second_only: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
    assert other_name("GC", **nothing).ok  # concerns its own attachments only
    assert len(owners(stack)) == 2
    assert ipam("GC", **second_only).ok
    assert list(owners(stack)) == ["10.95.1.9"]
    assert ipam("STATUS").ok
    stack.restart()
    assert ipam("ADD", "c2").addresses == ["10.95.1.9"]
    in_use = stack.cli("pool", "rm", "theirs", check=False)
    assert in_use.returncode
    assert stack.cli("ipam", "check").returncode == 0
    assert ipam("DEL", "c2").ok
    assert ipam("DEL", "c2").ok
    assert owners(stack) == {}


def test_a_pool_is_shared_with_our_own_networks(stack: Stack, theirs: Any, pod: Callable[[], Pod]) -> None:
    box = pod()
    mine = box.attach(Stack.conf("mine", subnet=SUBNET))
    ipam = Ipam(stack, theirs("bridge", pool="mine"))
    given = ipam("ADD")
    assert given.ok, given
    assert given.addresses != [mine]
    assert given.output["ips"][0]["gateway"] == GATEWAY
    assert Ipam(stack, theirs("bridge", subnet=SUBNET))("ADD").output == given.output  # the pool of that subnet
    assert ipam("DEL").ok
    box.detach_all()
    stack.cli("network", "rm", "mine")


def test_what_is_wrong_is_told(stack: Stack, theirs: Any) -> None:
    for section, code, words in (
        ({"type": "ovsnet-ipam"}, 7, "neither a pool nor a subnet"),
        ({"type": "ovsnet-ipam", "subnte": SUBNET}, 7, "did you mean 'subnet'"),
        ({"type": "ovsnet-ipam", "pool": "nobodys"}, 102, "nobodys"),
        ({"type": "host-local"}, 7, "not this plugin"),
        (None, 7, "ipam"),
    ):
        result = Ipam(stack, theirs("bridge"))("ADD", ipam=section)
        assert (result.returncode, result.output["code"]) == (1, code), section
        assert words in result.output["msg"]
    elsewhere = Ipam(stack, theirs("bridge"))("ADD", runtimeConfig={"ips": ["fd95:1::7"]})
    assert (elsewhere.returncode, elsewhere.output["code"]) == (1, 7)
    assert stack.cni("VERSION", "", "", {"cniVersion": "1.0.0"}, plugin="ovsnet-ipam").output["supportedVersions"]
