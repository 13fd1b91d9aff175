"""The link room: interfaces, addresses, routes and sysctls, on the host and in containers' namespaces, through netlink.

Owns every netlink message and every change of a thread's network namespace; knows devices by name and nothing about pools,
networks or the switch. It calls the kernel only; the use cases and the reconciler call it.
"""

from .links import LinkInfo, Links, Way
from .netns import Netns, open_netns
from .standin import StandIn
from .tap import compile_filter, record
from .watch import Watch

__all__ = ["LinkInfo", "Links", "Netns", "StandIn", "Watch", "Way", "compile_filter", "open_netns", "record"]
