"""What nobody has any more and nobody has taken back: found, watched for a grace period, and removed.

A CNI runtime may die before its DEL, and Docker forgets an endpoint or a network whatever we answer. `find_stale` is pure: from
one picture of the store, the kernel and Docker it tells what looks abandoned, and why. The reaper's thread takes such pictures;
what is abandoned in each of them for the grace period goes. When unsure, it stays: an endpoint whose link is in a container, come
what may, and everything of Docker's while dockerd is down, starting, or does not answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from . import plan
from .controller import REAPER, Controller
from .docker import DockerDriver
from .docker_endpoints import REQUESTER
from .dockerd import DockerApi, DockerNetwork, Incarnation
from .errors import InvalidNetns, OvsnetError
from .link import open_netns
from .model import Endpoint, Lease, LeaseOwner, Network, Origin, OwnerKind, Pool
from .plan import Action
from .reconcile import Found

LOG = logging.getLogger(__name__)

_SLOWEST, _FASTEST = 15.0, 0.2  # seconds between two pictures


class Kind(StrEnum):
    """What can be abandoned; stable, for scripts."""

    ENDPOINT = "endpoint"
    LEASE = "lease"
    NETWORK = "network"
    POOL = "pool"


@dataclass(frozen=True, slots=True)
class Stale:
    """Something that looks abandoned: `what` and `reason` are for people, `ref` finds it.

    `ref` is the endpoint's owner key, the pool's uuid, address and owner of a lease, Docker's id of a network, a pool's uuid.
    """

    kind: Kind
    ref: tuple[str, ...]
    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Picture:
    """What `find_stale` judges by, of one moment.

    `endpoints` are this node's, `gone` those of their sandboxes where there is no namespace. `leases` are what Docker holds, by
    the pool's uuid. `alive` are the dockerds that run, of those that anything is marked with; `caller` is the one that calls us,
    and `whole` says that all it ever told was heard. `docker` is what its API tells, None if it does not answer or is not to be
    `asked`. `alone` says that no other host shares the state database, `local` that Docker's networks are of one host.
    """

    node: str
    pools: Mapping[str, Pool]
    leases: tuple[tuple[str, Lease], ...]
    endpoints: tuple[Endpoint, ...]
    networks: Mapping[str, Network]
    gone: frozenset[str]
    alive: frozenset[Incarnation]
    caller: Incarnation | None
    whole: bool
    asked: bool
    docker: Mapping[str, DockerNetwork] | None
    driver: str
    alone: bool
    local: bool


def find_stale(seen: Picture) -> list[Stale]:
    """All that looks abandoned on this node, endpoints first."""
    found = [stale for one in seen.endpoints for stale in _endpoint(seen, one)]
    if seen.local and not (seen.asked and seen.docker is None):
        gateways = {(uuid, one.ip) for net in seen.networks.values() for uuid in net.pools for one in net.gateways}
        users = {uuid: _users(seen, pool) for uuid, pool in seen.pools.items()}
        for uuid, lease in seen.leases:  # there may be many
            if (uuid, lease.address) not in gateways:
                found += _lease(seen, seen.pools[uuid], lease, users[uuid])
        if seen.docker is not None:
            found += (stale for one in seen.networks.values() for stale in _network(seen, one, seen.docker))
            found += (stale for one in seen.pools.values() for stale in _pool(seen, one))
    return found


def _endpoint(seen: Picture, endpoint: Endpoint) -> Iterator[Stale]:
    if endpoint.origin is not Origin.DOCKER:
        reason = f"its namespace {endpoint.sandbox} is gone" if endpoint.sandbox in seen.gone else ""
    elif endpoint.sandbox and endpoint.sandbox not in seen.gone:
        reason = ""
    elif seen.asked:
        reason = _forgotten(seen, endpoint)
    else:
        reason = _left(seen, endpoint)
    if reason:
        what = f"endpoint of {endpoint.container[:40]} on network {endpoint.network_name}"
        yield Stale(Kind.ENDPOINT, (endpoint.key,), what, reason)


def _forgotten(seen: Picture, endpoint: Endpoint) -> str:
    """Why Docker, which was asked, does not have the endpoint; "" if it does, or has not answered."""
    if seen.docker is None:
        return ""
    ids = seen.networks[endpoint.network].docker_ids
    networks = [seen.docker[one] for one in ids if one in seen.docker]
    if not networks and not _ours(seen, _identity(endpoint)):
        return ""
    return "" if any(endpoint.container in one.endpoints for one in networks) else "Docker does not know it any more"


def _left(seen: Picture, endpoint: Endpoint) -> str:
    """Why Docker, which is not asked, has given the endpoint up: its link is in no container while dockerd runs; or ""."""
    owner = _identity(endpoint)
    if owner is None or not _ours(seen, owner):
        return ""
    where = (
        "never joined or has left its container" if not endpoint.sandbox else f"lost its container {endpoint.sandbox}"
    )
    if owner in seen.alive:
        return f"it {where}, and dockerd has not deleted it"
    return f"it {where}, and the dockerd that made it is gone" if seen.caller is not None else ""


def _identity(endpoint: Endpoint) -> Incarnation | None:
    return Incarnation.parse(endpoint.labels.get(REQUESTER, ""))


def _ours(seen: Picture, owner: Incarnation | None) -> bool:
    """Whether something of Docker's is this node's dockerd's to judge."""
    return seen.alone if owner is None else owner.node == seen.node


def _holder(lease: Lease) -> Incarnation | None:
    """Which dockerd holds a lease of Docker's."""
    return Incarnation.parse(lease.owner.id.rpartition("/")[0])


def _lease(seen: Picture, pool: Pool, lease: Lease, users: Sequence[DockerNetwork]) -> Iterator[Stale]:
    owner = _holder(lease)
    if owner is None or not _ours(seen, owner):
        return
    reason = ""
    if seen.docker is not None:
        # Another driver's container may have it although Docker does not tell, after a live restore.
        if all(one.driver == seen.driver and lease.address not in one.addresses for one in users):
            reason = "Docker does not know it any more"
    elif owner not in seen.alive and seen.caller is not None and seen.whole and pool.requested_by == str(seen.caller):
        reason = "its dockerd is gone, and the next one has repeated the pool without it"
    if reason:
        ref = (pool.uuid, str(lease.address), str(lease.owner))
        yield Stale(Kind.LEASE, ref, f"lease of {lease.address} in pool {pool.name}", reason)


def _network(seen: Picture, network: Network, docker: Mapping[str, DockerNetwork]) -> Iterator[Stale]:
    requesters = [Incarnation.parse(seen.pools[uuid].requested_by) for uuid in network.pools if uuid in seen.pools]
    made_here = len(network.docker_ids) == 1 and any(one and one.node == seen.node for one in requesters)
    if seen.alone or (made_here and network.origin is Origin.DOCKER):
        for one in sorted(network.docker_ids - docker.keys()):
            yield Stale(
                Kind.NETWORK,
                (one,),
                f"Docker's network {one[:12]}, here {network.name}",
                "Docker does not have it any more",
            )


def _pool(seen: Picture, pool: Pool) -> Iterator[Stale]:
    used = _users(seen, pool) or any(pool.uuid in one.pools for one in seen.networks.values())
    if pool.origin is Origin.DOCKER and _ours(seen, Incarnation.parse(pool.requested_by)) and not used:
        yield Stale(Kind.POOL, (pool.uuid,), f"pool {pool.name}", "no network of Docker takes addresses from it")


def _users(seen: Picture, pool: Pool) -> list[DockerNetwork]:
    """The networks that Docker says take addresses from a pool."""
    return [
        one for one in (seen.docker or {}).values() if one.ipam_driver == seen.driver and pool.subnet in one.subnets
    ]


class Reaper:
    """Watches what looks abandoned, and removes what does so for `settings.reap_after` seconds of monotonic time."""

    def __init__(self, controller: Controller, driver: DockerDriver) -> None:
        self._controller = controller
        self._driver = driver
        settings = controller.settings
        self._grace = settings.reap_after
        self._name = settings.docker_socket.stem
        self._api = DockerApi(settings.docker_api, self._name) if settings.docker_api else None
        self._since: dict[tuple[Kind, tuple[str, ...]], float] = {}
        self._watched: frozenset[tuple[Kind, tuple[str, ...]]] = frozenset()  # in the last two pictures
        self._docker: Mapping[str, DockerNetwork] | None = None  # what it told last
        self._mute = False  # Docker's API does not answer, which was said
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        """Start the thread, if anything is to be reaped at all."""
        if self._grace:
            self._thread.start()

    def stop(self) -> None:
        """Let the removal end that is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)

    def find(self) -> list[Stale]:
        """What looks abandoned now; nothing is changed."""
        return find_stale(self._picture(None, ask=True))

    def look(self) -> list[Stale]:
        """Take a picture, and remove what was abandoned in every one for the grace period; what has been removed."""
        now = time.monotonic()
        found = {(one.kind, one.ref): one for one in self.find()}
        before, self._since = self._since, {}
        self._watched = frozenset(found.keys() & before.keys())
        removed = []
        for key, stale in found.items():
            since = before.get(key)
            self._since[key] = now if since is None else since
            if since is None:
                LOG.debug("%s looks abandoned: %s", stale.what, stale.reason)
            elif now - since >= self._grace and not self._stopping.is_set():
                self._since[key] = now  # should it stay, its time begins anew
                try:
                    if self._remove(stale):
                        removed.append(stale)
                        LOG.warning("%s is removed: %s", stale.what, stale.reason)
                except OvsnetError as exc:
                    LOG.warning("%s looks abandoned (%s), but stays for now: %s", stale.what, stale.reason, exc)
        return removed

    def watched(self) -> Iterator[Found]:
        """What looks abandoned and did so in the last two pictures, for the reconciler to tell; nothing if nothing is reaped.

        Judged by what Docker told last: it may not be asked while somebody waits for the answer.
        """
        watched = self._watched
        for one in find_stale(self._picture(self._docker)) if watched else ():
            if (one.kind, one.ref) not in watched:
                continue
            yield Found(
                Action(
                    plan.Kind.ABANDONED,
                    plan.Where.REAPER,
                    one.what,
                    f"looks abandoned: {one.reason}",
                    f"the reaper removes it when it has looked so for {self._grace:g} s",
                    "/".join((one.kind, *one.ref)),
                ),
                None,
            )

    def _remove(self, stale: Stale) -> bool:
        """Whether it was abandoned indeed, and is gone."""
        store = self._controller.store
        match stale.kind:
            case Kind.ENDPOINT:
                endpoint = store.find_endpoint(stale.ref[0])
                return endpoint is not None and self._controller.reap(endpoint)
            case Kind.LEASE:
                uuid, address, owner = stale.ref
                pool, lessee = store.pool(uuid), LeaseOwner.parse(owner)
                return store.release(pool, ip_address(address), {lessee.kind}, owner=lessee, by=REAPER)
            case Kind.NETWORK:
                self._driver.delete_network(stale.ref[0])
            case Kind.POOL:
                store.delete_pool(stale.ref[0])
        return True

    def _picture(self, docker: Mapping[str, DockerNetwork] | None, *, ask: bool = False) -> Picture:
        """With what Docker has told, or tells when it is asked."""
        callers, settings = self._driver.callers, self._controller.settings
        store = self._controller.store
        leases = store.leases_of_kind(OwnerKind.DOCKER)
        endpoints = [one for one in store.endpoints() if one.node == settings.node]
        networks = {one.uuid: one for one in store.networks()}
        pools = {one.pool.uuid: one.pool for one in store.pools()}
        leases = tuple(one for one in leases if one[0] in pools)  # or it has just gone
        mine = tuple(one for one in endpoints if one.network in networks)
        if ask:  # last: what it does not know *later* is forgotten, or has just been made
            docker = self._docker = self._ask()
        owners = {_identity(one) for one in mine} | {_holder(one) for _, one in leases}
        caller = callers.present()
        return Picture(
            node=settings.node,
            pools=pools,
            leases=leases,
            endpoints=mine,
            networks=networks,
            gone=frozenset(one.sandbox for one in mine if one.sandbox and _gone(one.sandbox)),
            alive=frozenset(one for one in owners if one is not None and callers.alive(one)),
            caller=caller,
            whole=caller is not None and callers.whole(caller),
            asked=self._api is not None,
            docker=docker,
            driver=self._name,
            alone=not settings.state_remotes and not settings.state_listen,
            local=settings.docker_scope == "local",
        )

    def _ask(self) -> Mapping[str, DockerNetwork] | None:
        if self._api is None:
            return None
        try:
            networks = self._api.networks()
        except OvsnetError as exc:
            if not self._mute:
                LOG.warning("nothing of Docker's is removed as abandoned for now: %s", exc)
            self._mute = True
            return None
        self._mute = False
        return networks

    def _run(self) -> None:
        pause = min(max(self._grace / 4, _FASTEST), _SLOWEST)
        while not self._stopping.wait(pause):
            try:
                self.look()
            except OvsnetError as exc:
                LOG.warning("what is abandoned could not be looked for: %s", exc)
            except Exception:
                LOG.exception("looking for what is abandoned failed by a defect")


def _gone(sandbox: str) -> bool:
    """Whether there is no namespace at that path."""
    try:
        open_netns(sandbox).close()
    except InvalidNetns:
        return True
    return False
