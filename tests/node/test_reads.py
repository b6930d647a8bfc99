"""What the reader promises under load: it holds nothing up, forgets nobody and keeps nothing for those who left."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import trio

from coord.errors import ApiError, Behind, Code, ResourceExhausted
from coord.mvcc.machine import StateMachine
from coord.node.node import Node
from coord.protocol.ops import Method, Op
from coord.testing.sim_node import SimClient, SimHost

from .conftest import play


def in_steps(node: Node, step_s: float) -> None:
    """Let every look at the reader's clock take `step_s`."""
    now = node.reader.clock()

    def clock() -> float:
        nonlocal now
        now += step_s
        return now

    node.reader.clock = clock


def hold_rounds(node: Node) -> Callable[[], None]:
    """Confirm no read round until the result is called."""
    held: list[tuple[int, int]] = []
    confirm = node.reader.confirmed
    node.consensus.outlets.to_reader = held.extend

    def release() -> None:
        node.consensus.outlets.to_reader = confirm
        confirm(held)
        node.loop.wake()

    return release


def test_many_ranges_of_one_round_share_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.mvcc.ranges.RANGE_SLICE_KEYS", 100)

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for start in range(0, 2000, 500):
            await client.write_many([[0, 1, None, [b"k%05d" % key, b"v"]] for key in range(start, start + 500)])
        in_steps(node, 0.001)
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(client.request, Method.RANGE, [b"k", b"l"])
            passes = node.loop.passes
        # Thirty scans of twenty slices of a millisecond each, five to a turn.
        assert node.loop.passes - passes > 100

    play(scenario)


def test_many_small_reads_do_not_hold_up_a_turn() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        in_steps(node, 0.001)
        async with trio.open_nursery() as nursery:
            for _ in range(2000):
                nursery.start_soon(client.get, b"a")
            passes = node.loop.passes
        assert node.loop.passes - passes > 3

    play(scenario)


def test_transactions_over_a_crowd_do_not_hold_up_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """They run at one go, a millisecond each with a thousand waiters on a lock: sixty of them would be a stall."""

    async def scenario(host: SimHost, node: Node) -> None:
        now = node.reader.clock()

        def served() -> bytes:
            nonlocal now
            now += 0.001
            return b"\xf6"

        monkeypatch.setattr(StateMachine, "read_txn", lambda *_: (served, False))
        node.reader.clock = lambda: now
        client = SimClient(node)
        async with trio.open_nursery() as nursery:
            for _ in range(300):
                nursery.start_soon(client.request, Method.TXN, [[], [], []])
            passes = node.loop.passes
        assert node.loop.passes - passes > 300 / 10

    play(scenario)


def test_a_serializable_read_is_served_in_the_nodes_turn() -> None:
    """Not in the task of the connection, where a thousand in one frame would hold everything up."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await client.put(b"a", b"1")
        served = node.reader.ranges_served
        node.request(client, 1000, Method.RANGE, 0, [b"a", b"", 0, 0, 0, 0, True])
        assert node.reader.ranges_served == served
        await trio.testing.wait_all_tasks_blocked()
        assert node.reader.ranges_served == served + 1

    play(scenario)


def test_a_watch_that_names_its_start_asks_nobody_where_there_is_a_leader() -> None:
    """It is told what this member will apply. One from now on must lie behind every acknowledged write."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await client.put(b"a", b"1")
        release = hold_rounds(node)
        assert await client.request(Method.WATCH_CREATE, [b"a", b"", 1, 7]) == [7, 1]
        assert await client.request(Method.WATCH_CREATE, [b"a", b"", 9, 8]) == [8, 9]
        node.request(client, 101, Method.WATCH_CREATE, 0, [b"a", b"", 0, 9])
        await trio.testing.wait_all_tasks_blocked()
        assert node.watches.watch_count == 2
        for silent in (lambda: False, lambda: True):
            node.reader.has_leader, node.reader.is_stopping = silent, silent()
            node.request(client, 102 + silent(), Method.WATCH_CREATE, 0, [b"a", b"", 1, 10 + silent()])
            await trio.testing.wait_all_tasks_blocked()
            assert node.watches.watch_count == 2
        node.reader.is_stopping = False
        release()
        await trio.testing.wait_all_tasks_blocked()
        assert node.watches.watch_count == 4, "the one that was refused as the node stopped is none"

    play(scenario)


def test_canceled_reads_are_answered_and_those_of_a_lost_connection_are_not() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        stays, goes = SimClient(node), SimClient(node)
        release = hold_rounds(node)
        answers: list[object] = []
        goes.answered = answers.append
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(canceled, stays)
            await trio.testing.wait_all_tasks_blocked()
            for request_id in (1, 2):
                node.request(goes, request_id, Method.WATCH_CREATE, 0, [b"a"])
            node.forget(goes)
            for request_id in (1, 2, 3):
                node.request(stays, 99, Method.CANCEL, 0, [request_id])
        release()
        await trio.testing.wait_all_tasks_blocked()
        assert answers == []
        assert node.watches.watch_count == 0
        assert await stays.get(b"a") is None

    async def canceled(client: SimClient) -> None:
        with pytest.raises(ApiError) as caught:
            await client.get(b"a")
        assert caught.value.code is Code.CANCELED

    play(scenario)


def test_a_cancel_that_comes_too_late_spares_the_next_request_of_that_id() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        assert await client.get(b"a") is None
        node.request(client, 99, Method.CANCEL, 0, [2])
        assert await client.get(b"a") is None

    play(scenario)


def test_leaving_and_timing_out_take_time_in_proportion_to_the_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        clients = [SimClient(node) for _ in range(200)]
        hold_rounds(node)
        for client in clients:
            for request_id in range(1, 101):
                node.request(client, request_id, Method.RANGE, 1000, [b"a"])
        began = time.process_time()
        for client in clients[:100]:
            node.forget(client)
        for client in clients[100:150]:
            for request_id in range(1, 101):
                node.request(client, 999, Method.CANCEL, 0, [request_id])
        await trio.sleep(1.5)
        assert node.reader.waiting == []
        # Quadratic, it was above 10 s.
        assert time.process_time() - began < 2

    play(scenario)


def test_reads_that_wait_for_a_revision_are_bounded_and_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.node.reads.READS_PENDING_MAX", 10)

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        errors: list[type[ApiError]] = []

        async def read() -> None:
            with pytest.raises(ApiError) as caught:
                await client.request(Method.RANGE, behind(99))
            errors.append(type(caught.value))

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(read)
        assert sorted(errors, key=str) == [Behind] * 10 + [ResourceExhausted] * 2

    play(scenario)


def behind(revision: int) -> list[object]:
    """A serializable get of a client that has seen `revision`."""
    return [b"a", b"", 0, 0, 0, 0, True, False, False, 0, 0, 0, 0, revision]


def test_a_serializable_txn_does_not_go_back_either() -> None:
    """S29."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        with pytest.raises(Behind):
            await client.request(Method.TXN, [[], [[int(Op.RANGE), behind(2)]], []])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.request, Method.TXN, [[], [[int(Op.RANGE), behind(2)]], []])
            await trio.sleep(0.5)
            await client.put(b"a", b"1")

    play(scenario)


def test_rounds_of_the_nodes_own_find_room_when_clients_fill_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """S11: leases expire under any load of reads."""
    monkeypatch.setattr("coord.node.reads.READS_PENDING_MAX", 3)

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        release = hold_rounds(node)
        for request_id in range(1, 9):
            node.request(client, request_id, Method.RANGE, 0, [b"a"])
        served: list[int] = []
        node.after_round(lambda: served.append(1))
        release()
        await trio.testing.wait_all_tasks_blocked()
        assert served == [1]

    play(scenario)


def test_a_renewal_that_waits_for_an_expiry_times_out_and_leaves_with_its_connection() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client, gone = SimClient(node), SimClient(node)
        lease, _ = await client.write(Op.LEASE_GRANT, [2])
        # The disk stands still, so that the expiry is proposed but not applied.
        node.log_writer.worker = Stuck()
        await trio.sleep(4)
        assert node.leases.is_expiring([lease])
        node.request(gone, 1, Method.LEASE_KEEP_ALIVE, 0, [[lease]])
        with pytest.raises(ApiError, match="timed out"):
            await client.request(Method.LEASE_KEEP_ALIVE, [[lease]], timeout_ms=1000)
        node.forget(gone)
        await trio.testing.wait_all_tasks_blocked()
        assert node.reader.open_count == 0

    play(scenario)


class Stuck:
    is_quick = False

    def submit(self, job: object, done: object, *, is_short: bool = False) -> None:
        pass

    def close(self) -> bool:
        return True


def test_a_scan_past_its_deadline_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.mvcc.ranges.RANGE_SLICE_KEYS", 1)

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await client.write_many([[0, 1, None, [b"k%05d" % key, b"v"]] for key in range(500)])
        in_steps(node, 0.006)
        answers: list[object] = []
        client.answered = answers.append
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scan, client)
            # A node with work left lets no virtual time pass, so that its own tick does not come.
            while not answers:
                await trio.lowlevel.checkpoint()
                node.reader.expire(node.reader.clock())

    async def scan(client: SimClient) -> None:
        with pytest.raises(ApiError, match="timed out"):
            await client.request(Method.RANGE, [b"k", b"l"], timeout_ms=100)

    play(scenario)
