"""Elections of real clients on a simulated cluster, and what those see who only look."""

from __future__ import annotations

import os
import random
import re
from contextlib import suppress
from itertools import count

import pytest
import trio
from attrs import define, field
from tests.simulation.troubles import TTL_S, disturb

from coord.client.client import Client
from coord.client.recipes.owners import Owner
from coord.errors import CoordError, LeadershipLost
from coord.testing import Cluster
from coord.testing.beliefs import Belief, Observer
from coord.testing.cluster_scenes import play


@define(eq=False)
class Story:
    """Programs that want to lead, and one that looks on."""

    cluster: Cluster
    chance: random.Random
    observer: Observer
    led: int = 0
    proclaimed: dict[int, list[bytes]] = field(factory=dict)
    """What each owner has proclaimed or tried to, by fence."""
    seen: list[Owner | None] = field(factory=list)
    is_over: bool = False

    async def work(self, run: str) -> None:
        while not self.is_over:
            with suppress(CoordError):
                async with self.cluster.client() as client:
                    while not self.is_over:
                        with suppress(CoordError):
                            await self.lead(client, run)
                        await trio.sleep(0.2)

    async def lead(self, client: Client, run: str) -> None:
        value = run.encode()
        async with client.session(ttl=TTL_S) as session, session.lead("a", value) as leadership:
            self.observer.enter(Belief(leadership, "a", "lead", run))
            self.led += 1
            values = self.proclaimed[leadership.fence] = [value]
            for number in range(self.chance.choice([0, 1, 3])):
                values.append(b"%s %d" % (value, number))
                await leadership.proclaim(values[-1])
                await client.put("who", values[-1], fence=leadership)
                await trio.sleep(self.chance.choice([0.0, 1.0]))
            if self.chance.random() < 0.3:
                await leadership.resign()
            await trio.sleep(self.chance.choice([0.0, 2.0]))

    async def look(self) -> None:
        """Look on from first to last, in the same block."""
        async with self.cluster.client("looker") as client, client.observe("a") as owners:
            async for owner in owners:
                self.seen.append(owner)

    def check_seen(self) -> None:
        """Owners came one after the other, and told only what they had proclaimed."""
        fences = [owner.fence for owner in self.seen if owner is not None]
        assert fences == sorted(fences)
        for owner in self.seen:
            if owner is not None:
                # Who was killed or lost before it knew that it led has told what it stood with.
                told = self.proclaimed.get(owner.fence)
                assert owner.value in told if told else re.fullmatch(rb"p\d \d+", owner.value)
        assert len(set(fences)) > 5


def elect(seed: int, faults: int) -> None:
    async def scene(cluster: Cluster) -> None:
        story = Story(cluster, random.Random(f"elections {seed}"), Observer(cluster.trace))
        cluster.launch("looker", story.look)
        programs = [f"p{number}" for number in range(3)]
        runs = count()

        def launch(name: str) -> None:
            run = story.observer.running[name] = f"{name} {next(runs)}"
            cluster.launch(name, story.work, run)

        for name in programs:
            launch(name)
        for _ in range(faults):
            await disturb(cluster, story.chance, programs, launch)
        led = story.led
        await cluster.advance(4.0 * TTL_S)
        assert story.led > led + 3, "they get on when all is well again"
        story.is_over = True
        await cluster.advance(6.0 * TTL_S)
        assert story.seen[-1] is None, "in the end everybody has left, and it is seen"
        story.check_seen()
        assert story.observer.wrong == []
        async with cluster.client() as client:
            assert [pair async for pair in client.range("a/", prefix=True)] == []
            assert await client.leases() == []
        await cluster.kill("looker")

    play(scene, seed)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_two_lead_and_all_see_the_owners_in_order(seed: int) -> None:
    elect(seed, faults=5)


@pytest.mark.sim
def test_more_seeds() -> None:
    """`SEED=n` plays that one alone."""
    seed = int(os.environ.get("SEED", "0"))
    for one in [seed] if seed else range(200, 230):
        elect(one, faults=12)


def test_a_leader_that_stands_still_is_replaced_and_stops_when_it_wakes() -> None:
    async def scene(cluster: Cluster) -> None:
        told: list[str] = []

        async def lead() -> None:
            async with cluster.client() as client, client.session(ttl=TTL_S) as session:
                try:
                    async with session.lead("a", b"first") as leadership:
                        told.append("first leads")
                        await trio.sleep_forever()
                finally:
                    told.append("first has stopped")
                    with pytest.raises(LeadershipLost):
                        leadership.check()

        async def give_up() -> None:
            with pytest.raises(LeadershipLost):
                await lead()

        async with cluster.client() as client, client.session(ttl=TTL_S) as session:
            cluster.launch("first", give_up)
            await cluster.advance(1.0)
            paused_at = trio.current_time()
            cluster.pause("first")
            async with session.lead("a", b"second", wait=5 * TTL_S):
                # Not before its lease can have ended, and not long after.
                assert TTL_S - TTL_S / 3 <= trio.current_time() - paused_at <= 1.5 * TTL_S + 1.0
                assert told == ["first leads"]
                cluster.resume("first")
                await cluster.advance(0.1)
                assert told == ["first leads", "first has stopped"]

    play(scene)
