"""Links over socket pairs, frames made by hand, time that only tests move, and cancellation at any checkpoint."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from coord.transport.keeper import TICK_S
from coord.transport.link import Link
from coord.transport.socket_link import SocketLink

MASK = b"\x01\x02\x03\x04"
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def socket_pair() -> tuple[socket.socket, socket.socket]:
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    return left, right


def link_pair(**options: Any) -> tuple[SocketLink, SocketLink]:
    """The server's and the client's end of a link."""
    left, right = socket_pair()
    server = SocketLink(left, is_client=False, subprotocol="test", **options)
    return server, SocketLink(right, is_client=True, subprotocol="test", **options)


def server_and_raw(**options: Any) -> tuple[SocketLink, socket.socket]:
    """A server's end of a link, and the socket that a client of our making drives."""
    left, right = socket_pair()
    return SocketLink(left, is_client=False, subprotocol="test", **options), right


def frame(opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    """A frame as a client sends it, or not quite."""
    first = (0x80 if fin else 0) | rsv | opcode
    mask_bit = 0x80 if masked else 0
    if len(payload) < 126:
        head = bytes((first, mask_bit | len(payload)))
    elif len(payload) < 1 << 16:
        head = bytes((first, mask_bit | 126)) + struct.pack("!H", len(payload))
    else:
        head = bytes((first, mask_bit | 127)) + struct.pack("!Q", len(payload))
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[place % 4] for place, byte in enumerate(payload))


def close_payload(code: int, reason: str = "") -> bytes:
    return struct.pack("!H", code) + reason.encode()


@asynccontextmanager
async def aborting(*links: Link) -> AsyncIterator[None]:
    """Drop `links` at the end: a close in good order waits for the other side, which here is the same task."""
    try:
        yield
    finally:
        for link in links:
            link.abort()


async def receive(raw: socket.socket, count: int = 65536) -> bytes:
    """What has come on a raw socket; `b""` at its end."""
    await trio.lowlevel.wait_readable(raw)
    return raw.recv(count)


async def receive_all(raw: socket.socket) -> bytes:
    data = b""
    while True:
        try:
            more = await receive(raw)
        except ConnectionResetError:
            return data
        if not more:
            return data
        data += more


async def pass_time(clock: MockClock, seconds: float) -> None:
    """Let the keeper see every tick of `seconds`."""
    for _ in range(round(seconds / TICK_S)):
        await wait_all_tasks_blocked()
        clock.jump(TICK_S)
    await wait_all_tasks_blocked()


class _CancelAt(trio.abc.Instrument):
    """Cancels a scope when its task is about to take its n-th step."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, step: int) -> None:
        self.task, self.scope, self.left = task, scope, step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


async def cancelled_at(step: int, operation: Callable[[], Awaitable[object]]) -> bool:
    """Run `operation` in a task of its own, cancelled at its `step`-th step; True if that was before its end."""
    scope = trio.CancelScope()

    async def run(task_status: trio.TaskStatus[trio.lowlevel.Task]) -> None:
        task_status.started(trio.lowlevel.current_task())
        await trio.lowlevel.cancel_shielded_checkpoint()
        with scope:
            await operation()

    async with trio.open_nursery() as nursery:
        task = await nursery.start(run)
        instrument = _CancelAt(task, scope, step)
        trio.lowlevel.add_instrument(instrument)
    trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


def run(function: Callable[[], Awaitable[Any]], clock: trio.abc.Clock | None = None) -> None:
    """Run a test under a deadline of its own on the real clock."""

    async def within() -> None:
        if clock is None:
            with trio.fail_after(30):
                await function()
        else:
            await function()

    trio.run(within, clock=clock)
