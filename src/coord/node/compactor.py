"""The compactor: takes away what compaction made unreachable, in slices, and compacts by itself as configured.

Automatic compaction is etcd's: `periodic` keeps a window of time, `revision` the last N revisions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence

from attrs import define, field

from coord.codec import encode
from coord.limits import TURN_BUDGET_S
from coord.mvcc.backend import Position
from coord.mvcc.machine import StateMachine
from coord.node.consensus import Log
from coord.protocol.ops import Op
from coord.store.port import StorePort

REVISION_INTERVAL_S = 300.0
"""How often `revision` mode compacts, as etcd does."""


@define
class Compactor:
    """Physical compaction; `flush` asks the store keeper to commit, and calls back when all of it is on disk."""

    machine: StateMachine
    store: StorePort
    clock: Callable[[], float]
    log: Log
    wake: Callable[[], None]
    flush: Callable[[Callable[[], None]], None]
    removed: int = 0
    _steps: Generator[Sequence[Position], None, None] | None = None
    _revision: int = 0
    _next: int = 0
    _started: float = 0.0
    _waiting: list[Callable[[], None]] = field(factory=list)

    def compacted(self, revision: int) -> None:
        """Learn that the store was compacted at `revision`: what lies below may go."""
        self._next = max(self._next, revision)
        self.wake()

    def after_removal(self, resume: Callable[[], None]) -> None:
        """Call `resume` when everything compacted so far is gone and committed."""
        self._waiting.append(resume)

    @property
    def is_idle(self) -> bool:
        """True if no physical compaction is under way."""
        return self._steps is None and not self._next

    def turn(self) -> bool:
        """Take away what fits into the turn; True if more waits."""
        if self._steps is None:
            if not self._next:
                return False
            self._revision, self._next = self._next, 0
            self._started = self.clock()
            self.removed = 0
            self._steps = self.machine.compaction_steps()
            self.log("store.compaction.started", revision=self._revision)
        ends = self.clock() + TURN_BUDGET_S
        for positions in self._steps:
            if positions:
                self.store.remove(positions)
                self.removed += len(positions)
            if self.clock() >= ends:
                return True
        self._finish()
        return bool(self._next)

    def _finish(self) -> None:
        self._steps = None
        took_ms = round((self.clock() - self._started) * 1000, 3)
        self.log("store.compaction.finished", revision=self._revision, records=self.removed, ms=took_ms)
        waiting, self._waiting = self._waiting, []

        def resume_all() -> None:
            for resume in waiting:
                resume()

        if waiting:
            self.flush(resume_all)


@define
class AutoCompaction:
    """Decides when to compact by itself, and at what revision.

    `mode` is "periodic" (`retention` in seconds) or "revision" (`retention` in revisions); a retention of 0 is off.
    """

    mode: str
    retention: float
    revision: Callable[[], int]
    _samples: deque[tuple[float, int]] = field(factory=deque)
    _next_at: float = 0.0
    _last: int = 0

    def due(self, now: float) -> int:
        """Return the revision to compact at, or 0; call it about once a second."""
        if not self.retention or now < self._next_at:
            return 0
        if self.mode == "revision":
            self._next_at = now + REVISION_INTERVAL_S
            target = self.revision() - int(self.retention)
        else:
            target = self._periodic(now)
        if target <= self._last or target <= 0:
            return 0
        self._last = target
        return target

    def _periodic(self, now: float) -> int:
        """Sample the revision ten times a period; compact at the newest sample that has left the window.

        A window above an hour moves hourly, as etcd's does, and a shorter one once per period.
        """
        self._next_at = now + self.retention / 10
        self._samples.append((now, self.revision()))
        target = 0
        while self._samples and self._samples[0][0] <= now - self.retention:
            target = self._samples.popleft()[1]
        return target


def compact_body(revision: int) -> bytes:
    """Return the body of a write entry that compacts at `revision`."""
    return encode([[0, int(Op.COMPACT), None, [revision]]])
