"""Both disks keep the same contract; the real one speaks to the system as it should, the simulated one forgets."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import define, field

from coord import disk as disk_module
from coord.disk import Disk, File, RealDisk, write_zeros
from coord.errors import DataDirError, DiskError, DiskFullError
from coord.limits import MIB
from coord.testing.crash_states import crash_states
from coord.testing.sim_disk import SimDisk, SyncFailure
from coord.wal.recovery import recover

from .rig import Rig

DATA = Path("/data")


@pytest.fixture(params=["real", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Disk, Path]:
    disk: Disk = RealDisk() if request.param == "real" else SimDisk()
    directory = tmp_path / "data"
    disk.make_directory(directory)
    return disk, directory


def test_files_are_written_and_read_by_offset(place: tuple[Disk, Path]) -> None:
    disk, directory = place
    file = disk.create(directory / "a")
    file.write(0, (b"abc", b"", b"def"))
    file.write_synced(2, (b"XY",))
    file.write(8, (b"end",))
    file.sync()
    assert file.read(0, 100) == b"abXYef\0\0end"
    assert file.read(1, 3) == b"bXY"
    assert file.read(50, 10) == b""
    assert file.size() == 11
    file.truncate(4)
    file.truncate(6)
    assert file.read(0, 100) == b"abXY\0\0"
    file.close()
    file.close()
    again = disk.open(directory / "a")
    assert again.read(0, 100) == b"abXY\0\0"
    again.close()


def test_zeros_are_synced_in_small_pieces(place: tuple[Disk, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    disk, directory = place
    file = disk.create(directory / "zeros")
    pieces: list[int] = []
    write_synced = type(file).write_synced

    def noted(self: File, offset: int, buffers: Sequence[bytes]) -> None:
        pieces.append(sum(map(len, buffers)))
        write_synced(self, offset, buffers)

    monkeypatch.setattr(type(file), "write_synced", noted)
    size_bytes = 2 * MIB + 100
    write_zeros(file, 0, size_bytes)
    assert pieces == [MIB, MIB, 100]
    assert file.read(0, 2 * size_bytes) == bytes(size_bytes)
    if isinstance(disk, SimDisk):
        assert disk.durable_bytes(directory / "zeros") == bytes(size_bytes)
    file.close()


def test_names(place: tuple[Disk, Path]) -> None:
    disk, directory = place
    disk.make_directory(directory)
    assert disk.list(directory) == []
    for name in ("b", "a"):
        disk.create(directory / name).close()
    assert disk.list(directory) == ["a", "b"]
    disk.rename(directory / "a", directory / "c")
    disk.rename(directory / "c", directory / "b")
    assert disk.list(directory) == ["b"]
    assert disk.exists(directory / "b")
    assert not disk.exists(directory / "a")
    disk.remove(directory / "b")
    disk.sync_directory(directory)
    assert disk.list(directory) == []
    assert disk.free_bytes(directory) > 0


def test_errors_name_the_operation_and_the_file(place: tuple[Disk, Path]) -> None:
    disk, directory = place
    path = directory / "a"
    for operation, call in [
        ("open", disk.open),
        ("remove", disk.remove),
        ("rename", lambda path: disk.rename(path, directory / "b")),
    ]:
        with pytest.raises(DiskError, match=rf"{operation}.* {path}: No such file"):
            call(path)
    disk.create(path).close()
    with pytest.raises(DiskError, match="exists"):
        disk.create(path)


def test_a_directory_has_one_owner(place: tuple[Disk, Path]) -> None:
    disk, directory = place
    lock = disk.lock(directory / "lock")
    with pytest.raises(DataDirError, match="in use"):
        disk.lock(directory / "lock")
    lock.release()
    lock.release()
    disk.lock(directory / "lock").release()


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from coord.disk import RealDisk\n"
        "lock = RealDisk().lock(Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(DataDirError, match=f"in use by process {holder.pid}:"):
            RealDisk().lock(tmp_path / "lock")
        holder.kill()
        holder.wait()
        RealDisk().lock(tmp_path / "lock").release()


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    disk = RealDisk()
    disk.make_directory(tmp_path / "d")
    disk.create(tmp_path / "d" / "f").close()
    disk.lock(tmp_path / "d" / "lock").release()
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    assert {stat.S_IMODE(child.stat().st_mode) for child in (tmp_path / "d").iterdir()} == {0o600}


def test_links_and_directories_are_not_opened(tmp_path: Path) -> None:
    disk = RealDisk()
    (tmp_path / "target").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "fifo")
    assert disk.exists(tmp_path / "broken")
    for name in ("link", "broken"):
        for call in (disk.open, disk.create, disk.lock):
            with pytest.raises(DiskError):
                call(tmp_path / name)
    with pytest.raises(DiskError, match="not a regular file"):
        disk.open(tmp_path / "fifo")
    with pytest.raises(DiskError):
        disk.open(tmp_path)


@define
class System:
    """The system calls under a `RealFile`, with short writes and refusals."""

    short: int = 2**30
    refusal: int = 0
    """The errno of a write that asks to be synced."""
    failure: int = 0
    """The errno of any write."""
    calls: list[str] = field(factory=list)

    def pwritev(self, descriptor: int, buffers: Sequence[bytes], offset: int, flags: int = 0) -> int:
        assert len(buffers) <= 1024
        self.calls.append("write and sync" if flags else "write")
        error = self.failure or (self.refusal if flags else 0)
        if error:
            raise OSError(error, os.strerror(error))
        return os.pwrite(descriptor, b"".join(buffers)[: self.short], offset)

    def fdatasync(self, _: int) -> None:
        self.calls.append("sync")
        if self.failure:
            raise OSError(self.failure, os.strerror(self.failure))


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    system = System()
    monkeypatch.setattr(disk_module.os, "pwritev", system.pwritev)
    monkeypatch.setattr(disk_module.os, "fdatasync", system.fdatasync)
    monkeypatch.setattr(disk_module, "_WRITE_AND_SYNC", 2)
    monkeypatch.setattr(disk_module, "_FULL_SYNC", 0)
    return system


def test_a_synced_write_is_one_call(tmp_path: Path, system: System) -> None:
    file = RealDisk().create(tmp_path / "f")
    file.write_synced(0, (b"abc", b"def"))
    assert system.calls == ["write and sync"]
    assert file.read(0, 10) == b"abcdef"


def test_short_writes_go_on_and_are_synced_as_a_whole(tmp_path: Path, system: System) -> None:
    system.short = 4
    file = RealDisk().create(tmp_path / "f")
    file.write_synced(1, (b"abc", b"", b"defgh", b"i"))
    assert file.read(1, 20) == b"abcdefghi"
    assert system.calls == ["write and sync", "write", "write", "sync"]


def test_many_buffers_are_written_in_portions(tmp_path: Path, system: System) -> None:
    file = RealDisk().create(tmp_path / "f")
    file.write_synced(0, [bytes([number % 251]) for number in range(2500)])
    assert file.read(0, 3000) == bytes(number % 251 for number in range(2500))
    assert system.calls == ["write and sync", "write", "write", "sync"]


@pytest.mark.parametrize("refusal", [errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_system_without_synced_writes(tmp_path: Path, system: System, refusal: int) -> None:
    system.refusal = refusal
    file = RealDisk().create(tmp_path / "f")
    file.write_synced(0, (b"abc",))
    assert system.calls == ["write and sync", "write", "sync"]
    assert file.read(0, 10) == b"abc"


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError)])
def test_a_full_disk_is_told_apart(tmp_path: Path, system: System, number: int, kind: type[DiskError]) -> None:
    file = RealDisk().create(tmp_path / "f")
    system.failure = number
    for call in (file.write, file.write_synced):
        with pytest.raises(kind, match="free space"):
            call(0, (b"abc",))
    with pytest.raises(DiskError) as caught:
        file.sync()
    assert type(caught.value) is DiskError, "a sync that fails is final, whatever the reason"


def test_an_io_error_is_no_full_disk(tmp_path: Path, system: System) -> None:
    file = RealDisk().create(tmp_path / "f")
    system.failure = errno.EIO
    for call in (file.write, file.write_synced):
        with pytest.raises(DiskError) as caught:
            call(0, (b"abc",))
        assert type(caught.value) is DiskError
        assert str(tmp_path / "f") in str(caught.value)


def test_the_log_on_a_real_disk(tmp_path: Path) -> None:
    rig = Rig(disk=RealDisk(), directory=tmp_path / "wal")
    rig.recover()
    for _ in range(6):
        rig.append(1400, 1400)
        rig.prepare()
    rig.release(8)
    rig.append(5)
    rig.wal.close()
    found = rig.recover()
    assert found.last_index == 13
    assert recover(RealDisk(), tmp_path / "wal", 7, salt=lambda: 1, segment_bytes=4096)[1].entries == found.entries


# The simulated disk forgets.


@pytest.fixture
def sim() -> SimDisk:
    disk = SimDisk(1)
    disk.make_directory(DATA)
    disk.create(DATA / "f").write_synced(0, (b"a" * 2048,))
    disk.sync_directory(DATA)
    return disk


def contents(disk: SimDisk) -> bytes:
    file = disk.open(DATA / "f")
    return file.read(0, file.size())


def test_unsynced_blocks_are_kept_lost_and_reordered(sim: SimDisk) -> None:
    sim.open(DATA / "f").write(512, (b"b" * 1024,))
    found = {contents(image)[::512] for image in crash_states(sim)}
    assert found == {b"aaaa", b"abaa", b"aaba", b"abba"}
    assert contents(sim)[::512] == b"abba"


def test_every_version_of_a_block_may_be_the_one_that_stays(sim: SimDisk) -> None:
    file = sim.open(DATA / "f")
    file.write(0, (b"b" * 512,))
    file.write(0, (b"c" * 512,))
    assert {contents(image)[:1] for image in crash_states(sim)} == {b"a", b"b", b"c"}
    file.sync()
    assert {contents(image)[:1] for image in crash_states(sim)} == {b"c"}


def test_a_synced_write_vouches_for_itself_alone(sim: SimDisk) -> None:
    file = sim.open(DATA / "f")
    file.write(0, (b"b" * 512,))
    file.write_synced(512, (b"c" * 512,))
    assert {contents(image)[::512] for image in crash_states(sim)} == {b"acaa", b"bcaa"}


def test_sizes_are_metadata_of_their_own(sim: SimDisk) -> None:
    file = sim.open(DATA / "f")
    file.write(2048, (b"d" * 512,))
    assert {contents(image)[2048:2049] for image in crash_states(sim)} == {b"", b"\0", b"d"}
    file.truncate(512)
    assert {len(contents(image)) for image in crash_states(sim)} == {2048, 2560, 512}


def test_names_are_lost_and_kept_one_by_one(sim: SimDisk) -> None:
    sim.create(DATA / "g").close()
    sim.rename(DATA / "f", DATA / "h")
    names = {tuple(image.list(DATA)) for image in crash_states(sim)}
    assert names == {("f",), ("f", "g"), ("h",), ("g", "h")}
    sim.sync_directory(DATA)
    assert {tuple(image.list(DATA)) for image in crash_states(sim)} == {("g", "h")}


@pytest.mark.parametrize("style", list(SyncFailure))
def test_a_failed_sync_forgets_that_blocks_are_dirty(sim: SimDisk, style: SyncFailure) -> None:
    file = sim.open(DATA / "f")
    file.write(0, (b"b" * 2048,))
    sim.fail_sync_at, sim.sync_failure = 1, style
    with pytest.raises(DiskError):
        file.sync()
    seen = contents(sim)
    durable = sim.durable_bytes(DATA / "f")
    assert b"a" in durable
    assert seen == (b"b" * 2048 if style is SyncFailure.KEEPS_CLEAN else durable)
    file.sync()
    assert sim.durable_bytes(DATA / "f") == durable, "a second sync succeeds and writes nothing"


def test_a_process_that_ended_cannot_use_its_files(sim: SimDisk) -> None:
    file = sim.open(DATA / "f")
    sim.lock(DATA / "lock")
    file.write(0, (b"b",))
    sim.restart()
    with pytest.raises(AssertionError, match="has ended"):
        file.write(0, (b"c",))
    assert contents(sim)[:1] == b"b", "the kernel still knows what was written"
    sim.lock(DATA / "lock")
    sim.crash(lambda _: 0)
    assert contents(sim)[:1] == b"a"


def test_one_seed_is_one_run() -> None:
    def run(seed: int) -> list[bytes]:
        disk = SimDisk(seed)
        disk.make_directory(DATA)
        disk.create(DATA / "f").write_synced(0, (bytes(5120),))
        disk.sync_directory(DATA)
        found = []
        for byte in range(1, 6):
            disk.open(DATA / "f").write(0, (bytes([byte]) * 5120,))
            disk.crash()
            found.append(contents(disk))
        return found

    assert run(7) == run(7)
    assert run(7) != run(8)


def test_a_full_simulated_disk_takes_what_fits(sim: SimDisk) -> None:
    file = sim.open(DATA / "f")
    sim.capacity_bytes = 3000
    assert sim.free_bytes(DATA) == 3000 - 2048
    with pytest.raises(DiskFullError):
        file.write(2000, (b"x" * 2000,))
    assert file.size() == 3000
    file.write(0, (b"y" * 3000,))
    sim.write_budget_bytes = 10
    with pytest.raises(DiskFullError):
        file.write_synced(0, (b"z" * 20,))
    assert contents(sim)[:11] == b"z" * 10 + b"y"
