"""How long work stands back that nobody waits for.

A snapshot is written, staged and loaded as fast as one thread can, if it is let. Where members and their clients share
processors, that takes these away from all of them at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import define, field

REST_S_MAX = 0.1
"""A rest is no longer, so that such work ends on the busiest machine too."""
_WAIT_MAX = 2.0
"""What it waited counts up to so many times its own work. Else, the busier the machine, the less it would do of what it
could: a follower that is late would never be there under load, since the log goes on meanwhile."""


@define
class Courtesy:
    """Takes the time of one piece of work after another; all calls are on the thread that does it.

    What a piece took beyond the processor time that it used, others had the processor, the interpreter or the disk. It
    owes them as long again, up to a bound, and what makes its own time a `share` of all where nobody keeps it waiting.
    """

    share: float
    clock: Callable[[], float] = time.monotonic
    processor_clock: Callable[[], float] = time.thread_time
    sleep: Callable[[float], None] = time.sleep
    _began: tuple[float, float] | None = field(init=False, default=None)

    def owed_s(self) -> float:
        """Return what the piece that ends now owes, 0 at the first call; the next one begins."""
        before, now = self._began, (self.clock(), self.processor_clock())
        self._began = now
        if before is None:
            return 0.0
        took_s, used_s = now[0] - before[0], now[1] - before[1]
        waited_s = min(max(0.0, took_s - used_s), _WAIT_MAX * used_s)
        return min(waited_s + used_s * (1 / self.share - 1), REST_S_MAX)

    def rest(self) -> None:
        """Sleep for what the piece that ends now owes."""
        if owed_s := self.owed_s():
            self.sleep(owed_s)
            self.owed_s()
