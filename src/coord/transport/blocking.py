"""A WebSocket link for programs without an event loop: blocking calls with timeouts. Does not load Trio."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Final, Protocol, Self

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from coord.limits import FRAGMENTS_PER_MESSAGE, FRAME_BYTES_MAX, PING_GIVE_UP_S, PING_IDLE_S
from coord.transport.link import (
    CLOSE_ABNORMAL,
    CLOSE_NORMAL,
    CLOSE_PROTOCOL_ERROR,
    CLOSE_TOO_BIG,
    CLOSE_UNSUPPORTED,
    LinkClosed,
    LinkEnd,
    LinkFailed,
)

_RECEIVE_BYTES: Final = 256 * 1024
_CLOSE_S: Final = 0.1
_AT_ONCE: Final = 0.0
"""A deadline that has passed: take what is here, wait for nothing."""


class Awaited(Protocol):
    """What waits for its socket."""

    @property
    def is_sending(self) -> bool:
        """It waits until it may send; else until there is something to receive."""

    def fileno(self) -> int:
        """The socket's number."""


def wait_any(waiting: Iterable[Awaited], timeout: float) -> None:
    """Wait until one of them may go on, for at most `timeout` seconds."""
    with selectors.DefaultSelector() as selector:
        for one in waiting:
            selector.register(one, selectors.EVENT_WRITE if one.is_sending else selectors.EVENT_READ)
        selector.select(max(timeout, 0.0))


class BlockingDial:
    """A link that is being opened, a step at a time: `advance` whenever `wait_any` says so.

    Each of the host's addresses is tried, the next when one is refused. Raises `LinkFailed` if the host has none.
    """

    def __init__(self, host: str, port: int, *, subprotocol: str, max_message_bytes: int = FRAME_BYTES_MAX) -> None:
        self.where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._uri = WebSocketURI(False, host, port, "/", "")
        self._subprotocol = subprotocol
        self._max_message_bytes = max_message_bytes
        self.is_sending = True
        self._socket: socket.socket | None = None
        self._link: BlockingLink | None = None
        try:
            self._addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise self._failed(error) from error
        self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up, unless `advance` has returned the link."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def fileno(self) -> int:
        """The socket's number."""
        assert self._socket is not None
        return self._socket.fileno()

    def advance(self) -> BlockingLink | None:
        """Go on as far as it goes without waiting; return the link once it stands. Raises `LinkFailed`."""
        assert self._socket is not None
        if self._link is None:
            status = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if status:
                self._refused(OSError(status, os.strerror(status)))
                return None
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            subprotocols = [Subprotocol(self._subprotocol)]
            protocol = ClientProtocol(self._uri, subprotocols=subprotocols, max_size=self._max_message_bytes)
            self._link = BlockingLink(self._socket, protocol)
            self.is_sending = False
            protocol.send_request(protocol.connect())
            self._link._flush(_CLOSE_S)
        if not self._take_answer(self._link):
            return None
        self._socket = None
        return self._link

    def _connect(self) -> None:
        """Begin to connect to the next address."""
        self.close()
        family, kind, number, _, address = self._addresses.pop(0)
        try:
            self._socket = socket.socket(family, kind, number)
            self._socket.setblocking(False)
            self._socket.connect(address)
        except BlockingIOError:
            pass
        except OSError as error:
            self._refused(error)

    def _refused(self, error: OSError) -> None:
        if not self._addresses:
            raise self._failed(error) from error
        self._connect()

    def _failed(self, error: OSError) -> LinkFailed:
        self.close()
        is_refused = error.errno == errno.ECONNREFUSED
        return LinkFailed(f"{self.where}: {error.strerror or error}", is_refused=is_refused)

    def _take_answer(self, link: BlockingLink) -> bool:
        """Read what is there of the node's answer; tell whether the link stands."""
        protocol = link._protocol
        while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
            try:
                events = link._feed(_AT_ONCE)
            except TimeoutError:
                return False
            except LinkClosed as error:
                raise LinkFailed(f"{self.where}: {error.reason}") from error
            for event in events:
                if not isinstance(event, Response):
                    link._take(event)
                elif event.status_code != 101:
                    text = bytes(event.body or b"").decode("utf-8", "replace").strip().partition("\n")[0]
                    why = f"declined with HTTP status {event.status_code}" + (f": {text[:200]}" if text else "")
                    raise LinkFailed(f"{self.where}: {why}", status=event.status_code)
        if protocol.handshake_exc is not None:
            raise LinkFailed(f"{self.where}: does not speak {self._subprotocol} ({protocol.handshake_exc})")
        if protocol.subprotocol != self._subprotocol:
            raise LinkFailed(f"{self.where}: does not speak {self._subprotocol}")
        return True


class BlockingLink:
    """One connection to a node. Not thread-safe.

    Pings are answered while the link is used; a node gives up one that was not used for 10 s.
    """

    is_sending: Final = False
    """Who waits for its socket waits for something to receive."""

    def __init__(self, connection: socket.socket, protocol: ClientProtocol) -> None:
        self._socket = connection
        self._protocol = protocol
        self._messages: list[bytes] = []
        self._parts: list[bytes] = []
        self._heard_at = time.monotonic()
        self._has_pinged = False

    @classmethod
    def open(
        cls,
        host: str,
        port: int,
        *,
        subprotocol: str,
        timeout: float,
        max_message_bytes: int = FRAME_BYTES_MAX,
    ) -> BlockingLink:
        """Connect and shake hands within `timeout` seconds. Raises `LinkFailed` if that is impossible."""
        deadline = time.monotonic() + timeout
        with BlockingDial(host, port, subprotocol=subprotocol, max_message_bytes=max_message_bytes) as dial:
            while True:
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    raise LinkFailed(f"{dial.where}: no answer within {timeout:g} s")
                wait_any([dial], remaining_s)
                if (link := dial.advance()) is not None:
                    return link

    def fileno(self) -> int:
        """The socket's number, for `wait_any`."""
        return self._socket.fileno()

    def send(self, message: bytes, timeout: float) -> None:
        """Send one message. Raises `LinkClosed`, or `TimeoutError` after which the link is of no use."""
        self._raise_if_closed()
        self._protocol.send_binary(message)
        self._flush(timeout)

    def receive(self, timeout: float) -> bytes:
        """Return the next message; an idle link is pinged, and given up if that brings nothing.

        Raises `TimeoutError` or `LinkClosed`.
        """
        deadline = time.monotonic() + timeout
        while not self._messages:
            self._raise_if_closed()
            look_at = self._heard_at + (PING_GIVE_UP_S if self._has_pinged else PING_IDLE_S)
            try:
                self._read(min(deadline, look_at))
            except TimeoutError:
                if look_at >= deadline:
                    raise
                if self._has_pinged:
                    raise LinkClosed(CLOSE_ABNORMAL, "pings are not answered", LinkEnd.SILENT) from None
                self._has_pinged = True
                self._protocol.send_ping(b"")
                self._flush(PING_GIVE_UP_S - PING_IDLE_S)
        return self._messages.pop(0)

    def is_open(self) -> bool:
        """Tell whether the link stands, as far as what has arrived tells; answers pings on the way."""
        try:
            while True:
                self._raise_if_closed()
                self._read(_AT_ONCE)
        except TimeoutError:
            return True
        except (OSError, LinkClosed):
            return False

    def abandon(self) -> None:
        """Free the socket and say nothing: another process goes on using it."""
        self._socket.close()

    def hang_up(self) -> None:
        """Break the link, so that a thread that waits for it goes on; it still has to close it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Say goodbye, without waiting for an answer, and free the socket."""
        try:
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(CLOSE_NORMAL)
                self._flush(_CLOSE_S)
        except (OSError, LinkClosed):
            pass
        finally:
            self._socket.close()

    def _read(self, deadline: float) -> None:
        for event in self._feed(deadline):
            self._take(event)

    def _feed(self, deadline: float) -> list[object]:
        self._socket.settimeout(max(deadline - time.monotonic(), 0.0))
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            raise TimeoutError("timed out") from None
        except ConnectionError as error:
            raise LinkClosed(CLOSE_ABNORMAL, error.strerror or str(error), LinkEnd.BROKEN) from error
        if data:
            self._heard_at = time.monotonic()
            self._has_pinged = False
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        events: list[object] = [*self._protocol.events_received()]
        self._flush(max(deadline - time.monotonic(), _CLOSE_S))
        return events

    def _take(self, event: object) -> None:
        if not isinstance(event, Frame) or event.opcode not in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
            return
        if event.opcode is Opcode.TEXT:
            self._protocol.fail(CLOSE_UNSUPPORTED, "only binary messages")
        elif len(self._parts) >= FRAGMENTS_PER_MESSAGE:
            self._protocol.fail(CLOSE_TOO_BIG, "too many fragments")
        else:
            self._parts.append(bytes(event.data))
            if event.fin:
                self._messages.append(b"".join(self._parts) if len(self._parts) > 1 else self._parts[0])
                self._parts.clear()

    def _flush(self, timeout: float) -> None:
        self._socket.settimeout(max(timeout, 0.0001))
        try:
            for data in self._protocol.data_to_send():
                if data:
                    self._socket.sendall(data)
        except ConnectionError as error:
            raise LinkClosed(CLOSE_ABNORMAL, error.strerror or str(error), LinkEnd.BROKEN) from error

    def _raise_if_closed(self) -> None:
        protocol = self._protocol
        if protocol.state is State.OPEN and protocol.parser_exc is None:
            return
        if protocol.close_rcvd is not None:
            raise LinkClosed(protocol.close_rcvd.code, protocol.close_rcvd.reason, LinkEnd.PEER)
        if protocol.close_sent is not None:
            raise LinkClosed(protocol.close_sent.code, protocol.close_sent.reason, LinkEnd.MISUSED)
        code = CLOSE_ABNORMAL if isinstance(protocol.parser_exc, EOFError) else CLOSE_PROTOCOL_ERROR
        raise LinkClosed(code, str(protocol.parser_exc or "end of stream"), LinkEnd.BROKEN)
