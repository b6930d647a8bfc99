"""The clock of sessions counts what a machine sleeps."""

from __future__ import annotations

import time

import pytest
import trio

from coord.client.clock import boot_time

from .trio_fakes import a_client, a_network, run


def test_it_goes_on_while_the_machine_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """S24: where there is a clock that does, it is the one that is read. On a machine that never slept two agree."""
    asked: list[int] = []
    monkeypatch.setattr(time, "clock_gettime", lambda which: asked.append(which) or 7.0)
    assert boot_time() == 7.0
    assert asked == [getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)]


def test_it_is_a_clients_unless_another_is_given() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:7379")
        async with a_client(network) as client:
            assert client.clock is boot_time
        async with a_client(network, clock=trio.current_time) as client:
            assert client.clock is trio.current_time
            async with client._probe("n1:7379", None) as probe:
                assert probe.clock is trio.current_time

    run(test)
