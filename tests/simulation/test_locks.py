"""A lock outlives what happens to the nodes of a simulated cluster; `test_recipes.py` does worse, to programs too."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from coord.errors import SessionLost
from coord.testing import Cluster
from coord.testing.cluster_scenes import play

TTL_S = 6


def test_the_cluster_loses_its_leader_and_the_holder_its_node_but_not_the_lock() -> None:
    """S23, S30: leaders are killed, and each member falls silent for longer than the TTL."""

    async def scene(cluster: Cluster) -> None:
        async with cluster.client() as client, client.session(ttl=TTL_S) as session, session.lock("a") as lock:
            for _ in range(4):
                leader = await cluster.leader()
                await cluster.kill(leader)
                await cluster.advance(1.0)
                await client.put("k", b"v", fence=lock)
                await cluster.start(leader)
                await cluster.advance(TTL_S)
            for name in cluster.names:
                cluster.pause(name)
                await cluster.advance(2.0 * TTL_S)
                await client.put("k", b"v", fence=lock)
                cluster.resume(name)
                await cluster.advance(2.0)
            lock.check()

    play(scene)


@pytest.mark.parametrize("left", [0, 1])
def test_who_waits_while_the_quorum_is_lost_learns_that_the_session_is(left: int) -> None:
    """With nobody there to ask, and with a member that has no leader and says so."""

    async def story(cluster: Cluster) -> None:
        leader = await cluster.leader()

        async def cut_off() -> None:
            await trio.sleep(1.5)
            others = [name for name in cluster.members if name != leader]
            for name in [leader, *others[left:]]:
                await cluster.kill(name)

        async with (
            cluster.client() as client,
            cluster.client() as other,
            client.session(ttl=60) as holding,
            holding.lock("a"),
            other.session(ttl=TTL_S) as session,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(cut_off)
            with suppress(SessionLost):
                async with session.lock("a"):
                    raise AssertionError("two have it")
            assert session.is_lost

    play(story)
