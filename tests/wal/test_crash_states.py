"""Every state that a power failure can leave, at every moment of a workload, recovers to what it must, twice."""

from __future__ import annotations

import random

from coord.errors import DiskFullError
from coord.raft.types import HardState
from coord.testing.crash_states import crash_states
from coord.testing.sim_disk import SimDisk

from .crashes import judge, judge_all_crash_states, workload
from .rig import Rig, random_step


def test_every_crash_state_of_a_workload_recovers() -> None:
    rig = Rig()
    assert judge_all_crash_states(rig, random_states=40) > 2000
    operations = [operation.split()[0] for operation in rig.disk.operations]
    assert {"create", "write", "sync", "rename"} <= set(operations)
    recycled = [line for line in rig.disk.operations if line.startswith("rename 0")]
    assert len(recycled) >= 2, "the workload should recycle segments"


def test_every_crash_state_of_the_first_start_recovers() -> None:
    rig = Rig()

    def look(_: str) -> None:
        for image in crash_states(rig.disk):
            _, found = rig.recover_on(image)
            assert (found.entries, found.hard_state) == ([], HardState())

    rig.disk.observer = look
    rig.recover()
    assert rig.disk.operations


def test_every_crash_state_of_a_recovery_recovers() -> None:
    rig = Rig()
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


def test_random_workloads_survive_random_crashes() -> None:
    for seed in range(150):
        chance = random.Random(seed)
        rig = Rig(disk=SimDisk(seed))
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


def test_a_full_disk_and_a_crash_after_it() -> None:
    full = 0
    for seed in range(60):
        chance = random.Random(seed)
        rig = Rig(disk=SimDisk(seed))
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
