"""Commands on the Open_vSwitch database, after ovsdbapp's model and composed of its own where they fit.

Each may share its transaction with others and may be run again: it checks first, raises before its first write, and leaves
alone what it finds done. Every row of ours carries its owner in `external_ids`; a row without it is never changed.

What changes in a port's life (role, endpoint) stands in `external_ids` of its Port row: vswitchd does not monitor that column
(measured with 3.1), while any change of one that it monitors, such as `other_config`, costs a full reconfigure.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovs.db import idl as ovs_idl
from ovs.db.data import Atom
from ovs.db.types import UuidType
from ovsdbapp.backend.ovs_idl import idlutils
from ovsdbapp.schema.open_vswitch import commands, impl_idl

from ..errors import AlreadyExists, Conflict, NotFound, SwitchUnavailable
from ..model import PortRole, SwitchPort
from ..ovsdb import Command, Engine

LOG = logging.getLogger(__name__)

OWNER = "ovsnet-owner"  # the node
ROLE = "ovsnet-role"  # a PortRole
NETWORK = "ovsnet-network"  # uuid
ENDPOINT = "ovsnet-endpoint"  # uuid, or no such key
COUNTED = "ovsnet-counted"  # JSON: Interface.statistics when the port's last owner left it
CAPTURE = "ovsnet-capture"  # the node; of mirrors and their output ports, which are nobody's for all others

# What is read or written, and nothing else: vswitchd refreshes statistics and status every few seconds, which at thousands
# of ports would keep the replica's thread busy.
COLUMNS: dict[str, Sequence[str]] = {
    "Open_vSwitch": ("bridges", "ovs_version", "next_cfg"),
    "Bridge": (
        "name",
        "ports",
        "datapath_type",
        "fail_mode",
        "mcast_snooping_enable",
        "mirrors",
        "other_config",
        "external_ids",
    ),
    "Port": ("name", "interfaces", "tag", "trunks", "vlan_mode", "qos", "external_ids"),
    "Mirror": ("name", "select_src_port", "select_dst_port", "output_port", "external_ids"),
    "QoS": ("type", "other_config", "queues", "external_ids"),
    "Queue": ("other_config", "external_ids"),
    "Interface": ("name", "type", "mtu_request", "ofport", "ifindex", "error", "external_ids"),
}


class Api(impl_idl.OvsdbIdl):  # type: ignore[misc]  # ovsdbapp is not typed
    """ovsdbapp's Open_vSwitch API on an engine of ours: its tables, indexes and commands; transactions are the engine's."""

    ovsdb_connection: Engine | None = None  # hides Backend's property, which keeps one connection for the whole class

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, start=False)

    def find(self, table: str, name: str) -> Any:
        """The row of that name, or None; by index."""
        return idlutils.row_by_value(self.idl, table, "name", name, None)


class EnsureBridge(Command):
    """A bridge of ours, unless one of that name exists: then it is used as it is, whoever made it."""

    def __init__(self, api: Api, name: str, datapath_type: str, node: str) -> None:
        super().__init__(api)
        self.name = name
        self.datapath_type = datapath_type
        self.node = node

    def run_idl(self, txn: ovs_idl.Transaction) -> None:
        """Insert the bridge with its local port."""
        if self.api.find("Bridge", self.name) is not None:
            return
        if not self.api.tables["Open_vSwitch"].rows:
            raise SwitchUnavailable("the switch database is empty", hint="run `ovs-vsctl --no-wait init`")
        txn.expected_ifaces = set()  # ovsdbapp's commands expect it of its own transaction class
        commands.AddBridgeCommand(self.api, self.name, True, self.datapath_type).run_idl(txn)
        row = self.api.find("Bridge", self.name)
        row.fail_mode = "standalone"
        # Multicast goes to the ports that asked for it; without this, IPv6's chatter reaches every port of the VLAN.
        row.mcast_snooping_enable = True
        # No hidden flows that let a remote controller's traffic pass: the bridge has none.
        row.other_config = {"disable-in-band": "true"}
        row.external_ids = {OWNER: self.node}


class DeleteBridge(Command):
    """Remove a bridge if it is ours and holds no port but its own; `result` tells whether it went."""

    def __init__(self, api: Api, name: str, node: str) -> None:
        super().__init__(api)
        self.name = name
        self.node = node

    def run_idl(self, txn: ovs_idl.Transaction) -> None:
        """Delete the bridge, provided that nobody adds a port meanwhile."""
        self.result = False
        row = self.api.find("Bridge", self.name)
        if row is None or row.external_ids.get(OWNER) != self.node:
            return
        if any(port.name != self.name for port in row.ports):
            return
        row.verify("ports")
        commands.DelBridgeCommand(self.api, self.name, True).run_idl(txn)
        self.result = True


class AddPorts(Command):
    """Internal ports, each with its device, tag and owner; all or none."""

    def __init__(self, api: Api, ports: Sequence[SwitchPort], node: str) -> None:
        super().__init__(api)
        self.ports = tuple(ports)
        self.node = node

    def run_idl(self, txn: ovs_idl.Transaction) -> None:
        """Insert the ports that are not there yet."""
        missing = [port for port in self.ports if not self._exists(port)]
        for port in missing:
            if self.api.find("Bridge", port.bridge) is None:
                raise SwitchUnavailable(f"bridge {port.bridge} does not exist", hint="ensure it first")
        txn.expected_ifaces = set()  # see EnsureBridge
        for port in missing:
            command = commands.AddPortCommand(
                self.api,
                port.bridge,
                port.name,
                False,
                type="internal",
                mtu_request=port.mtu,
                external_ids={OWNER: self.node},
            )
            command.run_idl(txn)
            row = self.api.tables["Port"].rows[command.result]
            for column, value in _vlans(port).items():
                if value:
                    setattr(row, column, value)
            row.external_ids = _external_ids(port, self.node)

    def _exists(self, port: SwitchPort) -> bool:
        row = self.api.find("Port", port.name)
        if row is None:
            return False
        ids = row.external_ids
        bridge = self.api.find("Bridge", port.bridge)
        ours = ids.get(OWNER) == self.node and ids.get(NETWORK) == port.network
        if ours and row.tag == ([port.tag] if port.tag else []) and bridge is not None and row in bridge.ports:
            return True
        raise AlreadyExists(f"the switch has another port {port.name}", hint="choose a fresh name")


class MendPort(Command):
    """Give a port of ours its tag, trunk and marks back; on the bridge where it is. NotFound if there is no such port of ours."""

    def __init__(self, api: Api, port: SwitchPort, node: str) -> None:
        super().__init__(api)
        self.port = port
        self.node = node

    def run_idl(self, txn: ovs_idl.Transaction) -> None:
        """Set what differs: vswitchd reconfigures after any change of the others than `external_ids`."""
        del txn
        row = self.api.find("Port", self.port.name)
        if row is None or owner(row) != self.node:
            raise NotFound(f"switch port {self.port.name} does not exist", hint="take another one")
        for column, value in (*_vlans(self.port).items(), ("external_ids", _external_ids(self.port, self.node))):
            if getattr(row, column) != value:
                row.verify(column)
                setattr(row, column, value)


class RetagPorts(Command):
    """Give ports of ours other VLANs, those that are missing left out, and have vswitchd note when it has followed.

    `result` is the number that `Open_vSwitch.cur_cfg` reaches then (ovs-vswitchd.conf.db(5)), 0 if nothing differed.
    """

    def __init__(self, api: Api, ports: Sequence[SwitchPort], node: str) -> None:
        super().__init__(api)
        self.ports = ports
        self.node = node

    def run_idl(self, txn: ovs_idl.Transaction) -> None:
        """Set what differs. A port whose VLANs change is reconfigured in its place: its device stays as it is."""
        del txn
        self.result = 0
        for port in self.ports:
            row = self.api.find("Port", port.name)
            if row is None or owner(row) != self.node:
                continue
            for column, value in _vlans(port).items():
                if getattr(row, column) != value:
                    row.verify(column)
                    setattr(row, column, value)
                    self.result = -1
        if self.result:
            (switch,) = self.api.tables["Open_vSwitch"].rows.values()
            switch.verify("next_cfg")
            switch.next_cfg = self.result = switch.next_cfg + 1


class ClaimPort(Command):
    """Make a spare port an endpoint's. Again for the same endpoint is success."""

    def __init__(self, api: Api, name: str, endpoint: str, node: str) -> None:
        super().__init__(api)
        self.name = name
        self.endpoint = endpoint
        self.node = node

    def run_idl(self, txn: ovs_idl.Transaction) -> None:
        """Set role and endpoint on the Port row, provided that nobody else does meanwhile."""
        del txn
        row = self.api.find("Port", self.name)
        ids = {} if row is None else row.external_ids
        if ids.get(OWNER) != self.node:
            raise NotFound(f"switch port {self.name} does not exist", hint="take another one")
        if ids.get(ENDPOINT) == self.endpoint:
            return
        if ids.get(ROLE) != PortRole.SPARE:
            raise Conflict(f"switch port {self.name} is in use", hint="take another one")
        row.verify("external_ids")
        row.setkey("external_ids", ROLE, PortRole.ENDPOINT.value)
        row.setkey("external_ids", ENDPOINT, self.endpoint)


class ReturnPorts(Command):
    """Make endpoints' ports spare ones again. `result` names those that are now: a port that is not as spare ones are, be it by
    its owner's wishes or by somebody's hand, stays whose it is.
    """

    def __init__(self, api: Api, ports: Mapping[SwitchPort, Mapping[str, int]], node: str) -> None:
        super().__init__(api)
        self.ports = dict(ports)
        self.node = node

    def run_idl(self, txn: ovs_idl.Transaction) -> None:
        """Set role, endpoint and what was counted on the Port rows."""
        del txn
        watched = {
            port.uuid
            for mirror in self.api.tables["Mirror"].rows.values()
            for port in (*mirror.select_src_port, *mirror.select_dst_port)
        }
        returned = []
        for port, counted in self.ports.items():
            row, bridge = self.api.find("Port", port.name), self.api.find("Bridge", port.bridge)
            if (
                row is None
                or bridge is None
                or owner(row) != self.node
                or not has_port(bridge, row)
                or row.uuid in watched
            ):
                continue
            if row.qos or row.vlan_mode or len(row.interfaces) != 1 or row.interfaces[0].mtu_request != [port.mtu]:
                continue
            if any(getattr(row, column) != value for column, value in _vlans(port).items()):
                continue
            for column in ("external_ids", "qos", "tag", "trunks"):
                row.verify(column)
            row.external_ids = _external_ids(port, self.node) | {COUNTED: json.dumps(counted)}
            returned.append(port.name)
        self.result = tuple(returned)


class LimitPort(Command):
    """Limit what comes from a port's device, by a queueing discipline of its own, or with rate 0 no more; again, with other
    values too, is fine.

    For an internal port that is what the device's owner sends: vswitchd shapes what the kernel hands to the device.
    """

    def __init__(self, api: Api, name: str, rate: int, burst: int, node: str) -> None:
        super().__init__(api)
        self.name = name
        self.rate = rate
        self.burst = burst
        self.node = node

    def run_idl(self, txn: ovs_idl.Transaction) -> None:
        """Make or change the QoS row, and the Queue row that alone can have a burst (ovs-vswitchd.conf.db(5), linux-htb)."""
        row = self.api.find("Port", self.name)
        if row is None or row.external_ids.get(OWNER) != self.node:
            raise NotFound(f"switch port {self.name} does not exist", hint="take another one")
        row.verify("qos")
        _delete_limits(row, self.node)
        if not self.rate:
            row.qos = [one for one in row.qos if one.external_ids.get(OWNER) != self.node]
            return
        qos, queue = (txn.insert(self.api.tables[table]) for table in ("QoS", "Queue"))
        rate = {"max-rate": str(self.rate)}
        # A class of HTB has its burst at its guaranteed rate only.
        queue.other_config = rate | ({"min-rate": str(self.rate), "burst": str(self.burst)} if self.burst else {})
        qos.type, qos.other_config, qos.queues = "linux-htb", rate, {0: queue}
        qos.external_ids = queue.external_ids = {OWNER: self.node}
        row.qos = [qos]


class SweepLimits(Command):
    """Remove limits of ours whose port has gone: QoS and Queue rows stay when somebody else deletes a port."""

    def __init__(self, api: Api, node: str) -> None:
        super().__init__(api)
        self.node = node

    def run_idl(self, txn: ovs_idl.Transaction) -> None:
        """Delete what no port refers to."""
        del txn
        used = {qos.uuid for port in self.api.tables["Port"].rows.values() for qos in port.qos}
        kept = [row for row in self.api.tables["QoS"].rows.values() if row.uuid in used]
        queues = {queue.uuid for qos in kept for queue in qos.queues.values()}
        for table, alive in (("QoS", used), ("Queue", queues)):
            for row in list(self.api.tables[table].rows.values()):
                if row.uuid not in alive and row.external_ids.get(OWNER) == self.node:
                    row.delete()


class DeletePorts(Command):
    """Remove ports of ours; missing ones are success, foreign ones stay. `result` names those that went."""

    def __init__(self, api: Api, names: Sequence[str], node: str) -> None:
        super().__init__(api)
        self.names = tuple(names)
        self.node = node

    def run_idl(self, txn: ovs_idl.Transaction) -> None:
        """Take the ports off their bridge; ovsdb-server collects the rows (they are no roots of the schema)."""
        del txn
        gone = []
        for name in self.names:
            row = self.api.find("Port", name)
            if row is None:
                continue
            if row.external_ids.get(OWNER) != self.node:
                LOG.warning("port %s is not ours and stays", name)
                continue
            # On a bridge without the port this changes nothing. To look which one has it would read the whole set.
            for bridge in self.api.tables["Bridge"].rows.values():
                bridge.delvalue("ports", row)
            for interface in row.interfaces:
                interface.delete()
            if row.qos:  # the server collects ports after it has looked whether deleted rows are referred to
                _delete_limits(row, self.node)
                row.qos = []
            else:
                row.delete()
            gone.append(name)
        self.result = tuple(gone)


class AddMirror(Command):
    """Have what passes a port of ours come out of a new internal port as well, with the same VLANs."""

    def __init__(self, api: Api, port: str, tap: SwitchPort, node: str) -> None:
        super().__init__(api)
        self.port = port
        self.tap = tap
        self.node = node

    def run_idl(self, txn: ovs_idl.Transaction) -> None:
        """Insert port and mirror, as one."""
        row, bridge = self.api.find("Port", self.port), self.api.find("Bridge", self.tap.bridge)
        if row is None or bridge is None or owner(row) != self.node:
            raise NotFound(f"switch port {self.port} does not exist", hint="try again")
        txn.expected_ifaces = set()  # see EnsureBridge
        command = commands.AddPortCommand(
            self.api, self.tap.bridge, self.tap.name, False, type="internal", mtu_request=self.tap.mtu
        )
        command.run_idl(txn)
        tap = self.api.tables["Port"].rows[command.result]
        for column, value in _vlans(self.tap).items():
            if value:
                setattr(tap, column, value)
        mirror = txn.insert(self.api.tables["Mirror"])
        mirror.name = self.tap.name
        mirror.select_src_port = mirror.select_dst_port = [row]
        mirror.output_port = [tap]
        tap.external_ids = mirror.external_ids = {CAPTURE: self.node}
        bridge.addvalue("mirrors", mirror)


class SweepMirrors(Command):
    """Remove mirrors of ours with their output ports, but those whose names `kept` gives; of one bridge, or "" for all."""

    def __init__(self, api: Api, kept: Callable[[], frozenset[str]], bridge: str, node: str) -> None:
        super().__init__(api)
        self.kept = kept
        self.bridge = bridge
        self.node = node

    def run_idl(self, txn: ovs_idl.Transaction) -> None:
        """Take them off their bridges."""
        del txn
        kept = self.kept()
        for bridge in self.api.tables["Bridge"].rows.values():
            if self.bridge not in ("", bridge.name):
                continue
            for column in ("mirrors", "ports"):
                for row in getattr(bridge, column):
                    if row.external_ids.get(CAPTURE) == self.node and row.name not in kept:
                        bridge.delvalue(column, row)
                        for interface in row.interfaces if column == "ports" else ():
                            interface.delete()
                        row.delete()


def _delete_limits(port: Any, node: str) -> None:
    """QoS and Queue rows are roots of the schema: nobody collects them."""
    for qos in port.qos:
        if qos.external_ids.get(OWNER) == node:
            for queue in qos.queues.values():
                queue.delete()
            qos.delete()


def owner(port: Any) -> str | None:
    """Whose a port is: by the mark on its Interface row if somebody has taken those on the Port row away."""
    ids = port.external_ids
    if OWNER in ids:
        return str(ids[OWNER])
    return next((one.external_ids[OWNER] for one in port.interfaces if OWNER in one.external_ids), None)


def has_port(bridge: Any, port: Any) -> bool:
    """Whether a port's row is of a bridge's. The column itself would be made of all its rows: 5 ms with 500."""
    return Atom(UuidType, port.uuid) in bridge._data["ports"].values


def _vlans(port: SwitchPort) -> dict[str, Any]:
    """The columns for its VLANs. Untagged frames of a trunk are those of the network: VLAN 0 where that has no tag."""
    return {
        "tag": [port.tag] if port.tag else [],
        "trunks": sorted({port.tag, *port.trunk}) if port.trunk else [],
        "vlan_mode": [port.usual_mode] if port.usual_mode else [],
    }


def _external_ids(port: SwitchPort, node: str) -> dict[str, str]:
    ids = {OWNER: node, ROLE: port.role.value, NETWORK: port.network}
    if port.endpoint:
        ids[ENDPOINT] = port.endpoint
    return ids
