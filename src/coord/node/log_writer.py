"""The log writer: group commit into the WAL, on a thread of its own.

While one write is on the disk, what arrives gathers by itself into the next: no timer is needed, and one sync serves
all of it. A message that rests on what is written, a vote or an acknowledgement, travels with the write and leaves when
that is durable (law 2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from attrs import define, field

from coord.errors import DiskFullError
from coord.node.consensus import Log
from coord.node.worker import Worker
from coord.protocol.messages import RaftMessage
from coord.raft.types import Entry, HardState
from coord.wal.log import ReleaseJob, Wal, WriteJob
from coord.wal.record import SnapshotMark

_SLOW_S = 0.1
_RETRY_FULL_S = 0.5
_SHORT_BYTES = 4096
"""A write up to here takes hardly longer than its sync."""


@define
class _Write:
    """What goes to the disk at once: a snapshot's mark, then entries, with the state; and who waits for it."""

    state: HardState
    entries: list[Entry] = field(factory=list)
    mark: SnapshotMark | None = None
    marked: Callable[[], None] | None = None
    messages: list[RaftMessage] = field(factory=list)

    def add(self, entries: Sequence[Entry]) -> None:
        """Take up entries; what they overwrite needs not be written any more."""
        queued = self.entries
        if entries and queued and entries[0][0] <= queued[-1][0]:
            del queued[max(0, entries[0][0] - queued[0][0]) :]
        queued.extend(entries)


@define
class LogWriter:
    """Owns the WAL.

    `persisted(term, index, state)` is called when entries up to `index` and `state` are durable, `send` for the
    messages that waited for it; then `wake`, unless that was in this actor's own turn.
    """

    wal: Wal
    worker: Worker
    preparer: Worker
    clock: Callable[[], float]
    log: Log
    wake: Callable[[], None]
    persisted: Callable[[int, int, HardState], None]
    send: Callable[[Sequence[RaftMessage]], None]
    observe_sync: Callable[[float], None]
    is_answer_due: Callable[[], bool] = lambda: False
    """Tells whether what is committed waits to be applied, and somebody for that."""
    syncs: int = 0
    written_bytes: int = 0
    written_entries: int = 0
    _is_write_full: bool = False
    _is_prepare_full: bool = False
    _last: tuple[int, int] = (0, 0)
    """(term, index) of the last entry handed to the disk."""
    _queue: deque[_Write] = field(factory=deque)
    _writing: _Write | None = None
    _started: float = 0.0
    _may_prepare: bool = True
    """A segment may have to be prepared or recycled: one was begun or released, or it is not known."""
    _is_preparing: bool = False
    _failure: BaseException | None = None
    _release_index: int = 0
    _retry: Callable[[], None] | None = None
    _retry_at: float = 0.0
    _prepare_at: float = 0.0

    def append(self, entries: Sequence[Entry], state: HardState, messages: Sequence[RaftMessage] = ()) -> None:
        """Queue entries and the hard state that goes with them, and messages that leave when both are durable."""
        if not self._queue:
            self._queue.append(_Write(state))
        write = self._queue[-1]
        write.state = state
        write.add(entries)
        write.messages.extend(messages)

    def hold(self, messages: Sequence[RaftMessage]) -> None:
        """Send messages when everything handed in so far is durable; at once if it is."""
        # I7: a message may rest on a write of an earlier Ready. One that is sent before its write is durable could be
        # forgotten by a crash after others have counted on it: a vote given twice, an entry committed on one disk.
        last = self._queue[-1] if self._queue else self._writing
        if last is None:
            self.send(messages)
        else:
            last.messages.extend(messages)

    def mark(self, mark: SnapshotMark, state: HardState, marked: Callable[[], None]) -> None:
        """Say in the log, behind all that is queued, that a snapshot takes the place of what is before it (S6)."""
        self._queue.append(_Write(state, mark=mark, marked=marked))
        self.wake()

    def release(self, index: int) -> None:
        """Let go of segments that hold nothing above `index` (S4: the store has synced it)."""
        self._release_index = max(self._release_index, index)
        self._may_prepare = True

    def writing_for_s(self, now: float) -> float:
        """Return how long the write on the disk has taken so far; 0 if there is none."""
        return now - self._started if self._writing is not None else 0.0

    @property
    def is_disk_full(self) -> bool:
        """True while a write, or the segment that will be needed next, waits for space."""
        return self._is_write_full or self._is_prepare_full

    @property
    def is_idle(self) -> bool:
        """True if everything handed in is durable."""
        return self._writing is None and not self._queue

    def turn(self) -> bool:
        """Start the next write, if the disk is free.

        One that would be over at once waits for `turn_late` where an answer is due before it: a leader's followers have
        the entries already, and take longer.
        """
        if self._queue and self._writing is None and self.worker.is_quick and self.is_answer_due():
            entries = self._queue[0].entries
            if sum([len(entry[-1]) for entry in entries]) <= _SHORT_BYTES:
                return False
        return self.turn_late()

    def turn_late(self) -> bool:
        """Start the next write, if the disk is free, in any case."""
        if self._failure is not None:
            raise self._failure
        if self._retry is not None and self.clock() >= self._retry_at:
            retry, self._retry = self._retry, None
            retry()
        while self._queue and self._writing is None:
            self._plan(self._queue.popleft())
        if self._may_prepare and not self._is_preparing and self.clock() >= self._prepare_at:
            self._prepare()
        return False

    def _plan(self, write: _Write) -> None:
        job = self.wal.plan(write.entries, write.state, write.mark)
        if write.mark is not None:
            self._last = (write.mark.term, write.mark.index)
        if write.entries:
            self._last = (write.entries[-1][1], write.entries[-1][0])
        self._writing = write
        self._write(job, write, *self._last)

    def _write(self, job: WriteJob, write: _Write, term: int, index: int) -> None:
        started = self._started = self.clock()
        is_at_once = True

        def done(error: BaseException | None) -> None:
            if isinstance(error, DiskFullError):
                # S16: nothing of the job is acknowledged; it goes on where it stopped when there is space again.
                self._is_write_full = True
                self._retry = lambda: self._write(job, write, term, index)
                self._retry_at = self.clock() + _RETRY_FULL_S
                self.log("wal.disk.full", error=error)
                return
            if error is not None:
                self._failure = error
                self.log("wal.sync.failed", error=error)
                self.wake()
                return
            self._is_write_full = False
            self._writing = None
            self._written(job, len(write.entries), index, self.clock() - started)
            self.persisted(term, index, write.state)
            if write.messages:
                self.send(write.messages)
            if write.marked is not None:
                write.marked()
            if not is_at_once:
                self.wake()

        self.worker.submit(job.run, done, is_short=job.bytes <= _SHORT_BYTES and not job.segments)
        is_at_once = False

    def _written(self, job: WriteJob, count: int, index: int, took_s: float) -> None:
        self.syncs += 1
        self.written_bytes += job.bytes
        self.written_entries += count
        self.observe_sync(took_s)
        if took_s > _SLOW_S:
            self.log("wal.sync.slow", ms=round(took_s * 1000, 1), bytes=job.bytes, entries=count)
        if job.segments:
            self._may_prepare = True
        for segment in job.segments:
            self.log("wal.segment.rolled", segment=segment, index=index)

    def _prepare(self) -> None:
        """Make the next segment ready, or recycle released ones, beside the writes."""
        # S16: what is released comes first. On a full disk no new file can be made, and its own old ones are the only
        # room that the log can get.
        job = self._release_job() or self.wal.prepare_job()
        self._may_prepare = self._is_preparing = job is not None
        if job is None:
            return

        def done(error: BaseException | None) -> None:
            self._is_preparing = False
            self._is_prepare_full = isinstance(error, DiskFullError)
            if self._is_prepare_full:
                self._prepare_at = self.clock() + _RETRY_FULL_S
                self.log("wal.disk.full", error=error)
            elif error is not None:
                self._failure = error
                self.log("wal.sync.failed", error=error)
            self.wake()

        self.preparer.submit(job.run, done)

    def _release_job(self) -> ReleaseJob | None:
        if not self._release_index:
            return None
        index, self._release_index = self._release_index, 0
        job = self.wal.release(index)
        if job is not None:
            self.log("wal.segment.released", segments=len(job.segments), index=index)
        return job
