"""Records: the CBOR of coord.cddl's `key-value`, as it is stored and as it leaves in frames.

A tombstone is a record with version, create revision and lease 0 and an empty value.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from coord.codec import bytes_head, decode_trusted, uint

_NUMBERS: Final = Struct(">BIBIBB")
_HEADS: Final = tuple(b"\x86" + bytes_head(length) for length in range(256))

Fields = tuple[bytes, int, int, int, int, bytes]
"""`(key, create_revision, mod_revision, version, lease, value)`."""


def encode_record(key: bytes, create: int, mod: int, version: int, lease: int, value: bytes) -> bytes:
    """Return the record, byte for byte what `codec.encode` makes of the array, at a fifth of the time."""
    if create >= 0x10000 and mod < 0x100000000 and version < 24 and not lease:
        # Most are so: the revisions, between which a store spends its life, take a byte and four, the others one.
        numbers = _NUMBERS.pack(0x1A, create, 0x1A, mod, version, 0)
    else:
        numbers = uint(create) + uint(mod) + uint(version) + uint(lease)
    length = len(key)
    head = _HEADS[length] if length < 256 else b"\x86" + bytes_head(length)
    return b"".join((head, key, numbers, bytes_head(len(value)), value))


def encode_tombstone(key: bytes, mod: int) -> bytes:
    """Return the record of a delete."""
    return b"".join((b"\x86", bytes_head(len(key)), key, b"\0", uint(mod), b"\0\0\x40"))


def decode_record(record: bytes) -> Fields:
    """Return the fields of a record that this node, or one like it, encoded."""
    fields: Fields = tuple(decode_trusted(record))
    return fields
