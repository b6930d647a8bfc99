"""Clusters of several `coord serve` processes: their lives, faults between them, and the check at the end of a run."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field

import coord
from coord.errors import CoordError

from .cluster import NodeProcess, free_port
from .faults import FaultProxies

LEADER_TIMEOUT_S = 30.0
AGREE_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 2.0
POLL_S = 0.02


def until(is_so: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Wait until `is_so` gives something true; return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(POLL_S)
    return found


@define(eq=False)
class ProcessCluster:
    """Nodes n1, n2, …, each on a data directory of its own; every wait is bounded."""

    directory: Path
    size: int = 3
    flags: tuple[str, ...] = ()
    has_proxies: bool = False
    nodes: dict[str, NodeProcess] = field(factory=dict)
    proxies: FaultProxies = field(init=False)

    def __attrs_post_init__(self) -> None:
        for number in range(1, self.size + 1):
            self._add(f"n{number}")
        self.proxies = FaultProxies(list(self.nodes.values()) if self.has_proxies else [])
        self.proxies.start()
        initial = ",".join(f"{node.name}={node.peer_url}" for node in self.nodes.values())
        for node in self.nodes.values():
            node.flags = (f"--initial-cluster={initial}", *self.flags)

    def _add(self, name: str, client_port: int = 0) -> NodeProcess:
        directory = self.directory / name
        directory.mkdir()
        node = self.nodes[name] = NodeProcess(directory, name, client_port or free_port())
        return node

    def add(self, name: str, initial_cluster: str, client_port: int = 0) -> NodeProcess:
        """Return a further node that joins an existing cluster."""
        node = self._add(name, client_port)
        node.flags = (
            f"--initial-cluster={initial_cluster},{name}={node.peer_url}",
            "--initial-cluster-state=existing",
            *self.flags,
        )
        return node

    def __getitem__(self, name: str) -> NodeProcess:
        return self.nodes[name]

    @property
    def running(self) -> list[NodeProcess]:
        return [node for node in self.nodes.values() if node.process is not None and node.process.poll() is None]

    @property
    def endpoints(self) -> str:
        return ",".join(node.endpoint for node in self.nodes.values())

    def start(self, environ: Mapping[str, str] | None = None) -> None:
        """Start all nodes that do not run, and wait until each serves."""
        stopped = [node for node in self.nodes.values() if node not in self.running]
        for node in stopped:
            node.spawn(environ=environ)
        for node in stopped:
            node.wait_ready()

    def stop(self) -> None:
        """End all nodes in order, one after the other."""
        for node in self.running:
            assert node.terminate() == 0, node.name

    def restore(self) -> None:
        """Undo every fault: all nodes run, and reach each other."""
        for node in self.running:
            node.send(signal.SIGCONT)
        self.proxies.heal()
        self.start()

    def cleanup(self) -> None:
        for node in self.nodes.values():
            node.cleanup()
        self.proxies.stop()

    def pause(self, name: str) -> None:
        self[name].send(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self[name].send(signal.SIGCONT)

    def status(self, name: str) -> coord.StatusResponse | None:
        """Return what a node says of itself, None if it does not answer."""
        try:
            with coord.connect_sync(self[name].endpoint, timeout=CALL_TIMEOUT_S) as client:
                return client.status()
        except CoordError:
            return None

    def leader(self, timeout_s: float = LEADER_TIMEOUT_S, *, besides: str = "") -> str:
        """Wait until some node leads, other than `besides`; return its name."""

        def find() -> str:
            for node in self.running:
                if node.name == besides:
                    continue
                status = self.status(node.name)
                if status is not None and status.leader_id == status.header.member_id:
                    return node.name
            return ""

        name: str = until(find, timeout_s, "a leader")
        return name

    def followers(self) -> list[str]:
        leader = self.leader()
        return [node.name for node in self.running if node.name != leader]

    def wipe(self, name: str) -> None:
        """Lose a node's disk."""
        assert self[name] not in self.running
        lost = self[name].directory / f"lost{time.monotonic_ns()}"
        self[name].data.rename(lost)

    def put(self, key: str, value: bytes = b"1", timeout_s: float = LEADER_TIMEOUT_S) -> int:
        """Write through any node."""
        with coord.connect_sync(self.endpoints, timeout=timeout_s) as client:
            return client.put(key, value)

    def check_agreement(self) -> int:
        """Let a last write succeed, then find equal state on all members at its revision; return that."""
        revision = self.put("the/last", b"%d" % time.monotonic_ns(), AGREE_TIMEOUT_S)
        for node in self.nodes.values():
            until(lambda node=node: self._is_at(node.name, revision), AGREE_TIMEOUT_S, f"{node.name} at {revision}")
        hashes = {}
        for node in self.nodes.values():
            with coord.connect_sync(node.endpoint, timeout=AGREE_TIMEOUT_S) as client:
                answer = client.hash_kv(revision=revision)
            hashes[node.name] = (answer.hash, answer.compact_revision)
        assert len(set(hashes.values())) == 1, hashes
        return revision

    def _is_at(self, name: str, revision: int) -> bool:
        status = self.status(name)
        return status is not None and status.header.revision >= revision
