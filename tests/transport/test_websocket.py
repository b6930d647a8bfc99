"""Handshakes on real sockets: with each other, and with stock trio-websocket on either side."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio_websocket
from trio.testing import MockClock

from coord.limits import HTTP_HEAD_BYTES_MAX
from coord.transport.http import Door, HttpRequest, HttpResponse
from coord.transport.link import Link, LinkClosed, LinkEnd, LinkFailed
from coord.transport.listener import accept_all, listen
from coord.transport.websocket import open_link

from .helpers import cancelled_at, run

SUBPROTOCOL = "coord.v1"


def answer(request: HttpRequest) -> HttpResponse:
    return HttpResponse(200, b"hello\n")


@asynccontextmanager
async def echo_server(refused: list[tuple[int, str]] | None = None) -> AsyncIterator[int]:
    """A door behind which every link gets its messages back."""

    def on_refused(peer: str, status: int, reason: str) -> None:
        if refused is not None:
            refused.append((status, reason))

    door = Door(SUBPROTOCOL, answer, hosts=[], on_refused=on_refused)
    [listener] = listen("127.0.0.1", 0)

    async def serve(sock: socket.socket) -> None:
        link = await door.admit(sock)
        if link is not None:
            async with link:
                try:
                    while True:
                        for message in await link.recv_many():
                            link.send(message)
                except LinkClosed:
                    pass

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_all, listener, lambda sock: nursery.start_soon(serve, sock), lambda why, s: None)
            yield listener.getsockname()[1]
            nursery.cancel_scope.cancel()
    finally:
        listener.close()


@asynccontextmanager
async def raw_server(
    handler: Callable[[trio.SocketStream], object],
) -> AsyncIterator[int]:
    """A server that does what `handler` does with each stream."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await handler(stream)  # type: ignore[misc]

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def test_both_ends_of_coord() -> None:
    async def main() -> None:
        async with echo_server() as port, await open_link("127.0.0.1", port, subprotocol=SUBPROTOCOL) as link:
            assert link.subprotocol == SUBPROTOCOL
            assert link.peer == f"127.0.0.1:{port}"
            for size in (0, 1, 125, 126, 65_535, 65_536, 1_500_000):
                link.send(b"x" * size)
                assert await link.recv() == b"x" * size

    run(main)


def test_stock_client() -> None:
    async def main() -> None:
        async with (
            echo_server() as port,
            trio_websocket.open_websocket(
                "127.0.0.1", port, "/", use_ssl=False, subprotocols=["other", SUBPROTOCOL]
            ) as client,
        ):
            assert client.subprotocol == SUBPROTOCOL
            for size in (0, 1, 125, 126, 65_535, 65_536, 900_000):
                await client.send_message(b"x" * size)
                assert await client.get_message() == b"x" * size
            with trio.fail_after(2):
                await client.ping(b"are you there")
            await client.aclose(1000, "done")
            assert client.closed is not None
            assert client.closed.code == 1000

    run(main)


def test_stock_client_sees_why_it_was_closed() -> None:
    async def main() -> None:
        async with (
            echo_server() as port,
            await trio.open_tcp_stream("127.0.0.1", port) as stream,  # the library leaves it open in this case
            trio.open_nursery() as nursery,
        ):
            client = await trio_websocket.wrap_client_stream(
                nursery, stream, f"127.0.0.1:{port}", "/", subprotocols=[SUBPROTOCOL]
            )
            await client.send_message("text")
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await client.get_message()
            assert closed.value.reason.code == 1003

    run(main)


def test_stock_server() -> None:
    async def handler(request: trio_websocket.WebSocketRequest) -> None:
        headers = dict(request.headers)
        assert headers[b"x-coord"] == b"yes"
        connection = await request.accept(subprotocol=SUBPROTOCOL)
        try:
            await connection.ping(b"ping")
            while True:
                await connection.send_message(await connection.get_message())
        except trio_websocket.ConnectionClosed as closed:
            reasons.append((closed.reason.code, closed.reason.reason))

    reasons: list[tuple[int, str | None]] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(trio_websocket.serve_websocket, handler, "127.0.0.1", 0, None)
            link = await open_link("127.0.0.1", server.port, subprotocol=SUBPROTOCOL, headers=[(b"X-Coord", b"yes")])
            for size in (0, 1, 125, 126, 65_535, 65_536, 900_000):
                link.send(b"x" * size)
                assert await link.recv() == b"x" * size
            await link.aclose(1001, "elsewhere")
            nursery.cancel_scope.cancel()
        assert reasons == [(1001, "elsewhere")]

    run(main)


def test_frames_that_come_with_the_answer_are_not_lost() -> None:
    async def handler(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept(subprotocol=SUBPROTOCOL)
        for number in range(50):
            await connection.send_message(b"%d" % number)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(trio_websocket.serve_websocket, handler, "127.0.0.1", 0, None)
            link = await open_link("127.0.0.1", server.port, subprotocol=SUBPROTOCOL)
            assert [await link.recv() for _ in range(50)] == [b"%d" % number for number in range(50)]
            with pytest.raises(LinkClosed) as ended:
                await link.recv()
            assert ended.value.end is LinkEnd.PEER
            link.abort()
            nursery.cancel_scope.cancel()

    run(main)


def test_refused_connection_is_told_apart() -> None:
    async def main() -> None:
        [sock] = listen("127.0.0.1", 0)
        port = sock.getsockname()[1]
        sock.close()
        with pytest.raises(LinkFailed, match="refused") as failed:
            await open_link("127.0.0.1", port, subprotocol=SUBPROTOCOL)
        assert failed.value.is_refused
        assert f"127.0.0.1:{port}" in str(failed.value)

    run(main)


@pytest.mark.parametrize(
    ("reply", "part", "status"),
    [
        (b"", "instead of answering", 0),
        (b"garbage\r\n\r\n", "does not speak HTTP", 0),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nnot here\n", "403: not here", 403),
        (b"HTTP/1.1 503 Full\r\n\r\n", "status 503", 503),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "does not speak coord.v1", 101),
        (
            b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
            "does not speak coord.v1",
            101,
        ),
        (b"x" * (HTTP_HEAD_BYTES_MAX + 1), "no HTTP head", 0),
    ],
)
def test_server_that_declines_is_reported(reply: bytes, part: str, status: int) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(reply)

    async def main() -> None:
        async with raw_server(handler) as port:
            with pytest.raises(LinkFailed) as failed:
                await open_link("127.0.0.1", port, subprotocol=SUBPROTOCOL)
            assert part in str(failed.value)
            assert failed.value.status == status
            assert not failed.value.is_refused

    run(main)


def test_silent_server_costs_the_timeout_and_no_more() -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async def main() -> None:
        async with raw_server(handler) as port:
            with pytest.raises(LinkFailed, match="no answer within 3 s"):
                await open_link("127.0.0.1", port, subprotocol=SUBPROTOCOL, timeout=3)

    clock = MockClock(rate=50)
    run(main, clock)


def test_opening_cancelled_at_any_step_leaks_nothing() -> None:
    async def main() -> None:
        opened: list[Link] = []

        async def connect() -> None:
            opened.append(await open_link("127.0.0.1", port, subprotocol=SUBPROTOCOL))

        async with echo_server() as port:
            caught = [await cancelled_at(step, connect) for step in range(1, 25)]
            assert caught[0]
            assert not caught[-1]
            assert len(opened) == caught.count(False)
            for link in opened:
                link.send(b"x")
                assert await link.recv() == b"x"
                link.abort()

    run(main)
