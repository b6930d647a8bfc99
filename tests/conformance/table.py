"""The table: every rule of etcd's semantics that coord keeps, one row each."""

from __future__ import annotations

from . import (
    rows_alarms,
    rows_compaction,
    rows_compares,
    rows_leases,
    rows_ranges,
    rows_revisions,
    rows_txns,
    rows_watch_events,
    rows_watches,
    rows_writes,
)

ROWS = (
    *rows_revisions.ROWS,
    *rows_ranges.ROWS,
    *rows_writes.ROWS,
    *rows_compaction.ROWS,
    *rows_txns.ROWS,
    *rows_compares.ROWS,
    *rows_leases.ROWS,
    *rows_watches.ROWS,
    *rows_watch_events.ROWS,
    *rows_alarms.ROWS,
)
