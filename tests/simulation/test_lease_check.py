"""P10, held and broken by hand."""

from __future__ import annotations

import random

import pytest
from tests.simulation.histories import Perfect

from coord.protocol.ops import Op
from coord.testing.history import Kind, Operation, Outcome
from coord.testing.history_ledger import replay
from coord.testing.lease_check import Lasting, check_lasting, check_leases

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


# ---- how long they last (S23)


def busy(ends: float, *changes: float, quiet: tuple[float, float] = (0.0, 0.0)) -> Perfect:
    """Return a cluster that commits all the time, but in `quiet`, and whose leader changes at `changes`.

    It has a lease of 10 s, whose holder is heard at 0 and 5, and which expires at `ends`.
    """
    server = Perfect(random.Random(1))
    server.do("holder", Kind.WRITE, [0, int(Op.LEASE_GRANT), None, [TTL_S, LEASE]])
    while server.now < ends:
        if server.now > 5.0 and server.history.count(Kind.RENEWAL, Outcome.DONE) == 0:
            renew(server)
        server.now += 0.05
        server.term = 1 + sum(at <= server.now for at in changes)
        if not quiet[0] < server.now < quiet[1]:
            server.put(b"k", b"v")
    server.expire(LEASE)
    return server


def lasting(server: Perfect) -> Lasting:
    found = check_lasting(server.history, replay(server.ledger), server.ledger)
    assert found.judged
    return found


@pytest.mark.parametrize(
    ("ends", "changes"),
    [
        (15.4, ()),
        (19.9, (9.9,)),  # nothing was missed: the full TTL again
        (16.6, (14.0,)),  # what was written down 1.25 s before
        (24.0, (9.0, 14.0)),
    ],
)
def test_a_lease_that_lasts_as_long_as_it_may_is_accepted(ends: float, changes: tuple[float, ...]) -> None:
    found = lasting(busy(ends, *changes))
    assert found.found == []
    assert found.lengthened == bool(changes)


@pytest.mark.parametrize(("ends", "changes"), [(15.9, ()), (24.0, (14.0,)), (18.0, (12.0,)), (24.8, (9.0, 14.0))])
def test_a_lease_that_lasts_for_too_long_is_found(ends: float, changes: tuple[float, ...]) -> None:
    (found,) = lasting(busy(ends, *changes)).found
    assert f"over {len(changes)} changes of leaders" in found


def test_a_lease_that_never_ends_is_found() -> None:
    server = busy(15.4)
    last = len(server.ledger.entries)
    del server.ledger.entries[last]
    assert lasting(server).found == []
    server.now = 15.4
    while server.now < 16.0:
        server.put(b"k", b"v")
    assert len(lasting(server).found) == 1


def test_nobody_counts_while_nothing_is_committed() -> None:
    assert lasting(busy(18.0, quiet=(7.0, 9.8))).found == []
    assert len(lasting(busy(18.0, quiet=(2.0, 4.8))).found) == 1


def test_a_lease_whose_holder_may_have_been_heard_later_is_not_judged() -> None:
    server = busy(17.0)
    server.call("holder", Kind.RENEWAL, [LEASE])
    assert check_lasting(server.history, replay(server.ledger), server.ledger) == Lasting()
