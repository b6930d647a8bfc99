"""The simulator of whole nodes: a cluster, its clients and its faults from one seed, and a verdict.

    python -m coord.testing.cluster_sim --seed 7 --trace
    python -m coord.testing.cluster_sim --seeds 0:100

A run is a failure if a checker finds something, if the members differ at its end, if the cluster does not come back
when the faults are over, or if too little happened to judge it by.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import trio
from attrs import define, field

from coord.testing.cluster import Cluster, open_cluster
from coord.testing.cluster_changes import CHANGES
from coord.testing.cluster_clients import (
    Caller,
    World,
    compact,
    hold_leases,
    leave_leases,
    watch,
    watch_everything,
    work,
)
from coord.testing.cluster_end import check_end, converge
from coord.testing.cluster_faults import FAULTS, Fault, Nemesis
from coord.testing.cluster_tally import MUST_HAPPEN, tally
from coord.testing.deterministic import Trace, fork, run_traced
from coord.testing.history import History, Kind, Outcome
from coord.testing.history_check import check_history
from coord.testing.history_ledger import replay
from coord.testing.lease_check import check_lasting, check_leases
from coord.testing.linearizability import calls_by_key, check_linearizable
from coord.testing.seeds import play
from coord.testing.watch_check import check_watches

VACUOUS = "too little happened to judge it by"
LASTS_S_MAX = 120.0
"""Of virtual time; a run that lasts longer hangs."""
EVERYTHING: dict[str, Fault] = {**FAULTS, **CHANGES}
ALONE = ("kill", "crash", "blackout", "pause", "slow disk", "fail disk", "stop", "grow", "silence")
"""What can befall a member that is alone."""
SEEDS_TELLING = 100
"""In so many seeds everything must happen at least once."""
DONE_MIN = 20
"""A run with fewer answered calls than this proves nothing."""


@define
class Plan:
    """What a seed chose."""

    seed: int
    size: int
    seconds: float
    workers: int
    watchers: int
    holders: int
    compacts: bool
    faults: tuple[str, ...]
    tracks: int
    options: dict[str, Any]
    leavers: int

    @staticmethod
    def of(seed: int) -> Plan:
        """Draw a plan: each seed has another subset of the faults, and other sizes."""
        chance = random.Random(seed)
        size = chance.choice((1, 3, 3, 3, 5, 5))
        faults = tuple(name for name in EVERYTHING if chance.random() < 0.5)
        if size == 1:
            faults = tuple(name for name in faults if name in ALONE)
        return Plan(
            seed=seed,
            size=size,
            seconds=chance.choice((8.0, 10.0, 12.0)),
            workers=chance.randint(3, 5),
            watchers=chance.randint(1, 3),
            holders=chance.randint(0, 2),
            compacts=chance.random() < 0.6,
            faults=faults,
            tracks=chance.choice((1, 2, 2)),
            options={
                "snapshot_count": chance.choice((10, 30, 200, 10_000)),
                # How far behind a member may be before it needs a snapshot.
                "catch_up_entries": chance.choice((20, 60, 5000)),
            },
            leavers=chance.randint(0, 1),
        )


@define
class Report:
    """What came of a run."""

    plan: Plan
    found: list[str] = field(factory=list)
    digest: str = ""
    lines: int = 0
    done: int = 0
    unknown: int = 0
    refused: int = 0
    events: int = 0
    judged: int = 0
    """Calls that the search for an order has judged."""
    entries: int = 0
    faults: Counter[str] = field(factory=Counter)
    happened: Counter[str] = field(factory=Counter)
    """See `coord.testing.cluster_tally`."""

    def __str__(self) -> str:
        faults = " ".join(f"{name}:{count}" for name, count in sorted(self.faults.items())) or "none"
        verdict = "ok" if not self.found else "FAILED"
        return (
            f"seed {self.plan.seed}: {verdict}, {self.plan.size} members, {self.done} calls done, "
            f"{self.refused} refused, {self.unknown} unknown, {self.entries} entries, "
            f"{self.events} watch events, {self.judged} judged; faults {faults}; trace {self.digest[:12]}"
        )


def run(seed: int, show: Callable[[str], None] | None = None, plan: Plan | None = None) -> Report:
    """Play a seed and judge it. What a node raises comes out."""
    report = Report(plan or Plan.of(seed))
    history = History()
    trace = run_traced(seed, lambda trace: _play(report, history, trace), LASTS_S_MAX, show)
    report.digest, report.lines = trace.digest, trace.lines
    return report


async def _play(report: Report, history: History, trace: Trace) -> None:
    plan = report.plan
    chance = random.Random(plan.seed)
    async with open_cluster(plan.size, seed=plan.seed, trace=trace, **plan.options) as cluster:
        ends_at = trio.current_time() + plan.seconds
        world = World(cluster.processes, history, fork(chance), trace, ends_at)
        nemesis = Nemesis(cluster, fork(chance), {kind: EVERYTHING[kind] for kind in plan.faults}, ends_at)
        async with trio.open_nursery() as nursery:
            _start_clients(nursery, world, plan)
            nursery.start_soon(nemesis.run, plan.tracks)
        report.faults = nemesis.counts
        report.found += await converge(cluster, world)
        if not report.found:
            _judge(report, cluster, history)


def _start_clients(nursery: trio.Nursery, world: World, plan: Plan) -> None:
    watchers = [watch_everything] + [watch] * (plan.watchers - 1)
    bodies = [work] * plan.workers + watchers + [hold_leases] * plan.holders + [compact] * plan.compacts
    bodies += [leave_leases] * plan.leavers
    for place, body in enumerate(bodies):
        nursery.start_soon(body, Caller(f"{body.__name__}{place}", world, fork(world.chance)))


def _judge(report: Report, cluster: Cluster, history: History) -> None:
    played = replay(cluster.ledger)
    report.found += check_end(cluster, played)
    report.found += check_history(history, played)
    report.found += check_leases(history, played)
    report.found += check_lasting(history, played, cluster.ledger).found
    report.found += check_watches(history, played.model)
    report.found += check_linearizable(history)
    counts = Counter(operation.outcome for operation in history.operations)
    report.done, report.refused = counts[Outcome.DONE], counts[Outcome.REFUSED]
    report.unknown = counts[Outcome.UNKNOWN]
    report.entries = len(cluster.ledger.entries)
    report.events = sum(len(record.told) for record in history.watches)
    report.happened = tally(cluster, history, played) + Counter(
        {"calls done": report.done, "faults": report.faults.total()}
    )
    report.judged = sum(map(len, calls_by_key(history).values()))
    writes = history.count(Kind.WRITE, Outcome.DONE)
    if report.done < DONE_MIN or writes < DONE_MIN // 4 or not report.events or not report.judged:
        report.found.append(f"{VACUOUS}: {report}")
    if report.plan.faults and not report.faults:
        report.found.append(f"{VACUOUS}: no fault struck")


def main(arguments: list[str] | None = None) -> int:
    """See the module's docstring; return the number of failed seeds."""
    return play(arguments, run, MUST_HAPPEN, SEEDS_TELLING)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
