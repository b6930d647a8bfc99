"""The watch broadcaster: events leave as they are applied; late watches are fed from history.

A watch is *current* when it has been given everything applied, and is then fed from the applier: each event is
encoded once, and each connection gets one notification with the ids of the watches it is for. A watch that starts in
the past, or whose connection is slow, is *late*: it is fed from the store, all late ones by one scan. None is ever
dropped silently (S30): compaction ends one, and says so; a member that has no leader ends all, so that their clients go
on elsewhere; a snapshot that replaces the state makes them late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field, frozen

from coord import errors
from coord.codec import uint
from coord.limits import TURN_BUDGET_S, WATCHES_PER_CONNECTION
from coord.mvcc.applied import RawEvent
from coord.mvcc.machine import StateMachine
from coord.node.consensus import Log
from coord.node.current_watches import CurrentWatches
from coord.node.late_watches import LateWatches
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.watch_delivery import Delivery, Life, Watch

_DETACHED_PER_LOOK = 256


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
    is_held: bool = False
    """The state is being replaced by a snapshot: nothing may look at it."""
    delivery: Delivery = field(init=False)
    late: LateWatches = field(init=False)
    current: CurrentWatches = field(factory=CurrentWatches)
    _lives: dict[Sink, Life] = field(factory=dict)
    _next_ids: dict[Sink, int] = field(factory=dict)
    _leaving: list[dict[int, Watch]] = field(factory=list)
    """Watches of connections that have gone, still in the index."""
    _inbox: list[tuple[int, list[RawEvent]]] = field(factory=list)
    _stillborn: list[Watch] = field(factory=list)
    """Start below the compacted revision: they end in the turn, behind the reply that makes them."""
    _asked: list[Asked] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.delivery = Delivery(self.machine, self.outbox, self.clock)
        self.late = LateWatches(
            self.machine, self.delivery, self.clock, self.wake, self._make_current, self._end_compacted
        )

    @property
    def late_count(self) -> int:
        """How many watches are fed from history."""
        return self.late.count

    @property
    def events_sent(self) -> int:
        """How many events were given out, counted for each watch."""
        return self.delivery.events_sent

    def on_events(self, events: Sequence[tuple[int, list[RawEvent]]]) -> None:
        """Queue what the applier changed. Where nobody watches this may be left out: a watch that comes later starts
        behind it.
        """
        self._inbox.extend(events)

    def create(self, watch: Watch) -> int:
        """Add a watch and return its start revision. Raises `ApiError`.

        One that starts below the compacted revision is made and then ended, as in etcd: the notification says why.
        `watch.next_revision` is the start revision asked for, 0 for the next; `watch.id` 0 lets the node choose.
        """
        # Its own is only the first one of a connection.
        watch.life = self._lives.setdefault(watch.sink, watch.life)
        watches = watch.life.watches
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
        watch.encoded_ids = uint(watch.id)
        # What is queued here is not given out yet, so that a watch from now on starts behind it.
        current = self.machine.revision
        watch.next_revision = start or current + 1
        watch.spoke_at = self.clock()
        watches[watch.id] = watch
        self.watch_count += 1
        if watch.next_revision <= current:
            self.late.add(watch)
            if watch.next_revision < self.machine.compact_revision:
                self._stillborn.append(watch)
        else:
            self._make_current(watch)
        return watch.next_revision

    def cancel(self, sink: Sink, watch_id: int) -> bool:
        """Remove a watch; False if there is none."""
        life = self._lives.get(sink)
        watch = life.watches.get(watch_id) if life is not None else None
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
        if self.is_held:
            return False
        if self._leaving:
            self._detach_leaving()
        if self._inbox:
            events, self._inbox = self._inbox, []
            for revision, changes in events:
                self._broadcast(revision, changes)
        for watch in self._stillborn:
            if watch.life.watches.get(watch.id) is watch and not watch.life.is_over:
                self._end_compacted(watch)
        self._stillborn.clear()
        goes_on = not self.late.is_empty and self.late.feed()
        self.current.admit(self.machine.revision + 1)
        if self._asked:
            self._answer_asked()
        return goes_on or bool(self._leaving)

    def sweep(self) -> None:
        """Tell idle watches that asked for it how far they are; call it about once a second."""
        if self.is_held:
            return
        now = self.clock()
        due: dict[Sink, list[Watch]] = {}
        for sink, life in self._lives.items():
            for watch in life.watches.values():
                is_idle = now - (watch.audience or watch).spoke_at >= self.progress_interval_s
                if watch.progress_notify and not watch.is_late and is_idle:
                    due.setdefault(sink, []).append(watch)
        revision = self.machine.revision
        for sink, idle in due.items():
            # A watch from a future revision has not been promised anything below its start.
            idle = [watch for watch in idle if watch.next_revision <= revision + 1]
            for watch in idle:
                (watch.audience or watch).spoke_at = now
            if idle:
                self.delivery.tell_progress(sink, idle, revision)

    def cancel_all(self, reason: str) -> None:
        """End every watch with a reason; its client resumes elsewhere (S30)."""
        if not self.watch_count:
            return
        self.log("watch.stream.ended", watches=self.watch_count, reason=reason)
        for sink, life in list(self._lives.items()):
            if life.watches:
                self.delivery.tell_canceled(sink, list(life.watches.values()), 0, reason)
            self._leave(sink)
        self.wake()

    def hold(self) -> None:
        """Look at the state no more until `after_install`: it is being replaced."""
        self.is_held = True

    def after_install(self, revision_before: int) -> None:
        """Go on behind a snapshot, which took the state from `revision_before` to its own without events.

        S30: each watch goes on from its own last revision through history, or ends with the compacted revision.
        """
        self.is_held = False
        # What is queued was not given out; the events lie in history like those that never came.
        given = self._inbox[0][0] - 1 if self._inbox else revision_before
        self._inbox.clear()
        revision = self.machine.revision
        for life in self._lives.values():
            for watch in life.watches.values():
                if watch.is_late:
                    continue
                watch.next_revision = max(watch.next_revision, given + 1)
                if watch.next_revision <= revision:
                    self.current.remove(watch)
                    self.late.add(watch)
        self.wake()

    def _broadcast(self, revision: int, changes: Sequence[RawEvent]) -> None:
        """Give one revision's events to the current watches, and make late those of slow connections."""
        self.current.admit(revision)
        for sink, wanted in self.current.wanted(changes).items():
            if sink.is_slow():
                lagging = [watch for receiver in wanted for watch in receiver.watches]
                self.log("watch.client.lagging", watches=len(lagging), revision=revision)
                self.slow_watches += len(lagging)
                for watch in lagging:
                    watch.next_revision = revision
                    self.current.remove(watch)
                    self.late.add(watch)
            else:
                self.delivery.deliver(sink, revision, wanted)

    def _make_current(self, watch: Watch) -> None:
        self.current.add(watch)
        self.wake()

    def _end_compacted(self, watch: Watch) -> None:
        """Tell the client that what a watch wants next is gone, from the start on or by now, and remove it."""
        floor = self.machine.compact_revision
        self.log("watch.stream.canceled", watch=watch.id, compact_revision=floor)
        self.delivery.tell_canceled(watch.sink, [watch], floor, "")
        self._remove(watch)

    def _answer_asked(self) -> None:
        now = self.clock()
        lowest: dict[Sink, int] = {}
        waiting = []
        for asked in self._asked:
            if asked.sink not in lowest:
                lowest[asked.sink] = self.late.lowest(asked.sink, self.machine.revision + 1)
            if lowest[asked.sink] > asked.revision:
                # Events that came since it was asked stand before the answer, which must not say less than they.
                asked.answer(lowest[asked.sink] - 1)
            elif asked.deadline <= now:
                asked.answer(None)
            else:
                waiting.append(asked)
        self._asked = waiting

    def _remove(self, watch: Watch) -> None:
        del watch.life.watches[watch.id]
        self.watch_count -= 1
        if watch.is_late:
            self.late.drop(watch)
        else:
            self.current.remove(watch)

    def _leave(self, sink: Sink) -> None:
        """Take a connection's watches out; many leave the index in slices, so that nothing waits for them."""
        self.late.forget(sink)
        life = self._lives.pop(sink, None)
        if life is not None:
            life.is_over = True
            self.watch_count -= len(life.watches)
            self._leaving.append(life.watches)
            self.wake()

    def _detach_leaving(self) -> None:
        ends = self.clock() + TURN_BUDGET_S
        while self._leaving:
            watches = self._leaving[-1]
            for _ in range(min(len(watches), _DETACHED_PER_LOOK)):
                _, watch = watches.popitem()
                if not watch.is_late:
                    self.current.remove(watch)
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
