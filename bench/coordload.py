"""Load a coord cluster with coord's own Trio client, closed loop, and print one line of JSON.

    python bench/coordload.py --endpoints 127.0.0.1:7379 --mode put --conns 10 --clients 1000

What `bench/etcdload` does for etcd, with the same options. Modes:

- `fill` puts every key once;
- `put`, `get`, `sget` (serializable), `range` (10 000 keys), `put-many` and `txn` (100 puts in one call or one
  transaction, each of which counts) and `mixed` (transactions of a get or a put in turn) have `clients` callers share
  `conns` connections, each sending its next request when it has the answer to the last;
- `lock` and `handoff` use one connection, and so does `watch`, where an operation is an event that one of `clients`
  watchers sees;
- `failover` puts while somebody else kills the leader, prints `ready` once it is under way, and tells the longest time
  between two acknowledged writes.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import trio
from attrs import define, field

import coord
from coord import op
from coord.client.verbs import RangeOptions
from coord.errors import CoordError

LOCK_TTL_S = 30
CALL_TIMEOUT_S = 30.0
"""A slow disk gives a slow figure, and not an error."""
WATCH_PREFIX = "bench/watch/"
WATCH_PUTTERS = 10
WATCH_GIVE_UP_S = 60
READY_AFTER = 100
RANGE_KEYS = 10_000
BATCH_PUTS = 100


@define(eq=False)
class Cycles:
    """What was done, and how long each took in seconds."""

    took_s: list[float] = field(factory=list)
    began: float = field(factory=time.perf_counter)
    spent_s: float = field(factory=time.process_time)
    """CPU seconds before it began: to start and to connect is none of its cost."""
    elapsed_s: float = 0.0
    errors: int = 0
    gap_s: float = 0.0
    """The longest time between two acknowledged writes."""
    operations: int = 0
    """How many, where not each is in `took_s`."""

    def done(self, took_s: float) -> None:
        self.took_s.append(took_s)
        self.elapsed_s = time.perf_counter() - self.began

    def report(self) -> dict[str, Any]:
        ordered = sorted(self.took_s) or [0.0]
        done = self.operations or len(self.took_s)
        return {
            "operations": done,
            "seconds": self.elapsed_s,
            "ops_per_s": done / self.elapsed_s if self.elapsed_s else 0.0,
            "p50_ms": ordered[len(ordered) // 2] * 1e3,
            "p99_ms": ordered[len(ordered) * 99 // 100] * 1e3,
            "max_ms": ordered[-1] * 1e3,
            "errors": self.errors,
            "cpu_s": time.process_time() - self.spent_s,
            "gap_ms": self.gap_s * 1e3,
        }


@asynccontextmanager
async def connected(options: argparse.Namespace, conns: int) -> AsyncIterator[list[coord.Client]]:
    """Open connections, each with another endpoint first."""
    nodes = options.endpoints.split(",")
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(coord.connect([*nodes[at:], *nodes[:at]], timeout=CALL_TIMEOUT_S))
            for at in (number % len(nodes) for number in range(conns))
        ]


async def callers(clients: list[coord.Client], wanted: int, run: Callable[[coord.Client], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(wanted):
            nursery.start_soon(run, clients[number % len(clients)])


def key(number: int) -> bytes:
    return b"%08d" % number


async def fill(options: argparse.Namespace) -> Cycles:
    value = bytes(options.value_bytes)
    async with connected(options, options.conns) as clients:
        numbers = iter(range(options.keys))
        cycles = Cycles()

        async def run(client: coord.Client) -> None:
            for number in numbers:
                began = time.perf_counter()
                await client.put(key(number), value)
                cycles.done(time.perf_counter() - began)

        await callers(clients, options.clients, run)
    return cycles


async def closed_loop(options: argparse.Namespace, call: Callable[[coord.Client, bytes], Awaitable[object]]) -> Cycles:
    clock, chance, keys = time.perf_counter, random.Random(1).random, options.keys
    async with connected(options, options.conns) as clients:
        cycles = Cycles()
        took_s, ends = cycles.took_s, cycles.began + options.seconds

        async def run(client: coord.Client) -> None:
            while (began := clock()) < ends:
                await call(client, key(int(chance() * keys)))
                took_s.append(clock() - began)

        await callers(clients, options.clients, run)
        cycles.elapsed_s = clock() - cycles.began
    return cycles


async def puts(options: argparse.Namespace) -> Cycles:
    value = bytes(options.value_bytes)
    return await closed_loop(options, lambda client, key: client.put(key, value))


async def gets(options: argparse.Namespace) -> Cycles:
    return await closed_loop(options, lambda client, key: client.get(key))


async def local_gets(options: argparse.Namespace) -> Cycles:
    return await closed_loop(options, lambda client, key: client.get(key, serializable=True))


async def ranges(options: argparse.Namespace) -> Cycles:
    read: RangeOptions = {"range_end": b"\0", "limit": RANGE_KEYS}
    return await closed_loop(options, lambda client, _: client.range_response(key(0), **read))


def batch(first: bytes) -> list[bytes]:
    """Keys that are put together."""
    return [first[:-2] + b"%02d" % number for number in range(BATCH_PUTS)]


async def many_puts(options: argparse.Namespace) -> Cycles:
    value = bytes(options.value_bytes)
    cycles = await closed_loop(options, lambda client, first: client.put_many(dict.fromkeys(batch(first), value)))
    cycles.operations = len(cycles.took_s) * BATCH_PUTS
    return cycles


async def txns(options: argparse.Namespace) -> Cycles:
    value = bytes(options.value_bytes)
    cycles = await closed_loop(
        options, lambda client, first: client.txn(then=[op.put(key, value) for key in batch(first)])
    )
    cycles.operations = len(cycles.took_s) * BATCH_PUTS
    return cycles


async def mixed(options: argparse.Namespace) -> Cycles:
    value, turns = bytes(options.value_bytes), count()

    def get_or_put(client: coord.Client, key: bytes) -> Awaitable[object]:
        return client.txn(then=[op.put(key, value) if next(turns) % 2 else op.get(key)])

    return await closed_loop(options, get_or_put)


async def lock(options: argparse.Namespace) -> Cycles:
    async with connected(options, 1) as [client]:
        return await lock_alone(client, options.seconds)


async def lock_alone(client: coord.Client, seconds: float) -> Cycles:
    """Lock and unlock, again and again, with nobody else there."""
    async with client.session(ttl=LOCK_TTL_S) as session:
        async with session.lock("bench/lock"):
            pass
        cycles = Cycles()
        while cycles.elapsed_s < seconds:
            began = time.perf_counter()
            async with session.lock("bench/lock"):
                pass
            cycles.done(time.perf_counter() - began)
    return cycles


async def handoff(options: argparse.Namespace) -> Cycles:
    async with connected(options, 1) as [client]:
        return await pass_on(client, options.clients, options.seconds)


async def pass_on(client: coord.Client, contenders: int, seconds: float) -> Cycles:
    """Have contenders of one connection, with a session each, take a lock in turn."""
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(client.session(ttl=LOCK_TTL_S)) for _ in range(contenders)]
        cycles = Cycles()
        last = cycles.began

        async def contend(session: coord.Session) -> None:
            nonlocal last
            while cycles.elapsed_s < seconds:
                async with session.lock("bench/handoff"):
                    now = time.perf_counter()
                    cycles.done(now - last)
                    last = now

        async with trio.open_nursery() as nursery:
            for session in sessions:
                nursery.start_soon(contend, session)
    return cycles


async def watch(options: argparse.Namespace) -> Cycles:
    sent = [0.0] * options.total
    async with connected(options, 1) as [client], trio.open_nursery() as watching:
        cycles = Cycles()

        async def follow(is_first: bool, task_status: trio.TaskStatus[None]) -> None:
            """Count events until all were seen; one of the watchers notes how old they are, for all."""
            seen = 0
            async with client.watch(WATCH_PREFIX, prefix=True) as batches:
                task_status.started()
                async for batch in batches:
                    seen += len(batch.events)
                    for event in batch.events if is_first else ():
                        cycles.done(time.perf_counter() - sent[int(event.kv.key[len(WATCH_PREFIX) :])])
                    if seen == len(sent):
                        return

        for number in range(options.clients):
            await watching.start(follow, number == 0)
        watching.cancel_scope.deadline = trio.current_time() + WATCH_GIVE_UP_S
        cycles.began, cycles.spent_s = time.perf_counter(), time.process_time()
        await callers([client], WATCH_PUTTERS, put_numbers(sent))
    if watching.cancel_scope.cancelled_caught:
        raise TimeoutError(f"not all events were seen after {WATCH_GIVE_UP_S} s")
    cycles.elapsed_s = time.perf_counter() - cycles.began
    cycles.operations = options.total * options.clients
    return cycles


def put_numbers(sent: list[float]) -> Callable[[coord.Client], Awaitable[None]]:
    """Make a caller that puts a key for each item of `sent`, shared with others, and notes when it does."""
    numbers: Iterator[int] = iter(range(len(sent)))

    async def run(client: coord.Client) -> None:
        for number in numbers:
            sent[number] = time.perf_counter()
            await client.put(WATCH_PREFIX + str(number), b"v")

    return run


async def failover(options: argparse.Namespace) -> Cycles:
    value = bytes(options.value_bytes)
    async with connected(options, options.conns) as clients:
        cycles = Cycles()
        last, ends = 0.0, cycles.began + options.seconds

        async def run(client: coord.Client) -> None:
            nonlocal last
            name = key(cycles.operations)
            cycles.operations += 1
            while (began := time.perf_counter()) < ends:
                try:
                    await client.put(name, value)
                except CoordError:
                    cycles.errors += 1
                    await trio.sleep(0.001)
                    continue
                now = time.perf_counter()
                if len(cycles.took_s) >= READY_AFTER:
                    cycles.gap_s = max(cycles.gap_s, now - last)
                last = now
                cycles.done(now - began)
                if len(cycles.took_s) == READY_AFTER:
                    print("ready", flush=True)

        await callers(clients, options.clients, run)
    cycles.operations = 0
    return cycles


MODES = {
    "fill": fill,
    "put": puts,
    "get": gets,
    "sget": local_gets,
    "range": ranges,
    "put-many": many_puts,
    "txn": txns,
    "mixed": mixed,
    "lock": lock,
    "handoff": handoff,
    "watch": watch,
    "failover": failover,
}


def parse_arguments(description: str | None, modes: Iterable[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", default="127.0.0.1:7379", help="host:port,…; connections are spread over them")
    parser.add_argument("--mode", choices=list(modes), default="put")
    parser.add_argument("--conns", type=int, default=1, help="connections")
    parser.add_argument("--clients", type=int, default=1, help="callers, contenders or watchers")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to run")
    parser.add_argument("--total", type=int, default=5_000, help="puts of watch")
    parser.add_argument("--keys", type=int, default=100_000, help="size of the key space")
    parser.add_argument("--value-bytes", type=int, default=256, help="size of a value")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments(__doc__, MODES)
    print(json.dumps(trio.run(MODES[options.mode], options).report()))


if __name__ == "__main__":
    main()
