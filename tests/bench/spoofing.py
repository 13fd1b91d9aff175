"""`devstack/bench.sh spoofing`: what anti-spoofing costs, and how long a container stands open after vswitchd was killed.

Needs root. Open vSwitch and ovsnetd are private and in a network namespace that plays the host. There are two networks, guarded
and not; iperf3 runs between two containers of each in turns. Then a container sends frames with a forged MAC all the time while
vswitchd is killed and started, and its neighbour notes the first and the last one that it hears. Other endpoints stand beside.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from ovsnet.errors import OvsnetError
from tests.harness import CommandFailed, Netns, Ovs, Stack, wait_until
from tests.system.frames import ALL, STRANGE_MAC, packet_socket

from .common import BenchError, interruptible, percentile

STREAMS = 3
STREAM_SECONDS = 4
KILLS = 5
PER_NETNS = 20
LISTEN = 2.0  # seconds after vswitchd's start in which forged frames may come


class Bench:
    """A host with two networks; everything is removed in the opposite order."""

    def __init__(self, undo: ExitStack) -> None:
        self._undo = undo
        self.token = f"b{secrets.token_hex(2)[:3]}"
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix=f"ovsnet-{self.token}-")))
        self.host = self._netns("host")
        self.ovs = Ovs(self.host, directory)
        undo.callback(self.ovs.close)
        self.ovs.ensure()
        self.stack = Stack(self.host, self.ovs, self.token, directory / "ovsnetd", log_level="warning")
        undo.callback(self.stack.close)
        self.stack.start()
        for number, name in enumerate(("guarded", "open")):
            more = ("--no-anti-spoofing",) if name == "open" else ()
            self.stack.cli("network", "create", name, "--subnet", f"10.{90 + number}.0.0/16", *more)

    def _netns(self, name: str) -> Netns:
        namespace = Netns(f"{self.token}-{name}")
        self._undo.callback(namespace.delete)
        return namespace

    def attach(self, network: str, name: str, count: int = 1) -> tuple[Netns, str]:
        """A container with so many interfaces on the network; the first one's address."""
        namespace = self._netns(name)
        found = [
            self.stack.cni("ADD", name, namespace, self.stack.conf(network), f"eth{number}") for number in range(count)
        ]
        for each in found:
            if not each.ok:
                raise BenchError(str(each.output))
        return namespace, found[0].addresses[0]

    def streams(self) -> dict[str, list[float]]:
        """Gbit/s between two containers of each network, in turns."""
        figures: dict[str, list[float]] = {"guarded": [], "open": []}
        with ExitStack() as servers:
            ends = {}
            for name in figures:
                server, address = self.attach(name, f"{name}-server")
                client, _ = self.attach(name, f"{name}-client")
                process = subprocess.Popen(server.argv("iperf3", "-s"), stdout=subprocess.DEVNULL)
                servers.callback(process.wait, 10)
                servers.callback(process.terminate)
                ends[name] = client, address
                wait_until(lambda server=server: ":5201 " in server.run("ss", "-lnt").stdout, "iperf3 listens")  # type: ignore[misc]
            for number in range(STREAMS):
                for name in sorted(figures, reverse=bool(number % 2)):
                    client, address = ends[name]
                    done = client.run("iperf3", "-J", "-t", str(STREAM_SECONDS), "-c", address)
                    report = json.loads(done.stdout)
                    figures[name].append(report["end"]["sum_received"]["bits_per_second"] / 1e9)
        return figures

    def windows(self) -> list[float]:
        """Milliseconds from the first forged frame that passes after a start of vswitchd to the last one, 0.0 for none."""
        sender, _ = self.attach("guarded", "forger")
        neighbour, _ = self.attach("guarded", "neighbour")
        found = []
        with packet_socket(neighbour, "eth0") as ear, forging(sender) as mark:
            ear.settimeout(0.05)
            for _ in range(KILLS):
                self.ovs.kill_vswitchd()
                self.ovs.vswitchd.launch()
                until, times = time.monotonic() + LISTEN, []
                while time.monotonic() < until:
                    if mark in _next(ear):
                        times.append(time.monotonic())
                found.append((times[-1] - times[0]) * 1e3 if times else 0.0)
                self.ovs.vswitchd.wait_ready()
        return found


def _next(ear: socket.socket) -> bytes:
    try:
        return ear.recv(2048)
    except (TimeoutError, BlockingIOError):
        return b""


@contextmanager
def forging(sender: Netns) -> Iterator[bytes]:
    """Frames with a MAC that is nobody's, every other millisecond: more would keep vswitchd busy. Yields what they bear."""
    mark = secrets.token_hex(16).encode()
    frame = bytes(Ether(src=STRANGE_MAC, dst=ALL, type=0x88B5) / Raw(mark + bytes(32)))
    over = threading.Event()

    def run() -> None:
        with packet_socket(sender, "eth0") as wire:
            while not over.wait(0.002):
                try:
                    wire.send(frame)
                except OSError:  # nobody empties the device's queue while vswitchd is away
                    continue

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield mark
    finally:
        over.set()
        thread.join()


def main(argv: Sequence[str] | None = None) -> int:
    """The benchmark; exit status 0, 1 with a message, or 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="bench.sh spoofing", description="What anti-spoofing costs.")
    parser.add_argument("--endpoints", type=int, default=100, help="others that stand beside (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.endpoints <= 10_000:
        parser.error("--endpoints is 0 to 10000")
    messages = Console(stderr=True)
    try:
        if os.geteuid():
            raise BenchError("this needs root")
        with interruptible() as deaf, ExitStack() as undo:
            bench = Bench(undo)
            undo.callback(deaf)
            with messages.status("measuring"):
                for number in range(0, arguments.endpoints, PER_NETNS):
                    bench.attach("guarded", f"beside-{number}", min(PER_NETNS, arguments.endpoints - number))
                streams = bench.streams()
                windows = bench.windows()
    except (BenchError, OvsnetError, CommandFailed, AssertionError) as error:
        messages.print(f"bench spoofing: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        messages.print("bench spoofing: interrupted; everything is removed", style="red")
        return 130
    guarded, free = (percentile(streams[name], 0.5) for name in ("guarded", "open"))
    figures = {
        "guarded_gbit": round(guarded, 3),
        "open_gbit": round(free, 3),
        "throughput_ratio": round(guarded / free, 3),
        "window_p50_ms": round(percentile(windows, 0.5), 1),
        "window_max_ms": round(max(windows), 1),
        "endpoints": arguments.endpoints,
    }
    print(
        f"Gbit/s between two containers, p50 of {STREAMS}: {guarded:.2f} guarded, {free:.2f} not: {guarded / free:.2f}"
    )
    print(
        f"ms for which forged frames passed after {KILLS} kills of vswitchd: {', '.join(f'{one:.1f}' for one in windows)}"
    )
    if arguments.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
