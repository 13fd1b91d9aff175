"""What Docker finds where a link was: `docker network disconnect` with a real dockerd, and a Leave that nothing comes after."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness import IMAGE, Dockerd, Netns, Stack, wait_until

from .containers import create_network, refusals, start_container

pytestmark = pytest.mark.usefixtures("nothing_left")

BLUE, GREEN = "10.94.1.0/24", ("10.94.2.0/24", "fd94:2::/64")
NETWORK, ENDPOINT = secrets.token_hex(32), secrets.token_hex(32)


def interfaces(dockerd: Dockerd, name: str) -> set[str]:
    """What a container has."""
    return set(dockerd.docker("exec", name, "ls", "/sys/class/net").stdout.split())


def default_route(dockerd: Dockerd, name: str) -> str:
    """A container's route for all that is elsewhere, as `ip` shows it."""
    shown = dockerd.docker("exec", name, "ip", "route", "show").stdout
    return next((line.strip() for line in shown.splitlines() if line.startswith("default")), "")


def test_docker_takes_the_stand_in_away(stack: Stack, dockerd: Dockerd) -> None:
    begin = stack.log.stat().st_size
    create_network(dockerd, stack, "blue", BLUE)
    create_network(dockerd, stack, "green", *GREEN)
    start_container(dockerd, "web", "blue")
    for number in range(1, 4):  # Docker 20.10 counts on, with every driver
        dockerd.docker("network", "connect", "green", "web")
        assert f"eth{number}" in interfaces(dockerd, "web")
        assert dockerd.pings("web", "10.94.2.1")
        assert dockerd.pings("web", "fd94:2::1")
        dockerd.docker("network", "disconnect", "green", "web")
        assert f"eth{number}" not in interfaces(dockerd, "web")  # later it would have gone by itself
        assert dockerd.pings("web", "10.94.1.1")
    wait_until(lambda: interfaces(dockerd, "web") == {"lo", "eth0"}, "the links that it had are gone", 10)
    dockerd.docker("network", "connect", "green", "web")
    dockerd.docker("network", "disconnect", "blue", "web")
    assert default_route(dockerd, "web") == "default via 10.94.2.1 dev eth4"
    assert dockerd.pings("web", "10.94.2.1")
    dockerd.docker("network", "connect", "blue", "web")
    dockerd.docker("network", "disconnect", "green", "web")
    assert default_route(dockerd, "web") == "default via 10.94.1.1 dev eth5"
    assert dockerd.pings("web", "10.94.1.1")
    # A port without anti-spoofing is removed, not kept for the next one.
    create_network(dockerd, stack, "grey", "10.94.3.0/24", options=("ovsnet.anti-spoofing=false",))
    dockerd.docker("network", "connect", "grey", "web")
    dockerd.docker("network", "disconnect", "grey", "web")
    dockerd.docker("run", "--rm", "--network", "blue", IMAGE, "true")
    dockerd.docker("rm", "--force", "web")
    assert refusals(stack, begin) == []
    wait_until(lambda: not taps(stack), "no stand-in is left", 10)
    assert b"sets the link" not in stack.log.read_bytes()[begin:]


def taps(stack: Stack) -> list[str]:
    """The taps of the host that are not vswitchd's."""
    rows = json.loads(stack.host.run("ip", "-d", "-j", "link", "show").stdout)
    ports = set(stack.ovs.vsctl("--bare", "--columns=name", "list", "Interface").split())
    kinds = {row.get("ifname"): row.get("linkinfo", {}).get("info_kind") for row in rows}
    return [name for name, kind in kinds.items() if kind == "tun" and name not in ports and not name.startswith("ovs-")]


class Player:
    """A dockerd with one container."""

    def __init__(self, stack: Stack, box: Netns) -> None:
        self.stack = stack
        self.box = box
        self.both = {"NetworkID": NETWORK, "EndpointID": ENDPOINT}
        asked = {"AddressSpace": "ovsnet", "Pool": BLUE, "SubPool": "", "Options": None, "V6": False}
        self.pool = stack.docker_call("IpamDriver.RequestPool", **asked)["PoolID"]
        kind = {"RequestAddressType": "com.docker.network.gateway"}
        self.call("IpamDriver.RequestAddress", PoolID=self.pool, Address="10.94.1.1", Options=kind)
        data = [{"AddressSpace": "ovsnet", "Pool": BLUE, "Gateway": "10.94.1.1/24"}]
        self.call("NetworkDriver.CreateNetwork", NetworkID=NETWORK, Options={}, IPv4Data=data, IPv6Data=[])
        self.address = self.call("IpamDriver.RequestAddress", PoolID=self.pool, Address="", Options=None)["Address"]
        interface = {"Address": self.address, "AddressIPv6": "", "MacAddress": ""}
        self.call("NetworkDriver.CreateEndpoint", **self.both, Interface=interface, Options={})

    def call(self, method: str, **body: Any) -> dict[str, Any]:
        """The answer, which is no error."""
        answer = self.stack.docker_call(method, **body)
        assert not answer.get("Err"), (method, answer)
        return answer

    def join(self) -> None:
        """Join, and what Docker does then."""
        told = self.call("NetworkDriver.Join", **self.both, SandboxKey=str(self.box.path), Options=None)
        link = told["InterfaceName"]["SrcName"]
        self.stack.host.run("ip", "link", "set", link, "netns", self.box.name, "name", "eth0")
        self.box.run("ip", "address", "add", self.address, "dev", "eth0")
        self.box.run("ip", "link", "set", "eth0", "up")
        wait_until(lambda: self.stack.endpoints()[0]["sandbox"] == str(self.box.path), "it is known where it is", 5)

    def end(self) -> None:
        """DeleteEndpoint and the rest."""
        self.call("NetworkDriver.DeleteEndpoint", **self.both)
        self.call("IpamDriver.ReleaseAddress", PoolID=self.pool, Address=self.address.partition("/")[0])
        self.call("NetworkDriver.DeleteNetwork", NetworkID=NETWORK)
        self.call("IpamDriver.ReleaseAddress", PoolID=self.pool, Address="10.94.1.1")
        self.call("IpamDriver.ReleasePool", PoolID=self.pool)


@pytest.fixture
def player(stack: Stack, netns: Callable[[], Netns]) -> Player:
    """What a failed test leaves of it is removed by `nothing_left`."""
    return Player(stack, netns())


def links(player: Player) -> set[str]:
    """What the container has."""
    return {row["ifname"] for row in player.box.ip("link", "show")}


def test_a_leave_that_nothing_comes_after(player: Player) -> None:
    """The container is out of the network at once, and a while later all is as before Join."""
    player.join()
    assert player.box.pings("10.94.1.1")
    player.call("NetworkDriver.Leave", **player.both)
    assert not player.box.pings("10.94.1.1", wait=0.3)
    assert "eth0" in links(player)
    wait_until(lambda: links(player) == {"lo"}, "its link is taken back", 20)
    wait_until(lambda: player.stack.cli("ipam", "check", check=False).returncode == 0, "all agrees", 20)
    player.join()
    assert player.box.pings("10.94.1.1")
    player.call("NetworkDriver.Leave", **player.both)
    player.call("NetworkDriver.Leave", **player.both)
    (endpoint,) = player.stack.endpoints()
    player.stack.cli("endpoint", "quarantine", endpoint["id"])
    wait_until(lambda: links(player) == {"lo"}, "its link is taken back", 20)
    player.join()
    assert not player.box.pings("10.94.1.1", wait=0.3)
    player.stack.cli("endpoint", "quarantine", "--off", endpoint["id"])
    assert player.box.pings("10.94.1.1")
    player.call("NetworkDriver.Leave", **player.both)
    player.end()


def test_join_on_the_heels_of_leave(player: Player) -> None:
    player.join()
    player.call("NetworkDriver.Leave", **player.both)
    player.join()
    assert player.box.pings("10.94.1.1")
    player.call("NetworkDriver.Leave", **player.both)
    player.end()


def test_killed_between_leave_and_delete(player: Player) -> None:
    player.join()
    player.call("NetworkDriver.Leave", **player.both)
    player.stack.kill9()
    assert "eth0" not in links(player), "a stand-in outlives who made it"
    player.stack.start()
    player.end()
    wait_until(lambda: links(player) == {"lo"}, "the link that it had is gone", 20)
