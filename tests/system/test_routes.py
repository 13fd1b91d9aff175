"""Gateway routes that step aside for Docker: a host in a namespace, a container's place behind a veth."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen, TimeoutExpired

import pytest

from tests.harness import Netns, Result

NewNetns = Callable[[], Netns]

V4, V6 = ("10.91.0.1/24", "10.91.0.2"), ("fd91::1/64", "fd91::2")
_CALL = """
import sys
from ipaddress import ip_interface
from ovsnet.link import routes
getattr(routes, sys.argv[1])("gw0", [ip_interface(arg) for arg in sys.argv[2:]])
"""


class Host:
    """A namespace with the gateway device `gw0`, and a neighbour behind it."""

    def __init__(self, new_netns: NewNetns) -> None:
        self.netns, far = new_netns(), new_netns()
        ip = self.netns.run
        ip("ip", "link", "add", "gw0", "type", "veth", "peer", "name", "far0", "netns", far.name)
        far.run("ip", "link", "set", "far0", "up")
        for (own, address), nodad in ((V4, []), (V6, ["nodad"])):
            ip("ip", "address", "add", own, "dev", "gw0", *nodad)
            far.run("ip", "address", "add", f"{address}/{own.partition('/')[2]}", "dev", "far0", *nodad)
        ip("ip", "link", "set", "gw0", "up")

    def call(self, function: str, *addresses: str, **how: bool) -> Result:
        """Calls `routes.hide` or `routes.show` on the host."""
        argv = (sys.executable, "-W", "error", "-c", _CALL, function, *(addresses or (V4[0], V6[0])))
        return self.netns.run(*argv, **how)

    def main(self, version: int) -> list[str]:
        """The main table, as printed; the link-local route comes and goes with the carrier."""
        text = self.netns.run("ip", f"-{version}", "route", "show").stdout
        return [line.strip() for line in text.splitlines() if not line.startswith("fe80::")]

    def everything(self) -> list[str]:
        """Main tables, rules, and our own table."""
        rules = [self.netns.run("ip", f"-{version}", "rule").stdout for version in (4, 6)]
        # A table without routes does not exist for `ip`.
        ours = [
            self.netns.run("ip", f"-{version}", "route", "show", "table", "28534", check=False).stdout
            for version in (4, 6)
        ]
        return [*self.main(4), *self.main(6), *rules, *ours]


@pytest.fixture
def gateway(netns: NewNetns) -> Host:
    return Host(netns)


@pytest.mark.parametrize("times", [1, 2])
def test_hidden_routes_leave_the_main_table_and_come_back_as_they_were(gateway: Host, times: int) -> None:
    before = gateway.everything()
    assert len(gateway.main(4)) == len(gateway.main(6)) == 1
    for _ in range(times):
        gateway.call("hide")
    assert gateway.main(4) == gateway.main(6) == []
    assert gateway.netns.pings(V4[1])
    assert gateway.netns.pings(V6[1])
    for _ in range(times):
        gateway.call("show")
    assert gateway.everything() == before
    assert gateway.netns.pings(V4[1])
    assert gateway.netns.pings(V6[1])


def test_one_family_is_hidden_alone(gateway: Host) -> None:
    before = gateway.main(6)
    gateway.call("hide", V4[0])
    assert gateway.main(4) == []
    assert gateway.main(6) == before


def test_other_routes_stay(gateway: Host) -> None:
    for route in (("10.92.0.0/24", "via", V4[1]), ("10.91.0.128/25", "dev", "gw0"), ("fd92::/64", "via", V6[1])):
        gateway.netns.run("ip", "route", "add", *route)
    before = gateway.everything()
    gateway.call("hide")
    assert [line.split()[0] for line in gateway.main(4)] == ["10.91.0.128/25", "10.92.0.0/24"]
    assert [line.split()[0] for line in gateway.main(6)] == ["fd92::/64"]
    gateway.call("show")
    assert gateway.everything() == before


def test_show_without_hide_changes_nothing(gateway: Host) -> None:
    before = gateway.everything()
    gateway.call("show")
    assert gateway.everything() == before


def test_traffic_goes_on_at_every_moment(gateway: Host, tmp_path: Path) -> None:
    """A ping every 2 ms (`-A` would wait for answers) while the routes go and come."""
    logs = [tmp_path / "4", tmp_path / "6"]
    pings = []
    for log, address in zip(logs, (V4[1], V6[1]), strict=True):
        with log.open("w") as out:
            argv = gateway.netns.argv("ping", "-n", "-q", "-i", "0.002", "-c", "2000", "-W", "2", address)
            pings.append(Popen(argv, stdout=out, stderr=out))  # ends by its count
    try:
        for _ in range(4):
            gateway.call("hide")
            gateway.call("show")
    finally:
        for ping in pings:
            try:
                ping.wait(30)
            except TimeoutExpired:
                ping.kill()
                ping.wait(10)
    for log in logs:
        assert " 0% packet loss" in log.read_text()


def test_a_missing_device_is_told_and_leaves_no_rule(gateway: Host) -> None:
    rules = [gateway.netns.ip(f"-{version}", "rule") for version in (4, 6)]
    gateway.call("hide")
    gateway.netns.run("ip", "link", "delete", "gw0")
    gateway.call("show")
    assert [gateway.netns.ip(f"-{version}", "rule") for version in (4, 6)] == rules
    refused = gateway.call("hide", check=False)
    assert refused.returncode != 0
    assert "device gw0 is missing: see ovs-vswitchd's log" in refused.stderr
