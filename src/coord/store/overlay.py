"""What is applied but not yet on disk, in the order in which it was written.

The overlay is a queue of segments. Writes go into the open one; a *cut* closes it, and a closed segment
never changes again, so that the store's thread may read it while the loop goes on. A segment reaches the
disk whole, in one transaction with the index that it was sealed at (S6), and leaves the queue when that
transaction has returned (S7).

A record's key is `revision << 32 | sub`: an integer costs the garbage collector nothing, a tuple would be
tracked.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import chain
from typing import Final

from attrs import define, field

from coord.mvcc.backend import Position, Table

RECORD_OVERHEAD_BYTES: Final = 120
"""What a record costs in memory beside its bytes: the bytes object, the key, the slot in the dict."""
REMOVAL_BYTES: Final = 48
ROW_KEY_BYTES_MAX: Final = 511
"""LMDB's."""


@define
class Segment:
    """What was written between two cuts; it takes the store from one sealed state to another."""

    records: dict[int, bytes] = field(factory=dict)
    rows: dict[Table, dict[bytes, bytes | None]] = field(factory=dict)
    removals: list[int] = field(factory=list)
    """May name records of this segment and of earlier ones."""
    size_bytes: int = 0
    index: int = 0
    term: int = 0

    @property
    def items(self) -> int:
        """How many records, rows and removals there are."""
        return len(self.records) + len(self.removals) + sum(map(len, self.rows.values()))


@define
class Overlay:
    """The queue of segments; `index` and `term` are of the last seal."""

    index: int
    term: int
    open: Segment = field(factory=Segment)
    closed: list[Segment] = field(factory=list)
    _closed_bytes: int = 0
    _last_key: int = 0
    _sealed_key: int = 0

    @property
    def size_bytes(self) -> int:
        """The memory that all segments take, about."""
        return self._closed_bytes + self.open.size_bytes

    def append(self, revision: int, sub: int, record: bytes) -> None:
        """Keep a record; `ValueError` unless its position is above all earlier ones."""
        key = revision << 32 | sub
        if key <= self._last_key:
            raise ValueError(f"record {revision}.{sub} does not come after the last one")
        self._last_key = key
        segment = self.open
        segment.records[key] = record
        segment.size_bytes += len(record) + RECORD_OVERHEAD_BYTES

    def extend(self, revision: int, records: Sequence[bytes]) -> None:
        """Keep records of one revision each, as many revisions from `revision` on."""
        if not records:
            return
        first, end = revision << 32, revision + len(records) << 32
        if first <= self._last_key:
            raise ValueError(f"record {revision}.0 does not come after the last one")
        self._last_key = end - (1 << 32)
        segment = self.open
        segment.records.update(zip(range(first, end, 1 << 32), records, strict=True))
        segment.size_bytes += sum(map(len, records)) + RECORD_OVERHEAD_BYTES * len(records)

    def put_row(self, table: Table, key: bytes, value: bytes | None) -> None:
        """Set a row, or delete it with None."""
        if not 0 < len(key) <= ROW_KEY_BYTES_MAX:
            raise ValueError(f"a row's key has 1 to {ROW_KEY_BYTES_MAX} bytes, not {len(key)}")
        segment = self.open
        segment.rows.setdefault(table, {})[key] = value
        segment.size_bytes += len(key) + len(value or b"") + RECORD_OVERHEAD_BYTES

    def remove(self, positions: Sequence[Position]) -> None:
        """Take records away, whether they lie in the overlay or on disk."""
        segment = self.open
        segment.removals.extend([revision << 32 | sub for revision, sub in positions])
        segment.size_bytes += REMOVAL_BYTES * len(positions)

    def seal(self, index: int, term: int) -> None:
        """Label everything so far as the effect of the entries up to `index`."""
        if index < self.index:
            raise ValueError(f"sealed at index {index} after {self.index}")
        self.index, self.term = index, term
        segment = self.open
        segment.index, segment.term = index, term
        self._sealed_key = self._last_key

    def cut(self) -> bool:
        """Close the open segment; False if it is empty, or holds records that are not sealed."""
        segment = self.open
        is_news = segment.index > 0 or segment.size_bytes > 0
        if not is_news or self._last_key > self._sealed_key:
            return False
        segment.index, segment.term = self.index, self.term
        self.closed.append(segment)
        self._closed_bytes += segment.size_bytes
        self.open = Segment()
        return True

    def take(self, durable_index: int) -> tuple[Segment, ...]:
        """Return the closed segments that may be flushed; they stay in the queue.

        S3: none that was sealed above what the own log has made durable. A store ahead of its own log
        would, after a power loss, hold entries that this node can no longer name a term for.
        """
        count = 0
        for segment in self.closed:
            if segment.index > durable_index:
                break
            count += 1
        return tuple(self.closed[:count])

    def trim(self, segments: Sequence[Segment]) -> None:
        """Let go of the oldest segments, whose transactions have returned."""
        count = len(segments)
        if any(ours is not theirs for ours, theirs in zip(self.closed, segments, strict=False)):
            raise ValueError("trimmed segments are not the oldest")
        del self.closed[:count]
        self._closed_bytes = sum(segment.size_bytes for segment in self.closed)

    def first_key(self) -> int | None:
        """Return the lowest key of a record here: all below it is on disk."""
        for segment in (*self.closed, self.open):
            if segment.records:
                return next(iter(segment.records))
        return None

    def removed(self) -> frozenset[int]:
        """Return the keys of records that are removed but may still be on disk, or here."""
        return frozenset(chain.from_iterable(segment.removals for segment in (*self.closed, self.open)))

    def records(self, low: int, high: int) -> list[tuple[int, bytes]]:
        """Return the records with `low <= key <= high` in order, removed ones included."""
        found: list[tuple[int, bytes]] = []
        for segment in (*self.closed, self.open):
            records = segment.records
            if not records or next(iter(records)) > high or next(reversed(records)) < low:
                continue
            keys = list(records)
            wanted = keys[bisect_left(keys, low) : bisect_right(keys, high)]
            found.extend([(key, records[key]) for key in wanted])
        return found

    def merge_rows(self, table: Table, rows: dict[bytes, bytes]) -> None:
        """Change the rows on disk into those that hold now."""
        for segment in (*self.closed, self.open):
            for key, value in segment.rows.get(table, {}).items():
                if value is None:
                    rows.pop(key, None)
                else:
                    rows[key] = value


@define
class ValueCache:
    """Records that were flushed or read lately, in two generations bounded in bytes.

    When the young one is half of what is allowed, it becomes the old one and the old one goes, whole. A
    list of uses would cost every read more than this cache saves.
    """

    capacity_bytes: int
    young: dict[int, bytes] = field(factory=dict)
    old: dict[int, bytes] = field(factory=dict)
    _young_bytes: int = 0

    def keep(self, key: int, record: bytes) -> bool:
        """Keep a record; True if the generations turned."""
        self.young[key] = record
        return self._grow(len(record) + RECORD_OVERHEAD_BYTES)

    def keep_all(self, records: dict[int, bytes], size_bytes: int) -> bool:
        """Keep records, unless they are so large that they would push out all else; True if the generations turned."""
        if size_bytes * 2 >= self.capacity_bytes:
            return False
        self.young.update(records)
        return self._grow(size_bytes)

    def _grow(self, size_bytes: int) -> bool:
        self._young_bytes += size_bytes
        if self._young_bytes * 2 < self.capacity_bytes:
            return False
        self.old, self.young, self._young_bytes = self.young, {}, 0
        return True
