"""A full map or disk: nothing ends, the reserve keeps deletes possible, and all comes back (S16)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from coord.disk import RealDisk, RealFile
from coord.errors import DiskError, DiskFullError
from coord.limits import MIB
from coord.store import lmdb_env
from coord.store.overlay import RECORD_OVERHEAD_BYTES, ValueCache
from coord.store.store import FlushJob, Store
from coord.testing.sim_backend import SimBackend
from coord.testing.sim_disk import SimDisk

RECORD = b"x" * 10_000
Open = Callable[..., Store]


def write(store: Store, index: int, count: int) -> FlushJob:
    for sub in range(count):
        store.append(index + 1, sub, RECORD)
    store.seal(index, 1)
    job = store.flush_job(index)
    assert job is not None
    return job


def remove(store: Store, index: int, first: int, last: int) -> FlushJob:
    store.remove([(revision, sub) for revision, sub, _ in list(store.scan(first, last))])
    store.seal(index, 1)
    job = store.flush_job(index)
    assert job is not None
    return job


def fill_up(store: Store) -> tuple[int, FlushJob]:
    """Write until there is no room; return the index and the job that did not fit."""
    for index in range(1, 1_000):
        job = write(store, index, 100)
        try:
            job.run()
        except DiskFullError:
            return index, job
        store.flushed(job)
    raise AssertionError("never full")


def outlive_a_full_map(store: Store) -> None:
    index, job = fill_up(store)
    assert store.applied_index == index - 1
    # What was applied stays readable, and the same job succeeds on the reserve.
    assert store.read(index + 1, 99) == RECORD
    job.run()
    store.flushed(job)
    assert store.applied_index == index
    # Compaction is possible, and makes room.
    deletion = remove(store, index + 1, 0, index)
    deletion.run()
    store.flushed(deletion)
    assert [revision for revision, _, _ in store.scan(0, 10_000)] == [index + 1] * 100
    # With room, the reserve is kept free again.
    job = write(store, index + 2, 1)
    job.run()
    store.flushed(job)
    full_again, _ = fill_up_from(store, index + 3)
    assert full_again > index + 3


def fill_up_from(store: Store, first: int) -> tuple[int, FlushJob]:
    for index in range(first, first + 1_000):
        job = write(store, index, 100)
        try:
            job.run()
        except DiskFullError:
            return index, job
        store.flushed(job)
    raise AssertionError("never full")


def test_a_full_map_can_be_emptied(open_lmdb: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    outlive_a_full_map(open_lmdb(map_bytes=32 * MIB, reserve_bytes=8 * MIB))


def test_a_full_simulated_store_can_be_emptied() -> None:
    disk = SimDisk()
    disk.make_directory(Path("/data"))
    medium = SimBackend(disk, Path("/data/store"), capacity_bytes=32 * MIB, reserve_bytes=8 * MIB)
    outlive_a_full_map(medium.open())


def test_a_map_without_any_page_left_is_a_full_disk_and_changes_nothing(
    open_lmdb: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_lmdb(map_bytes=8 * MIB)
    monkeypatch.setattr(type(store.engine), "_check_room", lambda self, needed: None)
    index, job = fill_up(store)
    for _ in range(2):
        with pytest.raises(DiskFullError, match=r"MDB_MAP_FULL.*compact and delete"):
            job.run()
    assert store.applied_index == index - 1
    store.read(index + 1, 99)
    again = open_lmdb(map_bytes=64 * MIB)
    assert again.applied_index == index - 1
    assert len(list(again.scan(0, 10_000))) == (index - 1) * 100


def test_an_io_error_on_a_full_disk_is_a_full_disk(open_lmdb: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """LMDB reports a write that was cut short as EIO; with room on the disk it is what it says."""
    store = open_lmdb()
    monkeypatch.setattr(type(store.engine), "_write", _cut_short)
    job = write(store, 1, 10)
    with pytest.raises(DiskError) as caught:
        job.run()
    assert not isinstance(caught.value, DiskFullError)
    monkeypatch.setattr(RealDisk, "free_bytes", lambda self, path: 4096)
    with pytest.raises(DiskFullError, match=r"Input/output error; the disk is full: free space"):
        job.run()


def _cut_short(_engine: object, _txn: object, _segment: object) -> None:
    raise lmdb.Error("mdb_txn_commit: Input/output error")


def test_a_sync_after_a_failed_commit_vouches_for_nothing_new(open_lmdb: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """S4: the failed sync of that commit may have lost the page that names the last one."""
    store = open_lmdb()
    job = write(store, 1, 10)
    job.run()
    store.flushed(job)
    job = write(store, 2, 10)
    with monkeypatch.context() as patch:
        patch.setattr(type(store.engine), "commit", _no_room)
        with pytest.raises(DiskFullError):
            job.run()
    sync(store)
    assert store.synced_index == 0
    job.run()
    store.flushed(job)
    sync(store)
    assert store.synced_index == 2


def _no_room(_engine: object, _segments: object) -> None:
    raise DiskFullError("full")


def sync(store: Store) -> None:
    job = store.sync_job()
    job.run()
    store.synced(job)


def test_the_reserve_is_held_given_up_and_taken_back(open_lmdb: Open, directory: Path) -> None:
    reserve = directory / "reserve"
    store = open_lmdb(map_bytes=32 * MIB, reserve_bytes=8 * MIB)
    assert reserve.stat().st_size == 8 * MIB
    assert reserve.stat().st_blocks * 512 >= 8 * MIB
    free_before = store.space().free_disk_bytes
    index, job = fill_up(store)
    assert not reserve.exists()
    assert store.space().limit_bytes == 32 * MIB
    assert store.space().free_disk_bytes < free_before
    job.run()
    store.flushed(job)
    assert not reserve.exists()
    deletion = remove(store, index + 1, 0, 10_000)
    deletion.run()
    store.flushed(deletion)
    write(store, index + 2, 1).run()
    assert reserve.stat().st_size == 8 * MIB
    assert store.space().limit_bytes == 24 * MIB


def test_room_that_deletes_made_counts_though_the_file_never_shrinks(
    open_lmdb: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the alarm of a disk that the store itself filled could never be cleared."""
    store = open_lmdb()
    job = write(store, 1, 1_000)
    job.run()
    store.flushed(job)
    monkeypatch.setattr(RealDisk, "free_bytes", lambda self, path: 4096)
    assert store.space().free_disk_bytes < 100_000
    job = remove(store, 2, 0, 10)
    job.run()
    store.flushed(job)
    assert store.space().free_disk_bytes > 9_000_000


def test_a_disk_without_room_for_the_reserve_starts_without_it(
    open_lmdb: Open, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RealDisk, "free_bytes", lambda self, path: 10 * MIB)
    store = open_lmdb(reserve_bytes=8 * MIB)
    assert not (directory / "reserve").exists()
    assert 2 * MIB <= store.space().free_disk_bytes < 2 * MIB + 100_000


def test_a_reserve_that_does_not_fit_after_all_leaves_nothing_behind(
    open_lmdb: Open, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_some(self: RealFile, offset: int, buffers: list[bytes]) -> None:
        if offset >= 3 * MIB:
            raise DiskFullError("full")
        honest(self, offset, buffers)

    honest = RealFile.write_synced
    monkeypatch.setattr(RealFile, "write_synced", write_some)
    open_lmdb(reserve_bytes=8 * MIB)
    assert sorted(path.name for path in directory.iterdir()) == ["data.mdb", "lock.mdb"]


def test_a_large_backlog_is_committed_in_several_transactions(open_lmdb: Open) -> None:
    """A job that fails in the middle goes on where it was."""
    store = open_lmdb()
    for index in range(1, 7):
        for sub in range(300):
            store.append(index + 1, sub, RECORD)
        store.seal(index, 1)
        assert store.flush_job(0) is None
    job = store.flush_job(6)
    assert job is not None
    commits: list[int] = []
    honest = type(store.engine).commit

    def commit(segments):  # type: ignore[no-untyped-def]
        if len(commits) == 1:
            commits.append(0)
            raise DiskFullError("full")
        honest(store.engine, segments)
        commits.append(segments[-1].index)

    engine = store.engine

    class Flaky:
        def __getattr__(self, name: str) -> object:
            return commit if name == "commit" else getattr(engine, name)

    job._engine = Flaky()
    with pytest.raises(DiskFullError):
        job.run()
    assert engine.applied() == (2, 1)
    assert not job.is_done
    job.run()
    store.flushed(job)
    assert commits == [2, 0, 4, 6]
    assert store.applied_index == 6


def test_lmdb_errors_that_mean_a_full_disk() -> None:
    for error in (lmdb.MapFullError("x"), lmdb.DiskError("x")):
        assert isinstance(lmdb_env.translate("commit", error), DiskFullError)
    assert not isinstance(lmdb_env.translate("commit", lmdb.Error("x")), DiskFullError)


def test_the_value_cache_is_bounded_and_keeps_the_newest() -> None:
    cache = ValueCache(100_000)
    size = 1_000 + RECORD_OVERHEAD_BYTES
    for key in range(1_000):
        cache.keep(key, b"x" * 1_000)
        held = cache.young | cache.old
        assert len(held) * size <= 100_000 + size
        assert key in held
        assert key < 40 or key - 40 in held


def test_a_backlog_does_not_go_through_the_cache() -> None:
    cache = ValueCache(100_000)
    cache.keep(1, b"kept")
    cache.keep_all({2: b"one of many"}, 50_000)
    assert cache.young | cache.old == {1: b"kept"}
    cache.keep_all({3: b"one of few"}, 49_000)
    assert cache.young | cache.old == {1: b"kept", 3: b"one of few"}


def test_reads_fill_the_cache(open_lmdb: Open) -> None:
    job = write(open_lmdb(), 1, 50)
    job.run()
    store = open_lmdb()
    store.read(2, 7)
    store.engine.close()
    assert store.read(2, 7) == RECORD
