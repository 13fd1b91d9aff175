"""What a change makes of limits, of what was asked for, and of connections by ports that change."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from ovsnet.alter import _asked, _limits, to_forget
from ovsnet.errors import InvalidRequest
from ovsnet.model import MAX_RATE, Bandwidth, Endpoint, Forwarding, Origin, PublishedPort

ENDPOINT = Endpoint(
    uuid="e",
    network="n",
    network_name="blue",
    container="c",
    ifname="eth0",
    origin=Origin.CNI,
    node="a",
    sandbox="/ns",
    addresses=(ipaddress.ip_interface("10.0.0.2/24"),),
    mac="",
    mtu=1500,
    port="p",
    link="l",
    labels={"a": "b"},
    published=(PublishedPort.parse("tcp/80/80"),),
    bandwidth=Bandwidth(egress_rate=9),
)


@pytest.mark.parametrize(
    ("have", "given", "wanted"),
    [
        (Bandwidth(1, 2, 3, 4), {}, Bandwidth(1, 2, 3, 4)),
        (Bandwidth(1, 2, 3, 4), {"ingress_rate": 9}, Bandwidth(9, 2, 3, 4)),
        (Bandwidth(1, 2, 3, 4), {"ingress_rate": 0}, Bandwidth(0, 0, 3, 4)),
        (Bandwidth(1, 2, 3, 4), {"egress_burst": 0}, Bandwidth(1, 2, 3, 0)),
        (Bandwidth(), {"egress_rate": MAX_RATE, "egress_burst": 7}, Bandwidth(0, 0, MAX_RATE, 7)),
        (Bandwidth(), {"egress_burst": 7}, None),
        (Bandwidth(1, 2, 3, 4), {"ingress_rate": 0, "ingress_burst": 7}, None),
        (Bandwidth(), {"egress_rate": MAX_RATE + 1}, None),
        (Bandwidth(), {"egress_rate": -1}, None),
    ],
)
def test_limits(have: Bandwidth, given: dict[str, int], wanted: Bandwidth | None) -> None:
    if wanted is None:
        with pytest.raises(InvalidRequest):
            _limits(have, given)
    else:
        assert _limits(have, given) == wanted


def test_what_was_asked_for_is_remembered_until_it_is_so_again() -> None:
    assert (ENDPOINT.asked.published, ENDPOINT.asked.bandwidth) == (ENDPOINT.published, ENDPOINT.bandwidth)
    other = _asked(ENDPOINT, replace(ENDPOINT, published=()))
    assert (other.asked, other.published) == (ENDPOINT.asked, ())
    third = _asked(other, replace(other, bandwidth=Bandwidth(ingress_rate=5)))
    assert (third.asked, third.bandwidth) == (ENDPOINT.asked, Bandwidth(ingress_rate=5))
    assert _asked(third, replace(third, published=ENDPOINT.published, bandwidth=ENDPOINT.bandwidth)) == ENDPOINT
    docker = replace(ENDPOINT, origin=Origin.DOCKER)
    assert _asked(docker, replace(docker, published=())).labels == ENDPOINT.labels


def test_connections_stay_where_a_port_has_another_end_and_end_where_it_has_none() -> None:
    def leads(port: str, address: str) -> Forwarding:
        return Forwarding(PublishedPort.parse(port), ipaddress.ip_address(address))

    blue = [leads(port, "10.0.0.2") for port in ("tcp/80/80", "udp/53/53", "tcp/81/81")]
    green = [leads(port, "10.0.0.3") for port in ("tcp/80/8080", "udp/53/53")]
    assert set(to_forget(blue, green)) == {blue[2], green[1]}
    assert set(to_forget([leads("tcp/80/80", "fd00::2")], green)) == {leads("tcp/80/80", "fd00::2"), green[1]}
