"""A session: a lease that its client keeps alive, and what depends on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Any, Self

import trio

from coord.client import verbs
from coord.client.clock import Clock
from coord.client.driver import Driver
from coord.client.recipes.barrier import DoubleBarrier
from coord.client.recipes.barriers import party_of
from coord.client.recipes.checking import CheckFunction
from coord.client.recipes.checks import Health, checking_of
from coord.client.recipes.claimant import Claimant, Dependent
from coord.client.recipes.contending import election_of, lock_of, read_lock_of, semaphore_of, write_lock_of
from coord.client.recipes.keeper import Keeper
from coord.client.recipes.leadership import Leadership
from coord.client.recipes.lookout import Lookout
from coord.client.recipes.ownership import GOODBYE_S, RETRY_S, Lock, Owning
from coord.client.recipes.registrar import CHECK_INTERVAL_S, FAIL_AFTER, PASS_AFTER, Registrar
from coord.client.recipes.registration import Registration
from coord.client.recipes.running import run
from coord.client.recipes.steps import TimeIsUp, ask
from coord.client.recipes.tenure import Tenure
from coord.client.txn import Key, integer
from coord.errors import CoordError, LockTimeout, OutcomeUnknown
from coord.types import LEASE_ID_MAX, LeaseId


class Session:
    """A lease with its keep-alive, made by `Client.session`; for any number of tasks.

        async with client.session(ttl=10) as session:
            async with session.lock("jobs/nightly", wait=30) as lock:
                await client.put("jobs/last", b"...", fence=lock)

    The lease is renewed every third of its TTL, over fail-over and reconnecting. If no renewal is acknowledged in
    time, or the cluster has ended the lease, the session is lost, for good: what depends on it is cancelled before the
    cluster can give it to others, though the block of the session itself goes on. At the block's end the lease is
    revoked, and with it goes every key that is attached to it.
    """

    def __init__(
        self, driver: Driver, nursery: trio.Nursery, keeper: Keeper, lookout: Lookout, clock: Clock, ttl_s: int
    ) -> None:
        self.driver = driver
        self.nursery = nursery
        self.lookout = lookout
        self.dependents: dict[Dependent, None] = {}
        """What is owned, or waited for, and ends with the session."""
        self._keeper = keeper
        self._clock = clock
        self._wanted_ttl_s = integer(ttl_s)
        self.tenure = Tenure(clock, LeaseId(0))
        self.tenure.lose("it was not entered")
        self._was_entered = False
        self._is_closed = False
        self._end = trio.Event()
        self._claims: dict[bytes, trio.Event | None] = {}
        """Keys of contenders: None while one holds or waits, an event while one that left is still to be removed."""

    async def __aenter__(self) -> Self:
        if self._was_entered:
            raise ValueError("a session is entered once: make another one with client.session()")
        self._was_entered = True
        # Chosen here, so that a grant whose answer is lost can be undone, and the number of a retry is the same.
        lease = LeaseId(self.driver.core.rotation.random.randint(1, LEASE_ID_MAX))
        tenure = Tenure(self._clock, lease)
        sent_at = self._clock()
        grant = verbs.lease_grant(self._wanted_ttl_s, lease)
        try:
            reply = await run(self.driver, ask(grant))
        except (trio.Cancelled, KeyboardInterrupt, OutcomeUnknown):
            await self._revoke(lease)
            raise
        tenure.acknowledged(sent_at, reply.answer.ttl_s)
        self.tenure = tenure
        self._keeper.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Revoke the lease: locks are released, registrations go. Takes a second at most, also when cancelled.

        Where the cluster does not answer by then, the lease ends by itself.
        """
        if self._is_closed or not self._was_entered:
            return
        self._is_closed = True
        self._keeper.discard(self)
        self.tenure.lose("it was closed")
        self.end()
        await self._revoke(self.tenure.lease)

    async def _revoke(self, lease: LeaseId) -> None:
        with trio.move_on_after(GOODBYE_S, shield=True), suppress(CoordError):
            await run(self.driver, ask(verbs.lease_revoke(lease)))

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

    async def wait_lost(self) -> None:
        """Return once the session is lost, or closed."""
        await self._end.wait()

    # -- locks

    def lock(self, name: Key, *, wait: float | None = None, value: bytes = b"") -> AbstractAsyncContextManager[Lock]:
        """Hold the lock `name` while the block runs: `async with session.lock("jobs/nightly", wait=30) as lock: ...`.

        `wait` is how many seconds to wait for those who came first: None for ever, 0 tries once; then `LockTimeout` is
        raised. `value` is for people and programs who look at the contenders, which are the keys below `name/`. Raises
        `SessionLost` if the session is lost while it waits. If the lock is lost while the block runs, it is cancelled,
        and `LockLost` is raised from it. One task of a session holds or waits for a name at a time: another one gets a
        `ValueError`, and needs a session of its own.
        """
        return Owning(Lock(self, lock_of(self.tenure, name, value)), wait)

    def read_lock(
        self, name: Key, *, wait: float | None = None, value: bytes = b""
    ) -> AbstractAsyncContextManager[Lock]:
        """Share the read-write lock `name` with other readers while the block runs; otherwise as `lock`.

        Who came first goes first: a reader waits for the writers before it, not for those after it. The fence tells
        whether this reader still holds it, and is higher than that of every writer before; of readers that hold it
        together it makes no order.
        """
        return Owning(Lock(self, read_lock_of(self.tenure, name, value)), wait)

    def write_lock(
        self, name: Key, *, wait: float | None = None, value: bytes = b""
    ) -> AbstractAsyncContextManager[Lock]:
        """Hold the read-write lock `name` alone while the block runs; otherwise as `lock`."""
        return Owning(Lock(self, write_lock_of(self.tenure, name, value)), wait)

    def semaphore(
        self, name: Key, permits: int, *, wait: float | None = None, value: bytes = b""
    ) -> AbstractAsyncContextManager[Lock]:
        """Hold one of the `permits` of the semaphore `name` while the block runs; otherwise as `lock`.

        All who use the name must say the same number, since each counts for itself. The fence tells whether this one
        still holds its permit; of those that hold one together it makes no order.
        """
        return Owning(Lock(self, semaphore_of(self.tenure, name, permits, value)), wait)

    # -- elections

    def lead(
        self, name: Key, value: bytes = b"", *, wait: float | None = None
    ) -> AbstractAsyncContextManager[Leadership]:
        """Be elected, and lead while the block runs: `async with session.lead("db/primary", b"n1") as leadership: ...`.

        Candidates are elected in the order in which they came, one when the one before leaves. `value` is what
        `Client.observe` tells others of the owner. `wait` is as for `lock`. If the leadership is lost while the block
        runs, it is cancelled, and `LeadershipLost` is raised from it.
        """
        return Owning(Leadership(self, election_of(self.tenure, name, value)), wait)

    def double_barrier(self, name: Key, parties: int) -> DoubleBarrier:
        """Enter and leave a block together with others: `async with session.double_barrier("step-1", 3): ...`.

        Entering waits until `parties` sessions are there, and the end of the block until all of these have come to
        theirs. Who fails holds up nobody for long: a block that raises has left at once, a process that crashes when
        its lease expires. Those who come beyond `parties` make the next round. All must say the same number. Entering
        raises `SessionLost` if the session is lost meanwhile; a loss inside of the block does not end it.
        """
        return DoubleBarrier(self, party_of(self.tenure, name, parties))

    # -- the registry

    def register(
        self,
        service: Key,
        address: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        check: str | CheckFunction | None = None,
        check_interval: float = CHECK_INTERVAL_S,
        check_timeout: float | None = None,
        fail_after: int = FAIL_AFTER,
        pass_after: int = PASS_AFTER,
    ) -> Registration:
        """Register an instance of `service` while the block runs, for `Client.discover` to find.

        `address` is what its users need to reach it; `metadata`, which JSON must know, what else they want to know. A
        session registers one instance of a service; another one needs a session of its own. At the block's end the
        instance is gone at once; after a crash it is when the lease expires.

        With `check` it is registered only while it is healthy. `"tcp://host:port"` must take a connection,
        `"http://host:port/path"` answer a GET with a status from 200 to 399, and a function, plain or async, neither
        return False nor raise; a plain one runs on the event loop and must not block. It is done every `check_interval`
        seconds and fails if it takes longer than `check_timeout`, by default that long. The first check decides; then
        `fail_after` failures in a row withdraw the instance, and `pass_after` passes put it back.

        Entering waits for the cluster to take the instance, with a check not even that: what is checked may start
        inside of the block. An outage of the cluster is no reason not to serve: neither entering nor the block fails
        for it, and the instance is registered as soon as the cluster can be reached. The same holds after the
        session is lost, under a lease of its own then. Entering raises `SessionLost` if the session was lost before.
        """
        registrar = Registrar(service, address, metadata, is_healthy=check is None)
        checking = None if check is None else checking_of(check, check_interval, check_timeout)
        return Registration(self, registrar, Health(fail_after, pass_after), checking)

    # -- for what is made of sessions

    @property
    def was_ended(self) -> bool:
        """It is lost because it was closed, and not by any trouble."""
        return self._is_closed

    def again(self) -> Session:
        """Return another session like this one, with a lease of its own, to be entered."""
        return Session(self.driver, self.nursery, self._keeper, self.lookout, self._clock, self._wanted_ttl_s)

    def end(self) -> None:
        """Take the news that the lease is lost: cancel what depends on it."""
        self._end.set()
        for dependent in tuple(self.dependents):
            dependent.end(self.why_lost)
        for debt in self._claims.values():
            if debt is not None:
                debt.set()

    async def claim(self, contender: Claimant, deadline: float) -> None:
        """Take a name for one task; `leave` gives it back. Raises `ValueError` if another one has it.

        S26: while an earlier contender's key is still to be removed, this waits, or raises `LockTimeout`.
        """
        while (debt := self._claims.get(contender.key)) is not None:
            with trio.move_on_at(deadline):
                await debt.wait()
            self.check()
            if not debt.is_set():
                raise LockTimeout(f"{contender.name} was not acquired: what an earlier try left is not removed yet")
        # S25: two tasks would share one key, and both be taken for its owner.
        if contender.key in self._claims:
            raise ValueError(f"a task of this session has or awaits {contender.name}: use a session for each task")
        self._claims[contender.key] = None

    async def leave(self, contender: Claimant, when_sent: Callable[[], object] | None = None) -> bool:
        """Remove a contender's key, and tell whether it is gone: it is if the cluster answers within a second (S26).

        `when_sent` is called once it was asked for, if it is.
        """
        is_removed = self.is_lost  # the key has gone with the lease, or will
        try:
            is_removed = is_removed or await self._remove(contender, when_sent)
        finally:
            if is_removed:
                del self._claims[contender.key]
            else:
                self._claims[contender.key] = trio.Event()
                self.nursery.start_soon(self._settle, contender)
        return is_removed

    async def _remove(self, contender: Claimant, when_sent: Callable[[], object] | None) -> bool:
        with suppress(CoordError, TimeIsUp):
            await run(self.driver, contender.leave(), GOODBYE_S, when_sent)
            return True
        return False

    async def _settle(self, contender: Claimant) -> None:
        """Remove what could not be removed in time; until then the session does not queue there again."""
        while not self.is_lost:
            with suppress(CoordError):
                await run(self.driver, contender.leave())
                break
            await trio.sleep(RETRY_S)
        debt = self._claims.pop(contender.key)
        assert debt is not None
        debt.set()
