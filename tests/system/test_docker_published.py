"""Published ports and the way out of Docker's networks: `docker run -p` with our driver, on real packets from everywhere."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.harness import IMAGE, Dockerd, Netns, Stack, wait_until
from tests.system.containers import create_network
from tests.system.published import HOST, HOST6, OUTSIDE, OUTSIDE6, SERVER, ask

pytestmark = pytest.mark.usefixtures("nothing_left")

PYTHON = "/usr/bin/python3"
SUBNET, SUBNET6 = "10.94.1.0/24", "fd94:1::/64"
OTHER = "10.94.2.0/24"
GATEWAY = "10.94.1.1"

Run = Callable[..., Netns]


@pytest.fixture
def run(dockerd: Dockerd) -> Iterator[Run]:
    """Starts containers on a network with the arguments given, each with servers on its ports 80 and 53 that tell its name."""
    with ExitStack() as undo:

        def start(name: str, network: str, *arguments: str) -> Netns:
            dockerd.docker("run", "--detach", "--name", name, "--network", network, *arguments, IMAGE)
            where = dockerd.netns(name)
            for kind, port, flag in (("SOCK_STREAM", 80, "-Hltn"), ("SOCK_DGRAM", 53, "-Hlun")):
                argv = where.argv(PYTHON, "-ISc", SERVER, name, kind, str(port))
                server = undo.enter_context(subprocess.Popen(argv, stdin=subprocess.DEVNULL))
                undo.callback(server.kill)
                wait_until(lambda f=flag, p=port: f":{p} " in where.run("ss", f).stdout, "the server listens")  # type: ignore[misc]
            return where

        yield start


def published(stack: Stack, container: str) -> list[str]:
    """What `ovsnet endpoint ls` tells of the only endpoint with published ports."""
    del container
    (found,) = [row["published"] for row in stack.show("endpoint", "ls") if row["published"]]
    return sorted(found)


def test_reached_from_everywhere(stack: Stack, dockerd: Dockerd, outside: Netns, run: Run) -> None:
    create_network(dockerd, stack, "pub", SUBNET, SUBNET6)
    create_network(dockerd, stack, "far", OTHER)
    run("web", "pub", "-p", "18080:80", "-p", "18053:53/udp")
    neighbour = run("near", "pub")
    stranger = run("stranger", "far")
    assert ask(outside, HOST, 18080) == f"web {OUTSIDE}"  # the client's own address arrives
    assert ask(outside, HOST6, 18080) == f"web {OUTSIDE6}"
    assert ask(outside, HOST, 18053, "SOCK_DGRAM") == f"web {OUTSIDE}"
    assert ask(stack.host, HOST, 18080).startswith("web ")
    assert ask(stack.host, "127.0.0.1", 18080).startswith("web ")
    assert ask(neighbour, HOST, 18080).startswith("web ")
    assert ask(stranger, HOST, 18080).startswith("web ")
    assert published(stack, "web") == ["tcp/18080/80", "udp/18053/53"]
    # Not published: another network's containers stay out of reach.
    assert ask(stranger, dockerd.address("web", "pub"), 80) != "web"


def test_one_address_a_range_and_any_port(stack: Stack, dockerd: Dockerd, outside: Netns, run: Run) -> None:
    create_network(dockerd, stack, "pub", SUBNET)
    run("one", "pub", "-p", f"{HOST}:18080:80")
    assert ask(outside, HOST, 18080) == f"one {OUTSIDE}"
    assert ask(stack.host, "127.0.0.1", 18080) == "ConnectionRefusedError"
    dockerd.docker("rm", "--force", "one")
    run("first", "pub", "-p", "18100-18101:80")
    run("second", "pub", "-p", "18100-18101:80")
    assert {ask(outside, HOST, port) for port in (18100, 18101)} == {f"first {OUTSIDE}", f"second {OUTSIDE}"}
    third = dockerd.docker(
        "run", "--detach", "--name", "third", "--network", "pub", "-p", "18100-18101:80", IMAGE, check=False
    )
    assert "in use" in third.stderr
    dockerd.docker("rm", "--force", "first", "second", "third")
    run("any", "pub", "-p", "80")
    (port,) = published(stack, "any")
    assert ask(outside, HOST, int(port.split("/")[1])) == f"any {OUTSIDE}"


def test_a_port_in_use_is_refused(stack: Stack, dockerd: Dockerd, outside: Netns, run: Run) -> None:
    create_network(dockerd, stack, "pub", SUBNET)
    run("web", "pub", "-p", "18080:80")
    second = dockerd.docker(
        "run", "--detach", "--name", "two", "--network", "pub", "-p", "18080:80", IMAGE, check=False
    )
    assert "port 18080 of this host is in use" in second.stderr
    dockerd.docker("rm", "--force", "two")
    argv = stack.host.argv(PYTHON, "-ISc", SERVER, "host", "SOCK_STREAM", "18081")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: ":18081 " in stack.host.run("ss", "-Hltn").stdout, "the server listens")
            third = dockerd.docker(
                "run", "--detach", "--name", "three", "--network", "pub", "-p", "18081:80", IMAGE, check=False
            )
        finally:
            server.kill()
    assert "port 18081 of this host is in use" in third.stderr
    assert ask(outside, HOST, 18080) == f"web {OUTSIDE}"


def test_it_ends_with_the_container_and_outlives_a_restart_of_ovsnetd(
    stack: Stack, dockerd: Dockerd, outside: Netns, run: Run
) -> None:
    create_network(dockerd, stack, "pub", SUBNET)
    run("web", "pub", "-p", "18080:80")
    stack.stop()
    assert ask(outside, HOST, 18080) == f"web {OUTSIDE}"
    stack.start()
    assert ask(outside, HOST, 18080) == f"web {OUTSIDE}"
    dockerd.docker("stop", "--time", "0", "web")
    assert ask(outside, HOST, 18080) == "ConnectionRefusedError"
    dockerd.docker("start", "web")
    assert published(stack, "web") == ["tcp/18080/80"]
    dockerd.docker("network", "disconnect", "--force", "pub", "web")
    assert [row for row in stack.show("endpoint", "ls") if row["published"]] == []


@pytest.mark.parametrize("how", ["table", "ruleset", "rules"])
def test_rules_that_somebody_flushed_come_back(
    stack: Stack, dockerd: Dockerd, outside: Netns, run: Run, how: str
) -> None:
    create_network(dockerd, stack, "pub", SUBNET)
    run("web", "pub", "-p", "18080:80")
    table = f"ovsnet-{stack.prefix}"
    what: dict[str, tuple[str, ...]] = {
        "table": ("delete", "table", "inet", table),
        "ruleset": ("flush", "ruleset"),
        "rules": ("flush", "table", "inet", table),
    }
    stack.host.run("nft", *what[how])
    assert ask(outside, HOST, 18080) == "ConnectionRefusedError"
    wait_until(lambda: ask(outside, HOST, 18080) == f"web {OUTSIDE}", "the rules are back", 20)


@pytest.mark.parametrize("masquerade", [True, False])
def test_what_leaves_gets_the_hosts_address(
    stack: Stack, dockerd: Dockerd, outside: Netns, run: Run, masquerade: bool
) -> None:
    options = () if masquerade else ("--opt", "com.docker.network.bridge.enable_ip_masquerade=false")
    drivers = ("--driver", stack.driver, "--ipam-driver", stack.driver)
    dockerd.docker("network", "create", *drivers, f"--subnet={SUBNET}", *options, "pub")
    container = run("web", "pub")
    argv = outside.argv(PYTHON, "-ISc", SERVER, "out", "SOCK_STREAM", "80")
    if not masquerade:
        outside.run("ip", "route", "add", SUBNET, "via", HOST)
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: ":80 " in outside.run("ss", "-Hltn").stdout, "the server listens")
            seen = ask(container, OUTSIDE, 80)
        finally:
            server.kill()
    assert seen == f"out {HOST if masquerade else dockerd.address('web', 'pub')}"


def test_an_internal_network_has_no_way_out(stack: Stack, dockerd: Dockerd, outside: Netns, run: Run) -> None:
    del outside
    drivers = ("--driver", stack.driver, "--ipam-driver", stack.driver)
    dockerd.docker("network", "create", *drivers, "--internal", f"--subnet={SUBNET}", "inside")
    one, two = run("one", "inside"), run("two", "inside")
    assert one.pings(dockerd.address("two", "inside"))
    assert two.pings(dockerd.address("one", "inside"))
    assert not one.pings(OUTSIDE, wait=1)
    assert not one.pings(HOST, wait=1)


def test_nothing_of_a_refused_port_map_stays(stack: Stack, dockerd: Dockerd) -> None:
    create_network(dockerd, stack, "pub", SUBNET)
    refused: Any = dockerd.docker(
        "run", "--detach", "--name", "web", "--network", "pub", "-p", "[2001:db8::1]:18080:80", IMAGE, check=False
    )
    assert refused.returncode
    dockerd.docker("rm", "--force", "web")
    assert stack.show("endpoint", "ls") == []
