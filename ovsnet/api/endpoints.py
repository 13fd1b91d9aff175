"""/v1/endpoints: attachments of containers to networks, whoever made them."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from .resource import UseCases, answer, new_blueprint, no_content
from .schemas import Endpoint, EndpointCreate, EndpointQuery, EndpointRef, Endpoints


def create_blueprint(controller: UseCases) -> APIBlueprint:
    """The resource on `controller`."""
    blueprint = new_blueprint("endpoints", "/v1/endpoints")

    @blueprint.get("", responses={200: Endpoints})
    def list_endpoints(query: EndpointQuery) -> Response:
        """All endpoints, or those of one network."""
        endpoints = controller.endpoints(query.network)
        networks = {network.uuid: network for network in controller.networks()}
        # A network that is not there was deleted between the two calls, and its endpoints before it.
        return answer(
            Endpoints([Endpoint.of(item, networks[item.network]) for item in endpoints if item.network in networks])
        )

    @blueprint.post("", responses={201: Endpoint})
    def create_endpoint(body: EndpointCreate) -> Response:
        """Attach a container to a network; traffic can pass when this answers."""
        made = controller.attach(body.request())
        return answer(Endpoint.of(made.endpoint, made.network), 201, location=f"/v1/endpoints/{made.endpoint.uuid}")

    @blueprint.get("/<uuid>", responses={200: Endpoint})
    def show_endpoint(path: EndpointRef) -> Response:
        """One endpoint."""
        endpoint = controller.endpoint(path.uuid)
        return answer(Endpoint.of(endpoint, controller.network(endpoint.network)))

    @blueprint.delete("/<uuid>", responses={204: None})
    def delete_endpoint(path: EndpointRef) -> Response:
        """Detach a container from a network and free its addresses."""
        controller.delete_endpoint(path.uuid)
        return no_content()

    return blueprint
