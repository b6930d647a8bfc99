"""Who waits for which entry.

An entry holds the frames of one or many clients, and all of them wait for it. It is *placed* once a leader has appended
it: it is known by term and index, and by nothing else (S13). Between that and its sending to the leader it is *sent*,
and known by its number, which is in its header and unique over boots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from attrs import define, field

from coord.errors import ApiError, OutcomeUnknown
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.replies import reply_error
from coord.protocol.entries import Frame, WritesHeader
from coord.protocol.id_run import IdRun
from coord.protocol.ops import EntryKind

Data = bytes
"""An entry as it is encoded."""
ANSWERED: Final = -1
"""In a request id's place; every other integer may be a client's."""
_TIMED_OUT = OutcomeUnknown("etcdserver: request timed out: the write may still be applied")
LOST: Final = OutcomeUnknown("etcdserver: leader changed: another entry took this one's place")


Waiting = list[tuple[int, float]] | IdRun
"""`(request id, deadline)` of each write of a frame; `ANSWERED` for an id that is answered already."""


@define(eq=False)
class Waiter:
    """A client's frame of writes that has not been answered. `number` rises from frame to frame of this member."""

    number: int
    sink: Sink | None
    ids: Waiting
    """By position in the frame."""
    frame: Frame

    @property
    def is_answered(self) -> bool:
        """True if nobody waits any more; the writes may go on."""
        return self.sink is None or all(request_id == ANSWERED for request_id, _ in self.ids)


@define(eq=False)
class Proposal:
    """An entry on its way to being applied, and who waits for it, in the order of its frames."""

    waiters: Sequence[Waiter]
    header: WritesHeader
    data: Data
    term: int = 0
    index: int = 0

    @property
    def number(self) -> int:
        """What it is known by while it has no place."""
        return self.header.number

    @property
    def decoded(self) -> tuple[int, WritesHeader, list[Frame]]:
        """The entry as decoded here already; it stands for exactly the bytes of `data`."""
        return int(EntryKind.WRITES), self.header, [waiter.frame for waiter in self.waiters]

    @property
    def is_answered(self) -> bool:
        """True if nobody waits any more; the writes may go on."""
        return all(waiter.is_answered for waiter in self.waiters)


@define
class Load:
    """How much is somewhere on its way."""

    frames: int = 0
    bytes: int = 0

    def add(self, proposal: Proposal) -> None:
        """Count a proposal that came."""
        self.frames += len(proposal.waiters)
        self.bytes += len(proposal.data)

    def remove(self, proposal: Proposal) -> None:
        """Count a proposal that went on."""
        self.frames -= len(proposal.waiters)
        self.bytes -= len(proposal.data)


@define
class Waiters:
    """Those whose entries are on their way; each is in `placed` or in `sent`."""

    outbox: Outbox
    placed: dict[int, Proposal] = field(factory=dict)
    sent: dict[int, Proposal] = field(factory=dict)
    placed_load: Load = field(factory=Load)
    sent_load: Load = field(factory=Load)

    def __iter__(self) -> Iterator[Proposal]:
        yield from self.placed.values()
        yield from self.sent.values()

    @property
    def frames(self) -> int:
        """How many frames are on their way."""
        return self.placed_load.frames + self.sent_load.frames

    def place(self, proposal: Proposal, term: int, index: int) -> None:
        """Remember where an entry stands in the log of the leader of `term`."""
        # S13: whoever waited for another entry at this index waits for one that was overwritten.
        self._lose(self.placed.pop(index, None))
        proposal.term, proposal.index = term, index
        self.placed[index] = proposal
        self.placed_load.add(proposal)

    def send(self, proposal: Proposal) -> None:
        """Remember an entry that is sent to the leader."""
        self.sent[proposal.number] = proposal
        self.sent_load.add(proposal)

    def take_sent(self, number: int) -> Proposal | None:
        """Remove and return an entry that was sent."""
        proposal = self.sent.pop(number, None)
        if proposal is not None:
            self.sent_load.remove(proposal)
        return proposal

    def take_applied(self, number: int, data: Data) -> Proposal | None:
        """Remove and return an entry that was sent and is applied here, before its place was told."""
        proposal = self.take_sent(number)
        if proposal is not None and proposal.data != data:
            self._answer_all(proposal, LOST)
            return None
        return proposal

    def take_placed(self, term: int, index: int, data: Data) -> Proposal | None:
        """Remove and return exactly this entry, if anybody waits for it."""
        proposal = self.placed.pop(index, None)
        # S13: where an entry stands is another member's word, which can be about one of the same number that an
        # earlier directory of this member sent (S1). What is applied is what the log says, and nothing else.
        if proposal is not None and (proposal.term != term or proposal.data != data):
            self._lose(proposal)
            return None
        if proposal is not None:
            self.placed_load.remove(proposal)
        return proposal

    def overwritten(self, entries: Iterable[tuple[int, int, object]]) -> None:
        """Learn that these entries, `(index, term, …)`, stand in the own log now."""
        if self.placed:
            for index, term, _ in entries:
                proposal = self.placed.get(index)
                if proposal is not None and proposal.term != term:
                    self._lose(self.placed.pop(index))

    def term_began(self, term: int) -> None:
        """Learn that an entry of a new term is applied: none of an older term can follow it in any log."""
        for index in [index for index, proposal in self.placed.items() if proposal.term < term]:
            self._lose(self.placed.pop(index))

    def skipped_to(self, index: int) -> None:
        """Learn that a snapshot took the place of all entries up to `index`: what they answered is not known here."""
        for skipped in [placed for placed in self.placed if placed <= index]:
            self._lose(self.placed.pop(skipped))

    def lose_sent(self, error: ApiError) -> None:
        """Answer everything that was sent and is not placed with `error`."""
        for number in list(self.sent):
            proposal = self.take_sent(number)
            assert proposal is not None
            self._answer_all(proposal, error)

    def expire(self, now: float, is_leader: bool) -> None:
        """Answer those past their deadline; their writes may still be applied (S14)."""
        for proposal in list(self):
            self._answer_all(proposal, _TIMED_OUT, now)
            if proposal.is_answered and not is_leader:
                # An entry of another leader's log may never come. The own ones stay: they count as pending until they
                # are applied or overwritten.
                self._drop(proposal)

    def forget(self, sink: Sink) -> None:
        """Answer nobody on `sink` any more; its writes go on."""
        for proposal in self:
            for waiter in proposal.waiters:
                if waiter.sink is sink:
                    waiter.sink = None

    def answer(self, waiter: Waiter, error: ApiError, now: float | None = None) -> None:
        """Answer all that is open with `error`, or only what is past its deadline at `now`."""
        if waiter.sink is None:
            return
        over = [one for one, deadline in waiter.ids if one != ANSWERED and (now is None or deadline <= now)]
        if over:
            for request_id in over:
                self.outbox.reply(waiter.sink, reply_error(request_id, 0, error))
            answered = set(over)
            waiter.ids = [(ANSWERED if one in answered else one, deadline) for one, deadline in waiter.ids]

    def _answer_all(self, proposal: Proposal, error: ApiError, now: float | None = None) -> None:
        for waiter in proposal.waiters:
            self.answer(waiter, error, now)

    def _drop(self, proposal: Proposal) -> None:
        if self.placed.get(proposal.index) is proposal:
            del self.placed[proposal.index]
            self.placed_load.remove(proposal)
        else:
            self.take_sent(proposal.number)

    def _lose(self, proposal: Proposal | None) -> None:
        if proposal is not None:
            self.placed_load.remove(proposal)
            self._answer_all(proposal, LOST)
