"""Registering an instance of a service, for programs of threads."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from coord.client import forks
from coord.client.recipes.blocking_checking import ask_health
from coord.client.recipes.blocking_running import GOODBYE_S, LOOK_S, Runner
from coord.client.recipes.checks import Checking, Health
from coord.client.recipes.instances import Instance, instance_key
from coord.client.recipes.registrar import RETRY_S, Place, Registrar
from coord.client.recipes.steps import TimeIsUp
from coord.client.txn import key_bytes
from coord.errors import ClientClosed, ConnectionFailed, CoordError, DeadlineExceeded, NotFound, Unavailable
from coord.types import LeaseId

if TYPE_CHECKING:
    from coord.client.recipes.blocking_session import BlockingSession


class BlockingRegistration(AbstractContextManager["BlockingRegistration"]):
    """An instance that is registered while the block runs; made by `BlockingSession.register`.

        with session.register("api", "10.0.0.5:80", check="tcp://10.0.0.5:80") as registration:
            serve()

    S28: it is no ownership. Nothing that happens to the cluster or to the session concerns the block: after the session
    is lost the instance is registered again, as soon as the cluster can be reached, under a lease of its own.
    """

    def __init__(
        self, session: BlockingSession, registrar: Registrar, health: Health, checking: Checking | None
    ) -> None:
        self._session = session
        self._registrar = registrar
        self._health = health
        self._checking = checking
        service = key_bytes(registrar.service).decode(errors="backslashreplace")
        self._place = Place(instance_key(registrar.service, session.lease), f"registration of {service}")
        self._news = threading.Condition()
        """Told whenever what is wanted, or what stands, may have changed."""
        self._is_over = False
        self._keeping = threading.Thread(target=self._keep, name=f"coord {self._place.name}", daemon=True)
        self._forks = forks.count()
        self._trouble = ""

    def __repr__(self) -> str:
        state = "registered" if self.is_registered else f"not registered: {self.why_not}"
        return f"<{self._place.name} at {self._registrar.address}, {state}>"

    def __enter__(self) -> Self:
        session, registrar = self._session, self._registrar
        session.check()
        session.claim(self._place, math.inf)
        try:
            registrar.move_to(session.lease)
            if self._checking is None:
                # What time does not mend is told at once; an outage is no reason not to serve, nor is a lease that the
                # cluster has ended meanwhile (S28).
                with suppress(Unavailable, DeadlineExceeded, ConnectionFailed, NotFound):
                    Runner(session.calls).run(registrar.settle())
            self._keeping.start()
            if self._checking is not None:
                checks = threading.Thread(target=self._check, args=(self._checking,), daemon=True)
                checks.start()
        except BaseException:
            self._is_over = True
            session.leave(self._place)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._forks != forks.count():
                return  # S21: it is the parent's
            self._is_over = True
            self._tell()
            # What it still asks goes before what removes the key; and what it has not asked yet, it will not.
            self._keeping.join(GOODBYE_S)
            self._session.leave(self._place)
        except BaseException:
            # S26: what Ctrl-C has left undone is done in the background.
            self._is_over = True
            self._session.left(self._place, False)
            raise

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

    def update(self, metadata: Mapping[str, Any] | None, *, timeout: float | None = None) -> None:
        """Tell other metadata, in place of the former; return once they stand there, or the instance is withdrawn.

        Raises `TimeoutError` after `timeout` seconds, None waits for ever; they are told as soon as the cluster can be
        reached.
        """
        self._registrar.describe(metadata)
        self._tell()
        self._wait_until(lambda: self._registrar.is_settled, timeout)

    def wait_registered(self, timeout: float | None = None) -> None:
        """Return once it is registered: its checks pass, and the cluster has taken it.

        Raises `TimeoutError` after `timeout` seconds; None waits for ever.
        """
        self._wait_until(lambda: self.is_registered, timeout)

    def _wait_until(self, is_so: Callable[[], bool], timeout: float | None) -> None:
        with self._news:
            if not self._news.wait_for(lambda: is_so() or self._is_over, timeout):
                raise TimeoutError(f"{self._place.name}: not within {timeout:g} s: {self.why_not}")
            if not is_so():
                raise ClientClosed(f"the {self._place.name} has ended")

    def _check(self, checking: Checking) -> None:
        while not self._is_over:
            due = time.monotonic() + checking.interval_s
            if self._health.note(ask_health(checking.check, checking.timeout_s)):
                self._registrar.is_healthy = self._health.is_healthy
                self._tell()
            with self._news:
                self._news.wait_for(lambda: self._is_over, max(due - time.monotonic(), 0.0))

    def _keep(self) -> None:
        try:
            self._keep_under(self._session)
            while not self._is_over and not self._session.was_ended:
                # S28: what was registered is wanted though the cluster forgot it; under the lost lease it cannot be.
                try:
                    with self._session.again() as session:
                        self._registrar.move_to(session.lease)
                        self._keep_under(session)
                except ClientClosed:
                    return
                except CoordError as error:
                    self._trouble = str(error)
                self._rest(RETRY_S)
        finally:
            self._is_over = True
            self._registrar.move_to(0)
            self._tell()

    def _keep_under(self, session: BlockingSession) -> None:
        """Have it stand under a session's lease until that is lost."""
        runner = Runner(session.calls, lambda: self._is_over or session.is_lost)
        confirm_at = time.monotonic() + session.ttl_s
        while not self._is_over and not session.is_lost:
            try:
                if time.monotonic() >= confirm_at:
                    confirm_at = time.monotonic() + session.ttl_s
                    runner.run(self._registrar.confirm())
                runner.run(self._registrar.settle())
                self._trouble = ""
                self._tell()
            except TimeIsUp:
                break
            except CoordError as error:
                self._trouble = str(error)
                self._tell()
                self._rest(RETRY_S)
                continue
            with self._news:
                # A thread cannot wait for two things: so often it looks whether the session is lost.
                self._news.wait_for(lambda: self._is_over or not self._registrar.is_settled, LOOK_S)
        self._registrar.move_to(0)
        self._trouble = session.why_lost
        self._tell()

    def _rest(self, seconds: float) -> None:
        with self._news:
            self._news.wait_for(lambda: self._is_over, seconds)

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()
