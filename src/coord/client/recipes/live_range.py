"""A copy of an interval that follows the cluster, for the Trio client."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import trio

from coord.client.recipes.mirror import Mirror
from coord.client.watch import Watch
from coord.errors import ClientClosed, CoordError
from coord.types import KeyValue, Revision

if TYPE_CHECKING:
    from coord.client.client import Client

RELIST_PAUSE_S: Final = 0.5


class LiveRange:
    """The pairs of an interval, kept current: a read, and a watch from the revision after it on.

        async with LiveRange(client, b"api/", b"api0") as live:
            while not live.kvs:
                await live.next()

    Entering reads, and raises what a read raises. From then on no trouble of the cluster's is raised: while it is away,
    or when what the watch needs next is compacted, the copy stands as it was and `is_live` is False until it has been
    read anew. One task at a time may wait.
    """

    def __init__(self, client: Client, start: bytes, end: bytes, timeout: float | None) -> None:
        self._client = client
        self._start = start
        self._end = end
        self._timeout = timeout
        self._mirror = Mirror()
        self._watch: Watch | None = None

    async def __aenter__(self) -> Self:
        await self._list(self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._forget()

    @property
    def kvs(self) -> dict[bytes, KeyValue]:
        """The pairs by key, after all that has come by now."""
        if self._watch is not None:
            self._mirror.take(self._watch.take())
        return self._mirror.kvs

    @property
    def revision(self) -> Revision:
        """The revision that they show, or a later one at which they were the same."""
        return self._mirror.revision

    @property
    def is_live(self) -> bool:
        """A node tells of changes as they happen."""
        return self._watch is not None and self._watch.is_live

    async def next(self) -> None:
        """Wait until the pairs or `is_live` may have changed. Raises `ClientClosed`."""
        try:
            if self._watch is not None:
                self._mirror.take(await self._watch.news())
                return
            await self._list(None)
        except ClientClosed:
            raise
        except CoordError:
            # Whatever it is, an old copy serves better than none, and only time can tell whether it passes.
            if self._watch is None:
                await trio.sleep(RELIST_PAUSE_S)
            await self._forget()

    async def _list(self, timeout: float | None) -> None:
        found = await self._client.range_response(self._start, range_end=self._end, timeout=timeout)
        self._mirror.listed(found)
        # What happens between the two is in the watch's history.
        watch = self._client.watch(self._start, range_end=self._end, since=self.revision + 1, timeout=timeout)
        self._watch = await watch.__aenter__()

    async def _forget(self) -> None:
        if self._watch is not None:
            await self._watch.__aexit__(None, None, None)
            self._watch = None
