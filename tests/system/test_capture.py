"""`ovsnet capture` records what an endpoint sends and receives, within its bounds, and leaves nothing behind."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap

from ovsnet.client import Client
from ovsnet.errors import EndpointNotFound, InvalidRequest, TooManyRequests
from tests.harness import SCRIPTS, Stack, environment, wait_until
from tests.system.containers import Ping, Pod

pytestmark = pytest.mark.usefixtures("nothing_left")

NewPod = Callable[[], Pod]

NET = "10.93.1.0/24"


def mirrors(stack: Stack) -> tuple[int, int]:
    """How many mirrors of captures there are, and how many ports of theirs."""
    mine = f"external_ids:ovsnet-capture={stack.prefix}"
    found = (stack.ovs.vsctl("--bare", "--columns=name", "find", table, mine).split() for table in ("mirror", "port"))
    first, second = map(len, found)
    return first, second


def begin(stack: Stack, uuid: str, *more: str) -> subprocess.Popen[bytes]:
    """A capture that goes on."""
    argv = stack.host.argv(SCRIPTS / "ovsnet", "--socket", stack.socket, "capture", uuid, "--seconds", "30", *more)
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())


def test_a_capture_and_its_end(stack: Stack, pod: NewPod, tmp_path: Path) -> None:
    one, other = pod(), pod()
    mine, address = one.attach(stack.conf("green", subnet=NET)), other.attach(stack.conf("green", subnet=NET))
    uuids = {row["container"]: row["id"] for row in stack.endpoints()}
    uuid, file = uuids[one.id], tmp_path / "one.pcap"
    client = Client(str(stack.socket))
    with Ping(one.netns, address, tmp_path / "ping"):
        stack.cli("capture", uuid[:13], "--filter", "icmp", "--seconds", "2", "-w", file)
        frames = rdpcap(str(file))
        assert {(frame[IP].src, frame[IP].dst) for frame in frames} == {(mine, address), (address, mine)}
        assert {frame[ICMP].type for frame in frames} == {0, 8}
        assert {type(frame) for frame in frames} == {Ether}  # as the container has them, without a tag
        small = client.capture(uuid, seconds=30, size=400)  # full long before
        assert 24 < len(small) <= 400
        assert (
            len(client.capture(uuid, seconds=1, size=1 << 20, filter="udp port 9")) == 24
        )  # a file with nothing in it
        assert mirrors(stack) == (0, 0)

        with pytest.raises(InvalidRequest, match="syntax error"):
            client.capture(uuid, seconds=1, size=1 << 20, filter="-w /tmp/x")
        with pytest.raises(EndpointNotFound):
            client.capture("nobody", seconds=1, size=1 << 20)
        assert stack.cli("capture", uuid, "--seconds", "61", check=False).returncode == 2

        running = [begin(stack, uuid), begin(stack, uuids[other.id])]
        try:
            wait_until(lambda: mirrors(stack) == (2, 2), "both run")
            with pytest.raises(TooManyRequests):
                client.capture(uuid, seconds=1, size=1 << 20)
            assert not stack.cli("reconcile", "--dry-run", check=False).stdout.count("stray")
            stack.kill9()
            assert mirrors(stack) == (2, 2)
            stack.start()
            assert mirrors(stack) == (0, 0)
            assert [one.wait(10) for one in running] == [5, 5]
        finally:
            for each in running:
                each.kill()
                each.communicate(timeout=10)
    assert one.pings(address)


def test_its_bridge_may_go(stack: Stack, pod: NewPod) -> None:
    box, conf = pod(), stack.conf("green", subnet=NET)
    box.attach(conf)
    (row,) = stack.endpoints()
    running = begin(stack, row["id"])
    try:
        wait_until(lambda: mirrors(stack) == (1, 1), "it runs")
        box.delete(conf)
        stack.cli("network", "rm", "green")
        wait_until(lambda: stack.bridge not in stack.ovs.vsctl("list-br").split(), "the bridge is gone")
        output, errors = running.communicate(timeout=10)
        assert (running.returncode, len(output) >= 24) == (0, True), errors
    finally:
        running.kill()
        running.wait(10)
