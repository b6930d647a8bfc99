"""What locks and sessions cost on three nodes: hand-offs a second, crowds of waiters, leases that expire together.

    python bench/recipes.py                    every figure, some minutes
    python bench/recipes.py lock               lock and unlock, nobody else wants it
    python bench/recipes.py handoff            20 contenders pass one lock on
    python bench/recipes.py waiters            1 000 waiters on one lock; how much each hand-off stirs
    python bench/recipes.py expiry             10 000 leases end at one moment; who else notices
    python bench/recipes.py sessions           10 000 sessions kept alive; the leader's share of a processor

Wherever sessions are alive they are looked at every 50 ms: a renewal counts as missed when a session has less left
than it had when the next renewal was due. With `--check` it ends with status 1 if a limit does not hold.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from multiprocessing.connection import Connection

import trio
from attrs import asdict, define, field

import coord
from cluster import Cluster, running
from coord.client.recipes.renewals import RENEWALS
from coord.client.recipes.tenure import margin_s
from coordload import Cycles, lock_alone, pass_on
from load import cpu_s
from size import Figure, probing

LOOK_EVERY_S = 0.05
PUT_EVERY_S = 0.01
TIMEOUT_S = 60.0
SPARE_S = 20.0
"""Beyond a TTL; by then all leases have expired, or something is wrong."""


@define(eq=False)
class Sessions:
    """Sessions that are looked at while something else is measured."""

    all: list[coord.Session] = field(factory=list)
    least_s: float = float("inf")
    lost: set[int] = field(factory=set)
    missed: set[int] = field(factory=set)

    async def look(self) -> None:
        while True:
            for number, session in enumerate(self.all):
                left_s = session.remaining_s
                self.least_s = min(self.least_s, left_s)
                if session.is_lost:
                    self.lost.add(number)
                if left_s < session.ttl_s / RENEWALS - margin_s(session.ttl_s):
                    self.missed.add(number)
            await trio.sleep(LOOK_EVERY_S)

    def figures(self, name: str) -> list[Figure]:
        return [
            Figure(f"{name}: least time that a session had left", self.least_s, "s"),
            Figure(f"{name}: sessions that missed a renewal", len(self.missed), "", 0),
            Figure(f"{name}: sessions that were lost", len(self.lost), "", 0),
        ]


@asynccontextmanager
async def many_sessions(clients: Sequence[coord.Client], count: int, ttl_s: int) -> AsyncIterator[Sessions]:
    """Open `count` sessions, spread over `clients`, and look at them until the block ends."""
    sessions = Sessions()
    together = trio.CapacityLimiter(1_000)

    async def open_one(client: coord.Client) -> None:
        session = client.session(ttl=ttl_s)
        async with together:
            await session.__aenter__()
        sessions.all.append(session)

    async with trio.open_nursery() as opening:
        for number in range(count):
            opening.start_soon(open_one, clients[number % len(clients)])
    async with trio.open_nursery() as looking:
        looking.start_soon(sessions.look)
        yield sessions
        looking.cancel_scope.cancel()


@asynccontextmanager
async def many_clients(cluster: Cluster, count: int) -> AsyncIterator[list[coord.Client]]:
    """Open clients, each with another node first."""
    nodes = [node.endpoint for node in cluster.nodes]
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(coord.connect([*nodes[at:], *nodes[:at]], timeout=TIMEOUT_S))
            for at in (number % len(nodes) for number in range(count))
        ]


def cycle_figures(cycles: Cycles, name: str, what: str) -> list[Figure]:
    ordered = sorted(cycles.took_s)
    return [
        Figure(f"{name}: {what} a second", len(ordered) / cycles.elapsed_s, "/s"),
        Figure(f"{name}: p50", ordered[len(ordered) // 2] * 1e3, "ms"),
        Figure(f"{name}: p99", ordered[len(ordered) * 99 // 100] * 1e3, "ms"),
    ]


def measure_lock(options: argparse.Namespace) -> list[Figure]:
    async def run() -> Cycles:
        async with coord.connect(cluster.endpoints) as client:
            return await lock_alone(client, options.seconds)

    with running(3) as cluster:
        return cycle_figures(trio.run(run), "lock", "cycles")


def measure_handoff(options: argparse.Namespace) -> list[Figure]:
    async def run() -> Cycles:
        async with coord.connect(cluster.endpoints) as client:
            return await pass_on(client, options.contenders, options.seconds)

    with running(3) as cluster:
        return cycle_figures(trio.run(run), f"handoff, {options.contenders} contenders", "hand-offs")


@define(eq=False)
class Crowd:
    """Waiters on one lock, each with a session of its own, that take it once each."""

    gate: trio.Event = field(factory=trio.Event)
    cycles: Cycles = field(factory=Cycles)
    released: float = 0.0

    async def hold_first(self, session: coord.Session, task_status: trio.TaskStatus[None]) -> None:
        async with session.lock("bench/crowd"):
            task_status.started()
            await self.gate.wait()
            self.cycles = Cycles()
            self.released = time.perf_counter()

    async def wait(self, session: coord.Session) -> None:
        async with session.lock("bench/crowd"):
            self.cycles.done(time.perf_counter() - self.released)
            self.released = time.perf_counter()


async def crowd(cluster: Cluster, options: argparse.Namespace) -> list[Figure]:
    name, count = f"waiters, {options.waiters}", options.waiters
    async with (
        many_clients(cluster, options.conns) as clients,
        many_sessions(clients, count + 1, options.ttl) as sessions,
    ):
        ours = Crowd()
        async with trio.open_nursery() as nursery:
            await nursery.start(ours.hold_first, sessions.all[0])
            for session in sessions.all[1:]:
                nursery.start_soon(ours.wait, session)
            queued = 0
            with trio.fail_after(TIMEOUT_S):
                while queued <= count:
                    await trio.sleep(LOOK_EVERY_S)
                    queued = (await clients[0].range_response("bench/crowd/", prefix=True, count_only=True)).count
            # By now each has its place; what it waits for is asked for a little later.
            await trio.sleep(1)
            before = await trio.to_thread.run_sync(cluster.metrics)
            ours.gate.set()
        after = await trio.to_thread.run_sync(cluster.metrics)
    stirred = after - before
    reads = stirred['coord_client_requests_total{method="txn"}'] + stirred["coord_mvcc_range_total"]
    return [
        *cycle_figures(ours.cycles, name, "hand-offs"),
        Figure(f"{name}: watch events a hand-off", stirred["coord_mvcc_events_total"] / count, "", 2),
        Figure(f"{name}: transactions and ranges a hand-off", reads / count, "", 6),
        *sessions.figures(name),
    ]


def measure_waiters(options: argparse.Namespace) -> list[Figure]:
    with running(3) as cluster:
        return trio.run(crowd, cluster, options)


@define(eq=False)
class Expiry:
    """Leases with a key each that end at one moment, since nobody renews them once all have been."""

    cluster: Cluster
    options: argparse.Namespace
    leases: list[int] = field(factory=list)
    revision: int = 0
    renewed: float = 0.0
    """When the last was."""
    gone_s: float = 0.0
    """How long after its time the last of the keys was gone."""
    taking_s: float = 0.0
    """From the first to the last."""
    sessions: Sessions = field(factory=Sessions)

    async def prepare(self) -> None:
        async with many_clients(self.cluster, self.options.conns) as clients:

            async def grant(client: coord.Client, number: int) -> None:
                lease = (await client.lease_grant(self.options.ttl)).id
                await client.put(b"bench/expiry/%d" % number, b"", lease=lease)
                self.leases.append(lease)

            async def renew(client: coord.Client, number: int) -> None:
                await client.lease_keep_alive_once(self.leases[number])

            await self._for_each(clients, grant)
            await self._for_each(clients, renew)
            self.renewed = time.perf_counter()
            self.revision = clients[0].revision

    async def _for_each(
        self, clients: Sequence[coord.Client], work: Callable[[coord.Client, int], Awaitable[None]]
    ) -> None:
        numbers = iter(range(self.options.leases))

        async def some(client: coord.Client) -> None:
            for number in numbers:
                await work(client, number)

        async with trio.open_nursery() as nursery:
            for place in range(1_000):
                nursery.start_soon(some, clients[place % len(clients)])

    async def see_them_go(self) -> None:
        """Watch the keys go, while other sessions of other clients live on."""
        options = self.options
        async with (
            many_clients(self.cluster, options.conns) as clients,
            many_sessions(clients, options.sessions // 10, options.ttl) as self.sessions,
            clients[0].watch("bench/expiry/", prefix=True, since=self.revision + 1) as watch,
        ):
            left, first = options.leases, 0.0
            with trio.fail_after(options.ttl + SPARE_S):
                async for batch in watch:
                    first = first or time.perf_counter()
                    left -= len(batch.events)
                    if not left:
                        break
            last = time.perf_counter()
            self.gone_s, self.taking_s = last - self.renewed - options.ttl, last - first


def measure_expiry(options: argparse.Namespace) -> list[Figure]:
    name = f"expiry, {options.leases}"
    figures: list[Figure] = []
    with running(3) as cluster:
        leader = cluster.leader()
        expiry = Expiry(cluster, options)
        trio.run(expiry.prepare)
        with probing(name, leader.endpoint, leader.pid, figures), probing_puts(name, leader.endpoint, figures):
            trio.run(expiry.see_them_go)
    return [
        Figure(f"{name}: from their time to the last one gone", expiry.gone_s, "s", 5),
        Figure(f"{name}: from the first to the last", expiry.taking_s, "s"),
        *figures,
        *expiry.sessions.figures(f"{name}, {options.sessions // 10} sessions beside"),
    ]


@contextmanager
def probing_puts(name: str, endpoint: str, figures: list[Figure]) -> Iterator[None]:
    """Put a key now and then while the body runs, and append how long that took to `figures`."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=put_now_and_then, args=(endpoint, theirs))
    process.start()
    ours.recv()
    yield
    ours.send(None)
    took_ms = sorted(ours.recv())
    process.join()
    figures += [
        Figure(f"{name}: longest put beside it", took_ms[-1], "ms", 250),
        Figure(f"{name}: p99 put beside it", took_ms[len(took_ms) * 99 // 100], "ms"),
    ]


def put_now_and_then(endpoint: str, control: Connection) -> None:
    took_ms: list[float] = []
    with coord.connect_sync(endpoint) as client:
        client.put("bench/probe", b"")
        control.send(None)
        while not control.poll():
            began = time.perf_counter()
            client.put("bench/probe", b"")
            took_ms.append((time.perf_counter() - began) * 1e3)
            time.sleep(max(0.0, began + PUT_EVERY_S - time.perf_counter()))
    control.send(took_ms)


async def keep_alive(cluster: Cluster, options: argparse.Namespace) -> list[Figure]:
    name = f"sessions, {options.sessions}"
    leader = cluster.leader()
    async with (
        many_clients(cluster, options.conns) as clients,
        many_sessions(clients, options.sessions, options.ttl) as sessions,
    ):
        # For a TTL they are renewed in the crowds in which they were opened, and beside what that left to do.
        await trio.sleep(options.ttl)
        before = await trio.to_thread.run_sync(cluster.metrics)
        began, own_s, cpus_s = time.perf_counter(), time.process_time(), [cpu_s(node.pid) for node in cluster.nodes]
        await trio.sleep(2 * options.ttl)
        took_s, own_s = time.perf_counter() - began, time.process_time() - own_s
        shares = [(cpu_s(node.pid) - at) / took_s for node, at in zip(cluster.nodes, cpus_s, strict=True)]
        counted = await trio.to_thread.run_sync(cluster.metrics) - before
    at = cluster.nodes.index(leader)
    return [
        Figure(f"{name}: renewals a second", counted["coord_lease_renewed_total"] / took_s, "/s"),
        Figure(f"{name}: the leader's share of a processor", 100 * shares[at], "%"),
        Figure(f"{name}: a follower's, on average", 100 * (sum(shares) - shares[at]) / (len(shares) - 1), "%"),
        Figure(f"{name}: the clients' share, all in one process", 100 * own_s / took_s, "%"),
        Figure(f"{name}: entries written to a log", counted["coord_disk_wal_entries_total"] / len(shares), "", 10),
        Figure(f"{name}: turns that stalled", counted["coord_loop_stalls_total"], "", 0),
        *sessions.figures(name),
    ]


def measure_sessions(options: argparse.Namespace) -> list[Figure]:
    with running(3) as cluster:
        return trio.run(keep_alive, cluster, options)


FIGURES = {
    "lock": measure_lock,
    "handoff": measure_handoff,
    "waiters": measure_waiters,
    "expiry": measure_expiry,
    "sessions": measure_sessions,
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all by default")
    parser.add_argument("--seconds", type=float, default=10.0, help="of lock and handoff")
    parser.add_argument("--contenders", type=int, default=20)
    parser.add_argument("--waiters", type=int, default=1_000)
    parser.add_argument("--leases", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=10_000, help="beside expiry, a tenth of them")
    parser.add_argument("--ttl", type=int, default=10, help="of leases and sessions, in seconds")
    parser.add_argument("--conns", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.figures) - set(FIGURES):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    options.figures = options.figures or list(FIGURES)
    return options


def main() -> int:
    options = parse_arguments()
    measured: list[Figure] = []
    for name in options.figures:
        figures = FIGURES[name](options)
        measured += figures
        for figure in figures if not options.json else ():
            print(figure.line, flush=True)
    if options.json:
        print(json.dumps([asdict(figure) for figure in measured]))
    fails = [figure for figure in measured if figure.verdict == "FAILS"]
    return 1 if options.check and fails else 0


if __name__ == "__main__":
    sys.exit(main())
