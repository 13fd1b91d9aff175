"""Our nftables table, replaced as a whole in one transaction."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from typing import Any

from ..errors import DeadlineExceeded, Unavailable
from ..model import IPNetwork
from ..names import DeviceNames

_FAMILY = "inet"
_TIMEOUT = 5.0  # seconds; nft needs 10 ms
_HINT = "see that nftables is installed and that ovsnetd may change it"
_RAW = -300  # NF_IP_PRI_RAW: before connection tracking, which then has nothing to track
_FILTER = 0  # NF_IP_PRI_FILTER
_SOURCE_NAT = 100  # NF_IP_PRI_NAT_SRC


class Rules:
    """The rules of one controller in the caller's network namespace, in a table named after its device prefix.

    Two controllers on one host have different prefixes, hence different tables: `ovsnet` for the default prefix, else
    `ovsnet-PREFIX`. All methods raise Unavailable with nft's own words if it refuses, and DeadlineExceeded if it hangs.
    """

    def __init__(self, names: DeviceNames, table: str = "") -> None:
        self.table = table or ("ovsnet" if names == DeviceNames() else f"ovsnet-{names.prefix}")
        self._names = names

    def load(self, masqueraded: Iterable[IPNetwork] = ()) -> None:
        """Put the rules in place; the table is replaced in one transaction, so there is no moment without it.

        What comes from the prefixes `masqueraded` and leaves by a device that is not one of our gateways gets the address of
        that device, but for multicast. The kernel remembers a connection's address, so that a reload disturbs none.
        """
        ports = _match("iifname", self._names.port_pattern)
        between = [_match("iifname", self._names.gateway_pattern), _match("oifname", self._names.gateway_pattern)]
        self._apply(
            [
                *self._removal(),
                {"add": {"table": self._table}},
                # What a container's lower port passes to the host beside the macvlan: broadcast and multicast.
                self._chain("prerouting", _RAW),
                self._rule("prerouting", [ports], "for containers, not for this host"),
                # From one network's gateway to another's. Traffic inside a network stays in the switch, so there is no
                # need to tell equal gateways from different ones, which nftables cannot compare.
                self._chain("forward", _FILTER),
                # A published port is open to all networks, its own included, whoever has published it.
                self._rule("forward", [_PUBLISHED], "published ports", "accept"),
                self._rule("forward", between, "networks are isolated"),
                self._chain("postrouting", _SOURCE_NAT, "nat"),
                *(
                    self._rule("postrouting", self._leaving(prefix), "masqueraded", "masquerade")
                    for prefix in sorted(masqueraded, key=lambda one: (one.version, one))
                ),
            ]
        )

    def unload(self) -> None:
        """Remove the table; a missing one is success."""
        self._apply(self._removal())

    def present(self) -> bool:
        """Whether the table is there."""
        tables = (entry.get("table", {}) for entry in json.loads(_nft("list", "tables", _FAMILY))["nftables"])
        return any(table.get("name") == self.table for table in tables)

    # -----------------------------------------------------------------------------------------------------------------

    @property
    def _table(self) -> dict[str, str]:
        return {"family": _FAMILY, "name": self.table}

    def _removal(self) -> list[dict[str, Any]]:
        return [
            {"add": {"table": self._table}},
            {"delete": {"table": self._table}},
        ]  # to delete a missing one is an error

    def _leaving(self, prefix: IPNetwork) -> list[dict[str, Any]]:
        family, multicast = ("ip", ("224.0.0.0", 4)) if prefix.version == 4 else ("ip6", ("ff00::", 8))
        return [
            _match_prefix(family, "saddr", str(prefix.network_address), prefix.prefixlen),
            _match_prefix(family, "daddr", *multicast, op="!="),
            _match("oifname", self._names.gateway_pattern, op="!="),
        ]

    def _chain(self, hook: str, priority: int, kind: str = "filter") -> dict[str, Any]:
        place = {"family": _FAMILY, "table": self.table, "name": hook}
        return {"add": {"chain": place | {"type": kind, "hook": hook, "prio": priority, "policy": "accept"}}}

    def _rule(self, chain: str, matches: list[dict[str, Any]], comment: str, verdict: str = "drop") -> dict[str, Any]:
        place = {"family": _FAMILY, "table": self.table, "chain": chain}
        return {"add": {"rule": place | {"expr": [*matches, {"counter": None}, {verdict: None}], "comment": comment}}}

    @staticmethod
    def _apply(commands: list[dict[str, Any]]) -> None:
        _nft("-f", "-", stdin=json.dumps({"nftables": commands}))


_PUBLISHED: dict[str, Any] = {"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}


def _match(key: str, pattern: str, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": pattern}}


def _match_prefix(family: str, field: str, address: str, length: int, op: str = "==") -> dict[str, Any]:
    prefix = {"prefix": {"addr": address, "len": length}}
    return {"match": {"op": op, "left": {"payload": {"protocol": family, "field": field}}, "right": prefix}}


def _nft(*args: str, stdin: str = "") -> str:
    try:
        done = subprocess.run(
            ["nft", "-j", *args], input=stdin, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except OSError as exc:
        raise Unavailable(f"nft cannot be run: {exc}", hint=_HINT) from None
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"nft did not end within {_TIMEOUT:.0f} s", hint="try again") from None
    if done.returncode:
        raise Unavailable(f"nft refused the rules: {done.stderr.strip()}", hint=_HINT)
    return done.stdout
