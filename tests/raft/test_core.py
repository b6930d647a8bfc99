"""The rules of a lone voter; each test is one sentence of SAFETY or the thesis."""

from __future__ import annotations

import pytest

from coord.raft.core import Raft, Ready
from coord.raft.log import RaftLog
from coord.raft.options import RaftOptions
from coord.raft.types import Configuration, HardState
from coord.types import Role

NOOP = b"noop"
OPTIONS = RaftOptions(heartbeat_ticks=2, election_ticks=10)


def make(log: RaftLog | None = None, state: HardState | None = None) -> Raft:
    lone = Configuration(frozenset((7,)))
    return Raft(7, OPTIONS, log or RaftLog(), state or HardState(), lone, NOOP, lambda limit: 0)


def take(raft: Raft) -> Ready:
    ready = raft.ready()
    assert ready is not None
    return ready


def lead(raft: Raft) -> Ready:
    """Campaign, make the vote durable, and return the Ready with the no-op."""
    raft.campaign("test")
    raft.persisted(*last(raft), take(raft).hard_state or HardState())
    return take(raft)


def last(raft: Raft) -> tuple[int, int]:
    return raft.log.last_term, raft.log.last_index


def test_own_vote_counts_only_when_it_is_durable() -> None:
    raft = make()

    raft.campaign("test")
    ready = take(raft)

    assert ready.hard_state == HardState(1, 7, 0)
    assert raft.role is Role.CANDIDATE
    assert raft.propose(b"x") is None

    raft.persisted(0, 0, HardState(1, 7, 0))

    assert raft.role is Role.LEADER


def test_vote_of_an_older_term_does_not_elect() -> None:
    raft = make(state=HardState(4, 7, 0))

    raft.campaign("test")
    raft.persisted(0, 0, HardState(4, 7, 0))

    assert raft.role is Role.CANDIDATE


def test_leader_starts_with_a_noop_of_its_term() -> None:
    raft = make()

    ready = lead(raft)

    assert list(ready.entries) == [(1, 1, NOOP)]
    assert not ready.committed


def test_entry_commits_only_after_the_own_disk_has_it() -> None:
    """etcd #14370: a lone member acknowledged what it had not yet synced."""
    raft = make()
    lead(raft)
    term, index = raft.propose(b"x") or (0, 0)
    take(raft)

    assert raft.log.committed == 0

    raft.persisted(term, index, raft.state_to_save())

    assert list(take(raft).committed) == [(1, 1, NOOP), (2, 1, b"x")]


def test_completion_of_an_overwritten_entry_counts_for_nothing() -> None:
    """The async-append ABA: the disk tells of (term 1, index 1) when another entry stands there."""
    raft = make(state=HardState(5, 0, 0))
    lead(raft)
    assert raft.log.term_at(1) == 6

    raft.persisted(1, 1, raft.hard_state)

    assert raft.log.persisted_index == 0
    assert raft.log.committed == 0


def test_entries_of_earlier_terms_commit_only_with_one_of_the_own() -> None:
    """Thesis §3.6.2, figure 3.7."""
    log = RaftLog()
    log.append((1, 3, b"old"))
    raft = make(log, HardState(3, 7, 0))

    raft.campaign("test")
    state = take(raft).hard_state
    assert state is not None
    raft.persisted(3, 1, state)
    assert raft.role is Role.LEADER
    assert raft.log.persisted_index == 1
    assert raft.log.committed == 0

    take(raft)
    raft.persisted(4, 2, raft.state_to_save())

    assert [entry[0] for entry in take(raft).committed] == [1, 2]


def test_reads_wait_for_a_commit_in_the_own_term() -> None:
    raft = make()
    lead(raft)

    raft.read_index(1)
    assert raft.ready() is None
    assert not raft.is_ready_to_read

    raft.persisted(1, 1, raft.state_to_save())
    ready = take(raft)

    assert list(ready.reads) == [(1, 1)]
    raft.read_index(2)
    assert list(take(raft).reads) == [(2, 1)]


def test_each_entry_is_handed_out_once() -> None:
    raft = make()
    lead(raft)
    raft.propose(b"a")
    assert [entry[2] for entry in take(raft).entries] == [b"a"]
    raft.propose(b"b")
    raft.persisted(1, 2, raft.state_to_save())

    ready = take(raft)

    assert [entry[2] for entry in ready.entries] == [b"b"]
    assert [entry[2] for entry in ready.committed] == [NOOP, b"a"]
    assert raft.ready() is None


def test_ticks_without_a_leader_start_a_campaign() -> None:
    raft = make()
    for _ in range(9):
        raft.tick()
    assert raft.role is Role.FOLLOWER

    raft.tick()

    assert raft.role is Role.CANDIDATE


def test_restart_remembers_commit_cut_to_the_last_recovered_entry() -> None:
    """S12."""
    log = RaftLog()
    log.append((1, 1, b"a"))
    log.append((2, 1, b"b"))

    assert make(log, HardState(1, 7, 1)).log.committed == 1
    assert make(log, HardState(1, 7, 9)).log.committed == 2


def test_no_campaign_before_committed_entries_are_applied() -> None:
    """S12: one of them may be a configuration in which this member is no voter."""
    log = RaftLog()
    log.append((1, 1, b"a"))
    raft = make(log, HardState(1, 7, 1))

    raft.campaign("test")
    assert raft.role is Role.FOLLOWER

    assert list(take(raft).committed) == [(1, 1, b"a")]
    raft.applied(1)
    raft.campaign("test")
    assert raft.role is Role.CANDIDATE


def test_log_releases_only_what_is_applied_and_persisted() -> None:
    log = RaftLog()
    for index in range(1, 6):
        log.append((index, 1, bytes(index)))
    log.persisted_index = 4
    log.committed = log.applied = 3

    log.release(3)

    assert (log.base_index, log.base_term, log.last_index, log.size_bytes) == (3, 1, 5, 9)
    assert [entry[0] for entry in log.slice(4, 5)] == [4, 5]
    with pytest.raises(AssertionError):
        log.release(4)


def test_every_batch_carries_the_newest_commit() -> None:
    """S5: the commit index known when the batch was built."""
    raft = make()
    lead(raft)
    raft.persisted(1, 1, raft.state_to_save())

    assert raft.state_to_save() == HardState(1, 7, 1)


def test_a_disk_slower_than_the_election_timeout_still_elects() -> None:
    """A new term at each timeout would make every vote that reaches the disk one of an older term."""
    raft = make()
    raft.campaign("test")
    state = take(raft).hard_state
    assert state is not None

    for _ in range(50):
        raft.tick()
    raft.persisted(0, 0, state)

    assert raft.role is Role.LEADER
    assert raft.term == 1
