"""The order of keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coord.mvcc.keys import BLOCK_KEYS_MAX, OrderedKeys


@given(st.integers(0, 5 * BLOCK_KEYS_MAX), st.integers(1, 4 * BLOCK_KEYS_MAX))
def test_slice_is_full_wherever_it_starts(start: int, count: int) -> None:
    """A slice that is not full is taken for the last one."""
    names = [b"%05d" % number for number in range(6 * BLOCK_KEYS_MAX)]
    keys = OrderedKeys()
    for name in names:
        keys.add(name)

    assert keys.slice(names[start], None, count) == names[start : start + count]
    assert keys.slice(names[start] + b"0", None, count) == names[start + 1 : start + 1 + count]


@given(st.integers(0, 1_000), st.lists(st.binary(min_size=1, max_size=2), max_size=100))
def test_keys_that_came_all_at_once_are_a_set_like_any_other(count: int, more: list[bytes]) -> None:
    names = sorted({(number * 7919 % 65536).to_bytes(2, "big") for number in range(count)})
    keys = OrderedKeys.of(names)
    assert len(keys) == len(names)
    assert keys.slice(b"", None, 2**40) == names
    for place, name in enumerate(names):
        assert keys.slice(name, None, 2) == names[place : place + 2]

    expected = set(names)
    for name in more:
        if name in expected:
            keys.discard([name])
        else:
            keys.add(name)
        expected ^= {name}
    assert keys.slice(b"", None, 2**40) == sorted(expected)
    for start in more:
        assert keys.slice(start, None, 3) == [name for name in sorted(expected) if name >= start][:3]


@given(
    st.sets(st.binary(min_size=1, max_size=2), max_size=400),
    st.lists(st.tuples(st.binary(max_size=2), st.none() | st.binary(max_size=2)), max_size=20),
)
def test_a_count_is_that_of_the_keys(names: set[bytes], intervals: list[tuple[bytes, bytes | None]]) -> None:
    keys = OrderedKeys()
    for name in names:
        keys.add(name)
    for start, end in intervals:
        assert keys.count(start, end) == sum(start <= name and (end is None or name < end) for name in names)


@given(
    st.sets(st.integers(0, 99), max_size=60),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(1, 5)), min_size=1, max_size=60),
)
def test_a_slice_between_changes_is_that_of_the_keys(names: set[int], steps: list[tuple[int, int, int]]) -> None:
    """Keys that come in order leave a block in order, and of one whose keys are all below nothing is looked at."""
    keys, expected = OrderedKeys(), set()
    for name in sorted(names):
        keys.add(b"%03d" % name)
        expected.add(b"%03d" % name)
    for name, start, count in steps:
        if (changed := b"%03d" % name) in expected:
            keys.discard([changed])
        else:
            keys.add(changed)
        expected ^= {changed}
        wanted = [one for one in sorted(expected) if one >= b"%03d" % start]
        assert keys.slice(b"%03d" % start, None, count) == wanted[:count]
        assert keys.slice(b"%03d" % start, b"%03d" % (start + 9), 99) == [one for one in wanted if int(one) < start + 9]
