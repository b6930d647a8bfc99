"""What a leader knows of one follower's log, and how much it may send it now."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

from attrs import define, field

_UNLIMITED: Final = 2**30


class Stage(Enum):
    """How a follower is fed."""

    PROBE = "probe"
    """It is not known where its log agrees: one append at a time looks for it."""
    REPLICATE = "replicate"
    """It agrees: appends follow each other without waiting, within the inflight limits."""
    SNAPSHOT = "snapshot"
    """What it needs next has left the log: a snapshot is under way, and nothing else."""


@define(eq=False)
class Progress:
    """A follower's `match` (what it acknowledged, thesis §3.5) and `next_index` (what it is sent next)."""

    next_index: int
    heard_at: int
    """The tick at which anything was last heard of it."""
    match: int = 0
    stage: Stage = Stage.PROBE
    is_paused: bool = False
    """A probe is out; it may be repeated when the follower is heard of again."""
    commit_sent: int = 0
    """Up to where it was told, or will be, that entries are committed."""
    commit_awaited: int = 0
    """Up to here somebody waits there to hear that entries are committed."""
    is_watched: bool = False
    """It said that what it applies is looked at: by watches, or by reads of what it has."""
    round: int = 0
    """The newest read round that it acknowledged."""
    match_at_heartbeat: int = -1
    """`match` when the last heartbeat's answer came, with appends in flight; −1 if none were."""
    _window: int = _UNLIMITED
    """How many appends may be in flight, as far as that depends on what was lost; it grows with each answer."""
    _inflight: deque[tuple[int, int]] = field(factory=deque)
    """`(last index, bytes)` of each append with entries that was not acknowledged."""
    _inflight_bytes: int = 0

    def probe(self) -> None:
        """Look anew for where the logs agree, from what was acknowledged on."""
        self.stage = Stage.PROBE
        self.next_index = self.match + 1
        self._reset()

    def refused(self) -> None:
        """Learn that what is in flight does not follow on its log, for something before was lost.

        What was sent behind it will be refused too. If all of it were sent again at each refusal, over a link that
        reorders, the refusals would breed; so it is one append, then two, then four.
        """
        self._window = 1
        self.probe()

    def replicate(self) -> None:
        """Send without waiting, from what was acknowledged on."""
        self.stage = Stage.REPLICATE
        self.next_index = self.match + 1
        self._reset()

    def await_snapshot(self) -> None:
        """Send nothing until a snapshot has arrived."""
        self.stage = Stage.SNAPSHOT
        self._reset()

    def has_room(self, messages_max: int, bytes_max: int) -> bool:
        """Tell whether one more append may go."""
        return len(self._inflight) < min(messages_max, self._window) and self._inflight_bytes < bytes_max

    def sent(self, last_index: int, size_bytes: int) -> None:
        """Count an append with entries up to `last_index`."""
        self._inflight.append((last_index, size_bytes))
        self._inflight_bytes += size_bytes
        self.next_index = last_index + 1

    def acknowledged(self, index: int) -> None:
        """Learn that its log agrees, durably, up to `index`."""
        inflight = self._inflight
        while inflight and inflight[0][0] <= index:
            self._inflight_bytes -= inflight.popleft()[1]
            self._window += 1
        self.match = max(self.match, index)
        self.next_index = max(self.next_index, index + 1)

    def is_stalled(self) -> bool:
        """Tell, once a heartbeat, whether appends are in flight and none was answered since the last heartbeat."""
        if not self._inflight:
            self.match_at_heartbeat = -1
            return False
        is_stalled = self.match == self.match_at_heartbeat
        self.match_at_heartbeat = self.match
        return is_stalled

    def _reset(self) -> None:
        self.is_paused = False
        self.match_at_heartbeat = -1
        self.commit_sent = 0
        self._inflight.clear()
        self._inflight_bytes = 0
