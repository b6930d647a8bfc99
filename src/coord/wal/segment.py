"""Segments: the files that the log consists of, their names, headers and contents. Pure.

A segment is a file of a fixed size: a header of one block, then batches, then what the file held before. A
header is written once, when the segment is put to use, and holds all that must survive the release of the
segments before it: term, vote and commit, and where the log stands.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

from attrs import field, frozen
from crc32c import crc32c

from coord.errors import DamageError, DataDirError
from coord.limits import WAL_BLOCK_BYTES
from coord.raft.types import HardState
from coord.wal.record import Batch, MalformedBatch, names_segment, read_batch

FORMAT_VERSION: Final = 1
TEMPORARY_SUFFIX: Final = ".tmp"
"""Files with it are no part of the log, whatever they hold (S5)."""

_MAGIC: Final = b"coordWAL"
_CRC_END: Final = len(_MAGIC) + 4
_START: Final = struct.Struct("<8sII")
"""Magic, CRC32C of all that follows it in the block, format version: the same in every version to come."""
_FIELDS: Final = struct.Struct("<QQQIIQQQQQQ")
_NAME: Final = re.compile(r"([0-9a-f]{16})\.wal")
_SPARE_NAME: Final = re.compile(r"spare-([0-9a-f]{8})\.tmp")

REMEDY: Final = (
    "Do not edit or remove files of the log: acknowledged writes would be lost. Restore this member from the "
    "others (remove it from the cluster, empty its data directory, add it anew), or, if it is the only one, "
    "restore a backup."
)


def damage(path: object, offset: int, found: str) -> DamageError:
    """Return the error for bytes that are not what was written: where, what, and what to do about it."""
    return DamageError(f"{path}, offset {offset}: {found}. {REMEDY}")


def segment_name(number: int) -> str:
    """Return the file name of a segment."""
    return f"{number:016x}.wal"


def segment_number(name: str) -> int | None:
    """Return the number of the segment with this file name, None if it is not a segment's."""
    match = _NAME.fullmatch(name)
    return int(match[1], 16) if match else None


def spare_name(number: int) -> str:
    """Return the file name of a spare file, which is no part of the log."""
    return f"spare-{number:08x}{TEMPORARY_SUFFIX}"


def spare_number(name: str) -> int | None:
    """Return the number of the spare file with this name, None if it is not a spare file's."""
    match = _SPARE_NAME.fullmatch(name)
    return int(match[1], 16) if match else None


@frozen
class Header:
    """The first block of a segment.

    `previous_batch` and `previous_crc` name the last batch of the segment before (0 and 0 in the first), and
    `last_index` and `last_term` the last entry of the log as it stood then.
    """

    number: int
    segment_bytes: int
    member: int
    salt: int
    previous_crc: int
    previous_batch: int
    hard_state: HardState
    last_index: int
    last_term: int

    def encode(self) -> bytes:
        """Return the block."""
        state = self.hard_state
        fields = _FIELDS.pack(
            self.number,
            self.segment_bytes,
            self.member,
            self.salt,
            self.previous_crc,
            self.previous_batch,
            state.term,
            state.vote,
            state.commit,
            self.last_index,
            self.last_term,
        )
        block = (_START.pack(_MAGIC, 0, FORMAT_VERSION) + fields).ljust(WAL_BLOCK_BYTES, b"\0")
        return _MAGIC + crc32c(block[_CRC_END:]).to_bytes(4, "little") + block[_CRC_END:]

    @classmethod
    def decode(cls, block: bytes, path: object) -> Header:
        """Return the header in a block of the file `path`.

        Raises `DamageError` for an invalid one, `DataDirError` for one of a newer version.
        """
        if len(block) < WAL_BLOCK_BYTES:
            raise damage(path, 0, f"the file ends within its header, after {len(block)} bytes")
        magic, crc, version = _START.unpack_from(block)
        if magic != _MAGIC:
            raise damage(path, 0, f"no segment header, but the bytes {bytes(magic)!r}")
        if crc != crc32c(block[_CRC_END:WAL_BLOCK_BYTES]):
            raise damage(path, 0, "the header's checksum is wrong")
        if version > FORMAT_VERSION:
            raise DataDirError(
                f"{path} has log format {version}, this coord knows {FORMAT_VERSION}: upgrade coord first"
            )
        number, size, member, salt, previous_crc, previous_batch, term, vote, commit, index, index_term = (
            _FIELDS.unpack_from(block, _START.size)
        )
        state = HardState(term, vote, commit)
        return cls(number, size, member, salt, previous_crc, previous_batch, state, index, index_term)


@frozen
class Contents:
    """A segment as read: its header and batches, and where the valid batches end."""

    path: object
    data: bytes = field(repr=False)
    header: Header
    batches: list[Batch]
    end: int
    dirty_end: int
    """Where the bytes after the last batch turn to zero for good; `end` if they all are zero."""
    later: int | None
    """Where a valid batch of this segment follows an invalid one, if one does."""
    is_torn: bool
    """Whether what stands at `end` began as a batch of this segment."""

    @property
    def last_batch(self) -> tuple[int, int]:
        """Number and CRC of the last batch, of the one before this segment if it has none."""
        if self.batches:
            return self.batches[-1].number, self.batches[-1].crc
        return self.header.previous_batch, self.header.previous_crc


def read_segment(path: object, data: bytes) -> Contents:
    """Return what a segment's file holds.

    Raises `DamageError` for what can be judged from this file alone: an invalid header, a size that is not
    the header's, a valid batch out of its turn.
    """
    header = Header.decode(data[:WAL_BLOCK_BYTES], path)
    if len(data) != header.segment_bytes:
        raise damage(path, 0, f"the file has {len(data)} bytes, its header says {header.segment_bytes}")
    view = memoryview(data)
    batches: list[Batch] = []
    end = WAL_BLOCK_BYTES
    for batch in _batches(path, view, header):
        expected = header.previous_batch + len(batches) + 1
        if batch.number != expected:
            raise damage(path, end, f"batch {batch.number} stands where batch {expected} belongs")
        batches.append(batch)
        end += batch.blocks_bytes
    is_torn = end < len(view) and names_segment(view, end, header.number)
    dirty_end = max(len(data.rstrip(b"\0")), end)
    later = _find_later(path, view, header, end, dirty_end)
    return Contents(path, data, header, batches, end, dirty_end, later, is_torn)


def _batches(path: object, view: memoryview, header: Header) -> Iterator[Batch]:
    offset = WAL_BLOCK_BYTES
    while (batch := _read(path, view, offset, header)) is not None:
        yield batch
        offset += batch.blocks_bytes


def _read(path: object, view: memoryview, offset: int, header: Header) -> Batch | None:
    try:
        return read_batch(view, offset, header.salt, header.number)
    except MalformedBatch as error:
        raise damage(path, offset, f"a batch with a right checksum is malformed: {error}") from error


def _find_later(path: object, view: memoryview, header: Header, end: int, dirty_end: int) -> int | None:
    # A batch begins with a length and a segment's number, so that none begins where all is zero: most of a segment.
    last = min(dirty_end, len(view) - WAL_BLOCK_BYTES + 1)
    for offset in range(end + WAL_BLOCK_BYTES, last, WAL_BLOCK_BYTES):
        if names_segment(view, offset, header.number) and _read(path, view, offset, header) is not None:
            return offset
    return None
