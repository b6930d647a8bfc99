"""Ten minutes at 80 % of peak: does coord stay as it is, and what do a compaction and a snapshot cost meanwhile?

    python bench/steady.py --check            ten minutes; ends with status 1 if a promise does not hold
    python bench/steady.py --minutes 60       longer
    python bench/steady.py --minutes 1        a try

The peak of puts is measured first, closed loop, for so long that compaction is under way too. Then writes are due at
80 % of it, whether those before have been answered or not. Each is timed twice: from when a caller was free to send it,
which is how long it waited for an answer, and from when it was due, which grows for as long as fewer are answered than
are due. Three nodes keep ten seconds of history. After a fifth of the time all history is compacted away, and its space
freed. After a third a follower is stopped until the others' logs have let go of what it needs, and started again: it
gets a snapshot, which its log has to say.

- A compaction and a snapshot are judged by the writes that were answered while it was under way and a second after: by
  how many there were, and by how long one waited since it was sent. A loss of throughput is not judged a second time by
  the queue that it leaves: a twentieth less for five seconds is 250 ms since a write was due.
- Memory is what the nodes have of their own, without pages of files. Of the second half of the time, when both events
  are over, the mean of the last half is held against the first. If the events take longer, so does the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from statistics import fmean, linear_regression

import trio
from attrs import asdict, define, field

import coord
from cluster import Cluster, Node, metrics, running
from coord.errors import CoordError
from coord.limits import MIB
from coordload import connected, key
from sides import QUOTA_BYTES

FLAGS = (
    f"--quota-backend-bytes={QUOTA_BYTES}",
    "--snapshot-count=1000",
    "--auto-compaction-mode=periodic",
    "--auto-compaction-retention=10s",
)
COMPACT_AT, STOP_AT, CALM_AT, CALM_LEAST = 0.2, 1 / 3, 0.5, 0.25
"""Parts of the time."""
PACE_S = 0.002
LOOK_S = 0.05
"""How often the late follower is asked how far it is: each answer costs it a millisecond."""
SAMPLE_S = 1.0
BUCKETS_A_S = 10_000
"""Waits are counted in steps of a tenth of a millisecond."""
TIMEOUT_S = 300.0
SNAPSHOT_EVENT = b"snapshot.state.installed"
SLOW_SYNC_EVENT = b"wal.sync.slow"


@define(eq=False)
class Waits:
    """How long writes waited."""

    buckets: Counter[int] = field(factory=Counter)

    def add(self, wait_s: float) -> None:
        self.buckets[int(wait_s * BUCKETS_A_S)] += 1

    @property
    def longest_ms(self) -> float:
        return max(self.buckets, default=0) * 1e3 / BUCKETS_A_S

    def percentile_ms(self, part: float) -> float:
        wanted = part * self.buckets.total()
        for bucket in sorted(self.buckets):
            wanted -= self.buckets[bucket]
            if wanted <= 0:
                return bucket * 1e3 / BUCKETS_A_S
        return 0.0


@define(eq=False)
class Stretch:
    """The writes that were answered during a stretch of time."""

    began: float
    ended: float = 0.0
    since_sent: Waits = field(factory=Waits)
    since_due: Waits = field(factory=Waits)

    @property
    def count(self) -> int:
        return self.since_sent.buckets.total()

    @property
    def a_second(self) -> float:
        return self.count / (self.ended - self.began)


@define(eq=False)
class Load:
    """Callers that put: each its next write when it has the answer to the last, or when one is due."""

    options: argparse.Namespace
    clients: list[coord.Client]
    is_paced: bool = False
    failed: int = 0
    due: deque[float] = field(factory=deque)
    open: list[Stretch] = field(factory=list)
    """The stretches that are under way."""
    _idle: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(self.options.clients):
                nursery.start_soon(self._caller, self.clients[number % len(self.clients)], number)

    async def pace(self, rate: float) -> None:
        """Have `rate` writes a second be due, at equal distances."""
        self.is_paced = True
        began, released = trio.current_time(), 0
        while True:
            wanted = int((trio.current_time() - began) * rate)
            self.due.extend(began + number / rate for number in range(released, wanted))
            self._idle.unpark(count=wanted - released)
            released = wanted
            await trio.sleep(PACE_S)

    @asynccontextmanager
    async def stretch(self, tail_s: float = 0.0) -> AsyncIterator[Stretch]:
        """Count waits until the body is over, and `tail_s` longer."""
        stretch = Stretch(trio.current_time())
        self.open.append(stretch)
        yield stretch
        await trio.sleep(tail_s)
        self.open.remove(stretch)
        stretch.ended = trio.current_time()

    async def _caller(self, client: coord.Client, number: int) -> None:
        value, clock = bytes(self.options.value_bytes), trio.current_time
        while True:
            due = await self._next_due() if self.is_paced else clock()
            sent = clock()
            number = (number + self.options.clients) % self.options.keys
            try:
                await client.put(key(number), value)
            except CoordError:
                self.failed += 1
            answered = clock()
            for stretch in self.open:
                stretch.since_sent.add(answered - sent)
                stretch.since_due.add(answered - due)

    async def _next_due(self) -> float:
        while not self.due:
            await self._idle.park()
        return self.due.popleft()


@define(eq=False)
class Memory:
    """Private memory of the nodes over time; a node that does not run is left out."""

    nodes: Sequence[Node]
    began: float = field(factory=time.monotonic)
    samples: list[tuple[float, dict[str, float]]] = field(factory=list)
    """Seconds since it began, and MiB by node."""

    async def watch(self) -> None:
        while True:
            found = {node.name: mib for node in self.nodes if (mib := anonymous_mib(node))}
            self.samples.append((time.monotonic() - self.began, found))
            await trio.sleep(SAMPLE_S)

    def sums(self, first_s: float) -> list[tuple[float, float]]:
        """Return the sum of all nodes since then."""
        return [(at, sum(found.values())) for at, found in self.samples if at >= first_s]


def anonymous_mib(node: Node) -> float:
    assert node.process is not None
    if node.process.poll() is not None:
        return 0.0
    lines = Path(f"/proc/{node.pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0) / 1024


@define
class Promise:
    """One line of the verdict; `limit` is what it must not exceed, None if it only tells."""

    what: str
    value: float
    unit: str = ""
    limit: float | None = None

    @property
    def holds(self) -> bool:
        return self.limit is None or self.value <= self.limit

    @property
    def line(self) -> str:
        limit = "" if self.limit is None else f"<= {self.limit:g}"
        verdict = "" if self.limit is None else "PASS" if self.holds else "FAIL"
        return f"{self.what:58} {self.value:10.1f} {self.unit:8}{limit:>8} {verdict}"


async def compact_all(client: coord.Client) -> None:
    """Forget all history, and wait until its space is free."""
    revision = await client.put(b"steady", b"")
    await client.compact(revision, physical=True, timeout=TIMEOUT_S)


async def late_follower(cluster: Cluster, load: Load, options: argparse.Namespace) -> tuple[Stretch, Callable[[], int]]:
    """Stop a follower until its place has left the others' logs; return what its return cost, and what counts how many
    snapshots it has got since.
    """
    leader = await trio.to_thread.run_sync(cluster.leader)
    follower = next(node for node in cluster.nodes if node is not leader)
    log = follower.log
    assert log is not None
    await trio.to_thread.run_sync(follower.stop)
    async with load.stretch() as stopped:
        wanted = options.behind_mib * MIB / options.value_bytes
        with trio.fail_after(TIMEOUT_S + wanted / options.rate):
            while True:
                await trio.sleep(SAMPLE_S)
                if stopped.count >= wanted:
                    break
    seen = log.stat().st_size
    async with load.stretch(tail_s=1.0) as back:
        reached = metrics(leader.endpoint)["coord_server_proposals_applied_total"]
        follower.start(cluster.initial_cluster)
        await trio.to_thread.run_sync(follower.wait_ready, TIMEOUT_S)
        with trio.fail_after(TIMEOUT_S):
            while True:
                there = await trio.to_thread.run_sync(metrics, follower.endpoint)
                if there["coord_server_proposals_applied_total"] >= reached:
                    break
                await trio.sleep(LOOK_S)
    return back, lambda: log.read_bytes()[seen:].count(SNAPSHOT_EVENT)


def slow_syncs(cluster: Cluster) -> list[tuple[float, float]]:
    """Return what the nodes' logs say of syncs that took long: when they ended, on Trio's clock, and milliseconds.

    A disk that others use too may hold up a write for longer than any of this does.
    """
    epoch = time.time() - trio.current_time()
    found = []
    for node in cluster.nodes:
        assert node.log is not None
        for line in node.log.read_bytes().splitlines():
            if SLOW_SYNC_EVENT in line:
                event = json.loads(line)
                found.append((datetime.fromisoformat(event["ts"]).timestamp() - epoch, float(event["ms"])))
    return found


async def peak(load: Load, options: argparse.Namespace) -> float:
    async with load.stretch() as closed_loop:
        await trio.sleep(options.peak_seconds)
    return closed_loop.a_second


def term(cluster: Cluster) -> int:
    return int(max(metrics(node.endpoint)["coord_server_raft_term"] for node in cluster.nodes))


async def measure(cluster: Cluster, options: argparse.Namespace) -> tuple[list[Promise], Memory]:
    seconds = options.minutes * 60
    options.endpoints = cluster.endpoints
    async with (
        connected(options, options.conns) as clients,
        coord.connect(cluster.endpoints) as operator,
        trio.open_nursery() as nursery,
    ):
        load = Load(options, clients)
        nursery.start_soon(load.run)
        peak_a_s = await peak(load, options)
        options.rate = options.rate or peak_a_s * options.share
        nursery.start_soon(load.pace, options.rate)
        print(
            f"peak {peak_a_s:.0f} puts a second; from now on {options.rate:.0f}, {options.minutes:g} minutes",
            flush=True,
        )
        memory, first_term, failed = Memory(cluster.nodes), term(cluster), load.failed
        nursery.start_soon(memory.watch)
        began = trio.current_time()
        async with load.stretch() as all_of_it:
            async with load.stretch() as plain:
                await trio.sleep(seconds * COMPACT_AT)
            async with load.stretch(tail_s=1.0) as compaction:
                await compact_all(operator)
            print("compacted", flush=True)
            await trio.sleep_until(began + seconds * STOP_AT)
            snapshot, snapshots = await late_follower(cluster, load, options)
            print("a late follower is back", flush=True)
            calm = max(began + seconds * CALM_AT, trio.current_time())
            await trio.sleep_until(max(began + seconds, calm + seconds * CALM_LEAST))
        changes, syncs = term(cluster) - first_term, slow_syncs(cluster)
        nursery.cancel_scope.cancel()
    promises = [
        Promise("peak of puts", peak_a_s, "/s"),
        Promise("puts that were due", options.rate, "/s"),
        Promise("puts that were acknowledged", all_of_it.a_second, "/s"),
        *of_waits("sent", all_of_it.since_sent),
        *of_waits("due", all_of_it.since_due),
        Promise("writes that failed", load.failed - failed, "", 0),
        Promise("leader changes", changes, "", 0),
        *of_event("compaction", compaction, plain, syncs),
        Promise("late followers caught up otherwise than by snapshot", not snapshots(), "", 0),
        Promise("snapshots that the late follower got", snapshots(), "", 1),
        *of_event("snapshot", snapshot, plain, syncs),
        *of_memory(memory.sums(calm - began)),
    ]
    return promises, memory


def of_waits(since: str, waits: Waits) -> Iterator[Promise]:
    for part in (0.5, 0.99, 0.999):
        yield Promise(f"p{part * 100:g} of all, since a write was {since}", waits.percentile_ms(part), "ms")
    yield Promise(f"longest wait of all, since a write was {since}", waits.longest_ms, "ms")


def of_event(name: str, event: Stretch, plain: Stretch, syncs: Sequence[tuple[float, float]]) -> Iterator[Promise]:
    slowest_ms = max((ms for ended, ms in syncs if event.began <= ended <= event.ended), default=0.0)
    yield Promise(f"{name}: took, and a second", event.ended - event.began, "s")
    yield Promise(f"{name}: throughput lost", max(0.0, 100 - 100 * event.a_second / plain.a_second), "%", 20)
    yield Promise(f"{name}: longest wait since a write was sent", event.since_sent.longest_ms, "ms", 250)
    yield Promise(f"{name}: longest wait since a write was due", event.since_due.longest_ms, "ms")
    yield Promise(f"{name}: longest sync of a log, 0 if none took 100 ms", slowest_ms, "ms")


def of_memory(sums: Sequence[tuple[float, float]]) -> Iterator[Promise]:
    half = len(sums) // 2
    before, after = (fmean(mib for _, mib in some) for some in (sums[:half], sums[half:]))
    slope, _ = linear_regression(*zip(*sums, strict=True))
    yield Promise("memory of the nodes at the end, mean", after, "MiB")
    yield Promise("memory: slope when calm", slope * 60, "MiB/min")
    yield Promise("memory: growth when calm", 100 * after / before - 100, "%", 10)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--share", type=float, default=0.8, help="part of the peak that is asked for")
    parser.add_argument("--rate", type=float, default=0.0, help="writes a second instead")
    parser.add_argument("--peak-seconds", type=float, default=30.0, help="how long to measure the peak")
    parser.add_argument("--behind-mib", type=float, default=160.0, help="what is written while a follower is stopped")
    parser.add_argument("--conns", type=int, default=10)
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--value-bytes", type=int, default=256)
    parser.add_argument("--check", action="store_true", help="end with status 1 if a promise does not hold")
    parser.add_argument("--json", type=Path, help="write the figures, and memory over time, here")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    with running(3, *FLAGS, logs=True) as cluster:
        promises, memory = trio.run(measure, cluster, options)
    if options.json is not None:
        figures = [{**asdict(promise), "holds": promise.holds} for promise in promises]
        options.json.write_text(json.dumps({"figures": figures, "memory_mib": memory.samples}) + "\n")
    for promise in promises:
        print(promise.line)
    return int(options.check and not all(promise.holds for promise in promises))


if __name__ == "__main__":
    sys.exit(main())
