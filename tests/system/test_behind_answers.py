"""What of Docker's calls goes on behind their answers, with a state database that takes its time, and an ovsnetd that dies."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.harness import Netns, Stack, wait_until

SUBNET, GATEWAY = "10.95.1.0/24", "10.95.1.1"
NETWORK = secrets.token_hex(32)


@dataclass
class Dockerd:
    """One that makes these calls."""

    stack: Stack
    pool: str

    def call(self, method: str, **body: Any) -> dict[str, Any]:
        """The answer, which is no error."""
        answer = self.stack.docker_call(method, **body)
        assert not answer.get("Err"), (method, answer)
        return answer

    def request(self) -> str:
        """RequestAddress."""
        return str(self.call("IpamDriver.RequestAddress", PoolID=self.pool, Address="", Options=None)["Address"])

    def release(self, address: str) -> None:
        """ReleaseAddress."""
        self.call("IpamDriver.ReleaseAddress", PoolID=self.pool, Address=address.partition("/")[0])

    def create(self, address: str) -> dict[str, Any]:
        """CreateEndpoint; what tells of the endpoint."""
        both = {"NetworkID": NETWORK, "EndpointID": secrets.token_hex(32)}
        interface = {"Address": address, "AddressIPv6": "", "MacAddress": ""}
        self.call("NetworkDriver.CreateEndpoint", **both, Interface=interface, Options={})
        return both

    def join(self, both: dict[str, Any]) -> str:
        """Join; the link's name."""
        answer = self.call("NetworkDriver.Join", **both, SandboxKey="/run/docker/netns/behind", Options=None)
        return str(answer["InterfaceName"]["SrcName"])

    def leave(self, both: dict[str, Any], address: str) -> None:
        """Leave, DeleteEndpoint and ReleaseAddress."""
        self.call("NetworkDriver.Leave", **both)
        self.call("NetworkDriver.DeleteEndpoint", **both)
        self.release(address)

    def leases(self) -> dict[str, str]:
        """Addresses and whose they are, but for the gateway."""
        rows = self.stack.show("ipam", "show")
        return {row["address"]: row["owner"]["kind"] for row in rows if row["address"] != GATEWAY}

    @contextmanager
    def slow_database(self) -> Iterator[None]:
        """Inside, the state database takes nothing."""
        server = self.stack.state_server()
        os.kill(server, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(server, signal.SIGCONT)


@pytest.fixture
def dockerd(stack: Stack) -> Iterator[Dockerd]:
    """A network of Docker's that has had a container."""
    asked = {"AddressSpace": "ovsnet", "Pool": SUBNET, "SubPool": "", "Options": None, "V6": False}
    found = Dockerd(stack, stack.docker_call("IpamDriver.RequestPool", **asked)["PoolID"])
    kind = {"RequestAddressType": "com.docker.network.gateway"}
    found.call("IpamDriver.RequestAddress", PoolID=found.pool, Address=GATEWAY, Options=kind)
    data = [{"AddressSpace": "ovsnet", "Pool": SUBNET, "Gateway": f"{GATEWAY}/24"}]
    found.call("NetworkDriver.CreateNetwork", NetworkID=NETWORK, Options={}, IPv4Data=data, IPv6Data=[])
    address = found.request()
    both = found.create(address)
    found.join(both)
    found.leave(both, address)
    wait_until(lambda: not found.leases(), "the first container has gone", 5)
    yield found
    found.call("NetworkDriver.DeleteNetwork", NetworkID=NETWORK)
    found.release(GATEWAY)
    found.call("IpamDriver.ReleasePool", PoolID=found.pool)


def test_join_waits_for_what_create_endpoint_did_not(dockerd: Dockerd) -> None:
    with ThreadPoolExecutor() as others, dockerd.slow_database():
        first, second = dockerd.request(), dockerd.request()
        assert first != second
        both = dockerd.create(first)
        joining = others.submit(dockerd.join, both)
        info = others.submit(dockerd.call, "NetworkDriver.EndpointOperInfo", **both)
        with pytest.raises(TimeoutError):
            joining.result(0.5)
        assert not info.done()
        dockerd.release(second)  # no endpoint came to be of it: there is nothing to wait for
        os.kill(dockerd.stack.state_server(), signal.SIGCONT)
        link = joining.result(10)
    assert dockerd.stack.host.ip("link", "show", "dev", link)
    assert dockerd.leases() == {first.partition("/")[0]: "endpoint"}
    dockerd.leave(both, first)
    wait_until(lambda: not dockerd.leases(), "the address is free", 5)


def test_what_docker_gives_back_goes_in_order(dockerd: Dockerd) -> None:
    address = dockerd.request()
    both = dockerd.create(address)
    dockerd.join(both)
    with dockerd.slow_database():
        dockerd.leave(both, address)  # answered
    wait_until(lambda: not dockerd.leases(), "the endpoint has gone, and then its address", 5)
    assert not dockerd.stack.endpoints()
    assert dockerd.stack.cli("ipam", "check", check=False).returncode == 0


def test_a_network_goes_after_its_last_endpoint(dockerd: Dockerd) -> None:
    """`docker network rm` on the heels of a disconnect."""
    address = dockerd.request()
    both = dockerd.create(address)
    dockerd.join(both)
    with ThreadPoolExecutor() as others:
        with dockerd.slow_database():
            dockerd.leave(both, address)
            removed = others.submit(dockerd.call, "NetworkDriver.DeleteNetwork", NetworkID=NETWORK)
            with pytest.raises(TimeoutError):
                removed.result(0.3)
        removed.result(10)
    assert not dockerd.stack.show("network", "ls")


def test_an_address_without_an_endpoint_is_docker_s(dockerd: Dockerd) -> None:
    address = dockerd.request()
    wait_until(lambda: dockerd.leases() == {address.partition("/")[0]: "docker"}, "it is written by itself", 5)
    dockerd.release(address)
    wait_until(lambda: not dockerd.leases(), "the address is free", 5)


@pytest.mark.parametrize("moment", ["before CreateEndpoint", "before Join", "before ReleaseAddress"])
def test_dead_between_two_calls(dockerd: Dockerd, moment: str) -> None:
    """What Docker was told holds when the next ovsnetd is asked."""

    def die(now: str) -> None:
        if now == moment:
            dockerd.stack.kill9()
            dockerd.stack.start()

    address = dockerd.request()
    die("before CreateEndpoint")
    both = dockerd.create(address)
    die("before Join")
    link = dockerd.join(both)
    assert dockerd.stack.host.ip("link", "show", "dev", link)
    assert dockerd.leases() == {address.partition("/")[0]: "endpoint"}
    dockerd.call("NetworkDriver.Leave", **both)
    dockerd.call("NetworkDriver.DeleteEndpoint", **both)
    die("before ReleaseAddress")
    for endpoint in dockerd.stack.endpoints():  # it died before the row was gone, and the reaper would find it
        dockerd.call("NetworkDriver.DeleteEndpoint", **both | {"EndpointID": endpoint["container"]})
    dockerd.release(address)
    wait_until(lambda: not dockerd.leases(), "the address is free", 5)


def test_a_container_of_cni_gets_another_address(dockerd: Dockerd, netns: Callable[[], Netns]) -> None:
    address = dockerd.request().partition("/")[0]
    space = netns()
    name = dockerd.stack.show("network", "ls")[0]["name"]
    given = dockerd.stack.cni("ADD", space.name, space, dockerd.stack.conf(name))
    assert given.ok, given
    (row,) = dockerd.stack.endpoints()
    assert row["addresses"] != [f"{address}/24"]
    assert dockerd.stack.cni("DEL", space.name, space, dockerd.stack.conf(name)).ok
    dockerd.release(address)
    wait_until(lambda: not dockerd.leases(), "all are free", 5)
