"""Log replication, one rule a test: thesis §3.5, §3.6.2, §10.2; I7, S1, S12."""

from __future__ import annotations

import pytest
from attrs import evolve

from coord.protocol.messages import Append, AppendReply, Heartbeat, HeartbeatReply, ReadReply, ReadRequest
from coord.raft.types import HardState

from .rig import NOOP, OPTIONS, Rig, voters

# The follower's side.


def follow(*terms: int, term: int = 0) -> Rig:
    """Return member 1 with a log of these terms, following 2."""
    rig = Rig.make(terms=terms)
    rig.step(Heartbeat(2, 1, term or max(terms, default=1), 0, 0))
    rig.sync()
    rig.sent.clear()
    return rig


def test_an_acknowledgement_waits_for_the_disk() -> None:
    """I7; ZOOKEEPER-4646 acknowledged what was still queued."""
    rig = follow(1)

    rig.step(Append(2, 1, 1, 1, 1, 0, [(2, 1, b"a"), (3, 1, b"b")]))

    assert not rig.take(AppendReply)
    rig.sync()
    assert rig.take(AppendReply) == [AppendReply(1, 2, 1, 3)]


def test_an_acknowledgement_waits_for_the_term_too() -> None:
    rig = follow(1)

    rig.step(Append(2, 1, 2, 0, 0, 0, [(1, 1, b"1")]))

    assert not rig.take(AppendReply)
    rig.sync()
    assert rig.take(AppendReply) == [AppendReply(1, 2, 2, 1)]


def test_each_write_is_acknowledged_as_it_becomes_durable() -> None:
    rig = follow(1)
    rig.step(Append(2, 1, 1, 1, 1, 0, [(2, 1, b"a")]))
    rig.step(Append(2, 1, 1, 2, 1, 0, [(3, 1, b"b")]))

    rig.raft.persisted(1, 2, HardState(1, 0, 0))
    assert rig.take(AppendReply) == [AppendReply(1, 2, 1, 2)]
    assert not rig.take(AppendReply)
    rig.raft.persisted(1, 3, HardState(1, 0, 0))
    assert rig.take(AppendReply) == [AppendReply(1, 2, 1, 3)]
    assert not rig.take(AppendReply)


def test_what_gives_way_before_it_is_durable_is_never_acknowledged() -> None:
    rig = follow(1)
    rig.step(Append(2, 1, 1, 1, 1, 0, [(2, 1, b"a"), (3, 1, b"b")]))

    rig.step(Append(3, 1, 2, 1, 1, 0, [(2, 2, b"new")]))
    rig.sync()

    assert rig.take(AppendReply) == [AppendReply(1, 3, 2, 2)]


def test_an_acknowledgement_waits_for_a_leader_that_was_given_up() -> None:
    rig = follow(1)
    rig.step(Append(2, 1, 1, 1, 1, 0, [(2, 1, b"a")]))
    rig.raft.link_broken(2, True)
    rig.sync()
    assert not rig.take(AppendReply)

    rig.step(Heartbeat(2, 1, 1, 0, 0))

    assert rig.take(AppendReply) == [AppendReply(1, 2, 1, 2)]


def test_what_is_durable_is_acknowledged_at_once() -> None:
    rig = follow(1, 1)

    rig.step(Append(2, 1, 1, 0, 0, 0, [(1, 1, b"1"), (2, 1, b"2")]))

    assert rig.take(AppendReply) == [AppendReply(1, 2, 1, 2)]


def test_a_turn_has_one_acknowledgement() -> None:
    rig = follow(1)

    for index in (2, 3, 4):
        rig.raft.step(Append(2, 1, 1, index - 1, 1, 0, [(index, 1, b"x")]))
    rig.sync()

    assert rig.take(AppendReply) == [AppendReply(1, 2, 1, 4)]


def test_a_gap_is_refused_with_a_hint() -> None:
    rig = follow(1, 1, 4, 4, 4)

    rig.step(Append(2, 1, 6, 9, 5, 0, ()), Append(2, 1, 6, 5, 3, 0, ()))

    assert [(reply.index, reply.hint_index, reply.hint_term) for reply in rig.take(AppendReply)] == [
        (9, 5, 4),
        (5, 2, 1),
    ]


def test_a_conflict_gives_way_with_all_that_follows() -> None:
    """Thesis §3.5; ZOOKEEPER-1154 kept it."""
    rig = follow(1, 2, 2, 2)

    rig.step(Append(3, 1, 3, 1, 1, 0, [(2, 3, b"new")]))

    assert rig.raft.log.last_index == 2
    assert rig.raft.log.persisted_index == 1
    assert rig.written == [(2, 3, b"new")]


def test_what_agrees_stays() -> None:
    """A late append must not cut what came after it."""
    rig = follow(1, 1, 1)

    rig.step(Append(2, 1, 1, 0, 0, 0, [(1, 1, b"1")]))

    assert rig.raft.log.last_index == 3
    assert not rig.written


def test_an_append_below_the_commit_is_answered_with_the_commit() -> None:
    rig = follow(1, 1, 1)
    rig.step(Heartbeat(2, 1, 1, 2, 0))
    rig.take(AppendReply)

    rig.step(Append(2, 1, 1, 0, 0, 0, [(1, 1, b"1")]))

    assert rig.take(AppendReply) == [AppendReply(1, 2, 1, 2)]


def test_an_append_across_the_commit_is_taken_from_there() -> None:
    rig = follow(1, 1)
    rig.step(Heartbeat(2, 1, 1, 2, 0))

    rig.step(Append(2, 1, 1, 0, 0, 3, [(1, 1, b"1"), (2, 1, b"2"), (3, 1, b"3")]))

    assert rig.written == [(3, 1, b"3")]
    assert [entry[0] for entry in rig.committed] == [1, 2, 3]


def test_commit_goes_no_further_than_what_the_leader_has_shown() -> None:
    """Beyond it this log may differ from the leader's."""
    rig = follow(1, 1, 1)

    rig.step(Append(3, 1, 2, 1, 1, 3, ()))

    assert rig.raft.log.committed == 1


def test_a_notice_of_the_commit_is_not_answered() -> None:
    rig = follow(1)

    rig.step(Append(2, 1, 1, 1, 1, 1, ()))

    assert rig.raft.log.committed == 1
    rig.sync()
    assert not rig.take(AppendReply)


def test_an_append_that_asks_is_answered() -> None:
    rig = follow(1)

    rig.step(Append(2, 1, 1, 1, 1, 0, ()))

    assert rig.take(AppendReply) == [AppendReply(1, 2, 1, 1)]


def test_nothing_is_owed_to_a_leader_of_before() -> None:
    rig = follow(1)

    rig.raft.step(Append(2, 1, 1, 1, 1, 0, [(2, 1, b"a")]))
    rig.raft.step(Heartbeat(3, 1, 2, 0, 0))
    rig.sync()

    assert not rig.take(AppendReply)


def test_a_completion_of_before_a_replacement_counts_for_nothing() -> None:
    """The async-append ABA: terms 1, 2, 1 at one index, and the first write's completion comes last."""
    rig = follow(1)
    rig.step(Append(2, 1, 1, 1, 1, 0, [(2, 1, b"a")]))
    first = HardState(1, 0, 0)
    rig.step(Append(3, 1, 2, 1, 1, 0, [(2, 2, b"b")]))
    rig.step(Append(2, 1, 3, 1, 1, 0, [(2, 1, b"a")]))
    assert rig.raft.log.term_at(2) == 1

    rig.raft.persisted(1, 2, first)
    assert rig.raft.log.persisted_index == 1

    rig.raft.persisted(1, 2, HardState(3, 0, 0))
    assert rig.raft.log.persisted_index == 2


# The leader's side.


def test_a_new_leader_probes_with_its_noop() -> None:
    rig = Rig.make(terms=[1, 1])
    rig.lead(2)

    assert rig.raft.log.last_index == 3
    assert list(rig.raft.log.slice(3, 3)) == [(3, 2, NOOP)]
    assert rig.raft.progress() == {2: (3, True, "replicate"), 3: (0, True, "probe")}


def test_all_proposals_of_a_turn_share_one_append() -> None:
    rig = Rig.make().lead(2, 3)

    for data in (b"a", b"b", b"c"):
        rig.raft.propose(data)
    appends = rig.take(Append)

    assert [(append.to, len(append.entries)) for append in appends] == [(2, 3), (3, 3)]
    assert appends[0].entries is appends[1].entries


def test_what_was_sent_in_an_earlier_leadership_is_not_sent_again() -> None:
    """The same indices hold other entries now."""
    rig = Rig.make().lead(2, 3)
    for data in (b"old", b"older"):
        rig.raft.propose(data)
        rig.sync()
    rig.step(Append(3, 1, 2, 1, 1, 1, [(2, 2, b"new")]))
    rig.sync()
    rig.take(Append)

    rig.win(2)

    assert [list(append.entries) for append in rig.take(Append)] == [[(3, 3, NOOP)], [(3, 3, NOOP)]]


def test_appends_follow_each_other_without_waiting() -> None:
    rig = Rig.make().lead(2, 3)

    for data in (b"a", b"b"):
        rig.raft.propose(data)
        rig.drain()

    assert [(append.to, append.previous_index) for append in rig.take(Append)] == [(2, 1), (3, 1), (2, 2), (3, 2)]


def test_inflight_messages_are_bounded() -> None:
    rig = Rig.make(options=evolve(OPTIONS, inflight_messages=2)).lead(2, 3)

    for _ in range(5):
        rig.raft.propose(b"x")
        rig.drain()
    assert [append.to for append in rig.take(Append)].count(2) == 2

    rig.ack(2, 2)
    assert [(append.to, append.previous_index, len(append.entries)) for append in rig.take(Append)] == [(2, 3, 3)]


def test_after_a_loss_the_leader_begins_with_one_append() -> None:
    """All that was in flight behind it is refused; answered by as many appends each time, refusals would breed."""
    rig = Rig.make(options=evolve(OPTIONS, append_bytes_max=1)).lead(2, 3)
    for _ in range(9):
        rig.raft.propose(b"x")
    assert [append.to for append in rig.take(Append)].count(2) == 9

    rig.step(AppendReply(2, 1, 1, 5, is_rejected=True, hint_index=1, hint_term=1))
    sent = []
    for index in (2, 3, 4, 5, 6):
        sent.append([append.to for append in rig.take(Append)].count(2))
        rig.ack(2, index)

    assert sent == [1, 1, 2, 2, 2]


def test_inflight_bytes_are_bounded_but_one_always_goes() -> None:
    rig = Rig.make(options=evolve(OPTIONS, inflight_bytes=10, append_bytes_max=8)).lead(2, 3)

    for _ in range(3):
        rig.raft.propose(b"x" * 20)

    assert [append.to for append in rig.take(Append)] == [2, 3]


def test_an_append_is_no_larger_than_its_limit() -> None:
    rig = Rig.make(options=evolve(OPTIONS, append_bytes_max=8)).lead(2)

    for _ in range(5):
        rig.raft.propose(b"xxxx")

    assert [len(append.entries) for append in rig.take(Append) if append.to == 2] == [2, 2, 1]


def test_a_refusal_goes_back_over_whole_terms() -> None:
    """The leader has terms 1 1 1 5 5 5 …, the follower 1 1 1 2 2 2 2: one exchange finds 3."""
    rig = Rig.make(terms=[1, 1, 1, 5, 5, 5]).lead(2)
    rig.sent.clear()

    rig.step(AppendReply(3, 1, rig.term, 6, is_rejected=True, hint_index=6, hint_term=2))

    append = rig.take(Append)[0]
    assert (append.to, append.previous_index, append.previous_term) == (3, 3, 1)


def test_a_late_refusal_is_ignored() -> None:
    rig = Rig.make(terms=[1, 1]).lead(2)

    rig.step(AppendReply(2, 1, rig.term, 1, is_rejected=True, hint_index=0))

    assert rig.raft.match_of(2) == 3
    assert rig.raft.progress()[2][2] == "replicate"


def test_a_refusal_of_what_is_in_flight_probes_from_what_is_known() -> None:
    rig = Rig.make().lead(2)
    rig.raft.propose(b"a")
    rig.drain()
    rig.raft.propose(b"b")
    rig.take(Append)

    rig.step(AppendReply(2, 1, rig.term, 2, is_rejected=True, hint_index=1, hint_term=1))

    append = rig.take(Append)[0]
    assert (append.previous_index, len(append.entries)) == (1, 2)
    assert rig.raft.progress()[2][2] == "probe"


def test_entries_of_earlier_terms_are_not_committed_by_counting() -> None:
    """Thesis §3.6.2, figure 3.7; LogCabin #44."""
    rig = Rig.make(terms=[1, 2]).win(2)

    rig.ack(2, 2)
    assert rig.raft.log.committed == 0

    rig.ack(2, 3)
    assert rig.raft.log.committed == 3


def test_the_leader_commits_by_others_disks_too() -> None:
    """Thesis §10.2.1: two followers' copies are a quorum, whatever the own disk does."""
    rig = Rig.make().lead(2, 3)
    rig.raft.propose(b"a")
    rig.drain()

    rig.ack(2)
    assert rig.raft.log.committed == 1
    rig.ack(3)
    assert rig.raft.log.committed == 2
    assert rig.raft.log.persisted_index == 1


def test_learners_and_blank_voters_commit_nothing() -> None:
    """S1, S12."""
    rig = Rig.make(voters(1, 2, 3, learners=[4], blank=[3])).lead(2)
    rig.raft.propose(b"a")
    rig.sync()

    rig.ack(3)
    rig.ack(4)
    assert rig.raft.log.committed == 1

    rig.ack(2)
    assert rig.raft.log.committed == 2


def test_joint_majorities_commit_together() -> None:
    """Thesis §4.3."""
    rig = Rig.make(voters(1, 2, 3, outgoing=[1, 4, 5])).lead(2, 4)
    rig.raft.propose(b"a")
    rig.sync()

    rig.ack(2)
    rig.ack(3)
    assert rig.raft.log.committed == 1

    rig.ack(5)
    assert rig.raft.log.committed == 2


def test_a_new_commit_is_told_at_once_and_once() -> None:
    rig = Rig.make().lead(2, 3)
    rig.raft.propose(b"a")
    rig.sync()
    rig.take(Append)

    rig.ack(2)
    assert [(append.to, append.commit, len(append.entries)) for append in rig.take(Append)] == [(2, 2, 0), (3, 2, 0)]

    rig.ack(3)
    assert not rig.take(Append)


def test_under_load_the_next_append_carries_the_commit() -> None:
    rig = Rig.make().lead(2, 3)
    rig.raft.propose(b"a")
    rig.sync()
    rig.take(Append)

    rig.raft.step(AppendReply(2, 1, rig.term, 2))
    rig.raft.propose(b"b")

    assert [(append.to, append.commit, len(append.entries)) for append in rig.take(Append)] == [(2, 2, 1), (3, 2, 1)]


def test_heartbeats_tell_no_commit_that_the_follower_does_not_hold() -> None:
    rig = Rig.make().lead(2)

    rig.tick(2)

    assert [(beat.to, beat.commit) for beat in rig.take(Heartbeat)] == [(2, 1), (3, 0)]


def test_heartbeats_are_answered_at_once_with_their_round() -> None:
    rig = Rig.make()

    rig.step(Heartbeat(2, 1, 4, 0, 77))

    assert rig.take(HeartbeatReply) == [HeartbeatReply(1, 2, 4, 77, False)]


def test_a_probe_goes_once_until_the_follower_is_heard_of() -> None:
    rig = Rig.make(terms=[1]).win(2)
    assert [append.to for append in rig.sent if isinstance(append, Append)] == [2, 3]
    rig.take(Append)

    rig.raft.propose(b"a")
    assert not rig.take(Append)

    rig.beat(3)
    assert [(append.to, len(append.entries)) for append in rig.take(Append)] == [(3, 2)]


def test_lost_acknowledgements_are_asked_for() -> None:
    """Nothing is proposed any more, and the last answer was lost."""
    rig = Rig.make().lead(2, 3)
    rig.raft.propose(b"a")
    rig.drain()
    rig.take(Append)

    rig.beat(2)
    assert not rig.take(Append)
    rig.beat(2)

    assert rig.take(Append) == [Append(1, 2, rig.term, 2, rig.term, 0, ())]


def test_a_broken_link_probes_from_what_is_known() -> None:
    rig = Rig.make().lead(2, 3)
    rig.raft.propose(b"a")
    rig.drain()
    rig.take(Append)

    rig.raft.link_broken(2, False)

    assert [(append.to, append.previous_index) for append in rig.take(Append)] == [(2, 1)]
    rig.raft.link_up(2)
    assert [(append.to, append.previous_index) for append in rig.take(Append)] == [(2, 1)]


def lead_in_step() -> Rig:
    """A leader whose followers have heard that all is committed."""
    rig = Rig.make().lead(2, 3)
    rig.take(Append)
    return rig


def commit_one(rig: Rig, awaited_by: int | None) -> list[Append]:
    """Have an entry committed; return what the followers are sent then."""
    rig.raft.propose(b"a", awaited_by)
    rig.sync()
    rig.take(Append)
    rig.ack(2)
    rig.ack(3)
    assert rig.raft.log.committed == rig.raft.log.last_index
    return rig.take(Append)


@pytest.mark.parametrize(("awaited_by", "told"), [(None, [2, 3]), (1, []), (2, [2]), (3, [3])])
def test_a_notice_goes_at_once_to_those_who_wait_for_the_commit(awaited_by: int | None, told: list[int]) -> None:
    rig = lead_in_step()

    assert [notice.to for notice in commit_one(rig, awaited_by)] == told

    rig.raft.tick()
    late = rig.take(Append)
    assert [notice.to for notice in late] == [member for member in (2, 3) if member not in told]
    assert all((notice.commit, notice.entries) == (rig.raft.log.committed, ()) for notice in late)
    rig.raft.tick()
    assert not rig.take(Append)


def test_the_next_append_carries_the_commit_that_nobody_waited_for() -> None:
    rig = lead_in_step()
    commit_one(rig, 1)
    rig.raft.propose(b"b", 1)

    appends = rig.take(Append)

    assert [(append.commit, len(append.entries)) for append in appends] == [(rig.raft.log.last_index - 1, 1)] * 2
    rig.raft.tick()
    assert not rig.take(Append)


def test_a_member_that_is_watched_hears_of_each_commit_at_once() -> None:
    rig = lead_in_step()
    rig.step(HeartbeatReply(3, 1, rig.term, 0, True))
    assert [notice.to for notice in commit_one(rig, 1)] == [3]

    rig.step(HeartbeatReply(3, 1, rig.term, 0, False))
    assert commit_one(rig, 1) == []


def test_a_follower_tells_that_it_is_watched() -> None:
    rig = follow(1)
    rig.raft.is_watched = True

    rig.step(Heartbeat(2, 1, 1, 0, 5))

    assert rig.take(HeartbeatReply) == [HeartbeatReply(1, 2, 1, 5, True)]


def test_a_read_on_a_follower_comes_with_the_commit_that_it_waits_for() -> None:
    rig = lead_in_step()
    assert commit_one(rig, 1) == []

    rig.step(ReadRequest(2, 1, rig.term, 77))
    rig.raft.step(HeartbeatReply(3, 1, rig.term, 1, False))
    rig.drain()

    assert [reply.index for reply in rig.sent if isinstance(reply, ReadReply)] == [rig.raft.log.committed]
    assert [(notice.to, notice.commit) for notice in rig.take(Append)] == [(2, rig.raft.log.committed)]


def test_a_new_leader_tells_all_of_what_it_finds() -> None:
    """Who waits for the entries of before is not known."""
    rig = Rig.make(terms=(1, 1)).win(2)
    rig.raft.propose(b"a", 1)
    rig.ack(2, 3)

    assert [notice.commit for notice in rig.take(Append) if notice.to == 2][-1] == 3


def test_a_probe_without_entries_asks_for_an_answer() -> None:
    """With a commit it would be a notice, and the leader would wait for an answer that nobody owes."""
    rig = Rig.make().lead(2, 3)

    rig.raft.link_broken(2, False)

    assert rig.take(Append) == [Append(1, 2, 1, 1, 1, 0, ())]


def test_a_member_that_forgot_what_is_committed_is_found_out() -> None:
    """S1: by the highest committed index that it acknowledged; an uncommitted tail may lawfully be cut."""
    rig = Rig.make().lead(2, 3)
    rig.raft.propose(b"a")
    rig.sync()
    rig.ack(2)
    rig.raft.propose(b"b")
    rig.drain()
    rig.ack(2)
    assert (rig.raft.log.committed, rig.raft.match_of(2), rig.raft.match_of(3)) == (2, 3, 1)

    for _ in range(2):
        assert rig.raft.check_last_index(2, 2)
        assert not rig.raft.check_last_index(2, 1)
        assert rig.raft.check_last_index(3, 1)
        assert not rig.raft.check_last_index(3, 0)
        # It is remembered when another leads.
        rig.step(Heartbeat(3, 1, rig.term + 1, 0, 0))


def test_a_follower_takes_no_more_than_its_store_keeps_up_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 4: what is applied makes room, and what was not taken comes again."""
    monkeypatch.setattr("coord.raft.following.LOG_BYTES_UNAPPLIED_MAX", 8)
    rig = follow(1)
    rig.step(Append(2, 1, 1, 1, 1, 2, [(2, 1, b"8 bytes.")]))
    rig.sync()
    rig.sent.clear()

    rig.step(Append(2, 1, 1, 2, 1, 2, [(3, 1, b"more")]))
    rig.sync()

    assert rig.raft.log.last_index == 2
    assert not rig.take(AppendReply)
    rig.raft.applied(2)
    rig.step(Append(2, 1, 1, 2, 1, 2, [(3, 1, b"more")]))
    rig.sync()
    assert rig.take(AppendReply) == [AppendReply(1, 2, 1, 3)]
