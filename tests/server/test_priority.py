"""A member that is behind leaves the processors to others."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import trio
import trio.testing
from attrs import define, field

from coord.node.node import Node
from coord.server.priority import NICENESS, Priority, until_level
from coord.types import Role


def priority_of(initial: int, set_to: dict[int, int], *, may_return: bool = True) -> Priority:
    return Priority(initial, lambda niceness: may_return, lambda: [7, 8, 9], set_to.__setitem__)


def test_all_threads_get_back_what_they_had() -> None:
    set_to: dict[int, int] = {}
    priority = priority_of(2, set_to)
    assert priority.lower()
    assert set_to == {0: NICENESS}, "this one, and those that it starts"
    priority.restore()
    assert set_to == {0: NICENESS, 7: 2, 8: 2, 9: 2}


@pytest.mark.parametrize(("initial", "may_return"), [(0, False), (NICENESS, True), (19, True)])
def test_nothing_is_touched_that_could_not_be_taken_back_or_is_nice_already(initial: int, may_return: bool) -> None:
    set_to: dict[int, int] = {}
    priority = priority_of(initial, set_to, may_return=may_return)
    assert not priority.lower()
    priority.restore()
    assert not set_to


@define
class Raft:
    leader_id: int = 1
    role: Role = Role.FOLLOWER


@define
class Behind:
    """A node that is level `after_s`."""

    after_s: float
    raft: Raft = field(factory=Raft)
    rounds: int = 0

    def after_round(self, resume: Callable[[], None]) -> None:
        # A read waits until what it found committed is applied.
        self.rounds += 1
        trio.lowlevel.spawn_system_task(self._resume, resume)

    async def _resume(self, resume: Callable[[], None]) -> None:
        await trio.sleep_until(max(self.after_s, trio.current_time()))
        resume()


def level_at(node: Behind) -> float:
    async def main() -> float:
        await until_level(cast("Node", node), 1.0)
        return trio.current_time()

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_level_is_whose_reads_wait_no_longer_than_an_election_timeout() -> None:
    node = Behind(4.5)
    assert level_at(node) == 4.5
    assert node.rounds == 5


def test_without_a_leader_there_is_nothing_to_be_level_with() -> None:
    assert level_at(Behind(1e9, Raft(leader_id=0))) == 1.0


def test_who_leads_is_level() -> None:
    assert level_at(Behind(1e9, Raft(role=Role.LEADER))) == 1.0
