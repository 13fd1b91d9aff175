"""ovsnetd dies by SIGKILL at each of its crash points: the same request again gives the same, and nothing is left behind.

What no answer tells is read from the databases, the kernel and nftables.
"""

from __future__ import annotations

import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ovsnet.crashpoints import Point
from ovsnet.errors import OvsnetError
from tests.conftest import FaultRow
from tests.harness import IMAGE, CniResult, Dockerd, Netns, wait_until
from tests.system.faulty import PORT, Faulty

pytestmark = [pytest.mark.faults, pytest.mark.long]

CONVERGED = 5.0  # seconds after the start, by FAULTS.md
NETWORK, SUBNET, SUBNET6 = "crash", "10.71.0.0/24", "fd71::/64"
GATE = "0 left; converged within 5 s"


@dataclass
class Case:
    """How one kind of request is made, crashed, repeated and undone. `act` gives what a repetition must give again."""

    POINTS: ClassVar[tuple[Point, ...]]
    world: Faulty
    spaces: list[Netns] = field(default_factory=list)

    def space(self, number: int) -> Netns:
        """One of the case's containers' namespaces."""
        while len(self.spaces) <= number:
            self.spaces.append(self.world.netns())
        return self.spaces[number]

    def begin(self) -> None:
        """What all its points share."""

    def prepare(self) -> None:
        """Before each point."""

    def act(self) -> object:
        """The request; what has to be the same if it is repeated."""
        raise NotImplementedError

    def standing(self) -> object:
        """What the database says that the request has given, after a crash; None if nothing."""
        return None

    def works(self) -> None:
        """After it was repeated."""

    def undo(self) -> None:
        """What its client does at the end."""

    def end(self) -> None:
        """Undoes `begin`."""


class Pools(Case):
    POINTS = (Point.POOL_MADE,)

    def act(self) -> object:
        return self.world.api.create_pool(SUBNET, name=NETWORK)

    def standing(self) -> object:
        return next(iter(self.world.api.pools()), None)

    def undo(self) -> None:
        with suppress(OvsnetError):
            self.world.api.delete_pool(NETWORK)


class PoolsGone(Pools):
    POINTS = (Point.POOL_GONE,)

    def prepare(self) -> None:
        Pools.act(self)

    def act(self) -> object:
        if self.world.api.pools():
            self.world.api.delete_pool(NETWORK)
        return None

    def standing(self) -> object:
        return None


class Networks(Case):
    """With a bridge of its own, and a pool that stays when it goes, so that the gateway's lease has to be ended."""

    POINTS = (
        Point.NETWORK_BRIDGE,
        Point.NETWORK_WRITTEN,
        Point.NETWORK_GATEWAY_PORT,
        Point.NETWORK_GATEWAY,
        Point.NETWORK_RULES,
    )

    def begin(self) -> None:
        self.world.api.create_pool(SUBNET, name=NETWORK)

    def act(self) -> object:
        made = self.world.api.create_network(
            NETWORK, bridge=f"{self.world.stack.prefix}own", pools=[NETWORK], subnets=[SUBNET6], masquerade=True
        )
        return made["id"]

    def standing(self) -> object:
        return next((network["id"] for network in self.world.api.networks()), None)

    def works(self) -> None:
        space, conf = self.space(0), self.world.stack.conf(NETWORK)
        assert self.world.cni("ADD", space, conf).ok
        assert space.pings("10.71.0.1")
        assert self.world.cni("DEL", space, conf).ok

    def undo(self) -> None:
        if self.world.api.networks():
            self.world.api.delete_network(NETWORK)
        assert not self.world.stack.ovs.vsctl("list-br")

    def end(self) -> None:
        self.world.api.delete_pool(NETWORK)


class NetworksGone(Networks):
    POINTS = (
        Point.NETWORK_GONE,
        Point.NETWORK_SPARES_GONE,
        Point.NETWORK_PORT_GONE,
        Point.NETWORK_BRIDGE_GONE,
        Point.NETWORK_RULES_GONE,
    )

    def prepare(self) -> None:
        Networks.act(self)
        Networks.works(self)  # from now on there are spare ports

    def act(self) -> object:
        if self.world.api.networks():
            self.world.api.delete_network(NETWORK)
        return None

    def standing(self) -> object:
        return None

    def works(self) -> None:
        assert not self.world.api.networks()


class Attached(Case):
    """An ADD with all there is: published ports, limits, both families."""

    POINTS: ClassVar[tuple[Point, ...]] = (
        Point.ATTACH_PORT,
        Point.ATTACH_WRITING,
        Point.ATTACH_LINKED,
        Point.ATTACH_WRITTEN,
        Point.ATTACH_LIMITED,
        Point.ATTACH_PLUGGED,
        Point.ATTACH_PUBLISHED,
        Point.ATTACH_CLAIMED,
        Point.SPARE_MADE,
        Point.SPARE_READY,
    )

    @property
    def conf(self) -> dict[str, Any]:
        """Of the container that something happens to."""
        capabilities = {
            "portMappings": [{"hostPort": PORT, "containerPort": 80, "protocol": "tcp"}],
            "bandwidth": {"ingressRate": 10**8, "ingressBurst": 10**8, "egressRate": 10**8, "egressBurst": 10**8},
        }
        return self.world.stack.conf(NETWORK) | {"runtimeConfig": capabilities}

    def begin(self) -> None:
        self.world.api.create_network(NETWORK, subnets=[SUBNET, SUBNET6])
        self.witness = self.world.netns()
        answer = self.world.cni("ADD", self.witness, self.world.stack.conf(NETWORK))
        assert answer.ok, answer
        self.taken = set(answer.addresses)

    def end(self) -> None:
        assert self.world.cni("DEL", self.witness, self.world.stack.conf(NETWORK)).ok
        self.world.api.delete_network(NETWORK)

    def add(self, space: Netns) -> list[str] | None:
        """ADD of the container; its addresses."""
        answer = self.world.cni("ADD", space, self.conf, container="crashed")
        return sorted(answer.addresses) if answer.ok else None

    def delete(self, space: Netns) -> bool:
        """DEL of the container."""
        return self.world.cni("DEL", space, self.conf, container="crashed").ok

    def act(self) -> object:
        return self.add(self.space(0))

    def standing(self) -> object:
        return sorted(self.world.addresses("crashed")) or None

    def works(self) -> None:
        addresses = self.world.addresses("crashed")
        assert len(addresses) == 2
        assert not self.taken & set(addresses)
        for address in addresses:
            assert self.witness.pings(address)

    def undo(self) -> None:
        assert self.delete(self.space(0))
        names = [link["ifname"] for link in self.space(0).ip("link", "show")]
        assert "eth0" not in names


class AttachedAgain(Attached):
    """The same container in a new namespace, as after a reboot of its sandbox."""

    POINTS = (Point.AGAIN_PORT, Point.AGAIN_MOVED, Point.AGAIN_UNPLUGGED, Point.AGAIN_PLUGGED)

    def prepare(self) -> None:
        assert self.add(self.space(1))

    def undo(self) -> None:
        super().undo()
        wait_until(lambda: len(self.space(1).ip("link", "show")) == 1, "the old link is gone")


class Detached(Attached):
    POINTS: ClassVar[tuple[Point, ...]] = (
        Point.DETACH_SILENCED,
        Point.DETACH_UNPUBLISHED,
        Point.DETACH_RELEASING,
        Point.DETACH_UNLIMITED,
        Point.DETACH_UNPLUGGED,
        Point.DETACH_RELEASED,
        Point.PORT_REMOVING,
    )

    def prepare(self) -> None:
        assert self.add(self.space(0))

    def act(self) -> object:
        return None if self.delete(self.space(0)) else "refused"

    def standing(self) -> object:
        return None

    def works(self) -> None:
        assert self.world.addresses("crashed") == []


class GivenBack(Detached):
    """Without limits, so that the port becomes a spare one again."""

    POINTS = (Point.PORT_CLEARED, Point.PORT_RETURNED)

    @property
    def conf(self) -> dict[str, Any]:
        return self.world.stack.conf(NETWORK)


class Altered(Attached):
    """A container that stands gets a VLAN of its own, other limits and another published port."""

    POINTS = (Point.ALTER_WRITTEN, Point.ALTER_TAGGED, Point.ALTER_LIMITED, Point.ALTER_PUBLISHED)
    OTHER: ClassVar[int] = PORT + 1
    CHANGES: ClassVar[dict[str, Any]] = {
        "vlan": 3999,
        "bandwidth": {"ingress_rate": 0, "egress_rate": 10**7},
        "published": [f"tcp/{OTHER}/80"],
    }

    def prepare(self) -> None:
        assert self.add(self.space(0))

    def row(self) -> dict[str, Any]:
        """The endpoint as the API shows it."""
        return next(row for row in self.world.endpoints() if row["container"] == "crashed")

    def act(self) -> object:
        return self.world.api.change_endpoint(self.row()["id"], **self.CHANGES)

    def standing(self) -> object:
        """Written before anything else: whoever comes next finishes it, without being asked."""
        row = self.row()
        assert (row["own_vlan"], row["published"]) == (3999, self.CHANGES["published"])
        wait_until(self.done, "it is finished")
        return row

    def done(self) -> bool:
        """Whether switch and packet filter have it."""
        vsctl, rules = self.world.stack.ovs.vsctl, self.world.stack.host.run("nft", "list", "ruleset").stdout
        rates = vsctl("--bare", "--columns=other_config", "list", "Queue")
        return (
            vsctl("get", "Port", self.row()["port"], "tag") == "3999"
            and "max-rate=10000000" in rates
            and "max-rate=100000000" not in rates
            and "limit rate over" not in rules
            and f" {self.OTHER} : " in rules
            and f" {PORT} : " not in rules
        )

    def works(self) -> None:
        assert self.done()
        assert not self.witness.pings(self.world.addresses("crashed")[0], wait=0.3)


class Retagged(Attached):
    """The network that a container and its gateway are on gets another VLAN tag."""

    POINTS = (Point.RETAG_WRITTEN, Point.RETAG_PORTS)

    def prepare(self) -> None:
        assert self.add(self.space(0))
        self.tag = 4000 if self.world.api.network(NETWORK)["vlan"] == 4001 else 4001

    def act(self) -> object:
        return self.world.api.change_network(NETWORK, vlan=self.tag)["vlan"]

    def standing(self) -> object:
        wait_until(lambda: self.world.api.check()["ok"], "it is finished")
        return self.world.api.network(NETWORK)["vlan"]

    def works(self) -> None:
        super().works()
        assert self.space(0).pings("10.71.0.1")


class Addresses(Case):
    """The IPAM plugin beside another main plugin."""

    POINTS = (Point.ADDRESS_GIVEN,)

    @property
    def conf(self) -> dict[str, Any]:
        """Both families, from pools that are there."""
        return {
            "cniVersion": "1.0.0",
            "name": NETWORK,
            "type": "bridge",
            "ipam": {"type": "ovsnet-ipam", "pool": ["crash", "crash6"]},
        }

    def begin(self) -> None:
        self.world.api.create_pool(SUBNET, name="crash")
        self.world.api.create_pool(SUBNET6, name="crash6")

    def end(self) -> None:
        for name in ("crash", "crash6"):
            self.world.api.delete_pool(name)

    def call(self, command: str) -> CniResult:
        """The IPAM plugin."""
        return self.world.cni(command, self.space(0), self.conf, plugin="ovsnet-ipam")

    def act(self) -> object:
        answer = self.call("ADD")
        return answer.addresses if answer.ok else None

    def undo(self) -> None:
        assert self.call("DEL").ok


class AddressesTaken(Addresses):
    POINTS = (Point.ADDRESS_TAKEN,)

    def prepare(self) -> None:
        assert self.call("ADD").ok

    def act(self) -> object:
        return None if self.call("DEL").ok else "refused"


class Docker(Case):
    """What dockerd plays on the wire. The life goes on after the crash with the same call again."""

    LIFE: ClassVar[tuple[tuple[str, tuple[Point, ...]], ...]]  # calls in order, and the points that they reach

    def body(self, step: str) -> dict[str, Any]:
        """What dockerd sends."""
        network, endpoint = self.network, {"NetworkID": self.network, "EndpointID": self.endpoint}
        data = [{"AddressSpace": "ovsnet", "Pool": SUBNET, "Gateway": "10.71.0.1/24", "AuxAddresses": None}]
        generic = "com.docker.network.generic"
        portmap = [{"Proto": 6, "Port": 80, "HostPort": PORT, "HostPortEnd": PORT}]
        return {
            "IpamDriver.RequestPool": {
                "AddressSpace": "ovsnet",
                "Pool": SUBNET,
                "SubPool": "",
                "Options": None,
                "V6": False,
            },
            "IpamDriver.RequestAddress": {"PoolID": self.pool, "Address": "", "Options": None},
            "NetworkDriver.CreateNetwork": {
                "NetworkID": network,
                "IPv4Data": data,
                "IPv6Data": [],
                "Options": {generic: {"ovsnet.gateway": "10.71.0.7", "ovsnet.name": NETWORK}},
            },
            "NetworkDriver.CreateNetwork/joins": {
                "NetworkID": self.other,
                "IPv4Data": [data[0] | {"Gateway": "10.71.0.7/24"}],
                "IPv6Data": [],
                "Options": {generic: {"ovsnet.network": NETWORK}},
            },
            "NetworkDriver.CreateEndpoint": endpoint
            | {
                "Interface": {"Address": self.address, "AddressIPv6": "", "MacAddress": ""},
                "Options": {"ovsnet.name": "kept", "ovsnet.rate.in": "100M", "ovsnet.rate.out": "100M"},
            },
            "NetworkDriver.Join": endpoint | {"SandboxKey": "/run/docker/netns/crash", "Options": None},
            "NetworkDriver.ProgramExternalConnectivity": endpoint
            | {"Options": {"com.docker.network.portmap": portmap}},
            "NetworkDriver.RevokeExternalConnectivity": endpoint,
            "NetworkDriver.Leave": endpoint,
            "NetworkDriver.DeleteEndpoint": endpoint,
            "IpamDriver.ReleaseAddress": {"PoolID": self.pool, "Address": self.address.partition("/")[0]},
            "NetworkDriver.DeleteNetwork/joins": {"NetworkID": self.other},
            "NetworkDriver.DeleteNetwork": {"NetworkID": network},
            "IpamDriver.ReleasePool": {"PoolID": self.pool},
        }[step]

    def call(self, step: str) -> dict[str, Any]:
        """One step; its answer."""
        return self.world.call(step.partition("/")[0], **self.body(step))

    def learn(self, step: str, answer: dict[str, Any]) -> None:
        """What dockerd keeps of an answer, and sees of the host after it."""
        if step == "IpamDriver.RequestPool":
            self.pool = answer["PoolID"]
            gateway = {"RequestAddressType": "com.docker.network.gateway"}
            self.world.call("IpamDriver.RequestAddress", PoolID=self.pool, Address="10.71.0.1", Options=gateway)
        elif step == "IpamDriver.RequestAddress":
            self.address = answer["Address"]
            assert self.address not in ("10.71.0.1/24", "10.71.0.7/24")
        elif step == "NetworkDriver.Join":
            (link,) = self.world.stack.host.ip("link", "show", "dev", answer["InterfaceName"]["SrcName"])
            assert link["operstate"] in ("UP", "DOWN")
            (row,) = self.world.api.endpoints()
            assert row["addresses"] == [self.address]
            assert link["address"] == row["mac"]
        elif step == "NetworkDriver.ProgramExternalConnectivity":
            assert self.published()

    def published(self) -> bool:
        """Whether the port of the host leads to the container."""
        return (
            f"{PORT} : {self.address.partition('/')[0]}" in self.world.stack.host.run("nft", "list", "ruleset").stdout
        )

    def begin(self) -> None:
        self.network, self.other, self.endpoint = (secrets.token_hex(32) for _ in range(3))
        self.pool = self.address = ""

    def live(self, crash: Point) -> None:
        """The life, with a crash."""
        for step, points in self.LIFE:
            if crash in points:
                self.world.die(crash, lambda step=step: self.call(step))  # type: ignore[misc]
            answer = self.call(step)
            self.learn(step, answer)
            if crash in points:
                self.world.converged()


class DockerPools(Docker):
    """A pool that no network came to need."""

    LIFE = (
        ("IpamDriver.RequestPool", (Point.DOCKER_POOL,)),
        ("IpamDriver.ReleasePool", (Point.DOCKER_POOL_GONE,)),
    )
    POINTS = tuple(point for _, points in LIFE for point in points)


class DockerNetworks(Docker):
    """One network under two names."""

    LIFE = (
        ("IpamDriver.RequestPool", ()),
        ("NetworkDriver.CreateNetwork", (Point.DOCKER_GATEWAY,)),
        ("NetworkDriver.CreateNetwork/joins", (Point.DOCKER_NAMED,)),
        ("NetworkDriver.DeleteNetwork/joins", (Point.DOCKER_UNNAMED,)),
        ("NetworkDriver.DeleteNetwork", ()),
        ("IpamDriver.ReleasePool", ()),
    )
    POINTS = tuple(point for _, points in LIFE for point in points)


class DockerEndpoints(Docker):
    """A container with published ports, limits and an address that is kept for its name."""

    LIFE = (
        ("IpamDriver.RequestAddress", (Point.DOCKER_ADDRESS,)),
        (
            "NetworkDriver.CreateEndpoint",
            (
                Point.ENDPOINT_PORT,
                Point.ENDPOINT_KEPT,
                Point.ENDPOINT_WRITTEN,
                Point.ENDPOINT_PLUGGED,
                Point.ENDPOINT_LIMITED,
                Point.ENDPOINT_CLAIMED,
            ),
        ),
        ("NetworkDriver.Join", (Point.ENDPOINT_JOINED,)),
        ("NetworkDriver.ProgramExternalConnectivity", (Point.ENDPOINT_PUBLISHING, Point.ENDPOINT_PUBLISHED)),
        ("NetworkDriver.RevokeExternalConnectivity", (Point.ENDPOINT_UNPUBLISHING,)),
        ("NetworkDriver.Leave", (Point.ENDPOINT_UNPUBLISHED, Point.ENDPOINT_STOOD_IN, Point.ENDPOINT_LEFT)),
        (
            "NetworkDriver.DeleteEndpoint",
            (Point.ENDPOINT_SILENCED, Point.ENDPOINT_UNLIMITED, Point.ENDPOINT_DISCARDED, Point.ENDPOINT_GONE),
        ),
        ("IpamDriver.ReleaseAddress", (Point.DOCKER_ADDRESS_GONE,)),
    )
    POINTS = tuple(point for _, points in LIFE for point in points)

    def begin(self) -> None:
        super().begin()
        for step in ("IpamDriver.RequestPool", "NetworkDriver.CreateNetwork"):
            self.learn(step, self.call(step))

    def live(self, crash: Point) -> None:
        super().live(crash)
        self.world.api.release_reservation(self.pool, "kept")
        # Of an address that nobody was told of nothing stays: only the endpoint writes it. Docker's own goes behind the answer.
        wait_until(
            lambda: all(lease["owner"]["kind"] != "docker" for lease in self.world.api.leases(self.pool)),
            "no address is Docker's any more",
        )

    def end(self) -> None:
        for step in ("NetworkDriver.DeleteNetwork", "IpamDriver.ReleasePool"):
            self.call(step)


def walk(world: Faulty, case: Case, point: Point, *, again: bool) -> None:
    """One crash: what stands after it is what the same request gives; or else its client gives up, and undoes it at once."""
    case.prepare()
    world.die(point, case.act)
    standing = case.standing()
    if again:
        answer = case.act()
        assert standing is None or answer == standing, (point, standing, answer)
        case.works()
        world.converged()
        assert case.act() == answer
    case.undo()
    if not again:
        world.converged()


CASES = (
    Pools,
    PoolsGone,
    Networks,
    NetworksGone,
    Attached,
    AttachedAgain,
    Detached,
    GivenBack,
    Altered,
    Retagged,
    Addresses,
    AddressesTaken,
    DockerPools,
    DockerNetworks,
    DockerEndpoints,
)


def die_at_all_points(world: Faulty, kind: type[Case], fault_row: FaultRow, *, again: bool) -> None:
    """Walks the points of a case, with one row for all of them."""
    empty = world.traces()
    world.slowest = 0.0
    left: dict[str, set[str]] = {}
    case = kind(world)
    case.begin()
    before = world.traces()
    for point in kind.POINTS:
        if isinstance(case, Docker):
            case.live(point)
        else:
            walk(world, case, point, again=again)
        left[point] = world.left(before)
    case.end()
    left["the end"] = world.left(empty)
    fault_row(
        fault=f"kill -9 at a step: {kind.__name__}, then {'the same again' if again else 'undone'}",
        rounds=len(kind.POINTS),
        leaked=sum(map(len, left.values())),
        back=world.slowest,
        gate=f"same answer again; {GATE}" if again else GATE,
    )
    assert not any(left.values()), left
    assert world.slowest <= CONVERGED


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_died_and_asked_again(faulty: Faulty, fault_row: FaultRow, kind: type[Case]) -> None:
    die_at_all_points(faulty, kind, fault_row, again=True)


@pytest.mark.parametrize("point", [Point.ATTACH_LINKED, Point.ATTACH_LIMITED])
def test_an_add_that_nobody_repeats_is_finished(faulty: Faulty, point: Point) -> None:
    case = Attached(faulty)
    case.begin()
    case.prepare()
    faulty.die(point, case.act)
    wait_until(lambda: faulty.api.check()["ok"], "all agrees", 30)  # what was made a moment ago is left alone at first
    if case.standing():  # or else the store had not heard of it, and there is nothing to finish
        wait_until(lambda: all(map(case.witness.pings, faulty.addresses("crashed"))), "it has its addresses", 30)
    case.undo()
    case.end()


@pytest.mark.whole
@pytest.mark.parametrize(
    "kind", [kind for kind in CASES if not issubclass(kind, Docker)], ids=lambda kind: kind.__name__
)
def test_died_and_undone(faulty: Faulty, fault_row: FaultRow, kind: type[Case]) -> None:
    die_at_all_points(faulty, kind, fault_row, again=False)


@pytest.mark.whole
@pytest.mark.timeout(600)
def test_died_under_dockerd(faulty: Faulty, fault_row: FaultRow, directory: Path) -> None:
    """What dockerd itself makes of it: it may take the failure for final, but the next container comes up and is the only one."""
    driver, points = faulty.stack.driver, DockerEndpoints.POINTS
    before = faulty.traces()
    faulty.slowest, doubled = 0.0, 0
    with ExitStack() as undo:
        threads = undo.enter_context(ThreadPoolExecutor(1))
        dockerd = Dockerd(faulty.host, faulty.token, directory / "died")
        undo.callback(dockerd.close)
        dockerd.start()
        create = ("network", "create", "--driver", driver, "--ipam-driver", driver, "--subnet", SUBNET)
        dockerd.docker(*create, "--opt", f"ovsnet.name={NETWORK}", NETWORK)
        start = ("run", "--detach", "--network", NETWORK, "--publish", f"{PORT}:80")
        options = (f"name={NETWORK}", "driver-opt=ovsnet.rate.in=100M", "driver-opt=ovsnet.name=kept")
        kept = ("run", "--detach", "--network", ",".join(options), "--publish", f"{PORT}:80")

        def live(name: str) -> None:
            dockerd.docker(*(kept if name == Point.ENDPOINT_KEPT else start), "--name", name, IMAGE, check=False)
            dockerd.docker("rm", "--force", name, check=False)

        for point in points:
            ends: list[Future[None]] = []
            faulty.die(point, lambda: ends.append(threads.submit(live, point)))  # noqa: B023  # dockerd tries again meanwhile
            ends[0].result(120)
            dockerd.docker("rm", "--force", point, check=False)
            for (
                row
            ) in faulty.api.endpoints():  # dockerd has forgotten it without a word, as the driver's reaper would find
                faulty.api.delete_endpoint(row["id"])
            dockerd.docker(*start, "--name", "after", IMAGE)
            doubled += len(faulty.api.endpoints()) - 1
            assert dockerd.pings("after", "10.71.0.1")
            faulty.converged()
            dockerd.docker("rm", "--force", "after")
        dockerd.docker("network", "rm", NETWORK)
        left = faulty.left(before)
    fault_row(
        fault="kill -9 at a step, under dockerd",
        rounds=len(points),
        leaked=len(left),
        doubled=doubled,
        back=faulty.slowest,
        gate="the next container comes up; 0 left",
    )
    assert left == set()
    assert doubled == 0


def test_every_point_is_walked() -> None:
    walked = [point for kind in CASES for point in kind.POINTS]
    theirs = [point for point in Point if point.startswith(("start.", "repair."))]  # test_crash_reconcile.py walks them
    assert sorted([*walked, *theirs]) == sorted(Point)
