"""Closed-loop load on a coord cluster: operations a second, latencies, CPU.

    python bench/load.py --mode put --conns 10 --clients 1000

Without `--endpoints` it starts `--nodes` of its own in a temporary directory, on free ports, and ends them afterwards;
the connections are spread over all of them.
`clients` callers share `conns` connections; each sends its next request when it has the answer to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

import coord
from cluster import Node, running

TICK = os.sysconf("SC_CLK_TCK")
ROWS = ((1, 1, 3_000), (100, 100, 30_000), (100, 1_000, 60_000), (10, 1_000, 60_000))
"""Connections, clients, operations."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", default="", help="host:port,…; empty starts --nodes")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--rows", action="store_true", help="put and get at 1/1, 100/100, 100/1000 and 10/1000")
    parser.add_argument("--mode", default="put,get,sget", help="comma-separated: put, get, sget (serializable)")
    parser.add_argument("--conns", type=int, default=10)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--total", type=int, default=200_000, help="operations a mode")
    parser.add_argument("--keys", type=int, default=100_000, help="size of the key space")
    parser.add_argument("--value-bytes", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


@contextmanager
def node(*flags: str, ready_at: str = "") -> Iterator[tuple[str, int]]:
    """Run a node and yield its endpoint and process id; `ready_at` is the endpoint, where `flags` give it one."""
    with tempfile.TemporaryDirectory(prefix="coord-bench-") as directory:
        single = Node("n1", directory, flags)
        single.start()
        try:
            endpoint = ready_at or single.endpoint
            single.wait_ready(endpoint=endpoint)
            yield endpoint, single.pid
        finally:
            single.stop()


def cpu_s(pid: int) -> float:
    """Return user and system CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Load:
    """One mode's run: `clients` tasks over `conns` connections until `total` operations are done."""

    def __init__(self, options: argparse.Namespace, mode: str) -> None:
        self.options, self.mode = options, mode
        self.left = options.total
        self.latencies_s: list[float] = []
        self.chance = random.Random(options.seed)
        self.value = self.chance.randbytes(options.value_bytes)

    async def run(self, endpoints: str) -> float:
        async with trio.open_nursery() as connections:
            clients = []
            nodes = endpoints.split(",")
            for number in range(self.options.conns):
                at = number % len(nodes)
                clients.append(await connections.start(self.connection, [*nodes[at:], *nodes[:at]]))
            started = time.perf_counter()
            async with trio.open_nursery() as callers:
                for number in range(self.options.clients):
                    callers.start_soon(self.caller, clients[number % len(clients)])
            elapsed = time.perf_counter() - started
            connections.cancel_scope.cancel()
        return elapsed

    async def connection(self, endpoints: list[str], task_status: trio.TaskStatus[coord.Client]) -> None:
        async with coord.connect(endpoints) as client:
            task_status.started(client)
            await trio.sleep_forever()

    async def caller(self, client: coord.Client) -> None:
        clock, latencies = time.perf_counter, self.latencies_s
        while self.left > 0:
            self.left -= 1
            key = b"%08d" % int(self.chance.random() * self.options.keys)
            started = clock()
            if self.mode == "put":
                await client.put(key, self.value)
            elif self.mode == "get":
                await client.get(key)
            else:
                await client.get(key, serializable=True)
            latencies.append(clock() - started)


def measure(options: argparse.Namespace, mode: str, endpoints: str, pids: Sequence[int]) -> dict[str, Any]:
    load = Load(options, mode)
    server_before, own_before = sum(map(cpu_s, pids)), time.process_time()
    elapsed = trio.run(load.run, endpoints)
    server, own = sum(map(cpu_s, pids)) - server_before, time.process_time() - own_before
    ordered = sorted(load.latencies_s)
    count = len(ordered)
    return {
        "mode": mode,
        "conns": options.conns,
        "clients": options.clients,
        "operations": count,
        "ops_per_s": round(count / elapsed),
        "p50_ms": round(ordered[count // 2] * 1000, 2),
        "p99_ms": round(ordered[count * 99 // 100] * 1000, 2),
        "max_ms": round(ordered[-1] * 1000, 2),
        "server_cpu_s_per_1000": round(server / count * 1000, 4),
        "client_cpu_s_per_1000": round(own / count * 1000, 4),
    }


def measure_all(options: argparse.Namespace, endpoints: str, pids: Sequence[int]) -> Iterator[dict[str, Any]]:
    if not options.rows:
        for mode in options.mode.split(","):
            yield measure(options, mode, endpoints, pids)
        return
    for mode in ("put", "get"):
        for conns, clients, total in ROWS:
            options.conns, options.clients, options.total = conns, clients, total
            yield measure(options, mode, endpoints, pids)


def show(rows: Iterator[dict[str, Any]], is_json: bool) -> None:
    if is_json:
        print(json.dumps(list(rows)))
        return
    for number, row in enumerate(rows):
        if not number:
            print(" ".join(f"{name:>14}" for name in row))
        print(" ".join(f"{value:>14}" for value in row.values()), flush=True)


def main() -> None:
    options = parse_arguments()
    if options.endpoints:
        show(measure_all(options, options.endpoints, ()), options.json)
        return
    with running(options.nodes) as cluster:
        pids = [node.pid for node in cluster.nodes]
        show(measure_all(options, cluster.endpoints, pids), options.json)


if __name__ == "__main__":
    main()
