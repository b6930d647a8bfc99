"""The clock of sessions counts what a machine sleeps."""

from __future__ import annotations

import time

import trio

from coord.client.clock import boot_time

from .trio_fakes import a_client, a_network, run


def test_it_goes_on_while_the_machine_is_suspended() -> None:
    """S24: where there is such a clock, it is the one that is read."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    before, now, after = time.clock_gettime(clock), boot_time(), time.clock_gettime(clock)
    assert before <= now <= after


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
