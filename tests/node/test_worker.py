"""The thread that does what blocks."""

from __future__ import annotations

import threading

import pytest
import trio

from coord.node.worker import ThreadWorker


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
