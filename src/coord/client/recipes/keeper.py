"""Keeping the leases of a client's sessions alive, and telling those whose lease is lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import trio

from coord.client import verbs
from coord.client.clock import Clock
from coord.client.driver import Driver
from coord.client.recipes.running import run
from coord.client.recipes.steps import ask
from coord.client.recipes.tenure import Tenure
from coord.errors import CoordError

RENEWALS: Final = 3
"""A lease is renewed so many times in a TTL."""
SHARING: Final = 12
"""Renewals that are due within this share of a TTL go with one that is due now."""
LEASES_PER_REQUEST: Final = 1_000
RETRY_S_MIN: Final = 0.05
LOOK_S: Final = 1.0
"""Trio's clock stands still while the machine is suspended, and the one that counts does not: so often the deadlines
are compared whatever they seem to be (S24)."""


class Kept(Protocol):
    """Who has a lease that is kept alive."""

    @property
    def tenure(self) -> Tenure:
        """The lease."""

    def end(self) -> None:
        """Take the news that the lease is lost."""


class Keeper:
    """Renews the leases of all sessions of a client: those due at about the same time share a request.

    Its task runs as long as there is a lease to keep. It wakes for renewals and at deadlines; a body that never
    yields to other tasks is told of a loss only by its own calls.
    """

    def __init__(self, driver: Driver, nursery: trio.Nursery, clock: Clock) -> None:
        self._driver = driver
        self._nursery = nursery
        self._clock = clock
        self._due: dict[Kept, float] = {}
        """When each is to be renewed, on `clock`."""
        self._news = trio.Event()
        self._is_running = False

    def add(self, kept: Kept) -> None:
        """Keep a lease that was just granted."""
        self._due[kept] = self._clock() + kept.tenure.ttl_s / RENEWALS
        self._news.set()
        if not self._is_running:
            self._is_running = True
            self._nursery.start_soon(self._run)

    def discard(self, kept: Kept) -> None:
        """Keep a lease no longer."""
        self._due.pop(kept, None)
        self._news.set()

    async def _run(self) -> None:
        try:
            while self._due:
                self._news = trio.Event()
                for kept in [kept for kept in self._due if kept.tenure.is_lost]:
                    del self._due[kept]
                    kept.end()
                self._renew_due()
                with trio.move_on_after(self._pause_s()):
                    await self._news.wait()
        finally:
            self._is_running = False

    def _pause_s(self) -> float:
        first = min((min(due, kept.tenure.deadline) for kept, due in self._due.items()), default=0.0)
        # Rounding must not have it wake again and again a moment too early.
        return min(max(first - self._clock(), 0.001), LOOK_S)

    def _renew_due(self) -> None:
        now = self._clock()
        if not any(due <= now for due in self._due.values()):
            return
        sharing = [kept for kept, due in self._due.items() if due <= now + kept.tenure.ttl_s / SHARING]
        for start in range(0, len(sharing), LEASES_PER_REQUEST):
            some = sharing[start : start + LEASES_PER_REQUEST]
            for kept in some:
                # Whatever becomes of this one, the next goes out in its turn: one that is stuck holds up none.
                self._due[kept] = now + kept.tenure.ttl_s / RENEWALS
            self._nursery.start_soon(self._renew, some, now)

    async def _renew(self, some: Sequence[Kept], sent_at: float) -> None:
        tenures: dict[int, Tenure] = {kept.tenure.lease: kept.tenure for kept in some}
        ttl_s = min(tenure.ttl_s for tenure in tenures.values())
        verb = verbs.lease_keep_alives(list(tenures), ttl_s)
        try:
            reply = await run(self._driver, ask(verb, timeout=ttl_s))
        except CoordError:
            again = self._clock() + max(ttl_s / RENEWALS / SHARING, RETRY_S_MIN)
            for kept in some:
                if kept in self._due:
                    self._due[kept] = min(self._due[kept], again)
        else:
            for lease, granted_s in reply.answer:
                tenures[lease].acknowledged(sent_at, granted_s)
        self._news.set()
