"""A thousand ADDs and a thousand DELs, fifty at a time: no error, every address once, nothing left."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.harness import CniResult, Netns, Stack, wait_until

pytestmark = [pytest.mark.long, pytest.mark.faults, pytest.mark.usefixtures("nothing_left")]

NAMESPACES, INTERFACES, AT_ONCE = 20, 50, 50


def test_a_thousand(stack: Stack, netns: Callable[[], Netns]) -> None:
    conf: dict[str, Any] = stack.conf("thousand", subnet="10.93.0.0/20") | {"isDefaultGateway": False}
    namespaces = [netns() for _ in range(NAMESPACES)]
    # Neighbours in time are in different namespaces, as they are on a host that starts many containers.
    places = [(each, f"eth{number}") for number in range(INTERFACES) for each in namespaces]

    def call(command: str) -> list[CniResult]:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(lambda place: stack.cni(command, place[0].name, place[0], conf, place[1]), places))

    added = call("ADD")
    try:
        assert [result for result in added if not result.ok] == []
        assert len({address for result in added for address in result.addresses}) == len(places)
        assert len(stack.endpoints()) == len(places)
        assert all(each.pings("10.93.0.1") for each in namespaces)
    finally:
        deleted = call("DEL")
    assert [result for result in deleted if not result.ok] == []
    assert stack.endpoints() == []
    stack.cli("ipam", "check")
    stack.cli("network", "rm", "thousand")
    # The ports are gone; their devices take ovs-vswitchd 17 ms each.
    wait_until(lambda: not stack.leftovers(), "all devices are gone", 60)
