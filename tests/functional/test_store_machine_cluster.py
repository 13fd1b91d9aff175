"""The same random histories against a RAFT cluster of three servers on loopback, whose leader is the one that is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.functional.test_store_machine import run_histories
from tests.ovsdb_cluster import Cluster

pytestmark = pytest.mark.long


class KilledLeader:
    """A cluster as the histories need it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def remotes(self) -> list[str]:
        return self._cluster.remotes

    def crash(self) -> None:
        self._cluster.restart(self._cluster.leader())


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledLeader]:
    with Cluster(tmp_path_factory.mktemp("raft")) as cluster:
        yield KilledLeader(cluster)


@pytest.mark.timeout(3600)
def test_the_store_agrees_with_a_plain_set_on_a_cluster(backend: KilledLeader) -> None:
    run_histories(backend, int(os.environ.get("OVSNET_EXAMPLES", "200")))
