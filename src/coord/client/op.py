"""The operations of a transaction: `coord.op.put`, `get`, `delete` and `txn`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from coord.client import txn as transactions
from coord.client.txn import Compare, Key, Operation
from coord.client.verbs import RangeOptions, delete_arguments, put_arguments, range_arguments
from coord.protocol.ops import Op


def put(
    key: Key,
    value: bytes = b"",
    *,
    lease: int = 0,
    prev_kv: bool = False,
    ignore_value: bool = False,
    ignore_lease: bool = False,
) -> Operation:
    """Put a key; see `Client.put`."""
    return Operation(Op.PUT, put_arguments(key, value, lease, prev_kv, ignore_value, ignore_lease))


def get(key: Key, **options: Unpack[RangeOptions]) -> Operation:
    """Read a key or an interval; see `Client.range_response`."""
    return Operation(Op.RANGE, range_arguments(key, options, 0))


def delete(key: Key, *, prefix: bool = False, range_end: Key | None = None, prev_kv: bool = False) -> Operation:
    """Delete a key or an interval; see `Client.delete`."""
    return Operation(Op.DELETE_RANGE, delete_arguments(key, prefix, range_end, prev_kv))


def txn(*, when: Sequence[Compare] = (), then: Sequence[Operation] = (), orelse: Sequence[Operation] = ()) -> Operation:
    """A transaction inside a transaction; its compares too are judged before any operation runs.

    Raises `ValueError` if it is nested deeper than any node takes.
    """
    return transactions.nested(when, then, orelse)
