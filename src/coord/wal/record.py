"""Batches: how one group commit lies on the disk. Pure.

A batch starts on a 512-byte boundary and fills whole blocks:

    crc32c  4 │ length 4 │ segment 8 │ batch 8 │ term 8 │ vote 8 │ commit 8 │ records 4
    then for each record:  kind 1 │ zero 3 │ length 4 │ index 8 │ term 8 │ data …
    then zeros to the end of the last block

All integers are little-endian. `length` counts from the CRC to the end of the last record. The CRC covers all
that follows it, the zeros of the last block too, so that every bit of a batch is vouched for.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from attrs import field, frozen
from crc32c import crc32c

from coord.limits import WAL_BLOCK_BYTES
from coord.raft.types import Entry, HardState

_CRC: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<IQQQQQI")
_HEAD_BYTES: Final = _CRC.size + _HEAD.size
_RECORD: Final = struct.Struct("<B3xIQQ")
_PROBE: Final = struct.Struct("<IIQ")
"""CRC, length and segment: enough to tell that a block cannot be the start of a batch."""

_ENTRY: Final = 1
_SNAPSHOT: Final = 2
_SNAPSHOT_IN_LOG: Final = 3


class MalformedBatch(ValueError):
    """The CRC of a batch is right but its records are not: no torn write looks like this."""


@frozen
class SnapshotMark:
    """The log says here that a snapshot was installed (S6): all up to `index`, of `term`, is in it.

    `members` is the membership in the snapshot, for whoever reads the log; the log does not look into it.
    """

    index: int
    term: int
    members: bytes
    keeps_log: bool = field(default=False, eq=False)
    """Whether the log held this index at this term and stands; settled and recorded when the mark is written, since
    the segment that would tell may be released when it is read."""


@frozen
class Batch:
    """One batch, as read back. `blocks_bytes` is what it takes on the disk."""

    number: int
    hard_state: HardState
    entries: list[Entry]
    snapshot: SnapshotMark | None
    crc: int
    blocks_bytes: int


def batch_bytes(entries: Sequence[Entry], snapshot: SnapshotMark | None = None) -> int:
    """Return what a batch of these takes on the disk."""
    length = _HEAD_BYTES + _RECORD.size * len(entries)
    for entry in entries:
        length += len(entry[2])
    if snapshot is not None:
        length += _RECORD.size + len(snapshot.members)
    return -(-length // WAL_BLOCK_BYTES) * WAL_BLOCK_BYTES


def frame_batch(
    salt: int,
    segment: int,
    number: int,
    hard_state: HardState,
    entries: Sequence[Entry],
    snapshot: SnapshotMark | None = None,
) -> tuple[int, tuple[bytes, bytes]]:
    """Return the CRC of a batch and its bytes, in two buffers so that a large payload is copied only once."""
    parts: list[bytes] = []
    if snapshot is not None:
        kind = _SNAPSHOT_IN_LOG if snapshot.keeps_log else _SNAPSHOT
        parts += (_RECORD.pack(kind, len(snapshot.members), snapshot.index, snapshot.term), snapshot.members)
    for index, term, data in entries:
        parts += (_RECORD.pack(_ENTRY, len(data), index, term), data)
    length = _HEAD_BYTES + sum(map(len, parts))
    parts.append(bytes(-length % WAL_BLOCK_BYTES))
    payload = b"".join(parts)
    records = len(entries) + (snapshot is not None)
    head = _HEAD.pack(length, segment, number, hard_state.term, hard_state.vote, hard_state.commit, records)
    # S5: the seed is new at each use of a file, so that neither its stale batches nor bytes that a client
    # chose can pass for a batch of this use.
    crc = crc32c(payload, crc32c(head, salt))
    return crc, (_CRC.pack(crc) + head, payload)


def names_segment(view: memoryview, offset: int, segment: int) -> bool:
    """Tell whether the block at `offset` could start a batch of `segment`, a cheap test."""
    _, length, named = _PROBE.unpack_from(view, offset)
    return bool(named == segment and _HEAD_BYTES <= length <= len(view) - offset)


def read_batch(view: memoryview, offset: int, salt: int, segment: int) -> Batch | None:
    """Return the batch that starts at `offset`, or None if there is no valid one of this segment and salt.

    Raises `MalformedBatch`.
    """
    if len(view) - offset < WAL_BLOCK_BYTES or not names_segment(view, offset, segment):
        return None
    length, _, number, term, vote, commit, records = _HEAD.unpack_from(view, offset + _CRC.size)
    end = offset + -(-length // WAL_BLOCK_BYTES) * WAL_BLOCK_BYTES
    if end > len(view):
        return None
    (crc,) = _CRC.unpack_from(view, offset)
    if crc32c(view[offset + _CRC.size : end], salt) != crc:
        return None
    entries, snapshot = _read_records(view[offset + _HEAD_BYTES : offset + length], records)
    return Batch(number, HardState(term, vote, commit), entries, snapshot, crc, end - offset)


def _read_records(view: memoryview, count: int) -> tuple[list[Entry], SnapshotMark | None]:
    entries: list[Entry] = []
    snapshot: SnapshotMark | None = None
    position = 0
    for number in range(count):
        if position + _RECORD.size > len(view):
            raise MalformedBatch(f"record {number} of {count} is cut off")
        kind, length, index, term = _RECORD.unpack_from(view, position)
        position += _RECORD.size
        data = bytes(view[position : position + length])
        position += length
        if kind == _ENTRY:
            entries.append((index, term, data))
        elif kind in (_SNAPSHOT, _SNAPSHOT_IN_LOG) and number == 0:
            snapshot = SnapshotMark(index, term, data, kind == _SNAPSHOT_IN_LOG)
        else:
            raise MalformedBatch(f"record {number} of {count} has the unknown kind {kind}")
    if position != len(view):
        raise MalformedBatch(f"{count} records take {position} bytes where {len(view)} are said to be")
    return entries, snapshot
