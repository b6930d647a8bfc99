"""Long rounds of faults against real processes under load: `make torture`; `SEED=n` and `ROUNDS=n` choose them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from coord.cli.relay import LinkFault

from .cluster import NodeProcess
from .faults import CUT, SILENT, SOUND
from .load import ClusterLoad
from .processes import ProcessCluster

pytestmark = pytest.mark.torture

ROUNDS = int(os.environ.get("ROUNDS", "40"))
ROUNDS_PER_CHECK = 8
SEED = int(os.environ.get("SEED", "0"))
MakeCluster = Callable[..., ProcessCluster]


class Torturer:
    """Does one harm after the other to a cluster; each is over when the next begins."""

    def __init__(self, cluster: ProcessCluster, chance: random.Random) -> None:
        self.cluster = cluster
        self.chance = chance
        self.harms = (
            self.kill,
            self.kill_all,
            self.stop,
            self.pause,
            self.isolate,
            self.one_way,
            self.slow,
            self.reset,
        )

    def harm(self) -> str:
        """Do something and undo it; return what it was."""
        return self.chance.choice(self.harms)()

    def victim(self) -> NodeProcess:
        if self.chance.random() < 0.5:
            return self.cluster[self.cluster.leader()]
        return self.chance.choice(list(self.cluster.nodes.values()))

    def last(self) -> None:
        """Let the harm last: shorter or longer than two election timeouts."""
        time.sleep(self.chance.choice((0.05, 0.5, 1.5, 3.0)))

    def kill(self) -> str:
        victim = self.victim()
        victim.kill()
        self.last()
        victim.start()
        return f"kill {victim.name}"

    def kill_all(self) -> str:
        for node in self.cluster.running:
            node.kill()
        self.cluster.start()
        return "kill all"

    def stop(self) -> str:
        victim = self.victim()
        assert victim.terminate() == 0
        self.last()
        victim.start()
        return f"stop {victim.name}"

    def pause(self) -> str:
        victims = {self.victim().name, self.victim().name}
        for name in victims:
            self.cluster.pause(name)
        self.last()
        for name in victims:
            self.cluster.resume(name)
        return f"pause {victims}"

    def isolate(self) -> str:
        victim = self.victim().name
        self.cluster.proxies.isolate(victim, self.chance.choice((CUT, SILENT)))
        self.last()
        self.cluster.proxies.heal()
        return f"isolate {victim}"

    def one_way(self) -> str:
        source, target = self.chance.sample(sorted(self.cluster.nodes), 2)
        self.cluster.proxies.spoil(source, target, self.chance.choice((CUT, SILENT)))
        self.last()
        self.cluster.proxies.heal()
        return f"spoil {source} to {target}"

    def slow(self) -> str:
        delay_s = self.chance.choice((0.01, 0.1, 0.3))
        for link in self._links():
            self.cluster.proxies.spoil(*link, LinkFault(delay_s=delay_s))
        self.last()
        self.cluster.proxies.heal()
        return f"slow by {delay_s}"

    def reset(self) -> str:
        for _ in range(10):
            link = self.chance.choice(self._links())
            self.cluster.proxies.spoil(*link, LinkFault(bytes_left=self.chance.randrange(50_000)))
            time.sleep(0.1)
            self.cluster.proxies.spoil(*link, SOUND)
        return "reset in mid-frame"

    def _links(self) -> list[tuple[str, str]]:
        names = list(self.cluster.nodes)
        return [(source, target) for source in names for target in names if source != target]


def test_rounds_of_every_fault(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, "--snapshot-count=500", has_proxies=True)
    cluster.start()
    torturer = Torturer(cluster, random.Random(SEED))
    for number in range(ROUNDS):
        if number % ROUNDS_PER_CHECK == 0:
            load = ClusterLoad(cluster.endpoints)
            load.start()
        print(f"SEED={SEED}, round {number}: {torturer.harm()}")
        if (number + 1) % ROUNDS_PER_CHECK == 0:
            load.wait_for_writes(50, 30)
            load.stop()
            cluster.check_agreement()
            load.check()


@contextmanager
def failing_syncs(node: NodeProcess, after: int) -> Iterator[None]:
    """Let the syncs of a running node fail with EIO, after the next `after` of each of its threads."""
    assert shutil.which("strace"), "needs strace, to make syncs fail: apt-get install strace"
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", os.devnull, "-p", str(node.pid), "-e", "trace=fdatasync,fsync",
         "-e", f"inject=fdatasync,fsync:error=EIO:when={after}+"],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield
    finally:
        tracer.terminate()
        _, said = tracer.communicate(timeout=10)
        assert b"Operation not permitted" not in said, said


@pytest.mark.parametrize("role", ["leader", "follower"])
@pytest.mark.parametrize("after", [1, 30])
def test_a_failed_sync_ends_the_node_and_loses_nothing(cluster: ProcessCluster, role: str, after: int) -> None:
    """What a disk holds after a failed sync is not known: the node ends, and starts again from what it finds."""
    name = cluster.leader() if role == "leader" else cluster.followers()[0]
    victim = cluster[name]
    load = ClusterLoad(cluster.endpoints)
    load.start()
    load.wait_for_writes(100)
    with failing_syncs(victim, after):
        assert victim.process is not None
        assert victim.process.wait(20) == 1
    assert victim.events("wal.sync.failed") or victim.events("store.flush.failed")
    load.wait_for_writes(100)
    victim.start()
    load.wait_for_writes(100)
    load.stop()
    cluster.check_agreement()
    load.check()
