"""/v1/pools: subnet pools and their leases."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from .resource import UseCases, answer, new_blueprint, no_content
from .schemas import Lease, Leases, Pool, PoolCreate, Pools, Ref


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

    @blueprint.delete("/<ref>", responses={204: None})
    def delete_pool(path: Ref) -> Response:
        """Delete a pool that no network uses and no lease lies in."""
        controller.delete_pool(path.ref)
        return no_content()

    @blueprint.get("/<ref>/leases", responses={200: Leases})
    def list_leases(path: Ref) -> Response:
        """Who has which address of the pool."""
        return answer(Leases([Lease.of(lease) for lease in controller.leases(path.ref)]))

    return blueprint
