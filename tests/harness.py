"""Real parts for the system tests and the benchmarks: a host of their own, with Open vSwitch, ovsnetd and dockerd on it.

The host is a network namespace: two userspace switches cannot share one (both want the device `ovs-netdev`), and in a namespace
nothing that a test does can reach the machine's own network. Every file, socket, device, cgroup and plugin carries the
test run's token. Nothing here is simulated, and everything has a deadline.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

REPO = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent
IMAGE = "ovsnet/busybox:local"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
MARK = "DEVSTACK_STATE"  # names in the environment who started a process, its children included

Result = subprocess.CompletedProcess[str]


class CommandFailed(AssertionError):
    """A command ended with a status that was not expected; tells all that it printed."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"{result.args} ended with {result.returncode}\n{result.stdout}\n{result.stderr}".rstrip())
        self.result = result


def environment(**more: str) -> dict[str, str]:
    """The caller's environment without what would steer our programs, and the system's own tools first in PATH."""
    kept = {key: value for key, value in os.environ.items() if not re.match(r"(OVSNET|OVS|DOCKER|CNI)_", key)}
    return kept | {"PATH": f"/usr/sbin:/usr/bin:/sbin:/bin:{kept.get('PATH', '')}", "LC_ALL": "C.UTF-8"} | more


def run(
    *argv: str | Path,
    check: bool = True,
    timeout: float = 60,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
) -> Result:
    """Runs a program to its end; CommandFailed if it fails, unless not `check`."""
    result = subprocess.run(
        [str(arg) for arg in argv],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment() if env is None else env,
        check=False,
    )
    if check and result.returncode:
        raise CommandFailed(result)
    return result


def wait_until(condition: Callable[[], object], what: str, deadline: float = 10) -> None:
    """Polls until `condition` holds; AssertionError that says `what` did not happen after `deadline` seconds."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {deadline} s"
        time.sleep(0.02)


def marked(mark: Path) -> Iterator[tuple[int, str]]:
    """Process ids and names of all that descends from what was started with `mark`."""
    entry = f"{MARK}={mark}".encode()
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            if entry in (proc / "environ").read_bytes().split(b"\0"):
                yield int(proc.name), (proc / "comm").read_text().strip()
        except OSError:  # it has just ended
            continue


class Netns:
    """A network namespace under a name, with its loopback up: a container's, or a whole host's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns", name)
        run("ip", "netns", "add", name)
        self.run("ip", "link", "set", "lo", "up")

    @classmethod
    def of(cls, path: Path) -> Netns:
        """The namespace at `path`, which somebody else has made and will delete."""
        found = cls.__new__(cls)
        found.name, found.path = path.name, path
        return found

    def argv(self, *argv: str | Path) -> list[str]:
        """A command that runs `argv` inside; the same process, and unlike `ip netns exec` with the same mounts."""
        return ["nsenter", f"--net={self.path}", *map(str, argv)]

    def run(self, *argv: str | Path, **how: Any) -> Result:
        """As `run`, inside."""
        return run(*self.argv(*argv), **how)

    def ip(self, *args: str) -> Any:
        """What `ip -json` tells inside, decoded."""
        return json.loads(self.run("ip", "-json", *args).stdout or "[]")

    def pings(self, address: str, *, count: int = 1, wait: float = 2) -> bool:
        """Whether `address` answers from here; any of `count` echo requests will do."""
        return not self.run("ping", "-n", "-c", str(count), "-W", str(wait), address, check=False).returncode

    def delete(self) -> None:
        """Deletes the name, and with it the namespace unless a process still lives there. Absent is fine."""
        if self.path.exists():
            run("ip", "netns", "del", self.name)


class Process(Protocol):
    """What a Daemon needs of its process."""

    pid: int

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""

    def terminate(self) -> None:
        """SIGTERM."""

    def kill(self) -> None:
        """SIGKILL."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status; subprocess.TimeoutExpired if it still runs after `timeout` seconds."""


class Daemon:
    """A process of `host` that tests may stop, kill and start again, with its log in `directory`."""

    def __init__(
        self, host: Netns, name: str, directory: Path, argv: Sequence[str | Path], deadline: float = 30
    ) -> None:
        self.host = host
        self.name = name
        self.directory = directory
        self.log = directory / f"{name}.log"
        self.deadline = deadline
        self.env = {MARK: str(directory), "OVS_RUNDIR": str(directory)}
        self._argv = argv
        self._process: Process | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def answers(self) -> bool:
        """Whether it serves requests."""
        raise NotImplementedError

    def launch(self) -> None:
        """Starts it without waiting for it to serve."""
        assert not self.alive, f"{self.name} runs already"
        self._process = self.spawn()

    def spawn(self) -> Process:
        """Its process, just begun."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.host.argv(*self._argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(**self.env),
                start_new_session=True,
            )

    def start(self) -> None:
        """Starts it and returns when it serves."""
        self.launch()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Returns when it serves; AssertionError with the end of its log when it ended, or does not in time."""
        try:
            wait_until(lambda: not self.alive or self.answers(), f"{self.name} serves", self.deadline)
            assert self.alive, f"{self.name} ended"
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from None

    def ensure(self) -> None:
        """Starts it if it does not run."""
        if not self.alive:
            self.start()

    def stop(self) -> int:
        """SIGTERM; its exit status. AssertionError if it had to be killed."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(self.deadline)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise AssertionError(f"{self.name} did not stop within {self.deadline} s\n{self.log_tail()}") from None

    def kill9(self) -> None:
        """SIGKILL, and waits for its end."""
        assert self._process is not None, f"{self.name} was never started"
        self._process.kill()
        self._process.wait(10)

    def restart(self) -> None:
        """Stops and starts it."""
        self.stop()
        self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """SIGSTOP, for as long as the context lasts."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def processes(self, name: str) -> list[int]:
        """Process ids of its descendants (or itself) of that name, also of those that it has left behind."""
        return [pid for pid, comm in marked(self.directory) if comm == name]

    def sweep(self) -> None:
        """Kills whatever it has left behind."""
        for pid, _ in list(marked(self.directory)):
            _kill(pid)

    def log_tail(self, lines: int = 40) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class SwitchDatabase(Daemon):
    """The ovsdb-server of a switch."""

    def __init__(self, host: Netns, directory: Path) -> None:
        self.socket = directory / "db.sock"
        self.database = directory / "conf.db"
        self.control = directory / "ovsdb-server.ctl"
        argv = (
            "ovsdb-server",
            self.database,
            f"--remote=punix:{self.socket}",
            f"--unixctl={self.control}",
            "-vsyslog:off",
        )
        super().__init__(host, "ovsdb-server", directory, argv)

    def launch(self) -> None:
        """Starts it, on a new database if there is none."""
        if not self.database.exists():
            run("ovsdb-tool", "create", self.database, SCHEMA)
        super().launch()

    def answers(self) -> bool:
        """Whether it takes the initial row."""
        return not run(
            "ovs-vsctl", f"--db=unix:{self.socket}", "--timeout=5", "--no-wait", "init", check=False
        ).returncode


class Vswitchd(Daemon):
    """The ovs-vswitchd of a switch."""

    def __init__(self, host: Netns, directory: Path, remote: str) -> None:
        self.control = directory / "ovs-vswitchd.ctl"
        argv = ("ovs-vswitchd", remote, f"--unixctl={self.control}", "-vsyslog:off")
        super().__init__(host, "ovs-vswitchd", directory, argv)

    def answers(self) -> bool:
        """Whether it has read its database."""
        show = run("ovs-appctl", f"--target={self.control}", "--timeout=5", "version", check=False)
        return not show.returncode


class Ovs:
    """A switch: `server` and `vswitchd` are daemons of their own, `remote` is for ovsnetd."""

    def __init__(self, host: Netns, directory: Path) -> None:
        self.server = SwitchDatabase(host, directory / "switch-db")
        self.remote = f"unix:{self.server.socket}"
        self.vswitchd = Vswitchd(host, directory / "vswitchd", self.remote)

    def ensure(self) -> None:
        """Starts what does not run."""
        self.server.ensure()
        self.vswitchd.ensure()

    def vsctl(self, *args: str, **how: Any) -> str:
        """What `ovs-vsctl` prints."""
        return run("ovs-vsctl", f"--db={self.remote}", "--timeout=20", *args, **how).stdout.strip()

    def kill_vswitchd(self) -> None:
        """kill -9."""
        self.vswitchd.kill9()

    def restart_vswitchd(self) -> None:
        """Stops it (if it runs) and starts it again."""
        self.vswitchd.restart()

    def close(self) -> None:
        """Stops both, for good."""
        try:
            self.vswitchd.stop()
        finally:
            self.server.stop()


@dataclass(frozen=True)
class CniResult:
    """How a plugin ended; `output` is its standard output decoded, None if it printed nothing."""

    returncode: int
    output: Any
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.returncode == 0

    @property
    def addresses(self) -> list[str]:
        """The addresses of an ADD's result, without prefix lengths."""
        return [ip["address"].partition("/")[0] for ip in self.output["ips"]]


class Stack(Daemon):
    """ovsnetd with its settings, its CLI, and the CNI plugins that talk to it. `settings` are added to the file's."""

    def __init__(self, host: Netns, ovs: Ovs, token: str, directory: Path, **settings: Any) -> None:
        self.ovs = ovs
        self.prefix = token
        self.bridge = f"{token}br"
        self.driver = f"ovsnet-{token}"
        self.socket = directory / "run" / "ovsnet.sock"
        self.state_dir = directory / "state"
        self.bin_dir = directory / "bin"
        self.config = directory / "ovsnet.toml"
        self.settings = {
            "node": token,
            "run_dir": str(self.socket.parent),
            "state_dir": str(self.state_dir),
            "docker_socket": f"/run/docker/plugins/{self.driver}.sock",
            "switch_remote": ovs.remote,
            "switch_run_dir": str(ovs.vswitchd.directory),
            "bridge": self.bridge,
            "device_prefix": self.prefix,
            "log_level": "debug",
        } | settings
        self.docker_socket = Path(self.settings["docker_socket"])
        super().__init__(host, "ovsnetd", directory, self.command())

    def command(self, *arguments: str) -> tuple[str | Path, ...]:
        """ovsnetd with our settings and further arguments."""
        return (SCRIPTS / "ovsnetd", "--config", self.config, *arguments)

    def launch(self) -> None:
        """Starts it; it serves a moment later."""
        # JSON's strings, numbers, booleans and lists are TOML's.
        self.config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in self.settings.items()))
        super().launch()

    def start(self) -> None:
        """Starts it and installs the plugins."""
        super().start()
        if not self.bin_dir.exists():
            self.bin_dir.mkdir()
            self.cli("cni", "install", "--bin-dir", self.bin_dir)

    def answers(self) -> bool:
        """Whether it is healthy."""
        return self.socket.exists() and not self.cli("status", check=False).returncode

    def close(self) -> None:
        """Stops it for good, with its state database's server."""
        self.stop()
        self.sweep()

    def state_server(self) -> int:
        """Process id of the state database's server, which ovsnetd starts and watches."""
        (pid,) = self.processes("ovsdb-server")
        return pid

    def cli(self, *args: str | Path, **how: Any) -> Result:
        """Runs `ovsnet`."""
        return self.host.run(SCRIPTS / "ovsnet", "--socket", self.socket, *args, **how)

    def show(self, *args: str) -> Any:
        """What `ovsnet ... -o json` tells, decoded."""
        return json.loads(self.cli(*args, "-o", "json").stdout)

    def endpoints(self) -> list[dict[str, Any]]:
        """All endpoints."""
        found: list[dict[str, Any]] = self.show("endpoint", "ls")
        return found

    @staticmethod
    def conf(network: str, version: str = "1.0.0", **ipam: Any) -> dict[str, Any]:
        """A network configuration as a runtime hands it to the plugin; `ipam` is added to its `ipam` object."""
        return {"cniVersion": version, "name": network, "type": "ovsnet", "ipam": {"type": "ovsnet-ipam"} | ipam}

    def cni(
        self,
        command: str,
        container: str,
        netns: Netns | Path | str,
        conf: Mapping[str, Any] | str,
        ifname: str = "eth0",
        *,
        plugin: str = "ovsnet",
        timeout: float = 60,
        **env: str,
    ) -> CniResult:
        """Executes the plugin as a runtime does, but for `env`, which is added to its environment."""
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": str(netns.path if isinstance(netns, Netns) else netns),
            "CNI_IFNAME": ifname,
            "CNI_PATH": str(self.bin_dir),
        }
        stdin = conf if isinstance(conf, str) else json.dumps(conf)
        result = self.host.run(
            self.bin_dir / plugin, check=False, stdin=stdin, timeout=timeout, env=environment(**variables | env)
        )
        return CniResult(result.returncode, json.loads(result.stdout) if result.stdout.strip() else None, result.stderr)

    def docker_call(self, method: str, **body: Any) -> dict[str, Any]:
        """One call of Docker's plugin protocol on its socket, as dockerd sends it; the answer, decoded."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        with closing(connection):
            connection.sock.settimeout(30)
            connection.sock.connect(str(self.docker_socket))
            connection.request("POST", f"/{method}", json.dumps(body))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer

    def clear(self) -> None:
        """Removes all endpoints, networks and pools."""
        for noun in ("endpoint", "network", "pool"):
            if found := [row["id"] for row in self.show(noun, "ls")]:
                self.cli(noun, "rm", *found)

    def leftovers(self) -> list[str]:
        """What is there although nobody uses it, once all networks are deleted: rows, switch ports, links."""
        rows = [f"{noun} {row['id']}" for noun in ("endpoint", "network", "pool") for row in self.show(noun, "ls")]
        owned = self.ovs.vsctl("--bare", "--columns=name", "find", "Port", f"external_ids:ovsnet-owner={self.prefix}")
        links = [link["ifname"] for link in self.host.ip("link", "show")]
        derived = re.compile(rf"{self.prefix}[a-z][0-9a-f]{{10}}")
        return (
            rows
            + [f"port {name}" for name in owned.split()]
            + [f"link {name}" for name in links if derived.match(name)]
        )


class Dockerd(Daemon):
    """A dockerd without bridge and rules of its own, the busybox image in it. `docker` is the system's client.

    `flags` are added to its command line, where the last one of a kind counts; `settings` are those of its file.
    """

    def __init__(self, host: Netns, token: str, directory: Path, *flags: str, **settings: Any) -> None:
        self.socket = directory / "docker.sock"
        self._cgroup = f"ovsnet-{token}"
        self._settings = directory / "daemon.json"
        argv = (
            "dockerd",
            f"--config-file={self._settings}",
            f"--host=unix://{self.socket}",
            f"--pidfile={directory / 'dockerd.pid'}",
            f"--data-root={directory / 'data'}",
            f"--exec-root={directory / 'exec'}",
            "--bridge=none",
            "--iptables=false",
            "--default-ulimit=nofile=1024:1024",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            f"--cgroup-parent=/{self._cgroup}",
            *flags,
        )
        self.settings = settings
        super().__init__(host, "dockerd", directory, argv, deadline=60)

    def launch(self) -> None:
        """Starts it; it serves a moment later."""
        self._settings.write_text(json.dumps(self.settings))  # or it reads the machine's
        super().launch()

    def start(self) -> None:
        """Starts it, with the image in it."""
        super().start()
        if self.docker("image", "inspect", IMAGE, check=False).returncode:
            run(REPO / "devstack/image.sh", f"unix://{self.socket}")

    def answers(self) -> bool:
        """Whether the client reaches it."""
        return self.socket.exists() and not self.docker("version", check=False).returncode

    def kill9(self) -> None:
        """SIGKILL; its containerd ends with it, but as long as that is not reaped the next dockerd takes it for alive."""
        containerd = [Path(f"/proc/{pid}") for pid in self.processes("containerd")]
        super().kill9()
        wait_until(lambda: not any(proc.exists() for proc in containerd), "containerd is gone")

    def docker(self, *args: str, **how: Any) -> Result:
        """Runs the docker client."""
        return run("/usr/bin/docker", "--host", f"unix://{self.socket}", *args, **how)

    def inspect(self, name: str) -> Any:
        """What docker knows of a container or network."""
        return json.loads(self.docker("inspect", name).stdout)[0]

    def address(self, container: str, network: str) -> str:
        """A container's IPv4 address on a network."""
        found: str = self.inspect(container)["NetworkSettings"]["Networks"][network]["IPAddress"]
        return found

    def netns(self, container: str) -> Netns:
        """A container's network namespace; `/proc` is looked up with the host's mounts, which Docker's own path is not."""
        return Netns.of(Path("/proc", str(self.inspect(container)["State"]["Pid"]), "ns/net"))

    def pings(self, container: str, address: str, *, count: int = 1, wait: int = 2) -> bool:
        """Whether `address` answers from a container."""
        ping = ("ping", "-c", str(count), "-W", str(wait), address)
        return not self.docker("exec", container, *ping, check=False).returncode

    def clear(self) -> None:
        """Removes all containers, then all networks that Docker did not make itself."""
        if containers := self.docker("ps", "--all", "--quiet").stdout.split():
            self.docker("rm", "--force", *containers, check=False)
        if networks := self.docker("network", "ls", "--quiet", "--filter", "type=custom").stdout.split():
            self.docker("network", "rm", *networks, check=False)

    def close(self) -> None:
        """Stops it for good, with everything in it."""
        if self.alive and self.answers():
            self.clear()
        try:
            self.stop()
        finally:
            self.sweep()
            self._end_containers()
            mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
            for mount in sorted((path for path in mounts if Path(path).is_relative_to(self.directory)), reverse=True):
                run("umount", "--lazy", mount)
            shutil.rmtree(self.directory)

    def _end_containers(self) -> None:
        """Kills containers that a killed dockerd has left behind, and removes our cgroups."""
        # os.walk, for it does not mind that the cgroups of another test run vanish meanwhile.
        walked = [Path(root, name) for root, names, _ in os.walk("/sys/fs/cgroup") for name in names]
        for top in [path for path in walked if path.name == self._cgroup]:
            for pid in {int(pid) for procs in top.rglob("cgroup.procs") for pid in procs.read_text().split()}:
                _kill(pid)
            groups = sorted((path for path in (top, *top.rglob("*")) if path.is_dir()), reverse=True)
            wait_until(partial(_remove, groups), f"{top} is empty")


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _remove(groups: Iterable[Path]) -> bool:
    """Removes cgroups; False while one of them still holds processes that are about to end."""
    for group in groups:
        try:
            group.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
    return True
