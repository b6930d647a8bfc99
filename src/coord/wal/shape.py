"""What the log holds, without the entries: where it starts and ends, and which term each index has. Pure.

The same rules judge what is about to be written and what is read back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from attrs import define, field

from coord.raft.types import Entry
from coord.wal.record import SnapshotMark


@define
class LogShape:
    """The log's outline.

    The entries are those above `start_index`; the entry there, of `start_term`, is known only by its term: it
    was released, or is the last one of a snapshot.
    """

    start_index: int = 0
    start_term: int = 0
    last_index: int = 0
    _runs: list[tuple[int, int]] = field(factory=list)
    """`(first index, term)` of each run of entries with one term, ascending in both."""

    @classmethod
    def starting_at(cls, index: int, term: int) -> LogShape:
        """Return the shape of a log whose next entry is `index + 1`."""
        return cls(index, term, index)

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._runs[-1][1] if self._runs else self.start_term

    def term(self, index: int) -> int | None:
        """Return the term of the entry at `index`, None if the log does not know it."""
        if not self.start_index <= index <= self.last_index:
            return None
        run = bisect_right(self._runs, index, key=lambda run: run[0])
        return self._runs[run - 1][1] if run else self.start_term

    def extend(self, entries: Sequence[Entry]) -> None:
        """Take up entries; one at or below the last index replaces the log from there on.

        Raises `ValueError` if they leave a gap, reach below the start, or go back in term.
        """
        if not entries:
            return
        first = entries[0][0]
        before = self.last_term if first == self.last_index + 1 else self.term(first - 1)
        if before is None:
            raise ValueError(f"entry {first} does not join a log from {self.start_index} to {self.last_index}")
        runs = self._runs
        while runs and runs[-1][0] >= first:
            runs.pop()
        for expected, (index, term, _) in enumerate(entries, first):
            if index != expected:
                raise ValueError(f"entry {index} stands where entry {expected} belongs")
            if term < before:
                raise ValueError(f"entry {index} has term {term}, the one before it {before}")
            if term > before or not runs:
                runs.append((index, term))
                before = term
        self.last_index = entries[-1][0]

    def install(self, snapshot: SnapshotMark) -> bool:
        """Take up a snapshot. Return False if the log is dropped for it.

        S6: the log is kept only if it holds the snapshot's index at the snapshot's term; what lies below the
        start was committed, and is in any later snapshot.
        """
        if snapshot.index < self.start_index or self.term(snapshot.index) == snapshot.term:
            return True
        self.start_index = self.last_index = snapshot.index
        self.start_term = snapshot.term
        self._runs.clear()
        return False

    def release(self, index: int) -> None:
        """Move the start up to `index`, or as far as the log goes."""
        index = min(index, self.last_index)
        term = self.term(index)
        if term is None:
            return
        self.start_index, self.start_term = index, term
        keep = max(bisect_right(self._runs, index, key=lambda run: run[0]) - 1, 0)
        del self._runs[:keep]
