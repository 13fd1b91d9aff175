"""What containers receive, limited where it comes from the switch: nftables' ingress hook of their ports' devices.

Open vSwitch's own ingress policing needs act_police and a classifier in the kernel, and only logs when these are missing
(docs/decisions/0012); nftables is there anyway.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..names import DeviceNames
from .rules import Expression, nft, table_name

_FAMILY = "netdev"
_BITS = 8  # in a byte, which nft counts in
_MOST = (1 << 32) - 1  # bytes of a burst, the kernel's field


class Limits:
    """One chain for each limited device, named after it, in a table as Rules has one.

    Rates are in bits per second and bursts in bits. The kernel's bucket holds a second's worth besides the burst
    (nft_limit.c), so that after a pause so much passes at once. All methods raise Unavailable and DeadlineExceeded like Rules.
    """

    def __init__(self, names: DeviceNames) -> None:
        self.table = table_name(names)

    def set(self, device: str, rate: int, burst: int) -> None:
        """Have `device` receive no more than that; again, with other values too, is harmless."""
        place = {"family": _FAMILY, "table": self.table}
        hook = {"type": "filter", "hook": "ingress", "dev": device, "prio": 0, "policy": "accept"}
        rule = place | {"chain": device, "expr": [_limit(rate, burst), {"counter": None}, {"drop": None}]}
        self._apply(
            {"add": {"table": {"family": _FAMILY, "name": self.table}}},
            {"add": {"chain": place | {"name": device} | hook}},
            {"flush": {"chain": place | {"name": device}}},
            {"add": {"rule": rule}},
        )

    def remove(self, devices: Iterable[str]) -> None:
        """Limit these devices no more; what is not limited, or has gone, is success."""
        present = self.devices()
        for device in present.intersection(devices):
            place = {"family": _FAMILY, "table": self.table, "name": device}
            self._apply({"flush": {"chain": place}}, {"delete": {"chain": place}})

    def devices(self) -> frozenset[str]:
        """The devices that are limited; a kernel may keep the limit of one that has gone."""
        return frozenset(entry["chain"]["name"] for entry in self._entries() if "chain" in entry)

    def in_force(self, wanted: Mapping[str, tuple[int, int]]) -> frozenset[str]:
        """The devices of `devices`, without those whose limit is another than `wanted` says (rate and burst)."""
        rules = {entry["rule"]["chain"]: entry["rule"]["expr"][0] for entry in self._entries() if "rule" in entry}
        return frozenset(one for one in rules if one not in wanted or rules[one] == _limit(*wanted[one]))

    def is_set(self, device: str, rate: int, burst: int) -> bool:
        """Whether exactly this limit is in place."""
        rules = [entry["rule"] for entry in self._entries() if "rule" in entry and entry["rule"]["chain"] == device]
        return [rule["expr"][0] for rule in rules] == [_limit(rate, burst)]

    def unload(self) -> None:
        """Remove the table; a missing one is success."""
        table = {"table": {"family": _FAMILY, "name": self.table}}
        self._apply({"add": table}, {"delete": table})

    def _entries(self) -> list[dict[str, Any]]:
        tables = json.loads(nft("list", "tables", _FAMILY))["nftables"]
        if all(entry.get("table", {}).get("name") != self.table for entry in tables):
            return []
        entries: list[dict[str, Any]] = json.loads(nft("list", "table", _FAMILY, self.table))["nftables"]
        return entries

    @staticmethod
    def _apply(*commands: dict[str, Any]) -> None:
        nft("-f", "-", stdin=json.dumps({"nftables": commands}))


def _limit(rate: int, burst: int) -> Expression:
    """nft's expression for what is over the limit. The bucket's own second is part of the burst that was asked for."""
    a_second = max(rate // _BITS, 1)
    extra = min(max(burst // _BITS - a_second, 0), _MOST)
    how = {"rate": a_second, "per": "second", "rate_unit": "bytes", "inv": True}
    return {"limit": how | {"burst": extra, "burst_unit": "bytes"}}  # both always, as nft lists it
