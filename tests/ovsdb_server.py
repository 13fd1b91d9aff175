"""A private ovsdb-server for functional tests: real, without root, with every way to treat it badly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

TIMEOUT = 10.0


class OvsdbServer:
    """An ovsdb-server(1) of one database file in `directory`, listening on a unix socket there.

    The file `conf.db` is made of `schema`; without one it must be there.
    """

    def __init__(self, directory: Path, schema: Path | None = None) -> None:
        self.database = directory / "conf.db"
        self.socket = directory / "db.sock"
        self.log = directory / "server.log"
        self._control = directory / "server.ctl"
        self._process: subprocess.Popen[bytes] | None = None
        if schema is not None:
            subprocess.run(["ovsdb-tool", "create", self.database, schema], check=True, timeout=TIMEOUT)

    @property
    def remote(self) -> str:
        return f"unix:{self.socket}"

    def start(self) -> None:
        argv: list[str | Path] = [
            "ovsdb-server",
            self.database,
            f"--remote=punix:{self.socket}",
            f"--unixctl={self._control}",
            f"--log-file={self.log}",
            "-vconsole:off",
            "-vsyslog:off",
            "-vjsonrpc:file:dbg",  # the log then shows every message
        ]
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        until = time.monotonic() + TIMEOUT
        while not self._accepts():  # bound is not yet listening
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, "ovsdb-server does not listen"
            time.sleep(0.01)

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def kill(self) -> None:
        """kill -9; also a paused one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(TIMEOUT)
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: the connection stands, nothing is answered."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def transactions(self) -> int:
        """How many commits the database file holds."""
        return self.database.read_bytes().count(b"OVSDB JSON ")
