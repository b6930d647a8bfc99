"""The disk side of a store, as a seam: LMDB in a node, dicts that can lose commits in a simulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from coord.mvcc.backend import Table
from coord.store.overlay import Segment

Pair = tuple[bytes, bytes]
"""A key and a value as they are stored, checksum included."""


class View(Protocol):
    """One moment of what is committed, for a snapshot."""

    @property
    def applied(self) -> tuple[int, int]:
        """The index and term that this very moment holds (S6)."""

    def pairs(self, name: str) -> Iterator[Pair]:
        """Yield what the database `name` holds, in key order, as it is stored; `check_values` tells if it is whole."""


class Stage(Protocol):
    """A store that is being built beside the living one."""

    def put(self, name: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Add pairs, in key order within each database; the values are as they are stored."""

    def finish(self, index: int, term: int) -> None:
        """Set what is applied and return when all of it is safe against power loss."""

    def close(self) -> None:
        """Let go of it; what was not finished is worth nothing."""


class Engine(Protocol):
    """Keeps committed records and rows.

    `commit`, `sync`, `view` and `stage` are for workers, the rest for the loop.
    """

    def applied(self) -> tuple[int, int]:
        """Return the index and term of the last commit, `(0, 0)` for a new store."""

    def get(self, key: int) -> bytes | None:
        """Return a record; `DamageError` if its checksum fails."""

    def get_many(self, keys: Sequence[int]) -> list[bytes]:
        """Return records that are known to exist; `DamageError` if one does not, or its checksum fails."""

    def scan(self, low: int, high: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield `(revision, sub, record)` for `low <= key <= high`, as of the first step."""

    def rows(self, table: Table) -> dict[bytes, bytes]:
        """Return the rows of a table."""

    def commit(self, segments: Sequence[Segment]) -> None:
        """Write segments in order, and the last one's index and term, in one transaction.

        `DiskFullError`: nothing was written and it may be tried again.
        """

    def sync(self) -> None:
        """Make every commit that has returned safe against power loss (S4)."""

    def size(self) -> tuple[int, int, int]:
        """Return the bytes of the file, of the pages in use, and the most that the store can hold."""

    def use_reserve(self) -> None:
        """Let the store grow into what it otherwise keeps free (S16)."""

    def restore_reserve(self) -> None:
        """Keep the reserve free again."""

    def view(self) -> AbstractContextManager[View]:
        """Return one moment of what is committed; later commits do not change it."""

    def stage(self) -> Stage:
        """Begin a store beside this one; what was staged before is dropped."""

    def switch(self) -> None:
        """Put the finished stage in this store's place, for good."""

    def close(self) -> None:
        """Let go of the files."""
