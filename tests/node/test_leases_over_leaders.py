"""Leases of three members over changes of leaders: checkpoints under way, renewals that wait for them (S23)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from coord.codec import decode
from coord.protocol.entries import decode_entry
from coord.protocol.ops import EntryKind, Method, Op
from coord.testing.cluster import Cluster
from coord.testing.cluster_end import state_of

from .test_clients_of_members import client, play, settled

TTL_S = 20


async def grant(cluster: Cluster, name: str, ttl_s: int = TTL_S) -> int:
    lease, _ = await client(cluster, name).write(Op.LEASE_GRANT, [ttl_s])
    return int(lease)


async def until_gone(cluster: Cluster, name: str, lease: int) -> float:
    """Return when a lease had ended, as a member sees it."""
    while cluster.node(name).machine.lease_ttl(lease):  # noqa: ASYNC110  # virtual time
        await trio.sleep(0.05)
    return trio.current_time()


async def until_clearing(cluster: Cluster, name: str, lease: int) -> None:
    while not cluster.node(name).leases.is_clearing(lease):  # noqa: ASYNC110  # virtual time
        await trio.sleep(0.005)


def expired_at(cluster: Cluster, lease: int) -> float | None:
    """Return when the expiry of a lease was committed."""
    for index, (_, data) in cluster.ledger.entries.items():
        kind, _, body = decode_entry(data)
        if kind == EntryKind.EXPIRY and lease in decode(body)[2]:
            return cluster.ledger.committed_at[index]
    return None


@pytest.mark.parametrize("seed", range(4))
def test_a_renewal_whose_leader_dies_before_its_checkpoint_is_cleared_is_answered_by_the_next(seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        leader, (one, _) = await settled(cluster)
        lease = await grant(cluster, one)
        await trio.sleep(TTL_S * 0.7)
        assert cluster.node(one).machine.lease_remaining_ms(lease)
        for name in cluster.names:
            cluster.slow_disk(name, 0.5, log_only=True)
        answers: list[Any] = []
        sent_at = trio.current_time()

        async def renew() -> None:
            answers.append(await client(cluster, one).request(Method.LEASE_KEEP_ALIVE, [[lease]], timeout_ms=15_000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(renew)
            await until_clearing(cluster, leader, lease)
            await trio.sleep(cluster.chance.uniform(0, 0.3))
            assert answers == []
            await cluster.kill(leader)
            for name in cluster.names:
                cluster.slow_disk(name)
        assert answers == [[[lease, TTL_S]]]
        assert trio.current_time() < sent_at + 5, "it was asked again, and did not wait for its end"
        second = await cluster.leader()
        assert cluster.node(second).machine.lease_remaining_ms(lease) == 0
        await cluster.kill(second)
        await cluster.start(leader)
        assert await until_gone(cluster, one if one != second else leader, lease) >= sent_at + TTL_S

    play(scenario, seed)


def test_a_leader_that_is_cut_off_tells_nobody_of_a_renewal_that_waits() -> None:
    async def scenario(cluster: Cluster) -> None:
        leader, followers = await settled(cluster)
        lease = await grant(cluster, leader)
        await trio.sleep(TTL_S * 0.7)
        for name in followers:
            cluster.slow_disk(name, 0.5, log_only=True)
        answers: list[Any] = []

        async def renew() -> None:
            old = client(cluster, leader)
            answers.append(await old.request(Method.LEASE_KEEP_ALIVE, [[lease]], timeout_ms=15_000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(renew)
            await until_clearing(cluster, leader, lease)
            cluster.partition([leader], followers)
            while await cluster.leader() == leader:  # noqa: ASYNC110  # virtual time
                await trio.sleep(0.1)
            await trio.sleep(1)
            assert answers == []
            cluster.heal()
        assert answers == [[[lease, TTL_S]]]
        assert cluster.node(leader).leases.renewed == 0

    play(scenario)


def test_sessions_that_renew_in_time_leave_nothing_in_the_log_over_leaders() -> None:
    async def scenario(cluster: Cluster) -> None:
        _, (one, _) = await settled(cluster)
        leases = [await grant(cluster, one, 9) for _ in range(20)]
        followed = client(cluster, one)
        applied = cluster.node(one).machine.applied_index
        for turn in range(8):
            await trio.sleep(3)
            assert await followed.request(Method.LEASE_KEEP_ALIVE, [leases]) == [[lease, 9] for lease in leases]
            if turn == 3:
                await followed.request(Method.MOVE_LEADER, [cluster.node(one).member_id])
        assert cluster.node(one).machine.applied_index == applied + 1, "the new leader's first entry alone"
        assert cluster.happened["lease.checkpoint.proposed"] == 0

    play(scenario)


@pytest.mark.parametrize("seed", range(4))
def test_a_dead_holders_lease_lasts_less_than_half_its_ttl_longer_for_each_leader(seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        leader, _ = await settled(cluster)
        lease = await grant(cluster, leader)
        granted_at = trio.current_time()
        allowed_s = TTL_S + 0.5
        while expired_at(cluster, lease) is None:
            assert trio.current_time() - granted_at < allowed_s
            await trio.sleep(cluster.chance.uniform(1, TTL_S * 0.6))
            if expired_at(cluster, lease) is not None:
                break
            await cluster.kill(leader)
            killed_at = trio.current_time()
            while not cluster.node(await cluster.leader()).leases.is_leading:  # noqa: ASYNC110  # virtual time
                await trio.sleep(0.01)
            allowed_s += TTL_S / 2 + trio.current_time() - killed_at
            await cluster.start(leader)
            await cluster.node(leader).caught_up.wait()
            leader = await cluster.leader()
        assert TTL_S <= (expired_at(cluster, lease) or 0.0) - granted_at < allowed_s
        states = [state_of(cluster, name) for name in cluster.names]
        assert states[1:] == states[:-1]

    play(scenario, seed)


def test_a_leader_that_is_paused_for_longer_than_the_ttl_writes_nothing_stale() -> None:
    """When it goes on it still believes that it leads, and that a renewal of which it knows nothing was missed."""

    async def scenario(cluster: Cluster) -> None:
        leader, (one, _) = await settled(cluster)
        lease = await grant(cluster, one)
        await trio.sleep(TTL_S / 2 - 0.05)
        cluster.pause(leader)
        await trio.sleep(5)
        assert await client(cluster, one).request(Method.LEASE_KEEP_ALIVE, [[lease]]) == [[lease, TTL_S]]
        renewed_at = trio.current_time()
        await trio.sleep(TTL_S / 2 - 1)
        cluster.resume(leader)
        await trio.sleep(0.5)
        assert cluster.node(one).machine.lease_remaining_ms(lease) == 0
        await cluster.kill(await cluster.leader())
        survivor = await cluster.leader()
        assert renewed_at + TTL_S <= await until_gone(cluster, survivor, lease) < renewed_at + 1.5 * TTL_S + 2

    play(scenario)
