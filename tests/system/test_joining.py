"""One network under several names: Docker, CNI and the command line join what another of them has made."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.harness import IMAGE, Dockerd, Netns, Result, Stack, wait_until

NewNetns = Callable[[], Netns]
Nothing = Callable[[], None]
Attach = Callable[[Mapping[str, Any]], tuple[Netns, str]]
Make = Callable[..., dict[str, Any]]

SUBNET, GATEWAY = "10.83.0.0/24", "10.83.0.1"
SUBNET6, GATEWAY6 = "fd83::/64", "fd83::1"


@pytest.fixture(autouse=True)
def _clean(no_leftovers: Nothing, dockerd: Dockerd, stack: Stack) -> Iterator[None]:
    """Nobody's network outlives its test, and none leaves anything on the host."""
    before = routes(stack)
    yield
    dockerd.clear()
    stack.clear()
    no_leftovers()
    assert routes(stack) == before


@pytest.fixture
def cni(stack: Stack, netns: NewNetns) -> Attach:
    """Attaches a new namespace by a configuration; its address too."""

    def attach(conf: Mapping[str, Any]) -> tuple[Netns, str]:
        namespace = netns()
        added = stack.cni("ADD", namespace.name, namespace, conf)
        assert added.ok, added
        return namespace, added.addresses[0]

    return attach


@pytest.fixture
def by_cli(stack: Stack) -> Make:
    """Makes networks by the command line."""

    def make(name: str, *options: str) -> dict[str, Any]:
        network: dict[str, Any] = json.loads(stack.cli("network", "create", name, *options, "-o", "json").stdout)
        return network

    return make


def create(dockerd: Dockerd, stack: Stack, *args: str, check: bool = True, timeout: float = 30) -> Result:
    """`docker network create` with our drivers."""
    return dockerd.docker(
        "network", "create", "-d", stack.driver, "--ipam-driver", stack.driver, *args, check=check, timeout=timeout
    )


def join(dockerd: Dockerd, stack: Stack, network: str, *args: str, check: bool = True) -> Result:
    """As the documentation says: without --subnet, the network's name in both options."""
    options = ("--ipam-opt", f"ovsnet.network={network}", "-o", f"ovsnet.network={network}")
    return create(dockerd, stack, *options, *args, check=check)


def start(dockerd: Dockerd, network: str, name: str, *args: str) -> str:
    """Starts a container; its IPv4 address."""
    dockerd.docker("run", "-d", "--name", name, "--network", network, *args, IMAGE, "sleep", "600")
    return dockerd.address(name, network)


def conf(name: str, network: str) -> dict[str, Any]:
    """A configuration that joins a network."""
    return {"cniVersion": "1.0.0", "name": name, "type": "ovsnet", "network": network}


def routes(stack: Stack) -> list[str]:
    """The host's main tables and rules, as printed."""
    shown = [
        stack.host.run("ip", f"-{version}", *what).stdout
        for version in (4, 6)
        for what in (("route", "show"), ("rule", "show"))
    ]
    return [line.strip() for text in shown for line in text.splitlines() if not line.startswith("fe80::")]


def gateways(stack: Stack, pool: str) -> list[str]:
    """Addresses that a pool's gateway leases hold."""
    leases = stack.show("pool", "leases", pool)
    return [lease["address"] for lease in leases if lease["owner"]["kind"] == "gateway"]


def refused(result: Result, *words: str) -> None:
    """The command failed, and says so in these words."""
    assert result.returncode != 0, result.stdout
    for word in words:
        assert word in result.stderr


def test_cni_joins_a_network_that_docker_made(stack: Stack, dockerd: Dockerd, cni: Attach) -> None:
    docker_id = create(dockerd, stack, "--subnet", SUBNET, "-o", "ovsnet.name=blue", "local").stdout.strip()
    network = stack.show("network", "show", "blue")
    docker = start(dockerd, "local", "d1")
    for name, ref in (("pods", "blue"), ("more", docker_id)):
        namespace, address = cni(conf(name, ref))
        assert namespace.pings(docker)
        assert namespace.pings(GATEWAY)
        assert dockerd.pings("d1", address)
    found = stack.endpoints()
    assert {endpoint["network_id"] for endpoint in found} == {network["id"]}
    assert {endpoint["vlan"] for endpoint in found} == {network["vlan"]}
    assert len({endpoint["addresses"][0] for endpoint in found}) == 3


def test_cni_joins_by_the_name_that_docker_left_to_us(stack: Stack, dockerd: Dockerd, cni: Attach) -> None:
    docker_id = create(dockerd, stack, "--subnet", SUBNET, "local").stdout.strip()
    docker = start(dockerd, "local", "d1")
    namespace, _ = cni(conf("pods", f"docker-{docker_id[:12]}"))
    assert namespace.pings(docker)


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "dual"])
def test_docker_joins_a_network_of_the_command_line(
    stack: Stack, dockerd: Dockerd, cni: Attach, by_cli: Make, ipv6: bool
) -> None:
    subnets = ("--subnet", SUBNET, *(("--subnet", SUBNET6) if ipv6 else ()))
    network = by_cli("lan", *subnets, "--vlan", "83")
    before = routes(stack)
    join(dockerd, stack, "lan", *(["--ipv6"] if ipv6 else []), "local")
    assert routes(stack) == before
    told = {(one["Subnet"], one["Gateway"].partition("/")[0]) for one in dockerd.inspect("local")["IPAM"]["Config"]}
    assert told == {(SUBNET, GATEWAY), *([(SUBNET6, GATEWAY6)] if ipv6 else [])}
    assert len(stack.show("network", "show", "lan")["docker_ids"]) == 1
    docker = start(dockerd, "local", "d1")
    namespace, address = cni(conf("pods", "lan"))
    assert dockerd.pings("d1", GATEWAY)
    assert dockerd.pings("d1", address)
    assert namespace.pings(docker)
    if ipv6:
        assert dockerd.pings("d1", GATEWAY6)
        (endpoint,) = (one for one in stack.endpoints() if one["origin"] == "docker")
        assert namespace.pings(endpoint["addresses"][1].partition("/")[0])
    for endpoint in stack.endpoints():
        assert (endpoint["bridge"], endpoint["vlan"]) == (network["bridge"], 83)
        assert endpoint["network_id"] == network["id"]
    assert stack.show("pool", "ls")[0]["networks"] == ["lan"]
    assert routes(stack) == before


def test_docker_joins_a_network_that_cni_made_on_the_fly(stack: Stack, dockerd: Dockerd, cni: Attach) -> None:
    namespace, address = cni(stack.conf("pods", subnet=SUBNET))
    network = stack.show("network", "show", "pods")
    join(dockerd, stack, "pods", "local")
    join(dockerd, stack, "pods", "again")  # two names for it in one Docker
    for name in ("local", "again"):
        docker = start(dockerd, name, f"d-{name}")
        assert dockerd.pings(f"d-{name}", address)
        assert namespace.pings(docker)
    assert {(one["bridge"], one["vlan"]) for one in stack.endpoints()} == {(network["bridge"], network["vlan"])}
    assert len(stack.show("network", "show", "pods")["docker_ids"]) == 2
    dockerd.docker("rm", "-f", "d-again")
    dockerd.docker("network", "rm", "again")
    assert len(stack.show("network", "show", "pods")["docker_ids"]) == 1
    assert dockerd.pings("d-local", address)


def test_traffic_of_the_network_goes_on_while_docker_joins(
    stack: Stack, dockerd: Dockerd, cni: Attach, by_cli: Make
) -> None:
    by_cli("lan", "--subnet", SUBNET)
    namespace, address = cni(conf("pods", "lan"))
    assert namespace.pings(GATEWAY)
    reports = []

    def ping(where: Netns, target: str) -> None:
        reports.append(where.run("ping", "-n", "-q", "-i", "0.01", "-c", "150", "-W", "2", target, check=False).stdout)

    threads = [threading.Thread(target=ping, args=pair) for pair in ((namespace, GATEWAY), (stack.host, address))]
    for thread in threads:
        thread.start()
    join(dockerd, stack, "lan", "local")
    for thread in threads:
        thread.join(30)
    assert len(reports) == 2
    assert all(" 0% packet loss" in report for report in reports), reports


def test_the_last_docker_name_leaves_the_network_standing(
    stack: Stack, dockerd: Dockerd, cni: Attach, by_cli: Make
) -> None:
    network = by_cli("lan", "--subnet", SUBNET)
    before = routes(stack)
    join(dockerd, stack, "lan", "local")
    address = start(dockerd, "local", "d1")
    blocked = stack.cli("network", "rm", "lan", "-o", "json", check=False)
    assert blocked.returncode == 4
    assert json.loads(blocked.stderr)["code"] == "in-use"
    assert dockerd.pings("d1", GATEWAY)
    dockerd.docker("rm", "-f", "d1")
    dockerd.docker("network", "rm", "local")
    assert stack.show("network", "show", "lan") == network
    assert gateways(stack, "lan") == [GATEWAY]
    assert [lease["address"] for lease in stack.show("pool", "leases", "lan")] == [GATEWAY]
    assert routes(stack) == before
    namespace, other = cni(conf("pods", "lan"))
    assert namespace.pings(GATEWAY)
    assert other != address  # it cools down


def test_one_of_the_two_options_alone_is_refused(stack: Stack, dockerd: Dockerd, by_cli: Make, cni: Attach) -> None:
    network = by_cli("lan", "--subnet", SUBNET)
    before = routes(stack)
    only_ipam = create(dockerd, stack, "--ipam-opt", "ovsnet.network=lan", "local", check=False)
    refused(only_ipam, "NetworkDriver.CreateNetwork", "belongs to network lan", "add -o ovsnet.network=lan to join it")
    only_network = create(dockerd, stack, "-o", "ovsnet.network=lan", "--subnet", "10.84.0.0/24", "local", check=False)
    refused(only_network, "the addresses are not those of network lan", "--ipam-opt ovsnet.network=lan")
    neither = create(dockerd, stack, "-o", "ovsnet.network=lan", "local", check=False)
    refused(neither, "the addresses are not those of network lan", "--ipam-opt ovsnet.network=lan")
    foreign = ("-o", "ovsnet.network=lan", "--subnet", "10.84.0.0/24", "local")
    refused(dockerd.docker("network", "create", "-d", stack.driver, *foreign, check=False), "not those of network lan")
    assert stack.show("network", "ls") == [network]
    assert [pool["name"] for pool in stack.show("pool", "ls")] == ["lan"]
    assert gateways(stack, "lan") == [GATEWAY]
    assert routes(stack) == before
    namespace, _ = cni(conf("pods", "lan"))
    assert namespace.pings(GATEWAY)


def test_what_contradicts_the_network_is_refused(stack: Stack, dockerd: Dockerd, by_cli: Make) -> None:
    network = by_cli("lan", "--subnet", SUBNET, "--vlan", "83")
    before = routes(stack)
    for args, *words in (
        (("--subnet", "10.84.0.0/24"), f"network lan has subnet {SUBNET}, not 10.84.0.0/24", "leave --subnet out"),
        (("-o", "ovsnet.vlan=84"), "network lan has ovsnet.vlan 83, not 84", "leave it out"),
        (("-o", "ovsnet.bridge=other"), f"network lan has ovsnet.bridge {stack.bridge}, not other"),
        (("-o", "ovsnet.mtu=1300"), "network lan has ovsnet.mtu 1500, not 1300"),
        (("--ipv6",), "network lan has no IPv6 pool", "create without IPv6"),
    ):
        refused(join(dockerd, stack, "lan", *args, "local", check=False), *words)
        assert routes(stack) == before
    refused(join(dockerd, stack, "nowhere", "local", check=False), "IpamDriver.RequestPool", "nowhere")
    by_cli("other", "--subnet", "10.84.0.0/24")
    pair = ("--ipam-opt", "ovsnet.network=other", "-o", "ovsnet.network=lan")
    refused(create(dockerd, stack, *pair, "local", check=False), "the addresses are not those of network lan")
    assert stack.show("network", "show", "lan") == network
    assert not any(one["docker_ids"] for one in stack.show("network", "ls"))
    assert gateways(stack, "lan") == [GATEWAY]
    assert gateways(stack, "other") == ["10.84.0.1"]


def test_a_subnet_that_agrees_is_accepted(stack: Stack, dockerd: Dockerd, by_cli: Make) -> None:
    by_cli("lan", "--subnet", SUBNET, "--vlan", "83")
    join(dockerd, stack, "lan", "--subnet", SUBNET, "-o", "ovsnet.vlan=83", "local")
    start(dockerd, "local", "d1")
    assert dockerd.pings("d1", GATEWAY)


def test_a_second_wish_for_a_subnet_does_not_harm_the_first(stack: Stack, dockerd: Dockerd, cni: Attach) -> None:
    create(dockerd, stack, "--subnet", SUBNET, "-o", "ovsnet.name=blue", "first")
    docker = start(dockerd, "first", "d1")
    (pool,) = stack.show("pool", "ls")
    leases = stack.show("pool", "leases", pool["name"])
    for subnet in (SUBNET, "10.83.0.128/25", "10.83.0.0/16"):
        refused(create(dockerd, stack, "--subnet", subnet, "second", check=False), "IpamDriver.RequestPool", SUBNET)
    assert stack.show("pool", "ls") == [pool]
    assert stack.show("pool", "leases", pool["name"]) == leases
    assert gateways(stack, pool["name"]) == [GATEWAY]
    assert dockerd.pings("d1", GATEWAY)
    second = start(dockerd, "first", "d2")
    assert dockerd.pings("d2", docker)
    namespace, address = cni(conf("pods", "blue"))
    assert namespace.pings(second)
    assert dockerd.pings("d1", address)


def test_a_network_that_docker_made_alone_is_joined_by_another(stack: Stack, dockerd: Dockerd, cni: Attach) -> None:
    """It goes with its last Docker name, whichever that is."""
    create(dockerd, stack, "--subnet", SUBNET, "-o", "ovsnet.name=blue", "first")
    join(dockerd, stack, "blue", "second")
    one, two = start(dockerd, "first", "d1"), start(dockerd, "second", "d2")
    assert dockerd.pings("d1", two)
    assert dockerd.pings("d2", one)
    dockerd.docker("rm", "-f", "d1")
    dockerd.docker("network", "rm", "first")
    assert dockerd.pings("d2", GATEWAY)
    namespace, address = cni(conf("pods", "blue"))
    assert dockerd.pings("d2", address)
    assert namespace.pings(two)


def test_an_abandoned_join_gives_the_route_back(stack: Stack, by_cli: Make) -> None:
    """A Docker that dies between its two calls: the timer ends what it has begun, and removal does at once."""
    by_cli("lan", "--subnet", SUBNET)
    before = routes(stack)
    body = json.dumps(
        {"AddressSpace": "ovsnet", "Pool": "", "SubPool": "", "Options": {"ovsnet.network": "lan"}, "V6": False}
    )
    curl = ("curl", "-sS", "--unix-socket", stack.docker_socket, "-d", body, "http://d/IpamDriver.RequestPool")
    assert json.loads(stack.host.run(*curl).stdout)["Pool"] == SUBNET
    assert routes(stack) != before
    stack.cli("network", "create", "brief", "--subnet", "10.84.0.0/24")
    stack.host.run(*(part.replace('"lan"', '"brief"') if isinstance(part, str) else part for part in curl))
    stack.cli("network", "rm", "brief")
    assert not any("10.84." in line for line in routes(stack))
    wait_until(lambda: routes(stack) == before, "the route is back", 15)
