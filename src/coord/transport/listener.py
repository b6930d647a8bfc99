"""Listening sockets, the loop that takes connections from them, and the name of who is at the other side."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Final

import trio

_BACKLOG: Final = 1024
_TAKEN_PER_PASS: Final = 64
_PAUSE_S: Final = 0.1
_PAUSE_MAX_S: Final = 1.0
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_LACKING: Final = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))


def listen(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for every address of `host`, all at one port; port 0 has the kernel choose it.

    An address that this machine lacks (`::1` for localhost, without IPv6) is left out if there is another.
    Raises `OSError`; then nothing is left open.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    lacking: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        chosen = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_listen_at(family, (address[0], chosen, *address[2:])))
        except OSError as error:
            if error.errno not in _LACKING:
                for sock in sockets:
                    sock.close()
                raise
            lacking = error
    if not sockets and lacking is not None:
        raise lacking
    return sockets


def peer_name(sock: socket.socket) -> str:
    """Return `host:port` of the socket's other side, or "?" if it is gone already."""
    try:
        name = sock.getpeername()
    except OSError:
        return "?"
    if not isinstance(name, tuple):
        return "unix"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen_at(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


async def accept_all(
    listener: socket.socket,
    take: Callable[[socket.socket], None],
    on_pause: Callable[[str, float], None],
) -> None:
    """Give every connection to `take`, until cancelled; `take` owns the socket, which does not block.

    When the process or the host has no descriptors left, pauses and goes on; `on_pause(why, seconds)` is
    told.
    """
    pause_s = _PAUSE_S
    while True:
        await trio.lowlevel.wait_readable(listener)
        try:
            for _ in range(_TAKEN_PER_PASS):
                sock, _ = listener.accept()
                if _prepare(sock):
                    take(sock)
            pause_s = _PAUSE_S
        except BlockingIOError:
            pause_s = _PAUSE_S
        except OSError as error:
            if error.errno in _EXHAUSTED:
                on_pause(error.strerror or str(error), pause_s)
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
            # Any other error is the one connection's own: it was gone before it was taken.


def _prepare(sock: socket.socket) -> bool:
    """Set what every connection needs; False if it has gone already."""
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        return False
    return True
