"""Each rule of the log broken once: the tests above would see it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import evolve

from coord.errors import DamageError, DiskError
from coord.raft.types import HardState
from coord.testing.sim_disk import SimDisk, SimFile, SyncFailure
from coord.wal import log, recovery
from coord.wal.record import frame_batch
from coord.wal.segment import Header
from coord.wal.shape import LogShape

from .crashes import judge_all_crash_states
from .rig import Rig


class LaxDisk(SimDisk):
    """A disk whose owner forgets some syncs: those before which the last operation contains `after`."""

    def __init__(self, after: str) -> None:
        super().__init__(1)
        self._after = after

    def _forgets(self) -> bool:
        done = [line for line in self.operations if not line.startswith("sync")]
        return bool(done) and self._after in done[-1]

    def sync_directory(self, path) -> None:
        if not self._forgets():
            super().sync_directory(path)

    def _sync(self, operation, inode, blocks) -> None:
        if not self._forgets():
            super()._sync(operation, inode, blocks)


@pytest.mark.parametrize(
    ("bug", "after"),
    [
        ("acknowledge a batch before it is synced", "write 0"),
        ("rename a segment before its header is synced", "write spare"),
        ("use a segment before its name is durable", "rename spare"),
        ("release or recycle the next before the last name is gone", "rename 0"),
    ],
)
def test_a_forgotten_sync_is_caught(bug: str, after: str) -> None:
    with pytest.raises((AssertionError, DamageError)):
        judge_all_crash_states(Rig(disk=LaxDisk(after)), random_states=10)


def test_a_lax_disk_that_forgets_nothing_is_fine() -> None:
    assert judge_all_crash_states(Rig(disk=LaxDisk("nothing")), random_states=0)


def test_writing_the_next_batch_before_the_last_is_synced_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """S5: two batches under way at once, of which the first may be lost and the second kept: damage."""

    def run_all_unsynced(job: log.WriteJob) -> None:
        files = job._files
        for step in job._steps:
            if isinstance(step, log._Write):
                files._file.write(step.offset, step.buffers)
                files.batch = step.batch
            else:
                step.run(files)
        files._file.sync()
        job._steps.clear()

    monkeypatch.setattr(log.WriteJob, "run", run_all_unsynced)
    monkeypatch.setattr(log, "WAL_BATCH_BYTES_MAX", 1024)
    with pytest.raises((AssertionError, DamageError)):
        judge_all_crash_states(Rig(), random_states=10)


def test_releasing_the_segment_with_term_and_vote_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(Header):
        def encode(self) -> bytes:
            return Header.encode(evolve(self, hard_state=HardState()))

    monkeypatch.setattr(log, "Header", Forgetful)
    with pytest.raises((AssertionError, DamageError)):
        judge_all_crash_states(Rig(), random_states=0)


def test_keeping_the_log_beside_a_snapshot_that_contradicts_it_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogShape, "install", lambda _shape, _mark: True)
    with pytest.raises((AssertionError, DamageError, ValueError)):
        judge_all_crash_states(Rig(), random_states=0)


def forge_by_recycling(salt: Callable[[], int]) -> list[bytes]:
    """Let a client that knows a salt write a batch of a segment to come as its value; return what is found."""
    rig = Rig(salt=salt)
    rig.recover()
    known = rig.wal._salt
    # Segment 1 will be used again as segment 3. Its third block shall look like the batch after the first there.
    forged = b"".join(frame_batch(known, 3, 4, HardState(1, 0, 0), [(4, 1, b"forged")])[1])
    filler = 1024 + 512 - (512 + 52 + 24)
    rig.write([(1, 1, (b"x" * filler + forged).ljust(3000, b"x"))])
    rig.write([(2, 1, b"x" * 3000)])
    assert rig.release(1)
    rig.write([(3, 1, b"x" * 800)])
    assert rig.segments()[-1].name == "0000000000000003.wal"
    return [entry[2] for entry in rig.recover_on(rig.disk)[1].entries]


def test_reusing_a_salt_is_caught() -> None:
    """S5: stale bytes of a recycled file, chosen by a client, must not pass for a batch."""
    salts = iter(range(100, 200))
    assert b"forged" not in forge_by_recycling(lambda: next(salts))
    assert b"forged" in forge_by_recycling(lambda: 100)


def resurrect(rig: Rig) -> list[int]:
    """Tear a batch, recover without it, tear another over it so that the blocks of both make up the first again."""
    rig.append(10)
    shared = b"s" * (512 - 76) + b"t" * 512
    rig.issue([(2, 1, shared + b"old" * 150)])
    first = rig.disk.open(rig.segments()[0])
    blocks = b"".join(frame_batch(rig.wal._salt, 1, 2, HardState(1, 0, 0), [(2, 1, shared + b"old" * 150)])[1])
    assert len(blocks) == 1536
    first.write_synced(1024, (blocks[:512],))
    first.write_synced(2048, (blocks[1024:],))
    rig.disk.restart()
    assert rig.recover().last_index == 1
    second = rig.disk.open(rig.segments()[0])
    other = b"".join(frame_batch(rig.wal._salt, 1, 2, HardState(2, 0, 0), [(2, 2, shared + b"new" * 150)])[1])
    assert other[512:1024] == blocks[512:1024]
    second.write_synced(1536, (other[512:1024],))
    rig.disk.restart()
    return [entry[0] for entry in rig.recover_on(rig.disk)[1].entries]


def test_not_zeroing_a_torn_tail_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """S5: what one recovery has cut off must not come back in the next."""
    sane = Rig()
    sane.recover()
    assert resurrect(sane) == [1]
    monkeypatch.setattr(recovery, "clear_tail", lambda *_: None)
    broken = Rig()
    broken.recover()
    assert resurrect(broken) == [1, 2]


def test_trusting_what_recovery_reads_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose sync failed is shown by the kernel and acknowledged by the next process; then power fails."""

    def only_sync(file: SimFile, *_: object) -> None:
        file.sync()

    monkeypatch.setattr(recovery, "clear_tail", only_sync)
    rig = Rig()
    rig.recover()
    rig.disk.sync_failure, rig.disk.fail_sync_at = SyncFailure.KEEPS_CLEAN, 1
    with pytest.raises(DiskError):
        rig.issue([(1, 1, b"seen" * 300)])()
    rig.disk.restart()
    assert rig.recover().last_index == 1
    rig.append(10)
    rig.disk.crash(lambda _: 0)
    with pytest.raises((AssertionError, DamageError)):
        rig.recover()
