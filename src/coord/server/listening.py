"""The listening sockets of a port, for clients' connections and members' links alike."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial

import trio
from attrs import define, field

from coord.config import Url
from coord.errors import ConfigError
from coord.transport.listener import accept_all, listen


@define(eq=False)
class Listeners:
    """Sockets bound to URLs: `bind`, then `accept`, and `close`."""

    _sockets: list[tuple[Url, socket.socket]] = field(factory=list)

    @property
    def urls(self) -> list[Url]:
        """What is listened on, with the ports that were chosen."""
        return list(dict.fromkeys(url for url, _ in self._sockets))

    def bind(self, urls: Sequence[Url]) -> list[Url]:
        """Bind every URL; return them with the ports that were chosen. Raises `ConfigError`."""
        bound: list[Url] = []
        for url in urls:
            try:
                sockets = listen(url.host, url.port)
            except OSError as error:
                self.close()
                raise ConfigError(f"cannot listen on {url}: {error.strerror or error}") from error
            actual = Url(url.host, sockets[0].getsockname()[1])
            bound.append(actual)
            self._sockets.extend((actual, sock) for sock in sockets)
        return bound

    def accept(
        self,
        nursery: trio.Nursery,
        take: Callable[[socket.socket], None],
        on_pause: Callable[[Url, str, float], None],
    ) -> None:
        """Give every connection to `take`, in tasks of `nursery`, until they are cancelled.

        `on_pause(url, why, seconds)` is told when there are no descriptors left.
        """
        for url, sock in self._sockets:
            nursery.start_soon(accept_all, sock, take, partial(on_pause, url))

    def close(self) -> None:
        """Close all; connections that were taken go on."""
        for _, sock in self._sockets:
            sock.close()
        self._sockets.clear()
