"""The CNM edge on a fake driver: what Docker sends, as recorded, and what must come back, to the field."""

from __future__ import annotations

import http.client
import inspect
import ipaddress
import json
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cnm import create_plugin
from cnm.listener import Conversation
from cnm.protocol import CONTENT_TYPE, MAX_BODY, STATUS, Plugin
from ovsnet.docker import IPAM_OPTIONS, NETWORK_OPTIONS, DockerDriver, IpamData, JoinResult
from ovsnet.docker_options import ENDPOINT_OPTIONS, carried_over
from ovsnet.errors import InvalidRequest, NetworkNotFound, OvsnetError, PoolNotFound, codes
from ovsnet.model import Endpoint, IPInterface, Origin, Pool, Route

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs" / "docker.md"
REQUESTER = "4711:98765"
DEADLINE = 20.0  # seconds; far beyond what anything here takes
NETWORK = "28598c67100267f02f95499e7e3e5a55d7d2316ccdd2e7a21a25300bf1ab9e79"
ENDPOINT = "22b54c19d6561c233abb360b92c8fd1263087d206586b70e231ac6ef2a7b5e6e"
SANDBOX = "/var/run/docker/netns/7dd52ba2f796"
MAC = "02:6f:0a:4d:00:02"


class FakeDriver:
    """The methods of DockerDriver without anything behind them: notes each call, and raises `failure` if it is set."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failure: Exception | None = None
        self.pools: dict[str, Pool] = {}
        self.addresses: tuple[IPInterface, ...] = (ipaddress.ip_interface("10.77.0.2/24"),)
        self.joined = JoinResult(
            link="onc0123456789",
            prefix="eth",
            gateway=ipaddress.ip_address("10.77.0.1"),
            gateway6=None,
            routes=(
                Route(ipaddress.ip_network("10.99.0.0/24"), ipaddress.ip_address("10.77.0.1")),
                Route(ipaddress.ip_network("10.98.0.0/24")),
            ),
            disable_gateway_service=False,
        )

    def _note(self, *call: object) -> None:
        self.calls.append(call)
        if self.failure:
            raise self.failure

    def request_pool(
        self, space: str, subnet: str, sub_pool: str, options: Mapping[str, str], v6: bool, requester: str
    ) -> tuple[Pool, bool]:
        self._note("request_pool", space, subnet, sub_pool, options, v6, requester)
        try:
            net = ipaddress.ip_network(subnet or ("fd00:71::/64" if v6 else "10.71.0.0/24"))
        except ValueError as exc:
            raise InvalidRequest(f"no subnet: {exc}", hint="write one") from None
        uuid = f"pool-{str(net.network_address).replace(':', '_')}"
        gateway = net.network_address + 1
        pool = Pool(uuid, "p", space, net, gateway, (), (), (), Origin.DOCKER, labels={}, requested_by=requester)
        self.pools[uuid] = pool
        return pool, "ovsnet.network" in options

    def release_pool(self, pool_id: str) -> None:
        self._note("release_pool", pool_id)

    def request_address(self, pool_id: str, address: str, options: Mapping[str, str], requester: str) -> IPInterface:
        self._note("request_address", pool_id, address, options, requester)
        if pool_id not in self.pools:
            raise PoolNotFound(f"no pool {pool_id}", hint="make one")
        pool = self.pools[pool_id]
        first = pool.subnet.network_address + (1 if "RequestAddressType" in options else 2)
        try:
            return pool.interface(ipaddress.ip_address(address) if address else first)
        except ValueError as exc:
            raise InvalidRequest(f"no address: {exc}", hint="write one") from None

    def release_address(self, pool_id: str, address: str) -> None:
        self._note("release_address", pool_id, address)

    def skip_gateway(self, options: Mapping[str, Any]) -> tuple[bool, bool]:
        self._note("skip_gateway", options)
        return False, False

    def allocate_network(
        self, network_id: str, options: Mapping[str, str], ipv4: Sequence[IpamData], ipv6: Sequence[IpamData]
    ) -> Mapping[str, str]:
        self._note("allocate_network", network_id, options, ipv4, ipv6)
        return options

    def free_network(self, network_id: str) -> None:
        self._note("free_network", network_id)

    def create_network(
        self, network_id: str, options: Mapping[str, Any], ipv4: Sequence[IpamData], ipv6: Sequence[IpamData]
    ) -> None:
        self._note("create_network", network_id, options, ipv4, ipv6)

    def delete_network(self, network_id: str) -> None:
        self._note("delete_network", network_id)

    def create_endpoint(
        self,
        network_id: str,
        endpoint_id: str,
        address: str,
        address6: str,
        mac: str,
        options: Mapping[str, Any],
        requester: str,
    ) -> Endpoint:
        self._note("create_endpoint", network_id, endpoint_id, address, address6, mac, options, requester)
        return Endpoint(
            uuid="e",
            network=network_id,
            network_name="net1",
            container=endpoint_id,
            ifname="",
            origin=Origin.DOCKER,
            node="n1",
            sandbox="",
            addresses=self.addresses,
            mac=MAC,
            mtu=1500,
            port="onp0123456789",
            link="",
            labels={},
        )

    def delete_endpoint(self, network_id: str, endpoint_id: str) -> None:
        self._note("delete_endpoint", network_id, endpoint_id)

    def endpoint_info(self, network_id: str, endpoint_id: str) -> Mapping[str, str]:
        self._note("endpoint_info", network_id, endpoint_id)
        return {"ovsnet.port": "onp0123456789"}

    def join(self, network_id: str, endpoint_id: str, sandbox_key: str, options: Mapping[str, Any]) -> JoinResult:
        self._note("join", network_id, endpoint_id, sandbox_key, options)
        return self.joined

    def leave(self, network_id: str, endpoint_id: str) -> None:
        self._note("leave", network_id, endpoint_id)

    def program_external(self, network_id: str, endpoint_id: str, options: Mapping[str, Any]) -> None:
        self._note("program_external", network_id, endpoint_id, options)

    def revoke_external(self, network_id: str, endpoint_id: str) -> None:
        self._note("revoke_external", network_id, endpoint_id)


@dataclass
class Reply:
    """What came back."""

    status_code: int
    headers: Message
    data: bytes

    @property
    def content_type(self) -> str | None:
        return self.headers["Content-Type"]

    @property
    def text(self) -> str:
        return self.data.decode()


@dataclass
class Client:
    """Speaks HTTP with the plugin, over a connection for each call."""

    plugin: Plugin

    def post(self, path: str, data: bytes, headers: Mapping[str, str]) -> Reply:
        return self.open(path, "POST", data, headers)

    def open(
        self, path: str, method: str, data: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})
    ) -> Reply:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            serving = threading.Thread(target=Conversation(theirs, self.plugin).run)
            serving.start()
            try:
                ours.settimeout(DEADLINE)
                connection = http.client.HTTPConnection("docker")
                connection.sock = ours
                connection.request(method, path, data, dict(headers))
                response = connection.getresponse()
                return Reply(response.status, response.msg, response.read())
            finally:
                ours.close()
                serving.join(DEADLINE)
                assert not serving.is_alive()


def client_of(driver: FakeDriver) -> Client:
    return Client(create_plugin(cast("DockerDriver", driver), scope="local", requester=lambda: REQUESTER))


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def client(driver: FakeDriver) -> Client:
    return client_of(driver)


def call(client: Client, method: str, body: object = None) -> Reply:
    """As dockerd does it: no Content-Type; `body` None is an empty one, bytes are sent as they are."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode() + b"\n"
    return client.post(f"/{method}", data=raw, headers={"Accept": CONTENT_TYPE, "User-Agent": "Go-http-client/1.1"})


def answer(client: Client, method: str, body: object = None) -> Any:
    response = call(client, method, body)
    assert (response.status_code, response.content_type) == (200, CONTENT_TYPE), response.text
    return json.loads(response.data)


def failure(response: Reply) -> str:
    """The text of a refusal, having checked its form: both fields, nothing else, never a 200."""
    assert response.status_code >= 400
    assert response.content_type == CONTENT_TYPE
    body = json.loads(response.data)
    assert list(body) == ["Err", "Error"]
    assert body["Err"] == body["Error"] != ""
    assert "<" not in body["Err"]
    assert isinstance(body["Err"], str)
    return str(body["Err"])


PORTS = {
    "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}, {"Proto": 17, "Port": 53}],
    "com.docker.network.portmap": [
        {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080}
    ],
}
BOTH = {"NetworkID": NETWORK, "EndpointID": ENDPOINT}
INTERFACE = {"Address": "10.77.0.2/24", "AddressIPv6": "", "MacAddress": ""}
IPAM4 = {
    "AddressSpace": "ovsnet",
    "AuxAddresses": {"printer": "10.77.0.9/24"},
    "Gateway": "10.77.0.1/24",
    "Pool": "10.77.0.0/24",
}
OPTIONS = {"com.docker.network.enable_ipv6": False, "com.docker.network.generic": {"ovsnet.bridge": "br9"}}

# Every method: a valid body (None: Docker sends none), the driver's call that it becomes, and the answer.
METHODS: dict[str, tuple[dict[str, Any] | None, tuple[object, ...] | None, dict[str, object]]] = {
    "Plugin.Activate": (None, None, {"Implements": ["NetworkDriver", "IpamDriver"]}),
    "NetworkDriver.GetCapabilities": (
        None,
        None,
        {"Scope": "local", "ConnectivityScope": "local", "GwAllocChecker": True},
    ),
    "NetworkDriver.GwAllocCheck": (
        {"Options": OPTIONS},
        ("skip_gateway", OPTIONS),
        {"SkipIPv4": False, "SkipIPv6": False},
    ),
    "NetworkDriver.AllocateNetwork": (
        {"NetworkID": NETWORK, "Options": {"ovsnet.vlan": "7"}, "IPv4Data": [IPAM4], "IPv6Data": []},
        (
            "allocate_network",
            NETWORK,
            {"ovsnet.vlan": "7"},
            [IpamData("ovsnet", "10.77.0.0/24", "10.77.0.1/24", {"printer": "10.77.0.9/24"})],
            [],
        ),
        {"Options": {"ovsnet.vlan": "7"}},
    ),
    "NetworkDriver.FreeNetwork": ({"NetworkID": NETWORK}, ("free_network", NETWORK), {}),
    "NetworkDriver.CreateNetwork": (
        {"NetworkID": NETWORK, "Options": OPTIONS, "IPv4Data": [IPAM4], "IPv6Data": []},
        (
            "create_network",
            NETWORK,
            OPTIONS,
            [IpamData("ovsnet", "10.77.0.0/24", "10.77.0.1/24", {"printer": "10.77.0.9/24"})],
            [],
        ),
        {},
    ),
    "NetworkDriver.DeleteNetwork": ({"NetworkID": NETWORK}, ("delete_network", NETWORK), {}),
    "NetworkDriver.CreateEndpoint": (
        {**BOTH, "Interface": INTERFACE, "Options": PORTS},
        ("create_endpoint", NETWORK, ENDPOINT, "10.77.0.2/24", "", "", PORTS, REQUESTER),
        {"Interface": {"MacAddress": MAC}},
    ),
    "NetworkDriver.EndpointOperInfo": (
        BOTH,
        ("endpoint_info", NETWORK, ENDPOINT),
        {"Value": {"ovsnet.port": "onp0123456789"}},
    ),
    "NetworkDriver.DeleteEndpoint": (BOTH, ("delete_endpoint", NETWORK, ENDPOINT), {}),
    "NetworkDriver.Join": (
        {**BOTH, "SandboxKey": SANDBOX, "Options": PORTS},
        ("join", NETWORK, ENDPOINT, SANDBOX, PORTS),
        {
            "InterfaceName": {"SrcName": "onc0123456789", "DstPrefix": "eth"},
            "Gateway": "10.77.0.1",
            "GatewayIPv6": "",
            "StaticRoutes": [
                {"Destination": "10.99.0.0/24", "RouteType": 0, "NextHop": "10.77.0.1"},
                {"Destination": "10.98.0.0/24", "RouteType": 1, "NextHop": ""},
            ],
            "DisableGatewayService": False,
        },
    ),
    "NetworkDriver.Leave": (BOTH, ("leave", NETWORK, ENDPOINT), {}),
    "NetworkDriver.ProgramExternalConnectivity": (
        {**BOTH, "Options": PORTS},
        ("program_external", NETWORK, ENDPOINT, PORTS),
        {},
    ),
    "NetworkDriver.RevokeExternalConnectivity": (BOTH, ("revoke_external", NETWORK, ENDPOINT), {}),
    "NetworkDriver.DiscoverNew": (
        {"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.1", "Self": True}},
        None,
        {},
    ),
    "NetworkDriver.DiscoverDelete": (
        {"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.1", "Self": False}},
        None,
        {},
    ),
    "IpamDriver.GetCapabilities": (None, None, {"RequiresMACAddress": False, "RequiresRequestReplay": True}),
    "IpamDriver.GetDefaultAddressSpaces": (
        None,
        None,
        {"LocalDefaultAddressSpace": "ovsnet", "GlobalDefaultAddressSpace": "ovsnet-global"},
    ),
    "IpamDriver.RequestPool": (
        {
            "AddressSpace": "ovsnet",
            "Pool": "10.77.0.0/24",
            "SubPool": "10.77.0.128/25",
            "Options": {"a": "b"},
            "V6": False,
        },
        ("request_pool", "ovsnet", "10.77.0.0/24", "10.77.0.128/25", {"a": "b"}, False, REQUESTER),
        {"PoolID": "pool-10.77.0.0", "Pool": "10.77.0.0/24", "Data": {}},
    ),
    "IpamDriver.ReleasePool": ({"PoolID": "pool-10.77.0.0"}, ("release_pool", "pool-10.77.0.0"), {}),
    "IpamDriver.RequestAddress": (
        {"PoolID": "pool-10.77.0.0", "Address": "10.77.0.9", "Options": {}},
        ("request_address", "pool-10.77.0.0", "10.77.0.9", {}, REQUESTER),
        {"Address": "10.77.0.9/24", "Data": {}},
    ),
    "IpamDriver.ReleaseAddress": (
        {"PoolID": "pool-10.77.0.0", "Address": "10.77.0.9"},
        ("release_address", "pool-10.77.0.0", "10.77.0.9"),
        {},
    ),
}
WITH_BODY = [method for method, (body, _, _) in METHODS.items() if body is not None]
WITH_CALL = [method for method, (_, called, _) in METHODS.items() if called is not None]


def make_pool(driver: FakeDriver) -> None:
    driver.request_pool("ovsnet", "10.77.0.0/24", "", {}, False, REQUESTER)
    driver.calls.clear()


# -- what is tied together --------------------------------------------------------------------------------------------


def test_the_table_above_has_every_route(client: Client) -> None:
    assert {f"/{method}" for method in METHODS} == client.plugin.routes.keys()


def test_every_method_is_in_the_documentation() -> None:
    text = DOCS.read_text()
    assert [method for method in METHODS if f"`{method}`" not in text] == []


def test_every_option_is_in_the_documentation() -> None:
    text = DOCS.read_text()
    options = (*NETWORK_OPTIONS, *carried_over(), *IPAM_OPTIONS, *ENDPOINT_OPTIONS)
    assert [key for key in options if f"`{key}`" not in text] == []


def test_every_error_code_has_a_status_and_none_is_404() -> None:
    assert set(STATUS) == set(codes())
    assert all(400 <= status < 600 and status != 404 for status in STATUS.values())


@pytest.mark.parametrize("name", [name for name in vars(FakeDriver) if not name.startswith("_")])
def test_the_fake_has_the_real_drivers_signatures(name: str) -> None:
    real = inspect.signature(getattr(DockerDriver, name))
    fake = inspect.signature(getattr(FakeDriver, name))
    assert list(fake.parameters) == list(real.parameters)
    assert fake.return_annotation == real.return_annotation


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_calls_the_driver_and_answers_exactly(driver: FakeDriver, client: Client, method: str) -> None:
    body, called, expected = METHODS[method]
    make_pool(driver)
    assert answer(client, method, body) == expected
    assert driver.calls == ([called] if called else [])


@pytest.mark.parametrize("recording", ["cnm-docker-20.10.json", "cnm-moby.json"])
def test_recorded_conversations(driver: FakeDriver, client: Client, recording: str) -> None:
    """Bodies as Docker sends them, null maps, unknown option keys and all, in Docker's order.

    The first was recorded from a dockerd 20.10.24, with a restart in it; the second follows moby's source.
    """
    for step in json.loads((HERE / "data" / recording).read_text()):
        assert answer(client, step["call"], step["body"]) == step["answer"], step
    managers = {"skip_gateway", "allocate_network", "free_network"}  # of Docker 28, and of a swarm's manager
    called = {METHODS[method][1][0] for method in WITH_CALL}  # type: ignore[index]
    assert {call[0] for call in driver.calls} - managers == called - managers


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (("", "", ""), {"Address": "10.77.0.2/24", "AddressIPv6": "fd00:77::2/64", "MacAddress": MAC}),
        (("10.77.0.2/24", "", ""), {"AddressIPv6": "fd00:77::2/64", "MacAddress": MAC}),
        (("10.77.0.2/24", "fd00:77::2/64", ""), {"MacAddress": MAC}),
        (("", "", MAC), {"Address": "10.77.0.2/24", "AddressIPv6": "fd00:77::2/64"}),
        (("10.77.0.2/24", "fd00:77::2/64", MAC), {}),
    ],
)
def test_create_endpoint_answers_only_what_was_left_empty(
    driver: FakeDriver, client: Client, wanted: tuple[str, str, str], chosen: dict[str, str]
) -> None:
    driver.addresses += (ipaddress.ip_interface("fd00:77::2/64"),)
    interface = dict(zip(("Address", "AddressIPv6", "MacAddress"), wanted, strict=True))
    body = {**BOTH, "Interface": interface, "Options": None}
    assert answer(client, "NetworkDriver.CreateEndpoint", body) == {"Interface": chosen}


def test_join_without_a_gateway_and_with_an_ipv6_one(driver: FakeDriver, client: Client) -> None:
    driver.joined = JoinResult("onc1", "eth", None, ipaddress.ip_address("fd00:77::1"), (), True)
    assert answer(client, "NetworkDriver.Join", METHODS["NetworkDriver.Join"][0]) == {
        "InterfaceName": {"SrcName": "onc1", "DstPrefix": "eth"},
        "Gateway": "",
        "GatewayIPv6": "fd00:77::1",
        "StaticRoutes": [],
        "DisableGatewayService": True,
    }


def test_a_joined_networks_pool_tells_its_gateway(client: Client) -> None:
    body = {"AddressSpace": "ovsnet", "Pool": "", "SubPool": "", "Options": {"ovsnet.network": "lan"}, "V6": True}
    assert answer(client, "IpamDriver.RequestPool", body) == {
        "PoolID": "pool-fd00_71__",
        "Pool": "fd00:71::/64",
        "Data": {"com.docker.network.gateway": "fd00:71::1/64"},
    }


def test_the_scope_is_the_settings(driver: FakeDriver) -> None:
    plugin = create_plugin(cast("DockerDriver", driver), scope="global", requester=lambda: "")
    assert answer(Client(plugin), "NetworkDriver.GetCapabilities")["Scope"] == "global"


@pytest.mark.parametrize("method", [method for method in METHODS if method not in WITH_BODY])
def test_a_body_that_is_not_needed_is_not_read(client: Client, method: str) -> None:
    assert answer(client, method, b"[garbage") == METHODS[method][2]


@pytest.mark.parametrize("method", WITH_BODY)
def test_unknown_fields_are_tolerated(driver: FakeDriver, client: Client, method: str) -> None:
    body, _, expected = METHODS[method]
    make_pool(driver)
    assert answer(client, method, {**(body or {}), "FromTheFuture": [1, None]}) == expected


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "field"), [(method, field) for method in WITH_BODY for field in METHODS[method][0] or {}]
)
def test_a_missing_field_is_named(driver: FakeDriver, client: Client, method: str, field: str) -> None:
    body = {name: value for name, value in (METHODS[method][0] or {}).items() if name != field}
    response = call(client, method, body)
    assert response.status_code == 400
    assert f"field '{field}'" in failure(response)
    assert driver.calls == []


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("NetworkDriver.DeleteNetwork", {"NetworkID": ""}),
        ("NetworkDriver.DeleteNetwork", {"NetworkID": "-rf"}),
        ("NetworkDriver.DeleteNetwork", {"NetworkID": "a/b"}),
        ("NetworkDriver.DeleteNetwork", {"NetworkID": "a\n"}),
        ("NetworkDriver.DeleteNetwork", {"NetworkID": "a" * 129}),
        ("NetworkDriver.DeleteNetwork", {"NetworkID": 7}),
        ("NetworkDriver.DeleteNetwork", {"NetworkID": None}),
        ("NetworkDriver.Join", {"SandboxKey": ""}),
        ("NetworkDriver.Join", {"SandboxKey": "netns/x"}),
        ("NetworkDriver.Join", {"SandboxKey": "/x\x00"}),
        ("NetworkDriver.Join", {"Options": []}),
        ("NetworkDriver.CreateEndpoint", {"Interface": None}),
        ("NetworkDriver.CreateEndpoint", {"Interface": {"Address": ""}}),
        ("NetworkDriver.CreateNetwork", {"IPv4Data": {}}),
        ("NetworkDriver.CreateNetwork", {"IPv4Data": [{"Pool": "10.0.0.0/24"}]}),
        ("NetworkDriver.CreateNetwork", {"IPv4Data": [{**IPAM4, "AuxAddresses": {"a": 1}}]}),
        ("IpamDriver.RequestPool", {"V6": "false"}),
        ("IpamDriver.RequestPool", {"Options": {"a": 1}}),
        ("IpamDriver.RequestAddress", {"Address": 1}),
    ],
)
def test_a_field_of_another_type_is_refused(
    driver: FakeDriver, client: Client, method: str, change: dict[str, object]
) -> None:
    response = call(client, method, {**(METHODS[method][0] or {}), **change})
    assert response.status_code == 400
    assert next(iter(change)) in failure(response)
    assert driver.calls == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the body is empty: repeat"),
        (b"null", "the body is not a JSON object: "),
        (b"[]", "not a JSON object"),
        (b'"NetworkID"', "not a JSON object"),
        (b'{"NetworkID": "a"', "not a JSON object"),
        (b"\xff\xfe\x00", "not a JSON object"),
        (b'{"NetworkID":' * 5000, "not a JSON object"),
        (b'{"NetworkID":' + b"9" * 5000 + b"}", "not a JSON object"),
        (b"NetworkID=a&EndpointID=b", "not a JSON object"),
        (b'{"NetworkID": "a", "EndpointID": "a", "PoolID": "a", "Other": "\\ud800"}', "not a JSON object"),
        (b'{"NetworkID": "a", "EndpointID": "a", "PoolID": "a", "Other": NaN}', "not a JSON object"),
    ],
)
@pytest.mark.parametrize("method", ["NetworkDriver.Leave", "IpamDriver.ReleasePool"])
def test_a_body_that_is_no_json_object_is_refused(client: Client, method: str, body: bytes, text: str) -> None:
    response = call(client, method, body)
    assert response.status_code == 400
    assert text in failure(response)


@pytest.mark.parametrize("method", ["NetworkDriver.Join", "Plugin.Activate", "NetworkDriver.NoSuchMethod"])
def test_a_body_over_the_limit_is_refused(client: Client, method: str) -> None:
    response = call(client, method, b" " * (MAX_BODY + 1))
    assert response.status_code == 413
    assert "request entity too large" in failure(response)


def test_a_body_at_the_limit_is_served(client: Client) -> None:
    body = json.dumps(METHODS["NetworkDriver.Join"][0]).encode()
    assert answer(client, "NetworkDriver.Join", body + b" " * (MAX_BODY - len(body)))


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("POST", "/NetworkDriver.NoSuchMethod", 404),
        ("POST", "/", 404),
        ("POST", "/NetworkDriver.Join/", 404),
        ("POST", "//Plugin.Activate", 404),
        ("POST", "/static/x", 404),
        ("POST", "/%ff%00<b>", 404),
        ("GET", "/NetworkDriver.Join", 405),
        ("OPTIONS", "/NetworkDriver.Join", 405),
        ("PUT", "/Plugin.Activate", 405),
    ],
)
def test_what_is_no_method_is_refused_in_the_protocols_form(client: Client, verb: str, path: str, status: int) -> None:
    response = client.open(path, method=verb)
    assert response.status_code == status
    assert response.content_type == CONTENT_TYPE
    assert list(json.loads(response.data)) == ["Err", "Error"]
    assert response.headers.get("Allow") == ("POST" if status == 405 else None)


@pytest.mark.parametrize("code", codes())
def test_every_error_tells_what_and_what_to_do(driver: FakeDriver, client: Client, code: str) -> None:
    driver.failure = codes()[code]("it is broken", hint="mend it")
    response = call(client, "NetworkDriver.Leave", BOTH)
    assert response.status_code == STATUS[code]
    assert failure(response) == "it is broken: mend it"


@pytest.mark.parametrize("method", WITH_CALL)
def test_every_method_tells_its_failure_and_leaves_a_line_in_the_log(
    driver: FakeDriver, client: Client, method: str
) -> None:
    driver.failure = NetworkNotFound("network x is gone", hint="make it again", network="x")
    with capture_logs() as lines:
        response = call(client, method, METHODS[method][0])
    assert failure(response) == "network x is gone: make it again"
    (line,) = lines
    assert (line["log_level"], line["event"], line["result"]) == ("warning", f"docker {method}", "network-not-found")
    assert line["details"] == {"network": "x"}
    assert line["error"] == "network x is gone: make it again"


@pytest.mark.parametrize("method", WITH_CALL)
def test_a_defect_is_told_and_logged_with_its_traceback(driver: FakeDriver, client: Client, method: str) -> None:
    driver.failure = ZeroDivisionError("secret")
    with capture_logs() as lines:
        response = call(client, method, METHODS[method][0])
    assert response.status_code == 500
    text = failure(response)
    assert "ZeroDivisionError" in text
    assert "secret" not in text
    line, operation = lines
    assert (operation["event"], operation["result"]) == (f"docker {method}", "internal")
    assert (line["log_level"], line["method"], line["exc_info"]) == ("error", method, driver.failure)


def test_odd_characters_in_an_error_do_not_break_the_answer(driver: FakeDriver, client: Client) -> None:
    driver.failure = InvalidRequest("no \ud800 \x00 'é'", hint="write\nletters")
    assert failure(call(client, "NetworkDriver.Leave", BOTH)) == "no \ud800 \x00 'é': write\nletters"


# -- anything at all --------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["", "10.0.0.0/8", "::1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes]:
    """A method and a body: noise, any JSON, or a valid body with some fields replaced by any JSON."""
    method = draw(st.sampled_from(list(METHODS)))
    kind = draw(st.sampled_from(["noise", "json", "near", "near", "near"]))
    if kind == "noise":
        return method, draw(st.binary(max_size=64))
    if kind == "json":
        return method, json.dumps(draw(JSON)).encode()
    body = dict(METHODS[method][0] or {})
    for field in draw(st.lists(st.sampled_from([*body, "Other"]), max_size=2)):
        body[field] = draw(JSON)
    return method, json.dumps(body).encode()


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(request=requests())
def test_no_request_gets_anything_but_the_protocol(request: tuple[str, bytes]) -> None:
    response = call(client_of(FakeDriver()), *request)
    assert response.status_code < 500
    if response.status_code != 200:
        assert response.content_type == CONTENT_TYPE
        assert list(json.loads(response.data)) == ["Err", "Error"]
    else:
        body = json.loads(response.data)
        assert isinstance(body, dict)
        assert not {"Err", "Error"} & body.keys()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    method=st.sampled_from(WITH_CALL),
    cls=st.sampled_from([*codes().values(), ValueError, KeyError, RecursionError, OSError, TimeoutError]),
    text=st.text(min_size=1),
)
def test_no_failure_gets_anything_but_the_protocol(method: str, cls: type[Exception], text: str) -> None:
    driver = FakeDriver()
    driver.failure = cls(text)
    with capture_logs():
        response = call(client_of(driver), method, METHODS[method][0])
    assert response.status_code == (STATUS[cls.code] if issubclass(cls, OvsnetError) else 500)
    assert response.content_type == CONTENT_TYPE
    assert list(json.loads(response.data)) == ["Err", "Error"]
