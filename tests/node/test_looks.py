"""The calendar of the lease reaper."""

from __future__ import annotations

from random import Random

from coord.node.looks import Looks


def test_nothing_is_due_early_and_all_within_a_tick() -> None:
    chance = Random(1)
    looks = Looks(0.1)
    looks.begin(1000.0)
    due = {lease: 1000.0 + chance.uniform(0, 20) for lease in range(500)}
    for lease, at in due.items():
        looks.set(lease, at)
    for lease in range(0, 500, 5):
        looks.discard(lease)
        del due[lease]
    for lease in range(1, 500, 5):
        due[lease] += 1
        looks.set(lease, due[lease])
    taken: dict[int, float] = {}
    for tick in range(250):
        now = 1000.0 + tick / 10
        taken.update((lease, now) for lease in looks.take(now, 1000))
    assert taken.keys() == due.keys()
    assert all(-1e-9 <= taken[lease] - at <= 0.2 for lease, at in due.items())
    assert len(looks) == 0
    assert not looks._boxes


def test_what_is_late_or_too_much_at_once_is_due_at_the_next_call() -> None:
    looks = Looks(0.1)
    looks.begin(50.0)
    for lease in range(10):
        looks.set(lease, 50.5)
    looks.set(10, 3.0)
    assert looks.take(50.0, 4) == [10]
    assert looks.take(50.4, 4) == []
    first = looks.take(60.0, 4)
    assert len(first) == 4
    looks.set(first[0], 3.0)
    rest = [looks.take(60.0, 4), looks.take(60.0, 4), looks.take(60.0, 4)]
    assert [len(taken) for taken in rest] == [4, 3, 0]
    assert sorted([*first[1:], *rest[0], *rest[1]]) == list(range(10))


def test_a_new_beginning_forgets_all() -> None:
    looks = Looks(0.1)
    looks.begin(50.0)
    looks.set(1, 51.0)
    looks.begin(7.0)
    assert looks.take(52.0, 9) == []
    looks.begin(7.0)
    looks.set(2, 8.0)
    assert looks.take(8.1, 9) == [2]
