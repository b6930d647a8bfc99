"""Judging leases (P10): none ends before its time, and none that has ended is renewed.

A client counts from the first send of the grant or keep-alive that was acknowledged (S20). All clocks of a
simulation are one, so that no drift is allowed for; `drift` is for histories of real processes.
"""

from __future__ import annotations

from collections.abc import Iterator

from coord.protocol.ops import Op
from coord.testing.history import History, Kind, Operation, Outcome
from coord.testing.history_ledger import LeaseEnd, Replay


def check_leases(history: History, played: Replay, drift: float = 0.0) -> list[str]:
    """Return every lease that ended too early, and every keep-alive whose answer was wrong.

    Lease ids must be granted once only. `drift` is the part of a TTL by which clocks may differ.
    """
    ends = {end.lease: end for end in played.lease_ends}
    found: list[str] = []
    for operation in history.operations:
        if operation.kind is Kind.RENEWAL and operation.is_done:
            for lease, ttl_s in operation.result:
                found += _check_renewal(operation, lease, ttl_s, ends.get(lease), played, drift)
        elif _is_grant(operation):
            lease, ttl_s = operation.result
            found += _check_early(operation, lease, ttl_s, ends.get(lease), drift)
    found += _check_keys(played)
    return found


def _is_grant(operation: Operation) -> bool:
    is_done = operation.kind is Kind.WRITE and operation.outcome is Outcome.DONE
    return is_done and bool(operation.request[1] == Op.LEASE_GRANT)


def _check_renewal(
    operation: Operation, lease: int, ttl_s: int, end: LeaseEnd | None, played: Replay, drift: float
) -> Iterator[str]:
    if ttl_s > 0:
        if lease not in played.grants:
            yield f"renewed lease {lease:x}, which never was: {operation}"
        elif played.grants[lease] != ttl_s:
            yield f"renewed lease {lease:x} for {ttl_s} s, not {played.grants[lease]} s: {operation}"
        if end is not None and end.at < operation.called_at:
            yield f"renewed lease {lease:x}, gone since {end.at:.3f}: {operation}"
        yield from _check_early(operation, lease, ttl_s, end, drift)
    elif lease in played.grants and (end is None or end.at > operation.returned_at):
        yield f"was told that lease {lease:x} is gone, before it was: {operation}"


def _check_early(operation: Operation, lease: int, ttl_s: int, end: LeaseEnd | None, drift: float) -> Iterator[str]:
    if end is None or not end.is_expiry:
        return
    due = operation.called_at + ttl_s * (1 - drift)
    if end.at < due:
        yield f"lease {lease:x} expired at {end.at:.3f}, {due - end.at:.3f} s early: {operation}"


def _check_keys(played: Replay) -> Iterator[str]:
    """After a lease its keys are gone; that they went in one revision is the model's rule, which watches hold."""
    model = played.model
    for key, pair in model.now.items():
        if pair[4] and pair[4] not in model.leases:
            yield f"key {key!r} outlived its lease {pair[4]:x}"
