"""Keeping the leases of a client's sessions alive, and telling those whose lease is lost."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from coord.client import verbs
from coord.client.clock import Clock
from coord.client.driver import Driver
from coord.client.recipes.renewals import Kept, Renewals
from coord.client.recipes.running import run
from coord.client.recipes.steps import ask
from coord.client.recipes.tenure import Tenure
from coord.errors import CoordError


class Keeper:
    """Renews the leases of all sessions of a client: those due at about the same time share a request.

    Its task runs as long as there is a lease to keep. It wakes for renewals and at deadlines; a body that never
    yields to other tasks is told of a loss only by its own calls.
    """

    def __init__(self, driver: Driver, nursery: trio.Nursery, clock: Clock) -> None:
        self._driver = driver
        self._nursery = nursery
        self._clock = clock
        self._renewals = Renewals(clock)
        self._news = trio.Event()
        self._is_running = False

    def add(self, kept: Kept) -> None:
        """Keep a lease that was just granted."""
        self._renewals.add(kept)
        self._news.set()
        if not self._is_running:
            self._is_running = True
            self._nursery.start_soon(self._run)

    def discard(self, kept: Kept) -> None:
        """Keep a lease no longer."""
        self._renewals.discard(kept)
        self._news.set()

    async def _run(self) -> None:
        try:
            while self._renewals:
                self._news = trio.Event()
                for kept in self._renewals.take_lost():
                    kept.end()
                for some in self._renewals.take_due():
                    self._nursery.start_soon(self._renew, some, self._clock())
                with trio.move_on_after(self._renewals.pause_s()):
                    await self._news.wait()
        finally:
            self._is_running = False
            # Only where the client was closed around a session is there still one.
            for kept in self._renewals.take_all():
                kept.tenure.lose("the client was closed")
                kept.end()

    async def _renew(self, some: Sequence[Kept], sent_at: float) -> None:
        tenures: dict[int, Tenure] = {kept.tenure.lease: kept.tenure for kept in some}
        ttl_s = min(tenure.ttl_s for tenure in tenures.values())
        verb = verbs.lease_keep_alives(list(tenures), ttl_s)
        try:
            reply = await run(self._driver, ask(verb, timeout=ttl_s))
        except CoordError:
            self._renewals.failed(some)
        else:
            for lease, granted_s in reply.answer:
                tenures[lease].acknowledged(sent_at, granted_s)
        self._news.set()
