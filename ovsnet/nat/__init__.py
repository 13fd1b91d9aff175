"""nftables: what keeps the host out of its containers' traffic and networks apart on the host, and what publishes ports.

This room owns one nftables table of the family inet and one of netdev, one iptables chain beside Docker's, and nothing else of
the packet filter; it also ends tracked connections of published ports. It may call nft(8) and iptables(8). The use cases call it.
"""

from .connections import forget
from .docker_user import DockerUser
from .host_ports import first_free, in_use
from .limits import Limits
from .rules import Rules

__all__ = ["DockerUser", "Limits", "Rules", "first_free", "forget", "in_use"]
