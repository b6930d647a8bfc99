"""Random sequences against the state machine and a real server in lockstep: replies and histories are the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from .etcd import EtcdDriver, EtcdServer
from .lockstep import Lockstep
from .machine import MachineDriver
from .node import NodeDriver, NodeServer
from .sequences import SEQUENCES
from .vocabulary import Request

RANDOM = settings(derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])


@pytest.fixture(scope="module")
def beside_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lockstep]:
    with NodeServer(tmp_path_factory.mktemp("node")) as server:
        driver = NodeDriver(server.port)
        yield Lockstep(MachineDriver(), driver)
        driver.close()


@pytest.fixture(scope="module")
def beside_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lockstep]:
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        driver = EtcdDriver(server.port)
        yield Lockstep(MachineDriver(), driver)
        driver.close()


@settings(RANDOM, max_examples=25)
@given(requests=SEQUENCES)
def test_node(beside_node: Lockstep, requests: list[Request]) -> None:
    scope = beside_node.run(requests)
    beside_node.check_history(scope, is_etcd=False)


@pytest.mark.conformance
@settings(RANDOM, max_examples=150)
@given(requests=SEQUENCES)
def test_etcd(beside_etcd: Lockstep, requests: list[Request]) -> None:
    scope = beside_etcd.run(requests)
    beside_etcd.check_history(scope, is_etcd=True)
    # What etcd keeps in one life, coord keeps over a restart.
    beside_etcd.machine.restart()
