"""Docker's IpamDriver methods: which use case of ovsnet.docker answers which, and how its result is worded.

Called through the routes only. Holds no state and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .protocol import (
    DONE,
    GATEWAY_KEY,
    GLOBAL_SPACE,
    LOCAL_SPACE,
    AddressRequest,
    AddressSpaces,
    GivenAddress,
    GivenPool,
    IpamCapabilities,
    Nothing,
    PoolRequest,
    ReleaseAddressRequest,
    ReleasePoolRequest,
    Response,
    Route,
    always,
)

if TYPE_CHECKING:
    from ovsnet.docker import DockerDriver


class IpamDriver:
    """The IpamDriver half of the plugin. `requester` tells which dockerd asks."""

    def __init__(self, driver: DockerDriver, requester: Callable[[], str]) -> None:
        self._driver = driver
        self._requester = requester

    def routes(self) -> tuple[Route[Any], ...]:
        """The route table."""
        spaces = AddressSpaces(LocalDefaultAddressSpace=LOCAL_SPACE, GlobalDefaultAddressSpace=GLOBAL_SPACE)
        return (
            # The replay makes Docker load the plugin at its start, and tells us which pools and addresses it holds.
            Route(
                "/IpamDriver.GetCapabilities",
                Nothing,
                always(IpamCapabilities(RequiresMACAddress=False, RequiresRequestReplay=True)),
            ),
            Route("/IpamDriver.GetDefaultAddressSpaces", Nothing, always(spaces)),
            Route("/IpamDriver.RequestPool", PoolRequest, self.request_pool),
            Route("/IpamDriver.ReleasePool", ReleasePoolRequest, self.release_pool),
            Route("/IpamDriver.RequestAddress", AddressRequest, self.request_address),
            Route("/IpamDriver.ReleaseAddress", ReleaseAddressRequest, self.release_address),
        )

    def request_pool(self, request: PoolRequest) -> Response:
        """RequestPool: `Data` tells the gateway where the pool belongs to a network that is joined, not made."""
        pool, joined = self._driver.request_pool(
            request.AddressSpace, request.Pool, request.SubPool, request.Options, request.V6, self._requester()
        )
        gateway = pool.gateway_interface if joined else None
        return GivenPool(
            PoolID=pool.uuid, Pool=str(pool.subnet), Data={} if gateway is None else {GATEWAY_KEY: str(gateway)}
        )

    def release_pool(self, request: ReleasePoolRequest) -> Response:
        """ReleasePool."""
        self._driver.release_pool(request.PoolID)
        return DONE

    def request_address(self, request: AddressRequest) -> Response:
        """RequestAddress."""
        given = self._driver.request_address(request.PoolID, request.Address, request.Options, self._requester())
        return GivenAddress(Address=str(given), Data={})

    def release_address(self, request: ReleaseAddressRequest) -> Response:
        """ReleaseAddress."""
        self._driver.release_address(request.PoolID, request.Address)
        return DONE
