from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .cluster import NodeProcess
from .processes import ProcessCluster


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    """A node that does not run yet. In the end its last life's log is held to the catalogue."""
    node = NodeProcess(tmp_path)
    try:
        yield node
    finally:
        node.cleanup()
    node.log()


MakeCluster = Callable[..., ProcessCluster]


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """Makes a cluster of which no node runs yet. In the end the logs are held to the catalogue."""
    made: list[ProcessCluster] = []

    def make(size: int = 3, *flags: str, has_proxies: bool = False) -> ProcessCluster:
        cluster = ProcessCluster(tmp_path, size, flags, has_proxies)
        made.append(cluster)
        return cluster

    try:
        yield make
    finally:
        for cluster in made:
            cluster.cleanup()
    for cluster in made:
        for node in cluster.nodes.values():
            if node.lives:
                node.log()


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> ProcessCluster:
    """Three nodes that run."""
    cluster = make_cluster()
    cluster.start()
    return cluster
