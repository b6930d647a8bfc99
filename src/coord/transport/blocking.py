"""A WebSocket link for programs without an event loop: blocking calls with timeouts. Does not load Trio."""

from __future__ import annotations

import socket
import time
from typing import Final

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


class BlockingLink:
    """One connection to a node. Not thread-safe.

    Pings are answered while the link is used; a node gives up one that was not used for 10 s.
    """

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
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            connection = socket.create_connection((host, port), timeout)
        except TimeoutError:
            raise LinkFailed(f"{where}: no answer within {timeout:g} s") from None
        except OSError as error:
            is_refused = isinstance(error, ConnectionRefusedError)
            raise LinkFailed(f"{where}: {error.strerror or error}", is_refused=is_refused) from error
        protocol = ClientProtocol(
            WebSocketURI(False, host, port, "/", ""),
            subprotocols=[Subprotocol(subprotocol)],
            max_size=max_message_bytes,
        )
        link = cls(connection, protocol)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link._shake_hands(where, subprotocol, deadline)
        except TimeoutError:
            connection.close()
            raise LinkFailed(f"{where}: no answer within {timeout:g} s") from None
        except BaseException:
            connection.close()
            raise
        return link

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

    def _shake_hands(self, where: str, subprotocol: str, deadline: float) -> None:
        protocol = self._protocol
        protocol.send_request(protocol.connect())
        self._flush(deadline - time.monotonic())
        while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
            try:
                events = self._feed(deadline)
            except LinkClosed as error:
                raise LinkFailed(f"{where}: {error.reason}") from error
            for event in events:
                if not isinstance(event, Response):
                    self._take(event)
                elif event.status_code != 101:
                    text = bytes(event.body or b"").decode("utf-8", "replace").strip().partition("\n")[0]
                    why = f"declined with HTTP status {event.status_code}" + (f": {text[:200]}" if text else "")
                    raise LinkFailed(f"{where}: {why}", status=event.status_code)
        if protocol.handshake_exc is not None:
            raise LinkFailed(f"{where}: does not speak {subprotocol} ({protocol.handshake_exc})")
        if protocol.subprotocol != subprotocol:
            raise LinkFailed(f"{where}: does not speak {subprotocol}")

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
