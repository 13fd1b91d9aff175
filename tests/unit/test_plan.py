"""What differs, and what is done about it: one picture where all is well, and what each thing that goes wrong makes of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace

import pytest

from ovsnet.link import LinkInfo
from ovsnet.model import OWN_TAG, Bandwidth, Endpoint, Network, Origin, PortRole, SwitchPort, SwitchState
from ovsnet.names import DeviceNames, mac_for
from ovsnet.plan import Action, Actual, Desired, Kind, Presence, Sandbox, diff

NAMES = DeviceNames("on")
GATEWAY, GATEWAY6 = ipaddress.ip_interface("10.1.0.1/24"), ipaddress.ip_interface("fd01::1/64")
ADDRESS = ipaddress.ip_interface("10.1.0.2/24")
LINK_LOCAL = ipaddress.ip_interface("fe80::1/64")
PORT, SPARE, STRAY = (f"onp{digit * 10}" for digit in "123")
GATE = NAMES.gateway("blue-uuid")

BLUE = Network(
    uuid="blue-uuid",
    name="blue",
    bridge="br",
    tag=5,
    mtu=1500,
    pools=(),
    gateways=(GATEWAY, GATEWAY6),
    internal=False,
    origin=Origin.API,
    docker_ids=frozenset(),
    labels={},
)
WEB = Endpoint(
    uuid="web-uuid",
    network="blue-uuid",
    network_name="blue",
    container="web",
    ifname="eth0",
    origin=Origin.CNI,
    node="here",
    sandbox="/run/netns/web",
    addresses=(ADDRESS,),
    mac=mac_for(ADDRESS.ip),
    mtu=1500,
    port=PORT,
    link="eth0",
    labels={},
)


def port(name: str, role: PortRole, **other: object) -> SwitchPort:
    return replace(SwitchPort(name, "br", 5, 1500, role, "blue-uuid", ifindex=7), **other)  # type: ignore[arg-type]


def device(name: str, **other: object) -> LinkInfo:
    plain = LinkInfo(
        name=name,
        ifindex=7,
        mac="02:00:00:00:00:07",
        mtu=1500,
        up=True,
        carrier=True,
        lower=None,
        kind="tun",
        addresses=(),
        arp=False,
        carries=True,
    )
    return replace(plain, **other)  # type: ignore[arg-type]


WEB_PORT = port(PORT, PortRole.ENDPOINT, endpoint="web-uuid")
GATE_PORT = port(GATE, PortRole.GATEWAY)
WEB_DEVICE = device(PORT)
GATE_DEVICE = device(GATE, mac=mac_for(GATEWAY.ip), addresses=(GATEWAY, GATEWAY6, LINK_LOCAL), arp=True, carries=False)
WEB_LINK = device("eth0", lower=7, kind="macvlan", arp=True, addresses=(ADDRESS,))


class Picture:
    """The two sides, to be changed; as it is made, nothing differs."""

    def __init__(self) -> None:
        self.networks = {"blue-uuid": BLUE}
        self.endpoints = [WEB]
        self.bridges = {"br"}
        self.ports = {PORT: WEB_PORT, GATE: GATE_PORT, SPARE: port(SPARE, PortRole.SPARE)}
        self.foreign = {"eth9", "onp-not-ours"}
        self.devices = {PORT: WEB_DEVICE, GATE: GATE_DEVICE, SPARE: device(SPARE, carries=False), "lo": device("lo")}
        self.sandboxes = {"web-uuid": Sandbox(Presence.HERE, WEB_LINK)}
        self.shelved = {SPARE}
        self.limited: set[str] = set()
        self.forwarding = self.filtered = True

    def diff(self) -> list[Action]:
        names = frozenset(self.ports) | self.foreign
        actual = Actual(
            switch=SwitchState(frozenset(self.bridges), self.ports, names),
            devices=self.devices,
            sandboxes=self.sandboxes,
            forwarding=self.forwarding,
            limited=frozenset(self.limited),
            shelved=frozenset(self.shelved),
            filtered=self.filtered,
        )
        return diff(Desired(self.networks, frozenset(self.networks), tuple(self.endpoints), NAMES), actual)

    def endpoint(self, **other: object) -> None:
        """Changes the endpoint as the store has it."""
        self.endpoints = [replace(WEB, **other)]  # type: ignore[arg-type]

    def port(self, name: str, **other: object) -> None:
        """Changes a port."""
        self.ports[name] = replace(self.ports[name], **other)  # type: ignore[arg-type]

    def device(self, name: str, **other: object) -> None:
        """Changes a device."""
        self.devices[name] = replace(self.devices[name], **other)  # type: ignore[arg-type]

    def docker(self, presence: Presence, link: LinkInfo | None) -> None:
        """Makes the endpoint Docker's."""
        self.endpoint(origin=Origin.DOCKER, ifname="", link="onc1111111111")
        self.sandboxes["web-uuid"] = Sandbox(presence, link)


def docker_without_link(picture: Picture, presence: Presence, *, carries: bool = False, on_host: bool = False) -> None:
    picture.docker(presence, None)
    picture.device(PORT, carries=carries)
    if on_host:
        picture.devices["onc1111111111"] = device("onc1111111111", kind="macvlan")


Change = Callable[[Picture], object]


def both(*changes: Change) -> Change:
    return lambda picture: [change(picture) for change in changes]


CASES: list[tuple[Change, list[tuple[Kind, bool]]]] = [
    (lambda p: p.bridges, []),
    # bridges and gateways
    (lambda p: p.bridges.clear(), [(Kind.BRIDGE_MISSING, True)]),
    (both(lambda p: p.ports.pop(GATE), lambda p: p.devices.pop(GATE)), [(Kind.GATEWAY_MISSING, True)]),
    (both(lambda p: p.ports.pop(GATE), lambda p: p.foreign.add(GATE)), [(Kind.PORT_FOREIGN, False)]),
    (lambda p: p.devices.pop(GATE), [(Kind.GATEWAY_MISSING, True)]),
    (both(lambda p: p.devices.pop(GATE), lambda p: setattr(p, "forwarding", False)), [(Kind.GATEWAY_MISSING, False)]),
    (lambda p: p.port(GATE, tag=6), [(Kind.GATEWAY_WRONG, True)]),
    (lambda p: p.port(GATE, bridge="other"), [(Kind.GATEWAY_WRONG, True)]),
    (lambda p: p.port(GATE, role=PortRole.ENDPOINT), [(Kind.GATEWAY_WRONG, True)]),
    (lambda p: p.device(GATE, addresses=(GATEWAY, GATEWAY6, ADDRESS)), [(Kind.GATEWAY_WRONG, True)]),
    (lambda p: p.device(GATE, addresses=(LINK_LOCAL,)), [(Kind.GATEWAY_WRONG, True)] * 2),
    (lambda p: p.device(GATE, mac="02:00:00:00:00:01", mtu=1400, up=False), [(Kind.GATEWAY_WRONG, True)] * 3),
    # ports
    (both(lambda p: p.ports.pop(PORT), lambda p: p.devices.pop(PORT)), [(Kind.PORT_MISSING, True)]),
    (both(lambda p: p.ports.pop(PORT), lambda p: p.foreign.add(PORT)), [(Kind.PORT_FOREIGN, False)]),
    (lambda p: p.port(PORT, bridge="other"), [(Kind.PORT_ELSEWHERE, True)]),
    (lambda p: p.port(PORT, tag=0), [(Kind.PORT_WRONG, True)]),
    (lambda p: p.port(PORT, trunk=(7,)), [(Kind.PORT_TRUNKED, True)]),
    (lambda p: p.port(PORT, vlan_mode="trunk"), [(Kind.PORT_TRUNKED, True)]),
    (lambda p: p.port(GATE, vlan_mode="trunk"), [(Kind.GATEWAY_WRONG, True)]),
    (
        both(
            lambda p: p.endpoint(trunk=(7,)),
            lambda p: p.port(PORT, trunk=(7,), vlan_mode="native-untagged"),
        ),
        [],
    ),
    (lambda p: p.endpoint(trunk=(7, 8)), [(Kind.PORT_TRUNKED, True)]),
    (lambda p: p.port(PORT, role=PortRole.SPARE, endpoint=""), [(Kind.PORT_UNMARKED, True)]),
    (lambda p: p.port(PORT, network="", endpoint=""), [(Kind.PORT_UNMARKED, True)]),
    # devices
    (lambda p: p.devices.pop(PORT), [(Kind.DEVICE_MISSING, True)]),
    (both(lambda p: p.devices.pop(PORT), lambda p: setattr(p, "forwarding", False)), [(Kind.DEVICE_MISSING, False)]),
    (both(lambda p: p.devices.pop(PORT), lambda p: p.port(PORT, error="no room")), [(Kind.DEVICE_MISSING, True)]),
    (lambda p: p.device(PORT, up=False), [(Kind.DEVICE_WRONG, True)]),
    (lambda p: p.device(PORT, arp=True, mtu=1400, addresses=(LINK_LOCAL,)), [(Kind.DEVICE_WRONG, True)]),
    # links
    (lambda p: p.sandboxes.update({"web-uuid": Sandbox(Presence.HERE)}), [(Kind.LINK_FOREIGN, False)]),
    (
        both(
            lambda p: p.sandboxes.update({"web-uuid": Sandbox(Presence.HERE)}),
            lambda p: p.device(PORT, carries=False),
        ),
        [(Kind.LINK_MISSING, True)],
    ),
    (lambda p: p.sandboxes.update({"web-uuid": Sandbox(Presence.GONE)}), [(Kind.NAMESPACE_GONE, False)]),
    (
        lambda p: p.sandboxes.update({"web-uuid": Sandbox(Presence.HERE, replace(WEB_LINK, lower=8))}),
        [(Kind.LINK_FOREIGN, False)],
    ),
    (
        both(
            lambda p: p.sandboxes.update({"web-uuid": Sandbox(Presence.HERE, replace(WEB_LINK, addresses=()))}),
            lambda p: p.port(PORT, role=PortRole.SPARE, endpoint=""),
        ),
        [(Kind.LINK_UNFINISHED, True)],
    ),
    (lambda p: p.sandboxes.update({"web-uuid": Sandbox(Presence.HERE, replace(WEB_LINK, addresses=()))}), []),
    (lambda p: p.docker(Presence.HERE, WEB_LINK), []),
    (lambda p: docker_without_link(p, Presence.HERE), [(Kind.LINK_MISSING, True)]),
    (lambda p: docker_without_link(p, Presence.NONE), [(Kind.LINK_MISSING, True)]),
    (lambda p: docker_without_link(p, Presence.NONE, carries=True), []),  # on its way, up already
    (lambda p: docker_without_link(p, Presence.HERE, on_host=True), []),  # not moved yet
    (lambda p: p.docker(Presence.GONE, None), [(Kind.NAMESPACE_GONE, False)]),
    # limits and rules
    (lambda p: p.endpoint(bandwidth=Bandwidth(egress_rate=9)), [(Kind.LIMIT_WRONG, True)]),
    (lambda p: p.port(PORT, rate=9), [(Kind.LIMIT_WRONG, True)]),
    # a VLAN of its own
    (lambda p: p.endpoint(labels={OWN_TAG: "42"}), [(Kind.PORT_WRONG, True)]),
    (both(lambda p: p.endpoint(labels={OWN_TAG: "42"}), lambda p: p.port(PORT, tag=42)), []),
    (both(lambda p: p.endpoint(labels={OWN_TAG: "0"}), lambda p: p.port(PORT, tag=0)), []),
    (lambda p: p.endpoint(bandwidth=Bandwidth(ingress_rate=9)), [(Kind.LIMIT_WRONG, True)]),
    (both(lambda p: p.endpoint(bandwidth=Bandwidth(ingress_rate=9)), lambda p: p.limited.add(PORT)), []),
    (lambda p: setattr(p, "filtered", False), [(Kind.RULES_WRONG, True)]),
    # strays
    (lambda p: p.endpoints.clear(), [(Kind.PORT_STRAY, True)]),
    (lambda p: p.shelved.clear(), [(Kind.PORT_STRAY, True)]),
    (lambda p: p.ports.update({STRAY: port(STRAY, PortRole.GATEWAY)}), [(Kind.PORT_STRAY, True)]),
    (lambda p: p.networks.update({"blue-uuid": replace(BLUE, gateways=())}), [(Kind.PORT_STRAY, True)]),
    (lambda p: p.devices.update({STRAY: device(STRAY, carries=False)}), [(Kind.DEVICE_STRAY, True)]),
    (lambda p: p.devices.update({STRAY: device(STRAY)}), [(Kind.DEVICE_STRAY, False)]),
    (lambda p: p.devices.update({"onp-else": device("onp-else", carries=False)}), []),
    # what was made while we looked
    (lambda p: p.sandboxes.clear(), []),
]


@pytest.mark.parametrize(("change", "expected"), CASES)
def test_what_differs(change: Change, expected: list[tuple[Kind, bool]]) -> None:
    picture = Picture()
    change(picture)
    found = picture.diff()
    assert [(one.kind, bool(one.remedy)) for one in found] == expected
    assert all((one.target and one.reason and one.key) or one.kind is Kind.RULES_WRONG for one in found)


def test_bridges_come_first_and_strays_last() -> None:
    picture = Picture()
    picture.bridges.clear()
    picture.ports = {STRAY: port(STRAY, PortRole.SPARE)}
    picture.devices.clear()
    picture.filtered = False
    kinds = [one.kind for one in picture.diff()]
    assert kinds == [Kind.BRIDGE_MISSING, Kind.PORT_MISSING, Kind.RULES_WRONG, Kind.PORT_STRAY]


@pytest.mark.parametrize("networks", [{}, {"red-uuid": replace(BLUE, uuid="red-uuid", name="red", gateways=())}])
def test_an_empty_or_foreign_store_takes_no_wire(networks: dict[str, Network]) -> None:
    picture = Picture()
    picture.networks, picture.endpoints, picture.sandboxes = networks, [], {}
    picture.shelved.clear()
    removed = {one.key for one in picture.diff() if one.remedy}
    assert removed == {SPARE}  # nobody's, whatever the store knows


def test_the_last_gateway_of_a_network_that_is_gone_goes() -> None:
    picture = Picture()
    picture.networks = {"red-uuid": replace(BLUE, uuid="red-uuid", name="red", gateways=())}
    picture.endpoints, picture.ports = [], {GATE: GATE_PORT}
    picture.devices = {GATE: GATE_DEVICE}
    assert [(one.kind, one.key, bool(one.remedy)) for one in picture.diff()] == [(Kind.PORT_STRAY, GATE, True)]
    picture.networks = {}
    assert not any(one.remedy for one in picture.diff())


def test_what_a_request_makes_is_given_time() -> None:
    picture = Picture()
    picture.endpoints, picture.shelved = [], set()
    picture.devices[STRAY] = device(STRAY, carries=False)
    patience = {one.key: one.patience for one in picture.diff()}
    assert 0 < patience[PORT] < Desired({}, frozenset(), (), NAMES).deadline < patience[SPARE]
    assert patience[STRAY] > patience[PORT]


def test_a_lost_device_is_told_with_vswitchds_words() -> None:
    picture = Picture()
    del picture.devices[PORT]
    picture.port(PORT, error="could not open network device")
    (found,) = picture.diff()
    assert "could not open network device" in found.reason
