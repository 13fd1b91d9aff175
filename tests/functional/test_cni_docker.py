"""The executable `ovsnet-docker` against servers that are no Docker, or a bad one. With Docker: tests/system."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cni.install import program
from tests.functional.test_cni_shim import served

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/proc/self/ns/net",
    "CNI_IFNAME": "net1",
    "PYTHONPATH": "/nonexistent",
}


class Plugin:
    """The executable in a directory, and a path for Docker's socket; `constants` replaces lines of it."""

    def __init__(self, directory: Path, **constants: int) -> None:
        self.socket = directory / "docker.sock"
        self.path = directory / "ovsnet-docker"
        text = program("ovsnet-docker", directory / "unused.sock").decode()
        for name, value in constants.items():
            head, _, tail = text.partition(f"\n{name} = ")
            text = f"{head}\n{name} = {value}\n{tail.partition(chr(10))[2]}"
        self.path.write_text(text, encoding="utf-8")
        self.path.chmod(0o755)

    def run(self, command: str = "ADD", stdin: bytes | None = None, **environment: str) -> tuple[int, Any]:
        """Exit status and JSON (None: no output) of one execution, which must be silent on stderr."""
        config = {"cniVersion": "1.1.0", "name": "blue", "type": "ovsnet-docker", "dockerSocket": str(self.socket)}
        done = subprocess.run(
            [self.path],
            input=json.dumps(config).encode() if stdin is None else stdin,
            env=ENVIRONMENT | {"CNI_COMMAND": command} | environment,
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert done.stderr == b""
        return done.returncode, json.loads(done.stdout) if done.stdout else None


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}",
        b"SSH-2.0\r\n",
        b"\xff" * 100,
    ],
)
def test_what_is_no_answer_of_docker_is_code_11(tmp_path: Path, answer: bytes) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    plugin = Plugin(tmp_path)
    with served(plugin.socket, behave):
        status, error = plugin.run()
    assert (status, error["code"], error["cniVersion"]) == (1, 11, "1.1.0")


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("DEL", 11), ("STATUS", 50)])
def test_a_silent_docker_is_given_up(tmp_path: Path, command: str, code: int) -> None:
    plugin = Plugin(tmp_path, WORK=1)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(plugin.socket))
        deaf.listen()
        status, error = plugin.run(command)
    assert (status, error["code"]) == (1, code)
    assert "no answer from Docker to GET /version" in error["msg"]


def trickle(connection: socket.socket) -> None:
    """An answer that never ends, and never pauses for long."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        try:
            connection.sendall(b"{")
        except OSError:
            return
        time.sleep(0.05)


def test_everything_has_one_deadline(tmp_path: Path) -> None:
    plugin = Plugin(tmp_path, DEADLINE=1)
    start = time.monotonic()
    with served(plugin.socket, trickle):
        status, error = plugin.run()
    assert time.monotonic() - start < 5
    assert (status, error["code"]) == (1, 11)


@pytest.mark.parametrize("stdin", [b"", b"\xff", b"[]", b"[" * 100_000, b'"x"', b'{"name": NaN}'])
@pytest.mark.parametrize("command", ["ADD", "DEL", "VERSION"])
def test_garbage_on_stdin_is_code_6(tmp_path: Path, command: str, stdin: bytes) -> None:
    status, error = Plugin(tmp_path).run(command, stdin)
    assert (status, error["code"]) == (1, 6)


def test_too_much_on_stdin_is_code_7(tmp_path: Path) -> None:
    status, error = Plugin(tmp_path).run(stdin=b"x" * (3 << 20))
    assert (status, error["code"]) == (1, 7)


def test_started_by_hand(tmp_path: Path) -> None:
    reading, writing = os.pipe()  # stdin that never ends
    try:
        done = subprocess.run(
            [Plugin(tmp_path).path], stdin=reading, env={}, capture_output=True, timeout=10, check=False
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert (done.returncode, json.loads(done.stdout)["code"], done.stderr) == (1, 4, b"")


def test_stdin_that_cannot_be_read_is_code_5(tmp_path: Path) -> None:
    with (tmp_path / "output-only").open("wb") as file:
        done = subprocess.run(
            [Plugin(tmp_path).path], stdin=file, env=ENVIRONMENT, capture_output=True, timeout=10, check=False
        )
    assert (done.returncode, json.loads(done.stdout)["code"], done.stderr) == (1, 5, b"")
