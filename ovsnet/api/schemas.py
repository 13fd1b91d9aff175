"""The JSON shapes of the API: request models that yield the vocabulary, response models that are made from it.

Pure. Names, addresses and numbers are checked here by the vocabulary's own functions, so that a refusal can name the
key. `ovsnet.client` mirrors the response shapes as typed dictionaries; a test keeps the two alike.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    RootModel,
    WithJsonSchema,
    model_validator,
)

from ovsnet import access, audit, capture, check, jobs, model, plan, trace
from ovsnet.errors import InvalidRequest
from ovsnet.names import check_container_id, check_ifname, check_mac, check_network_name, check_reservation

T = TypeVar("T")
R = TypeVar("R")


class Refused(ValueError):
    """A value that we refuse, with what to do about it; `key` where it is not the one being parsed."""

    def __init__(self, message: str, *, hint: str, key: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.key = key


def _by(check: Callable[[T], R]) -> Callable[[T], R]:
    """`check` of the vocabulary for pydantic, which takes only a ValueError for a refusal."""

    def validate(value: T) -> R:
        try:
            return check(value)
        except InvalidRequest as exc:
            raise Refused(exc.message, hint=exc.hint) from None

    return validate


def _text(parse: Callable[[str], Any]) -> PlainValidator:
    def validate(value: object) -> Any:
        if not isinstance(value, str):
            raise Refused("input should be a valid string", hint="")
        return _by(parse)(value)

    return PlainValidator(validate)


def _storable(text: str) -> str:
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise Refused("the string holds a NUL or half a surrogate pair", hint="OVSDB stores UTF-8 without NUL")
    return text


def _address(text: str) -> model.IPAddress:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise Refused(f"{text[:80]!r} is not an IP address", hint="write it as 10.1.0.5 or fd00::5") from None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise Refused(f"{text[:80]!r} has a zone", hint=f"write {text.partition('%')[0]}")
    return address


def _subnet(text: str) -> model.IPNetwork:
    address, slash, length = text.partition("/")
    try:
        interface = ipaddress.ip_interface(f"{_address(address)}/{length}")
    except ValueError:
        interface = None
    if interface is None or not slash:
        raise Refused(f"{text[:80]!r} is not a subnet", hint="write it as 10.1.0.0/24 or fd00:1::/64")
    if interface.ip != interface.network.network_address:
        raise Refused(f"{text[:80]!r} has bits set beyond its prefix", hint=f"write {interface.network}")
    return interface.network


def _origin(text: Any) -> model.Origin:
    try:
        return model.Origin(text)
    except ValueError:
        raise Refused(f"{str(text)[:40]!r} is no origin", hint=f"write one of {', '.join(model.Origin)}") from None


def _schema(description: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": description, "examples": [example]})


Text = Annotated[str, AfterValidator(_storable)]
Address = Annotated[model.IPAddress, _text(_address), _schema("IP address", "10.1.0.5")]
Subnet = Annotated[model.IPNetwork, _text(_subnet), _schema("Subnet, without host bits", "10.1.0.0/24")]
Range = Annotated[
    model.AddressRange,
    _text(model.AddressRange.parse),
    _schema("Address, first-last, or prefix", "10.1.0.10-10.1.0.99"),
]
Time = Annotated[
    datetime,
    _text(model.parse_time),
    _schema("Moment in ISO 8601; without a zone it is the host's local time", "2026-05-17T14:30:00Z"),
]
Name = Annotated[str, _text(check_network_name), _schema("Letters, digits, '_', '.', '-'; 128 at most", "blue")]
ReservedName = Annotated[str, _text(check_reservation), _schema("Printable, 253 at most", "default/web-0")]
Container = Annotated[str, _text(check_container_id), _schema("Container ID as in the CNI specification", "web-1")]
Interface = Annotated[str, _text(check_ifname), _schema("Name of a network interface", "eth0")]
Mac = Annotated[str, _text(check_mac), _schema("Unicast MAC address", "02:00:00:00:00:01")]
Vlan = Annotated[int, AfterValidator(_by(model.check_tag)), Field(json_schema_extra={"minimum": 0, "maximum": 4094})]
Published = Annotated[
    model.PublishedPort,
    _text(model.PublishedPort.parse),
    _schema(
        "Protocol, port of the host and port of the container, or with an address tcp/192.0.2.1/8080/80", "tcp/8080/80"
    ),
]
Origin = Annotated[
    model.Origin, PlainValidator(_origin), WithJsonSchema({"type": "string", "enum": [*map(str, model.Origin)]})
]
Mtu = Annotated[int, AfterValidator(_by(model.check_mtu)), Field(json_schema_extra={"minimum": 68, "maximum": 65535})]


class _Request(BaseModel):
    """A body or query: no unknown keys, no coercion."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: dict[str, Any]) -> dict[str, Any]:
        for key in data:
            if key not in cls.model_fields:
                known = ", ".join(cls.model_fields)
                raise Refused("unknown key", key=key[:80], hint=f"the keys are {known}")
        return data


class _Query(_Request):
    """What comes in a URL, all of it text."""

    model_config = ConfigDict(strict=False)

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The schema, made once: the library asks for it at every request, which costs more than most operations."""
        return _schema_of(cls) if not args and not kwargs else super().model_json_schema(*args, **kwargs)


@functools.cache
def _schema_of(query: type[_Query]) -> dict[str, Any]:
    return super(_Query, query).model_json_schema()


class Change(_Query):
    """How a change is made."""

    dry_run: bool = Field(False, description="Check it and tell what it would do, but change nothing")


class Ref(BaseModel):
    """Path of a pool or network."""

    ref: str = Field(description="Name or UUID")


class EndpointRef(BaseModel):
    """Path of an endpoint."""

    uuid: str = Field(description="The endpoint's UUID")


class OperationRef(BaseModel):
    """Path of an operation."""

    id: str = Field(description="The operation's id")


class Page(_Query):
    """Which part of a list."""

    limit: int | None = Field(
        None, ge=1, le=1000, description="So many at most; the Link of the answer leads to the next"
    )
    cursor: str | None = Field(None, description="Where the page begins, from the Link of the page before")


class EndpointQuery(Page):
    """Filter of the endpoints' list: those that meet all that is given."""

    network: str | None = Field(None, description="On this network, by name or UUID")
    pool: str | None = Field(None, description="With an address of this pool, by name or UUID")
    container: str | None = Field(None, description="Of this container")
    node: str | None = Field(None, description="On this node")
    origin: Origin | None = Field(None, description="Made by docker, cni or api")
    address: Address | None = Field(None, description="With this address")


class PoolQuery(Page):
    """Filter of the pools' list: those that meet all that is given."""

    network: str | None = Field(None, description="That this network takes addresses from, by name or UUID")
    origin: Origin | None = Field(None, description="Made by docker, cni or api")
    address: Address | None = Field(None, description="With this address in their subnet")


class NetworkQuery(Page):
    """Filter of the networks' list: those that meet all that is given."""

    pool: str | None = Field(None, description="That take addresses from this pool, by name or UUID")
    container: str | None = Field(None, description="That this container is on")
    origin: Origin | None = Field(None, description="Made by docker, cni or api")


class LeaseListQuery(Page):
    """Filter of a pool's leases: those that meet all that is given."""

    node: str | None = Field(None, description="In a block of this node")
    address: Address | None = Field(None, description="Of this address")
    container: str | None = Field(None, description="Of an endpoint of this container")


class NetworkDeleteQuery(Change):
    """How a network is deleted."""

    force: bool = Field(False, description="Take all endpoints off it first, whoever they belong to; answers 202")


class AuditQuery(_Query):
    """Which changes."""

    caller: str = Field("", description="Only of this caller, such as uid:0 or token:ci")
    path: str = Field("", description="Only of what is at this path or below, such as /v1/pools/blue")
    since: Time | None = Field(None, description="Only since this moment")
    limit: int | None = Field(
        None, ge=1, le=1000, description="So many at most; the Link of the answer leads to the next"
    )
    cursor: int | None = Field(
        None, ge=0, le=2**63 - 1, description="Where the page begins, from the Link of the page before"
    )


class LeaseHistoryQuery(_Query):
    """Which address, and when."""

    address: Address
    at: Time | None = Field(None, description="Only who had it at that moment")
    pool: str = Field("", description="Only in this pool, by name or UUID; it may be gone")


class EventQuery(_Request):
    """Which events."""

    after: int | None = Field(
        None,
        ge=0,
        le=2**63 - 1,
        strict=False,
        description="Only those after the event of this id; default: the latest ones",
    )
    limit: int = Field(100, ge=1, le=1000, strict=False, description="Most events to list")


class PoolCreate(_Request):
    """A subnet pool to be made. Ranges limit dynamic allocation; none means the whole subnet."""

    subnet: Subnet
    name: Name | None = Field(None, description="Default: chosen by ovsnet")
    space: Name = Field(model.DEFAULT_SPACE, description="Address space within which pools may not overlap")
    gateway: Address | None = Field(None, description="Absent: the first assignable address; null: no gateway")
    ranges: list[Range] = Field([], description="Where dynamic allocation takes addresses from")
    exclusions: list[Range] = Field([], description="Never given to anybody")
    static_ranges: list[Range] = Field([], description="Given only when asked for by address")
    labels: dict[Text, Text] = {}

    def spec(self) -> model.PoolSpec:
        """The same in the vocabulary."""
        return model.PoolSpec(
            subnet=self.subnet,
            name=self.name or "",
            space=self.space,
            gateway=self.gateway,
            no_gateway=self.gateway is None and "gateway" in self.model_fields_set,
            ranges=tuple(self.ranges),
            exclusions=tuple(self.exclusions),
            static_ranges=tuple(self.static_ranges),
            labels=self.labels,
        )


class PoolUpdate(_Request):
    """What to change of a pool; absent keys stay. A change that would strand a lease is refused and names it."""

    subnet: Subnet | None = Field(None, description="A larger subnet around the old one")
    ranges: list[Range] | None = Field(None, description="Instead of the old ones")
    exclusions: list[Range] | None = Field(None, description="Instead of the old ones")
    static_ranges: list[Range] | None = Field(None, description="Instead of the old ones")
    draining: bool | None = Field(None, description="Whether the pool gives nothing new of itself")

    def change(self) -> model.PoolChange:
        """The same in the vocabulary."""
        return model.PoolChange(
            subnet=self.subnet,
            ranges=None if self.ranges is None else tuple(self.ranges),
            exclusions=None if self.exclusions is None else tuple(self.exclusions),
            static_ranges=None if self.static_ranges is None else tuple(self.static_ranges),
            draining=self.draining,
        )


class PoolDeleteQuery(Change):
    """How a pool is deleted."""

    force: bool = Field(False, description="Take along reservations and what Docker holds; never an endpoint's address")


class LeaseQuery(Change):
    """Which lease."""

    address: Address


class ReservationCreate(_Request):
    """An address to be kept for a name. Asked again: the same address."""

    name: ReservedName
    address: Address | None = Field(None, description="Default: the next free one")


class ReservationQuery(Change):
    """Which reservation."""

    name: str = Field(description="The name that the address is kept for")


class Reservation(BaseModel):
    """An address that is kept for a name."""

    name: str
    address: str


class CheckRequest(_Request):
    """Whether to mend what is certain."""

    dry_run: bool = Field(False, description="Only tell what would be mended")


class Finding(BaseModel):
    """One disagreement between leases, endpoints, ports and links."""

    kind: str = Field(description="Stable, for scripts")
    subject: str
    message: str
    remedy: str = Field(description="What a repair does; empty if nothing is certain")

    @classmethod
    def of(cls, finding: check.Finding) -> Self:
        """From the use case."""
        return cls(kind=finding.kind.value, subject=finding.subject, message=finding.message, remedy=finding.remedy)


class Check(BaseModel):
    """What a check found, or a repair left."""

    ok: bool = Field(description="Nothing disagrees any more")
    mended: list[Finding]
    findings: list[Finding]


class ReconcileQuery(BaseModel):
    """Whether to touch anything."""

    dry_run: bool = Field(False, description="Only tell what differs")


class Difference(BaseModel):
    """What differs on this host from what the store wants."""

    kind: str = Field(description="Stable, for scripts")
    where: str = Field(
        description="Who says so: `switch`, `host`, `sandbox`, `filter`, the `store` itself, or the `reaper`"
    )
    target: str
    reason: str = Field(description="Why it is a difference; and if mending it failed, why")
    remedy: str = Field(description="What mends it; empty if nothing is done")

    @classmethod
    def of(cls, action: plan.Action) -> Self:
        """From the use case."""
        return cls(
            kind=action.kind.value,
            where=action.where.value,
            target=action.target,
            reason=action.reason,
            remedy=action.remedy,
        )


class Reconciliation(BaseModel):
    """What was mended, and what was not; all of it is left by a dry run."""

    ok: bool = Field(description="Nothing is left")
    done: list[Difference]
    left: list[Difference]


def _transport(text: str) -> trace.Transport:
    try:
        return trace.Transport(text)
    except ValueError:
        raise Refused(f"{text[:40]!r} is no protocol", hint=f"write one of {', '.join(trace.Transport)}") from None


Transport = Annotated[
    trace.Transport, _text(_transport), WithJsonSchema({"type": "string", "enum": [*map(str, trace.Transport)]})
]


class TraceRequest(_Request):
    """A packet whose way is to be told."""

    source: Text = Field(min_length=1, max_length=255, description="An endpoint: its id, container, alias or address")
    destination: Text = Field(min_length=1, max_length=255, description="An endpoint likewise, or any address")
    protocol: Transport = Field(trace.Transport.ICMP)
    port: int = Field(0, ge=0, le=65535, description="The destination's, with tcp, udp and sctp")
    sender: Address | None = Field(None, description="An address that the packet claims to come from")

    def question(self) -> trace.Question:
        """For the use case."""
        return trace.Question(self.source, self.destination, self.protocol, self.port, self.sender)


class Step(BaseModel):
    """Something that happens to a packet."""

    where: str = Field(description="A container, a bridge, or the host")
    what: str
    back: bool = Field(description="It happens to the answer")


class Trace(BaseModel):
    """The way of a packet and of its answer."""

    outcome: str = Field(
        description="`delivered`, `leaves` (this host; what comes then is not known here) or `dropped`"
    )
    cause: str = Field(description="Why it is not delivered; stable, for scripts. Empty if it is")
    packet: str
    steps: list[Step]
    reason: str = Field(description="Which rule, tag or route is guilty")
    remedy: str = Field(description="What to change")

    @classmethod
    def of(cls, found: trace.Trace) -> Self:
        """From the use case."""
        return cls(
            outcome=found.outcome.value,
            cause=found.cause.value,
            packet=found.packet,
            steps=[Step(where=one.where, what=one.what, back=one.back) for one in found.steps],
            reason=found.reason,
            remedy=found.remedy,
        )


class CaptureCreate(_Request):
    """What to record of an endpoint's traffic."""

    seconds: int = Field(10, ge=1, le=capture.MAX_SECONDS, description="How long")
    bytes: int = Field(4 << 20, ge=24, le=capture.MAX_BYTES, description="How long the file becomes at most")
    filter: Text = Field("", max_length=1000, description="Only what that pcap-filter(7) takes")


_DAY = 86400


class TokenCreate(_Request):
    """A token to be made, for a caller from elsewhere."""

    name: Name = Field(description="Whose it is, or what for; stands in the audit log")
    role: Annotated[access.Role, _text(access.Role.parse), WithJsonSchema({"enum": [*access.Role], "type": "string"})]
    seconds: int = Field(30 * _DAY, ge=1, le=366 * _DAY, description="How long it is worth something")


class Token(BaseModel):
    """A token, without its text."""

    id: str
    name: str
    role: str
    created: str = Field(description="ISO 8601, UTC")
    expires: str = Field(description="ISO 8601, UTC")
    by: str = Field(description="Who made it")

    @classmethod
    def of(cls, token: access.Token) -> Self:
        """From the access room."""
        return cls(
            id=token.id,
            name=token.name,
            role=token.role.value,
            created=token.created_at.isoformat(),
            expires=token.expires_at.isoformat(),
            by=token.by,
        )


class NewToken(BaseModel):
    """A token with its text, which is told this once."""

    text: str = Field(description="Send it as Authorization: Bearer TEXT")
    token: Token


class NetworkCreate(_Request):
    """A network to be made, on existing pools or on new ones for the given subnets; one of each family at most."""

    name: Name
    bridge: Interface | None = Field(None, description="OVS bridge. Default: the settings'")
    vlan: Vlan | None = Field(None, description="VLAN tag, 0 for untagged. Default: a free one")
    mtu: Mtu | None = Field(None, description="Bytes. Default: the settings'")
    pools: list[Name] = Field([], description="Existing pools, by name or UUID")
    subnets: list[Subnet] = Field([], description="Subnets for which pools are made with the network")
    internal: bool = Field(False, description="No gateway on the host")
    masquerade: bool = Field(
        False, description="What leaves the network by another device of the host gets that device's address"
    )
    routed: bool = Field(False, description="Hosts route between it and the other networks of which this is true")
    labels: dict[Text, Text] = {}

    def spec(self) -> model.NetworkSpec:
        """The same in the vocabulary."""
        return model.NetworkSpec(
            name=self.name,
            bridge=self.bridge or "",
            tag=self.vlan,
            mtu=self.mtu,
            pools=tuple(self.pools),
            subnets=tuple(model.PoolSpec(subnet=subnet) for subnet in self.subnets),
            internal=self.internal,
            masquerade=self.masquerade,
            routed=self.routed,
            labels=self.labels,
        )


class EndpointCreate(_Request):
    """A container to be attached to a network. Asked again for the same container and ifname: the same endpoint."""

    network: Name = Field(description="Name or UUID")
    container: Container
    ifname: Interface
    netns: Text = Field(min_length=1, description="Path of the container's network namespace")
    addresses: list[Address] = Field([], description="Addresses asked for, one of each family at most")
    mac: Mac | None = Field(None, description="Default: derived from the address")
    mtu: Mtu | None = Field(None, description="Bytes. Default: the network's")
    labels: dict[Text, Text] = {}

    def request(self) -> model.AttachRequest:
        """The same in the vocabulary."""
        return model.AttachRequest(
            network=self.network,
            container=self.container,
            ifname=self.ifname,
            netns=self.netns,
            addresses=tuple(self.addresses),
            mac=self.mac or "",
            mtu=self.mtu,
            origin=model.Origin.API,
            labels=self.labels,
        )


class Pool(BaseModel):
    """A subnet pool and its use."""

    id: str
    name: str
    space: str
    subnet: str
    gateway: str | None
    ranges: list[str]
    exclusions: list[str]
    static_ranges: list[str]
    reservations: dict[str, str] = Field(description="Names and the addresses kept for them")
    draining: bool
    origin: str
    capacity: int = Field(description="Addresses that dynamic allocation could give in the empty pool")
    leased: int
    networks: list[str] = Field(description="Names of the networks that take addresses from it")
    labels: dict[str, str]

    @classmethod
    def of(cls, use: model.PoolUse) -> Self:
        """From the vocabulary."""
        pool = use.pool
        return cls(
            id=pool.uuid,
            name=pool.name,
            space=pool.space,
            subnet=str(pool.subnet),
            gateway=None if pool.gateway is None else str(pool.gateway),
            ranges=[str(item) for item in pool.ranges],
            exclusions=[str(item) for item in pool.exclusions],
            static_ranges=[str(item) for item in pool.static_ranges],
            reservations={name: str(address) for name, address in pool.reservations.items()},
            draining=pool.draining,
            origin=pool.origin.value,
            capacity=use.capacity,
            leased=use.leased,
            networks=list(use.networks),
            labels=dict(pool.labels),
        )


class LeaseOwner(BaseModel):
    """What a lease belongs to."""

    kind: str = Field(description="endpoint, gateway, docker or reserved")
    id: str


class Lease(BaseModel):
    """An address that is given out."""

    address: str
    pool: str = Field(description="The pool's name")
    node: str = Field(description="Node of the block that the address lies in")
    owner: LeaseOwner

    @classmethod
    def of(cls, lease: model.Lease) -> Self:
        """From the vocabulary."""
        owner = LeaseOwner(kind=lease.owner.kind.value, id=lease.owner.id)
        return cls(address=str(lease.address), pool=lease.pool, node=lease.node, owner=owner)


class LeaseRecord(BaseModel):
    """Who had an address, and from when until when."""

    address: str
    pool: str = Field(description="The pool's name")
    owner: LeaseOwner
    network: str = Field(description="The network's name; empty if the owner was on none")
    container: str = Field(
        description="Container ID; for Docker the id of Docker's endpoint; empty if it was no endpoint"
    )
    ifname: str
    node: str
    labels: dict[str, str] = Field(description="The endpoint's, such as the pod's name")
    since: str = Field(description="ISO 8601, UTC; for a lease found at a start of ovsnetd, that start")
    until: str | None = Field(description="ISO 8601, UTC; null: it lasts")
    released_by: str = Field(description="cni, docker, api, another reason in words, or empty while it lasts")

    @classmethod
    def of(cls, record: model.LeaseRecord) -> Self:
        """From the vocabulary."""
        return cls(
            address=str(record.address),
            pool=record.pool,
            owner=LeaseOwner(kind=record.owner.kind.value, id=record.owner.id),
            network=record.network,
            container=record.container,
            ifname=record.ifname,
            node=record.node,
            labels=dict(record.labels),
            since=record.since.isoformat(),
            until=None if record.until is None else record.until.isoformat(),
            released_by=record.released_by,
        )


class Network(BaseModel):
    """A network: an OVS bridge with a VLAN tag, and the pools it takes addresses from."""

    id: str
    name: str
    bridge: str
    vlan: int = Field(description="0 means untagged")
    mtu: int
    pools: list[str] = Field(description="Names, IPv4 before IPv6")
    subnets: list[str]
    gateways: list[str] = Field(description="The host's addresses with prefix lengths")
    internal: bool
    masquerade: bool
    routed: bool
    origin: str
    docker_ids: list[str] = Field(description="Ids under which Docker knows it")
    labels: dict[str, str]

    @classmethod
    def of(cls, network: model.Network, pools: Mapping[str, model.PoolUse]) -> Self:
        """From the vocabulary; `pools` by UUID. A pool that is not there was deleted, and its network with it."""
        own = [pools[uuid].pool for uuid in network.pools if uuid in pools]
        return cls(
            id=network.uuid,
            name=network.name,
            bridge=network.bridge,
            vlan=network.tag,
            mtu=network.mtu,
            pools=[pool.name for pool in own],
            subnets=[str(pool.subnet) for pool in own],
            gateways=[str(gateway) for gateway in network.gateways],
            internal=network.internal,
            masquerade=network.masquerade,
            routed=network.routed,
            origin=network.origin.value,
            docker_ids=sorted(network.docker_ids),
            labels=dict(network.labels),
        )


class NetworkUpdate(_Request):
    """What to change of a network; absent keys stay."""

    vlan: Vlan | None = Field(None, description="Its VLAN tag, 0 for untagged; endpoints with one of their own keep it")


class BandwidthUpdate(_Request):
    """Limits as the container sees them; absent keys stay, 0 is no limit."""

    ingress_rate: int | None = Field(None, ge=0, le=model.MAX_RATE, description="Bits per second that it receives")
    ingress_burst: int | None = Field(None, ge=0, le=model.MAX_RATE, description="Bits")
    egress_rate: int | None = Field(None, ge=0, le=model.MAX_RATE, description="Bits per second that it sends")
    egress_burst: int | None = Field(None, ge=0, le=model.MAX_RATE, description="Bits")


class EndpointUpdate(_Request):
    """What to change of an endpoint while traffic goes on; absent keys stay."""

    quarantined: bool | None = Field(None, description="Whether nothing passes to and from it; it keeps its addresses")
    vlan: Vlan | None = Field(
        None, description="A VLAN tag of its own, 0 for untagged; null: that of its network again"
    )
    bandwidth: BandwidthUpdate | None = Field(None, description="Other limits; null: none")
    published: list[Published] | None = Field(None, description="Instead of the old ones")
    take_from: Text | None = Field(
        None,
        description="UUID of an endpoint that loses those of its published ports which this one gets, at the same instant; "
        "without `published` all that it has",
    )

    def change(self) -> model.EndpointChange:
        """The same in the vocabulary."""
        limits: dict[str, int] | None = None
        if "bandwidth" in self.model_fields_set:
            none = dict.fromkeys(BandwidthUpdate.model_fields, 0)
            limits = none if self.bandwidth is None else self.bandwidth.model_dump(exclude_none=True)
        return model.EndpointChange(
            quarantined=self.quarantined,
            tag=self.vlan,
            network_tag=self.vlan is None and "vlan" in self.model_fields_set,
            bandwidth=limits,
            published=None if self.published is None else tuple(self.published),
            take_from=self.take_from or "",
        )


class Owner(BaseModel):
    """Who holds an endpoint."""

    kind: str = Field(description="docker, cni or api")
    container: str
    ifname: str
    sandbox: str


class Endpoint(BaseModel):
    """An attachment of a container to a network."""

    id: str
    network: str = Field(description="The network's name")
    network_id: str
    container: str = Field(description="Container ID; for Docker the id of Docker's endpoint")
    ifname: str = Field(description="The interface in the container; empty for Docker, which does not tell")
    origin: str
    node: str
    owner: Owner
    addresses: list[str] = Field(description="With prefix lengths")
    mac: str
    vlan: int = Field(description="0 means untagged")
    own_vlan: int | None = Field(description="Its own VLAN tag; null: it has that of its network")
    bridge: str
    port: str = Field(description="The switch port, in the host's namespace")
    link: str = Field(description="The container's link as ovsnet made it")
    mtu: int
    sandbox: str = Field(description="Path of the container's network namespace; empty until Docker's Join")
    labels: dict[str, str]
    trunk: list[int] = Field(description="VLANs that the container gets tagged, beside the network's own")
    config: str = Field(description="The CNI configuration that attached it; empty for none")
    aliases: list[str] = Field(description="Names for it on the network")
    bandwidth: dict[str, int] = Field(
        description="Limits: ingress_rate, ingress_burst, egress_rate, egress_burst in bits per second and bits; ingress is what "
        "the container receives. Those that are not there are not limited"
    )
    quarantined: bool = Field(description="Nothing passes to and from it")
    published: list[str] = Field(description="Ports of the host that lead to it: tcp/8080/80, or tcp/192.0.2.1/8080/80")

    @classmethod
    def of(cls, endpoint: model.Endpoint, network: model.Network) -> Self:
        """From the vocabulary; `network` is the endpoint's."""
        return cls(
            id=endpoint.uuid,
            network=endpoint.network_name,
            network_id=endpoint.network,
            container=endpoint.container,
            ifname=endpoint.ifname,
            origin=endpoint.origin.value,
            node=endpoint.node,
            owner=Owner(
                kind=endpoint.origin.value,
                container=endpoint.container,
                ifname=endpoint.ifname,
                sandbox=endpoint.sandbox,
            ),
            addresses=[str(address) for address in endpoint.addresses],
            mac=endpoint.mac,
            vlan=endpoint.tag_on(network),
            own_vlan=endpoint.own_tag,
            bridge=network.bridge,
            port=endpoint.port,
            link=endpoint.link,
            mtu=endpoint.mtu,
            sandbox=endpoint.sandbox,
            labels=dict(endpoint.labels),
            trunk=list(endpoint.trunk),
            config=endpoint.config,
            aliases=list(endpoint.aliases),
            bandwidth={name: value for name, value in dataclasses.asdict(endpoint.bandwidth).items() if value},
            quarantined=endpoint.quarantined,
            published=[str(port) for port in endpoint.published],
        )


class Operation(BaseModel):
    """Work that goes on behind its answer."""

    id: str
    kind: str = Field(description="remove-network, check or repair")
    subject: str = Field(description="What it is done to; empty for all")
    by: str = Field(description="Who asked for it")
    status: str = Field(description="running, succeeded or failed")
    started: str = Field(description="ISO 8601, UTC")
    ended: str | None = Field(description="ISO 8601, UTC; null while it runs")
    done: int = Field(description="Steps that are done")
    total: int = Field(description="Steps that there are; 0: not known yet")
    problem: dict[str, Any] | None = Field(description="Why it failed (RFC 9457, without status and instance)")
    result: Any = Field(description="What it yielded, if it yields something")

    @classmethod
    def of(cls, job: jobs.Job) -> Self:
        """From the use case."""
        return cls(
            id=job.id,
            kind=job.kind,
            subject=job.subject,
            by=job.by,
            status=job.status,
            started=job.started.isoformat(),
            ended=None if job.ended is None else job.ended.isoformat(),
            done=job.done,
            total=job.total,
            problem=job.problem,
            result=job.result,
        )


class ChangeRecord(BaseModel):
    """Who changed what by this API."""

    id: int
    time: str = Field(description="ISO 8601, UTC")
    caller: str = Field(description="Such as uid:0, token:ci or cert:CN=ci")
    role: str
    method: str
    path: str
    operation: str = Field(description="The operationId")
    status: int = Field(description="Of HTTP; from 500 on it may have happened or not")
    before: Any = Field(description="What was there, as a GET shows it; null: nothing")
    after: Any = Field(description="What was there then; null: nothing, or not known")

    @classmethod
    def of(cls, change: audit.Change) -> Self:
        """From the use case."""
        return cls(**dataclasses.asdict(change) | {"time": change.time.isoformat()})


class Health(BaseModel):
    """The controller serves requests."""

    status: Literal["ok"]
    state: str = Field(description="The OVSNet database: ok, or what is wrong with it")
    switch: str = Field(description="The Open_vSwitch database: ok, or what is wrong with it")
    node: str
    version: str

    @classmethod
    def of(cls, health: model.Health) -> Self:
        """From the vocabulary, where `health.ok`."""
        return cls(status="ok", state=health.state, switch=health.switch, node=health.node, version=health.version)


class Event(BaseModel):
    """Something that happened to an address."""

    id: int = Field(description="Grows with time; what `after` and `Last-Event-ID` take")
    time: str = Field(description="ISO 8601")
    what: str = Field(description="leased, changed (Docker's address has become an endpoint's) or released")
    reason: str = Field(description="The edge that it came by (cni, docker, api), or the reason in words")
    address: str
    pool: str = Field(description="The pool's name")
    owner: LeaseOwner
    network: str
    container: str
    ifname: str
    node: str
    labels: dict[str, str]

    @classmethod
    def of(cls, event: model.Event) -> Self:
        """From the vocabulary."""
        return cls(
            id=event.id,
            time=event.time.isoformat(),
            what=event.what.value,
            reason=event.reason,
            address=str(event.address),
            pool=event.pool,
            owner=LeaseOwner(kind=event.owner.kind.value, id=event.owner.id),
            network=event.network,
            container=event.container,
            ifname=event.ifname,
            node=event.node,
            labels=dict(event.labels),
        )


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(description="URI that names the kind of problem; follows from the code")
    title: str = Field(description="The code in words")
    status: int
    detail: str = Field(description="What happened")
    code: str = Field(description="Stable code, see docs/api.md")
    hint: str = Field(description="What to do about it")
    details: dict[str, str] = Field(description="Context for machines; for a refused body the keys and what is wrong")
    instance: str = Field(description="Path of the request")


class Operations(RootModel[list[Operation]]):
    """All operations that run, or ended in the last hour."""


class ChangeRecords(RootModel[list[ChangeRecord]]):
    """Changes, the latest first."""


class Tokens(RootModel[list[Token]]):
    """All tokens."""


class Pools(RootModel[list[Pool]]):
    """All pools."""


class Leases(RootModel[list[Lease]]):
    """All leases of a pool."""


class LeaseHistory(RootModel[list[LeaseRecord]]):
    """Who had an address, the latest first; a thousand at most."""


class Events(RootModel[list[Event]]):
    """Events, the oldest first."""


class Networks(RootModel[list[Network]]):
    """All networks."""


class Endpoints(RootModel[list[Endpoint]]):
    """All endpoints, or those of one network."""
