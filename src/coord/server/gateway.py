"""The gateway: listening sockets, the door, and one isolated task per connection."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import trio
from attrs import define, field

from coord import __version__, errors
from coord.config import Url
from coord.limits import (
    CLOSE_TIMEOUT_S,
    CONNECTIONS_MAX,
    FRAME_BYTES_MAX,
    HANDSHAKES_PENDING_MAX,
    MAX_REQUEST_BYTES_DEFAULT,
)
from coord.node.ports import NodePort
from coord.observe.log import Log
from coord.observe.metrics import Metrics
from coord.protocol.ops import SUBPROTOCOL
from coord.protocol.server_protocol import FrameHeads, goodbye, hello
from coord.server.connection import Connection
from coord.server.http import Pages
from coord.server.listening import Listeners
from coord.transport.http import Door
from coord.transport.link import CLOSE_INTERNAL, CLOSE_RESTART, CLOSE_TRY_LATER, Link, LinkEnd
from coord.transport.listener import peer_name

GOODBYE_S: Final = 0.2
"""How long clients have, after they were told that the node stops, to go elsewhere."""

_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@define(eq=False)
class Gateway:
    """Serves clients: `listen`, then `serve` until `stop_accepting` and `close`.

    `hosts` are the names, besides the URLs', that clients may call this node by; `origins` the web origins
    that may connect.
    """

    node: NodePort
    log: Log
    metrics: Metrics
    hosts: Iterable[str] = ()
    origins: Iterable[str] = ()
    _heads: FrameHeads = field(init=False)
    _listeners: Listeners = field(factory=Listeners)
    _connections: dict[Connection, None] = field(factory=dict)
    _pending: int = 0
    _links: int = 0
    _accepting: trio.CancelScope = field(factory=trio.CancelScope)
    _closing: bool = False
    _link_gone: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    def __attrs_post_init__(self) -> None:
        self._heads = FrameHeads(self.node.member_id)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def listen(self, urls: Sequence[Url]) -> list[Url]:
        """Bind every URL; return them with the ports that were chosen. Raises `ConfigError`."""
        return self._listeners.bind(urls)

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take and serve connections, until cancelled, or all are gone after `stop_accepting`."""
        door = self._door()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._accept, nursery, door)
                for url in self._listeners.urls:
                    self.log("client.listener.opened", url=str(url))
                task_status.started()
        finally:
            self._listeners.close()

    async def serve_link(self, link: Link) -> None:
        """Serve one client until its link ends, and close that."""
        self._links += 1
        try:
            async with link:
                await self._isolate(link)
        finally:
            self._links -= 1
            self._link_gone.unpark_all()

    def stop_accepting(self) -> None:
        """Take no new connections; those that are there go on."""
        self._accepting.cancel()

    def announce(self, reason: str) -> None:
        """Tell every client that this node is about to stop, so that it goes elsewhere."""
        message = goodbye(reason)
        for connection in self._connections:
            connection.link.send(message)

    async def leave(self, reason: str, stop: Callable[[], Awaitable[None]]) -> None:
        """Send every client elsewhere, `stop` the node, and close every connection behind its last answer."""
        self.stop_accepting()
        self.announce(reason)
        told = trio.current_time()
        await stop()
        if self._connections:
            # What a client sends before it has read the goodbye is still answered, by a clear refusal: cut off
            # unread, its outcome would be unknown.
            await trio.sleep_until(told + GOODBYE_S)
        await self.close(reason)

    async def close(self, reason: str) -> None:
        """Close every connection, behind what was sent on it, and wait shortly until all are gone."""
        self._closing = True
        self.stop_accepting()
        for connection in tuple(self._connections):
            connection.flush()
            connection.link.close(CLOSE_RESTART, reason)
        with trio.move_on_after(2 * CLOSE_TIMEOUT_S):
            while self._links:
                await self._link_gone.park()

    # ---- inside

    def _door(self) -> Door:
        pages = Pages(self.node, self.metrics, self.log)
        urls = [url.host for url in self._listeners.urls]
        return Door(
            subprotocol=SUBPROTOCOL,
            answer=pages.answer,
            hosts=(*urls, *self.hosts),
            origins=frozenset(self.origins),
            max_message_bytes=FRAME_BYTES_MAX + max(0, self.node.max_request_bytes - MAX_REQUEST_BYTES_DEFAULT),
            on_refused=self._on_refused,
            on_answered=self._on_answered,
        )

    async def _accept(self, nursery: trio.Nursery, door: Door) -> None:
        def take(sock: socket.socket) -> None:
            if self._pending >= HANDSHAKES_PENDING_MAX or self._pending + len(self._connections) >= CONNECTIONS_MAX:
                self._turn_away(sock)
            else:
                self._pending += 1
                nursery.start_soon(self._meet, sock, door)

        with self._accepting:
            async with trio.open_nursery() as listening:
                self._listeners.accept(listening, take, self._on_pause)
        self._listeners.close()

    def _on_pause(self, url: Url, why: str, pause_s: float) -> None:
        self.log("client.listener.paused", url=str(url), error=why, ms=pause_s * 1000)

    def _turn_away(self, sock: socket.socket) -> None:
        self._on_refused(peer_name(sock), 503, "too many connections")
        try:
            sock.send(_FULL)
        except OSError:
            pass
        finally:
            sock.close()

    async def _meet(self, sock: socket.socket, door: Door) -> None:
        peer = peer_name(sock)
        try:
            link = await door.admit(sock)
        except Exception as error:
            self.log("client.connection.failed", peer=peer, error=repr(error))
            return
        finally:
            self._pending -= 1
        if link is not None:
            await self.serve_link(link)

    async def _isolate(self, link: Link) -> None:
        """Serve one connection; whatever happens to it happens to it alone (law 7)."""
        try:
            await self._converse(link)
        except Exception as error:
            self.log("client.connection.failed", peer=link.peer, error=repr(error))
            link.close(CLOSE_INTERNAL, "a mistake of this node, see its log")

    async def _converse(self, link: Link) -> None:
        node, metrics = self.node, self.metrics
        if self._closing:
            link.close(CLOSE_TRY_LATER, errors.server_stopped().text)
            return
        link.send(
            hello(
                node.cluster_id,
                node.member_id,
                node.name,
                __version__,
                node.max_request_bytes,
                node.max_txn_ops,
            )
        )
        connection = Connection(link, node, self._heads, self.log, metrics)
        self._connections[connection] = None
        metrics.client_connections_total += 1
        metrics.client_connections = len(self._connections)
        self.log("client.connection.opened", peer=link.peer, connections=len(self._connections))
        try:
            end = await connection.serve()
            if end.end in (LinkEnd.SILENT, LinkEnd.MISUSED):
                self.log("client.connection.dropped", peer=link.peer, reason=str(end))
        finally:
            del self._connections[connection]
            metrics.client_connections = len(self._connections)
            reason = "" if link.closed is None else str(link.closed)
            self.log("client.connection.closed", peer=link.peer, connections=len(self._connections), reason=reason)

    def _on_refused(self, peer: str, status: int, reason: str) -> None:
        self.metrics.client_refused_total += 1
        self.log("client.connection.refused", peer=peer, status=status, reason=reason)

    def _on_answered(self, peer: str, path: str, status: int) -> None:
        self.log("http.request.served", peer=peer, path=path, status=status)
