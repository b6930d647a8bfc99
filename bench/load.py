"""Closed-loop load on a coord cluster: operations a second, latencies, CPU.

    python bench/load.py --mode put --conns 10 --clients 1000

Without `--endpoints` it starts one node of its own in a temporary directory, on a free port, and ends it afterwards.
`clients` callers share `conns` connections; each sends its next request when it has the answer to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

import coord

TICK = os.sysconf("SC_CLK_TCK")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", default="", help="host:port,…; empty starts a node")
    parser.add_argument("--mode", default="put,get,sget", help="comma-separated: put, get, sget (serializable)")
    parser.add_argument("--conns", type=int, default=10)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--total", type=int, default=200_000, help="operations a mode")
    parser.add_argument("--keys", type=int, default=100_000, help="size of the key space")
    parser.add_argument("--value-bytes", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def node(*flags: str, ready_at: str = "") -> Iterator[tuple[str, int]]:
    """Run a node and yield its endpoint and process id; `ready_at` is the endpoint, where `flags` give it one."""
    with tempfile.TemporaryDirectory(prefix="coord-bench-") as directory:
        client, peer = free_port(), free_port()
        command = [
            sys.executable, "-m", "coord", "serve", f"--data-dir={directory}/data",
            f"--listen-client-urls=http://127.0.0.1:{client}", f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            "--log-level=warn", *flags,
        ]  # fmt: skip
        process = subprocess.Popen(command)
        try:
            endpoint = ready_at or f"127.0.0.1:{client}"
            wait_ready(endpoint)
            yield endpoint, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)


def wait_ready(endpoint: str, timeout_s: float = 30.0) -> None:
    """Wait until the node answers /readyz."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(f"http://{endpoint}/readyz", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"{endpoint} is not ready after {timeout_s} s")
        time.sleep(0.02)


def cpu_s(pid: int) -> float:
    """Return user and system CPU seconds of a process, 0 for pid 0."""
    if not pid:
        return 0.0
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
            for _ in range(self.options.conns):
                clients.append(await connections.start(self.connection, endpoints))
            started = time.perf_counter()
            async with trio.open_nursery() as callers:
                for number in range(self.options.clients):
                    callers.start_soon(self.caller, clients[number % len(clients)])
            elapsed = time.perf_counter() - started
            connections.cancel_scope.cancel()
        return elapsed

    async def connection(self, endpoints: str, task_status: trio.TaskStatus[coord.Client]) -> None:
        async with coord.connect(endpoints) as client:
            task_status.started(client)
            await trio.sleep_forever()

    async def caller(self, client: coord.Client) -> None:
        clock, latencies = time.perf_counter, self.latencies_s
        while self.left > 0:
            self.left -= 1
            key = b"%08d" % self.chance.randrange(self.options.keys)
            started = clock()
            if self.mode == "put":
                await client.put(key, self.value)
            elif self.mode == "get":
                await client.get(key)
            else:
                await client.get(key, serializable=True)
            latencies.append(clock() - started)


def measure(options: argparse.Namespace, mode: str, endpoints: str, pid: int) -> dict[str, Any]:
    load = Load(options, mode)
    server_before, own_before = cpu_s(pid), time.process_time()
    elapsed = trio.run(load.run, endpoints)
    server, own = cpu_s(pid) - server_before, time.process_time() - own_before
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


def main() -> None:
    options = parse_arguments()
    rows = []
    if options.endpoints:
        rows = [measure(options, mode, options.endpoints, 0) for mode in options.mode.split(",")]
    else:
        with node() as (endpoint, pid):
            rows = [measure(options, mode, endpoint, pid) for mode in options.mode.split(",")]
    if options.json:
        print(json.dumps(rows))
        return
    print(" ".join(f"{name:>14}" for name in rows[0]))
    for row in rows:
        print(" ".join(f"{value:>14}" for value in row.values()))


if __name__ == "__main__":
    main()
