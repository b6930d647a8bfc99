"""The disk of one simulated member: what is durable, and the writes that are not yet.

A write is a batch of the log (S5): after a crash it is there as a whole or not at all, and none is there without those
before it. Two styles of writers exist, since the core must not care: one gathers what arrives while a write is out
into the next, as the node's log writer does; the other keeps several writes out at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from attrs import define, field, frozen

from coord.protocol.messages import RaftMessage
from coord.raft.types import Configuration, Entry, HardState


@frozen
class Image:
    """The replicated state at an index, as the store and snapshots hold it (S6); `chain` stands for the data."""

    index: int
    term: int
    chain: int
    configuration: Configuration
    has_cluster: bool = False


@define(eq=False)
class Write:
    """What one write makes durable, and the messages that wait for it (law 2).

    `last` is the (term, index) that the completion names. With `image` the write is the record of a snapshot that lies
    beside the log, whole and verified.
    """

    entries: list[Entry]
    state: HardState
    messages: list[RaftMessage]
    last: tuple[int, int]
    image: Image | None = None


@define(eq=False)
class MemberDisk:
    """The durable log behind `base_index`, the hard state, the store; and the queue of writes in their order."""

    store: Image
    is_gathering: bool
    state: HardState = field(factory=HardState)
    base_index: int = 0
    base_term: int = 0
    entries: list[Entry] = field(factory=list)
    received: Image | None = None
    """A snapshot whose record is durable, but to which the store was not yet switched: recovery redoes it."""
    queue: deque[Write] = field(factory=deque)
    _last: tuple[int, int] = (0, 0)

    @property
    def last_index(self) -> int:
        """The last durable entry, or the base."""
        return self.base_index + len(self.entries)

    def term_at(self, index: int) -> int:
        """Return the term of the durable entry at `index`, −1 if there is none or it was released."""
        offset = index - self.base_index
        if offset == 0:
            return self.base_term
        return self.entries[offset - 1][1] if 0 < offset <= len(self.entries) else -1

    def submit(self, entries: Sequence[Entry], state: HardState, messages: Sequence[RaftMessage]) -> bool:
        """Queue a write; True if the disk was idle, so that the caller must see it finished later."""
        if entries:
            self._last = (entries[-1][1], entries[-1][0])
        queue = self.queue
        if self.is_gathering and len(queue) > 1 and queue[-1].image is None:
            write = queue[-1]
            if entries:
                # What is overwritten before it was written never reaches the disk.
                while write.entries and write.entries[-1][0] >= entries[0][0]:
                    write.entries.pop()
                write.entries.extend(entries)
            write.state, write.last = state, self._last
            write.messages.extend(messages)
            return False
        queue.append(Write(list(entries), state, list(messages), self._last))
        return len(queue) == 1

    def submit_snapshot(self, image: Image, state: HardState) -> bool:
        """Queue the record of a snapshot; True if the disk was idle."""
        self.queue.append(Write([], state, [], self._last, image))
        return len(self.queue) == 1

    def hold(self, messages: Sequence[RaftMessage]) -> bool:
        """Let messages wait for all that is queued; False if everything is durable already."""
        if not self.queue:
            return False
        self.queue[-1].messages.extend(messages)
        return True

    def finish(self) -> Write:
        """Make the oldest write durable and return it."""
        write = self.queue.popleft()
        self._settle(write)
        return write

    def crash(self, kept: int) -> int:
        """Forget the writes in the queue but the first `kept`; return how many votes and terms were lost."""
        lost = 0
        for number, write in enumerate(self.queue):
            if number < kept:
                self._settle(write)
            elif (write.state.term, write.state.vote) != (self.state.term, self.state.vote):
                lost += 1
        self.queue.clear()
        self._last = (0, 0)
        if self.received is not None:
            self.switch()
        return lost

    def switch(self) -> Image:
        """Put the received snapshot in the store's place."""
        assert self.received is not None
        self.store, self.received = self.received, None
        return self.store

    def release(self, index: int) -> None:
        """Give up the log up to `index`: the store holds it (S4)."""
        assert index <= self.store.index, (index, self.store.index)
        if index > self.base_index:
            term = self.term_at(index)
            del self.entries[: index - self.base_index]
            self.base_index, self.base_term = index, term

    def _settle(self, write: Write) -> None:
        self.state = write.state
        if write.image is not None:
            self._settle_snapshot(write.image)
        if write.entries:
            first = write.entries[0][0]
            assert self.base_index < first <= self.last_index + 1, (self.base_index, first, self.last_index)
            del self.entries[first - self.base_index - 1 :]
            self.entries.extend(write.entries)

    def _settle_snapshot(self, image: Image) -> None:
        # S6: the log is kept only if it holds the snapshot's index with the snapshot's term.
        if self.term_at(image.index) == image.term:
            del self.entries[: image.index - self.base_index]
        else:
            self.entries.clear()
        self.base_index, self.base_term = image.index, image.term
        self.received = image
