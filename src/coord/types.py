"""The words of coord's data model, as types.

Ids are NewTypes so that an index is never passed where a revision belongs. `docs/internals/glossary.md` says what
each word means; the two most easily confused are *index* (a place in the Raft log) and *revision* (a state of the
store).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, NewType

from attrs import frozen

MemberId = NewType("MemberId", int)
"""A member of the cluster: 1 … 2⁶⁴−1, never used again once removed."""
ClusterId = NewType("ClusterId", int)
"""The cluster: random, 1 … 2⁶⁴−1, in the first committed entry (S1)."""
Term = NewType("Term", int)
"""A Raft term."""
Index = NewType("Index", int)
"""A place in the Raft log; the first entry has index 1."""
Revision = NewType("Revision", int)
"""A state of the store; an empty store is at revision 1, the first write makes 2."""
LeaseId = NewType("LeaseId", int)
"""A lease: 1 … 2⁶³−1."""
WatchId = NewType("WatchId", int)
"""A watch, unique within its connection."""
ClientId = NewType("ClientId", int)
"""A registered client: the index of the entry that registered it (S17); 0 for a client without a record."""
Number = NewType("Number", int)
"""A client's number for one of its writes (S18); 0 for a write without one."""
RequestId = NewType("RequestId", int)
"""A request, unique among the open ones of its connection; chosen by the client."""

FIRST_REVISION = Revision(1)
"""The revision of an empty store."""
NEVER_COMPACTED = Revision(-1)
"""The compacted revision of a store that was never compacted."""
LEASE_ID_MAX = 2**63 - 1


class EventType(IntEnum):
    """What happened to a key (etcd's `mvccpb.Event.EventType`)."""

    PUT = 0
    DELETE = 1


class CompareResult(IntEnum):
    """The relation a compare asks for (etcd's `Compare.CompareResult`)."""

    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class CompareTarget(IntEnum):
    """The field a compare looks at (etcd's `Compare.CompareTarget`)."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


class SortOrder(IntEnum):
    """etcd's `RangeRequest.SortOrder`."""

    NONE = 0
    ASCEND = 1
    DESCEND = 2


class SortTarget(IntEnum):
    """etcd's `RangeRequest.SortTarget`."""

    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class AlarmType(IntEnum):
    """etcd's `AlarmType`."""

    NONE = 0
    NOSPACE = 1
    CORRUPT = 2


class Role(IntEnum):
    """A member's Raft role."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3
    LEARNER = 4


class KeyValue(NamedTuple):
    """A key at a revision (etcd's `mvccpb.KeyValue`).

    `version` is 1 when the key is created and grows by one a put; a delete ends the generation. `lease` is 0 for a
    key without one.
    """

    # A tuple, because a range may make ten thousand: any other class that cannot be changed takes three times as long.

    key: bytes
    create_revision: Revision
    mod_revision: Revision
    version: int
    lease: LeaseId
    value: bytes


@frozen
class Event:
    """A change of one key. The `kv` of a DELETE has only `key` and `mod_revision`.

    `prev_kv` is the pair before the change, if the watch asked for it and it was neither absent nor compacted.
    """

    type: EventType
    kv: KeyValue
    prev_kv: KeyValue | None = None

    @property
    def is_create(self) -> bool:
        """True if this event made the key."""
        return self.type is EventType.PUT and self.kv.create_revision == self.kv.mod_revision


def prefix_end(prefix: bytes) -> bytes:
    r"""Return the `range_end` that makes `[prefix, range_end)` every key that starts with `prefix`.

    The last byte plus one after dropping trailing 0xff; `b"\0"` (to the end of the keyspace) for an empty prefix or
    one of 0xff alone, as etcd's clients do.
    """
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return b"\0"
    return stripped[:-1] + bytes([stripped[-1] + 1])
