"""The pages as a Flask blueprint: the overview at `/`, and what it leads to below `/ui`."""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from flask import Blueprint, Response, jsonify, render_template, request
from jinja2 import StrictUndefined
from pydantic import ValidationError

from ovsnet.addressmap import Use, crowds, places
from ovsnet.api import problems
from ovsnet.api.resource import UseCases
from ovsnet.api.schemas import TraceRequest
from ovsnet.errors import InvalidRequest, NotFound, OvsnetError, Unavailable
from ovsnet.lookup import find
from ovsnet.model import Endpoint, IPAddress, Network, Pool
from ovsnet.trace import Question, Transport

from . import words
from .topology import MOST, draw

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",  # the search
        "frame-ancestors 'none'",
    )
)
MAP: Final = 256  # addresses of a pool on a page
ROWS: Final = 100  # of a list on a page
_PARTS: Final = 64  # of a large pool that are told: those where leases are
_ENDS: Final = 500  # endpoints that a form proposes
_MAX_TEXT: Final = 200  # characters that are searched for

_STATIC: Final = resources.files(__package__) / "static"
_FILES: Final = {
    "app.css": "text/css",
    "app.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "htmx.min.js": "text/javascript",
    "cytoscape.min.js": "text/javascript",
}


def create_blueprint(controller: UseCases) -> Blueprint:
    """The pages on `controller`."""
    blueprint = Blueprint("web", __name__, template_folder="templates")

    @blueprint.record
    def set_up(state: Any) -> None:
        state.app.jinja_env.undefined = StrictUndefined  # a word that is missing is a defect, and not nothing
        state.app.jinja_env.trim_blocks = state.app.jinja_env.lstrip_blocks = True

    @blueprint.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        return response

    @blueprint.errorhandler(OvsnetError)
    def refuse(error: OvsnetError) -> Response:
        response = problems.from_error(error)
        response.set_data(_page("error", error=error))
        response.mimetype = "text/html"
        return response

    @blueprint.errorhandler(Exception)
    def fail(error: Exception) -> Response:
        return refuse(problems.defect(error))

    @blueprint.get("/")
    def overview() -> str:
        networks, endpoints = controller.networks(), controller.endpoints()
        pools = {one.pool.uuid: one for one in controller.pools()}
        members: dict[str, list[Endpoint]] = defaultdict(list)
        for one in endpoints:
            members[one.network].append(one)
        bridges: dict[str, list[Network]] = defaultdict(list)
        for network in networks:
            bridges[network.bridge].append(network)
        return _page(
            "overview",
            health=controller.health(),
            bridges=dict(sorted(bridges.items())),
            pools=pools,
            members={uuid: _tally(own) for uuid, own in members.items()},
            networks=networks,
            endpoints=endpoints,
            most=MOST,
        )

    @blueprint.get("/ui/topology.json")
    def topology() -> Response:
        return jsonify(draw(controller.networks(), controller.endpoints()))

    @blueprint.get("/ui/pools/<ref>")
    def pool_map(ref: str) -> str:
        use = controller.pool(ref)
        pool, leases = use.pool, controller.leases(ref)
        first = _first(pool, request.args.get("at", ""))
        shown = places(pool, leases, controller.cooling(ref), first, MAP)
        held = [one for one in shown if one.lease is not None or one.kept_for]
        try:
            since, trouble = controller.since(pool.uuid, [one.address for one in held]), ""
        except Unavailable as exc:
            since, trouble = {}, exc.message
        owners = {one.key: one for one in controller.endpoints()}
        parts = crowds(pool, leases, MAP)
        return _page(
            "pool",
            use=use,
            pool=pool,
            places=shown,
            held=held,
            since=since,
            trouble=trouble,
            owners=owners,
            tally=Counter(one.use for one in shown),
            uses=[*Use],
            parts_in_use={_address(pool, number * MAP): leased for number, leased in list(parts.items())[:_PARTS]},
            more=len(parts) - _PARTS,
            before=_address(pool, first - MAP) if first else None,
            after=_address(pool, first + MAP) if first + MAP < pool.subnet.num_addresses else None,
            size=MAP,
        )

    @blueprint.get("/ui/endpoints")
    def endpoints() -> str:
        ref = request.args.get("network")
        network = None if ref is None else controller.network(ref)
        found = controller.endpoints(None if network is None else network.uuid)
        number, last = _number(request.args.get("page", "1")), max(1, -(-len(found) // ROWS))
        if number > last:
            raise NotFound(f"there is no page {number}", hint=f"the last one is page {last}")
        shown = found[(number - 1) * ROWS : number * ROWS]
        return _page("endpoints", network=network, found=found, shown=shown, number=number, last=last, ref=ref)

    @blueprint.get("/ui/events")
    def events() -> str:
        try:
            found, trouble = controller.events.list(None, ROWS)[::-1], None
        except NotFound as exc:
            found, trouble = [], exc
        return _page("events", found=found, trouble=trouble)

    @blueprint.get("/ui/search")
    def search() -> str:
        text = request.args.get("q", "")[:_MAX_TEXT]
        found = find(text, controller.pools(), controller.networks(), controller.endpoints())
        return _page("search", found=found, rows=ROWS, text=text)

    @blueprint.get("/ui/trace")
    def trace() -> tuple[str, int]:
        asked = {name: request.args.get(name, "").strip()[:_MAX_TEXT] for name in TraceRequest.model_fields}
        found, refused = None, None
        if any(asked.values()):
            try:
                found = controller.trace(_question(asked))
            except OvsnetError as exc:  # said beside the form, in which it can be corrected
                refused = exc
        status = 200 if refused is None else problems.from_error(refused).status_code
        ends = controller.endpoints()[:_ENDS]
        return _page("trace", asked=asked, found=found, refused=refused, ends=ends, transports=[*Transport]), status

    @blueprint.get("/ui/static/<name>")
    def static(name: str) -> Response:
        if name not in _FILES:
            raise NotFound(f"there is no file {name[:80]!r}", hint="/ is the page")
        response = Response((_STATIC / name).read_bytes(), mimetype=_FILES[name])
        response.headers["Cache-Control"] = "max-age=3600"
        return response

    return blueprint


def _page(name: str, **values: Any) -> str:
    return render_template(f"web/{name}.html", **_words() | values)


def _words() -> dict[str, Any]:
    """What every page has."""
    return {"words": words, "text": "", "here": request.full_path.rstrip("?")}


def _tally(endpoints: list[Endpoint]) -> Mapping[str, int]:
    """Endpoints by kind, and those that are not simply attached by state."""
    counted = Counter(one.origin.value for one in endpoints)
    return counted + Counter(state for one in endpoints if (state := words.state_of(one)) != "attached")


def _question(asked: Mapping[str, str]) -> Question:
    """Of the fields of the form; what is empty has not been filled in."""
    given: dict[str, Any] = {name: text for name, text in asked.items() if text}
    port = asked["port"]
    if port.isascii() and port.isdigit():
        given["port"] = int(port[:9])
    try:
        return TraceRequest.model_validate(given).question()
    except ValidationError as exc:
        wrong = exc.errors()[0]
        raise InvalidRequest(f"{wrong['loc'][0]}: {wrong['msg']}", hint="correct it in the form") from None


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) < 10**8:
        raise InvalidRequest(f"{text[:40]!r} is no page", hint="pages are 1, 2 and so on")
    return int(text[:9])


def _first(pool: Pool, at: str) -> int:
    """Where in the pool the part with the address `at` begins."""
    if not at:
        return 0
    try:
        address = ipaddress.ip_address(at)
    except ValueError:
        raise InvalidRequest(f"{at[:80]!r} is no address", hint=f"choose one of {pool.subnet}") from None
    if address not in pool.subnet:
        raise NotFound(f"{address} is not in pool {pool.name}", hint=f"choose one of {pool.subnet}")
    return (int(address) - int(pool.subnet.network_address)) // MAP * MAP


def _address(pool: Pool, number: int) -> IPAddress:
    return pool.subnet.network_address + number
