"""The blocking client among endpoints that are silent, slow or refuse."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random

import pytest

import coord
from coord.client.endpoints import STAGGER_S
from coord.errors import ConnectionFailed

from .fake_node import FakeNode
from .threaded_fakes import listening

SLACK_S = 0.5
"""What a busy machine may add."""


@contextmanager
def stopped(count: int) -> Iterator[list[str]]:
    """Ports of stopped processes: the kernel takes connections, nobody answers."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        yield [f"127.0.0.1:{one.getsockname()[1]}" for one in listeners]


@pytest.mark.parametrize("seed", range(3))
def test_silent_endpoints_hold_up_nobody_for_long(seed: int) -> None:
    with listening(FakeNode()) as (listener,), stopped(2) as silent:
        endpoints = [*silent, listener.endpoint]
        with coord.connect_sync(endpoints, random=Random(seed)) as client:
            for _ in range(2):
                started = time.monotonic()
                client.put("k", b"v")
                assert time.monotonic() - started < 2 * STAGGER_S + SLACK_S
                listener.hang_up()


def test_a_slow_endpoint_is_waited_for_while_the_others_refuse() -> None:
    """Its hello comes after several rounds of the others."""
    with listening(FakeNode()) as (listener,):

        def hold_up(until: threading.Event) -> None:
            with listener.lock:
                is_held.set()
                until.wait(5)

        is_held, until = threading.Event(), threading.Event()
        holder = threading.Thread(target=hold_up, args=(until,))
        holder.start()
        is_held.wait(5)
        timer = threading.Timer(0.7, until.set)
        timer.start()
        with coord.connect_sync(["127.0.0.1:1", listener.endpoint], random=Random(1), timeout=5.0) as client:
            assert client.put("k", b"v") == 2
        holder.join()
        timer.join()
        assert len(listener.connections) == 1


def test_nobody_who_answers_costs_the_timeout_and_is_named() -> None:
    with stopped(2) as silent, coord.connect_sync(silent, timeout=0.6) as client:
        started = time.monotonic()
        with pytest.raises(ConnectionFailed, match=f"{silent[0]}: no answer yet; {silent[1]}: no answer yet"):
            client.get("k")
        assert 0.5 < time.monotonic() - started < 0.6 + SLACK_S


def test_each_address_of_a_host_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(FakeNode()) as (listener,):
        real = socket.getaddrinfo

        def two_addresses(host: str, port: int, **options: int) -> list[object]:
            return [*real("127.0.0.1", 1, **options), *real("127.0.0.1", port, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
        with coord.connect_sync(f"two.example:{listener.port}", timeout=2.0) as client:
            assert client.put("k", b"v") == 2
