"""The local deadline of a lease: never after the cluster's own (S20, S24)."""

from __future__ import annotations

import os

import pytest

from coord.client.recipes.tenure import Tenure, margin_s
from coord.errors import SessionLost
from coord.types import LeaseId


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def a_tenure(sent_at: float = 50.0, ttl_s: int = 10) -> tuple[Tenure, Clock]:
    clock = Clock()
    tenure = Tenure(clock, LeaseId(7))
    tenure.acknowledged(sent_at, ttl_s)
    return tenure, clock


@pytest.mark.parametrize(("ttl_s", "margin"), [(1, 0.3), (3, 0.3), (10, 1.0), (60, 6.0)])
def test_the_margin_is_a_tenth_and_at_least_300_ms(ttl_s: int, margin: float) -> None:
    assert margin_s(ttl_s) == pytest.approx(margin)


def test_it_counts_from_the_first_send_and_not_from_the_answer() -> None:
    """S20: the answer may have been under way for long, or be a recorded one."""
    tenure, clock = a_tenure(sent_at=46.0)
    assert tenure.remaining_s == pytest.approx(5.0)
    clock.now = 54.0
    tenure.acknowledged(51.0, 10)
    assert tenure.remaining_s == pytest.approx(6.0)


def test_an_acknowledgement_that_was_overtaken_takes_nothing_away() -> None:
    tenure, clock = a_tenure()
    clock.now = 56.0
    tenure.acknowledged(55.0, 10)
    tenure.acknowledged(52.0, 10)
    assert tenure.deadline == pytest.approx(64.0)


def test_past_the_deadline_it_is_lost_whatever_comes_then() -> None:
    """S24: a latch. What stood still with the process may not be taken up again."""
    tenure, clock = a_tenure()
    clock.now = 58.99
    tenure.check()
    clock.now = 59.0
    tenure.acknowledged(58.0, 10)
    assert tenure.is_lost
    assert tenure.remaining_s == 0.0
    with pytest.raises(SessionLost, match=r"session 7 is lost: no renewal .* \(TTL 10 s\)"):
        tenure.check()
    clock.now = 50.0
    assert tenure.is_lost


def test_a_ttl_of_nothing_ends_it_at_once() -> None:
    tenure, _ = a_tenure()
    tenure.acknowledged(50.0, 0)
    with pytest.raises(SessionLost, match="the cluster has ended"):
        tenure.check()


def test_the_child_of_a_fork_has_lost_it_and_the_parent_has_not() -> None:
    """S21."""
    tenure, _ = a_tenure()
    child = os.fork()
    if not child:
        os._exit(0 if tenure.is_lost else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not tenure.is_lost
