"""The `ovsnet` command and the typed client, against the real app served by cheroot on a unix socket."""

from __future__ import annotations

import ipaddress
import json
import os
import pty
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import ovsnet
from cni.install import PROGRAMS
from ovsnet import client as ovsnet_client
from ovsnet import model, plan
from ovsnet.check import Finding, Kind
from ovsnet.cli import session
from ovsnet.cli.main import cli
from ovsnet.client import Client
from ovsnet.config import Settings
from ovsnet.errors import (
    DeadlineExceeded,
    InvalidRequest,
    OvsnetError,
    PoolExhausted,
    PoolNotFound,
    StateUnavailable,
    Unavailable,
    codes,
)
from ovsnet.plan import Action
from tests.fake_controller import FakeController

DOC = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.mark.parametrize(("size", "status"), [(3 << 20, 413), (1 << 10, 400)])
def test_a_body_that_comes_in_chunks_has_the_same_limit(path: str, size: int, status: int) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(20)
        sock.connect(path)
        head = b"POST /v1/pools HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        with suppress(BrokenPipeError, ConnectionResetError):  # it need not read all of it
            sock.sendall(head + f"{size:x}\r\n".encode() + b"1" * size + b"\r\n0\r\n\r\n")
        assert f" {status} ".encode() in sock.recv(4096)


def test_headers_have_a_limit(path: str) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(20)
        sock.connect(path)
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(b"GET /v1/pools HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n")
        assert b" 413 " in sock.recv(4096)


Run = Callable[..., Result]


def rows(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.stderr
    return [line.split() for line in result.stdout.splitlines()]


def test_what_works_is_changed(run: Run, path: str) -> None:
    client = Client(path)
    client.create_network("n", vlan=7)
    first, second = (client.create_endpoint("n", name, "eth0", "/ns")["id"] for name in ("one", "two"))
    told = run("endpoint", "set", first[:12], "--vlan", "9", "--egress-rate", "1.5M", "--dry-run").stdout
    assert told.splitlines() == ["vlan: 7 -> 9", "own_vlan: - -> 9", "bandwidth: - -> egress_rate=1500000"]
    assert client.endpoint(first)["vlan"] == 7
    run(
        "endpoint",
        "set",
        first,
        "--vlan",
        "9",
        "--egress-rate",
        "1.5M",
        "--publish",
        "tcp/80/80",
        "--publish",
        "udp/53/53",
    )
    shown = client.endpoint(first)
    assert (shown["own_vlan"], shown["published"]) == (9, ["tcp/80/80", "udp/53/53"])
    assert json.loads(run("endpoint", "set", first, "--egress-rate", "none", "-o", "json").stdout)["bandwidth"] == {}
    assert run("endpoint", "set", first, "--network-vlan").stdout.splitlines() == ["vlan: 9 -> 7", "own_vlan: 9 -> -"]
    assert run("endpoint", "set", first, "--no-rate").stdout == "nothing has changed\n"
    run("endpoint", "set", second[:12], "--publish", "tcp/80/80", "--take-from", first[:12])
    assert (client.endpoint(first)["published"], client.endpoint(second)["published"]) == (["udp/53/53"], ["tcp/80/80"])
    run("endpoint", "set", first, "--unpublish")
    assert client.endpoint(first)["published"] == []
    for wrong in (
        (),
        ("--vlan", "9", "--network-vlan"),
        ("--egress-rate", "9", "--no-rate"),
        ("--publish", "tcp/1/1", "--unpublish"),
        ("--egress-rate", "much"),
        ("--publish", "80:80"),
        ("--vlan", "4095"),
    ):
        assert run("endpoint", "set", first, *wrong).exit_code == 2, wrong
    assert run("network", "set", "n", "--vlan", "8", "--dry-run").stdout == "vlan: 7 -> 8\n"
    assert run("network", "set", "n", "--vlan", "8").stdout == "vlan: 7 -> 8\n"
    assert client.network("n")["vlan"] == 8


def test_pool_commands(run: Run) -> None:
    made = run(
        *("pool", "create", "blue", "--subnet", "10.1.0.0/24", "--gateway", "none"),
        *("--range", "10.1.0.8/29", "--range", "10.1.0.32", "--exclude", "10.1.0.9", "-o", "json"),
    )
    pool = json.loads(made.stdout)
    assert (pool["gateway"], pool["exclusions"]) == (None, ["10.1.0.9"])
    assert pool["ranges"] == ["10.1.0.8-10.1.0.15", "10.1.0.32"]
    assert json.loads(run("-o", "json", "pool", "ls").stdout) == [pool]
    assert json.loads(run("pool", "show", pool["id"], "-o", "json").stdout) == pool
    assert ["gateway", "-"] in rows(run("pool", "show", "blue"))
    made = run("pool", "create", "red", "--subnet", "10.2.0.0/24", "--gateway", "10.2.0.9")
    assert ["gateway", "10.2.0.9"] in rows(made)
    table = rows(run("pool", "ls"))
    assert table[0] == ["NAME", "SUBNET", "GATEWAY", "LEASED", "CAPACITY", "NETWORKS", "SPACE", "ORIGIN"]
    assert table[2] == ["red", "10.2.0.0/24", "10.2.0.9", "0", "253", "-", "ovsnet", "api"]
    assert rows(run("pool", "rm", "blue", "red")) == [["blue"], ["red"]]
    assert json.loads(run("pool", "ls", "-o", "json").stdout) == []
    assert len(rows(run("pool", "ls"))) == 1


def test_network_and_endpoint_commands(run: Run, controller: FakeController) -> None:
    run("pool", "create", "six", "--subnet", "fd00:1::/64")
    made = run(
        *("network", "create", "blue", "--subnet", "10.1.0.0/24", "--pool", "six", "--bridge", "br1"),
        *("--vlan", "0", "--mtu", "1400", "--internal", "-o", "json"),
    )
    network = json.loads(made.stdout)
    assert (network["bridge"], network["vlan"], network["mtu"], network["internal"]) == ("br1", 0, 1400, True)
    assert network["subnets"] == ["fd00:1::/64", "10.1.0.0/24"]
    assert json.loads(run("network", "ls", "-o", "json").stdout) == [network]
    table = rows(run("network", "ls"))
    assert table[1] == ["blue", "br1", "0", "fd00:1::/64,10.1.0.0/24", "-", "1400", "yes", "api"]
    assert ["internal", "yes"] in rows(run("network", "show", "blue"))

    create = ("endpoint", "create", "--network", "blue", "--netns", "/run/netns/web", "--container")
    made = run(*create, "c" * 64, "--address", "10.1.0.2", "--mac", "02:00:00:00:00:01", "--mtu", "1300", "-o", "json")
    endpoint = json.loads(made.stdout)
    assert endpoint["owner"] == {"kind": "api", "container": "c" * 64, "ifname": "eth0", "sandbox": "/run/netns/web"}
    assert (endpoint["mac"], endpoint["mtu"], endpoint["bridge"]) == ("02:00:00:00:00:01", 1300, "br1")
    assert controller.attached[0].origin is model.Origin.API
    assert ["container", "web-2"] in rows(run(*create, "web-2", "--ifname", "net1"))
    everything = json.loads(run("endpoint", "ls", "-o", "json").stdout)
    assert everything[0] == endpoint
    assert json.loads(run("endpoint", "ls", "--network", "blue", "-o", "json").stdout) == everything
    assert json.loads(run("endpoint", "show", endpoint["id"], "-o", "json").stdout) == endpoint
    assert json.loads(run("endpoint", "show", endpoint["id"][:8], "-o", "json").stdout) == endpoint
    table = rows(run("endpoint", "ls"))
    assert table[1][:7] == [
        endpoint["id"][:8],
        "blue",
        "api",
        "c" * 12,
        "eth0",
        ",".join(endpoint["addresses"]),
        endpoint["mac"],
    ]
    assert len(table[0]) == len(table[1]) == 11
    leases = rows(run("pool", "leases", "six"))
    assert leases[1] == [endpoint["addresses"][0].split("/")[0], "endpoint", f"{network['id']}/{'c' * 64}/eth0", "n1"]
    assert json.loads(run("pool", "leases", "six", "-o", "json").stdout)[0]["owner"]["kind"] == "endpoint"
    assert run("network", "rm", "blue").exit_code == 4
    assert rows(run("endpoint", "rm", endpoint["id"], everything[1]["id"][:12])) != []
    assert run("network", "rm", "blue", "-o", "json").stdout == ""


def test_history_of_an_address(run: Run, controller: FakeController) -> None:
    owner = model.LeaseOwner(model.OwnerKind.ENDPOINT, f"u/{'c' * 64}/eth0")
    record = model.LeaseRecord(
        address=ipaddress.ip_address("10.1.0.7"),
        pool="blue",
        owner=owner,
        network="blue",
        container="c" * 64,
        ifname="eth0",
        node="n1",
        labels={},
        since=datetime(2026, 5, 17, 12, 30, tzinfo=UTC),
        until=(then := datetime(2026, 5, 17, 13, 30, tzinfo=UTC)),
        released_by="cni",
    )
    pod = replace(record, labels={"k8s-pod-name": "web-1"}, since=then, until=None, released_by="")
    controller.past = [pod, record]
    table = rows(run("ipam", "history", "10.1.0.7"))
    assert [line[3] for line in table] == ["OWNER", "web-1", "c" * 12]
    assert table[1][1] == "-"
    assert datetime.fromisoformat(table[2][1]) == then
    assert table[2][4:] == ["blue", "blue", "n1", "cni"]
    (found,) = json.loads(run("ipam", "history", "10.1.0.7", "--at", table[2][0], "-o", "json").stdout)
    assert (found["since"], found["owner"]["id"]) == ("2026-05-17T12:30:00+00:00", owner.id)
    assert rows(run("ipam", "history", "10.1.0.7", "--pool", "red"))[1:] == []
    assert run("ipam", "history", "10.1.0.7", "--at", "yesterday").exit_code == 2
    assert run("ipam", "history", "blue").exit_code == 2


def test_beginning_of_an_endpoint_id(run: Run) -> None:
    run("network", "create", "blue", "--subnet", "10.1.0.0/24")
    for name in range(17):  # of 17 UUIDs two begin with the same digit
        run("endpoint", "create", "--network", "blue", "--netns", "/n", "--container", f"c{name}")
    ids = [row["id"] for row in json.loads(run("endpoint", "ls", "-o", "json").stdout)]
    twice = next(digit for digit in "0123456789abcdef" if sum(one.startswith(digit) for one in ids) > 1)
    result = run("endpoint", "rm", twice)
    assert (result.exit_code, result.stderr.splitlines()[1]) == (2, "hint: give more of the ID")
    assert run("endpoint", "show", "zz").exit_code == run("endpoint", "show", "").exit_code == 3
    assert run("endpoint", "show", "z" * 36).exit_code == 3


def test_errors_for_people_and_machines(run: Run) -> None:
    result = run("pool", "show", "blue")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "error: no such thing: 'blue'\nhint: list them\n"
    problem = json.loads(run("pool", "show", "blue", "-o", "json").stderr)
    assert (problem["code"], problem["hint"]) == ("pool-not-found", "list them")
    run("pool", "create", "blue", "--subnet", "10.1.0.0/24")
    assert run("pool", "create", "blue", "--subnet", "10.1.0.0/24").exit_code == 4
    wrong = run("pool", "create", "red", "--subnet", "10.1.0.7/24")
    assert wrong.exit_code == 2
    assert wrong.stderr.splitlines()[1] == "hint: write 10.1.0.0/24"
    assert run("pool", "show", "blue/leases").exit_code == 2


def test_rm_goes_on_past_errors(run: Run) -> None:
    run("pool", "create", "blue", "--subnet", "10.1.0.0/24")
    result = run("pool", "rm", "red", "blue", "green")
    assert (result.exit_code, result.stdout) == (3, "blue\n")
    assert result.stderr.count("error: ") == 2


@pytest.mark.parametrize("code", codes())
def test_every_code_has_an_exit_code(run: Run, controller: FakeController, code: str) -> None:
    cls = codes()[code]
    controller.fail = cls("it is so", hint="do that")
    result = run("network", "ls", "-o", "json")
    told = json.loads(result.stderr)
    assert (told["code"], told["detail"], told["hint"]) == (code, "it is so", "do that")
    expected = [number for known, number in session.EXIT_CODES if issubclass(cls, known)] or [session.EXIT_FAILURE]
    assert [result.exit_code] == expected


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--bogus"], "ovsnet --help"),
        (["pool", "create", "x"], "ovsnet pool create --help"),
        (["pool", "rm"], "ovsnet pool rm --help"),
        (["network", "create", "x", "--vlan", "blue"], "ovsnet network create --help"),
        (["network", "destroy"], "ovsnet network --help"),
        (["pool", "ls", "blue"], "ovsnet pool ls --help"),
    ],
)
def test_wrong_usage(run: Run, args: list[str], says: str) -> None:
    result = run(*args)
    error, hint = result.stderr.splitlines()
    assert result.exit_code == 2
    assert error.startswith("error: ")
    assert hint == f"hint: see `{says}`"
    assert json.loads(run("-o", "json", *args).stderr)["code"] == "invalid-request"
    assert json.loads(run(*args, "--output=json").stderr)["code"] == "invalid-request"


def test_no_arguments_show_help() -> None:
    result = CliRunner().invoke(cli, [], prog_name="ovsnet")
    assert result.exit_code == 2
    assert "Commands:" in result.output


def test_status_and_version(run: Run, controller: FakeController) -> None:
    assert ["switch", "ok"] in rows(run("status"))
    assert json.loads(run("status", "-o", "json").stdout)["status"] == "ok"
    versions = {"client": ovsnet.__version__, "server": "9.9"}
    assert json.loads(run("version", "-o", "json").stdout) == versions
    controller.told = model.Health(ok=False, state="no leader", switch="ok", node="n1", version="9.9")
    result = run("status")
    assert result.exit_code == 5
    assert "no leader" in result.stderr
    assert json.loads(run("version", "-o", "json").stdout) == versions


def test_cni_plugins_come_and_go(tmp_path: Path) -> None:
    bin_dir = tmp_path / "bin"
    where = ("--bin-dir", str(bin_dir))
    plugins = [str(bin_dir / name) for name in PROGRAMS]
    result = CliRunner().invoke(cli, ["cni", "install", *where, "--socket", "/run/elsewhere.sock"])
    assert (result.exit_code, result.stdout.split()) == (0, plugins)
    assert b"/run/cni.sock" in (bin_dir / "ovsnet").read_bytes()
    assert json.loads(CliRunner().invoke(cli, ["cni", "uninstall", *where, "-o", "json"]).stdout) == plugins
    assert list(bin_dir.iterdir()) == []
    (bin_dir / "ovsnet").write_text("somebody else's", encoding="utf-8")
    assert CliRunner().invoke(cli, ["cni", "install", *where]).exit_code == 4


def test_what_runtimes_will_find(tmp_path: Path) -> None:
    bin_dir, conf_dir, sock = tmp_path / "bin", tmp_path / "net.d", tmp_path / "ovsnet.sock"

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(cli, ["cni", *words, "--socket", str(sock)])

    def found() -> dict[str, str]:
        result = invoke("status", "--bin-dir", str(bin_dir), "--conf-dir", str(conf_dir), "-o", "json")
        troubles: dict[str, str] = json.loads(result.stdout)
        assert result.exit_code == (5 if any(troubles.values()) else 0)
        return {Path(what).name: trouble for what, trouble in troubles.items() if trouble}

    assert {name: trouble.split(":")[0] for name, trouble in found().items()} == {
        **dict.fromkeys(PROGRAMS, "it is missing"),
        "net.d": "it has no network configuration",
        "ovsnetd": "it does not run",
    }
    assert invoke("install", "--bin-dir", str(bin_dir)).exit_code == 0
    conf = conf_dir / "20-blue.conflist"
    words = ("conf", "blue", "--subnet", "10.20.0.0/16", "--subnet", "fd20::/64", "--vlan", "20", "--write", str(conf))
    assert invoke(*words).exit_code == 0
    assert invoke(*words).exit_code == 0  # the same again
    assert invoke(*words, "--masquerade").exit_code == 4
    assert json.loads(conf.read_text())["plugins"][0]["vlan"] == 20
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(tmp_path / "cni.sock"))
        assert found() == {}
        assert invoke(*words, "--masquerade", "--force").exit_code == 0
        chained = json.loads(conf.read_text())
        chained["plugins"].append({"type": "tuning"})
        conf.write_text(json.dumps(chained))
        assert "plugin 'tuning'" in found()[conf.name]
        (conf_dir / "10-other.conf").write_text('{"type": "bridge"}')
        assert "is not ovsnet's" in found()["10-other.conf"]
        (conf_dir / "10-other.conf").write_text("{")
        assert "cannot be read" in found()["10-other.conf"]
        (conf_dir / "10-other.conf").write_text('{"cniVersion": "1.0.0", "name": "x", "type": "ovsnet", "vlna": 5}')
        assert "did you mean 'vlan'" in found()["10-other.conf"]
        docker = {"cniVersion": "1.0.0", "name": "x", "type": "ovsnet-docker", "dockerSocket": "/run/docker.sock"}
        (conf_dir / "10-other.conf").write_text(json.dumps(docker))
        assert found() == {}
        (conf_dir / "10-other.conf").write_text(json.dumps(docker | {"netwrok": "y"}))
        assert "did you mean 'network'" in found()["10-other.conf"]
        # As seen from a container: where its runtimes find the socket is another path.
        there = ("--host-socket", "/run/there/cni.sock")
        assert invoke("install", "--bin-dir", str(bin_dir), *there).exit_code == 0
        assert b"/run/there/cni.sock" in (bin_dir / "ovsnet-ipam").read_bytes()
        assert "another socket" in found()["ovsnet"]
        assert "is missing" not in invoke("status", "--bin-dir", str(bin_dir), *there).stdout
        (bin_dir / "ovsnet").chmod(0o644)
        assert "not executable" in found()["ovsnet"]
        (bin_dir / "ovsnet").write_text("#!/bin/sh")
        assert "not ovsnet's" in found()["ovsnet"]


@pytest.mark.parametrize(
    "words",
    [
        ("--vlan", "20"),
        ("--subnet", "10.0.0.1/8"),
        ("--cni-version", "7"),
        ("--subnet", "10.0.0.0/8", "--vlan", "5000"),
    ],
)
def test_a_configuration_that_cannot_be(words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(cli, ["cni", "conf", "x", *words]).exit_code == 2


def test_daemon_not_there(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.sock")
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    for path in (absent, str(tmp_path / "dead.sock")):
        result = CliRunner().invoke(cli, ["--socket", path, "pool", "ls"])
        assert result.exit_code == 5
        assert "systemctl start ovsnetd" in result.stderr
    assert json.loads(CliRunner().invoke(cli, ["version", "--socket", absent, "-o", "json"]).stdout)["server"] is None


def test_socket_option_beats_the_environment(path: str, tmp_path: Path) -> None:
    elsewhere = {"OVSNET_SOCKET": str(tmp_path / "absent.sock")}
    assert CliRunner(env=elsewhere).invoke(cli, ["pool", "ls"]).exit_code == 5
    assert CliRunner(env=elsewhere).invoke(cli, ["--socket", path, "pool", "ls"]).exit_code == 0
    assert CliRunner(env=elsewhere).invoke(cli, ["pool", "ls", "--socket", path]).exit_code == 0
    assert CliRunner(env={"OVSNET_SOCKET": path}).invoke(cli, ["pool", "ls"]).exit_code == 0


def test_default_socket_is_the_daemons() -> None:
    assert session.DEFAULT_SOCKET == ovsnet_client.DEFAULT_SOCKET == str(Settings.model_validate({}).api_socket)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_tables_fit_the_terminal(path: str, run: Run, width: int) -> None:
    run("network", "create", "blue", "--subnet", "10.1.0.0/24", "--subnet", "fd00:1::/64")
    made = run("endpoint", "create", "--network", "blue", "--netns", "/n", "--container", "c" * 64, "-o", "json")
    lines = terminal(width, "--socket", path, "endpoint", "ls")
    assert max(map(len, lines)) <= width
    titles = lines[0].split()
    if width > 40:  # there even the four columns that stay are folded
        assert titles[:2] == ["ID", "NETWORK"]
        assert json.loads(made.stdout)["id"][:8] in lines[1]
        assert "fd00:1::2/64" in lines[2]
    assert [title in titles for title in ("IFNAME", "PORT")] == {40: [False] * 2, 80: [True, False], 200: [True] * 2}[
        width
    ]
    assert max(len(line) for line in terminal(width, "--socket", path, "network", "show", "blue")) <= width


def terminal(width: int, *args: str, typed: str = "") -> list[str]:
    """What `ovsnet` prints on a terminal of that many columns, without colours; `typed` is what the user answers."""
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(theirs, (24, width))
        os.write(ours, typed.encode())
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        code = "from ovsnet.cli.main import main; main()"
        subprocess.run(
            [sys.executable, "-c", code, *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment | {"TERM": "dumb"},
            cwd=Path(ovsnet.__file__).parents[1],
            timeout=60,
            check=True,
        )
        os.close(theirs)
        theirs = -1
        chunks = []
        while chunk := _read(ours):
            chunks.append(chunk)
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    return [line.rstrip() for line in b"".join(chunks).decode().splitlines()]


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # Linux tells the other end's closing by EIO
        return b""


def test_text_from_outside_cannot_steer_the_terminal(run: Run, path: str) -> None:
    Client(path).create_pool("10.1.0.0/24", name="blue", labels={"[red]x": "\x1b[2J"})
    assert ["labels", "[red]x=?[2J"] in rows(run("pool", "show", "blue"))
    assert any("[red]x=?[2J" in line for line in terminal(80, "--socket", path, "pool", "show", "blue"))


def test_documentation_has_every_command_option_and_exit_code() -> None:
    text = DOC.read_text(encoding="utf-8")
    for line in _commands(cli, "ovsnet"):
        assert line in text
    for number in [0, session.EXIT_FAILURE, *(number for _, number in session.EXIT_CODES)]:
        assert f"| {number} |" in text


def _commands(command: click.Command, name: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        for verb, inner in command.commands.items():
            yield from _commands(inner, f"{name} {verb}")
        return
    yield f"`{name}"
    for param in command.params:
        if isinstance(param, click.Option):
            yield param.opts[-1]


def test_client_is_for_many_threads(path: str) -> None:
    client = Client(path)

    def work(number: int) -> str:
        made = client.create_pool(f"10.{number}.0.0/24", name=f"p{number}")
        return client.pool(made["id"])["subnet"]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(32))) == [f"10.{number}.0.0/24" for number in range(32)]


def test_client_raises_what_the_server_raised(path: str, controller: FakeController) -> None:
    client = Client(path)
    with pytest.raises(PoolNotFound) as caught:
        client.delete_pool("blue")
    assert (caught.value.message, caught.value.hint) == ("no such thing: 'blue'", "list them")
    controller.fail = PoolExhausted("full", hint="make another", pool="blue")
    with pytest.raises(PoolExhausted) as exhausted:
        client.networks()
    assert exhausted.value.details == {"pool": "blue"}
    controller.fail = None
    controller.told = model.Health(ok=False, state="no leader", switch="ok", node="n1", version="9.9")
    with pytest.raises(StateUnavailable):
        client.health()
    with pytest.raises(InvalidRequest):
        client.pool("")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", OvsnetError),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\n{}", OvsnetError),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n[]", OvsnetError),
        (b"SSH-2.0-OpenSSH\r\n", Unavailable),
        (b"", Unavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n[", Unavailable),
    ],
)
def test_answers_of_something_else(tmp_path: Path, said: bytes, expected: type[OvsnetError]) -> None:
    def answer(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(said)

    with pytest.raises(OvsnetError) as caught:
        _against(tmp_path, answer, deadline=10)
    assert type(caught.value) is expected
    assert caught.value.hint


@pytest.mark.parametrize("drip", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"], ids=["silent", "dripping"])
def test_deadline_holds_for_the_whole_call(tmp_path: Path, drip: bytes) -> None:
    started = time.monotonic()

    def answer(peer: socket.socket) -> None:
        peer.settimeout(0.02)
        peer.sendall(drip)
        while time.monotonic() < started + 5:
            try:
                if not peer.recv(65536):
                    return
            except TimeoutError:
                peer.sendall(drip and b" ")

    with pytest.raises(DeadlineExceeded):
        _against(tmp_path, answer, deadline=0.3)
    assert time.monotonic() - started < 2


def _against(tmp_path: Path, answer: Callable[[socket.socket], Any], deadline: float) -> None:
    """Ask a server that takes one connection and does `answer` with it."""
    path = str(tmp_path / "other.sock")
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                try:
                    answer(peer)
                except (BrokenPipeError, ConnectionResetError):
                    return  # the client has given up, as it should

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            Client(path, deadline=deadline).pools()
        finally:
            thread.join(10)
            assert not thread.is_alive()


def test_a_pool_is_changed_in_use(run: Run) -> None:
    run("pool", "create", "blue", "--subnet", "10.1.0.0/24")
    changed = json.loads(
        run("pool", "set", "blue", "--range", "10.1.0.8/29", "--exclude", "10.1.0.9", "--drain", "-o", "json").stdout
    )
    assert (changed["ranges"], changed["exclusions"], changed["draining"]) == (
        ["10.1.0.8-10.1.0.15"],
        ["10.1.0.9"],
        True,
    )
    changed = json.loads(run("pool", "set", "blue", "--range", "none", "--no-drain", "-o", "json").stdout)
    assert (changed["ranges"], changed["exclusions"], changed["draining"]) == ([], ["10.1.0.9"], False)


def test_reservations_come_and_go(run: Run) -> None:
    run("pool", "create", "blue", "--subnet", "10.1.0.0/24")
    assert run("ipam", "reserve", "blue", "default/web-0", "10.1.0.7").stdout == "10.1.0.7\n"
    assert json.loads(run("pool", "show", "blue", "-o", "json").stdout)["reservations"] == {"default/web-0": "10.1.0.7"}
    assert run("pool", "rm", "blue").exit_code == 4
    assert run("ipam", "release", "blue", "default/web-0").exit_code == 0
    assert run("ipam", "release", "blue", "default/web-0").exit_code == 3
    run("ipam", "reserve", "blue", "again")
    assert rows(run("pool", "rm", "--force", "blue")) == [["blue"]]


def test_show_tells_who_has_what(run: Run) -> None:
    run("network", "create", "blue", "--subnet", "10.1.0.0/24")
    run("endpoint", "create", "--network", "blue", "--container", "web-1", "--netns", "/run/netns/x")
    pool = json.loads(run("pool", "ls", "-o", "json").stdout)[0]["name"]
    everything = json.loads(run("ipam", "show", "-o", "json").stdout)
    assert [one["address"] for one in everything] == ["10.1.0.2"]
    assert json.loads(run("ipam", "show", pool, "-o", "json").stdout) == everything
    assert json.loads(run("ipam", "show", "10.1.0.2", "-o", "json").stdout) == everything
    assert run("ipam", "show", "10.1.0.3").exit_code == 3
    assert run("ipam", "release", pool, "10.1.0.2").exit_code == 4
    assert run("ipam", "release", pool, "10.1.0.3").exit_code == 0
    assert rows(run("ipam", "show"))[1][:3] == ["10.1.0.2", pool, "endpoint"]


def test_check_has_its_exit_code(run: Run, controller: FakeController) -> None:
    assert run("ipam", "check").stdout == "everything agrees\n"
    certain = Finding(Kind.NAMESPACE_GONE, "web", "has gone", "detach the endpoint")
    unsure = Finding(Kind.LINK_WRONG, "db", "has another MAC")
    controller.findings = [certain, unsure]
    for more in ((), ("--repair", "--dry-run")):
        found = run("ipam", "check", *more, "-o", "json")
        assert found.exit_code == 1
        assert [one["subject"] for one in json.loads(found.stdout)["findings"]] == ["web", "db"]
    assert run("ipam", "check", "--dry-run").exit_code == 2
    mended = run("ipam", "check", "--repair")
    assert mended.exit_code == 1
    assert "mended" in mended.stdout
    controller.findings = [certain]
    assert run("ipam", "check", "--repair").exit_code == 0
    assert run("ipam", "check").exit_code == 0


def test_reconcile_has_its_exit_code(run: Run, controller: FakeController) -> None:
    assert run("reconcile").stdout == "nothing differs\n"
    mendable = Action(plan.Kind.PORT_MISSING, plan.Where.SWITCH, "web", "has no port", "make it", "key")
    hopeless = Action(plan.Kind.PORT_FOREIGN, plan.Where.SWITCH, "db", "has a foreign port", "", "key")
    controller.actions = [mendable, hopeless]
    told = run("reconcile", "--dry-run")
    assert told.exit_code == 1
    assert [line.split()[:2] for line in told.stdout.splitlines()[1:]] == [
        ["port-missing", "web"],
        ["port-foreign", "db"],
    ]
    assert len(json.loads(run("reconcile", "--dry-run", "-o", "json").stdout)["left"]) == 2
    mended = run("reconcile")
    assert mended.exit_code == 1
    assert mended.stdout.startswith(told.stdout)  # before anything is touched
    assert "mended" in mended.stdout
    controller.actions = [mendable]
    assert run("reconcile").exit_code == 0
    assert json.loads(run("reconcile", "-o", "json").stdout) == {"ok": True, "done": [], "left": []}
