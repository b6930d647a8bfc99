"""The door: who is let in, what the others are told, and how long they may take."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from coord.limits import HANDSHAKE_TIMEOUT_S, HTTP_HEAD_BYTES_MAX
from coord.transport.http import Door, HttpRequest, HttpResponse

from .helpers import BINARY, cancelled_at, frame, receive_all, run, socket_pair

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {
    b"Host": b"localhost:7379",
    b"Upgrade": b"websocket",
    b"Connection": b"Upgrade",
    b"Sec-WebSocket-Key": KEY,
    b"Sec-WebSocket-Version": b"13",
    b"Sec-WebSocket-Protocol": b"coord.v1",
}


def head(line: bytes = b"GET / HTTP/1.1", headers: dict[bytes, bytes] | None = None, **changes: bytes | None) -> bytes:
    """An HTTP head: the headers of a handshake, with `changes` (`None` leaves one out)."""
    fields = dict(UPGRADE if headers is None else headers)
    for name, value in changes.items():
        header = name.replace("_", "-").encode()
        header = next((known for known in fields if known.lower() == header.lower()), header)
        if value is None:
            del fields[header]
        else:
            fields[header] = value
    return b"\r\n".join([line, *(name + b": " + value for name, value in fields.items()), b"", b""])


def answer(request: HttpRequest) -> HttpResponse:
    text = f"{request.method} {request.path} {request.query} {request.headers.get('x-two', '')}"
    return HttpResponse(200, text.encode(), headers=(("X-Coord", "yes"),))


class Visit:
    """One connection at a door: what it wrote last, whether it was let in, what the door said of it."""

    def __init__(self) -> None:
        self.reply = b""
        self.admitted = False
        self.refused: list[tuple[int, str]] = []

    @property
    def status(self) -> int:
        return int(self.reply.split(b" ", 2)[1]) if self.reply.startswith(b"HTTP/1.1 ") else 0


@asynccontextmanager
async def tcp_pair() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    client.setblocking(False)
    server.setblocking(False)
    with client, server:
        yield server, client


async def visit(
    data: bytes, *, hosts: tuple[str, ...] = ("n1.example",), origins: frozenset[str] = frozenset()
) -> Visit:
    seen = Visit()

    def on_refused(peer: str, status: int, reason: str) -> None:
        seen.refused.append((status, reason))

    door = Door("coord.v1", answer, hosts=hosts, origins=origins, on_refused=on_refused)
    async with tcp_pair() as (server, client), trio.open_nursery() as nursery:

        async def serve() -> None:
            link = await door.admit(server)
            if link is not None:
                seen.admitted = True
                link.abort()

        nursery.start_soon(serve)
        client.send(data)
        seen.reply = await receive_all(client)
        client.close()
    return seen


def one(data: bytes, **options: object) -> Visit:
    got: list[Visit] = []

    async def main() -> None:
        got.append(await visit(data, **options))  # type: ignore[arg-type]

    run(main)
    return got[0]


def test_handshake_is_accepted_without_extensions() -> None:
    seen = one(head(Sec_WebSocket_Extensions=b"permessage-deflate; client_max_window_bits"))

    assert seen.admitted
    assert seen.status == 101
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in seen.reply  # RFC 6455 §1.3
    assert b"Sec-WebSocket-Protocol: coord.v1" in seen.reply
    assert b"extensions" not in seen.reply.lower()


@pytest.mark.parametrize(
    "data",
    [
        head(Sec_WebSocket_Protocol=b"chat, coord.v1"),
        head(Upgrade=b"WebSocket"),
        head(b"GET /?x=1 HTTP/1.1"),
        head(Host=b"N1.Example.:7379"),
        head(Host=b"127.0.0.1"),
        head(Host=b"127.0.0.1:1"),
        head(Content_Length=b"0"),
    ],
)
def test_handshakes_that_are_fine(data: bytes) -> None:
    assert one(data).admitted


@pytest.mark.parametrize(
    ("data", "status", "part"),
    [
        (head(Origin=b"https://evil.example"), 403, b"--cors"),
        (head(Origin=b"null"), 403, b"--cors"),
        (head(Host=b"evil.example"), 403, b"--host-whitelist"),
        (head(Host=b"evil.example:7379"), 403, b"--host-whitelist"),
        (head(Host=b"127.0.0.2"), 403, b"--host-whitelist"),
        (head(Host=b"localhost.evil.example"), 403, b"--host-whitelist"),
        (head(Host=b""), 403, b"--host-whitelist"),
        (head(Host=None), 400, b"Host"),
        (head(b"GET /metrics HTTP/1.1", {b"Host": b"evil.example"}), 403, b"--host-whitelist"),
        (head(b"GET / HTTP/1.1", {b"Host": b"localhost", b"Origin": b"http://a"}), 403, b"--cors"),
        (head(Sec_WebSocket_Protocol=None), 400, b"ask for WebSocket subprotocol coord.v1"),
        (head(Sec_WebSocket_Protocol=b"coord.v9"), 400, b"ask for WebSocket subprotocol coord.v1"),
        (head(Sec_WebSocket_Version=b"8"), 426, b"Sec-WebSocket-Version: 13"),
        (head(Sec_WebSocket_Version=None), 426, b"version 13"),
        (head(Sec_WebSocket_Key=None), 400, b"not a WebSocket handshake"),
        (head(Connection=b"close"), 400, b"not a WebSocket handshake"),
        (head(Sec_WebSocket_Protocol=b"coord.v1, \xe9"), 400, b"not a WebSocket handshake"),
        (head(Sec_WebSocket_Extensions=b"\xe9"), 400, b"not a WebSocket handshake"),
        (head(b"POST / HTTP/1.1"), 400, b"a GET without a body"),
        (head(Content_Length=b"5"), 400, b"a GET without a body"),
        (head(Transfer_Encoding=b"chunked"), 400, b"a GET without a body"),
        (head(b"GET /chat HTTP/1.1"), 404, b"path /"),
        (head(b"GET / HTTP/9.9"), 505, b"HTTP/1.1 is spoken here"),
        (b"GET /\r\n\r\n", 400, b"not an HTTP request"),
        (b"NONSENSE\r\n\r\n", 400, b"not an HTTP request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, b"not an HTTP request"),
        (b"\0\0\0\0", 400, b"not an HTTP request"),
        (b"\r\n\r\n", 400, b"not an HTTP request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header\r\n\r\n", 400, b"not an HTTP request"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * HTTP_HEAD_BYTES_MAX, 431, b"8192"),
        (b"A" * (HTTP_HEAD_BYTES_MAX + 1), 431, b"8192"),
    ],
)
def test_refusals_say_what_to_do(data: bytes, status: int, part: bytes) -> None:
    seen = one(data)

    assert not seen.admitted
    assert seen.status == status
    assert part in seen.reply
    assert [refused for refused, _ in seen.refused] == [status]


def test_message_that_comes_with_the_handshake_is_not_lost() -> None:
    async def main() -> None:
        door = Door("coord.v1", answer, hosts=())
        async with tcp_pair() as (server, client):
            client.send(head() + frame(BINARY, b"early"))
            link = await door.admit(server)
            assert link is not None
            assert await link.recv() == b"early"
            link.abort()

    run(main)


def test_allowed_origins_and_any_host() -> None:
    allowed = frozenset(("https://ui.example",))
    assert one(head(Origin=b"https://ui.example"), origins=allowed).admitted
    assert not one(head(Origin=b"http://ui.example"), origins=allowed).admitted
    assert one(head(Origin=b"http://any.example"), origins=frozenset("*")).admitted
    assert one(head(Host=b"whatever.example"), hosts=("*",)).admitted


def test_http2_preface_gets_goaway() -> None:
    seen = one(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")

    assert seen.reply[3] == 4  # SETTINGS
    assert seen.reply[9 + 3] == 7  # GOAWAY
    assert seen.reply[-4:] == b"\x00\x00\x00\x0d"  # HTTP_1_1_REQUIRED
    assert seen.refused[0][0] == 505


def test_plain_request_is_answered_and_closed() -> None:
    request = b"GET /metrics?a=b HTTP/1.1\r\nHost: localhost\r\nX-Two: 1\r\nX-Two: 2\r\n\r\n"
    seen = one(request)
    assert seen.status == 200
    assert b"X-Coord: yes\r\n" in seen.reply
    assert b"Connection: close\r\n" in seen.reply
    assert seen.reply.endswith(b"\r\n\r\nGET /metrics a=b 1, 2")
    assert seen.refused == []


def test_head_has_no_body_and_http_1_0_needs_no_host() -> None:
    assert one(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").reply.endswith(b"Content-Length: 8\r\n" + TAIL)
    assert one(b"GET /livez HTTP/1.0\r\n\r\n").status == 200


TAIL = b"Connection: close\r\nX-Content-Type-Options: nosniff\r\nX-Coord: yes\r\n\r\n"


def test_client_that_leaves_without_a_word_is_no_event() -> None:
    async def main() -> None:
        refused: list[object] = []
        door = Door("coord.v1", answer, hosts=(), on_refused=lambda *what: refused.append(what))
        async with tcp_pair() as (server, client):
            client.close()
            assert await door.admit(server) is None
            assert server.fileno() == -1
        assert refused == []

    run(main)


@pytest.mark.parametrize("data", [b"", b"GET / HT", head()[:-2]], ids=["nothing", "a line", "no end"])
def test_slow_handshake_is_given_up(data: bytes) -> None:
    clock = MockClock()

    async def main() -> None:
        refused: list[int] = []
        door = Door("coord.v1", answer, hosts=(), on_refused=lambda peer, status, _: refused.append(status))
        server, client = socket_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door.admit, server)
            client.send(data)
            for _ in range(int(HANDSHAKE_TIMEOUT_S * 2) - 1):
                await wait_all_tasks_blocked()
                clock.jump(0.5)
                client.send(b"")
            await wait_all_tasks_blocked()
            assert server.fileno() != -1
            clock.jump(0.6)
            await wait_all_tasks_blocked()
            assert server.fileno() == -1
        assert refused == [408]
        client.close()

    run(main, clock)


def test_admitting_cancelled_at_any_step_leaks_nothing() -> None:
    async def main() -> None:
        door = Door("coord.v1", answer, hosts=())
        outcomes = []
        for step in range(1, 25):
            async with tcp_pair() as (server, client):
                client.send(head())

                async def admit(server: socket.socket = server) -> None:
                    link = await door.admit(server)
                    assert link is not None
                    link.abort()

                outcomes.append(await cancelled_at(step, admit))
                assert server.fileno() == -1
        assert outcomes[0]
        assert not outcomes[-1]

    run(main)


@settings(max_examples=80, deadline=None)
@given(st.binary(min_size=1, max_size=60) | st.text(max_size=30).map(str.encode), st.booleans())
def test_any_bytes_end_the_visit(data: bytes, behind_a_start: bool) -> None:
    async def main() -> None:
        seen = await visit((b"GET / HTTP/1.1\r\n" if behind_a_start else b"") + data + b"\r\n\r\n")
        assert not seen.admitted
        assert seen.status >= 200 or seen.refused[0][0] == 505  # the preface of HTTP/2 is answered in HTTP/2

    run(main)
