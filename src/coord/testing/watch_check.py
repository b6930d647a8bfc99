"""Judging watches against the model: ordered, unique, atomic, reliable, bookmarkable, resumable (P6–P8).

What a watch must have been told follows from the model alone: the events of its range from its start revision on.
A watch that resumes is a record of its own, which starts where the one before it ended; so two whole records make
one watch without gap or repetition.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from attrs import define, field

from coord.protocol.ops import Op
from coord.testing.history import History, Kind, WatchEnd, WatchEvents, WatchProgress, WatchRecord
from coord.testing.model import Model

Event = list[Any]


def check_watches(history: History, model: Model) -> list[str]:
    """Return everything that a watch was told wrongly, or was not told."""
    found: list[str] = []
    for record in history.watches:
        name = f"watch of {record.client} on {record.key!r}…{record.range_end!r} from {record.start or record.asked}"
        found += [f"{name}: {what}" for what in _check(record, model)]
        found += [f"{name}: {what}" for what in _check_start(record, history)]
    return found


@define
class Received:
    """What a watch was told, put together: whole revisions, and how far it may be sure."""

    revisions: dict[int, list[Event]] = field(factory=dict)
    vouched: int = 0
    """Everything up to here must be there."""
    open_revision: int = 0
    """A revision whose last fragment has not come."""
    end: WatchEnd | None = None


def _check(record: WatchRecord, model: Model) -> Iterator[str]:
    received = Received()
    for item in record.told:
        yield from _take(record, received, item)
    if not record.start:
        if record.told:
            yield "was told something before it was created"
        return
    if received.vouched > model.revision:
        yield f"was told of revision {received.vouched}, which never was"
    yield from _compare(record, received, model)
    if received.end is not None and received.end.compact_revision > 0:
        yield from _check_compacted(record, received, received.end.compact_revision, model)


def _take(record: WatchRecord, received: Received, item: WatchEvents | WatchProgress | WatchEnd) -> Iterator[str]:
    if received.end is not None:
        yield f"was told {item!r:.80} after its end"
    if isinstance(item, WatchEnd):
        received.end = item
        return
    if received.open_revision and item.revision != received.open_revision:
        yield f"got a part of revision {received.open_revision} only"
    if isinstance(item, WatchProgress):
        received.open_revision = 0
        # A progress may be told again; it must not tell less than before.
        if item.revision < received.vouched:
            yield f"progress went back from {received.vouched} to {item.revision}"
        received.vouched = max(received.vouched, item.revision)
        return
    if item.revision <= received.vouched and item.revision != received.open_revision:
        repeated = "again" if item.revision in received.revisions else "late"
        yield f"got revision {item.revision} {repeated}, after {received.vouched}"
    if record.start and item.revision < record.start:
        yield f"got revision {item.revision}, below its start"
    received.revisions.setdefault(item.revision, []).extend(item.events)
    received.open_revision = item.revision if item.is_fragment else 0
    if not item.is_fragment:
        received.vouched = max(received.vouched, item.revision)


def _compare(record: WatchRecord, received: Received, model: Model) -> Iterator[str]:
    for revision in range(record.start, min(received.vouched, model.revision) + 1):
        expected = _wanted(record, model.events.get(revision, []))
        got = received.revisions.get(revision, [])
        if not expected and not got:
            continue
        if len(expected) != len(got):
            yield f"got {len(got)} of {len(expected)} events of revision {revision}"
            continue
        for wanted, event in zip(expected, got, strict=True):
            if not _is_event(record, wanted, event, model.compact_revision):
                yield f"got {event!r:.160} at revision {revision}, not {wanted!r:.160}"


def _wanted(record: WatchRecord, events: Iterable[Event]) -> list[Event]:
    wanted = []
    for kind, pair, before in events:
        is_filtered = (record.no_put and kind == 0) or (record.no_delete and kind == 1)
        if not is_filtered and _is_in(pair[0], record.key, record.range_end):
            wanted.append([kind, pair, before])
    return wanted


def _is_event(record: WatchRecord, wanted: Event, event: Event, compact_revision: int) -> bool:
    if event[:2] != wanted[:2]:
        return False
    before = event[2] if len(event) > 2 else None
    if not record.prev_kv:
        return before is None
    if before is None and wanted[2] is not None:
        return bool(wanted[2][2] <= compact_revision)  # the pair before may be compacted away
    return bool(before == wanted[2])


def _is_in(key: bytes, start: bytes, end: bytes) -> bool:
    if not end:
        return key == start
    return key >= start and (end == b"\0" or key < end)


def _check_compacted(record: WatchRecord, received: Received, compact_revision: int, model: Model) -> Iterator[str]:
    if compact_revision > model.compact_revision:
        yield f"was ended for a compaction at {compact_revision} that never was"
    if compact_revision <= received.vouched:
        yield f"was ended for a compaction at {compact_revision}, below what it had been given"


def _check_start(record: WatchRecord, history: History) -> Iterator[str]:
    if not record.start:
        return
    if record.asked:
        if record.start != record.asked:
            yield f"starts at {record.start}, though {record.asked} was asked for"
        return
    for operation in history.operations:
        if operation.kind is not Kind.WRITE or not operation.is_done:
            continue
        if operation.returned_order < record.called_order and operation.revision >= record.start:
            yield f"starts at {record.start}, before what was acknowledged when it was asked for: {operation}"
        # Of writes only a put is sure to have made the revision that it was answered with.
        is_put = operation.request[1] == Op.PUT
        if is_put and record.created_order < operation.called_order and operation.revision < record.start:
            yield f"starts at {record.start}, behind a write that came later: {operation}"
