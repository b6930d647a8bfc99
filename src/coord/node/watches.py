"""The watch broadcaster: events leave as they are applied; late watches are fed from history.

A watch is *current* when it has been given everything applied, and is then fed from the applier: each event is
encoded once, and each connection gets one notification with the ids of the watches it is for. A watch that starts in
the past, or whose connection is slow, is *late*: it is fed from the store, all late ones by one scan. None is ever
dropped silently; only compaction ends one, and says so (S30).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from attrs import define, field, frozen

from coord import errors
from coord.codec import NULL, array_head, encode, uint
from coord.limits import (
    TURN_BUDGET_S,
    WATCH_CATCH_UP_REVISIONS,
    WATCH_CATCH_UP_WATCHES,
    WATCH_FRAGMENT_BYTES,
    WATCHES_PER_CONNECTION,
)
from coord.mvcc.applied import RawEvent
from coord.mvcc.machine import StateMachine
from coord.mvcc.watchers import WatchIndex
from coord.node.consensus import Log
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.protocol.ops import Notification
from coord.types import EventType

_EVENTS_HEAD = b"\x84" + uint(int(Notification.EVENTS))
_EVENTS_HEAD_FRAGMENT = b"\x85" + uint(int(Notification.EVENTS))
_TRUE = b"\xf5"
_DETACHED_PER_LOOK = 256


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


@frozen
class Asked:
    """Who wants to know when all watches of `sink` have been given everything up to `revision`."""

    sink: Sink
    revision: int
    deadline: float
    answer: Callable[[int | None], None]


@define
class Broadcaster:
    """Owns all watches. `progress_interval_s` is etcd's `--watch-progress-notify-interval`."""

    machine: StateMachine
    outbox: Outbox
    clock: Callable[[], float]
    log: Log
    wake: Callable[[], None]
    progress_interval_s: float
    watch_count: int = 0
    slow_watches: int = 0
    events_sent: int = 0
    _index: WatchIndex[Watch] = field(factory=WatchIndex)
    _by_sink: dict[Sink, dict[int, Watch]] = field(factory=dict)
    _next_ids: dict[Sink, int] = field(factory=dict)
    _late: dict[Sink, dict[Watch, None]] = field(factory=dict)
    _leaving: list[dict[int, Watch]] = field(factory=list)
    """Watches of connections that have gone, still in the index."""
    _inbox: list[tuple[int, list[RawEvent]]] = field(factory=list)
    _stillborn: list[Watch] = field(factory=list)
    """Start below the compacted revision: they end in the turn, behind the reply that makes them."""
    _asked: list[Asked] = field(factory=list)

    @property
    def late_count(self) -> int:
        """How many watches are fed from history."""
        return sum(map(len, self._late.values()))

    def on_events(self, events: Sequence[tuple[int, list[RawEvent]]]) -> None:
        """Queue what the applier changed."""
        self._inbox.extend(events)

    def create(self, watch: Watch) -> int:
        """Add a watch and return its start revision. Raises `ApiError`.

        One that starts below the compacted revision is made and then ended, as in etcd: the notification says why.
        `watch.next_revision` is the start revision asked for, 0 for the next; `watch.id` 0 lets the node choose.
        """
        watches = self._by_sink.setdefault(watch.sink, {})
        if watch.range_end and watch.range_end != b"\0" and watch.range_end <= watch.key:
            raise errors.InvalidArgument("mvcc: watcher range is empty")
        if watch.id and watch.id in watches:
            raise errors.InvalidArgument("mvcc: duplicate watch ID provided on the WatchStream")
        if len(watches) >= WATCHES_PER_CONNECTION:
            raise errors.ResourceExhausted(f"more than {WATCHES_PER_CONNECTION} watches on one connection")
        start = watch.next_revision
        if start < 0:
            raise errors.compacted(max(self.machine.compact_revision, 0))
        if not watch.id:
            watch.id = self._choose_id(watch.sink, watches)
        watch.encoded_id = uint(watch.id)
        # What is queued here is not given out yet, so that a watch from now on starts behind it.
        current = self.machine.revision
        watch.next_revision = start or current + 1
        watch.spoke_at = self.clock()
        watches[watch.id] = watch
        self.watch_count += 1
        if watch.next_revision <= current:
            self._fall_back(watch)
            if watch.next_revision < self.machine.compact_revision:
                self._stillborn.append(watch)
        else:
            self._index.add(watch.key, watch.range_end, watch)
        return watch.next_revision

    def cancel(self, sink: Sink, watch_id: int) -> bool:
        """Remove a watch; False if there is none."""
        watch = self._by_sink.get(sink, {}).get(watch_id)
        if watch is not None:
            self._remove(watch)
        return watch is not None

    def forget(self, sink: Sink) -> None:
        """Remove all watches of a connection that has gone."""
        self._leave(sink)
        self._next_ids.pop(sink, None)
        self._asked = [asked for asked in self._asked if asked.sink is not sink]

    def when_current(self, sink: Sink, deadline: float, answer: Callable[[int | None], None]) -> None:
        """Call `answer(revision)` behind every event up to `revision` on all watches of `sink` (S30).

        If a watch still lags at the deadline, `answer(None)`.
        """
        self._asked.append(Asked(sink, self.machine.revision, deadline, answer))
        self.wake()

    def turn(self) -> bool:
        """Give out what was applied, then feed late watches; True if more can go on at once."""
        if self._leaving:
            self._detach_leaving()
        if self._inbox:
            events, self._inbox = self._inbox, []
            for revision, changes in events:
                self._broadcast(revision, changes)
        for watch in self._stillborn:
            if self._by_sink.get(watch.sink, {}).get(watch.id) is watch:
                self._end_compacted(watch)
        self._stillborn.clear()
        goes_on = bool(self._late) and self._feed_late()
        if self._asked:
            self._answer_asked()
        return goes_on or bool(self._leaving)

    def sweep(self) -> None:
        """Tell idle watches that asked for it how far they are; call it about once a second."""
        now = self.clock()
        due: dict[Sink, list[Watch]] = {}
        for sink, watches in self._by_sink.items():
            for watch in watches.values():
                if watch.progress_notify and not watch.is_late and now - watch.spoke_at >= self.progress_interval_s:
                    due.setdefault(sink, []).append(watch)
        revision = self.machine.revision
        for sink, idle in due.items():
            # A watch from a future revision has not been promised anything below its start.
            idle = [watch for watch in idle if watch.next_revision <= revision + 1]
            for watch in idle:
                watch.spoke_at = now
            if idle:
                self._notify(sink, b"\x83\x01" + _ids(idle) + uint(revision))

    def cancel_all(self, reason: str) -> None:
        """End every watch with a reason; its client resumes elsewhere."""
        for sink, watches in list(self._by_sink.items()):
            if watches:
                self._notify(sink, _canceled(list(watches.values()), 0, reason))
            self._leave(sink)
        self.wake()

    def _broadcast(self, revision: int, changes: Sequence[RawEvent]) -> None:
        """Give one revision's events to the current watches, and make late those of slow connections."""
        by_sink: dict[Sink, dict[Watch, list[RawEvent]]] = {}
        match = self._index.match
        for change in changes:
            for watch in match(change[0]):
                by_sink.setdefault(watch.sink, {}).setdefault(watch, []).append(change)
        for sink, wanted in by_sink.items():
            if sink not in self._by_sink:
                continue  # it has gone, and its watches are on their way out of the index
            if sink.is_slow():
                self.log("watch.client.lagging", watches=len(wanted), revision=revision)
                for watch in wanted:
                    if watch.next_revision <= revision:
                        watch.next_revision = revision
                        self.slow_watches += 1
                        self._index.remove(watch.key, watch.range_end, watch)
                        self._fall_back(watch)
            else:
                self._deliver(sink, revision, wanted)

    def _deliver(self, sink: Sink, revision: int, wanted: dict[Watch, list[RawEvent]]) -> None:
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
                self._notify(sink, notification)

    def _event(self, change: RawEvent, with_previous: bool) -> bytes:
        _, kind, record, previous = change
        before = NULL
        if with_previous and previous is not None:
            before = self.machine.backend.read(*previous)
        return (b"\x83\x00" if kind == EventType.PUT else b"\x83\x01") + record + before

    def _fall_back(self, watch: Watch) -> None:
        watch.is_late = True
        self._late.setdefault(watch.sink, {})[watch] = None
        self.wake()

    def _catch_up(self, watch: Watch) -> None:
        self._drop_late(watch)
        watch.is_late = False
        self._index.add(watch.key, watch.range_end, watch)

    def _drop_late(self, watch: Watch) -> None:
        watches = self._late[watch.sink]
        del watches[watch]
        if not watches:
            del self._late[watch.sink]

    def _feed_late(self) -> bool:
        """Feed late watches by shared scans; True if more can be fed at once."""
        current = self.machine.revision
        ends = self.clock() + TURN_BUDGET_S
        while ready := self._pick_late():
            first = min(watch.next_revision for watch in ready)
            last = min(current, first + WATCH_CATCH_UP_REVISIONS - 1)
            share = [watch for watch in ready if watch.next_revision <= last + 1]
            held = self._feed(share, first, last)
            for watch in share:
                if watch in held:
                    continue
                watch.next_revision = max(watch.next_revision, last + 1)
                if watch.next_revision > current:
                    self._catch_up(watch)
            if self.clock() >= ends:
                return bool(self._late)
        return False

    def _pick_late(self) -> list[Watch]:
        """Return the late watches that the next scan feeds: as many as a scan may, of clients that read.

        Those whose history is gone end here. Slow clients are passed by, and those that were taken go to the end.
        """
        floor = self.machine.compact_revision
        picked: list[Watch] = []
        for sink in list(self._late):
            if sink.is_slow():
                continue
            for watch in list(islice(self._late[sink], WATCH_CATCH_UP_WATCHES - len(picked))):
                if watch.next_revision >= floor:
                    picked.append(watch)
                    continue
                self._end_compacted(watch)
            if sink in self._late:
                self._late[sink] = self._late.pop(sink)
            if len(picked) >= WATCH_CATCH_UP_WATCHES:
                break
        return picked

    def _end_compacted(self, watch: Watch) -> None:
        """Tell the client that what a watch wants next is gone, from the start on or by now, and remove it."""
        floor = self.machine.compact_revision
        self.log("watch.stream.canceled", watch=watch.id, compact_revision=floor)
        self._notify(watch.sink, _canceled([watch], floor, ""))
        self._remove(watch)

    def _feed(self, share: Sequence[Watch], first: int, last: int) -> set[Watch]:
        """Give the events of `first … last` to late watches; return those that stopped, since their client has enough.

        Large revisions would else go over the hard bound of its link, and again after each reconnect.
        """
        index: WatchIndex[Watch] = WatchIndex()
        for watch in share:
            index.add(watch.key, watch.range_end, watch)
        held: set[Watch] = set()
        for revision, changes in self.machine.history(first, last):
            by_sink: dict[Sink, dict[Watch, list[RawEvent]]] = {}
            for change in changes:
                for watch in index.match(change[0]):
                    if watch.next_revision <= revision and watch not in held:
                        by_sink.setdefault(watch.sink, {}).setdefault(watch, []).append(change)
            for sink, wanted in by_sink.items():
                if not sink.is_slow():
                    self._deliver(sink, revision, wanted)
                    continue
                held.update(wanted)
                for watch in wanted:
                    watch.next_revision = revision
        return held

    def _answer_asked(self) -> None:
        now = self.clock()
        lowest: dict[Sink, int] = {}
        waiting = []
        for asked in self._asked:
            sink = asked.sink
            if sink not in lowest:
                late = self._late.get(sink, ())
                lowest[sink] = min((watch.next_revision for watch in late), default=asked.revision + 1)
            if sink not in self._late or lowest[sink] > asked.revision:
                asked.answer(asked.revision)
            elif asked.deadline <= now:
                asked.answer(None)
            else:
                waiting.append(asked)
        self._asked = waiting

    def _notify(self, sink: Sink, notification: bytes) -> None:
        sink.notify(notification)
        self.outbox.touch(sink)

    def _remove(self, watch: Watch) -> None:
        self._by_sink.get(watch.sink, {}).pop(watch.id, None)
        self.watch_count -= 1
        if watch.is_late:
            self._drop_late(watch)
        else:
            self._index.remove(watch.key, watch.range_end, watch)

    def _leave(self, sink: Sink) -> None:
        """Take a connection's watches out; many leave the index in slices, so that nothing waits for them."""
        watches = self._by_sink.pop(sink, {})
        self._late.pop(sink, None)
        self.watch_count -= len(watches)
        if watches:
            self._leaving.append(watches)
            self.wake()

    def _detach_leaving(self) -> None:
        ends = self.clock() + TURN_BUDGET_S
        while self._leaving:
            watches = self._leaving[-1]
            for _ in range(min(len(watches), _DETACHED_PER_LOOK)):
                _, watch = watches.popitem()
                if not watch.is_late:
                    self._index.remove(watch.key, watch.range_end, watch)
            if not watches:
                self._leaving.pop()
            if self.clock() >= ends:
                return

    def _choose_id(self, sink: Sink, watches: dict[int, Watch]) -> int:
        # Upwards from 0 on each connection, and none twice: what is on its way to a watch that has ended must not be
        # taken for a later one's.
        chosen = self._next_ids.get(sink, 0)
        while chosen in watches:
            chosen += 1
        self._next_ids[sink] = chosen + 1
        return chosen


def _ids(watches: Sequence[Watch]) -> bytes:
    return b"".join((array_head(len(watches)), *[watch.encoded_id for watch in watches]))


def _canceled(watches: Sequence[Watch], compact_revision: int, reason: str) -> bytes:
    return b"\x84\x02" + _ids(watches) + encode(compact_revision) + encode(reason)


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
                _TRUE if number < len(parts) - 1 else b"\xf4",
            )
        )
        for number, part in enumerate(parts)
    ]
