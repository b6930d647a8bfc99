"""Which members an entry need not reach at once: those without whom a quorum has it.

Each frame to a follower, and the answer, cost both sides as much as the entry itself does. So of three members the
leader and one follower have an entry at once, and commit it; the other is sent it with the next tick, together with
all else that came meanwhile, or as soon as somebody there waits for it. What is promised is the same: an entry counts
when a quorum has it on disk, and any quorum has a member of any other.

A needed member may be slow, or gone. What was not committed within a tick has been sent to everybody by then, and for
two heartbeats nobody is spared: who is gone has not been heard then, and who is slow has shown it. Nor is anybody
spared for a tick in each election timeout, which shows who keeps up meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from attrs import define, field

from coord.raft.progress import Progress, Stage
from coord.raft.quorum import completed
from coord.raft.state import State

_IN_TIME_PART: Final = 4


@define(eq=False)
class Spares:
    """Chooses them, once a tick."""

    _state: State
    _progress: Mapping[int, Progress]
    members: frozenset[int] = frozenset()
    """Who is not sent an entry before the tick, unless somebody waits for it there."""
    _none_until: int = 0
    """Before this tick nobody is spared, and it is counted whose answers come in time."""
    _in_time: Counter[int] = field(factory=Counter)
    _late: Counter[int] = field(factory=Counter)
    """How many answers of each member came before a quorum had what they tell of, and after that."""
    _slow: set[int] = field(factory=set)
    _last_index: int = 0
    """The log's end at the last tick."""

    def spare_nobody(self) -> None:
        """Have everybody sent everything for two heartbeats: the leader is new, or one of the needed failed."""
        self._watch(2 * self._state.options.heartbeat_ticks)

    def tick(self) -> None:
        """Choose anew."""
        state, log = self._state, self._state.log
        if log.committed < self._last_index:
            self.spare_nobody()
        elif state.ticks >= self._none_until:
            self._judge()
            if state.ticks % state.options.election_ticks:
                self.members = self._choose()
            else:
                self._watch(1)
        self._last_index = log.last_index

    def answered(self, member: int, index: int) -> None:
        """Learn that `member` holds the log up to `index`, before that counts."""
        if self._state.ticks < self._none_until:
            counts = self._in_time if index > self._state.log.committed else self._late
            counts[member] += 1

    def _watch(self, ticks: int) -> None:
        self._none_until = self._state.ticks + ticks
        self.members = frozenset()

    def _judge(self) -> None:
        """Call slow those of whose answers less than one in four came in time; say nothing of who gave none."""
        for member in self._in_time.keys() | self._late.keys():
            in_time, late = self._in_time[member], self._late[member]
            if in_time * (_IN_TIME_PART - 1) < late:
                self._slow.add(member)
            else:
                self._slow.discard(member)
        self._in_time.clear()
        self._late.clear()

    def _choose(self) -> frozenset[int]:
        """Return all but as few as make a quorum; nobody if those that keep up make none.

        First come those who are sent each entry anyway. Of equal ones the first by id is needed, for it is the first
        to campaign when the leader dies (S10), and must not lack what is committed.
        """
        state, progress = self._state, self._progress
        configuration = state.configuration
        heard_since = state.ticks - 2 * state.options.heartbeat_ticks
        able = [
            member
            for member in configuration.all_voters & progress.keys() - configuration.blank
            if (found := progress[member]).stage is Stage.REPLICATE
            and found.match >= self._last_index
            and found.heard_at > heard_since
        ]
        able.sort(key=lambda member: (not self._is_attentive(progress[member]), member in self._slow, member))
        needed = completed(configuration, {state.member_id}, able)
        return frozenset(progress.keys() - needed) if configuration.has_quorum(needed) else frozenset()

    def _is_attentive(self, progress: Progress) -> bool:
        return progress.is_watched or progress.commit_awaited > self._last_index
