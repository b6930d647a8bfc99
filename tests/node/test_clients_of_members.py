"""What clients see of three members: leases, reads and watches through any of them, whoever leads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from tests.node.cluster_rig import until

from coord.errors import ApiError, OutcomeUnknown, Unavailable
from coord.observe.metrics import Metrics
from coord.protocol.ops import Method, Notification, Op
from coord.server.collect import collect
from coord.testing.cluster import Cluster, open_cluster
from coord.testing.deterministic import run_seeded
from coord.testing.sim_node import SimClient

Scenario = Callable[[Cluster], Awaitable[None]]


def play(scenario: Scenario, seed: int = 1, **options: Any) -> None:
    async def main() -> None:
        with trio.fail_after(1000):
            async with open_cluster(3, seed=seed, **options) as cluster:
                await cluster.leader()
                await scenario(cluster)

    run_seeded(seed, main)


async def settled(cluster: Cluster) -> tuple[str, list[str]]:
    """The leader and the others, once all know it and have caught up."""
    leader = await cluster.leader()
    for name in cluster.names:
        if cluster.members[name].node is not None:
            await cluster.node(name).caught_up.wait()
    return leader, [name for name in cluster.names if name != leader]


def client(cluster: Cluster, name: str) -> SimClient:
    return SimClient(cluster.node(name))


async def watch(sink: SimClient, key: bytes, range_end: bytes = b"", start: int = 0) -> int:
    watch_id, _ = await sink.request(Method.WATCH_CREATE, [key, range_end, start])
    return int(watch_id)


def revisions(sink: SimClient, watch_id: int) -> list[int]:
    return [note[2] for note in sink.notifications if note[0] == Notification.EVENTS and watch_id in note[1]]


# -- leases


def test_a_lease_is_kept_alive_through_a_follower_and_counts_down_there() -> None:
    async def scenario(cluster: Cluster) -> None:
        leader, (one, other) = await settled(cluster)
        follower = client(cluster, one)
        lease, _ = await follower.write(Op.LEASE_GRANT, [4])
        await follower.put(b"k", b"v", lease)
        for _ in range(5):
            await trio.sleep(2.5)
            assert await follower.request(Method.LEASE_KEEP_ALIVE, [[lease, 99]]) == [[lease, 4], [99, 0]]
        await trio.sleep(2.5)
        told = await client(cluster, other).request(Method.LEASE_TIME_TO_LIVE, [lease, True])
        assert told == [lease, 1, 4, [b"k"]]
        assert await client(cluster, other).request(Method.LEASE_TIME_TO_LIVE, [99]) == [99, -1, 0, []]
        await trio.sleep(2.5)
        assert await follower.get(b"k") is None
        assert cluster.node(leader).leases.expired == 1
        assert cluster.node(one).leases.active == 0

    play(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_a_leader_change_never_shortens_a_lease(seed: int) -> None:
    """S23: the new leader counts the whole TTL, and a former leader's clock says nothing (P10)."""

    async def scenario(cluster: Cluster) -> None:
        leader, (one, _) = await settled(cluster)
        follower = client(cluster, one)
        lease, _ = await follower.write(Op.LEASE_GRANT, [5])
        await follower.put(b"k", b"v", lease)
        await trio.sleep(4)
        await follower.request(Method.LEASE_KEEP_ALIVE, [[lease]])
        renewed_at = trio.current_time()
        await trio.sleep(1)
        await cluster.kill(leader)
        await cluster.leader()
        elected_at = trio.current_time()
        while await follower.get(b"k") is not None:  # noqa: ASYNC110  # virtual time
            await trio.sleep(0.1)
        lived_s = trio.current_time() - renewed_at
        assert lived_s >= 5
        assert trio.current_time() - elected_at >= 5 - 0.2
        assert lived_s < 12

    play(scenario, seed)


def test_a_leader_that_is_cut_off_acknowledges_no_keep_alive() -> None:
    """S9, S22: it may still believe that it leads, while another has begun to count."""

    async def scenario(cluster: Cluster) -> None:
        leader, followers = await settled(cluster)
        old = client(cluster, leader)
        lease, _ = await old.write(Op.LEASE_GRANT, [5])
        cluster.partition([leader], followers)
        with pytest.raises(ApiError):
            await old.request(Method.LEASE_KEEP_ALIVE, [[lease]], timeout_ms=3000)
        while (await cluster.leader()) == leader:  # noqa: ASYNC110  # virtual time
            await trio.sleep(0.1)
        assert cluster.node(leader).leases.active == 0, "it was deposed and counts no more"
        cluster.heal()
        assert await old.request(Method.LEASE_KEEP_ALIVE, [[lease]]) == [[lease, 5]]
        assert cluster.node(await cluster.leader()).leases.renewed == 1

    play(scenario)


def test_a_keep_alive_that_waits_while_the_leader_changes_is_answered_by_the_new_one() -> None:
    async def scenario(cluster: Cluster) -> None:
        leader, (one, _) = await settled(cluster)
        follower = client(cluster, one)
        lease, _ = await follower.write(Op.LEASE_GRANT, [5])
        await cluster.kill(leader)
        assert await follower.request(Method.LEASE_KEEP_ALIVE, [[lease]]) == [[lease, 5]]

    play(scenario)


def test_a_lease_that_was_granted_again_and_again_over_leaders_expires_once() -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(3):
            leader, (one, _) = await settled(cluster)
            follower = client(cluster, one)
            lease, _ = await follower.write(Op.LEASE_GRANT, [2])
            await follower.put(b"k", b"v", lease)
            await cluster.kill(leader)
            await cluster.start(leader)
        await trio.sleep(6)
        reader = client(cluster, await cluster.leader())
        assert await reader.request(Method.LEASE_LEASES, []) == []
        assert await reader.get(b"k") is None

    play(scenario)


# -- reads


def test_reads_on_followers_see_what_was_acknowledged_anywhere_while_leaders_change() -> None:
    async def scenario(cluster: Cluster) -> None:
        leader, (one, other) = await settled(cluster)
        writer, reader = client(cluster, one), client(cluster, other)
        done = 0
        stop = trio.Event()

        async def write() -> None:
            nonlocal done
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    await writer.put(b"k", b"%d" % number)
                except Unavailable:
                    continue
                done = number

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            for step in range(300):
                if step == 100:
                    await cluster.kill(leader)
                before = done
                try:
                    value = await reader.get(b"k")
                except Unavailable:
                    continue
                assert value is not None or not before
                assert int(value or b"0") >= before
            stop.set()
        assert done > 100

    play(scenario)


def test_a_member_alone_refuses_reads_with_the_reason_and_serves_serializable_ones() -> None:
    async def scenario(cluster: Cluster) -> None:
        _, followers = await settled(cluster)
        alone = client(cluster, followers[0])
        await alone.put(b"k", b"v")
        rest = [name for name in cluster.names if name != followers[0]]
        for name in rest:
            await cluster.kill(name)
        began = trio.current_time()
        with pytest.raises(Unavailable) as caught:
            await alone.get(b"k")
        assert caught.value.text == f"etcdserver: no leader: {followers[0]} waits for {', '.join(sorted(rest))}"
        assert trio.current_time() - began < 5
        records, _, _ = await alone.request(Method.RANGE, [b"k", b"", 0, 0, 0, 0, True])
        assert records[0][5] == b"v"
        health = cluster.node(followers[0]).health()["linearizable_read"]
        assert health is not None
        assert health.text == caught.value.text
        assert caught.value.text in cluster.node(followers[0]).status()["errors"]
        with pytest.raises(Unavailable, match="waits for"):
            await alone.request(Method.LEASE_KEEP_ALIVE, [[1]], timeout_ms=1500)
        with pytest.raises(Unavailable, match="waits for"):
            await alone.request(Method.MEMBER_REMOVE, [[1]], timeout_ms=1500)

    play(scenario)


def test_a_member_is_not_ready_before_it_has_caught_up_once() -> None:
    """S29."""

    async def scenario(cluster: Cluster) -> None:
        leader, (one, other) = await settled(cluster)
        await client(cluster, leader).put(b"k", b"1")
        await cluster.kill(one)
        await client(cluster, leader).put(b"k", b"2")
        cluster.partition([one], [leader, other])
        await cluster.start(one)
        await trio.sleep(2)
        assert cluster.node(one).health()["linearizable_read"] is not None
        seen = cluster.node(leader).revision
        arguments = [b"k", b"", 0, 0, 0, 0, True, False, False, 0, 0, 0, 0, seen]
        with pytest.raises(Unavailable, match="has seen"):
            await client(cluster, one).request(Method.RANGE, arguments)
        cluster.heal()
        await cluster.node(one).caught_up.wait()
        await trio.sleep(0.1)
        assert cluster.node(one).health()["linearizable_read"] is None
        assert await client(cluster, one).get(b"k") == b"2"

    play(scenario)


def test_the_members_are_listed_by_a_follower_as_by_the_leader() -> None:
    async def scenario(cluster: Cluster) -> None:
        leader, (one, _) = await settled(cluster)
        await trio.sleep(1)
        lists = [await client(cluster, name).request(Method.MEMBER_LIST, [True]) for name in (leader, one)]
        assert lists[0] == lists[1]
        assert sorted(member[1] for member in lists[0]) == cluster.names
        status = cluster.node(one).status()
        assert status["leader"] == cluster.node(leader).member_id
        assert status["errors"] == []
        assert status["isLearner"] is False
        assert status["raftIndex"] >= status["raftAppliedIndex"] > 0

    play(scenario)


# -- watches


def test_a_watch_on_a_follower_sees_everything_in_order_over_a_leader_change() -> None:
    async def scenario(cluster: Cluster) -> None:
        leader, (one, other) = await settled(cluster)
        watcher, writer = client(cluster, one), client(cluster, other)
        one_watch = await watch(watcher, b"k")
        for number in range(20):
            await writer.put(b"k", b"%d" % number)
        await cluster.kill(leader)
        for number in range(20):
            with suppress(OutcomeUnknown):
                await writer.put(b"k", b"%d" % number)
        await trio.sleep(1)
        assert cluster.node(one).revision > 35
        assert revisions(watcher, one_watch) == list(range(2, cluster.node(one).revision + 1))

    play(scenario)


def test_a_member_without_a_leader_ends_its_watches_and_they_go_on_elsewhere() -> None:
    """S30: not silent for longer than an election timeout and a little."""

    async def scenario(cluster: Cluster) -> None:
        leader, (one, other) = await settled(cluster)
        watcher, writer = client(cluster, one), client(cluster, leader)
        ids = [await watch(watcher, b"k"), await watch(watcher, b"a", b"z")]
        await writer.put(b"k", b"1")
        await trio.sleep(0.5)
        cluster.partition([one], [leader, other])
        await writer.put(b"k", b"2")
        await trio.sleep(8)
        ended = [note for note in watcher.notifications if note[0] == Notification.CANCELED]
        assert [(sorted(note[1]), note[2:]) for note in ended] == [(ids, [0, "etcdserver: no leader"])]
        assert cluster.node(one).watches.watch_count == 0
        elsewhere = client(cluster, other)
        resumed = await watch(elsewhere, b"k", b"", 3)
        await trio.sleep(0.1)
        assert revisions(watcher, ids[0]) == [2]
        assert revisions(elsewhere, resumed) == [3]
        # A watch asked of it now waits for a leader, and is not made without one.
        with pytest.raises(Unavailable, match="no leader"):
            await watch(watcher, b"k")
        cluster.heal()
        await cluster.node(one).caught_up.wait()
        again = await watch(watcher, b"k", b"", 3)
        await trio.sleep(0.1)
        assert revisions(watcher, again) == [3]

    play(scenario)


def test_progress_on_a_follower_stands_behind_the_events_it_vouches_for() -> None:
    async def scenario(cluster: Cluster) -> None:
        leader, (one, _) = await settled(cluster)
        watcher, writer = client(cluster, one), client(cluster, leader)
        one_watch = await watch(watcher, b"k")
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(writer.put, b"k", b"%d" % number)
            for _ in range(10):
                revision = await watcher.request(Method.WATCH_PROGRESS, [])
                seen = revisions(watcher, one_watch)
                assert list(range(2, revision + 1)) == [one for one in seen if one <= revision]
                await trio.sleep(0.002)

    play(scenario)


def test_metrics_tell_who_leads_who_is_linked_and_who_lags() -> None:
    async def scenario(cluster: Cluster) -> None:
        leader, (one, other) = await settled(cluster)
        await cluster.kill(other)
        await client(cluster, leader).put(b"k", b"v")
        await trio.sleep(5)
        lost = f"{cluster.members[other].host.directory.identity.member:x}"
        there = f"{cluster.node(one).member_id:x}"
        metrics = Metrics()
        collect(metrics, cluster.node(leader))
        assert (metrics.server_is_leader, metrics.server_has_leader, metrics.server_is_learner) == (1, 1, 0)
        assert metrics.network_active_peers == {there: 1, lost: 0}
        assert metrics.raft_follower_lag_entries[there] == 0
        assert metrics.raft_follower_lag_entries[lost] > 0
        assert metrics.network_peer_sent_bytes_total[there] > metrics.network_peer_sent_bytes_total[lost] > 0
        sent = metrics.network_peer_sent_bytes_total[there]
        collect(metrics, cluster.node(one))
        here = f"{cluster.node(leader).member_id:x}"
        assert 0 < metrics.network_peer_received_bytes_total[here] <= sent
        assert (metrics.server_is_leader, metrics.server_has_leader) == (0, 1)
        assert metrics.server_leader_changes_seen_total >= 1
        assert metrics.raft_follower_lag_entries == {}

    play(scenario)


def test_watches_go_on_behind_a_snapshot_that_replaced_the_state() -> None:
    """S30: a member that stood still for long is given a snapshot; what it lacked comes out of its history."""

    async def scenario(cluster: Cluster) -> None:
        leader, (one, _) = await settled(cluster)
        writer, watcher = client(cluster, leader), client(cluster, one)
        await writer.put(b"k", b"0")
        goes_on = await watch(watcher, b"k")
        future = await watch(watcher, b"k", b"", 100)
        await writer.put(b"k", b"1")
        await trio.sleep(0.5)
        cluster.pause(one)
        for number in range(150):
            await writer.put(b"k", b"%d" % number)
            await trio.sleep(0.03)
        cluster.resume(one)
        await trio.sleep(5)
        assert cluster.members[one].host.log.of("snapshot.state.installed")
        await writer.put(b"k", b"last")
        await trio.sleep(1)
        assert revisions(watcher, goes_on) == list(range(3, 155))
        assert revisions(watcher, future) == list(range(100, 155))

    play(scenario, catch_up_entries=20, catch_up_entries_max=20)


def test_a_watch_whose_history_a_snapshot_no_longer_holds_ends_and_says_so() -> None:
    async def scenario(cluster: Cluster) -> None:
        leader, (one, _) = await settled(cluster)
        writer, watcher = client(cluster, leader), client(cluster, one)
        ends = await watch(watcher, b"k")
        cluster.pause(one)
        for number in range(150):
            await writer.put(b"k", b"%d" % number)
            await trio.sleep(0.03)
        await writer.write(Op.COMPACT, [100])
        # A snapshot is of what the store has.
        await until(lambda: cluster.node(leader).store.applied_index == cluster.node(leader).machine.applied_index)
        cluster.resume(one)
        await trio.sleep(5)
        assert cluster.members[one].host.log.of("snapshot.state.installed")
        assert [note for note in watcher.notifications if note[0] == Notification.CANCELED] == [[2, [ends], 100, ""]]
        # What was on its way to it when it stood still it gave out before.
        given = revisions(watcher, ends)
        assert given == list(range(2, 2 + len(given)))
        assert len(given) < 98

    play(scenario, catch_up_entries=20, catch_up_entries_max=20)
