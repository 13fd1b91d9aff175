"""The error tree: every failure that ovsnet reports, with its stable code.

Codes are part of the public interface: they stand in REST problem documents, in the CLI's `-o json` errors and in logs, and
each edge (REST, CNI, CNM) has exactly one table from code to its own protocol. Whoever raises says what happened in the
message and what to do about it in the hint; nobody catches an error to drop it.

    OvsnetError
     +- InvalidRequest          invalid-request        the caller's input is wrong
     |   +- InvalidNetns        invalid-netns          the path is no network namespace that we may use
     |   +- AddressNotInPool    address-not-in-pool    the address asked for lies outside the pool, or is not assignable
     |   +- KeyReused           key-reused             the Idempotency-Key came with another request before
     |   +- PreconditionMissing precondition-missing   the change must say by If-Match which state it is for
     +- NotFound                not-found
     |   +- PoolNotFound        pool-not-found
     |   +- NetworkNotFound     network-not-found
     |   +- EndpointNotFound    endpoint-not-found
     +- Conflict                conflict               the request contradicts what exists
     |   +- AlreadyExists       already-exists         same name, other content
     |   +- PoolOverlap         pool-overlap           the subnet overlaps a pool, or a route of the host
     |   +- TagInUse            tag-in-use             the VLAN tag belongs to another network of the bridge
     |   +- AddressInUse        address-in-use
     |   +- InUse               in-use                 still referenced: a pool with leases, a network with endpoints
     |   +- LinkExists          link-exists            the container has an interface of that name already
     |   +- PortInUse           port-in-use            the port of the host is published already
     |   +- AttachmentBroken    attachment-broken      an attachment is not as it was made
     |   +- PreconditionFailed  precondition-failed    what If-Match names has changed meanwhile
     +- Exhausted               exhausted              no free VLAN tag or the like
     |   +- PoolExhausted       pool-exhausted         no free address
     +- Unavailable             unavailable            try again later
     |   +- StateUnavailable    state-unavailable      the OVSNet database cannot be reached, or refuses writes
     |   +- SwitchUnavailable   switch-unavailable     ovsdb-server or ovs-vswitchd of the switch cannot be reached
     |   +- LinkFailed          link-failed            the kernel refused a link operation
     |   +- DeadlineExceeded    deadline-exceeded      no answer in time; the outcome may be unknown
     |   +- TooManyRequests     too-many-requests      the caller asks more often than it may
     +- Forbidden               forbidden              the peer may not do that
     |   +- Unauthenticated     unauthenticated        who asks does not tell who it is
     +- ConfigError             bad-config             the settings file is wrong
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class OvsnetError(Exception):
    """Base of all errors that ovsnet reports.

    `message` says what happened, `hint` what to do, `details` holds machine-readable context (strings only). An error
    without a better class has the code `internal`: a defect of ours.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, hint: str = "", **details: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class InvalidRequest(OvsnetError):
    """The caller's input is wrong; the same call can never succeed."""

    code = "invalid-request"


class InvalidNetns(InvalidRequest):
    """The path given is not a network namespace, or is the host's own."""

    code = "invalid-netns"


class AddressNotInPool(InvalidRequest):
    """The address asked for lies outside the pool, or cannot be given to an endpoint (network, broadcast, excluded)."""

    code = "address-not-in-pool"


class KeyReused(InvalidRequest):
    """The Idempotency-Key was sent with another request before."""

    code = "key-reused"


class PreconditionMissing(InvalidRequest):
    """The change must say, by If-Match, which state it is meant for."""

    code = "precondition-missing"


class NotFound(OvsnetError):
    """What the request names does not exist."""

    code = "not-found"


class PoolNotFound(NotFound):
    """No subnet pool of that name or id."""

    code = "pool-not-found"


class NetworkNotFound(NotFound):
    """No network of that name or id."""

    code = "network-not-found"


class EndpointNotFound(NotFound):
    """No endpoint of that key or id."""

    code = "endpoint-not-found"


class Conflict(OvsnetError):
    """The request contradicts what exists."""

    code = "conflict"


class AlreadyExists(Conflict):
    """The name is taken by something of other content."""

    code = "already-exists"


class PoolOverlap(Conflict):
    """The subnet overlaps an existing pool of the address space, or a route of the host."""

    code = "pool-overlap"


class TagInUse(Conflict):
    """The VLAN tag belongs to another network on the same bridge."""

    code = "tag-in-use"


class AddressInUse(Conflict):
    """The address asked for is leased to somebody else."""

    code = "address-in-use"


class InUse(Conflict):
    """The object is still referenced: a pool with leases, a network with endpoints."""

    code = "in-use"


class LinkExists(Conflict):
    """The container already has an interface of that name that is not this endpoint's."""

    code = "link-exists"


class PortInUse(Conflict):
    """The port of the host that is to be published leads to another endpoint already."""

    code = "port-in-use"


class AttachmentBroken(Conflict):
    """Something of an attachment is missing or is not as it was made; the message names the first difference."""

    code = "attachment-broken"


class PreconditionFailed(Conflict):
    """What the change was meant for has changed meanwhile."""

    code = "precondition-failed"


class Exhausted(OvsnetError):
    """A finite thing has run out."""

    code = "exhausted"


class PoolExhausted(Exhausted):
    """The subnet pool has no free address."""

    code = "pool-exhausted"


class Unavailable(OvsnetError):
    """A part that is needed cannot be reached now; try again later."""

    code = "unavailable"


class StateUnavailable(Unavailable):
    """The OVSNet database cannot be reached or refuses writes (disk full, no leader)."""

    code = "state-unavailable"


class SwitchUnavailable(Unavailable):
    """The Open_vSwitch database or ovs-vswitchd does not answer."""

    code = "switch-unavailable"


class LinkFailed(Unavailable):
    """The kernel refused a link, address or route operation."""

    code = "link-failed"


class DeadlineExceeded(Unavailable):
    """No answer within the deadline. Whether the change happened is unknown: ask again by the same key."""

    code = "deadline-exceeded"


class TooManyRequests(Unavailable):
    """The caller asks more often than it may."""

    code = "too-many-requests"


class Forbidden(OvsnetError):
    """The peer is not allowed to do that."""

    code = "forbidden"


class Unauthenticated(Forbidden):
    """The peer does not tell who it is, or not in a way that can be believed."""

    code = "unauthenticated"


class ConfigError(OvsnetError):
    """The settings are wrong; the message names file, line and key."""

    code = "bad-config"


def codes() -> dict[str, type[OvsnetError]]:
    """All stable codes and their classes, for the edges' tables and the tests that tie these tables to the tree."""
    found: dict[str, type[OvsnetError]] = {}
    todo: list[type[OvsnetError]] = [OvsnetError]
    while todo:
        cls = todo.pop()
        found[cls.code] = cls
        todo.extend(cls.__subclasses__())
    return found


def problem(error: OvsnetError) -> dict[str, Any]:
    """The error as an RFC 9457 problem document, without the members that only a server knows (`status`, `instance`).

    `type` (a URI) and `title` follow from the code alone; `code`, `hint` and `details` are extension members.
    """
    return {
        "type": f"urn:ovsnet:problem:{error.code}",
        "title": error.code.replace("-", " ").capitalize(),
        "detail": error.message,
        "code": error.code,
        "hint": error.hint,
        "details": error.details,
    }


def from_problem(document: Mapping[str, Any]) -> OvsnetError:
    """The error that `problem` was given; an unknown code, from a newer version, becomes a plain OvsnetError."""
    cls = codes().get(str(document.get("code")), OvsnetError)
    error = cls(str(document.get("detail", "no detail")), hint=str(document.get("hint", "")))
    error.details = {str(key): str(value) for key, value in dict(document.get("details") or {}).items()}
    return error
