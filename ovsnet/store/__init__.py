"""The OVSNet database: pools, leases in blocks, networks and endpoints; the only durable state of ovsnet.

`Store` is the room's face: model objects in, model objects out. `StateServer` runs the ovsdb-server that holds the database on
this host, alone or as a member of a `cluster`. Called by the use cases and the composition root.
"""

from .server import StateServer
from .store import Pending, PendingEndpoint, Store

__all__ = ["Pending", "PendingEndpoint", "StateServer", "Store"]
