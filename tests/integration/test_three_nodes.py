"""Three real processes: nothing acknowledged is lost when one dies, stands still, restarts or is away for long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import coord
from coord.limits import LOG_BYTES_IN_MEMORY_MAX, MIB

from .cluster import NodeProcess
from .load import ClusterLoad
from .processes import ProcessCluster, until


@pytest.fixture
def cluster(shared: ProcessCluster) -> ProcessCluster:
    return shared


def outgrow_the_log(cluster: ProcessCluster) -> None:
    """Write more than the nodes keep of the log for who lags."""
    with coord.connect_sync(cluster.endpoints, timeout=30) as client:
        for number in range(LOG_BYTES_IN_MEMORY_MAX * 3 // 2 // MIB):
            client.put(f"large/{number % 4}", bytes(MIB))


@contextmanager
def loaded(cluster: ProcessCluster) -> Iterator[ClusterLoad]:
    """Load a cluster; in the end nothing acknowledged may be missing, and all members agree."""
    load = ClusterLoad(cluster.endpoints)
    load.start()
    try:
        load.wait_for_writes(50)
        yield load
        load.wait_for_writes(50)
    finally:
        load.stop()
    cluster.check_agreement()
    load.check()


def test_killed_followers_and_leaders_cost_no_acknowledged_write(cluster: ProcessCluster) -> None:
    with loaded(cluster) as load:
        follower = cluster.followers()[0]
        cluster[follower].kill()
        load.wait_for_writes(100)
        cluster[follower].start()
        for _ in range(2):
            leader = cluster.leader()
            survivors = [cluster[name] for name in cluster.followers()]
            before = sum(map(prompt_campaigns, survivors))
            cluster[leader].kill()
            load.wait_for_writes(100)
            assert cluster.leader() != leader
            assert sum(map(prompt_campaigns, survivors)) > before, "nobody waited for the election timeout"
            cluster[leader].start()
            followed = cluster.status(leader)
            assert followed is not None
            assert followed.leader_id != followed.header.member_id, "it returns as a follower"


def prompt_campaigns(node: NodeProcess) -> int:
    """How often a node has seen in its current life that the leader's process was gone."""
    planned = node.events("raft.campaign.planned")
    return sum(line["reason"] == "the leader's port refuses connections" for line in planned)


def test_a_paused_leader_is_replaced_and_no_lease_ends_early(cluster: ProcessCluster) -> None:
    """S22, S23: longer than the election timeout, and longer than the lease."""
    leader = cluster.leader()
    others = ",".join(cluster[name].endpoint for name in cluster.followers())
    with loaded(cluster) as load, coord.connect_sync(others, timeout=5) as client:
        lease = client.lease_grant(3)
        client.put("held", b"1", lease=lease.id)
        cluster.pause(leader)
        paused = time.monotonic()
        while time.monotonic() - paused < 4:
            assert client.lease_keep_alive_once(lease.id).ttl_s == 3
            assert client.get("held") is not None
            time.sleep(0.3)
        assert cluster.leader(besides=leader) != leader
        cluster.resume(leader)
        load.wait_for_writes(50)
        assert client.get("held") is not None
        until(lambda: client.get("held") is None, 10, "without a renewal it ends")


def test_a_rolling_restart_fails_no_write(cluster: ProcessCluster) -> None:
    """S12: a leader that is asked to stop hands over; every node finishes what it took, and sends its clients on."""
    with loaded(cluster) as load:
        # The leader last. If the lead moves meanwhile, for a disk stood still, until one was stopped that had it.
        order = [*cluster.followers(), cluster.leader()]
        has_handed_over = False
        while order or not has_handed_over:
            name = order.pop(0) if order else cluster.leader()
            assert cluster[name].terminate() == 0
            (stopping,) = cluster[name].events("node.shutdown.started")
            if stopping["role"] == "leader":
                finished = cluster[name].events("raft.transfer.finished")
                assert [line for line in finished if line["seq"] > stopping["seq"]]
                has_handed_over = True
            load.wait_for_writes(20)
            cluster[name].start()
    assert not load.errors, (load.errors, load.longest)


def test_a_follower_that_was_away_for_long_catches_up_by_a_snapshot(cluster: ProcessCluster) -> None:
    with loaded(cluster) as load:
        away = cluster.followers()[0]
        cluster[away].kill()
        outgrow_the_log(cluster)
        before = len(load.acknowledged)
        cluster[away].start()
        cluster[away].wait_for_event("snapshot.state.installed")
        assert len(load.acknowledged) > before, "the others serve meanwhile"


def test_all_three_killed_at_once_come_back_with_everything(cluster: ProcessCluster) -> None:
    load = ClusterLoad(cluster.endpoints)
    load.start()
    load.wait_for_writes(200)
    for node in cluster.running:
        node.kill()
    load.stop()
    cluster.start()
    cluster.check_agreement()
    load.check()
