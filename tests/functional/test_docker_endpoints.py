"""An endpoint of which Docker was told and whose write the server refuses, on a real ovsdb-server.

The controller is a stand-in: all that is asked of it is what it was told, and a refusal in just that moment takes a server that
stands still and another controller's connection, not a switch and a kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ovsnet.controller import Controller
from ovsnet.docker_endpoints import DockerEndpoints
from ovsnet.dockerd import Callers
from ovsnet.errors import AddressInUse, OvsnetError
from ovsnet.holds import Holds
from ovsnet.locks import KeyedLocks
from ovsnet.ports import Spare
from ovsnet.releases import Releases
from ovsnet.store import PendingEndpoint, Store
from tests.functional.conftest import Connect
from tests.functional.test_store import docker, endpoint, ip, joined, pool
from tests.harness import wait_until
from tests.ovsdb_server import OvsdbServer


class Room:
    """A controller that notes what becomes of ports and links."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.told: list[str] = []
        self.settings = SimpleNamespace(deadline=5.0)
        self.ports = SimpleNamespace(
            discard=self._note("discard"), claim=self._note("claim"), hush=self._note(), replenish=self._note()
        )
        self.links = SimpleNamespace(plug_host=self._note("plug"))
        self.spoofing = SimpleNamespace(fits=lambda *_: True, wait=self._note())
        self.open_spare = self._note()
        self.note_attached = self._note()

    def _note(self, word: str = "") -> Callable[..., None]:
        return lambda *_args, **_more: self.told.append(word) if word else None

    def unwrite(self, write: PendingEndpoint, _leave_to: str) -> None:
        """As the controller's."""
        with pytest.raises(OvsnetError):
            write.result()


def test_a_refused_write_is_undone_and_told_to_who_asks(state_db: OvsdbServer, connect: Connect) -> None:
    other = connect("b")  # before ours: the server takes what its earlier sessions have sent first
    store = connect("a")
    network = joined(store, pool())
    (known,) = store.pools_of(network)
    store.allocate(known, docker("first"))  # the block is ours
    room: Any = Room(store)
    holds = Holds(store, lambda _write, _addresses: None)
    made = DockerEndpoints(cast("Controller", room), Callers("a"), holds, Releases(store))
    locks = KeyedLocks()
    address = holds.take(known, docker("1/a"))
    assert address == ip("10.0.0.2")
    wait_until(lambda: other.lease_owner(known, ip("10.0.0.1")), "the other has seen it")
    draft = endpoint(network, "e" * 64, ifname="", addresses=(known.interface(address),))
    state_db.pause()
    taken = other.allocate_soon(known, docker("2/b"), address)
    wait_until(lambda: other._engine.in_flight, "the other has sent it")
    with locks.hold(draft.key, 5.0) as lock:
        told = made.make(network, draft, Spare("port"), "", lock)
    assert told.mac
    assert room.told == ["plug"]
    state_db.resume()
    assert taken.result() == address
    with pytest.raises(AddressInUse):
        made.promises.check(draft.key)
    assert room.told == ["plug", "discard"]
    with locks.hold(draft.key, 5.0):  # nobody holds it any more
        assert not store.endpoints()
    holds.stop()
