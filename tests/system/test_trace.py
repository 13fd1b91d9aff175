"""`ovsnet trace` says of a packet what becomes of it in truth, and names who is guilty."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ovsnet.client import Client, Endpoint
from ovsnet.errors import EndpointNotFound, InvalidRequest, OvsnetError
from tests.harness import IMAGE, Dockerd, Ovs, Stack, wait_until
from tests.system.containers import Pod, create_network, start_container

pytestmark = pytest.mark.usefixtures("nothing_left")

NewPod = Callable[[], Pod]

GREEN, GREEN6, RED = "10.93.1.0/24", "fd93:1::/64", "10.93.2.0/24"
GATEWAY, GATEWAY6, RED_GATEWAY = "10.93.1.1", "fd93:1::1", "10.93.2.1"
STRANGE = "10.93.1.77"
OUTSIDE = "192.0.2.1"


def conf(stack: Stack, name: str, *subnets: str, **more: Any) -> dict[str, Any]:
    routes = [{"dst": "0.0.0.0/0"}] + [{"dst": "::/0"} for one in subnets if ":" in one]
    return stack.conf(name, ranges=[[{"subnet": one}] for one in subnets], routes=routes) | more


def traced(stack: Stack, source: str, destination: str, *more: str) -> dict[str, Any]:
    """The command's answer; the exit code fits it."""
    result = stack.cli("trace", source, destination, *more, "-o", "json", check=False)
    assert result.stdout, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.returncode == (found["outcome"] == "dropped")
    return found


def endpoint(stack: Stack, pod: Pod) -> Endpoint:
    (found,) = (one for one in Client(str(stack.socket)).endpoints() if one["container"] == pod.id)
    return found


@contextmanager
def wrong_tag(stack: Stack, port: str) -> Iterator[None]:
    """A port with another tag, that bears no mark of ours, or it would be mended at once."""
    wait_until(lambda: "ovsnet-endpoint" in stack.ovs.vsctl("get", "port", port, "external_ids"), "it is marked")
    ids, tag = (stack.ovs.vsctl("get", "port", port, key) for key in ("external_ids", "tag"))
    for table in ("port", "interface"):
        stack.ovs.vsctl("clear", table, port, "external_ids")
    stack.ovs.vsctl("set", "port", port, "tag=99")
    try:
        yield
    finally:
        stack.ovs.vsctl("set", "port", port, f"tag={tag}", f"external_ids={ids}")
        stack.ovs.vsctl("set", "interface", port, f"external_ids:ovsnet-owner={stack.prefix}")


def test_five_broken_set_ups(stack: Stack, ovs: Ovs, pod: NewPod) -> None:
    one, other, far = pod(), pod(), pod()
    mine = one.attach(conf(stack, "green", GREEN, GREEN6))
    address = other.attach(conf(stack, "green", GREEN, GREEN6))
    beyond = far.attach(conf(stack, "red", RED))
    port = endpoint(stack, other)["port"]

    client = Client(str(stack.socket))

    def check(destination: str, cause: str, *words: str, source: str = one.id, reaches: str = "") -> None:
        found = client.trace(source, destination)
        assert found["outcome"] == ("dropped" if cause else "delivered")
        assert found["cause"] == cause, found
        assert all(word in found["reason"] for word in words), found["reason"]
        if cause:
            assert found["remedy"]
            assert found["steps"][-1]["what"].endswith(found["reason"])
        if reaches:
            wait_until(lambda: one.pings(reaches, wait=0.5) == (not cause), f"{reaches} is as traced: {found}")

    # All is well: by container, its beginning, address, and in both families; and nothing was learned or sent by that.
    for destination in (other.id, endpoint(stack, other)["id"][:13], address):
        check(destination, "", reaches=address)
    six = next(x.partition("/")[0] for x in endpoint(stack, other)["addresses"] if ":" in x)
    check(six, "", reaches=six)
    for gateway in (GATEWAY, GATEWAY6, RED_GATEWAY):
        check(gateway, "", reaches=gateway)
    assert traced(stack, one.id, other.id, "--proto", "tcp", "--dport", "80")["packet"].endswith(f"{address}:80")

    with wrong_tag(stack, port):
        check(other.id, "wrong-tag", port, "VLAN tag 99", reaches=address)
        check(GATEWAY, "wrong-tag", port, source=other.id)
    wait_until(lambda: one.pings(address, wait=0.5), "it is as before")

    stack.cli("endpoint", "quarantine", endpoint(stack, other)["id"])
    check(other.id, "quarantined", other.id, reaches=address)
    stack.cli("endpoint", "quarantine", "--off", endpoint(stack, other)["id"])
    check(other.id, "", reaches=address)

    for new, old in ((STRANGE, mine), (mine, STRANGE)):
        one.netns.run("ip", "address", "del", f"{old}/24", "dev", "eth0")
        one.netns.run("ip", "address", "add", f"{new}/24", "dev", "eth0")
        one.netns.run("ip", "route", "replace", "default", "via", GATEWAY)
        if new == STRANGE:
            check(other.id, "spoofed", "anti-spoofing", one.id, "table 240", reaches=address)
            check(one.id, "address-missing", mine, source=other.id)
    assert traced(stack, one.id, other.id, "--source-address", STRANGE)["cause"] == "spoofed"

    check(far.id, "isolated", "green", "red", "networks are isolated", "forward", reaches=beyond)

    one.netns.run("ip", "route", "del", "default")
    check(OUTSIDE, "no-route", OUTSIDE)
    check(far.id, "no-route", beyond, reaches=beyond)
    check(other.id, "", reaches=address)

    flow = f"priority=9,icmp,nw_dst={address}"
    bridge = f"unix:{ovs.vswitchd.directory / stack.bridge}.mgmt"
    stack.host.run("ovs-ofctl", "-O", "OpenFlow13", "add-flow", bridge, f"{flow},actions=drop")
    check(other.id, "flow", f"nw_dst={address}", reaches=address)
    stack.host.run("ovs-ofctl", "-O", "OpenFlow13", "--strict", "del-flows", bridge, flow)
    check(other.id, "", reaches=address)

    refused: dict[tuple[str, str], type[OvsnetError]] = {
        (one.id, "nobody"): EndpointNotFound,
        ("nobody", one.id): EndpointNotFound,
        (stack.prefix, other.id): InvalidRequest,  # which of them?
        (far.id, six): InvalidRequest,  # it has IPv4 only
    }
    for (source, destination), error in refused.items():
        with pytest.raises(error):
            client.trace(source, destination)
    with pytest.raises(InvalidRequest):
        client.trace(one.id, other.id, protocol="tcp")
    table = stack.cli("trace", one.id, other.id).stdout
    assert "delivered, and so is its answer" in table


def test_routed_networks_and_the_way_out(stack: Stack, pod: NewPod) -> None:
    one, far = pod(), pod()
    one.attach(conf(stack, "green", GREEN, routed=True))
    beyond = far.attach(conf(stack, "red", RED, routed=True))
    assert one.pings(beyond)
    found = traced(stack, one.id, far.id)
    assert (found["outcome"], found["cause"]) == ("delivered", ""), found
    assert any(step["back"] and step["where"].startswith("host") for step in found["steps"])
    far.netns.run("ip", "route", "del", "default")
    assert traced(stack, one.id, far.id)["cause"] == "no-route"  # the answer's
    assert not one.pings(beyond, wait=0.5)


def test_neighbours_are_asked_for(stack: Stack, pod: NewPod) -> None:
    one, other, far = pod(), pod(), pod()
    mine, address = (each.attach(conf(stack, "green", GREEN, GREEN6)) for each in (one, other))
    far.attach(conf(stack, "red", RED))
    client = Client(str(stack.socket))
    six, theirs = (
        next(x.partition("/")[0] for x in endpoint(stack, each)["addresses"] if ":" in x) for each in (one, other)
    )
    mac = endpoint(stack, other)["mac"]
    cases = {  # protocol, destination, an address that is not its own, and that of the answer
        ("arp", address): (STRANGE, mac),
        ("nd", theirs): ("fd93:1::77", mac),
        ("arp", GATEWAY): (address, ""),
        ("nd", GATEWAY6): (theirs, ""),
        ("arp", OUTSIDE): (STRANGE, ""),  # beyond the gateway, for whom it asks
    }
    for (protocol, destination), (strange, answer) in cases.items():
        found = client.trace(one.id, destination, protocol=protocol)
        assert (found["outcome"], found["cause"]) == ("delivered", ""), found
        assert found["steps"][-1]["back"]
        assert answer in found["steps"][-1]["what"]
        spoofed = client.trace(one.id, destination, protocol=protocol, sender=strange)
        assert (spoofed["outcome"], spoofed["cause"]) == ("dropped", "spoofed"), spoofed
        assert not any(step["back"] for step in spoofed["steps"])
    assert GATEWAY in client.trace(one.id, OUTSIDE, protocol="arp")["packet"]
    assert traced(stack, one.id, other.id, "--proto", "nd")["packet"].endswith(f"who has {theirs}?")
    found = client.trace(one.id, "10.93.1.200", protocol="arp")
    assert (found["outcome"], found["cause"]) == ("dropped", "nobody")
    # Who answers from a MAC that is not its own is not believed.
    other.netns.run("ip", "link", "set", "eth0", "address", "02:00:00:00:99:99")
    found = client.trace(one.id, address, protocol="arp")
    assert (found["cause"], found["steps"][-1]["back"]) == ("spoofed", True), found
    with wrong_tag(stack, endpoint(stack, one)["port"]):
        assert client.trace(one.id, GATEWAY6, protocol="nd")["cause"] == "wrong-tag"
    for protocol, destination in (("arp", six), ("nd", mine)):
        with pytest.raises(InvalidRequest):
            client.trace(other.id, destination, protocol=protocol)
    with pytest.raises(InvalidRequest):
        client.trace(one.id, other.id, protocol="arp", port=80)


def test_docker_and_a_published_port(stack: Stack, dockerd: Dockerd) -> None:
    create_network(dockerd, stack, "blue", GREEN)
    start_container(dockerd, "one", "blue")
    dockerd.docker("run", "--detach", "--name", "web", "--network", "blue", "--publish", "18080:80", IMAGE)
    mine, web = dockerd.address("one", "blue"), dockerd.address("web", "blue")
    assert traced(stack, mine, web)["outcome"] == "delivered"
    found = traced(stack, mine, GATEWAY, "--proto", "tcp", "--dport", "18080")
    assert found["outcome"] == "delivered", found
    assert any(f"{web}:80" in step["what"] for step in found["steps"])
