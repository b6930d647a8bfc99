"""What the state machine needs from the place that keeps its state.

The store package implements it over LMDB, the simulators in memory. Everything the machine does between two `seal`
calls becomes durable in one transaction or not at all (S6).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Protocol

Position = tuple[int, int]
"""`(revision, sub)`: where a record lies; `sub` numbers the changes within one revision from 0."""


class Table(StrEnum):
    """Replicated state that is no record: small rows, rewritten in place."""

    META = "meta"
    LEASES = "leases"
    CLIENTS = "clients"
    ALARMS = "alarms"
    MEMBERS = "members"


class Backend(Protocol):
    """Records by position and rows by table.

    A record is the CBOR of coord.cddl's `key-value`, written once and never changed; only `remove` takes it away.
    Reads see everything written before, flushed or not.
    """

    def append(self, revision: int, sub: int, record: bytes) -> None:
        """Keep `record` at a position above all earlier ones."""

    def extend(self, revision: int, records: Sequence[bytes]) -> None:
        """Keep each of `records` as the only one of its revision, from `revision` on, as `append` would."""

    def read(self, revision: int, sub: int) -> bytes:
        """Return the record at a position that is known to exist; `DamageError` if it is not there."""

    def read_many(self, positions: Sequence[Position]) -> list[bytes]:
        """Return the records at positions that are known to exist, as `read` would, in less time for each."""

    def scan(self, first: int, last: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield `(revision, sub, record)` for all records with `first <= revision <= last`, in order.

        One moment's view; meant to be used up at once, without an await in between.
        """

    def put_row(self, table: Table, key: bytes, value: bytes | None) -> None:
        """Set a row, or delete it with None."""

    def rows(self, table: Table) -> Iterable[tuple[bytes, bytes]]:
        """Return the rows of a table in key order; used when a node starts."""

    def remove(self, positions: Sequence[Position]) -> None:
        """Take away records that compaction has made unreachable."""
