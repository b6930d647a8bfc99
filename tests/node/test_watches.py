"""What watches promise: all events, in order, once, whole revisions, and never silence (P6–P8, S30)."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from tests.node.conftest import play

from coord.errors import ApiError, Compacted
from coord.node.node import Node
from coord.node.watches import Broadcaster
from coord.protocol.ops import Method, Op
from coord.testing.sim_node import SimClient, SimHost, SimSettings


async def watch(client: SimClient, key: bytes, range_end: bytes = b"", start: int = 0, *rest: Any) -> tuple[int, int]:
    watch_id, revision = await client.request(Method.WATCH_CREATE, [key, range_end, start, *rest])
    return watch_id, revision


def events(client: SimClient, watch_id: int) -> list[tuple[int, int, bytes, bytes]]:
    """`(revision, type, key, value)` of what a watch was given."""
    return [
        (notification[2], event[0], event[1][0], event[1][5])
        for notification in client.notifications
        if notification[0] == 0 and watch_id in notification[1]
        for event in notification[3]
    ]


def test_events_of_a_key_a_prefix_and_a_range() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        one, start = await watch(client, b"a1")
        assert start == 2
        prefix, _ = await watch(client, b"a", b"b")
        span, _ = await watch(client, b"a1", b"a3")
        await client.put(b"a1", b"x")
        await client.put(b"a3", b"y")
        await client.write(Op.DELETE_RANGE, [b"a1"])
        await client.put(b"c", b"z")
        assert events(client, one) == [(2, 0, b"a1", b"x"), (4, 1, b"a1", b"")]
        assert events(client, prefix) == [(2, 0, b"a1", b"x"), (3, 0, b"a3", b"y"), (4, 1, b"a1", b"")]
        assert events(client, span) == [(2, 0, b"a1", b"x"), (4, 1, b"a1", b"")]

    play(scenario)


def test_events_cost_nothing_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    honest = Broadcaster._broadcast

    def broadcast(self: Broadcaster, revision: int, changes: Any) -> None:
        looked.append(revision)
        honest(self, revision, changes)

    monkeypatch.setattr(Broadcaster, "_broadcast", broadcast)

    async def scenario(host: SimHost, node: Node) -> None:
        client, other = SimClient(node), SimClient(node)
        await client.put(b"a", b"x")
        assert not looked
        watch_id, start = await watch(client, b"a")
        assert start == 3
        await other.put(b"a", b"y")
        assert (looked, events(client, watch_id)) == ([3], [(3, 0, b"a", b"y")])
        assert await client.request(Method.WATCH_CANCEL, [watch_id])
        await other.put(b"a", b"z")
        assert looked == [3]

    play(scenario)


def test_one_notification_serves_all_watches_with_the_same_events() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        ids = [(await watch(client, b"a", b"b"))[0] for _ in range(50)]
        await client.put(b"a1", b"x")
        (notification,) = client.notifications
        assert sorted(notification[1]) == ids

    play(scenario)


def test_watches_that_ask_for_the_same_are_one_for_what_gives_out_events() -> None:
    """An event must cost what its connections cost: with 100 000 watches on one prefix the loop would stand."""

    async def scenario(host: SimHost, node: Node) -> None:
        clients = [SimClient(node) for _ in range(2)]
        ids: dict[SimClient, list[int]] = {client: [] for client in clients}
        for number in range(20):
            for client in clients:
                ids[client].append((await watch(client, b"a", b"b"))[0])
            await clients[0].put(b"a", b"%d" % number)
        deletes, _ = await watch(clients[0], b"a", b"b", 0, 0, True)
        receivers = node.watches.current.wanted([(b"a", 0, b"", None)])
        assert [len(receivers[client]) for client in clients] == [2, 1]
        before = [len(client.notifications) for client in clients]
        await clients[0].put(b"a", b"x")
        last = node.machine.revision
        for client, given in zip(clients, before, strict=True):
            (notification,) = client.notifications[given:]
            assert sorted(notification[1]) == ids[client]
        for client in clients:
            for place, one in enumerate(ids[client]):
                assert [revision for revision, *_ in events(client, one)] == list(range(2 + place, last + 1))
        # Each leaves alone, and the last one takes all with it.
        for one in ids[clients[1]]:
            await clients[1].request(Method.WATCH_CANCEL, [one])
            await clients[0].put(b"a", b"y")
            assert events(clients[1], one)[-1][0] == node.machine.revision - 1
        assert list(node.watches.current.wanted([(b"a", 0, b"", None)])) == [clients[0]]
        await clients[0].write(Op.DELETE_RANGE, [b"a"])
        assert [(kind, key) for _, kind, key, _ in events(clients[0], deletes)] == [(1, b"a")]

    play(scenario)


def test_a_watch_from_the_future_is_given_nothing_of_its_neighbours() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        starts = [4, 0, 5, 0, 6]
        ids = [(await watch(client, b"a", b"", start))[0] for start in starts]
        for _ in range(6):
            await client.put(b"a", b"x")
        seen = [[revision for revision, *_ in events(client, one)] for one in ids]
        assert seen == [list(range(start or 2, 8)) for start in starts]

    play(scenario)


def test_a_revision_comes_whole() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        live, _ = await watch(client, b"k", b"l")
        puts = [[1, [b"k%d" % number, b"v"]] for number in range(5)]
        await client.write(Op.TXN, [[], puts, []])
        past, _ = await watch(client, b"k", b"l", 2)
        await trio.testing.wait_all_tasks_blocked()
        for one in (live, past):
            (notification,) = [each for each in client.notifications if one in each[1]]
            assert [event[1][0] for event in notification[3]] == [b"k%d" % number for number in range(5)]

    play(scenario)


def test_history_then_live_without_gap_or_double() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for number in range(1, 1501):
            await client.put(b"k", b"%d" % number)
        old, start = await watch(client, b"k", b"", 2)
        assert start == 2
        for number in range(1501, 1521):
            await client.put(b"k", b"%d" % number)
        await trio.sleep(1)
        assert [value for *_, value in events(client, old)] == [b"%d" % number for number in range(1, 1521)]

    play(scenario)


def test_a_future_start_gives_nothing_below_it() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        future, start = await watch(client, b"k", b"", 5)
        assert start == 5
        for _ in range(5):
            await client.put(b"k", b"v")
        assert [revision for revision, *_ in events(client, future)] == [5, 6]

    play(scenario)


def test_filters_and_prev_kv() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        no_put, _ = await watch(client, b"k", b"", 0, 0, True, False)
        no_delete, _ = await watch(client, b"k", b"", 0, 0, False, True)
        previous, _ = await watch(client, b"k", b"", 0, 0, False, False, True)
        await client.put(b"k", b"1")
        await client.put(b"k", b"2")
        await client.write(Op.DELETE_RANGE, [b"k"])
        assert [kind for _, kind, *_ in events(client, no_put)] == [1]
        assert [kind for _, kind, *_ in events(client, no_delete)] == [0, 0]
        before = [event[2] and event[2][5] for note in client.notifications if previous in note[1] for event in note[3]]
        assert before == [None, b"1", b"2"]

    play(scenario)


def test_the_pair_before_is_told_as_long_as_the_revision_before_can_be_read() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        previous, _ = await watch(client, b"k", b"", 0, 0, False, False, True)
        await client.put(b"k", b"old")
        await client.put(b"other", b"v")
        await client.write(Op.COMPACT, [3])
        await client.put(b"k", b"new")
        # The compaction is applied before the events of its own frame are given out.
        await client.write_many([[0, Op.PUT, None, [b"k", b"last"]], [0, Op.COMPACT, None, [5]]])
        await trio.testing.wait_all_tasks_blocked()
        before = [event[2] and event[2][5] for note in client.notifications if previous in note[1] for event in note[3]]
        assert before == [None, b"old", None]

    play(scenario)


def test_a_watch_from_a_compacted_start_is_made_and_then_ended_with_the_revision() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for _ in range(10):
            await client.put(b"k", b"v")
        await client.write(Op.COMPACT, [8])
        for slow in (False, True):
            client.slow = slow
            assert await watch(client, b"k", b"", 7, 5) == (5, 7)
            await trio.testing.wait_all_tasks_blocked()
            assert client.notifications == [[2, [5], 8, ""]]
            client.notifications.clear()
            assert node.watches.watch_count == node.watches.late_count == 0
            assert await client.request(Method.WATCH_CANCEL, [5]) is False
        _, start = await watch(client, b"k", b"", 8)
        assert start == 8

    play(scenario)


def test_a_slow_client_falls_back_to_history_and_misses_nothing() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        one, _ = await watch(client, b"k")
        client.slow = True
        for number in range(30):
            await client.put(b"k", b"%d" % number)
        assert events(client, one) == []
        assert node.watches.late_count == 1
        client.slow = False
        await trio.sleep(1)
        assert [value for *_, value in events(client, one)] == [b"%d" % number for number in range(30)]
        assert node.watches.late_count == 0

    play(scenario)


def test_a_slow_watch_overtaken_by_compaction_is_told() -> None:
    """etcd #17529: it lost events silently."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        one, _ = await watch(client, b"k")
        client.slow = True
        for _ in range(10):
            await client.put(b"k", b"v")
        await client.write(Op.COMPACT, [9])
        client.slow = False
        await trio.sleep(1)
        assert client.notifications == [[2, [one], 9, ""]]
        assert node.watches.watch_count == 0

    play(scenario)


def test_progress_is_always_answered_and_behind_the_events() -> None:
    """S30; etcd says nothing while a watch lags."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        assert await client.request(Method.WATCH_PROGRESS, []) == 1
        for number in range(3000):
            await client.put(b"k", b"%d" % number)
        one, _ = await watch(client, b"k", b"", 2)
        revision = await client.request(Method.WATCH_PROGRESS, [])
        assert revision == 3001
        assert len(events(client, one)) == 3000

    play(scenario)


def test_progress_says_no_less_than_the_events_before_it() -> None:
    """S30: a client that goes on behind its last bookmark would else be told twice."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        one, _ = await watch(client, b"k")
        answered: list[int] = []

        def answer(revision: int | None) -> None:
            assert revision is not None
            answered.append(max(revision for _, _, revision, *_ in client.notifications))
            answered.append(revision)

        node.watches.when_current(client, node.seams.clock() + 5, answer)
        node.watches.hold()
        for number in range(3):
            await client.put(b"k", b"%d" % number)
        node.watches.after_install(1)
        await trio.sleep(1)
        assert answered == [4, 4]
        assert len(events(client, one)) == 3

    play(scenario)


def test_idle_watches_that_ask_are_told_the_revision() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        asked, _ = await watch(client, b"k", b"", 0, 0, False, False, False, True)
        await watch(client, b"k")
        await client.put(b"other", b"v")
        await trio.sleep(25)
        assert client.notifications == [[1, [asked], 2], [1, [asked], 2]]

    play(scenario, SimHost(1, SimSettings(options={"progress_interval_s": 10.0})))


def test_cancel_answers_whether_there_was_one() -> None:
    """DESIGN §7: etcd says nothing to an unknown id."""

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        one, _ = await watch(client, b"k")
        assert await client.request(Method.WATCH_CANCEL, [one]) is True
        assert await client.request(Method.WATCH_CANCEL, [one]) is False
        await client.put(b"k", b"v")
        assert client.notifications == []

    play(scenario)


def test_refusals() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        await watch(client, b"k", b"", 0, 7)
        with pytest.raises(ApiError, match="duplicate watch ID"):
            await watch(client, b"k", b"", 0, 7)
        with pytest.raises(ApiError, match="range is empty"):
            await watch(client, b"k", b"a")
        with pytest.raises(Compacted):
            await watch(client, b"k", b"", -1)

    play(scenario)


def test_the_node_chooses_ids_upwards_on_each_connection_and_none_twice() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client, other = SimClient(node), SimClient(node)
        assert (await watch(client, b"k", b"", 0, 2))[0] == 2
        assert [(await watch(client, b"k"))[0] for _ in range(3)] == [0, 1, 3]
        with pytest.raises(ApiError):
            await watch(client, b"k", b"a")
        for watch_id in (0, 3):
            assert await client.request(Method.WATCH_CANCEL, [watch_id]) is True
        assert (await watch(client, b"k"))[0] == 4
        assert (await watch(other, b"k"))[0] == 0
        await client.put(b"k", b"v")
        assert [len(events(client, watch_id)) for watch_id in range(5)] == [0, 1, 1, 0, 1]
        assert len(events(other, 0)) == 1

    play(scenario)


def test_a_connection_that_goes_takes_its_watches_with_it() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        gone, stays = SimClient(node), SimClient(node)
        await watch(gone, b"k")
        await watch(gone, b"k", b"", 1)
        one, _ = await watch(stays, b"k")
        node.forget(gone)
        await client_put(stays)
        assert node.watches.watch_count == 1
        assert len(events(stays, one)) == 1
        assert gone.notifications == []

    async def client_put(client: SimClient) -> None:
        await client.put(b"k", b"v")

    play(scenario)


def test_large_revisions_come_in_fragments_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.node.watch_delivery.WATCH_FRAGMENT_BYTES", 3000)

    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        fragmented, _ = await watch(client, b"k", b"l", 0, 0, False, False, False, False, True)
        whole, _ = await watch(client, b"k", b"l")
        await client.write(Op.TXN, [[], [[1, [b"k%d" % number, bytes(1000)]] for number in range(5)], []])
        parts = [note for note in client.notifications if fragmented in note[1]]
        assert [note[4] for note in parts] == [True, True, False]
        assert sum(len(note[3]) for note in parts) == 5
        assert [len(note[3]) for note in client.notifications if whole in note[1]] == [5]

    play(scenario)


@pytest.mark.parametrize("seed", range(5))
def test_random_watches_match_what_happened(seed: int) -> None:
    """Every watch gets exactly the matching events from its start on, whatever the client's pace."""
    chance = random.Random(seed)

    async def scenario(host: SimHost, node: Node) -> None:
        writer, clients = SimClient(node), [SimClient(node) for _ in range(3)]
        happened: list[tuple[int, int, bytes, bytes]] = []
        watches = []

        for step in range(300):
            client = chance.choice(clients)
            if step % 10 == 0:
                key = b"%d" % chance.randrange(5)
                end = chance.choice([b"", b"\0", b"%d" % 4])
                if end and end != b"\0" and end <= key:
                    end = b""
                start = chance.choice([0, max(node.revision - chance.randrange(40), 1), node.revision + 3])
                watch_id, first = await watch(client, key, end, start)
                watches.append((client, watch_id, key, end, first))
            client.slow = chance.random() < 0.3
            key = b"%d" % chance.randrange(5)
            if chance.random() < 0.8:
                await writer.put(key, b"%d" % step)
                happened.append((node.revision, 0, key, b"%d" % step))
            elif (await writer.write(Op.DELETE_RANGE, [key]))[0]:
                happened.append((node.revision, 1, key, b""))
        for client in clients:
            client.slow = False
        await trio.sleep(2)

        for client, watch_id, key, end, first in watches:
            wanted = [
                event
                for event in happened
                if event[0] >= first
                and (event[2] == key if not end else event[2] >= key and (end == b"\0" or event[2] < end))
            ]
            assert events(client, watch_id) == wanted

    play(scenario)
