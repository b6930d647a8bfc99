"""A follower that is late is fed beside the others' work, unless somebody waits for it."""

from __future__ import annotations

from attrs import evolve
from tests.raft.rig import OPTIONS, Rig

from coord.protocol.messages import Append
from coord.raft.options import RaftOptions

SLOW = evolve(OPTIONS, append_bytes_max=5, catch_up_bytes=10)
MISSED = 40


def late(options: RaftOptions = SLOW) -> Rig:
    """Return a leader whose log member 2 holds, and of which member 3 has missed all but the first entry."""
    rig = Rig.make(options=options).lead(2)
    put(rig, MISSED)
    rig.tick(2)
    put(rig, 1)
    rig.tick(2)
    rig.take(Append)
    return rig


def put(rig: Rig, count: int, *, acknowledging: tuple[int, ...] = (2,)) -> None:
    for _ in range(count):
        rig.raft.propose(b"12345")
    rig.sync()
    for member in acknowledging:
        rig.ack(member)


def sent(rig: Rig, member: int) -> list[int]:
    """Return the indices of the entries that `member` was sent since the last call."""
    return [entry[0] for append in rig.take(Append) if append.to == member for entry in append.entries]


def test_late_follower_is_sent_so_much_a_tick_while_others_are_written() -> None:
    rig = late()
    rig.ack(3, 1)
    assert sent(rig, 3) == [2, 3], "ten bytes"
    rig.ack(3, 3)
    assert not sent(rig, 3), "not before the next tick"
    rig.tick()
    assert sent(rig, 3) == [4, 5]


def test_an_append_that_is_larger_is_owed_by_the_ticks_that_follow() -> None:
    rig = late(evolve(SLOW, append_bytes_max=30))
    rig.ack(3, 1)
    assert sent(rig, 3) == [2, 3, 4, 5, 6, 7], "thirty bytes are for three ticks"
    rig.ack(3, 7)
    put(rig, 1)
    for _ in range(2):
        rig.tick()
        assert not sent(rig, 3)
    rig.tick()
    assert sent(rig, 3)


def test_who_keeps_up_is_sent_all_at_once_meanwhile() -> None:
    rig = late()
    rig.ack(3, 1)
    rig.take(Append)
    for _ in range(9):
        rig.raft.propose(b"12345")
    end = rig.raft.log.last_index
    assert sent(rig, 2) == list(range(end - 8, end + 1))


def test_late_follower_comes_nearer_however_much_is_written() -> None:
    """It is sent more than what comes; when it has caught up it is sent all at once again."""
    rig = late()
    rig.ack(3, 1)
    behind = [MISSED]
    while behind[-1] > 0:
        reached = sent(rig, 3)
        if reached:
            rig.ack(3, reached[-1])
        put(rig, 1)
        behind.append(rig.raft.log.last_index - rig.raft.match_of(3) - 1)
        rig.tick()
        assert len(behind) < 40, behind
    assert len(behind) > 8, "it took a while"


def test_all_goes_at_once_where_nobody_writes() -> None:
    rig = late()
    rig.tick(2)
    rig.ack(3, 1)
    assert sent(rig, 3) == list(range(2, rig.raft.log.last_index + 1))


def test_all_goes_at_once_where_commits_wait_for_it() -> None:
    rig = late()
    put(rig, 4, acknowledging=())
    rig.tick(2)
    put(rig, 4, acknowledging=())
    rig.tick(2)
    rig.ack(3, 1)
    assert sent(rig, 3) == list(range(2, rig.raft.log.last_index + 1))
