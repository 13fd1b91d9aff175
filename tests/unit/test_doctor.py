"""The doctor's checks on made-up hosts: a healthy one has nothing, and each thing that is broken has its one line."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ovsnet.config import Settings
from ovsnet.doctor import CHECKS, Diagnosis, Level, examine, worst
from ovsnet.doctor import system as system_checks
from ovsnet.doctor.host import STATE, SWITCH, File, Ran, Row, Space
from ovsnet.doctor.trouble import Unreadable
from ovsnet.errors import InvalidNetns, Unavailable
from ovsnet.link import LinkInfo
from ovsnet.names import DeviceNames

MIB = 1 << 20
MAC = "02:6f:0a:01:00:02"
SOCKET = stat.S_IFSOCK
DIRECTORY = stat.S_IFDIR | 0o755


class MadeUp:
    """A healthy host with one network, one CNI container, and Docker; a test breaks it."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings.model_validate(
            {"node": "n", "state_dir": root / "state", "run_dir": root / "run"}
            | {"docker_socket": "/run/docker/plugins/ovsnet.sock"}
            | {"tls_certificate": "/c.pem", "tls_private_key": "/k.pem"}
        )
        self.settings_trouble = ""
        self.root = True
        self.bin_dir = root / "bin"
        self.conf_dir = root / "net.d"
        self.ran: dict[str, Ran] = {
            "nft": Ran(0, '{"nftables": []}', ""),
            "iptables": Ran(0, "-P FORWARD ACCEPT\n", ""),
            "docker": Ran(0, "d0c ovsnet blue\nfff bridge bridge\n", ""),
            "unshare": Ran(0, "", ""),
            "openssl": Ran(0, "", ""),
        }
        self.files: dict[str, File] = {
            str(self.settings.state_dir): File(DIRECTORY, 0, 0),
            str(self.settings.run_dir): File(DIRECTORY, 0, 0),
            str(self.settings.state_database): File(stat.S_IFREG | 0o640, 0, 0),
            str(self.settings.api_socket): File(SOCKET | 0o660, 0, 9),
            str(self.settings.cni_socket): File(SOCKET | 0o660, 0, 9),
            str(self.settings.docker_socket): File(SOCKET | 0o600, 0, 0),
            "/k.pem": File(stat.S_IFREG | 0o600, 0, 0),
        }
        self.texts = {"/proc/sys/net/ipv4/ip_forward": "1\n"}
        self.left = Space(1000 * MIB, 2000 * MIB, 10_000)
        self.groups = {"ovsnet": 9}
        self.served = True
        self.clock: bool | None = True
        self.forwarding = True
        self.unreadable = ""
        self.said: str | Unavailable = ""
        self.network: Row = {
            "_uuid": "net",
            "name": "blue",
            "bridge": "br",
            "tag": 7,
            "mtu": 1500,
            "pools": "pool",
            "internal": False,
            "gateways": "10.1.0.1/24",
            "masquerade": True,
            "origin": "docker",
            "docker_ids": "d0c",
        }
        self.endpoint: Row = {
            "_uuid": "ep",
            "network": "net",
            "container": "c1",
            "ifname": "eth0",
            "origin": "cni",
            "node": "n",
            "sandbox": "/run/netns/c1",
            "addresses": "10.1.0.2/24",
            "mac": MAC,
            "mtu": 1500,
            "port": "onp1",
            "labels": {},
        }
        ids = {"ovsnet-owner": "n", "ovsnet-network": "net"}
        gateway = self.settings.names.gateway("net")
        self.tables: dict[tuple[str, str], list[Row]] = {
            (STATE, "Network"): [self.network],
            (STATE, "Endpoint"): [self.endpoint],
            (STATE, "Pool"): [{"_uuid": "pool", "name": "blue", "subnet": "10.1.0.0/24"}],
            (STATE, "Block"): [
                {"pool": "pool", "leases": {"10.1.0.2": "endpoint:net/c1/eth0", "10.1.0.1": "gateway:net"}}
            ],
            (SWITCH, "Open_vSwitch"): [{"ovs_version": "3.1.0"}],
            (SWITCH, "Bridge"): [
                {
                    "_uuid": "b",
                    "name": "br",
                    "ports": ["p1", "p2", "p3"],
                    "datapath_type": "netdev",
                    "external_ids": ids,
                }
            ],
            (SWITCH, "Port"): [
                {"_uuid": "p1", "name": "onp1", "interfaces": "i1", "tag": 7, "trunks": []}
                | {"external_ids": ids | {"ovsnet-role": "endpoint", "ovsnet-endpoint": "ep"}},
                {"_uuid": "p2", "name": gateway, "interfaces": "i2", "tag": 7, "trunks": []}
                | {"external_ids": ids | {"ovsnet-role": "gateway"}},
                {"_uuid": "p3", "name": "eth9", "interfaces": "i3", "tag": [], "trunks": [], "external_ids": {}},
            ],
            (SWITCH, "Interface"): [
                {"_uuid": "i1", "name": "onp1", "type": "internal", "error": []},
                {"_uuid": "i2", "name": gateway, "type": "internal", "error": []},
                {"_uuid": "i3", "name": "eth9", "type": "", "error": []},
            ],
        }
        self.links: dict[tuple[str, str], LinkInfo] = {
            ("", "onp1"): device("onp1"),
            ("", gateway): device(gateway),
            ("", "eth9"): device("eth9"),
            ("/run/netns/c1", "lo"): device("lo"),
            ("/run/netns/c1", "eth0"): device("eth0", "10.1.0.2/24"),
        }

    def run(self, *argv: str, stdin: str = "") -> Ran:
        if argv[0] == "unshare" and f"unshare {stdin}" in self.ran:
            return self.ran[f"unshare {stdin}"]
        return self.ran.get(" ".join(argv), self.ran.get(argv[0], Ran(None, "", f"{argv[0]} cannot be run")))

    def read(self, path: str | Path) -> str | None:
        return self.texts.get(str(path))

    def file(self, path: str | Path) -> File | None:
        return self.files.get(str(path))

    def space(self, path: str | Path) -> Space | None:
        return self.left if str(path) in self.files else None

    def group(self, name: str) -> int | None:
        return self.groups.get(name)

    def serves(self, path: str | Path) -> bool:
        return self.served and str(path) in self.files

    def now(self) -> float:
        return time.time()

    def clock_is_set(self) -> bool | None:
        return self.clock

    def rows(self, database: str, table: str) -> list[Row]:
        if database == self.unreadable:
            raise Unreadable(f"{database} is locked", hint="unlock it")
        return self.tables[database, table]

    def forwards(self) -> bool:
        return self.forwarding

    def link(self, name: str, netns: str = "") -> LinkInfo | None:
        if netns and (netns, "lo") not in self.links:
            raise InvalidNetns(f"{netns} is not there", hint="look")
        return self.links.get((netns, name))

    def health(self) -> str:
        if isinstance(self.said, Unavailable):
            raise self.said
        return self.said


def device(name: str, *addresses: str, **more: Any) -> LinkInfo:
    found = tuple(map(ipaddress.ip_interface, addresses))
    return dataclasses.replace(LinkInfo(name, 5, MAC, 1500, True, True, None, "tun", found), **more)


@pytest.fixture
def host(tmp_path: Path) -> MadeUp:
    return MadeUp(tmp_path)


def bad(host: MadeUp) -> list[Diagnosis]:
    found = examine(host)
    assert {one.check for one in found} == {check.id for check in CHECKS}
    assert all("\n" not in one.message + one.remedy for one in found)
    assert all(bool(one.remedy) == (one.level in (Level.WARNING, Level.ERROR)) for one in found)
    return [one for one in found if one.level is not Level.OK]


def nft(**tables: str) -> Ran:
    entries = [{"table": {"family": "inet", "name": name}} for name in tables]
    entries += [
        {"chain": {"family": "inet", "table": name, "name": "fwd", "hook": "forward", "policy": policy}}
        for name, policy in tables.items()
    ]
    return Ran(0, json.dumps({"nftables": entries}), "")


def test_nothing_is_wrong_with_a_healthy_host(host: MadeUp) -> None:
    assert bad(host) == []
    assert worst(examine(host)) is Level.OK


def test_a_host_without_docker_cni_and_journal_is_healthy(host: MadeUp) -> None:
    host.ran["docker"] = Ran(None, "", "docker cannot be run")
    host.network["origin"], host.network["docker_ids"] = "api", []
    assert bad(host) == []


def port(host: MadeUp, **changes: Any) -> None:
    host.tables[SWITCH, "Port"][0] |= changes


def set_link(host: MadeUp, name: str, netns: str = "", **changes: Any) -> None:
    host.links[netns, name] = dataclasses.replace(host.links[netns, name], **changes)


def put(host: MadeUp, path: Path, mode: int, uid: int = 0, gid: int = 0, **more: Any) -> None:
    host.files[str(path)] = File(mode, uid, gid, **more)


GATEWAY = DeviceNames().gateway("net")
C1 = "/run/netns/c1"
W, E = Level.WARNING, Level.ERROR
BREAKS: list[tuple[str, Level, str, str, Callable[[MadeUp], object]]] = [
    ("root", W, "not run as root", "sudo", lambda h: setattr(h, "root", False)),
    ("settings", E, "f.toml:3", "docs/settings.md", lambda h: setattr(h, "settings_trouble", "f.toml:3: unknown key")),
    (
        "ovsnetd",
        E,
        "not reachable",
        "start",
        lambda h: setattr(h, "said", Unavailable("not reachable", hint="start it")),
    ),
    ("ovsnetd", E, "no leader", "log", lambda h: setattr(h, "said", "no leader")),
    ("switch-database", E, "empty", "init", lambda h: h.tables.update({(SWITCH, "Open_vSwitch"): []})),
    ("vswitchd", E, "does not run", "restart openvswitch", lambda h: setattr(h, "forwarding", False)),
    ("ovs-version", W, "2.9", "upgrade", lambda h: h.tables[SWITCH, "Open_vSwitch"][0].update(ovs_version="2.9.1")),
    ("datapath", E, "module", "modprobe", lambda h: h.tables[SWITCH, "Bridge"][0].update(datapath_type="system")),
    ("datapath", W, "faster", "anew", lambda h: put(h, Path("/sys/module/openvswitch"), DIRECTORY)),
    ("kernel-macvlan", E, "Unknown", "modprobe macvlan", lambda h: refuse(h, system_checks._MACVLAN)),
    ("kernel-vlan", W, "Unknown", "8021q", lambda h: refuse(h, system_checks._VLAN)),
    ("kernel-tun", W, "Unknown", "modprobe tun", lambda h: refuse(h, system_checks._TAP)),
    ("kernel-nftables", E, "Unknown", "install nftables", lambda h: refuse(h, system_checks._RULES)),
    ("forwarding", E, "ip_forward is 0", "sysctl -w", lambda h: h.texts.update({"/proc/sys/net/ipv4/ip_forward": "0"})),
    ("forward-drop", W, "FORWARD is DROP", "-i ong+", lambda h: h.ran.update(iptables=Ran(0, "-P FORWARD DROP\n", ""))),
    (
        "forward-drop",
        W,
        "inet mine",
        "ong*",
        lambda h: h.ran.update(nft=nft(mine="drop", ovsnet="drop", calm="accept")),
    ),
    ("firewalld", W, "blue", "--add-interface=ong+", lambda h: h.ran.update(nft=nft(firewalld="drop"))),
    ("mtu", E, "1400", f"link set {GATEWAY} mtu 1500", lambda h: set_link(h, GATEWAY, mtu=1400)),
    ("mtu", E, "uplink eth9", "--mtu 1400", lambda h: set_link(h, "eth9", mtu=1400)),
    ("mtu", E, "port onp1", "mtu_request=1500", lambda h: set_link(h, "onp1", mtu=1400)),
    ("port-wrong", E, "VLAN 8, not 7", "set Port onp1 tag=7", lambda h: port(h, tag=8)),
    ("port-wrong", E, "VLAN 0, not 7", "set Port onp1 tag=7", lambda h: port(h, tag=[])),
    ("port-wrong", E, "bridge b2", "again", lambda h: h.tables[SWITCH, "Bridge"][0].update(name="b2")),
    ("port-dead", E, "no device", "restart", lambda h: h.links.pop(("", "onp1"))),
    ("port-dead", E, "Busy", "log", lambda h: h.tables[SWITCH, "Interface"][0].update(error="Busy")),
    ("endpoint-dead", W, "namespace", "--repair", lambda h: [h.links.pop((C1, one)) for one in ("lo", "eth0")]),
    ("link-wrong", E, "02:00", f"address {MAC}", lambda h: set_link(h, "eth0", C1, mac="02:00:00:00:00:01")),
    ("link-wrong", E, "10.1.0.2/24", "address add", lambda h: set_link(h, "eth0", C1, addresses=())),
    ("link-wrong", E, "is down", "up", lambda h: set_link(h, "eth0", C1, up=False)),
    ("link-wrong", E, "host's end onp1", "link set onp1 up", lambda h: set_link(h, "onp1", up=False)),
    ("link-wrong", E, "no interface eth0", "again", lambda h: h.links.pop((C1, "eth0"))),
    ("clock", W, "nothing keeps", "chrony", lambda h: setattr(h, "clock", False)),
    (
        "clock",
        W,
        "set back",
        "set the clock",
        lambda h: put(h, h.settings.state_dir / "journal.db", 0o600, changed=9e9),
    ),
    ("disk", E, "2 MiB", "room", lambda h: setattr(h, "left", Space(2 * MIB, 2000 * MIB, 10_000))),
    ("disk", W, "100 MiB", "room", lambda h: setattr(h, "left", Space(100 * MIB, 2000 * MIB, 10_000))),
    ("journal", W, "broken once", "delete", lambda h: put(h, h.settings.state_dir / "journal.db.broken", 0o600)),
    ("certificates", E, "has run out", "new one", lambda h: certificate(h, 0, 1)),
    ("certificates", W, "14 days", "new one", lambda h: certificate(h, 1209600, 1)),
    ("certificates", E, "0640", "chmod 0600", lambda h: put(h, Path("/k.pem"), stat.S_IFREG | 0o640)),
    ("directories", E, "0777", "chmod go-w", lambda h: put(h, h.settings.state_dir, stat.S_IFDIR | 0o777)),
    ("directories", E, "user 7", "chown root", lambda h: put(h, h.settings.run_dir, DIRECTORY, 7)),
    ("sockets", E, "0666", "chmod 0660", lambda h: put(h, h.settings.api_socket, SOCKET | 0o666, 0, 9)),
    ("sockets", E, "0:8", "chown 0:9", lambda h: put(h, h.settings.cni_socket, SOCKET | 0o660, 0, 8)),
    ("sockets", E, "0660", "chmod 0600", lambda h: put(h, h.settings.docker_socket, SOCKET | 0o660)),
    ("docker", E, "nobody serves", "start ovsnetd", lambda h: setattr(h, "served", False)),
    (
        "docker",
        E,
        "which ovsnet does not know",
        "docker network rm",
        lambda h: h.ran.update(docker=docker("x1 ovsnet red")),
    ),
    ("docker", W, "Docker does not know it", "ovsnet network rm blue", lambda h: h.ran.update(docker=Ran(0, "", ""))),
]


def certificate(host: MadeUp, seconds: int, status: int) -> None:
    host.ran[f"openssl x509 -noout -checkend {seconds} -in /c.pem"] = Ran(status, "", "")


def refuse(host: MadeUp, stdin: str) -> None:
    host.ran[f"unshare {stdin}"] = Ran(1, "", "Error: Unknown device type.\nCommand failed -:2")


def docker(line: str) -> Ran:
    return Ran(0, f"d0c ovsnet blue\n{line}\n", "")


@pytest.mark.parametrize(
    ("check", "level", "says", "remedy", "break_it"),
    BREAKS,
    ids=[f"{one[0]}-{one[2]}".replace(" ", "-") for one in BREAKS],
)
def test_what_is_broken_has_its_line(
    host: MadeUp, check: str, level: Level, says: str, remedy: str, break_it: Callable[[MadeUp], object]
) -> None:
    break_it(host)
    found = [one for one in bad(host) if one.check == check]
    assert [one.level for one in found] == [level] * len(found) != []
    assert any(says in one.message and remedy in one.remedy for one in found), found
    assert worst(examine(host)) is level


def test_groups_with_roles_open_the_socket(host: MadeUp) -> None:
    host.settings = host.settings.model_copy(update={"group_roles": ("monitoring=viewer",)})
    put(host, host.settings.api_socket, SOCKET | 0o666, 0, 9)
    assert bad(host) == []


def test_what_cannot_be_tried_is_no_fault_of_the_kernel(host: MadeUp) -> None:
    host.ran["unshare"] = Ran(None, "", "unshare cannot be run: No such file")
    found = bad(host)
    assert {one.check for one in found} == {"kernel-tun", "kernel-macvlan", "kernel-vlan", "kernel-nftables"}
    assert {(one.level, one.message) for one in found} == {
        (W, "cannot be looked at: unshare cannot be run: No such file")
    }


def test_an_endpoint_that_went_leaves_port_and_lease(host: MadeUp) -> None:
    host.tables[STATE, "Endpoint"] = []
    assert {one.check: one.message.split()[0] for one in bad(host)} == {"port-dead": "port", "lease-stale": "10.1.0.2"}


def test_an_endpoint_in_quarantine_is_down_on_purpose(host: MadeUp) -> None:
    host.endpoint["labels"] = {"ovsnet.quarantined": "yes"}
    set_link(host, "onp1", up=False)
    assert bad(host) == []


def test_an_endpoint_has_a_vlan_of_its_own(host: MadeUp) -> None:
    host.endpoint["labels"] = {"ovsnet.vlan": "42"}
    (one,) = bad(host)
    assert (one.check, one.remedy) == ("port-wrong", "`ovs-vsctl set Port onp1 tag=42`")
    next(port for port in host.tables[SWITCH, "Port"] if port["name"] == "onp1")["tag"] = 42
    assert bad(host) == []


def test_a_port_that_went_is_missed(host: MadeUp) -> None:
    del host.tables[SWITCH, "Port"][0]
    (one,) = bad(host)
    assert (one.check, one.message) == ("endpoint-dead", "container c1 on network blue has no switch port onp1")


def test_dockers_chain_lets_forwarded_packets_through(host: MadeUp) -> None:
    host.ran["iptables"] = Ran(0, "-P FORWARD DROP\n-A DOCKER-USER -j OVSNET-on\n", "")
    assert bad(host) == []


def test_other_nodes_things_are_theirs(host: MadeUp) -> None:
    host.endpoint["node"] = "other"
    host.links.clear()
    host.tables[SWITCH, "Port"] = []
    assert bad(host) == []


@pytest.mark.parametrize(("database", "check"), [(STATE, "state-database"), (SWITCH, "switch-database")])
def test_a_database_that_cannot_be_read_is_told_once(host: MadeUp, database: str, check: str) -> None:
    host.unreadable = database
    found = bad(host)
    assert [one.check for one in found if one.level is not Level.SKIPPED] == [check]
    assert any(one.level is Level.SKIPPED for one in found)


def test_before_the_first_start(host: MadeUp) -> None:
    host.unreadable = STATE
    del host.files[str(host.settings.state_database)]
    host.said = Unavailable("not reachable")
    assert [one.check for one in bad(host) if one.level is not Level.SKIPPED] == ["ovsnetd", "state-database"]


def test_a_check_that_is_broken_itself_stops_no_other(host: MadeUp) -> None:
    host.tables[SWITCH, "Bridge"] = [{}]
    found = bad(host)
    assert all("the check itself failed" in one.message for one in found)
    assert "datapath" in {one.check for one in found}


def test_a_network_of_both_families(host: MadeUp) -> None:
    host.network["gateways"] = ["10.1.0.1/24", "fd00::1/64"]
    host.texts["/proc/sys/net/ipv6/conf/all/forwarding"] = "0"
    host.ran["ip6tables"] = Ran(0, "-P FORWARD DROP\n", "")
    found = [(one.check, "IPv6" in one.message or "ipv6" in one.message) for one in bad(host)]
    assert found == [("forwarding", True), ("forward-drop", True)]


@pytest.mark.parametrize("trusted", ["interfaces: ong+", f"interfaces: eth7 {GATEWAY}", "sources: 10.1.0.0/24"])
def test_firewalld_that_trusts_us(host: MadeUp, trusted: str) -> None:
    host.ran["nft"] = nft(firewalld="drop")
    host.ran["firewall-cmd"] = Ran(0, f"trusted (active)\n  target: ACCEPT\n  {trusted}\n", "")
    assert bad(host) == []


def test_a_host_without_the_rights_of_root(host: MadeUp) -> None:
    host.root = False
    host.links = {key: value for key, value in host.links.items() if not key[0]}
    assert [one.check for one in bad(host)] == ["root"]


def test_the_journal_is_opened(host: MadeUp) -> None:
    path = host.settings.state_dir / "journal.db"
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    put(host, path, stat.S_IFREG | 0o600)
    (one,) = bad(host)
    assert (one.check, one.level) == ("journal", Level.WARNING)


def test_plugins_of_another_version(host: MadeUp) -> None:
    host.bin_dir.mkdir()
    (host.bin_dir / "ovsnet").write_text("#!/bin/sh\n")
    put(host, host.bin_dir / "ovsnet", stat.S_IFREG | 0o755)
    host.conf_dir.mkdir()
    (host.conf_dir / "10-x.conflist").write_text('{"plugins": [{"type": "bridge"}]}')
    found = {one.check: one for one in bad(host)}
    assert set(found) == {"cni-plugins", "cni-config"}
    assert "ovsnet cni conf" in found["cni-config"].remedy
