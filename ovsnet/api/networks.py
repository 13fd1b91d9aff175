"""/v1/networks: networks."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from ovsnet import model

from .resource import UseCases, answer, new_blueprint, no_content
from .schemas import Network, NetworkCreate, Networks, Ref


def create_blueprint(controller: UseCases) -> APIBlueprint:
    """The resource on `controller`."""
    blueprint = new_blueprint("networks", "/v1/networks")

    def render(network: model.Network) -> Network:
        return Network.of(network, {uuid: controller.pool(uuid) for uuid in network.pools})

    @blueprint.get("", responses={200: Networks})
    def list_networks() -> Response:
        """All networks."""
        networks = controller.networks()
        pools = {use.pool.uuid: use for use in controller.pools()}
        return answer(Networks([Network.of(network, pools) for network in networks]))

    @blueprint.post("", responses={201: Network})
    def create_network(body: NetworkCreate) -> Response:
        """Make a network."""
        network = controller.create_network(body.spec())
        return answer(render(network), 201, location=f"/v1/networks/{network.uuid}")

    @blueprint.get("/<ref>", responses={200: Network})
    def show_network(path: Ref) -> Response:
        """One network."""
        return answer(render(controller.network(path.ref)))

    @blueprint.delete("/<ref>", responses={204: None})
    def delete_network(path: Ref) -> Response:
        """Delete a network that has no endpoints."""
        controller.delete_network(path.ref)
        return no_content()

    return blueprint
