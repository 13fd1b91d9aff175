"""/v1/endpoints: attachments of containers to networks, whoever made them."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from ovsnet import model

from .pages import cut, link
from .resource import UseCases, answer, changes_too, chosen, looks_of, new_blueprint, no_content
from .schemas import Change, Endpoint, EndpointCreate, EndpointQuery, EndpointRef, Endpoints, EndpointUpdate

_RENDERED = 20_000  # endpoints whose JSON is kept, about a kilobyte each


def create_blueprint(controller: UseCases) -> APIBlueprint:
    """The resource on `controller`."""
    blueprint = new_blueprint("endpoints", "/v1/endpoints")

    rendered: dict[str, tuple[model.Endpoint, model.Network, str]] = {}  # by uuid

    def render(endpoint: model.Endpoint, network: model.Network) -> str:
        """The endpoint as JSON, kept until it or its network changes: a list of a hundred costs 0.1 ms then, and not 2."""
        found = rendered.get(endpoint.uuid)
        if found is None or found[0] is not endpoint or found[1] is not network:
            if len(rendered) >= _RENDERED:
                rendered.clear()
            found = rendered[endpoint.uuid] = endpoint, network, Endpoint.of(endpoint, network).model_dump_json()
        return found[2]

    @blueprint.get("", responses={200: Endpoints})
    def list_endpoints(query: EndpointQuery) -> Response:
        """All endpoints, or those that meet the filters."""
        found = controller.endpoints(query.network)
        if query.container is not None:
            found = [one for one in found if one.container == query.container]
        if query.node is not None:
            found = [one for one in found if one.node == query.node]
        if query.origin is not None:
            found = [one for one in found if one.origin is query.origin]
        if query.address is not None:
            found = [one for one in found if any(each.ip == query.address for each in one.addresses)]
        networks = {network.uuid: network for network in controller.networks()}
        # A network that is not there was deleted between the two calls, and its endpoints before it.
        found = [one for one in found if one.network in networks]
        if query.pool is not None:
            pool = controller.pool(query.pool).pool
            found = [one for one in found if pool.uuid in networks[one.network].pools]
            found = [one for one in found if any(each.ip in pool.subnet for each in one.addresses)]
        shown, cursor = cut(found, query, lambda one: (one.network_name, one.container, one.ifname))
        body = ",".join([render(one, networks[one.network]) for one in shown])
        return link(Response(f"[{body}]", mimetype="application/json"), cursor)

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

    @blueprint.patch("/<uuid>", responses={200: Endpoint})
    def change_endpoint(path: EndpointRef, body: EndpointUpdate, query: Change) -> Response:
        """Change an endpoint while traffic goes on: quarantine, VLAN tag, limits, published ports."""
        if body.take_from:
            changes_too("endpoints", body.take_from, looks_of(controller)["endpoints"])
        endpoint = chosen(controller, query).change_endpoint(path.uuid, body.change())
        return answer(Endpoint.of(endpoint, controller.network(endpoint.network)))

    @blueprint.delete("/<uuid>", responses={204: None})
    def delete_endpoint(path: EndpointRef, query: Change) -> Response:
        """Detach a container from a network and free its addresses."""
        chosen(controller, query).delete_endpoint(path.uuid)
        return no_content()

    return blueprint
