"""Blocking clients over real sockets, on a node whose state is real."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from tests.client.threaded_fakes import Listener, listening

import coord
from coord.client.blocking import BlockingClient
from coord.client.clock import Clock

from .machine_node import MachineNode


class HandClock:
    """The clock of sessions, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, client: BlockingClient, seconds: float) -> None:
        """Move it, and wake the client's keeper, whose sleep is by another clock."""
        self.now += seconds
        with client._keeper._changed:
            client._keeper._changed.notify()


def a_client(*listeners: Listener, seed: int = 1, timeout: float = 5.0, clock: Clock | None = None) -> BlockingClient:
    endpoints = [listener.endpoint for listener in listeners]
    return coord.connect_sync(endpoints, timeout=timeout, random=Random(seed), clock=clock or HandClock())


@contextmanager
def served() -> Iterator[tuple[MachineNode, Listener]]:
    node = MachineNode()
    with listening(node) as (listener,):
        yield node, listener


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """Begin `work` in a thread; what it raises goes into the list."""
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    return thread, raised


def ended(thread: threading.Thread) -> None:
    thread.join(5)
    assert not thread.is_alive()
