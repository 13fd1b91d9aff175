"""Nonsense on Docker's socket: every answer in the protocol's form, in time, never a defect, and nothing that cannot be removed.

OVSNET_CNM_EXAMPLES is the number of cases (3,000; the whole is 20,000), over all methods. Bodies are valid ones with fields
changed, left out or added, so that many calls get far, and some succeed: these leave pools, networks and endpoints, which the
next calls meet.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.harness import Stack

pytestmark = pytest.mark.long

EXAMPLES = int(os.environ.get("OVSNET_CNM_EXAMPLES", "3000"))
DEADLINE = 25  # seconds for one answer: ovsnetd's own deadline is 20

NETWORK, ENDPOINT, SANDBOX = "f" * 64, "e" * 64, "/var/run/docker/netns/0123456789ab"
SUBNET, SUBNET6 = "10.97.1.0/24", "fd97:1::/64"
OF_NETWORK = {"NetworkID": NETWORK}
OF_ENDPOINT = OF_NETWORK | {"EndpointID": ENDPOINT}
DATA = [{"AddressSpace": "ovsnet", "Pool": SUBNET, "Gateway": "10.97.1.1/24", "AuxAddresses": {"a": "10.97.1.9/24"}}]
INTERFACE = {"Address": "10.97.1.7/24", "AddressIPv6": "", "MacAddress": "02:00:00:00:00:08"}
GENERIC = {"ovsnet.name": "fuzz", "ovsnet.vlan": "77", "ovsnet.mtu": "1400", "ovsnet.gateway": "none"}
PORT = {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 18099, "HostPortEnd": 18099}
OPTIONS = {
    "com.docker.network.generic": GENERIC,
    "com.docker.network.enable_ipv6": False,
    "com.docker.network.internal": True,
}
BINDINGS = {
    "com.docker.network.portmap": [PORT],
    "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}],
}
RATES = {"ovsnet.rate.out": "5M", "ovsnet.rate.in": "1G", "ovsnet.mac": "02:00:00:00:00:08", "ovsnet.name": "x"}

VALID: dict[str, dict[str, Any]] = {
    "Plugin.Activate": {},
    "NetworkDriver.GetCapabilities": {},
    "NetworkDriver.GwAllocCheck": {"Options": OPTIONS},
    "NetworkDriver.AllocateNetwork": OF_NETWORK | {"Options": {}, "IPv4Data": DATA, "IPv6Data": []},
    "NetworkDriver.FreeNetwork": OF_NETWORK,
    "NetworkDriver.CreateNetwork": OF_NETWORK | {"Options": OPTIONS, "IPv4Data": DATA, "IPv6Data": None},
    "NetworkDriver.DeleteNetwork": OF_NETWORK,
    "NetworkDriver.CreateEndpoint": OF_ENDPOINT | {"Interface": INTERFACE, "Options": RATES},
    "NetworkDriver.EndpointOperInfo": OF_ENDPOINT,
    "NetworkDriver.DeleteEndpoint": OF_ENDPOINT,
    "NetworkDriver.Join": OF_ENDPOINT | {"SandboxKey": SANDBOX, "Options": BINDINGS},
    "NetworkDriver.Leave": OF_ENDPOINT,
    "NetworkDriver.ProgramExternalConnectivity": OF_ENDPOINT | {"Options": BINDINGS},
    "NetworkDriver.RevokeExternalConnectivity": OF_ENDPOINT,
    "NetworkDriver.DiscoverNew": {"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.1", "self": True}},
    "NetworkDriver.DiscoverDelete": {"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.1", "self": True}},
    "IpamDriver.GetCapabilities": {},
    "IpamDriver.GetDefaultAddressSpaces": {},
    "IpamDriver.RequestPool": {"AddressSpace": "ovsnet", "Pool": SUBNET, "SubPool": "", "Options": {}, "V6": False},
    "IpamDriver.ReleasePool": {"PoolID": "POOL"},
    "IpamDriver.RequestAddress": {"PoolID": "POOL", "Address": "", "Options": {}},
    "IpamDriver.ReleaseAddress": {"PoolID": "POOL", "Address": "10.97.1.7"},
}
STANDING = ("IpamDriver.RequestPool", "NetworkDriver.CreateNetwork", "NetworkDriver.CreateEndpoint")
TEXTS = st.text(max_size=12) | st.sampled_from(
    [
        *GENERIC,
        *RATES,
        SUBNET,
        SUBNET6,
        "10.97.1.7",
        "10.97.1.1/24",
        "::1",
        "POOL",
        NETWORK,
        "65536",
        "-1",
        "1e9",
        "true",
        "x" * 5000,
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [one for key, each in inside for one in [(*path, key), *leaves(each, (*path, key))]]


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, Any]:
    """A method and its body."""
    method = draw(st.sampled_from(sorted(VALID)))
    body = json.loads(json.dumps(VALID[method]))
    for _ in range(draw(st.integers(0, 3))):
        paths = leaves(body)
        if not paths:
            break
        *path, last = draw(st.sampled_from(paths))
        place = body
        for key in path:
            place = place[key]
        match draw(st.sampled_from(("change", "leave out", "add", "change"))):
            case "change":
                place[last] = draw(JSON)
            case "leave out":
                del place[last]
            case _ if isinstance(place, dict):
                place[draw(TEXTS)] = draw(JSON)
    return method, body if draw(st.integers(0, 30)) else draw(JSON)


class Caller:
    """Calls methods on one connection, as dockerd does, and knows the latest pool."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: http.client.HTTPConnection | None = None
        self.pool = "00000000-0000-0000-0000-000000000000"

    def __call__(self, method: str, body: bytes) -> tuple[int, Any]:
        """Status and answer, decoded."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("localhost")
            self._connection.sock = socket.socket(socket.AF_UNIX)
            self._connection.sock.settimeout(DEADLINE)
            self._connection.sock.connect(self._path)
        self._connection.request("POST", f"/{method}", body.replace(b'"POOL"', json.dumps(self.pool).encode()))
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.will_close:
            self.close()
        return response.status, answer

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def check(status: int, answer: Any) -> None:
    """What dockerd can read: it looks for `Err` whatever the status."""
    assert isinstance(answer, dict)
    if status == 200:
        assert not answer.get("Err")
        assert not answer.get("Error")
    else:
        assert 400 <= status < 600
        assert status != 404, "Docker takes it for a driver without that method"
        assert answer["Err"] == answer["Error"] != ""
        assert "internal error" not in answer["Err"]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.timeout(400 + EXAMPLES // 20)
def test_nonsense_on_dockers_socket(stack: Stack) -> None:
    succeeded = set()
    with closing(Caller(str(stack.docker_socket))) as call:

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )
        @given(calls(), st.booleans())
        def case(made: tuple[str, Any], standing: bool) -> None:
            method, body = made
            for each in STANDING if standing else ():  # what most calls are about, and what their nonsense is to meet
                status, answer = call(each, json.dumps(VALID[each]).encode())
                call.pool = answer.get("PoolID", call.pool)
                if status == 200:
                    succeeded.add(each)
            status, answer = call(method, json.dumps(body).encode())
            check(status, answer)
            if status == 200:
                succeeded.add(method)
            if status == 200 and method == "IpamDriver.RequestPool":
                call.pool = answer["PoolID"]

        try:
            case()
        finally:
            for noun, flags in (("endpoint", ()), ("network", ()), ("pool", ("--force",))):
                if found := [row["id"] for row in stack.show(noun, "ls")]:
                    stack.cli(noun, "rm", *flags, *found)
    assert set(STANDING) <= succeeded, "all was refused: that tests little"
    log = stack.log_tail(2000)
    assert "Traceback" not in log
    assert "call broke" not in log


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    "ports",
    [
        2,
        True,
        "80",
        {"80/tcp": 8080},
        [80],
        [{}],
        *[
            [PORT | one]
            for one in (
                {"Port": None},
                {"Port": float("inf")},
                {"HostPort": 1 << 64},
                {"HostPortEnd": 65536},
                {"Proto": 5},
            )
        ],
    ],
    ids=repr,
)
def test_nonsense_for_a_port_map(stack: Stack, ports: object) -> None:
    with closing(Caller(str(stack.docker_socket))) as call:

        def asked(method: str, body: dict[str, Any]) -> tuple[int, Any]:
            return call(method, json.dumps(body).encode())

        try:
            for each in STANDING:
                status, answer = asked(each, VALID[each])
                assert status == 200, answer
                call.pool = answer.get("PoolID", call.pool)
            method = "NetworkDriver.ProgramExternalConnectivity"
            status, answer = asked(method, OF_ENDPOINT | {"Options": {"com.docker.network.portmap": ports}})
            check(status, answer)
            assert status == 400
        finally:
            for each in ("NetworkDriver.DeleteEndpoint", "NetworkDriver.DeleteNetwork"):
                asked(each, VALID[each])
            asked("IpamDriver.ReleaseAddress", VALID["IpamDriver.ReleaseAddress"])
            asked("IpamDriver.ReleasePool", VALID["IpamDriver.ReleasePool"])
