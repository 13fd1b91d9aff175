"""The REST API on a controller in memory: shapes, refusals, problem documents, the OpenAPI document."""

from __future__ import annotations

import functools
import logging
import re
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import hypothesis.strategies as st
import pytest
from flask.testing import FlaskClient
from flask_openapi.openapi import OpenAPI
from hypothesis import given
from pydantic import BaseModel
from werkzeug.test import TestResponse

from ovsnet import client as ovsnet_client
from ovsnet import model, plan
from ovsnet.api import MAX_BODY, create_app, problems, schemas
from ovsnet.check import Finding, Kind
from ovsnet.errors import NotFound, OvsnetError, codes, from_problem, problem
from ovsnet.plan import Action
from tests.fake_controller import FakeController, as_root

DOC = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
def api(controller: FakeController) -> FlaskClient:
    return as_root(create_app(controller, controller, controller, version="9.9"))


def refused(response: TestResponse, status: int, code: str = "invalid-request") -> dict[str, Any]:
    """The problem document of a response, its form checked."""
    assert response.content_type == problems.MIMETYPE
    document: dict[str, Any] = response.get_json(force=True)
    assert set(document) == set(schemas.Problem.model_fields)
    assert document["status"] == response.status_code == status
    assert document["code"] == code
    assert document["type"] == f"urn:ovsnet:problem:{code}"
    assert document["detail"]
    return document


def test_pool_from_creation_to_deletion(api: FlaskClient) -> None:
    body = {
        "name": "blue",
        "subnet": "10.1.0.0/24",
        "ranges": ["10.1.0.10-10.1.0.20", "10.1.0.64/26"],
        "exclusions": ["10.1.0.15"],
        "static_ranges": ["10.1.0.200-10.1.0.210"],
        "labels": {"team": "a"},
    }
    made = api.post("/v1/pools", json=body)
    assert made.status_code == 201
    pool = made.get_json()
    assert made.location == f"/v1/pools/{pool['id']}"
    assert pool == {
        "id": pool["id"],
        "name": "blue",
        "space": "ovsnet",
        "subnet": "10.1.0.0/24",
        "gateway": "10.1.0.1",
        "ranges": ["10.1.0.10-10.1.0.20", "10.1.0.64-10.1.0.127"],
        "exclusions": ["10.1.0.15"],
        "static_ranges": ["10.1.0.200-10.1.0.210"],
        "reservations": {},
        "draining": False,
        "origin": "api",
        "capacity": 253,
        "leased": 0,
        "networks": [],
        "labels": {"team": "a"},
    }
    assert api.get("/v1/pools").get_json() == [pool]
    assert api.get("/v1/pools/blue").get_json() == api.get(made.location).get_json() == pool
    assert api.get("/v1/pools/blue/leases").get_json() == []
    gone = api.delete("/v1/pools/blue")
    assert (gone.status_code, gone.data) == (204, b"")
    refused(api.delete("/v1/pools/blue"), 404, "pool-not-found")


@pytest.mark.parametrize(
    ("asked", "gateway"),
    [({}, "10.1.0.1"), ({"gateway": "10.1.0.9"}, "10.1.0.9"), ({"gateway": None}, None)],
    ids=["absent", "given", "null"],
)
def test_gateway_of_a_pool(api: FlaskClient, asked: dict[str, Any], gateway: str | None) -> None:
    assert api.post("/v1/pools", json={"subnet": "10.1.0.0/24"} | asked).get_json()["gateway"] == gateway


def test_network_and_endpoint(api: FlaskClient, controller: FakeController) -> None:
    api.post("/v1/pools", json={"name": "six", "subnet": "fd00:1::/64"})
    made = api.post("/v1/networks", json={"name": "blue", "subnets": ["10.1.0.0/24"], "pools": ["six"], "vlan": 0})
    assert made.status_code == 201
    network = made.get_json()
    assert made.location == f"/v1/networks/{network['id']}"
    assert network == {
        "id": network["id"],
        "name": "blue",
        "bridge": "ovsbr0",
        "vlan": 0,
        "mtu": 1500,
        "pools": ["six", "blue-4"],
        "subnets": ["fd00:1::/64", "10.1.0.0/24"],
        "gateways": ["fd00:1::1/64", "10.1.0.1/24"],
        "internal": False,
        "masquerade": False,
        "routed": False,
        "origin": "api",
        "docker_ids": [],
        "labels": {},
    }
    assert api.get("/v1/networks").get_json() == [network]
    assert api.get("/v1/networks/blue").get_json() == api.get(made.location).get_json() == network

    body = {
        "network": "blue",
        "container": "web-1",
        "ifname": "eth0",
        "netns": "/run/netns/web",
        "addresses": ["10.1.0.2"],
        "mac": "02-00-00-00-00-0A",
        "mtu": 1400,
    }
    made = api.post("/v1/endpoints", json=body)
    assert made.status_code == 201
    endpoint = made.get_json()
    assert made.location == f"/v1/endpoints/{endpoint['id']}"
    assert endpoint == {
        "id": endpoint["id"],
        "network": "blue",
        "network_id": network["id"],
        "container": "web-1",
        "ifname": "eth0",
        "origin": "api",
        "node": "n1",
        "owner": {"kind": "api", "container": "web-1", "ifname": "eth0", "sandbox": "/run/netns/web"},
        "addresses": ["fd00:1::2/64", "10.1.0.2/24"],
        "mac": "02:00:00:00:00:0a",
        "vlan": 0,
        "own_vlan": None,
        "bridge": "ovsbr0",
        "port": "onp0123456789",
        "link": "eth0",
        "mtu": 1400,
        "sandbox": "/run/netns/web",
        "labels": {},
        "trunk": [],
        "config": "",
        "aliases": [],
        "bandwidth": {},
        "quarantined": False,
        "published": [],
    }
    assert [str(address) for address in controller.attached[0].addresses] == ["10.1.0.2"]
    assert api.get("/v1/endpoints").get_json() == api.get("/v1/endpoints?network=blue").get_json() == [endpoint]
    assert api.get(made.location).get_json() == endpoint
    owner = {"kind": "endpoint", "id": f"{network['id']}/web-1/eth0"}
    assert api.get("/v1/pools/blue-4/leases").get_json() == [
        {"address": "10.1.0.2", "pool": "blue-4", "node": "n1", "owner": owner}
    ]
    refused(api.get("/v1/endpoints?network=red"), 404, "network-not-found")
    refused(api.delete("/v1/networks/blue"), 409, "in-use")
    assert api.delete(made.location).status_code == 204
    refused(api.delete(made.location), 404, "endpoint-not-found")
    assert api.delete("/v1/networks/blue").status_code == 204
    refused(api.get("/v1/networks/blue"), 404, "network-not-found")


def test_an_endpoint_whose_network_goes_meanwhile_is_left_out(api: FlaskClient, controller: FakeController) -> None:
    api.post("/v1/networks", json={"name": "blue", "subnets": ["10.1.0.0/24"]})
    api.post("/v1/endpoints", json={"network": "blue", "container": "c", "ifname": "e", "netns": "/n"})
    setattr(controller, "networks", list)  # noqa: B010  # mypy: a method is replaced
    assert api.get("/v1/endpoints").get_json() == []


POOL = {"subnet": "10.1.0.0/24"}
NETWORK = {"name": "blue"}
ENDPOINT = {"network": "blue", "container": "c", "ifname": "eth0", "netns": "/run/netns/x"}


@pytest.mark.parametrize(
    ("path", "body", "key", "says"),
    [
        ("pools", {}, "subnet", "required"),
        ("pools", POOL | {"subnets": []}, "subnets", "unknown key"),
        ("pools", POOL | {"message": "", "hint": "", "self": ""}, "message", "unknown key"),
        ("pools", {"subnet": "10.1.0.0"}, "subnet", "write it as"),
        ("pools", {"subnet": "10.1.0.0/33"}, "subnet", "write it as"),
        ("pools", {"subnet": "10.1.0.7/24"}, "subnet", "write 10.1.0.0/24"),
        ("pools", {"subnet": "fe80::%eth0/64"}, "subnet", "not a subnet"),
        ("pools", {"subnet": 5}, "subnet", "string"),
        ("pools", POOL | {"gateway": "fe80::1%eth0"}, "gateway", "write fe80::1"),
        ("pools", POOL | {"gateway": "none"}, "gateway", "write it as"),
        ("pools", POOL | {"ranges": ["10.1.0.9-10.1.0.3"]}, "ranges.0", "first-last"),
        ("pools", POOL | {"ranges": "10.1.0.9"}, "ranges", "list"),
        ("pools", POOL | {"name": "a b"}, "name", "starts with a letter"),
        ("pools", POOL | {"labels": {"a": 1}}, "labels.a", "string"),
        ("pools", POOL | {"labels": {"a": "\ud800"}}, "labels.a", "UTF-8"),
        ("pools", POOL | {"labels": {"\0": "a"}}, "labels.\0.[key]", "NUL"),
        ("networks", {"name": ""}, "name", "starts with a letter"),
        ("networks", NETWORK | {"vlan": 4095}, "vlan", "4094"),
        ("networks", NETWORK | {"vlan": True}, "vlan", "integer"),
        ("networks", NETWORK | {"mtu": 67}, "mtu", "68"),
        ("networks", NETWORK | {"mtu": "1500"}, "mtu", "integer"),
        ("networks", NETWORK | {"mtu": 1e400}, "mtu", "integer"),
        ("networks", NETWORK | {"internal": 1}, "internal", "boolean"),
        ("networks", NETWORK | {"bridge": "a/b"}, "bridge", "15 bytes"),
        ("endpoints", ENDPOINT | {"container": "-c"}, "container", "starts with a letter"),
        ("endpoints", ENDPOINT | {"ifname": "a" * 16}, "ifname", "15 bytes"),
        ("endpoints", ENDPOINT | {"netns": ""}, "netns", "at least 1"),
        ("endpoints", ENDPOINT | {"netns": "/a\0b"}, "netns", "NUL"),
        ("endpoints", ENDPOINT | {"mac": "01:00:00:00:00:00"}, "mac", "02:00"),
        ("endpoints", ENDPOINT | {"addresses": ["10.1.0.0/24"]}, "addresses.0", "10.1.0.5"),
    ],
)
def test_refused_body_names_the_key(api: FlaskClient, path: str, body: dict[str, Any], key: str, says: str) -> None:
    document = refused(api.post(f"/v1/{path}", json=body), 400)
    assert document["detail"].startswith(f"{key}: ")
    assert key in document["details"]
    assert document["hint"]
    assert says in f"{document['detail']} {document['hint']}"
    assert document["instance"] == f"/v1/{path}"


def test_many_mistakes_make_a_short_problem(api: FlaskClient) -> None:
    document = refused(api.post("/v1/pools", json=POOL | {"ranges": ["x"] * 10_000}), 400)
    assert len(document["details"]) == problems.MAX_REFUSALS


@pytest.mark.parametrize(
    ("body", "content_type", "status", "says"),
    [
        (b"", "application/json", 400, "not valid JSON"),
        (b"{", "application/json", 400, "not valid JSON"),
        (b'{"subnet": "\xff"}', "application/json", 400, "not valid JSON"),
        (b'{"mtu": ' + b"1" * 5000 + b"}", "application/json", 400, "not valid JSON"),
        (b"[" * 100_000, "application/json", 400, "nested too deeply"),
        (b"null", "application/json", 400, "not a JSON object"),
        (b"[]", "application/json", 400, "not a JSON object"),
        (b'"{\\"subnet\\": \\"10.1.0.0/24\\"}"', "application/json", 400, "not a JSON object"),
        (b"{}", "text/plain", 415, "not declared as JSON"),
        (b"{}", "", 415, "not declared as JSON"),
        (b" " * (MAX_BODY + 1), "application/json", 413, "too large"),
    ],
)
def test_refused_form_of_a_body(api: FlaskClient, body: bytes, content_type: str, status: int, says: str) -> None:
    document = refused(api.post("/v1/pools", data=body, content_type=content_type), status)
    assert says in document["detail"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = sorted(
    {key for cls in (schemas.PoolCreate, schemas.NetworkCreate, schemas.EndpointCreate) for key in cls.model_fields}
)


@functools.cache
def shared() -> tuple[FakeController, OpenAPI]:
    controller = FakeController()
    return controller, create_app(controller, controller, controller, version="9.9")


@given(
    path=st.sampled_from(["pools", "networks", "endpoints"]),
    start=st.sampled_from([POOL, NETWORK, ENDPOINT, {}]),
    rest=st.dictionaries(st.sampled_from(KEYS) | st.text(), JSON, max_size=4),
)
def test_no_body_is_a_defect(path: str, start: dict[str, Any], rest: dict[str, Any]) -> None:
    controller, app = shared()
    vars(controller).update(vars(FakeController()))  # each example begins with nothing; to make the app takes 0.15 s
    response = as_root(app).post(f"/v1/{path}", json=start | rest)
    assert response.status_code in (201, 400, 404)


def test_paths_and_methods_that_are_not_there(api: FlaskClient) -> None:
    assert refused(api.get("/v2/a b"), 404, "not-found")["instance"] == "/v2/a%20b"
    response = api.put("/v1/pools")
    document = refused(response, 405)
    assert "GET" in response.headers["Allow"]
    assert "POST" in document["hint"]
    assert "colour" in refused(api.get("/v1/endpoints?colour=blue"), 400)["details"]


@pytest.mark.parametrize("code", codes())
def test_every_code_has_its_status(api: FlaskClient, controller: FakeController, code: str) -> None:
    controller.fail = codes()[code]("it is so", hint="do that", name="blue")
    document = refused(api.get("/v1/pools"), problems.STATUS[code], code)
    assert (document["detail"], document["hint"], document["details"]) == ("it is so", "do that", {"name": "blue"})
    error = from_problem(document)
    assert type(error) is codes()[code]
    assert problem(error) == problem(controller.fail)


def test_the_table_has_every_code_and_no_other() -> None:
    assert set(problems.STATUS) == set(codes())


def test_problem_with_a_code_of_a_newer_version() -> None:
    assert type(from_problem({"code": "of-tomorrow", "detail": "x"})) is OvsnetError
    assert from_problem({"code": "not-found", "details": None}).details == NotFound("").details


def test_defects_are_logged_and_not_told(
    api: FlaskClient, controller: FakeController, caplog: pytest.LogCaptureFixture
) -> None:
    controller.fail = ZeroDivisionError("the secret")
    with caplog.at_level(logging.ERROR):
        response = api.get("/v1/pools")
    refused(response, 500, "internal")
    assert "secret" not in response.get_data(as_text=True)
    assert caplog.records[0].exc_info
    assert caplog.records[0].exc_info[1] is controller.fail


def test_health(api: FlaskClient, controller: FakeController) -> None:
    answer = {"status": "ok", "state": "ok", "switch": "ok", "node": "n1", "version": "9.9"}
    assert api.get("/healthz").get_json() == answer
    controller.told = model.Health(ok=False, state="ok", switch="gone", node="n1", version="9.9")
    document = refused(api.get("/healthz"), 503, "switch-unavailable")
    assert "gone" in document["detail"]
    assert document["details"] == {"state": "ok", "switch": "gone", "node": "n1", "version": "9.9"}
    controller.told = model.Health(ok=False, state="no leader", switch="gone", node="n1", version="9.9")
    assert "no leader" in refused(api.get("/healthz"), 503, "state-unavailable")["detail"]


def test_openapi_document_and_docs_have_every_route(controller: FakeController) -> None:
    app = create_app(controller, controller, controller, version="9.9")
    document = app.test_client().get("/openapi.json").get_json()
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == "9.9"
    routes = {
        (method, re.sub(r"<(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.endpoint.startswith("web.")  # for people
    }
    routes -= {("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/docs/<path:name>")}
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert described == routes
    documentation = DOC.read_text(encoding="utf-8")
    for method, path in routes:
        assert f"`{method} {path}`" in documentation
    for code, status in problems.STATUS.items():
        assert f"| `{code}` | {status} |" in documentation
    references = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert references == set(document["components"]["schemas"])
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(set(operation["responses"]["default"]["content"]) == {problems.MIMETYPE} for operation in operations)


def test_swagger_ui_is_served_from_here_alone(api: FlaskClient) -> None:
    page = api.get("/docs")
    assert page.content_type.startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    text = page.get_data(as_text=True)
    files = re.findall(r'(?:src|href)="(/docs/[^"]+)"', text)
    assert len(files) == 3
    assert not re.search(r"https?://|<script>|<style|style=|onload=", text)
    for file in files:
        assert api.get(file).status_code == 200
    refused(api.get("/docs/..%2f__init__.py"), 404, "not-found")


SHAPES = [
    "Pool",
    "Reservation",
    "Finding",
    "Check",
    "Difference",
    "Reconciliation",
    "Lease",
    "LeaseOwner",
    "Network",
    "Endpoint",
    "Owner",
    "Health",
    "LeaseRecord",
    "Token",
    "NewToken",
    "Event",
    "Operation",
    "ChangeRecord",
]


@pytest.mark.parametrize("name", SHAPES)
def test_client_shapes_are_the_schemas(name: str) -> None:
    schema: type[BaseModel] = getattr(schemas, name)
    typed = get_type_hints(getattr(ovsnet_client, name))
    assert list(typed) == list(schema.model_fields)
    for key, kind in typed.items():
        assert _plain(kind) == _plain(schema.model_fields[key].annotation), key


def _plain(kind: Any) -> Any:
    """A type with our own classes by name, and literals as their values' type."""
    if str(getattr(kind, "__module__", "")).startswith("ovsnet."):
        return kind.__name__
    if get_origin(kind) is list:
        return [_plain(one) for one in get_args(kind)]
    arguments = get_args(kind)
    return type(arguments[0]) if arguments and isinstance(arguments[0], str) else kind


def test_a_pool_is_changed_and_addresses_are_kept(api: FlaskClient) -> None:
    made = api.post("/v1/pools", json={"subnet": "10.1.0.0/24", "name": "blue"}).get_json()
    change = {"exclusions": ["10.1.0.9"], "draining": True}
    changed = api.patch("/v1/pools/blue", json=change, headers={"If-Match": "*"}).get_json()
    assert changed == made | {"exclusions": ["10.1.0.9"], "draining": True}
    kept = api.post("/v1/pools/blue/reservations", json={"name": "default/web-0", "address": "10.1.0.7"})
    assert (kept.status_code, kept.get_json()) == (201, {"name": "default/web-0", "address": "10.1.0.7"})
    assert api.get("/v1/pools/blue").get_json()["reservations"] == {"default/web-0": "10.1.0.7"}
    refused(api.delete("/v1/pools/blue"), 409, "in-use")
    assert api.delete("/v1/pools/blue/reservations?name=default/web-0").status_code == 204
    refused(api.delete("/v1/pools/blue/reservations?name=default/web-0"), 404, "not-found")
    api.post("/v1/pools/blue/reservations", json={"name": "a"})
    assert api.delete("/v1/pools/blue?force=true").status_code == 204


def test_check_and_repair(api: FlaskClient, controller: FakeController) -> None:
    assert api.get("/v1/check").get_json() == {"ok": True, "mended": [], "findings": []}
    certain = Finding(Kind.NAMESPACE_GONE, "container c", "has no namespace", "detach the endpoint")
    unsure = Finding(Kind.LINK_WRONG, "container d", "has another MAC")
    controller.findings = [certain, unsure]
    found = api.get("/v1/check").get_json()
    assert [one["kind"] for one in found["findings"]] == ["namespace-gone", "link-wrong"]
    assert api.post("/v1/check", json={"dry_run": True}).get_json() == found
    done = api.post("/v1/check", json={}).get_json()
    assert (done["ok"], [one["subject"] for one in done["mended"]]) == (False, ["container c"])
    assert [one["subject"] for one in done["findings"]] == ["container d"]


def test_reconcile_tells_and_mends(api: FlaskClient, controller: FakeController) -> None:
    def post(query: str = "") -> Any:
        return api.post(f"/v1/reconcile{query}", json={}).get_json()

    assert post() == {"ok": True, "done": [], "left": []}
    mendable = Action(plan.Kind.PORT_MISSING, plan.Where.SWITCH, "container c", "has no port", "make it", "key")
    hopeless = Action(plan.Kind.PORT_FOREIGN, plan.Where.SWITCH, "container d", "has a foreign port", "", "key")
    controller.actions = [mendable, hopeless]
    told = post("?dry_run=1")
    assert [one["kind"] for one in told["left"]] == ["port-missing", "port-foreign"]
    assert not told["done"]
    done = post()
    assert (done["ok"], done["done"], done["left"]) == (False, told["left"][:1], told["left"][1:])
    refused(api.post("/v1/reconcile?dry_run=maybe", json={}), 400, "invalid-request")
