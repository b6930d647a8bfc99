"""How long a cluster of three acknowledges no write after `kill -9` of its leader, and whether a write is lost.

    python bench/failover.py --kills 30

10 connections to all three nodes carry 100 clients, each of which sends its next put when it has the answer to the
last. A write that ends as `OutcomeUnknown` is not repeated. For each kill the longest time between two acknowledged
writes is told; then the old leader is started again and has to follow, and every write acknowledged since the last
check has to be there. Ends with status 1 if one is missing, an old leader does not return, or the 95th percentile is
above `--limit-ms`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

import trio
from attrs import define, field

import coord
from cluster import Cluster, Node, running, wait_ready
from coord.errors import CoordError, OutcomeUnknown

PREFIX = "w/"
SLOTS = 1_000
"""Keys of one client, written in turn: more than it writes between two checks, so that none hides a lost one."""
PAGE = 10_000
SETTLE_S = 1.0
RECOVER_TIMEOUT_S = 30.0
RETRY_S = 0.001


@define
class Kill:
    """What one kill cost."""

    leader: str
    gap_ms: float
    back_ms: float
    missing: int
    unknown: int


@define(eq=False)
class Load:
    """The clients, and what they were told."""

    value: bytes
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

    async def wait_for_writes(self, count: int) -> None:
        wanted = self.count + count
        with trio.fail_after(RECOVER_TIMEOUT_S):
            while True:
                await trio.sleep(0.005)
                if self.count >= wanted:
                    return

    async def check(self, client: coord.Client) -> int:
        """Return how many of the writes acknowledged since the last check are not there."""
        self.may_write = trio.Event()
        told, self.acknowledged = self.acknowledged, {}
        found = {}
        async for pair in client.range(PREFIX, prefix=True, keys_only=True, page=PAGE, timeout=RECOVER_TIMEOUT_S):
            found[pair.key] = pair.mod_revision
        self.may_write.set()
        return sum(found.get(key, 0) < revision for key, revision in told.items())


async def leader_of(cluster: Cluster) -> Node:
    """Return the node that leads."""
    with trio.fail_after(RECOVER_TIMEOUT_S):
        while True:
            for node in cluster.nodes:
                try:
                    async with coord.connect(node.endpoint, timeout=1) as client:
                        status = await client.status()
                except CoordError:
                    continue
                if status.leader_id == status.header.member_id:
                    return node
            await trio.sleep(0.05)


async def kill_leader(cluster: Cluster, load: Load, client: coord.Client) -> Kill:
    leader = await leader_of(cluster)
    unknown = load.unknown
    load.gap_s = 0.0
    leader.kill()
    await load.wait_for_writes(100)
    await trio.sleep(SETTLE_S)
    gap_s = load.gap_s
    started = trio.current_time()
    leader.start(cluster.initial_cluster)
    await trio.to_thread.run_sync(wait_ready, leader.endpoint, RECOVER_TIMEOUT_S)
    back_s = trio.current_time() - started
    if (await leader_of(cluster)) is leader:
        raise RuntimeError(f"{leader.name} was killed, and leads again")
    missing = await load.check(client)
    return Kill(leader.name, gap_s * 1000, back_s * 1000, missing, load.unknown - unknown)


async def measure(cluster: Cluster, options: argparse.Namespace) -> list[Kill]:
    load = Load(bytes(options.value_bytes))
    kills = []
    async with coord.connect(cluster.endpoints, timeout=RECOVER_TIMEOUT_S) as client, trio.open_nursery() as nursery:
        endpoints = [node.endpoint for node in cluster.nodes]
        nursery.start_soon(load.run, endpoints, options.conns, options.clients)
        print(f"{'kill':>4} {'leader':>6} {'gap ms':>8} {'back ms':>8} {'missing':>8} {'unknown':>8}")
        for number in range(1, options.kills + 1):
            await load.wait_for_writes(100)
            await trio.sleep(SETTLE_S)
            kill = await kill_leader(cluster, load, client)
            kills.append(kill)
            print(
                f"{number:>4} {kill.leader:>6} {kill.gap_ms:>8.0f} {kill.back_ms:>8.0f} {kill.missing:>8} "
                f"{kill.unknown:>8}",
                flush=True,
            )
        nursery.cancel_scope.cancel()
    print(f"{load.count} writes acknowledged, {load.unknown} of unknown outcome, {load.refused} refused")
    return kills


def percentile(ordered: Sequence[float], part: float) -> float:
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--conns", type=int, default=10)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--value-bytes", type=int, default=256)
    parser.add_argument("--limit-ms", type=float, default=300.0, help="what the 95th percentile must not exceed")
    options = parser.parse_args()
    with running(3) as cluster:
        kills = trio.run(measure, cluster, options)
    gaps = sorted(kill.gap_ms for kill in kills)
    missing = sum(kill.missing for kill in kills)
    p95_ms = percentile(gaps, 0.95)
    p50_ms = percentile(gaps, 0.5)
    print(f"longest gap between acknowledged writes, ms: p50 {p50_ms:.0f}  p95 {p95_ms:.0f}  max {gaps[-1]:.0f}")
    print(f"missing acknowledged writes: {missing}")
    if missing or p95_ms > options.limit_ms:
        print(f"FAILED: nothing may be missing, and the p95 must be at most {options.limit_ms:.0f} ms", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
