"""kill -9 of a process that writes as fast as it can: what it had committed is there, whole."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coord.mvcc.backend import Table
from coord.store.store import Store

WRITER = """
import sys
from pathlib import Path
from coord.disk import RealDisk
from coord.limits import MIB
from coord.mvcc.backend import Table
from coord.store.store import open_store

store = open_store(RealDisk(), Path(sys.argv[1]), map_bytes=512 * MIB, reserve_bytes=0)
index = store.applied_index
while True:
    for _ in range(20):
        index += 1
        for sub in range(10):
            store.append(index + 1, sub, b"%d.%d " % (index, sub) * 30)
        store.put_row(Table.META, b"revision", b"%d" % index)
        if index > 200:
            store.remove([(index - 199, sub) for sub in range(10)])
        store.seal(index, index // 50)
    job = store.flush_job(index)
    job.run()
    store.flushed(job)
    print(index, flush=True)
    if index % 60 == 0:
        job = store.sync_job()
        job.run()
        store.synced(job)
"""


def check(store: Store) -> None:
    index = store.applied_index
    assert store.applied_term == index // 50
    assert dict(store.rows(Table.META)) == {b"revision": b"%d" % index}
    wanted = [
        (entry + 1, sub, b"%d.%d " % (entry, sub) * 30)
        for entry in range(max(1, index - 199), index + 1)
        for sub in range(10)
    ]
    assert list(store.scan(0, 1_000_000)) == wanted


@pytest.mark.parametrize("seed", range(3))
def test_what_was_committed_outlives_the_process(open_lmdb: Callable[..., Store], directory: Path, seed: int) -> None:
    chance = random.Random(seed)
    last = 0
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(chance.randint(2, 12)):
            last = int(child.stdout.readline())
        # Anywhere within the next round: about a millisecond each.
        time.sleep(chance.uniform(0, 0.004))
        child.send_signal(signal.SIGKILL)
        rest = child.communicate()[0].split()
        # The kill may cut the last line; the ones before it are whole.
        last = max([last, *map(int, rest[:-1])])
        store = open_lmdb()
        assert store.applied_index >= last
        check(store)
        store.close()
