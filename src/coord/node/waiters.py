"""Who waits for which entry.

A frame of writes is *placed* once a leader has appended it: its entry is known by term and index, and by nothing else
(S13). Between that and its sending to the leader it is *sent*, and known by its frame's number, which is in the
entry's header and unique over boots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from attrs import define, field

from coord.errors import ApiError, OutcomeUnknown
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.replies import reply_error
from coord.protocol.entries import WritesHeader

Data = bytes
"""An entry as it is encoded."""
ANSWERED: Final = -1
"""In a request id's place; every other integer may be a client's."""
_TIMED_OUT = OutcomeUnknown("etcdserver: request timed out: the write may still be applied")
LOST: Final = OutcomeUnknown("etcdserver: leader changed: another entry took this one's place")


@define(eq=False)
class Waiter:
    """A frame of writes that has not been answered."""

    frame: int
    sink: Sink | None
    ids: list[tuple[int, float]]
    """`(request id, deadline)` by position in the entry; `ANSWERED` for an id that is answered already."""
    data: Data
    entry: tuple[int, WritesHeader, list[Any]]
    """The entry as decoded here already; it stands for exactly the bytes of `data`."""
    term: int = 0
    index: int = 0

    @property
    def is_answered(self) -> bool:
        """True if nobody waits any more; the writes may go on."""
        return self.sink is None or all(request_id == ANSWERED for request_id, _ in self.ids)


@define
class Waiters:
    """Those whose entries are on their way; each is in `placed` or in `sent`."""

    outbox: Outbox
    placed: dict[int, Waiter] = field(factory=dict)
    sent: dict[int, Waiter] = field(factory=dict)
    bytes: int = 0
    sent_bytes: int = 0

    def __len__(self) -> int:
        return len(self.placed) + len(self.sent)

    def __iter__(self) -> Iterator[Waiter]:
        yield from self.placed.values()
        yield from self.sent.values()

    def place(self, waiter: Waiter, term: int, index: int) -> None:
        """Remember where a waiter's entry stands in the log of the leader of `term`."""
        # S13: whoever waited for another entry at this index waits for one that was overwritten.
        self._lose(self.placed.pop(index, None))
        waiter.term, waiter.index = term, index
        self.placed[index] = waiter
        self.bytes += len(waiter.data)

    def send(self, waiter: Waiter) -> None:
        """Remember a waiter whose entry is sent to the leader."""
        self.sent[waiter.frame] = waiter
        self.sent_bytes += len(waiter.data)

    def take_sent(self, frame: int) -> Waiter | None:
        """Remove and return the waiter of a frame that was sent."""
        waiter = self.sent.pop(frame, None)
        if waiter is not None:
            self.sent_bytes -= len(waiter.data)
        return waiter

    def take_applied(self, frame: int, data: Data) -> Waiter | None:
        """Remove and return who sent a frame that is applied here, before its place was told."""
        waiter = self.take_sent(frame)
        if waiter is not None and waiter.data != data:
            self.answer(waiter, LOST)
            return None
        return waiter

    def take_placed(self, term: int, index: int, data: Data) -> Waiter | None:
        """Remove and return who waits for exactly this entry."""
        waiter = self.placed.pop(index, None)
        # S13: where a frame stands is another member's word, which can be about a frame of the same number that an
        # earlier directory of this member sent (S1). What is applied is what the log says, and nothing else.
        if waiter is not None and (waiter.term != term or waiter.data != data):
            self._lose(waiter)
            return None
        if waiter is not None:
            self.bytes -= len(waiter.data)
        return waiter

    def overwritten(self, entries: Iterable[tuple[int, int, object]]) -> None:
        """Learn that these entries, `(index, term, …)`, stand in the own log now."""
        if self.placed:
            for index, term, _ in entries:
                waiter = self.placed.get(index)
                if waiter is not None and waiter.term != term:
                    self._lose(self.placed.pop(index))

    def term_began(self, term: int) -> None:
        """Learn that an entry of a new term is applied: none of an older term can follow it in any log."""
        for index in [index for index, waiter in self.placed.items() if waiter.term < term]:
            self._lose(self.placed.pop(index))

    def skipped_to(self, index: int) -> None:
        """Learn that a snapshot took the place of all entries up to `index`: what they answered is not known here."""
        for skipped in [placed for placed in self.placed if placed <= index]:
            self._lose(self.placed.pop(skipped))

    def lose_sent(self, error: ApiError) -> None:
        """Answer everything that was sent and is not placed with `error`."""
        for frame in list(self.sent):
            waiter = self.take_sent(frame)
            assert waiter is not None
            self.answer(waiter, error)

    def expire(self, now: float, is_leader: bool) -> None:
        """Answer those past their deadline; their writes may still be applied (S14)."""
        for waiter in list(self):
            self.answer(waiter, _TIMED_OUT, now)
            if waiter.is_answered and not is_leader:
                # An entry of another leader's log may never come. The own ones stay: they count as pending until they
                # are applied or overwritten.
                self._drop(waiter)

    def forget(self, sink: Sink) -> None:
        """Answer nobody on `sink` any more; its writes go on."""
        for waiter in self:
            if waiter.sink is sink:
                waiter.sink = None

    def answer(self, waiter: Waiter, error: ApiError, now: float | None = None) -> None:
        """Answer all that is open with `error`, or only what is past its deadline at `now`."""
        if waiter.sink is None:
            return
        for position, (request_id, deadline) in enumerate(waiter.ids):
            if request_id != ANSWERED and (now is None or deadline <= now):
                self.outbox.reply(waiter.sink, reply_error(request_id, 0, error))
                waiter.ids[position] = (ANSWERED, deadline)

    def _drop(self, waiter: Waiter) -> None:
        if self.placed.get(waiter.index) is waiter:
            del self.placed[waiter.index]
            self.bytes -= len(waiter.data)
        else:
            self.take_sent(waiter.frame)

    def _lose(self, waiter: Waiter | None) -> None:
        if waiter is not None:
            self.bytes -= len(waiter.data)
            self.answer(waiter, LOST)
