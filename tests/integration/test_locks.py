"""Locks of real processes on three real nodes, whose leader is killed, and whose holder is stopped or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

import pytest
import trio

import coord

from .processes import ProcessCluster

TTL_S = 3
TRIES = 4
HOLDER = f"""
import sys, trio, coord

async def hold(client):
    async with client.session(ttl={TTL_S}) as session, eval(sys.argv[2])(session) as lock:
        print("holds", flush=True)
        while True:
            await client.put("by", b"holder", fence=lock)
            await trio.sleep(0.02)

async def main():
    async with coord.connect(sys.argv[1]) as client:
        try:
            await hold(client)
        except coord.errors.CoordError as error:
            print(type(error).__name__, flush=True)

trio.run(main)
"""


Take = Callable[[coord.Session], AbstractAsyncContextManager[coord.Lock]]
LOCK = 'lambda session: session.lock("jobs", value=b"holder")'


def lock(session: coord.Session) -> AbstractAsyncContextManager[coord.Lock]:
    return session.lock("jobs", wait=30)


KINDS: dict[str, tuple[str, Take]] = {
    "lock": (LOCK, lock),
    "reader behind a writer": (
        'lambda session: session.write_lock("page")',
        lambda session: session.read_lock("page", wait=30),
    ),
    "writer behind a reader": (
        'lambda session: session.read_lock("page")',
        lambda session: session.write_lock("page", wait=30),
    ),
    "semaphore": (
        'lambda session: session.semaphore("builds", 1)',
        lambda session: session.semaphore("builds", 1, wait=30),
    ),
}
"""How a process holds each kind, and how another one takes over."""


@contextmanager
def a_holder(cluster: ProcessCluster, how: str = LOCK) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lock, by default `jobs`, and writes under it."""
    command = [sys.executable, "-W", "error", "-c", HOLDER, cluster.endpoints, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "holds\n"
            yield process
        finally:
            process.kill()


def takes_over(cluster: ProcessCluster, take: Take = lock) -> float:
    """Wait for the lock and write under it; return how long the wait was."""

    async def main() -> float:
        async with coord.connect(cluster.endpoints) as client, client.session(ttl=TTL_S) as session:
            began = time.monotonic()
            async with take(session) as taken:
                waited_s = time.monotonic() - began
                await client.put("by", b"next", fence=taken)
            return waited_s

    return trio.run(main)


def stopped_for(cluster: ProcessCluster, kind: str) -> float:
    """Stop a holder until another has the lock, and let it go on as if nothing had happened; return for how long."""
    how, take = KINDS[kind]
    with a_holder(cluster, how) as process:
        process.send_signal(signal.SIGSTOP)
        waited_s = takes_over(cluster, take)
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate(timeout=20)
        assert said.split() in (["LockLost"], ["FenceLost"])
    with coord.connect_sync(cluster.endpoints) as client:
        pair = client.get("by")
        assert pair is not None
        assert pair.value == b"next"
    return waited_s


def killed_for(cluster: ProcessCluster) -> float:
    """Kill a holder; return how long it takes until another has the lock."""
    with a_holder(cluster) as process:
        process.kill()
        return takes_over(cluster)


def assert_a_ttl(wait: Callable[[], float]) -> None:
    """Whatever else the machine does makes a wait longer, never shorter: one that is soon over is proof."""
    for _ in range(TRIES):
        waited_s = wait()
        assert waited_s > TTL_S / 2
        if waited_s < TTL_S + 2:
            return
    raise AssertionError(f"{waited_s} s")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_holder_loses_the_lock_and_finds_that_out(shared: ProcessCluster, kind: str) -> None:
    assert_a_ttl(lambda: stopped_for(shared, kind))


def test_a_killed_holder_keeps_the_lock_for_a_ttl(shared: ProcessCluster) -> None:
    assert_a_ttl(lambda: killed_for(shared))


def test_the_lock_outlives_the_leader(shared: ProcessCluster) -> None:
    """Killed with -9, while the holder writes, another waits, and sessions are renewed."""
    leader = shared.leader()
    handed_over = trio.Event()

    async def wait(client: coord.Client, fences: list[int]) -> None:
        async with client.session(ttl=TTL_S) as session, session.lock("a", wait=30) as lock:
            fences.append(lock.fence)
            handed_over.set()

    async def main() -> None:
        fences: list[int] = []
        async with (
            coord.connect(shared.endpoints) as client,
            coord.connect(shared.endpoints) as other,
            trio.open_nursery() as nursery,
        ):
            async with client.session(ttl=TTL_S) as session, session.lock("a") as lock:
                nursery.start_soon(wait, other, fences)
                shared[leader].kill()
                until = time.monotonic() + 1.5 * TTL_S
                while time.monotonic() < until:
                    await client.put("k", b"v", fence=lock)
                    await trio.sleep(0.05)
                assert not handed_over.is_set()
            with trio.fail_after(5):
                await handed_over.wait()
            assert fences[0] > lock.fence

    trio.run(main)
