"""Enumerates what a power failure can leave at every moment of a workload on a `SimDisk`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from attrs import define, field

from coord.testing.sim_disk import SimDisk


@define
class _Recorder:
    """Chooses as told and remembers how many states there were to choose from."""

    decide: Callable[[int, int], int]
    sizes: list[int] = field(factory=list)

    def __call__(self, states: int) -> int:
        self.sizes.append(states)
        return self.decide(len(self.sizes) - 1, states)


def crash_states(disk: SimDisk, *, random_states: int = 4, seed: int = 0) -> Iterator[SimDisk]:
    """Yield disks that a power failure at this moment could leave.

    All unsynced changes lost, all kept; each one kept alone and lost alone, in each of its versions; and
    some random mixtures. These are the corners: a rule that a mixture breaks is broken by few changes, most
    often by one.
    """
    oldest = _Recorder(lambda _, states: 0)
    yield disk.image(oldest)
    if not oldest.sizes:
        return
    newest = _Recorder(lambda _, states: states - 1)
    yield disk.image(newest)
    for position, states in enumerate(oldest.sizes):
        for version in range(1, states):
            yield disk.image(_Recorder(_only(position, version, others_newest=False)))
    for position, states in enumerate(newest.sizes):
        for version in range(states - 1):
            yield disk.image(_Recorder(_only(position, version, others_newest=True)))
    mixer = random.Random(seed)
    for _ in range(random_states):
        yield disk.image(mixer.randrange)


def _only(position: int, version: int, *, others_newest: bool) -> Callable[[int, int], int]:
    def decide(at: int, states: int) -> int:
        if at == position:
            return min(version, states - 1)
        return states - 1 if others_newest else 0

    return decide
