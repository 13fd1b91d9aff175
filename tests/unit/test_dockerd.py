"""Who calls us, and what Docker's API tells: a small HTTP server stands for dockerd."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from ovsnet.dockerd import Callers, DockerApi, Incarnation, start_time
from ovsnet.errors import InvalidRequest, Unavailable

DRIVER = "ovsnet"
# As Docker 20.10 and 28 tell them; the list has no containers, and what belongs to others needs none.
BLUE = {
    "Id": "b1",
    "Name": "blue",
    "Driver": DRIVER,
    "IPAM": {
        "Driver": DRIVER,
        "Config": [
            {"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.1", "AuxiliaryAddresses": {"printer": "10.1.0.9"}},
            {"Subnet": "fd01::/64"},
        ],
    },
}
CONTAINERS = {
    "c1": {"Name": "web", "EndpointID": "e1", "IPv4Address": "10.1.0.2/24", "IPv6Address": "fd01::2/64"},
    "ep-e2": {"Name": "", "EndpointID": "e2", "IPv4Address": "", "IPv6Address": ""},
}
HOST = {"Id": "h1", "Name": "host", "Driver": "host", "IPAM": {"Driver": "default", "Config": None}}


class Server(socketserver.ThreadingUnixStreamServer):
    """Answers GET by path; a bytes answer is sent as it is, None is 404."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.answers: dict[str, Any] = {"/networks": [BLUE, HOST], "/networks/b1": BLUE | {"Containers": CONTAINERS}}
        super().__init__(str(path), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    """See Server."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        answer = self.server.answers.get(self.path)
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "test"

    def log_message(self, *args: object) -> None:
        del args


@pytest.fixture
def docker() -> Iterator[tuple[Server, DockerApi]]:
    directory = Path(tempfile.mkdtemp(prefix="dockerd-"))  # a unix socket's path has 107 bytes at most
    server = Server(directory / "docker.sock")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server, DockerApi(directory / "docker.sock", DRIVER)
    server.shutdown()
    thread.join(10)
    server.server_close()
    shutil.rmtree(directory)


def test_what_docker_tells(docker: tuple[Server, DockerApi]) -> None:
    _, api = docker
    found = api.networks()
    assert found.keys() == {"b1", "h1"}
    blue, host = found["b1"], found["h1"]
    assert (blue.driver, blue.ipam_driver) == (DRIVER, DRIVER)
    assert blue.subnets == {ip_network("10.1.0.0/24"), ip_network("fd01::/64")}
    assert blue.addresses == set(map(ip_address, ("10.1.0.1", "10.1.0.9", "10.1.0.2", "fd01::2")))
    assert blue.endpoints == {"e1", "e2"}
    assert (host.subnets, host.endpoints) == (frozenset(), frozenset())


@pytest.mark.parametrize(
    "answers",
    [
        {"/networks": b"<html>"},
        {"/networks": {"message": "no"}},
        {"/networks": [{"Id": "b1"}]},
        {"/networks": [BLUE | {"IPAM": None}]},
        {"/networks/b1": None},  # it has gone since it was listed
        {"/networks/b1": BLUE | {"Containers": {"c1": {}}}},
        {"/networks/b1": BLUE | {"Containers": {"c1": {"EndpointID": "e1", "IPv4Address": "10.1"}}}},
    ],
)
def test_half_a_picture_is_none(docker: tuple[Server, DockerApi], answers: dict[str, Any]) -> None:
    server, api = docker
    server.answers |= answers
    with pytest.raises(Unavailable, match="does not tell its networks"):
        api.networks()


def test_a_docker_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="correct docker_api"):
        DockerApi(tmp_path / "none.sock", DRIVER).networks()


def test_who_calls() -> None:
    callers = Callers("host1")
    with callers.heard("") as nobody:
        assert nobody == ""
    assert callers.present() is None
    with subprocess.Popen(["sleep", "60"]) as dockerd:
        with callers.heard(f"{dockerd.pid}:{start_time(dockerd.pid)}") as text:
            one = Incarnation.parse(text)
        assert one is not None
        assert (one.pid, one.start, one.node) == (dockerd.pid, start_time(dockerd.pid), "host1")
        assert callers.present() == one
        assert callers.alive(one)
        assert not callers.alive(Incarnation(one.pid, one.start, one.boot, "host2"))
        assert not callers.alive(Incarnation(one.pid, one.start, "another", "host1"))
        assert not callers.alive(Incarnation(one.pid, one.start - 1, one.boot, "host1"))
        dockerd.kill()
    assert callers.present() is None
    assert not callers.alive(one)


def test_whose_whole_story_is_known() -> None:
    callers = Callers("host1")
    ours = start_time(os.getpid()) or 0
    for start, failure, whole in (
        (ours, None, False),
        (ours + 1, None, True),
        (ours + 2, InvalidRequest("its fault"), True),
    ):
        assert heard(callers, start, failure) == whole
    assert not heard(callers, ours + 3, Unavailable("our fault"))
    assert not heard(callers, ours + 3, None)  # what it holds since then stays unknown
    assert not heard(callers, ours + 4, RuntimeError("a defect"))


def heard(callers: Callers, start: int, failure: Exception | None) -> bool:
    """Whether all of that caller is known after a call that ended so."""
    text = ""
    try:
        with callers.heard(f"1:{start}") as text:
            if failure:
                raise failure
    except (InvalidRequest, Unavailable, RuntimeError):
        pass
    one = Incarnation.parse(text)
    assert one is not None
    return callers.whole(one)


def test_a_process_that_is_gone_never_started() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait(10)
    assert start_time(gone.pid) is None
