"""The log in memory: the entries after a base that the store already holds."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from operator import itemgetter

from attrs import define, field

from coord.raft.types import Entry

_term_of = itemgetter(1)


@define
class RaftLog:
    """Entries `base_index + 1 … last_index`, in order and without gaps (thesis §3.5, Log Matching).

    The entry at `base_index` is known by its term alone: it and all before it are in the store. `persisted_index` is
    how far the own disk holds the log, `handed_index` how far it was given to the disk; `committed` and `applied`
    follow thesis §3.6, with applied <= committed <= last_index.
    """

    base_index: int = 0
    base_term: int = 0
    persisted_index: int = 0
    committed: int = 0
    applied: int = 0
    handed_index: int = 0
    replaced_term: int = 0
    """The term in which entries were last replaced; what the disk tells of an earlier one may be void."""
    last_index: int = field(init=False)
    """The index of the last entry, or of the base."""
    _entries: list[Entry] = field(factory=list)
    _ends: list[int] = field(factory=list)
    """By position, the bytes of all entries up to and with this one, counted from `_origin`."""
    _origin: int = 0

    def __attrs_post_init__(self) -> None:
        self.last_index = self.base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        """The term of the last entry, or of the base."""
        return self._entries[-1][1] if self._entries else self.base_term

    @property
    def size_bytes(self) -> int:
        """The bytes of all entries in memory."""
        return self._ends[-1] - self._origin if self._ends else 0

    @property
    def end_bytes(self) -> int:
        """Where the log ends, in bytes since this process began: it grows by what is added."""
        return self._ends[-1] if self._ends else self._origin

    def bytes_above(self, index: int) -> int:
        """Return the bytes of the entries behind `index`, which is not before the base."""
        if index >= self.last_index:
            return 0
        return self._ends[-1] - (self._ends[index - self.base_index - 1] if index > self.base_index else self._origin)

    def least_within(self, bytes_max: int) -> int:
        """Return the least index, from the base on, behind which there are at most `bytes_max`."""
        if self.size_bytes <= bytes_max:
            return self.base_index
        return self.base_index + 1 + bisect_left(self._ends, self._ends[-1] - bytes_max)

    def term_at(self, index: int) -> int:
        """Return the term of an entry that is the base or in memory."""
        if index == self.base_index:
            return self.base_term
        assert self.base_index < index <= self.last_index, (self.base_index, index, self.last_index)
        return self._entries[index - self.base_index - 1][1]

    def holds(self, index: int, term: int) -> bool:
        """Tell whether the log has the entry `index` with this term; False for what lies before the base."""
        return self.base_index <= index <= self.last_index and self.term_at(index) == term

    def append(self, entry: Entry) -> None:
        """Add the next entry."""
        assert entry[0] == self.last_index + 1, (entry[0], self.last_index)
        assert entry[1] >= self.last_term
        self._ends.append((self._ends[-1] if self._ends else self._origin) + len(entry[2]))
        self._entries.append(entry)
        self.last_index += 1

    def extend(self, entries: Sequence[Entry]) -> None:
        """Add the next entries."""
        if not entries:
            return
        assert entries[0][0] == self.last_index + 1, (entries[0][0], self.last_index)
        assert entries[0][1] >= self.last_term
        start = self._ends[-1] if self._ends else self._origin
        ends = accumulate((len(entry[2]) for entry in entries), initial=start)
        next(ends)
        self._ends.extend(ends)
        self._entries.extend(entries)
        self.last_index += len(entries)

    def slice(self, first: int, last: int) -> Sequence[Entry]:
        """Return the entries `first … last`."""
        assert self.base_index < first, (self.base_index, first)
        assert last <= self.last_index, (last, self.last_index)
        return self._entries[first - self.base_index - 1 : last - self.base_index]

    def fit(self, first: int, bytes_max: int) -> tuple[int, int]:
        """Return `(last, bytes)` of the entries from `first` on that fit into `bytes_max`; at least one does."""
        position = first - self.base_index - 1
        start = self._ends[position - 1] if position else self._origin
        after = max(bisect_right(self._ends, start + bytes_max, lo=position), position + 1)
        return self.base_index + after, self._ends[after - 1] - start

    def last_not_above(self, index: int, term: int) -> int:
        """Return the greatest index up to `index` whose term is not above `term`.

        Where two logs differ at an index, they cannot agree above it (thesis §3.5): terms never fall along a log. An
        `index` before the base is returned as it is, and no answer is below the base otherwise.
        """
        if index <= self.base_index:
            return index
        limit = min(index, self.last_index) - self.base_index
        return self.base_index + bisect_right(self._entries, term, hi=limit, key=_term_of)

    def truncate(self, first: int, term: int) -> None:
        """Drop the entries from `first` on, in favour of the leader of `term`."""
        assert first > self.committed, (first, self.committed)
        position = first - self.base_index - 1
        del self._entries[position:]
        del self._ends[position:]
        self.last_index = first - 1
        self.persisted_index = min(self.persisted_index, first - 1)
        self.handed_index = min(self.handed_index, first - 1)
        self.replaced_term = term

    def release(self, index: int) -> None:
        """Forget entries up to `index`, which must be applied and persisted; `index` becomes the base."""
        assert index <= self.applied, (index, self.applied)
        assert index <= self.persisted_index, (index, self.persisted_index)
        if index <= self.base_index:
            return
        term = self.term_at(index)
        count = index - self.base_index
        self._origin = self._ends[count - 1]
        del self._entries[:count]
        del self._ends[:count]
        self.base_index, self.base_term = index, term

    def restore(self, index: int, base_term: int, term: int) -> None:
        """Start anew after a snapshot at `index`, whose entry had `base_term`; done in `term`.

        S6: nothing of the old log stays. It did not hold that index at that term, so that what followed there may
        never have been committed (ScyllaDB #9551 kept it).
        """
        assert index > self.committed, (index, self.committed)
        self._entries.clear()
        self._ends.clear()
        self._origin = 0
        self.base_index, self.base_term = index, base_term
        self.last_index = self.committed = self.persisted_index = self.handed_index = index
        self.replaced_term = term
