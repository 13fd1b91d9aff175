"""What the resources of the API share: the use cases they call, how their blueprints are made, how they answer."""
# ruff: noqa: D102  # ovsnet.controller documents the use cases

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from flask import Response, request
from flask_openapi.blueprint import APIBlueprint
from pydantic import BaseModel
from werkzeug.exceptions import BadRequest

from ovsnet import model
from ovsnet.check import Finding
from ovsnet.errors import InvalidRequest
from ovsnet.events import Events

from .problems import DOCUMENTED


class UseCases(Protocol):
    """The part of `ovsnet.controller.Controller` that the API calls. `ref` is a name or a UUID; raises OvsnetError."""

    def create_pool(self, spec: model.PoolSpec) -> model.Pool: ...
    def change_pool(self, ref: str, change: model.PoolChange) -> model.Pool: ...
    def delete_pool(self, ref: str, *, force: bool = False) -> None: ...
    def reserve(self, ref: str, name: str, address: model.IPAddress | None = None) -> model.IPAddress: ...
    def release_address(self, ref: str, address: model.IPAddress) -> None: ...
    def release_reservation(self, ref: str, name: str) -> model.IPAddress: ...
    def pools(self) -> list[model.PoolUse]: ...
    def pool(self, ref: str) -> model.PoolUse: ...
    def leases(self, pool_ref: str) -> list[model.Lease]: ...
    def history(
        self, address: model.IPAddress, at: datetime | None = None, pool: str = ""
    ) -> list[model.LeaseRecord]: ...
    def create_network(self, spec: model.NetworkSpec) -> model.Network: ...
    def delete_network(self, ref: str) -> None: ...
    def networks(self) -> list[model.Network]: ...
    def network(self, ref: str) -> model.Network: ...
    def endpoints(self, network: str | None = None) -> list[model.Endpoint]: ...
    def endpoint(self, ref: str) -> model.Endpoint: ...
    def delete_endpoint(self, ref: str) -> None: ...
    def attach(self, request: model.AttachRequest) -> model.Attachment: ...
    def health(self) -> model.Health: ...

    @property
    def events(self) -> Events: ...


class Checks(Protocol):
    """The part of `ovsnet.check.Checker` that the API calls."""

    def check(self) -> list[Finding]: ...
    def repair(self) -> tuple[list[Finding], list[Finding]]: ...


def new_blueprint(name: str, url_prefix: str | None = None) -> APIBlueprint:
    """A blueprint that takes only JSON objects as bodies; functions' names are the operations' ids."""
    blueprint = APIBlueprint(
        name,
        f"ovsnet.api.{name}",
        url_prefix=url_prefix,
        abp_responses={"default": DOCUMENTED},
        abp_tags=[{"name": name}],
        operation_id_callback=lambda *, name, path, method: name,  # noqa: ARG005  # the library passes all three
    )
    blueprint.before_request(_require_object)
    return blueprint


def answer(body: BaseModel, status: int = 200, *, location: str = "") -> Response:
    """`body` as a JSON response; `location` is set on creation."""
    response = Response(body.model_dump_json(), status, mimetype="application/json")
    if location:
        response.location = location
    return response


def no_content() -> Response:
    """The answer to a deletion."""
    return Response(status=204)


def _require_object() -> None:
    # The library reads the body leniently: no JSON becomes null, and a JSON string is decoded a second time.
    if request.method not in ("POST", "PATCH"):
        return
    try:
        body = request.get_json()  # kept by the request: it is parsed once
    except BadRequest:
        raise InvalidRequest("the body is not valid JSON", hint="send one JSON object in UTF-8") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply", hint="send one flat JSON object") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the body is not a JSON object", hint='send something like {"name": "blue"}')
