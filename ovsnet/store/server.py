"""The ovsdb-server that holds the OVSNet database on a host without a cluster: made, started, watched, stopped.

It is a process of its own: it outlives a killed ovsnetd, and the next one adopts it. Called by the composition root.
"""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from ..errors import StateUnavailable
from .store import schema_text

LOG = logging.getLogger(__name__)

_TOOL_TIMEOUT = 30.0
_RESTART_PAUSES = (0.0, 0.2, 1.0, 5.0)  # seconds before the first, second, ... restart in a row


class StateServer:
    """A standalone ovsdb-server(1) on `database`, listening on the unix socket `run_dir`/state.sock.

    `start` makes or converts the database, adopts a server that already runs or starts one, and watches it: when it dies it
    is started again. StateUnavailable when it cannot be.
    """

    def __init__(self, database: Path, run_dir: Path) -> None:
        self.database = database
        self.socket = run_dir / "state.sock"
        self._control = run_dir / "state.ctl"
        self._log = run_dir / "state.log"
        self._pidfd = -1
        self._stop_r, self._stop_w = os.pipe2(os.O_CLOEXEC)
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None  # None when adopted

    @property
    def remote(self) -> str:
        """The remote for clients."""
        return f"unix:{self.socket}"

    def start(self) -> None:
        """Have the server running; returns once it accepts connections."""
        pid = self.pid()
        if pid is None:
            self._prepare()
            self._launch()
        else:
            LOG.info("using the state server that already runs (pid %d)", pid)
            self._pidfd = os.pidfd_open(pid)
        self._thread = threading.Thread(target=self._watch, name="state-server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, then the server; SIGKILL after five seconds."""
        os.write(self._stop_w, b"x")
        if self._thread is not None:
            self._thread.join(timeout=_TOOL_TIMEOUT)
        pid = self.pid()
        if pid is not None and self._pidfd >= 0:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    signal.pidfd_send_signal(self._pidfd, number)
                except ProcessLookupError:
                    break
                if select.select([self._pidfd], [], [], 5.0)[0]:
                    break
        self._reap()
        os.close(self._stop_r)
        os.close(self._stop_w)

    def pid(self) -> int | None:
        """The pid of the process that serves the socket, or None."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(2.0)
            try:
                probe.connect(str(self.socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return None
            except OSError as exc:
                raise StateUnavailable(f"{self.socket} does not answer: {exc}") from None
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid: int = struct.unpack("3i", raw)[0]
        return pid

    # -----------------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Make the database file, or convert one of an older schema, keeping a copy beside it."""
        self.database.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        schema = self.database.with_suffix(".ovsschema")
        schema.write_text(schema_text(), encoding="utf-8")
        if not self.database.exists():
            self._tool("create", str(self.database), str(schema))
            return
        wanted = json.loads(schema_text())["version"]
        have = self._tool("db-version", str(self.database)).strip()
        if have != wanted:
            backup = self.database.with_suffix(f".db.before-{wanted}")
            shutil.copy2(self.database, backup)
            self._tool("convert", str(self.database), str(schema))
            LOG.info("converted the state database from schema %s to %s; the old one is %s", have, wanted, backup)

    def _tool(self, *args: str) -> str:
        argv = ["ovsdb-tool", *args]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=_TOOL_TIMEOUT, check=False)
        except FileNotFoundError:
            raise StateUnavailable("ovsdb-tool is not installed", hint="install openvswitch-switch") from None
        except subprocess.TimeoutExpired:
            raise StateUnavailable(f"{' '.join(argv)} did not end in {_TOOL_TIMEOUT:.0f} s") from None
        if done.returncode:
            raise StateUnavailable(f"{' '.join(argv)} failed: {done.stderr.strip()}")
        return done.stdout

    def _launch(self) -> None:
        argv = [
            "ovsdb-server",
            f"--remote=punix:{self.socket}",
            f"--unixctl={self._control}",
            f"--log-file={self._log}",
            "-vconsole:off",
            "-vsyslog:off",
            "--no-chdir",
            str(self.database),
        ]
        try:
            # A session of its own: a terminal's Ctrl-C for ovsnetd must not reach the database.
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise StateUnavailable("ovsdb-server is not installed", hint="install openvswitch-switch") from None
        until = time.monotonic() + 10.0
        while self.pid() != child.pid:
            if child.poll() is not None or time.monotonic() > until:
                child.kill()
                _, errors = child.communicate(timeout=5.0)
                detail = errors.decode(errors="replace").strip() or f"see {self._log}"
                raise StateUnavailable(f"the state server for {self.database} does not start: {detail}")
            time.sleep(0.01)
        if child.stderr is not None:
            child.stderr.close()
        self._pidfd = os.pidfd_open(child.pid)
        self._child = child
        LOG.info("state server started (pid %d) on %s", child.pid, self.database)

    def _reap(self) -> None:
        """Let go of a process that has ended."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._child is not None:
            self._child.wait(timeout=5.0)
            self._child = None

    def _watch(self) -> None:
        """Start the server again whenever its process ends."""
        failures = 0
        while True:
            ended, _, _ = select.select([self._pidfd, self._stop_r], [], [])
            if self._stop_r in ended:
                return
            LOG.error("the state server ended; starting it again")
            self._reap()
            while self._pidfd < 0:
                if select.select([self._stop_r], [], [], _RESTART_PAUSES[min(failures, len(_RESTART_PAUSES) - 1)])[0]:
                    return
                started = time.monotonic()
                try:
                    self._launch()
                except StateUnavailable as exc:
                    LOG.error("%s", exc)
                failures = 0 if time.monotonic() - started > 60 else failures + 1
