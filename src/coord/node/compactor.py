"""The compactor: takes away what compaction made unreachable, in slices, and compacts by itself as configured.

Automatic compaction is etcd's: `periodic` keeps a window of time, `revision` the last N revisions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence

from attrs import define, field

from coord.codec import encode
from coord.limits import (
    COMPACTION_FLUSH_RECORDS,
    COMPACTION_REST_S_MAX,
    COMPACTION_SHARE,
    COMPACTION_SHARE_BEHIND,
    COMPACTION_TURN_S,
    OVERLAY_BYTES_MAX,
)
from coord.mvcc.backend import Position
from coord.mvcc.machine import StateMachine
from coord.node.consensus import Log
from coord.protocol.entries import NOTHING, Frame
from coord.protocol.ops import Op
from coord.store.port import StorePort

REVISION_INTERVAL_S = 300.0
"""How often `revision` mode compacts, as etcd does."""
PERIODIC_INTERVAL_S_MAX = 3600.0
"""How often `periodic` mode compacts at least, however long the window is."""
SAMPLES_PER_INTERVAL = 10
_BUSY_S = 0.1
"""So long after some work a member counts as one that has other work."""


@define
class Compactor:
    """Physical compaction; `flush` asks the store keeper to commit, and calls back when all of it is on disk.

    All members compact at once, and nobody waits for it. So it takes a small share of the time while there is other
    work, its own turns and the commits of what it removed together, a larger one while the next compaction waits for
    this one, and all of the time while there is no other work.
    """

    machine: StateMachine
    store: StorePort
    clock: Callable[[], float]
    log: Log
    wake: Callable[[], None]
    flush: Callable[[Callable[[], None]], None]
    work_done: Callable[[], int]
    """Grows with what is done for clients and members."""
    is_level: Callable[[], bool]
    """Tells whether this member has what its leader has. One that has not may share its processors with the others, and
    a snapshot may replace what it compacts."""
    removed: int = 0
    """Records removed by all compactions since the start."""
    _steps: Generator[Sequence[Position], None, None] | None = None
    _revision: int = 0
    _removed_below: int = 0
    """All that was compacted away below this revision is gone."""
    _next: int = 0
    _started: float = 0.0
    _removed_before: int = 0
    _unflushed: int = 0
    _flush_asked: float = 0.0
    _goes_on_at: float = 0.0
    """Not before, while there is other work."""
    _busy_until: float = 0.0
    _work_seen: int = 0
    _waiting: list[tuple[int, Callable[[], None]]] = field(factory=list)
    """`(revision, resume)`."""

    def __attrs_post_init__(self) -> None:
        # What a stop interrupted goes on; only keys with a history are looked at, so that nothing to do costs nothing.
        self._next = max(self.machine.compact_revision, 0)

    def compacted(self, revision: int) -> None:
        """Learn that the store was compacted at `revision`: what lies below may go."""
        self._next = max(self._next, revision)
        self.wake()

    def after_removal(self, resume: Callable[[], None]) -> None:
        """Call `resume` when everything compacted so far is gone and committed."""
        revision = self.machine.compact_revision
        if revision > self._removed_below:
            self._waiting.append((revision, resume))
        else:
            # A compaction that was asked for again, after its end.
            self.flush(resume)

    def hold(self) -> None:
        """Look at the state no more until `restart`: it is being replaced."""
        self._steps = None
        self._next = self._removed_below = 0

    def restart(self) -> None:
        """Begin anew, with a state that took the place of the one that was being compacted."""
        self._next = max(self.machine.compact_revision, 0)
        self._unflushed = 0
        self.wake()

    @property
    def is_idle(self) -> bool:
        """True if no physical compaction is under way."""
        return self._steps is None and not self._next

    def turn(self) -> bool:
        """Take away what fits into the turn; True if more waits and can go on.

        A removal takes memory until it is flushed, and every scan of the store looks at those that are not. So only
        some are on their way at a time, and this waits for the store as apply does, and before it.
        """
        if self._is_to_rest():
            return False
        if self._steps is None:
            if not self._next:
                return False
            self._start()
        began = self.clock()
        while self._unflushed < COMPACTION_FLUSH_RECORDS and self.store.overlay_bytes < OVERLAY_BYTES_MAX // 2:
            positions = next(self._steps, None) if self._steps is not None else None
            if positions is None:
                self._finish()
                return bool(self._next)
            if positions:
                self._remove(positions)
            if (took_s := self.clock() - began) >= COMPACTION_TURN_S:
                self._rest(took_s)
                return True
        return False

    def tick(self) -> None:
        """See whether there is other work, and go on after a rest if nothing else wakes the loop."""
        now = self.clock()
        if (work := self.work_done()) != self._work_seen or not self.is_level():
            self._work_seen, self._busy_until = work, now + _BUSY_S
        if not self.is_idle and now >= self._goes_on_at:
            self.wake()

    def _is_to_rest(self) -> bool:
        return self.clock() < min(self._goes_on_at, self._busy_until)

    def _rest(self, took_s: float) -> None:
        """Leave the others their share. Bounded, so that compaction ends on the slowest disk too."""
        share = COMPACTION_SHARE_BEHIND if self._next else COMPACTION_SHARE
        rest_s = min(took_s * (1 / share - 1), COMPACTION_REST_S_MAX)
        self._goes_on_at = self.clock() + rest_s

    def _remove(self, positions: Sequence[Position]) -> None:
        self.store.remove(positions)
        self.removed += len(positions)
        self._unflushed += len(positions)
        if self._unflushed >= COMPACTION_FLUSH_RECORDS:
            self._flush_asked = self.clock()
            self.flush(self._on_flushed)

    def _on_flushed(self) -> None:
        self._unflushed = 0
        self._rest(self.clock() - self._flush_asked)
        self.wake()

    def _start(self) -> None:
        self._revision, self._next = self.machine.compact_revision, 0
        self._started = self.clock()
        self._removed_before = self.removed
        self._steps = self.machine.compaction_steps()
        self.log("store.compaction.started", revision=self._revision)

    def _finish(self) -> None:
        self._steps = None
        self._removed_below = self._revision
        took_ms = round((self.clock() - self._started) * 1000, 3)
        records = self.removed - self._removed_before
        self.log("store.compaction.finished", revision=self._revision, records=records, ms=took_ms)
        # Who asked for a later compaction, while this one was under way, waits for that one.
        waiting = [resume for revision, resume in self._waiting if revision <= self._revision]
        self._waiting = [later for later in self._waiting if later[0] > self._revision]
        for resume in waiting:
            self.flush(resume)


@define
class AutoCompaction:
    """Decides when to compact by itself, and at what revision, in etcd's rhythm.

    `mode` is "periodic" (`retention` in seconds) or "revision" (`retention` in revisions); a retention of 0 is off.
    """

    mode: str
    retention: float
    revision: Callable[[], int]
    _samples: deque[tuple[float, int]] = field(factory=deque)
    _next_at: float | None = None
    _next_compaction_at: float = 0.0
    _last: int = 0

    def due(self, now: float) -> int:
        """Return the revision to compact at, or 0; call it about once a second."""
        if not self.retention or (self._next_at is not None and now < self._next_at):
            return 0
        target = self._by_revision(now) if self.mode == "revision" else self._periodic(now)
        if target <= self._last:
            return 0
        self._last = target
        return target

    def _by_revision(self, now: float) -> int:
        is_first = self._next_at is None
        self._next_at = now + REVISION_INTERVAL_S
        return 0 if is_first else self.revision() - int(self.retention)

    def _periodic(self, now: float) -> int:
        """Compact at the newest sample that has left the window.

        The first time after the whole window, and then once per window; one above an hour moves hourly.
        """
        interval_s = min(self.retention, PERIODIC_INTERVAL_S_MAX)
        if self._next_at is None:
            self._next_compaction_at = now + self.retention
        self._next_at = now + interval_s / SAMPLES_PER_INTERVAL
        self._samples.append((now, self.revision()))
        while len(self._samples) > 1 and self._samples[1][0] <= now - self.retention:
            self._samples.popleft()
        sampled_at, target = self._samples[0]
        if now < self._next_compaction_at or sampled_at > now - self.retention or target <= self._last:
            return 0
        self._next_compaction_at = now + interval_s
        return target


def compact_frame(revision: int) -> Frame:
    """Return the frame, as of a client, that compacts at `revision`."""
    return Frame(0, 0, "", NOTHING, encode([[0, int(Op.COMPACT), None, [revision]]]))
