"""A link over a connected socket: RFC 6455 messages, driven straight from the non-blocking socket.

The opening handshake is over when a `SocketLink` is made. From then on whole binary messages are framed here, at half
of what they cost a general machine; pings, closes, fragments and whatever breaks the rules go through such a sans-I/O
machine, the one of `websockets`. There is no reader task, queue or lock between the socket and whoever takes what
came: these would cost more than all framing.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import trio
from websockets.exceptions import PayloadTooBig
from websockets.frames import Opcode
from websockets.protocol import Protocol as Machine
from websockets.protocol import Side
from websockets.protocol import State as MachineState

from coord.limits import (
    CLOSE_TIMEOUT_S,
    CONTROL_FRAMES_PER_SECOND,
    FRAGMENTS_PER_MESSAGE,
    FRAME_BYTES_MAX,
    MESSAGE_COMPLETE_TIMEOUT_S,
    SEND_BUFFER_HARD_BYTES,
    WRITE_STALL_TIMEOUT_S,
)
from coord.transport.frames import (
    BINARY,
    MASK_BYTES,
    MASKED,
    binary_frame,
    frame_size,
    masked_binary_frame,
    unmask,
)
from coord.transport.hub import current_hub
from coord.transport.keeper import TICK_S, current_keeper, ticks
from coord.transport.link import (
    CLIENT_PATIENCE,
    CLOSE_ABNORMAL,
    CLOSE_NORMAL,
    CLOSE_POLICY,
    CLOSE_TOO_BIG,
    CLOSE_UNSUPPORTED,
    TOGETHER_BYTES,
    Link,
    LinkClosed,
    LinkEnd,
    Patience,
    Take,
)
from coord.transport.listener import peer_name

RECEIVE_BYTES: Final = 64 * 1024

_WRITE_STALL: Final = ticks(WRITE_STALL_TIMEOUT_S)
_MESSAGE_COMPLETE: Final = ticks(MESSAGE_COMPLETE_TIMEOUT_S)
_CLOSE: Final = ticks(CLOSE_TIMEOUT_S)
_CONTROL_FRAMES_PER_TICK: Final = int(CONTROL_FRAMES_PER_SECOND * TICK_S)

# The machine logs each connection; coord has its own events for that.
_SILENT_LOGGER: Final = logging.getLogger("coord.transport.machine")
_SILENT_LOGGER.setLevel(logging.CRITICAL + 1)

_BINARY: Final = Opcode.BINARY
_CONTINUATION: Final = Opcode.CONT
_TEXT: Final = Opcode.TEXT
_CLOSE_FRAME: Final = Opcode.CLOSE


class SocketLink(Link):
    """A WebSocket after its handshake; takes over `sock`, which must not block.

    `received` are bytes that came behind the handshake in the same read. Messages above `max_message_bytes`
    end the link with 1009.
    """

    __slots__ = (
        "_control_frames",
        "_drained",
        "_fd",
        "_fragments",
        "_hard_bytes",
        "_heard_at",
        "_hub",
        "_inbox",
        "_is_flushing",
        "_is_open",
        "_is_pinged",
        "_is_reading",
        "_keeper",
        "_linger_until",
        "_machine",
        "_mask_bit",
        "_max_message_bytes",
        "_needed",
        "_out",
        "_partial_since",
        "_patience",
        "_progress_at",
        "_rest",
        "_sock",
        "closed",
        "peer",
        "subprotocol",
    )

    def __init__(
        self,
        sock: socket.socket,
        *,
        is_client: bool,
        subprotocol: str,
        received: bytes = b"",
        max_message_bytes: int = FRAME_BYTES_MAX,
        hard_bytes: int = SEND_BUFFER_HARD_BYTES,
        patience: Patience = CLIENT_PATIENCE,
    ) -> None:
        self._sock = sock
        """What a TLS layer would wrap: it is asked for no more than `recv` and `send`, and to end."""
        self._fd = sock.fileno()
        self.peer = peer_name(sock)
        self.subprotocol = subprotocol
        self._hard_bytes = hard_bytes
        self._patience = patience
        side = Side.CLIENT if is_client else Side.SERVER
        self._machine = Machine(side, max_size=max_message_bytes, logger=_SILENT_LOGGER)
        self._max_message_bytes = max_message_bytes
        self._mask_bit = 0 if is_client else MASKED
        """Of what is received: a client masks what it sends, a server does not."""
        self._inbox: list[bytes] = []
        self._rest = bytearray()
        """The beginning of a frame; it is looked at again when there are `_needed` bytes."""
        self._needed = 0
        self._fragments: list[bytes] | None = None
        self._out = bytearray()
        self._drained = trio.lowlevel.ParkingLot()
        self.closed: LinkClosed | None = None
        self._is_open = True
        self._is_reading = False
        self._is_flushing = False
        self._is_pinged = False
        self._control_frames = 0
        self._keeper = current_keeper()
        self._hub = current_hub()
        self._heard_at = self._progress_at = self._keeper.tick
        self._partial_since: int | None = None
        """When what has come of a message that is incomplete began to."""
        self._linger_until = 0
        self._keeper.add(self)
        if received:
            self._feed(received)

    @property
    def buffered_bytes(self) -> int:
        """Bytes that the socket has not taken yet."""
        return len(self._out)

    # ---- sending

    def send(self, message: bytes) -> None:
        """Send one message without waiting; see `Link.send`."""
        if self.closed is None:
            self._push(binary_frame(message) if self._mask_bit else masked_binary_frame(message))

    def send_many(self, messages: Sequence[bytes]) -> None:
        """Send some messages with one call of the system if they are short; see `Link.send_many`."""
        if len(messages) == 1 or sum(map(len, messages)) > TOGETHER_BYTES:
            super().send_many(messages)
        elif self.closed is None:
            frame = binary_frame if self._mask_bit else masked_binary_frame
            self._push(b"".join(map(frame, messages)))

    def _push_machine(self) -> None:
        self._push(b"".join(self._machine.data_to_send()))

    def _push(self, data: bytes) -> None:
        # Only whole frames enter the buffer and only this link writes to the socket, so that no cancelled
        # call can leave half a frame behind, in which all later ones would vanish.
        if not data or not self._is_open:
            return
        if self._out:
            self._out += data
        else:
            try:
                taken = self._sock.send(data)
            except BlockingIOError:
                taken = 0
            except OSError as error:
                self._break(error)
                return
            if taken == len(data):
                if self._hub is not None:
                    self._hub.pace.sent()
                return
            self._out += memoryview(data)[taken:]
            self._progress_at = self._keeper.tick
            if not self._is_flushing:
                self._is_flushing = True
                trio.lowlevel.spawn_system_task(self._flush_left_over, name="coord.transport.flusher")
        if len(self._out) > self._hard_bytes:
            self._finish(CLOSE_POLICY, f"{len(self._out)} bytes wait for a side that does not read", LinkEnd.SILENT)
            self.abort()

    async def _flush_left_over(self) -> None:
        try:
            while self._out:
                try:
                    await trio.lowlevel.wait_writable(self._fd)
                except trio.ClosedResourceError:
                    if not self._is_open:
                        return
                    continue
                try:
                    taken = self._sock.send(self._out)
                except BlockingIOError:
                    continue
                except OSError as error:
                    self._break(error)
                    return
                del self._out[:taken]
                self._progress_at = self._keeper.tick
                self._drained.unpark_all()
        except trio.Cancelled:
            self.abort()
            raise
        finally:
            self._is_flushing = False

    async def wait_drained(self, to_bytes: int = 0) -> None:
        """Wait until at most `to_bytes` are buffered. Raises `LinkClosed`."""
        await trio.lowlevel.checkpoint()
        while len(self._out) > to_bytes and self.closed is None:
            await self._drained.park()
        if self.closed is not None:
            raise self._ending()

    # ---- receiving

    async def recv_many(self) -> list[bytes]:
        """Return all messages that one read completed. Raises `LinkClosed`."""
        if self._inbox:
            await trio.lowlevel.checkpoint()
        while not self._inbox:
            if self.closed is not None:
                await trio.lowlevel.checkpoint()
                raise self._ending()
            self._is_reading = True
            try:
                # Waiting first is right for both sides of a closed loop, whose socket is nearly always empty here.
                await trio.lowlevel.wait_readable(self._fd)
            except trio.ClosedResourceError:
                continue
            finally:
                self._is_reading = False
            if self.closed is None:
                self._read()
        messages, self._inbox = self._inbox, []
        return messages

    async def deliver(self, take: Take, pause_bytes: int = SEND_BUFFER_HARD_BYTES) -> LinkClosed:
        """See `Link.deliver`. A task that serves a link this way has no step until its end."""
        hub = self._hub
        if hub is None:
            return await super().deliver(take, pause_bytes)

        def on_readable() -> None:
            if len(self._out) > pause_bytes:
                hub.dismiss(self._fd)
            else:
                self._read()
                if self._inbox:
                    messages, self._inbox = self._inbox, []
                    take(messages)

        await trio.lowlevel.checkpoint()
        if self._inbox:
            messages, self._inbox = self._inbox, []
            take(messages)
        while self.closed is None:
            if len(self._out) > pause_bytes:
                with suppress(LinkClosed):
                    await self.wait_drained(pause_bytes // 2)
                continue
            self._is_reading = True
            try:
                await hub.attend(self._fd, on_readable)
            finally:
                self._is_reading = False
        return self._ending()

    async def recv(self) -> bytes:
        """Return the next message. Raises `LinkClosed`."""
        messages = await self.recv_many()
        self._inbox = messages[1:] + self._inbox
        return messages[0]

    def _read(self) -> None:
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(error)
            return
        if not data:
            self._finish(CLOSE_ABNORMAL, "end of stream", LinkEnd.BROKEN)
            return
        self._heard_at = self._keeper.tick
        self._is_pinged = False
        self._feed(data)

    def _feed(self, data: bytes | bytearray) -> None:
        """Take the messages out of what came: whole ones here, a frame of any other kind by the machine.

        The machine is given whole frames only, so that it is never inside one.
        """
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return
            data, self._rest = rest, bytearray()
            rest = self._rest
        start, end, has_frames = 0, len(data), False
        mask_bit, mask_bytes = self._mask_bit, MASK_BYTES if self._mask_bit else 0
        while start < end:
            head, length = frame_size(data, start)
            if head and (data[start + 1] & MASKED != mask_bit or length > self._max_message_bytes):
                # It says why it takes no such frame; what follows will not be read.
                self._feed_machine(bytes(data[start:]))
                return
            body = start + head + mask_bytes
            after = body + length
            if not head or after > end:
                rest += memoryview(data)[start:]
                self._needed = after - start if head else 0
                break
            has_frames = True
            if data[start] == BINARY and self._fragments is None:
                # A long message is what came last of many pieces: one copy less of it is felt.
                message = data[body:after] if type(data) is bytes else bytes(memoryview(data)[body:after])
                self._inbox.append(unmask(message, bytes(data[body - mask_bytes : body])) if mask_bit else message)
            else:
                self._feed_machine(bytes(data[start:after]))
                if self.closed is not None:
                    return
            start = after
        if self._fragments is None and has_frames:
            self._partial_since = self._keeper.tick if rest else None
        elif self._partial_since is None:
            self._partial_since = self._keeper.tick

    def _feed_machine(self, data: bytes) -> None:
        machine = self._machine
        machine.receive_data(data)
        for frame in machine.events_received():
            opcode = frame.opcode  # type: ignore[union-attr]  # no handshake events after the handshake
            if opcode is _BINARY or opcode is _CONTINUATION:
                self._take_fragment(bytes(frame.data), frame.fin)  # type: ignore[union-attr]
            elif opcode is _TEXT:
                self._fail(CLOSE_UNSUPPORTED, "text messages are not part of the protocol, send binary ones")
            elif opcode is not _CLOSE_FRAME:
                self._control_frames += 1
            if self.closed is not None:
                return
        if self._control_frames > _CONTROL_FRAMES_PER_TICK:
            self._fail(CLOSE_POLICY, "too many control frames")
            return
        if machine.writes:
            self._push_machine()
        if machine.state is not MachineState.OPEN and self.closed is None:
            self._note_end_by_machine()

    def _take_fragment(self, data: bytes, is_last: bool) -> None:
        if self._fragments is None:
            self._fragments = []
        self._fragments.append(data)
        if len(self._fragments) > FRAGMENTS_PER_MESSAGE:
            self._fail(CLOSE_TOO_BIG, f"a message in more than {FRAGMENTS_PER_MESSAGE} fragments")
        elif is_last:
            self._inbox.append(b"".join(self._fragments))
            self._fragments = None

    # ---- the end

    def _fail(self, code: int, reason: str) -> None:
        self._machine.fail(code, reason)
        self._push_machine()
        self._finish(code, reason, LinkEnd.MISUSED)

    def _note_end_by_machine(self) -> None:
        """The machine left its open state by itself: a close message came, or the other side broke the
        rules."""
        machine = self._machine
        if machine.parser_exc is None and machine.close_rcvd is not None:
            self._finish(int(machine.close_rcvd.code), machine.close_rcvd.reason, LinkEnd.PEER)
            return
        sent = machine.close_sent
        code = int(sent.code) if sent is not None else CLOSE_ABNORMAL
        text = "message too big" if isinstance(machine.parser_exc, PayloadTooBig) else str(machine.parser_exc)
        self._finish(code, text, LinkEnd.MISUSED)

    def _break(self, error: OSError) -> None:
        self._finish(CLOSE_ABNORMAL, error.strerror or str(error), LinkEnd.BROKEN)
        self.abort()

    def _finish(self, code: int, reason: str, end: LinkEnd) -> None:
        """Note the end, once, and wake whoever waits on the link."""
        if self.closed is None:
            self.closed = LinkClosed(code, reason, end)
            self._fragments = None
            self._linger_until = self._keeper.tick + _CLOSE + 1
            self._drained.unpark_all()
            if self._is_open:
                if self._hub is not None:
                    self._hub.dismiss(self._fd)
                trio.lowlevel.notify_closing(self._fd)

    def _ending(self) -> LinkClosed:
        assert self.closed is not None
        return LinkClosed(self.closed.code, self.closed.reason, self.closed.end)

    def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """Say goodbye behind what was sent, without waiting."""
        if self.closed is None:
            self._machine.send_close(code, reason)
            self._push_machine()
            self._finish(code, reason, LinkEnd.LOCAL)

    def abort(self) -> None:
        """Drop the link and all that is buffered, at once."""
        self._finish(CLOSE_ABNORMAL, "aborted", LinkEnd.LOCAL)
        if self._is_open:
            self._is_open = False
            self._keeper.remove(self)
            trio.lowlevel.notify_closing(self._fd)
            self._sock.close()
            self._out = bytearray()
            self._drained.unpark_all()

    async def aclose(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """Close, wait shortly for what was sent to leave, and free the link."""
        try:
            self.close(code, reason)
            with trio.move_on_after(CLOSE_TIMEOUT_S):
                await trio.lowlevel.checkpoint()
                while self._out:
                    await self._drained.park()
                await self._linger()
        finally:
            self.abort()

    async def _linger(self) -> None:
        """Half-close, then read to the end: closing with unread bytes would reset what was sent last."""
        try:
            if self._is_open:
                self._sock.shutdown(socket.SHUT_WR)
            while self._is_open and self._read_socket_or_wait():
                await trio.lowlevel.wait_readable(self._fd)
        except (OSError, trio.ClosedResourceError):
            return

    def _read_socket_or_wait(self) -> bool:
        """Discard what has come; return False at the end of the stream."""
        try:
            return bool(self._sock.recv(RECEIVE_BYTES))
        except BlockingIOError:
            return True

    # ---- the timer

    def on_tick(self, tick: int) -> None:
        """Ping, or give up, what has been quiet or unfinished for too long. Called by the keeper."""
        self._control_frames = 0
        if self.closed is not None:
            if tick >= self._linger_until:
                self.abort()
        elif self._out and tick - self._progress_at > _WRITE_STALL:
            self._finish(CLOSE_ABNORMAL, f"nothing was taken for {WRITE_STALL_TIMEOUT_S:g} s", LinkEnd.SILENT)
            self.abort()
        elif self._partial_since is not None and tick - self._partial_since > _MESSAGE_COMPLETE:
            self._fail(CLOSE_POLICY, f"a message was not completed in {MESSAGE_COMPLETE_TIMEOUT_S:g} s")
        elif not self._is_reading:
            # Nothing can be heard while the owner does not read, so nothing is concluded from silence.
            self._heard_at = tick
        elif tick - self._heard_at > ticks(self._patience.give_up_s):
            self._finish(CLOSE_ABNORMAL, f"silent for {self._patience.give_up_s:g} s", LinkEnd.SILENT)
            self.abort()
        elif tick - self._heard_at > ticks(self._patience.idle_s) and not self._is_pinged:
            # S30: an idle connection is pinged, so that a dead one is noticed in time.
            self._is_pinged = True
            self._machine.send_ping(b"")
            self._push_machine()
