"""A thousand ADDs and a thousand DELs, fifty at a time or all at once: no error, every address once, nothing left."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import FaultRow
from tests.harness import CniResult, Netns, Stack, wait_until

pytestmark = [pytest.mark.long, pytest.mark.faults, pytest.mark.usefixtures("nothing_left")]

NAMESPACES, INTERFACES = 20, 50


@pytest.mark.parametrize("at_once", [50, pytest.param(1000, marks=pytest.mark.whole)])
def test_a_thousand(stack: Stack, netns: Callable[[], Netns], fault_row: FaultRow, at_once: int) -> None:
    conf: dict[str, Any] = stack.conf("thousand", subnet="10.93.0.0/20") | {"isDefaultGateway": False}
    namespaces = [netns() for _ in range(NAMESPACES)]
    # Neighbours in time are in different namespaces, as they are on a host that starts many containers.
    places = [(each, f"eth{number}") for number in range(INTERFACES) for each in namespaces]

    def call(command: str) -> tuple[list[CniResult], float]:
        begun = time.monotonic()
        with ThreadPoolExecutor(at_once) as threads:
            done = threads.map(lambda place: stack.cni(command, place[0].name, place[0], conf, place[1]), places)
            return list(done), time.monotonic() - begun

    added, seconds = call("ADD")
    try:
        given = [address for result in added for address in result.addresses]
        endpoints, reached = len(stack.endpoints()), [each.pings("10.93.0.1") for each in namespaces]
    finally:
        deleted, _ = call("DEL")
    left = stack.endpoints()
    refused = [result for result in (*added, *deleted) if not result.ok]
    fault_row(
        fault=f"{len(places)} ADDs, then {len(places)} DELs, {at_once} at once",
        rounds=2 * len(places),
        lost=len(refused),
        leaked=len(left),
        doubled=len(given) - len(set(given)),
        back=seconds,
        gate="0 errors (back: until the last ADD was answered)",
    )
    assert refused == []
    assert (len(set(given)), endpoints, left) == (len(places), len(places), [])
    assert all(reached)
    stack.cli("ipam", "check")
    stack.cli("network", "rm", "thousand")
    # The ports are gone; their devices take ovs-vswitchd 17 ms each.
    wait_until(lambda: not stack.leftovers(), "all devices are gone", 60)
