"""Keeping a client connected: an active connection always, and with several endpoints a warm one to stand by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio
from attrs import define

from coord.client.calls import Connection
from coord.client.driver import Driver
from coord.client.endpoints import STAGGER_S, Endpoint
from coord.client.failing import other_cluster
from coord.errors import ProtocolViolation
from coord.limits import HANDSHAKE_TIMEOUT_S, SERVER_MESSAGE_BYTES_MAX
from coord.protocol import client_protocol as protocol
from coord.protocol.ops import SUBPROTOCOL
from coord.transport.link import CLOSE_TRY_LATER, Link, LinkClosed, LinkFailed
from coord.transport.websocket import open_link

Dial = Callable[[Endpoint, float], Awaitable[Link]]
"""Opens a link to an endpoint within so many seconds. Raises `LinkFailed`."""

STANDBY_DIAL_TIMEOUT_S: Final = 1.0
"""One endpoint that swallows packets must not hold up the others for long, where there are several."""
STANDBY_RETRY_S: Final = 2.0


async def dial_websocket(endpoint: Endpoint, timeout: float) -> Link:
    """Open a WebSocket to a node. Raises `LinkFailed`."""
    if endpoint.is_tls:
        raise LinkFailed("TLS is not part of this release: use http://, ws:// or a bare host:port")
    return await open_link(
        endpoint.host,
        endpoint.port,
        subprotocol=SUBPROTOCOL,
        timeout=timeout,
        max_message_bytes=SERVER_MESSAGE_BYTES_MAX,
    )


@define(eq=False)
class Keeping:
    """Opens connections for a driver, as long as its tasks run."""

    driver: Driver
    nursery: trio.Nursery
    name: str
    dial: Dial
    connected: trio.Event
    """Set at the first connection."""

    def start(self) -> None:
        """Start all tasks of the client."""
        self.nursery.start_soon(self.driver.pump)
        self.nursery.start_soon(self.driver.time)
        self.nursery.start_soon(self._keep_active)
        if len(self.driver.core.rotation.endpoints) > 1:
            self.nursery.start_soon(self._keep_standby)

    async def _keep_active(self) -> None:
        core = self.driver.core
        while True:
            active = core.active
            if active is not None and not active.is_leaving:
                await self.driver.changed.park()
                continue
            await self._race(active)

    async def _race(self, leaving: Connection | None) -> None:
        """Open a connection to whichever endpoint says hello first: one that is silent holds up nobody."""
        core, rotation = self.driver.core, self.driver.core.rotation
        dialling: set[Endpoint] = set()
        news = trio.Event()
        async with trio.open_nursery() as nursery:

            async def attempt(endpoint: Endpoint) -> None:
                if await self._open(endpoint, HANDSHAKE_TIMEOUT_S, is_standby=False):
                    nursery.cancel_scope.cancel()
                dialling.discard(endpoint)
                news.set()

            # The standby's task may be the first to find a connection that can take over.
            while core.active is leaving:
                await trio.sleep(rotation.pause_s())
                avoid = dialling if leaving is None else {*dialling, leaving.endpoint}
                endpoint = rotation.next_endpoint(avoid)
                if endpoint not in dialling:
                    dialling.add(endpoint)
                    nursery.start_soon(attempt, endpoint)
                news = trio.Event()
                with trio.move_on_after(STAGGER_S):
                    await news.wait()
            nursery.cancel_scope.cancel()

    async def _keep_standby(self) -> None:
        driver = self.driver
        core = driver.core
        while True:
            if core.active is None:
                await driver.changed.park()
                continue
            standby = driver.standby
            leading = core.rotation.may_lead() if driver.seeks_leader else None
            if standby is not None and not standby.is_unfit and leading is None:
                await driver.changed.park()
                continue
            used = {core.active.endpoint} if standby is None else {core.active.endpoint, standby.endpoint}
            endpoint = leading or core.rotation.next_endpoint(used)
            is_used = endpoint not in used and await self._open(endpoint, STANDBY_DIAL_TIMEOUT_S, is_standby=True)
            if not is_used or (standby is not None and driver.seeks_leader):
                await trio.sleep(STANDBY_RETRY_S * core.rotation.random.uniform(0.5, 1.5))

    async def _open(self, endpoint: Endpoint, timeout: float, *, is_standby: bool) -> bool:
        rotation = self.driver.core.rotation
        rotation.begun(endpoint)
        try:
            link = await self.dial(endpoint, timeout)
        except LinkFailed as error:
            rotation.failed(endpoint, str(error).removeprefix(f"{endpoint}: "), is_standby=is_standby)
            return False
        is_kept = False
        try:
            is_kept = await self._greet(Connection(endpoint), link, timeout)
        except (LinkClosed, ProtocolViolation) as error:
            rotation.failed(endpoint, str(error), is_standby=is_standby)
            if isinstance(error, LinkClosed) and error.code == CLOSE_TRY_LATER:
                rotation.turned_away(endpoint, error.reason)
        finally:
            if not is_kept:
                link.abort()
        return is_kept

    async def _greet(self, connection: Connection, link: Link, timeout: float) -> bool:
        """Exchange hellos; return whether the connection is used. Raises `LinkClosed`, `ProtocolViolation`."""
        core = self.driver.core
        link.send(protocol.hello(self.name, core.cluster_id))
        messages: list[bytes] = []
        with trio.move_on_after(timeout):
            messages = await link.recv_many()
        if not messages:
            raise ProtocolViolation(f"no hello within {timeout:g} s")
        hello = protocol.decode_message(messages[0])
        if not isinstance(hello, protocol.ServerHello):
            raise ProtocolViolation("the first message is no hello")
        if core.cluster_id and hello.cluster_id != core.cluster_id:
            raise ProtocolViolation(other_cluster(core.cluster_id, hello.cluster_id))
        core.cluster_id = hello.cluster_id  # 0 while the node has no cluster yet
        connection.member_id = hello.member_id
        core.rotation.reached(connection.endpoint, hello.member_id)
        line = self.driver.opened(connection, link)
        self.nursery.start_soon(self.driver.read, line, messages[1:])
        if self.driver.place(connection):
            self.connected.set()
        else:
            link.close()
        return True
