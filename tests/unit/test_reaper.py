"""What looks abandoned, and what stays because it is not sure: one table, without anything real behind it."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest

from ovsnet.docker import REQUESTER
from ovsnet.dockerd import DockerNetwork, Incarnation
from ovsnet.model import Endpoint, Lease, LeaseOwner, Network, Origin, OwnerKind, Pool
from ovsnet.reaper import Kind, Picture, find_stale

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
