"""Bad things that happen to programs and members of a simulated cluster, and are made good."""

from __future__ import annotations

import random
from collections.abc import Callable

from coord.testing import Cluster

TTL_S = 6


async def disturb(
    cluster: Cluster, chance: random.Random, programs: list[str], relaunch: Callable[[str], None]
) -> None:
    """Do one bad thing, and make it good; `relaunch` starts a program that was killed."""
    what = chance.choice(["pause", "pause", "kill", "cut", "leader", "member", "away"])
    name = chance.choice(programs)
    if what == "pause":
        cluster.pause(name)
        await cluster.advance(chance.choice([1.0, TTL_S - 1.0, 2.5 * TTL_S]))
        cluster.resume(name)
    elif what == "kill":
        await cluster.kill(name)
        relaunch(name)
    elif what == "cut":
        cluster.partition([name], cluster.names)
        await cluster.advance(chance.choice([1.0, 2.0 * TTL_S]))
        cluster.heal()
    elif what == "leader":
        leader = await cluster.leader()
        await cluster.kill(leader)
        await cluster.advance(chance.choice([0.5, 3.0]))
        await cluster.start(leader)
    elif what == "member":
        member = chance.choice(cluster.names)
        cluster.pause(member)
        await cluster.advance(chance.choice([0.5, 3.0, 8.0]))
        cluster.resume(member)
    else:
        member = chance.choice(cluster.names)
        rest = [one for one in cluster.names if one != member]
        cluster.partition([member, name], [*rest, *(one for one in programs if one != name)])
        await cluster.advance(chance.choice([2.0, 2.0 * TTL_S]))
        cluster.heal()
    await cluster.advance(chance.choice([0.0, 1.0, 4.0]))
