"""Pools, networks and reservations as they are wished for, in a file of YAML, and what has to be done for it.

Pure. The entries are what `POST /v1/pools` and `POST /v1/networks` take, by the same models; a key that an entry does not have is
none of the file's business. Called by `ovsnet apply` and `ovsnet export`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from . import model
from .api.schemas import Address, Name, NetworkCreate, PoolCreate, Refused, ReservedName
from .errors import InvalidRequest
from .ipam.intervals import Intervals

if TYPE_CHECKING:
    from .client import Endpoint, Network, Pool

MAX_BYTES = 1 << 20

_CHANGEABLE = ("subnet", "ranges", "exclusions", "static_ranges", "draining")
_RANGES = ("ranges", "exclusions", "static_ranges")
_OWN_LABELS = "ovsnet."  # labels of pools that begin so are our own notes

_Path = tuple[str | int, ...]


def _mapping(value: object) -> object:
    if not isinstance(value, dict):
        raise Refused("is no mapping of keys to values", hint="write an entry as `- name: blue`")
    return value


class PoolEntry(PoolCreate):
    """A pool that shall be there."""

    name: Name
    draining: bool = False
    reservations: dict[ReservedName, Address] = Field({})


class NetworkEntry(NetworkCreate):
    """A network that shall be there."""


class Manifest(BaseModel):
    """All that shall be there."""

    model_config = ConfigDict(extra="forbid", strict=True)

    pools: list[Annotated[PoolEntry, BeforeValidator(_mapping)]] = []
    networks: list[Annotated[NetworkEntry, BeforeValidator(_mapping)]] = []


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. `fields` has for each key what is there (None: nothing) and what shall be."""

    action: str  # create, change or delete
    kind: str  # pool, network or reservation
    name: str
    pool: str = ""  # of a reservation
    fields: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        sign = {"create": "+", "change": "~", "delete": "-"}[self.action]
        what = f"{sign} {self.kind} {self.name}" + (f" of pool {self.pool}" if self.pool else "")
        told = [
            f"{key} {_text(new)}" if self.action == "create" else f"{key} {_text(old)} -> {_text(new)}"
            for key, (old, new) in self.fields.items()
        ]
        return f"{what}: {', '.join(told)}" if told else what


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to be done, in this order, and what cannot be."""

    steps: list[Step]
    conflicts: list[str]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    return (
        {None: "none", True: "yes", False: "no"}.get(value, str(value)) if not isinstance(value, dict) else str(value)
    )


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of YAML 1.2's core schema: no dates, no `on` for true, no number to the base of sixty.

    Keys are text, whatever they look like, and none may come twice.
    """

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  # as the library declares it

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "expected a mapping", node.start_mark)
        made: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no text", key.start_mark)
            if key.value in made:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} comes twice", key.start_mark)
            made[key.value] = self.construct_object(value, deep=deep)
        return made


def _resolve() -> None:
    import re  # noqa: PLC0415  # only here

    for tag, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"[-+]?[0-9]+", "-+0123456789"),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ):
        _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})$"), list(first))


_resolve()


def parse(text: str, name: str) -> Manifest:
    """What a file wishes for; `name` is how the file is called. InvalidRequest tells all that is wrong, each with its line."""
    if len(text) > MAX_BYTES:
        raise InvalidRequest(f"{name} is too large", hint=f"write {MAX_BYTES >> 20} MiB at most")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = loader.construct_document(node) if node is not None else {}
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = "" if mark is None else f":{mark.line + 1}"
        raise InvalidRequest(f"{name}{line}: {exc.problem or exc.context}", hint="write one document of YAML") from None
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise InvalidRequest(
            f"{name} is no YAML: {str(exc) or 'too deep'}", hint="write one document of YAML"
        ) from None
    try:
        manifest = Manifest.model_validate({} if data is None else data)
    except ValidationError as exc:
        raise _refusal(list(_refused(exc)), node, name) from None
    if doubts := list(_doubts(manifest)):
        raise _refusal(doubts, node, name)
    return manifest


def _refusal(found: Sequence[tuple[_Path, str, str]], node: Any, name: str) -> InvalidRequest:
    lines = [(_line(node, path), ".".join(map(str, path)), message) for path, message, _ in found]
    lines.sort(key=lambda one: one[0])
    told = [f"{name}:{line}: {key}: {message}" if key else f"{name}:{line}: {message}" for line, key, message in lines]
    hints = dict.fromkeys(hint for _, _, hint in found if hint)
    refusal = InvalidRequest("\n".join(told), hint="; ".join(hints) or "see `ovsnet help apply`")
    refusal.details = {key: message for _, key, message in lines}
    return refusal


def _refused(error: ValidationError) -> Iterator[tuple[_Path, str, str]]:
    for found in error.errors(include_url=False, include_input=False):
        cause = found.get("ctx", {}).get("error")
        message = str(cause) if cause else found["msg"][0].lower() + found["msg"][1:]
        path = found["loc"]
        hint = ""
        if isinstance(cause, Refused):
            hint = cause.hint
            path += (cause.key,) if cause.key else ()
        elif found["type"] == "extra_forbidden":
            message, hint = "unknown key", "the keys are pools, networks"
        elif found["type"] == "model_type":
            message, hint = "the file is no mapping of keys to values", "the keys are pools, networks"
        yield path, message, hint


def _doubts(manifest: Manifest) -> Iterator[tuple[_Path, str, str]]:
    """What contradicts itself."""
    for kind, names in (
        ("pools", [one.name for one in manifest.pools]),
        ("networks", [one.name for one in manifest.networks]),
    ):
        for index, name in enumerate(names):
            if names.index(name) < index:
                yield (kind, index, "name"), f"{name!r} comes twice", "give each name once"
    subnets: list[tuple[str, model.IPNetwork, _Path]] = [
        (entry.space, entry.subnet, ("pools", index, "subnet")) for index, entry in enumerate(manifest.pools)
    ]
    subnets += [
        (model.DEFAULT_SPACE, subnet, ("networks", index, "subnets", number))
        for index, wish in enumerate(manifest.networks)
        for number, subnet in enumerate(wish.subnets)
    ]
    subnets.sort(key=lambda one: (one[0], one[1].version, int(one[1].network_address), one[1].prefixlen))
    wide: tuple[str, model.IPNetwork] | None = (
        None  # the one before that reaches furthest: subnets lie in each other, or apart
    )
    for space, subnet, path in subnets:
        if wide is not None and wide[0] == space and subnet.network_address in wide[1]:
            yield path, f"{subnet} overlaps {wide[1]}", "subnets of one space do not overlap"
        else:
            wide = space, subnet
    for index, entry in enumerate(manifest.pools):
        kept: dict[model.IPAddress, str] = {}
        for name, address in entry.reservations.items():
            if address in kept:
                at = ("pools", index, "reservations", name)
                yield at, f"{address} is kept for {kept[address]!r} already", "keep an address for one name"
            kept[address] = name


def _line(node: Any, path: _Path) -> int:
    """The line of the file in which the thing at `path` begins, or the last thing on the way to it that there is."""
    line = 0
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == step), None)
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            line = node.start_mark.line
        else:
            break
    return line + 1


def compare(
    manifest: Manifest,
    pools: Sequence[Pool],
    networks: Sequence[Network],
    endpoints: Callable[[], Sequence[Endpoint]],
    *,
    prune: bool = False,
) -> Plan:
    """What has to be done so that all is there that `manifest` wishes for.

    With `prune` also what removes all else that was made by the API, and the reservations of a pool that its entry does not have,
    if it has any key `reservations`. `endpoints` is asked only if a network is to go.
    """
    steps: list[Step] = []
    conflicts: list[str] = []
    there = {one["name"]: one for one in pools}
    gone = _unwanted(manifest, pools, networks) if prune else []
    if any(one.kind == "network" for one in gone):
        used = [one["network"] for one in endpoints()]
        conflicts += [
            f"network {one.name} cannot go: {used.count(one.name)} endpoints are on it"
            for one in gone
            if one.kind == "network" and one.name in used
        ]
    for entry in manifest.pools:
        have = there.get(entry.name)
        if have is None:
            fields = {key: (None, value) for key, value in _wishes(entry).items() if value not in ({}, [])}
            steps.append(Step("create", "pool", entry.name, fields=fields))
        else:
            changes, fixed = _differences(entry, have)
            conflicts += [f"pool {entry.name}: {one}" for one in fixed]
            if changes:
                steps.append(Step("change", "pool", entry.name, fields=changes))
        steps += _reservations(entry, {} if have is None else have["reservations"])
    known = {one["name"]: one for one in networks}
    made: list[Step] = []
    retagged: list[Step] = []
    for wish in manifest.networks:
        here = known.get(wish.name)
        if here is None:
            fields = {key: (None, value) for key, value in _wishes(wish).items() if value not in ({}, [])}
            made.append(Step("create", "network", wish.name, fields=fields))
        else:
            conflicts += [f"network {wish.name}: {one}" for one in _network_differences(wish, here)]
            if wish.vlan not in (None, here["vlan"]):
                retagged.append(Step("change", "network", wish.name, fields={"vlan": (here["vlan"], wish.vlan)}))
    in_turn, waiting = _in_turn(retagged, {name: one["bridge"] for name, one in known.items()})
    conflicts += [
        f"network {one.name}: vlan: {one.fields['vlan'][1]} is not free before another of these networks has left it; "
        "give one of them a free tag first"
        for one in waiting
    ]
    return Plan(gone + steps + in_turn + made, conflicts)


def _in_turn(changes: Sequence[Step], bridges: Mapping[str, str]) -> tuple[list[Step], list[Step]]:
    """Changes of VLAN tags, each after the one that leaves its tag; and those that wait for one another."""
    ordered: list[Step] = []
    left = list(changes)
    while left:
        kept = {(bridges[one.name], one.fields["vlan"][0]) for one in left}
        free = [one for one in left if (bridges[one.name], one.fields["vlan"][1]) not in kept]
        if not free:
            break
        ordered += free
        left = [one for one in left if one not in free]
    return ordered, left


def _wishes(entry: PoolEntry | NetworkEntry) -> dict[str, Any]:
    """What an entry says but for name and reservations, as the API shows it."""
    said = {key: getattr(entry, key) for key in type(entry).model_fields if key in entry.model_fields_set}
    return {
        key: [str(one) for one in value]
        if isinstance(value, list)
        else str(value)
        if key in ("subnet", "gateway") and value is not None
        else value
        for key, value in said.items()
        if key not in ("name", "reservations")
    }


def _differences(entry: PoolEntry, have: Pool) -> tuple[dict[str, tuple[Any, Any]], list[str]]:
    """What of a pool is to be changed, and what differs that cannot be."""
    changes: dict[str, tuple[Any, Any]] = {}
    fixed: list[str] = []
    old: dict[str, Any] = dict(have)
    old["labels"] = {key: value for key, value in have["labels"].items() if not key.startswith(_OWN_LABELS)}
    for key, wish in _wishes(entry).items():
        same = _addresses(wish) == _addresses(old[key]) if key in _RANGES else wish == old[key]
        if not same and key in _CHANGEABLE:
            changes[key] = (old[key], wish)
        elif not same:
            fixed.append(_fixed(key, old[key], wish))
    return changes, fixed


def _network_differences(wish: NetworkEntry, have: Network) -> Iterator[str]:
    """What of a network differs that cannot be changed."""
    wishes = _wishes(wish)
    pools, subnets = wishes.pop("pools", None), wishes.pop("subnets", None)
    wishes.pop("vlan", None)  # that can be changed
    for key, value in wishes.items():
        if value is not None and value != dict(have)[key]:  # None: whatever ovsnet chose
            yield _fixed(key, dict(have)[key], value)
    if pools is None and subnets is None:
        return
    names, nets = pools or [], subnets or []
    if (
        not set(names) <= set(have["pools"])
        or not set(nets) <= set(have["subnets"])
        or len(names) + len(nets) != len(have["pools"])
    ):
        yield _fixed("pools and subnets", have["pools"] + have["subnets"], names + nets)


def _fixed(key: str, old: Any, new: Any) -> str:
    return f"{key}: {_text(old)} cannot become {_text(new)}; remove it first, or leave that key out"


def _addresses(ranges: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    parsed = [model.AddressRange.parse(one) for one in ranges]
    return tuple(
        (version, *part)
        for version in (4, 6)
        for part in Intervals((int(one.first), int(one.last)) for one in parsed if one.first.version == version)
    )


def _reservations(entry: PoolEntry, have: Mapping[str, str]) -> Iterator[Step]:
    for name, address in entry.reservations.items():
        old = have.get(name)
        if old is None:
            yield Step("create", "reservation", name, entry.name, {"address": (None, str(address))})
        elif ipaddress.ip_address(old) != address:
            yield Step("change", "reservation", name, entry.name, {"address": (old, str(address))})


def _unwanted(manifest: Manifest, pools: Sequence[Pool], networks: Sequence[Network]) -> list[Step]:
    """What is to be removed, in an order that is possible."""
    named = {one.name for one in manifest.networks}
    going = [one["name"] for one in networks if one["origin"] == model.Origin.API and one["name"] not in named]
    entries = {one.name: one for one in manifest.pools}
    used = {name for one in manifest.networks for name in one.pools}
    steps: list[Step] = []
    pools_going: list[str] = []
    for pool in pools:
        entry = entries.get(pool["name"])
        if (
            entry is None
            and pool["name"] not in used
            and pool["origin"] == model.Origin.API
            and set(pool["networks"]) <= set(going)
        ):
            pools_going.append(pool["name"])
            stay: Mapping[str, Any] = {}
        elif entry is not None and "reservations" in entry.model_fields_set:
            stay = entry.reservations
        else:
            continue
        steps += [
            Step("delete", "reservation", name, pool["name"], {"address": (address, None)})
            for name, address in pool["reservations"].items()
            if name not in stay
        ]
    steps += [Step("delete", "network", name) for name in going]
    return steps + [Step("delete", "pool", name) for name in pools_going]


def export(pools: Sequence[Pool], networks: Sequence[Network], *, everything: bool = False) -> dict[str, Any]:
    """What is there as `parse` takes it: what the API made, with the pools that it uses, or also Docker's and CNI's."""
    shown = [one for one in networks if everything or one["origin"] == model.Origin.API]
    used = {name for one in shown for name in one["pools"]}
    return {
        "pools": [
            _exported(dict(one), own=True)
            for one in pools
            if everything or one["origin"] == model.Origin.API or one["name"] in used
        ],
        "networks": [_exported(dict(one)) for one in shown],
    }


def _exported(thing: dict[str, Any], *, own: bool = False) -> dict[str, Any]:
    entry = PoolEntry if own else NetworkEntry
    made = {"name": thing["name"]} | {key: thing[key] for key in entry.model_fields if key not in ("subnets", "labels")}
    labels = {key: value for key, value in thing["labels"].items() if not (own and key.startswith(_OWN_LABELS))}
    return made | ({"labels": labels} if labels else {})
