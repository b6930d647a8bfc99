"""Applying writes: each alone, in order, with its own revision; none can end a node (S15)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import define, field

from coord import errors
from coord.codec import NULL, encode
from coord.errors import ApiError, Code, FenceLost, NodeError
from coord.mvcc.applied import Answer, Applied
from coord.mvcc.backend import Backend, Table
from coord.mvcc.clients import ClientRecord, ClientTable, digest, error_answer, expired, number_without_client
from coord.mvcc.cluster import ID_KEY, ClusterState
from coord.mvcc.txn import Transactions, has_put
from coord.mvcc.writes import Writer
from coord.protocol.check import check_body, check_write, plain_puts
from coord.protocol.entries import WritesHeader
from coord.protocol.ops import Op, Settled

_PUT: Final = int(Op.PUT)
_TXN: Final = int(Op.TXN)
_ALARM: Final = int(Op.ALARM)
_REVOKE: Final = int(Op.LEASE_REVOKE)
_COMPACT: Final = int(Op.COMPACT)
_NO_HEADER: Final = WritesHeader(0, 0, 0, 0, "", 0, {})


@define
class Frame:
    """The entry that is being applied, and the write of it that is."""

    applied: Applied
    header: WritesHeader
    position: int = 0


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
    _handlers: dict[int, Callable[[Frame, Any], bytes]] = field(init=False)

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

    def apply(self, applied: Applied, header: WritesHeader, writes: Any) -> None:
        """Apply the decoded body of an entry; one answer for each of its writes goes to `applied`."""
        try:
            check_body(writes)
        except ApiError as error:
            count = len(writes) if type(writes) is list else 0
            applied.outcomes += [error_answer(self.writer.revision, error)] * count
            return
        frame = Frame(applied, header)
        outcomes = applied.outcomes
        client = header.client
        record = self.clients.use(client, header.low, applied.index) if client else None
        position = 0
        while (position := self._apply_puts(frame, writes, position, record)) < len(writes):
            write = writes[position]
            frame.position = position
            position += 1
            if record is not None:
                outcomes.append(self._apply_once(frame, write, record))
            elif client:
                # S17: a client without a record may be one whose record was evicted; applying could apply twice.
                outcomes.append(error_answer(self.writer.revision, expired()))
            elif write[0]:
                outcomes.append(error_answer(self.writer.revision, number_without_client()))
            else:
                outcomes.append(self._apply_write(frame, write))

    def _apply_puts(self, frame: Frame, writes: list[Any], start: int, record: ClientRecord | None) -> int:
        """Apply the plain puts from `start` on whose numbers are new, all at once; return the position behind them.

        They need no draft and no digest, and what holds for the frame is judged once. Whatever may be refused, or was
        answered before, is left to the judgement of each write by itself.
        """
        header, cluster = frame.header, self.cluster
        if header.settled or cluster.no_space or cluster.corrupt:
            return start
        end = plain_puts(writes, start)
        if record is None:
            if header.client or any(write[0] for write in writes[start:end]):
                return start
        elif start < end:
            end = record.new_until(writes, start, end)
        if start == end:
            return start
        run = self.writer.put_each([write[3] for write in writes[start:end]], writes[start][0])
        if record is not None:
            record.keep_puts(run)
        frame.applied.outcomes.append(run)
        frame.applied.changes.append(run)
        self.applied_by_op[_PUT] += len(run.records)
        return start + len(run.records)

    def expire(self, applied: Applied, seen_index: int, leases: list[int]) -> None:
        """Revoke the leases of an expiry entry, each in its own revision; those that are gone do not matter.

        S22: the proposer judged what it had applied at `seen_index`. A lease that was revoked and granted anew since,
        under the same id, is another one, whose time has not come.
        """
        frame = Frame(applied, _NO_HEADER)
        for lease in leases:
            if self.writer.leases.existed_at(lease, seen_index):
                self._apply_write(frame, [0, _REVOKE, None, [lease]])

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

    def _apply_once(self, frame: Frame, write: list[Any], record: ClientRecord) -> Answer:
        """Apply a numbered write, or answer what its number got before (S18)."""
        number, op, guard, arguments = write
        fingerprint = digest(op, guard, arguments)
        known = record.recall(number, fingerprint)
        if known is None:
            answer = self._apply_write(frame, write)
            record.keep(number, fingerprint, answer, is_txn=op == _TXN)
            return answer
        if isinstance(known, ApiError):
            return error_answer(self.writer.revision, known)
        answer = known[1]
        if op == _COMPACT and answer[1] and _is_physical(arguments):
            # The rows may not be gone yet: who asks another member meanwhile waits there.
            frame.applied.physical.append(frame.position)
        return answer

    def _apply_write(self, frame: Frame, write: list[Any]) -> Answer:
        """Run a write in a draft of its own: all of it stands, or nothing."""
        writer = self.writer
        header = frame.header
        try:
            # S15: what the proposer refused stays refused; the rest meets the same check that ran at the edge.
            if header.settled and (settled := header.settled.get(frame.position)) and settled[0] == Settled.REFUSED:
                raise ApiError.from_wire(settled[1])
            refusal = check_write(write, header.max_txn_ops)
            if refusal is not None:
                raise refusal
            _, op, guard, arguments = write
            if self.cluster.corrupt and op != _ALARM:
                raise errors.corrupt()
            if guard is not None:
                self._check_guard(guard)
            payload = self._handlers[op](frame, arguments)
        except ApiError as error:
            writer.rollback()
            return error_answer(writer.revision, error)
        except (NodeError, MemoryError):
            raise
        except Exception as error:
            # S15: a mistake in pure code is the same on all members, and must not end them all.
            writer.rollback()
            return self._raised(frame, type(error).__name__)
        self.applied_by_op[op] += 1
        events = writer.commit()
        if events:
            frame.applied.changes.append((writer.revision, events))
        return writer.revision, True, payload

    def _raised(self, frame: Frame, error: str) -> Answer:
        applied = frame.applied
        note = {"index": applied.index, "position": frame.position, "error": error}
        applied.notes.append(("apply.write.raised", note))
        text = f"coord: applying this write raised {error}; nothing was changed"
        return error_answer(self.writer.revision, ApiError(text, code=Code.INTERNAL))

    def _check_guard(self, guard: list[Any]) -> None:
        # S27: judged before the compares, so that a lost fence runs no branch, not even the failure one.
        key, create = guard
        state = self.writer.index.state(key)
        if state is None or state[2] != create:
            raise FenceLost(f"coord: fence lost: the key no longer has create revision {create}", key, create)

    def _put(self, frame: Frame, arguments: list[Any]) -> bytes:
        if self.cluster.no_space:
            raise errors.no_space()
        if len(arguments) == 2:
            self.writer.put(arguments[0], arguments[1], 0)
            return NULL
        return self.transactions.put(arguments)

    def _delete(self, frame: Frame, arguments: list[Any]) -> bytes:
        return self.transactions.delete(arguments)

    def _txn(self, frame: Frame, arguments: list[Any]) -> bytes:
        if self.cluster.no_space and has_put(arguments):
            raise errors.no_space()
        return self.transactions.apply(arguments)

    def _compact(self, frame: Frame, arguments: list[Any]) -> bytes:
        revision = arguments[0]
        cluster = self.cluster
        if revision <= cluster.compact_revision:
            raise errors.compacted(cluster.compact_revision)
        if revision > self.writer.revision:
            raise errors.future_revision()
        cluster.compact_revision = revision
        frame.applied.compacted = revision
        if _is_physical(arguments):
            frame.applied.physical.append(frame.position)
        return NULL

    def _grant(self, frame: Frame, arguments: list[Any]) -> bytes:
        if self.cluster.no_space:
            raise errors.no_space()
        settled = frame.header.settled.get(frame.position)
        if settled is not None and settled[0] == Settled.LEASE:
            lease, ttl_s = settled[1], settled[2]
        else:
            ttl_s, lease = max(arguments[0], 1), arguments[1] if len(arguments) > 1 else 0
        leases = self.writer.leases
        if not lease:
            raise errors.lease_not_found()
        if lease in leases:
            raise errors.lease_exists()
        leases.grant(lease, ttl_s, frame.applied.index)
        self._put_lease(lease)
        frame.applied.leases_granted.append((lease, ttl_s))
        return encode([lease, ttl_s])

    def _revoke(self, frame: Frame, arguments: list[Any]) -> bytes:
        lease = arguments[0]
        if lease not in self.writer.leases:
            raise errors.lease_not_found()
        for key in self.writer.leases.keys(lease):
            self.writer.delete(key)
        self.writer.leases.revoke(lease)
        self.backend.put_row(Table.LEASES, ID_KEY.pack(lease), None)
        frame.applied.leases_revoked.append(lease)
        return NULL

    def _register(self, frame: Frame, arguments: list[Any]) -> bytes:
        # S17: the entry's index is an id that is never used again.
        self.clients.register(frame.applied.index)
        return encode(frame.applied.index)

    def _alarm(self, frame: Frame, arguments: list[Any]) -> bytes:
        changed = self.cluster.change_alarm(self.backend, *arguments)
        frame.applied.alarms_changed = True
        return encode([list(alarm) for alarm in changed])


def _is_physical(arguments: list[Any]) -> bool:
    """Tell whether a compaction is to be answered when its rows are gone."""
    return len(arguments) > 1 and arguments[1] is True
