"""Changing keys: one write is a draft until it is committed, and can be undone as a whole (S15)."""

from __future__ import annotations

from collections.abc import Sequence

from coord.errors import NodeError
from coord.mvcc.applied import PutRun, RawEvent
from coord.mvcc.backend import Backend, Position
from coord.mvcc.index import KeyIndex, State, unpack_state
from coord.mvcc.leases import LeaseTable
from coord.mvcc.records import encode_record, encode_tombstone
from coord.protocol.intervals import interval
from coord.types import EventType

_PUT = int(EventType.PUT)
_DELETE = int(EventType.DELETE)
DELETE_SLICE_KEYS = 2_000


class Writer:
    """Applies the changes of one write after the other; all changes of a write share one revision.

    `revision` is the store's, committed; the changes of the open draft lie at the next one.
    """

    __slots__ = ("_backend", "_undo", "changes", "index", "leases", "revision")

    def __init__(self, backend: Backend, index: KeyIndex, leases: LeaseTable) -> None:
        self._backend = backend
        self.index = index
        self.leases = leases
        self.revision = 1
        self.changes: list[RawEvent] = []
        """The events of the open draft; an event's place is its `sub`."""
        self._undo: list[tuple[bytes, State | None, int, int]] = []

    @property
    def revision_seen(self) -> int:
        """The revision that a reader inside the draft is at."""
        return self.revision + 1 if self.changes else self.revision

    def read(self, revision: int, sub: int) -> bytes:
        """Return the record at a position, of the open draft too."""
        if revision > self.revision:
            return self.changes[sub][2]
        return self._backend.read(revision, sub)

    def read_many(self, positions: Sequence[Position]) -> list[bytes]:
        """Return the records at positions, of the open draft too."""
        if not self.changes:
            return self._backend.read_many(positions)
        return [self.read(*position) for position in positions]

    def get(self, key: bytes) -> bytes | None:
        """Return the newest record of a living key as the draft sees it, or None."""
        position = self.index.current(key)
        return None if position is None else self.read(*position)

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        """Set a key. The lease must exist or be 0."""
        changes, index = self.changes, self.index
        mod, sub = self.revision + 1, len(changes)
        old = index.latest(key)
        previous: Position | None = None
        create, version, old_lease = mod, 1, 0
        if old is not None:
            old_mod, old_sub, old_create, old_version, old_lease = old
            if old_version:
                create, version = old_create, old_version + 1
                # The pair before the revision, not before the change: what etcd's `prev_kv` shows.
                previous = (old_mod, old_sub) if old_mod != mod else changes[old_sub][3]
        record = encode_record(key, create, mod, version, lease, value)
        self._undo.append((key, old, old_lease, lease))
        changes.append((key, _PUT, record, previous))
        index.replace(key, old, (mod, sub, create, version, lease))
        if old_lease != lease:
            self.leases.move(key, old_lease, lease)

    def delete(self, key: bytes) -> bool:
        """Delete a key; return whether it was there."""
        changes, index = self.changes, self.index
        mod, sub = self.revision + 1, len(changes)
        old = index.latest(key)
        if old is None:
            return False
        old_mod, old_sub, _, old_version, old_lease = old
        if not old_version:
            return False
        record = encode_tombstone(key, mod)
        self._undo.append((key, old, old_lease, 0))
        previous = (old_mod, old_sub) if old_mod != mod else changes[old_sub][3]
        changes.append((key, _DELETE, record, previous))
        index.replace(key, old, (mod, sub, 0, 0, 0))
        if old_lease:
            self.leases.move(key, old_lease, 0)
        return True

    def delete_range(self, key: bytes, range_end: bytes, *, want_previous: bool) -> tuple[int, list[bytes]]:
        """Delete the keys of an interval; return how many, and their last records if wanted."""
        deleted, records = 0, []
        start, end = interval(key, range_end)
        keys = [key] if not range_end else self.index.keys.slice(start, end, DELETE_SLICE_KEYS)
        while keys:
            for name in keys:
                record = self.get(name) if want_previous else None
                if self.delete(name):
                    deleted += 1
                    if record is not None:
                        records.append(record)
            keys = self.index.keys.slice(keys[-1] + b"\0", end, DELETE_SLICE_KEYS) if range_end else []
        return deleted, records

    def put_each(self, keys: Sequence[bytes], values: Sequence[bytes]) -> PutRun:
        """Put keys without a lease, each in a revision of its own: what `put` and `commit` would do, at a third of the
        cost.

        Those that were put are fewer than the keys only if pure code raised: the one at fault has changed nothing, and
        none behind it was tried (S15).
        """
        put, leases = self.index.put, self.leases
        first = self.revision + 1
        key, mod, lease, old = b"", first, 0, None
        records: list[bytes] = []
        olds: list[bytes | None] = []
        try:
            for mod, (key, value) in enumerate(zip(keys, values, strict=True), first):
                lease = 0
                create, version, lease, old = put(key, mod)
                if lease:
                    leases.move(key, lease, 0)
                records.append(encode_record(key, create, mod, version, 0, value))
                olds.append(old)
        except (NodeError, MemoryError):
            raise
        except Exception:
            self.revision = mod - 1
            self._undo.append((key, unpack_state(old) if old is not None else None, lease, 0))
            self.rollback()
        self._backend.extend(first, records)
        self.revision = first + len(records) - 1
        return PutRun(first, keys, values, records, olds)

    def commit(self) -> list[RawEvent]:
        """Keep the draft: its records go to the backend, the revision moves if anything changed. Return its events."""
        changes = self.changes
        if changes:
            self.revision = revision = self.revision + 1
            for sub, change in enumerate(changes):
                self._backend.append(revision, sub, change[2])
            self.changes = []
            self._undo.clear()
        return changes

    def rollback(self) -> None:
        """Undo the draft: the index and the leases are as if it had never begun."""
        changes, undo = self.changes, self._undo
        self.changes, self._undo = [], []
        for key, old, old_lease, lease in reversed(undo):
            state = self.index.latest(key)
            if state is not None and state != old and state[0] > self.revision:
                self.index.restore(key, old)
            self.leases.move(key, lease, old_lease)
        changes.clear()
