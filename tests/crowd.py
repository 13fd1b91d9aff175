"""Endpoints by the thousand in the state database of a real stack: those of another node of its cluster.

The stack's ovsnetd shows and counts them as it does its own, but they have no ports and no links here, so that they cost two
seconds a thousand, and not a minute. Needs ovsnetd's own state server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ovsnet.model import Endpoint, Network, Origin
from ovsnet.store import Store

from .harness import Stack

NODE = "elsewhere"
_AT_ONCE = 64  # of one transaction


@contextmanager
def crowd(stack: Stack, network: str, count: int) -> Iterator[list[Endpoint]]:
    """`count` endpoints on a network, given by name, with addresses; at the end they go again."""
    store = Store([f"unix:{stack.socket.parent / 'state.sock'}"], node=NODE, timeout=60.0, cooldown=0.0)
    with ExitStack() as undo:
        store.start()
        undo.callback(store.stop)
        store.wait_ready(60.0)
        found = store.network(network)
        made: list[Endpoint] = []
        try:
            for first in range(0, count, _AT_ONCE):
                pending = [
                    store.attach_soon(_endpoint(found, number)) for number in range(first, min(first + _AT_ONCE, count))
                ]
                made += [one.result() for one in pending]
            yield made
        finally:
            for first in range(0, len(made), _AT_ONCE):
                for going in [store.detach_soon(one.uuid) for one in made[first : first + _AT_ONCE]]:
                    going.result()


def _endpoint(network: Network, number: int) -> Endpoint:
    """As ovsnetd of that node would write it."""
    container = f"{number:04d}".ljust(64, "c")
    port, link = f"{NODE[:4]}p{number:010x}", f"{NODE[:4]}l{number:010x}"
    sandbox = f"/run/netns/{NODE}-{number}"
    return Endpoint(
        "",
        network.uuid,
        network.name,
        container,
        "eth0",
        Origin.CNI,
        NODE,
        sandbox,
        (),
        "",
        network.mtu,
        port,
        link,
        {},
    )
