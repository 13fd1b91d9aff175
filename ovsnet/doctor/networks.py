"""Checks of networks and endpoints: what the databases say, what the kernel has, and what others' rules do to traffic."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from typing import Any

from ..errors import InvalidNetns, OvsnetError
from ..model import OWN_TAG, QUARANTINED, Origin, OwnerKind, PortRole, endpoint_key
from ..nat.rules import table_name
from .host import STATE, SWITCH, Host, Row
from .trouble import Trouble, error, warning

_SYSCTL = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
_IPTABLES = {4: "iptables", 6: "ip6tables"}
_CHECK = "`ovsnet ipam check --repair`"
_AGAIN = "have its runtime attach the container again"


def forwarding(host: Host) -> Iterator[Trouble]:
    """Masquerading needs the host to be a router."""
    for version in sorted(
        {gateway.version for row in host.rows(STATE, "Network") if row["masquerade"] for gateway in _gateways(row)}
    ):
        key = _SYSCTL[version]
        if (host.read(f"/proc/sys/{key.replace('.', '/')}") or "").strip() == "0":
            yield error(
                f"{key} is 0: nothing of IPv{version} leaves masqueraded networks",
                f"`sysctl -w {key}=1`, or start ovsnetd again; and see what sets it to 0",
            )


def forward_drop(host: Host) -> Iterator[Trouble]:
    """Whatever another table drops is dropped, although ours accepts it."""
    versions = {gateway.version for row in host.rows(STATE, "Network") for gateway in _gateways(row)}
    if not versions or not host.root:
        return
    names = host.settings.names
    pattern = names.gateway_pattern.replace("*", "+")
    for version in sorted(versions):
        command = _IPTABLES[version]
        rules = host.run(command, "-S").out.splitlines()
        ours = f"-A DOCKER-USER -j OVSNET-{names.prefix}"
        if "-P FORWARD DROP" in rules and ours not in rules and not any(pattern in rule for rule in rules):
            yield warning(
                f"the policy of {command}'s chain FORWARD is DROP: IPv{version} between networks and the outside is dropped",
                f"`{command} -I FORWARD -i {pattern} -j ACCEPT`, and the same with "
                f"`-o {pattern} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT`",
            )
    for family, table, chain in _dropping(host):
        yield warning(
            f"chain {chain} of nftables' table {family} {table} drops what is forwarded by default",
            f"have it accept what comes from {names.gateway_pattern}, and what goes there of established connections",
        )


def _dropping(host: Host) -> Iterator[tuple[str, str, str]]:
    """Others' chains that drop what is forwarded, iptables' and firewalld's own left out."""
    ours = table_name(host.settings.names)
    for entry in _nft(host, "list", "chains"):
        chain = entry.get("chain", {})
        table = (chain.get("family"), chain.get("table"))
        iptables = table in (("ip", "filter"), ("ip6", "filter"))
        if (
            chain.get("hook") == "forward"
            and chain.get("policy") == "drop"
            and not iptables
            and table[1] not in (ours, "firewalld")
        ):
            yield str(table[0]), str(table[1]), str(chain.get("name"))


def firewalld(host: Host) -> Iterator[Trouble]:
    """It rejects what comes by devices that it does not know (docs/docker.md)."""
    if not any(entry.get("table", {}).get("name") == "firewalld" for entry in _nft(host, "list", "tables")):
        return
    names = host.settings.names
    pattern = names.gateway_pattern.replace("*", "+")
    trusted = set(host.run("firewall-cmd", "--zone=trusted", "--list-all").out.split())
    outside = {
        row["name"]
        for row in host.rows(STATE, "Network")
        for gateway in _gateways(row)
        if not trusted & {pattern, names.gateway(row["_uuid"]), str(gateway.network)}
    }
    if outside:
        yield warning(
            f"firewalld does not trust our gateways: it rejects what containers of {', '.join(sorted(outside))} send out",
            f"`firewall-cmd --permanent --zone=trusted --add-interface={pattern} && firewall-cmd --reload`",
        )


def _nft(host: Host, *words: str) -> list[dict[str, Any]]:
    if not host.root:
        return []
    done = host.run("nft", "-j", *words)
    try:
        found: list[dict[str, Any]] = json.loads(done.out)["nftables"]
    except (ValueError, KeyError):
        return []  # the check of nftables tells why
    return found


def mtu(host: Host) -> Iterator[Trouble]:
    """A packet that is larger than a device on its way is dropped without a word by a switch."""
    names = host.settings.names
    ports = _ports(host)
    uplinks = _uplinks(host)
    for row in host.rows(STATE, "Network"):
        wanted, name = row["mtu"], row["name"]
        gateway = host.link(names.gateway(row["_uuid"])) if _gateways(row) else None
        if gateway is not None and gateway.mtu != wanted:
            yield error(
                f"the gateway {gateway.name} of network {name} has MTU {gateway.mtu}, not {wanted}",
                f"`ip link set {gateway.name} mtu {wanted}`",
            )
        for device in uplinks.get(row["bridge"], ()):
            link = host.link(device)
            if link is not None and link.mtu < wanted:
                yield error(
                    f"uplink {device} of bridge {row['bridge']} has MTU {link.mtu}, network {name} {wanted}: "
                    "larger packets to other hosts are lost",
                    f"`ip link set {device} mtu {wanted}`, or make the network again with `--mtu {link.mtu}`",
                )
    for endpoint in _here(host):
        port = ports.get(endpoint["port"])
        lower = host.link(endpoint["port"]) if port is not None else None
        if lower is not None and lower.mtu < endpoint["mtu"]:
            yield error(
                f"port {lower.name} of {_name(host, endpoint)} has MTU {lower.mtu}, less than the container's {endpoint['mtu']}",
                f"`ovs-vsctl set Interface {lower.name} mtu_request={endpoint['mtu']}`",
            )


def port_wrong(host: Host) -> Iterator[Trouble]:
    """A tag is what keeps networks apart."""
    networks = {row["_uuid"]: row for row in host.rows(STATE, "Network")}
    endpoints = host.rows(STATE, "Endpoint")
    own = {row["_uuid"]: int(row["labels"][OWN_TAG]) for row in endpoints if OWN_TAG in row["labels"]}
    for port in _ports(host).values():
        network = networks.get(port["external_ids"].get("ovsnet-network", ""))
        if network is None:
            continue
        has, name = _one(port["tag"]) or 0, port["name"]
        wanted = own.get(port["external_ids"].get("ovsnet-endpoint", ""), network["tag"])
        if has != wanted:
            remedy = f"`ovs-vsctl set Port {name} tag={wanted}`" if wanted else f"`ovs-vsctl clear Port {name} tag`"
            yield error(f"port {name} of network {network['name']} has VLAN {has}, not {wanted}", remedy)
        if port["bridge"] != network["bridge"]:
            yield error(
                f"port {name} of network {network['name']} is on bridge {port['bridge']}, not {network['bridge']}",
                _AGAIN,
            )


def port_dead(host: Host) -> Iterator[Trouble]:
    """Ports that nobody uses, or that have no device."""
    known = {row["_uuid"] for row in host.rows(STATE, "Endpoint")}
    networks = {row["_uuid"] for row in host.rows(STATE, "Network")}
    for name, port in _ports(host).items():
        ids = port["external_ids"]
        if ids.get("ovsnet-role") == PortRole.ENDPOINT and ids.get("ovsnet-endpoint") not in known:
            yield warning(
                f"port {name} is of an endpoint that does not exist any more",
                _CHECK
                if ids.get("ovsnet-network") in networks
                else f"`ovs-vsctl del-port {name}`, if no container uses it",
            )
        elif complaint := _one(port["error"]):
            yield error(f"ovs-vswitchd cannot make port {name}: {complaint}", "see its log")
        elif host.link(name) is None:
            yield error(f"port {name} has no device", "`systemctl restart openvswitch-switch`, which makes it again")


def endpoint_dead(host: Host) -> Iterator[Trouble]:
    """Endpoints without a wire, or without a container."""
    ports = _ports(host)
    for endpoint in _here(host):
        name = _name(host, endpoint)
        if endpoint["port"] not in ports:
            yield error(f"{name} has no switch port {endpoint['port']}", _AGAIN)
        if host.root and endpoint["origin"] != Origin.DOCKER:
            try:
                host.link("lo", endpoint["sandbox"])
            except InvalidNetns as exc:
                yield warning(f"the namespace of {name} is gone: {exc.message}", _CHECK)


def link_wrong(host: Host) -> Iterator[Trouble]:
    """The switch, neighbours and other hosts go by these."""
    for endpoint in _here(host) if host.root else ():
        if endpoint["origin"] == Origin.DOCKER:
            continue  # Docker moves and renames its link as it likes
        name = _name(host, endpoint)
        try:
            link = host.link(endpoint["ifname"], endpoint["sandbox"])
        except OvsnetError:
            continue  # endpoint-dead tells of it
        if link is None:
            yield error(f"{name} has no interface {endpoint['ifname']}", _AGAIN)
            continue
        lower = host.link(endpoint["port"])
        if lower is not None and not lower.up and QUARANTINED not in endpoint["labels"]:
            yield error(f"the host's end {lower.name} of {name} is down", f"`ip link set {lower.name} up`")
        where = f"`nsenter --net={endpoint['sandbox']} ip"
        if link.mac != endpoint["mac"]:
            yield error(
                f"{name} has MAC {link.mac}, not {endpoint['mac']}",
                f"{where} link set {link.name} address {endpoint['mac']}`",
            )
        for address in _several(endpoint["addresses"]):
            if ipaddress.ip_interface(address) not in link.addresses:
                yield error(
                    f"{name} does not have address {address}", f"{where} address add {address} dev {link.name}`"
                )
        if not link.up:
            yield error(f"{link.name} of {name} is down", f"{where} link set {link.name} up`")


def lease_stale(host: Host) -> Iterator[Trouble]:
    """Addresses that are kept for nobody."""
    known = {endpoint_key(row["network"], row["container"], row["ifname"]) for row in host.rows(STATE, "Endpoint")}
    pools = {row["_uuid"]: row["name"] for row in host.rows(STATE, "Pool")}
    for block in host.rows(STATE, "Block"):
        for address, owner in block["leases"].items():
            kind, _, identity = owner.partition(":")
            if kind == OwnerKind.ENDPOINT and identity not in known:
                yield warning(
                    f"{address} of pool {pools.get(block['pool'], '?')} is leased to endpoint {identity}, which does not exist",
                    _CHECK,
                )


# -- rows as they are needed ------------------------------------------------------------------------------------------


def _gateways(network: Row) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    return [ipaddress.ip_interface(one) for one in _several(network["gateways"])]


def _several(value: Any) -> list[Any]:
    """The elements of a column that is a set: one alone stands for itself."""
    return value if isinstance(value, list) else [value]


def _one(value: Any) -> Any:
    """The element of a column that has one or none."""
    return next(iter(_several(value)), None)


def _here(host: Host) -> list[Row]:
    return [row for row in host.rows(STATE, "Endpoint") if row["node"] == host.settings.node]


def _name(host: Host, endpoint: Row) -> str:
    network = next((row["name"] for row in host.rows(STATE, "Network") if row["_uuid"] == endpoint["network"]), "?")
    return f"container {endpoint['container'][:40]} on network {network}"


def _ports(host: Host) -> dict[str, Row]:
    """Our ports by name, with their `bridge` and the `error` of their interface."""
    bridges = {port: row["name"] for row in host.rows(SWITCH, "Bridge") for port in _several(row["ports"])}
    errors = {row["name"]: row["error"] for row in host.rows(SWITCH, "Interface")}
    return {
        row["name"]: row | {"bridge": bridges.get(row["_uuid"], ""), "error": errors.get(row["name"], [])}
        for row in host.rows(SWITCH, "Port")
        if row["external_ids"].get("ovsnet-owner") == host.settings.node
    }


def _uplinks(host: Host) -> dict[str, list[str]]:
    """Devices of the host on each bridge that Open vSwitch did not make."""
    kinds = {row["_uuid"]: (row["type"], row["name"]) for row in host.rows(SWITCH, "Interface")}
    interfaces = {row["_uuid"]: _several(row["interfaces"]) for row in host.rows(SWITCH, "Port")}
    return {
        row["name"]: [
            kinds[one][1]
            for port in _several(row["ports"])
            for one in interfaces.get(port, ())
            if kinds.get(one, ("?", ""))[0] in ("", "system")
        ]
        for row in host.rows(SWITCH, "Bridge")
    }
