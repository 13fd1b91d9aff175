"""Who may speak to ovsnetd, how much at once, and what it must not repeat: the security gates of FAULTS.md that need a real one.

Namespaces' paths and hostile names are in test_bad_input.py, test_netns_paths.py and test_names.py.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import wait_until
from tests.system.faulty import GROUP, Faulty

pytestmark = pytest.mark.faults

NOBODY, OTHER_GROUP = 65534, 65533
LIMIT = 1 << 20  # bytes

_CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.settimeout(5)
    try:
        link.connect(sys.argv[1])
        print("connected")
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.fixture
def reachable(faulty: Faulty, tmp_path: Path) -> Iterator[Path]:
    """A directory with a socket for everybody; all directories on the way to it and to ovsnetd's sockets let everybody pass."""
    place = tmp_path / "everybody"
    place.mkdir()
    with ExitStack() as undo:
        for path in {parent for one in (*sockets(faulty), place / "x") for parent in one.parents}:
            mode = path.stat().st_mode & 0o7777
            if not mode & 0o001:
                undo.callback(path.chmod, mode)
                path.chmod(mode | 0o011)
        server = undo.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(place / "open"))
        (place / "open").chmod(0o666)
        server.listen()
        yield place / "open"


def sockets(faulty: Faulty) -> list[Path]:
    """All sockets of ovsnetd and its state server; first those that are the group's too."""
    run_dir = faulty.stack.socket.parent
    own = [faulty.stack.socket, run_dir / "cni.sock"]
    return [*own, faulty.stack.docker_socket, run_dir / "state.sock", run_dir / "state.ctl"]


def connect(path: Path, user: int, group: int) -> str:
    """What becomes of a connection of that user and group: "connected", or the name of an error."""
    told = subprocess.run(
        ["/usr/bin/python3", "-ISc", _CONNECT, str(path)],
        user=user,
        group=group,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return told.stdout.strip()


def test_sockets_refuse_a_foreign_user(faulty: Faulty, reachable: Path) -> None:
    assert connect(reachable, NOBODY, OTHER_GROUP) == "connected"  # else the refusals below would prove nothing
    assert {path.name: connect(path, 0, 0) for path in sockets(faulty)} == {
        path.name: "connected" for path in sockets(faulty)
    }
    refused = {path.name: connect(path, NOBODY, OTHER_GROUP) for path in sockets(faulty)}
    assert set(refused.values()) == {"PermissionError"}, refused


def test_the_group_may_use_the_api_and_nothing_else(faulty: Faulty, reachable: Path) -> None:
    del reachable
    told = [connect(path, NOBODY, GROUP) for path in sockets(faulty)]
    assert told == ["connected"] * 2 + ["PermissionError"] * 3


@pytest.mark.parametrize("name", ["cni.sock", "ovsnet.sock"])
def test_bodies_end_at_a_mebibyte(faulty: Faulty, name: str) -> None:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(str(faulty.stack.socket.with_name(name)))
    path = "/cni" if name == "cni.sock" else "/v1/pools"
    try:
        connection.putrequest("POST", path)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(LIMIT + 1))
        connection.endheaders()
        assert connection.getresponse().status in (400, 413)  # without having read any of it
    finally:
        connection.close()
    assert faulty.api.health()["status"] == "ok"


def test_secrets_are_repeated_nowhere(faulty: Faulty) -> None:
    """What runtimes, Docker and users hand over beside what we ask for: it may hold passwords, and logs go places."""
    secret = f"hunter{secrets.token_hex(8)}"
    space, stack = faulty.netns(), faulty.stack
    plain = stack.conf("secretive", subnet="10.73.0.0/24")
    known = {"args": {"org.example": {"token": secret}}, "runtimeConfig": {"org.example": {"key": secret}}}
    wrong = ({"password": secret}, {"mtu": "wide"}, {"name": "no network"})
    arguments = f"IgnoreUnknown=1;K8S_TOKEN={secret}"
    begin = stack.log.stat().st_size
    told = []
    try:
        for conf in (plain | known | one for one in wrong):
            for command in ("ADD", "CHECK", "DEL"):
                result = faulty.cni(command, space, conf, CNI_ARGS=arguments)
                told.append(json.dumps(result.output))
        added = faulty.cni("ADD", space, plain | known, CNI_ARGS=arguments)
        assert added.ok, added
        told.append(json.dumps([dict(row) for row in faulty.api.endpoints()]))
        body = {"AddressSpace": "ovsnet", "Pool": "10.73.1.0/24", "V6": False, "SubPool": "", "Password": secret}
        told.append(json.dumps(stack.docker_call("IpamDriver.RequestPool", **body, Options={})))
        told.append(json.dumps(stack.docker_call("IpamDriver.RequestPool", **body, Options=[secret])))
        for pid in stack.processes("ovsnetd") + stack.processes("ovsdb-server") + [stack.pid]:
            told.append(Path(f"/proc/{pid}/cmdline").read_text())
    finally:
        faulty.cni("DEL", space, plain)
        wait_until(lambda: not faulty.addresses(space.name), "it is gone")
        faulty.clear()
    told.append(stack.log.read_bytes()[begin:].decode(errors="replace"))
    told += [path.read_bytes().decode(errors="replace") for path in faulty.disk.rglob("*") if path.is_file()]
    assert [text for text in told if secret in text] == []
