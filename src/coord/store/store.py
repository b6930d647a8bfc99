"""The store: an overlay of what is applied, an engine that holds what is committed, and the jobs between
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import define, field

from coord.disk import Disk
from coord.errors import DiskFullError
from coord.limits import FLUSH_BYTES, SPACE_RESERVE_BYTES, VALUE_CACHE_BYTES
from coord.mvcc.backend import Position, Table
from coord.store.engine import Engine
from coord.store.layout import missing
from coord.store.lmdb_engine import open_engine
from coord.store.lmdb_env import MAP_BYTES
from coord.store.overlay import RECORD_OVERHEAD_BYTES, Overlay, Segment, ValueCache
from coord.store.port import FlushJobPort, Space, SyncJobPort
from coord.store.reserve import Reserve
from coord.store.snapshot import Rest, no_rest
from coord.store.snapshot_jobs import InstallJob, SnapshotJob

_TRANSACTION_ITEMS = 20_000


@define
class FlushJob:
    """Commits closed segments, several to a transaction while they are small."""

    segments: tuple[Segment, ...]
    _engine: Engine
    _reserve: Reserve
    _done: int = 0
    has_failed: bool = False
    """True from a commit that failed until one that did not."""

    @property
    def index(self) -> int:
        """See `FlushJobPort`."""
        return self.segments[-1].index

    @property
    def is_done(self) -> bool:
        """True if all of it is committed."""
        return self._done == len(self.segments)

    def run(self) -> None:
        """Commit what is not committed yet.

        S16: if the disk or the map is full the reserve is given up for the next try, which this job waits
        for: the alarm is raised in between, and what follows are deletes.
        """
        self._reserve.restore(self._engine)
        while not self.is_done:
            group = self._next_group()
            try:
                self._engine.commit(group)
            except DiskFullError:
                self.has_failed = True
                self._reserve.use(self._engine)
                raise
            self.has_failed = False
            self._done += len(group)

    def _next_group(self) -> list[Segment]:
        group: list[Segment] = []
        size_bytes = items = 0
        for segment in self.segments[self._done :]:
            size_bytes += segment.size_bytes
            items += segment.items
            if group and (size_bytes > FLUSH_BYTES or items > _TRANSACTION_ITEMS):
                break
            group.append(segment)
        return group


@define
class SyncJob:
    """Settles the commits that were taken back (`flushed`) when it was made."""

    index: int
    _engine: Engine

    def run(self) -> None:
        """S4: explicit, since the last commit's own page is not synced by the commit."""
        self._engine.sync()


@define
class Store:
    """See `StorePort`. Open it with `open_store`."""

    engine: Engine
    disk: Disk
    directory: Path
    reserve: Reserve
    new_rest: Callable[[], Rest] = lambda: no_rest
    """Makes what a job on a snapshot calls between two chunks, on its thread."""
    _overlay: Overlay = field(init=False)
    _cache: ValueCache = field(init=False)
    _layers: tuple[dict[int, bytes], ...] = field(init=False)
    """Where `read` looks, the likeliest first."""
    _job: FlushJob | None = field(init=False, default=None)
    _applied: tuple[int, int] = field(init=False, default=(0, 0))
    _synced_index: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._load()

    def _load(self) -> None:
        self._applied = self.engine.applied()
        self._synced_index = self._applied[0]
        self._overlay = Overlay(*self._applied)
        self._cache = ValueCache(VALUE_CACHE_BYTES)
        self._arrange()

    def _arrange(self) -> None:
        closed = (segment.records for segment in reversed(self._overlay.closed))
        self._layers = (self._overlay.open.records, self._cache.young, self._cache.old, *closed)

    @property
    def applied_index(self) -> int:
        """See `StorePort`."""
        return self._applied[0]

    @property
    def applied_term(self) -> int:
        """See `StorePort`."""
        return self._applied[1]

    @property
    def synced_index(self) -> int:
        """See `StorePort`."""
        return self._synced_index

    @property
    def overlay_bytes(self) -> int:
        """See `StorePort`."""
        return self._overlay.size_bytes

    @property
    def is_empty(self) -> bool:
        """See `StorePort`."""
        return self._overlay.index == 0 and not self._overlay.size_bytes

    def append(self, revision: int, sub: int, record: bytes) -> None:
        """See `Backend`."""
        self._overlay.append(revision, sub, record)

    def extend(self, revision: int, records: Sequence[bytes]) -> None:
        """See `Backend`."""
        self._overlay.extend(revision, records)

    def read(self, revision: int, sub: int) -> bytes:
        """See `Backend`."""
        key = revision << 32 | sub
        for records in self._layers:
            record = records.get(key)
            if record is not None:
                return record
        record = self.engine.get(key)
        if record is None:
            raise missing(key)
        if self._cache.keep(key, record):
            self._arrange()
        return record

    def read_many(self, positions: Sequence[Position]) -> list[bytes]:
        """See `Backend`."""
        layers = self._layers
        found: dict[int, bytes] = {}
        unknown: list[int] = []
        keys = [revision << 32 | sub for revision, sub in positions]
        for key in keys:
            for records in layers:
                record = records.get(key)
                if record is not None:
                    found[key] = record
                    break
            else:
                unknown.append(key)
        if unknown:
            read = dict(zip(unknown, self.engine.get_many(unknown), strict=True))
            found |= read
            size_bytes = sum(map(len, read.values())) + RECORD_OVERHEAD_BYTES * len(read)
            if self._cache.keep_all(read, size_bytes):
                self._arrange()
        return [found[key] for key in keys]

    def scan(self, first: int, last: int) -> Iterator[tuple[int, int, bytes]]:
        """See `Backend`."""
        overlay = self._overlay
        low, high = first << 32, (last << 32) + 0xFFFFFFFF
        removed = overlay.removed()
        # S7: all below the overlay's first record is committed; what is in both is taken from the overlay.
        boundary = overlay.first_key()
        recent = overlay.records(low, high)
        on_disk = self.engine.scan(low, high if boundary is None else min(high, boundary - 1))
        if not removed:
            yield from on_disk
        else:
            for item in on_disk:
                if item[0] << 32 | item[1] not in removed:
                    yield item
        for key, record in recent:
            if key not in removed:
                yield key >> 32, key & 0xFFFFFFFF, record

    def put_row(self, table: Table, key: bytes, value: bytes | None) -> None:
        """See `Backend`."""
        self._overlay.put_row(table, key, value)

    def rows(self, table: Table) -> list[tuple[bytes, bytes]]:
        """See `Backend`."""
        rows = self.engine.rows(table)
        self._overlay.merge_rows(table, rows)
        return sorted(rows.items())

    def remove(self, positions: Sequence[Position]) -> None:
        """See `Backend`."""
        self._overlay.remove(positions)

    def seal(self, index: int, term: int) -> None:
        """See `StorePort`."""
        self._overlay.seal(index, term)

    def flush_job(self, durable_index: int) -> FlushJob | None:
        """See `StorePort`."""
        if self._job is not None:
            return None
        if self._overlay.cut():
            self._arrange()
        segments = self._overlay.take(durable_index)
        if not segments:
            return None
        self._job = FlushJob(segments, self.engine, self.reserve)
        return self._job

    def flushed(self, job: FlushJobPort) -> None:
        """See `StorePort`."""
        if self._job is None or job is not self._job or not self._job.is_done:
            raise ValueError("not the flush job that is out, or not done")
        segments, self._job = self._job.segments, None
        self._applied = (segments[-1].index, segments[-1].term)
        # S7: the overlay lets go only here, after the commits have returned.
        self._overlay.trim(segments)
        for segment in segments:
            self._cache.keep_all(segment.records, segment.size_bytes)
        self._arrange()

    def sync_job(self) -> SyncJob:
        """See `StorePort`."""
        # S4: a commit that failed may have taken with it the page that names the one before, which no later
        # sync would write again. The next commit names all of it anew.
        is_unsettled = self._job is not None and self._job.has_failed
        return SyncJob(self._synced_index if is_unsettled else self._applied[0], self.engine)

    def synced(self, job: SyncJobPort) -> None:
        """See `StorePort`."""
        self._synced_index = max(self._synced_index, job.index)

    def snapshot_job(self, directory: Path) -> SnapshotJob:
        """See `StorePort`."""
        return SnapshotJob(self.engine, self.disk, directory, self.new_rest)

    def install_job(self, path: Path, index: int, term: int) -> InstallJob | None:
        """See `StorePort`."""
        if index <= self._overlay.index:
            return None
        return InstallJob(self.engine, self.disk, path, index, term, self.new_rest)

    def switch(self) -> None:
        """See `StorePort`."""
        if self._job is not None:
            raise RuntimeError("a flush job is out")
        self.engine.switch()
        self._load()

    def space(self) -> Space:
        """See `StorePort`."""
        size, in_use, limit = self.engine.size()
        # The file never shrinks: without its reusable pages a disk that it filled would stay full for ever.
        return Space(size, in_use, limit, self.reserve.free_bytes() + size - in_use)

    def close(self) -> None:
        """See `StorePort`."""
        self.engine.close()


def open_store(
    disk: Disk,
    directory: Path,
    marker: tuple[int, int] | None = None,
    *,
    map_bytes: int = MAP_BYTES,
    reserve_bytes: int = SPACE_RESERVE_BYTES,
    new_rest: Callable[[], Rest] = lambda: no_rest,
) -> Store:
    """Open the store in `directory`, made if need be; blocks.

    `marker` is `(index, term)` of the last snapshot record in the log: a switch to an installed snapshot
    that a crash prevented is done now (S6). Raises `DamageError`, `DataDirError` (a newer format) and
    `DiskError`.
    """
    engine = open_engine(disk, directory, marker, map_bytes, reserve_bytes)
    try:
        reserve = Reserve(disk, directory / "reserve", reserve_bytes)
        reserve.restore(engine)
    except BaseException:
        engine.close()
        raise
    return Store(engine, disk, directory, reserve, new_rest)
