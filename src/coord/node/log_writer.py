"""The log writer: group commit into the WAL, on a thread of its own.

While one write is on the disk, what arrives gathers by itself into the next: no timer is needed, and one sync serves
all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field

from coord.errors import DiskFullError
from coord.node.consensus import Log
from coord.node.worker import Worker
from coord.raft.types import Entry, HardState
from coord.wal.log import ReleaseJob, Wal, WriteJob

_SLOW_S = 0.1
_RETRY_FULL_S = 0.5


@define
class LogWriter:
    """Owns the WAL. `persisted(term, index, state)` is called when entries up to `index` and `state` are durable."""

    wal: Wal
    worker: Worker
    preparer: Worker
    clock: Callable[[], float]
    log: Log
    wake: Callable[[], None]
    persisted: Callable[[int, int, HardState], None]
    observe_sync: Callable[[float], None]
    syncs: int = 0
    written_bytes: int = 0
    _is_write_full: bool = False
    _is_prepare_full: bool = False
    _last: tuple[int, int] = (0, 0)
    """(term, index) of the last entry handed in."""
    _entries: list[Entry] = field(factory=list)
    _state: HardState | None = None
    _is_writing: bool = False
    _started: float = 0.0
    _is_preparing: bool = False
    _failure: BaseException | None = None
    _release_index: int = 0
    _retry: Callable[[], None] | None = None
    _retry_at: float = 0.0
    _prepare_at: float = 0.0

    def append(self, entries: Sequence[Entry], state: HardState) -> None:
        """Queue entries and the hard state that goes with them."""
        self._entries.extend(entries)
        self._state = state

    def release(self, index: int) -> None:
        """Let go of segments that hold nothing above `index` (S4: the store has synced it)."""
        self._release_index = max(self._release_index, index)

    def writing_for_s(self, now: float) -> float:
        """Return how long the write on the disk has taken so far; 0 if there is none."""
        return now - self._started if self._is_writing else 0.0

    @property
    def is_disk_full(self) -> bool:
        """True while a write, or the segment that will be needed next, waits for space."""
        return self._is_write_full or self._is_prepare_full

    @property
    def is_idle(self) -> bool:
        """True if everything handed in is durable."""
        return not self._is_writing and self._state is None

    def turn(self) -> bool:
        """Start the next write, if the disk is free."""
        if self._failure is not None:
            raise self._failure
        if self._retry is not None and self.clock() >= self._retry_at:
            retry, self._retry = self._retry, None
            retry()
        if self._state is not None and not self._is_writing:
            self._plan(self._entries, self._state)
        if not self._is_preparing and self.clock() >= self._prepare_at:
            self._prepare()
        return False

    def _plan(self, entries: list[Entry], state: HardState) -> None:
        job = self.wal.plan(entries, state)
        if entries:
            self._last = (entries[-1][1], entries[-1][0])
        self._entries, self._state = [], None
        self._is_writing = True
        self._write(job, len(entries), *self._last, state)

    def _write(self, job: WriteJob, count: int, term: int, index: int, state: HardState) -> None:
        started = self._started = self.clock()

        def done(error: BaseException | None) -> None:
            if isinstance(error, DiskFullError):
                # S16: nothing of the job is acknowledged; it goes on where it stopped when there is space again.
                self._is_write_full = True
                self._retry = lambda: self._write(job, count, term, index, state)
                self._retry_at = self.clock() + _RETRY_FULL_S
                self.log("wal.disk.full", error=error)
                return
            if error is not None:
                self._failure = error
                self.log("wal.sync.failed", error=error)
                self.wake()
                return
            self._is_write_full = False
            self._is_writing = False
            self._written(job, count, index, self.clock() - started)
            self.persisted(term, index, state)

        self.worker.submit(job.run, done)

    def _written(self, job: WriteJob, count: int, index: int, took_s: float) -> None:
        self.syncs += 1
        self.written_bytes += job.bytes
        self.observe_sync(took_s)
        if took_s > _SLOW_S:
            self.log("wal.sync.slow", ms=round(took_s * 1000, 1), bytes=job.bytes, entries=count)
        for segment in job.segments:
            self.log("wal.segment.rolled", segment=segment, index=index)

    def _prepare(self) -> None:
        """Make the next segment ready, or recycle released ones, beside the writes."""
        # S16: what is released comes first. On a full disk no new file can be made, and its own old ones are the only
        # room that the log can get.
        job = self._release_job() or self.wal.prepare_job()
        if job is None:
            return
        self._is_preparing = True

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
