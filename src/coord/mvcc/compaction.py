"""Removing what compaction has made unreachable, and the hash that does not see how far that has come."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Generator
from functools import partial
from typing import Final

from crc32c import crc32c

from coord import errors
from coord.limits import COMPACTION_SLICE_KEYS
from coord.mvcc.backend import Backend, Position
from coord.mvcc.history import slices
from coord.mvcc.index import DELETED, POSITION, KeyIndex
from coord.mvcc.records import decode_record

HASH_SLICE_RECORDS = 2_000
_SPAN_BITS: Final = 12
_SPAN_MASK: Final = (1 << _SPAN_BITS) - 1
_SUB_SPAN_BITS: Final = 14
"""Positions are gathered by spans of so many revisions, and of changes within one: few enough to be sorted at once."""


def dead_positions(index: KeyIndex, revision: int) -> Generator[list[Position], None, None]:
    """Prune the index up to a compacted revision, then yield the positions that are dead now, slice by slice.

    Reads at or above `revision` see no difference, so entries may be applied between two slices. The caller passes
    each slice to `Backend.remove`. A node that stopped halfway runs this again when it starts.
    """
    found: dict[tuple[int, int], array[int]] = defaultdict(partial(array, "Q"))
    for keys in index.keys_with_history():
        for begin in range(0, len(keys), COMPACTION_SLICE_KEYS):
            dead, gone = index.prune(keys[begin : begin + COMPACTION_SLICE_KEYS], revision)
            for mod, packed_sub in POSITION.iter_unpack(dead):
                sub = packed_sub & ~DELETED
                found[mod >> _SPAN_BITS, sub >> _SUB_SPAN_BITS].append((mod & _SPAN_MASK) << 32 | sub)
            if gone:
                index.forget(gone)
            yield []
    # Keys have no order in time. Removed as they come, each slice would rewrite pages all over the store; and all of
    # them sorted at once would hold everything up.
    for span in sorted(found):
        packed = sorted(found.pop(span))
        base = span[0] << _SPAN_BITS
        for begin in range(0, len(packed), COMPACTION_SLICE_KEYS):
            yield [(base + (one >> 32), one & 0xFFFFFFFF) for one in packed[begin : begin + COMPACTION_SLICE_KEYS]]


def hash_steps(
    index: KeyIndex, backend: Backend, revision: int, floor: Callable[[], int]
) -> Generator[None, None, tuple[int, int]]:
    """Return `(hash, compact_revision)`: CRC32C over the records up to `revision` that compaction leaves.

    Equal on all members at one revision and one compacted revision, however much each has already removed. Yields
    between slices; starts again if a compaction comes between, and raises `compacted` if that passes `revision`.
    """
    while True:
        compact_revision = floor()
        if revision < compact_revision:
            raise errors.compacted(compact_revision)
        value = 0
        for found in slices(backend, 0, revision, HASH_SLICE_RECORDS):
            for mod, sub, record in found:
                if mod > compact_revision or _remains(index, record, (mod, sub), compact_revision):
                    value = crc32c(b"%d/%d/" % (mod, sub) + record, value)
            yield
            if floor() != compact_revision:
                break
        else:
            return value, compact_revision


def _remains(index: KeyIndex, record: bytes, position: Position, compact_revision: int) -> bool:
    newest, deleted = index.newest_at(decode_record(record)[0], compact_revision)
    return newest == position and (not deleted or position[0] == compact_revision)
