"""How calls end that did not get an answer, and which answers are worth another try. Pure."""

from __future__ import annotations

from typing import Final

from coord.client.endpoints import Rotation
from coord.errors import (
    ApiError,
    ConnectionFailed,
    CoordError,
    DeadlineExceeded,
    OutcomeUnknown,
    Unavailable,
    no_leader,
)

TIMEOUT_DEFAULT_S: Final = 5.0
REFUSALS_BEFORE_MOVING: Final = 2
"""A node that refused so often in a row is left for another."""


def is_clear_refusal(error: ApiError) -> bool:
    """Tell whether nothing was proposed, so that even a change may be sent again (S14)."""
    return isinstance(error, Unavailable) and not isinstance(error, OutcomeUnknown)


def lost_after_sending(endpoint: object, why: object) -> OutcomeUnknown:
    """The outcome of a change whose connection ended before its answer came."""
    # S14: sent again it could be applied twice, so only its caller can decide.
    return OutcomeUnknown(f"connection to {endpoint} lost ({why}): it may still be applied")


def timed_out(timeout: float, is_change: bool, is_sent: bool, refusal: ApiError | None) -> ApiError:
    """The outcome of a call that a node did not answer within `timeout` seconds.

    A call that was refused again and again ends with its last refusal, which says more.
    """
    if is_sent and is_change:
        return OutcomeUnknown(f"no answer within {timeout:g} s: it may still be applied")
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
