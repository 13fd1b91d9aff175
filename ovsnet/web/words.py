"""How things are called on the page."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ovsnet.model import Endpoint, IPAddress, Lease, OwnerKind

_ID = re.compile(r"[0-9a-f]{64}")
_MANY = 1 << 40
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_POD = "k8s-pod-name"  # label that a Kubernetes runtime gives


def short(container: str) -> str:
    """A container as people write it: Docker's 64 digits are 12."""
    return container[:12] if _ID.fullmatch(container) else container


def name_of(endpoint: Endpoint) -> str:
    """What people call an endpoint: its pod, the first of its names on the network, or its container."""
    return endpoint.labels.get(_POD) or short(endpoint.container)


def state_of(endpoint: Endpoint) -> str:
    """`quarantined`, `not joined` (Docker made it, and no container is on it yet) or `attached`."""
    if endpoint.quarantined:
        return "quarantined"
    return "attached" if endpoint.sandbox else "not joined"


def holder(lease: Lease, endpoint: Endpoint | None) -> str:
    """Who has a lease."""
    if endpoint is not None:
        return name_of(endpoint)
    if lease.owner.kind is OwnerKind.ENDPOINT:
        return short(lease.container)
    return {
        OwnerKind.GATEWAY: "the gateway",
        OwnerKind.DOCKER: "Docker, not yet an endpoint",
        OwnerKind.RESERVED: f"kept for {lease.owner.id}",
    }.get(lease.owner.kind, lease.owner.id)


def moment(time: datetime) -> str:
    """A moment in UTC, to the second."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def size(number: int) -> str:
    """A number of addresses; in IPv6 there are more than digits help to understand, a few less than 2⁶⁴, say."""
    return f"{number:,}" if number < _MANY else f"2{str(number.bit_length()).translate(_RAISED)}"


def last(address: IPAddress) -> str:
    """An address' last part, as it is written in its whole: `.7` or `:a`."""
    separator = "." if address.version == 4 else ":"
    return separator + str(address).rpartition(separator)[2]


def day(time: datetime) -> str:
    """Its date in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d}"


def count(number: int, noun: str) -> str:
    """Such as `1 endpoint` and `1,000 endpoints`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
