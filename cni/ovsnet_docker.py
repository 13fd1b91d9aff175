#!/usr/bin/python3 -ISE
# ovsnet CNI plugin
"""Connects a container that belongs to Docker to a Docker network, as a CNI plugin: `ovsnet-docker`.

A program of its own, which cni/install.py copies as it is: standard library only, Python 3.8. It never talks to ovsnetd: Docker
calls that in turn when the network is one of ovsnet's, and a handler of those calls that asked Docker would wait for itself.
Owns what it asks of the Docker Engine API and of the container's network namespace; docs/cni.md documents it for users, and
tests tie the constants here to that page and to cni/protocol.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import http.client
import ipaddress
import json
import os
import re
import signal
import socket
import struct
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Dict, NamedTuple, NoReturn  # noqa: UP035

JSON = Dict[str, Any]  # noqa: UP006  # evaluated, and Python 3.8 has no other one

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]  # cni.protocol.VERSIONS
SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
SOCKET = "/var/run/docker.sock"
LIMIT = 1 << 20  # bytes of stdin, as for `ovsnet`
DEADLINE = 25  # seconds for everything, as for `ovsnet`
WORK = 19  # seconds for the work, so that there is time for taking it back
UNDO = 5  # seconds for that
NEWEST_API = (1, 48)  # whose answers this reads
MAC_API = (1, 44)  # Docker 25: `connect` heeds MacAddress
IFNAME_API = (1, 48)  # Docker 28: the option below exists, for built-in drivers (moby pull request 49155)
IFNAME_OPTION = "com.docker.network.endpoint.ifname"

# Codes of docs/cni.md.
INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
CANNOT_DECODE = 6
INVALID_CONFIG = 7
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50
ADDRESS_NOT_IN_POOL = 100
NETWORK_NOT_FOUND = 103
CONFLICT = 110
ALREADY_EXISTS = 111
ADDRESS_IN_USE = 114
LINK_EXISTS = 116
ATTACHMENT_BROKEN = 118
POOL_EXHAUSTED = 121
FORBIDDEN = 130
INTERNAL = 999

# Docker has no codes of its own beside HTTP's, and gives the same one to very different things.
PHRASES = (
    ("in use", ADDRESS_IN_USE, "ask for another address, or for none"),
    ("does not belong to any", ADDRESS_NOT_IN_POOL, "ask for an address of the network's subnet"),
    ("no available ip", POOL_EXHAUSTED, "disconnect something, or make the network with a larger subnet"),
    ("(none) mode", CONFLICT, "disconnect it from `none`, or run the container on another network first"),
    ("network namespace with another", CONFLICT, "the network namespace is not the container's own"),
    ("host network", CONFLICT, "name a network that Docker makes interfaces for"),
)

KEYS = {
    "cniVersion": str,
    "name": str,
    "type": str,
    "network": str,
    "dockerSocket": str,
    "args": dict,
    "runtimeConfig": dict,
    "prevResult": dict,
    # Reserved or conventional, and for others to act on: accepted.
    "capabilities": object,
    "cniVersions": object,
    "disableCheck": object,
    "disableGC": object,
    "loadOnlyInlinedPlugins": object,
    "dns": object,
}
UNSUPPORTED = ("portMappings", "bandwidth", "ipRanges", "dns")  # capabilities that Docker has no way to carry out

IPAddress = Any  # of the module ipaddress


class Failure(Exception):
    """A CNI error: its code, what happened, and what to do about it."""

    def __init__(self, code: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class Refused(Failure):
    """Docker has answered, and did not do it."""


class Call(NamedTuple):
    """One execution: CNI_* variables, network configuration, and the version that this asks for."""

    environment: Mapping[str, str]
    config: JSON
    version: str


class Wishes(NamedTuple):
    """What ADD is asked for beside the connection: addresses (one a family), a MAC address or "", further DNS names."""

    ips: tuple[IPAddress, ...]
    mac: str
    aliases: tuple[str, ...]


# -- What is asked


def load(stdin: bytes) -> JSON:
    """The network configuration; Failure 6 if it is no JSON object, 7 if it is larger than LIMIT."""
    if len(stdin) > LIMIT:
        raise Failure(INVALID_CONFIG, "the network configuration is larger than 1 MiB", "make it smaller")
    try:
        config = json.loads(stdin, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Failure(CANNOT_DECODE, f"the network configuration is not JSON: {error}", "hand it in on stdin") from None
    if not isinstance(config, dict):
        raise Failure(CANNOT_DECODE, "the network configuration is not a JSON object", "begin it with '{'")
    return config


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def check_version(call: Call, command: str) -> None:
    """Failure 1 if the version is not ours, or has no such command."""
    if call.version not in VERSIONS:
        message = f"cniVersion {call.version[:40]!r} is not supported"
        raise Failure(INCOMPATIBLE_VERSION, message, f"supported: {', '.join(VERSIONS)}")
    since = SINCE.get(command, VERSIONS[0])
    if VERSIONS.index(call.version) < VERSIONS.index(since):
        message = f"cniVersion {call.version} has no command {command}"
        raise Failure(INCOMPATIBLE_VERSION, message, f"set cniVersion to {since} or newer")


def network_of(config: JSON) -> str:
    """The Docker network that a configuration means; Failure 7."""
    name = config.get("name")
    if not isinstance(name, str) or not name:
        raise Failure(INVALID_CONFIG, "the network configuration has no name", 'add "name": "..."')
    network = config.get("network") or name
    if not isinstance(network, str):
        raise Failure(INVALID_CONFIG, "network is not a string", "name the Docker network, or leave it out")
    if not re.match(r"[A-Za-z0-9][A-Za-z0-9_.\- ]{0,254}\Z", network):
        message = f"{network[:80]!r} cannot be a Docker network's name"
        raise Failure(INVALID_CONFIG, message, 'say "network": with a name of `docker network ls`')
    return network


def socket_of(config: JSON) -> str:
    """The path of Docker's socket; Failure 7 if it cannot be one."""
    path = config.get("dockerSocket") or SOCKET
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path or len(_bytes(path)) > 107:  # unix(7)
        message = f"dockerSocket: {str(path)[:120]!r} cannot be a socket's path"
        raise Failure(INVALID_CONFIG, message, f"absolute, as {SOCKET}, 107 bytes at most")
    return path


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def settings(environment: Mapping[str, str], config: JSON) -> Wishes:
    """What ADD is asked for; checks the whole configuration. Failure 2, 4 or 7."""
    for name, value in config.items():
        if name == "ipam" and not value:
            continue
        if name == "ipam":
            message = "ipam: addresses come from the Docker network"
            raise Failure(INVALID_CONFIG, message, "leave it out, or make the network with an --ipam-driver")
        if name not in KEYS and not name.startswith("cni.dev/"):
            close = difflib.get_close_matches(name, list(KEYS), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(KEYS))}"
            raise Failure(INVALID_CONFIG, f"unknown key {name[:80]!r}, {hint}", "docs/cni.md has the keys")
        if value is not None and not isinstance(value, KEYS.get(name, object)):
            what = "an object" if KEYS[name] is dict else "a string"
            raise Failure(INVALID_CONFIG, f"{name} is not {what}", "docs/cni.md has the keys")
    network_of(config)
    socket_of(config)
    runtime = config.get("runtimeConfig") or {}
    for name in UNSUPPORTED:
        if runtime.get(name):
            message = f"runtimeConfig.{name} is not supported: {json.dumps(runtime[name])[:200]}"
            hint = f"remove {name} from the capabilities of type ovsnet-docker, or chain a plugin that has it"
            raise Failure(UNSUPPORTED_FIELD, message, hint)
    asked = (config.get("args") or {}).get("cni")
    asked = asked if isinstance(asked, dict) else {}
    args = cni_args(environment.get("CNI_ARGS", ""))
    # Conventions: what the runtime says beats what the administrator's args say, and that beats CNI_ARGS.
    ips: tuple[IPAddress, ...] = ()
    mac = ""
    for source, place in ((runtime, "runtimeConfig"), (asked, "args.cni"), (args, "CNI_ARGS")):
        code = INVALID_ENVIRONMENT if source is args else INVALID_CONFIG
        ips = ips or _addresses(source.get("ips"), place, code)
        mac = mac or _mac(source.get("mac"), place, code)
    return Wishes(ips, mac, _aliases(runtime.get("aliases")))


def cni_args(text: str) -> JSON:
    """IP and MAC of CNI_ARGS, `KEY=VALUE;...`; other keys but K8S_POD_* only with IgnoreUnknown. Failure 4."""
    pairs = {}
    for pair in filter(None, text.split(";")):
        name, separator, value = pair.partition("=")
        if not separator:
            message = f"CNI_ARGS: {pair[:80]!r} is no pair"
            raise Failure(INVALID_ENVIRONMENT, message, "write KEY=VALUE;KEY=VALUE")
        if not name.startswith("K8S_POD_"):
            pairs[name] = value
    ips, mac = pairs.pop("IP", ""), pairs.pop("MAC", "")
    if pairs.pop("IgnoreUnknown", "").lower() not in ("1", "true") and pairs:
        message = f"CNI_ARGS: unknown key {next(iter(pairs))[:80]!r}"
        raise Failure(INVALID_ENVIRONMENT, message, "or set IgnoreUnknown=1")
    return {"ips": [ip for ip in ips.split(",") if ip], "mac": mac}


def _addresses(value: Any, place: str, code: int) -> tuple[IPAddress, ...]:
    """Addresses without their prefix lengths, which are the network's; one a family."""
    try:
        if value is not None and not isinstance(value, list):
            raise ValueError("is not a list")
        texts = value or []
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("an address is not a string")
        found = tuple(ipaddress.ip_interface(text).ip for text in texts)
        if len({address.version for address in found}) < len(found):
            raise ValueError("two addresses of one family, Docker gives one")
    except ValueError as error:
        raise Failure(code, f"{place}: ips: {str(error)[:200]}", 'write them as ["10.0.0.5"]') from None
    return found


def _mac(value: Any, place: str, code: int) -> str:
    if value is None or value == "":
        return ""
    mac = value.lower().replace("-", ":") if isinstance(value, str) else ""
    if not re.match(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z", mac) or int(mac[:2], 16) & 1 or not mac.strip("0:"):
        message = f"{place}: {str(value)[:40]!r} is not a unicast Ethernet address"
        raise Failure(code, message, "write it as 02:00:00:00:00:01")
    return mac


def _aliases(value: Any) -> tuple[str, ...]:
    """A list of names, or podman's map from networks to lists."""
    lists = list(value.values()) if isinstance(value, dict) else [value or []]
    names = [name for one in lists if isinstance(one, list) for name in one]
    if not all(isinstance(one, list) for one in lists) or not all(isinstance(name, str) and name for name in names):
        raise Failure(INVALID_CONFIG, "runtimeConfig.aliases is not a list of names", 'write ["web"]')
    return tuple(dict.fromkeys(names))


def variable(call: Call, name: str) -> str:
    """A variable that has to be set, and to be right; Failure 4."""
    value = call.environment.get(name, "")
    command = call.environment.get("CNI_COMMAND", "")
    if not value:
        raise Failure(INVALID_ENVIRONMENT, f"{name} is not set", f"{command} needs it")
    if name == "CNI_CONTAINERID" and not re.match(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,254}\Z", value):
        message = f"{name}: container ID {value[:80]!r} is not valid"
        raise Failure(INVALID_ENVIRONMENT, message, "give Docker's ID of the container, or its name")
    if name == "CNI_IFNAME" and (
        len(value.encode(errors="surrogateescape")) > 15
        or value in (".", "..", "all", "default")
        or value.startswith("-")
        or any(char in "/:%" or char.isspace() or not char.isprintable() for char in value)
    ):
        message = f"{name}: interface name {value[:80]!r} is not valid"
        hint = "1 to 15 bytes without '/', ':', '%' or white space, not beginning with '-', not 'all' or 'default'"
        raise Failure(INVALID_ENVIRONMENT, message, hint)
    return value


# -- Docker


class Unix(http.client.HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)  # the name is for the header Host, which Docker does not look at
        self._path = path

    def connect(self) -> None:
        """Connects; OSError."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Docker:
    """The Docker Engine API on a unix socket, of a version that both sides know, for WORK seconds.

    Every method raises Failure 11 if Docker does not answer, and Refused with a code for what Docker says.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._began = time.monotonic()
        self._end = self._began + WORK
        about = self._ask("GET", "/version")
        theirs, oldest = (_api(about.get(key)) for key in ("ApiVersion", "MinAPIVersion"))
        if theirs is None:
            raise Failure(TRY_AGAIN_LATER, f"what answers on {path} is not Docker", "see dockerSocket")
        self.api = max(min(theirs, NEWEST_API), oldest or (1, 24))

    def take_back(self) -> None:
        """From now on there is the time that is kept for undoing."""
        self._end = self._began + WORK + UNDO

    def container(self, ref: str) -> JSON:
        """What Docker knows of a container; Refused 3 if nothing."""
        return self._versioned("GET", f"/containers/{_quote(ref)}/json", missing=UNKNOWN_CONTAINER)

    def network(self, ref: str) -> JSON:
        """Name and Id of a network; Refused 103."""
        return self._versioned("GET", f"/networks/{_quote(ref)}", missing=NETWORK_NOT_FOUND)

    def connect(self, network: str, container: str, config: JSON) -> None:
        """`docker network connect`."""
        body = {"Container": container, "EndpointConfig": config}
        self._versioned("POST", f"/networks/{_quote(network)}/connect", body, NETWORK_NOT_FOUND)

    def disconnect(self, network: str, container: str) -> None:
        """`docker network disconnect --force`."""
        body = {"Container": container, "Force": True}
        self._versioned("POST", f"/networks/{_quote(network)}/disconnect", body, NETWORK_NOT_FOUND)

    def _versioned(self, method: str, path: str, body: JSON | None = None, missing: int = CONFLICT) -> JSON:
        return self._ask(method, "/v{}.{}{}".format(*self.api, path), body, missing)

    def _ask(self, method: str, path: str, body: JSON | None = None, missing: int = CONFLICT) -> JSON:
        hint = f"start it, or set dockerSocket; asked on {self._path}"
        link = Unix(self._path, timeout=max(0.1, self._end - time.monotonic()))
        try:
            link.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
            answer = link.getresponse()
            status, content = answer.status, answer.read()
        except PermissionError:
            raise Failure(TRY_AGAIN_LATER, f"no permission to use {self._path}", "run as root") from None
        except socket.timeout:  # noqa: UP041  # two of them before Python 3.10
            hint = "see Docker's log; whether the call was carried out is unknown: follow an ADD by DEL"
            raise Failure(TRY_AGAIN_LATER, f"no answer from Docker to {method} {path} in time", hint) from None
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise Failure(TRY_AGAIN_LATER, "Docker does not run", hint) from None
        except (OSError, http.client.HTTPException) as error:
            raise Failure(TRY_AGAIN_LATER, f"Docker broke off: {error or type(error).__name__}", hint) from None
        finally:
            link.close()
        try:
            document = json.loads(content) if content.strip() or method == "GET" else {}
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise Failure(TRY_AGAIN_LATER, f"the answer to {method} {path} is not Docker's", hint)
        if status >= 300:
            said = str(document.get("message") or f"HTTP status {status}")
            raise _refusal(status, said, missing)
        return document


def _refusal(status: int, said: str, missing: int) -> Refused:
    if status == 404:
        code = UNKNOWN_CONTAINER if "no such container" in said.lower() else missing
        return Refused(code, f"Docker: {said}", "see `docker ps` and `docker network ls`")
    for phrase, code, hint in PHRASES:
        if phrase in said.lower():
            return Refused(code, f"Docker: {said}", hint)
    codes = {400: INVALID_CONFIG, 403: CONFLICT, 409: CONFLICT}
    return Refused(codes.get(status, TRY_AGAIN_LATER), f"Docker: {said}", f"HTTP status {status}; see Docker's log")


def _api(value: Any) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)\Z", value) if isinstance(value, str) else None
    return (int(match.group(1)), int(match.group(2))) if match else None


def _quote(ref: str) -> str:
    return urllib.parse.quote(ref, safe="")


def entry_of(container: JSON, network: JSON) -> JSON | None:
    """What Docker says of a container on a network; None if it says nothing."""
    networks: dict[str, JSON] = container["NetworkSettings"].get("Networks") or {}
    found = networks.get(network["Name"])
    return next((one for one in networks.values() if one.get("NetworkID") == network["Id"]), found)


def is_connected(entry: JSON | None) -> bool:
    """Whether there is an interface: after a failed connect, and of stopped containers, Docker keeps empty entries."""
    return bool(entry and entry.get("EndpointID"))


def addresses_of(entry: JSON) -> list[tuple[Any, IPAddress | None]]:
    """Address with prefix length, and gateway or None, for each family."""
    found: list[tuple[Any, IPAddress | None]] = []
    for ip, length, gateway in (
        ("IPAddress", "IPPrefixLen", "Gateway"),
        ("GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway"),
    ):
        if entry.get(ip):
            with contextlib.suppress(ValueError):
                address = ipaddress.ip_interface(f"{entry[ip]}/{entry[length]}")
                try:
                    found.append((address, ipaddress.ip_address(entry.get(gateway) or "")))
                except ValueError:
                    found.append((address, None))
    return found


def withdraw(docker: Docker, container: str, network: JSON) -> None:
    """Disconnects, also what a failed connect has left; nothing there is success. Failure 11.

    Of a failed connect to a running container, Docker 20.10 keeps the addresses that were asked for. It would ask for them
    again when the container is restarted, and fail to. Disconnecting does not remove them, as there is no endpoint:
    connecting in their place does.
    """
    known = docker.container(container)
    entry = entry_of(known, network)
    if entry is None:
        return
    if known["State"].get("Running") and not is_connected(entry):
        docker.connect(network["Id"], container, {})
    docker.disconnect(network["Id"], container)


# -- The container's network namespace


class Link(NamedTuple):
    """A device: its names (the kernel's own first), and what of it is compared."""

    number: int
    names: tuple[str, ...]
    mac: str
    mtu: int
    up: bool


class Namespace:
    """A network namespace by its path, on a netlink socket that was made in it (rtnetlink(7)). OSError."""

    def __init__(self, path: str) -> None:
        with contextlib.ExitStack() as undo:
            there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, there)
            here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, here)
            _setns(there)
            undo.callback(_setns, here)
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(5)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def links(self) -> list[Link]:
        """All devices."""
        found = []
        for body in self._request(18, 0x300, bytes(16)):  # RTM_GETLINK, NLM_F_DUMP, struct ifinfomsg
            index, flags = struct.unpack_from("=iI", body, 4)
            attributes = dict(_attributes(body[16:]))
            others = [value for kind, value in _attributes(attributes.get(52, b"")) if kind == 53]  # IFLA_PROP_LIST
            names = tuple(os.fsdecode(value.rstrip(b"\0")) for value in [attributes[3], *others])
            mac = ":".join(f"{byte:02x}" for byte in attributes.get(1, b""))
            mtu = int.from_bytes(attributes.get(4, b""), "little" if struct.pack("=H", 1)[0] else "big")
            found.append(Link(index, names, mac, mtu, bool(flags & 1)))
        return found

    def addresses(self, link: Link) -> list[Any]:
        """Addresses of a device, with prefix lengths."""
        found = []
        for body in self._request(22, 0x300, bytes(8)):  # RTM_GETADDR, struct ifaddrmsg
            _, length, _, _, index = struct.unpack_from("=BBBBI", body)
            attributes = dict(_attributes(body[8:]))
            address = attributes.get(2, attributes.get(1))  # IFA_LOCAL, and IFA_ADDRESS where that is not there
            if index == link.number and address:
                found.append(ipaddress.ip_interface((address, length)))
        return found

    def routes(self, link: Link) -> list[tuple[Any, IPAddress | None]]:
        """Destination and next hop (or None) of the main table's routes by a device, without those that addresses make."""
        found = []
        for body in self._request(26, 0x300, bytes(12)):  # RTM_GETROUTE, struct rtmsg
            family, length, _, _, table, protocol, _, kind = struct.unpack_from("=8B", body)
            attributes = dict(_attributes(body[12:]))
            ours = attributes.get(4) == struct.pack("=i", link.number)  # RTA_OIF
            # RT_TABLE_MAIN, not RTPROT_KERNEL, RTN_UNICAST
            if ours and table == 254 and protocol != 2 and kind == 1 and family in (socket.AF_INET, socket.AF_INET6):
                default = bytes(4 if family == socket.AF_INET else 16)
                destination = ipaddress.ip_network((attributes.get(1, default), length))
                found.append((destination, ipaddress.ip_address(attributes[5]) if 5 in attributes else None))
        return found

    def add_name(self, link: Link, name: str) -> None:
        """A further name for a device, by which the kernel finds it as well (since Linux 5.5)."""
        self._name(108, 0xE00, link, name)  # RTM_NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND

    def remove_name(self, link: Link, name: str) -> None:
        """The opposite of `add_name`."""
        self._name(109, 0, link, name)  # RTM_DELLINKPROP

    def _name(self, kind: int, flags: int, link: Link, name: str) -> None:
        value = os.fsencode(name) + b"\0"
        inner = struct.pack("=HH", 4 + len(value), 53) + value + bytes(-len(value) % 4)
        outer = struct.pack("=HH", 4 + len(inner), 52 | 0x8000) + inner  # NLA_F_NESTED
        list(self._request(kind, flags | 4, struct.pack("=BxHiII", 0, 0, link.number, 0, 0) + outer))  # NLM_F_ACK

    def _request(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        """The bodies of all messages of the answer."""
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags | 1, 1, 0) + body)
        while True:
            data = self._socket.recv(1 << 18)
            while data:
                length, answer = struct.unpack_from("=IH", data)
                if answer == 2:  # NLMSG_ERROR, also as the acknowledgement
                    (error,) = struct.unpack_from("=i", data, 16)
                    if error:
                        raise OSError(-error, os.strerror(-error))
                if answer in (2, 3):  # NLMSG_DONE
                    return
                yield data[16:length]
                data = data[(length + 3) & ~3 :]


def _setns(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000):  # CLONE_NEWNET; os.setns is younger
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


@contextlib.contextmanager
def inside(path: str) -> Iterator[Namespace]:
    """The namespace at `path`. Failure 130 without the permission, 4 if it is none, 11 for what fails in it."""
    try:
        namespace = Namespace(path)
    except PermissionError:
        raise Failure(FORBIDDEN, f"no permission to enter {path}", "run as root") from None
    except (OSError, ValueError) as error:
        raise Failure(
            INVALID_ENVIRONMENT, f"{path[:200]} is not a network namespace: {error}", "see CNI_NETNS"
        ) from None
    try:
        yield namespace
    except PermissionError:
        raise Failure(FORBIDDEN, f"no permission to change {path}", "run as root") from None
    except OSError as error:
        raise Failure(TRY_AGAIN_LATER, f"netlink in {path[:200]}: {error}", "see whether the container runs") from None
    finally:
        namespace.close()


def sandbox_of(container: JSON) -> str:
    """A path of a container's network namespace that exists here; "" if none does."""
    # Docker's own path first: the process may have another number here than where Docker runs.
    paths = [container["NetworkSettings"].get("SandboxKey") or "", f"/proc/{container['State'].get('Pid') or 0}/ns/net"]
    return next((path for path in paths if path and os.path.exists(path)), "")


def check_netns(path: str, container: JSON) -> None:
    """Failure 4 unless `path` is the container's network namespace."""
    name = str(container.get("Name", "")).lstrip("/")
    sandbox = sandbox_of(container)
    if not sandbox:
        message = f"the network namespace of container {name} is not visible here"
        raise Failure(INVALID_ENVIRONMENT, message, "run the plugin where Docker runs")
    try:
        given, own = os.stat(path), os.stat(sandbox)
    except (OSError, ValueError) as error:
        raise Failure(INVALID_ENVIRONMENT, f"CNI_NETNS: {error}", f"the container's is {sandbox}") from None
    if (given.st_dev, given.st_ino) != (own.st_dev, own.st_ino):
        message = f"CNI_NETNS {path[:200]} is not the network namespace of container {name}"
        raise Failure(INVALID_ENVIRONMENT, message, f"that is {sandbox}; see CNI_CONTAINERID as well")


def find_link(namespace: Namespace, entry: JSON) -> Link | None:
    """The device that Docker made for an entry: the one with its MAC address and its addresses."""
    wanted = [address for address, _ in addresses_of(entry)]
    for link in namespace.links():
        if entry.get("MacAddress") in ("", None, link.mac):
            present = namespace.addresses(link)
            if (wanted or entry.get("MacAddress")) and all(address in present for address in wanted):
                return link
    return None


def named(links: list[Link], name: str) -> Link | None:
    """The device that has the name, as its own or as a further one."""
    return next((link for link in links if name in link.names), None)


# -- The commands


def add(call: Call) -> JSON:
    """ADD: `docker network connect`, unless that has been done; the result."""
    ref, ifname, netns = (variable(call, f"CNI_{name}") for name in ("CONTAINERID", "IFNAME", "NETNS"))
    wishes = settings(call.environment, call.config)
    if call.config.get("prevResult") is not None:
        message = "ovsnet-docker cannot come after another plugin: Docker makes an interface of its own"
        raise Failure(INVALID_CONFIG, message, "put it first in the list of plugins")
    docker = Docker(socket_of(call.config))
    container = docker.container(ref)
    check_running(container)
    check_netns(netns, container)
    network = docker.network(network_of(call.config))
    with inside(netns) as namespace, contextlib.ExitStack() as undo:
        entry = entry_of(container, network)
        if not is_connected(entry):
            entry = connect(docker, container, network, wishes, ifname, namespace, undo)
        if entry is None:
            message = f"Docker has connected the container to {network['Name']}, and now it is not"
            raise Failure(ATTACHMENT_BROKEN, message, "see Docker's log")
        check_wishes(entry, wishes, network["Name"])
        link = find_link(namespace, entry)
        if link is None:
            message = f"the container has no interface with the addresses that Docker tells for {network['Name']}"
            raise Failure(ATTACHMENT_BROKEN, message, "see Docker's log, and `ip address` in the container")
        give_name(namespace, link, ifname, undo)
        result = render(entry, link, ifname, netns, namespace.routes(link), call.version)
        undo.pop_all()
    return result


def check_running(container: JSON) -> None:
    """Failure 110 if the container does not run."""
    if not container["State"].get("Running"):
        name = str(container.get("Name", "")).lstrip("/")
        message = f"container {name} does not run: it is {container['State'].get('Status', 'stopped')}"
        raise Failure(CONFLICT, message, "start it first: without a network namespace it has no interfaces")


def connect(
    docker: Docker,
    container: JSON,
    network: JSON,
    wishes: Wishes,
    ifname: str,
    namespace: Namespace,
    undo: contextlib.ExitStack,
) -> JSON | None:
    """Connects, with its opposite in `undo`; the new entry."""
    taken = named(namespace.links(), ifname)
    if taken is not None:
        entry = entry_of(docker.container(container["Id"]), network)
        if is_connected(entry):
            return entry  # the same ADD has run beside this one, and has given the name
        raise _taken(ifname, taken)
    if wishes.mac and docker.api < MAC_API:
        message = f"MAC address {wishes.mac} is asked for, which this Docker ignores"
        raise Failure(UNSUPPORTED_FIELD, message, "ask for none, or use Docker 25 or newer")
    config: JSON = {}
    if wishes.ips:
        config["IPAMConfig"] = {f"IPv{address.version}Address": str(address) for address in wishes.ips}
    if wishes.aliases:
        config["Aliases"] = list(wishes.aliases)
    if wishes.mac:
        config["MacAddress"] = wishes.mac
    if docker.api >= IFNAME_API:
        config["DriverOpts"] = {IFNAME_OPTION: ifname}

    def back() -> None:
        docker.take_back()
        with contextlib.suppress(Failure):  # the first failure is the one to tell; DEL, which follows it, tries again
            withdraw(docker, container["Id"], network)

    undo.callback(back)
    try:
        docker.connect(network["Id"], container["Id"], config)
    except Refused:
        entry = entry_of(docker.container(container["Id"]), network)
        if not is_connected(entry):
            raise
        undo.pop_all()  # the same ADD has run beside this one: the connection is its
        return entry
    return entry_of(docker.container(container["Id"]), network)


def check_wishes(entry: JSON, wishes: Wishes, network: str) -> None:
    """Failure 110 if the container is connected otherwise than asked for, 2 for another MAC address."""
    present = {address.ip for address, _ in addresses_of(entry)}
    hint = "disconnect it first, or do not ask"
    for address in wishes.ips:
        if address not in present:
            has = ", ".join(map(str, sorted(present, key=str))) or "no address"
            message = f"{address} is asked for, and the container is on {network} with {has}"
            raise Failure(CONFLICT, message, hint)
    if wishes.mac and wishes.mac != entry.get("MacAddress"):
        message = f"MAC address {wishes.mac} is asked for, and Docker gave {entry.get('MacAddress')}"
        raise Failure(UNSUPPORTED_FIELD, message, hint)
    missing = [alias for alias in wishes.aliases if alias not in (entry.get("Aliases") or [])]
    if missing:
        message = f"alias {missing[0][:80]!r} is asked for, and the container is on {network} without it"
        raise Failure(CONFLICT, message, hint)


def give_name(namespace: Namespace, link: Link, ifname: str, undo: contextlib.ExitStack) -> None:
    """Lets the device be found by the name that is asked for; Failure 111 or 116.

    Docker finds it by the name that it chose, when it disconnects, so that one stays and the other one comes in addition.
    """
    if ifname in link.names:
        return
    taken = named(namespace.links(), ifname)
    if taken is not None and taken.number == link.number:
        return  # as above
    if taken is not None:
        raise _taken(ifname, taken)
    if link.names[1:]:
        message = f"the container is on this network already, as {link.names[1]} ({link.names[0]})"
        raise Failure(ALREADY_EXISTS, message, "Docker connects a container to a network once")
    own, asked = (re.match(r"(.*?)(\d+)\Z", name) for name in (link.names[0], ifname))
    if own and asked and own.group(1) == asked.group(1) and int(own.group(2)) < int(asked.group(2)):
        message = f"Docker called the interface {link.names[0]}, and is going to call another one {ifname}"
        raise Failure(
            LINK_EXISTS, message, f"ask for {link.names[0]}, or for a name that is not Docker's, such as net1"
        )
    with inside("/proc/thread-self/ns/net") as host:
        # Docker's own disconnect moves the device to the host, where every name of it has to be free, or it stays.
        if named(host.links(), ifname) is not None:
            message = f"the host has a device {ifname}, so Docker could not disconnect one that has this name too"
            raise Failure(LINK_EXISTS, message, f"ask for {link.names[0]}, or for another name, such as net1")
    try:
        namespace.add_name(link, ifname)
    except FileExistsError:
        taken = named(namespace.links(), ifname)
        if taken is not None and taken.number == link.number:
            return  # as above
        raise _taken(ifname, taken or link) from None
    undo.callback(_unname, namespace, link, ifname)


def _unname(namespace: Namespace, link: Link, name: str) -> None:
    with contextlib.suppress(OSError):  # it may be gone with its device
        namespace.remove_name(link, name)


def _taken(ifname: str, link: Link) -> Failure:
    return Failure(
        LINK_EXISTS,
        f"the container has another interface {ifname}" + (f" ({link.names[0]})" if link.names[0] != ifname else ""),
        "give CNI_IFNAME another name",
    )


def render(
    entry: JSON, link: Link, ifname: str, netns: str, routes: list[tuple[Any, IPAddress | None]], version: str
) -> JSON:
    """ADD's result in the version asked for, in the shapes of cni.protocol.render."""
    order = VERSIONS.index(version)
    result: JSON = {"cniVersion": version}
    shown = [{"dst": str(dst), **_gateway("gw", gateway)} for dst, gateway in routes]
    if order < VERSIONS.index("0.3.0"):
        for address, gateway in addresses_of(entry):
            own = [one for one, (dst, _) in zip(shown, routes) if dst.version == address.version]  # noqa: B905  # 3.8
            result[f"ip{address.version}"] = {"ip": str(address), **_gateway("gateway", gateway), "routes": own}
        return {**result, "dns": {}}
    interface: JSON = {"name": ifname, "mac": link.mac, "sandbox": netns}
    if order >= VERSIONS.index("1.1.0"):
        interface["mtu"] = link.mtu
    ips = []
    for address, gateway in addresses_of(entry):
        ip: JSON = {"version": str(address.version)} if order < VERSIONS.index("1.0.0") else {}
        ips.append({**ip, "address": str(address), "interface": 0, **_gateway("gateway", gateway)})
    return {**result, "interfaces": [interface], "ips": ips, "routes": shown, "dns": {}}


def _gateway(key: str, gateway: IPAddress | None) -> JSON:
    return {} if gateway is None else {key: str(gateway)}


def delete(call: Call) -> None:
    """DEL: `docker network disconnect`; what is missing already is success."""
    ref, ifname = (variable(call, f"CNI_{name}") for name in ("CONTAINERID", "IFNAME"))
    name = network_of(call.config)
    docker = Docker(socket_of(call.config))
    try:
        container = docker.container(ref)
        network = {"Name": name, "Id": name}  # a stopped container's entry outlives its network
        with _gone_is_fine(NETWORK_NOT_FOUND):
            network = docker.network(name)
        entry = entry_of(container, network)
        if is_connected(entry) and not release_name(container, entry or {}, ifname):
            return
        withdraw(docker, container["Id"], network)
    except Refused as refused:
        if refused.code == UNKNOWN_CONTAINER:
            return
        # Also refused is what has been done meanwhile: what counts is how things are now.
        with _gone_is_fine(UNKNOWN_CONTAINER):
            if is_connected(entry_of(docker.container(ref), network)):
                raise


@contextlib.contextmanager
def _gone_is_fine(code: int) -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        if refused.code != code:
            raise


def release_name(container: JSON, entry: JSON, ifname: str) -> bool:
    """Takes the further name away that ADD gave; False if the interface has another ADD's and is not to be touched.

    Without it, Docker can move the device to the host also when that has a device of the name.
    """
    try:
        with inside(sandbox_of(container)) as namespace:
            link = find_link(namespace, entry)
            if link is None:
                return True
            if link.names[1:] and ifname not in link.names:
                return False
            if ifname in link.names[1:]:
                namespace.remove_name(link, ifname)
    except Failure:
        pass  # DEL does without the namespace: Docker may live in another one than this process
    return True


def check(call: Call) -> None:
    """CHECK: Failure with the first difference between Docker, the interface, and the result of ADD."""
    ref, ifname, netns = (variable(call, f"CNI_{name}") for name in ("CONTAINERID", "IFNAME", "NETNS"))
    mac, ips, routes = previous(call.config, ifname)
    docker = Docker(socket_of(call.config))
    container = docker.container(ref)
    check_running(container)
    check_netns(netns, container)
    network = docker.network(network_of(call.config))
    entry = entry_of(container, network)
    if entry is None or not is_connected(entry):
        message = f"container {ref} is not connected to the Docker network {network['Name']}"
        raise Failure(UNKNOWN_CONTAINER, message, "DEL, then ADD")
    told = {address for address, _ in addresses_of(entry)}
    with inside(netns) as namespace:
        link = named(namespace.links(), ifname)
        differences = [(link is None, f"there is no interface {ifname} in the container: was that restarted?")]
        if link is not None:
            present, ways = namespace.addresses(link), namespace.routes(link)
            differences = [
                (not link.up, f"interface {ifname} is down"),
                (bool(mac) and mac != link.mac, f"interface {ifname} has MAC address {link.mac}, and had {mac}"),
                *((ip not in told, f"Docker does not give the container {ip} any more") for ip in ips),
                *((ip not in present, f"interface {ifname} does not have address {ip}") for ip in ips),
                *((way not in ways, f"there is no route to {way[0]} via {way[1]} on {ifname}") for way in routes),
            ]
    for differs, message in differences:
        if differs:
            raise Failure(ATTACHMENT_BROKEN, message, "DEL, then ADD")


def previous(config: JSON, ifname: str) -> tuple[str, list[Any], list[tuple[Any, IPAddress]]]:
    """MAC address or "", addresses and routes (by next hops on them) of our interface in `prevResult`; Failure 7."""
    result = config.get("prevResult")
    if not isinstance(result, dict):
        raise Failure(INVALID_CONFIG, "CHECK without prevResult", "runtimes hand over the result of the last ADD")
    try:
        interfaces = result.get("interfaces") or []
        ours = [n for n, one in enumerate(interfaces) if one.get("name") == ifname and one.get("sandbox")]
        mac = interfaces[ours[0]].get("mac") or "" if ours else ""
        ips = [
            ipaddress.ip_interface(str(one["address"]))
            for one in result.get("ips") or []
            if one.get("interface") is None or one["interface"] in ours
        ]
        ways = [
            (ipaddress.ip_network(str(one["dst"]), strict=False), ipaddress.ip_address(str(one["gw"])))
            for one in result.get("routes") or []
            if one.get("gw")
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"prevResult is no result of ADD: {type(error).__name__}: {str(error)[:200]}"
        raise Failure(INVALID_CONFIG, message, "hand over what ADD printed") from None
    # Others are another interface's, of another plugin of the chain.
    return str(mac).lower(), ips, [way for way in ways if any(way[1] in ip.network for ip in ips)]


def collect_garbage(call: Call) -> None:
    """GC touches nothing: Docker ends its endpoints itself with their containers, and which are ours it does not tell."""
    network_of(call.config)


def status(call: Call) -> None:
    """STATUS: Failure 50 if Docker does not answer, or has no such network."""
    network = network_of(call.config)
    try:
        Docker(socket_of(call.config)).network(network)
    except Failure as failure:
        if failure.code not in (TRY_AGAIN_LATER, NETWORK_NOT_FOUND):
            raise
        raise Failure(NOT_AVAILABLE, failure.message, failure.hint) from None


def versions(call: Call) -> JSON:
    """VERSION."""
    return {"cniVersion": call.version, "supportedVersions": VERSIONS}


COMMANDS: dict[str, Callable[[Call], JSON | None]] = {
    "ADD": add,
    "DEL": delete,
    "CHECK": check,
    "GC": collect_garbage,
    "STATUS": status,
    "VERSION": versions,
}


def answer(environment: Mapping[str, str], stdin: bytes) -> tuple[int, bytes]:
    """Exit status and output of one execution."""
    version = VERSIONS[-1]  # of an error in a configuration whose version cannot be read
    try:
        command = environment.get("CNI_COMMAND", "")
        if not command:
            raise Failure(INVALID_ENVIRONMENT, "CNI_COMMAND is not set", "container runtimes execute this plugin")
        config = load(stdin)
        asked = config.get("cniVersion", VERSIONS[0])
        if not isinstance(asked, str):
            hint = f'write "cniVersion": "{VERSIONS[-1]}"'
            raise Failure(INVALID_CONFIG, "cniVersion is not a string", hint)
        version = asked
        run = COMMANDS.get(command)
        if run is None:
            message = f"CNI_COMMAND {command[:40]!r} is not one"
            raise Failure(INVALID_ENVIRONMENT, message, f"known: {', '.join(COMMANDS)}")
        call = Call(environment, config, version)
        if command != "VERSION":
            check_version(call, command)
        result = run(call)
    except Failure as failure:
        document = {"cniVersion": version, "code": failure.code, "msg": failure.message, "details": failure.hint}
        return 1, json.dumps(document).encode()
    return 0, b"" if result is None else json.dumps(result).encode()


def late(*_: object) -> NoReturn:
    """Ends whatever waits when the deadline is over."""
    raise TimeoutError


def main() -> int:
    """One execution, from environment and stdin to stdout; the exit status."""
    signal.signal(signal.SIGALRM, late)
    signal.alarm(DEADLINE)
    stdin = b""
    try:
        try:
            while "CNI_COMMAND" in os.environ and len(stdin) <= LIMIT:  # without it nobody is going to write to stdin
                chunk = os.read(0, 65536)
                if not chunk:
                    break
                stdin += chunk
        except TimeoutError:
            raise
        except OSError as error:
            code, output = 1, _defect(IO_FAILURE, f"stdin cannot be read: {error}", "hand in the configuration there")
        else:
            code, output = answer(os.environ, stdin)
    except TimeoutError:
        hint = "see Docker's log; whether the call was carried out is unknown: follow an ADD by DEL"
        code, output = 1, _defect(TRY_AGAIN_LATER, f"not done within {DEADLINE} s", hint)
    except Exception as error:  # noqa: BLE001  # a runtime reads JSON, not tracebacks
        code, output = 1, _defect(INTERNAL, f"internal error: {type(error).__name__}: {error}", "please report it")
    signal.alarm(0)
    while output:
        output = output[os.write(1, output) :]
    return code


def _defect(code: int, message: str, hint: str) -> bytes:
    return json.dumps({"cniVersion": VERSIONS[-1], "code": code, "msg": message, "details": hint}).encode()


if __name__ == "__main__":
    os._exit(main())
