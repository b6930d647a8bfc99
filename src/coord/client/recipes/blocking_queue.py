"""A queue, for programs of threads."""

from __future__ import annotations

import math
import threading
import time

from coord.client import forks
from coord.client.blocking_calls import BlockingCalls
from coord.client.recipes import queues
from coord.client.recipes.blocking_running import Runner
from coord.client.recipes.steps import TimeIsUp
from coord.client.txn import Key, key_bytes, value_bytes


class BlockingQueue:
    """Items that are taken in the order in which they were put, each by one taker; made by `BlockingClient.queue`.

        jobs = client.queue("jobs")
        jobs.put(b"resize 7.png")
        job = jobs.get()

    Any number of programs may put and take. Threads that share this object take in turn, and ask the cluster one at a
    time. What was taken is gone: who must not lose it when it crashes keeps it elsewhere first.
    """

    def __init__(self, calls: BlockingCalls, name: Key) -> None:
        self._calls = calls
        self._prefix = key_bytes(name) + b"/"
        self._turn = threading.Lock()
        self._forks = forks.count()

    def put(self, value: bytes) -> None:
        """Put an item behind all others. Raises `OutcomeUnknown` if it may have been put."""
        value, random, runner = value_bytes(value), self._calls.rotation.random, Runner(self._calls)
        while not runner.run(queues.put(self._prefix, random.getrandbits(queues.ID_BITS), value)):
            pass

    def get(self, timeout: float | None = None) -> bytes:
        """Wait for an item, take it, and return it; it goes on over any outage.

        Raises `TimeoutError`, with nothing taken, if there is none within `timeout` seconds; None waits for ever.
        Raises `OutcomeUnknown` if it could not learn whether it took one: that may be lost, as it may be when Ctrl-C
        comes while it takes one.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        if self._forks != forks.count():
            # S21: the thread whose turn it was may not have been forked.
            self._forks, self._turn = forks.count(), threading.Lock()
        if not self._turn.acquire(timeout=-1 if timeout is None else max(timeout, 0.0)):
            raise TimeoutError(f"no item within {timeout:g} s: other threads wait for one")
        runner = Runner(self._calls)
        try:
            while True:
                for item in runner.run(queues.first_items(self._prefix), until):
                    is_taken = runner.run(queues.take(item))
                    if is_taken:
                        return item.value
                    if is_taken is None:
                        # It is still there, and those behind it have to wait for it.
                        break
        except TimeIsUp:
            raise TimeoutError(f"no item within {timeout:g} s") from None
        finally:
            self._turn.release()
