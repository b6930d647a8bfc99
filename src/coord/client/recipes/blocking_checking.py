"""Doing health checks in a thread."""

from __future__ import annotations

import socket
import time

from coord.client.recipes.checks import HEAD_BYTES_MAX, Check, HttpCheck, TcpCheck, judge_found, shown

_CLOSED = "the connection was closed"


def ask_health(check: Check, timeout: float) -> str:
    """Do a check within `timeout` seconds; return why the instance is not healthy, empty if it is.

    A function cannot be interrupted: one that takes longer has failed when it is done.
    """
    deadline = time.monotonic() + timeout
    try:
        if isinstance(check, TcpCheck):
            socket.create_connection((check.host, check.port), timeout).close()
            return ""
        if isinstance(check, HttpCheck):
            return check.judge(_first_line(check, deadline))
        why_not = _call(check)
        if time.monotonic() > deadline:
            raise TimeoutError
        return why_not
    except TimeoutError:
        return f"{shown(check)}: no answer within {timeout:g} s"
    except ConnectionResetError:
        return f"{shown(check)}: {_CLOSED}"
    except OSError as error:
        return f"{shown(check)}: {error.strerror or error}"


def _first_line(check: HttpCheck, deadline: float) -> bytes:
    with socket.create_connection((check.host, check.port), _left_s(deadline)) as connection:
        connection.sendall(check.request)
        head = b""
        while b"\n" not in head and len(head) < HEAD_BYTES_MAX:
            connection.settimeout(_left_s(deadline))
            more = connection.recv(HEAD_BYTES_MAX)
            if not more:
                break
            head += more
        return head


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _call(check: Check) -> str:
    assert callable(check)
    try:
        found = check()
    except Exception as error:
        # Whatever a check raises is what it has found out; it must not end the program that it looks after.
        return judge_found(check, error)
    return judge_found(check, found)
