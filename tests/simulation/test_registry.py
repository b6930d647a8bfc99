"""The registry on a simulated cluster: outages stay the cluster's, and who has crashed is forgotten in time."""

from __future__ import annotations

import trio
from tests.simulation.troubles import TTL_S

from coord.client.recipes.discovery import Discovery
from coord.testing import Cluster
from coord.testing.cluster_scenes import play


async def register_for_ever(cluster: Cluster, address: str, ttl_s: int = TTL_S) -> None:
    async with cluster.client() as client, client.session(ttl=ttl_s) as session, session.register("api", address):
        await trio.sleep_forever()


async def shown(api: Discovery, addresses: list[str], within_s: float) -> None:
    """Wait until just these are shown."""
    with trio.fail_after(within_s):
        while [instance.address for instance in api] != addresses:
            await api.changed()


def test_who_leaves_is_gone_at_once_and_who_crashes_when_its_lease_ends() -> None:
    async def scene(cluster: Cluster) -> None:
        left = trio.Event()

        async def serve() -> None:
            async with cluster.client() as client, client.session() as session, session.register("api", "leaves"):
                await left.wait()

        async with cluster.client() as client, client.discover("api") as api:
            cluster.launch("leaves", serve)
            cluster.launch("crashes", register_for_ever, cluster, "crashes")
            await shown(api, ["crashes", "leaves"], 1.0)
            left.set()
            await shown(api, ["crashes"], 0.1)
            killed_at = trio.current_time()
            await cluster.kill("crashes")
            await shown(api, [], 2.0 * TTL_S)
            assert trio.current_time() - killed_at > TTL_S - TTL_S / 3 - 0.1
            # Started again at once it is shown at once, and once, though the lease of the former run stands.
            cluster.launch("crashes", register_for_ever, cluster, "crashes")
            await shown(api, ["crashes"], 1.0)
            await cluster.kill("crashes")
            cluster.launch("crashes", register_for_ever, cluster, "crashes")
            await cluster.advance(2.0 * TTL_S)
            assert [instance.address for instance in api] == ["crashes"]

    play(scene)


def test_an_outage_is_nobodys_but_the_clusters() -> None:
    # S28: all members are down for longer than any TTL; who serves goes on, and who looks knows where.
    async def scene(cluster: Cluster) -> None:
        addresses = ["a:1", "b:1", "c:1"]
        for address in addresses:
            cluster.launch(address, register_for_ever, cluster, address)
        async with cluster.client() as client, client.discover("api") as api:
            await shown(api, addresses, 2.0)
            for name in cluster.names:
                await cluster.kill(name)
            for _ in range(10):
                await cluster.advance(TTL_S)
                assert {api.pick().address for _ in range(3)} == set(addresses)
                assert api.is_stale
                assert api.stale_since is not None
            for name in cluster.names:
                await cluster.start(name)
            with trio.fail_after(30):
                while api.is_stale:  # noqa: ASYNC110  # virtual time
                    await trio.sleep(0.1)
            await cluster.advance(4.0 * TTL_S)
            assert [instance.address for instance in api] == addresses
            assert not api.is_stale
            assert len(await client.leases()) == len(addresses)
            for address in addresses:
                await cluster.kill(address)

    play(scene)


def test_a_view_in_the_minority_says_that_it_is_stale_and_goes_on_elsewhere() -> None:
    async def scene(cluster: Cluster) -> None:
        leader = await cluster.leader()
        alone = next(name for name in cluster.names if name != leader)
        rest = [name for name in cluster.names if name != alone]
        async with cluster.client("looker", endpoints=[alone]) as client, client.discover("api") as api:
            cluster.launch("serves", register_for_ever, cluster, "serves")
            await shown(api, ["serves"], 1.0)
            cluster.partition([alone, "looker"], [*rest, "serves"])
            await cluster.advance(4.0)
            assert api.is_stale, "a member without a leader says so"
            assert api.pick().address == "serves"
            cluster.heal()
            await cluster.advance(3.0)
            assert not api.is_stale

        async with cluster.client("looker", endpoints=cluster.names) as client, client.discover("api") as api:
            cluster.partition([alone], [*rest, "serves", "looker"])
            cluster.launch("comes", register_for_ever, cluster, "comes")
            await shown(api, ["comes", "serves"], 12.0)
            cluster.heal()
            for name in ("serves", "comes"):
                await cluster.kill(name)

    play(scene)


def test_a_service_that_stood_still_is_registered_again() -> None:
    async def scene(cluster: Cluster) -> None:
        ended: list[str] = []

        async def serve() -> None:
            await register_for_ever(cluster, "sleepy")
            ended.append("its block")

        async with cluster.client() as client, client.discover("api") as api:
            cluster.launch("sleepy", serve)
            await shown(api, ["sleepy"], 1.0)
            (lease,) = await client.leases()
            cluster.pause("sleepy")
            await shown(api, [], 2.0 * TTL_S)
            await cluster.advance(TTL_S)
            cluster.resume("sleepy")
            await shown(api, ["sleepy"], 2.0)
            assert await client.leases() != [lease]
            assert api.pick().lease != lease
            assert ended == []
            await cluster.kill("sleepy")

    play(scene)


def test_a_view_survives_compaction_while_it_was_cut_off() -> None:
    async def scene(cluster: Cluster) -> None:
        async with cluster.client("looker") as client, cluster.client("me") as mine, client.discover("api") as api:
            cluster.launch("stays", register_for_ever, cluster, "stays")
            cluster.launch("goes", register_for_ever, cluster, "goes")
            await shown(api, ["goes", "stays"], 2.0)
            cluster.partition(["looker"], [*cluster.names, "me", "stays", "goes"])
            await cluster.kill("goes")
            await cluster.advance(2.0 * TTL_S)
            revision = await mine.put("k", b"v")
            await mine.compact(revision, physical=True)
            assert [instance.address for instance in api] == ["goes", "stays"]
            cluster.heal()
            await shown(api, ["stays"], 15.0)
            await cluster.kill("stays")

    play(scene)
