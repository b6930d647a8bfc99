"""What comes out of applying an entry: answers, events and what other actors must know."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from coord.mvcc.backend import Position

Answer = tuple[int, bool, bytes]
"""`(revision, ok, payload)`, as it is recorded (S18) and sent: `payload` is the encoded result, or the encoded
`null, error` of coord.cddl's `reply`, so that a reply is `head + id + revision + payload`."""

RawEvent = tuple[bytes, int, bytes, Position | None]
"""`(key, type, record, previous)`: `type` as in `EventType`, `record` the encoded key-value, `previous` the position
of the pair before it, if there was one."""


@define
class Applied:
    """The outcome of one entry. Lists are in order; `answers` has one item for each write of the entry."""

    index: int
    kind: int
    origin: int = 0
    frame: int = 0
    answers: list[Answer] = field(factory=list)
    events: list[tuple[int, list[RawEvent]]] = field(factory=list)
    """`(revision, events)`, one item a revision."""
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
