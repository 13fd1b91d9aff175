"""Who is calling: the identity of the dockerd at the other end of a connection, from the unix socket's peer credentials.

The listener notes it for the thread that serves a connection; the handlers get it by `requester`, which is given to
create_plugin.
"""

from __future__ import annotations

import socket
import struct
from contextvars import ContextVar
from pathlib import Path
from typing import Final

_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid
_requester: ContextVar[str] = ContextVar("requester", default="")


def requester() -> str:
    """`pid:starttime` of the process at the other end of this thread's connection, or "" if it cannot be told."""
    return _requester.get()


def note(connection: socket.socket) -> None:
    """Have `requester` tell in this thread who made `connection`."""
    pid, _, _ = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)  # of the time of its connect()
    )
    _requester.set(incarnation(pid))


def incarnation(pid: int) -> str:
    """`pid:starttime` of a process, or "" if it is gone, or lives in a foreign pid namespace (pid 0, unix(7)).

    The start time, in clock ticks since boot (field 22 of /proc/<pid>/stat, proc(5)), tells a restarted dockerd from
    its predecessor even where both got one pid, as in a container.
    """
    if not pid:
        return ""
    try:
        stat = Path("/proc", str(pid), "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # The second field, the command's name in parentheses, may itself hold blanks and parentheses; the third follows it.
    after_name = stat.rpartition(b")")[2].split()
    return f"{pid}:{after_name[22 - 3].decode()}"
