"""The network configuration as typed objects: every key that we know, and what may stand under it.

Owns the keys' names, types and limits; what they mean is protocol.py's. Pure. docs/cni.md documents the keys, and a test ties it
to this.
"""

from __future__ import annotations

import ipaddress
import re
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from ovsnet.errors import InvalidRequest
from ovsnet.model import (
    MAX_RATE,
    MAX_TAG,
    Bandwidth,
    IPAddress,
    IPInterface,
    IPNetwork,
    Protocol,
    PublishedPort,
    Route,
    check_tag,
)

from .errors import INVALID_CONFIG, CniError

JSON = dict[str, Any]

IPAM_TYPE: Final = "ovsnet-ipam"


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


def requested(value: Any) -> IPAddress:
    """An address that is asked for; ValueError."""
    return ipaddress.ip_interface(_text(value)).ip  # conventions: the prefix length is optional, and the pool's counts


Subnet = Annotated[IPNetwork, PlainValidator(_subnet)]
Destination = Annotated[IPNetwork, PlainValidator(_destination)]
Address = Annotated[IPAddress, PlainValidator(_address)]
Requested = Annotated[IPAddress, PlainValidator(requested)]


class Section(BaseModel):
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


class OpenSection(Section):
    """One in which others have keys of their own."""

    tolerated = ("",)


class Range(Section):
    """A part of a subnet, as in the reference plugin host-local."""

    subnet: Subnet
    range_start: Address | None = None
    range_end: Address | None = None
    gateway: Address | None = None


_Attribute = Annotated[int, Field(ge=0, lt=1 << 32)]


class IpamRoute(Section):
    """A route for the container; what is more than its next hop as in SPEC 1.1.0, section 5 "Success"."""

    dst: Destination
    gw: Address | None = None
    mtu: _Attribute | None = None
    advmss: _Attribute | None = None
    priority: _Attribute | None = None
    table: _Attribute | None = None
    scope: Annotated[int, Field(ge=0, le=255)] | None = None

    def route(self, gateway: IPAddress | None) -> Route:
        """The route by `gateway`."""
        more = {name: getattr(self, name) or 0 for name in ("mtu", "advmss", "priority", "table")}
        return Route(self.dst, gateway, scope=self.scope, **more)


class Dns(OpenSection):
    """What is handed on in the result."""

    nameservers: list[str] | None = None
    domain: str | None = None
    search: list[str] | None = None
    options: list[str] | None = None


class ResultInterface(OpenSection):
    """An interface of a result (SPEC, section 5 "Success")."""

    name: str
    mac: str = ""
    mtu: int | None = None
    sandbox: str = ""


_InterfaceAddress = Annotated[IPInterface, PlainValidator(_interface)]


class ResultIp(OpenSection):
    """An address of a result."""

    address: _InterfaceAddress
    gateway: Address | None = None
    interface: int | None = None


class ResultRoute(IpamRoute):
    """A route of a result."""

    tolerated = ("",)


class OldResultIp(OpenSection):
    """The address of one family in a result before 0.3.0."""

    ip: _InterfaceAddress
    gateway: Address | None = None
    routes: list[ResultRoute] = []


class Result(OpenSection):
    """A result: `ip4` and `ip6` before 0.3.0, the lists from there on."""

    interfaces: list[ResultInterface] = []
    ips: list[ResultIp] = []
    routes: list[ResultRoute] = []
    ip4: OldResultIp | None = None
    ip6: OldResultIp | None = None
    dns: Dns = Dns()


def _plugin(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", value):
        raise ValueError(f"{value[:80]!r} is no plugin's name: write {IPAM_TYPE!r}")
    return value


class Ipam(Section):
    """Where addresses come from: ours, or another plugin, whose keys are its own business."""

    type: Annotated[str, AfterValidator(_plugin)]
    subnet: Subnet | None = None
    range_start: Address | None = None
    range_end: Address | None = None
    gateway: Address | None = None
    pool: Annotated[tuple[str, ...], PlainValidator(_pools)] = ()
    ranges: list[Annotated[list[Range], Field(min_length=1)]] = []
    routes: list[IpamRoute] = []

    @model_validator(mode="before")
    @classmethod
    def _leave_others_alone(cls, value: Any) -> Any:
        kind = value.get("type") if isinstance(value, dict) else None
        return {"type": kind} if isinstance(kind, str) and kind != IPAM_TYPE else value

    @property
    def foreign(self) -> bool:
        """Whether another plugin gives the addresses."""
        return self.type != IPAM_TYPE


class Label(Section):
    """A label for the endpoint."""

    key: Annotated[str, Field(min_length=1)]
    value: str


class Wishes(OpenSection):
    """`args.cni`, what administrators ask for (CNI conventions)."""

    ips: list[Requested] = []
    mac: str = ""
    labels: list[Label] = []


class Args(OpenSection):
    """`args`, of which only `cni` is ours."""

    cni: Wishes = Wishes()


class RuntimeDns(OpenSection):
    """The capability `dns`."""

    servers: list[str] | None = None
    searches: list[str] | None = None
    options: list[str] | None = None


class PortMapping(OpenSection):
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


Amount = Annotated[int, Field(ge=0)]


class BandwidthLimits(OpenSection):
    """The capability `bandwidth` (CNI conventions): bits per second, and bits."""

    ingress_rate: Amount = 0
    ingress_burst: Amount = 0
    egress_rate: Amount = 0
    egress_burst: Amount = 0

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


class Runtime(OpenSection):
    """What runtimes fill in for the capabilities of the configuration (CNI conventions)."""

    ips: list[Requested] = []
    mac: str = ""
    dns: RuntimeDns = RuntimeDns()
    ip_ranges: list[Annotated[list[Range], Field(min_length=1)]] = []
    aliases: Annotated[tuple[str, ...], PlainValidator(_aliases)] = ()
    port_mappings: list[PortMapping] = []
    bandwidth: BandwidthLimits = BandwidthLimits()


class Trunk(Section):
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


class NetConf(Section):
    """The whole network configuration: the specification's keys and our own."""

    tolerated = ("cni.dev/",)

    cni_version: str = ""
    name: str
    type: str = ""
    ipam: Ipam | None = None
    dns: Dns = Dns()
    args: Args = Args()
    runtime_config: Runtime = Runtime()
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
    routed: bool | None = None
    anti_spoofing: bool | None = None
    vlan_trunk: list[Trunk] = []
    promisc_mode: bool = False
    sysctl: dict[str, str] = {}
    link_first: bool | None = None
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Field(alias="log_level")] = "info"
    hairpin_mode: bool | None = None  # there is nothing to switch on: the way by the host's address is routed


def invalid(exc: ValidationError, *place: str) -> CniError:
    """The first thing that is wrong, and where; `place` are the keys above it."""
    first = exc.errors(include_url=False)[0]
    parts = (*place, *first["loc"])
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    message = first["msg"].removeprefix("Value error, ")
    return CniError(INVALID_CONFIG, f"{where}: {message}" if where else message, "docs/cni.md has the keys")


def netconf(config: JSON) -> NetConf:
    """The whole configuration; CniError 7."""
    try:
        return NetConf.model_validate(config)
    except ValidationError as exc:
        raise invalid(exc) from None
