"""The CNI protocol: from environment and network configuration to the use cases' vocabulary, and back to results and errors.

Owns everything that the specification says of messages (SPEC 1.1.0, and the result shapes back to 0.1.0), and the one table
from our error codes to CNI's. Pure: no I/O. Called by the blueprint; docs/cni.md documents the keys and codes for users, and a
test ties it to this.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Final, Literal, NoReturn, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from ovsnet.errors import InvalidRequest, OvsnetError
from ovsnet.model import (
    MAX_TAG,
    AddressRange,
    Attachment,
    AttachRequest,
    Bandwidth,
    Expectation,
    IPAddress,
    IPInterface,
    IPNetwork,
    NetworkSpec,
    Origin,
    PoolSpec,
    Protocol,
    PublishedPort,
    Route,
    check_mtu,
    check_tag,
)
from ovsnet.names import check_container_id, check_ifname, check_mac, check_network_name

JSON = dict[str, Any]

VERSIONS: Final = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
SINCE: Final[Mapping[str, str]] = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
IPAM_TYPE: Final = "ovsnet-ipam"
CAPABILITIES: Final = ("portMappings", "bandwidth", "ips", "mac", "dns", "ipRanges", "aliases")

MAX_RATE: Final = 10**12  # bits per second, or bits: more than any device has

# Reserved by the specification (section 5 "Error").
INCOMPATIBLE_VERSION: Final = 1
UNKNOWN_CONTAINER: Final = 3
INVALID_ENVIRONMENT: Final = 4
CANNOT_DECODE: Final = 6
INVALID_CONFIG: Final = 7
TRY_AGAIN_LATER: Final = 11
NOT_AVAILABLE: Final = 50
INTERNAL: Final = 999

# The one table from our codes to CNI's; our own begin at 100 and are never given another meaning.
ERROR_CODES: Final[Mapping[str, int]] = {
    "internal": INTERNAL,
    "invalid-request": INVALID_CONFIG,
    "invalid-netns": INVALID_ENVIRONMENT,
    "address-not-in-pool": 100,
    "not-found": 101,
    "pool-not-found": 102,
    "network-not-found": 103,
    "endpoint-not-found": UNKNOWN_CONTAINER,
    "conflict": 110,
    "already-exists": 111,
    "pool-overlap": 112,
    "tag-in-use": 113,
    "address-in-use": 114,
    "in-use": 115,
    "link-exists": 116,
    "port-in-use": 117,
    "attachment-broken": 118,
    "exhausted": 120,
    "pool-exhausted": 121,
    "unavailable": TRY_AGAIN_LATER,
    "state-unavailable": TRY_AGAIN_LATER,
    "switch-unavailable": TRY_AGAIN_LATER,
    "link-failed": TRY_AGAIN_LATER,
    "deadline-exceeded": TRY_AGAIN_LATER,
    "forbidden": 130,
    "bad-config": 131,
}


# What may be set of one interface and concerns nothing else: neither forwarding nor disable_ipv6, which is ovsnet's to decide.
SYSCTLS: Final[Mapping[str, frozenset[str]]] = {
    "ipv4.conf": frozenset(
        {
            "accept_local",
            "accept_redirects",
            "accept_source_route",
            "arp_accept",
            "arp_announce",
            "arp_filter",
            "arp_ignore",
            "arp_notify",
            "log_martians",
            "proxy_arp",
            "rp_filter",
            "secure_redirects",
            "send_redirects",
            "src_valid_mark",
        }
    ),
    "ipv6.conf": frozenset({"accept_ra", "accept_redirects", "addr_gen_mode", "autoconf", "hop_limit", "ndisc_notify"}),
    "ipv4.neigh": frozenset(
        {"base_reachable_time_ms", "gc_stale_time", "mcast_solicit", "retrans_time_ms", "ucast_solicit"}
    ),
    "ipv6.neigh": frozenset(
        {"base_reachable_time_ms", "gc_stale_time", "mcast_solicit", "retrans_time_ms", "ucast_solicit"}
    ),
}


class CniError(Exception):
    """An error in the protocol's own terms: its code, what happened, and what to do about it."""

    def __init__(self, code: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    @classmethod
    def of(cls, error: OvsnetError) -> CniError:
        """What `error` is in CNI's terms."""
        return cls(ERROR_CODES[error.code], error.message, error.hint)

    def render(self, version: str) -> JSON:
        """The error document for a configuration of `version`."""
        return {"cniVersion": version, "code": self.code, "msg": self.message, "details": self.hint}


@dataclass(frozen=True, slots=True)
class Call:
    """One execution of the plugin: its CNI_* variables, its network configuration, and the version that this asks for."""

    environment: Mapping[str, str]
    config: JSON
    version: str

    @property
    def command(self) -> str:
        """ADD, DEL, CHECK, GC, STATUS or VERSION, as given."""
        return self.environment.get("CNI_COMMAND", "")


def load(stdin: bytes) -> JSON:
    """The network configuration on stdin; CniError 6 if it is not a JSON object."""
    try:
        config = json.loads(stdin, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise CniError(CANNOT_DECODE, f"the network configuration is not JSON: {exc}", "hand it in on stdin") from None
    if not isinstance(config, dict):
        raise CniError(CANNOT_DECODE, "the network configuration is not a JSON object", "begin it with '{'")
    return config


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")  # Python reads it, the runtime that gets it back does not


def version_of(config: JSON) -> str:
    """The version asked for, "0.1.0" if none is (SPEC 0.1.0 knew no such key); CniError 7 if it is not a string."""
    version = config.get("cniVersion", VERSIONS[0])
    if not isinstance(version, str):
        raise CniError(INVALID_CONFIG, "cniVersion is not a string", f'write "cniVersion": "{VERSIONS[-1]}"')
    return version


def check_version(call: Call) -> None:
    """CniError 1 if we do not speak the version, or if it has no such command."""
    if call.version not in VERSIONS:
        hint = f"supported: {', '.join(VERSIONS)}"
        raise CniError(INCOMPATIBLE_VERSION, f"cniVersion {call.version[:40]!r} is not supported", hint)
    since = SINCE.get(call.command, VERSIONS[0])
    if VERSIONS.index(call.version) < VERSIONS.index(since):
        hint = f"set cniVersion to {since} or newer"
        raise CniError(INCOMPATIBLE_VERSION, f"cniVersion {call.version} has no command {call.command}", hint)


def versions(call: Call) -> JSON:
    """VERSION's result."""
    return {"cniVersion": call.version, "supportedVersions": list(VERSIONS)}


@dataclass(frozen=True, slots=True)
class Key:
    """Which attachment a call is about: all that DEL needs."""

    network: str
    container: str
    ifname: str


def key(call: Call) -> Key:
    """The attachment's key. Looks at nothing else, so that DEL works with a configuration that ADD refused."""
    container = _variable(call, "CNI_CONTAINERID", check_container_id)
    ifname = _variable(call, "CNI_IFNAME", check_ifname)
    return Key(_network_name(call), container, ifname)


def config_name(call: Call) -> str:
    """The configuration's name, which its runtime knows its attachments by."""
    name = call.config.get("name")
    if not isinstance(name, str) or not name:
        raise CniError(INVALID_CONFIG, "the network configuration has no name", 'add "name": "..."')
    return name


def _network_name(call: Call) -> str:
    network = call.config.get("network") or config_name(call)
    if not isinstance(network, str):
        raise CniError(INVALID_CONFIG, "network is not a string", "name the network to attach to, or leave it out")
    return check_network_name(network)


@dataclass(frozen=True, slots=True)
class Add:
    """What ADD is asked. `dns` goes into the result; `previous` is the result of the plugin before us in the chain."""

    request: AttachRequest
    dns: JSON
    previous: JSON | None


def parse_add(call: Call) -> Add:
    """What ADD is asked. CniError 2, 4 or 7, or InvalidRequest, if environment or configuration are wrong."""
    which = key(call)
    netns = _variable(call, "CNI_NETNS", str)
    args = _cni_args(call.environment.get("CNI_ARGS", ""))
    config = _netconf(call.config)
    ipam = config.ipam or _Ipam(type=IPAM_TYPE)
    # Conventions: what the runtime says beats what the administrator's args say, and that beats CNI_ARGS.
    wanted = config.runtime_config.ips or config.args.cni.ips or args.ips
    mac = config.runtime_config.mac or config.args.cni.mac or args.mac
    routes, default_route = _routes(config, ipam)
    labels = {**args.labels, **{one.key: one.value for one in config.args.cni.labels}}
    request = AttachRequest(
        network=which.network,
        container=which.container,
        ifname=which.ifname,
        netns=netns,
        create=_network_spec(which.network, config, ipam),
        addresses=_one_per_family(wanted),
        mac=check_mac(mac) if mac else "",
        mtu=None if config.mtu is None else check_mtu(config.mtu),
        routes=routes,
        default_route=default_route,
        origin=Origin.CNI,
        labels=labels,
        trunk=tuple(sorted({tag for one in config.vlan_trunk for tag in one.tags()})),
        promiscuous=config.promisc_mode,
        sysctls=_sysctls(config.sysctl, which.ifname),
        aliases=config.runtime_config.aliases,
        bandwidth=config.runtime_config.bandwidth.limits(),
        published=tuple(dict.fromkeys(one.port() for one in config.runtime_config.port_mappings)),
        reserved_for=_reserved_for(args.labels, which.container),
        config=config_name(call),
    )
    previous = None if config.prev_result is None else {**config.prev_result, "cniVersion": call.version}
    return Add(request, _dns(config), previous)


def _dns(config: _NetConf) -> JSON:
    """The result's `dns`: what the runtime says of it, or else the configuration."""
    dns: JSON = config.dns.model_dump(exclude_none=True)
    runtime = config.runtime_config.dns
    given = {"nameservers": runtime.servers, "search": runtime.searches, "options": runtime.options}
    return dns | {key: value for key, value in given.items() if value is not None}


def is_logged(config: JSON, level: str) -> bool:
    """Whether the configuration wants its calls in the log at that level."""
    wanted = config.get("log_level")
    return wanted in LEVELS and LEVELS.index(wanted) <= LEVELS.index(level)


LEVELS: Final = ("debug", "info", "warning", "error")


def parse_check(call: Call) -> Expectation:
    """What CHECK compares with: the previous result's account of our interface. CniError 4 or 7."""
    which = key(call)
    netns = _variable(call, "CNI_NETNS", str)
    previous = call.config.get("prevResult")
    if not isinstance(previous, dict):
        raise CniError(INVALID_CONFIG, "CHECK without prevResult", "runtimes hand over the result of the last ADD")
    try:
        return _expectation(which, netns, _PreviousResult.model_validate(previous))
    except ValidationError as exc:
        raise _invalid(exc, "prevResult") from None


def _expectation(which: Key, netns: str, previous: _PreviousResult) -> Expectation:
    ours = [index for index, one in enumerate(previous.interfaces) if one.name == which.ifname and one.sandbox]
    interface = previous.interfaces[ours[0]] if ours else _Interface(name=which.ifname)
    addresses = tuple(one.address for one in previous.ips if one.interface is None or one.interface in ours)
    reached = [address.network for address in addresses]
    # Of the routes, those whose next hop lies on one of our addresses' links: others are another interface's.
    routes = tuple(
        Route(one.dst, one.gw)
        for one in previous.routes
        if one.gw is not None and any(one.gw in network for network in reached if network.version == one.gw.version)
    )
    mac = check_mac(interface.mac) if interface.mac else ""
    return Expectation(which.network, which.container, which.ifname, netns, addresses, routes, mac, interface.mtu or 0)


def parse_valid_attachments(call: Call) -> tuple[str, frozenset[tuple[str, str]]]:
    """GC's network, and the attachments that stay, as pairs of container and interface.

    CniError 7 if there is no list: none at all must not count as an empty one.
    """
    name = _network_name(call)
    given = call.config.get("cni.dev/valid-attachments", call.config.get("cni.dev/attachments", _ABSENT))
    hint = 'hand over "cni.dev/valid-attachments": [{"containerID": ..., "ifname": ...}]'
    if given is _ABSENT:
        raise CniError(INVALID_CONFIG, "GC without cni.dev/valid-attachments", hint)
    valid = set()
    for one in [] if given is None else given if isinstance(given, list) else [given]:
        container, ifname = (one.get("containerID"), one.get("ifname")) if isinstance(one, dict) else (None, None)
        if not isinstance(container, str) or not isinstance(ifname, str):
            raise CniError(INVALID_CONFIG, f"cni.dev/valid-attachments: {str(one)[:80]} is no attachment", hint)
        valid.add((container, ifname))
    return name, frozenset(valid)


_ABSENT: Final = object()


def parse_status(call: Call) -> str:
    """The network that STATUS is asked about."""
    return _network_name(call)


def render(attachment: Attachment, dns: JSON, version: str) -> JSON:
    """ADD's result in the version asked for."""
    endpoint = attachment.endpoint
    order = VERSIONS.index(version)
    pairs = list(zip(endpoint.addresses, attachment.gateways, strict=True))
    result: JSON = {"cniVersion": version}
    if order < VERSIONS.index("0.3.0"):
        for address, gateway in pairs:
            routes = [_route(route) for route in attachment.routes if route.destination.version == address.version]
            result[f"ip{address.version}"] = {"ip": str(address), **_gateway("gateway", gateway), "routes": routes}
        return result | {"dns": dns}
    interface: JSON = {"name": endpoint.ifname, "mac": endpoint.mac, "sandbox": endpoint.sandbox}
    if order >= VERSIONS.index("1.1.0"):
        interface["mtu"] = endpoint.mtu
    ips = [{"address": str(address), "interface": 0, **_gateway("gateway", gateway)} for address, gateway in pairs]
    if order < VERSIONS.index("1.0.0"):
        ips = [{"version": str(address.version), **ip} for (address, _), ip in zip(pairs, ips, strict=True)]
    routes = [_route(route) for route in attachment.routes]
    return result | {"interfaces": [interface], "ips": ips, "routes": routes, "dns": dns}


def _route(route: Route) -> JSON:
    return {"dst": str(route.destination), **_gateway("gw", route.gateway)}


def _gateway(name: str, gateway: IPAddress | None) -> JSON:
    return {} if gateway is None else {name: str(gateway)}


# -- Environment

_Value = TypeVar("_Value")


def _variable(call: Call, name: str, check: Callable[[str], _Value]) -> _Value:
    value = call.environment.get(name, "")
    if not value:
        raise CniError(INVALID_ENVIRONMENT, f"{name} is not set", f"{call.command} needs it")
    try:
        return check(value)
    except InvalidRequest as exc:
        raise CniError(INVALID_ENVIRONMENT, f"{name}: {exc.message}", exc.hint) from None


@dataclass(frozen=True, slots=True)
class _CniArgs:
    ips: list[IPAddress]
    mac: str
    labels: Mapping[str, str]


def _cni_args(text: str) -> _CniArgs:
    """CNI_ARGS, `KEY=VALUE;...`: IP, MAC and K8S_POD_*, others only with IgnoreUnknown (libcni's own rule)."""
    pairs: dict[str, str] = {}
    for pair in filter(None, text.split(";")):
        name, separator, value = pair.partition("=")
        if not separator:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: {pair[:80]!r} is no pair", "write KEY=VALUE;KEY=VALUE")
        pairs[name] = value
    labels = {_label(name): pairs.pop(name) for name in list(pairs) if name.startswith("K8S_POD_")}
    ips, mac = pairs.pop("IP", ""), pairs.pop("MAC", "")
    ignore = pairs.pop("IgnoreUnknown", "").lower() in {"1", "true"}
    if pairs and not ignore:
        raise CniError(
            INVALID_ENVIRONMENT, f"CNI_ARGS: unknown key {next(iter(pairs))[:80]!r}", "or set IgnoreUnknown=1"
        )
    try:
        return _CniArgs([_requested(ip) for ip in ips.split(",") if ip], check_mac(mac) if mac else "", labels)
    except (ValueError, InvalidRequest) as exc:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: {exc}", "correct IP= or MAC=") from None


def _label(name: str) -> str:
    """K8S_POD_NAME becomes `k8s-pod-name`."""
    return name.lower().replace("_", "-")


def _reserved_for(labels: Mapping[str, str], container: str) -> tuple[str, ...]:
    """Names under which an address may be kept for this container: the pod's `namespace/name`, the container's ID."""
    pod = labels.get("k8s-pod-name")
    return (f"{labels.get('k8s-pod-namespace', 'default')}/{pod}", container) if pod else (container,)


# -- Network configuration


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("Input should be a string")  # pydantic collects ValueErrors only
    return value


def _subnet(value: Any) -> IPNetwork:
    return ipaddress.ip_network(_text(value))


def _destination(value: Any) -> IPNetwork:
    return ipaddress.ip_network(_text(value), strict=False)  # libcni masks the host bits of a route


def _address(value: Any) -> IPAddress:
    return ipaddress.ip_address(_text(value))


def _interface(value: Any) -> IPInterface:
    return ipaddress.ip_interface(_text(value))


def _pools(value: Any) -> tuple[str, ...]:
    """A pool's name, or one for each address family."""
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError("Input should be a name, or a list of names")  # pydantic collects ValueErrors only
    return tuple(names)


def _aliases(value: Any) -> tuple[str, ...]:
    """A list of names, or podman's map from networks to lists."""
    lists = list(value.values()) if isinstance(value, dict) else [value]
    if not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in lists):
        raise ValueError("Input should be a list of names")  # pydantic collects ValueErrors only
    return tuple(dict.fromkeys(name for one in lists for name in one))


def _requested(value: Any) -> IPAddress:
    return ipaddress.ip_interface(_text(value)).ip  # conventions: the prefix length is optional, and the pool's counts


_Subnet = Annotated[IPNetwork, PlainValidator(_subnet)]
_Destination = Annotated[IPNetwork, PlainValidator(_destination)]
_Address = Annotated[IPAddress, PlainValidator(_address)]
_Requested = Annotated[IPAddress, PlainValidator(_requested)]


class _Section(BaseModel):
    """An object of the network configuration. null is as good as absent, for Go programs write it.

    Unknown keys are refused, since a misspelt one would be ignored in silence, but for those that begin with `tolerated`.
    """

    model_config = ConfigDict(strict=True, frozen=True, alias_generator=to_camel)
    tolerated: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("Input should be an object")  # pydantic collects ValueErrors only
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for name in value:
            if name not in known and not name.startswith(cls.tolerated):
                close = get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
                raise ValueError(f"unknown key {name[:80]!r}, {hint}")
        return {name: item for name, item in value.items() if item is not None}


class _OpenSection(_Section):
    """One in which others have keys of their own."""

    tolerated = ("",)


class _Range(_Section):
    subnet: _Subnet
    range_start: _Address | None = None
    range_end: _Address | None = None
    gateway: _Address | None = None


class _Route(_Section):
    dst: _Destination
    gw: _Address | None = None


class _Interface(_OpenSection):
    name: str
    mac: str = ""
    mtu: int | None = None
    sandbox: str = ""


class _Ip(_OpenSection):
    address: Annotated[IPInterface, PlainValidator(_interface)]
    interface: int | None = None


class _PreviousRoute(_OpenSection):
    dst: _Destination
    gw: _Address | None = None


class _PreviousResult(_OpenSection):
    """A result of 0.3.0 or newer: CHECK is younger."""

    interfaces: list[_Interface] = []
    ips: list[_Ip] = []
    routes: list[_PreviousRoute] = []


def _our_ipam(value: str) -> str:
    if value != IPAM_TYPE:
        raise ValueError(f"{value[:80]!r} is not supported: addresses come from ovsnet's pools, write {IPAM_TYPE!r}")
    return value


class _Ipam(_Section):
    type: Annotated[str, AfterValidator(_our_ipam)]
    subnet: _Subnet | None = None
    range_start: _Address | None = None
    range_end: _Address | None = None
    gateway: _Address | None = None
    pool: Annotated[tuple[str, ...], PlainValidator(_pools)] = ()
    ranges: list[Annotated[list[_Range], Field(min_length=1)]] = []
    routes: list[_Route] = []


class _Dns(_OpenSection):
    nameservers: list[str] | None = None
    domain: str | None = None
    search: list[str] | None = None
    options: list[str] | None = None


class _Label(_Section):
    key: Annotated[str, Field(min_length=1)]
    value: str


class _Wishes(_OpenSection):
    """`args.cni`, what administrators ask for (CNI conventions)."""

    ips: list[_Requested] = []
    mac: str = ""
    labels: list[_Label] = []


class _Args(_OpenSection):
    cni: _Wishes = _Wishes()


class _RuntimeDns(_OpenSection):
    servers: list[str] | None = None
    searches: list[str] | None = None
    options: list[str] | None = None


class _PortMapping(_OpenSection):
    """One of the capability `portMappings` (CNI conventions)."""

    host_port: int
    container_port: int
    protocol: str = Protocol.TCP.value
    host_ip: Annotated[str, Field(alias="hostIP")] = ""

    def port(self) -> PublishedPort:
        """What is to be published; CniError 7."""
        try:
            address = ipaddress.ip_address(self.host_ip) if self.host_ip else None
            return PublishedPort(Protocol(self.protocol.lower()), self.host_port, self.container_port, address)
        except (ValueError, InvalidRequest) as exc:
            hint = f"write a protocol of {', '.join(Protocol)}, ports from 1 to 65535, and an address or none"
            raise CniError(INVALID_CONFIG, f"runtimeConfig.portMappings: {exc}", hint) from None


_Amount = Annotated[int, Field(ge=0)]


class _Bandwidth(_OpenSection):
    """The capability `bandwidth` (CNI conventions): bits per second, and bits."""

    ingress_rate: _Amount = 0
    ingress_burst: _Amount = 0
    egress_rate: _Amount = 0
    egress_burst: _Amount = 0

    @model_validator(mode="after")
    def _check_bursts(self) -> Self:
        for direction in ("ingress", "egress"):
            rate, burst = (getattr(self, f"{direction}_{what}") for what in ("rate", "burst"))
            if burst and not rate:
                raise ValueError(f"{direction}Burst without {direction}Rate: give both, or neither")
            if rate > MAX_RATE or burst > MAX_RATE:
                raise ValueError(f"{direction}Rate and {direction}Burst go up to {MAX_RATE}")
        return self

    def limits(self) -> Bandwidth:
        """In the vocabulary."""
        return Bandwidth(self.ingress_rate, self.ingress_burst, self.egress_rate, self.egress_burst)


class _Runtime(_OpenSection):
    """What runtimes fill in for the capabilities of the configuration (CNI conventions)."""

    ips: list[_Requested] = []
    mac: str = ""
    dns: _RuntimeDns = _RuntimeDns()
    ip_ranges: list[Annotated[list[_Range], Field(min_length=1)]] = []
    aliases: Annotated[tuple[str, ...], PlainValidator(_aliases)] = ()
    port_mappings: list[_PortMapping] = []
    bandwidth: _Bandwidth = _Bandwidth()


class _Trunk(_Section):
    """VLANs of a trunk, as the reference plugin `bridge` writes them: one by its id, or all from minID to maxID."""

    id: int | None = None
    min_id: Annotated[int | None, Field(alias="minID")] = None
    max_id: Annotated[int | None, Field(alias="maxID")] = None

    def tags(self) -> range:
        """All of them; InvalidRequest."""
        first, last = (self.id, self.id) if self.id is not None else (self.min_id, self.max_id)
        if first is None or last is None or (self.id is not None and (self.min_id, self.max_id) != (None, None)):
            raise InvalidRequest("vlanTrunk: an item has either id, or minID and maxID", hint='write {"id": 20}')
        if not 0 < first <= last:
            raise InvalidRequest(f"vlanTrunk: {first} to {last} are no VLANs", hint=f"use 1 to {MAX_TAG}")
        return range(first, check_tag(last) + 1)


class _NetConf(_Section):
    """The whole network configuration: the specification's keys and our own."""

    tolerated = ("cni.dev/",)

    cni_version: str = ""
    name: str
    type: str = ""
    ipam: _Ipam | None = None
    dns: _Dns = _Dns()
    args: _Args = _Args()
    runtime_config: _Runtime = _Runtime()
    prev_result: JSON | None = None
    # Reserved or conventional, and for others to act on: accepted.
    cni_versions: Any = None
    capabilities: Any = None
    disable_check: Any = None
    disable_gc: Annotated[Any, Field(alias="disableGC")] = None
    load_only_inlined_plugins: Any = None
    # Our own.
    network: str = ""
    bridge: str = ""
    vlan: int | None = None
    mtu: int | None = None
    internal: bool | None = None
    is_gateway: bool | None = None
    is_default_gateway: bool | None = None
    ip_masq: bool | None = None
    vlan_trunk: list[_Trunk] = []
    promisc_mode: bool = False
    sysctl: dict[str, str] = {}
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Field(alias="log_level")] = "warning"
    hairpin_mode: bool | None = None  # there is nothing to switch on: the way by the host's address is routed


def _invalid(exc: ValidationError, *place: str) -> CniError:
    first = exc.errors(include_url=False)[0]
    parts = (*place, *first["loc"])
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    message = first["msg"].removeprefix("Value error, ")
    return CniError(INVALID_CONFIG, f"{where}: {message}" if where else message, "docs/cni.md has the keys")


def _netconf(config: JSON) -> _NetConf:
    try:
        return _NetConf.model_validate(config)
    except ValidationError as exc:
        raise _invalid(exc) from None


def _network_spec(name: str, config: _NetConf, ipam: _Ipam) -> NetworkSpec | None:
    """The network to make if there is none yet; None if the configuration has no subnet, so that it must exist."""
    sets: list[list[_Range]] = []
    if ipam.subnet is not None:
        start, end = ipam.range_start, ipam.range_end
        sets = [[_Range.model_construct(subnet=ipam.subnet, range_start=start, range_end=end, gateway=ipam.gateway)]]
    pools = tuple(_pool(ranges) for ranges in sets + ipam.ranges + config.runtime_config.ip_ranges)
    if pools and ipam.pool:
        raise CniError(
            INVALID_CONFIG, "ipam has a pool and a subnet", "name the pool, which has its subnet, or make one"
        )
    if not pools and not ipam.pool:
        if ipam.range_start or ipam.range_end or ipam.gateway:
            raise CniError(INVALID_CONFIG, "ipam has a range or a gateway, but no subnet", 'add "subnet": "..."')
        given = {"bridge": config.bridge or None, "vlan": config.vlan, "internal": config.internal}
        given |= {"isGateway": config.is_gateway, "ipMasq": config.ip_masq or None}
        for option, value in given.items():
            if value is not None:
                hint = f"remove {option}, or give the network's ipam.subnet or ipam.pool"
                raise CniError(
                    INVALID_CONFIG, f"{option} without ipam.subnet: the network exists and has its own", hint
                )
        return None
    if len({pool.subnet.version for pool in pools}) < len(pools):
        raise CniError(
            INVALID_CONFIG, "ipam has two subnets of one family", "give one IPv4 and one IPv6 subnet at most"
        )
    return NetworkSpec(
        name=name,
        bridge=check_ifname(config.bridge) if config.bridge else "",
        tag=None if config.vlan is None else check_tag(config.vlan),
        mtu=config.mtu,
        pools=ipam.pool,
        subnets=pools,
        internal=_internal(config),
        origin=Origin.CNI,
        masquerade=config.ip_masq,
    )


def _sysctls(settings: Mapping[str, str], ifname: str) -> dict[str, str]:
    """`sysctl` as paths below /proc/sys. In the names IFNAME stands for the interface, as in the plugin `tuning`."""
    found = {}
    for name, value in settings.items():
        parts = name.split("/") if "/" in name else name.split(".")
        kind, *device, key = parts[1:] if len(parts) > 4 else ("", "", "")
        where, given = (f"{kind}.{device[0]}", "/".join(device[1:])) if len(device) > 1 else ("", "")
        if parts[0] != "net" or key not in SYSCTLS.get(where, ()) or given not in ("IFNAME", ifname):
            known = "; ".join(f"net.{place}.IFNAME: {', '.join(sorted(keys))}" for place, keys in SYSCTLS.items())
            raise CniError(INVALID_CONFIG, f"sysctl {name[:120]!r} is not for this plugin to set", f"known: {known}")
        if not value or not value.isprintable():
            raise CniError(INVALID_CONFIG, f"sysctl {name} has the value {value[:40]!r}", "write a number as a string")
        found[f"net/{where.replace('.', '/')}/{ifname}/{key}"] = value
    return found


def _internal(config: _NetConf) -> bool:
    """Without a gateway on the host: `internal`, or in the reference plugins' word `isGateway` false."""
    if config.internal is not None and config.is_gateway is config.internal:
        raise CniError(INVALID_CONFIG, "internal and isGateway contradict each other", "leave one of them out")
    return config.internal or config.is_gateway is False


def _pool(ranges: list[_Range]) -> PoolSpec:
    """A range set (one address is given out of each): ranges of one subnet."""
    first = ranges[0]
    if any(other.subnet != first.subnet or other.gateway not in (None, first.gateway) for other in ranges):
        hint = "put another family's subnet into a list of its own: [[{...}], [{...}]]"
        raise CniError(INVALID_CONFIG, "ipam.ranges: one list has several subnets or gateways", hint)
    limits = tuple(
        AddressRange(each.range_start or _first(each.subnet), each.range_end or _last(each.subnet))
        for each in ranges
        if each.range_start or each.range_end
    )
    return PoolSpec(
        subnet=first.subnet,
        gateway=first.gateway,
        ranges=limits if len(limits) == len(ranges) else (),  # a range without limits is the whole subnet
        origin=Origin.CNI,
    )


def _first(subnet: IPNetwork) -> IPAddress:
    return subnet[min(1, subnet.num_addresses - 1)]


def _last(subnet: IPNetwork) -> IPAddress:
    broadcast = subnet.version == 4 and subnet.num_addresses > 2
    return subnet[-2] if broadcast else subnet[-1]


def _routes(config: _NetConf, ipam: _Ipam) -> tuple[tuple[Route, ...], bool]:
    """The routes to add as they are, and whether the network's gateways get the default route as well.

    A default route without `gw` is the latter; a default route with one replaces it.
    """
    gateways = [ipam.gateway] + [each.gateway for ranges in ipam.ranges for each in ranges]
    routes: list[Route] = []
    for route in ipam.routes:
        gateway = route.gw or next((g for g in gateways if g and g.version == route.dst.version), None)
        if gateway is not None and gateway.version != route.dst.version:
            hint = "both of one family"
            raise CniError(INVALID_CONFIG, f"ipam.routes: {route.dst} cannot go by {gateway}", hint)
        if route.gw is None and route.dst.prefixlen == 0:
            continue
        if gateway is None:
            hint = 'add "gw", or ipam.gateway'
            raise CniError(INVALID_CONFIG, f"ipam.routes: {route.dst} has no next hop", hint)
        routes.append(Route(route.dst, gateway))
    replaced = any(route.destination.prefixlen == 0 for route in routes)
    if replaced and config.is_default_gateway:
        raise CniError(INVALID_CONFIG, "isDefaultGateway, and a default route with gw", "leave one of them out")
    return tuple(routes), not replaced if config.is_default_gateway is None else config.is_default_gateway


def _one_per_family(addresses: list[IPAddress]) -> tuple[IPAddress, ...]:
    if len({address.version for address in addresses}) < len(addresses):
        raise CniError(
            INVALID_CONFIG, "two addresses of one family are asked for", "ask for one IPv4 and one IPv6 at most"
        )
    return tuple(addresses)
