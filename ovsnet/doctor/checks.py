"""All checks, in the order in which they are told, and how they are run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ..errors import OvsnetError
from . import networks, parts, system
from .host import Host
from .trouble import Level, Trouble, Unreadable, error, warning

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at: its stable id, what is said when it is well, and what finds the troubles."""

    id: str
    good: str
    look: Callable[[Host], Iterable[Trouble]]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a check says: one line, and what to do ("" if nothing)."""

    check: str
    level: Level
    message: str
    remedy: str


CHECKS: Final = (
    Check("root", "runs as root", parts.root),
    Check("settings", "the settings can be read", parts.settings),
    Check("ovsnetd", "ovsnetd answers and is healthy", parts.ovsnetd),
    Check("state-database", "the state database can be read", parts.state_database),
    Check("switch-database", "the switch's database can be read", parts.switch_database),
    Check("vswitchd", "ovs-vswitchd works on it", parts.vswitchd),
    Check("ovs-version", "Open vSwitch is new enough", parts.ovs_version),
    Check("datapath", "bridges have the datapath that the settings want", parts.datapath),
    Check("kernel-tun", "the kernel makes tap devices", system.tun),
    Check("kernel-macvlan", "the kernel makes macvlan links", system.macvlan),
    Check("kernel-vlan", "the kernel makes VLAN interfaces", system.vlan),
    Check("kernel-nftables", "the kernel takes our packet filter rules", system.nftables),
    Check("forwarding", "the host forwards what its networks send out", networks.forwarding),
    Check("forward-drop", "nobody else's rules drop what is forwarded", networks.forward_drop),
    Check("firewalld", "firewalld lets our networks through, or is not there", networks.firewalld),
    Check("mtu", "MTUs fit along each network's path", networks.mtu),
    Check("port-wrong", "switch ports have their network's bridge and VLAN", networks.port_wrong),
    Check("port-dead", "every switch port of ours has its endpoint and its device", networks.port_dead),
    Check("endpoint-dead", "every endpoint of this host has its port and its namespace", networks.endpoint_dead),
    Check("link-wrong", "containers' links have their MAC and addresses", networks.link_wrong),
    Check("lease-stale", "every lease of an endpoint has its endpoint", networks.lease_stale),
    Check("clock", "the clock is kept right", system.clock),
    Check("disk", "there is room for the state database, the journal and the sockets", system.disk),
    Check("journal", "the event journal can be read", system.journal),
    Check("certificates", "certificates are valid, and their keys private", system.certificates),
    Check("directories", "nobody else can write to our directories", system.directories),
    Check("sockets", "our sockets have their modes and groups", system.sockets),
    Check("docker", "Docker, if it is there, finds our driver and knows its networks", parts.docker),
    Check("cni-plugins", "CNI plugins, if there are any, are this version's", parts.cni_plugins),
    Check("cni-config", "the first CNI configuration, if there is one, is ours and works", parts.cni_config),
)


def examine(host: Host) -> list[Diagnosis]:
    """What all checks say. What one cannot look at stops no other: it is skipped if another tells why, else a warning."""
    return [diagnosis for check in CHECKS for diagnosis in _examine(check, host)]


def worst(found: Iterable[Diagnosis]) -> Level:
    """The worst level among them."""
    order = list(Level)
    return max((one.level for one in found), key=order.index, default=Level.OK)


def _examine(check: Check, host: Host) -> list[Diagnosis]:
    try:
        found = list(check.look(host))
    except Unreadable as exc:
        found = [Trouble(Level.SKIPPED, f"not looked at: {exc.message}", "")]
    except OvsnetError as exc:
        found = [warning(f"cannot be looked at: {exc.message}", exc.hint or "see what else is wrong")]
    except Exception as exc:
        LOG.exception("the check %s failed by a defect", check.id)
        found = [error(f"the check itself failed: {exc!r}", "please report it")]
    return [Diagnosis(check.id, one.level, _line(one.message), _line(one.remedy)) for one in found] or [
        Diagnosis(check.id, Level.OK, check.good, "")
    ]


def _line(text: str) -> str:
    return " ".join(text.split())
