"""One timer for all links of a run: pings, half messages, stalled writes, lingering closes.

A deadline per message would cost a cancel scope each; here a link only notes the number of the current tick.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

import trio

TICK_S: Final = 0.5


def ticks(seconds: float) -> int:
    """Return how many ticks are at least `seconds`."""
    return math.ceil(seconds / TICK_S)


class Kept(Protocol):
    """What the keeper looks after."""

    def on_tick(self, tick: int) -> None:
        """Look at what is overdue at `tick`."""


class Keeper:
    """Calls every link once a tick.

    Time is counted in ticks, not read from a clock: after a stall of this process one tick has passed,
    however long the stall was, so that nobody is given up for bytes that wait unread in a socket (S11).
    """

    def __init__(self) -> None:
        self.tick = 0
        self._kept: dict[Kept, None] = {}
        self._is_running = False

    def add(self, kept: Kept) -> None:
        """Look after `kept` until it is removed."""
        self._kept[kept] = None
        if not self._is_running:
            self._is_running = True
            trio.lowlevel.spawn_system_task(self._run, name="coord.transport.keeper")

    def remove(self, kept: Kept) -> None:
        """Forget `kept`; unknown ones are ignored."""
        self._kept.pop(kept, None)

    async def _run(self) -> None:
        try:
            while self._kept:
                await trio.sleep(TICK_S)
                self.tick += 1
                for kept in tuple(self._kept):
                    kept.on_tick(self.tick)
        finally:
            self._is_running = False


_KEEPER: Final[trio.lowlevel.RunVar[Keeper]] = trio.lowlevel.RunVar("coord.transport.keeper")


def current_keeper() -> Keeper:
    """Return the keeper of this run of Trio, made at its first use."""
    try:
        return _KEEPER.get()
    except LookupError:
        keeper = Keeper()
        _KEEPER.set(keeper)
        return keeper
