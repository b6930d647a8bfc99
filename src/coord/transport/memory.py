"""Links in memory, with hooks for delay, hold-up and breakage: for tests and the simulator."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

import trio

from coord.transport.keeper import Keeper, current_keeper, ticks
from coord.transport.link import CLOSE_ABNORMAL, CLOSE_NORMAL, Link, LinkClosed, LinkEnd, Patience

WINDOW_BYTES: Final = 256 * 1024
"""How much an end takes that nobody reads, as a socket's buffers would; the rest stays with the sender."""


class _Control(Enum):
    PING = "ping"
    PONG = "pong"


class MemoryLink(Link):
    """One end of a `MemoryWire`.

    With a `patience` it pings the other end and gives it up as a link over a socket does; an end that nobody reads
    answers no pings.
    """

    def __init__(self, name: str, peer: str, subprotocol: str, patience: Patience | None = None) -> None:
        self.name = name
        self.peer = peer
        self.subprotocol = subprotocol
        self.other: MemoryLink = self
        """The other end; set by the wire."""
        self.delay_s = 0.0
        """How long what is sent from this end takes to arrive."""
        self.is_held = False
        """Held up: what is sent from this end stays in its buffer."""
        self.is_stopped = False
        """Its process stands still, and so counts no ticks (S11)."""
        self._outbox: deque[tuple[float, bytes | LinkClosed | _Control]] = deque()
        self._outbox_bytes = 0
        self._inbox: list[bytes] = []
        self._inbox_bytes = 0
        self._inbox_end: LinkClosed | None = None
        self.closed: LinkClosed | None = None
        self._reader: trio.lowlevel.Task | None = None
        self._changed = trio.lowlevel.ParkingLot()
        self._is_carrying = False
        self._patience = patience
        self._keeper: Keeper | None = None
        self._heard_at = 0
        self._is_pinged = False
        self._owes_pong = False
        if patience is not None:
            self._keeper = current_keeper()
            self._heard_at = self._keeper.tick
            self._keeper.add(self)

    @property
    def buffered_bytes(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._outbox_bytes

    def send(self, message: bytes) -> None:
        """Send one message without waiting; see `Link.send`."""
        if self.closed is None:
            self._post(message, len(message))

    def _post(self, item: bytes | LinkClosed | _Control, size: int) -> None:
        due = trio.current_time() + self.delay_s if self.delay_s else 0.0
        self._outbox.append((due, item))
        self._outbox_bytes += size
        self.carry()

    def carry(self) -> None:
        """Hand over what may arrive now; what is due later is carried by a task."""
        while self._may_carry():
            _, item = self._outbox.popleft()
            if isinstance(item, bytes):
                self._outbox_bytes -= len(item)
            self.other._arrive(item)
        self._changed.unpark_all()

    def _may_carry(self) -> bool:
        if self.is_held or not self._outbox or self.other._inbox_bytes >= WINDOW_BYTES:
            return False
        due = self._outbox[0][0]
        if due and due > trio.current_time():
            if not self._is_carrying:
                self._is_carrying = True
                trio.lowlevel.spawn_system_task(self._carry_later, name="coord.transport.memory")
            return False
        return True

    async def _carry_later(self) -> None:
        try:
            await trio.sleep_until(self._outbox[0][0] if self._outbox else 0.0)
        finally:
            self._is_carrying = False
        self.carry()

    def _arrive(self, item: bytes | LinkClosed | _Control) -> None:
        if self._keeper is not None:
            self._heard_at = self._keeper.tick
            self._is_pinged = False
        if isinstance(item, _Control):
            self._take_control(item)
            return
        if isinstance(item, LinkClosed):
            self._inbox_end = item
        elif self.closed is None and self._inbox_end is None:
            self._inbox.append(item)
            self._inbox_bytes += len(item)
        self._wake_reader()

    def _take_control(self, item: _Control) -> None:
        if item is _Control.PING and self.closed is None:
            if self._reader is None:
                self._owes_pong = True
            else:
                self._post(_Control.PONG, 0)

    def on_tick(self, tick: int) -> None:
        """Ping, or give up, an end that has been quiet for too long. Called by the keeper."""
        assert self._keeper is not None
        assert self._patience is not None
        if self.closed is not None:
            self._keeper.remove(self)
        elif self._reader is None or self.is_stopped:
            self._heard_at = tick
        elif tick - self._heard_at > ticks(self._patience.give_up_s):
            reason = f"silent for {self._patience.give_up_s:g} s"
            self.finish(LinkClosed(CLOSE_ABNORMAL, reason, LinkEnd.SILENT))
            self._lose()
        elif tick - self._heard_at > ticks(self._patience.idle_s) and not self._is_pinged:
            self._is_pinged = True
            self._post(_Control.PING, 0)

    def _wake_reader(self) -> None:
        if self._reader is not None:
            trio.lowlevel.reschedule(self._reader)
            self._reader = None

    async def recv_many(self) -> list[bytes]:
        """Return all messages that one read completed. Raises `LinkClosed`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._owes_pong:
            self._owes_pong = False
            self._post(_Control.PONG, 0)
        while not self._inbox or self.closed is not None:
            if self.closed is None and self._inbox_end is not None:
                self.closed = self._inbox_end
            if self.closed is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
                raise LinkClosed(self.closed.code, self.closed.reason, self.closed.end)
            await self._park_reader()
        await trio.lowlevel.cancel_shielded_checkpoint()
        messages, self._inbox = self._inbox, []
        self._inbox_bytes = 0
        self.other.carry()
        return messages

    async def _park_reader(self) -> None:
        if self._reader is not None:
            raise trio.BusyResourceError("another task is already receiving from this link")
        self._reader = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def recv(self) -> bytes:
        """Return the next message. Raises `LinkClosed`."""
        messages = await self.recv_many()
        rest = messages[1:]
        self._inbox = rest + self._inbox
        self._inbox_bytes += sum(map(len, rest))
        return messages[0]

    async def wait_drained(self, to_bytes: int = 0) -> None:
        """Wait until at most `to_bytes` are buffered. Raises `LinkClosed`."""
        await trio.lowlevel.checkpoint()
        while self._outbox_bytes > to_bytes and self.closed is None:
            await self._changed.park()
        if self.closed is not None:
            raise LinkClosed(self.closed.code, self.closed.reason, self.closed.end)

    def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """Say goodbye behind what was sent, without waiting."""
        if self.closed is None:
            self.finish(LinkClosed(code, reason, LinkEnd.LOCAL))
            self._post(LinkClosed(code, reason, LinkEnd.PEER), 0)

    def finish(self, end: LinkClosed) -> None:
        """End this end of the link, telling nobody but those who wait at it."""
        if self.closed is None:
            self.closed = end
            self._inbox.clear()
            self._inbox_bytes = 0
            self._wake_reader()
            self._changed.unpark_all()

    def abort(self) -> None:
        """Drop the link and all that is buffered, at once."""
        if self.closed is None:
            self.finish(LinkClosed(CLOSE_ABNORMAL, "aborted", LinkEnd.LOCAL))
            self._lose()

    def _lose(self) -> None:
        """Forget what did not leave, and let the other end see the end of the stream."""
        self._outbox.clear()
        self._outbox_bytes = 0
        self._post(LinkClosed(CLOSE_ABNORMAL, "end of stream", LinkEnd.BROKEN), 0)

    async def aclose(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """Close, wait shortly for what was sent to leave, and free the link."""
        self.close(code, reason)
        await trio.lowlevel.checkpoint()


class MemoryWire:
    """A pair of connected links; `client` and `server` are its ends."""

    def __init__(
        self,
        *,
        client: str = "client",
        server: str = "server",
        subprotocol: str = "",
        delay_s: float = 0.0,
        patience: Patience | None = None,
    ) -> None:
        self.client = MemoryLink(client, server, subprotocol, patience)
        self.server = MemoryLink(server, client, subprotocol, patience)
        self.client.other, self.server.other = self.server, self.client
        self.client.delay_s = self.server.delay_s = delay_s

    def hold(self) -> None:
        """Hold up both directions, as a partition does to TCP: nothing is lost, nothing arrives."""
        self.client.is_held = self.server.is_held = True

    def release(self) -> None:
        """Let what was held up arrive."""
        for end in (self.client, self.server):
            end.is_held = False
            end.carry()

    def reset(self) -> None:
        """Break the wire: both ends see it at once, and what was on the way is lost."""
        for end in (self.client, self.server):
            end.finish(LinkClosed(CLOSE_ABNORMAL, "connection reset", LinkEnd.BROKEN))
            end._outbox.clear()
            end._outbox_bytes = 0
