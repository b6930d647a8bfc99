"""Read rounds (ReadIndex), one rule a test: thesis §6.4; S8."""

from __future__ import annotations

import pytest

from coord.protocol.messages import Heartbeat, ReadReply, ReadRequest
from coord.raft.options import RaftOptions
from coord.raft.types import Configuration
from coord.types import Role

from .rig import Rig, voters


def rounds(rig: Rig) -> list[int]:
    """Return the numbers of the heartbeats that went to member 2."""
    return [beat.round for beat in rig.take(Heartbeat) if beat.to == 2]


def asked(rig: Rig) -> list[int]:
    """Return to whom heartbeats went."""
    return [beat.to for beat in rig.take(Heartbeat)]


def test_a_round_is_confirmed_by_a_quorum_of_answers() -> None:
    rig = Rig.make(voters(1, 2, 3, 4, 5)).lead(2, 3)

    rig.raft.read_index(100)
    number = rounds(rig)[0]
    rig.beat(2, number)
    assert not rig.reads

    rig.beat(3, number)
    assert rig.reads == [(100, 1)]


def test_what_waits_shares_a_broadcast() -> None:
    rig = Rig.make().lead(2)

    for round_id in (1, 2, 3):
        rig.raft.read_index(round_id)
    numbers = rounds(rig)
    assert len(numbers) == 1

    rig.beat(2, numbers[0])
    assert rig.reads == [(1, 1), (2, 1), (3, 1)]


def test_who_comes_later_waits_for_the_next_broadcast() -> None:
    """S8: what was committed in between is not proved by the one that runs."""
    rig = Rig.make().lead(2)
    rig.raft.read_index(1)
    first = rounds(rig)[0]
    rig.raft.read_index(2)
    second = rounds(rig)[0]
    assert second > first

    rig.beat(2, first)
    assert rig.reads == [(1, 1)]
    rig.beat(2, first)
    assert rig.reads == [(1, 1)]

    rig.beat(2, second)
    assert rig.reads == [(1, 1), (2, 1)]


def test_a_later_answer_confirms_earlier_rounds() -> None:
    rig = Rig.make().lead(2)
    rig.raft.read_index(1)
    rounds(rig)
    rig.raft.read_index(2)

    rig.beat(2, rounds(rig)[0])

    assert rig.reads == [(1, 1), (2, 1)]


def test_as_few_are_asked_as_make_a_quorum() -> None:
    rig = Rig.make(voters(1, 2, 3, 4, 5, learners=[6], blank=[2])).lead(3, 4)

    rig.raft.read_index(1)

    # Those that are known to be there: they hold the leader's first entry.
    assert asked(rig) == [3, 4]


def test_both_sides_of_a_joint_configuration_are_asked() -> None:
    rig = Rig.make(voters(1, 2, 3, outgoing=[1, 4, 5])).lead(3, 4)

    rig.raft.read_index(1)

    assert asked(rig) == [3, 4]


def test_who_answers_first_when_all_are_asked_is_asked_first() -> None:
    rig = Rig.make().lead(2)
    for round_id, (first, second) in enumerate([(3, 2), (2, 3), (3, 2)]):
        rig.tick(2)
        assert asked(rig) == [2, 3]
        rig.beat(first, round_id)
        rig.beat(second, round_id)

        rig.raft.read_index(round_id)

        assert asked(rig) == [first]
        rig.beat(first, round_id + 1)


def test_a_member_that_does_not_answer_costs_a_round_one_tick() -> None:
    rig = Rig.make().lead(2)
    rig.tick(2)
    rig.beat(2)
    rig.take(Heartbeat)
    rig.raft.read_index(1)
    assert asked(rig) == [2]

    # 2 has stopped. This tick brings no heartbeats of its own.
    rig.tick()
    numbers = {beat.to: beat.round for beat in rig.take(Heartbeat)}
    assert sorted(numbers) == [2, 3]
    rig.beat(3, numbers[3])
    assert rig.reads == [(1, 1)]

    # The next round does not wait for it.
    rig.raft.read_index(2)
    assert asked(rig) == [3]


def test_a_round_is_told_to_all_but_once_between_heartbeats() -> None:
    rig = Rig.make(options=RaftOptions(heartbeat_ticks=5, election_ticks=50)).lead(2)
    rig.raft.read_index(1)
    assert asked(rig) == [2]

    told = []
    for _ in range(5):
        rig.tick()
        told.append(asked(rig))

    assert told == [[2, 3], [], [], [], [2, 3]]


def test_when_a_link_breaks_others_are_asked_at_once() -> None:
    rig = Rig.make().lead(2)
    rig.raft.read_index(1)
    assert asked(rig) == [2]

    rig.raft.link_broken(2, False)
    assert 3 in asked(rig)
    rig.beat(3, 1)
    assert rig.reads == [(1, 1)]

    rig.raft.read_index(2)
    assert asked(rig) == [3]


def test_heartbeats_go_on_to_those_that_are_not_asked() -> None:
    """They keep the election timers of all others quiet, whatever is read."""
    rig = Rig.make().lead(2)
    beats = []
    for round_id in range(1, 7):
        rig.raft.read_index(round_id)
        numbers = [beat.round for beat in rig.take(Heartbeat) if beat.to == 2]
        rig.beat(2, max(numbers))
        rig.tick()
        beats += asked(rig)

    assert beats == [2, 3] * 3


def test_no_round_before_a_commit_in_the_own_term() -> None:
    """etcd #7331: the commit index of a new leader may be old."""
    rig = Rig.make(terms=[1]).win(2)

    rig.raft.read_index(1)
    rig.beat(2)
    assert not rig.reads

    rig.ack(2)
    number = [beat.round for beat in rig.take(Heartbeat) if beat.to == 2][-1]
    rig.beat(2, number)
    assert rig.reads == [(1, 2)]


def test_learners_and_blank_voters_confirm_nothing() -> None:
    rig = Rig.make(voters(1, 2, 3, learners=[4], blank=[3])).lead(2)

    rig.raft.read_index(1)
    number = rounds(rig)[0]
    rig.beat(3, number)
    rig.beat(4, number)
    assert not rig.reads

    rig.beat(2, number)
    assert rig.reads == [(1, 1)]


def test_joint_majorities_confirm_together() -> None:
    rig = Rig.make(voters(1, 2, 3, outgoing=[1, 4, 5])).lead(2, 4)

    rig.raft.read_index(1)
    number = rounds(rig)[0]
    rig.beat(2, number)
    rig.beat(3, number)
    assert not rig.reads

    rig.beat(5, number)
    assert rig.reads == [(1, 1)]


def test_a_leader_that_steps_down_gives_its_rounds_up() -> None:
    rig = Rig.make().lead(2)
    rig.raft.read_index(1)
    number = rounds(rig)[0]
    rig.raft.read_index(2)

    rig.step(Heartbeat(3, 1, rig.term + 1, 0, 0))
    rig.beat(2, number)

    assert sorted(rig.lost_reads) == [1, 2]
    assert not rig.reads


def test_a_follower_asks_its_leader() -> None:
    rig = Rig.make()
    rig.step(Heartbeat(2, 1, 4, 0, 0))

    rig.raft.read_index(9)
    assert rig.take(ReadRequest) == [ReadRequest(1, 2, 4, 9)]

    rig.step(ReadReply(2, 1, 4, 9, 17))
    assert rig.reads == [(9, 17)]
    rig.step(ReadReply(2, 1, 4, 9, 17))
    assert rig.reads == [(9, 17)]


def test_who_asks_for_a_round_has_answered_it() -> None:
    """When it sent the request it had voted for no later leader, and all reads that share the round had come."""
    rig = Rig.make().lead(2)

    rig.step(ReadRequest(3, 1, rig.term, 9))

    assert rig.take(ReadReply) == [ReadReply(1, 3, rig.term, 9, 1)]


def test_a_request_needs_a_quorum_with_the_answers_of_others() -> None:
    rig = Rig.make(voters(1, 2, 3, 4, 5)).lead(2, 3)

    rig.step(ReadRequest(3, 1, rig.term, 9))
    beats = rig.take(Heartbeat)
    assert [beat.to for beat in beats] == [2]
    rig.beat(3, beats[0].round)
    assert not rig.take(ReadReply)

    rig.beat(2, beats[0].round)
    assert rig.take(ReadReply) == [ReadReply(1, 3, rig.term, 9, 1)]


def test_a_request_is_no_answer_to_another_round() -> None:
    """S8: that may have begun after the request was sent."""
    rig = Rig.make().lead(2)
    rig.raft.read_index(1)

    rig.step(ReadRequest(3, 1, rig.term, 9))
    assert not rig.reads
    rig.raft.read_index(2)
    rig.step(ReadRequest(2, 1, rig.term, 10))

    assert not rig.reads


@pytest.mark.parametrize(
    "configuration", [voters(1, 2, 3, learners=[4]), voters(1, 2, 3, 4, 5, blank=[4]), voters(1, 2, outgoing=[1, 4])]
)
def test_a_request_counts_as_its_sender_does(configuration: Configuration) -> None:
    rig = Rig.make(configuration).lead(2, 3, 4)

    rig.step(ReadRequest(4, 1, rig.term, 9))

    assert asked(rig)
    assert not rig.take(ReadReply)


def test_a_repeated_request_is_one_round() -> None:
    rig = Rig.make(voters(1, 2, 3, 4, 5)).lead(2, 3)

    rig.step(ReadRequest(3, 1, rig.term, 9))
    rig.step(ReadRequest(3, 1, rig.term, 9))
    numbers = rounds(rig)
    assert len(numbers) == 1

    rig.beat(2, numbers[0])
    assert len(rig.take(ReadReply)) == 1


def test_a_request_without_an_answer_is_repeated() -> None:
    rig = Rig.make()
    rig.step(Heartbeat(2, 1, 4, 0, 0))
    rig.raft.read_index(9)
    rig.take(ReadRequest)

    rig.tick(3)
    assert not rig.take(ReadRequest)
    rig.tick()
    assert rig.take(ReadRequest) == [ReadRequest(1, 2, 4, 9)]


def test_who_does_not_lead_cannot_tell_and_is_asked_again() -> None:
    rig = Rig.make()
    rig.step(Heartbeat(2, 1, 4, 0, 0), ReadRequest(3, 1, 4, 5))
    assert rig.take(ReadReply) == [ReadReply(1, 3, 4, 5, 0)]

    rig.raft.read_index(9)
    rig.step(ReadReply(2, 1, 4, 9, 0))
    assert not rig.reads
    assert not rig.lost_reads


def test_rounds_wait_for_a_leader_to_be_known() -> None:
    rig = Rig.make()
    rig.raft.read_index(9)
    assert not rig.take(ReadRequest)

    rig.step(Heartbeat(2, 1, 4, 0, 0))

    assert rig.take(ReadRequest) == [ReadRequest(1, 2, 4, 9)]


def test_rounds_asked_of_a_leader_that_is_gone_are_lost() -> None:
    rig = Rig.make()
    rig.step(Heartbeat(2, 1, 4, 0, 0))
    rig.raft.read_index(9)

    rig.step(Heartbeat(3, 1, 5, 0, 0))

    assert rig.lost_reads == [9]
    rig.step(ReadReply(2, 1, 5, 9, 1))
    assert not rig.reads


def test_rounds_that_waited_are_confirmed_when_this_member_leads() -> None:
    rig = Rig.make()
    rig.raft.read_index(9)

    rig.lead(2)
    rig.drain()
    assert rig.role is Role.LEADER
    rig.beat(2, 1)

    assert rig.reads == [(9, 1)]
