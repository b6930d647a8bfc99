"""One connection: what reaches the node, what comes back, in which frames and in which order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from coord.codec import decode, encode
from coord.limits import REQUESTS_OPEN_PER_CONNECTION, SEND_BUFFER_HIGH_BYTES
from coord.node.ports import Sink
from coord.node.replies import reply_ok
from coord.observe.log import RecordingLog
from coord.observe.metrics import Metrics
from coord.protocol.client_protocol import writes_frame
from coord.protocol.id_run import reply_run
from coord.protocol.server_protocol import FrameHeads
from coord.server.connection import FRAME_SPLIT_BYTES, Connection
from coord.transport.link import LinkClosed
from coord.transport.memory import WINDOW_BYTES, MemoryLink, MemoryWire

from .fake_node import FakeNode, get, put

NULL = b"\xf6"


class Bench:
    """A connection between a client's end of a wire and a fake node."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.wire = MemoryWire()
        self.metrics = Metrics()
        self.log = RecordingLog()
        self.connection = Connection(
            self.wire.server, self.node, FrameHeads(self.node.member_id), self.log, self.metrics
        )
        self.end: LinkClosed | None = None

    @property
    def client(self) -> MemoryLink:
        return self.wire.client

    async def serve(self) -> None:
        self.end = await self.connection.serve()

    async def replies(self, data: bytes) -> list[Any]:
        """What the frames that answer `data` carry."""
        self.client.send(data)
        await wait_all_tasks_blocked()
        replies: list[Any] = []
        for frame in await self.client.recv_many():
            wire = decode(frame, is_counted=False)
            assert wire[:5] == [1, self.node.cluster_id, 7, 3, 7]
            replies += wire[5]
        return replies


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.serve)
        yield made
        made.client.close()


def on_a_bench(test: Callable[[Bench], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        async def main() -> None:
            with trio.fail_after(20):
                async with bench() as made:
                    await test(made)

        trio.run(main)

    return run


@on_a_bench
async def test_put_and_get(bench: Bench) -> None:
    assert await bench.replies(put(b"a", b"1", 5)) == [[5, 2, None]]
    assert await bench.replies(get(b"a", 6)) == [[6, 2, [[[b"a", 2, 2, 1, 0, b"1"]], False, 1]]]
    assert bench.metrics.client_requests_total == {"put": 1, "range": 1}
    assert bench.metrics.client_frames_received_total == 2
    assert bench.metrics.client_frames_sent_total == 2


@on_a_bench
async def test_each_write_of_a_frame_is_counted(bench: Bench) -> None:
    put_a, delete_a = [0, 1, None, [b"a", b"1"]], [0, 2, None, [b"a"]]
    for writes in ([put_a] * 3, [put_a, delete_a, put_a]):
        bench.client.send(writes_frame([(place, 0) for place in range(3)], writes))
        await wait_all_tasks_blocked()
    assert bench.metrics.client_requests_total == {"put": 5, "delete_range": 1}


@on_a_bench
async def test_broken_message_is_answered_and_the_connection_lives_on(bench: Bench) -> None:
    for broken in (b"", b"\xff", encode([1, [[3, 20]]]), encode([9]), encode([2, 0, 0, [[3, 0]], b"\xff"])):
        [[request_id, _, result, error]] = await bench.replies(broken)
        assert request_id in (0, 3)
        assert result is None
        assert error[0] in ("InvalidArgument", "Unimplemented")
    assert await bench.replies(put(b"a", b"1")) == [[1, 2, None]]
    assert len(bench.log.of("client.message.refused")) == 5
    assert bench.metrics.client_errors_total == {"InvalidArgument": 4, "Unimplemented": 1}


@on_a_bench
async def test_what_the_node_answers_leaves_when_the_node_says_so(bench: Bench) -> None:
    """With all else that its turns bring about, and behind what it sends to other nodes."""
    sinks: list[Sink] = []

    def request(sink: Sink, request_id: int, *_: Any) -> None:
        sink.reply(reply_ok(request_id, 2, NULL))
        sinks.append(sink)

    bench.node.request = request  # type: ignore[method-assign]
    bench.client.send(get(b"a", 5))
    await wait_all_tasks_blocked()
    assert bench.metrics.client_frames_sent_total == 0
    sinks[0].flush()
    assert decode(await bench.client.recv())[5] == [[5, 2, None]]
    # A refusal is the connection's own, and takes along what is there.
    bench.client.send(get(b"a", 6))
    [six, [zero, *_]] = await bench.replies(b"\xff")
    assert (six, zero) == ([6, 2, None], 0)


@on_a_bench
async def test_id_that_is_still_open_is_refused(bench: Bench) -> None:
    bench.node.is_lazy = True
    bench.client.send(get(b"a", 5))
    for again in (get(b"b", 5), put(b"b", b"2", 5)):
        [[request_id, _, _, error]] = await bench.replies(again)
        assert request_id == 0
        assert "request id 5 is already open" in error[1]
    assert b"b" not in bench.node.data
    bench.node.answer_all()
    assert decode(await bench.client.recv())[5][0][0] == 5
    bench.node.is_lazy = False
    assert (await bench.replies(get(b"a", 5)))[0][0] == 5


@on_a_bench
async def test_a_reply_to_a_run_of_ids_closes_them_all(bench: Bench) -> None:
    bench.node.is_lazy = True
    writes = [[0, 1, None, [b"a", b"1"]]] * 3
    run = writes_frame([(place, 0) for place in range(5, 8)], writes)
    bench.client.send(run)
    [[request_id, _, _, error]] = await bench.replies(writes_frame([(7, 0)], writes[:1]))
    assert (request_id, error[1]) == (0, "coord: request id 7 is already open")
    sink = bench.node.sinks[0]
    sink.reply(reply_run(range(5, 8), 2))
    bench.node.waiting.clear()
    bench.node.is_lazy = False
    sink.flush()
    assert decode(await bench.client.recv())[5] == [[5, 2, None, None, 3]]
    assert [reply[0] for reply in await bench.replies(run)] == [5, 6, 7]
    assert bench.metrics.client_errors_total == {"InvalidArgument": 1}


@on_a_bench
async def test_id_that_is_twice_in_one_message_is_refused(bench: Bench) -> None:
    write = [0, 1, None, [b"k", b"v"]]
    twice = encode([2, 0, 0, [[5, 0], [5, 0]], encode([write, write])])
    [[request_id, _, _, error]] = await bench.replies(twice)
    assert request_id == 0
    assert "request id 5 is already open" in error[1]
    assert bench.node.data == {}


@on_a_bench
async def test_open_requests_are_bounded(bench: Bench) -> None:
    bench.node.is_lazy = True
    for start in range(0, REQUESTS_OPEN_PER_CONNECTION, 1024):
        bench.client.send(encode([1, [[start + n + 1, 20, 0, [b"k"]] for n in range(1024)]]))
    await wait_all_tasks_blocked()
    for one_more in (get(b"k", 2**40), put(b"k", b"v", 2**40)):
        [[request_id, _, _, error]] = await bench.replies(one_more)
        assert (request_id, error[:2]) == (2**40, ["ResourceExhausted", "etcdserver: too many requests"])
    bench.node.answer_all()
    bench.node.is_lazy = False
    answered = 0
    while answered < REQUESTS_OPEN_PER_CONNECTION:
        answered += len(await bench.client.recv_many())
    assert (await bench.replies(put(b"k", b"v", 2**40)))[0] == [2**40, 2, None]


@on_a_bench
async def test_cancel_passes_and_opens_nothing(bench: Bench) -> None:
    bench.client.send(encode([1, [[9, 40, 0, [5]], [9, 40, 0, [6]]]]))
    assert (await bench.replies(get(b"a", 9)))[0][0] == 9
    assert bench.node.cancelled == [[5], [6]]


@on_a_bench
async def test_client_of_another_cluster_is_told_and_closed(bench: Bench) -> None:
    bench.client.send(encode([0, 1, "me", bench.node.cluster_id]))
    assert (await bench.replies(get(b"a")))[0][0] == 1
    [[request_id, _, _, error]] = await bench.replies(encode([0, 1, "me", 5]))
    assert (request_id, error[:2]) == (0, ["FailedPrecondition", "etcdserver: cluster ID mismatch"])
    with pytest.raises(LinkClosed) as ended:
        await bench.client.recv()
    assert ended.value.reason == "etcdserver: cluster ID mismatch"


@on_a_bench
async def test_answers_of_a_turn_leave_in_one_frame_each(bench: Bench) -> None:
    await bench.replies(put(b"a", b"1"))
    sink = bench.node.sinks[0]
    for number in range(5):
        sink.reply(reply_ok(number, 2, NULL))
    for number in range(5):
        sink.notify(encode([1, [number], 2]))
    sink.flush()
    sink.flush()
    frames = [decode(frame) for frame in await bench.client.recv_many()]
    assert [frame[0] for frame in frames] == [1, 2]
    assert [len(frame[5]) for frame in frames] == [5, 5]


@on_a_bench
async def test_progress_answer_travels_behind_the_events_it_vouches_for(bench: Bench) -> None:
    """S30, and the other way round: a watch's first event behind the reply that creates it."""
    await bench.replies(put(b"a", b"1"))
    sink = bench.node.sinks[0]
    sink.reply(reply_ok(1, 2, encode([5, 2])))
    sink.notify(encode([0, [5], 3, [[0, [b"a", 2, 3, 2, 0, b"x"], None]]]))
    sink.reply(reply_ok(2, 3, encode(3)))
    sink.flush()
    frames = [decode(frame) for frame in await bench.client.recv_many()]
    assert [frame[0] for frame in frames] == [1, 2, 1]
    assert frames[0][5] == [[1, 2, [5, 2]]]
    assert frames[2][5] == [[2, 3, 3]]


@on_a_bench
async def test_large_answers_leave_in_several_frames(bench: Bench) -> None:
    await bench.replies(put(b"a", b"1"))
    sink = bench.node.sinks[0]
    large = encode(b"x" * (FRAME_SPLIT_BYTES // 3))
    for number in range(7):
        sink.reply(reply_ok(number, 2, large))
    sink.reply(reply_ok(7, 2, encode(b"x" * (3 * FRAME_SPLIT_BYTES))))
    sink.flush()
    ids: list[int] = []
    for _ in range(5):
        frame = await bench.client.recv()
        ids += [reply[0] for reply in decode(frame)[5]]
    assert ids == list(range(8))


@on_a_bench
async def test_client_that_does_not_read_is_not_read(bench: Bench) -> None:
    await bench.replies(put(b"big", b"x" * 200_000))
    asked = 0
    while bench.wire.server.buffered_bytes <= SEND_BUFFER_HIGH_BYTES and asked < 100:
        asked += 1
        bench.client.send(get(b"big", asked))
        await wait_all_tasks_blocked()
    assert bench.node.sinks[0].is_slow()
    served = bench.metrics.client_requests_total["range"]
    for _ in range(10):
        asked += 1
        bench.client.send(get(b"big", asked))
        await wait_all_tasks_blocked()
    assert bench.metrics.client_requests_total["range"] == served
    assert bench.wire.server.buffered_bytes < SEND_BUFFER_HIGH_BYTES + 2 * WINDOW_BYTES
    answered = 0
    while answered < asked:
        answered += sum(len(decode(frame)[5]) for frame in await bench.client.recv_many())
    assert not bench.node.sinks[0].is_slow()


def test_end_of_the_link_is_the_end() -> None:
    async def main() -> None:
        async with bench() as made:
            await made.replies(put(b"a", b"1"))
            sink = made.node.sinks[0]
            made.client.abort()
            await wait_all_tasks_blocked()
            assert made.end is not None
            assert made.node.forgotten == [sink]
            sink.reply(reply_ok(1, 2, NULL))
            sink.notify(encode([1, [1], 2]))
            sink.flush()
            assert made.metrics.client_frames_sent_total == 1

    trio.run(main)


def test_mistake_in_the_node_comes_out_and_the_node_forgets_the_connection() -> None:
    async def main() -> None:
        made = Bench()
        made.client.send(encode([1, [[1, 43, 0, []]]]))
        with pytest.raises(RuntimeError, match="a mistake in the node"):
            await made.serve()
        assert made.node.forgotten == [made.connection]

    trio.run(main)
