"""The link over a socket: whole messages, bounds, time limits, and what a hostile other side may try."""

from __future__ import annotations

import socket
import struct
from typing import Any, cast

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from coord.limits import (
    CONTROL_FRAMES_PER_SECOND,
    FRAGMENTS_PER_MESSAGE,
)
from coord.transport.link import LinkClosed, LinkEnd
from coord.transport.socket_link import SocketLink

from .helpers import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    aborting,
    cancelled_at,
    close_payload,
    frame,
    link_pair,
    receive,
    receive_all,
    run,
    server_and_raw,
    socket_pair,
)


def test_messages_of_every_length_form_cross_both_ways() -> None:
    async def main() -> None:
        server, client = link_pair()
        async with aborting(server, client):
            for size in (0, 1, 125, 126, 127, 65_535, 65_536, 300_000):
                for one, other in ((server, client), (client, server)):
                    one.send(b"m" * size)
                    message = await other.recv()
                    assert (type(message), message) == (bytes, b"m" * size)

    run(main)


class CountingSocket:
    """Counts what is sent by how many calls."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.sizes: list[int] = []

    def send(self, data: bytes) -> int:
        self.sizes.append(len(data))
        return self._sock.send(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@pytest.mark.parametrize("is_client", [False, True])
@pytest.mark.parametrize(("sizes", "calls"), [((5, 0, 200), 1), ((9_000, 9_000), 2), ((7,), 1), ((), 0)])
def test_short_messages_that_are_sent_together_leave_together(
    is_client: bool, sizes: tuple[int, ...], calls: int
) -> None:
    async def main() -> None:
        server, client = link_pair()
        near, far = (client, server) if is_client else (server, client)
        counting = CountingSocket(near._sock)
        near._sock = cast(socket.socket, counting)
        messages = [bytes([number]) * size for number, size in enumerate(sizes)]
        async with aborting(server, client):
            near.send_many(messages)
            assert len(counting.sizes) == calls
            for message in messages:
                assert await far.recv() == message
            near.close()
            near.send_many(messages)
            assert len(counting.sizes) == calls + 1, "the goodbye alone"

    run(main)


def test_one_read_gives_all_its_messages() -> None:
    async def main() -> None:
        server, client = link_pair()
        async with aborting(server, client):
            for number in range(100):
                client.send(b"%d" % number)
            assert await server.recv_many() == [b"%d" % number for number in range(100)]

    run(main)


def test_recv_keeps_the_rest_for_the_next_call() -> None:
    async def main() -> None:
        server, client = link_pair()
        async with aborting(server, client):
            for number in range(3):
                client.send(b"%d" % number)
            assert await server.recv() == b"0"
            assert await server.recv_many() == [b"1", b"2"]

    run(main)


def test_bytes_behind_the_handshake_are_the_first_message() -> None:
    async def main() -> None:
        left, right = socket_pair()
        data = frame(BINARY, b"early")
        async with SocketLink(left, is_client=False, subprotocol="test", received=data + b"\x82") as link:
            assert await link.recv() == b"early"
            right.send(frame(BINARY, b"late")[1:])
            assert await link.recv() == b"late"
            right.close()

    run(main)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=8), st.data())
def test_any_chunking_gives_the_same_messages(messages: list[bytes], draw: st.DataObject) -> None:
    stream = b""
    for message in messages:
        pieces = draw.draw(st.integers(1, 4))
        size = max(1, -(-len(message) // pieces))
        parts = [message[start : start + size] for start in range(0, len(message), size)] or [b""]
        for place, part in enumerate(parts):
            stream += frame(CONT if place else BINARY, part, fin=place == len(parts) - 1)
            if draw.draw(st.booleans()):
                stream += frame(PING, b"between")
    cuts = sorted(draw.draw(st.sets(st.integers(1, len(stream)), max_size=12)) | {len(stream)})

    async def main() -> None:
        link, raw = server_and_raw()
        got: list[bytes] = []
        async with aborting(link):
            start = 0
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    while len(got) < len(messages):
                        got.extend(await link.recv_many())

                nursery.start_soon(read)
                for cut in cuts:
                    raw.send(stream[start:cut])
                    start = cut
                    await wait_all_tasks_blocked()
            raw.close()
        assert got == messages

    run(main)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"hello"), 1003),
        (frame(TEXT, b"hel", fin=False), 1003),
        (frame(BINARY, b"x", masked=False), 1002),
        (frame(BINARY, b"x", rsv=0x40), 1002),
        (frame(3, b"x"), 1002),
        (frame(11, b""), 1002),
        (frame(CONT, b"x"), 1002),
        (frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, close_payload(1005)), 1002),
        (frame(CLOSE, b"\x03\xe8\xff\xfe"), 1007),
        (frame(BINARY, b"x" * 1001), 1009),
        (bytes((0x82, 0xFF)) + struct.pack("!Q", 2**63), 1009),
        (bytes((0x82, 0xFF)) + struct.pack("!Q", 2**62) + b"more", 1009),
        (frame(BINARY, b"x" * 600, fin=False) + frame(CONT, b"x" * 600), 1009),
    ],
)
def test_what_breaks_the_rules_is_told_and_closed(data: bytes, code: int) -> None:
    async def main() -> None:
        link, raw = server_and_raw(max_message_bytes=1000)
        async with aborting(link):
            raw.send(data)
            with pytest.raises(LinkClosed) as ended:
                await link.recv_many()
            assert (ended.value.code, ended.value.end) == (code, LinkEnd.MISUSED)
            answer = await receive(raw)
            assert answer[0] == 0x80 | CLOSE
            assert struct.unpack("!H", answer[2:4]) == (code,)
            raw.close()

    run(main)


def test_messages_before_the_broken_rule_are_delivered_first() -> None:
    async def main() -> None:
        link, raw = server_and_raw()
        async with aborting(link):
            raw.send(frame(BINARY, b"good") + frame(TEXT, b"bad"))
            assert await link.recv_many() == [b"good"]
            with pytest.raises(LinkClosed):
                await link.recv_many()
            raw.close()

    run(main)


@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "one byte"])
def test_message_in_endless_fragments_is_refused(payload: bytes) -> None:
    async def main() -> None:
        link, raw = server_and_raw()
        async with aborting(link):
            raw.send(frame(BINARY, payload, fin=False))
            for _ in range(FRAGMENTS_PER_MESSAGE):
                raw.send(frame(CONT, payload, fin=False))
            with pytest.raises(LinkClosed) as ended:
                await link.recv_many()
            assert ended.value.code == 1009
            raw.close()

    run(main)


def test_message_in_as_many_fragments_as_allowed() -> None:
    async def main() -> None:
        link, raw = server_and_raw()
        async with aborting(link):
            raw.send(frame(BINARY, b"x", fin=False))
            for _ in range(FRAGMENTS_PER_MESSAGE - 2):
                raw.send(frame(CONT, b"x", fin=False))
            raw.send(frame(CONT, b"x"))
            assert await link.recv() == b"x" * FRAGMENTS_PER_MESSAGE
            raw.close()

    run(main)


def test_ping_is_answered_and_a_flood_of_them_is_not() -> None:
    async def main() -> None:
        link, raw = server_and_raw()
        async with aborting(link), trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(LinkClosed) as ended:
                    await link.recv_many()
                assert ended.value.code == 1008

            nursery.start_soon(read)
            raw.send(frame(PING, b"are you there"))
            assert await receive(raw) == bytes((0x80 | PONG, 13)) + b"are you there"
            raw.send(frame(PING, b"") * CONTROL_FRAMES_PER_SECOND * 2)
            answer = await receive(raw)
            assert answer.endswith(b"too many control frames")
            raw.close()

    run(main)


def test_close_message_is_echoed_and_told() -> None:
    async def main() -> None:
        link, raw = server_and_raw()
        async with aborting(link):
            raw.send(frame(BINARY, b"last") + frame(CLOSE, close_payload(1001, "off")))
            assert await link.recv_many() == [b"last"]
            with pytest.raises(LinkClosed) as ended:
                await link.recv_many()
            assert (ended.value.code, ended.value.reason, ended.value.end) == (1001, "off", LinkEnd.PEER)
            assert await receive(raw) == bytes((0x80 | CLOSE, 5)) + close_payload(1001, "off")
            raw.close()

    run(main)


def test_end_of_stream_and_reset_are_breaks() -> None:
    async def main() -> None:
        for hard in (False, True):
            listener = socket.create_server(("127.0.0.1", 0))
            raw = socket.create_connection(listener.getsockname())
            sock, _ = listener.accept()
            sock.setblocking(False)
            async with SocketLink(sock, is_client=False, subprotocol="test") as link:
                if hard:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raw.close()
                with pytest.raises(LinkClosed) as ended:
                    await link.recv_many()
                assert (ended.value.code, ended.value.end) == (1006, LinkEnd.BROKEN)
            listener.close()

    run(main)


def test_closing_says_goodbye_behind_what_was_sent() -> None:
    async def main() -> None:
        server, client = link_pair()
        async with aborting(client):
            server.send(b"x" * 2_000_000)  # more than a socket takes at once
            assert server.buffered_bytes > 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.aclose, 1012, "restart")
                assert len(await client.recv()) == 2_000_000
                with pytest.raises(LinkClosed) as ended:
                    await client.recv()
                assert (ended.value.code, ended.value.reason) == (1012, "restart")
                client.abort()
            assert server.buffered_bytes == 0

    run(main)


def test_close_wakes_the_receiver_and_later_sends_do_nothing() -> None:
    async def main() -> None:
        server, client = link_pair()
        async with aborting(server, client), trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(LinkClosed) as ended:
                    await server.recv_many()
                assert ended.value.end is LinkEnd.LOCAL

            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            server.close(1000, "enough")
            server.send(b"lost")
            with pytest.raises(LinkClosed):
                await client.recv()

    run(main)


# ---- back-pressure


def test_unread_link_buffers_to_its_bound_and_is_cut_off() -> None:
    async def main() -> None:
        server, raw = server_and_raw(hard_bytes=1_000_000)
        for _ in range(100):
            server.send(b"x" * 100_000)
        assert server.buffered_bytes == 0
        assert server.closed is not None
        assert server.closed.end is LinkEnd.SILENT
        raw.close()

    run(main)


def test_wait_drained_waits_for_the_level() -> None:
    async def main() -> None:
        server, client = link_pair()
        async with aborting(server, client):
            server.send(b"x" * 2_000_000)
            before = server.buffered_bytes
            assert before > 1_000_000
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.recv)
                await server.wait_drained(1_000_000)
                assert server.buffered_bytes <= 1_000_000
            await server.wait_drained()
            assert server.buffered_bytes == 0

    run(main)


def test_wait_drained_ends_with_the_link() -> None:
    async def main() -> None:
        server, raw = server_and_raw()
        async with aborting(server), trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(LinkClosed):
                    await server.wait_drained()

            server.send(b"x" * 2_000_000)
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            raw.close()

    run(main)


# ---- cancellation


def test_receiving_cancelled_at_any_step_loses_nothing() -> None:
    async def main() -> None:
        for step in range(1, 6):
            server, client = link_pair()
            async with aborting(server, client):
                got: list[bytes] = []

                async def read(server: SocketLink = server, got: list[bytes] = got) -> None:
                    got.extend(await server.recv_many())

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancelled_at, step, read)
                    await wait_all_tasks_blocked()
                    client.send(b"one")
                client.send(b"two")
                while len(got) < 2:
                    got.extend(await server.recv_many())
                assert got == [b"one", b"two"]

    run(main)


def test_sending_has_no_checkpoint_and_draining_cancelled_at_any_step_tears_nothing() -> None:
    async def main() -> None:
        for step in range(1, 8):
            server, client = link_pair()
            async with aborting(server, client):
                async with trio.open_nursery() as nursery:
                    server.send(b"a" * 2_000_000)
                    nursery.start_soon(cancelled_at, step, server.wait_drained)
                    await wait_all_tasks_blocked()
                    server.send(b"b" * 10)
                    assert len(await client.recv()) == 2_000_000
                assert await client.recv() == b"b" * 10

    run(main)


def test_closing_cancelled_at_any_step_frees_the_socket() -> None:
    async def main() -> None:
        caught = []
        for step in range(1, 30):
            server, raw = server_and_raw()
            server.send(b"a" * 2_000_000)
            async with trio.open_nursery() as nursery:

                async def read_and_close(raw: socket.socket = raw) -> None:
                    await receive_all(raw)
                    raw.close()

                nursery.start_soon(read_and_close)
                caught.append(await cancelled_at(step, server.aclose))
            assert server.buffered_bytes == 0
            with pytest.raises(LinkClosed):
                await server.recv_many()
        assert caught[0]
        assert not caught[-1]

    run(main)


def test_end_of_the_run_frees_links_that_still_flush() -> None:
    sockets: list[socket.socket] = []

    async def main() -> None:
        server, raw = server_and_raw()
        sockets.append(raw)
        server.send(b"a" * 2_000_000)
        await wait_all_tasks_blocked()

    run(main)
    sockets[0].setblocking(True)
    data = b""
    while more := sockets[0].recv(1 << 20):
        data += more
    assert data[:2] == b"\x82\x7f"
    assert len(data) < 2_000_000
    sockets[0].close()
