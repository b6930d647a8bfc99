"""Judging leases (P10): none ends before its time, none lasts for too long, and none that has ended is renewed.

A client counts from the first send of the grant or keep-alive that was acknowledged (S20). All clocks of a
simulation are one, so that no drift is allowed for; `drift` is for histories of real processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from attrs import define, field

from coord.protocol.ops import Op
from coord.testing.history import History, Kind, Operation, Outcome
from coord.testing.history_ledger import LeaseEnd, Ledger, Replay

QUIET_S: Final = 0.1
"""A cluster that commits nothing for so long, in a busy run, may have nobody who counts time."""
LATE_S: Final = 0.5
"""What is due is committed so much later at most, where anything is: a tick, a round, an entry."""


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


@define
class Lasting:
    """What was found of leases that lasted for too long, and how many could be judged."""

    found: list[str] = field(factory=list)
    judged: int = 0
    lengthened: int = 0
    """Of these, how many lasted for more than their TTL, over another leader than their holder was heard by."""


def check_lasting(history: History, played: Replay, ledger: Ledger, late_s: float = LATE_S) -> Lasting:
    """Judge how long leases lasted since their holders were heard last (S23).

    No node is asked when it led or what it counted. A leader changed where the ledger's term does; and where a busy
    cluster committed nothing, nobody may have counted. In a run that is not busy more is allowed than there was.
    """
    times = [(ledger.committed_at[index], ledger.entries[index][0]) for index in sorted(ledger.entries)]
    changes = [at for (_, before), (at, term) in pairwise(times) if term != before]
    quiet = [(begin, end) for (begin, _), (end, _) in pairwise(times) if end - begin > QUIET_S]
    ends = {end.lease: end.at for end in played.lease_ends}
    lasting = Lasting()
    for lease, heard_at in _heard(history, played, ledger).items():
        ended_at = ends.get(lease, times[-1][0])
        later = [at for at in changes if heard_at < at <= ended_at]
        counted = [at - heard_at - _overlap_s(quiet, heard_at, at) for at in (*later, ended_at)]
        ttl_s = played.grants[lease]
        allowed_s = _allowed_s(ttl_s, counted[:-1], late_s)
        lasting.judged += 1
        lasting.lengthened += bool(later) and counted[-1] > ttl_s
        if counted[-1] > allowed_s:
            lasting.found.append(
                f"lease {lease:x} of {ttl_s} s lasted until {ended_at:.3f}: {counted[-1]:.3f} s were counted since its "
                f"holder was heard last, over {len(later)} changes of leaders, and {allowed_s:.3f} s are allowed"
            )
    return lasting


def _allowed_s(ttl_s: float, changes: Sequence[float], late_s: float) -> float:
    """Return how long a lease may last whose leader changed after so many seconds each."""
    ends = ttl_s
    for at in changes:
        if at > ends - ttl_s / 2 + late_s:
            # It had missed a renewal, and that was written down; the next leader may have an older word of it.
            ends = min(at + ttl_s / 2, ends + max(ttl_s / 8, 1.0)) + late_s
        else:
            ends = at + ttl_s
    return ends + late_s


def _heard(history: History, played: Replay, ledger: Ledger) -> dict[int, float]:
    """Return when the holders were heard last, at the latest; without those of whom nobody can know."""
    heard = {
        judged.answer.result[0]: ledger.committed_at[judged.index]
        for judged in played.writes
        if judged.op == Op.LEASE_GRANT and judged.answer.ok
    }
    for operation in history.operations:
        if operation.kind is Kind.RENEWAL:
            for lease in operation.request:
                if operation.outcome is Outcome.UNKNOWN:
                    heard.pop(lease, None)  # it may arrive at any time
                elif lease in heard:
                    heard[lease] = max(heard[lease], operation.returned_at)
    return heard


def _overlap_s(spans: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    return sum(max(0.0, min(end, until) - max(begin, since)) for since, until in spans)
