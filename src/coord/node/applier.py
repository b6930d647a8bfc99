"""The applier: committed entries into the state machine, answers to those who wait, in one pass.

A turn is bounded in time, and apply waits for the store when too much is applied but not yet flushed (law 4).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from attrs import define, field

from coord.limits import OVERLAY_BYTES_MAX, TURN_BUDGET_S
from coord.mvcc.applied import Applied
from coord.mvcc.machine import StateMachine
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.replies import reply_answer
from coord.node.waiters import ANSWERED, Waiters
from coord.raft.core import Raft
from coord.raft.types import Entry
from coord.store.port import StorePort


@define
class Applier:
    """Owns the state machine's progress. `on_applied` tells leases, watches and compaction what changed."""

    machine: StateMachine
    store: StorePort
    raft: Raft
    member_id: int
    waiters: Waiters
    clock: Callable[[], float]
    on_applied: Callable[[Applied], None]
    on_members: Callable[[], None]
    """Called when an entry changed the members, before Raft learns that it is applied (S12)."""
    hold_physical: Callable[[Callable[[], None]], None]
    """Keeps the reply to a physical compaction back until the rows are gone."""
    outbox: Outbox
    applied_entries: int = 0
    is_held: bool = False
    """While a snapshot takes the state's place nothing is applied."""
    _queue: deque[Entry] = field(factory=deque)

    def commit(self, entries: Sequence[Entry]) -> None:
        """Queue committed entries."""
        self._queue.extend(entries)

    def drop(self) -> None:
        """Forget what waits: a snapshot holds all of it."""
        self._queue.clear()

    @property
    def lag(self) -> int:
        """How many committed entries wait."""
        return len(self._queue)

    def turn(self) -> bool:
        """Apply what fits into the turn; True if more waits and can go on."""
        if not self._queue or self.is_held:
            return False
        ends = self.clock() + TURN_BUDGET_S
        index = 0
        while self._queue and self.store.overlay_bytes < OVERLAY_BYTES_MAX:
            index, term, data = self._queue.popleft()
            self._apply(index, term, data)
            if self.clock() >= ends:
                break
        if index:
            self.raft.applied(index)
        return bool(self._queue) and self.store.overlay_bytes < OVERLAY_BYTES_MAX

    def _apply(self, index: int, term: int, data: bytes) -> None:
        waiters = self.waiters
        if term > self.machine.applied_term:
            waiters.term_began(term)
        waiter = waiters.take_placed(term, index, data)
        applied = self.machine.apply(index, term, data, entry=waiter.entry if waiter is not None else None)
        if waiter is None and applied.origin == self.member_id:
            # The leader has not said, or not yet, where it put this frame.
            waiter = waiters.take_applied(applied.frame, data)
        self.applied_entries += 1
        if waiter is not None and waiter.sink is not None:
            self._answer(applied, waiter.ids, waiter.sink)
        if applied.members_changed:
            self.on_members()
        self.on_applied(applied)

    def _answer(self, applied: Applied, ids: Sequence[tuple[int, float]], sink: Sink) -> None:
        if applied.physical:
            self._answer_later(applied, ids, sink)
            return
        reply = sink.reply
        for (request_id, _), answer in zip(ids, applied.answers, strict=True):
            if request_id != ANSWERED:
                reply(reply_answer(request_id, answer))
        self.outbox.touch(sink)

    def _answer_later(self, applied: Applied, ids: Sequence[tuple[int, float]], sink: Sink) -> None:
        """Answer a frame with a physical compaction in it; that one is answered when the rows are gone."""
        for position, ((request_id, _), answer) in enumerate(zip(ids, applied.answers, strict=True)):
            if request_id == ANSWERED:
                continue
            reply = reply_answer(request_id, answer)
            if position in applied.physical and answer[1]:
                self.hold_physical(partial(self.outbox.reply, sink, reply))
            else:
                self.outbox.reply(sink, reply)
