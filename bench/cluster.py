"""Clusters of `coord serve` processes on free loopback ports, for the measurements."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from attrs import define, field

STOP_TIMEOUT_S = 12.0
READY_TIMEOUT_S = 30.0
HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@define(eq=False)
class Node:
    """One node, which can be killed and started again on its data."""

    name: str
    directory: str
    flags: tuple[str, ...] = ()
    log: Path | None = None
    """Where its log goes; None has errors alone go to the terminal."""
    client_port: int = field(factory=free_port)
    peer_port: int = field(factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"{HOST}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://{HOST}:{self.peer_port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, initial_cluster: str = "") -> None:
        """Start it as one of `initial_cluster`, or alone."""
        client = f"http://{self.endpoint}"
        others = (f"--name={self.name}", f"--initial-cluster={initial_cluster}") if initial_cluster else ()
        level = "error" if self.log is None else "info"
        command = [
            sys.executable, "-m", "coord", "serve", f"--data-dir={self.directory}/{self.name}",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={self.peer_url}", f"--initial-advertise-peer-urls={self.peer_url}",
            f"--log-level={level}", *others, *self.flags,
        ]  # fmt: skip
        with nullcontext() if self.log is None else self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log)

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S, endpoint: str = "") -> None:
        """Wait until the node answers /readyz, at `endpoint` where its flags give it another one.

        Raises `ChildProcessError` if its process ends instead.
        """
        assert self.process is not None
        endpoint = endpoint or self.endpoint
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with urllib.request.urlopen(f"http://{endpoint}/readyz", timeout=1) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
            if self.process.poll() is not None:
                raise ChildProcessError(f"{self.name} has ended, status {self.process.returncode}; its log says why")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{endpoint} is not ready after {timeout_s} s")
            time.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in order."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(STOP_TIMEOUT_S)


@define(eq=False)
class Cluster:
    """Some nodes that know each other."""

    nodes: list[Node]

    @property
    def endpoints(self) -> str:
        return ",".join(node.endpoint for node in self.nodes)

    @property
    def initial_cluster(self) -> str:
        return ",".join(f"{node.name}={node.peer_url}" for node in self.nodes)

    def leader(self) -> Node:
        """Return the node that leads, by what it says of itself."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            for node in self.nodes:
                if metrics(node.endpoint)["coord_server_is_leader"]:
                    return node
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody leads after {READY_TIMEOUT_S:g} s")
            time.sleep(0.05)

    def metrics(self) -> Counter[str]:
        """Return the sums of what all nodes count."""
        sums: Counter[str] = Counter()
        for node in self.nodes:
            sums.update(metrics(node.endpoint))
        return sums

    def start(self) -> None:
        for node in self.nodes:
            node.start(self.initial_cluster)
        for node in self.nodes:
            node.wait_ready()


@contextmanager
def running(count: int, *flags: str, logs: bool = False) -> Iterator[Cluster]:
    """Run `count` nodes in a temporary directory, with `logs` also these; all of them serve."""
    with tempfile.TemporaryDirectory(prefix="coord-bench-") as directory:
        names = [f"n{number + 1}" for number in range(count)]
        cluster = Cluster(
            [Node(name, directory, flags, Path(directory, f"{name}.log") if logs else None) for name in names]
        )
        try:
            cluster.start()
            yield cluster
        finally:
            for node in cluster.nodes:
                node.stop()


def metrics(endpoint: str) -> dict[str, float]:
    """Return what a node's /metrics tells, by name with labels."""
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=READY_TIMEOUT_S) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}
