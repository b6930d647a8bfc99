"""P10, held and broken by hand."""

from __future__ import annotations

import random

import pytest
from tests.simulation.histories import Perfect

from coord.protocol.ops import Op
from coord.testing.history import Kind, Operation
from coord.testing.history_ledger import replay
from coord.testing.lease_check import check_leases

LEASE = 0xBEEF
TTL_S = 10


def scene() -> Perfect:
    """Return a lease of ten seconds with two keys, granted at about 0 and renewed at 5."""
    server = Perfect(random.Random(1))
    server.do("holder", Kind.WRITE, [0, int(Op.LEASE_GRANT), None, [TTL_S, LEASE]])
    server.put(b"a", b"1", LEASE)
    server.put(b"b", b"2", LEASE)
    server.now = 5.0
    renew(server)
    return server


def renew(server: Perfect) -> Operation:
    return server.do("holder", Kind.RENEWAL, [LEASE])


def judge(server: Perfect) -> list[str]:
    return check_leases(server.history, replay(server.ledger))


def test_a_lease_that_ends_after_its_time_is_accepted() -> None:
    server = scene()
    server.now = 15.1
    server.expire(LEASE)
    assert judge(server) == []
    assert replay(server.ledger).model.now == {}
    assert renew(server).result == [[LEASE, 0]]
    assert judge(server) == []


@pytest.mark.parametrize("at", [8.0, 14.9])
def test_a_lease_that_ends_early_is_found(at: float) -> None:
    server = scene()
    server.now = at
    server.expire(LEASE)
    assert any("s early" in what for what in judge(server))


def test_a_lease_that_was_never_renewed_counts_from_its_grant() -> None:
    server = scene()
    server.history.operations = [one for one in server.history.operations if one.kind is not Kind.RENEWAL]
    server.now = 9.0
    server.expire(LEASE)
    assert any("s early" in what for what in judge(server))


def test_drift_is_allowed_where_it_is_said() -> None:
    server = scene()
    server.now = 14.1
    server.expire(LEASE)
    assert check_leases(server.history, replay(server.ledger), drift=0.1) == []


def test_a_lease_that_is_gone_is_not_renewed() -> None:
    server = scene()
    server.do("holder", Kind.WRITE, [0, int(Op.LEASE_REVOKE), None, [LEASE]])
    renewal = renew(server)
    assert judge(server) == []
    renewal.result = [[LEASE, TTL_S]]
    assert any("gone since" in what for what in judge(server))


def test_a_lease_that_is_there_is_not_told_gone() -> None:
    server = scene()
    renew(server).result = [[LEASE, 0]]
    assert any("before it was" in what for what in judge(server))


def test_a_lease_that_never_was_is_not_renewed() -> None:
    server = scene()
    server.do("holder", Kind.RENEWAL, [77]).result = [[77, 5]]
    assert any("which never was" in what for what in judge(server))


def test_a_ttl_is_the_granted_one() -> None:
    server = scene()
    renew(server).result = [[LEASE, TTL_S + 5]]
    assert any("not 10 s" in what for what in judge(server))
