"""A typed client of the REST API over its unix socket: a method for each operation, the server's errors raised as ours.

Called by the CLI, and by anybody's Python. Imports little, because a command's start is felt: no pydantic, no Flask. The
typed dictionaries are the API's JSON as it is (`ovsnet.api.schemas` says what each key means; a test keeps them alike).
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, TypedDict, cast
from urllib.parse import quote, urlencode

from . import __version__
from .errors import DeadlineExceeded, Forbidden, InvalidRequest, OvsnetError, Unavailable, from_problem

DEFAULT_SOCKET = "/run/ovsnet/ovsnet.sock"
_SILENCE = 30.0  # seconds without a sign of life after which a stream of events is given up
_POLL = 0.2  # seconds between questions about an operation
DEFAULT_DEADLINE = 30.0  # seconds; longer than ovsnetd's own, whose error says more


class Pool(TypedDict):
    """A subnet pool and its use."""

    id: str
    name: str
    space: str
    subnet: str
    gateway: str | None
    ranges: list[str]
    exclusions: list[str]
    static_ranges: list[str]
    reservations: dict[str, str]
    draining: bool
    origin: str
    capacity: int
    leased: int
    networks: list[str]
    labels: dict[str, str]


class LeaseOwner(TypedDict):
    """What a lease belongs to."""

    kind: str
    id: str


class Lease(TypedDict):
    """An address that is given out."""

    address: str
    pool: str
    node: str
    owner: LeaseOwner


class LeaseRecord(TypedDict):
    """Who had an address, and from when until when."""

    address: str
    pool: str
    owner: LeaseOwner
    network: str
    container: str
    ifname: str
    node: str
    labels: dict[str, str]
    since: str
    until: str | None
    released_by: str


class Event(TypedDict):
    """Something that happened to an address."""

    id: int
    time: str
    what: str
    reason: str
    address: str
    pool: str
    owner: LeaseOwner
    network: str
    container: str
    ifname: str
    node: str
    labels: dict[str, str]


class Reservation(TypedDict):
    """An address that is kept for a name."""

    name: str
    address: str


class Finding(TypedDict):
    """One disagreement between leases, endpoints, ports and links."""

    kind: str
    subject: str
    message: str
    remedy: str


class Check(TypedDict):
    """What a check found, or a repair left."""

    ok: bool
    mended: list[Finding]
    findings: list[Finding]


class Difference(TypedDict):
    """What differs on this host from what the store wants."""

    kind: str
    where: str
    target: str
    reason: str
    remedy: str


class Step(TypedDict):
    """Something that happens to a packet."""

    where: str
    what: str
    back: bool


class Trace(TypedDict):
    """The way of a packet and of its answer."""

    outcome: str
    cause: str
    packet: str
    steps: list[Step]
    reason: str
    remedy: str


class Reconciliation(TypedDict):
    """What was mended, and what was not; all of it is left by a dry run."""

    ok: bool
    done: list[Difference]
    left: list[Difference]


class Token(TypedDict):
    """A token, without its text."""

    id: str
    name: str
    role: str
    created: str
    expires: str
    by: str


class NewToken(TypedDict):
    """A token with its text, which is told this once."""

    text: str
    token: Token


class Network(TypedDict):
    """A network."""

    id: str
    name: str
    bridge: str
    vlan: int
    mtu: int
    pools: list[str]
    subnets: list[str]
    gateways: list[str]
    internal: bool
    masquerade: bool
    routed: bool
    origin: str
    docker_ids: list[str]
    labels: dict[str, str]


class Owner(TypedDict):
    """Who holds an endpoint."""

    kind: str
    container: str
    ifname: str
    sandbox: str


class Endpoint(TypedDict):
    """An attachment of a container to a network."""

    id: str
    network: str
    network_id: str
    container: str
    ifname: str
    origin: str
    node: str
    owner: Owner
    addresses: list[str]
    mac: str
    vlan: int
    own_vlan: int | None
    bridge: str
    port: str
    link: str
    mtu: int
    sandbox: str
    labels: dict[str, str]
    trunk: list[int]
    config: str
    aliases: list[str]
    bandwidth: dict[str, int]
    quarantined: bool
    published: list[str]


class Operation(TypedDict):
    """Work that goes on behind its answer."""

    id: str
    kind: str
    subject: str
    by: str
    status: str
    started: str
    ended: str | None
    done: int
    total: int
    problem: dict[str, Any] | None
    result: Any


class ChangeRecord(TypedDict):
    """Who changed what by the API."""

    id: int
    time: str
    caller: str
    role: str
    method: str
    path: str
    operation: str
    status: int
    before: Any
    after: Any


class Health(TypedDict):
    """The controller serves requests."""

    status: str
    state: str
    switch: str
    node: str
    version: str


class Client:
    """The API behind the unix socket at `path`; every call ends within `deadline` seconds.

    Methods raise the OvsnetError that the server's code names. When the server cannot be reached it is Unavailable,
    without the right to reach it Forbidden, without an answer in time DeadlineExceeded. Holds no connection: threads may
    share one.
    """

    def __init__(self, path: str = DEFAULT_SOCKET, *, deadline: float = DEFAULT_DEADLINE) -> None:
        self.path = path
        self.deadline = deadline

    def pools(self) -> list[Pool]:
        """All subnet pools."""
        return cast(list[Pool], self._call("GET", "/v1/pools"))

    def pool(self, ref: str) -> Pool:
        """One pool, by name or UUID."""
        return cast(Pool, self._call("GET", f"/v1/pools/{_part(ref)}"))

    def leases(self, pool: str) -> list[Lease]:
        """Who has which address of a pool."""
        return cast(list[Lease], self._call("GET", f"/v1/pools/{_part(pool)}/leases"))

    def lease_history(self, address: str, *, at: str = "", pool: str = "") -> list[LeaseRecord]:
        """Who had an address, ever or `at` a moment (ISO 8601; local time if it names no zone), the latest first."""
        query = urlencode(_given(address=address, at=at, pool=pool))
        return cast(list[LeaseRecord], self._call("GET", f"/v1/leases/history?{query}"))

    def events(self, *, after: int | None = None, limit: int = 100) -> list[Event]:
        """What happened to addresses, the oldest first: the latest, or what came `after` the event of that id."""
        query = urlencode({"limit": limit} | ({} if after is None else {"after": after}))
        return cast(list[Event], self._call("GET", f"/v1/events?{query}"))

    def follow(self, after: int | None = None) -> Iterator[Event]:
        """Events as they happen, from now on or `after` the one of that id, until ovsnetd ends. Unavailable when it is gone."""
        headers = {"Accept": "text/event-stream", "User-Agent": f"ovsnet/{__version__}"}
        target = "/v1/events" if after is None else f"/v1/events?{urlencode({'after': after})}"
        connection = _Connection(self.path, self.deadline)
        with closing(connection), self._told():
            connection.request("GET", target, headers=headers)
            sock = cast(_Socket, connection.sock)  # the response takes it over
            response = connection.getresponse()
            if response.status != 200:
                _decode(response, response.read())
            with response:
                while line := response.readline():
                    sock.deadline = time.monotonic() + _SILENCE
                    if line.startswith(b"data: "):
                        yield cast(Event, json.loads(line[6:]))

    def create_pool(
        self,
        subnet: str,
        *,
        name: str = "",
        space: str = "",
        gateway: str = "",
        no_gateway: bool = False,
        ranges: Sequence[str] = (),
        exclusions: Sequence[str] = (),
        static_ranges: Sequence[str] = (),
        labels: dict[str, str] | None = None,
        dry_run: bool = False,
    ) -> Pool:
        """Make a pool. Without `gateway` the first assignable address is one, unless `no_gateway`.

        With `dry_run`, here and below, the change is only checked.
        """
        body = _given(
            subnet=subnet,
            name=name,
            space=space,
            gateway=gateway,
            ranges=list(ranges),
            exclusions=list(exclusions),
            static_ranges=list(static_ranges),
            labels=labels,
        )
        if no_gateway:
            body["gateway"] = None
        return cast(Pool, self._call("POST", "/v1/pools" + _dry(dry_run), body))

    def change_pool(
        self,
        ref: str,
        *,
        subnet: str = "",
        ranges: Sequence[str] | None = None,
        exclusions: Sequence[str] | None = None,
        static_ranges: Sequence[str] | None = None,
        draining: bool | None = None,
        etag: str = "*",
        dry_run: bool = False,
    ) -> Pool:
        """Change a pool; what is None (or "") stays. `etag` is the state that it is meant for, else PreconditionFailed."""
        body: dict[str, Any] = {"subnet": subnet} if subnet else {}
        for key, value in (("ranges", ranges), ("exclusions", exclusions), ("static_ranges", static_ranges)):
            if value is not None:
                body[key] = list(value)
        if draining is not None:
            body["draining"] = draining
        target = f"/v1/pools/{_part(ref)}" + _dry(dry_run)
        return cast(Pool, self._call("PATCH", target, body, {"If-Match": etag}))

    def delete_pool(self, ref: str, *, force: bool = False) -> None:
        """Delete a pool that no network uses; `force` takes along reservations and what Docker holds."""
        self._call("DELETE", f"/v1/pools/{_part(ref)}" + ("?force=true" if force else ""))

    def reserve(self, pool: str, name: str, address: str = "", *, dry_run: bool = False) -> Reservation:
        """Keep an address of a pool for a name: the one given, or the next free."""
        body = _given(name=name, address=address)
        target = f"/v1/pools/{_part(pool)}/reservations" + _dry(dry_run)
        return cast(Reservation, self._call("POST", target, body))

    def release_reservation(self, pool: str, name: str) -> None:
        """Keep the address no longer."""
        self._call("DELETE", f"/v1/pools/{_part(pool)}/reservations?{urlencode({'name': name})}")

    def release_address(self, pool: str, address: str) -> None:
        """End the lease of an address that Docker has forgotten."""
        self._call("DELETE", f"/v1/pools/{_part(pool)}/leases?{urlencode({'address': address})}")

    def check(self) -> Check:
        """What disagrees between leases, endpoints, ports and links."""
        return cast(Check, self._call("GET", "/v1/check"))

    def repair(self, *, dry_run: bool = False) -> Check:
        """Mend what is certain."""
        return cast(Check, self._call("POST", "/v1/check", {"dry_run": dry_run}))

    def begin_check(self, *, repair: bool = False, dry_run: bool = False) -> Operation:
        """Begin what `check`, or `repair`, does; `finish` gives its answer."""
        body = {"dry_run": dry_run} if repair else None
        return cast(Operation, self._call("POST" if repair else "GET", "/v1/check", body, {"Prefer": "respond-async"}))

    def reconcile(self, *, dry_run: bool = False) -> Reconciliation:
        """Mend what differs from the store on ovsnetd's host, or only tell it."""
        return cast(Reconciliation, self._call("POST", f"/v1/reconcile?dry_run={int(dry_run)}", {}))

    def trace(self, source: str, destination: str, *, protocol: str = "", port: int = 0, sender: str = "") -> Trace:
        """The way of a packet and of its answer, and what stops it."""
        asked = {"protocol": protocol, "port": port, "sender": sender}
        body = {"source": source, "destination": destination} | {key: value for key, value in asked.items() if value}
        return cast(Trace, self._call("POST", "/v1/trace", body))

    def capture(self, uuid: str, *, seconds: int, size: int, filter: str = "") -> bytes:  # noqa: A002  # its name
        """What an endpoint sends and receives within so many seconds, as a pcap file of `size` bytes at most."""
        body = {"seconds": seconds, "bytes": size, "filter": filter}
        patient = Client(self.path, deadline=self.deadline + seconds)
        response, data = patient._exchange("POST", f"/v1/captures/{_part(uuid)}", body)
        return data if response.status == 200 else bytes(_decode(response, data))

    def networks(self) -> list[Network]:
        """All networks."""
        return cast(list[Network], self._call("GET", "/v1/networks"))

    def network(self, ref: str) -> Network:
        """One network, by name or UUID."""
        return cast(Network, self._call("GET", f"/v1/networks/{_part(ref)}"))

    def create_network(
        self,
        name: str,
        *,
        bridge: str = "",
        vlan: int | None = None,
        mtu: int | None = None,
        pools: Sequence[str] = (),
        subnets: Sequence[str] = (),
        internal: bool = False,
        masquerade: bool = False,
        routed: bool = False,
        labels: dict[str, str] | None = None,
        dry_run: bool = False,
    ) -> Network:
        """Make a network on existing `pools`, or with new ones for `subnets`. `vlan` 0 is untagged, None a free one."""
        body = _given(
            name=name,
            bridge=bridge,
            vlan=vlan,
            mtu=mtu,
            pools=list(pools),
            subnets=list(subnets),
            internal=internal,
            masquerade=masquerade,
            routed=routed,
            labels=labels,
        )
        return cast(Network, self._call("POST", "/v1/networks" + _dry(dry_run), body))

    def change_network(self, ref: str, *, vlan: int, etag: str = "*", dry_run: bool = False) -> Network:
        """Give a network another VLAN tag, 0 for none, while traffic goes on."""
        target = f"/v1/networks/{_part(ref)}" + _dry(dry_run)
        return cast(Network, self._call("PATCH", target, {"vlan": vlan}, {"If-Match": etag}))

    def delete_network(self, ref: str) -> None:
        """Delete a network that has no endpoints."""
        self._call("DELETE", f"/v1/networks/{_part(ref)}")

    def remove_network(self, ref: str) -> Operation:
        """Begin to take all endpoints off a network and to delete it."""
        return cast(Operation, self._call("DELETE", f"/v1/networks/{_part(ref)}?force=true"))

    def operation(self, ident: str) -> Operation:
        """How far an operation is."""
        return cast(Operation, self._call("GET", f"/v1/operations/{_part(ident)}"))

    def finish(self, operation: Operation, told: Callable[[Operation], None] = lambda _: None) -> Any:
        """Wait for the end of an operation, however long that takes, and give its result, or raise its error."""
        while operation["status"] == "running":
            told(operation)
            time.sleep(_POLL)
            operation = self.operation(operation["id"])
        if operation["problem"] is not None:
            raise from_problem(operation["problem"])
        return operation["result"]

    def audit(
        self, *, caller: str = "", path: str = "", since: str = "", limit: int | None = None
    ) -> list[ChangeRecord]:
        """Who changed what by the API, the latest first."""
        query = urlencode(_given(caller=caller, path=path, since=since, limit=limit))
        return cast(list[ChangeRecord], self._call("GET", f"/v1/audit?{query}"))

    def endpoints(self, network: str | None = None, **filters: str) -> list[Endpoint]:
        """All endpoints, or those of one network; `filters` are pool, container, node, origin and address."""
        query = urlencode(({} if network is None else {"network": network}) | _given(**filters))
        return cast(list[Endpoint], self._call("GET", f"/v1/endpoints?{query}" if query else "/v1/endpoints"))

    def endpoint(self, uuid: str) -> Endpoint:
        """One endpoint."""
        return cast(Endpoint, self._call("GET", f"/v1/endpoints/{_part(uuid)}"))

    def create_endpoint(
        self,
        network: str,
        container: str,
        ifname: str,
        netns: str,
        *,
        addresses: Sequence[str] = (),
        mac: str = "",
        mtu: int | None = None,
        labels: dict[str, str] | None = None,
    ) -> Endpoint:
        """Attach a container, whose network namespace is at the path `netns`, to a network."""
        body = _given(
            network=network,
            container=container,
            ifname=ifname,
            netns=netns,
            addresses=list(addresses),
            mac=mac,
            mtu=mtu,
            labels=labels,
        )
        return cast(Endpoint, self._call("POST", "/v1/endpoints", body))

    def change_endpoint(self, uuid: str, *, etag: str = "*", dry_run: bool = False, **changes: Any) -> Endpoint:
        """Change an endpoint while traffic goes on; `changes` are the keys of the request's body: those not given stay."""
        target = f"/v1/endpoints/{_part(uuid)}" + _dry(dry_run)
        return cast(Endpoint, self._call("PATCH", target, changes, {"If-Match": etag}))

    def quarantine(self, uuid: str, *, on: bool) -> Endpoint:
        """Let nothing pass to and from an endpoint, or let it pass again."""
        return self.change_endpoint(uuid, quarantined=on)

    def delete_endpoint(self, uuid: str) -> None:
        """Detach a container from a network and free its addresses."""
        self._call("DELETE", f"/v1/endpoints/{_part(uuid)}")

    def tokens(self) -> list[Token]:
        """All tokens that are worth something."""
        return cast(list[Token], self._call("GET", "/v1/tokens"))

    def create_token(self, name: str, role: str, seconds: int) -> NewToken:
        """Make a token that is worth something for so many seconds."""
        return cast(NewToken, self._call("POST", "/v1/tokens", {"name": name, "role": role, "seconds": seconds}))

    def revoke_token(self, ref: str) -> None:
        """Let the token of that name or id be worth nothing from now on."""
        self._call("DELETE", f"/v1/tokens/{_part(ref)}")

    def health(self) -> Health:
        """That the controller serves requests; raises Unavailable with the reason, and details, when it does not."""
        return cast(Health, self._call("GET", "/healthz"))

    def metrics(self) -> str:
        """What Prometheus would be told."""
        response, data = self._exchange("GET", "/metrics")
        return data.decode() if response.status == 200 else str(_decode(response, data))

    def _call(
        self, method: str, target: str, body: dict[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        return _decode(*self._exchange(method, target, body, headers))

    def _exchange(
        self, method: str, target: str, body: dict[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[HTTPResponse, bytes]:
        headers = {
            "Accept": "application/json, application/problem+json",
            "User-Agent": f"ovsnet/{__version__}",
            **(headers or {}),
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        with closing(_Connection(self.path, self.deadline)) as connection, self._told():
            connection.request(method, target, None if body is None else json.dumps(body).encode(), headers)
            response = connection.getresponse()
            return response, response.read()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong with the connection is told in our words."""
        try:
            yield
        except TimeoutError:
            raise DeadlineExceeded(
                f"ovsnetd did not answer within {self.deadline:g} s", hint="see its log; whether it acted is unknown"
            ) from None
        except PermissionError:
            raise Forbidden(
                f"no permission to use {self.path}",
                hint="use sudo, or become a member of the group that owns the socket",
            ) from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise Unavailable(
                f"ovsnetd is not reachable at {self.path}",
                hint="start it with `systemctl start ovsnetd` or `sudo ovsnetd`, or name its socket with --socket",
            ) from None
        except (OSError, HTTPException) as exc:
            raise Unavailable(
                f"talking to ovsnetd at {self.path} failed: {exc}", hint="see its log; whether it acted is unknown"
            ) from exc


class _Socket(socket.socket):
    """A stream whose every operation ends before `deadline` (monotonic seconds), however slowly bytes drip in."""

    deadline: float

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._arm()
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any) -> None:
        self._arm()
        super().sendall(*args)

    def connect(self, address: Any) -> None:
        # While the server's backlog is full, connecting without blocking fails at once and cannot be polled for (unix(7),
        # EAGAIN); connecting with it waits as long as SO_SNDTIMEO says.
        left = self._left()
        self.settimeout(None)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(left), int(left % 1 * 1e6)))
        try:
            super().connect(address)
        except BlockingIOError:
            raise TimeoutError from None

    def _arm(self) -> None:
        self.settimeout(self._left())

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Connection(HTTPConnection):
    def __init__(self, path: str, deadline: float) -> None:
        super().__init__("localhost")
        self._path = path
        self._seconds = deadline

    def connect(self) -> None:
        sock = _Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.deadline = time.monotonic() + self._seconds
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


def _part(ref: str) -> str:
    if not ref or "/" in ref:
        raise InvalidRequest(f"{ref!r} is neither a name nor a UUID", hint="`ls` shows both")
    return quote(ref, safe="")


def _dry(dry_run: bool) -> str:
    return "?dry_run=1" if dry_run else ""


def _given(**values: Any) -> dict[str, Any]:
    """What the caller said; the server's defaults stand for the rest."""
    return {key: value for key, value in values.items() if value or type(value) is int}  # VLAN 0 is said, False is not


def _decode(response: HTTPResponse, data: bytes) -> Any:
    if response.status == 204:
        return None
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    if response.status < 400 and body is not None:
        return body
    if isinstance(body, dict) and "code" in body:
        raise from_problem(body)
    raise OvsnetError(
        f"what answers is not ovsnetd: HTTP status {response.status}", hint="check the path given with --socket"
    )
