"""/v1/pools: subnet pools and their leases."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from .pages import cut, link
from .resource import UseCases, answer, chosen, new_blueprint, no_content
from .schemas import (
    Change,
    Lease,
    LeaseListQuery,
    LeaseQuery,
    Leases,
    Pool,
    PoolCreate,
    PoolDeleteQuery,
    PoolQuery,
    Pools,
    PoolUpdate,
    Ref,
    Reservation,
    ReservationCreate,
    ReservationQuery,
)


def create_blueprint(controller: UseCases) -> APIBlueprint:
    """The resource on `controller`."""
    blueprint = new_blueprint("pools", "/v1/pools")

    @blueprint.get("", responses={200: Pools})
    def list_pools(query: PoolQuery) -> Response:
        """All pools with their use, or those that meet the filters."""
        found = controller.pools()
        if query.origin is not None:
            found = [one for one in found if one.pool.origin is query.origin]
        if query.network is not None:
            of = controller.network(query.network).pools
            found = [one for one in found if one.pool.uuid in of]
        if query.address is not None:
            found = [one for one in found if query.address in one.pool.subnet]
        shown, cursor = cut(found, query, lambda one: (one.pool.name,))
        return link(answer(Pools([Pool.of(use) for use in shown])), cursor)

    @blueprint.post("", responses={200: Pool, 201: Pool})
    def create_pool(body: PoolCreate, query: Change) -> Response:
        """Make a pool."""
        cases = chosen(controller, query)
        pool = cases.create_pool(body.spec())
        return answer(Pool.of(cases.pool(pool.uuid)), 201, location=f"/v1/pools/{pool.uuid}")

    @blueprint.get("/<ref>", responses={200: Pool})
    def show_pool(path: Ref) -> Response:
        """One pool with its use."""
        return answer(Pool.of(controller.pool(path.ref)))

    @blueprint.patch("/<ref>", responses={200: Pool})
    def change_pool(path: Ref, body: PoolUpdate, query: Change) -> Response:
        """Grow a pool, change what it gives, or drain it."""
        cases = chosen(controller, query)
        pool = cases.change_pool(path.ref, body.change())
        return answer(Pool.of(cases.pool(pool.uuid)))

    @blueprint.delete("/<ref>", responses={204: None})
    def delete_pool(path: Ref, query: PoolDeleteQuery) -> Response:
        """Delete a pool that no network uses and no lease lies in."""
        chosen(controller, query).delete_pool(path.ref, force=query.force)
        return no_content()

    @blueprint.post("/<ref>/reservations", responses={200: Reservation, 201: Reservation})
    def reserve(path: Ref, body: ReservationCreate, query: Change) -> Response:
        """Keep an address for a name."""
        address = chosen(controller, query).reserve(path.ref, body.name, body.address)
        return answer(Reservation(name=body.name, address=str(address)), 201)

    @blueprint.delete("/<ref>/reservations", responses={204: None})
    def release_reservation(path: Ref, query: ReservationQuery) -> Response:
        """Keep it no longer. An endpoint that has it keeps it until it goes."""
        chosen(controller, query).release_reservation(path.ref, query.name)
        return no_content()

    @blueprint.get("/<ref>/leases", responses={200: Leases})
    def list_leases(path: Ref, query: LeaseListQuery) -> Response:
        """Who has which address of the pool."""
        found = controller.leases(path.ref)
        if query.node is not None:
            found = [one for one in found if one.node == query.node]
        if query.address is not None:
            found = [one for one in found if one.address == query.address]
        if query.container is not None:
            found = [one for one in found if one.container == query.container]
        shown, cursor = cut(found, query, lambda one: (int(one.address),))
        return link(answer(Leases([Lease.of(lease) for lease in shown])), cursor)

    @blueprint.delete("/<ref>/leases", responses={204: None})
    def release_lease(path: Ref, query: LeaseQuery) -> Response:
        """End the lease of an address that Docker has forgotten; an endpoint's goes with the endpoint only."""
        chosen(controller, query).release_address(path.ref, query.address)
        return no_content()

    return blueprint
