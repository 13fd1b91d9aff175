"""Finds pools, networks and endpoints by what a person knows of them: a name, an address, a MAC, a container. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from .model import Endpoint, IPAddress, Network, PoolUse


@dataclass(frozen=True, slots=True)
class Found:
    """What fits; `address` is what was asked for, if that was one."""

    address: IPAddress | None
    pools: list[PoolUse]
    networks: list[Network]
    endpoints: list[Endpoint]

    def __bool__(self) -> bool:
        return bool(self.pools or self.networks or self.endpoints)


def find(text: str, pools: Iterable[PoolUse], networks: Iterable[Network], endpoints: Iterable[Endpoint]) -> Found:
    """Things of which `text` is a part of a name, or an address, a part of a MAC, or the beginning of an id; case is nothing.

    An address finds the pools around it and the endpoints that have it.
    """
    text = text.strip().lower()
    if not text:
        return Found(None, [], [], [])
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return Found(
            None,
            [
                one
                for one in pools
                if _fits(text, one.pool.uuid, (one.pool.name, str(one.pool.subnet), *one.pool.reservations))
            ],
            [one for one in networks if _fits(text, one.uuid, (one.name, one.bridge, *one.docker_ids))],
            [one for one in endpoints if _fits(text, one.uuid, _names(one))],
        )
    return Found(
        address,
        [one for one in pools if address in one.pool.subnet],
        [],
        [one for one in endpoints if any(each.ip == address for each in one.addresses)],
    )


def _names(one: Endpoint) -> tuple[str, ...]:
    addresses = (str(each.ip) for each in one.addresses)
    return one.container, one.mac, one.network_name, one.port, *one.aliases, *one.labels.values(), *addresses


def _fits(text: str, uuid: str, names: Iterable[str]) -> bool:
    return uuid.startswith(text) or any(text in name.lower() for name in names)
