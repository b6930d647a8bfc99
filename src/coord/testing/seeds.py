"""The command of a simulator: play one seed, or many, and tell what came of each.

python -m coord.testing.NAME --seed 7 --trace
python -m coord.testing.NAME --seeds 0:100
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Protocol

Show = Callable[[str], None]


class Report(Protocol):
    """What came of a seed; its text is one line."""

    @property
    def found(self) -> list[str]:
        """What is wrong."""

    @property
    def happened(self) -> Counter[str]:
        """What there was of what, so that seeds in which something never happens are found out."""


def play(
    arguments: list[str] | None,
    run: Callable[[int, Show | None], Report],
    must_happen: Collection[str],
    seeds_telling: int,
) -> int:
    """Play the seeds that `arguments` ask for; return how many failed.

    In `seeds_telling` seeds or more, each thing that must happen and never did counts as a failure too.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="play one seed")
    parser.add_argument("--seeds", default="0:20", help="play a range of seeds, first:end")
    parser.add_argument("--trace", action="store_true", help="show every event, one a line")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no seed after this much real time")
    chosen = parser.parse_args(arguments)
    first, end = map(int, chosen.seeds.split(":"))
    seeds = range(first, end) if chosen.seed is None else range(chosen.seed, chosen.seed + 1)
    failed = played = 0
    happened: Counter[str] = Counter()
    began = time.monotonic()
    for seed in seeds:
        if time.monotonic() - began > chosen.seconds:
            break
        played += 1
        failed += not _show(seed, run, print if chosen.trace else None, happened)
    if played <= 1:
        return failed
    print(f"{played} seeds, {failed} failed; {', '.join(f'{name}: {happened[name]}' for name in sorted(happened))}")
    never = [name for name in must_happen if not happened[name]]
    if never and played >= seeds_telling:
        print(f"never happened: {', '.join(never)}")
        return failed + len(never)
    return failed


def _show(seed: int, run: Callable[[int, Show | None], Report], show: Show | None, happened: Counter[str]) -> bool:
    try:
        report = run(seed, show)
    except Exception as error:
        print(f"seed {seed}: FAILED, {error!r}")
        if show is not None:
            raise
        return False
    print(report)
    happened.update(report.happened)
    for what in report.found[:5]:
        print(f"  {what}")
    return not report.found
