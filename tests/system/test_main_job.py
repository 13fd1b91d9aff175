"""The main job: containers of Docker and of a CNI runtime on one network, each of them whole, alone and gone without a trace."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv6Address

import pytest

from tests.harness import Dockerd, Ovs, Stack, wait_until
from tests.system.containers import Pod, Reach, create_network, start_container, unanswered

pytestmark = pytest.mark.usefixtures("nothing_left")

BLUE, BLUE_GATEWAY = "10.91.1.0/24", "10.91.1.1"
GREEN, GREEN_GATEWAY = "10.91.2.0/24", "10.91.2.1"
GREEN6, GREEN6_GATEWAY = "fd91:2::/64", "fd91:2::1"

NewPod = Callable[[], Pod]


@pytest.fixture
def blue(dockerd: Dockerd, stack: Stack) -> str:
    """A network that Docker made, and its name on both sides."""
    create_network(dockerd, stack, "blue", BLUE)
    return "blue"


def test_everybody_reaches_everybody(dockerd: Dockerd, stack: Stack, blue: str, pod: NewPod) -> None:
    names, pods = ("web", "db"), (pod(), pod())
    members: dict[str, Reach] = {start_container(dockerd, name, blue): partial(dockerd.pings, name) for name in names}
    members |= {each.attach(stack.conf(blue)): each.pings for each in pods}
    assert len(members) == 4
    assert unanswered(members, BLUE_GATEWAY) == []
    assert not dockerd.pings("web", "10.91.1.250", wait=1)  # nobody's: silence is noticed
    assert not pods[0].pings("10.91.1.250", wait=1)


def test_endpoints_are_told(dockerd: Dockerd, stack: Stack, ovs: Ovs, blue: str, pod: NewPod) -> None:
    web, box = start_container(dockerd, "web", blue), pod()
    address = box.attach(stack.conf(blue))
    rows = {row["addresses"][0]: row for row in stack.endpoints()}
    assert {entry.partition(" ")[0] for entry in stack.leftovers()} == {"endpoint", "network", "pool", "port", "link"}
    assert rows.keys() == {f"{web}/24", f"{address}/24"}
    of_docker, of_cni = rows[f"{web}/24"], rows[f"{address}/24"]

    vlan = stack.show("network", "show", blue)["vlan"]
    for row in (of_docker, of_cni):
        assert (row["network"], row["vlan"], row["bridge"]) == (blue, vlan, stack.bridge)
        assert ovs.vsctl("get", "Port", row["port"], "tag") == str(vlan)
        assert ovs.vsctl("port-to-br", row["port"]) == stack.bridge

    docker = dockerd.inspect("web")["NetworkSettings"]
    assert of_docker["mac"] == docker["Networks"][blue]["MacAddress"]
    assert of_docker["owner"] == {
        "kind": "docker",
        "container": docker["Networks"][blue]["EndpointID"],
        "ifname": "",
        "sandbox": docker["SandboxKey"],
    }
    assert of_cni["mac"] == box.shown()["address"]
    assert of_cni["owner"] == {"kind": "cni", "container": box.id, "ifname": "eth0", "sandbox": str(box.netns.path)}


def test_vlans_are_isolated(dockerd: Dockerd, stack: Stack, ovs: Ovs, pod: NewPod) -> None:
    blue = "blue"
    create_network(dockerd, stack, blue, BLUE, options=["ovsnet.anti-spoofing=false"])
    web, mine, stranger = start_container(dockerd, "web", blue), pod(), pod()
    my_address, strange_address = (
        mine.attach(stack.conf(blue)),
        stranger.attach(stack.conf("green", subnet=GREEN) | {"antiSpoofing": False}),
    )
    tags = {name: stack.show("network", "show", name)["vlan"] for name in (blue, "green")}
    assert tags[blue] != tags["green"]
    # They can all ping, and the host forwards.
    assert mine.pings(web)
    assert dockerd.pings("web", BLUE_GATEWAY)
    assert stranger.pings(GREEN_GATEWAY)
    assert stack.host.run("sysctl", "-n", "net.ipv4.ip_forward").stdout.strip() == "1"

    assert not stranger.pings(web, wait=1)
    assert not stranger.pings(my_address, wait=1)
    assert not mine.pings(strange_address, wait=1)
    assert not dockerd.pings("web", strange_address, wait=1)

    # Without a router between them: each has an address of the other's subnet.
    mine.netns.run("ip", "address", "add", "10.91.2.200/24", "dev", "eth0")
    stranger.netns.run("ip", "address", "add", "10.91.1.200/24", "dev", "eth0")

    def reached() -> tuple[bool, bool]:
        return mine.pings(strange_address, wait=1), stranger.pings(my_address, wait=1)

    (port,) = (row["port"] for row in stack.endpoints() if row["container"] == stranger.id)
    assert reached() == (False, False)
    with stack.paused():  # or it would mend this
        ovs.vsctl("set", "Port", port, f"tag={tags[blue]}")  # it is the tag that parts them, nothing else
        wait_until(lambda: reached() == (True, True), "they reach each other")
        ovs.vsctl("set", "Port", port, f"tag={tags['green']}")
    assert reached() == (False, False)


def test_the_same_add_again(stack: Stack, pod: NewPod) -> None:
    conf, box, other = stack.conf("green", subnet=GREEN), pod(), pod()
    first = box.add(conf)
    assert first.ok, first
    before = box.shown(), stack.endpoints()
    assert box.add(conf) == first
    assert (box.shown(), stack.endpoints()) == before
    assert other.attach(conf) != first.addresses[0]
    assert other.pings(first.addresses[0])


def test_del_twice(stack: Stack, pod: NewPod) -> None:
    conf, box, other = stack.conf("green", subnet=GREEN), pod(), pod()
    box.attach(conf)
    address = other.attach(conf)
    for _ in range(2):
        assert box.delete(conf).ok
        assert [row["container"] for row in stack.endpoints()] == [other.id]
        assert "eth0" not in [link["ifname"] for link in box.netns.ip("link")]
        wait_until(
            lambda: [link["ifname"] for link in box.netns.ip("link", "show", "up")] == ["lo"], "the link is gone"
        )
    assert other.pings(GREEN_GATEWAY)
    assert box.attach(conf) != address  # the name is free again
    assert box.pings(address)


@pytest.mark.parametrize("told", [True, False], ids=["path", "no-path"])
def test_del_after_the_netns_is_gone(stack: Stack, pod: NewPod, told: bool) -> None:
    conf, box, other = stack.conf("green", subnet=GREEN), pod(), pod()
    box.attach(conf)
    other.attach(conf)
    box.netns.delete()
    assert len(stack.endpoints()) == 2
    assert box.delete(conf, netns=None if told else "").ok
    assert [row["container"] for row in stack.endpoints()] == [other.id]
    assert other.pings(GREEN_GATEWAY)


def test_del_of_what_was_never_added(stack: Stack, pod: NewPod) -> None:
    conf, box, other = stack.conf("green", subnet=GREEN), pod(), pod()
    address = other.attach(conf)
    before = stack.endpoints()
    assert box.delete(conf).ok
    assert box.delete(stack.conf("nowhere")).ok
    assert other.delete(conf, "eth7").ok
    assert stack.endpoints() == before
    assert box.attach(conf) != address
    assert box.pings(address)


def test_docker_restart(dockerd: Dockerd, stack: Stack, blue: str, pod: NewPod) -> None:
    before, box = start_container(dockerd, "web", blue), pod()
    other = box.attach(stack.conf(blue))
    assert box.pings(before)
    endpoint = dockerd.inspect("web")["NetworkSettings"]["Networks"][blue]["EndpointID"]
    dockerd.docker("restart", "web")
    assert dockerd.inspect("web")["NetworkSettings"]["Networks"][blue]["EndpointID"] != endpoint
    after = dockerd.address("web", blue)
    assert {row["addresses"][0] for row in stack.endpoints()} == {f"{after}/24", f"{other}/24"}
    assert unanswered({after: partial(dockerd.pings, "web"), other: box.pings}, BLUE_GATEWAY) == []


def test_dual_stack_by_cni(stack: Stack, pod: NewPod) -> None:
    conf = stack.conf("green", ranges=[[{"subnet": GREEN}], [{"subnet": GREEN6}]])
    one, other = pod(), pod()
    four, six = one.add(conf).addresses
    assert one.pings(GREEN6_GATEWAY)  # the first packet after the ADD
    assert IPv6Address(six)
    result = other.add(conf)
    assert other.pings(six)
    assert other.pings(four)
    assert one.pings(result.addresses[1])
    shown = {address["local"] for address in other.shown()["addr_info"] if address["scope"] == "global"}
    assert shown == set(result.addresses)
    assert len({four, six, *result.addresses}) == 4


def test_dual_stack_by_docker(dockerd: Dockerd, stack: Stack, pod: NewPod) -> None:
    create_network(dockerd, stack, "green", GREEN, GREEN6)
    start_container(dockerd, "web", "green")
    web = dockerd.inspect("web")["NetworkSettings"]["Networks"]["green"]
    box = pod()
    four, six = box.add(stack.conf("green")).addresses
    assert unanswered({four: box.pings}, web["IPAddress"], web["GlobalIPv6Address"], GREEN6_GATEWAY) == []
    assert unanswered({web["IPAddress"]: partial(dockerd.pings, "web")}, four, six, GREEN6_GATEWAY) == []


def test_two_interfaces_of_a_pod(stack: Stack, pod: NewPod) -> None:
    blue, green = stack.conf("blue", subnet=BLUE), stack.conf("green", subnet=GREEN)
    both, in_blue, in_green = pod(), pod(), pod()
    blue_peer, green_peer = in_blue.attach(blue), in_green.attach(green)
    in_eth0, in_eth1 = both.attach(blue), both.attach(green | {"isDefaultGateway": False}, "eth1")
    assert in_blue.pings(in_eth0)
    assert in_green.pings(in_eth1)
    assert unanswered({in_eth0: both.pings}, blue_peer, green_peer, BLUE_GATEWAY, GREEN_GATEWAY) == []
    assert not in_blue.pings(green_peer, wait=1)  # nobody routes for them
    assert both.delete(blue).ok
    assert both.pings(green_peer)


def test_two_networks_of_a_docker_container(dockerd: Dockerd, stack: Stack, blue: str, pod: NewPod) -> None:
    start_container(dockerd, "web", blue)
    in_blue, in_green = pod(), pod()
    blue_peer, green_peer = in_blue.attach(stack.conf(blue)), in_green.attach(stack.conf("green", subnet=GREEN))
    joined = ("--ipam-driver", stack.driver, "--ipam-opt", "ovsnet.network=green", "--opt", "ovsnet.network=green")
    dockerd.docker("network", "create", "--driver", stack.driver, *joined, "lawn")
    dockerd.docker("network", "connect", "lawn", "web")
    assert in_green.pings(dockerd.address("web", "lawn"))
    assert dockerd.pings("web", blue_peer)
    assert dockerd.pings("web", green_peer)
    dockerd.docker("network", "disconnect", "lawn", "web")
    assert dockerd.pings("web", blue_peer)
    assert not dockerd.pings("web", green_peer, wait=1)
    dockerd.docker("network", "rm", "lawn")
    assert stack.show("network", "show", "green")["docker_ids"] == []  # it was made by CNI, and stays
    assert in_green.pings(GREEN_GATEWAY)


def test_twenty_at_once(stack: Stack, pod: NewPod) -> None:
    conf, pods = stack.conf("green", subnet=GREEN), [pod() for _ in range(20)]

    def attach(each: Pod) -> tuple[str, bool]:
        return each.attach(conf), each.pings(GREEN_GATEWAY)

    with ThreadPoolExecutor(20) as threads:
        attached = list(threads.map(attach, pods))
        assert len({address for address, _ in attached}) == 20
        assert all(answered for _, answered in attached)
        assert sorted(row["container"] for row in stack.endpoints()) == sorted(each.id for each in pods)
        assert pods[0].pings(attached[-1][0])
        assert all(result.ok for result in threads.map(lambda each: each.delete(conf), pods))
    assert stack.endpoints() == []
