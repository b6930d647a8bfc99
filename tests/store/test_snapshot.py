"""Snapshots: one moment, labelled with that moment, whole or refused, switched to once and for good (S6)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from coord.codec import encode
from coord.disk import Disk, RealDisk
from coord.errors import DamageError, DataDirError, DiskFullError
from coord.limits import SNAPSHOT_CHUNK_BYTES
from coord.mvcc.backend import Table
from coord.store import snapshot
from coord.store.lmdb_engine import LmdbEngine, LmdbStage, LmdbView
from coord.store.port import state_hash
from coord.store.snapshot import read_snapshot
from coord.store.snapshot_jobs import SnapshotJob, clean_snapshots
from coord.store.store import Store, open_store
from coord.testing.sim_backend import SimView
from coord.testing.sim_disk import SimDisk, SimFile
from coord.testing.store_media import SimMedium
from coord.testing.store_model import Medium

MakeMedium = Callable[[str, int], Medium]


def apply(store: Store, index: int, *, size: int = 30) -> None:
    for sub in range(3):
        store.append(index + 1, sub, random.Random(index).randbytes(size))
    store.put_row(Table.META, b"revision", b"%d" % (index + 1))
    store.put_row(Table.CLIENTS, b"client %d" % index, b"answers")
    store.seal(index, 1 + index // 5)


def flush(store: Store) -> None:
    job = store.flush_job(1_000_000)
    assert job is not None
    job.run()
    store.flushed(job)


def fill(store: Store, entries: int, *, size: int = 30) -> None:
    for index in range(store.applied_index + 1, store.applied_index + entries + 1):
        apply(store, index, size=size)
    flush(store)


def take(store: Store) -> SnapshotJob:
    job = store.snapshot_job(store.directory / "snapshots")
    job.run()
    return job


def bring(source: Disk, path: Path, store: Store) -> Path:
    """Carry a file to another store's disk."""
    file = source.open(path)
    target = store.directory / f"received-{path.name}"
    copy = store.disk.create(target)
    copy.write_synced(0, [file.read(0, file.size())])
    copy.close()
    file.close()
    return target


def install(job: SnapshotJob, source: Disk, store: Store) -> None:
    work = store.install_job(bring(source, job.path, store), job.index, job.term)
    assert work is not None
    work.run()


@pytest.mark.parametrize("size", [0, 30, 5_000])
@pytest.mark.parametrize("kinds", [("sim", "sim"), ("lmdb", "lmdb"), ("sim", "lmdb"), ("lmdb", "sim")])
def test_a_store_built_from_a_snapshot_is_the_same(make_medium: MakeMedium, kinds: tuple[str, str], size: int) -> None:
    source, target_medium = (make_medium(kind, seed) for seed, kind in enumerate(kinds))
    store = source.open()
    fill(store, 100, size=size)
    store.remove([(50, 1), (60, 2)])
    store.put_row(Table.CLIENTS, b"client 3", None)
    flush(store)
    job = take(store)
    target = target_medium.open()
    install(job, store.disk, target)
    target.switch()
    assert (target.applied_index, target.applied_term, target.synced_index) == (100, 21, 100)
    assert state_hash(target) == state_hash(store)
    again = target_medium.open((100, 21))
    assert state_hash(again) == state_hash(store)
    # Life goes on from there.
    apply(again, 101)
    flush(again)
    assert again.applied_index == 101


def check_label(store: Store) -> None:
    """A snapshot taken while the applier is ahead of the store must hold what its label says."""
    hashes = {}
    for index in range(1, 11):
        apply(store, index)
        if index == 6:
            flush(store)
        hashes[index] = state_hash(store)
    job = take(store)
    other = SimMedium(9).open()
    install(job, store.disk, other)
    other.switch()
    assert state_hash(other) == hashes[job.index], "S6: the label is not of the state in the file"
    assert (job.index, job.term) == (6, 2)
    assert job.path.name == "snapshot-00000000000000000006-00000000000000000002.snapshot"


def test_the_label_is_of_what_the_file_holds(store: Store) -> None:
    check_label(store)


@pytest.mark.parametrize("kind", ["sim", "lmdb"])
def test_planted_label_of_the_applier(make_medium: MakeMedium, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_medium(kind, 1).open()
    label = property(lambda _view: (store._overlay.index, store._overlay.term))
    for view in (SimView, LmdbView):
        monkeypatch.setattr(view, "applied", label)
    with pytest.raises(AssertionError, match="S6"):
        check_label(store)


def test_a_snapshot_is_one_moment_while_the_store_goes_on(store: Store) -> None:
    fill(store, 20)
    wanted = state_hash(store)
    with store.engine.view() as view:
        fill(store, 20)
        store.remove([(3, 0)])
        flush(store)
        path = store.directory / "late"
        head = snapshot.write_snapshot(store.disk, path, view)
    assert (head.index, head.term) == (20, 5)
    other = SimMedium(3).open()
    work = other.install_job(bring(store.disk, path, other), 20, 5)
    assert work is not None
    work.run()
    other.switch()
    assert state_hash(other) == wanted


def test_large_stores_go_out_in_chunks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    honest = snapshot._pack_pairs

    def pack(name, keys, values):  # type: ignore[no-untyped-def]
        payload = honest(name, keys, values)
        sizes.append(len(payload))
        return payload

    monkeypatch.setattr(snapshot, "_pack_pairs", pack)
    fill(store, 40, size=40_000)
    store.append(1_000, 0, bytes(1_500_000))
    store.seal(100, 9)
    flush(store)
    take(store)
    assert len(sizes) > 5
    assert max(sizes) < SNAPSHOT_CHUNK_BYTES + 1_700_000


@pytest.mark.parametrize(
    ("sizes", "chunks"),
    [
        ([], []),
        ([10], [1]),
        ([5, 5], [2]),
        ([5, 5, 5, 5], [2, 2]),
        ([5, 5, 1], [2, 1]),
        ([5, 4, 1, 9, 30, 2], [3, 2, 1]),
    ],
)
def test_a_chunk_ends_with_the_pair_that_fills_it(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], chunks: list[int]
) -> None:
    """Also where it is the last one of its database: nothing is lost there, and no empty chunk follows."""
    monkeypatch.setattr(snapshot, "SNAPSHOT_CHUNK_BYTES", 10)
    pairs = [(b"%d" % place, bytes(size - 1)) for place, size in enumerate(sizes)]
    batches = list(snapshot._batches(iter(pairs)))
    assert [len(keys) for keys, _ in batches] == chunks
    assert [pair for keys, values in batches for pair in zip(keys, values, strict=True)] == pairs


def test_a_chunk_is_what_the_codec_makes_of_it() -> None:
    values = [bytes(size) for size in (0, 1, 23, 24, 255, 256, 70_000)]
    keys = [b"%d" % len(value) for value in values]
    for count in range(1, len(values) + 1):
        expected: list[object] = ["leases"]
        for items in (keys[:count], values[:count]):
            expected += [b"".join(len(item).to_bytes(4, "big") for item in items), b"".join(items)]
        assert snapshot._pack_pairs("leases", keys[:count], values[:count]) == encode(expected)


def test_jobs_on_a_snapshot_rest_between_its_chunks(store: Store) -> None:
    """Written and read again where it is made, read where it is staged."""
    rests: list[str] = []
    store.new_rest = lambda: lambda: rests.append("maker")
    fill(store, 40, size=40_000)
    job = take(store)
    chunks = rests.count("maker") // 2
    assert chunks > 4
    other = SimMedium(3).open()
    other.new_rest = lambda: lambda: rests.append("taker")
    staging = other.install_job(bring(store.disk, job.path, other), job.index, job.term)
    assert staging is not None
    staging.run()
    assert rests == ["maker"] * 2 * chunks + ["taker"] * chunks


def small_snapshot() -> tuple[SimDisk, Path, bytes]:
    store = SimMedium(1).open()
    fill(store, 3, size=10)
    job = take(store)
    file = store.disk.open(job.path)
    assert isinstance(store.disk, SimDisk)
    return store.disk, job.path, file.read(0, file.size())


def write_file(data: bytes) -> tuple[SimDisk, Path]:
    disk, path = SimDisk(), Path("/data/file")
    disk.make_directory(path.parent)
    disk.create(path).write_synced(0, [data])
    return disk, path


def test_a_torn_snapshot_is_refused_wherever_it_ends() -> None:
    _, _, data = small_snapshot()
    for size in range(len(data)):
        with pytest.raises(DamageError, match=r"not a whole snapshot.*again"):
            read_snapshot(*write_file(data[:size]))


def test_a_changed_snapshot_is_refused_whichever_bit_it_is() -> None:
    _, _, data = small_snapshot()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with pytest.raises(DamageError):
            read_snapshot(*write_file(bytes(changed)))


def test_chunks_that_are_whole_but_out_of_place_are_refused() -> None:
    """A missing, doubled or foreign chunk has a right CRC; the hash in the tail tells."""
    _, _, data = small_snapshot()
    chunks, offset = [], len(snapshot.MAGIC)
    while offset < len(data):
        end = offset + 8 + int.from_bytes(data[offset : offset + 4], "big")
        chunks.append(data[offset:end])
        offset = end
    assert len(chunks) > 3
    wrong = [chunks[:1] + chunks[2:], chunks[:2] + chunks[1:], [*chunks, chunks[-1]], chunks[:-1], chunks[1:], []]
    for parts in wrong:
        with pytest.raises(DamageError):
            read_snapshot(*write_file(snapshot.MAGIC + b"".join(parts)))
    assert read_snapshot(*write_file(snapshot.MAGIC + b"".join(chunks))).index == 3


def test_a_newer_snapshot_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "SNAPSHOT_FORMAT", 2)
    disk, path, _ = small_snapshot()
    monkeypatch.undo()
    with pytest.raises(DataDirError, match=r"snapshot format 2, this release knows 1: upgrade first"):
        read_snapshot(disk, path)


def test_a_snapshot_at_or_below_what_is_applied_is_ignored(store: Store) -> None:
    fill(store, 5)
    job = take(store)
    assert store.install_job(job.path, 5, job.term) is None
    assert store.install_job(job.path, 4, job.term) is None
    apply(store, 6)
    assert store.install_job(job.path, 6, job.term) is None, "applied counts, flushed or not"
    assert store.install_job(job.path, 7, job.term) is not None


def test_a_snapshot_that_is_not_the_one_expected_is_refused(medium: Medium) -> None:
    other = SimMedium(2).open()
    fill(other, 5)
    job = take(other)
    store = medium.open()
    path = bring(other.disk, job.path, store)
    for index, term in ((6, job.term), (5, job.term + 1)):
        work = store.install_job(path, index, term)
        assert work is not None
        with pytest.raises(DamageError, match="is a snapshot at index 5 of term 2, not at"):
            work.run()
    assert store.is_empty


def prepared(medium: Medium) -> tuple[Store, str, str]:
    """A store at index 3 with a snapshot at index 9 staged; return the hashes of both states."""
    other = SimMedium(2).open()
    fill(other, 9)
    job = take(other)
    store = medium.open()
    fill(store, 3)
    before = state_hash(store)
    install(job, other.disk, store)
    assert state_hash(store) == before
    return store, before, state_hash(other)


def test_a_crash_before_the_record_in_the_log_leaves_the_old_store(medium: Medium) -> None:
    _, before, _ = prepared(medium)
    medium.kill()
    assert state_hash(medium.open()) == before
    # What was staged is dropped: a record that comes later is not of it.
    with pytest.raises(DamageError, match="snapshot at index 9 was installed"):
        medium.open((9, 2))


def test_a_crash_after_the_record_is_made_good_at_the_next_start(medium: Medium) -> None:
    _, _, after = prepared(medium)
    medium.kill()
    for _ in range(2):
        store = medium.open((9, 2))
        assert (store.applied_index, store.applied_term) == (9, 2)
        assert state_hash(store) == after
        medium.kill()


def test_an_older_record_does_not_bring_a_newer_stage_in(medium: Medium) -> None:
    _, before, _ = prepared(medium)
    medium.kill()
    assert state_hash(medium.open((2, 1))) == before


def test_a_switch_is_for_good(medium: Medium) -> None:
    store, _, after = prepared(medium)
    store.switch()
    assert state_hash(store) == after
    assert store.synced_index == 9
    medium.synced()
    medium.lose_power()
    assert state_hash(medium.open((9, 2))) == after


def test_the_overlay_goes_with_the_old_store(medium: Medium) -> None:
    store, _, after = prepared(medium)
    store.append(5, 7, b"of the old store")
    store.seal(4, 1)
    store.switch()
    assert store.overlay_bytes == 0
    assert state_hash(store) == after


def test_no_switch_under_a_flush(medium: Medium) -> None:
    store, _, _ = prepared(medium)
    apply(store, 4)
    job = store.flush_job(4)
    assert job is not None
    with pytest.raises(RuntimeError, match="a flush job is out"):
        store.switch()
    job.run()
    store.flushed(job)
    store.switch()
    assert store.applied_index == 9


def test_a_second_install_takes_the_place_of_the_first(medium: Medium) -> None:
    store, _, _ = prepared(medium)
    other = SimMedium(5).open()
    fill(other, 30)
    install(take(other), other.disk, store)
    store.switch()
    assert state_hash(store) == state_hash(other)


def files_after_power_loss(*, seeds: int) -> list[SimDisk]:
    store = SimMedium(1).open()
    fill(store, 10, size=2_000)
    take(store)
    assert isinstance(store.disk, SimDisk)
    images = []
    for seed in range(seeds):
        chance = random.Random(seed)
        images.append(store.disk.image(chance.randrange))
    return images


def finished_files(disk: SimDisk) -> list[Path]:
    directory = Path("/data/store/snapshots")
    names = disk.list(directory) if disk.exists(directory) else []
    return [directory / name for name in names if name.endswith(snapshot.SUFFIX)]


def test_a_finished_file_is_whole_after_any_power_loss() -> None:
    for disk in files_after_power_loss(seeds=30):
        for path in finished_files(disk):
            assert read_snapshot(disk, path).index == 10


def test_planted_snapshot_without_a_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimFile, "sync", lambda self: None)
    monkeypatch.setattr(SimFile, "write_synced", SimFile.write)
    torn = 0
    for disk in files_after_power_loss(seeds=30):
        for path in finished_files(disk):
            try:
                read_snapshot(disk, path)
            except DamageError:
                torn += 1
    assert torn


def test_a_full_disk_leaves_no_half_snapshot_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from coord.disk import RealFile

    fill(store, 20)
    for kind in (SimFile, RealFile):
        monkeypatch.setattr(kind, "sync", _no_room)
    with pytest.raises(DiskFullError):
        take(store)
    assert store.disk.list(store.directory / "snapshots") == []
    monkeypatch.undo()
    assert take(store).index == 20


def _no_room(_file: object) -> None:
    raise DiskFullError("full")


def test_unfinished_and_old_files_are_cleaned_away(tmp_path: Path) -> None:
    disk = RealDisk()
    for name in ("snapshot.part", snapshot.file_name(5, 1), snapshot.file_name(40, 2), "other"):
        disk.create(tmp_path / name).close()
    clean_snapshots(disk, tmp_path, keep=1)
    assert disk.list(tmp_path) == ["other", snapshot.file_name(40, 2)]
    clean_snapshots(disk, tmp_path / "absent")


def test_a_job_that_has_not_run_has_no_label(store: Store) -> None:
    with pytest.raises(RuntimeError, match="not written yet"):
        _ = store.snapshot_job(Path("/data")).index


class ListeningDisk(RealDisk):
    """A disk that remembers which names a directory had when it was synced."""

    def __init__(self) -> None:
        super().__init__()
        self.durable: dict[Path, set[str]] = {}

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self.durable[path] = set(self.list(path))


def test_the_name_of_what_is_staged_is_durable_before_the_log_names_it(make_medium: MakeMedium, tmp_path: Path) -> None:
    """Else a power loss leaves a log that begins at the snapshot and a store without it: the node never starts."""
    source = make_medium("sim", 1).open()
    fill(source, 20)
    disk = ListeningDisk()
    store = open_store(disk, tmp_path / "listening")
    job = take(source)
    work = store.install_job(bring(source.disk, job.path, store), job.index, job.term)
    assert work is not None
    work.run()
    assert "data.new" in disk.durable.get(store.directory, ())
    store.switch()
    assert store.applied_index == 20
    store.close()


def test_what_is_staged_is_synced_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log's syncs wait behind it, and may not wait for the whole store."""
    monkeypatch.setattr(snapshot, "SNAPSHOT_CHUNK_BYTES", 1_000)
    source = SimMedium(1).open()
    fill(source, 100)
    job = take(source)
    store = open_store(RealDisk(), tmp_path / "store")
    most = unsynced = 0
    put, opened = LmdbStage.put, LmdbEngine.stage

    class Counted:
        """LMDB's environment, which counts what it may not have synced."""

        def __init__(self, env: Any) -> None:
            self.env = env

        def __getattr__(self, name: str) -> Any:
            return getattr(self.env, name)

        def sync(self, force: bool) -> None:
            nonlocal unsynced
            unsynced = 0
            self.env.sync(force)

    def stage(engine: LmdbEngine) -> LmdbStage:
        made = opened(engine)
        made._env = Counted(made._env)
        return made

    def counted_put(stage: LmdbStage, name: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        nonlocal most, unsynced
        unsynced += len(keys)
        most = max(most, unsynced)
        put(stage, name, keys, values)

    monkeypatch.setattr(LmdbEngine, "stage", stage)
    monkeypatch.setattr(LmdbStage, "put", counted_put)
    install(job, source.disk, store)
    assert 0 < most < 100, "of 400 pairs"
    store.close()
