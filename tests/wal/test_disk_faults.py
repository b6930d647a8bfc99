"""A disk that fails, and a disk that is full (law 7, S16)."""

from __future__ import annotations

import random

import pytest

from coord.errors import DiskError, DiskFullError
from coord.raft.types import HardState
from coord.testing.sim_disk import SimDisk, SyncFailure
from coord.wal.files import SPARES_MAX

from .rig import DIRECTORY, Rig, random_step

STYLES = list(SyncFailure)


@pytest.mark.parametrize("style", STYLES)
def test_after_a_failed_sync_the_log_is_never_asked_again(rig: Rig, style: SyncFailure) -> None:
    rig.disk.sync_failure, rig.disk.fail_sync_at = style, 1
    job = rig.wal.plan([(1, 1, b"x")], HardState(1, 0, 0))
    with pytest.raises(DiskError, match="Input/output error"):
        job.run()
    with pytest.raises(DiskError, match="failed before: restart the node"):
        job.run()
    with pytest.raises(DiskError):
        rig.wal.plan([(2, 1, b"x")], HardState(1, 0, 0)).run()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("power_fails", [False, True])
def test_any_failed_sync_then_restarts_lose_nothing_acknowledged(style: SyncFailure, power_fails: bool) -> None:
    """What a restarted process reads may never have reached the disk: recovery makes it certain, twice."""
    failures = 0
    for seed in range(80):
        chance = random.Random(seed)
        rig = Rig(disk=SimDisk(seed))
        rig.recover()
        rig.disk.sync_failure = style
        rig.disk.fail_sync_at = chance.randrange(1, 40)
        try:
            while True:
                random_step(rig, chance)
        except DiskError:
            failures += 1
        (rig.disk.crash if power_fails else rig.disk.restart)()
        rig.recover()
        for _ in range(3):
            random_step(rig, chance)
        rig.disk.crash()
        rig.recover()
    assert failures == 80


def test_what_recovery_read_is_durable_when_it_returns(rig: Rig) -> None:
    """The process before saw its sync fail; this kernel shows its bytes and will never write them."""
    rig.append(100)
    rig.disk.sync_failure, rig.disk.fail_sync_at = SyncFailure.KEEPS_CLEAN, 1
    with pytest.raises(DiskError):
        rig.issue([(2, 1, b"seen" * 300)])()
    rig.disk.restart()
    found = rig.recover()
    assert found.last_index == 2
    rig.disk.crash(lambda _: 0)
    assert rig.recover().last_index == 2


@pytest.mark.parametrize("style", STYLES)
def test_a_sync_that_fails_during_recovery(style: SyncFailure) -> None:
    for seed in range(40):
        chance = random.Random(seed)
        rig = Rig(disk=SimDisk(seed))
        rig.recover()
        for _ in range(12):
            random_step(rig, chance)
        rig.model.issue([(rig.wal.last_index + 1, 9, b"torn" * 300)], HardState(9, 0, 0))
        job = rig.wal.plan([(rig.wal.last_index + 1, 9, b"torn" * 300)], HardState(9, 0, 0))

        def stop(_: str) -> None:
            raise KeyboardInterrupt

        rig.disk.observer = stop
        with pytest.raises(KeyboardInterrupt):
            job.run()
        rig.disk.observer = None
        rig.disk.crash()
        rig.disk.sync_failure, rig.disk.fail_sync_at = style, chance.randrange(1, 4)
        with pytest.raises(DiskError):
            rig.recover()
        rig.disk.fail_sync_at = None
        rig.disk.crash() if chance.random() < 0.5 else rig.disk.restart()
        rig.recover()
        rig.append(10)
        rig.disk.crash(lambda _: 0)
        rig.recover()


def test_a_tail_that_a_failed_recovery_only_seems_to_have_zeroed(rig: Rig) -> None:
    """The first block of what was cut off is zero on the disk, and so no later crash can bring it back."""
    rig.append(100)
    path = rig.segments()[0]
    torn = b"".join(rig.wal.plan([(2, 1, b"torn" * 300)], HardState(1, 0, 0))._steps[0].buffers)
    rig.disk.open(path).write_synced(1024, (torn[:512],))
    stale = 0
    for seed in range(20):
        disk = SimDisk(seed)
        disk._directories = rig.disk.image()._directories
        disk.fail_sync_at, disk.sync_failure = 3, SyncFailure.KEEPS_CLEAN
        with pytest.raises(DiskError):
            rig.recover_on(disk)
        stale += disk.durable_bytes(path)[1024:1536] != bytes(512)
        disk.restart()
        rig.recover_on(disk)
        assert disk.durable_bytes(path)[1024:1536] == bytes(512)
    assert stale


def test_a_full_disk_during_an_append_can_be_tried_again(rig: Rig) -> None:
    rig.append(100)
    rig.disk.write_budget_bytes = 700
    run = rig.issue([(2, 1, b"x" * 1500)])
    for _ in range(2):
        with pytest.raises(DiskFullError, match="No space left"):
            run()
        assert rig.recover_on(rig.disk.image())[1].last_index == 1
    rig.disk.write_budget_bytes = None
    run()
    rig.append(100)
    rig.disk.crash(lambda _: 0)
    assert rig.recover().last_index == 3


@pytest.mark.parametrize("budget", [0, 100, 3000, 4096, 4200, 4608, 5000])
def test_a_full_disk_during_a_roll_can_be_tried_again(rig: Rig, budget: int) -> None:
    rig.append(3000)
    rig.disk.write_budget_bytes = budget
    run = rig.issue([(2, 1, b"x" * 1500)])
    for _ in range(2):
        with pytest.raises(DiskFullError):
            run()
        rig.model.check(rig.recover_on(rig.disk.image())[1])
        rig.disk.write_budget_bytes = 600
        spare = [name for name in rig.disk.list(DIRECTORY) if name.endswith(".tmp")]
        assert len(spare) == rig.wal._files.spares, "no file is lost"
    rig.disk.write_budget_bytes = None
    run()
    rig.append(10)
    rig.disk.crash(lambda _: 0)
    assert rig.recover().last_index == 3


def test_a_large_write_that_meets_a_full_disk_goes_on_where_it_stopped(rig: Rig) -> None:
    rig.disk.write_budget_bytes = 9000
    run = rig.issue([(index, 1, b"x" * 1500) for index in range(1, 12)])
    with pytest.raises(DiskFullError):
        run()
    rig.disk.write_budget_bytes = None
    run()
    rig.disk.crash(lambda _: 0)
    assert rig.recover().last_index == 11


def test_a_segment_prepared_ahead_needs_no_room(rig: Rig) -> None:
    """S16: with the next file ready, a disk filled by others does not stop the log at once."""
    rig.prepare()
    rig.disk.capacity_bytes = 2 * 4096
    for _ in range(4):
        rig.append(1400)
    assert len(rig.segments()) == 2
    job = rig.wal.prepare_job()
    assert job is not None
    with pytest.raises(DiskFullError):
        job.run()
    assert len(rig.disk.list(DIRECTORY)) == 2, "half a file is given back"
    rig.disk.capacity_bytes = 3 * 4096
    rig.prepare()
    rig.append(1400)
    assert rig.recover().last_index == 5


def test_released_segments_make_room_on_a_full_disk(rig: Rig) -> None:
    rig.disk.capacity_bytes = 3 * 4096
    for _ in range(6):
        rig.append(1400)
    run = rig.issue([(7, 1, b"x" * 1400)])
    with pytest.raises(DiskFullError):
        run()
    assert rig.release(4)
    run()
    rig.disk.crash(lambda _: 0)
    assert rig.recover().last_index == 7


def test_files_beyond_the_spare_ones_are_removed(rig: Rig) -> None:
    for _ in range(20):
        rig.append(1400)
    assert rig.release(20)
    spare = [name for name in rig.disk.list(DIRECTORY) if name.endswith(".tmp")]
    assert len(spare) == SPARES_MAX
    assert len(rig.segments()) == 1


def test_random_workloads_on_a_disk_that_fills_and_empties() -> None:
    full = 0
    for seed in range(60):
        chance = random.Random(seed)
        rig = Rig(disk=SimDisk(seed))
        rig.recover()
        for _ in range(3):
            rig.disk.write_budget_bytes = chance.randrange(15_000)
            try:
                while True:
                    random_step(rig, chance)
            except DiskFullError:
                full += 1
            rig.disk.write_budget_bytes = None
            rig.disk.crash()
            rig.recover()
    assert full == 180


def test_a_full_disk_at_the_first_start_leaves_nothing_behind() -> None:
    rig = Rig()
    rig.disk.capacity_bytes = 4000
    with pytest.raises(DiskFullError):
        rig.recover()
    assert rig.disk.list(DIRECTORY) == []
    rig.disk.capacity_bytes = None
    rig.recover()
    rig.append(1)
