"""Compaction's promises: rows really go, replies wait for them, and the automatic kind keeps etcd's rhythm."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import trio

from coord.codec import encode
from coord.limits import COMPACTION_FLUSH_RECORDS, COMPACTION_SHARE, COMPACTION_SHARE_BEHIND
from coord.node.compactor import AutoCompaction, Compactor
from coord.node.node import Node
from coord.protocol.ops import Op
from coord.store.store import Store
from coord.testing.sim_node import SimClient, SimHost

from .conftest import play

MINUTE_S = 60
HOUR_S = 3600


def test_a_physical_compaction_does_not_share_the_end_of_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.mvcc.compaction.COMPACTION_SLICE_KEYS", 10)

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for _ in range(2):
            await client.write_many([[0, int(Op.PUT), None, [b"k%03d" % key, b"v"]] for key in range(200)])
        # Every slice takes a whole turn, so that the second compaction arrives during the first; a node with work
        # left lets no virtual time pass, so the disk must not need any.
        node.compactor.clock = Steps(node.compactor.clock(), 0.01)
        node.log_writer.worker.delay_s_max = 0.0  # type: ignore[attr-defined]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.write, Op.COMPACT, [201])
            while node.compactor.is_idle:
                await trio.lowlevel.checkpoint()
            await client.write(Op.COMPACT, [401, True])
            assert len(host.medium.state.records) == 200

    play(scenario)


def test_a_physical_compaction_holds_up_nobody_with_whom_it_shares_an_entry() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        for _ in range(2):
            await SimClient(node).write_many([[0, int(Op.PUT), None, [b"k%03d" % key, b"v"]] for key in range(200)])
        answers: list[tuple[int, int]] = []
        put, compact = [0, int(Op.PUT), None, [b"k", b"v"]], [0, int(Op.COMPACT), None, [401, True]]
        for number, writes in enumerate(([put], [put, compact], [put])):
            client = SimClient(node)
            client.answered = lambda reply, number=number: answers.append((number, reply[0]))  # type: ignore[misc]
            node.writes(client, 0, 0, [(place, 0) for place in range(len(writes))], encode(writes), writes)
        last_index = node.raft.log.last_index
        await trio.sleep(5)
        assert node.raft.log.last_index == last_index + 1
        assert answers == [(0, 0), (1, 0), (2, 0), (1, 1)]
        assert len(host.medium.state.records) <= 203

    play(scenario)


class Steps:
    """A clock that goes on by `step_s` at every look."""

    def __init__(self, now: float, step_s: float) -> None:
        self.now = now
        self.step_s = step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


def test_a_compaction_that_a_stop_interrupted_goes_on_after_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for _ in range(50):
            await client.put(b"a", b"x")
        await client.write(Op.COMPACT, [51])
        await node.stop()
        assert len(host.medium.state.records) == 50

    async def resumed(host: SimHost, node: Node) -> None:
        await trio.sleep(1)
        assert len(host.medium.state.records) == 1

    with monkeypatch.context() as patch:
        patch.setattr(Compactor, "turn", lambda self: False)
        host = play(interrupted)
    play(resumed, host)


def test_removed_records_are_counted_over_all_compactions() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for _ in range(10):
            await client.put(b"a", b"x")
        await client.write(Op.COMPACT, [6, True])
        assert node.compactor.removed == 4
        await client.write(Op.COMPACT, [11, True])
        assert node.compactor.removed == 9

    play(scenario)


def test_removal_waits_for_the_store_like_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 4: what is to be removed takes memory until it is flushed."""
    monkeypatch.setattr("coord.mvcc.compaction.COMPACTION_SLICE_KEYS", 10)
    monkeypatch.setattr("coord.node.compactor.OVERLAY_BYTES_MAX", 2_000)

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for _ in range(2):
            await client.write_many([[0, int(Op.PUT), None, [b"k%03d" % key, b"v"]] for key in range(200)])
        await trio.sleep(1)
        most = 0
        remove = node.store.remove

        def watch(positions: list[tuple[int, int]]) -> None:
            nonlocal most
            remove(positions)
            most = max(most, node.store.overlay_bytes)

        monkeypatch.setattr(Store, "remove", lambda store, positions: watch(positions))
        await client.write(Op.COMPACT, [401, True])
        assert len(host.medium.state.records) == 200
        assert most < 2_000

    play(scenario)


class Paced:
    """A compactor alone: each slice of the state takes a millisecond, each flush 50."""

    def __init__(self, slices: int, removed_a_slice: int = 0) -> None:
        self.now = self.worked_s = self.flushed_s = 0.0
        self.work = self.overlay_bytes = 0
        self.is_level = True
        self.compact_revision = 1
        self.flushing: list[Callable[[], None]] = []
        self.compactor = Compactor(
            machine=self,  # type: ignore[arg-type]
            store=self,  # type: ignore[arg-type]
            clock=lambda: self.now,
            log=lambda name, **fields: None,
            wake=lambda: None,
            flush=self.flushing.append,
            work_done=lambda: self.work,
            is_level=lambda: self.is_level,
        )
        self._slices, self._removed = slices, [(1, 0)] * removed_a_slice

    def compaction_steps(self) -> Iterator[list[tuple[int, int]]]:
        for _ in range(self._slices):
            self.now += 0.001
            self.worked_s += 0.001
            yield self._removed

    def remove(self, positions: list[tuple[int, int]]) -> None:
        pass

    def run(self, *, is_busy: bool) -> float:
        """Give it turns until it has ended; return how long that took."""
        began = self.now
        while not self.compactor.is_idle:
            self.work += is_busy
            self.compactor.tick()
            if not self.compactor.turn():
                self.now += 0.001
            if self.flushing:
                self.now += 0.05
                self.flushed_s += 0.05
                self.flushing.pop()()
        return self.now - began


def test_compaction_takes_a_share_of_the_time_while_there_is_other_work() -> None:
    paced = Paced(slices=1_000)
    assert paced.run(is_busy=True) * COMPACTION_SHARE >= 0.99 * paced.worked_s


def test_what_the_commits_of_removals_take_belongs_to_the_share() -> None:
    paced = Paced(slices=100, removed_a_slice=COMPACTION_FLUSH_RECORDS // 4)
    assert paced.run(is_busy=True) * COMPACTION_SHARE >= 0.9 * (paced.worked_s + paced.flushed_s)


def test_compaction_takes_all_of_the_time_while_there_is_no_other_work() -> None:
    paced = Paced(slices=1_000)
    assert paced.run(is_busy=False) <= 1.01 * paced.worked_s


def test_compaction_takes_its_share_alone_while_the_member_is_behind_its_leader() -> None:
    paced = Paced(slices=1_000)
    paced.is_level = False
    assert paced.run(is_busy=False) * COMPACTION_SHARE >= 0.99 * paced.worked_s


def test_compaction_takes_a_larger_share_while_the_next_one_waits() -> None:
    paced = Paced(slices=1_000)
    paced.compactor.turn()
    paced.compact_revision = 2
    paced.compactor.compacted(2)
    took_s = paced.run(is_busy=True)
    # The first at the larger share, and the next one, which none waits for, at the small one.
    assert paced.worked_s == pytest.approx(2, abs=0.01)
    assert took_s == pytest.approx(1 / COMPACTION_SHARE_BEHIND + 1 / COMPACTION_SHARE, rel=0.02)


def test_compaction_ends_on_a_slow_disk_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.node.compactor.COMPACTION_REST_S_MAX", 0.1)
    paced = Paced(slices=100, removed_a_slice=COMPACTION_FLUSH_RECORDS)
    assert paced.run(is_busy=True) < 100 * (0.001 + 0.05 + 0.1 + 0.002)


def test_who_asks_after_the_end_waits_for_no_other_compaction() -> None:
    paced = Paced(slices=10)
    answered: list[str] = []
    paced.compactor.after_removal(lambda: answered.append("during it"))
    assert not paced.flushing
    paced.run(is_busy=False)
    assert answered == ["during it"]
    paced.compactor.after_removal(lambda: answered.append("after it"))
    paced.flushing.pop()()
    assert answered == ["during it", "after it"]


def test_few_removals_wait_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scan looks at those that wait."""
    monkeypatch.setattr("coord.mvcc.compaction.COMPACTION_SLICE_KEYS", 10)
    monkeypatch.setattr("coord.node.compactor.COMPACTION_FLUSH_RECORDS", 30)

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for _ in range(3):
            await client.write_many([[0, int(Op.PUT), None, [b"k%03d" % key, b"v"]] for key in range(200)])
        most = 0
        remove = Store.remove

        def watch(store: Store, positions: list[tuple[int, int]]) -> None:
            nonlocal most
            remove(store, positions)
            most = max(most, len(store._overlay.removed()))

        monkeypatch.setattr(Store, "remove", watch)
        await client.write(Op.COMPACT, [601, True])
        assert len(host.medium.state.records) == 200
        assert most <= 30
        assert node.compactor.removed == 400

    play(scenario)


def compactions(mode: str, retention: float, hours: float, revisions_per_minute: int = 1) -> list[tuple[float, int]]:
    """`(minute, revision)` of each compaction that would be proposed."""
    revision = 100
    auto = AutoCompaction(mode, retention, lambda: revision)
    found = []
    for second in range(int(hours * HOUR_S)):
        if second % MINUTE_S == 0:
            revision += revisions_per_minute
        if target := auto.due(1000.0 + second):
            found.append((second / MINUTE_S, target))
    return found


def test_a_window_of_minutes_is_compacted_once_a_period_and_first_after_one() -> None:
    found = compactions("periodic", 10 * MINUTE_S, 1)
    assert [round(minute) for minute, _ in found] == [10, 20, 30, 40, 50]
    # What is kept is the window, at least, and no more than a sample more.
    assert all(9 <= minute + 101 - revision <= 12 for minute, revision in found), found


def test_a_window_of_hours_moves_hourly_and_first_after_the_whole_of_it() -> None:
    found = compactions("periodic", 5 * HOUR_S, 8)
    assert [round(minute) for minute, _ in found] == [300, 360, 420]
    assert all(299 <= minute + 101 - revision <= 307 for minute, revision in found), found


def test_a_window_without_changes_is_not_compacted_again() -> None:
    revision = 7
    auto = AutoCompaction("periodic", 10.0 * MINUTE_S, lambda: revision)
    assert [target for second in range(2 * HOUR_S) if (target := auto.due(float(second)))] == [7]


def test_revision_mode_looks_every_five_minutes_and_not_at_the_start() -> None:
    found = compactions("revision", 3, 0.6, revisions_per_minute=2)
    assert [round(minute) for minute, _ in found] == [5, 10, 15, 20, 25, 30, 35]
    assert [revision for _, revision in found] == [109, 119, 129, 139, 149, 159, 169]
