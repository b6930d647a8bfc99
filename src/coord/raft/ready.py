"""What consensus asks of the outside: one batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define

from coord.protocol.messages import RaftMessage
from coord.raft.types import Entry, HardState

Note = tuple[str, dict[str, Any]]
"""A log event as data: `(name, fields)`."""


@define
class Ready:
    """What the outside must do now, in one batch.

    `hard_state` (None if unchanged) and `entries` go to the log in one write, after which `persisted` is called.
    `messages` may leave at once, `durable_messages` (votes, and what a candidate asks) only when that write is
    durable; without a write they follow the one that is out, or leave at once if all is durable. The first of
    `entries` may lie below entries of an earlier `Ready`, which it and its followers replace.

    `committed` goes to the state machine in order. `reads` are read rounds that are confirmed: `(round, index)`;
    what shares the round may be served once `index` is applied. `lost_reads` are rounds that nobody will confirm any
    more: what shares them needs a new round. `snapshots_wanted` are members whose next entry has left this log.
    """

    hard_state: HardState | None = None
    entries: Sequence[Entry] = ()
    messages: Sequence[RaftMessage] = ()
    durable_messages: Sequence[RaftMessage] = ()
    committed: Sequence[Entry] = ()
    reads: Sequence[tuple[int, int]] = ()
    lost_reads: Sequence[int] = ()
    snapshots_wanted: Sequence[int] = ()
    notes: Sequence[Note] = ()
