"""A queue: in order, each item to exactly one, none lost and none doubled."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from tests.client.trio_fakes import Network, settle

from coord.client.client import Client
from coord.client.failing import TIMEOUT_DEFAULT_S
from coord.client.recipes.queue import Queue
from coord.errors import OutcomeUnknown, no_leader
from coord.protocol.ops import Op

from .machine_node import MachineNode
from .test_locks import ONE, told


def watches(node: MachineNode) -> int:
    return sum(len(session.watches) for session in node.sessions)


def test_items_come_in_the_order_in_which_they_were_put() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        jobs = opened[0].queue("jobs")
        for number in range(30):
            await opened[number % 2].queue(b"jobs").put(b"%d" % number)
        assert len(node.keys_below(b"jobs/")) == 30
        assert [await jobs.get() for _ in range(30)] == [b"%d" % number for number in range(30)]
        assert node.rig.keys() == []
        with pytest.raises(TypeError):
            await jobs.put("text")  # type: ignore[arg-type]

    told(story, 2)


def test_who_waits_gets_what_is_put_and_in_turn() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        jobs = opened[0].queue("jobs")
        got: list[tuple[int, bytes]] = []

        async def take(number: int) -> None:
            got.append((number, await jobs.get()))

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(take, number)
                await settle()
            assert watches(node) == 1, "the tasks of one program ask one at a time"
            for number in range(5):
                await opened[1].queue("jobs").put(b"%d" % number)
                await settle()
                assert len(got) == number + 1
        assert got == [(number, b"%d" % number) for number in range(5)]

    told(story, 2)


def test_many_takers_share_all_items_and_none_is_doubled_over_outages() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        got: list[bytes] = []

        async def take(client: Client) -> None:
            jobs = client.queue("jobs")
            while True:
                got.append(await jobs.get())

        async def put(client: Client, name: str) -> None:
            jobs = client.queue("jobs")
            for number in range(20):
                await jobs.put(f"{name}{number}".encode())
                await trio.sleep(0.3)

        async with trio.open_nursery() as takers:
            for client in opened[:3]:
                takers.start_soon(take, client)
            async with trio.open_nursery() as putters:
                for client, name in zip(opened[3:], "ab", strict=True):
                    putters.start_soon(put, client, name)
                for _ in range(5):
                    await trio.sleep(1)
                    network.cut(ONE, is_down=False)
            await trio.sleep(10)
            takers.cancel_scope.cancel()
        assert sorted(got) == sorted(f"{name}{number}".encode() for name in "ab" for number in range(20))
        for name in (b"a", b"b"):
            mine = [int(item[1:]) for item in got if item.startswith(name)]
            assert mine == sorted(mine)
        await settle()
        assert node.rig.keys() == []
        assert watches(node) == 0

    told(story, 5)


def test_keys_that_are_no_items_are_left_alone() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        node.guarded(None, Op.LEASE_GRANT, [10, 7])
        for number in range(100):
            node.guarded(None, Op.PUT, [b"jobs/%x" % (number + 1), b"foreign"])
        node.guarded(None, Op.PUT, [b"jobs/%016x" % 7, b"a contender", 7, False, False, False])
        jobs = opened[0].queue("jobs")
        with trio.move_on_after(5) as scope:
            await jobs.get()
        assert scope.cancelled_caught
        await jobs.put(b"mine")
        assert await jobs.get() == b"mine"
        assert len(node.rig.keys()) == 101

    told(story)


def test_two_items_never_share_a_key() -> None:
    class Stuck:
        def __init__(self) -> None:
            self.drawn = [1, 1, 1, 2]

        def getrandbits(self, bits: int) -> int:
            assert bits == 64
            return self.drawn.pop(0)

    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        jobs = Queue(opened[0]._driver, "jobs", Stuck())  # type: ignore[arg-type]
        await jobs.put(b"1")
        await jobs.put(b"2")
        assert node.rig.keys() == [b"jobs/%016x" % 1, b"jobs/%016x" % 2]

    told(story)


def test_an_outage_is_waited_out_and_what_is_unknown_is_told() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        jobs = opened[0].queue("jobs")
        network.cut(ONE)
        async with trio.open_nursery() as nursery:

            async def take() -> None:
                assert await jobs.get() == b"1"

            nursery.start_soon(take)
            await trio.sleep(100)
            network.down.clear()
            await opened[1].queue("jobs").put(b"1")
        # The answer to the taking is lost for good.
        await jobs.put(b"2")
        guarded = node.guarded

        def guarded_silently(guard: Any, op: int, arguments: list[Any]) -> Any:
            node.is_silent = True
            return guarded(guard, op, arguments)

        node.guarded = guarded_silently  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown):
            await jobs.get()
        assert node.keys_below(b"jobs/") == []

    told(story, 2)


def test_what_the_cluster_refuses_to_hand_out_is_not_passed_over() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        jobs = opened[0].queue("jobs")
        for number in range(3):
            await jobs.put(b"%d" % number)
        guarded, refused = node.guarded, []

        def refusing(guard: Any, op: int, arguments: list[Any]) -> Any:
            if trio.current_time() < until:
                refused.append(op)
                raise no_leader()
            return guarded(guard, op, arguments)

        # Longer than a call tries, and over in time for the next one.
        until = trio.current_time() + TIMEOUT_DEFAULT_S + 1
        node.guarded = refusing  # type: ignore[method-assign]
        assert [await jobs.get() for _ in range(3)] == [b"0", b"1", b"2"]
        assert refused

    told(story)


@pytest.mark.parametrize("steps", range(1, 30))
def test_a_cancelled_get_has_taken_nothing_or_returns_it(steps: int) -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        jobs = opened[0].queue("jobs")
        await jobs.put(b"1")
        got: list[bytes] = []

        async def take() -> None:
            got.append(await jobs.get())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await settle()
        assert len(got) + len(node.keys_below(b"jobs/")) == 1
        assert watches(node) == 0
        # It can be used on.
        await jobs.put(b"2")
        with trio.fail_after(1):
            await jobs.get()

    told(story)
