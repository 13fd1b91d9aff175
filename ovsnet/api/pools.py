"""/v1/pools: subnet pools and their leases."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from .resource import UseCases, answer, new_blueprint, no_content
from .schemas import (
    Lease,
    LeaseQuery,
    Leases,
    Pool,
    PoolCreate,
    PoolDeleteQuery,
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
    def list_pools() -> Response:
        """All pools with their use."""
        return answer(Pools([Pool.of(use) for use in controller.pools()]))

    @blueprint.post("", responses={201: Pool})
    def create_pool(body: PoolCreate) -> Response:
        """Make a pool."""
        pool = controller.create_pool(body.spec())
        return answer(Pool.of(controller.pool(pool.uuid)), 201, location=f"/v1/pools/{pool.uuid}")

    @blueprint.get("/<ref>", responses={200: Pool})
    def show_pool(path: Ref) -> Response:
        """One pool with its use."""
        return answer(Pool.of(controller.pool(path.ref)))

    @blueprint.patch("/<ref>", responses={200: Pool})
    def change_pool(path: Ref, body: PoolUpdate) -> Response:
        """Grow a pool, change what it gives, or drain it."""
        pool = controller.change_pool(path.ref, body.change())
        return answer(Pool.of(controller.pool(pool.uuid)))

    @blueprint.delete("/<ref>", responses={204: None})
    def delete_pool(path: Ref, query: PoolDeleteQuery) -> Response:
        """Delete a pool that no network uses and no lease lies in."""
        controller.delete_pool(path.ref, force=query.force)
        return no_content()

    @blueprint.post("/<ref>/reservations", responses={201: Reservation})
    def reserve(path: Ref, body: ReservationCreate) -> Response:
        """Keep an address for a name."""
        address = controller.reserve(path.ref, body.name, body.address)
        return answer(Reservation(name=body.name, address=str(address)), 201)

    @blueprint.delete("/<ref>/reservations", responses={204: None})
    def release_reservation(path: Ref, query: ReservationQuery) -> Response:
        """Keep it no longer. An endpoint that has it keeps it until it goes."""
        controller.release_reservation(path.ref, query.name)
        return no_content()

    @blueprint.get("/<ref>/leases", responses={200: Leases})
    def list_leases(path: Ref) -> Response:
        """Who has which address of the pool."""
        return answer(Leases([Lease.of(lease) for lease in controller.leases(path.ref)]))

    @blueprint.delete("/<ref>/leases", responses={204: None})
    def release_lease(path: Ref, query: LeaseQuery) -> Response:
        """End the lease of an address that Docker has forgotten; an endpoint's goes with the endpoint only."""
        controller.release_address(path.ref, query.address)
        return no_content()

    return blueprint
