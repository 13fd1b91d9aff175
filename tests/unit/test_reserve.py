"""The reserve behind the database's end. What a full disk does is in tests/system/test_faults.py."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ovsnet.errors import StateUnavailable
from ovsnet.store import reserve
from ovsnet.store.reserve import SIZE, Reserve


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A file that looks like none of a database: it is only measured."""
    path = tmp_path / "ovsnet.db"
    path.write_bytes(b"x" * 5000)
    return path


def behind(path: Path) -> int:
    """Bytes allocated behind the end."""
    status = path.stat()
    return status.st_blocks * 512 - status.st_size


def refuses(code: int) -> Any:
    """A libc whose fallocate() fails with `code`."""

    def fallocate(*_: object) -> int:
        ctypes.set_errno(code)
        return -1

    return SimpleNamespace(fallocate=fallocate)


def test_it_is_there_and_comes_again(database: Path) -> None:
    keeper = Reserve(database)
    keeper.check()
    assert behind(database) >= SIZE
    assert database.read_bytes() == b"x" * 5000
    os.truncate(database, 5000)  # as ovsdb-server's first write does
    assert behind(database) < SIZE
    keeper.check()
    assert behind(database) >= SIZE
    database.write_bytes(b"y")  # as when it is compacted
    keeper.check()
    assert (behind(database) >= SIZE, database.read_bytes()) == (True, b"y")


def test_a_full_disk_and_room_again(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Reserve(database)
    caplog.set_level(logging.INFO)
    with monkeypatch.context() as full:
        full.setattr(reserve, "_libc", refuses(errno.ENOSPC))
        for _ in range(3):
            with pytest.raises(StateUnavailable, match="No space left on device") as refused:
                keeper.check()
    assert str(database.parent) in refused.value.hint
    keeper.check()
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_a_disk_that_is_nearly_full(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Reserve(database)
    keeper.check()
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bfree=255, f_frsize=4096))
    with pytest.raises(StateUnavailable, match="1020 KiB are free"):
        keeper.check()


def test_a_file_system_that_cannot(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "_libc", refuses(errno.EOPNOTSUPP))
    keeper = Reserve(database)
    keeper.check()
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bfree=SIZE // 4096, f_frsize=4096))
    with pytest.raises(StateUnavailable, match="9216 needed"):
        keeper.check()


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(StateUnavailable, match="No such file"):
        Reserve(tmp_path / "missing").check()
