"""What a session of the blocking client owns while a block runs: locks of all kinds."""

from __future__ import annotations

import math
import threading
import time
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from attrs import define, field

from coord.client import forks
from coord.client.recipes.blocking_running import GOODBYE_S, Runner
from coord.client.recipes.contending import Contender
from coord.client.recipes.held import Held
from coord.client.recipes.steps import TimeIsUp
from coord.errors import ClientClosed, CoordError, LockTimeout, OwnershipLost

if TYPE_CHECKING:
    from coord.client.recipes.blocking_session import BlockingSession

RETRY_S: Final = 0.25
UNWATCHED_S: Final = 0.25
"""What is released sooner is not worth a connection that watches over its key."""


@define(eq=False)
class Loss:
    """A latch that threads can wait for."""

    told: threading.Event = field(factory=threading.Event)
    _forks: int = field(factory=forks.count)

    def tell(self) -> None:
        """Let go who waits."""
        if self._forks != forks.count():
            # S21: the lock inside may be held by a thread that was not forked with it.
            self._forks, self.told = forks.count(), threading.Event()
        self.told.set()


class BlockingOwnership(Held):
    """A contender that became the owner of its name; a lock or a leadership.

    A thread cannot be cancelled: when it is lost, or can no longer be proven to be owned, `lost` is set, `check` and
    every write that has it as its fence raise, and so does the end of its block.
    """

    def __init__(self, session: BlockingSession, contender: Contender) -> None:
        super().__init__(contender)
        self._session = session
        self._has_left = False
        self._loss = Loss()
        self._loss.tell()

    @property
    def is_lost(self) -> bool:
        """True once it is not, or not provably, owned any more; also after its block has ended."""
        is_lost = super().is_lost
        if is_lost:
            self._loss.tell()
        return is_lost

    @property
    def lost(self) -> threading.Event:
        """Set once it is lost: for threads that wait, or that look now and then whether they may go on."""
        self.is_lost  # noqa: B018  # by the clock it may be lost though nobody has told it yet
        return self._loss.told

    def end(self, why: str) -> None:
        """Count it as lost, and tell who waits."""
        super().end(why)
        self._loss.tell()

    def begin(self) -> None:
        """Count it as owned, and look out for the loss of its key."""
        self._loss = Loss()
        self._why_over = ""
        threading.Thread(target=self._watch_over, name=f"coord {self.name}", daemon=True).start()

    def leave(self, why: str) -> bool:
        """Own it no more, and remove its key; return whether that is gone."""
        # In this order: nobody else may have it while somebody here finds it owned.
        self.end(why)
        self._has_left = True
        self._session.dependents.discard(self)
        return self._session.leave(self._contender)

    def _watch_over(self) -> None:
        lost = self._loss.told
        if lost.wait(UNWATCHED_S):
            return
        runner = Runner(self._session.watching, lost.is_set)
        while not lost.is_set():
            try:
                runner.run(self._contender.watch_over())
            except (TimeIsUp, ClientClosed):
                return
            except CoordError:
                # It could not be read; the lease's deadline holds meanwhile, and what is fenced is safe anyway.
                lost.wait(RETRY_S)
            else:
                self.end("its key was deleted")


Owned = TypeVar("Owned", bound=BlockingOwnership)


class BlockingLock(BlockingOwnership):
    """A lock that is held; made by `BlockingSession.lock` and its kin.

    Give it to writes as `fence=`, and `fence` to other resources that compare it with the highest they have seen: a
    holder that was paused for longer than its TTL cannot know yet that somebody else has the lock.
    """


class Owning(AbstractContextManager[Owned], Generic[Owned]):
    """Owns a name while the block runs: queues and waits for it, watches over it, and leaves at the end.

    Entering raises `LockTimeout` after `wait` seconds, and `SessionLost` if the session is lost meanwhile.
    """

    # A class and not a generator: what Ctrl-C raises between the two halves of one would have nobody leave.

    def __init__(self, owned: Owned, wait: float | None) -> None:
        self._owned = owned
        self._wait = wait

    def __enter__(self) -> Owned:
        session, contender, wait = self._owned._session, self._owned._contender, self._wait
        session.check()
        deadline = math.inf if wait is None else time.monotonic() + wait
        session.claim(contender, deadline)
        tries_once = wait is not None and wait <= 0
        is_owner = False
        try:
            with suppress(TimeIsUp):
                runner = Runner(session.calls, lambda: session.is_lost)
                is_owner = runner.run(contender.enter(tries_once=tries_once), math.inf if tries_once else deadline)
            if is_owner:
                self._owned.begin()
                session.dependents.add(self._owned)
                return self._owned
            is_removed = self._owned.leave("it was not acquired")
        except BaseException:
            # S26: also what Ctrl-C raises leaves no key behind.
            self._owned.leave("it was given up")
            raise
        session.check()
        raise LockTimeout(_explain(session, contender, wait, is_removed))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        owned, contender = self._owned, self._owned._contender
        if owned._has_left:
            return
        try:
            if contender.is_refused(error):
                owned.end("the cluster refused a write of it")
            why_lost = owned._why_over if owned.is_lost else ""
            owned.leave("it was released")
        except BaseException:
            # S26: what Ctrl-C has left undone is done in the background.
            owned._session.left(contender, False)
            raise
        # What a pause or a partition does to a call in the block, or the cluster's refusal, is how the loss shows: who
        # uses a lock need not tell apart by what it learns of it.
        if why_lost and (error is None or (isinstance(error, CoordError) and not isinstance(error, OwnershipLost))):
            raise contender.lost(f"{contender.name} is lost: {why_lost}") from error


def _explain(session: BlockingSession, contender: Contender, wait: float | None, is_answering: bool) -> str:
    text = f"{contender.name} was not acquired within {wait:g} s"
    owner = None
    if is_answering:
        with suppress(CoordError, TimeIsUp):
            owner = Runner(session.calls).run(contender.find_owner(), time.monotonic() + GOODBYE_S)
    if owner is None:
        return text
    shown = owner.key.decode("utf-8", "backslashreplace")
    return f"{text}: {shown} has it{f', {owner.value[:100]!r}' if owner.value else ''}"
