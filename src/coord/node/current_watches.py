"""Current watches: they have been given everything, and are fed with what is applied.

Those of one connection that ask for the same become one audience as soon as they are in step. So an event costs what
its connections cost, not its watches: 100 000 on one prefix would else hold up the loop for 0.1 s at each.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from attrs import define, field

from coord.mvcc.applied import RawEvent
from coord.mvcc.watchers import WatchIndex
from coord.node.ports import Sink
from coord.node.watch_delivery import Audience, Watch


@define
class CurrentWatches:
    """Finds who receives an event."""

    _index: WatchIndex[Watch | Audience] = field(factory=lambda: WatchIndex(attrgetter("wish")))
    _joining: dict[Watch, None] = field(factory=dict)
    """Start behind what is given out next: in an audience they would be given what they do not want."""
    _next_joins: int = 0
    """Nobody joins below this revision, so that nobody has to be looked at for it."""

    def add(self, watch: Watch) -> None:
        """Take a watch that wants what is given out from its `next_revision` on."""
        self._next_joins = min(self._next_joins, watch.next_revision) if self._joining else watch.next_revision
        self._joining[watch] = None

    def admit(self, revision: int) -> None:
        """Let watches join that want `revision`, which is given out next."""
        if not self._joining or revision < self._next_joins:
            return
        ready = [watch for watch in self._joining if watch.next_revision <= revision]
        for watch in ready:
            del self._joining[watch]
            found = self._index.find(watch.key, watch.range_end, watch.wish)
            if found is None:
                self._index.add(watch.key, watch.range_end, watch)
            elif isinstance(found, Audience):
                found.join(watch)
            else:
                self._index.remove(watch.key, watch.range_end, found)
                self._index.add(watch.key, watch.range_end, Audience.of(found, watch))
        self._next_joins = min([watch.next_revision for watch in self._joining], default=0)

    def remove(self, watch: Watch) -> None:
        """Take a watch out."""
        audience = watch.audience
        if watch in self._joining:
            del self._joining[watch]
        elif audience is None:
            self._index.remove(watch.key, watch.range_end, watch)
        else:
            audience.leave(watch)
            if not audience.watches:
                self._index.remove(watch.key, watch.range_end, audience)

    def wanted(self, changes: Sequence[RawEvent]) -> dict[Sink, dict[Watch | Audience, list[RawEvent]]]:
        """Return which of a revision's changes each receiver wants, by connection."""
        by_sink: dict[Sink, dict[Watch | Audience, list[RawEvent]]] = {}
        match = self._index.match
        for change in changes:
            for receiver in match(change[0]):
                life = receiver.life
                if not life.is_over:
                    by_sink.setdefault(life.sink, {}).setdefault(receiver, []).append(change)
        return by_sink
