"""The load of `coord check perf`: puts at a steady rate from many callers, and what became of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

import trio
from attrs import define, field, frozen

from coord.errors import ApiError, ClientError

KEY_BYTES = 256
VALUE_BYTES = 1024


class Putter(Protocol):
    """The one verb of a client that the load needs."""

    async def put(self, key: bytes, value: bytes) -> object:
        """Put a key."""


@frozen
class Model:
    """How hard to push: `rate` puts a second from `callers` at once."""

    rate: int
    callers: int


@define
class Report:
    """What became of the puts; times in seconds."""

    took_s: list[float] = field(factory=list)
    errors: Counter[str] = field(factory=Counter)
    lasted_s: float = 0.0

    @property
    def puts_per_second(self) -> float:
        """How many puts were answered a second."""
        return len(self.took_s) / self.lasted_s if self.lasted_s else 0.0

    @property
    def slowest_s(self) -> float:
        """How long the slowest put took."""
        return max(self.took_s, default=0.0)

    @property
    def deviation_s(self) -> float:
        """The standard deviation of how long puts took."""
        count = len(self.took_s)
        if not count:
            return 0.0
        mean = sum(self.took_s) / count
        return math.sqrt(sum((each - mean) ** 2 for each in self.took_s) / count)


async def push(
    clients: Sequence[Putter],
    model: Model,
    prefix: bytes,
    duration_s: float,
    random: Random,
    tick: Callable[[float], None],
) -> Report:
    """Put random keys below `prefix` for `duration_s` at the model's rate; `tick` is told the seconds gone by.

    The callers share the clients. A put that finds all callers busy waits, so that the rate falls rather than that
    puts pile up.
    """
    report = Report()
    started = trio.current_time()
    send, receive = trio.open_memory_channel[bytes](model.callers)
    async with trio.open_nursery() as nursery:
        for number in range(model.callers):
            nursery.start_soon(_call, clients[number % len(clients)], receive, report)
        async with send:
            await _feed(send, model.rate, prefix, duration_s, random, tick)
    report.lasted_s = trio.current_time() - started
    return report


async def _feed(
    send: trio.MemorySendChannel[bytes],
    rate: int,
    prefix: bytes,
    duration_s: float,
    random: Random,
    tick: Callable[[float], None],
) -> None:
    started = trio.current_time()
    for number in range(int(rate * duration_s)):
        due = started + number / rate
        if number % rate == 0:
            tick(number / rate)
        if due > trio.current_time():
            await trio.sleep_until(due)
        elif trio.current_time() - started >= duration_s:
            return
        with trio.move_on_at(started + duration_s):
            await send.send(prefix + random.randbytes(8) + bytes(KEY_BYTES - 8))


async def _call(client: Putter, receive: trio.MemoryReceiveChannel[bytes], report: Report) -> None:
    value = bytes(VALUE_BYTES)
    async for key in receive:
        sent = trio.current_time()
        try:
            await client.put(key, value)
        except (ApiError, ClientError) as error:
            report.errors[str(error)] += 1
        else:
            report.took_s.append(trio.current_time() - sent)
