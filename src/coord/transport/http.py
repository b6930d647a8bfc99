"""The door of a port: the first request of a connection becomes a link, or gets a plain HTTP answer.

Everything before the handshake is hostile until it has shown otherwise: it has little time, little room, and
must name a host and an origin that are ours.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

import h11
import trio
from attrs import define, field, frozen

from coord.limits import CLOSE_TIMEOUT_S, FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT_S, HTTP_HEAD_BYTES_MAX
from coord.transport.link import CLIENT_PATIENCE, Link, LinkFailed, Patience
from coord.transport.listener import peer_name
from coord.transport.websocket import HeadTooLargeError, read_head, upgrade, write_all

_HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\n"
_HTTP2_REFUSAL: Final = (
    b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # SETTINGS, empty: what a server must say first
    b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0d"  # GOAWAY, HTTP_1_1_REQUIRED
)
_NO_METHOD: Final = tuple(bytes((byte,)) for byte in range(256) if not chr(byte).isalpha() or byte > 127)
"""No method starts with these; TLS (0x16) and other rubbish is told at once, not after a timeout."""


@frozen
class HttpRequest:
    """A request that is no WebSocket handshake; header names are lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]


@frozen
class HttpResponse:
    """The answer to it; the connection closes behind it."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


class RefusedError(Exception):
    """The request is not let in; `response` says why."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.response = HttpResponse(status, text.encode() + b"\n", headers=headers)


def _host_name(value: str) -> str:
    """Return the host of a `Host` header or an address, without its port, in one spelling."""
    name = value.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        return name.rstrip(".")
    return str(getattr(address, "ipv4_mapped", None) or address)


def _host_names(values: Iterable[str]) -> frozenset[str]:
    return frozenset(map(_host_name, values))


def _ignore(*_: object) -> None:
    return


@define
class Door:
    """Decides what a new connection becomes.

    `hosts` are the names and addresses that a `Host` header may have, besides localhost and the address that
    was connected to; `"*"` allows any. `origins` are the `Origin` headers that may connect, `"*"` any.
    `hint` tells whoever asks for another subprotocol where to go.
    `answer` answers plain requests. `on_refused(peer, status, reason)` and `on_answered(peer, path, status)`
    are told of everyone who does not get a link.
    """

    subprotocol: str
    answer: Callable[[HttpRequest], HttpResponse]
    hosts: frozenset[str] = field(converter=_host_names)
    origins: frozenset[str] = frozenset()
    hint: str = ""
    max_message_bytes: int = FRAME_BYTES_MAX
    patience: Patience = CLIENT_PATIENCE
    on_refused: Callable[[str, int, str], None] = _ignore
    on_answered: Callable[[str, str, int], None] = _ignore

    async def admit(self, sock: socket.socket) -> Link | None:
        """Return the link that `sock` becomes, or None: then it was answered and is closed.

        Takes at most `HANDSHAKE_TIMEOUT_S`. If cancelled it closes the socket.
        """
        link: Link | None = None
        try:
            with trio.move_on_after(HANDSHAKE_TIMEOUT_S) as scope:
                link = await self._meet(sock)
            if scope.cancelled_caught:
                self.on_refused(peer_name(sock), 408, "no complete request in time")
        except OSError as error:
            self.on_refused(peer_name(sock), 0, error.strerror or str(error))
        finally:
            if link is None:
                sock.close()
        return link

    async def _meet(self, sock: socket.socket) -> Link | None:
        try:
            head, received = await read_head(sock, _NO_METHOD)
            if not head:
                return None
            if head == _HTTP2_PREFACE:
                self.on_refused(peer_name(sock), 505, "HTTP/2 is not spoken here")
                await _finish(sock, _HTTP2_REFUSAL)
                return None
            request = _parse(head)
            self._check_names(request, sock)
            if _is_upgrade(request):
                self._check_upgrade(request)
                return await upgrade(
                    sock,
                    head,
                    received,
                    subprotocol=self.subprotocol,
                    max_message_bytes=self.max_message_bytes,
                    patience=self.patience,
                )
            response = self.answer(request)
            self.on_answered(peer_name(sock), request.path, response.status)
            await _finish(sock, _encode(response, has_body=request.method != "HEAD"))
        except HeadTooLargeError:
            await self._refuse(sock, RefusedError(431, f"a head may have {HTTP_HEAD_BYTES_MAX} bytes"))
        except LinkFailed as error:
            await self._refuse(sock, RefusedError(error.status, str(error)))
        except RefusedError as error:
            await self._refuse(sock, error)
        return None

    async def _refuse(self, sock: socket.socket, error: RefusedError) -> None:
        self.on_refused(peer_name(sock), error.response.status, str(error))
        await _finish(sock, _encode(error.response, has_body=True))

    def _check_names(self, request: HttpRequest, sock: socket.socket) -> None:
        """Refuse requests that a foreign web page sends through its visitor's browser.

        A page cannot forge `Origin`; and if its host name was rebound to our address, `Host` still names it.
        """
        origin = request.headers.get("origin")
        if origin is not None and origin not in self.origins and "*" not in self.origins:
            raise RefusedError(403, f"origin {origin!r} is not allowed here: see --cors")
        host = request.headers.get("host")
        if host is None or "*" in self.hosts:  # h11 lets only HTTP/1.0 leave it out, which no browser speaks
            return
        name = _host_name(host)
        if name != "localhost" and name not in self.hosts and name != _host_name(sock.getsockname()[0]):
            raise RefusedError(403, f"host {host!r} is not this server's: see --host-whitelist")

    def _check_upgrade(self, request: HttpRequest) -> None:
        headers = request.headers
        if request.path != "/":
            raise RefusedError(404, "links are opened at path /")
        if request.method != "GET" or "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
            raise RefusedError(400, "a WebSocket handshake is a GET without a body")
        if headers.get("sec-websocket-version") != "13":
            raise RefusedError(426, "WebSocket version 13 is spoken here", ("Sec-WebSocket-Version", "13"))
        if self.subprotocol not in _tokens(headers.get("sec-websocket-protocol", "")):
            text = f"ask for WebSocket subprotocol {self.subprotocol} (header Sec-WebSocket-Protocol)"
            raise RefusedError(400, f"{text}; {self.hint}" if self.hint else text)


def _parse(head: bytes) -> HttpRequest:
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=HTTP_HEAD_BYTES_MAX)
    try:
        parser.receive_data(head)
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise RefusedError(400, f"not an HTTP request: {error}") from None
    if not isinstance(event, h11.Request):
        raise RefusedError(400, "not an HTTP request")
    if event.http_version not in (b"1.0", b"1.1"):
        raise RefusedError(505, "HTTP/1.1 is spoken here")
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    path, _, query = event.target.decode("ascii").partition("?")
    return HttpRequest(event.method.decode("ascii"), path, query, headers)


def _tokens(value: str) -> list[str]:
    return [token.strip() for token in value.split(",")]


def _is_upgrade(request: HttpRequest) -> bool:
    return "websocket" in _tokens(request.headers.get("upgrade", "").lower())


def _encode(response: HttpResponse, *, has_body: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Connection: close",
        "X-Content-Type-Options: nosniff",
        *(f"{name}: {value}" for name, value in response.headers),
    ]
    return "\r\n".join((*lines, "", "")).encode("latin-1") + (response.body if has_body else b"")


async def _finish(sock: socket.socket, data: bytes) -> None:
    """Send the last of it and wait shortly for the other side to take it; a reset would lose it."""
    await write_all(sock, data)
    sock.shutdown(socket.SHUT_WR)
    with trio.move_on_after(CLOSE_TIMEOUT_S):
        while True:
            await trio.lowlevel.wait_readable(sock)
            try:
                if not sock.recv(4096):
                    return
            except BlockingIOError:
                continue
