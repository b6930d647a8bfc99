"""A disk in memory that forgets what was not synced, as cruelly as a real one may.

Fault model. A file has two images: what its readers see and what is durable. Between them lie, block by
block of 512 bytes, all versions written since the last sync. A power failure keeps for each block any one
of these versions or the durable one, for each file any of the sizes it had, and of the names that were
made, changed or removed since the last directory sync any subset: so writes are torn, lost and reordered,
and names and data are independent. A block is never half written. `write_synced` makes durable what it
wrote and nothing else.

A failed sync leaves some of its blocks durable, and forgets that the others are dirty. Both styles of
kernels exist: either readers go on seeing the new bytes, which will never reach the disk, or the old ones
come back.

All of it is driven by the seed, so that one number repeats a run. Calls return at once; whoever needs their
duration lets a simulated worker take it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Final

from attrs import Factory, define, field

from coord.errors import DataDirError, DiskError, DiskFullError

BLOCK: Final = 512

Choose = Callable[[int], int]
"""Given n, returns 0 … n−1: which of n states a power failure leaves; 0 is always the durable one, n−1 the
newest."""


class SyncFailure(Enum):
    """What a kernel shows of dirty pages whose write-out failed."""

    KEEPS_CLEAN = "the new bytes, marked clean"
    DROPS = "the old bytes"


@define(eq=False)
class _Inode:
    """A file's two images. `pending` has for each dirty block its versions since the last sync, oldest
    first."""

    image: bytearray = Factory(bytearray)
    durable: bytearray = Factory(bytearray)
    pending: dict[int, list[bytes]] = field(factory=dict)
    sizes: list[int] = field(factory=list)
    """Sizes since the last sync of this file, oldest first."""

    def block(self, number: int) -> bytes:
        return bytes(self.image[number * BLOCK : (number + 1) * BLOCK]).ljust(BLOCK, b"\0")

    def write(self, offset: int, data: bytes) -> range:
        """Change the readers' image; return the blocks touched."""
        if not data:
            return range(0)
        end = offset + len(data)
        if end > len(self.image):
            self.resize(end)
        self.image[offset:end] = data
        blocks = range(offset // BLOCK, -(-end // BLOCK))
        for number in blocks:
            self.pending.setdefault(number, []).append(self.block(number))
        return blocks

    def resize(self, size: int) -> None:
        self.image[size:] = bytes(max(size - len(self.image), 0))
        for number in [number for number in self.pending if number * BLOCK >= size]:
            del self.pending[number]
        self.sizes.append(size)

    def settle(self, blocks: Sequence[int] | range) -> None:
        """Make blocks and the size durable."""
        if self.sizes:
            self._settle_size(self.sizes[-1])
            self.sizes.clear()
        for number in blocks:
            versions = self.pending.pop(number, None)
            if versions is not None:
                self._settle_block(number, versions[-1])

    def _settle_size(self, size: int) -> None:
        self.durable[size:] = bytes(max(size - len(self.durable), 0))

    def _settle_block(self, number: int, content: bytes) -> None:
        start = number * BLOCK
        room = len(self.durable) - start
        if room > 0:
            self.durable[start : start + BLOCK] = content[:room]

    def lose_power(self, choose: Choose) -> _Inode:
        """Return what a power failure leaves of this file."""
        left = _Inode(durable=bytearray(self.durable))
        if self.sizes and (chosen := choose(len(self.sizes) + 1)):
            left._settle_size(self.sizes[chosen - 1])
        for number in sorted(self.pending):
            versions = self.pending[number]
            if chosen := choose(len(versions) + 1):
                left._settle_block(number, versions[chosen - 1])
        left.image = bytearray(left.durable)
        return left

    def fail_sync(self, blocks: Sequence[int] | range, style: SyncFailure, choose: Choose) -> None:
        """Let some blocks through and forget that the others are dirty."""
        self.settle([number for number in blocks if choose(2)])
        for number in blocks:
            if self.pending.pop(number, None) is not None and style is SyncFailure.DROPS:
                old = bytes(self.durable[number * BLOCK : (number + 1) * BLOCK])
                self.image[number * BLOCK : number * BLOCK + len(old)] = old


@define(eq=False)
class _Directory:
    names: dict[str, _Inode] = field(factory=dict)
    durable: dict[str, _Inode] = field(factory=dict)
    changes: list[tuple[str | None, str | None, _Inode]] = field(factory=list)
    """`(name gone, name come, file)` since the last directory sync."""

    def change(self, gone: str | None, come: str | None, inode: _Inode) -> None:
        _apply(self.names, gone, come, inode)
        self.changes.append((gone, come, inode))

    def lose_power(self, choose: Choose) -> dict[str, _Inode]:
        names = dict(self.durable)
        for gone, come, inode in self.changes:
            if choose(2):
                _apply(names, gone, come, inode)
        return names


def _apply(names: dict[str, _Inode], gone: str | None, come: str | None, inode: _Inode) -> None:
    if gone is not None and names.get(gone) is inode:
        del names[gone]
    if come is not None:
        names[come] = inode


@define(eq=False)
class SimFile:
    """A `coord.disk.File` of a `SimDisk`."""

    path: Path
    _disk: SimDisk
    _inode: _Inode
    _life: int

    def read(self, offset: int, length: int) -> bytes:
        """See `coord.disk.File`."""
        self._check_open()
        return bytes(self._inode.image[offset : offset + length])

    def write(self, offset: int, buffers: Sequence[bytes]) -> None:
        """See `coord.disk.File`."""
        self._check_open()
        self._disk._write(self, self._inode, offset, b"".join(buffers))

    def write_synced(self, offset: int, buffers: Sequence[bytes]) -> None:
        """See `coord.disk.File`."""
        self._check_open()
        blocks = self._disk._write(self, self._inode, offset, b"".join(buffers))
        self._disk._sync(f"write and sync {self.path}", self._inode, blocks)

    def sync(self) -> None:
        """See `coord.disk.File`."""
        self._check_open()
        self._disk._happens(f"sync {self.path.name}")
        self._disk._sync(f"sync {self.path}", self._inode, sorted(self._inode.pending))

    def size(self) -> int:
        """See `coord.disk.File`."""
        self._check_open()
        return len(self._inode.image)

    def truncate(self, size: int) -> None:
        """See `coord.disk.File`."""
        self._check_open()
        self._inode.resize(size)
        self._disk._happens(f"truncate {self.path.name} to {size}")

    def close(self) -> None:
        """See `coord.disk.File`."""
        self._life = -1

    def _check_open(self) -> None:
        assert self._life == self._disk.life, f"{self.path} was opened by a process that has ended"


@define(eq=False)
class SimLock:
    """A `coord.disk.Lock` of a `SimDisk`."""

    _locks: set[Path]
    _path: Path

    def release(self) -> None:
        """See `coord.disk.Lock`."""
        self._locks.discard(self._path)


class SimDisk:
    """A `coord.disk.Disk` in memory; see the module.

    The faults are attributes, to be set at any time: `fail_sync_at` counts down the syncs (of files and
    directories, 1 is the next) to one that fails in the style `sync_failure`; `capacity_bytes` bounds the
    sum of all sizes; `write_budget_bytes` counts down written bytes to a full disk, wherever they go.
    `observer` is called at each change, named as in `operations`, when it is visible and not yet durable:
    the moment at which `image` tells what a power failure would leave.
    """

    def __init__(self, seed: int = 0) -> None:
        self.operations: list[str] = []
        self.observer: Callable[[str], None] | None = None
        self.fail_sync_at: int | None = None
        self.sync_failure = SyncFailure.KEEPS_CLEAN
        self.capacity_bytes: int | None = None
        self.write_budget_bytes: int | None = None
        self.life = 0
        """Counts the processes that have used the disk."""
        self._random = random.Random(seed)
        self._directories: dict[Path, _Directory] = {}
        self._locks: set[Path] = set()

    # What a process does.

    def create(self, path: Path) -> SimFile:
        """See `coord.disk.Disk`."""
        directory = self._parent("create", path)
        if path.name in directory.names:
            raise DiskError(f"create {path}: File exists")
        inode = _Inode()
        directory.change(None, path.name, inode)
        self._happens(f"create {path.name}")
        return SimFile(path, self, inode, self.life)

    def open(self, path: Path) -> SimFile:
        """See `coord.disk.Disk`."""
        return SimFile(path, self, self._inode("open", path), self.life)

    def exists(self, path: Path) -> bool:
        """See `coord.disk.Disk`."""
        directory = self._directories.get(path.parent)
        return path in self._directories or (directory is not None and path.name in directory.names)

    def rename(self, source: Path, target: Path) -> None:
        """See `coord.disk.Disk`; only within one directory."""
        inode = self._inode("rename", source)
        assert source.parent == target.parent, "the simulated disk renames within one directory"
        self._parent("rename", source).change(source.name, target.name, inode)
        self._happens(f"rename {source.name} to {target.name}")

    def remove(self, path: Path) -> None:
        """See `coord.disk.Disk`."""
        inode = self._inode("remove", path)
        self._parent("remove", path).change(path.name, None, inode)
        self._happens(f"remove {path.name}")

    def make_directory(self, path: Path) -> None:
        """See `coord.disk.Disk`; a directory is durable at once."""
        self._directories.setdefault(path, _Directory())

    def sync_directory(self, path: Path) -> None:
        """See `coord.disk.Disk`."""
        self._happens(f"sync directory {path.name}")
        directory = self._directories.get(path)
        if directory is None:
            return
        if self._is_sync_failing():
            raise DiskError(f"sync directory {path}: Input/output error")
        directory.durable = dict(directory.names)
        directory.changes.clear()

    def list(self, path: Path) -> list[str]:
        """See `coord.disk.Disk`."""
        return sorted(self._directories[path].names)

    def free_bytes(self, path: Path) -> int:
        """See `coord.disk.Disk`; without a capacity there is always a terabyte."""
        return 2**40 if self.capacity_bytes is None else max(self.capacity_bytes - self._used_bytes(), 0)

    def lock(self, path: Path) -> SimLock:
        """See `coord.disk.Disk`."""
        if path in self._locks:
            raise DataDirError(f"{path.parent} is in use: stop its process, or choose another data directory")
        self._locks.add(path)
        return SimLock(self._locks, path)

    # What happens to a disk.

    def restart(self) -> None:
        """End the process, as kill -9 does: files are closed, locks gone, everything written is still to be
        seen."""
        self.life += 1
        self._locks.clear()

    def crash(self, choose: Choose | None = None) -> None:
        """End the process and lose power; what is left of unsynced changes is `choose`n, by the seed by
        default."""
        self.restart()
        self._directories = self._left(choose or self._random.randrange)

    def image(self, choose: Choose | None = None) -> SimDisk:
        """Return a disk as a power failure at this moment would leave it; this one goes on."""
        disk = SimDisk(self._random.getrandbits(64))
        disk._directories = self._left(choose or self._random.randrange)
        return disk

    def worst_image(self) -> SimDisk:
        """Return a disk that holds only what no power failure can take."""
        disk = SimDisk()
        disk._directories = self._left(lambda states: 0)
        return disk

    def corrupt(self, path: Path, offset: int, data: bytes) -> None:
        """Overwrite stored bytes behind everyone's back."""
        inode = self._inode("corrupt", path)
        inode.image[offset : offset + len(data)] = data
        inode.durable[offset : offset + len(data)] = data

    def durable_bytes(self, path: Path) -> bytes:
        """Return the bytes of a file that a power failure cannot take."""
        return bytes(self._inode("look at", path).durable)

    def _left(self, choose: Choose) -> dict[Path, _Directory]:
        left: dict[int, _Inode] = {}
        directories: dict[Path, _Directory] = {}
        for path, directory in self._directories.items():
            names: dict[str, _Inode] = {}
            for name, inode in directory.lose_power(choose).items():
                if id(inode) not in left:
                    left[id(inode)] = inode.lose_power(choose)
                names[name] = left[id(inode)]
            directories[path] = _Directory(names, dict(names))
        return directories

    def _parent(self, operation: str, path: Path) -> _Directory:
        try:
            return self._directories[path.parent]
        except KeyError:
            raise DiskError(f"{operation} {path}: No such file or directory") from None

    def _inode(self, operation: str, path: Path) -> _Inode:
        try:
            return self._parent(operation, path).names[path.name]
        except KeyError:
            raise DiskError(f"{operation} {path}: No such file or directory") from None

    def _happens(self, operation: str) -> None:
        self.operations.append(operation)
        if self.observer is not None:
            self.observer(operation)

    def _used_bytes(self) -> int:
        inodes = {id(inode): inode for at in self._directories.values() for inode in at.names.values()}
        return sum(len(inode.image) for inode in inodes.values())

    def _write(self, file: SimFile, inode: _Inode, offset: int, data: bytes) -> range:
        fits = len(data)
        if self.capacity_bytes is not None:
            room = self.capacity_bytes - self._used_bytes()
            fits = min(fits, max(len(inode.image) - offset + room, 0))
        if self.write_budget_bytes is not None:
            fits = min(fits, self.write_budget_bytes)
            self.write_budget_bytes -= fits
        blocks = inode.write(offset, data[:fits])
        self._happens(f"write {file.path.name} at {offset}, {fits} of {len(data)} bytes")
        if fits < len(data):
            raise DiskFullError(f"write {file.path}: No space left on device")
        return blocks

    def _sync(self, operation: str, inode: _Inode, blocks: Sequence[int] | range) -> None:
        if self._is_sync_failing():
            inode.fail_sync(blocks, self.sync_failure, self._random.randrange)
            raise DiskError(f"{operation}: Input/output error")
        inode.settle(blocks)

    def _is_sync_failing(self) -> bool:
        if self.fail_sync_at is None:
            return False
        self.fail_sync_at -= 1
        if self.fail_sync_at > 0:
            return False
        self.fail_sync_at = None
        return True
