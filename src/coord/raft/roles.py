"""Terms and roles: how a member becomes follower, candidate and leader, and what that does to the other parts."""

from __future__ import annotations

from attrs import define, field

from coord.protocol.messages import (
    VOTE_GRANTED,
    Append,
    AppendReply,
    CampaignNow,
    Heartbeat,
    RaftMessage,
    ReadRequest,
    VoteReply,
    VoteRequest,
)
from coord.raft.election import Election, Outcome
from coord.raft.following import Following
from coord.raft.prompt import Prompt
from coord.raft.reads import ReadRounds
from coord.raft.replication import Replication
from coord.raft.state import State
from coord.raft.transfer import Transfer
from coord.raft.types import HardState
from coord.types import Role


@define(eq=False)
class Roles:
    """The one place where term, role and leader change. It owns the parts that have rules of their own."""

    state: State
    noop: bytes
    """The entry that a new leader appends, so that it can commit in its own term (thesis §6.4)."""
    election: Election = field(init=False)
    prompt: Prompt = field(init=False)
    following: Following = field(init=False)
    replication: Replication = field(init=False)
    reads: ReadRounds = field(init=False)
    transfer: Transfer = field(init=False)
    stands_back: bool = False
    """The node is stopping: this member campaigns no more."""
    _is_leaving: bool = False
    """This leader votes no more, and has begun to hand over."""
    _obstacle: str = ""
    """Why it could not campaign when it last would have."""
    _call: tuple[int, int, int] = (0, 0, 0)
    """`(leader, term, tick)`: who told this member to campaign, in which term, and until when that holds."""

    def __attrs_post_init__(self) -> None:
        state = self.state
        state.role = self.follower_role()
        self.election = Election(state)
        self.prompt = Prompt(state)
        self.following = Following(state)
        self.replication = Replication(state)
        self.reads = ReadRounds(state, self.replication)
        self.transfer = Transfer(state, self.replication)

    # Terms.

    def take_term(self, message: RaftMessage) -> bool:
        """Follow a higher term (thesis §3.3); False if the message is thereby done with."""
        sender, reason = 0, "a message of a higher term came"
        if isinstance(message, VoteRequest):
            if message.is_pre:
                return True
            if self.election.keeps_leader(message):
                self.election.vote(message)
                return False
            reason = "another member stands for election"
        elif isinstance(message, VoteReply):
            if message.is_pre and message.refusal == VOTE_GRANTED:
                return True
            reason = "a voter answered in a higher term"
        elif isinstance(message, Append | Heartbeat | CampaignNow):
            sender, reason = message.sender, "another member leads"
        self.become_follower(message.term, sender, reason, message.sender)
        return True

    def answer_outdated(self, message: RaftMessage) -> None:
        """Tell a leader or candidate of an earlier term that it is over; drop all else."""
        state = self.state
        if isinstance(message, Append | Heartbeat):
            # It may have been cut off, and be the only one that does not know (etcd's raft does so too).
            reply = AppendReply(state.member_id, message.sender, state.term, 0, is_rejected=True)
            state.messages.append(reply)
        elif isinstance(message, VoteRequest):
            self.election.vote(message)
        elif isinstance(message, VoteReply) and message.is_pre:
            self.on_vote_reply(message)
        elif isinstance(message, ReadRequest):
            self.reads.refuse(message)

    # Roles.

    def follower_role(self) -> Role:
        """Return what this member is when it neither leads nor campaigns."""
        return Role.LEARNER if self.state.member_id in self.state.configuration.learners else Role.FOLLOWER

    def become_follower(self, term: int, leader: int, reason: str, peer: int = 0) -> None:
        """Follow `leader` (0: nobody yet) in `term`, of which `peer` told."""
        state = self.state
        if state.role is Role.LEADER:
            self.transfer.over(peer)
            self.replication.stop()
            self.reads.stop_leading()
        if term > state.term:
            state.note("raft.term.advanced", from_term=state.term, to_term=term, peer=peer, reason=reason)
            self._enter(HardState(term, 0, state.log.committed))
        self.change_role(self.follower_role(), reason)
        if leader:
            self._follow(leader)
        else:
            self.lose_leader(reason)

    def hear(self, leader: int) -> None:
        """Take it that `leader` leads this term: it sent what only a leader sends."""
        state = self.state
        if state.leader_id == leader and state.role in (Role.FOLLOWER, Role.LEARNER):
            self._follow(leader)
            return
        assert state.role is not Role.LEADER, f"two leaders in term {state.term}"
        self.become_follower(state.term, leader, "another member leads", leader)

    def lose_leader(self, reason: str) -> None:
        """Know no leader any more."""
        state = self.state
        if state.leader_id:
            state.note("raft.leader.lost", leader=state.leader_id, reason=reason)
            state.leader_id = 0
            self.reads.leader_changed()

    def retire_if_removed(self) -> None:
        """Hand over, and stop leading, when this member votes no more (thesis §4.2.2, §3.10).

        It leads on until another's log is as long, for an election timeout at most. Others may not know yet that its
        removal is committed: they would need its vote, and its longer log would make it refuse, for ever.
        """
        state = self.state
        if state.role is not Role.LEADER or state.member_id in state.configuration.all_voters or self.transfer.to:
            return
        if self._is_leaving or not self.transfer.start(0):
            self.become_follower(state.term, 0, "this member is no voter any more")
        self._is_leaving = True

    def change_role(self, role: Role, reason: str) -> None:
        """Take a role, and say so."""
        state = self.state
        if role is state.role:
            return
        before, state.role = state.role, role
        state.note("raft.role.changed", from_role=before.name.lower(), to_role=role.name.lower(), reason=reason)

    def _become_candidate(self, reason: str, is_transfer: bool = False) -> None:
        state = self.state
        self.lose_leader(reason)
        self._enter(HardState(state.term + 1, state.member_id, state.log.committed))
        # The own vote is counted when it is on the disk.
        self.election.begin(reason, is_transfer)
        self.change_role(Role.CANDIDATE, reason)

    def _become_leader(self) -> None:
        state, log = self.state, self.state.log
        self.election.won()
        self.change_role(Role.LEADER, "elected")
        state.leader_id = state.member_id
        self.prompt.cancel()
        # S12: a change that an earlier leader began may stand in the log.
        state.configuration_index = log.last_index
        self._is_leaving = False
        self.replication.start()
        self.reads.lead()
        log.append((log.last_index + 1, state.term, self.noop))

    def _enter(self, hard_state: HardState) -> None:
        self.state.hard_state = hard_state
        self.following.new_term()
        self._call = (0, 0, 0)

    def _follow(self, leader: int) -> None:
        """Hear the leader of this term: the clock starts anew, and no campaign is due."""
        state = self.state
        self.election.hear()
        self.prompt.cancel()
        if state.leader_id != leader:
            self.election.restart_clock()
            state.leader_id = leader
            state.note("raft.leader.found", leader=leader)
            self.reads.leader_changed()

    # Elections.

    def tick(self) -> None:
        """Count a tick of a member that does not lead."""
        self.election.elapsed_ticks += 1
        self.prompt.tick(are_votes_out=self._are_votes_out)
        self.reads.repeat()
        self.campaign_if_prompt()
        # Thesis §3.4: who hears no leader for an election timeout stands for election.
        if self.election.is_timed_out:
            reason = "no leader was heard for an election timeout"
            self.lose_leader(reason)
            self.campaign(reason)

    def campaign(self, reason: str, unreachable: int = 0) -> None:
        """Stand for election unless something forbids it; a pre-vote comes first (thesis §9.6).

        Without it a member that cannot reach a quorum would raise its term for ever, and unseat the leader when it
        comes back. `unreachable` is known to give no answer.
        """
        state = self.state
        if state.role is Role.LEADER or not self._may_campaign():
            return
        # A candidate waits for its own disk. A new term at each timeout would make every vote that a slow disk brings
        # home one of an older term.
        if state.role is Role.CANDIDATE and state.durable_term < state.term:
            return
        self.lose_leader(reason)
        if state.is_lone:
            self._become_candidate(reason)
            return
        self.change_role(Role.PRE_CANDIDATE, reason)
        self.election.begin_pre_vote(reason, unreachable)
        self.count_vote(state.member_id, VOTE_GRANTED)

    def campaign_if_prompt(self) -> None:
        """Begin the campaign that need not wait for the timeout, if it is due (S10)."""
        is_waiting = self.state.role in (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE) and not (
            self.state.leader_id or self._are_votes_out
        )
        if self.prompt.is_due and is_waiting and self._may_campaign():
            self.prompt.started()
            self.campaign(self.prompt.reason, self.prompt.unreachable)

    @property
    def _are_votes_out(self) -> bool:
        """Whether this candidate may still win: its own vote is not durable yet, or one that has a link gave none."""
        state = self.state
        return state.role is Role.CANDIDATE and (
            state.durable_term < state.term or self.election.awaits(self.prompt.linked)
        )

    def stand_back(self) -> None:
        """Campaign no more, as the node is stopping. A leader leads on until another does."""
        self.stands_back = True
        self.prompt.cancel()
        if self.state.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            self.change_role(self.follower_role(), "the node is stopping")

    def on_vote_request(self, request: VoteRequest) -> None:
        """Answer a candidate."""
        if self.election.vote(request):
            # S10: who gave its vote stands back.
            self.prompt.cancel()

    def on_vote_reply(self, reply: VoteReply) -> None:
        """Count a vote; or learn from a refusal that a member cannot take the lead over."""
        state = self.state
        is_granted = reply.refusal == VOTE_GRANTED
        if state.role is Role.LEADER:
            if not is_granted and not reply.is_pre:
                self.transfer.refused(reply.sender, reply.refusal)
        elif reply.sender not in state.configuration.all_voters:
            return
        elif reply.is_pre and state.role is Role.PRE_CANDIDATE:
            # A grant names the term that was asked for, a refusal the voter's own.
            if not is_granted or reply.term == state.term + 1:
                self.count_vote(reply.sender, reply.refusal)
        elif not reply.is_pre and state.role is Role.CANDIDATE:
            self.count_vote(reply.sender, reply.refusal)

    def count_vote(self, voter: int, refusal: str) -> None:
        """Count a vote for this member's campaign, and act on what the votes come to."""
        outcome = self.election.count(voter, refusal)
        if outcome is Outcome.WON:
            if self.state.role is Role.CANDIDATE:
                self._become_leader()
            else:
                self._become_candidate(self.election.reason)
        elif outcome is Outcome.LOST:
            self.election.lost()
            self.prompt.lost()
            self.change_role(self.follower_role(), "a quorum of votes can no longer be had")

    def on_campaign_now(self, message: CampaignNow) -> None:
        """Take the leader's call (thesis §3.10). Being called twice is being called once."""
        state = self.state
        if state.role not in (Role.LEADER, Role.CANDIDATE):
            self._call = (message.sender, message.term, state.ticks + state.options.election_ticks)
            self.answer_call()

    def answer_call(self) -> None:
        """Campaign as the leader called for, without a pre-vote; or tell it why not."""
        state = self.state
        caller, term, until = self._call
        if term != state.term or state.ticks > until:
            return
        if state.log.applied < state.log.committed and not self.stands_back:
            # S12: not before these are applied, which they will be in a moment.
            return
        self._call = (0, 0, 0)
        if self._may_campaign():
            self._become_candidate("the leader hands over", is_transfer=True)
        else:
            state.messages.append(VoteReply(state.member_id, caller, state.term, False, self._obstacle))

    def _may_campaign(self) -> bool:
        obstacle = "the node is stopping" if self.stands_back else self.election.obstacle()
        if obstacle and obstacle != self._obstacle and self.state.is_voter:
            self.state.note("raft.election.postponed", reason=obstacle)
        self._obstacle = obstacle
        return not obstacle
