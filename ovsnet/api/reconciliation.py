"""/v1/reconcile: bring this host in line with the store."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from .resource import Reconciles, answer, new_blueprint
from .schemas import Difference, ReconcileQuery, Reconciliation


def create_blueprint(reconciler: Reconciles) -> APIBlueprint:
    """The resource on `reconciler`."""
    blueprint = new_blueprint("reconcile", "/v1/reconcile")

    @blueprint.post("", responses={200: Reconciliation})
    def reconcile(query: ReconcileQuery) -> Response:
        """Mend what differs from the store on this host; with `dry_run` only tell it."""
        if query.dry_run:
            done, left = [], reconciler.differences()
        else:
            outcome = reconciler.reconcile()
            done, left = [*outcome.done], [*outcome.left]
        return answer(
            Reconciliation(
                ok=not left, done=[Difference.of(one) for one in done], left=[Difference.of(one) for one in left]
            )
        )

    return blueprint
