"""podman with its CNI backend, as an operator of a host has it: runc, a private store, our plugins beside the reference ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Netns, Result, Stack, environment, wait_until
from tests.libcni import REFERENCE_DIR
from tests.system.containers import Pod

pytestmark = [
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(not shutil.which("podman"), reason="the package podman is not installed"),
    pytest.mark.skipif(not REFERENCE_DIR.is_dir(), reason="the package containernetworking-plugins is not installed"),
]

IMAGE = "ovsnet/busybox:local"
SUBNET, GATEWAY = "10.96.1.0/24", "10.96.1.1"
BUSYBOX = "/bin/busybox"
# Without these podman asks for its own limits, which a process without CAP_SYS_RESOURCE cannot raise.
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


class Podman:
    """A podman of its own on a host; `conf_dir` is where it finds networks."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self._host = stack.host
        self.conf_dir = directory / "net.d"
        self.conf_dir.mkdir(parents=True)
        conf = directory / "containers.conf"
        plugins = json.dumps([str(stack.bin_dir), str(REFERENCE_DIR)])
        conf.write_text(
            f'[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = {plugins}\nnetwork_config_dir = "{self.conf_dir}"\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
            '[containers]\npids_limit = 0\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        )
        self._environment = environment(CONTAINERS_CONF=str(conf))
        places = ("--root", directory / "root", "--runroot", directory / "run", "--tmpdir", directory / "tmp")
        self._argv = ("podman", *places, "--storage-driver", "vfs")

    def __call__(self, *args: str | Path, **how: Any) -> Result:
        """Runs a command of podman."""
        return self._host.run(*self._argv, *args, env=self._environment, **how)

    def network(self, name: str, *partners: dict[str, Any], **keys: Any) -> None:
        """A list of plugins with ours first."""
        capabilities = dict.fromkeys(("portMappings", "ips", "mac", "aliases"), True)
        ours = {"type": "ovsnet", "capabilities": capabilities, "ipam": {"type": "ovsnet-ipam", "subnet": SUBNET}}
        conflist = {"cniVersion": "1.0.0", "name": name, "plugins": [ours | keys, *partners]}
        (self.conf_dir / f"{name}.conflist").write_text(json.dumps(conflist))

    def run(self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "600")) -> None:
        """A container that goes on."""
        self("run", "--detach", "--name", name, *LIMITS, *options, IMAGE, BUSYBOX, *command)

    def exec(self, name: str, *argv: str, **how: Any) -> Result:
        """A command of busybox in a container."""
        return self("exec", name, BUSYBOX, *argv, **how)

    def pings(self, name: str, address: str) -> bool:
        """Whether an address answers from a container."""
        return not self.exec(name, "ping", "-c", "1", "-W", "2", address, check=False).returncode

    def networks(self, name: str) -> Any:
        """What podman knows of a container's networks."""
        (found,) = json.loads(self("inspect", name).stdout)
        return found["NetworkSettings"]["Networks"]


@pytest.fixture(scope="module")
def _podman(_stack: Stack, directory: Path) -> Iterator[Podman]:
    home = directory / "podman"
    podman = Podman(_stack, home)
    archive = home / "image.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(Path(BUSYBOX).resolve(), "bin/busybox")
    podman("import", archive, IMAGE)
    yield podman
    for place in sorted(_mounts(home), reverse=True):
        subprocess.run(["umount", "--lazy", place], check=True, timeout=10)
    shutil.rmtree(home)


def _mounts(below: Path) -> list[str]:
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [place for place in places if Path(place).is_relative_to(below)]


@pytest.fixture
def podman(_podman: Podman, stack: Stack) -> Iterator[Podman]:
    """A podman without containers; those that a test made go with it, and the networks."""
    yield _podman
    _podman("pod", "rm", "--all", "--force", "--time", "0", check=False)
    _podman("rm", "--all", "--force", "--time", "0")
    for conf in _podman.conf_dir.glob("*.conflist"):
        conf.unlink()
    for network in stack.show("network", "ls"):
        stack.cli("network", "rm", network["id"])


def test_run_and_rm(stack: Stack, podman: Podman, pod: Callable[[], Pod]) -> None:
    podman.network("blue")
    podman.run("one", "--network", "blue")
    podman.run("two", "--network", "blue")
    neighbour = pod()
    address = neighbour.attach(Stack.conf("blue", subnet=SUBNET))
    known = {name: podman.networks(name)["blue"] for name in ("one", "two")}
    assert {one["IPPrefixLen"] for one in known.values()} == {24}
    assert known["one"]["Gateway"] == GATEWAY
    for to in (GATEWAY, known["two"]["IPAddress"], address):
        assert podman.pings("one", to), to
    assert neighbour.pings(known["one"]["IPAddress"])
    podman("restart", "--time", "0", "one")
    assert podman.pings("one", GATEWAY)
    podman("rm", "--force", "--time", "0", "one", "two")
    assert [one["container"] for one in stack.endpoints()] == [neighbour.id]


def test_an_address_and_a_mac_of_ones_choice(podman: Podman) -> None:
    podman.network("blue")
    podman.run("one", "--network", "blue:ip=10.96.1.77,mac=02:00:00:00:00:77")
    podman.run("two", "--network", "blue", "--ip", "10.96.1.78", "--mac-address", "02:00:00:00:00:78")
    for name, number in (("one", "77"), ("two", "78")):
        shown = podman.exec(name, "ip", "address", "show", "eth0").stdout
        assert f"inet 10.96.1.{number}/24" in shown
        assert f"link/ether 02:00:00:00:00:{number}" in shown
    taken = podman(
        "run", "--rm", *LIMITS, "--network", "blue", "--ip", "10.96.1.77", IMAGE, BUSYBOX, "true", check=False
    )
    assert taken.returncode
    assert "address 10.96.1.77 of pool blue is in use" in taken.stderr


def test_two_networks_connect_and_disconnect(podman: Podman) -> None:
    podman.network("blue")
    podman.network("red", ipam={"type": "ovsnet-ipam", "subnet": "10.96.2.0/24"}, isDefaultGateway=False)
    podman.network("green", ipam={"type": "ovsnet-ipam", "subnet": "10.96.3.0/24"}, isDefaultGateway=False)
    podman.run("one", "--network", "blue", "--network", "red")
    assert podman.networks("one").keys() == {"blue", "red"}
    for gateway in (GATEWAY, "10.96.2.1"):
        assert podman.pings("one", gateway)
    podman("network", "connect", "green", "one")
    assert podman.pings("one", "10.96.3.1")
    podman("network", "disconnect", "red", "one")
    assert "10.96.2." not in podman.exec("one", "ip", "address").stdout
    assert podman.pings("one", "10.96.3.1")


def test_a_pod_shares_its_interface(stack: Stack, podman: Podman) -> None:
    podman.network("blue")
    podman(
        "pod",
        "create",
        "--name",
        "both",
        "--network",
        "blue",
        "--infra-image",
        IMAGE,
        "--infra-command",
        "/bin/busybox sleep 600",
    )
    for name in ("one", "two"):
        podman.run(name, "--pod", "both")
    shown = [podman.exec(name, "ip", "address", "show", "eth0").stdout for name in ("one", "two")]
    assert shown[0] == shown[1]
    assert podman.pings("two", GATEWAY)
    assert len(stack.endpoints()) == 1


@pytest.mark.parametrize("by", ["ovsnet", "portmap"])
def test_published_ports(stack: Stack, podman: Podman, netns: Callable[[], Netns], by: str) -> None:
    outside = netns()
    device = f"{stack.prefix}out"
    stack.host.run("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", outside.name)
    try:
        for where, name, address in ((stack.host, device, "192.0.2.1/24"), (outside, "eth0", "192.0.2.2/24")):
            where.run("ip", "address", "add", address, "dev", name)
            where.run("ip", "link", "set", name, "up")
        portmap = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
        if by == "ovsnet":
            podman.network("blue")
        else:
            podman.network("blue", portmap, capabilities={"ips": True}, ipMasq=True)
        serve = ("nc", "-ll", "-p", "80", "-e", BUSYBOX, "echo", "hello")
        podman.run("web", "--network", "blue", "--publish", "18080:80", command=serve)
        wait_until(lambda: ":80 " in podman.exec("web", "netstat", "-ltn").stdout, "the server listens")
        assert outside.run("busybox", "nc", "-w", "5", "192.0.2.1", "18080").stdout == "hello\n"
        assert stack.host.run("busybox", "nc", "-w", "5", "192.0.2.1", "18080").stdout == "hello\n"
        podman("rm", "--force", "--time", "0", "web")
        assert outside.run("busybox", "nc", "-w", "2", "192.0.2.1", "18080", check=False).returncode
    finally:
        stack.host.run("ip", "link", "delete", device)
