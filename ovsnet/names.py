"""Names that ovsnet derives or accepts: interface names, MAC addresses, identifiers from outside.

Pure. An interface name has 15 bytes at most (IFNAMSIZ - 1, netdevice(7)), so derived ones are a short prefix, a letter for the
role, and hexadecimal digits of a hash or of the system's random source. The prefix tells our devices from everybody else's
in `ip link`, and keeps two controllers on one host (or two test runs) apart.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from dataclasses import dataclass

from .errors import InvalidRequest

IFNAME_MAX = 15

_PREFIX = re.compile(r"[a-z][a-z0-9]{0,3}\Z")
# CNI SPEC 1.1.0, section 2 "CNI_CONTAINERID": starts with an alphanumeric, then alphanumerics, '_', '.' and '-'.
_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,254}\Z")
# CNI SPEC 1.1.0, section 1 gives network names the same alphabet.
_NETWORK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}\Z")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")


@dataclass(frozen=True, slots=True)
class DeviceNames:
    """Device names of one controller; `prefix` is one to four lower-case letters or digits."""

    prefix: str = "on"

    def __post_init__(self) -> None:
        if not _PREFIX.match(self.prefix):
            raise InvalidRequest(
                f"device prefix {self.prefix!r} is not one to four lower-case letters or digits",
                hint="set device_prefix to something like 'on'",
            )

    def new_port(self) -> str:
        """A fresh name for a switch port (its internal interface carries the same): `onp` and ten digits."""
        return f"{self.prefix}p{secrets.token_hex(5)}"

    def new_doomed_link(self) -> str:
        """A fresh name for a container link that is about to be deleted; frees the name it had at once."""
        return f"{self.prefix}x{secrets.token_hex(5)}"

    def is_doomed(self, name: str) -> bool:
        """Whether that is one of `new_doomed_link`."""
        return name.startswith(f"{self.prefix}x")

    def gateway(self, network_uuid: str) -> str:
        """The host's internal port that carries a network's gateway addresses; the same for the same network."""
        return f"{self.prefix}g{_digest(network_uuid)}"

    def docker_link(self, port: str) -> str:
        """The container link on that port as Docker finds it in the host's namespace, before it moves and renames it."""
        return f"{self.prefix}c{port.removeprefix(self.prefix + 'p')}"

    @property
    def port_pattern(self) -> str:
        """nftables wildcard that matches every switch port of ours."""
        return f"{self.prefix}p*"

    @property
    def gateway_pattern(self) -> str:
        """nftables wildcard that matches every gateway port of ours."""
        return f"{self.prefix}g*"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def mac_for(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """A locally administered unicast MAC derived from an address, so that neighbours' caches stay right on reuse.

    IPv4: `02:6f` and the four octets, unique wherever the address is. IPv6: `06` and 40 bits of a hash of the address.
    """
    if isinstance(address, ipaddress.IPv4Address):
        raw = b"\x02\x6f" + address.packed
    else:
        raw = b"\x06" + hashlib.sha256(address.packed).digest()[:5]
    return ":".join(f"{byte:02x}" for byte in raw)


def mac_of(key: str) -> str:
    """A locally administered unicast MAC for an endpoint that has no address yet: `0a` and 40 bits of a hash of its key."""
    return ":".join(f"{byte:02x}" for byte in b"\x0a" + hashlib.sha256(key.encode()).digest()[:5])


def check_container_id(value: str) -> str:
    """`value` if it is a container ID by the CNI specification, else InvalidRequest."""
    if not _CONTAINER_ID.match(value):
        raise InvalidRequest(
            f"container ID {value[:80]!r} is not valid",
            hint="it starts with a letter or digit and holds only letters, digits, '_', '.' and '-'",
        )
    return value


def check_network_name(value: str) -> str:
    """`value` if it can name a network or a pool, else InvalidRequest."""
    if not _NETWORK_NAME.match(value):
        raise InvalidRequest(
            f"name {value[:80]!r} is not valid",
            hint="it starts with a letter or digit and holds only letters, digits, '_', '.' and '-', 128 at most",
        )
    return value


def check_reservation(value: str) -> str:
    """`value` if an address can be reserved for it: printable, 1 to 253 characters (a pod is `namespace/name`)."""
    if not 0 < len(value) <= 253 or not value.isprintable() or value.startswith("-"):
        raise InvalidRequest(
            f"name {value[:80]!r} cannot hold a reservation",
            hint="use 1 to 253 printable characters, not beginning with '-'",
        )
    return value


def check_ifname(value: str) -> str:
    """`value` if the kernel takes it as an interface name (dev_valid_name) and tools do not take it for an option."""
    encoded = value.encode(errors="surrogateescape")
    bad = (
        not encoded
        or len(encoded) > IFNAME_MAX
        or value in {".", "..", "all", "default"}  # the last two: /proc/sys/net means every interface by them
        or value.startswith("-")
        or any(char in "/:%" or char.isspace() or not char.isprintable() for char in value)
    )
    if bad:
        raise InvalidRequest(
            f"interface name {value[:80]!r} is not valid",
            hint="1 to 15 bytes without '/', ':', '%' or white space, not beginning with '-', not 'all' or 'default'",
        )
    return value


def check_mac(value: str) -> str:
    """`value` in lower case if it is a unicast MAC address such as `02:00:00:00:00:01`, else InvalidRequest."""
    mac = value.lower().replace("-", ":")
    if not _MAC.match(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise InvalidRequest(
            f"MAC address {value[:40]!r} is not a unicast Ethernet address", hint="write it as 02:00:00:00:00:01"
        )
    return mac
