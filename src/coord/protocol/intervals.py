"""Key intervals, and the rule that a transaction changes no key twice."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any, Final

from attrs import define, field

from coord import errors
from coord.protocol.ops import Op

FROM_KEY: Final = b"\0"
"""The `range_end` that means: to the end of the keyspace."""

Interval = tuple[bytes, bytes | None]
"""Half open `[start, end)`; an end of None is the end of the keyspace."""

_PUT: Final = int(Op.PUT)
_DELETE: Final = int(Op.DELETE_RANGE)
_TXN: Final = int(Op.TXN)


def interval(key: bytes, range_end: bytes) -> Interval:
    """Return the interval that a key and a `range_end` mean: one key if `range_end` is empty."""
    if not range_end:
        return key, key + b"\0"
    return key, None if range_end == FROM_KEY else range_end


@define
class Union:
    """Keys in any of some intervals, kept as disjoint intervals in order: asking for a key costs a bisection.

    Held one by one against a list, the puts and deletes of one large request would stop a node for minutes.
    """

    _starts: list[bytes] = field(factory=list)
    _ends: list[bytes | None] = field(factory=list)

    def add(self, start: bytes, end: bytes | None) -> None:
        """Add an interval; one that holds no key changes nothing."""
        if end is not None and end <= start:
            return
        first = bisect_left(self._starts, start)
        if first and self._reaches(first - 1, start):
            first -= 1
            start = self._starts[first]
        last = first
        while last < len(self._starts) and (end is None or self._starts[last] <= end):
            their_end = self._ends[last]
            end = None if end is None or their_end is None else max(end, their_end)
            last += 1
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def update(self, other: Union) -> None:
        """Add all of another union."""
        for start, end in zip(other._starts, other._ends, strict=True):
            self.add(start, end)

    def __contains__(self, key: bytes) -> bool:
        place = bisect_right(self._starts, key) - 1
        if place < 0:
            return False
        end = self._ends[place]
        return end is None or key < end

    def _reaches(self, place: int, start: bytes) -> bool:
        end = self._ends[place]
        return end is None or end >= start


def check_intervals(operations: list[Any]) -> tuple[set[bytes], Union]:
    """Check that no key is put twice, nor put and deleted; return all puts and deletes.

    The branches of one nested transaction may name the same key, since only one of them runs. As in etcd, siblings
    are looked at in order: a put of a nested transaction is held against the deletes of this level and of the nested
    transactions before it. Raises `duplicate_key`.
    """
    puts: set[bytes] = set()
    deletes = Union()
    for op, arguments in operations:
        range_end = arguments[1] if op == _DELETE and len(arguments) > 1 else b""
        # etcd does not see that a delete to the end of the keyspace holds any key; the order of operations decides.
        if op == _DELETE and range_end != FROM_KEY:
            deletes.add(*interval(arguments[0], range_end))
    for op, arguments in operations:
        if op != _TXN:
            continue
        puts_then, deletes_then = check_intervals(arguments[1])
        puts_else, deletes_else = check_intervals(arguments[2])
        puts_then |= puts_else
        for key in puts_then:
            _add(key, puts, deletes)
        deletes.update(deletes_then)
        deletes.update(deletes_else)
    for op, arguments in operations:
        if op == _PUT:
            _add(arguments[0], puts, deletes)
    return puts, deletes


def _add(key: bytes, puts: set[bytes], deletes: Union) -> None:
    if key in puts or key in deletes:
        raise errors.duplicate_key()
    puts.add(key)
