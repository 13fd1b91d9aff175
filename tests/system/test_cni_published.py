"""Published ports: the capability `portMappings` without the plugin `portmap`, on real packets from everywhere they may come."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.harness import CniResult, Netns, Stack, wait_until
from tests.system.containers import Pod
from tests.system.published import HOST, HOST6, OUTSIDE, OUTSIDE6, SERVER, ask, serving

pytestmark = pytest.mark.usefixtures("nothing_left")

PYTHON = "/usr/bin/python3"
SUBNET, SUBNET6 = "10.93.1.0/24", "fd93:1::/64"
GATEWAY, GATEWAY6 = "10.93.1.1", "fd93:1::1"
Serve = Callable[..., None]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Runs servers in containers."""
    with ExitStack() as undo:

        def start(pod: Pod, name: str, port: int, kind: str = "SOCK_STREAM") -> None:
            undo.enter_context(serving(pod.netns, name, port, kind))

        yield start


def conf(*mappings: tuple[Any, ...], name: str = "published", subnets: tuple[str, ...] = (SUBNET,)) -> dict[str, Any]:
    """A configuration with published ports, each (host port, container port, protocol, host address)."""
    keys = ("hostPort", "containerPort", "protocol", "hostIP")
    ports = [dict(zip(keys, mapping, strict=False)) for mapping in mappings]
    ranges = [[{"subnet": subnet}] for subnet in subnets]
    return Stack.conf(name, ranges=ranges) | {"runtimeConfig": {"portMappings": ports}}


def maps(stack: Stack) -> str:
    """All elements of our maps."""
    table = f"ovsnet-{stack.prefix}"
    entries = json.loads(stack.host.run("nft", "-j", "list", "table", "inet", table).stdout)["nftables"]
    return json.dumps([entry["map"].get("elem", []) for entry in entries if "map" in entry])


def test_reached_from_everywhere(stack: Stack, pod: Callable[[], Pod], outside: Netns, serve: Serve) -> None:
    server, neighbour, stranger = pod(), pod(), pod()
    wanted = conf((18080, 80, "tcp"), (18080, 53, "UDP"), subnets=(SUBNET, SUBNET6))
    server.attach(wanted)
    serve(server, "web", 80)
    serve(server, "dns", 53, "SOCK_DGRAM")
    near = neighbour.attach(conf(subnets=(SUBNET, SUBNET6)))
    far = stranger.attach(conf(name="elsewhere", subnets=("10.93.2.0/24",)))
    # Another machine, which the server sees as itself; in both families and protocols.
    assert ask(outside, HOST, 18080) == f"web {OUTSIDE}"
    assert ask(outside, HOST, 18080, "SOCK_DGRAM") == f"dns {OUTSIDE}"
    assert ask(outside, HOST6, 18080) == f"web {OUTSIDE6}"
    assert ask(outside, HOST6, 18080, "SOCK_DGRAM") == f"dns {OUTSIDE6}"
    # The host itself, by any of its addresses.
    assert ask(stack.host, HOST, 18080) == f"web {HOST}"
    assert ask(stack.host, "127.0.0.1", 18080) == f"web {GATEWAY}"
    assert ask(stack.host, "127.0.0.1", 18080, "SOCK_DGRAM") == f"dns {GATEWAY}"
    # Containers of another network, of the same one, and the server itself.
    assert ask(stranger.netns, HOST, 18080) == f"web {far}"
    assert ask(neighbour.netns, HOST, 18080) == f"web {GATEWAY}"
    assert ask(neighbour.netns, HOST6, 18080) == f"web {GATEWAY6}"
    assert ask(neighbour.netns, GATEWAY, 18080, "SOCK_DGRAM") == f"dns {GATEWAY}"
    assert ask(server.netns, HOST, 18080) == f"web {GATEWAY}"
    # What is not published is not reached so, and the neighbour directly.
    assert ask(outside, HOST, 80) == "ConnectionRefusedError"
    assert ask(neighbour.netns, server.shown()["addr_info"][0]["local"], 80) == f"web {near}"
    assert server.delete(wanted).ok
    assert ask(outside, HOST, 18080) == "ConnectionRefusedError"
    assert "18080" not in maps(stack)


def test_a_container_does_not_reach_the_hosts_loopback(stack: Stack, pod: Callable[[], Pod], outside: Netns) -> None:
    """route_localnet, which published ports need on the gateway, must not open the host's own services."""
    del outside
    box = pod()
    box.attach(conf((18080, 80, "tcp")))
    setting = f"net.ipv4.conf.{next(one for one in gateways(stack))}.route_localnet"
    assert stack.host.run("sysctl", "-n", setting).stdout == "1\n"
    argv = stack.host.argv(PYTHON, "-ISc", SERVER, "secret", "SOCK_STREAM", "7777")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as secret:
        try:
            wait_until(lambda: ":7777 " in stack.host.run("ss", "-Hltn").stdout, "the server listens")
            box.netns.run("sysctl", "-w", "net.ipv4.conf.all.route_localnet=1")
            box.netns.run("ip", "address", "del", "127.0.0.1/8", "dev", "lo")
            box.netns.run("ip", "rule", "add", "pref", "1", "to", "127.0.0.1", "lookup", "77")
            box.netns.run("ip", "rule", "del", "lookup", "local")
            box.netns.run("ip", "route", "add", "127.0.0.1", "via", GATEWAY, "dev", "eth0", "table", "77")
            assert ask(box.netns, "127.0.0.1", 7777) in ("TimeoutError", "OSError")
            drops = stack.host.run("nft", "list", "table", "inet", f"ovsnet-{stack.prefix}").stdout
            (rule,) = [line for line in drops.splitlines() if "loopback is its own" in line]
            assert "packets 0" not in rule  # they came, and no further
        finally:
            secret.kill()


def gateways(stack: Stack) -> Iterator[str]:
    """The host's gateway devices."""
    for link in stack.host.ip("address", "show"):
        if any(one.get("local") == GATEWAY for one in link["addr_info"]):
            yield link["ifname"]


def test_an_address_of_the_host(stack: Stack, pod: Callable[[], Pod], outside: Netns, serve: Serve) -> None:
    first, second = pod(), pod()
    first.attach(conf((18080, 80, "tcp", HOST)))
    second.attach(conf((18080, 80, "tcp", "127.0.0.1"), (18081, 80, "tcp", "0.0.0.0")))  # noqa: S104
    serve(first, "first", 80)
    serve(second, "second", 80)
    assert ask(outside, HOST, 18080) == f"first {OUTSIDE}"
    assert ask(stack.host, "127.0.0.1", 18080) == f"second {GATEWAY}"
    assert ask(outside, HOST, 18081) == f"second {OUTSIDE}"


@pytest.mark.parametrize(
    ("mine", "yours"),
    [
        ((18080, 80, "tcp"), (18080, 81, "tcp")),
        ((18080, 80, "tcp"), (18080, 80, "tcp", HOST)),
        ((18080, 80, "udp", HOST), (18080, 80, "udp", HOST)),
        ((18080, 80, "tcp", "0.0.0.0"), (18080, 80, "tcp", "127.0.0.1")),  # noqa: S104
    ],
)
def test_a_port_is_published_once(
    stack: Stack, pod: Callable[[], Pod], mine: tuple[Any, ...], yours: tuple[Any, ...]
) -> None:
    first, second = pod(), pod()
    first.attach(conf(mine))
    before = maps(stack)
    refused = second.add(conf(yours))
    assert (refused.returncode, refused.output["code"]) == (1, 117)
    assert "18080" in refused.output["msg"]
    assert maps(stack) == before
    assert len(stack.endpoints()) == 1
    assert not second.netns.run("ip", "link", "show", "eth0", check=False).stdout
    other_protocol = ("tcp" if mine[2] == "udp" else "udp",)
    second.attach(conf(yours[:2] + other_protocol + yours[3:]))


def test_a_datagram_flow_finds_the_new_container(
    stack: Stack, pod: Callable[[], Pod], outside: Netns, serve: Serve
) -> None:
    """The kernel remembers where a flow went; who sends from one port all the time must reach who has the port now."""
    first, second = pod(), pod()
    wanted = conf((18053, 53, "udp"))

    def asked() -> str:
        return ask(outside, HOST, 18053, "SOCK_DGRAM", own=40000)

    assert asked() == "ConnectionRefusedError"  # remembered as a flow to the host
    first.attach(wanted)
    serve(first, "first", 53, "SOCK_DGRAM")
    assert asked() == f"first {OUTSIDE}"
    assert first.delete(wanted).ok
    second.attach(wanted)
    serve(second, "second", 53, "SOCK_DGRAM")
    assert asked() == f"second {OUTSIDE}"
    assert stack.endpoints()[0]["container"] == second.id


def test_again_after_a_restart_and_after_a_flush(
    stack: Stack, pod: Callable[[], Pod], outside: Netns, serve: Serve
) -> None:
    box, late = pod(), pod()
    wanted = conf((18080, 80, "tcp"))
    box.attach(wanted)
    serve(box, "web", 80)
    stack.restart()
    assert ask(outside, HOST, 18080) == f"web {OUTSIDE}"
    stack.host.run("nft", "flush", "ruleset")
    checked = stack.cni("CHECK", box.id, box.netns, wanted | {"prevResult": box.add(wanted).output})
    assert checked.ok, checked  # the same ADD again has put the rules back
    assert ask(outside, HOST, 18080) == f"web {OUTSIDE}"
    stack.host.run("nft", "flush", "ruleset")
    late.attach(conf((18081, 80, "tcp")))  # so does anybody else's
    assert ask(outside, HOST, 18080) == f"web {OUTSIDE}"
    stack.host.run("nft", "flush", "ruleset")
    assert box.delete(wanted).ok
    assert ask(outside, HOST, 18080) == "ConnectionRefusedError"


def test_check_tells_of_a_port_that_leads_nowhere(stack: Stack, pod: Callable[[], Pod]) -> None:
    box = pod()
    wanted = conf((18080, 80, "tcp"))
    result = box.add(wanted)
    checking = wanted | {"prevResult": result.output}
    assert stack.cni("CHECK", box.id, box.netns, checking).ok
    table = f"ovsnet-{stack.prefix}"
    stack.host.run("nft", "delete", "element", "inet", table, "port4", "{ tcp . 18080 }")
    found = stack.cni("CHECK", box.id, box.netns, checking)
    assert (found.returncode, found.output["code"]) == (1, 118)
    assert "port 18080 of the host" in found.output["msg"]


def code_of(result: CniResult) -> tuple[int, str]:
    """Code and message of a failure."""
    assert result.returncode == 1
    return result.output["code"], result.output["msg"]


def test_what_cannot_be_published_is_refused(stack: Stack, pod: Callable[[], Pod]) -> None:
    box = pod()
    for mapping in ((0, 80, "tcp"), (80, 70000, "tcp"), (80, 80, "icmp"), (80, 80, "tcp", "localhost")):
        code, message = code_of(box.add(conf(mapping)))
        assert (code, "portMappings" in message) == (7, True), mapping
    code, message = code_of(box.add(conf((80, 80, "tcp", HOST6))))
    assert (code, "without IPv6" in message) == (7, True)
    internal = conf((80, 80, "tcp")) | {"internal": True}
    code, message = code_of(box.add(internal))
    assert (code, "no gateway" in message) == (7, True)
    code, message = code_of(box.add(conf((80, 80, "tcp"), (80, 81, "tcp"))))
    assert (code, "published already" in message) == (117, True), message
    assert stack.endpoints() == []
    assert '"tcp", 80' not in maps(stack)
    box.attach(conf((80, 80, "tcp"), (80, 80, "tcp")))  # the same twice is once
    code, _ = code_of(box.add(conf((81, 80, "tcp"))))
    assert code == 111
