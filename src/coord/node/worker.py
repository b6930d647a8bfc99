"""Threads for what blocks: one for the log, one for the store, one for preparing segments.

A job is a plain function. Its completion runs on the loop, in the order of submission. The seam is `Worker`, so that
a simulated worker can finish after a seeded delay and show the races that real threads have (law 10).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import trio

CLOSE_TIMEOUT_S = 1.0

T = TypeVar("T")
Job = Callable[[], Any]
Done = Callable[[BaseException | None], None]


class Worker(Protocol):
    """Runs jobs one after the other, off the loop."""

    def submit(self, job: Job, done: Done) -> None:
        """Run `job` on the worker, then `done` on the loop with the job's exception or None."""

    def close(self) -> bool:
        """Finish what was submitted and end; False if a job hangs, on a disk that does not answer."""


def ignore(_: BaseException | None) -> None:
    """Take no notice of how a job ended: one that cleans up, and what it leaves the next start cleans."""


async def work(worker: Worker, job: Callable[[], T]) -> T:
    """Run `job` on a worker and return what it returns, or raise what it raises.

    If this call is cancelled the job is still done, some time; what undoes it is a job behind it.
    """
    outcome: list[T] = []
    failure: BaseException | None = None
    is_done = trio.Event()

    def take(error: BaseException | None) -> None:
        nonlocal failure
        failure = error
        is_done.set()

    worker.submit(lambda: outcome.append(job()), take)
    await is_done.wait()
    if failure is not None:
        raise failure
    return outcome[0]


class ThreadWorker:
    """A worker with a thread of its own.

    A dedicated thread and `run_sync_soon` cost half of `trio.to_thread`, which makes a context, takes a limiter and
    names the thread for every job.
    """

    def __init__(self, name: str) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._jobs: SimpleQueue[tuple[Job, Done] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job, done: Done) -> None:
        """See `Worker`."""
        self._jobs.put((job, done))

    def close(self) -> bool:
        """See `Worker`."""
        self._jobs.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            error: BaseException | None = None
            try:
                job()
            except BaseException as caught:
                error = caught
            try:
                self._token.run_sync_soon(done, error)
            except trio.RunFinishedError:
                return
