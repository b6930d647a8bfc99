"""The seam between those who speak a protocol and what carries their bytes.

A link carries whole messages, in order, both ways. Sending never waits: what the other side does not take
yet is buffered, and whoever sends much looks at `buffered_bytes`. Receiving waits, and is where the end of
a link is told.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from types import TracebackType
from typing import Final, Self

from attrs import frozen

from coord.errors import CoordError
from coord.limits import PING_GIVE_UP_S, PING_IDLE_S, SEND_BUFFER_HARD_BYTES

CLOSE_NORMAL: Final = 1000
CLOSE_GOING_AWAY: Final = 1001
CLOSE_PROTOCOL_ERROR: Final = 1002
CLOSE_UNSUPPORTED: Final = 1003
CLOSE_ABNORMAL: Final = 1006
"""Never sent: there was no close message."""
CLOSE_INVALID_DATA: Final = 1007
CLOSE_POLICY: Final = 1008
CLOSE_TOO_BIG: Final = 1009
CLOSE_INTERNAL: Final = 1011
CLOSE_RESTART: Final = 1012
CLOSE_TRY_LATER: Final = 1013

TOGETHER_BYTES: Final = 16 * 1024
"""Messages of no more bytes leave by one call of the system, and come together; to join more costs what it spares."""


class LinkEnd(Enum):
    """How a link ended. S10 asks: an end of stream is a sign that the process died, silence is none."""

    LOCAL = "local"
    """This side closed it."""
    PEER = "peer"
    """The other side said goodbye with a close message."""
    BROKEN = "broken"
    """Reset, or end of stream without a close message."""
    SILENT = "silent"
    """Given up: pings were not answered, or nothing that was sent was taken."""
    MISUSED = "misused"
    """The other side broke the protocol; it was told how in a close message."""


class LinkClosed(CoordError):
    """The link has ended; `code` and `reason` as in RFC 6455 §7.4, `end` tells who ended it."""

    def __init__(self, code: int, reason: str, end: LinkEnd) -> None:
        super().__init__(f"link closed ({end.value}, {code})" + (f": {reason}" if reason else ""))
        self.code = code
        self.reason = reason
        self.end = end


class LinkFailed(CoordError):
    """A link could not be opened; the message names the address and says why.

    `is_refused` tells that the host answered and nobody listens there (S10 asks); `status` is the HTTP status
    of a server that declined the handshake, else 0.
    """

    def __init__(self, text: str, *, is_refused: bool = False, status: int = 0) -> None:
        super().__init__(text)
        self.is_refused = is_refused
        self.status = status


@frozen
class Patience:
    """How long a quiet link is trusted: after `idle_s` it is pinged, after `give_up_s` it has ended (S30)."""

    idle_s: float = PING_IDLE_S
    give_up_s: float = PING_GIVE_UP_S


CLIENT_PATIENCE: Final = Patience()


Take = Callable[[list[bytes]], None]
"""Handles messages that came, at least one, in order."""


class Link(ABC):
    """A message link. One task receives; any code on the loop may send.

    A link is closed by its owner: `async with link:` or `await link.aclose()`.
    """

    __slots__ = ()

    peer: str
    """The other side's address, for logs."""
    subprotocol: str
    """The subprotocol that both sides agreed on."""
    closed: LinkClosed | None
    """How the link ended, or None while it is open."""

    @property
    @abstractmethod
    def buffered_bytes(self) -> int:
        """How many bytes were sent here that the other side has not yet taken."""

    @abstractmethod
    def send(self, message: bytes) -> None:
        """Send one message without waiting.

        After the end of the link it does nothing: the receiving task is told. Beyond the link's hard bound of
        buffered bytes the link is cut off.
        """

    def send_many(self, messages: Sequence[bytes]) -> None:
        """Send some messages in order, each as `send` does."""
        for message in messages:
            self.send(message)

    @abstractmethod
    async def recv_many(self) -> list[bytes]:
        """Return all messages that one read completed, at least one.

        Raises `LinkClosed` when the link has ended and all messages before its end were returned. A
        cancelled call loses nothing.
        """

    async def deliver(self, take: Take, pause_bytes: int = SEND_BUFFER_HARD_BYTES) -> LinkClosed:
        """Give what each read completed to `take`, until the link has ended; return how. Raises what `take` raises.

        While more than `pause_bytes` wait to be sent nothing is read, until half of them have left: whoever does not
        read its answers is not read either.
        """
        try:
            while True:
                messages = await self.recv_many()
                if self.buffered_bytes > pause_bytes:
                    await self.wait_drained(pause_bytes // 2)
                take(messages)
        except LinkClosed as end:
            return end

    @abstractmethod
    async def recv(self) -> bytes:
        """Return the next message; the slower form of `recv_many`, for handshakes and tests."""

    @abstractmethod
    async def wait_drained(self, to_bytes: int = 0) -> None:
        """Wait until at most `to_bytes` are buffered. Raises `LinkClosed` if the link ends before."""

    @abstractmethod
    def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """Say goodbye behind what was sent, without waiting; the receiving task gets `LinkClosed`."""

    @abstractmethod
    def abort(self) -> None:
        """Drop the link and all that is buffered, at once."""

    @abstractmethod
    async def aclose(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """Close, give what was sent a moment to leave, and free the link. If cancelled, it aborts."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
