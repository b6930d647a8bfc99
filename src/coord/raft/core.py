"""Consensus as a pure machine: ticks and completions go in, one `Ready` comes out.

The rules are those of Ongaro's thesis ("Consensus: Bridging Theory and Practice", 2014); each is named where it
stands. The disk is asynchronous: `ready()` says what to write, `persisted(term, index)` says that it is written, and
nothing counts before. This is why a vote for oneself is a write like any other, and why a single voter commits an
entry only after its own disk has it: etcd lost acknowledged writes by treating the lone member as a special case.

"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field

from coord.protocol.messages import RaftMessage, SnapshotReceived
from coord.raft.log import RaftLog
from coord.raft.options import RaftOptions
from coord.raft.types import Configuration, Entry, HardState
from coord.types import Role

Note = tuple[str, dict[str, Any]]
"""A log event as data: `(name, fields)`."""


@define
class Ready:
    """What the outside must do now, in one batch.

    `hard_state` (None if unchanged) and `entries` go to the log in one write, after which `persisted` is called.
    `messages` may leave at once, `durable_messages` only when that write is durable; without a write they follow the
    one that is out, or leave at once if all is durable. The first of `entries` may lie below entries of an earlier
    `Ready`, which it and its followers replace.

    `committed` goes to the state machine in order. `reads` are read rounds that are confirmed: `(round, index)`;
    what shares the round may be served once `index` is applied. `lost_reads` are rounds that nobody will confirm any
    more: what shares them needs a new round. `snapshots_wanted` are members whose next entry has left this log.
    """

    hard_state: HardState | None = None
    entries: Sequence[Entry] = ()
    messages: Sequence[RaftMessage] = ()
    durable_messages: Sequence[RaftMessage] = ()
    committed: Sequence[Entry] = ()
    reads: Sequence[tuple[int, int]] = ()
    lost_reads: Sequence[int] = ()
    snapshots_wanted: Sequence[int] = ()
    notes: Sequence[Note] = ()


@define
class Raft:
    """One member's consensus state. All changes of role go through the `_become` functions."""

    member_id: int
    options: RaftOptions
    log: RaftLog
    hard_state: HardState
    configuration: Configuration
    noop: bytes
    """The entry that a new leader appends, so that it can commit in its own term (thesis §6.4)."""
    draw: Callable[[int], int]
    """Chance: `draw(n)` returns one of 0 … n−1."""
    role: Role = Role.FOLLOWER
    leader_id: int = 0
    _saved_state: HardState = field(init=False)
    _elapsed_ticks: int = 0
    _saved_index: int = field(init=False)
    _handed_index: int = field(init=False)
    _waiting_rounds: list[int] = field(factory=list)
    _reads: list[tuple[int, int]] = field(factory=list)
    _notes: list[Note] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        # What a restart finds on disk is durable by definition.
        self._saved_state = self.hard_state
        self.log.persisted_index = self.log.last_index
        self._saved_index = self.log.last_index
        self._handed_index = self.log.applied
        # S12: commit is remembered, and cut to the last recovered entry.
        self.log.committed = max(self.log.applied, min(self.hard_state.commit, self.log.last_index))

    @property
    def term(self) -> int:
        """The current term."""
        return self.hard_state.term

    @property
    def is_ready_to_read(self) -> bool:
        """True for a leader that has committed in its own term (S8): its commit index is current."""
        return self.role is Role.LEADER and self.log.term_at(self.log.committed) == self.term

    def tick(self) -> None:
        """Count one tick. A voter that hears no leader for `election_ticks` campaigns (thesis §3.4)."""
        # A lone candidate waits for its own disk and nobody else. A new term at each timeout would make every vote
        # that a slow disk brings home one of an older term.
        if self.role is not Role.FOLLOWER:
            return
        self._elapsed_ticks += 1
        if self._elapsed_ticks >= self.options.election_ticks:
            self.campaign("no leader was heard for an election timeout")

    def campaign(self, reason: str) -> None:
        """Stand for election, unless a committed entry still waits to be applied.

        S12: it might be a configuration under which this member is no voter.
        """
        if self.role is Role.LEADER or self.log.applied < self.log.committed:
            return
        self._become_candidate(reason)

    def propose(self, data: bytes) -> tuple[int, int] | None:
        """Append an entry and return its (term, index), or None if this member is not the leader."""
        if self.role is not Role.LEADER:
            return None
        index = self.log.last_index + 1
        self.log.append((index, self.term, data))
        return self.term, index

    def step(self, message: RaftMessage) -> None:
        """Take a message from another member."""

    def propose_configuration(self, data: bytes) -> tuple[int, int] | None:
        """Append an entry that changes the configuration, or return None if that must not be done now (S12)."""
        return self.propose(data)

    def apply_configuration(self, configuration: Configuration) -> None:
        """Take the configuration of an entry that is being applied, before `applied` is called for it."""
        self.configuration = configuration

    def transfer(self, to: int = 0) -> int:
        """Hand the leadership over to `to`, or to whom the core chooses; return whom, 0 if it is impossible."""
        return 0

    def stand_back(self) -> None:
        """Never campaign again, and never be chosen: the node is stopping."""

    def link_up(self, member: int) -> None:
        """Learn that a link to `member` stands (S10)."""

    def link_broken(self, member: int, is_refused: bool) -> None:
        """Learn that the link to `member` broke; `is_refused` if dialling it again was refused (S10)."""

    def snapshot_sent(self, member: int, index: int) -> None:
        """Learn that `member` was sent a whole snapshot at `index`."""

    def snapshot_failed(self, member: int) -> None:
        """Learn that `member` was not sent the snapshot that it needs."""

    def install(self, message: SnapshotReceived) -> bool:
        """Take a snapshot in place of the log; False if it is of no use."""
        return False

    def installed(self, configuration: Configuration) -> None:
        """Learn that the store holds the snapshot of `install`, and acknowledge it."""

    def match_of(self, member: int) -> int:
        """Return up to where `member` is known to hold this log; a leader's knowledge."""
        return 0

    def progress(self) -> dict[int, tuple[int, bool, str]]:
        """Return `(match, is_active, state)` for each other member; empty if this is no leader."""
        return {}

    def check_last_index(self, member: int, last_index: int) -> bool:
        """Tell whether a member that says that its log ends at `last_index` may be who it says it is (S1)."""
        return True

    def read_index(self, round_id: int) -> None:
        """Start a read round (thesis §6.4); it is confirmed in a later `Ready`.

        S8: the reads that wait now share it; one that arrives later needs a round of its own. With one voter no
        acknowledgement is outstanding, so that the round waits only for the first commit of the leader's own term.
        """
        if self.is_ready_to_read:
            self._reads.append((round_id, self.log.committed))
        else:
            self._waiting_rounds.append(round_id)

    def persisted(self, term: int, index: int, state: HardState) -> None:
        """Learn that the disk holds `state` and the log up to `index`, whose entry has `term`.

        The term makes the completion of an overwritten entry distinct from its replacement's (the async-append ABA
        that etcd's raft pins in its test data).
        """
        if index > self.log.persisted_index and index <= self.log.last_index and self.log.term_at(index) == term:
            self.log.persisted_index = index
        if self.role is Role.CANDIDATE and state.term == self.term and state.vote == self.member_id:
            # Thesis §3.4: a majority of votes, and this one counts only now that it cannot be forgotten.
            self._become_leader()
        self._maybe_commit()

    def applied(self, index: int) -> None:
        """Learn that the state machine has applied the log up to `index`."""
        assert self.log.applied <= index <= self.log.committed, (self.log.applied, index, self.log.committed)
        self.log.applied = index

    def ready(self) -> Ready | None:
        """Return what to do since the last call, or None."""
        log = self.log
        entries: Sequence[Entry] = ()
        if log.last_index > self._saved_index:
            entries = log.slice(self._saved_index + 1, log.last_index)
            self._saved_index = log.last_index
        committed: Sequence[Entry] = ()
        if log.committed > self._handed_index:
            committed = log.slice(self._handed_index + 1, log.committed)
            self._handed_index = log.committed
        state = self.hard_state if self.hard_state != self._saved_state else None
        if not (entries or committed or state or self._reads or self._notes):
            return None
        if state is not None:
            self._saved_state = state
        reads, self._reads = self._reads, []
        notes, self._notes = self._notes, []
        return Ready(state, entries, (), (), committed, reads, (), (), notes)

    def state_to_save(self) -> HardState:
        """Return the hard state that the next write carries: S5 puts the newest commit into every batch."""
        return HardState(self.hard_state.term, self.hard_state.vote, self.log.committed)

    def _become_candidate(self, reason: str) -> None:
        self.leader_id = 0
        self._elapsed_ticks = 0
        self.hard_state = HardState(self.term + 1, self.member_id, self.log.committed)
        self._note(
            "raft.election.started",
            pre=False,
            reason=reason,
            last_index=self.log.last_index,
            last_term=self.log.last_term,
            voters=[self.member_id],
        )
        self._change_role(Role.CANDIDATE, reason)

    def _become_leader(self) -> None:
        self._note("raft.election.won", pre=False, votes=1, quorum=1)
        self._change_role(Role.LEADER, "elected")
        self.leader_id = self.member_id
        self.propose(self.noop)

    def _change_role(self, role: Role, reason: str) -> None:
        self._note("raft.role.changed", from_role=self.role.name.lower(), to_role=role.name.lower(), reason=reason)
        self.role = role

    def _maybe_commit(self) -> None:
        # Thesis §3.6.2: only entries of the own term are committed by counting; earlier ones follow with them.
        log = self.log
        if self.role is not Role.LEADER or log.persisted_index <= log.committed:
            return
        if log.term_at(log.persisted_index) != self.term:
            return
        log.committed = log.persisted_index
        if self._waiting_rounds:
            self._reads.extend((round_id, log.committed) for round_id in self._waiting_rounds)
            self._waiting_rounds.clear()

    def _note(self, name: str, **fields: Any) -> None:
        self._notes.append((name, {"term": self.term, **fields}))
