"""A queue: items in the order in which they were put, each for one taker. Pure.

An item is a key `name/` + 16 hex digits, without a lease; their order is that of their create revisions.
"""

from __future__ import annotations

import re
from typing import Final

from coord.client import op, verbs
from coord.client.recipes.steps import AwaitChange, Steps, ask, read_patiently
from coord.client.txn import create_revision, mod_revision
from coord.client.verbs import RangeOptions
from coord.errors import ConnectionFailed, DeadlineExceeded, OutcomeUnknown, Unavailable
from coord.types import KeyValue, Revision, SortOrder, SortTarget

ID_BITS: Final = 64
_AT_ONCE: Final = 8
"""So many items are read at a time: others may be faster with the first ones."""
_SUFFIX: Final = re.compile(rb"[0-9a-f]{16}")


def put(prefix: bytes, number: int, value: bytes) -> Steps[bool]:
    """Put an item under a number that was drawn for it; return False if that is taken."""
    key = b"%s%016x" % (prefix, number)
    reply = yield from ask(verbs.txn([create_revision(key) == 0], [op.put(key, value)], []))
    return reply.answer.succeeded


def first_items(prefix: bytes) -> Steps[list[KeyValue]]:
    """Return some of the first items, in order; waits while there is none."""
    while True:
        revision, items = yield from _read(prefix)
        if items:
            return items
        yield AwaitChange(prefix + b"0", revision + 1, prefix + b"g")


def take(item: KeyValue) -> Steps[bool | None]:
    """Take an item out of the queue; return whether this was done, for else somebody was faster.

    None says that the cluster could not do it: the item comes before all behind it, as far as is known. Raises
    `OutcomeUnknown` if it may be that this took it.
    """
    # Its value is known, and nobody has changed it: an answer without it is small enough to be kept for a retry.
    is_same = mod_revision(item.key) == item.mod_revision
    try:
        reply = yield from ask(verbs.txn([is_same], [op.delete(item.key)], []))
    except OutcomeUnknown:
        raise
    except (Unavailable, DeadlineExceeded, ConnectionFailed):
        return None
    return reply.answer.succeeded


def _read(prefix: bytes) -> Steps[tuple[Revision, list[KeyValue]]]:
    limit = _AT_ONCE
    while True:
        options: RangeOptions = {
            "range_end": prefix + b"g",
            "limit": limit,
            "sort_target": SortTarget.CREATE,
            "sort_order": SortOrder.ASCEND,
        }
        found = yield from read_patiently(verbs.range_(prefix + b"0", options, 0))
        items = [kv for kv in found.kvs if not kv.lease and _SUFFIX.fullmatch(kv.key, len(prefix))]
        if items or not found.more:
            return found.header.revision, items
        # Only keys that are no items were first.
        limit *= _AT_ONCE
