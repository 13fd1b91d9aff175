"""Every daemon ends and comes back: traffic that does not need it goes on, and nothing that it knew is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Daemon, Dockerd, Ovs, Stack, wait_until
from tests.system.containers import Ping, Pod, Reach, create_network, refusals, start_container, unanswered

pytestmark = pytest.mark.usefixtures("nothing_left")

BLUE, BLUE_GATEWAY = "10.92.1.0/24", "10.92.1.1"
GREEN, GREEN_GATEWAY = "10.92.2.0/24", "10.92.2.1"

NewPod = Callable[[], Pod]
End = Callable[[Daemon], object]

ends = pytest.mark.parametrize("end", [methodcaller("stop"), methodcaller("kill9")], ids=["SIGTERM", "SIGKILL"])


def known(stack: Stack) -> dict[str, Any]:
    """All that ovsnetd tells of its state, leases included."""
    found = {
        noun: sorted(stack.show(noun, "ls"), key=lambda row: row["id"]) for noun in ("pool", "network", "endpoint")
    }
    return found | {"leases": {pool["name"]: leases(stack, pool["name"]) for pool in found["pool"]}}


def leases(stack: Stack, pool: str) -> dict[str, str]:
    """Addresses and the kinds of their owners."""
    return {lease["address"]: lease["owner"]["kind"] for lease in stack.show("pool", "leases", pool)}


def addresses_of(endpoints: list[dict[str, Any]]) -> set[str]:
    """The endpoints' addresses."""
    return {address.partition("/")[0] for row in endpoints for address in row["addresses"]}


def test_lost_pings_are_noticed(stack: Stack, pod: NewPod, tmp_path: Path) -> None:
    """Without this, "no ping was lost" below would prove nothing."""
    conf, one, other = stack.conf("green", subnet=GREEN), pod(), pod()
    one.attach(conf)
    address = other.attach(conf)
    with Ping(one.netns, address, tmp_path / "ping") as ping:
        assert ping.lost() == set()
        other.netns.run("ip", "link", "set", "eth0", "down")
        assert not one.pings(address, wait=0.5)
        other.netns.run("ip", "link", "set", "eth0", "up")
        assert len(ping.lost()) >= 3


def test_vswitchd_killed(dockerd: Dockerd, stack: Stack, ovs: Ovs, pod: NewPod, tmp_path: Path) -> None:
    create_network(dockerd, stack, "blue", BLUE)
    web, one, other, conf = start_container(dockerd, "web", "blue"), pod(), pod(), stack.conf("blue")
    members: dict[str, Reach] = {web: partial(dockerd.pings, "web"), one.attach(conf): one.pings}
    members[other.attach(conf)] = other.pings
    before = one.shown(), other.shown(), known(stack)
    with (
        Ping(one.netns, web, tmp_path / "docker") as to_docker,
        Ping(other.netns, BLUE_GATEWAY, tmp_path / "host") as to_host,
    ):
        ovs.kill_vswitchd()
        ovs.vswitchd.start()
        for ping in (to_docker, to_host):
            ping.wait_answer()
    assert (one.shown(), other.shown(), known(stack)) == before
    assert unanswered(members, BLUE_GATEWAY) == []
    third = pod()
    address = third.attach(conf)
    assert address not in members
    assert unanswered({address: third.pings}, *members) == []


@ends
def test_ovsnetd_restarted(dockerd: Dockerd, stack: Stack, pod: NewPod, tmp_path: Path, end: End) -> None:
    create_network(dockerd, stack, "blue", BLUE)
    web, one, other = start_container(dockerd, "web", "blue"), pod(), pod()
    conf = stack.conf("blue")
    one.attach(conf)
    address = other.attach(conf)
    early = pod()
    early.attach(stack.conf("green", subnet=GREEN))
    before = known(stack)
    with (
        Ping(one.netns, address, tmp_path / "pod") as to_pod,
        Ping(one.netns, web, tmp_path / "web") as to_web,
        Ping(early.netns, GREEN_GATEWAY, tmp_path / "gateway") as to_gateway,
    ):
        pings = (to_pod, to_web, to_gateway)
        end(stack)
        assert stack.cli("status", check=False).returncode == 5
        for ping in pings:
            ping.wait_answer()
        stack.start()
        assert known(stack) == before
        late = pod()
        assert late.attach(conf) not in addresses_of(before["endpoint"])
        assert [ping.lost() for ping in pings] == [set(), set(), set()]
    assert late.pings(web)
    assert one.delete(conf).ok
    assert early.delete(stack.conf("green")).ok
    assert {row["container"] for row in stack.endpoints()} & {one.id, early.id, other.id} == {other.id}
    assert start_container(dockerd, "db", "blue") not in addresses_of(before["endpoint"])
    assert dockerd.pings("db", address)


@ends
def test_cni_while_ovsnetd_is_down(stack: Stack, pod: NewPod, end: End) -> None:
    conf, box, other = stack.conf("green", subnet=GREEN), pod(), pod()
    address = other.attach(conf)
    end(stack)
    for command in ("ADD", "DEL"):
        begin = time.monotonic()
        result = stack.cni(command, box.id, box.netns, conf)
        assert time.monotonic() - begin < 2
        assert (result.returncode, result.output["code"]) == (1, 11)
    stack.start()
    assert box.attach(conf) != address
    assert box.pings(address)


def test_state_server_killed(stack: Stack, pod: NewPod, tmp_path: Path) -> None:
    conf, one, other = stack.conf("green", subnet=GREEN), pod(), pod()
    one.attach(conf)
    address = other.attach(conf)
    before, victim = known(stack), stack.state_server()
    with Ping(one.netns, address, tmp_path / "ping") as ping:
        os.kill(victim, signal.SIGKILL)

        def back() -> bool:
            with suppress(ValueError):  # for a moment there is none
                return stack.state_server() != victim and stack.answers()
            return False

        wait_until(back, "the state server is started again")
        assert stack.alive
        assert known(stack) == before
        third = pod()
        assert third.attach(conf) not in addresses_of(before["endpoint"])
        assert ping.lost() == set()
    assert third.pings(address)
    assert one.delete(conf).ok


@ends
def test_dockerd_restarted(dockerd: Dockerd, stack: Stack, pod: NewPod, end: End) -> None:
    create_network(dockerd, stack, "blue", BLUE)
    start_container(dockerd, "web", "blue")
    box = pod()
    address = box.attach(stack.conf("blue"))
    before = known(stack)
    (pool,) = (each["name"] for each in before["pool"])
    for _ in range(2):  # it repeats to us what it knows, every time
        end(dockerd)
        assert box.pings(BLUE_GATEWAY)
        told = stack.log.stat().st_size
        dockerd.start()
        assert refusals(stack, told) == []
        now = known(stack)
        assert [{**each, "leased": 0} for each in now["pool"]] == [{**each, "leased": 0} for each in before["pool"]]
        assert now["network"] == before["network"]
        assert {row["container"] for row in now["endpoint"]} == {box.id}
        assert leases(stack, pool) == {BLUE_GATEWAY: "gateway", address: "endpoint"}
        assert dockerd.docker("network", "ls", "--quiet", "--filter", "name=blue").stdout
        db = start_container(dockerd, "db", "blue")
        dockerd.docker("start", "web")
        web = dockerd.address("web", "blue")
        assert len({web, db, address, BLUE_GATEWAY}) == 4
        members: dict[str, Reach] = {
            web: partial(dockerd.pings, "web"),
            db: partial(dockerd.pings, "db"),
            address: box.pings,
        }
        assert unanswered(members, BLUE_GATEWAY) == []
        assert addresses_of(stack.endpoints()) == members.keys()
        dockerd.docker("rm", "--force", "db")
    dockerd.docker("rm", "--force", "web")
    assert box.delete(stack.conf("blue")).ok
    dockerd.docker("network", "rm", "blue")
    assert stack.show("network", "ls") == []
    assert stack.show("pool", "ls") == []
