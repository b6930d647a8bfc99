"""The membership: who belongs to the cluster, as it is replicated, and the leader's part in changing it.

Configurations change one at a time (S12): the next is proposed only when the last is applied, and by a leader that
has applied an entry of its own term, so that nothing of an earlier leader's is still to come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from attrs import define, evolve, field

from coord.errors import ApiError, InvalidArgument, OutcomeUnknown, ResourceExhausted
from coord.limits import MEMBER_CHANGES_PENDING_MAX
from coord.mvcc.applied import Applied
from coord.mvcc.machine import StateMachine
from coord.node import member_changes
from coord.node.consensus import Log
from coord.node.member_changes import Introduced, View
from coord.protocol.entries import Member, Roster, encode_members, initial_member_id
from coord.protocol.ops import Method
from coord.protocol.shapes import BOOL, LIST, UINT, Field, check_fields
from coord.raft.types import Configuration
from coord.types import Role

Done = Callable[[Any], None]
"""Takes a change's result, as coord.cddl has it, or the `ApiError` that refused it."""

_LOOKS_PER_ELECTION_TIMEOUT = 10
_ARGUMENTS = {
    Method.MEMBER_ADD: ((Field("peer URLs", LIST), Field("learner", BOOL)), 1),
    Method.MEMBER_REMOVE: ((Field("ids", LIST),), 1),
    Method.MEMBER_UPDATE: ((Field("id", UINT), Field("peer URLs", LIST)), 2),
    Method.MEMBER_PROMOTE: ((Field("id", UINT),), 1),
    Method.MOVE_LEADER: ((Field("id", UINT),), 1),
}


def initial_members(token: str, initial_cluster: Sequence[tuple[str, Sequence[str]]]) -> tuple[Member, ...]:
    """Return the members that the flags name, none of which has joined; their order plays no part."""
    members = [
        Member(initial_member_id(token, name, urls), name, tuple(sorted(urls)), ()) for name, urls in initial_cluster
    ]
    return tuple(sorted(members, key=lambda member: member.id))


def configuration_of(machine: StateMachine, initial: Configuration | None, member_id: int) -> Configuration:
    """Return who votes, by what is applied.

    `initial` is what the flags say, used until a cluster is applied, and None for a member that joined one (S1): it is
    blank then, and knows no voters.
    """
    if not machine.cluster_id:
        return initial or Configuration(blank=frozenset((member_id,)))
    roster = _roster_of(machine)
    voters = frozenset(member.id for member in member_changes.voters_of(roster))
    blank = frozenset(member.id for member in roster.members if not member.incarnation)
    return Configuration(
        voters=voters,
        learners=frozenset(member.id for member in roster.members if member.is_learner),
        outgoing=roster.outgoing,
        # Nobody's word is missing where one votes alone; rows from before there were incarnations are such.
        blank=blank - voters if len(voters) == 1 and not roster.outgoing else blank,
    )


def is_member(machine: StateMachine, member_id: int, incarnation: int) -> bool:
    """Tell whether this data directory is, or may become, the member's.

    False once the cluster has removed it, or has let another data directory in under its id.
    """
    if not machine.cluster_id:
        return True
    row = machine.members.get(member_id)
    if row is None:
        return member_id not in machine.removed
    return row.incarnation in (0, incarnation)


def _roster_of(machine: StateMachine) -> Roster:
    return Roster(tuple(machine.members.values()), machine.outgoing, machine.removed)


class RaftLogPort(Protocol):
    """Raft's log, as the membership uses it."""

    @property
    def last_index(self) -> int:
        """The last entry's."""


class RaftPort(Protocol):
    """Raft, as the membership uses it; see `raft.core.Raft`."""

    @property
    def role(self) -> Role:
        """This member's role."""

    @property
    def term(self) -> int:
        """The current term."""

    @property
    def leader_id(self) -> int:
        """The leader, 0 if none is known."""

    @property
    def log(self) -> RaftLogPort:
        """The log."""

    def propose_configuration(self, data: bytes) -> tuple[int, int] | None:
        """Return the entry's (term, index), or None if it must wait (S12)."""

    def transfer(self, to: int = 0) -> int:
        """Begin to hand the lead over; return to whom, 0 if that is impossible."""

    def progress(self) -> Mapping[int, tuple[int, bool, str]]:
        """Return (match, is active, stage) of the other members."""


@define
class _Pending:
    """A change that was proposed; `done` gets `answer()` when it is applied, if somebody asked for the change."""

    term: int
    index: int
    leaving: frozenset[int]
    done: Done | None
    answer: Callable[[], Any]


@define
class _Transfer:
    """The lead is being handed over; `ended` gets the new leader, or 0 if there is none by the deadline."""

    deadline: float
    ended: Callable[[int], None]


@define(eq=False)
class Membership:
    """Owned by the node's loop. `own` is what this member tells of itself; `new_id` draws from 1 … 2⁶³−1."""

    member_id: int
    own: Introduced
    machine: StateMachine
    raft: RaftPort
    clock: Callable[[], float]
    log: Log
    wake: Callable[[], None]
    new_id: Callable[[], int]
    election_s: float
    _introduced: dict[int, Introduced] = field(init=False)
    _known: dict[int, Member] = field(init=False)
    _queue: deque[tuple[int, list[Any], Done]] = field(factory=deque)
    _pending: _Pending | None = None
    _transfer: _Transfer | None = None
    _is_dirty: bool = True
    """Something may be left to do that nobody asked for."""
    _look_again_at: float | None = None
    """When to see whether a learner that is to vote has caught up."""

    def __attrs_post_init__(self) -> None:
        self._introduced = {self.member_id: self.own}
        self._known = self.machine.members

    def introduced(self, member: int, incarnation: int, name: str, client_urls: tuple[str, ...]) -> None:
        """Learn who a member is that said hello and was welcomed; as leader, publish it (S1)."""
        told = (incarnation, name, client_urls)
        if self._introduced.get(member) != told:
            self._introduced[member] = told
            self._is_dirty = True
            self.wake()

    def founders(self, members: Sequence[Member]) -> list[Member]:
        """Return the members that the flags name as a new cluster begins with them: who was met has joined (S1)."""
        roster = Roster(tuple(members))
        return list((member_changes.publish(roster, self._introduced) or roster).members)

    def change(self, method: int, arguments: list[Any], done: Done) -> None:
        """Queue a request to change the members or to move the lead.

        `done` gets the result when the change is applied, or an `ApiError`; `NotLeader` says that nothing was done
        and another member should be asked.
        """
        if len(self._queue) >= MEMBER_CHANGES_PENDING_MAX:
            done(ResourceExhausted("etcdserver: too many requests"))
            return
        try:
            fields, required = _ARGUMENTS[Method(method)]
            check_fields(Method(method).name.lower(), arguments, fields, required)
        except ApiError as error:
            done(error)
            return
        self._queue.append((method, arguments, done))
        self.wake()

    def is_leaving(self, member: int) -> bool:
        """Tell whether a member was removed, or will be by what this leader has proposed."""
        pending = self._pending
        return member in self.machine.removed or (pending is not None and member in pending.leaving)

    def on_applied(self, applied: Applied) -> None:
        """Answer whoever waits for this entry; call it after each that changed the members."""
        pending = self._pending
        if pending is not None and applied.index == pending.index and self.machine.applied_term == pending.term:
            self._pending = None
            if pending.done is not None:
                pending.done(pending.answer())
        self._is_dirty = True

    def turn(self) -> bool:
        """Tell what changed, then do the next thing that a leader owes."""
        if self.machine.members is not self._known:
            self._tell()
        self._settle()
        raft = self.raft
        if raft.role is not Role.LEADER:
            while self._queue:
                self._queue.popleft()[2](member_changes.NotLeader())
            return False
        if self._has_work() and self._pending is None and self._transfer is None and self._is_ready():
            self._step()
        return False

    def _has_work(self) -> bool:
        again_at = self._look_again_at
        return bool(self._queue) or self._is_dirty or (again_at is not None and self.clock() >= again_at)

    def _is_ready(self) -> bool:
        # S12: an entry of the own term is applied, so nothing of an earlier leader's is left to apply.
        return bool(self.machine.cluster_id) and self.machine.applied_term == self.raft.term

    def _step(self) -> None:
        """Propose one change: what the leader owes comes first."""
        roster = _roster_of(self.machine)
        if roster.outgoing:
            self._propose(member_changes.leave_joint(roster))
        elif (published := member_changes.publish(roster, self._introduced)) is not None:
            self._propose(published)
        elif self._queue:
            self._serve(roster)
        elif (promoted := member_changes.next_voter(self._view(roster))) is not None:
            self._propose(promoted)
        else:
            self._is_dirty = False
            is_waiting = any(member.becomes_voter for member in roster.members)
            self._look_again_at = self.clock() + self.election_s / _LOOKS_PER_ELECTION_TIMEOUT if is_waiting else None

    def _serve(self, roster: Roster) -> None:
        method, arguments, done = self._queue[0]
        try:
            if method == Method.MOVE_LEADER:
                self._queue.popleft()
                self._move(self._view(roster), arguments[0], done)
                return
            changed, answer = self._changed(self._view(roster), method, arguments)
        except ApiError as error:
            self._refuse(method, error, done)
            return
        if method == Method.MEMBER_REMOVE and self.member_id in arguments[0]:
            self._queue.popleft()
            self._step_aside(changed, done)
        elif self._propose(changed, done, answer):
            self._queue.popleft()

    def _changed(self, view: View, method: int, arguments: list[Any]) -> tuple[Roster, Callable[[], Any]]:
        """Return the next roster, and what makes the answer once it is applied."""
        if method == Method.MEMBER_ADD:
            is_learner = len(arguments) > 1 and arguments[1]
            changed, member = member_changes.add(view, arguments[0], is_learner, self.new_id)
            return changed, lambda: [member.to_wire(), self._members()]
        if method == Method.MEMBER_REMOVE:
            if not arguments[0] or not all(type(item) is int for item in arguments[0]):
                raise InvalidArgument("coord: member-remove needs the ids of members")
            return member_changes.remove(view, arguments[0]), self._members
        if method == Method.MEMBER_UPDATE:
            return member_changes.update(view, arguments[0], arguments[1]), self._members
        return member_changes.promote(view, arguments[0]), self._members

    def _move(self, view: View, to: int, done: Done) -> None:
        if to == self.member_id:
            done(to)
            return
        if to and all(voter.id != to for voter in view.voters):
            raise member_changes.bad_transferee()

        def ended(leader_id: int) -> None:
            is_there = leader_id and to in (0, leader_id)
            done(leader_id if is_there else member_changes.transfer_failed(leader_id))

        if not self._hand_over(to, ended):
            raise member_changes.bad_transferee()

    def _step_aside(self, changed: Roster, done: Done) -> None:
        """Hand the lead to a voter that stays, which then makes the change: one that removed itself as leader would
        leave the others without one until they notice."""
        heard = self._view(changed)
        staying = [voter.id for voter in heard.voters if voter.id in heard.active]
        failed = member_changes.unhealthy("no other voter can take the lead over")

        def ended(leader_id: int) -> None:
            done(member_changes.NotLeader() if leader_id else failed)

        to = max(staying, key=lambda voter: heard.match.get(voter, 0), default=0)
        if not to or not self._hand_over(to, ended):
            self._refuse(Method.MEMBER_REMOVE, failed, done)

    def _hand_over(self, to: int, ended: Callable[[int], None]) -> bool:
        chosen = self.raft.transfer(to)
        if chosen:
            # Raft gives up after one election timeout (S12); the new leader must then still be heard of.
            self._transfer = _Transfer(self.clock() + 2 * self.election_s, ended)
        return bool(chosen)

    def _settle(self) -> None:
        """End what will not be answered by an entry of its own."""
        pending, transfer, machine = self._pending, self._transfer, self.machine
        if pending is not None and (machine.applied_index >= pending.index or machine.applied_term > pending.term):
            # S13: another leader's entry took its place, or a snapshot hid it.
            self._pending = None
            self._is_dirty = True
            if pending.done is not None:
                pending.done(OutcomeUnknown("etcdserver: leader changed: the change may still happen"))
        if transfer is not None:
            leader_id = self.raft.leader_id if self.raft.leader_id != self.member_id else 0
            if leader_id or self.clock() >= transfer.deadline:
                self._transfer = None
                transfer.ended(leader_id)

    def _propose(self, roster: Roster, done: Done | None = None, answer: Callable[[], Any] = list) -> bool:
        proposal = self.raft.propose_configuration(encode_members(roster))
        if proposal is None:
            self._is_dirty = True
            return False
        self._pending = _Pending(*proposal, roster.removed, done, answer)
        return True

    def _refuse(self, method: int, error: ApiError, done: Done) -> None:
        self.log("cluster.member.refused", change=Method(method).name.lower(), reason=error.text)
        if self._queue and self._queue[0][2] is done:
            self._queue.popleft()
        done(error)

    def _view(self, roster: Roster) -> View:
        progress = self.raft.progress()
        return View(
            roster,
            frozenset((self.member_id, *(member for member, (_, is_active, _) in progress.items() if is_active))),
            {member: match for member, (match, _, _) in progress.items()},
            self.raft.log.last_index,
        )

    def _members(self) -> list[Any]:
        """Return those who stay."""
        members = sorted(self.machine.members.items())
        return [member.to_wire() for member_id, member in members if member_id not in self.machine.removed]

    def _tell(self) -> None:
        """Log how the members changed, on every node alike."""
        before, now = self._known, self.machine.members
        self._known = now
        self._is_dirty = True
        for member_id in sorted(before.keys() - now.keys()):
            self._introduced.pop(member_id, None)
            self.log("cluster.member.removed", member=member_id, name=before[member_id].name)
        for member_id, member in sorted(now.items()):
            old = before.get(member_id)
            if old is None:
                self.log(
                    "cluster.member.added",
                    member=member_id,
                    name=member.name,
                    peer_urls=list(member.peer_urls),
                    learner=member.is_learner,
                )
                old = evolve(member, incarnation=0)
            if old.is_learner and not member.is_learner:
                self.log("cluster.member.promoted", member=member_id, name=member.name)
            if old.peer_urls != member.peer_urls:
                self.log("cluster.member.updated", member=member_id, peer_urls=list(member.peer_urls))
            if old != evolve(old, incarnation=member.incarnation, name=member.name, client_urls=member.client_urls):
                self.log(
                    "cluster.member.published",
                    member=member_id,
                    name=member.name,
                    incarnation=member.incarnation,
                    client_urls=list(member.client_urls),
                )
