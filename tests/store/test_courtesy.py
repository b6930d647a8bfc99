"""Work that nobody waits for leaves others as much time as they took beside it."""

from __future__ import annotations

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


def test_it_rests_as_long_as_others_kept_it_waiting() -> None:
    machine = Machine()
    courtesy = machine.courtesy()
    for _ in range(4):
        courtesy.rest()
        machine.work(0.005, share=0.5)
    # A rest is no piece of work: it owes nothing itself.
    assert machine.rests == [0.005] * 3


def test_it_gets_on_however_much_others_have_to_do() -> None:
    machine = Machine()
    courtesy = machine.courtesy(share=1 / 2)
    for _ in range(3):
        courtesy.rest()
        machine.work(0.005, share=0.1)
    assert machine.rests == [0.015] * 2


def test_alone_on_its_processor_it_takes_its_share() -> None:
    machine = Machine()
    courtesy = machine.courtesy(share=1 / 4)
    for _ in range(3):
        courtesy.rest()
        machine.work(0.005, share=1.0)
    assert machine.rests == [0.015] * 2


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
