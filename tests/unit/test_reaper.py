"""What looks abandoned, and what stays because it is not sure: one table, without anything real behind it."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from ovsnet import plan
from ovsnet.docker_endpoints import REQUESTER
from ovsnet.dockerd import DockerNetwork, Incarnation
from ovsnet.errors import OvsnetError, Unavailable
from ovsnet.model import Endpoint, Lease, LeaseOwner, Network, Origin, OwnerKind, Pool
from ovsnet.reaper import Kind, Picture, Reaper, Stale, find_stale

if TYPE_CHECKING:
    from ovsnet.controller import Controller
    from ovsnet.docker import DockerDriver

HERE, THERE = "host1", "host2"
NOW = Incarnation(900, 5000, "b00t0002", HERE)
BEFORE = Incarnation(800, 4000, "b00t0002", HERE)
ELSEWHERE = Incarnation(900, 5000, "b00t0002", THERE)
SUBNET = ipaddress.ip_network("10.77.0.0/24")
ID, OTHER_ID, ENDPOINT = "d" * 64, "e" * 64, "f" * 64
DRIVER = "ovsnet"


def pool(requester: object = NOW) -> Pool:
    return Pool("p", "docker-pool", "ovsnet", SUBNET, None, (), (), (), Origin.DOCKER, {}, requested_by=str(requester))


NETWORK = Network(
    "n", "blue", "br", 7, 1500, ("p",), (), internal=False, origin=Origin.DOCKER, docker_ids=frozenset({ID}), labels={}
)
OF_CNI = Endpoint(
    *("c", "n", "blue", "pod", "eth0", Origin.CNI, HERE, "/run/netns/pod"),
    *((), "02:00:00:00:00:01", 1500, "onp1", "eth0", {}),
)


def of_docker(requester: object, sandbox: str = "") -> Endpoint:
    return replace(
        OF_CNI,
        uuid="d",
        container=ENDPOINT,
        ifname="",
        origin=Origin.DOCKER,
        sandbox=sandbox,
        labels={REQUESTER: str(requester)},
    )


def lease(requester: object, token: str = "10.77.0.9") -> tuple[str, Lease]:  # noqa: S107  # not that kind of token
    owner = LeaseOwner(OwnerKind.DOCKER, f"{requester}/{token}")
    return "p", Lease("docker-pool", ipaddress.ip_address("10.77.0.9"), owner, HERE)


def told(*endpoints: str, addresses: tuple[str, ...] = (), driver: str = DRIVER) -> DockerNetwork:
    known = frozenset(map(ipaddress.ip_address, addresses))
    return DockerNetwork(driver, DRIVER, frozenset({SUBNET}), known, frozenset(endpoints))


QUIET = Picture(
    node=HERE,
    pools={"p": pool()},
    leases=(),
    endpoints=(),
    networks={"n": NETWORK},
    gone=frozenset(),
    alive=frozenset({NOW}),
    caller=NOW,
    whole=True,
    asked=False,
    docker=None,
    driver=DRIVER,
    alone=True,
    local=True,
)
ASKED = replace(QUIET, asked=True, docker={ID: told(ENDPOINT)})
DOWN: dict[str, Any] = {"caller": None, "alive": frozenset[Incarnation](), "whole": False}
CLUSTER: dict[str, Any] = {"alone": False}


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        pytest.param(QUIET, [], id="nothing"),
        # What a CNI runtime has left
        pytest.param(replace(QUIET, endpoints=(OF_CNI,)), [], id="pod"),
        pytest.param(
            replace(QUIET, endpoints=(OF_CNI,), gone=frozenset({OF_CNI.sandbox})), [Kind.ENDPOINT], id="pod gone"
        ),
        pytest.param(
            replace(QUIET, endpoints=(OF_CNI,), gone=frozenset({OF_CNI.sandbox}), **DOWN),
            [Kind.ENDPOINT],
            id="pod gone, no docker",
        ),
        # Endpoints of a dockerd that is not asked
        pytest.param(replace(QUIET, endpoints=(of_docker(NOW, "/ns"),)), [], id="in its container"),
        pytest.param(replace(QUIET, endpoints=(of_docker(NOW),)), [Kind.ENDPOINT], id="left"),
        pytest.param(
            replace(QUIET, endpoints=(of_docker(NOW, "/ns"),), gone=frozenset({"/ns"})), [Kind.ENDPOINT], id="lost"
        ),
        pytest.param(replace(QUIET, endpoints=(of_docker(BEFORE),)), [Kind.ENDPOINT], id="left by the last dockerd"),
        pytest.param(replace(QUIET, endpoints=(of_docker(BEFORE, "/ns"),)), [], id="live-restored"),
        pytest.param(replace(QUIET, endpoints=(of_docker(BEFORE),), **DOWN), [], id="dockerd is down"),
        pytest.param(replace(QUIET, endpoints=(of_docker(""),)), [], id="of a dockerd unknown"),
        pytest.param(replace(QUIET, endpoints=(of_docker(ELSEWHERE),)), [], id="of another host's dockerd"),
        pytest.param(replace(QUIET, endpoints=(of_docker(NOW),), local=False), [Kind.ENDPOINT], id="left, in a swarm"),
        # Endpoints of one that is asked
        pytest.param(replace(ASKED, endpoints=(of_docker(NOW),)), [], id="Docker has it"),
        pytest.param(
            replace(ASKED, endpoints=(of_docker(NOW),), docker={ID: told()}), [Kind.ENDPOINT], id="Docker forgot it"
        ),
        pytest.param(
            replace(ASKED, endpoints=(of_docker(""),), docker={ID: told()}), [Kind.ENDPOINT], id="whoever it was of"
        ),
        pytest.param(
            replace(ASKED, endpoints=(of_docker(NOW, "/ns"),), docker={ID: told()}), [], id="forgot a running one"
        ),
        pytest.param(replace(ASKED, endpoints=(of_docker(NOW),), docker=None), [], id="Docker does not answer"),
        # Leases that Docker holds
        pytest.param(replace(QUIET, leases=(lease(NOW),)), [], id="lease"),
        pytest.param(replace(QUIET, leases=(lease(BEFORE),)), [Kind.LEASE], id="lease not repeated"),
        pytest.param(replace(QUIET, leases=(lease(BEFORE),), whole=False), [], id="who knows what was said"),
        pytest.param(replace(QUIET, leases=(lease(BEFORE),), pools={"p": pool(BEFORE)}), [], id="pool not repeated"),
        pytest.param(replace(QUIET, leases=(lease(BEFORE),), **DOWN), [], id="lease while dockerd is down"),
        pytest.param(replace(QUIET, leases=(lease(ELSEWHERE),)), [], id="another host's lease"),
        pytest.param(replace(QUIET, leases=(lease("900:5000"),)), [], id="lease of an earlier release"),
        pytest.param(replace(QUIET, leases=(lease(BEFORE),), local=False), [], id="a swarm's lease"),
        pytest.param(replace(ASKED, leases=(lease(NOW),)), [Kind.LEASE], id="lease that Docker forgot"),
        pytest.param(
            replace(ASKED, leases=(lease(BEFORE),), docker={ID: told(addresses=("10.77.0.9",))}),
            [],
            id="lease that Docker has",
        ),
        pytest.param(
            replace(ASKED, leases=(lease(NOW),), docker={ID: told(), OTHER_ID: told(driver="bridge")}),
            [],
            id="perhaps of another driver's container",
        ),
        pytest.param(
            replace(
                ASKED,
                leases=(lease(NOW),),
                networks={"n": replace(NETWORK, gateways=(ipaddress.ip_interface("10.77.0.9/24"),))},
            ),
            [],
            id="a gateway's lease",
        ),
        # Networks and pools
        pytest.param(replace(QUIET, docker={ID: told()}), [], id="Docker has the network"),
        pytest.param(replace(ASKED, docker={}), [Kind.NETWORK], id="network gone"),
        pytest.param(replace(ASKED, docker={}, local=False), [], id="a swarm's network"),
        pytest.param(replace(ASKED, docker={}, **CLUSTER), [Kind.NETWORK], id="this host's of many"),
        pytest.param(
            replace(ASKED, docker={}, **CLUSTER, pools={"p": pool(ELSEWHERE)}), [], id="another host's network"
        ),
        pytest.param(replace(ASKED, networks={}, docker={}), [Kind.POOL], id="pool of nobody"),
        pytest.param(replace(ASKED, networks={}), [], id="pool for another driver"),
        pytest.param(
            replace(ASKED, networks={}, docker={}, pools={"p": pool(ELSEWHERE)}), [], id="another host's pool"
        ),
        pytest.param(
            replace(ASKED, networks={}, docker={}, pools={"p": replace(pool(), origin=Origin.API)}),
            [],
            id="an operator's pool",
        ),
    ],
)
def test_what_looks_abandoned(seen: Picture, found: list[Kind]) -> None:
    stale = find_stale(seen)
    assert [one.kind for one in stale] == found
    assert all(one.what and one.reason for one in stale)


@pytest.mark.parametrize("node", [HERE, "a/b@c:d", ""])
def test_an_incarnation_is_read_as_it_was_written(node: str) -> None:
    one = replace(NOW, node=node)
    assert Incarnation.parse(str(one)) == one


@pytest.mark.parametrize("text", ["", "900:5000", "900:5000@b00t", "x:5000@b/n", "900@b/n", "900:-1@b/n"])
def test_what_is_no_incarnation_is_nobody(text: str) -> None:
    assert Incarnation.parse(text) is None


class Watching(Reaper):
    """A reaper whose world is told, and where nothing happens but that it is noted."""

    def __init__(self, grace: float) -> None:
        settings = SimpleNamespace(reap_after=grace, docker_socket=Path("/run/ovsnet.sock"), docker_api=None)
        super().__init__(cast("Controller", SimpleNamespace(settings=settings)), cast("DockerDriver", None))
        self.seen: list[Stale] = []
        self.stays: OvsnetError | bool = True  # what becomes of a removal

    def find(self) -> list[Stale]:
        return self.seen

    def _remove(self, stale: Stale) -> bool:
        del stale
        if isinstance(self.stays, OvsnetError):
            raise self.stays
        return self.stays


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets monotonic time, and lets the wall clock jump by a day each time."""
    now = {"monotonic": 1000.0, "wall": 0.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["monotonic"])
    monkeypatch.setattr(time, "time", lambda: now["wall"])

    def to(seconds: float) -> None:
        now["monotonic"] = 1000.0 + seconds
        now["wall"] += 86400.0

    return to


ONE = Stale(Kind.ENDPOINT, ("k",), "endpoint k", "gone")
OTHER = Stale(Kind.LEASE, ("p", "a", "o"), "lease a", "gone")


def test_only_what_is_abandoned_all_the_time_goes(clock: Callable[[float], None]) -> None:
    reaper = Watching(60)
    for at, seen, removed in (
        (0, [ONE], []),
        (30, [ONE, OTHER], []),
        (59, [ONE, OTHER], []),
        (61, [ONE, OTHER], [ONE]),
        (75, [], []),  # somebody has the other one after all
        (91, [OTHER], []),
        (150, [OTHER], []),
        (152, [replace(OTHER, reason="gone in other words")], [OTHER.ref]),
    ):
        clock(at)
        reaper.seen = seen
        assert [one.ref for one in reaper.look()] == [getattr(one, "ref", one) for one in removed], at


@pytest.mark.parametrize("stays", [False, Unavailable("not now")])
def test_what_stays_has_its_time_again(clock: Callable[[float], None], stays: OvsnetError | bool) -> None:
    reaper = Watching(60)
    reaper.seen, reaper.stays = [ONE], stays
    for at in (0, 61):
        clock(at)
        assert reaper.look() == []
    reaper.stays = True
    for at, removed in ((62, []), (120, []), (122, [ONE])):
        clock(at)
        assert reaper.look() == removed, at


def test_once_is_never_enough(clock: Callable[[float], None]) -> None:
    reaper = Watching(0.1)
    reaper.seen = [ONE]
    clock(9999)
    assert reaper.look() == []


class Judging(Reaper):
    """A reaper that is shown pictures, and removes nothing."""

    def __init__(self, seen: Picture) -> None:
        settings = SimpleNamespace(reap_after=60.0, docker_socket=Path("/run/ovsnet.sock"), docker_api=None)
        super().__init__(cast("Controller", SimpleNamespace(settings=settings)), cast("DockerDriver", None))
        self.seen = seen

    def _picture(self, docker: Mapping[str, DockerNetwork] | None, *, ask: bool = False) -> Picture:
        if ask:
            docker = self._docker = self.seen.docker
        return replace(self.seen, docker=docker)


def test_what_is_watched_is_told_as_long_as_it_lasts() -> None:
    gone = replace(ASKED, docker={ID: told()}, endpoints=(of_docker(NOW),), leases=(lease(NOW),))
    reaper = Judging(gone)
    assert list(reaper.watched()) == []
    reaper.look()
    assert list(reaper.watched()) == []  # a request that passes through looks the same, once
    reaper.look()
    found = [one.action for one in reaper.watched()]
    assert [one.key.partition("/")[0] for one in found] == ["endpoint", "lease"]
    assert {(one.kind, one.where) for one in found} == {(plan.Kind.ABANDONED, plan.Where.REAPER)}
    assert all("60 s" in one.remedy and "Docker does not know it" in one.reason for one in found)
    assert all(one.act is None for one in reaper.watched())
    reaper.seen = replace(gone, endpoints=())  # it was deleted, and Docker has not been asked again
    assert [one.action.key.partition("/")[0] for one in reaper.watched()] == ["lease"]
    reaper.seen = replace(ASKED, docker={ID: told(ENDPOINT, addresses=("10.77.0.9",))}, leases=gone.leases)
    reaper.look()
    assert list(reaper.watched()) == []
