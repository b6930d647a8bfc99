"""How long a lease is certainly alive, as far as its client can know. Pure: the clock is an argument."""

from __future__ import annotations

import math
from typing import Final

from attrs import define, field

from coord.client import forks
from coord.client.clock import Clock
from coord.errors import SessionLost
from coord.types import LeaseId

MARGIN_SHARE: Final = 10
MARGIN_S_MIN: Final = 0.3
"""Before the cluster may end the lease, the client ends what depends on it: by a tenth of the TTL, and at least so
much. Clocks run at different rates, and a body that is cancelled takes a moment to stop."""


def margin_s(ttl_s: float) -> float:
    """Return how long before a lease's end its client counts it as lost."""
    return max(ttl_s / MARGIN_SHARE, MARGIN_S_MIN)


@define(eq=False)
class Tenure:
    """A lease with its local deadline (S24).

    The cluster counts from when a grant or a renewal arrived, so that counting from when it was first sent is never
    late; and it acknowledges none of a lease that it has ended. So before `deadline`, and while nobody revokes it, the
    lease lives, whatever clients, members and the network between them do. To have been lost is final.
    """

    clock: Clock
    lease: LeaseId
    ttl_s: int = 0
    """What was granted, which may be more than what was asked for."""
    deadline: float = math.inf
    """On `clock`; past it the lease counts as lost."""
    why_lost: str = ""
    _forks: int = field(factory=forks.count)

    def acknowledged(self, sent_at: float, ttl_s: int) -> None:
        """Take the acknowledgement of a grant or a renewal that was first sent at `sent_at`."""
        if self.is_lost:
            # An answer that was under way while the process stood still proves nothing for what stood still with it.
            return
        if ttl_s <= 0:
            self.lose("the cluster has ended its lease")
            return
        # S20: from the first send. An acknowledgement that comes late must not shorten what a later one has given.
        deadline = sent_at + ttl_s - margin_s(ttl_s)
        self.deadline = max(self.deadline, deadline) if self.ttl_s else deadline
        self.ttl_s = ttl_s

    def lose(self, why: str) -> None:
        """Note that it is lost, unless it was already."""
        self.why_lost = self.why_lost or why

    @property
    def is_lost(self) -> bool:
        """Tell whether it is lost, by now."""
        if not self.why_lost:
            if self.clock() >= self.deadline:
                self.why_lost = f"no renewal of its lease was acknowledged in time (TTL {self.ttl_s} s)"
            elif self._forks != forks.count():
                # S21: the parent goes on with it, and two processes are not one owner.
                self.why_lost = "it belongs to the process that this one was forked from"
        return bool(self.why_lost)

    @property
    def remaining_s(self) -> float:
        """How long it lives if no further renewal is acknowledged; 0 once it is lost."""
        return 0.0 if self.is_lost else self.deadline - self.clock()

    def check(self) -> None:
        """Raise `SessionLost` if it is lost."""
        if self.is_lost:
            raise SessionLost(f"session {self.lease:x} is lost: {self.why_lost}")
