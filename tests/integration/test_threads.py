"""The blocking client's locks over three real processes; and what is said of etcd's Python client, held against ours.

That one takes one server, puts `/locks/` before every key, keeps the unique part out of the key, and leaves it open
what becomes of a keep-alive when a node dies. That it has no types is answered by `tests/docs/test_types.py`.
"""

# ruff: noqa: SIM117  # blocks stand inside each other as the locks do

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import coord
from coord.client.blocking import BlockingClient
from coord.errors import LockTimeout

from .cluster import free_port
from .processes import ProcessCluster, until

WAIT_S = 30.0
TTL_S = 5


@contextmanager
def somebody_else(cluster: ProcessCluster) -> Iterator[BlockingClient]:
    with coord.connect_sync(cluster.endpoints, timeout=10) as client:
        yield client


def test_any_number_of_endpoints_of_which_some_are_down(shared: ProcessCluster) -> None:
    endpoints = [f"127.0.0.1:{free_port()}", *(node.endpoint for node in shared.nodes.values())]
    with coord.connect_sync(endpoints, timeout=10) as client, client.session(ttl=TTL_S) as session:
        for name in shared.nodes:
            with session.lock("several") as lock:
                shared[name].kill()
                client.put("by", b"several", fence=lock)
            shared.start()
        assert not session.is_lost


def test_the_name_is_the_users_and_the_unique_part_is_in_the_key(shared: ProcessCluster) -> None:
    with somebody_else(shared) as client, client.session() as session:
        before = {kv.key for kv in client.range("", prefix=True)}
        with session.lock("resource/1", value=b"mine") as lock:
            (kv,) = [kv for kv in client.range("", prefix=True) if kv.key not in before]
            assert kv.key == lock.key == b"resource/1/%x" % session.lease
            assert kv.value == b"mine"
            # And it is a place in the queue: all contenders are seen, in order.
            with client.session() as late, pytest.raises(LockTimeout, match=rf"resource/1/{session.lease:x} has it"):
                late.lock("resource/1", wait=0).__enter__()


def test_a_lock_is_kept_over_fail_over_and_silence(shared: ProcessCluster) -> None:
    """Killed leaders, and nodes that stand still, each for longer than the TTL."""
    with somebody_else(shared) as client, client.session(ttl=TTL_S) as session, session.lock("kept") as lock:
        fence = lock.fence
        for round_number in range(2):
            leader = shared.leader()
            shared[leader].kill()
            held(client, lock, round_number)
            shared.start()
            paused = shared.leader()
            shared.pause(paused)
            stands_still_until = time.monotonic() + TTL_S + 1
            while time.monotonic() < stands_still_until:
                held(client, lock, round_number)
                time.sleep(0.25)
            shared.resume(paused)
        assert lock.fence == fence
        with somebody_else(shared) as other, other.session() as late:
            with pytest.raises(LockTimeout):
                late.lock("kept", wait=0).__enter__()
    shared.check_agreement()


def held(client: BlockingClient, lock: coord.BlockingLock, number: int) -> None:
    lock.check()
    client.put("kept by", b"%d" % number, fence=lock, timeout=10)


HOLDER = """
import sys, time, coord
from coord.errors import LockLost
with coord.connect_sync(sys.argv[1], timeout=10) as client, client.session(ttl=2) as session:
    try:
        with session.lock("paused") as lock:
            print(lock.fence, flush=True)
            while True:
                client.put("paused by", b"%d" % lock.fence, fence=lock)
                time.sleep(0.01)
    except LockLost as error:
        print("lost:", error, flush=True)
"""


def test_a_process_that_stood_still_finds_its_lock_lost_and_has_written_nothing(shared: ProcessCluster) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, shared.endpoints], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as holder:
        try:
            assert holder.stdout is not None
            fence = int(holder.stdout.readline())
            with somebody_else(shared) as client:
                until(lambda: client.get("paused by"), WAIT_S, "it writes")
                holder.send_signal(signal.SIGSTOP)
                with client.session() as session, session.lock("paused", wait=WAIT_S) as lock:
                    assert lock.fence > fence
                    client.put("paused by", b"%d" % lock.fence, fence=lock)
                    holder.send_signal(signal.SIGCONT)
                    assert holder.stdout.readline().startswith("lost: lock 'paused' is lost: ")
                    kv = client.get("paused by")
                    assert kv is not None
                    assert int(kv.value) == lock.fence
            assert holder.wait(WAIT_S) == 0
        finally:
            holder.kill()
