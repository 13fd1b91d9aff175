"""Who is calling: the identity of the dockerd at the other end of a connection, from the unix socket's peer credentials.

The listener notes it for the thread that serves a connection; the handlers get it by `requester`, which is given to
create_plugin.
"""

from __future__ import annotations

import socket
import struct
from contextvars import ContextVar
from typing import Final

from ovsnet.dockerd import start_time

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

    The start time, in clock ticks since boot, tells a restarted dockerd from its predecessor even where both got one pid, as in
    a container.
    """
    started = start_time(pid) if pid else None
    return "" if started is None else f"{pid}:{started}"
