"""What we promise of the CNI protocol, case by case, over versions, commands and conditions (SPEC 1.1.0 and its predecessors).

Every case executes the real plugin against the real ovsnetd. Read the tables as documentation: given, when, expect. A case
starts with a network `conf` that exists and an empty container, and leaves them like that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from tests.harness import CniResult, Netns, Stack, wait_until

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
WITH_CHECK = VERSIONS[4:]
SUBNET, SUBNET6 = "10.81.0.0/24", "fd81::/64"
GATEWAY, GATEWAY6 = "10.81.0.1", "fd81::1"

JSON = dict[str, Any]


class World:
    """The stack with a network of both families, and a container for each case."""

    def __init__(self, stack: Stack, undo: ExitStack, token: str) -> None:
        self.stack = stack
        self._numbers = count()
        self._token = token
        self.keeper = self.container(undo)
        result = self.keeper.call("ADD", self.config())
        assert result.ok, result
        self.kept: JSON = result.output
        undo.callback(lambda: stack.cli("network", "rm", "conf"))
        undo.callback(self.keeper.call, "DEL", self.config())

    def container(self, undo: ExitStack) -> Container:
        """A fresh one."""
        netns = Netns(f"{self._token}-cc{next(self._numbers)}")
        undo.callback(netns.delete)
        return Container(self.stack, netns)

    @staticmethod
    def config(version: str = "1.1.0", **more: Any) -> JSON:
        """A configuration of the network; None removes a key."""
        ipam = {"type": "ovsnet-ipam", "ranges": [[{"subnet": SUBNET}], [{"subnet": SUBNET6}]]}
        config = {"cniVersion": version, "name": "conf", "type": "ovsnet", "ipam": ipam} | more
        return {key: value for key, value in config.items() if value is not None}


class Container:
    """An empty container, and the executions of the plugin for it."""

    def __init__(self, stack: Stack, netns: Netns) -> None:
        self.stack = stack
        self.netns = netns

    def call(self, command: str, config: JSON | str, **environment: str) -> CniResult:
        """One execution; `environment` replaces variables."""
        return self.stack.cni(
            command, self.netns.name, self.netns, config, "eth0", plugin="ovsnet", timeout=60.0, **environment
        )

    @property
    def links(self) -> list[str]:
        """Names of its interfaces, without those that vswitchd is about to remove."""
        names = [link["ifname"] for link in self.netns.ip("link")]
        return [name for name in names if not name.startswith(f"{self.stack.prefix}x")]


@pytest.fixture(scope="module")
def world(_stack: Stack, _ovs: Any, token: str) -> Iterator[World]:
    _ovs.ensure()
    _stack.ensure()
    with ExitStack() as undo:
        yield World(_stack, undo, token)
    wait_until(lambda: not _stack.leftovers(), "nothing is left of all cases")


@pytest.fixture
def box(world: World) -> Iterator[Container]:
    with ExitStack() as undo:
        container = world.container(undo)
        yield container
        assert container.call("DEL", world.config()).ok  # what a runtime does at the end, whatever has happened
        assert container.links == ["lo"]


def failed(result: CniResult, code: int, version: str = "1.1.0") -> str:
    """The message of an answer that has to be this error, in the form of every version."""
    assert result.returncode != 0
    assert result.stderr == ""
    assert set(result.output) == {"cniVersion", "code", "msg", "details"}
    assert (result.output["code"], result.output["cniVersion"]) == (code, version), result.output
    assert result.output["msg"]
    return f"{result.output['msg']} {result.output['details']}"


def succeeded(result: CniResult) -> JSON:
    """The output of an answer that has to be success."""
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.output or {}


# -- Results


@pytest.mark.parametrize("version", VERSIONS)
def test_add_answers_in_the_shape_of_the_version(world: World, box: Container, version: str) -> None:
    result = succeeded(box.call("ADD", world.config(version)))
    assert result["cniVersion"] == version
    (link,) = [one for one in box.netns.ip("addr") if one["ifname"] == "eth0"]
    real = {f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if one["scope"] == "global"}
    routes = [{"dst": "0.0.0.0/0", "gw": GATEWAY}, {"dst": "::/0", "gw": GATEWAY6}]
    order = VERSIONS.index(version)
    if order < VERSIONS.index("0.3.0"):
        assert set(result) == {"cniVersion", "ip4", "ip6", "dns"}
        assert {result["ip4"]["ip"], result["ip6"]["ip"]} == real
        assert (result["ip4"]["gateway"], result["ip6"]["gateway"]) == (GATEWAY, GATEWAY6)
        assert [result["ip4"]["routes"], result["ip6"]["routes"]] == [routes[:1], routes[1:]]
        return
    assert set(result) == {"cniVersion", "interfaces", "ips", "routes", "dns"}
    interface = {"name": "eth0", "mac": link["address"], "sandbox": str(box.netns.path)}
    assert result["interfaces"] == [interface | ({"mtu": link["mtu"]} if version == "1.1.0" else {})]
    assert {ip["address"] for ip in result["ips"]} == real
    assert [ip.get("version") for ip in result["ips"]] == ([None, None] if order >= 5 else ["4", "6"])
    assert [ip["gateway"] for ip in result["ips"]] == [GATEWAY, GATEWAY6]
    assert {ip["interface"] for ip in result["ips"]} == {0}
    assert result["routes"] == routes


@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_add_again_gives_the_same_answer(world: World, box: Container, version: str) -> None:
    assert succeeded(box.call("ADD", world.config(version))) == succeeded(box.call("ADD", world.config(version)))


@pytest.mark.parametrize("version", VERSIONS)
def test_del_answers_nothing_and_repeats(world: World, box: Container, version: str) -> None:
    succeeded(box.call("ADD", world.config(version)))
    for _ in range(2):
        assert box.call("DEL", world.config(version)).output is None
        assert box.links == ["lo"]


@pytest.mark.parametrize("version", VERSIONS)
def test_version_tells_all_versions_and_echoes_the_one_asked_in(box: Container, version: str) -> None:
    result = succeeded(box.call("VERSION", {"cniVersion": version}))
    assert result == {"cniVersion": version, "supportedVersions": list(VERSIONS)}


@pytest.mark.parametrize("version", WITH_CHECK)
def test_check_of_what_was_added(world: World, box: Container, version: str) -> None:
    result = succeeded(box.call("ADD", world.config(version)))
    assert box.call("CHECK", world.config(version, prevResult=result)).output is None


@pytest.mark.parametrize("version", VERSIONS)
def test_chained_after_another_plugin_its_result_passes_through(world: World, box: Container, version: str) -> None:
    previous = {"cniVersion": version, "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01"}], "dns": {"x": [1]}}
    assert succeeded(box.call("ADD", world.config(version, prevResult=previous))) == previous
    assert box.links == ["lo"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_an_error_echoes_the_version(world: World, box: Container, version: str, command: str) -> None:
    assert "CNI_IFNAME" in failed(box.call(command, world.config(version), CNI_IFNAME=""), 4, version)


# -- Commands that a version does not have, and versions that we do not have


@pytest.mark.parametrize(
    ("command", "version"),
    [("CHECK", version) for version in VERSIONS[:4]]
    + [(command, version) for command in ("GC", "STATUS") for version in VERSIONS[:6]],
)
def test_a_command_that_the_version_does_not_have(world: World, box: Container, command: str, version: str) -> None:
    assert f"no command {command}" in failed(box.call(command, world.config(version)), 1, version)


@pytest.mark.parametrize("version", ["9.9.9", "1.2.0", "1.0", "1", "v1.0.0", "", " 1.0.0"])
@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_a_version_that_we_do_not_have(world: World, box: Container, command: str, version: str) -> None:
    assert "supported: 0.1.0" in failed(box.call(command, world.config(version)), 1, version)


@pytest.mark.parametrize("command", ["GC", "STATUS"])
def test_commands_of_1_1_0_that_succeed_in_silence(world: World, box: Container, command: str) -> None:
    valid = [{"containerID": world.keeper.netns.name, "ifname": "eth0"}]
    config = world.config() | {"cni.dev/valid-attachments": valid}
    assert box.call(command, config, CNI_CONTAINERID="", CNI_NETNS="", CNI_IFNAME="").output is None
    assert world.keeper.links == ["lo", "eth0"]


# -- Environment


@dataclass(frozen=True)
class Environment:
    """A variable with this value makes `command` fail with `code`, and words that hold `says`."""

    command: str
    variable: str
    value: str
    code: int = 4
    says: str = ""


ENVIRONMENTS = [
    *(Environment(command, "CNI_CONTAINERID", "", says="not set") for command in ("ADD", "DEL", "CHECK")),
    *(Environment(command, "CNI_IFNAME", "", says="not set") for command in ("ADD", "DEL", "CHECK")),
    *(Environment(command, "CNI_NETNS", "", says="not set") for command in ("ADD", "CHECK")),
    *(
        Environment(command, "CNI_CONTAINERID", value, says="container ID")
        for command in ("ADD", "DEL")
        for value in ("-x", "a/b", "a b", "ä", "_", "x" * 300)
    ),
    *(
        Environment(command, "CNI_IFNAME", value, says="interface name")
        for command in ("ADD", "DEL")
        for value in ("x" * 16, "a/b", "a:b", "a b", ".", "..", "-a", "all", "a%d")
    ),
    Environment("ADD", "CNI_NETNS", "/nowhere"),
    Environment("ADD", "CNI_NETNS", "/etc/passwd"),
    Environment("ADD", "CNI_NETNS", "/run"),
    Environment("ADD", "CNI_NETNS", "relative"),
    Environment("ADD", "CNI_NETNS", "/proc/self/ns/net"),
    Environment("ADD", "CNI_NETNS", "/proc/self/ns/mnt"),
    Environment("ADD", "CNI_ARGS", "IP", says="is no pair"),
    Environment("ADD", "CNI_ARGS", "IP=10.81.0", says="IP="),
    Environment("ADD", "CNI_ARGS", "IP=10.81.0.7,10.81.0.8", 7, "one IPv4"),
    Environment("ADD", "CNI_ARGS", "MAC=ff:ff:ff:ff:ff:ff", says="unicast"),
    Environment("ADD", "CNI_ARGS", "MAC=02:00", says="unicast"),
    Environment("ADD", "CNI_ARGS", "COLOUR=red", says="IgnoreUnknown"),
    Environment("ADD", "CNI_ARGS", "IP=10.99.0.7", 100, "10.99.0.7"),
    Environment("ADD", "CNI_ARGS", f"IP={GATEWAY}", 114, GATEWAY),
    Environment("ADD", "CNI_ARGS", "IP=10.81.0.255", 100),
    Environment("ADD", "CNI_COMMAND", "add", says="CNI_COMMAND"),
    Environment("ADD", "CNI_COMMAND", "PURGE", says="known: ADD"),
]


@pytest.mark.parametrize("case", ENVIRONMENTS, ids=lambda case: f"{case.command}-{case.variable}={case.value[:20]}")
def test_a_wrong_environment(world: World, box: Container, case: Environment) -> None:
    config = world.config(prevResult=world.kept if case.command == "CHECK" else None)
    assert case.says in failed(box.call(case.command, config, **{case.variable: case.value}), case.code)
    assert box.links == ["lo"]


@pytest.mark.parametrize("variable", ["CNI_NETNS", "CNI_ARGS", "CNI_PATH"])
def test_del_does_without(world: World, box: Container, variable: str) -> None:
    succeeded(box.call("ADD", world.config()))
    succeeded(box.call("DEL", world.config(), **{variable: ""}))
    assert box.links == ["lo"]


@pytest.mark.parametrize("arguments", ["IgnoreUnknown=1;COLOUR=red", "K8S_POD_NAME=p;K8S_POD_NAMESPACE=n", "", ";;"])
def test_arguments_that_are_fine(world: World, box: Container, arguments: str) -> None:
    succeeded(box.call("ADD", world.config(), CNI_ARGS=arguments))


# -- Configuration


CONFIGURATIONS: list[tuple[JSON, int, str]] = [
    ({"name": ""}, 7, "no name"),
    ({"name": 5}, 7, "no name"),
    ({"name": "-x"}, 7, "name '-x'"),
    ({"network": "nowhere", "ipam": None}, 103, "no network 'nowhere'"),
    ({"network": 5}, 7, "network is not a string"),
    ({"vlan": -1}, 7, "VLAN tag -1"),
    ({"vlan": 4095}, 7, "VLAN tag 4095"),
    ({"vlan": "20"}, 7, "vlan"),
    ({"vlna": 20}, 7, "did you mean 'vlan'"),
    ({"Bridge": "x"}, 7, "did you mean 'bridge'"),
    ({"bridge": "another"}, 111, "has bridge"),
    ({"mtu": 10}, 7, "MTU 10"),
    ({"mtu": 60000}, 7, "MTU 60000"),
    ({"mtu": "1500"}, 7, "mtu"),
    ({"internal": True, "isGateway": True}, 7, "contradict"),
    ({"ipam": {}}, 7, "ipam"),
    ({"ipam": {"type": "ovsnet-ipam", "subnet": "10.81.0.1/24"}}, 7, "host bits"),
    ({"ipam": {"type": "ovsnet-ipam", "subnet": "10.82.0.0/24"}}, 111, "has subnet"),
    ({"ipam": {"type": "ovsnet-ipam", "subent": SUBNET}}, 7, "did you mean 'subnet'"),
    ({"ipam": {"type": "ovsnet-ipam", "rangeStart": "10.81.0.9"}}, 7, "no subnet"),
    ({"ipam": {"type": "ovsnet-ipam", "ranges": [[]]}}, 7, "ranges"),
    (
        {"ipam": {"type": "ovsnet-ipam", "ranges": [[{"subnet": SUBNET}], [{"subnet": "10.83.0.0/24"}]]}},
        7,
        "one family",
    ),
    ({"ipam": {"type": "ovsnet-ipam", "pool": "nowhere"}}, 102, "no pool"),
    ({"ipam": {"type": "ovsnet-ipam", "routes": [{"dst": "x"}]}}, 7, "routes"),
    ({"ipam": {"type": "ovsnet-ipam", "routes": [{"dst": "10.0.0.0/8", "gw": "fd81::1"}]}}, 7, "cannot go by"),
    ({"ipam": {"type": "ovsnet-ipam", "routes": [{"dst": "10.0.0.0/8"}]}}, 7, "no next hop"),
    ({"runtimeConfig": {"ips": ["10.81.0.7", "10.81.0.8"]}}, 7, "one IPv4"),
    ({"runtimeConfig": {"ips": "10.81.0.7"}}, 7, "ips"),
    ({"runtimeConfig": {"mac": "nonsense"}}, 7, "unicast"),
    ({"runtimeConfig": {"ips": ["10.99.0.7"]}}, 100, "10.99.0.7"),
    ({"runtimeConfig": {"ips": [GATEWAY]}}, 114, GATEWAY),
    ({"args": {"cni": {"labels": {"a": "b"}}}}, 7, "labels"),
    ({"args": []}, 7, "args"),
    ({"dns": {"nameservers": "10.0.0.1"}}, 7, "nameservers"),
    ({"sysctl": {"net.ipv4.ip_forward": "1"}}, 7, "not for this plugin"),
    ({"sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "many"}}, 7, "arp_notify"),
    ({"vlanTrunk": [{"id": 5000}]}, 7, "5000"),
    ({"vlanTrunk": [{}]}, 7, "vlanTrunk"),
    ({"log_level": "loud"}, 7, "log_level"),
    ({"promiscMode": "yes"}, 7, "promiscMode"),
    ({"ipMasq": True}, 111, "masquerade"),
]


@pytest.mark.parametrize(("changes", "code", "says"), CONFIGURATIONS, ids=lambda value: json.dumps(value)[:50])
def test_a_wrong_configuration(world: World, box: Container, changes: JSON, code: int, says: str) -> None:
    assert says in failed(box.call("ADD", world.config(**changes)), code)
    assert box.links == ["lo"]


REFUSED_BY_ADD = [changes for changes, _, _ in CONFIGURATIONS if not changes.keys() & {"name", "network"}]


@pytest.mark.parametrize("changes", REFUSED_BY_ADD, ids=lambda value: json.dumps(value)[:50])
def test_del_works_with_a_configuration_that_add_refuses(world: World, box: Container, changes: JSON) -> None:
    succeeded(box.call("ADD", world.config()))
    succeeded(box.call("DEL", world.config() | changes))
    assert box.links == ["lo"]


@pytest.mark.parametrize(
    "stdin", ["", " ", "x", "[]", '"x"', "{", "null", '{"a": NaN}', "[" * 5000, '{"name": "\\ud800"']
)
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_stdin_that_is_no_configuration(box: Container, command: str, stdin: str) -> None:
    failed(box.call(command, stdin), 6)


# -- What is asked for


@pytest.mark.parametrize(
    ("changes", "arguments", "address"),
    [
        ({}, "IP=10.81.0.70", "10.81.0.70"),
        ({}, "IP=10.81.0.71/24", "10.81.0.71"),
        ({"args": {"cni": {"ips": ["10.81.0.72"]}}}, "", "10.81.0.72"),
        ({"runtimeConfig": {"ips": ["10.81.0.73/24"]}}, "", "10.81.0.73"),
        ({"args": {"cni": {"ips": ["10.81.0.74"]}}}, "IP=10.81.0.79", "10.81.0.74"),
        ({"runtimeConfig": {"ips": ["10.81.0.75"]}, "args": {"cni": {"ips": ["10.81.0.79"]}}}, "", "10.81.0.75"),
    ],
)
def test_an_address_asked_for(world: World, box: Container, changes: JSON, arguments: str, address: str) -> None:
    assert box.call("ADD", world.config(**changes), CNI_ARGS=arguments).addresses[0] == address


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        ({}, "MAC=02:00:00:00:00:42"),
        ({"args": {"cni": {"mac": "02:00:00:00:00:42"}}}, ""),
        ({"runtimeConfig": {"mac": "02-00-00-00-00-42"}}, "MAC=02:00:00:00:00:43"),
    ],
)
def test_a_mac_asked_for(world: World, box: Container, changes: JSON, arguments: str) -> None:
    result = succeeded(box.call("ADD", world.config(**changes), CNI_ARGS=arguments))
    assert result["interfaces"][0]["mac"] == "02:00:00:00:00:42"


def test_an_address_that_another_container_has(world: World, box: Container) -> None:
    taken = world.kept["ips"][0]["address"].partition("/")[0]
    assert taken in failed(box.call("ADD", world.config(), CNI_ARGS=f"IP={taken}"), 114)


def test_an_interface_that_somebody_else_made(world: World, box: Container) -> None:
    box.netns.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    failed(box.call("ADD", world.config()), 116)
    assert box.call("DEL", world.config()).ok
    assert sorted(box.links) == ["eth0", "lo", "other"]  # and it is not ours to remove
    box.netns.run("ip", "link", "del", "eth0")


def test_check_of_a_container_that_was_never_added(world: World, box: Container) -> None:
    failed(box.call("CHECK", world.config(prevResult=world.kept)), 3)


@pytest.mark.parametrize("previous", [None, "x", [], 5])
def test_check_needs_the_previous_result(world: World, box: Container, previous: Any) -> None:
    failed(box.call("CHECK", world.config() | {"prevResult": previous}), 7)


@pytest.mark.parametrize("given", [{}, {"cni.dev/valid-attachments": ["x"]}, {"cni.dev/valid-attachments": [{}]}])
def test_gc_needs_the_attachments_that_are_valid(world: World, box: Container, given: JSON) -> None:
    failed(box.call("GC", world.config() | given), 7)
    assert world.keeper.links == ["lo", "eth0"]
