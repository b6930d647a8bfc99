"""The thread that does what blocks."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

import pytest
import trio
from attrs import define, field

from coord.node.worker import QUICK_S, SAVED_S, TRUSTED_S, ThreadWorker
from coord.transport.hub import current_hub

QUICK_JOBS = round(TRUSTED_S / QUICK_S)
"""So many that took no time at all make it trusted."""


def test_jobs_are_done_in_order_and_told_on_the_loop() -> None:
    async def main() -> list[object]:
        worker = ThreadWorker("test")
        told: list[object] = []
        finished = trio.Event()

        def fail() -> None:
            raise OSError("no")

        worker.submit(lambda: told.append("first"), told.append)
        worker.submit(fail, lambda error: (told.append(type(error)), finished.set()))
        await finished.wait()
        assert worker.close()
        return told

    assert trio.run(main) == ["first", None, OSError]


def test_the_hub_knows_of_each_job_until_it_is_told() -> None:
    """While a thread does one, the hub leaves the interpreter to it."""

    async def main() -> None:
        worker, hub = ThreadWorker("test"), current_hub()
        assert hub is not None
        told: list[int] = []
        finished = trio.Event()
        go_on = threading.Event()
        worker.submit(go_on.wait, lambda _: told.append(hub.jobs_elsewhere))
        worker.submit(lambda: None, lambda _: (told.append(hub.jobs_elsewhere), finished.set()))
        assert hub.jobs_elsewhere == 2
        go_on.set()
        await finished.wait()
        assert told == [1, 0]
        assert worker.close()

    trio.run(main)


@define(eq=False)
class Desk:
    """A worker whose jobs take as long as `takes_s` says, and that tells in which thread each ran."""

    worker: ThreadWorker = field(factory=lambda: ThreadWorker("test"))
    ran_in: list[int] = field(factory=list)
    now: float = 0.0
    takes_s: float = 0.0

    def job(self) -> None:
        self.ran_in.append(threading.get_ident())
        self.now += self.takes_s

    async def do(self, *, is_short: bool = True) -> None:
        finished = trio.Event()
        self.worker.submit(self.job, lambda error: finished.set(), is_short=is_short)
        await finished.wait()

    @property
    def was_here(self) -> bool:
        return self.ran_in[-1] == threading.get_ident()


def on_desk(monkeypatch: pytest.MonkeyPatch, body: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        desk = Desk()
        monkeypatch.setattr("coord.node.worker.perf_counter", lambda: desk.now)
        for _ in range(QUICK_JOBS):
            await desk.do()
            assert not desk.was_here, "it is not known yet to be quick"
        await body(desk)
        assert desk.worker.close()

    trio.run(main)


def test_short_job_runs_at_once_where_jobs_have_been_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(desk: Desk) -> None:
        await desk.do()
        assert desk.was_here
        await desk.do(is_short=False)
        assert not desk.was_here
        await desk.do()
        assert desk.was_here

    on_desk(monkeypatch, body)


async def save_up(desk: Desk) -> None:
    """Have the worker trust its jobs as much as it ever does."""
    desk.takes_s = 0.0
    for _ in range(2 * QUICK_JOBS):
        await desk.do()
    assert desk.was_here


def test_disk_that_begins_to_be_slow_sends_jobs_to_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the loop up for as long as was saved, and no more until that is saved again."""

    async def body(desk: Desk) -> None:
        await save_up(desk)
        desk.takes_s = 4 * QUICK_S
        here = 0
        while here <= 1000:
            await desk.do()
            if not desk.was_here:
                break
            here += 1
        assert here * desk.takes_s <= 2 * TRUSTED_S
        for _ in range(QUICK_JOBS):
            await desk.do()
            assert not desk.was_here

    on_desk(monkeypatch, body)


def test_slow_job_now_and_then_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to the thread would cost each of the others more than the slow one takes."""

    async def body(desk: Desk) -> None:
        await save_up(desk)
        for _ in range(20):
            desk.takes_s = 10 * QUICK_S
            await desk.do()
            assert desk.was_here
            desk.takes_s = QUICK_S / 2
            for _ in range(50):
                await desk.do()
                assert desk.was_here

    on_desk(monkeypatch, body)


def test_large_job_tells_nothing_of_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of large writes would have short ones go to the thread for thousands that follow."""

    async def body(desk: Desk) -> None:
        desk.takes_s = 20 * QUICK_S
        for _ in range(100):
            await desk.do(is_short=False)
        desk.takes_s = 0.0
        await desk.do()
        assert desk.was_here
        for _ in range(2 * QUICK_JOBS):
            await desk.do(is_short=False)
        desk.takes_s = 2 * TRUSTED_S
        await desk.do()
        await desk.do()
        assert not desk.was_here, "nor do quick ones"

    on_desk(monkeypatch, body)


def test_stall_is_made_up_for_by_as_many_quick_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(desk: Desk) -> None:
        await save_up(desk)
        stalled_s = 8 * TRUSTED_S
        desk.takes_s = stalled_s
        await desk.do()
        assert desk.was_here
        desk.takes_s = 0.0
        jobs = 0
        while not desk.was_here or not jobs:
            await desk.do()
            jobs += 1
        assert jobs * QUICK_S == pytest.approx(stalled_s - TRUSTED_S, abs=3 * QUICK_S)
        desk.takes_s = 60.0
        await desk.do()
        desk.takes_s = 0.0
        for _ in range(round(2 * -SAVED_S[0] / QUICK_S)):
            await desk.do()
            if desk.was_here:
                break
        assert desk.was_here, "a disk that hung once may be trusted again"

    on_desk(monkeypatch, body)


def test_short_job_does_not_overtake_one_in_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(desk: Desk) -> None:
        desk.worker.submit(desk.job, lambda error: None)
        await desk.do()
        assert not desk.was_here

    on_desk(monkeypatch, body)


def test_what_a_short_job_raises_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(desk: Desk) -> None:
        def fail() -> None:
            raise OSError("no")

        told: list[BaseException | None] = []
        desk.worker.submit(fail, told.append, is_short=True)
        assert [type(error) for error in told] == [OSError]

    on_desk(monkeypatch, body)


def test_close_does_not_wait_for_a_job_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not answer must not keep a node from ending."""
    monkeypatch.setattr("coord.node.worker.CLOSE_TIMEOUT_S", 0.05)
    answers = threading.Event()

    async def main() -> bool:
        worker = ThreadWorker("test")
        worker.submit(lambda: answers.wait(30) and None, lambda error: None)
        is_closed = worker.close()
        answers.set()
        return is_closed

    assert trio.run(main) is False
