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
    MEMBER_ADD = 50
    MEMBER_REMOVE = 51
    MEMBER_UPDATE = 52
    MEMBER_PROMOTE = 53
    MOVE_LEADER = 54


MEMBER_CHANGES = frozenset(
    (Method.MEMBER_ADD, Method.MEMBER_REMOVE, Method.MEMBER_UPDATE, Method.MEMBER_PROMOTE, Method.MOVE_LEADER)
)
"""What changes the cluster: asked again only if nothing was done (S14)."""


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


class PeerFrame(IntEnum):
    """The first item of a message between members."""

    HELLO = 0
    WELCOME = 1
    REFUSAL = 2
    MESSAGES = 3
    SNAPSHOT_HEAD = 4
    SNAPSHOT_CHUNK = 5
    SNAPSHOT_RESULT = 6


class PeerKind(IntEnum):
    """The first item of each of the messages of a `PeerFrame.MESSAGES`."""

    VOTE_REQUEST = 0
    VOTE_REPLY = 1
    APPEND = 2
    APPEND_REPLY = 3
    HEARTBEAT = 4
    HEARTBEAT_REPLY = 5
    READ_REQUEST = 6
    READ_REPLY = 7
    CAMPAIGN_NOW = 8
    PROPOSE = 9
    PROPOSED = 10
    CALL = 11
    CALL_REPLY = 12
    SPACE_REPORT = 13


class EntryKind(IntEnum):
    """The kind of an entry of the replicated log."""

    NOOP = 0
    WRITES = 1
    EXPIRY = 2
    ALARM = 3
    MEMBERS = 4
    CLUSTER = 5
    CHECKPOINT = 6
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
PEER_PROTOCOL_VERSION = 1
PEER_SUBPROTOCOL = "coord-peer.v1"
ENTRY_FORMAT = 1
"""The format item of every entry."""
CLUSTER_VERSION = 1
"""The newest cluster version that this release knows; it proposes no kind above the replicated one."""
