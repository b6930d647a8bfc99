"""Whoever was answered goes before a crowd of watchers: what it asks for next is on its way meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import define, field

from coord.client import driver as driver_module
from coord.client.arrivals import CROWD_BYTES
from coord.client.client import Client
from coord.client.endpoints import Endpoint, Rotation
from coord.client.watch import Watch
from coord.codec import encode
from coord.protocol.ops import ServerMessage

from .fake_node import FakeNode, Session
from .trio_fakes import Network, a_client, a_network, run, settle

ONE = "n1:1"
CROWD = bytes(CROWD_BYTES)
"""A value that makes a notification one that may be for many watches."""


@define(eq=False)
class Scene:
    """A client with a watch of `k`, and two calls of its own that the node has not answered yet."""

    network: Network
    node: FakeNode
    client: Client
    watch: Watch
    happened: list[str] = field(factory=list)

    @property
    def session(self) -> Session:
        """The connection that carries the watch."""
        return next(session for session in self.node.sessions if session.watches)

    async def call_twice(self) -> None:
        await self.client.put("other", b"1")
        self.happened.append("answered")
        await self.client.put("other", b"2")

    async def follow(self) -> None:
        async for _ in self.watch:
            self.happened.append("watched")

    def answer(self) -> None:
        """Answer what waits for it."""
        self.node.is_silent = False
        self.session.release()


@asynccontextmanager
async def a_scene(nursery: trio.Nursery) -> AsyncIterator[Scene]:
    network = a_network(nursery, ONE)
    async with a_client(network) as client, client.watch("k") as watch:
        await client.put("other", b"0")
        scene = Scene(network, network.nodes[ONE], client, watch)
        scene.node.is_silent = True
        async with trio.open_nursery() as inner:
            inner.start_soon(scene.call_twice)
            inner.start_soon(scene.call_twice)
            await settle()
            yield scene
            await settle()
            inner.cancel_scope.cancel()


def note_sends(scene: Scene) -> None:
    """Note each message that the client sends."""
    for _, wire in scene.network.wires:

        def send(message: bytes, honest: object = wire.client.send) -> None:
            scene.happened.append("sent")
            honest(message)  # type: ignore[operator]

        wire.client.send = send  # type: ignore[method-assign]


def test_events_wait_for_nobody_where_nobody_was_answered() -> None:
    async def test(nursery: trio.Nursery) -> None:
        async with a_scene(nursery) as scene, trio.open_nursery() as watching:
            watching.start_soon(scene.follow)
            await settle()
            driver = scene.client._driver
            line = next(line for line in driver._lines.values() if line.connection.subscriptions)
            messages: list[bytes] = []
            scene.session.send = messages.append
            for _ in range(3):
                scene.node.put(b"k", CROWD)
            for message in messages:
                driver._take(line, [message])
                assert not line.held
                await settle()
            assert scene.happened == ["watched"] * 3
            watching.cancel_scope.cancel()

    run(test)


@pytest.mark.parametrize("size", ["crowd", "few"])
def test_next_call_is_sent_before_watchers_of_a_crowd_are_woken(size: str) -> None:
    async def test(nursery: trio.Nursery) -> None:
        # Trio gives tasks that are woken together their turns in no order.
        for _ in range(20):
            async with a_scene(nursery) as scene, trio.open_nursery() as watching:
                watching.start_soon(scene.follow)
                await settle()
                note_sends(scene)
                scene.answer()
                scene.node.put(b"k", CROWD if size == "crowd" else b"")
                await settle()
                watching.cancel_scope.cancel()
                order = [what for what in scene.happened if what != "answered"]
                assert order == (["sent", "watched"] if size == "crowd" else ["watched", "sent"])

    run(test)


def test_what_comes_behind_the_events_is_taken_behind_them() -> None:
    """A progress answer vouches for every event before it (S30)."""

    async def test(nursery: trio.Nursery) -> None:
        async with a_scene(nursery) as scene, trio.open_nursery() as asking:
            asked: list[int] = []

            async def ask() -> None:
                asked.append(await scene.watch.request_progress())
                asked.extend(batch.revision for batch in scene.watch.take())

            asking.start_soon(ask)
            await settle()
            progress = scene.session.withheld.pop()
            scene.answer()
            scene.node.put(b"k", CROWD)
            revision = scene.node.revision
            progress[1:] = [revision, revision]
            scene.session.send_replies([progress])
            scene.node.put(b"k", CROWD)
            await settle()
            assert asked == [revision, revision, revision, revision + 1]

    run(test)


def test_what_comes_while_events_are_held_back_is_taken_behind_them() -> None:
    async def test(nursery: trio.Nursery) -> None:
        async with a_scene(nursery) as scene:
            driver, messages = scene.client._driver, list[bytes]()
            line = next(line for line in driver._lines.values() if line.connection.subscriptions)
            scene.session.send = messages.append
            scene.answer()
            for _ in range(2):
                scene.node.put(b"k", CROWD)
            last = scene.node.revision
            replies, *events = messages
            driver._take(line, [replies])
            driver._take(line, [events[0]])
            assert line.held == [events[0]]
            driver._take(line, [events[1]])
            await settle()
            assert [batch.revision for batch in scene.watch.take()] == [last - 1, last]

    run(test)


def test_events_that_came_before_the_end_of_the_connection_are_seen() -> None:
    async def test(nursery: trio.Nursery) -> None:
        async with a_scene(nursery) as scene:
            scene.network.down.add(ONE)
            scene.answer()
            scene.node.put(b"k", CROWD)
            for _, wire in scene.network.wires:
                wire.server.close()
            await settle()
            assert [batch.revision for batch in scene.watch.take()] == [scene.node.revision]

    run(test)


def test_events_that_break_the_rules_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(nursery: trio.Nursery) -> None:
        async with a_scene(nursery) as scene:
            dialled = len(scene.network.dialled)
            whys: list[str] = []
            failed = Rotation.failed

            def note(self: Rotation, endpoint: Endpoint, why: str, *, is_standby: bool = False) -> None:
                whys.append(why)
                failed(self, endpoint, why, is_standby=is_standby)

            monkeypatch.setattr(Rotation, "failed", note)
            node, kind = scene.node, int(ServerMessage.NOTIFICATIONS)
            session = scene.session
            scene.answer()
            session.send(encode([kind, node.cluster_id, node.member_id, 3, 0, [[0, 7, CROWD]]]))
            await trio.sleep(5)
            assert [why for why in whys if "not a message of coord.v1" in why]
            assert len(scene.network.dialled) > dialled
            scene.node.put(b"k", b"")
            await settle()
            assert [batch.revision for batch in scene.watch.take()] == [scene.node.revision]

    run(test)


def test_events_do_not_wait_for_a_node_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(nursery: trio.Nursery) -> None:
        async with a_scene(nursery) as scene:
            # More is buffered than this at any time.
            monkeypatch.setattr(driver_module, "SEND_BUFFER_HIGH_BYTES", -1)
            scene.answer()
            scene.node.put(b"k", CROWD)
            for _ in range(2):
                await settle()
                assert len(scene.watch.take()) == 1
                scene.node.put(b"k", CROWD)

    run(test)


def test_nothing_more_is_sent_to_a_node_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 4: neither one frame nor several, however short."""

    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            await client.put("k", b"")
            # The next call of a lone caller does not pass by the pump.
            async with trio.open_nursery() as calling:
                for _ in range(2):
                    calling.start_soon(client.get, "k")
            sent = len(network.nodes[ONE].frames)
            monkeypatch.setattr(driver_module, "SEND_BUFFER_HIGH_BYTES", -1)
            async with trio.open_nursery() as calling:
                calling.start_soon(client.put, "k", b"1")
                calling.start_soon(client.get, "k")
                await settle()
                assert len(network.nodes[ONE].frames) == sent
                calling.cancel_scope.cancel()

    run(test)
