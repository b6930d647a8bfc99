"""Plain puts are applied many at once; nothing but the time it takes may tell (S15, S18)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partialmethod
from typing import Any

import pytest
from attrs import asdict
from hypothesis import given, settings
from hypothesis import strategies as st

from coord.codec import decode, encode
from coord.errors import ApiError, DecodeError
from coord.limits import ANSWER_BYTES_KEPT
from coord.mvcc.applied import Applied
from coord.mvcc.index import KeyIndex
from coord.mvcc.leases import LeaseTable
from coord.protocol.bodies import check_body, encode_body, writes_of
from coord.protocol.entries import NOTHING, Frame, WritesHeader, encode_writes
from coord.protocol.ops import AlarmAction, Op
from coord.testing import operations as ops
from coord.testing.model import Answer
from coord.types import AlarmType

from .rig import ALARM, GRANT, PUT, Rig, frame

PLAIN = st.tuples(ops.keys, ops.values).map(lambda pair: [0, PUT, None, list(pair)])
STEPS = ("flush", AlarmType.NOSPACE, AlarmType.CORRUPT)
CLIENT, OTHER = 3, 4  # the entries that register them


def told(applied: Applied) -> dict[str, Any]:
    """Return all that an entry's outcome tells, whatever it was kept as."""
    kept = asdict(applied, recurse=False, filter=lambda field, _: field.name not in ("outcomes", "changes"))
    return kept | {"answers": applied.answers, "events": applied.events}


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """A frame of mostly plain puts: with numbers or without, some of them closed, known, ahead or twice there."""
    kinds = draw(st.sampled_from(((PLAIN,), (PLAIN,), (PLAIN, PLAIN, PLAIN, ops.writes()))))
    writes = draw(st.lists(st.one_of(*kinds), min_size=1, max_size=6))
    client = draw(st.sampled_from((0, CLIENT, CLIENT, OTHER, 99)))
    number = draw(st.integers(0, 12))
    for write in writes:
        number += draw(st.sampled_from((1, 1, 1, 1, 1, 1, 1, 1, 0, -1, 1100)))
        write[0] = max(number, 0) if client or not draw(st.integers(0, 9)) else 0
    settled = draw(st.sampled_from(({}, {}, {}, {1: (1, 55, 10)})))
    low = draw(st.integers(0, 8)) if client else 0
    body = encode_body(writes) if draw(st.integers(0, 19)) else draw(st.sampled_from((b"\x80", b"\x81\x01", b"\xff")))
    return Frame(client, low, "", settled, body)


def one_by_one(frame: Frame) -> Frame:
    """Return a frame that says the same with each write by itself, as one without plain puts does."""
    try:
        body = decode(frame.body)
        check_body(body)
    except (ApiError, DecodeError):
        return frame
    return frame._replace(body=encode(writes_of(body)))


def entries() -> st.SearchStrategy[list[Frame]]:
    """Frames of one client or of several, the same one twice among them."""
    return st.lists(frames(), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(entries(), entries(), entries(), st.sampled_from(("flush", AlarmType.NOSPACE, AlarmType.CORRUPT))),
        max_size=8,
    )
)
def test_many_at_once_is_the_same_as_one_by_one(script: list[Any]) -> None:
    rig, other = Rig(), Rig()
    for each in (rig, other):
        each.write(GRANT, 60, 1)
        assert each.register() == CLIENT
        assert each.register() == OTHER
    for step in script:
        if step == "flush":
            assert rig.rows() == other.rows()
        elif isinstance(step, AlarmType):
            action = AlarmAction.DEACTIVATE if (7, step) in rig.machine.alarms else AlarmAction.ACTIVATE
            assert rig.write(ALARM, action, 7, step) == other.write(ALARM, action, 7, step)
        else:
            header = WritesHeader(7, 1, 128)
            applied = rig.apply(encode_writes(header, step))
            assert told(applied) == told(other.apply(encode_writes(header, list(map(one_by_one, step)))))
    assert rig.backend.records == other.backend.records
    assert rig.machine.applied_by_op == other.machine.applied_by_op
    assert rig.hash() == other.hash()
    assert rig.rows() == other.rows()
    rig.reload()
    assert rig.hash() == other.hash()


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


@pytest.mark.parametrize(
    ("op", "arguments", "others"),
    [
        (PUT, [b"k", b"v" * 1000], [b"k", b"w" * 1000]),
        (Op.DELETE_RANGE, [b"k"], [b"l"]),
        (Op.TXN, [[], [[PUT, [b"k", b"v"]]], []], [[], [[PUT, [b"k", b"w"]]], []]),
        (Op.LEASE_REVOKE, [77], [78]),
        (Op.TXN, [[], [], [[PUT, [b"k", b"v" * 2000]]]], [[], [], [[PUT, [b"k", b"w" * 2000]]]]),
    ],
)
def test_a_write_is_known_by_itself_until_it_is_stored_and_by_its_digest_from_then_on(
    op: int, arguments: list[Any], others: list[Any]
) -> None:
    """S18: the record answers alike before and after; what was put does not stay in memory with it."""
    rig = Rig()
    assert rig.register() == CLIENT - 1
    client = CLIENT - 1
    write, another = [1, int(op), None, arguments], [1, int(op), None, others]
    first = rig.entry(write, client=client, low=1)
    record = rig.machine._clients.use(client, 1, (rig.machine.applied_index, 0))
    assert record is not None
    is_large = len(encode(write)) > ANSWER_BYTES_KEPT and op != PUT
    assert isinstance(record.answers[1], tuple) == is_large, "what nothing bounds is not held"
    for _ in range(2):
        assert rig.entry(write, client=client, low=1) == first
        (answer,) = rig.entry(another, client=client, low=1)
        assert answer.result == ("InvalidArgument", "coord: number 1 stands for another write")
        rig.machine.flush_rows()
    record = rig.machine._clients.use(client, 1, (rig.machine.applied_index, 0))
    assert record is not None
    assert [type(kept) for kept in record.answers.values()] == [tuple]
    rig.reload()
    assert rig.entry(write, client=client, low=1) == first


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize(("first", "again"), [(encode_body, encode), (encode, encode_body), (encode_body, encode_body)])
def test_a_put_is_the_same_in_a_run_and_by_itself(
    first: Callable[[Any], bytes], again: Callable[[Any], bytes], is_stored: bool
) -> None:
    """S18: the form is no part of a write, so that a number gets its answer in the one that it did not come in."""
    rig = Rig()
    client = rig.register()

    def sent(form: Callable[[Any], bytes], *writes: list[Any]) -> list[Answer]:
        # Behind another's put, with which a run is applied.
        others = frame([0, PUT, None, [b"other", b""]], [0, PUT, None, [b"other", b""]])
        return rig.frames(others, Frame(client, 1, "", NOTHING, form(writes)))[2:]

    puts = [[number, PUT, None, [b"k%d" % number, b"v%d" % number]] for number in range(1, 7)]
    known = sent(first, *puts[2:4])
    if is_stored:
        rig.machine.flush_rows()
    answers = sent(again, *puts)
    assert [answer.ok for answer in answers] == [True] * 6
    assert answers[2:4] == known
    for put, answer in zip(puts, answers, strict=True):
        assert sent(first, put) == sent(again, put) == [answer]
    refused = sent(again, *([number, PUT, None, [b"k", b"another"]] for number in range(1, 7)))
    assert not any(answer.ok for answer in refused)
    assert {answer.result[1].partition(" stands ")[2] for answer in refused} == {"for another write"}
    assert [rig.get(put[3][0])[3:] for put in puts] == [[1, 0, put[3][1]] for put in puts]


def test_what_is_no_body_is_answered_in_its_place() -> None:
    rig = Rig()
    good = frame([0, PUT, None, [b"k", b""]])
    answers = rig.frames(good, Frame(0, 0, "", NOTHING, encode([1])), good)
    assert [(answer.revision, answer.ok) for answer in answers] == [(2, True), (2, False), (3, True)]
