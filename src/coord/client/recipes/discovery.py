"""The instances of a service, for Trio programs."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, suppress
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from coord.client.recipes.instances import Instance
from coord.client.recipes.live_range import LiveRange
from coord.client.recipes.service_view import ServiceView
from coord.client.txn import Key
from coord.errors import ClientClosed
from coord.types import prefix_end

if TYPE_CHECKING:
    from coord.client.client import Client


class Discovery(ServiceView, AbstractAsyncContextManager["Discovery"]):
    """A live view of a service's instances; made by `Client.discover`.

        async with client.discover("api") as api:
            instance = api.pick()                       # an Instance: address, metadata
            with api.use() as instance: ...             # the least used one
            for instance in api: ...
            await api.changed()

    Entering reads who is there, and raises what a read raises. From then on nothing here asks the cluster or waits for
    it: while it is away the view serves what was last known, and `is_stale` says so. Any number of tasks may use it.
    """

    def __init__(
        self, client: Client, nursery: trio.Nursery, service: Key, random: Random, timeout: float | None
    ) -> None:
        super().__init__(service, random, client.clock)
        self._live = LiveRange(client, self._prefix, prefix_end(self._prefix), timeout)
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._news = trio.Event()

    async def __aenter__(self) -> Discovery:
        await self._live.__aenter__()
        self._take()
        self._nursery.start_soon(self._follow)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self._ended.wait()

    async def changed(self, since: int | None = None) -> tuple[Instance, ...]:
        """Wait until the instances have changed, and return them; several changes may be told as one.

        It returns at once if `version` is no longer `since`, so that nothing is missed that happened during other work:

            known = -1
            while True:
                instances, known = await api.changed(known), api.version

        Left out, it is the version of now. Raises `ClientClosed` when the view is left meanwhile.
        """
        known = self._version if since is None else since
        await trio.lowlevel.checkpoint()
        while self._version == known:
            if self._ended.is_set():
                raise ClientClosed("the view of the service was closed")
            await self._news.wait()
        return self._instances

    async def _follow(self) -> None:
        try:
            with self._scope, suppress(ClientClosed):
                while True:
                    await self._live.next()
                    self._take()
        finally:
            # Whoever holds on to it has the last list, as in an outage.
            self._note_live(False)
            await self._live.__aexit__(None, None, None)
            self._ended.set()
            self._tell()

    def _take(self) -> None:
        self._note_live(self._live.is_live)
        if self._show(self._live.kvs):
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()
