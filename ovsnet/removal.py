"""The removal of a network together with its endpoints."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from .errors import EndpointNotFound, InUse, NotFound
from .jobs import Progress

if TYPE_CHECKING:
    from .controller import Controller

_ROUNDS = 5  # after which somebody who attaches all the time has won


def remove_network(controller: Controller, ref: str, progress: Progress) -> None:
    """Take all endpoints off a network, whoever they belong to, and remove it, with what is reserved in the pools that go too.

    Containers go on without it; Docker's own picture of them stays as it is until they are removed. An endpoint that cannot be
    taken off ends the removal with its error; asked again, it goes on. NetworkNotFound; InUse if endpoints keep coming.
    """
    network = controller.network(ref)
    done = 0
    for attempt in range(_ROUNDS):
        endpoints = controller.endpoints(network.uuid)
        total = done + len(endpoints) + 1
        for endpoint in endpoints:
            progress(done, total)
            with suppress(EndpointNotFound):  # its own runtime was quicker
                controller.delete_endpoint(endpoint.uuid)
            done += 1
        progress(done, total)
        going = set(controller.pools_going_with(network))
        for pool in (one for one in controller.store.pools_of(network) if one.uuid in going):
            for name in pool.reservations:
                with suppress(NotFound):  # released meanwhile
                    controller.release_reservation(pool.uuid, name)
        try:
            controller.delete_network(network.uuid)
        except InUse:
            if attempt == _ROUNDS - 1:
                raise
        else:
            break
    progress(done + 1, done + 1)
