"""One seed, one run; and nothing of it stays behind."""

from __future__ import annotations

import gc
from typing import Any

import trio

from coord.testing.deterministic import Freezer, Trace, process, run_seeded, seeded_scheduler


def race(seed: int) -> str:
    """Return the digest of a run in which ten tasks race for the order of their lines."""

    async def main() -> str:
        trace = Trace()

        async def runner(name: int) -> None:
            for lap in range(5):
                await trio.sleep(0.01)
                trace("lap", name=name, lap=lap)

        async with trio.open_nursery() as nursery:
            for name in range(10):
                nursery.start_soon(runner, name)
        assert trace.lines == 50
        return trace.digest

    return run_seeded(seed, main)


def test_a_seed_gives_one_trace_and_another_seed_another() -> None:
    digests = {seed: race(seed) for seed in range(5)}
    assert digests == {seed: race(seed) for seed in range(5)}
    assert len(set(digests.values())) == 5


def test_what_was_set_is_set_back() -> None:
    run: Any = trio._core._run
    before = (run._ALLOW_DETERMINISTIC_SCHEDULING, run._r.getstate(), gc.isenabled())
    with seeded_scheduler(7):
        assert run._ALLOW_DETERMINISTIC_SCHEDULING
        assert not gc.isenabled()
    assert (run._ALLOW_DETERMINISTIC_SCHEDULING, run._r.getstate(), gc.isenabled()) == before


def test_a_frozen_process_stands_still_and_goes_on_where_it_stood() -> None:
    async def main() -> list[tuple[str, float]]:
        freezer = Freezer()
        ticks: list[tuple[str, float]] = []

        async def ticker() -> None:
            while True:
                await trio.sleep(1)
                ticks.append((process.get(), trio.current_time()))

        async def start(name: str) -> None:
            process.set(name)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ticker)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, "a")
            nursery.start_soon(start, "b")
            await trio.sleep(1.5)
            freezer.freeze("a")
            await trio.sleep(5)
            freezer.thaw("a")
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
        start_s = min(at for _, at in ticks) - 1
        return [(name, round(at - start_s, 6)) for name, at in ticks]

    ticks = run_seeded(3, main)
    assert [at for name, at in ticks if name == "b"] == [1, 2, 3, 4, 5, 6, 7, 8]
    # One tick for the whole stop, as for a process that was stopped (S11).
    assert [at for name, at in ticks if name == "a"] == [1, 6.5, 7.5]
