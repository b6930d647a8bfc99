"""What every store keeps to, on LMDB and in memory alike."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from coord.errors import DamageError
from coord.mvcc.backend import Table
from coord.store.port import StorePort, state_hash
from coord.store.store import Store
from coord.testing.store_model import Medium


def flush(store: Store, durable: int = 1_000) -> None:
    job = store.flush_job(durable)
    assert job is not None
    job.run()
    store.flushed(job)


def sync(store: Store) -> None:
    job = store.sync_job()
    job.run()
    store.synced(job)


def fill(store: Store, first: int = 2, count: int = 10) -> None:
    for revision in range(first, first + count):
        store.append(revision, 0, b"record %d" % revision)


def revisions(store: Store, first: int = 0, last: int = 1_000) -> list[int]:
    return [revision for revision, _, _ in store.scan(first, last)]


def test_it_is_a_store_port(store: Store) -> None:
    port: StorePort = store
    assert port.is_empty
    assert (port.applied_index, port.applied_term, port.synced_index) == (0, 0, 0)


def test_what_is_written_is_read_before_and_after_a_flush(store: Store) -> None:
    store.append(2, 0, b"a")
    store.append(3, 0, b"")
    store.append(3, 1, b"c" * 100_000)
    store.seal(1, 1)
    for _ in range(2):
        assert [store.read(2, 0), store.read(3, 0), store.read(3, 1)] == [b"a", b"", b"c" * 100_000]
        assert list(store.scan(0, 9)) == [(2, 0, b"a"), (3, 0, b""), (3, 1, b"c" * 100_000)]
        assert list(store.scan(3, 3)) == [(3, 0, b""), (3, 1, b"c" * 100_000)]
        assert list(store.scan(4, 9)) == []
        if store.overlay_bytes:
            flush(store)
    assert store.overlay_bytes == 0


def test_a_reopened_store_has_what_was_flushed_and_no_more(medium: Medium) -> None:
    store = medium.open()
    fill(store)
    store.put_row(Table.LEASES, b"7", b"lease")
    store.seal(5, 3)
    flush(store)
    fill(store, 12, 3)
    store.seal(6, 3)
    store = medium.open()
    assert (store.applied_index, store.applied_term) == (5, 3)
    assert revisions(store) == list(range(2, 12))
    assert store.read(11, 0) == b"record 11"
    assert store.rows(Table.LEASES) == [(b"7", b"lease")]
    assert not store.is_empty


def test_rows_are_the_newest_in_key_order_of_one_table(store: Store) -> None:
    store.put_row(Table.META, b"b", b"1")
    store.put_row(Table.META, b"a", b"1")
    store.put_row(Table.ALARMS, b"a", b"other table")
    store.seal(1, 1)
    flush(store)
    store.put_row(Table.META, b"a", b"2")
    store.put_row(Table.META, b"b", None)
    store.put_row(Table.META, b"c", b"3")
    store.put_row(Table.META, b"never", None)
    store.seal(2, 1)
    for _ in range(2):
        assert list(store.rows(Table.META)) == [(b"a", b"2"), (b"c", b"3")]
        assert list(store.rows(Table.ALARMS)) == [(b"a", b"other table")]
        if store.overlay_bytes:
            flush(store)


@pytest.mark.parametrize("flushed_first", [True, False])
def test_removed_records_are_gone_at_once_and_for_good(medium: Medium, flushed_first: bool) -> None:
    store = medium.open()
    fill(store)
    store.seal(1, 1)
    if flushed_first:
        flush(store)
    store.remove([(3, 0), (11, 0), (5, 0)])
    assert revisions(store) == [2, 4, 6, 7, 8, 9, 10]
    flush(store)
    assert revisions(store) == [2, 4, 6, 7, 8, 9, 10]
    fill(store, 12, 1)
    store.seal(2, 1)
    flush(store)
    assert revisions(medium.open()) == [2, 4, 6, 7, 8, 9, 10, 12]


def test_positions_only_grow(store: Store) -> None:
    store.append(5, 1, b"")
    for position in ((5, 1), (5, 0), (4, 9)):
        with pytest.raises(ValueError, match="does not come after"):
            store.append(*position, b"")


@pytest.mark.parametrize("key", [b"", b"k" * 512])
def test_a_row_that_no_store_could_keep_is_refused_at_once(store: Store, key: bytes) -> None:
    with pytest.raises(ValueError, match="key has 1 to 511 bytes"):
        store.put_row(Table.META, key, b"")


def test_a_record_that_should_be_there_and_is_not_is_damage(store: Store) -> None:
    fill(store)
    with pytest.raises(DamageError, match=r"no record 99\.0"):
        store.read(99, 0)


def test_many_records_come_from_wherever_they_are(medium: Medium, monkeypatch: pytest.MonkeyPatch) -> None:
    store = medium.open()
    fill(store, 2, 50)
    store.seal(1, 1)
    flush(store)
    store = medium.open()
    assert store.read(7, 0) == b"record 7"
    fill(store, 52, 5)
    store.seal(2, 1)
    assert store.flush_job(2) is not None
    fill(store, 57, 5)
    wanted = [(60, 0), (2, 0), (7, 0), (53, 0), (2, 0), (51, 0)]
    engine, asked = store.engine, list[int]()
    get_many = engine.get_many

    def counted(keys: Sequence[int]) -> list[bytes]:
        asked.extend(keys)
        return get_many(keys)

    monkeypatch.setattr(type(engine), "get_many", lambda _, keys: counted(keys))
    for _ in range(2):
        assert store.read_many(wanted) == [b"record %d" % revision for revision, _ in wanted]
    assert set(asked) == {2 << 32, 51 << 32}
    assert len(asked) == 3
    assert store.read_many([]) == []
    with pytest.raises(DamageError, match=r"no record 99\.0"):
        store.read_many([(60, 0), (3, 0), (99, 0)])


def test_only_what_the_own_log_has_made_durable_is_flushed(store: Store) -> None:
    """S3."""
    fill(store, 2, 1)
    store.seal(10, 1)
    assert store.flush_job(9) is None
    fill(store, 3, 1)
    store.seal(20, 2)
    job = store.flush_job(19)
    assert job is not None
    assert job.index == 10
    job.run()
    store.flushed(job)
    assert (store.applied_index, store.applied_term) == (10, 1)
    assert store.flush_job(19) is None
    flush(store, 20)
    assert (store.applied_index, store.applied_term) == (20, 2)
    assert store.flush_job(1_000) is None


def test_records_that_are_not_sealed_are_not_flushed(store: Store) -> None:
    fill(store)
    assert store.flush_job(1_000) is None
    store.seal(1, 1)
    assert store.flush_job(1_000) is not None


def test_an_index_without_effects_is_flushed_too(store: Store) -> None:
    """The log is released behind it."""
    store.seal(7, 2)
    flush(store)
    sync(store)
    assert (store.applied_index, store.applied_term, store.synced_index) == (7, 2, 7)


def test_an_index_never_goes_back(store: Store) -> None:
    store.seal(7, 2)
    with pytest.raises(ValueError, match="sealed at index 6 after 7"):
        store.seal(6, 2)


def test_one_flush_job_at_a_time_and_taken_back_once(store: Store) -> None:
    fill(store)
    store.seal(1, 1)
    job = store.flush_job(1)
    assert job is not None
    assert store.flush_job(1) is None
    with pytest.raises(ValueError, match="not done"):
        store.flushed(job)
    job.run()
    store.flushed(job)
    with pytest.raises(ValueError, match="not the flush job"):
        store.flushed(job)


def test_the_log_may_be_released_only_after_a_sync_that_followed_the_flush(store: Store) -> None:
    """S4."""
    fill(store, 2, 1)
    store.seal(1, 1)
    early = store.sync_job()
    flush(store)
    assert store.synced_index == 0
    early.run()
    store.synced(early)
    assert store.synced_index == 0
    sync(store)
    assert store.synced_index == 1


def test_a_full_read_works_while_a_flush_is_half_way(store: Store) -> None:
    """S7: the overlay holds on until the commit has returned."""
    fill(store)
    store.remove([(4, 0)])
    store.seal(1, 1)
    job = store.flush_job(1)
    assert job is not None
    fill(store, 12, 2)
    wanted = [2, 3, *range(5, 14)]
    for step in (lambda: None, job.run, lambda: store.flushed(job)):
        step()
        assert revisions(store) == wanted
        assert [store.read(revision, 0) for revision in wanted] == [b"record %d" % r for r in wanted]


def test_the_overlay_counts_its_bytes(store: Store) -> None:
    assert store.overlay_bytes == 0
    store.append(2, 0, b"x" * 1_000)
    store.put_row(Table.META, b"k", b"y" * 1_000)
    assert 2_000 < store.overlay_bytes < 2_500
    before = store.overlay_bytes
    store.remove([(2, 0)])
    assert before < store.overlay_bytes < before + 100
    store.seal(1, 1)
    flush(store)
    assert store.overlay_bytes == 0


def test_space_follows_what_is_held(store: Store) -> None:
    before = store.space()
    for revision in range(2, 502):
        store.append(revision, 0, b"x" * 1_000)
    store.seal(1, 1)
    flush(store)
    full = store.space()
    assert 500_000 < full.in_use_bytes - before.in_use_bytes < 800_000
    assert full.in_use_bytes <= full.size_bytes < full.limit_bytes
    assert full.free_disk_bytes > 0
    store.remove([(revision, 0) for revision in range(2, 502)])
    store.seal(2, 1)
    flush(store)
    assert store.space().in_use_bytes - before.in_use_bytes < 30_000


def test_equal_states_hash_alike_wherever_they_lie(medium: Medium, make_medium) -> None:
    hashes = set()
    for other in (medium, make_medium("sim", 2), make_medium("lmdb", 3)):
        store = other.open()
        fill(store)
        store.put_row(Table.META, b"k", b"v")
        store.seal(1, 1)
        hashes.add(state_hash(store))
        flush(store)
        hashes.add(state_hash(store))
    assert len(hashes) == 1
    store.append(99, 0, b"")
    assert state_hash(store) not in hashes
