"""Random sequences against the state machine and the real etcd in lockstep: replies and histories are the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define, evolve
from hypothesis import HealthCheck, Phase, given, settings

from .etcd import EtcdDriver, EtcdServer
from .machine import MachineDriver
from .runner import without_others
from .sequences import SEQUENCES
from .vocabulary import Created, Name, NextEvents, PrefixEnd, Remaining, Request, Scope, Watch

pytestmark = pytest.mark.conformance


@define
class Pair:
    """Both servers. They are never reset: sequences have prefixes and leases of their own."""

    etcd: EtcdDriver
    machine: MachineDriver
    sequences: int = 0


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        driver = EtcdDriver(server.port)
        yield Pair(driver, MachineDriver())
        driver.close()


def clockless(reply: Any) -> Any:
    """Return the reply with what is left of a lease as it was granted."""
    if isinstance(reply, Remaining) and reply.ttl > 0:
        return evolve(reply, ttl=reply.granted)
    return reply


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
@given(requests=SEQUENCES)
def test_replies_are_the_same(pair: Pair, requests: list[Request]) -> None:
    pair.sequences += 1
    lease_base = 10**6 + pair.sequences * 1000
    scope = Scope(b"%d/" % pair.sequences, pair.machine.revision(), lease_base)
    first = scope.start + 1
    del pair.machine.told[:]
    for request in requests:
        bound = evolve(scope, start=pair.machine.revision()).bind(request)
        replies = [clockless(without_others(one.call(bound), lease_base)) for one in (pair.machine, pair.etcd)]
        assert replies[0] == replies[1], f"{bound}\n  coord {replies[0]}\n  etcd  {replies[1]}"
    check_history(pair, scope.bind(Name("")), scope.bind(PrefixEnd("")), first)


def check_history(pair: Pair, key: bytes, end: bytes, first: int) -> None:
    """Check that a watch of what is left of the past is told what coord remembers, and what it told then."""
    # At the compacted revision itself 3.4 no longer has the deletes.
    first = max(first, pair.machine.compact_revision + 1)
    remembered = pair.machine.history(first)
    told = [event for event in pair.machine.told if event.pair.modified >= first]
    # The pair before an event may be compacted away since it was told.
    assert [evolve(event, previous=None) for event in remembered] == [evolve(event, previous=None) for event in told]
    if not remembered:
        return
    try:
        assert pair.etcd.call(Watch("w", key, end, start=first, prev_kv=True)) == Created(0)
        assert list(pair.etcd.call(NextEvents("w", 0, len(remembered))).events) == remembered
    finally:
        pair.etcd.end_row()
