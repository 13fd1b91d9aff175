"""nftables: what keeps the host out of its containers' traffic and networks apart on the host, and what publishes ports.

This room owns one nftables table of the family inet and one of netdev, and nothing else of the packet filter; it also ends
tracked connections of published ports. It may call nft(8). The use cases call it.
"""

from .connections import forget
from .limits import Limits
from .rules import Rules

__all__ = ["Limits", "Rules", "forget"]
