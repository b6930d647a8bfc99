"""Who owns a name, step by step on a real state machine; and in every order that chance comes upon."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from coord.client import verbs
from coord.client.recipes.contending import (
    Contender,
    lock_of,
    read_lock_of,
    semaphore_of,
    write_lock_of,
)
from coord.client.recipes.steps import AwaitChange
from coord.client.recipes.tenure import Tenure
from coord.codec import encode
from coord.errors import AnswerGone, LockLost, SessionLost
from coord.protocol.ops import Op
from coord.types import LeaseId

from .machine_node import MachineNode, Walker

Make = Callable[[Tenure], Contender]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def a_tenure(node: MachineNode, lease: int, clock: Clock | None = None) -> Tenure:
    clock = clock or Clock()
    node.guarded(None, Op.LEASE_GRANT, [10, lease])
    tenure = Tenure(clock, LeaseId(lease))
    tenure.acknowledged(clock(), 10)
    return tenure


def a_lock(node: MachineNode, lease: int, name: str = "a") -> Contender:
    return lock_of(a_tenure(node, lease), name)


def entering(node: MachineNode, contender: Contender, **how: bool) -> Walker:
    walker = Walker(node, contender.enter(**how))
    walker.go_on()
    return walker


def left(node: MachineNode, contender: Contender) -> None:
    walker = Walker(node, contender.leave())
    walker.go_on()
    assert (walker.is_done, walker.error) == (True, None)


def test_the_key_is_the_name_and_the_lease_in_hex() -> None:
    """S25, as etcd's clients write it."""
    node = MachineNode()
    for lease, key in ((1, b"a/1"), (0xBEEF, b"a/beef"), (2**63 - 1, b"a/7fffffffffffffff")):
        contender = a_lock(node, lease)
        assert entering(node, contender).outcome is True
        assert node.keys_below(b"a/") == [key]
        left(node, contender)


def test_nobody_there_costs_one_write_and_nothing_else() -> None:
    node = MachineNode()
    contender = a_lock(node, 5)
    walker = entering(node, contender)
    assert [verb.is_write for verb in walker.asked] == [True]
    assert contender.create_revision == node.revision


def test_queueing_is_a_transaction_as_the_codec_would_write_it() -> None:
    key, value, lease = b"a/write/" + b"7" * 300, b"v" * 70_000, 2**40
    rivals = [(b"a/read/1", b"a/read/g"), (b"a/write/1", b"a/write/g")]
    put = [1, [key, value, lease, True]]
    alone = [[1, 0, start, 0, end] for start, end in rivals]
    newest = [[20, [start, end, 3, 0, 2, 2, False, True]] for start, end in rivals]
    verb = verbs.queue(key, value, lease, rivals, 3)
    assert verb.arguments == encode([alone, [put], [*newest, put]])


def test_each_waits_for_the_one_before_it_and_for_nobody_else() -> None:
    node = MachineNode()
    contenders = [a_lock(node, 10 + place) for place in range(5)]
    walkers = [entering(node, contender) for contender in contenders]
    assert [walker.outcome for walker in walkers] == [True, None, None, None, None]
    for before, walker in zip(contenders, walkers[1:], strict=False):
        assert isinstance(walker.step, AwaitChange)
        assert (walker.step.key, walker.step.range_end) == (before.key, b"")
    left(node, contenders[0])
    assert [walker.is_blocked for walker in walkers[1:]] == [False, True, True, True]
    walkers[1].go_on()
    assert walkers[1].outcome is True


def test_who_gives_up_is_passed_over() -> None:
    node = MachineNode()
    contenders = [a_lock(node, 10 + place) for place in range(4)]
    walkers = [entering(node, contender) for contender in contenders]
    left(node, contenders[2])
    walkers[3].go_on()
    assert walkers[3].step.key == contenders[1].key
    left(node, contenders[0])
    left(node, contenders[1])
    walkers[3].go_on()
    assert walkers[3].outcome is True


@pytest.mark.parametrize("was_sent_once", [True, False])
def test_an_event_between_the_answer_and_the_watch_is_not_missed(was_sent_once: bool) -> None:
    node = MachineNode()
    first, second = a_lock(node, 10), a_lock(node, 11)
    entering(node, first)
    walker = Walker(node, second.enter())
    walker.go(was_sent_once=was_sent_once)
    assert isinstance(walker.step, AwaitChange)
    left(node, first)
    walker.go_on()
    assert walker.outcome is True


@pytest.mark.parametrize("make", [lock_of, write_lock_of, lambda tenure, name: semaphore_of(tenure, name, 2)])
def test_who_comes_later_learns_with_one_write_what_to_wait_for(make: Callable[[Tenure, str], Contender]) -> None:
    node = MachineNode()
    contenders = [make(a_tenure(node, 10 + place), "a") for place in range(5)]
    for contender in contenders[:4]:
        entering(node, contender)
    walker = entering(node, contenders[4])
    assert [verb.is_write for verb in walker.asked] == [True]
    assert walker.step.key == contenders[3].key


def test_a_key_left_behind_waits_for_who_was_before_it_only() -> None:
    node = MachineNode()
    contenders = [a_lock(node, 10 + place) for place in range(3)]
    for contender in contenders:
        entering(node, contender)
    left(node, contenders[0])
    again, last = [lock_of(contender.tenure, "a") for contender in contenders[1:]]
    assert entering(node, again).outcome is True
    assert again.create_revision == contenders[1].create_revision
    assert entering(node, last).step.key == again.key


def test_a_key_that_is_no_contender_does_not_count() -> None:
    """S25: not by its name, not by its lease, and however many there are."""
    node = MachineNode()
    node.guarded(None, Op.LEASE_GRANT, [10, 0xAB])
    for key in (b"a/1", b"a/AB", b"a/0ab", b"a/zzz", b"a/ab/1", b"a/abc"):
        node.guarded(None, Op.PUT, [key, b"", 0xAB])
    node.guarded(None, Op.PUT, [b"a/ff", b""])
    for number in range(100):
        node.guarded(None, Op.PUT, [b"a/c-%d" % number, b"", 0xAB])
    contender = a_lock(node, 5)
    assert entering(node, contender).outcome is True
    # A true one in their midst does count.
    left(node, contender)
    node.guarded(None, Op.PUT, [b"a/ab", b"", 0xAB])
    for number in range(100):
        node.guarded(None, Op.PUT, [b"a/d-%d" % number, b"", 0xAB])
    assert entering(node, contender).step.key == b"a/ab"


def test_a_lock_inside_the_name_of_another_is_another_lock() -> None:
    node = MachineNode()
    outer, inner = a_lock(node, 5, "a"), a_lock(node, 6, "a/b")
    assert entering(node, inner).outcome is True
    assert entering(node, outer).outcome is True


def test_a_retried_write_proves_no_ownership() -> None:
    """S20: its answer is about the past; what counts is a read that finds the own key, and nobody ahead of it."""
    node = MachineNode()
    contender = a_lock(node, 5)
    walker = Walker(node, contender.enter())
    walker.go(was_sent_once=False)
    assert not walker.is_done
    walker.go_on()
    assert walker.outcome is True
    # Meanwhile the lease may have ended, and the name have another owner.
    contender = a_lock(node, 6, "b")
    walker = Walker(node, contender.enter())
    walker.go(was_sent_once=False)
    node.expire(6)
    entering(node, a_lock(node, 7, "b"))
    walker.go_on()
    assert isinstance(walker.error, LockLost)


def test_an_answer_that_was_too_large_to_keep_is_read_again() -> None:
    node = MachineNode()
    contender = a_lock(node, 5)
    walker = Walker(node, contender.enter())
    node.guarded(None, walker.step.verb.code, walker.step.verb.arguments)
    walker._advance(lambda: walker.steps.throw(AnswerGone("gone", 9, True)))
    walker.go_on()
    assert walker.outcome is True
    assert contender.create_revision == node.revision


@pytest.mark.parametrize("make", [lock_of, write_lock_of, lambda tenure, name: semaphore_of(tenure, name, 1)])
def test_whose_key_has_gone_never_gets_it(make: Callable[[Tenure, str], Contender]) -> None:
    node = MachineNode()
    first, second = make(a_tenure(node, 5), "a"), make(a_tenure(node, 6), "a")
    entering(node, first)
    walker = entering(node, second)
    node.expire(6)
    left(node, first)
    walker.go_on()
    assert isinstance(walker.error, LockLost)


def test_whose_key_was_made_anew_never_gets_it() -> None:
    node = MachineNode()
    first, second = a_lock(node, 5), a_lock(node, 6)
    entering(node, first)
    walker = entering(node, second)
    node.guarded(None, Op.DELETE_RANGE, [second.key])
    node.guarded(None, Op.PUT, [second.key, b"", 6])
    left(node, first)
    walker.go_on()
    assert isinstance(walker.error, LockLost)


def test_what_comes_after_the_deadline_gives_no_ownership() -> None:
    """S20, S24: the answer of the write itself, and that of a read."""
    node = MachineNode()
    for asks in (1, 2):
        clock = Clock()
        first, second = a_lock(node, 10 * asks), lock_of(a_tenure(node, 10 * asks + 1, clock), "a")
        if asks == 2:
            entering(node, first)
        walker = Walker(node, second.enter())
        if asks == 2:
            walker.go_on()
            left(node, first)
            walker.go()
        clock.now += 9
        walker.go()
        assert isinstance(walker.error, SessionLost)
        left(node, second)


def test_nothing_is_sent_after_the_deadline() -> None:
    node = MachineNode()
    clock = Clock()
    contender = lock_of(a_tenure(node, 5, clock), "a")
    clock.now += 9
    walker = Walker(node, contender.enter())
    assert walker.asked == []
    assert isinstance(walker.error, SessionLost)


def test_a_lease_that_the_cluster_has_ended_ends_the_session() -> None:
    node = MachineNode()
    contender = a_lock(node, 5)
    node.expire(5)
    walker = entering(node, contender)
    assert isinstance(walker.error, SessionLost)
    assert contender.tenure.is_lost


def test_trying_once_does_not_wait() -> None:
    node = MachineNode()
    entering(node, a_lock(node, 5))
    walker = entering(node, a_lock(node, 6), tries_once=True)
    assert walker.outcome is False


def test_watching_over_an_owners_key() -> None:
    node = MachineNode()
    contender = a_lock(node, 5)
    entering(node, contender)
    walker = Walker(node, contender.watch_over())
    walker.go_on()
    assert not walker.is_done
    # Another value changes no ownership; but made anew, even in a moment, the key is another one.
    node.guarded(None, Op.PUT, [contender.key, b"new", 5])
    walker.go_on()
    assert not walker.is_done
    node.guarded(None, Op.DELETE_RANGE, [contender.key])
    node.guarded(None, Op.PUT, [contender.key, b"", 5])
    walker.go_on()
    assert (walker.is_done, walker.error) == (True, None)


def test_readers_share_and_writers_do_not() -> None:
    node = MachineNode()
    kinds = "rrwrrwr"
    makes = {"r": read_lock_of, "w": write_lock_of}
    contenders = [makes[kind](a_tenure(node, 10 + place), "a") for place, kind in enumerate(kinds)]
    walkers = [entering(node, contender) for contender in contenders]

    def owners() -> str:
        for walker in walkers:
            walker.go_on()
        return "".join(str(place) for place, walker in enumerate(walkers) if walker.outcome and place not in gone)

    gone: set[int] = set()
    story = [owners()]
    for place in (1, 0, 2, 3, 4, 5, 6):
        left(node, contenders[place])
        gone.add(place)
        story.append(owners())
    assert story == ["01", "0", "2", "34", "4", "5", "6", ""]


def test_a_writer_waits_for_one_key_though_many_are_ahead() -> None:
    node = MachineNode()
    readers = [read_lock_of(a_tenure(node, 10 + place), "a") for place in range(3)]
    for reader in readers:
        entering(node, reader)
    walker = entering(node, write_lock_of(a_tenure(node, 20), "a"))
    assert walker.step.key == readers[2].key
    left(node, readers[0])
    assert walker.is_blocked
    left(node, readers[2])
    walker.go_on()
    assert walker.step.key == readers[1].key


def test_a_permit_that_comes_free_goes_to_the_first_waiter_and_wakes_no_other() -> None:
    node = MachineNode()
    contenders = [semaphore_of(a_tenure(node, 10 + place), "s", 3) for place in range(8)]
    walkers = [entering(node, contender) for contender in contenders]
    assert [walker.outcome for walker in walkers] == [True] * 3 + [None] * 5
    # Whichever owner goes.
    for gone, (place, waiter) in enumerate(((1, 3), (3, 4), (0, 5), (2, 6))):
        left(node, contenders[place])
        awake = [number for number in range(waiter, 8) if not walkers[number].is_blocked]
        assert awake == [waiter], gone
        walkers[waiter].go_on()
        assert walkers[waiter].outcome is True
        for walker in walkers:
            walker.go_on()
    assert sum(walker.outcome is True for walker in walkers) == 7


def test_the_owner_is_the_first_contender_with_its_value() -> None:
    node = MachineNode()
    entering(node, lock_of(a_tenure(node, 0xF), "a", b"me"))
    second = a_lock(node, 1)
    entering(node, second)
    walker = Walker(node, second.find_owner())
    walker.go_on()
    assert (walker.outcome.key, walker.outcome.value) == (b"a/f", b"me")
    walker = Walker(node, a_lock(node, 2, "nobody").find_owner())
    walker.go_on()
    assert (walker.is_done, walker.outcome) == (True, None)


MIXES: dict[str, Callable[[random.Random, Tenure], Contender]] = {
    "locks": lambda _, tenure: lock_of(tenure, "a"),
    "read and write locks": lambda chance, tenure: chance.choice([read_lock_of, write_lock_of])(tenure, "a"),
    "semaphores": lambda _, tenure: semaphore_of(tenure, "a", 3),
}


def may_share(owners: list[Contender]) -> bool:
    if any(owner.prefix.endswith(b"/read/") for owner in owners):
        return all(owner.prefix.endswith(b"/read/") for owner in owners)
    return len(owners) <= owners[0].permits


def ahead_of(contender: Contender, held: dict[bytes, list[Any]]) -> list[bytes]:
    own = held.get(contender.key)
    if own is None:
        return [contender.key] * contender.permits  # it will find out in its own time, and leave
    return [
        key for key, kv in held.items() if kv[1] < own[1] and any(key.startswith(prefix) for prefix in contender.rivals)
    ]


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("seed", range(40))
def test_in_any_order_nobody_shares_what_is_not_shared_and_everybody_gets_on(mix: str, seed: int) -> None:
    """Steps, leavings and ends of leases in any order: exclusion always, and never a stand-still."""
    chance = random.Random(f"{mix} {seed}")
    node = MachineNode()
    walkers: dict[Walker, Contender] = {}
    begun = 0
    acquired = 0
    while begun < 40 or walkers:
        held = {kv[0]: kv for kv in node.rig.range(b"a/", b"a0")[0]}
        owners = [
            contender
            for walker, contender in walkers.items()
            if walker.outcome and held.get(contender.key, [0, 0])[1] == contender.create_revision
        ]
        assert not owners or may_share(owners)
        free = [walker for walker in walkers if not walker.is_done and not walker.is_blocked]
        done = [walker for walker in walkers if walker.is_done]
        assert free or done or begun < 40, "nobody can move"
        if not free:
            for walker, contender in walkers.items():
                assert walker.is_done or len(ahead_of(contender, held)) >= contender.permits, "nobody tells it to go"
        what = chance.random()
        if begun < 40 and (what < 0.2 or not walkers):
            begun += 1
            contender = MIXES[mix](chance, a_tenure(node, begun + 1))
            walkers[Walker(node, contender.enter())] = contender
        elif free and what < 0.8:
            walker = chance.choice(free)
            walker.go(was_sent_once=chance.random() < 0.8)
            acquired += walker.outcome is True
        elif what < 0.9 and walkers and begun < 40:
            # It gives up, or its lease ends.
            walker = chance.choice(list(walkers))
            contender = walkers[walker]
            if chance.random() < 0.5 and contender.tenure.lease in node.leases_left:
                node.expire(contender.tenure.lease)
            else:
                left(node, walkers.pop(walker))
        elif done:
            walker = chance.choice(done)
            assert walker.error is None or isinstance(walker.error, LockLost | SessionLost)
            left(node, walkers.pop(walker))
    assert acquired >= 10
    assert node.keys_below(b"a/") == []
