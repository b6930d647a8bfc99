"""Clients of three real processes, of which one stands still, or none has a leader yet."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

import coord
from coord.errors import Unavailable

from .processes import ProcessCluster

MakeCluster = Callable[..., ProcessCluster]
CALL_S = 1.5
"""A call with a stopped node in the client's list takes no longer."""
TRIES = 5
DIAL_TIMEOUT_S = 40.0
COMMAND_S = 20.0


def command(cluster: ProcessCluster, *words: str) -> tuple[float, str]:
    """Run `coord` with all endpoints; return how many seconds it took and what it printed."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "coord", *words, f"--endpoints={cluster.endpoints}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started, done.stdout


def test_a_stopped_node_in_the_list_holds_up_nobody(shared: ProcessCluster) -> None:
    shared.put("k", b"v")
    stopped, _ = shared.followers()
    shared.pause(stopped)
    for _ in range(4):
        took_s, said = command(shared, "get", "k", f"--dial-timeout={DIAL_TIMEOUT_S}s")
        assert said == "k\nv\n"
        assert took_s < COMMAND_S, "the next is asked long before the dial timeout is over"
    for seed in range(6):
        # Others on the machine make it longer, never shorter: one try within the bound is proof.
        assert any(call_s(shared, Random(seed)) < CALL_S for _ in range(TRIES))
    shared.resume(stopped)


def call_s(cluster: ProcessCluster, chance: Random) -> float:
    """Return how long the first call takes of a client that tries the endpoints in this order."""
    with coord.connect_sync(cluster.endpoints, random=chance) as client:
        started = time.monotonic()
        client.put("k", b"v")
        return time.monotonic() - started


def connected(cluster: ProcessCluster, *, to_leader: bool) -> tuple[coord.BlockingClient, str]:
    """Return a client that is connected to the leader, or to a follower, and the name of that node."""
    names = {status.header.member_id: name for name in cluster.nodes if (status := cluster.status(name)) is not None}
    for seed in range(100):
        client = coord.connect_sync(cluster.endpoints, random=Random(seed))
        status = client.status()
        if (status.leader_id == status.header.member_id) == to_leader:
            return client, names[status.header.member_id]
        client.close()
    raise AssertionError("no such connection")


@pytest.mark.parametrize("to_leader", [False, True])
def test_a_lease_of_five_seconds_survives_the_silence_of_a_node(shared: ProcessCluster, to_leader: bool) -> None:
    """S30: whether the node that its client talks to follows or leads."""
    shared.leader()
    client, name = connected(shared, to_leader=to_leader)
    with client:
        lease = client.lease_grant(5)
        client.put("held", b"v", lease=lease.id)
        shared.pause(name)
        for _ in range(4):
            assert client.lease_keep_alive_once(lease.id, ttl_s=lease.ttl_s).ttl_s == 5
            time.sleep(5 / 3)
        assert client.get("held") is not None
        client.lease_revoke(lease.id)
    shared.resume(name)


def test_a_node_without_a_cluster_says_how_it_stands_and_serves_once_it_has_one(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    cluster["n1"].spawn()
    cluster["n1"].wait_for_event("node.service.ready")
    with coord.connect_sync(cluster["n1"].endpoint, timeout=2.0) as client:
        status = client.status()
        assert (status.leader_id, status.raft_term, status.header.cluster_id) == (0, 0, 0)
        assert status.errors == ["etcdserver: no leader: n1 waits for n2, n3"]
        for serializable in (False, True):
            with pytest.raises(Unavailable, match="no leader: n1 waits for n2, n3"):
                client.get("k", serializable=serializable)

        # A client that asks meanwhile is served as soon as there is a cluster.
        with ThreadPoolExecutor(1) as pool:
            started = time.monotonic()
            put = pool.submit(client.put, "k", b"v", timeout=30.0)
            cluster.start()
            elected_s = time.monotonic() - started
            assert put.result() == 2
            assert time.monotonic() - started < elected_s + 1.0
        assert client.status().header.cluster_id
