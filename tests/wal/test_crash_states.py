"""Every state that a power failure can leave, at every moment of a workload, recovers to what it must, twice."""

from __future__ import annotations

import random

from coord.errors import DiskFullError
from coord.raft.types import HardState
from coord.testing.crash_states import crash_states
from coord.testing.sim_disk import SimDisk
from coord.wal.record import SnapshotMark


def judge(rig, image: SimDisk) -> None:
    """Recover from a crash state; then again, after another power failure and after none."""
    wal, found = rig.recover_on(image)
    rig.model.check(found)
    for disk in (image.image(lambda _: 0), image.image()):
        _, again = rig.recover_on(disk)
        assert (again.hard_state, again.snapshot, again.entries) == (
            found.hard_state,
            found.snapshot,
            found.entries,
        )
    # The log can be used: what is appended now is found, and nothing else comes back.
    index = found.last_index + 1
    entry = (index, found.hard_state.term + 1, b"after")
    wal.plan([entry], HardState(found.hard_state.term + 1, 0, found.hard_state.commit)).run()
    _, grown = rig.recover_on(image.image(lambda _: 0))
    assert grown.entries == [*found.entries, entry]


def workload(rig) -> None:
    """Rolls into a fresh, a prepared and a recycled segment; overwrites, releases, installs a snapshot."""
    rig.append(700)
    rig.append(100, 900)
    rig.prepare()
    rig.append(1500, 600)
    rig.append(10)
    rig.write([(4, 2, b"new" * 200), (5, 2, b"leader" * 90)], HardState(2, 3, 3))
    rig.append(1200)
    rig.append(1800)
    rig.write((), HardState(2, 3, 5))
    assert rig.release(5)
    rig.append(2000)
    rig.append(2500)
    rig.write((), HardState(3, 1, 8), SnapshotMark(20, 3, b"members"))
    assert rig.release(20)
    rig.append(600, 600, 600, 600, 600, 600, 600, 600, 600)
    rig.append(50)


def test_every_crash_state_of_a_workload_recovers(new_rig) -> None:
    rig = new_rig()
    images = 0
    seen: set[str] = set()

    def look(operation: str) -> None:
        nonlocal images
        seen.add(operation.split()[0])
        for image in crash_states(rig.disk, random_states=40, seed=images):
            judge(rig, image)
            images += 1

    rig.recover()
    rig.disk.observer = look
    workload(rig)

    assert images > 2000
    assert {"create", "write", "sync", "rename"} <= seen
    recycled = [line for line in rig.disk.operations if line.startswith("rename 0")]
    assert len(recycled) >= 2, "the workload should recycle segments"


def test_every_crash_state_of_the_first_start_recovers(new_rig) -> None:
    rig = new_rig()

    def look(_: str) -> None:
        for image in crash_states(rig.disk):
            _, found = rig.recover_on(image)
            assert (found.entries, found.hard_state) == ([], HardState())

    rig.disk.observer = look
    rig.recover()
    assert rig.disk.operations


def test_every_crash_state_of_a_recovery_recovers(new_rig) -> None:
    rig = new_rig()
    rig.recover()
    workload(rig)
    rig.release(22)
    torn = rig.issue([(rig.model.acknowledged.last_index + 1, 3, b"torn" * 300)])
    images = 0

    def look(operation: str) -> None:
        nonlocal images
        if not operation.startswith("write"):
            return
        for number, image in enumerate(crash_states(rig.disk, seed=3)):

            def look_deeper(_: str, image: SimDisk = image) -> None:
                nonlocal images
                for second in crash_states(image, random_states=1, seed=images):
                    judge(rig, second)
                    images += 1

            image.observer = look_deeper
            rig.recover_on(image)
            assert number < 1000

    rig.disk.observer = look
    torn()
    assert images > 20


def test_random_workloads_survive_random_crashes(new_rig, random_step) -> None:
    for seed in range(150):
        chance = random.Random(seed)
        rig = new_rig(disk=SimDisk(seed))
        rig.recover()
        for _ in range(4):
            countdown = chance.randrange(1, 60)

            def fuse(_: str) -> None:
                nonlocal countdown
                countdown -= 1
                if countdown == 0:
                    raise KeyboardInterrupt

            rig.disk.observer = fuse
            try:
                while True:
                    random_step(rig, chance)
            except KeyboardInterrupt:
                rig.disk.observer = None
            if chance.random() < 0.7:
                rig.disk.crash()
            else:
                rig.disk.restart()
            rig.recover()


def test_a_full_disk_and_a_crash_after_it(new_rig, random_step) -> None:
    full = 0
    for seed in range(60):
        chance = random.Random(seed)
        rig = new_rig(disk=SimDisk(seed))
        rig.recover()
        rig.disk.write_budget_bytes = chance.randrange(20_000)
        try:
            while True:
                random_step(rig, chance)
        except DiskFullError:
            full += 1
        rig.disk.write_budget_bytes = None
        rig.disk.crash()
        rig.recover()
    assert full == 60
