"""cheroot's server, patient: a connection gets a thread once it has sent something.

cheroot itself hands a new connection to a thread at once, which then waits for the first byte: as many silent clients as there
are threads keep everybody else waiting until their time is over. Idle connections between two requests wait in its selector, and
cost nothing; here a new one does the same. Called by the listeners.
"""

from __future__ import annotations

import logging
from typing import Any

from cheroot.wsgi import Server

from .precedence import Precedence

LOG = logging.getLogger(__name__)


class PatientServer(Server):
    """A WSGI server; `timeout` is the number of seconds after which a silent connection is closed."""

    precedence: Precedence  # says when a read is served

    def process_conn(self, conn: Any) -> None:
        """Have a thread serve a connection that is readable; a new one waits for that first."""
        if getattr(conn, "welcomed", False):
            super().process_conn(conn)
        else:
            conn.welcomed = True
            self._connections.put(conn)  # type: ignore[attr-defined]  # its stubs have half of it

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """What the server complains of, in our log: it would write to stderr, in a form of its own."""
        LOG.log(level, "the web server: %s", msg, exc_info=traceback)
