"""Observing who owns a name, for Trio programs."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self

import trio

from coord.client.recipes.contending import interval_of
from coord.client.recipes.live_range import LiveRange
from coord.client.recipes.owners import Owner, owner_among
from coord.client.txn import Key, key_bytes

if TYPE_CHECKING:
    from coord.client.client import Client


class Observation(AbstractAsyncContextManager["Observation"]):
    """The owners of an election or a lock, one after the other; made by `Client.observe`.

        async with client.observe("db/primary") as owners:
            async for owner in owners:      # an Owner: key, value, fence, lease; None while there is nobody
                ...

    The first is who owns it now, be it None; then comes who does after each change of owner or proclaimed value. Who
    iterates slowly is told the newest, and may miss some in between. No owner is followed by an earlier one: each has
    a higher `fence`. It goes on over fail-over and compaction; while the cluster is away nothing comes, and `is_stale`
    says so: who was told last may have lost it. One task at a time may iterate.
    """

    def __init__(self, client: Client, name: Key, timeout: float | None) -> None:
        self._prefix = key_bytes(name) + b"/"
        self._live = LiveRange(client, *interval_of(self._prefix), timeout)
        self._told: Owner | None = None
        self._has_told = False

    async def __aenter__(self) -> Self:
        await self._live.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._live.__aexit__(kind, error, trace)

    @property
    def is_stale(self) -> bool:
        """The cluster cannot be heard, so that the owner may be another by now."""
        return not self._live.is_live

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Owner | None:
        """Return the owner once it is another than the one that was told last, or has another value."""
        await trio.lowlevel.checkpoint()
        while True:
            owner = owner_among(self._prefix, self._live.kvs.values())
            if not self._has_told or owner != self._told:
                self._told, self._has_told = owner, True
                return owner
            await self._live.next()
