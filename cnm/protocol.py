"""Docker's remote driver protocol: its messages, the wrapper around every method, and what becomes of errors.

Owns everything that is on the wire between dockerd and us; network.py and ipam.py say which use case answers which
method. The fields carry the protocol's own names, so that a class here reads like the table of the protocol. Of a
request, fields that we do not know are tolerated (newer Dockers send more), those that we do know must be there, and of
the right type.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import structlog
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from ovsnet.errors import InvalidRequest, OvsnetError
from ovsnet.model import DEFAULT_SPACE
from ovsnet.operations import OK, Observe, Operation, observe_nothing

CONTENT_TYPE: Final = "application/vnd.docker.plugins.v1.2+json"
MAX_BODY: Final = 1 << 20  # bytes
LOCAL_SPACE: Final = DEFAULT_SPACE
GLOBAL_SPACE: Final = f"{DEFAULT_SPACE}-global"
GATEWAY_KEY: Final = "com.docker.network.gateway"  # in RequestPool's Data: replaces Docker's request for the gateway

DockerScope = Literal["local", "global"]

# 404 must not be in here: Docker takes it for "this driver has no such method", and then starts a container without its
# published ports instead of telling that the call failed (plugins.IsNotFound in libnetwork's remote driver).
STATUS: Final[Mapping[str, int]] = {
    "internal": 500,
    "invalid-request": 400,
    "invalid-netns": 400,
    "address-not-in-pool": 400,
    "not-found": 410,
    "pool-not-found": 410,
    "network-not-found": 410,
    "endpoint-not-found": 410,
    "conflict": 409,
    "already-exists": 409,
    "pool-overlap": 409,
    "tag-in-use": 409,
    "address-in-use": 409,
    "in-use": 409,
    "link-exists": 409,
    "port-in-use": 409,
    "attachment-broken": 409,
    "key-reused": 422,
    "precondition-missing": 428,
    "precondition-failed": 412,
    "exhausted": 409,
    "pool-exhausted": 409,
    "unavailable": 503,
    "state-unavailable": 503,
    "switch-unavailable": 503,
    "link-failed": 503,
    "deadline-exceeded": 504,
    "too-many-requests": 429,
    "forbidden": 403,
    "unauthenticated": 401,
    "bad-config": 500,
}

log = structlog.get_logger(__name__)


def _null_is(empty: Callable[[], object]) -> BeforeValidator:
    return BeforeValidator(lambda value: empty() if value is None else value)


# Docker's ids are 64 hexadecimal digits, swarm's 25 letters and digits, our pools' are uuids.
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=128)]
# Go writes a map or a slice that was never made as null.
AnyMap = Annotated[dict[str, Any], _null_is(dict)]
StrMap = Annotated[dict[str, str], _null_is(dict)]


class Request(BaseModel):
    """What a method's body must hold."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Nothing(Request):
    """Of methods that Docker calls with an empty body: whatever comes is left unread."""


class IpamEntry(Request):
    """A pool of a network. `Pool`, `Gateway` and the `AuxAddresses` are CIDR; what Docker does not have is left out."""

    AddressSpace: str
    Pool: str = ""
    Gateway: str = ""
    AuxAddresses: StrMap = Field(default_factory=dict)


IpamEntries = Annotated[list[IpamEntry], _null_is(list)]


class NetworkRequest(Request):
    """FreeNetwork, DeleteNetwork."""

    NetworkID: Id


class AllocateNetworkRequest(NetworkRequest):
    """AllocateNetwork, which only swarm managers send."""

    Options: StrMap
    IPv4Data: IpamEntries
    IPv6Data: IpamEntries


class CreateNetworkRequest(NetworkRequest):
    """CreateNetwork; `Options["com.docker.network.generic"]` is what the user gave with `-o`."""

    Options: AnyMap
    IPv4Data: IpamEntries
    IPv6Data: IpamEntries


class GatewayCheckRequest(Request):
    """GwAllocCheck, from Docker 28 on."""

    Options: AnyMap


class EndpointRequest(NetworkRequest):
    """EndpointOperInfo, Leave, DeleteEndpoint, RevokeExternalConnectivity."""

    EndpointID: Id


class InterfaceWanted(Request):
    """What Docker has chosen already: CIDR addresses and a MAC address, each "" if it is for the driver to choose."""

    Address: str
    AddressIPv6: str
    MacAddress: str


class CreateEndpointRequest(EndpointRequest):
    """CreateEndpoint."""

    Interface: InterfaceWanted
    Options: AnyMap


class JoinRequest(EndpointRequest):
    """Join; `SandboxKey` is the path of the container's network namespace."""

    SandboxKey: Annotated[str, StringConstraints(pattern=r"^/[^\x00]+$", max_length=4095)]
    Options: AnyMap


class ExternalRequest(EndpointRequest):
    """ProgramExternalConnectivity."""

    Options: AnyMap


class DiscoveryRequest(Request):
    """DiscoverNew and DiscoverDelete."""

    DiscoveryType: int
    DiscoveryData: Any


class PoolRequest(Request):
    """RequestPool; `Pool` and `SubPool` are CIDR or ""."""

    AddressSpace: str
    Pool: str
    SubPool: str
    Options: StrMap
    V6: bool


class ReleasePoolRequest(Request):
    """ReleasePool."""

    PoolID: Id


class AddressRequest(Request):
    """RequestAddress; `Address` is a bare address, or "" for any."""

    PoolID: Id
    Address: str
    Options: StrMap


class ReleaseAddressRequest(Request):
    """ReleaseAddress; `Address` is bare."""

    PoolID: Id
    Address: str


class Response(BaseModel):
    """What a method answers; fields that are None are left out. By itself: done, nothing to tell."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Activation(Response):
    """Plugin.Activate."""

    Implements: tuple[str, ...]


class NetworkCapabilities(Response):
    """NetworkDriver.GetCapabilities."""

    Scope: DockerScope
    ConnectivityScope: DockerScope
    GwAllocChecker: bool


class GatewayCheck(Response):
    """GwAllocCheck."""

    SkipIPv4: bool
    SkipIPv6: bool


class Allocation(Response):
    """AllocateNetwork."""

    Options: Mapping[str, str]


class InterfaceChosen(Response):
    """What the driver chose: Docker refuses a field that it had filled in itself."""

    Address: str | None = None
    AddressIPv6: str | None = None
    MacAddress: str | None = None


class CreatedEndpoint(Response):
    """CreateEndpoint."""

    Interface: InterfaceChosen


class OperInfo(Response):
    """EndpointOperInfo."""

    Value: Mapping[str, str]


class LinkName(Response):
    """The link as Docker finds it in the host's namespace, and what it will be called in the container's."""

    SrcName: str
    DstPrefix: str


class StaticRoute(Response):
    """A route: by way of `NextHop` (type 0), or on-link with an empty one (type 1)."""

    Destination: str
    RouteType: Literal[0, 1]
    NextHop: str


class Joined(Response):
    """Join; the gateways are bare addresses, or ""."""

    InterfaceName: LinkName
    Gateway: str
    GatewayIPv6: str
    StaticRoutes: tuple[StaticRoute, ...]
    DisableGatewayService: bool


class IpamCapabilities(Response):
    """IpamDriver.GetCapabilities."""

    RequiresMACAddress: bool
    RequiresRequestReplay: bool


class AddressSpaces(Response):
    """GetDefaultAddressSpaces."""

    LocalDefaultAddressSpace: str
    GlobalDefaultAddressSpace: str


class GivenPool(Response):
    """RequestPool; `Pool` is CIDR."""

    PoolID: str
    Pool: str
    Data: Mapping[str, str]


class GivenAddress(Response):
    """RequestAddress; `Address` is CIDR with the pool's prefix length."""

    Address: str
    Data: Mapping[str, str]


DONE: Final = Response()

R = TypeVar("R", bound=Request)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: an HTTP status, and a JSON object. `behind` is done once it has gone, or cannot go."""

    status: int
    body: bytes
    behind: Callable[[], None] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Route(Generic[R]):
    """A method of the protocol: its path, what its body holds, and who answers."""

    path: str
    request: type[R]
    handle: Callable[[R], Response]

    def parse(self, body: bytes) -> R:
        """The request that `body` holds. InvalidRequest."""
        try:
            return self.request.model_validate({} if self.request is Nothing else _json_object(body))
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InvalidRequest(
                f"field {where[:80]!r}: {first['msg'].lower()}",
                hint="send the body as Docker's remote driver protocol has it",
            ) from None


def always(response: Response) -> Callable[[Request], Response]:
    """A handler whose answer does not depend on the request."""
    return lambda _request: response


class Plugin:
    """All methods: the wrapper around every call, with an answer of the protocol's form to anything. Thread-safe.

    Each call is an operation that `observe` and the log are told of.
    """

    def __init__(self, routes: Iterable[Route[Any]], observe: Observe = observe_nothing) -> None:
        self.routes: Final[Mapping[str, Route[Any]]] = {route.path: route for route in routes}
        self._observe = observe

    def __call__(self, verb: str, path: str, body: bytes) -> Answer:
        """The answer to an HTTP request."""
        route = self.routes.get(path)
        what = f"{verb[:80]} {path[:80]}"
        if route is None:
            return failure(404, f"{what}: not found: this is no method of Docker's plugin protocol")
        if verb != "POST":
            return failure(405, f"{what}: method not allowed: call it by POST")
        operation = Operation("docker", path[1:], self._observe, first=True)
        result, told = OvsnetError.code, dict[str, Any]()
        try:
            request = route.parse(body)
            told = {name: getattr(request, field, "") for name, field in _TOLD.items()}
            answer = _answer(200, route.handle(request).model_dump(exclude_none=True))
            result = OK
        except OvsnetError as exc:
            # Docker forgets the errors of deletes, so that the line in the log can be all that is left of one.
            result = exc.code
            told |= {"error": str(exc), "details": exc.details or None}
            answer = failure(STATUS[exc.code], str(exc))
        except Exception as exc:  # logged here
            log.error("docker call broke", method=path[1:], exc_info=exc)
            answer = failure(
                500, f"internal error ({type(exc).__name__}): look into the log of ovsnetd, and report it as a bug"
            )
        operation.end(result)

        def behind() -> None:
            operation.complete()
            operation.tell(**told)

        return dataclasses.replace(answer, behind=behind)


# What of a request its line in the log has. Options and labels may hold anything, secrets too.
_TOLD: Final = {"network": "NetworkID", "endpoint": "EndpointID", "pool": "PoolID", "address": "Address"}


def failure(status: int, text: str) -> Answer:
    """The network half of Docker reads `Err`, the IPAM half `Error`; but only `Err` where the status is not 200.

    Docker puts the method's name before the text.
    """
    return _answer(status, {"Err": text, "Error": text})


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
        # The parser lets NaN pass, and half a surrogate pair, which no database or file name takes.
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):  # the latter: nested a thousand levels deep
        body = None
    if isinstance(body, dict):
        return body
    raise InvalidRequest(
        "the body is not a JSON object" if raw else "the body is empty",
        hint="repeat the command (Docker's own repetition of a call after a broken connection can lack the body)",
    )


def _answer(status: int, body: Mapping[str, Any]) -> Answer:
    return Answer(status, json.dumps(body).encode())
