"""Bad input at every edge: the protocol's own error, a sentence that says what to do, and nothing left behind."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ovsnet.client import Client
from tests.harness import IMAGE, CniResult, Dockerd, Netns, Result, Stack, wait_until

NewNetns = Callable[[], Netns]

SUBNET, GATEWAY, TAKEN, VLAN = "10.85.0.0/24", "10.85.0.1", "10.85.0.20", 85
FREE_SUBNET = "10.86.0.0/24"
OWN: dict[str, Any] = {"cniVersion": "1.0.0", "name": "blue", "type": "ovsnet"}
IPAM = {"type": "ovsnet-ipam"}


class World:
    """Whatever a request may leave behind, on the host and in the one container that the requests are about."""

    def __init__(self, stack: Stack, box: Netns) -> None:
        self.stack = stack
        self.box = box
        self.client = Client(str(stack.socket))

    def _ports(self) -> dict[str, Any]:
        columns = ("--format=json", "--columns=name,tag,external_ids", "find", "Port")
        table = json.loads(self.stack.ovs.vsctl(*columns, f"external_ids:ovsnet-owner={self.stack.prefix}"))
        return {name: (tag, dict(ids[1])) for name, tag, ids in table["data"]}

    def look(self) -> dict[str, Any]:
        """Everything, without spare ports: these come and go behind the answers."""
        stack = self.stack
        rows: dict[str, list[Any]] = {
            "pools": [*self.client.pools()],
            "networks": [*self.client.networks()],
            "endpoints": [*self.client.endpoints()],
        }
        leases = {pool["name"]: self.client.leases(pool["name"]) for pool in rows["pools"]}
        ports = self._ports()
        spare = {name for name, (_, ids) in ports.items() if ids["ovsnet-role"] == "spare"}
        links = {link["ifname"] for link in stack.host.ip("link", "show") if link.get("link") not in spare}
        return {
            **{noun: sorted(found, key=lambda row: str(row["id"])) for noun, found in rows.items()},
            "leases": {name: sorted(map(str, found)) for name, found in leases.items()},
            "ports": {name: port for name, port in ports.items() if name not in spare},
            "bridges": sorted(stack.ovs.vsctl("list-br").split()),
            "links": sorted(links - spare - _fresh(links, stack.prefix, ports)),
            "routes": [stack.host.run("ip", f"-{version}", "route").stdout for version in (4, 6)],
            "container": [(link["ifname"], link["address"]) for link in self.box.ip("link", "show")],
        }


def _fresh(links: set[str], prefix: str, ports: Mapping[str, Any]) -> set[str]:
    """Devices of ports that were made between two looks, and deleted ones that vswitchd still has."""
    return {name for name in links if name.startswith(f"{prefix}p") and name not in ports}


@pytest.fixture
def world(stack: Stack, netns: NewNetns) -> Iterator[World]:
    """A network `blue` with a container that has the address TAKEN, and an empty container."""
    world = World(stack, netns())
    world.client.create_network("blue", subnets=[SUBNET], vlan=VLAN)
    other = netns()
    added = stack.cni("ADD", "other", other, OWN, CNI_ARGS=f"IP={TAKEN}")
    assert added.ok, added
    (port,) = (one["port"] for one in world.client.endpoints())
    wait_until(lambda: port in world.look()["ports"], "the port is marked as the endpoint's, behind the answer", 5)
    yield world
    for endpoint in world.client.endpoints():
        world.client.delete_endpoint(endpoint["id"])
    for network in world.client.networks():
        world.client.delete_network(network["id"])
    empty: dict[str, Any] = {"pools": [], "networks": [], "endpoints": [], "leases": {}, "ports": {}, "bridges": []}
    wait_until(lambda: world.look().items() >= empty.items(), "nothing is left", 5)


@pytest.fixture
def unharmed(world: World) -> Iterator[World]:
    """The world, which has to be as it was before the test."""
    before = world.look()
    yield world
    end = time.monotonic() + 5  # what is undone behind an answer
    while (after := world.look()) != before and time.monotonic() < end:
        time.sleep(0.1)
    assert after == before


def check_cni(result: CniResult, code: int, *words: str, version: str = "1.0.0") -> None:
    """The specification's section 5 "Error", with a sentence that has `words` and a hint."""
    assert result.returncode == 1, result
    assert set(result.output) == {"cniVersion", "code", "msg", "details"}, result
    assert (result.output["cniVersion"], result.output["code"]) == (version, code), result
    assert result.output["msg"]
    assert result.output["details"]
    text = f"{result.output['msg']}: {result.output['details']}"
    for word in words:
        assert word in text


# -- CNI: the network configuration

CONFIGURATIONS: dict[str, tuple[Any, int, tuple[str, ...]]] = {
    "not JSON": ('{"cniVersion": "1.0.0", "name": ', 6, ("not JSON", "stdin")),
    "nothing": ("", 6, ("not JSON",)),
    "no object": ("[]", 6, ("not a JSON object",)),
    "no name": ({"cniVersion": "1.0.0", "type": "ovsnet"}, 7, ("name",)),
    "name with a slash": (OWN | {"name": "../blue"}, 7, ("'../blue' is not valid",)),
    "version to come": (OWN | {"cniVersion": "9.9.9"}, 1, ("'9.9.9' is not supported", "1.1.0")),
    "version is a number": (OWN | {"cniVersion": 1}, 7, ("cniVersion is not a string",)),
    "unknown key": (OWN | {"vlna": 5}, 7, ("'vlna'", "did you mean 'vlan'?")),
    "unknown key of ipam": (OWN | {"ipam": IPAM | {"subnett": SUBNET}}, 7, ("did you mean 'subnet'?",)),
    "ipam of others": (
        OWN | {"ipam": {"type": "host-local"}},
        7,
        ("host-local is not in CNI_PATH", "correct ipam.type"),
    ),
    "unknown network": (OWN | {"name": "nowhere"}, 103, ("'nowhere'", "ovsnet network create", "subnet")),
    "overlap": (
        OWN | {"name": "new", "ipam": IPAM | {"subnet": "10.85.0.128/25"}},
        112,
        ("overlaps pool blue", SUBNET, "choose another"),
    ),
    "overlap around": (OWN | {"name": "new", "ipam": IPAM | {"subnet": "10.0.0.0/8"}}, 112, ("overlaps pool blue",)),
    "other subnet": (OWN | {"ipam": IPAM | {"subnet": FREE_SUBNET}}, 111, (f"has subnet {SUBNET}", "correct")),
    "host bits": (OWN | {"name": "new", "ipam": IPAM | {"subnet": "10.86.0.7/24"}}, 7, ("subnet", "host bits")),
    "no subnet": (OWN | {"name": "new", "ipam": IPAM | {"subnet": "blue"}}, 7, ("subnet",)),
    "vlan 5000": (
        OWN | {"name": "new", "vlan": 5000, "ipam": IPAM | {"subnet": FREE_SUBNET}},
        7,
        ("5000", "0 (untagged) to 4094"),
    ),
    "vlan of another": (
        OWN | {"name": "new", "vlan": VLAN, "ipam": IPAM | {"subnet": FREE_SUBNET}},
        113,
        (f"VLAN {VLAN}", "network blue", "choose another tag"),
    ),
    "vlan without subnet": (OWN | {"vlan": 7}, 7, ("vlan without ipam.subnet", "remove vlan")),
    "mtu": (OWN | {"mtu": 20}, 7, ("MTU 20", "68")),
    "mtu above the network's": (OWN | {"mtu": 9000}, 7, ("MTU 9000", "1500")),
    "published port": (
        OWN | {"runtimeConfig": {"portMappings": [{"hostPort": 0, "containerPort": 80}]}},
        7,
        ("portMappings", "1 to 65535"),
    ),
    "bandwidth": (OWN | {"runtimeConfig": {"bandwidth": {"egressBurst": 1}}}, 7, ("egressBurst without egressRate",)),
    "address outside": (OWN | {"runtimeConfig": {"ips": ["10.99.0.5/24"]}}, 100, ("10.99.0.5", SUBNET)),
    "broadcast address": (OWN | {"runtimeConfig": {"ips": ["10.85.0.255"]}}, 100, ("10.85.0.255",)),
    "address in use": (OWN | {"runtimeConfig": {"ips": [TAKEN]}}, 114, (TAKEN,)),
    "the gateway's address": (OWN | {"runtimeConfig": {"ips": [GATEWAY]}}, 114, (GATEWAY,)),
    "IPv6 without a pool": (OWN | {"runtimeConfig": {"ips": ["fd85::5"]}}, 100, ("IPv6",)),
    "group MAC": (OWN | {"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}, 7, ("01:00:5e:00:00:01",)),
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_cni_refuses_a_configuration(unharmed: World, case: str) -> None:
    conf, code, words = CONFIGURATIONS[case]
    version = conf.get("cniVersion") if isinstance(conf, dict) else None
    told = version if isinstance(version, str) else "1.1.0"  # the newest, where it cannot be read
    check_cni(unharmed.stack.cni("ADD", "box", unharmed.box, conf), code, *words, version=told)


def test_cni_makes_no_network_for_a_container_that_it_refuses(unharmed: World) -> None:
    """The configuration is good, but the container cannot be attached: the network made on the fly goes again."""
    unharmed.box.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
    try:
        conf = unharmed.stack.conf("new", subnet=FREE_SUBNET)
        refusals: list[tuple[dict[str, Any], int]] = [
            ({"CNI_ARGS": "IP=10.99.0.5"}, 100),
            ({"CNI_ARGS": "IP=10.86.0.1"}, 114),
            ({}, 116),  # its interface exists
            ({"CNI_NETNS": "/run/netns/nowhere"}, 4),
        ]
        for more, code in refusals:
            check_cni(unharmed.stack.cni("ADD", "box", unharmed.box, conf, **more), code)
    finally:
        unharmed.box.run("ip", "link", "delete", "eth0")


def test_cni_tells_that_the_pool_is_exhausted(world: World, netns: NewNetns) -> None:
    conf = world.stack.conf("tiny", subnet="10.86.0.0/30")
    other = netns()
    assert world.stack.cni("ADD", "only", other, conf).ok
    before = world.look()
    check_cni(world.stack.cni("ADD", "box", world.box, conf), 121, "10.86.0.0/30")
    assert world.look() == before


# -- CNI: the environment


def _nothing(tmp_path: Path) -> Path:
    return tmp_path / "missing"


def _file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("not a namespace")
    return path


def _fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def _symlink(tmp_path: Path) -> Path:
    path = tmp_path / "link"
    path.symlink_to(f"/proc/{os.getpid()}/ns/net")
    return path


NAMESPACES: dict[str, tuple[Callable[[Path], Path | str], str]] = {
    "missing": (_nothing, "No such file"),
    "regular file": (_file, "is not a namespace"),
    "FIFO": (_fifo, "is not a namespace"),
    "directory": (lambda path: path, "is not a namespace"),
    "symlink": (_symlink, "is not a namespace"),
    "another kind": (lambda _: f"/proc/{os.getpid()}/ns/mnt", "network namespace"),
    "dead process": (lambda _: "/proc/4194304/ns/net", "No such file"),
    "relative": (lambda _: "run/netns/box", "is not an absolute path"),
}


@pytest.mark.parametrize("case", NAMESPACES)
def test_cni_refuses_what_is_no_network_namespace(unharmed: World, tmp_path: Path, case: str) -> None:
    make, word = NAMESPACES[case]
    check_cni(unharmed.stack.cni("ADD", "box", make(tmp_path), OWN), 4, word, "/run/netns/NAME")


def test_cni_refuses_the_hosts_own_namespace(unharmed: World) -> None:
    hosts = unharmed.stack.host.ip("link", "show", "dev", "lo")
    for path in (unharmed.stack.host.path, f"/proc/{unharmed.stack.pid}/ns/net"):
        refused = unharmed.stack.cni("ADD", "box", path, OWN)
        check_cni(refused, 4, "the host's own", "a namespace of its own")
    assert unharmed.stack.host.ip("link", "show", "dev", "lo") == hosts


@pytest.mark.parametrize("ifname", ["a/b", "sixteen-bytes-xx", "", "with space", ".."])
def test_cni_refuses_an_interface_name(unharmed: World, ifname: str) -> None:
    check_cni(unharmed.stack.cni("ADD", "box", unharmed.box, OWN, ifname), 4, "CNI_IFNAME")


@pytest.mark.parametrize("container", ["", "../box", "a b", "-box", "x" * 300])
def test_cni_refuses_a_container_id(unharmed: World, container: str) -> None:
    check_cni(unharmed.stack.cni("ADD", container, unharmed.box, OWN), 4, "CNI_CONTAINERID")


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"CNI_COMMAND": "ATTACH"}, "ATTACH"),
        ({"CNI_COMMAND": ""}, "CNI_COMMAND"),
        ({"CNI_NETNS": ""}, "CNI_NETNS"),
        ({"CNI_ARGS": "IP"}, "CNI_ARGS"),
        ({"CNI_ARGS": "IP=ten"}, "CNI_ARGS"),
        ({"CNI_ARGS": "COLOUR=red"}, "IgnoreUnknown"),
    ],
    ids=str,
)
def test_cni_refuses_a_variable(unharmed: World, variables: dict[str, Any], word: str) -> None:
    check_cni(unharmed.stack.cni("ADD", "box", unharmed.box, OWN, **variables), 4, word)


def test_cni_leaves_an_interface_of_others_alone(world: World) -> None:
    world.box.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
    before = world.look()
    check_cni(world.stack.cni("ADD", "box", world.box, OWN), 116, "eth0", "choose another interface name")
    assert world.stack.cni("DEL", "box", world.box, OWN).ok
    wait_until(lambda: world.look() == before, "everything is as before", 5)


def test_cni_refuses_other_addresses_for_what_is_attached(world: World) -> None:
    assert world.stack.cni("ADD", "box", world.box, OWN).ok
    before = world.look()
    check_cni(world.stack.cni("ADD", "box", world.box, OWN, CNI_ARGS="IP=10.85.0.77"), 111, "detach it first")
    assert world.look() == before


def test_cni_survives_garbage_on_its_socket(unharmed: World) -> None:
    """Not through the plugin, which sends what is right: bytes that are no HTTP, and HTTP that is no call."""
    for raw in (b"\x00\xff\r\n\r\n", b"POST /cni HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n\xff\xfe\xfd"):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(unharmed.stack.socket))
            client.sendall(raw)
            assert b" 400 " in client.recv(4096).partition(b"\r\n")[0]
    assert unharmed.stack.cli("status").returncode == 0


# -- Docker


def refused(result: Result, *words: str) -> None:
    """Docker failed, and its user reads these words."""
    assert result.returncode != 0, result.stdout
    for word in words:
        assert word in result.stderr


DOCKER_NETWORKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "overlap": (("--subnet", "10.85.0.128/25"), ("overlaps pool blue", SUBNET, "choose another subnet")),
    "subnet of a network": (("--subnet", SUBNET), (SUBNET, "-o ovsnet.network=")),
    "option": (
        ("--subnet", FREE_SUBNET, "-o", "ovsnet.vln=7"),
        ("-o ovsnet.vln is not known", "did you mean ovsnet.vlan?"),
    ),
    "foreign option": (("--subnet", FREE_SUBNET, "-o", "parent=eth0"), ("-o parent is not known", "known are ovsnet.")),
    "IPAM option": (
        ("--subnet", FREE_SUBNET, "--ipam-opt", "ovsnet.netwrk=blue"),
        ("--ipam-opt ovsnet.netwrk is not known", "did you mean ovsnet.network?"),
    ),
    "vlan 5000": (("--subnet", FREE_SUBNET, "-o", "ovsnet.vlan=5000"), ("VLAN tag 5000", "0 (untagged) to 4094")),
    "vlan is a word": (("--subnet", FREE_SUBNET, "-o", "ovsnet.vlan=x"), ("ovsnet.vlan='x' is not a number",)),
    "vlan of another": (("--subnet", FREE_SUBNET, "-o", f"ovsnet.vlan={VLAN}"), ("belongs to network blue",)),
    "mtu": (("--subnet", FREE_SUBNET, "-o", "ovsnet.mtu=20"), ("MTU 20", "68")),
    "bridge": (("--subnet", FREE_SUBNET, "-o", "ovsnet.bridge=a/b"), ("interface name 'a/b' is not valid",)),
    "name": (("--subnet", FREE_SUBNET, "-o", "ovsnet.name=a b"), ("name 'a b' is not valid",)),
    "name of another": (("--subnet", FREE_SUBNET, "-o", "ovsnet.name=blue"), ("network blue exists",)),
}


@pytest.mark.parametrize("case", DOCKER_NETWORKS)
def test_docker_refuses_a_network(unharmed: World, dockerd: Dockerd, case: str) -> None:
    options, words = DOCKER_NETWORKS[case]
    drivers = ("-d", unharmed.stack.driver, "--ipam-driver", unharmed.stack.driver)
    refused(dockerd.docker("network", "create", *drivers, *options, "local", check=False, timeout=30), *words)
    assert dockerd.docker("network", "ls", "--quiet", "--filter", "type=custom").stdout == ""


def test_docker_refuses_an_address_that_another_has(world: World, dockerd: Dockerd) -> None:
    drivers = ("-d", world.stack.driver, "--ipam-driver", world.stack.driver)
    join = ("--ipam-opt", "ovsnet.network=blue", "-o", "ovsnet.network=blue", "--subnet", SUBNET)
    dockerd.docker("network", "create", *drivers, *join, "local")
    before = world.look()
    for address in (TAKEN, GATEWAY):
        result = dockerd.docker(
            "run", "--rm", "--name", "d1", "--network", "local", "--ip", address, IMAGE, "true", check=False
        )
        refused(result, f"address {address} is in use", "ask for another one, or for none")
        dockerd.docker("rm", "--force", "d1", check=False)
        wait_until(lambda: world.look() == before, "everything is as before", 5)
    free = dockerd.docker("run", "--rm", "--network", "local", "--ip", "10.85.0.21", IMAGE, "ip", "address").stdout
    assert "10.85.0.21/24" in free
    dockerd.docker("network", "rm", "local")


# -- REST and the command line

REQUESTS: dict[str, tuple[str, str, Any, int, str, str]] = {
    "no JSON": ("POST", "/v1/networks", "{", 400, "invalid-request", "JSON"),
    "unknown key": ("POST", "/v1/networks", {"name": "n", "vlna": 3}, 400, "invalid-request", "vlna"),
    "no name": ("POST", "/v1/networks", {"subnets": [FREE_SUBNET]}, 400, "invalid-request", "name"),
    "vlan 5000": ("POST", "/v1/networks", {"name": "n", "vlan": 5000}, 400, "invalid-request", "5000"),
    "vlan of another": ("POST", "/v1/networks", {"name": "n", "vlan": VLAN}, 409, "tag-in-use", "blue"),
    "overlap": ("POST", "/v1/pools", {"subnet": "10.85.0.0/25", "name": "p"}, 409, "pool-overlap", "blue"),
    "network overlap": ("POST", "/v1/networks", {"name": "n", "subnets": [SUBNET]}, 409, "pool-overlap", "blue"),
    "two of a family": (
        "POST",
        "/v1/networks",
        {"name": "n", "subnets": [FREE_SUBNET, "10.87.0.0/24"]},
        400,
        "invalid-request",
        "one pool per address family",
    ),
    "gateway outside": (
        "POST",
        "/v1/pools",
        {"subnet": FREE_SUBNET, "name": "p", "gateway": "10.99.0.1"},
        400,
        "",
        "10.99.0.1",
    ),
    "unknown pool": ("POST", "/v1/networks", {"name": "n", "pools": ["nowhere"]}, 404, "pool-not-found", "nowhere"),
    "other content": ("POST", "/v1/networks", {"name": "blue", "vlan": 9}, 409, "already-exists", "blue"),
    "show nothing": ("GET", "/v1/networks/nowhere", None, 404, "network-not-found", "nowhere"),
    "delete nothing": ("DELETE", "/v1/pools/nowhere", None, 404, "pool-not-found", "nowhere"),
    "delete in use": ("DELETE", "/v1/networks/blue", None, 409, "in-use", "endpoints"),
    "pool in use": ("DELETE", "/v1/pools/blue", None, 409, "in-use", "network blue"),
    "no path": ("GET", "/v1/nothing", None, 404, "not-found", ""),
}


def rest(stack: Stack, method: str, path: str, body: Any) -> tuple[int, str, dict[str, Any]]:
    """Status, content type and decoded body of a call."""
    data = () if body is None else ("-d", body if isinstance(body, str) else json.dumps(body))
    head = ("curl", "-sS", "-X", method, "-H", "Content-Type: application/json", "--unix-socket", stack.socket)
    done = stack.host.run(*head, *data, "-w", "\n%{http_code} %{content_type}", f"http://localhost{path}")
    text, _, last = done.stdout.rpartition("\n")
    status, _, content_type = last.partition(" ")
    return int(status), content_type, json.loads(text)


@pytest.mark.parametrize("case", REQUESTS)
def test_rest_refuses(unharmed: World, case: str) -> None:
    method, path, body, status, code, word = REQUESTS[case]
    have, content_type, problem = rest(unharmed.stack, method, path, body)
    assert (have, content_type) == (status, "application/problem+json"), problem
    assert problem["status"] == status
    assert problem["code"] == code or not code
    assert word in problem["detail"]
    assert problem["hint"] or case == "no path"


def test_rest_refuses_an_endpoint(unharmed: World) -> None:
    good = {"network": "blue", "container": "box", "ifname": "eth0", "netns": str(unharmed.box.path)}
    for change, status, code in (
        ({"netns": "/etc/passwd"}, 400, "invalid-netns"),
        ({"network": "nowhere"}, 404, "network-not-found"),
        ({"addresses": [TAKEN]}, 409, "address-in-use"),
        ({"addresses": ["10.99.0.1"]}, 400, "address-not-in-pool"),
        ({"ifname": "a/b"}, 400, "invalid-request"),
        ({"container": "../x"}, 400, "invalid-request"),
        ({"ifname": "lo"}, 409, "link-exists"),
    ):
        have, _, problem = rest(unharmed.stack, "POST", "/v1/endpoints", good | change)
        assert (have, problem["code"]) == (status, code), problem
        assert problem["hint"], problem


COMMANDS: dict[str, tuple[str, int, str]] = {
    "unknown verb": ("network frobnicate", 2, "frobnicate"),
    "no subnet": ("pool create p", 2, "--subnet"),
    "host bits": ("pool create p --subnet 10.86.0.7/24", 2, "write 10.86.0.0/24"),
    "vlan": ("network create n --vlan 5000", 2, "4094"),
    "overlap": ("network create n --subnet 10.85.0.0/16", 4, "overlaps pool blue"),
    "other settings": ("network create blue --vlan 9", 4, "exists with other settings"),
    "unknown network": ("network show nowhere", 3, "nowhere"),
    "unknown endpoint": ("endpoint show 00000000", 3, "ovsnet endpoint ls"),
    "network in use": ("network rm blue", 4, "remove them first"),
    "pool in use": ("pool rm blue", 4, "network blue"),
    "no namespace": ("endpoint create --network blue --container box --netns /etc/passwd", 2, "/run/netns/NAME"),
    "no ovsnetd": ("--socket /run/nowhere.sock network ls", 5, "/run/nowhere.sock"),
}


@pytest.mark.parametrize("output", ["table", "json"])
@pytest.mark.parametrize("case", COMMANDS)
def test_the_command_line_refuses(unharmed: World, case: str, output: str) -> None:
    line, status, word = COMMANDS[case]
    result = unharmed.stack.cli(*line.split(), "-o", output, check=False)
    assert (result.returncode, result.stdout) == (status, ""), result
    assert word in result.stderr
    if output == "json":
        assert json.loads(result.stderr)["code"]
    else:
        assert result.stderr.startswith("error: ")
        assert "\nhint: " in result.stderr
