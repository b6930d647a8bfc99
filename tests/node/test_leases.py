"""The reaper's promises, in virtual time."""

from __future__ import annotations

from typing import Any

import trio

from coord.mvcc.machine import StateMachine
from coord.node.leases import LeaseReaper
from coord.node.node import Node
from coord.observe.log import RecordingLog
from coord.protocol.entries import decode_entry
from coord.protocol.ops import EntryKind, Method, Op
from coord.testing.memory_backend import MemoryBackend
from coord.testing.sim_node import SimClient, SimHost

from .conftest import play
from .lease_rig import Reaping


async def grant(client: SimClient, ttl_s: int) -> int:
    lease, granted_s = await client.write(Op.LEASE_GRANT, [ttl_s])
    assert granted_s == max(ttl_s, 2)
    return int(lease)


def test_a_lease_expires_after_its_ttl_and_takes_its_keys_in_one_revision() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        lease = await grant(client, 5)
        await client.put(b"b", b"1", lease)
        await client.put(b"a", b"1", lease)
        revision = node.revision

        await trio.sleep(4.9)
        assert await client.get(b"a") == b"1"
        await trio.sleep(0.5)

        assert await client.get(b"a") is None
        assert await client.get(b"b") is None
        assert node.revision == revision + 1
        assert await client.request(Method.LEASE_LEASES, []) == []

    play(scenario)


def test_ttl_has_etcds_floor() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        await grant(SimClient(node), 1)

    play(scenario)


def test_keep_alive_renews_and_an_unknown_lease_answers_zero() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        lease = await grant(client, 5)
        await client.put(b"a", b"1", lease)
        for _ in range(10):
            await trio.sleep(2)
            assert await client.request(Method.LEASE_KEEP_ALIVE, [[lease, 7]]) == [[lease, 5], [7, 0]]
        assert await client.get(b"a") == b"1"
        index = node.machine.applied_index
        await client.request(Method.LEASE_KEEP_ALIVE, [[lease]])
        assert node.machine.applied_index == index, "a renewal costs no entry"

    play(scenario)


def test_a_renewal_that_meets_a_proposed_expiry_waits_and_fails() -> None:
    """S22: never acknowledged while an expiry of the lease is in the log."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        lease = await grant(client, 2)
        proposed = trio.Event()
        propose = node.leases.propose

        def tell(entry: bytes) -> bool:
            if decode_entry(entry)[0] == EntryKind.EXPIRY:
                proposed.set()
            return propose(entry)

        node.leases.propose = tell
        await proposed.wait()
        assert node.machine.lease_ttl(lease) == 2

        assert await client.request(Method.LEASE_KEEP_ALIVE, [[lease]]) == [[lease, 0]]

    play(scenario)


def test_time_to_live_counts_down_and_misses_with_minus_one() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        lease = await grant(client, 10)
        await client.put(b"a", b"", lease)
        await trio.sleep(4.5)
        assert await client.request(Method.LEASE_TIME_TO_LIVE, [lease, True]) == [lease, 5, 10, [b"a"]]
        assert await client.request(Method.LEASE_TIME_TO_LIVE, [lease]) == [lease, 5, 10, []]
        assert await client.request(Method.LEASE_TIME_TO_LIVE, [99]) == [99, -1, 0, []]

    play(scenario)


def test_a_restart_never_shortens_a_lease() -> None:
    """S23: the new leader counts the full TTL from its own first entry, for no renewal was missed."""
    leases: list[int] = []

    async def before(host: SimHost, node: Node) -> None:
        leases.append(await grant(SimClient(node), 10))
        await trio.sleep(4.9)

    async def after(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await trio.sleep(9.5)
        assert await client.request(Method.LEASE_LEASES, []) == leases
        await trio.sleep(1)
        assert await client.request(Method.LEASE_LEASES, []) == []

    play(after, play(before))


def test_a_stall_of_the_node_does_not_count_against_leases() -> None:
    """S22: the reaper adds its own stalls to every deadline."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        lease = await grant(client, 2)
        shift = 0.0
        clock = node.leases.clock

        def stalled() -> float:
            return clock() + shift

        node.leases.clock = stalled
        await trio.sleep(1)
        shift = 60.0
        await trio.sleep(0.5)
        assert await client.request(Method.LEASE_KEEP_ALIVE, [[lease]]) == [[lease, 2]]
        assert host.log.of("lease.clock.delayed")

    play(scenario)


def test_many_leases_expire_in_bounded_entries() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await client.write_many([[0, int(Op.LEASE_GRANT), None, [2]] for _ in range(1200)])
        index = node.machine.applied_index
        await trio.sleep(4)
        assert await client.request(Method.LEASE_LEASES, []) == []
        assert node.machine.applied_index - index == 2 + 3, "checkpoints, then expiries"

    play(scenario)


def test_leases_are_listed_by_expiry() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        long, short, middle = [await grant(client, ttl) for ttl in (30, 5, 10)]
        assert await client.request(Method.LEASE_LEASES, []) == [short, middle, long]

    play(scenario)


def test_leases_that_come_and_go_leave_nothing_behind() -> None:
    """A lock for each job, on a lease of a day: what was revoked must not wait for its day."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        stays = await grant(client, 5)
        for _ in range(40):
            await client.write_many([[0, int(Op.LEASE_GRANT), None, [86_400, lease]] for lease in range(1, 101)])
            await client.write_many([[0, int(Op.LEASE_REVOKE), None, [lease]] for lease in range(1, 101)])
        assert len(node.leases._looks) == 1
        assert node.leases.active == 1
        await trio.sleep(6)
        assert await client.request(Method.LEASE_LEASES, []) == []
        assert node.machine.lease_ttl(stays) == 0

    play(scenario)


def test_a_lease_that_one_entry_revokes_and_grants_anew_is_counted() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await client.write(Op.LEASE_GRANT, [60, 7])
        await client.write_many([[0, int(Op.LEASE_REVOKE), None, [7]], [0, int(Op.LEASE_GRANT), None, [3, 7]]])
        await client.write_many([[0, int(Op.LEASE_GRANT), None, [3, 8]], [0, int(Op.LEASE_REVOKE), None, [8]]])
        assert node.leases.active == 1
        await trio.sleep(3.5)
        assert await client.request(Method.LEASE_LEASES, []) == []

    play(scenario)


def test_a_lease_granted_anew_expires_once_and_at_its_new_deadline() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for ttl_s in (10, 3, 6):
            await client.write(Op.LEASE_GRANT, [ttl_s, 7])
            await client.write(Op.LEASE_REVOKE, [7])
        await client.write(Op.LEASE_GRANT, [10, 7])
        await trio.sleep(9.5)
        assert await client.request(Method.LEASE_LEASES, []) == [7]
        await trio.sleep(1)
        assert await client.request(Method.LEASE_LEASES, []) == []
        assert node.leases.expired == 1

    play(scenario)


def test_a_node_that_starts_late_in_its_machines_life_tells_of_no_stall() -> None:
    reaper = LeaseReaper(
        machine=StateMachine(MemoryBackend()),
        clock=lambda: 5_000_000.0,
        log=(log := RecordingLog()),
        propose=lambda entry: True,
        start_round=lambda resume: None,
        term=lambda: 1,
        interval_s=0.1,
    )
    reaper.tick()
    assert not log.of("lease.clock.delayed")


def test_a_reaper_that_no_longer_leads_proposes_and_counts_nothing() -> None:
    """S9, S22: nor does a round of its former term, which is confirmed late."""
    rig = Reaping()
    rig.reaper.lead()
    assert rig.reaper.is_leading
    rig.wait(5.2)
    (late,) = rig.rounds
    rig.reaper.unlead()
    assert not rig.reaper.is_leading
    late()
    rig.wait(20)
    assert rig.expired() == []
    assert len(rig.rounds) == 1

    rig.term = 4
    rig.reaper.lead()
    late()
    assert rig.expired() == []
    rig.wait(4.8)
    assert len(rig.rounds) == 1, "the whole TTL from the new beginning (S23)"
    rig.wait(0.5)
    # Raft has learned of a higher term, of which the reaper will be told in a moment.
    rig.term = 5
    rig.rounds[1]()
    assert rig.expired() == []
    rig.term = 4
    rig.rounds[1]()
    assert rig.expired() == [[7]]


def test_a_lease_that_falls_due_during_a_round_waits_for_the_next() -> None:
    """S22: a round begun past its deadline, so that no keep-alive that came in time is overlooked."""
    rig = Reaping()
    rig.reaper.lead()
    rig.wait(1)
    rig.grant(8, 5)
    rig.wait(4.1)
    (begun_early,) = rig.rounds
    rig.wait(1)
    begun_early()
    assert rig.expired() == [[7]]
    rig.wait(0.1)
    rig.rounds[1]()
    assert rig.expired() == [[7], [8]]


def test_a_keep_alive_whose_leader_was_deposed_before_it_was_served_is_asked_anew() -> None:
    """S9: what it believes of its leases means nothing; the round was its last as a leader."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        lease = await grant(client, 5)
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await client.request(Method.LEASE_KEEP_ALIVE, [[lease]]))
            answers.append(await client.request(Method.LEASE_TIME_TO_LIVE, [lease]))

        node.leases.unlead()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            assert answers == []
            assert node.leases.renewed == 0
            node.leases.lead()
        assert answers == [[[lease, 5]], [lease, 5, 5, []]]

    play(scenario)
