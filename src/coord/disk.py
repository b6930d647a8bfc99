"""The disk, as a seam: the only caller of the system's file functions for log, identity and snapshots.

All calls block; they belong on a worker thread or before the loop starts. The simulator's `SimDisk`
implements the same protocols, so that torn, lost and reordered writes can be played through.

Every failure is a `DiskError` that names the operation and the file. After one the state of the file is
unknown and is never asked again: a kernel may mark a page clean whose write-out failed, so that a repeated
sync succeeds without the data (law 7). Only a full disk is told apart, as `DiskFullError`: there the caller
may repeat the operation, if it writes all of it again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from coord.errors import DataDirError, DiskError, DiskFullError
from coord.limits import MIB

DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600

_ZEROS: Final = bytes(MIB)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_SUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})
_OPEN_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_WRITE_AND_SYNC: Final[int] = getattr(os, "RWF_DSYNC", 0)
_FULL_SYNC: Final[int] = getattr(fcntl, "F_FULLFSYNC", 0)
_BUFFERS_MAX: Final = 1024
"""IOV_MAX of Linux and macOS."""


class File(Protocol):
    """An open file, read and written by offset."""

    path: Path

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer only where the file ends."""

    def write(self, offset: int, buffers: Sequence[bytes]) -> None:
        """Write the buffers one after the other from `offset`; not durable before `sync`."""

    def write_synced(self, offset: int, buffers: Sequence[bytes]) -> None:
        """Write the buffers and return when they, and a size that they changed, are durable.

        Vouches for these bytes only, not for what was written before without a sync. `DiskFullError`: any
        part of it may have been written; write all of it again.
        """

    def sync(self) -> None:
        """Return when all written bytes and the size are durable; a failure is final, a full disk too."""

    def size(self) -> int:
        """Return the size in bytes."""

    def truncate(self, size: int) -> None:
        """Cut the file, or lengthen it with a hole that reads as zeros."""

    def close(self) -> None:
        """Close the file; it may be closed already."""


class Lock(Protocol):
    """A lock that is held until it is released or its process ends."""

    def release(self) -> None:
        """Let go of the lock."""


class Disk(Protocol):
    """Directories and files, of which only the owner may read anything; symbolic links are not followed.

    A created, renamed or removed name is durable only after `sync_directory` of its directory.
    """

    def create(self, path: Path) -> File:
        """Make a new file and open it; `DiskError` if the name is taken."""

    def open(self, path: Path) -> File:
        """Open an existing file for reading and writing."""

    def exists(self, path: Path) -> bool:
        """Tell whether there is something under this name."""

    def rename(self, source: Path, target: Path) -> None:
        """Rename atomically, replacing `target`."""

    def remove(self, path: Path) -> None:
        """Remove a file."""

    def make_directory(self, path: Path) -> None:
        """Make a directory if it is not there yet; its parent has to exist."""

    def sync_directory(self, path: Path) -> None:
        """Return when the names in a directory are durable."""

    def list(self, path: Path) -> list[str]:
        """Return the names in a directory, sorted."""

    def free_bytes(self, path: Path) -> int:
        """Return how many bytes can still be written to the file system that holds `path`."""

    def lock(self, path: Path) -> Lock:
        """Lock a file, made if need be, against every other process; `DataDirError` names the holder."""


def write_zeros(file: File, start: int, stop: int) -> None:
    """Write zeros from `start` to `stop`, and sync: all that was written to the file is durable then.

    A mebibyte at a time, since who syncs another file meanwhile waits for all that is on its way to the disk: beside
    64 MiB with one sync of all that was 25 ms on a quick disk, and is 1. May raise `DiskFullError` anywhere.
    """
    for offset in range(start, stop, len(_ZEROS)):
        file.write_synced(offset, (_ZEROS[: stop - offset],))
    file.sync()


def remove_if_there(disk: Disk, path: Path) -> None:
    """Remove a file, which may be one that an earlier try left behind, or none."""
    if disk.exists(path):
        disk.remove(path)


def disk_error(operation: str, path: Path, error: OSError) -> DiskError:
    """Return the `DiskError` that tells of an `OSError`."""
    if error.errno in _FULL:
        return DiskFullError(f"{operation} {path}: {error.strerror}; free space on this file system or raise its quota")
    return DiskError(f"{operation} {path}: {error.strerror or error}")


class RealFile:
    """A `File` of the operating system."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer only where the file ends."""
        parts: list[bytes] = []
        try:
            while length > 0 and (part := os.pread(self._descriptor, length, offset)):
                parts.append(part)
                offset += len(part)
                length -= len(part)
        except OSError as error:
            raise disk_error("read", self.path, error) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, offset: int, buffers: Sequence[bytes]) -> None:
        """Write the buffers one after the other from `offset`; not durable before `sync`."""
        try:
            while True:
                written = os.pwritev(self._descriptor, buffers[:_BUFFERS_MAX], offset)
                buffers = _rest(buffers, written)
                if not buffers:
                    return
                offset += written
        except OSError as error:
            raise disk_error("write", self.path, error) from error

    def write_synced(self, offset: int, buffers: Sequence[bytes]) -> None:
        """Write the buffers and return when they are durable: one system call where the platform has it."""
        written = 0
        if _WRITE_AND_SYNC:
            try:
                written = os.pwritev(self._descriptor, buffers[:_BUFFERS_MAX], offset, _WRITE_AND_SYNC)
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise disk_error("write and sync", self.path, error) from error
        rest = _rest(buffers, written)
        if rest:
            self.write(offset + written, rest)
            self.sync()

    def sync(self) -> None:
        """Return when all written bytes and the size are durable."""
        try:
            _sync(self._descriptor)
        except OSError as error:
            raise DiskError(f"sync {self.path}: {error.strerror or error}") from error

    def size(self) -> int:
        """Return the size in bytes."""
        try:
            return os.fstat(self._descriptor).st_size
        except OSError as error:
            raise disk_error("stat", self.path, error) from error

    def truncate(self, size: int) -> None:
        """Cut the file, or lengthen it with a hole that reads as zeros."""
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            raise disk_error("truncate", self.path, error) from error

    def close(self) -> None:
        """Close the file; it may be closed already."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class RealDisk:
    """The `Disk` of the operating system."""

    def create(self, path: Path) -> RealFile:
        """Make a new file, readable by its owner only, and open it."""
        return self._open("create", path, _OPEN_FLAGS | os.O_CREAT | os.O_EXCL)

    def open(self, path: Path) -> RealFile:
        """Open an existing file for reading and writing."""
        return self._open("open", path, _OPEN_FLAGS)

    def _open(self, operation: str, path: Path, flags: int) -> RealFile:
        try:
            descriptor = os.open(path, flags, FILE_MODE)
        except OSError as error:
            raise disk_error(operation, path, error) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise DiskError(f"{operation} {path}: not a regular file")
        return RealFile(path, descriptor)

    def exists(self, path: Path) -> bool:
        """Tell whether there is something under this name, a broken link included."""
        try:
            path.lstat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise disk_error("look for", path, error) from error
        return True

    def rename(self, source: Path, target: Path) -> None:
        """Rename atomically, replacing `target`."""
        try:
            source.rename(target)
        except OSError as error:
            raise disk_error(f"rename to {target.name}", source, error) from error

    def remove(self, path: Path) -> None:
        """Remove a file."""
        try:
            path.unlink()
        except OSError as error:
            raise disk_error("remove", path, error) from error

    def make_directory(self, path: Path) -> None:
        """Make a directory that only its owner may enter, if it is not there yet."""
        try:
            path.mkdir(DIRECTORY_MODE, exist_ok=True)
        except OSError as error:
            raise disk_error("make directory", path, error) from error

    def sync_directory(self, path: Path) -> None:
        """Return when the names in a directory are durable."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DiskError(f"sync directory {path}: {error.strerror or error}") from error

    def list(self, path: Path) -> list[str]:
        """Return the names in a directory, sorted."""
        try:
            return sorted(child.name for child in path.iterdir())
        except OSError as error:
            raise disk_error("list", path, error) from error

    def free_bytes(self, path: Path) -> int:
        """Return how many bytes can still be written to the file system that holds `path`."""
        try:
            return shutil.disk_usage(path).free
        except OSError as error:
            raise disk_error("measure free space at", path, error) from error

    def lock(self, path: Path) -> RealLock:
        """Lock a file, made if need be; it holds the owner's process id for the message of whoever comes
        second.
        """
        try:
            descriptor = os.open(path, _OPEN_FLAGS | os.O_CREAT, FILE_MODE)
        except OSError as error:
            raise disk_error("open", path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise DataDirError(
                f"{path.parent} is in use by process {holder}: stop it, or choose another data directory"
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise disk_error("lock", path, error) from error
        return RealLock(descriptor)


class RealLock:
    """A lock on a file; the file stays, since removing it would let two processes in."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go of the lock; it may be released already."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _rest(buffers: Sequence[bytes], written: int) -> Sequence[bytes]:
    """Return what is left of `buffers` after their first `written` bytes."""
    for position, buffer in enumerate(buffers):
        if written < len(buffer):
            return [buffer[written:], *buffers[position + 1 :]]
        written -= len(buffer)
    return ()


def _sync(descriptor: int) -> None:
    """Make a file durable. On macOS only F_FULLFSYNC empties the drive's cache; fsync stops before it."""
    if _FULL_SYNC:
        fcntl.fcntl(descriptor, _FULL_SYNC)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)
