"""A snapshot takes the place of the state (S6), while the node goes on living.

received and staged ─► Raft takes it in place of its log ─► appliers and flushes rest ─► the log's mark is durable
─► the store is switched ─► the state is loaded anew, in slices ─► Raft acknowledges, everyone goes on

A crash before the mark leaves the old state, one after it is followed by a restart that redoes the switch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from attrs import define

from coord.limits import TURN_BUDGET_S
from coord.mvcc.machine import StateMachine
from coord.node.applier import Applier
from coord.node.consensus import Log
from coord.node.keeper import StoreKeeper
from coord.node.log_writer import LogWriter
from coord.protocol.messages import SnapshotReceived
from coord.raft.core import Raft
from coord.raft.types import Configuration
from coord.store.port import StorePort
from coord.wal.record import SnapshotMark


@define
class Installation:
    """Owns the change of one state for another. `hold` and `go_on` rest and wake all who look at the state."""

    raft: Raft
    machine: StateMachine
    store: StorePort
    log_writer: LogWriter
    keeper: StoreKeeper
    applier: Applier
    clock: Callable[[], float]
    log: Log
    wake: Callable[[], None]
    wake_after: Callable[[float], None]
    owed_s: Callable[[], float]
    configuration: Callable[[], Configuration]
    hold: Callable[[], None]
    go_on: Callable[[int], None]
    """Called with the revision before the switch."""
    installed: int = 0
    _message: SnapshotReceived | None = None
    _done: Callable[[bool], None] = lambda is_installed: None
    _is_marked: bool = False
    _loading: Generator[None, None, None] | None = None
    _revision_before: int = 0
    _started: float = 0.0
    _rests_until: float = 0.0

    @property
    def is_idle(self) -> bool:
        """True if no snapshot is being installed."""
        return self._message is None

    def received(self, message: SnapshotReceived, done: Callable[[bool], None]) -> None:
        """Install a snapshot that is staged beside the store; to be called between two steps of Raft.

        `done` is called with True when it is the state, or with False if it is of no use.
        """
        if self._message is not None or message.index <= self.machine.applied_index or not self.raft.install(message):
            self.log("snapshot.state.outdated", index=message.index, applied=self.machine.applied_index)
            done(False)
            return
        self._message, self._done = message, done
        self._is_marked = False
        self._started = self.clock()
        self._revision_before = self.machine.revision
        # What waits to be applied is in the snapshot.
        self.applier.drop()
        self.applier.is_held = self.keeper.is_held = True
        self.hold()
        mark = SnapshotMark(message.index, message.log_term, b"")
        self.log_writer.mark(mark, self.raft.state_to_save(), self._marked)

    def _marked(self) -> None:
        self._is_marked = True
        self.wake()

    def turn(self) -> bool:
        """Go on, as far as can be; True if more can be done at once."""
        if self._message is None or not self._is_marked or self.clock() < self._rests_until:
            return False
        if self._loading is None:
            if not self.keeper.is_idle:
                return False
            # S6: only now, that a restart would find the mark and switch too.
            self.store.switch()
            self._loading = self.machine.reload()
        self.owed_s()
        ends = self.clock() + TURN_BUDGET_S
        # The first step is taken in the turn of the switch, since it loads who the cluster is, and links ask that.
        while next(self._loading, self) is not self:
            if self.clock() >= ends:
                return self._is_to_go_on()
        self._finish(self._message)
        return False

    def _is_to_go_on(self) -> bool:
        """Tell whether the next slice may follow at once, and come back to it later if not."""
        if not (owed_s := self.owed_s()):
            return True
        self._rests_until = self.clock() + owed_s
        self.wake_after(owed_s)
        return False

    def _finish(self, message: SnapshotReceived) -> None:
        self._message = self._loading = None
        self.installed += 1
        self.keeper.switched()
        self.applier.is_held = False
        self.applier.waiters.skipped_to(message.index)
        # S6: acknowledged after the switch, since the leader then counts on it.
        self.raft.installed(self.configuration())
        self.go_on(self._revision_before)
        self.log(
            "snapshot.state.installed",
            index=message.index,
            log_term=message.log_term,
            revision=self.machine.revision,
            ms=round((self.clock() - self._started) * 1000, 1),
        )
        self._done(True)
        self.wake()
