"""The log writer: group commit into the WAL, on a thread of its own.

While one write is on the disk, what arrives gathers by itself into the next: no timer is needed, and one sync serves
all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field

from coord.node.worker import Worker
from coord.raft.types import Entry, HardState
from coord.wal.log import Wal


@define
class LogWriter:
    """Owns the WAL. `persisted(term, index, state)` is called when entries up to `index` and `state` are durable."""

    wal: Wal
    worker: Worker
    preparer: Worker
    clock: Callable[[], float]
    wake: Callable[[], None]
    persisted: Callable[[int, int, HardState], None]
    observe_sync: Callable[[float], None]
    last: tuple[int, int] = (0, 0)
    """(term, index) of the last entry handed in."""
    syncs: int = 0
    _entries: list[Entry] = field(factory=list)
    _state: HardState | None = None
    _is_writing: bool = False
    _is_preparing: bool = False
    _failure: BaseException | None = None
    _release_index: int = 0

    def append(self, entries: Sequence[Entry], state: HardState) -> None:
        """Queue entries and the hard state that goes with them."""
        self._entries.extend(entries)
        self._state = state

    def release(self, index: int) -> None:
        """Let go of segments that hold nothing above `index` (S4: the store has synced it)."""
        self._release_index = max(self._release_index, index)

    @property
    def is_idle(self) -> bool:
        """True if everything handed in is durable."""
        return not self._is_writing and self._state is None

    def turn(self) -> bool:
        """Start the next write, if the disk is free."""
        if self._failure is not None:
            raise self._failure
        if self._state is not None and not self._is_writing:
            self._write(self._entries, self._state)
        if not self._is_preparing:
            self._prepare()
        return False

    def _write(self, entries: list[Entry], state: HardState) -> None:
        job = self.wal.plan(entries, state)
        if entries:
            self.last = (entries[-1][1], entries[-1][0])
        term, index = self.last
        self._entries, self._state = [], None
        self._is_writing = True
        started = self.clock()

        def done(error: BaseException | None) -> None:
            self._is_writing = False
            self._failure = error
            if error is None:
                self.syncs += 1
                self.observe_sync(self.clock() - started)
                self.persisted(term, index, state)
            self.wake()

        self.worker.submit(job.run, done)

    def _prepare(self) -> None:
        """Make the next segment ready, or recycle released ones, beside the writes."""
        job = self.wal.prepare_job()
        if job is None and self._release_index:
            job, self._release_index = self.wal.release(self._release_index), 0
        if job is None:
            return
        self._is_preparing = True

        def done(error: BaseException | None) -> None:
            self._is_preparing = False
            if error is not None:
                self._failure = error
            self.wake()

        self.preparer.submit(job.run, done)
