"""What a member owes when it leads, and when it no longer does."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from coord.codec import encode
from coord.mvcc.machine import StateMachine
from coord.node.consensus import Log
from coord.protocol.entries import Member, encode_entry
from coord.protocol.ops import EntryKind
from coord.raft.core import Raft
from coord.types import Role


@define
class Leadership:
    """Looks at Raft's role after each of its steps. `founders` returns the members that a new cluster begins with."""

    raft: Raft
    machine: StateMachine
    log: Log
    wake: Callable[[], None]
    propose: Callable[[bytes], bool]
    new_id: Callable[[], int]
    founders: Callable[[], list[Member]]
    on_lead: Callable[[], None]
    on_unlead: Callable[[], None]
    writing_for_s: Callable[[], float]
    """How long the write that is on the own disk has taken so far."""
    patience_s: float
    """A leader whose disk takes longer for one write hands over."""
    client_records_max: int
    """What a new cluster begins with: replicated, so that all members forget alike (S17)."""
    is_leading: bool = False
    """It leads, has committed in its own term, and has applied all that was committed before."""
    is_stopping: bool = False
    _led_term: int = 0
    _founded_term: int = 0
    _handed_over_at_s: float = 0.0
    """How long the write had taken when the lead was last offered to another."""

    @property
    def is_lone(self) -> bool:
        """True if this member is the only voter."""
        configuration = self.raft.configuration
        return configuration.all_voters == {self.raft.member_id} and self.raft.member_id not in configuration.blank

    def turn(self) -> bool:
        """Follow Raft's role."""
        raft = self.raft
        if raft.role is Role.FOLLOWER and not self.is_stopping and self.is_lone:
            self._campaign()
        if self.is_leading and (raft.role is not Role.LEADER or raft.term != self._led_term):
            self.is_leading = False
            self.on_unlead()
        # An entry of the own term is applied, and so is all that former leaders had committed.
        if raft.role is Role.LEADER and not self.is_leading and self.machine.applied_term == raft.term:
            self._begin()
        if self.is_leading and not self.is_lone:
            self._judge_disk()
        return False

    def _judge_disk(self) -> None:
        """Hand over when the own disk hangs: the others can commit, but this member's clients would wait for ever.

        Heartbeats need no disk, so that nobody else would ever stand for election.
        """
        took_s = self.writing_for_s()
        if took_s < self.patience_s:
            self._handed_over_at_s = 0.0
        elif took_s >= self._handed_over_at_s + self.patience_s:
            self._handed_over_at_s = took_s
            self.log("raft.leader.stuck", ms=round(took_s * 1000, 1))
            self.raft.transfer()
            self.wake()

    def _campaign(self) -> None:
        # S12: a single voter waits for nobody, but first applies what it had committed.
        if self.machine.applied_index == self.raft.log.committed:
            self.raft.campaign("the only voter needs nobody else's vote")
            if self.raft.role is not Role.FOLLOWER:
                self.wake()

    def _begin(self) -> None:
        if not self.machine.cluster_id:
            self._found()
            return
        self._led_term = self.raft.term
        self.is_leading = True
        self.on_lead()

    def _found(self) -> None:
        """Propose the first entry of a new cluster: its random id and its members (S1)."""
        if self._founded_term == self.raft.term:
            return
        self._founded_term = self.raft.term
        members = self.founders()
        body = encode([self.new_id(), self.client_records_max, [member.to_wire() for member in members]])
        self.propose(encode_entry(EntryKind.CLUSTER, None, body))
        self.log("cluster.identity.created", members=[member.id for member in members])
