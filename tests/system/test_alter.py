"""Endpoints and networks are changed while traffic goes on: VLAN tags, limits, published ports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ovsnet.client import Client, Endpoint
from ovsnet.errors import AttachmentBroken, Conflict, InvalidRequest, OvsnetError, PortInUse, TagInUse
from tests.harness import Netns, Stack, wait_until
from tests.system.containers import Pod
from tests.system.published import HOST, OUTSIDE, ask, serving

pytestmark = pytest.mark.usefixtures("nothing_left")

NewPod = Callable[[], Pod]

SUBNET, SUBNET6, GATEWAY = "10.96.1.0/24", "fd96:1::/64", "10.96.1.1"
OWN = 3999  # a VLAN that no network gets by itself so soon
PORT = 18096


def conf(stack: Stack, name: str = "altered", **more: Any) -> dict[str, Any]:
    return stack.conf(name, ranges=[[{"subnet": SUBNET}], [{"subnet": SUBNET6}]]) | more


def endpoint(stack: Stack, pod: Pod) -> Endpoint:
    (found,) = (one for one in Client(str(stack.socket)).endpoints() if one["container"] == pod.id)
    return found


def tag(stack: Stack, port: str) -> str:
    """What the switch's database has."""
    return stack.ovs.vsctl("--bare", "get", "Port", port, "tag").strip("[]")


def agreed(stack: Stack, pod: Pod, wanted: dict[str, Any], result: Any) -> None:
    """Nobody finds a difference: CHECK, `ipam check`, `reconcile`."""
    found = stack.cni("CHECK", pod.id, pod.netns, wanted | {"prevResult": result})
    assert found.ok, found
    assert Client(str(stack.socket)).check()["ok"]
    assert Client(str(stack.socket)).reconcile(dry_run=True)["left"] == []


def test_vlans(stack: Stack, pod: NewPod) -> None:
    one, two, three = pod(), pod(), pod()
    client, wanted = Client(str(stack.socket)), conf(stack)
    result = one.add(wanted).output
    first, second = result["ips"][0]["address"].partition("/")[0], two.attach(wanted)
    three.attach(wanted)
    mine, other = endpoint(stack, one), endpoint(stack, two)
    assert (mine["own_vlan"], one.pings(second), one.pings(GATEWAY)) == (None, True, True)
    (device,) = stack.host.ip("link", "show", "dev", mine["port"])

    told = stack.cli("endpoint", "set", mine["id"][:12], "--vlan", str(OWN), "--dry-run").stdout
    assert f"vlan: {mine['vlan']} -> {OWN}" in told
    assert (endpoint(stack, one), one.pings(second)) == (mine, True)

    stack.cli("endpoint", "set", mine["id"][:12], "--vlan", str(OWN))
    assert not one.pings(second, wait=0.3)  # from the answer on
    assert not one.pings(GATEWAY, wait=0.3)
    (again,) = stack.host.ip("link", "show", "dev", mine["port"])
    assert (again["ifindex"], again["flags"]) == (device["ifindex"], device["flags"])
    agreed(stack, one, wanted, result)
    assert client.trace(one.id, two.id)["cause"] == "other-vlan"
    assert client.trace(one.id, GATEWAY)["cause"] == "other-vlan"
    stack.cli("endpoint", "set", other["id"], "--vlan", str(OWN))
    assert one.pings(second)
    assert client.trace(one.id, two.id)["outcome"] == "delivered"

    # It is what is wanted, whatever comes: a restart, a stranger, the same ADD once more.
    stack.restart()
    assert (endpoint(stack, one)["own_vlan"], tag(stack, mine["port"])) == (OWN, str(OWN))
    stack.ovs.vsctl("set", "Port", mine["port"], f"tag={mine['vlan']}")
    wait_until(lambda: tag(stack, mine["port"]) == str(OWN), "it is set back")
    assert one.attach(wanted) == first
    assert one.pings(second)

    # The network gets another one: its gateway, who has none of its own, and who comes after that.
    client.change_network("altered", vlan=OWN - 1)
    assert three.pings(GATEWAY)
    late = pod()
    assert three.pings(late.attach(wanted))
    assert (tag(stack, endpoint(stack, late)["port"]), endpoint(stack, one)["vlan"]) == (str(OWN - 1), OWN)
    assert one.pings(second)
    agreed(stack, one, wanted, result)
    client.change_endpoint(mine["id"], vlan=None)
    assert (endpoint(stack, one)["own_vlan"], one.pings(GATEWAY), one.pings(second, wait=0.3)) == (None, True, False)

    reasons = [one["reason"] for one in client.events(limit=1000) if one["what"] == "altered"]
    assert f"VLAN {mine['vlan']} -> {OWN}" in reasons
    assert f"VLAN {OWN} -> {OWN - 1}" in reasons
    (change,) = client.audit(path="/v1/networks", limit=1)
    assert (change["before"]["vlan"], change["after"]["vlan"]) == (mine["vlan"], OWN - 1)


def test_refused(stack: Stack, pod: NewPod) -> None:
    box, trunk, other = pod(), pod(), pod()
    box.attach(conf(stack, runtimeConfig={"portMappings": [{"hostPort": PORT, "containerPort": 80}]}))
    trunk.attach(conf(stack, vlanTrunk=[{"id": 3990}]))
    other.attach(stack.conf("elsewhere", subnet="10.96.2.0/24"))
    client = Client(str(stack.socket))
    uuid, on_trunk, away = (endpoint(stack, one)["id"] for one in (box, trunk, other))
    before = client.endpoints()
    refused: list[tuple[str, dict[str, Any], type[OvsnetError]]] = [
        (on_trunk, {"vlan": OWN}, Conflict),
        (uuid, {"vlan": OWN, "quarantined": True}, Conflict),
        (uuid, {"vlan": OWN + 1000}, InvalidRequest),
        (uuid, {"bandwidth": {"ingress_burst": 1000}}, InvalidRequest),
        (uuid, {"published": ["tcp/0/80"]}, InvalidRequest),
        (uuid, {"published": ["tcp/18097/80", "tcp/18097/81"]}, PortInUse),
        (uuid, {"take_from": uuid}, InvalidRequest),
        (away, {"vlan": OWN, "published": [f"tcp/{PORT}/80"]}, PortInUse),
        (away, {"published": [f"tcp/{PORT}/80"], "take_from": on_trunk}, PortInUse),
        (away, {"published": ["tcp/2001:db8::1/18097/80"]}, InvalidRequest),
    ]
    for target, changes, error in refused:
        for dry_run in (True, False):
            with pytest.raises(error):
                client.change_endpoint(target, dry_run=dry_run, **changes)
    for network, error in (("altered", Conflict), ("elsewhere", TagInUse)):
        with pytest.raises(error):
            client.change_network(network, vlan=client.network("altered")["vlan"] + (network == "altered"))
    with serving(stack.host, "own", 18098), pytest.raises(PortInUse):
        client.change_endpoint(away, published=["tcp/18098/80"])
    port = endpoint(stack, other)["port"]
    kept = stack.ovs.vsctl("get", "port", port, "external_ids")
    for table in ("port", "interface"):
        stack.ovs.vsctl("clear", table, port, "external_ids")
    with pytest.raises(AttachmentBroken):
        client.change_endpoint(away, vlan=OWN)
    stack.ovs.vsctl("set", "port", port, f"external_ids={kept}")
    stack.ovs.vsctl("set", "interface", port, f"external_ids:ovsnet-owner={stack.prefix}")
    assert client.endpoints() == before


def limits(stack: Stack) -> tuple[list[str], int]:
    """Rates in the switch's database, each as often as it stands there, and the number of limits in nftables."""
    found = [stack.ovs.vsctl("--bare", "--columns=other_config", "list", table) for table in ("QoS", "Queue")]
    rates = [word.strip('"').partition("=")[2] for text in found for word in text.split() if "max-rate" in word]
    shown = stack.host.run("nft", "list", "table", "netdev", f"ovsnet-{stack.prefix}", check=False).stdout
    return sorted(rates), shown.count("limit rate over")


def test_limits(stack: Stack, pod: NewPod) -> None:
    box, client = pod(), Client(str(stack.socket))
    wanted = conf(stack, runtimeConfig={"bandwidth": {"egressRate": 10**8, "egressBurst": 10**7}})
    result = box.add(wanted).output
    uuid = endpoint(stack, box)["id"]
    assert limits(stack) == (["100000000"] * 2, 0)
    stack.cli("endpoint", "set", uuid, "--ingress-rate", "20M", "--egress-rate", "5M")
    assert limits(stack) == (["5000000"] * 2, 1)
    assert endpoint(stack, box)["bandwidth"] == {
        "ingress_rate": 20_000_000,
        "egress_rate": 5_000_000,
        "egress_burst": 10**7,
    }
    agreed(stack, box, wanted, result)
    stack.cli("endpoint", "set", uuid, "--egress-rate", "none")
    assert limits(stack) == ([], 1)
    agreed(stack, box, wanted, result)
    box.attach(wanted)  # the same ADD again, which asks for what it asked for
    assert limits(stack) == ([], 1)
    client.change_endpoint(uuid, bandwidth=None)
    assert (limits(stack), endpoint(stack, box)["bandwidth"]) == (([], 0), {})
    client.change_endpoint(uuid, bandwidth={"egress_rate": 10**8, "egress_burst": 10**7})
    assert "ovsnet.asked" not in endpoint(stack, box)["labels"]
    agreed(stack, box, wanted, result)


def test_a_published_port_moves(stack: Stack, pod: NewPod, outside: Netns) -> None:
    blue, green = pod(), pod()
    client = Client(str(stack.socket))
    wanted = conf(stack, runtimeConfig={"portMappings": [{"hostPort": PORT, "containerPort": 80}]})
    blue.attach(wanted)
    green.attach(conf(stack))
    old, new = (endpoint(stack, one)["id"] for one in (blue, green))
    with serving(blue.netns, "blue", 80), serving(green.netns, "green", 8000):
        answers, enough = [ask(outside, HOST, PORT)], threading.Event()

        def go_on() -> None:
            while not enough.is_set():
                answers.append(ask(outside, HOST, PORT))

        asking = threading.Thread(target=go_on)
        asking.start()
        try:
            wait_until(lambda: len(answers) > 3, "it is asked")
            for giver, taker, port in ((old, new, 8000), (new, old, 80), (old, new, 8000)):
                known = len(answers)
                stack.cli("endpoint", "set", taker, "--publish", f"tcp/{PORT}/{port}", "--take-from", giver)
                wait_until(lambda known=known: len(answers) > known + 3, "it is asked")  # type: ignore[misc]
        finally:
            enough.set()
            asking.join()
        assert set(answers) == {f"blue {OUTSIDE}", f"green {OUTSIDE}"}  # never nobody
        turns = [here for here, before in zip(answers[1:], answers, strict=False) if here != before]
        assert [one.partition(" ")[0] for one in turns] == ["green", "blue", "green"]
        assert client.endpoint(old)["published"] == []
        assert {one["path"] for one in client.audit(limit=2)} == {f"/v1/endpoints/{one}" for one in (old, new)}
        blue.attach(wanted)  # which does not get it back
        assert ask(outside, HOST, PORT) == f"green {OUTSIDE}"
        assert client.reconcile(dry_run=True)["left"] == []
        client.change_endpoint(old, take_from=new, published=[])
        stack.cli("endpoint", "set", new, "--unpublish")
        assert ask(outside, HOST, PORT) == "ConnectionRefusedError"
