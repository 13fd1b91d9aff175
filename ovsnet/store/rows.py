"""Rows of the OVSNet database as model objects, and back. Nothing else in ovsnet sees a row."""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
from typing import Any

from ..ipam import Block
from ..model import (
    AddressRange,
    Bandwidth,
    Endpoint,
    IPAddress,
    IPInterface,
    Network,
    Origin,
    Pool,
    PublishedPort,
)


def pool(row: Any) -> Pool:
    """A Pool row."""
    return Pool(
        uuid=str(row.uuid),
        name=row.name,
        space=row.space,
        subnet=ipaddress.ip_network(row.subnet),
        gateway=ipaddress.ip_address(row.gateway[0]) if row.gateway else None,
        ranges=_ranges(row.ranges),
        exclusions=_ranges(row.exclusions),
        static_ranges=_ranges(row.static_ranges),
        origin=Origin(row.origin),
        labels=dict(row.labels),
        requested_by=row.requested_by,
        draining=row.draining,
        reservations={name: ipaddress.ip_address(text) for name, text in row.reservations.items()},
    )


def block(row: Any) -> Block:
    """A Block row; addresses become integers."""
    return Block(
        start=_int(row.first),
        node=row.node,
        leases={_int(address): owner for address, owner in row.leases.items()},
        cursor=_int(row.cursor),
        turn=row.turn,
    )


def network(row: Any) -> Network:
    """A Network row."""
    pools = sorted(row.pools, key=lambda one: ":" in one.subnet)
    return Network(
        uuid=str(row.uuid),
        name=row.name,
        bridge=row.bridge,
        tag=row.tag,
        mtu=row.mtu,
        pools=tuple(str(one.uuid) for one in pools),
        gateways=_interfaces(row.gateways),
        internal=row.internal,
        origin=Origin(row.origin),
        docker_ids=frozenset(row.docker_ids),
        labels=dict(row.labels),
        masquerade=row.masquerade,
        routed=row.routed,
    )


def endpoint(row: Any) -> Endpoint:
    """An Endpoint row."""
    return Endpoint(
        uuid=str(row.uuid),
        network=str(row.network.uuid),
        network_name=row.network.name,
        container=row.container,
        ifname=row.ifname,
        origin=Origin(row.origin),
        node=row.node,
        sandbox=row.sandbox,
        addresses=_interfaces(row.addresses),
        mac=row.mac,
        mtu=row.mtu,
        port=row.port,
        link=row.link,
        labels=dict(row.labels),
        published=tuple(sorted(map(PublishedPort.parse, row.published), key=str)),
        bandwidth=Bandwidth(**row.bandwidth),
        trunk=tuple(sorted(row.trunk)),
        config=row.config,
        aliases=tuple(sorted(row.aliases)),
        ipam=row.ipam,
        wiring=row.wiring,
    )


def rarely(endpoint: Endpoint) -> dict[str, Any]:
    """Columns that most endpoints leave empty, for those that do not: each costs time, also one that is set to its default."""
    columns = {
        "labels": dict(endpoint.labels),
        "published": [str(one) for one in endpoint.published],
        "bandwidth": bandwidth(endpoint.bandwidth),
        "trunk": list(endpoint.trunk),
        "config": endpoint.config,
        "aliases": list(endpoint.aliases),
        "ipam": endpoint.ipam,
        "wiring": endpoint.wiring,
    }
    return {column: value for column, value in columns.items() if value}


def bandwidth(limits: Bandwidth) -> dict[str, int]:
    """Limits as a column, without those that are none."""
    return {key: value for key, value in dataclasses.asdict(limits).items() if value}


def address(value: int, *, ipv6: bool) -> IPAddress:
    """An integer as an address."""
    return ipaddress.IPv6Address(value) if ipv6 else ipaddress.IPv4Address(value)


def _int(text: str) -> int:
    """An address as an integer, 0 for none; the library's parser, for `ipaddress` takes six times as long for each lease."""
    if not text:
        return 0
    return int.from_bytes(socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text))


def _ranges(texts: list[str]) -> tuple[AddressRange, ...]:
    return tuple(sorted(AddressRange.parse(text) for text in texts))


def _interfaces(texts: list[str]) -> tuple[IPInterface, ...]:
    return tuple(sorted((ipaddress.ip_interface(text) for text in texts), key=lambda one: one.version))
