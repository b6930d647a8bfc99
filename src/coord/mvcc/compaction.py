"""Removing what compaction has made unreachable, and the hash that does not see how far that has come."""

from __future__ import annotations

from collections.abc import Callable, Generator

from crc32c import crc32c

from coord import errors
from coord.limits import COMPACTION_SLICE_KEYS
from coord.mvcc.backend import Backend, Position
from coord.mvcc.history import slices
from coord.mvcc.index import KeyIndex
from coord.mvcc.records import decode_record

HASH_SLICE_RECORDS = 2_000


def dead_positions(index: KeyIndex, revision: int) -> Generator[list[Position], None, None]:
    """Prune the index up to a compacted revision and yield the positions that are dead now, slice by slice.

    Reads at or above `revision` see no difference, so entries may be applied between two slices. The caller passes
    each slice to `Backend.remove`. A node that stopped halfway runs this again when it starts.
    """
    for keys in index.keys_with_history():
        for begin in range(0, len(keys), COMPACTION_SLICE_KEYS):
            dead: list[Position] = []
            gone: list[bytes] = []
            for key in keys[begin : begin + COMPACTION_SLICE_KEYS]:
                positions, is_gone = index.prune(key, revision)
                dead += positions
                if is_gone:
                    gone.append(key)
            if gone:
                index.keys.discard(gone)
            dead.sort()
            yield dead


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
