"""The simulator of the recipes: programs that own, register and queue, under faults of their own and of the cluster.

    python -m coord.testing.recipe_sim --seed 7 --trace
    python -m coord.testing.recipe_sim --seeds 0:100

A run is a failure if two programs believe at one moment to own what one may, by their own deadlines (S24); if effects
under a fence come in another order than the fences (S27); if a wait in vain leaves a key (S26), or the end leaves a
key, a lease, a watch, a link or a task; if an instance is not registered again (S28); if an item is taken twice or
lost; or if the programs do not get on once the faults are over.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import trio
from attrs import define, field

from coord.client.client import Client
from coord.testing.beliefs import Observer
from coord.testing.cluster import Cluster, open_cluster
from coord.testing.cluster_changes import CHANGES
from coord.testing.cluster_clients import World
from coord.testing.cluster_end import check_end, converge
from coord.testing.cluster_faults import FAULTS, Fault, Nemesis
from coord.testing.deterministic import Trace, fork, run_traced
from coord.testing.history import History
from coord.testing.history_ledger import replay
from coord.testing.link_faults import LINK_FAULTS
from coord.testing.recipe_programs import EFFECT, LEAD, SERVICE, TTL_S, Life, drain
from coord.testing.seeds import play

LASTS_S_MAX: Final = 300.0
"""Of virtual time; a run that lasts longer hangs."""
QUIET_S: Final = 2.0 * TTL_S
"""Without faults; whatever they have left is over by then."""
ENDS_WITHIN_S: Final = 6.0 * TTL_S
"""Every program, when it is told: it may wait for a lock whose owner has died."""
STRIKES: Final[dict[str, Fault]] = {
    **FAULTS,
    **{name: CHANGES[name] for name in ("move", "stop", "silence")},
    **LINK_FAULTS,
}
ONE_BY_ONE: Final = ("kill", "crash", "pause", "stop", "move", "reset", "isolate")
"""What costs nobody a session, if one strikes at a time (S30)."""
KINDS: Final = (("lock",), ("read", "write"), ("semaphore",), ("lead",), ("lock", "lead", "semaphore", "read", "write"))
MUST_HAPPEN: Final = (
    "lock owned",
    "read owned",
    "write owned",
    "semaphore owned",
    "lead owned",
    "resigned",
    "waits that timed out",
    "ownerships lost",
    "sessions lost",
    "effects",
    "items taken",
    "owners told of",
    "met",
    "elections",
    "leases expired",
)
SEEDS_TELLING: Final = 20
"""In so many seeds everything must happen at least once."""


@define
class Plan:
    """What a seed chose."""

    seed: int
    seconds: float
    programs: int
    kinds: tuple[str, ...]
    faults: tuple[str, ...]
    tracks: int
    """0: one fault after the other, and a TTL between them."""
    options: dict[str, Any]

    @staticmethod
    def of(seed: int) -> Plan:
        """Draw a plan: each seed has another subset of the faults."""
        chance = random.Random(seed)
        tracks = chance.choice((0, 1, 2, 2))
        drawn = tuple(name for name in STRIKES if chance.random() < 0.5)
        return Plan(
            seed=seed,
            seconds=chance.choice((10.0, 20.0, 30.0)),
            programs=chance.randint(3, 5),
            kinds=chance.choice(KINDS),
            faults=drawn if tracks else ONE_BY_ONE,
            tracks=tracks,
            options={
                "snapshot_count": chance.choice((30, 10_000)),
                "catch_up_entries": chance.choice((20, 5000)),
                "client_records_max": chance.choice((2, 10_000, 10_000)),
            },
        )


@define
class Report:
    """What came of a run."""

    plan: Plan
    found: list[str] = field(factory=list)
    digest: str = ""
    lines: int = 0
    happened: Counter[str] = field(factory=Counter)

    def __str__(self) -> str:
        verdict = "ok" if not self.found else "FAILED"
        told = ", ".join(f"{name}: {count}" for name, count in sorted(self.happened.items()))
        return f"seed {self.plan.seed}: {verdict}, {told}; trace {self.digest[:12]}"


def run(seed: int, show: Callable[[str], None] | None = None, plan: Plan | None = None) -> Report:
    """Play a seed and judge it. What a node or a client raises that it should not comes out."""
    report = Report(plan or Plan.of(seed))
    trace = run_traced(seed, lambda trace: _play(report, trace), LASTS_S_MAX, show)
    report.digest, report.lines = trace.digest, trace.lines
    return report


async def _play(report: Report, trace: Trace) -> None:
    plan = report.plan
    chance = random.Random(plan.seed)
    async with open_cluster(3, seed=plan.seed, trace=trace, **plan.options) as cluster:
        faults_end_at = trio.current_time() + plan.seconds
        observer = Observer(trace)
        nemesis = Nemesis(cluster, fork(chance), {name: STRIKES[name] for name in plan.faults}, faults_end_at)
        async with trio.open_nursery() as nursery:
            for place in range(plan.programs):
                nursery.start_soon(_supervise, cluster, observer, fork(chance), f"p{place}", plan.kinds)
            await (nemesis.run(plan.tracks) if plan.tracks else _strike_one_by_one(nemesis))
            await trio.sleep_until(faults_end_at)
            observer.is_calm = True
            world = World(cluster.processes, History(), fork(chance), trace, faults_end_at)
            report.found += await converge(cluster, world)
            await _see_them_get_on(report, cluster, observer)
            observer.over.set()
            nursery.cancel_scope.cancel()
        await _see_the_end(report, cluster, observer)


async def _strike_one_by_one(nemesis: Nemesis) -> None:
    while trio.current_time() < nemesis.ends_at:
        await nemesis.strike(nemesis.chance)
        await nemesis.last(TTL_S, 1.5 * TTL_S)


async def _supervise(
    cluster: Cluster, observer: Observer, chance: random.Random, name: str, kinds: tuple[str, ...]
) -> None:
    """Run a program, and start it again when it was killed."""
    for count in range(1_000):
        if observer.is_over:
            return
        run = observer.running[name] = f"{name}.{count}"
        life = Life(cluster, observer, fork(chance), name, run, kinds)
        await cluster.launch(name, life.live).ended.wait()
        del observer.running[name]
        await trio.sleep(0.5)


async def _see_them_get_on(report: Report, cluster: Cluster, observer: Observer) -> None:
    await cluster.advance(QUIET_S)
    observer.is_quiet = True
    before = sum(count for name, count in observer.happened.items() if name.endswith("owned"))
    await cluster.advance(QUIET_S)
    after = sum(count for name, count in observer.happened.items() if name.endswith("owned"))
    if after < before + 3:
        report.found.append(f"{after - before} became owners in {QUIET_S:g} s without a fault")
    led = observer.last_fence.get(LEAD, 0)
    await cluster.advance(1.0)
    async with cluster.client("judge") as client, client.discover(SERVICE) as service:
        observer.views["judge"] = lambda: sorted(instance.address for instance in service)
        for run in (*observer.running.values(), "judge"):
            if (found := observer.views[run]()) != sorted(observer.running):
                report.found.append(f"{sorted(observer.running)} are to be registered, and {run} sees {found}")
            if run != "judge" and observer.heard.get(run, 0) < led:
                report.found.append(
                    f"{run} was told of fence {observer.heard.get(run, 0)} last, and {led} owned long ago"
                )


async def _see_the_end(report: Report, cluster: Cluster, observer: Observer) -> None:
    for name, program in cluster.programs.by_name.items():
        with trio.move_on_after(ENDS_WITHIN_S) as limit:
            await program.ended.wait()
        if limit.cancelled_caught:
            report.found.append(f"{name} does not end")
    await cluster.advance(1.0)
    links = sum(member.host.gateway.connections for member in cluster.members.values())
    watches = sum(cluster.node(name).watches.watch_count for name in cluster.names)
    async with cluster.client("judge") as client:
        await drain(client, lambda item: observer.consumed.update([item]))
        left = [pair.key async for pair in client.range("", prefix=True, keys_only=True)]
        leases = await client.leases()
        await _judge_effects(report, client)
    report.found += observer.wrong
    if not report.plan.tracks:
        # S30: who talks to a node that dies or falls silent finds another in time.
        lost = {name: count for name, count in observer.happened.items() if name.endswith("lost") and count}
        report.found += [f"one fault at a time, and {count} {name}" for name, count in lost.items()]
    report.found += [f"{links} links are left"] * (links > 0) + [f"{watches} watches are left"] * (watches > 0)
    report.found += [f"leases are left: {leases}"] * bool(leases)
    report.found += [f"{key!r} is left" for key in left if not key.startswith(EFFECT.encode()) and key != b"last"]
    _judge_queue(report, observer)
    played = replay(cluster.ledger)
    report.found += check_end(cluster, played)
    report.happened = observer.happened + Counter(
        {
            "items taken": observer.consumed.total(),
            "elections": cluster.happened["raft.election.won"],
            "leases expired": sum(end.is_expiry for end in played.lease_ends),
        }
    )


async def _judge_effects(report: Report, client: Client) -> None:
    """S27: effects stand in the order of their fences, whatever their owners believed."""
    newest = await client.range_response(EFFECT, prefix=True)
    if not newest.kvs:
        return
    fences: dict[bytes, int] = {}
    last = max(pair.mod_revision for pair in newest.kvs)
    async with client.watch(EFFECT, prefix=True, since=1) as batches:
        async for batch in batches:
            for event in batch.events:
                key, fence = event.kv.key, int(event.kv.value)
                if fence < fences.get(key, 0):
                    report.found.append(f"{key!r}: an effect of fence {fence} after one of {fences[key]}")
                fences[key] = fence
            if batch.revision >= last:
                return


def _judge_queue(report: Report, observer: Observer) -> None:
    twice = [item for item, count in observer.consumed.items() if count > 1]
    report.found += [f"{item!r} was taken {observer.consumed[item]} times" for item in twice]
    report.found += [f"nobody put {item!r}" for item in observer.consumed if item not in observer.put]
    lost = [item for item, is_put in observer.put.items() if is_put and not observer.consumed[item]]
    if len(lost) > observer.doubtful_gets:
        report.found.append(f"{lost} are lost, and {observer.doubtful_gets} gets are in doubt")


def main(arguments: list[str] | None = None) -> int:
    """See the module's docstring; return the number of failed seeds."""
    return play(arguments, run, MUST_HAPPEN, SEEDS_TELLING)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
