"""A lock outlives what happens to the nodes of a simulated cluster; `test_recipes.py` does worse, to programs too."""

from __future__ import annotations

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
