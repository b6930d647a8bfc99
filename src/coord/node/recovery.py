"""From what a member's disk holds to Raft's state in memory."""

from __future__ import annotations

from coord.errors import DamageError
from coord.raft.log import RaftLog
from coord.store.port import StorePort
from coord.wal.recovery import Recovery


def recovered_log(store: StorePort, recovery: Recovery, catch_up_entries: int) -> RaftLog:
    """Return the log in memory as it was before the restart, with up to `catch_up_entries` that the store has.

    Without these, a member that leads after a restart of all would have to send a snapshot to one that lacks a single
    entry. Raises `DamageError` if log and store do not belong together: the log must reach back to what the store
    holds, and the store must not be above its own log (S3).
    """
    applied = store.applied_index
    if not recovery.start_index <= applied <= recovery.last_index:
        raise DamageError(
            f"the log holds entries {recovery.start_index + 1} to {recovery.last_index}, but the store ends at "
            f"{applied}: they are not of one member at one time. Restore this member's data directory "
            "from a backup, or remove the member and add it anew."
        )
    first = max(0, applied - catch_up_entries - recovery.start_index)
    base_index, base_term = _place(recovery, first)
    if _place(recovery, applied - recovery.start_index) != (applied, store.applied_term):
        # What the log replaced with a released segment is below the store's entry, but is not what the store holds.
        base_index, base_term, first = applied, store.applied_term, applied - recovery.start_index
    log = RaftLog(base_index=base_index, base_term=base_term)
    for entry in recovery.entries[first:]:
        log.append(entry)
    log.committed = log.applied = applied
    return log


def _place(recovery: Recovery, count: int) -> tuple[int, int]:
    """Return index and term of the entry after which `count` entries were recovered."""
    if not count:
        return recovery.start_index, recovery.start_term
    index, term, _ = recovery.entries[count - 1]
    return index, term
