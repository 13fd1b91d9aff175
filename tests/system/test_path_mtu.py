"""ICMP errors come back through the rewriting of addresses: path MTU discovery by masquerade and by published ports."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.harness import IMAGE, Dockerd, Netns, Stack, wait_until
from tests.system.containers import create_network
from tests.system.published import HOST, HOST6, OUTSIDE, OUTSIDE6, PYTHON

pytestmark = pytest.mark.usefixtures("nothing_left")

SUBNET, SUBNET6 = "10.98.1.0/24", "fd98:1::/64"
FAR, FAR6, NEAR, NEAR6 = "198.51.100.2", "2001:db8:51::2", "198.51.100.1", "2001:db8:51::1"
NARROW = 1300  # bytes: less than the container's MTU, and enough for IPv6
AMOUNT = 200_000  # bytes, many packets

# Sends AMOUNT to each that connects, then tells how much it has got.
SERVER = f"""
import socket
listener = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    link, _ = listener.accept()
    link.settimeout(10)
    try:
        link.sendall(b"x" * {AMOUNT})
        link.shutdown(socket.SHUT_WR)
        while link.recv(65536):
            pass
    except OSError:
        pass
    link.close()
"""
CLIENT = f"""
import socket, sys
link = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
link.sendall(b"x" * {AMOUNT})
link.shutdown(socket.SHUT_WR)
got = 0
while chunk := link.recv(65536):
    got += len(chunk)
print(got)
"""


KNOCK = """
import socket, sys
link = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
link.settimeout(10)
link.connect((sys.argv[1], 9))
link.send(b"?")
try:
    link.recv(9)
except OSError as error:
    print(type(error).__name__)
"""


@dataclass(frozen=True)
class Path:
    """container -- host -- outside, a router -- far, with a narrow wire at the end; a server on container and far."""

    container: Netns
    far: Netns


@pytest.fixture
def path(stack: Stack, dockerd: Dockerd, outside: Netns, netns: Callable[[], Netns]) -> Iterator[Path]:
    """The way, with no end of which knows of the narrow wire: both say that they take packets of full size."""
    far = netns()
    outside.run("ip", "link", "add", "narrow", "type", "veth", "peer", "name", "eth0", "netns", far.name)
    for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        outside.run("sysctl", "-q", "-w", f"{setting}=1")
    for where, device, address, address6 in ((outside, "narrow", NEAR, NEAR6), (far, "eth0", FAR, FAR6)):
        where.run("ip", "address", "add", f"{address}/24", "dev", device)
        where.run("ip", "address", "add", f"{address6}/64", "dev", device, "nodad")
        where.run("ip", "link", "set", device, "mtu", str(NARROW), "up")
    far.run("ip", "route", "add", "default", "via", NEAR, "advmss", "1460")
    far.run("ip", "-6", "route", "add", "default", "via", NEAR6, "advmss", "1440")
    stack.host.run("ip", "route", "add", "198.51.100.0/24", "via", OUTSIDE)
    stack.host.run("ip", "-6", "route", "add", "2001:db8:51::/64", "via", OUTSIDE6)
    create_network(dockerd, stack, "pub", SUBNET, SUBNET6)
    dockerd.docker("run", "--detach", "--name", "web", "--network", "pub", "-p", "18080:80", IMAGE)
    with ExitStack() as undo:
        for where in (container := dockerd.netns("web"), far):
            server = undo.enter_context(subprocess.Popen(where.argv(PYTHON, "-ISc", SERVER), stdin=subprocess.DEVNULL))
            undo.callback(server.kill)
            wait_until(lambda here=where: ":80 " in here.run("ss", "-Hltn").stdout, "the server listens")  # type: ignore[misc]
        yield Path(container, far)


def learned(where: Netns, address: str) -> int:
    """The path MTU to `address` that the kernel has learned there, 0 for none."""
    found: int = where.ip("route", "get", address)[0].get("metrics", [{}])[0].get("mtu", 0)
    return found


def test_errors_come_back_through_the_rewriting(path: Path) -> None:
    container, far = path.container, path.far
    (link,) = container.ip("link", "show", "eth0")
    assert link["mtu"] > NARROW
    for there, here, family in ((FAR, HOST, "-4"), (FAR6, HOST6, "-6")):
        # By masquerade, from the container: an echo request that does not fit, and a connection.
        ping = container.run("ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1400", there, check=False)
        assert ping.returncode
        assert learned(container, there) == NARROW
        container.run("ip", family, "route", "flush", "cache")
        assert learned(container, there) == 0
        assert container.run(PYTHON, "-ISc", CLIENT, there, "80", timeout=30).stdout.strip() == str(AMOUNT)
        assert learned(container, there) == NARROW
        # By a published port, to the container: its answer does not fit.
        container.run("ip", family, "route", "flush", "cache")
        assert far.run(PYTHON, "-ISc", CLIENT, here, "18080", timeout=30).stdout.strip() == str(AMOUNT)
        assert learned(container, there) == NARROW
        # A closed port of UDP refuses at once, not after a time.
        assert container.run(PYTHON, "-ISc", KNOCK, there).stdout.strip() == "ConnectionRefusedError"
