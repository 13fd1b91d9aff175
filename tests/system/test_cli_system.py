"""The command line on a living ovsnetd, and ovsnetd's own manners: settings, sockets, readiness, its end."""

from __future__ import annotations

import json
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import SCRIPTS, Netns, Ovs, Result, Stack, wait_until

NewNetns = Callable[[], Netns]
Nothing = Callable[[], None]

SUBNET, GATEWAY = "10.87.0.0/24", "10.87.0.1"


@pytest.fixture
def clean(stack: Stack, no_leftovers: Nothing) -> Iterator[Stack]:
    """The host's ovsnetd; nothing is left of the test."""
    yield stack
    stack.clear()
    no_leftovers()


# -- nouns and verbs


def test_pools(clean: Stack) -> None:
    made = json.loads(clean.cli("pool", "create", "p1", "--subnet", SUBNET, "-o", "json").stdout)
    assert (made["name"], made["subnet"], made["gateway"], made["origin"]) == ("p1", SUBNET, GATEWAY, "api")
    assert clean.show("pool", "ls") == [made]
    assert clean.show("pool", "show", made["id"]) == clean.show("pool", "show", "p1") == made
    assert [lease["address"] for lease in clean.show("pool", "leases", "p1")] == [GATEWAY]
    narrow = ("--gateway", "none", "--range", "fd87::10-fd87::1f", "--exclude", "fd87::12")
    other = json.loads(clean.cli("pool", "create", "p2", "--subnet", "fd87::/64", *narrow, "-o", "json").stdout)
    assert (other["gateway"], other["ranges"], other["exclusions"]) == (None, ["fd87::10-fd87::1f"], ["fd87::12"])
    assert other["capacity"] == 15
    header, *lines = clean.cli("pool", "ls").stdout.splitlines()
    assert header.split()[:2] == ["NAME", "SUBNET"]
    assert sorted(line.split()[0] for line in lines) == ["p1", "p2"]
    assert clean.cli("pool", "rm", "p1", "p2").stdout.split() == ["p1", "p2"]
    assert clean.show("pool", "ls") == []


def test_networks(clean: Stack) -> None:
    clean.cli("pool", "create", "p1", "--subnet", SUBNET)
    made = json.loads(
        clean.cli("network", "create", "n1", "--pool", "p1", "--vlan", "87", "--mtu", "1400", "-o", "json").stdout
    )
    have = {key: made[key] for key in ("name", "bridge", "vlan", "mtu", "pools", "subnets", "gateways", "origin")}
    assert have == {
        "name": "n1",
        "bridge": clean.bridge,
        "vlan": 87,
        "mtu": 1400,
        "pools": ["p1"],
        "subnets": [SUBNET],
        "gateways": [f"{GATEWAY}/24"],
        "origin": "api",
    }
    hosts = {entry["local"]: link["mtu"] for link in clean.host.ip("address", "show") for entry in link["addr_info"]}
    assert hosts[GATEWAY] == 1400
    inner = json.loads(
        clean.cli("network", "create", "n2", "--subnet", "10.88.0.0/24", "--internal", "-o", "json").stdout
    )
    assert (inner["internal"], inner["gateways"]) == (True, [])
    assert inner["vlan"] not in (0, 87)
    assert [row["name"] for row in clean.show("network", "ls")] == ["n1", "n2"]
    assert clean.show("network", "show", "n1") == made
    text = clean.cli("network", "show", "n1").stdout
    assert "n1" in text
    assert "87" in text
    clean.cli("network", "rm", "n1", "n2")
    # The pool that was there before stays, the one made with its network goes.
    assert [row["name"] for row in clean.show("pool", "ls")] == ["p1"]


def test_endpoints(clean: Stack, netns: NewNetns) -> None:
    clean.cli("network", "create", "n1", "--subnet", SUBNET)
    boxes = [netns(), netns()]
    for number, box in enumerate(boxes):
        wish = ("--ifname", "net0", "--address", f"10.87.0.{20 + number}", "--mac", f"02:00:00:00:87:0{number}")
        line = ("endpoint", "create", "--network", "n1", "--container", f"c{number}", "--netns", box.path, *wish)
        made = json.loads(clean.cli(*line, "-o", "json").stdout)
        assert json.loads(clean.cli(*line, "-o", "json").stdout) == made  # again: the same
        assert (made["network"], made["container"], made["ifname"]) == ("n1", f"c{number}", "net0")
        assert (made["addresses"], made["mac"]) == ([f"10.87.0.{20 + number}/24"], f"02:00:00:00:87:0{number}")
        assert made["owner"] == {
            "kind": "api",
            "container": f"c{number}",
            "ifname": "net0",
            "sandbox": str(box.path),
        }
    assert boxes[0].pings("10.87.0.21")
    assert boxes[1].pings(GATEWAY)
    found = clean.show("endpoint", "ls", "--network", "n1")
    assert len(found) == 2
    assert clean.show("endpoint", "show", found[0]["id"][:8]) == found[0]
    ports = clean.ovs.vsctl("list-ports", clean.bridge).split()
    assert {one["port"] for one in found} <= set(ports)
    assert len(clean.cli("endpoint", "ls").stdout.splitlines()) == 3
    gone = clean.cli("endpoint", "rm", found[0]["id"][:8], "ffffffff", found[1]["id"], check=False)
    assert gone.returncode == 3  # went on past the one that is not there
    assert gone.stdout.split() == [found[0]["id"][:8], found[1]["id"]]
    assert clean.show("endpoint", "ls") == []
    assert not any(link["ifname"] == "net0" for box in boxes for link in box.ip("link", "show"))


SITE = """
pools:
  - name: web
    subnet: 10.87.0.0/24
    exclusions: [10.87.0.64/26]
    reservations: {c0: 10.87.0.40}
networks:
  - name: n1
    pools: [web]
    subnets: ["fd87::/64"]
    vlan: 87
"""


def test_a_file_is_applied(clean: Stack, netns: NewNetns, tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"

    def apply(text: str, *words: str) -> Result:
        site.write_text(text)
        return clean.cli("apply", "-f", site, *words, check=False)

    assert apply(SITE, "--dry-run").returncode == 1
    assert clean.show("pool", "ls") == []
    done = apply(SITE, "--yes")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3), done
    for text in (SITE, clean.cli("export").stdout):
        assert apply(text, "--prune", "--dry-run").stdout == "nothing to do\n"
    box = netns()
    assert clean.cni("ADD", "c0", box, clean.conf("n1")).ok
    assert "10.87.0.40/24" in clean.endpoints()[0]["addresses"]
    assert box.pings(GATEWAY, count=5)
    # What would strand the address in use, and a network that is in use, are refused before anything is done.
    stranding = SITE.replace("10.87.0.64/26", "10.87.0.32/27") + "  - {name: n2, subnets: [10.89.0.0/24]}\n"
    for refused in (apply(stranding, "--yes"), apply("networks: []", "--prune", "--yes")):
        assert (refused.returncode, refused.stdout) == (4, ""), refused
    assert [row["name"] for row in clean.show("network", "ls")] == ["n1"]
    changed = apply(SITE.replace("10.87.0.64/26", "10.87.0.128/25"), "--yes")
    assert (changed.returncode, changed.stdout.split(":")[0]) == (0, "~ pool web"), changed
    moved = apply(SITE.replace("vlan: 87", "vlan: 88"), "--yes")
    assert (moved.returncode, moved.stdout.splitlines()[-1]) == (0, "~ network n1: vlan 87 -> 88"), moved
    assert box.pings(GATEWAY, count=5)
    clean.cli("network", "rm", "--force", "n1")
    assert apply("{}", "--prune", "--yes").returncode == 0
    assert clean.show("pool", "ls") == []


def test_status_and_version(stack: Stack) -> None:
    health = stack.show("status")
    assert (health["status"], health["state"], health["switch"], health["node"]) == ("ok", "ok", "ok", stack.prefix)
    versions = stack.show("version")
    assert versions["client"] == versions["server"] == health["version"]
    assert "ok" in stack.cli("status").stdout


# -- ovsnetd's own manners, on one that only this file uses


class Private(Stack):
    """A second ovsnetd of the host, whose sockets lie where everybody may look."""

    def __init__(self, host: Netns, ovs: Ovs, token: str, directory: Path) -> None:
        super().__init__(host, ovs, token, directory)
        self.docker_socket = directory / "docker" / "plugin.sock"
        self.settings |= {"docker_socket": str(self.docker_socket), "socket_group": "nogroup"}


@pytest.fixture
def private(host: Netns, ovs: Ovs, token: str) -> Iterator[Private]:
    directory = Path(tempfile.mkdtemp(prefix=f"ovsnet-{token}-"))
    directory.chmod(0o755)
    ovsnetd = Private(host, ovs, f"{token[:3]}z", directory)
    try:
        yield ovsnetd
    finally:
        ovsnetd.close()
        shutil.rmtree(directory)


def ovsnetd(stack: Stack, config: Path, **more: str) -> Result:
    """Runs an ovsnetd that is going to end by itself."""
    environment = [f"{key}={value}" for key, value in more.items()]
    return stack.host.run("env", *environment, SCRIPTS / "ovsnetd", "--config", config, check=False, timeout=30)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('node = "a"\n\nbrigde = "b"\n', (":3: unknown key 'brigde'", "did you mean 'bridge'?")),
        ("workers = 1\n", (":1: workers:", "greater than or equal to 2")),
        ('node = "a"\nvlan_first = 9\nvlan_last = 5\n', (":3: vlan_last", "below vlan_first 9")),
        ('device_prefix = "toolong"\n', (":1: device_prefix",)),
        ("node = \n", ("not valid TOML", "line 1")),
    ],
)
def test_bad_settings_are_refused_with_their_line(stack: Stack, tmp_path: Path, text: str, words: tuple[str]) -> None:
    config = tmp_path / "ovsnet.toml"
    config.write_text(text)
    refused = ovsnetd(stack, config)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"ovsnetd: {config}")
    for word in words:
        assert word in refused.stderr


def test_bad_settings_elsewhere_are_refused(stack: Stack, tmp_path: Path) -> None:
    missing = ovsnetd(stack, tmp_path / "missing.toml")
    assert (missing.returncode, "no such file" in missing.stderr) == (2, True)
    config = tmp_path / "ovsnet.toml"
    config.write_text("")
    unknown = ovsnetd(stack, config, OVSNET_WORKER="3")
    assert unknown.returncode == 2
    assert "OVSNET_WORKER" in unknown.stderr
    assert "did you mean 'workers'?" in unknown.stderr
    bad = ovsnetd(stack, config, OVSNET_MTU="x")
    assert bad.returncode == 2
    assert "environment: OVSNET_MTU" in bad.stderr


def test_readiness_and_the_end_are_told_to_the_supervisor(
    private: Private, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        private.launch()
        assert supervisor.recv(4096).splitlines()[0] == b"READY=1"
        private.cli("status")  # at once: ready means that it serves
        state = private.state_server()
        assert private.stop() == 0
        assert supervisor.recv(4096).splitlines()[0] == b"STOPPING=1"
    assert not private.socket.exists()
    assert not private.docker_socket.exists()
    assert not Path(f"/proc/{state}").exists()
    assert "Traceback" not in private.log.read_text()


def test_it_starts_again_after_it_was_killed(private: Private) -> None:
    """Its sockets are still there, and its state server."""
    private.start()
    private.cli("network", "create", "n1", "--subnet", "10.89.0.0/24", "--vlan", "89")
    network = private.show("network", "show", "n1")
    private.kill9()
    assert private.socket.exists()
    private.start()
    assert private.show("network", "show", "n1") == network
    private.cli("network", "rm", "n1")
    assert private.leftovers() == []


def test_a_second_ovsnetd_is_refused_and_harms_nothing(private: Private, netns: NewNetns, tmp_path: Path) -> None:
    private.start()
    box = netns()
    conf = private.conf("n1", subnet="10.89.0.0/24")
    assert private.cni("ADD", "box", box, conf).ok
    wait_until(lambda: len(_ports(private)) == 6, "gateway, endpoint and spares stand", 10)
    ports, state = _ports(private), private.state_server()
    elsewhere = tmp_path / "elsewhere.toml"  # only Docker's socket is the same
    settings = private.settings | {"run_dir": str(tmp_path / "run"), "state_dir": str(tmp_path / "state")}
    elsewhere.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    for config in (private.config, elsewhere):
        refused = ovsnetd(private, config)
        assert refused.returncode == 2, refused
        assert "another ovsnetd" in refused.stderr
    assert private.state_server() == state
    assert _ports(private) == ports
    assert not (tmp_path / "state").exists()
    assert box.pings("10.89.0.1")
    private.cli("status")
    assert private.cni("DEL", "box", box, conf).ok
    private.cli("network", "rm", "n1")


def _ports(stack: Stack) -> set[str]:
    found = stack.ovs.vsctl("--bare", "--columns=name", "find", "Port", f"external_ids:ovsnet-owner={stack.prefix}")
    return set(found.split())


def test_a_file_in_a_sockets_place_is_not_removed(private: Private) -> None:
    private.docker_socket.parent.mkdir()
    private.docker_socket.write_text("precious")
    private.launch()
    wait_until(lambda: not private.alive, "it gives up", 20)
    assert private.stop() == 2
    assert f"{private.docker_socket} exists and is not a socket" in private.log.read_text()
    assert private.docker_socket.read_text() == "precious"
    assert not private.socket.exists()


def test_sockets_are_for_root_and_the_group(private: Private) -> None:
    private.start()
    modes = {path: path.lstat() for path in (private.socket, private.docker_socket)}
    assert all(stat.S_ISSOCK(found.st_mode) and found.st_uid == 0 for found in modes.values())
    assert [stat.S_IMODE(found.st_mode) for found in modes.values()] == [0o660, 0o600]
    assert [found.st_gid for found in modes.values()] == [65534, 0]

    def reaches(path: Path, uid: int, gid: int) -> bool:
        user = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups")
        done = private.host.run(
            *user, "curl", "-sS", "--max-time", "10", "--unix-socket", path, "http://d/healthz", check=False
        )
        assert done.returncode in (0, 7), done  # 7: could not connect
        return done.returncode == 0

    nobody = (65534, 65533)
    assert not reaches(private.socket, *nobody)
    assert not reaches(private.docker_socket, *nobody)
    assert reaches(private.socket, 65534, 65534)  # by the group
    assert not reaches(private.docker_socket, 65534, 65534)
    assert reaches(private.socket, 0, 0)
    assert reaches(private.docker_socket, 0, 0)
    private.docker_socket.chmod(0o606)
    assert reaches(private.docker_socket, *nobody)  # it is the mode that kept nobody out
