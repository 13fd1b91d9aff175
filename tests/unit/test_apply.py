"""`ovsnet apply` and `ovsnet export`: files, plans, and what is done for them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from ovsnet import manifest, model
from ovsnet.client import Client
from ovsnet.errors import AddressInUse, InvalidRequest
from tests.fake_controller import FakeController
from tests.unit.test_cli import terminal

Run = Callable[..., Result]

SITE = """\
pools:
  - name: web
    subnet: 10.2.0.0/24
    gateway: null
    ranges: [10.2.0.64/26]
    exclusions: [10.2.0.70]
    draining: true
    reservations: {default/web-0: 10.2.0.80, 7: 10.2.0.81}
networks:
  - name: blue
    pools: [web]
    subnets: ["fd00:1::/64"]
    vlan: 20
    routed: true
    labels: {ovsnet.anti-spoofing: "false"}
"""

DOCKERS = model.NetworkSpec(
    "docker",
    subnets=(model.PoolSpec(ipaddress.ip_network("10.7.0.0/24"), origin=model.Origin.DOCKER),),
    origin=model.Origin.DOCKER,
)


@pytest.fixture
def apply(run: Run, tmp_path: Path) -> Run:
    """Applies a text."""

    def apply(text: str, *words: str) -> Result:
        file = tmp_path / "site.yaml"
        file.write_text(text)
        return run("apply", "-f", str(file), *(words or ("--yes",)))

    return apply


def test_a_file_is_made_true_once(apply: Run, run: Run, path: str) -> None:
    told = apply(SITE, "--dry-run")
    assert told.exit_code == 1
    assert [line.split(":")[0] for line in told.stdout.splitlines()] == [
        "+ pool web",
        "+ reservation default/web-0 of pool web",
        "+ reservation 7 of pool web",
        "+ network blue",
    ]
    client = Client(path)
    assert (client.pools(), client.networks()) == ([], [])
    assert apply(SITE).stdout == told.stdout
    pool, network = client.pool("web"), client.network("blue")
    assert (pool["gateway"], pool["ranges"], pool["draining"]) == (None, ["10.2.0.64-10.2.0.127"], True)
    assert pool["reservations"] == {"default/web-0": "10.2.0.80", "7": "10.2.0.81"}
    assert (network["vlan"], network["routed"]) == (20, True)
    assert network["subnets"] == ["10.2.0.0/24", "fd00:1::/64"]
    assert network["labels"] == {"ovsnet.anti-spoofing": "false"}
    for words in (("--yes",), ("--dry-run", "--prune")):
        again = apply(SITE, *words)
        assert (again.exit_code, again.stdout) == (0, "nothing to do\n")
    exported = run("export").stdout
    assert apply(exported, "--dry-run", "--prune").stdout == "nothing to do\n"
    assert yaml.safe_load(exported) == json.loads(run("export", "-o", "json").stdout)
    assert yaml.safe_load(run("export", "-o", "yaml").stdout) == yaml.safe_load(exported)


def test_what_is_exported_makes_the_same_elsewhere(apply: Run, run: Run, controller: FakeController) -> None:
    apply(SITE)
    controller.create_network(DOCKERS)
    exported = run("export").stdout
    assert [one["name"] for one in yaml.safe_load(run("export", "--all").stdout)["networks"]] == ["blue", "docker"]
    things = [json.loads(run(noun, "ls", "-o", "json").stdout) for noun in ("pool", "network")]
    controller.__init__()  # type: ignore[misc]  # a new host
    apply(exported)
    for before, after in zip(
        things, [json.loads(run(noun, "ls", "-o", "json").stdout) for noun in ("pool", "network")], strict=True
    ):
        known = {one["name"]: one for one in before}
        for one in after:
            assert one == known[one["name"]] | {"id": one["id"], "origin": "api"}


def test_a_pool_changes_in_place(apply: Run, path: str) -> None:
    apply(SITE)
    other = """
    pools:
      - name: web
        subnet: 10.2.0.0/23
        ranges: [10.2.0.64-10.2.0.127]  # as before, in other words
        exclusions: []
        reservations: {default/web-0: 10.2.0.99}
    """
    told = apply(other, "--yes", "-o", "json")
    assert json.loads(told.stdout) == {
        "applied": True,
        "changes": [
            {
                "action": "change",
                "kind": "pool",
                "name": "web",
                "pool": "",
                "fields": {
                    "subnet": {"old": "10.2.0.0/24", "new": "10.2.0.0/23"},
                    "exclusions": {"old": ["10.2.0.70"], "new": []},
                },
            },
            {
                "action": "change",
                "kind": "reservation",
                "name": "default/web-0",
                "pool": "web",
                "fields": {"address": {"old": "10.2.0.80", "new": "10.2.0.99"}},
            },
        ],
    }
    pool = Client(path).pool("web")
    assert (pool["subnet"], pool["exclusions"], pool["draining"]) == ("10.2.0.0/23", [], True)
    assert pool["reservations"] == {
        "default/web-0": "10.2.0.99",
        "7": "10.2.0.81",
    }  # the other one is not the file's business


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "pools: [{name: web, subnet: 10.2.0.0/24, gateway: 10.2.0.1}]",
            ["pool web: gateway: none cannot become 10.2.0.1"],
        ),
        ("pools: [{name: web, subnet: 10.2.0.0/24, labels: {a: b}}]", ["pool web: labels"]),
        ("networks: [{name: blue, vlan: 21, routed: false}]", ["blue: routed: yes cannot become no"]),
        ("networks: [{name: blue, pools: [web]}]", ["network blue: pools and subnets"]),
        ("networks: [{name: red, pools: [green]}]", ["network red: no such thing: 'green'"]),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_done(apply: Run, path: str, text: str, says: list[str]) -> None:
    apply(SITE)
    refused = apply(text.replace("pools: [{", "pools: [{name: first, subnet: 10.3.0.0/24}, {", 1))
    assert refused.exit_code in (3, 4)
    for one in says:
        assert one in refused.stderr
    assert "nothing was done" in refused.stderr
    assert [one["name"] for one in Client(path).pools()] == ["blue-6", "web"]


def tagged(**tags: int) -> str:
    return "networks: [" + ", ".join(f"{{name: {name}, vlan: {tag}}}" for name, tag in tags.items()) + "]"


def test_networks_get_other_tags_in_an_order_that_is_possible(apply: Run, path: str) -> None:
    apply(tagged(a=20, b=21, c=22))
    done = apply(tagged(d=20, a=21, b=22, c=23))
    assert (done.exit_code, done.stdout.splitlines()) == (
        0,
        [
            "~ network c: vlan 22 -> 23",
            "~ network b: vlan 21 -> 22",
            "~ network a: vlan 20 -> 21",
            "+ network d: vlan 20",
        ],
    )
    assert {one["name"]: one["vlan"] for one in Client(path).networks()} == {"a": 21, "b": 22, "c": 23, "d": 20}
    refused = apply(tagged(a=22, b=21, c=24))
    assert refused.exit_code == 4
    assert "network a: vlan: 22 is not free before" in refused.stderr
    assert apply(tagged(a=21, c=23)).stdout == "nothing to do\n"


def test_nothing_goes_unless_it_is_pruned(apply: Run, run: Run, controller: FakeController, path: str) -> None:
    controller.create_network(DOCKERS)
    run("pool", "create", "shared", "--subnet", "10.8.0.0/24")
    controller.create_network(model.NetworkSpec("cni", pools=("shared",), origin=model.Origin.CNI))
    apply(SITE)
    run("endpoint", "create", "--network", "blue", "--container", "c1", "--netns", "/n")
    empty = "pools: [{name: kept, subnet: 10.9.0.0/24}]"
    assert apply(empty).exit_code == 0
    client = Client(path)
    assert len(client.networks()) == 3
    refused = apply(empty, "--prune", "--yes")
    assert (refused.exit_code, "network blue cannot go: 1 endpoints are on it" in refused.stderr) == (4, True)
    run("endpoint", "rm", client.endpoints()[0]["id"])
    told = apply(empty, "--prune", "--yes")
    assert told.exit_code == 0, told.stderr
    assert [
        line.split(":")[0] for line in told.stdout.splitlines() if "pool d" not in line and "docker" not in line
    ] == [
        "- reservation default/web-0 of pool web",
        "- reservation 7 of pool web",
        "- network blue",
        "- pool blue-6",
        "- pool web",
    ]
    assert [one["name"] for one in client.networks()] == ["cni", "docker"]
    assert {"kept", "shared"} <= {one["name"] for one in client.pools()}
    run("ipam", "reserve", "kept", "a")
    assert apply(empty, "--prune", "--dry-run").stdout == "nothing to do\n"
    assert apply(empty.replace("}", ", reservations: {}}"), "--prune", "--yes").exit_code == 0
    assert client.pool("kept")["reservations"] == {}


def test_everything_that_is_wrong_is_told_with_its_line() -> None:
    text = """\
pools:
  - name: web
    subnet: 10.2.0.7/24
    vlan: 7
  - subnet: 10.2.0.0/24
    draining: "no"
  - just text
networks:
  - name: on
    vlan: 5000
  - name: blue
    subnets:
      - 10.1.0.0/24
      - nonsense
netwroks: []
"""
    with pytest.raises(InvalidRequest) as caught:
        manifest.parse(text, "site.yaml")
    lines = caught.value.message.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["site.yaml:4", "pools.0.vlan"],
        ["site.yaml:5", "pools.1.name"],
        ["site.yaml:6", "pools.1.draining"],
        ["site.yaml:7", "pools.2"],
        ["site.yaml:10", "networks.0.vlan"],
        ["site.yaml:14", "networks.1.subnets.1"],
        ["site.yaml:15", "netwroks"],
    ]
    assert "the keys are" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pools: [", "f:1: "),
        ("pools: []\npools: []\n", "f:2: key 'pools' comes twice"),
        ("- a", "f:1: the file is no mapping"),
        ("a: 1\n---\nb: 2", "f:2: "),
        ("pools: []\n? [a]\n: b", "f:2: a key is no text"),
        ("!!python/object:os.system x", "f:1: "),
        ("a: \0", "f is no YAML"),
        ("[" * 2000, "f is no YAML"),
        ("x: " + "a" * manifest.MAX_BYTES, "f is too large"),
        ("pools: &a [*a]", "f:1: pools.0: is no mapping"),
        (
            "pools:\n- {name: a, subnet: 10.0.0.0/24}\n- {name: a, subnet: 10.1.0.0/24}",
            "f:3: pools.1.name: 'a' comes twice",
        ),
        (
            "pools:\n- {name: a, subnet: 10.0.0.0/24}\nnetworks:\n- {name: a, subnets: [10.0.0.0/8]}",
            "f:2: pools.0.subnet: 10.0.0.0/24 overlaps 10.0.0.0/8",
        ),
        (
            "pools:\n- name: a\n  subnet: fd00::/64\n  reservations:\n    x: fd00::5\n    y: fd00:0::5",
            "f:6: pools.0.reservations.y: fd00::5 is kept for 'x' already",
        ),
    ],
)
def test_files_that_are_none(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        manifest.parse(text, "f")
    assert caught.value.message.startswith(says)
    assert caught.value.hint


def test_scalars_are_what_they_look_like() -> None:
    """YAML 1.1 would make numbers, dates and truth of these."""
    text = "pools: [{name: on, subnet: 'fd00::/64', labels: {a: 2026-01-01, b: 1:20, on: yes, 3: 0x10}}]"
    (pool,) = manifest.parse(text, "f").pools
    assert pool.name == "on"
    assert pool.labels == {"a": "2026-01-01", "b": "1:20", "on": "yes", "3": "0x10"}
    assert manifest.parse("", "f") == manifest.parse("pools: []", "f") == manifest.parse("{}", "f")


def test_files_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"pools: [\xff]")
    for name, says in (("absent", "No such file"), ("latin", "not UTF-8"), ("", "Is a directory")):
        refused = run("apply", "-f", str(tmp_path / name))
        assert (refused.exit_code, says in refused.stderr) == (2, True)


def test_who_can_be_asked_is_asked(path: str, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(SITE)
    client = Client(path)
    for words in ((str(file),), ("-",), (str(file), "-o", "json")):
        refused = run("apply", "-f", *words, stdin=SITE)
        assert (refused.exit_code, "--yes" in refused.stderr) == (2, True)
    assert client.pools() == []
    lines = terminal(100, "--socket", path, "apply", "-f", str(file), typed="y\n")
    assert "+ network blue" in "\n".join(lines)
    assert client.network("blue")["vlan"] == 20
    assert run("apply", "-f", "-", stdin=SITE).stdout == "nothing to do\n"  # nothing to ask about


def test_a_reservation_that_cannot_move_stays(apply: Run, path: str, controller: FakeController) -> None:
    apply(SITE)
    wanted = ipaddress.ip_address("10.2.0.99")
    attempt = controller.reserve

    def fail(ref: str, name: str, address: model.IPAddress | None = None) -> model.IPAddress:
        if address == wanted:
            raise AddressInUse(f"{address} is somebody's", hint="take another one")
        return attempt(ref, name, address)

    controller.reserve = fail  # type: ignore[method-assign]
    before = Client(path).pool("web")["reservations"]
    told = apply(SITE.replace("10.2.0.80", str(wanted)))
    assert (told.exit_code, "is somebody's" in told.stderr) == (4, True)
    assert Client(path).pool("web")["reservations"] == before


def test_a_failure_in_the_middle_keeps_what_was_done(apply: Run, path: str, controller: FakeController) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError

    attempt = controller.create_network
    rehearsed = controller.rehearsal()
    controller.rehearsal = lambda: rehearsed  # type: ignore[method-assign]
    controller.create_network = fail  # type: ignore[method-assign,assignment]
    assert apply(SITE).exit_code == 1
    client = Client(path)
    assert (len(client.pools()), client.networks()) == (1, [])
    controller.create_network = attempt  # type: ignore[method-assign]
    assert [line.split(":")[0] for line in apply(SITE).stdout.splitlines()] == ["+ network blue"]
