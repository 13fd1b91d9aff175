"""Room on the disk that the state database keeps for itself, so that containers can be removed when the disk is full.

Blocks are allocated behind the end of the database's file, where ovsdb-server's next writes go: nobody else can take them, as
they could take those of a file that is deleted for the purpose. What only grows the database is refused while the disk is full;
what removes uses the reserve up. ovsdb-server cuts its file off at its first write after a start and after a failed one, and
writes a new file now and then: so the reserve is looked at before each growth, and every second by who watches the server.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import threading
from pathlib import Path
from typing import Final

from ..errors import StateUnavailable

LOG = logging.getLogger(__name__)

SIZE: Final = 8 << 20  # bytes; to remove a container takes 360 to 450
FREE: Final = 1 << 20  # bytes that have to be free beside the reserve, or the disk counts as full
_PAGE: Final = 4096  # bytes: a file's end seldom falls on a block's
_KEEP_SIZE: Final = 1  # FALLOC_FL_KEEP_SIZE (fallocate(2))
_BLOCK: Final = 512  # bytes, of st_blocks

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Reserve:
    """The reserve of the database file `database`. Thread-safe."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._full = False  # and the log says so
        self._have_none = False  # the file system cannot do it: what is free is all that there is

    def check(self) -> None:
        """StateUnavailable while the disk has no room for more than removals."""
        reason = self.keep()
        if reason:
            raise StateUnavailable(
                f"the disk of the state database has no room: {reason}",
                hint=f"make room under {self._database.parent}; containers can be removed meanwhile",
            )

    def keep(self) -> str:
        """Have the reserve whole again, if there is room; why the disk counts as full, or ""."""
        with self._lock:
            try:
                reason = self._keep()
            except OSError as exc:
                reason = f"{self._database}: {exc.strerror}"
            if bool(reason) != self._full:
                self._full = bool(reason)
                if reason:
                    LOG.error("the state database takes nothing new: %s", reason)
                else:
                    LOG.info("the disk of the state database has room again")
            return reason

    def _keep(self) -> str:
        status = os.stat(self._database)
        missing = SIZE - (status.st_blocks * _BLOCK - status.st_size)
        if missing > _PAGE and not self._have_none:
            file = os.open(self._database, os.O_WRONLY | os.O_CLOEXEC)
            try:
                if _libc.fallocate(file, _KEEP_SIZE, os.fstat(file).st_size, SIZE) != 0:
                    code = ctypes.get_errno()
                    if code != errno.EOPNOTSUPP:  # as NFS says
                        return f"{self._database}: {os.strerror(code)}"
                    self._have_none = True
            finally:
                os.close(file)
        disk = os.statvfs(self._database)
        free = disk.f_bfree * disk.f_frsize
        wanted = FREE + (SIZE if self._have_none else 0)
        return (
            "" if free >= wanted else f"{free >> 10} KiB are free under {self._database.parent}, {wanted >> 10} needed"
        )
