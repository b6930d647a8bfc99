"""What the node needs of a store, real or simulated.

All methods are for the loop's thread and do not block, but for `switch` and `close`. What blocks is a
*job*: made on the loop, `run()` on a worker, and handed back to the loop afterwards. Flushes and syncs run
on one worker, one after the other; a snapshot may be written on another beside them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from attrs import frozen

from coord.mvcc.backend import Backend, Table

REVISION_MAX = 2**63 - 1


@frozen
class Space:
    """How much room the store takes, in bytes."""

    size_bytes: int
    """The file, free pages included."""
    in_use_bytes: int
    """Pages that hold something: what the quota is about."""
    limit_bytes: int
    """How large the store can become whatever the disk holds."""
    free_disk_bytes: int
    """What can still be written beyond the reserve (S16), pages that wait to be reused included; 0 or less
    means full."""


class JobPort(Protocol):
    """Blocking work, to be run on a worker."""

    def run(self) -> None:
        """Do it. `DiskFullError`: may be run again later. `DiskError`, `DamageError`: the process ends."""


class FlushJobPort(JobPort, Protocol):
    """Moves what is applied to the disk."""

    @property
    def index(self) -> int:
        """The applied index that the store has on disk afterwards."""


class SyncJobPort(JobPort, Protocol):
    """Makes what is committed safe against power loss."""

    @property
    def index(self) -> int:
        """After `run`: the applied index that no power loss can take back."""


class SnapshotJobPort(JobPort, Protocol):
    """Writes a snapshot file; index, term and path are known after `run`."""

    @property
    def index(self) -> int:
        """The index of the last entry in the snapshot, read from the snapshot itself (S6)."""

    @property
    def term(self) -> int:
        """The term of that entry."""

    @property
    def path(self) -> Path:
        """The finished file."""


class StorePort(Backend, Protocol):
    """A `Backend` that keeps what it is given."""

    @property
    def applied_index(self) -> int:
        """The index of the last entry whose effects are committed; the process may die, the machine may
        not.
        """

    @property
    def applied_term(self) -> int:
        """The term of that entry."""

    @property
    def synced_index(self) -> int:
        """The index up to which the log may be released (S4)."""

    @property
    def overlay_bytes(self) -> int:
        """The bytes that wait to be flushed; apply waits while they are too many."""

    @property
    def is_empty(self) -> bool:
        """True if no entry was ever applied to this store."""

    def seal(self, index: int, term: int) -> None:
        """Say that everything written so far is the effect of the entries up to `index`, of `term`."""

    def flush_job(self, durable_index: int) -> FlushJobPort | None:
        """Return a job that flushes what was sealed at or below `durable_index`, or None if there is
        nothing (S3).

        Each call cuts: what is there now reaches the disk in one transaction, so the state machine has to
        have put its rows before (`flush_rows`). Rows and removals since the last seal count as part of it.
        At most one flush job is out at a time; one that raised `DiskFullError` is run again as it is.
        """

    def flushed(self, job: FlushJobPort) -> None:
        """Take back a flush job whose `run` has returned; only now does the overlay let go (S7)."""

    def sync_job(self) -> SyncJobPort:
        """Return a job that makes all commits before its `run` safe against power loss."""

    def synced(self, job: SyncJobPort) -> None:
        """Take back a sync job whose `run` has returned: `synced_index` advances."""

    def snapshot_job(self, directory: Path) -> SnapshotJobPort:
        """Return a job that writes what is committed when it runs into a file in `directory` (S6)."""

    def install_job(self, path: Path, index: int, term: int) -> JobPort | None:
        """Return a job that verifies a snapshot file and builds a synced store from it, beside this one.

        None if the snapshot is at or below the last seal: it is ignored (S6). After `run` the caller writes
        the log's snapshot record, and then calls `switch`.
        """

    def switch(self) -> None:
        """Put the installed store in this one's place; blocks for some milliseconds. No flush job may be out.

        The overlay is gone with the old store, and the state machine has to be loaded anew.
        """

    def space(self) -> Space:
        """Return the room that the store takes and has."""

    def close(self) -> None:
        """Let go of the files; what was not flushed is in the log. No job may be running."""


def state_hash(backend: Backend) -> str:
    """Return the SHA-256 of all records and rows, for tests that compare stores; it reads everything."""
    digest = hashlib.sha256()
    for revision, sub, record in backend.scan(0, REVISION_MAX):
        digest.update(b"%d.%d:%d:" % (revision, sub, len(record)) + record)
    for table in Table:
        for key, value in backend.rows(table):
            digest.update(b"%s:%d:%d:" % (table.value.encode(), len(key), len(value)) + key + value)
    return digest.hexdigest()
