"""A node on a disk that fails, and on one that is full (law 7, S16), in virtual time.

A sync that fails ends the node, and what it answered before is there after the restart. A full disk ends nothing:
what grows the store is refused under the alarm, what makes room goes on, and the alarm goes by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
from tests.node.cluster_rig import Trial, play_three

from coord.errors import ApiError, DiskError, NodeError, ResourceExhausted
from coord.node.node import Node
from coord.protocol.ops import Method, Op
from coord.testing.sim_disk import SyncFailure
from coord.testing.sim_node import SimClient, SimHost, SimSettings

from .conftest import Scenario, play

NO_SPACE = "etcdserver: mvcc: database space exceeded"
SYNCS = range(1, 46)
SEGMENT_BYTES = 8 * 1024


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


class Writers:
    """Clients that count up in keys of their own, and what came of it."""

    def __init__(self) -> None:
        self.acknowledged: dict[bytes, int] = {}
        self.issued: dict[bytes, int] = {}
        self.late = 0
        """Answers to writes that came although the node knew that its log had failed."""

    async def run(self, host: SimHost, node: Node) -> None:
        def answered(reply: object) -> None:
            self.late += bool(host.log.of("wal.sync.failed"))

        client = SimClient(node, answered=answered)
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(self._count, client, b"key%d" % number)

    async def _count(self, client: SimClient, key: bytes) -> None:
        while True:
            number = self.issued[key] = self.issued.get(key, 0) + 1
            await client.put(key, b"%d" % number + bytes(300))
            self.acknowledged[key] = number

    async def check(self, host: SimHost, node: Node) -> None:
        """Find everything that was acknowledged, and nothing that was not sent."""
        client = SimClient(node)
        for key, issued in self.issued.items():
            value = await client.get(key)
            found = 0 if value is None else int(value.rstrip(b"\0"))
            assert self.acknowledged.get(key, 0) <= found <= issued


def failure_of(scenario: Scenario, host: SimHost) -> list[BaseException]:
    """Run a node that ends by itself; return why."""
    with pytest.raises(BaseExceptionGroup) as caught:
        play(scenario, host, limit_s=60)
    return list(leaves(caught.value))


@pytest.mark.parametrize("style", list(SyncFailure))
def test_a_sync_that_fails_ends_the_node_and_nothing_acknowledged_is_lost(style: SyncFailure) -> None:
    """At every sync of a node's life, its start included; then its process or its machine starts again."""
    total = 0
    for number in SYNCS:
        host = SimHost(number, SimSettings(segment_bytes=SEGMENT_BYTES))
        host.disk.sync_failure, host.disk.fail_sync_at = style, number
        writers = Writers()

        reasons = failure_of(writers.run, host)

        assert reasons
        assert all(isinstance(reason, DiskError) for reason in reasons), reasons
        assert "Input/output error" in str(reasons[0])
        assert not writers.late
        total += sum(writers.acknowledged.values())
        # kill -9 shows the pages that never reached the disk; power loss does not. Both, in either order.
        host.restart() if number % 2 else host.lose_power()
        play(writers.check, host)
        play(writers.check, host)
    assert total > 200


def test_a_sync_that_fails_loses_nothing_even_if_nothing_unsynced_survives() -> None:
    """The cruellest power loss: an answer given before its own sync returned would show."""
    for number in SYNCS:
        host = SimHost(number, SimSettings(segment_bytes=SEGMENT_BYTES))
        writers = Writers()

        async def fail_later(host: SimHost, node: Node, number: int = number, writers: Writers = writers) -> None:
            host.disk.fail_sync_at = number
            await writers.run(host, node)

        failure_of(fail_later, host)

        host.disk.crash(lambda _: 0)
        host.medium.crash()
        play(writers.check, host)


def test_the_log_says_why_the_node_ends() -> None:
    host = SimHost(1)

    async def scenario(host: SimHost, node: Node) -> None:
        host.disk.fail_sync_at = 1
        await SimClient(node).put(b"a", b"1")
        # It may have been the sync of the next segment that failed, which is beside the put.
        await trio.sleep_forever()

    (reason,) = failure_of(scenario, host)

    assert "Input/output error" in str(reason)
    assert [str(line["error"]) for line in host.log.of("wal.sync.failed")] == [str(reason)]


def test_a_segment_that_cannot_be_prepared_ends_the_node_too() -> None:
    """The preparing thread's failures are of the same disk: law 7 holds for them."""
    host = SimHost(3)

    async def scenario(host: SimHost, node: Node) -> None:
        def fail(operation: str) -> None:
            if operation.startswith("create spare"):
                host.disk.fail_sync_at = 1

        host.disk.observer = fail
        client = SimClient(node)
        while True:
            await client.put(b"a", bytes(4000))

    reasons = failure_of(scenario, host)

    assert all(isinstance(reason, DiskError) for reason in reasons)
    assert host.log.of("wal.sync.failed")


# A full disk.


def take_all_space(host: SimHost, left_bytes: int = 0) -> None:
    """Let others fill the disk, to its last byte or nearly."""
    host.disk.capacity_bytes = 2**40
    host.disk.capacity_bytes -= host.disk.free_bytes(host.medium.directory) - left_bytes


async def alarms(client: SimClient) -> list[list[int]]:
    found: list[list[int]] = await client.request(Method.ALARM_LIST, [])
    return found


async def until_alarm(client: SimClient, raised: bool) -> None:
    while bool(await alarms(client)) is not raised:  # noqa: ASYNC110 - a client can only ask
        await trio.sleep(0.1)


async def assert_refused(client: SimClient) -> None:
    """What grows the store is refused, in etcd's words; a transaction that puts nothing is not."""
    for op, arguments in ((Op.PUT, [b"more", b"x"]), (Op.TXN, [[], [[1, [b"more", b"x"]]], []]), (Op.LEASE_GRANT, [9])):
        with pytest.raises(ResourceExhausted) as caught:
            await client.write(op, arguments)
        assert caught.value.text == NO_SPACE


async def fill(client: SimClient, value_bytes: int = 1000) -> int:
    """Put new keys until that is refused; return how many were taken."""
    for number in range(10_000):
        try:
            await client.write_many([[0, int(Op.PUT), None, [b"fill%05d" % number, bytes(value_bytes)]]])
        except ResourceExhausted:
            return number
    raise AssertionError("never full")


async def make_room(client: SimClient) -> None:
    """Delete all and compact: neither needs more room than a full disk has."""
    await client.write(Op.DELETE_RANGE, [b"fill", b"film"])
    await client.write(Op.COMPACT, [client.node.revision, True])


def test_quota_refuses_what_grows_and_clears_by_itself() -> None:
    """S16: on at the quota, off below 90 % of it; reads, deletes, revokes and compaction go on."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        lease, _ = await client.write(Op.LEASE_GRANT, [3600])
        await client.put(b"leased", b"x", lease)
        taken = await fill(client)
        assert 150 <= taken <= 200
        await until_alarm(client, raised=True)

        await assert_refused(client)
        assert await client.get(b"fill00000") == bytes(1000)
        await client.write(Op.LEASE_REVOKE, [lease])
        assert await client.get(b"leased") is None
        assert await client.write(Op.TXN, [[], [[2, [b"fill00000"]]], []]) == [True, [[2, node.revision, [1, []]]]]
        await trio.sleep(5)
        assert await alarms(client), "nothing was compacted yet"

        await make_room(client)
        await until_alarm(client, raised=False)
        await client.put(b"more", b"x")
        assert len(host.log.of("alarm.state.raised")) == len(host.log.of("alarm.state.cleared")) == 1

    play(scenario, SimHost(1, SimSettings(options={"quota_bytes": 200_000})))


def test_a_delete_in_a_frame_with_a_refused_put_goes_on() -> None:
    """A client puts its callers' writes into one frame: they share no fate."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await fill(client)
        frame = [[0, int(Op.PUT), None, [b"big", b"x"]], [0, int(Op.DELETE_RANGE), None, [b"fill00000"]]]
        with pytest.raises(ResourceExhausted):
            await client.write_many(frame)
        assert await client.get(b"fill00000") is None
        assert await client.get(b"big") is None

    play(scenario, SimHost(1, SimSettings(options={"quota_bytes": 200_000})))


def test_what_the_alarm_refuses_takes_no_room_in_the_log() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await client.write(Op.ALARM, [1, node.member_id, 1])
        last = node.raft.log.last_index
        for _ in range(100):
            await assert_refused(client)
        assert node.raft.log.last_index == last

    play(scenario)


@pytest.mark.parametrize("left_bytes", [0, 100])
def test_the_alarm_of_a_full_disk_is_raised_while_the_log_can_still_carry_it(left_bytes: int) -> None:
    """S16: the segment in use takes the alarm's entry, the deletes and what else makes room."""
    host = SimHost(2, SimSettings(segment_bytes=2**20))

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        lease, _ = await client.write(Op.LEASE_GRANT, [3600])
        await client.put(b"a", b"1", lease)
        take_all_space(host, left_bytes)
        await fill(client)
        await until_alarm(client, raised=True)
        # With some bytes left, it is the next segment that shows the disk to be full.
        assert ("wal.disk.full" in host.log.names) is bool(left_bytes)

        await assert_refused(client)
        assert await client.get(b"a") == b"1"
        await client.write(Op.LEASE_REVOKE, [lease])
        await make_room(client)
        assert await client.get(b"a") is None
        assert await client.get(b"fill00000") is None

        host.disk.capacity_bytes = None
        await until_alarm(client, raised=False)
        await client.put(b"more", b"x")

    play(scenario, host, limit_s=120)


@pytest.mark.parametrize("snapshot_count", [20, 10_000])
def test_a_full_disk_never_stops_a_log_that_its_own_segments_can_serve(snapshot_count: int) -> None:
    """S16: released segments are used again though no new file can be made, however long that lasts.

    With many entries between two syncs of the store, it is the full log that asks for the next.
    """
    host = SimHost(4, SimSettings(snapshot_count=snapshot_count))

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for _ in range(60):
            await client.put(b"a", bytes(3000))
        take_all_space(host)
        for _ in range(500):
            await client.write(Op.DELETE_RANGE, [b"none" * 100])

    play(scenario, host, limit_s=600)


def test_writes_that_met_a_full_disk_wait_and_are_acknowledged_when_there_is_space() -> None:
    host = SimHost(5)

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await client.put(b"a", b"1")
        host.disk.write_budget_bytes = 700
        answers: list[int] = []

        async def write(number: int) -> None:
            await client.write_many([[0, int(Op.PUT), None, [b"k%d" % number, bytes(400)]]], timeout_ms=60_000)
            answers.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(write, number)
            await trio.sleep(20)
            assert "wal.disk.full" in host.log.names
            assert not answers, "nothing of it is on the disk"
            host.disk.write_budget_bytes = None
        assert len(answers) == 10
        await trio.sleep(3)
        assert not await alarms(client)
        await client.put(b"more", b"x")

    play(scenario, host, limit_s=120)

    async def check(host: SimHost, node: Node) -> None:
        for number in range(10):
            assert await SimClient(node).get(b"k%d" % number) == bytes(400)

    play(check, host)


def test_a_write_whose_time_runs_out_on_a_full_disk_says_that_it_may_still_be_applied() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        host.disk.write_budget_bytes = 0
        with pytest.raises(ApiError, match="may still be applied"):
            await client.put(b"a", b"1")
        host.disk.write_budget_bytes = None
        await until_alarm(client, raised=False)
        await trio.sleep(2)
        assert await client.get(b"a") == b"1"

    play(scenario, SimHost(6))


def test_a_full_store_raises_the_alarm_and_deletes_make_room_on_its_reserve() -> None:
    host = SimHost(7)
    # The reserve takes what is not flushed yet, up to 0.4 s of puts, and the deletes; as 64 MiB do of real stores.
    host.medium.capacity_bytes, host.medium.reserve_bytes = 850_000, 550_000

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        taken = await fill(client)
        assert taken >= 250
        await until_alarm(client, raised=True)
        await assert_refused(client)
        for number in (0, taken - 1):
            assert await client.get(b"fill%05d" % number) == bytes(1000), "acknowledged, if only in memory"

        await make_room(client)
        await until_alarm(client, raised=False)
        await client.put(b"more", b"x")
        assert await client.get(b"fill00000") is None

    play(scenario, host, limit_s=120)


def test_a_store_that_stays_full_is_not_tried_without_pause() -> None:
    """A physical compaction waits for the flush; it must not make the node try that as fast as it can."""
    host = SimHost(8)
    host.medium.capacity_bytes = 300_000

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await fill(client)
        await client.write_many([[0, int(Op.DELETE_RANGE), None, [b"fill", b"film"]]])
        before = len(host.log.of("store.disk.full"))
        with trio.move_on_after(10):
            await client.write(Op.COMPACT, [node.revision, True])
        assert len(host.log.of("store.disk.full")) - before <= 11

    play(scenario, host, limit_s=120)


def test_an_acknowledged_write_survives_power_loss_on_a_full_store() -> None:
    """What the store cannot take is in the log, and is found there."""
    host = SimHost(9)
    host.medium.capacity_bytes = 200_000
    taken = 0

    async def scenario(host: SimHost, node: Node) -> None:
        nonlocal taken
        taken = await fill(SimClient(node))

    play(scenario, host, limit_s=120)
    host.medium.capacity_bytes = 2**30

    async def check(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for number in range(taken):
            assert await client.get(b"fill%05d" % number) == bytes(1000)
        await until_alarm(client, raised=False)

    play(check, host)


def test_a_node_that_cannot_start_for_lack_of_space_says_so() -> None:
    host = SimHost(10)
    host.disk.capacity_bytes = 1000

    async def nothing(host: SimHost, node: Node) -> None:
        raise AssertionError("it runs")

    (reason,) = failure_of(nothing, host)
    assert isinstance(reason, NodeError)
    assert "No space left on device" in str(reason)
    host.restart()
    host.disk.capacity_bytes = None

    async def put(host: SimHost, node: Node) -> None:
        await SimClient(node).put(b"a", b"1")

    play(put, host)


def test_a_full_disk_keeps_a_restarted_member_out_and_ends_nobody() -> None:
    """S1 wants it remembered who calls, and there is no room: the others go on, and let it in when there is."""

    async def story(trial: Trial) -> None:
        await trial.leader()
        await trial.kill("n3")
        for name in ("n1", "n2"):
            take_all_space(trial.hosts[name])
        await trial.start("n3")
        await trio.sleep(5)
        third = trial.nodes["n3"].member_id
        assert not any(trial.nodes[name].peers.is_linked(third) for name in ("n1", "n2"))
        assert "free space" in trial.hosts["n3"].log.of("peer.link.refused")[0]["reason"]
        assert await trial.client("n1").get(b"a") is None
        for name in ("n1", "n2"):
            trial.hosts[name].disk.capacity_bytes = None
        await trial.leader()
        await trial.agree()
        assert await trial.client("n3").get(b"a") is None

    play_three(story)
