"""The thread that does what blocks."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

import pytest
import trio
from attrs import define, field

from coord.node.worker import QUICK_JOBS, QUICK_S, ThreadWorker


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


def test_job_that_was_not_quick_sends_the_next_to_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that begins to be slow holds the loop up once."""

    async def body(desk: Desk) -> None:
        desk.takes_s = QUICK_S
        await desk.do()
        assert desk.was_here
        desk.takes_s = 0.0
        for _ in range(QUICK_JOBS):
            await desk.do()
            assert not desk.was_here
        await desk.do()
        assert desk.was_here

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
