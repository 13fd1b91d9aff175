"""The messages of the IPAM plugin `ovsnet-ipam`, which gives addresses to other people's main plugins.

Owns what of a configuration concerns it: the section `ipam`, the name, and addresses that are asked for; the rest is the main
plugin's. Pure. Called by the blueprint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from ovsnet.model import IPAddress, IpamRequest, Pool, Route

from . import protocol
from .errors import INVALID_CONFIG, CniError
from .netconf import JSON, Args, Ipam, OpenSection, Result, Runtime, invalid
from .protocol import VERSIONS, Call


class _Config(OpenSection):
    """The configuration of a main plugin as its IPAM sees it."""

    ipam: Ipam
    args: Args = Args()
    runtime_config: Runtime = Runtime()


@dataclass(frozen=True, slots=True)
class Asked:
    """What ADD is asked; `routes` go into the result as they are, None for a next hop that is the gateway."""

    request: IpamRequest
    routes: tuple[Route, ...]


def key(call: Call) -> str:
    """Whose address it is: `configuration/container/ifname`. All that DEL needs."""
    which = protocol.attachment(call)
    return f"{protocol.config_name(call)}/{which.container}/{which.ifname}"


def parse(call: Call) -> Asked:
    """What ADD is asked; CniError 4 or 7, or InvalidRequest."""
    config = _config(call)
    args = protocol.cni_args(call)
    wanted = config.runtime_config.ips or config.args.cni.ips or args.ips
    return Asked(
        _request(call, config, key(call), protocol.one_per_family(wanted), protocol.reserved_for(call)),
        tuple(route.route(route.gw) for route in config.ipam.routes),
    )


def parse_pools(call: Call) -> IpamRequest:
    """The pools that STATUS is asked about."""
    return _request(call, _config(call), "", (), ())


def expected(call: Call) -> frozenset[IPAddress]:
    """The addresses of CHECK's prevResult; CniError 7."""
    previous = call.config.get("prevResult")
    if not isinstance(previous, dict):
        raise CniError(INVALID_CONFIG, "CHECK without prevResult", "runtimes hand over the result of the last ADD")
    try:
        return frozenset(one.address.ip for one in Result.model_validate(previous).ips)
    except ValidationError as exc:
        raise invalid(exc, "prevResult") from None


def render(asked: Asked, given: tuple[tuple[Pool, IPAddress], ...], version: str) -> JSON:
    """ADD's result in the version asked for: without interfaces, which are the main plugin's."""
    order = VERSIONS.index(version)
    result: JSON = {"cniVersion": version}
    routes = [protocol.render_route(route, version) for route in asked.routes]
    if order < VERSIONS.index("0.3.0"):
        for pool, address in given:
            mine = [route for route in asked.routes if route.destination.version == address.version]
            result[f"ip{address.version}"] = {
                "ip": str(pool.interface(address)),
                **_gateway(pool),
                "routes": [protocol.render_route(route, version) for route in mine],
            }
        return result | {"dns": {}}
    ips = [{"address": str(pool.interface(address)), **_gateway(pool)} for pool, address in given]
    if order < VERSIONS.index("1.0.0"):
        ips = [{"version": str(address.version), **ip} for (_, address), ip in zip(given, ips, strict=True)]
    return result | {"ips": ips, "routes": routes, "dns": {}}


def _gateway(pool: Pool) -> JSON:
    return {} if pool.gateway is None else {"gateway": str(pool.gateway)}


def _config(call: Call) -> _Config:
    try:
        config = _Config.model_validate(call.config)
    except ValidationError as exc:
        raise invalid(exc) from None
    if config.ipam.foreign:
        raise CniError(INVALID_CONFIG, f"ipam.type is {config.ipam.type!r}, not this plugin", _HINT)
    return config


def _request(
    call: Call, config: _Config, owner: str, wanted: tuple[IPAddress, ...], names: tuple[str, ...]
) -> IpamRequest:
    subnets = protocol.subnets(config.ipam, config.runtime_config.ip_ranges)
    return IpamRequest(owner, protocol.config_name(call), config.ipam.pool, subnets, wanted, names)


_HINT: Final = 'write "type": "ovsnet-ipam"'
