"""The REST API of a real ovsnetd under generated requests: no defect, and every answer is as the OpenAPI document says.

OVSNET_EXAMPLES sets how many requests; requests go through the unix socket, as root.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from requests.adapters import HTTPAdapter
from schemathesis.checks import load_all_checks
from schemathesis.core.result import Ok
from urllib3.connection import HTTPConnection as PooledConnection
from urllib3.connectionpool import HTTPConnectionPool

from ovsnet.capture import MAX_SECONDS
from tests.harness import Netns, Stack

EXAMPLES = int(os.environ.get("OVSNET_EXAMPLES", "300"))
LABEL = "fuzz"
BASE = "http://localhost"


class _Connection(PooledConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


class _Pool(HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> _Connection:
        return _Connection(self._path)


class UnixAdapter(HTTPAdapter):
    """Lets requests speak HTTP through a unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        super().__init__()

    def get_connection_with_tls_context(self, *_args: Any, **_kwargs: Any) -> _Pool:
        return _Pool(self._path)


@pytest.fixture
def session(stack: Stack) -> Iterator[requests.Session]:
    made = requests.Session()
    made.trust_env = False
    made.mount(BASE, UnixAdapter(str(stack.socket)))
    yield made
    made.close()


def document(stack: Stack) -> dict[str, Any]:
    connection = HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(stack.socket))
    connection.request("GET", "/openapi.json")
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    del found["components"]["securitySchemes"]  # no made-up tokens: the kernel tells that we are root
    for item in found["paths"].values():
        for operation in item.values():
            del operation["security"]
    return found


@pytest.fixture
def emptied(stack: Stack, no_leftovers: Callable[[], None]) -> Iterator[None]:
    """Removes at the end whatever was made, and asserts that nothing of it is left."""
    yield
    stack.ensure()
    for name in stack.show("network", "ls"):
        stack.cli("network", "rm", "--force", name["id"])
    for name in stack.show("pool", "ls"):
        stack.cli("pool", "rm", "--force", name["id"])
    for name in stack.show("token", "ls"):
        stack.cli("token", "revoke", name["id"])
    no_leftovers()


@pytest.mark.timeout(max(120, EXAMPLES))
def test_generated_requests_find_no_defect(
    stack: Stack, session: requests.Session, netns: Callable[[], Netns], emptied: None
) -> None:
    del emptied
    container = netns()
    stack.cli("network", "create", f"{LABEL}-net", "--subnet", "10.77.0.0/24", "--subnet", "fd00:77::/64")
    stack.cli("pool", "create", f"{LABEL}-pool", "--subnet", "10.78.0.0/24")
    attach = ("--network", f"{LABEL}-net", "--container", "c0", "--netns", container.path)
    stack.cli("endpoint", "create", *attach)
    known = [f"{LABEL}-net", f"{LABEL}-pool", stack.show("network", "show", f"{LABEL}-net")["id"]]
    endpoint = stack.endpoints()[0]
    sense: dict[str, list[Any]] = {
        "ref": known,
        "uuid": [endpoint["id"]],
        "network": known,
        "pool": known,
        "pools": [[], known[1:2]],
        "name": [*known, f"{LABEL}-a", f"{LABEL}-b"],
        "subnet": ["10.78.0.0/23", "10.79.0.0/28", "fd00:79::/64"],
        "subnets": [["10.80.0.0/24"], ["10.81.0.0/30", "fd00:81::/64"], ["10.77.0.128/25"]],
        "address": ["10.78.0.9", "10.77.0.1", "fd00:77::9"],
        "addresses": [["10.77.0.20"], ["fd00:77::20"], []],
        "gateway": [None, "10.79.0.1"],
        "ranges": [["10.78.0.16/28"], ["10.78.0.4-10.78.0.8"]],
        "exclusions": [["10.78.0.5"], []],
        "static_ranges": [["10.78.0.200-10.78.0.210"], []],
        "container": ["c1", "c2"],
        "netns": [str(container.path), "/proc/1/ns/net", "/etc/passwd"],
        "ifname": ["eth0", "lo"],
        "bridge": [stack.bridge],
        "vlan": [0, 5, 4094],
        "mtu": [1400, 9000],
        "mac": ["02:00:00:00:00:09"],
        "limit": [1, 2],
        "dry_run": [True],
        "force": [True, False],
        "cursor": ["WyJmdXp6LW5ldCJd"],
    }
    load_all_checks()
    wanted: list[Any] = [
        schemathesis.checks.CHECKS.get_one(name)
        for name in (
            "not_a_server_error",
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
        )
    ]
    schema = schemathesis.openapi.from_dict(document(stack))
    found = [one.ok() for one in schema.get_all_operations() if isinstance(one, Ok)]
    assert len(found) == schema.statistic.operations.total
    strategies = {f"{one.method.upper()} {one.path}": one.as_strategy() for one in found}
    statuses: dict[int, int] = {}

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(data=st.data())
    def ask(data: st.DataObject) -> None:
        case = data.draw(strategies[data.draw(st.sampled_from(sorted(strategies)))])
        parts: tuple[Any, ...] = (case.path_parameters, case.query, case.body)
        for part in parts:  # some of it makes sense
            for key in part if isinstance(part, dict) else ():
                if key in sense and data.draw(st.booleans()):
                    part[key] = data.draw(st.sampled_from(sense[key]))
        body = case.body if case.path.startswith("/v1/captures") else None
        if isinstance(body, dict) and body.get("seconds", MAX_SECONDS) in range(2, MAX_SECONDS + 1):
            body["seconds"] = 1  # it takes as long as it says, and by default longer than the client waits
        response = case.call(base_url=BASE, session=session, timeout=60)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        case.validate_response(response, checks=wanted)

    ask()
    assert statuses.keys() & {200, 201, 204}, statuses
    assert statuses.keys() & {400, 404}, statuses
