"""Handing the leadership over (thesis §3.10): the next leader is brought up to date and told to campaign at once."""

from __future__ import annotations

from attrs import define, field

from coord.protocol.messages import CampaignNow
from coord.raft.replication import Replication
from coord.raft.state import State


@define(eq=False)
class Transfer:
    """A transfer under way: `to` is 0 if there is none. Proposals are refused meanwhile."""

    _state: State
    _replication: Replication
    to: int = 0
    _is_chosen_here: bool = False
    _started_at: int = 0
    _refused: set[int] = field(factory=set)
    """Who answered that it cannot lead."""

    def start(self, to: int) -> int:
        """Hand over to `to`, or to whom is best for it; return whom, 0 if nobody can take it."""
        state = self._state
        self.clear()
        self._is_chosen_here = to == 0
        if to == 0:
            to = self.best()
        elif to not in state.configuration.voters - state.configuration.blank - {state.member_id}:
            to = 0
        if to == 0:
            state.note("raft.transfer.failed", to=0, reason="no voter that could lead was heard of lately")
            return 0
        self._started_at = state.ticks
        self._hand_to(to)
        return to

    def best(self) -> int:
        """Return the voter that is furthest, among those heard lately (S12); 0 if there is none."""
        state = self._state
        # Within a heartbeat, and the time that its answer takes.
        heard = self._replication.heard_within(2 * state.options.heartbeat_ticks)
        able = heard & state.configuration.voters - state.configuration.blank - self._refused - {state.member_id}
        progress = self._replication.progress
        return max(sorted(able), key=lambda member: progress[member].match, default=0)

    def tick(self) -> None:
        """Give up after an election timeout: a leader that takes no proposals must not last (§3.10)."""
        state = self._state
        if self.to and state.ticks - self._started_at >= state.options.election_ticks:
            self._fail("it took longer than an election timeout")

    def nudge(self, member: int) -> None:
        """Tell `member` to campaign if it is next, and its log as long as this one; again whenever it is heard."""
        if member == self.to:
            self._nudge()

    def refused(self, member: int, reason: str) -> None:
        """Learn that `member` cannot lead, for example because its node is stopping."""
        if member != self.to:
            return
        self._refused.add(member)
        following = self.best() if self._is_chosen_here else 0
        if following:
            self._hand_to(following)
        else:
            self._fail(reason)

    def over(self, peer: int) -> None:
        """Lead no more, because of `peer`'s message."""
        if self.to and peer == self.to:
            self._state.note("raft.transfer.finished", to=self.to)
            self.clear()
        elif self.to:
            self._fail("the leadership ended otherwise")

    def configure(self) -> None:
        """Give up if the next leader votes no more."""
        if self.to and self.to not in self._state.configuration.voters:
            self._fail("it is no voter any more")

    def clear(self) -> None:
        """Forget all, with the leadership."""
        self.to = 0
        self._refused.clear()

    def _hand_to(self, to: int) -> None:
        state = self._state
        self.to = to
        match = self._replication.progress[to].match
        state.note("raft.transfer.started", to=to, match=match, last_index=state.log.last_index)
        self._replication.await_commit(state.log.last_index, to)
        self._nudge()

    def _nudge(self) -> None:
        state = self._state
        if self._replication.progress[self.to].match == state.log.last_index:
            state.messages.append(CampaignNow(state.member_id, self.to, state.term))

    def _fail(self, reason: str) -> None:
        self._state.note("raft.transfer.failed", to=self.to, reason=reason)
        self.clear()
