"""The gateway on real sockets: isolation, bounds, hostile clients, and an orderly end."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio_websocket

from coord.codec import decode, encode
from coord.config import Url
from coord.errors import ConfigError, no_leader
from coord.limits import SEND_BUFFER_HIGH_BYTES
from coord.observe.log import RecordingLog
from coord.observe.metrics import Metrics
from coord.protocol.ops import Method
from coord.server import gateway as gateway_module
from coord.server.gateway import Gateway
from coord.transport.link import Link, LinkClosed, LinkFailed
from coord.transport.websocket import open_link

from .fake_node import FakeNode, get, put


class Served:
    """A gateway that serves on a port, with the node behind it."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.log = RecordingLog()
        self.metrics = Metrics()
        self.gateway = Gateway(self.node, self.log, self.metrics)
        [self.url] = self.gateway.listen([Url("127.0.0.1", 0)])

    async def connect(self) -> Link:
        return await open_link(self.url.host, self.url.port, subprotocol="coord.v1")

    async def raw(self, data: bytes = b"") -> trio.SocketStream:
        stream = await trio.open_tcp_stream(self.url.host, self.url.port)
        await stream.send_all(data)
        return stream


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    made = Served()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(made.gateway.serve)
            yield made
            nursery.cancel_scope.cancel()


async def works(link: Link, value: bytes = b"v") -> None:
    link.send(put(b"k", value))
    assert decode(await link.recv())[5][0][2] is None
    link.send(get(b"k"))
    assert decode(await link.recv())[5][0][2][0][0][5] == value


def test_serves_with_hello_first() -> None:
    async def main() -> None:
        async with served() as made, await made.connect() as link:
            assert decode(await link.recv()) == [0, 1, 0xC0FFEE, 7, "n1", "0.1.0", 1536 * 1024, 128, 1024]
            await works(link)
            assert made.metrics.client_connections == made.gateway.connections == 1
        assert made.log.names[0] == "client.listener.opened"

    trio.run(main)


def test_stock_websocket_client() -> None:
    async def main() -> None:
        async with (
            served() as made,
            trio_websocket.open_websocket(
                made.url.host, made.url.port, "/", use_ssl=False, subprotocols=["coord.v1"]
            ) as client,
        ):
            assert decode(await client.get_message())[0] == 0
            await client.send_message(put(b"k", b"v"))
            assert decode(await client.get_message())[5] == [[1, 2, None]]

    trio.run(main)


def test_mistake_ends_its_own_connection_only() -> None:
    async def main() -> None:
        async with served() as made, await made.connect() as bystander, await made.connect() as victim:
            await bystander.recv()
            await victim.recv()
            victim.send(encode([1, [[1, 43, 0, []]]]))
            with pytest.raises(LinkClosed) as ended:
                await victim.recv()
            assert ended.value.code == 1011
            await works(bystander)
            [failed] = made.log.of("client.connection.failed")
            assert "a mistake in the node" in failed["error"]

    trio.run(main)


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x81\x85\0\0\0\0hello",
        b"\x82\x05hello",
        b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
        b"\x02\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 100,
        b"\x89\x80\0\0\0\0" * 1000,
        b"\xff" * 500,
    ],
    ids=["text", "unmasked", "oversized", "fragments", "ping flood", "rubbish"],
)
def test_hostile_client_is_closed_and_the_others_are_served(hostile: bytes) -> None:
    handshake = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: coord.v1\r\n\r\n"
    )

    async def main() -> None:
        async with served() as made, await made.connect() as bystander:
            await bystander.recv()
            async with await made.raw(handshake + hostile) as stream:
                data = b""
                try:
                    while more := await stream.receive_some():
                        data += more
                except trio.BrokenResourceError:
                    pass
                assert data.startswith(b"HTTP/1.1 101")
            await works(bystander)
            assert made.log.of("client.connection.dropped")

    trio.run(main)


def test_client_that_never_reads_costs_bounded_memory_and_nobody_else() -> None:
    async def main() -> None:
        async with served() as made, await made.connect() as bystander:
            await bystander.recv()
            made.node.data[b"big"] = [b"big", 2, 2, 1, 0, b"x" * 500_000]
            async with await made.connect() as deaf:
                await deaf.recv()
                for number in range(200):
                    deaf.send(get(b"big", number + 1))
                for _ in range(50):
                    await works(bystander)
                connection = list(made.gateway._connections)[-1]
                assert connection.link.buffered_bytes > SEND_BUFFER_HIGH_BYTES / 2
                assert connection.link.buffered_bytes < SEND_BUFFER_HIGH_BYTES + 2 * 500_000
                assert made.metrics.client_requests_total["range"] < 150
                deaf.abort()

    trio.run(main)


def test_half_open_handshakes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "HANDSHAKES_PENDING_MAX", 5)

    async def main() -> None:
        async with served() as made:
            slow = [await made.raw(b"GET / HTTP/1.1\r\n") for _ in range(5)]
            await until(lambda: made.gateway._pending == 5)
            async with await made.raw() as stream:
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 503")
            with pytest.raises(LinkFailed) as failed:
                await made.connect()
            assert failed.value.status in (0, 503)
            await slow.pop().aclose()
            await until(lambda: made.gateway._pending == 4)
            async with await made.connect() as link:
                await link.recv()
                await works(link)
            for stream in slow:
                await stream.aclose()

    trio.run(main)


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "CONNECTIONS_MAX", 2)

    async def main() -> None:
        async with served() as made, await made.connect() as first, await made.connect():
            await first.recv()
            async with await made.raw() as stream:
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 503")
            assert made.log.of("client.connection.refused")[0]["status"] == 503
            assert made.metrics.client_refused_total == 1
            await works(first)

    trio.run(main)


def test_node_without_cluster_says_how_it_stands_and_nothing_else() -> None:
    async def main() -> None:
        async with served() as made:
            cluster, made.node.cluster_id = made.node.cluster_id, 0
            why = made.node.failing["linearizable_read"] = no_leader("n1 waits for n2, n3")
            async with await made.connect() as link:
                assert decode(await link.recv())[:4] == [0, 1, 0, made.node.member_id]
                link.send(encode([1, [[1, Method.RANGE, 0, [b"k"]], [2, Method.STATUS, 0, []]]]))
                (get, status) = decode(await link.recv())[5]
                assert get == [1, 0, None, why.to_wire()]
                assert status[3][:2] == ["Unimplemented", "method 41"], "the node was asked"
                put = encode([[0, 1, None, [b"k", b"v"]]])
                link.send(encode([2, 0, 0, [[3, 0]], put]))
                message = decode(await link.recv())
                assert message[1] == 0
                assert message[5] == [[3, 0, None, why.to_wire()]]
                assert not made.node.data
                made.node.cluster_id = cluster
                await works(link)

    trio.run(main)


def test_orderly_end() -> None:
    async def main() -> None:
        made = Served()
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                await nursery.start(made.gateway.serve)
                link = await made.connect()
                await link.recv()
                made.gateway.stop_accepting()
                made.gateway.announce("server stopped")
                assert decode(await link.recv()) == [3, "server stopped"]
                await works(link)
                made.node.is_lazy = True
                link.send(put(b"last", b"1", 77))
                await until(lambda: bool(made.node.waiting))
                sink, reply = made.node.waiting[0]
                sink.reply(reply)
                async with trio.open_nursery() as closing:
                    closing.start_soon(made.gateway.close, "server stopped")
                    assert decode(await link.recv())[5][0][0] == 77
                    with pytest.raises(LinkClosed) as ended:
                        await link.recv()
                    assert (ended.value.code, ended.value.reason) == (1012, "server stopped")
                    await link.aclose()
            with pytest.raises(LinkFailed):
                await made.connect()
        assert made.metrics.client_connections == 0

    trio.run(main)


def test_address_that_cannot_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = Url("127.0.0.1", taken.getsockname()[1])
        gateway = Gateway(FakeNode(), RecordingLog(), Metrics())
        with pytest.raises(ConfigError, match=f"cannot listen on {url}: Address already in use"):
            gateway.listen([Url("127.0.0.1", 0), url])
        assert gateway._listeners.urls == []


async def until(condition: object) -> None:
    while not condition():  # type: ignore[operator]
        await trio.lowlevel.checkpoint()
