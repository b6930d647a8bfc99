"""Reading the log back.

Nothing is changed before all has been judged. What a crash can leave is repaired: temporary files, a torn
tail. Anything else is damage and refuses to start, since cutting it off might cut off what was acknowledged
(S5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from coord.disk import Disk, File
from coord.errors import DataDirError
from coord.limits import WAL_BLOCK_BYTES, WAL_SEGMENT_BYTES
from coord.raft.types import Entry, HardState
from coord.wal.files import SegmentFiles, clear_tail
from coord.wal.log import SegmentInfo, Wal
from coord.wal.record import Batch, SnapshotMark
from coord.wal.segment import (
    Contents,
    Header,
    damage,
    read_segment,
    segment_name,
    segment_number,
)
from coord.wal.shape import LogShape


@frozen
class Recovery:
    """What the log held."""

    hard_state: HardState
    """`commit` is cut to the last entry: the one of a job of several batches may be ahead of what became
    durable.
    """
    snapshot: SnapshotMark | None
    """The last snapshot installed; the switch to it is to be redone if the store is below it (S6)."""
    start_index: int
    start_term: int
    """The entry before the first of `entries`."""
    entries: list[Entry]
    """The log, without gaps; what was overwritten is cut off."""
    notes: list[tuple[str, dict[str, Any]]]
    """Log events, as (name, fields)."""

    @property
    def last_index(self) -> int:
        """The index of the last entry, or of the snapshot if none follows it.

        A store that is above it, or below `start_index` without a snapshot to redo, is not this log's.
        """
        return self.start_index + len(self.entries)


def recover(
    disk: Disk,
    directory: Path,
    member: int,
    *,
    salt: Callable[[], int],
    segment_bytes: int = WAL_SEGMENT_BYTES,
) -> tuple[Wal, Recovery]:
    """Read the log in `directory`, begin one if it is empty, and return it with what it held; blocks.

    `salt` draws 32 random bits. Raises `DamageError`, `DataDirError` for another member's log or a newer
    format, `DiskFullError` if a new log finds no room, `DiskError`.
    """
    if segment_bytes % WAL_BLOCK_BYTES or segment_bytes < 2 * WAL_BLOCK_BYTES:
        raise ValueError(f"{segment_bytes} bytes are no size for a segment of {WAL_BLOCK_BYTES}-byte blocks")
    disk.make_directory(directory)
    disk.sync_directory(directory.parent)
    names = disk.list(directory)
    numbers = sorted(number for name in names if (number := segment_number(name)) is not None)
    replay = _Replay()
    last = _read_all(disk, directory, member, numbers, replay)
    files = SegmentFiles(disk, directory, segment_bytes)
    files.keep_spares(names)
    # A process that was killed may have left names that are not durable: segments put to use, or taken out of
    # it.
    disk.sync_directory(directory)
    if last is None:
        wal = Wal(files, member, salt)
        wal.plan_first_segment().run()
        return wal, replay.result()
    recovery = replay.result()
    number, crc = last.last_batch
    files.adopt(last.header.number, number, _settle(disk, last))
    wal = Wal(
        files,
        member,
        salt,
        shape=replay.shape,
        hard_state=recovery.hard_state,
        segments=replay.segments,
        salt=last.header.salt,
        offset=last.end,
        batch=number,
        batch_crc=crc,
    )
    return wal, recovery


def _read_all(disk: Disk, directory: Path, member: int, numbers: list[int], replay: _Replay) -> Contents | None:
    """Read and judge the segments in order; return the last one."""
    last: Contents | None = None
    for number in numbers:
        path = directory / segment_name(number)
        file = disk.open(path)
        contents = read_segment(path, file.read(0, file.size()))
        file.close()
        _judge_header(contents, path, number, member)
        if last is not None:
            _judge_successor(directory, last, contents.header)
        replay.take(contents)
        last = contents
    if last is not None:
        if last.later is not None:
            raise damage(last.path, last.end, f"no valid batch, but a valid one follows at offset {last.later}")
        replay.note_tail(last)
    return last


def _judge_header(contents: Contents, path: Path, number: int, member: int) -> None:
    header = contents.header
    if header.number != number:
        raise damage(path, 0, f"the header is that of segment {header.number}, the name that of {number}")
    if header.member != member:
        raise DataDirError(
            f"{path} is the log of member {header.member:x}, this is member {member:x}: "
            f"give each member a data directory of its own"
        )


def _judge_successor(directory: Path, last: Contents, header: Header) -> None:
    """Check that `header` is that of the segment after `last`, and that nothing of `last` is lost."""
    expected = last.header.number + 1
    if header.number != expected:
        missing = directory / segment_name(expected)
        raise damage(missing, 0, f"the file is missing, though segment {header.number} exists")
    number, crc = last.last_batch
    if (number, crc) != (header.previous_batch, header.previous_crc):
        raise damage(
            last.path,
            last.end,
            f"the valid batches end with {number} (checksum {crc:08x}), "
            f"the next segment names {header.previous_batch} ({header.previous_crc:08x}) as the last",
        )


def _settle(disk: Disk, last: Contents) -> File:
    """Open the last segment and make its end certain: S5, torn tail and stale bytes are zeroed, synced."""
    assert isinstance(last.path, Path)
    blocks_bytes = last.batches[-1].blocks_bytes if last.batches else WAL_BLOCK_BYTES
    offset = last.end - blocks_bytes
    file = disk.open(last.path)
    clear_tail(file, last.data[offset : last.end], offset, last.dirty_end)
    return file


@define
class _Replay:
    """The log as it grows while segments are read."""

    shape: LogShape = field(factory=LogShape)
    segments: deque[SegmentInfo] = field(factory=deque)
    _hard_state: HardState = field(factory=HardState)
    _snapshot: SnapshotMark | None = None
    _entries: list[Entry] = field(factory=list)
    """Those from `shape.start_index + 1` on."""
    _notes: list[tuple[str, dict[str, Any]]] = field(factory=list)

    def take(self, contents: Contents) -> None:
        """Take up the next segment."""
        header = contents.header
        stand = (header.last_index, header.last_term)
        if not self.segments:
            self.shape = LogShape.starting_at(*stand)
        elif stand != (self.shape.last_index, self.shape.last_term):
            raise damage(
                contents.path,
                0,
                f"the header says that the log stood at entry {stand[0]} of term {stand[1]}, "
                f"it stands at {self.shape.last_index} of term {self.shape.last_term}",
            )
        self._hard_state = header.hard_state
        segment = SegmentInfo(header.number, header.segment_bytes)
        self.segments.append(segment)
        offset = WAL_BLOCK_BYTES
        for batch in contents.batches:
            try:
                self._take_batch(batch)
            except ValueError as error:
                raise damage(contents.path, offset, str(error)) from error
            segment.add(batch.entries, batch.snapshot)
            offset += batch.blocks_bytes

    def _take_batch(self, batch: Batch) -> None:
        self._hard_state = batch.hard_state
        if batch.snapshot is not None:
            self._snapshot = batch.snapshot
            if not batch.snapshot.keeps_log:
                self._start_at(batch.snapshot.index, batch.snapshot.term)
        entries = batch.entries
        if entries and entries[0][0] <= self.shape.start_index:
            # The entries replace some that a released segment held, and so does the one that they join, whose term
            # is gone with it: the first of them becomes the start. All of this is below what the store has synced.
            self._start_at(*entries[0][:2])
            entries = entries[1:]
        if entries:
            self.shape.extend(entries)
            del self._entries[entries[0][0] - self.shape.start_index - 1 :]
            self._entries += entries

    def _start_at(self, index: int, term: int) -> None:
        self.shape = LogShape.starting_at(index, term)
        self._entries.clear()

    def note_tail(self, last: Contents) -> None:
        """Tell of a torn tail."""
        if last.is_torn:
            fields = {"file": str(last.path), "offset": last.end, "bytes": last.dirty_end - last.end}
            self._notes.append(("wal.tail.torn", fields))

    def result(self) -> Recovery:
        """Return what the log holds."""
        state, last_index = self._hard_state, self.shape.last_index
        return Recovery(
            hard_state=HardState(state.term, state.vote, min(state.commit, last_index)),
            snapshot=self._snapshot,
            start_index=self.shape.start_index,
            start_term=self.shape.start_term,
            entries=self._entries,
            notes=self._notes,
        )
