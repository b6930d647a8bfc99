"""Cancelling a call at any of its awaits leaks nothing, here and on the node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

import coord
from coord.client.client import Client, connect
from coord.errors import no_leader

from .fake_node import FakeNode
from .trio_fakes import Network, a_client, a_network, run, settle

ONE = "n1:1"


class CancelAt(trio.abc.Instrument):
    """Cancels `scope` just before step number `step` of the task that made it."""

    def __init__(self, step: int) -> None:
        self.task = trio.lowlevel.current_task()
        self.scope = trio.CancelScope()
        self.left = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        # Between two steps the task waits: this is where a cancellation finds it.
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


async def cancelled_at(step: int, body: Callable[[], Awaitable[object]]) -> bool:
    """Run `body`, cancelled at its await number `step`; return whether it ended before."""
    canceller = CancelAt(step)
    trio.lowlevel.add_instrument(canceller)
    try:
        with canceller.scope:
            await body()
    finally:
        trio.lowlevel.remove_instrument(canceller)
    return not canceller.scope.cancelled_caught


async def put(client: Client) -> None:
    await client.put("k", b"v")


async def get(client: Client) -> None:
    await client.get("k")


async def put_get(client: Client) -> None:
    await client.put("k", b"v")
    await client.get("k", serializable=True)


async def txn(client: Client) -> None:
    await client.txn(when=[coord.version("k") > 0], then=[coord.op.put("k", b"")])


async def pages(client: Client) -> None:
    async for _ in client.range("", prefix=True, page=1):
        pass


async def update(client: Client) -> None:
    await client.update("n", lambda value: b"1")


async def lease(client: Client) -> None:
    granted = await client.lease_grant(10)
    await client.lease_keep_alive_once(granted.id)
    await client.lease_revoke(granted.id)


async def watch(client: Client) -> None:
    async with client.watch("k", since=1) as batches:
        await batches.request_progress()
        async for batch in batches:
            if batch.events:
                break
        await client.put("k", b"w")


async def maintenance(client: Client) -> None:
    await client.status(ONE)
    await client.health(ONE)
    await client.member_list()


BODIES = [put, get, put_get, txn, pages, update, lease, watch, maintenance]


def assert_clean(client: Client, node: FakeNode) -> None:
    core = client._core
    assert not any(connection.pending for connection in core.connections)
    assert not any(connection.subscriptions for connection in core.connections)
    assert not any(connection.orders for connection in core.connections)
    assert core.outbox == []
    assert core.wakes == []
    assert len(node.sessions) == 1
    assert node.sessions[0].watches == {}
    assert node.sessions[0].withheld == []


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_cancelling_at_every_await(body: Callable[[Client], Awaitable[None]]) -> None:
    steps = 0

    async def test(nursery: trio.Nursery) -> None:
        nonlocal steps
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        node.put(b"k", b"v")
        node.put(b"k2", b"v")
        async with a_client(network) as client:
            for steps in range(1, 200):
                if steps % 2:
                    # Also while a refused call rests.
                    node.refusals = [no_leader()]
                has_ended = await cancelled_at(steps, lambda: body(client))
                node.refusals.clear()
                await settle()
                assert_clean(client, node)
                await client.put("still", b"usable")
                if has_ended:
                    return
        raise AssertionError("never ended")

    run(test)
    assert steps > 1


def test_cancelling_while_the_node_is_silent() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            await put(client)
            node.is_silent = True
            for body in (get, watch, put):
                with trio.move_on_after(1) as scope:
                    await body(client)
                assert scope.cancelled_caught
                await settle()
                session = node.sessions[0]
                assert session.watches == {}
                assert not any(connection.pending for connection in client._core.connections)
            node.is_silent = False
            session.release()
            await settle()
            assert await client.get("k") is not None

    run(test)


def test_cancelling_while_nobody_is_connected() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            network.cut(ONE)
            await settle()
            for body in (put, get, watch):
                with trio.move_on_after(0.01):
                    await body(client)
            network.down.clear()
            await client.get("k", timeout=30)
            # What was cancelled before it was sent is never sent.
            assert node.revision == 1
            assert node.frames == [("requests", 1)]

    run(test)


def test_cancelling_the_connecting_at_every_await() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)

        async def body() -> None:
            async with connect(ONE, dial=network.dial) as client:
                await client.put("k", b"v")

        for step in range(1, 100):
            has_ended = await cancelled_at(step, body)
            await settle()
            assert network.nodes[ONE].sessions == []
            if has_ended:
                assert step >= 3, "the hello, the put, the end"
                return
        raise AssertionError

    run(test)


def test_cancelling_from_outside_is_not_taken_for_an_error() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network: Network = a_network(nursery, ONE)
        with trio.move_on_after(5) as scope:
            async with a_client(network) as client, client.watch("k") as batches:
                async for _ in batches:
                    pass
        assert scope.cancelled_caught
        await settle()
        assert network.nodes[ONE].sessions == []

    run(test)
