"""The store alone: what an append, a read, a flush beside a busy loop, a scan and a snapshot cost.

python bench/store.py --records 1000000
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from coord.disk import RealDisk
from coord.mvcc.backend import Table
from coord.store.store import Store, open_store

FLUSH_RECORDS = 3_500
"""What a node that takes 35 000 puts a second gathers between two flushes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=290, help="of a record: key 8 B, value 256 B, and its head")
    parser.add_argument("--dir", default=None, help="where to put the store; a temporary directory by default")
    arguments = parser.parse_args()
    sys.setswitchinterval(0.0005)
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        measure(Path(directory), arguments.records, os.urandom(arguments.bytes))


def measure(directory: Path, records: int, record: bytes) -> None:
    started = time.perf_counter()
    store = open_store(RealDisk(), directory / "store")
    report("open a new store, reserve included", time.perf_counter() - started, 1, "s")
    fill(store, records, record)
    busy_flushes(store, records, record)
    measure_reads(store, records)
    measure_snapshot(store, directory)
    store.close()
    started = time.perf_counter()
    store = open_store(RealDisk(), directory / "store")
    count = sum(1 for _ in store.scan(0, 2**62))
    report(f"open and scan {count} records", time.perf_counter() - started, 1, "s")
    store.close()


def fill(store: Store, records: int, record: bytes) -> None:
    appending = flushing = 0.0
    for first in range(2, records + 2, 50_000):
        started = time.perf_counter()
        for revision in range(first, min(first + 50_000, records + 2)):
            store.append(revision, 0, record)
        appending += time.perf_counter() - started
        store.seal(first, 1)
        started = time.perf_counter()
        flush(store)
        flushing += time.perf_counter() - started
    report("append", appending, records)
    report("flush, nothing else running", flushing, records)


def busy_flushes(store: Store, records: int, record: bytes) -> None:
    """Flush beside a loop that never sleeps, and find how long the loop was held up at worst."""
    took, stall, revision, loops = 0.0, 0.0, records + 2, 0
    flushes = 20
    for number in range(flushes):
        for _ in range(FLUSH_RECORDS):
            store.append(revision, 0, record)
            revision += 1
        store.put_row(Table.META, b"revision", b"%d" % revision)
        store.seal(records + 2 + number, 1)
        job = store.flush_job(sys.maxsize)
        assert job is not None
        thread = threading.Thread(target=job.run)
        started = last = time.perf_counter()
        thread.start()
        while thread.is_alive():
            now = time.perf_counter()
            stall = max(stall, now - last)
            last = now
            loops += 1
        took += time.perf_counter() - started
        store.flushed(job)
    report(f"flush {FLUSH_RECORDS} records beside a busy loop", took, flushes, "ms")
    report("  records a second that it can take", flushes * FLUSH_RECORDS / took, 1, "/s")
    report("  longest time that the loop was held up", stall, 1, "ms")


def measure_reads(store: Store, records: int) -> None:
    newest = [records + 1 - offset % 1_000 for offset in range(100_000)]
    report("read from the cache", timed(lambda: [store.read(revision, 0) for revision in newest]), len(newest))
    step = max(1, records // 20_000)
    old = list(range(2, records, step))
    report("read from LMDB", timed(lambda: [store.read(revision, 0) for revision in old]), len(old))


def measure_snapshot(store: Store, directory: Path) -> None:
    job = store.snapshot_job(directory / "snapshots")
    report(f"snapshot of {store.space().in_use_bytes >> 20} MiB", timed(job.run), 1, "s")
    other = open_store(RealDisk(), directory / "other", reserve_bytes=0)
    install = other.install_job(job.path, job.index, job.term)
    assert install is not None
    report("install it", timed(install.run), 1, "s")
    report("switch to it", timed(other.switch), 1, "ms")
    other.close()


def flush(store: Store) -> None:
    job = store.flush_job(sys.maxsize)
    assert job is not None
    job.run()
    store.flushed(job)


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def report(what: str, seconds: float, count: int, unit: str = "µs") -> None:
    scale = {"s": 1.0, "ms": 1e3, "µs": 1e6, "/s": 1.0}[unit]
    print(f"{what:55} {seconds / count * scale:12.2f} {unit}", flush=True)


if __name__ == "__main__":
    main()
