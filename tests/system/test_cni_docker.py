"""The plugin `ovsnet-docker`: containers that belong to Docker, connected by CNI to networks of Docker, ours and others."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cni import ovsnet_docker
from tests.harness import IMAGE, CniResult, Dockerd, Netns, Stack, environment, run, wait_until
from tests.libcni import REFERENCE_DIR
from tests.system.containers import create_network, start_container
from tests.system.test_cni_conformance import VERSIONS, failed
from tests.system.test_cni_fuzz import ENVIRONMENT, JSON, VALUES

pytestmark = pytest.mark.usefixtures("nothing_left")

GATEWAY, GATEWAY6 = "10.92.0.1", "fd92::1"


class Box:
    """A container of Docker, and the executions of the plugin for it."""

    def __init__(self, stack: Stack, dockerd: Dockerd, name: str) -> None:
        self.name = name
        self._stack = stack
        self._dockerd = dockerd
        self.id = str(self.inspect()["Id"])

    def inspect(self) -> Any:
        """What Docker knows of it."""
        return self._dockerd.inspect(self.name)

    @property
    def netns(self) -> str:
        """Path of its network namespace."""
        return str(self.inspect()["NetworkSettings"]["SandboxKey"])

    def on(self, network: str) -> Any:
        """What Docker knows of it on a network; None if nothing."""
        return self.inspect()["NetworkSettings"]["Networks"].get(network)

    def config(self, name: str = "blue", version: str = "1.1.0", /, **more: Any) -> dict[str, Any]:
        """A network configuration."""
        own = {"cniVersion": version, "name": name, "type": "ovsnet-docker"}
        return own | {"dockerSocket": str(self._dockerd.socket)} | more

    def call(
        self, command: str, config: dict[str, Any] | None = None, ifname: str = "net1", **environment: str
    ) -> CniResult:
        """One execution; `environment` replaces variables."""
        config = self.config() if config is None else config
        variables = {"CNI_CONTAINERID": self.id} | environment
        if "CNI_NETNS" not in variables:
            variables["CNI_NETNS"] = "" if command == "DEL" else self.netns
        return self._stack.cni(command, "", "", config, ifname, plugin="ovsnet-docker", timeout=60.0, **variables)

    def add(self, config: dict[str, Any] | None = None, ifname: str = "net1", **environment: str) -> Any:
        """ADD that has to succeed; the result."""
        result = self.call("ADD", config, ifname, **environment)
        assert (result.returncode, result.stderr) == (0, ""), result
        return result.output

    def delete(self, config: dict[str, Any] | None = None, ifname: str = "net1", **environment: str) -> None:
        """DEL that has to succeed."""
        result = self.call("DEL", config, ifname, **environment)
        assert (result.returncode, result.output, result.stderr) == (0, None, ""), result

    def run(self, *argv: str) -> str:
        """Runs a command in its network namespace, with the host's tools."""
        return run("nsenter", f"--net={self.netns}", *argv).stdout

    def link(self, ifname: str) -> Any:
        """What the kernel tells of an interface."""
        return json.loads(self.run("ip", "-json", "address", "show", "dev", ifname))[0]

    @property
    def links(self) -> list[str]:
        """All names of its interfaces."""
        found = json.loads(self.run("ip", "-json", "link", "show"))
        return [name for link in found for name in (link["ifname"], *link.get("altnames", ()))]

    def loses_its_links(self) -> None:
        """It has none but Docker's own; ours are gone a moment after the answer."""
        wait_until(lambda: self.links == ["lo", "eth0"], "it has its first interface only", 5)


@pytest.fixture
def box(stack: Stack, dockerd: Dockerd) -> Box:
    """A running container `web` on the bridge network `first`, beside a network `blue` of ovsnet."""
    dockerd.docker("network", "create", "--subnet=10.90.0.0/24", "first")
    create_network(dockerd, stack, "blue", "10.92.0.0/24", "fd92::/64")
    start_container(dockerd, "web", "first")
    return Box(stack, dockerd, "web")


def test_an_interface_that_works_comes_and_goes(stack: Stack, dockerd: Dockerd, box: Box) -> None:
    other = start_container(dockerd, "db", "blue")
    result = box.add()
    address, address6 = (ip["address"].partition("/")[0] for ip in result["ips"])
    shown = box.link("net1")
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "net1", "mac": shown["address"], "sandbox": box.netns, "mtu": shown["mtu"]}],
        "ips": [
            {"address": f"{address}/24", "interface": 0, "gateway": GATEWAY},
            {"address": f"{address6}/64", "interface": 0, "gateway": GATEWAY6},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": GATEWAY}, {"dst": "::/0", "gw": GATEWAY6}],
        "dns": {},
    }
    assert {address, address6} <= {one["local"] for one in shown["addr_info"]}
    assert address == dockerd.address("web", "blue")
    assert [dockerd.pings("web", to) for to in (GATEWAY, other)] == [True, True]
    assert dockerd.pings("db", address)
    checked = box.config(prevResult=result)
    assert box.add() == result
    box.delete()
    with ThreadPoolExecutor(4) as pool:  # at once: one connects, and the others find that done
        first, *more = pool.map(lambda _: box.add(), range(4))
    assert more == [first] * 3
    checked = box.config(prevResult=first)
    assert box.call("CHECK", checked) == CniResult(0, None, "")
    for _ in range(2):
        box.delete()
        assert box.on("blue") is None
        box.loses_its_links()
    assert len(stack.endpoints()) == 1
    assert "not connected" in failed(box.call("CHECK", checked), 3)


def test_the_result_in_every_version(box: Box) -> None:
    mac, mtu = None, 0
    for version in VERSIONS:
        result = box.add(box.config("blue", version))
        mac, mtu = box.link("net1")["address"], box.link("net1")["mtu"]
        four, six = (f"{box.on('blue')[key]}/{size}" for key, size in (("IPAddress", 24), ("GlobalIPv6Address", 64)))
        routes = [{"dst": "0.0.0.0/0", "gw": GATEWAY}, {"dst": "::/0", "gw": GATEWAY6}]
        if version in ("0.1.0", "0.2.0"):
            assert result == {
                "cniVersion": version,
                "ip4": {"ip": four, "gateway": GATEWAY, "routes": routes[:1]},
                "ip6": {"ip": six, "gateway": GATEWAY6, "routes": routes[1:]},
                "dns": {},
            }
            continue
        interface = {"name": "net1", "mac": mac, "sandbox": box.netns}
        ips: list[dict[str, Any]] = [
            {"address": four, "interface": 0, "gateway": GATEWAY},
            {"address": six, "interface": 0, "gateway": GATEWAY6},
        ]
        if version.startswith("0."):
            ips = [{"version": number} | ip for number, ip in zip("46", ips, strict=True)]
        assert result == {
            "cniVersion": version,
            "interfaces": [interface | ({"mtu": mtu} if version == "1.1.0" else {})],
            "ips": ips,
            "routes": routes,
            "dns": {},
        }
    # An absent version is 0.1.0 (SPEC 0.1.0).
    config = box.config()
    del config["cniVersion"]
    assert set(box.add(config)) == {"cniVersion", "ip4", "ip6", "dns"}


def test_addresses_and_aliases_that_are_asked_for(dockerd: Dockerd, box: Box) -> None:
    asked = box.config(
        runtimeConfig={"ips": ["10.92.0.50/24", "fd92::50"], "aliases": {"blue": ["www"]}},
        args={"cni": {"ips": ["10.92.0.51"]}},
    )
    result = box.add(asked, CNI_ARGS="IgnoreUnknown=1;IP=10.92.0.52;K8S_POD_NAME=p;X=y")
    assert [ip["address"] for ip in result["ips"]] == ["10.92.0.50/24", "fd92::50/64"]
    assert "www" in box.on("blue")["Aliases"]
    start_container(dockerd, "db", "blue")
    assert dockerd.pings("db", "www")
    assert box.add(asked) == result
    assert box.add() == result
    for other in ({"ips": ["10.92.0.51"]}, {"aliases": ["ftp"]}):
        failed(box.call("ADD", box.config(runtimeConfig=other)), 110)
    assert "Docker gave" in failed(box.call("ADD", CNI_ARGS="MAC=02:00:00:00:00:01"), 2)
    assert dockerd.pings("db", "10.92.0.50")  # all this has not touched it
    box.delete()
    for source in ({"args": {"cni": {"ips": ["10.92.0.60"]}}}, {"runtimeConfig": {"ips": ["10.92.0.60"]}}):
        assert box.add(box.config(**source))["ips"][0]["address"] == "10.92.0.60/24"
        box.delete()
    assert box.add(CNI_ARGS="IP=10.92.0.61")["ips"][0]["address"] == "10.92.0.61/24"


def test_an_address_in_use_leaves_nothing(stack: Stack, dockerd: Dockerd, box: Box) -> None:
    dockerd.docker("network", "create", "--subnet=10.93.0.0/24", "other")
    for network, gateway in (("blue", GATEWAY), ("other", "10.93.0.1")):
        config = box.config(network, runtimeConfig={"ips": [gateway]})
        assert "use" in failed(box.call("ADD", config), 114)
        assert box.on(network) is None
        failed(box.call("ADD", box.config(network, runtimeConfig={"ips": ["10.99.0.1"]})), 100)
        assert box.on(network) is None
        box.loses_its_links()
    assert stack.endpoints() == []
    dockerd.docker("restart", "--time=1", "web")  # which would ask for the addresses again, had they been left
    for _ in range(2):
        dockerd.docker("network", "connect", "--ip", GATEWAY, "blue", "web", check=False)
        assert box.on("blue")["EndpointID"] == ""  # what Docker leaves by itself
        box.delete()
        assert box.on("blue") is None
    dockerd.docker("network", "connect", "--ip", GATEWAY, "blue", "web", check=False)
    assert box.add()["ips"][0]["gateway"] == GATEWAY


def test_names(stack: Stack, dockerd: Dockerd, box: Box, host: Netns) -> None:
    assert "another interface eth0" in failed(box.call("ADD", ifname="eth0"), 116)
    assert box.on("blue") is None
    assert "eth9" in failed(box.call("ADD", ifname="eth9"), 116)  # Docker may give the name to another one
    assert box.on("blue") is None
    chosen = box.link(box.add(ifname="net1")["interfaces"][0]["name"])["ifname"]
    assert chosen not in ("net1", "eth0")
    assert box.links == ["lo", "eth0", chosen, "net1"]
    assert "as net1" in failed(box.call("ADD", ifname="net2"), 111)
    box.delete(ifname="net2")  # is not its own
    assert box.add(ifname=chosen)["interfaces"][0]["name"] == chosen
    # A device of the host has the name now; Docker, which moves the container's there, is not in its way.
    host.run("ip", "link", "add", "net1", "type", "veth", "peer", "name", "net1p")
    try:
        box.delete(ifname="net1")
        box.loses_its_links()
        assert "the host has a device net1" in failed(box.call("ADD", ifname="net1"), 116)
        assert box.on("blue") is None
    finally:
        host.run("ip", "link", "del", "net1")
    # A lower number is never given out again by a Docker that gives higher ones.
    assert box.add(ifname="eth1")["interfaces"][0]["name"] == "eth1"
    dockerd.docker("network", "create", "other")
    dockerd.docker("network", "connect", "other", "web")
    box.delete(ifname="eth1")
    # Without the plugin it goes as well.
    box.add()
    dockerd.docker("network", "disconnect", "blue", "web")
    wait_until(lambda: len(box.links) == 3, "it has the links that Docker gave it", 5)
    assert stack.endpoints() == []


def test_a_network_of_another_driver(dockerd: Dockerd, box: Box) -> None:
    dockerd.docker("network", "create", "--internal", "--subnet=10.94.0.0/24", "other")
    dockerd.docker("run", "--detach", "--name", "db", "--network", "other", IMAGE)
    config = box.config("any", network="other")
    result = box.add(config, "eth1")
    assert result["interfaces"][0]["name"] == "eth1"
    assert box.links == ["lo", "eth0", "eth1"]  # as Docker called it
    assert box.add(config, "net1")["interfaces"][0]["name"] == "net1"  # whoever connected it
    assert result["ips"][0]["address"] == f"{dockerd.address('web', 'other')}/24"
    assert result["routes"] == []  # the default route is the first network's
    assert dockerd.pings("web", dockerd.address("db", "other"))
    assert box.call("CHECK", config | {"prevResult": result}, "eth1").ok
    box.delete(box.config("any", network=dockerd.inspect("other")["Id"]))
    assert box.on("other") is None


def test_what_is_refused(dockerd: Dockerd, box: Box, netns: Callable[[], Netns]) -> None:
    def refused(code: int, config: dict[str, Any] | None = None, ifname: str = "net1", **environment: str) -> str:
        message = failed(box.call("ADD", config, ifname, **environment), code)
        assert box.on("blue") is None
        return message

    assert "nope" in refused(3, CNI_CONTAINERID="nope")
    assert "nope" in refused(103, box.config("nope"))
    assert "is not the network namespace of container web" in refused(4, CNI_NETNS=str(netns().path))
    refused(4, CNI_NETNS="/nonexistent")
    refused(4, CNI_NETNS="")
    refused(4, CNI_CONTAINERID="")
    refused(4, ifname="a/b")
    refused(4, CNI_ARGS="X=y")
    assert "this Docker ignores" in refused(2, CNI_ARGS="MAC=02:00:00:00:00:01")
    assert "portMappings" in refused(2, box.config(runtimeConfig={"portMappings": [{"hostPort": 80}]}))
    assert "'network'" in refused(7, box.config(netwrok="blue"))
    assert "put it first" in refused(7, box.config(prevResult={"cniVersion": "1.1.0"}))
    refused(7, box.config(dockerSocket="docker.sock"))
    failed(box.call("ADD", box.config("blue", "2.0.0")), 1, "2.0.0")
    assert "(none) mode" in refused(110, box.config("none"))
    assert "host network" in refused(110, box.config("host"))
    dockerd.docker("stop", "--time=1", "web")
    assert "container web does not run: it is exited" in refused(110, CNI_NETNS="/proc/self/ns/net")


def test_del_of_what_is_gone(dockerd: Dockerd, box: Box) -> None:
    box.delete(CNI_CONTAINERID="nope")
    box.delete(box.config("nope"))
    dockerd.docker("network", "create", "other")
    box.add()
    box.add(box.config("other"), "net2")
    dockerd.docker("stop", "--time=1", "web")
    box.delete(CNI_NETNS="/nonexistent")  # of a stopped container
    assert box.on("blue") is None
    dockerd.docker("network", "rm", "other")
    box.delete(box.config("other"), "net2")  # or it could not start any more
    dockerd.docker("start", "web")
    box.add()
    dockerd.docker("rm", "--force", "web")
    for _ in range(2):
        box.delete()


def test_check_tells_the_first_difference(stack: Stack, dockerd: Dockerd, box: Box) -> None:
    config = box.config("blue", "1.0.0")
    config["prevResult"] = box.add(config)

    def differs(ifname: str = "net1") -> str:
        return failed(box.call("CHECK", config, ifname), 118, "1.0.0")

    assert "no interface net2" in differs("net2")
    tuning = config | {"type": "tuning", "mtu": 1400}  # the next plugin of the chain finds the interface by its name
    variables = {"COMMAND": "ADD", "CONTAINERID": box.id, "NETNS": box.netns, "IFNAME": "net1", "PATH": "/"}
    env = environment(**{f"CNI_{key}": value for key, value in variables.items()})
    stack.host.run(REFERENCE_DIR / "tuning", stdin=json.dumps(tuning), env=env)
    assert box.link("net1")["mtu"] == 1400
    assert box.call("CHECK", config).ok
    box.run("ip", "route", "del", "default")
    assert f"no route to 0.0.0.0/0 via {GATEWAY}" in differs()
    box.run("ip", "address", "flush", "dev", "net1", "scope", "global")
    assert "does not have address" in differs()
    box.run("ip", "link", "set", "net1", "address", "02:00:00:00:00:09")
    assert "has MAC address 02:00:00:00:00:09" in differs()
    box.run("ip", "link", "set", "net1", "down")
    assert "is down" in differs()
    dockerd.docker("restart", "--time=1", "web")
    assert "no interface net1 in the container: was that restarted?" in differs()
    assert box.add()["interfaces"][0]["name"] == "net1"  # the connection was Docker's to restore, the name is ours
    failed(box.call("CHECK", box.config()), 7)
    failed(box.call("CHECK", box.config("blue", "0.3.1")), 1, "0.3.1")
    failed(box.call("CHECK", box.config(prevResult={"ips": [{"address": 5}]})), 7)


def test_upkeep_and_no_docker(dockerd: Dockerd, box: Box, tmp_path: Path) -> None:
    version = {"cniVersion": "1.1.0", "supportedVersions": list(VERSIONS)}
    result = box.add()
    assert box.call("STATUS") == CniResult(0, None, "")
    assert box.call("GC", box.config() | {"cni.dev/valid-attachments": []}) == CniResult(0, None, "")
    assert box.on("blue")["EndpointID"]  # what Docker has is Docker's
    assert box.call("VERSION").output == version
    assert "nope" in failed(box.call("STATUS", box.config("nope")), 50)
    netns = box.netns

    def silent(config: dict[str, Any]) -> None:
        for command, code in (("ADD", 11), ("DEL", 11), ("CHECK", 11), ("STATUS", 50)):
            given = config | ({"prevResult": result} if command == "CHECK" else {})
            failed(box.call(command, given, CNI_NETNS=netns), code)
        assert box.call("VERSION", config, CNI_NETNS=netns).output == version
        assert box.call("GC", config, CNI_NETNS=netns).ok

    silent(box.config(dockerSocket="/nonexistent/docker.sock"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    silent(box.config(dockerSocket=str(tmp_path / "dead.sock")))
    config = box.config()
    dockerd.stop()  # its containers end with it
    try:
        for command, code in (("ADD", 11), ("DEL", 11), ("STATUS", 50)):
            assert "Docker does not run" in failed(box.call(command, config, CNI_NETNS=netns), code)
    finally:
        dockerd.start()
    box.delete()


# -- A newer Docker than there is here: what it is sent, and what is made of its answers


class NewerDocker(BaseHTTPRequestHandler):
    """API 1.52 for the container `c` in a namespace of the test; `connect` gives the interface that is there already."""

    world: Any

    def do_GET(self) -> None:
        answers = {
            "/version": {"ApiVersion": "1.52", "MinAPIVersion": "1.44"},
            "/v1.48/containers/c/json": self.world.container,
            f"/v1.48/containers/{'c' * 64}/json": self.world.container,
            "/v1.48/networks/blue": {"Name": "blue", "Id": "n1"},
        }
        self._answer(200 if self.path in answers else 404, answers.get(self.path, {"message": "not found"}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.world.asked.append((self.path, body))
        networks = self.world.container["NetworkSettings"]["Networks"]
        if self.path.endswith("/connect"):
            networks["blue"] = {"NetworkID": "n1", "EndpointID": "e1"} | self.world.gives
        else:
            networks.pop("blue", None)
        self._answer(200, None)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, document: Any) -> None:
        content = json.dumps(document).encode() if document else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class NewerWorld:
    """A newer Docker on `socket`; `asked` are the requests that change something, `gives` what the network gives."""

    def __init__(self, directory: Path, netns: Netns) -> None:
        self.socket = directory / "newer.sock"
        self.asked: list[tuple[str, Any]] = []
        netns.run("ip", "link", "add", "eth7", "address", "02:00:00:00:00:09", "type", "veth", "peer", "name", "p")
        netns.run("ip", "address", "add", "10.95.0.9/24", "dev", "eth7")
        self.gives = {"IPAddress": "10.95.0.9", "IPPrefixLen": 24, "MacAddress": "02:00:00:00:00:09", "Gateway": ""}
        self.container = {
            "Id": "c" * 64,
            "Name": "/c",
            "State": {"Running": True, "Pid": 0},
            "NetworkSettings": {"SandboxKey": str(netns.path), "Networks": {}},
        }


@pytest.fixture
def newer(tmp_path: Path, netns: Callable[[], Netns]) -> Iterator[NewerWorld]:
    world = NewerWorld(tmp_path, netns())
    handler = type("Handler", (NewerDocker,), {"world": world})
    with ExitStack() as undo:
        server = undo.enter_context(ThreadingUnixStreamServer(str(world.socket), handler))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        undo.callback(thread.join, 10)
        undo.callback(server.shutdown)
        yield world


def test_a_newer_docker(stack: Stack, newer: NewerWorld) -> None:
    netns = str(newer.container["NetworkSettings"]["SandboxKey"])  # type: ignore[index]
    config = {"cniVersion": "1.1.0", "name": "blue", "type": "ovsnet-docker", "dockerSocket": str(newer.socket)}

    def call(command: str, ifname: str, **more: str) -> CniResult:
        return stack.cni(command, "c", netns, config, ifname, plugin="ovsnet-docker", timeout=60.0, **more)

    # It heeds a MAC address, and with a driver of its own the name of the interface.
    result = call("ADD", "net5", CNI_ARGS="MAC=02:00:00:00:00:09")
    assert result.ok, result
    wanted = {"MacAddress": "02:00:00:00:00:09", "DriverOpts": {ovsnet_docker.IFNAME_OPTION: "net5"}}
    path = "/v1.48/networks/n1"
    assert newer.asked == [(f"{path}/connect", {"Container": "c" * 64, "EndpointConfig": wanted})]
    assert (result.output["interfaces"][0]["name"], "gateway" in result.output["ips"][0]) == ("net5", False)
    newer.asked.clear()
    assert call("DEL", "net5").ok
    assert newer.asked == [(f"{path}/disconnect", {"Container": "c" * 64, "Force": True})]
    # If the network gives another MAC address all the same, nothing is left.
    newer.asked.clear()
    assert "Docker gave" in failed(call("ADD", "net5", CNI_ARGS="MAC=02:00:00:00:00:0a"), 2)
    assert [path for path, _ in newer.asked] == [f"{path}/connect", f"{path}/disconnect"]
    assert newer.container["NetworkSettings"]["Networks"] == {}  # type: ignore[index]


# -- Nonsense

CONFIGS = st.dictionaries(
    st.sampled_from([*ovsnet_docker.KEYS, "ipam", "netwrok"]) | st.text(max_size=8), JSON, max_size=3
)


def test_nonsense(dockerd: Dockerd, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovsnet_docker, "SOCKET", str(dockerd.socket))
    valid = {"cniVersion": "1.1.0", "name": "first", "type": "ovsnet-docker", "runtimeConfig": {"ips": ["10.90.0.9"]}}
    configs = CONFIGS.map(lambda changes: json.dumps(valid | changes).encode())
    cut = configs.flatmap(lambda config: st.integers(0, len(config)).map(lambda end: config[:end]))
    stdin = configs | cut | JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200)
    names = st.fixed_dictionaries({}, optional={"CNI_CONTAINERID": st.sampled_from([box.id, "web"]) | VALUES})

    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True)
    @given(ENVIRONMENT, names, stdin)
    def case(variables: dict[str, str], more: dict[str, str], stdin: bytes) -> None:
        # Neither can an ADD succeed, whose namespace is never the container's, nor is a DEL let at the container's network.
        environment = {"CNI_IFNAME": "net1"} | variables | (more if variables["CNI_COMMAND"] != "DEL" else {})
        code, output = ovsnet_docker.answer(environment, stdin)
        document = json.loads(output) if output else None
        if code:
            assert isinstance(document, dict)
            assert {type(document[key]) for key in ("cniVersion", "msg", "details")} == {str}
            assert document["msg"]
            assert document["code"] in range(1, 200)
        else:
            assert variables["CNI_COMMAND"] in {"DEL", "GC", "STATUS", "VERSION"}
            assert (document is None) is (variables["CNI_COMMAND"] != "VERSION")

    before = os.stat("/proc/thread-self/ns/net").st_ino
    case()
    assert os.stat("/proc/thread-self/ns/net").st_ino == before
    assert box.on("first")["EndpointID"]
    box.loses_its_links()
