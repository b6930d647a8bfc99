"""The opening handshakes, by trio-websocket; what they open is a `SocketLink`.

trio-websocket sees a stream in memory: it is given the head that was read from the socket, and what it
would send is captured. So all reading and writing, with its limits and deadlines, is ours, and the link
takes over at exactly the first byte behind the handshake.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from typing import Final

import trio
import trio_websocket

from coord.limits import FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT_S, HTTP_HEAD_BYTES_MAX, KIB, REPLY_BYTES_MAX
from coord.transport.link import CLIENT_PATIENCE, Link, LinkFailed, Patience
from coord.transport.socket_link import SocketLink

HEAD_END: Final = b"\r\n\r\n"
LINK_BYTES_MAX: Final = REPLY_BYTES_MAX + 64 * KIB
"""What a client must take in one message: the largest reply, and its frame."""
_READ_BYTES: Final = 4096

# It logs every event of every connection at debug level, formatted or not; coord has its own events.
logging.getLogger("trio-websocket").setLevel(logging.WARNING)


class HeadTooLargeError(Exception):
    """The other side sent more than an HTTP head may have without ending it."""


class _HandshakeStream(trio.abc.Stream):
    """What trio-websocket reads from and writes to during a handshake."""

    def __init__(self, received: bytes = b"") -> None:
        self._received = received
        self.sent = bytearray()
        self.has_sent = trio.Event()
        self.is_done = trio.Event()
        """Set when the library gave up; whoever runs it sets it when the library succeeded."""
        self._has_received = trio.Event()

    def feed(self, data: bytes) -> None:
        """Let `data` be read."""
        self._received = data
        self._has_received.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data
        self.has_sent.set()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._received:
            await self._has_received.wait()
        if not self._received:
            await trio.sleep_forever()
        data, self._received = self._received, b""
        return data

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.is_done.set()


async def read_head(sock: socket.socket, looks_wrong: tuple[bytes, ...] = ()) -> tuple[bytes, bytes]:
    """Return an HTTP head, up to and with its empty line, and the bytes that came behind it.

    A head that cannot become one is returned as far as it has come: the stream ended, or it starts with one
    of `looks_wrong`. Raises `HeadTooLargeError`, or `OSError` from the socket.
    """
    data = bytearray()
    while True:
        end = data.find(HEAD_END)
        if end >= 0:
            end += len(HEAD_END)
            return bytes(data[:end]), bytes(data[end:])
        if len(data) >= HTTP_HEAD_BYTES_MAX:
            raise HeadTooLargeError
        if data and bytes(data).startswith(looks_wrong):
            return bytes(data), b""
        await trio.lowlevel.wait_readable(sock)
        try:
            more = sock.recv(_READ_BYTES)
        except BlockingIOError:
            continue
        if not more:
            return bytes(data), b""
        data += more


async def write_all(sock: socket.socket, data: bytes) -> None:
    """Write `data` to a socket that does not block. Raises `OSError`."""
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
    await trio.lowlevel.checkpoint()


async def upgrade(
    sock: socket.socket,
    head: bytes,
    received: bytes,
    *,
    subprotocol: str,
    max_message_bytes: int = FRAME_BYTES_MAX,
    patience: Patience = CLIENT_PATIENCE,
) -> Link:
    """Accept the WebSocket request in `head` and return its link, which then owns `sock`.

    The caller has checked the request (method, version, key, subprotocol). `received` are the bytes that came
    behind `head`. Raises `OSError` if the client has gone, and `LinkFailed` if trio-websocket finds the
    request wanting.
    """
    stream = _HandshakeStream(head)

    async def stop_if_refused(scope: trio.CancelScope) -> None:
        await stream.is_done.wait()
        scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_if_refused, nursery.cancel_scope)
            request = await trio_websocket.wrap_server_stream(nursery, stream)
            await request.accept(subprotocol=subprotocol)
            nursery.cancel_scope.cancel()
    except* Exception:
        # It stumbles over requests that are no handshake; none of them gets further than this.
        stream.sent.clear()
    if _status(stream.sent) != 101:
        raise LinkFailed("not a WebSocket handshake", status=400)
    await write_all(sock, bytes(stream.sent))
    return SocketLink(
        sock,
        is_client=False,
        subprotocol=subprotocol,
        received=received,
        max_message_bytes=max_message_bytes,
        patience=patience,
    )


async def open_link(
    host: str,
    port: int,
    path: str = "/",
    *,
    subprotocol: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
    timeout: float = HANDSHAKE_TIMEOUT_S,
    max_message_bytes: int = LINK_BYTES_MAX,
    patience: Patience = CLIENT_PATIENCE,
) -> Link:
    """Return a link to a server, within `timeout` seconds.

    Raises `LinkFailed`: the address cannot be reached, the server declines, or it does not answer in time.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    sock: socket.socket | None = None
    try:
        with trio.fail_after(timeout):
            stream = await trio.open_tcp_stream(host, port)
            sock = socket.socket(fileno=stream.socket.detach())
            sock.setblocking(False)
            received = await _ask(sock, where, path, subprotocol, list(headers))
        link = SocketLink(
            sock,
            is_client=True,
            subprotocol=subprotocol,
            received=received,
            max_message_bytes=max_message_bytes,
            patience=patience,
        )
    except trio.TooSlowError:
        raise LinkFailed(f"{where}: no answer within {timeout:g} s") from None
    except HeadTooLargeError:
        raise LinkFailed(f"{where}: the answer is no HTTP head") from None
    except OSError as error:
        raise LinkFailed(f"{where}: {_why(error)}", is_refused=_is_refused(error)) from error
    else:
        sock = None
        return link
    finally:
        if sock is not None:
            sock.close()


async def _ask(
    sock: socket.socket, where: str, path: str, subprotocol: str, headers: list[tuple[bytes, bytes]]
) -> bytes:
    """Do the client's side of the handshake; return the bytes that came behind the server's answer."""
    stream = _HandshakeStream()
    answer = received = b""
    agreed: str | None = None
    failure: Exception | None = None

    async def run_library() -> None:
        nonlocal agreed
        try:
            async with trio.open_nursery() as library:
                connection = await trio_websocket.wrap_client_stream(
                    library,
                    stream,  # type: ignore[arg-type]  # any Trio stream serves
                    where,
                    path,
                    subprotocols=[subprotocol],
                    extra_headers=headers,
                )
                agreed = connection.subprotocol
                library.cancel_scope.cancel()
        except* Exception:
            # It stumbles over answers that are no handshake; there is nothing more to know of them.
            agreed = None
        stream.is_done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_library)
        try:
            await stream.has_sent.wait()
            await write_all(sock, bytes(stream.sent))
            answer, received = await read_head(sock)
            if _status(answer) == 101:
                stream.feed(answer)
                await stream.is_done.wait()
        except (OSError, HeadTooLargeError) as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if agreed != subprotocol:
        raise LinkFailed(f"{where}: {_declined(answer, received, subprotocol)}", status=_status(answer))
    return received


def _status(answer: bytes | bytearray) -> int:
    parts = answer.split(maxsplit=2)
    is_http = len(parts) > 1 and parts[0].startswith(b"HTTP/1.") and parts[1].isdigit()
    return int(parts[1]) if is_http else 0


def _declined(answer: bytes, received: bytes, subprotocol: str) -> str:
    status = _status(answer)
    if not answer:
        return "closed the connection instead of answering the handshake"
    if not status:
        return "does not speak HTTP"
    if status == 101:
        return f"does not speak {subprotocol}"
    text = received.decode("utf-8", "replace").strip().partition("\n")[0]
    return f"declined with HTTP status {status}" + (f": {text[:200]}" if text else "")


def _why(error: OSError) -> str:
    if error.strerror is None and isinstance(error.__cause__, ExceptionGroup):
        reasons = {getattr(one, "strerror", None) or str(one) for one in error.__cause__.exceptions}
        return ", ".join(sorted(reasons))
    return error.strerror or str(error)


def _is_refused(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_refused, error.exceptions))
    return isinstance(error, ConnectionRefusedError) or (
        isinstance(error, OSError) and error.__cause__ is not None and _is_refused(error.__cause__)
    )
