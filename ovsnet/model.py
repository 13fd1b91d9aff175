"""The vocabulary of ovsnet as frozen dataclasses: what rooms return and use cases exchange.

Pure: no I/O, no dependency but the standard library and our own names. Rows of a database, netlink messages and protocol
bodies never leave the room that speaks them; these objects do.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Self

from .errors import InvalidRequest

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

MIN_MTU = 68  # RFC 791; with IPv6 it is 1280 (RFC 8200, section 5)
MIN_MTU_IPV6 = 1280
MAX_MTU = 65535
MAX_TAG = 4094  # IEEE 802.1Q; 0 means untagged
MAX_RATE = 10**12  # bits per second, or bits: more than any device has

QUARANTINED = "ovsnet.quarantined"  # label of an endpoint that is to be cut off
OWN_TAG = "ovsnet.vlan"  # label of an endpoint that is on a VLAN of its own, not on its network's: the tag
ASKED = "ovsnet.asked"  # label of an endpoint: what its request asked for, as JSON, of what was changed since
OWN_LABELS = frozenset({QUARANTINED, OWN_TAG, ASKED})  # of endpoints, which no request may bring
DEFAULT_SPACE = "ovsnet"
ANTI_SPOOFING = "ovsnet.anti-spoofing"  # label of a network: "false" lets its containers send as whom they like


class Origin(StrEnum):
    """Through which edge a pool, network or endpoint came into being."""

    DOCKER = "docker"
    CNI = "cni"
    API = "api"


@dataclass(frozen=True, slots=True, order=True)
class AddressRange:
    """An inclusive range of addresses of one family."""

    first: IPAddress
    last: IPAddress

    def __post_init__(self) -> None:
        if self.first.version != self.last.version or int(self.first) > int(self.last):
            raise InvalidRequest(
                f"address range {self.first}-{self.last} is not one", hint="write first-last, both of one family"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `10.0.0.5`, `10.0.0.5-10.0.0.9` or a prefix such as `10.0.0.8/29` (host bits are not allowed)."""
        try:
            if "/" in text:
                net = ipaddress.ip_network(text.strip())
                return cls(net[0], net[-1])
            first, dash, last = text.partition("-")
            start = ipaddress.ip_address(first.strip())
            return cls(start, ipaddress.ip_address(last.strip()) if dash else start)
        except ValueError as exc:
            raise InvalidRequest(
                f"address range {text!r} cannot be read: {exc}",
                hint="write an address, first-last, or a prefix such as 10.0.0.8/29",
            ) from None

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def __contains__(self, address: object) -> bool:
        return (
            isinstance(address, (ipaddress.IPv4Address, ipaddress.IPv6Address))
            and address.version == self.first.version
            and int(self.first) <= int(address) <= int(self.last)
        )

    def within(self, subnet: IPNetwork) -> bool:
        """Whether the whole range lies inside `subnet`."""
        return self.first in subnet and self.last in subnet


class OwnerKind(StrEnum):
    """What a lease belongs to."""

    ENDPOINT = "endpoint"  # id: the endpoint's key, see Endpoint.key
    GATEWAY = "gateway"  # id: the pool's name
    DOCKER = "docker"  # id: the address; given to Docker, not yet seen in a CreateEndpoint
    RESERVED = "reserved"  # id: the name that the operator chose
    IPAM = "ipam"  # id: node/configuration/container/ifname; given to another CNI plugin's interface


@dataclass(frozen=True, slots=True)
class LeaseOwner:
    """Who holds an address; stored as `kind:id`."""

    kind: OwnerKind
    id: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the stored form."""
        kind, _, ident = text.partition(":")
        return cls(OwnerKind(kind), ident)

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.id}"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Who we are to the state database's other hosts, and who vouches for them: paths of PEM files."""

    private_key: Path
    certificate: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What a caller asks of a new subnet pool.

    `gateway` None means "the first assignable address" unless `no_gateway`. Ranges empty means the whole subnet.
    """

    subnet: IPNetwork
    name: str = ""
    space: str = DEFAULT_SPACE
    gateway: IPAddress | None = None
    no_gateway: bool = False
    ranges: tuple[AddressRange, ...] = ()
    exclusions: tuple[AddressRange, ...] = ()
    static_ranges: tuple[AddressRange, ...] = ()
    origin: Origin = Origin.API
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pool:
    """A subnet pool as stored.

    `ranges` limit dynamic allocation (empty: whole subnet); `exclusions` are never given; `static_ranges` only when asked for
    by address. A `draining` pool gives nothing new of itself. `reservations` keep addresses for names: who attaches by that name
    gets the address, and nobody else does. `requested_by` is the Docker daemon's incarnation that asked for the pool last (see
    ovsnet.docker), or "".
    """

    uuid: str
    name: str
    space: str
    subnet: IPNetwork
    gateway: IPAddress | None
    ranges: tuple[AddressRange, ...]
    exclusions: tuple[AddressRange, ...]
    static_ranges: tuple[AddressRange, ...]
    origin: Origin
    labels: Mapping[str, str]
    requested_by: str = ""
    draining: bool = False
    reservations: Mapping[str, IPAddress] = field(default_factory=dict)

    @property
    def gateway_interface(self) -> IPInterface | None:
        """The gateway with the subnet's prefix length, as it stands on the host's port."""
        return None if self.gateway is None else ipaddress.ip_interface(f"{self.gateway}/{self.subnet.prefixlen}")

    def interface(self, address: IPAddress) -> IPInterface:
        """`address` with the subnet's prefix length."""
        return ipaddress.ip_interface(f"{address}/{self.subnet.prefixlen}")


@dataclass(frozen=True, slots=True)
class PoolChange:
    """What to change of a pool; None leaves it as it is. A `subnet` can only be a larger one around the old."""

    subnet: IPNetwork | None = None
    ranges: tuple[AddressRange, ...] | None = None
    exclusions: tuple[AddressRange, ...] | None = None
    static_ranges: tuple[AddressRange, ...] | None = None
    draining: bool | None = None

    def given(self) -> dict[str, object]:
        """The changes by the pool's attribute."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}


@dataclass(frozen=True, slots=True)
class Lease:
    """An address that is given out, and to whom."""

    pool: str  # the pool's name
    address: IPAddress
    owner: LeaseOwner
    node: str  # of the block that the address lies in

    @property
    def container(self) -> str:
        """The container whose endpoint has it; "" if it is no endpoint's."""
        return self.owner.id.split("/")[1] if self.owner.kind is OwnerKind.ENDPOINT else ""


@dataclass(frozen=True, slots=True)
class LeaseState:
    """Who holds an address of a pool at this moment; `owner` (in its stored form) None says that nobody does.

    `address` is an integer. `endpoint` is the owner where it is one; `network` is a name, "" if the pool has none or several.
    """

    pool: Pool
    address: int
    owner: str | None
    node: str = ""
    endpoint: Endpoint | None = None
    network: str = ""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A possession of an address, from the event journal. `until` None: it lasts. Times have a zone.

    `container` and `ifname` are the endpoint's, "" where the owner never was one. `released_by` is the edge that ended it
    ("cni", "docker", "api"), or the reason in words; "" while it lasts.
    """

    address: IPAddress
    pool: str  # the pool's name
    owner: LeaseOwner
    network: str  # name
    container: str
    ifname: str
    node: str
    labels: Mapping[str, str]
    since: datetime
    until: datetime | None
    released_by: str


class EventKind(StrEnum):
    """What can happen to an address."""

    LEASED = "leased"
    CHANGED = "changed"  # Docker's address has become an endpoint's
    RELEASED = "released"
    ALTERED = "altered"  # the endpoint that has it, or the network whose gateway it is, is not as it was


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an address, from the event journal. `id` grows with time.

    `reason` is the edge it came by ("cni", "docker", "api"), or the reason in words; the rest is as in LeaseRecord.
    """

    id: int
    time: datetime
    what: EventKind
    reason: str
    address: IPAddress
    pool: str
    owner: LeaseOwner
    network: str
    container: str
    ifname: str
    node: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PoolUse:
    """A pool with its counts: `capacity` is what dynamic allocation could give in an empty pool."""

    pool: Pool
    capacity: int
    leased: int
    networks: tuple[str, ...]


class Protocol(StrEnum):
    """Transport protocols whose ports can be published, with their names in nftables and /etc/protocols."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


@dataclass(frozen=True, slots=True, order=True)
class PublishedPort:
    """A port of the host that leads to a port of an endpoint.

    `host_address` None means every address of the host, of each family that the endpoint has, and an unspecified one (0.0.0.0,
    ::) every address of its family. Stored as `tcp/8080/80`, with an address `tcp/192.0.2.1/8080/80`.
    """

    protocol: Protocol
    host_port: int
    container_port: int
    host_address: IPAddress | None = None

    def __post_init__(self) -> None:
        for port in (self.host_port, self.container_port):
            if not 0 < port < 65536:
                raise InvalidRequest(f"port {port} is not one", hint="use 1 to 65535")

    @property
    def versions(self) -> tuple[int, ...]:
        """IP versions by which it is reached."""
        return (4, 6) if self.host_address is None else (self.host_address.version,)

    def clashes(self, other: PublishedPort) -> bool:
        """Whether a packet could be meant for both."""
        mine, theirs = self.host_address, other.host_address
        same = (
            mine is None
            or theirs is None
            or mine == theirs
            or (mine.version == theirs.version and (mine.is_unspecified or theirs.is_unspecified))
        )
        return same and (self.protocol, self.host_port) == (other.protocol, other.host_port)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the stored form; InvalidRequest."""
        try:
            protocol, *address, host_port, container_port = text.split("/")
            host_address = ipaddress.ip_address(address[0]) if address else None
            return cls(Protocol(protocol), int(host_port), int(container_port), host_address)
        except (ValueError, IndexError) as exc:
            raise InvalidRequest(
                f"published port {text[:80]!r} cannot be read: {exc}", hint="write it as tcp/8080/80"
            ) from None

    def __str__(self) -> str:
        parts = [self.protocol.value, self.host_address, self.host_port, self.container_port]
        return "/".join(str(part) for part in parts if part is not None)


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A published port and the endpoint's address that it leads to."""

    port: PublishedPort
    address: IPAddress


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Limits of an endpoint as its container sees them: rates in bits per second, bursts in bits, 0 for none.

    `ingress` is what the container receives, `egress` what it sends (CNI's convention for the capability `bandwidth`).
    """

    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0

    def __bool__(self) -> bool:
        return bool(self.ingress_rate or self.egress_rate)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What a caller asks of a new network.

    `pools` are names (or ids) of existing pools, `subnets` pools to be made with it; at most one pool per family in all.
    `gateways` are set where they are not the pools' own, and `no_gateways` says that there shall be none on the host.
    `tag` None lets ovsnet choose a free one; `bridge` and `mtu` empty/None take the settings' default. `masquerade` gives what
    leaves the network by another device the host's address, and `routed` has it reach the other networks that are: None means no,
    and no opinion on a network that exists.
    """

    name: str
    bridge: str = ""
    tag: int | None = None
    mtu: int | None = None
    pools: tuple[str, ...] = ()
    subnets: tuple[PoolSpec, ...] = ()
    gateways: tuple[IPInterface, ...] = ()
    no_gateways: bool = False
    internal: bool = False
    origin: Origin = Origin.API
    docker_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    masquerade: bool | None = None
    routed: bool | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """A network as stored: an OVS bridge with a VLAN tag, the pools it takes addresses from, the gateways on the host.

    `docker_ids` are the ids under which Docker knows it (several when Docker networks joined it). `internal` networks have
    no gateway on the host. `tag` 0 means untagged. Hosts route between two networks only if both are `routed`.
    """

    uuid: str
    name: str
    bridge: str
    tag: int
    mtu: int
    pools: tuple[str, ...]  # uuids, IPv4 before IPv6
    gateways: tuple[IPInterface, ...]
    internal: bool
    origin: Origin
    docker_ids: frozenset[str]
    labels: Mapping[str, str]
    masquerade: bool = False
    routed: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An attachment of a container to a network.

    `container` and `ifname` make, with the network, the owner key. For Docker `container` is Docker's endpoint id and
    `ifname` is empty: Docker tells no more. `sandbox` is the namespace's path ("" until Docker's Join). `port` is the
    switch port, which stays in the host's namespace; `link` is the macvlan's name as ovsnet made it. `trunk` are VLANs that
    the container gets tagged, beside the network's own. `config` is the name of the CNI configuration that attached it: its
    runtime may collect garbage among the attachments of that name, "" for none. `aliases` are names for it on the network.
    `ipam` is what another IPAM has given, as JSON: a CNI result; "" where the addresses are ours. `wiring` is what its request
    asked of the interface beside all this (see ovsnet.wiring), "" for nothing.
    """

    uuid: str
    network: str  # uuid
    network_name: str
    container: str
    ifname: str
    origin: Origin
    node: str
    sandbox: str
    addresses: tuple[IPInterface, ...]
    mac: str
    mtu: int
    port: str
    link: str
    labels: Mapping[str, str]
    published: tuple[PublishedPort, ...] = ()
    bandwidth: Bandwidth = Bandwidth()
    trunk: tuple[int, ...] = ()
    config: str = ""
    aliases: tuple[str, ...] = ()
    ipam: str = ""
    wiring: str = ""

    @property
    def forwardings(self) -> tuple[Forwarding, ...]:
        """Where its published ports lead, once for each family that both have."""
        return tuple(
            Forwarding(port, address.ip)
            for port in self.published
            for address in self.addresses
            if address.version in port.versions
        )

    @property
    def quarantined(self) -> bool:
        """Whether nothing may pass, in either direction."""
        return QUARANTINED in self.labels

    @property
    def own_tag(self) -> int | None:
        """The VLAN tag that its port has instead of its network's, None for that one; 0 means untagged."""
        text = self.labels.get(OWN_TAG)
        return None if text is None else int(text)

    def tag_on(self, network: Network) -> int:
        """The VLAN tag that its port is to have; `network` is its own."""
        own = self.own_tag
        return network.tag if own is None else own

    @property
    def asked(self) -> Asked:
        """What its request asked for: what it has, but for what was changed since."""
        kept = json.loads(self.labels.get(ASKED, "{}"))
        return Asked(
            tuple(map(PublishedPort.parse, kept["published"])) if "published" in kept else self.published,
            Bandwidth(**kept["bandwidth"]) if "bandwidth" in kept else self.bandwidth,
        )

    @property
    def key(self) -> str:
        """The owner key, unique in the cluster: `network-uuid/container/ifname`."""
        return endpoint_key(self.network, self.container, self.ifname)


@dataclass(frozen=True, slots=True)
class Asked:
    """What of an endpoint that can be changed while it stands its request asked for."""

    published: tuple[PublishedPort, ...]
    bandwidth: Bandwidth


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """What to change of an endpoint that stands; None leaves it as it is.

    `tag` is a VLAN tag of its own, with `network_tag` it has its network's again. `bandwidth` has values of Bandwidth by their
    names, the others stay. `published` are all ports that lead to it from now on, and `take_from` the uuid of an endpoint that
    loses those which it has of them (all of its own, if `published` is None).
    """

    quarantined: bool | None = None
    tag: int | None = None
    network_tag: bool = False
    bandwidth: Mapping[str, int] | None = None
    published: tuple[PublishedPort, ...] | None = None
    take_from: str = ""


def endpoint_key(network_uuid: str, container: str, ifname: str) -> str:
    """The owner key of an endpoint, also the id of its leases' owner."""
    return f"{network_uuid}/{container}/{ifname}"


class PortRole(StrEnum):
    """What a switch port of ours is for."""

    SPARE = "spare"  # made ahead for a network, not yet an endpoint's
    ENDPOINT = "endpoint"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class SwitchPort:
    """A port of ours on the switch. `endpoint` is the endpoint's uuid when `role` says so, else "".

    `ifindex` and `number` (OpenFlow's) are 0 until ovs-vswitchd has made the device. `error` is what vswitchd says of the
    interface, or "". `rate` and `burst` limit what comes from its device (bits per second, and bits; 0 for none, and for
    vswitchd's own choice). `vlan_mode` is what the switch was found to have.
    """

    name: str
    bridge: str
    tag: int
    mtu: int
    role: PortRole
    network: str  # uuid
    endpoint: str = ""
    ifindex: int = 0
    error: str = ""
    trunk: tuple[int, ...] = ()
    rate: int = 0
    burst: int = 0
    number: int = 0
    vlan_mode: str = field(default="", compare=False)

    @property
    def usual_mode(self) -> str:
        """The `vlan_mode` (ovs-vswitchd.conf.db(5)) that fits its VLANs: untagged frames are those of its own, or of none."""
        if not self.trunk:
            return ""
        return "native-untagged" if self.tag else "trunk"


@dataclass(frozen=True, slots=True)
class SwitchState:
    """The switch at one instant: names of all bridges, our ports by name, and the names of all ports, whoever made them."""

    bridges: frozenset[str]
    ports: Mapping[str, SwitchPort]
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Sender:
    """As whom the owner of a switch port may send. Without `addresses`, as whoever has the MAC; `trunk` allows tagged frames."""

    mac: str
    addresses: tuple[IPAddress, ...]
    trunk: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A route for the container; `gateway` None means on-link.

    `mtu` and `advmss` are in bytes, `priority` is the metric, 0 each for the kernel's choice; `table` is the routing table, 0 the
    main one; `scope` is that of rtnetlink(7), None for the one that fits the gateway.
    """

    destination: IPNetwork
    gateway: IPAddress | None = None
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int = 0
    scope: int | None = None


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """A container asks for an interface on a network (CNI ADD, or REST).

    `network` names the network; `create`, when given, is what to make if it does not exist yet (and must agree with it if
    it does). `addresses` asks for given ones (at most one per family). `routes` are added as they are; the default route
    goes to the network's gateways unless `default_route` is False. `reserved_for` are names under which an address may be
    reserved for this container; the first that has one counts. `foreign` are addresses that another IPAM has given, and then
    `addresses` is empty; `gateways` are the next hops that came with them. With `link_first` that IPAM has not been asked, for it
    needs the interface: this makes that, and the same request with `foreign` follows. `promiscuous` and `sysctls` (the path below
    /proc/sys with the interface's name in it, and the value) are for the container's interface; the rest is as in Endpoint.
    """

    network: str
    container: str
    ifname: str
    netns: str
    create: NetworkSpec | None = None
    addresses: tuple[IPAddress, ...] = ()
    mac: str = ""
    mtu: int | None = None
    routes: tuple[Route, ...] = ()
    default_route: bool = True
    reserved_for: tuple[str, ...] = ()
    origin: Origin = Origin.CNI
    labels: Mapping[str, str] = field(default_factory=dict)
    foreign: tuple[IPInterface, ...] = ()
    published: tuple[PublishedPort, ...] = ()
    bandwidth: Bandwidth = Bandwidth()
    trunk: tuple[int, ...] = ()
    promiscuous: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    aliases: tuple[str, ...] = ()
    gateways: tuple[IPAddress, ...] = ()
    ipam: str = ""
    link_first: bool = False


@dataclass(frozen=True, slots=True)
class IpamRequest:
    """Another CNI plugin asks for addresses: one of each pool.

    `key` is `configuration/container/ifname`, whose they will be. `pools` are names; `subnets` are pools to be made if there is
    none of that subnet, called `name` (`name`-v6 for IPv6). `addresses` and `reserved_for` are as in AttachRequest.
    """

    key: str
    name: str
    pools: tuple[str, ...] = ()
    subnets: tuple[PoolSpec, ...] = ()
    addresses: tuple[IPAddress, ...] = ()
    reserved_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attachment:
    """The answer to an AttachRequest: everything that a CNI result needs.

    `gateways` has one entry per address of the endpoint, None where its network has no gateway of that family.
    """

    endpoint: Endpoint
    network: Network
    gateways: tuple[IPAddress | None, ...]
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What an attachment is expected to be (CNI CHECK), by the result that its runtime was given.

    `mac` "" and `mtu` 0 mean what the endpoint has. `routes` without a gateway of their own go to the interface.
    """

    network: str
    container: str
    ifname: str
    netns: str
    addresses: tuple[IPInterface, ...] = ()
    routes: tuple[Route, ...] = ()
    mac: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """Whether this controller can serve requests now.

    `state` and `switch` tell of the OVSNet database and of the Open_vSwitch one: "ok", or the reason in words. `ok` is True
    when both are. `version` is ovsnetd's.
    """

    ok: bool
    state: str
    switch: str
    node: str
    version: str


def parse_time(text: str) -> datetime:
    """A moment in ISO 8601, with a zone; without one it is this host's local time. InvalidRequest."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as exc:
        raise InvalidRequest(
            f"time {text[:80]!r} cannot be read: {exc}",
            hint="write it as 2026-05-17T14:30, or with a zone as 2026-05-17T14:30:00Z",
        ) from None


def check_tag(tag: int) -> int:
    """`tag` if it is a VLAN id from 0 (untagged) to 4094, else InvalidRequest (IEEE 802.1Q)."""
    if not 0 <= tag <= MAX_TAG:
        raise InvalidRequest(f"VLAN tag {tag} is not one", hint=f"use 0 (untagged) to {MAX_TAG}")
    return tag


def check_mtu(mtu: int, *, ipv6: bool = False) -> int:
    """`mtu` if the kernel and the address families take it (bytes), else InvalidRequest (RFC 791, RFC 8200 section 5)."""
    least = MIN_MTU_IPV6 if ipv6 else MIN_MTU
    if not least <= mtu <= MAX_MTU:
        raise InvalidRequest(f"MTU {mtu} is not possible", hint=f"use {least} to {MAX_MTU} bytes")
    return mtu
