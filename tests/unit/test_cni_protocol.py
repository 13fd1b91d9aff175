"""The CNI protocol's tables: what is read from a configuration, what is refused, what results look like per version."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest

from cni import errors as codes
from cni import netconf, protocol, wire
from cni.errors import ERROR_CODES, CniError
from cni.protocol import Call
from ovsnet import errors
from ovsnet.model import (
    AddressRange,
    Attachment,
    AttachRequest,
    Bandwidth,
    Endpoint,
    IPAddress,
    Network,
    NetworkSpec,
    Origin,
    PoolSpec,
    PublishedPort,
    Route,
)

ENVIRONMENT = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0"}
SUBNET = {"type": "ovsnet-ipam", "subnet": "10.1.0.0/16"}
DOCS = Path(__file__).parents[2] / "docs" / "cni.md"


def ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def call(config: dict[str, Any] | None = None, environment: dict[str, str] | None = None) -> Call:
    config = {"cniVersion": "1.0.0", "name": "blue", "type": "ovsnet"} | (config or {})
    return Call(ENVIRONMENT | (environment or {}), protocol.load(json.dumps(config).encode()), config["cniVersion"])


def request(config: dict[str, Any] | None = None, **environment: str) -> AttachRequest:
    return protocol.parse_add(call(config, environment)).request


def created(config: dict[str, Any]) -> NetworkSpec:
    spec = request(config).create
    assert spec is not None
    return spec


# -- The body


@pytest.mark.parametrize("stdin", [b"", b"{}", b"\0", b"A=B\0\0", "ü".encode()])
@pytest.mark.parametrize("environment", [{}, {"CNI_ARGS": "A=B;C=ü"}, {"CNI_COMMAND": "", "CNI_PATH": "/a:/b"}])
def test_a_body_comes_back_as_it_went(environment: dict[str, str], stdin: bytes) -> None:
    assert wire.decode(wire.encode(environment | {"PATH": "/bin"}, stdin)) == (environment, stdin)


@pytest.mark.parametrize("body", [b"", b"CNI_X=1", b"CNI_X=1\0", b"CNI_X\0\0", b"PATH=1\0\0", b"CNI_X=\xff\0\0"])
def test_a_body_of_another_form_is_refused(body: bytes) -> None:
    with pytest.raises(errors.InvalidRequest):
        wire.decode(body)


# -- What ADD asks


def test_the_least_configuration_joins_the_network_of_its_name() -> None:
    assert request() == AttachRequest(
        network="blue", container="c1", ifname="eth0", netns="/run/netns/x", reserved_for=("c1",), config="blue"
    )


def test_everything_at_once() -> None:
    config = {
        "network": "green",
        "bridge": "br1",
        "vlan": 20,
        "mtu": 1400,
        "isGateway": True,
        "isDefaultGateway": False,
        "ipam": SUBNET | {"rangeStart": "10.1.1.0", "gateway": "10.1.0.254", "routes": [{"dst": "10.9.1.1/8"}]},
        "args": {"cni": {"ips": ["10.1.1.7"], "labels": [{"key": "app", "value": "web"}]}, "other": 1},
        "runtimeConfig": {
            "mac": "02-00-00-00-00-0A",
            "aliases": ["x"],
            "bandwidth": {"ingressRate": 8000, "ingressBurst": 16000, "egressRate": 9000, "other": None},
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": ""},
                {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1", "x": 1},
            ],
        },
        "capabilities": {"mac": True},
        "disableCheck": True,
        "cni.dev/valid-attachments": [],
        "ipMasq": True,
        "vlanTrunk": [{"minID": 30, "maxID": 32}, {"id": 7}],
        "promiscMode": True,
        "hairpinMode": True,
        "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1", "net/ipv6/conf/eth0/accept_ra": "0"},
        "log_level": "debug",
        "dns": None,
    }
    assert request(config, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=p;IP=10.1.1.8;X=y") == AttachRequest(
        network="green",
        container="c1",
        ifname="eth0",
        netns="/run/netns/x",
        create=NetworkSpec(
            name="green",
            bridge="br1",
            tag=20,
            mtu=1400,
            subnets=(
                PoolSpec(
                    subnet=ipaddress.ip_network("10.1.0.0/16"),
                    gateway=ip("10.1.0.254"),
                    ranges=(AddressRange(ip("10.1.1.0"), ip("10.1.255.254")),),
                    origin=Origin.CNI,
                ),
            ),
            origin=Origin.CNI,
            masquerade=True,
        ),
        addresses=(ip("10.1.1.7"),),
        mac="02:00:00:00:00:0a",
        mtu=1400,
        routes=(Route(ipaddress.ip_network("10.0.0.0/8"), ip("10.1.0.254")),),
        default_route=False,
        reserved_for=("default/p", "c1"),
        labels={"k8s-pod-name": "p", "app": "web"},
        config="blue",
        trunk=(7, 30, 31, 32),
        promiscuous=True,
        sysctls={"net/ipv4/conf/eth0/arp_notify": "1", "net/ipv6/conf/eth0/accept_ra": "0"},
        aliases=("x",),
        bandwidth=Bandwidth(8000, 16000, 9000, 0),
        published=(PublishedPort.parse("tcp/8080/80"), PublishedPort.parse("udp/192.0.2.1/53/53")),
    )


def test_pools_by_name() -> None:
    assert created({"ipam": {"type": "ovsnet-ipam", "pool": "four"}}).pools == ("four",)
    assert created({"ipam": {"type": "ovsnet-ipam", "pool": ["four", "six"]}}).pools == ("four", "six")


def test_ranges_from_the_runtime() -> None:
    pools = created({"runtimeConfig": {"ipRanges": [[{"subnet": "10.5.0.0/24", "rangeStart": "10.5.0.9"}]]}}).subnets
    assert [str(pool.subnet) for pool in pools] == ["10.5.0.0/24"]


def test_names_as_podman_has_them() -> None:
    assert request({"runtimeConfig": {"aliases": {"blue": ["a", "b"], "green": ["a"]}}}).aliases == ("a", "b")


def test_the_runtimes_dns_beats_the_configurations() -> None:
    config = {"dns": {"nameservers": ["10.0.0.1"], "domain": "x"}, "runtimeConfig": {"dns": {"servers": ["10.0.0.2"]}}}
    assert protocol.parse_add(call(config)).dns == {"nameservers": ["10.0.0.2"], "domain": "x"}


def test_dual_stack_by_two_range_sets() -> None:
    v6 = {"subnet": "fd00::/64", "rangeEnd": "fd00::ff"}
    four = [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.9"}, {"subnet": "10.1.0.0/24"}]
    pools = created({"ipam": {"type": "ovsnet-ipam", "ranges": [four, [v6]]}}).subnets
    assert [str(pool.subnet) for pool in pools] == ["10.1.0.0/24", "fd00::/64"]
    assert pools[0].ranges == ()  # the second range is the whole subnet
    assert pools[1].ranges == (AddressRange(ip("fd00::1"), ip("fd00::ff")),)


def test_a_subnet_of_one_address_has_a_range() -> None:
    pools = created({"ipam": {"type": "ovsnet-ipam", "subnet": "10.1.0.1/32", "rangeStart": "10.1.0.1"}}).subnets
    assert pools[0].ranges == (AddressRange(ip("10.1.0.1"), ip("10.1.0.1")),)


@pytest.mark.parametrize(
    ("runtime", "args", "cni_args", "expected"),
    [
        (["10.1.0.3/16"], ["10.1.0.4"], "IP=10.1.0.5", ("10.1.0.3",)),
        ([], ["10.1.0.4", "fd00::4"], "IP=10.1.0.5", ("10.1.0.4", "fd00::4")),
        (None, None, "IP=10.1.0.5,fd00::5/64", ("10.1.0.5", "fd00::5")),
        (None, None, "", ()),
    ],
)
def test_who_asks_for_addresses_first(runtime: Any, args: Any, cni_args: str, expected: tuple[str, ...]) -> None:
    config = {"runtimeConfig": {"ips": runtime}, "args": {"cni": {"ips": args}}}
    assert request(config, CNI_ARGS=cni_args).addresses == tuple(ip(text) for text in expected)


@pytest.mark.parametrize(
    ("config", "internal"),
    [({}, False), ({"internal": True}, True), ({"isGateway": False}, True), ({"isGateway": True}, False)],
)
def test_internal_in_both_words(config: dict[str, Any], internal: bool) -> None:
    assert created({"ipam": SUBNET} | config).internal is internal


@pytest.mark.parametrize(
    ("routes", "config", "kept", "default_route"),
    [
        ([], {}, [], True),
        ([], {"isDefaultGateway": False}, [], False),
        ([{"dst": "0.0.0.0/0"}], {}, [], True),
        ([{"dst": "0.0.0.0/0", "gw": "10.1.0.9"}], {}, ["10.1.0.9"], False),
        ([{"dst": "10.9.0.0/16", "gw": "10.1.0.9"}], {}, ["10.1.0.9"], True),
    ],
)
def test_default_route(routes: list[Any], config: dict[str, Any], kept: list[str], default_route: bool) -> None:
    asked = request({"ipam": SUBNET | {"routes": routes}} | config)
    assert [str(route.gateway) for route in asked.routes] == kept
    assert asked.default_route is default_route


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        ({"name": None}, 7, "no name"),
        ({"name": "a b"}, 7, "not valid"),
        ({"network": 5}, 7, "network is not a string"),
        ({"vlann": 3}, 7, "did you mean 'vlan'"),
        ({"zzz": 3}, 7, "known: antiSpoofing, args, bridge"),
        ({"vlan": "3", "ipam": SUBNET}, 7, "vlan: "),
        ({"vlan": 4095, "ipam": SUBNET}, 7, "VLAN tag 4095"),
        ({"vlan": 3}, 7, "vlan without ipam.subnet"),
        ({"bridge": "a/b", "ipam": SUBNET}, 7, "interface name"),
        ({"mtu": 20}, 7, "MTU 20"),
        ({"internal": True, "isGateway": True, "ipam": SUBNET}, 7, "contradict"),
        ({"ipam": []}, 7, "ipam: Input should be an object"),
        ({"ipam": {"subnet": "10.1.0.0/16"}}, 7, "ipam.type"),
        ({"ipam": {"type": "../host-local"}}, 7, "ovsnet-ipam"),
        ({"ipam": SUBNET | {"dataDir": "/x"}}, 7, "ipam: unknown key 'dataDir'"),
        ({"ipam": SUBNET | {"subnet": "10.1.0.1/16"}}, 7, "host bits"),
        ({"ipam": SUBNET | {"subnet": 10}}, 7, "ipam.subnet: "),
        ({"ipam": SUBNET | {"rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.3"}}, 7, "address range"),
        ({"ipam": {"type": "ovsnet-ipam", "gateway": "10.1.0.1"}}, 7, "no subnet"),
        ({"ipam": SUBNET | {"ranges": [[{"subnet": "10.2.0.0/16"}]]}}, 7, "two subnets of one family"),
        ({"ipam": {"type": "ovsnet-ipam", "ranges": [[]]}}, 7, "ipam.ranges[0]"),
        (
            {"ipam": {"type": "ovsnet-ipam", "ranges": [[{"subnet": "10.2.0.0/16"}, {"subnet": "fd00::/64"}]]}},
            7,
            "several subnets",
        ),
        ({"ipam": SUBNET | {"routes": [{"dst": "10.9.0.0/16"}]}}, 7, "no next hop"),
        ({"ipam": SUBNET | {"routes": [{"dst": "10.9.0.0/16", "gw": "fd00::1"}]}}, 7, "cannot go by"),
        (
            {"ipam": SUBNET | {"routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.9"}]}, "isDefaultGateway": True},
            7,
            "isDefaultGateway",
        ),
        ({"dns": {"nameservers": "10.1.0.1"}}, 7, "dns.nameservers"),
        ({"prevResult": [1]}, 7, "prevResult"),
        ({"runtimeConfig": {"ips": ["x"]}}, 7, "runtimeConfig.ips[0]"),
        ({"runtimeConfig": {"ips": ["10.1.0.1", "10.1.0.2"]}}, 7, "one family"),
        ({"runtimeConfig": {"mac": "01:00:00:00:00:01"}}, 7, "MAC"),
        ({"vlanTrunk": [{"id": 0}]}, 7, "0 to 0 are no VLANs"),
        ({"vlanTrunk": [{"id": 4095}]}, 7, "VLAN tag 4095 is not one"),
        ({"vlanTrunk": [{"minID": 9, "maxID": 3}]}, 7, "9 to 3 are no VLANs"),
        ({"vlanTrunk": [{"minID": 9}]}, 7, "either id, or minID and maxID"),
        ({"vlanTrunk": [{"id": 4, "minID": 9, "maxID": 12}]}, 7, "either id, or minID and maxID"),
        ({"vlanTrunk": [{"ID": 4}]}, 7, "unknown key 'ID', known: id"),
        ({"sysctl": {"net.ipv4.ip_forward": "1"}}, 7, "is not for this plugin to set"),
        ({"sysctl": {"net.ipv4.conf.all.rp_filter": "0"}}, 7, "is not for this plugin to set"),
        ({"sysctl": {"net.ipv4.conf.eth1.rp_filter": "0"}}, 7, "is not for this plugin to set"),
        ({"sysctl": {"net/ipv4/conf/../../x/rp_filter": "0"}}, 7, "is not for this plugin to set"),
        ({"sysctl": {"kernel.panic": "1"}}, 7, "is not for this plugin to set"),
        ({"sysctl": {"net.ipv4.conf.IFNAME.rp_filter": ""}}, 7, "has the value ''"),
        ({"log_level": "loud"}, 7, "log_level"),
        ({"linkFirst": True}, 7, "linkFirst, and the addresses are ovsnet's own"),
        ({"ipam": {"type": "dhcp"}, "isGateway": True}, 7, "cannot be its gateway"),
        ({"ipam": {"type": "dhcp"}, "ipMasq": True}, 7, "cannot be its gateway"),
        ({"ipMasq": "yes"}, 7, "ipMasq"),
        ({"ipMasq": True}, 7, "ipMasq without ipam.subnet"),
        ({"ipam": {"type": "ovsnet-ipam", "pool": []}}, 7, "ipam.pool"),
        ({"ipam": {"type": "ovsnet-ipam", "pool": "p", "subnet": "10.0.0.0/8"}}, 7, "a pool and a subnet"),
        ({"runtimeConfig": {"aliases": "a"}}, 7, "aliases"),
        ({"runtimeConfig": {"bandwidth": {"ingressBurst": 1}}}, 7, "bandwidth: ingressBurst without ingressRate"),
        ({"runtimeConfig": {"bandwidth": {"egressRate": -1}}}, 7, "bandwidth.egressRate: "),
        ({"runtimeConfig": {"bandwidth": {"egressRate": 1e9}}}, 7, "bandwidth.egressRate: "),
        ({"runtimeConfig": {"bandwidth": {"egressRate": 10**13}}}, 7, "up to 1000000000000"),
    ],
)
def test_a_wrong_configuration_is_refused_in_words(config: dict[str, Any], code: int, words: str) -> None:
    with pytest.raises((CniError, errors.InvalidRequest)) as caught:
        request(config)
    error = CniError.of(caught.value) if isinstance(caught.value, errors.OvsnetError) else caught.value
    assert isinstance(error, CniError)
    assert error.code == code
    assert words in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CNI_CONTAINERID", ""),
        ("CNI_CONTAINERID", "-x"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_IFNAME", ""),
        ("CNI_IFNAME", "longer-than-15-bytes"),
        ("CNI_IFNAME", ".."),
        ("CNI_NETNS", ""),
        ("CNI_ARGS", "IP"),
        ("CNI_ARGS", "IP=x"),
        ("CNI_ARGS", "MAC=x"),
        ("CNI_ARGS", "FOO=1"),
    ],
)
def test_a_wrong_environment_is_code_4(name: str, value: str) -> None:
    with pytest.raises(CniError) as caught:
        protocol.parse_add(call(environment={name: value}))
    assert caught.value.code == codes.INVALID_ENVIRONMENT
    assert name in caught.value.message
    assert caught.value.hint


def test_del_looks_at_nothing_but_the_key() -> None:
    config = {"ipam": "?", "vlann": 1, "network": "green", "prevResult": 3}
    key = protocol.attachment(call(config, {"CNI_NETNS": "", "CNI_ARGS": "?"}))
    assert (key.network, key.container, key.ifname) == ("green", "c1", "eth0")


@pytest.mark.parametrize(
    "stdin", [b"", b"\xff", b"[]", b"3", b"{", b'{"a": NaN}', b"[" * 100_000, b'{"a":' * 100_000, b"{}{}"]
)
def test_undecodable_stdin_is_code_6(stdin: bytes) -> None:
    with pytest.raises(CniError) as caught:
        protocol.load(stdin)
    assert caught.value.code == codes.CANNOT_DECODE


# -- Versions


def test_no_version_means_the_first() -> None:
    assert protocol.version_of({}) == "0.1.0"
    with pytest.raises(CniError):
        protocol.version_of({"cniVersion": 1})


@pytest.mark.parametrize(
    ("version", "command", "fine"),
    [
        ("1.1.0", "ADD", True),
        ("0.1.0", "DEL", True),
        ("1.2.0", "ADD", False),
        ("", "ADD", False),
        ("0.3.1", "CHECK", False),
        ("0.4.0", "CHECK", True),
        ("1.0.0", "STATUS", False),
        ("1.1.0", "GC", True),
    ],
)
def test_versions_and_commands(version: str, command: str, fine: bool) -> None:
    asked = call({"cniVersion": version}, {"CNI_COMMAND": command})
    if fine:
        protocol.check_version(asked)
    else:
        with pytest.raises(CniError) as caught:
            protocol.check_version(asked)
        assert caught.value.code == codes.INCOMPATIBLE_VERSION


# -- Results

ATTACHMENT = Attachment(
    endpoint=Endpoint(
        uuid="e",
        network="n",
        network_name="blue",
        container="c1",
        ifname="eth0",
        origin=Origin.CNI,
        node="here",
        sandbox="/run/netns/x",
        addresses=(ipaddress.ip_interface("10.1.0.2/16"), ipaddress.ip_interface("fd00::2/64")),
        mac="02:6f:0a:01:00:02",
        mtu=1500,
        port="onp0",
        link="eth0",
        labels={},
    ),
    network=Network(
        uuid="n",
        name="blue",
        bridge="ovsbr0",
        tag=1,
        mtu=1500,
        pools=(),
        gateways=(),
        internal=False,
        origin=Origin.CNI,
        docker_ids=frozenset(),
        labels={},
    ),
    gateways=(ip("10.1.0.1"), None),
    routes=(
        Route(ipaddress.ip_network("0.0.0.0/0"), ip("10.1.0.1")),
        Route(ipaddress.ip_network("fd01::/64")),
    ),
)
DNS = {"nameservers": ["10.1.0.1"]}
ROUTES = [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "fd01::/64"}]
INTERFACE = {"name": "eth0", "mac": "02:6f:0a:01:00:02", "sandbox": "/run/netns/x"}
IP4 = {"address": "10.1.0.2/16", "gateway": "10.1.0.1", "interface": 0}
IP6 = {"address": "fd00::2/64", "interface": 0}


def test_result_before_0_3_0() -> None:
    for version in ("0.1.0", "0.2.0"):
        assert protocol.render(ATTACHMENT, DNS, version) == {
            "cniVersion": version,
            "ip4": {"ip": "10.1.0.2/16", "gateway": "10.1.0.1", "routes": ROUTES[:1]},
            "ip6": {"ip": "fd00::2/64", "routes": ROUTES[1:]},
            "dns": DNS,
        }


@pytest.mark.parametrize("version", [version for version in protocol.VERSIONS if version >= "0.3.0"])
def test_result_since_0_3_0(version: str) -> None:
    old = version < "1.0.0"
    assert protocol.render(ATTACHMENT, DNS, version) == {
        "cniVersion": version,
        "interfaces": [INTERFACE | ({"mtu": 1500} if version == "1.1.0" else {})],
        "ips": [IP4 | ({"version": "4"} if old else {}), IP6 | ({"version": "6"} if old else {})],
        "routes": ROUTES,
        "dns": DNS,
    }


# -- The documentation


def test_every_error_of_the_tree_has_a_cni_code_and_no_two_of_ours_share_one() -> None:
    assert set(ERROR_CODES) == set(errors.codes())
    own = [code for code in ERROR_CODES.values() if 100 <= code != codes.INTERNAL]
    assert len(own) == len(set(own))


def test_the_documentation_has_the_same_table() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name, code in ERROR_CODES.items():
        assert f"| `{name}` | {code} |" in text, name


def test_the_documentation_has_every_key_and_version() -> None:
    text = DOCS.read_text(encoding="utf-8")
    keys = [field.alias or name for name, field in netconf.NetConf.model_fields.items()]
    assert [name for name in (*keys, *protocol.VERSIONS) if f"`{name}`" not in text] == []
