"""/v1/leases: leases across all pools, by address."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from .resource import UseCases, answer, new_blueprint
from .schemas import LeaseHistory, LeaseHistoryQuery, LeaseRecord


def create_blueprint(controller: UseCases) -> APIBlueprint:
    """The resource on `controller`."""
    blueprint = new_blueprint("leases", "/v1/leases")

    @blueprint.get("/history", responses={200: LeaseHistory})
    def lease_history(query: LeaseHistoryQuery) -> Response:
        """Who had an address, ever or at one moment, the latest first."""
        records = controller.history(query.address, query.at, query.pool)
        return answer(LeaseHistory([LeaseRecord.of(record) for record in records]))

    return blueprint
