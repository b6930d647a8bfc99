"""How long a cluster of three acknowledges no write when a node goes, and whether a write is lost.

    python bench/failover.py --kills 30       kill -9 of the leader
    python bench/failover.py --pauses 30      SIGSTOP of the leader; SIGCONT once another has led for a while
    python bench/failover.py --rolling 3      all nodes stopped in order and started again, one by one, so many times

10 connections to all three nodes carry 100 clients, each of which sends its next put when it has the answer to the
last. A write that ends as `OutcomeUnknown` is not repeated. Each time the longest time between two acknowledged
writes is told; then the node has to follow again, and every write acknowledged since the last check has to be there.

Ends with status 1 if a write is missing, a node does not return, or a limit is exceeded: after kills 300 ms at the 95th
percentile, after pauses two election timeouts, and in a rolling restart 300 ms each time, with no write that fails.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio
from attrs import asdict, define, field, frozen

import coord
from cluster import Cluster, Node, metrics, running
from coord.config import ServeConfig
from coord.errors import CoordError, OutcomeUnknown

PREFIX = "w/"
SLOTS = 1_000
"""Keys of one client, written in turn: more than it writes between two checks, so that none hides a lost one."""
PAGE = 10_000
COMPACTION = ("--auto-compaction-mode=periodic", "--auto-compaction-retention=10s")
"""Else the store grows by 200 000 revisions between two losses, and each start takes longer than the one before."""
RECOVER_TIMEOUT_S = 30.0
RETRY_S = 0.001
PAUSE_ELECTIONS = 2
"""Election timeouts in which a paused leader is replaced."""


@define
class Loss:
    """What it cost that a node was gone for a while."""

    node: str
    gap_ms: float
    back_ms: float
    missing: int
    unknown: int
    refused: int

    @property
    def failed(self) -> int:
        return self.unknown + self.refused


@define(eq=False)
class Load:
    """The clients, and what they were told."""

    value: bytes
    settle_s: float
    """How long writes have to go on before a node goes, and after."""
    acknowledged: dict[bytes, int] = field(factory=dict)
    """The revision of each write since the last check."""
    count: int = 0
    unknown: int = 0
    refused: int = 0
    last_at: float = 0.0
    gap_s: float = 0.0
    may_write: trio.Event = field(factory=trio.Event)
    """Set but while a check reads everything."""

    async def run(self, endpoints: Sequence[str], connections: int, clients: int) -> None:
        self.may_write.set()
        async with trio.open_nursery() as nursery:
            for number in range(connections):
                at = number % len(endpoints)
                mine = range(number, clients, connections)
                nursery.start_soon(self._connection, [*endpoints[at:], *endpoints[:at]], mine)

    async def _connection(self, endpoints: Sequence[str], numbers: range) -> None:
        async with coord.connect(endpoints) as client, trio.open_nursery() as nursery:
            for number in numbers:
                nursery.start_soon(self._client, client, number)

    async def _client(self, client: coord.Client, number: int) -> None:
        written = 0
        while True:
            await self.may_write.wait()
            key = b"%s%d/%d" % (PREFIX.encode(), number, written % SLOTS)
            written += 1
            try:
                revision = await client.put(key, self.value)
            except OutcomeUnknown:
                self.unknown += 1
            except CoordError:
                self.refused += 1
                await trio.sleep(RETRY_S)
            else:
                now = trio.current_time()
                self.gap_s = max(self.gap_s, now - self.last_at)
                self.last_at = now
                self.count += 1
                self.acknowledged[key] = revision

    async def go_on(self) -> None:
        """Wait until writes are acknowledged again, and let them go on for a while."""
        wanted = self.count + 100
        with trio.fail_after(RECOVER_TIMEOUT_S):
            while True:
                await trio.sleep(0.005)
                if self.count >= wanted:
                    break
        await trio.sleep(self.settle_s)

    async def check(self, client: coord.Client) -> int:
        """Return how many of the writes acknowledged since the last check are not there."""
        self.may_write = trio.Event()
        told, self.acknowledged = self.acknowledged, {}
        found = {}
        async for pair in client.range(PREFIX, prefix=True, keys_only=True, page=PAGE, timeout=RECOVER_TIMEOUT_S):
            found[pair.key] = pair.mod_revision
        self.may_write.set()
        return sum(found.get(key, 0) < revision for key, revision in told.items())


async def leader_of(nodes: Sequence[Node]) -> Node:
    """Return the node that leads."""
    with trio.fail_after(RECOVER_TIMEOUT_S):
        while True:
            for node in nodes:
                try:
                    async with coord.connect(node.endpoint, timeout=1) as client:
                        status = await client.status()
                except CoordError:
                    continue
                if status.leader_id == status.header.member_id:
                    return node
            await trio.sleep(0.05)


async def kill(cluster: Cluster, node: Node, load: Load) -> tuple[float, float]:
    """Kill a node, and start it again when the others serve."""
    node.kill()
    gap_s = await gap_without(load)
    return gap_s, await start(cluster, node)


async def pause(cluster: Cluster, node: Node, load: Load) -> tuple[float, float]:
    """Stop a node's clock, and let it go on when the others serve."""
    os.kill(node.pid, signal.SIGSTOP)
    try:
        gap_s = await gap_without(load)
        leader = await leader_of([other for other in cluster.nodes if other is not node])
    finally:
        os.kill(node.pid, signal.SIGCONT)
    started = trio.current_time()
    wanted = await applied(leader)
    with trio.fail_after(RECOVER_TIMEOUT_S):
        while True:
            if await applied(node) >= wanted:
                break
            await trio.sleep(RETRY_S)
    return gap_s, trio.current_time() - started


async def restart(cluster: Cluster, node: Node, load: Load) -> tuple[float, float]:
    """End a node in order and start it again; what its return costs counts too."""
    await trio.to_thread.run_sync(node.stop)
    back_s = await start(cluster, node)
    return await gap_without(load), back_s


async def gap_without(load: Load) -> float:
    await load.go_on()
    return load.gap_s


async def start(cluster: Cluster, node: Node) -> float:
    """Start a node, and return after how long it serves."""
    started = trio.current_time()
    node.start(cluster.initial_cluster)
    await trio.to_thread.run_sync(node.wait_ready, RECOVER_TIMEOUT_S)
    return trio.current_time() - started


async def applied(node: Node) -> float:
    return (await trio.to_thread.run_sync(metrics, node.endpoint))["coord_server_proposals_applied_total"]


@frozen
class Way:
    """A way to lose a node, and what that may cost."""

    name: str
    lose: Callable[[Cluster, Node, Load], Awaitable[tuple[float, float]]]
    limit_ms: float
    """What the longest gap between two acknowledged writes must not exceed, at `part` of all times."""
    part: float = 0.95
    may_fail: bool = True
    """False if no write may fail."""

    def verdict(self, losses: Sequence[Loss]) -> str:
        """Say what is wrong, or nothing."""
        if any(loss.missing for loss in losses):
            return "acknowledged writes are missing"
        if not self.may_fail and any(loss.failed for loss in losses):
            return "writes have failed"
        gap_ms = percentile(sorted(loss.gap_ms for loss in losses), self.part)
        return f"{gap_ms:.0f} ms is more than {self.limit_ms:.0f}" if gap_ms > self.limit_ms else ""

    def summary(self, losses: Sequence[Loss]) -> str:
        gaps = sorted(loss.gap_ms for loss in losses)
        p50_ms, p95_ms = percentile(gaps, 0.5), percentile(gaps, 0.95)
        verdict = self.verdict(losses)
        return (
            f"{self.name}: longest gap between acknowledged writes, ms: p50 {p50_ms:.0f}  p95 {p95_ms:.0f}  "
            f"max {gaps[-1]:.0f}; missing {sum(loss.missing for loss in losses)}, "
            f"failed {sum(loss.failed for loss in losses)}: " + (f"FAILED, {verdict}" if verdict else "holds")
        )


async def measure(cluster: Cluster, options: argparse.Namespace, ways: Sequence[Way]) -> dict[str, list[Loss]]:
    """Lose nodes in each way as often as asked for, under load; tell each."""
    load = Load(bytes(options.value_bytes), options.settle_s)
    losses: dict[str, list[Loss]] = {}
    async with coord.connect(cluster.endpoints, timeout=RECOVER_TIMEOUT_S) as client, trio.open_nursery() as nursery:
        endpoints = [node.endpoint for node in cluster.nodes]
        nursery.start_soon(load.run, endpoints, options.conns, options.clients)
        print(" ".join(f"{name:>8}" for name in ("way", "node", "gap ms", "back ms", "missing", "unknown", "refused")))
        for way in ways:
            losses[way.name] = found = []
            for number in range(vars(options)[way.name]):
                nodes = cluster.nodes if way.lose is restart else [await leader_of(cluster.nodes)]
                for node in nodes:
                    loss = await lose(way, cluster, node, load, client)
                    found.append(loss)
                    figures = (loss.gap_ms, loss.back_ms, loss.missing, loss.unknown, loss.refused)
                    line = " ".join(f"{figure:>8.0f}" for figure in figures)
                    print(f"{way.name:>8} {node.name:>4} {number + 1:>3} {line}", flush=True)
        nursery.cancel_scope.cancel()
    print(f"{load.count} writes acknowledged, {load.unknown} of unknown outcome, {load.refused} refused")
    return losses


async def lose(way: Way, cluster: Cluster, node: Node, load: Load, client: coord.Client) -> Loss:
    """Lose a node under load, and have it back as a follower."""
    await load.go_on()
    unknown, refused = load.unknown, load.refused
    load.gap_s = 0.0
    gap_s, back_s = await way.lose(cluster, node, load)
    if (await leader_of(cluster.nodes)) is node:
        raise RuntimeError(f"{node.name} was gone, and leads again")
    missing = await load.check(client)
    return Loss(node.name, gap_s * 1000, back_s * 1000, missing, load.unknown - unknown, load.refused - refused)


def percentile(ordered: Sequence[float], part: float) -> float:
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--pauses", type=int, default=0)
    parser.add_argument("--rolling", type=int, default=0)
    parser.add_argument("--conns", type=int, default=10)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--value-bytes", type=int, default=256)
    parser.add_argument("--settle-s", type=float, default=1.0, help="how long writes go on before and after each loss")
    parser.add_argument("--limit-ms", type=float, default=300.0, help="of the gap after a kill or a stop in order")
    parser.add_argument("--json", type=Path, help="write what each loss cost here")
    options = parser.parse_args()
    if not options.kills + options.pauses + options.rolling:
        parser.error("what? --kills, --pauses or --rolling")
    return options


def main() -> int:
    options = parse_arguments()
    ways = (
        Way("kills", kill, options.limit_ms),
        Way("pauses", pause, PAUSE_ELECTIONS * ServeConfig().election_timeout_ms),
        Way("rolling", restart, options.limit_ms, part=1.0, may_fail=False),
    )
    with running(3, *COMPACTION) as cluster:
        losses = trio.run(measure, cluster, options, [way for way in ways if vars(options)[way.name]])
    if options.json is not None:
        options.json.write_text(json.dumps({name: [asdict(loss) for loss in some] for name, some in losses.items()}))
    for way in ways:
        if way.name in losses:
            print(way.summary(losses[way.name]))
    return int(any(way.verdict(losses[way.name]) for way in ways if way.name in losses))


if __name__ == "__main__":
    sys.exit(main())
