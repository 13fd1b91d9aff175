"""What the resources of the API share: the use cases they call, how their blueprints are made, how they answer."""
# ruff: noqa: D102  # ovsnet.controller documents the use cases

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from datetime import datetime
from http import HTTPStatus
from typing import Protocol

from flask import Response, g, request
from flask_openapi.blueprint import APIBlueprint
from pydantic import BaseModel
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from ovsnet import model
from ovsnet.capture import CaptureRequest
from ovsnet.check import Finding
from ovsnet.errors import InvalidRequest
from ovsnet.events import Events
from ovsnet.jobs import Progress
from ovsnet.plan import Action
from ovsnet.reconcile import Outcome
from ovsnet.trace import Question, Trace

from .problems import DOCUMENTED
from .schemas import Change, Endpoint, Network, Pool


class Changes(Protocol):
    """The use cases that can be rehearsed. `ref` is a name or a UUID; raises OvsnetError."""

    def create_pool(self, spec: model.PoolSpec) -> model.Pool: ...
    def change_pool(self, ref: str, change: model.PoolChange) -> model.Pool: ...
    def delete_pool(self, ref: str, *, force: bool = False) -> None: ...
    def reserve(self, ref: str, name: str, address: model.IPAddress | None = None) -> model.IPAddress: ...
    def release_address(self, ref: str, address: model.IPAddress) -> None: ...
    def release_reservation(self, ref: str, name: str) -> model.IPAddress: ...
    def pool(self, ref: str) -> model.PoolUse: ...
    def create_network(self, spec: model.NetworkSpec) -> model.Network: ...
    def change_network(self, ref: str, tag: int) -> model.Network: ...
    def delete_network(self, ref: str) -> None: ...
    def delete_endpoint(self, ref: str) -> None: ...
    def change_endpoint(self, ref: str, change: model.EndpointChange) -> model.Endpoint: ...


class UseCases(Changes, Protocol):
    """The part of `ovsnet.controller.Controller` that the API calls."""

    def rehearsal(self) -> Changes: ...
    def remove_network(self, ref: str, progress: Progress) -> None: ...
    def pools(self) -> list[model.PoolUse]: ...
    def leases(self, pool_ref: str) -> list[model.Lease]: ...
    def cooling(self, pool_ref: str) -> frozenset[int]: ...
    def since(self, pool_uuid: str, addresses: Collection[model.IPAddress]) -> dict[model.IPAddress, datetime]: ...
    def history(
        self, address: model.IPAddress, at: datetime | None = None, pool: str = ""
    ) -> list[model.LeaseRecord]: ...
    def networks(self) -> list[model.Network]: ...
    def network(self, ref: str) -> model.Network: ...
    def endpoints(self, network: str | None = None) -> list[model.Endpoint]: ...
    def endpoint(self, ref: str) -> model.Endpoint: ...
    def attach(self, request: model.AttachRequest) -> model.Attachment: ...
    def trace(self, question: Question) -> Trace: ...
    def capture(self, wanted: CaptureRequest) -> bytes: ...
    def health(self) -> model.Health: ...

    @property
    def events(self) -> Events: ...


class Checks(Protocol):
    """The part of `ovsnet.check.Checker` that the API calls."""

    def check(self) -> list[Finding]: ...
    def repair(self) -> tuple[list[Finding], list[Finding]]: ...


class Reconciles(Protocol):
    """The part of `ovsnet.reconcile.Reconciler` that the API calls."""

    def differences(self) -> list[Action]: ...
    def reconcile(self) -> Outcome: ...


Look = Callable[[str], BaseModel]  # what there is by a reference; raises NotFound


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
    """`body` as a JSON response; `location` is set on creation. What can be changed gets its ETag."""
    if is_rehearsal() and status == HTTPStatus.CREATED:
        if "id" in type(body).model_fields:
            body = body.model_copy(update={"id": ""})  # it has none
        status, location = HTTPStatus.OK, ""
    response = Response(body.model_dump_json(), status, mimetype="application/json")
    if location:
        response.location = location
    if isinstance(body, Pool | Network | Endpoint) and not is_rehearsal():
        response.set_etag(tag_of(body))
    return response


def tag_of(thing: BaseModel) -> str:
    """What stands in a thing's ETag: it changes with the thing, but not with the use of a pool, which changes all the time."""
    text = thing.model_dump_json(exclude={"leased", "networks"} if isinstance(thing, Pool) else None)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def looks_of(controller: UseCases) -> dict[str, Look]:
    """For each blueprint of things that can be changed: how to look at one, as the API shows it."""

    def endpoint(ref: str) -> Endpoint:
        found = controller.endpoint(ref)
        return Endpoint.of(found, controller.network(found.network))

    return {
        "pools": lambda ref: Pool.of(controller.pool(ref)),
        "networks": lambda ref: render(controller, controller.network(ref)),
        "endpoints": endpoint,
    }


def render(cases: Changes, network: model.Network) -> Network:
    """A network with its pools' names."""
    return Network.of(network, {uuid: cases.pool(uuid) for uuid in network.pools})


def chosen(controller: UseCases, query: Change) -> Changes:
    """The use cases that a change is to call: those of `controller`, or their rehearsal."""
    g.rehearsal = query.dry_run
    return controller.rehearsal() if query.dry_run else controller


def changes_too(kind: str, ref: str, look: Look) -> None:
    """Note that the request changes another thing as well, for the audit log; raises what `look` does."""
    thing = look(ref)
    g.also = [*g.get("also", ()), (f"/v1/{kind}/{ref}", thing, lambda: look(ref))]


def is_rehearsal() -> bool:
    """Whether the request that is answered changes nothing, because it said so."""
    return bool(g.get("rehearsal"))


def no_content() -> Response:
    """The answer to a deletion."""
    return Response(status=204)


def _require_object() -> None:
    # The library reads the body leniently: no JSON becomes null, and a JSON string is decoded a second time.
    if request.method not in ("POST", "PATCH"):
        return
    limit = request.max_content_length
    if request.content_length is None and limit is not None and len(request.get_data()) >= limit:
        raise RequestEntityTooLarge  # one that comes in chunks is cut off without a word
    try:
        body = request.get_json()  # kept by the request: it is parsed once
    except BadRequest:
        raise InvalidRequest("the body is not valid JSON", hint="send one JSON object in UTF-8") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply", hint="send one flat JSON object") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the body is not a JSON object", hint='send something like {"name": "blue"}')
