"""Three members through one fault at a time: what clients may count on, step by step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from coord.errors import ApiError, OutcomeUnknown
from coord.testing.cluster import Cluster, State
from coord.testing.cluster_connection import ConnectionLost
from coord.testing.cluster_end import state_of
from coord.testing.cluster_scenes import SCENES, others, play


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait until something is so."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110  # virtual time
            await trio.sleep(0.01)


def applied(cluster: Cluster, name: str) -> int:
    return cluster.node(name).machine.applied_index


def test_what_is_written_through_one_is_read_through_another() -> None:
    async def scene(cluster: Cluster) -> None:
        for name in cluster.names:
            await cluster.connection(name).put(b"k", name.encode())
            for reader in cluster.names:
                assert await cluster.connection(reader).get(b"k") == name.encode()

    play(scene)


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_leader_is_replaced_at_once_and_nothing_is_lost(seed: int) -> None:
    """S10: its links break and its port refuses, so that nobody waits for a timeout."""

    async def scene(cluster: Cluster) -> None:
        leader, one, _ = await others(cluster)
        await cluster.connection(leader).put(b"k", b"acknowledged")
        await cluster.advance(1.0)
        killed_at = trio.current_time()
        await cluster.kill(leader)
        client = cluster.connection(one)
        assert await client.get(b"k") == b"acknowledged"
        await client.put(b"k", b"new")
        assert trio.current_time() - killed_at < 0.3
        await cluster.start(leader)
        assert await cluster.connection(leader).get(b"k") == b"new"
        assert await cluster.leader() != leader

    play(scene, seed)


def test_a_leader_that_was_paused_answers_nothing_old() -> None:
    """S8, S11: what it took while it stood still is answered from what the others have done since."""

    async def scene(cluster: Cluster) -> None:
        leader, one, _ = await others(cluster)
        await cluster.connection(leader).put(b"k", b"old")
        cluster.pause(leader)
        await until(lambda: cluster.leader_now() not in (None, leader))
        await cluster.connection(one).put(b"k", b"new")
        seen: list[bytes | None] = []

        async def read() -> None:
            seen.append(await cluster.connection(leader).get(b"k", timeout_s=30.0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await cluster.advance(1.0)
            assert not seen
            cluster.resume(leader)
        assert seen == [b"new"]

    play(scene)


def test_a_short_pause_changes_no_leader() -> None:
    async def scene(cluster: Cluster) -> None:
        leader, one, _ = await others(cluster)
        await cluster.advance(0.5)
        term = cluster.node(one).raft.term
        for name in (leader, one):
            cluster.pause(name)
            await cluster.advance(0.6)
            cluster.resume(name)
            await cluster.advance(0.5)
        assert await cluster.leader() == leader
        assert cluster.node(one).raft.term == term

    play(scene)


def test_a_leader_that_is_cut_off_acknowledges_nothing_and_the_others_go_on() -> None:
    async def scene(cluster: Cluster) -> None:
        leader, one, other = await others(cluster)
        cluster.partition([leader], [one, other])
        with pytest.raises((OutcomeUnknown, ConnectionLost)):
            await cluster.connection(leader).put(b"k", b"lost", timeout_s=2.0)
        assert await cluster.leader() != leader
        await cluster.connection(one).put(b"k", b"kept")
        with pytest.raises(ApiError):
            await cluster.connection(leader).get(b"k", timeout_s=1.0)
        cluster.heal()
        await until(lambda: applied(cluster, leader) == applied(cluster, one))
        for name in cluster.names:
            assert await cluster.connection(name).get(b"k") == b"kept"

    play(scene)


def test_one_of_three_alone_keeps_trying_and_its_term_stands() -> None:
    async def scene(cluster: Cluster) -> None:
        _, one, other = await others(cluster)
        for name in (one, other):
            await cluster.kill(name)
        (alone,) = cluster.in_state(State.UP)
        term = cluster.node(alone).raft.term
        await cluster.advance(60.0)
        assert cluster.node(alone).raft.term == term
        with pytest.raises(ApiError, match="no leader"):
            await cluster.connection(alone).get(b"k", timeout_s=1.0)
        await cluster.start(one)
        assert await cluster.leader(within_s=1.0)

    play(scene)


def test_power_that_fails_everywhere_loses_nothing_acknowledged() -> None:
    async def scene(cluster: Cluster) -> None:
        for place in range(5):
            await cluster.connection(cluster.names[place % 3]).put(b"k", b"%d" % place)
            async with trio.open_nursery() as nursery:
                for name in cluster.names:
                    nursery.start_soon(cluster.kill, name)
            for name in cluster.names:
                await cluster.start(name)
            assert await cluster.connection(cluster.names[0]).get(b"k") == b"%d" % place

    play(scene)


def test_a_member_that_was_away_for_long_is_brought_a_snapshot() -> None:
    async def scene(cluster: Cluster) -> None:
        leader, one, other = await others(cluster)
        await cluster.kill(one)
        client = cluster.connection(leader)
        for place in range(200):
            await client.put(b"%d" % (place % 7), b"%d" % place)
        await cluster.start(one)
        await until(lambda: applied(cluster, one) == applied(cluster, leader))
        assert cluster.node(one).installation.installed == 1
        assert state_of(cluster, one) == state_of(cluster, leader) == state_of(cluster, other)
        await cluster.kill(one)
        await cluster.start(one)
        await until(lambda: applied(cluster, one) == applied(cluster, leader))
        assert state_of(cluster, one) == state_of(cluster, leader)

    play(scene, catch_up_entries=20)


@pytest.mark.parametrize("name", SCENES)
def test_a_rule_holds_where_chance_seldom_comes(name: str) -> None:
    play(SCENES[name])
