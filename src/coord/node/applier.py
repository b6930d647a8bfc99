"""The applier: committed entries into the state machine, answers to those who wait, in one pass.

A turn is bounded in time, and apply waits for the store when too much is applied but not yet flushed (law 4).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from attrs import define, field

from coord.errors import OutcomeUnknown
from coord.limits import OVERLAY_BYTES_MAX, TURN_BUDGET_S
from coord.mvcc.applied import Applied
from coord.mvcc.machine import StateMachine
from coord.node.consensus import ANSWERED, Consensus
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.replies import reply_answer, reply_error
from coord.raft.types import Entry
from coord.store.port import StorePort

_LOST = OutcomeUnknown("etcdserver: leader changed: another entry took this one's place")


@define
class Applier:
    """Owns the state machine's progress. `on_applied` tells leases, watches and compaction what changed."""

    machine: StateMachine
    store: StorePort
    consensus: Consensus
    clock: Callable[[], float]
    on_applied: Callable[[Applied], None]
    hold_physical: Callable[[Callable[[], None]], None]
    """Keeps the reply to a physical compaction back until the rows are gone."""
    outbox: Outbox
    applied_entries: int = 0
    _queue: deque[Entry] = field(factory=deque)

    def commit(self, entries: Sequence[Entry]) -> None:
        """Queue committed entries."""
        self._queue.extend(entries)

    @property
    def lag(self) -> int:
        """How many committed entries wait."""
        return len(self._queue)

    def turn(self) -> bool:
        """Apply what fits into the turn; True if more waits and can go on."""
        if not self._queue:
            return False
        ends = self.clock() + TURN_BUDGET_S
        index = 0
        while self._queue and self.store.overlay_bytes < OVERLAY_BYTES_MAX:
            index, term, data = self._queue.popleft()
            self._apply(index, term, data)
            if self.clock() >= ends:
                break
        if index:
            self.consensus.raft.applied(index)
        return bool(self._queue) and self.store.overlay_bytes < OVERLAY_BYTES_MAX

    def _apply(self, index: int, term: int, data: bytes) -> None:
        waiter = self.consensus.take_waiter(index)
        is_own = waiter is not None and waiter.term == term
        applied = self.machine.apply(index, term, data, entry=waiter.entry if waiter and is_own else None)
        self.applied_entries += 1
        if waiter is not None and waiter.sink is not None:
            sink = waiter.sink
            if not is_own:
                # S13: another leader's entry took the place of this one.
                for request_id, _ in waiter.ids:
                    if request_id != ANSWERED:
                        self.outbox.reply(sink, reply_error(request_id, 0, _LOST))
            else:
                self._answer(applied, waiter.ids, sink)
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
