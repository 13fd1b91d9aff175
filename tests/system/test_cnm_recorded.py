"""Docker's protocol as dockerds speak it, a whole life in each table, answered by the real ovsnetd, its store and its switch.

20.10's messages were recorded from a dockerd 20.10.24; the newest moby's follow its source (libnetwork's remote drivers), which
differs: it asks GwAllocCheck, names endpoints to IPAM, and does IPv6 alone. A row is a call, its body and the answer. `<name>`
stands for what the first answer with it told, `<name.ip>` for an address without its length. Rows that begin with `Docker does`
are what a dockerd does between its calls, and `Look` what there has to be then.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.harness import Netns, Stack, wait_until

pytestmark = pytest.mark.usefixtures("nothing_left")

NET, ENDPOINT = "a1" * 32, "c3" * 32
NET2, ENDPOINT2 = "b2" * 32, "d4" * 32
SWARM, SWARM2 = "w9x8y7z6a5b4c3d2e1f0g9h8i", "v9x8y7z6a5b4c3d2e1f0g9h8i"
BOTH = {"NetworkID": NET, "EndpointID": ENDPOINT}
TASK = {"NetworkID": SWARM, "EndpointID": ENDPOINT}
GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}
NAME = {"com.docker.network.endpoint.name": "web"}
OPER_INFO = {
    "Value": {
        "ovsnet.network": "<network>",
        "ovsnet.bridge": "<bridge>",
        "ovsnet.vlan": "<vlan>",
        "ovsnet.port": "<port>",
    }
}
PORTS = {
    "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}],
    "com.docker.network.portmap": [
        {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 18099, "HostPortEnd": 18099}
    ],
}
NO_PORTS: dict[str, Any] = {"com.docker.network.endpoint.exposedports": [], "com.docker.network.portmap": []}

# The fields of each answer in moby's Go structs, without Err and Error. Go takes no others, nor any of another type.
CONTRACT: dict[str, dict[str, type]] = {
    "Plugin.Activate": {"Implements": list},
    "NetworkDriver.GetCapabilities": {"Scope": str, "ConnectivityScope": str, "GwAllocChecker": bool},
    "NetworkDriver.GwAllocCheck": {"SkipIPv4": bool, "SkipIPv6": bool},
    "NetworkDriver.AllocateNetwork": {"Options": dict},
    "NetworkDriver.CreateEndpoint": {"Interface": dict},
    "NetworkDriver.EndpointOperInfo": {"Value": dict},
    "NetworkDriver.Join": {
        "InterfaceName": dict,
        "Gateway": str,
        "GatewayIPv6": str,
        "StaticRoutes": list,
        "DisableGatewayService": bool,
    },
    "IpamDriver.GetCapabilities": {"RequiresMACAddress": bool, "RequiresRequestReplay": bool},
    "IpamDriver.GetDefaultAddressSpaces": {"LocalDefaultAddressSpace": str, "GlobalDefaultAddressSpace": str},
    "IpamDriver.RequestPool": {"PoolID": str, "Pool": str, "Data": dict},
    "IpamDriver.RequestAddress": {"Address": str, "Data": dict},
}


@dataclass(frozen=True)
class Refused:
    """An answer that is an error with this text in it."""

    text: str


Row = tuple[Any, ...]
Life = list[Row]


def hello(scope: str = "local") -> Life:
    """How every dockerd begins."""
    capabilities = {"Scope": scope, "ConnectivityScope": "local", "GwAllocChecker": True}
    spaces = {"LocalDefaultAddressSpace": "ovsnet", "GlobalDefaultAddressSpace": "ovsnet-global"}
    return [
        ("Plugin.Activate", None, {"Implements": ["NetworkDriver", "IpamDriver"]}),
        ("NetworkDriver.GetCapabilities", None, capabilities),
        ("IpamDriver.GetCapabilities", None, {"RequiresMACAddress": False, "RequiresRequestReplay": True}),
        ("IpamDriver.GetDefaultAddressSpaces", None, spaces),
    ]


def pool(subnet: str, name: str, sub: str = "", space: str = "ovsnet") -> Row:
    """RequestPool of a subnet that the user gave, or that Docker repeats."""
    body = {"AddressSpace": space, "Pool": subnet, "SubPool": sub, "Options": {}, "V6": ":" in subnet}
    return "IpamDriver.RequestPool", body, {"PoolID": f"<{name}>", "Pool": subnet, "Data": {}}


def address(of: str, wanted: str, options: dict[str, str] | None, given: str) -> Row:
    """RequestAddress."""
    body = {"PoolID": f"<{of}>", "Address": wanted, "Options": options}
    return "IpamDriver.RequestAddress", body, {"Address": given, "Data": {}}


def release(of: str, *addresses: str) -> Life:
    """ReleaseAddress of each."""
    return [("IpamDriver.ReleaseAddress", {"PoolID": f"<{of}>", "Address": one}, {}) for one in addresses]


def network(ident: str, options: dict[str, Any], ipv4: Any, ipv6: Any, call: str = "CreateNetwork") -> Row:
    """CreateNetwork; a pool is (subnet, gateway, auxiliary addresses)."""
    space = "ovsnet-global" if len(ident) < 64 else "ovsnet"

    def data(pools: Any) -> Any:
        return pools and [
            {"AddressSpace": space, "Pool": subnet, "Gateway": gateway} | ({"AuxAddresses": aux} if aux else {})
            for subnet, gateway, aux in pools
        ]

    body = {"NetworkID": ident, "Options": options, "IPv4Data": data(ipv4), "IPv6Data": data(ipv6)}
    return f"NetworkDriver.{call}", body, {"Options": options} if call == "AllocateNetwork" else {}


def endpoint(both: dict[str, str], options: Any, ipv4: str, ipv6: str = "", mac: str = "") -> Row:
    """CreateEndpoint, whose answer has only what was left open."""
    body = both | {"Interface": {"Address": ipv4, "AddressIPv6": ipv6, "MacAddress": mac}, "Options": options}
    return "NetworkDriver.CreateEndpoint", body, {"Interface": {} if mac else {"MacAddress": "<mac>"}}


def join(both: dict[str, str], gateway: str, gateway6: str = "", options: Any = None) -> Row:
    """Join."""
    return (
        "NetworkDriver.Join",
        both | {"SandboxKey": "<sandbox>", "Options": options},
        {
            "InterfaceName": {"SrcName": "<link>", "DstPrefix": "eth"},
            "Gateway": gateway,
            "GatewayIPv6": gateway6,
            "StaticRoutes": [],
            "DisableGatewayService": not (gateway or gateway6),
        },
    )


def of(*methods: str, both: dict[str, str] = BOTH) -> Life:
    """Calls of the network driver that name an endpoint and answer nothing."""
    return [(f"NetworkDriver.{method}", both, {}) for method in methods]


DOCKER_20_10: Life = [
    *hello(),
    # docker network create --subnet 10.94.1.0/24 --ip-range 10.94.1.128/25 --aux-address printer=10.94.1.9
    pool("10.94.1.0/24", "pool", sub="10.94.1.128/25"),
    address("pool", "", GATEWAY, "10.94.1.1/24"),
    address("pool", "10.94.1.9", None, "10.94.1.9/24"),
    network(
        NET,
        {"com.docker.network.enable_ipv6": False, "com.docker.network.generic": {"ovsnet.name": "life"}},
        [("10.94.1.0/24", "10.94.1.1/24", {"printer": "10.94.1.9/24"})],
        [],
    ),
    # docker run -p 18099:80 --mac-address
    address("pool", "", None, "<web>"),
    endpoint(BOTH, PORTS | {"com.docker.network.endpoint.macaddress": "AgAAAAAH"}, "<web>", mac="02:00:00:00:00:07"),
    join(BOTH, "10.94.1.1", options=PORTS),
    ("Docker does: move in", "<link>", "<web>"),
    ("NetworkDriver.ProgramExternalConnectivity", BOTH | {"Options": PORTS}, {}),
    ("NetworkDriver.EndpointOperInfo", BOTH, OPER_INFO),
    ("Look: reaches", "10.94.1.1"),
    ("Look: publishes", ["tcp/18099/80"]),
    ("Look: leases", "pool", {"10.94.1.1": "gateway", "10.94.1.9": "docker", "<web.ip>": "endpoint"}),
    # docker stop
    *of("RevokeExternalConnectivity", "Leave"),
    ("Docker does: move out", "<link>"),
    *of("DeleteEndpoint"),
    *release("pool", "<web.ip>"),
    ("Look: leases", "pool", {"10.94.1.1": "gateway", "10.94.1.9": "docker"}),
    # docker network rm
    *release("pool", "10.94.1.1", "10.94.1.9"),
    ("IpamDriver.ReleasePool", {"PoolID": "<pool>"}, {}),
    ("NetworkDriver.DeleteNetwork", {"NetworkID": NET}, {}),
]

DOCKER_20_10_INTERNAL_AND_DUAL: Life = [
    *hello(),
    pool("10.94.1.0/24", "pool"),
    address("pool", "", GATEWAY, "10.94.1.1/24"),
    pool("fd94:1::/64", "pool6"),
    address("pool6", "", GATEWAY, "fd94:1::1/64"),
    network(
        NET,
        {"com.docker.network.enable_ipv6": True, "com.docker.network.generic": {}, "com.docker.network.internal": True},
        [("10.94.1.0/24", "10.94.1.1/24", None)],
        [("fd94:1::/64", "fd94:1::1/64", None)],
    ),
    address("pool", "", None, "<web>"),
    address("pool6", "", None, "<web6>"),
    endpoint(BOTH, NO_PORTS, "<web>", "<web6>"),
    join(BOTH, "", options=NO_PORTS),  # no gateway, and none of Docker's own either
    ("Docker does: move in", "<link>", "<web>", "<web6>"),
    ("NetworkDriver.EndpointOperInfo", BOTH, OPER_INFO),
    *of("Leave"),
    ("Docker does: move out", "<link>"),
    *of("DeleteEndpoint"),
    *release("pool", "<web.ip>"),
    *release("pool6", "<web6.ip>"),
    *release("pool", "10.94.1.1"),
    ("IpamDriver.ReleasePool", {"PoolID": "<pool>"}, {}),
    *release("pool6", "fd94:1::1"),
    ("IpamDriver.ReleasePool", {"PoolID": "<pool6>"}, {}),
    ("NetworkDriver.DeleteNetwork", {"NetworkID": NET}, {}),
]

_DUAL = {
    "com.docker.network.enable_ipv4": True,
    "com.docker.network.enable_ipv6": True,
    "com.docker.network.generic": {},
}
MOBY: Life = [
    *hello(),
    ("NetworkDriver.GwAllocCheck", {"Options": _DUAL}, {"SkipIPv4": False, "SkipIPv6": False}),
    pool("10.94.1.0/24", "pool"),
    address("pool", "", GATEWAY, "10.94.1.1/24"),
    pool("fd94:1::/64", "pool6"),
    address("pool6", "", GATEWAY, "fd94:1::1/64"),
    network(NET, _DUAL, [("10.94.1.0/24", "10.94.1.1/24", None)], [("fd94:1::/64", "fd94:1::1/64", None)]),
    # It tells IPAM for whom
    address("pool", "", NAME, "<web>"),
    address("pool6", "", NAME, "<web6>"),
    endpoint(BOTH, PORTS, "<web>", "<web6>"),
    join(BOTH, "10.94.1.1", "fd94:1::1", options=PORTS),
    ("Docker does: move in", "<link>", "<web>", "<web6>"),
    ("NetworkDriver.ProgramExternalConnectivity", BOTH | {"Options": PORTS}, {}),
    ("NetworkDriver.EndpointOperInfo", BOTH, OPER_INFO),
    ("Look: reaches", "10.94.1.1"),
    ("Look: reaches", "fd94:1::1"),
    ("Look: publishes", ["tcp/18099/80"]),
    # After a live restore it sends no RevokeExternalConnectivity
    *of("Leave"),
    ("Look: publishes", []),
    ("Docker does: move out", "<link>"),
    *of("DeleteEndpoint", "DeleteEndpoint"),
    *release("pool", "<web.ip>", "<web.ip>"),
    *release("pool6", "<web6.ip>"),
    *release("pool", "10.94.1.1"),
    ("IpamDriver.ReleasePool", {"PoolID": "<pool>"}, {}),
    *release("pool6", "fd94:1::1"),
    ("IpamDriver.ReleasePool", {"PoolID": "<pool6>"}, {}),
    ("NetworkDriver.DeleteNetwork", {"NetworkID": NET}, {}),
]

_IPV6 = {
    "com.docker.network.enable_ipv4": False,
    "com.docker.network.enable_ipv6": True,
    "com.docker.network.generic": {"ovsnet.gateway": "fd94:1::fe"},
}
MOBY_IPV6_ONLY: Life = [
    *hello(),
    ("NetworkDriver.GwAllocCheck", {"Options": _IPV6}, {"SkipIPv4": False, "SkipIPv6": True}),
    pool("fd94:1::/64", "pool6"),
    network(NET, _IPV6, None, [("fd94:1::/64", "", None)]),
    address("pool6", "", NAME, "<web6>"),
    endpoint(BOTH, PORTS, "", "<web6>"),
    join(BOTH, "", "fd94:1::fe", options=PORTS),
    ("Docker does: move in", "<link>", "<web6>"),
    ("NetworkDriver.ProgramExternalConnectivity", BOTH | {"Options": PORTS}, {}),
    ("Look: reaches", "fd94:1::fe"),
    ("Look: publishes", ["tcp/18099/80"]),
    *of("RevokeExternalConnectivity", "Leave"),
    ("Docker does: move out", "<link>"),
    *of("DeleteEndpoint"),
    *release("pool6", "<web6.ip>"),
    ("IpamDriver.ReleasePool", {"PoolID": "<pool6>"}, {}),
    ("NetworkDriver.DeleteNetwork", {"NetworkID": NET}, {}),
]

# A container on an IPv4 and on a dual-stack network: each is told all ports, the first that IPv6 is not its own
OTHER = {"NetworkID": NET2, "EndpointID": ENDPOINT2}
MOBY_TWO_GATEWAYS: Life = [
    *hello(),
    pool("10.94.1.0/24", "pool"),
    address("pool", "", GATEWAY, "10.94.1.1/24"),
    network(NET, {"com.docker.network.generic": {}}, [("10.94.1.0/24", "10.94.1.1/24", None)], None),
    pool("10.94.2.0/24", "pool2"),
    address("pool2", "", GATEWAY, "10.94.2.1/24"),
    pool("fd94:2::/64", "pool6"),
    address("pool6", "", GATEWAY, "fd94:2::1/64"),
    network(NET2, _DUAL, [("10.94.2.0/24", "10.94.2.1/24", None)], [("fd94:2::/64", "fd94:2::1/64", None)]),
    address("pool", "", NAME, "<web>"),
    endpoint(BOTH, PORTS, "<web>"),
    join(BOTH, "10.94.1.1", options=PORTS),
    address("pool2", "", NAME, "<web2>"),
    address("pool6", "", NAME, "<web6>"),
    (
        "NetworkDriver.CreateEndpoint",
        endpoint(OTHER, PORTS, "<web2>", "<web6>")[1],
        {"Interface": {"MacAddress": "<mac2>"}},
    ),
    (
        "NetworkDriver.Join",
        OTHER | {"SandboxKey": "<sandbox>", "Options": PORTS},
        join(OTHER, "10.94.2.1", "fd94:2::1")[2] | {"InterfaceName": {"SrcName": "<link2>", "DstPrefix": "eth"}},
    ),
    (
        "NetworkDriver.ProgramExternalConnectivity",
        BOTH | {"Options": PORTS | {"com.docker.network.driver.private.no_proxy_6to4": True}},
        {},
    ),
    ("NetworkDriver.ProgramExternalConnectivity", OTHER | {"Options": PORTS}, {}),
    ("Look: publishes", ["tcp/0.0.0.0/18099/80", "tcp/::/18099/80"]),
    # The same again, and the other way round
    ("NetworkDriver.ProgramExternalConnectivity", OTHER | {"Options": PORTS}, {}),
    ("Look: publishes", ["tcp/0.0.0.0/18099/80", "tcp/::/18099/80"]),
    *of("RevokeExternalConnectivity"),
    *of("RevokeExternalConnectivity", both=OTHER),
    ("NetworkDriver.ProgramExternalConnectivity", OTHER | {"Options": PORTS}, {}),
    (
        "NetworkDriver.ProgramExternalConnectivity",
        BOTH | {"Options": PORTS | {"com.docker.network.driver.private.no_proxy_6to4": True}},
        {},
    ),
    ("Look: publishes", ["tcp/18099/80"]),
    *of("Leave", "DeleteEndpoint"),
    *of("Leave", "DeleteEndpoint", both=OTHER),
    *release("pool", "<web.ip>"),
    *release("pool2", "<web2.ip>"),
    *release("pool6", "<web6.ip>"),
    *release("pool", "10.94.1.1"),
    ("IpamDriver.ReleasePool", {"PoolID": "<pool>"}, {}),
    ("NetworkDriver.DeleteNetwork", {"NetworkID": NET}, {}),
    *release("pool2", "10.94.2.1"),
    *release("pool6", "fd94:2::1"),
    ("NetworkDriver.DeleteNetwork", {"NetworkID": NET2}, {}),
]

_ANY = {"AddressSpace": "ovsnet", "Pool": "", "SubPool": "", "Options": {}, "V6": False}
REPLAY: Life = [
    *hello(),
    # docker network create, without a subnet
    ("IpamDriver.RequestPool", _ANY, {"PoolID": "<pool>", "Pool": "<subnet>", "Data": {}}),
    address("pool", "", GATEWAY, "<gateway>"),
    network(NET, {"com.docker.network.generic": {}}, [("<subnet>", "<gateway>", None)], []),
    address("pool", "", None, "<web>"),
    endpoint(BOTH, {}, "<web>"),
    join(BOTH, "<gateway.ip>"),
    ("Docker does: move in", "<link>", "<web>"),
    # The same dockerd wants it a second time, for something else
    ("IpamDriver.RequestPool", _ANY | {"Pool": "<subnet>"}, Refused("is in use by pool")),
    (
        "IpamDriver.RequestAddress",
        {"PoolID": "<pool>", "Address": "<web.ip>", "Options": None},
        Refused("is in use by endpoint"),
    ),
    # Its successor repeats it, as often as it starts
    *[
        row
        for _ in range(2)
        for row in [
            ("Docker does: start again",),
            *hello(),
            (
                "IpamDriver.RequestPool",
                _ANY | {"Pool": "<subnet>"},
                {"PoolID": "<pool>", "Pool": "<subnet>", "Data": {}},
            ),
            address("pool", "<gateway.ip>", GATEWAY, "<gateway>"),
            address("pool", "<web.ip>", None, "<web>"),
            ("Look: leases", "pool", {"<gateway.ip>": "gateway", "<web.ip>": "endpoint"}),
            ("Look: reaches", "<gateway.ip>"),
        ]
    ],
    # What it says of the next container does not depend on it
    address("pool", "", None, "<db>"),
    *release("pool", "<db.ip>"),
    # It was not live-restored: the endpoint goes, and without a Leave
    ("Docker does: move out", "<link>"),
    *of("DeleteEndpoint"),
    *release("pool", "<web.ip>"),
    *release("pool", "<gateway.ip>"),
    ("IpamDriver.ReleasePool", {"PoolID": "<pool>"}, {}),
    ("NetworkDriver.DeleteNetwork", {"NetworkID": NET}, {}),
    # A delete of what is gone is success
    *of("Leave", "DeleteEndpoint", "RevokeExternalConnectivity"),
    ("NetworkDriver.DeleteNetwork", {"NetworkID": NET}, {}),
    ("IpamDriver.ReleasePool", {"PoolID": "<pool>"}, {}),
    *release("pool", "<web.ip>"),
    # but nothing else is
    ("NetworkDriver.Join", BOTH | {"SandboxKey": "<sandbox>", "Options": {}}, Refused("is not known")),
    ("NetworkDriver.EndpointOperInfo", BOTH, Refused("is not known")),
    ("IpamDriver.RequestAddress", {"PoolID": "<pool>", "Address": "", "Options": None}, Refused("there is no pool")),
]

_NODE = {"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.7", "Self": True}}
_SWARM_POOL = [("10.94.1.0/24", "10.94.1.1/24", None)]
_GENERIC = {"ovsnet.name": "swarm"}


def _swarm_part(link: str) -> Life:
    """What every node is told that has a task on the network, on managers too."""
    joining, told, joined = join(TASK, "10.94.1.1")
    return [
        pool("10.94.1.0/24", "pool", space="ovsnet-global"),
        address("pool", "10.94.1.1", GATEWAY, "10.94.1.1/24"),
        network(SWARM, {"com.docker.network.generic": _GENERIC}, _SWARM_POOL, []),
        address("pool", "<task.ip>", None, "<task>"),
        endpoint(TASK, None, "<task>"),
        (joining, told, joined | {"InterfaceName": {"SrcName": link, "DstPrefix": "eth"}}),
        ("Docker does: move in", link, "<task>"),
        ("Look: reaches", "10.94.1.1"),
        ("Look: leases", "pool", {"10.94.1.1": "gateway", "<vip.ip>": "docker", "<task.ip>": "endpoint"}),
        *of("Leave", both=TASK),
        ("Docker does: move out", link),
        *of("DeleteEndpoint", both=TASK),
        *release("pool", "<task.ip>"),
        *release("pool", "10.94.1.1"),
        ("IpamDriver.ReleasePool", {"PoolID": "<pool>"}, {}),
        ("NetworkDriver.DeleteNetwork", {"NetworkID": SWARM}, {}),
        ("Look: leases", "pool", {"10.94.1.1": "gateway", "<vip.ip>": "docker"}),
    ]


SWARM_LIFE: Life = [
    *hello("global"),
    ("NetworkDriver.DiscoverNew", _NODE, {}),
    # The manager: docker network create --scope swarm, and a service's virtual address
    pool("10.94.1.0/24", "pool", space="ovsnet-global"),
    address("pool", "", GATEWAY, "10.94.1.1/24"),
    network(SWARM, _GENERIC, _SWARM_POOL, None, "AllocateNetwork"),
    address("pool", "", {}, "<vip>"),
    address("pool", "", {}, "<task>"),
    # Another network of that subnet is refused, and what the manager takes back then is not taken from the first
    pool("10.94.1.0/24", "pool", space="ovsnet-global"),
    address("pool", "", GATEWAY, "10.94.1.1/24"),
    (*network(SWARM2, {}, _SWARM_POOL, None, "AllocateNetwork")[:2], Refused("subnet 10.94.1.0/24 belongs to")),
    *release("pool", "10.94.1.1"),
    ("IpamDriver.ReleasePool", {"PoolID": "<pool>"}, {}),
    *_swarm_part("<link>"),
    # The task moves to another node
    address("pool", "<task.ip>", {}, "<task>"),
    ("Docker does: start again",),
    *_swarm_part("<link2>"),
    # docker network rm, at the manager
    *release("pool", "<vip.ip>"),
    ("NetworkDriver.FreeNetwork", {"NetworkID": SWARM}, {}),
    *release("pool", "10.94.1.1"),
    ("IpamDriver.ReleasePool", {"PoolID": "<pool>"}, {}),
    ("NetworkDriver.DiscoverDelete", _NODE, {}),
]

DOCKERD = """
import http.client, json, socket, sys
connection = http.client.HTTPConnection("plugin")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.settimeout(30)
connection.sock.connect(sys.argv[1])
for line in sys.stdin:
    method, body = json.loads(line)
    raw = b"" if body is None else json.dumps(body).encode() + b"\\n"
    headers = {"Accept": "application/vnd.docker.plugins.v1.2+json", "User-Agent": "Go-http-client/1.1"}
    connection.request("POST", "/" + method, raw, headers)
    answer = connection.getresponse()
    print(json.dumps([answer.status, answer.getheader("Content-Type"), json.loads(answer.read())]), flush=True)
"""


class Player:
    """Plays a life: a dockerd on the wire, a process of its own each time that it starts, and a container's namespace."""

    def __init__(self, stack: Stack, container: Netns, undo: ExitStack) -> None:
        self._stack = stack
        self._container = container
        self._undo = undo
        self._names = {"sandbox": str(container.path), "bridge": stack.bridge}
        self._start()

    def play(self, life: Life) -> None:
        """Every row, in order; the failure names the row."""
        for number, (what, *rest) in enumerate(life):
            try:
                match what.partition(": "):
                    case ("Docker does", _, deed):
                        getattr(self, "_" + deed.replace(" ", "_"))(*map(self._told, rest))
                    case ("Look", _, at):
                        getattr(self, "_" + at)(*map(self._told, rest))
                    case _:
                        self._call(what, self._told(rest[0]), rest[1])
            except AssertionError as error:
                raise AssertionError(f"row {number}, {what} {rest}: {error}") from error

    def _told(self, value: Any) -> Any:
        """`value` with names replaced."""
        if isinstance(value, dict):
            return {self._told(key): self._told(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._told(one) for one in value]
        if isinstance(value, str):
            return re.sub(r"<(\w+)(\.ip)?>", lambda found: self._name(found[1], bare=bool(found[2])), value)
        return value

    def _name(self, name: str, *, bare: bool) -> str:
        return self._names[name].partition("/")[0] if bare else self._names[name]

    def _learn(self, expected: Any, got: Any) -> None:
        """Note what an answer tells for the first time."""
        if isinstance(expected, dict) and isinstance(got, dict):
            for key, one in expected.items():
                self._learn(one, got.get(key))
        elif isinstance(expected, str) and (found := re.fullmatch(r"<(\w+)>", expected)) and isinstance(got, str):
            self._names.setdefault(found[1], got)

    def _call(self, method: str, body: Any, expected: Any) -> None:
        assert self._dockerd.stdin
        assert self._dockerd.stdout
        self._dockerd.stdin.write(json.dumps([method, body]) + "\n")
        self._dockerd.stdin.flush()
        status, kind, got = json.loads(self._dockerd.stdout.readline())
        assert kind == "application/vnd.docker.plugins.v1.2+json"
        if isinstance(expected, Refused):
            assert status >= 400, got
            assert expected.text in got["Err"] == got["Error"]
            return
        assert status == 200, got
        assert {field: type(value) for field, value in got.items()} == CONTRACT.get(method, {})
        self._learn(expected, got)
        assert got == self._told(expected)

    # -- what a dockerd does between its calls ------------------------------------------------------------------------

    def _start(self) -> None:
        self._dockerd = self._undo.enter_context(
            subprocess.Popen(
                [sys.executable, "-Ic", DOCKERD, str(self._stack.docker_socket)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        self._undo.callback(self._dockerd.kill)

    def _start_again(self) -> None:
        self._dockerd.kill()
        self._dockerd.wait(10)
        self._start()

    def _move_in(self, link: str, *addresses: str) -> None:
        self._stack.host.run("ip", "link", "set", link, "netns", self._container.name)
        inside = self._container.run
        inside("ip", "link", "set", link, "name", "eth0", "up")
        for one in addresses:
            inside("ip", "address", "add", one, "dev", "eth0", *(["nodad"] if ":" in one else []))

    def _move_out(self, link: str) -> None:
        self._container.run("ip", "link", "set", "eth0", "down", "name", link)
        self._container.run("ip", "link", "set", link, "netns", self._stack.host.name)

    # -- what there has to be -----------------------------------------------------------------------------------------

    def _reaches(self, target: str) -> None:
        wait_until(lambda: self._container.pings(target), f"{target} answers")

    def _publishes(self, ports: list[str]) -> None:
        assert sorted(one for row in self._stack.endpoints() for one in row["published"]) == ports

    def _leases(self, name: str, expected: dict[str, str]) -> None:
        leases = self._stack.show("pool", "leases", self._names[name])
        assert {one["address"]: one["owner"]["kind"] for one in leases} == expected


@pytest.fixture
def player(stack: Stack, netns: Callable[[], Netns]) -> Iterator[Player]:
    """Plays lives on the shared ovsnetd."""
    with ExitStack() as undo:
        yield Player(stack, netns(), undo)


@pytest.mark.parametrize(
    "life",
    [
        pytest.param(DOCKER_20_10, id="20.10"),
        pytest.param(DOCKER_20_10_INTERNAL_AND_DUAL, id="20.10-internal-dual"),
        pytest.param(MOBY, id="moby"),
        pytest.param(MOBY_IPV6_ONLY, id="moby-ipv6-only"),
        pytest.param(MOBY_TWO_GATEWAYS, id="moby-two-gateways"),
        pytest.param(REPLAY, id="replay"),
    ],
)
def test_a_life(player: Player, life: Life) -> None:
    player.play(life)


@pytest.fixture
def global_stack(stack: Stack) -> Iterator[Stack]:
    """ovsnetd in a swarm."""
    stack.stop()
    stack.settings["docker_scope"] = "global"
    stack.start()
    yield stack
    stack.stop()
    del stack.settings["docker_scope"]
    stack.start()


def test_a_life_in_a_swarm(global_stack: Stack, netns: Callable[[], Netns]) -> None:
    with ExitStack() as undo:
        Player(global_stack, netns(), undo).play(SWARM_LIFE)


def test_every_answer_with_fields_is_played() -> None:
    """The contract's methods, all of them, and no others, in all lives together."""
    lives = (DOCKER_20_10, DOCKER_20_10_INTERNAL_AND_DUAL, MOBY, MOBY_IPV6_ONLY, MOBY_TWO_GATEWAYS, REPLAY, SWARM_LIFE)
    played = {row[0] for life in lives for row in life if "." in row[0] and row[2] != {}}
    assert played == CONTRACT.keys()
