"""Watches when a snapshot takes the state further without events (S30): on from their own last revision, or an end."""

from __future__ import annotations

from typing import Any

import trio

from coord.node.node import Node
from coord.node.watch_delivery import Life, Watch
from coord.protocol.ops import Method, Op
from coord.testing.sim_node import SimClient, SimHost

from .conftest import play


async def watch(client: SimClient, key: bytes, range_end: bytes = b"", start: int = 0, *rest: Any) -> int:
    watch_id, _ = await client.request(Method.WATCH_CREATE, [key, range_end, start, *rest])
    return int(watch_id)


def revisions(client: SimClient, watch_id: int) -> list[int]:
    return [note[2] for note in client.notifications if note[0] == 0 and watch_id in note[1]]


async def jump(node: Node, writer: SimClient, puts: int, compact: int = 0) -> None:
    """Change the state with no event to any watch, as a snapshot does."""
    await trio.testing.wait_all_tasks_blocked()
    before = node.revision
    node.watches.hold()
    for number in range(puts):
        await writer.put(b"k%d" % (number % 2), b"v")
    if compact:
        await writer.write(Op.COMPACT, [compact])
    await trio.testing.wait_all_tasks_blocked()
    node.watches._inbox.clear()
    node.watches.after_install(before)
    await trio.sleep(0.1)


def test_each_watch_goes_on_from_its_own_last_revision() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await client.put(b"k0", b"v")
        one, both = await watch(client, b"k0"), await watch(client, b"k", b"l")
        future = await watch(client, b"k", b"l", 6)
        far = await watch(client, b"k", b"l", 50)
        past = await watch(client, b"k", b"l", 2)
        await client.put(b"k0", b"v")
        await jump(node, client, 4)
        assert node.watches.late_count == 0
        await client.put(b"k0", b"v")
        assert revisions(client, one) == [3, 4, 6, 8]
        assert revisions(client, both) == [3, 4, 5, 6, 7, 8]
        assert revisions(client, future) == [6, 7, 8]
        assert revisions(client, past) == [2, 3, 4, 5, 6, 7, 8]
        assert revisions(client, far) == []
        assert node.watches.watch_count == 5

    play(scenario)


def test_what_was_applied_and_not_yet_given_out_is_not_lost() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        one = await watch(client, b"k", b"l")
        node.watches.hold()
        for _ in range(3):
            await client.put(b"k", b"v")
        assert revisions(client, one) == []
        node.watches.after_install(node.revision)
        await trio.sleep(0.1)
        assert revisions(client, one) == [2, 3, 4]

    play(scenario)


def test_a_watch_whose_next_revision_is_gone_ends_with_the_compacted_one() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        one = await watch(client, b"k", b"l")
        later = await watch(client, b"k", b"l", 9)
        await client.put(b"k0", b"v")
        await jump(node, client, 10, compact=8)
        assert [note for note in client.notifications if note[0] == 2] == [[2, [one], 8, ""]]
        assert revisions(client, one) == [2]
        assert revisions(client, later) == [9, 10, 11, 12]

    play(scenario)


def test_progress_waits_for_what_a_snapshot_brought() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        one = await watch(client, b"k", b"l")
        client.slow = True
        await jump(node, client, 3)
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await client.request(Method.WATCH_PROGRESS, []))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            assert answers == []
            client.slow = False
        assert answers == [4]
        assert revisions(client, one) == [2, 3, 4]

    play(scenario)


def test_watches_that_were_ended_give_nothing_to_their_successors_of_the_same_id() -> None:
    """Many leave the index in slices, and a client may take the ids again at once."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await client.put(b"k", b"v")
        for number in range(1, 2001):
            await watch(client, b"k", b"", 0, number)
        ((_, changes),) = node.machine.history(2, 2)
        node.watches.cancel_all("etcdserver: no leader")
        assert node.watches.watch_count == 0
        # All of it in one pass: the index has not let go of them.
        node.watches.create(Watch(Life(client), b"other", b"", id=1))
        node.watches.on_events([(3, changes)])
        node.watches._broadcast(3, changes)
        await trio.sleep(0.1)
        assert [note for note in client.notifications if note[0] == 0] == []
        assert len(client.notifications) == 1

    play(scenario)
