"""Who is calling: the identity of the dockerd behind the current request, from the unix socket's peer credentials.

Reads the WSGI environment that cheroot fills (`Server(..., peercreds_enabled=True)`) and /proc. Given to create_app
as its `requester`.
"""

from __future__ import annotations

from pathlib import Path

from flask import request


def requester() -> str:
    """`pid:starttime` of the process at the other end of the socket, or "" if it cannot be told.

    The start time, in clock ticks since boot (field 22 of /proc/<pid>/stat, proc(5)), tells a restarted dockerd from
    its predecessor even where both got one pid, as in a container. It cannot be told if the server does not ask for
    peer credentials, the peer lives in a foreign pid namespace (pid 0, unix(7)), or it is gone.
    """
    pid = request.environ.get("X_REMOTE_PID", "0")  # a request header would be HTTP_X_REMOTE_PID
    if pid == "0":
        return ""
    try:
        stat = Path("/proc", pid, "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # The second field, the command's name in parentheses, may itself hold blanks and parentheses; the third follows it.
    after_name = stat.rpartition(b")")[2].split()
    return f"{pid}:{after_name[22 - 3].decode()}"
