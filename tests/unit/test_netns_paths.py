"""Paths that name no network namespace of a container are refused, and opening them has no effect."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from ovsnet.errors import InvalidNetns
from ovsnet.link import open_netns


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "not an absolute path"),
        ("run/netns/x", "not an absolute path"),
        ("/run/netns/\0", "not a path"),
        ("/run/\udcff" * 3, "cannot be opened"),
        ("/run/netns/is-not-there", "No such file"),
        ("/etc/passwd/ns/net", "Not a directory"),
        ("/" + "x" * 300, "File name too long"),
        ("/proc", "not a namespace"),
        ("/dev/null", "not a namespace"),
        ("/proc/self/ns/net", "not a namespace"),  # a symlink for us: it is not the form with a number
        ("/proc/self/ns/pid", "not a namespace"),
        ("/proc/PID/ns/net", "the host's own"),  # PID: this process
        ("/proc/PID/task/PID/ns/net", "the host's own"),
        (f"/proc/{2**22 + 1}/ns/net", "No such file"),
    ],
)
def test_refused(path: str, why: str) -> None:
    with pytest.raises(InvalidNetns, match=why):
        open_netns(path.replace("PID", str(os.getpid())))


def test_refuses_what_is_no_namespace(tmp_path: Path) -> None:
    regular = tmp_path / "regular"
    regular.write_text("x")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(f"/proc/{os.getpid()}/ns/net")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("regular", "fifo", "link", "loop", "socket"):
            with pytest.raises(InvalidNetns, match="not a namespace"):
                open_netns(str(tmp_path / name))


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for path in (tmp_path, Path("/proc", str(os.getpid()), "ns/net"), tmp_path / "missing"):
        with pytest.raises(InvalidNetns):
            open_netns(str(path))
    assert os.listdir("/proc/self/fd") == before


def test_a_fifo_cannot_hang_us(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    refused = threading.Event()

    def attempt() -> None:
        with pytest.raises(InvalidNetns):
            open_netns(str(tmp_path / "fifo"))
        refused.set()

    threading.Thread(target=attempt, daemon=True).start()
    assert refused.wait(5)
