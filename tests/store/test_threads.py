"""Reads on the loop's thread while flushes, removals, syncs and snapshots run on others (S7)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from coord.store.port import JobPort
from coord.store.store import Store
from coord.testing.store_media import SimMedium

Open = Callable[..., Store]


@pytest.fixture(autouse=True)
def eager_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_thread(job: JobPort) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            job.run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def record(revision: int) -> bytes:
    return b"%d " % revision * 20


def read_all(store: Store, first: int, last: int) -> None:
    """Read a window in all ways; everything in it has to be there."""
    wanted = range(first, last + 1)
    assert [(revision, value) for revision, _, value in store.scan(first, last)] == [
        (revision, record(revision)) for revision in wanted
    ]
    for revision in range(first, last + 1, 17):
        assert store.read(revision, 0) == record(revision)


def test_reads_are_right_while_the_store_thread_works(open_lmdb: Open) -> None:
    store = open_lmdb()
    # The cache would hide what the overlay and the disk do.
    store._cache.capacity_bytes = 0
    newest, oldest, reads = 1, 2, 0
    for index in range(1, 31):
        for _ in range(400):
            newest += 1
            store.append(newest, 0, record(newest))
        removed = range(oldest, max(oldest, newest - 2_000))
        store.remove([(revision, 0) for revision in removed])
        oldest = removed.stop
        store.seal(index, 1)
        job = store.flush_job(index)
        assert job is not None
        thread, errors = in_thread(job)
        while thread.is_alive():
            newest += 1
            store.append(newest, 0, record(newest))
            read_all(store, max(oldest, newest - 600), newest)
            reads += 1
        thread.join()
        assert errors == []
        read_all(store, oldest, newest)
        store.seal(index, 1)
        store.flushed(job)
        read_all(store, oldest, newest)
    assert reads > 20


def test_a_snapshot_beside_flushes_is_one_of_the_commits(open_lmdb: Open) -> None:
    store = open_lmdb()
    revision, jobs = 1, []
    for index in range(1, 16):
        snapshot = store.snapshot_job(store.directory / "snapshots")
        for _ in range(200):
            revision += 1
            store.append(revision, 0, record(revision))
        store.seal(index, 1)
        flush = store.flush_job(index)
        assert flush is not None
        running = [in_thread(job) for job in (flush, snapshot)]
        for thread, errors in running:
            thread.join()
            assert errors == []
        store.flushed(flush)
        jobs.append((index, snapshot))
    for index, snapshot in jobs:
        assert snapshot.index in (index - 1, index)
    other = SimMedium(1).open()
    last = jobs[-1][1]
    data = last.path.read_bytes()
    path = other.directory / "received"
    other.disk.create(path).write_synced(0, [data])
    install = other.install_job(path, last.index, last.term)
    assert install is not None
    install.run()
    other.switch()
    read_all(other, 2, 1 + 200 * last.index)


def test_a_close_waits_for_a_copy(open_lmdb: Open) -> None:
    """LMDB closed under its own copy would take the process with it."""
    store = open_lmdb()
    for revision in range(2, 20_000):
        store.append(revision, 0, record(revision))
    store.seal(1, 1)
    job = store.flush_job(1)
    assert job is not None
    job.run()
    store.flushed(job)
    for _ in range(5):
        thread, errors = in_thread(store.snapshot_job(store.directory / "snapshots"))
        store.close()
        thread.join()
        assert all("closed" in str(error) for error in errors)
        store = open_lmdb()
