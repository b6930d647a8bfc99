"""Work that nobody waits for leaves others as much time as they took beside it."""

from __future__ import annotations

import pytest
from attrs import define, field

from coord.store.courtesy import REST_S_MAX, Courtesy


@define
class Machine:
    """Time passes when it is told to."""

    now: float = 0.0
    used: float = 0.0
    rests: list[float] = field(factory=list)

    def courtesy(self, share: float = 1.0) -> Courtesy:
        return Courtesy(share, lambda: self.now, lambda: self.used, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.rests.append(round(seconds, 6))
        self.now += seconds

    def work(self, seconds: float, share: float) -> None:
        """Work for so long, with a share of a processor."""
        self.now += seconds / share
        self.used += seconds


def test_alone_on_its_processor_it_never_rests() -> None:
    machine = Machine()
    courtesy = machine.courtesy()
    for _ in range(10):
        courtesy.rest()
        machine.work(0.005, share=1.0)
    assert not machine.rests


@pytest.mark.parametrize(
    ("share", "processor", "rest"),
    [
        pytest.param(1.0, 0.5, 0.005, id="as long as others kept it waiting"),
        pytest.param(1 / 2, 0.1, 0.015, id="no longer, however much others have to do"),
        pytest.param(1 / 4, 1.0, 0.015, id="alone on its processor, for its share"),
    ],
)
def test_it_rests(share: float, processor: float, rest: float) -> None:
    machine = Machine()
    courtesy = machine.courtesy(share)
    for _ in range(4):
        courtesy.rest()
        machine.work(0.005, processor)
    # A rest is no piece of work: it owes nothing itself.
    assert machine.rests == [rest] * 3


def test_a_rest_is_bounded() -> None:
    machine = Machine()
    courtesy = machine.courtesy()
    courtesy.rest()
    machine.work(1.0, share=0.01)
    courtesy.rest()
    assert machine.rests == [REST_S_MAX]


def test_what_came_before_the_first_piece_owes_nothing() -> None:
    machine = Machine(now=1_000.0)
    machine.courtesy().rest()
    assert not machine.rests
