"""The Trio client's watches: whole revisions, in order, without a gap, whatever breaks."""

from __future__ import annotations

import pytest
import trio

from coord.client import watches as watches_module
from coord.client.responses import Batch
from coord.client.watch import Watch
from coord.errors import ApiError, ClientClosed, Compacted, ConnectionFailed, DeadlineExceeded
from coord.types import EventType

from .trio_fakes import Network, a_client, a_network, run, settle

ONE = "n1:1"


async def take(watch: Watch, count: int) -> list[Batch]:
    """The next batches; none may take longer than a minute."""
    with trio.fail_after(60):
        return [await watch.__anext__() for _ in range(count)]


def revisions(batches: list[Batch]) -> list[int]:
    return [batch.revision for batch in batches]


def watching(network: Network) -> int:
    """How many watches the nodes know."""
    nodes = {id(node): node for node in network.nodes.values()}
    return sum(len(session.watches) for node in nodes.values() for session in node.sessions)


def test_a_watch_sees_each_revision_as_one_batch() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            node.put(b"cfg/a", b"0")
            async with client.watch("cfg/", prefix=True, prev_kv=True) as watch:
                assert watch.next_revision == 3
                node.put(b"cfg/a", b"1")
                node.put(b"other", b"1")
                node.put(b"cfg/b", b"2")
                node.delete(b"cfg/", b"cfg0")
                put, made, gone = await take(watch, 3)
                assert revisions([put, made, gone]) == [3, 5, 6]
                assert put.events[0].prev_kv is not None
                assert not put.events[0].is_create
                assert made.events[0].is_create
                assert [event.type for event in gone.events] == [EventType.DELETE] * 2
                assert watch.next_revision == 7
            async with client.watch("cfg/", prefix=True, since=3, no_delete=True) as watch:
                assert revisions(await take(watch, 2)) == [3, 5]
            await settle()
            assert watching(network) == 0

    run(test)


def test_leaving_early_leaves_nothing_behind() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            async with client.watch("k") as watch:
                node.put(b"k", b"1")
                async for batch in watch:
                    assert batch.revision == 2
                    break
            await settle()
            assert watching(network) == 0
            with pytest.raises(ClientClosed):
                await watch.__anext__()

    run(test)


@pytest.mark.parametrize("breaks_after", ["created", "first event", "a fragment"])
def test_a_watch_goes_on_at_the_next_whole_revision(breaks_after: str) -> None:
    # S30. A client that resumed inside a revision would lose the rest of a transaction; one that resumed from now
    # would lose what happened between.
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1", "n2:2")
        # Two endpoints of the same node: what one has, the other has.
        network.nodes["n2:2"] = node = network.nodes["n1:1"]
        node.fragments = True
        async with a_client(network) as client, client.watch("k", prefix=True) as watch:
            await settle()
            session = next(session for session in node.sessions if session.watches)
            first = next(name for name, wire in network.wires if wire.server.send == session.send)
            if breaks_after == "first event":
                node.put(b"k1", b"")
                await settle()
            if breaks_after == "a fragment":
                # Only the first part of what follows arrives.
                whole = session.send_notifications
                session.send_notifications = lambda items: whole(items) if items[0][4:] == [True] else None  # type: ignore[method-assign]
                node.txn([], [[1, [b"k1", b""]], [1, [b"k2", b""]]], [])
                events = [event for _, part in node.history[-2:] for event in part]
                node.history[-2:] = [(node.revision, events)]
                session.watches, parts = {}, session.parts(list(session.watches), node.revision, events)
                whole([parts[0]])
                await settle()
            network.cut(first)
            # What happens while nobody is connected is seen too.
            node.put(b"k9", b"")
            last = node.revision
            batches = await take(watch, 1)
            while batches[-1].revision < last:
                batches += await take(watch, 1)
            seen = [(batch.revision, event.kv.key) for batch in batches for event in batch.events]
            expected = [
                (revision, event[1][0]) for revision, events in node.history for event in events if revision >= 2
            ]
            assert seen == expected
            assert watching(network) == 1

    run(test)


def test_parts_become_one_batch_and_repetitions_none() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        node.fragments = True
        async with a_client(network) as client:
            for key in (b"k1", b"k2", b"k3"):
                node.put(key, b"")
            async with client.watch("k", prefix=True) as watch:
                node.delete(b"k", b"l")
                assert [len(batch.events) for batch in await take(watch, 1)] == [3]
                session = node.sessions[0]
                (watch_id,) = session.watches
                session.send_notifications([[0, [watch_id], 5, [[1, [b"k1", 0, 5, 0, 0, b""], None]]]])
                node.put(b"k4", b"")
                assert revisions(await take(watch, 1)) == [6]

    run(test)


def test_compacted_is_raised_behind_what_still_came() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            node.put(b"k", b"1")
            node.compact_revision = 2
            async with client.watch("k", since=1) as watch:
                for _ in range(2):
                    with pytest.raises(Compacted) as caught:
                        await take(watch, 1)
                    assert caught.value.compact_revision == 2
            async with client.watch("k") as watch:
                node.put(b"k", b"2")
                await settle()
                network.cut(ONE, is_down=False)
                node.put(b"k", b"3")
                node.put(b"k", b"4")
                node.compact_revision = 5
                assert revisions(await take(watch, 1)) == [3]
                for _ in range(2):
                    with pytest.raises(Compacted):
                        await take(watch, 1)
            async with client.watch("k") as watch:
                (watch_id,) = node.sessions[0].watches
                node.sessions[0].send_notifications([[2, [watch_id], 9, "compacted"]])
                with pytest.raises(Compacted) as caught:
                    await take(watch, 1)
                assert caught.value.compact_revision == 9

    run(test)


def test_a_watch_that_a_node_cannot_serve_goes_on_and_one_that_it_refuses_ends() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1", "n2:2")
        network.nodes["n2:2"] = node = network.nodes["n1:1"]
        async with a_client(network) as client, client.watch("k") as watch:
            await settle()
            for _ in range(3):
                session = next(session for session in node.sessions if session.watches)
                ids = list(session.watches)
                session.watches.clear()
                session.send_notifications([[2, ids, 0, "etcdserver: no leader"]])
                node.put(b"k", b"")
                assert revisions(await take(watch, 1)) == [node.revision]
            session = next(session for session in node.sessions if session.watches)
            session.send_notifications([[2, list(session.watches), 0, "permission denied"]])
            with pytest.raises(ApiError, match="permission denied"):
                await take(watch, 1)

    run(test)


def test_progress_stands_behind_the_events_it_vouches_for() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1", "n2:2")
        network.nodes["n2:2"] = node = network.nodes["n1:1"]
        async with a_client(network) as client, client.watch("k") as watch:
            node.put(b"k", b"1")
            node.put(b"x", b"1")
            assert await watch.request_progress() == 3
            batches = await take(watch, 2)
            assert revisions(batches) == [2, 3]
            assert batches[1].events == ()
            # From the node's own accord, and a late one that says less than is known.
            session = next(session for session in node.sessions if session.watches)
            node.put(b"x", b"2")
            session.send_notifications([[1, list(session.watches), 4]])
            session.send_notifications([[1, list(session.watches), 2]])
            node.put(b"k", b"2")
            assert revisions(await take(watch, 2)) == [4, 5]
            # After a break it comes from the connection that carries the watch then.
            name = next(name for name, wire in network.wires if wire.server.send == session.send)
            node.put(b"k", b"3")
            network.cut(name)
            assert await watch.request_progress() == 6
            assert revisions(await take(watch, 2)) == [6, 6]

    run(test)


def test_a_slow_watcher_is_bounded_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches_module, "BUFFER_BYTES_MAX", 10_000)

    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client, client.watch("k") as watch:
            for _ in range(100):
                node.put(b"k", bytes(1000))
            await settle()
            assert watching(network) == 0
            assert len(watch._subscription.batches) < 20
            # Nobody can say how far a watch has come that is not served; the question ends in time.
            with pytest.raises(DeadlineExceeded):
                await watch.request_progress(timeout=1.0)
            assert len(node.frames) < 20
            assert revisions(await take(watch, 50)) == list(range(2, 52))
            node.put(b"k", b"")
            assert revisions(await take(watch, 51)) == list(range(52, 103))

    run(test)


def test_watches_of_one_connection_wake_once_a_frame_and_share_its_batches() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client, client.watch("k") as first, client.watch("k") as second:
            session = node.sessions[0]
            ids = list(session.watches)
            events = [[0, [b"k", 2, 2, 1, 0, b"v"], None]]
            wakes = 0
            taken: list[list[Batch]] = []

            async def consume(watch: Watch) -> None:
                wait = watch._wait

                async def counting() -> None:
                    nonlocal wakes
                    wakes += 1
                    await wait()

                watch._wait = counting  # type: ignore[method-assign]
                taken.append(await take(watch, 2))

            async with trio.open_nursery() as consumers:
                consumers.start_soon(consume, first)
                consumers.start_soon(consume, second)
                await settle()
                session.send_notifications([[0, ids, 2, events], [0, ids, 3, events]])
            assert wakes == 2
            # What they are given is made once for both.
            (one, another) = taken
            assert revisions(one) == [2, 3]
            assert all(mine is other for mine, other in zip(one, another, strict=True))

    run(test)


def test_creating_a_watch_has_a_timeout() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network, timeout=2.0) as client:
            node.is_silent = True
            started = trio.current_time()
            with pytest.raises(ApiError, match="no answer within 1 s"):
                await client.watch("k", timeout=1.0).__aenter__()
            assert trio.current_time() - started == pytest.approx(1.0)
            await settle()
            assert watching(network) == 0
            network.cut(ONE)
            with pytest.raises(ConnectionFailed):
                await client.watch("k").__aenter__()

    run(test)
