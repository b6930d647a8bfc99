"""Observing who owns a name, in a thread."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from coord.client.recipes.blocking_live_range import BlockingLiveRange
from coord.client.recipes.blocking_running import LOOK_S
from coord.client.recipes.contending import interval_of
from coord.client.recipes.owners import Owner, owner_among
from coord.client.txn import Key, key_bytes

if TYPE_CHECKING:
    from coord.client.blocking import BlockingClient


class BlockingObservation(AbstractContextManager["BlockingObservation"]):
    """The owners of an election or a lock, one after the other; made by `BlockingClient.observe`.

        with client.observe("db/primary") as owners:
            for owner in owners:            # an Owner: key, value, fence, lease; None while there is nobody
                ...

    The first is who owns it now, be it None; then comes who does after each change of owner or proclaimed value. Who
    iterates slowly is told the newest, and may miss some in between. No owner is followed by an earlier one: each has
    a higher `fence`. It goes on over fail-over and compaction; while the cluster is away nothing comes, and `is_stale`
    says so: who was told last may have lost it. One thread at a time may iterate.
    """

    def __init__(self, client: BlockingClient, name: Key, timeout: float | None) -> None:
        self._prefix = key_bytes(name) + b"/"
        self._live = BlockingLiveRange(client, *interval_of(self._prefix), timeout)
        self._told: Owner | None = None
        self._has_told = False

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    @property
    def is_stale(self) -> bool:
        """The cluster cannot be heard, so that the owner may be another by now."""
        return not self._live.is_live

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Owner | None:
        return self.next()

    def next(self, timeout: float | None = None) -> Owner | None:
        """Return the owner once it is another than the one that was told last, or has another value.

        Raises `TimeoutError` after `timeout` seconds; None waits for ever.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            owner = owner_among(self._prefix, self._live.kvs.values())
            if not self._has_told or owner != self._told:
                self._told, self._has_told = owner, True
                return owner
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"no other owner within {timeout:g} s")
            self._live.next(min(left_s, LOOK_S))
