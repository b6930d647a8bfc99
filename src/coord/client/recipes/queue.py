"""A queue, for Trio programs."""

from __future__ import annotations

from random import Random

import trio

from coord.client.driver import Driver
from coord.client.recipes import queues
from coord.client.recipes.running import run
from coord.client.txn import Key, key_bytes, value_bytes


class Queue:
    """Items that are taken in the order in which they were put, each by one taker; made by `Client.queue`.

        jobs = client.queue("jobs")
        await jobs.put(b"resize 7.png")
        job = await jobs.get()

    Any number of programs may put and take. Tasks that share this object take in turn, and ask the cluster one at a
    time. What was taken is gone: who must not lose it when it crashes keeps it elsewhere first.
    """

    def __init__(self, driver: Driver, name: Key, random: Random) -> None:
        self._driver = driver
        self._prefix = key_bytes(name) + b"/"
        self._random = random
        self._turn = trio.StrictFIFOLock()

    async def put(self, value: bytes) -> None:
        """Put an item behind all others. Raises `OutcomeUnknown` if it may have been put."""
        value = value_bytes(value)
        while not await run(self._driver, queues.put(self._prefix, self._random.getrandbits(queues.ID_BITS), value)):
            pass

    async def get(self) -> bytes:
        """Wait for an item, take it, and return it; it goes on over any outage.

        A cancelled `get` has taken nothing, or returns what it took: it learns that before it ends, for which it may
        need as long as the client's timeout. Raises `OutcomeUnknown` if it could not learn it: the item may be lost.
        """
        async with self._turn:
            while True:
                for item in await run(self._driver, queues.first_items(self._prefix)):
                    await trio.lowlevel.checkpoint_if_cancelled()
                    # Cancelled between sending and answer, the item would be gone with nobody to have it.
                    with trio.CancelScope(shield=True):
                        is_taken = await run(self._driver, queues.take(item))
                    if is_taken:
                        return item.value
                    if is_taken is None:
                        # It is still there, and those behind it have to wait for it.
                        break
