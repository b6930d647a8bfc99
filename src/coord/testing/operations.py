"""Random requests for hypothesis, as plain lists in coord.cddl's form.

Keys, leases and revisions come from small sets, so that requests meet each other; some are refused on purpose.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from coord.types import prefix_end

KEYS = (b"a", b"aa", b"ab", b"b", b"b\0", b"ba", b"c", b"\xff", b"\xff\xff")
LEASES = (1, 2, 3, 2**40)

Arguments = list[Any]
Strategy = st.SearchStrategy[Arguments]

keys = st.sampled_from(KEYS)
values = st.sampled_from((b"", b"1", b"2", b"a longer value"))
leases = st.sampled_from((0, 0, *LEASES))
revisions = st.integers(-1, 40)


@st.composite
def intervals(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A key and a range end: one key, a prefix, from a key on, everything, up to another key, or nothing."""
    key = draw(keys)
    kind = draw(st.integers(0, 5))
    ends = (b"", prefix_end(key), b"\0", b"\0", draw(keys), b"")
    return (b"\0" if kind == 3 else key), ends[kind]


def _trim(draw: st.DrawFn, arguments: Arguments, defaults: Arguments) -> Arguments:
    """Leave out a trailing run of defaults, or not: both mean the same. None stands for an item that must be."""
    if draw(st.booleans()):
        while defaults[len(arguments) - 1] is not None and arguments[-1] == defaults[len(arguments) - 1]:
            arguments.pop()
    return arguments


@st.composite
def puts(draw: st.DrawFn) -> Arguments:
    """Arguments of a put."""
    if draw(st.booleans()):
        return [draw(keys), draw(values)]
    ignore_value, ignore_lease = draw(st.booleans()), draw(st.booleans())
    value = b"" if ignore_value and draw(st.integers(0, 9)) else draw(values)
    lease = 0 if ignore_lease and draw(st.integers(0, 9)) else draw(leases)
    key = draw(keys) if draw(st.integers(0, 59)) else b""
    return [key, value, lease, draw(st.booleans()), ignore_value, ignore_lease]


@st.composite
def delete_ranges(draw: st.DrawFn) -> Arguments:
    """Arguments of a delete."""
    key, range_end = draw(intervals())
    return _trim(draw, [key, range_end, draw(st.booleans())], [None, b"", False])


@st.composite
def ranges(draw: st.DrawFn) -> Arguments:
    """Arguments of a range, with every option."""
    key, range_end = draw(intervals())
    off = st.just(0)
    plain = draw(st.booleans())
    rank = off if plain or draw(st.booleans()) else st.one_of(off, st.integers(-1, 30))
    arguments = [
        key,
        range_end,
        draw(st.integers(-1, 5)),
        draw(st.one_of(off, revisions)),
        draw(off if plain else st.integers(0, 2)),
        draw(off if plain else st.integers(0, 4)),
        False,
        draw(st.booleans()),
        draw(st.sampled_from((False, False, False, True))),
        draw(rank),
        draw(rank),
        draw(rank),
        draw(rank),
        0,
    ]
    return _trim(draw, arguments, [None, b"", 0, 0, 0, 0, False, False, False, 0, 0, 0, 0, 0])


@st.composite
def compares(draw: st.DrawFn) -> Arguments:
    """A compare."""
    target = draw(st.integers(0, 4))
    operand: Any = draw(values) if target == 3 else draw(st.one_of(st.integers(-1, 20), st.sampled_from(LEASES)))
    key, range_end = draw(intervals())
    return _trim(draw, [target, draw(st.integers(0, 4)), key, operand, range_end], [None, None, None, None, b""])


@st.composite
def txns(draw: st.DrawFn, depth: int = 2) -> Arguments:
    """Arguments of a transaction, nested up to `depth` levels."""
    kinds: list[st.SearchStrategy[list[Any]]] = [
        st.tuples(st.just(1), puts()).map(list),
        st.tuples(st.just(2), delete_ranges()).map(list),
        st.tuples(st.just(20), ranges()).map(list),
    ]
    if depth > 1:
        kinds.append(st.tuples(st.just(3), txns(depth - 1)).map(list))
    branch = st.lists(st.one_of(kinds), max_size=4)
    return [draw(st.lists(compares(), max_size=2)), draw(branch), draw(branch)]


compactions = st.tuples(revisions).map(list)
grants = st.tuples(st.sampled_from((1, 5, 60, 9_000_000_001)), st.sampled_from(LEASES)).map(list)
revokes = st.tuples(st.sampled_from(LEASES)).map(list)


@st.composite
def writes(draw: st.DrawFn) -> Arguments:
    """A write `[0, op, guard, arguments]`: the number is the caller's to set."""
    kinds: tuple[tuple[int, Strategy], ...] = (
        (1, puts()),
        (1, puts()),
        (1, puts()),
        (2, delete_ranges()),
        (3, txns()),
        (3, txns()),
        (4, compactions),
        (5, grants),
        (6, revokes),
    )
    op, arguments = draw(st.sampled_from(kinds))
    guard = [draw(keys), draw(st.integers(2, 20))] if not draw(st.integers(0, 9)) else None
    return [0, op, guard, draw(arguments)]
