"""Reading ranges at one revision, with etcd's filters, orders, limits and quirks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final

from coord import errors
from coord.codec import array_head, uint
from coord.errors import ResourceExhausted
from coord.limits import MIB, RANGE_SLICE_KEYS, REPLY_BYTES_MAX
from coord.mvcc.backend import Position
from coord.mvcc.index import Found, KeyIndex
from coord.mvcc.records import Fields, decode_record, encode_record
from coord.protocol.ranges import RangeRequest
from coord.types import SortOrder, SortTarget

Read = Callable[[Sequence[Position]], list[bytes]]
"""Return the records at positions that are known to exist."""
RangeResult = tuple[list[bytes], bool, int]
"""`(records, more, count)`; `count` ignores limit and filters, as etcd's does."""
_READ_RECORDS: Final = 32
"""So many are read at once: few enough that their size need not be known before."""
RangeSteps = Generator[None, None, RangeResult]


def encode_range(result: RangeResult) -> bytes:
    """Return the encoded result of a range, its records spliced in."""
    records, more, count = result
    tail = (b"\xf5" if more else b"\xf4", uint(count))
    return b"".join((b"\x83", array_head(len(records)), *records, *tail))


def run(steps: RangeSteps) -> RangeResult:
    """Read a range at one go, as a transaction does."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: RangeResult = stop.value
            return result


class RangeReader:
    """Reads ranges over an index. `floor` returns the compacted revision of that moment."""

    __slots__ = ("_floor", "_index", "_read")

    def __init__(self, index: KeyIndex, read: Read, floor: Callable[[], int]) -> None:
        self._index = index
        self._read = read
        self._floor = floor

    def pin(self, request: RangeRequest, revision: int) -> int:
        """Return the revision to read at; `revision` is the store's. Raises `compacted` and `future_revision`."""
        wanted = request.revision
        if wanted > revision:
            raise errors.future_revision()
        if wanted <= 0:
            wanted = revision
        self._check_floor(wanted)
        return wanted

    def steps(self, request: RangeRequest, revision: int) -> RangeSteps:
        """Read a range at a pinned revision, yielding every `RANGE_SLICE_KEYS` keys.

        Entries may be applied between two steps: what is read stays at the pinned revision. Raises `compacted` if
        compaction overtakes it, for the whole range and never a part that looks whole (S7).
        """
        if request.count_only:
            return (yield from self._count(request, revision))
        if request.sort_target == SortTarget.KEY and request.sort_order != SortOrder.DESCEND:
            return (yield from self._in_key_order(request, revision))
        return (yield from self._sorted(request, revision))

    def _check_floor(self, revision: int) -> None:
        floor = self._floor()
        if revision < floor:
            raise errors.compacted(floor)

    def _slices(self, request: RangeRequest, revision: int) -> Iterator[list[bytes]]:
        if not request.range_end:
            yield [request.key]
            return
        start, end = request.interval
        while keys := self._index.slice(start, end, RANGE_SLICE_KEYS, revision):
            yield keys
            if len(keys) < RANGE_SLICE_KEYS:
                return
            start = keys[-1] + b"\0"

    def _found(self, keys: list[bytes], revision: int) -> list[Found]:
        """Return the keys that exist at the revision, with the positions of their records (S7: checked each step)."""
        self._check_floor(revision)
        return self._index.found_at(keys, revision)

    def _positions(self, keys: list[bytes], revision: int) -> list[Position]:
        """Return the positions alone of what `_found` finds."""
        self._check_floor(revision)
        return self._index.positions_at(keys, revision)

    def _known_count(self, request: RangeRequest, revision: int) -> int | None:
        """Return the count where it can be had at once: of several keys, as they are now.

        Looked at one by one, those beyond the limit would cost a page of a large interval more than its own keys do.
        """
        return self._index.count(*request.interval, revision) if request.range_end else None

    def _count(self, request: RangeRequest, revision: int) -> RangeSteps:
        count = self._known_count(request, revision)
        if count is not None:
            return [], False, count
        count = 0
        for number, keys in enumerate(self._slices(request, revision)):
            if number:
                yield
            count += len(self._positions(keys, revision))
        return [], False, count

    def _in_key_order(self, request: RangeRequest, revision: int) -> RangeSteps:
        known_count = self._known_count(request, revision)
        count, size, more = 0, 0, False
        limit = request.limit if request.limit > 0 else None
        records: list[bytes] = []
        for number, keys in enumerate(self._slices(request, revision)):
            if number:
                yield
            if request.has_filter:
                found = self._found(keys, revision)
                count += len(found)
                positions = [position for _, position, _, _ in self._passing(request, found)]
            else:
                positions = self._positions(keys, revision)
                count += len(positions)
            if more:
                continue
            room = len(positions) if limit is None else limit - len(records)
            more = room < len(positions)
            size = self._read_into(records, positions[:room], request, size)
            if more and known_count is not None:
                return records, more, known_count
        return records, more, count

    def _sorted(self, request: RangeRequest, revision: int) -> RangeSteps:
        count = 0
        limit = request.limit if request.limit > 0 else None
        # etcd's quirk: without an order, a target other than the key sorts only what the limit, plus one, let in.
        cut_first = request.sort_order == SortOrder.NONE and limit is not None and not request.has_filter
        chosen: list[tuple[Any, Position]] = []
        for number, keys in enumerate(self._slices(request, revision)):
            if number:
                yield
            found = self._found(keys, revision)
            count += len(found)
            if cut_first and limit is not None:
                found = found[: max(0, limit + 1 - len(chosen))]
            chosen += self._sort_values(request.sort_target, self._passing(request, found))
        chosen.sort(key=_sort_key, reverse=request.sort_order == SortOrder.DESCEND)
        more = limit is not None and len(chosen) > limit
        records: list[bytes] = []
        size = 0
        positions = [position for _, position in chosen[:limit]]
        for begin in range(0, len(positions), RANGE_SLICE_KEYS):
            if begin:
                yield
                self._check_floor(revision)
            size = self._read_into(records, positions[begin : begin + RANGE_SLICE_KEYS], request, size)
        return records, more, count

    def _read_into(self, records: list[bytes], positions: Sequence[Position], request: RangeRequest, size: int) -> int:
        """Add the records at some positions; `size` is that of those before, and what is returned that of all."""
        for begin in range(0, len(positions), _READ_RECORDS):
            read = self._read(positions[begin : begin + _READ_RECORDS])
            if request.keys_only:
                read = [encode_record(*decode_record(record)[:5], b"") for record in read]
            size = _bounded(size + sum(map(len, read)))
            records += read
        return size

    def _sort_values(self, target: int, found: list[Found]) -> list[tuple[Any, Position]]:
        if target == SortTarget.KEY:
            return [(key, position) for key, position, _, _ in found]
        if target == SortTarget.MOD:
            return [(position[0], position) for _, position, _, _ in found]
        if target == SortTarget.CREATE:
            return [(create or self._fields(position)[1], position) for _, position, create, _ in found]
        if target == SortTarget.VERSION:
            return [(version or self._fields(position)[3], position) for _, position, _, version in found]
        positions = [position for _, position, _, _ in found]
        values = [decode_record(record)[5] for record in self._read(positions)]
        return list(zip(values, positions, strict=True))

    def _passing(self, request: RangeRequest, found: list[Found]) -> list[Found]:
        """Return what the request's filters let pass.

        Each waiter for a lock asks who came before it, by create revision. The index knows that of the newest records:
        read and decoded, a queue of a thousand would take ten milliseconds for each.
        """
        if not request.has_filter:
            return found
        low, high = request.min_mod_revision, request.max_mod_revision
        if low or high:
            found = [one for one in found if low <= one[1][0] and (not high or one[1][0] <= high)]
        low, high = request.min_create_revision, request.max_create_revision
        if low or high:
            creates = [create or self._fields(position)[1] for _, position, create, _ in found]
            pairs = zip(creates, found, strict=True)
            found = [one for create, one in pairs if low <= create and (not high or create <= high)]
        return found

    def _fields(self, position: Position) -> Fields:
        return decode_record(self._read((position,))[0])


def _sort_key(item: tuple[Any, Position]) -> Any:
    return item[0]


def _bounded(size: int) -> int:
    if size > REPLY_BYTES_MAX:
        raise ResourceExhausted(
            f"coord: the answer would be larger than {REPLY_BYTES_MAX // MIB} MiB: read it in pages, with a limit"
        )
    return size
