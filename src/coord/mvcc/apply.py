"""Applying writes: each alone, in order, with its own revision; none can end a node (S15)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from attrs import define, field

from coord import errors
from coord.codec import NULL, encode
from coord.errors import ApiError, Code, FenceLost, NodeError
from coord.mvcc.applied import Answer, Applied
from coord.mvcc.backend import Backend, Table
from coord.mvcc.clients import ClientRecord, ClientTable, check_number, digest, error_answer, expired
from coord.mvcc.cluster import ID_KEY, ClusterState
from coord.mvcc.txn import Transactions, has_put
from coord.mvcc.writes import Writer
from coord.protocol.check import check_body, check_write
from coord.protocol.entries import WritesHeader
from coord.protocol.ops import Op, Settled

_TXN: Final = int(Op.TXN)
_ALARM: Final = int(Op.ALARM)
_TRUE: Final = 0xF5


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
    _handlers: dict[int, Callable[[Frame, Any], bytes]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._handlers = {
            int(Op.PUT): self._put,
            int(Op.DELETE_RANGE): self._delete,
            int(Op.TXN): self._txn,
            int(Op.COMPACT): self._compact,
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
            applied.answers = [error_answer(self.writer.revision, error)] * count
            return
        frame = Frame(applied, header)
        answers = applied.answers
        client = header.client
        if not client:
            for position, write in enumerate(writes):
                frame.position = position
                if write[0]:
                    answers.append(error_answer(self.writer.revision, check_number(0, write[0]) or expired()))
                else:
                    answers.append(self._apply_write(frame, write))
            return
        record = self.clients.use(client, header.low, applied.index)
        for position, write in enumerate(writes):
            frame.position = position
            if record is None:
                # S17: a client without a record may be one whose record was evicted; applying could apply twice.
                answers.append(error_answer(self.writer.revision, expired()))
            else:
                answers.append(self._apply_once(frame, write, record))

    def expire(self, applied: Applied, leases: list[int]) -> None:
        """Revoke the leases of an expiry entry, each in its own revision."""
        for lease in leases:
            if lease in self.writer.leases and not self.cluster.corrupt:
                self._guarded(applied, 0, partial(self._revoke_lease, applied, lease))

    def _apply_once(self, frame: Frame, write: list[Any], record: ClientRecord) -> Answer:
        """Apply a numbered write, or answer what its number got before (S18)."""
        number = write[0]
        revision = self.writer.revision
        refusal = check_number(frame.header.client, number)
        if refusal is not None:
            return error_answer(revision, refusal)
        fingerprint = digest(write[1], write[2], write[3])
        known = record.recall(number, fingerprint)
        if known is None:
            answer = self._apply_write(frame, write)
            # What grew past the limit keeps its outcome: a txn's is the first item of its result.
            succeeded = answer[1] and (write[1] != _TXN or answer[2][1] == _TRUE)
            record.keep(number, fingerprint, answer, succeeded=succeeded)
            return answer
        if isinstance(known, ApiError):
            return error_answer(revision, known)
        return known[1:]

    def _apply_write(self, frame: Frame, write: list[Any]) -> Answer:
        # S15: the refusal of the proposer first, then the same check that ran at the edge.
        header = frame.header
        refusal: ApiError | None = None
        if header.settled:
            settled = header.settled.get(frame.position)
            if settled is not None and settled[0] == Settled.REFUSED:
                return self.writer.revision, False, NULL + encode(settled[1])
        refusal = check_write(write, header.max_txn_ops)
        if refusal is not None:
            return error_answer(self.writer.revision, refusal)
        return self._guarded(frame.applied, frame.position, partial(self._execute, frame, write))

    def _guarded(self, applied: Applied, position: int, change: Callable[[], bytes]) -> Answer:
        """Run a change in a draft of its own: all of it stands, or nothing."""
        writer = self.writer
        try:
            payload = change()
        except ApiError as error:
            writer.rollback()
            return error_answer(writer.revision, error)
        except (NodeError, MemoryError):
            raise
        except Exception as error:
            # S15: a mistake in pure code is the same on all members, and must not end them all.
            writer.rollback()
            name = type(error).__name__
            note = {"index": applied.index, "position": position, "error": name}
            applied.notes.append(("apply.write.raised", note))
            answer = ApiError(
                f"coord: applying this write raised {name}; nothing was changed", code=Code.INTERNAL
            )
            return error_answer(writer.revision, answer)
        events = writer.commit()
        if events:
            applied.events.append((writer.revision, events))
        return writer.revision, True, payload

    def _execute(self, frame: Frame, write: list[Any]) -> bytes:
        _, op, guard, arguments = write
        if self.cluster.corrupt and op != _ALARM:
            raise errors.corrupt()
        if guard is not None:
            self._check_guard(guard)
        return self._handlers[op](frame, arguments)

    def _check_guard(self, guard: list[Any]) -> None:
        # S27: judged before the compares, so that a lost fence runs no branch, not even the failure one.
        key, create = guard
        state = self.writer.index.state(key)
        if state is None or state[2] != create:
            raise FenceLost(f"coord: fence lost: the key no longer has create revision {create}", key, create)

    def _put(self, frame: Frame, arguments: list[Any]) -> bytes:
        if self.cluster.no_space:
            raise errors.no_space()
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
        if len(arguments) > 1 and arguments[1]:
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
        self.backend.put_row(Table.LEASES, ID_KEY.pack(lease), encode([ttl_s]))
        leases.grant(lease, ttl_s)
        frame.applied.leases_granted.append((lease, ttl_s))
        return encode([lease, ttl_s])

    def _revoke(self, frame: Frame, arguments: list[Any]) -> bytes:
        if arguments[0] not in self.writer.leases:
            raise errors.lease_not_found()
        return self._revoke_lease(frame.applied, arguments[0])

    def _revoke_lease(self, applied: Applied, lease: int) -> bytes:
        for key in self.writer.leases.keys(lease):
            self.writer.delete(key)
        self.backend.put_row(Table.LEASES, ID_KEY.pack(lease), None)
        self.writer.leases.revoke(lease)
        applied.leases_revoked.append(lease)
        return NULL

    def _register(self, frame: Frame, arguments: list[Any]) -> bytes:
        # S17: the entry's index is an id that is never used again.
        self.clients.register(frame.applied.index)
        return encode(frame.applied.index)

    def _alarm(self, frame: Frame, arguments: list[Any]) -> bytes:
        changed = self.cluster.change_alarm(self.backend, *arguments)
        frame.applied.alarms_changed = True
        return encode([list(alarm) for alarm in changed])
