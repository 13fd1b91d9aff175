"""What ovsnetd makes of sockets that are in the way when it starts."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from ovsnet.daemon import _remove_stale
from ovsnet.errors import ConfigError


def test_a_socket_that_nobody_serves_goes(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    _remove_stale(path)  # there is none
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    _remove_stale(path)
    assert not path.exists()


def test_what_somebody_serves_stays(tmp_path: Path) -> None:
    """However many wait for him."""
    path = tmp_path / "sock"
    with ExitStack() as undo:
        served = undo.enter_context(socket.socket(socket.AF_UNIX))
        served.bind(str(path))
        served.listen(0)
        for _ in range(3):
            with pytest.raises(ConfigError, match="served already"):
                _remove_stale(path)
            waiting = undo.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            waiting.connect_ex(str(path))
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "datagrams"])
def test_what_is_not_ours_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        if kind == "file":
            path.touch()
        else:
            other.bind(str(path))
        with pytest.raises(ConfigError):
            _remove_stale(path)
    assert path.exists()
