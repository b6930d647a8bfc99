"""The follower's side of log replication (thesis §3.5), and snapshots that take a log's place (S6)."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from coord.limits import LOG_BYTES_UNAPPLIED_MAX
from coord.protocol.messages import Append, AppendReply, Heartbeat, HeartbeatReply, SnapshotReceived
from coord.raft.state import State
from coord.raft.types import Entry


@define(eq=False)
class Following:
    """Takes the leader's entries; one answer tells of all before, so that a turn has one at most."""

    _state: State
    _owed: int = -1
    """Up to where this log agrees with the leader's, and an answer is owed; −1: none is."""
    _answered: int = -1
    """Up to where the leader was told; or, at first, what was durable before anything was owed."""

    def append(self, message: Append) -> None:
        """Take entries that follow on this log, or refuse with a hint where the logs may agree."""
        state, log = self._state, self._state.log
        if state.is_installing:
            # The log begins behind a snapshot that a crash could still undo: nothing is promised before.
            return
        if message.entries and log.bytes_above(log.applied) >= LOG_BYTES_UNAPPLIED_MAX:
            # A store that stands still must not let the log grow without end. What is not answered comes again; what
            # a leader has open at most is less, so that nothing waits here for its own commit.
            return
        previous, entries = message.previous_index, message.entries
        end = previous + len(entries)
        if previous < log.committed:
            # What is committed here agrees with every later leader's log (Leader Completeness, §3.6.3).
            if end <= log.committed:
                self._agree(message, log.committed)
                return
            entries = entries[log.committed - previous :]
            previous = log.committed
        elif not log.holds(previous, message.previous_term):
            self._refuse(message)
            return
        self._store(previous, entries)
        self._commit(min(message.commit, end))
        self._agree(message, end)

    def heartbeat(self, message: Heartbeat) -> None:
        """Tell the leader that it is heard, and learn the commit.

        The answer needs no disk: it tells that this member had not voted for a later leader when it was given.
        """
        state = self._state
        self._commit(min(message.commit, state.log.last_index))
        state.messages.append(
            HeartbeatReply(state.member_id, message.sender, state.term, message.round, state.is_watched)
        )

    def install(self, message: SnapshotReceived) -> bool:
        """Begin the log anew behind a snapshot; False if the log holds what it covers.

        A snapshot is of committed entries whoever sent it, so that one of an earlier leader's serves too.
        """
        state, log = self._state, self._state.log
        index, log_term = message.index, message.log_term
        if state.is_installing:
            return False
        if index <= log.committed or log.holds(index, log_term):
            # If it is above the commit it is the same entry, so that the log up to it may simply be applied.
            self._commit(index)
            state.note("raft.snapshot.ignored", peer=message.sender, index=index, committed=log.committed)
            self._owe(log.committed)
            return False
        state.note("raft.snapshot.accepted", peer=message.sender, index=index, last_index=log.last_index)
        self._owed = -1
        log.restore(index, log_term, state.term)
        state.is_installing = True
        return True

    def installed(self) -> None:
        """Go on behind the snapshot, which is safe in log and store, and say so."""
        state, log = self._state, self._state.log
        assert state.is_installing
        state.is_installing = False
        log.applied = log.base_index
        self._owe(log.base_index)

    def new_term(self) -> None:
        """Owe the leader of an earlier term nothing: what it was to be told may give way before it is durable."""
        self._owed = -1

    def flush(self) -> None:
        """Emit the answer that is owed, as far as the disk is.

        I7: it promises that the entries, and the term that they came in, are on this disk.
        """
        state, owed = self._state, self._owed
        if owed < 0 or not state.leader_id or state.durable_term < state.hard_state.term:
            return
        index = min(owed, state.log.persisted_index)
        if index == owed:
            self._owed = -1
        elif index <= self._answered:
            return
        self._answered = index
        state.messages.append(AppendReply(state.member_id, state.leader_id, state.hard_state.term, index))

    def _agree(self, message: Append, index: int) -> None:
        if message.entries or not message.commit:
            # Anything else was a notice of the commit, and tells the leader nothing new.
            self._owe(index)

    def _owe(self, index: int) -> None:
        if not self._state.leader_id:
            return
        if self._owed < 0:
            self._answered = self._state.log.persisted_index
        self._owed = max(index, self._owed)

    def _refuse(self, message: Append) -> None:
        state, log = self._state, self._state.log
        # The hint: above it the logs cannot agree, since terms never fall along a log; what is committed does.
        hint = max(
            log.last_not_above(min(message.previous_index, log.last_index), message.previous_term), log.committed
        )
        state.note("raft.append.refused", peer=message.sender, index=message.previous_index, hint=hint)
        state.messages.append(
            AppendReply(
                state.member_id,
                message.sender,
                state.term,
                message.previous_index,
                is_rejected=True,
                hint_index=hint,
                hint_term=log.term_at(hint),
            )
        )

    def _store(self, previous: int, entries: Sequence[Entry]) -> None:
        """Add what the log does not have; what differs gives way, with all that follows it (thesis §3.5)."""
        state, log = self._state, self._state.log
        known = min(len(entries), log.last_index - previous)
        for position in range(known):
            index, term, _ = entries[position]
            if log.term_at(index) != term:
                state.note("raft.log.truncated", first=index, last=log.last_index)
                log.truncate(index, state.term)
                known = position
                break
        log.extend(entries[known:] if known else entries)

    def _commit(self, index: int) -> None:
        if index > self._state.log.committed:
            self._state.log.committed = index
