"""The members' port: sockets for the links between members, those that come in and those that go out."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import trio
from attrs import define, field, frozen

from coord import __version__
from coord.config import Url
from coord.config.addresses import parse_url
from coord.limits import (
    PEER_DIAL_TIMEOUT_S,
    PEER_FRAME_BYTES_MAX,
    PEER_LINKS_MAX,
    PEER_PING_GIVE_UP_S,
    PEER_PING_IDLE_S,
)
from coord.observe.log import Log
from coord.protocol.ops import PEER_SUBPROTOCOL
from coord.server.listening import Listeners
from coord.transport.http import Door, HttpRequest, HttpResponse
from coord.transport.link import Link, LinkFailed, Patience
from coord.transport.listener import peer_name
from coord.transport.websocket import open_link

PEER_PATIENCE: Final = Patience(PEER_PING_IDLE_S, PEER_PING_GIVE_UP_S)
_HINT: Final = "this is the port for members of the cluster, clients are served at --advertise-client-urls"


class Acceptor(Protocol):
    """Who serves links that members dial: `Peers`."""

    async def accept(self, link: Link) -> None:
        """Serve one link to its end."""


@frozen
class SocketNetwork:
    """Dials members over sockets."""

    async def dial(self, url: str) -> Link:
        """Return a link to the member that listens at `url`. Raises `LinkFailed`."""
        try:
            where = parse_url(url)
        except ValueError as error:
            raise LinkFailed(f"{url} is no URL of a member: {error}") from None
        return await open_link(
            where.host,
            where.port,
            subprotocol=PEER_SUBPROTOCOL,
            timeout=PEER_DIAL_TIMEOUT_S,
            max_message_bytes=PEER_FRAME_BYTES_MAX,
            patience=PEER_PATIENCE,
        )


@define(eq=False)
class PeerGateway:
    """Listens for members: `listen`, then `serve` until cancelled.

    `hosts` are the names, besides those of the URLs, by which members call this node.
    """

    acceptor: Acceptor
    log: Log
    hosts: Iterable[str] = ()
    _listeners: Listeners = field(factory=Listeners)
    _links: int = 0

    def listen(self, urls: Sequence[Url]) -> list[Url]:
        """Bind every URL; return them with the ports that were chosen. Raises `ConfigError`."""
        return self._listeners.bind(urls)

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take and serve links, until cancelled. Only errors that end the process get out."""
        door = Door(
            subprotocol=PEER_SUBPROTOCOL,
            answer=_answer,
            hosts=(*(url.host for url in self._listeners.urls), *self.hosts),
            hint=_HINT,
            max_message_bytes=PEER_FRAME_BYTES_MAX,
            patience=PEER_PATIENCE,
            on_refused=self._on_refused,
            on_answered=self._on_answered,
        )
        try:
            async with trio.open_nursery() as nursery:

                def take(sock: socket.socket) -> None:
                    if self._links >= PEER_LINKS_MAX:
                        self._on_refused(peer_name(sock), 503, "too many connections")
                        sock.close()
                    else:
                        self._links += 1
                        nursery.start_soon(self._meet, sock, door)

                self._listeners.accept(nursery, take, self._on_pause)
                for url in self._listeners.urls:
                    self.log("peer.listener.opened", url=str(url))
                task_status.started()
        finally:
            self._listeners.close()

    async def _meet(self, sock: socket.socket, door: Door) -> None:
        peer = peer_name(sock)
        try:
            try:
                link = await door.admit(sock)
            except Exception as error:
                self._on_refused(peer, 500, repr(error))
                return
            if link is not None:
                await self.acceptor.accept(link)
        finally:
            self._links -= 1

    def _on_refused(self, peer: str, status: int, reason: str) -> None:
        self.log("peer.connection.refused", peer=peer, status=status, reason=reason)

    def _on_answered(self, peer: str, path: str, status: int) -> None:
        self.log("http.request.served", peer=peer, path=path, status=status)

    def _on_pause(self, url: Url, why: str, pause_s: float) -> None:
        self.log("peer.listener.paused", url=str(url), error=why, ms=pause_s * 1000)


def _answer(request: HttpRequest) -> HttpResponse:
    """Answer what is no WebSocket handshake."""
    if request.method not in ("GET", "HEAD"):
        return HttpResponse(405, b"only GET is served here\n", headers=(("Allow", "GET, HEAD"),))
    if request.path != "/version":
        return HttpResponse(404, f"{_HINT}; here are /version, and WebSocket links at /\n".encode())
    version = {"coordserver": __version__, "coordcluster": __version__}
    return HttpResponse(200, json.dumps(version).encode() + b"\n", "application/json")
