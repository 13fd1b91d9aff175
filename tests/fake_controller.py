"""A controller in memory, for tests of the edges that call one: real enough to make, find, use and delete things."""

from __future__ import annotations

import copy
import ipaddress
import uuid
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from flask import Flask
from flask.testing import FlaskClient

from ovsnet import model
from ovsnet.access.guard import PEER
from ovsnet.capture import CaptureRequest
from ovsnet.check import Finding
from ovsnet.errors import AlreadyExists, EndpointNotFound, InUse, NetworkNotFound, NotFound, OvsnetError, PoolNotFound
from ovsnet.events import Events
from ovsnet.jobs import Progress
from ovsnet.names import mac_for
from ovsnet.plan import Action
from ovsnet.reconcile import Outcome
from ovsnet.trace import Cause, Question, Step, Trace
from ovsnet.trace import Outcome as Fate

T = TypeVar("T", model.Pool, model.Network)


class FakeController:
    """The use cases of `ovsnet.api.UseCases`, `Checks` and `Reconciles`. `fail` makes every call raise it."""

    def __init__(self) -> None:
        self.fail: Exception | None = None
        self.attached: list[model.AttachRequest] = []
        self.past: list[model.LeaseRecord] = []
        self.cool: list[model.IPAddress] = []
        self.told = model.Health(ok=True, state="ok", switch="ok", node="n1", version="9.9")
        self.findings: list[Finding] = []
        self.events = Events(None, followers=1)
        self.actions: list[Action] = []
        self._pools: dict[str, model.Pool] = {}
        self._networks: dict[str, model.Network] = {}
        self._endpoints: dict[str, model.Endpoint] = {}

    def create_pool(self, spec: model.PoolSpec) -> model.Pool:
        self._check()
        if any(pool.name == spec.name for pool in self._pools.values()):
            raise AlreadyExists(f"pool {spec.name!r} exists", hint="choose another name", name=spec.name)
        gateway = None if spec.no_gateway else spec.gateway or spec.subnet[1]
        pool = model.Pool(
            uuid=str(uuid.uuid4()),
            name=spec.name or f"pool{len(self._pools)}",
            space=spec.space,
            subnet=spec.subnet,
            gateway=gateway,
            ranges=spec.ranges,
            exclusions=spec.exclusions,
            static_ranges=spec.static_ranges,
            origin=spec.origin,
            labels=spec.labels,
        )
        self._pools[pool.uuid] = pool
        return pool

    def change_pool(self, ref: str, change: model.PoolChange) -> model.Pool:
        pool = replace(self.pool(ref).pool, **change.given())  # type: ignore[arg-type]
        self._pools[pool.uuid] = pool
        return pool

    def reserve(self, ref: str, name: str, address: model.IPAddress | None = None) -> model.IPAddress:
        pool = self.pool(ref).pool
        kept = address or pool.subnet[9]
        self._pools[pool.uuid] = replace(pool, reservations={**pool.reservations, name: kept})
        return kept

    def release_address(self, ref: str, address: model.IPAddress) -> None:
        if any(lease.address == address for lease in self.leases(ref)):
            raise InUse(f"{address} belongs to an endpoint", hint="remove that")

    def release_reservation(self, ref: str, name: str) -> model.IPAddress:
        pool = self.pool(ref).pool
        if name not in pool.reservations:
            raise NotFound(f"nothing is reserved for {name!r}", hint="list them")
        left = {one: address for one, address in pool.reservations.items() if one != name}
        self._pools[pool.uuid] = replace(pool, reservations=left)
        return pool.reservations[name]

    def check(self) -> list[Finding]:
        self._check()
        return list(self.findings)

    def repair(self) -> tuple[list[Finding], list[Finding]]:
        found = self.check()
        self.findings = [one for one in found if not one.remedy]
        return [one for one in found if one.remedy], list(self.findings)

    def differences(self) -> list[Action]:
        self._check()
        return list(self.actions)

    def reconcile(self) -> Outcome:
        found = self.differences()
        self.actions = [one for one in found if not one.remedy]
        return Outcome(tuple(one for one in found if one.remedy), tuple(self.actions))

    def delete_pool(self, ref: str, *, force: bool = False) -> None:
        pool = self.pool(ref)
        if pool.pool.reservations and not force:
            raise InUse(f"pool {ref!r} has leases", hint="release them first")
        if pool.networks:
            raise InUse(f"pool {ref!r} is in use", hint="delete its networks first")
        del self._pools[pool.pool.uuid]

    def pools(self) -> list[model.PoolUse]:
        self._check()
        return sorted((self.pool(key) for key in self._pools), key=lambda use: use.pool.name)

    def pool(self, ref: str) -> model.PoolUse:
        self._check()
        pool = _find(self._pools.values(), ref, PoolNotFound)
        networks = tuple(network.name for network in self._networks.values() if pool.uuid in network.pools)
        return model.PoolUse(
            pool, capacity=pool.subnet.num_addresses - 3, leased=len(self.leases(ref)), networks=networks
        )

    def leases(self, pool_ref: str) -> list[model.Lease]:
        pool = _find(self._pools.values(), pool_ref, PoolNotFound)
        return [
            model.Lease(pool.name, address.ip, model.LeaseOwner(model.OwnerKind.ENDPOINT, endpoint.key), endpoint.node)
            for endpoint in self._endpoints.values()
            for address in endpoint.addresses
            if address.ip in pool.subnet
        ]

    def cooling(self, pool_ref: str) -> frozenset[int]:
        _find(self._pools.values(), pool_ref, PoolNotFound)
        return frozenset(map(int, self.cool))

    def since(self, pool_uuid: str, addresses: Collection[model.IPAddress]) -> dict[model.IPAddress, datetime]:
        assert pool_uuid in self._pools
        return {one.address: one.since for one in self.past if one.until is None and one.address in addresses}

    def history(self, address: model.IPAddress, at: datetime | None = None, pool: str = "") -> list[model.LeaseRecord]:
        self._check()
        return [
            one
            for one in self.past
            if one.address == address
            and pool in ("", one.pool)
            and (at is None or (one.since <= at and (one.until is None or at < one.until)))
        ]

    def create_network(self, spec: model.NetworkSpec) -> model.Network:
        self._check()
        pools = [self.pool(ref).pool for ref in spec.pools]
        pools += [self.create_pool(replace(item, name=f"{spec.name}-{item.subnet.version}")) for item in spec.subnets]
        network = model.Network(
            uuid=str(uuid.uuid4()),
            name=spec.name,
            bridge=spec.bridge or "ovsbr0",
            tag=len(self._networks) + 1 if spec.tag is None else spec.tag,
            mtu=spec.mtu or 1500,
            pools=tuple(pool.uuid for pool in pools),
            gateways=tuple(pool.gateway_interface for pool in pools if pool.gateway_interface and not spec.internal),
            internal=spec.internal,
            masquerade=bool(spec.masquerade),
            routed=bool(spec.routed),
            origin=spec.origin,
            docker_ids=frozenset(),
            labels=spec.labels,
        )
        self._networks[network.uuid] = network
        return network

    def delete_network(self, ref: str) -> None:
        network = self.network(ref)
        if self.endpoints(network.uuid):
            raise InUse(f"network {ref!r} has endpoints", hint="remove them first")
        del self._networks[network.uuid]

    def remove_network(self, ref: str, progress: Progress) -> None:
        uuid = self.network(ref).uuid
        for number, endpoint in enumerate(self.endpoints(uuid)):
            progress(number, len(self._endpoints))
            self.delete_endpoint(endpoint.uuid)
        self.delete_network(uuid)

    def rehearsal(self) -> FakeController:
        return copy.deepcopy(self, {id(self.events): self.events})

    def networks(self) -> list[model.Network]:
        self._check()
        return sorted(self._networks.values(), key=lambda network: network.name)

    def network(self, ref: str) -> model.Network:
        self._check()
        return _find(self._networks.values(), ref, NetworkNotFound)

    def endpoints(self, network: str | None = None) -> list[model.Endpoint]:
        self._check()
        wanted = None if network is None else self.network(network).uuid
        found = [item for item in self._endpoints.values() if wanted in (None, item.network)]
        return sorted(found, key=lambda item: (item.network_name, item.container, item.ifname))

    def endpoint(self, ref: str) -> model.Endpoint:
        self._check()
        if ref not in self._endpoints:
            raise EndpointNotFound(f"no endpoint {ref!r}", hint="list them")
        return self._endpoints[ref]

    def delete_endpoint(self, ref: str) -> None:
        del self._endpoints[self.endpoint(ref).uuid]

    def quarantine(self, ref: str, *, on: bool) -> model.Endpoint:
        return self.change_endpoint(ref, model.EndpointChange(quarantined=on))

    def change_endpoint(self, ref: str, change: model.EndpointChange) -> model.Endpoint:
        endpoint = self.endpoint(ref)
        labels = dict(endpoint.labels)
        if change.quarantined is not None:
            labels.pop(model.QUARANTINED, None)
            labels |= {model.QUARANTINED: "1"} if change.quarantined else {}
        if change.tag is not None or change.network_tag:
            labels.pop(model.OWN_TAG, None)
            labels |= {} if change.tag is None else {model.OWN_TAG: str(change.tag)}
        made = replace(
            endpoint,
            labels=labels,
            published=endpoint.published if change.published is None else change.published,
            bandwidth=replace(endpoint.bandwidth, **change.bandwidth or {}),
        )
        if change.take_from:
            giver = self.endpoint(change.take_from)
            left = tuple(port for port in giver.published if port not in made.published)
            self._endpoints[giver.uuid] = replace(giver, published=left)
        self._endpoints[endpoint.uuid] = made
        return made

    def change_network(self, ref: str, tag: int) -> model.Network:
        made = replace(self.network(ref), tag=tag)
        self._networks[made.uuid] = made
        return made

    def attach(self, request: model.AttachRequest) -> model.Attachment:
        self._check()
        self.attached.append(request)
        network = self.network(request.network)
        pools = [self._pools[key] for key in network.pools]
        addresses = tuple(pool.interface(pool.subnet[len(self._endpoints) + 2]) for pool in pools)
        endpoint = model.Endpoint(
            uuid=str(uuid.uuid4()),
            network=network.uuid,
            network_name=network.name,
            container=request.container,
            ifname=request.ifname,
            origin=request.origin,
            node="n1",
            sandbox=request.netns,
            addresses=addresses,
            mac=request.mac or mac_for(addresses[0].ip if addresses else ipaddress.ip_address("10.0.0.1")),
            mtu=request.mtu or network.mtu,
            port="onp0123456789",
            link=request.ifname,
            labels=request.labels,
        )
        self._endpoints[endpoint.uuid] = endpoint
        return model.Attachment(endpoint, network, tuple(pool.gateway for pool in pools), ())

    def trace(self, question: Question) -> Trace:
        """Dropped at its source, as that is in quarantine."""
        (source,) = (one for one in self.endpoints() if question.source in (one.uuid, one.container))
        step = Step(f"container {source.container}", "dropped: it is in quarantine")
        packet = f"{question.transport} to {question.destination}"
        return Trace(Fate.DROPPED, Cause.QUARANTINED, packet, (step,), "it is in quarantine", "let it out")

    def capture(self, wanted: CaptureRequest) -> bytes:
        """The address of the endpoint."""
        return str(self.endpoint(wanted.endpoint).addresses[0]).encode()

    def health(self) -> model.Health:
        self._check()
        return self.told

    def _check(self) -> None:
        if self.fail:
            raise self.fail


def as_root(app: Flask) -> FlaskClient:
    """A client that is root on the unix socket."""
    client = app.test_client()
    client.environ_base |= {PEER: (0, frozenset({0}))}  # type: ignore[dict-item]
    return client


def _find(things: Iterable[T], ref: str, missing: type[OvsnetError]) -> T:
    for thing in things:
        if ref in (thing.name, thing.uuid):
            return thing
    raise missing(f"no such thing: {ref!r}", hint="list them")
