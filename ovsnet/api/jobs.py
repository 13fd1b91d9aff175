"""/v1/operations: long work that goes on behind its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response, request
from flask_openapi.blueprint import APIBlueprint

from ovsnet.jobs import Jobs, Progress

from .gate import caller
from .resource import answer, new_blueprint
from .schemas import Operation, OperationRef, Operations


def create_blueprint(known: Jobs) -> APIBlueprint:
    """The resource on `known`."""
    blueprint = new_blueprint("operations", "/v1/operations")

    @blueprint.get("", responses={200: Operations})
    def list_operations() -> Response:
        """All operations that run, or ended in the last hour."""
        return answer(Operations([Operation.of(one) for one in known.all()]))

    @blueprint.get("/<id>", responses={200: Operation})
    def show_operation(path: OperationRef) -> Response:
        """One operation."""
        return answer(Operation.of(known.get(path.id)))

    return blueprint


def begin(known: Jobs, kind: str, subject: str, work: Callable[[Progress], Any]) -> Response:
    """Begin work, and answer 202 with where to ask about it."""
    job = known.start(kind, subject, caller().name, work)
    response = answer(Operation.of(job), 202, location=f"/v1/operations/{job.id}")
    response.headers["Retry-After"] = "1"
    return response


def is_asked_for() -> bool:
    """Whether the caller wants no answer before the work begins (RFC 7240)."""
    preferences = request.headers.get("Prefer", "")
    return any(one.strip().lower() == "respond-async" for one in preferences.split(","))
