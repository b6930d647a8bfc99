"""The log's outline against a list of terms."""

from __future__ import annotations

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from coord.wal.record import SnapshotMark
from coord.wal.shape import LogShape


@define
class NaiveShape:
    start: int
    terms: list[int]
    """The term at `start`, then those of the entries."""

    def term(self, index: int) -> int | None:
        return self.terms[index - self.start] if 0 <= index - self.start < len(self.terms) else None


STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "replace", "install", "release"]), st.integers(0, 12), st.integers(0, 2)),
    max_size=20,
)


@given(st.integers(0, 5), STEPS)
def test_the_outline_agrees_with_a_list(start: int, steps: list[tuple[str, int, int]]) -> None:
    shape, naive = LogShape.starting_at(start, 1), NaiveShape(start, [1])
    for kind, number, newer in steps:
        last = naive.start + len(naive.terms) - 1
        if kind in ("append", "replace"):
            first = last + 1 if kind == "append" else min(naive.start + 1 + number, last + 1)
            del naive.terms[first - naive.start :]
            added = [naive.terms[-1] + newer] * (number % 3) + [naive.terms[-1] + 2 * newer]
            naive.terms += added
            shape.extend([(first + at, term, b"") for at, term in enumerate(added)])
        elif kind == "install":
            index = max(last + number - 6, 0)
            mark = SnapshotMark(index, (naive.term(index) or naive.terms[-1]) + newer, b"")
            keeps = index < naive.start or naive.term(index) == mark.term
            assert shape.install(mark) is keeps
            if not keeps:
                naive = NaiveShape(index, [mark.term])
        else:
            index = naive.start + number
            shape.release(index)
            index = min(index, last)
            naive = NaiveShape(index, naive.terms[index - naive.start :])
        assert (shape.start_index, shape.start_term) == (naive.start, naive.terms[0])
        assert (shape.last_index, shape.last_term) == (naive.start + len(naive.terms) - 1, naive.terms[-1])
        for index in range(max(naive.start - 2, 0), shape.last_index + 3):
            assert shape.term(index) == naive.term(index)


def test_a_refusal_changes_nothing_at_the_first_entry() -> None:
    shape = LogShape.starting_at(5, 2)
    shape.extend([(6, 2, b""), (7, 3, b"")])
    for first, term in [(9, 3), (5, 2), (8, 2)]:
        with pytest.raises(ValueError, match="entry"):
            shape.extend([(first, term, b"")])
    assert (shape.last_index, shape.last_term) == (7, 3)


def test_released_terms_take_no_memory() -> None:
    shape = LogShape()
    for index in range(1, 1001):
        shape.extend([(index, index, b"")])
        shape.release(index - 3)
    assert len(shape._runs) <= 5
