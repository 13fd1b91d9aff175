"""A private RAFT cluster of OVSNet databases on loopback, made by the product's own steps, with every way to treat it badly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ovsnet.errors import StateUnavailable
from ovsnet.store import cluster

TIMEOUT = 15.0


class Member:
    """One ovsdb-server(1) on its file in `directory`, listening for clients on a unix socket there."""

    def __init__(self, directory: Path, address: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.address = address
        self.database = directory / "ovsnet.db"
        self.socket = directory / "state.sock"
        self.control = directory / "state.ctl"
        self.log = directory / "state.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @property
    def remote(self) -> str:
        return f"unix:{self.socket}"

    @property
    def alive(self) -> bool:
        """Whether it runs and is not paused."""
        return self._process is not None and not self._paused

    def start(self) -> None:
        """Returns once it listens; it finds its cluster a moment later."""
        assert self._process is None
        self.socket.unlink(missing_ok=True)
        argv: list[str | Path] = [
            "ovsdb-server",
            f"--remote=punix:{self.socket}",
            f"--unixctl={self.control}",
            f"--log-file={self.log}",
            "-vconsole:off",
            "-vsyslog:off",
            "--no-chdir",
            self.database,
        ]
        self._process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        wait_until(lambda: self.socket.exists() and self.control.exists(), f"{self.database} is served")

    def kill(self) -> None:
        """kill -9; also a paused one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(TIMEOUT)
            self._process, self._paused = None, False
            self.control.unlink(missing_ok=True)

    def pause(self) -> None:
        """SIGSTOP: connections stand, nothing is answered."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)
        self._paused = False

    def status(self) -> cluster.ClusterStatus:
        return cluster.status(self.control)


class Cluster:
    """`size` members below `directory`, the first of them made from `database` (standalone) if there is one.

    A context manager: it starts on entry, and nothing of it runs after exit. `remote` names all members, for a Store.
    """

    def __init__(self, directory: Path, database: Path | None = None, size: int = 3) -> None:
        addresses = [f"tcp:127.0.0.1:{port}" for port in free_ports(size)]
        self.members = [Member(directory / f"m{number}", address) for number, address in enumerate(addresses)]
        first = self.members[0]
        if database is not None:
            database.rename(first.database)
        cluster.init(first.database, first.address)
        for one in self.members[1:]:
            cluster.join(one.database, one.address, [first.address])

    def __enter__(self) -> Cluster:
        with ExitStack() as undo:
            undo.callback(self.kill_all)
            self.start()
            undo.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill_all()

    @property
    def remotes(self) -> list[str]:
        return [one.remote for one in self.members]

    def start(self) -> None:
        """Start whatever does not run; returns when all are members and agree on a leader."""
        for one in self.members:
            if not one.alive:
                one.start()
        self.settle()

    def settle(self) -> None:
        """Until all that run are members and agree on a leader, and have what it has."""
        for one in self.members:
            if one.alive:
                cluster.client("wait", [one.remote], "OVSNet", "connected", timeout=int(TIMEOUT))
        self.leader()

    def leader(self) -> Member:
        """The leader that all members which run agree on."""
        found: list[Member] = []

        def agreed() -> bool:
            try:
                seen = [(one, one.status()) for one in self.members if one.alive]
            except StateUnavailable:  # it has only just started
                return False
            leaders = [one for one, status in seen if status.role == "leader"]
            found[:] = leaders
            return (
                len(leaders) == 1
                and len({status.leader for _, status in seen}) == 1
                and all(status.status == "cluster member" for _, status in seen)
            )

        wait_until(agreed, "the members agree on a leader")
        return found[0]

    def restart(self, member: Member) -> None:
        """kill -9 and start again; returns when it is connected."""
        member.kill()
        member.start()
        self.settle()

    def transfer(self) -> Member:
        """Have the leader hand the leadership over, as it does to write a snapshot; returns the next one."""
        old = self.leader()
        cluster.run_tool("ovs-appctl", f"--target={old.control}", "cluster/failure-test", "transfer-leadership")
        wait_until(lambda: self.leader() is not old, "another member leads")
        return self.leader()

    def kill_all(self) -> None:
        for one in self.members:
            one.kill()


def wait_until(condition: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, f"not within {timeout} s: {what}"
        time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """TCP ports of loopback that nobody listens on."""
    with ExitStack() as bound:
        sockets = [bound.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
