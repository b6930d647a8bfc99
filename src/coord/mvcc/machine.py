"""The replicated state machine: entries in, answers and events out (S15).

Apply is total and blind: the same entries give the same state, answers and events on every member, whatever its
clock, flags or load. What a member must keep goes through the backend.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

from attrs import define, field

from coord.codec import decode_trusted, encode
from coord.errors import DecodeError, InvalidArgument, NodeError
from coord.mvcc.applied import Applied, RawEvent
from coord.mvcc.apply import WriteApplier
from coord.mvcc.backend import Backend, Position, Table
from coord.mvcc.clients import ClientTable
from coord.mvcc.cluster import ID_KEY, Alarm, ClusterState
from coord.mvcc.compaction import dead_positions, hash_steps
from coord.mvcc.history import load_records, read_history
from coord.mvcc.index import KeyIndex
from coord.mvcc.leases import LeaseTable
from coord.mvcc.ranges import RangeReader, RangeSteps
from coord.mvcc.txn import Transactions, all_serializable, only_ranges
from coord.mvcc.writes import Writer
from coord.protocol.check import check_txn
from coord.protocol.entries import Member, Roster, decode_entry, read_writes
from coord.protocol.ops import EntryKind
from coord.protocol.ranges import RangeRequest

_META: Final = b"machine"
"""The one row of what changes with nearly every entry; its last items may be missing in older stores."""


@define
class StateMachine:
    """All replicated state of a member, over the backend that keeps it."""

    backend: Backend
    applied_index: int = 0
    applied_term: int = 0
    index: KeyIndex = field(factory=KeyIndex)
    _leases: LeaseTable = field(factory=LeaseTable)
    _clients: ClientTable = field(factory=ClientTable)
    _cluster: ClusterState = field(factory=ClusterState)
    _writer: Writer = field(init=False)
    _ranges: RangeReader = field(init=False)
    _transactions: Transactions = field(init=False)
    _writes: WriteApplier = field(init=False)
    _meta: bytes = b""
    _kinds: dict[int, Callable[[Applied, int, Any, bytes], None]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        cluster = self._cluster
        self._writer = Writer(self.backend, self.index, self._leases)
        self._ranges = RangeReader(self.index, self._writer.read_many, cluster.floor)
        self._transactions = Transactions(self._writer, self._ranges, cluster.floor)
        self._writes = WriteApplier(self.backend, self._writer, self._transactions, self._clients, cluster)
        self._kinds = {
            EntryKind.NOOP: self._apply_nothing,
            EntryKind.WRITES: self._apply_writes,
            EntryKind.EXPIRY: self._apply_expiry,
            EntryKind.ALARM: self._apply_alarm,
            EntryKind.MEMBERS: self._apply_members,
            EntryKind.CLUSTER: self._apply_cluster,
            EntryKind.CHECKPOINT: self._apply_checkpoint,
            EntryKind.CLUSTER_VERSION: self._apply_version,
        }

    @property
    def revision(self) -> int:
        """The revision of the store."""
        return self._writer.revision

    @property
    def compact_revision(self) -> int:
        """The lowest revision that can be read; `NEVER_COMPACTED` at first."""
        return self._cluster.compact_revision

    @property
    def cluster_id(self) -> int:
        """The cluster, or 0 before its first entry."""
        return self._cluster.cluster_id

    @property
    def members(self) -> dict[int, Member]:
        """The members by id; not to be changed."""
        return self._cluster.members

    @property
    def outgoing(self) -> frozenset[int]:
        """The old voters while two configurations are joint, else nothing."""
        return self._cluster.outgoing

    @property
    def removed(self) -> frozenset[int]:
        """The ids that never return (S1); one that is among the members too is about to leave."""
        return self._cluster.removed

    @property
    def alarms(self) -> set[Alarm]:
        """The alarms that are on, as `(member, alarm)`; not to be changed."""
        return self._cluster.alarms

    @property
    def version(self) -> int:
        """The cluster version: no entry kind newer than it is proposed."""
        return self._cluster.version

    @property
    def applied_by_op(self) -> list[int]:
        """How many writes of each op were applied since the start: for metrics, no part of the state."""
        return self._writes.applied_by_op

    @property
    def key_count(self) -> int:
        """How many keys the index holds, deleted ones that are not compacted included."""
        return len(self.index)

    @property
    def client_count(self) -> int:
        """How many clients are registered."""
        return len(self._clients)

    def load(self) -> Generator[None, None, None]:
        """Rebuild from the backend, yielding every few thousand records; call it once, before anything else."""
        for _, row in self.backend.rows(Table.META):
            self._meta = row
            self._load_meta(*decode_trusted(row))
        self._cluster.load(self.backend)
        for key, row in self.backend.rows(Table.LEASES):
            self._leases.load(ID_KEY.unpack(key)[0], decode_trusted(row))
        self._clients.load([(ID_KEY.unpack(key)[0], row) for key, row in self.backend.rows(Table.CLIENTS)])
        yield from load_records(self.backend, self.index, self._leases, self.revision)

    def reload(self) -> Generator[None, None, None]:
        """Forget everything and rebuild as `load` does: the backend holds another state now, that of a snapshot (S6).

        Until the last step is taken nothing else may be asked of the machine.
        """
        self.applied_index = self.applied_term = 0
        self.index = KeyIndex()
        self._leases, self._clients, self._cluster = LeaseTable(), ClientTable(), ClusterState()
        self._meta = b""
        self.__attrs_post_init__()
        yield from self.load()

    def flush_rows(self) -> None:
        """Write the rows that changed since the last call; call it before each seal, so that a busy row costs once."""
        for client, row in self._clients.take_dirty():
            self.backend.put_row(Table.CLIENTS, ID_KEY.pack(client), row)
        cluster = self._cluster
        meta = encode(
            [
                self.applied_index,
                self.applied_term,
                # The revision is stored: compaction may leave no record that tells it.
                self.revision,
                cluster.compact_revision,
                cluster.cluster_id,
                cluster.version,
                self._clients.maximum,
            ]
        )
        if meta != self._meta:
            self._meta = meta
            self.backend.put_row(Table.META, _META, meta)

    def apply(self, index: int, term: int, data: bytes, *, entry: tuple[int, Any, Any] | None = None) -> Applied:
        """Apply a committed entry; indexes come in order, each once.

        `entry` spares the decoding where the node still has it: `(kind, header, body)`, for writes the `WritesHeader`
        and the frames, both of exactly these bytes. Raises `NodeError` for an entry that this release cannot
        read: going on would make this member differ from the others.
        """
        if entry is None:
            try:
                kind, header, body = decode_entry(data)
            except DecodeError as error:
                raise NodeError(f"entry {index}: {error}") from error
            if kind == EntryKind.WRITES:
                header, body = read_writes(header, body)
        else:
            kind, header, body = entry
        handler = self._kinds.get(kind)
        if handler is None:
            raise NodeError(f"entry {index} has kind {kind}, which this release does not know: upgrade first")
        applied = Applied(index, kind)
        handler(applied, term, header, body)
        self.applied_index = index
        self.applied_term = term
        return applied

    def get(self, key: bytes) -> bytes | None:
        """Return the newest record of a key, or None: the fast path of a read."""
        position = self.index.current(key)
        return None if position is None else self.backend.read(*position)

    def range(self, request: RangeRequest) -> RangeSteps:
        """Return the steps of a range read, pinned to the revision of this moment; see `RangeReader.steps`.

        Raises `compacted` and `future_revision`, at once or in a later step.
        """
        return self._ranges.steps(request, self._ranges.pin(request, self.revision))

    def read_txn(self, arguments: Any, max_txn_ops: int) -> tuple[Callable[[], bytes], bool]:
        """Return what serves a transaction of ranges alone, and whether all of them are serializable.

        A transaction that only compares is linearizable. Raises `ApiError` for one that is malformed or writes.
        """
        check_txn(arguments, max_txn_ops)
        if not only_ranges(arguments):
            raise InvalidArgument("coord: a transaction that writes must be sent as a write")
        return lambda: self._transactions.apply(arguments), all_serializable(arguments)

    def history(self, first: int, last: int) -> Iterator[tuple[int, list[RawEvent]]]:
        """Yield the events of each revision in `first … last` that has any, as when they were applied.

        To be used up at once. Below the compacted revision events are missing; callers check it first.
        """
        return read_history(self.backend, self.index, first, last)

    def hash_kv(self, revision: int) -> Generator[None, None, tuple[int, int]]:
        """Return the steps that make `(hash, compact_revision)` at a revision; see `compaction.hash_steps`."""
        return hash_steps(self.index, self.backend, revision, self._cluster.floor)

    def compaction_steps(self) -> Generator[list[Position], None, None]:
        """Return the steps of physical compaction up to the compacted revision; see `compaction.dead_positions`."""
        return dead_positions(self.index, self.compact_revision)

    def leases(self) -> Iterator[tuple[int, int]]:
        """Yield `(lease, ttl_s)` for all leases, by id."""
        for lease in self._leases:
            yield lease, self.lease_ttl(lease)

    def lease_ttl(self, lease: int) -> int:
        """Return the granted TTL in seconds, or 0 if there is no such lease."""
        return self._leases.ttl_s(lease) or 0

    def lease_remaining_ms(self, lease: int) -> int:
        """Return what was left of a lease when a leader last checkpointed it, or 0 if no checkpoint stands (S23)."""
        return self._leases.remaining_ms(lease)

    def lease_keys(self, lease: int) -> list[bytes]:
        """Return the keys attached to a lease, in order."""
        return self._leases.keys(lease)

    def _apply_nothing(self, applied: Applied, term: int, header: Any, body: Any) -> None:
        """A new leader's first entry changes nothing."""

    def _apply_writes(self, applied: Applied, term: int, header: Any, body: Any) -> None:
        applied.origin, applied.number = header.origin, header.number
        self._writes.apply(applied, header.max_txn_ops, body)

    def _apply_expiry(self, applied: Applied, term: int, header: Any, body: Any) -> None:
        proposed_in, seen_index, leases = decode_trusted(body)
        # S22: an expiry is void in another term, in which the lease may have been renewed.
        if proposed_in == term:
            self._writes.expire(applied, seen_index, leases)

    def _apply_checkpoint(self, applied: Applied, term: int, header: Any, body: Any) -> None:
        proposed_in, seen_index, checkpoints = decode_trusted(body)
        # S23: void in another term, whose leader may have acknowledged a renewal that the proposer knew nothing of.
        if proposed_in == term:
            self._writes.checkpoint(applied, seen_index, checkpoints)

    def _apply_alarm(self, applied: Applied, term: int, header: Any, body: Any) -> None:
        self._cluster.change_alarm(self.backend, *decode_trusted(body))
        applied.alarms_changed = True

    def _apply_members(self, applied: Applied, term: int, header: Any, body: Any) -> None:
        # S15: total and blind. The leader settled the whole, and S12 keeps two of them from being under way at once.
        self._cluster.set_roster(Roster.from_wire(decode_trusted(body)), self.backend)
        applied.members_changed = True

    def _apply_cluster(self, applied: Applied, term: int, header: Any, body: Any) -> None:
        cluster_id, maximum, members = decode_trusted(body)
        if self.cluster_id:
            return  # S1: the first one that is committed makes the cluster
        self._cluster.cluster_id = cluster_id
        self._clients.maximum = maximum
        known = Roster(tuple(Member.from_wire(member) for member in members))
        self._cluster.set_roster(known, self.backend)
        applied.members_changed = True

    def _apply_version(self, applied: Applied, term: int, header: Any, body: Any) -> None:
        (version,) = decode_trusted(body)
        self._cluster.version = max(self.version, version)

    def _load_meta(
        self,
        index: int,
        term: int,
        revision: int,
        compact_revision: int,
        cluster_id: int,
        version: int,
        maximum: int,
    ) -> None:
        self.applied_index, self.applied_term = index, term
        self._writer.revision = revision
        self._cluster.compact_revision = compact_revision
        self._cluster.cluster_id = cluster_id
        self._cluster.version = version
        self._clients.maximum = maximum
