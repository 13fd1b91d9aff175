"""Every option of a Docker network, of its IPAM and of an endpoint, by the real docker command; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.harness import IMAGE, Dockerd, Result, Stack, wait_until

pytestmark = pytest.mark.long

SUBNET, GATEWAY = "10.87.0.0/24", "10.87.0.1"
SUBNET6, GATEWAY6 = "fd87::/64", "fd87::1"
MAC = "02:00:00:00:87:07"


@pytest.fixture(autouse=True)
def _clean(no_leftovers: Callable[[], None], dockerd: Dockerd, stack: Stack) -> Iterator[None]:
    """Nothing outlives its test."""
    yield
    dockerd.clear()
    stack.ensure()
    try:
        no_leftovers()
    finally:
        stack.clear()


def create(dockerd: Dockerd, stack: Stack, *args: str, check: bool = True) -> Result:
    """`docker network create` with our drivers."""
    drivers = ("-d", stack.driver, "--ipam-driver", stack.driver)
    return dockerd.docker("network", "create", *drivers, *args, check=check, timeout=30)


def start(dockerd: Dockerd, network: str, container: str, /, *args: str, check: bool = True, **options: str) -> Result:
    """Starts a container on `network` with `options` as the endpoint's, `_` for `.`."""
    opts = "".join(f",driver-opt=ovsnet.{key.replace('_', '.')}={value}" for key, value in options.items())
    return dockerd.docker(
        "run",
        "-d",
        "--name",
        container,
        "--network",
        f"name={network}{opts}",
        *args,
        IMAGE,
        "sleep",
        "600",
        check=check,
    )


def refused(result: Result, *words: str) -> None:
    """The command failed, and says so in these words."""
    assert result.returncode != 0, result.stdout
    for word in words:
        assert word in result.stderr


def endpoint(stack: Stack) -> dict[str, Any]:
    """The only endpoint."""
    (found,) = stack.endpoints()
    return found


def port_of(stack: Stack) -> str:
    """The only endpoint's switch port."""
    port: str = endpoint(stack)["port"]
    return port


def limited(stack: Stack) -> list[str]:
    """The devices whose receivers are limited."""
    listed = stack.host.run("nft", "-j", "list", "chains", "netdev").stdout
    chains = [entry["chain"]["name"] for entry in json.loads(listed)["nftables"] if "chain" in entry]
    return [name for name in chains if name.startswith(f"{stack.prefix}p")]


def owners(stack: Stack, pool: str) -> dict[str, str]:
    """Who has the addresses of a pool."""
    return {lease["address"]: lease["owner"]["kind"] for lease in stack.show("pool", "leases", pool)}


# -- networks ---------------------------------------------------------------------------------------------------------


def test_a_trunk_is_on_every_container_of_the_network(stack: Stack, dockerd: Dockerd) -> None:
    create(dockerd, stack, "--subnet", SUBNET, "-o", "ovsnet.vlan=87", "-o", "ovsnet.vlan.trunk=30,20-22,21", "net")
    start(dockerd, "net", "d1")
    shown = stack.ovs.vsctl("--format=json", "--columns=tag,trunks,vlan_mode", "find", "Port", f"name={port_of(stack)}")
    ((tag, trunks, mode),) = json.loads(shown)["data"]
    assert (tag, trunks[1], mode) == (87, [20, 21, 22, 30, 87], "native-untagged")
    assert dockerd.pings("d1", GATEWAY)
    stack.restart()
    start(dockerd, "net", "d2")
    ports = {one["port"] for one in stack.endpoints()}
    for port in ports:
        assert json.loads(stack.ovs.vsctl("get", "Port", port, "trunks")) == [20, 21, 22, 30, 87]
    assert dockerd.pings("d2", dockerd.address("d1", "net"))


def test_the_bridge_drivers_options_that_mean_something(stack: Stack, dockerd: Dockerd) -> None:
    bridge = f"{stack.prefix}b2"
    create(
        dockerd,
        stack,
        *("--subnet", SUBNET, "-o", "ovsnet.name=blue", "-o", f"com.docker.network.bridge.name={bridge}"),
        *("-o", "com.docker.network.driver.mtu=1400", "-o", "com.docker.network.container_iface_prefix=lan"),
        *("-o", "com.docker.network.bridge.enable_icc=true", "-o", "com.docker.network.bridge.default_bridge=0"),
        *("-o", "com.docker.network.bridge.host_binding_ipv4=0.0.0.0", "net"),
    )
    network = stack.show("network", "show", "blue")
    assert (network["bridge"], network["mtu"]) == (bridge, 1400)
    start(dockerd, "net", "d1")
    link = dockerd.docker("exec", "d1", "ip", "link", "show", "lan0").stdout
    assert "mtu 1400" in link


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("ovsnet.vlan.trunk=0",), ("no range of VLANs", "use 1 to 4094")),
        (("ovsnet.vlan.trunk=10-",), ("'10-' is no VLAN", "write it as 10,20-29")),
        (("ovsnet.vlan.trunk=9-5000",), ("VLAN tag 5000",)),
        (("ovsnet.vlan.tronk=5",), ("did you mean ovsnet.vlan.trunk?",)),
        (("ovsnet.gateway=10.99.0.1",), ("gateway 10.99.0.1 is in no subnet of the network",)),
        (("ovsnet.gateway=first",), ("ovsnet.gateway='first' cannot be read", "write an address, or none")),
        (("ovsnet.mtu=1400", "com.docker.network.driver.mtu=1300"), ("differs from what its other name", "leave one")),
        (("com.docker.network.bridge.enable_icc=false",), ("only true", "networks of their own")),
        (("com.docker.network.bridge.host_binding_ipv4=127.0.0.1",), ("only 0.0.0.0", "-p ADDRESS:PORT:PORT")),
        (("com.docker.network.bridge.inhibit_ipv4=1",), ("only false", "ovsnet.gateway=none")),
        (("com.docker.network.container_iface_prefix=a/b",), ("cannot begin an interface's name",)),
    ],
)
def test_what_cannot_be_kept_is_refused(
    stack: Stack, dockerd: Dockerd, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    flags = [part for option in options for part in ("-o", option)]
    refused(create(dockerd, stack, "--subnet", SUBNET, *flags, "net", check=False), "CreateNetwork", *words)
    assert stack.show("network", "ls") == []
    wait_until(lambda: stack.show("pool", "ls") == [], "Docker has given the pool back")


def test_another_gateway_than_dockers(stack: Stack, dockerd: Dockerd) -> None:
    options = ("-o", "ovsnet.name=blue", "-o", "ovsnet.gateway=10.87.0.254")
    create(dockerd, stack, "--subnet", SUBNET, "--ipv6", "--subnet", SUBNET6, *options, "net")
    assert stack.show("network", "show", "blue")["gateways"] == ["10.87.0.254/24", f"{GATEWAY6}/64"]
    start(dockerd, "net", "d1")
    assert "via 10.87.0.254 " in dockerd.docker("exec", "d1", "ip", "route").stdout
    assert dockerd.pings("d1", "10.87.0.254")
    assert dockerd.pings("d1", GATEWAY6)
    (pool,) = (one["name"] for one in stack.show("pool", "ls") if one["subnet"] == SUBNET)
    assert owners(stack, pool) == {
        GATEWAY: "gateway",
        "10.87.0.254": "gateway",
        dockerd.address("d1", "net"): "endpoint",
    }
    dockerd.restart()  # which repeats the gateway that it knows
    assert stack.show("network", "show", "blue")["gateways"][0] == "10.87.0.254/24"
    dockerd.docker("start", "d1")
    assert dockerd.pings("d1", "10.87.0.254")


def test_no_gateway(stack: Stack, dockerd: Dockerd) -> None:
    create(dockerd, stack, "--subnet", SUBNET, "-o", "ovsnet.gateway=none", "net")
    assert stack.show("network", "ls")[0]["gateways"] == []
    start(dockerd, "net", "d1")
    start(dockerd, "net", "d2")
    assert "default" not in dockerd.docker("exec", "d1", "ip", "route").stdout
    assert dockerd.pings("d1", dockerd.address("d2", "net"))
    assert not dockerd.pings("d1", GATEWAY, wait=1)


# -- IPAM -------------------------------------------------------------------------------------------------------------


def test_a_pool_by_its_name(stack: Stack, dockerd: Dockerd) -> None:
    stack.cli(
        "pool", "create", "blue", "--subnet", SUBNET, "--gateway", "10.87.0.9", "--exclude", "10.87.0.1-10.87.0.99"
    )
    before = owners(stack, "blue")
    create(dockerd, stack, "--ipam-opt", "ovsnet.pool=blue", "net")
    start(dockerd, "net", "d1")
    assert dockerd.address("d1", "net") == "10.87.0.100"
    assert dockerd.pings("d1", "10.87.0.9")
    refused(create(dockerd, stack, "--ipam-opt", "ovsnet.pool=blue", "other", check=False), "pool blue is in use")
    again = ("--ipam-opt", "ovsnet.pool=blue", "--subnet", SUBNET, "other")
    refused(create(dockerd, stack, *again, check=False), "pool blue is in use by network", "ovsnet.network=")
    dockerd.restart()
    dockerd.docker("start", "d1")
    assert dockerd.pings("d1", "10.87.0.9")
    dockerd.docker("rm", "-f", "d1")
    dockerd.docker("network", "rm", "net")
    assert owners(stack, "blue") == before
    create(dockerd, stack, "--ipam-opt", "ovsnet.pool=blue", "net")
    dockerd.docker("network", "rm", "net")
    stack.cli("pool", "rm", "blue")


def test_ranges_and_exclusions(stack: Stack, dockerd: Dockerd) -> None:
    ipam = (
        "--ipam-opt",
        "ovsnet.ranges=10.87.0.20-10.87.0.23",
        "--ipam-opt",
        "ovsnet.exclude=10.87.0.21,10.87.0.200/29",
    )
    aux = ("--gateway", "10.87.0.254", "--aux-address", "printer=10.87.0.20")
    create(dockerd, stack, "--subnet", SUBNET, *ipam, *aux, "net")
    for name in ("d1", "d2"):
        start(dockerd, "net", name)
    assert {dockerd.address(name, "net") for name in ("d1", "d2")} == {"10.87.0.22", "10.87.0.23"}
    refused(start(dockerd, "net", "d3", check=False), "has no free address")
    dockerd.docker("rm", "-f", "d3")
    excluded = dockerd.docker("run", "--rm", "--network", "net", "--ip", "10.87.0.201", IMAGE, "true", check=False)
    refused(excluded, "10.87.0.201 is excluded")
    (pool,) = stack.show("pool", "ls")
    stack.cli("pool", "set", pool["name"], "--exclude", "10.87.0.21")
    dockerd.restart()  # repeats the options that the pool has no more
    dockerd.docker("start", "d1")
    assert dockerd.pings("d1", "10.87.0.254")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("ovsnet.ranges=10.88.0.1", "--subnet", SUBNET), ("lies outside subnet",)),
        (("ovsnet.ranges=10.87.0.9", "--subnet", ""), ("a range is given without a subnet",)),
        (("ovsnet.exclude=all", "--subnet", SUBNET), ("address range 'all' cannot be read",)),
        (("ovsnet.pool=nowhere", "--subnet", ""), ("there is no pool 'nowhere'",)),
        (("ovsnet.exclud=10.87.0.9", "--subnet", SUBNET), ("did you mean ovsnet.exclude?",)),
    ],
)
def test_wrong_ipam_options_are_refused(
    stack: Stack, dockerd: Dockerd, args: tuple[str, ...], words: tuple[str, ...]
) -> None:
    flags = [arg for arg in args[1:] if arg] if args[-1] else []
    refused(create(dockerd, stack, "--ipam-opt", args[0], *flags, "net", check=False), "RequestPool", *words)
    assert stack.show("pool", "ls") == []


# -- endpoints --------------------------------------------------------------------------------------------------------


def test_rates_hold_and_come_back(stack: Stack, dockerd: Dockerd) -> None:
    create(dockerd, stack, "--subnet", SUBNET, "net")
    start(dockerd, "net", "d1", rate_out="8M", burst_out="2M", rate_in="4.5M")
    port = port_of(stack)
    assert endpoint(stack)["bandwidth"]["egress_rate"] == 8_000_000
    assert endpoint(stack)["bandwidth"]["ingress_rate"] == 4_500_000
    assert limited(stack) == [port]
    stack.host.run("nft", "delete", "table", "netdev", f"ovsnet-{stack.prefix}", check=False)
    stack.restart()
    wait_until(lambda: limited(stack) == [port], "the limit is back")
    assert dockerd.pings("d1", GATEWAY)
    dockerd.docker("network", "disconnect", "net", "d1")
    assert limited(stack) == []
    opts = ("--driver-opt", "ovsnet.rate.in=1G")
    dockerd.docker("network", "connect", *opts, "net", "d1")
    assert limited(stack) == [port_of(stack)]


def test_macs_from_both_sides(stack: Stack, dockerd: Dockerd) -> None:
    create(dockerd, stack, "--subnet", SUBNET, "net")
    start(dockerd, "net", "d1", mac=MAC)
    assert endpoint(stack)["mac"] == MAC
    assert MAC in dockerd.docker("exec", "d1", "ip", "link", "show", "eth0").stdout
    assert dockerd.pings("d1", GATEWAY)
    dockerd.docker("rm", "-f", "d1")
    start(dockerd, "net", "d2", "--mac-address", "02:00:00:00:87:08")
    assert endpoint(stack)["mac"] == "02:00:00:00:87:08"
    refused(
        start(dockerd, "net", "d3", "--mac-address", "02:00:00:00:87:08", mac=MAC, check=False),
        "contradicts --mac-address",
    )


def test_an_address_is_kept_for_a_name(stack: Stack, dockerd: Dockerd) -> None:
    create(dockerd, stack, "--subnet", SUBNET, "net")
    start(dockerd, "net", "d1", name="web")
    kept = dockerd.address("d1", "net")
    (pool,) = stack.show("pool", "ls")
    dockerd.docker("rm", "-f", "d1")
    assert owners(stack, pool["name"])[kept] == "reserved"
    refused(start(dockerd, "net", "d2", name="web", check=False), f"{kept} is kept for web", f"add --ip {kept}")
    dockerd.docker("rm", "-f", "d2")
    refused(start(dockerd, "net", "d3", "--ip", kept, check=False), f"{kept} is kept for web", "ovsnet.name=web")
    dockerd.docker("rm", "-f", "d3")
    assert owners(stack, pool["name"])[kept] == "reserved"
    start(dockerd, "net", "d4", "--ip", kept, name="web")
    assert dockerd.address("d4", "net") == kept
    assert dockerd.pings("d4", GATEWAY)
    dockerd.docker("restart", "-t", "0", "d4")
    assert dockerd.address("d4", "net") == kept
    dockerd.docker("rm", "-f", "d4")
    stack.cli("ipam", "release", pool["name"], "web")
    start(dockerd, "net", "d5", "--ip", kept)
    dockerd.docker("rm", "-f", "d5")
    start(dockerd, "net", "d6", name="db")  # whose reservation goes with the network


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rate_out": "fast"}, ("'fast' is no amount of bits", "write it as 800k, 50M or 1.5G")),
        ({"rate_out": "0"}, ("out of range",)),
        ({"burst_in": "1M"}, ("without ovsnet.rate.in",)),
        ({"rate_outt": "1M"}, ("did you mean ovsnet.rate.out?",)),
        ({"mac": "01:00:5e:00:00:01"}, ("is not a unicast Ethernet address",)),
        ({"name": "-rf"}, ("cannot hold a reservation",)),
    ],
)
def test_wrong_endpoint_options_are_refused(
    stack: Stack, dockerd: Dockerd, options: dict[str, str], words: tuple[str, ...]
) -> None:
    create(dockerd, stack, "--subnet", SUBNET, "net")
    refused(start(dockerd, "net", "d1", check=False, **options), "CreateEndpoint", *words)
    assert stack.endpoints() == []
    (pool,) = stack.show("pool", "ls")
    assert owners(stack, pool["name"]) == {GATEWAY: "gateway"}


def test_options_of_docker_and_of_others_are_left_alone(stack: Stack, dockerd: Dockerd) -> None:
    create(dockerd, stack, "--subnet", SUBNET, "net")
    name = "name=net,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.forwarding=1,driver-opt=a=b"
    dockerd.docker("run", "-d", "--name", "d1", "--network", name, IMAGE, "sleep", "600")
    assert dockerd.pings("d1", GATEWAY)


# -- everything together ----------------------------------------------------------------------------------------------


def test_two_stacks_on_several_networks(stack: Stack, dockerd: Dockerd) -> None:
    create(dockerd, stack, "--subnet", SUBNET, "--ipv6", "--subnet", SUBNET6, "one")
    create(dockerd, stack, "--subnet", "10.88.0.0/24", "--ip-range", "10.88.0.128/25", "--internal", "two")
    start(dockerd, "one", "d1", "--ip", "10.87.0.77", "--ip6", "fd87::77")
    dockerd.docker("network", "connect", "--ip", "10.88.0.5", "two", "d1")
    start(dockerd, "one", "d2")
    dockerd.docker("network", "connect", "two", "d2")
    assert dockerd.address("d2", "two") == "10.88.0.128"
    for address in ("10.87.0.77", "10.88.0.5", GATEWAY):
        assert dockerd.pings("d2", address)
    assert dockerd.docker("exec", "d2", "ping", "-6", "-c", "1", "-W", "2", "fd87::77", check=False).returncode == 0
    dockerd.docker("network", "disconnect", "two", "d1")
    assert not dockerd.pings("d2", "10.88.0.5", wait=1)
    assert dockerd.pings("d2", "10.87.0.77")


def test_dockers_own_ipam_with_our_network_driver(stack: Stack, dockerd: Dockerd) -> None:
    dockerd.docker("network", "create", "-d", stack.driver, "--subnet", SUBNET, "-o", "ovsnet.name=foreign", "net")
    assert stack.show("pool", "ls") == []
    assert stack.show("network", "show", "foreign")["gateways"] == [f"{GATEWAY}/24"]
    start(dockerd, "net", "d1", "--ip", "10.87.0.50")
    start(dockerd, "net", "d2", rate_in="5M")
    assert dockerd.pings("d1", dockerd.address("d2", "net"))
    assert dockerd.pings("d1", GATEWAY)
    dockerd.restart()
    dockerd.docker("start", "d1")
    assert dockerd.pings("d1", GATEWAY)


def test_our_ipam_with_dockers_bridge(stack: Stack, dockerd: Dockerd) -> None:
    dockerd.docker("network", "create", "-d", "bridge", "--ipam-driver", stack.driver, "--subnet", SUBNET, "net")
    start(dockerd, "net", "d1")
    (pool,) = stack.show("pool", "ls")
    assert owners(stack, pool["name"]) == {GATEWAY: "gateway", dockerd.address("d1", "net"): "docker"}
    assert dockerd.pings("d1", GATEWAY)
    dockerd.restart()
    dockerd.docker("start", "d1")
    assert dockerd.pings("d1", GATEWAY)
