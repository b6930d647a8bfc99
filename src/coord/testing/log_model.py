"""A naive model of the log, and the judge of what recovery finds: acknowledged ⊆ recovered ⊆ issued."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, evolve, field, frozen

from coord.raft.types import Entry, HardState
from coord.wal.record import SnapshotMark
from coord.wal.recovery import Recovery


@frozen
class LogState:
    """What a log holds at one moment, as a list."""

    start: tuple[int, int] = (0, 0)
    entries: tuple[Entry, ...] = ()
    hard_state: HardState = HardState()  # noqa: RUF009 - it is frozen
    snapshot: SnapshotMark | None = None

    @property
    def last_index(self) -> int:
        """The index of the last entry, or of the start if there is none."""
        return self.entries[-1][0] if self.entries else self.start[0]

    def after(self, entries: Sequence[Entry], hard_state: HardState, snapshot: SnapshotMark | None) -> LogState:
        """Return the state after a batch."""
        start, held = self.start, self.entries
        if snapshot is not None:
            places = [self.start, *((index, term) for index, term, _ in held)]
            if snapshot.index >= start[0] and (snapshot.index, snapshot.term) not in places:
                start, held = (snapshot.index, snapshot.term), ()
        if entries:
            held = (*(entry for entry in held if entry[0] < entries[0][0]), *entries)
        return LogState(start, held, hard_state, snapshot or self.snapshot)

    def differences(self, recovery: Recovery, released: int) -> list[str]:
        """Return in what a recovery differs from this state, given that all up to `released` may be gone."""
        state = self.hard_state
        expected = HardState(state.term, state.vote, min(state.commit, self.last_index))
        found: list[str] = []
        if recovery.hard_state != expected:
            found.append(f"{recovery.hard_state}, not {expected}")
        if recovery.last_index != self.last_index:
            found.append(f"last index {recovery.last_index}, not {self.last_index}")
        if recovery.start_index > max(released, self.start[0]):
            found.append(f"starts at {recovery.start_index}, released were {released}")
        floor = max(recovery.start_index, self.start[0])
        if [e for e in recovery.entries if e[0] > floor] != [e for e in self.entries if e[0] > floor]:
            found.append("other entries")
        is_dispensable = self.snapshot is not None and self.snapshot.index <= released
        if recovery.snapshot != self.snapshot and not (recovery.snapshot is None and is_dispensable):
            found.append(f"snapshot {recovery.snapshot}, not {self.snapshot}")
        return found


@define
class LogModel:
    """The states that a recovery may find: the one acknowledged, and those of the write under way."""

    acknowledged: LogState = field(factory=LogState)
    under_way: list[LogState] = field(factory=list)
    released: int = 0

    def issue(
        self,
        entries: Sequence[Entry],
        hard_state: HardState,
        snapshot: SnapshotMark | None = None,
        *,
        is_split: bool = False,
    ) -> None:
        """A write begins. One that is split into several batches may be found in part."""
        first = 0 if is_split else len(entries)
        for count in range(first, len(entries) + 1):
            self.under_way.append(self.acknowledged.after(entries[:count], hard_state, snapshot))

    def acknowledge(self) -> None:
        """The write under way was acknowledged."""
        self.acknowledged = self.under_way[-1]
        self.under_way = []

    def release(self, index: int) -> None:
        """Segments up to `index` may go from now on."""
        self.released = max(self.released, index)

    def check(self, recovery: Recovery) -> None:
        """Raise `AssertionError` if a recovery lost something acknowledged or found something never
        issued."""
        states = [self.acknowledged, *self.under_way]
        verdicts = [state.differences(recovery, self.released) for state in states]
        assert not all(verdicts), f"recovered {recovery}, which is none of {states}: {verdicts}"

    def settle(self, recovery: Recovery) -> None:
        """Go on from what was recovered: whatever was cut off must never come back."""
        self.check(recovery)
        states = [self.acknowledged, *self.under_way]
        self.acknowledged = next(s for s in states if not s.differences(recovery, self.released))
        state = self.acknowledged
        self.acknowledged = evolve(state, snapshot=recovery.snapshot, hard_state=recovery.hard_state)
        self.under_way = []
