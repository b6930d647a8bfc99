"""How fast a follower takes what it missed while entries are committed without it.

It would take a processor for as long as that lasts. Where members and clients share processors the others then lack
it, and each write waits. So it is sent four times what comes to the log meanwhile, which brings it nearer however much
that is, and never less than `catch_up_bytes` a tick.
"""

from __future__ import annotations

from attrs import define, field

from coord.raft.state import State

_PACE = 4
"""It is there after a third of the time that it was away. With 1.5 others waited hardly less, and it was late for twice
that time, in which a further loss would have cost the quorum."""


@define(eq=False)
class CatchingUp:
    """What each follower may still be sent in this tick of that which was in the log when it began."""

    _state: State
    _last_index: int = 0
    """The log's when this tick began: all behind it is new, and goes at once."""
    _beat_index: int = 0
    _beat_bytes: int = 0
    """The log's end at the last heartbeat."""
    _allowance_bytes: int | None = None
    """For each follower and tick; None where nobody has a reason to wait."""
    _sent_bytes: dict[int, int] = field(factory=dict)
    """In this tick, by member. An append may be larger than the allowance, and is then owed by the next ticks."""

    def start(self) -> None:
        """Lead: what comes first goes at once."""
        self._allowance_bytes = None
        self._note_beat()
        self._note_tick()

    def tick(self) -> None:
        """Give each follower its allowance; how much that is depends on what came since the last heartbeat."""
        log, options = self._state.log, self._state.options
        if self._state.ticks % options.heartbeat_ticks == 0:
            grown_bytes = log.end_bytes - self._beat_bytes
            # What has waited for a quorum all this time may wait for the late one.
            is_free = grown_bytes == 0 or log.committed < self._beat_index
            pace_bytes = _PACE * grown_bytes // options.heartbeat_ticks
            self._allowance_bytes = None if is_free else max(options.catch_up_bytes, pace_bytes)
            self._note_beat()
        self._note_tick()

    def may_send(self, member: int, index: int) -> bool:
        """Tell whether `member` may be sent the entry at `index` now."""
        allowance = self._allowance_bytes
        return allowance is None or index > self._last_index or self._sent_bytes.get(member, 0) < allowance

    def sent(self, member: int, size_bytes: int) -> None:
        """Count what `member` was sent."""
        if self._allowance_bytes is not None:
            self._sent_bytes[member] = self._sent_bytes.get(member, 0) + size_bytes

    def _note_beat(self) -> None:
        log = self._state.log
        self._beat_index, self._beat_bytes = log.last_index, log.end_bytes

    def _note_tick(self) -> None:
        self._last_index = self._state.log.last_index
        allowance = self._allowance_bytes
        if allowance is None:
            self._sent_bytes.clear()
        else:
            self._sent_bytes = {
                member: sent - allowance for member, sent in self._sent_bytes.items() if sent > allowance
            }
