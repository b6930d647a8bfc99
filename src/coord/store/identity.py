"""Whose data directory this is, and which life of it (S1).

A directory holds a random *incarnation*, made once, and a *boot* counter with a random nonce, raised and
synced at each start before any link opens. Peers remember the three: a wiped, restored or copied directory
shows itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from attrs import define, evolve, frozen
from crc32c import crc32c

from coord.codec import decode, encode
from coord.disk import Disk, Lock
from coord.errors import DamageError, DataDirError, DecodeError

IDENTITY_FORMAT: Final = 1
_CHECKSUM_BYTES: Final = 4
_FILE: Final = "identity"
_PART: Final = "identity.part"
_LOCK: Final = "lock"


@frozen
class Identity:
    """What the file says. `incarnation` and `nonce` are random, 1 … 2⁶⁴−1; `boot` counts starts from 1."""

    member: int
    token_sha256: bytes
    """Of the cluster token, so that a directory of another cluster is not taken for this one's."""
    incarnation: int
    boot: int
    nonce: int


@define
class DataDirectory:
    """A data directory that this process holds the lock of, and where things lie in it."""

    path: Path
    identity: Identity
    is_new: bool
    """True if the directory was made, or was empty, at this start."""
    _lock: Lock

    @property
    def wal(self) -> Path:
        """The log's segments."""
        return self.path / "wal"

    @property
    def store(self) -> Path:
        """The store."""
        return self.path / "store"

    @property
    def snapshots(self) -> Path:
        """Snapshot files."""
        return self.path / "snapshots"

    def close(self) -> None:
        """Let another process use the directory."""
        self._lock.release()


def open_data_directory(
    disk: Disk, path: Path, *, member: int, token: str, random64: Callable[[], int]
) -> DataDirectory:
    """Lock a data directory, made if need be, and begin a new boot of it; all of it is durable on return.

    `random64` gives random numbers 1 … 2⁶⁴−1. Raises `DataDirError` if another process holds the directory,
    if it is another member's or cluster's, or if a newer release wrote it; `DamageError` if it holds data
    but no identity.
    """
    if not disk.exists(path):
        disk.make_directory(path)
        disk.sync_directory(path.parent)
    lock = disk.lock(path / _LOCK)
    try:
        token_sha256 = hashlib.sha256(token.encode()).digest()
        found = _read(disk, path)
        if found is None:
            identity = Identity(member, token_sha256, incarnation=random64(), boot=1, nonce=random64())
        else:
            _check_owner(path, found, member, token_sha256)
            identity = evolve(found, boot=found.boot + 1, nonce=random64())
        _write(disk, path, identity)
    except BaseException:
        lock.release()
        raise
    return DataDirectory(path, identity, found is None, lock)


def _read(disk: Disk, path: Path) -> Identity | None:
    if not disk.exists(path / _FILE):
        strangers = [name for name in disk.list(path) if name not in (_LOCK, _PART)]
        if strangers:
            raise DamageError(
                f"{path} holds {', '.join(strangers[:3])} but no {_FILE} file: it is not a whole data "
                "directory; choose an empty one, and if this member had data, remove it from the cluster "
                "and add it anew"
            )
        return None
    file = disk.open(path / _FILE)
    try:
        data = file.read(0, file.size())
    finally:
        file.close()
    return _decode(path / _FILE, data)


def _decode(path: Path, data: bytes) -> Identity:
    payload = data[_CHECKSUM_BYTES:]
    if len(data) < _CHECKSUM_BYTES or crc32c(payload) != int.from_bytes(data[:_CHECKSUM_BYTES], "big"):
        raise _damage(path)
    try:
        version, *items = decode(payload)
        if version > IDENTITY_FORMAT:
            raise DataDirError(f"{path} has format {version}, this release knows {IDENTITY_FORMAT}: upgrade first")
        return Identity(*items)
    except (DecodeError, TypeError, ValueError) as error:
        raise _damage(path) from error


def _damage(path: Path) -> DamageError:
    return DamageError(
        f"{path} is not what was written: remove this member from the cluster and add it anew with an "
        "empty data directory (a single node: restore a backup)"
    )


def _check_owner(path: Path, found: Identity, member: int, token_sha256: bytes) -> None:
    if found.token_sha256 != token_sha256:
        raise DataDirError(
            f"{path} belongs to a cluster with another token: set --initial-cluster-token as it was, or "
            "choose another --data-dir"
        )
    if found.member != member:
        raise DataDirError(
            f"{path} belongs to member {found.member:x}, not to {member:x}: set --name and the peer URLs as "
            "they were, or choose another --data-dir"
        )


def _write(disk: Disk, path: Path, identity: Identity) -> None:
    """Replace the file whole: after a crash there is the old one or the new one."""
    items = [identity.member, identity.token_sha256, identity.incarnation, identity.boot, identity.nonce]
    payload = encode([IDENTITY_FORMAT, *items])
    part = path / _PART
    if disk.exists(part):
        disk.remove(part)
    file = disk.create(part)
    try:
        file.write_synced(0, [crc32c(payload).to_bytes(_CHECKSUM_BYTES, "big") + payload])
    finally:
        file.close()
    disk.rename(part, path / _FILE)
    # S1: the boot counter is durable before anyone hears of it.
    disk.sync_directory(path)
