"""Ranges in slices: pinned while entries are applied, whole or `compacted` (S7), bounded."""

from __future__ import annotations

from typing import Any

import pytest

from coord.codec import decode
from coord.errors import Compacted, OutOfRange, ResourceExhausted
from coord.limits import RANGE_SLICE_KEYS
from coord.mvcc import ranges
from coord.mvcc.backend import Position
from coord.mvcc.index import KeyIndex
from coord.mvcc.ranges import RangeReader, encode_range
from coord.protocol.ranges import parse_range

from .rig import ALL, COMPACT, DELETE, RANGE, Rig, run

MANY = RANGE_SLICE_KEYS * 2 + 10


@pytest.fixture(scope="module")
def filled() -> Rig:
    return fill()


def fill() -> Rig:
    rig = Rig()
    for start in range(0, MANY, 100):
        rig.entry(*([0, 1, None, [b"%06d" % number, b"1"]] for number in range(start, min(start + 100, MANY))))
    return rig


def test_a_range_yields_every_slice(filled: Rig) -> None:
    steps = filled.machine.range(parse_range([*ALL]))
    assert sum(1 for _ in steps) == 2


def test_a_range_in_slices_stays_at_its_revision() -> None:
    rig = fill()
    expected = rig.range(*ALL)
    steps = rig.machine.range(parse_range([*ALL]))
    next(steps)
    for number in range(MANY):
        if number % 7 == 0:
            rig.put(b"%06d" % number, b"2")
        elif number % 7 == 1:
            rig.write(DELETE, b"%06d" % number)
        elif number % 7 == 2:
            rig.put(b"%06dx" % number, b"new")
    records, more, count = run(steps)
    assert [[decode(record) for record in records], more, count] == expected


def compaction_fails_the_whole_range(options: list[Any], slices: int = 1) -> None:
    rig = fill()
    steps = rig.machine.range(parse_range([*ALL, *options]))
    rig.put(b"later", b"1")
    for _ in range(slices):
        next(steps)
    rig.put(b"000000", b"2")
    rig.write(COMPACT, rig.machine.revision)
    with pytest.raises(Compacted) as caught:
        run(steps)
    assert caught.value.compact_revision == rig.machine.revision


@pytest.mark.parametrize("options", [[], [0, 0, 2, 3], [0, 0, 0, 0, False, False, True]])
def test_compaction_fails_the_whole_range(options: list[Any]) -> None:
    compaction_fails_the_whole_range(options)


@pytest.mark.parametrize("slices", [1, 2, 3, 4])
def test_compaction_between_any_two_slices_of_a_sorted_range_fails_it(slices: int) -> None:
    """Two of the steps look at the keys, and two read what was chosen."""
    compaction_fails_the_whole_range([0, 0, 2, 3], slices)


def test_planted_reading_on_after_compaction_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RangeReader, "_check_floor", lambda self, revision: None)
    with pytest.raises(pytest.fail.Exception):
        compaction_fails_the_whole_range([])


def test_a_page_looks_at_no_key_behind_it(filled: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a large interval holds is counted without a look at each key, as long as nothing has changed since."""
    looked_at = 0
    positions_at = KeyIndex.positions_at

    def counted(index: KeyIndex, keys: list[bytes], revision: int) -> list[Position]:
        nonlocal looked_at
        looked_at += len(keys)
        return positions_at(index, keys, revision)

    monkeypatch.setattr(KeyIndex, "positions_at", counted)
    assert filled.range(*ALL, 10)[1:] == [True, MANY]
    assert looked_at == RANGE_SLICE_KEYS
    assert filled.range(*ALL, 0, 0, 0, 0, False, False, True) == [[], False, MANY]
    assert looked_at == RANGE_SLICE_KEYS
    assert filled.range(b"000010", b"000030", 5)[1:] == [True, 20]


def test_a_count_is_of_its_revision() -> None:
    rig = fill()
    page, count_only = [*ALL, 10], [*ALL, 0, 0, 0, 0, False, False, True]
    paging = rig.machine.range(parse_range(page))
    counting = rig.machine.range(parse_range(count_only))
    rig.write(DELETE, b"000000")
    rig.put(b"new", b"1")
    rig.put(b"newer", b"1")
    assert [run(steps)[2] for steps in (paging, counting)] == [MANY, MANY]
    assert rig.range(*page)[2] == rig.range(*count_only)[2] == MANY + 1


def test_compaction_at_the_pinned_revision_does_no_harm() -> None:
    rig = fill()
    steps = rig.machine.range(parse_range([*ALL]))
    next(steps)
    rig.write(COMPACT, rig.machine.revision)
    rig.compact_physically()
    assert run(steps)[2] == MANY


def test_answers_are_bounded(filled: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(len(record) for record in filled.backend.records.values())
    monkeypatch.setattr(ranges, "REPLY_BYTES_MAX", size)
    assert filled.range(*ALL)[2] == MANY
    monkeypatch.setattr(ranges, "REPLY_BYTES_MAX", size - 1)
    for options in ([], [0, 0, 2, 1]):
        with pytest.raises(ResourceExhausted):
            filled.range(*ALL, *options)
    assert len(filled.range(*ALL, MANY - 1)[0]) == MANY - 1


def test_revisions_out_of_the_window(filled: Rig) -> None:
    with pytest.raises(OutOfRange, match="future revision"):
        filled.range(*ALL, 0, filled.machine.revision + 1)
    assert filled.range(*ALL, 1, -1)[1:] == [True, MANY]


def test_the_cut_before_the_sort_is_etcds() -> None:
    """Without an order, a target other than the key sorts what limit + 1 let in, and then cuts."""
    rig = Rig()
    for key, versions in ((b"a", 3), (b"b", 2), (b"c", 1), (b"d", 1)):
        for _ in range(versions):
            rig.put(key)
    found = [pair[0] for pair in rig.range(*ALL, 2, 0, 0, 1)[0]]
    assert found == [b"c", b"b"]
    found = [pair[0] for pair in rig.range(*ALL, 2, 0, 1, 1)[0]]
    assert found == [b"c", b"d"]


def test_keys_only_keeps_the_lease() -> None:
    rig = Rig()
    rig.write(5, 60, 9)
    rig.put(b"a", b"value", 9)
    assert rig.range(b"a", b"", 0, 0, 0, 0, False, True)[0] == [[b"a", 2, 2, 1, 9, b""]]


def test_get_is_the_newest_record() -> None:
    rig = Rig()
    assert rig.get(b"a") is None
    rig.put(b"a", b"1")
    rig.put(b"a", b"2")
    assert rig.get(b"a") == [b"a", 2, 3, 2, 0, b"2"]
    rig.write(DELETE, b"a")
    assert rig.get(b"a") is None


def test_encoded_ranges_are_their_cbor(filled: Rig) -> None:
    result = run(filled.machine.range(parse_range([*ALL, 30])))
    assert decode(encode_range(result)) == [[decode(record) for record in result[0]], True, MANY]


def test_read_txns() -> None:
    rig = Rig()
    rig.put(b"a", b"1")
    arguments = [[[0, 0, b"a", 1]], [[RANGE, [b"a"]]], []]
    serve, is_serializable = rig.machine.read_txn(arguments, 128)
    rig.put(b"a", b"2")
    assert not is_serializable
    assert decode(serve()) == [False, []]
    serializable = [RANGE, [b"a", b"", 0, 0, 0, 0, True]]
    assert rig.machine.read_txn([[], [serializable], []], 128)[1]
    assert not rig.machine.read_txn([[], [serializable], [[RANGE, [b"a"]]]], 128)[1]
    # On purpose unlike etcd: one that only compares is linearizable.
    assert not rig.machine.read_txn([[[0, 0, b"a", 1]], [], []], 128)[1]
    serve, _ = rig.machine.read_txn([[], [[RANGE, [b"a", b"", 0, 99]]], []], 128)
    with pytest.raises(OutOfRange):
        serve()
    assert rig.machine.revision == 3


@pytest.mark.parametrize("arguments", [[[], [[1, [b"a", b""]]], []], [[], [[3, [[], [], []]]], []], [[], []], None])
def test_read_txns_read_only(arguments: Any) -> None:
    with pytest.raises(Exception, match="coord: "):
        Rig().machine.read_txn(arguments, 128)


def test_who_asks_for_its_predecessor_in_a_crowd_has_one_record_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand waiters for a lock ask so, one by one: each costs the index a walk, and the store one record."""
    rig = Rig()
    for number in range(50):
        rig.put(b"crowd/%02d" % (number * 7 % 50), b"")
    rig.put(b"crowd/00", b"touched later")
    reads = 0
    read = rig.backend.read

    def counted(revision: int, sub: int) -> bytes:
        nonlocal reads
        reads += 1
        return read(revision, sub)

    monkeypatch.setattr(rig.backend, "read", counted)
    own = rig.machine.revision - 20
    descending_by_create = [b"crowd0", 1, 0, 2, 2, False, True, False, 0, 0, 0, own - 1]
    records, more, count = rig.range(b"crowd/", *descending_by_create)
    assert [record[1] for record in records] == [own - 1]
    assert (more, count, reads) == (True, 50, 1)
