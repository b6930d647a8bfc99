"""Barriers, for programs of threads."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from coord.client.blocking_calls import BlockingCalls
from coord.client.recipes import barriers
from coord.client.recipes.barriers import Party
from coord.client.recipes.blocking_running import Runner
from coord.client.recipes.steps import TimeIsUp
from coord.client.txn import Key, integer, key_bytes, value_bytes

if TYPE_CHECKING:
    from coord.client.recipes.blocking_session import BlockingSession


class BlockingBarrier:
    """A barrier that somebody holds up and others wait for; made by `BlockingClient.barrier`.

        barrier = client.barrier("maintenance")
        barrier.hold()         # one program
        barrier.wait()         # all others
        barrier.release()      # whoever may

    It is the key of that name: it is up while the key is there.
    """

    def __init__(self, calls: BlockingCalls, name: Key) -> None:
        self._runner = Runner(calls)
        self._key = key_bytes(name)

    def hold(self, value: bytes = b"", *, lease: int = 0) -> bool:
        """Put the barrier up, and return whether it was not up before.

        With `lease`, that of a session, it comes down with the session; without one it stays until it is released.
        `value` is for those who look at the key.
        """
        return self._runner.run(barriers.hold(self._key, value_bytes(value), integer(lease)))

    def release(self) -> bool:
        """Take the barrier down, whoever has put it up; return whether it was up."""
        return self._runner.run(barriers.release(self._key))

    def wait(self, timeout: float | None = None) -> None:
        """Return once the barrier is not up: at once if it is not, else after its release, over any outage.

        Raises `TimeoutError` after `timeout` seconds; None waits for ever.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        try:
            self._runner.run(barriers.await_release(self._key), until)
        except TimeIsUp:
            raise TimeoutError(f"the barrier was not released within {timeout:g} s") from None


class BlockingDoubleBarrier(AbstractContextManager["BlockingDoubleBarrier"]):
    """A barrier that so many parties enter and leave together; made by `BlockingSession.double_barrier`."""

    def __init__(self, session: BlockingSession, party: Party) -> None:
        self._session = session
        self._party = party

    def __enter__(self) -> Self:
        session, party = self._session, self._party
        session.check()
        session.claim(party, math.inf)
        try:
            Runner(session.calls, lambda: session.is_lost).run(party.enter())
        except BaseException as error:
            # S26: also what Ctrl-C raises leaves no key behind.
            session.leave(party)
            if isinstance(error, TimeIsUp):
                session.check()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._session.leave(self._party)
        except BaseException:
            # S26: what Ctrl-C has left undone is done in the background.
            self._session.left(self._party, False)
            raise
        if kind is None:
            # Whoever fails goes, and holds up nobody; nor has it time for the others.
            Runner(self._session.calls).run(self._party.await_others())
