"""The blocking link, against a stock WebSocket server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol
from websockets.utils import accept_key

from coord.limits import FRAGMENTS_PER_MESSAGE
from coord.transport import blocking
from coord.transport.blocking import BlockingLink
from coord.transport.link import LinkClosed, LinkEnd, LinkFailed


@contextmanager
def a_link(handle: Callable[[ServerConnection], object], *, max_message_bytes: int = 1000) -> Iterator[BlockingLink]:
    """A link to a server that does `handle` and closes."""
    options = {"subprotocols": [Subprotocol("x.v1")], "compression": None, "ping_interval": None}
    with serve(handle, "127.0.0.1", 0, **options) as server:  # type: ignore[arg-type]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.socket.getsockname()[1]
            link = BlockingLink.open(
                "127.0.0.1", port, subprotocol="x.v1", timeout=5, max_message_bytes=max_message_bytes
            )
            try:
                yield link
            finally:
                link.close()
        finally:
            server.shutdown()
            thread.join()


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


def test_messages_go_and_come_whole() -> None:
    def fragments(connection: ServerConnection) -> None:
        connection.send([b"a", b"b", b"c"])
        connection.ping(b"are you there?").wait()
        connection.send(b"pong came")
        echo(connection)

    with a_link(fragments) as link:
        assert link.receive(5) == b"abc"
        assert link.receive(5) == b"pong came"
        for size in (0, 1, 126, 900):
            link.send(bytes(size), 5)
            assert link.receive(5) == bytes(size)
        assert link.is_open()
        with pytest.raises(TimeoutError):
            link.receive(0.01)
        assert link.is_open()


def test_a_close_message_is_told_behind_what_came_before() -> None:
    def say_goodbye(connection: ServerConnection) -> None:
        connection.send(b"last words")
        connection.close(1012, "restarting")

    with a_link(say_goodbye) as link:
        assert link.receive(5) == b"last words"
        with pytest.raises(LinkClosed, match="restarting") as caught:
            link.receive(5)
        assert (caught.value.code, caught.value.end) == (1012, LinkEnd.PEER)
        assert not link.is_open()
        with pytest.raises(LinkClosed):
            link.send(b"", 5)


def test_a_broken_connection_is_told_apart() -> None:
    def reset(connection: ServerConnection) -> None:
        connection.socket.shutdown(socket.SHUT_RDWR)

    with a_link(reset) as link:
        with pytest.raises(LinkClosed) as caught:
            link.receive(5)
        assert caught.value.end is LinkEnd.BROKEN


@pytest.mark.parametrize(
    ("misuse", "code"),
    [
        (lambda connection: connection.send("text"), 1003),
        (lambda connection: connection.send(bytes(1001)), 1009),
        (lambda connection: connection.send([b""] * (FRAGMENTS_PER_MESSAGE + 1)), 1009),
    ],
)
def test_what_the_protocol_forbids_ends_the_link(misuse: Callable[[ServerConnection], None], code: int) -> None:
    told: list[int | None] = []

    def handle(connection: ServerConnection) -> None:
        misuse(connection)
        for _ in connection:
            pass
        told.append(connection.close_code)

    with a_link(handle) as link:
        with pytest.raises(LinkClosed) as caught:
            link.receive(5)
        assert (caught.value.code, caught.value.end) == (code, LinkEnd.MISUSED)
    assert told == [code] or not told


def test_an_idle_link_is_pinged_and_a_silent_one_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "PING_IDLE_S", 0.05)
    monkeypatch.setattr(blocking, "PING_GIVE_UP_S", 0.1)
    with a_link(echo) as link:
        # Its pongs keep it alive over several rounds.
        with pytest.raises(TimeoutError):
            link.receive(0.3)
        assert link.is_open()
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_the_handshake_only() -> None:
            connection, _ = listener.accept()
            with connection:
                head = connection.recv(4096).decode()
                key = next(line[19:] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key: "))
                connection.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Protocol: x.v1\r\nSec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n"
                )
                is_over.wait(5)

        thread = threading.Thread(target=answer_the_handshake_only)
        thread.start()
        link = BlockingLink.open("127.0.0.1", listener.getsockname()[1], subprotocol="x.v1", timeout=5)
        with pytest.raises(LinkClosed) as caught:
            link.receive(5)
        assert caught.value.end is LinkEnd.SILENT
        is_over.set()
        link.close()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "did not receive a valid HTTP response"),
        (b"SSH-2.0-x\r\n", "does not speak x.v1"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nno way\n", "HTTP status 403: no way"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP status 200"),
    ],
)
def test_whoever_is_no_node_is_named(answer: bytes, why: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve_once)
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(LinkFailed, match=why) as caught:
            BlockingLink.open("127.0.0.1", port, subprotocol="x.v1", timeout=5)
        assert f"127.0.0.1:{port}: " in str(caught.value)
        thread.join()


def test_a_server_that_never_answers_costs_the_timeout() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(LinkFailed, match=r"no answer within 0\.1 s"),
    ):
        BlockingLink.open("127.0.0.1", listener.getsockname()[1], subprotocol="x.v1", timeout=0.1)
