"""Fake nodes behind real sockets, in threads, for the blocking client."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from .fake_node import FakeNode, Session


class Listener:
    """A fake node on a port of its own; `stop` kills it, `start` brings it back on the same port."""

    def __init__(self, node: FakeNode, subprotocol: str = "coord.v1") -> None:
        self.node = node
        self.lock = threading.RLock()
        self.port = 0
        self.subprotocol = subprotocol
        self.connections: list[ServerConnection] = []

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.server = serve(
            self.handle,
            "127.0.0.1",
            self.port,
            subprotocols=[Subprotocol(self.subprotocol)],
            compression=None,
            ping_interval=None,
            max_size=None,
        )
        self.port = self.server.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self) -> None:
        self.hang_up()
        self.server.shutdown()
        self.hang_up()
        self.thread.join()

    def hang_up(self) -> None:
        """Break all connections, as a killed process does."""
        for connection in self.connections:
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def handle(self, connection: ServerConnection) -> None:
        self.connections.append(connection)

        def send(data: bytes) -> None:
            try:
                connection.send(data)
            except (ConnectionClosed, OSError):
                return

        session = Session(self.node, send, connection.close)
        try:
            with self.lock:
                session.open()
            for message in connection:
                with self.lock:
                    session.receive(message)  # type: ignore[arg-type]
        except (ConnectionClosed, OSError):
            return
        finally:
            session.close()

    def put(self, key: bytes, value: bytes) -> Any:
        with self.lock:
            return self.node.put(key, value)


@contextmanager
def listening(*nodes: FakeNode) -> Iterator[list[Listener]]:
    """Serve each node until the end of the block."""
    listeners = [Listener(node) for node in nodes]
    started: list[Listener] = []
    try:
        for listener in listeners:
            listener.start()
            started.append(listener)
        yield listeners
    finally:
        for listener in started:
            listener.stop()
