"""/v1/events: what happened to addresses, as a list or, for who asks for `text/event-stream`, as it happens.

A stream is one of server-sent events (HTML Living Standard, section 9.2): it goes on where `Last-Event-ID` says, and a comment
comes every few seconds as a sign of life.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from flask import Response, request
from flask_openapi.blueprint import APIBlueprint

from ovsnet import events as use_case
from ovsnet.access.guard import GONE
from ovsnet.errors import InvalidRequest, OvsnetError

from .resource import UseCases, answer, new_blueprint
from .schemas import Event, EventQuery, Events

LOG = logging.getLogger(__name__)

STREAM = "text/event-stream"
_RETRY_MS = 1000  # after which a browser connects again


def create_blueprint(controller: UseCases) -> APIBlueprint:
    """The resource on `controller`."""
    blueprint = new_blueprint("events", "/v1/events")

    @blueprint.get("", responses={200: Events})
    def list_events(query: EventQuery) -> Response:
        """What happened to addresses; with `Accept: text/event-stream` the same as it happens, as server-sent events."""
        if request.accept_mimetypes.best_match(["application/json", STREAM]) != STREAM:
            found = controller.events.list(query.after, query.limit)
            return answer(Events([Event.of(event) for event in found]))
        following = controller.events.follow(_last_seen(query), request.environ.get(GONE))
        response = Response(_stream(following), mimetype=STREAM, headers={"Cache-Control": "no-store"})
        response.call_on_close(following.close)
        return response

    return blueprint


def _last_seen(query: EventQuery) -> int | None:
    """After which event to go on; what a browser sends when it connects again counts more than what it asked for at first."""
    given = request.headers.get("Last-Event-ID", "")
    if not given:
        return query.after
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise InvalidRequest("Last-Event-ID is no event's id", hint="send the `id` of the last event that came")
    return int(given)


def _stream(following: use_case.Following) -> Iterator[str]:
    yield f"retry: {_RETRY_MS}\n\n"
    try:
        for batch in following:
            if not batch:
                yield ":\n\n"
            for event in batch:
                yield f"id: {event.id}\nevent: {event.what}\ndata: {Event.of(event).model_dump_json()}\n\n"
    except OvsnetError as exc:  # whoever follows connects again, and is told
        LOG.warning("a stream of events has ended: %s", exc)
