"""Docker's NetworkDriver methods: which use case of ovsnet.docker answers which, and how its result is worded.

Called through the routes only. Holds no state and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ovsnet.docker import IpamData

from .protocol import (
    DONE,
    AllocateNetworkRequest,
    Allocation,
    CreatedEndpoint,
    CreateEndpointRequest,
    CreateNetworkRequest,
    DiscoveryRequest,
    DockerScope,
    EndpointRequest,
    ExternalRequest,
    GatewayCheck,
    GatewayCheckRequest,
    InterfaceChosen,
    IpamEntry,
    Joined,
    JoinRequest,
    LinkName,
    NetworkCapabilities,
    NetworkRequest,
    Nothing,
    OperInfo,
    Response,
    Route,
    StaticRoute,
    always,
)

if TYPE_CHECKING:
    from ovsnet.docker import DockerDriver
    from ovsnet.model import IPAddress


class NetworkDriver:
    """The NetworkDriver half of the plugin. `scope` is what Docker is told, `requester` tells which dockerd asks."""

    def __init__(self, driver: DockerDriver, scope: DockerScope, requester: Callable[[], str]) -> None:
        self._driver = driver
        self._requester = requester
        self._capabilities = NetworkCapabilities(Scope=scope, ConnectivityScope="local", GwAllocChecker=True)

    def routes(self) -> tuple[Route[Any], ...]:
        """The route table."""
        return (
            Route("/NetworkDriver.GetCapabilities", Nothing, always(self._capabilities)),
            Route("/NetworkDriver.GwAllocCheck", GatewayCheckRequest, self.gateway_check),
            Route("/NetworkDriver.AllocateNetwork", AllocateNetworkRequest, self.allocate_network),
            Route("/NetworkDriver.FreeNetwork", NetworkRequest, self.free_network),
            Route("/NetworkDriver.CreateNetwork", CreateNetworkRequest, self.create_network),
            Route("/NetworkDriver.DeleteNetwork", NetworkRequest, self.delete_network),
            Route("/NetworkDriver.CreateEndpoint", CreateEndpointRequest, self.create_endpoint),
            Route("/NetworkDriver.EndpointOperInfo", EndpointRequest, self.endpoint_info),
            Route("/NetworkDriver.DeleteEndpoint", EndpointRequest, self.delete_endpoint),
            Route("/NetworkDriver.Join", JoinRequest, self.join),
            Route("/NetworkDriver.Leave", EndpointRequest, self.leave),
            Route("/NetworkDriver.ProgramExternalConnectivity", ExternalRequest, self.program_external),
            Route("/NetworkDriver.RevokeExternalConnectivity", EndpointRequest, self.revoke_external),
            # Nodes find each other through the state database.
            Route("/NetworkDriver.DiscoverNew", DiscoveryRequest, always(DONE)),
            Route("/NetworkDriver.DiscoverDelete", DiscoveryRequest, always(DONE)),
        )

    def gateway_check(self, request: GatewayCheckRequest) -> Response:
        """GwAllocCheck: Docker is to reserve the gateway from the pool like any other address, unless the user says which."""
        skip4, skip6 = self._driver.skip_gateway(request.Options)
        return GatewayCheck(SkipIPv4=skip4, SkipIPv6=skip6)

    def allocate_network(self, request: AllocateNetworkRequest) -> Response:
        """AllocateNetwork: a swarm manager's part."""
        ipv4, ipv6 = _ipam_data(request.IPv4Data), _ipam_data(request.IPv6Data)
        return Allocation(Options=self._driver.allocate_network(request.NetworkID, request.Options, ipv4, ipv6))

    def free_network(self, request: NetworkRequest) -> Response:
        """FreeNetwork: a swarm manager's part."""
        self._driver.free_network(request.NetworkID)
        return DONE

    def create_network(self, request: CreateNetworkRequest) -> Response:
        """CreateNetwork: a network on pools that IPAM has given out before."""
        self._driver.create_network(
            request.NetworkID, request.Options, _ipam_data(request.IPv4Data), _ipam_data(request.IPv6Data)
        )
        return DONE

    def delete_network(self, request: NetworkRequest) -> Response:
        """DeleteNetwork."""
        self._driver.delete_network(request.NetworkID)
        return DONE

    def create_endpoint(self, request: CreateEndpointRequest) -> Response:
        """CreateEndpoint: answers only what the request left open."""
        wanted = request.Interface
        endpoint = self._driver.create_endpoint(
            request.NetworkID,
            request.EndpointID,
            wanted.Address,
            wanted.AddressIPv6,
            wanted.MacAddress,
            request.Options,
            self._requester(),
        )
        by_family = {address.version: str(address) for address in endpoint.addresses}
        return CreatedEndpoint(
            Interface=InterfaceChosen(
                Address=None if wanted.Address else by_family.get(4),
                AddressIPv6=None if wanted.AddressIPv6 else by_family.get(6),
                MacAddress=None if wanted.MacAddress else endpoint.mac,
            )
        )

    def endpoint_info(self, request: EndpointRequest) -> Response:
        """EndpointOperInfo."""
        return OperInfo(Value=self._driver.endpoint_info(request.NetworkID, request.EndpointID))

    def delete_endpoint(self, request: EndpointRequest) -> Response:
        """DeleteEndpoint."""
        self._driver.delete_endpoint(request.NetworkID, request.EndpointID)
        return DONE

    def join(self, request: JoinRequest) -> Response:
        """Join: names the link that Docker moves into the sandbox and renames."""
        joined = self._driver.join(request.NetworkID, request.EndpointID, request.SandboxKey, request.Options)
        return Joined(
            InterfaceName=LinkName(SrcName=joined.link, DstPrefix=joined.prefix),
            Gateway=_bare(joined.gateway),
            GatewayIPv6=_bare(joined.gateway6),
            StaticRoutes=tuple(
                StaticRoute(
                    Destination=str(route.destination),
                    RouteType=1 if route.gateway is None else 0,
                    NextHop=_bare(route.gateway),
                )
                for route in joined.routes
            ),
            DisableGatewayService=joined.disable_gateway_service,
        )

    def leave(self, request: EndpointRequest) -> Response:
        """Leave: the link is still in the sandbox."""
        self._driver.leave(request.NetworkID, request.EndpointID)
        return DONE

    def program_external(self, request: ExternalRequest) -> Response:
        """ProgramExternalConnectivity: `Options` hold the published ports."""
        self._driver.program_external(request.NetworkID, request.EndpointID, request.Options)
        return DONE

    def revoke_external(self, request: EndpointRequest) -> Response:
        """RevokeExternalConnectivity."""
        self._driver.revoke_external(request.NetworkID, request.EndpointID)
        return DONE


def _ipam_data(entries: list[IpamEntry]) -> list[IpamData]:
    return [
        IpamData(space=entry.AddressSpace, pool=entry.Pool, gateway=entry.Gateway, aux=entry.AuxAddresses)
        for entry in entries
    ]


def _bare(address: IPAddress | None) -> str:
    return "" if address is None else str(address)
