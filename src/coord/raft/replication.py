"""The leader's side of log replication (thesis §3.5): who holds what, and what each follower is sent next.

Appends are made when a `Ready` is taken, not when an entry is proposed, so that all proposals of a turn share one
append a follower. They are pipelined (§10.2.2): a follower that agrees is sent the next entries before it answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import define, field

from coord.protocol.messages import Append, AppendReply, Heartbeat, HeartbeatReply
from coord.raft.catching_up import CatchingUp
from coord.raft.progress import Progress, Stage
from coord.raft.quorum import agreed
from coord.raft.spares import Spares
from coord.raft.state import State
from coord.raft.types import Configuration, Entry
from coord.types import Role

_ASK: Final = 0
"""The commit of an append that wants an answer; one without entries and with a commit is a notice and gets none."""


@define(eq=False)
class Replication:
    """The progress of all other members; empty unless this member leads."""

    _state: State
    progress: dict[int, Progress] = field(factory=dict)
    tell_all: bool = False
    """Notices of the commit are due that nobody was in a hurry for: once a tick."""
    _reached: dict[int, int] = field(factory=dict)
    """Up to where each member, this one too, holds the log on its disk."""
    _settled: dict[int, int] = field(factory=dict)
    """The highest committed index that a member acknowledged to this one in any term (S1)."""
    _blank: frozenset[int] = frozenset()
    """Who had not had its incarnation published, as far as was applied when the configuration was last taken."""
    _catching_up: CatchingUp = field(init=False)
    _spares: Spares = field(init=False)
    _slice: tuple[int, int, Sequence[Entry]] = (0, 0, ())
    """The last slice that was cut in this `flush`: followers that keep up are sent the same one."""

    def __attrs_post_init__(self) -> None:
        self._catching_up = CatchingUp(self._state)
        self._spares = Spares(self._state, self.progress)

    def start(self) -> None:
        """Lead: nothing is known of anybody, and all are taken to have been heard just now."""
        self._catching_up.start()
        self.progress.clear()
        self._reached.clear()
        self.configure(self._state.configuration)

    def stop(self) -> None:
        """Lead no more."""
        for member, progress in self.progress.items():
            self._settle(member, progress)
        self.progress.clear()
        self._reached.clear()

    def configure(self, configuration: Configuration) -> None:
        """Feed the members of `configuration` and no others (thesis §4.1)."""
        state = self._state
        others = configuration.members - {state.member_id}
        # S1: what was acknowledged while a member was blank may be of another data directory than the one that is
        # published now. It is asked anew.
        published, self._blank = self._blank - configuration.blank, configuration.blank
        for member in sorted(self.progress.keys() - (others - published)):
            del self.progress[member]
            del self._reached[member]
        for member in sorted(others - self.progress.keys()):
            # Optimistic: it is probed from the end of the log, and its refusal tells where to go on.
            # It is not known who waits for what lies in the log; nor for the entry with which a leader begins.
            end = state.log.last_index + 1
            self.progress[member] = Progress(next_index=end, heard_at=state.ticks, commit_awaited=end)
            self._reached[member] = 0
        self._spares.spare_nobody()

    def commit(self) -> None:
        """Commit what a quorum holds on its disks, if this member leads.

        It counts by its own disk like any other member (§10.2.1): commit may run ahead of that.
        """
        state, log = self._state, self._state.log
        if state.role is not Role.LEADER:
            return
        self._reached[state.member_id] = log.persisted_index
        index = agreed(state.configuration, self._reached)
        # Thesis §3.6.2: only entries of the own term are committed by counting; earlier ones follow with them.
        if index > log.committed and log.term_at(index) == state.hard_state.term:
            log.committed = index

    def heard(self, member: int) -> Progress | None:
        """Note that a message of this term came from `member`."""
        progress = self.progress.get(member)
        if progress is not None:
            progress.heard_at = self._state.ticks
        return progress

    def heard_within(self, ticks: int) -> set[int]:
        """Return the members heard within so many ticks, and this one."""
        since = self._state.ticks - ticks
        heard = {member for member, progress in self.progress.items() if progress.heard_at > since}
        heard.add(self._state.member_id)
        return heard

    def await_commit(self, index: int, member: int | None = None) -> None:
        """Note that at `member`, or at all, somebody waits to hear that the entries up to `index` are committed."""
        if member is None:
            for progress in self.progress.values():
                progress.commit_awaited = index
        elif (found := self.progress.get(member)) is not None:
            found.commit_awaited = max(index, found.commit_awaited)

    def append_replied(self, reply: AppendReply) -> bool:
        """Take a follower's answer; True if its match went up."""
        progress = self.heard(reply.sender)
        if progress is None:
            return False
        if reply.is_rejected:
            self._rejected(progress, reply)
            return False
        if reply.index > self._state.log.last_index:
            return False
        self._spares.answered(reply.sender, reply.index)
        is_higher = reply.index > progress.match
        progress.acknowledged(reply.index)
        self._reached[reply.sender] = progress.match
        if progress.stage is Stage.PROBE or (
            progress.stage is Stage.SNAPSHOT and progress.match >= self._state.log.base_index
        ):
            progress.replicate()
            self._state.note("raft.peer.replicating", peer=reply.sender, match=progress.match)
        return is_higher

    def heartbeat_replied(self, reply: HeartbeatReply) -> None:
        """Go on with a follower that lives: what was sent and not answered may have been lost."""
        progress = self.heard(reply.sender)
        if progress is None:
            return
        progress.round = max(progress.round, reply.round)
        progress.is_watched = reply.is_watched
        progress.is_paused = False
        is_in_log = progress.next_index > self._state.log.base_index
        if progress.stage is Stage.REPLICATE and is_in_log and progress.is_stalled():
            self._append(reply.sender, progress, (), _ASK)

    def tick(self) -> None:
        """Let go what is due once a tick."""
        self.tell_all = True
        self._catching_up.tick()
        self._spares.tick()

    def link_up(self, member: int) -> None:
        """Probe at once a member that can be reached again."""
        if (progress := self.progress.get(member)) is not None:
            progress.is_paused = False

    def link_broken(self, member: int) -> None:
        """What is in flight to `member` is lost: find out what it got, and do without it meanwhile."""
        progress = self.progress.get(member)
        if progress is not None and progress.stage is Stage.REPLICATE:
            self._probe(member, progress, "the link to it broke")
            self._spares.spare_nobody()

    def snapshot_sent(self, member: int, index: int) -> None:
        """Go on behind the snapshot; the follower's answer may come before or after this."""
        progress = self.progress.get(member)
        if progress is not None and progress.stage is Stage.SNAPSHOT:
            self._probe(member, progress, "it was sent a snapshot")
            progress.next_index = max(progress.next_index, min(index, self._state.log.last_index) + 1)
            progress.is_paused = True

    def snapshot_failed(self, member: int) -> None:
        """Ask for another snapshot when the follower is heard of again."""
        progress = self.progress.get(member)
        if progress is not None and progress.stage is Stage.SNAPSHOT:
            self._probe(member, progress, "it could not be sent a snapshot")
            progress.is_paused = True

    def may_end_at(self, member: int, last_index: int) -> bool:
        """Tell whether `member`'s log may end there: it holds all that it acknowledged and is committed (S1)."""
        if (progress := self.progress.get(member)) is not None:
            self._settle(member, progress)
        return last_index >= self._settled.get(member, 0)

    def heartbeat(self, round_number: int) -> None:
        """Tell everybody that the leader lives."""
        for member, progress in self.progress.items():
            self.beat(member, progress, round_number)

    def beat(self, member: int, progress: Progress, round_number: int) -> None:
        """Send a heartbeat. Its commit is never above what the follower is known to hold."""
        state = self._state
        commit = min(progress.match, state.log.committed)
        state.messages.append(Heartbeat(state.member_id, member, state.term, commit, round_number))

    def flush(self) -> None:
        """Send each follower what it may have now."""
        for member, progress in self.progress.items():
            if progress.stage is Stage.REPLICATE:
                self._replicate(member, progress)
            elif progress.stage is Stage.PROBE and not progress.is_paused:
                self._send_probe(member, progress)
        self.tell_all = False
        # The log may be another when this member leads again.
        self._slice = (0, 0, ())

    def _replicate(self, member: int, progress: Progress) -> None:
        log, options = self._state.log, self._state.options
        last_index = log.last_index
        is_spared = member in self._spares.members and not self.tell_all and not progress.is_watched
        while progress.next_index <= last_index:
            if progress.next_index <= log.base_index:
                self._want_snapshot(member, progress)
                return
            if not progress.has_room(options.inflight_messages, options.inflight_bytes):
                break
            if not self._catching_up.may_send(member, progress.next_index):
                break
            last, size_bytes = log.fit(progress.next_index, options.append_bytes_max)
            if is_spared and last == last_index and progress.commit_awaited < progress.next_index:
                break
            self._catching_up.sent(member, size_bytes)
            self._append(member, progress, self._cut(progress.next_index, last), log.committed)
            progress.sent(last, size_bytes)
            progress.commit_sent = min(log.committed, last)
        if (
            progress.commit_sent < min(log.committed, progress.next_index - 1)
            and (progress.commit_awaited > progress.commit_sent or progress.is_watched or self.tell_all)
            and progress.next_index > log.base_index
        ):
            # A notice, where somebody waits for it. Else the next append carries the commit, so that a frame to each
            # follower, which costs its sender and its receiver as much as the append does, is saved for each write.
            self._append(member, progress, (), log.committed)
            progress.commit_sent = min(log.committed, progress.next_index - 1)

    def _send_probe(self, member: int, progress: Progress) -> None:
        log = self._state.log
        if progress.next_index <= log.base_index:
            self._want_snapshot(member, progress)
            return
        entries: Sequence[Entry] = ()
        if progress.next_index <= log.last_index:
            last, _ = log.fit(progress.next_index, self._state.options.append_bytes_max)
            entries = self._cut(progress.next_index, last)
        progress.is_paused = True
        self._append(member, progress, entries, log.committed if entries else _ASK)

    def _want_snapshot(self, member: int, progress: Progress) -> None:
        state = self._state
        if progress.heard_at <= state.ticks - state.options.election_ticks:
            # Nobody is there to take it. It is asked for when the member is heard of.
            progress.is_paused = progress.stage is Stage.PROBE
            return
        progress.await_snapshot()
        state.snapshots_wanted.append(member)
        state.note("raft.peer.snapshot", peer=member, match=progress.match, first_index=state.log.base_index + 1)

    def _append(self, member: int, progress: Progress, entries: Sequence[Entry], commit: int) -> None:
        state = self._state
        previous = progress.next_index - 1
        term_before = state.log.term_at(previous)
        state.messages.append(Append(state.member_id, member, state.term, previous, term_before, commit, entries))

    def _cut(self, first: int, last: int) -> Sequence[Entry]:
        cached_first, cached_last, entries = self._slice
        if first != cached_first or last != cached_last:
            entries = self._state.log.slice(first, last)
            self._slice = (first, last, entries)
        return entries

    def _rejected(self, progress: Progress, reply: AppendReply) -> None:
        """Go back to where the logs may agree (thesis §3.5, with a hint from both sides as etcd's raft does)."""
        if reply.index <= progress.match or progress.stage is Stage.SNAPSHOT:
            return
        if progress.stage is Stage.REPLICATE:
            progress.refused()
            self._note_probe(reply.sender, progress, "it lacks what went before")
        elif progress.next_index - 1 == reply.index:
            hint = self._state.log.last_not_above(reply.hint_index, reply.hint_term)
            progress.next_index = max(min(reply.index, hint + 1), progress.match + 1)
            progress.is_paused = False

    def _probe(self, member: int, progress: Progress, reason: str) -> None:
        progress.probe()
        self._note_probe(member, progress, reason)

    def _note_probe(self, member: int, progress: Progress, reason: str) -> None:
        self._state.note("raft.peer.probing", peer=member, match=progress.match, reason=reason)

    def _settle(self, member: int, progress: Progress) -> None:
        settled = min(progress.match, self._state.log.committed)
        if settled > self._settled.get(member, 0):
            self._settled[member] = settled
