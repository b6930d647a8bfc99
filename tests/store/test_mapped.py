"""What a store has read does not stay in the process's memory, and letting go of it loses nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coord.limits import MIB
from coord.store import mapped
from coord.store.mapped import StoreMap, mapped_bytes
from coord.store.store import Store

RECORDS = 20_000
RECORD = bytes(range(256)) * 4
IS_KNOWN = sys.platform.startswith("linux")


def fill(store: Store) -> None:
    for revision in range(2, RECORDS + 2):
        store.append(revision, 0, RECORD)
    store.seal(1, 1)
    job = store.flush_job(1)
    assert job is not None
    job.run()
    store.flushed(job)


def test_pages_that_were_read_are_let_go_and_read_again(
    directory: Path, open_lmdb: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(open_lmdb())
    store = open_lmdb()
    found = list(store.scan(0, RECORDS + 2))
    read = mapped_bytes() if IS_KNOWN else 0

    monkeypatch.setattr(mapped, "STORE_MAPPED_BYTES_MAX", 0)
    assert StoreMap(directory).trim() is IS_KNOWN

    if IS_KNOWN:
        assert read - mapped_bytes() > RECORDS * len(RECORD) * 3 // 4
    assert list(store.scan(0, RECORDS + 2)) == found
    assert len(found) == RECORDS


def test_little_is_kept(directory: Path, open_lmdb: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    fill(open_lmdb())
    monkeypatch.setattr(mapped, "STORE_MAPPED_BYTES_MAX", 2**20 * MIB)
    assert not StoreMap(directory).trim()


def test_a_store_that_is_not_open_has_no_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "STORE_MAPPED_BYTES_MAX", 0)
    assert not StoreMap(tmp_path).trim()
