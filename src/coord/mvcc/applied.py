"""What comes out of applying an entry: answers, events and what other actors must know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define, field

from coord.codec import NULL
from coord.mvcc.backend import Position
from coord.mvcc.index import unpack_state
from coord.types import EventType

_PUT = int(EventType.PUT)

Answer = tuple[int, bool, bytes]
"""`(revision, ok, payload)`, as it is recorded (S18) and sent: `payload` is the encoded result, or the encoded
`null, error` of coord.cddl's `reply`, so that a reply is `head + id + revision + payload`."""

RawEvent = tuple[bytes, int, bytes, Position | None]
"""`(key, type, record, previous)`: `type` as in `EventType`, `record` the encoded key-value, `previous` the position
of the pair before it, if there was one."""


@define
class PutRun:
    """Plain puts that were applied at once, each in a revision of its own: from `first` on.

    What they answer and what they changed is told only where somebody asks, which on most members nobody does.
    """

    first: int
    keys: Sequence[bytes]
    values: Sequence[bytes]
    """What was to be put; perhaps there are others behind those that were."""
    records: list[bytes]
    olds: list[bytes | None]
    """What the index held of the keys before."""

    def answers(self) -> list[Answer]:
        """Return the answer of each put."""
        return [(revision, True, NULL) for revision in range(self.first, self.first + len(self.records))]

    def events(self) -> list[tuple[int, list[RawEvent]]]:
        """Return the event of each put, with its revision."""
        runs = zip(self.keys, self.records, map(_previous, self.olds), strict=False)
        return [
            (revision, [(key, _PUT, record, previous)])
            for revision, (key, record, previous) in enumerate(runs, self.first)
        ]


def _previous(old: bytes | None) -> Position | None:
    if old is None:
        return None
    mod, sub, _, version, _ = unpack_state(old)
    return (mod, sub) if version else None


@define
class Applied:
    """The outcome of one entry. Lists are in order; `answers` has one item for each write of the entry."""

    index: int
    kind: int
    origin: int = 0
    number: int = 0
    """What the entry is known by to its origin."""
    outcomes: list[Answer | PutRun] = field(factory=list)
    changes: list[tuple[int, list[RawEvent]] | PutRun] = field(factory=list)
    leases_granted: list[tuple[int, int]] = field(factory=list)
    """`(lease, ttl_s)`."""
    leases_revoked: list[int] = field(factory=list)
    leases_checkpointed: list[tuple[int, int]] = field(factory=list)
    """`(lease, remaining_ms)`; 0 where a checkpoint was cleared."""
    compacted: int = 0
    """The new compacted revision, or 0: physical compaction up to it may begin."""
    physical: list[int] = field(factory=list)
    """Positions in `answers` of compactions that asked to be answered after the rows are gone."""
    alarms_changed: bool = False
    members_changed: bool = False
    notes: list[tuple[str, dict[str, Any]]] = field(factory=list)
    """Log events, as (name, fields), for the actor to emit."""

    @property
    def answers(self) -> list[Answer]:
        """The answers, made when they are asked for."""
        answers: list[Answer] = []
        for outcome in self.outcomes:
            if isinstance(outcome, PutRun):
                answers += outcome.answers()
            else:
                answers.append(outcome)
        return answers

    @property
    def events(self) -> list[tuple[int, list[RawEvent]]]:
        """`(revision, events)`, one item a revision, made when they are asked for."""
        events: list[tuple[int, list[RawEvent]]] = []
        for change in self.changes:
            if isinstance(change, PutRun):
                events += change.events()
            else:
                events.append(change)
        return events
