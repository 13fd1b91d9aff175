"""The host is rebooted: namespaces, devices, rules and /run are gone, the databases are not, and it is another boot."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FaultRow
from tests.harness import CommandFailed, Netns, Ovs, Stack, wait_until

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.faults]

NewNetns = Callable[[], Netns]

CNI, DOCKER, GATEWAY, DOCKERS_GATEWAY = "10.94.1.0/24", "10.94.2.0/24", "10.94.1.1", "10.94.2.1"
NETWORK_ID, ENDPOINT_ID = "5eb007" * 10, "e9d" * 20


def reboot(stack: Stack, ovs: Ovs, spaces: list[Netns]) -> None:
    """What a power failure leaves, and a start."""
    stack.kill9()
    stack.sweep()  # its state server
    ovs.vswitchd.kill9()
    ovs.server.kill9()
    for space in spaces:
        space.delete()
    for link in stack.host.ip("link", "show"):
        if link["ifname"] != "lo":
            with suppress(CommandFailed):  # it went with another one
                stack.host.run("ip", "link", "delete", link["ifname"])
    stack.host.run("nft", "flush", "ruleset")
    shutil.rmtree(stack.socket.parent)
    stack.docker_socket.unlink()
    Path(stack.settings["boot_id_file"]).write_text(f"{uuid.uuid4()}\n")
    ovs.ensure()
    stack.start()


def owned(stack: Stack) -> dict[str, int]:
    """How many switch ports of ours there are of each role, but for the spares that come and go."""
    found: dict[str, int] = {}
    for line in stack.ovs.vsctl("--bare", "--columns=external_ids", "list", "port").splitlines():
        if f"ovsnet-owner={stack.prefix}" in line and "ovsnet-role=spare" not in line:
            role = line.partition("ovsnet-role=")[2].partition(" ")[0]
            found[role] = found.get(role, 0) + 1
    return found


def leases(stack: Stack) -> dict[str, str]:
    """Addresses that are given out, and to what."""
    return {one["address"]: one["owner"]["kind"] for one in stack.show("ipam", "show")}


def docker_reserves(stack: Stack) -> dict[str, Any]:
    """A network of Docker's, and an endpoint with an address on it; what has to be given back."""
    pool = stack.docker_call(
        "IpamDriver.RequestPool", AddressSpace="ovsnet", Pool=DOCKER, SubPool="", Options=None, V6=False
    )
    kind = {"RequestAddressType": "com.docker.network.gateway"}
    gateway = stack.docker_call("IpamDriver.RequestAddress", PoolID=pool["PoolID"], Address="", Options=kind)
    data = {"AddressSpace": "ovsnet", "Pool": DOCKER, "Gateway": gateway["Address"]}
    made = stack.docker_call(
        "NetworkDriver.CreateNetwork", NetworkID=NETWORK_ID, Options={}, IPv4Data=[data], IPv6Data=[]
    )
    assert not made.get("Err"), made
    address = stack.docker_call("IpamDriver.RequestAddress", PoolID=pool["PoolID"], Address="", Options=None)
    interface = {"Address": address["Address"], "AddressIPv6": "", "MacAddress": ""}
    where = {"NetworkID": NETWORK_ID, "EndpointID": ENDPOINT_ID}
    made = stack.docker_call("NetworkDriver.CreateEndpoint", **where, Interface=interface, Options={})
    assert not made.get("Err"), made
    joined = stack.docker_call("NetworkDriver.Join", **where, SandboxKey="/run/netns/was-there-before", Options={})
    assert not joined.get("Err"), joined
    wait_until(lambda: owned(stack).get("endpoint"), "its port is marked, behind the answer", 5)
    return {"pool": pool["PoolID"], "address": address["Address"].partition("/")[0], **where}


def docker_returns(stack: Stack, held: dict[str, Any]) -> None:
    """What dockerd does with a container that died with the host, and at last with its network."""
    where = {key: held[key] for key in ("NetworkID", "EndpointID")}
    for method, body in (
        ("NetworkDriver.Leave", where),
        ("NetworkDriver.DeleteEndpoint", where),
        ("IpamDriver.ReleaseAddress", {"PoolID": held["pool"], "Address": held["address"]}),
        ("NetworkDriver.DeleteNetwork", {"NetworkID": NETWORK_ID}),
        ("IpamDriver.ReleaseAddress", {"PoolID": held["pool"], "Address": DOCKERS_GATEWAY}),
        ("IpamDriver.ReleasePool", {"PoolID": held["pool"]}),
    ):
        answer = stack.docker_call(method, **body)
        assert not answer.get("Err"), (method, answer)


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.whole)])
def test_a_reboot_leaves_nothing(stack: Stack, ovs: Ovs, netns: NewNetns, fault_row: FaultRow, rounds: int) -> None:
    held = docker_reserves(stack)
    kept = {DOCKERS_GATEWAY: "gateway", held["address"]: "endpoint", GATEWAY: "gateway"}
    published = {"portMappings": [{"hostPort": 8094, "containerPort": 80, "protocol": "tcp"}]}
    settings = stack.conf("boot", subnet=CNI) | {"ipMasq": True, "capabilities": {"portMappings": True}}
    leaked, back = 0, 0.0
    for number in range(rounds):
        spaces = [netns() for _ in range(3)]
        for space in spaces:
            more = {"runtimeConfig": published} if space is spaces[0] else {}
            assert stack.cni("ADD", space.name, space, settings | more).ok
        assert len(leases(stack)) == len(kept) + len(spaces)
        down = time.monotonic()
        reboot(stack, ovs, spaces)
        back = max(back, time.monotonic() - down)
        left = {row["container"] for row in stack.endpoints()} - {ENDPOINT_ID}
        leaked += len(left) + len(leases(stack).items() ^ kept.items())
        leaked += sum(owned(stack).values()) - len({"two gateways", "and", "Docker's port"})
        assert leaked == 0, (number, left, leases(stack), owned(stack))
        assert stack.cli("ipam", "check", check=False).returncode == 0
        # Gateways are there again, and so is the way to them.
        assert stack.host.pings(GATEWAY)
        assert stack.host.pings(DOCKERS_GATEWAY)
        rules = stack.host.run("nft", "list", "ruleset").stdout
        assert "masquerade" in rules
        assert "8094" not in rules
        fresh = netns()
        assert stack.cni("ADD", fresh.name, fresh, settings).ok
        assert fresh.pings(GATEWAY)
        assert stack.cni("DEL", fresh.name, fresh, settings).ok
    docker_returns(stack, held)
    stack.cli("network", "rm", "boot")
    fault_row(
        fault="host rebooted", rounds=rounds, leaked=leaked, back=back, gate="0 leaks, Docker's reservations kept"
    )
