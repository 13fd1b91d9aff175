"""Networks without IPv4, which Docker has since 28: what it sends, played on the wire, and what its containers then reach."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from tests.harness import Netns, Stack, wait_until
from tests.system.published import HOST6, OUTSIDE6, PYTHON, SERVER, ask

pytestmark = pytest.mark.usefixtures("nothing_left")

NETWORK, ENDPOINT = "6" * 64, "e6" * 32
SUBNET, GATEWAY, ADDRESS = "fd96:6::/64", "fd96:6::1", "fd96:6::2"
PORTS = [{"Proto": 6, "IP": "", "Port": 80, "HostIP": "::", "HostPort": 18086, "HostPortEnd": 18086}]


class Newer:
    """A dockerd of 28 or newer with one container: what it asks, in its order."""

    def __init__(self, stack: Stack, box: Netns) -> None:
        self.box = box
        self._stack = stack
        self._pool = ""

    def ask(self, method: str, **body: Any) -> dict[str, Any]:
        """One call that must succeed."""
        answer = self._stack.docker_call(method, **body)
        assert not answer.get("Err"), (method, answer)
        return answer

    def create(self) -> None:
        """`docker network create --ipv4=false --ipv6 --subnet`."""
        options = {
            "com.docker.network.enable_ipv4": False,
            "com.docker.network.enable_ipv6": True,
            "com.docker.network.generic": {"ovsnet.name": "six"},
        }
        skipped = self.ask("NetworkDriver.GwAllocCheck", Options=options)
        assert skipped == {"SkipIPv4": False, "SkipIPv6": False}
        pool = self.ask("IpamDriver.RequestPool", AddressSpace="ovsnet", Pool=SUBNET, SubPool="", Options={}, V6=True)
        self._pool = pool["PoolID"]
        gateway = {"RequestAddressType": "com.docker.network.gateway"}
        given = self.ask("IpamDriver.RequestAddress", PoolID=self._pool, Address="", Options=gateway)
        assert given["Address"] == f"{GATEWAY}/64"
        data = {"AddressSpace": "ovsnet", "Pool": SUBNET, "Gateway": given["Address"]}
        self.ask("NetworkDriver.CreateNetwork", NetworkID=NETWORK, Options=options, IPv4Data=None, IPv6Data=[data])

    def start(self) -> None:
        """`docker run -p`, with what Docker itself does to the link."""
        ids = {"NetworkID": NETWORK, "EndpointID": ENDPOINT}
        options = {"com.docker.network.portmap": PORTS}
        given = self.ask("IpamDriver.RequestAddress", PoolID=self._pool, Address="", Options={})
        assert given["Address"] == f"{ADDRESS}/64"
        interface = {"Address": "", "AddressIPv6": given["Address"], "MacAddress": ""}
        made = self.ask("NetworkDriver.CreateEndpoint", **ids, Interface=interface, Options=options)["Interface"]
        assert (made.get("Address", ""), bool(made["MacAddress"])) == ("", True)
        join = self.ask("NetworkDriver.Join", **ids, SandboxKey=str(self.box.path), Options=options)
        assert (join["Gateway"], join["GatewayIPv6"]) == ("", GATEWAY)
        self._stack.host.run(
            "ip", "link", "set", join["InterfaceName"]["SrcName"], "netns", self.box.name, "name", "eth0"
        )
        self.box.run("ip", "address", "add", given["Address"], "dev", "eth0", "nodad")
        self.box.run("ip", "link", "set", "eth0", "up")
        self.box.run("ip", "-6", "route", "add", "default", "via", GATEWAY)
        self.ask("NetworkDriver.ProgramExternalConnectivity", **ids, Options=options)

    def stop(self) -> None:
        """`docker rm --force`."""
        ids = {"NetworkID": NETWORK, "EndpointID": ENDPOINT}
        for method in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint"):
            self.ask(f"NetworkDriver.{method}", **ids)
        self.ask("IpamDriver.ReleaseAddress", PoolID=self._pool, Address=ADDRESS)

    def remove(self) -> None:
        """`docker network rm`."""
        self.ask("NetworkDriver.DeleteNetwork", NetworkID=NETWORK)
        self.ask("IpamDriver.ReleaseAddress", PoolID=self._pool, Address=GATEWAY)
        self.ask("IpamDriver.ReleasePool", PoolID=self._pool)


@pytest.fixture
def newer(stack: Stack, netns: Callable[[], Netns]) -> Newer:
    """That dockerd; what a failed test leaves is removed with everything else by `nothing_left`."""
    return Newer(stack, netns())


def test_a_network_without_ipv4(stack: Stack, newer: Newer, outside: Netns) -> None:
    newer.create()
    newer.start()
    (network,) = stack.show("network", "ls")
    assert (network["subnets"], network["gateways"]) == ([SUBNET], [f"{GATEWAY}/64"])
    (endpoint,) = stack.endpoints()
    assert endpoint["addresses"] == [f"{ADDRESS}/64"]
    assert newer.box.pings(GATEWAY)
    with ExitStack() as undo:
        for where, name in ((newer.box, "web"), (outside, "out")):
            argv = where.argv(PYTHON, "-ISc", SERVER, name, "SOCK_STREAM", "80")
            server = undo.enter_context(subprocess.Popen(argv, stdin=subprocess.DEVNULL))
            undo.callback(server.kill)
            wait_until(lambda here=where: ":80 " in here.run("ss", "-Hltn").stdout, "the server listens")  # type: ignore[misc]
        assert ask(outside, HOST6, 18086) == f"web {OUTSIDE6}"
        assert ask(newer.box, OUTSIDE6, 80) == f"out {HOST6}"
    assert stack.cli("ipam", "check").returncode == 0
    newer.stop()
    assert stack.endpoints() == []
    newer.remove()
