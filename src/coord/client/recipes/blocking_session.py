"""A session of the blocking client: a lease that is kept alive, and what depends on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any, Final, Self

from coord.client import forks, verbs
from coord.client.blocking_calls import BlockingCalls
from coord.client.clock import Clock
from coord.client.recipes.barriers import party_of
from coord.client.recipes.blocking_barrier import BlockingDoubleBarrier
from coord.client.recipes.blocking_keeper import BlockingKeeper
from coord.client.recipes.blocking_leadership import BlockingLeadership
from coord.client.recipes.blocking_ownership import RETRY_S, BlockingLock, BlockingOwnership, Loss, Owning
from coord.client.recipes.blocking_registration import BlockingRegistration
from coord.client.recipes.blocking_running import GOODBYE_S, LOOK_S, Runner
from coord.client.recipes.checks import Health, checking_of
from coord.client.recipes.claimant import Claimant
from coord.client.recipes.contending import election_of, lock_of, read_lock_of, semaphore_of, write_lock_of
from coord.client.recipes.registrar import CHECK_INTERVAL_S, FAIL_AFTER, PASS_AFTER, Registrar
from coord.client.recipes.steps import TimeIsUp
from coord.client.recipes.tenure import Tenure
from coord.client.txn import Key, integer
from coord.errors import ClientClosed, CoordError, LockTimeout, OutcomeUnknown
from coord.types import LEASE_ID_MAX, LeaseId

_CLOSED: Final = "it was closed"


class BlockingSession:
    """A lease with its keep-alive, made by `BlockingClient.session`; for any number of threads.

        with client.session(ttl=10) as session:
            with session.lock("jobs/nightly", wait=30) as lock:
                client.put("jobs/last", b"...", fence=lock)

    A thread renews the lease every third of its TTL, over fail-over and reconnecting, whatever the others do. If no
    renewal is acknowledged in time, or the cluster has ended the lease, the session is lost, for good: `lost` is set,
    and whatever depends on it raises, before the cluster can give it to others. At the block's end the lease is
    revoked, and with it goes every key that is attached to it. A process that was forked off finds it lost (S21).
    """

    def __init__(
        self, calls: BlockingCalls, watching: BlockingCalls, keeper: BlockingKeeper, clock: Clock, ttl_s: int
    ) -> None:
        self.calls = calls
        self.watching = watching
        """The calls of the threads that watch over what is owned, which no call of the program holds up."""
        self.dependents: set[BlockingOwnership] = set()
        """What is owned and ends with the session."""
        self._keeper = keeper
        self._clock = clock
        self._wanted_ttl_s = integer(ttl_s)
        self.tenure = Tenure(clock, LeaseId(0))
        self.tenure.lose("it was not entered")
        self._was_entered = False
        self._is_closed = False
        self._loss = Loss()
        self._claims: dict[bytes, Claimant | threading.Event] = {}
        """By their keys those who hold or wait, or an event while the key of one that left is still to be removed."""
        self._claiming = threading.Lock()
        self._forks = forks.count()

    def __enter__(self) -> Self:
        if self._was_entered:
            raise ValueError("a session is entered once: make another one with client.session()")
        self._was_entered = True
        # Chosen here, so that a grant whose answer is lost can be undone, and the number of a retry is the same.
        lease = LeaseId(self.calls.rotation.random.randint(1, LEASE_ID_MAX))
        tenure = Tenure(self._clock, lease)
        sent_at = self._clock()
        try:
            answer = self.calls.call(verbs.lease_grant(self._wanted_ttl_s, lease), None)
            tenure.acknowledged(sent_at, answer.ttl_s)
            self.tenure = tenure
            self._keeper.add(self)
        except BaseException as error:
            self._keeper.discard(self)
            # What Ctrl-C or a lost answer leaves open is undone; what was refused is not there.
            if isinstance(error, OutcomeUnknown) or not isinstance(error, Exception):
                self._revoke(lease)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except BaseException:
            # S26: what Ctrl-C has left undone is done in the background.
            threading.Thread(target=self._finish, daemon=True).start()
            raise

    def close(self) -> None:
        """Revoke the lease: locks are released, registrations go. Takes a second at most.

        Where the cluster does not answer by then, the lease ends by itself.
        """
        if self._was_entered and not self._is_closed:
            self._finish()
            self._is_closed = True

    def _finish(self) -> None:
        if self.is_lost and not self.was_ended:
            # Nothing is to be revoked; after a fork it is the parent's, who goes on with it.
            return
        self.tenure.lose(_CLOSED)
        self.end()
        self._keeper.discard(self)
        self._revoke(self.tenure.lease)

    def _revoke(self, lease: LeaseId) -> None:
        with suppress(CoordError):
            self.calls.call(verbs.lease_revoke(lease), GOODBYE_S)

    @property
    def lease(self) -> LeaseId:
        """The lease: give it to `put` as `lease=`, and the key goes with the session."""
        return self.tenure.lease

    @property
    def ttl_s(self) -> int:
        """The TTL in seconds, as the cluster granted it, which may be more than what was asked for."""
        return self.tenure.ttl_s

    @property
    def is_lost(self) -> bool:
        """True once the lease has ended, or can no longer be proven to live."""
        return self.tenure.is_lost

    @property
    def lost(self) -> threading.Event:
        """Set once the session is lost or closed: for threads that wait, or that look now and then."""
        if self.is_lost:  # by the clock, though nobody has told it yet
            self._loss.tell()
        return self._loss.told

    @property
    def why_lost(self) -> str:
        """Why it is lost; empty while it is not."""
        return self.tenure.why_lost if self.tenure.is_lost else ""

    @property
    def remaining_s(self) -> float:
        """How many seconds it lives if no further renewal is acknowledged; 0 once it is lost."""
        return self.tenure.remaining_s

    def check(self) -> None:
        """Raise `SessionLost` if it is lost; without waiting."""
        self.tenure.check()

    # -- locks

    def lock(self, name: Key, *, wait: float | None = None, value: bytes = b"") -> AbstractContextManager[BlockingLock]:
        """Hold the lock `name` while the block runs: `with session.lock("jobs/nightly", wait=30) as lock: ...`.

        `wait` is how many seconds to wait for those who came first: None for ever, 0 tries once; then `LockTimeout` is
        raised. `value` is for people and programs who look at the contenders, which are the keys below `name/`. Raises
        `SessionLost` if the session is lost while it waits. If the lock is lost while the block runs, `lock.lost` is
        set and `LockLost` raised by what depends on it, by the end of the block at the latest. One thread of a session
        holds or waits for a name at a time: another one gets a `ValueError`, and needs a session of its own.
        """
        return Owning(BlockingLock(self, lock_of(self.tenure, name, value)), wait)

    def read_lock(
        self, name: Key, *, wait: float | None = None, value: bytes = b""
    ) -> AbstractContextManager[BlockingLock]:
        """Share the read-write lock `name` with other readers while the block runs; otherwise as `lock`.

        Who came first goes first: a reader waits for the writers before it, not for those after it. The fence tells
        whether this reader still holds it, and is higher than that of every writer before; of readers that hold it
        together it makes no order.
        """
        return Owning(BlockingLock(self, read_lock_of(self.tenure, name, value)), wait)

    def write_lock(
        self, name: Key, *, wait: float | None = None, value: bytes = b""
    ) -> AbstractContextManager[BlockingLock]:
        """Hold the read-write lock `name` alone while the block runs; otherwise as `lock`."""
        return Owning(BlockingLock(self, write_lock_of(self.tenure, name, value)), wait)

    def semaphore(
        self, name: Key, permits: int, *, wait: float | None = None, value: bytes = b""
    ) -> AbstractContextManager[BlockingLock]:
        """Hold one of the `permits` of the semaphore `name` while the block runs; otherwise as `lock`.

        All who use the name must say the same number, since each counts for itself. The fence tells whether this one
        still holds its permit; of those that hold one together it makes no order.
        """
        return Owning(BlockingLock(self, semaphore_of(self.tenure, name, permits, value)), wait)

    def double_barrier(self, name: Key, parties: int) -> BlockingDoubleBarrier:
        """Enter and leave a block together with others: `with session.double_barrier("step-1", 3): ...`.

        Entering returns once `parties` of them have come, the end of the block once all of these have left or are
        gone. Entering raises `SessionLost` if the session is lost meanwhile; a block that fails waits for nobody.
        """
        return BlockingDoubleBarrier(self, party_of(self.tenure, name, parties))

    # -- elections

    def lead(
        self, name: Key, value: bytes = b"", *, wait: float | None = None
    ) -> AbstractContextManager[BlockingLeadership]:
        """Be elected, and lead while the block runs: `with session.lead("db/primary", b"n1") as leadership: ...`.

        Candidates are elected in the order in which they came, one when the one before leaves. `value` is what
        `BlockingClient.observe` tells others of the owner. `wait`, and what follows from a loss, are as for `lock`;
        what is raised is `LeadershipLost`.
        """
        return Owning(BlockingLeadership(self, election_of(self.tenure, name, value)), wait)

    # -- the registry

    def register(
        self,
        service: Key,
        address: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        check: str | Callable[[], object] | None = None,
        check_interval: float = CHECK_INTERVAL_S,
        check_timeout: float | None = None,
        fail_after: int = FAIL_AFTER,
        pass_after: int = PASS_AFTER,
    ) -> BlockingRegistration:
        """Register an instance of `service` while the block runs, for `BlockingClient.discover` to find.

        `address` is what its users need to reach it; `metadata`, which JSON must know, what else they want to know. A
        session registers one instance of a service; another one needs a session of its own. At the block's end the
        instance is gone at once; after a crash it is when the lease expires.

        With `check` it is registered only while it is healthy. `"tcp://host:port"` must take a connection,
        `"http://host:port/path"` answer a GET with a status from 200 to 399, and a function neither return False nor
        raise; it runs in a thread of its own, and is not interrupted. It is done every `check_interval` seconds and
        fails if it takes longer than `check_timeout`, by default that long. The first check decides; then `fail_after`
        failures in a row withdraw the instance, and `pass_after` passes put it back.

        Entering waits for the cluster to take the instance, with a check not even that: what is checked may start
        inside of the block. An outage of the cluster is no reason not to serve: neither entering nor the block fails
        for it, and the instance is registered as soon as the cluster can be reached. The same holds after the
        session is lost, under a lease of its own then. Entering raises `SessionLost` if the session was lost before.
        """
        registrar = Registrar(service, address, metadata, is_healthy=check is None)
        checking = None if check is None else checking_of(check, check_interval, check_timeout)
        return BlockingRegistration(self, registrar, Health(fail_after, pass_after), checking)

    # -- for what is made of sessions

    @property
    def was_ended(self) -> bool:
        """It is lost because its block has ended, and not by any trouble."""
        return self.tenure.why_lost == _CLOSED

    def again(self) -> BlockingSession:
        """Return another session like this one, with a lease of its own, to be entered."""
        return BlockingSession(self.calls, self.watching, self._keeper, self._clock, self._wanted_ttl_s)

    def end(self) -> None:
        """Take the news that the lease is lost: tell what depends on it."""
        self._loss.tell()
        for dependent in tuple(self.dependents):
            dependent.end(self.why_lost)

    def claim(self, contender: Claimant, deadline: float) -> None:
        """Take a name for one thread; `leave` gives it back. Raises `ValueError` if another one has it.

        S26: while an earlier contender's key is still to be removed, this waits, or raises `LockTimeout`.
        """
        while True:
            with self._claiming:
                debt = self._claims.setdefault(contender.key, contender)
                if debt is contender:
                    return
            if not isinstance(debt, threading.Event):
                # S25: two threads would share one key, and both be taken for its owner.
                raise ValueError(
                    f"a thread of this session has or awaits {contender.name}: use a session for each thread"
                )
            debt.wait(max(min(deadline - time.monotonic(), LOOK_S), 0.0))
            self.check()
            if not debt.is_set() and time.monotonic() >= deadline:
                raise LockTimeout(f"{contender.name} was not acquired: what an earlier try left is not removed yet")

    def leave(self, contender: Claimant) -> bool:
        """Remove a contender's key, and tell whether it is gone: it is if the cluster answers within a second (S26)."""
        if self._forks != forks.count():
            # S21: the key is the parent's; and a thread that was not forked may hold the lock here.
            return True
        if self._claims.get(contender.key) is not contender:
            return True
        is_removed = False
        try:
            is_removed = self.is_lost  # the key has gone with the lease, or will
            if not is_removed:
                with suppress(CoordError, TimeIsUp):
                    Runner(self.calls).run(contender.leave(), time.monotonic() + GOODBYE_S)
                    is_removed = True
        finally:
            self.left(contender, is_removed)
        return is_removed

    def left(self, contender: Claimant, is_removed: bool) -> None:
        """Give a name back; a key that is not removed is a debt of the session. Does nothing the second time."""
        if self._forks != forks.count():
            return
        with self._claiming:
            if self._claims.get(contender.key) is not contender:
                return
            if is_removed:
                del self._claims[contender.key]
                return
            self._claims[contender.key] = debt = threading.Event()
            threading.Thread(target=self._settle, args=(contender, debt), daemon=True).start()

    def _settle(self, contender: Claimant, debt: threading.Event) -> None:
        """Remove what could not be removed in time; until then the session does not queue there again."""
        # By the same client as the put: what is still under way of that comes before this, or not at all (S18).
        while not self.is_lost:
            try:
                Runner(self.calls).run(contender.leave())
                break
            except ClientClosed:
                return
            except CoordError:
                self.lost.wait(RETRY_S)
        with self._claiming:
            self._claims.pop(contender.key, None)
        debt.set()
