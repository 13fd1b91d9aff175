"""POST /cni: which use case each command reaches, and what becomes of errors."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
from collections.abc import Collection
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from cni import wire
from cni.blueprint import Addresses, create_blueprint
from ovsnet.errors import NetworkNotFound, OvsnetError, PoolExhausted, StateUnavailable
from ovsnet.model import Attachment, AttachRequest, Expectation, Health, Route

from .test_cni_protocol import ATTACHMENT, ENVIRONMENT


class Controller:
    """Keeps what it was asked; fails with `error` if that is set."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.error: Exception | None = None
        self.ok = True
        self.full = False
        self.known = ""

    def attach(self, request: AttachRequest) -> Attachment:
        self._ask(request)
        return dataclasses.replace(ATTACHMENT)

    def detach(self, network: str, container: str, ifname: str, netns: str = "") -> None:
        self._ask((network, container, ifname, netns))

    def health(self) -> Health:
        return Health(self.ok, "ok" if self.ok else "disk full", "ok", "here", "1")

    def check_attachment(self, expected: Expectation) -> None:
        self._ask(expected)

    def collect_garbage(self, ref: str, config: str, valid: Collection[tuple[str, str]]) -> None:
        self._ask((ref, config, set(valid)))

    @property
    def addresses(self) -> Addresses:
        raise NotImplementedError  # system tests have the real ones

    def foreign_ipam(self, network: str, container: str, ifname: str) -> str:
        self._ask((network, container, ifname))
        return self.known

    def check_room(self, ref: str) -> None:
        if self.full:
            raise PoolExhausted(f"pool {ref} is full", hint="grow it")

    def _ask(self, what: Any) -> None:
        self.asked.append(what)
        if self.error:
            raise self.error


class Edge:
    """The fake controller behind the real blueprint."""

    def __init__(self) -> None:
        self.controller = Controller()
        app = Flask("test")
        app.register_blueprint(create_blueprint(self.controller))
        self.client = app.test_client()

    def post(self, command: str, config: dict[str, Any] | None = None, **environment: str) -> TestResponse:
        stdin = json.dumps({"cniVersion": "1.1.0", "name": "blue", "type": "ovsnet"} | (config or {})).encode()
        environment = ENVIRONMENT | {"CNI_COMMAND": command} | environment
        return self.client.post(wire.PATH, data=wire.encode(environment, stdin))


@pytest.fixture
def edge() -> Edge:
    return Edge()


def error(response: TestResponse, version: str = "1.1.0") -> tuple[int, int]:
    """HTTP status and CNI code of an answer that has the form of an error."""
    document = response.get_json()
    assert set(document) == {"cniVersion", "code", "msg", "details"}
    assert document["cniVersion"] == version
    assert document["msg"]
    return response.status_code, document["code"]


def test_add_attaches_and_answers_in_the_version_asked_for(edge: Edge) -> None:
    response = edge.post("ADD", {"cniVersion": "0.4.0", "dns": {"search": ["x"]}})
    assert response.status_code == 200
    assert response.get_json()["cniVersion"] == "0.4.0"
    assert response.get_json()["ips"][0]["version"] == "4"
    assert response.get_json()["dns"] == {"search": ["x"]}
    assert edge.controller.asked == [
        AttachRequest("blue", "c1", "eth0", "/run/netns/x", reserved_for=("c1",), config="blue")
    ]


def test_add_after_another_main_plugin_passes_its_result_through(edge: Edge) -> None:
    previous = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0"}], "x": [1.5]}
    response = edge.post("ADD", {"prevResult": previous})
    assert (response.status_code, response.get_json()) == (200, previous)
    assert edge.controller.asked == []


def test_del_detaches_and_says_nothing(edge: Edge) -> None:
    response = edge.post("DEL", {"ipam": {"type": 3}, "unknown": 1, "network": "green"}, CNI_NETNS="")
    assert (response.status_code, response.data) == (200, b"")
    assert edge.controller.asked == [("green", "c1", "eth0", "")]


def test_another_ipam_is_left_to_the_executable(edge: Edge) -> None:
    foreign = {"ipam": {"type": "host-local", "subnet": "?"}}
    for command, again in (("ADD", True), ("DEL", False)):
        response = edge.post(command, foreign)
        assert (response.status_code, response.get_json()) == (
            202,
            {"delegate": "host-local", "again": again, "undo": False},
        )
    assert edge.controller.asked == [("blue", "c1", "eth0"), ("blue", "c1", "eth0", "/run/netns/x")]
    edge.controller.known = '{"ips": [{"address": "10.5.0.7/16"}]}'
    assert edge.post("ADD", foreign).status_code == 200
    assert [str(one) for one in edge.controller.asked[-1].foreign] == ["10.5.0.7/16"]
    for wrong in ("", "[]", "{}", '{"ips": [{"address": "x"}]}'):
        edge.controller.known = wrong
        response = edge.post("ADD", foreign, **{wire.DELEGATED: wrong})
        assert error(response) == (400, 7)
        assert "host-local" in response.get_json()["msg"]


@pytest.mark.parametrize("keys", [{"ipam": {"type": "dhcp"}}, {"ipam": {"type": "x"}, "linkFirst": True}])
def test_an_ipam_that_needs_the_interface_comes_after_it(edge: Edge, keys: dict[str, Any]) -> None:
    task = {"delegate": keys["ipam"]["type"], "again": True}
    response = edge.post("ADD", keys)
    assert (response.status_code, response.get_json()) == (202, task | {"undo": True})
    first = edge.controller.asked[-1]
    assert isinstance(first, AttachRequest)
    assert (first.link_first, first.foreign) == (True, ())
    response = edge.post("ADD", keys, **{wire.DELEGATED: '{"ips": [{"address": "10.5.0.7/16"}]}'})
    second = edge.controller.asked[-1]
    assert isinstance(second, AttachRequest)
    assert (response.status_code, second.link_first, len(second.foreign)) == (200, False, 1)
    asked = len(edge.controller.asked)
    response = edge.post("DEL", keys)
    assert (response.status_code, response.get_json()) == (202, task | {"undo": False})
    assert len(edge.controller.asked) == asked  # the interface stays until the address is released
    assert edge.post("DEL", keys, **{wire.DELEGATED: ""}).status_code == 200
    assert edge.controller.asked[-1] == ("blue", "c1", "eth0", "/run/netns/x")


def test_dhcp_may_be_asked_as_any_other(edge: Edge) -> None:
    response = edge.post("ADD", {"ipam": {"type": "dhcp"}, "linkFirst": False})
    assert response.get_json() == {"delegate": "dhcp", "again": True, "undo": False}
    assert edge.controller.asked == [("blue", "c1", "eth0")]


def test_version_needs_nothing_else(edge: Edge) -> None:
    response = edge.client.post(wire.PATH, data=wire.encode({"CNI_COMMAND": "VERSION"}, b'{"cniVersion": "9.9.9"}'))
    assert response.status_code == 200
    assert response.get_json()["cniVersion"] == "9.9.9"
    assert {"0.3.1", "0.4.0", "1.0.0", "1.1.0"} <= set(response.get_json()["supportedVersions"])


def test_status_is_silent_when_all_is_well_and_50_when_not(edge: Edge) -> None:
    response = edge.post("STATUS")
    assert (response.status_code, response.data) == (200, b"")
    edge.controller.ok = False
    response = edge.post("STATUS")
    assert error(response) == (503, 50)
    assert "disk full" in response.get_json()["msg"]


def test_status_is_50_when_the_network_is_full(edge: Edge) -> None:
    edge.controller.full = True
    response = edge.post("STATUS", {"network": "green"})
    assert error(response) == (503, 50)
    assert "pool green is full" in response.get_json()["msg"]


PREVIOUS = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "br0", "mac": "02:00:00:00:00:01"},
        {"name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1400, "sandbox": "/run/netns/x"},
        {"name": "eth1", "mac": "02:00:00:00:00:03", "sandbox": "/run/netns/x"},
    ],
    "ips": [{"address": "10.1.0.2/16", "interface": 1}, {"address": "10.2.0.2/16", "interface": 2}],
    "routes": [
        {"dst": "0.0.0.0/0", "gw": "10.1.0.1"},
        {"dst": "10.9.0.0/16", "gw": "10.2.0.1"},
        {"dst": "10.8.0.0/16"},
    ],
}


def test_check_expects_what_the_previous_result_says_of_our_interface(edge: Edge) -> None:
    response = edge.post("CHECK", {"prevResult": PREVIOUS})
    assert (response.status_code, response.data) == (200, b"")
    (expected,) = edge.controller.asked
    assert expected == Expectation(
        network="blue",
        container="c1",
        ifname="eth0",
        netns="/run/netns/x",
        addresses=(ipaddress.ip_interface("10.1.0.2/16"),),
        routes=(Route(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_address("10.1.0.1")),),
        mac="02:00:00:00:00:02",
        mtu=1400,
    )


@pytest.mark.parametrize(
    "previous", [None, [], {"ips": [{"address": "x"}]}, {"interfaces": "eth0"}, {"routes": [{"dst": 1}]}]
)
def test_check_refuses_what_is_no_result(edge: Edge, previous: Any) -> None:
    assert error(edge.post("CHECK", {"prevResult": previous})) == (400, 7)
    assert edge.controller.asked == []


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc_names_what_stays(edge: Edge, key: str) -> None:
    response = edge.post("GC", {"network": "green", key: [{"containerID": "a", "ifname": "eth0"}]})
    assert (response.status_code, response.data) == (200, b"")
    assert edge.controller.asked == [("green", "blue", {("a", "eth0")})]


def test_gc_of_nothing_valid(edge: Edge) -> None:
    assert edge.post("GC", {"cni.dev/valid-attachments": None}).status_code == 200
    assert edge.controller.asked == [("blue", "blue", set())]


@pytest.mark.parametrize("config", [{}, {"cni.dev/valid-attachments": [{"containerID": "a"}]}])
def test_gc_without_a_list_of_attachments_is_refused(edge: Edge, config: dict[str, Any]) -> None:
    assert error(edge.post("GC", config)) == (400, 7)
    assert edge.controller.asked == []


@pytest.mark.parametrize(("command", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")])
def test_a_command_younger_than_the_version_is_code_1(edge: Edge, command: str, version: str) -> None:
    assert error(edge.post(command, {"cniVersion": version}), version) == (400, 1)


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_a_version_that_we_do_not_speak_is_code_1(edge: Edge, command: str) -> None:
    assert error(edge.post(command, {"cniVersion": "2.0.0"}), "2.0.0") == (400, 1)
    assert edge.controller.asked == []


@pytest.mark.parametrize("command", ["", "add", "PURGE"])
def test_an_unknown_command_is_code_4(edge: Edge, command: str) -> None:
    assert error(edge.post(command)) == (400, 4)


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", 4), (b"garbage", 4), (b"\0{}", 4), (b"CNI_COMMAND=ADD\0\0", 6), (b"CNI_COMMAND=ADD\0\0[]", 6)],
)
def test_malformed_bodies(edge: Edge, body: bytes, code: int) -> None:
    response = edge.client.post(wire.PATH, data=body)
    assert response.status_code == 400
    assert response.get_json()["code"] == code


def test_a_body_of_more_than_1_mib_is_code_7(edge: Edge) -> None:
    assert error(edge.client.post(wire.PATH, data=b"\0" * (wire.LIMIT + 1))) == (400, 7)


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (NetworkNotFound("no network blue", hint="create it"), 400, 103),
        (PoolExhausted("no address", hint="delete something"), 400, 121),
        (StateUnavailable("no database", hint="wait"), 503, 11),
        (OvsnetError("defect"), 500, 999),
        (ZeroDivisionError("secret"), 500, 999),
    ],
)
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_errors_of_the_use_case(edge: Edge, command: str, raised: Exception, status: int, code: int) -> None:
    edge.controller.error = raised
    response = edge.post(command)
    assert error(response) == (status, code)
    assert "secret" not in response.text
    if isinstance(raised, OvsnetError):
        assert (response.get_json()["msg"], response.get_json()["details"]) == (raised.message, raised.hint)
