"""Who wants to hear of it when somebody changes bridges and ports: the replica that tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..ovsdb import Idl

Observer = Callable[[str], None]

# By table, the columns whose change another program, or a device that went away, may have made. Marks are missing here: we write
# them on every port that is given out.
_TELLING = {
    "Bridge": ("datapath_type",),
    "Port": ("tag", "trunks", "vlan_mode", "qos", "interfaces"),
    "Interface": ("error", "ifindex", "mtu_request", "type"),
}


class WatchedIdl(Idl):
    """The IDL that tells `observer` of rows that were deleted or changed; see `Switch.watch`."""

    observer: Observer | None = None
    _told_of: int | None = None  # the session's number whose rows were told of

    def run(self) -> bool:
        """As the parent's."""
        changed = bool(super().run())
        connected = self._session.is_connected()
        if self.state == self.IDL_S_MONITORING and connected and self._told_of != self._session.get_seqno():
            self._told_of = self._session.get_seqno()
            self._tell("")  # rows may have gone without a word
        return changed

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        """Tell of a row; `updates` has the columns that changed."""
        columns = _TELLING.get(row._table.name)
        if columns is None:
            return
        if event == "delete" or (event == "update" and any(hasattr(updates, column) for column in columns)):
            self._tell(row.name)

    def _tell(self, name: str) -> None:
        if self.observer is not None:
            self.observer(name)
