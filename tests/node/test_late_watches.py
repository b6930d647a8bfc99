"""Late watches: catching up costs no one else, whatever their number and the size of what they missed."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from coord.errors import ApiError
from coord.node.node import Node
from coord.protocol.ops import Method, Op
from coord.testing.sim_node import SimClient, SimHost

from .conftest import play


class Reading(SimClient):
    """A client that is slow from `room_bytes` of notifications on, until they are read."""

    room_bytes = 50_000
    buffered_bytes = 0
    most_bytes = 0

    def notify(self, notification: bytes) -> None:
        super().notify(notification)
        self.buffered_bytes += len(notification)
        self.most_bytes = max(self.most_bytes, self.buffered_bytes)

    def is_slow(self) -> bool:
        return self.buffered_bytes > self.room_bytes


async def watch(client: SimClient, key: bytes, range_end: bytes = b"", start: int = 0) -> int:
    watch_id, _ = await client.request(Method.WATCH_CREATE, [key, range_end, start])
    return int(watch_id)


def revisions(client: SimClient, watch_id: int) -> list[int]:
    return [note[2] for note in client.notifications if note[0] == 0 and watch_id in note[1]]


def test_catching_up_stops_when_the_client_has_enough() -> None:
    """A thousand large revisions at once would go over the hard bound of the link, again after each reconnect."""

    async def scenario(host: SimHost, node: Node) -> None:
        writer, reader = SimClient(node), Reading(node)
        for _ in range(100):
            await writer.put(b"k", bytes(10_000))
        one = await watch(reader, b"k", b"", 2)
        two = await watch(reader, b"k", b"l", 50)
        for _ in range(100):
            await trio.sleep(0.2)
            reader.buffered_bytes = 0
        assert reader.most_bytes < 80_000
        assert revisions(reader, one) == list(range(2, 102))
        assert revisions(reader, two) == list(range(50, 102))
        assert node.watches.late_count == 0

    play(scenario)


def test_more_late_watches_than_one_scan_takes_all_get_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.node.late_watches.WATCH_CATCH_UP_WATCHES", 7)
    monkeypatch.setattr("coord.node.late_watches.WATCH_CATCH_UP_REVISIONS", 10)

    async def scenario(host: SimHost, node: Node) -> None:
        writer, clients = SimClient(node), [SimClient(node) for _ in range(3)]
        for number in range(60):
            await writer.put(b"k%d" % (number % 3), b"v")
        slow = SimClient(node)
        slow.slow = True
        await watch(slow, b"k", b"l", 2)
        found = []
        for number in range(60):
            client = clients[number % 3]
            start = 2 + number % 50
            found.append((client, await watch(client, b"k%d" % (number % 3), b"", start), start, number % 3))
        await writer.put(b"k0", b"v")
        await trio.sleep(1)
        for client, watch_id, start, key in found:
            wanted = [revision for revision in range(2, 62) if (revision - 2) % 3 == key and revision >= start]
            assert revisions(client, watch_id) == wanted + [62] * (key == 0)
        assert node.watches.late_count == 1

    play(scenario)


def test_a_connection_with_many_watches_leaves_in_slices() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        stays, goes, late = SimClient(node), SimClient(node), SimClient(node)
        one = await watch(stays, b"k")
        for number in range(2000):
            await watch(goes, b"k%d" % number)
        await stays.put(b"k", b"v")
        late.slow = True
        for _ in range(3):
            await watch(late, b"k", b"", 2)
        now = node.watches.clock()

        def clock() -> float:
            nonlocal now
            now += 0.003
            return now

        node.watches.clock = clock
        passes = node.loop.passes
        goes.slow = True
        node.forget(goes)
        node.forget(late)
        assert node.watches.watch_count == 1
        assert node.watches.late_count == 0
        await stays.put(b"k1999", b"v")
        await stays.put(b"k", b"v")
        assert node.loop.passes - passes > 5
        await trio.sleep(1)
        assert revisions(stays, one) == [2, 4]
        assert goes.notifications == []
        assert node.watches.late_count == 0
        assert list(node.watches.current._index.match(b"k7")) == []

    play(scenario)


def test_asking_for_progress_behind_a_watch_that_lags_times_out() -> None:
    """S30: an answer in any case; one that never came would keep its request open for ever."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await client.put(b"k", b"v")
        client.slow = True
        await watch(client, b"k", b"", 2)
        with pytest.raises(ApiError, match="timed out"):
            await client.request(Method.WATCH_PROGRESS, [], timeout_ms=2000)
        client.slow = False
        assert await client.request(Method.WATCH_PROGRESS, []) == 2

    play(scenario)


def test_asking_for_progress_is_answered_when_the_node_stops() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        answers: list[Any] = []
        await client.put(b"k", b"v")
        client.slow = True
        await watch(client, b"k", b"", 2)
        client.answered = answers.append
        node.request(client, 77, Method.WATCH_PROGRESS, 0, [])
        await node.stop()
        assert [answer[0] for answer in answers] == [77]

    play(scenario)


def test_a_late_watch_that_compaction_overtakes_is_told_beside_others() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for _ in range(10):
            await client.put(b"k", b"v")
        client.slow = True
        old = await watch(client, b"k", b"", 3)
        new = await watch(client, b"k", b"", 9)
        await client.write(Op.COMPACT, [8])
        client.slow = False
        await trio.sleep(1)
        assert [2, [old], 8, ""] in client.notifications
        assert revisions(client, new) == [9, 10, 11]

    play(scenario)
