"""The ovsdb-server that holds the OVSNet database on this host: made, started, watched, stopped.

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
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ..errors import StateUnavailable
from ..model import TlsFiles
from .cluster import client, is_clustered, run_tool, schema_version, tls_options
from .reserve import Reserve
from .store import DATABASE, schema_text

LOG = logging.getLogger(__name__)

_STOP_TIMEOUT = 30.0
_ELECTION_TIMEOUT = 15  # seconds in which a member that has just started should find its cluster
_RESTART_PAUSES = (0.0, 0.2, 1.0, 5.0)  # seconds before the first, second, ... restart in a row
_LOOK = 1.0  # seconds between two looks at the reserve
_STEADY = 60.0  # seconds; a server that ran that long begins a new row


class StateServer:
    """An ovsdb-server(1) on `database`, listening on the unix socket `run_dir`/state.sock and on `listen` (ovsdb(7)).

    `start` makes or converts the database, adopts a server that already runs or starts one, and watches it: when it dies it
    is started again. StateUnavailable when it cannot be. A file that `cluster.init` or `cluster.join` made is served as a
    member of its cluster, and converted through it.
    """

    def __init__(self, database: Path, run_dir: Path, listen: Sequence[str] = (), tls: TlsFiles | None = None) -> None:
        self.database = database
        self.socket = run_dir / "state.sock"
        self.control = run_dir / "state.ctl"
        self.reserve = Reserve(database)
        self._listen = listen
        self._tls = tls
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
            try:
                self._prepare()
            except OSError as exc:
                raise StateUnavailable(
                    f"the state database {self.database} cannot be prepared: {exc}",
                    hint="see to its disk and directory",
                ) from exc
            self._launch()
        else:
            LOG.info("using the state server that already runs (pid %d)", pid)
            self._pidfd = os.pidfd_open(pid)
        self.reserve.keep()
        self._thread = threading.Thread(target=self._watch, name="state-server", daemon=True)
        self._thread.start()
        if is_clustered(self.database):
            with ExitStack() as undo:
                undo.callback(self.stop)
                self._convert_cluster()
                undo.pop_all()

    def stop(self) -> None:
        """Stop watching, then the server; SIGKILL after five seconds."""
        os.write(self._stop_w, b"x")
        if self._thread is not None:
            self._thread.join(timeout=_STOP_TIMEOUT)
        if self._pidfd >= 0:
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
        """Make the database file, or convert a standalone one of an older schema, keeping a copy beside it."""
        self.database.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        schema = self._write_schema()
        if not self.database.exists():
            run_tool("ovsdb-tool", "create", self.database, schema)
            return
        if is_clustered(self.database):
            return
        wanted = self._newer_than(run_tool("ovsdb-tool", "db-version", self.database).strip())
        if wanted:
            backup = self.database.with_suffix(f".db.before-{wanted}")
            shutil.copy2(self.database, backup)
            run_tool("ovsdb-tool", "convert", self.database, schema)
            LOG.info("converted the state database to schema %s; the old one is %s", wanted, backup)

    def _convert_cluster(self) -> None:
        """Convert the cluster's database if its schema is older than ours; members with an older ovsnet can go on with it."""
        try:
            client("wait", [self.remote], DATABASE, "connected", timeout=_ELECTION_TIMEOUT)
        except StateUnavailable as exc:
            raise StateUnavailable(
                f"the state server finds no leader of its cluster: {exc.message}",
                hint="more than half of the members must be up; see `ovsnet db cluster status`",
            ) from None
        wanted = self._newer_than(client("get-schema-version", [self.remote], DATABASE).strip())
        if wanted:
            client("convert", [self.remote], self._write_schema(), timeout=_ELECTION_TIMEOUT)
            LOG.info("converted the state database of the cluster to schema %s", wanted)

    def _newer_than(self, have: str) -> str:
        """The version of our schema if it is newer than the database's, or ""; StateUnavailable if it is older."""
        wanted = str(json.loads(schema_text())["version"])
        if schema_version(have) > schema_version(wanted):
            raise StateUnavailable(
                f"{self.database} has schema {have}, written by a newer ovsnet; this one knows {wanted}",
                hint="install that version again, or move its copy of the older database back",
            )
        return "" if have == wanted else wanted

    def _write_schema(self) -> Path:
        schema, text = self.database.with_suffix(".ovsschema"), schema_text()
        if (
            not schema.exists() or schema.read_text(encoding="utf-8") != text
        ):  # on a full disk it could not be written again
            schema.write_text(text, encoding="utf-8")
        return schema

    def _launch(self) -> None:
        argv = [
            "ovsdb-server",
            f"--remote=punix:{self.socket}",
            *(f"--remote={one}" for one in self._listen),
            *tls_options(self._tls),
            f"--unixctl={self.control}",
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
        with ExitStack() as undo:
            undo.callback(child.wait, 5.0)
            undo.callback(child.kill)
            while self.pid() != child.pid:
                if child.poll() is not None or time.monotonic() > until:
                    child.kill()
                    _, errors = child.communicate(timeout=5.0)
                    detail = errors.decode(errors="replace").strip() or f"see {self._log}"
                    raise StateUnavailable(f"the state server for {self.database} does not start: {detail}")
                time.sleep(0.01)
            undo.pop_all()
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
        """Start the server again whenever its process ends; meanwhile look after its room on the disk."""
        failures = 0
        while True:
            started = time.monotonic()
            while not (ended := select.select([self._pidfd, self._stop_r], [], [], _LOOK)[0]):
                self.reserve.keep()
            if self._stop_r in ended:
                return
            LOG.error("the state server ended; starting it again")
            if time.monotonic() - started > _STEADY:
                failures = 0
            self._reap()
            while self._pidfd < 0:
                if select.select([self._stop_r], [], [], _RESTART_PAUSES[min(failures, len(_RESTART_PAUSES) - 1)])[0]:
                    return
                try:
                    self._launch()
                except StateUnavailable as exc:
                    LOG.error("%s", exc)
                failures += 1
