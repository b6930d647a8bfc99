"""Read rounds (ReadIndex, thesis §6.4): how a read learns an index that is current, without a log entry.

A round is asked for on any member and confirmed by the leader. The leader broadcasts a heartbeat with a number that
is new in its term; when a quorum has answered that number or a later one, it still led after the broadcast, so that
its commit index of then was the newest there was. S8: what waits when a broadcast starts shares it; what comes later
waits for the next. etcd #20418 shows why numbers are never used again: a late answer confirmed a repeated round.
"""

from __future__ import annotations

from collections import deque

from attrs import define, field, frozen

from coord.protocol.messages import ReadReply, ReadRequest
from coord.raft.quorum import agreed
from coord.raft.replication import Replication
from coord.raft.state import State
from coord.types import Role


@frozen
class _Broadcast:
    number: int
    index: int
    """The commit index when it started."""
    rounds: tuple[tuple[int, int], ...]
    """`(member that asked, its round)`."""


@define(eq=False)
class ReadRounds:
    """The rounds of this member and, while it leads, of those that asked it."""

    _state: State
    _replication: Replication
    number: int = 0
    """The newest broadcast of this term."""
    _waiting: list[tuple[int, int]] = field(factory=list)
    """`(member, round)` that the next broadcast takes; on a follower its own, for a leader to be known."""
    _broadcasts: deque[_Broadcast] = field(factory=deque)
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
        self.number = 0

    def stop_leading(self) -> None:
        """Give up all rounds; the members that asked find another leader."""
        state = self._state
        rounds = [*self._waiting, *(item for broadcast in self._broadcasts for item in broadcast.rounds)]
        state.lost_reads.extend(round_id for member, round_id in rounds if member == state.member_id)
        self._waiting.clear()
        self._broadcasts.clear()
        self._open.clear()

    def start(self) -> None:
        """Start one broadcast for all that waits, if the leader has committed in its own term (S8)."""
        state = self._state
        if not self._waiting or not state.has_committed_in_term:
            return
        rounds, self._waiting = self._waiting, []
        self.number += 1
        self._broadcasts.append(_Broadcast(self.number, state.log.committed, tuple(rounds)))
        voters = state.configuration.all_voters
        for member, progress in self._replication.progress.items():
            if member in voters:
                self._replication.beat(member, progress, self.number)
        self.confirm()

    def confirm(self) -> None:
        """Confirm the rounds that a quorum of voters has answered."""
        if not self._broadcasts:
            return
        state = self._state
        reached = {member: progress.round for member, progress in self._replication.progress.items()}
        reached[state.member_id] = self.number
        confirmed = agreed(state.configuration, reached)
        while self._broadcasts and self._broadcasts[0].number <= confirmed:
            broadcast = self._broadcasts.popleft()
            for item in broadcast.rounds:
                self._open.discard(item)
                member, round_id = item
                if member == state.member_id:
                    state.reads.append((round_id, broadcast.index))
                else:
                    self._answer(member, round_id, broadcast.index)

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
