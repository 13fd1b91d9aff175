"""The controller's half of the CNI plugin: POST /cni, one request an execution.

Owns which use case answers which command. The body is the one of cni/wire.py; the answer is what the executable prints: 200 with
the result (none for DEL), or a 4xx or 5xx with a CNI error. Called by the composition root, which also guards the socket.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

import structlog
from flask import Blueprint, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from ovsnet.errors import InvalidRequest, OvsnetError, PoolExhausted, Unavailable
from ovsnet.model import Attachment, AttachRequest, Expectation, Health

from . import protocol, wire
from .protocol import JSON, Call, CniError

log = structlog.get_logger(__name__)


class Attachments(Protocol):
    """The use cases that CNI needs; ovsnet.controller.Controller has them."""

    def attach(self, request: AttachRequest) -> Attachment:
        """ADD."""

    def detach(self, network: str, container: str, ifname: str, netns: str = "") -> None:
        """DEL; what is missing is success."""

    def check_attachment(self, expected: Expectation) -> None:
        """CHECK."""

    def collect_garbage(self, ref: str, config: str, valid: Collection[tuple[str, str]]) -> None:
        """GC."""

    def health(self) -> Health:
        """STATUS."""

    def check_room(self, ref: str) -> None:
        """STATUS, of one network."""


def create_blueprint(controller: Attachments) -> Blueprint:
    """POST /cni on `controller`."""
    blueprint = Blueprint("cni", __name__)

    @blueprint.post(wire.PATH)
    def cni() -> Response:
        request.max_content_length = wire.LIMIT
        try:
            body = request.get_data(cache=False)
        except RequestEntityTooLarge:
            return _response(CniError(protocol.INVALID_CONFIG, "the request is larger than 1 MiB", "make it smaller"))
        return answer(controller, body)

    return blueprint


def serve(controller: Attachments, path: str, body: bytes) -> tuple[int, bytes]:
    """HTTP status and body of the answer, for the executables' own listener."""
    if path != wire.PATH:
        return 404, b""
    response = answer(controller, body)
    return response.status_code, response.get_data()


def answer(controller: Attachments, body: bytes) -> Response:
    """The answer to one execution of the plugin; every failure becomes a CNI error here."""
    version = protocol.VERSIONS[-1]  # of an error in a request whose version cannot be read
    began = time.monotonic()
    try:
        try:
            environment, stdin = wire.decode(body)
        except InvalidRequest as exc:
            raise CniError(protocol.INVALID_ENVIRONMENT, exc.message, exc.hint) from None
        config = protocol.load(stdin)
        version = protocol.version_of(config)
        call = Call(environment, config, version)
        use_case = _COMMANDS.get(call.command)
        if use_case is None:
            message = f"CNI_COMMAND {call.command[:40]!r} is not one" if call.command else "CNI_COMMAND is not set"
            raise CniError(protocol.INVALID_ENVIRONMENT, message, f"known: {', '.join(_COMMANDS)}")
        try:
            result = use_case(controller, call)
        except (CniError, OvsnetError) as exc:
            _log(call, began, str(exc))
            raise
        _log(call, began)
    except CniError as exc:
        return _response(exc, version)
    except OvsnetError as exc:
        return _response(CniError.of(exc), version)
    except Exception:
        log.exception("CNI call failed by a defect")
        defect = CniError(protocol.INTERNAL, "internal error", "ovsnetd's log has the traceback: please report it")
        return _response(defect, version)
    return Response("" if result is None else json.dumps(result), mimetype="application/json")


def _log(call: Call, began: float, error: str = "") -> None:
    """Tell of a call in the log as far as its configuration's `log_level` wants that."""
    level = "warning" if error else "info"
    if protocol.is_logged(call.config, level):
        variables = {key: call.environment.get(f"CNI_{key.upper()}", "") for key in ("containerid", "ifname", "netns")}
        ms = round((time.monotonic() - began) * 1e3, 1)
        told = {"error": error} if error else {}
        log.log(
            _LEVELS[level], "CNI call", command=call.command, name=call.config.get("name"), ms=ms, **variables, **told
        )


_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING}


def _response(error: CniError, version: str = protocol.VERSIONS[-1]) -> Response:
    status = {protocol.INTERNAL: 500, protocol.TRY_AGAIN_LATER: 503, protocol.NOT_AVAILABLE: 503}.get(error.code, 400)
    return Response(json.dumps(error.render(version)), status, mimetype="application/json")


def _add(controller: Attachments, call: Call) -> JSON:
    protocol.check_version(call)
    add = protocol.parse_add(call)
    if add.previous is not None:  # after another main plugin the container has its interface: add and break nothing
        return add.previous
    return protocol.render(controller.attach(add.request), add.dns, call.version)


def _del(controller: Attachments, call: Call) -> None:
    protocol.check_version(call)
    key = protocol.key(call)
    controller.detach(key.network, key.container, key.ifname, call.environment.get("CNI_NETNS", ""))


def _check(controller: Attachments, call: Call) -> None:
    protocol.check_version(call)
    controller.check_attachment(protocol.parse_check(call))


def _gc(controller: Attachments, call: Call) -> None:
    protocol.check_version(call)
    network, valid = protocol.parse_valid_attachments(call)
    controller.collect_garbage(network, protocol.config_name(call), valid)


def _status(controller: Attachments, call: Call) -> None:
    protocol.check_version(call)
    network = protocol.parse_status(call)
    health = controller.health()
    if not health.ok:
        reason = f"state database: {health.state}; switch: {health.switch}"
        raise CniError(protocol.NOT_AVAILABLE, f"ovsnet cannot attach containers now: {reason}", "see ovsnetd's log")
    try:
        controller.check_room(network)
    except (PoolExhausted, Unavailable) as exc:
        message = f"ovsnet cannot attach containers now: {exc.message}"
        raise CniError(protocol.NOT_AVAILABLE, message, exc.hint) from None


def _version(_: Attachments, call: Call) -> JSON:
    return protocol.versions(call)


_COMMANDS: Final[Mapping[str, Callable[[Attachments, Call], JSON | None]]] = {
    "ADD": _add,
    "DEL": _del,
    "CHECK": _check,
    "GC": _gc,
    "STATUS": _status,
    "VERSION": _version,
}
