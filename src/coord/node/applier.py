"""The applier: committed entries into the state machine, answers to those who wait, in one pass.

A turn is bounded in time, and apply waits for the store when too much is applied but not yet flushed (law 4).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from attrs import define, field

from coord.codec import NULL
from coord.limits import OVERLAY_BYTES_MAX, TURN_BUDGET_S
from coord.mvcc.applied import Applied, PutRun
from coord.mvcc.machine import StateMachine
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.replies import reply_answer
from coord.node.waiters import ANSWERED, Waiter, Waiters
from coord.protocol.id_run import IdRun, reply_run
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
            is_awaited = self._apply(index, term, data)
            if self.clock() >= ends:
                break
            if not is_awaited and self._queue:
                # A member that was sent many at once, as a quorum had them without it, is in nobody's way; but who was
                # just answered elsewhere may be on its processor.
                os.sched_yield()
        if index:
            self.raft.applied(index)
        return bool(self._queue) and self.store.overlay_bytes < OVERLAY_BYTES_MAX

    def _apply(self, index: int, term: int, data: bytes) -> bool:
        """Apply an entry; tell whether somebody waits for it here."""
        waiters = self.waiters
        if term > self.machine.applied_term:
            waiters.term_began(term)
        proposal = waiters.take_placed(term, index, data)
        entry = proposal.decoded if proposal is not None else None
        applied = self.machine.apply(index, term, data, entry=entry)
        if proposal is None and applied.origin == self.member_id:
            # The leader has not said, or not yet, where it put this entry.
            proposal = waiters.take_applied(applied.number, data)
        self.applied_entries += 1
        if proposal is not None:
            self._answer(applied, proposal.waiters)
        if applied.members_changed:
            self.on_members()
        self.on_applied(applied)
        return proposal is not None

    def _answer(self, applied: Applied, waiters: Sequence[Waiter]) -> None:
        outcomes = applied.outcomes
        if len(outcomes) == 1 and isinstance(outcomes[0], PutRun):
            self._answer_puts(outcomes[0].first, waiters)
            return
        answers, first = applied.answers, 0
        for waiter in waiters:
            sink, ids = waiter.sink, waiter.ids
            last = first + len(ids)
            if sink is None:
                pass
            elif applied.physical:
                self._answer_later(applied, waiter, sink, first)
            else:
                reply = sink.reply
                for (request_id, _), answer in zip(ids, answers[first:last], strict=True):
                    if request_id != ANSWERED:
                        reply(reply_answer(request_id, answer))
                self.outbox.touch(sink)
            first = last

    def _answer_puts(self, revision: int, waiters: Sequence[Waiter]) -> None:
        """Answer the frames of an entry that is one run of puts, the first of which made `revision`."""
        for waiter in waiters:
            sink, ids = waiter.sink, waiter.ids
            if sink is None:
                pass
            elif isinstance(ids, IdRun):
                self.outbox.reply(sink, reply_run(ids.ids, revision))
            else:
                for place, (request_id, _) in enumerate(ids, revision):
                    if request_id != ANSWERED:
                        sink.reply(reply_answer(request_id, (place, True, NULL)))
                self.outbox.touch(sink)
            revision += len(ids)

    def _answer_later(self, applied: Applied, waiter: Waiter, sink: Sink, first: int) -> None:
        """Answer a frame of an entry with a physical compaction; that one is answered when the rows are gone."""
        for position, (request_id, _) in enumerate(waiter.ids, first):
            if request_id == ANSWERED:
                continue
            answer = applied.answers[position]
            reply = reply_answer(request_id, answer)
            if position in applied.physical and answer[1]:
                self.hold_physical(partial(self.outbox.reply, sink, reply))
            else:
                self.outbox.reply(sink, reply)
