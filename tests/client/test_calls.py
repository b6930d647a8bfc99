"""The Trio client's calls: what they return, how they share frames, how they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.lowlevel

import coord
from coord.codec import encode
from coord.errors import (
    ApiError,
    Behind,
    ClientClosed,
    ConnectionFailed,
    CoordError,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    no_leader,
)
from coord.types import AlarmType, SortOrder, SortTarget

from .trio_fakes import a_client, a_network, run, settle

ONE = "n1:7379"


def test_each_verb_returns_what_the_node_answered() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            assert client.endpoints == [ONE]
            assert await client.put("a", b"1") == 2
            response = await client.put_response(b"a", b"2", prev_kv=True)
            assert response.header.revision == 3
            assert response.header.cluster_id == node.cluster_id
            assert response.prev_kv is not None
            assert response.prev_kv.value == b"1"
            kv = await client.get("a")
            assert kv is not None
            assert (kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.value) == (b"a", 2, 3, 2, b"2")
            assert await client.get("absent") is None
            await client.put("b", b"")
            everything = await client.range_response("", prefix=True, limit=1, sort_order=SortOrder.ASCEND)
            assert (len(everything.kvs), everything.more, everything.count) == (1, True, 2)
            assert node.reads[-1] == [b"\0", b"\0", 1, 0, 1]
            assert await client.delete("b") == 1
            deleted = await client.delete_response("", prefix=True, prev_kv=True)
            assert [kv.value for kv in deleted.prev_kvs] == [b"2"]
            assert client.revision == node.revision

    run(test)


def test_a_transaction_reads_as_it_is_written() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            made = await client.txn(
                when=[coord.version("a") == 0, coord.create_revision("a") < 1],
                then=[coord.op.put("a", b"1"), coord.op.get("a"), coord.op.txn(then=[coord.op.put("b", b"")])],
                orelse=[coord.op.get("a")],
            )
            assert made.succeeded
            put, got, inner = made.responses
            assert put.header.revision == 2
            assert got.kvs[0].value == b"1"  # type: ignore[union-attr]
            assert inner.succeeded  # type: ignore[union-attr]
            lost = await client.txn(when=[coord.value("a") != b"1"], then=[coord.op.delete("a")])
            assert not lost.succeeded
            # One that only reads is a request: it may be sent again, and skips the log.
            network.nodes[ONE].frames.clear()
            await client.txn(when=[coord.mod_revision("a") > 1, coord.lease_of("a") == 0], then=[coord.op.get("a")])
            assert network.nodes[ONE].frames == [("requests", 1)]

    run(test)


def test_leases_and_maintenance() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            lease = (await client.lease_grant(10)).id
            await client.put("k", b"v", lease=lease)
            assert (await client.lease_keep_alive_once(lease)).ttl_s == 10
            alive = await client.lease_time_to_live(lease, keys=True)
            assert (alive.granted_ttl_s, alive.keys) == (10, [b"k"])
            assert await client.leases() == [lease]
            await client.lease_revoke(lease)
            for gone in (client.lease_keep_alive_once, client.lease_revoke):
                with pytest.raises(NotFound):
                    await gone(lease)
            assert (await client.lease_time_to_live(lease)).ttl_s == -1
            status = await client.status()
            assert (status.version, status.db_size_quota, status.is_learner) == ("0.1.0", 100, False)
            assert (await client.status(ONE)).header.member_id == 7
            assert (await client.member_list()).members[0].name == "n1"
            assert (await client.hash_kv()).hash == 0xABCD
            assert (await client.health(ONE)).is_healthy
            network.nodes[ONE].alarms = [[7, 1]]
            assert (await client.alarms()).alarms[0].alarm is AlarmType.NOSPACE
            assert (await client.health(ONE)).error == "alarm NOSPACE of member 7"
            assert len((await client.alarm_disarm()).alarms) == 1
            await client.compact(2, physical=True)
            assert network.nodes[ONE].compact_revision == 2

    run(test)


def test_calls_of_one_pass_share_one_frame() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:

            async def cycle(number: int) -> None:
                key = f"k{number}"
                for _ in range(3):
                    await client.put(key, b"v")
                    assert await client.get(key) is not None

            async with trio.open_nursery() as callers:
                for number in range(100):
                    callers.start_soon(cycle, number)
            assert node.frames == [("writes", 100), ("requests", 100)] * 3

    run(test)


class Steps(trio.abc.Instrument):
    """Counts the steps of each task, by what it runs."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of[task.name.rpartition(".")[2]] += 1


@pytest.mark.parametrize("exactly_once", [True, False])
def test_a_call_that_is_alone_leaves_without_a_step_of_the_pump(exactly_once: bool) -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network, exactly_once=exactly_once) as client:
            await client.put("k", b"v")
            steps = Steps()
            trio.lowlevel.add_instrument(steps)
            for _ in range(100):
                await client.put("k", b"v")
                await client.get("k")
            assert steps.of["pump"] == 0
            # Of those who call at once, all but the first, which could not know of them, share a frame.
            network.nodes[ONE].frames.clear()
            for _ in range(10):
                async with trio.open_nursery() as callers:
                    for _ in range(5):
                        callers.start_soon(client.get, "k")
            assert sum(count for _, count in network.nodes[ONE].frames) == 50
            assert len(network.nodes[ONE].frames) <= 20
            trio.lowlevel.remove_instrument(steps)

    run(test)


def test_a_call_that_is_alone_is_not_sent_by_a_task_that_is_cancelled_already() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            await client.put("k", b"v")
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.put("k", b"too late")
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.put_many({"k": b"too late"})
            await settle()
            assert network.nodes[ONE].keys[b"k"][5] == b"v"

    run(test)


def test_a_call_that_is_alone_and_cannot_be_sent_fails_and_the_next_is_served() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            for _ in range(3):
                await client.put("k", b"v")
                with pytest.raises(InvalidArgument, match="too large"):
                    await client.put("k", bytes(5_000_000))
            with pytest.raises(InvalidArgument, match="too large"):
                await client.put("k", bytes(5_000_000))
            assert await client.get("k") is not None

    run(test)


def test_a_call_that_is_alone_is_refused_as_soon_as_the_client_is_closed() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            await client.put("k", b"v")
            client._driver.close()
            with pytest.raises(ClientClosed):
                await client.put("k", b"late")

    run(test)


def test_a_call_that_is_alone_is_not_sent_where_goodbye_was_said() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            await client.put("k", b"v")
            network.down.add(ONE)
            node.sessions[0].send(encode([3, "stopping"]))
            await settle()
            node.frames.clear()
            with pytest.raises(DeadlineExceeded):
                await client.put("k", b"late", timeout=1)
            assert not node.frames

    run(test)


def test_calls_that_are_alone_do_not_pile_up_on_a_link_that_takes_nothing() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            await client.put("k", b"before")
            network.wires[0][1].hold()
            for _ in range(5):
                with pytest.raises(CoordError):
                    await client.put("k", bytes(1_500_000), timeout=1)
            assert network.wires[0][1].client.buffered_bytes < 4_000_000

    run(test)


def test_a_frame_is_cut_where_it_would_be_too_large() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            async with trio.open_nursery() as callers:
                for number in range(10):
                    callers.start_soon(client.put, f"k{number}", bytes(100_000))
            assert sum(count for _, count in network.nodes[ONE].frames) == 10
            assert len(network.nodes[ONE].frames) > 4

    run(test)


def test_a_call_that_cannot_be_sent_fails_alone() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            outcomes: list[object] = []

            async def put(key: str, size: int) -> None:
                try:
                    outcomes.append(await client.put(key, bytes(size)))
                except InvalidArgument as error:
                    outcomes.append(error.text)

            async with trio.open_nursery() as callers:
                for number in range(5):
                    callers.start_soon(put, f"k{number}", 3_000_000 if number == 2 else 3)
            assert outcomes.count("etcdserver: request is too large") == 1
            assert len([one for one in outcomes if isinstance(one, int)]) == 4
            with pytest.raises(ValueError, match="64 bits"):
                await client.put("k", b"", lease=2**70)
            for wrong in (1, None, bytearray(b"k")):
                with pytest.raises(TypeError):
                    await client.put(wrong, b"")  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await client.put("k", "text")  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="unknown range option"):
                await client.range_response("k", reverse=True)  # type: ignore[call-arg]

    run(test)


def test_more_calls_than_a_connection_may_have_open_wait_their_turn() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            node.is_silent = True
            async with trio.open_nursery() as callers:
                for _ in range(16_400):
                    callers.start_soon(client.get, "k")
                await settle()
                assert sum(count for _, count in node.frames) == 16_384
                node.is_silent = False
                node.sessions[0].release()
            assert sum(count for _, count in node.frames) == 16_400

    run(test)


def test_a_timeout_tells_whether_a_write_may_have_happened() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network, timeout=2.0) as client:
            await client.put("k", b"before")
            node.is_silent = True
            for timeout in (None, 0.05):
                started = trio.current_time()
                with pytest.raises(OutcomeUnknown, match="may still be applied"):
                    await client.put("k", b"v", timeout=timeout)
                assert trio.current_time() - started == pytest.approx(timeout or 2.0)
            with pytest.raises(DeadlineExceeded):
                await client.get("k", timeout=1.0)
            await settle()
            # The node was told to forget the read, and the late answers disturb nobody.
            assert len(node.sessions[0].withheld) == 2
            node.is_silent = False
            node.sessions[0].release()
            assert await client.get("k") is not None

    run(test)


def test_short_and_long_timeouts_live_side_by_side() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        network.nodes[ONE].is_silent = True
        ends: dict[float, float] = {}
        async with a_client(network) as client:

            async def wait(timeout: float) -> None:
                with pytest.raises(DeadlineExceeded):
                    await client.get("k", timeout=timeout)
                ends[timeout] = trio.current_time() - started

            started = trio.current_time()
            async with trio.open_nursery() as callers:
                for timeout in (3.0, 0.5, 7.0, 0.25, 1.0):
                    callers.start_soon(wait, timeout)
                    await trio.lowlevel.checkpoint()
            assert ends == pytest.approx({timeout: timeout for timeout in ends})
            assert len(ends) == 5

    run(test)


def test_timeouts_hold_while_the_link_takes_nothing() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            await client.put("k", b"before")
            network.wires[0][1].hold()

            async def put_much() -> None:
                with pytest.raises(OutcomeUnknown):
                    await client.put("k", bytes(1_500_000), timeout=20)

            async with trio.open_nursery() as callers:
                for _ in range(3):
                    callers.start_soon(put_much)
                await settle()
                started = trio.current_time()
                with pytest.raises(DeadlineExceeded):
                    await client.get("k", timeout=0.5)
                assert trio.current_time() - started == pytest.approx(0.5)
            # What waits for the link is bounded, whatever the callers want to send.
            assert network.wires[0][1].client.buffered_bytes < 4_000_000
            network.wires[0][1].release()
            assert await client.get("k", timeout=5) is not None

    run(test)


@pytest.mark.parametrize("is_write", [False, True])
def test_after_a_clear_refusal_the_call_is_sent_again(is_write: bool) -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            node.refusals = [no_leader(), no_leader(), no_leader()]
            if is_write:
                assert await client.put("k", b"v") == 2
            else:
                assert await client.get("k") is None
            assert len(node.frames) == 4

    run(test)


def test_a_refusal_that_lasts_is_told_at_the_timeout() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            node.refusals = [no_leader() for _ in range(1000)]
            with pytest.raises(Unavailable, match="no leader"):
                await client.put("k", b"v", timeout=3.0)
            # Not a busy loop: the pauses grow.
            assert 4 < len(node.frames) < 20

    run(test)


@pytest.mark.parametrize("error", [OutcomeUnknown("may be"), InvalidArgument("wrong"), ApiError("odd")])
def test_no_other_answer_is_retried(error: ApiError) -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network, exactly_once=False) as client:
            node.refusals = [error]
            with pytest.raises(type(error)):
                await client.put("k", b"v")
            assert len(node.frames) == 1

    run(test)


def test_serializable_reads_carry_the_highest_revision_seen() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            await client.put("k", b"v")
            node.refusals = [Behind("catching up")]
            await client.get("k", serializable=True)
            assert node.reads[-1][-1] == 2
            assert node.reads[-1][6] is True
            await client.range_response("k", serializable=True, sort_target=SortTarget.MOD)
            assert node.reads[-1][-1] == 2
            # A linearizable read needs no such bound.
            await client.range_response("k", limit=3)
            assert len(node.reads[-1]) < 14

    run(test)


def test_a_range_is_paged_at_one_revision() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            for number in range(7):
                await client.put(f"k{number}", b"v")
            await client.put("other", b"")
            node.reads.clear()
            keys = [kv.key async for kv in client.range("k", prefix=True, page=3)]
            assert keys == [f"k{number}".encode() for number in range(7)]
            assert [read[3] for read in node.reads] == [0, 9, 9]
            async for kv in client.range("k", prefix=True, page=3):
                assert kv.key == b"k0"
                break
            assert [kv async for kv in client.range("none", prefix=True)] == []

    run(test)


def test_update_tries_again_when_somebody_was_faster() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:

            async def add_ten() -> None:
                for _ in range(10):
                    await client.update("n", lambda value: b"%d" % (int(value or b"0") + 1))

            async with trio.open_nursery() as callers:
                for _ in range(5):
                    callers.start_soon(add_ten)
            kv = await client.get("n")
            assert kv is not None
            assert kv.value == b"50"
            lease = (await client.lease_grant(10)).id
            await client.put("n", b"1", lease=lease)
            await client.update("n", lambda value: b"2")
            kv = await client.get("n")
            assert kv is not None
            assert kv.lease == lease
            await client.update("n", lambda value: None)
            assert await client.get("n") is None

    run(test)


def test_what_the_body_raises_is_not_wrapped() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        with pytest.raises(KeyError):
            async with a_client(network):
                raise KeyError
        await settle()
        assert network.nodes[ONE].sessions == []

    run(test)


def test_closing_ends_what_is_open_and_refuses_what_comes() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        node.is_silent = True
        ended: list[str] = []

        async def end(call: Callable[[], Awaitable[object]], name: str) -> None:
            with pytest.raises(ClientClosed):
                await call()
            ended.append(name)

        async with trio.open_nursery() as callers, a_client(network) as client:
            callers.start_soon(end, lambda: client.get("k"), "read")
            callers.start_soon(end, lambda: client.put("k", b"v"), "write")
            await settle()
        assert sorted(ended) == ["read", "write"]
        for late in (client.get("k"), client.watch("k").__aenter__()):
            with pytest.raises(ClientClosed):
                await late

    run(test)


def test_connecting_to_nobody_names_each_endpoint_and_why() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "a:1", "b:2")
        network.down = {"a:1"}
        network.swallowing = {"b:2"}
        started = trio.current_time()
        with pytest.raises(ConnectionFailed, match=r"a:1: connection refused; b:2: no answer yet"):
            async with a_client(network, timeout=3.0):
                raise AssertionError
        assert trio.current_time() - started == pytest.approx(3.0)

    run(test)
