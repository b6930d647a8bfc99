"""Whose data directory this is, and which life of it (S1).

A directory holds a random *incarnation*, made once, and a *boot* counter with a random nonce, raised and
synced at each start before any link opens. Peers remember the three, in a file of its own: a wiped, restored or
copied directory shows itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from attrs import define, evolve, field, frozen
from crc32c import crc32c

from coord.codec import decode, encode
from coord.disk import Disk, Lock, remove_if_there
from coord.errors import DamageError, DataDirError, DecodeError

IDENTITY_FORMAT: Final = 2
PEERS_FORMAT: Final = 1
_CHECKSUM_BYTES: Final = 4
_FILE: Final = "identity"
_PEERS: Final = "peers"
_PART: Final = ".part"
_LOCK: Final = "lock"

_ANEW: Final = (
    "remove this member from the cluster and add it anew with an empty data directory (a single node: restore a backup)"
)


class Life(IntEnum):
    """How the member came into its cluster; decided once, and durable before its first vote or append (S1)."""

    UNDECIDED = 0
    BOOTSTRAPPED = 1
    """From the flags, with the others that they name."""
    JOINED = 2
    """A cluster that was there: it counts in no quorum until its incarnation is published."""


@frozen
class Identity:
    """What the file says. `incarnation` and `nonce` are random, 1 … 2⁶⁴−1; `boot` counts starts from 1.

    `member` is 0 until a member that was added is told its id; `is_told` says that it was, and is not the flags'.
    """

    member: int
    token_sha256: bytes
    """Of the cluster token, so that a directory of another cluster is not taken for this one's."""
    incarnation: int
    boot: int
    nonce: int
    life: Life = Life.UNDECIDED
    is_told: bool = False


@define
class DataDirectory:
    """A data directory that this process holds the lock of, and where things lie in it.

    `peers` has, for each member whose hello was answered, the `(incarnation, boot, nonce)` that it told last.
    """

    path: Path
    identity: Identity
    is_new: bool
    """True if the directory was made, or was empty, at this start."""
    _lock: Lock
    _disk: Disk
    _peers: dict[int, tuple[int, int, int]] = field(factory=dict)

    @property
    def peers(self) -> Mapping[int, tuple[int, int, int]]:
        """The others' incarnation, boot and nonce by member."""
        return self._peers

    def decide(self, life: Life) -> None:
        """Make durable how this member came into its cluster. Raises ValueError if it is decided otherwise."""
        if self.identity.life is life:
            return
        if self.identity.life is not Life.UNDECIDED:
            raise ValueError(f"member {self.identity.member:x} is {self.identity.life.name}, not {life.name}")
        self._change(evolve(self.identity, life=life))

    def adopt(self, member: int) -> None:
        """Make durable which id this member was told. Raises ValueError if it has another."""
        if self.identity.member == member:
            return
        if self.identity.member:
            raise ValueError(f"this is member {self.identity.member:x}, not {member:x}")
        self._change(evolve(self.identity, member=member, is_told=True))

    def remember_peer(self, member: int, incarnation: int, boot: int, nonce: int) -> None:
        """Make durable who the other is; a hello is answered only afterwards (S1). Raises `DiskFullError`."""
        triple = (incarnation, boot, nonce)
        if self._peers.get(member) == triple:
            return
        peers = {**self._peers, member: triple}
        _write(self._disk, self.path / _PEERS, [PEERS_FORMAT, [[known, *peers[known]] for known in sorted(peers)]])
        # Only now: what a full disk did not take must be tried again.
        self._peers = peers

    def _change(self, identity: Identity) -> None:
        _write_identity(self._disk, self.path, identity)
        self.identity = identity

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

    `member` is the id that the flags give, or 0 if they give none: the cluster then tells it, see `adopt`.
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
        found = _read_identity(disk, path)
        if found is None:
            identity = Identity(member, token_sha256, incarnation=random64(), boot=1, nonce=random64())
        else:
            _check_owner(path, found, member, token_sha256)
            identity = evolve(found, member=found.member or member, boot=found.boot + 1, nonce=random64())
        peers = _read_peers(disk, path)
        # S1: the boot counter is durable before anyone hears of it.
        _write_identity(disk, path, identity)
    except BaseException:
        lock.release()
        raise
    return DataDirectory(path, identity, found is None, lock, disk, peers)


def _read_identity(disk: Disk, path: Path) -> Identity | None:
    if not disk.exists(path / _FILE):
        strangers = [name for name in disk.list(path) if name not in (_LOCK, _FILE + _PART)]
        if strangers:
            raise DamageError(
                f"{path} holds {', '.join(strangers[:3])} but no {_FILE} file: it is not a whole data "
                "directory; choose an empty one, and if this member had data, remove it from the cluster "
                "and add it anew"
            )
        return None
    version, *items = _read(disk, path / _FILE, IDENTITY_FORMAT)
    try:
        if version == 1:
            # Written when every cluster was one node that its flags had made.
            items += (Life.BOOTSTRAPPED, False)
        member, token_sha256, incarnation, boot, nonce, life, is_told = items
        return Identity(member, token_sha256, incarnation, boot, nonce, Life(life), is_told)
    except (TypeError, ValueError) as error:
        raise _damage(path / _FILE) from error


def _read_peers(disk: Disk, path: Path) -> dict[int, tuple[int, int, int]]:
    if not disk.exists(path / _PEERS):
        return {}
    _, rows = _read(disk, path / _PEERS, PEERS_FORMAT)
    return {member: (incarnation, boot, nonce) for member, incarnation, boot, nonce in rows}


def _read(disk: Disk, path: Path, newest: int) -> list[Any]:
    """Return the items of a file, the first of which is its format."""
    file = disk.open(path)
    try:
        data = file.read(0, file.size())
    finally:
        file.close()
    payload = data[_CHECKSUM_BYTES:]
    if len(data) < _CHECKSUM_BYTES or crc32c(payload) != int.from_bytes(data[:_CHECKSUM_BYTES], "big"):
        raise _damage(path)
    try:
        items = decode(payload)
    except DecodeError as error:
        raise _damage(path) from error
    if items[0] > newest:
        raise DataDirError(f"{path} has format {items[0]}, this release knows {newest}: upgrade first")
    found: list[Any] = items
    return found


def _damage(path: Path) -> DamageError:
    return DamageError(f"{path} is not what was written: {_ANEW}")


def _check_owner(path: Path, found: Identity, member: int, token_sha256: bytes) -> None:
    if found.token_sha256 != token_sha256:
        raise DataDirError(
            f"{path} belongs to a cluster with another token: set --initial-cluster-token as it was, or "
            "choose another --data-dir"
        )
    # An id that was told is not the one that the flags would give; and flags that give none claim none.
    if member and found.member not in (0, member) and not found.is_told:
        raise DataDirError(
            f"{path} belongs to member {found.member:x}, not to {member:x}: set --name and the peer URLs as "
            "they were, or choose another --data-dir"
        )


def _write_identity(disk: Disk, path: Path, identity: Identity) -> None:
    items = [identity.member, identity.token_sha256, identity.incarnation, identity.boot, identity.nonce]
    _write(disk, path / _FILE, [IDENTITY_FORMAT, *items, int(identity.life), identity.is_told])


def _write(disk: Disk, path: Path, items: list[Any]) -> None:
    """Replace a file whole: after a crash there is the old one or the new one."""
    payload = encode(items)
    part = path.with_name(path.name + _PART)
    remove_if_there(disk, part)
    file = disk.create(part)
    try:
        file.write_synced(0, [crc32c(payload).to_bytes(_CHECKSUM_BYTES, "big") + payload])
    finally:
        file.close()
    disk.rename(part, path)
    disk.sync_directory(path.parent)
