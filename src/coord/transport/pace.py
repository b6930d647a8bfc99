"""How closely messages follow each other, and what a lone exchange of them is spared.

A processor that has gone to sleep takes 30 to 60 µs to be back, and longer until its caches are warm: more than many a
message takes to be handled. Where a few callers wait for each other's answers the next message is there within a
fraction of a millisecond, and a busy poll finds it at once. And whom a message wakes is often put on the processor of
who sent it, and waits there until that one sleeps, while another processor does nothing: there it is the next step of
all, and has its turn before the sender goes on. Where many come together a sleep gathers them, and to look, or to let
others go first, would only take the processor from who has work.
"""

from __future__ import annotations

import os
from typing import Final

BUSY_POLL_S: Final = 0.0008
"""For so long the next message is looked for, if the last ones did not take longer to come on the whole."""
LONE_PASSES: Final = 3
"""So many times in a row there was one socket to read, of the same two."""
DISPLACED_S: Final = 0.001
"""A look that takes so long gave its processor to somebody who has work for it."""
SHARED_S: Final = 0.00003
"""A look that takes so long let somebody else have a turn on this processor."""
SHARED_LOOKS: Final = 1
"""After more of these in a row it sleeps: whoever is always ready to run stays on its processor, though another has
nothing to do, and who sleeps is woken there."""
DISPLACED_GAP_S: Final = 1.0
"""What counts as the time to the next message then: busy polls end, and some fifty messages later are tried again."""
SHARE: Final = 1 / 8
"""What the last one counts for in the usual time between messages."""


class Pace:
    """Knows which sockets were read last, and how long it was until there was something to read."""

    __slots__ = ("_gap_s", "_last", "_last_but_one", "_lone", "is_close")

    def __init__(self) -> None:
        self._last = self._last_but_one = -1
        self._lone = 0
        self._gap_s = DISPLACED_GAP_S
        self.is_close = False
        """True where a lone exchange goes on, in which it pays to look for the next message without sleeping."""

    def found(self, found: list[tuple[int, int]]) -> None:
        """Note what a pass reads: pairs of a descriptor and its events."""
        fd = found[0][0]
        if len(found) > 1 or (fd != self._last and fd != self._last_but_one):
            self._lone = 0
        else:
            self._lone += 1
        if fd != self._last:
            self._last, self._last_but_one = fd, self._last
        self.is_close = self._lone >= LONE_PASSES and self._gap_s <= BUSY_POLL_S

    def sent(self) -> None:
        """Let whoever was just sent something have its turn, if it is the next step of a lone exchange."""
        if self.is_close:
            os.sched_yield()

    def waited(self, gap_s: float) -> None:
        """Note how long it took until there was something to read."""
        self._gap_s += (gap_s - self._gap_s) * SHARE

    def displaced(self) -> None:
        """Note that others need the processor."""
        self._gap_s = DISPLACED_GAP_S
        self.is_close = False
