"""What a link costs: CPU per frame and frames a second, over loopback TCP, both ends in one process.

    python bench/link.py

`echo` sends one frame and waits for it to come back; `stream` sends in batches that the other side reads as they come.
The last rows are the protocol machines alone, by which the one in use was chosen.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

import trio
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage

from coord.transport.link import Link, LinkClosed
from coord.transport.socket_link import SocketLink

SIZES = (100, 300, 30_000)


def tcp_links() -> tuple[SocketLink, SocketLink]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    for sock in (client, server):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return (
        SocketLink(server, is_client=False, subprotocol="bench"),
        SocketLink(client, is_client=True, subprotocol="bench"),
    )


async def send_back(link: Link) -> None:
    try:
        while True:
            for message in await link.recv_many():
                link.send(message)
    except LinkClosed:
        return


async def take(link: Link, count: int) -> None:
    while count > 0:
        count -= len(await link.recv_many())


async def echo(size: int, count: int) -> None:
    server, client = tcp_links()
    message = os.urandom(size)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_back, server)
        for _ in range(count):
            client.send(message)
            await client.recv_many()
        client.abort()
        await server.aclose()


async def stream(size: int, count: int, batch: int = 20) -> None:
    server, client = tcp_links()
    message = os.urandom(size)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, server, count)
        for _ in range(count // batch):
            for _ in range(batch):
                client.send(message)
            await client.wait_drained(4 * batch * size)
    client.abort()
    server.abort()


def measure(name: str, size: int, count: int, run: Callable[[], object]) -> None:
    began, began_cpu = time.perf_counter(), time.process_time()
    run()
    took, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    print(f"{name:24} {size:6} B {count / took:10.0f} frames/s {cpu / count * 1e6:8.1f} us CPU a frame")


def machines(size: int, count: int) -> None:
    data = os.urandom(size)
    masked = Frame(Opcode.BINARY, data).serialize(mask=True)

    def websockets() -> None:
        machine = Protocol(Side.SERVER)
        for _ in range(count):
            machine.receive_data(masked)
            machine.events_received()
            machine.send_binary(data)
            machine.data_to_send()

    def wsproto() -> None:
        machine = Connection(ConnectionType.SERVER)
        for _ in range(count):
            machine.receive_data(masked)
            list(machine.events())
            machine.send(BytesMessage(data))

    measure("websockets, receive+send", size, count, websockets)
    measure("wsproto, receive+send", size, count, wsproto)


def main() -> None:
    for size in SIZES:
        count = 20_000 if size < 1000 else 5_000
        measure("echo (2 frames each way)", size, 2 * count, lambda: trio.run(echo, size, count))  # noqa: B023
        measure("stream", size, count, lambda: trio.run(stream, size, count))  # noqa: B023
    for size in SIZES:
        machines(size, 1000)


if __name__ == "__main__":
    main()
