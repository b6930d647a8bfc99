"""Records: the CBOR of coord.cddl's `key-value`, as it is stored and as it leaves in frames.

A tombstone is a record with version, create revision and lease 0 and an empty value.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from coord.codec import bytes_head, decode_trusted, uint

_REVISIONS: Final = Struct(">BIBI")
_REVISIONS_EARLY: Final = Struct(">BHBI")
_VERSIONS: Final = tuple(uint(version) + b"\0" for version in range(1024))
"""Versions, and no lease behind them."""
_HEADS: Final = tuple(b"\x86" + bytes_head(length) for length in range(256))

Fields = tuple[bytes, int, int, int, int, bytes]
"""`(key, create_revision, mod_revision, version, lease, value)`."""


def encode_record(key: bytes, create: int, mod: int, version: int, lease: int, value: bytes) -> bytes:
    """Return the record, byte for byte what `codec.encode` makes of the array, at a fifth of the time."""
    # A store spends its life between these two: there a revision has a head of one byte and four bytes.
    if not 0x10000 <= mod < 0x100000000 or create < 0x100:
        revisions = uint(create) + uint(mod)
    elif create < 0x10000:
        revisions = _REVISIONS_EARLY.pack(0x19, create, 0x1A, mod)
    else:
        revisions = _REVISIONS.pack(0x1A, create, 0x1A, mod)
    length = len(key)
    return b"".join(
        (
            _HEADS[length] if length < 256 else b"\x86" + bytes_head(length),
            key,
            revisions,
            _VERSIONS[version] if version < 1024 and not lease else uint(version) + uint(lease),
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
