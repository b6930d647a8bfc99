"""How calls end that did not get an answer, and which answers are worth another try. Pure."""

from __future__ import annotations

from enum import Enum
from typing import Final

from coord.client.endpoints import Rotation
from coord.errors import (
    ApiError,
    ClientExpired,
    ConnectionFailed,
    CoordError,
    DeadlineExceeded,
    OutcomeUnknown,
    SequenceAhead,
    SequenceClosed,
    Unavailable,
    no_leader,
)

TIMEOUT_DEFAULT_S: Final = 5.0
PATIENCE_S_MIN: Final = 0.25
PATIENCE_S_MAX: Final = 1.0
_PATIENCE_SHARE: Final = 0.25


class Verdict(Enum):
    """What becomes of a call that was answered with an error."""

    FINAL = "final"
    """The error is its answer."""
    AGAIN = "again"
    """This sending did nothing, or nothing is known of it; another may be answered."""
    FORGOTTEN = "forgotten"
    """The cluster does not know the client (any more), and did nothing."""


def patience_s(timeout: float) -> float:
    """Return how long a call with `timeout` seconds waits for one node before another is asked as well."""
    return min(max(timeout * _PATIENCE_SHARE, PATIENCE_S_MIN), PATIENCE_S_MAX)


def is_clear_refusal(error: ApiError) -> bool:
    """Tell whether nothing was proposed, so that even a change may be sent again (S14)."""
    return isinstance(error, Unavailable) and not isinstance(error, OutcomeUnknown)


def judge(error: ApiError, *, is_recognized: bool, is_in_doubt: bool) -> Verdict:
    """Judge the answer to a call.

    `is_recognized`: it is a write that may be sent twice, since it is applied once. `is_in_doubt`: a sending of it was
    not answered.
    """
    if not is_recognized:
        return Verdict.AGAIN if is_clear_refusal(error) else Verdict.FINAL
    if isinstance(error, ClientExpired):
        return Verdict.FORGOTTEN
    if isinstance(error, Unavailable | SequenceClosed | SequenceAhead):
        return Verdict.AGAIN
    # S19: what a node refused before the log is no recorded answer (its revision is 0), and says nothing of a sending
    # that may have reached the log by another way.
    return Verdict.AGAIN if is_in_doubt and not error.revision else Verdict.FINAL


def lost_after_sending(endpoint: object, why: object) -> OutcomeUnknown:
    """The outcome of a change whose connection ended before its answer came."""
    # S14: sent again it could be applied twice, so only its caller can decide.
    return OutcomeUnknown(f"{unanswered(endpoint, why)}: it may still be applied")


def forgotten_in_doubt() -> OutcomeUnknown:
    """The outcome of a write that was sent more than once, and the record that would tell is gone (S17)."""
    return OutcomeUnknown("the cluster no longer has this client's record: it may have been applied")


def unanswered(endpoint: object, why: object) -> str:
    """What became of a sending that was not answered."""
    return f"connection to {endpoint} lost ({why})"


def timed_out(timeout: float, is_in_doubt: bool, refusal: ApiError | None, doubt: str = "") -> ApiError:
    """The outcome of a call that was not answered within `timeout` seconds, and perhaps happened if `is_in_doubt`.

    `doubt` tells why an earlier sending was not answered. A call that was refused again and again ends with its last
    refusal, which says more.
    """
    if is_in_doubt:
        why = f"; {doubt}" if doubt else ""
        return OutcomeUnknown(f"no answer within {timeout:g} s: it may still be applied{why}")
    if refusal is not None:
        return refusal
    return DeadlineExceeded(f"no answer within {timeout:g} s")


def unreachable(timeout: float, rotation: Rotation) -> CoordError:
    """No endpoint served within `timeout` seconds; the error names each and why.

    Where a node was reached but turned the client away, for want of a cluster, what it said is the error.
    """
    if why := rotation.why_turned_away:
        return Unavailable(why)
    return ConnectionFailed(f"no endpoint reached within {timeout:g} s: {rotation.explain()}")


def has_no_leader(error: ApiError) -> bool:
    """Tell whether the node waited for a leader in vain: another member may have one."""
    return error.text.startswith(no_leader().text)


def other_cluster(known: int, found: int) -> str:
    """Why an endpoint of another cluster is not used: its revisions and leases are not those of this one."""
    whose = f"it belongs to cluster {found:x}" if found else "it has no cluster yet"
    return f"cluster ID mismatch: {whose}, this client belongs to {known:x}"
