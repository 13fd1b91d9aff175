"""Named places in the use cases at which ovsnetd can be made to kill itself, for the tests of what a crash leaves behind.

A use case calls `reach` after each of its steps: off, as always but in a test, that is one look at a variable. On, the file that
the setting `crash_at` names holds the point at which the process dies by SIGKILL; the file goes first, so that the next ovsnetd
lives. A test walks `Point`, and a point that nothing reaches any more fails it. Calls nothing; called by the use cases.
"""

from __future__ import annotations

import logging
import os
import signal
from enum import StrEnum
from pathlib import Path

from .errors import ConfigError

LOG = logging.getLogger(__name__)

SWITCH = "OVSNETD_CRASH_TEST"  # in the environment, set to 1: without it the setting is refused


class Point(StrEnum):
    """The points, by use case in the order in which they are reached: each tells what has been done just now."""

    POOL_MADE = "pool.made"
    POOL_GONE = "pool.gone"

    NETWORK_BRIDGE = "network.bridge"
    NETWORK_WRITTEN = "network.written"
    NETWORK_GATEWAY_PORT = "network.gateway-port"
    NETWORK_GATEWAY = "network.gateway"
    NETWORK_RULES = "network.rules"
    NETWORK_GONE = "network.gone"
    NETWORK_SPARES_GONE = "network.spares-gone"
    NETWORK_PORT_GONE = "network.port-gone"
    NETWORK_BRIDGE_GONE = "network.bridge-gone"
    NETWORK_RULES_GONE = "network.rules-gone"

    RETAG_WRITTEN = "retag.written"
    RETAG_PORTS = "retag.ports"

    SPARE_MADE = "spare.made"
    SPARE_READY = "spare.ready"
    PORT_REMOVING = "port.removing"
    PORT_CLEARED = "port.cleared"
    PORT_RETURNED = "port.returned"

    ATTACH_PORT = "attach.port"
    ATTACH_WRITING = "attach.writing"
    ATTACH_LINKED = "attach.linked"
    ATTACH_WRITTEN = "attach.written"
    ATTACH_LIMITED = "attach.limited"
    ATTACH_PLUGGED = "attach.plugged"
    ATTACH_PUBLISHED = "attach.published"
    ATTACH_CLAIMED = "attach.claimed"

    AGAIN_PORT = "again.port"
    AGAIN_MOVED = "again.moved"
    AGAIN_UNPLUGGED = "again.unplugged"
    AGAIN_PLUGGED = "again.plugged"

    DETACH_SILENCED = "detach.silenced"
    DETACH_UNPUBLISHED = "detach.unpublished"
    DETACH_RELEASING = "detach.releasing"
    DETACH_UNLIMITED = "detach.unlimited"
    DETACH_UNPLUGGED = "detach.unplugged"
    DETACH_RELEASED = "detach.released"

    ALTER_WRITTEN = "alter.written"
    ALTER_TAGGED = "alter.tagged"
    ALTER_LIMITED = "alter.limited"
    ALTER_PUBLISHED = "alter.published"

    ADDRESS_GIVEN = "address.given"  # of one family
    ADDRESS_TAKEN = "address.taken"  # of one family

    DOCKER_POOL = "docker.pool"
    DOCKER_ADDRESS = "docker.address"
    DOCKER_GATEWAY = "docker.gateway"
    DOCKER_NAMED = "docker.named"
    DOCKER_UNNAMED = "docker.unnamed"
    DOCKER_ADDRESS_GONE = "docker.address-gone"
    DOCKER_POOL_GONE = "docker.pool-gone"

    ENDPOINT_PORT = "endpoint.port"
    ENDPOINT_KEPT = "endpoint.kept"
    ENDPOINT_WRITTEN = "endpoint.written"
    ENDPOINT_PLUGGED = "endpoint.plugged"
    ENDPOINT_LIMITED = "endpoint.limited"
    ENDPOINT_CLAIMED = "endpoint.claimed"
    ENDPOINT_JOINED = "endpoint.joined"
    ENDPOINT_PUBLISHING = "endpoint.publishing"
    ENDPOINT_PUBLISHED = "endpoint.published"
    ENDPOINT_UNPUBLISHING = "endpoint.unpublishing"
    ENDPOINT_UNPUBLISHED = "endpoint.unpublished"
    ENDPOINT_STOOD_IN = "endpoint.stood-in"
    ENDPOINT_LEFT = "endpoint.left"
    ENDPOINT_SILENCED = "endpoint.silenced"
    ENDPOINT_UNLIMITED = "endpoint.unlimited"
    ENDPOINT_DISCARDED = "endpoint.discarded"
    ENDPOINT_GONE = "endpoint.gone"

    START_DEAD = "start.dead"  # after a reboot
    START_FORGOTTEN = "start.forgotten"  # after a reboot
    START_RULES = "start.rules"
    START_LIMITS = "start.limits"
    START_NETWORKS = "start.networks"
    START_STRAYS = "start.strays"
    START_GUARDS = "start.guards"

    REPAIR_BRIDGE = "repair.bridge"
    REPAIR_GATEWAY_GONE = "repair.gateway-gone"
    REPAIR_GATEWAY_PORT = "repair.gateway-port"
    REPAIR_GATEWAY = "repair.gateway"
    REPAIR_PORTS = "repair.ports"
    REPAIR_MOVED = "repair.moved"
    REPAIR_OPENED = "repair.opened"
    REPAIR_UNPLUGGED = "repair.unplugged"
    REPAIR_LIMITED = "repair.limited"
    REPAIR_PLUGGED = "repair.plugged"
    REPAIR_MARKED = "repair.marked"
    REPAIR_PREPARED = "repair.prepared"
    REPAIR_RULES = "repair.rules"
    REPAIR_LEASE = "repair.lease"
    REPAIR_STRAY = "repair.stray"


_order: Path | None = None  # the file that names a point; None: off


def arm(order: Path) -> None:
    """From now on die at the point that the file `order` names, once it does. ConfigError without the switch."""
    global _order  # noqa: PLW0603  # one process has one life
    if os.environ.get(SWITCH) != "1":
        raise ConfigError(
            f"crash_at is for tests: it makes ovsnetd kill itself, and {SWITCH} is not set",
            hint="take crash_at out of the settings",
        )
    LOG.warning("this ovsnetd will kill itself at the point that %s names", order)
    _order = order


def reach(point: Point) -> None:
    """Go on, or die here if that was ordered."""
    if _order is not None:
        _obey(_order, point)


def _obey(order: Path, point: Point) -> None:
    try:
        named = order.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return
    if named == point:
        order.unlink()
        LOG.critical("killed at %s, as ordered", point)
        os.kill(os.getpid(), signal.SIGKILL)
