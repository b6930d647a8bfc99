"""Stored bytes that are not what was written: refused, with a word on what to do."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from coord.errors import ConfigError, DamageError, DataDirError, DiskError
from coord.limits import GIB, MIB
from coord.mvcc.backend import Table
from coord.store.layout import DATABASES, FORMAT_KEY, OWN, check_values, seal_value
from coord.store.lmdb_env import MAP_BYTES, map_bytes_allowed
from coord.store.store import Store

Open = Callable[..., Store]


def fill(store: Store, count: int = 100) -> None:
    for revision in range(2, 2 + count):
        store.append(revision, 0, b"record %d " % revision * 5)
    store.put_row(Table.LEASES, b"lease", b"a lease's row")
    store.seal(1, 1)
    job = store.flush_job(1)
    assert job is not None
    job.run()
    store.flushed(job)


def change(directory: Path, old: bytes, new: bytes) -> None:
    """Change bytes on the disk behind a closed store, wherever they are."""
    path = directory / "data.mdb"
    data = path.read_bytes()
    assert old in data
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))


def test_a_changed_record_is_found_by_read_scan_and_snapshot(open_lmdb: Open, directory: Path) -> None:
    fill(open_lmdb())
    open_lmdb().close()
    change(directory, b"record 50 ", b"record 5O ")
    store = open_lmdb()
    assert store.read(49, 0).startswith(b"record 49 ")
    with pytest.raises(DamageError, match=r"checksum of record 50\.0 is wrong.*add it anew"):
        store.read(50, 0)
    assert store.read_many([(49, 0), (51, 0)])[1].startswith(b"record 51 ")
    with pytest.raises(DamageError, match=r"checksum of record 50\.0 is wrong.*add it anew"):
        store.read_many([(48, 0), (50, 0)])
    with pytest.raises(DamageError, match=r"record 50\.0"):
        list(store.scan(2, 200))
    with pytest.raises(DamageError, match=r"record 50\.0"):
        store.snapshot_job(directory / "snapshots").run()
    assert list((directory / "snapshots").iterdir()) == []


def test_a_record_in_another_ones_place_is_found(open_lmdb: Open, directory: Path) -> None:
    """A page that was not written, or written elsewhere, holds whole bytes of another time."""
    fill(open_lmdb())
    engine = open_lmdb().engine
    records = engine._databases["records"]
    with engine._env.begin(write=True) as txn:
        key, other = (revision.to_bytes(8, "big") + bytes(4) for revision in (10, 11))
        txn.put(key, txn.get(other, db=records), db=records)
    with pytest.raises(DamageError, match=r"record 10\.0"):
        open_lmdb().read(10, 0)


def test_a_changed_row_is_found(open_lmdb: Open, directory: Path) -> None:
    fill(open_lmdb())
    open_lmdb().close()
    change(directory, b"a lease's row", b"a lease's bow")
    with pytest.raises(DamageError, match="database leases: the checksum of row b'lease' is wrong"):
        open_lmdb().rows(Table.LEASES)


def test_one_bad_value_among_many_is_found_wherever_it_is() -> None:
    keys = [b"row %d" % place for place in range(5)]
    values = [seal_value(key, b"value of " + key) for key in keys]
    check_values("leases", keys, values)
    check_values("leases", [], [])
    for place, (key, value) in enumerate(zip(keys, values, strict=True)):
        another_ones = values[place - 1]
        cut_off = [value[:size] for size in range(len(value))]
        for bad in (another_ones, value[:-1] + b"?", b"?" + value[1:], value + b"?", *cut_off):
            with pytest.raises(DamageError, match=f"checksum of row {key!r} is wrong"):
                check_values("leases", keys, [*values[:place], bad, *values[place + 1 :]])


@pytest.mark.parametrize("seed", range(12))
def test_no_changed_byte_of_a_record_is_ever_served(open_lmdb: Open, directory: Path, seed: int) -> None:
    fill(open_lmdb(), 500)
    wanted = list(open_lmdb().scan(0, 1_000))
    open_lmdb().close()
    chance = random.Random(seed)
    path = directory / "data.mdb"
    data = bytearray(path.read_bytes())
    place = data.find(b"record %d " % chance.randrange(2, 502)) + chance.randrange(9)
    data[place] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    store = open_lmdb()
    with pytest.raises(DamageError):
        list(store.scan(0, 1_000))
    served = []
    for revision, sub, _ in wanted:
        try:
            served.append((revision, sub, store.read(revision, sub)))
        except DamageError:
            continue
    assert len(served) == len(wanted) - 1
    assert set(served) < set(wanted)


def test_a_cut_file_is_refused_instead_of_killing_the_process(open_lmdb: Open, directory: Path) -> None:
    fill(open_lmdb(), 5_000)
    open_lmdb().close()
    path = directory / "data.mdb"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DamageError, match=r"is cut off after \d+ bytes: its last commit refers to page"):
        open_lmdb()


def test_a_file_that_is_no_store_is_refused(open_lmdb: Open, directory: Path) -> None:
    directory.mkdir()
    (directory / "data.mdb").write_bytes(b"not a store at all" * 1_000)
    with pytest.raises(DamageError, match="damaged"):
        open_lmdb()


def test_a_store_that_lost_its_format_is_refused(open_lmdb: Open) -> None:
    store = open_lmdb()
    fill(store)
    engine = store.engine
    with engine._env.begin(write=True, db=engine._databases[OWN]) as txn:
        assert txn.delete(FORMAT_KEY)
    with pytest.raises(DamageError, match="has no store format"):
        open_lmdb()


@pytest.mark.parametrize("made", [(), DATABASES[:2], DATABASES], ids=["none", "some", "all"])
def test_a_store_whose_process_died_while_it_began_is_begun_again(
    open_lmdb: Open, directory: Path, made: tuple[str, ...]
) -> None:
    """Nothing was ever in it; that it was refused as damaged would leave a new member for good where it is."""
    directory.mkdir()
    with lmdb.open(str(directory), max_dbs=8) as env:
        for name in made:
            env.open_db(name.encode())
    fill(open_lmdb())
    assert len(list(open_lmdb().scan(0, 1_000))) == 100


def test_a_newer_format_is_left_alone(open_lmdb: Open) -> None:
    engine = open_lmdb().engine
    with engine._env.begin(write=True, db=engine._databases[OWN]) as txn:
        txn.put(FORMAT_KEY, seal_value(FORMAT_KEY, (2).to_bytes(4, "big")))
    with pytest.raises(DataDirError, match=r"store format 2, this release knows 1: upgrade first"):
        open_lmdb()


def test_a_record_above_what_is_applied_is_damage(open_lmdb: Open) -> None:
    """An entry that is replayed over records of its own would double them."""
    fill(open_lmdb())
    store = open_lmdb()
    store.append(50, 7, b"")
    store.seal(2, 1)
    job = store.flush_job(2)
    assert job is not None
    with pytest.raises(DamageError, match="is there already"):
        job.run()
    assert open_lmdb().applied_index == 1


def test_an_error_of_the_disk_is_one_of_ours(open_lmdb: Open) -> None:
    store = open_lmdb()
    store.append(2, 0, b"")
    store.seal(1, 1)
    job = store.flush_job(1)
    assert job is not None
    store.close()
    with pytest.raises(DiskError, match="store measure: Attempt to operate on closed"):
        job.run()


def test_the_map_fits_into_a_limited_address_space(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit(bytes_: int) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (bytes_, bytes_))

    limit(resource.RLIM_INFINITY)
    assert map_bytes_allowed() == MAP_BYTES
    limit(512 * GIB)
    assert map_bytes_allowed() == MAP_BYTES
    limit(8 * GIB)
    assert map_bytes_allowed() == 2 * GIB
    limit(900 * MIB)
    with pytest.raises(ConfigError, match=r"limited to 900 MiB.*LimitAS=.*1024 MiB"):
        map_bytes_allowed()


def test_files_are_for_the_owner_alone(open_lmdb: Open, directory: Path) -> None:
    store = open_lmdb(reserve_bytes=MIB)
    store.snapshot_job(directory / "snapshots").run()
    paths = [directory, *directory.rglob("*")]
    assert len(paths) > 5
    assert [path for path in paths if path.stat().st_mode & 0o077] == []


def test_left_overs_of_a_crash_are_cleared_away(open_lmdb: Open, directory: Path) -> None:
    fill(open_lmdb())
    (directory / "data.copy.1").write_bytes(b"half")
    (directory / "data.new").write_bytes(b"half")
    (directory / "data.new-lock").write_bytes(b"half")
    open_lmdb()
    assert sorted(path.name for path in directory.iterdir()) == ["data.mdb", "lock.mdb"]
