"""A store under test, beside a naive model of what it must hold and of the log behind it.

The model keeps a copy of the whole state at every cut. After a crash the store has to be at one of these
copies, neither below what the log has let go of (S4) nor above what the log had made durable (S3), and
replaying the log from there has to bring back everything acknowledged. Every breach is an `AssertionError`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from typing import Protocol

from attrs import define, field

from coord.mvcc.backend import Position, Table
from coord.store.port import FlushJobPort
from coord.store.store import Store


class Medium(Protocol):
    """What a store lies on, and how it fails."""

    def open(self, marker: tuple[int, int] | None = None) -> Store:
        """Open the store; one that was open before is dead."""

    def synced(self) -> None:
        """Learn that a sync has returned."""

    def lose_power(self) -> None:
        """Keep what was synced, and of the rest what chance wants."""

    def kill(self) -> None:
        """End the process: the kernel keeps what it has."""


@define
class State:
    """Records and rows, as they should be."""

    records: dict[Position, bytes] = field(factory=dict)
    rows: dict[Table, dict[bytes, bytes]] = field(factory=lambda: {table: {} for table in Table})


@define
class Effects:
    """What an entry does: the same at every replay."""

    term: int
    records: list[tuple[int, int, bytes]]
    rows: list[tuple[Table, bytes, bytes | None]]


@define
class StoreModel:
    """Drives a store, in steps that a test may put in any order."""

    medium: Medium
    chance: random.Random
    store: Store = field(init=False)
    log: list[Effects] = field(factory=list)
    durable: int = 0
    """The log's index up to which it is durable, and the clients may have been answered."""
    released: int = 0
    """The log below is gone."""
    state: State = field(factory=State)
    cuts: list[tuple[int, int, State]] = field(init=False)
    job: FlushJobPort | None = None
    is_run: bool = False
    revision: int = 1

    def __attrs_post_init__(self) -> None:
        self.cuts = [(0, 0, State())]
        self.store = self.medium.open()

    @property
    def index(self) -> int:
        """The last entry's index."""
        return len(self.log)

    def apply(self) -> None:
        """Commit an entry and apply it; it is not durable in the own log yet."""
        chance = self.chance
        records = []
        for _ in range(chance.randint(0, 3)):
            self.revision += 1
            for sub in range(chance.choice((1, 1, 1, 3))):
                records.append((self.revision, sub, chance.randbytes(chance.choice((0, 9, 300, 5000)))))
        rows: list[tuple[Table, bytes, bytes | None]] = []
        for _ in range(chance.randint(0, 2)):
            value = chance.choice((None, b"", chance.randbytes(40)))
            rows.append((chance.choice(list(Table)), b"row%d" % chance.randrange(6), value))
        rows.append((Table.META, b"revision", b"%d" % self.revision))
        self.log.append(Effects(1 + self.index // 10, records, rows))
        self._take_effect(self.index)

    def _take_effect(self, index: int) -> None:
        effects = self.log[index - 1]
        for revision, sub, record in effects.records:
            self.store.append(revision, sub, record)
            self.state.records[revision, sub] = record
        for table, key, value in effects.rows:
            self.store.put_row(table, key, value)
            if value is None:
                self.state.rows[table].pop(key, None)
            else:
                self.state.rows[table][key] = value
        self.store.seal(index, effects.term)

    def make_durable(self) -> None:
        """Let the log's sync catch up by some entries."""
        self.durable = min(self.index, self.durable + self.chance.randint(1, 4))

    def remove(self) -> None:
        """Take some records away, as compaction does."""
        count = min(len(self.state.records), self.chance.randint(0, 5))
        positions = self.chance.sample(sorted(self.state.records), count)
        self.store.remove(positions)
        for position in positions:
            del self.state.records[position]

    def begin_flush(self) -> None:
        """Make a flush job if there is something to flush."""
        if self.job is not None:
            return
        term = self.log[self.index - 1].term if self.index else 0
        self.cuts.append((self.index, term, deepcopy(self.state)))
        self.job = self.store.flush_job(self.durable)
        self.is_run = False

    def run_flush(self) -> None:
        """Let the worker do its job."""
        if self.job is not None and not self.is_run:
            self.job.run()
            self.is_run = True

    def end_flush(self) -> None:
        """Take the job back, once it was run."""
        if self.job is not None and self.is_run:
            self.store.flushed(self.job)
            self.job = None

    def sync(self) -> None:
        """Sync explicitly, and let go of the log below."""
        job = self.store.sync_job()
        job.run()
        self.medium.synced()
        self.store.synced(job)
        self.released = max(self.released, self.store.synced_index)

    def flush(self) -> None:
        """Flush all that may be flushed, in one go."""
        self.end_flush()
        self.begin_flush()
        self.run_flush()
        self.end_flush()

    def crash(self, *, of_power: bool) -> None:
        """Crash, recover, judge what was recovered, replay the log."""
        if of_power:
            self.medium.lose_power()
        else:
            self.medium.kill()
        self.store = self.medium.open()
        self.job, self.is_run = None, False
        del self.log[self.durable :]
        self._judge_recovered()
        for index in range(self.store.applied_index + 1, self.index + 1):
            self._take_effect(index)
        self.revision = max((r for effects in self.log for r, _, _ in effects.records), default=1)
        self.check()

    def _judge_recovered(self) -> None:
        applied = (self.store.applied_index, self.store.applied_term)
        assert applied[0] <= self.durable, "S3: the store is ahead of its own log"
        assert applied[0] >= self.released, "S4: the log below the store's state is gone"
        found = held_by(self.store)
        matching = [cut for cut in self.cuts if cut[:2] == applied and cut[2] == found]
        assert matching, f"S6: the store at {applied} is at none of its cuts"
        self.cuts = matching[-1:]
        self.state = deepcopy(matching[-1][2])

    def check(self) -> None:
        """Compare all that the store answers with what it should."""
        assert held_by(self.store) == self.state, "S7: what was written is not what is read"
        for (revision, sub), record in self.state.records.items():
            assert self.store.read(revision, sub) == record
        first = self.revision // 2
        last = first + 3
        found = [(revision, sub) for revision, sub, _ in self.store.scan(first, last)]
        assert found == sorted(position for position in self.state.records if first <= position[0] <= last)

    def random_step(self) -> None:
        """Do one of all this."""
        steps: list[tuple[int, Callable[[], None]]] = [
            (8, self.apply),
            (5, self.make_durable),
            (2, self.remove),
            (4, self.begin_flush),
            (4, self.run_flush),
            (4, self.end_flush),
            (2, self.sync),
            (2, self.check),
            (1, lambda: self.crash(of_power=True)),
            (1, lambda: self.crash(of_power=False)),
        ]
        self.chance.choices([step for _, step in steps], [weight for weight, _ in steps])[0]()


def held_by(store: Store) -> State:
    """Return all that a store holds."""
    records = {(revision, sub): record for revision, sub, record in store.scan(0, 2**63 - 1)}
    assert list(records) == sorted(records), "a scan is out of order"
    return State(records, {table: dict(store.rows(table)) for table in Table})
