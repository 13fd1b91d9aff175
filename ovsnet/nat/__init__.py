"""nftables: what keeps the host out of its containers' traffic, and networks apart on the host.

This room owns one nftables table and nothing else of the packet filter. It may call nft(8). The use cases call it.
"""

from .rules import Rules

__all__ = ["Rules"]
