"""A copy of an interval: a list, and the events after it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field

from coord.client.responses import Batch, RangeResponse
from coord.types import FIRST_REVISION, EventType, KeyValue, Revision


@define(eq=False)
class Mirror:
    """The pairs as they were at `revision`.

    It never goes back: what it is told of a revision that it already shows changes nothing.
    """

    kvs: dict[bytes, KeyValue] = field(factory=dict)
    revision: Revision = FIRST_REVISION

    def listed(self, response: RangeResponse) -> None:
        """Take a whole list; what is not in it is gone."""
        if response.header.revision >= self.revision:
            self.kvs = {kv.key: kv for kv in response.kvs}
            self.revision = response.header.revision

    def take(self, batches: Iterable[Batch]) -> None:
        """Take what happened after the list."""
        for batch in batches:
            if batch.revision <= self.revision:
                continue
            for event in batch.events:
                if event.type is EventType.PUT:
                    self.kvs[event.kv.key] = event.kv
                else:
                    self.kvs.pop(event.kv.key, None)
            self.revision = batch.revision
