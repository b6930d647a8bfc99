"""Snapshots, one rule a test: thesis §5; S6."""

from __future__ import annotations

from coord.protocol.messages import Append, AppendReply, CampaignNow, Heartbeat, SnapshotReceived, VoteRequest
from coord.raft.types import HardState
from coord.types import Role

from .rig import Rig, voters


def leader_without_its_start() -> Rig:
    """Return a leader whose log begins at 4; member 3 holds nothing of it."""
    rig = Rig.make(terms=[1, 1, 1, 1]).lead(2)
    rig.raft.log.release(4)
    return rig


def behind() -> Rig:
    """Return a follower of 2 in term 3, with entries 1 and 2 of term 1, of which the first is applied."""
    rig = Rig.make(terms=[1, 1], state=HardState(1, 0, 1))
    rig.step(Heartbeat(2, 1, 3, 1, 0))
    rig.apply()
    rig.sync()
    rig.sent.clear()
    return rig


def test_who_needs_what_has_left_the_log_needs_a_snapshot() -> None:
    rig = leader_without_its_start()

    rig.step(AppendReply(3, 1, 2, 4, is_rejected=True, hint_index=0))

    assert rig.snapshots_wanted == [3]
    assert rig.raft.progress()[3] == (0, True, "snapshot")
    rig.raft.propose(b"x")
    rig.beat(3)
    assert not [append for append in rig.take(Append) if append.to == 3]


def test_nobody_wants_a_snapshot_for_who_is_not_there() -> None:
    rig = leader_without_its_start()
    for _ in range(5):
        rig.tick(2)
        rig.beat(2)
    rig.raft.link_up(3)
    rig.step(AppendReply(3, 1, 2, 4, is_rejected=True, hint_index=0))
    assert rig.snapshots_wanted == [3]
    rig.raft.snapshot_failed(3)
    for _ in range(6):
        rig.tick(2)
        rig.beat(2)
    rig.raft.link_up(3)
    rig.drain()
    assert rig.snapshots_wanted == [3]

    rig.beat(3)
    assert rig.snapshots_wanted == [3, 3]


def test_after_the_snapshot_entries_follow() -> None:
    for is_told_first in (True, False):
        rig = leader_without_its_start()
        rig.step(AppendReply(3, 1, 2, 4, is_rejected=True, hint_index=0))
        rig.raft.propose(b"x")
        rig.sync()
        rig.take(Append)

        if is_told_first:
            rig.raft.snapshot_sent(3, 5)
            assert not [append for append in rig.take(Append) if append.to == 3]
        rig.ack(3, 5)
        rig.raft.snapshot_sent(3, 5)

        appends = [append for append in rig.take(Append) if append.to == 3]
        assert [(append.previous_index, len(append.entries)) for append in appends] == [(5, 1)]


def test_a_snapshot_that_failed_is_wanted_again_when_the_member_is_heard() -> None:
    rig = leader_without_its_start()
    rig.step(AppendReply(3, 1, 2, 4, is_rejected=True, hint_index=0))

    rig.raft.snapshot_failed(3)
    rig.drain()
    assert rig.snapshots_wanted == [3]

    rig.beat(3)
    assert rig.snapshots_wanted == [3, 3]


def test_a_snapshot_takes_the_place_of_the_log() -> None:
    rig = behind()

    assert rig.raft.install(SnapshotReceived(2, 1, 3, 9, 2))

    log = rig.raft.log
    assert (log.base_index, log.base_term, log.last_index, log.committed) == (9, 2, 9, 9)
    rig.sync()
    assert not rig.take(AppendReply)

    rig.raft.installed(voters(1, 2, 3, 4))
    rig.sync()
    assert log.applied == 9
    assert rig.take(AppendReply) == [AppendReply(1, 2, 3, 9)]
    assert rig.raft.configuration == voters(1, 2, 3, 4)


def test_nothing_of_another_log_stays() -> None:
    """ScyllaDB #9551 kept the entries behind the snapshot."""
    rig = Rig.make(terms=[1, 1, 1, 1, 1])
    rig.step(Heartbeat(2, 1, 3, 0, 0))

    assert rig.raft.install(SnapshotReceived(2, 1, 3, 3, 2))

    assert rig.raft.log.last_index == 3
    assert rig.raft.log.last_term == 2


def test_a_log_that_holds_the_snapshot_stays_and_needs_no_file() -> None:
    rig = Rig.make(terms=[1, 2, 2])
    rig.step(Heartbeat(2, 1, 3, 0, 0))

    assert not rig.raft.install(SnapshotReceived(2, 1, 3, 2, 2))

    rig.sync()
    assert rig.raft.log.last_index == 3
    assert [entry[0] for entry in rig.committed] == [1, 2]
    assert rig.take(AppendReply) == [AppendReply(1, 2, 3, 2)]


def test_a_snapshot_below_the_commit_is_ignored() -> None:
    rig = behind()

    assert not rig.raft.install(SnapshotReceived(2, 1, 3, 1, 1))

    assert rig.raft.log.last_index == 2
    rig.sync()
    assert rig.take(AppendReply) == [AppendReply(1, 2, 3, 1)]


def test_a_snapshot_of_an_earlier_leader_serves() -> None:
    """It is of committed entries, whoever sent it."""
    rig = behind()

    assert rig.raft.install(SnapshotReceived(3, 1, 2, 9, 2))
    rig.raft.installed(voters(1, 2, 3))
    rig.sync()

    assert rig.take(AppendReply) == [AppendReply(1, 2, 3, 9)]


def test_a_snapshot_of_a_later_leader_makes_it_known() -> None:
    rig = behind()

    assert rig.raft.install(SnapshotReceived(3, 1, 7, 9, 2))
    rig.raft.installed(voters(1, 2, 3))
    rig.sync()

    assert (rig.term, rig.raft.leader_id) == (7, 3)
    assert rig.take(AppendReply) == [AppendReply(1, 3, 7, 9)]


def test_a_leader_installs_nothing() -> None:
    rig = Rig.make(terms=[1]).lead(2)

    assert not rig.raft.install(SnapshotReceived(3, 1, 1, 99, 1))
    assert rig.role is Role.LEADER


def test_no_entries_and_no_campaign_while_it_is_installed() -> None:
    rig = behind()
    rig.raft.install(SnapshotReceived(2, 1, 3, 9, 2))

    rig.step(Append(2, 1, 3, 9, 2, 10, [(10, 3, b"x")]), CampaignNow(2, 1, 3))
    rig.tick(50)
    rig.sync()

    assert rig.role is Role.FOLLOWER
    assert not rig.take(AppendReply)
    assert not rig.take(VoteRequest)
    assert rig.raft.log.last_index == 9


def test_no_campaign_even_if_the_state_machine_is_as_far() -> None:
    rig = behind()
    rig.raft.install(SnapshotReceived(2, 1, 3, 9, 2))
    rig.raft.applied(9)

    rig.tick(50)

    assert rig.role is Role.FOLLOWER


def test_a_completion_of_before_the_snapshot_counts_for_nothing() -> None:
    rig = behind()
    rig.raft.install(SnapshotReceived(2, 1, 3, 9, 2))
    rig.raft.installed(voters(1, 2, 3))
    rig.step(Append(2, 1, 3, 9, 2, 9, [(10, 3, b"x")]))

    rig.raft.persisted(1, 2, HardState(3, 0, 1))

    assert rig.raft.log.persisted_index == 9
