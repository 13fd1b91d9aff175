"""The pages on a controller in memory: what they tell, in every state, and what they never do."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from flask.testing import FlaskClient

from ovsnet import model
from ovsnet.addressmap import Use, crowds, places
from ovsnet.api import create_app
from ovsnet.errors import StateUnavailable, Unavailable
from ovsnet.lookup import find
from ovsnet.web import words
from ovsnet.web.pages import MAP, POLICY, ROWS
from ovsnet.web.topology import MOST
from tests.fake_controller import FakeController, as_root


class Strict(HTMLParser):
    """Knows which tags are open, and what the page would load or run."""

    VOID = frozenset({"meta", "link", "input", "br", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert "style" not in given
        assert tag != "style"
        assert not [name for name in given if name.startswith(("on", "hx-on"))]
        assert tag != "script" or given.get("src")
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag in ("script", "link", "img"):
            self.loaded.append(str(given.get("src") or given.get("href")))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
def page(controller: FakeController) -> Callable[..., str]:
    """The text of a page, its form checked."""
    client = as_root(create_app(controller, controller, controller, version="9.9"))

    def get(path: str, status: int = 200) -> str:
        response = client.get(path)
        assert response.status_code == status, response.text
        assert response.mimetype == "text/html"
        assert response.headers["Content-Security-Policy"] == POLICY
        assert response.headers["Cache-Control"] == "no-store"
        strict = Strict()
        strict.feed(response.text)
        assert not strict.open
        assert len(strict.ids) == len(set(strict.ids))
        for each in strict.loaded:
            assert client.get(each).status_code == 200, each
        return response.text

    return get


def attach(controller: FakeController, network: str, container: str, **more: object) -> model.Endpoint:
    request = model.AttachRequest(network=network, container=container, ifname="eth0", netns="/run/netns/x")
    return controller.attach(replace(request, **more)).endpoint  # type: ignore[arg-type]


def make_network(controller: FakeController, name: str = "blue", subnet: str = "10.1.0.0/24") -> model.Network:
    spec = model.PoolSpec(subnet=ipaddress.ip_network(subnet))
    return controller.create_network(model.NetworkSpec(name=name, subnets=(spec,)))


def test_nothing_there_yet(page: Callable[..., str]) -> None:
    assert "There is no network yet" in page("/")
    assert "Nobody is on any network" in page("/ui/endpoints")
    assert "not kept on this host" in page("/ui/events")
    assert "Type a name" in page("/ui/search")
    assert "Nothing fits" in page("/ui/search?q=blue")
    assert "ipam history 10.1.0.9" in page("/ui/search?q=10.1.0.9")


def test_overview_tells_networks_fill_and_endpoints(controller: FakeController, page: Callable[..., str]) -> None:
    make_network(controller)
    attach(controller, "blue", "web-1", origin=model.Origin.CNI)
    bad = attach(controller, "blue", "web-2", origin=model.Origin.DOCKER, netns="")
    text = page("/")
    assert "2 of 253" in text
    assert "1 cni" in text
    assert "1 docker" in text
    assert "1 not joined" in text
    controller.quarantine(bad.uuid, on=True)
    assert "1 quarantined" in page("/")
    controller.told = replace(controller.told, ok=False, switch="ovs-vswitchd does not run")
    assert "ovs-vswitchd does not run" in page("/")


def test_pool_map_tells_who_and_since_when(controller: FakeController, page: Callable[..., str]) -> None:
    make_network(controller)
    endpoint = attach(controller, "blue", "web-1")
    (address,) = endpoint.addresses
    owner = model.LeaseOwner(model.OwnerKind.ENDPOINT, endpoint.key)
    since = datetime(2026, 5, 17, 14, 30, tzinfo=UTC)
    controller.past.append(
        model.LeaseRecord(address.ip, "blue-4", owner, "blue", "web-1", "eth0", "n1", {}, since, None, "")
    )
    controller.reserve("blue-4", "printer", ipaddress.ip_address("10.1.0.9"))
    controller.cool.append(ipaddress.ip_address("10.1.0.77"))
    text = page("/ui/pools/blue-4")
    assert "2026-05-17 14:30:00 UTC" in text
    assert "kept for printer" in text
    assert 'title="10.1.0.77: cooling down"' in text
    assert 'title="10.1.0.2: leased, web-1"' in text
    assert 'title="10.1.0.1: gateway"' in text
    assert 'title="10.1.0.255: excluded"' in text
    assert text.count('<li class="place ') == MAP
    make_network(controller, "six", "fd00::/64")
    assert "fd00::100" in page("/ui/pools/six-6?at=fd00::ff")
    assert "fd00::ff:ff00" in page("/ui/pools/six-6?at=fd00::ff:ffff")


def test_a_journal_that_cannot_be_read_takes_only_the_times(
    controller: FakeController, page: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_network(controller)
    attach(controller, "blue", "web-1")

    def fail(*_: object) -> None:
        raise Unavailable("the event journal cannot be read", hint="see the log")

    monkeypatch.setattr(controller, "since", fail)
    text = page("/ui/pools/blue-4")
    assert "the event journal cannot be read" in text
    assert "web-1" in text


def test_a_thousand_endpoints_come_in_pages_and_as_one_node(
    controller: FakeController, page: Callable[..., str]
) -> None:
    make_network(controller, subnet="10.1.0.0/16")
    for number in range(1000):
        attach(controller, "blue", f"c{number:04}")
    assert "1,000 of 65,533" in page("/")
    shown = re.findall(r'<th scope="row" title="(c\d+)"', page("/ui/endpoints?network=blue&page=2"))
    assert shown == [f"c{number:04}" for number in range(ROWS, 2 * ROWS)]
    assert "the last one is page 10" in page("/ui/endpoints?page=11", 404)
    assert "is no page" in page("/ui/endpoints?page=x", 400)
    assert "1,000 endpoints" in page("/ui/search?q=c0")
    assert "10.1.3.0" in page("/ui/pools/blue-4")
    client = as_root(create_app(controller, controller, controller, version="9.9"))
    drawing = client.get("/ui/topology.json").get_json()
    assert [one["kind"] for one in drawing["nodes"]] == ["bridge", "network", "crowd"]
    make_network(controller, "few", "10.2.0.0/16")
    for number in range(MOST):
        attach(controller, "few", f"c{number}")
    drawing = client.get("/ui/topology.json").get_json()
    assert len(drawing["nodes"]) == 3 + 1 + MOST
    assert {end for edge in drawing["edges"] for end in (edge["source"], edge["target"])} == {
        one["id"] for one in drawing["nodes"]
    }


def test_names_are_text_and_not_markup(controller: FakeController, page: Callable[..., str]) -> None:
    make_network(controller)
    attach(controller, "blue", "web-1", labels={"k8s-pod-name": "<script>alert(1)</script>"})
    for path in ("/ui/endpoints", "/ui/search?q=<script>alert(1)</script>", "/ui/pools/blue-4"):
        text = page(path)
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text


def test_errors_are_pages(controller: FakeController, page: Callable[..., str]) -> None:
    assert "no such thing" in page("/ui/pools/grey", 404)
    make_network(controller)
    assert "is no address" in page("/ui/pools/blue-4?at=x", 400)
    assert "is not in pool" in page("/ui/pools/blue-4?at=10.2.0.1", 404)
    assert "is not in pool" in page("/ui/pools/blue-4?at=fd00::1", 404)
    controller.fail = StateUnavailable("the database is away", hint="wait")
    assert "the database is away" in page("/", 503)
    controller.fail = RuntimeError("secret")
    text = page("/", 500)
    assert "ovsnetd failed" in text
    assert "secret" not in text


def test_a_trace_is_drawn_and_what_is_wrong_said_beside_the_form(
    controller: FakeController, page: Callable[..., str]
) -> None:
    assert "nothing is sent" in page("/ui/trace")
    make_network(controller)
    attach(controller, "blue", "c1")
    text = page("/ui/trace?source=c1&destination=10.9.9.9&protocol=tcp&port=80&sender=")
    assert '<li class="ended"><strong>container c1</strong> dropped: it is in quarantine</li>' in text
    assert "What to change: let it out" in text
    assert 'value="10.9.9.9"' in text
    assert "<option selected>tcp</option>" in text
    for wrong in ("port=many", "port=70000", "protocol=ipx", "sender=nobody"):
        text = page(f"/ui/trace?source=c1&destination=c1&{wrong}", 400)
        assert f"{wrong.partition('=')[0]}: " in text
        assert 'value="c1"' in text
    assert "destination: " in page("/ui/trace?source=c1", 400)


def test_who_may_not_is_told_how(controller: FakeController) -> None:
    client: FlaskClient = create_app(controller, controller, controller, version="9.9").test_client()
    response = client.get("/")
    assert response.status_code == 401
    assert response.mimetype == "text/html"
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert "ovsnet web" in response.text
    assert client.get("/ui/static/app.css").status_code == 200  # or that page is bare
    assert client.get("/ui/static/none.css").status_code == 404
    assert as_root(client.application).post("/").status_code == 405


def pool(**more: object) -> model.Pool:
    subnet = ipaddress.ip_network("10.1.0.0/24")
    blank = model.Pool("u", "blue", "s", subnet, subnet[1], (), (), (), model.Origin.API, {})
    return replace(blank, **more)  # type: ignore[arg-type]


def test_each_address_has_one_use() -> None:
    cut = model.AddressRange.parse
    subnet = ipaddress.ip_network("10.1.0.0/24")
    blue = pool(
        ranges=(cut("10.1.0.4-10.1.0.99"),),
        exclusions=(cut("10.1.0.5"),),
        static_ranges=(cut("10.1.0.6"),),
        reservations={"a": subnet[7], "b": subnet[8]},
    )
    leases = [
        model.Lease("blue", subnet[8], model.LeaseOwner(model.OwnerKind.ENDPOINT, "n/web/eth0"), "n1"),
        model.Lease("blue", subnet[9], model.LeaseOwner(model.OwnerKind.RESERVED, "c"), "n1"),
    ]
    found = places(blue, leases, {int(subnet[10])}, 0, 12)
    assert [one.use for one in found] == [
        *(Use.EXCLUDED, Use.GATEWAY, Use.ASKED, Use.ASKED, Use.FREE, Use.EXCLUDED),
        *(Use.ASKED, Use.RESERVED, Use.LEASED, Use.RESERVED, Use.COOLING, Use.FREE),
    ]
    assert found[8].kept_for == "b"
    assert [str(one.address) for one in places(blue, [], (), 255, 9)] == ["10.1.0.255"]
    assert crowds(blue, leases, 9) == {0: 1, 1: 1}


def test_search_finds_by_what_people_know(controller: FakeController) -> None:
    make_network(controller)
    make_network(controller, "green", "10.2.0.0/24")
    one = attach(controller, "blue", "a" * 64, mac="02:00:00:00:ab:cd", labels={"k8s-pod-name": "web-0"})
    attach(controller, "green", "other")

    def ask(text: str) -> tuple[int, int, list[model.Endpoint]]:
        found = find(text, controller.pools(), controller.networks(), controller.endpoints())
        return len(found.pools), len(found.networks), found.endpoints

    for text in ("a" * 12, "AB:CD", "web-0", one.uuid[:8]):
        assert ask(text)[2] == [one], text
    assert ask(" 10.1.0.2 ") == (1, 0, [one])
    assert ask("blue") == (1, 1, [one])
    assert ask("10.2.0.")[:2] == (1, 0)
    assert ask(" ") == (0, 0, [])


def test_words() -> None:
    assert words.short("ab" * 32) == "abababababab"
    assert words.size(2**64 - 2) == "2⁶⁴"
    assert words.size(65533) == "65,533"
    assert words.count(1, "lease") == "1 lease"
    assert words.last(ipaddress.ip_address("fd00::")) == ":"
