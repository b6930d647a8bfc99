"""What befalls a simulated cluster: faults drawn from a seed, one or two at a time, each taken back after a while."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import trio
from attrs import define, field

from coord.testing.cluster import Cluster, State
from coord.testing.deterministic import fork

Fault = Callable[["Nemesis"], Awaitable[None]]


@define(eq=False)
class Nemesis:
    """Draws faults; `counts` says how often each struck."""

    cluster: Cluster
    chance: random.Random
    faults: Mapping[str, Fault]
    ends_at: float
    counts: Counter[str] = field(factory=Counter)
    size: int = field(init=False)
    """How many members there were at first."""
    is_changing: bool = False
    """The members are being changed."""
    touched: set[str] = field(factory=set)
    """Members that a fault is working on."""

    def __attrs_post_init__(self) -> None:
        self.size = len(self.cluster.names)

    async def run(self, tracks: int) -> None:
        """Let faults strike on so many tracks at once, until the end."""
        async with trio.open_nursery() as nursery:
            for _ in range(tracks if self.faults else 0):
                nursery.start_soon(self._track, fork(self.chance))

    async def _track(self, chance: random.Random) -> None:
        while True:
            await trio.sleep(chance.uniform(0.05, 1.5))
            if trio.current_time() >= self.ends_at:
                return
            await self.strike(chance)

    async def strike(self, chance: random.Random) -> None:
        """Let one fault strike, and wait until it is taken back."""
        kind = chance.choice(tuple(self.faults))
        self.cluster.trace("fault", kind=kind)
        self.counts[kind] += 1
        await self.faults[kind](self)

    # -- how faults choose ----------------------------------------------------------------------------------------

    def victim(self) -> str | None:
        """Return a member that nothing else is done to, the leader more often than others; None if there is none."""
        free = [name for name in self.cluster.in_state(State.UP) if name not in self.touched]
        if not free:
            return None
        leader = self.cluster.leader_now()
        if leader in free and self.chance.random() < 0.5:
            return leader
        return self.chance.choice(free)

    def begin_change(self) -> bool:
        """Begin a change of the members, unless one is under way; `is_changing` is taken back at its end."""
        is_free = not self.is_changing
        self.is_changing = True
        return is_free

    async def while_touching(self, name: str, body: Callable[[], Awaitable[None]]) -> None:
        """Do something to a member that nothing else is done to meanwhile."""
        self.touched.add(name)
        try:
            await body()
        finally:
            self.touched.discard(name)

    async def last(self, low_s: float, high_s: float) -> None:
        """Wait for as long as a fault lasts, but not beyond the end."""
        left_s = self.ends_at - trio.current_time()
        await trio.sleep(max(0.0, min(self.chance.uniform(low_s, high_s), left_s)))

    def pair(self) -> tuple[str, str]:
        """Return two members."""
        names = self.cluster.names
        one = self.chance.choice(names)
        return one, self.chance.choice([name for name in names if name != one] or names)


async def _kill(nemesis: Nemesis, *, power: bool = True) -> None:
    name = nemesis.victim()
    if name is None:
        return
    cluster = nemesis.cluster

    async def body() -> None:
        await cluster.kill(name, power=power)
        await nemesis.last(0.01, nemesis.chance.choice((0.3, 2.0, 6.0)))
        await cluster.start(name)

    await nemesis.while_touching(name, body)


async def _crash(nemesis: Nemesis) -> None:
    await _kill(nemesis, power=False)


async def _blackout(nemesis: Nemesis) -> None:
    """Power fails everywhere at once."""
    cluster = nemesis.cluster
    names = [name for name in cluster.in_state(State.UP) if name not in nemesis.touched]
    nemesis.touched.update(names)
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(cluster.kill, name)
    await nemesis.last(0.1, 1.0)
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(cluster.start, name)
    nemesis.touched.difference_update(names)


async def _pause(nemesis: Nemesis) -> None:
    """Longer than an election, at times longer than a lease."""
    name = nemesis.victim()
    if name is None:
        return
    cluster = nemesis.cluster

    async def body() -> None:
        cluster.pause(name)
        await nemesis.last(0.05, nemesis.chance.choice((0.5, 3.0, 7.0)))
        cluster.resume(name)

    await nemesis.while_touching(name, body)


async def _slow_disk(nemesis: Nemesis) -> None:
    """At times power fails before it is over: what waits for the disk is lost then, and nothing else may be."""
    name = nemesis.victim()
    if name is None:
        return
    cluster, chance = nemesis.cluster, nemesis.chance

    async def body() -> None:
        cluster.slow_disk(name, chance.choice((0.02, 0.1, 0.6)), log_only=chance.random() < 0.5)
        await nemesis.last(0.3, 4.0)
        if chance.random() < 0.4:
            await cluster.kill(name)
            await nemesis.last(0.01, 1.0)
            await cluster.start(name)
        cluster.slow_disk(name)

    await nemesis.while_touching(name, body)


async def _fail_disk(nemesis: Nemesis) -> None:
    name = nemesis.victim()
    if name is None:
        return
    cluster = nemesis.cluster

    async def body() -> None:
        await cluster.fail_disk(name)
        await nemesis.last(0.01, 2.0)
        await cluster.start(name)

    await nemesis.while_touching(name, body)


async def _isolate(nemesis: Nemesis) -> None:
    cluster = nemesis.cluster
    name = nemesis.victim() or nemesis.chance.choice(cluster.names)
    cluster.partition([name], [other for other in cluster.names if other != name])
    await nemesis.last(0.3, 5.0)
    cluster.heal()


async def _split(nemesis: Nemesis) -> None:
    cluster = nemesis.cluster
    names = list(cluster.names)
    nemesis.chance.shuffle(names)
    half = nemesis.chance.randint(1, max(len(names) - 1, 1))
    cluster.partition(names[:half], names[half:])
    await nemesis.last(0.3, 5.0)
    cluster.heal()


async def _one_way(nemesis: Nemesis) -> None:
    one, other = nemesis.pair()
    nemesis.cluster.cut(one, other)
    await nemesis.last(0.3, 6.0)
    nemesis.cluster.heal()


async def _reset(nemesis: Nemesis) -> None:
    one, other = nemesis.pair()
    nemesis.cluster.trace("reset", one=one, other=other)
    nemesis.cluster.network.reset(one, other)
    await trio.lowlevel.checkpoint()


async def _slow(nemesis: Nemesis) -> None:
    one, other = nemesis.pair()
    delay_s = nemesis.chance.choice((0.02, 0.1, 0.5))
    nemesis.cluster.trace("slow", sender=one, receiver=other, delay_s=delay_s)
    nemesis.cluster.network.slow(one, other, delay_s)
    await nemesis.last(0.3, 4.0)
    nemesis.cluster.network.slow(one, other, 0.0)


FAULTS: dict[str, Fault] = {
    "kill": _kill,
    "crash": _crash,
    "blackout": _blackout,
    "pause": _pause,
    "slow disk": _slow_disk,
    "fail disk": _fail_disk,
    "isolate": _isolate,
    "split": _split,
    "one way": _one_way,
    "reset": _reset,
    "slow": _slow,
}
