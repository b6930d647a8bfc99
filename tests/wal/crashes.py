"""A workload that does all a log can do, and the judge of every state that a power failure can leave of it."""

from __future__ import annotations

from coord.raft.types import HardState
from coord.testing.crash_states import crash_states
from coord.testing.sim_disk import SimDisk
from coord.wal.record import SnapshotMark

from .rig import Rig


def judge(rig: Rig, image: SimDisk) -> None:
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


def workload(rig: Rig) -> None:
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


def judge_all_crash_states(rig: Rig, *, random_states: int) -> int:
    """Run the workload; at each of its operations, recover from each crash state. Return how many there were."""
    images = 0

    def look(_: str) -> None:
        nonlocal images
        for image in crash_states(rig.disk, random_states=random_states, seed=images):
            judge(rig, image)
            images += 1

    rig.recover()
    rig.disk.observer = look
    workload(rig)
    return images
