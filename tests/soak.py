"""`devstack/soak.sh`: containers of Docker and of a CNI runtime come and go, four at a time, while parts of their host fail.

Needs root. The host is a network namespace with its own Open vSwitch, ovsnetd and dockerd. Every few seconds something fails, in
an order that the seed decides: each fault once, then each once more in another order. A client does what a runtime does: what
was refused it takes back, again until that succeeds. Two containers stay all the time; after each fault they reach each other
again, and a third one can be made.

What has to hold: no address is ever on two running containers, which the kernel is asked and not ovsnet; each container can be
removed; and when all have gone, `ovsnet ipam check` and `ovsnet reconcile --dry-run` find nothing once the grace periods are
over, nothing of ovsnet is left on the host, and no defect stands in ovsnetd's log.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from ovsnet.errors import OvsnetError
from tests.bench.common import BenchError, interruptible
from tests.harness import IMAGE, CommandFailed, Dockerd, Netns, Ovs, Stack, run, wait_until
from tests.system.containers import create_network

AT_ONCE = 4
NETWORK = "soak"
SUBNETS = ("10.89.0.0/27", "fd89::/64")  # few addresses, so that they are given again and again
GATEWAYS = ("10.89.0.1", "fd89::1")
REAP_AFTER, COOLDOWN, RECONCILE = 3.0, 0.5, 5.0  # seconds
LIVES = (0.0, 3.0)  # seconds, from and to
PATIENCE = 60.0  # seconds for what was refused to succeed, and for the end
WELL = 40.0  # seconds after a fault, in which those who stay reach each other again, and in which an ADD succeeds
LOOK = 1.0  # seconds between two looks at all containers' addresses
DEFECTS = ("by a defect", "Traceback (most recent call last)")

_PORT = "PORT"

Refused = (CommandFailed, subprocess.TimeoutExpired)


@dataclass
class Running:
    """A container that runs: by its namespace, as long as `there` says so."""

    name: str
    space: Netns
    there: Callable[[], bool] = lambda: True

    def addresses(self) -> set[str]:
        """What the kernel says that it has, now, but for what each link has by itself; empty when it has ended."""
        try:
            links = self.space.ip("address", "show", "scope", "global")
            found = {one["local"] for link in links for one in link.get("addr_info", ()) if one}
            return found if self.there() else set()
        except (*Refused, OSError):
            return set()


def holders(running: Sequence[Running]) -> dict[str, list[str]]:
    """Who has which address; of an address that several seem to have, those who still have it when they are asked again."""
    found: dict[str, list[Running]] = {}
    for one in running:
        for address in one.addresses():
            found.setdefault(address, []).append(one)
    return {
        address: [one.name for one in several if len(several) == 1 or address in one.addresses()]
        for address, several in found.items()
    }


@dataclass
class Faults:
    """How often each was made, and the longest time, in seconds, until who stays was reached and an ADD succeeded."""

    made: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)


class Soak:
    """The host, its clients and its faults; everything is removed in the opposite order."""

    def __init__(self, seed: int, say: Callable[[str], None], undo: ExitStack) -> None:
        self._seed = seed
        self._say = say
        self._undo = undo
        self.token = f"s{secrets.token_hex(2)[:3]}"
        self.directory = Path(tempfile.mkdtemp(prefix=f"ovsnet-{self.token}-"))
        undo.callback(shutil.rmtree, self.directory)
        self.host = Netns(f"{self.token}-host")
        undo.callback(self.host.delete)
        self.ovs = Ovs(self.host, self.directory)
        undo.callback(self.ovs.close)
        self.ovs.ensure()
        docker = self.directory / "docker"
        self.stack = Stack(
            self.host,
            self.ovs,
            self.token,
            self.directory / "ovsnetd",
            docker_api=str(docker / "docker.sock"),
            reap_after=REAP_AFTER,
            address_cooldown=COOLDOWN,
            reconcile_interval=RECONCILE,
            log_format="json",
        )
        undo.callback(self.stack.close)
        self.stack.start()
        self.dockerd = Dockerd(self.host, self.token, docker)
        undo.callback(self.dockerd.close)
        self.dockerd.start()
        create_network(self.dockerd, self.stack, NETWORK, *SUBNETS)
        self.conf = self.stack.conf(NETWORK, "1.1.0")
        self.wrong: list[str] = []  # what did not hold
        self.made: Counter[str] = Counter()  # containers that ran, by kind
        self.refused: Counter[str] = Counter()  # requests that a fault has broken, by kind
        self.seen: set[str] = set()  # addresses that some container had
        self.faults = Faults()
        self._numbers = itertools.count()
        self._guard = threading.Lock()  # of all above and below that several threads change
        self._running: dict[str, Running] = {}
        self._over = threading.Event()

    # -- the clients --------------------------------------------------------------------------------------------------

    def _space(self) -> Netns:
        with self._guard:
            return Netns(f"{self.token}-{next(self._numbers)}")

    def _begins(self, running: Running, kind: str) -> None:
        with self._guard:
            self._running[running.name] = running
            self.made[kind] += 1

    def _ends(self, name: str) -> None:
        with self._guard:
            self._running.pop(name, None)

    def _is_wrong(self, what: str) -> None:
        with self._guard:
            self.wrong.append(what)
        self._say(f"WRONG: {what}")

    def _was_refused(self, what: str) -> None:
        with self._guard:
            self.refused[what] += 1

    def _until_it_succeeds(self, what: str, act: Callable[[], bool]) -> None:
        """As a runtime does: again, with a pause."""
        end = time.monotonic() + PATIENCE
        while not act():
            self._was_refused(what)
            if time.monotonic() > end:
                self._is_wrong(f"{what} has not succeeded for {PATIENCE:.0f} s")
                return
            time.sleep(0.3)

    def add(self, space: Netns) -> bool:
        """ADD; whether it succeeded, and its container runs then."""
        result = self.stack.cni("ADD", space.name, space, self.conf)
        if not result.ok:
            self._was_refused("ADD")
            return False
        self._begins(Running(space.name, space), "CNI")
        return True

    def delete(self, space: Netns) -> None:
        """DEL, then the namespace goes."""
        self._until_it_succeeds(f"DEL of {space.name}", lambda: self.stack.cni("DEL", space.name, space, self.conf).ok)
        self._ends(space.name)
        space.delete()

    def _pod(self, life: float) -> None:
        space = self._space()
        try:
            if self.add(space):
                self._over.wait(life)
        finally:
            self.delete(space)

    def _container(self, life: float) -> None:
        with self._guard:
            name = f"{self.token}-d{next(self._numbers)}"
        try:
            self.dockerd.docker("run", "--detach", "--name", name, "--network", NETWORK, IMAGE)
            pid = int(self.dockerd.inspect(name)["State"]["Pid"])
            if pid:  # else it was killed already
                # What dockerd has killed may be somebody else's pid by now: /proc tells by the cgroup.
                cgroup = Path(f"/proc/{pid}/cgroup")
                known = cgroup.read_text()
                running = Running(
                    name, Netns.of(Path(f"/proc/{pid}/ns/net")), lambda: cgroup.exists() and cgroup.read_text() == known
                )
                self._begins(running, "Docker")
                self._over.wait(life)
        except (*Refused, OSError):
            self._was_refused("docker run")
        finally:
            self._until_it_succeeds(f"docker rm of {name}", lambda: self._removed(name))
            self._ends(name)

    def _removed(self, name: str) -> bool:
        with suppress(*Refused):
            if not self.dockerd.docker("rm", "--force", name, check=False, timeout=30).returncode:
                return not self.dockerd.docker("ps", "--all", "--quiet", "--filter", f"name=^{name}$").stdout
            return "No such container" in self.dockerd.docker("rm", name, check=False).stderr
        return False

    def _client(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")  # repeatable
        while not self._over.is_set():
            act = chance.choice((self._pod, self._container))
            try:
                act(chance.uniform(*LIVES))
            except Exception as error:  # noqa: BLE001  # of whatever kind: it is told, and the others go on
                self._is_wrong(f"a client failed: {error!r}")

    def _look_for_doubles(self) -> None:
        """Looks whether an address is on two running containers; what is seen twice is looked at once more."""
        told: set[str] = set()
        while not self._over.wait(LOOK):
            with self._guard:
                running = list(self._running.values())
            for address, names in holders(running).items():
                self.seen.add(address)
                if len(names) > 1 and address not in told:
                    told.add(address)
                    self._is_wrong(f"{address} is on {' and '.join(names)} at the same time")

    # -- the faults ---------------------------------------------------------------------------------------------------

    def _on_ports(self, chance: random.Random, stays: str, *command: str) -> None:
        """An ovs-vsctl command on the port of who stays, and on anybody's, who may be in the making or about to go."""
        ports = {row["container"]: row["port"] for row in self.stack.endpoints()}
        for port in (chance.choice(sorted(ports.values())), ports[stays]):
            self.ovs.vsctl("--if-exists", command[0], *(port if one == _PORT else one for one in command[1:]))

    def _gateway(self) -> str:
        (name,) = (one["ifname"] for one in self.host.ip("link", "show") if one["ifname"].startswith(f"{self.token}g"))
        return str(name)

    def _forget(self) -> None:
        space = self._space()
        try:
            wait_until(lambda: self.add(space), "an ADD succeeds", PATIENCE)
        finally:
            self._ends(space.name)
            space.delete()

    def _restart(self, *, kill: bool) -> None:
        if kill:
            self.dockerd.kill9()
        else:
            self.dockerd.stop()
        self.dockerd.start()

    def _kinds(self, chance: random.Random, stays: str) -> dict[str, Callable[[], object]]:
        stack, ovs = self.stack, self.ovs

        def again(*daemons: Stack | Dockerd) -> None:
            for daemon in daemons:
                daemon.kill9()
                daemon.start()

        def switch_database() -> None:
            ovs.server.kill9()
            ovs.server.start()

        def vswitchd() -> None:
            ovs.vswitchd.kill9()
            ovs.vswitchd.start()

        return {
            "ovsnetd killed": lambda: again(stack),
            "ovs-vswitchd killed": vswitchd,
            "ovsdb-server of the switch killed": switch_database,
            "ovsdb-server of the state killed": lambda: run("kill", "-9", str(stack.state_server())),
            "dockerd restarted": lambda: self._restart(kill=False),
            "dockerd killed": lambda: self._restart(kill=True),
            "switch port deleted": lambda: self._on_ports(chance, stays, "del-port", _PORT),
            "tag of a switch port changed": lambda: self._on_ports(chance, stays, "set", "port", _PORT, "tag=4000"),
            "gateway's port deleted": lambda: ovs.vsctl("del-port", self._gateway()),
            "nftables flushed": lambda: self.host.run("nft", "flush", "ruleset"),
            "namespace deleted without DEL": self._forget,
            "bridge deleted": lambda: ovs.vsctl("del-br", stack.bridge),
        }

    def _fails(self, fault: str, act: Callable[[], object], stay: Sequence[tuple[Netns, str]]) -> None:
        begun = time.monotonic()
        for _ in range(5):
            try:
                act()
                break
            except (CommandFailed, ValueError, IndexError):  # what was chosen has just gone
                time.sleep(0.3)
        else:
            self._say(f"  {fault}: there was nothing to break")
            return
        (one, _), (_, address) = stay
        probe = self._space()
        try:
            for to in (address, *GATEWAYS):
                wait_until(lambda to=to: one.pings(to, wait=1), f"{to} is reached again", WELL)  # type: ignore[misc]
            wait_until(lambda: self.add(probe), "an ADD succeeds again", WELL)
        except AssertionError as error:
            self._is_wrong(f"after {fault}: {error}")
        took = time.monotonic() - begun
        self.delete(probe)
        self.faults.made[fault] += 1
        self.faults.slowest[fault] = max(took, self.faults.slowest.get(fault, 0.0))
        self._say(f"  {fault}: {took:.1f} s")

    def run(self, seconds: float, every: float) -> None:
        """All of it, up to the end of the last client."""
        chance = random.Random(self._seed)  # repeatable
        stay = []
        for _ in range(2):
            space = self._space()
            wait_until(lambda: self.add(space), "an ADD succeeds", PATIENCE)  # noqa: B023
            stay.append((space, next(one for one in Running("", space).addresses() if ":" not in one)))
        wired = [Running("", space).addresses() for space, _ in stay]
        kinds, deck = self._kinds(chance, stay[0][0].name), list[str]()
        with ThreadPoolExecutor(AT_ONCE + 1) as pool:
            clients = [pool.submit(self._client, number) for number in range(AT_ONCE)]
            clients.append(pool.submit(self._look_for_doubles))
            try:
                begun = time.monotonic()
                for number in itertools.count(1):
                    due = begun + min(number * every, seconds)
                    while (left := due - time.monotonic()) > 0:
                        if any(one.done() for one in clients):
                            raise BenchError("a client ended before its time")
                        time.sleep(min(left, 0.5))
                    if time.monotonic() >= begun + seconds:
                        break
                    if not deck:
                        deck = chance.sample(sorted(kinds), len(kinds))
                    fault = deck.pop()
                    self._fails(fault, kinds[fault], stay)
            finally:
                self._over.set()
            for client in clients:
                client.result()
        if (now := [Running("", space).addresses() for space, _ in stay]) != wired:
            self._is_wrong(f"who stayed has {now} and had {wired}")
        for space, _ in stay:
            self.delete(space)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _differs(self) -> Iterator[str]:
        """What is there although all containers have gone."""
        for arguments in (("ipam", "check"), ("reconcile", "--dry-run")):
            done = self.stack.cli(*arguments, check=False)
            if done.returncode:
                yield f"ovsnet {' '.join(arguments)}: {done.stdout}{done.stderr}".strip()
        yield from (f"endpoint of {row['container']}" for row in self.stack.endpoints())
        for pool in self.stack.show("pool", "ls"):
            for lease in self.stack.show("pool", "leases", pool["name"]):
                if lease["owner"]["kind"] != "gateway":
                    yield f"lease of {lease['address']} by {lease['owner']}"

    def settle(self) -> None:
        """Asserts the end: all agrees, then the network goes, then nothing is left, and no defect was logged."""
        self._wait_for_none(lambda: list(self._differs()), "differs at the end")
        self._until_it_succeeds(
            "docker network rm", lambda: not self.dockerd.docker("network", "rm", NETWORK, check=False).returncode
        )
        self._wait_for_none(self.stack.leftovers, "is left")
        log = self.stack.log.read_text(errors="replace")
        for defect in DEFECTS:
            if found := re.findall(rf".*{re.escape(defect)}.*", log):
                self._is_wrong(f"ovsnetd's log has {len(found)} times {defect!r}, first: {found[0][:2000]}")

    def _wait_for_none(self, look: Callable[[], list[str]], what: str) -> None:
        found = [""]

        def none() -> bool:
            found[:] = look()
            return not found

        with suppress(AssertionError):
            wait_until(none, what, PATIENCE)
        for one in found:
            self._is_wrong(f"{what}: {one}")

    def keep_logs(self, place: Path) -> None:
        """Copies the daemons' logs."""
        place.mkdir(parents=True, exist_ok=True)
        for daemon in (self.stack, self.dockerd, self.ovs.vswitchd, self.ovs.server):
            if daemon.log.exists():
                shutil.copy(daemon.log, place / daemon.log.name)

    def sweep_spaces(self) -> None:
        """Deletes namespaces that an interrupted run has left."""
        for path in Path("/run/netns").glob(f"{self.token}-[0-9]*"):
            Netns.of(path).delete()


def soak(minutes: float, seed: int, every: float, logs: Path | None, say: Callable[[str], None]) -> dict[str, object]:
    """Runs it; the figures, with what did not hold under `wrong`."""
    with interruptible() as deaf, ExitStack() as undo:
        one = Soak(seed, say, undo)
        undo.callback(one.sweep_spaces)
        if logs is not None:
            undo.callback(one.keep_logs, logs)
        undo.callback(deaf)
        one.run(minutes * 60, every)
        one.settle()
        return {
            "seed": seed,
            "minutes": minutes,
            "containers": dict(one.made),
            "addresses": len(one.seen),
            "refused": dict(Counter(what.partition(" of ")[0] for what in one.refused.elements())),
            "faults": dict(one.faults.made),
            "slowest": {fault: round(took, 1) for fault, took in one.faults.slowest.items()},
            "wrong": one.wrong,
        }


def main(argv: Sequence[str] | None = None) -> int:
    """The soak; exit status 0 if all held, 1 if not or if it could not be run, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="soak.sh", description="Containers come and go while parts of the host fail.")
    parser.add_argument("--minutes", type=float, default=10, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of an earlier run, for its faults in the same order")
    parser.add_argument("--every", type=float, default=10, help="seconds between two faults (default: %(default)s)")
    parser.add_argument("--logs", type=Path, help="directory for the daemons' logs")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.minutes <= 10_000 or not 1 <= arguments.every <= 3600:
        parser.error("--minutes is up to 10000, --every is 1 to 3600")
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    messages = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    again = "" if arguments.every == parser.get_default("every") else f" --every {arguments.every:g}"
    messages.print(f"soak: seed {seed}; the same again: --minutes {arguments.minutes:g} --seed {seed}{again}")
    try:
        if os.geteuid():
            raise BenchError("this needs root")
        figures = soak(arguments.minutes, seed, arguments.every, arguments.logs, messages.print)
    except (BenchError, OvsnetError, CommandFailed, AssertionError) as error:
        messages.print(f"soak: {error}", style="red")
        return 1
    except KeyboardInterrupt:
        messages.print("soak: interrupted; everything is removed", style="red")
        return 130
    _report(figures)
    if arguments.json:
        print(json.dumps(figures))
    return 1 if figures["wrong"] else 0


def _report(figures: dict[str, object]) -> None:
    for key in ("seed", "minutes", "containers", "addresses", "refused"):
        print(f"{key:<12}{figures[key]}")
    made, slowest = figures["faults"], figures["slowest"]
    assert isinstance(made, dict)
    assert isinstance(slowest, dict)
    for fault, times in sorted(made.items()):
        print(f"{fault:<36}{times:>4} times, all well after at most {slowest[fault]:>5.1f} s")
    wrong = figures["wrong"]
    assert isinstance(wrong, list)
    print("\n".join(f"WRONG: {one}" for one in wrong) or "all held")


if __name__ == "__main__":
    sys.exit(main())
