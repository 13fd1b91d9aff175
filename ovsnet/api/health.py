"""/healthz: whether the controller can serve requests now."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from ovsnet.errors import StateUnavailable, SwitchUnavailable, Unavailable

from .resource import UseCases, answer, new_blueprint
from .schemas import Health


def create_blueprint(controller: UseCases) -> APIBlueprint:
    """The resource on `controller`."""
    blueprint = new_blueprint("health")

    @blueprint.get("/healthz", responses={200: Health})
    def healthz() -> Response:
        """Whether the controller can serve requests now; if not, a problem with status 503."""
        health = controller.health()
        if health.ok:
            return answer(Health.of(health))
        failing: type[Unavailable] = SwitchUnavailable if health.state == "ok" else StateUnavailable
        raise failing(
            health.switch if health.state == "ok" else health.state,
            hint="traffic goes on; ovsnetd reconnects by itself once the database answers",
            state=health.state,
            switch=health.switch,
            node=health.node,
            version=health.version,
        )

    return blueprint
