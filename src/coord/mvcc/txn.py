"""Transactions: compares, then one branch, in etcd's order of judgement.

All compares of the whole tree are judged first, against the state before the transaction; then all puts, then all
ranges of the branches that will run are checked against that same state; then the operations run in order, later
ones seeing earlier ones. Whatever fails leaves nothing behind: the caller rolls the writer's draft back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from coord import errors
from coord.codec import NULL, array_head, uint
from coord.mvcc.ranges import RangeReader, encode_range, run
from coord.mvcc.records import Fields, decode_record
from coord.mvcc.writes import Writer
from coord.protocol.intervals import interval
from coord.protocol.ops import Op
from coord.protocol.ranges import RangeRequest
from coord.types import CompareResult, CompareTarget

COMPARE_SLICE_KEYS: Final = 2_000
_ABSENT: Final = (b"", 0, 0, 0, 0, b"")
_FIELD_OF: Final = {
    int(CompareTarget.VERSION): 3,
    int(CompareTarget.CREATE): 1,
    int(CompareTarget.MOD): 2,
    int(CompareTarget.VALUE): 5,
    int(CompareTarget.LEASE): 4,
}
_RELATION: Final[dict[int, Callable[[Any, Any], bool]]] = {
    int(CompareResult.EQUAL): lambda left, right: bool(left == right),
    int(CompareResult.GREATER): lambda left, right: bool(left > right),
    int(CompareResult.LESS): lambda left, right: bool(left < right),
    int(CompareResult.NOT_EQUAL): lambda left, right: bool(left != right),
}
_PUT: Final = int(Op.PUT)
_DELETE: Final = int(Op.DELETE_RANGE)
_TXN: Final = int(Op.TXN)
_RANGE: Final = int(Op.RANGE)


def _holds_always(_left: Any, _right: Any) -> bool:
    return True


Steps = tuple[bool, list[tuple[int, Any]]]
"""A transaction whose compares are judged: which way that went, and the `(op, arguments)` of the branch that runs; of a
nested transaction `(Op.TXN, Steps)`."""


def has_put(arguments: list[Any]) -> bool:
    """Tell whether a transaction could put anything, in any branch."""
    return any(op == _PUT or (op == _TXN and has_put(inner)) for branch in arguments[1:] for op, inner in branch)


def only_ranges(arguments: list[Any]) -> bool:
    """Tell whether all top-level operations are ranges, so that the transaction needs no entry."""
    return all(op == _RANGE for branch in arguments[1:] for op, _ in branch)


def all_serializable(arguments: list[Any]) -> bool:
    """Tell whether a transaction of ranges may be served from local state: all are serializable, and there is one.

    etcd takes one that only compares for serializable, and so may answer from stale state; here it is linearizable.
    """
    ranges = [inner for branch in arguments[1:] for _, inner in branch]
    return bool(ranges) and all(len(inner) > 6 and inner[6] for inner in ranges)


class Transactions:
    """Runs transactions that `check_txn` let pass."""

    __slots__ = ("_floor", "_ranges", "_writer")

    def __init__(self, writer: Writer, ranges: RangeReader, floor: Callable[[], int]) -> None:
        self._writer = writer
        self._ranges = ranges
        self._floor = floor

    def apply(self, arguments: list[Any]) -> bytes:
        """Run a transaction in the writer's open draft and return its encoded result.

        Raises `ApiError` where the state forbids it; what the draft then holds must be rolled back.
        """
        puts: list[list[Any]] = []
        ranges: list[list[Any]] = []
        plan = self._plan(arguments, puts, ranges)
        for put in puts:
            self._check_put(put)
        for request in ranges:
            self._check_revision(request)
        parts: list[bytes] = []
        self._run(plan, parts)
        return b"".join(parts)

    def _plan(self, arguments: list[Any], puts: list[list[Any]], ranges: list[list[Any]]) -> Steps:
        """Judge the compares; note, in order, the puts and ranges that will run and have something to be checked."""
        compares, success, failure = arguments
        succeeded = True
        for compare in compares:
            if not self._holds(compare):
                succeeded = False
                break
        steps: list[tuple[int, Any]] = []
        for op, inner in success if succeeded else failure:
            if op == _PUT:
                if len(inner) > 2:
                    puts.append(inner)
            elif op == _RANGE:
                ranges.append(inner)
            steps.append((op, self._plan(inner, puts, ranges) if op == _TXN else inner))
        return succeeded, steps

    def _holds(self, compare: list[Any]) -> bool:
        target, result, key, operand = compare[:4]
        # As in etcd, a relation that is none holds.
        place, relation = _FIELD_OF[target], _RELATION.get(result, _holds_always)
        found = False
        for fields in self._compared(key, compare[4] if len(compare) > 4 else b"", target):
            found = True
            if not relation(fields[place], operand):
                return False
        if found:
            return True
        # An absent key is all zeros, but no value: not even `!=` holds for it.
        return target != CompareTarget.VALUE and relation(_ABSENT[place], operand)

    def _compared(self, key: bytes, range_end: bytes, target: int) -> Iterator[Fields]:
        if not range_end:
            fields = self._fields(key, target)
            if fields is not None:
                yield fields
            return
        start, end = interval(key, range_end)
        while keys := self._writer.index.keys.slice(start, end, COMPARE_SLICE_KEYS):
            for name in keys:
                fields = self._fields(name, target)
                if fields is not None:
                    yield fields
            start = keys[-1] + b"\0"

    def _fields(self, key: bytes, target: int) -> Fields | None:
        state = self._writer.index.state(key)
        if state is None:
            return None
        mod, sub, create, version, lease = state
        if target == CompareTarget.VALUE:
            return decode_record(self._writer.read(mod, sub))
        return key, create, mod, version, lease, b""

    def _check_put(self, arguments: list[Any]) -> None:
        # In etcd's order, which is the other way round for a put outside of a transaction.
        if any(arguments[4:6]) and self._writer.index.state(arguments[0]) is None:
            raise errors.key_not_found()
        lease = arguments[2]
        if lease and lease not in self._writer.leases:
            raise errors.lease_not_found()

    def _check_revision(self, arguments: list[Any]) -> None:
        # Unlike a plain range, 0 alone means the newest: etcd holds a negative revision against the floor.
        revision = arguments[3] if len(arguments) > 3 else 0
        if not revision:
            return
        if revision > self._writer.revision:
            raise errors.future_revision()
        if revision < self._floor():
            raise errors.compacted(self._floor())

    def _run(self, plan: Steps, parts: list[bytes]) -> None:
        succeeded, steps = plan
        # Joined once at the end: joined level by level, what stands deepest would be copied at each.
        parts.append(b"\x82" + (b"\xf5" if succeeded else b"\xf4") + array_head(len(steps)))
        writer = self._writer
        put_done = b"".join((b"\x83", uint(_PUT), uint(writer.revision + 1), NULL))
        for op, arguments in steps:
            if op == _PUT and len(arguments) == 2:
                writer.put(arguments[0], arguments[1])
                parts.append(put_done)
            elif op == _TXN:
                # As in etcd, a nested transaction's header has no revision.
                parts.append(b"\x83\x03\x00")
                self._run(arguments, parts)
            else:
                parts.append(self._step(op, arguments))

    def _step(self, op: int, arguments: list[Any]) -> bytes:
        if op == _PUT:
            result = self.put(arguments)
        elif op == _DELETE:
            result = self.delete(arguments)
        else:
            request = RangeRequest(*arguments)
            revision = self._writer.revision_seen
            result = encode_range(run(self._ranges.steps(request, self._ranges.pin(request, revision))))
        return b"".join((b"\x83", uint(op), uint(self._writer.revision_seen), result))

    def put(self, arguments: list[Any]) -> bytes:
        """Put a key in the open draft and return the encoded result; raises `ApiError` where the state forbids it."""
        writer = self._writer
        if len(arguments) == 2:
            writer.put(arguments[0], arguments[1])
            return NULL
        key, value, lease, want_previous, ignore_value, ignore_lease = (*arguments, 0, False, False, False)[:6]
        if lease and lease not in writer.leases:
            raise errors.lease_not_found()
        if (ignore_value or ignore_lease) and writer.index.state(key) is None:
            raise errors.key_not_found()
        previous = writer.get(key) if want_previous or ignore_value or ignore_lease else None
        if previous is not None and (ignore_value or ignore_lease):
            fields = decode_record(previous)
            value = fields[5] if ignore_value else value
            lease = fields[4] if ignore_lease else lease
        writer.put(key, value, lease)
        return previous if want_previous and previous is not None else NULL

    def delete(self, arguments: list[Any]) -> bytes:
        """Delete an interval in the open draft and return the encoded result."""
        key, range_end, want_previous = (*arguments, b"", False)[:3]
        deleted, records = self._writer.delete_range(key, range_end, want_previous=want_previous)
        return b"".join((b"\x82", uint(deleted), array_head(len(records)), *records))
