"""Real clients on a simulated cluster, in programs that can be paused and killed: each fault does what it says."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
import trio

from coord.errors import ConnectionFailed, DeadlineExceeded, OutcomeUnknown, Unavailable
from coord.limits import PING_GIVE_UP_S
from coord.testing import Cluster, open_cluster, run_seeded
from coord.testing.cluster_scenes import others, play
from coord.testing.deterministic import Trace


async def tick(cluster: Cluster, ticks: list[float], **options: float) -> None:
    """Write ten times a second, and note when each write has returned."""
    async with cluster.client(**options) as client:
        while True:
            await client.put("tick", b"%d" % len(ticks))
            ticks.append(trio.current_time())
            await trio.sleep(0.1)


def accepted(cluster: Cluster) -> int:
    """Return how many links of clients the members have taken since they were started."""
    return sum(member.host.gateway.metrics.client_connections_total for member in cluster.members.values())


def connections(cluster: Cluster) -> int:
    """Return how many links the members serve."""
    return sum(member.host.gateway.connections for member in cluster.members.values())


def test_a_client_calls_watches_and_leaves() -> None:
    async def scene(cluster: Cluster) -> None:
        async with cluster.client(name="me") as client:
            assert client.endpoints == ["n1:7379", "n2:7379", "n3:7379"]
            revision = await client.put("k", b"v")
            pair = await client.get("k")
            assert pair is not None
            assert pair.value == b"v"
            async with client.watch("k", since=revision) as watch:
                async for batch in watch:
                    assert batch.revision == revision
                    break
            assert client.clock() == trio.current_time()
            assert connections(cluster) == 2, "the active one and the one that stands by"
        await cluster.advance(0.1)
        assert connections(cluster) == 0

    play(scene)


def test_it_goes_on_with_the_other_members_when_one_is_killed() -> None:
    async def scene(cluster: Cluster) -> None:
        leader = await cluster.leader()
        async with cluster.client() as client:
            await client.put("k", b"1")
            await cluster.kill(leader)
            await cluster.advance(0.05)
            killed_at = trio.current_time()
            await client.put("k", b"2")
            assert trio.current_time() - killed_at < 0.3

    play(scene)


def test_it_is_told_when_a_member_stops_and_loses_no_call() -> None:
    async def scene(cluster: Cluster) -> None:
        ticks: list[float] = []
        cluster.launch("ticker", tick, cluster, ticks)
        for name in cluster.names:
            await cluster.advance(1.0)
            await cluster.stop(name)
            await cluster.start(name)
        assert max(after - before for before, after in pairwise(ticks)) < 0.5

    play(scene)


def test_a_paused_member_is_silent_and_its_links_stand() -> None:
    async def scene(cluster: Cluster) -> None:
        leader = await cluster.leader()
        async with cluster.client(endpoints=[leader]) as client:
            await client.put("k", b"v")
            before = accepted(cluster)
            cluster.pause(leader)
            with pytest.raises(DeadlineExceeded):
                await client.get("k", timeout=0.4)
            cluster.resume(leader)
            assert await client.get("k", timeout=2.0) is not None
            assert accepted(cluster) == before

    play(scene)


def test_what_is_cut_one_way_is_written_and_not_answered() -> None:
    async def scene(cluster: Cluster) -> None:
        leader = await cluster.leader()
        async with cluster.client("me", endpoints=[leader]) as client, cluster.client("she") as other:
            await client.put("k", b"1")
            cluster.cut(leader, "me")
            with pytest.raises(OutcomeUnknown):
                await client.put("k", b"2", timeout=1.0)
            pair = await other.get("k")
            assert pair is not None
            assert pair.value == b"2"
            cluster.heal()
            await client.put("k", b"3", timeout=1.0)

    play(scene)


def test_what_is_cut_the_other_way_is_not_written() -> None:
    async def scene(cluster: Cluster) -> None:
        leader = await cluster.leader()
        async with cluster.client("me", endpoints=[leader]) as client, cluster.client("she") as other:
            await client.put("k", b"1")
            cluster.cut("me", leader)
            with pytest.raises(OutcomeUnknown):
                await client.put("k", b"2", timeout=1.0)
            pair = await other.get("k")
            assert pair is not None
            assert pair.value == b"1"

    play(scene)


def test_a_member_that_is_silent_to_clients_leads_on() -> None:
    async def scene(cluster: Cluster) -> None:
        leader = await cluster.leader()
        async with cluster.client(endpoints=[leader]) as client:
            await client.put("k", b"v")
            cluster.silence(leader)
            with pytest.raises(DeadlineExceeded):
                await client.get("k", timeout=1.0)
            with pytest.raises(ConnectionFailed):
                async with cluster.client(endpoints=[leader], timeout=1.0):
                    pass
            assert cluster.leader_now() == leader
            cluster.unsilence(leader)
            assert await client.get("k", timeout=2.0) is not None

    play(scene)


def test_a_reset_loses_what_is_on_its_way_and_the_client_comes_again() -> None:
    async def scene(cluster: Cluster) -> None:
        leader = await cluster.leader()
        async with cluster.client("me", endpoints=[leader]) as client:
            await client.get("k")
            cluster.slow("me", leader, 0.2)
            before = accepted(cluster)
            read = trio.Event()

            async def get() -> None:
                await client.get("k")
                read.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(get)
                await cluster.advance(0.1)
                cluster.reset("me", leader)
            assert read.is_set()
            assert accepted(cluster) == before + 1

    play(scene)


def test_a_delay_is_as_long_as_asked_for() -> None:
    async def scene(cluster: Cluster) -> None:
        leader = await cluster.leader()
        async with cluster.client("me", endpoints=[leader]) as client:
            for there_s, back_s in ((0.3, 0.0), (0.0, 0.4), (0.3, 0.4)):
                cluster.slow("me", leader, there_s)
                cluster.slow(leader, "me", back_s)
                began = trio.current_time()
                await client.get("k")
                assert there_s + back_s <= trio.current_time() - began < there_s + back_s + 0.1
            cluster.heal()
            began = trio.current_time()
            await client.get("k")
            assert trio.current_time() - began < 0.1

    play(scene)


def test_a_partition_takes_programs_in() -> None:
    async def scene(cluster: Cluster) -> None:
        leader, one, other = await others(cluster)
        answered = {"near": 0.0, "far": 0.0}

        async def read(name: str) -> None:
            async with cluster.client() as client:
                while True:
                    with suppress(DeadlineExceeded, Unavailable):
                        await client.get("k", timeout=0.5)
                        answered[name] = trio.current_time()
                    await trio.sleep(0.1)

        for name in answered:
            cluster.launch(name, read, name)
        await cluster.advance(1.0)
        cluster.partition([leader, "near"], [one, other, "far"])
        cut_at = trio.current_time()
        await cluster.advance(5.0)
        assert answered["near"] < cut_at + 0.1
        assert answered["far"] > trio.current_time() - 0.5
        cluster.heal()
        await cluster.advance(2.0)
        assert answered["near"] > trio.current_time() - 0.5

    play(scene)


@pytest.mark.parametrize("pause_s", [0.5, PING_GIVE_UP_S - 2])
def test_a_paused_program_takes_no_step_and_goes_on_on_its_links(pause_s: float) -> None:
    async def scene(cluster: Cluster) -> None:
        ticks: list[float] = []
        cluster.launch("ticker", tick, cluster, ticks, timeout=60.0)
        await cluster.advance(1.0)
        cluster.pause("ticker")
        before, links = len(ticks), accepted(cluster)
        await cluster.advance(pause_s)
        assert len(ticks) <= before + 1, "one step may have been under way"
        cluster.resume("ticker")
        await cluster.advance(1.0)
        assert len(ticks) > before + 5
        assert accepted(cluster) == links

    play(scene)


def test_a_killed_program_does_nothing_any_more_and_says_no_goodbye() -> None:
    async def scene(cluster: Cluster) -> None:
        ticks: list[float] = []
        cleaned: list[str] = []

        async def main() -> None:
            try:
                await tick(cluster, ticks)
            finally:
                cleaned.append("up")

        program = cluster.launch("ticker", main)
        await cluster.advance(1.0)
        assert connections(cluster) == 2
        await cluster.kill("ticker")
        assert program.ended.is_set()
        assert program.is_killed
        await cluster.advance(0.1)
        assert connections(cluster) == 0
        before = len(ticks)
        await cluster.advance(5.0)
        assert (len(ticks), cleaned) == (before, [])
        cluster.launch("ticker", main)
        await cluster.advance(1.0)
        assert len(ticks) > before + 5
        assert cleaned == []

    play(scene)


def test_a_program_that_fails_fails_the_run() -> None:
    async def scene(cluster: Cluster) -> None:
        async def fail() -> None:
            await trio.sleep(1.0)
            raise ZeroDivisionError

        cluster.launch("failing", fail)
        await cluster.advance(2.0)
        raise AssertionError("not reached")

    with pytest.raises(ZeroDivisionError):
        play(scene)


def test_a_name_is_of_one_process_at_a_time() -> None:
    async def scene(cluster: Cluster) -> None:
        program = cluster.launch("a", trio.sleep, 1.0)
        with pytest.raises(ValueError, match="a is running"):
            cluster.launch("a", trio.sleep, 1.0)
        with pytest.raises(ValueError, match="n1 is a member"):
            cluster.launch("n1", trio.sleep, 1.0)
        await program.ended.wait()
        cluster.launch("a", trio.sleep, 1.0)

    play(scene)


def test_one_seed_gives_one_run() -> None:
    def trace(seed: int) -> str:
        async def main() -> str:
            trace = Trace()
            async with open_cluster(3, seed=seed, trace=trace) as cluster:
                ticks: list[float] = []
                for name in ("a", "b"):
                    cluster.launch(name, tick, cluster, ticks)
                await cluster.advance(1.0)
                cluster.pause("a")
                await cluster.advance(1.0)
                cluster.resume("a")
                await cluster.advance(0.5)
                trace("ticks", at=ticks)
            return trace.digest

        return run_seeded(seed, main)

    assert trace(1) == trace(1)
    assert trace(1) != trace(2)
