"""Plain puts are applied many at once; nothing but the time it takes may tell (S15, S18)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partialmethod
from typing import Any

import pytest
from attrs import asdict
from hypothesis import given, settings
from hypothesis import strategies as st

from coord.codec import encode
from coord.mvcc.applied import Applied, PutRun
from coord.mvcc.apply import WriteApplier
from coord.mvcc.index import KeyIndex
from coord.mvcc.leases import LeaseTable
from coord.protocol.check import check_write, plain_puts
from coord.protocol.entries import Frame, WritesHeader, encode_writes
from coord.testing import operations as ops

from .rig import ALARM, GRANT, PUT, Rig, frame

PLAIN = st.tuples(ops.keys, ops.values).map(lambda pair: [0, PUT, None, list(pair)])
CLIENT, OTHER = 3, 4  # the entries that register them


def one_by_one(rig: Rig) -> Rig:
    """Have each write of a member judged by itself."""

    class OneByOne(WriteApplier):
        __slots__ = ()

        def _plain_until(self, frame: Any, record: Any, start: int) -> int:
            return start

    old = rig.machine._writes
    rig.machine._writes = OneByOne(old.backend, old.writer, old.transactions, old.clients, old.cluster)
    return rig


def told(applied: Applied) -> dict[str, Any]:
    """Return all that an entry's outcome tells, whatever it was kept as."""
    kept = asdict(applied, recurse=False, filter=lambda field, _: field.name not in ("outcomes", "changes"))
    return kept | {"answers": applied.answers, "events": applied.events}


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """A frame of mostly plain puts: with numbers or without, some of them closed, known, ahead or twice there."""
    writes = draw(st.lists(st.one_of(PLAIN, PLAIN, PLAIN, ops.writes()), min_size=1, max_size=6))
    client = draw(st.sampled_from((0, CLIENT, CLIENT, OTHER, 99)))
    number = draw(st.integers(0, 12))
    for write in writes:
        number += draw(st.sampled_from((1, 1, 1, 1, 0, -1, 1100)))
        write[0] = max(number, 0) if client or not draw(st.integers(0, 9)) else 0
    settled = draw(st.sampled_from(({}, {}, {}, {1: (1, 55, 10)})))
    low = draw(st.integers(0, 8)) if client else 0
    body = encode(writes) if draw(st.integers(0, 19)) else draw(st.sampled_from((b"\x80", b"\x81\x01", b"\xff")))
    return Frame(client, low, "", settled, body)


def entries() -> st.SearchStrategy[bytes]:
    """Frames of one client or of several, the same one twice among them."""
    return st.lists(frames(), min_size=1, max_size=5).map(lambda some: encode_writes(WritesHeader(7, 1, 128), some))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.one_of(entries(), entries(), entries(), st.sampled_from(("flush", "alarm"))), max_size=8))
def test_many_at_once_is_the_same_as_one_by_one(script: list[Any]) -> None:
    rig, other = Rig(), one_by_one(Rig())
    for each in (rig, other):
        each.write(GRANT, 60, 1)
        assert each.register() == CLIENT
        assert each.register() == OTHER
    for step in script:
        if step == "flush":
            assert rig.rows() == other.rows()
        elif step == "alarm":
            is_on = bool(rig.machine.alarms)
            assert rig.write(ALARM, int(is_on), 7, 1) == other.write(ALARM, int(is_on), 7, 1)
        else:
            assert told(rig.apply(step)) == told(other.apply(step))
    assert rig.backend.records == other.backend.records
    assert rig.machine.applied_by_op == other.machine.applied_by_op
    assert rig.hash() == other.hash()
    assert rig.rows() == other.rows()
    rig.reload()
    assert rig.hash() == other.hash()


@settings(deadline=None, derandomize=True)
@given(st.lists(st.one_of(PLAIN, ops.writes()), max_size=5), st.integers(0, 5))
def test_a_plain_put_passes_the_check(writes: list[Any], start: int) -> None:
    end = plain_puts(writes, start)
    assert all(check_write(write, 128) is None and len(write[3]) == 2 for write in writes[start:end])
    if end < len(writes):
        _, op, guard, arguments = writes[end]
        assert op != PUT or guard is not None or len(arguments) > 2 or not arguments[0]


@pytest.mark.parametrize("put", [[b"", b""], ["k", b""], [b"k", 1], [b"k"], {}, None, [b"k", b"", 0]])
def test_what_is_no_plain_put(put: Any) -> None:
    assert plain_puts([[0, PUT, None, [b"k", b""]], [0, PUT, None, put]], 0) == 1
    assert plain_puts([[0, PUT, [b"k", 1], [b"k", b""]]], 0) == 0
    assert plain_puts([[0, float(PUT), None, [b"k", b""]]], 0) == 0


@pytest.mark.parametrize(
    ("owner", "methods", "raising", "is_late"),
    [
        # The call between those two undoes.
        (KeyIndex, ("put", "latest"), (1, 3), False),
        (KeyIndex, ("put", "replace"), (1, 2), False),
        (LeaseTable, ("move",), (1, 3), False),
        (LeaseTable, ("move",), (1, 3), True),
    ],
)
def test_a_put_that_raises_changes_nothing_and_the_others_stand(
    owner: type, methods: Sequence[str], raising: tuple[int, int], is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, other = Rig(), Rig()
    for each in (rig, other):
        each.write(GRANT, 60, 1)
        assert each.register() == CLIENT
        assert each.register() == OTHER
        each.put(b"k2", b"old", 1)
    calls = 0

    def planted(self: Any, key: bytes, *arguments: Any, honest: Callable[..., Any]) -> Any:
        nonlocal calls
        calls += key == b"k2"
        # Among the others, and then in a draft of its own.
        does_raise = key == b"k2" and calls in raising
        result = honest(self, key, *arguments) if is_late or not does_raise else None
        if does_raise:
            raise RuntimeError("planted")
        return result

    puts = [[number, PUT, None, [b"k%d" % number, b"new"]] for number in range(1, 6)]
    refused = frame(puts[0], settled={0: (0, ["Unavailable", "refused", []])})
    last = frame(*puts[3:], client=OTHER, low=1)
    with monkeypatch.context() as patch:
        for method in methods:
            patch.setattr(owner, method, partialmethod(planted, honest=getattr(owner, method)))
        answers = rig.frames(refused, frame(*puts[:3], client=CLIENT, low=1), last)
    assert [answer.ok for answer in answers] == [False, True, False, True, True, True]
    assert answers[2].result == ("Internal", "coord: applying this write raised RuntimeError; nothing was changed")
    assert [note[1]["position"] for note in rig.last.notes] == [2]
    others = other.frames(refused, frame(puts[0], puts[2], client=CLIENT, low=1), last)
    assert [*answers[:2], *answers[3:]] == others
    assert rig.hash() == other.hash()
    assert rig.machine.lease_keys(1) == [b"k2"]
    assert rig.entry(puts[1], client=CLIENT, low=1) == [answers[2]]


def test_a_put_is_known_by_itself_until_it_is_stored_and_by_its_digest_from_then_on() -> None:
    """S18: the record answers alike before and after; what was put does not stay in memory with it."""
    rig = Rig()
    assert rig.register() == CLIENT - 1
    client = CLIENT - 1
    put, another = [1, PUT, None, [b"k", b"v" * 1000]], [1, PUT, None, [b"k", b"w" * 1000]]
    first = rig.entry(put, client=client, low=1)
    for _ in range(2):
        assert rig.entry(put, client=client, low=1) == first
        (answer,) = rig.entry(another, client=client, low=1)
        assert answer.result == ("InvalidArgument", "coord: number 1 stands for another write")
        rig.machine.flush_rows()
    record = rig.machine._clients.use(client, 1, (rig.machine.applied_index, 0))
    assert record is not None
    assert not any(isinstance(kept, PutRun) for kept in record.answers.values())
    rig.reload()
    assert rig.entry(put, client=client, low=1) == first
