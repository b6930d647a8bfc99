"""Op codes, methods, and the places of their arguments. `coord.cddl` is the schema these names stand for."""

from __future__ import annotations

from enum import IntEnum


class Op(IntEnum):
    """What a write does; also the tag of an operation inside a transaction."""

    PUT = 1
    DELETE_RANGE = 2
    TXN = 3
    COMPACT = 4
    LEASE_GRANT = 5
    LEASE_REVOKE = 6
    REGISTER = 7
    ALARM = 8
    RANGE = 20
    """Only inside a transaction; elsewhere a range is a request."""


class Method(IntEnum):
    """What a request asks for."""

    RANGE = 20
    TXN = 21
    """A transaction whose top-level operations are all ranges: it skips the log."""
    LEASE_TIME_TO_LIVE = 22
    LEASE_LEASES = 23
    LEASE_KEEP_ALIVE = 24
    WATCH_CREATE = 30
    WATCH_CANCEL = 31
    WATCH_PROGRESS = 32
    CANCEL = 40
    STATUS = 41
    MEMBER_LIST = 42
    HASH_KV = 43
    ALARM_LIST = 44


class ClientMessage(IntEnum):
    """The first item of a message from a client."""

    HELLO = 0
    REQUESTS = 1
    WRITES = 2


class ServerMessage(IntEnum):
    """The first item of a message from a node."""

    HELLO = 0
    REPLIES = 1
    NOTIFICATIONS = 2
    GOODBYE = 3


class Notification(IntEnum):
    """The first item of a notification."""

    EVENTS = 0
    PROGRESS = 1
    CANCELED = 2


class EntryKind(IntEnum):
    """The kind of an entry of the replicated log."""

    NOOP = 0
    WRITES = 1
    EXPIRY = 2
    ALARM = 3
    MEMBERS = 4
    CLUSTER = 5
    CLUSTER_VERSION = 7


class Settled(IntEnum):
    """What a node settled for a write before it proposed it (S15)."""

    REFUSED = 0
    LEASE = 1


class AlarmAction(IntEnum):
    """etcd's `AlarmRequest.AlarmAction`; GET is a request of its own here."""

    ACTIVATE = 1
    DEACTIVATE = 2


PROTOCOL_VERSION = 1
SUBPROTOCOL = "coord.v1"
ENTRY_FORMAT = 1
"""The format item of every entry."""
CLUSTER_VERSION = 1
"""The newest cluster version that this release knows; it proposes no kind above the replicated one."""
