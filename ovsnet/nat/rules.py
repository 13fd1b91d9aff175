"""Our nftables table, replaced as a whole in one transaction."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import DeadlineExceeded, Unavailable
from ..model import Forwarding, IPNetwork
from ..names import DeviceNames

_FAMILY = "inet"
_TIMEOUT = 5.0  # seconds; nft needs 10 ms
_HINT = "see that nftables is installed and that ovsnetd may change it"
_RAW = -300  # NF_IP_PRI_RAW: before connection tracking, which then has nothing to track
_DESTINATION_NAT = -100  # NF_IP_PRI_NAT_DST
_FILTER = 0  # NF_IP_PRI_FILTER
_SOURCE_NAT = 100  # NF_IP_PRI_NAT_SRC

Expression = dict[str, Any]  # libnftables-json(5)


class Rules:
    """The rules of one controller in the caller's network namespace, in a table named after its device prefix.

    Two controllers on one host have different prefixes, hence different tables: `ovsnet` for the default prefix, else
    `ovsnet-PREFIX`. All methods raise Unavailable with nft's own words if it refuses, and DeadlineExceeded if it hangs.
    """

    def __init__(self, names: DeviceNames, table: str = "") -> None:
        self.table = table or table_name(names)
        self._names = names
        self._loaded = 0  # rules and chains of the table as it was put in place last

    def load(
        self,
        masqueraded: Iterable[IPNetwork] = (),
        published: Iterable[Forwarding] = (),
        publishing: Iterable[IPNetwork] = (),
        routed: Iterable[str] = (),
    ) -> None:
        """Put the rules in place; the table is replaced in one transaction, so there is no moment without it.

        What comes from the prefixes `masqueraded` and leaves by a device that is not one of our gateways gets the address of
        that device, but for multicast. `published` are ports that lead to containers, and `publishing` the prefixes of these:
        who reaches a container of its own network by a published port seems to come from the gateway, for the answer has to
        come back the same way. Between the gateways `routed`, which are devices, packets pass; all others are isolated.
        The kernel remembers a connection's addresses, so that a reload disturbs none.
        """
        ports = _match("iifname", self._names.port_pattern)
        from_gateway, to_gateway = (_match(key, self._names.gateway_pattern) for key in ("iifname", "oifname"))
        together = sorted(routed)
        between = [_match(key, {"set": together}) for key in ("iifname", "oifname")]
        self._loaded = 0
        commands = [
            *self._removal(),
            {"add": {"table": self._table}},
            # What a container's lower port passes to the host beside the macvlan: broadcast and multicast.
            self._chain("prerouting", _RAW),
            self._rule("prerouting", [ports], _DROP, "for containers, not for this host"),
            # The host's loopback addresses reach published ports, which needs route_localnet; the reverse is not for
            # containers (CVE-2020-8558).
            self._rule("prerouting", [from_gateway, _LOOPBACK_TO], _DROP, "the host's loopback is its own"),
            *(self._map(name, key, data) for name, (key, data) in _MAPS.items()),
            *self._elements("add", published),
            {"add": {"chain": {"family": _FAMILY, "table": self.table, "name": "published"}}},
            *(self._rule("published", matches, [rewrite], "to containers") for matches, rewrite in _rewrites()),
            self._chain("nat_prerouting", _DESTINATION_NAT, "nat", hook="prerouting"),
            self._rule("nat_prerouting", [_TO_THIS_HOST], [_TO_PUBLISHED], "from elsewhere"),
            self._chain("nat_output", _DESTINATION_NAT, "nat", hook="output"),
            self._rule("nat_output", [_TO_THIS_HOST], [_TO_PUBLISHED], "from this host"),
            # From one network's gateway to another's. Traffic inside a network stays in the switch, so there is no
            # need to tell equal gateways from different ones, which nftables cannot compare.
            self._chain("forward", _FILTER),
            # A published port is open to all networks, its own included, whoever has published it.
            self._rule("forward", [_PUBLISHED], _ACCEPT, "published ports"),
            *([self._rule("forward", between, _ACCEPT, "routed networks")] if together else []),
            self._rule("forward", [from_gateway, to_gateway], _DROP, "networks are isolated"),
            self._chain("postrouting", _SOURCE_NAT, "nat"),
            self._rule("postrouting", [_PUBLISHED, _LOOPBACK_FROM, to_gateway], _MASQUERADE, "from loopback"),
            *(
                self._rule("postrouting", _inside(prefix), _MASQUERADE, "to a published port of the own network")
                for prefix in _sorted(publishing)
            ),
            *(
                self._rule("postrouting", self._leaving(prefix), _MASQUERADE, "masqueraded")
                for prefix in _sorted(masqueraded)
            ),
        ]
        self._apply(commands)
        self._loaded = sum("rule" in one.get("add", {}) or "chain" in one.get("add", {}) for one in commands)

    def intact(self, forwardings: Iterable[Forwarding]) -> bool:
        """Whether what `load` put in place, and these published ports, are there: somebody may have flushed the ruleset."""
        if not self.present():
            return False
        entries = self._list()
        found = sum("rule" in entry or "chain" in entry for entry in entries)
        return found == self._loaded and not _missing(entries, forwardings)

    def publish(self, forwardings: Iterable[Forwarding]) -> None:
        """Have more ports lead to containers, all or none. Again is harmless; Unavailable for one that leads elsewhere."""
        self._apply(self._elements("add", forwardings))

    def unpublish(self, forwardings: Iterable[Forwarding]) -> None:
        """Undo `publish`, all or none; Unavailable if one is not there."""
        self._apply(self._elements("delete", forwardings))

    def replace(self, gone: Iterable[Forwarding], now: Iterable[Forwarding]) -> None:
        """`unpublish` and `publish` in one: no packet finds neither of a port's old and new ends, or one of each.

        Unavailable if one of `gone` is not there, or one of `now` leads elsewhere.
        """
        self._apply([*self._elements("delete", gone), *self._elements("add", now)])

    def unload(self) -> None:
        """Remove the table; a missing one is success."""
        self._apply(self._removal())

    def missing(self, forwardings: Iterable[Forwarding]) -> list[Forwarding]:
        """Those of `forwardings` that are not in place."""
        return _missing(self._list(), forwardings)

    def _list(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = json.loads(nft("list", "table", _FAMILY, self.table))["nftables"]
        return entries

    def present(self) -> bool:
        """Whether the table is there."""
        tables = (entry.get("table", {}) for entry in json.loads(nft("list", "tables", _FAMILY))["nftables"])
        return any(table.get("name") == self.table for table in tables)

    # -----------------------------------------------------------------------------------------------------------------

    @property
    def _table(self) -> dict[str, str]:
        return {"family": _FAMILY, "name": self.table}

    def _removal(self) -> list[Expression]:
        return [
            {"add": {"table": self._table}},
            {"delete": {"table": self._table}},
        ]  # to delete a missing one is an error

    def _leaving(self, prefix: IPNetwork) -> list[Expression]:
        family, multicast = _family(prefix), ("224.0.0.0", 4) if prefix.version == 4 else ("ff00::", 8)
        return [
            _match_prefix(family, "saddr", str(prefix.network_address), prefix.prefixlen),
            _match_prefix(family, "daddr", *multicast, op="!="),
            _match("oifname", self._names.gateway_pattern, op="!="),
        ]

    def _chain(self, name: str, priority: int, kind: str = "filter", hook: str = "") -> Expression:
        place = {"family": _FAMILY, "table": self.table, "name": name}
        how = {"type": kind, "hook": hook or name, "prio": priority, "policy": "accept"}
        return {"add": {"chain": place | how}}

    def _rule(self, chain: str, matches: list[Expression], verdict: list[Expression], comment: str) -> Expression:
        place = {"family": _FAMILY, "table": self.table, "chain": chain}
        return {"add": {"rule": place | {"expr": [*matches, *verdict], "comment": comment}}}

    def _map(self, name: str, key: list[str], data: str) -> Expression:
        return {"add": {"map": {"family": _FAMILY, "table": self.table, "name": name, "type": key, "map": data}}}

    def _elements(self, verb: str, forwardings: Iterable[Forwarding]) -> list[Expression]:
        """Commands that add to the maps, or delete from them, what each forwarding has there."""
        found: dict[str, list[Any]] = {}
        for one in forwardings:
            for name, (key, value) in _elements_of(one):
                found.setdefault(name, []).append([key, value] if verb == "add" else key)
        place = {"family": _FAMILY, "table": self.table}
        return [{verb: {"element": place | {"name": name, "elem": elements}}} for name, elements in found.items()]

    @staticmethod
    def _apply(commands: list[Expression]) -> None:
        nft("-f", "-", stdin=json.dumps({"nftables": commands}))


def _missing(entries: Iterable[dict[str, Any]], forwardings: Iterable[Forwarding]) -> list[Forwarding]:
    """Those of `forwardings` that a table's maps do not hold."""
    found = {entry["map"]["name"]: entry["map"].get("elem", []) for entry in entries if "map" in entry}
    return [
        one for one in forwardings if any(element not in found.get(name, []) for name, element in _elements_of(one))
    ]


def _family(prefix: IPNetwork) -> str:
    return "ip" if prefix.version == 4 else "ip6"


def _inside(prefix: IPNetwork) -> list[Expression]:
    family, address, length = _family(prefix), str(prefix.network_address), prefix.prefixlen
    return [_PUBLISHED, *(_match_prefix(family, field, address, length) for field in ("saddr", "daddr"))]


def _sorted(prefixes: Iterable[IPNetwork]) -> list[IPNetwork]:
    return sorted(prefixes, key=lambda one: (one.version, one))


def _match(key: str, pattern: str | Expression, op: str = "==") -> Expression:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": pattern}}


def _match_prefix(family: str, field: str, address: str, length: int, op: str = "==") -> Expression:
    prefix = {"prefix": {"addr": address, "len": length}}
    return {"match": {"op": op, "left": {"payload": {"protocol": family, "field": field}}, "right": prefix}}


_DROP: list[Expression] = [{"counter": None}, {"drop": None}]
_ACCEPT: list[Expression] = [{"counter": None}, {"accept": None}]
_MASQUERADE: list[Expression] = [{"counter": None}, {"masquerade": None}]
_TO_PUBLISHED: Expression = {"goto": {"target": "published"}}
_PUBLISHED: Expression = {"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}
_TO_THIS_HOST: Expression = {
    "match": {"op": "==", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}
}
_LOOPBACK_TO, _LOOPBACK_FROM = (_match_prefix("ip", field, "127.0.0.0", 8) for field in ("daddr", "saddr"))
# The kernel has no way by which ::1 could leave the host, so there it leads nowhere.
_NOT_LOOPBACK = _match_prefix("ip6", "daddr", "::1", 128, op="!=")


def _maps() -> dict[str, tuple[list[str], str]]:
    """Keys and values of the maps: the container's address and port by protocol and port, "_at" by the host's address too.

    Two maps each, for nft 1.0 reads no JSON of a map to address and port in one.
    """
    found = {}
    for version in (4, 6):
        address = f"ipv{version}_addr"
        for suffix, key in ("_at", ["inet_proto", address, "inet_service"]), ("", ["inet_proto", "inet_service"]):
            found[f"address{version}{suffix}"] = key, address
            found[f"port{version}{suffix}"] = key, "inet_service"
    return found


_MAPS = _maps()


def _elements_of(forwarding: Forwarding) -> Iterator[tuple[str, list[Any]]]:
    """The maps that a forwarding is in, each with its key and value there."""
    port, address = forwarding.port, forwarding.address
    fixed = port.host_address is not None and not port.host_address.is_unspecified
    key = {"concat": [port.protocol.value, *([str(port.host_address)] if fixed else []), port.host_port]}
    suffix = f"{address.version}{'_at' if fixed else ''}"
    yield f"address{suffix}", [key, str(address)]
    yield f"port{suffix}", [key, port.container_port]


def _rewrites() -> Iterator[tuple[list[Expression], Expression]]:
    """What makes a packet to a published port one to the container, and for which packets."""
    protocol, port = {"meta": {"key": "l4proto"}}, {"payload": {"protocol": "th", "field": "dport"}}
    for version, family in (4, "ip"), (6, "ip6"):
        matches = [_match("nfproto", f"ipv{version}"), *([_NOT_LOOPBACK] if version == 6 else [])]
        host = {"payload": {"protocol": family, "field": "daddr"}}
        for suffix, key in ("_at", [protocol, host, port]), ("", [protocol, port]):
            where = {
                what: {"map": {"key": {"concat": key}, "data": f"@{name}{version}{suffix}"}}
                for what, name in (("addr", "address"), ("port", "port"))
            }
            yield matches, {"dnat": {"family": family, **where}}


def table_name(names: DeviceNames) -> str:
    """The table of the controller whose devices have these names."""
    return "ovsnet" if names == DeviceNames() else f"ovsnet-{names.prefix}"


def nft(*args: str, stdin: str = "") -> str:
    """What nft(8) prints, in JSON. Unavailable, with its own words, and DeadlineExceeded."""
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
