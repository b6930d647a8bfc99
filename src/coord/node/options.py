"""What a node is told, and what it takes from outside."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen

from coord.limits import WATCH_PROGRESS_INTERVAL_S_DEFAULT
from coord.node.consensus import Log
from coord.node.worker import Worker
from coord.protocol.entries import Member

TICKS_PER_HEARTBEAT = 5
"""Raft's ticks: short, since ranks keep voters apart by two of them (S10)."""
_FRAME_BITS = 40


@frozen
class Options:
    """What a node is told; names are those of the flags, units last."""

    name: str
    member_id: int
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    members: tuple[Member, ...] = field()
    """The initial cluster, this member among them; none for one that joins a cluster that is there."""
    boot: int = 1
    """The how-manieth start of this data directory."""
    heartbeat_s: float = 0.1
    election_s: float = 1.0
    request_timeout_s: float = 5.0
    max_request_bytes: int = 1536 * 1024
    max_txn_ops: int = 128
    quota_bytes: int = 2 * 1024**3
    compaction_mode: str = "periodic"
    compaction_retention: float = 0.0
    snapshot_count: int = 10_000
    progress_interval_s: float = WATCH_PROGRESS_INTERVAL_S_DEFAULT

    @members.default
    def _alone(self) -> tuple[Member, ...]:
        return (Member(self.member_id, self.name, self.peer_urls, self.client_urls),)

    @property
    def first_number(self) -> int:
        """Frames, read rounds and calls are numbered above this, so that no number is used twice in all boots."""
        return self.boot << _FRAME_BITS

    @property
    def tick_s(self) -> float:
        """The length of Raft's tick."""
        return self.heartbeat_s / TICKS_PER_HEARTBEAT


@frozen
class Seams:
    """What a node takes from outside (law 10): clock, chance, threads, log and measurements."""

    clock: Callable[[], float]
    new_id: Callable[[], int]
    """Draws from 1 … 2⁶³−1."""
    log: Log
    log_worker: Worker
    store_worker: Worker
    prepare_worker: Worker
    observe_sync: Callable[[float], None] = lambda took_s: None
    observe_commit: Callable[[float], None] = lambda took_s: None
