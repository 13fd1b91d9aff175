"""What the benchmarks share: running a program to the last microsecond, percentiles, an orderly end."""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DEADLINE = 60.0  # seconds for one execution
REFERENCE_DIR = Path("/usr/lib/cni")  # of the reference plugins


class BenchError(Exception):
    """The benchmark cannot go on; the message says why."""


@dataclass
class Execution:
    """How a program ended: milliseconds from exec to exit, exit status, standard output."""

    ms: float
    status: int
    output: bytes


def execute(argv: list[str], environment: Mapping[str, str], stdin: bytes = b"") -> Execution:
    """Runs a program with memory files as stdin and stdout, so that nothing of ours runs while it does."""
    with open(os.memfd_create("stdin"), "w+b") as source, open(os.memfd_create("stdout"), "w+b") as sink:
        source.write(stdin)
        source.seek(0)
        files = [(os.POSIX_SPAWN_DUP2, source.fileno(), 0), (os.POSIX_SPAWN_DUP2, sink.fileno(), 1)]
        start = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, environment, file_actions=files, setsigdef=[signal.SIGPIPE])
        try:
            _wait(pid)
        finally:
            _, status, _ = os.wait4(pid, 0)
        elapsed = time.perf_counter() - start
        sink.seek(0)
        return Execution(elapsed * 1e3, os.waitstatus_to_exitcode(status), sink.read())


def _wait(pid: int) -> None:
    """Until the process has ended; kills it when the deadline is over, or when we are interrupted."""
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(DEADLINE * 1e3):
            raise BenchError(f"process {pid} has not ended within {DEADLINE:.0f} s")
    except BaseException:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        raise
    finally:
        os.close(handle)


def run(*argv: str | Path) -> str:
    """Output of a program that has to succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(map(str, argv))}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """SIGTERM ends as Ctrl-C does, once: the clean-up is not disturbed. What is yielded makes deaf to both from there on."""

    def deaf() -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)

    def stop(*_: object) -> None:
        deaf()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield deaf
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
