"""A snapshot on its way to another member: a head, chunks in order, one result (peer.cddl).

It has a connection of its own (S6), which begins with a hello whose purpose is a snapshot. The file checks itself, so
that nothing here hashes it again.
"""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from coord.codec import array_head, bytes_head, decode, encode, uint
from coord.errors import DecodeError
from coord.protocol.ops import PeerFrame
from coord.protocol.shapes import BYTES, TEXT, UINT, Field, name_of, read_fields


@frozen
class SnapshotHead:
    """What follows: `size_bytes` of a snapshot of `index` and `log_term`, sent by the leader of `term`."""

    sender: int
    to: int
    term: int
    index: int
    log_term: int
    size_bytes: int


@frozen
class SnapshotChunk:
    """The file's bytes from `offset`; chunks come in order and without gaps."""

    offset: int
    data: bytes


@frozen
class SnapshotResult:
    """The receiver's word at the end: `refusal` is empty if the snapshot is its state now, else says why not."""

    refusal: str = ""


SnapshotFrame = SnapshotHead | SnapshotChunk | SnapshotResult

_KIND: Final = Field("kind", UINT)
_FRAMES: Final[dict[PeerFrame, tuple[type[Any], tuple[Field, ...]]]] = {
    PeerFrame.SNAPSHOT_HEAD: (
        SnapshotHead,
        (
            _KIND,
            Field("sender", UINT),
            Field("to", UINT),
            Field("term", UINT),
            Field("index", UINT),
            Field("log_term", UINT),
            Field("size_bytes", UINT),
        ),
    ),
    PeerFrame.SNAPSHOT_CHUNK: (SnapshotChunk, (_KIND, Field("offset", UINT), Field("data", BYTES))),
    PeerFrame.SNAPSHOT_RESULT: (SnapshotResult, (_KIND, Field("refusal", TEXT))),
}
_CHUNK_HEAD: Final = array_head(3) + uint(PeerFrame.SNAPSHOT_CHUNK)


def encode_snapshot_frame(frame: SnapshotFrame) -> bytes:
    """Return the message that carries `frame`."""
    if type(frame) is SnapshotChunk:
        # What `encode` would return, with the data copied but once, since it is done on the loop.
        return b"".join((_CHUNK_HEAD, uint(frame.offset), bytes_head(len(frame.data)), frame.data))
    for kind, (make, fields) in _FRAMES.items():
        if type(frame) is make:
            return encode([int(kind), *[getattr(frame, field.name) for field in fields[1:]]])
    raise TypeError(f"{frame!r} is no frame of a snapshot")


def decode_snapshot_frame(data: bytes) -> SnapshotFrame:
    """Return the frame that `data` holds; raises `DecodeError`, which says what is wrong."""
    items = decode(data)
    kind = items[0] if type(items) is list and items else items
    if type(kind) is not int or kind not in _BY_KIND:
        raise DecodeError(f"a snapshot has no frame of kind {name_of(kind)}")
    make, fields = _BY_KIND[kind]
    frame: SnapshotFrame = make(*read_fields(f"a frame of kind {kind}", items, fields)[1:])
    return frame


_BY_KIND: Final = {int(kind): what for kind, what in _FRAMES.items()}
