"""The controller's half of the CNI plugins: POST /cni for `ovsnet`, /cni/ipam for `ovsnet-ipam`, one request an execution.

Owns which use case answers which command, and when the executable is to run another IPAM plugin (202). The body is the one of
cni/wire.py; the answer is what the executable prints: 200 with the result (none for DEL), or a 4xx or 5xx with a CNI error.
Called by the composition root, which also guards the socket.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Final, Protocol

import structlog
from flask import Blueprint, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from ovsnet.errors import InvalidRequest, OvsnetError, PoolExhausted, Unavailable
from ovsnet.model import (
    Attachment,
    AttachRequest,
    Expectation,
    Health,
    IPAddress,
    IpamRequest,
    Pool,
)
from ovsnet.operations import OK, Observe, Operation, observe_nothing

from . import errors, ipam, protocol, wire
from .errors import CniError
from .netconf import JSON
from .protocol import Call

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

    def foreign_ipam(self, network: str, container: str, ifname: str) -> str:
        """What another IPAM plugin has given an attachment that exists, as it printed it; "" for none."""

    @property
    def addresses(self) -> Addresses:
        """The use cases of `ovsnet-ipam`."""


class Addresses(Protocol):
    """The use cases that `ovsnet-ipam` needs; ovsnet.addresses.Addresses has them."""

    def give(self, request: IpamRequest) -> tuple[tuple[Pool, IPAddress], ...]:
        """ADD."""

    def take(self, key: str) -> None:
        """DEL; what is missing is success."""

    def check(self, key: str, expected: Collection[IPAddress]) -> None:
        """CHECK."""

    def collect_garbage(self, config: str, valid: Collection[tuple[str, str]]) -> None:
        """GC."""

    def check_room(self, request: IpamRequest) -> None:
        """STATUS."""


def create_blueprint(controller: Attachments, observe: Observe = observe_nothing) -> Blueprint:
    """POST /cni and POST /cni/ipam on `controller`; `observe` is told of each."""
    blueprint = Blueprint("cni", __name__)

    @blueprint.post(wire.PATH)
    @blueprint.post(wire.IPAM_PATH)
    def cni() -> Response:
        request.max_content_length = wire.LIMIT
        try:
            body = request.get_data(cache=False)
        except RequestEntityTooLarge:
            return _response(CniError(errors.INVALID_CONFIG, "the request is larger than 1 MiB", "make it smaller"))
        response, tell = answer(controller, body, request.path, observe)
        tell()
        return response

    return blueprint


def serve(
    controller: Attachments, observe: Observe, path: str, body: bytes
) -> tuple[int, bytes, Callable[[], None] | None]:
    """HTTP status and body of the answer, for the executables' own listener, and what is to be done behind it."""
    if path not in _PLUGINS:
        return 404, b"", None
    response, tell = answer(controller, body, path, observe)
    return response.status_code, response.get_data(), tell


@dataclass(frozen=True, slots=True)
class Delegate:
    """An IPAM plugin that the executable is to run now; with `again` it comes back with what that printed.

    `undo`: there is an interface already, which DEL is to remove should the rest of ADD fail.
    """

    plugin: str
    again: bool
    undo: bool = False


def answer(
    controller: Attachments, body: bytes, path: str = wire.PATH, observe: Observe = observe_nothing
) -> tuple[Response, Callable[[], None]]:
    """The answer to one execution of the plugin at `path`, and what tells the log of it, for after the answer.

    Every failure becomes a CNI error here.
    """
    version = protocol.VERSIONS[-1]  # of an error in a request whose version cannot be read
    operation = Operation("cni", "", observe)
    told: dict[str, object] = {}
    levels = _levels({})
    result = OK
    try:
        try:
            environment, stdin = wire.decode(body)
        except InvalidRequest as exc:
            raise CniError(errors.INVALID_ENVIRONMENT, exc.message, exc.hint) from None
        told = {key: environment.get(f"CNI_{key.upper()}", "") for key in ("containerid", "ifname", "netns")}
        delegated = environment.pop(wire.DELEGATED, None)
        config = protocol.load(stdin)
        version = protocol.version_of(config)
        call = Call(environment, config, version, delegated)
        levels = _levels(config)
        told["name"] = config.get("name")
        use_case = _PLUGINS[path].get(call.command)
        if use_case is None:
            message = f"CNI_COMMAND {call.command[:40]!r} is not one" if call.command else "CNI_COMMAND is not set"
            raise CniError(errors.INVALID_ENVIRONMENT, message, f"known: {', '.join(_PLUGINS[path])}")
        operation.name = call.command if path == wire.PATH else f"IPAM-{call.command}"
        response = _render(use_case(controller, call))
    except CniError as exc:
        result, told["error"] = f"cni-{exc.code}", str(exc)
        response = _response(exc, version)
    except OvsnetError as exc:
        result, told["error"] = exc.code, str(exc)
        response = _response(CniError.of(exc), version)
    except Exception:
        log.exception("CNI call failed by a defect")
        result = OvsnetError.code
        defect = CniError(errors.INTERNAL, "internal error", "ovsnetd's log has the traceback: please report it")
        response = _response(defect, version)
    operation.name = operation.name or "unknown"
    operation.end(result)
    level = levels[result == OK]
    return response, partial(operation.tell, level, **told) if level is not None else _nothing


def _levels(config: JSON) -> tuple[int | None, int | None]:
    """At which level a call's failure and its success are logged, None for not at all: as far as its `log_level` wants it."""
    failure, success = (
        level if protocol.is_logged(config, name) else None
        for level, name in ((logging.WARNING, "warning"), (logging.INFO, "info"))
    )
    return failure, success


def _nothing() -> None:
    """Nothing is to be told."""


def _render(result: Answer) -> Response:
    if isinstance(result, Delegate):
        task = {"delegate": result.plugin, "again": result.again, "undo": result.undo}
        return Response(json.dumps(task), HTTPStatus.ACCEPTED, mimetype="application/json")
    return Response("" if result is None else json.dumps(result), mimetype="application/json")


def _response(error: CniError, version: str = protocol.VERSIONS[-1]) -> Response:
    status = {errors.INTERNAL: 500, errors.TRY_AGAIN_LATER: 503, errors.NOT_AVAILABLE: 503}.get(error.code, 400)
    return Response(json.dumps(error.render(version)), status, mimetype="application/json")


Answer = JSON | Delegate | None


def _add(controller: Attachments, call: Call) -> Answer:
    protocol.check_version(call)
    add = protocol.parse_add(call)
    if add.previous is not None:  # after another main plugin the container has its interface: add and break nothing
        return add.previous
    if add.delegate:
        # Asked again, it would refuse: it knows the container already. What it gave is known here as well.
        wanted = add.request
        known = controller.foreign_ipam(wanted.network, wanted.container, wanted.ifname)
        if not known:
            if wanted.link_first:
                controller.attach(wanted)
            return Delegate(add.delegate, again=True, undo=wanted.link_first)
        add = protocol.parse_add(replace(call, delegated=known))
    return protocol.render(controller.attach(add.request), add.dns, call.version)


def _del(controller: Attachments, call: Call) -> Answer:
    protocol.check_version(call)
    key = protocol.attachment(call)
    link_first = protocol.link_first(call)
    if link_first and call.delegated is None:  # its server is told by the interface, as long as there is one
        return Delegate(protocol.delegate(call), again=True)
    controller.detach(key.network, key.container, key.ifname, call.environment.get("CNI_NETNS", ""))
    return None if link_first else _and_then(call)


def _and_then(call: Call) -> Delegate | None:
    """The other IPAM plugin's part, after ours."""
    plugin = protocol.delegate(call)
    return Delegate(plugin, again=False) if plugin else None


def _check(controller: Attachments, call: Call) -> Answer:
    protocol.check_version(call)
    expected = protocol.parse_check(call)
    plugin = protocol.delegate(call)
    if plugin and call.delegated is None:
        return Delegate(plugin, again=True)
    controller.check_attachment(expected)
    return None


def _gc(controller: Attachments, call: Call) -> Answer:
    protocol.check_version(call)
    network, valid = protocol.parse_valid_attachments(call)
    controller.collect_garbage(network, protocol.config_name(call), valid)
    return _and_then(call)


def _status(controller: Attachments, call: Call) -> Answer:
    protocol.check_version(call)
    network = protocol.parse_status(call)
    _check_health(controller, lambda: controller.check_room(network))
    return _and_then(call)


def _check_health(controller: Attachments, check_room: Callable[[], None]) -> None:
    """CniError 50 with the reason if no container can be attached now."""
    health = controller.health()
    if not health.ok:
        reason = f"state database: {health.state}; switch: {health.switch}"
        raise CniError(errors.NOT_AVAILABLE, f"ovsnet cannot attach containers now: {reason}", "see ovsnetd's log")
    try:
        check_room()
    except (PoolExhausted, Unavailable) as exc:
        message = f"ovsnet cannot attach containers now: {exc.message}"
        raise CniError(errors.NOT_AVAILABLE, message, exc.hint) from None


def _ipam_add(controller: Attachments, call: Call) -> Answer:
    protocol.check_version(call)
    asked = ipam.parse(call)
    return ipam.render(asked, controller.addresses.give(asked.request), call.version)


def _ipam_del(controller: Attachments, call: Call) -> Answer:
    protocol.check_version(call)
    controller.addresses.take(ipam.key(call))
    return None


def _ipam_check(controller: Attachments, call: Call) -> Answer:
    protocol.check_version(call)
    controller.addresses.check(ipam.key(call), ipam.expected(call))
    return None


def _ipam_gc(controller: Attachments, call: Call) -> Answer:
    protocol.check_version(call)
    _, valid = protocol.parse_valid_attachments(call)
    controller.addresses.collect_garbage(protocol.config_name(call), valid)
    return None


def _ipam_status(controller: Attachments, call: Call) -> Answer:
    protocol.check_version(call)
    request = ipam.parse_pools(call)
    _check_health(controller, lambda: controller.addresses.check_room(request))
    return None


def _version(_: Attachments, call: Call) -> JSON:
    return protocol.versions(call)


_PLUGINS: Final[Mapping[str, Mapping[str, Callable[[Attachments, Call], Answer]]]] = {
    wire.PATH: {
        "ADD": _add,
        "DEL": _del,
        "CHECK": _check,
        "GC": _gc,
        "STATUS": _status,
        "VERSION": _version,
    },
    wire.IPAM_PATH: {
        "ADD": _ipam_add,
        "DEL": _ipam_del,
        "CHECK": _ipam_check,
        "GC": _ipam_gc,
        "STATUS": _ipam_status,
        "VERSION": _version,
    },
}
