"""Two controllers of two hosts over one state database, and everybody wants an address at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from cni.errors import ERROR_CODES
from ovsnet.client import Client
from ovsnet.errors import InvalidRequest, PoolExhausted
from tests.harness import Netns, Ovs, Stack, wait_until

AT_ONCE = 32
EXHAUSTED = ERROR_CODES["pool-exhausted"]


@pytest.fixture
def second(stack: Stack, token: str, directory: Path) -> Iterator[Stack]:
    """ovsnetd of another host, with a switch of its own, over the first one's state database."""
    with ExitStack() as undo:
        host = Netns(f"{token}-host2")
        undo.callback(host.delete)
        place = directory / "second"
        place.mkdir()
        undo.callback(shutil.rmtree, place)
        ovs = Ovs(host, place / "ovs")
        undo.callback(ovs.close)
        ovs.ensure()
        state = f"unix:{stack.socket.parent / 'state.sock'}"
        docker = f"/run/docker/plugins/ovsnet-{token}-2.sock"
        other = Stack(
            host, ovs, token, place / "ovsnetd", node=f"{token}-2", state_remotes=[state], docker_socket=docker
        )
        undo.callback(other.close)
        other.start()
        yield other


def test_254_requests_for_a_24(stack: Stack, second: Stack, netns: Callable[[], Netns]) -> None:
    stack.cli("network", "create", "tight", "--subnet", "10.66.0.0/24")
    pool = stack.show("pool", "show", "tight")
    spaces = [netns() for _ in range(8)]
    exhausted: list[str] = []

    def by_cni(number: int) -> str | None:
        here = (stack, second)[number % 2]
        done = here.cni("ADD", f"c{number}", spaces[number % 8], here.conf("tight"), ifname=f"e{number}")
        if done.ok:
            return done.addresses[0].partition("/")[0]
        assert done.output["code"] == EXHAUSTED, done.output
        exhausted.append("cni")
        return None

    def by_docker(number: int) -> str | None:
        here = (stack, second)[number % 2]
        answer = here.docker_call("IpamDriver.RequestAddress", PoolID=pool["id"], Address="", Options=None)
        if "Address" in answer:
            return str(answer["Address"]).partition("/")[0]
        assert "no free address" in answer["Error"], answer
        exhausted.append("docker")
        return None

    def by_rest(number: int) -> str | None:
        here = (stack, second)[number % 2]
        try:
            return Client(str(here.socket)).reserve("tight", f"r{number}")["address"]
        except PoolExhausted:
            exhausted.append("rest")
            return None

    kinds = (by_cni, by_docker, by_rest)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        given = [one for one in threads.map(lambda number: kinds[number % 3](number), range(254)) if one]
    assert len(given) == len(set(given)) == 253
    assert set(given) == {f"10.66.0.{host}" for host in range(2, 255)}
    assert len(exhausted) == 1
    late = stack.cni("ADD", "late", spaces[0], stack.conf("tight"))
    assert (late.ok, late.output["code"]) == (False, EXHAUSTED)
    assert second.cni("DEL", "c3", spaces[3], second.conf("tight"), ifname="e3").ok
    again = stack.cni("ADD", "late", spaces[0], stack.conf("tight"))
    assert again.ok, again.output
    _take_all_back(stack, second, pool["id"])


def test_a_pool_grows_on_all_hosts(stack: Stack, second: Stack, netns: Callable[[], Netns]) -> None:
    """Gateways and rules follow it where the network is, and nothing is made where it is not."""
    client = Client(str(stack.socket))
    client.create_network("grows", subnets=["10.67.0.0/25"], masquerade=True)
    client.create_network("elsewhere", subnets=["10.68.0.0/25"], masquerade=True, bridge=f"{stack.prefix}grow")
    space, conf = netns(), stack.conf("grows")
    assert second.cni("ADD", "c1", space, conf).ok

    def follows(here: Stack) -> bool:
        addresses = {
            (one["local"], one["prefixlen"]) for link in here.host.ip("address", "show") for one in link["addr_info"]
        }
        return ("10.67.0.1", 24) in addresses and "10.67.0.0/24" in here.host.run("nft", "list", "ruleset").stdout

    Client(str(second.socket)).change_pool("grows", subnet="10.67.0.0/24")
    assert follows(second)
    assert client.reconcile()["ok"]  # as the timer would
    assert follows(stack)
    Client(str(second.socket)).change_pool("elsewhere", subnet="10.68.0.0/24")  # of a bridge that it does not have
    assert second.ovs.vsctl("list-br").split() == [second.bridge]
    assert second.cni("DEL", "c1", space, conf).ok
    for name in ("grows", "elsewhere"):
        client.delete_network(name)


def _take_all_back(stack: Stack, second: Stack, pool: str) -> None:
    """Each by the way that it was given, so that nothing is left."""
    for endpoint in stack.endpoints():
        here = stack if endpoint["node"] == stack.prefix else second
        assert here.cni(
            "DEL", endpoint["container"], endpoint["sandbox"], here.conf("tight"), ifname=endpoint["ifname"]
        ).ok
    client = Client(str(stack.socket))
    for name in client.pool("tight")["reservations"]:
        client.release_reservation("tight", name)
    for lease in client.leases("tight"):
        for here in (stack, second):  # each takes back what its own Docker was given
            here.docker_call("IpamDriver.ReleaseAddress", PoolID=pool, Address=lease["address"])
    wait_until(lambda: [one["owner"]["kind"] for one in client.leases("tight")] == ["gateway"], "they are released")
    stack.cli("network", "rm", "tight")


@pytest.mark.whole
def test_a_network_gets_another_tag_on_all_hosts(stack: Stack, second: Stack, netns: Callable[[], Netns]) -> None:
    here, there = Client(str(stack.socket)), Client(str(second.socket))
    made = here.create_network("moved", subnets=["10.67.0.0/24"])
    space = netns()
    assert second.cni("ADD", "far", space, second.conf("moved")).ok
    (row,) = there.endpoints("moved")
    with pytest.raises(InvalidRequest, match=second.prefix):
        here.change_endpoint(row["id"], vlan=7)
    new = 3999 if made["vlan"] == 4000 else 4000

    def followed() -> bool:
        tagged = second.ovs.vsctl("--bare", "--columns=name", "find", "Port", f"tag={new}").split()
        old = second.ovs.vsctl("--bare", "--columns=name", "find", "Port", f"tag={made['vlan']}").split()
        return row["port"] in tagged and not old  # the spares, too

    here.change_network("moved", vlan=new)
    wait_until(followed, "the other host follows", 30)  # what was attached a moment ago is left alone at first
    assert space.pings("10.67.0.1")
    assert there.check()["ok"]
    assert second.cni("DEL", "far", space, second.conf("moved")).ok
    here.delete_network("moved")


def test_only_its_own_host_s_docker_gives_an_address_back(stack: Stack, second: Stack) -> None:
    """The other's may have been told of it as well, in the moment in which both took it, and been refused an endpoint of it."""
    stack.cli("network", "create", "both", "--subnet", "10.69.0.0/24")
    pool = stack.show("pool", "show", "both")["id"]
    given = second.docker_call("IpamDriver.RequestAddress", PoolID=pool, Address="", Options=None)["Address"]
    address = given.partition("/")[0]
    client = Client(str(stack.socket))

    def held() -> list[str]:
        return [one["address"] for one in client.leases("both") if one["owner"]["kind"] == "docker"]

    for here in (stack, second):
        wait_until(lambda: held() == [address], "it is the other's, and stays that")
        assert not here.docker_call("IpamDriver.ReleaseAddress", PoolID=pool, Address=address).get("Err")
        client.check()  # comes after what goes on behind the answer
    wait_until(lambda: not held(), "its own has given it back")
    stack.cli("network", "rm", "both")
