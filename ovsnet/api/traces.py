"""/v1/trace: the way of a packet from one endpoint to another, or to any address."""

from __future__ import annotations

from flask import Response, g
from flask_openapi.blueprint import APIBlueprint

from .resource import UseCases, answer, new_blueprint
from .schemas import Trace, TraceRequest


def create_blueprint(controller: UseCases) -> APIBlueprint:
    """The resource on `controller`."""
    blueprint = new_blueprint("trace", "/v1/trace")

    @blueprint.post("", responses={200: Trace})
    def trace(body: TraceRequest) -> Response:
        """Tell the way of a packet and of its answer, and what stops it; nothing is sent, nothing changes."""
        g.rehearsal = True  # a question, for which the audit log has no use
        return answer(Trace.of(controller.trace(body.question())))

    return blueprint
