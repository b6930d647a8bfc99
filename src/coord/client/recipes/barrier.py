"""Barriers, for Trio programs."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from coord.client.driver import Driver
from coord.client.recipes import barriers
from coord.client.recipes.barriers import Party
from coord.client.recipes.running import run
from coord.client.txn import Key, integer, key_bytes, value_bytes

if TYPE_CHECKING:
    from coord.client.recipes.session import Session


class Barrier:
    """A barrier that somebody holds up and others wait for; made by `Client.barrier`.

        barrier = client.barrier("maintenance")
        await barrier.hold()         # one program
        await barrier.wait()         # all others
        await barrier.release()      # whoever may

    It is the key of that name: it is up while the key is there.
    """

    def __init__(self, driver: Driver, name: Key) -> None:
        self._driver = driver
        self._key = key_bytes(name)

    async def hold(self, value: bytes = b"", *, lease: int = 0) -> bool:
        """Put the barrier up, and return whether it was not up before.

        With `lease`, that of a session, it comes down with the session; without one it stays until it is released.
        `value` is for those who look at the key.
        """
        return await run(self._driver, barriers.hold(self._key, value_bytes(value), integer(lease)))

    async def release(self) -> bool:
        """Take the barrier down, whoever has put it up; return whether it was up."""
        return await run(self._driver, barriers.release(self._key))

    async def wait(self) -> None:
        """Return once the barrier is not up: at once if it is not, else after its release, over any outage."""
        await run(self._driver, barriers.await_release(self._key))


class DoubleBarrier(AbstractAsyncContextManager["DoubleBarrier"]):
    """A barrier that so many parties enter and leave together; made by `Session.double_barrier`."""

    def __init__(self, session: Session, party: Party) -> None:
        self._session = session
        self._party = party
        self._scope = trio.CancelScope()

    async def __aenter__(self) -> DoubleBarrier:
        session, party = self._session, self._party
        session.check()
        await session.claim(party, math.inf)
        session.dependents[self] = None
        has_entered = False
        try:
            with self._scope:
                await run(session.driver, party.enter())
                has_entered = True
            if not has_entered:
                session.check()
        finally:
            session.dependents.pop(self)
            if not has_entered:
                await session.leave(party)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.leave(self._party)
        if kind is None:
            # Whoever fails goes, and holds up nobody; nor has it time for the others.
            await run(self._session.driver, self._party.await_others())

    def end(self, why: str) -> None:
        """Take the news that the session is lost: what has entered is not affected."""
        self._scope.cancel()
