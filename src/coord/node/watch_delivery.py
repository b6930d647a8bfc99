"""How events reach a connection: one notification for all of its watches that want the same of a revision."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define

from coord.codec import NULL, array_head, encode, uint
from coord.limits import WATCH_FRAGMENT_BYTES
from coord.mvcc.applied import RawEvent
from coord.mvcc.machine import StateMachine
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.protocol.ops import Notification
from coord.types import EventType

_EVENTS_HEAD = b"\x84" + uint(int(Notification.EVENTS))
_EVENTS_HEAD_FRAGMENT = b"\x85" + uint(int(Notification.EVENTS))
_TRUE = b"\xf5"
_FALSE = b"\xf4"


@define(eq=False)
class Watch:
    """One watch. It has been given every event below `next_revision`, and wants those from it on."""

    sink: Sink
    id: int
    key: bytes
    range_end: bytes
    next_revision: int
    no_put: bool = False
    no_delete: bool = False
    prev_kv: bool = False
    progress_notify: bool = False
    fragment: bool = False
    is_late: bool = False
    spoke_at: float = 0.0
    encoded_id: bytes = b""


@define
class Delivery:
    """Encodes each event once and gives it to the connections."""

    machine: StateMachine
    outbox: Outbox
    clock: Callable[[], float]
    events_sent: int = 0

    def deliver(self, sink: Sink, revision: int, wanted: dict[Watch, list[RawEvent]]) -> None:
        """Send one revision to the watches of a connection; those with equal events share one notification."""
        groups: dict[tuple[bool, bool, tuple[int, ...]], tuple[list[Watch], list[RawEvent]]] = {}
        for watch, changes in wanted.items():
            if watch.next_revision > revision:
                continue
            if watch.no_put or watch.no_delete:
                changes = [
                    change
                    for change in changes
                    if not (watch.no_put if change[1] == EventType.PUT else watch.no_delete)
                ]
                if not changes:
                    continue
            group = (watch.prev_kv, watch.fragment, tuple(map(id, changes)))
            groups.setdefault(group, ([], changes))[0].append(watch)
        now = self.clock()
        for (prev_kv, fragment, _), (watches, changes) in groups.items():
            # What stood at the revision before can be read, however old, unless that revision itself is compacted.
            is_readable = revision > self.machine.compact_revision
            encoded = [self._event(change, prev_kv and is_readable) for change in changes]
            self.events_sent += len(encoded) * len(watches)
            for watch in watches:
                watch.spoke_at = now
            for notification in _notifications(_ids(watches), revision, encoded, fragment):
                self.notify(sink, notification)

    def _event(self, change: RawEvent, with_previous: bool) -> bytes:
        _, kind, record, previous = change
        before = NULL
        if with_previous and previous is not None:
            before = self.machine.backend.read(*previous)
        return (b"\x83\x00" if kind == EventType.PUT else b"\x83\x01") + record + before

    def notify(self, sink: Sink, notification: bytes) -> None:
        """Buffer one notification."""
        sink.notify(notification)
        self.outbox.touch(sink)

    def tell_progress(self, sink: Sink, watches: Sequence[Watch], revision: int) -> None:
        """Say that every later event of `watches` has a higher revision."""
        self.notify(sink, b"\x83\x01" + _ids(watches) + uint(revision))

    def tell_canceled(self, sink: Sink, watches: Sequence[Watch], compact_revision: int, reason: str) -> None:
        """Say that `watches` have ended, and why; a compact revision above 0: what they want is gone."""
        self.notify(sink, b"\x84\x02" + _ids(watches) + encode(compact_revision) + encode(reason))


def _ids(watches: Sequence[Watch]) -> bytes:
    return b"".join((array_head(len(watches)), *[watch.encoded_id for watch in watches]))


def _notifications(ids: bytes, revision: int, events: Sequence[bytes], fragment: bool) -> list[bytes]:
    """Return one notification, or several fragments if the watch allows them and the events are large."""
    if not fragment or len(events) < 2 or sum(map(len, events)) < WATCH_FRAGMENT_BYTES:
        return [b"".join((_EVENTS_HEAD, ids, uint(revision), array_head(len(events)), *events))]
    parts: list[list[bytes]] = [[]]
    size = 0
    for event in events:
        if parts[-1] and size + len(event) > WATCH_FRAGMENT_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(event)
        size += len(event)
    return [
        b"".join(
            (
                _EVENTS_HEAD_FRAGMENT,
                ids,
                uint(revision),
                array_head(len(part)),
                *part,
                _TRUE if number < len(parts) - 1 else _FALSE,
            )
        )
        for number, part in enumerate(parts)
    ]
