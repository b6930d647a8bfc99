"""The store keeper: moves what is applied into the store, and releases the log behind it.

Order is what keeps this safe. A flush holds only what the own log has made durable (S3); the log is released only
after an explicit sync that followed the flush (S4); the overlay is trimmed only when the commit has returned (S7).
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from coord.errors import DiskFullError
from coord.limits import (
    FLUSH_BYTES,
    FLUSH_INTERVAL_S,
    LOG_BYTES_CATCHING_UP_MAX,
    LOG_BYTES_IN_MEMORY_MAX,
    WAL_BYTES_BEFORE_SYNC,
)
from coord.mvcc.machine import StateMachine
from coord.node.consensus import Log
from coord.node.worker import Worker
from coord.raft.log import RaftLog
from coord.store.port import FlushJobPort, StorePort

_RETRY_FULL_S = 1.0
_SLOW_S = 0.5


@define
class StoreKeeper:
    """Owns flushes and syncs. `release_wal(index)` lets the log writer drop segments."""

    store: StorePort
    machine: StateMachine
    raft_log: RaftLog
    worker: Worker
    clock: Callable[[], float]
    log: Log
    wake: Callable[[], None]
    release_wal: Callable[[int], None]
    observe_commit: Callable[[float], None]
    is_log_full: Callable[[], bool]
    log_bytes: Callable[[], int]
    """All that was ever written to the log."""
    """Tells whether the log waits for space."""
    needed_index: Callable[[], int]
    """The entries behind it are about to be sent to other members."""
    on_flushed: Callable[[], object]
    """Called when what was flushed has left the overlay."""
    sync_every_entries: int
    catch_up_entries: int
    catch_up_entries_max: int
    flushes: int = 0
    is_disk_full: bool = False
    is_held: bool = False
    """While a snapshot takes the store's place nothing is flushed, synced or released."""
    _is_working: bool = False
    _next_flush_at: float = 0.0
    _failure: BaseException | None = None
    _sealed_index: int = 0
    _log_bytes_at_sync: int = 0
    _waiting: list[Callable[[], None]] = field(factory=list)
    _sealed: list[tuple[int, Callable[[], None]]] = field(factory=list)
    """`(index, done)`: who waits for what was sealed at `index`."""
    _covered: list[Callable[[], None]] = field(factory=list)
    _waiting_sync: list[Callable[[], None]] = field(factory=list)
    _pending: FlushJobPort | None = None

    @property
    def is_idle(self) -> bool:
        """True if the store's worker has nothing to do, and no job waits to be tried again."""
        return not self._is_working and self._pending is None

    def flush(self, done: Callable[[], None]) -> None:
        """Flush soon, and call `done` when all that is applied and removed by now is committed."""
        self._waiting.append(done)
        self.wake()

    def sync(self, done: Callable[[], None]) -> None:
        """Flush and sync, then call `done`: a restart from here replays nothing."""

        def flushed() -> None:
            self._waiting_sync.append(done)

        self.flush(flushed)

    def turn(self) -> bool:
        """Start a flush or a sync, if one is due and the worker is free."""
        if self._failure is not None:
            raise self._failure
        if self._is_working or self._is_to_rest():
            return False
        if not self._is_due():
            return False
        # Before the next flush: under load there is always one more, and a sync that stood back for it would never
        # come, nor would the log be released. A flush that met a full disk goes first, since no sync can pass it.
        if self._pending is None and self._is_sync_due():
            self._run_sync()
        elif (job := self._pending or self._next_job()) is not None:
            self._run_flush(job)
        return False

    def switched(self) -> None:
        """Learn that another store has taken the place of the one that was flushed so far; go on."""
        self.is_held = False
        self._sealed_index = self.store.applied_index
        waiting = [done for _, done in self._sealed] + self._waiting
        self._sealed, self._waiting = [], []
        # What they waited for has gone with the old store.
        _call(waiting)

    def _is_to_rest(self) -> bool:
        # A job that met a full disk must come to its end before the store may be switched.
        return self.is_held and self._pending is None

    def _is_sync_due(self) -> bool:
        distance = self.store.applied_index - self.store.synced_index
        return bool(self._waiting_sync) or distance >= self._sync_distance()

    @property
    def _is_log_long(self) -> bool:
        return self.log_bytes() - self._log_bytes_at_sync >= WAL_BYTES_BEFORE_SYNC

    def _is_due(self) -> bool:
        if self.clock() >= self._next_flush_at:
            return True
        # A job that met a full disk waits its time out, whoever waits for it: tried at once, and again, it would keep
        # a processor and the disk busy without end.
        is_wanted = bool(self._waiting or self._sealed or self._waiting_sync) or self.store.overlay_bytes >= FLUSH_BYTES
        return self._pending is None and is_wanted

    def _sync_distance(self) -> int:
        # S16: a log that waits for space gets no more entries, and so would wait for ever for the sync that lets it
        # use its old segments again.
        return 1 if self.is_log_full() or self._is_log_long else self.sync_every_entries

    def _next_job(self) -> FlushJobPort | None:
        # Rows are sealed together with the records of the same entries: a part of one without the other would be a
        # state that never was (S6).
        if self.machine.applied_index > self._sealed_index:
            self._sealed_index = self.machine.applied_index
            self.machine.flush_rows()
            self.store.seal(self._sealed_index, self.machine.applied_term)
        self._sealed += [(self._sealed_index, done) for done in self._waiting]
        self._waiting = []
        # S3: commit may be ahead of the own disk, the store may not; who waits for what is held back goes on waiting.
        durable_index = self.raft_log.persisted_index
        job = self.store.flush_job(durable_index)
        self._covered = [done for index, done in self._sealed if index <= durable_index]
        self._sealed = [later for later in self._sealed if later[0] > durable_index]
        if job is None:
            self._next_flush_at = self.clock() + FLUSH_INTERVAL_S
            _call(self._covered)
        return job

    def _run_flush(self, job: FlushJobPort) -> None:
        self._pending = job
        self._is_working = True
        started = self.clock()

        def done(error: BaseException | None) -> None:
            self._is_working = False
            self._next_flush_at = self.clock() + FLUSH_INTERVAL_S
            if isinstance(error, DiskFullError):
                # S16: a full disk raises the alarm; the job stays and is tried again.
                self._next_flush_at = self.clock() + _RETRY_FULL_S
                self.is_disk_full = True
                self.log("store.disk.full", error=error)
            elif error is not None:
                self._failure = error
                self.log("store.flush.failed", error=error)
            else:
                self._flushed(job, self.clock() - started)
            self.wake()

        self.worker.submit(job.run, done)

    def _flushed(self, job: FlushJobPort, took_s: float) -> None:
        self.store.flushed(job)
        self._pending = None
        self.is_disk_full = False
        self.on_flushed()
        self.flushes += 1
        self.observe_commit(took_s)
        if took_s >= _SLOW_S:
            self.log("store.flush.slow", ms=round(took_s * 1000, 1), overlay_bytes=self.store.overlay_bytes)
        _call(self._covered)
        self._release_log()

    def _release_log(self) -> None:
        """Forget what a follower that is not far behind does not need; one that is gets a snapshot."""
        log = self.raft_log
        flushed = min(self.store.applied_index, log.applied, log.persisted_index)
        # Who is brought up to date by a snapshot, or by the entries behind one, would else need another when it has
        # it, and so on for ever under load. Bounded, since a slow one must not fill the memory of the others.
        needed = self.needed_index()
        keep = min(max(self.catch_up_entries, flushed - needed), self.catch_up_entries_max)
        # Of large entries as many stay as there is room for, and no fewer: who lacks the last few must not need a
        # snapshot. There is more room for what one behind a snapshot will ask for, however few entries that is.
        least = log.least_within(LOG_BYTES_IN_MEMORY_MAX)
        if needed < least:
            least = max(needed, log.least_within(LOG_BYTES_CATCHING_UP_MAX))
        floor = max(flushed - keep, min(least, flushed))
        if floor > log.base_index:
            log.release(floor)

    def _run_sync(self) -> None:
        self._is_working = True
        self._log_bytes_at_sync = self.log_bytes()
        waiting, self._waiting_sync = self._waiting_sync, []
        job = self.store.sync_job()

        def done(error: BaseException | None) -> None:
            self._is_working = False
            if error is not None:
                self._failure = error
                self.log("store.flush.failed", error=error)
            else:
                self.store.synced(job)
                # S4: only what an explicit sync has covered may leave the log.
                self.release_wal(self.store.synced_index)
                _call(waiting)
            self.wake()

        self.worker.submit(job.run, done)


def _call(waiting: list[Callable[[], None]]) -> None:
    for done in waiting:
        done()
