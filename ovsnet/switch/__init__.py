"""The Open_vSwitch database: bridges, ports, tags; and the flows that guard our ports, by OpenFlow.

This room owns the rows of our ports in the switch's own database and knows nothing of networks but what it writes into
their `external_ids`. It may call the transaction engine (`ovsnet.ovsdb`) and ovsdbapp. The use cases call it; vswitchd,
which acts on the rows, is only ever watched, and told what the ports may send.
"""

from .flows import Flows
from .switch import Switch
from .vswitchd import Forwarded, Vswitchd

__all__ = ["Flows", "Forwarded", "Switch", "Vswitchd"]
