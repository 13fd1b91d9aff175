"""What Docker users write in `-o`, `--ipam-opt` and `--driver-opt`, as typed values: the keys, their values' forms and limits.

Pure. Docker hands every value on as text; what it means is ovsnet.docker's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches

from .errors import AddressNotInPool, InvalidRequest
from .model import MAX_RATE, MAX_TAG, AddressRange, Bandwidth, IPAddress, IPInterface, IPNetwork, check_tag
from .names import check_mac, check_reservation

ENDPOINT_OPTIONS = {
    "ovsnet.rate.out": "most that the container may send, in bits per second, with k, M or G",
    "ovsnet.rate.in": "most that the container may receive, the same",
    "ovsnet.burst.out": "burst of ovsnet.rate.out in bits",
    "ovsnet.burst.in": "burst of ovsnet.rate.in in bits",
    "ovsnet.mac": "MAC address",
    "ovsnet.name": "name for which the address is kept",
}

# Options of Docker's bridge driver that people carry over. The value that is what happens here anyway is accepted, any
# other refused with what to do instead: to ignore it would be to promise what is not kept.
_CARRIED_OVER = {
    "com.docker.network.bridge.default_bridge": (
        "false",
        "leave it out: no network of ovsnet is Docker's default bridge",
    ),
    "com.docker.network.bridge.enable_icc": ("true", "give containers that must not meet networks of their own"),
    "com.docker.network.bridge.host_binding_ipv4": ("0.0.0.0", "name the address in -p ADDRESS:PORT:PORT"),  # noqa: S104
    "com.docker.network.bridge.inhibit_ipv4": ("false", "use -o ovsnet.gateway=none"),
    "com.docker.network.enable_ipv4": ("true", "use docker network create --ipv4=false"),
    "com.docker.network.enable_ipv6": ("false", "use docker network create --ipv6"),
}
_BOOLEANS = {
    "1": "true",
    "t": "true",
    "true": "true",
    "0": "false",
    "f": "false",
    "false": "false",
}  # as Docker reads them
_RATE = re.compile(r"([0-9]{1,13})(\.[0-9]{1,9})?([kKmMgG]?)\Z")
_UNIT = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}  # the docker command writes --network's options in lower case
_IFACE_PREFIX = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,10}\Z")  # IFNAMSIZ less the number that Docker appends


def check_keys(given: Mapping[str, str], known: Collection[str], flag: str) -> None:
    """InvalidRequest for a key that is not known, with the nearest one that is."""
    for key in given:
        if key not in known:
            raise _unknown(key, known, flag)


def check_carried_over(given: Mapping[str, str]) -> dict[str, str]:
    """`given` without the bridge driver's options that ask for what happens anyway; InvalidRequest for any other value."""
    for key, (only, instead) in _CARRIED_OVER.items():
        if key in given and _BOOLEANS.get(given[key].lower(), given[key]) != only:
            raise InvalidRequest(f"-o {key}={given[key][:80]!r} is not possible, only {only}", hint=instead)
    return {key: value for key, value in given.items() if key not in _CARRIED_OVER}


def carried_over() -> tuple[str, ...]:
    """The bridge driver's options that are understood, but mean nothing."""
    return tuple(_CARRIED_OVER)


def endpoint_options(options: Mapping[str, object]) -> dict[str, str]:
    """Ours among CreateEndpoint's options, where they stand beside Docker's own; InvalidRequest for one that is not known.

    Keys of others are left alone, unless they look like ours misspelt.
    """
    found = {}
    for key, value in options.items():
        if key in ENDPOINT_OPTIONS:
            if not isinstance(value, str):
                raise InvalidRequest(f"--driver-opt {key} is not a text", hint=f"write {key}=VALUE")
            found[key] = value
        elif key.startswith("ovsnet") or get_close_matches(key, ENDPOINT_OPTIONS, n=1, cutoff=0.85):
            raise _unknown(key, ENDPOINT_OPTIONS, "--driver-opt")
    return found


def bandwidth(options: Mapping[str, str]) -> Bandwidth:
    """The limits that an endpoint's options ask for; InvalidRequest."""
    values: dict[str, int] = {}
    for ours, key in (("egress", "out"), ("ingress", "in")):
        keys = (f"ovsnet.{what}.{key}" for what in ("rate", "burst"))
        rate, burst = (bits(options[one], one) if one in options else 0 for one in keys)
        if burst and not rate:
            raise InvalidRequest(
                f"ovsnet.burst.{key} is given without ovsnet.rate.{key}", hint="give both, or only the rate"
            )
        values |= {f"{ours}_rate": rate, f"{ours}_burst": burst}
    return Bandwidth(**values)


def mac(options: Mapping[str, str], wanted: str) -> str:
    """The MAC address of `--mac-address` (`wanted`) or of the option, "" if neither is given; InvalidRequest."""
    given = check_mac(options["ovsnet.mac"]) if "ovsnet.mac" in options else ""
    asked = check_mac(wanted) if wanted else ""
    if given and asked and given != asked:
        raise InvalidRequest(f"ovsnet.mac={given} contradicts --mac-address {asked}", hint="leave one of the two out")
    return asked or given


def sticky_name(options: Mapping[str, str]) -> str:
    """The name for which the address is to be kept, or ""; InvalidRequest."""
    return check_reservation(options["ovsnet.name"]) if "ovsnet.name" in options else ""


def tags(text: str) -> tuple[int, ...]:
    """VLANs of a trunk, `10,20-29`, in order and each once; InvalidRequest."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = [first, last if dash else first]
        if not all(one.isascii() and one.isdigit() and len(one) < 6 for one in numbers):
            raise InvalidRequest(f"ovsnet.vlan.trunk: {part[:80]!r} is no VLAN", hint="write it as 10,20-29")
        low, high = (check_tag(int(one)) for one in numbers)
        if not 0 < low <= high:
            raise InvalidRequest(
                f"ovsnet.vlan.trunk: {part[:80]!r} is no range of VLANs", hint=f"use 1 to {MAX_TAG}, the lower first"
            )
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def write_tags(found: Collection[int]) -> str:
    """VLANs as `tags` reads them, each range as short as it can be: `10,20-29`."""
    runs: list[list[int]] = []
    for tag in sorted(found):
        if runs and runs[-1][1] == tag - 1:
            runs[-1][1] = tag
        else:
            runs.append([tag, tag])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def ranges(text: str, version: int) -> tuple[AddressRange, ...]:
    """The ranges of one IP version in a list such as `10.1.0.8-10.1.0.20,10.1.0.64/26`; InvalidRequest."""
    parsed = [AddressRange.parse(part.strip()) for part in text.split(",") if part.strip()]
    return tuple(sorted({one for one in parsed if one.first.version == version}))


def gateways(text: str) -> tuple[IPAddress, ...]:
    """The value of ovsnet.gateway: addresses, one of a family; empty for `none`. InvalidRequest."""
    if text == "none":
        return ()
    try:
        found = tuple(ipaddress.ip_address(part.strip()) for part in text.split(","))
    except ValueError as exc:
        raise InvalidRequest(
            f"ovsnet.gateway={text[:80]!r} cannot be read: {exc}", hint="write an address, or none"
        ) from None
    if len({one.version for one in found}) < len(found):
        raise InvalidRequest("ovsnet.gateway has two addresses of one family", hint="give one of each family")
    return found


def gateway_interface(address: IPAddress, subnets: Collection[IPNetwork]) -> IPInterface:
    """A gateway with the prefix length of its subnet; AddressNotInPool if none has it."""
    for subnet in subnets:
        if address in subnet:
            return ipaddress.ip_interface(f"{address}/{subnet.prefixlen}")
    raise AddressNotInPool(f"gateway {address} is in no subnet of the network", hint="choose one within the subnet")


def link_prefix(text: str) -> str:
    """What a container's interfaces are called before their number; InvalidRequest."""
    if not _IFACE_PREFIX.match(text):
        raise InvalidRequest(
            f"com.docker.network.container_iface_prefix={text[:80]!r} cannot begin an interface's name",
            hint="use up to 11 letters, digits, '_', '.' and '-', such as eth",
        )
    return text


def bits(text: str, key: str) -> int:
    """An amount of bits with k, M or G, such as `50M`, that was given for `key`; InvalidRequest."""
    match = _RATE.match(text.strip())
    if match is None:
        raise InvalidRequest(f"{key}={text[:80]!r} is no amount of bits", hint="write it as 800k, 50M or 1.5G")
    whole, fraction, unit = match.groups(default="")
    # In integers, for a float would not keep what was written.
    value = int(whole) * _UNIT[unit.lower()] + int(f"{fraction[1:]:0<9}") * _UNIT[unit.lower()] // 10**9
    if not 0 < value <= MAX_RATE:
        raise InvalidRequest(f"{key}={text[:80]!r} is out of range", hint=f"use 1 to {MAX_RATE} bits")
    return value


def _unknown(key: str, known: Collection[str], flag: str) -> InvalidRequest:
    close = get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return InvalidRequest(f"{flag} {key[:80]} is not known", hint=hint)
