"""Read rounds (ReadIndex), one rule a test: thesis §6.4; S8."""

from __future__ import annotations

from coord.protocol.messages import Heartbeat, ReadReply, ReadRequest
from coord.types import Role

from .rig import Rig, voters


def rounds(rig: Rig) -> list[int]:
    """Return the numbers of the heartbeats that went to member 2."""
    return [beat.round for beat in rig.take(Heartbeat) if beat.to == 2]


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


def test_a_lost_heartbeat_is_made_up_for_by_the_next() -> None:
    rig = Rig.make().lead(2)
    rig.raft.read_index(1)
    number = rounds(rig)[0]

    rig.tick(2)

    assert rounds(rig) == [number]


def test_no_round_before_a_commit_in_the_own_term() -> None:
    """etcd #7331: the commit index of a new leader may be old."""
    rig = Rig.make(terms=[1]).win(2)

    rig.raft.read_index(1)
    rig.beat(2, 5)
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


def test_a_leader_answers_a_follower_by_a_round_of_its_own() -> None:
    rig = Rig.make().lead(2)

    rig.step(ReadRequest(3, 1, rig.term, 9))
    number = rounds(rig)[0]
    assert not rig.take(ReadReply)

    rig.beat(2, number)
    assert rig.take(ReadReply) == [ReadReply(1, 3, rig.term, 9, 1)]


def test_a_repeated_request_is_one_round() -> None:
    rig = Rig.make().lead(2)

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
