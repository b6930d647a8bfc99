"""Leadership transfer, one rule a test: thesis §3.10; S12."""

from __future__ import annotations

import pytest

from coord.protocol.messages import Append, AppendReply, CampaignNow, Heartbeat, VoteReply, VoteRequest
from coord.raft.types import HardState
from coord.types import Role

from .rig import Rig, voters


def test_who_is_as_far_is_told_at_once() -> None:
    rig = Rig.make().lead(2, 3)

    assert rig.raft.transfer(3) == 3

    assert rig.take(CampaignNow) == [CampaignNow(1, 3, 1)]


def test_who_is_behind_is_brought_up_to_date_first() -> None:
    rig = Rig.make().lead(2, 3)
    rig.raft.propose(b"a")
    rig.sync()

    rig.raft.transfer(3)
    assert not rig.take(CampaignNow)

    rig.ack(3)
    assert rig.take(CampaignNow) == [CampaignNow(1, 3, 1)]


def test_the_core_chooses_who_is_furthest_among_those_heard() -> None:
    rig = Rig.make(voters(1, 2, 3, 4, learners=[5], blank=[4])).lead(2, 3)
    rig.raft.propose(b"a")
    rig.sync()
    for member in (3, 4, 5):
        rig.ack(member)

    assert rig.raft.transfer() == 3


def test_who_was_not_heard_lately_is_not_chosen() -> None:
    rig = Rig.make().lead(2, 3)
    rig.tick(4)
    rig.beat(2)

    assert rig.raft.transfer() == 2


def test_nobody_to_hand_over_to() -> None:
    rig = Rig.make().lead(2, 3)
    rig.tick(5)

    assert rig.raft.transfer() == 0
    assert rig.raft.propose(b"x") is not None
    assert rig.noted("raft.transfer.failed")


@pytest.mark.parametrize("to", [1, 4, 5, 9])
def test_learners_blank_members_and_strangers_cannot_take_over(to: int) -> None:
    rig = Rig.make(voters(1, 2, 3, 4, learners=[5], blank=[4])).lead(2, 3)

    assert rig.raft.transfer(to) == 0


def test_nothing_is_proposed_meanwhile_and_it_ends_in_time() -> None:
    rig = Rig.make().lead(2, 3)
    rig.raft.transfer(3)
    assert rig.raft.propose(b"x") is None

    for _ in range(5):
        rig.tick(2)
        rig.beat(2)

    assert rig.role is Role.LEADER
    assert rig.raft.propose(b"x") is not None


def test_a_transfer_that_succeeds_ends_the_leadership() -> None:
    rig = Rig.make().lead(2, 3)
    rig.raft.transfer(3)

    rig.step(VoteRequest(3, 1, 2, 1, 1, is_transfer=True))
    rig.sync()

    assert rig.role is Role.FOLLOWER
    assert VoteReply(1, 3, 2, False) in rig.take(VoteReply)
    assert [fields["to"] for fields in rig.noted("raft.transfer.finished")] == [3]


def test_who_is_told_campaigns_without_asking_first() -> None:
    rig = Rig.make(terms=[1])
    rig.step(Heartbeat(2, 1, 1, 0, 0))

    rig.step(CampaignNow(2, 1, 1))
    rig.sync()

    assert rig.role is Role.CANDIDATE
    assert {(request.term, request.is_pre, request.is_transfer) for request in rig.take(VoteRequest)} == {
        (2, False, True)
    }


def test_who_is_told_first_applies_what_is_committed() -> None:
    """S12: it takes a moment, and is no reason to refuse."""
    rig = Rig.make(terms=[1], state=HardState(1, 0, 1))
    rig.step(Heartbeat(2, 1, 1, 0, 0))

    rig.step(CampaignNow(2, 1, 1))
    assert rig.role is Role.FOLLOWER
    assert not rig.take(VoteReply)

    rig.apply()
    assert rig.role is Role.CANDIDATE


def test_who_stops_says_so_and_another_is_told() -> None:
    """S12: the leader cannot know by itself who is stopping."""
    stopping = Rig.make(terms=[1], member=3)
    stopping.raft.stand_back()
    stopping.step(CampaignNow(1, 3, 1))
    refusal = stopping.take(VoteReply)[0]
    assert refusal.refusal == "the node is stopping"

    rig = Rig.make(voters(1, 2, 3)).lead(2, 3)
    rig.raft.propose(b"a")
    rig.sync()
    rig.ack(3)
    rig.ack(2, 1)
    assert rig.raft.transfer() == 3
    assert rig.take(CampaignNow)

    rig.step(refusal)
    rig.ack(2)
    assert [message.to for message in rig.take(CampaignNow)] == [2]


def test_a_refusal_ends_a_transfer_to_a_named_member() -> None:
    rig = Rig.make().lead(2, 3)
    rig.raft.transfer(3)

    rig.step(VoteReply(3, 1, 1, False, "the node is stopping"))

    assert rig.raft.propose(b"x") is not None


def test_followers_hand_nothing_over() -> None:
    rig = Rig.make()

    assert rig.raft.transfer(2) == 0


def test_the_call_is_repeated_while_the_next_leader_is_heard() -> None:
    rig = Rig.make().lead(2, 3)
    rig.raft.transfer(3)
    rig.take(CampaignNow)

    rig.beat(3)

    assert rig.take(CampaignNow) == [CampaignNow(1, 3, 1)]


def test_reads_and_commits_go_on() -> None:
    rig = Rig.make().lead(2, 3)
    rig.raft.propose(b"a")
    rig.raft.transfer(3)
    rig.sync()
    assert [append.to for append in rig.take(Append)] == [2, 3]

    rig.step(AppendReply(2, 1, 1, 2))

    assert rig.raft.log.committed == 2
