"""Elections (thesis §3.4), with a pre-vote before each (§9.6): the clock, the votes, and how this member votes."""

from __future__ import annotations

from collections.abc import Set
from enum import Enum

from attrs import define, field

from coord.protocol.messages import VOTE_GRANTED, VoteReply, VoteRequest
from coord.raft.quorum import majority
from coord.raft.state import State
from coord.types import Role


class Outcome(Enum):
    """What the votes so far come to."""

    OPEN = 0
    WON = 1
    LOST = 2


@define(eq=False)
class Election:
    """The election timeout of this member, and its own campaign if it has one."""

    _state: State
    elapsed_ticks: int = 0
    """Ticks since a leader was heard, a vote given, or a campaign begun."""
    reason: str = ""
    """Why the campaign began."""
    _timeout_ticks: int = 0
    _is_pre: bool = False
    _is_transfer: bool = False
    _unreachable: int = 0
    """Who is known to give no answer; 0: nobody."""
    _votes: dict[int, bool] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.restart_clock()

    def restart_clock(self) -> None:
        """Wait a whole election timeout from now on, drawn anew so that votes seldom split (thesis §3.4)."""
        ticks = self._state.options.election_ticks
        self.elapsed_ticks = 0
        self._timeout_ticks = ticks + self._state.draw(max(1, ticks // 2))

    def hear(self) -> None:
        """Count from now on, as the leader was heard; what was drawn for this term stands."""
        self.elapsed_ticks = 0

    @property
    def is_timed_out(self) -> bool:
        """True if no leader was heard for an election timeout."""
        return self.elapsed_ticks >= self._timeout_ticks

    @property
    def hears_leader(self) -> bool:
        """True while a leader was heard within the least election timeout: no other is wanted (thesis §4.2.3)."""
        state = self._state
        if state.role is Role.LEADER:
            return True
        return state.leader_id != 0 and self.elapsed_ticks < state.options.election_ticks

    def obstacle(self) -> str:
        """Return why this member must not campaign now, or nothing."""
        state = self._state
        if state.member_id not in state.configuration.all_voters:
            return "it is no voter"
        if state.member_id in state.configuration.blank:
            # S1: it may have been wiped, and would not know what it had acknowledged.
            return "its incarnation is not published yet"
        if state.is_installing:
            return "a snapshot is being installed"
        if state.log.applied < state.log.committed:
            # S12: one of these entries might be a configuration under which this member is no voter.
            return "committed entries are not applied yet"
        return ""

    def begin_pre_vote(self, reason: str, unreachable: int) -> None:
        """Ask who would give its vote in the next term; `unreachable` is known to give no answer, 0: nobody."""
        self._is_pre, self._is_transfer, self._unreachable = True, False, unreachable
        self._begin(reason)

    def begin(self, reason: str, is_transfer: bool) -> None:
        """Ask for votes in the term that this member has just begun."""
        self._unreachable = self._unreachable if self._is_pre and not is_transfer else 0
        self._is_pre, self._is_transfer = False, is_transfer
        self._begin(reason)

    def ask(self, voter: int) -> None:
        """Ask one voter, unless it has answered."""
        state = self._state
        if voter == state.member_id or voter in self._votes or voter not in state.configuration.all_voters:
            return
        log = state.log
        term = state.term + self._is_pre
        request = VoteRequest(
            state.member_id, voter, term, log.last_index, log.last_term, self._is_pre, self._is_transfer
        )
        if self._is_pre:
            state.messages.append(request)
        else:
            # A term of which this member might forget after a crash must not be seen: asking in it once more with a
            # shorter log, it would count the votes that the longer one was given.
            state.durable_messages.append(request)

    def count(self, voter: int, refusal: str) -> Outcome:
        """Count an answer. A member's first answer stands."""
        state = self._state
        votes = self._votes
        is_granted = refusal == VOTE_GRANTED
        votes.setdefault(voter, is_granted)
        granted = {member for member, is_yes in votes.items() if is_yes}
        configuration = state.configuration
        state.note(
            "raft.vote.received",
            pre=self._is_pre,
            voter=voter,
            granted=is_granted,
            reason=refusal or None,
            votes=len(granted),
            quorum=majority(configuration),
        )
        if configuration.has_quorum(granted):
            return Outcome.WON
        refused = (votes.keys() | {self._unreachable}) - granted
        return Outcome.OPEN if configuration.has_quorum(configuration.all_voters - refused) else Outcome.LOST

    def won(self) -> None:
        """Note a victory."""
        votes = sum(self._votes.values())
        self._state.note("raft.election.won", votes=votes, quorum=majority(self._state.configuration))

    def awaits(self, members: Set[int]) -> bool:
        """Tell whether one of `members` may still give this candidate its vote."""
        return bool(self._state.configuration.all_voters & members - self._votes.keys())

    def lost(self) -> None:
        """Note a defeat."""
        granted = sum(self._votes.values())
        self._state.note(
            "raft.election.lost",
            pre=self._is_pre,
            votes=granted,
            refusals=len(self._votes) - granted,
            quorum=majority(self._state.configuration),
        )

    def vote(self, request: VoteRequest) -> bool:
        """Answer a candidate of this term or, for a pre-vote or when a leader is heard, of another.

        Returns True if this member gave its vote.
        """
        state = self._state
        refusal = self._refusal(request)
        if refusal:
            state.note("raft.vote.refused", pre=request.is_pre, candidate=request.sender, reason=refusal)
            reply = VoteReply(state.member_id, request.sender, state.term, request.is_pre, refusal)
            state.messages.append(reply)
            return False
        state.note(
            "raft.vote.granted",
            pre=request.is_pre,
            candidate=request.sender,
            last_index=request.last_index,
            last_term=request.last_term,
        )
        reply = VoteReply(state.member_id, request.sender, request.term, request.is_pre, VOTE_GRANTED)
        if request.is_pre:
            state.messages.append(reply)
            return False
        # Thesis §3.8: the vote is on the disk before it leaves.
        if state.hard_state.vote != request.sender:
            state.hard_state = state.hard_state.voted_for(request.sender)
        state.durable_messages.append(reply)
        self.restart_clock()
        return True

    def keeps_leader(self, request: VoteRequest) -> bool:
        """Tell whether a candidate of a higher term is to be ignored, for a leader is heard (thesis §4.2.3).

        One whom the leader itself told to campaign is not (§3.10).
        """
        return not request.is_transfer and self.hears_leader

    def _begin(self, reason: str) -> None:
        state = self._state
        self.reason = reason
        self._votes = {}
        self.restart_clock()
        voters = sorted(state.configuration.all_voters)
        state.note(
            "raft.election.started",
            pre=self._is_pre,
            reason=reason,
            last_index=state.log.last_index,
            last_term=state.log.last_term,
            voters=voters,
        )
        for voter in voters:
            self.ask(voter)

    def _refusal(self, request: VoteRequest) -> str:
        state = self._state
        if state.member_id in state.configuration.blank:
            return "it joined blank and its incarnation is not published yet"
        if request.term < state.term:
            return f"its term is higher: {state.term}"
        if request.term > state.term and self.keeps_leader(request):
            return "it leads" if state.role is Role.LEADER else f"it hears the leader {state.leader_id:x}"
        if request.term == state.term:
            if state.hard_state.vote not in (0, request.sender):
                return f"it voted for {state.hard_state.vote:x} in this term"
            if state.hard_state.vote == 0 and state.leader_id:
                return f"it follows the leader {state.leader_id:x} of this term"
        # Thesis §3.6.1: a leader must hold all that is committed, and so no older a log than any voter's.
        if (request.last_term, request.last_index) < (state.log.last_term, state.log.last_index):
            return f"its log is longer: it ends with entry {state.log.last_index} of term {state.log.last_term}"
        return VOTE_GRANTED
