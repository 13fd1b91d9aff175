"""Room for our networks beside Docker's own packet filter rules.

With its iptables support on, dockerd sets the policy of the chain FORWARD to DROP: what our table accepts is dropped there all
the same. Docker leaves the chain DOCKER-USER to others, and jumps to it first; a chain of ours is called from there. Driven by
iptables(8) and ip6tables(8), for these rules live where dockerd keeps its own.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

from ..errors import DeadlineExceeded, Unavailable
from ..names import DeviceNames

_COMMANDS = ("iptables", "ip6tables")
_USER_CHAIN = "DOCKER-USER"
_LOCK_SECONDS = "5"  # that iptables waits for its lock
_TIMEOUT = 10.0  # seconds
_DOCKERS_BRIDGES = ("docker0", "docker_gwbridge", "br-+")


class DockerUser:
    """The chain of one controller. Unavailable with iptables' own words if it refuses, and DeadlineExceeded if it hangs."""

    def __init__(self, names: DeviceNames) -> None:
        self.chain = f"OVSNET-{names.prefix}"
        gateways = names.gateway_pattern.replace("*", "+")
        # What goes to one of Docker's bridges is for Docker's rules to decide.
        self._rules = [
            *(["-o", bridge, "-j", "RETURN"] for bridge in _DOCKERS_BRIDGES),
            ["-i", gateways, "-j", "ACCEPT"],
            ["-o", gateways, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED,DNAT", "-j", "ACCEPT"],
        ]

    def ensure(self) -> None:
        """Call our chain first from Docker's, for each IP version that Docker filters; elsewhere there is nothing to do."""
        for command, listed in self._filtering():
            if sum(line.startswith(f"-A {self.chain} ") for line in listed) != len(self._rules):
                if f"-N {self.chain}" not in listed:
                    _run(command, "-N", self.chain)
                _run(command, "-F", self.chain)
                for rule in self._rules:
                    _run(command, "-A", self.chain, *rule)
            if f"-A {_USER_CHAIN} -j {self.chain}" not in listed:
                _run(command, "-I", _USER_CHAIN, "-j", self.chain)

    def remove(self) -> None:
        """Undo `ensure`; missing is success."""
        for command, listed in self._filtering():
            if f"-A {_USER_CHAIN} -j {self.chain}" in listed:
                _run(command, "-D", _USER_CHAIN, "-j", self.chain)
            if f"-N {self.chain}" in listed:
                _run(command, "-F", self.chain)
                _run(command, "-X", self.chain)

    @staticmethod
    def _filtering() -> Iterator[tuple[str, list[str]]]:
        """The commands in whose tables Docker has its chain, and what is there, in the words of `iptables -S`."""
        for command in _COMMANDS:
            if shutil.which(command) is not None:
                listed = _run(command, "-S").splitlines()
                if f"-N {_USER_CHAIN}" in listed:
                    yield command, listed


def _run(*argv: str) -> str:
    try:
        done = subprocess.run(
            [argv[0], "-w", _LOCK_SECONDS, *argv[1:]], capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except OSError as exc:
        raise Unavailable(f"{argv[0]} cannot be run: {exc}", hint="see that it is installed") from None
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"{argv[0]} did not end within {_TIMEOUT:.0f} s", hint="try again") from None
    if done.returncode:
        raise Unavailable(f"{argv[0]} refused {' '.join(argv[1:])}: {done.stderr.strip()}", hint="see its manual")
    return done.stdout
