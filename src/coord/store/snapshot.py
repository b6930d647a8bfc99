"""Snapshot files: one moment of the store (S6), in chunks that are checked as they arrive and hashed as a
whole.

A file is a magic, then chunks, each `length u32, CRC32C u32, payload`; a payload is CBOR: first the header
`["head", format, index, term]`, then `[database, key lengths, keys, value lengths, values]` with values as
the store keeps them, checksum included, and last `["tail", pairs, SHA-256 of all before this chunk]`. A
file without its tail is torn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from struct import Struct
from struct import pack as struct_pack
from struct import unpack as struct_unpack
from typing import Any, Final

from attrs import define, field, frozen
from crc32c import crc32c

from coord.codec import array_head, bytes_head, decode, encode
from coord.disk import Disk, File
from coord.errors import DamageError, DataDirError, DecodeError
from coord.limits import MIB, SNAPSHOT_CHUNK_BYTES
from coord.store.engine import Pair, Stage, View
from coord.store.layout import CONTENT, check_values

SNAPSHOT_FORMAT: Final = 1
MAGIC: Final = b"coord-snapshot\r\n"
PART_SUFFIX: Final = ".part"
SUFFIX: Final = ".snapshot"
_FRAME: Final = Struct(">II")
_CHUNK_BYTES_MAX: Final = SNAPSHOT_CHUNK_BYTES + 4 * MIB
"""A chunk ends with the pair that fills it, which may be a record of the largest request."""

Rest = Callable[[], object]
"""Called between two chunks; it may sleep."""


@frozen
class SnapshotHead:
    """What a snapshot file says of itself."""

    index: int
    term: int
    pairs: int
    size_bytes: int
    sha256: bytes


@define
class _Writer:
    """Appends chunks to a file, each of them synced: one sync of all would keep the log's waiting meanwhile."""

    file: File
    offset: int = 0
    digest: Any = field(factory=hashlib.sha256)

    def write(self, *buffers: bytes) -> None:
        self.file.write_synced(self.offset, buffers)
        for data in buffers:
            self.offset += len(data)
            self.digest.update(data)

    def chunk(self, payload: bytes) -> None:
        self.write(_FRAME.pack(len(payload), crc32c(payload)), payload)


def file_name(index: int, term: int) -> str:
    """Return the name of a finished snapshot; those of one member sort by index."""
    return f"snapshot-{index:020d}-{term:020d}{SUFFIX}"


def no_rest() -> None:
    """Go on at once."""


def write_snapshot(disk: Disk, path: Path, view: View, rest: Rest = no_rest) -> SnapshotHead:
    """Write a view into a new file and sync it; a file that could not be finished is removed."""
    file = disk.create(path)
    try:
        head = _write(_Writer(file), view, rest)
        file.sync()
    except BaseException:
        file.close()
        disk.remove(path)
        raise
    file.close()
    return head


def _write(writer: _Writer, view: View, rest: Rest) -> SnapshotHead:
    index, term = view.applied
    count = 0
    writer.write(MAGIC)
    writer.chunk(encode(["head", SNAPSHOT_FORMAT, index, term]))
    for name in CONTENT:
        for keys, values in _batches(view.pairs(name)):
            # Damage would else go on to members whose own store is whole.
            check_values(name, keys, values)
            count += len(keys)
            writer.chunk(_pack_pairs(name, keys, values))
            rest()
    sha256 = writer.digest.digest()
    writer.chunk(encode(["tail", count, sha256]))
    return SnapshotHead(index, term, count, writer.offset, sha256)


def _batches(pairs: Iterator[Pair]) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Gather keys and values for chunks of about `SNAPSHOT_CHUNK_BYTES`, never more than one pair above it."""
    while True:
        keys: list[bytes] = []
        values: list[bytes] = []
        size = 0
        # Nothing but this, since what is done pair by pair is most of what a snapshot costs.
        for key, value in pairs:
            keys.append(key)
            values.append(value)
            size += len(key) + len(value)
            if size >= SNAPSHOT_CHUNK_BYTES:
                break
        if not keys:
            return
        yield keys, values


def _pack_pairs(name: str, keys: Sequence[bytes], values: Sequence[bytes]) -> bytes:
    # What `encode` would return, in one copy: with it, packing would cost as much as reading the pairs.
    return b"".join([array_head(5), encode(name), *_packed(keys), *_packed(values)])


def _packed(items: Sequence[bytes]) -> Sequence[bytes]:
    """Return the parts of two byte strings: the lengths, and what is that long."""
    lengths = struct_pack(f">{len(items)}I", *map(len, items))
    return [bytes_head(len(lengths)), lengths, bytes_head(sum(map(len, items))), *items]


def _unpack_lengths(lengths: bytes, data: bytes) -> tuple[int, ...]:
    sizes: tuple[int, ...] = struct_unpack(f">{len(lengths) // 4}I", lengths)
    if sum(sizes) != len(data):
        raise ValueError("lengths do not add up")
    return sizes


def _unpack(sizes: Sequence[int], data: bytes) -> list[bytes]:
    return list(map(BytesIO(data).read, sizes))


def read_snapshot(disk: Disk, path: Path, stage: Stage | None = None, rest: Rest = no_rest) -> SnapshotHead:
    """Verify a snapshot file whole, and give its pairs to `stage`, which is not finished here.

    Raises `DamageError` if it is torn or changed, `DataDirError` if a newer release wrote it.
    """
    file = disk.open(path)
    try:
        return _read(file, stage, rest)
    except (DecodeError, ValueError, TypeError, IndexError) as error:
        raise _refused(path, str(error)) from error
    finally:
        file.close()


def _read(file: File, stage: Stage | None, rest: Rest) -> SnapshotHead:
    digest = hashlib.sha256()
    chunks = _chunks(file, digest)
    index, term = _read_head(file.path, next(chunks, None))
    count = 0
    for sha256, payload in chunks:
        name, *parts = decode(payload)
        if name == "tail":
            if parts != [count, sha256] or next(chunks, None) is not None:
                raise ValueError("its tail does not fit what comes before")
            return SnapshotHead(index, term, count, file.size(), sha256)
        if name not in CONTENT:
            raise ValueError(f"it has an unknown part {name!r}")
        key_lengths, keys, value_lengths, values = parts
        key_sizes, value_sizes = _unpack_lengths(key_lengths, keys), _unpack_lengths(value_lengths, values)
        if len(key_sizes) != len(value_sizes):
            raise ValueError("there are not as many values as keys")
        count += len(key_sizes)
        if stage is not None:
            stage.put(name, _unpack(key_sizes, keys), _unpack(value_sizes, values))
        rest()
    raise ValueError("its tail is missing")


def _read_head(path: Path, chunk: tuple[bytes, bytes] | None) -> tuple[int, int]:
    if chunk is None:
        raise ValueError("its head is missing")
    name, version, *rest = decode(chunk[1])
    if name != "head" or type(version) is not int:
        raise ValueError("its head is missing")
    if version > SNAPSHOT_FORMAT:
        raise DataDirError(f"{path} has snapshot format {version}, this release knows {SNAPSHOT_FORMAT}: upgrade first")
    index, term = rest
    return index, term


def _chunks(file: File, digest: Any) -> Iterator[tuple[bytes, bytes]]:
    """Yield `(SHA-256 of all before the chunk, payload)`."""
    magic = file.read(0, len(MAGIC))
    if magic != MAGIC:
        raise ValueError("it does not begin as a snapshot does")
    digest.update(magic)
    offset, size = len(MAGIC), file.size()
    while offset < size:
        frame = file.read(offset, _FRAME.size)
        if len(frame) < _FRAME.size:
            raise ValueError(f"it ends within a chunk at offset {offset}")
        length, checksum = _FRAME.unpack(frame)
        if length > _CHUNK_BYTES_MAX:
            raise ValueError(f"its chunk at offset {offset} is too long")
        payload = file.read(offset + _FRAME.size, length)
        if len(payload) < length or crc32c(payload) != checksum:
            raise ValueError(f"its chunk at offset {offset} is torn or changed")
        before = digest.digest()
        digest.update(frame)
        digest.update(payload)
        offset += _FRAME.size + length
        yield before, payload


def _refused(path: Path, why: str) -> DamageError:
    return DamageError(f"{path} is not a whole snapshot: {why}; fetch or take it again")
