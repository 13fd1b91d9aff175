"""`/metrics` and the log of a real ovsnetd: what CNI, Docker and REST did, the pools, and the traffic of an endpoint."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness import Ovs, Stack, run, wait_until
from tests.system.containers import Pod

pytestmark = pytest.mark.usefixtures("nothing_left")

SUBNET = "10.96.1.0/24"


def scrape(stack: Stack) -> str:
    return run("curl", "--silent", "--fail", "--unix-socket", stack.socket, "http://localhost/metrics").stdout


def value(stack: Stack, name: str, **labels: str) -> float:
    """The sum of the samples of that name that have these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(scrape(stack))
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_operations_pools_and_traffic(stack: Stack, ovs: Ovs, pod: Callable[[], Pod], promtool: str) -> None:
    ovs.vsctl("set", "Open_vSwitch", ".", "other_config:stats-update-interval=1000")
    conf = stack.conf("measured", subnet=SUBNET)
    add = {"edge": "cni", "operation": "ADD", "result": "ok"}
    before = value(stack, "ovsnet_operation_seconds_count", **add)
    refused = value(stack, "ovsnet_operation_seconds_count", edge="docker", operation="NetworkDriver.Leave")
    repaired = value(stack, "ovsnet_repairs_total", result="ok")
    box, other = pod(), pod()
    box.attach(conf)
    address = other.attach(conf)
    stack.docker_call("NetworkDriver.Leave", NetworkID="0" * 64, EndpointID="1" * 64)
    assert value(stack, "ovsnet_operation_seconds_count", **add) == before + 2
    assert value(stack, "ovsnet_operation_seconds_count", edge="docker", operation="NetworkDriver.Leave") == refused + 1
    assert value(stack, "ovsnet_pool_addresses", pool="measured", state="leased") == 3
    assert value(stack, "ovsnet_pool_addresses", pool="measured") == 254
    assert value(stack, "ovsnet_pool_leases", pool="measured", kind="endpoint") == 2
    assert value(stack, "ovsnet_endpoints", network="measured", origin="cni") == 2
    assert value(stack, "ovsnet_switch_ports", role="endpoint") == 2
    assert value(stack, "ovsnet_database_connected") == 2
    assert value(stack, "ovsnet_database_transactions_total", database="state", result="ok") > 0

    assert box.netns.pings(address, count=3)
    mine = {"network": "measured", "container": box.id, "ifname": "eth0"}
    for way in ("sent", "received"):
        name = f"ovsnet_endpoint_{way}_packets_total"
        wait_until(partial(lambda name: value(stack, name, **mine) >= 3, name), f"three packets {way}", 20)
    ovs.vsctl("set", "Port", next(one["port"] for one in stack.endpoints()), "tag=4000")
    wait_until(lambda: value(stack, "ovsnet_repairs_total", result="ok") > repaired, "the repair is counted", 20)
    found = subprocess.run(
        [promtool, "check", "metrics"], input=scrape(stack), capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")


def test_each_operation_has_one_line(stack: Stack, pod: Callable[[], Pod]) -> None:
    box = pod()
    start = stack.log.stat().st_size
    box.attach(stack.conf("told", subnet=SUBNET))
    assert not stack.cni("ADD", "no/id", box.netns, stack.conf("told")).ok

    def lines() -> list[dict[str, Any]]:
        with stack.log.open("rb") as log:
            log.seek(start)
            found = [json.loads(line) for line in log if line.startswith(b"{") and line.endswith(b"\n")]
        return [one for one in found if one["event"] == "cni ADD"]

    wait_until(lambda: len(lines()) >= 2, "both are told")
    good, bad = lines()
    assert (good["result"], good["level"], good["containerid"]) == ("ok", "info", box.id)
    assert (bad["result"], bad["level"]) == ("cni-4", "warning")
    assert good["request_id"] != bad["request_id"]
    assert good["ms"] > 0
