"""What stands beside the comparison with etcd for context, where it is installed: Redis and ZooKeeper.

Redis is one node, which syncs every write to its disk and asks nobody else. It is loaded by its own `redis-benchmark`,
which gives each caller a connection. Where callers share connections, as many requests go out together on each as there
are callers for it, and the next when all are answered.

ZooKeeper is three servers as they come, each of which syncs to its disk. They are loaded by `bench/zkload.py`, and what
that takes is told too: it is much of it.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from attrs import define, field

from cluster import HOST, READY_TIMEOUT_S, STOP_TIMEOUT_S, free_port
from rows import Row
from sides import BENCH, NODES, Usage, output

TRY_S = 0.5
TRY_OPERATIONS = 500
ZOOKEEPER_JAR = Path("/usr/share/java/zookeeper.jar")
ZOOKEEPER_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
FILL_TIMEOUT_S = 600.0
SPARE_S = 120.0
"""What a load may take beyond its time before it is given up."""


@define(eq=False)
class Redis:
    """One Redis, `appendfsync always`."""

    name: ClassVar = "redis"
    about: ClassVar = "Redis, one node that asks nobody else, appendfsync always, loaded by redis-benchmark"
    tests: ClassVar = {"put": "set", "get": "get"}
    """By the mode of a row."""

    directory: Path
    keys: int
    value_bytes: int
    version: str = ""
    port: int = field(factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> str:
        """Say how to install it; empty if it is there."""
        programs = ("redis-server", "redis-benchmark", "redis-cli")
        return "" if all(map(shutil.which, programs)) else "apt-get install redis-server redis-tools"

    @classmethod
    def has(cls, row: Row) -> bool:
        """Tell whether it has a counterpart of a row."""
        return row.mode in cls.tests

    @property
    def pids(self) -> list[int]:
        assert self.process is not None
        return [self.process.pid]

    def start(self) -> None:
        """Start it, with every key put."""
        self.version = output("redis-server", "--version").split()[2].removeprefix("v=")
        self.directory.mkdir()
        options = {"port": self.port, "bind": HOST, "dir": self.directory, "appendonly": "yes", "save": ""}
        flags = [str(item) for name, value in options.items() for item in (f"--{name}", value)]
        with (self.directory / "log").open("wb") as log:
            command = ["redis-server", *flags, "--appendfsync", "always"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        client = ["redis-cli", "-p", str(self.port)]
        deadline = time.monotonic() + READY_TIMEOUT_S
        while subprocess.run([*client, "ping"], capture_output=True, check=False).returncode:
            if time.monotonic() > deadline:
                raise TimeoutError(f"redis is not ready after {READY_TIMEOUT_S:g} s; see {self.directory / 'log'}")
            time.sleep(0.05)
        # Named as redis-benchmark names them.
        puts = "".join(f"SET key:{number:012} {'x' * self.value_bytes}\r\n" for number in range(self.keys))
        subprocess.run([*client, "--pipe"], input=puts.encode(), capture_output=True, check=True)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(STOP_TIMEOUT_S)

    def load(self, row: Row, seconds: float) -> dict[str, Any]:
        """Load it for about so long, and return a report as the other loads print it, and what the node took."""
        # redis-benchmark is told a number, not a time: a short run tells how many will do.
        operations = TRY_OPERATIONS
        took = 0.0
        while took < TRY_S:
            operations *= 4
            took = self._benchmark(row, operations)["seconds"]
        usage = Usage(self.pids)
        report = self._benchmark(row, max(1, int(operations * seconds / took)))
        return {**report, "server_cpu_s": usage.cpu_s(), "peak_mib": usage.peak_mib()}

    def _benchmark(self, row: Row, operations: int) -> dict[str, Any]:
        command = [
            "redis-benchmark",
            *("-h", HOST, "-p", str(self.port), "-t", self.tests[row.mode], "--csv"),
            *("-c", str(row.conns), "-P", str(row.clients // row.conns)),
            *("-n", str(operations), "-r", str(self.keys), "-d", str(self.value_bytes)),
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


@define(eq=False)
class ZooKeeper:
    """Three servers."""

    name: ClassVar = "zookeeper"
    about: ClassVar = "ZooKeeper, three servers, each get a sync and a get, loaded by kazoo"

    directory: Path
    keys: int
    value_bytes: int
    version: str = ""
    ports: list[int] = field(factory=lambda: [free_port() for _ in range(NODES)])
    processes: list[subprocess.Popen[bytes]] = field(factory=list)

    @staticmethod
    def missing() -> str:
        """Say how to install it; empty if it is there."""
        lacks = [] if shutil.which("java") and ZOOKEEPER_JAR.exists() else ["apt-get install zookeeper"]
        if importlib.util.find_spec("kazoo") is None:
            lacks.append(f"{sys.executable} -m pip install kazoo")
        return "; ".join(lacks)

    @classmethod
    def has(cls, row: Row) -> bool:
        """Tell whether it has a counterpart of a row."""
        return row.mode in ("put", "get", "lock", "handoff")

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    def start(self) -> None:
        """Start them, with every key put."""
        peers = [f"server.{port}={HOST}:{free_port()}:{free_port()}" for port in range(1, NODES + 1)]
        for number, port in enumerate(self.ports, 1):
            home = self.directory / str(number)
            home.mkdir(parents=True)
            (home / "myid").write_text(str(number))
            # Ticks and limits are of the example that it comes with.
            settings = [
                "tickTime=2000",
                "initLimit=10",
                "syncLimit=5",
                f"dataDir={home}",
                f"clientPort={port}",
                f"clientPortAddress={HOST}",
                "maxClientCnxns=0",
                "admin.enableServer=false",
                *peers,
            ]
            (home / "zoo.cfg").write_text("\n".join(settings))
            command = ["java", "-cp", str(ZOOKEEPER_JAR), ZOOKEEPER_MAIN, str(home / "zoo.cfg")]
            with (home / "log").open("wb") as log:
                self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        self._leader_first()
        self._run(Row("fill", "fill", 10, 1000, None, None), FILL_TIMEOUT_S)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(STOP_TIMEOUT_S)

    def load(self, row: Row, seconds: float) -> dict[str, Any]:
        """Load them for so long, and return a report as the other loads print it, and what the servers took."""
        usage = Usage(self.pids)
        report = self._run(row, seconds)
        return {**report, "server_cpu_s": usage.cpu_s(), "peak_mib": usage.peak_mib()}

    def _run(self, row: Row, seconds: float) -> dict[str, Any]:
        command = [
            *(sys.executable, str(BENCH / "zkload.py"), "--mode", row.mode),
            *("--endpoints", ",".join(f"{HOST}:{port}" for port in self.ports)),
            *("--conns", str(row.conns), "--clients", str(row.clients), "--seconds", str(seconds)),
            *("--keys", str(self.keys), "--value-bytes", str(self.value_bytes)),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds + SPARE_S, check=True)
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def _leader_first(self) -> None:
        """Wait until all serve, and have the leader be the first of the endpoints, as for coord and etcd."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while set(roles := [told(port).get("Mode") for port in self.ports]) != {"leader", "follower"}:
            if time.monotonic() > deadline:
                raise TimeoutError(f"zookeeper is not ready after {READY_TIMEOUT_S:g} s; see {self.directory}")
            time.sleep(0.05)
        leader = self.ports.pop(roles.index("leader"))
        self.ports.insert(0, leader)
        self.version = f"{told(leader)['Zookeeper version'].partition('-')[0]}, kazoo {metadata.version('kazoo')}"


def told(port: int) -> dict[str, str]:
    """Return what a ZooKeeper server tells of itself, nothing if none is there."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as link, link.makefile("rw") as stream:
            stream.write("srvr")
            stream.flush()
            return dict(line.strip().split(": ", 1) for line in stream if ": " in line)
    except OSError:
        return {}


Context = Redis | ZooKeeper
CONTEXTS = (Redis, ZooKeeper)
