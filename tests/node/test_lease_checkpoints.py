"""What is left of leases over changes of leaders (S23), in virtual time."""

from __future__ import annotations

import math
from itertools import pairwise

import trio

from coord.limits import LEASES_CHECKPOINTED_PER_ENTRY, LEASES_PER_TICK
from coord.node.node import Node
from coord.protocol.ops import Method, Op
from coord.testing.sim_node import SimClient, SimHost

from .conftest import play
from .lease_rig import Reaping


def leading(ttl_s: int = 20, count: int = 1) -> Reaping:
    """Return a reaper that has just begun to lead, with leases 8, 9 …, and one that needs nothing in a test."""
    rig = Reaping(ttl_s=10_000)
    rig.grant(8, ttl_s, count)
    rig.reaper.lead()
    return rig


def next_leader(rig: Reaping) -> None:
    """Let another member lead, which has applied all that is committed; what is proposed is lost."""
    rig.proposed.clear()
    rig.reaper.unlead()
    rig.term += 1
    rig.reaper.lead()


def left_ms(rig: Reaping, lease: int) -> list[int]:
    """Return what the proposed checkpoints say of a lease."""
    return [left for entry in rig.checkpointed() for one, left in entry if one == lease]


def test_only_a_lease_that_missed_a_renewal_is_checkpointed_and_again_as_it_grows_old() -> None:
    """S23: below half of its TTL, and then every max(TTL/8, 1 s)."""
    rig = leading(ttl_s=20)
    rig.grant(9, 5)
    rig.wait(9.9)
    assert left_ms(rig, 8) == []
    rig.wait(9.9)
    taken = left_ms(rig, 8)
    assert len(taken) == 4
    assert 9800 <= taken[0] < 10_000
    assert all(2400 <= before - after <= 2700 for before, after in pairwise(taken))
    assert [left // 1000 for left in left_ms(rig, 9)] == [2, 1, 0]


def test_a_new_leader_counts_what_a_checkpoint_left_and_else_the_full_ttl() -> None:
    rig = leading(ttl_s=20)
    rig.wait(13)
    rig.commit()
    left_s = rig.machine.lease_remaining_ms(8) / 1000
    assert 7 < left_s < 10
    rig.grant(9, 20)
    rig.wait(3)
    next_leader(rig)
    assert rig.reaper.remaining_s(8) == int(left_s)
    assert rig.reaper.remaining_s(9) == 20
    rig.wait(left_s - 0.2)
    assert rig.rounds == []
    rig.wait(0.5)
    rig.rounds[-1]()
    assert rig.expired() == [[8]]


def test_many_leader_changes_let_a_dead_holders_lease_grow_by_less_than_half_its_ttl_each() -> None:
    rig = leading(ttl_s=20)
    began, changes = rig.now, 0
    while 8 in [lease for lease, _ in rig.machine.leases()] and rig.now - began < 500:
        for _ in range(73):
            rig.wait(0.1)
            for resume in rig.rounds:
                resume()
            rig.rounds.clear()
            rig.commit()
        next_leader(rig)
        changes += 1
    assert changes > 2
    assert rig.now - began <= 20 + changes * 10


def test_a_renewal_waits_for_the_entry_that_clears_a_checkpoint() -> None:
    """Also if the checkpoint is only proposed: it may be applied by the next leader."""
    for is_applied in (True, False):
        rig = leading(ttl_s=20)
        rig.wait(11)
        if is_applied:
            rig.commit()
            assert rig.machine.lease_remaining_ms(8)
        else:
            assert left_ms(rig, 8)
        assert rig.reaper.clear_checkpoints([9, 8]) == 8
        assert rig.reaper.is_clearing(8)
        assert rig.reaper.clear_checkpoints([8]) == 8, "whoever asks meanwhile waits too"
        rig.reaper.turn()
        assert rig.reaper.clear_checkpoints([8]) == 8
        rig.reaper.turn()
        assert left_ms(rig, 8)[-1] == 0
        assert left_ms(rig, 8).count(0) == 1
        rig.commit()
        assert not rig.reaper.is_clearing(8)
        assert rig.reaper.clear_checkpoints([8]) == 0
        assert rig.machine.lease_remaining_ms(8) == 0
        assert rig.reaper.renew([8]) == [[8, 20]]
        next_leader(rig)
        assert rig.reaper.remaining_s(8) == 20


def test_time_is_given_before_the_entry_is_applied_and_nothing_is_written_down_meanwhile() -> None:
    """A renewal that came in time does not fail because its entry takes long."""
    rig = leading(ttl_s=20)
    rig.wait(19.5)
    rig.commit()
    rig.reaper.clear_checkpoints([8])
    rig.reaper.turn()
    rig.proposed.clear()
    rig.rounds.clear()
    rig.wait(19.5)
    assert rig.rounds == []
    assert left_ms(rig, 8) == [], "a checkpoint behind the clearing would stand when the renewal is acknowledged"


def test_a_checkpoint_that_is_not_cleared_is_found_by_a_leader_that_leads_again() -> None:
    """What it wanted cleared in its former term is void; who waits for that asks anew, and it is wanted again."""
    rig = leading(ttl_s=20)
    rig.wait(11)
    rig.commit()
    rig.reaper.clear_checkpoints([8])
    rig.reaper.turn()
    (stale,) = rig.proposed
    next_leader(rig)
    assert not rig.reaper.is_clearing(8)
    assert rig.reaper.remaining_s(8) < 10, "nobody was told of that renewal"
    rig.apply(stale)
    assert rig.machine.lease_remaining_ms(8), "the entry is of another term"
    assert rig.reaper.clear_checkpoints([8]) == 8
    rig.reaper.turn()
    rig.commit()
    assert rig.machine.lease_remaining_ms(8) == 0


def test_a_full_queue_only_delays() -> None:
    rig = leading(ttl_s=20)
    rig.wait(9)
    rig.has_room = False
    rig.wait(2)
    rig.has_room = True
    rig.wait(0.1)
    assert [8800 < left < 9100 for left in left_ms(rig, 8)] == [True]
    rig.commit()
    rig.has_room = False
    rig.reaper.clear_checkpoints([8])
    rig.reaper.turn()
    assert rig.reaper.is_clearing(8)
    rig.has_room = True
    rig.reaper.turn()
    assert left_ms(rig, 8) == [0]


def test_a_lease_that_goes_while_its_checkpoint_is_under_way_leaves_nothing() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for _ in range(3):
            await client.write(Op.LEASE_GRANT, [4, 7])
            await trio.sleep(2.2)
            node.leases.clear_checkpoints([7])
            await client.write(Op.LEASE_REVOKE, [7])
        await client.write(Op.LEASE_GRANT, [4, 7])
        assert await client.request(Method.LEASE_KEEP_ALIVE, [[7]]) == [[7, 4]]
        assert node.machine.lease_remaining_ms(7) == 0
        reaper = node.leases
        assert not any((reaper._with_checkpoint, reaper._clearing, reaper._to_clear, reaper._ended, reaper._expiring))

    play(scenario)


def test_what_is_left_is_rounded_up() -> None:
    """By a part of a millisecond: never early is never early."""
    rig = leading(ttl_s=20)
    rig.now = 100.0004
    rig.grant(9, 20)
    rig.now = 100.0399
    rig.wait(10.1)
    assert left_ms(rig, 9) == [math.ceil((120.0004 - rig.now) * 1000)] == [9861]


def test_nothing_is_cleared_for_a_lease_that_was_revoked_meanwhile() -> None:
    rig = leading(ttl_s=20)
    rig.wait(11)
    rig.commit()
    rig.reaper.clear_checkpoints([8])
    rig.revoke(8)
    rig.reaper.turn()
    assert rig.proposed == []


def test_a_lease_that_is_renewed_when_its_time_was_over_is_looked_at_as_before() -> None:
    """Its round finds it renewed; no other is begun for it, and its next miss is written down."""
    rig = leading(ttl_s=20)
    rig.wait(20.2)
    (resume,) = rig.rounds
    rig.commit()
    rig.reaper.clear_checkpoints([8])
    rig.reaper.turn()
    rig.commit()
    rig.reaper.renew([8])
    resume()
    assert rig.expired() == []
    rig.wait(9.8)
    assert len(rig.rounds) == 1
    assert left_ms(rig, 8) == []
    rig.wait(0.5)
    assert len(left_ms(rig, 8)) == 1


def test_a_stall_is_not_in_what_is_left() -> None:
    """S22: the leader adds its own stalls to every deadline, and so to what it writes down."""
    rig = leading(ttl_s=20)
    rig.wait(9)
    rig.now += 60
    rig.wait(1.3)
    assert [9700 <= left < 10_000 for left in left_ms(rig, 8)] == [True]


def test_sessions_that_renew_in_time_cost_no_entries() -> None:
    """10 000 leases, renewed three times a TTL: no entry, and hardly more than one look for each renewal."""
    rig = leading(ttl_s=9, count=10_000)
    leases = list(range(8, 10_008))
    looks = 0
    take = rig.reaper._looks.take

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(counted, name)

        def take(self, now: float, most: int) -> list[int]:
            nonlocal looks
            taken = take(now, most)
            looks += len(taken)
            assert len(taken) <= LEASES_PER_TICK
            return taken

    counted, rig.reaper._looks = rig.reaper._looks, Counting()  # type: ignore[assignment]
    for _ in range(30):
        rig.wait(3)
        assert rig.reaper.clear_checkpoints(leases) == 0
        assert rig.reaper.renew(leases)[0] == [8, 9]
    assert rig.proposed == []
    assert rig.rounds == []
    assert looks < 31 * 10_000


def test_ten_thousand_leases_that_miss_are_batched() -> None:
    rig = leading(ttl_s=9, count=10_000)
    rig.wait(5)
    entries = rig.checkpointed()
    assert len(entries) == 10_000 / LEASES_CHECKPOINTED_PER_ENTRY
    assert all(len(entry) <= LEASES_CHECKPOINTED_PER_ENTRY for entry in entries)
    rig.commit()
    leases = list(range(8, 10_008))
    for lease in leases:
        rig.reaper.clear_checkpoints([lease])
    rig.reaper.turn()
    assert len(rig.proposed) == len(entries), "as many keep-alives of one pass share few entries"
    rig.commit()
    assert rig.reaper.clear_checkpoints(leases) == 0


def test_a_late_keep_alive_is_answered_after_its_checkpoint_is_cleared() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        lease, _ = await client.write(Op.LEASE_GRANT, [8])
        await trio.sleep(4.5)
        assert node.machine.lease_remaining_ms(lease)
        index = node.machine.applied_index
        assert await client.request(Method.LEASE_KEEP_ALIVE, [[lease]]) == [[lease, 8]]
        assert node.machine.applied_index == index + 1
        assert node.machine.lease_remaining_ms(lease) == 0
        assert host.log.of("lease.checkpoint.proposed")
        assert host.log.of("lease.checkpoint.cleared")

    play(scenario)


def test_a_restart_goes_on_from_a_checkpoint() -> None:
    leases: list[int] = []

    async def before(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for ttl_s in (10, 60):
            leases.append((await client.write(Op.LEASE_GRANT, [ttl_s]))[0])
        await trio.sleep(8.2)

    async def after(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await trio.sleep(1.7)
        assert await client.request(Method.LEASE_LEASES, []) == leases, "not before its time"
        await trio.sleep(1.3)
        assert await client.request(Method.LEASE_LEASES, []) == leases[1:]
        assert host.log.of("lease.clock.started")[-1]["checkpointed"] == 1

    play(after, play(before))
