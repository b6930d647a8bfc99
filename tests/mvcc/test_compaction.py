"""Compaction: what remains, what goes, and a hash that does not see how far removal has come."""

from __future__ import annotations

import pytest

from coord.errors import Compacted
from coord.limits import COMPACTION_SLICE_KEYS
from coord.mvcc import compaction

from .rig import ALL, COMPACT, DELETE, TXN, Rig, run


def history() -> Rig:
    """a: 2 4 6(deleted) 8; b: 3 5; c: 7 9(deleted)."""
    rig = Rig()
    for key, deletes in ((b"a", 0), (b"b", 0), (b"a", 0), (b"b", 0), (b"a", 1), (b"c", 0), (b"a", 0), (b"c", 1)):
        if deletes:
            rig.write(DELETE, key)
        else:
            rig.put(key, b"%d" % (rig.machine.revision + 1))
    return rig


@pytest.mark.parametrize(
    ("revision", "kept"),
    [
        (2, [2, 3, 4, 5, 6, 7, 8, 9]),
        (4, [3, 4, 5, 6, 7, 8, 9]),
        (5, [4, 5, 6, 7, 8, 9]),
        (6, [5, 6, 7, 8, 9]),  # the delete at the compacted revision stays, for a watch from there
        (7, [5, 7, 8, 9]),
        (9, [5, 8, 9]),
    ],
)
def test_what_remains(revision: int, kept: list[int]) -> None:
    rig = history()
    states = {at: rig.range(*ALL, 0, at) for at in range(revision, 10)}
    assert rig.write(COMPACT, revision).ok
    assert rig.last.compacted == revision
    before = rig.hash()
    for restarts in (False, True):
        if restarts:
            rig.reload()
        rig.compact_physically()
        assert [position[0] for position in sorted(rig.backend.records)] == kept
        assert {at: rig.range(*ALL, 0, at) for at in range(revision, 10)} == states
        with pytest.raises(Compacted):
            rig.range(*ALL, 0, revision - 1)
        assert rig.hash() == before


def test_a_compaction_that_stopped_halfway_goes_on_after_a_restart() -> None:
    rig = history()
    rig.write(COMPACT, 9)
    before = rig.hash()
    for positions in rig.machine.compaction_steps():
        if positions:
            rig.backend.remove(positions)
            break
    rig.reload()
    assert rig.hash() == before
    rig.compact_physically()
    assert [position[0] for position in sorted(rig.backend.records)] == [5, 8, 9]
    assert rig.compact_physically() == 0


def test_a_kept_delete_goes_with_the_next_compaction() -> None:
    rig = history()
    rig.write(COMPACT, 9)
    rig.compact_physically()
    assert rig.machine.key_count == 3
    rig.put(b"z")
    rig.write(COMPACT, 10)
    rig.compact_physically()
    assert sorted(rig.backend.records) == [(5, 0), (8, 0), (10, 0)]
    assert rig.machine.key_count == 3
    assert rig.put(b"c").ok
    assert rig.get(b"c")[3] == 1


def test_entries_may_be_applied_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "COMPACTION_SLICE_KEYS", 1)
    rig, other = Rig(), Rig()
    for number in range(100):
        for each in (rig, other):
            each.put(b"k%d" % (number % 20), b"%d" % number)
    for each in (rig, other):
        each.write(COMPACT, 90)
    for number, positions in enumerate(rig.machine.compaction_steps()):
        rig.backend.remove(positions)
        for each in (rig, other):
            each.put(b"k%d" % (number % 25), b"later")
            each.write(DELETE, b"k%d" % ((number * 7) % 20))
    assert rig.hash() == other.hash()
    assert rig.range(*ALL) == other.range(*ALL)
    assert rig.range(*ALL, 0, 95) == other.range(*ALL, 0, 95)
    other.compact_physically()
    assert rig.backend.records == other.backend.records


def test_slices_are_bounded() -> None:
    rig = Rig()
    count = COMPACTION_SLICE_KEYS // 2
    for _ in range(3):
        for start in range(0, count, 50):
            rig.entry(*([0, 1, None, [b"%d" % number, b""]] for number in range(start, start + 50)))
    rig.write(COMPACT, rig.machine.revision)
    sizes = [len(positions) for positions in rig.machine.compaction_steps()]
    assert sum(sizes) == 2 * count
    assert max(sizes) <= COMPACTION_SLICE_KEYS


def test_what_goes_goes_in_the_order_in_which_it_lies() -> None:
    rig = Rig()
    for _ in range(3):
        for start in range(0, 6_000, 100):
            rig.entry(*([0, 1, None, [b"%d" % number, b""]] for number in range(start, start + 100)))
    rig.write(DELETE, *ALL)
    rig.put(b"z")
    rig.write(COMPACT, rig.machine.revision)
    dead = [position for positions in rig.machine.compaction_steps() for position in positions]
    assert len(dead) == 4 * 6_000
    assert dead == sorted(dead)


@pytest.mark.parametrize(
    ("revisions", "texts"),
    [
        ([0, 0], ["", "required revision has been compacted"]),
        ([-1], ["required revision has been compacted"]),
        ([5, 5, 4], ["", "required revision has been compacted", "required revision has been compacted"]),
        ([10], ["required revision is a future revision"]),
        ([9], [""]),
    ],
)
def test_which_revisions_can_be_compacted(revisions: list[int], texts: list[str]) -> None:
    rig = history()
    for revision, text in zip(revisions, texts, strict=True):
        answer = rig.write(COMPACT, revision)
        assert answer.ok is not bool(text)
        assert text in str(answer.result)


def test_physical_compaction_is_marked() -> None:
    rig = history()
    rig.entry([0, 1, None, [b"a", b""]], [0, COMPACT, None, [5, True]], [0, COMPACT, None, [6]])
    assert rig.last.physical == [1]
    assert rig.last.compacted == 6


def test_a_key_changed_twice_in_one_revision_keeps_its_last() -> None:
    rig = Rig()
    nested = [[3, [[], [[1, [b"a", b"1"]]], []]], [3, [[], [[2, [b"a"]]], []]]]
    assert rig.write(TXN, [], nested, []).ok
    rig.put(b"b")
    assert sorted(rig.backend.records) == [(2, 0), (2, 1), (3, 0)]
    rig.write(COMPACT, 2)
    rig.compact_physically()
    assert sorted(rig.backend.records) == [(2, 1), (3, 0)]
    rig.write(COMPACT, 3)
    rig.compact_physically()
    assert sorted(rig.backend.records) == [(3, 0)]


# ---- the hash


def test_the_hash_tells_states_apart() -> None:
    hashes = [history().hash(revision)[0] for revision in range(1, 10)]
    assert len(set(hashes)) == 9
    other = Rig()
    other.put(b"a", b"x")
    assert other.hash(2)[0] != hashes[1]


def test_the_hash_starts_again_if_a_compaction_comes_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "HASH_SLICE_RECORDS", 2)
    rig = history()
    steps = rig.machine.hash_kv(9)
    next(steps)
    rig.write(COMPACT, 8)
    assert run(steps) == rig.hash(9)
    steps = rig.machine.hash_kv(8)
    next(steps)
    rig.write(COMPACT, 9)
    with pytest.raises(Compacted):
        run(steps)


def test_hashes_below_the_compacted_revision_are_refused() -> None:
    rig = history()
    rig.write(COMPACT, 5)
    with pytest.raises(Compacted):
        rig.hash(4)
    assert rig.hash(5)[1] == 5


def test_planted_hash_over_what_is_there_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "_remains", lambda *_: True)
    with pytest.raises(AssertionError):
        test_what_remains(9, [5, 8, 9])
