"""What `/metrics` tells, in Prometheus' format: operations as they are observed, and everything else when it is asked for.

Owns the registry. An operation costs one observation of a histogram; pools, ports and connections are read from what the
rooms have in memory while somebody scrapes, and traffic in one question to the switch's database. Called by the composition root.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as Total
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .errors import OvsnetError
from .model import PortRole

if TYPE_CHECKING:
    from .controller import Controller

LOG = logging.getLogger(__name__)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"  # exposition format of Prometheus

# Seconds. An ADD takes 0.004 where all is well, and a request has a deadline of 20.
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_TRAFFIC: Final = (  # column of Interface.statistics as the switch sees the port -> what it is for the container
    ("rx_bytes", "sent_bytes", "Bytes that the container has sent."),
    ("tx_bytes", "received_bytes", "Bytes that the container has been sent."),
    ("rx_packets", "sent_packets", "Packets that the container has sent."),
    ("tx_packets", "received_packets", "Packets that the container has been sent."),
    ("rx_dropped", "sent_dropped", "Packets from the container that the switch has dropped."),
    ("tx_dropped", "received_dropped", "Packets for the container that the switch has dropped."),
)


class Metrics:
    """The metrics of one controller. `endpoints` is the most endpoints of this host whose traffic is told one by one."""

    def __init__(self, *, version: str, endpoints: int) -> None:
        self._registry = CollectorRegistry()
        self._endpoints = endpoints
        self._operations = Histogram(
            "ovsnet_operation_seconds",
            "Time that operations took, by the edge that was asked and by how they ended.",
            ("edge", "operation", "result"),
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._drift = Total(
            "ovsnet_drift",
            "Differences found between what is wanted and what is there, by kind.",
            ("kind",),
            registry=self._registry,
        )
        self._repairs = Total(
            "ovsnet_repairs",
            "Repairs of such differences, by kind and by how they ended.",
            ("kind", "result"),
            registry=self._registry,
        )
        info = GaugeMetricFamily("ovsnet_info", "What runs.", labels=("version",))
        info.add_metric((version,), 1)
        self._registry.register(_Source(lambda: [info]))

    def observe(self, edge: str, operation: str, result: str, seconds: float) -> None:
        """An operation has ended."""
        self._operations.labels(edge, operation, result).observe(seconds)

    def drift(self, kind: str, result: str | None = None) -> None:
        """A difference of that kind was found; `result` is how its repair ended (ok, or an error's code), None without one."""
        self._drift.labels(kind).inc()
        if result is not None:
            self._repairs.labels(kind, result).inc()

    def watch(self, controller: Controller) -> None:
        """From now on tell of what this controller has."""
        for source in (_pools, _endpoints, _ports, _databases, _journal):
            self._registry.register(_Source(lambda source=source: source(controller)))  # type: ignore[misc]
        if self._endpoints:
            self._registry.register(_Source(lambda: _traffic(controller, self._endpoints)))

    def render(self) -> bytes:
        """All metrics in Prometheus' text format. What cannot be read now is left out, and the log says why."""
        return generate_latest(self._registry)


class _Source(Collector):
    """Metrics that are made when they are asked for."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry would read everything to know the names."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """What there is now."""
        try:
            return list(self._read())
        except OvsnetError as exc:  # the database is out of reach, of which `ovsnet_database_connected` tells
            LOG.info("some metrics are left out: %s", exc)
            return ()


def _pools(controller: Controller) -> Iterator[Metric]:
    addresses = GaugeMetricFamily(
        "ovsnet_pool_addresses", "Addresses of a pool by state.", labels=("pool", "subnet", "state")
    )
    leases = GaugeMetricFamily("ovsnet_pool_leases", "Leases of a pool by what holds them.", labels=("pool", "kind"))
    draining = GaugeMetricFamily("ovsnet_pool_draining", "1 for a pool that gives nothing new.", labels=("pool",))
    for pool, free, kinds in controller.store.counts_by_kind():
        for state, number in (("leased", kinds.total()), ("free", free)):
            addresses.add_metric((pool.name, str(pool.subnet), state), number)
        draining.add_metric((pool.name,), int(pool.draining))
        for kind, number in sorted(kinds.items()):
            leases.add_metric((pool.name, kind), number)
    yield from (addresses, leases, draining)


def _endpoints(controller: Controller) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "ovsnet_endpoints", "Endpoints of this host, by network and origin.", labels=("network", "origin")
    )
    here = (one for one in controller.store.endpoints() if one.node == controller.settings.node)
    for (network, origin), number in sorted(Counter((one.network_name, one.origin.value) for one in here).items()):
        family.add_metric((network, origin), number)
    yield family


def _ports(controller: Controller) -> Iterator[Metric]:
    spares = GaugeMetricFamily("ovsnet_spare_ports", "Switch ports that are made ahead.", labels=("network",))
    names = {one.uuid: one.name for one in controller.store.networks()}
    for uuid, number in controller.ports.spares().items():
        if uuid in names:
            spares.add_metric((names[uuid],), number)
    ports = GaugeMetricFamily("ovsnet_switch_ports", "Switch ports of ours by what they are for.", labels=("role",))
    broken = GaugeMetricFamily("ovsnet_switch_ports_failed", "Switch ports of ours that ovs-vswitchd could not make.")
    found = controller.switch.ports()
    roles = Counter(one.role for one in found)
    for role in PortRole:
        ports.add_metric((role.value,), roles[role])
    broken.add_metric((), sum(bool(one.error) for one in found))
    yield from (spares, ports, broken)


def _databases(controller: Controller) -> Iterator[Metric]:
    connected = GaugeMetricFamily("ovsnet_database_connected", "1 while the database is there.", labels=("database",))
    transactions = CounterMetricFamily(
        "ovsnet_database_transactions", "Transactions by how they ended.", labels=("database", "result")
    )
    connections = CounterMetricFamily(
        "ovsnet_database_connections", "Connections made: one more than reconnections.", labels=("database",)
    )
    for name, room in (("state", controller.store), ("switch", controller.switch)):
        connected.add_metric((name,), int(room.ready))
        counts = room.counts()
        connections.add_metric((name,), counts.connections)
        for result, number in (("ok", counts.committed), ("again", counts.lost), ("refused", counts.refused)):
            transactions.add_metric((name, result), number)
    yield from (connected, transactions, connections)


def _journal(controller: Controller) -> Iterator[Metric]:
    if controller.journal is not None:
        lost = CounterMetricFamily("ovsnet_journal_lost", "Events that the journal could not write.")
        lost.add_metric((), controller.journal.lost)
        yield lost


def _traffic(controller: Controller, most: int) -> Iterator[Metric]:
    """Of the first `most` endpoints of this host by UUID, so that the same ones are told each time."""
    here = [one for one in controller.store.endpoints() if one.node == controller.settings.node]
    here.sort(key=lambda one: one.uuid)
    untold = GaugeMetricFamily(
        "ovsnet_endpoints_untold", "Endpoints of this host beyond `metrics_endpoints`, whose traffic is not told."
    )
    untold.add_metric((), max(len(here) - most, 0))
    yield untold
    if not here:
        return
    statistics = controller.switch.statistics()
    labels = ("network", "container", "ifname", "port")
    for column, name, text in _TRAFFIC:
        family = CounterMetricFamily(f"ovsnet_endpoint_{name}", text, labels=labels)
        for one in here[:most]:
            value = statistics.get(one.port, {}).get(column)
            if value is not None:
                family.add_metric((one.network_name, one.container, one.ifname, one.port), value)
        yield family
