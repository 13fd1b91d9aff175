"""Containers of the system tests: those of a CNI runtime, those of Docker, and a ping that goes on whatever happens to them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness import IMAGE, CniResult, Dockerd, Netns, Stack, wait_until

Reach = Callable[[str], bool]  # whether an address answers one echo request


class Pod:
    """A container of a CNI runtime: a network namespace with an id, and what was attached to it."""

    def __init__(self, stack: Stack, netns: Netns) -> None:
        self.netns = netns
        self.id = netns.name
        self._stack = stack
        self._added: list[tuple[Mapping[str, Any], str]] = []

    def add(self, conf: Mapping[str, Any], ifname: str = "eth0") -> CniResult:
        """ADD, whatever comes of it; `detach_all` takes it back."""
        if (conf, ifname) not in self._added:
            self._added.append((conf, ifname))
        return self._stack.cni("ADD", self.id, self.netns, conf, ifname)

    def attach(self, conf: Mapping[str, Any], ifname: str = "eth0") -> str:
        """ADD that must succeed; the (first) address."""
        result = self.add(conf, ifname)
        assert result.ok, result
        return result.addresses[0]

    def delete(self, conf: Mapping[str, Any], ifname: str = "eth0", netns: str | None = None) -> CniResult:
        """DEL, whatever comes of it, with `netns` as CNI_NETNS instead of the container's."""
        return self._stack.cni("DEL", self.id, self.netns if netns is None else netns, conf, ifname)

    def detach_all(self) -> None:
        """DEL of all that was added, as a runtime does at the end also after failures and a second time."""
        for conf, ifname in self._added:
            result = self.delete(conf, ifname)
            assert result.ok, result

    def pings(self, address: str, wait: float = 2) -> bool:
        """Whether `address` answers the first echo request from here."""
        return self.netns.pings(address, wait=wait)

    def shown(self, ifname: str = "eth0") -> dict[str, Any]:
        """The link and its addresses as the kernel shows them."""
        (found,) = self.netns.ip("address", "show", "dev", ifname)
        return dict(found)


class Ping:
    """An echo request from `netns` to `address` every `interval` seconds, for as long as the context lasts."""

    def __init__(self, netns: Netns, address: str, log: Path, interval: float = 0.1) -> None:
        self._log = log
        with log.open("wb") as output:
            argv = netns.argv("ping", "-n", "-i", str(interval), address)
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def __enter__(self) -> Self:
        self.wait_answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def answered(self) -> set[int]:
        """Numbers of the requests that were answered; the first is 1."""
        return {int(number) for number in re.findall(r"bytes from .*icmp_seq=(\d+) ", self._log.read_text())}

    def wait_answer(self, deadline: float = 5) -> None:
        """Returns when three more requests have been answered."""
        enough = len(self.answered()) + 3
        wait_until(lambda: len(self.answered()) >= enough, "pings are answered", deadline)

    def lost(self) -> set[int]:
        """Numbers of the requests that were not answered, up to now."""
        self.wait_answer()
        answered = self.answered()
        return set(range(1, max(answered))) - answered


def create_network(dockerd: Dockerd, stack: Stack, name: str, *subnets: str, options: Sequence[str] = ()) -> None:
    """A Docker network with our drivers, of the same name for ovsnet; `options` are for our driver."""
    drivers = ("--driver", stack.driver, "--ipam-driver", stack.driver, "--opt", f"ovsnet.name={name}")
    families = ("--ipv6",) if any(":" in subnet for subnet in subnets) else ()
    more = (*(f"--opt={one}" for one in options), *(f"--subnet={subnet}" for subnet in subnets))
    dockerd.docker("network", "create", *drivers, *families, *more, name)


def start_container(dockerd: Dockerd, name: str, network: str) -> str:
    """A Docker container on `network`; its IPv4 address."""
    dockerd.docker("run", "--detach", "--name", name, "--network", network, IMAGE)
    return dockerd.address(name, network)


def refusals(stack: Stack, begin: int) -> list[str]:
    """Docker's calls that failed, as ovsnetd's log tells from byte `begin` on: some that dockerd takes without a word."""
    lines = stack.log.read_bytes()[begin:].decode(errors="replace").splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    calls = [one for one in told if one["event"].startswith("docker ") and "result" in one]
    assert calls, "Docker has called, and the log tells nothing of it"
    return [f"{one['event']}: {one.get('error')}" for one in calls if one["result"] != "ok"]


def unanswered(members: Mapping[str, Reach], *others: str) -> list[str]:
    """Who does not reach whom: `members` maps addresses to what pings from there, `others` are addresses to be reached."""
    pairs = [*permutations(members, 2), *((one, other) for one in members for other in others)]
    return [f"{one} -> {other}" for one, other in pairs if not members[one](other)]
