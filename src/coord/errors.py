"""The one error tree.

Three families: `ApiError` is what a node answers (gRPC's code names, etcd's texts, so that an etcd gateway can pass
them on), `ClientError` is what the client library finds out by itself, and `NodeError` ends or refuses to start a
node. Local misuse raises `ValueError` or `TypeError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from coord.types import Revision


class Code(StrEnum):
    """gRPC's code names, as they travel in an error reply."""

    CANCELED = "Canceled"
    UNKNOWN = "Unknown"
    INVALID_ARGUMENT = "InvalidArgument"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    NOT_FOUND = "NotFound"
    PERMISSION_DENIED = "PermissionDenied"
    RESOURCE_EXHAUSTED = "ResourceExhausted"
    FAILED_PRECONDITION = "FailedPrecondition"
    ABORTED = "Aborted"
    OUT_OF_RANGE = "OutOfRange"
    UNIMPLEMENTED = "Unimplemented"
    INTERNAL = "Internal"
    UNAVAILABLE = "Unavailable"
    DATA_LOSS = "DataLoss"
    UNAUTHENTICATED = "Unauthenticated"


class CoordError(Exception):
    """Base of every error that coord raises on purpose."""


class ApiError(CoordError):
    """An error that a node answers: `code`, `text`, and `details`, whose first item names coord's own outcomes."""

    code: Code = Code.UNKNOWN
    outcome: str = ""
    revision: int = 0
    """The store's revision when a node answered it; 0 for a write that was refused before it reached the log."""

    def __init__(self, text: str, *details: Any, code: Code | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.details: tuple[Any, ...] = details
        if code is not None:
            self.code = code

    def to_wire(self) -> list[Any]:
        """Return `[code, text, details]`, the form in a reply and in a recorded answer."""
        details: list[Any] = list(self.details)
        if self.outcome:
            details.insert(0, self.outcome)
        return [str(self.code), self.text, details]

    @staticmethod
    def from_wire(wire: list[Any]) -> ApiError:
        """Return the error that `[code, text, details]` tells of, as its most specific class."""
        code, text, details = wire[0], wire[1], tuple(wire[2])
        if details and isinstance(details[0], str) and details[0] in _BY_OUTCOME:
            kind = _BY_OUTCOME[details[0]]
            return kind(text, *details[1:], code=Code(code))
        try:
            known = Code(code)
        except ValueError:
            known = Code.UNKNOWN
        return _BY_CODE.get(known, ApiError)(text, *details, code=known)


class InvalidArgument(ApiError):
    """The request cannot be right whatever the state."""

    code = Code.INVALID_ARGUMENT


class OutOfRange(ApiError):
    """A revision outside the window that the store holds."""

    code = Code.OUT_OF_RANGE


class NotFound(ApiError):
    """A lease or a member that does not exist."""

    code = Code.NOT_FOUND


class FailedPrecondition(ApiError):
    """The state forbids it."""

    code = Code.FAILED_PRECONDITION


class ResourceExhausted(ApiError):
    """A bound is reached; try again later or ask for less."""

    code = Code.RESOURCE_EXHAUSTED


class Aborted(ApiError):
    """The request lost against another."""

    code = Code.ABORTED


class Unavailable(ApiError):
    """The cluster cannot serve this now."""

    code = Code.UNAVAILABLE


class Unimplemented(ApiError):
    """The node, or the cluster version, does not know this request or one of its items."""

    code = Code.UNIMPLEMENTED


class DeadlineExceeded(ApiError):
    """The request's `timeout_ms` passed; a write that was proposed is `OutcomeUnknown` instead."""

    code = Code.DEADLINE_EXCEEDED


class DataLoss(ApiError):
    """The cluster is corrupt."""

    code = Code.DATA_LOSS


class Compacted(OutOfRange):
    """The revision has been compacted; `details[0]`, where given, is the compacted revision."""

    outcome = "Compacted"

    @property
    def compact_revision(self) -> int:
        """The lowest revision that can still be read, or 0 if the node did not say."""
        return int(self.details[0]) if self.details else 0


class OutcomeUnknown(Unavailable):
    """The write may have been applied, or may still be (S14)."""

    outcome = "OutcomeUnknown"


class Behind(Unavailable):
    """The node has not yet seen the revision that this client has seen (S29)."""

    outcome = "Behind"


class ClientExpired(FailedPrecondition):
    """The client's record is gone; the write was not applied (S17)."""

    outcome = "ClientExpired"


class SequenceClosed(FailedPrecondition):
    """The write's number is below the client's `low`; this send was not applied (S18)."""

    outcome = "SequenceClosed"


class SequenceReused(InvalidArgument):
    """The number stands for another write of this client (S18)."""

    outcome = "SequenceReused"


class SequenceAhead(ResourceExhausted):
    """The number is beyond the client's window (S18)."""

    outcome = "SequenceAhead"


class FenceLost(Aborted):
    """The guard's key is no longer the one its token names (S27)."""

    outcome = "FenceLost"


class AnswerGone(OutOfRange):
    """The write was applied, but its answer was too large to keep; details: revision, succeeded (S18)."""

    outcome = "AnswerGone"


_BY_OUTCOME: dict[str, type[ApiError]] = {
    kind.outcome: kind
    for kind in (
        Compacted,
        OutcomeUnknown,
        Behind,
        ClientExpired,
        SequenceClosed,
        SequenceReused,
        SequenceAhead,
        FenceLost,
        AnswerGone,
    )
}
_BY_CODE: dict[Code, type[ApiError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        OutOfRange,
        NotFound,
        FailedPrecondition,
        ResourceExhausted,
        Aborted,
        Unavailable,
        Unimplemented,
        DeadlineExceeded,
        DataLoss,
    )
}


def _etcd(kind: type[ApiError], text: str) -> ApiError:
    return kind(f"etcdserver: {text}")


def empty_key() -> ApiError:
    """An empty key where one is needed."""
    return _etcd(InvalidArgument, "key is not provided")


def key_not_found() -> ApiError:
    """`ignore_value` or `ignore_lease` on an absent key, or an operation that is none."""
    return _etcd(InvalidArgument, "key not found")


def value_provided() -> ApiError:
    """`ignore_value` with a value."""
    return _etcd(InvalidArgument, "value is provided")


def lease_provided() -> ApiError:
    """`ignore_lease` with a lease."""
    return _etcd(InvalidArgument, "lease is provided")


def too_many_ops() -> ApiError:
    """More than `--max-txn-ops` compares or operations."""
    return _etcd(InvalidArgument, "too many operations in txn request")


def duplicate_key() -> ApiError:
    """A transaction would put one key twice, or put what it deletes."""
    return _etcd(InvalidArgument, "duplicate key given in txn request")


def invalid_sort_option() -> ApiError:
    """An unknown sort order or target."""
    return _etcd(InvalidArgument, "invalid sort option")


def request_too_large() -> ApiError:
    """More than `--max-request-bytes`."""
    return _etcd(InvalidArgument, "request is too large")


def compacted(revision: int) -> Compacted:
    """A read below the compacted revision; `revision` is the lowest still readable."""
    return Compacted("etcdserver: mvcc: required revision has been compacted", revision)


def future_revision() -> ApiError:
    """A read above the current revision."""
    return _etcd(OutOfRange, "mvcc: required revision is a future revision")


def lease_ttl_too_large() -> ApiError:
    """A TTL above 9 000 000 000 s."""
    return _etcd(OutOfRange, "too large lease TTL")


def lease_not_found() -> ApiError:
    """No such lease."""
    return _etcd(NotFound, "requested lease not found")


def lease_exists() -> ApiError:
    """A lease with this id exists."""
    return _etcd(FailedPrecondition, "lease already exists")


def no_space() -> ApiError:
    """The NOSPACE alarm is on, or the request would pass the quota."""
    return _etcd(ResourceExhausted, "mvcc: database space exceeded")


def too_many_requests() -> ApiError:
    """The node has as much work queued as it may hold."""
    return _etcd(ResourceExhausted, "too many requests")


def corrupt() -> ApiError:
    """The CORRUPT alarm is on."""
    return _etcd(DataLoss, "corrupt cluster")


def not_for_learner() -> ApiError:
    """A health check fails because this member has no vote; etcd's text."""
    return Unavailable("not supported for learner")


def not_joined() -> ApiError:
    """A health check fails because the cluster does not count this member's vote yet (S1)."""
    return _etcd(Unavailable, "the cluster has not let this member in yet: its vote does not count")


def no_leader(why: str = "") -> ApiError:
    """Nothing was proposed, because there is no leader; `why` names whom the node misses."""
    return _etcd(Unavailable, f"no leader: {why}" if why else "no leader")


def server_stopped() -> ApiError:
    """The node is stopping; nothing was proposed."""
    return _etcd(Unavailable, "server stopped")


def request_timed_out() -> ApiError:
    """The request was not served within its `timeout_ms`; nothing was changed."""
    return _etcd(Unavailable, "request timed out")


class ClientError(CoordError):
    """Something the client library found out by itself."""


class ConnectionFailed(ClientError):
    """No endpoint could be reached within the timeout; the message names each endpoint and why."""


class ClientClosed(ClientError):
    """The client was closed."""


class PutsFailed(ClientError):
    """Some of the puts of a `put_many` failed; the others stand.

    `outcomes` has for each, in the order given, the revision that it was done at or the error that it ended with.
    """

    def __init__(self, text: str, outcomes: Sequence[Revision | Exception]) -> None:
        super().__init__(text)
        self.outcomes = outcomes


class SessionLost(ClientError):
    """The session's lease has ended, or can no longer be proven to live; what depended on it is lost too (S24)."""


class OwnershipLost(ClientError):
    """What was owned is owned no more, or that can no longer be proven."""


class LockLost(OwnershipLost):
    """The lock may be somebody else's; what its block did since may have had company, unless it was fenced."""


class LeadershipLost(OwnershipLost):
    """Somebody else may have been elected."""


class LockTimeout(ClientError, TimeoutError):
    """The lock was not acquired within `wait`; the message names whom it waited for. No key is left behind."""


class NoInstance(ClientError):
    """A service has no instance, or none that suits; the message says whether that is known to be current."""


class ProtocolViolation(CoordError):
    """The other side of a link sent what the protocol forbids; the link is closed."""


class DecodeError(ProtocolViolation):
    """Bytes that are not the CBOR that the protocol allows."""


class NodeError(CoordError):
    """Ends a node or keeps it from starting; the message says what to do next."""


class ConfigError(NodeError):
    """An option is wrong; the message names the option, its value and what is allowed."""


class DataDirError(NodeError):
    """The data directory cannot be used: locked, another member's, or of a newer version."""


class DamageError(NodeError):
    """Stored bytes are not what was written (S5); the node refuses to start and says what to do."""


class DiskError(NodeError):
    """The disk failed an operation whose effect is now unknown; the process ends (law 7)."""


class DiskFullError(DiskError):
    """The disk has no room (ENOSPC, EDQUOT); nothing was acknowledged, the operation may be repeated (S16)."""
