"""Which leases are renewed when, and together with which others. Pure: the clock is an argument."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Protocol

from attrs import define, field

from coord.client.clock import Clock
from coord.client.recipes.tenure import Tenure

TTL_S_DEFAULT: Final = 10
RENEWALS: Final = 3
"""A lease is renewed so many times in a TTL."""
SHARING: Final = 12
"""Renewals that are due within this share of a TTL go with one that is due now."""
LEASES_PER_REQUEST: Final = 1_000
RETRY_S_MIN: Final = 0.05
LOOK_S: Final = 1.0
"""What a program waits by stands still while the machine is suspended, and the clock that counts does not: so often the
deadlines are compared whatever they seem to be (S24)."""


class Kept(Protocol):
    """Who has a lease that is kept alive."""

    @property
    def tenure(self) -> Tenure:
        """The lease."""

    def end(self) -> None:
        """Take the news that the lease is lost."""


@define(eq=False)
class Renewals:
    """The leases of a client's sessions, by when each is to be renewed."""

    clock: Clock
    _due: dict[Kept, float] = field(factory=dict)

    def __bool__(self) -> bool:
        return bool(self._due)

    def add(self, kept: Kept) -> None:
        """Keep a lease that was just granted."""
        self._due[kept] = self.clock() + kept.tenure.ttl_s / RENEWALS

    def discard(self, kept: Kept) -> None:
        """Keep a lease no longer."""
        self._due.pop(kept, None)

    def take_all(self) -> list[Kept]:
        """Keep none any longer; return what was kept."""
        kept, self._due = list(self._due), {}
        return kept

    def take_lost(self) -> list[Kept]:
        """Return those that are lost by now, and keep them no longer."""
        lost = [kept for kept in self._due if kept.tenure.is_lost]
        for kept in lost:
            del self._due[kept]
        return lost

    def take_due(self) -> list[list[Kept]]:
        """Return what is to be renewed now, a list for each request."""
        now = self.clock()
        if not any(due <= now for due in self._due.values()):
            return []
        sharing = [kept for kept, due in self._due.items() if due <= now + kept.tenure.ttl_s / SHARING]
        for kept in sharing:
            # Whatever becomes of this one, the next goes out in its turn: one that is stuck holds up none.
            self._due[kept] = now + kept.tenure.ttl_s / RENEWALS
        return [sharing[start : start + LEASES_PER_REQUEST] for start in range(0, len(sharing), LEASES_PER_REQUEST)]

    def failed(self, some: Collection[Kept]) -> None:
        """Learn that a request was not answered: what it was to renew is due again soon."""
        pause_s = min(kept.tenure.ttl_s for kept in some) / RENEWALS / SHARING
        again = self.clock() + max(pause_s, RETRY_S_MIN)
        for kept in some:
            if kept in self._due:
                self._due[kept] = min(self._due[kept], again)

    def remaining_s(self) -> float:
        """How long it is until the first of them would be lost."""
        return min((kept.tenure.deadline for kept in self._due), default=0.0) - self.clock()

    def pause_s(self) -> float:
        """How long there is nothing to do."""
        first = min((min(due, kept.tenure.deadline) for kept, due in self._due.items()), default=0.0)
        # Rounding must not have anybody wake again and again a moment too early.
        return min(max(first - self.clock(), 0.001), LOOK_S)
