"""One core under test, and the least around it: a disk that writes when told, and what came out so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from attrs import define, field

from coord.protocol.messages import AppendReply, HeartbeatReply, RaftMessage, VoteReply
from coord.raft.core import Note, Raft, Ready
from coord.raft.log import RaftLog
from coord.raft.options import RaftOptions
from coord.raft.types import Configuration, Entry, HardState
from coord.types import Role

OPTIONS = RaftOptions(heartbeat_ticks=2, election_ticks=10, rank_ticks=1)
NOOP = b"noop"
Kind = TypeVar("Kind", bound=RaftMessage)


def voters(
    *members: int, learners: Sequence[int] = (), outgoing: Sequence[int] = (), blank: Sequence[int] = ()
) -> Configuration:
    return Configuration(frozenset(members), frozenset(learners), frozenset(outgoing), frozenset(blank))


def log_of(*terms: int) -> RaftLog:
    """Return a log with entries of these terms, at 1, 2, …"""
    log = RaftLog()
    for index, term in enumerate(terms, 1):
        log.append((index, term, b"%d" % index))
    return log


@define(eq=False)
class Rig:
    """A core, by default member 1 of three; `log` holds entries of the given terms."""

    raft: Raft
    sent: list[RaftMessage] = field(factory=list)
    durable: list[RaftMessage] = field(factory=list)
    """Messages that wait for the disk."""
    written: list[Entry] = field(factory=list)
    committed: list[Entry] = field(factory=list)
    reads: list[tuple[int, int]] = field(factory=list)
    lost_reads: list[int] = field(factory=list)
    snapshots_wanted: list[int] = field(factory=list)
    notes: list[Note] = field(factory=list)

    @classmethod
    def make(
        cls,
        configuration: Configuration | None = None,
        *,
        terms: Sequence[int] = (),
        state: HardState | None = None,
        member: int = 1,
        options: RaftOptions = OPTIONS,
        log: RaftLog | None = None,
    ) -> Rig:
        state = state or HardState(max(terms, default=0))
        configuration = configuration or voters(1, 2, 3)
        return cls(Raft(member, options, log or log_of(*terms), state, configuration, NOOP, lambda limit: 0))

    @property
    def term(self) -> int:
        return self.raft.term

    @property
    def role(self) -> Role:
        return self.raft.role

    def drain(self) -> None:
        """Take all that is ready; nothing is written yet."""
        while (ready := self.raft.ready()) is not None:
            self._take(ready)

    def _take(self, ready: Ready) -> None:
        self.sent += ready.messages
        self.durable += ready.durable_messages
        self.written += ready.entries
        self.committed += ready.committed
        self.reads += ready.reads
        self.lost_reads += ready.lost_reads
        self.snapshots_wanted += ready.snapshots_wanted
        self.notes += ready.notes

    def sync(self) -> None:
        """Take all, write it, let what waited for the disk go; again, until nothing is left to do."""
        self.drain()
        self.sent += self.durable
        self.durable.clear()
        log = self.raft.log
        self.raft.persisted(log.last_term, log.last_index, self.raft.state_to_save())
        self.drain()
        if self.durable or log.persisted_index < log.last_index:
            self.sync()

    def apply(self) -> None:
        self.raft.applied(self.raft.log.committed)

    def step(self, *messages: RaftMessage) -> None:
        for message in messages:
            self.raft.step(message)
        self.drain()

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.raft.tick()
        self.drain()

    def take(self, kind: type[Kind]) -> list[Kind]:
        """Return the messages of a kind that left since the last call, and forget all."""
        self.drain()
        found = [message for message in self.sent if isinstance(message, kind)]
        self.sent.clear()
        return found

    def noted(self, name: str) -> list[dict[str, object]]:
        self.drain()
        return [fields for found, fields in self.notes if found == name]

    def win(self, *voting: int) -> Rig:
        """Win an election with the votes of `voting`; nobody has acknowledged the no-op yet."""
        self.raft.campaign("test")
        for voter in voting:
            self.step(VoteReply(voter, 1, self.term + 1, True))
        self.sync()
        for voter in voting:
            self.step(VoteReply(voter, 1, self.term, False))
        assert self.role is Role.LEADER
        self.sync()
        return self

    def lead(self, *voting: int) -> Rig:
        """Win an election, commit the no-op with those who voted, apply."""
        self.win(*voting)
        for voter in voting:
            self.ack(voter)
        self.sync()
        self.apply()
        self.sent.clear()
        return self

    def ack(self, member: int, index: int | None = None) -> None:
        self.step(AppendReply(member, 1, self.term, self.raft.log.last_index if index is None else index))

    def beat(self, member: int, number: int = 0) -> None:
        self.step(HeartbeatReply(member, 1, self.term, number, False))
