"""Records in the order they were written: rebuilding the index, and the events of the past."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Final

from coord.codec import decode_trusted
from coord.mvcc.applied import RawEvent
from coord.mvcc.backend import Backend
from coord.mvcc.index import KeyIndex, State
from coord.mvcc.leases import LeaseTable
from coord.mvcc.records import decode_record
from coord.types import EventType

LOAD_SLICE_RECORDS: Final = 2_500
_PUT: Final = int(EventType.PUT)
_DELETE: Final = int(EventType.DELETE)


def slices(backend: Backend, first: int, last: int, count: int) -> Iterator[list[tuple[int, int, bytes]]]:
    """Yield the records of the revisions `first … last` in lists of about `count`, whole revisions each.

    Each list is read at once, so that the store may change between two.
    """
    while True:
        found: list[tuple[int, int, bytes]] = []
        for item in backend.scan(first, last):
            if len(found) >= count and item[0] != found[-1][0]:
                break
            found.append(item)
        else:
            yield found
            return
        yield found
        first = found[-1][0] + 1


def load_records(backend: Backend, index: KeyIndex, leases: LeaseTable, revision: int) -> Generator[None, None, None]:
    """Rebuild the index and the attachments of leases from all records, yielding every few thousand."""
    attached: dict[bytes, int] = {}
    for found in slices(backend, 0, revision, LOAD_SLICE_RECORDS):
        states: list[tuple[bytes, State]] = []
        for mod, sub, record in found:
            key, create, _, version, lease, _ = decode_trusted(record)
            states.append((key, (mod, sub, create, version, lease)))
            if lease:
                attached[key] = lease
            elif attached:
                attached.pop(key, None)
        index.load(states)
        yield
    index.order(revision)
    for key, lease in attached.items():
        leases.move(key, 0, lease)


def read_history(backend: Backend, index: KeyIndex, first: int, last: int) -> Iterator[tuple[int, list[RawEvent]]]:
    """Yield `(revision, events)` for the revisions `first … last` that have any."""
    current = 0
    events: list[RawEvent] = []
    for mod, _, record in backend.scan(first, last):
        if mod != current:
            if events:
                yield current, events
            current, events = mod, []
        key, create, _, version, _, _ = decode_record(record)
        previous = None if create == mod else index.position_at(key, mod - 1)
        events.append((key, _PUT if version else _DELETE, record, previous))
    if events:
        yield current, events
