"""The instances of a service, for programs of threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Self

from coord.client import forks
from coord.client.recipes.blocking_live_range import BlockingLiveRange
from coord.client.recipes.blocking_running import LOOK_S
from coord.client.recipes.instances import Instance
from coord.client.recipes.picking import Policy
from coord.client.recipes.service_view import ServiceView
from coord.client.txn import Key
from coord.errors import ClientClosed
from coord.types import prefix_end

if TYPE_CHECKING:
    from coord.client.blocking import BlockingClient


class BlockingDiscovery(ServiceView, AbstractContextManager["BlockingDiscovery"]):
    """A live view of a service's instances; made by `BlockingClient.discover`.

        with client.discover("api") as api:
            instance = api.pick()                       # an Instance: address, metadata
            with api.use() as instance: ...             # the least used one
            for instance in api: ...
            api.changed()

    Entering reads who is there, and raises what a read raises. From then on a thread follows the cluster, and nothing
    else here waits for it: while it is away the view serves what was last known, and `is_stale` says so. Any number of
    threads may use it.
    """

    def __init__(self, client: BlockingClient, service: Key, random: Random, timeout: float | None) -> None:
        super().__init__(service, random, time.monotonic)
        self._live = BlockingLiveRange(client, self._prefix, prefix_end(self._prefix), timeout)
        self._is_over = False
        self._forks = forks.count()
        self._news = threading.Condition()
        """Held while the view is changed, and while somebody picks."""

    def __enter__(self) -> Self:
        self._live.__enter__()
        self._take()
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._be_of_this_process()
        with self._news:
            self._is_over = True
            # Whoever holds on to it has the last list, as in an outage.
            self._note_live(False)
            self._news.notify_all()

    @property
    def is_stale(self) -> bool:
        """The cluster cannot be heard, so that the view may be old: it shows what was last known.

        A node that falls silent is found out within 10 s, one that has lost its leader within an election timeout.
        """
        self._be_of_this_process()
        return super().is_stale

    def pick(self, policy: Policy = "round_robin", *, where: Callable[[Instance], bool] | None = None) -> Instance:
        """Return one of the instances; with `where`, one of those for which it is true. As `ServiceView.pick`."""
        self._be_of_this_process()
        with self._news:
            return super().pick(policy, where=where)

    @contextmanager
    def use(
        self, policy: Policy = "least_used", *, where: Callable[[Instance], bool] | None = None
    ) -> Iterator[Instance]:
        """Pick an instance for the length of a `with` block, so that `least_used` counts it. Raises `NoInstance`."""
        self._be_of_this_process()
        with self._news:
            # Counted before another thread picks.
            using = super().use(policy, where=where)
            instance = using.__enter__()
        try:
            yield instance
        finally:
            with self._news:
                using.__exit__(None, None, None)

    def changed(self, since: int | None = None, *, timeout: float | None = None) -> tuple[Instance, ...]:
        """Wait until the instances have changed, and return them; several changes may be told as one.

        It returns at once if `version` is no longer `since`, so that nothing is missed that happened during other work:

            known = -1
            while True:
                instances, known = api.changed(known), api.version

        Left out, it is the version of now. Raises `TimeoutError` after `timeout` seconds, None waits for ever, and
        `ClientClosed` when the view is left meanwhile.
        """
        self._be_of_this_process()
        with self._news:
            known = self._version if since is None else since
            if not self._news.wait_for(lambda: self._version != known or self._is_over, timeout):
                raise TimeoutError(f"the instances of {self.service} have not changed within {timeout:g} s")
            if self._version == known:
                raise ClientClosed("the view of the service was closed")
            return self._instances

    def _start(self) -> None:
        threading.Thread(target=self._follow, name=f"coord discover {self.service}", daemon=True).start()

    def _be_of_this_process(self) -> None:
        """Follow anew in a process that was forked off, which has none of the threads (S21)."""
        if self._forks != forks.count():
            self._forks = forks.count()
            self._news = threading.Condition()
            if not self._is_over:
                self._start()

    def _follow(self) -> None:
        try:
            while not self._is_over:
                self._live.next(LOOK_S)
                self._take()
        except ClientClosed:
            with self._news:
                self._note_live(False)
        finally:
            self._live.__exit__(None, None, None)

    def _take(self) -> None:
        with self._news:
            if not self._is_over:
                self._note_live(self._live.is_live)
                if self._show(self._live.kvs):
                    self._news.notify_all()
