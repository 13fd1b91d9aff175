"""/metrics: what Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from ovsnet.metrics import CONTENT_TYPE

from .resource import new_blueprint


def create_blueprint(render: Callable[[], bytes]) -> APIBlueprint:
    """The resource on what renders all metrics."""
    blueprint = new_blueprint("metrics")
    text = {
        "description": "Metrics in Prometheus' text format",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }

    @blueprint.get("/metrics", responses={200: text})
    def metrics() -> Response:
        """What is measured, for Prometheus."""
        return Response(render(), content_type=CONTENT_TYPE)

    return blueprint
