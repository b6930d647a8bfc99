"""Consensus as a pure machine: messages, ticks and completions go in, one `Ready` comes out.

The rules are those of Ongaro's thesis ("Consensus: Bridging Theory and Practice", 2014); each is named where it
stands. The disk is asynchronous: `ready()` says what to write, `persisted(term, index)` says that it is written, and
nothing counts before. This is why a vote for oneself is a write like any other, and why a single voter commits an
entry only after its own disk has it: etcd lost acknowledged writes by treating the lone member as a special case.

This module is the door. Behind it `roles` keeps term and role, and each part has its own rules: `election`, `prompt`,
`following`, `replication`, `reads`, `transfer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define

from coord.protocol.messages import (
    VOTE_GRANTED,
    Append,
    AppendReply,
    CampaignNow,
    Heartbeat,
    HeartbeatReply,
    RaftMessage,
    ReadReply,
    ReadRequest,
    SnapshotReceived,
    VoteReply,
    VoteRequest,
)
from coord.raft.log import RaftLog
from coord.raft.options import RaftOptions
from coord.raft.quorum import majority
from coord.raft.ready import Note, Ready
from coord.raft.roles import Roles
from coord.raft.state import State
from coord.raft.types import Configuration, Entry, HardState
from coord.types import Role

__all__ = ["Note", "Raft", "Ready"]


@define(eq=False, init=False)
class Raft:
    """One member's consensus."""

    _state: State
    _roles: Roles
    _saved_state: HardState
    """What the last `Ready` gave to the disk."""
    _handed_commit: int
    """Up to where committed entries were given to the state machine."""
    _handlers: dict[type[Any], Callable[[Any], None]]

    def __init__(
        self,
        member_id: int,
        options: RaftOptions,
        log: RaftLog,
        hard_state: HardState,
        configuration: Configuration,
        noop: bytes,
        draw: Callable[[int], int],
    ) -> None:
        """Go on from what the disk holds. `draw(n)`, chance, returns one of 0 … n−1; `noop` is a new leader's entry."""
        # What a restart finds on disk is durable by definition.
        log.persisted_index = log.handed_index = log.last_index
        # S12: commit is remembered, and cut to the last recovered entry.
        log.committed = max(log.applied, min(hard_state.commit, log.last_index))
        state = self._state = State(member_id, options, log, hard_state, configuration, draw, hard_state.term)
        roles = self._roles = Roles(state, noop)
        self._saved_state = hard_state
        self._handed_commit = log.applied
        self._handlers = {
            Append: self._on_append,
            AppendReply: self._on_append_reply,
            Heartbeat: self._on_heartbeat,
            HeartbeatReply: self._on_heartbeat_reply,
            VoteRequest: roles.on_vote_request,
            VoteReply: roles.on_vote_reply,
            ReadRequest: roles.reads.asked,
            ReadReply: roles.reads.replied,
            CampaignNow: roles.on_campaign_now,
        }
        state.note(
            "raft.state.restored",
            vote=hard_state.vote,
            commit=log.committed,
            last_index=log.last_index,
            applied=log.applied,
            voters=sorted(configuration.voters),
        )

    # What it is.

    @property
    def member_id(self) -> int:
        """This member."""
        return self._state.member_id

    @property
    def role(self) -> Role:
        """This member's role."""
        return self._state.role

    @property
    def leader_id(self) -> int:
        """The leader of this term as far as it is known, else 0."""
        return self._state.leader_id

    @property
    def term(self) -> int:
        """The current term."""
        return self._state.hard_state.term

    @property
    def hard_state(self) -> HardState:
        """Term and vote; its commit is that of when they last changed, see `state_to_save`."""
        return self._state.hard_state

    @property
    def is_watched(self) -> bool:
        """Whether a delay of what is applied here would be seen by those who look at it; the leader is told so.

        Without that, and while nobody here waits for a write or a read, a follower may learn of a commit with the next
        entry, or a tick later.
        """
        return self._state.is_watched

    @is_watched.setter
    def is_watched(self, is_watched: bool) -> None:
        self._state.is_watched = is_watched

    @property
    def log(self) -> RaftLog:
        """The log in memory."""
        return self._state.log

    @property
    def configuration(self) -> Configuration:
        """The configuration that is applied."""
        return self._state.configuration

    @property
    def is_ready_to_read(self) -> bool:
        """True for a leader that has committed in its own term (S8): its commit index is current."""
        return self._state.role is Role.LEADER and self._state.has_committed_in_term

    def match_of(self, member: int) -> int:
        """Return up to where `member` is known to hold this log on its disk; for others, a leader's knowledge."""
        if member == self._state.member_id:
            return self._state.log.persisted_index
        progress = self._roles.replication.progress.get(member)
        return progress.match if progress is not None else 0

    def progress(self) -> dict[int, tuple[int, bool, str]]:
        """Return `(match, is_active, stage)` for each other member; empty if this member does not lead.

        Active is who was heard within an election timeout.
        """
        heard = self._roles.replication.heard_within(self._state.options.election_ticks)
        return {
            member: (progress.match, member in heard, progress.stage.value)
            for member, progress in self._roles.replication.progress.items()
        }

    def check_last_index(self, member: int, last_index: int) -> bool:
        """Tell whether a member that says that its log ends at `last_index` may be who it says it is.

        S1: not if that is below the highest committed index that it acknowledged to this member. What it acknowledged
        and was not committed may lawfully have been cut.
        """
        return self._roles.replication.may_end_at(member, last_index)

    # What happens to it.

    def step(self, message: RaftMessage) -> None:
        """Take a message from another member."""
        term = self._state.hard_state.term
        if message.term > term:
            if not self._roles.take_term(message):
                return
        elif message.term < term:
            self._roles.answer_outdated(message)
            return
        self._handlers[type(message)](message)

    def tick(self) -> None:
        """Count one tick. S11: after a stall the caller drains its inbox first, and then gives one."""
        self._state.ticks += 1
        if self._state.role is Role.LEADER:
            self._tick_as_leader()
        else:
            self._roles.tick()

    def campaign(self, reason: str) -> None:
        """Stand for election unless something forbids it; a pre-vote comes first (thesis §9.6)."""
        self._roles.campaign(reason)

    def propose(self, data: bytes, awaited_by: int | None = None) -> tuple[int, int] | None:
        """Append an entry and return its (term, index); None if this member does not lead, or hands the lead over.

        `awaited_by` is the only member at which somebody waits for the entry to be applied; None: all are. The others
        may learn of its commit with a later entry.
        """
        state = self._state
        if state.role is not Role.LEADER or self._roles.transfer.to:
            return None
        log = state.log
        index = log.last_index + 1
        log.append((index, state.hard_state.term, data))
        self._roles.replication.await_commit(index, awaited_by)
        return state.hard_state.term, index

    def propose_configuration(self, data: bytes) -> tuple[int, int] | None:
        """Append an entry that changes the configuration, or return None if that must not be done now.

        S12: one change at a time, and the next only when the last is applied here and something of the leader's own
        term is committed (the bug of single-server changes in the thesis, Ongaro 2015). What a leader finds in its
        log when elected may hold one.
        """
        state = self._state
        if state.role is not Role.LEADER:
            return None
        if self._roles.transfer.to:
            reason = "the leadership is being handed over"
        elif state.configuration_index > state.log.applied:
            reason = "the last change is not applied yet"
        elif not state.has_committed_in_term:
            reason = "this leader has not committed in its own term yet"
        else:
            proposal = self.propose(data)
            state.configuration_index = state.log.last_index
            return proposal
        state.note("raft.configuration.refused", reason=reason)
        return None

    def apply_configuration(self, configuration: Configuration) -> None:
        """Take the configuration of an entry that is being applied, before `applied` is called for it."""
        state = self._state
        if configuration == state.configuration:
            return
        state.configuration = configuration
        self._note_configuration()
        # That it is committed must outlast a restart (S12), and soon: entries that would carry the commit to the disk
        # may be long in coming, and a member that was blank until now would refuse its vote (S1).
        state.hard_state = self.state_to_save()
        if state.role is Role.LEADER:
            self._roles.replication.configure(configuration)
            self._roles.transfer.configure()
            # A smaller quorum may have been reached already.
            self._roles.replication.commit()
            self._roles.reads.confirm()
            self._roles.retire_if_removed()
        elif not state.is_voter or state.role in (Role.FOLLOWER, Role.LEARNER):
            self._roles.change_role(self._roles.follower_role(), "the configuration changed")

    def read_index(self, round_id: int) -> None:
        """Start a read round (thesis §6.4); it is confirmed, or given up, in a later `Ready`. See `reads`."""
        self._roles.reads.ask(round_id)

    def persisted(self, term: int, index: int, state: HardState) -> None:
        """Learn that the disk holds `state` and the log up to `index`, whose entry has `term`.

        The term makes the completion of an overwritten entry distinct from its replacement's. It is not enough where
        a third leader brings the first one's entry back: what was written before the last replacement may have been
        cut on disk since (the async-append ABA that etcd's raft pins in its test data), and that is told by `state`.
        """
        mine, log = self._state, self._state.log
        mine.durable_term = max(mine.durable_term, state.term)
        if index > log.persisted_index and state.term >= log.replaced_term and log.holds(index, term):
            log.persisted_index = index
        if mine.role is Role.CANDIDATE and state.term == mine.term and state.vote == mine.member_id:
            # Thesis §3.4: a majority of votes, and this one counts only now that it cannot be forgotten.
            self._roles.count_vote(mine.member_id, VOTE_GRANTED)
        self._roles.replication.commit()

    def applied(self, index: int) -> None:
        """Learn that the state machine has applied the log up to `index`."""
        log = self._state.log
        assert log.applied <= index <= log.committed, (log.applied, index, log.committed)
        log.applied = index
        self._roles.answer_call()

    # Leadership by will.

    def transfer(self, to: int = 0) -> int:
        """Hand the leadership over to `to`, or to whom the core chooses; return whom, 0 if it is impossible."""
        return self._roles.transfer.start(to) if self._state.role is Role.LEADER else 0

    @property
    def transferee(self) -> int:
        """To whom the leadership is being handed over; 0 if it is not."""
        return self._roles.transfer.to

    def stand_back(self) -> None:
        """Never campaign again, and never be chosen: the node is stopping. A leader leads on until another does."""
        self._roles.stand_back()

    # Links (S10) and snapshots.

    def link_up(self, member: int) -> None:
        """Learn that a link to `member` stands."""
        self._roles.replication.link_up(member)
        self._roles.prompt.link_up(member)
        if self._state.role is Role.CANDIDATE:
            self._roles.election.ask(member)
        self._roles.campaign_if_prompt()

    def link_broken(self, member: int, is_refused: bool) -> None:
        """Learn that the link to `member` broke or is silent; `is_refused`: dialling it again was refused at once.

        S10: a link that breaks under a living leader changes nothing. A port that refuses shows that its process is
        gone: then it is forgotten, pre-votes are granted, and a campaign is due.
        """
        self._roles.prompt.link_broken(member)
        self._roles.replication.link_broken(member)
        self._roles.reads.link_broken(member)
        if is_refused and member == self._state.leader_id:
            self._roles.lose_leader("its port refuses connections")
            self._roles.prompt.leader_refused(member)
            self._roles.campaign_if_prompt()

    def snapshot_sent(self, member: int, index: int) -> None:
        """Learn that `member` was sent a whole snapshot at `index`."""
        self._roles.replication.snapshot_sent(member, index)

    def snapshot_failed(self, member: int) -> None:
        """Learn that `member` was not sent the snapshot that it needs."""
        self._roles.replication.snapshot_failed(member)

    def install(self, message: SnapshotReceived) -> bool:
        """Take a snapshot in place of the log, if it is of use; then the store must take it, and `installed` follow.

        Between the two this member takes no entries and does not campaign. False: the log has what it holds, and the
        file is not needed.
        """
        state = self._state
        if message.term > state.term:
            self._roles.become_follower(message.term, message.sender, "a snapshot of a higher term came")
        if state.role is Role.LEADER or not self._roles.following.install(message):
            return False
        self._handed_commit = state.log.committed
        if state.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            self._roles.change_role(self._roles.follower_role(), "a snapshot is being installed")
        return True

    def installed(self, configuration: Configuration) -> None:
        """Learn that the store holds the snapshot of `install`: take its configuration, and acknowledge it."""
        self._roles.following.installed()
        self.apply_configuration(configuration)

    # What comes out.

    def ready(self) -> Ready | None:
        """Return what to do since the last call, or None."""
        state, log = self._state, self._state.log
        if state.role is Role.LEADER:
            self._roles.reads.start()
            self._roles.replication.flush()
        else:
            self._roles.following.flush()
        entries: Sequence[Entry] = ()
        if log.last_index > log.handed_index:
            entries = log.slice(log.handed_index + 1, log.last_index)
            log.handed_index = log.last_index
        committed: Sequence[Entry] = ()
        if log.committed > self._handed_commit:
            committed = log.slice(self._handed_commit + 1, log.committed)
            self._handed_commit = log.committed
        hard_state = None
        if state.hard_state is not self._saved_state:
            hard_state = self._saved_state = state.hard_state
        elif not (
            entries
            or committed
            or state.messages
            or state.durable_messages
            or state.reads
            or state.lost_reads
            or state.snapshots_wanted
            or state.notes
        ):
            return None
        ready = Ready(
            hard_state,
            entries,
            state.messages,
            state.durable_messages,
            committed,
            state.reads,
            state.lost_reads,
            state.snapshots_wanted,
            state.notes,
        )
        state.forget_effects()
        return ready

    def state_to_save(self) -> HardState:
        """Return the hard state that the next write carries: S5 puts the newest commit into every batch."""
        state = self._state
        return HardState(state.hard_state.term, state.hard_state.vote, state.log.committed)

    # Replication.

    def _on_append(self, message: Append) -> None:
        self._roles.hear(message.sender)
        self._roles.following.append(message)

    def _on_heartbeat(self, message: Heartbeat) -> None:
        self._roles.hear(message.sender)
        self._roles.following.heartbeat(message)

    def _on_append_reply(self, reply: AppendReply) -> None:
        if self._state.role is Role.LEADER:
            if self._roles.replication.append_replied(reply):
                self._roles.replication.commit()
            self._roles.transfer.nudge(reply.sender)

    def _on_heartbeat_reply(self, reply: HeartbeatReply) -> None:
        if self._state.role is Role.LEADER:
            self._roles.replication.heartbeat_replied(reply)
            self._roles.reads.answered(reply.sender, reply.round)
            self._roles.transfer.nudge(reply.sender)

    def _tick_as_leader(self) -> None:
        state, roles = self._state, self._roles
        roles.replication.tick()
        roles.transfer.tick()
        roles.retire_if_removed()
        if state.role is not Role.LEADER:
            return
        if state.ticks % state.options.heartbeat_ticks:
            roles.reads.ask_others()
            return
        # Thesis §6.2 (CheckQuorum): who cannot reach a quorum must not go on taking requests.
        heard = roles.replication.heard_within(state.options.election_ticks)
        if state.configuration.has_quorum(heard):
            roles.reads.ask_all()
            return
        state.note("raft.quorum.lost", heard=sorted(heard), quorum=majority(state.configuration))
        roles.become_follower(state.term, 0, "too few voters were heard for an election timeout")
        roles.election.restart_clock()

    def _note_configuration(self) -> None:
        configuration = self._state.configuration
        self._state.note(
            "raft.configuration.applied",
            voters=sorted(configuration.voters),
            outgoing=sorted(configuration.outgoing),
            learners=sorted(configuration.learners),
            blank=sorted(configuration.blank),
        )
