"""Which ports of this host its own processes have: Docker's users expect that such a port is refused."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import Exhausted
from ..model import Protocol, PublishedPort

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")  # ip-sysctl.txt in the kernel's documentation; also IPv6's
_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


def in_use(port: PublishedPort) -> bool:
    """Whether a process of this host has that port, on an address by which it is to be published.

    Found by binding it. SCTP, whose sockets hardly any kernel has, counts as free.
    """
    kind = _KINDS.get(port.protocol)
    return kind is not None and any(_bound(kind, version, port) for version in port.versions)


def _bound(kind: int, version: int, port: PublishedPort) -> bool:
    address = "" if port.host_address is None else str(port.host_address)  # "": all of the host's
    try:
        with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind) as probe:
            if version == 6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                # Connections that are ending do not count; who listens does all the same (socket(7)).
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port.host_port))
    except OSError as exc:
        return exc.errno == errno.EADDRINUSE  # anything else: the host has no such address, or family, now
    return False


def first_free(candidates: range, usable: Callable[[int], bool]) -> int:
    """The first port of `candidates` that is `usable`, or of the host's ephemeral range if that is empty; Exhausted."""
    numbers: Iterator[int] | range = candidates or _ephemeral()
    for number in numbers:
        if usable(number):
            return number
    raise Exhausted("all ports of the range are in use", hint="publish on other ports")


def _ephemeral() -> Iterator[int]:
    """The ports from which the kernel serves who asks for any, from a random one on."""
    first, last = map(int, _RANGE.read_text(encoding="ascii").split())
    start = random.randint(first, last)  # noqa: S311  # spreads, hides nothing
    yield from range(start, last + 1)
    yield from range(first, start)
