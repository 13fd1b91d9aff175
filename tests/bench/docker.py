"""`devstack/bench.sh docker`: our driver against Docker's built-in `bridge`, in turns, on one dockerd.

Needs root. dockerd, Open vSwitch and ovsnetd are private and in a network namespace that plays the host; another one beyond a
veth pair plays the outside. dockerd has its iptables rules and its proxy, as it has by default, so that the built-in driver is
measured as people have it. Both networks are user-defined ones. Measured are the docker command from exec to exit, many
containers started at once, iperf3 between two containers and from the outside through a published port, and the time from the
start of a dockerd to its first answer, when it has containers to start again (`--restart always`).
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ovsnet.errors import OvsnetError
from tests.harness import IMAGE, CommandFailed, Dockerd, Netns, Ovs, Stack, environment

from .common import BenchError, execute, interruptible, percentile, run

WARM_UP = 3  # rounds that do not count
SETTLE = 0.3  # seconds after a round: dockerd and the kernel go on after the command's end
AT_ONCE = 20
# One start of a crowd, or of a dockerd, differs from the next by 10% (standard deviation): of three each, the ratio of the
# medians would differ by as much from run to run.
CROWDS = 10  # times that many are started at once, for each contestant
STREAMS = 3  # iperf3 runs of each kind, for each contestant
STREAM_SECONDS = 4
RESTARTS = 8  # of dockerd, for each contestant
RESTART_DEADLINE = 600.0
CLIENT = "/usr/bin/docker"
PORT = 5201  # iperf3's own

OUTSIDE, OURSELVES = "192.0.2.2", "192.0.2.1"  # documentation addresses, for the veth pair


@dataclass
class Contestant:
    """A network of Docker by one of the two drivers, and what was measured of it: milliseconds, and bits per second."""

    label: str
    network: str
    port: int  # of the host, that its published port is
    run: list[float] = field(default_factory=list)
    connect: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    restart: list[float] = field(default_factory=list)
    throughput: list[float] = field(default_factory=list)
    published: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Arguments:
    """The command line."""

    count: int
    containers: int
    json: bool


def parse(argv: Sequence[str] | None) -> Arguments:
    """The command line, or an exit with the usage."""
    parser = argparse.ArgumentParser(prog="bench.sh docker", description="Our driver against Docker's bridge.")
    parser.add_argument("--count", type=int, default=30, help="runs and connects of each (default: %(default)s)")
    parser.add_argument(
        "--containers", type=int, default=50, help="containers when dockerd starts; 0: left out (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    found = parser.parse_args(argv)
    if found.count < 1 or not 0 <= found.containers <= 200:
        parser.error("--count is at least 1, --containers 0 to 200")
    return Arguments(**vars(found))


class Bench:
    """One run: what it makes is registered on `stack` right away, and removed in the opposite order."""

    def __init__(self, arguments: Arguments, stack: ExitStack) -> None:
        if os.geteuid():
            raise BenchError("this needs root")
        self.arguments = arguments
        self.token = f"b{secrets.token_hex(2)[:3]}"
        self.directory = Path(tempfile.mkdtemp(prefix=f"ovsnet-{self.token}-"))
        stack.callback(shutil.rmtree, self.directory)
        self.host = Netns(f"{self.token}-host")
        stack.callback(self.host.delete)
        self.outside = Netns(f"{self.token}-outside")
        stack.callback(self.outside.delete)
        self._wire()
        self.ovs = Ovs(self.host, self.directory)
        stack.callback(self.ovs.close)
        self.ovs.ensure()
        self.stack = Stack(self.host, self.ovs, self.token, self.directory / "ovsnetd", log_level="info")
        stack.callback(self.stack.close)
        self.stack.start()
        self.dockerd = Dockerd(self.host, self.token, self.directory / "docker", "--iptables=true")
        self.dockerd.deadline = RESTART_DEADLINE
        stack.callback(self.dockerd.close)
        self.dockerd.start()
        self.image = f"ovsnet/iperf3:{self.token}"
        self._import_iperf3()
        self.docker("network", "create", "--driver", "bridge", "--subnet", "10.99.3.0/24", "aside")
        self.serial = 0

    def docker(self, *args: str) -> float:
        """The docker command, which has to succeed: milliseconds from exec to exit."""
        argv = [CLIENT, "--host", f"unix://{self.dockerd.socket}", *args]
        done = execute(argv, environment())
        if done.status:
            raise BenchError(f"docker {' '.join(args)} ended with {done.status}; it says why above")
        return done.ms

    def contestants(self) -> tuple[Contestant, Contestant]:
        """Ours and Docker's, each with a /24."""
        driver = self.stack.driver
        ours, reference = Contestant("ovsnet", "ours", 15201), Contestant("bridge", "theirs", 15202)
        create = ("network", "create", "--driver")
        self.docker(*create, driver, "--ipam-driver", driver, "--subnet", "10.99.1.0/24", ours.network)
        self.docker(*create, "bridge", "--subnet", "10.99.2.0/24", reference.network)
        return ours, reference

    @property
    def datapath(self) -> str:
        """The datapath type of our bridge: system (the kernel's) or netdev (userspace)."""
        return self.ovs.vsctl("get", "Bridge", self.stack.bridge, "datapath_type").strip('"') or "system"

    def round(self, one: Contestant, *, counts: bool) -> None:
        """One `docker run --rm`; one `docker network connect` with its `disconnect`."""
        took = self.docker("run", "--rm", "--network", one.network, IMAGE, "true")
        time.sleep(SETTLE)
        with self.container("aside") as name:
            time.sleep(SETTLE)
            connected = self.docker("network", "connect", one.network, name)
            connected += self.docker("network", "disconnect", one.network, name)
        time.sleep(SETTLE)
        if counts:
            one.run.append(took)
            one.connect.append(connected)

    def crowd(self, one: Contestant) -> None:
        """Many `docker run --detach` at once, until the last has ended."""
        names = [self._name() for _ in range(AT_ONCE)]
        start = ("run", "--detach", "--network", one.network, "--name")
        try:
            one.start.append(self._at_once([(*start, name, IMAGE) for name in names]))
        finally:
            self._remove(names)
        time.sleep(10 * SETTLE)

    def streams(self, one: Contestant) -> None:
        """iperf3 from one container to another, and from the outside through a published port if there is a way."""
        serve = ("--publish", f"{one.port}:{PORT}")
        with self.container(one.network, *serve, image=self.image, command=("iperf3", "-s")) as server:
            address = self.dockerd.address(server, one.network)
            with self.container(one.network, image=self.image, command=("sleep", "1000000")) as client:
                ask = ("docker", "--host", f"unix://{self.dockerd.socket}", "exec", client)
                one.throughput.append(_stream([*ask, "iperf3", "-c", address]))
            try:
                one.published.append(_stream(self.outside.argv("iperf3", "-c", OURSELVES, "-p", str(one.port))))
            except BenchError as error:
                print(f"bench docker: published port of {one.label}: {error}", file=sys.stderr)
        time.sleep(SETTLE)

    @contextmanager
    def crowds(self, contestants: Sequence[Contestant]) -> Iterator[dict[str, list[str]]]:
        """Containers of each, by network, of which dockerd starts none by itself."""
        names = {one.network: [self._name() for _ in range(self.arguments.containers)] for one in contestants}
        try:
            for network, all_of_it in names.items():
                for first in range(0, len(all_of_it), AT_ONCE):
                    few = all_of_it[first : first + AT_ONCE]
                    self._at_once([("run", "--detach", "--network", network, "--name", name, IMAGE) for name in few])
            yield names
        finally:
            for all_of_it in names.values():
                self._remove(all_of_it)

    def restart(self, one: Contestant, crowds: dict[str, list[str]], *, counts: bool) -> None:
        """dockerd's start with one network's containers to start again, until its first answer; then all must run.

        The others' are there and stay as they are, so that the next restart can be theirs: what the machine does from minute to
        minute differs by more than the contestants.
        """
        for network, names in crowds.items():
            policy = "always" if network == one.network else "no"
            self.dockerd.docker("update", "--restart", policy, *names, timeout=RESTART_DEADLINE)
        self.dockerd.stop()
        time.sleep(10 * SETTLE)
        began = time.perf_counter()
        self.dockerd.start()
        took = (time.perf_counter() - began) * 1e3
        running = set(self.dockerd.docker("ps", "--format", "{{.Names}}").stdout.split())
        if running ^ set(crowds[one.network]):
            raise BenchError(f"{len(running)} of {self.arguments.containers} containers run after dockerd's start")
        if counts:
            one.restart.append(took)

    @contextmanager
    def container(self, network: str, *options: str, image: str = IMAGE, command: Sequence[str] = ()) -> Iterator[str]:
        """A container that runs; its name."""
        name = self._name()
        try:
            self.docker("run", "--detach", "--name", name, "--network", network, *options, image, *command)
            yield name
        finally:
            self._remove([name])

    def _name(self) -> str:
        self.serial += 1
        return f"{self.token}-{self.serial}"

    def _at_once(self, commands: Sequence[Sequence[str]]) -> float:
        with ThreadPoolExecutor(len(commands)) as pool:
            began = time.perf_counter()
            list(pool.map(lambda command: self.docker(*command), commands))
            return (time.perf_counter() - began) * 1e3

    def _remove(self, names: Sequence[str]) -> None:
        self.dockerd.docker("rm", "--force", "--volumes", *names, check=False, timeout=300)

    def _wire(self) -> None:
        """Connect the outside."""
        self.host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "eth0", "netns", self.outside.name)
        for netns, device, address in ((self.host, "uplink", OURSELVES), (self.outside, "eth0", OUTSIDE)):
            netns.run("ip", "address", "add", f"{address}/24", "dev", device)
            netns.run("ip", "link", "set", device, "up")

    def _import_iperf3(self) -> None:
        """An image with busybox, and iperf3 with the libraries that it says it needs; nothing is pulled."""
        program = shutil.which("iperf3", path="/usr/sbin:/usr/bin:/sbin:/bin")
        if program is None:
            raise BenchError("iperf3 is needed")
        libraries = {Path(word) for word in run("ldd", program).split() if word.startswith("/")}
        root = self.directory / "iperf3"
        for path in (Path(program), Path("/bin/busybox"), *libraries):
            target = root / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        for applet in ("sleep", "sh"):
            (root / "bin" / applet).symlink_to("busybox")
        (root / "tmp").mkdir()
        tar = self.directory / "iperf3.tar"
        run("tar", "--create", "--file", tar, "--directory", root, "--owner=0", "--group=0", ".")
        self.dockerd.docker("import", str(tar), self.image)


def _stream(argv: Sequence[str]) -> float:
    """Bits per second that an iperf3 client's server received, tried again for as long as the server is not up."""
    end = time.monotonic() + 5
    while True:
        done = subprocess.run(
            [*argv, "--json", "--time", str(STREAM_SECONDS)],
            capture_output=True,
            text=True,
            timeout=STREAM_SECONDS + 20,
            check=False,
            env=environment(),
        )
        try:
            report = json.loads(done.stdout)
        except ValueError:
            report = {"error": done.stderr.strip() or "iperf3 said nothing"}
        if "error" not in report:
            return float(report["end"]["sum_received"]["bits_per_second"])
        if time.monotonic() > end:
            raise BenchError(report["error"])
        time.sleep(0.2)


def ratio(mine: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Of the medians; None where something was not measured."""
    return round(percentile(mine, 0.5) / percentile(theirs, 0.5), 3) if mine and theirs else None


def summary(ours: Contestant, reference: Contestant, arguments: Arguments, datapath: str) -> dict[str, Any]:
    """The figures that --json prints; ratios are ours over the reference's."""
    figures: dict[str, Any] = {}
    for name, unit, scale, mine, theirs in _pairs(ours, reference, arguments):
        figures[f"{name}_ratio"] = ratio(mine, theirs)
        for prefix, values in (("", mine), ("bridge_", theirs)):
            key = f"{prefix}{name}_{unit}"
            figures[key] = round(percentile(values, 0.5) / scale, 1) if values else None
    return figures | {"datapath": datapath, "count": arguments.count, "iptables": True}


def _pairs(
    ours: Contestant, reference: Contestant, arguments: Arguments
) -> Iterator[tuple[str, str, float, list[float], list[float]]]:
    """Key, unit, what one of it is, our values and the reference's."""
    yield "run_p50", "ms", 1, ours.run, reference.run
    yield "connect_p50", "ms", 1, ours.connect, reference.connect
    yield f"start{AT_ONCE}", "ms", 1, ours.start, reference.start
    yield f"restart{arguments.containers or 50}", "ms", 1, ours.restart, reference.restart
    yield "throughput", "mbps", 1e6, ours.throughput, reference.throughput
    yield "published_throughput", "mbps", 1e6, ours.published, reference.published


def table(ours: Contestant, reference: Contestant, arguments: Arguments, datapath: str) -> Table:
    """The figures for people."""
    title = f"docker, {arguments.count} of each in turns; our datapath is {datapath}, dockerd has its iptables rules"
    result = Table(title=title, title_justify="left")
    for heading in ("median", ours.label, reference.label, "ratio"):
        result.add_column(heading, justify="left" if heading == "median" else "right")
    for name, unit, scale, mine, theirs in _pairs(ours, reference, arguments):
        cells = [f"{percentile(values, 0.5) / scale:.0f}" if values else "-" for values in (mine, theirs)]
        result.add_row(f"{name}, {'Mbit/s' if unit == 'mbps' else unit}", *cells, str(ratio(mine, theirs) or "-"))
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """The benchmark; exit status 0, 1 with a message, or 130 when interrupted."""
    arguments = parse(argv)
    messages = Console(stderr=True)
    try:
        with interruptible() as deaf, ExitStack() as stack, messages.status("starting the daemons") as status:
            stack.callback(deaf)
            bench = Bench(arguments, stack)
            ours, reference = bench.contestants()

            def turns(what: str, times: int, work: Callable[[Contestant, int], None], first: int = 0) -> None:
                for number in range(first, times):
                    status.update(f"{what}, {number + 1} of {times}")
                    for one in (ours, reference) if number % 2 else (reference, ours):
                        work(one, number)

            turns("run and connect", arguments.count, lambda one, n: bench.round(one, counts=n >= 0), -WARM_UP)
            turns(f"{AT_ONCE} at once", CROWDS, lambda one, _: bench.crowd(one))
            turns("throughput", STREAMS, lambda one, _: bench.streams(one))
            if arguments.containers:
                with bench.crowds((ours, reference)) as crowds:

                    def restart(one: Contestant, number: int) -> None:
                        bench.restart(one, crowds, counts=number >= 0)

                    turns("restarts of dockerd", RESTARTS, restart, -1)
            Console().print(table(ours, reference, arguments, bench.datapath))
            figures = summary(ours, reference, arguments, bench.datapath)
            status.update("removing what was made")
    except (BenchError, CommandFailed, OvsnetError, AssertionError) as error:
        messages.print(f"bench docker: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        messages.print("bench docker: interrupted; everything is removed", style="red")
        return 130
    if arguments.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
