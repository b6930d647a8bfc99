"""A watch of the Trio client."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import trio

from coord.client.calls import Subscription
from coord.client.driver import Driver
from coord.client.responses import Batch
from coord.client.watching import WatchState
from coord.errors import ClientClosed
from coord.types import Revision


class Watch:
    """Batches of events, one revision each, in order and without a gap; made by `Client.watch`.

        async with client.watch("cfg/", prefix=True) as watch:
            async for batch in watch:
                for event in batch.events: ...

    Entering waits until the watch stands: what happens from then on is seen. It goes on by itself after a lost
    connection, through any endpoint. One task at a time may iterate. Iterating raises `Compacted` when what the watch
    needs next is compacted away.
    """

    def __init__(self, driver: Driver, state: WatchState, timeout: float | None) -> None:
        self._driver = driver
        self._subscription = Subscription(state)
        self._timeout = timeout
        self._was_live = True

    async def __aenter__(self) -> Self:
        await self._driver.subscribe(self._subscription, self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._driver.unsubscribe(self._subscription)
        if self._subscription.error is None:
            self._subscription.error = ClientClosed("the watch was closed")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """Return the next batch.

        Batches that came together are handed out without a pause between them, so that a frame costs its watcher
        one wake-up; their number is bounded.
        """
        subscription = self._subscription
        if not subscription.batches:
            await self._wait()
        return subscription.batches.popleft()

    async def news(self) -> list[Batch]:
        """Wait until batches have come or `is_live` has changed; return the batches, perhaps none."""
        subscription = self._subscription
        if not subscription.batches and self.is_live is self._was_live:
            self._take_up()
            while not subscription.batches and self.is_live is self._was_live:
                if subscription.error is not None:
                    raise subscription.error
                await self._driver.wait_news(subscription)
        self._was_live = self.is_live
        return self.take()

    def take(self) -> list[Batch]:
        """Return the batches that have come, without waiting."""
        batches = list(self._subscription.batches)
        self._subscription.batches.clear()
        return batches

    @property
    def is_live(self) -> bool:
        """A node feeds the watch; False while the client looks for one that does, and what happens is told later."""
        return self._subscription.connection is not None or self._subscription.is_paused

    @property
    def next_revision(self) -> Revision:
        """The first revision that has not arrived; from there another watch would go on."""
        return Revision(self._subscription.state.next_revision)

    async def request_progress(self, *, timeout: float | None = None) -> Revision:
        """Return a revision up to which everything has arrived; a batch without events stands behind it all."""
        call = await self._driver.call_progress(self._subscription, timeout)
        return Revision(call.reply[2])

    def _take_up(self) -> None:
        """Go on after all batches were taken."""
        subscription = self._subscription
        subscription.buffered_bytes = 0
        if subscription.is_paused:
            self._driver.resume(subscription)
        if subscription.waiter is not None:
            raise trio.BusyResourceError("another task already waits for this watch")

    async def _wait(self) -> None:
        subscription = self._subscription
        self._take_up()
        while not subscription.batches:
            if subscription.error is not None:
                raise subscription.error
            await self._driver.wait_news(subscription)
