"""The state database as a cluster member: made from the standalone one, joined, looked at, backed up and put back.

Wraps ovsdb-tool(1), ovsdb-client(1) and ovs-appctl(8). Offline steps hold the lock that ovsdb-server itself takes, so nothing
serves the file meanwhile; each puts the new file in its place by one rename and leaves the old one beside it.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..errors import AlreadyExists, Conflict, InUse, InvalidRequest, NotFound, StateUnavailable
from ..model import TlsFiles
from .store import DATABASE, schema_text

# Milliseconds without a leader's word before a follower stands for election. It waits up to as long again, at random, so
# ovsdb-server's default of 1,000 may alone take the 2 s in which writes have to be back.
ELECTION_TIMER = 750
_TOOL_TIMEOUT = 30.0
_ANSWER_TIMEOUT = 5  # seconds; for a server that runs
_BACKUP_TIMEOUT = 30  # seconds; a hundred thousand leases take one
_HOLDING = ("Pool", "Network", "Endpoint")  # tables that make a database worth keeping


@dataclass(frozen=True, slots=True)
class Moved:
    """What an offline step left: the database now in place, its address in the cluster, and where the old one went."""

    database: Path
    copy: Path | None
    local: str = ""
    cluster_id: str = ""  # empty for a joiner, which learns it from the cluster


@dataclass(frozen=True, slots=True)
class Member:
    """One server of the cluster as another sees it. `last_heard` in milliseconds; None for itself, and if it never spoke."""

    server_id: str
    address: str
    last_heard: int | None


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """What a member tells of its cluster. `leader` is a short server id, "" without one; a joined one's `status` is
    "cluster member". The ids of servers are short ones, of four digits.
    """

    cluster_id: str
    server_id: str
    address: str
    status: str
    role: str
    leader: str
    term: int
    election_timer: int
    members: tuple[Member, ...]


def run_tool(*argv: str | Path, timeout: float = _TOOL_TIMEOUT) -> str:
    """What an Open vSwitch program prints; StateUnavailable with its complaint when it fails or does not end in time."""
    done = _run(argv, timeout)
    if done.returncode:
        why = "no answer in time" if done.returncode == -signal.SIGALRM else done.stderr.strip()  # by --timeout
        raise StateUnavailable(f"{' '.join(done.args)} failed: {why}")
    return done.stdout


def schema_version(text: str) -> tuple[int, ...]:
    """A schema's version, comparable (RFC 7047, section 3.1)."""
    return tuple(int(part) for part in text.split("."))


def tls_options(tls: TlsFiles | None) -> tuple[str, ...]:
    """The options of Open vSwitch's programs for TLS."""
    if tls is None:
        return ()
    return (f"--private-key={tls.private_key}", f"--certificate={tls.certificate}", f"--ca-cert={tls.ca}")


def client(
    verb: str,
    remotes: Sequence[str],
    *args: str | Path,
    timeout: int | None = None,
    tls: TlsFiles | None = None,
) -> str:
    """`ovsdb-client VERB` on any member that serves one of `remotes`; prints as `run_tool`."""
    timeout = timeout or _ANSWER_TIMEOUT
    options = (f"--timeout={timeout}", "--no-leader-only", "-voff", *tls_options(tls))
    return run_tool("ovsdb-client", *options, verb, ",".join(remotes), *args, timeout=timeout + 5)


def is_served(database: Path) -> bool:
    """Whether a server runs on the file."""
    try:
        with _offline(database):
            return False
    except InUse:
        return True


def is_clustered(database: Path) -> bool:
    """Whether the file is a cluster member's; NotFound, and StateUnavailable if it is no database."""
    if not database.exists():
        raise NotFound(f"{database} does not exist")
    done = _run(("ovsdb-tool", "db-is-clustered", database), _TOOL_TIMEOUT)
    if done.returncode not in (0, 2):  # 2: it is a standalone one
        raise StateUnavailable(f"{database} cannot be read: {done.stderr.strip()}")
    return done.returncode == 0


def init(database: Path, local: str, tls: TlsFiles | None = None) -> Moved:
    """Turn the standalone database into the first member of a cluster, every row kept; without a file, an empty cluster.

    `local` is the address at which the other members reach this one, `tcp:IP:PORT`, or `ssl:IP:PORT` with `tls` as the server
    will have it. InUse while a server runs on it, Conflict when it is a member already.
    """
    _check_address(local, tls)
    with _offline(database), _fresh(database) as new:
        contents = database
        if database.exists():
            _check_standalone(database)
        else:
            contents = database.with_suffix(".ovsschema")
            contents.write_text(schema_text(), encoding="utf-8")
        run_tool("ovsdb-tool", f"--election-timer={ELECTION_TIMER}", "create-cluster", new, contents, local)
        cluster_id = run_tool("ovsdb-tool", "db-cid", new).strip()
        return Moved(database, _replace(database, new, "standalone"), local, cluster_id)


def join(database: Path, local: str, remotes: Sequence[str], tls: TlsFiles | None = None) -> Moved:
    """Make this host's database one more member of the cluster that `remotes` belong to; it is joined when it is started.

    InUse while a server runs on it; Conflict when it is a member already, or holds pools, networks or endpoints: the
    cluster's contents take their place.
    """
    for address in (local, *remotes):
        _check_address(address, tls)
    if not remotes:
        raise InvalidRequest(
            "no member to join at", hint="give --remote with the address of one, as it was initialized"
        )
    if local in remotes:
        raise InvalidRequest(f"{local} cannot join at itself", hint="--remote is a member that is there already")
    with _offline(database), _fresh(database) as new:
        if database.exists():
            _check_standalone(database)
            held = [table for table in _HOLDING if _rows(database, table)]
            if held:
                raise Conflict(
                    f"{database} holds rows of its own ({', '.join(held)}), which a cluster's contents would replace",
                    hint="remove this host's networks and pools first, or move the file away",
                )
        run_tool("ovsdb-tool", "join-cluster", new, DATABASE, local, *remotes)
        return Moved(database, _replace(database, new, "standalone"), local)


def status(control: Path) -> ClusterStatus:
    """How the member behind the control socket sees its cluster. Conflict when it serves a standalone database."""
    if not control.exists():
        raise StateUnavailable(f"no state server runs here: {control} does not exist", hint="systemctl start ovsnetd")
    try:
        text = run_tool(
            *("ovs-appctl", f"--timeout={_ANSWER_TIMEOUT}", f"--target={control}", "cluster/status", DATABASE),
            timeout=_ANSWER_TIMEOUT + 5,
        )
    except StateUnavailable as exc:
        if "is not a valid command" in exc.message or "unknown" in exc.message:
            raise Conflict(
                "the state database here is a standalone one", hint="see `ovsnet db cluster init --help`"
            ) from None
        raise StateUnavailable(exc.message, hint="see its log, state.log in run_dir") from None
    return _parse(text)


def backup(database: Path | None, remotes: Sequence[str], target: Path, tls: TlsFiles | None = None) -> None:
    """Write the contents to a new file `target`, a standalone database of mode 0600, on disk when this returns.

    Asks the server at `remotes`; a member that is cut off from its cluster refuses, because it may be behind. Without
    `remotes` the file `database` is read, which nobody serves. AlreadyExists, NotFound, StateUnavailable.
    """
    if target.exists():
        raise AlreadyExists(f"{target} exists", hint="choose another name; a back-up overwrites nothing")
    with _fresh(target) as new:
        if remotes:
            text = client("backup", [_connected(remotes, tls)], DATABASE, timeout=_BACKUP_TIMEOUT, tls=tls)
            new.touch(mode=0o600)
            new.write_text(text, encoding="utf-8")
        elif database is None:
            raise InvalidRequest("no database to back up")
        else:
            with _offline(database):
                if is_clustered(database):
                    run_tool("ovsdb-tool", "cluster-to-standalone", new, database)
                else:
                    run_tool("ovsdb-tool", "compact", database, new)
            new.chmod(0o600)
        _sync(new)
        os.link(new, target)  # unlike a rename, it never overwrites
        _sync(target.parent)


def restore(database: Path, source: Path) -> Moved:
    """Put the contents of a back-up in place of a standalone database. InUse while a server runs on it.

    InvalidRequest if the file is no back-up of ours; Conflict if the database is a cluster member: the other members would go
    on with what it held.
    """
    _check_backup(source)
    with _offline(database), _fresh(database) as new:
        if database.exists() and is_clustered(database):
            raise Conflict(
                f"{database} is a member of a cluster, whose other members hold what the back-up would replace",
                hint="stop ovsnetd on every member, move this file away on each, and restore on one",
            )
        run_tool("ovsdb-tool", "compact", source, new)
        return Moved(database, _replace(database, new, "before-restore"))


# ---------------------------------------------------------------------------------------------------------------------


def _run(argv: Sequence[str | Path], timeout: float) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in argv]
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError:
        raise StateUnavailable(f"{words[0]} is not installed", hint="install openvswitch-switch") from None
    except subprocess.TimeoutExpired:
        raise StateUnavailable(f"{' '.join(words)} did not end in {timeout:.0f} s") from None


@contextmanager
def _offline(database: Path) -> Iterator[None]:
    """Hold the database's lock as ovsdb-server does (a POSIX lock on `.NAME.~lock~`); InUse if one has it."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        lock = os.open(_lock(database), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise InvalidRequest(f"{database} cannot be changed: {exc.strerror}", hint="this needs root") from None
    try:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows both
            raise InUse(
                f"a server runs on {database}",
                hint="systemctl stop ovsnetd; a server that it left: ovs-appctl --target=RUN_DIR/state.ctl exit",
            ) from None
        yield
    finally:
        os.close(lock)


def _connected(remotes: Sequence[str], tls: TlsFiles | None) -> str:
    """The first of the remotes whose server is up to date; ovsdb-client itself would take one that is cut off, too."""
    why = ""
    for remote in remotes:
        try:
            client("wait", [remote], DATABASE, "connected", tls=tls)
        except StateUnavailable as exc:
            why = exc.message
        else:
            return remote
    raise StateUnavailable(why, hint="a member that is cut off from its cluster gives no back-up: it may be behind")


def _lock(database: Path) -> Path:
    return database.with_name(f".{database.name}.~lock~")


@contextmanager
def _fresh(beside: Path) -> Iterator[Path]:
    """A name for a file that is made beside another one; gone afterwards, with the lock file that the tools leave."""
    new = beside.with_name(f".{beside.name}.{os.getpid()}")
    try:
        yield new
    finally:
        for path in (new, _lock(new)):
            path.unlink(missing_ok=True)


def _replace(database: Path, new: Path, why: str) -> Path | None:
    """Put `new` in the database's place, on disk; the old one stays under the name returned."""
    copy = None
    _sync(new)
    if database.exists():
        copy = database.with_name(f"{database.name}.{why}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
        os.link(database, copy)
    new.replace(database)
    _sync(database.parent)
    return copy


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _check_address(text: str, tls: TlsFiles | None) -> None:
    """A RAFT address (ovsdb(7), "Connection Methods"): other hosts read it, so it is numeric and has a port."""
    match = re.fullmatch(r"(?:tcp|ssl):(?:\[(?P<six>[^\]%]+)\]|(?P<four>[^:]+)):(?P<port>[0-9]{1,5})", text)
    try:
        if match is None or not 0 < int(match["port"]) < 65536:
            raise ValueError("no such form")
        address = ipaddress.IPv6Address(match["six"]) if match["six"] else ipaddress.IPv4Address(match["four"])
        if address.is_unspecified or address.is_multicast:
            raise ValueError("no host's address")
    except ValueError as exc:
        raise InvalidRequest(
            f"{text!r} is no address of a cluster member: {exc}", hint="ssl:10.0.0.1:6644, or ssl:[fd00::1]:6644"
        ) from None
    if text.startswith("ssl:") and tls is None:
        raise InvalidRequest(
            f"{text} needs a key and certificates",
            hint="set state_private_key, state_certificate and state_ca on every host first",
        )


def _check_standalone(database: Path) -> None:
    """Conflict if the file is a member's; InvalidRequest if it is another database."""
    if is_clustered(database):
        raise Conflict(f"{database} is a member of a cluster already", hint="see `ovsnet db cluster status`")
    _check_name(database)


def _check_backup(source: Path) -> None:
    if is_clustered(source):
        raise InvalidRequest(f"{source} is a cluster member's file", hint="give a file of `ovsnet db backup`")
    _check_name(source)
    have = run_tool("ovsdb-tool", "db-version", source).strip()
    wanted = str(json.loads(schema_text())["version"])
    if schema_version(have) > schema_version(wanted):
        raise InvalidRequest(
            f"{source} has schema {have}, written by a newer ovsnet; this one knows {wanted}",
            hint="install that version first",
        )


def _check_name(database: Path) -> None:
    name = run_tool("ovsdb-tool", "db-name", database).strip()
    if name != DATABASE:
        raise InvalidRequest(f"{database} is a database {name}, not {DATABASE}")


def _rows(database: Path, table: str) -> int:
    """How many rows a standalone database that nobody serves has in a table."""
    query = [DATABASE, {"op": "select", "table": table, "where": [], "columns": ["_uuid"]}]
    return len(json.loads(run_tool("ovsdb-tool", "query", database, json.dumps(query)))[0]["rows"])


def _parse(text: str) -> ClusterStatus:
    """`cluster/status` as ovsdb-server prints it for people; it has no other form."""
    keys = dict(re.findall(r"^([A-Z][A-Za-z ]+): *(.*)$", text, re.MULTILINE))
    members = re.findall(r"^ +([0-9a-f]{4}) \(\1 at ([^)]+)\)(.*)$", text, re.MULTILINE)
    try:
        server_id = keys["Server ID"].partition(" ")[0]
        leader = keys["Leader"]
        return ClusterStatus(
            cluster_id=keys["Cluster ID"].partition("(")[2].rstrip(")"),
            server_id=server_id,
            address=keys["Address"],
            status=keys["Status"],
            role=keys["Role"],
            leader=server_id if leader == "self" else leader.replace("unknown", ""),
            term=int(keys["Term"]),
            election_timer=int(keys["Election timer"]),
            members=tuple(
                Member(member, address, int(heard[1]) if (heard := re.search(r"last msg (\d+) ms ago", rest)) else None)
                for member, address, rest in sorted(members, key=lambda one: one[1])  # the server lists them by hash
            ),
        )
    except (KeyError, ValueError) as exc:
        raise StateUnavailable(f"cluster/status is not understood ({exc!r}): {text}") from None
