"""Address arithmetic of subnet pools: which address next, which block, what a pool may look like.

Pure: works on plain objects and does no I/O. The `store` room keeps the picture (`PoolBlocks`) current and writes what is
chosen here; the use cases check specifications with `pools`.
"""

from .blocks import BLOCK_BITS, Block, Choice, PoolBlocks
from .pools import check_spec, default_gateway
from .supernets import Supernet, carve

__all__ = ["BLOCK_BITS", "Block", "Choice", "PoolBlocks", "Supernet", "carve", "check_spec", "default_gateway"]
