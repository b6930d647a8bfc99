"""Redis beside the comparison, for context: one node, which syncs every write to its disk and asks nobody else.

It is loaded by its own `redis-benchmark`, which gives each caller a connection. Where callers share connections, as
many requests go out together on each as there are callers for it, and the next when all are answered.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from attrs import define

from cluster import HOST, READY_TIMEOUT_S, STOP_TIMEOUT_S, free_port
from rows import Row
from sides import Usage, output

PROGRAMS = ("redis-server", "redis-benchmark", "redis-cli")
TESTS = {"put": "set", "get": "get"}
TRY_S = 0.5
TRY_OPERATIONS = 500


@define(eq=False)
class Redis:
    """One Redis, `appendfsync always`."""

    directory: Path
    name: str = "redis"
    version: str = ""
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def pids(self) -> list[int]:
        assert self.process is not None
        return [self.process.pid]

    def start(self) -> None:
        self.version = output("redis-server", "--version").split()[2].removeprefix("v=")
        self.port = free_port()
        self.directory.mkdir()
        options = {"port": self.port, "bind": HOST, "dir": self.directory, "appendonly": "yes", "save": ""}
        flags = [str(item) for name, value in options.items() for item in (f"--{name}", value)]
        with (self.directory / "log").open("wb") as log:
            command = ["redis-server", *flags, "--appendfsync", "always"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while subprocess.run(["redis-cli", "-p", str(self.port), "ping"], capture_output=True, check=False).returncode:
            if time.monotonic() > deadline:
                raise TimeoutError(f"redis is not ready after {READY_TIMEOUT_S:g} s; see {self.directory / 'log'}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(STOP_TIMEOUT_S)

    def load(self, row: Row, seconds: float, keys: int, value_bytes: int) -> dict[str, Any]:
        """Load it for about so long, and return a report as the other loads print it, and the nodes' CPU seconds."""
        # redis-benchmark is told a number, not a time: a short run tells how many will do.
        operations = TRY_OPERATIONS
        took = 0.0
        while took < TRY_S:
            operations *= 4
            took = self._benchmark(row, operations, keys, value_bytes)["seconds"]
        usage = Usage(self.pids)
        report = self._benchmark(row, max(1, int(operations * seconds / took)), keys, value_bytes)
        return {**report, "server_cpu_s": usage.cpu_s(), "peak_mib": usage.peak_mib()}

    def _benchmark(self, row: Row, operations: int, keys: int, value_bytes: int) -> dict[str, Any]:
        command = [
            "redis-benchmark",
            *("-h", HOST, "-p", str(self.port), "-t", TESTS[row.mode], "--csv"),
            *("-c", str(row.conns), "-P", str(row.clients // row.conns)),
            *("-n", str(operations), "-r", str(keys), "-d", str(value_bytes)),
        ]
        table = next(csv.DictReader(output(*command).splitlines()))
        per_s = float(table["rps"])
        return {
            "operations": operations,
            "seconds": operations / per_s,
            "ops_per_s": per_s,
            "p50_ms": float(table["p50_latency_ms"]),
            "p99_ms": float(table["p99_latency_ms"]),
        }


def redis(directory: Path) -> Redis | None:
    """Return a Redis that is not started yet, None where it is not installed."""
    return Redis(directory / "redis") if all(map(shutil.which, PROGRAMS)) else None
