"""The log in memory: the entries after a base that the store already holds."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from coord.raft.types import Entry


@define
class RaftLog:
    """Entries `base_index + 1 … last_index`, in order and without gaps (thesis §3.5, Log Matching).

    The entry at `base_index` is known by its term alone: it and all before it are in the store. `persisted_index` is
    how far the own disk holds the log; `committed` and `applied` follow thesis §3.6, with
    applied <= committed <= last_index.
    """

    base_index: int = 0
    base_term: int = 0
    persisted_index: int = 0
    committed: int = 0
    applied: int = 0
    size_bytes: int = 0
    _entries: list[Entry] = field(factory=list)

    @property
    def last_index(self) -> int:
        """The index of the last entry, or of the base."""
        return self.base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        """The term of the last entry, or of the base."""
        return self._entries[-1][1] if self._entries else self.base_term

    def term_at(self, index: int) -> int:
        """Return the term of an entry that is the base or in memory."""
        if index == self.base_index:
            return self.base_term
        assert self.base_index < index <= self.last_index, (self.base_index, index, self.last_index)
        return self._entries[index - self.base_index - 1][1]

    def append(self, entry: Entry) -> None:
        """Add the next entry."""
        assert entry[0] == self.last_index + 1, (entry[0], self.last_index)
        assert entry[1] >= self.last_term
        self._entries.append(entry)
        self.size_bytes += len(entry[2])

    def slice(self, first: int, last: int) -> Sequence[Entry]:
        """Return the entries `first … last`."""
        assert self.base_index < first, (self.base_index, first)
        assert last <= self.last_index, (last, self.last_index)
        return self._entries[first - self.base_index - 1 : last - self.base_index]

    def release(self, index: int) -> None:
        """Forget entries up to `index`, which must be applied and persisted; `index` becomes the base."""
        assert index <= self.applied, (index, self.applied)
        assert index <= self.persisted_index, (index, self.persisted_index)
        if index <= self.base_index:
            return
        term = self.term_at(index)
        count = index - self.base_index
        self.size_bytes -= sum(len(entry[2]) for entry in self._entries[:count])
        del self._entries[:count]
        self.base_index, self.base_term = index, term
