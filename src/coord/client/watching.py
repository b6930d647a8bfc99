"""What a client knows of one watch: what it asked for, and where to go on after a break. Pure."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from coord.client.responses import Batch
from coord.types import Event, Revision

RESUME_REASONS = ("etcdserver: no leader", "etcdserver: server stopped")
"""A node that ends a watch for one of these cannot serve it now; another one, or the same one later, can."""


@define(eq=False)
class WatchState:
    """One watch, over all the connections that carried it.

    S30: it goes on only at whole revisions. `next_revision` moves when all events of a revision are here, and
    a break drops the part of one; from `created` on it is set, so that nothing is lost before the first
    event.
    """

    watch_id: int
    key: bytes
    range_end: bytes
    next_revision: int
    """The first revision not yet seen; 0: from whenever the watch is created."""
    no_put: bool = False
    no_delete: bool = False
    prev_kv: bool = False
    progress_notify: bool = False
    _parts: list[Event] = field(factory=list)

    def create_arguments(self) -> list[Any]:
        """Return coord.cddl's `watch-create`, for a connection that does not carry this watch yet."""
        self._parts.clear()
        return [
            self.key,
            self.range_end,
            self.next_revision,
            self.watch_id,
            self.no_put,
            self.no_delete,
            self.prev_kv,
            self.progress_notify,
            True,
        ]

    def created(self, start_revision: int) -> None:
        """Note where the node starts the watch."""
        if not self.next_revision:
            self.next_revision = start_revision

    def take(self, batch: Batch, is_fragment: bool) -> Batch | None:
        """Take events of one revision; return the whole of it once it is complete, None for a part or a repetition."""
        revision = batch.revision
        if revision < self.next_revision:
            return None
        if is_fragment:
            self._parts.extend(batch.events)
            return None
        if self._parts:
            batch = Batch(revision, [*self._parts, *batch.events])
            self._parts.clear()
        self.next_revision = revision + 1
        return batch

    def progress(self, revision: int) -> Batch | None:
        """Take word that every later event has a higher revision."""
        if revision < self.next_revision - 1:
            return None
        self.next_revision = revision + 1
        return Batch(Revision(revision), ())
