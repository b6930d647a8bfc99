"""Threads for what blocks: one for the log, one for the store, one for preparing segments.

A job is a plain function. Its completion runs on the loop, in the order of submission. The seam is `Worker`, so that
a simulated worker can finish after a seeded delay and show the races that real threads have (law 10).

A job that is short, such as the write of a lone entry on a good disk, costs less than the way to a thread and back. So
it may run at once, in the place of its caller, as long as short jobs have been quick on the whole: what each took below
`QUICK_S` is saved up, what it took above that is taken off. One write of a hundred that takes 2 ms changes nothing,
and a disk that begins to be slow holds the loop up for no longer than was saved, or once where it stalls. How long
another job takes tells how large it is, and nothing of those.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter
from typing import Any, Final, Protocol, TypeVar

import trio

from coord.transport.hub import current_hub

CLOSE_TIMEOUT_S = 1.0
QUICK_S: Final = 0.0005
"""What the way to the thread and back costs, some three times."""
TRUSTED_S: Final = 0.05
"""A short job need not go to the thread while so much has been saved up, by a hundred quick jobs or more."""
SAVED_S: Final = (-1.0, 2 * TRUSTED_S)
"""The least and the most that is remembered: a stall of the disk is made up for by as many quick jobs as it took."""

T = TypeVar("T")
Job = Callable[[], Any]
Done = Callable[[BaseException | None], None]


class Worker(Protocol):
    """Runs jobs one after the other, off the loop."""

    @property
    def is_quick(self) -> bool:
        """True if a short job might run at once, in the place of its caller."""

    def submit(self, job: Job, done: Done, *, is_short: bool = False) -> None:
        """Run `job` on the worker, then `done` on the loop with the job's exception or None.

        If it is short, both may be over when this returns.
        """

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
        self._hub = current_hub()
        self._token = trio.lowlevel.current_trio_token()
        self._jobs: SimpleQueue[tuple[Job, Done, bool] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._open = 0
        """Jobs whose completion has not run yet."""
        self._saved_s = 0.0
        self._thread.start()

    @property
    def is_quick(self) -> bool:
        """See `Worker`."""
        return not self._open and self._saved_s >= TRUSTED_S

    def submit(self, job: Job, done: Done, *, is_short: bool = False) -> None:
        """See `Worker`."""
        if is_short and self.is_quick:
            done(self._do(job, is_short))
            return
        self._open += 1
        if self._hub is not None:
            self._hub.jobs_elsewhere += 1
        self._jobs.put((job, done, is_short))

    def close(self) -> bool:
        """See `Worker`."""
        self._jobs.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done, is_short = item
            error = self._do(job, is_short)
            try:
                self._token.run_sync_soon(self._finish, done, error)
            except trio.RunFinishedError:
                return
            if self._hub is not None:
                self._hub.kick()

    def _do(self, job: Job, is_short: bool) -> BaseException | None:
        began = perf_counter()
        error: BaseException | None = None
        try:
            job()
        except BaseException as caught:
            error = caught
        if is_short:
            least, most = SAVED_S
            self._saved_s = max(least, min(most, self._saved_s + QUICK_S - (perf_counter() - began)))
        return error

    def _finish(self, done: Done, error: BaseException | None) -> None:
        self._open -= 1
        if self._hub is not None:
            self._hub.jobs_elsewhere -= 1
        done(error)
