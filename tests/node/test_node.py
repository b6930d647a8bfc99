"""What a client sees of one node, in virtual time."""

from __future__ import annotations

import pytest
import trio
from tests.node.conftest import play

from coord.errors import ApiError, Compacted, OutcomeUnknown, ResourceExhausted
from coord.node.node import Node
from coord.node.waiters import Load
from coord.protocol.ops import Method, Op
from coord.testing.sim_node import SimClient, SimHost, SimSettings


def test_put_and_get() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        assert await client.put(b"a", b"1") is None
        assert await client.get(b"a") == b"1"
        assert await client.get(b"b") is None
        assert client.acknowledged == [2]

    play(scenario)


def test_writes_of_one_frame_are_applied_alone_and_in_order() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        with pytest.raises(ApiError, match="key is not provided"):
            await client.write_many(
                [
                    [0, int(Op.PUT), None, [b"a", b"1"]],
                    [0, int(Op.PUT), None, [b"", b"x"]],
                    [0, int(Op.PUT), None, [b"a", b"2"]],
                ]
            )
        assert await client.get(b"a") == b"2"
        assert node.revision == 3

    play(scenario)


def test_a_frame_of_refused_writes_costs_no_entry() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        before = node.raft.log.last_index
        with pytest.raises(ApiError, match="key is not provided"):
            await client.put(b"", b"x")
        assert node.raft.log.last_index == before

    play(scenario)


def test_many_frames_share_one_write_to_the_log() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        syncs = node.log_writer.syncs
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(client.put, b"k%d" % number, b"v")
        assert len(client.acknowledged) == 200
        assert node.log_writer.syncs - syncs <= 3

    play(scenario)


def test_a_write_that_the_disk_holds_up_ends_as_unknown_and_may_still_happen() -> None:
    """S14: what was proposed is never refused as if it had not been."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        worker = node.log_writer.worker
        worker.delay_s_max = 0.0  # type: ignore[attr-defined]
        held: list[object] = []
        node.log_writer.worker = HeldWorker(held)  # type: ignore[assignment]
        with pytest.raises(OutcomeUnknown):
            await client.write_many([[0, int(Op.PUT), None, [b"a", b"1"]]], timeout_ms=700)
        assert node.machine.index.current(b"a") is None
        for job, done in held:  # type: ignore[misc]
            job()
            done(None)
        assert await client.get(b"a") == b"1"

    play(scenario)


class HeldWorker:
    is_quick = False

    def __init__(self, held: list[object]) -> None:
        self.held = held

    def submit(self, job: object, done: object, *, is_short: bool = False) -> None:
        self.held.append((job, done))

    def close(self) -> bool:
        return True


def test_nothing_is_answered_before_the_disk_has_it() -> None:
    """I7: at each answer the log's durable bytes hold the entry."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        lost: list[int] = []

        def check(reply: list[object]) -> None:
            image = host.image()
            recovered = image.recover(image.workers())
            if recovered.raft.log.last_index < node.machine.applied_index:
                lost.append(node.machine.applied_index)

        client.answered = check
        for number in range(20):
            await client.put(b"k%d" % number, b"v")
        assert not lost

    play(scenario)


def test_state_survives_power_loss() -> None:
    async def write(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for number in range(100):
            await client.put(b"k%d" % number, b"v%d" % number)
        await client.write(Op.DELETE_RANGE, [b"k1"])
        lease, _ = await client.write(Op.LEASE_GRANT, [60])
        await client.put(b"leased", b"x", lease)

    async def read(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        assert await client.get(b"k99") == b"v99"
        assert await client.get(b"k1") is None
        (lease,) = await client.request(Method.LEASE_LEASES, [])
        assert (await client.request(Method.LEASE_TIME_TO_LIVE, [lease, True]))[2:] == [60, [b"leased"]]
        assert node.revision == 103

    host = play(write)
    play(read, host)


def test_cluster_keeps_its_id_over_restarts() -> None:
    ids = []

    async def scenario(host: SimHost, node: Node) -> None:
        ids.append(node.cluster_id)
        await SimClient(node).put(b"a", b"1")

    host = play(scenario)
    play(scenario, host)
    assert ids[0]
    assert ids[0] == ids[1]


def test_orderly_stop_leaves_nothing_to_replay_and_says_so_to_late_comers() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await client.put(b"a", b"1")
        await node.stop()
        assert host.store.synced_index == node.machine.applied_index
        with pytest.raises(ApiError, match="server stopped"):
            await client.put(b"a", b"2")
        with pytest.raises(ApiError, match="server stopped"):
            await client.get(b"a")

    play(scenario)


def test_log_is_released_behind_the_synced_store() -> None:
    """S4: never above what an explicit sync has covered."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        released: list[tuple[int, int]] = []
        release = node.keeper.release_wal

        def watch(index: int) -> None:
            released.append((index, host.store.synced_index))
            release(index)

        node.keeper.release_wal = watch
        for number in range(400):
            await client.put(b"k%d" % (number % 7), bytes(400))
        await trio.sleep(5)
        assert released
        assert all(index <= synced for index, synced in released)
        assert host.log.of("wal.segment.released")
        assert len(host.disk.list(host.medium.directory.parent / "wal")) < 8

    play(scenario)


def test_log_is_released_under_load_that_never_pauses() -> None:
    """A sync that waited for a moment without anything to flush would wait for ever, and the log fill the disk."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        with trio.move_on_after(20):
            while True:
                await client.put(b"k", bytes(1000))
        assert len(host.log.of("wal.segment.rolled")) > 50
        assert len(host.disk.list(host.medium.directory.parent / "wal")) < 20

    play(scenario)


def test_log_is_released_by_its_size_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few entries of a megabyte each fill a disk as well as many small ones."""
    monkeypatch.setattr("coord.node.keeper.WAL_BYTES_BEFORE_SYNC", 64 * 1024)

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for _ in range(100):
            await client.put(b"k", bytes(20_000))
            await trio.sleep(0.05)
        assert len(host.log.of("wal.segment.rolled")) > 50
        assert len(host.disk.list(host.medium.directory.parent / "wal")) < 20

    play(scenario, SimHost(1, SimSettings(snapshot_count=1_000_000)))


def test_physical_compaction_is_answered_when_the_rows_are_gone() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for _ in range(50):
            await client.put(b"a", b"x")
        await client.write(Op.COMPACT, [51, True])
        assert len(host.medium.state.records) == 1
        with pytest.raises(Compacted) as caught:
            await client.request(Method.RANGE, [b"a", b"", 0, 50])
        assert caught.value.compact_revision == 51

    play(scenario)


def test_a_long_range_lets_others_go_first_and_keeps_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.mvcc.ranges.RANGE_SLICE_KEYS", 100)

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for start in range(0, 6000, 500):
            await client.write_many([[0, 1, None, [b"k%05d" % key, b"v"]] for key in range(start, start + 500)])
        revision = node.revision
        order: list[str] = []

        async def scan() -> None:
            records, more, count = await client.request(Method.RANGE, [b"k", b"l"])
            order.append("scan")
            assert (len(records), more, count) == (6000, False, 6000)
            assert max(record[2] for record in records) <= revision

        async def put() -> None:
            await client.put(b"k00001x", b"new")
            order.append("put")

        node.reader.clock = SteppingClock(node.reader.clock)
        # In virtual time a scan takes none; so neither may the disk.
        node.log_writer.worker.delay_s_max = 0.0  # type: ignore[attr-defined]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scan)
            nursery.start_soon(put)
        assert order == ["put", "scan"]

    play(scenario)


class SteppingClock:
    """A clock on which every look takes 3 ms, so that slices end."""

    def __init__(self, clock: object) -> None:
        self.now = clock() if callable(clock) else 0.0

    def __call__(self) -> float:
        self.now += 0.003
        return self.now


def test_requests_that_are_wrong_are_told_why() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for method, arguments, text in (
            (99, [], "unknown method 99"),
            (Method.RANGE, [1], "key"),
            (Method.LEASE_KEEP_ALIVE, [[]], "list of lease ids"),
            (Method.LEASE_TIME_TO_LIVE, [1.5], "float"),
            (Method.WATCH_CREATE, [b"a", b"", 0, -1], "negative"),
            (Method.WATCH_CREATE, [b"a", b"", 0, 0, 1], "no-put"),
            (Method.STATUS, [1], "does not know item 1"),
            (Method.HASH_KV, [10], "future revision"),
        ):
            with pytest.raises(ApiError, match=text):
                await client.request(method, arguments)  # type: ignore[arg-type]

    play(scenario)


def test_overload_is_refused_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        refused = 0

        async def put(number: int) -> None:
            nonlocal refused
            try:
                await client.put(b"k%d" % number, bytes(1000))
            except ResourceExhausted:
                refused += 1

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(put, number)
        assert refused > 0
        assert refused + len(client.acknowledged) == 100
        await client.put(b"after", b"x")
        assert node.waiters.placed_load == Load()

    monkeypatch.setattr("coord.node.consensus.PROPOSAL_BYTES_PENDING_MAX", 20_000)
    play(scenario)
