"""Key intervals, and the rule that a transaction changes no key twice."""

from __future__ import annotations

from typing import Any, Final

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


def check_intervals(operations: list[Any]) -> tuple[set[bytes], list[Interval]]:
    """Check that no key is put twice, nor put and deleted; return all puts and deletes.

    The branches of one nested transaction may name the same key, since only one of them runs. As in etcd, siblings
    are looked at in order: a put of a nested transaction is held against the deletes of this level and of the nested
    transactions before it. Raises `duplicate_key`.
    """
    puts: set[bytes] = set()
    deletes: list[Interval] = []
    for op, arguments in operations:
        range_end = arguments[1] if op == _DELETE and len(arguments) > 1 else b""
        # etcd does not see that a delete to the end of the keyspace holds any key; the order of operations decides.
        if op == _DELETE and range_end != FROM_KEY:
            deletes.append(interval(arguments[0], range_end))
    for op, arguments in operations:
        if op != _TXN:
            continue
        puts_then, deletes_then = check_intervals(arguments[1])
        puts_else, deletes_else = check_intervals(arguments[2])
        for key in puts_then:
            _add(key, puts, deletes)
        for key in puts_else:
            if key not in puts_then:
                _add(key, puts, deletes)
        deletes += deletes_then
        deletes += deletes_else
    for op, arguments in operations:
        if op == _PUT:
            _add(arguments[0], puts, deletes)
    return puts, deletes


def _add(key: bytes, puts: set[bytes], deletes: list[Interval]) -> None:
    if key in puts:
        raise errors.duplicate_key()
    for start, end in deletes:
        if start <= key and (end is None or key < end):
            raise errors.duplicate_key()
    puts.add(key)
