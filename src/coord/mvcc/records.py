"""Records: the CBOR of coord.cddl's `key-value`, as it is stored and as it leaves in frames.

A tombstone is a record with version, create revision and lease 0 and an empty value.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from coord.codec import bytes_head, decode_trusted, uint

_REVISIONS: Final = Struct(">BIBI")

Fields = tuple[bytes, int, int, int, int, bytes]
"""`(key, create_revision, mod_revision, version, lease, value)`."""


def encode_record(key: bytes, create: int, mod: int, version: int, lease: int, value: bytes) -> bytes:
    """Return the record, byte for byte what `codec.encode` makes of the array, at a fifth of the time."""
    # A store spends its life between these two: there both have a head of one byte and four bytes.
    is_usual = create >= 0x10000 and mod < 0x100000000
    return b"".join(
        (
            b"\x86",
            bytes_head(len(key)),
            key,
            _REVISIONS.pack(0x1A, create, 0x1A, mod) if is_usual else uint(create) + uint(mod),
            uint(version),
            uint(lease) if lease else b"\0",
            bytes_head(len(value)),
            value,
        )
    )


def encode_tombstone(key: bytes, mod: int) -> bytes:
    """Return the record of a delete."""
    return b"".join((b"\x86", bytes_head(len(key)), key, b"\0", uint(mod), b"\0\0\x40"))


def decode_record(record: bytes) -> Fields:
    """Return the fields of a record that this node, or one like it, encoded."""
    fields: Fields = tuple(decode_trusted(record))
    return fields
