"""Barriers of real clients on a simulated cluster, some of whose members and programs die."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
import trio
from attrs import define
from tests.simulation.troubles import TTL_S, disturb

from coord.client.client import Client
from coord.errors import CoordError
from coord.testing import Cluster
from coord.testing.cluster_scenes import play

NAME = "step"


def test_who_died_waiting_is_replaced_and_who_died_inside_holds_up_nobody() -> None:
    async def scene(cluster: Cluster) -> None:
        told: list[str] = []

        async def take_part(name: str, seconds: float) -> None:
            async with cluster.client() as client, client.session(ttl=TTL_S) as session:
                async with session.double_barrier(NAME, 3):
                    told.append(f"{name} is in")
                    await cluster.advance(seconds)
                told.append(f"{name} is out")

        cluster.launch("dies waiting", take_part, "dies waiting", 0.0)
        await cluster.advance(1.0)
        await cluster.kill("dies waiting")
        cluster.launch("a", take_part, "a", 1.0)
        # Two of three are there, and one of them is dead: its lease ends before the others come.
        await cluster.advance(3.0 * TTL_S)
        cluster.launch("b", take_part, "b", 2.0)
        await cluster.advance(1.0)
        assert told == []
        cluster.launch("dies inside", take_part, "dies inside", 100.0)
        await cluster.advance(0.5)
        assert sorted(told) == ["a is in", "b is in", "dies inside is in"]
        leader = await cluster.leader()
        await cluster.kill(leader)
        await cluster.kill("dies inside")
        await cluster.advance(3.0)
        assert len(told) == 3, "the lease of the dead one stands"
        await cluster.advance(2.0 * TTL_S)
        assert sorted(told[3:]) == ["a is out", "b is out"]
        async with cluster.client() as client:
            assert [pair async for pair in client.range(f"{NAME}/", prefix=True)] == []

    play(scene)


def test_a_barrier_holds_until_it_is_released_or_its_holder_is_dead() -> None:
    async def scene(cluster: Cluster) -> None:
        passed: list[float] = []

        async def hold() -> None:
            async with cluster.client() as client, client.session(ttl=TTL_S) as session:
                assert await client.barrier("up").hold(lease=session.lease)
                await trio.sleep_forever()

        async def wait() -> None:
            async with cluster.client() as client:
                await client.barrier("up").wait()
                passed.append(trio.current_time())

        cluster.launch("holder", hold)
        await cluster.advance(1.0)
        cluster.launch("waits", wait)
        cluster.launch("is cut off", wait)
        await cluster.advance(1.0)
        await cluster.kill(await cluster.leader())
        cluster.partition(["is cut off"], cluster.names)
        await cluster.advance(4.0 * TTL_S)
        assert passed == []
        cluster.pause("waits")
        killed_at = trio.current_time()
        await cluster.kill("holder")
        await cluster.advance(4.0 * TTL_S)
        cluster.heal()
        cluster.resume("waits")
        await cluster.advance(10.0)
        assert len(passed) == 2
        assert min(passed) > killed_at + 4.0 * TTL_S

    play(scene)


@define(eq=False)
class Rounds:
    """Programs that meet again and again, with sessions that may be lost."""

    cluster: Cluster
    chance: random.Random
    entered: int = 0
    is_over: bool = False

    async def work(self) -> None:
        while not self.is_over:
            with suppress(CoordError):
                async with self.cluster.client() as client:
                    while not self.is_over:
                        await self.meet(client)

    async def meet(self, client: Client) -> None:
        with trio.move_on_after(5.0 * TTL_S):
            async with client.session(ttl=TTL_S) as session, session.double_barrier(NAME, 3):
                self.entered += 1
                await trio.sleep(self.chance.choice([0.1, 1.0, 2.0]))


@pytest.mark.parametrize("seed", [1, 2])
def test_they_meet_again_whatever_happens(seed: int) -> None:
    async def scene(cluster: Cluster) -> None:
        rounds = Rounds(cluster, random.Random(f"rounds {seed}"))
        programs = [f"p{number}" for number in range(4)]
        for name in programs:
            cluster.launch(name, rounds.work)
        for _ in range(5):
            await disturb(cluster, rounds.chance, programs, lambda name: cluster.launch(name, rounds.work) and None)
        entered = rounds.entered
        await cluster.advance(6.0 * TTL_S)
        assert rounds.entered > entered + 9, "they get on when all is well again"
        rounds.is_over = True
        await cluster.advance(7.0 * TTL_S)
        async with cluster.client() as client:
            assert [pair async for pair in client.range(f"{NAME}/", prefix=True)] == []
            assert await client.leases() == []

    play(scene, seed)
