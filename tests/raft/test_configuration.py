"""Changes of the configuration, one rule a test: thesis §4; S12."""

from __future__ import annotations

from coord.protocol.messages import Append, AppendReply, CampaignNow, Heartbeat, VoteRequest
from coord.raft.types import HardState
from coord.types import Role

from .rig import Rig, voters


def test_one_change_at_a_time() -> None:
    rig = Rig.make().lead(2, 3)

    assert rig.raft.propose_configuration(b"one") == (1, 2)
    assert rig.raft.propose_configuration(b"two") is None
    rig.sync()
    rig.ack(2)
    assert rig.raft.log.committed == 2
    assert rig.raft.propose_configuration(b"two") is None

    rig.apply()
    assert rig.raft.propose_configuration(b"two") == (1, 3)


def test_no_change_before_a_commit_in_the_own_term() -> None:
    """The bug of single-server changes (Ongaro 2015)."""
    rig = Rig.make(terms=[1], state=HardState(1, 0, 1))
    rig.apply()
    rig.win(2)

    assert rig.raft.propose_configuration(b"x") is None
    assert rig.noted("raft.configuration.refused")


def test_what_a_new_leader_finds_may_hold_a_change() -> None:
    rig = Rig.make(terms=[1, 1, 1]).win(2)
    rig.ack(2)
    rig.raft.applied(2)
    assert rig.raft.propose_configuration(b"x") is None

    rig.apply()
    assert rig.raft.propose_configuration(b"x") is not None


def test_a_new_member_is_fed_and_a_removed_one_is_not() -> None:
    rig = Rig.make().lead(2, 3)

    rig.raft.apply_configuration(voters(1, 2, 4))

    assert {append.to for append in rig.take(Append)} == {4}
    assert set(rig.raft.progress()) == {2, 4}
    rig.step(AppendReply(3, 1, 1, 1))


def test_a_smaller_quorum_commits_what_it_holds() -> None:
    rig = Rig.make(voters(1, 2, 3, 4, 5)).lead(2, 3)
    rig.raft.propose(b"a")
    rig.sync()
    rig.ack(2)
    assert rig.raft.log.committed == 1

    rig.raft.apply_configuration(voters(1, 2, 3))

    assert rig.raft.log.committed == 2


def test_what_a_blank_member_acknowledged_counts_for_nothing_once_it_is_published() -> None:
    """S1: another data directory may have said it."""
    rig = Rig.make(voters(1, 2, 3, blank=[3])).lead(2)
    rig.ack(2)
    rig.raft.propose(b"a")
    rig.sync()
    rig.ack(3)
    rig.take(Append)

    rig.raft.apply_configuration(voters(1, 2, 3))

    assert rig.raft.log.committed == 1
    assert rig.raft.match_of(3) == 0
    assert [append.previous_index for append in rig.take(Append) if append.to == 3] == [2]
    rig.ack(3)
    assert rig.raft.log.committed == 2


def test_a_commit_of_a_configuration_is_made_durable() -> None:
    """S12: a member that forgot it could win an election beside the new quorum."""
    rig = Rig.make(terms=[1])
    rig.step(Heartbeat(2, 1, 1, 1, 0))

    rig.raft.apply_configuration(voters(1, 2))
    ready = rig.raft.ready()

    assert ready is not None
    assert ready.hard_state == HardState(1, 0, 1)


def test_the_role_follows_the_configuration() -> None:
    rig = Rig.make(voters(2, 3, learners=[1]))
    assert rig.role is Role.LEARNER

    rig.raft.apply_configuration(voters(1, 2, 3))
    assert rig.role is Role.FOLLOWER

    rig.tick(10)
    rig.raft.apply_configuration(voters(2, 3, learners=[1]))
    assert rig.role is Role.LEARNER


def test_a_removed_leader_hands_over_before_it_steps_down() -> None:
    """Thesis §4.2.2, §3.10."""
    rig = Rig.make().lead(2, 3)
    rig.raft.propose(b"tail")
    rig.sync()

    rig.raft.apply_configuration(voters(2, 3))
    assert rig.role is Role.LEADER
    assert rig.raft.propose(b"x") is None
    assert not rig.take(CampaignNow)

    rig.ack(2)
    assert [call.to for call in rig.take(CampaignNow)] == [2]
    rig.step(VoteRequest(2, 1, 2, 2, 1, is_transfer=True))
    assert rig.role is Role.FOLLOWER


def test_a_removed_leader_steps_down_in_the_end() -> None:
    rig = Rig.make().lead(2, 3)
    rig.raft.apply_configuration(voters(2, 3))

    for _ in range(5):
        rig.beat(2)
        rig.beat(3)
        rig.tick(2)

    assert rig.role is Role.FOLLOWER
    rig.tick(50)
    assert rig.role is Role.FOLLOWER


def test_a_removed_leader_does_not_count_itself() -> None:
    rig = Rig.make().lead(2, 3)
    rig.raft.propose(b"tail")
    rig.raft.apply_configuration(voters(2, 3))
    rig.sync()

    rig.ack(2)
    assert rig.raft.log.committed == 1
    rig.ack(3)
    assert rig.raft.log.committed == 2


def test_a_leader_of_the_old_voters_leads_the_joint_configuration() -> None:
    rig = Rig.make().lead(2, 3)

    rig.raft.apply_configuration(voters(4, 5, outgoing=[1, 2, 3]))

    assert rig.role is Role.LEADER
    assert set(rig.raft.progress()) == {2, 3, 4, 5}


def test_a_transfer_to_a_removed_member_ends() -> None:
    rig = Rig.make().lead(2, 3)
    rig.raft.transfer(3)

    rig.raft.apply_configuration(voters(1, 2))

    assert rig.raft.propose(b"x") is not None
