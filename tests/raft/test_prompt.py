"""Campaigns that do not wait for the election timeout (S10)."""

from __future__ import annotations

import pytest

from coord.protocol.messages import Heartbeat, VoteReply, VoteRequest
from coord.raft.options import RaftOptions
from coord.types import Role

from .rig import Rig, voters


def following(member: int, leader: int, configuration_of: int = 5) -> Rig:
    """Return a member of five that hears a leader in term 1, all links standing."""
    members = range(1, configuration_of + 1)
    rig = Rig.make(voters(*members), terms=[1], member=member)
    for other in members:
        if other != member:
            rig.raft.link_up(other)
    rig.step(Heartbeat(leader, member, 1, 0, 0))
    rig.sent.clear()
    return rig


def test_a_refused_port_makes_the_leader_forgotten_and_pre_votes_granted() -> None:
    rig = following(3, leader=1)

    rig.raft.link_broken(1, True)

    assert rig.raft.leader_id == 0
    rig.step(VoteRequest(2, 3, 2, 1, 1, is_pre=True))
    assert [reply.refusal for reply in rig.take(VoteReply)] == [""]


def test_a_link_that_breaks_under_a_living_leader_changes_nothing() -> None:
    """A middlebox that resets idle links would otherwise change the leader each time."""
    rig = following(3, leader=1)

    rig.raft.link_broken(1, False)
    rig.raft.link_up(1)
    rig.raft.link_broken(2, True)
    rig.tick(5)

    assert rig.raft.leader_id == 1
    assert rig.role is Role.FOLLOWER
    rig.step(VoteRequest(2, 3, 2, 1, 1, is_pre=True))
    assert rig.take(VoteReply)[0].refusal


@pytest.mark.parametrize(("member", "leader", "ticks"), [(2, 1, 0), (3, 1, 1), (5, 1, 3), (1, 5, 0), (4, 2, 2)])
def test_the_rank_is_the_place_among_the_voters_that_are_left(member: int, leader: int, ticks: int) -> None:
    rig = following(member, leader)

    rig.raft.link_broken(leader, True)
    for _ in range(ticks):
        assert rig.role is Role.FOLLOWER
        rig.tick()

    assert rig.role is Role.PRE_CANDIDATE
    assert {request.to for request in rig.take(VoteRequest)} == {1, 2, 3, 4, 5} - {member}


def test_who_gives_its_vote_stands_back() -> None:
    rig = following(3, leader=1)
    rig.raft.link_broken(1, True)

    rig.step(VoteRequest(2, 3, 2, 1, 1))
    rig.tick(9)

    assert rig.role is Role.FOLLOWER


def test_who_hears_a_leader_stands_back() -> None:
    rig = following(3, leader=1)
    rig.raft.link_broken(1, True)

    rig.step(Heartbeat(1, 3, 1, 0, 0))
    rig.tick(9)

    assert rig.raft.leader_id == 1
    assert rig.role is Role.FOLLOWER


def test_a_split_is_seen_at_once_and_repeated_once() -> None:
    """The dead leader answers nobody: two votes of three others' are no majority of five."""
    rig = following(2, leader=1)
    rig.raft.link_broken(1, True)
    rig.step(VoteReply(3, 2, 1, True, "no"), VoteReply(4, 2, 1, True, "no"))
    assert rig.role is Role.FOLLOWER
    assert rig.noted("raft.election.lost")

    rig.tick()
    assert rig.role is Role.FOLLOWER
    rig.tick()
    assert rig.role is Role.PRE_CANDIDATE
    rig.step(VoteReply(3, 2, 1, True, "no"), VoteReply(4, 2, 1, True, "no"))

    rig.tick(7)
    assert rig.role is Role.FOLLOWER


def test_those_who_split_the_votes_are_kept_apart_when_they_repeat() -> None:
    """Each began when its rank was due, and that was the same moment, as one had learned of the death later."""
    options = RaftOptions(heartbeat_ticks=5, election_ticks=50, rank_ticks=2)
    repeated: list[int] = []
    for member, rank in ((2, 0), (3, 1), (4, 2)):
        rig = Rig.make(voters(1, 2, 3, 4, 5), member=member, options=options)
        rig.step(Heartbeat(1, member, 1, 0, 0))
        rig.raft.link_broken(1, True)
        rig.tick(2 * rank)
        for other in {2, 3, 4, 5} - {member}:
            rig.step(VoteReply(other, member, 1, True, "no"))
        assert rig.role is Role.FOLLOWER
        ticks = 0
        while rig.role is Role.FOLLOWER:
            rig.tick()
            ticks += 1
        repeated.append(ticks)

    # S10: within 50 to 150 ms of ticks of 20.
    assert repeated == [3, 5, 7]


def test_votes_that_are_out_are_not_thrown_away_by_the_repetition() -> None:
    rig = following(2, leader=1)
    rig.raft.link_broken(1, True)
    rig.step(VoteReply(3, 2, 2, True), VoteReply(4, 2, 2, True))
    assert rig.role is Role.CANDIDATE

    rig.tick(8)

    assert (rig.role, rig.term) == (Role.CANDIDATE, 2)


def test_a_split_of_real_votes_is_repeated_after_a_while() -> None:
    """At once, both candidates would only split the votes again."""
    rig = following(2, leader=1)
    rig.raft.link_broken(1, True)
    rig.step(VoteReply(3, 2, 2, True), VoteReply(4, 2, 2, True))
    rig.sync()
    rig.tick(3)

    rig.step(VoteReply(3, 2, 2, False, "no"), VoteReply(4, 2, 2, False, "no"))
    assert rig.role is Role.FOLLOWER
    rig.tick()
    assert rig.role is Role.FOLLOWER
    rig.tick()
    assert rig.role is Role.PRE_CANDIDATE


def test_a_pre_vote_whose_answer_was_lost_leaves_its_repetition_to_a_split() -> None:
    """Two of three meet, the third is not there, and each votes for itself: they do not wait for a timeout."""
    rig = Rig.make()
    rig.raft.link_up(2)
    assert rig.role is Role.PRE_CANDIDATE
    rig.take(VoteRequest)
    rig.tick(2)
    assert rig.take(VoteRequest), "the link from there may not have stood yet"
    rig.step(VoteReply(2, 1, 1, True))
    rig.sync()
    assert (rig.role, rig.term) == (Role.CANDIDATE, 1)
    rig.tick(5)
    assert (rig.role, rig.term) == (Role.CANDIDATE, 1), "its vote may be on the way"
    rig.step(VoteReply(2, 1, 1, False, "it voted for itself"))
    rig.tick(2)
    assert rig.role is Role.PRE_CANDIDATE
    rig.step(VoteReply(2, 1, 2, True))
    rig.sync()
    assert (rig.role, rig.term) == (Role.CANDIDATE, 2)


def test_one_such_campaign_a_term() -> None:
    rig = following(2, leader=1)
    rig.raft.link_broken(1, True)
    rig.step(Heartbeat(1, 2, 1, 0, 0))

    rig.raft.link_broken(1, True)
    rig.tick(5)

    assert rig.raft.leader_id == 0
    assert rig.role is Role.FOLLOWER


def test_the_unreachable_leader_counts_again_in_a_normal_campaign() -> None:
    """It may be back, and its links to this member one-way."""
    rig = following(2, leader=1, configuration_of=2)
    rig.raft.link_broken(1, True)
    assert rig.role is Role.FOLLOWER

    rig.tick(30)
    assert rig.role is Role.PRE_CANDIDATE
    rig.step(VoteReply(1, 2, 2, True))
    assert rig.role is Role.CANDIDATE


def test_learners_and_blank_members_have_no_campaign() -> None:
    for configuration in (voters(2, 3, learners=[1]), voters(1, 2, 3, blank=[1])):
        rig = Rig.make(configuration, terms=[1])
        rig.step(Heartbeat(2, 1, 1, 0, 0))
        rig.raft.link_up(3)

        rig.raft.link_broken(2, True)
        rig.tick(5)

        assert rig.raft.leader_id == 0
        assert not rig.take(VoteRequest)


def test_a_link_that_makes_a_quorum_starts_a_pre_vote() -> None:
    rig = Rig.make(voters(1, 2, 3, 4, 5))

    rig.raft.link_up(2)
    assert not rig.take(VoteRequest)

    rig.raft.link_up(4)
    assert rig.role is Role.PRE_CANDIDATE
    assert len(rig.take(VoteRequest)) == 4


def test_a_candidate_that_waits_alone_asks_again_when_somebody_comes() -> None:
    """The first of three nodes has been trying for long when the second arrives."""
    rig = Rig.make(member=2)
    rig.tick(11)
    assert rig.role is Role.PRE_CANDIDATE
    rig.take(VoteRequest)

    rig.raft.link_up(1)
    rig.tick()

    assert [request.to for request in rig.take(VoteRequest)] == [1, 3]


def test_a_link_under_a_leader_starts_nothing() -> None:
    rig = Rig.make(terms=[1])
    rig.step(Heartbeat(2, 1, 1, 0, 0))

    rig.raft.link_up(2)
    rig.raft.link_up(3)
    rig.tick(5)

    assert rig.role is Role.FOLLOWER


def test_a_vote_is_asked_for_again_over_a_link_that_comes_back() -> None:
    rig = Rig.make(terms=[1])
    rig.tick(10)
    rig.step(VoteReply(2, 1, 2, True))
    rig.sync()
    rig.take(VoteRequest)

    rig.raft.link_up(3)
    rig.sync()

    assert [(request.to, request.is_pre) for request in rig.take(VoteRequest)] == [(3, False)]


def test_a_prompt_campaign_waits_for_what_is_committed() -> None:
    """S12."""
    rig = following(2, leader=1)
    rig.step(Heartbeat(1, 2, 1, 1, 0))
    rig.raft.link_broken(1, True)
    assert rig.role is Role.FOLLOWER

    rig.apply()
    rig.tick()

    assert rig.role is Role.PRE_CANDIDATE
