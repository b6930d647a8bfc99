"""A log on a simulated disk, with the model that judges it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import define, field

from coord.raft.types import Entry, HardState
from coord.testing.log_model import LogModel
from coord.testing.sim_disk import SimDisk
from coord.wal.log import Wal
from coord.wal.record import SnapshotMark, batch_bytes
from coord.wal.recovery import Recovery, recover

DIRECTORY = Path("/data/wal")
MEMBER = 7
SEGMENT_BYTES = 4096


@define(repr=False)
class Rig:
    """A log, its disk and its model; steps keep the three together."""

    disk: SimDisk = field(factory=SimDisk)
    model: LogModel = field(factory=LogModel)
    segment_bytes: int = SEGMENT_BYTES
    directory: Path = DIRECTORY
    member: int = MEMBER
    salt: Callable[[], int] = field(factory=lambda: _salts(1))
    _wal: Wal | None = None

    @property
    def wal(self) -> Wal:
        assert self._wal is not None, "recover first"
        return self._wal

    def recover_on(self, disk: SimDisk) -> tuple[Wal, Recovery]:
        return recover(disk, self.directory, self.member, salt=self.salt, segment_bytes=self.segment_bytes)

    def recover(self) -> Recovery:
        """Start a process; what it finds becomes the truth."""
        self.disk.make_directory(self.directory.parent)
        self._wal, recovery = self.recover_on(self.disk)
        self.model.settle(recovery)
        return recovery

    def issue(
        self,
        entries: Sequence[Entry] = (),
        hard_state: HardState | None = None,
        snapshot: SnapshotMark | None = None,
    ) -> Callable[[], None]:
        """Plan a write; return what runs it."""
        held = self.model.acknowledged.hard_state
        state = hard_state or HardState(max([held.term, *(e[1] for e in entries)]), held.vote, held.commit)
        is_split = batch_bytes(entries, snapshot) > self.segment_bytes - 512
        self.model.issue(entries, state, snapshot, is_split=is_split)
        job = self.wal.plan(entries, state, snapshot)

        def run() -> None:
            job.run()
            self.model.acknowledge()

        return run

    def write(
        self,
        entries: Sequence[Entry] = (),
        hard_state: HardState | None = None,
        snapshot: SnapshotMark | None = None,
    ) -> None:
        self.issue(entries, hard_state, snapshot)()

    def append(self, *sizes: int, term: int | None = None, fill: int = 0) -> None:
        """Append one entry of each size, in one write."""
        state = self.model.acknowledged
        first = state.last_index + 1
        of_term = term or max(state.hard_state.term, 1)
        content = bytes([fill or 1 + first % 255])
        self.write([(first + at, of_term, content * size) for at, size in enumerate(sizes)])

    def prepare(self) -> None:
        job = self.wal.prepare_job()
        if job is not None:
            job.run()

    def release(self, index: int) -> bool:
        self.model.release(index)
        job = self.wal.release(index)
        if job is not None:
            job.run()
        return job is not None

    def segments(self) -> list[Path]:
        return [self.directory / name for name in self.disk.list(self.directory) if name.endswith(".wal")]


def _salts(seed: int) -> Callable[[], int]:
    chance = random.Random(seed)
    return lambda: chance.getrandbits(32)


def random_step(rig: Rig, chance: random.Random) -> None:
    """Do one thing that a member may do to its log; a full disk may stop it half way."""
    state = rig.model.acknowledged
    hard, last = state.hard_state, state.last_index
    kind = chance.choices(
        ["append", "overwrite", "vote", "commit", "snapshot", "release", "prepare"], [8, 2, 1, 1, 1, 2, 2]
    )[0]
    if kind == "prepare":
        rig.prepare()
    elif kind == "release":
        rig.release(hard.commit)
    elif kind == "vote":
        rig.write((), HardState(hard.term + 1, chance.randrange(4), hard.commit))
    elif kind == "commit":
        rig.write((), HardState(hard.term, hard.vote, chance.randint(hard.commit, last)))
    elif kind == "snapshot":
        index = chance.randint(hard.commit + 1, last + 5)
        term = next((e[1] for e in state.entries if e[0] == index), max(hard.term, 1))
        mark = SnapshotMark(index, term, chance.randbytes(chance.randrange(60)))
        rig.write((), HardState(max(hard.term, term), hard.vote, index), mark)
    else:
        term, first = max(hard.term, 1), last + 1
        if kind == "overwrite" and last > max(hard.commit, state.start[0]):
            term, first = term + 1, chance.randint(max(hard.commit, state.start[0]) + 1, last)
        count = chance.choice([1, 1, 1, 2, 3, 9])
        entries = [
            (first + at, term, chance.randbytes(chance.choice([0, 1, 100, 400, 512, 1500]))) for at in range(count)
        ]
        rig.write(entries, HardState(term, hard.vote, min(max(hard.commit, first - 1), first + count)))
