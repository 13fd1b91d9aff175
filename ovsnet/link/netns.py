"""Network namespaces: opening the one that a path names, and doing a short piece of work inside it.

A path comes from outside, so it is distrusted: `open_netns` hands out nothing that is not a network namespace other than the
daemon's own. `Host` is the only code that changes a thread's namespace; what runs inside opens a socket or writes a sysctl
and is back before anything else can happen on that thread.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
from collections.abc import Callable
from typing import Self, TypeVar

from ..errors import InvalidNetns, LinkFailed

_CLONE_NEWNET = 0x40000000
_NSFS_MAGIC = 0x6E736673  # linux/magic.h
_NS_GET_NSTYPE = 0xB703  # _IO(0xb7, 3), ioctl_ns(2)
_OWN = "/proc/self/ns/net"
# The kernel's own "symlinks" to a namespace: O_NOFOLLOW would refuse them. No other symlink is followed as last component.
_PROC = re.compile(r"/proc/[0-9]+/(task/[0-9]+/)?ns/net\Z")
_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

_libc = ctypes.CDLL(None, use_errno=True)
# PyDLL keeps the interpreter lock: setns(2) does not block, and giving the lock away would let a busy process keep
# this thread inside the container's namespace for milliseconds (sys.getswitchinterval) each time.
_setns = ctypes.PyDLL(None, use_errno=True).setns

_T = TypeVar("_T")


class Netns:
    """An open network namespace; stays alive while this is open, even when its path is gone. A context manager.

    `fd` is its file descriptor, `path` where it was found, `inode` its number as in `ls -L -i /proc/<pid>/ns/net`.
    """

    __slots__ = ("fd", "inode", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        self.inode = os.fstat(fd).st_ino

    def close(self) -> None:
        """Let go of the namespace. Again is harmless."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_netns(path: str) -> Netns:
    """The container's network namespace at `path` (a bind mount such as /run/netns/x, or /proc/<pid>/ns/net).

    Raises InvalidNetns if nothing is there, the last component is a symlink (but for the kernel's own in /proc), it is
    no network namespace, or it is the host's, which no container may change; LinkFailed if descriptors ran out.
    """
    if not path.startswith("/"):
        raise _invalid(path, "is not an absolute path")
    follow = 0 if _PROC.match(path) else os.O_NOFOLLOW
    # O_PATH first: merely opening a device, a FIFO or a socket of the caller's choice could hang or have effects.
    probe = _open(path, path, os.O_PATH | os.O_CLOEXEC | follow)
    try:
        if _filesystem(probe, path) != _NSFS_MAGIC:
            raise _invalid(path, "is not a namespace")
        netns = Netns(_open(path, f"/proc/self/fd/{probe}", os.O_RDONLY | os.O_CLOEXEC), path)
    finally:
        os.close(probe)
    try:
        _check(netns)
    except BaseException:
        netns.close()
        raise
    return netns


class Host:
    """The daemon's own network namespace, as the way back from a container's."""

    def __init__(self) -> None:
        self.fd = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the namespace's descriptor."""
        os.close(self.fd)

    def inside(self, netns: Netns, work: Callable[[], _T]) -> _T:
        """What `work` returns when this thread runs it in `netns`. It must be short and wait for nothing.

        A thread that cannot come back would serve its next request in a container: then the process ends.
        """
        try:
            if _setns(netns.fd, _CLONE_NEWNET) != 0:
                name = errno.errorcode.get(ctypes.get_errno(), "?")
                raise LinkFailed(
                    f"cannot enter {netns.path}: {name}", hint="ovsnetd needs CAP_SYS_ADMIN there", errno=name
                )
            return work()
        finally:
            if _setns(self.fd, _CLONE_NEWNET) != 0:
                os.write(2, b"ovsnet: stuck in a container's namespace\n")
                os.abort()


def _check(netns: Netns) -> None:
    try:
        kind = fcntl.ioctl(netns.fd, _NS_GET_NSTYPE)
    except OSError:  # nsfs holds nothing else today; what does not know its type is no network namespace
        kind = 0
    if kind != _CLONE_NEWNET:
        raise _invalid(netns.path, "is not a network namespace")
    if os.path.samestat(os.fstat(netns.fd), os.stat(_OWN)):
        raise _invalid(netns.path, "is the host's own network namespace", "a container needs a namespace of its own")


def _open(path: str, name: str, flags: int) -> int:
    try:
        return os.open(name, flags)
    except ValueError:
        raise _invalid(path, "is not a path") from None
    except OSError as exc:
        if exc.errno in _SHORTAGE:
            raise LinkFailed(f"cannot open {path}: {exc.strerror}", hint="raise LimitNOFILE of ovsnetd") from exc
        raise _invalid(path, f"cannot be opened: {exc.strerror}") from None


def _filesystem(fd: int, path: str) -> int:
    """The magic number of the file system under `fd` (statfs(2); f_type comes first and is a long)."""
    buffer = ctypes.create_string_buffer(512)
    if _libc.fstatfs(fd, buffer) != 0:
        raise _invalid(path, f"cannot be examined: {os.strerror(ctypes.get_errno())}")
    return ctypes.c_ulong.from_buffer(buffer).value


def _invalid(
    path: str, why: str, hint: str = "give a path such as /run/netns/NAME or /proc/PID/ns/net"
) -> InvalidNetns:
    return InvalidNetns(f"network namespace {path[:200]!r} {why}", hint=hint)
