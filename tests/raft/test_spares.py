"""Who is not needed for a quorum is sent what came once a tick, unless somebody waits for it there."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from attrs import evolve
from tests.raft.rig import OPTIONS, Rig, voters

from coord.protocol.messages import Append, CampaignNow, HeartbeatReply
from coord.raft.options import RaftOptions
from coord.raft.types import Configuration

HERE, FIRST, SECOND = 1, 2, 3
WATCHED_TICKS = 2 * OPTIONS.heartbeat_ticks


def settled(options: RaftOptions = OPTIONS) -> Rig:
    """Return a leader that has watched for long enough who keeps up: all do."""
    rig = Rig.make(options=options).lead(FIRST, SECOND)
    # One tick more than is looked at again after.
    pass_ticks(rig, WATCHED_TICKS + 1)
    return rig


def pass_ticks(rig: Rig, count: int, *, silent: Collection[int] = ()) -> None:
    """Pass ticks, in which all but `silent` take and answer everything."""
    for _ in range(count):
        rig.tick()
        answer(rig, *(member for member in rig.raft.progress() if member not in silent))
    rig.sent.clear()


def answer(rig: Rig, *members: int) -> None:
    for member in members:
        rig.beat(member)
        rig.ack(member)


def put(rig: Rig, awaited_by: int = HERE) -> int:
    """Propose an entry, and return its index; this member's disk has it."""
    place = rig.raft.propose(b"12345", awaited_by)
    assert place is not None
    rig.sync()
    return place[1]


def sent(rig: Rig) -> dict[int, list[int]]:
    """Return the indices of the entries that each member was sent since the last call."""
    found: dict[int, list[int]] = {}
    for append in rig.take(Append):
        if append.entries:
            found.setdefault(append.to, []).extend(index for index, _, _ in append.entries)
    return found


def test_one_of_two_followers_has_an_entry_at_once_and_the_other_with_the_tick() -> None:
    rig = settled()
    first = put(rig)
    assert sent(rig) == {FIRST: [first]}
    rig.ack(FIRST)
    assert rig.raft.log.committed == first, "a quorum has it"
    second = put(rig)
    assert sent(rig) == {FIRST: [second]}
    rig.tick()
    assert sent(rig) == {SECOND: [first, second]}, "in one append"


def test_a_new_leader_spares_nobody_for_two_heartbeats() -> None:
    rig = Rig.make().lead(FIRST, SECOND)
    for _ in range(WATCHED_TICKS - 1):
        pass_ticks(rig, 1)
        index = put(rig)
        assert sent(rig) == {FIRST: [index], SECOND: [index]}
        answer(rig, FIRST, SECOND)


def test_who_is_waited_at_is_sent_it_at_once() -> None:
    rig = settled()
    index = put(rig, awaited_by=SECOND)
    assert sent(rig) == {FIRST: [index], SECOND: [index]}


def test_where_entries_are_waited_for_they_are_needed() -> None:
    """It is sent them anyway, so that the other is spared."""
    rig = settled()
    put(rig, awaited_by=SECOND)
    answer(rig, FIRST, SECOND)
    pass_ticks(rig, 1)
    index = put(rig)
    assert sent(rig) == {SECOND: [index]}


def test_where_what_is_applied_is_looked_at_it_is_sent_at_once() -> None:
    rig = settled()
    rig.step(HeartbeatReply(SECOND, HERE, rig.term, 0, True))
    index = put(rig)
    assert sent(rig) == {FIRST: [index], SECOND: [index]}
    rig.ack(FIRST)
    rig.tick()
    index = put(rig)
    assert sent(rig) == {SECOND: [index]}, "as it is sent everything it is the one that is needed"


def test_more_than_an_append_does_not_wait_for_the_tick() -> None:
    rig = settled(options=evolve(OPTIONS, append_bytes_max=12))
    first, second = put(rig), put(rig)
    assert sent(rig) == {FIRST: [first, second]}
    third = put(rig)
    assert sent(rig) == {FIRST: [third], SECOND: [first, second]}


def test_who_does_not_answer_within_a_tick_costs_the_others_their_rest() -> None:
    rig = settled()
    first = put(rig)
    rig.tick()
    assert sent(rig) == {FIRST: [first], SECOND: [first]}, "everybody has it with the tick"
    rig.ack(SECOND)
    second = put(rig)
    rig.sent.clear()
    pass_ticks(rig, 1, silent=[FIRST, SECOND])
    rig.ack(SECOND)
    assert rig.raft.log.committed == second
    third = put(rig)
    assert sent(rig)[SECOND] == [third], "the second entry was not committed by its tick"


def test_who_was_needed_and_is_silent_is_needed_no_more() -> None:
    rig = settled()
    put(rig)
    pass_ticks(rig, 2 * WATCHED_TICKS, silent=[FIRST])
    index = put(rig)
    assert sent(rig)[SECOND] == [index]


def test_broken_link_to_who_is_needed_has_the_other_sent_everything() -> None:
    rig = settled()
    first = put(rig)
    rig.sent.clear()
    rig.raft.link_broken(FIRST, False)
    assert sent(rig)[SECOND] == [first]


def test_slow_follower_is_not_the_one_that_is_needed() -> None:
    """Of equal ones the first is; but a quarter of its answers have to come in time for a quorum."""
    rig = Rig.make().lead(FIRST, SECOND)
    for _ in range(WATCHED_TICKS + 1):
        put(rig)
        answer(rig, SECOND)
        answer(rig, FIRST)
        pass_ticks(rig, 1)
    index = put(rig)
    assert sent(rig) == {SECOND: [index]}


def test_who_has_become_slow_is_found_out_once_in_an_election_timeout() -> None:
    rig = settled()
    sent_to: list[set[int]] = []
    for _ in range(2 * OPTIONS.election_ticks):
        put(rig)
        receivers = set(sent(rig))
        sent_to.append(receivers)
        for member in (SECOND, FIRST):
            if member in receivers:
                rig.ack(member)
        pass_ticks(rig, 1)
    assert sent_to[0] == {FIRST}
    assert sent_to[-1] == {SECOND}
    assert sent_to.count({FIRST, SECOND}) == 2


def test_five_members_need_two_others() -> None:
    rig = Rig.make(voters(1, 2, 3, 4, 5)).lead(2, 3, 4, 5)
    pass_ticks(rig, WATCHED_TICKS + 1)
    index = put(rig)
    assert sent(rig) == {2: [index], 3: [index]}


@pytest.mark.parametrize(
    ("configuration", "needed"),
    [
        (voters(1, 2, 3, blank=[2]), {3}),
        (voters(1, 3, learners=[2]), {3}),
        (voters(1, 2, outgoing=[1, 3]), {2, 3}),
        (voters(1, 2), {2}),
    ],
)
def test_quorum_is_that_of_the_configuration(configuration: Configuration, needed: set[int]) -> None:
    """Blank members (S1) and learners are in none; of joint configurations (S12) both must have theirs."""
    rig = Rig.make(configuration).lead(*sorted(needed))
    pass_ticks(rig, WATCHED_TICKS + 1)
    index = put(rig)
    assert sent(rig) == {member: [index] for member in needed}


def test_who_takes_the_lead_over_has_everything_at_once() -> None:
    rig = settled()
    index = put(rig)
    rig.sent.clear()
    assert rig.raft.transfer(SECOND) == SECOND
    assert sent(rig) == {SECOND: [index]}
    rig.ack(SECOND)
    assert [message.to for message in rig.take(CampaignNow)] == [SECOND]
