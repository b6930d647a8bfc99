"""When each lease has to be looked at next.

A calendar rather than a heap: leases lie in one box a tick, so that a look costs the same however many leases there
are, and one that is revoked leaves nothing behind. Ten thousand sessions that renew three times a TTL are looked at
about as often; with a heap that is a hundred thousand comparisons for nothing.
"""

from __future__ import annotations

from math import ceil, floor

from attrs import define, field


@define
class Looks:
    """Leases by the tick at which they are due; ticks are multiples of `interval_s`, and nothing is due early."""

    interval_s: float
    _tick_of: dict[int, int] = field(factory=dict)
    _boxes: dict[int, dict[int, None]] = field(factory=dict)
    _next: int = 0
    """The first tick that was not looked at."""

    def __len__(self) -> int:
        return len(self._tick_of)

    def begin(self, now: float) -> None:
        """Forget all, and begin at `now`."""
        self._tick_of.clear()
        self._boxes.clear()
        self._next = floor(now / self.interval_s)

    def set(self, lease: int, at: float) -> None:
        """Have a lease looked at once, at the first tick at or past `at` that is still to come."""
        if lease in self._tick_of:
            self.discard(lease)
        tick = max(ceil(at / self.interval_s), self._next)
        self._tick_of[lease] = tick
        box = self._boxes.get(tick)
        if box is None:
            box = self._boxes[tick] = {}
        box[lease] = None

    def discard(self, lease: int) -> None:
        """Look at a lease no more."""
        tick = self._tick_of.pop(lease, None)
        if tick is not None:
            box = self._boxes[tick]
            del box[lease]
            if not box:
                del self._boxes[tick]

    def take(self, now: float, most: int) -> list[int]:
        """Return leases that are due, up to so many, and take them out; what does not fit is due at the next call."""
        last = floor(now / self.interval_s)
        taken: list[int] = []
        while self._next <= last:
            box = self._boxes.get(self._next, {})
            while box and len(taken) < most:
                lease, _ = box.popitem()
                del self._tick_of[lease]
                taken.append(lease)
            if box:
                break
            self._boxes.pop(self._next, None)
            self._next += 1
        return taken
