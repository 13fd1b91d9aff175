"""The support bundle: all that helps to see what a host does, in one archive, without its secrets.

Collectors run side by side, and none is waited for longer than the deadline; what one cannot get is written down in its place.
Asks what `ovsnet doctor` asks, and works when ovsnetd is down. Called by the command line.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import logging
import os
import platform
import secrets
import sqlite3
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from cni import conflist

from . import __version__
from .client import Client
from .doctor import RealHost, examine
from .doctor.host import STATE, SWITCH, Ran, Row
from .errors import AlreadyExists, Forbidden, OvsnetError, Unavailable
from .model import QUARANTINED
from .redact import REDACTED, Redactor

LOG = logging.getLogger(__name__)

ANSWER: Final = 10.0  # seconds for an answer of ovsnetd
_DEADLINE: Final = 30.0  # seconds for all collectors together
_MOST: Final = 8 << 20  # bytes of one file, its end
_JOURNAL_ROWS: Final = 2000
_LOG_LINES: Final = 5000
_READ_SECONDS: Final = 5.0
_MAY_HOLD_LABELS: Final = frozenset({"labels", "before", "after"})  # columns of the journal
_LABELS_OF_OURS: Final = frozenset({"ovsnet.made-with", QUARANTINED})

Collect = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of the bundle. `error` says what was not to be had; `seconds` is what that took."""

    name: str
    content: bytes
    error: str
    seconds: float


def write(path: Path, host: RealHost, client: Client, log: Path | None = None) -> list[Piece]:
    """Write the bundle to a new file `path` (tar.gz, mode 0600); its pieces, the manifest left out.

    `log` is a file with ovsnetd's log, where that is not in systemd's journal. AlreadyExists, Forbidden, Unavailable.
    """
    if path.exists():
        raise AlreadyExists(f"{path} exists", hint="choose another name; a bundle overwrites nothing")
    redactor = Redactor(_LABELS_OF_OURS)
    _learn(redactor, host)
    pieces = gather(_collectors(host, client, redactor, log), redactor, _DEADLINE)
    manifest = {
        "made": datetime.now(UTC).isoformat(),
        "node": host.settings.node,
        "version": __version__,
        "files": [
            {"name": one.name, "bytes": len(one.content), "error": one.error, "seconds": round(one.seconds, 3)}
            for one in pieces
        ],
    }
    described = Piece("manifest.json", redactor.text(_json(manifest)).encode(), "", 0.0)
    _write(path, [described, *pieces])
    return pieces


def gather(collectors: Mapping[str, Collect], redactor: Redactor, deadline: float) -> list[Piece]:
    """What the collectors give within `deadline` seconds, by name. A failure becomes the piece's `error` and content."""
    done: dict[str, Piece] = {}

    def run(name: str, collect: Collect) -> None:
        began = time.monotonic()
        text = error = ""
        try:
            text = collect()
        except (OvsnetError, OSError, sqlite3.Error) as exc:
            error = str(exc)
        except Exception as exc:
            LOG.exception("the collector of %s failed by a defect", name)
            error = f"defect: {exc!r}"
        done[name] = _piece(name, text, error, time.monotonic() - began, redactor)

    threads = {name: threading.Thread(target=run, args=(name, one), daemon=True) for name, one in collectors.items()}
    until = time.monotonic() + deadline
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            done[name] = _piece(name, "", f"no answer within {deadline:.0f} s", deadline, redactor)
    return [done[name] for name in collectors]


def _piece(name: str, text: str, error: str, seconds: float, redactor: Redactor) -> Piece:
    error = redactor.text(error)
    content = redactor.text(text).encode(errors="replace")
    if len(content) > _MOST:
        content = b"[the beginning is left out]\n" + content[-_MOST:]
    return Piece(name, content + (f"ERROR: {error}\n".encode() if error else b""), error, seconds)


def _learn(redactor: Redactor, host: RealHost) -> None:
    """Have the redactor know the secrets that the host has, before anything is collected."""
    redactor.values(host.settings.model_dump(mode="json"))
    redactor.names(dict(os.environ))
    for document in _configurations(host).values():
        redactor.configuration(document)
    try:
        for table in ("Pool", "Network", "Endpoint"):
            for row in host.rows(STATE, table):
                redactor.labels(row["labels"])
    except OvsnetError:
        return  # then no row is in the bundle either


def _collectors(host: RealHost, client: Client, redactor: Redactor, log: Path | None) -> dict[str, Collect]:
    settings = host.settings
    found: dict[str, Collect] = {
        "versions.json": partial(_versions, host),
        "settings.json": lambda: _json(
            {"trouble": host.settings_trouble, "settings": redactor.values(settings.model_dump(mode="json"))}
        ),
        "environment.json": lambda: _json(redactor.names(dict(os.environ))),
        "doctor.json": lambda: _json([asdict(one) for one in examine(host)]),
        "health.json": lambda: _json(client.health()),
        "metrics.txt": client.metrics,
        "flows.txt": partial(_flows, host),
        "links.json": partial(_ran, host, "ip", "-json", "-details", "-statistics", "address"),
        "routes.txt": partial(
            _all_of,
            host,
            ("ip", "route", "show", "table", "all"),
            ("ip", "-6", "route", "show", "table", "all"),
            ("ip", "rule"),
            ("ip", "-6", "rule"),
        ),
        "rules.txt": partial(_all_of, host, ("nft", "list", "ruleset"), ("iptables", "-S"), ("ip6tables", "-S")),
        "datapath.txt": partial(_all_of, host, ("ovs-appctl", "dpif/show"), ("ovs-appctl", "coverage/show")),
        "docker.txt": partial(_all_of, host, ("docker", "version"), ("docker", "network", "ls", "--no-trunc")),
        "cni.json": lambda: _json({name: redactor.configuration(one) for name, one in _configurations(host).items()}),
        "journal/possessions.json": partial(_journal, host, "possession"),
        "journal/events.json": partial(_journal, host, "event"),
        "journal/audit.json": partial(_journal, host, "audit"),
        "logs/ovsnetd.log": partial(_tail, host, log)
        if log
        else partial(_ran, host, "journalctl", "--unit=ovsnetd", f"--lines={_LOG_LINES}", "--no-pager", "--output=cat"),
        "logs/state-server.log": partial(_tail, host, settings.run_dir / "state.log"),
    }
    for database, tables, select in (
        (STATE, ("Pool", "Block", "Network", "Endpoint"), partial(_without_labels, redactor)),
        (SWITCH, ("Open_vSwitch", "Bridge", "Port", "Interface"), partial(_of_ours, settings.node)),
    ):
        for table in tables:
            found[f"{database}/{table}.json"] = partial(_rows, host, database, table, select)
    return found


# -- collectors -------------------------------------------------------------------------------------------------------


def _versions(host: RealHost) -> str:
    programs = {
        "ovs": ("ovs-vswitchd", "--version"),
        "nft": ("nft", "--version"),
        "iptables": ("iptables", "--version"),
        "iproute2": ("ip", "-V"),
        "docker": ("docker", "--version"),
        "podman": ("podman", "--version"),
    }
    libraries = (
        "cheroot",
        "flask",
        "flask-openapi",
        "ovs",
        "ovsdbapp",
        "pydantic",
        "pyroute2",
        "structlog",
        "prometheus-client",
    )
    return _json(
        {
            "ovsnet": __version__,
            "python": platform.python_version(),
            "kernel": platform.release(),
            "system": next(
                (
                    line.partition("=")[2].strip('"')
                    for line in (host.read("/etc/os-release") or "").splitlines()
                    if line.startswith("PRETTY_NAME=")
                ),
                "",
            ),
            "programs": {name: _said(host.run(*argv)).partition("\n")[0] for name, argv in programs.items()},
            "libraries": {name: _library(name) for name in libraries},
        }
    )


def _library(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _rows(host: RealHost, database: str, table: str, select: Callable[[Row], Row | None]) -> str:
    return _json([found for row in host.rows(database, table) if (found := select(row)) is not None])


def _without_labels(redactor: Redactor, row: Row) -> Row:
    return row | ({"labels": redactor.labels(row["labels"])} if "labels" in row else {})


def _of_ours(node: str, row: Row) -> Row | None:
    """Rows of ours, with our own external ids; of the switch itself, what it is."""
    ids = row.get("external_ids", {})
    if "ovs_version" not in row and ids.get("ovsnet-owner") != node:
        return None
    return row | {"external_ids": {key: value if key.startswith("ovsnet-") else REDACTED for key, value in ids.items()}}


def _flows(host: RealHost) -> str:
    bridges = [
        row["name"]
        for row in host.rows(SWITCH, "Bridge")
        if row["external_ids"].get("ovsnet-owner") == host.settings.node
    ]
    return _all_of(host, *(("ovs-ofctl", verb, bridge) for bridge in bridges for verb in ("show", "dump-flows")))


def _configurations(host: RealHost) -> dict[str, Any]:
    """CNI configurations by file name; of one that is no JSON, that it is none."""
    found: dict[str, Any] = {}
    paths = sorted(host.conf_dir.iterdir()) if host.conf_dir.is_dir() else []
    for path in paths:
        if path.suffix in conflist.EXTENSIONS:
            try:
                found[path.name] = json.loads(host.read(path) or "")
            except ValueError:
                found[path.name] = None
    return found


def _journal(host: RealHost, table: str) -> str:
    path = host.settings.state_dir / "journal.db"
    uri = f"file:{quote(str(path))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=_READ_SECONDS)) as db:
        rows = db.execute(f"SELECT * FROM {table} ORDER BY id DESC LIMIT {_JOURNAL_ROWS}")  # noqa: S608  # names of ours
        columns = [one[0] for one in rows.description]
        found = [dict(zip(columns, row, strict=True)) for row in rows]
    return _json([one | dict.fromkeys(one.keys() & _MAY_HOLD_LABELS, REDACTED) for one in found])


def _tail(host: RealHost, path: Path) -> str:
    text = host.read(path)
    if text is None:
        raise Unavailable(f"{path} cannot be read", hint="is it there?")
    return "".join(text.splitlines(keepends=True)[-_LOG_LINES:])


def _ran(host: RealHost, *argv: str) -> str:
    done = host.run(*argv)
    if done.status != 0:
        raise Unavailable(f"{' '.join(argv)}: {done.err or done.out or done.status}")
    return done.out


def _all_of(host: RealHost, *commands: tuple[str, ...]) -> str:
    """What several programs say, whatever becomes of one of them."""
    return "".join(f"$ {' '.join(argv)}\n{_said(host.run(*argv))}\n\n" for argv in commands)


def _said(done: Ran) -> str:
    return done.out.rstrip() if done.status == 0 else f"ERROR: {done.err or done.out or done.status}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, default=str) + "\n"


# -- the archive ------------------------------------------------------------------------------------------------------


def _write(path: Path, pieces: list[Piece]) -> None:
    """All in one file that appears under its name when it is whole, and is nobody else's from its first byte."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    root = path.name.removesuffix(".tar.gz")
    try:
        with ExitStack() as undo:
            file = undo.enter_context(
                open(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
            )
            undo.callback(new.unlink)
            with tarfile.open(fileobj=file, mode="w:gz") as archive:
                for entry, content in _entries(root, pieces):
                    archive.addfile(entry, io.BytesIO(content))
            file.flush()
            os.fsync(file.fileno())
            os.link(new, path)  # unlike a rename, it never overwrites
    except FileExistsError:
        raise AlreadyExists(f"{path} exists", hint="choose another name; a bundle overwrites nothing") from None
    except PermissionError as exc:
        raise Forbidden(f"cannot write {path}: {exc.strerror}", hint="choose another directory") from None
    except OSError as exc:
        raise Unavailable(f"cannot write {path}: {exc.strerror}", hint="check the path and the file system") from None


def _entries(root: str, pieces: list[Piece]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for piece in pieces:
        entry = tarfile.TarInfo(f"{root}/{piece.name}")
        entry.size, entry.mode, entry.mtime = len(piece.content), 0o600, int(time.time())
        yield entry, piece.content
