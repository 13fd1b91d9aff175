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
from typing import Final, NoReturn, TypeVar

from pydantic import ValidationError

from ovsnet.errors import InvalidRequest
from ovsnet.model import (
    ANTI_SPOOFING,
    AddressRange,
    Attachment,
    AttachRequest,
    Expectation,
    IPAddress,
    IPNetwork,
    NetworkSpec,
    Origin,
    PoolSpec,
    Route,
    check_mtu,
    check_tag,
)
from ovsnet.names import check_container_id, check_ifname, check_mac, check_network_name

from .errors import CANNOT_DECODE, INCOMPATIBLE_VERSION, INVALID_CONFIG, INVALID_ENVIRONMENT, CniError
from .netconf import (
    IPAM_TYPE,
    JSON,
    Ipam,
    NetConf,
    Range,
    Result,
    ResultInterface,
    ResultIp,
    invalid,
    netconf,
    requested,
)

VERSIONS: Final = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
SINCE: Final[Mapping[str, str]] = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
CAPABILITIES: Final = ("portMappings", "bandwidth", "ips", "mac", "dns", "ipRanges", "aliases")


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


@dataclass(frozen=True, slots=True)
class Call:
    """One execution of the plugin: its CNI_* variables, its network configuration, and the version that this asks for."""

    environment: Mapping[str, str]
    config: JSON
    version: str
    delegated: str | None = None  # what another IPAM plugin has printed, once it was asked

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


def attachment(call: Call) -> Key:
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
    """What ADD is asked. `dns` goes into the result; `previous` is the result of the plugin before us in the chain.

    `delegate` is the IPAM plugin whose addresses are still to be asked for, "" if there is none; `request.link_first` says that
    it needs the interface for that.
    """

    request: AttachRequest
    dns: JSON
    previous: JSON | None
    delegate: str


def parse_add(call: Call) -> Add:
    """What ADD is asked. CniError 4 or 7, or InvalidRequest, if environment or configuration are wrong."""
    which = attachment(call)
    netns = _variable(call, "CNI_NETNS", str)
    args = cni_args(call)
    config = netconf(call.config)
    ipam = config.ipam or Ipam(type=IPAM_TYPE)
    given = _given(ipam, call)
    if config.link_first and not ipam.foreign:
        hint = "leave linkFirst out, or name the plugin that needs the interface as ipam.type"
        raise CniError(INVALID_CONFIG, "linkFirst, and the addresses are ovsnet's own", hint)
    if link_first(call) and (
        config.is_gateway or config.is_default_gateway or config.internal is False or config.ip_masq
    ):
        hint = "leave isGateway, isDefaultGateway, internal and ipMasq out"
        message = f"with {ipam.type} the network exists before its addresses: this host cannot be its gateway"
        raise CniError(INVALID_CONFIG, message, hint)
    # Conventions: what the runtime says beats what the administrator's args say, and that beats CNI_ARGS.
    wanted = config.runtime_config.ips or config.args.cni.ips or args.ips
    mac = config.runtime_config.mac or config.args.cni.mac or args.mac
    routes, default_route = _routes(config, ipam) if given is None else _given_routes(config, given)
    labels = {**args.labels, **{one.key: one.value for one in config.args.cni.labels}}
    request = AttachRequest(
        network=which.network,
        container=which.container,
        ifname=which.ifname,
        netns=netns,
        create=_network_spec(which.network, config, ipam, given),
        addresses=() if ipam.foreign else one_per_family(wanted),
        foreign=() if given is None else tuple(one.address for one in given.ips),
        gateways=() if given is None else tuple(one.gateway for one in given.ips if one.gateway),
        ipam=call.delegated or "",
        link_first=given is None and link_first(call),
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
        reserved_for=reserved_for(call),
        config=config_name(call),
    )
    previous = None if config.prev_result is None else {**config.prev_result, "cniVersion": call.version}
    dns = _dns(config) or ({} if given is None else given.dns.model_dump(exclude_none=True))
    return Add(request, dns, previous, ipam.type if ipam.foreign and given is None else "")


def delegate(call: Call) -> str:
    """The IPAM plugin that is not ours and that the call concerns as well, or "". Looks at nothing else, as DEL needs it."""
    ipam = call.config.get("ipam")
    kind = ipam.get("type") if isinstance(ipam, dict) else None
    return kind if isinstance(kind, str) and kind not in ("", IPAM_TYPE) else ""


def link_first(call: Call) -> bool:
    """Whether that IPAM plugin needs the container's interface; looks at nothing else either."""
    plugin, told = delegate(call), call.config.get("linkFirst")
    return bool(plugin) and (told if isinstance(told, bool) else plugin == "dhcp")


def _given(ipam: Ipam, call: Call) -> Result | None:
    """What the other IPAM plugin has given, in the form of 0.3.0 and later; None if it has not been asked, or there is none."""
    if not ipam.foreign or call.delegated is None:
        return None
    try:
        result = Result.model_validate_json(call.delegated)
    except ValidationError as exc:
        raise invalid(exc, f"result of {ipam.type}") from None
    old = [one for one in (result.ip4, result.ip6) if one is not None]
    ips = [ResultIp(address=str(one.ip), gateway=one.gateway and str(one.gateway)) for one in old]  # type: ignore[arg-type]
    given = result.model_copy(
        update={
            "ips": [*result.ips, *ips],
            "routes": [*result.routes, *(route for one in old for route in one.routes)],
        }
    )
    if not given.ips:
        raise CniError(INVALID_CONFIG, f"IPAM plugin {ipam.type} has given no address", "correct its configuration")
    return given


def _given_routes(config: NetConf, given: Result) -> tuple[tuple[Route, ...], bool]:
    """The routes that come with foreign addresses, and whether the default route goes to the network's gateway."""
    gateways: dict[int, IPAddress] = {}
    for one in given.ips:
        if one.gateway is not None:
            gateways.setdefault(one.gateway.version, one.gateway)
    if config.is_default_gateway and not gateways:
        hint = "have the IPAM plugin give one, or leave isDefaultGateway out"
        raise CniError(INVALID_CONFIG, "isDefaultGateway, and the addresses come without a gateway", hint)
    routes = tuple(one.route(one.gw or gateways.get(one.dst.version)) for one in given.routes)
    return routes, bool(config.is_default_gateway)


def _dns(config: NetConf) -> JSON:
    """The result's `dns`: what the runtime says of it, or else the configuration."""
    dns: JSON = config.dns.model_dump(exclude_none=True)
    runtime = config.runtime_config.dns
    given = {"nameservers": runtime.servers, "search": runtime.searches, "options": runtime.options}
    return dns | {key: value for key, value in given.items() if value is not None}


def is_logged(config: JSON, level: str) -> bool:
    """Whether the configuration wants its calls in the log at that level."""
    wanted = config.get("log_level", "info")
    return wanted in LEVELS and LEVELS.index(wanted) <= LEVELS.index(level)


LEVELS: Final = ("debug", "info", "warning", "error")


def parse_check(call: Call) -> Expectation:
    """What CHECK compares with: the previous result's account of our interface. CniError 4 or 7."""
    which = attachment(call)
    netns = _variable(call, "CNI_NETNS", str)
    previous = call.config.get("prevResult")
    if not isinstance(previous, dict):
        raise CniError(INVALID_CONFIG, "CHECK without prevResult", "runtimes hand over the result of the last ADD")
    try:
        return _expectation(which, netns, Result.model_validate(previous))
    except ValidationError as exc:
        raise invalid(exc, "prevResult") from None


def _expectation(which: Key, netns: str, previous: Result) -> Expectation:
    ours = [index for index, one in enumerate(previous.interfaces) if one.name == which.ifname and one.sandbox]
    interface = previous.interfaces[ours[0]] if ours else ResultInterface(name=which.ifname)
    addresses = tuple(one.address for one in previous.ips if one.interface is None or one.interface in ours)
    reached = [address.network for address in addresses]
    # Of the routes, those whose next hop lies on one of our addresses' links: others are another interface's.
    routes = tuple(
        Route(one.dst, one.gw)
        for one in previous.routes
        if one.gw is not None
        and one.table in (None, 0, _MAIN_TABLE)
        and any(one.gw in network for network in reached if network.version == one.gw.version)
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
            routes = [
                render_route(route, version)
                for route in attachment.routes
                if route.destination.version == address.version
            ]
            result[f"ip{address.version}"] = {"ip": str(address), **_gateway("gateway", gateway), "routes": routes}
        return result | {"dns": dns}
    interface: JSON = {"name": endpoint.ifname, "mac": endpoint.mac, "sandbox": endpoint.sandbox}
    if order >= VERSIONS.index("1.1.0"):
        interface["mtu"] = endpoint.mtu
    ips = [{"address": str(address), "interface": 0, **_gateway("gateway", gateway)} for address, gateway in pairs]
    if order < VERSIONS.index("1.0.0"):
        ips = [{"version": str(address.version), **ip} for (address, _), ip in zip(pairs, ips, strict=True)]
    routes = [render_route(route, version) for route in attachment.routes]
    return result | {"interfaces": [interface], "ips": ips, "routes": routes, "dns": dns}


def render_route(route: Route, version: str) -> JSON:
    """A route of a result; before 1.1.0 it has a destination and a next hop only."""
    found = {"dst": str(route.destination), **_gateway("gw", route.gateway)}
    if VERSIONS.index(version) < VERSIONS.index("1.1.0"):
        return found
    names = ("mtu", "advmss", "priority", "table")
    more = {name: value for name in names if (value := getattr(route, name))}
    return found | more | ({} if route.scope is None else {"scope": route.scope})


_MAIN_TABLE: Final = 254  # RT_TABLE_MAIN


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
class CniArgs:
    """CNI_ARGS; `labels` are those of the pod."""

    ips: list[IPAddress]
    mac: str
    labels: Mapping[str, str]


def cni_args(call: Call) -> CniArgs:
    """CNI_ARGS, `KEY=VALUE;...`: IP, MAC and K8S_POD_*, others only with IgnoreUnknown (libcni's own rule). CniError 4."""
    pairs: dict[str, str] = {}
    for pair in filter(None, call.environment.get("CNI_ARGS", "").split(";")):
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
        return CniArgs([requested(ip) for ip in ips.split(",") if ip], check_mac(mac) if mac else "", labels)
    except (ValueError, InvalidRequest) as exc:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: {exc}", "correct IP= or MAC=") from None


def _label(name: str) -> str:
    """K8S_POD_NAME becomes `k8s-pod-name`."""
    return name.lower().replace("_", "-")


def reserved_for(call: Call) -> tuple[str, ...]:
    """Names under which an address may be kept for this container: the pod's `namespace/name`, the container's ID."""
    labels, container = cni_args(call).labels, attachment(call).container
    pod = labels.get("k8s-pod-name")
    return (f"{labels.get('k8s-pod-namespace', 'default')}/{pod}", container) if pod else (container,)


def _network_spec(name: str, config: NetConf, ipam: Ipam, foreign: Result | None) -> NetworkSpec | None:
    """The network to make if there is none yet; None if the configuration has no subnet, so that it must exist.

    The gateway that another IPAM plugin names may be a machine of its own: the host takes its address only if told to.
    """
    if ipam.foreign:
        own = bool(config.is_gateway or config.is_default_gateway or config.internal is False)
        gateways = [] if foreign is None else [(one.gateway, one.address.network) for one in foreign.ips]
        return NetworkSpec(
            name=name,
            bridge=check_ifname(config.bridge) if config.bridge else "",
            tag=None if config.vlan is None else check_tag(config.vlan),
            mtu=config.mtu,
            gateways=tuple(
                ipaddress.ip_interface(f"{gateway}/{network.prefixlen}")
                for gateway, network in gateways
                if own and gateway
            ),
            internal=_internal(config) or not own,
            origin=Origin.CNI,
            masquerade=config.ip_masq,
            routed=config.routed,
            labels=_network_labels(config),
        )
    pools = subnets(ipam, config.runtime_config.ip_ranges)
    if not pools and not ipam.pool:
        given = {"bridge": config.bridge or None, "vlan": config.vlan, "internal": config.internal}
        given |= {"isGateway": config.is_gateway, "ipMasq": config.ip_masq or None, "routed": config.routed or None}
        given |= {"antiSpoofing": config.anti_spoofing}
        for option, value in given.items():
            if value is not None:
                hint = f"remove {option}, or give the network's ipam.subnet or ipam.pool"
                raise CniError(
                    INVALID_CONFIG, f"{option} without ipam.subnet: the network exists and has its own", hint
                )
        return None
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
        routed=config.routed,
        labels=_network_labels(config),
    )


def _network_labels(config: NetConf) -> dict[str, str]:
    return {} if config.anti_spoofing is None else {ANTI_SPOOFING: str(config.anti_spoofing).lower()}


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


def _internal(config: NetConf) -> bool:
    """Without a gateway on the host: `internal`, or in the reference plugins' word `isGateway` false."""
    if config.internal is not None and config.is_gateway is config.internal:
        raise CniError(INVALID_CONFIG, "internal and isGateway contradict each other", "leave one of them out")
    return config.internal or config.is_gateway is False


def subnets(ipam: Ipam, more: list[list[Range]]) -> tuple[PoolSpec, ...]:
    """The subnets of a section `ipam`, and of `runtimeConfig.ipRanges`: none, or one of each family at most. CniError 7."""
    sets: list[list[Range]] = []
    if ipam.subnet is not None:
        start, end = ipam.range_start, ipam.range_end
        sets = [[Range.model_construct(subnet=ipam.subnet, range_start=start, range_end=end, gateway=ipam.gateway)]]
    pools = tuple(_pool(ranges) for ranges in sets + ipam.ranges + more)
    if pools and ipam.pool:
        raise CniError(
            INVALID_CONFIG, "ipam has a pool and a subnet", "name the pool, which has its subnet, or make one"
        )
    if not pools and not ipam.pool and (ipam.range_start or ipam.range_end or ipam.gateway):
        raise CniError(INVALID_CONFIG, "ipam has a range or a gateway, but no subnet", 'add "subnet": "..."')
    if len({pool.subnet.version for pool in pools}) < len(pools):
        raise CniError(
            INVALID_CONFIG, "ipam has two subnets of one family", "give one IPv4 and one IPv6 subnet at most"
        )
    return pools


def _pool(ranges: list[Range]) -> PoolSpec:
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


def _routes(config: NetConf, ipam: Ipam) -> tuple[tuple[Route, ...], bool]:
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
            if route.route(None) != Route(route.dst):
                hint = 'add "gw", or leave the other attributes out'
                raise CniError(INVALID_CONFIG, f"ipam.routes: {route.dst} has attributes and no gw", hint)
            continue
        if gateway is None:
            hint = 'add "gw", or ipam.gateway'
            raise CniError(INVALID_CONFIG, f"ipam.routes: {route.dst} has no next hop", hint)
        routes.append(route.route(gateway))
    replaced = any(route.destination.prefixlen == 0 for route in routes)
    if replaced and config.is_default_gateway:
        raise CniError(INVALID_CONFIG, "isDefaultGateway, and a default route with gw", "leave one of them out")
    return tuple(routes), not replaced if config.is_default_gateway is None else config.is_default_gateway


def one_per_family(addresses: list[IPAddress]) -> tuple[IPAddress, ...]:
    """Addresses that are asked for; CniError 7 if two are of one family."""
    if len({address.version for address in addresses}) < len(addresses):
        raise CniError(
            INVALID_CONFIG, "two addresses of one family are asked for", "ask for one IPv4 and one IPv6 at most"
        )
    return tuple(addresses)
