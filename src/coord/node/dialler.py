"""Keeps one link to one member standing: dials, says hello, sends, and dials again.

A member's own messages go on the link that it dialled; what it is sent comes on the other's (S2). So this link is
never read but to learn of its end, which is what S10 is about: a process that died is seen in the moment in which its
link breaks and its port refuses the next one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import trio
from attrs import define, field

from coord.errors import NodeError
from coord.limits import PEER_FRAME_BYTES, PEER_REDIAL_S_MAX, PEER_REDIAL_S_MIN, PEER_SEND_BUFFER_HIGH_BYTES
from coord.node.consensus import Log
from coord.protocol.hello import Purpose, Refusal, Welcome
from coord.protocol.messages import Append, PeerMessage, Propose
from coord.protocol.peer_protocol import encode_frame
from coord.transport.link import CLOSE_GOING_AWAY, CLOSE_PROTOCOL_ERROR, Link, LinkClosed, LinkEnd, LinkFailed

BREAK_CHECK_S: Final = 0.3
"""A port that refuses within this time of a break belongs to a process that has died (S10)."""
CHECK_S_MIN: Final = 0.005
"""Until then a dial that fails otherwise is repeated soon: a dying process may still take a link and reset it."""
STOOD_S: Final = 0.25
"""A link that stood so long was one: the next dial is at once. One that ends sooner may do so again and again."""
_MESSAGE_BYTES: Final = 64
_REMINDER_S_MIN: Final = 5.0
_REMINDER_S_MAX: Final = 60.0


class HelloRefused(LinkFailed):
    """The hello came to nothing; `refusal` says why and what to do.

    `is_theirs`: the member let this one not in. Else this one hung up on what had answered.
    """

    def __init__(self, url: str, refusal: Refusal, *, is_theirs: bool) -> None:
        super().__init__(f"{url}: {refusal.text}")
        self.refusal = refusal
        self.is_theirs = is_theirs


class Switchboard(Protocol):
    """What a dialler needs of `Peers`."""

    log: Log
    clock: Callable[[], float]
    chance: random.Random

    async def open(self, member: int, urls: Sequence[str], purpose: Purpose) -> tuple[Link, Welcome, str]:
        """Return a new link to `member`, its welcome and the URL. Raises `LinkFailed`."""

    def link_up(self, member: int) -> None:
        """The link to `member` stands."""

    def link_broken(self, member: int, is_refused: bool) -> None:
        """The link ended; or, if `is_refused`, the member's process has."""

    def refused(self, member: int, refusal: Refusal) -> None:
        """`member` does not let this node in."""


@define
class Failures:
    """Counts failures in a row and says which of them to log: the first, and then ever more rarely.

    A node that is alone for an hour tells now and then whom it misses.
    """

    count: int = 0
    since: float = 0.0
    _remind_at: float = 0.0
    _pause_s: float = _REMINDER_S_MIN

    def note(self, now: float) -> bool:
        """Count one more; True if it is worth a line."""
        if not self.count:
            self.since = self._remind_at = now
        self.count += 1
        if now < self._remind_at:
            return False
        self._remind_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, _REMINDER_S_MAX)
        return True


@define(eq=False)
class Dialler:
    """The link to one member, and what is to be sent on it."""

    member: int
    urls: tuple[str, ...]
    name: str
    _board: Switchboard
    link: Link | None = None
    """The link while it stands."""
    incarnation: int = 0
    boot: int = 0
    """The data directory of the process at its other end, and its boot."""
    sent_bytes: int = 0
    """Frames of messages, over all links to this member."""
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    _outbox: list[PeerMessage] = field(factory=list)
    _wake: trio.Event = field(factory=trio.Event)
    _attempts: int = 0
    _dialled_at: float = float("-inf")
    _broke_at: float = float("-inf")
    _is_gone: bool = False
    """True once the process was told to have died, until a link stands again."""
    _failures: Failures = field(factory=Failures)

    def post(self, message: PeerMessage) -> None:
        """Send `message` with the next `flush`, or drop it if there is no link."""
        if self.link is not None:
            self._outbox.append(message)

    def flush(self) -> None:
        """Send what was posted; few frames, and none of them waits for room."""
        messages, self._outbox = self._outbox, []
        link = self.link
        if link is None or not messages:
            return
        if link.buffered_bytes > PEER_SEND_BUFFER_HIGH_BYTES:
            # Law 4: Raft sends entries again; what tells that this member lives must not wait behind them.
            kept: list[PeerMessage] = [message for message in messages if not isinstance(message, Append)]
            dropped = len(messages) - len(kept)
            if dropped:
                self._board.log(
                    "peer.link.congested",
                    member=self.member,
                    name=self.name,
                    dropped=dropped,
                    buffered_bytes=link.buffered_bytes,
                )
            messages = kept
        for frame in _frames(messages) if len(messages) > 1 else (messages,):
            data = encode_frame(frame)
            self.sent_bytes += len(data)
            link.send(data)

    def redial(self, *, has_broken: bool = False) -> None:
        """Dial now if there is no link; `has_broken`: because the member's own link broke (S10)."""
        if not self._is_checking():
            if has_broken:
                self._broke_at = self._board.clock()
            self._wake.set()

    def drop(self) -> None:
        """Give the link up and dial again: the process at its other end is no longer the one that answers there."""
        if self.link is not None:
            self.link.abort()

    async def run(self) -> None:
        """Keep the link standing until `scope` is cancelled. Only `NodeError` gets out (law 7)."""
        with self.scope:
            while True:
                await self._pause()
                try:
                    await self._dial_and_serve()
                except LinkFailed as error:
                    self._note_failure(error)
                except NodeError:
                    raise
                except Exception as error:
                    self._board.log("peer.task.failed", member=self.member, name=self.name, error=error)
        if self.scope.cancelled_caught:
            self._board.link_broken(self.member, False)

    def _is_checking(self) -> bool:
        """Tell whether it is being found out if the process has died (S10)."""
        return not self._is_gone and self._board.clock() - self._broke_at <= BREAK_CHECK_S

    async def _pause(self) -> None:
        """S10: the first dial after a link has stood is at once; each further one waits longer, with jitter.

        A sign of life, or of death, cuts the wait short, but two dials are never closer than the shortest wait: links
        that flap cost little.
        """
        if self._attempts:
            least_s = CHECK_S_MIN if self._is_checking() else PEER_REDIAL_S_MIN
            pause_s = min(least_s * 2.0 ** min(self._attempts - 1, 16), PEER_REDIAL_S_MAX)
            with trio.move_on_after(pause_s * self._board.chance.uniform(0.5, 1.0)):
                await self._wake.wait()
            await trio.sleep(max(0.0, self._dialled_at + least_s / 2 - self._board.clock()))
        self._wake = trio.Event()
        self._attempts += 1
        self._dialled_at = self._board.clock()

    async def _dial_and_serve(self) -> None:
        link, welcome, url = await self._board.open(self.member, self.urls, Purpose.MESSAGES)
        opened_at = self._board.clock()
        try:
            self.link, self.incarnation, self.boot = link, welcome.incarnation, welcome.boot
            self._failures = Failures()
            self._is_gone = False
            self._board.log("peer.link.opened", member=self.member, name=self.name, url=url, boot=welcome.boot)
            self._board.link_up(self.member)
            end = await _end_of(link)
        finally:
            self.link = None
            self._outbox = []
            # No waiting here for what is left to be taken: the next dial tells whether the process lives (S10).
            link.close(CLOSE_GOING_AWAY)
            link.abort()
        now = self._board.clock()
        if now - opened_at >= STOOD_S:
            self._attempts = 0
        if end.end is not LinkEnd.SILENT:
            # Silence is no break: a process that is paused, or cut off, may still lead (S10).
            self._broke_at = now
        self._board.log(
            "peer.link.lost", member=self.member, name=self.name, direction="out", end=end.end.value, reason=end.reason
        )
        self._board.link_broken(self.member, False)

    def _note_failure(self, error: LinkFailed) -> None:
        now = self._board.clock()
        if error.is_refused and self._is_checking():
            self._is_gone = True
            self._board.log("peer.process.gone", member=self.member, name=self.name, error=str(error))
            self._board.link_broken(self.member, True)
        is_told = self._failures.note(now)
        if isinstance(error, HelloRefused):
            if error.is_theirs:
                self._board.refused(self.member, error.refusal)
            if is_told:
                self._board.log(
                    "peer.link.refused",
                    member=self.member,
                    name=self.name,
                    code=str(error.refusal.code),
                    reason=str(error),
                )
        elif is_told:
            self._board.log(
                "peer.link.failed",
                member=self.member,
                name=self.name,
                error=str(error),
                is_refused=error.is_refused,
                attempts=self._failures.count,
                ms=round((now - self._failures.since) * 1000, 1),
            )


async def _end_of(link: Link) -> LinkClosed:
    try:
        await link.recv_many()
    except LinkClosed as end:
        return end
    reason = "answers go on the other link"
    link.close(CLOSE_PROTOCOL_ERROR, reason)
    return LinkClosed(CLOSE_PROTOCOL_ERROR, reason, LinkEnd.MISUSED)


def _frames(messages: list[PeerMessage]) -> Iterator[list[PeerMessage]]:
    """Yield `messages` in order, in as few frames as their sizes allow."""
    frame: list[PeerMessage] = []
    frame_bytes = 0
    for message in messages:
        size_bytes = _MESSAGE_BYTES
        if isinstance(message, Append | Propose):
            size_bytes += sum(len(entry[-1]) for entry in message.entries)
        if frame and frame_bytes + size_bytes > PEER_FRAME_BYTES:
            yield frame
            frame, frame_bytes = [], 0
        frame.append(message)
        frame_bytes += size_bytes
    if frame:
        yield frame
