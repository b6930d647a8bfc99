"""The checkers accept what a perfect server did, and find every way in which it is spoilt."""

from __future__ import annotations

from typing import Any

import pytest
from tests.simulation.histories import Perfect, perfect

from coord.errors import FailedPrecondition, OutcomeUnknown
from coord.protocol.ops import Op
from coord.testing.history import Kind, Operation, Outcome
from coord.testing.history_ledger import Ledger, Split, replay

SEEDS = range(12)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_perfect_history_is_accepted(seed: int) -> None:
    server = perfect(seed)
    assert server.check() == []
    assert server.history.count(Kind.WRITE, Outcome.DONE) > 15
    assert server.history.count(Kind.READ, Outcome.DONE) > 5


def done(server: Perfect, kind: Kind, *ops: Op) -> list[Operation]:
    found = [one for one in server.history.operations if one.kind is kind and one.is_done]
    return [one for one in found if not ops or one.request[1] in ops]


def without(ledger: Ledger, index: int) -> Ledger:
    """Return a ledger in which an entry is missing, and the later ones follow without a gap."""
    kept = [entry for at, entry in sorted(ledger.entries.items()) if at != index]
    times = [time for at, time in sorted(ledger.committed_at.items()) if at != index]
    return Ledger(dict(enumerate(kept, 1)), dict(enumerate(times, 1)))


@pytest.mark.parametrize("seed", SEEDS)
def test_an_acknowledged_write_that_is_not_in_the_log_is_found(seed: int) -> None:
    server = perfect(seed)
    put = done(server, Kind.WRITE, Op.PUT)[-1]
    value = put.request[3][1]
    index = next(at for at, (_, data) in server.ledger.entries.items() if b"\x82\x41" in data and value in data)
    server.ledger = without(server.ledger, index)
    assert any("never committed" in what for what in server.check())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stale_read_is_found_by_revisions_and_by_values(seed: int) -> None:
    server = perfect(seed)
    server.put(b"a", b"old")
    old = server.model.read([b"a"])
    server.put(b"a", b"new")
    read = server.call("reader", Kind.READ, [b"a"])
    server.finish(read, old)
    found = server.check()
    assert any("went back in time" in what for what in found)
    assert any("illegal" in what for what in found)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_read_of_what_never_was_is_found(seed: int) -> None:
    server = perfect(seed)
    read = done(server, Kind.READ)[-1]
    read.result = [[[read.request[0], 2, 2, 1, 0, b"invented"]], False, 1]
    found = server.check()
    assert any("read what is not there" in what for what in found)
    assert any("illegal" in what for what in found)


def test_a_write_applied_twice_is_found() -> None:
    server = perfect(1)
    server.put(b"a", b"once")
    server.write(0, 0, [0, int(Op.PUT), None, [b"a", b"once"]])
    assert any("stands 2 times in the log" in what for what in server.check())


def test_a_numbered_write_may_stand_in_the_log_twice() -> None:
    server = Perfect(perfect(0).chance)
    session = server.write(0, 0, [0, int(Op.REGISTER), None, []]).result
    operation = server.do("c", Kind.WRITE, [1, int(Op.PUT), None, [b"a", b"once"]], session)
    server.write(session, 1, operation.request)
    assert server.check() == []
    assert server.model.revision == 2


def test_a_refused_write_that_happened_is_found() -> None:
    server = Perfect(perfect(0).chance)
    operation = server.call("c", Kind.WRITE, [0, int(Op.PUT), None, [b"a", b"x"]])
    server.act(operation)
    server.history.failed(operation, FailedPrecondition("etcdserver: no leader"), server.now)
    assert any("was refused, but happened" in what for what in server.check())


def test_a_write_of_unknown_outcome_may_have_happened_or_not() -> None:
    server = Perfect(perfect(0).chance)
    for value in (b"x", b"y"):
        operation = server.call("c", Kind.WRITE, [0, int(Op.PUT), None, [b"a", value]])
        if value == b"x":
            server.act(operation)
        server.history.failed(operation, OutcomeUnknown("etcdserver: request timed out"), server.now)
    server.do("c", Kind.READ, [b"a"])
    assert server.check() == []


def test_a_wrong_answer_is_found() -> None:
    server = Perfect(perfect(0).chance)
    session = server.write(0, 0, [0, int(Op.REGISTER), None, []]).result
    server.put(b"a", b"1")
    operation = server.do("c", Kind.WRITE, [1, int(Op.DELETE_RANGE), None, [b"a"]], session)
    operation.result = [0, []]
    assert any("was answered wrongly" in what for what in server.check())


def test_a_revision_that_is_not_its_own_is_found() -> None:
    server = Perfect(perfect(0).chance)
    server.put(b"a", b"1")
    operation = server.put(b"a", b"2")
    operation.revision -= 1
    assert any("was answered wrongly" in what for what in server.check())


def test_a_log_that_stands_against_time_is_found() -> None:
    server = Perfect(perfect(0).chance)
    first, second = (
        server.call("c", Kind.WRITE, [0, int(Op.TXN), None, [[], [[int(Op.PUT), [key, key]]], []]])
        for key in (b"a", b"b")
    )
    answers: list[Any] = [server.act(second), server.act(first)]
    server.finish(first, answers[1])
    server.finish(second, answers[0])
    assert server.check() == []
    second.called_order = int(first.returned_order) + 1
    assert any("took effect before it was sent" in what for what in server.check())


def test_a_local_read_may_be_old_but_not_older_than_its_client_has_seen() -> None:
    server = Perfect(perfect(0).chance)
    request = [b"\0", b"\0", 0, 0, 0, 0, True]
    server.put(b"a", b"1")
    old = server.model.read(request)
    server.put(b"a", b"2")
    for _ in range(2):
        server.finish(server.call("reader", Kind.LOCAL_READ, request), old)
        assert server.check() == []
    server.do("reader", Kind.READ, [b"a"])
    server.finish(server.call("reader", Kind.LOCAL_READ, request), old)
    assert any("one client saw less than before" in what for what in server.check())


def test_members_that_commit_other_entries_have_split() -> None:
    ledger = Ledger()
    ledger.commit("n1", 1, 1, b"x", 0.0)
    ledger.commit("n2", 1, 1, b"x", 1.0)
    with pytest.raises(Split):
        ledger.commit("n2", 1, 2, b"x", 2.0)
    ledger.commit("n3", 3, 2, b"y", 3.0)
    with pytest.raises(Split):
        replay(Ledger({3: (1, b"")}, {3: 0.0}))
