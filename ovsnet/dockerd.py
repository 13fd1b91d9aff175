"""What is known of this host's dockerd: which of its incarnations call us, and what it says of itself by its own API.

Owns the identity that Docker's pools, leases and endpoints are marked with, and the only code that speaks Docker's API.
Called by the use cases of Docker's driver (identities) and by the reaper (all of it), never while Docker waits for an answer.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from .errors import OvsnetError, Unavailable
from .model import IPAddress, IPNetwork

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT_DIGITS = 8  # of the boot id; enough to tell a host's boots from each other
_API_SECONDS = 5.0  # for one answer of Docker's API
_API_BYTES = 64 << 20  # more than 100,000 containers of one network take


def start_time(pid: int | str) -> int | None:
    """When a process started, in clock ticks since boot (field 22 of /proc/<pid>/stat, proc(5)); None if it is gone."""
    try:
        stat = Path("/proc", str(pid), "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the command's name in parentheses, may itself hold blanks and parentheses; the third follows it.
    return int(stat.rpartition(b")")[2].split()[22 - 3])


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One run of a dockerd: process id, start in clock ticks since boot, first digits of the boot id, and node.

    Stored as `pid:start@boot/node`: two hosts of one make, or two boots of one host, may well agree in the first two.
    """

    pid: int
    start: int
    boot: str
    node: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """From the stored form; None for anything else, such as the "" of a dockerd that could not be told."""
        process, at, place = text.partition("@")
        pid, _, start = process.partition(":")
        boot, slash, node = place.partition("/")
        return cls(int(pid), int(start), boot, node) if at and slash and pid.isdigit() and start.isdigit() else None

    def __str__(self) -> str:
        return f"{self.pid}:{self.start}@{self.boot}/{self.node}"


class Callers:
    """The incarnations that call us. Thread-safe."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._boot = BOOT_ID.read_text().strip()[:_BOOT_DIGITS]
        self._since = start_time("self") or 0
        self._lock = threading.Lock()
        self._latest: Incarnation | None = None
        self._doubtful: set[Incarnation] = set()

    @contextmanager
    def heard(self, requester: str) -> Iterator[str]:
        """The identity, as it is stored, of the dockerd `pid:start` whose call is answered inside; "" if that is not known.

        A call that fails by our fault leaves a doubt: Docker may hold what we do not know of.
        """
        pid, _, start = requester.partition(":")
        if not start:
            yield ""
            return
        caller = Incarnation(int(pid), int(start), self._boot, self._node)
        with self._lock:
            self._latest = caller
        try:
            yield str(caller)
        except Exception as exc:
            if isinstance(exc, Unavailable) or not isinstance(exc, OvsnetError):  # the latter is a defect
                self.doubt(str(caller))
            raise

    def doubt(self, identity: str) -> None:
        """The dockerd of that identity, as it is stored, may hold what we do not know of."""
        one = Incarnation.parse(identity)
        if one is not None:
            with self._lock:
                self._doubtful.add(one)

    def alive(self, one: Incarnation) -> bool:
        """Whether that dockerd, of this host, still runs."""
        return (one.node, one.boot) == (self._node, self._boot) and start_time(one.pid) == one.start

    def present(self) -> Incarnation | None:
        """Who called last, if it still runs."""
        with self._lock:
            latest = self._latest
        return latest if latest is not None and self.alive(latest) else None

    def whole(self, one: Incarnation) -> bool:
        """Whether all that it has ever told was heard: it began after us, and no call of it has failed by our fault."""
        with self._lock:
            return one.start > self._since and one not in self._doubtful


@dataclass(frozen=True, slots=True)
class DockerNetwork:
    """A network as Docker knows it. `addresses` are its gateways, auxiliary addresses and endpoints' addresses."""

    driver: str
    ipam_driver: str
    subnets: frozenset[IPNetwork]
    addresses: frozenset[IPAddress]
    endpoints: frozenset[str]  # ids


class DockerApi:
    """Docker's own API on a unix socket, of which only GET is used (Docker Engine API, `/networks`)."""

    def __init__(self, path: Path, driver: str) -> None:
        self._path = path
        self._driver = driver

    def networks(self) -> Mapping[str, DockerNetwork]:
        """All networks by id; the details only of those that `driver` makes or gives addresses to. Unavailable."""
        found = {}
        try:
            with closing(self._connect()) as connection:
                for short in self._get(connection, "/networks"):
                    network = short
                    if self._driver in (short["Driver"], short["IPAM"]["Driver"]):
                        network = self._get(connection, f"/networks/{quote(short['Id'])}")
                    found[str(network["Id"])] = _network(network)
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise Unavailable(
                f"Docker does not tell its networks on {self._path}: {exc!r}",
                hint="start dockerd, or correct docker_api in the settings",
            ) from exc
        return found

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(_API_SECONDS)
        try:
            connection.sock.connect(str(self._path))
        except OSError:
            connection.close()
            raise
        return connection

    def _get(self, connection: http.client.HTTPConnection, path: str) -> Any:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(_API_BYTES)
        if response.status != http.HTTPStatus.OK:
            # Also for a network that has gone since it was listed: the picture would have a hole.
            raise ValueError(f"{path}: {response.status} {body[:200].decode(errors='replace')}")
        return json.loads(body)


def _network(told: Mapping[str, Any]) -> DockerNetwork:
    configs = told["IPAM"].get("Config") or []
    containers = (told.get("Containers") or {}).values()
    texts = [config.get("Gateway") for config in configs]
    texts += [one for config in configs for one in (config.get("AuxiliaryAddresses") or {}).values()]
    texts += [container.get(key) for container in containers for key in ("IPv4Address", "IPv6Address")]
    return DockerNetwork(
        driver=told["Driver"],
        ipam_driver=told["IPAM"]["Driver"],
        subnets=frozenset(ipaddress.ip_network(config["Subnet"]) for config in configs if config.get("Subnet")),
        addresses=frozenset(ipaddress.ip_interface(text).ip for text in texts if text),
        endpoints=frozenset(container["EndpointID"] for container in containers),
    )
