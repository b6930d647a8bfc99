"""One seed, one run; and nothing of it stays behind."""

from __future__ import annotations

import gc
from typing import Any

import trio

from coord.testing.deterministic import Trace, run_seeded, seeded_scheduler


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
