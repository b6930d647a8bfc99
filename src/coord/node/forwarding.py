"""The way of writes to the log: proposed here by the leader, forwarded to it by everybody else (S14).

The member that took a write settles it, and answers it from its own apply. What waits for a leader waits in order, as
frames; all that waits when it can go makes up one entry, or a few. A log, its followers and apply work by the entry:
with a hundred connections that each write a little, most of what a write costs would be that of its entry. An entry is
known by a number, that of its first frame; its frames go again only after an answer that it was not proposed; one whose
fate is not known is answered so and never sent again.

Writes of one connection reach the log in the order in which they were sent. Entries are pipelined, and so a refusal may
have others behind it on the way, which must not be taken when their forerunners come again later. Therefore a leader
that refused an entry refuses all that follow, until an empty `Propose` says that the sender has heard of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from attrs import define, field

from coord.errors import ApiError, OutcomeUnknown
from coord.limits import APPEND_BYTES_MAX, ENTRY_BYTES_SHARED_MAX, ENTRY_FRAMES_MAX, FORWARD_BYTES_MAX
from coord.node.ports import Sink
from coord.node.waiters import Proposal, Waiter, Waiters
from coord.protocol.bodies import registers
from coord.protocol.entries import WritesHeader, encode_writes
from coord.protocol.messages import PeerMessage, Propose, Proposed
from coord.raft.core import Raft
from coord.types import Role

_BROKEN = OutcomeUnknown("etcdserver: leader changed: the link to the leader broke, and the write may still be applied")
_UNANSWERED = OutcomeUnknown("etcdserver: leader changed: the former leader does not answer; the write may be applied")


@define
class Forwarder:
    """Owns the frames that are not in a log yet. `no_leader` makes the error for those that found none in time."""

    raft: Raft
    waiters: Waiters
    clock: Callable[[], float]
    send: Callable[[Sequence[PeerMessage]], None]
    is_linked: Callable[[int], bool]
    no_leader: Callable[[], ApiError]
    patience_s: float
    """How long a former leader may take to say what it did not propose."""
    retry_s: float
    max_txn_ops: int
    """Settled for all writes (S15)."""
    has_room: Callable[[], bool] = lambda: True
    """Tells whether the log can take what other members forward; what it cannot take yet waits here."""
    is_leaving: Callable[[int], bool] = lambda member: False
    """Tells whether the entry after which a member is sent no more stands in the log, or may: it would never learn what
    became of an entry behind it."""
    proposed_count: int = 0
    """Entries that went to the own log or to the leader."""
    _queue: deque[Waiter] = field(factory=deque)
    _queue_bytes: int = 0
    _target: int = 0
    """The leader to which all that is sent went."""
    _waits_since: float | None = None
    _again_at: float = 0.0
    _heard: set[int] = field(factory=set)
    """Members that refused an entry, and have not been told that this was heard."""
    _refusing: set[int] = field(factory=set)
    """Members that had an entry refused here, and have not said that they heard."""
    _held: deque[Propose] = field(factory=deque)
    """What other members forwarded and there was no room for. They send no more than they may have unanswered."""
    _refusal: ApiError | None = None
    """Answers what is not proposed, once nothing waits for a leader any more."""

    @property
    def bytes(self) -> int:
        """What waits to be proposed, or to be answered by the leader."""
        return self._queue_bytes + self.waiters.sent_load.bytes

    @property
    def waiting_count(self) -> int:
        """How many frames wait to be proposed or sent."""
        return len(self._queue)

    @property
    def is_idle(self) -> bool:
        """True if every frame has been proposed or answered."""
        return not self._queue and not self.waiters.sent

    def submit(self, waiter: Waiter) -> None:
        """Queue a frame for the log."""
        self._queue.append(waiter)
        self._queue_bytes += len(waiter.frame.body)

    def turn(self) -> None:
        """Propose what waits, or send it to the leader."""
        if self._held:
            self._propose_held()
        raft = self.raft
        if self.waiters.sent and (self._target != raft.leader_id or self._target in self._heard):
            # What follows must not overtake what the former leader may yet refuse. Even if nothing follows, as all
            # callers wait for their answers: they would till the link of a leader that stands still is given up.
            if not raft.leader_id or self._is_patient():
                return
            self.waiters.lose_sent(_UNANSWERED)
        self._waits_since = None
        if not self._queue:
            return
        if raft.role is Role.LEADER:
            while self._queue:
                proposal = self._merge()
                place = raft.propose(proposal.data, raft.member_id)
                if place is None:
                    break
                self._take(proposal)
                self.waiters.place(proposal, *place)
        elif raft.leader_id and self.clock() >= self._again_at and self.is_linked(raft.leader_id):
            self._forward(raft.leader_id)

    def proposed(self, message: Proposed) -> None:
        """Learn from the leader what it did with forwarded entries."""
        refused: list[Waiter] = []
        for number, term, index in message.results:
            proposal = self.waiters.take_sent(number)
            if proposal is None:
                continue
            if index:
                self.waiters.place(proposal, term, index)
            else:
                refused += proposal.waiters
        if not refused:
            return
        if self._refusal is not None:
            for waiter in refused:
                self.waiters.answer(waiter, self._refusal)
            return
        # Nothing was proposed: these go again, before all that came later.
        self._heard.add(message.sender)
        self._again_at = self.clock() + self.retry_s
        self._queue = deque(sorted((*refused, *self._queue), key=lambda waiter: waiter.number))
        self._queue_bytes += sum(len(waiter.frame.body) for waiter in refused)

    def propose_for(self, message: Propose) -> None:
        """Propose what another member forwards, and tell it what became of it."""
        self._held.append(message)
        self._propose_held()

    def _propose_held(self) -> None:
        # Law 4: the others commit without the own disk. While that stands still nothing else would bound the log, for
        # their clients are answered and write on.
        while self._held and (self.raft.role is not Role.LEADER or self.has_room()):
            self._propose(self._held.popleft())

    def _propose(self, message: Propose) -> None:
        if not message.entries:
            self._refusing.discard(message.sender)
            return
        results: list[tuple[int, int, int]] = []
        if self.is_leaving(message.sender):
            self._refusing.add(message.sender)
        for number, data in message.entries:
            place = None if message.sender in self._refusing else self.raft.propose(data, message.sender)
            if place is None:
                self._refusing.add(message.sender)
            results.append((number, *(place or (0, 0))))
        self.send([Proposed(self.raft.member_id, message.sender, results, self.raft.leader_id)])

    def introduced(self, member: int) -> None:
        """Learn that `member` has a new link: what it sent before has arrived or never will."""
        self._refusing.discard(member)
        # Whoever waited for these was told that their outcome is unknown; there may be as many again.
        self._held = deque(message for message in self._held if message.sender != member)

    def link_lost(self, member: int) -> None:
        """Learn that the link to `member` broke, or is another now: it may have had what was sent, or not (S14)."""
        if member == self._target:
            self.waiters.lose_sent(_BROKEN)

    def expire(self, now: float) -> None:
        """Refuse what found no leader in its time: nothing of it was proposed."""
        queue, self._queue = self._queue, deque()
        for waiter in queue:
            if all(deadline <= now for _, deadline in waiter.ids):
                self._queue_bytes -= len(waiter.frame.body)
                self.waiters.answer(waiter, self.no_leader())
                continue
            self._queue.append(waiter)
            if any(deadline <= now for _, deadline in waiter.ids):
                # Its frame waits on for the others in it, and may be proposed with it.
                self.waiters.answer(waiter, OutcomeUnknown(str(self.no_leader())), now)

    def refuse_all(self, error: ApiError) -> None:
        """Refuse all that waits for a leader, and from now on all that a leader refuses."""
        self._refusal = error
        queue, self._queue = self._queue, deque()
        self._queue_bytes = 0
        for waiter in queue:
            self.waiters.answer(waiter, error)

    def forget(self, sink: Sink) -> None:
        """Answer nobody on `sink` any more."""
        for waiter in self._queue:
            if waiter.sink is sink:
                waiter.sink = None

    def _is_patient(self) -> bool:
        now = self.clock()
        if self._waits_since is None:
            self._waits_since = now
        return now < self._waits_since + self.patience_s

    def _forward(self, leader: int) -> None:
        messages: list[PeerMessage] = []
        if leader in self._heard:
            self._heard.discard(leader)
            messages.append(Propose(self.raft.member_id, leader, ()))
        self._target = leader
        batch: list[tuple[int, bytes]] = []
        size = 0
        while self._queue:
            proposal = self._merge()
            data = proposal.data
            if self.waiters.sent and self.waiters.sent_load.bytes + len(data) > FORWARD_BYTES_MAX:
                break
            self._take(proposal)
            if batch and size + len(data) > APPEND_BYTES_MAX:
                messages.append(Propose(self.raft.member_id, leader, batch))
                batch, size = [], 0
            batch.append((proposal.number, data))
            size += len(data)
            self.waiters.send(proposal)
        if batch:
            messages.append(Propose(self.raft.member_id, leader, batch))
        if messages:
            self.send(messages)

    def _merge(self) -> Proposal:
        """Return the entry that the next frames of the queue make up; they stay there until it is taken."""
        queue = self._queue
        count, size = 0, 0
        for waiter in islice(queue, ENTRY_FRAMES_MAX):
            frame = waiter.frame
            # S17: the index of the entry becomes the client's id, so that it holds one registration and nothing else.
            is_alone = registers(frame.decoded)
            size += len(frame.body)
            if count and (is_alone or size > ENTRY_BYTES_SHARED_MAX):
                break
            count += 1
            if is_alone:
                break
        waiters = list(islice(queue, count))
        header = WritesHeader(self.raft.member_id, waiters[0].number, self.max_txn_ops)
        return Proposal(waiters, header, encode_writes(header, [waiter.frame for waiter in waiters]))

    def _take(self, proposal: Proposal) -> None:
        """Take the frames of an entry out of the queue."""
        self.proposed_count += 1
        for waiter in proposal.waiters:
            self._queue.popleft()
            self._queue_bytes -= len(waiter.frame.body)
