"""Watching over what the sessions of a client own."""

from __future__ import annotations

from typing import Protocol

import trio
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled


class Owned(Protocol):
    """A lock or a leadership that was just got."""

    @property
    def is_lost(self) -> bool:
        """True once it is not owned any more."""

    async def watch_over(self) -> None:
        """Look out for its loss, as long as it is owned."""


class Lookout:
    """Starts the watching of what was got, a turn later: a task of its own for each lasting block, and none for others.

    Many blocks wait for nothing but their lock, and are over by then. Waking this one task costs a lock a tenth of what
    its own would.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._fresh: list[Owned] = []
        self._parked: Task | None = None
        self._is_running = False

    def add(self, owned: Owned) -> None:
        """Watch over `owned`, if it lasts."""
        self._fresh.append(owned)
        if not self._is_running:
            self._is_running = True
            self._nursery.start_soon(self._run)
        elif self._parked is not None:
            task, self._parked = self._parked, None
            reschedule(task)

    async def _run(self) -> None:
        while True:
            self._start()
            self._parked = current_task()
            await wait_task_rescheduled(self._abort)

    def _start(self) -> None:
        fresh, self._fresh = self._fresh, []
        for owned in fresh:
            if not owned.is_lost:
                self._nursery.start_soon(owned.watch_over)

    def _abort(self, _: object) -> Abort:
        self._parked = None
        return Abort.SUCCEEDED
