"""Checks of what ovsnet stands on: kernel, clock, disk, permissions."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from ..errors import Unavailable
from .host import Host
from .trouble import Trouble, error, warning

# Each is tried in a network namespace of its own, which is gone with the program.
_TAP = "tuntap add dev t0 mode tap\n"
_MACVLAN = f"{_TAP}link add link t0 name m0 type macvlan mode passthru\n"
_VLAN = f"{_TAP}link add link t0 name v0 type vlan id 5\n"
_RULES = """
table inet probe {
    map addresses { type inet_proto . inet_service : ipv4_addr; }
    chain early { type filter hook prerouting priority -300; iifname "t*" counter drop; }
    chain in { type nat hook prerouting priority -100; fib daddr type local dnat ip to meta l4proto . th dport map @addresses; }
    chain out { type nat hook postrouting priority 100; ct status dnat counter masquerade; }
}
"""
_MIB = 1 << 20
_LEAST = {
    "state_dir": (64 * _MIB, 512 * _MIB),
    "run_dir": (4 * _MIB, 16 * _MIB),
}  # bytes free: error below, warning below
_LEAST_INODES = 100
_SKEW = 60.0  # seconds that a file may be newer than the clock
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_READ = stat.S_IRWXG | stat.S_IRWXO
_SOON_DAYS = 14
_DAY = 86400  # seconds
_JOURNAL_SECONDS = 5.0


def tun(host: Host) -> Iterator[Trouble]:
    """A port of the userspace datapath is a tap device."""
    if host.root and (complaint := _tried(host, _TAP)):
        grave = host.settings.datapath == "netdev"
        yield (error if grave else warning)(
            f"no tap device can be made: {complaint}",
            "`modprobe tun`, and see /dev/net/tun; bridges with the kernel's datapath can do without",
        )


def macvlan(host: Host) -> Iterator[Trouble]:
    """A container's link is a macvlan on its port."""
    if host.root and not _tried(host, _TAP) and (complaint := _tried(host, _MACVLAN)):
        yield error(f"no macvlan can be made: {complaint}", "`modprobe macvlan`, or use a kernel with CONFIG_MACVLAN")


def vlan(host: Host) -> Iterator[Trouble]:
    """Containers with a trunk make interfaces of its VLANs."""
    if host.root and not _tried(host, _TAP) and (complaint := _tried(host, _VLAN)):
        yield warning(
            f"no VLAN interface can be made: {complaint}",
            "`modprobe 8021q`, if containers are to use a trunk; networks do without",
        )


def nftables(host: Host) -> Iterator[Trouble]:
    """Isolation, masquerading and published ports are rules of nftables."""
    if host.root and (complaint := _tried(host, _RULES, "nft", "-f", "-")):
        yield error(
            f"nftables refuses rules like ours: {complaint}",
            "install nftables, and use a kernel with NF_TABLES_INET, NFT_NAT, NFT_MASQ and NFT_FIB_INET",
        )


def _tried(host: Host, stdin: str, *argv: str) -> str:
    """What a program, `ip` if none is named, complains of in a network namespace of its own; "" for nothing. Unavailable."""
    done = host.run("unshare", "--net", *(argv or ("ip", "-batch", "-")), stdin=stdin)
    if done.status is None:
        raise Unavailable(done.err, hint="see that util-linux is installed")
    return "" if done.status == 0 else done.err or f"it ended with {done.status}"


def clock(host: Host) -> Iterator[Trouble]:
    """Times in the journal and the log are the wall clock's; no address depends on it."""
    if host.clock_is_set() is False:
        yield warning(
            "nothing keeps the clock right: times in logs and lease history will not fit other hosts'",
            "run a time service, such as chrony or systemd-timesyncd",
        )
    for name in ("ovsnet.db", "journal.db"):
        path = host.settings.state_dir / name
        found = host.file(path)
        if found is not None and found.changed > host.now() + _SKEW:
            yield warning(
                f"the clock was set back: {path} is of the future", "set the clock; it comes right with the next write"
            )


def disk(host: Host) -> Iterator[Trouble]:
    """A full disk stops every change."""
    for key, (least, low) in _LEAST.items():
        path = getattr(host.settings, key)
        space = host.space(path)
        if space is None:
            continue  # ovsnetd makes it
        left = f"{space.free // _MIB} MiB are left below {path} ({key})"
        remedy = "make room: without any no address can be given out"
        if space.free < least:
            yield error(left, remedy)
        elif space.free < low:
            yield warning(left, remedy)
        if space.inodes < _LEAST_INODES:
            yield error(f"{space.inodes} inodes are left below {path} ({key})", "remove small files there")


def journal(host: Host) -> Iterator[Trouble]:
    """Lease history and events; nothing else needs it."""
    path = host.settings.state_dir / "journal.db"
    broken = path.with_name(f"{path.name}.broken")
    if host.file(broken) is not None:
        yield warning(
            f"the event journal was broken once: {broken} is what is left", "look at the disk, then delete that file"
        )
    if not host.settings.journal_days or host.file(path) is None:
        return
    if complaint := _unreadable(path):
        yield warning(
            f"{path} cannot be read: {complaint}", "see ovsnetd's log; lease history is lost until it is mended"
        )


def _unreadable(path: Path) -> str:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_JOURNAL_SECONDS)) as db:
            db.execute("SELECT count(*) FROM (SELECT 1 FROM possession LIMIT 1)").fetchone()
    except sqlite3.Error as exc:
        return str(exc)
    return ""


def certificates(host: Host) -> Iterator[Trouble]:
    """One that has run out cuts clients, or other hosts, off; a key that others read is none."""
    settings = host.settings
    for certificate, key in (
        (settings.tls_certificate, settings.tls_private_key),
        (settings.state_certificate, settings.state_private_key),
    ):
        if certificate is not None and host.root:
            for days, tell in ((0, error), (_SOON_DAYS, warning)):
                done = host.run("openssl", "x509", "-noout", "-checkend", str(days * _DAY), "-in", str(certificate))
                if done.status:
                    when = f"runs out within {days} days" if days else "has run out, or is none"
                    yield tell(f"the certificate {certificate} {when}", "put a new one in its place")
                    break
        found = host.file(key) if key is not None else None
        if found is not None and stat.S_IMODE(found.mode) & _OTHERS_READ:
            yield error(f"the private key {key} has mode {stat.S_IMODE(found.mode):04o}", f"`chmod 0600 {key}`")


def directories(host: Host) -> Iterator[Trouble]:
    """Who can write to a directory can put a file of his own in the place of ours."""
    settings = host.settings
    for path in (settings.state_dir, settings.run_dir, settings.docker_socket.parent, host.bin_dir):
        found = host.file(path)
        if found is None:
            continue
        mode = stat.S_IMODE(found.mode)
        if found.uid != 0 or (mode & _OTHERS_WRITE and not mode & stat.S_ISVTX):
            yield error(
                f"{path} has mode {mode:04o} and belongs to user {found.uid}", f"`chown root {path}; chmod go-w {path}`"
            )


def sockets(host: Host) -> Iterator[Trouble]:
    """Who may write to a socket may use it."""
    settings = host.settings
    group = host.group(settings.socket_group) if settings.socket_group else None
    if settings.socket_group and group is None:
        yield warning(
            f"there is no group {settings.socket_group}: only root may use ovsnetd's socket",
            f'`groupadd --system {settings.socket_group}`, then start ovsnetd again; or set socket_group to ""',
        )
    for path, wanted, owner in (
        (settings.api_socket, settings.api_socket_mode, group or 0),
        (settings.cni_socket, 0o660, group or 0),
        (settings.docker_socket, 0o600, 0),
    ):
        found = host.file(path)
        if found is None:
            continue
        mode = stat.S_IMODE(found.mode)
        if mode & ~wanted or found.uid != 0 or found.gid not in (0, owner):
            yield error(
                f"{path} has mode {mode:04o} and belongs to {found.uid}:{found.gid}, not {wanted:04o} and 0:{owner}",
                f"`chown 0:{owner} {path}; chmod {wanted:04o} {path}`, or start ovsnetd again",
            )
