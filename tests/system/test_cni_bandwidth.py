"""The capability `bandwidth`, by what really passes: iperf3 between a limited container and one that is not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.harness import Stack, wait_until
from tests.system.containers import Pod

pytestmark = pytest.mark.usefixtures("nothing_left")

RATE = 20_000_000  # bits per second
SECONDS = 2


def conf(**bandwidth: int) -> dict[str, Any]:
    """A configuration with limits."""
    return Stack.conf("limited", subnet="10.94.1.0/24") | {"runtimeConfig": {"bandwidth": bandwidth}}


BOTH = {"ingressRate": RATE, "ingressBurst": RATE // 10, "egressRate": RATE, "egressBurst": RATE // 10}


@pytest.fixture
def server(pod: Callable[[], Pod]) -> Iterator[str]:
    """The address of a container without limits, where iperf3 listens."""
    box = pod()
    address = box.attach(conf())
    with subprocess.Popen(box.netns.argv("iperf3", "-s"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as iperf:
        wait_until(lambda: ":5201 " in box.netns.run("ss", "-Hltn").stdout, "iperf3 listens")
        yield address
        iperf.kill()


def measured(box: Pod, server: str, *, receive: bool) -> float:
    """Bits per second that a container sends to the server, or receives, after the first second.

    iperf3 sometimes ends without a result on a busy machine; then it is asked again.
    """
    argv = ("iperf3", "--json", "--client", server, "--time", str(SECONDS), "--omit", "1", *(["-R"] if receive else []))
    for _ in range(3):
        told = json.loads(box.netns.run(*argv).stdout)
        if "sum_received" in told["end"]:
            return float(told["end"]["sum_received"]["bits_per_second"])
    raise AssertionError(f"iperf3 has no result: {told}")


def rows(stack: Stack) -> list[str]:
    """Rows of the switch database that limit something."""
    found = (stack.ovs.vsctl("--bare", "--columns=_uuid", "list", table).split() for table in ("QoS", "Queue"))
    return [row for table in found for row in table]


def chains(stack: Stack) -> str:
    """What nftables limits."""
    shown = stack.host.run("nft", "list", "table", "netdev", f"ovsnet-{stack.prefix}", check=False)
    return shown.stdout.partition("chain")[2]


def test_both_directions_are_limited(stack: Stack, pod: Callable[[], Pod], server: str) -> None:
    limited, free = pod(), pod()
    limited.attach(conf(**BOTH))
    free.attach(conf())
    for receive in (False, True):
        assert 0.7 * RATE < measured(limited, server, receive=receive) < 1.2 * RATE
        assert measured(free, server, receive=receive) > 5 * RATE
    assert limited.delete(conf()).ok
    stack.cli("ipam", "check")
    wait_until(lambda: not rows(stack), "the rows are gone")
    assert not chains(stack)


def test_one_direction_leaves_the_other_alone(pod: Callable[[], Pod], server: str) -> None:
    slow_sender, slow_receiver = pod(), pod()
    slow_sender.attach(conf(egressRate=RATE))
    slow_receiver.attach(conf(ingressRate=RATE))
    assert measured(slow_sender, server, receive=False) < 1.2 * RATE
    assert measured(slow_sender, server, receive=True) > 5 * RATE
    assert measured(slow_receiver, server, receive=False) > 5 * RATE
    assert measured(slow_receiver, server, receive=True) < 1.2 * RATE


def test_check_again_and_restart(stack: Stack, pod: Callable[[], Pod]) -> None:
    box = pod()
    result = box.add(conf(**BOTH))
    assert result.ok, result
    asked = conf(**BOTH) | {"prevResult": result.output}

    def check() -> str:
        found = stack.cni("CHECK", box.id, box.netns, asked)
        return "" if found.ok else str(found.output["msg"])

    assert check() == ""
    (endpoint,) = stack.endpoints()
    assert endpoint["bandwidth"]["egress_rate"] == RATE
    stack.ovs.vsctl("clear", "Port", endpoint["port"], "qos")
    assert "lets through any bits/s, not 20000000" in check()
    box.attach(conf(**BOTH))
    assert check() == ""
    stack.host.run("nft", "flush", "ruleset")
    assert "is not limited to 20000000 bits/s" in check()
    stack.restart()  # what was flushed is put back, and what was cleared above is removed
    assert check() == ""
    assert len(rows(stack)) == 2
    refused = box.add(conf(egressRate=RATE))
    assert (refused.returncode, refused.output["code"]) == (1, 111)
    assert box.delete(conf()).ok
    wait_until(lambda: not rows(stack), "the rows are gone")
    assert not chains(stack)


def test_a_failed_add_leaves_no_limits(stack: Stack, pod: Callable[[], Pod]) -> None:
    box = pod()
    wanted = conf(**BOTH)
    wanted["ipam"]["routes"] = [{"dst": "10.200.0.0/16", "gw": "10.201.0.1"}]
    wanted["sysctl"] = {"net.ipv4.conf.IFNAME.rp_filter": "nonsense"}
    assert not box.add(wanted).ok
    port_mapping = {"hostPort": 18099, "containerPort": 80}
    first, second = pod(), pod()
    first.attach(conf() | {"runtimeConfig": {"portMappings": [port_mapping]}})
    late = conf(**BOTH)
    late["runtimeConfig"]["portMappings"] = [port_mapping | {"hostPort": 18098, "hostIP": "2001:db8::1"}]
    assert not second.add(late).ok  # at the very last step, when all else is in place
    wait_until(lambda: not rows(stack), "the rows are gone")
    assert not chains(stack)
