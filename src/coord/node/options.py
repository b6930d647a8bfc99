"""What a node is told, and what it takes from outside."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from attrs import field, frozen

from coord.disk import Disk
from coord.limits import CATCH_UP_ENTRIES, CATCH_UP_ENTRIES_MAX, CLIENT_RECORDS_MAX, WATCH_PROGRESS_INTERVAL_S_DEFAULT
from coord.node.consensus import Log
from coord.node.hello import Triple
from coord.node.peers import Network
from coord.node.worker import Worker
from coord.protocol.entries import Member
from coord.raft.types import Configuration

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
    """The initial cluster, this member among them; of a cluster that is there perhaps nothing is known."""
    incarnation: int = 1
    boot: int = 1
    nonce: int = 1
    """Which life of which data directory this is (S1)."""
    bootstrap_id: int = 0
    """Proves equal flags; 0 for a member that joined a cluster that was there."""
    is_joining: bool = False
    """It joined a cluster that was there, and is blank until that has published its incarnation (S1)."""
    heartbeat_s: float = 0.1
    election_s: float = 1.0
    request_timeout_s: float = 5.0
    max_request_bytes: int = 1536 * 1024
    max_txn_ops: int = 128
    quota_bytes: int = 2 * 1024**3
    compaction_mode: str = "periodic"
    compaction_retention: float = 0.0
    snapshot_count: int = 10_000
    catch_up_entries: int = CATCH_UP_ENTRIES
    catch_up_entries_max: int = CATCH_UP_ENTRIES_MAX
    """How much of the log is kept in memory for members that lag behind, and at most for one that is being served."""
    client_records_max: int = CLIENT_RECORDS_MAX
    progress_interval_s: float = WATCH_PROGRESS_INTERVAL_S_DEFAULT

    @members.default
    def _alone(self) -> tuple[Member, ...]:
        return (Member(self.member_id, self.name, self.peer_urls, self.client_urls),)

    @property
    def initial_configuration(self) -> Configuration | None:
        """Who votes before there is a cluster; None for a member that joined one."""
        if self.is_joining:
            return None
        return Configuration(frozenset(member.id for member in self.members))

    @property
    def first_number(self) -> int:
        """Frames, read rounds and calls are numbered above this, so that no number is used twice in all boots."""
        return self.boot << _FRAME_BITS

    @property
    def tick_s(self) -> float:
        """The length of Raft's tick."""
        return self.heartbeat_s / TICKS_PER_HEARTBEAT


class PeerMemory(Protocol):
    """Who the other members are, on disk (S1)."""

    @property
    def peers(self) -> Mapping[int, Triple]:
        """Their incarnation, boot and nonce by member."""

    def remember_peer(self, member: int, incarnation: int, boot: int, nonce: int) -> None:
        """Make them durable; blocks for one small write."""


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
    snapshot_worker: Worker
    network: Network
    memory: PeerMemory
    disk: Disk
    snapshots: Path
    """The directory for snapshot files."""
    chance: random.Random
    """For pauses between tries; what must not be guessed comes from `new_id`."""
    observe_sync: Callable[[float], None] = lambda took_s: None
    observe_commit: Callable[[float], None] = lambda took_s: None
    owed_s: Callable[[], float] = lambda: 0.0
    """See `Courtesy`; for long work on the loop."""
