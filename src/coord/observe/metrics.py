"""What a node counts, and the Prometheus text (0.0.4) that tells it.

Names are etcd's with `coord_` for `etcd_`, and mean the same, so that dashboards and alerts carry over. On
the way of a request a count is `metrics.put_total += 1` and nothing more. Gauges are asked for when someone
looks: whoever owns a figure adds a function to `collectors`, which sets it.

The text is made here, since the usual library would cost an idle node a sixth of its memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Final

from attrs import Attribute, define, field, fields

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

DISK_BUCKETS_S: Final = tuple(0.000125 * 2**power for power in range(17))
"""From 125 µs to 8 s: etcd begins at 1 ms, but a sync on today's disks takes a tenth of that."""


class Histogram:
    """Counts observations by size; `bounds` are the upper ends of the buckets, in rising order."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = DISK_BUCKETS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation, in the unit of the metric's name."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


def _is(kind: str, meaning: str, label: str = "") -> dict[str, str]:
    return {"type": kind, "help": meaning, "label": label}


def _zeros() -> defaultdict[str, int]:
    """Make counters told apart by one label: `metrics.client_requests_total["put"] += 1`."""
    return defaultdict(int)


def _counter(meaning: str) -> Any:
    return field(default=0, metadata=_is("counter", meaning))


def _gauge(meaning: str) -> Any:
    return field(default=0, metadata=_is("gauge", meaning))


@define(eq=False)
class Metrics:
    """All figures of one node. An attribute is exported as `coord_` and its name."""

    server_has_leader: int = _gauge("1 if a leader is known.")
    server_is_leader: int = _gauge("1 if this member leads.")

    server_leader_changes_seen_total: int = _counter("Leader changes seen.")
    server_proposals_committed_total: int = _gauge("Index of the last committed entry.")
    server_proposals_applied_total: int = _gauge("Index of the last applied entry.")
    server_proposals_pending: int = _gauge("Proposals that wait to be committed.")
    server_proposals_failed_total: int = _counter("Proposals that were refused or whose outcome is unknown.")

    server_health_failures: int = _counter("Health checks that did not pass.")
    server_quota_backend_bytes: int = _gauge("Space in use that raises the NOSPACE alarm; -1 for none.")
    server_id: dict[str, int] = field(factory=dict, metadata=_is("gauge", "This member's id, as label.", "server_id"))
    server_version: dict[str, int] = field(
        factory=dict, metadata=_is("gauge", "This release, as label.", "server_version")
    )
    server_alarms: dict[str, int] = field(factory=dict, metadata=_is("gauge", "1 for each alarm that is on.", "alarm"))
    server_raft_term: int = _gauge("The term.")
    server_is_learner: int = _gauge("1 if this member is a learner.")
    network_active_peers: dict[str, int] = field(
        factory=dict, metadata=_is("gauge", "1 if this member's link to another stands.", "remote")
    )
    network_peer_sent_bytes_total: dict[str, int] = field(
        factory=dict, metadata=_is("counter", "Bytes of messages sent to another member.", "To")
    )
    network_peer_received_bytes_total: dict[str, int] = field(
        factory=dict, metadata=_is("counter", "Bytes of messages from another member.", "From")
    )
    raft_follower_lag_entries: dict[str, int] = field(
        factory=dict, metadata=_is("gauge", "Entries that a member has not acknowledged to this leader.", "remote")
    )

    disk_wal_fsync_duration_seconds: Histogram = field(
        factory=Histogram, metadata=_is("histogram", "Time to write a batch of the log and sync it.")
    )
    disk_wal_size_bytes: int = _gauge("Bytes of all files of the log.")
    disk_wal_batches_total: int = _counter("Batches written to the log; entries per batch tell how well it groups.")
    disk_wal_entries_total: int = _counter("Entries written to the log.")
    disk_backend_commit_duration_seconds: Histogram = field(
        factory=Histogram, metadata=_is("histogram", "Time of a transaction of the store.")
    )

    mvcc_db_total_size_in_bytes: int = _gauge("Size of the store's file.")
    mvcc_db_total_size_in_use_in_bytes: int = _gauge("Space in use in the store's file.")
    mvcc_current_revision: int = _gauge("The revision, as applied here.")
    mvcc_compact_revision: int = _gauge("The compacted revision.")
    mvcc_keys_total: int = _gauge("Keys in the index, deleted ones that are not compacted included.")
    mvcc_put_total: int = _counter("Puts applied.")
    mvcc_delete_total: int = _counter("Deletes applied.")
    mvcc_txn_total: int = _counter("Transactions applied.")
    mvcc_range_total: int = _counter("Ranges served.")
    mvcc_events_total: int = _counter("Events sent to watches.")

    mvcc_watcher_total: int = _gauge("Watches.")
    mvcc_slow_watcher_total: int = _gauge("Watches that go on from history, as their client reads slowly.")
    mvcc_db_compaction_keys_total: int = _counter("Records that compaction removed.")
    mvcc_overlay_bytes: int = _gauge("Applied records that wait to be written to the store.")

    lease_granted_total: int = _counter("Leases granted.")
    lease_revoked_total: int = _counter("Leases revoked or expired.")
    lease_renewed_total: int = _counter("Keep-alives served.")
    lease_expired_total: int = _counter("Leases expired, as proposed by this member.")
    lease_checkpointed_total: int = _counter("Checkpoints of leases that missed a renewal, as proposed by this member.")
    lease_active: int = _gauge("Leases that exist.")

    client_connections: int = _gauge("Connections of clients.")
    client_connections_total: int = _counter("Connections accepted.")
    client_refused_total: int = _counter("Connections refused.")
    client_received_bytes_total: int = _counter("Bytes from clients.")
    client_sent_bytes_total: int = _counter("Bytes to clients.")
    client_frames_received_total: int = _counter("Frames from clients; requests per frame tell how well they batch.")
    client_frames_sent_total: int = _counter("Frames to clients.")
    client_requests_total: dict[str, int] = field(
        factory=_zeros, metadata=_is("counter", "Requests and writes received.", "method")
    )
    client_errors_total: dict[str, int] = field(factory=_zeros, metadata=_is("counter", "Errors answered.", "code"))

    loop_passes_total: int = _counter("Passes of the loop.")
    loop_stalls_total: int = _counter("Steps that held everything up for 50 ms or more.")

    collectors: list[Callable[[], None]] = field(factory=list)
    """Called before the text is made; each sets gauges of its owner."""


def render(metrics: Metrics, prefix: str = "coord_") -> str:
    """Return the text of all figures, after asking the collectors."""
    for collect in metrics.collectors:
        collect()
    lines: list[str] = []
    for attribute in fields(Metrics):
        if attribute.metadata:
            lines += _family(prefix + attribute.name, attribute, getattr(metrics, attribute.name))
    return "\n".join(lines) + "\n"


def _family(name: str, attribute: Attribute[Any], value: Any) -> Iterator[str]:
    kind: str = attribute.metadata["type"]
    yield f"# HELP {name} {attribute.metadata['help']}"
    yield f"# TYPE {name} {kind}"
    if isinstance(value, Histogram):
        below = 0
        for bound, count in zip(value.bounds, value.counts, strict=False):
            below += count
            yield f'{name}_bucket{{le="{bound:g}"}} {below}'
        total = sum(value.counts)
        yield f'{name}_bucket{{le="+Inf"}} {total}'
        yield f"{name}_sum {value.sum:.9g}"
        yield f"{name}_count {total}"
    elif isinstance(value, dict):
        label = attribute.metadata["label"]
        for text, count in sorted(value.items()):
            yield f'{name}{{{label}="{_escape(text)}"}} {count}'
    else:
        yield f"{name} {value}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
