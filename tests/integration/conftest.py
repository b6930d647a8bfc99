from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def clusters(directory: Path) -> Iterator[MakeCluster]:
    """Give what makes clusters of which no node runs yet; in the end their logs are held to the catalogue."""
    made: list[ProcessCluster] = []

    def make(size: int = 3, *flags: str, has_proxies: bool = False) -> ProcessCluster:
        cluster = ProcessCluster(directory, size, flags, has_proxies)
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
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """Makes clusters of this test."""
    with clusters(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[ProcessCluster]:
    """Three nodes that the tests of a module share, behind relays if it says so."""
    directory = tmp_path_factory.mktemp("shared")
    with clusters(directory) as make:
        yield make(3, has_proxies=getattr(request.module, "HAS_RELAYS", False))
    shutil.rmtree(directory)


@pytest.fixture
def shared(made_once: ProcessCluster) -> ProcessCluster:
    """The module's three nodes, which run, whatever the tests before did to them."""
    made_once.restore()
    return made_once


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> ProcessCluster:
    """Three nodes that run."""
    cluster = make_cluster()
    cluster.start()
    return cluster
