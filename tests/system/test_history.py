"""Who had an address when: one address goes from a Docker container to a pod, and ovsnetd is killed meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.harness import Dockerd, Netns, Stack
from tests.system.containers import create_network, start_container

pytestmark = pytest.mark.usefixtures("nothing_left")

SUBNET, GATEWAY = "10.97.1.0/24", "10.97.1.1"
OTHER = "10.97.2.0/24"


def history(stack: Stack, address: str, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.show("ipam", "history", address, *options)
    return found


def test_one_address_through_docker_and_cni(dockerd: Dockerd, stack: Stack, netns: Callable[[], Netns]) -> None:
    create_network(dockerd, stack, "past", SUBNET)
    address = start_container(dockerd, "web", "past")
    endpoint = dockerd.inspect("web")["NetworkSettings"]["Networks"]["past"]["EndpointID"]
    of_docker = history(stack, address)[0]
    assert (of_docker["container"], of_docker["network"], of_docker["until"]) == (endpoint, "past", None)
    dockerd.docker("rm", "--force", "web")
    between = datetime.now(UTC).isoformat()

    box, conf = netns(), stack.conf("past")
    pod = f"IgnoreUnknown=1;IP={address};K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1"
    added = stack.cni("ADD", box.name, box, conf, CNI_ARGS=pod)
    assert added.addresses == [address]
    of_cni = history(stack, address)[0]
    stack.kill9()
    stack.start()
    assert history(stack, address)[0] == of_cni
    assert stack.cni("DEL", box.name, box, conf, CNI_ARGS=pod).ok

    latest, first = history(stack, address)[:2]
    assert (latest["container"], latest["ifname"], latest["released_by"]) == (box.name, "eth0", "cni")
    assert (latest["labels"]["k8s-pod-name"], latest["since"]) == ("web-1", of_cni["since"])
    assert (first["container"], first["since"]) == (endpoint, of_docker["since"])
    assert (first["owner"]["kind"], first["released_by"]) == ("endpoint", "docker")
    assert first["until"] <= between <= latest["since"] <= latest["until"]
    assert history(stack, address, "--at", between) == []
    assert history(stack, address, "--at", latest["since"]) == [latest]
    assert history(stack, address, "--at", first["since"], "--pool", first["pool"]) == [first]
    assert "web-1" in stack.cli("ipam", "history", address).stdout

    dockerd.docker("network", "rm", "past")
    assert history(stack, address)[:2] == [latest, first]
    gateway = history(stack, GATEWAY)[0]
    assert (gateway["owner"]["kind"], gateway["released_by"]) == ("gateway", "docker")


def test_an_endpoint_that_the_operator_removes(stack: Stack, netns: Callable[[], Netns]) -> None:
    box, conf = netns(), stack.conf("past", subnet=OTHER)
    added = stack.cni("ADD", box.name, box, conf)
    assert added.ok, added
    stack.cli("endpoint", "rm", stack.endpoints()[0]["id"])
    record = history(stack, added.addresses[0])[0]
    assert (record["container"], record["released_by"]) == (box.name, "api")
    stack.cli("network", "rm", "past")
