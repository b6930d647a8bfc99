"""The lease reaper: counts time on the leader and proposes expiry; nothing expires but through the log (S22).

Renewals are not entries. A keep-alive is acknowledged only after a read round that started after it arrived, and only
if no expiry of its lease was proposed. An expiry carries the proposer's term and is void in another. Nothing rests on
the leader's own belief (S9): a reaper that was deposed acknowledges nothing, and who asks it is sent on.

A new leader knows nothing of the renewals before it and has to count anew. With the full TTL for all, a dead holder's
keys would stay so much longer with each leader change. So what is left of a lease that missed a renewal is written
into the log, a *checkpoint*, and counted from by whoever leads next (S23). It must never be older than a renewal: one
that finds a checkpoint standing, or on its way, is acknowledged only after the entry that clears it is applied. A
session that renews in time, with half of its TTL left, never meets one and costs no entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice

from attrs import define, field

from coord.codec import encode
from coord.limits import LEASES_CHECKPOINTED_PER_ENTRY, LEASES_EXPIRED_PER_ENTRY, LEASES_PER_TICK
from coord.mvcc.applied import Applied
from coord.mvcc.machine import StateMachine
from coord.node.consensus import Log
from coord.node.looks import Looks
from coord.protocol.entries import encode_entry
from coord.protocol.ops import EntryKind

_STALL_S = 0.05
"""A tick later than this was a stall of the process: its clients could not renew meanwhile."""
_CHECKPOINT_AGAIN_S = 1.0
"""A lease is checkpointed again after so long, or an eighth of its TTL if that is longer (S23)."""
_CONFIRM_S = 5.0
"""A round that is not confirmed by then is asked for again."""


@define
class LeaseReaper:
    """Deadlines by lease, in seconds of `clock`; they live on the leader alone and in memory alone.

    Each lease that is counted waits in one of three places: for its next look, in `_ended` for a round that begins
    past its deadline, in `_expiring` for the entry that ends it.
    """

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
    checkpointed: int = 0
    _deadlines: dict[int, float] = field(factory=dict)
    _looks: Looks = field(init=False)
    _ended: dict[int, None] = field(factory=dict)
    """Were past their deadline when they were looked at; a renewal still saves them."""
    _expiring: set[int] = field(factory=set)
    _with_checkpoint: set[int] = field(factory=set)
    """A new leader may find a checkpoint of them: it is applied or proposed, and its end is not applied."""
    _clearing: set[int] = field(factory=set)
    """Of these, whose checkpoint is to end: a renewal waits for that."""
    _to_clear: dict[int, None] = field(factory=dict)
    """Of these, for whom that is not proposed yet."""
    _confirming_until: float = 0.0
    _stalled_s: float = 0.0
    _last_tick: float | None = None
    is_leading: bool = False
    """It counts, and may renew: its node leads and has applied what the leaders before it left."""
    _led_term: int = 0

    def __attrs_post_init__(self) -> None:
        self._looks = Looks(self.interval_s)

    def lead(self) -> None:
        """Begin to count, also anew: every lease gets its full TTL from now, or what its checkpoint left it (S23).

        What the log held of earlier leaders is applied. So a checkpoint that stands is no older than the last renewal
        that anybody was told of, and its remainder, counted from now, ends no earlier than where it was taken.
        """
        self.unlead()
        self.is_leading = True
        self._led_term = self.term()
        self._last_tick = self.clock()
        now = self._now()
        self._looks.begin(now)
        for lease, ttl_s in self.machine.leases():
            if remaining_ms := self.machine.lease_remaining_ms(lease):
                self._deadlines[lease] = now + remaining_ms / 1000
                self._with_checkpoint.add(lease)
                self._look_again(lease, now)
            else:
                self._count(lease, now + ttl_s)
        self.log("lease.clock.started", leases=len(self._deadlines), checkpointed=len(self._with_checkpoint))

    def unlead(self) -> None:
        """Stop counting: another member does, and its clock alone says what expires."""
        self.is_leading = False
        self._deadlines.clear()
        self._looks.begin(0.0)
        for leases in (self._ended, self._expiring, self._with_checkpoint, self._clearing, self._to_clear):
            leases.clear()
        self._confirming_until = 0.0
        self._stalled_s = 0.0

    def on_applied(self, applied: Applied) -> None:
        """Follow grants, revocations and checkpoints."""
        if not self.is_leading:
            return
        for lease in applied.leases_revoked:
            self._forget(lease)
        now = self._now()
        for lease, ttl_s in applied.leases_granted:
            # One entry may revoke a lease and grant it anew, or the other way round.
            if self.machine.lease_ttl(lease):
                self._count(lease, now + ttl_s)
        for lease, remaining_ms in applied.leases_checkpointed:
            if not remaining_ms:
                self._with_checkpoint.discard(lease)
                self._clearing.discard(lease)

    def tick(self) -> None:
        """Look for leases that missed a renewal, or all of them; call every `interval_s`."""
        now = self.clock()
        late_s = now - self._last_tick - self.interval_s if self._last_tick is not None else 0.0
        self._last_tick = now
        if late_s > _STALL_S:
            # S22: what the clients could not renew while this process stood still does not count against them.
            self._stalled_s += late_s
            self.log("lease.clock.delayed", ms=round(late_s * 1000, 1))
        if not self.is_leading:
            return
        self._look()
        if self._ended and now >= self._confirming_until:
            # S22: the round begins past the deadlines, and every keep-alive that arrived before it is confirmed is
            # handled first, since they share the reader's queue. What falls due during it waits for the next.
            self._confirming_until = now + _CONFIRM_S
            self.start_round(partial(self._expire, self._led_term, self._now()))

    def turn(self) -> bool:
        """Have the checkpoints cleared that renewals of this pass wait for, in as few entries as they fit into."""
        while self._to_clear:
            leases = list(islice(self._to_clear, LEASES_CHECKPOINTED_PER_ENTRY))
            if not self._propose(EntryKind.CHECKPOINT, [[lease, 0] for lease in leases]):
                break  # there is no room: the next pass tries again, and what waits for it has its deadline
            for lease in leases:
                del self._to_clear[lease]
            self.log("lease.checkpoint.cleared", leases=len(leases))
        return False

    @property
    def active(self) -> int:
        """How many leases are counted."""
        return len(self._deadlines)

    def is_expiring(self, leases: Sequence[int]) -> int:
        """Return the first of `leases` whose expiry is proposed, or 0."""
        return next((lease for lease in leases if lease in self._expiring), 0)

    def clear_checkpoints(self, leases: Sequence[int]) -> int:
        """Have the checkpoints of `leases` cleared; return the first that has one, or 0 if all may be renewed.

        S23: told now, its holder would trust in a whole TTL, while the log still says less to the next leader. The time
        itself is given at once: a longer life never hurts, and it must not end while the entry is under way.
        """
        if self._with_checkpoint.isdisjoint(leases):
            return 0
        now = self._now()
        found = [lease for lease in leases if lease in self._with_checkpoint]
        for lease in found:
            self._extend(lease, now + self.machine.lease_ttl(lease))
            if lease not in self._clearing:
                self._clearing.add(lease)
                self._to_clear[lease] = None
        return found[0]

    def is_clearing(self, lease: int) -> bool:
        """Tell whether the end of a lease's checkpoint is wanted and not applied, in this term of leading."""
        return lease in self._clearing

    def renew(self, leases: Sequence[int]) -> list[list[int]]:
        """Renew and return `[lease, ttl_s]` for each; a TTL of 0 says that there is no such lease."""
        now = self._now()
        renewed = []
        for lease in leases:
            ttl_s = self.machine.lease_ttl(lease)
            if ttl_s:
                self._extend(lease, now + ttl_s)
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

    def _count(self, lease: int, deadline: float) -> None:
        """Begin to count a lease that has all of its time."""
        self._deadlines[lease] = deadline
        self._looks.set(lease, deadline - self.machine.lease_ttl(lease) / 2)

    def _extend(self, lease: int, deadline: float) -> None:
        # Only the look that is due anyhow finds the new deadline, so that a renewal costs no more than this.
        self._deadlines[lease] = deadline
        if lease in self._ended:
            del self._ended[lease]
            self._count(lease, deadline)

    def _forget(self, lease: int) -> None:
        self._deadlines.pop(lease, None)
        self._looks.discard(lease)
        self._ended.pop(lease, None)
        self._to_clear.pop(lease, None)
        for leases in (self._expiring, self._with_checkpoint, self._clearing):
            leases.discard(lease)

    def _look(self) -> None:
        """Look at what is due: past its deadline, half of its time gone, or time to checkpoint it again."""
        now = self._now()
        missed: list[int] = []
        deadlines, ttl_s = self._deadlines, self.machine.lease_ttl
        for lease in self._looks.take(now, LEASES_PER_TICK):
            deadline = deadlines[lease]
            half = deadline - ttl_s(lease) / 2
            if deadline <= now:
                self._ended[lease] = None
            elif half >= now:
                self._looks.set(lease, half)
            elif lease in self._clearing:
                self._look_again(lease, now)
            else:
                missed.append(lease)
        for first in range(0, len(missed), LEASES_CHECKPOINTED_PER_ENTRY):
            self._checkpoint(missed[first : first + LEASES_CHECKPOINTED_PER_ENTRY], now)

    def _checkpoint(self, leases: list[int], now: float) -> None:
        """Propose what is left of leases that missed a renewal."""
        # Rounded up: a new leader may count a little more, never less.
        left = [[lease, math.ceil((self._deadlines[lease] - now) * 1000)] for lease in leases]
        if self._propose(EntryKind.CHECKPOINT, left):
            self._with_checkpoint.update(leases)
            self.checkpointed += len(leases)
            self.log("lease.checkpoint.proposed", leases=len(leases))
            for lease in leases:
                self._look_again(lease, now)
        else:
            for lease in leases:
                self._looks.set(lease, now)

    def _look_again(self, lease: int, now: float) -> None:
        """Look at a lease that missed a renewal when it ends, or when its checkpoint is old."""
        again = now + max(self.machine.lease_ttl(lease) / 8, _CHECKPOINT_AGAIN_S)
        self._looks.set(lease, min(self._deadlines[lease], again))

    def _propose(self, kind: EntryKind, what: Iterable[object]) -> bool:
        # The term that is led, not the newest that Raft knows: an entry that is late is void, whoever leads then.
        body = encode([self._led_term, self.machine.applied_index, list(what)])
        return self.propose(encode_entry(kind, None, body))

    def _expire(self, term: int, now: float) -> None:
        """Propose the end of what was due at `now`, when the round was asked for, in a `term` of leading."""
        if not self.is_leading or term != self._led_term or term != self.term():
            return
        self._confirming_until = 0.0
        ended = (lease for lease in self._ended if self._deadlines[lease] <= now)
        due = list(islice(ended, LEASES_EXPIRED_PER_ENTRY))
        # If there is no room they stay where they are, for the next round.
        if due and self._propose(EntryKind.EXPIRY, due):
            for lease in due:
                del self._ended[lease]
            self._expiring.update(due)
            self.expired += len(due)
            self.log("lease.batch.expired", leases=len(due))
