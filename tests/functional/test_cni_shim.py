"""The installed executables, compiled and in Python alone: against the real blueprint behind cheroot, against servers that
misbehave, and against none.
"""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cheroot.wsgi import Server
from flask import Flask

import cni.install
from cni import protocol, wire
from cni.blueprint import create_blueprint
from cni.install import PROGRAMS, compiled, executable, install, troubles, uninstall
from ovsnet.errors import AlreadyExists, InvalidRequest
from ovsnet.model import AttachRequest
from tests.unit.test_cni_blueprint import Controller
from tests.unit.test_cni_protocol import ATTACHMENT

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "PATH": "/usr/bin",
    "PYTHONPATH": "/nonexistent",
}
CONFIG = {"cniVersion": "1.0.0", "name": "blue", "type": "ovsnet"}


KINDS: dict[str, Callable[..., bytes | None]] = {"compiled": compiled, "python": executable}


class Plugin:
    """The executable of one kind, and the socket that it knows."""

    def __init__(self, directory: Path, kind: str, deadline: int = 25) -> None:
        self.socket = directory / "s.sock"
        self.path = install(directory / "bin", self.socket)[0]
        content = KINDS[kind](name="ovsnet", socket=self.socket, deadline=deadline)
        assert content is not None
        self.path.write_bytes(content)

    def run(
        self, command: str = "ADD", stdin: bytes | None = None, deadline: float = 10, **environment: str
    ) -> tuple[int, Any]:
        """Exit status and JSON (None: no output) of one execution, which must be silent on stderr."""
        done = subprocess.run(
            [self.path],
            input=json.dumps(CONFIG).encode() if stdin is None else stdin,
            env=ENVIRONMENT | {"CNI_COMMAND": command} | environment,
            capture_output=True,
            timeout=deadline,
            check=False,
        )
        assert done.stderr == b""
        return done.returncode, json.loads(done.stdout) if done.stdout else None


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def plugin(tmp_path: Path, kind: str) -> Plugin:
    return Plugin(tmp_path, kind)


@pytest.fixture
def controller(plugin: Plugin) -> Iterator[Controller]:
    fake = Controller()
    app = Flask("test")
    app.register_blueprint(create_blueprint(fake))
    server = Server(str(plugin.socket), app, numthreads=2)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield fake
    server.stop()
    thread.join(10)


@contextmanager
def served(path: Path, behave: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server that takes one connection, hands it to `behave`, and closes it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(10)


# -- With the controller


def test_add_prints_the_result(plugin: Plugin, controller: Controller) -> None:
    status, result = plugin.run()
    assert (status, result) == (0, protocol.render(ATTACHMENT, {}, "1.0.0"))
    assert controller.asked == [
        AttachRequest("blue", "c1", "eth0", "/run/netns/x", reserved_for=("c1",), config="blue")
    ]


def test_del_prints_nothing(plugin: Plugin, controller: Controller) -> None:
    assert plugin.run("DEL") == (0, None)
    assert controller.asked == [("blue", "c1", "eth0", "/run/netns/x")]


def test_an_error_is_printed_and_told_by_the_exit_status(plugin: Plugin, controller: Controller) -> None:
    status, error = plugin.run(CNI_IFNAME="a/b")
    assert (status, error["code"], error["cniVersion"]) == (1, 4, "1.0.0")
    assert controller.asked == []


def test_everything_arrives_as_it_was(plugin: Plugin) -> None:
    received: list[bytes] = []
    stdin = os.urandom(300_000)

    def behave(connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            head = b"".join(iter(stream.readline, b"\r\n"))
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            received.extend([head, stream.read(length)])
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with served(plugin.socket, behave):
        assert plugin.run(stdin=stdin, CNI_ARGS="A=ü;B==") == (0, None)
    head, body = received
    assert head.startswith(f"POST {wire.PATH} HTTP/1.1\r\n".encode())
    environment, arrived = wire.decode(body)
    assert arrived == stdin
    assert environment == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/x",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "A=ü;B==",
    }


def test_a_big_answer_is_printed_whole(plugin: Plugin, controller: Controller) -> None:
    del controller
    previous = {"cniVersion": "1.0.0", "interfaces": [{"name": f"if{n}", "mac": "x" * 64} for n in range(4000)]}
    status, result = plugin.run(stdin=json.dumps(CONFIG | {"prevResult": previous}).encode())
    assert (status, result) == (0, previous)


def test_too_much_is_code_7(plugin: Plugin, controller: Controller) -> None:
    for stdin in (b"x" * (wire.LIMIT - 20), b"x" * wire.LIMIT, b"x" * (3 * wire.LIMIT)):
        status, error = plugin.run(stdin=stdin)
        assert (status, error["code"]) == (1, 7)
    assert controller.asked == []


def test_forty_at_once(plugin: Plugin, controller: Controller) -> None:
    with ExitStack() as stack:
        running = []
        for number in range(40):
            child = subprocess.Popen(
                [plugin.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=ENVIRONMENT | {"CNI_CONTAINERID": f"c{number}"},
            )
            running.append(stack.enter_context(child))
        for child in running:
            child.communicate(json.dumps(CONFIG).encode(), timeout=20)
    assert [child.returncode for child in running] == [0] * 40
    assert len(controller.asked) == 40


# -- Without it


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("DEL", 11), ("CHECK", 11), ("STATUS", 50)])
def test_no_controller_is_told_at_once(plugin: Plugin, stale: bool, command: str, code: int) -> None:
    if stale:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(plugin.socket))
    start = time.monotonic()
    status, error = plugin.run(command)
    assert time.monotonic() - start < 2
    assert (status, error["code"], error["cniVersion"]) == (1, code, "1.0.0")
    assert "start ovsnetd" in error["details"]


def test_version_needs_no_controller(plugin: Plugin) -> None:
    expected = {"cniVersion": "0.4.0", "supportedVersions": list(protocol.VERSIONS)}
    assert plugin.run("VERSION", b'{"cniVersion": "0.4.0"}') == (0, expected)


@pytest.mark.parametrize("stdin", [b"", b"\xff", b"[]", b"[" * 100_000, b'{"cniVersion": 4}', b'"x"'])
@pytest.mark.parametrize("command", ["ADD", "VERSION"])
def test_garbage_on_stdin_still_gets_an_error(plugin: Plugin, command: str, stdin: bytes) -> None:
    status, error = plugin.run(command, stdin)
    assert (status, error["code"]) == (1, 11)


def test_started_by_hand(plugin: Plugin) -> None:
    reading, writing = os.pipe()  # stdin that never ends
    try:
        done = subprocess.run([plugin.path], stdin=reading, env={}, capture_output=True, timeout=10, check=False)
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 4


def test_stdin_that_cannot_be_read_is_code_5(plugin: Plugin, tmp_path: Path) -> None:
    with (tmp_path / "output-only").open("wb") as file:
        done = subprocess.run([plugin.path], stdin=file, env=ENVIRONMENT, capture_output=True, timeout=10, check=False)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 5)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0\r\n",
    ],
)
def test_half_an_answer_is_code_11(plugin: Plugin, answer: bytes) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    with served(plugin.socket, behave):
        status, error = plugin.run()
    assert (status, error["code"], error["cniVersion"]) == (1, 11, "1.0.0")
    assert "unknown" in error["details"]


def test_a_silent_controller_is_given_up(tmp_path: Path, kind: str) -> None:
    plugin = Plugin(tmp_path, kind, deadline=1)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(plugin.socket))
        deaf.listen(0)
        for command, code in (("ADD", 11), ("STATUS", 50), ("DEL", 11)):  # the last ones find the backlog full
            status, error = plugin.run(command)
            assert (status, error["code"]) == (1, code)
            assert "within 1 s" in error["msg"]


def test_an_interpreter_of_another_version_compiles_the_source(tmp_path: Path) -> None:
    plugin = Plugin(tmp_path, "python")
    text = plugin.path.read_text(encoding="utf-8")
    other, count = re.subn(r"(sys\.hexversion >> 16 == )0x\w+", r"\g<1>0", text)
    assert count == 1
    plugin.path.write_text(other.replace("marshal.loads", "marshal.no_such_thing"), encoding="utf-8")
    status, answer = plugin.run("VERSION")
    assert (status, answer["supportedVersions"]) == (0, list(protocol.VERSIONS))


# -- Installation


def test_install_replaces_in_one_step_and_uninstall_takes_only_ours(tmp_path: Path) -> None:
    directory = tmp_path / "cni" / "bin"
    installed = install(directory, tmp_path / "a.sock")
    assert [path.name for path in installed] == list(PROGRAMS)
    first = installed[0]
    inode = first.stat().st_ino
    assert install(directory, tmp_path / "b.sock") == installed
    assert first.stat().st_ino != inode
    assert {stat.S_IMODE(path.stat().st_mode) for path in installed} == {0o755}
    assert os.fsencode(tmp_path / "b.sock") in first.read_bytes()
    assert set(troubles(directory, tmp_path / "b.sock").values()) == {""}
    assert "another socket" in troubles(directory, tmp_path / "a.sock")["ovsnet"]
    assert {path.name for path in directory.iterdir()} == set(PROGRAMS)
    (directory / "bridge").touch()
    assert uninstall(directory) == installed
    assert uninstall(directory) == []
    assert [path.name for path in directory.iterdir()] == ["bridge"]
    assert uninstall(tmp_path / "missing") == []


def test_install_leaves_other_peoples_files(tmp_path: Path) -> None:
    theirs = tmp_path / "ovsnet"
    theirs.write_text("#!/bin/sh\n", encoding="utf-8")
    with pytest.raises(AlreadyExists):
        install(tmp_path, tmp_path / "a.sock")
    assert uninstall(tmp_path) == []
    assert theirs.read_text(encoding="utf-8") == "#!/bin/sh\n"


def test_without_a_compiler_the_programs_are_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    socket_path = tmp_path / "s.sock"
    for path in install(tmp_path / "bin", socket_path):
        assert path.read_bytes().startswith(b"#!")
    assert set(troubles(tmp_path / "bin", socket_path).values()) == {""}


def test_a_compiler_that_fails_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho no space >&2\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install(tmp_path / "bin", tmp_path / "s.sock")[0].read_bytes().startswith(b"#!")


def test_the_compiled_part_needs_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cni.install, "_INTERPRETER", "/nonexistent/python3")
    plugin = Plugin(tmp_path, "compiled")

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with served(plugin.socket, behave):
        assert plugin.run() == (0, {})
    status, error = plugin.run()  # nobody answers: that is the interpreter's to tell
    assert (status, error["code"]) == (1, 5)
    assert "/nonexistent/python3 cannot be executed" in error["msg"]


def test_the_launcher_compiles_without_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cni.install, "_FLAGS", (*cni.install._FLAGS, "-Wall", "-Wextra", "-Wconversion", "-Werror"))
    assert compiled("ovsnet", tmp_path / "s.sock") is not None


@pytest.mark.parametrize("path", ["relative.sock", "/" + "x" * 107])
def test_install_refuses_a_socket_that_cannot_be(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidRequest):
        install(tmp_path, Path(path))


def test_a_socket_path_is_data_not_code(tmp_path: Path, kind: str) -> None:
    odd = tmp_path / 'a"\n\\ü'
    odd.mkdir()
    status, error = Plugin(odd, kind).run()
    assert (status, error["code"]) == (1, 11)
    assert str(odd) in error["details"]
