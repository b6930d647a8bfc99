"""The index and its ordered keys: right, and invisible to the garbage collector."""

from __future__ import annotations

import gc
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coord.mvcc.compaction import dead_positions
from coord.mvcc.index import DELETED, POSITION, KeyIndex, unpack_state
from coord.mvcc.keys import BLOCK_KEYS_MAX, OrderedKeys

names = st.binary(min_size=1, max_size=2)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(names, max_size=60)),
        st.tuples(st.just("discard"), st.integers(0, 2**32)),
        st.tuples(st.just("slice"), st.tuples(names, st.one_of(st.none(), names), st.integers(1, 400))),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(script=steps, start=st.integers(0, 1200))
def test_ordered_keys_are_a_sorted_set(script: list[tuple[str, Any]], start: int) -> None:
    keys, model = OrderedKeys(), set[bytes]()
    for number in range(start):
        name = (number * 7919 % 65536).to_bytes(2, "big")
        keys.add(name)
        model.add(name)
    for what, argument in script:
        if what == "add":
            for name in argument:
                if name not in model:
                    keys.add(name)
                    model.add(name)
        elif what == "discard":
            gone = [name for name in sorted(model) if hash((name[0], argument)) % 3 == 0]
            keys.discard(gone)
            model.difference_update(gone)
        else:
            first, end, count = argument
            expected = [name for name in sorted(model) if name >= first and (end is None or name < end)]
            assert keys.slice(first, end, count) == expected[:count]
        assert len(keys) == len(model)
    assert keys.slice(b"", None, 2**40) == sorted(model)


def test_a_slice_is_full_wherever_it_starts() -> None:
    """A slice of fewer keys than asked for tells its reader that there are no more."""
    keys = OrderedKeys()
    names = [b"%04d" % (number * 7919 % 1000) for number in range(1000)]
    for name in names:
        keys.add(name)
    names.sort()
    for start in range(0, 1000, 3):
        for count in (1, 100, BLOCK_KEYS_MAX, 700):
            assert keys.slice(names[start], None, count) == names[start : start + count]
            assert keys.slice(names[start] + b"\0", b"0900", count) == names[start + 1 : max(900, start + 1)][:count]


def test_blocks_stay_small_whatever_the_order() -> None:
    for order in (range(5000), range(5000, 0, -1), [number * 7919 % 10007 for number in range(5000)]):
        keys = OrderedKeys()
        for number in order:
            keys.add(b"%08d" % number)
        sizes = [len(block) for block in keys._blocks]
        assert max(sizes) <= BLOCK_KEYS_MAX
        assert len(sizes) < 5000 // (BLOCK_KEYS_MAX // 3)
        keys.discard([b"%08d" % number for number in order])
        assert len(keys._blocks) == 1


def test_keys_in_order_fill_their_blocks() -> None:
    keys = OrderedKeys()
    for number in range(5000):
        keys.add(b"%08d" % number)
    assert len(keys._blocks) == -(-5000 // BLOCK_KEYS_MAX)


def test_the_collector_sees_nothing_of_a_key() -> None:
    index = KeyIndex()
    for number in range(3000):
        for mod in range(1 + number % 3 * 6):
            key = b"%d" % number
            index.replace(key, index.latest(key), (number * 13 + mod, 0, 1, 1, 0))
    assert any(index._history)
    index.keys.slice(b"\0", None, 10)
    gc.collect()
    for shard in (*index._states, *index._history, *index.keys._blocks):
        assert not gc.is_tracked(shard)
        for key, value in shard.items():
            assert not gc.is_tracked(key)
            assert not gc.is_tracked(value)


def positions(packed: bytes | bytearray) -> list[tuple[int, int]]:
    return [(mod, sub & ~DELETED) for mod, sub in POSITION.iter_unpack(packed)]


class History:
    """All positions of a key, as a list."""

    def __init__(self) -> None:
        self.positions: list[tuple[int, int, bool]] = []

    def newest_at(self, revision: int) -> tuple[tuple[int, int] | None, bool]:
        below = [position for position in self.positions if position[0] <= revision]
        return (below[-1][:2], below[-1][2]) if below else (None, False)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    changes=st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 2)), max_size=60),
    prunes=st.lists(st.integers(0, 40), max_size=3),
)
def test_history_against_a_list(changes: list[tuple[int, bool, int]], prunes: list[int]) -> None:
    index, models = KeyIndex(), [History() for _ in range(3)]
    mod, sub = 2, 0
    for which, deletes, step in changes:
        mod, sub = (mod + step, 0) if step else (mod, sub + 1)
        key, model = b"k%d" % which, models[which]
        is_delete = deletes and bool(model.positions) and not model.positions[-1][2]
        if deletes or sub:
            index.replace(key, index.latest(key), (mod, sub, 0 if is_delete else 1, not is_delete, 0))
        else:
            index.put(key, mod)
        model.positions.append((mod, sub, is_delete))
    floor = 0
    for at in [0, *sorted(prunes)]:
        floor = max(floor, at)
        for which, model in enumerate(models):
            key = b"k%d" % which
            dead, gone = index.prune([key], floor)
            # What stays is all above, and the newest at or below, unless that is a delete below.
            below = [position for position in model.positions if position[0] <= floor]
            kept = below[-1:] if below and not (below[-1][2] and below[-1][0] < floor) else []
            kept += [position for position in model.positions if position[0] > floor]
            if floor:
                expected_dead = [position[:2] for position in model.positions if position not in kept]
                assert positions(dead) == expected_dead
                assert gone == ([key] if model.positions and not kept else [])
                model.positions = kept
            if gone:
                index.forget(gone)
            for revision in range(floor, mod + 2):
                assert index.newest_at(key, revision) == model.newest_at(revision)
                if index.position_at(key, revision) is not None:
                    assert key in index.slice(b"", None, 99, revision)
                position, asked = index.position_at(key, revision), [key, b"unknown"]
                assert index.positions_at(asked, revision) == ([] if position is None else [position])
                found = [one[:2] for one in index.found_at(asked, revision)]
                assert found == ([] if position is None else [(key, position)])
    known = [b"k%d" % which for which, model in enumerate(models) if model.positions]
    alive = [b"k%d" % which for which, model in enumerate(models) if model.positions and not model.positions[-1][2]]
    assert index.slice(b"", None, 99, mod - 1) == known
    assert index.slice(b"", None, 2, mod - 1) == known[:2]
    assert index.slice(b"", None, 99, mod) == index.keys.slice(b"", None, 99) == alive
    assert len(index) == len(known)


def test_a_long_history_loses_what_is_below_and_no_more() -> None:
    """A key that changed a hundred times keeps its positions in two places, and is pruned as one that changed twice."""
    index, model = KeyIndex(), History()
    for mod in range(2, 102):
        is_delete = mod % 10 == 0
        index.replace(b"k", index.latest(b"k"), (mod, 0, 0 if is_delete else 2, not is_delete, 0))
        model.positions.append((mod, 0, is_delete))
    for floor in (1, 2, 5, 30, 31, 60, 88, 93, 99, 100, 101, 200):
        dead, gone = index.prune([b"k"], floor)
        newest, is_delete = model.newest_at(floor)
        kept = [
            position
            for position in model.positions
            if position[0] > floor or (position[:2] == newest and not (is_delete and position[0] < floor))
        ]
        assert positions(dead) == [position[:2] for position in model.positions if position not in kept]
        assert gone == []
        model.positions = kept
        for revision in range(floor, 103):
            assert index.newest_at(b"k", revision) == model.newest_at(revision)
        if floor > 93:
            assert not any(index._history)
    assert model.positions == [(101, 0, False)]


def test_what_is_dead_is_met_only_by_who_looks_back() -> None:
    """A name that was locked a hundred thousand times must not be slower than one that never was."""
    index = KeyIndex()
    for number in range(1, 1001):
        made = (2 * number, 0, 2 * number, 1, 0)
        index.replace(b"k%d" % number, None, made)
        index.replace(b"k%d" % number, made, (2 * number + 1, 0, 0, 0, 0))
    assert index.slice(b"", None, 5, 2001) == []
    assert len(index.slice(b"", None, 5000, 2000)) == 1000
    index.order(2001)
    assert index.slice(b"", None, 5, 2001) == []
    assert index.slice(b"", None, 2, 2000) == [b"k1", b"k10"]
    dead, gone = index.prune([b"k1", b"unknown"], 2001)
    assert (positions(dead), gone) == ([(2, 0), (3, 0)], [b"k1"])
    index.forget(gone)
    assert index.slice(b"", None, 1, 2000) == [b"k10"]


def test_a_compaction_forgets_the_names_of_keys_that_are_gone() -> None:
    index = KeyIndex()
    for mod, key in enumerate((b"gone", b"kept", b"late"), 2):
        index.put(key, mod)
    for mod, key in enumerate((b"gone", b"late"), 5):
        index.replace(key, index.latest(key), (mod, 0, 0, 0, 0))
    assert index.slice(b"", None, 9, 4) == [b"gone", b"kept", b"late"]
    assert [found for found in dead_positions(index, 6) if found] == [[(2, 0), (4, 0), (5, 0)]]
    assert index.slice(b"", None, 9, 4) == [b"kept", b"late"]
    index.put(b"gone", 7)
    assert index.slice(b"", None, 9, 7) == [b"gone", b"kept"]


def test_restore_takes_back_a_death_and_a_rebirth() -> None:
    index = KeyIndex()
    first, dead, again = (2, 0, 2, 1, 0), (3, 0, 0, 0, 0), (4, 0, 4, 1, 0)
    index.replace(b"k", None, first)
    index.replace(b"k", first, dead)
    index.restore(b"k", first)
    assert index.slice(b"", None, 9, 9) == [b"k"]
    index.replace(b"k", first, dead)
    index.replace(b"k", dead, again)
    index.restore(b"k", dead)
    assert index.slice(b"", None, 9, 9) == []
    assert index.slice(b"", None, 9, 2) == [b"k"]


def test_a_put_is_the_same_as_what_it_spares() -> None:
    index, other = KeyIndex(), KeyIndex()
    for mod in range(2, 40):
        key = b"k%d" % (mod % 2)
        for each in (index, other):
            if mod % 7 == 0 and (old := each.latest(key)):
                each.replace(key, old, (mod, 0, 0, 0, 5))
        if mod % 7:
            was = other.latest(key)
            is_alive = was is not None and was[3] > 0
            state = (mod, 0, was[2] if was and is_alive else mod, was[3] + 1 if was else 1, 0)
            other.replace(key, was, state)
            create, version, lease, packed = index.put(key, mod)
            assert (mod, 0, create, version, 0) == state == index.latest(key)
            assert (lease, packed and unpack_state(packed)) == (was[4] if was else 0, was)
        for revision in range(mod + 1):
            assert index.newest_at(key, revision) == other.newest_at(key, revision)
            assert index.slice(b"", None, 9, revision) == other.slice(b"", None, 9, revision)
    assert any(index._history)


def test_compaction_is_told_of_every_key_with_a_past() -> None:
    index = KeyIndex()
    for mod in range(2, 40):
        index.put(b"k", mod)
        assert [key for keys in index.keys_with_history() for key in keys] == [b"k"][: mod - 2]
    state, dead = (2, 0, 2, 1, 0), (3, 0, 0, 0, 0)
    index.replace(b"dead", None, state)
    index.replace(b"dead", state, dead)
    index.prune([b"dead"], 3)
    assert index.position_at(b"dead", 3) is None
    assert sorted(key for keys in index.keys_with_history() for key in keys) == [b"dead", b"k"]


def test_restore_takes_back_one_of_many() -> None:
    index = KeyIndex()
    for mod in range(2, 40):
        state, old = (mod, 0, 2, mod - 1, 0), index.latest(b"k")
        index.replace(b"k", old, state)
        index.restore(b"k", old)
        assert index.latest(b"k") == old
        assert [index.position_at(b"k", revision) for revision in range(2, mod)] == [(one, 0) for one in range(2, mod)]
        index.replace(b"k", old, state)
    assert any(index._history)


def test_restore_takes_back_one_change() -> None:
    index = KeyIndex()
    first, second, third = ((mod, 0, 2, 1, 0) for mod in (2, 3, 4))
    index.replace(b"k", None, first)
    index.replace(b"k", first, second)
    index.replace(b"k", second, third)
    index.restore(b"k", second)
    assert index.latest(b"k") == second
    assert index.position_at(b"k", 2) == (2, 0)
    index.restore(b"k", first)
    index.restore(b"k", None)
    assert index.latest(b"k") is None
    assert len(index.keys) == len(index) == 0
    assert not any(index._history)
