"""Records and rows in LMDB.

`sync=True, metasync=False, writemap=False`: a commit syncs its pages but not the page that names it, so a
power loss may undo the last commit and can break nothing; `sync` settles it (S4). The map is huge and
sparse, since growing it would need all readers to stop.

LMDB drops the GIL around each call, and a busy loop takes it up at once. The worker therefore hands over
whole batches, and the readers of the loop use short transactions.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

import lmdb
from attrs import define, field
from crc32c import crc32c

from coord.disk import Disk
from coord.errors import DamageError, DataDirError, DiskError, DiskFullError
from coord.limits import MIB, SPACE_RESERVE_BYTES
from coord.mvcc.backend import Table
from coord.store.engine import Pair
from coord.store.layout import (
    APPLIED_KEY,
    CHECKSUM,
    CHECKSUM_BYTES,
    CONTENT,
    DATABASES,
    FORMAT_KEY,
    OWN,
    RECORD_KEY,
    RECORDS,
    REMEDY,
    STORE_FORMAT,
    check_values,
    damage,
    missing,
    open_value,
    pack_applied,
    pack_format,
    seal_value,
    stored_records,
    unpack_applied,
    unpack_format,
)
from coord.store.lmdb_env import (
    MAP_BYTES,
    MAP_BYTES_MIN,
    append,
    map_bytes_allowed,
    open_databases,
    open_env,
    translate,
    translated,
)
from coord.store.lmdb_pages import MalformedPage, check_pages
from coord.store.overlay import Segment

_SLICE_RECORDS: Final = 1_000
_PAGE_OVERHEAD_RATIO: Final = 1.25
"""Appended pages are nearly full; rows, rewritten in place, are not."""

DATA_FILE: Final = "data.mdb"
_STAGED: Final = "data.new"
_COPY: Final = "data.copy"


@define
class LmdbView:
    """A compact copy of the store at one moment."""

    _txn: Any
    _databases: dict[str, Any]

    @property
    def applied(self) -> tuple[int, int]:
        """S6: read from the copy itself, never from memory, which is ahead of it."""
        return unpack_applied(self._txn.get(APPLIED_KEY, db=self._databases[OWN]))

    def pairs(self, name: str) -> Iterator[Pair]:
        """See `View`."""
        pairs: Iterator[Pair] = self._txn.cursor(self._databases[name]).iternext()
        return pairs


@define
class LmdbStage:
    """A store in one file, whose commits do not sync: unfinished, it is thrown away."""

    _env: Any
    _databases: dict[str, Any]
    _disk: Disk
    _directory: Path

    def put(self, name: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """See `Stage`."""
        with translated("install"):
            with self._env.begin(write=True) as txn:
                append(txn, self._databases[name], name, keys, values)
            # Piece by piece: one sync of all at the end would keep those of the log waiting for as long as it takes.
            self._env.sync(True)

    def finish(self, index: int, term: int) -> None:
        """See `Stage`."""
        with translated("install"):
            with self._env.begin(write=True, db=self._databases[OWN]) as txn:
                txn.put(FORMAT_KEY, pack_format())
                txn.put(APPLIED_KEY, pack_applied(index, term))
            self._env.sync(True)
        # S6: the log will say that it is there. A power loss may take back the name of a new file, whatever of its
        # content is on the disk, and then there would be neither the old state nor the new one.
        self._disk.sync_directory(self._directory)

    def close(self) -> None:
        """See `Stage`."""
        self._env.close()


@define
class LmdbEngine:
    """An `Engine` over one LMDB directory. Open it with `open_engine`."""

    directory: Path
    disk: Disk
    map_bytes: int
    reserve_bytes: int
    _env: Any = None
    _databases: dict[str, Any] = field(factory=dict)
    _records: Any = None
    _copying: threading.Lock = field(factory=threading.Lock)
    """Held while LMDB copies itself out: closing it then would crash the process."""
    _copies: int = 0
    _is_reserve_used: bool = False

    def open(self) -> None:
        """Open the files, and make them where there are none."""
        path = self.directory / DATA_FILE
        is_new = not self.disk.exists(path)
        with translated("open"):
            self._env = open_env(self.directory, self.map_bytes)
            try:
                self._check_size(path)
                self._databases = open_databases(self._env)
                self._records = self._databases[RECORDS]
                self._check_format()
                # What an earlier process committed may wait in the kernel's cache only.
                self._env.sync(True)
            except BaseException:
                self._env.close()
                raise
        if is_new:
            self.disk.sync_directory(self.directory)

    def _check_size(self, path: Path) -> None:
        """Refuse a file that was cut off: the map reaches beyond its end, and a read there would kill the process."""
        page_bytes, found = self._env.stat()["psize"], path.stat().st_size
        pages = self._env.info()["last_pgno"] + 1
        if found >= pages * page_bytes:
            return
        # Pages at the end that a commit took and freed again are not written. A removal can leave it so.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                check_pages(data, page_bytes)
            except MalformedPage as error:
                raise DamageError(f"{path} is cut off after {found} bytes: {error}; {REMEDY}") from error

    def _check_format(self) -> None:
        own = self._databases[OWN]
        with self._env.begin(db=own) as txn:
            stored = txn.get(FORMAT_KEY)
            is_empty = not any(txn.stat(database)["entries"] for database in self._databases.values())
        if stored is None:
            if not is_empty:
                raise DamageError(f"{self.directory} has no store format; {REMEDY}")
            # New, or its process was killed before it came to this; what the log holds tells if more is gone.
            with self._env.begin(write=True, db=own) as txn:
                txn.put(FORMAT_KEY, pack_format())
            return
        version = unpack_format(stored)
        if version > STORE_FORMAT:
            raise DataDirError(
                f"{self.directory} has store format {version}, this release knows {STORE_FORMAT}: upgrade first"
            )

    def applied(self) -> tuple[int, int]:
        """See `Engine`."""
        with translated("read"), self._env.begin(db=self._databases[OWN]) as txn:
            return unpack_applied(txn.get(APPLIED_KEY))

    def get(self, key: int) -> bytes | None:
        """See `Engine`."""
        name = key.to_bytes(12, "big")
        try:
            with self._env.begin(self._records) as txn:
                stored = txn.get(name)
        except lmdb.Error as error:
            raise translate("read", error) from error
        return None if stored is None else open_value(RECORDS, name, stored)

    def get_many(self, keys: Sequence[int]) -> list[bytes]:
        """See `Engine`. One transaction and one call to check all sums take a third of what `get` takes for each."""
        names = [key.to_bytes(12, "big") for key in keys]
        with translated("read"), self._env.begin(self._records) as txn:
            found = list(map(txn.get, names))
        for key, stored in zip(keys, found, strict=True):
            if stored is None:
                raise missing(key)
        check_values(RECORDS, names, found)
        return [stored[CHECKSUM_BYTES:] for stored in found]

    def scan(self, low: int, high: int) -> Iterator[tuple[int, int, bytes]]:
        """See `Engine`; a million records take about a second."""
        first, end = low.to_bytes(12, "big"), (high + 1).to_bytes(12, "big")
        unpack_key, unpack_checksum = RECORD_KEY.unpack, CHECKSUM.unpack_from
        with translated("scan"), self._env.begin() as txn:
            cursor = txn.cursor(self._records)
            if not cursor.set_range(first):
                return
            for key, stored in cursor.iternext():
                if key >= end:
                    return
                record = stored[CHECKSUM_BYTES:]
                if crc32c(record, crc32c(key)) != unpack_checksum(stored)[0]:
                    raise damage(RECORDS, key)
                yield *unpack_key(key), record

    def rows(self, table: Table) -> dict[bytes, bytes]:
        """See `Engine`."""
        name = table.value
        with translated("read"), self._env.begin() as txn:
            return {key: open_value(name, key, stored) for key, stored in txn.cursor(self._databases[name]).iternext()}

    def commit(self, segments: Sequence[Segment]) -> None:
        """See `Engine`. A write transaction has to begin and end on one thread."""
        last = segments[-1]
        growth = sum(segment.size_bytes for segment in segments if segment.records or segment.rows)
        needed = int(growth * _PAGE_OVERHEAD_RATIO)
        try:
            with translated("commit"):
                self._check_room(needed)
                with self._env.begin(write=True) as txn:
                    for segment in segments:
                        self._write(txn, segment)
                    txn.put(APPLIED_KEY, pack_applied(last.index, last.term), db=self._databases[OWN])
        except DiskFullError:
            raise
        except DiskError as error:
            # A write that the disk has room for only in part is reported by LMDB as an I/O error.
            if self.disk.free_bytes(self.directory) < needed + MIB:
                raise DiskFullError(f"{error}; the disk is full: free space on its file system") from error
            raise

    def _check_room(self, needed: int) -> None:
        """S16: keep pages free for the deletes that have to make room; removals alone always may go on."""
        _, in_use, limit = self.size()
        if needed and in_use + needed > limit:
            raise DiskFullError(
                f"store commit: {in_use} of {limit} bytes of the map are in use; delete keys and compact"
            )

    def _write(self, txn: Any, segment: Segment) -> None:
        records = iter(segment.records.items())
        while part := list(islice(records, _SLICE_RECORDS)):
            append(txn, self._records, RECORDS, *stored_records(part))
        for table, rows in segment.rows.items():
            database = self._databases[table.value]
            for key, value in sorted(rows.items()):
                if value is None:
                    txn.delete(key, db=database)
                else:
                    txn.put(key, seal_value(key, value), db=database)
        # A cursor's `pop` takes two thirds of the time of `delete`.
        remove = txn.cursor(self._records).pop
        for position in sorted(segment.removals):
            remove(position.to_bytes(12, "big"))

    def sync(self) -> None:
        """See `Engine`."""
        try:
            self._env.sync(True)
        except lmdb.Error as error:
            raise DiskError(f"store sync: {error}") from error

    def size(self) -> tuple[int, int, int]:
        """See `Engine`. Pages that only wait to be reused are not in use."""
        pages = 2
        with translated("measure"), self._env.begin() as txn:
            main = self._env.stat()
            for stat in (main, *(txn.stat(database) for database in self._databases.values())):
                pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
            page_bytes, last_page = main["psize"], self._env.info()["last_pgno"]
        reserve = 0 if self._is_reserve_used else self.reserve_bytes
        return (last_page + 1) * page_bytes, pages * page_bytes, self.map_bytes - reserve

    def use_reserve(self) -> None:
        """See `Engine`."""
        self._is_reserve_used = True

    def restore_reserve(self) -> None:
        """See `Engine`."""
        self._is_reserve_used = False

    @contextmanager
    def view(self) -> Iterator[LmdbView]:
        """See `Engine`. LMDB copies itself out as fast as the disk can, and so pins little (S6)."""
        self._copies += 1
        path = self.directory / f"{_COPY}.{self._copies}"
        try:
            with translated("snapshot"):
                env = self._copy_out(path)
                try:
                    databases = open_databases(env, create=False)
                    with env.begin() as txn:
                        yield LmdbView(txn, databases)
                finally:
                    env.close()
        finally:
            path.unlink(missing_ok=True)

    def _copy_out(self, path: Path) -> Any:
        with self._copying:
            self.disk.create(path).close()
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._env.copyfd(descriptor, compact=True)
            finally:
                os.close(descriptor)
        return lmdb.open(
            str(path),
            map_size=path.stat().st_size + MIB,
            max_dbs=len(DATABASES),
            subdir=False,
            readonly=True,
            lock=False,
        )

    def stage(self) -> LmdbStage:
        """See `Engine`."""
        _discard(self.directory, _STAGED)
        with translated("install"):
            env = open_env(self.directory / _STAGED, self.map_bytes, subdir=False, sync=False)
            return LmdbStage(env, open_databases(env), self.disk, self.directory)

    def switch(self) -> None:
        """See `Engine`. One rename: there is no moment without a store."""
        with self._copying:
            self._env.close()
            switch_files(self.disk, self.directory)
            self.open()

    def close(self) -> None:
        """See `Engine`."""
        with self._copying:
            self._env.close()


def open_engine(
    disk: Disk,
    directory: Path,
    marker: tuple[int, int] | None = None,
    map_bytes: int = MAP_BYTES,
    reserve_bytes: int = SPACE_RESERVE_BYTES,
) -> LmdbEngine:
    """Open the store in `directory`, made if need be.

    `marker` is the index and term of the last snapshot record of the log. If a store was staged for it, the
    switch that a crash prevented is done now (S6); what was staged without a record is dropped.
    """
    disk.make_directory(directory)
    for name in disk.list(directory):
        if name.startswith(_COPY):
            disk.remove(directory / name)
    engine = LmdbEngine(directory, disk, map_bytes_allowed(map_bytes), reserve_bytes)
    engine.open()
    if disk.exists(directory / _STAGED):
        if marker is not None and marker[0] > engine.applied()[0] and _staged(directory) == marker:
            engine.switch()
        else:
            _discard(directory, _STAGED)
    if marker is not None and engine.applied()[0] < marker[0]:
        engine.close()
        raise DamageError(
            f"the log says that a snapshot at index {marker[0]} was installed, but the store in {directory} "
            f"does not hold it; {REMEDY}"
        )
    return engine


def switch_files(disk: Disk, directory: Path) -> None:
    """Rename the staged file over the store's, neither being open."""
    disk.rename(directory / _STAGED, directory / DATA_FILE)
    disk.sync_directory(directory)
    _discard(directory, _STAGED)


def _staged(directory: Path) -> tuple[int, int]:
    """Return what the staged store has applied; `(0, 0)` if it is not whole, since the log was told only
    then.
    """
    try:
        env = open_env(directory / _STAGED, MAP_BYTES_MIN, subdir=False)
    except lmdb.Error:
        return 0, 0
    try:
        with env.begin(db=env.open_db(OWN.encode(), create=False)) as txn:
            return unpack_applied(txn.get(APPLIED_KEY))
    except (lmdb.Error, DamageError):
        return 0, 0
    finally:
        env.close()


def _discard(directory: Path, name: str) -> None:
    for path in (directory / name, directory / f"{name}-lock"):
        path.unlink(missing_ok=True)


assert set(CONTENT) < set(DATABASES)
