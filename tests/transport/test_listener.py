"""Listening, and taking connections while descriptors run out."""

from __future__ import annotations

import errno
import socket

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from coord.transport.listener import accept_all, listen

from .helpers import run


def test_listens_on_every_address_at_one_port() -> None:
    sockets = listen("localhost", 0)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert not any(sock.getblocking() for sock in sockets)
    finally:
        for sock in sockets:
            sock.close()


def test_port_in_use_leaves_nothing_open() -> None:
    [taken] = listen("127.0.0.1", 0)
    with taken, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_unknown_host() -> None:
    with pytest.raises(OSError):
        listen("192.0.2.1", 0)


class Exhausted:
    """A listening socket whose first accepts fail."""

    def __init__(self, real: socket.socket, errors: list[int]) -> None:
        self.real = real
        self.errors = errors

    def fileno(self) -> int:
        return self.real.fileno()

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            code = self.errors.pop(0)
            raise OSError(code, "no more")
        return self.real.accept()


def test_goes_on_when_descriptors_are_back() -> None:
    clock = MockClock()

    async def main() -> None:
        [real] = listen("127.0.0.1", 0)
        listener = Exhausted(real, [errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOMEM])
        taken: list[socket.socket] = []
        pauses: list[float] = []
        with real, socket.create_connection(real.getsockname()):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    accept_all,
                    listener,
                    taken.append,
                    lambda why, pause_s: pauses.append(pause_s),
                )
                for _ in range(10):
                    await wait_all_tasks_blocked()
                    clock.jump(0.4)
                assert len(taken) == 1
                nursery.cancel_scope.cancel()
        assert pauses == [0.1, 0.2, 0.4]
        assert taken[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        taken[0].close()

    run(main, clock)
