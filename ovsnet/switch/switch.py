"""The switch as the use cases see it: bridges and ports of ours, by name."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

from ..errors import DeadlineExceeded, SwitchUnavailable
from ..model import PortRole, SwitchPort, SwitchState
from ..ovsdb import Counts, Engine, ask, fetch_schema, schema_helper
from .commands import (
    COLUMNS,
    COUNTED,
    ENDPOINT,
    NETWORK,
    OWNER,
    ROLE,
    AddMirror,
    AddPorts,
    Api,
    ClaimPort,
    DeleteBridge,
    DeletePorts,
    EnsureBridge,
    LimitPort,
    MendPort,
    RetagPorts,
    ReturnPorts,
    SweepLimits,
    SweepMirrors,
    has_port,
    owner,
)
from .watch import Observer, WatchedIdl

DATABASE = "Open_vSwitch"

_MODULE = "openvswitch"
_FAREWELL = 5.0  # seconds for a bridge's device to go; one that stays is somebody else's, of which vswitchd will tell
_MARGIN = 1.0  # seconds by which the server's own patience ends before ours
_VSWITCHD_LOCK = "ovs_vswitchd"


class Switch:
    """Bridges and ports of one node on the Open vSwitch behind `remote`.

    `node` is written as the owner of what is made here, and only rows of that owner are changed. `datapath` is for bridges
    made here; "auto" takes the kernel's where it exists. `timeout` (seconds) bounds every call. A future is done once the
    database has the change; vswitchd acts on it afterwards, see `wait_ports`. All methods may be called from any thread.
    """

    def __init__(
        self, remote: str, *, node: str, datapath: Literal["auto", "system", "netdev"], timeout: float
    ) -> None:
        self._remote = remote
        self._node = node
        self._datapath = datapath
        self._timeout = timeout
        self._connection: Engine | None = None
        self._tables: Api | None = None
        self._observer: Observer | None = None

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect and read the database; SwitchUnavailable if its server does not answer within the timeout."""
        schema = fetch_schema(self._remote, DATABASE, self._timeout, SwitchUnavailable)
        idl = WatchedIdl(self._remote, schema_helper(schema, COLUMNS), leader_only=False)
        idl.observer = self._observer
        engine = Engine("switch", idl, unavailable=SwitchUnavailable, timeout=self._timeout)
        api = Api(engine)
        engine.start()
        try:
            engine.wait_ready(self._timeout)
        except SwitchUnavailable:
            engine.stop()
            raise
        self._connection, self._tables = engine, api

    def stop(self) -> None:
        """Close the connection; ports and bridges stay as they are."""
        engine, self._connection, self._tables = self._connection, None, None
        if engine is not None:
            engine.stop()

    def watch(self, observer: Observer) -> None:
        """Call `observer` with the name of each bridge or port that is removed or changed by anybody, and with "" when any may
        have been: after a reconnect. By the engine's thread, which it must not keep. Before `start`, or after it.
        """
        self._observer = observer
        if self._connection is not None:
            self._connection.idl.observer = observer

    @property
    def ready(self) -> bool:
        """Whether the database is connected and read. It reconnects by itself."""
        return self._connection is not None and self._connection.ready

    def forwarding(self, timeout: float) -> bool:
        """Whether an ovs-vswitchd works on the database: it holds the lock `ovs_vswitchd` (RFC 7047, section 4.1.8) as long as
        it lives. Asking for the lock tells; the end of the connection lets go of it, should it be free.

        SwitchUnavailable if the database does not answer within `timeout` seconds.
        """
        return not ask(self._remote, "lock", [_VSWITCHD_LOCK], timeout, SwitchUnavailable)["locked"]

    def counts(self) -> Counts:
        """What the connection has done."""
        return self._engine.counts

    @property
    def _engine(self) -> Engine:
        if self._connection is None:
            raise SwitchUnavailable("the switch is not connected", hint="start it first")
        return self._connection

    @property
    def _api(self) -> Api:
        if self._tables is None:
            raise SwitchUnavailable("the switch is not connected", hint="start it first")
        return self._tables

    # -- bridges ------------------------------------------------------------------------------------------------------

    def ensure_bridge(self, name: str) -> None:
        """Make the bridge if it is missing, and wait until vswitchd has; an existing one is used as it is."""
        api = self._api
        if not self._engine.read(lambda: api.find("Bridge", name) is not None):
            _wait_absent(name, min(self._timeout, _FAREWELL))
            self._engine.execute(EnsureBridge(api, name, self._datapath_type(), self._node))
        self.wait_ports((name,), self._timeout)

    def delete_bridge(self, name: str) -> bool:
        """Remove a bridge that `ensure_bridge` of this node made and that has no port but its own; whether it went."""
        (gone,) = self._engine.execute(DeleteBridge(self._api, name, self._node))
        return bool(gone)

    def bridges(self) -> tuple[str, ...]:
        """The bridges that `ensure_bridge` of this node has made."""
        api = self._api
        rows = api.tables["Bridge"].rows
        return self._engine.read(
            lambda: tuple(row.name for row in rows.values() if row.external_ids.get(OWNER) == self._node)
        )

    def tags(self, bridge: str) -> frozenset[int]:
        """VLAN tags that ports of that bridge use, foreign ports and trunks among them; none if it does not exist."""
        api = self._api

        def view() -> frozenset[int]:
            row = api.find("Bridge", bridge)
            ports = () if row is None else row.ports
            return frozenset(tag for port in ports for tag in (*port.tag, *port.trunks))

        return self._engine.read(view)

    # -- ports --------------------------------------------------------------------------------------------------------

    def add_ports(self, ports: Sequence[SwitchPort]) -> Future[list[Any]]:
        """Add internal ports to their bridges, all or none; those that exist with the same content are left alone.

        Fails with AlreadyExists for a name of other content and with SwitchUnavailable for a missing bridge.
        """
        return self._engine.submit(AddPorts(self._api, ports, self._node))

    def wait_ports(self, names: Iterable[str], timeout: float) -> dict[str, int]:
        """Block until vswitchd has made the devices of these ports: each has an ifindex and an OpenFlow port number, which is
        returned.

        They must be in the database already. SwitchUnavailable after `timeout` seconds, as soon as vswitchd reports an error
        for one (its only trace is the column Interface.error), or when one disappears.
        """
        api = self._api
        numbers = dict.fromkeys(names, 0)

        def made() -> bool:
            for name in [name for name, number in numbers.items() if not number]:
                numbers[name] = _number(api, name)
            return all(numbers.values())

        try:
            self._engine.wait_for(made, timeout)
            return numbers
        except DeadlineExceeded:
            pending = ", ".join(name for name, number in numbers.items() if not number)
            raise SwitchUnavailable(
                f"ovs-vswitchd has not made {pending} within {timeout:.1f} s", hint="check that it runs"
            ) from None

    def claim_port(self, name: str, endpoint: str) -> Future[list[Any]]:
        """Make a spare port the endpoint's (a uuid); vswitchd has nothing to do for it.

        Again for the same endpoint is success. Fails with NotFound if there is no such port of ours, and with Conflict if it
        is no spare.
        """
        return self._engine.submit(ClaimPort(self._api, name, endpoint, self._node))

    def return_ports(self, ports: Mapping[SwitchPort, Mapping[str, int]]) -> Future[list[Any]]:
        """Make ports of endpoints, given as they are to be, spare ones again; with each what it has counted for its last owner.

        vswitchd has nothing to do for it. The one result is the tuple of names that are spare now: the others are no longer
        like them, or are captured, or gone.
        """
        return self._engine.submit(ReturnPorts(self._api, ports, self._node))

    def del_ports(self, names: Iterable[str]) -> Future[list[Any]]:
        """Remove ports of ours in one transaction; missing ones are success, foreign ones stay.

        The one result is the tuple of names that went. vswitchd deletes the devices afterwards.
        """
        return self._engine.submit(DeletePorts(self._api, tuple(names), self._node))

    def mend_port(self, port: SwitchPort) -> None:
        """Give a port of ours its tag, trunk and marks back, on the bridge where it is. NotFound if there is none."""
        self._engine.execute(MendPort(self._api, port, self._node))

    def retag_ports(self, ports: Sequence[SwitchPort]) -> None:
        """Give ports of ours the VLANs that these have, in one transaction, and wait until vswitchd has followed.

        Missing ones are left out. SwitchUnavailable if it does not follow in time: then it will as soon as it can.
        """
        (number,) = self._engine.execute(RetagPorts(self._api, ports, self._node))
        if not number:
            return
        # The server waits (RFC 7047, section 5.2.6) until there is no row behind that number.
        wait = {"op": "wait", "timeout": int(self._timeout * 1000), "table": "Open_vSwitch", "columns": ["cur_cfg"]}
        wait |= {"where": [["cur_cfg", "<", number]], "until": "==", "rows": []}
        (answer,) = ask(self._remote, "transact", [DATABASE, wait], self._timeout + _MARGIN, SwitchUnavailable)
        if "error" in answer:
            raise SwitchUnavailable(
                f"ovs-vswitchd has not followed a change of VLAN tags within {self._timeout:.1f} s; it will when it can",
                hint="check that it runs",
            )

    def limit_port(self, name: str, rate: int, burst: int) -> None:
        """Limit what the owner of a port's device sends, to `rate` bits per second with bursts of `burst` bits (0: vswitchd's
        own choice); rate 0 ends it, as the port's end does. NotFound if there is no such port of ours.
        """
        self._engine.execute(LimitPort(self._api, name, rate, burst, self._node))

    def sweep_limits(self) -> None:
        """Remove what limited ports that have gone."""
        self._engine.execute(SweepLimits(self._api, self._node))

    def mirror(self, port: str, tap: SwitchPort) -> None:
        """Have what passes a port of ours come out of the new port `tap` as well, until `sweep_mirrors`. NotFound."""
        self._engine.execute(AddMirror(self._api, port, tap, self._node))

    def sweep_mirrors(self, kept: Callable[[], frozenset[str]], bridge: str = "") -> None:
        """Remove all mirrors of this node with their ports, but those that are `kept`; of one bridge, or "" for all.

        `kept` gives their names at the moment of the removal: another one may be on its way. It must be quick.
        """
        self._engine.execute(SweepMirrors(self._api, kept, bridge, self._node))

    def ports(self) -> tuple[SwitchPort, ...]:
        """The ports of this node, in no particular order."""
        api = self._api
        return self._engine.read(lambda: tuple(self._ports(api)))

    def state(self, only: Collection[str] | None = None) -> SwitchState:
        """All of the switch that a comparison needs, at one instant; or of the ports only what has these names."""
        api = self._api

        def view() -> SwitchState:
            if only is None:
                ports = {port.name: port for port in self._ports(api)}
                names = frozenset(row.name for row in api.tables["Port"].rows.values())
            else:
                found = {name: row for name in only if (row := api.find("Port", name)) is not None}
                ports = {name: port for name, row in found.items() if (port := self._our_port(api, row)) is not None}
                names = frozenset(found)
            return SwitchState(frozenset(row.name for row in api.tables["Bridge"].rows.values()), ports, names)

        return self._engine.read(view)

    def find_port(self, name: str) -> SwitchPort | None:
        """The port of this node of that name, or None."""
        return self.state((name,)).ports.get(name)

    def uplinks(self, bridge: str) -> tuple[str, ...]:
        """Devices of the host on that bridge that Open vSwitch did not make: its ways out."""
        api = self._api

        def view() -> tuple[str, ...]:
            row = api.find("Bridge", bridge)
            interfaces = [one for port in (row.ports if row else ()) for one in port.interfaces]
            return tuple(one.name for one in interfaces if one.type in ("", "system"))

        return self._engine.read(view)

    def version(self) -> str:
        """Open vSwitch's version as its start script wrote it into the database, or "" if none did."""
        api = self._api
        rows = self._engine.read(lambda: [row.ovs_version for row in api.tables["Open_vSwitch"].rows.values()])
        return next((version for versions in rows for version in versions), "")

    def statistics(self) -> dict[str, dict[str, int]]:
        """Counters of our ports by name, as vswitchd wrote them down some seconds ago (Interface.statistics), without what
        they counted for earlier owners.

        Read when asked for: they change all the time, and the replica does without them.
        """
        api = self._api

        def view() -> dict[str, str]:
            rows = api.tables["Port"].rows.values()
            return {row.name: row.external_ids[COUNTED] for row in rows if COUNTED in row.external_ids}

        counted = self._engine.read(view)
        ours = ["external_ids", "includes", ["map", [[OWNER, self._node]]]]
        select = {"op": "select", "table": "Interface", "where": [ours], "columns": ["name", "statistics"]}
        (answer,) = ask(self._remote, "transact", [DATABASE, select], self._timeout, SwitchUnavailable)
        return {
            row["name"]: _since(dict(row["statistics"][1]), counted.get(row["name"], "{}")) for row in answer["rows"]
        }

    def port_of_anybody(self, name: str) -> SwitchPort | None:
        """The port of that name, whoever it belongs to and whatever marks it bears; None if there is none."""
        api = self._api

        def view() -> SwitchPort | None:
            rows = ((row.name, port) for row in api.tables["Bridge"].rows.values() for port in row.ports)
            return next((_port(bridge, port) for bridge, port in rows if port.name == name and port.interfaces), None)

        return self._engine.read(view)

    def _our_port(self, api: Api, row: Any) -> SwitchPort | None:
        if owner(row) != self._node or not row.interfaces:
            return None
        bridges = (one.name for one in api.tables["Bridge"].rows.values() if has_port(one, row))
        return next((_port(bridge, row) for bridge in bridges), None)

    def _ports(self, api: Api) -> Iterable[SwitchPort]:
        for bridge in api.tables["Bridge"].rows.values():
            name = bridge.name
            for port in bridge.ports:
                if owner(port) == self._node and port.interfaces:
                    yield _port(name, port)

    def _datapath_type(self) -> str:
        if self._datapath != "auto":
            return self._datapath
        return "system" if _kernel_has_datapath() else "netdev"


def _port(bridge: str, port: Any) -> SwitchPort:
    """From its row."""
    ids, interface = port.external_ids, port.interfaces[0]
    return SwitchPort(
        name=port.name,
        bridge=bridge,
        tag=(tag := next(iter(port.tag), 0)),
        mtu=next(iter(interface.mtu_request), 0),
        role=_role(ids.get(ROLE)),
        network=ids.get(NETWORK, ""),
        endpoint=ids.get(ENDPOINT, ""),
        ifindex=next(iter(interface.ifindex), 0),
        error=next(iter(interface.error), ""),
        trunk=tuple(sorted(set(port.trunks) - {tag})),
        number=max(0, next(iter(interface.ofport), 0)),
        vlan_mode=next(iter(port.vlan_mode), ""),
        **_limits(port),
    )


def _since(statistics: dict[str, int], counted: str) -> dict[str, int]:
    """What has been counted since. A counter that is lower than it was began anew, with its device."""
    try:
        before = json.loads(counted)
        return {
            name: value - before.get(name, 0) if value >= before.get(name, 0) else value
            for name, value in statistics.items()
        }
    except (ValueError, AttributeError, TypeError):  # somebody has written there
        return statistics


def _limits(port: Any) -> dict[str, int]:
    """`rate` and `burst` of a port."""
    for qos in port.qos:
        for queue in qos.queues.values():
            config = queue.other_config
            return {"rate": int(config.get("max-rate", 0)), "burst": int(config.get("burst", 0))}
    return {}


def _role(text: str | None) -> PortRole:
    """A port whose mark somebody has taken away could be an endpoint's."""
    return PortRole(text) if text in set(PortRole) else PortRole.ENDPOINT


def _number(api: Api, name: str) -> int:
    """The port's OpenFlow number, 0 until vswitchd has made its device."""
    interface = api.find("Interface", name)
    if interface is None:
        raise SwitchUnavailable(f"port {name} has disappeared from the switch", hint="see who deleted it")
    for error in interface.error:
        raise SwitchUnavailable(f"ovs-vswitchd cannot make {name}: {error}", hint="see its log")
    return max(0, next(iter(interface.ofport), 0)) if next(iter(interface.ifindex), 0) > 0 else 0


def _wait_absent(device: str, timeout: float) -> None:
    """Let vswitchd take down a bridge that was just deleted, before one of the same name is made.

    Told of both at once it keeps the old bridge for the new row, and never writes there that the device is made (3.1).
    """
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        try:
            socket.if_nametoindex(device)
        except OSError:
            return
        time.sleep(0.005)


def _kernel_has_datapath() -> bool:
    """Whether the kernel's module is there, or can be loaded (vswitchd does that when it first needs it)."""
    if Path("/sys/module", _MODULE).exists():
        return True
    try:
        done = subprocess.run(["modprobe", "--dry-run", "--quiet", _MODULE], timeout=5.0, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False  # no tool to load it with: the userspace datapath works everywhere
    return done.returncode == 0
