"""`devstack/bench.sh cni`: our CNI plugin against the reference plugins `bridge` + `host-local`, in turns, from exec to exit.

Needs root, a running ovsnetd with our plugin installed, and the reference plugins. Both are started the same way, each ADD in a
network namespace of its own; the namespaces stay until the end, because the kernel takes them down under RTNL and would disturb
what is measured next. After each DEL there is a pause, so that work left behind an answer burdens nobody else's.
"""

from __future__ import annotations

import argparse
import ipaddress
import itertools
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ovsnet.client import Client
from ovsnet.errors import NotFound, OvsnetError

from .common import REFERENCE_DIR, BenchError, Execution, execute, interruptible, percentile, run

WARM_UP = 5  # rounds that do not count
SETTLE = 0.05  # seconds after a DEL
PER_NETNS = 20  # endpoints in one namespace, of those that exist beforehand
CROWDS = 3  # times that many come at once, for each contestant
CROWD_SETTLE = 2.0  # seconds after their DELs
AT_ONCE = 8  # of those, made at the same time

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


@dataclass
class Plugin:
    """One of the two contestants, and what was measured of it."""

    label: str
    path: Path
    config: dict[str, Any]
    add: list[float] = field(default_factory=list)
    delete: list[float] = field(default_factory=list)
    pings: list[bool] = field(default_factory=list)
    crowd: list[float] = field(default_factory=list)  # milliseconds until the last of many at once had its answer

    def call(self, command: str, container: str, netns: Path, ifname: str = "eth0") -> Execution:
        """ADD or DEL; BenchError if it fails."""
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": str(netns),
            "CNI_IFNAME": ifname,
            "CNI_PATH": str(REFERENCE_DIR),
            "PATH": os.defpath,
        }
        done = execute([str(self.path)], environment, json.dumps(self.config).encode())
        if done.status:
            raise BenchError(f"{self.path} {command}: {done.output.decode(errors='replace').strip() or done.status}")
        return done


@dataclass(frozen=True)
class Arguments:
    """The command line."""

    count: int
    endpoints: int
    at_once: int
    json: bool
    socket: Path
    bin_dir: Path


def parse(argv: Sequence[str] | None) -> Arguments:
    """The command line, or an exit with the usage."""
    parser = argparse.ArgumentParser(prog="bench.sh cni", description="Our CNI plugin against bridge + host-local.")
    parser.add_argument("--count", type=int, default=100, help="ADDs and DELs of each (default: %(default)s)")
    parser.add_argument("--endpoints", type=int, default=0, help="endpoints of ours that exist beforehand (default: 0)")
    parser.add_argument(
        "--at-once", type=int, default=50, help="ADDs at the same time, in turns (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--socket", type=Path, default=Path("/run/ovsnet/ovsnet.sock"), help="ovsnetd's (%(default)s)")
    parser.add_argument("--bin-dir", type=Path, default=Path("/opt/cni/bin"), help="has our plugin (%(default)s)")
    found = parser.parse_args(argv)
    if found.count < 1 or not 0 <= found.endpoints <= 30_000 or not 1 <= found.at_once <= 1000:
        parser.error("--count is at least 1, --endpoints 0 to 30000, --at-once 1 to 1000")
    return Arguments(**vars(found))


class Bench:
    """One run: what it makes is registered on `stack` right away, and removed in the opposite order."""

    def __init__(self, arguments: Arguments, stack: ExitStack) -> None:
        self.arguments = arguments
        self.stack = stack
        self.token = secrets.token_hex(3)
        self.client = Client(str(arguments.socket))
        self.names = (f"bench-{self.token}-{number}" for number in itertools.count())
        self.ping = [shutil.which("ping")] if shutil.which("ping") else [shutil.which("busybox"), "ping"]
        self.nsenter = shutil.which("nsenter")

    def check(self) -> None:
        """BenchError in words if something that is needed is not there."""
        if os.geteuid():
            raise BenchError("this needs root")
        needed = [self.arguments.bin_dir / "ovsnet", REFERENCE_DIR / "bridge", REFERENCE_DIR / "host-local"]
        for path in needed:
            if not os.access(path, os.X_OK):
                raise BenchError(f"{path} is missing: devstack/up.sh installs it")
        if self.nsenter is None or self.ping[0] is None:
            raise BenchError("nsenter, and ping or busybox, are needed")
        self.client.health()  # an error if it is not well

    def contestants(self) -> tuple[Plugin, Plugin]:
        """Ours and the reference, both with a gateway on the host, a default route and a /16 of their own."""
        subnets = self._free_subnets()
        ours = {
            "cniVersion": "1.0.0",
            "name": f"bench-{self.token}",
            "type": "ovsnet",
            "isDefaultGateway": True,
            "ipam": {"type": "ovsnet-ipam", "subnet": str(next(subnets))},
        }
        data = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="ovsnet-bench-"))
        bridge = f"obr{self.token}"
        reference = ours | {
            "name": f"bench-ref-{self.token}",
            "type": "bridge",
            "bridge": bridge,
            "isGateway": True,
            "ipam": {"type": "host-local", "subnet": str(next(subnets)), "dataDir": data},
        }
        forwarding = FORWARDING.read_text(encoding="ascii")  # the plugin `bridge` switches it on
        self.stack.callback(FORWARDING.write_text, forwarding, encoding="ascii")
        self.stack.callback(self._delete_bridge, bridge)
        self.stack.callback(self._delete_network, str(ours["name"]))
        return (
            Plugin("ovsnet", self.arguments.bin_dir / "ovsnet", ours),
            Plugin("bridge + host-local", REFERENCE_DIR / "bridge", reference),
        )

    def netns(self) -> tuple[str, Path]:
        """A fresh network namespace: its name, which also serves as container ID, and its path."""
        name = next(self.names)
        self.stack.callback(self._delete_netns, name)
        run("ip", "netns", "add", name)
        return name, Path("/run/netns", name)

    def attach_beforehand(self, plugin: Plugin) -> None:
        """The endpoints that exist beforehand."""
        places = []
        for number in range(self.arguments.endpoints):
            if number % PER_NETNS == 0:
                name, path = self.netns()
            places.append((name, path, f"eth{number % PER_NETNS}"))

        def each(command: str) -> None:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for _ in pool.map(lambda place: plugin.call(command, *place), places):
                    pass

        self.stack.callback(each, "DEL")
        each("ADD")

    def round(self, plugin: Plugin, *, counts: bool) -> None:
        """ADD, the first ping, DEL, in a fresh namespace."""
        name, path = self.netns()
        with ExitStack() as undo:
            undo.callback(plugin.call, "DEL", name, path)
            added = plugin.call("ADD", name, path)
            ready = self._first_ping(path, json.loads(added.output)["ips"][0]["gateway"])
            undo.pop_all()
        deleted = plugin.call("DEL", name, path)
        time.sleep(SETTLE)
        if counts:
            plugin.add.append(added.ms)
            plugin.delete.append(deleted.ms)
            plugin.pings.append(ready)

    def crowd(self, plugin: Plugin) -> None:
        """Many ADDs at the same time, each in a fresh namespace, then their DELs."""
        places = [self.netns() for _ in range(self.arguments.at_once)]
        with ThreadPoolExecutor(len(places)) as pool:
            began = time.perf_counter()
            try:
                list(pool.map(lambda place: plugin.call("ADD", *place), places))
                plugin.crowd.append((time.perf_counter() - began) * 1e3)
            finally:
                list(pool.map(lambda place: plugin.call("DEL", *place), places))
        time.sleep(CROWD_SETTLE)

    def _first_ping(self, netns: Path, gateway: str) -> bool:
        argv = [str(self.nsenter), f"--net={netns}", *map(str, self.ping), "-c1", "-W1", gateway]
        return execute(argv, {"PATH": os.defpath}).status == 0

    def _free_subnets(self) -> Iterator[ipaddress.IPv4Network]:
        """Prefixes of 16 bits that overlap neither a route of the host nor a pool."""
        routes = [route["dst"] for route in json.loads(run("ip", "-j", "-4", "route", "show", "table", "all"))]
        taken = [ipaddress.ip_network(dst) for dst in routes if dst != "default"]
        taken += [ipaddress.ip_network(pool["subnet"]) for pool in self.client.pools()]
        for subnet in ipaddress.IPv4Network("10.0.0.0/8").subnets(new_prefix=16):
            if not any(isinstance(other, ipaddress.IPv4Network) and subnet.overlaps(other) for other in taken):
                yield subnet

    def _delete_network(self, name: str) -> None:
        try:
            self.client.delete_network(name)
        except NotFound:
            return  # it was never made

    @staticmethod
    def _delete_bridge(name: str) -> None:
        if name in (link for _, link in socket.if_nameindex()):
            run("ip", "link", "del", name)

    @staticmethod
    def _delete_netns(name: str) -> None:
        if Path("/run/netns", name).exists():
            run("ip", "netns", "del", name)


def summary(ours: Plugin, reference: Plugin, arguments: Arguments) -> dict[str, float]:
    """The figures that --json prints; ratios are ours over the reference's."""
    figures: dict[str, float] = {}
    for name, mine, theirs in (("add", ours.add, reference.add), ("del", ours.delete, reference.delete)):
        figures[f"{name}_p50_ms"] = round(percentile(mine, 0.5), 3)
        figures[f"{name}_p95_ms"] = round(percentile(mine, 0.95), 3)
        figures[f"{name}_p50_ratio"] = round(percentile(mine, 0.5) / percentile(theirs, 0.5), 3)
    figures["at_once"] = arguments.at_once
    figures["at_once_ms"] = round(percentile(ours.crowd, 0.5), 1)
    figures["at_once_ratio"] = round(percentile(ours.crowd, 0.5) / percentile(reference.crowd, 0.5), 3)
    figures["endpoints"] = arguments.endpoints
    figures["count"] = arguments.count
    figures["ping_ready"] = round(sum(ours.pings) / len(ours.pings), 4)
    return figures


def table(ours: Plugin, reference: Plugin, arguments: Arguments) -> Table:
    """The figures for people."""
    title = f"CNI, {arguments.count} of each in turns, {arguments.endpoints} endpoints beforehand"
    result = Table(title=title, title_justify="left")
    for heading in ("exec to exit, ms", ours.label, reference.label, "ratio"):
        result.add_column(heading, justify="left" if heading.startswith("exec") else "right")
    for name, mine, theirs in (("ADD", ours.add, reference.add), ("DEL", ours.delete, reference.delete)):
        for label, share in (("p50", 0.5), ("p95", 0.95)):
            one, other = percentile(mine, share), percentile(theirs, share)
            result.add_row(f"{name} {label}", f"{one:.2f}", f"{other:.2f}", f"{one / other:.2f}")
    one, other = percentile(ours.crowd, 0.5), percentile(reference.crowd, 0.5)
    result.add_row(f"{arguments.at_once} ADDs at once", f"{one:.0f}", f"{other:.0f}", f"{one / other:.2f}")
    pings = [f"{sum(plugin.pings) / len(plugin.pings):.0%}" for plugin in (ours, reference)]
    result.add_row("first ping answered", *pings, "")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """The benchmark; exit status 0, 1 with a message, or 130 when interrupted."""
    arguments = parse(argv)
    messages = Console(stderr=True)
    try:
        with interruptible() as deaf, ExitStack() as stack:
            bench = Bench(arguments, stack)
            bench.check()
            ours, reference = bench.contestants()
            with ExitStack() as rest, messages.status("attaching beforehand") as status:
                rest.callback(deaf)
                bench.attach_beforehand(ours)
                for number in range(-WARM_UP, arguments.count):
                    status.update(f"round {number + 1} of {arguments.count}")
                    for plugin in (ours, reference) if number % 2 else (reference, ours):
                        bench.round(plugin, counts=number >= 0)
                for number in range(CROWDS):
                    status.update(f"{arguments.at_once} at once, {number + 1} of {CROWDS}")
                    for plugin in (ours, reference) if number % 2 else (reference, ours):
                        bench.crowd(plugin)
            Console().print(table(ours, reference, arguments))
            figures = summary(ours, reference, arguments)
            messages.print("removing what was made", style="dim")
    except (BenchError, OvsnetError) as error:
        messages.print(f"bench cni: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        messages.print("bench cni: interrupted; everything is removed", style="red")
        return 130
    if arguments.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
