"""Health checks: how they are written, what they find, and when that counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.lowlevel

from coord.client.recipes.checking import ask_health
from coord.client.recipes.checks import HEAD_BYTES_MAX, Health, HttpCheck, TcpCheck, parse_check


def test_checks_are_written_as_urls() -> None:
    assert parse_check("tcp://db:5432") == parse_check("tcp://db:5432/") == TcpCheck("db", 5432)
    assert parse_check("tcp://[::1]:80") == TcpCheck("::1", 80)
    assert parse_check("http://web/healthz?full=1") == HttpCheck("web", 80, "/healthz?full=1")
    assert parse_check("http://[::1]:8080") == HttpCheck("::1", 8080, "/")
    assert str(parse_check("http://[::1]:8080")) == "http://[::1]:8080/"
    assert str(parse_check("tcp://db:5432")) == "tcp://db:5432"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected tcp://host:port or http://host:port/path"),
        ("db:5432", "expected tcp://host:port or"),
        ("udp://db:53", "expected tcp://host:port or"),
        ("tcp://:80", "expected tcp://host:port or"),
        ("tcp://db", "expected tcp://host:port"),
        ("tcp://db:80/path", "expected tcp://host:port"),
        ("tcp://db:80000", "out of range"),
        ("tcp://db:x", "invalid literal|could not be cast"),
        ("tcp://[::1:80", "Invalid IPv6"),
        ("https://web", "https is not checked in this release; give a function"),
        ("http://me@web/", "neither user nor fragment"),
        ("http://web/#top", "neither user nor fragment"),
        ("http://web/a b", "without spaces"),
        ("http://web/\r\nX: y", "without spaces"),
        ("http://wéb/", "in ASCII"),
    ],
)
def test_what_is_no_check_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_check(text)


def test_an_answer_is_judged_by_its_status() -> None:
    check = HttpCheck("web", 80, "/healthz")
    assert check.request == (
        b"GET /healthz HTTP/1.1\r\nHost: web:80\r\nUser-Agent: coord\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    for head in (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 204", b"HTTP/1.1 302 Found\r\nLocation: /"):
        assert check.judge(head) == ""
    assert check.judge(b"HTTP/1.1 503 Service Unavailable\r\n") == "http://web:80/healthz: status 503"
    assert check.judge(b"HTTP/1.1 199 Odd\r\n") == "http://web:80/healthz: status 199"
    for head in (b"", b"220 mail.example ESMTP\r\n", b"HTTP/1.1 \r\n", b"HTTP/1.1 OK 200\r\n", b"\r\nHTTP/1.1 200 OK"):
        assert check.judge(head) == "http://web:80/healthz: the answer is not HTTP"


def test_one_failure_is_no_news_and_several_in_a_row_are() -> None:
    health = Health(3, 2)
    assert (health.is_healthy, health.why_not) == (False, "it has not been checked yet")
    verdicts = [("", True), ("x", False), ("x", False), ("", False), ("x", False), ("y", False), ("z", True)]
    for why_not, is_news in verdicts:
        assert health.note(why_not) is is_news
        assert health.why_not == why_not
    assert not health.is_healthy
    assert [health.note(why_not) for why_not in ("", "x", "", "")] == [False, False, False, True]
    assert health.is_healthy
    # The first check decides in both ways.
    health = Health(3, 2)
    assert [health.note(why_not) for why_not in ("x", "", "")] == [False, False, True]


Serve = Callable[[trio.SocketStream], Awaitable[None]]


def against(serve: Serve | None, path: str | None, timeout: float = 5.0) -> str:
    """Check a server on loopback that does `serve` with each connection; None: nobody listens."""

    async def main() -> str:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        check = TcpCheck("127.0.0.1", port) if path is None else HttpCheck("127.0.0.1", port, path)
        if serve is None:
            await listener.aclose()
        async with trio.open_nursery() as nursery:
            if serve is not None:
                nursery.start_soon(trio.serve_listeners, serve, [listener])
            found = await ask_health(check, timeout)
            nursery.cancel_scope.cancel()
        return found.replace(str(port), "PORT")

    return trio.run(main)


def answering(*parts: bytes) -> Serve:
    async def serve(stream: trio.SocketStream) -> None:
        request = await stream.receive_some(4096)
        assert request.startswith(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:")
        for part in parts:
            await stream.send_all(part)
            await trio.sleep(0.01)
        await stream.aclose()

    return serve


async def hang(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


def test_a_tcp_check_asks_whether_connections_are_taken() -> None:
    assert against(hang, None) == ""
    assert against(None, None).startswith("tcp://127.0.0.1:PORT: all attempts to connect to 127.0.0.1:PORT failed")


def test_an_http_check_asks_for_a_status() -> None:
    assert against(answering(b"HT", b"TP/1.1 200 ", b"OK\r\n", b"Content-Length: 1000000\r\n"), "/healthz") == ""
    assert against(answering(b"HTTP/1.1 500 No\r\n\r\n"), "/healthz") == "http://127.0.0.1:PORT/healthz: status 500"
    assert "not HTTP" in against(answering(bytes(HEAD_BYTES_MAX + 1)), "/healthz")
    assert "not HTTP" in against(answering(), "/healthz")
    assert against(hang, "/healthz", 0.05) == "http://127.0.0.1:PORT/healthz: no answer within 0.05 s"
    assert "all attempts to connect" in against(None, "/healthz")


def test_a_function_is_healthy_unless_it_says_otherwise() -> None:
    async def in_time() -> None:
        await trio.lowlevel.checkpoint()

    def broken() -> bool:
        raise TimeoutError("too late")

    for check, found in (
        (lambda: None, ""),
        (lambda: True, ""),
        (lambda: 0, ""),
        (in_time, ""),
        (lambda: False, "<lambda>: False"),
        (broken, "broken: TimeoutError: too late"),
    ):
        assert trio.run(ask_health, check, 5.0) == found
    assert trio.run(ask_health, trio.sleep_forever, 0.01) == "sleep_forever: no answer within 0.01 s"
