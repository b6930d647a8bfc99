"""The lease reaper: counts time on the leader and proposes expiry; nothing expires but through the log (S22).

Renewals are not entries. A keep-alive is acknowledged only after a read round that started after it arrived, and only
if no expiry of its lease was proposed. An expiry carries the proposer's term and is void in another. Nothing rests on
the leader's own belief (S9): a reaper that was deposed acknowledges nothing, and who asks it is sent on.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import define, field

from coord.codec import encode
from coord.limits import LEASES_EXPIRED_PER_ENTRY
from coord.mvcc.applied import Applied
from coord.mvcc.machine import StateMachine
from coord.node.consensus import Log
from coord.protocol.entries import encode_entry
from coord.protocol.ops import EntryKind

_STALL_S = 0.05
"""A tick later than this was a stall of the process: its clients could not renew meanwhile."""
_STALE_MAX = 1_024
"""So many items of the heap may be of leases that are gone or counted elsewhere, beside as many as there are leases."""
_CONFIRM_S = 5.0
"""A round that is not confirmed by then is asked for again."""


@define
class LeaseReaper:
    """Deadlines by lease, in seconds of `clock`; they live on the leader alone and in memory alone."""

    machine: StateMachine
    clock: Callable[[], float]
    log: Log
    propose: Callable[[bytes], bool]
    start_round: Callable[[Callable[[], None]], None]
    """Calls back after a read round that starts from now on is confirmed."""
    term: Callable[[], int]
    interval_s: float
    expired: int = 0
    renewed: int = 0
    _deadlines: dict[int, float] = field(factory=dict)
    _heap: list[tuple[float, int]] = field(factory=list)
    _expiring: set[int] = field(factory=set)
    _confirming_until: float = 0.0
    _stalled_s: float = 0.0
    _last_tick: float | None = None
    is_leading: bool = False
    """It counts, and may renew: its node leads and has applied what the leaders before it left."""
    _led_term: int = 0

    def lead(self) -> None:
        """Begin to count, also anew: every lease gets its full TTL from now (S23)."""
        self.unlead()
        self.is_leading = True
        self._led_term = self.term()
        self._last_tick = self.clock()
        now = self._now()
        for lease, ttl_s in self.machine.leases():
            self._set(lease, now + ttl_s)
        self.log("lease.clock.started", leases=len(self._deadlines))

    def unlead(self) -> None:
        """Stop counting: another member does, and its clock alone says what expires."""
        self.is_leading = False
        self._expiring.clear()
        self._deadlines.clear()
        self._heap.clear()
        self._confirming_until = 0.0
        self._stalled_s = 0.0

    def on_applied(self, applied: Applied) -> None:
        """Follow grants and revocations."""
        if not self.is_leading:
            return
        now = self._now()
        for lease, ttl_s in applied.leases_granted:
            self._set(lease, now + ttl_s)
        for lease in applied.leases_revoked:
            self._deadlines.pop(lease, None)
            self._expiring.discard(lease)
        if len(self._heap) > 2 * len(self._deadlines) + _STALE_MAX:
            # Leases that are revoked before their time would wait in it for that time, which may be years.
            self._heap = [(deadline, lease) for lease, deadline in self._deadlines.items()]
            heapq.heapify(self._heap)

    def tick(self) -> None:
        """Look for leases past their deadline; call every `interval_s`."""
        now = self.clock()
        late_s = now - self._last_tick - self.interval_s if self._last_tick is not None else 0.0
        self._last_tick = now
        if late_s > _STALL_S:
            # S22: what the clients could not renew while this process stood still does not count against them.
            self._stalled_s += late_s
            self.log("lease.clock.delayed", ms=round(late_s * 1000, 1))
        if self.is_leading and now >= self._confirming_until and self._heap and self._heap[0][0] <= self._now():
            # S22: the round begins past the deadlines, and every keep-alive that arrived before it is confirmed is
            # handled first, since they share the reader's queue. What falls due during it waits for the next.
            self._confirming_until = now + _CONFIRM_S
            self.start_round(partial(self._expire, self._led_term, self._now()))

    @property
    def active(self) -> int:
        """How many leases are counted."""
        return len(self._deadlines)

    def is_expiring(self, leases: Sequence[int]) -> int:
        """Return the first of `leases` whose expiry is proposed, or 0."""
        return next((lease for lease in leases if lease in self._expiring), 0)

    def renew(self, leases: Sequence[int]) -> list[list[int]]:
        """Renew and return `[lease, ttl_s]` for each; a TTL of 0 says that there is no such lease."""
        now = self._now()
        renewed = []
        for lease in leases:
            ttl_s = self.machine.lease_ttl(lease)
            if ttl_s:
                self._set(lease, now + ttl_s)
                self.renewed += 1
            renewed.append([lease, ttl_s])
        return renewed

    def remaining_s(self, lease: int) -> int:
        """Return the whole seconds left of a lease; 0 or less while its expiry is under way."""
        deadline = self._deadlines.get(lease)
        return int(deadline - self._now()) if deadline is not None else self.machine.lease_ttl(lease)

    def ordered(self) -> list[int]:
        """Return the ids of all leases, the next to expire first where this node counts, else by id."""
        ids = (lease for lease, _ in self.machine.leases())
        return sorted(ids, key=lambda lease: (self._deadlines.get(lease, 0.0), lease))

    def _now(self) -> float:
        return self.clock() - self._stalled_s

    def _set(self, lease: int, deadline: float) -> None:
        if lease not in self._deadlines:
            heapq.heappush(self._heap, (deadline, lease))
        self._deadlines[lease] = deadline

    def _expire(self, term: int, now: float) -> None:
        """Propose the end of what was due at `now`, when the round was asked for, in a `term` of leading."""
        if not self.is_leading or term != self._led_term or term != self.term():
            return
        self._confirming_until = 0.0
        due: dict[int, None] = {}
        while self._heap and self._heap[0][0] <= now and len(due) < LEASES_EXPIRED_PER_ENTRY:
            _, lease = heapq.heappop(self._heap)
            deadline = self._deadlines.get(lease)
            if deadline is None or lease in self._expiring:
                continue  # revoked, or granted anew since
            if deadline > now:
                # It was renewed since it was queued: only now does it move, so that a renewal costs no heap work.
                heapq.heappush(self._heap, (deadline, lease))
            else:
                due[lease] = None
        if not due:
            return
        entry: list[Any] = [term, self.machine.applied_index, list(due)]
        if self.propose(encode_entry(EntryKind.EXPIRY, None, encode(entry))):
            self._expiring.update(due)
            self.expired += len(due)
            self.log("lease.batch.expired", leases=len(due))
        else:
            for lease in due:
                heapq.heappush(self._heap, (now, lease))
