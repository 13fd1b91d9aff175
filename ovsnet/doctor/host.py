"""What the checks may ask of a host, and the real one. A test makes one up."""

from __future__ import annotations

import ctypes
import grp
import json
import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from .. import client
from ..config import Settings
from ..errors import OvsnetError, StateUnavailable
from ..link import LinkInfo, Links, open_netns
from ..store import cluster
from ..store.store import DATABASE as STATE_DATABASE
from ..switch import Switch
from ..switch.switch import DATABASE as SWITCH_DATABASE
from .trouble import Unreadable

STATE: Final = STATE_DATABASE
SWITCH: Final = SWITCH_DATABASE

Row = dict[str, Any]

_TIMEOUT: Final = 5.0  # seconds for a program or a connection
_TABLES: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    STATE: {
        "Pool": (
            *("_uuid", "name", "space", "subnet", "gateway", "ranges", "exclusions", "static_ranges", "origin"),
            *("requested_by", "draining", "reservations", "labels"),
        ),
        "Block": ("pool", "first", "node", "leases", "cursor", "turn"),
        "Network": (
            *("_uuid", "name", "bridge", "tag", "mtu", "pools", "gateways", "internal", "masquerade", "origin"),
            *("docker_ids", "labels"),
        ),
        "Endpoint": (
            *("_uuid", "network", "container", "ifname", "origin", "node", "sandbox", "addresses", "mac", "mtu"),
            *("port", "link", "published", "bandwidth", "trunk", "config", "labels"),
        ),
    },
    SWITCH: {
        "Open_vSwitch": ("ovs_version", "db_version", "external_ids"),
        "Bridge": ("_uuid", "name", "ports", "datapath_type", "external_ids"),
        "Port": ("_uuid", "name", "interfaces", "tag", "trunks", "external_ids"),
        "Interface": ("_uuid", "name", "type", "mtu", "mtu_request", "ofport", "ifindex", "error", "external_ids"),
    },
}


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended; `status` is None if it could not be run, or not to its end, and `err` tells why."""

    status: int | None
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class File:
    """What is at a path: `mode` with the file's type (stat(2)), `size` in bytes, `changed` in seconds since 1970."""

    mode: int
    uid: int
    gid: int
    size: int = 0
    changed: float = 0.0


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes and inodes that are left in a file system, and how many bytes it has."""

    free: int
    total: int
    inodes: int


class Host(Protocol):
    """A host as the checks see it. Nothing here changes anything, and all of it ends within seconds."""

    settings: Settings
    settings_trouble: str  # why the settings could not be read; the defaults are taken then
    root: bool
    bin_dir: Path  # of CNI plugins
    conf_dir: Path  # of CNI configurations

    def run(self, *argv: str, stdin: str = "") -> Ran:
        """Run a program."""

    def read(self, path: str | Path) -> str | None:
        """The text of a file; None if it cannot be read."""

    def file(self, path: str | Path) -> File | None:
        """What is at a path; None for nothing, or what must not be looked at."""

    def space(self, path: str | Path) -> Space | None:
        """The file system's space; None if there is no such path."""

    def group(self, name: str) -> int | None:
        """The group's id."""

    def serves(self, path: str | Path) -> bool:
        """Whether somebody accepts connections on a unix socket."""

    def now(self) -> float:
        """Seconds since 1970, by the wall clock."""

    def clock_is_set(self) -> bool | None:
        """Whether something keeps the clock right; None if that cannot be told."""

    def rows(self, database: str, table: str) -> list[Row]:
        """The rows of a table: sets are lists, references are UUIDs. Unreadable."""

    def forwards(self) -> bool:
        """Whether an ovs-vswitchd works on the switch's database. SwitchUnavailable."""

    def link(self, name: str, netns: str = "") -> LinkInfo | None:
        """A device of the host or of the namespace at a path. InvalidNetns, LinkFailed."""

    def health(self) -> str:
        """What ovsnetd says of itself: "" for healthy. OvsnetError if it does not answer."""


class RealHost:
    """This host."""

    def __init__(self, settings: Settings, trouble: str, socket_path: str, *, bin_dir: Path, conf_dir: Path) -> None:
        self.settings = settings
        self.settings_trouble = trouble
        self.root = os.geteuid() == 0
        self.bin_dir = bin_dir
        self.conf_dir = conf_dir
        self.socket_path = socket_path
        self._client = client.Client(socket_path, deadline=_TIMEOUT)
        self._tables: dict[str, dict[str, list[Row]]] = {}
        self._failed: dict[str, Unreadable] = {}

    def run(self, *argv: str, stdin: str = "") -> Ran:
        """Run a program."""
        try:
            done = subprocess.run(
                argv, input=stdin, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, check=False
            )
        except OSError as exc:
            return Ran(None, "", f"{argv[0]} cannot be run: {exc.strerror}")
        except subprocess.TimeoutExpired:
            return Ran(None, "", f"{argv[0]} did not end within {_TIMEOUT:.0f} s")
        return Ran(done.returncode, done.stdout, done.stderr.strip())

    def read(self, path: str | Path) -> str | None:
        """The text of a file."""
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def file(self, path: str | Path) -> File | None:
        """What is at a path."""
        try:
            found = os.stat(path)
        except OSError:
            return None
        return File(found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime)

    def space(self, path: str | Path) -> Space | None:
        """The file system's space."""
        try:
            usage, found = shutil.disk_usage(path), os.statvfs(path)
        except OSError:
            return None
        # Some file systems have as many inodes as they have room.
        return Space(usage.free, usage.total, found.f_favail if found.f_files else usage.free)

    def group(self, name: str) -> int | None:
        """The group's id."""
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None

    def serves(self, path: str | Path) -> bool:
        """Whether somebody accepts connections on a unix socket."""
        found = self.file(path)
        if found is None or not stat.S_ISSOCK(found.mode):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_TIMEOUT)
            try:
                probe.connect(str(path))
            except OSError:
                return False
        return True

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def clock_is_set(self) -> bool | None:
        """Whether something keeps the clock right: what the kernel answers to adjtimex(2) is 5 if nothing does."""
        timex = ctypes.create_string_buffer(256)  # struct timex has 208 bytes; zeros ask and change nothing
        try:
            state = int(ctypes.CDLL(None, use_errno=True).adjtimex(timex))
        except (OSError, AttributeError):
            return None
        return None if state < 0 else state != 5

    def rows(self, database: str, table: str) -> list[Row]:
        """The rows of a table."""
        if database in self._failed:
            raise self._failed[database]
        if database not in self._tables:
            try:
                self._tables[database] = self._ask(database)
            except OvsnetError as exc:
                # The tools' complaint without the command line, which is long.
                why = Unreadable(exc.message.rpartition(" failed: ")[2], hint=exc.hint)
                self._failed[database] = why
                raise why from None
        return self._tables[database][table]

    def forwards(self) -> bool:
        """Whether an ovs-vswitchd works on the switch's database."""
        settings = self.settings
        switch = Switch(settings.switch_remote, node=settings.node, datapath=settings.datapath, timeout=_TIMEOUT)
        return switch.forwarding(_TIMEOUT)

    def link(self, name: str, netns: str = "") -> LinkInfo | None:
        """A device of the host or of the namespace at a path."""
        with Links(self.settings.names) as links:
            if not netns:
                return links.link(name)
            with open_netns(netns) as inside:
                return links.link(name, inside)

    def health(self) -> str:
        """What ovsnetd says of itself."""
        try:
            self._client.health()
        except OvsnetError as exc:
            if "version" in exc.details:  # it answers, and is not well
                return exc.message
            raise
        return ""

    def _ask(self, database: str) -> dict[str, list[Row]]:
        """All tables of a database in one transaction: of its server, or else, for our own one, of its file."""
        tables = _TABLES[database]
        selects = [
            {"op": "select", "table": table, "where": [], "columns": list(columns)} for table, columns in tables.items()
        ]
        request = json.dumps([database, *selects])
        settings = self.settings
        own = settings.state_database
        if database == SWITCH:
            text = cluster.client("query", (settings.switch_remote,), request)
        elif own is None:
            text = cluster.client("query", settings.state_remotes, request, tls=settings.state_tls)
        elif self.serves(settings.run_dir / "state.sock"):
            text = cluster.client("query", (f"unix:{settings.run_dir / 'state.sock'}",), request)
        elif not own.exists():
            raise StateUnavailable(f"there is no {own} yet", hint="start ovsnetd once: it makes the file")
        elif cluster.is_clustered(own):
            raise StateUnavailable("this host's member of the cluster does not run", hint="start ovsnetd")
        else:
            text = cluster.run_tool("ovsdb-tool", "query", own, request)
        return {table: _plain(answer) for table, answer in zip(tables, json.loads(text), strict=True)}


def _plain(answer: dict[str, Any]) -> list[Row]:
    """The rows of a `select` (RFC 7047, section 5.2.2)."""
    if "rows" not in answer:
        raise StateUnavailable(f"the database refuses to answer: {answer.get('error')}", hint="is its schema older?")
    return [{name: _value(value) for name, value in row.items()} for row in answer["rows"]]


def _value(value: Any) -> Any:
    """A value (section 5.1) as Python has it."""
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "map":
        return {_value(key): _value(one) for key, one in content}
    return [_value(one) for one in content] if kind == "set" else content
