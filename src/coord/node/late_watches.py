"""Late watches: those that start in the past, or whose connection is slow, are fed from history.

All late ones share scans, bounded in watches and revisions, and are given no more than their client reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from attrs import define, field

from coord.limits import TURN_BUDGET_S, WATCH_CATCH_UP_REVISIONS, WATCH_CATCH_UP_WATCHES
from coord.mvcc.applied import RawEvent
from coord.mvcc.machine import StateMachine
from coord.mvcc.watchers import WatchIndex
from coord.node.ports import Sink
from coord.node.watch_delivery import Delivery, Watch


@define
class LateWatches:
    """Feeds them. `on_current` takes one that has been given everything, `on_compacted` one whose history is gone."""

    machine: StateMachine
    delivery: Delivery
    clock: Callable[[], float]
    wake: Callable[[], None]
    on_current: Callable[[Watch], None]
    on_compacted: Callable[[Watch], None]
    _late: dict[Sink, dict[Watch, None]] = field(factory=dict)

    @property
    def is_empty(self) -> bool:
        """True if there is none."""
        return not self._late

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(map(len, self._late.values()))

    def lowest(self, sink: Sink, default: int) -> int:
        """Return the lowest revision that a late watch of `sink` still wants, `default` if it has none."""
        return min((watch.next_revision for watch in self._late.get(sink, ())), default=default)

    def add(self, watch: Watch) -> None:
        """Feed a watch from its `next_revision` on."""
        watch.is_late = True
        self._late.setdefault(watch.sink, {})[watch] = None
        self.wake()

    def drop(self, watch: Watch) -> None:
        """Feed a watch no more."""
        watches = self._late[watch.sink]
        del watches[watch]
        if not watches:
            del self._late[watch.sink]

    def forget(self, sink: Sink) -> None:
        """Feed no watch of a connection any more."""
        self._late.pop(sink, None)

    def feed(self) -> bool:
        """Feed by shared scans; True if more can be fed at once."""
        current = self.machine.revision
        ends = self.clock() + TURN_BUDGET_S
        while ready := self._pick():
            first = min(watch.next_revision for watch in ready)
            last = min(current, first + WATCH_CATCH_UP_REVISIONS - 1)
            share = [watch for watch in ready if watch.next_revision <= last + 1]
            held = self._feed(share, first, last)
            for watch in share:
                if watch in held:
                    continue
                watch.next_revision = max(watch.next_revision, last + 1)
                if watch.next_revision > current:
                    self.drop(watch)
                    watch.is_late = False
                    self.on_current(watch)
            if self.clock() >= ends:
                return bool(self._late)
        return False

    def _pick(self) -> list[Watch]:
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
                self.on_compacted(watch)
            if sink in self._late:
                self._late[sink] = self._late.pop(sink)
            if len(picked) >= WATCH_CATCH_UP_WATCHES:
                break
        return picked

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
                    self.delivery.deliver(sink, revision, wanted)
                    continue
                held.update(wanted)
                for watch in wanted:
                    watch.next_revision = revision
        return held
