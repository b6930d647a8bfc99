"""The bytes in the store: keys, checksums, versions. `docs/internals/data_layout.md` draws them.

LMDB has no checksums. Each value therefore carries one, over its key and itself: a page that was lost or
misdirected would else give another key's bytes, whole and wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from struct import pack as struct_pack
from typing import Final

from crc32c import crc32c

from coord.errors import DamageError
from coord.mvcc.backend import Table

STORE_FORMAT: Final = 1
"""Raised when the bytes below change; an older release refuses a newer store."""

RECORDS: Final = "records"
OWN: Final = "store"
"""The store's own database: what it knows about itself."""
DATABASES: Final = (RECORDS, *(table.value for table in Table), OWN)
CONTENT: Final = DATABASES[:-1]
"""What a snapshot carries."""

APPLIED_KEY: Final = b"applied"
FORMAT_KEY: Final = b"format"

RECORD_KEY: Final = Struct(">QI")
CHECKSUM: Final = Struct(">I")
CHECKSUM_BYTES: Final = CHECKSUM.size
_APPLIED: Final = Struct(">QQ")
_FORMAT: Final = Struct(">I")

REMEDY: Final = (
    "this member's data is damaged: keep a copy of its data directory, then remove the member and add it "
    "anew with an empty one (a single node: restore a backup)"
)


def seal_value(key: bytes, value: bytes) -> bytes:
    """Return a value as it is stored."""
    return CHECKSUM.pack(crc32c(value, crc32c(key))) + value


def open_value(name: str, key: bytes, stored: bytes) -> bytes:
    """Return the value that was stored under a key; `DamageError` if it is another one's or was changed."""
    value = stored[CHECKSUM_BYTES:]
    if len(stored) < CHECKSUM_BYTES or crc32c(value, crc32c(key)) != CHECKSUM.unpack_from(stored)[0]:
        raise damage(name, key)
    return value


def check_values(name: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    """Raise what `open_value` would for the first value that is not its key's, in less time than asking each."""
    sums = [crc32c(key + stored[CHECKSUM_BYTES:]) for key, stored in zip(keys, values, strict=True)]
    # Joined they are equal only if all are: a value too short to have a checksum makes them shorter.
    if struct_pack(f">{len(sums)}I", *sums) != b"".join([stored[:CHECKSUM_BYTES] for stored in values]):
        for key, stored in zip(keys, values, strict=True):
            open_value(name, key, stored)


def damage(name: str, key: bytes) -> DamageError:
    """Return the error for a value that is not what was written."""
    where = "record {}.{}".format(*RECORD_KEY.unpack(key)) if name == RECORDS else f"row {key!r}"
    return DamageError(f"store database {name}: the checksum of {where} is wrong; {REMEDY}")


def missing(key: int) -> DamageError:
    """Return the error for a record that the index names and the store does not have."""
    return DamageError(f"the store has no record {key >> 32}.{key & 0xFFFFFFFF}, which its index names; {REMEDY}")


def stored_records(records: Sequence[tuple[int, bytes]]) -> tuple[list[bytes], list[bytes]]:
    """Return the keys and values that records are stored as."""
    pack = CHECKSUM.pack
    keys = [key.to_bytes(12, "big") for key, _ in records]
    return keys, [pack(crc32c(record, crc32c(key))) + record for key, (_, record) in zip(keys, records, strict=True)]


def pack_applied(index: int, term: int) -> bytes:
    """Return the stored form of what is applied."""
    return seal_value(APPLIED_KEY, _APPLIED.pack(index, term))


def unpack_applied(stored: bytes | None) -> tuple[int, int]:
    """Return `(index, term)`, `(0, 0)` where nothing was ever applied."""
    if stored is None:
        return 0, 0
    index, term = _APPLIED.unpack(open_value(OWN, APPLIED_KEY, stored))
    return index, term


def pack_format() -> bytes:
    """Return the stored form of this release's format."""
    return seal_value(FORMAT_KEY, _FORMAT.pack(STORE_FORMAT))


def unpack_format(stored: bytes) -> int:
    """Return the format of a store."""
    version: int = _FORMAT.unpack(open_value(OWN, FORMAT_KEY, stored))[0]
    return version
