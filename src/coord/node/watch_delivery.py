"""How events reach a connection: one notification for all of its watches that want the same of a revision."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from attrs import define, field

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
class Life:
    """The watches of a connection, from the first one to the moment when all of them end."""

    sink: Sink
    watches: dict[int, Watch] = field(factory=dict)
    is_over: bool = False
    """They are no longer told anything, though some may still stand in the index."""


@define(eq=False)
class Receiver:
    """What is given events: a watch, or several of one connection that ask for the same."""

    life: Life
    key: bytes
    range_end: bytes
    no_put: bool = False
    no_delete: bool = False
    prev_kv: bool = False
    progress_notify: bool = False
    fragment: bool = False
    spoke_at: float = 0.0

    @property
    def sink(self) -> Sink:
        """Where notifications go."""
        return self.life.sink

    @property
    def wish(self) -> tuple[Life, bool, bool, bool, bool, bool]:
        """Equal for watches of one connection and one interval that are given the same."""
        return self.life, self.no_put, self.no_delete, self.prev_kv, self.progress_notify, self.fragment


@define(eq=False)
class Watch(Receiver):
    """One watch. It has been given every event below `next_revision`, and wants those from it on."""

    id: int = 0
    next_revision: int = 0
    is_late: bool = False
    encoded_ids: bytes = b""
    audience: Audience | None = None

    @property
    def watches(self) -> Collection[Watch]:
        """Itself."""
        return (self,)


@define(eq=False)
class Audience(Receiver):
    """Several watches, so that an event of theirs costs the same as if they were one."""

    watches: dict[Watch, None] = field(factory=dict)
    _encoded_ids: bytes = b""

    @classmethod
    def of(cls, watch: Watch, other: Watch) -> Audience:
        """Return the audience of two that ask for the same."""
        audience = cls(watch.life, watch.key, watch.range_end, *watch.wish[1:], spoke_at=watch.spoke_at)
        audience.join(watch)
        audience.join(other)
        return audience

    def join(self, watch: Watch) -> None:
        """Add a watch."""
        self.watches[watch] = None
        self._encoded_ids = b""
        watch.audience = self
        # What is equal is kept once: a quarter of what one of a crowd took.
        watch.key, watch.range_end, watch.spoke_at = self.key, self.range_end, self.spoke_at

    def leave(self, watch: Watch) -> None:
        """Take a watch out."""
        del self.watches[watch]
        self._encoded_ids = b""
        watch.audience = None

    @property
    def encoded_ids(self) -> bytes:
        """Their ids, one behind the other."""
        if not self._encoded_ids:
            self._encoded_ids = b"".join([watch.encoded_ids for watch in self.watches])
        return self._encoded_ids


R = TypeVar("R", Watch, Audience, Watch | Audience)


@define
class Delivery:
    """Encodes each event once and gives it to the connections."""

    machine: StateMachine
    outbox: Outbox
    clock: Callable[[], float]
    events_sent: int = 0

    def deliver(self, sink: Sink, revision: int, wanted: Mapping[R, list[RawEvent]]) -> None:
        """Send one revision to receivers of a connection; those with equal events share one notification."""
        groups: dict[tuple[bool, bool, tuple[int, ...]], tuple[list[R], list[RawEvent]]] = {}
        for receiver, changes in wanted.items():
            if receiver.no_put or receiver.no_delete:
                changes = [
                    change
                    for change in changes
                    if not (receiver.no_put if change[1] == EventType.PUT else receiver.no_delete)
                ]
                if not changes:
                    continue
            group = (receiver.prev_kv, receiver.fragment, tuple(map(id, changes)))
            groups.setdefault(group, ([], changes))[0].append(receiver)
        now = self.clock()
        for (prev_kv, fragment, _), (receivers, changes) in groups.items():
            # What stood at the revision before can be read, however old, unless that revision itself is compacted.
            is_readable = revision > self.machine.compact_revision
            encoded = [self._event(change, prev_kv and is_readable) for change in changes]
            self.events_sent += len(encoded) * sum([len(receiver.watches) for receiver in receivers])
            for receiver in receivers:
                receiver.spoke_at = now
            for notification in _notifications(_ids(receivers), revision, encoded, fragment):
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


def _ids(receivers: Sequence[Watch | Audience]) -> bytes:
    count = sum([len(receiver.watches) for receiver in receivers])
    return b"".join((array_head(count), *[receiver.encoded_ids for receiver in receivers]))


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
