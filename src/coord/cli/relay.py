"""Relays in front of local nodes: their peers reach them only through one, so that links can be cut and spoiled.

A node advertises its relay's address as its peer URL. Faults belong to a *directed* link, from dialler to node. All
others dial the one relay, since the flags of all nodes are equal; so who dials is read from the first message of a
link, its hello, which holds the dialler's peer URL (S2).

A relay listens exactly while its node does: a peer of a killed node is refused at once, as it would be without
relays, and concludes the same from it (S10).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import Final

import trio
from attrs import define, field, frozen

from coord.codec import encode
from coord.errors import ProtocolViolation

HOST: Final = "127.0.0.1"
_CHUNK_BYTES: Final = 64 * 1024
_HELLO_BYTES_MAX: Final = 256 * 1024
_PROBE_INTERVAL_S: Final = 0.05
_DYING_S: Final = 0.005
"""A process that is killed loses its sockets one after the other, not all at one moment."""
_HEAD_END: Final = b"\r\n\r\n"
_RESET: Final = struct.pack("ii", 1, 0)
"""Linger for no time: closing sends a reset."""


@frozen
class LinkFault:
    """What is wrong with a link.

    `is_cut`: it is reset, and so is each new one. `is_silent`: it stands, but nothing comes through, as when packets
    are lost; what was sent arrives when that ends. `delay_s`: how long each piece is held up. `bytes_left`: it is reset
    behind so many more bytes, in the middle of a frame where that is less than one.
    """

    is_cut: bool = False
    is_silent: bool = False
    delay_s: float = 0.0
    bytes_left: int | None = None


SOUND: Final = LinkFault()


class HelloReader:
    """Finds the first message of a WebSocket's dialler in its bytes. Pure."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._frame = bytearray()
        self._is_past_head = False

    def feed(self, data: bytes) -> tuple[bytes, bytes, bytes | None]:
        """Take bytes; return those to pass on at once, those to hold back, and the message if it is complete.

        The request's head passes, since the node answers it before the hello is sent; the hello is held back until its
        link is known. Raises `ProtocolViolation` for what is no WebSocket.
        """
        if not self._is_past_head:
            self._head += data
            end = self._head.find(_HEAD_END)
            if end < 0:
                return data, b"", None
            end += len(_HEAD_END)
            self._is_past_head = True
            self._frame += self._head[end:]
            passing = data[: len(data) - len(self._frame)]
        else:
            self._frame += data
            passing = b""
        if max(len(self._head), len(self._frame)) > _HELLO_BYTES_MAX:
            raise ProtocolViolation("no hello in the first bytes of a link")
        return passing, bytes(self._frame), self._message()

    def _message(self) -> bytes | None:
        """Return the payload of the first frame (RFC 6455 §5.2), None while it is not all there."""
        frame = self._frame
        if len(frame) < 2:
            return None
        if not frame[1] & 0x80:
            raise ProtocolViolation("a dialler's frame is masked")
        length, at = frame[1] & 0x7F, 2
        extended = {126: 2, 127: 8}.get(length, 0)
        if extended:
            length, at = int.from_bytes(frame[2 : 2 + extended], "big"), 2 + extended
        mask, payload = frame[at : at + 4], frame[at + 4 : at + 4 + length]
        if len(frame) < at + 4 + length:
            return None
        return bytes(byte ^ mask[position % 4] for position, byte in enumerate(payload))


class _SpoiledError(Exception):
    """A fault ends a passage by a reset."""


@define(eq=False)
class _Passage:
    """One connection through a relay: `front` comes from the dialler, `back` goes to the node."""

    front: trio.SocketStream
    back: trio.SocketStream
    scope: trio.CancelScope
    dialler: str = ""
    """Empty until its hello was seen."""
    bytes_left: int | None = None

    def reset(self) -> None:
        """End both sides by a reset, as a crash or a middlebox does."""
        for stream in (self.front, self.back):
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


@define(eq=False)
class Relay:
    """The relay of one node: from `port`, which its peers dial, to `target_port`, where it listens.

    `names` has the names of the nodes by the peer URLs that they advertise.
    """

    port: int
    target_port: int
    names: Mapping[str, str]
    _faults: dict[str, LinkFault] = field(factory=dict)
    _passages: set[_Passage] = field(factory=set)
    _listeners: list[trio.SocketListener] = field(factory=list)
    _changed: trio.Event = field(factory=trio.Event)

    def set_fault(self, dialler: str, fault: LinkFault) -> None:
        """Change what is wrong with the links of `dialler`, those that stand and those to come."""
        self._faults[dialler] = fault
        for passage in self._passages:
            if passage.dialler == dialler:
                passage.bytes_left = fault.bytes_left
                if fault.is_cut:
                    passage.reset()
                    passage.scope.cancel()
        self._changed.set()
        self._changed = trio.Event()

    async def run(self) -> None:
        """Relay until cancelled. Raises `OSError` if the port is taken."""
        async with trio.open_nursery() as passages:
            while True:
                if not await self._is_node_listening():
                    await trio.sleep(_PROBE_INTERVAL_S)
                    continue
                self._listeners = await trio.open_tcp_listeners(self.port, host=HOST)
                try:
                    await trio.serve_listeners(self._serve, self._listeners, handler_nursery=passages)
                except* trio.ClosedResourceError:
                    pass  # the node went, and with it the listeners
                finally:
                    self._stop_listening()

    async def _is_node_listening(self) -> bool:
        try:
            stream = await trio.open_tcp_stream(HOST, self.target_port)
        except OSError:
            return False
        await trio.aclose_forcefully(stream)
        return True

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.socket.close()
        self._listeners = []

    async def _serve(self, front: trio.SocketStream) -> None:
        try:
            back = await trio.open_tcp_stream(HOST, self.target_port)
        except OSError:
            self._stop_listening()
            front.socket.close()
            return
        try:
            with trio.CancelScope() as scope:
                await self._carry(_Passage(front, back, scope))
        finally:
            front.socket.close()
            back.socket.close()

    async def _carry(self, passage: _Passage) -> None:
        self._passages.add(passage)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._forth, passage, nursery.cancel_scope)
                await self._back(passage)
                nursery.cancel_scope.cancel()
        except* (OSError, trio.BrokenResourceError, ProtocolViolation, _SpoiledError):
            passage.reset()
        finally:
            self._passages.discard(passage)
        # The peer dials again as soon as it hears of the end: by then it must be known whether the node lives.
        await trio.sleep(_DYING_S)
        if not await self._is_node_listening():
            self._stop_listening()

    async def _forth(self, passage: _Passage, scope: trio.CancelScope) -> None:
        """Carry what the dialler sends."""
        reader, message, held = HelloReader(), None, b""
        while message is None:
            data = await passage.front.receive_some(_CHUNK_BYTES)
            if not data:
                scope.cancel()
                return
            passing, held, message = reader.feed(data)
            if passing:
                await passage.back.send_all(passing)
        passage.dialler = self._dialler_of(message)
        fault = self._fault_of(passage)
        if fault.is_cut:
            raise _SpoiledError
        passage.bytes_left = fault.bytes_left
        while held:
            await self._deliver(passage, held)
            held = await passage.front.receive_some(_CHUNK_BYTES)
        scope.cancel()

    def _dialler_of(self, hello: bytes) -> str:
        return next((name for url, name in self.names.items() if encode(url) in hello), "")

    async def _deliver(self, passage: _Passage, data: bytes) -> None:
        await self._wait_heard(passage)
        if delay_s := self._fault_of(passage).delay_s:
            await trio.sleep(delay_s)
        if passage.bytes_left is not None:
            if len(data) > passage.bytes_left:
                await passage.back.send_all(data[: passage.bytes_left])
                raise _SpoiledError
            passage.bytes_left -= len(data)
        await passage.back.send_all(data)

    async def _back(self, passage: _Passage) -> None:
        """Carry what the node answers."""
        while data := await passage.back.receive_some(_CHUNK_BYTES):
            await self._wait_heard(passage)
            await passage.front.send_all(data)

    async def _wait_heard(self, passage: _Passage) -> None:
        while self._fault_of(passage).is_silent:
            await self._changed.wait()

    def _fault_of(self, passage: _Passage) -> LinkFault:
        return self._faults.get(passage.dialler, SOUND)
