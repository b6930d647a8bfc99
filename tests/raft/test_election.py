"""Elections, one rule a test: thesis §3.4, §3.6.1, §4.2.3, §9.6; S1, S12."""

from __future__ import annotations

from coord.protocol.messages import Append, AppendReply, Heartbeat, VoteReply, VoteRequest
from coord.raft.types import HardState
from coord.types import Role

from .rig import Rig, log_of, voters


def test_a_pre_vote_comes_first_and_raises_no_term() -> None:
    rig = Rig.make(terms=[1, 2])

    rig.tick(10)

    assert rig.role is Role.PRE_CANDIDATE
    assert rig.term == 2
    assert rig.take(VoteRequest) == [
        VoteRequest(1, 2, 3, 2, 2, is_pre=True),
        VoteRequest(1, 3, 3, 2, 2, is_pre=True),
    ]


def test_alone_of_three_the_term_does_not_run_away() -> None:
    """etcd's reached 62 without pre-votes."""
    rig = Rig.make(terms=[1])

    rig.tick(500)

    assert rig.term == 1
    assert rig.role is Role.PRE_CANDIDATE


def test_votes_are_asked_for_only_when_the_own_is_durable() -> None:
    """A crash could forget the term, and a shorter log then count the votes that the longer one was given."""
    rig = Rig.make(terms=[1])
    rig.tick(10)
    rig.take(VoteRequest)

    rig.step(VoteReply(2, 1, 2, True))
    assert rig.role is Role.CANDIDATE
    assert not rig.take(VoteRequest)

    rig.sync()
    assert [request.to for request in rig.take(VoteRequest)] == [2, 3]
    assert rig.role is Role.CANDIDATE


def test_a_quorum_of_votes_makes_a_leader() -> None:
    rig = Rig.make(terms=[1]).lead(2)

    assert rig.role is Role.LEADER
    assert rig.raft.leader_id == 1
    assert [fields["votes"] for fields in rig.noted("raft.election.won")] == [2]


def test_a_vote_counts_once() -> None:
    rig = Rig.make(voters(1, 2, 3, 4, 5))
    rig.tick(10)

    for _ in range(3):
        rig.step(VoteReply(2, 1, 1, True))

    assert rig.role is Role.PRE_CANDIDATE


def test_the_first_answer_of_a_voter_stands() -> None:
    rig = Rig.make()
    rig.tick(10)

    rig.step(VoteReply(2, 1, 0, True, "no"), VoteReply(2, 1, 1, True))

    assert rig.role is Role.PRE_CANDIDATE


def test_a_grant_is_for_the_term_that_was_asked_for() -> None:
    rig = Rig.make(terms=[5])
    rig.tick(10)

    rig.step(VoteReply(2, 1, 4, True), VoteReply(3, 1, 9, True))

    assert rig.role is Role.PRE_CANDIDATE


def test_only_voters_count() -> None:
    rig = Rig.make(voters(1, 2, 3, learners=[4]))
    rig.tick(10)

    rig.step(VoteReply(4, 1, 1, True), VoteReply(9, 1, 1, True))

    assert rig.role is Role.PRE_CANDIDATE


def test_a_joint_election_needs_both_majorities() -> None:
    """Thesis §4.3."""
    rig = Rig.make(voters(1, 2, 3, outgoing=[1, 4, 5]))
    rig.tick(10)

    rig.step(VoteReply(2, 1, 1, True), VoteReply(3, 1, 1, True))
    assert rig.role is Role.PRE_CANDIDATE

    rig.step(VoteReply(4, 1, 1, True))
    assert rig.role is Role.CANDIDATE


def test_refusals_of_a_quorum_end_a_campaign() -> None:
    rig = Rig.make()
    rig.tick(10)

    rig.step(VoteReply(2, 1, 0, True, "no"), VoteReply(3, 1, 0, True, "no"))

    assert rig.role is Role.FOLLOWER
    assert rig.noted("raft.election.lost")


def test_one_vote_a_term_and_it_waits_for_the_disk() -> None:
    rig = Rig.make(terms=[1])

    rig.step(VoteRequest(2, 1, 2, 1, 1), VoteRequest(3, 1, 2, 1, 1))

    assert [(reply.to, reply.refusal) for reply in rig.take(VoteReply)] == [(3, "it voted for 2 in this term")]
    assert rig.durable == [VoteReply(1, 2, 2, False)]
    assert rig.raft.state_to_save() == HardState(2, 2, 0)


def test_the_same_candidate_is_answered_again() -> None:
    rig = Rig.make(terms=[1])
    rig.step(VoteRequest(2, 1, 2, 1, 1))
    rig.sync()
    rig.take(VoteReply)

    rig.step(VoteRequest(2, 1, 2, 1, 1))
    rig.sync()

    assert rig.take(VoteReply) == [VoteReply(1, 2, 2, False)]


def test_a_log_that_is_behind_gets_no_vote() -> None:
    """Thesis §3.6.1: the later last term is ahead; in the same term the longer log."""
    rig = Rig.make(terms=[1, 2, 2])

    rig.step(VoteRequest(2, 1, 3, 2, 2, is_pre=True), VoteRequest(3, 1, 3, 9, 1, is_pre=True))
    assert all(reply.refusal for reply in rig.take(VoteReply))

    rig.step(VoteRequest(2, 1, 3, 3, 2, is_pre=True), VoteRequest(3, 1, 3, 1, 3, is_pre=True))
    assert [reply.refusal for reply in rig.take(VoteReply)] == ["", ""]


def test_a_pre_vote_binds_nobody() -> None:
    rig = Rig.make(terms=[1])

    rig.step(VoteRequest(2, 1, 2, 1, 1, is_pre=True), VoteRequest(3, 1, 2, 1, 1, is_pre=True))

    assert [reply.refusal for reply in rig.take(VoteReply)] == ["", ""]
    assert rig.raft.hard_state == HardState(1, 0, 0)


def test_who_hears_a_leader_refuses_others_and_keeps_its_term() -> None:
    """Thesis §4.2.3: a removed member, or one that was cut off, cannot unseat a leader."""
    rig = Rig.make(terms=[1])
    rig.step(Heartbeat(2, 1, 1, 0, 0))

    rig.step(VoteRequest(3, 1, 2, 5, 1, is_pre=True), VoteRequest(3, 1, 9, 5, 1))

    assert rig.term == 1
    assert {reply.refusal for reply in rig.take(VoteReply)} == {"it hears the leader 2"}

    rig.tick(9)
    rig.step(VoteRequest(3, 1, 2, 5, 1, is_pre=True))
    assert [reply.refusal for reply in rig.take(VoteReply)] == ["it hears the leader 2"]


def test_whom_the_leader_told_to_campaign_is_heard() -> None:
    rig = Rig.make(terms=[1])
    rig.step(Heartbeat(2, 1, 1, 0, 0))

    rig.step(VoteRequest(3, 1, 2, 1, 1, is_transfer=True))
    rig.sync()

    assert rig.take(VoteReply) == [VoteReply(1, 3, 2, False)]


def test_a_leader_refuses_pre_votes() -> None:
    rig = Rig.make(terms=[1]).lead(2)

    rig.step(VoteRequest(3, 1, 9, 9, 9, is_pre=True), VoteRequest(3, 1, 9, 9, 9))

    assert rig.role is Role.LEADER
    assert {reply.refusal for reply in rig.take(VoteReply)} == {"it leads"}


def test_a_leader_without_a_quorum_steps_down() -> None:
    """Thesis §6.2."""
    rig = Rig.make(terms=[1]).lead(2)

    rig.tick(8)
    assert rig.role is Role.LEADER
    rig.beat(3)
    rig.tick(8)
    assert rig.role is Role.LEADER

    rig.tick(2)
    assert rig.role is Role.FOLLOWER
    assert rig.raft.leader_id == 0
    assert rig.noted("raft.quorum.lost")[0]["heard"] == [1]


def test_learners_and_blank_voters_keep_no_leader_in_place() -> None:
    rig = Rig.make(voters(1, 2, 3, learners=[4], blank=[3]), terms=[1]).lead(2)

    for _ in range(10):
        rig.tick(2)
        if rig.role is Role.LEADER:
            rig.beat(3)
            rig.beat(4)

    assert rig.role is not Role.LEADER


def test_a_higher_term_ends_a_leadership() -> None:
    rig = Rig.make(terms=[1]).lead(2)

    rig.step(AppendReply(3, 1, 7, 0, is_rejected=True))

    assert (rig.role, rig.term, rig.raft.leader_id) == (Role.FOLLOWER, 7, 0)


def test_an_outdated_leader_is_told() -> None:
    """Cut off, it is the only one that does not know; unanswered, it would go on with its old term for ever."""
    rig = Rig.make(terms=[1, 5])

    rig.step(Append(2, 1, 4, 1, 1, 0, ()), Heartbeat(3, 1, 4, 0, 0))

    assert [(reply.term, reply.is_rejected) for reply in rig.take(AppendReply)] == [(5, True), (5, True)]


def test_a_refused_pre_vote_of_a_higher_term_is_followed() -> None:
    rig = Rig.make(terms=[1])
    rig.tick(10)

    rig.step(VoteReply(2, 1, 6, True, "its term is higher: 6"))

    assert (rig.role, rig.term) == (Role.FOLLOWER, 6)


def test_a_pre_vote_of_a_lower_term_is_told_the_higher() -> None:
    rig = Rig.make(terms=[1, 6])

    rig.step(VoteRequest(2, 1, 3, 9, 2, is_pre=True))

    assert [(reply.term, reply.refusal) for reply in rig.take(VoteReply)] == [(6, "its term is higher: 6")]


def test_blank_members_neither_vote_nor_campaign() -> None:
    """S1: they may have been wiped, and would not know what they had acknowledged."""
    rig = Rig.make(voters(1, 2, 3, blank=[1]))

    rig.step(VoteRequest(2, 1, 1, 9, 1, is_pre=True), VoteRequest(2, 1, 1, 9, 1))
    rig.sync()
    assert all(reply.refusal for reply in rig.take(VoteReply))

    rig.tick(50)
    assert rig.role is Role.FOLLOWER
    assert not rig.take(VoteRequest)


def test_the_vote_of_a_blank_member_is_not_counted() -> None:
    rig = Rig.make(voters(1, 2, 3, blank=[3]))
    rig.tick(10)

    rig.step(VoteReply(3, 1, 1, True))
    assert rig.role is Role.PRE_CANDIDATE

    rig.step(VoteReply(2, 1, 1, True))
    assert rig.role is Role.CANDIDATE


def test_learners_answer_candidates_and_never_are_one() -> None:
    """A candidate may know a later configuration, in which the learner votes."""
    rig = Rig.make(voters(2, 3, learners=[1]))
    assert rig.role is Role.LEARNER

    rig.tick(50)
    assert rig.role is Role.LEARNER

    rig.step(VoteRequest(2, 1, 1, 0, 0))
    rig.sync()
    assert rig.take(VoteReply) == [VoteReply(1, 2, 1, False)]


def test_committed_entries_are_applied_before_a_campaign() -> None:
    """S12, and it is said once."""
    rig = Rig.make(terms=[1], state=HardState(1, 0, 1))

    rig.tick(30)
    assert rig.role is Role.FOLLOWER
    assert len(rig.noted("raft.election.postponed")) == 1

    rig.apply()
    rig.tick()
    assert rig.role is Role.PRE_CANDIDATE


def test_a_candidate_with_a_slow_disk_keeps_its_term() -> None:
    rig = Rig.make()
    rig.tick(10)
    rig.step(VoteReply(2, 1, 1, True))

    rig.tick(100)

    assert (rig.role, rig.term) == (Role.CANDIDATE, 1)


def test_a_restarted_member_keeps_its_vote() -> None:
    rig = Rig.make(log=log_of(1), state=HardState(2, 3, 0))

    rig.step(VoteRequest(2, 1, 2, 9, 1))
    rig.sync()

    assert [reply.refusal for reply in rig.take(VoteReply)] == ["it voted for 3 in this term"]


def test_who_stops_does_not_campaign_but_votes() -> None:
    rig = Rig.make(terms=[1])
    rig.tick(10)
    rig.raft.stand_back()

    rig.tick(50)
    assert rig.role is Role.FOLLOWER

    rig.step(VoteRequest(2, 1, 2, 1, 1))
    rig.sync()
    assert VoteReply(1, 2, 2, False) in rig.take(VoteReply)
