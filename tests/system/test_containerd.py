"""containerd by `ctr run --cni`: a client on go-cni, which finds networks and plugins at their fixed places only."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Daemon, Netns, Result, Stack, run, wait_until
from tests.system.containers import Pod

pytestmark = [
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(not shutil.which("ctr"), reason="the package containerd is not installed"),
]

IMAGE = "ovsnet.test/busybox:local"
BUSYBOX = "/bin/busybox"
SUBNET, GATEWAY = "10.97.1.0/24", "10.97.1.1"
PLACES = (Path("/etc/cni/net.d"), Path("/opt/cni/bin"))


class Containerd(Daemon):
    """A containerd without CRI; `conf_dir` is where `ctr` finds networks."""

    def __init__(self, host: Netns, stack: Stack, directory: Path) -> None:
        self.conf_dir = directory / "net.d"
        self._bin_dir = stack.bin_dir
        self._socket = directory / "c.sock"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        config = directory / "config.toml"
        super().__init__(host, "containerd", directory, ("containerd", "--config", config))
        self.conf_dir.mkdir()
        config.write_text(
            f'version = 2\nroot = "{directory}/root"\nstate = "{directory}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self._socket}"\n[ttrpc]\naddress = "{directory}/t.sock"\n'
        )

    def answers(self) -> bool:
        """Whether it serves."""
        return self._socket.exists() and not self("version", check=False).returncode

    def argv(self, *args: str | Path) -> list[str]:
        """A command of `ctr`, for which our directories are at the fixed places."""
        mounts = " && ".join(
            f'mount --bind "{ours}" {place}' for ours, place in zip((self.conf_dir, self._bin_dir), PLACES, strict=True)
        )
        ctr = ("ctr", "--address", self._socket, *args)
        return self.host.argv("unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh", *ctr)

    def __call__(self, *args: str | Path, **how: Any) -> Result:
        """Runs `ctr`."""
        return run(*self.argv(*args), **how)

    def import_image(self) -> None:
        """An image with busybox, as `docker save` would write it."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            tar.add(Path(BUSYBOX).resolve(), "bin/busybox")
        digest = hashlib.sha256(layer.getvalue()).hexdigest()
        root = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": root}).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = json.dumps([{"Config": name, "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]).encode()
        archive = self.directory / "image.tar"
        with tarfile.open(archive, "w") as tar:
            for path, content in (("layer.tar", layer.getvalue()), (name, config), ("manifest.json", manifest)):
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        self("images", "import", "--snapshotter", "native", archive)

    def run(self, name: str) -> None:
        """A container on the network that is found first. Its `ctr` stays: a detached one never executes DEL (1.6)."""
        options = ("--cni", "--rm", "--snapshotter", "native", "--runc-root", self.directory / "runc")
        argv = self.argv("run", *options, IMAGE, name, BUSYBOX, "sleep", "600")
        log = self.directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._running[name] = process
        wait_until(lambda: process.poll() is not None or self._runs(name), "it runs")
        assert process.poll() is None, log.read_text()

    def _runs(self, name: str) -> bool:
        return f"{name} " in self("tasks", "ls").stdout and "RUNNING" in self("tasks", "ls").stdout.partition(name)[2]

    def exec(self, name: str, *argv: str, **how: Any) -> Result:
        """A command of busybox in a container."""
        return self("tasks", "exec", "--exec-id", "exec", name, BUSYBOX, *argv, **how)

    def address(self, name: str) -> str:
        """A container's IPv4 address."""
        return self.exec(name, "ip", "-4", "address", "show", "eth0").stdout.partition("inet ")[2].partition("/")[0]

    def remove(self, name: str) -> None:
        """Ends a container; its `ctr` removes it and takes it off its network."""
        self("tasks", "kill", "--signal", "KILL", name, check=False)
        self._running.pop(name).wait(20)

    def clear(self) -> None:
        """Ends all containers."""
        for name in list(self._running):
            self.remove(name)


@pytest.fixture(scope="module")
def _containerd(host: Netns, _stack: Stack, directory: Path) -> Iterator[Containerd]:
    home = directory / "containerd"
    home.mkdir()
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, home)
        for place in PLACES:  # to mount on
            missing = [each for each in (place.parent, place) if not each.exists()]
            for each in missing:
                each.mkdir()
                undo.callback(each.rmdir)
        containerd = Containerd(host, _stack, home)
        undo.callback(_unmount, home)
        undo.callback(containerd.sweep)
        undo.callback(containerd.stop)
        containerd.start()
        containerd.import_image()
        yield containerd


def _unmount(home: Path) -> None:
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in sorted((place for place in places if Path(place).is_relative_to(home)), reverse=True):
        subprocess.run(["umount", "--lazy", place], check=True, timeout=10)


@pytest.fixture
def containerd(_containerd: Containerd, stack: Stack) -> Iterator[Containerd]:
    """containerd without containers, with a network of ours; all that a test made goes."""
    ours = {"type": "ovsnet", "ipam": {"type": "ovsnet-ipam", "subnet": SUBNET}}
    conflist = {"cniVersion": "1.0.0", "name": "ctr", "plugins": [ours]}
    (_containerd.conf_dir / "10-ctr.conflist").write_text(json.dumps(conflist))
    yield _containerd
    _containerd.clear()
    for network in stack.show("network", "ls"):
        stack.cli("network", "rm", network["id"])


def test_containers_come_and_go(stack: Stack, containerd: Containerd, pod: Callable[[], Pod]) -> None:
    neighbour = pod()
    far = neighbour.attach(Stack.conf("ctr", subnet=SUBNET))
    containerd.run("one")
    containerd.run("two")
    one, two = containerd.address("one"), containerd.address("two")
    assert len({one, two, far}) == 3
    for to in (GATEWAY, two, far):
        containerd.exec("one", "ping", "-c", "1", "-W", "2", to)
    assert neighbour.pings(one)
    containerd.remove("one")
    assert {address.partition("/")[0] for each in stack.endpoints() for address in each["addresses"]} == {two, far}
    containerd.remove("two")


def test_a_refused_container_leaves_nothing(stack: Stack, containerd: Containerd) -> None:
    conf = containerd.conf_dir / "10-ctr.conflist"
    narrow = json.loads(conf.read_text())
    narrow["plugins"][0]["ipam"] |= {"rangeStart": "10.97.1.9", "rangeEnd": "10.97.1.9"}
    conf.write_text(json.dumps(narrow))
    containerd.run("one")
    with pytest.raises(AssertionError, match="has no free address"):
        containerd.run("two")
    assert len(stack.endpoints()) == 1
