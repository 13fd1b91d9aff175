"""Beside a dockerd that filters: its iptables rules, with the policy of FORWARD at DROP."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import IMAGE, Dockerd, Netns, Stack, wait_until
from tests.system.containers import create_network
from tests.system.published import HOST, OUTSIDE, PYTHON, SERVER, ask

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.docker]

SUBNET, BRIDGED = "10.96.1.0/24", "10.96.2.0/24"


@pytest.fixture
def filtering(stack: Stack, token: str, directory: Path) -> Iterator[Dockerd]:
    """A dockerd with iptables; its rules go with the test."""
    with ExitStack() as undo:
        dockerd = Dockerd(stack.host, f"{token}f", directory / "filtering", "--iptables=true")
        undo.callback(_flush, stack.host)
        undo.callback(dockerd.close)
        dockerd.start()
        undo.callback(dockerd.clear)
        yield dockerd


def _flush(host: Netns) -> None:
    for table in ("filter", "nat", "mangle"):
        host.run("nft", "delete", "table", "ip", table, check=False)


def filters(host: Netns) -> str:
    """What `iptables -S` tells."""
    return host.run("iptables", "-S").stdout


def test_published_ports_and_the_way_out_pass_dockers_filter(stack: Stack, filtering: Dockerd, outside: Netns) -> None:
    chain = f"OVSNET-{stack.prefix}"
    # Docker does so itself where it is the first to switch forwarding on.
    stack.host.run("iptables", "-P", "FORWARD", "DROP")
    wait_until(lambda: f"-A DOCKER-USER -j {chain}" in filters(stack.host), "our chain is called", 20)
    create_network(filtering, stack, "pub", SUBNET)
    filtering.docker("network", "create", "--driver", "bridge", f"--subnet={BRIDGED}", "bridged")
    run = ("run", "--detach", "--network")
    filtering.docker(*run, "pub", "--name", "web", "-p", "18080:80", IMAGE)
    filtering.docker(*run, "bridged", "--name", "theirs", IMAGE)
    web = filtering.netns("web")
    with ExitStack() as undo:
        for where, name in ((web, "web"), (outside, "out")):
            argv = where.argv(PYTHON, "-ISc", SERVER, name, "SOCK_STREAM", "80")
            server = undo.enter_context(subprocess.Popen(argv, stdin=subprocess.DEVNULL))
            undo.callback(server.kill)
            wait_until(lambda here=where: ":80 " in here.run("ss", "-Hltn").stdout, "the server listens")  # type: ignore[misc]
        assert ask(outside, HOST, 18080) == f"web {OUTSIDE}"
        assert ask(web, OUTSIDE, 80) == f"out {HOST}"
        # Docker's own isolation stands.
        assert not web.pings(filtering.address("theirs", "bridged"), wait=1)
        # Somebody flushes Docker's chain.
        stack.host.run("iptables", "-F", "DOCKER-USER")
        wait_until(lambda: ask(outside, HOST, 18080) == f"web {OUTSIDE}", "our chain is called again", 20)


def test_the_last_rule_goes(stack: Stack, filtering: Dockerd) -> None:
    chain, table = f"OVSNET-{stack.prefix}", f"ovsnet-{stack.prefix}"
    del filtering
    wait_until(lambda: f"-N {chain}" in filters(stack.host), "our chain is there", 20)
    refused = stack.host.run(*stack.command("--remove-rules"), check=False)
    assert refused.returncode == 1, "it runs: its rules are in use"
    stack.stop()
    try:
        for _ in range(2):  # again is harmless
            stack.host.run(*stack.command("--remove-rules"))
            assert chain not in filters(stack.host)
            assert table not in stack.host.run("nft", "list", "tables").stdout
    finally:
        stack.start()
