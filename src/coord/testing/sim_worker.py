"""A worker whose jobs finish after a seeded delay, in virtual time.

Between the job's effect and its completion lies a delay as well, so that everything that a real thread lets happen in
between can happen here.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Final

import trio

from coord.node.worker import Done, Job

DELAY_S_MAX: Final = 0.002
AT_ONCE_SHARE: Final = 0.25
"""So many of the short jobs run in their caller's place, as on a disk that is quick."""


class SimWorker:
    """Runs jobs inline on a virtual clock; `run` is its task."""

    def __init__(self, chance: random.Random, delay_s_max: float = DELAY_S_MAX) -> None:
        self._chance = chance
        self.delay_s_max = delay_s_max
        self._is_busy = False
        self._jobs: deque[tuple[Job, Done]] = deque()
        self._arrived = trio.Event()
        self.finished = 0

    @property
    def is_quick(self) -> bool:
        """See `Worker`."""
        return self.delay_s_max <= DELAY_S_MAX and not self._jobs and not self._is_busy

    def submit(self, job: Job, done: Done, *, is_short: bool = False) -> None:
        """See `Worker`."""
        if is_short and self.is_quick and self._chance.random() < AT_ONCE_SHARE:
            done(self._do(job))
            return
        self._jobs.append((job, done))
        self._arrived.set()

    def close(self) -> bool:
        """See `Worker`; the task ends with its nursery."""
        return True

    async def run(self) -> None:
        """Do the jobs, one after the other."""
        while True:
            if not self._jobs:
                self._arrived = trio.Event()
                await self._arrived.wait()
            job, done = self._jobs.popleft()
            self._is_busy = True
            await trio.sleep(self._chance.uniform(0, self.delay_s_max))
            error = self._do(job)
            await trio.sleep(self._chance.uniform(0, self.delay_s_max))
            self._is_busy = False
            done(error)

    def _do(self, job: Job) -> Exception | None:
        self.finished += 1
        try:
            job()
        except Exception as caught:  # the actor that gave the job judges it
            return caught
        return None
