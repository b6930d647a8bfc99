"""What a session owns while a block runs: locks of all kinds."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from coord.client.recipes.contending import Contender
from coord.client.recipes.held import Held
from coord.client.recipes.running import run
from coord.errors import ClientClosed, CoordError, LockTimeout, OwnershipLost

if TYPE_CHECKING:
    from coord.client.recipes.session import Session

GOODBYE_S: Final = 1.0
"""What a block's end may take to clean up in the cluster, though it is cancelled."""
RETRY_S: Final = 0.25


class Ownership(Held):
    """A contender that became the owner of its name; a lock or a leadership.

    While it is owned its block runs. When it is lost, or can no longer be proven to be owned, the block is cancelled,
    and ends by raising `LockLost` or `LeadershipLost`.
    """

    def __init__(self, session: Session, contender: Contender) -> None:
        super().__init__(contender)
        self._session = session
        self._scope = trio.CancelScope()
        self._watching: trio.CancelScope | None = None
        self._is_given_up = False
        self._left = trio.Event()

    @property
    def has_failed(self) -> bool:
        """True if it is lost against the will of its block."""
        return self.is_lost and not self._is_given_up

    def end(self, why: str) -> None:
        """Count it as lost, and cancel its block."""
        super().end(why)
        self._scope.cancel()

    def conclude(self) -> None:
        """Count it as over, with its block."""
        super().end("it was released")
        if self._watching is not None:
            self._watching.cancel()

    async def watch_over(self) -> None:
        """Look out for the loss of its key, as long as it is owned."""
        with trio.CancelScope() as self._watching:
            # It may be over before this task's first turn, and then nobody cancels it.
            while not self.is_lost:
                try:
                    await run(self._session.driver, self._contender.watch_over())
                except ClientClosed:
                    return
                except CoordError:
                    # It could not be read; the lease's deadline holds meanwhile, and what is fenced is safe anyway.
                    await trio.sleep(RETRY_S)
                else:
                    self.end("its key was deleted")
                    return


Owned = TypeVar("Owned", bound=Ownership)


class Lock(Ownership):
    """A lock that is held; made by `Session.lock` and its kin.

    Give it to writes as `fence=`, and `fence` to other resources that compare it with the highest they have seen: a
    holder that was paused for longer than its TTL cannot know yet that somebody else has the lock.
    """


class Owning(AbstractAsyncContextManager[Owned]):
    """Own a name while the block runs: queue and wait for it, watch over it, and leave at the end, whatever happens.

    Entering raises `LockTimeout` after `wait` seconds, `SessionLost` if the session is lost meanwhile. What can be
    done while the cluster works is done then: the block's scope is entered once the contender's key was sent, and left
    once its removal was.
    """

    __slots__ = ("_is_in_scope", "_owned", "_wait")

    def __init__(self, owned: Owned, wait: float | None) -> None:
        self._owned = owned
        self._wait = wait
        self._is_in_scope = False

    async def __aenter__(self) -> Owned:
        owned, wait = self._owned, self._wait
        session, contender = owned._session, owned._contender
        session.check()
        deadline = math.inf if wait is None else trio.current_time() + wait
        await session.claim(contender, deadline)
        tries_once = wait is not None and wait <= 0
        session.dependents[owned] = None
        error: BaseException | None = None
        try:
            if await self._enter(math.inf if tries_once else deadline, tries_once):
                owned._why_over = ""
                session.lookout.add(owned)
                return owned
        except BaseException as raised:
            error = self._beyond_scope(raised)
        is_removed = await self._leave()
        if error is not None:
            raise error
        session.check()
        raise LockTimeout(await _explain(session, contender, wait, is_removed))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        owned, left = self._owned, error
        if error is not None:
            left = self._told(self._beyond_scope(error))
        was_lost = owned.has_failed
        await self._leave()
        if left is not None and left is not error:
            raise left
        if left is None and was_lost:
            owned.check()
        return left is None

    async def _enter(self, deadline: float, tries_once: bool) -> bool:
        steps, driver = self._owned._contender.enter(tries_once=tries_once), self._owned._session.driver
        if deadline == math.inf:
            return await run(driver, steps, when_sent=self._enter_scope)
        self._enter_scope()
        with trio.move_on_at(deadline):
            return await run(driver, steps)
        return False

    async def _leave(self) -> bool:
        """Give the name back; tell whether the cluster has removed the key."""
        owned = self._owned
        session = owned._session
        # Who has kept it beyond the block must find it over before anybody else can have it.
        owned.conclude()
        session.dependents.pop(owned)
        try:
            return await session.leave(owned._contender, self._end_scope)
        finally:
            self._end_scope()
            owned._left.set()

    def _enter_scope(self) -> None:
        self._owned._scope.__enter__()
        self._is_in_scope = True

    def _end_scope(self) -> None:
        if self._is_in_scope:
            self._is_in_scope = False
            self._owned._scope.__exit__(None, None, None)

    def _beyond_scope(self, error: BaseException) -> BaseException | None:
        """Leave the scope by an error, and return what of it goes on beyond."""
        if not self._is_in_scope:
            return error
        self._is_in_scope = False
        try:
            return None if self._owned._scope.__exit__(type(error), error, error.__traceback__) else error
        except BaseException as rest:
            return rest

    def _told(self, error: BaseException | None) -> BaseException | None:
        """Return what the block raises for what it ended with."""
        owned = self._owned
        if not isinstance(error, CoordError | ExceptionGroup):
            return error
        if owned._contender.is_refused(error):
            owned.end("the cluster refused a write of it")
        # What a pause or a partition does to the calls in the block, or the cluster's refusal, is how the loss shows:
        # who uses a lock need not tell apart by what it learns of it.
        if not owned.has_failed or not _is_made_of_ours(error):
            return error
        loss = owned.loss()
        loss.__cause__ = error
        return loss


def _is_made_of_ours(error: Exception) -> bool:
    """Tell whether an error is nothing but one of coord's, or several in a group; the loss of another thing is not."""
    if isinstance(error, ExceptionGroup):
        return error.split(CoordError)[1] is None
    return isinstance(error, CoordError) and not isinstance(error, OwnershipLost)


async def _explain(session: Session, contender: Contender, wait: float | None, is_answering: bool) -> str:
    text = f"{contender.name} was not acquired within {wait:g} s"
    owner = None
    if is_answering:
        with trio.move_on_after(GOODBYE_S), suppress(CoordError):
            owner = await run(session.driver, contender.find_owner())
    if owner is None:
        return text
    shown = owner.key.decode("utf-8", "backslashreplace")
    return f"{text}: {shown} has it{f', {owner.value[:100]!r}' if owner.value else ''}"
