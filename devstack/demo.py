"""The steps of devstack/demo.sh, on a stack that is up: each is printed with a tick and its time.

Everything is done with the commands that a user has: docker, a CNI plugin executed as a runtime does, ip, ovs-vsctl, ovsnet.
"""

from __future__ import annotations

import argparse
import ipaddress
import itertools
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

OVSNET = Path(sys.executable).with_name("ovsnet")
OUR_DEVICES = re.compile(r"on[a-z][0-9a-f]{10}")  # see ovsnet.names
SETTLE = 5.0  # seconds for what is removed behind an answer
CONSOLE = Console(highlight=False, soft_wrap=True)


class StepFailed(Exception):
    """A step did not do what it promised."""


def run(*argv: str | Path, check: bool = True, **how: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; StepFailed with its own words if it fails, unless not `check`."""
    done = subprocess.run([str(arg) for arg in argv], capture_output=True, text=True, timeout=60, check=False, **how)
    if check and done.returncode:
        raise StepFailed(f"{' '.join(done.args)}\n{done.stdout}{done.stderr}".rstrip())
    return done


@contextmanager
def step(title: str) -> Iterator[list[str]]:
    """One line of the demo; what the step appends to the list is added to it."""
    begin = time.perf_counter()
    facts: list[str] = []
    try:
        yield facts
    except Exception as error:
        CONSOLE.print(f"  [red]✗[/red] {title}")
        CONSOLE.print(f"{error}", style="red", markup=False)
        raise
    line = ": ".join([title, *facts])
    CONSOLE.print(f"  [green]✓[/green] {line:<62} [dim]{time.perf_counter() - begin:6.2f} s[/dim]")


class Demo:
    """The main job: two networks, three Docker containers and a CNI container, under names that nobody else has."""

    def __init__(self, docker_host: str, image: str, socket: str, cni_bin: Path) -> None:
        tag = secrets.token_hex(2)
        self.blue, self.green = f"blue-{tag}", f"green-{tag}"
        self.docker_names = [f"{self.blue}-1", f"{self.blue}-2"]
        self.stranger = f"{self.green}-1"
        self.cni_name = f"{self.blue}-cni"
        self.addresses: dict[str, str] = {}  # by container, of the first network
        self._docker_host = docker_host
        self._image = image
        self._socket = socket
        self._cni_bin = cni_bin
        self._undo: list[tuple[str, Callable[[], object]]] = []

    def docker(self, *args: str, check: bool = True) -> str:
        """What the docker client prints."""
        return run("/usr/bin/docker", "--host", self._docker_host, *args, check=check).stdout.strip()

    def ovsnet(self, *args: str) -> Any:
        """What `ovsnet ... -o json` tells, decoded."""
        return json.loads(run(OVSNET, "--socket", self._socket, *args, "-o", "json").stdout)

    def cni(self, command: str) -> dict[str, Any]:
        """Executes the plugin as a runtime does, and decodes its result ({} for DEL)."""
        conf = {
            "cniVersion": "1.0.0",
            "name": self.blue,
            "type": "ovsnet",
            "network": self.blue,
            "ipam": {"type": "ovsnet-ipam"},
        }
        env = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.cni_name,
            "CNI_NETNS": f"/run/netns/{self.cni_name}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self._cni_bin),
        }
        done = run(self._cni_bin / "ovsnet", input=json.dumps(conf), env=os.environ | env)
        result: dict[str, Any] = json.loads(done.stdout or "{}")
        return result

    def pings(self, source: str, address: str, wait: int = 2) -> bool:
        """Whether `address` answers one echo request from a container."""
        ping = ["ping", "-c", "1", "-W", str(wait), address]
        if source == self.cni_name:
            return not run("ip", "netns", "exec", source, *ping, check=False).returncode
        docker = ["/usr/bin/docker", "--host", self._docker_host, "exec", source]
        return not run(*docker, *ping, check=False).returncode

    def show(self) -> None:
        """All steps up to the clean-up; StepFailed at the first that does not hold."""
        first, second = free_subnets()
        self._make_network(self.blue, first)
        for name in self.docker_names:
            self.addresses[name] = self._start_container(name, self.blue)
        self._start_cni_container()
        with step("everybody pings everybody") as facts:
            pairs = list(itertools.permutations(self.addresses, 2))
            deaf = [f"{one} -> {other}" for one, other in pairs if not self.pings(one, self.addresses[other])]
            if deaf:
                raise StepFailed(f"no answer: {', '.join(deaf)}")
            facts.append(f"{len(pairs)} of {len(pairs)} answered")
        self._list_endpoints()
        self._make_network(self.green, second)
        self._start_container(self.stranger, self.green)
        self._prove_isolation(str(second[1]))

    def _make_network(self, name: str, subnet: ipaddress.IPv4Network) -> None:
        with step(f"docker network create -d ovsnet {name}") as facts:
            driver = ("-d", "ovsnet", "--ipam-driver", "ovsnet", "--subnet", str(subnet), "-o", f"ovsnet.name={name}")
            self.docker("network", "create", *driver, name)
            self._undo.append((f"docker network rm {name}", lambda: self.docker("network", "rm", name)))
            network = self.ovsnet("network", "show", name)
            facts.append(f"{subnet}, VLAN {network['vlan']}")

    def _start_container(self, name: str, network: str) -> str:
        with step(f"docker run {name}") as facts:
            self._undo.append((f"docker rm {name}", lambda: self.docker("rm", "--force", name)))
            self.docker("run", "--detach", "--name", name, "--network", network, self._image)
            found = json.loads(self.docker("inspect", name))[0]["NetworkSettings"]["Networks"][network]["IPAddress"]
            facts.append(found)
        return str(found)

    def _start_cni_container(self) -> None:
        with step(f"CNI ADD {self.cni_name}") as facts:
            run("ip", "netns", "add", self.cni_name)
            self._undo.append((f"CNI DEL {self.cni_name}", self._end_cni_container))
            run("ip", "-n", self.cni_name, "link", "set", "lo", "up")
            address = self.cni("ADD")["ips"][0]["address"].partition("/")[0]
            self.addresses[self.cni_name] = address
            facts.append(address)

    def _end_cni_container(self) -> None:
        try:
            self.cni("DEL")
        finally:
            run("ip", "netns", "del", self.cni_name)

    def _list_endpoints(self) -> None:
        with step("ovsnet endpoint ls") as facts:
            rows = [row for row in self.ovsnet("endpoint", "ls") if row["network"] == self.blue]
            told = {row["addresses"][0].partition("/")[0] for row in rows}
            if told != set(self.addresses.values()):
                raise StepFailed(f"it shows {sorted(told)}, not {sorted(self.addresses.values())}")
            for row in rows:
                if missing := [key for key in ("mac", "vlan", "port", "owner") if not row[key]]:
                    raise StepFailed(f"it does not tell {', '.join(missing)} of {row['container']}")
            facts.append(f"all {len(rows)}, of Docker and CNI")
        sys.stdout.flush()
        subprocess.run([OVSNET, "--socket", self._socket, "endpoint", "ls"], timeout=60, check=True)

    def _prove_isolation(self, gateway: str) -> None:
        tags = [self.ovsnet("network", "show", name)["vlan"] for name in (self.blue, self.green)]
        with step(f"{self.stranger} reaches its own gateway") as facts:
            if not self.pings(self.stranger, gateway):
                raise StepFailed(f"{gateway} does not answer, so that the next step would prove nothing")
            facts.append(gateway)
        with step(f"{self.stranger} reaches nobody of {self.blue}") as facts:
            if len(set(tags)) != len(tags):
                raise StepFailed(f"both networks have VLAN {tags[0]}")
            if reached := [name for name, address in self.addresses.items() if self.pings(self.stranger, address, 1)]:
                raise StepFailed(f"it reaches {', '.join(reached)}")
            facts.append(f"VLAN {tags[1]} is not {tags[0]}")

    def clean_up(self) -> bool:
        """Removes all that was made, the newest first, going on past failures; whether none failed."""
        clean = True
        while self._undo:
            title, act = self._undo.pop()
            try:
                with step(title):
                    act()
            except Exception:  # noqa: BLE001  # told by `step`; the rest has to go as well
                clean = False
        return clean

    def traces(self) -> set[str]:
        """What there is now of endpoints, networks, pools, switch ports and links, and the CNI container's namespace."""
        found = {f"{noun} {row['id']}" for noun in ("endpoint", "network", "pool") for row in self.ovsnet(noun, "ls")}
        ports = run("ovs-vsctl", "--timeout=10", "--bare", "--columns=name", "list", "Port").stdout.split()
        links = [link["ifname"] for link in json.loads(run("ip", "-json", "link", "show").stdout)]
        found |= {f"port {name}" for name in ports if OUR_DEVICES.fullmatch(name)}
        found |= {f"link {name}" for name in links if OUR_DEVICES.fullmatch(name)}
        return found | ({f"netns {self.cni_name}"} if Path("/run/netns", self.cni_name).exists() else set())

    def check_nothing_left(self, before: set[str]) -> None:
        """StepFailed if there is more than before."""
        with step("nothing is left: no endpoint, port, link or namespace"):
            end = time.monotonic() + SETTLE
            while left := self.traces() - before:
                if time.monotonic() > end:
                    raise StepFailed(f"left behind: {', '.join(sorted(left))}")
                time.sleep(0.1)


def free_subnets() -> tuple[ipaddress.IPv4Network, ipaddress.IPv4Network]:
    """Two random /24 of 10.0.0.0/8 that no route of this host leads to."""
    routes = json.loads(run("ip", "-4", "-json", "route", "show", "table", "all").stdout)
    taken = [ipaddress.ip_network(route["dst"]) for route in routes if route["dst"] != "default"]
    subnets = (ipaddress.IPv4Network((0x0A000000 | secrets.randbelow(1 << 16) << 8, 24)) for _ in itertools.count())
    free = (subnet for subnet in subnets if not any(subnet.overlaps(other) for other in taken))
    first = next(free)
    return first, next(subnet for subnet in free if subnet != first)


def main() -> int:
    """Exit status 0 if every step held, the clean-up included."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("--docker-host", "--image", "--socket"):
        parser.add_argument(option, required=True)
    parser.add_argument("--cni-bin", required=True, type=Path)
    demo = Demo(**vars(parser.parse_args()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    CONSOLE.print("The main job")
    before = demo.traces()
    held = False
    try:
        demo.show()
        held = True
    except (StepFailed, subprocess.SubprocessError, OSError, LookupError, ValueError):
        pass  # told by `step`
    finally:
        CONSOLE.print("Cleaning up")
        held = demo.clean_up() and held
    try:
        demo.check_nothing_left(before)
    except StepFailed:
        held = False
    CONSOLE.print("[bold green]All of it held.[/bold green]" if held else "[bold red]It did not hold.[/bold red]")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
