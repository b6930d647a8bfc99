"""Registering an instance of a service, for Trio programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

import trio

from coord.client.recipes.checking import watch_health
from coord.client.recipes.checks import Checking, Health
from coord.client.recipes.instances import Instance, instance_key
from coord.client.recipes.registrar import RETRY_S, Place, Registrar
from coord.client.recipes.running import run
from coord.client.txn import key_bytes
from coord.errors import ClientClosed, ConnectionFailed, CoordError, DeadlineExceeded, NotFound, Unavailable
from coord.types import LeaseId

if TYPE_CHECKING:
    from coord.client.recipes.session import Session


class Registration(AbstractAsyncContextManager["Registration"]):
    """An instance that is registered while the block runs; made by `Session.register`.

        async with session.register("api", "10.0.0.5:80", check="tcp://10.0.0.5:80") as registration:
            await serve()

    S28: it is no ownership. Nothing that happens to the cluster or to the session ends the block: after the session is
    lost the instance is registered again, as soon as the cluster can be reached, under a lease of its own.
    """

    def __init__(self, session: Session, registrar: Registrar, health: Health, checking: Checking | None) -> None:
        self._session = session
        self._registrar = registrar
        self._health = health
        self._checking = checking
        service = key_bytes(registrar.service).decode(errors="backslashreplace")
        self._place = Place(instance_key(registrar.service, session.lease), f"registration of {service}")
        self._scope = trio.CancelScope()
        self._news = trio.Event()
        self._changed = trio.Event()
        self._ended = trio.Event()
        self._trouble = ""

    def __repr__(self) -> str:
        state = "registered" if self.is_registered else f"not registered: {self.why_not}"
        return f"<{self._place.name} at {self._registrar.address}, {state}>"

    async def __aenter__(self) -> Registration:
        session, registrar = self._session, self._registrar
        session.check()
        await session.claim(self._place, math.inf)
        try:
            registrar.move_to(session.lease)
            if self._checking is None:
                # What time does not mend is told at once; an outage is no reason not to serve, nor is a lease that the
                # cluster has ended meanwhile (S28).
                with suppress(Unavailable, DeadlineExceeded, ConnectionFailed, NotFound):
                    await run(session.driver, registrar.settle())
        except BaseException:
            await session.leave(self._place)
            raise
        session.nursery.start_soon(self._run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            # No longer than the goodbye to a lease of its own.
            await self._ended.wait()
        await self._session.leave(self._place)

    @property
    def instance(self) -> Instance:
        """What others see of it while it is registered."""
        registrar = self._registrar
        metadata = MappingProxyType(dict(registrar.metadata or {}))
        return Instance(registrar.address, metadata, registrar.key, LeaseId(registrar.lease))

    @property
    def is_registered(self) -> bool:
        """It stands in the registry, as far as is known."""
        return self._registrar.is_registered

    @property
    def is_healthy(self) -> bool:
        """Its checks pass; True without any."""
        return self._registrar.is_healthy

    @property
    def why_not(self) -> str:
        """Why it is not registered: what the last check said, or the last try; empty if it is."""
        if self.is_registered:
            return ""
        if not self.is_healthy:
            return self._health.why_not
        return self._trouble or "it is being registered"

    async def update(self, metadata: Mapping[str, Any] | None) -> None:
        """Tell other metadata, in place of the former; return once they stand there, or the instance is withdrawn.

        Cancelled, or while the cluster is away, they are told as soon as it can be reached.
        """
        self._registrar.describe(metadata)
        self._wake()
        await self._wait_until(lambda: self._registrar.is_settled)

    async def wait_registered(self) -> None:
        """Return once it is registered: its checks pass, and the cluster has taken it."""
        await self._wait_until(lambda: self.is_registered)

    async def _wait_until(self, is_so: Callable[[], bool]) -> None:
        await trio.lowlevel.checkpoint()
        while not is_so():
            if self._ended.is_set():
                raise ClientClosed(f"the {self._place.name} has ended")
            await self._changed.wait()

    async def _run(self) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._keep)
                    if (checking := self._checking) is not None:
                        check, interval_s, timeout_s = checking.check, checking.interval_s, checking.timeout_s
                        nursery.start_soon(watch_health, check, self._health, interval_s, timeout_s, self._judge)
        finally:
            self._registrar.move_to(0)
            self._ended.set()
            self._tell()

    def _judge(self) -> None:
        self._registrar.is_healthy = self._health.is_healthy
        self._wake()

    async def _keep(self) -> None:
        await self._keep_under(self._session)
        if self._session.was_ended:
            # With all that goes with it.
            self._scope.cancel()
        while True:
            # S28: what was registered is wanted though the cluster forgot it; under the lost lease it cannot be.
            session = self._session.again()
            try:
                async with session:
                    self._registrar.move_to(session.lease)
                    await self._keep_under(session)
            except CoordError as error:
                self._trouble = str(error)
            await trio.sleep(RETRY_S)

    async def _keep_under(self, session: Session) -> None:
        """Have it stand under a session's lease until that is lost."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._settle, session)
            await session.wait_lost()
            nursery.cancel_scope.cancel()
        self._registrar.move_to(0)
        self._trouble = session.why_lost
        self._tell()

    async def _settle(self, session: Session) -> None:
        while True:
            news = self._news
            try:
                await run(session.driver, self._registrar.settle())
                self._trouble = ""
                self._tell()
                with trio.move_on_after(session.ttl_s):
                    await news.wait()
                if not news.is_set():
                    await run(session.driver, self._registrar.confirm())
            except CoordError as error:
                self._trouble = str(error)
                self._tell()
                await trio.sleep(RETRY_S)

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
