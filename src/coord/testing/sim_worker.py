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


class SimWorker:
    """Runs jobs inline on a virtual clock; `run` is its task."""

    def __init__(self, chance: random.Random, delay_s_max: float = DELAY_S_MAX) -> None:
        self._chance = chance
        self.delay_s_max = delay_s_max
        self._jobs: deque[tuple[Job, Done]] = deque()
        self._arrived = trio.Event()
        self.finished = 0

    def submit(self, job: Job, done: Done) -> None:
        """See `Worker`."""
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
            await trio.sleep(self._chance.uniform(0, self.delay_s_max))
            error: BaseException | None = None
            try:
                job()
            except Exception as caught:  # the actor that gave the job judges it
                error = caught
            await trio.sleep(self._chance.uniform(0, self.delay_s_max))
            self.finished += 1
            done(error)
