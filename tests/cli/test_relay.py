"""Relays between local nodes: who dials is known from the hello, and a fault hits only its own directed link."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

import pytest
import trio

from coord.cli.relay import HOST, HelloReader, LinkFault, Relay
from coord.codec import encode
from coord.errors import ProtocolViolation

N1, N2 = "http://127.0.0.1:17380", "http://127.0.0.1:1738"
NAMES = {N1: "n1", N2: "n2"}
HEAD = b"GET / HTTP/1.1\r\nHost: n3\r\nUpgrade: websocket\r\n\r\n"
STEP_TIMEOUT_S = 20.0
DIALLED: list[trio.SocketStream] = []
"""Closed at the end of each scene."""


def hello(url: str) -> bytes:
    return encode([1, 0, [url], "whatever else"])


def frame(payload: bytes) -> bytes:
    mask = b"\x01\x02\x03\x04"
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x82" + size + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


@pytest.mark.parametrize("payload", [b"x", bytes(range(200)) * 3])
def test_the_hello_is_found_however_the_bytes_are_cut(payload: bytes) -> None:
    stream = HEAD + frame(payload)
    for size in (1, 7, len(HEAD), len(HEAD) + 3, len(stream)):
        reader, passed, held, found = HelloReader(), b"", b"", None
        for at in range(0, len(stream), size):
            assert found is None
            passing, held, found = reader.feed(stream[at : at + size])
            passed += passing
        assert (passed, held, found) == (HEAD, frame(payload), payload)


def test_what_is_no_websocket_is_refused() -> None:
    with pytest.raises(ProtocolViolation):
        HelloReader().feed(HEAD + b"\x82\x01x")
    with pytest.raises(ProtocolViolation):
        HelloReader().feed(bytes(300_000) + HEAD)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class Node:
    """Takes links and keeps what each brings, in order of their coming."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: list[trio.SocketStream] = []
        self.received: list[bytearray] = []
        self.changed = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        received = bytearray()
        try:
            async for data in stream:
                if not received:
                    # A relay that only asks whether anybody listens sends nothing.
                    self.streams.append(stream)
                    self.received.append(received)
                received += data
                self.tick()
        except trio.BrokenResourceError:
            received += b"<reset>"
            self.tick()

    def tick(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def wait(self, is_so: Callable[[], bool]) -> None:
        with trio.fail_after(STEP_TIMEOUT_S):
            while not is_so():
                await self.changed.wait()


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Relay, Node]]:
    node = Node(free_port())
    relay = Relay(free_port(), node.port, NAMES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        nursery.start_soon(trio.serve_tcp, node.serve, node.port)
        yield relay, node
        nursery.cancel_scope.cancel()


async def dial(relay: Relay, url: str) -> trio.SocketStream:
    with trio.fail_after(STEP_TIMEOUT_S):
        while True:
            try:
                stream = await trio.open_tcp_stream(HOST, relay.port)
            except OSError:
                await trio.sleep(0.01)
                continue
            DIALLED.append(stream)
            await stream.send_all(HEAD + frame(hello(url)))
            return stream


async def ends(stream: trio.SocketStream) -> bool:
    with trio.move_on_after(STEP_TIMEOUT_S):
        try:
            return await stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True
    return False


def played(scene: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Return the test that plays the scene."""

    async def play() -> None:
        try:
            await scene()
        finally:
            while DIALLED:
                DIALLED.pop().socket.close()

    @wraps(scene)
    def test() -> None:
        trio.run(play)

    return test


@played
async def test_bytes_pass_both_ways() -> None:
    async with relayed() as (relay, node):
        stream = await dial(relay, N1)
        await stream.send_all(b"abc")
        await node.wait(lambda: bool(node.received) and node.received[0].endswith(b"abc"))
        assert node.received[0] == HEAD + frame(hello(N1)) + b"abc"
        await node.streams[0].send_all(b"answer")
        assert await stream.receive_some() == b"answer"


@played
async def test_a_cut_resets_the_links_of_one_dialler_only() -> None:
    async with relayed() as (relay, node):
        first, second = await dial(relay, N1), await dial(relay, N2)
        await node.wait(lambda: len(node.received) == 2)
        await second.send_all(b"x")
        await node.wait(lambda: any(data.endswith(b"x") for data in node.received))
        relay.set_fault("n1", LinkFault(is_cut=True))
        assert await ends(first)
        await second.send_all(b"still here")
        await node.wait(lambda: any(data.endswith(b"still here") for data in node.received))
        assert await ends(await dial(relay, N1)), "nor does a new one come through"
        relay.set_fault("n1", LinkFault())
        healed = await dial(relay, N1)
        await healed.send_all(b"back")
        await node.wait(lambda: any(data.endswith(b"back") for data in node.received))


@played
async def test_a_silent_link_stands_and_brings_everything_later() -> None:
    async with relayed() as (relay, node):
        stream = await dial(relay, N1)
        await node.wait(lambda: bool(node.received) and node.received[0].endswith(frame(hello(N1))))
        relay.set_fault("n1", LinkFault(is_silent=True))
        await stream.send_all(b"late")
        await node.streams[0].send_all(b"answer")
        with trio.move_on_after(0.05):
            assert not await stream.receive_some()
        assert not node.received[0].endswith(b"late")
        relay.set_fault("n1", LinkFault())
        assert await stream.receive_some() == b"answer"
        await node.wait(lambda: node.received[0].endswith(b"late"))


@played
async def test_a_reset_in_the_middle_of_a_frame() -> None:
    async with relayed() as (relay, node):
        stream = await dial(relay, N1)
        await node.wait(lambda: bool(node.received) and node.received[0].endswith(frame(hello(N1))))
        relay.set_fault("n1", LinkFault(bytes_left=3))
        await stream.send_all(b"abcdef")
        assert await ends(stream)
        await node.wait(lambda: b"<reset>" in node.received[0])
        assert b"abcd" not in node.received[0]


@played
async def test_a_delay_holds_up() -> None:
    async with relayed() as (relay, node):
        relay.set_fault("n1", LinkFault(delay_s=0.1))
        started = trio.current_time()
        await dial(relay, N1)
        await node.wait(lambda: bool(node.received) and node.received[0].endswith(frame(hello(N1))))
        assert trio.current_time() - started >= 0.1


@played
async def test_it_listens_only_while_its_node_does() -> None:
    """S10: a peer of a killed node concludes from a refusal, which a relay must not hide."""
    node = Node(free_port())
    relay = Relay(free_port(), node.port, NAMES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        for _ in range(2):
            listeners = await trio.open_tcp_listeners(node.port, host=HOST)
            life = trio.CancelScope()

            async def serve(life: trio.CancelScope, listeners: list[trio.SocketListener]) -> None:
                with life:
                    await trio.serve_listeners(node.serve, listeners)

            nursery.start_soon(serve, life, listeners)
            stream = await dial(relay, N1)
            life.cancel()
            assert await ends(stream)
            with pytest.raises(OSError, match="failed"):
                await trio.open_tcp_stream(HOST, relay.port)
        nursery.cancel_scope.cancel()
