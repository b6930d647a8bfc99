"""What the parts of the core share: who this member is, what it remembers, and what leaves with the next `Ready`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field

from coord.protocol.messages import RaftMessage
from coord.raft.log import RaftLog
from coord.raft.options import RaftOptions
from coord.raft.ready import Note
from coord.raft.types import Configuration, HardState
from coord.types import Role


@define(eq=False)
class State:
    """One member's consensus state. Roles change in `core` alone; the parts read them here."""

    member_id: int
    options: RaftOptions
    log: RaftLog
    hard_state: HardState
    configuration: Configuration
    draw: Callable[[int], int]
    durable_term: int
    """The term that the disk holds."""
    role: Role = Role.FOLLOWER
    leader_id: int = 0
    ticks: int = 0
    """Ticks since the start, the only clock there is."""
    configuration_index: int = 0
    """A leader's knowledge: no change of the configuration in its log, above what is applied, lies above it (S12)."""
    is_installing: bool = False
    """A snapshot took the log's place, and the store does not hold it yet."""
    is_watched: bool = False
    """What is applied here is looked at, and its delay would be seen: see `Raft.is_watched`."""
    messages: list[RaftMessage] = field(factory=list)
    durable_messages: list[RaftMessage] = field(factory=list)
    reads: list[tuple[int, int]] = field(factory=list)
    lost_reads: list[int] = field(factory=list)
    snapshots_wanted: list[int] = field(factory=list)
    notes: list[Note] = field(factory=list)

    @property
    def term(self) -> int:
        """The current term."""
        return self.hard_state.term

    @property
    def is_voter(self) -> bool:
        """True if this member's vote may count: it votes in either configuration and is not blank (S1)."""
        configuration = self.configuration
        return self.member_id in configuration.all_voters and self.member_id not in configuration.blank

    @property
    def is_lone(self) -> bool:
        """True if this member alone is a quorum."""
        return self.configuration.has_quorum({self.member_id})

    @property
    def has_committed_in_term(self) -> bool:
        """True if the last committed entry is of this term (thesis §6.4, S8): for a leader, commit is then current."""
        return self.log.term_at(self.log.committed) == self.hard_state.term

    def forget_effects(self) -> None:
        """Begin the next `Ready`."""
        self.messages, self.durable_messages = [], []
        self.reads, self.lost_reads, self.snapshots_wanted = [], [], []
        self.notes = []

    def note(self, name: str, **fields: Any) -> None:
        """Add a log event, in this term."""
        self.notes.append((name, {"term": self.hard_state.term, **fields}))
