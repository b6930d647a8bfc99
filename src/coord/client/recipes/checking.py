"""Doing health checks with Trio."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from coord.client.recipes.checks import HEAD_BYTES_MAX, Check, Health, HttpCheck, TcpCheck, judge_found, shown

CheckFunction: TypeAlias = Callable[[], object] | Callable[[], Awaitable[object]]
"""Healthy unless it returns False or raises. A plain function runs on the event loop: it must not block."""


async def ask_health(check: Check, timeout: float) -> str:
    """Do a check within `timeout` seconds; return why the instance is not healthy, empty if it is."""
    try:
        with trio.fail_after(timeout):
            if isinstance(check, TcpCheck):
                await (await trio.open_tcp_stream(check.host, check.port)).aclose()
                return ""
            if isinstance(check, HttpCheck):
                return check.judge(await _first_line(check))
            return await _call(check)
    except trio.TooSlowError:
        return f"{shown(check)}: no answer within {timeout:g} s"
    except trio.BrokenResourceError:
        return f"{shown(check)}: the connection was closed"
    except OSError as error:
        return f"{shown(check)}: {error.strerror or error}"


async def _first_line(check: HttpCheck) -> bytes:
    async with await trio.open_tcp_stream(check.host, check.port) as stream:
        await stream.send_all(check.request)
        head = b""
        while b"\n" not in head and len(head) < HEAD_BYTES_MAX:
            more = await stream.receive_some(HEAD_BYTES_MAX)
            if not more:
                break
            head += more
        return head


async def _call(check: CheckFunction) -> str:
    try:
        found = check()
        if inspect.isawaitable(found):
            found = await found
    except Exception as error:
        # Whatever a check raises is what it has found out; it must not end the program that it looks after.
        return judge_found(check, error)
    return judge_found(check, found)


async def watch_health(
    check: Check, health: Health, interval: float, timeout: float, on_change: Callable[[], None]
) -> None:
    """Check again and again, the next `interval` seconds after the last began; tell when `health` changes."""
    while True:
        due = trio.current_time() + interval
        if health.note(await ask_health(check, timeout)):
            on_change()
        await trio.sleep_until(due)
