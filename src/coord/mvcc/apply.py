"""Applying writes: each alone, in order, with its own revision; none can end a node (S15).

An entry holds frames of many clients. Most hold a run of plain puts; those that follow each other go into the store
together, since most of what one put costs can be shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from attrs import define, field

from coord import errors
from coord.codec import NULL, encode
from coord.errors import ApiError, Code, FenceLost, NodeError
from coord.limits import ANSWER_BYTES_KEPT
from coord.mvcc.applied import Answer, Applied
from coord.mvcc.backend import Backend, Table
from coord.mvcc.clients import ClientRecord, ClientTable, error_answer, expired, number_without_client
from coord.mvcc.cluster import ID_KEY, ClusterState
from coord.mvcc.txn import Transactions, has_put
from coord.mvcc.writes import Writer
from coord.protocol.bodies import check_body, is_run, writes_of
from coord.protocol.check import check_write
from coord.protocol.entries import Frame
from coord.protocol.ops import Op, Settled

_PUT: Final = int(Op.PUT)
_TXN: Final = int(Op.TXN)
_ALARM: Final = int(Op.ALARM)
_REVOKE: Final = int(Op.LEASE_REVOKE)
_COMPACT: Final = int(Op.COMPACT)


@define
class Current:
    """The entry that is being applied: what its proposer settled for the write that is, and what waits before it."""

    applied: Applied
    max_txn_ops: int = 0
    settled: tuple[Any, ...] | None = None
    is_checked: bool = False
    is_large: bool = False
    """The frame of what is applied now has more than a KiB."""
    keys: list[bytes] = field(factory=list)
    values: list[bytes] = field(factory=list)
    """What runs that follow each other put, and waits to be applied at once."""
    runs: list[tuple[ClientRecord | None, int, int]] = field(factory=list)
    """Whose they are, the number of the first put, and how many there are."""
    clients: set[int] = field(factory=set)
    """Those of them that are registered."""


@define
class WriteApplier:
    """Judges and applies the writes of an entry. What changes keys goes through `writer`, as one draft a write."""

    backend: Backend
    writer: Writer
    transactions: Transactions
    clients: ClientTable
    cluster: ClusterState
    applied_by_op: list[int] = field(factory=lambda: [0] * (max(Op) + 1))
    """How many writes of each op were applied since the start: for metrics, no part of the state."""
    _handlers: dict[int, Callable[[Current, Any], bytes]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._handlers = {
            int(Op.PUT): self._put,
            int(Op.DELETE_RANGE): self._delete,
            int(Op.TXN): self._txn,
            _COMPACT: self._compact,
            int(Op.LEASE_GRANT): self._grant,
            int(Op.LEASE_REVOKE): self._revoke,
            int(Op.REGISTER): self._register,
            int(Op.ALARM): self._alarm,
        }

    def apply(self, applied: Applied, max_txn_ops: int, frames: Iterable[Frame]) -> None:
        """Apply the frames of an entry; one answer for each of their writes goes to `applied`, in order."""
        current = Current(applied, max_txn_ops)
        for place, frame in enumerate(frames):
            if frame.client in current.clients:
                # S18: what this frame closes or repeats must be on record.
                self._apply_puts(current)
            self._apply_frame(current, place, frame)
        self._apply_puts(current)

    def _apply_frame(self, current: Current, place: int, frame: Frame) -> None:
        """Apply a frame, but for a run of which nothing can be refused: that waits for those behind it."""
        applied, client, body = current.applied, frame.client, frame.decoded
        try:
            count = check_body(body)
        except ApiError as error:
            self._apply_puts(current)
            count = len(body) if type(body) is list else 0
            applied.outcomes += [error_answer(self.writer.revision, error)] * count
            return
        record = self.clients.use(client, frame.low, (applied.index, place)) if client else None
        if is_run(body) and self._takes_all(frame, record, count):
            current.keys += body[1::2]
            current.values += body[2::2]
            current.runs.append((record, body[0], count))
            if client:
                current.clients.add(client)
            return
        self._apply_puts(current)
        current.is_checked, current.is_large = frame.is_checked, len(frame.body) > ANSWER_BYTES_KEPT
        for position, write in enumerate(writes_of(body)):
            current.settled = frame.settled.get(position)
            applied.outcomes.append(self._apply_one(current, write, client, record))

    def _takes_all(self, frame: Frame, record: ClientRecord | None, count: int) -> bool:
        """Tell whether all of a run can be applied for certain, and all is new: it needs no draft and no digest.

        Whatever may be refused, or was answered before, is left to the judgement of each write by itself.
        """
        if frame.settled or self.cluster.no_space or self.cluster.corrupt:
            return False
        first = frame.decoded[0]
        if record is None:
            return not frame.client and not first
        return record.are_new(first, first + count)

    def _apply_puts(self, current: Current) -> None:
        """Apply the puts that wait."""
        applied, keys, values, runs = current.applied, current.keys, current.values, current.runs
        if not runs:
            return
        current.keys, current.values, current.runs = [], [], []
        current.clients.clear()
        run = self.writer.put_each(keys, values)
        applied.outcomes.append(run)
        applied.changes.append(run)
        done = len(run.records)
        self.applied_by_op[_PUT] += done
        start = 0
        for record, number, count in runs:
            end = start + count
            if record is not None:
                record.keep_puts(number, run, start, min(end, done))
            # Nothing, unless pure code has raised: from the write at fault on each is judged by itself.
            for place in range(max(start, done), end):
                current.settled = None
                put = [number and number + place - start, _PUT, None, [keys[place], values[place]]]
                applied.outcomes.append(self._apply_one(current, put, 0, record))
            start = end

    def _apply_one(self, current: Current, write: list[Any], client: int, record: ClientRecord | None) -> Answer:
        if record is not None:
            return self._apply_once(current, write, record)
        if client:
            # S17: a client without a record may be one whose record was evicted; applying could apply twice.
            return error_answer(self.writer.revision, expired())
        if write[0]:
            return error_answer(self.writer.revision, number_without_client())
        return self._apply_write(current, write)

    def expire(self, applied: Applied, seen_index: int, leases: list[int]) -> None:
        """Revoke the leases of an expiry entry, each in its own revision; those that are gone do not matter.

        S22: the proposer judged what it had applied at `seen_index`. A lease that was revoked and granted anew since,
        under the same id, is another one, whose time has not come.
        """
        current = Current(applied)
        for lease in leases:
            if self.writer.leases.existed_at(lease, seen_index):
                self._apply_write(current, [0, _REVOKE, None, [lease]])

    def checkpoint(self, applied: Applied, seen_index: int, checkpoints: list[list[int]]) -> None:
        """Note what is left of leases, `[lease, remaining_ms]` each; those that are gone or granted anew do not matter.

        S23: no client's write, and so no alarm stands against it: without the entry that clears a checkpoint nobody
        could be told that the lease was renewed.
        """
        leases = self.writer.leases
        for lease, remaining_ms in checkpoints:
            if leases.existed_at(lease, seen_index):
                leases.checkpoint(lease, remaining_ms)
                self._put_lease(lease)
                applied.leases_checkpointed.append((lease, remaining_ms))

    def _put_lease(self, lease: int) -> None:
        self.backend.put_row(Table.LEASES, ID_KEY.pack(lease), encode(self.writer.leases.row(lease)))

    def _apply_once(self, current: Current, write: list[Any], record: ClientRecord) -> Answer:
        """Apply a numbered write, or answer what its number got before (S18)."""
        known = record.recall(write)
        if known is None:
            answer = self._apply_write(current, write)
            record.keep(write, answer, is_txn=write[1] == _TXN, is_large=current.is_large)
            return answer
        if isinstance(known, ApiError):
            return error_answer(self.writer.revision, known)
        if write[1] == _COMPACT and known[1] and _is_physical(write[3]):
            # The rows may not be gone yet: who asks another member meanwhile waits there.
            current.applied.physical.append(len(current.applied.answers))
        return known

    def _apply_write(self, current: Current, write: list[Any]) -> Answer:
        """Run a write in a draft of its own: all of it stands, or nothing."""
        writer = self.writer
        settled = current.settled
        try:
            # S15: what the proposer refused stays refused; the rest meets the same check that ran at the edge.
            if settled is not None and settled[0] == Settled.REFUSED:
                raise ApiError.from_wire(settled[1])
            # Where it was proposed that check has just been passed; it is the same on all members.
            if not current.is_checked:
                refusal = check_write(write, current.max_txn_ops)
                if refusal is not None:
                    raise refusal
            _, op, guard, arguments = write
            if self.cluster.corrupt and op != _ALARM:
                raise errors.corrupt()
            if guard is not None:
                self._check_guard(guard)
            payload = self._handlers[op](current, arguments)
        except ApiError as error:
            writer.rollback()
            return error_answer(writer.revision, error)
        except (NodeError, MemoryError):
            raise
        except Exception as error:
            # S15: a mistake in pure code is the same on all members, and must not end them all.
            writer.rollback()
            return self._raised(current, type(error).__name__)
        self.applied_by_op[op] += 1
        events = writer.commit()
        if events:
            current.applied.changes.append((writer.revision, events))
        return writer.revision, True, payload

    def _raised(self, current: Current, error: str) -> Answer:
        applied = current.applied
        note = {"index": applied.index, "position": len(applied.answers), "error": error}
        applied.notes.append(("apply.write.raised", note))
        text = f"coord: applying this write raised {error}; nothing was changed"
        return error_answer(self.writer.revision, ApiError(text, code=Code.INTERNAL))

    def _check_guard(self, guard: list[Any]) -> None:
        # S27: judged before the compares, so that a lost fence runs no branch, not even the failure one.
        key, create = guard
        state = self.writer.index.state(key)
        if state is None or state[2] != create:
            raise FenceLost(f"coord: fence lost: the key no longer has create revision {create}", key, create)

    def _put(self, current: Current, arguments: list[Any]) -> bytes:
        if self.cluster.no_space:
            raise errors.no_space()
        if len(arguments) == 2:
            self.writer.put(arguments[0], arguments[1], 0)
            return NULL
        return self.transactions.put(arguments)

    def _delete(self, current: Current, arguments: list[Any]) -> bytes:
        return self.transactions.delete(arguments)

    def _txn(self, current: Current, arguments: list[Any]) -> bytes:
        if self.cluster.no_space and has_put(arguments):
            raise errors.no_space()
        return self.transactions.apply(arguments)

    def _compact(self, current: Current, arguments: list[Any]) -> bytes:
        revision = arguments[0]
        cluster = self.cluster
        if revision <= cluster.compact_revision:
            raise errors.compacted(cluster.compact_revision)
        if revision > self.writer.revision:
            raise errors.future_revision()
        cluster.compact_revision = revision
        applied = current.applied
        applied.compacted = revision
        if _is_physical(arguments):
            applied.physical.append(len(applied.answers))
        return NULL

    def _grant(self, current: Current, arguments: list[Any]) -> bytes:
        if self.cluster.no_space:
            raise errors.no_space()
        settled = current.settled
        if settled is not None and settled[0] == Settled.LEASE:
            lease, ttl_s = settled[1], settled[2]
        else:
            ttl_s, lease = max(arguments[0], 1), arguments[1] if len(arguments) > 1 else 0
        leases = self.writer.leases
        if not lease:
            raise errors.lease_not_found()
        if lease in leases:
            raise errors.lease_exists()
        leases.grant(lease, ttl_s, current.applied.index)
        self._put_lease(lease)
        current.applied.leases_granted.append((lease, ttl_s))
        return encode([lease, ttl_s])

    def _revoke(self, current: Current, arguments: list[Any]) -> bytes:
        lease = arguments[0]
        if lease not in self.writer.leases:
            raise errors.lease_not_found()
        for key in self.writer.leases.keys(lease):
            self.writer.delete(key)
        self.writer.leases.revoke(lease)
        self.backend.put_row(Table.LEASES, ID_KEY.pack(lease), None)
        current.applied.leases_revoked.append(lease)
        return NULL

    def _register(self, current: Current, arguments: list[Any]) -> bytes:
        # S17: the entry's index is an id that is never used again.
        client = current.applied.index
        if current.applied.answers:
            raise errors.InvalidArgument("coord: register must be alone in its entry")
        self.clients.register(client)
        return encode(client)

    def _alarm(self, current: Current, arguments: list[Any]) -> bytes:
        changed = self.cluster.change_alarm(self.backend, *arguments)
        current.applied.alarms_changed = True
        return encode([list(alarm) for alarm in changed])


def _is_physical(arguments: list[Any]) -> bool:
    """Tell whether a compaction is to be answered when its rows are gone."""
    return len(arguments) > 1 and arguments[1] is True
