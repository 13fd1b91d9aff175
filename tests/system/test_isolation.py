"""Which networks reach each other by their host: none but those that are routed, whoever has made them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.harness import IMAGE, Dockerd, Netns, Stack
from tests.system.containers import Pod

pytestmark = pytest.mark.usefixtures("nothing_left")

SUBNETS = {number: (f"10.89.{number}.0/24", f"fd89:{number}::/64") for number in range(4)}
KEPT = {number: (f"10.89.{number}.9", f"fd89:{number}::9") for number in range(4)}


@pytest.fixture
def networks(stack: Stack, dockerd: Dockerd, pod: Callable[[], Pod]) -> Iterator[dict[str, Netns]]:
    """A container on each of four dual-stack networks: three that are routed, of each edge one, and one that is not."""
    boxes = {}
    drivers = ("--driver", stack.driver, "--ipam-driver", stack.driver, "--ipv6")
    for number, name, more in ((0, "alone", ()), (1, "docker", ("--opt", "ovsnet.isolated=false"))):
        subnets = [f"--subnet={subnet}" for subnet in SUBNETS[number]]
        dockerd.docker("network", "create", *drivers, *subnets, *more, name)
        kept = ("--ip", KEPT[number][0], "--ip6", KEPT[number][1])
        dockerd.docker("run", "--detach", "--name", name, "--network", name, *kept, IMAGE)
        boxes[name] = dockerd.netns(name)
    cni, cli = pod(), pod()
    ranges = [[{"subnet": subnet}] for subnet in SUBNETS[2]]
    cni.attach(Stack.conf("cni", ranges=ranges) | {"routed": True, "args": {"cni": {"ips": KEPT[2]}}})
    stack.cli("network", "create", "cli", "--routed", *(f"--subnet={subnet}" for subnet in SUBNETS[3]))
    cli.attach({"cniVersion": "1.0.0", "name": "cli", "type": "ovsnet", "args": {"cni": {"ips": KEPT[3]}}})
    boxes |= {"cni": cni.netns, "cli": cli.netns}
    yield boxes
    for each in (cni, cli):
        each.detach_all()
    stack.cli("network", "rm", "cli")


def test_only_routed_networks_reach_each_other(stack: Stack, networks: dict[str, Netns]) -> None:
    numbers = {name: number for number, name in enumerate(networks)}

    reached = {
        (one, other, which)
        for one, box in networks.items()
        for other, number in numbers.items()
        for which, address in enumerate(KEPT[number])
        if one != other and box.pings(address, wait=5 if "alone" not in (one, other) else 0.3)
    }
    routed = networks.keys() - {"alone"}
    assert reached == {(one, other, which) for one in routed for other in routed - {one} for which in (0, 1)}
    shown = {one["name"]: one["routed"] for one in stack.show("network", "ls")}
    assert {name: shown[name] for name in ("cni", "cli")} == {"cni": True, "cli": True}
    assert sorted(shown.values()) == [False, True, True, True]


def test_what_contradicts_is_refused(stack: Stack, dockerd: Dockerd, pod: Callable[[], Pod]) -> None:
    box = pod()
    conf = Stack.conf("plain", subnet=SUBNETS[0][0])
    box.attach(conf)
    result = pod().add(conf | {"routed": True})
    assert (result.returncode, result.output["code"]) == (1, 111)
    assert "routed" in json.dumps(result.output)
    join = ("--ipam-opt", "ovsnet.network=plain", "--opt", "ovsnet.network=plain", "--opt", "ovsnet.isolated=false")
    drivers = ("--driver", stack.driver, "--ipam-driver", stack.driver)
    refused = dockerd.docker("network", "create", *drivers, *join, "local", check=False)
    assert "network plain is isolated" in refused.stderr
    refused = dockerd.docker(
        *(
            "network",
            "create",
            *drivers,
            "--internal",
            "--opt",
            "ovsnet.isolated=false",
            f"--subnet={SUBNETS[1][0]}",
            "in",
        ),
        check=False,
    )
    assert "no gateway on the host" in refused.stderr
    refused = stack.cli("network", "create", "in", "--internal", "--routed", f"--subnet={SUBNETS[1][0]}", check=False)
    assert "no gateway on the host" in refused.stderr
    assert [one["name"] for one in stack.show("network", "ls")] == ["plain"]
