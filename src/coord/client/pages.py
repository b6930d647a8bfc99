"""Reading an interval page by page at one revision."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self

from attrs import define, field

from coord.client.responses import RangeResponse
from coord.client.verbs import RangeOptions
from coord.types import KeyValue

Fetch = Callable[[bytes, RangeOptions], Awaitable[RangeResponse]]


@define(eq=False)
class Pages:
    """An asynchronous iterator over the pairs of an interval; it holds nothing that would have to be closed."""

    fetch: Fetch
    start: bytes
    options: RangeOptions
    _kvs: list[KeyValue] = field(factory=list)
    _position: int = 0
    _is_last: bool = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> KeyValue:
        if self._position == len(self._kvs):
            if self._is_last:
                raise StopAsyncIteration
            await self._turn()
        kv = self._kvs[self._position]
        self._position += 1
        return kv

    async def _turn(self) -> None:
        response = await self.fetch(self.start, self.options)
        if not response.kvs:
            raise StopAsyncIteration
        self._kvs, self._position = response.kvs, 0
        self._is_last = not response.more
        self.start = response.kvs[-1].key + b"\0"
        # The first page pins the revision; a page of a later one could miss or repeat a key.
        self.options["revision"] = self.options.get("revision") or response.header.revision
