"""Load a ZooKeeper ensemble with kazoo, closed loop, and print one line of JSON.

    python bench/zkload.py --endpoints 127.0.0.1:2181 --mode put --conns 10 --clients 1000

What `bench/coordload.py` does for coord, with the same options, as far as ZooKeeper and kazoo have the like. Modes:

- `fill` creates a znode for each key, below the root;
- `put` sets one; `get` asks for a `sync` and then gets one, without waiting in between, since what a server has by
  itself may be old;
- `lock` and `handoff` use kazoo's lock recipe and one connection, with a thread for each contender.

kazoo has threads for each connection, of which Python runs one of a process at a time: many connections are shared out
to a process for each processor. CPU seconds are the sum of theirs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from attrs import define
from kazoo.client import KazooClient
from kazoo.interfaces import IAsyncResult

from coordload import Cycles, key, parse_arguments

SESSION_TIMEOUT_S = 30.0
START_TIMEOUT_S = 60.0
"""By then all connections of all processes are there."""
GIVE_UP_S = 100.0
"""What a load may take beyond its time."""
PROCESSES = len(os.sched_getaffinity(0))


@contextmanager
def connected(options: argparse.Namespace, numbers: Iterable[int]) -> Iterator[list[KazooClient]]:
    """Open the connections of these numbers, each with another endpoint first."""
    nodes = options.endpoints.split(",")
    with ExitStack() as stack:
        # kazoo waits for servers that are gone as long as it takes; this ends the process.
        signal.alarm(int(options.seconds + GIVE_UP_S))
        stack.callback(signal.alarm, 0)
        clients = []
        for at in (number % len(nodes) for number in numbers):
            hosts = ",".join([*nodes[at:], *nodes[:at]])
            client = KazooClient(hosts, timeout=SESSION_TIMEOUT_S, randomize_hosts=False)
            client.start(START_TIMEOUT_S)
            stack.callback(client.close)
            stack.callback(client.stop)
            clients.append(client)
        yield clients


# -- callers that share connections


def path(number: int) -> str:
    return "/" + key(number).decode()


def each(options: argparse.Namespace, caller: int) -> Iterator[str]:
    """Yield a caller's share of all keys."""
    return map(path, range(caller, options.keys, options.clients))


def drawn(options: argparse.Namespace, caller: int) -> Iterator[str]:
    """Yield keys by chance until the time is over."""
    chance, ends = random.Random(caller), time.perf_counter() + options.seconds
    while time.perf_counter() < ends:
        yield path(chance.randrange(options.keys))


def create(client: KazooClient, path: str, value: bytes) -> IAsyncResult:
    return client.create_async(path, value)


def put(client: KazooClient, path: str, value: bytes) -> IAsyncResult:
    return client.set_async(path, value)


def get(client: KazooClient, path: str, value: bytes) -> IAsyncResult:
    client.sync_async(path)
    return client.get_async(path)


SHARED: dict[str, tuple[Callable[..., IAsyncResult], Callable[[argparse.Namespace, int], Iterator[str]]]] = {
    "fill": (create, each),
    "put": (put, drawn),
    "get": (get, drawn),
}


@define(eq=False)
class Caller:
    """One that sends its next request when it has the answer to the last, from the thread that tells it of that."""

    client: KazooClient
    paths: Iterator[str]
    request: Callable[..., IAsyncResult]
    value: bytes
    cycles: Cycles
    ended: threading.Semaphore
    began: float = 0.0

    def call(self) -> None:
        path = next(self.paths, None)
        if path is None:
            self.ended.release()
            return
        self.began = time.perf_counter()
        self.request(self.client, path, self.value).rawlink(self.answered)

    def answered(self, answer: IAsyncResult) -> None:
        if answer.successful():
            self.cycles.took_s.append(time.perf_counter() - self.began)
        else:
            self.cycles.errors += 1
        self.call()


def share(options: argparse.Namespace, number: int, together: threading.Barrier) -> tuple[Cycles, float]:
    """Do what one of the processes does: of every so many connections one, and the callers of these.

    Return also the CPU seconds that it took.
    """
    request, paths = SHARED[options.mode]
    numbers = range(number, options.conns, together.parties)
    with connected(options, numbers) as clients:
        together.wait(START_TIMEOUT_S)
        cycles, ended = Cycles(), threading.Semaphore(0)
        callers = [
            Caller(client, paths(options, caller), request, bytes(options.value_bytes), cycles, ended)
            for number, client in zip(numbers, clients, strict=True)
            for caller in range(number, options.clients, options.conns)
        ]
        for caller in callers:
            caller.call()
        for _ in callers:
            ended.acquire()
        cycles.elapsed_s = time.perf_counter() - cycles.began
        return cycles, time.process_time() - cycles.spent_s


def share_out(options: argparse.Namespace) -> dict[str, Any]:
    """Have several processes begin together, and report on all of them."""
    processes = min(options.conns, PROCESSES)
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager, ProcessPoolExecutor(processes, context) as pool:
        together = manager.Barrier(processes)
        futures = [pool.submit(share, options, number, together) for number in range(processes)]
        done = [future.result() for future in futures]
    cycles = Cycles(
        took_s=[took_s for one, _ in done for took_s in one.took_s],
        elapsed_s=max(one.elapsed_s for one, _ in done),
        errors=sum(one.errors for one, _ in done),
    )
    return {**cycles.report(), "cpu_s": sum(cpu_s for _, cpu_s in done)}


# -- locks, by one connection


def lock(options: argparse.Namespace) -> dict[str, Any]:
    """Lock and unlock, again and again, with nobody else there."""
    with connected(options, [0]) as [client]:
        with client.Lock("/bench/lock"):
            pass
        cycles = Cycles()
        while cycles.elapsed_s < options.seconds:
            began = time.perf_counter()
            with client.Lock("/bench/lock"):
                pass
            cycles.done(time.perf_counter() - began)
        return cycles.report()


def handoff(options: argparse.Namespace) -> dict[str, Any]:
    """Have contenders of one connection take a lock in turn."""
    with connected(options, [0]) as [client], ThreadPoolExecutor(options.clients) as threads:
        client.ensure_path("/bench/handoff")
        cycles = Cycles()
        last = cycles.began

        def contend() -> None:
            nonlocal last
            while cycles.elapsed_s < options.seconds:
                with client.Lock("/bench/handoff"):
                    now = time.perf_counter()
                    cycles.done(now - last)
                    last = now

        for future in [threads.submit(contend) for _ in range(options.clients)]:
            future.result()
        return cycles.report()


MODES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    **dict.fromkeys(SHARED, share_out),
    "lock": lock,
    "handoff": handoff,
}


def main() -> None:
    options = parse_arguments(__doc__, MODES)
    print(json.dumps(MODES[options.mode](options)))


if __name__ == "__main__":
    main()
