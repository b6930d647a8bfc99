"""Many puts in one call: frames, numbers, what fails alone, and what is refused before any is sent."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio

from coord.client.many import put_many_arguments
from coord.errors import ClientClosed, FenceLost, NotFound, OutcomeUnknown, PutsFailed, no_leader
from coord.limits import CLIENT_WINDOW, PUTS_AT_ONCE_MAX

from .trio_fakes import a_client, a_network, run, settle

ONE = "n1:7379"


def pairs(count: int, size: int = 1) -> dict[str, bytes]:
    return {f"k{number}": b"%d" % number * size for number in range(count)}


def test_a_hundred_puts_share_a_frame_and_each_has_its_revision() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            await client.put("first", b"")
            node.frames.clear()
            assert await client.put_many(pairs(100)) == list(range(3, 103))
            assert node.frames == [("writes", 100)]
            assert await client.put_many([(b"bytes", b"1"), ("text", b"2")]) == [103, 104]
            assert node.keys[b"k7"][5] == b"7"
            assert await client.put_many({}) == []
            assert client.revision == 104

    run(test)


def test_more_than_the_window_waits_for_room_and_each_is_applied_once() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            count = 3 * CLIENT_WINDOW
            revisions = await client.put_many(pairs(count))
            assert sorted(revisions) == list(range(2, count + 2))
            assert max(size for _, size in node.frames) <= CLIENT_WINDOW
            assert len(set(node.applied)) == len(node.applied) == count

    run(test)


def test_what_was_not_answered_is_sent_again_and_applied_once() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            await client.put("first", b"")
            got: list[Any] = []

            async def put() -> None:
                got.extend(await client.put_many(pairs(50)))

            node.is_silent = True
            async with trio.open_nursery() as callers:
                callers.start_soon(put)
                await settle()
                node.is_silent = False
                network.cut(ONE, is_down=False)
            assert got == list(range(3, 53))
            assert len(node.applied) == 51
            assert [count for kind, count in node.frames if kind == "writes"] == [1, 50, 50]

    run(test)


def test_some_fail_and_the_others_stand() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            await client.put("first", b"")
            node.refusals = [no_leader(), NotFound("gone")]
            with pytest.raises(PutsFailed, match=r"1 of 3 puts failed, the first of b'k1': gone") as failed:
                await client.put_many(pairs(3))
            first, second, third = failed.value.outcomes
            # What was refused, and nothing done, is sent again.
            assert {first, third} == {3, 4}
            assert isinstance(second, NotFound)
            with pytest.raises(PutsFailed, match="too large") as failed:
                await client.put_many({"a": b"", "b": bytes(5_000_000), "c": b""})
            assert [isinstance(outcome, Exception) for outcome in failed.value.outcomes] == [False, True, False]
            with pytest.raises(PutsFailed) as failed:
                await client.put_many(pairs(2), lease=99)
            assert all(isinstance(outcome, NotFound) for outcome in failed.value.outcomes)

    run(test)


def test_fence_guards_each() -> None:
    class Lock:
        key, fence = b"lock/1", 7

        def check(self) -> None:
            """It is thought to be held."""

    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            with pytest.raises(PutsFailed) as failed:
                await client.put_many(pairs(2), fence=Lock())
            assert all(isinstance(outcome, FenceLost) for outcome in failed.value.outcomes)

    run(test)


def test_timeout_holds_for_all_together() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            await client.put("first", b"")
            network.nodes[ONE].is_silent = True
            began = trio.current_time()
            with pytest.raises(PutsFailed, match="2 of 2") as failed:
                await client.put_many(pairs(2), timeout=3)
            assert trio.current_time() - began == pytest.approx(3, abs=0.01)
            assert all(isinstance(outcome, OutcomeUnknown) for outcome in failed.value.outcomes)

    run(test)


def test_cancelled_and_closed() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            await client.put("first", b"")
            node.is_silent = True
            with trio.move_on_after(1) as scope:
                await client.put_many(pairs(30))
            assert scope.cancelled_caught
            node.is_silent = False
            assert not client._core.active.pending  # type: ignore[union-attr]
            await client.put("next", b"")
            # All numbers are closed, so that nothing holds up those to come.
            assert client._core.once.numbering.room == CLIENT_WINDOW
        with pytest.raises(ClientClosed):
            await client.put_many(pairs(2))

    run(test)


def test_one_task_step_for_all() -> None:
    class Steps(trio.abc.Instrument):
        def __init__(self) -> None:
            self.of: Counter[trio.lowlevel.Task] = Counter()

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.of[task] += 1

    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            await client.put("first", b"")
            steps = Steps()
            trio.lowlevel.add_instrument(steps)
            await client.put_many(pairs(100))
            trio.lowlevel.remove_instrument(steps)
            assert steps.of[trio.lowlevel.current_task()] == 1
            assert steps.of.total() < 10

    run(test)


def test_refused_before_any_is_sent() -> None:
    with pytest.raises(ValueError, match="key b'a' is there twice"):
        put_many_arguments([("a", b"1"), (b"a", b"2")], 0)
    with pytest.raises(ValueError, match="more than 10000 puts"):
        put_many_arguments(pairs(PUTS_AT_ONCE_MAX + 1), 0)
    assert len(put_many_arguments(pairs(PUTS_AT_ONCE_MAX), 0)) == PUTS_AT_ONCE_MAX
    with pytest.raises(TypeError, match="a value is bytes"):
        put_many_arguments([("a", "text")], 0)  # type: ignore[list-item]
