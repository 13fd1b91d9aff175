"""Beside firewalld, with the zone that docs/docker.md tells of."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import IMAGE, Daemon, Dockerd, Netns, Stack, wait_until
from tests.system.containers import create_network
from tests.system.published import HOST, HOST6, OUTSIDE, OUTSIDE6, PYTHON, SERVER, ask

FIREWALLD = Path(sys.prefix, "firewalld")  # where devstack/lib.sh has it unpacked

pytestmark = [
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(not FIREWALLD.is_dir(), reason="run devstack/firewalld.sh .venv/firewalld"),
]

SUBNET, SUBNET6 = "10.99.1.0/24", "fd99:1::/64"
BUS = """<busconfig>
  <type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>
  <policy context="default"><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
</busconfig>
"""


class Bus(Daemon):
    """A D-Bus of its own."""

    def __init__(self, host: Netns, directory: Path) -> None:
        self.socket = directory / "bus.sock"
        config = directory / "bus.conf"
        super().__init__(host, "dbus-daemon", directory, ("dbus-daemon", f"--config-file={config}", "--nofork"))
        config.write_text(BUS.format(self.socket))

    def answers(self) -> bool:
        """Whether it listens."""
        return self.socket.exists()


class Firewalld(Daemon):
    """firewalld on the host, with Debian's settings: the zone `public` for everything."""

    def __init__(self, host: Netns, directory: Path, bus: Bus) -> None:
        self._variables = (
            f"DBUS_SYSTEM_BUS_ADDRESS=unix:path={bus.socket}",
            f"PYTHONPATH={FIREWALLD / 'usr/lib/python3/dist-packages'}",
        )
        options = {
            "system-config": directory / "etc",
            "default-config": FIREWALLD / "usr/lib/firewalld",
            "log-file": directory / "messages",
        }
        argv = ("env", *self._variables, PYTHON, FIREWALLD / "usr/sbin/firewalld", "--nofork", "--nopid")
        super().__init__(host, "firewalld", directory, (*argv, *(f"--{key}={value}" for key, value in options.items())))
        shutil.copytree(FIREWALLD / "etc/firewalld", directory / "etc")

    def cmd(self, *args: str, check: bool = True) -> int:
        """`firewall-cmd`; its exit status."""
        return self.host.run(
            "env", *self._variables, PYTHON, FIREWALLD / "usr/bin/firewall-cmd", *args, check=check
        ).returncode

    def answers(self) -> bool:
        """Whether it is ready."""
        return not self.cmd("--state", check=False)


@pytest.fixture
def firewalld(stack: Stack, directory: Path) -> Iterator[Firewalld]:
    """It filters on the test's host, and takes its rules away at its end."""
    with ExitStack() as undo:
        place = directory / "firewalld"
        undo.callback(shutil.rmtree, place)
        bus = Bus(stack.host, place)
        undo.callback(bus.stop)
        bus.start()
        firewalld = Firewalld(stack.host, place, bus)
        undo.callback(firewalld.stop)
        firewalld.start()
        yield firewalld


def test_published_ports_and_the_way_out_beside_firewalld(
    stack: Stack, dockerd: Dockerd, firewalld: Firewalld, outside: Netns
) -> None:
    create_network(dockerd, stack, "pub", SUBNET, SUBNET6)
    dockerd.docker("run", "--detach", "--name", "web", "--network", "pub", "-p", "18080:80", IMAGE)
    web = dockerd.netns("web")
    with ExitStack() as undo:
        for where, name, port in ((web, "web", 80), (outside, "out", 80), (stack.host, "host", 18081)):
            argv = where.argv(PYTHON, "-ISc", SERVER, name, "SOCK_STREAM", str(port))
            server = undo.enter_context(subprocess.Popen(argv, stdin=subprocess.DEVNULL))
            undo.callback(server.kill)
            wait_until(lambda here=where, one=port: f":{one} " in here.run("ss", "-Hltn").stdout, "it listens")  # type: ignore[misc]

        def published() -> list[str]:
            return [ask(outside, HOST, 18080), ask(outside, HOST6, 18080)]

        def way_out() -> list[str]:
            return [ask(web, OUTSIDE, 80), ask(web, OUTSIDE6, 80)]

        assert published() == [f"web {OUTSIDE}", f"web {OUTSIDE6}"]
        assert not any(answer.startswith("out") for answer in way_out()), "this is what the zone is for"
        firewalld.cmd("--permanent", "--zone=trusted", f"--add-interface={stack.prefix}g+")
        for _ in range(2):
            firewalld.cmd("--reload")
            assert published() == [f"web {OUTSIDE}", f"web {OUTSIDE6}"]
            assert way_out() == [f"out {HOST}", f"out {HOST6}"]
        assert not ask(outside, HOST, 18081).startswith("host"), "firewalld filters all the same"
