"""A store in memory, whose last commits a power loss may undo until the explicit sync (S4).

`SimBackend` is the medium: it outlives the `Store` objects that are opened on it, as a disk does. The store
over it is the real one, with the real overlay and the real jobs; only the engine is simulated. A crash
takes back a seeded number of the commits that no sync has covered. LMDB would take back one at most, so the
simulation is harsher.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field

from coord.disk import Disk
from coord.errors import DamageError, DiskError, DiskFullError
from coord.limits import GIB
from coord.mvcc.backend import Table
from coord.store.engine import Pair
from coord.store.layout import RECORD_KEY, RECORDS, REMEDY, missing, open_value, seal_value, stored_records
from coord.store.overlay import Segment
from coord.store.reserve import Reserve
from coord.store.store import Store

_PAIR_OVERHEAD_BYTES = 24


@define
class SimState:
    """What a store holds."""

    records: dict[int, bytes] = field(factory=dict)
    keys: list[int] = field(factory=list)
    rows: dict[Table, dict[bytes, bytes]] = field(factory=lambda: {table: {} for table in Table})
    applied: tuple[int, int] = (0, 0)

    def copy(self) -> SimState:
        """Return a state that shares nothing that changes."""
        rows = {table: dict(rows) for table, rows in self.rows.items()}
        return SimState(dict(self.records), list(self.keys), rows, self.applied)

    def write(self, segment: Segment) -> Undo:
        """Do what a segment says and return how to take it back."""
        undo = Undo(self.applied)
        for key, record in segment.records.items():
            if self.keys and key <= self.keys[-1]:
                raise DamageError(f"a record above {key >> 32}.{key & 0xFFFFFFFF} is there already; {REMEDY}")
            undo.records.append((key, None))
            self.records[key] = record
            self.keys.append(key)
        for table, rows in segment.rows.items():
            for name, value in rows.items():
                undo.rows.append((table, name, self.rows[table].get(name)))
                self.set_row(table, name, value)
        for key in sorted(segment.removals):
            if key in self.records:
                undo.records.append((key, self.records[key]))
                self.set_record(key, None)
        self.applied = (segment.index, segment.term)
        return undo

    def set_record(self, key: int, record: bytes | None) -> None:
        """Set or remove a record anywhere."""
        if record is None:
            del self.records[key]
            del self.keys[bisect_left(self.keys, key)]
        else:
            self.records[key] = record
            insort(self.keys, key)

    def set_row(self, table: Table, name: bytes, value: bytes | None) -> None:
        """Set or delete a row."""
        if value is None:
            self.rows[table].pop(name, None)
        else:
            self.rows[table][name] = value

    def take_back(self, undo: Undo) -> None:
        """Be what it was before."""
        for key, record in reversed(undo.records):
            self.set_record(key, record)
        for table, name, value in reversed(undo.rows):
            self.set_row(table, name, value)
        self.applied = undo.applied

    def size_bytes(self) -> int:
        """Return about what it would take on a disk."""
        pairs = [len(name) + len(value) for rows in self.rows.values() for name, value in rows.items()]
        pairs += map(len, self.records.values())
        return sum(pairs) + _PAIR_OVERHEAD_BYTES * len(pairs)


@define
class Undo:
    """How to take a commit back."""

    applied: tuple[int, int]
    records: list[tuple[int, bytes | None]] = field(factory=list)
    rows: list[tuple[Table, bytes, bytes | None]] = field(factory=list)


@define
class SimView:
    """One moment of a state."""

    _state: SimState

    @property
    def applied(self) -> tuple[int, int]:
        """See `View`."""
        return self._state.applied

    def pairs(self, name: str) -> Iterator[Pair]:
        """See `View`."""
        if name == RECORDS:
            records = [(key, self._state.records[key]) for key in self._state.keys]
            yield from zip(*stored_records(records), strict=True)
            return
        for key, value in sorted(self._state.rows[Table(name)].items()):
            yield key, seal_value(key, value)


@define
class SimStage:
    """A state that is being built."""

    _medium: SimBackend
    _state: SimState = field(factory=SimState)

    def put(self, name: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """See `Stage`."""
        for key, stored in zip(keys, values, strict=True):
            value = open_value(name, key, stored)
            if name == RECORDS:
                revision, sub = RECORD_KEY.unpack(key)
                self._state.set_record(revision << 32 | sub, value)
            else:
                self._state.rows[Table(name)][key] = value

    def finish(self, index: int, term: int) -> None:
        """See `Stage`."""
        self._state.applied = (index, term)
        self._medium.staged = self._state

    def close(self) -> None:
        """See `Stage`."""


@define
class SimEngine:
    """An `Engine` over a `SimBackend`; dead after a crash."""

    _medium: SimBackend
    _life: int

    def _live(self) -> SimState:
        if self._life != self._medium.lives:
            raise DiskError("this store crashed or was closed")
        return self._medium.state

    def applied(self) -> tuple[int, int]:
        """See `Engine`."""
        return self._live().applied

    def get(self, key: int) -> bytes | None:
        """See `Engine`."""
        return self._live().records.get(key)

    def get_many(self, keys: Sequence[int]) -> list[bytes]:
        """See `Engine`."""
        records = self._live().records
        for key in keys:
            if key not in records:
                raise missing(key)
        return [records[key] for key in keys]

    def scan(self, low: int, high: int) -> Iterator[tuple[int, int, bytes]]:
        """See `Engine`."""
        state = self._live()
        keys = state.keys[bisect_left(state.keys, low) : bisect_right(state.keys, high)]
        for key, record in [(key, state.records[key]) for key in keys]:
            yield key >> 32, key & 0xFFFFFFFF, record

    def rows(self, table: Table) -> dict[bytes, bytes]:
        """See `Engine`."""
        return dict(self._live().rows[table])

    def commit(self, segments: Sequence[Segment]) -> None:
        """See `Engine`."""
        state = self._live()
        growth = sum(segment.size_bytes for segment in segments if segment.records or segment.rows)
        _, in_use, limit = self.size()
        if growth and in_use + growth > limit:
            raise DiskFullError(f"simulated disk: {in_use} of {limit} bytes are in use")
        self._medium.unsynced.append([state.write(segment) for segment in segments])

    def sync(self) -> None:
        """See `Engine`."""
        self._live()
        self._medium.unsynced.clear()

    def size(self) -> tuple[int, int, int]:
        """See `Engine`."""
        in_use = self._live().size_bytes()
        reserve = 0 if self._medium.is_reserve_used else self._medium.reserve_bytes
        return in_use, in_use, self._medium.capacity_bytes - reserve

    def use_reserve(self) -> None:
        """See `Engine`."""
        self._medium.is_reserve_used = True

    def restore_reserve(self) -> None:
        """See `Engine`."""
        self._medium.is_reserve_used = False

    @contextmanager
    def view(self) -> Iterator[SimView]:
        """See `Engine`."""
        yield SimView(self._live().copy())

    def stage(self) -> SimStage:
        """See `Engine`."""
        self._live()
        self._medium.staged = None
        return SimStage(self._medium)

    def switch(self) -> None:
        """See `Engine`."""
        self._live()
        self._medium.switch()

    def close(self) -> None:
        """See `Engine`."""
        self._medium.lives += 1


@define
class SimBackend:
    """The medium of simulated stores. `capacity_bytes` bounds what fits, of which `reserve_bytes` are kept
    free.
    """

    disk: Disk
    directory: Path
    seed: int = 0
    capacity_bytes: int = GIB
    reserve_bytes: int = 0
    state: SimState = field(factory=SimState)
    staged: SimState | None = None
    unsynced: list[list[Undo]] = field(factory=list)
    is_reserve_used: bool = False
    lives: int = 0
    _random: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def open(self, marker: tuple[int, int] | None = None) -> Store:
        """Open the store; `marker` as for `open_store`. A store that was open before is dead."""
        self.lives += 1
        is_newer = marker is not None and marker[0] > self.state.applied[0]
        if is_newer and self.staged is not None and self.staged.applied == marker:
            self.switch()
        self.staged = None
        if marker is not None and self.state.applied[0] < marker[0]:
            raise DamageError(f"the log says that a snapshot at index {marker[0]} was installed; {REMEDY}")
        self.unsynced.clear()
        engine = SimEngine(self, self.lives)
        self.disk.make_directory(self.directory)
        reserve = Reserve(self.disk, self.directory / "reserve", self.reserve_bytes)
        reserve.restore(engine)
        return Store(engine, self.disk, self.directory, reserve)

    def crash(self, undone: int | None = None) -> int:
        """Lose power: the last `undone` commits without a sync are gone, by the seed if None. Return how
        many.
        """
        self.lives += 1
        count = self._random.randint(0, len(self.unsynced)) if undone is None else undone
        for _ in range(count):
            for undo in reversed(self.unsynced.pop()):
                self.state.take_back(undo)
        self.unsynced.clear()
        return count

    def switch(self) -> None:
        """Put the staged state in place, for good."""
        if self.staged is None:
            raise DiskError("nothing is staged")
        self.state, self.staged = self.staged, None
        self.unsynced.clear()

    def image(self, disk: Disk) -> SimBackend:
        """Return a medium like this one at this moment, beside an image of its disk; this one goes on."""
        medium = SimBackend(disk, self.directory, self._random.getrandbits(64), self.capacity_bytes, self.reserve_bytes)
        medium.state = self.state.copy()
        medium.staged = None if self.staged is None else self.staged.copy()
        medium.unsynced = [list(undos) for undos in self.unsynced]
        return medium
