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
