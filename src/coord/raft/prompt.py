"""Campaigns that do not wait for the election timeout (S10): a leader's process died, or a link makes a quorum.

A link that breaks is no proof by itself: it is dialled again, and only a refusal shows that nobody is there. All
voters learn that at about the same moment, and their ranks keep them apart.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from attrs import define, field

from coord.raft.state import State

_PRE_VOTES_REPEATED_MAX: Final = 2


@define(eq=False)
class Prompt:
    """The next prompt campaign, if one is due at all."""

    _state: State
    reason: str = ""
    unreachable: int = 0
    """The leader whose port refused: it answers nobody until a link to it stands again; 0: none."""
    _due_in: int = -1
    """Ticks until the campaign; −1: none."""
    _rank: int = 0
    """This member's position among the voters that may campaign, when one was planned."""
    _linked: set[int] = field(factory=set)
    _planned_term: int = 0
    """The term in which it was planned: in a later one votes were held since, and split."""
    _is_lost: bool = False
    """So were those of a pre-vote."""
    _starts: int = 0
    _spent_term: int = -1
    """The last term in which a lost leader was cause for one."""

    @property
    def is_due(self) -> bool:
        """True if it is time."""
        return self._due_in == 0

    @property
    def linked(self) -> Set[int]:
        """The members to which a link stands."""
        return self._linked

    def tick(self, *, are_votes_out: bool) -> None:
        """Count. The count rests while votes are out: a second campaign would only throw them away."""
        if self._due_in > 0 and not are_votes_out:
            self._due_in -= 1

    def leader_refused(self, leader: int) -> None:
        """Plan a campaign, as `leader`'s port refused: one in a term, and the normal rules after it."""
        self.unreachable = leader
        if self._spent_term != self._state.term:
            self._spent_term = self._state.term
            self._plan("the leader's port refuses connections")

    def link_up(self, member: int) -> None:
        """Plan a campaign if no leader is known and this link makes a quorum reachable; once for each link-up."""
        state = self._state
        if member == self.unreachable:
            self.unreachable = 0
        self._linked.add(member)
        reachable = self._linked | {state.member_id}
        if (
            state.leader_id
            or not state.configuration.has_quorum(reachable)
            or member not in state.configuration.members
        ):
            return
        if self._due_in < 0:
            self._plan("a quorum can be reached again")

    def link_broken(self, member: int) -> None:
        """Learn that `member` cannot be reached now."""
        self._linked.discard(member)

    def started(self) -> None:
        """Plan the repetition of what begins now: votes may split, which is repeated once, or answers be lost.

        Those of a pre-vote are where a member reaches another before it is reached by it; that is no split.
        """
        self._starts += 1
        has_split = self._is_lost or self._state.term > self._planned_term
        if has_split or self._starts > _PRE_VOTES_REPEATED_MAX:
            self._due_in = -1
            return
        # S10: 60, 100 or 140 ms by default. Those who split the votes began at about the same moment, though their
        # ranks differ, as one had learned of the death later. Counted from there ranks keep them apart, if they are not
        # three from each other; chance would let one pair in five meet again.
        rank_ticks = self._state.options.rank_ticks
        self._due_in = rank_ticks + 1 + self._rank % 3 * rank_ticks

    def lost(self) -> None:
        """Learn that a quorum of votes can no longer be had."""
        self._is_lost = True

    def cancel(self) -> None:
        """Stand back: a leader is heard, a vote was given, or this node is stopping."""
        self._due_in = -1

    def _plan(self, reason: str) -> None:
        state = self._state
        if not state.is_voter:
            return
        voters = sorted(state.configuration.all_voters - {self.unreachable})
        self._rank = voters.index(state.member_id)
        self.reason = reason
        self._planned_term, self._is_lost, self._starts = state.term, False, 0
        self._due_in = self._rank * state.options.rank_ticks
        state.note("raft.campaign.planned", reason=reason, rank=self._rank, ticks=self._due_in)
