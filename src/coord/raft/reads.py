"""Read rounds (ReadIndex, thesis §6.4): how a read learns an index that is current, without a log entry.

A round is asked for on any member and confirmed by the leader. The leader sends heartbeats with a number that is new
in its term; when a quorum has answered that number or a later one, it still led after it began to ask, so that its
commit index of then was the newest there was. S8: what waits when it begins to ask shares the answers; what comes
later waits for the next. etcd #20418 shows why numbers are never used again: a late answer confirmed a repeated round.

Nobody is asked whose answer is not needed. As few voters are asked as make a quorum, and all others with the next tick
if that did not do. And who asks for a round has thereby answered it: when it sent the request, after all reads that
share the round had come, it had voted for no later leader. So of three members a follower and its leader are enough.
"""

from __future__ import annotations

from attrs import define, field, frozen

from coord.protocol.messages import ReadReply, ReadRequest
from coord.raft.quorum import completed
from coord.raft.replication import Replication
from coord.raft.state import State
from coord.types import Role


@frozen
class _Round:
    member: int
    """Who asked for it."""
    round_id: int
    number: int
    """The broadcast that it shares."""
    index: int
    """The commit index when that started."""


@define(eq=False)
class ReadRounds:
    """The rounds of this member and, while it leads, of those that asked it."""

    _state: State
    _replication: Replication
    number: int = 0
    """The newest broadcast of this term."""
    _waiting: list[tuple[int, int]] = field(factory=list)
    """`(member, round)` that the next broadcast takes; on a follower its own, for a leader to be known."""
    _rounds: list[_Round] = field(factory=list)
    """What was broadcast and is not confirmed, in order."""
    _asked_all: int = 0
    """The newest broadcast that was sent to everybody."""
    _order: list[int] = field(factory=list)
    """Whom to ask first: the members in the order in which they answered when everybody was asked."""
    _answered: int = 0
    """So many of them have answered since everybody was asked."""
    _open: set[tuple[int, int]] = field(factory=set)
    """What is waiting or broadcast, so that a repeated request is not taken twice."""
    _asked: dict[int, int] = field(factory=dict)
    """A follower's rounds that the leader was asked for, and the tick of the last request."""

    def ask(self, round_id: int) -> None:
        """Take a round of this member's own."""
        state = self._state
        if state.leader_id and state.role is not Role.LEADER:
            self._request(round_id)
        else:
            self._wait(state.member_id, round_id)

    def asked(self, request: ReadRequest) -> None:
        """Take a follower's round. A repeated request is the same round, answered once."""
        if self._state.role is Role.LEADER:
            self._wait(request.sender, request.round)
        else:
            self.refuse(request)

    def refuse(self, request: ReadRequest) -> None:
        """Tell a member that this one cannot tell; the answer's term may tell it more."""
        self._answer(request.sender, request.round, 0)

    def replied(self, reply: ReadReply) -> None:
        """Take the leader's answer. Without an index it could not tell, and is asked again in time."""
        if reply.index and self._asked.pop(reply.round, None) is not None:
            self._state.reads.append((reply.round, reply.index))

    def repeat(self) -> None:
        """Ask again for what was asked two heartbeats ago: the request or its answer may be lost."""
        state = self._state
        before = state.ticks - 2 * state.options.heartbeat_ticks
        for round_id in [round_id for round_id, asked_at in self._asked.items() if asked_at <= before]:
            self._request(round_id)

    def leader_changed(self) -> None:
        """Give up what the leader of before was asked for; ask a new one for what waits for it."""
        state = self._state
        state.lost_reads.extend(self._asked)
        self._asked.clear()
        if state.leader_id and state.role is not Role.LEADER:
            waiting, self._waiting = self._waiting, []
            self._open.clear()
            for _, round_id in waiting:
                self._request(round_id)

    def lead(self) -> None:
        """Number anew: answers of an earlier term are told apart by their term."""
        self.number = self._asked_all = self._answered = 0
        self._order.clear()

    def stop_leading(self) -> None:
        """Give up all rounds; the members that asked find another leader."""
        state = self._state
        rounds = [*self._waiting, *((item.member, item.round_id) for item in self._rounds)]
        state.lost_reads.extend(round_id for member, round_id in rounds if member == state.member_id)
        self._waiting.clear()
        self._rounds.clear()
        self._open.clear()

    def start(self) -> None:
        """Start one broadcast for all that waits, if the leader has committed in its own term (S8)."""
        state = self._state
        if not self._waiting or not state.has_committed_in_term:
            return
        waiting, self._waiting = self._waiting, []
        self.number += 1
        number, index, configuration = self.number, state.log.committed, state.configuration
        order = self._whom_to_ask_first()
        asked: set[int] = set()
        for member, round_id in waiting:
            item = _Round(member, round_id, number, index)
            # S8: who asks for a round answers that one by asking. Of a number that is new nobody else has.
            answering = {state.member_id, member}
            if configuration.has_quorum(answering):
                self._confirm(item)
            else:
                self._rounds.append(item)
                answering |= asked
                asked |= completed(configuration, answering, order) - answering
        progress = self._replication.progress
        for member in sorted(asked):
            self._replication.beat(member, progress[member], number)

    def ask_all(self) -> None:
        """Send a heartbeat to everybody, which asks for the newest broadcast too."""
        self._asked_all, self._answered = self.number, 0
        self._replication.heartbeat(self.number)

    def ask_others(self) -> None:
        """Ask everybody for what those who were asked first did not confirm by this tick."""
        if self._rounds and self._rounds[-1].number > self._asked_all:
            self.ask_all()

    def answered(self, member: int, number: int) -> None:
        """Learn that `member` has answered a heartbeat of that number."""
        order, place = self._order, self._answered
        if number >= self._asked_all and member not in order[:place]:
            if member in order:
                order.remove(member)
            order.insert(place, member)
            self._answered += 1
        self.confirm()

    def link_broken(self, member: int) -> None:
        """Ask `member` last from now on, and the others at once for what it may have been asked."""
        if member in self._order:
            self._order.remove(member)
            self._order.append(member)
        self.ask_others()

    def confirm(self) -> None:
        """Confirm the rounds that a quorum of voters has answered."""
        if not self._rounds:
            return
        state = self._state
        rounds, self._rounds = self._rounds, []
        for item in rounds:
            # S12: joint quorums hold here too; S1: blank voters are counted in none.
            if not state.configuration.has_quorum(self._who_answered(item)):
                self._rounds.append(item)
            else:
                self._confirm(item)

    def _confirm(self, item: _Round) -> None:
        state = self._state
        self._open.discard((item.member, item.round_id))
        if item.member == state.member_id:
            state.reads.append((item.round_id, item.index))
        else:
            self._answer(item.member, item.round_id, item.index)

    def _who_answered(self, item: _Round) -> set[int]:
        # S8: who asks for a round answers that one by asking, and no other: those may have begun later.
        progress = self._replication.progress
        answered = {member for member, found in progress.items() if found.round >= item.number}
        return answered | {self._state.member_id, item.member}

    def _whom_to_ask_first(self) -> list[int]:
        """Return the voters whose answers count, those first who answer soonest."""
        configuration = self._state.configuration
        able = configuration.all_voters - configuration.blank
        progress = self._replication.progress
        order = [member for member in self._order if member in able and member in progress]
        if len(order) < len(progress):
            # A new leader has been answered by those who hold its first entry.
            others = able & progress.keys() - set(order)
            order += sorted(others, key=lambda member: (-progress[member].match, member))
        return order

    def _wait(self, member: int, round_id: int) -> None:
        item = (member, round_id)
        if item not in self._open:
            self._open.add(item)
            self._waiting.append(item)

    def _request(self, round_id: int) -> None:
        state = self._state
        self._asked[round_id] = state.ticks
        state.messages.append(ReadRequest(state.member_id, state.leader_id, state.term, round_id))

    def _answer(self, member: int, round_id: int, index: int) -> None:
        state = self._state
        state.messages.append(ReadReply(state.member_id, member, state.term, round_id, index))
        # The read waits there until that is applied.
        self._replication.await_commit(index, member)
