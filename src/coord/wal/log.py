"""The write-ahead log: what is planned on the loop, and what blocks on a thread.

`Wal.plan` turns entries and the hard state into a `WriteJob`: it frames batches, decides where each goes and
when the next segment begins. That is all memory and arithmetic, and done on the loop, so that nothing is
shared with the thread that runs the job but the files. Jobs are run in the order planned, one at a time; the
next may be planned while one runs.

    loop                 plan ──► WriteJob ─┐            prepare_job, release ─┐
    log's thread                            └► run: roll, write and sync       │
    preparing thread                                                           └► run: zero-fill, recycle
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from attrs import define, evolve, field, frozen

from coord.limits import WAL_BATCH_BYTES_MAX, WAL_BLOCK_BYTES
from coord.raft.types import Entry, HardState
from coord.wal.files import SegmentFiles
from coord.wal.record import SnapshotMark, batch_bytes, frame_batch
from coord.wal.segment import Header
from coord.wal.shape import LogShape


@frozen
class _Roll:
    number: int
    header: bytes

    def run(self, files: SegmentFiles) -> None:
        files.roll(self.number, self.header)


@frozen
class _Write:
    batch: int
    offset: int
    buffers: tuple[bytes, bytes]

    def run(self, files: SegmentFiles) -> None:
        files.write(self.batch, self.offset, self.buffers)


@define
class WriteJob:
    """Writes what one `plan` took; all of it is durable when `run` returns."""

    _files: SegmentFiles
    bytes: int = 0
    """What it writes, headers and padding included."""
    segments: list[int] = field(factory=list)
    """Segments that it puts to use."""
    _steps: deque[_Roll | _Write] = field(factory=deque)

    def run(self) -> None:
        """Write and sync; blocks.

        After a `DiskFullError` nothing of the job may be acknowledged, and `run` may be called again: it goes
        on where it stopped. After any other `DiskError` the log is unusable and the process has to end.
        """
        while self._steps:
            self._steps[0].run(self._files)
            self._steps.popleft()


@define
class PrepareJob:
    """Makes the file for the next segment."""

    _files: SegmentFiles
    is_running: bool = True

    def run(self) -> None:
        """Create and fill the file; blocks. After a `DiskFullError` the log asks for it again."""
        try:
            self._files.prepare()
        finally:
            self.is_running = False


@frozen
class ReleaseJob:
    """Takes the oldest segments out of the log."""

    _files: SegmentFiles
    segments: tuple[tuple[int, int], ...]
    """`(number, bytes)`, oldest first."""

    def run(self) -> None:
        """Recycle or remove the files; blocks."""
        for number, size in self.segments:
            self._files.retire(number, size)


@define
class SegmentInfo:
    """What the planning side knows of a segment; `index_max` is the highest index it names."""

    number: int
    bytes: int
    index_max: int = 0

    def add(self, entries: Sequence[Entry], snapshot: SnapshotMark | None) -> None:
        """Take up what a batch of this segment holds."""
        if entries:
            self.index_max = max(self.index_max, entries[-1][0])
        if snapshot is not None:
            self.index_max = max(self.index_max, snapshot.index)


@frozen
class WalStatistics:
    """The size of the log. `bytes` counts segments and spare files, `batches` all that were ever planned."""

    segments: int
    bytes: int
    last_index: int
    batches: int


@define
class Wal:
    """The log of one member, as its planning side sees it; made by `recover`.

    Entries planned may not be durable yet: their job tells. A `ValueError` from `plan` is a mistake of the
    caller; the log must not be used after it.
    """

    _files: SegmentFiles
    _member: int
    _new_salt: Callable[[], int]
    _shape: LogShape = field(factory=LogShape)
    _hard_state: HardState = field(factory=HardState)
    _segments: deque[SegmentInfo] = field(factory=deque)
    _salt: int = 0
    _offset: int = 0
    """Where the next batch goes, in the last of `_segments`."""
    _batch: int = 0
    _batch_crc: int = 0
    _preparing: PrepareJob | None = None

    @property
    def last_index(self) -> int:
        """The index of the last entry planned, or of a snapshot installed after it."""
        return self._shape.last_index

    def plan(self, entries: Sequence[Entry], hard_state: HardState, snapshot: SnapshotMark | None = None) -> WriteJob:
        """Take up entries, the hard state and a mark for an installed snapshot, which comes before the
        entries.

        Entries continue the log, or replace it from their first index on. Term, vote and commit become
        durable no later than the entries that come with them (S5, S12). Raises `ValueError` if the entries do
        not fit the log, the term goes back, or one entry is larger than a segment.
        """
        if hard_state.term < self._hard_state.term:
            raise ValueError(f"term {hard_state.term} cannot follow term {self._hard_state.term}")
        job = WriteJob(self._files)
        for group, mark, size in self._groups(entries, snapshot):
            if self._offset + size > self._segments[-1].bytes:
                self._plan_roll(job)
            if mark is not None:
                mark = evolve(mark, keeps_log=self._shape.install(mark))
            self._shape.extend(group)
            self._plan_batch(job, group, hard_state, mark, size)
        return job

    def _groups(
        self, entries: Sequence[Entry], snapshot: SnapshotMark | None
    ) -> Iterator[tuple[Sequence[Entry], SnapshotMark | None, int]]:
        """Split what is to be written into batches, each with its size on the disk."""
        bytes_max = min(WAL_BATCH_BYTES_MAX, self._files.segment_bytes - WAL_BLOCK_BYTES)
        size = batch_bytes(entries, snapshot)
        if size <= bytes_max:
            yield entries, snapshot, size
            return
        first = 0
        while first < len(entries) or snapshot is not None:
            last = first
            size = batch_bytes((), snapshot)
            while last < len(entries):
                grown = batch_bytes(entries[first : last + 1], snapshot)
                if grown > bytes_max:
                    break
                last, size = last + 1, grown
            if size > bytes_max or (last == first and snapshot is None):
                raise ValueError(f"a record of the log is larger than a batch, {bytes_max} bytes, can hold")
            yield entries[first:last], snapshot, size
            first, snapshot = last, None

    def _plan_batch(
        self,
        job: WriteJob,
        entries: Sequence[Entry],
        hard_state: HardState,
        snapshot: SnapshotMark | None,
        size: int,
    ) -> None:
        segment = self._segments[-1]
        self._batch += 1
        self._batch_crc, buffers = frame_batch(self._salt, segment.number, self._batch, hard_state, entries, snapshot)
        self._hard_state = hard_state
        job._steps.append(_Write(self._batch, self._offset, buffers))
        job.bytes += size
        self._offset += size
        segment.add(entries, snapshot)

    def _plan_roll(self, job: WriteJob) -> None:
        number = self._segments[-1].number + 1 if self._segments else 1
        self._salt = self._new_salt() & 0xFFFFFFFF
        header = Header(
            number=number,
            segment_bytes=self._files.segment_bytes,
            member=self._member,
            salt=self._salt,
            previous_crc=self._batch_crc,
            previous_batch=self._batch,
            hard_state=self._hard_state,
            last_index=self._shape.last_index,
            last_term=self._shape.last_term,
        )
        job._steps.append(_Roll(number, header.encode()))
        job.bytes += WAL_BLOCK_BYTES
        job.segments.append(number)
        self._segments.append(SegmentInfo(number, self._files.segment_bytes))
        self._offset = WAL_BLOCK_BYTES

    def plan_first_segment(self) -> WriteJob:
        """Return the job that begins an empty log."""
        assert not self._segments
        job = WriteJob(self._files)
        self._plan_roll(job)
        return job

    def prepare_job(self) -> PrepareJob | None:
        """Return a job for the preparing thread if the next segment has no file yet, else None."""
        if self._files.spares or (self._preparing is not None and self._preparing.is_running):
            return None
        self._preparing = PrepareJob(self._files)
        return self._preparing

    def release(self, index: int) -> ReleaseJob | None:
        """Return a job that frees the segments which name nothing above `index`, None if there are none.

        S4: the caller has synced its store at or above `index`, after the commit that brought it there.
        """
        freed: list[tuple[int, int]] = []
        # The last segment stays, with term, vote and commit (S5); "last" is the one in use on the disk, not
        # one that is only planned.
        while self._segments[0].number < self._files.number and self._segments[0].index_max <= index:
            segment = self._segments.popleft()
            freed.append((segment.number, segment.bytes))
        if not freed:
            return None
        self._shape.release(index)
        return ReleaseJob(self._files, tuple(freed))

    def statistics(self) -> WalStatistics:
        """Return the size of the log."""
        spare_bytes = self._files.spares * self._files.segment_bytes
        return WalStatistics(
            segments=len(self._segments),
            bytes=spare_bytes + sum(segment.bytes for segment in self._segments),
            last_index=self._shape.last_index,
            batches=self._batch,
        )

    def close(self) -> None:
        """Close the files; no job may be running."""
        self._files.close()
