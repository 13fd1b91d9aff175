"""`ovsnet ipam check` on the live stack: silent when all is well, precise when something was broken on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness import Dockerd, Netns, Stack
from tests.system.containers import Pod, create_network, start_container

pytestmark = pytest.mark.usefixtures("nothing_left")


CLEAN: dict[str, Any] = {"status": 0, "left": [], "mended": []}


def kinds(stack: Stack, *more: str) -> dict[str, Any]:
    """The check's exit code, and the kinds of what it left and mended."""
    done = stack.cli("ipam", "check", *more, "-o", "json", check=False)
    found = json.loads(done.stdout)
    left, mended = ([one["kind"] for one in found[key]] for key in ("findings", "mended"))
    return {"status": done.returncode, "left": left, "mended": mended}


def test_docker_and_cni_agree(stack: Stack, dockerd: Dockerd, pod: Callable[..., Pod]) -> None:
    create_network(dockerd, stack, "blue", "10.71.0.0/24")
    start_container(dockerd, "web", "blue")
    pod().attach(stack.conf("blue"))
    assert kinds(stack) == CLEAN


def test_a_namespace_that_went_without_a_word_is_mended(stack: Stack, netns: Callable[[], Netns]) -> None:
    stack.cli("network", "create", "blue", "--subnet", "10.72.0.0/24")
    space = netns()
    assert stack.cni("ADD", "lost", space, stack.conf("blue")).ok
    space.delete()
    gone = {"status": 1, "left": ["namespace-gone"], "mended": []}
    assert kinds(stack) == gone
    assert kinds(stack, "--repair", "--dry-run") == gone
    assert kinds(stack, "--repair") == {"status": 0, "left": [], "mended": ["namespace-gone"]}
    assert kinds(stack) == CLEAN
    assert stack.endpoints() == []
    stack.cli("network", "rm", "blue")


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        (("ip", "addr", "flush", "dev", "eth0"), "link-wrong"),
        (("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"), "link-wrong"),
        (("ip", "link", "del", "eth0"), "link-missing"),
    ],
)
def test_a_link_that_somebody_changed_is_told(
    stack: Stack, netns: Callable[[], Netns], what: tuple[str, ...], kind: str
) -> None:
    stack.cli("network", "create", "blue", "--subnet", "10.73.0.0/24")
    space = netns()
    assert stack.cni("ADD", "c", space, stack.conf("blue")).ok
    assert kinds(stack) == CLEAN
    space.run(*what)
    assert kinds(stack) == {"status": 1, "left": [kind], "mended": []}
    assert kinds(stack, "--repair")["mended"] == []
    assert stack.cni("DEL", "c", space, stack.conf("blue")).ok
    stack.cli("network", "rm", "blue")


@pytest.mark.parametrize(
    ("command", "kind"),
    [(("set", "Port", "{port}", "tag=4000"), "port-wrong"), (("del-port", "{port}"), "port-missing")],
)
def test_a_port_that_somebody_changed_is_told(
    stack: Stack, netns: Callable[[], Netns], command: tuple[str, ...], kind: str
) -> None:
    stack.cli("network", "create", "blue", "--subnet", "10.74.0.0/24")
    space = netns()
    assert stack.cni("ADD", "c", space, stack.conf("blue")).ok
    (endpoint,) = stack.endpoints()
    stack.ovs.vsctl(*(one.format(port=endpoint["port"]) for one in command))
    found = kinds(stack)
    assert found["status"] == 1
    assert kind in found["left"]
    assert stack.cni("DEL", "c", space, stack.conf("blue")).ok
    assert kinds(stack) == CLEAN
    stack.cli("network", "rm", "blue")


def test_an_address_that_docker_forgot_is_taken_back(stack: Stack) -> None:
    stack.cli("pool", "create", "blue", "--subnet", "10.75.0.0/24", "--static", "10.75.0.200")
    pool = stack.show("pool", "show", "blue")
    assert pool["static_ranges"] == ["10.75.0.200"]
    given = stack.docker_call("IpamDriver.RequestAddress", PoolID=pool["id"], Address="", Options=None)
    address = given["Address"].partition("/")[0]
    assert [one["owner"]["kind"] for one in stack.show("ipam", "show", address)] == ["docker"]
    assert stack.cli("ipam", "release", "blue", "10.75.0.1", check=False).returncode == 4
    stack.cli("ipam", "release", "blue", address)
    assert stack.cli("ipam", "show", address, check=False).returncode == 3
    stack.cli("pool", "rm", "blue")
