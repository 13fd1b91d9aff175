"""What was asked of an interface survives its writing down."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest

from ovsnet import wiring
from ovsnet.model import AttachRequest, Endpoint, Origin, Route

NET, NET6 = ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")
HOP, HOP6 = ipaddress.ip_address("10.1.0.1"), ipaddress.ip_address("fd00::1")
PLAIN = AttachRequest("n", "c", "eth0", "/run/netns/c")


def endpoint(kept: str) -> Endpoint:
    return Endpoint(
        uuid="e",
        network="n",
        network_name="blue",
        container="c",
        ifname="eth0",
        origin=Origin.CNI,
        node="here",
        sandbox="/run/netns/c",
        addresses=(),
        mac="",
        mtu=1500,
        port="onp0",
        link="eth0",
        labels={},
        wiring=kept,
    )


@pytest.mark.parametrize(
    "asked",
    [
        {"routes": (Route(NET), Route(NET6, HOP6))},
        {"routes": (Route(NET, HOP, mtu=1400, advmss=1300, priority=7, table=99, scope=0), Route(NET, scope=253))},
        {"default_route": False},
        {"sysctls": {"net/ipv4/conf/eth0/rp_filter": "0"}, "promiscuous": True},
    ],
)
def test_what_was_asked_comes_back(asked: dict[str, object]) -> None:
    request = dataclasses.replace(PLAIN, **asked)  # type: ignore[arg-type]
    assert wiring.load(endpoint(wiring.dump(request))) == request


def test_nothing_is_kept_of_a_plain_request() -> None:
    assert wiring.dump(PLAIN) == ""
    assert wiring.load(endpoint("")) == PLAIN
