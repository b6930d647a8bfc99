"""Programs that use the recipes as people would, watched by an `Observer`."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final

import trio
from attrs import define

import coord
from coord.client import op
from coord.client.client import Client
from coord.client.recipes.leadership import Leadership
from coord.client.recipes.session import Session
from coord.errors import CoordError, LockTimeout, OutcomeUnknown, OwnershipLost, SessionLost
from coord.testing.beliefs import Belief, Observer
from coord.testing.cluster import Cluster

TTL_S: Final = 5
EFFECT: Final = "effect/"
SERVICE: Final = "api"
QUEUE: Final = "jobs"
LEAD: Final = "lead"
PARTY: Final = "party"
_QUEUE_WAIT_S: Final = 1.0


@define(eq=False)
class Life:
    """One run of a program."""

    cluster: Cluster
    observer: Observer
    chance: random.Random
    name: str
    run: str
    kinds: tuple[str, ...]

    async def live(self) -> None:
        """Open clients and sessions, one after the other, and use them until the end."""
        while not self.observer.is_over:
            try:
                async with self.cluster.client(timeout=4.0) as client:
                    await self._use(client)
            except* CoordError:
                await trio.sleep(0.2)

    async def _use(self, client: Client) -> None:
        async with (
            client.session(ttl=TTL_S) as registering,
            client.discover(SERVICE) as view,
            trio.open_nursery() as nursery,
        ):
            self.observer.views[self.run] = lambda: sorted(instance.address for instance in view)
            nursery.start_soon(self._serve, registering)
            nursery.start_soon(self._observe, client)
            if self.chance.random() < 0.5:
                nursery.start_soon(self._queue, client)
            if self.chance.random() < 0.5:
                nursery.start_soon(self._meet, client)
            while not self.observer.is_over:
                with suppress(CoordError):
                    async with client.session(ttl=TTL_S) as session:
                        while not (session.is_lost or self.observer.is_over):
                            await self._contend(client, session)
                        self.observer.happened["sessions lost"] += session.is_lost
                await trio.sleep(0.2)

    # -- owning

    async def _contend(self, client: Client, session: Session) -> None:
        kind = self.chance.choice(self.kinds)
        name = "rw" if kind in ("read", "write") else kind
        wait = self.chance.choice((None, 0.0, 0.5, 3.0, 20.0))
        limit_s = self.chance.choice((0.004, 0.05, 1.0)) if self.chance.random() < 0.2 else 60.0
        with trio.move_on_after(limit_s):
            try:
                async with owning_of(session, kind, name, wait, self.run) as owned:
                    self.observer.enter(Belief(owned, name, kind, self.run))
                    await self._work(client, owned, name, kind)
            except LockTimeout:
                self.observer.happened["waits that timed out"] += 1
                self._assert_left(session, contender_key(kind, name, session))
            except OwnershipLost:
                self.observer.happened["ownerships lost"] += 1
            except SessionLost:
                pass
        await trio.sleep(self.chance.choice((0.0, 0.1, 0.6)))

    async def _work(self, client: Client, owned: Any, name: str, kind: str) -> None:
        if kind in ("lock", "write", "lead"):
            for _ in range(self.chance.randint(1, 3)):
                await self._do(client, owned, name)
        if isinstance(owned, Leadership) and self.chance.random() < 0.3:
            await owned.proclaim(self.run.encode())
            if self.chance.random() < 0.5:
                self.observer.happened["resigned"] += 1
                await owned.resign()
        await trio.sleep(self.chance.choice((0.0, 0.05, 0.5) if self.observer.is_calm else (0.0, 0.5, 3.0, 8.0)))
        owned.check()

    async def _do(self, client: Client, owned: Any, name: str) -> None:
        """Do what only an owner may: by a put, or by either branch of a transaction."""
        key, value = EFFECT + name, b"%d" % owned.fence
        if self.chance.random() < 0.5:
            await client.put(key, value, fence=owned)
        else:
            is_first = coord.version(key) == 0
            await client.txn(when=[is_first], then=[op.put(key, value)], orelse=[op.put(key, value)], fence=owned)
        self.observer.happened["effects"] += 1
        await trio.sleep(self.chance.choice((0.0, 0.02, 0.3)))

    def _assert_left(self, session: Session, key: bytes) -> None:
        """S26: who waited in vain leaves no key, unless it owes the removal to a cluster that does not answer."""
        owes = session._claims.get(key) is not None
        if session.is_lost or (owes and not self.observer.is_quiet):
            return
        nodes = [member.node for member in self.cluster.members.values() if member.node is not None]
        newest = max((node.machine for node in nodes), key=lambda machine: machine.applied_index)
        # Who has applied all that anybody has committed knows of every acknowledged removal.
        if newest.applied_index >= len(self.cluster.ledger.entries) and key in newest.lease_keys(session.lease):
            self.observer.complain(f"{self.run} waited in vain, and left {key!r}")

    # -- the others

    async def _serve(self, session: Session) -> None:
        """S28: whatever happens, only this program ends it."""
        try:
            async with session.register(SERVICE, self.name):
                await self.observer.over.wait()
        finally:
            if not self.observer.is_over and self.observer.running.get(self.name) == self.run:
                self.observer.complain(f"{self.run} was to be registered until the end, and is not")

    async def _observe(self, client: Client) -> None:
        async with trio.open_nursery() as nursery:

            async def hear() -> None:
                while True:
                    with suppress(CoordError):
                        async with client.observe(LEAD) as owners:
                            async for owner in owners:
                                if owner is not None:
                                    self.observer.hear(self.run, owner.fence)

            nursery.start_soon(hear)
            await self.observer.over.wait()
            nursery.cancel_scope.cancel()

    async def _meet(self, client: Client) -> None:
        """Meet one other, again and again; who waits in vain goes away."""
        while not self.observer.is_over:
            await trio.sleep(self.chance.choice((0.1, 1.0)))
            with suppress(CoordError):
                async with client.session(ttl=TTL_S) as session:
                    visit = self.observer.come(self.run)
                    try:
                        with trio.move_on_after(self.chance.choice((0.02, 3.0))):
                            async with session.double_barrier(PARTY, 2):
                                self.observer.meet(self.run, visit)
                    finally:
                        visit.append(trio.current_time())

    async def _queue(self, client: Client) -> None:
        queue, observer = client.queue(QUEUE), self.observer
        while not observer.is_over:
            item = b"%d" % len(observer.put)
            observer.put[item] = False
            with suppress(CoordError):
                await queue.put(item)
                observer.put[item] = True
            observer.doubtful_gets += 1
            try:
                with trio.move_on_after(_QUEUE_WAIT_S):
                    observer.consumed[await queue.get()] += 1
                observer.doubtful_gets -= 1
            except OutcomeUnknown:
                observer.happened["gets of unknown outcome"] += 1
            except CoordError:
                observer.doubtful_gets -= 1
            await trio.sleep(self.chance.choice((0.2, 1.0)))


def owning_of(
    session: Session, kind: str, name: str, wait: float | None, value: str
) -> AbstractAsyncContextManager[Any]:
    """Return what a program enters to own `name`."""
    text = value.encode()
    kinds: dict[str, Callable[[], AbstractAsyncContextManager[Any]]] = {
        "lock": lambda: session.lock(name, wait=wait, value=text),
        "read": lambda: session.read_lock(name, wait=wait, value=text),
        "write": lambda: session.write_lock(name, wait=wait, value=text),
        "semaphore": lambda: session.semaphore(name, 2, wait=wait, value=text),
        "lead": lambda: session.lead(name, value=text, wait=wait),
    }
    return kinds[kind]()


def contender_key(kind: str, name: str, session: Session) -> bytes:
    """Return the key of a session's contender."""
    inner = f"{kind}/" if kind in ("read", "write") else ""
    return f"{name}/{inner}{session.lease:x}".encode()


async def drain(client: Client, take: Callable[[bytes], Awaitable[None] | None]) -> None:
    """Take what is left in the queue."""
    queue = client.queue(QUEUE)
    while True:
        with trio.move_on_after(_QUEUE_WAIT_S) as limit:
            take(await queue.get())
        if limit.cancelled_caught:
            return
