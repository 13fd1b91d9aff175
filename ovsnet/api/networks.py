"""/v1/networks: networks."""

from __future__ import annotations

from functools import partial

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from ovsnet.jobs import Jobs

from .jobs import begin
from .pages import cut, link
from .resource import UseCases, answer, chosen, new_blueprint, no_content, render
from .schemas import (
    Change,
    Network,
    NetworkCreate,
    NetworkDeleteQuery,
    NetworkQuery,
    Networks,
    NetworkUpdate,
    Operation,
    Ref,
)


def create_blueprint(controller: UseCases, jobs: Jobs) -> APIBlueprint:
    """The resource on `controller`; long work goes to `jobs`."""
    blueprint = new_blueprint("networks", "/v1/networks")

    @blueprint.get("", responses={200: Networks})
    def list_networks(query: NetworkQuery) -> Response:
        """All networks, or those that meet the filters."""
        found = controller.networks()
        if query.origin is not None:
            found = [one for one in found if one.origin is query.origin]
        if query.pool is not None:
            pool = controller.pool(query.pool).pool.uuid
            found = [one for one in found if pool in one.pools]
        if query.container is not None:
            there = {one.network for one in controller.endpoints() if one.container == query.container}
            found = [one for one in found if one.uuid in there]
        shown, cursor = cut(found, query, lambda one: (one.name,))
        pools = {use.pool.uuid: use for use in controller.pools()}
        return link(answer(Networks([Network.of(network, pools) for network in shown])), cursor)

    @blueprint.post("", responses={200: Network, 201: Network})
    def create_network(body: NetworkCreate, query: Change) -> Response:
        """Make a network."""
        cases = chosen(controller, query)
        network = cases.create_network(body.spec())
        return answer(render(cases, network), 201, location=f"/v1/networks/{network.uuid}")

    @blueprint.get("/<ref>", responses={200: Network})
    def show_network(path: Ref) -> Response:
        """One network."""
        return answer(render(controller, controller.network(path.ref)))

    @blueprint.patch("/<ref>", responses={200: Network})
    def change_network(path: Ref, body: NetworkUpdate, query: Change) -> Response:
        """Give a network another VLAN tag while traffic goes on."""
        cases, network = chosen(controller, query), controller.network(path.ref)
        if body.vlan is not None:
            network = cases.change_network(network.uuid, body.vlan)
        return answer(render(controller, network))

    @blueprint.delete("/<ref>", responses={202: Operation, 204: None})
    def delete_network(path: Ref, query: NetworkDeleteQuery) -> Response:
        """Delete a network that has no endpoints, or take these along."""
        cases = chosen(controller, query)
        if not query.force:
            cases.delete_network(path.ref)
        elif not query.dry_run:
            network = controller.network(path.ref)
            return begin(jobs, "remove-network", network.uuid, partial(controller.remove_network, network.uuid))
        return no_content()

    return blueprint
