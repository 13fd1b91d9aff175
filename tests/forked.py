"""An ovsnetd that starts in a fraction of a second: forked from a process that has imported it, for tests that start it often.

Executed as a program, this is that process: for each line on stdin, a list of arguments, it forks an ovsnetd and prints its pid.
What an import takes (two seconds on a busy machine) is all that is saved: the child runs `ovsnet.daemon.main`, and dies alone.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.harness import REPO, Netns, Ovs, Process, Stack, environment


class _Forked:
    """A process that is somebody else's child. Its exit status is not told: 0 stands for any."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Whether it has ended."""
        return 0 if select.select([self._fd], [], [], 0)[0] else None

    def _send(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._fd, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._send(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended."""
        if not select.select([self._fd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return 0

    def __del__(self) -> None:
        os.close(self._fd)


class ForkedStack(Stack):
    """A Stack whose ovsnetd is forked. `close` ends the process that it is forked from as well."""

    def __init__(self, host: Netns, ovs: Ovs, token: str, directory: Path, **settings: Any) -> None:
        super().__init__(host, ovs, token, directory, **settings)
        self._server: subprocess.Popen[bytes] | None = None

    def spawn(self) -> Process:
        """Its process, just begun."""
        if self._server is None:
            with self.log.open("ab") as log:
                self._server = subprocess.Popen(
                    self.host.argv(sys.executable, "-m", "tests.forked"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment(**self.env),
                    cwd=REPO,
                    start_new_session=True,
                )
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps([str(self.log), "--config", str(self.config)]).encode() + b"\n")
        self._server.stdin.flush()
        return _Forked(int(self._server.stdout.readline()))

    def close(self) -> None:
        """As the parent's."""
        try:
            super().close()
        finally:
            if self._server is not None:
                self._server.communicate(timeout=10)


def _serve() -> None:
    from ovsnet.daemon import main

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    for line in sys.stdin:
        log, *arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            output = os.open(log, os.O_WRONLY | os.O_APPEND)
            null = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((null, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            try:
                main(arguments)
            except SystemExit as end:
                os._exit(int(end.code or 0))
            finally:
                os._exit(99)
        print(pid, flush=True)


if __name__ == "__main__":
    _serve()
