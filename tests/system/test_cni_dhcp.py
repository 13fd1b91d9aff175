"""Addresses from a DHCP server: the reference plugin `dhcp` with its daemon, and a server that is another machine.

It is by a wire on the bridge, as a user's would be by an uplink: a container of ours may not be one (docs/anti-spoofing.md).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import CniResult, Daemon, Netns, Ovs, Stack, wait_until
from tests.libcni import REFERENCE_DIR
from tests.system.containers import Pod

pytestmark = [
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(not (REFERENCE_DIR / "dhcp").exists(), reason="containernetworking-plugins is not installed"),
]

SERVER, ADDRESS = "10.97.0.1", "10.97.0.20"


class DhcpDaemon(Daemon):
    """The reference plugin's daemon, which keeps the leases of the host's containers; the plugin reaches it by `socket`."""

    def __init__(self, host: Netns, directory: Path) -> None:
        self.socket = directory / "dhcp.sock"
        argv = (
            REFERENCE_DIR / "dhcp",
            "daemon",
            "-socketpath",
            self.socket,
            "-timeout",
            "1s",
            "-resendmax",
            "1s",
            "-broadcast",
        )
        super().__init__(host, "dhcp", directory, argv)

    def launch(self) -> None:
        """Starts it; it refuses a socket that is there already."""
        self.socket.unlink(missing_ok=True)
        super().launch()

    def answers(self) -> bool:
        """Whether it listens."""
        return self.socket.exists()


class DhcpServer(Daemon):
    """busybox' udhcpd in the network namespace of a container, with one address to give."""

    def __init__(self, box: Netns, directory: Path) -> None:
        config = directory / "udhcpd.conf"
        super().__init__(box, "udhcpd", directory, ("busybox", "udhcpd", "-f", "-a", "50", config))
        leases = directory / "leases"
        leases.touch()
        settings = {
            "start": ADDRESS,
            "end": ADDRESS,
            "max_leases": 1,
            "interface": "eth0",
            "lease_file": leases,
            "pidfile": directory / "udhcpd.pid",
            "option subnet": "255.255.255.0",
            "option router": SERVER,
            "option lease": 600,
            "offer_time": 1,
        }
        config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))

    def answers(self) -> bool:
        """Whether it has said that it begins."""
        return "started" in self.log.read_text()

    @property
    def given(self) -> int:
        """How often it has confirmed a lease."""
        return self.log.read_text().count("sending ACK")


class Lan:
    """A network with a DHCP server on it, a container that asks it for an address, and another one."""

    def __init__(self, stack: Stack, box: Netns, other: Netns, daemon: DhcpDaemon, server: DhcpServer) -> None:
        self.stack, self.box, self.other, self.daemon, self.server = stack, box, other, daemon, server

    def conf(self, version: str = "1.0.0", **keys: Any) -> dict[str, Any]:
        """The configuration with more keys."""
        ipam = {"type": "dhcp", "daemonSocketPath": str(self.daemon.socket)}
        return {"cniVersion": version, "name": "lan", "type": "ovsnet", "ipam": ipam} | keys

    def call(self, command: str, conf: dict[str, Any] | None = None, **env: str) -> CniResult:
        """Executes `ovsnet` where it finds the reference plugins."""
        variables: dict[str, Any] = {"CNI_PATH": f"{self.daemon.directory}:{self.stack.bin_dir}:{REFERENCE_DIR}"} | env
        return self.stack.cni(command, self.box.name, self.box, conf or self.conf(), **variables)

    def wrap(self, after: str) -> None:
        """Makes the plugin of `wrapped`: `dhcp`, with what it prints going through a command; it speaks 1.1.0 as well."""
        path = self.daemon.directory / "wrapper"
        path.write_text(
            "#!/bin/sh\n[ $CNI_COMMAND != GC ] || exit 0\n"
            f"[ $CNI_COMMAND = ADD ] || exec {REFERENCE_DIR}/dhcp\n"
            f"sed s/1[.]1[.]0/1.0.0/ | {REFERENCE_DIR}/dhcp | {after}\n"
        )
        path.chmod(0o755)

    def wrapped(self, version: str = "1.0.0") -> dict[str, Any]:
        """A configuration whose IPAM plugin is that, and is not known to need the interface."""
        conf = self.conf(version, linkFirst=True)
        conf["ipam"]["type"] = "wrapper"
        return conf

    def shown(self) -> list[dict[str, Any]]:
        """The container's interface, if it has that; what a DEL has left nameless goes with its port in a moment."""
        return [one for one in self.box.ip("address", "show") if one["ifname"] == "eth0"]

    def assert_free(self) -> None:
        """Asserts that the server has its address to give, for another container gets it."""
        time.sleep(1.1)  # it counts in whole seconds, and the plugin asks again only after four
        conf, path = self.conf(), f"{self.stack.bin_dir}:{REFERENCE_DIR}"
        try:
            result = self.stack.cni("ADD", self.other.name, self.other, conf, CNI_PATH=path)
            assert result.addresses == [ADDRESS]
        finally:
            assert self.stack.cni("DEL", self.other.name, self.other, conf, CNI_PATH=path).ok

    def endpoint(self) -> dict[str, Any]:
        """The container's endpoint."""
        (found,) = [one for one in self.stack.endpoints() if one["container"] == self.box.name]
        return found


@pytest.fixture
def lan(stack: Stack, ovs: Ovs, netns: Callable[[], Netns], tmp_path: Path) -> Iterator[Lan]:
    """The server has a static address; everything goes at the end."""
    server_box, box = netns(), netns()
    wire = f"{stack.prefix}dhcp"
    server = DhcpServer(server_box, tmp_path / "server")
    daemon = DhcpDaemon(stack.host, tmp_path / "daemon")
    found = Lan(stack, box, netns(), daemon, server)
    try:
        stack.cli("network", "create", "lan")
        tag = stack.show("network", "show", "lan")["vlan"]
        stack.host.run("ip", "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", server_box.name)
        stack.host.run("ip", "link", "set", wire, "up")
        server_box.run("ip", "address", "add", f"{SERVER}/24", "dev", "eth0")
        server_box.run("ip", "link", "set", "eth0", "up")
        ovs.vsctl("add-port", stack.bridge, wire, f"tag={tag}")
        server.start()
        daemon.start()
        yield found
    finally:
        stack.ensure()
        if not daemon.alive:
            daemon.start()
        assert found.call("DEL").ok
        daemon.stop()
        server.stop()
        ovs.vsctl("--if-exists", "del-port", stack.bridge, wire)
        for network in stack.show("network", "ls"):
            stack.cli("network", "rm", network["id"])


def test_a_dhcp_server_gives_the_address(lan: Lan) -> None:
    result = lan.call("ADD")
    assert result.ok, result
    assert [(one["address"], one["gateway"]) for one in result.output["ips"]] == [(f"{ADDRESS}/24", SERVER)]
    assert {"dst": "0.0.0.0/0", "gw": SERVER} in result.output["routes"]
    (link,) = lan.shown()
    assert [one["local"] for one in link["addr_info"]] == [ADDRESS]
    assert link["address"] == result.output["interfaces"][0]["mac"]
    assert lan.box.pings(SERVER)
    hops = {route["dst"]: route["gateway"] for route in lan.box.ip("route", "show") if "gateway" in route}
    assert hops == {"default": SERVER}
    assert lan.endpoint()["addresses"] == [f"{ADDRESS}/24"]
    given = lan.server.given
    assert lan.call("ADD").output == result.output
    assert lan.server.given == given
    check = lan.conf(prevResult=result.output)
    assert lan.call("CHECK", check).ok
    assert lan.stack.cli("ipam", "check").returncode == 0
    assert lan.call("DEL").ok
    assert lan.shown() == []
    lan.assert_free()
    assert lan.call("DEL").ok
    assert not lan.call("CHECK", check).ok


def test_a_failed_add_leaves_neither_interface_nor_address(lan: Lan) -> None:
    lan.wrap("sed s/address/addrezz/g")
    result = lan.call("ADD", lan.wrapped())
    assert (result.returncode, result.output["code"]) == (1, 7), result
    assert "wrapper" in result.output["msg"]
    assert (lan.shown(), len(lan.stack.endpoints())) == ([], 0)
    lan.wrap("false")  # it fails after it has got an address
    result = lan.call("ADD", lan.wrapped())
    assert (result.returncode, lan.shown(), len(lan.stack.endpoints())) == (1, [], 0)
    lan.assert_free()


@pytest.mark.whole
def test_without_a_server_add_fails_and_the_next_one_works(lan: Lan) -> None:
    lan.server.stop()
    result = lan.call("ADD")
    assert (result.returncode, lan.shown(), len(lan.stack.endpoints())) == (1, [], 0)
    lan.server.start()
    assert lan.call("ADD").ok


def test_without_the_daemon_add_fails_and_del_detaches(lan: Lan) -> None:
    assert lan.call("ADD").ok
    lan.daemon.stop()
    result = lan.call("DEL")
    assert result.returncode == 1
    assert "dialing" in result.output["msg"]
    assert lan.shown() == []
    refused = lan.call("ADD")
    assert (refused.returncode, lan.shown()) == (1, [])
    assert "dialing" in refused.output["msg"]
    lan.daemon.start()
    assert lan.call("DEL").ok


def test_an_add_killed_in_the_middle_is_taken_up_again_and_garbage_is_collected(lan: Lan) -> None:
    lan.wrap('sh -c "kill -9 $PPID"')
    killed = lan.call("ADD", lan.wrapped())
    assert killed.returncode == -signal.SIGKILL
    (half,) = lan.shown()
    assert lan.endpoint()["addresses"] == []
    assert lan.stack.cli("ipam", "check").returncode == 0
    lan.wrap("cat")
    conf = lan.wrapped("1.1.0")
    result = lan.call("ADD", conf)
    assert result.ok, result
    (whole,) = lan.shown()
    assert (whole["address"], whole["addr_info"][0]["local"]) == (half["address"], ADDRESS)
    assert lan.box.pings(SERVER)
    valid = [{"containerID": name, "ifname": "eth0"} for name in (lan.server.host.name, lan.box.name)]
    assert lan.call("GC", conf | {"cni.dev/valid-attachments": valid}).ok
    assert len(lan.stack.endpoints()) == 1

    def collected() -> bool:
        assert lan.call("GC", conf | {"cni.dev/valid-attachments": valid[:1]}).ok
        return lan.stack.endpoints() == []

    wait_until(collected, "the endpoint is collected once it is not quite new")


def test_what_it_cannot_be_combined_with(stack: Stack, pod: Callable[[], Pod]) -> None:
    box = pod()
    dhcp = {"cniVersion": "1.0.0", "name": "lan", "type": "ovsnet", "ipam": {"type": "dhcp"}}
    mappings = [{"hostPort": 8097, "containerPort": 80}]
    result = stack.cni("ADD", box.id, box.netns, dhcp | {"runtimeConfig": {"portMappings": mappings}})
    assert (result.returncode, result.output["code"]) == (1, 7)
    assert "no gateway" in result.output["msg"]
    conf = Stack.conf("other", subnet="10.97.1.0/24")
    box.attach(conf)
    result = stack.cni("ADD", box.id, box.netns, dhcp | {"network": "other"}, "eth1")
    assert (result.returncode, result.output["code"]) == (1, 111)
    assert box.delete(conf).ok
    assert stack.show("endpoint", "ls") == []
